//! An operator's decision about a component.

use std::path::Path;

use clap::Args;
use sandcast_access::{self as access, FourEyes, Resource, Subject};
use sandcast_factory::conduct::{Action, Conduct, ConductError, operator};

use super::{because, named, rejected_if_refused, short, standing_in_colour};
use crate::{
    access::{demand, must_be_known},
    arguments::GlobalArguments,
    commands::approvals,
    failure::{Exit, Failure},
    output::Output,
};

#[derive(Debug, Args)]
pub(super) struct DecideArguments {
    /// An id, eight digits or more of a digest, or a component file
    plugin: String,
    /// Why; it stands in the audit log
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

pub(super) async fn execute(
    conduct: &Conduct,
    folder: &Path,
    action: Action,
    arguments: &DecideArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let wanted = match action {
        Action::Admit => access::Action::PluginAdmit,
        Action::Trust => access::Action::PluginTrust,
        Action::Quarantine => access::Action::PluginQuarantine,
        Action::Revoke => access::Action::PluginRevoke,
        Action::Release => access::Action::PluginRelease,
    };
    must_be_known(global, folder, wanted).await?;
    let found = named(conduct, &arguments.plugin)?;
    let [plugin] = found.as_slice() else {
        let digests: Vec<String> = found
            .iter()
            .map(|plugin| format!("{} ({})", short(plugin), plugin.version))
            .collect();
        return Err(Failure::rejected_because(
            format_args!(
                "`{}` is {} components, and a decision is about one",
                arguments.plugin,
                found.len()
            ),
            format_args!("name it by its digest: {}", digests.join(", ")),
        ));
    };
    if arguments.reason.trim().is_empty() {
        return Err(rejected_if_refused(ConductError::NoReason));
    }
    let resource = Resource::plugin(&plugin.id);
    let allowed = demand(global, folder, wanted, &resource, Some(plugin.digest)).await?;
    if action == Action::Release
        && let Some(store) = allowed.second_person_for(FourEyes::Release)?
    {
        let record = conduct
            .could_decide(action, plugin)
            .map_err(rejected_if_refused)?;
        let subject = Subject::Release {
            plugin: plugin.clone(),
            standing: record.map_or(0, |record| record.sequence),
            reason: sandcast_sandbox::sentence(arguments.reason.trim(), 1024),
        };
        return approvals::ask(store, &allowed, subject, output);
    }
    let who = match allowed.store() {
        Some(_) => allowed.who().to_owned(),
        None => operator(),
    };
    let record = conduct
        .decide(action, plugin, &who, &arguments.reason)
        .map_err(rejected_if_refused)?;
    if output.wants_json() {
        output.json(&record)?;
    } else {
        output.line(format_args!(
            "{} {} ({}) is {}, {}",
            plugin.id,
            sandcast_sandbox::sentence(&plugin.version, 32),
            short(plugin),
            standing_in_colour(&record),
            because(&record)
        ))?;
    }
    Ok(Exit::Done)
}
