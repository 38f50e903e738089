//! `sandcast certify`: a component is tried out, and who tried it signs what came of it.

use std::path::{Path, PathBuf};

use clap::Args;
use console::style;
use sandcast_audit::{VerifierKey, load_key};
use sandcast_sandbox::process::ProcessProgram;
use sandcast_sandbox::{
    Certificate, Demand, Examination, Grants, Trial, TrialOptions, TrialVerdict as Verdict, examine,
};
use serde_json::Value;

use super::{build::shown, inspect};
use crate::{
    failure::{Exit, Failure, OrReject as _},
    output::Output,
    progress::Step,
};

const EXAMPLES: &str = "\
Examples:
  sandcast certify plugins/policy-cedar --config good.json
  sandcast certify fetch.wasm --config good.json --grants grants.json
  sandcast certify rules.wasm --config good.json --key house.key --to rules.certificate.json
  sandcast certify rules.wasm --check rules.certificate.json --signer house.example+1f2e3d4c+AQ...

A component is tried in a sandbox of its own: what its manifest says, whether it answers, what it makes
of configurations, questions and rows that make no sense, whether a replay of what it did is the same,
and whether 200 instances leave something behind. It is granted what it asks for, as narrowly as can
be; folders and hosts only by --grants, whose file holds what `grants` of a pipeline does.

The table of the trials has the columns flag, count, amount, name, day, moment (one of each kind) and
outcome (yes or no). A configuration for a validator may name them.

Exit code 1 says that a trial that matters was failed, or that a certificate does not hold. A trial shows
that a plugin kept the contract where it was tried. It cannot show that it has no other face: grants,
records and replays are for that.";

/// Try a plugin out, and sign what came of it
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CertifyArguments {
    /// A component file, or a plugin's crate folder
    plugin: PathBuf,
    /// A JSON file with a configuration that makes sense; for an adapter, hyperparameters
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A JSON file with what it is granted while it is tried
    #[arg(long, value_name = "FILE")]
    grants: Option<PathBuf>,
    /// Sign with this private key, of `sandcast sign --new-key`
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Write the certificate to this file
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Try nothing: hold this certificate against the component and --signer
    #[arg(long, value_name = "FILE", requires = "signer", conflicts_with_all = ["config", "grants", "key", "to"])]
    check: Option<PathBuf>,
    /// A public key that may have signed the certificate; may be given several times
    #[arg(long, value_name = "KEY", requires = "check")]
    signer: Vec<VerifierKey>,
}

/// Bytes of a file that is read.
const MAX_FILE_BYTES: u64 = 16 << 20;

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let size = std::fs::metadata(path).map_err(|error| {
        Failure::rejected_because(
            format_args!("{} cannot be read: {error}", shown(path)),
            "name a JSON file",
        )
    })?;
    if size.len() > MAX_FILE_BYTES {
        return Err(Failure::rejected_because(
            format_args!("{} is larger than {MAX_FILE_BYTES} bytes", shown(path)),
            "name a smaller file",
        ));
    }
    serde_json::from_slice(&std::fs::read(path)?).map_err(|error| {
        Failure::rejected_because(
            format_args!("{} does not make sense: {error}", shown(path)),
            "see `sandcast certify --help`",
        )
    })
}

pub(crate) async fn execute(
    arguments: &CertifyArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let (component, inspection) = inspect::read(&arguments.plugin)?;
    if let Some(path) = &arguments.check {
        let certificate: Certificate = read_json(path)?;
        let signer = certificate
            .check(&inspection, &arguments.signer)
            .or_reject()?;
        if output.wants_json() {
            output.json(&serde_json::json!({
                "holds": true,
                "signer": signer,
                "examination": certificate.examination,
            }))?;
        } else {
            output.line(format_args!(
                "{}: {} {} passed {} trials, signed by {signer}",
                style("holds").green().bold(),
                inspection.manifest.id,
                sandcast_sandbox::sentence(&inspection.manifest.version, 64),
                certificate.examination.count(Verdict::Passed),
            ))?;
        }
        return Ok(Exit::Done);
    }
    let key = match &arguments.key {
        None => None,
        Some(path) => {
            let no_key = |what: &str| {
                let file = shown(path);
                Failure::rejected_because(
                    format_args!("{file} {what}"),
                    format_args!("sandcast sign --new-key house.example --key {file}"),
                )
            };
            let loaded =
                load_key(path).map_err(|error| no_key(&format!("cannot be used: {error}")))?;
            Some(loaded.ok_or_else(|| no_key("is not there"))?)
        }
    };
    let options = TrialOptions {
        configuration: match &arguments.config {
            Some(path) => read_json(path)?,
            None => Value::Null,
        },
        grants: match &arguments.grants {
            Some(path) => Some(read_json::<Grants>(path)?),
            None => None,
        },
        process: Some(ProcessProgram::this()?),
    };
    let bytes = std::fs::read(&component)?;
    let mut step = Step::begin(output, "trials");
    let examination = examine(&bytes, &options, |now| step.update(now))
        .await
        .or_reject()?;
    drop(step);
    let passed = examination.is_passed();
    let certificate = Certificate::new(examination, key.as_ref());
    if let Some(path) = &arguments.to {
        let mut text = serde_json::to_string_pretty(&certificate)?;
        text.push('\n');
        std::fs::write(path, text)?;
    }
    if output.wants_json() {
        output.json(&certificate)?;
    } else {
        tell(&certificate.examination, output)?;
    }
    Ok(if passed { Exit::Done } else { Exit::Rejected })
}

fn tell(examination: &Examination, output: &Output) -> Result<(), Failure> {
    let plugin = &examination.plugin;
    output.line(format_args!(
        "{} {} ({}) {}",
        plugin.id,
        sandcast_sandbox::sentence(&plugin.version, 64),
        plugin.role,
        plugin.digest.short()
    ))?;
    for trial in &examination.trials {
        let Trial {
            id,
            demand,
            weight,
            verdict,
            detail,
        } = trial;
        let mark = match (verdict, weight) {
            (Verdict::Passed, _) => style("pass").green(),
            (Verdict::Failed, Demand::Must) => style("FAIL").red().bold(),
            (Verdict::Failed, Demand::Should) => style("note").yellow(),
            (Verdict::Skipped, _) => style("skip").dim(),
        };
        output.line(format_args!("  {mark}  {id:<24} {detail}"))?;
        if *verdict == Verdict::Failed {
            output.line(format_args!("        {:<24} {}", "", style(demand).dim()))?;
        }
    }
    let verdict = match examination.is_passed() {
        true => style("passed").green().bold(),
        false => style("did not pass").red().bold(),
    };
    output.line(format_args!(
        "{verdict}: {} passed, {} failed, {} skipped",
        examination.count(Verdict::Passed),
        examination.count(Verdict::Failed),
        examination.count(Verdict::Skipped)
    ))?;
    Ok(())
}
