//! One component: the four columns, what does not fit, and the risk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use console::style;
use sandcast_audit::{CertifiedSigner, Standing, VerifierKey};
use sandcast_factory::{
    Pipeline, PluginUsage,
    conduct::{Isolate, StandingRecord, standing_in},
    config::PluginSection,
    plan::{Component, bundle_path, read_bundle, read_signature},
    usage_in,
};
use sandcast_sandbox::{
    CapabilityView, Excess, Grants, Inspection, Isolation, OperatorRules, Risk, RiskLevel,
    Signatures, Signers, Surroundings, TrustRule, capabilities, check_trust, risk, sentence,
    signers,
};
use serde::Serialize;

use super::{InspectArguments, sarif, write_sarif};
use crate::{
    arguments::GlobalArguments,
    commands::{
        build::shown,
        plugins::{because, standing_in_colour},
    },
    failure::{Exit, Failure, OrReject as _},
    output::Output,
    state,
    table::{Table, bytes, count},
};

/// What is told of a component, as `--json` prints it.
#[derive(Serialize)]
struct Told<'a> {
    file: String,
    #[serde(flatten)]
    inspection: &'a Inspection,
    /// Where the grants are from.
    pipeline: Option<InPipeline>,
    /// Who signed it, where it has a signature or the pipeline says who may sign.
    signature: Option<Signed>,
    /// Where the grants are over the operator's ceiling.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    over_ceiling: Vec<Excess>,
    capabilities: Vec<CapabilityView>,
    usage: Option<PluginUsage>,
    /// How far it is trusted, according to the audit log.
    standing: Option<StandingRecord>,
    risk: Risk,
}

/// What is known of a signature.
#[derive(Serialize)]
struct Signed {
    /// The names and hashes of the keys that say they signed it.
    signers: Vec<String>,
    /// The keys that signed it and may, where the pipeline or the operator says who may.
    trusted: Vec<VerifierKey>,
    /// Whether there is a Sigstore bundle.
    has_bundle: bool,
    /// Who signed it by Sigstore and may, likewise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    identities: Vec<CertifiedSigner>,
    /// Why the signature is not enough.
    fault: Option<String>,
}

/// A component as a pipeline has it.
#[derive(Serialize)]
struct InPipeline {
    /// The pipeline file.
    file: String,
    /// The name of the plugin there.
    plugin: String,
    grants: Grants,
    /// Whose instances run in processes of their own, whatever their grants say.
    isolate: Isolate,
    pinned: bool,
    /// Who may sign plugins of its role.
    trust: Option<TrustRule>,
    #[serde(skip)]
    folder: PathBuf,
    /// The bundle that it names.
    #[serde(skip)]
    bundle: Option<PathBuf>,
    /// Columns that the pipeline says are sensitive.
    #[serde(skip)]
    sensitive: Vec<String>,
}

/// Where the component of a file or of a plugin's crate is, and what it is.
pub(crate) fn read(path: &Path) -> Result<(PathBuf, Inspection), Failure> {
    let (file, _, inspection) = read_whole(path)?;
    Ok((file, inspection))
}

/// The same, with its bytes.
pub(crate) fn read_whole(path: &Path) -> Result<(PathBuf, Vec<u8>, Inspection), Failure> {
    let file = if path.join("plugin.toml").is_file() {
        let file = sandcast_build::component_path(path).or_reject()?;
        if !file.is_file() {
            return Err(Failure::rejected_because(
                format_args!("{} is not built", path.display()),
                format_args!("sandcast build {}", path.display()),
            ));
        }
        file
    } else {
        path.to_path_buf()
    };
    let component = std::fs::read(&file).map_err(|error| {
        Failure::rejected_because(
            format_args!("cannot read {}: {error}", file.display()),
            "give a component file, or the crate folder of a plugin",
        )
    })?;
    let inspection = sandcast_sandbox::inspect(&component).or_reject()?;
    Ok((file, component, inspection))
}

pub(super) fn execute(
    target: &Path,
    arguments: &InspectArguments,
    global: &GlobalArguments,
    rules: &OperatorRules,
    output: &Output,
) -> Result<Exit, Failure> {
    let (file, component, inspection) = read_whole(target)?;
    let pipeline = match &arguments.pipeline {
        None => None,
        Some(path) => Some(in_pipeline(
            path,
            arguments.plugin.as_deref(),
            &file,
            &inspection,
        )?),
    };
    let usage = match state_folder(arguments, global) {
        None => None,
        Some(folder) => usage_in(&folder, &inspection.digest)?,
    };
    let standing = match state_folder(arguments, global) {
        None => None,
        Some(folder) => standing_in(&folder, &inspection.digest)?,
    };
    let grants = pipeline.as_ref().map(|it| &it.grants);
    let used = usage.as_ref().map(|usage| &usage.calls);
    let risk = risk(
        &inspection,
        &Surroundings {
            grants,
            used,
            sensitive: pipeline.as_ref().map_or(&[], |it| &it.sensitive),
            pinned: pipeline.as_ref().map(|it| it.pinned),
        },
    );
    // Folders are told as the pipeline writes them.
    let folder = pipeline.as_ref().map_or(Path::new(""), |it| &it.folder);
    let capabilities = capabilities(&inspection, grants, used, &risk, |path| {
        let path = path.strip_prefix(folder).unwrap_or(path);
        path.display().to_string()
    });
    let note = read_signature(&file).or_reject()?;
    let bundle = pipeline.as_ref().and_then(|it| it.bundle.clone());
    let bundle = read_bundle(&bundle.unwrap_or_else(|| bundle_path(&file))).or_reject()?;
    let signatures = Signatures {
        note: note.as_deref(),
        bundle: bundle.as_deref(),
    };
    let of_pipeline = pipeline.as_ref().and_then(|it| it.trust.as_ref());
    let of_operator = rules.trust.get(&inspection.role);
    let trust: Vec<&TrustRule> = of_pipeline.into_iter().chain(of_operator).collect();
    let over_ceiling = match (&rules.ceiling, grants) {
        (Some(ceiling), Some(grants)) => {
            let isolate = pipeline.as_ref().map_or(Isolate::Granted, |it| it.isolate);
            let grants = isolate.applied(standing_of(standing.as_ref()), grants.clone());
            ceiling.excesses(&inspection.manifest.id, inspection.role, &grants)
        }
        _ => Vec::new(),
    };
    let told = Told {
        file: shown(&file),
        signature: signed(&inspection, &component, signatures, &trust),
        over_ceiling,
        inspection: &inspection,
        pipeline,
        capabilities,
        usage,
        standing,
        risk,
    };
    let log = sarif::of_component(&told.file, &inspection, &told.risk);
    if write_sarif(arguments, output, &log)? {
        return Ok(Exit::Done);
    }
    if output.wants_json() {
        output.json(&told)?;
    } else {
        tell(&told, output)?;
    }
    Ok(Exit::Done)
}

/// Looks at the signature of a component, with the rules that the pipeline and the operator have for
/// its role.
fn signed(
    inspection: &Inspection,
    component: &[u8],
    signatures: Signatures<'_>,
    rules: &[&TrustRule],
) -> Option<Signed> {
    let Signatures { note, bundle } = signatures;
    if note.is_none() && bundle.is_none() && rules.is_empty() {
        return None;
    }
    let signers = note.map_or(Ok(Vec::new()), |note| signers(inspection, note));
    let mut trusted = Signers::default();
    let mut fault = signers.as_ref().err().map(ToString::to_string);
    for rule in rules {
        match check_trust(inspection, component, signatures, Some(rule)) {
            Ok(others) => trusted.add(others),
            Err(error) => {
                fault.get_or_insert_with(|| error.to_string());
            }
        }
    }
    Some(Signed {
        fault,
        signers: signers.unwrap_or_default(),
        has_bundle: bundle.is_some(),
        trusted: trusted.keys,
        identities: trusted.identities,
    })
}

/// The state whose audit log knows what was used, if there is one.
fn state_folder(arguments: &InspectArguments, global: &GlobalArguments) -> Option<PathBuf> {
    match &arguments.pipeline {
        Some(pipeline) => Some(state::beside(pipeline, global.state.as_deref())),
        None => state::nearest(global.state.as_deref()).ok(),
    }
}

/// Finds a component in a pipeline: by the name it is said to have there, else by its file, else by
/// its digest.
fn in_pipeline(
    path: &Path,
    name: Option<&str>,
    file: &Path,
    inspection: &Inspection,
) -> Result<InPipeline, Failure> {
    let pipeline = Pipeline::load(path).map_err(Failure::rejected)?;
    let plugins = &pipeline.sections.plugins;
    let mut names: Vec<&String> = match name {
        Some(name) => plugins.keys().filter(|it| *it == name).collect(),
        None => with_file(plugins, file),
    };
    if names.is_empty() && name.is_none() {
        let is_same = |name: &String, section: &PluginSection| {
            let other = Component::read(name, section);
            other.is_ok_and(|other| other.inspection.digest == inspection.digest)
        };
        let same = plugins
            .iter()
            .filter(|(name, section)| is_same(name, section));
        names = same.map(|(name, _)| name).collect();
    }
    let list = |names: Vec<&String>| {
        let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
        names.join(", ")
    };
    let name = match names[..] {
        [name] => name,
        [] => {
            return Err(Failure::rejected_because(
                format_args!(
                    "{} has no plugin {}",
                    pipeline.path.display(),
                    name.map_or_else(
                        || format!("with the component {}", file.display()),
                        |name| format!("`{name}`")
                    )
                ),
                format_args!(
                    "it has {}; name the one that this is for with --plugin",
                    list(plugins.keys().collect())
                ),
            ));
        }
        _ => {
            return Err(Failure::rejected_because(
                format_args!(
                    "{} has this component more than once",
                    pipeline.path.display()
                ),
                format_args!("name the one that is meant with --plugin: {}", list(names)),
            ));
        }
    };
    let section = &plugins[name];
    Ok(InPipeline {
        file: shown(&pipeline.path),
        plugin: name.clone(),
        grants: section.grants.clone(),
        isolate: pipeline.sections.conduct.isolate,
        pinned: section.digest.is_some(),
        trust: pipeline.sections.trust.get(&inspection.role).cloned(),
        folder: pipeline.folder.clone(),
        bundle: section.bundle.clone(),
        sensitive: pipeline.sections.evaluate.slices.clone(),
    })
}

fn with_file<'a>(plugins: &'a BTreeMap<String, PluginSection>, file: &Path) -> Vec<&'a String> {
    let Ok(file) = file.canonicalize() else {
        return Vec::new();
    };
    let is_there = |section: &PluginSection| {
        let path = if section.source.is_dir() {
            sandcast_build::component_path(&section.source).ok()
        } else {
            Some(section.source.clone())
        };
        let path = path.and_then(|path| path.canonicalize().ok());
        path.is_some_and(|path| path == file)
    };
    let same = plugins.iter().filter(|(_, section)| is_there(section));
    same.map(|(name, _)| name).collect()
}

fn tell(told: &Told<'_>, output: &Output) -> Result<(), Failure> {
    let inspection = told.inspection;
    let manifest = &inspection.manifest;
    output.line(format_args!(
        "{} {}  {}  {}  {}",
        style(&manifest.id).bold(),
        sentence(&manifest.version, 64),
        inspection.role,
        bytes(inspection.size_bytes),
        inspection.digest
    ))?;
    let mut facts = facts_of(inspection);
    if let Some(signed) = &told.signature {
        facts.row(["signed by".to_owned(), signed_by(signed)]);
    }
    if let Some(record) = &told.standing {
        let standing = format!("{}, {}", standing_in_colour(record), because(record));
        facts.row(["standing".to_owned(), standing]);
    }
    if let Some(apart) = apart(told) {
        facts.row(["runs".to_owned(), apart]);
    }
    if !facts.is_empty() {
        output.line(facts)?;
    }
    output.line(format_args!("\n{}", columns(told)))?;
    let mut heading = Some("\nwhat does not fit");
    let reasons = told.risk.reasons.iter();
    for reason in reasons.filter(|reason| reason.factor.is_mismatch()) {
        if let Some(heading) = heading.take() {
            output.line(heading)?;
        }
        output.line(format_args!("  {}", style(&reason.because).yellow()))?;
    }
    for (number, excess) in told.over_ceiling.iter().enumerate() {
        if number == 0 {
            output.line("\nover the ceiling, so it will be refused")?;
        }
        output.line(format_args!("  {}", style(excess).red()))?;
    }
    output.line(format_args!("\n{}", risk_in_words(&told.risk)))?;
    let unknown = unknown(told);
    if !unknown.is_empty() {
        output.note(unknown);
    }
    Ok(())
}

/// The standing it would be loaded with: one that nobody knows is trusted by nobody.
fn standing_of(record: Option<&StandingRecord>) -> Standing {
    record.map_or(Standing::Admitted, |record| record.standing)
}

/// That it runs in a process of its own in the pipeline, if it does, and why.
fn apart(told: &Told<'_>) -> Option<String> {
    let pipeline = told.pipeline.as_ref()?;
    if pipeline.grants.isolation == Isolation::Process {
        return Some("in a process of its own, as its grants say".to_owned());
    }
    let isolated = pipeline.isolate.covers(standing_of(told.standing.as_ref()));
    isolated.then(|| {
        let rule = "as `conduct.isolate` of the pipeline says";
        match pipeline.isolate {
            Isolate::Trusted => format!("in a process of its own, {rule}"),
            _ => format!("in a process of its own while it is not trusted, {rule}"),
        }
    })
}

fn signed_by(signed: &Signed) -> String {
    let mut names = signed.signers.clone();
    if signed.has_bundle {
        names.push("whom its Sigstore bundle names".to_owned());
    }
    let names = match &names[..] {
        [] => "nobody".to_owned(),
        names => sentence(&names.join(", "), 512),
    };
    if let Some(fault) = &signed.fault {
        return format!("{names}; {}", style(fault).red());
    }
    let keys = signed.trusted.iter();
    let keys = keys.map(|key| format!("{} ({:08x})", key.name(), key.hash()));
    let identities = signed.identities.iter();
    let identities = identities.map(|it| {
        let (identity, issuer) = (sentence(&it.identity, 256), sentence(&it.issuer, 256));
        format!("{identity} (issued by {issuer}, {})", it.time)
    });
    let trusted: Vec<String> = keys.chain(identities).collect();
    match &trusted[..] {
        [] => format!(
            "{names}; {}",
            style("not checked against a rule of trust").dim()
        ),
        trusted => format!("{}, who may", trusted.join(", ")),
    }
}

fn facts_of(inspection: &Inspection) -> Table {
    let manifest = &inspection.manifest;
    let mut facts = Table::indented(2);
    let mut fact = |what: &str, text: &str| {
        if !text.is_empty() {
            facts.row([what.to_owned(), sentence(text, 512)]);
        }
    };
    fact("does", &manifest.description);
    fact("vendor", &manifest.vendor);
    fact("contact", &manifest.contact);
    fact("licence", &manifest.license);
    fact("contract", &inspection.contract);
    if let Some(adapter) = &manifest.adapter {
        fact("data", &adapter.data_sourcing);
        fact("meant for", &adapter.intended_use);
        fact("updates", &adapter.update_cadence);
    }
    facts
}

/// What is asked for, imported, granted and used, an interface to a line.
fn columns(told: &Told<'_>) -> Table {
    let unknown = || "–".to_owned();
    let mut table = Table::with_headings([
        "capability",
        "asks for it because",
        "imports",
        "granted",
        "used",
    ]);
    for row in &told.capabilities {
        let asks = row
            .asks
            .clone()
            .unwrap_or_else(|| style("does not ask").red().to_string());
        let mut imports = row.imports.iter().map(|interface| {
            if row.noise {
                format!("{interface} {}", style("(noise)").dim())
            } else {
                interface.clone()
            }
        });
        let granted = match (&told.pipeline, &row.granted) {
            (_, Some(words)) => words.clone(),
            (Some(_), None) => "no".to_owned(),
            (None, None) => unknown(),
        };
        let used = match row.used {
            None => unknown(),
            Some(0) => "never".to_owned(),
            Some(1) => "1 call".to_owned(),
            Some(calls) => format!("{} calls", count(calls)),
        };
        let denied = told
            .usage
            .as_ref()
            .and_then(|usage| usage.denials.get(&row.capability))
            .map_or_else(String::new, |denied| format!(", {} denied", count(*denied)));
        table.row([
            row.capability.clone(),
            asks,
            imports.next().unwrap_or_else(|| "nothing of it".to_owned()),
            granted,
            format!("{used}{denied}"),
        ]);
        for interface in imports {
            table.row([String::new(), String::new(), interface]);
        }
    }
    add_rest(&mut table, told.inspection);
    table
}

/// Imports that no capability opens: what every plugin has, what a standard library brings along,
/// and what this host does not know.
fn add_rest(table: &mut Table, inspection: &Inspection) {
    let groups = [
        (true, false, "always", "opens nothing by itself"),
        (
            true,
            true,
            "noise",
            "its language's standard library; denied and counted",
        ),
        (false, false, "unknown", "this host does not offer it"),
    ];
    for (offered, noise, name, because) in groups {
        let imports = inspection.imports.iter();
        let imports = imports
            .filter(|it| it.capability.is_none() && !it.functions.is_empty())
            .filter(|it| it.is_offered() == offered && (!offered || it.noise == noise));
        for (number, import) in imports.enumerate() {
            let once = |text: &str| match number {
                0 => style(text).dim().to_string(),
                _ => String::new(),
            };
            let interface = sentence(&import.interface, 256);
            table.row([once(name), once(because), interface]);
        }
    }
}

/// The score, and its reasons, each with what would lower it.
pub(super) fn risk_in_words(risk: &Risk) -> String {
    let mut table = Table::indented(2).numbers_at(&[0]);
    for reason in risk.reasons.iter().filter(|reason| reason.points > 0) {
        table.row([
            reason.points.to_string(),
            reason.factor.to_string(),
            reason.because.clone(),
        ]);
        table.row([
            String::new(),
            String::new(),
            style(format!("lower it: {}", reason.lowered_by))
                .dim()
                .to_string(),
        ]);
    }
    let head = format!("risk {} of 100, {}", risk.score, level(risk.level));
    if table.is_empty() {
        head
    } else {
        format!("{head}\n{table}")
    }
}

pub(super) fn level(level: RiskLevel) -> String {
    let word = style(level.as_str());
    match level {
        RiskLevel::Low => word.green(),
        RiskLevel::Moderate => word.yellow(),
        RiskLevel::High | RiskLevel::Critical => word.red().bold(),
    }
    .to_string()
}

/// What a dash stands for.
fn unknown(told: &Told<'_>) -> String {
    let mut said = Vec::new();
    if told.pipeline.is_none() {
        said.push("what is granted is known with --pipeline");
    }
    if told.usage.is_none() {
        said.push("no use of this component is on record in a state folder; name one with --state");
    }
    said.join("; ")
}
