//! The subcommands, a file each.

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
    arguments::{Arguments, Command},
    failure::{Exit, Failure},
    output::Output,
};

/// Does what was asked.
pub(crate) async fn execute(arguments: Arguments, output: &Output) -> Result<Exit, Failure> {
    let global = &arguments.global;
    match &arguments.command {
        Command::Plan(arguments) => plan::execute(arguments, global, output),
        Command::Run(arguments) => run::execute(arguments, global, output).await,
        Command::Runs(arguments) => runs::execute(arguments, global, output),
        Command::Inspect(arguments) => inspect::execute(arguments, global, output),
        Command::Plugins(arguments) => plugins::execute(arguments, global, output),
        Command::Sign(arguments) => sign::sign(arguments, global, output),
        Command::VerifyPlugin(arguments) => sign::verify(arguments, output),
        Command::Certify(arguments) => certify::execute(arguments, output).await,
        Command::Build(arguments) => build::execute(arguments, output),
        Command::Sbom(arguments) => sbom::execute(arguments, output),
        Command::Models(arguments) => models::execute(arguments, global, output),
        Command::Data(arguments) => data::execute(arguments, global, output).await,
        Command::Serve(arguments) => serve::execute(arguments, global, output).await,
        Command::Predict(arguments) => predict::execute(arguments, global, output).await,
        Command::Program(arguments) => program::execute(arguments, global, output).await,
        Command::Generate(arguments) => generate::execute(arguments, global, output).await,
        Command::Audit(arguments) => audit::execute(arguments, global, output),
        Command::Replay(arguments) => replay::execute(arguments, global, output).await,
        Command::Doctor(arguments) => doctor::execute(arguments, global, output),
        Command::Bench(arguments) => bench::execute(arguments, output),
        Command::Completions(arguments) => completions::execute(arguments, output),
        Command::Schema(arguments) => schema::execute(arguments, output),
    }
}
