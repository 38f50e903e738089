//! Files that are small when they are what they should be: whoever hands over a folder does not decide
//! how much of it is held in memory.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// The largest of them: what was kept of entries that were archived.
const MAX_BYTES: u64 = 256 << 20;

/// Reads one.
///
/// # Errors
/// As [`std::fs::read`]; and, as `InvalidData`, when it is too large or no file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_or_too_large_is_not_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let large = folder.path().join("large");
        let file = File::create(&large).expect("a file");
        file.set_len(MAX_BYTES + 1).expect("it takes no room");
        for path in [large.as_path(), folder.path()] {
            let error = read(path).expect_err("it is not read");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{path:?}");
        }
    }
}
