//! `sandcast audit forget` and `sandcast audit archive`: recordings and entries that are older than
//! they are to be kept.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use sandcast_access::{Action, Resource};
use sandcast_audit::{Archivable, Digest, Event};
use sandcast_factory::conduct::Conduct;
use sandcast_sandbox::{Recording, Recordings};

use super::{hand_over::time, open};
use crate::{
    access::demand_in,
    arguments::GlobalArguments,
    failure::{Exit, Failure, OrReject as _},
    output::Output,
    table::{bytes, count},
};

const FORGETTING: &str = "\
Recordings hold the data of calls: questions, rows, answers over HTTP. The log holds their digests, so it
stays whole without them, and `verify` does not miss them. `replay` then says that they were removed.

What a younger recording refers to stays, and so do components. What was kept of a call whose recording
was never finished goes with the rest.";

#[derive(Debug, Args)]
#[command(after_help = FORGETTING)]
pub(super) struct ForgetArguments {
    /// Recordings made before this time: 2026-08-01 or 2026-08-01T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    before: Timestamp,
    /// Only say what would be taken away
    #[arg(long)]
    dry_run: bool,
}

impl ForgetArguments {
    /// Whether nothing is changed.
    pub(super) fn looks_only(&self) -> bool {
        self.dry_run
    }
}

const ARCHIVING: &str = "\
The log stays as provable as it was: the hashes of what leaves stay, so each checkpoint and each proof
still holds, and `verify` checks all of it. The archive is an export: `sandcast audit verify FOLDER --key
KEY` checks it, `show`, `who` and `prove` read it, and who deletes it deletes those entries for good.

What says which keys sign the log and how far plugins are trusted stays in the log as well. What plugins
usually do was learned from entries; it is kept, and would be learned anew from what is left should
conduct.sqlite get lost. Entries leave in tiles of 256, the oldest first.

Runs and servers need not stop; those of a version before this command must.";

#[derive(Debug, Args)]
#[command(after_help = ARCHIVING)]
pub(super) struct ArchiveArguments {
    /// The folder to make; there must be nothing of that name
    #[arg(value_name = "FOLDER", required_unless_present = "dry_run")]
    folder: Option<PathBuf>,
    /// Entries from before this time: 2026-08-01 or 2026-08-01T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    before: Timestamp,
    /// Only say what would leave
    #[arg(long)]
    dry_run: bool,
}

impl ArchiveArguments {
    /// Whether nothing is changed.
    pub(super) fn looks_only(&self) -> bool {
        self.dry_run
    }
}

pub(super) async fn archive(
    log: &Path,
    arguments: &ArchiveArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let audit = open(log.to_path_buf())?;
    let state = log.parent().unwrap_or(log);
    let before = arguments.before;
    if before > Timestamp::now() {
        return Err(Failure::rejected_because(
            format_args!("{before} is yet to come"),
            "give a time up to now",
        ));
    }
    // Where there is nothing to archive, nobody is asked and nothing is on record.
    let would = sandcast_audit::archivable(&audit, before).or_reject()?;
    let folder = match &arguments.folder {
        Some(folder) if !arguments.dry_run => folder,
        _ => {
            tell(would, before, None, output)?;
            return Ok(Exit::Done);
        }
    };
    demand_in(
        global,
        state,
        audit.clone(),
        Action::LogArchive,
        &Resource::state(),
        None,
    )
    .await?;
    // What entries say of plugins is taken in before they leave.
    Conduct::of_state(state)?.catch_up()?;
    let report = sandcast_audit::archive(&audit, folder, before).or_reject()?;
    tell(report.archived, before, Some(folder), output)?;
    if let Some(key) = &report.export.verified.key {
        output.note(format_args!(
            "keep the folder where it is safe; who has the key checks it with\n  \
             sandcast audit verify {} --key {key}",
            folder.display()
        ));
    }
    Ok(Exit::Done)
}

fn tell(
    entries: Archivable,
    before: Timestamp,
    folder: Option<&PathBuf>,
    output: &Output,
) -> Result<(), Failure> {
    if output.wants_json() {
        output.json(&serde_json::json!({
            "before": before.to_string(),
            "first": entries.first,
            "last": entries.last,
            "bytes": entries.bytes,
            "folder": folder,
            "archived": folder.is_some(),
        }))?;
        return Ok(());
    }
    output.line(format_args!(
        "entries {} to {} from before {before}, {}, {}",
        count(entries.first),
        count(entries.last),
        bytes(entries.bytes),
        match folder {
            None => "would leave".to_owned(),
            Some(folder) => format!("left; they are in {}", folder.display()),
        }
    ))?;
    Ok(())
}

pub(super) async fn forget(
    log: &Path,
    arguments: &ForgetArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let audit = open(log.to_path_buf())?;
    let state = log.parent().unwrap_or(log);
    let recordings = Recordings::at(state.join("recordings"));
    let before = arguments.before;
    if before > Timestamp::now() {
        return Err(Failure::rejected_because(
            format_args!("{before} is yet to come"),
            "give a time up to now; who makes recordings now would lose them half-made",
        ));
    }
    let (mut keep, mut old) = (BTreeSet::new(), BTreeSet::new());
    for entry in sandcast_audit::read(log).or_reject()? {
        let entry = entry.or_reject()?;
        let Event::Recorded {
            recording, plugin, ..
        } = entry.event
        else {
            continue;
        };
        // A plugin that is loaded goes on referring to its component.
        keep.insert(plugin.digest);
        if time(&entry.time).is_ok_and(|made| made < before) {
            old.insert(recording);
        } else {
            keep.insert(recording);
            keep.extend(parts_of(&recordings, &recording)?);
        }
    }
    let found = recordings.others(&keep, before.into())?;
    let removed = found.iter().filter(|(digest, _)| old.contains(digest));
    let (number, size) = (
        removed.count() as u64,
        found.iter().map(|(_, bytes)| bytes).sum::<u64>(),
    );
    if !arguments.dry_run && !found.is_empty() {
        demand_in(
            global,
            state,
            audit.clone(),
            Action::RecordingRemove,
            &Resource::state(),
            None,
        )
        .await?;
        audit.append(Event::RecordingsRemoved {
            before: before.to_string(),
            recordings: number,
            files: found.len() as u64,
            bytes: size,
        })?;
        for (digest, _) in &found {
            recordings.remove(digest)?;
        }
    }
    if output.wants_json() {
        output.json(&serde_json::json!({
            "before": before.to_string(),
            "recordings": number,
            "files": found.len(),
            "bytes": size,
            "removed": !arguments.dry_run,
        }))?;
    } else {
        output.line(format_args!(
            "{} recordings from before {before}, in {} files of {}{}",
            count(number),
            count(found.len() as u64),
            bytes(size),
            if arguments.dry_run {
                ", would be removed"
            } else {
                ", are removed"
            }
        ))?;
    }
    Ok(Exit::Done)
}

/// What a recording refers to; nothing of one that is not there any more.
fn parts_of(recordings: &Recordings, recording: &Digest) -> Result<Vec<Digest>, Failure> {
    if !recordings.has(recording) {
        return Ok(Vec::new());
    }
    // One that cannot be read may refer to anything, so nothing is taken away.
    Ok(Recording::read(recordings, recording).or_reject()?.parts())
}
