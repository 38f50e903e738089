//! `sandcast audit key` and `sandcast audit checkpoint`: what signs the log, and signing it now.

use std::path::Path;

use clap::{Args, Subcommand};
use sandcast_access::{Action, Resource};
use sandcast_audit::{AuditLog, Event, VerifierKey, VerifyReport};

use super::open;
use crate::{
    access::demand_apart,
    arguments::GlobalArguments,
    failure::{Exit, Failure, OrReject as _},
    output::Output,
};

const KEYS: &str = "\
A new log has a key from its first entry. The private key is the file `audit.key` in the state
folder, one line that only its owner may read; copy it to where a lost disk does not take it along.
Give auditors the public key in another way than with the log.

Lost, or no longer to be trusted? `sandcast audit key new --reason \"...\"` makes another. The log
says so, no signature of the old key vouches for the new one, and `verify` rejects the log for
everybody who was not told the new key.";

#[derive(Debug, Args)]
#[command(after_help = KEYS)]
pub(super) struct KeyArguments {
    #[command(subcommand)]
    action: KeyAction,
}

#[derive(Debug, Subcommand)]
enum KeyAction {
    /// Print the public key, in the form that `verify --key` takes, and how it came to be
    Show,
    /// Go on with a new key that the old one vouches for; the old private key is gone afterwards
    Rotate,
    /// Make a first key, or one in place of a key that is lost or no longer to be trusted
    New {
        /// What happened to the old key; the log keeps it, for auditors to read
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

impl KeyArguments {
    /// Whether nothing is changed.
    pub(super) fn looks_only(&self) -> bool {
        matches!(self.action, KeyAction::Show)
    }
}

/// Lets a change of the key through, and gives what says so. A log whose key is lost cannot be told
/// before it has another one, so that goes into it with the change.
async fn allow(
    folder: &Path,
    action: Action,
    global: &GlobalArguments,
) -> Result<Vec<Event>, Failure> {
    let state = folder.parent().unwrap_or(folder);
    let resource = Resource::state();
    let waiting = AuditLog::in_memory();
    let allowed = demand_apart(global, state, waiting.clone(), action, &resource).await;
    let told = waiting.entries()?.into_iter().map(|entry| entry.event);
    let told: Vec<Event> = told.collect();
    match allowed {
        Ok(_) => Ok(told),
        Err(failure) => {
            // A log that cannot be written cannot be told of the refusal either.
            if record(folder, told).is_err() {
                tracing::warn!("the refusal is not in the audit log, which cannot be written");
            }
            Err(failure)
        }
    }
}

fn record(folder: &Path, events: Vec<Event>) -> Result<(), Failure> {
    AuditLog::open(folder)?.append_all(events)?;
    Ok(())
}

pub(super) async fn execute(
    folder: &Path,
    arguments: &KeyArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    match &arguments.action {
        KeyAction::Show => {
            let report = sandcast_audit::verify(folder).or_reject()?;
            let Some(key) = &report.key else {
                return Err(Failure::rejected_because(
                    "this log has no key yet",
                    "`sandcast audit key new` makes one, and so does the next run",
                ));
            };
            show(key, &report, output)
        }
        KeyAction::Rotate => {
            let log = open(folder.to_path_buf())?;
            record(folder, allow(folder, Action::KeyRotate, global).await?)?;
            let key = log.rotate_key().or_reject()?;
            told(&key, "the key before it vouches for it", output)
        }
        KeyAction::New { reason } => {
            // A log from before there were keys has none.
            let has_key = folder.join("log.jsonl").is_file()
                && sandcast_audit::verify(folder).or_reject()?.key.is_some();
            match reason {
                Some(reason) if has_key => {
                    let allowed = allow(folder, Action::KeyNew, global).await?;
                    let key = AuditLog::replace_key(folder, reason, allowed).or_reject()?;
                    told(
                        &key,
                        "tell every auditor, in another way than with the log",
                        output,
                    )
                }
                None if has_key => Err(Failure::rejected_because(
                    "this log has a key already",
                    "`sandcast audit key rotate` changes it; if it is lost or stolen, say so with --reason",
                )),
                _ => {
                    record(folder, allow(folder, Action::KeyNew, global).await?)?;
                    let key = AuditLog::open(folder).or_reject()?.key();
                    let key = key.ok_or(sandcast_audit::AuditError::NoKey)?;
                    told(
                        &key,
                        "give it to auditors, in another way than with the log",
                        output,
                    )
                }
            }
        }
    }
}

fn show(key: &VerifierKey, report: &VerifyReport, output: &Output) -> Result<Exit, Failure> {
    if output.wants_json() {
        output.json(&serde_json::json!({
            "key": key,
            "name": key.name(),
            "rotations": report.rotations,
            "replacements": report.replacements,
        }))?;
        return Ok(Exit::Done);
    }
    output.line(key)?;
    if !report.rotations.is_empty() {
        output.note(format_args!(
            "signed by the key before it at the entries {:?}",
            report.rotations
        ));
    }
    if !report.replacements.is_empty() {
        output.warn(format_args!(
            "replaced without that at the entries {:?}: `sandcast audit show --event key-replaced`",
            report.replacements
        ));
    }
    Ok(Exit::Done)
}

fn told(key: &VerifierKey, what: &str, output: &Output) -> Result<Exit, Failure> {
    if output.wants_json() {
        output.json(&serde_json::json!({ "key": key, "name": key.name() }))?;
    } else {
        output.line(key)?;
        output.note(format_args!("this key signs from now on; {what}"));
    }
    Ok(Exit::Done)
}

pub(super) fn checkpoint(log: &AuditLog, output: &Output) -> Result<Exit, Failure> {
    let signed = log.checkpoint().or_reject()?;
    if output.wants_json() {
        let checkpoint = signed.checkpoint();
        output.json(&serde_json::json!({
            "origin": checkpoint.origin,
            "size": checkpoint.size,
            "root": checkpoint.root,
            "note": signed.text(),
        }))?;
    } else {
        output.text(signed.text())?;
    }
    Ok(Exit::Done)
}
