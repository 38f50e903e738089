//! `sandcast plugins`: what plugins usually do, and how far each is trusted.

mod decide;
mod show;

use std::path::Path;

use clap::{Args, Subcommand};
use console::style;
use sandcast_access::{self as access, Resource};
use sandcast_audit::{PluginRef, Standing};
use sandcast_factory::conduct::{Conduct, ConductError, StandingRecord};
use serde::Serialize;

use super::inspect;
use crate::{
    access::Need,
    arguments::GlobalArguments,
    failure::{Exit, Failure},
    output::Output,
    state,
    table::Table,
};

const EXAMPLES: &str = "\
Examples:
  sandcast plugins                                     every component that ran, and how far it is trusted
  sandcast plugins show sandcast/connector-csv         what it usually does, what it did otherwise, and when
  sandcast plugins show 9f8e7d6c5b4a3210 --json | jq .places
  sandcast plugins quarantine 9f8e7d6c --reason \"asks a host that nobody knows\"
  sandcast plugins release 9f8e7d6c --reason \"the vendor moved its API, ticket 4711\"
  sandcast plugins admit plugins/connector-crm --reason \"reviewed\"

A component is admitted when it is first loaded, on probation once it ran, and trusted after a number
of runs that were as usual. A new version of a known plugin begins on probation, held to what the one
before it did. One that is quarantined is refused wherever it would be loaded until it is released;
one that is revoked is refused for ever. Whoever trusts or releases a component also says that what
it did until then was right. Every decision wants a reason and is in the audit log with who made it.
The section `conduct` of a pipeline says what is done when a plugin does otherwise than usual.";

/// What plugins usually do, and how far each is trusted
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PluginsArguments {
    #[command(subcommand)]
    action: Option<PluginsAction>,
}

#[derive(Debug, Subcommand)]
enum PluginsAction {
    /// List the components that are known here
    List,
    /// Show what a component usually does, its deviations and its standing
    Show(show::ShowArguments),
    /// Let a component in that was never seen here
    Admit(decide::DecideArguments),
    /// Vouch for a component, and for what it has done so far
    Trust(decide::DecideArguments),
    /// Keep a component from being loaded until it is released
    Quarantine(decide::DecideArguments),
    /// Keep a component from ever being loaded again
    Revoke(decide::DecideArguments),
    /// Let a quarantined or slowed down component go on, on probation
    Release(decide::DecideArguments),
}

impl PluginsArguments {
    pub(crate) fn need(&self, global: &GlobalArguments) -> Option<Need> {
        match self.action {
            None | Some(PluginsAction::List | PluginsAction::Show(_)) => {
                super::in_state(global, access::Action::Inspect, Resource::state())
            }
            // They ask themselves.
            Some(_) => None,
        }
    }
}

pub(crate) async fn execute(
    arguments: &PluginsArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    use sandcast_factory::conduct::Action;
    let folder = state::nearest(global.state.as_deref())?;
    let conduct = Conduct::of_state(&folder)?;
    let decide = |action, it| decide::execute(&conduct, &folder, action, it, global, output);
    match arguments.action.as_ref().unwrap_or(&PluginsAction::List) {
        PluginsAction::List => list(&conduct, output),
        PluginsAction::Show(arguments) => show::execute(&conduct, arguments, output),
        PluginsAction::Admit(it) => decide(Action::Admit, it).await,
        PluginsAction::Trust(it) => decide(Action::Trust, it).await,
        PluginsAction::Quarantine(it) => decide(Action::Quarantine, it).await,
        PluginsAction::Revoke(it) => decide(Action::Revoke, it).await,
        PluginsAction::Release(it) => decide(Action::Release, it).await,
    }
}

/// A component in the list, as `--json` prints it.
#[derive(Serialize)]
struct Listed {
    plugin: PluginRef,
    standing: Option<StandingRecord>,
}

fn list(conduct: &Conduct, output: &Output) -> Result<Exit, Failure> {
    let all = conduct.list()?;
    if output.wants_json() {
        let all: Vec<Listed> = all
            .into_iter()
            .map(|(plugin, standing)| Listed { plugin, standing })
            .collect();
        output.json(&all)?;
        return Ok(Exit::Done);
    }
    if all.is_empty() {
        output.note("no plugin was loaded here yet; `sandcast run` does");
        return Ok(Exit::Done);
    }
    let mut table = Table::with_headings([
        "plugin",
        "version",
        "role",
        "digest",
        "standing",
        "since",
        "clean runs",
        "because",
    ])
    .numbers_at(&[6]);
    for (plugin, record) in all {
        let of = |tell: &dyn Fn(&StandingRecord) -> String| {
            record.as_ref().map_or_else(String::new, tell)
        };
        table.row([
            plugin.id.clone(),
            sandcast_sandbox::sentence(&plugin.version, 32),
            plugin.role.clone(),
            short(&plugin),
            record
                .as_ref()
                .map_or_else(|| "not judged yet".to_owned(), standing_in_colour),
            of(&|record| moment(&record.since)),
            of(&|record| record.clean_runs.to_string()),
            of(&|record| sandcast_sandbox::sentence(&record.reason, 60)),
        ]);
    }
    output.line(table)?;
    Ok(Exit::Done)
}

/// The component that an id, a digest or a file names.
fn named(conduct: &Conduct, text: &str) -> Result<Vec<PluginRef>, Failure> {
    let path = Path::new(text);
    if path.is_file() || path.join("plugin.toml").is_file() {
        let (_, inspection) = inspect::read(path)?;
        return Ok(vec![PluginRef {
            id: inspection.manifest.id.clone(),
            version: inspection.manifest.version.clone(),
            role: inspection.role.to_string(),
            digest: inspection.digest,
        }]);
    }
    let found = conduct.named(text)?;
    if found.is_empty() {
        return Err(Failure::rejected_because(
            format_args!("nothing here is called `{text}`, and there is no such file"),
            "`sandcast plugins` lists ids and digests; eight digits of a digest are enough",
        ));
    }
    Ok(found)
}

/// A refusal is the input's fault, anything else the host's.
fn rejected_if_refused(error: ConductError) -> Failure {
    match error.is_refusal() {
        true => Failure::from(error).into_rejection(),
        false => error.into(),
    }
}

fn short(plugin: &PluginRef) -> String {
    plugin.digest.to_string().chars().take(16).collect()
}

fn moment(time: &str) -> String {
    time.get(..19).unwrap_or(time).replace('T', " ")
}

/// A standing in a word or two.
pub(crate) fn standing_in_colour(record: &StandingRecord) -> String {
    let text = match record.throttled {
        true => format!("{}, slowed down", record.standing),
        false => record.standing.to_string(),
    };
    let text = style(text);
    match record.standing {
        Standing::Trusted => text.green(),
        Standing::Quarantined | Standing::Revoked => text.red(),
        _ if record.throttled => text.yellow(),
        _ => text,
    }
    .to_string()
}

/// Who decided, and why.
pub(crate) fn because(record: &StandingRecord) -> String {
    let who = record.operator.as_deref().unwrap_or("rule");
    format!("by {who}: {}", record.reason)
}
