//! `sandcast audit export` and `sandcast audit prove`: what an auditor is given.

use std::path::{Path, PathBuf};

use clap::Args;
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use sandcast_audit::{AuditLog, Event, Period};
use sandcast_sandbox::{Recording, Recordings};

use crate::{
    failure::{Exit, Failure, OrReject as _},
    output::Output,
    table::count,
};

#[derive(Debug, Args)]
pub(super) struct ExportArguments {
    /// The folder to make; there must be nothing of that name
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// Only entries from this time on: 2026-11-21 or 2026-11-21T20:15:30Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Only entries from before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
    /// With what was recorded of plugins, so that `sandcast replay --from` can show it again. It
    /// holds their data: rows, models, answers over HTTP
    #[arg(long)]
    pub(super) recordings: bool,
}

/// A day means its first moment in UTC, as the entries count time.
pub(super) fn time(text: &str) -> Result<Timestamp, jiff::Error> {
    match text.parse::<Timestamp>() {
        Ok(time) => Ok(time),
        Err(error) => match text.parse::<Date>() {
            Ok(day) => Ok(day.to_zoned(TimeZone::UTC)?.timestamp()),
            Err(_) => Err(error),
        },
    }
}

pub(super) fn export(
    log: &AuditLog,
    state: &Path,
    arguments: &ExportArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let period = Period {
        since: arguments.since,
        until: arguments.until,
    };
    let report = sandcast_audit::export(log, &arguments.folder, period).or_reject()?;
    let (first, last) = report.present;
    let recordings = match (arguments.recordings, state.parent()) {
        (true, Some(state)) => Some(copy_recordings(
            &state.join("recordings"),
            &arguments.folder,
        )?),
        _ => None,
    };
    if output.wants_json() {
        output.json(&serde_json::json!({
            "folder": arguments.folder,
            "first": first,
            "last": last,
            "entries": report.verified.entries,
            "root": report.verified.root,
            "key": report.verified.key,
            "tiles": report.tiles,
            "texts": report.texts,
            "earlier": report.earlier,
            "recordings": recordings,
        }))?;
        return Ok(Exit::Done);
    }
    output.line(format_args!(
        "{}: entries {} to {} of {}, with the tree of all; checkpoints: {}",
        arguments.folder.display(),
        count(first),
        count(last),
        count(report.verified.entries),
        count(report.verified.checkpoints),
    ))?;
    output.line(format_args!(
        "texts: {}, such as pipelines and policies that these entries name",
        count(report.texts)
    ))?;
    if report.earlier > 0 {
        output.line(format_args!(
            "earlier entries: {}, which say how plugins were loaded, who has access, what was approved, standings and \
             models",
            count(report.earlier)
        ))?;
    }
    if let Some(Copied {
        recordings,
        files,
        bytes,
        missing,
    }) = &recordings
    {
        output.line(format_args!(
            "recordings: {}, in {} files of {}",
            count(*recordings),
            count(*files),
            crate::table::bytes(*bytes)
        ))?;
        if !missing.is_empty() {
            output.warn(format_args!(
                "{} that the log names are not there any more, or were changed: {}",
                count(missing.len() as u64),
                missing.join(", ")
            ));
        }
    }
    if let Some(key) = &report.verified.key {
        output.note(format_args!(
            "an auditor who has the key in another way than with the folder says\n  \
             sandcast audit verify {} --key {key}",
            arguments.folder.display()
        ));
    }
    Ok(Exit::Done)
}

/// What went along with an export.
#[derive(Debug, Default, serde::Serialize)]
struct Copied {
    recordings: u64,
    files: u64,
    bytes: u64,
    /// Recordings of which something is missing or was changed; they are left out.
    missing: Vec<String>,
}

/// Copies the recordings that an export names, with all that a replay of them needs.
fn copy_recordings(from: &Path, export: &Path) -> Result<Copied, Failure> {
    let (from, to) = (
        Recordings::at(from),
        Recordings::at(export.join("recordings")),
    );
    let mut copied = Copied::default();
    for entry in sandcast_audit::read(export)? {
        let Event::Recorded { recording, .. } = entry?.event else {
            continue;
        };
        let Ok(read) = Recording::read(&from, &recording) else {
            copied.missing.push(recording.short());
            continue;
        };
        let mut parts = read.parts();
        parts.push(recording);
        parts.retain(|part| !to.has(part));
        // Nothing of a recording goes along unless all of it does.
        if parts.iter().any(|part| from.get(part).is_err()) {
            copied.missing.push(recording.short());
            continue;
        }
        for part in parts {
            let bytes = from.get(&part).or_reject()?;
            to.put(&bytes)?;
            copied.files += 1;
            copied.bytes += bytes.len() as u64;
        }
        copied.recordings += 1;
    }
    Ok(copied)
}

#[derive(Debug, Args)]
pub(super) struct ProveArguments {
    /// The number of the entry to prove, as `show` prints it
    #[arg(value_name = "SEQUENCE", required_unless_present = "since_checkpoint")]
    sequence: Option<u64>,
    /// Prove that the log of the checkpoint of N entries is the start of this one
    #[arg(long, value_name = "N", conflicts_with = "sequence")]
    since_checkpoint: Option<u64>,
    /// Of the checkpoint of this many entries [default: the last checkpoint]
    #[arg(long, value_name = "N", requires = "since_checkpoint")]
    to_checkpoint: Option<u64>,
    /// From an export or another folder of a log, not from the state
    #[arg(long, value_name = "FOLDER")]
    from: Option<PathBuf>,
}

pub(super) fn prove(
    folder: impl FnOnce() -> Result<PathBuf, Failure>,
    arguments: &ProveArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let folder = match &arguments.from {
        Some(folder) => folder.clone(),
        None => folder()?,
    };
    let proof = match (arguments.sequence, arguments.since_checkpoint) {
        (Some(sequence), _) => sandcast_audit::prove_inclusion(&folder, sequence),
        (None, size) => {
            let size = size.unwrap_or_default();
            sandcast_audit::prove_consistency(&folder, size, arguments.to_checkpoint)
        }
    };
    output.json(&proof.or_reject()?)?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_its_first_moment_in_utc() {
        let moment = time("2026-11-21T00:00:00Z").expect("a time");
        assert_eq!(time("2026-11-21").expect("a day"), moment);
        assert!(time("yesterday").is_err());
    }
}
