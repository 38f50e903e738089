//! `sandcast sign` and `sandcast verify-plugin`: who vouches for a component.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use clap::Args;
use sandcast_audit::{Envelope, LogKey, VerifierKey, load_key, store_key};
use sandcast_build::{Resource, STATEMENT_TYPE, Statement};
use sandcast_factory::{
    Pipeline,
    config::read_ceiling,
    plan::{read_signature, signature_path},
};
use sandcast_sandbox::Inspection;
use serde::Serialize;

use super::{build::shown, inspect};
use crate::{
    arguments::GlobalArguments,
    failure::{Exit, Failure, OrReject as _},
    output::Output,
    table::Table,
};

const SIGN_EXAMPLES: &str = "\
Examples:
  sandcast sign --new-key acme.example --key acme.key    a key pair; prints the public key
  sandcast sign connector.wasm --key acme.key            makes connector.wasm.sig
  sandcast sign plugins/connector-csv --key acme.key     of what was built from a crate
  sandcast sign --ceiling ceiling.yaml --key house.key   the operator's: makes ceiling.yaml.sig

The signature is a signed note (C2SP signed-note, Ed25519) over the digest, the id, the version and
the role of the component, beside it; the component stays as it is. Several may sign: what others
signed of the same component is kept. That of a ceiling is over its bytes, under another heading.
Whoever has the key file can sign; it is written for its owner alone.

A pipeline says who may sign the plugins of a role:
  trust:
    connector: { keys: [\"acme.example+1f2e3d4c+AQ...\"] }
    adapter: { required: false, keys: [\"house.example+5a6b7c8d+AQ...\"] }";

/// Sign a plugin or the operator's ceiling, or make the key to do so
#[derive(Debug, Args)]
#[command(after_help = SIGN_EXAMPLES)]
pub(crate) struct SignArguments {
    /// A component file, or a plugin's crate folder; without it, the ceiling is signed
    #[arg(required_unless_present_any = ["new_key", "ceiling"])]
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
  sandcast verify-plugin connector.wasm --provenance --key acme.example+1f2e3d4c+AQ...
  sandcast verify-plugin connector.wasm --provenance --builder https://ci.acme.example --key ...

With --provenance, the statement beside the component (connector.intoto.json: SLSA provenance v1 in a
DSSE envelope) is checked in place of its signature: that one of the keys signed it, that it is about
this component, and that the builder is the one named. It says what was built from what.

Exit code 1 says that none of the keys signed this component, as it is, or the statement about it.";

/// Check who signed a plugin, or where it comes from
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
    /// Check the signed statement of where it comes from, in place of its signature
    #[arg(long)]
    provenance: bool,
    /// The builder that must have built it, a URI
    #[arg(long, value_name = "URI", requires = "provenance")]
    builder: Option<String>,
}

/// Who signed, as `--json` prints it.
#[derive(Serialize)]
struct Verified {
    signers: Vec<VerifierKey>,
}

/// What was signed or made, as `--json` prints it.
#[derive(Serialize)]
struct Told {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    key: VerifierKey,
}

pub(crate) fn sign(
    arguments: &SignArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    if let Some(name) = &arguments.new_key {
        return new_key(name, arguments, output);
    }
    let key = private_key(&arguments.key)?;
    let (path, note, what) = match (&arguments.plugin, &global.ceiling) {
        (None, Some(ceiling)) => {
            // What does not make sense is not signed.
            let what = read_ceiling(ceiling, &[]).or_reject()?;
            let earlier = read_signature(ceiling).or_reject()?;
            let bytes = std::fs::read(ceiling)?;
            let note = sandcast_sandbox::sign_ceiling(&bytes, &key, earlier.as_deref());
            let what = format!("the ceiling {}  {}", shown(ceiling), what.ceiling.digest());
            (ceiling.clone(), note, what)
        }
        (plugin, _) => {
            let (component, inspection) = inspect::read(plugin.as_deref().unwrap_or("".as_ref()))?;
            let earlier = read_signature(&component).or_reject()?;
            let note = sandcast_sandbox::sign(&inspection, &key, earlier.as_deref()).or_reject()?;
            (component, note, named(&inspection))
        }
    };
    let signature = signature_path(&path);
    std::fs::write(&signature, note)?;
    let told = Told {
        file: Some(shown(&signature)),
        key: key.verifier(),
    };
    if output.wants_json() {
        output.json(&told)?;
    } else {
        output.line(format_args!(
            "{what}  signed by {}  {}",
            told.key.name(),
            shown(&signature)
        ))?;
    }
    Ok(Exit::Done)
}

/// The private key in a file.
pub(crate) fn private_key(path: &Path) -> Result<LogKey, Failure> {
    let file = shown(path);
    let no_key = |what: &str| {
        Failure::rejected_because(
            format_args!("{file} {what}"),
            format_args!("sandcast sign --new-key acme.example --key {file}"),
        )
    };
    load_key(path)
        .map_err(|error| no_key(&format!("cannot be used: {error}")))?
        .ok_or_else(|| no_key("is not there"))
}

/// A component by id, version and digest.
fn named(inspection: &Inspection) -> String {
    format!(
        "{} {}  {}",
        inspection.manifest.id,
        sandcast_sandbox::sentence(&inspection.manifest.version, 64),
        inspection.digest.short()
    )
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
    if arguments.provenance {
        let builder = arguments.builder.as_deref();
        return verify_provenance(&component, &inspection, &keys, builder, output);
    }
    let signature = read_signature(&component).or_reject()?;
    let signers = sandcast_sandbox::verify(&inspection, signature.as_deref(), &keys).or_reject()?;
    if output.wants_json() {
        output.json(&Verified { signers })?;
    } else {
        let signers: Vec<String> = signers.iter().map(ToString::to_string).collect();
        output.line(format_args!(
            "{}  signed by {}",
            named(&inspection),
            signers.join(", ")
        ))?;
    }
    Ok(Exit::Done)
}

/// Where a component comes from, as `--json` prints it.
#[derive(Serialize)]
struct Origin<'a> {
    file: String,
    signers: Vec<VerifierKey>,
    builder: &'a str,
    build_type: &'a str,
    parameters: &'a serde_json::Value,
    materials: &'a [Resource],
}

/// The longest statement that is read.
const MAX_PROVENANCE_BYTES: u64 = 4 << 20;

fn verify_provenance(
    component: &Path,
    inspection: &Inspection,
    keys: &[VerifierKey],
    builder: Option<&str>,
    output: &Output,
) -> Result<Exit, Failure> {
    let path = sandcast_build::provenance_path(component);
    let unreadable = |what: &dyn std::fmt::Display| {
        Failure::rejected_because(
            format_args!("{}: {what}", shown(&path)),
            "get the file from whoever built the component, or build it with `sandcast build --provenance`",
        )
    };
    let mut bytes = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(MAX_PROVENANCE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| unreadable(&error))?;
    let envelope = Envelope::parse(&bytes).map_err(|error| unreadable(&error))?;
    let (payload, signers) = envelope
        .open(STATEMENT_TYPE, keys)
        .map_err(|error| unreadable(&error))?;
    let statement = Statement::read(payload).map_err(|error| unreadable(&error))?;
    let component = std::fs::read(component)?;
    statement
        .check(&component, builder)
        .map_err(|error| unreadable(&error))?;
    let predicate = &statement.predicate;
    let origin = Origin {
        file: shown(&path),
        signers,
        builder: &predicate.run_details.builder.id,
        build_type: &predicate.build_definition.build_type,
        parameters: &predicate.build_definition.external_parameters,
        materials: &predicate.build_definition.resolved_dependencies,
    };
    if output.wants_json() {
        output.json(&origin)?;
        return Ok(Exit::Done);
    }
    let short = |text: &str| sandcast_sandbox::sentence(text, 256);
    let names: Vec<String> = origin.signers.iter().map(ToString::to_string).collect();
    output.line(format_args!(
        "{}  provenance signed by {}",
        named(inspection),
        names.join(", ")
    ))?;
    let mut table = Table::indented(2);
    table.row(["builder".to_owned(), short(origin.builder)]);
    table.row(["build".to_owned(), short(origin.build_type)]);
    table.row(["of".to_owned(), short(&origin.parameters.to_string())]);
    for material in origin.materials.iter().take(MATERIALS_SHOWN) {
        let name = material.name.as_deref().or(material.uri.as_deref());
        let digests = material
            .digest
            .iter()
            .map(|(name, digest)| format!("{name} {digest}"));
        let notes = material
            .annotations
            .iter()
            .map(|(name, value)| format!("{name} {value}"));
        let said: Vec<String> = digests.chain(notes).collect();
        table.row([short(name.unwrap_or("–")), short(&said.join(", "))]);
    }
    output.line(table)?;
    Ok(Exit::Done)
}

/// Materials that are shown; `--json` has all of them.
const MATERIALS_SHOWN: usize = 40;
