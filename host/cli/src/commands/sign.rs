//! `sandcast sign` and `sandcast verify-plugin`: who vouches for a component.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use clap::Args;
use sandcast_audit::{CertifiedSigner, Digest, Envelope, LogKey, VerifierKey, load_key, store_key};
use sandcast_build::{Resource, STATEMENT_TYPE, Statement};
use sandcast_factory::{
    Pipeline,
    config::{read_ceiling, read_trust_to_sign},
    plan::{bundle_path, read_bundle, read_signature, signature_path},
};
use sandcast_sandbox::{
    IdentityRule, Inspection, MAX_ROOT_BYTES, OperatorFile, OperatorRules, Signatures, Signers,
    TrustRule, check_trust, sign_operator_file,
};
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
  sandcast sign --trust trust.yaml --key house.key       the same for the rules of trust

The signature is a signed note (C2SP signed-note, Ed25519) over the digest, the id, the version and
the role of the component, beside it; the component stays as it is. Several may sign: what others
signed of the same component is kept. That of a ceiling, or of rules of trust, is over its bytes,
under another heading; a root of trust that the rules name is in them by its digest.
Whoever has the key file can sign; it is written for its owner alone.

A pipeline says who may sign the plugins of a role:
  trust:
    connector: { keys: [\"acme.example+1f2e3d4c+AQ...\"] }
    adapter: { required: false, keys: [\"house.example+5a6b7c8d+AQ...\"] }";

/// Sign a plugin or a file of the operator's, or make the key to do so
#[derive(Debug, Args)]
#[command(after_help = SIGN_EXAMPLES)]
pub(crate) struct SignArguments {
    /// A component file, or a plugin's crate folder; without it, the ceiling or the rules of trust are
    /// signed
    #[arg(required_unless_present_any = ["new_key", "ceiling", "trust"])]
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
  sandcast verify-plugin connector.wasm --trust-root trusted_root.json \\
    --identity 'https://github.com/acme/fetch/.github/workflows/release.yml@refs/tags/*' \\
    --issuer https://token.actions.githubusercontent.com

With --identity, the Sigstore bundle of the component is checked, offline: the file beside it
(connector.wasm.sigstore.json), or that of --bundle. It must be of version 0.3, as `cosign sign-blob
--bundle` and GitHub's attestations make it, with a certificate and its entry in a transparency log.

With --provenance, the statement beside the component (connector.intoto.json: SLSA provenance v1 in a
DSSE envelope) is checked in place of its signature: that one of the keys signed it, that it is about
this component, and that the builder is the one named. It says what was built from what.

Exit code 1 says that none of the keys or identities signed this component, as it is, or the statement
about it.";

/// Check who signed a plugin, or where it comes from
#[derive(Debug, Args)]
#[command(after_help = VERIFY_EXAMPLES)]
pub(crate) struct VerifyPluginArguments {
    /// A component file, or a plugin's crate folder
    plugin: PathBuf,
    /// A public key that may have signed it; may be repeated
    #[arg(long = "key", value_name = "KEY", required_unless_present_any = ["pipeline", "identity"])]
    keys: Vec<VerifierKey>,
    /// The pipeline that says who may sign plugins of its role
    #[arg(long, value_name = "PIPELINE")]
    pipeline: Option<PathBuf>,
    /// The e-mail address or URI that its Sigstore bundle must name; a URI may end in `*` behind its
    /// host
    #[arg(long, value_name = "IDENTITY", requires_all = ["issuer", "trust_root"])]
    #[arg(conflicts_with = "provenance")]
    identity: Option<String>,
    /// Who must have issued that identity, a URL
    #[arg(long, value_name = "URL", requires = "identity")]
    issuer: Option<String>,
    /// The root of trust of that Sigstore: a `trusted_root.json`
    #[arg(long, value_name = "FILE", requires = "identity")]
    trust_root: Option<PathBuf>,
    /// The Sigstore bundle [default: the file beside it, with `.sigstore.json` behind its name]
    #[arg(long, value_name = "FILE", conflicts_with = "provenance")]
    bundle: Option<PathBuf>,
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    identities: Vec<CertifiedSigner>,
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
    let (path, note, what) = match (&arguments.plugin, &global.ceiling, &global.trust) {
        (None, Some(_), Some(_)) => {
            return Err(Failure::rejected_because(
                "there is a ceiling and there are rules of trust, and one of them is signed at a time",
                "leave out --ceiling or --trust, and SANDCAST_CEILING or SANDCAST_TRUST with it",
            ));
        }
        (None, Some(ceiling), None) => sign_file(OperatorFile::Ceiling, ceiling, &key)?,
        (None, None, Some(trust)) => sign_file(OperatorFile::Trust, trust, &key)?,
        (plugin, _, _) => {
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

/// Signs a file of the operator's: its path, the note, and what it is.
fn sign_file(
    kind: OperatorFile,
    path: &Path,
    key: &LogKey,
) -> Result<(PathBuf, String, String), Failure> {
    // What does not make sense is not signed.
    let digest: Digest = match kind {
        OperatorFile::Ceiling => read_ceiling(path, &[]).or_reject()?.ceiling.digest(),
        OperatorFile::Trust => {
            let rules = OperatorRules::from(read_trust_to_sign(path).or_reject()?);
            rules.trust_digest().ok_or_else(|| {
                Failure::rejected_because(
                    format_args!("{} has a rule for no role, so it says nothing", shown(path)),
                    "`sandcast schema trust` describes it",
                )
            })?
        }
    };
    let earlier = read_signature(path).or_reject()?;
    let bytes = std::fs::read(path)?;
    let note = sign_operator_file(kind, &bytes, key, earlier.as_deref());
    let what = format!("the {} {}  {digest}", kind.name(), shown(path));
    Ok((path.to_path_buf(), note, what))
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
    let (component, bytes, inspection) = inspect::read_whole(&arguments.plugin)?;
    let mut rule = TrustRule {
        required: true,
        keys: arguments.keys.clone(),
        identities: named_identity(arguments, &inspection)?,
    };
    if let Some(path) = &arguments.pipeline {
        let pipeline = Pipeline::load(path).map_err(Failure::rejected)?;
        let role = inspection.role;
        let of_pipeline = pipeline.sections.trust.get(&role).ok_or_else(|| {
            Failure::rejected_because(
                format_args!(
                    "{} does not say who may sign a {role}",
                    shown(&pipeline.path)
                ),
                format_args!("write `trust: {{ {role}: {{ keys: [...] }} }}`"),
            )
        })?;
        rule.keys.extend(of_pipeline.keys.iter().cloned());
        rule.identities
            .extend(of_pipeline.identities.iter().cloned());
    }
    if arguments.provenance {
        let builder = arguments.builder.as_deref();
        return verify_provenance(&component, &inspection, &rule.keys, builder, output);
    }
    let signature = read_signature(&component).or_reject()?;
    let bundle = bundle_of(arguments, &component)?;
    let signatures = Signatures {
        note: signature.as_deref(),
        bundle: bundle.as_deref(),
    };
    let signers = check_trust(&inspection, &bytes, signatures, Some(&rule)).or_reject()?;
    let Signers { keys, identities } = signers;
    if output.wants_json() {
        output.json(&Verified {
            signers: keys,
            identities,
        })?;
        return Ok(Exit::Done);
    }
    let named = named(&inspection);
    if !keys.is_empty() {
        let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
        output.line(format_args!("{named}  signed by {}", keys.join(", ")))?;
    }
    for signer in &identities {
        let statement = signer.statement.as_ref();
        let statement = statement.map_or_else(String::new, |kind| format!(", as {kind}"));
        output.line(format_args!(
            "{named}  signed by {} (issued by {}){statement}, entry {} of the log {} at {}",
            sandcast_sandbox::sentence(&signer.identity, 256),
            sandcast_sandbox::sentence(&signer.issuer, 256),
            signer.log_index,
            signer.log.get(..12).unwrap_or(&signer.log),
            signer.time
        ))?;
    }
    Ok(Exit::Done)
}

/// The identity that the command line names, with its root of trust.
fn named_identity(
    arguments: &VerifyPluginArguments,
    inspection: &Inspection,
) -> Result<Vec<IdentityRule>, Failure> {
    let named = (
        &arguments.identity,
        &arguments.issuer,
        &arguments.trust_root,
    );
    let (Some(identity), Some(issuer), Some(root)) = named else {
        return Ok(Vec::new());
    };
    let role = inspection.role;
    let text = read_bounded(root, MAX_ROOT_BYTES as u64);
    let text = text.and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other));
    let text = text.map_err(|error| {
        Failure::rejected_because(
            format_args!("{}: {error}", shown(root)),
            "name the `trusted_root.json` of the Sigstore that is meant",
        )
    })?;
    let mut rule = TrustRule {
        required: true,
        keys: Vec::new(),
        identities: vec![IdentityRule {
            identity: identity.clone(),
            issuer: issuer.clone(),
            trust_root: text.into(),
            trust_root_digest: None,
        }],
    };
    let fault = match rule.problems(role).pop() {
        Some(problem) => Some(problem),
        // It is there: only whether it is one is asked.
        None => rule
            .put_roots_in(role, |_| Err("it is not JSON".to_owned()))
            .err(),
    };
    match fault {
        Some(problem) if problem.path.ends_with("trust_root") => Err(Failure::rejected_because(
            format_args!("{}: {}", shown(root), problem.message),
            problem.help,
        )),
        Some(problem) => Err(Failure::rejected_because(problem.message, problem.help)),
        None => Ok(rule.identities),
    }
}

/// The bundle that the command line names, which has to be there, or else the one beside the component.
fn bundle_of(
    arguments: &VerifyPluginArguments,
    component: &Path,
) -> Result<Option<String>, Failure> {
    let path = arguments.bundle.clone();
    let path = path.unwrap_or_else(|| bundle_path(component));
    let unreadable = |error: std::io::Error| {
        Failure::rejected_because(
            format_args!("{}: {error}", shown(&path)),
            "get the bundle from the vendor, who makes it with `cosign sign-blob --bundle`",
        )
    };
    match read_bundle(&path).map_err(unreadable)? {
        None if arguments.bundle.is_some() => Err(unreadable(std::io::ErrorKind::NotFound.into())),
        bundle => Ok(bundle),
    }
}

/// The bytes of a file, of which one more than the limit is read.
fn read_bounded(path: &Path, limit_bytes: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(limit_bytes + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
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
    let bytes = read_bounded(&path, MAX_PROVENANCE_BYTES).map_err(|error| unreadable(&error))?;
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
