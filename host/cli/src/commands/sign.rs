//! `sandcast sign` and `sandcast verify-plugin`: who vouches for a component.

use std::path::PathBuf;

use clap::Args;
use sandcast_audit::{LogKey, VerifierKey, load_key, store_key};
use sandcast_factory::{
    Pipeline,
    plan::{read_signature, signature_path},
};
use serde::Serialize;

use super::{build::shown, inspect};
use crate::{
    failure::{Exit, Failure, OrReject as _},
    output::Output,
};

const SIGN_EXAMPLES: &str = "\
Examples:
  sandcast sign --new-key acme.example --key acme.key    a key pair; prints the public key
  sandcast sign connector.wasm --key acme.key            makes connector.wasm.sig
  sandcast sign plugins/connector-csv --key acme.key     of what was built from a crate

The signature is a signed note (C2SP signed-note, Ed25519) over the digest, the id, the version and
the role of the component, beside it; the component stays as it is. Several may sign: what others
signed of the same component is kept. Whoever has the key file can sign; it is written for its owner
alone.

A pipeline says who may sign the plugins of a role:
  trust:
    connector: { keys: [\"acme.example+1f2e3d4c+AQ...\"] }
    adapter: { required: false, keys: [\"house.example+5a6b7c8d+AQ...\"] }";

/// Sign a plugin, or make the key to do so
#[derive(Debug, Args)]
#[command(after_help = SIGN_EXAMPLES)]
pub(crate) struct SignArguments {
    /// A component file, or a plugin's crate folder
    #[arg(required_unless_present = "new_key")]
    plugin: Option<PathBuf>,
    /// The file of the private key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Make a key with this name, such as a domain, and write it to the file
    #[arg(long, value_name = "NAME", conflicts_with = "plugin")]
    new_key: Option<String>,
}

const VERIFY_EXAMPLES: &str = "\
Examples:
  sandcast verify-plugin connector.wasm --key acme.example+1f2e3d4c+AQ...
  sandcast verify-plugin connector.wasm --pipeline examples/credit-risk

Exit code 1 says that none of the keys signed this component, as it is.";

/// Check who signed a plugin
#[derive(Debug, Args)]
#[command(after_help = VERIFY_EXAMPLES)]
pub(crate) struct VerifyPluginArguments {
    /// A component file, or a plugin's crate folder
    plugin: PathBuf,
    /// A public key that may have signed it; may be repeated
    #[arg(long = "key", value_name = "KEY", required_unless_present = "pipeline")]
    keys: Vec<VerifierKey>,
    /// The pipeline that says who may sign plugins of its role
    #[arg(long, value_name = "PIPELINE")]
    pipeline: Option<PathBuf>,
}

/// What was signed or made, or who signed, as `--json` prints it.
#[derive(Serialize)]
struct Told {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    key: VerifierKey,
}

pub(crate) fn sign(arguments: &SignArguments, output: &Output) -> Result<Exit, Failure> {
    if let Some(name) = &arguments.new_key {
        return new_key(name, arguments, output);
    }
    let path = arguments.plugin.clone().unwrap_or_default();
    let file = shown(&arguments.key);
    let no_key = |what: &str| {
        Failure::rejected_because(
            format_args!("{file} {what}"),
            format_args!("sandcast sign --new-key acme.example --key {file}"),
        )
    };
    let key = load_key(&arguments.key)
        .map_err(|error| no_key(&format!("cannot be used: {error}")))?
        .ok_or_else(|| no_key("is not there"))?;
    let (component, inspection) = inspect::read(&path)?;
    let earlier = read_signature(&component).or_reject()?;
    let note = sandcast_sandbox::sign(&inspection, &key, earlier.as_deref()).or_reject()?;
    let signature = signature_path(&component);
    std::fs::write(&signature, note)?;
    let told = Told {
        file: Some(shown(&signature)),
        key: key.verifier(),
    };
    if output.wants_json() {
        output.json(&told)?;
    } else {
        output.line(format_args!(
            "{} {}  {}  signed by {}  {}",
            inspection.manifest.id,
            sandcast_sandbox::sentence(&inspection.manifest.version, 64),
            inspection.digest.short(),
            told.key.name(),
            shown(&signature)
        ))?;
    }
    Ok(Exit::Done)
}

fn new_key(name: &str, arguments: &SignArguments, output: &Output) -> Result<Exit, Failure> {
    if arguments.key.exists() {
        return Err(Failure::rejected_because(
            format_args!("{} is there already", shown(&arguments.key)),
            "a key that has signed is not replaced; name another file",
        ));
    }
    let key = LogKey::generate(name)?;
    let public = key.verifier();
    // A name that the forms of C2SP do not allow would make a key that nobody can write down.
    if public.to_string().parse::<VerifierKey>().is_err() {
        return Err(Failure::rejected_because(
            format_args!("`{name}` cannot name a key"),
            "use a domain or a word, without spaces, quotes and `+`",
        ));
    }
    store_key(&arguments.key, &key)?;
    let told = Told {
        file: Some(shown(&arguments.key)),
        key: public,
    };
    if output.wants_json() {
        output.json(&told)?;
    } else {
        output.line(&told.key)?;
    }
    Ok(Exit::Done)
}

pub(crate) fn verify(arguments: &VerifyPluginArguments, output: &Output) -> Result<Exit, Failure> {
    let (component, inspection) = inspect::read(&arguments.plugin)?;
    let mut keys = arguments.keys.clone();
    if let Some(path) = &arguments.pipeline {
        let pipeline = Pipeline::load(path).map_err(Failure::rejected)?;
        let role = inspection.role;
        let rule = pipeline.sections.trust.get(&role).ok_or_else(|| {
            Failure::rejected_because(
                format_args!(
                    "{} does not say who may sign a {role}",
                    shown(&pipeline.path)
                ),
                format_args!("write `trust: {{ {role}: {{ keys: [...] }} }}`"),
            )
        })?;
        keys.extend(rule.keys.iter().cloned());
    }
    let signature = read_signature(&component).or_reject()?;
    let key = sandcast_sandbox::verify(&inspection, signature.as_deref(), &keys).or_reject()?;
    let told = Told { file: None, key };
    if output.wants_json() {
        output.json(&told)?;
    } else {
        output.line(format_args!(
            "{} {}  {}  signed by {}",
            inspection.manifest.id,
            sandcast_sandbox::sentence(&inspection.manifest.version, 64),
            inspection.digest.short(),
            told.key
        ))?;
    }
    Ok(Exit::Done)
}
