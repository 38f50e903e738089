//! An operator's decision about a component.

use clap::Args;
use sandcast_factory::conduct::{Action, Conduct, operator};

use super::{because, named, rejected_if_refused, short, standing_in_colour};
use crate::{
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

pub(super) fn execute(
    conduct: &Conduct,
    action: Action,
    arguments: &DecideArguments,
    output: &Output,
) -> Result<Exit, Failure> {
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
    let record = conduct
        .decide(action, plugin, &operator(), &arguments.reason)
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
