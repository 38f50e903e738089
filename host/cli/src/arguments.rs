//! What the program is asked to do.

use std::{num::NonZeroUsize, path::PathBuf};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use sandcast_audit::VerifierKey;
use sandcast_factory::config::{read_ceiling, read_trust};
use sandcast_kernels::{DeviceChoice, DeviceOptions};
use sandcast_sandbox::process::ProcessProgram;
use sandcast_sandbox::{ByteSize, OperatorRules, SandboxConfig};

use crate::failure::{Failure, OrReject as _};

use crate::commands::{
    access, approvals, audit, bench, build, certify, completions, data, doctor, generate, inspect,
    models, plan, plugin_state, plugins, predict, program, replay, run, runs, sbom, schema, serve,
    sign,
};

const LONG_ABOUT: &str = "\
An assembly line for models: raw files go in, a served model comes out, and every third-party \
part on the way (connectors, validators, policies, model adapters) is a WebAssembly plugin that \
runs in a sandbox with exactly the grants that the pipeline file gives it.";

const STORY: &str = "\
The story, in the order in which one lives it:
  sandcast plan examples/credit-risk              what would run, with which grants; nothing runs
  sandcast run --build examples/credit-risk       build the plugins, then files -> model
  sandcast models                                 what is registered
  sandcast predict --model credit-risk --input examples/credit-risk/applicants.json
  sandcast serve                                  the same over HTTP
  sandcast generate weather-notes                 a model of examples/weather-notes writes
  sandcast audit verify                           nobody changed the record
  sandcast replay                                 what was recorded, and can be seen again

Exit codes: 0 done; 1 rejected (by the input, a policy or the gate); 2 anything unexpected, a wrong
command line among it.
Data goes to stdout, messages and progress to stderr.";

/// An AI factory whose third-party parts run in WebAssembly sandboxes.
#[derive(Debug, Parser)]
#[command(name = "sandcast", version, long_about = LONG_ABOUT, after_long_help = STORY, after_help = STORY)]
#[command(
    propagate_version = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: GlobalArguments,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every subcommand.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct GlobalArguments {
    /// The folder of runs, data, models and the audit log [default: .sandcast beside the pipeline
    /// file, or the nearest one from here upwards]
    #[arg(
        long,
        global = true,
        env = "SANDCAST_STATE",
        hide_env_values = true,
        value_name = "FOLDER"
    )]
    pub(crate) state: Option<PathBuf>,
    /// What pipelines may grant at most: the operator's file; `sandcast schema ceiling` describes it
    #[arg(
        long,
        global = true,
        env = "SANDCAST_CEILING",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(crate) ceiling: Option<PathBuf>,
    /// A public key that must have signed the ceiling, in the `.sig` file beside it; several, by
    /// commas or repeated: one of them
    #[arg(
        long,
        global = true,
        env = "SANDCAST_CEILING_KEY",
        hide_env_values = true,
        value_name = "KEY",
        value_delimiter = ','
    )]
    pub(crate) ceiling_key: Vec<VerifierKey>,
    /// Who may sign plugins on this host, beside what pipelines say: the operator's file; `sandcast
    /// schema trust` describes it
    #[arg(
        long,
        global = true,
        env = "SANDCAST_TRUST",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(crate) trust: Option<PathBuf>,
    /// A public key that must have signed that file, in the `.sig` file beside it; several, by commas
    /// or repeated: one of them
    #[arg(
        long,
        global = true,
        env = "SANDCAST_TRUST_KEY",
        hide_env_values = true,
        value_name = "KEY",
        value_delimiter = ','
    )]
    pub(crate) trust_key: Vec<VerifierKey>,
    /// A file with the token of whoever gives the command, where access is set up [default: the
    /// token in SANDCAST_TOKEN]
    #[arg(
        long,
        global = true,
        env = "SANDCAST_TOKEN_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(crate) token_file: Option<PathBuf>,
    /// Print the result as JSON on stdout
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say more on stderr; twice for more still
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub(crate) verbose: u8,
    /// Say nothing on stderr but warnings and errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// When to use colours; NO_COLOR is respected
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: Color,
}

impl GlobalArguments {
    /// What the operator holds every pipeline and every model to.
    pub(crate) fn operator(&self) -> Result<OperatorRules, Failure> {
        let mut rules = self.rules_of_trust()?;
        match &self.ceiling {
            Some(path) => {
                let signed = read_ceiling(path, &self.ceiling_key).or_reject()?;
                rules.ceiling = Some(signed.ceiling);
                rules.ceiling_signers = signed.signers;
            }
            // Leaving the file out must not be the way around it.
            None if !self.ceiling_key.is_empty() => {
                return Err(Failure::rejected_because(
                    "there is a key for the ceiling (--ceiling-key or SANDCAST_CEILING_KEY), and no \
                     ceiling",
                    "name its file with --ceiling or SANDCAST_CEILING",
                ));
            }
            None => {}
        }
        Ok(rules)
    }

    /// Who may sign plugins, by the operator; nothing else of the rules.
    pub(crate) fn rules_of_trust(&self) -> Result<OperatorRules, Failure> {
        match &self.trust {
            Some(path) => Ok(read_trust(path, &self.trust_key).or_reject()?.into()),
            None if !self.trust_key.is_empty() => Err(Failure::rejected_because(
                "there is a key for the rules of trust (--trust-key or SANDCAST_TRUST_KEY), and \
                 no rules",
                "name their file with --trust or SANDCAST_TRUST",
            )),
            None => Ok(OperatorRules::default()),
        }
    }

    /// A sandbox under the rules of the operator.
    pub(crate) fn sandbox(&self) -> Result<SandboxConfig, Failure> {
        Ok(SandboxConfig {
            operator: self.operator()?,
            process: Some(ProcessProgram::this()?),
            ..SandboxConfig::default()
        })
    }
}

/// Where tensor programs run.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeviceArguments {
    /// Where tensor programs run: auto, cpu, cuda, cuda:1
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: DeviceChoice,
    /// Threads of tensor programs [default: one per core]; the numbers do not depend on it
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Memory of a GPU that may be used, such as 8GiB [default: nine tenths of what is free]
    #[arg(long, value_name = "BYTES")]
    pub(crate) device_memory: Option<ByteSize>,
}

impl DeviceArguments {
    pub(crate) fn options(&self) -> DeviceOptions {
        DeviceOptions {
            threads: self.threads,
            memory_bytes: self.device_memory.map(ByteSize::bytes),
            ..self.device.into()
        }
    }

    /// A sandbox whose tensor programs run there.
    pub(crate) fn sandbox(&self, global: &GlobalArguments) -> Result<SandboxConfig, Failure> {
        Ok(SandboxConfig {
            device: self.options(),
            ..global.sandbox()?
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Plan(plan::PlanArguments),
    Run(run::RunArguments),
    Runs(runs::RunsArguments),
    Inspect(inspect::InspectArguments),
    Plugins(plugins::PluginsArguments),
    Build(build::BuildArguments),
    Sbom(sbom::SbomArguments),
    Sign(sign::SignArguments),
    VerifyPlugin(sign::VerifyPluginArguments),
    Certify(certify::CertifyArguments),
    Models(models::ModelsArguments),
    Data(data::DataArguments),
    State(plugin_state::StateArguments),
    Serve(serve::ServeArguments),
    Predict(predict::PredictArguments),
    Generate(generate::GenerateArguments),
    Program(program::ProgramArguments),
    Access(access::AccessArguments),
    Approvals(approvals::ApprovalsArguments),
    Audit(audit::AuditArguments),
    Replay(replay::ReplayArguments),
    Doctor(doctor::DoctorArguments),
    Bench(bench::BenchArguments),
    Completions(completions::CompletionsArguments),
    Schema(schema::SchemaArguments),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        <Arguments as clap::CommandFactory>::command().debug_assert();
    }
}
