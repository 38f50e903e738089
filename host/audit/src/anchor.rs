//! What was signed last here, in a file beside the folder of the log and never in it: `audit.signed`
//! for the folder `audit`.
//!
//! Whoever may write the folder, and not what lies beside it, can rewrite the log with its head and take
//! its checkpoints away. The next opening would then sign what it finds. So it goes on from here, and
//! signs nothing that does not follow from what it signed before.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::head::{Head, write_at};
use crate::{key_file, small};

/// Where it lies.
pub(crate) fn path(dir: &Path) -> PathBuf {
    key_file::with_ending(dir, ".signed")
}

/// Reads where the log ended when it was signed last. None when that is not known: nothing was signed
/// since this is kept, or a loss of power left it incomplete.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn load(dir: &Path) -> io::Result<Option<Head>> {
    match small::read(&path(dir)) {
        Ok(bytes) => {
            let found = Head::from_place(&bytes);
            if found.is_none() {
                tracing::warn!(
                    file = %path(dir).display(),
                    "where the audit log was signed last is not known: the file is not whole"
                );
            }
            Ok(found)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes it, over what is there. Should it not reach the disk, an older one does as well, unless the
/// entry that the older one names leaves the log: then `sync` is wanted.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn store(dir: &Path, head: &Head, sync: bool) -> io::Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path(dir))?;
    write_at(&file, &head.to_place()?, 0)?;
    if sync { file.sync_data() } else { Ok(()) }
}
