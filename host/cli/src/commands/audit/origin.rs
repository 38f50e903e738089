//! Which log is read: that of the state, or one that somebody was handed, which is verified first.

use std::path::{Path, PathBuf};

use clap::Args;
use sandcast_audit::{Entry, SignedCheckpoint, Trust, VerifierKey};

use super::verify::{kept, require_signed};
use crate::{
    arguments::GlobalArguments,
    failure::{Failure, OrReject as _},
    output::Output,
    state,
    table::count,
};

#[derive(Debug, Args)]
pub(super) struct OriginArguments {
    /// An export, an archive, or a folder with a log [default: the log of the state]; it is verified first
    #[arg(long, value_name = "FOLDER", requires = "key")]
    from: Option<PathBuf>,
    /// A public key that you have from the operator, not from the folder
    #[arg(long, value_name = "KEY", requires = "from")]
    key: Vec<VerifierKey>,
    /// A checkpoint that you kept: the log must still contain it
    #[arg(long, value_name = "FILE", requires = "from")]
    checkpoint: Vec<PathBuf>,
}

impl OriginArguments {
    /// Whether what is read is not the log of the state.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.from.is_some()
    }

    /// The folder of the log.
    pub(super) fn folder(
        &self,
        global: &GlobalArguments,
        output: &Output,
    ) -> Result<PathBuf, Failure> {
        let Some(folder) = &self.from else {
            return Ok(state::nearest(global.state.as_deref())?.join("audit"));
        };
        let checkpoints: Vec<SignedCheckpoint> = self
            .checkpoint
            .iter()
            .map(|path| kept(path))
            .collect::<Result<_, _>>()?;
        let trust = Trust {
            keys: self.key.clone(),
            checkpoints,
        };
        let report = sandcast_audit::verify_with(folder, &trust).or_reject()?;
        require_signed(&report)?;
        output.note(format_args!(
            "verified: {} entries, all of them signed",
            count(report.entries)
        ));
        Ok(folder.clone())
    }

    /// All entries of the log that are there.
    pub(super) fn record(
        &self,
        global: &GlobalArguments,
        output: &Output,
    ) -> Result<Record, Failure> {
        let folder = self.folder(global, output)?;
        let entries = sandcast_audit::read(&folder).or_reject()?;
        Ok(Record {
            entries: entries.collect::<Result<_, _>>().or_reject()?,
            archived: sandcast_audit::archived_entries(&folder).or_reject()?,
            begins: sandcast_audit::first_entry(&folder).or_reject()?,
        })
    }

    /// Says what of the log is somewhere else by now.
    pub(super) fn note_archived(&self, folder: &Path, output: &Output) -> Result<(), Failure> {
        note_archived(
            sandcast_audit::archived_entries(folder).or_reject()?,
            output,
        );
        Ok(())
    }
}

/// What is read of a log.
pub(super) struct Record {
    /// The entries that are there, oldest first.
    pub(super) entries: Vec<Entry>,
    /// How many came before them and were archived; a few of these are there all the same.
    archived: u64,
    /// The first entry from which on they are all there: 1 where nothing is missing before it.
    begins: u64,
}

impl Record {
    /// The first entry from which on they are all there.
    pub(super) fn begins(&self) -> u64 {
        self.begins
    }

    /// Says what came before, and is not told of.
    pub(super) fn note_beginning(&self, output: &Output) {
        let begins = self.begins();
        if self.archived == 0 && begins > 1 {
            output.note(format_args!(
                "this export begins with entry {}: of those before it there are only those that say how plugins were \
                 loaded last, who has access, what was approved, standings and models; an export of the whole \
                 log has the others",
                count(begins)
            ));
        }
        note_archived(self.archived, output);
    }
}

fn note_archived(archived: u64, output: &Output) {
    if archived > 0 {
        output.note(format_args!(
            "entries 1 to {} were archived, and this is what came after them; an archive is read with \
             --from FOLDER --key KEY",
            count(archived)
        ));
    }
}
