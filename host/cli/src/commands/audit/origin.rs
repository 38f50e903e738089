//! Which log is read: that of the state, or one that somebody was handed, which is verified first.

use std::path::PathBuf;

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

    /// All entries of the log, and its folder.
    pub(super) fn entries(
        &self,
        global: &GlobalArguments,
        output: &Output,
    ) -> Result<(PathBuf, Vec<Entry>), Failure> {
        let folder = self.folder(global, output)?;
        let entries = sandcast_audit::read(&folder).or_reject()?;
        Ok((folder, entries.collect::<Result<_, _>>().or_reject()?))
    }

    /// Says what of the log is somewhere else by now.
    pub(super) fn note_archived(
        &self,
        folder: &std::path::Path,
        output: &Output,
    ) -> Result<(), Failure> {
        let archived = sandcast_audit::archived_entries(folder).or_reject()?;
        if archived > 0 {
            output.note(format_args!(
                "entries 1 to {} were archived, and this is what came after them; an archive is read with \
                 --from FOLDER --key KEY",
                count(archived)
            ));
        }
        Ok(())
    }
}
