//! The subcommands, a file each.

pub(crate) mod access;
pub(crate) mod approvals;
pub(crate) mod audit;
pub(crate) mod bench;
pub(crate) mod build;
pub(crate) mod certify;
pub(crate) mod completions;
pub(crate) mod data;
pub(crate) mod doctor;
pub(crate) mod generate;
pub(crate) mod inspect;
pub(crate) mod models;
pub(crate) mod plan;
pub(crate) mod plugin_state;
pub(crate) mod plugins;
pub(crate) mod predict;
pub(crate) mod program;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod runs;
pub(crate) mod sbom;
pub(crate) mod schema;
pub(crate) mod serve;
pub(crate) mod sign;

use crate::{
    access::{Need, require},
    arguments::{Arguments, Command, GlobalArguments},
    failure::{Exit, Failure},
    output::Output,
    state,
};
use sandcast_access::{Action, Resource};

/// Does what was asked.
pub(crate) async fn execute(arguments: Arguments, output: &Output) -> Result<Exit, Failure> {
    let global = &arguments.global;
    require(need(&arguments.command, global), global).await?;
    match &arguments.command {
        Command::Access(arguments) => access::execute(arguments, global, output).await,
        Command::Approvals(arguments) => approvals::execute(arguments, global, output).await,
        Command::Plan(arguments) => plan::execute(arguments, global, output),
        Command::Run(arguments) => run::execute(arguments, global, output).await,
        Command::Runs(arguments) => runs::execute(arguments, global, output),
        Command::Inspect(arguments) => inspect::execute(arguments, global, output),
        Command::Plugins(arguments) => plugins::execute(arguments, global, output).await,
        Command::Sign(arguments) => sign::sign(arguments, global, output),
        Command::VerifyPlugin(arguments) => sign::verify(arguments, output),
        Command::Certify(arguments) => certify::execute(arguments, output).await,
        Command::Build(arguments) => build::execute(arguments, output),
        Command::Sbom(arguments) => sbom::execute(arguments, output),
        Command::Models(arguments) => models::execute(arguments, global, output).await,
        Command::Data(arguments) => data::execute(arguments, global, output).await,
        Command::State(arguments) => plugin_state::execute(arguments, global, output).await,
        Command::Serve(arguments) => serve::execute(arguments, global, output).await,
        Command::Predict(arguments) => predict::execute(arguments, global, output).await,
        Command::Program(arguments) => program::execute(arguments, global, output).await,
        Command::Generate(arguments) => generate::execute(arguments, global, output).await,
        Command::Audit(arguments) => audit::execute(arguments, global, output).await,
        Command::Replay(arguments) => replay::execute(arguments, global, output).await,
        Command::Doctor(arguments) => doctor::execute(arguments, global, output),
        Command::Bench(arguments) => bench::execute(arguments, output),
        Command::Completions(arguments) => completions::execute(arguments, output),
        Command::Schema(arguments) => schema::execute(arguments, output),
    }
}

/// What a command needs to be allowed that only looks. Those that change something ask themselves,
/// when they know what exactly; those that look into no state are nobody's affair. A command that is
/// new has to say here which it is.
fn need(command: &Command, global: &GlobalArguments) -> Option<Need> {
    match command {
        Command::Plan(arguments) => arguments.need(global),
        Command::Runs(_) => in_state(global, Action::Inspect, Resource::state()),
        Command::Inspect(arguments) => arguments.need(global),
        Command::Plugins(arguments) => arguments.need(global),
        Command::Models(arguments) => arguments.need(global),
        Command::Data(arguments) => arguments.need(global),
        Command::State(arguments) => arguments.need(global),
        Command::Predict(arguments) => arguments.need(global),
        Command::Generate(arguments) => arguments.need(global),
        Command::Program(arguments) => arguments.need(global),
        Command::Audit(arguments) => arguments.need(global),
        Command::Replay(arguments) => arguments.need(global),
        // They ask themselves.
        Command::Run(_) | Command::Serve(_) | Command::Access(_) | Command::Approvals(_) => None,
        // They look into no state.
        Command::Build(_)
        | Command::Sbom(_)
        | Command::Sign(_)
        | Command::VerifyPlugin(_)
        | Command::Certify(_)
        | Command::Doctor(_)
        | Command::Bench(_)
        | Command::Completions(_)
        | Command::Schema(_) => None,
    }
}

/// A need in the state of a command that is given no pipeline. Where there is none, the command
/// says so itself.
pub(crate) fn in_state(
    global: &GlobalArguments,
    action: Action,
    resource: Resource,
) -> Option<Need> {
    let folder = state::nearest(global.state.as_deref()).ok()?;
    Some(Need::new(folder, action, resource))
}
