//! `sandcast audit`: the record of what every plugin was granted and did.

mod hand_over;
mod keys;
mod origin;
mod plugin;
mod retain;
mod show;
mod text;
pub(crate) mod verify;
mod who;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use sandcast_access::{Action, Resource};
use sandcast_audit::AuditLog;

use crate::{
    access::Need,
    arguments::GlobalArguments,
    failure::{Exit, Failure, OrReject as _},
    output::Output,
    state,
};

const EXAMPLES: &str = "\
Examples:
  sandcast audit verify                          is every entry as it was written, and none missing?
  sandcast audit show                            the last 50 entries, a line each
  sandcast audit show --run 20261121-201530-4f3a9c --all
  sandcast audit show --event denied --json | jq .   what was refused, to whom
  sandcast audit key show                        the public key, for an auditor
  sandcast audit show --from ../for-the-auditor --key sandcast/0a1b2c3d+1f2e3d4c+AQ...
  sandcast audit export ../for-the-auditor       a folder that can be checked without this one
  sandcast audit verify ../for-the-auditor --key sandcast/0a1b2c3d+1f2e3d4c+AQ...
  sandcast audit export --recordings ../evidence     and with what can be replayed
  sandcast audit who credit-risk@2               who allowed it, from the record alone
  sandcast audit plugin acme/fetch --since 2026-11-01    what it could do, did, and who allowed it
  sandcast audit plugin --from ../evidence --key sandcast/0a1b2c3d+1f2e3d4c+AQ... acme/fetch
  sandcast audit text 4fd1e8                     the policies or the pipeline that an entry names
  sandcast audit forget --before 2026-08-01      recordings hold people's data; these are let go
  sandcast audit archive ../log-2026 --before 2027-01-01     old entries leave, and stay provable
  sandcast audit prove 42 > proof.json           one entry, shown to be in the log
  sandcast audit verify --proof proof.json --key sandcast/0a1b2c3d+1f2e3d4c+AQ...

Each entry holds the digest of the one before it, and at the start and the end of each run a
checkpoint of all of them is signed. The private key lies beside the log, never in it: whoever
rewrites the log without it is found out by anybody who has the public key. Whoever has it can tell
another story only to those who keep no checkpoint: keep one, and give it to `verify --checkpoint`.";

/// Verify, read, sign or hand over the audit log
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AuditArguments {
    #[command(subcommand)]
    action: AuditAction,
}

#[derive(Debug, Subcommand)]
enum AuditAction {
    /// Check the log, an export or a proof; exit 1 names the first thing that is not as it was written
    Verify(verify::VerifyArguments),
    /// Print entries, oldest first
    Show(show::ShowArguments),
    /// Sign a checkpoint of everything so far and print it
    Checkpoint,
    /// The keys that sign the log
    Key(keys::KeyArguments),
    /// Write a folder that an auditor can check with the public key alone
    Export(hand_over::ExportArguments),
    /// Take recordings away that were made before a day; what the log says of them stays
    Forget(retain::ForgetArguments),
    /// Take the entries from before a day out of the log, into a folder that can be checked
    Archive(retain::ArchiveArguments),
    /// Print what entries name by a digest: a pipeline, the ceiling, rules of trust, policies, a model
    Text(text::TextArguments),
    /// Say who allowed what, when, and by which policy or approval
    Who(who::WhoArguments),
    /// Say what plugins could do, what they did, and who allowed it
    Plugin(plugin::PluginArguments),
    /// Print a proof that an entry is in the log, or that an older log is the start of this one
    Prove(hand_over::ProveArguments),
}

impl AuditArguments {
    pub(crate) fn need(&self, global: &GlobalArguments) -> Option<Need> {
        let action = match &self.action {
            // What somebody was given is theirs to check.
            AuditAction::Verify(arguments) if arguments.is_elsewhere() => return None,
            AuditAction::Text(arguments) if arguments.is_elsewhere() => return None,
            AuditAction::Who(arguments) if arguments.is_elsewhere() => return None,
            AuditAction::Show(arguments) if arguments.is_elsewhere() => return None,
            AuditAction::Plugin(arguments) if arguments.is_elsewhere() => return None,
            AuditAction::Verify(_)
            | AuditAction::Text(_)
            | AuditAction::Who(_)
            | AuditAction::Show(_)
            | AuditAction::Plugin(_)
            | AuditAction::Checkpoint
            | AuditAction::Prove(_) => Action::AuditRead,
            // It asks by itself, for what it does is on record.
            AuditAction::Forget(arguments) => {
                arguments.looks_only().then_some(Action::AuditRead)?
            }
            AuditAction::Archive(arguments) => {
                arguments.looks_only().then_some(Action::AuditRead)?
            }
            AuditAction::Key(arguments) => arguments.looks_only().then_some(Action::AuditRead)?,
            AuditAction::Export(arguments) => match arguments.recordings {
                true => Action::RecordingRead,
                false => Action::Export,
            },
        };
        super::in_state(global, action, Resource::state())
    }
}

pub(crate) async fn execute(
    arguments: &AuditArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    // An export or a proof is checked where there is no state.
    match &arguments.action {
        AuditAction::Verify(arguments) => return verify::execute(arguments, global, output),
        AuditAction::Text(arguments) => return text::execute(arguments, global, output),
        AuditAction::Who(arguments) => return who::execute(arguments, global, output),
        AuditAction::Show(arguments) => return show::execute(arguments, global, output),
        AuditAction::Plugin(arguments) => return plugin::execute(arguments, global, output),
        _ => {}
    }
    let folder = || -> Result<PathBuf, Failure> {
        Ok(state::nearest(global.state.as_deref())?.join("audit"))
    };
    match &arguments.action {
        AuditAction::Verify(_)
        | AuditAction::Text(_)
        | AuditAction::Who(_)
        | AuditAction::Show(_)
        | AuditAction::Plugin(_) => Ok(Exit::Done),
        AuditAction::Checkpoint => keys::checkpoint(&open(folder()?)?, output),
        AuditAction::Key(arguments) => keys::execute(&folder()?, arguments, global, output).await,
        AuditAction::Export(arguments) => {
            let folder = folder()?;
            hand_over::export(&open(folder.clone())?, &folder, arguments, output)
        }
        AuditAction::Forget(arguments) => {
            retain::forget(&folder()?, arguments, global, output).await
        }
        AuditAction::Archive(arguments) => {
            retain::archive(&folder()?, arguments, global, output).await
        }
        AuditAction::Prove(arguments) => hand_over::prove(folder, arguments, output),
    }
}

/// Opens a log that is there for writing.
fn open(folder: PathBuf) -> Result<AuditLog, Failure> {
    if !folder.join("log.jsonl").is_file() {
        return Err(Failure::rejected_because(
            format_args!("there is no audit log in {}", folder.display()),
            "`sandcast run` begins one",
        ));
    }
    AuditLog::open(&folder).or_reject()
}
