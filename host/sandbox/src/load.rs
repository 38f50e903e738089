//! From bytes to a plugin: every check comes before the compiler, and before anything runs.

use std::sync::Arc;

use sandcast_audit::{AuditError, Digest, Event, PluginRef};
use thiserror::Error;
use wasmtime::component::{Component, Linker};

use crate::bindings::{adapter, connector, policy, validator};
use crate::cache;
use crate::code;
use crate::contract::{CONTRACT_VERSION, is_tool_export, role_export};
use crate::grants::http::{Lookups, Rates};
use crate::grants::{
    Capability, Excess, Grants, Isolation, blob, clock, compute, config, files, http, log, noise,
    random, sql, state,
};
use crate::inspect::{Import, Inspection, contract_version, inspect_named};
use crate::manifest::Role;
use crate::plugin::{Plugin, RolePre};
use crate::process::{self, Workshop};
use crate::recording::Playback;
use crate::sandbox::{OperatorRules, Sandbox};
use crate::signature::{self, SignatureError, Signatures, Signers, TrustRule};
use crate::state::{Identity, State};
use crate::text;

/// Why a component was not loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The bytes are not a WebAssembly component.
    #[error(
        "plugin `{name}` is not a WebAssembly component: {reason}; build it with `sandcast build`"
    )]
    NotAComponent {
        /// The plugin as the pipeline names it.
        name: String,
        /// What was found instead.
        reason: String,
    },
    /// The component is larger than the limit.
    #[error("plugin `{name}` is {size_bytes} bytes, over the limit of {limit_bytes}")]
    TooLarge {
        /// The plugin as the pipeline names it.
        name: String,
        /// Its size.
        size_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// Its code is more than the compiler can be given.
    #[error(
        "plugin `{name}` is not compiled: {what}; a compiler would take too much memory and time over it"
    )]
    TooComplex {
        /// The plugin as the pipeline names it.
        name: String,
        /// What there is too much of.
        what: String,
    },
    /// There is no usable manifest inside.
    #[error(
        "plugin `{name}` has no usable manifest: {reason}; build it with `sandcast build`, which writes one from plugin.toml"
    )]
    Manifest {
        /// The plugin as the pipeline names it.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The component was built for another contract.
    #[error(
        "plugin `{name}` speaks contract {found}, this host speaks {supported}; rebuild it with a matching SDK"
    )]
    ContractVersion {
        /// The plugin as the pipeline names it.
        name: String,
        /// The version it was built against.
        found: String,
        /// The version of this host.
        supported: String,
    },
    /// The component plays another role.
    #[error("plugin `{name}` is used as a {wanted}, but it is a {found}")]
    WrongRole {
        /// The plugin as the pipeline names it.
        name: String,
        /// The role it is used in.
        wanted: Role,
        /// The role it says it plays.
        found: String,
    },
    /// The component exports something that its role does not have.
    #[error("plugin `{name}` exports `{export}`, which a {role} does not have")]
    UnexpectedExport {
        /// The plugin as the pipeline names it.
        name: String,
        /// The export.
        export: String,
        /// Its role.
        role: Role,
    },
    /// The component imports what it was not granted.
    #[error(
        "plugin `{name}` imports `{interface}`, which needs the capability `{capability}`; it is not granted: {grant_with}"
    )]
    NotGranted {
        /// The plugin as the pipeline names it.
        name: String,
        /// The interface it imports.
        interface: String,
        /// The capability that opens it.
        capability: String,
        /// The line of the pipeline that would grant it.
        grant_with: String,
    },
    /// The component imports what no grant can open.
    #[error(
        "plugin `{name}` imports `{interface}`, which this host does not offer under any grant"
    )]
    UnknownImport {
        /// The plugin as the pipeline names it.
        name: String,
        /// The interface it imports.
        interface: String,
    },
    /// The component imports what is granted, but what its manifest does not ask for.
    #[error(
        "plugin `{name}` imports `{interface}`, but its manifest does not ask for the capability `{capability}`; add it under `capabilities` in its plugin.toml, with a reason"
    )]
    NotAskedFor {
        /// The plugin as the pipeline names it.
        name: String,
        /// The interface it imports.
        interface: String,
        /// The capability that opens it.
        capability: String,
    },
    /// The grants are over the operator's ceiling.
    #[error(
        "the grants of plugin `{name}` are over the ceiling of this host: {}; grant less at `plugins.{name}.grants`, or have the operator raise the ceiling",
        sentence(excesses)
    )]
    OverCeiling {
        /// The plugin as the pipeline names it.
        name: String,
        /// Every part that is.
        excesses: Vec<Excess>,
    },
    /// Who may sign plugins of its role did not sign it.
    #[error("plugin `{name}` is refused: {source}")]
    Untrusted {
        /// The plugin as the pipeline names it.
        name: String,
        /// What is wrong with its signature.
        source: SignatureError,
    },
    /// Who may sign plugins of its role on this host, whatever a pipeline says, did not.
    #[error("plugin `{name}` is refused by the operator's rule of trust: {source}")]
    UntrustedByOperator {
        /// The plugin as the pipeline names it.
        name: String,
        /// What is wrong with its signature.
        source: SignatureError,
    },
    /// A grant cannot be given.
    #[error("the grant at `plugins.{name}.grants.{grant}` cannot be given: {reason}")]
    BadGrant {
        /// The plugin as the pipeline names it.
        name: String,
        /// The grant.
        grant: String,
        /// Why.
        reason: String,
    },
    /// The component could not be kept for replays, so the plugin was not loaded.
    #[error("plugin `{name}` is to be recorded, and nothing can be kept in {folder}: {reason}")]
    Unrecorded {
        /// The plugin as the pipeline names it.
        name: String,
        /// The folder of recordings.
        folder: String,
        /// Why not.
        reason: String,
    },
    /// The component does not compile.
    #[error("plugin `{name}` does not compile: {reason}")]
    Compile {
        /// The plugin as the pipeline names it.
        name: String,
        /// What the compiler said.
        reason: String,
    },
    /// Compiling took too much processor time.
    #[error(
        "plugin `{name}` was still compiling after {limit_seconds} s of processor time, which bounds it; \
         no other load of the machine counts, so make the component smaller: built for release, and \
         without what it does not use"
    )]
    CompileProcessorTime {
        /// The plugin as the pipeline names it.
        name: String,
        /// The limit.
        limit_seconds: u64,
    },
    /// Compiling took too long by the clock.
    #[error(
        "plugin `{name}` was still compiling, or waiting for others to, after {limit_seconds} s by the \
         clock, which bounds it; the machine has too much else to do: try again when it has less"
    )]
    CompileTimeout {
        /// The plugin as the pipeline names it.
        name: String,
        /// The limit.
        limit_seconds: u64,
    },
    /// The audit log could not be written, so the plugin was not loaded.
    #[error("the audit log refused the record of loading plugin `{name}`: {reason}")]
    Audit {
        /// The plugin as the pipeline names it.
        name: String,
        /// What the log said.
        reason: String,
    },
}

/// Excesses in one sentence.
fn sentence(excesses: &[Excess]) -> String {
    let texts: Vec<String> = excesses.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

/// Where a component is from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin<'a> {
    /// What lies beside it to say who signed it.
    pub signatures: Signatures<'a>,
    /// Who may sign the plugins of its role; without a rule anybody, and nobody has to.
    pub trust: Option<&'a TrustRule>,
}

/// Loads a component: checks, compiles, links, and records how it went.
pub(crate) async fn load(
    sandbox: &Sandbox,
    name: &str,
    bytes: &[u8],
    role: Role,
    grants: Grants,
    origin: Origin<'_>,
) -> Result<Plugin, LoadError> {
    let rules = sandbox.operator();
    let (ceiling, trust) = keep_rules(sandbox, &rules).map_err(|error| LoadError::Audit {
        name: name.to_owned(),
        reason: error.to_string(),
    })?;
    let outcome = check_and_compile(sandbox, &rules, name, bytes, role, grants, origin).await;
    let event = match &outcome {
        Ok(plugin) => Event::PluginLoaded {
            run: None,
            plugin: plugin.reference().clone(),
            name: name.to_owned(),
            grants: serde_json::to_value(plugin.grants()).unwrap_or_default(),
            ceiling,
            ceiling_signers: rules.ceiling_signers.clone(),
            signers: plugin.signers().keys.clone(),
            identities: plugin.signers().identities.clone(),
            trust,
            trust_signers: rules.trust_signers.clone(),
            imports: plugin
                .inspection()
                .imports
                .iter()
                .map(|import| import.interface.clone())
                .collect(),
        },
        Err(error) => Event::PluginRefused {
            name: name.to_owned(),
            digest: Some(Digest::of(bytes)),
            reason: error.to_string(),
        },
    };
    // What is not on record has not happened: a plugin whose load cannot be recorded is not
    // handed out. A refusal stands either way.
    match (outcome, sandbox.audit().append(event)) {
        (Ok(_), Err(error)) => Err(LoadError::Audit {
            name: name.to_owned(),
            reason: error.to_string(),
        }),
        (outcome, _) => outcome,
    }
}

/// Keeps what the operator holds plugins to beside the log that names it.
fn keep_rules(
    sandbox: &Sandbox,
    rules: &OperatorRules,
) -> Result<(Option<Digest>, Option<Digest>), AuditError> {
    let keep = |text: Option<Vec<u8>>| text.map(|text| sandbox.audit().keep(&text)).transpose();
    Ok((keep(rules.ceiling_text())?, keep(rules.trust_text())?))
}

async fn check_and_compile(
    sandbox: &Sandbox,
    rules: &OperatorRules,
    name: &str,
    bytes: &[u8],
    role: Role,
    grants: Grants,
    origin: Origin<'_>,
) -> Result<Plugin, LoadError> {
    let limit_bytes = sandbox.max_component_bytes();
    if bytes.len() as u64 > limit_bytes {
        return Err(LoadError::TooLarge {
            name: name.to_owned(),
            size_bytes: bytes.len() as u64,
            limit_bytes,
        });
    }
    let inspection = inspect_named(name, bytes)?;
    let signers = check_signature(rules, name, bytes, &inspection, origin)?;
    check_contract(name, &inspection)?;
    check_role(name, &inspection, role)?;
    check_imports(name, &inspection, &grants)?;
    if let Some(ceiling) = &rules.ceiling {
        let excesses = ceiling.excesses(&inspection.manifest.id, role, &grants);
        if !excesses.is_empty() {
            return Err(LoadError::OverCeiling {
                name: name.to_owned(),
                excesses,
            });
        }
    }
    for grant in &grants.files {
        files::check(grant).map_err(|reason| LoadError::BadGrant {
            name: name.to_owned(),
            grant: "files".into(),
            reason,
        })?;
    }
    for grant in &grants.http {
        http::check(grant).map_err(|reason| LoadError::BadGrant {
            name: name.to_owned(),
            grant: "http".into(),
            reason,
        })?;
    }
    let bad = |grant: &str, reason| LoadError::BadGrant {
        name: name.to_owned(),
        grant: grant.to_owned(),
        reason,
    };
    if let Some(grant) = &grants.compute {
        compute::check(grant, sandbox.device()).map_err(|reason| bad("compute", reason))?;
    }
    if let Some(grant) = &grants.state {
        let usable = state::check(grant).and_then(|()| sandbox.pairs().map(|_| ()));
        usable.map_err(|reason| bad("state", reason))?;
    }
    sql::check_all(&grants.sql).map_err(|reason| bad("sql", reason))?;
    blob::check_all(&grants.blob).map_err(|reason| bad("blob", reason))?;
    if grants.recording.is_some() {
        keep_component(sandbox, name, bytes, role, &grants)?;
    }
    let isolation = grants.isolation;
    if isolation == Isolation::Process && sandbox.process().is_none() {
        return Err(bad(
            "isolation",
            "this host was given no program to start for it".to_owned(),
        ));
    }
    let component = compile(sandbox, name, bytes, &inspection).await?;
    let (identity, pre) = prepare(sandbox, name, &component, role, grants, &inspection, false)?;
    let workshop = match isolation {
        Isolation::Engine => None,
        Isolation::Process => Some(workshop(
            sandbox,
            &identity,
            &inspection,
            bytes,
            &component,
        )?),
    };
    Ok(Plugin::new(
        sandbox.clone(),
        identity,
        inspection,
        signers,
        pre,
        workshop,
    ))
}

fn workshop(
    sandbox: &Sandbox,
    identity: &Identity,
    inspection: &Inspection,
    bytes: &[u8],
    component: &Component,
) -> Result<Arc<Workshop>, LoadError> {
    let failed = |reason: String| LoadError::BadGrant {
        name: identity.name.clone(),
        grant: "isolation".into(),
        reason,
    };
    let program = sandbox.process().cloned();
    let program = program.ok_or_else(|| failed("there is no program for it".to_owned()))?;
    let artifact = component.serialize();
    let artifact = artifact.map_err(|error| failed(error.to_string()))?;
    let component = Arc::from(bytes);
    let workshop = Workshop::new(program, identity, inspection, component, artifact);
    Ok(Arc::new(workshop))
}

/// A component in a process that runs nothing else. The host has checked it, and its grants too, which are told
/// to the process as far as it needs them.
pub(crate) fn apart(
    sandbox: &Sandbox,
    name: &str,
    bytes: &[u8],
    artifact: &[u8],
    role: Role,
    grants: Grants,
    asks_host: bool,
) -> Result<Plugin, LoadError> {
    let inspection = inspect_named(name, bytes)?;
    check_role(name, &inspection, role)?;
    let component = cache::compiled(sandbox.engine(), artifact);
    let component = component.map_err(|error| LoadError::Compile {
        name: name.to_owned(),
        reason: text::sentence(&format!("{error:#}"), 1024),
    })?;
    let (identity, pre) = prepare(
        sandbox,
        name,
        &component,
        role,
        grants,
        &inspection,
        asks_host,
    )?;
    let (sandbox, signers) = (sandbox.clone(), Signers::default());
    Ok(Plugin::new(
        sandbox, identity, inspection, signers, pre, None,
    ))
}

/// What a replay runs is kept before anything of it is run.
fn keep_component(
    sandbox: &Sandbox,
    name: &str,
    bytes: &[u8],
    role: Role,
    grants: &Grants,
) -> Result<(), LoadError> {
    let refused = |reason: &str| LoadError::BadGrant {
        name: name.to_owned(),
        grant: "recording".into(),
        reason: reason.to_owned(),
    };
    if role == Role::Connector {
        return Err(refused(
            "connectors are not recorded: what they read is kept with the dataset, by its digest",
        ));
    }
    if !grants.files.is_empty() {
        return Err(refused(
            "what a plugin does with folders is not recorded, so it has either folders or a \
             recording; give it what it needs in its configuration or as data",
        ));
    }
    let Some(recordings) = sandbox.recordings() else {
        return Err(refused("there is no folder for recordings"));
    };
    let kept = recordings.put(bytes).map(|_| ());
    kept.map_err(|error| LoadError::Unrecorded {
        name: name.to_owned(),
        folder: recordings.folder().display().to_string(),
        reason: error.to_string(),
    })
}

/// Compiles what was checked, where it is no more than a compiler should be given.
async fn compile(
    sandbox: &Sandbox,
    name: &str,
    bytes: &[u8],
    inspection: &Inspection,
) -> Result<Component, LoadError> {
    code::check(bytes).map_err(|what| LoadError::TooComplex {
        name: name.to_owned(),
        what,
    })?;
    sandbox.compile(name, inspection.digest, bytes).await
}

/// Links what was checked and compiled; to the host of a process, where it asks that.
fn prepare(
    sandbox: &Sandbox,
    name: &str,
    component: &Component,
    role: Role,
    grants: Grants,
    inspection: &Inspection,
    asks_host: bool,
) -> Result<(Arc<Identity>, RolePre), LoadError> {
    let pre = link(sandbox, component, inspection, role, asks_host).map_err(|error| {
        LoadError::Compile {
            name: name.to_owned(),
            reason: text::sentence(&format!("{error:#}"), 1024),
        }
    })?;
    let reference = PluginRef {
        id: inspection.manifest.id.clone(),
        version: inspection.manifest.version.clone(),
        role: role.to_string(),
        digest: inspection.digest,
    };
    let identity = Identity {
        name: name.to_owned(),
        reference,
        rates: Rates::of(&grants.http),
        grants,
        lookups: Lookups::default(),
    };
    Ok((Arc::new(identity), pre))
}

/// A component of which a recorded instance is lived again. It was authorised then; now it is given
/// nothing of the world, and its load is on no record.
pub(crate) async fn replayed(
    sandbox: &Sandbox,
    name: &str,
    bytes: &[u8],
    role: Role,
    grants: Grants,
    playback: Arc<Playback>,
) -> Result<Plugin, LoadError> {
    let inspection = inspect_named(name, bytes)?;
    check_contract(name, &inspection)?;
    check_role(name, &inspection, role)?;
    check_imports(name, &inspection, &grants)?;
    let component = compile(sandbox, name, bytes, &inspection).await?;
    let (identity, pre) = prepare(sandbox, name, &component, role, grants, &inspection, false)?;
    let sandbox = sandbox.clone();
    Ok(Plugin::replayed(
        sandbox, identity, inspection, pre, playback,
    ))
}

/// Holds a component to its rule and the operator's, without loading it.
pub(crate) fn check_signatures(
    sandbox: &Sandbox,
    name: &str,
    bytes: &[u8],
    origin: Origin<'_>,
) -> Result<Signers, LoadError> {
    let inspection = inspect_named(name, bytes)?;
    check_signature(&sandbox.operator(), name, bytes, &inspection, origin)
}

/// Holds a component to the rule that it comes with and to the operator's: those of both that signed
/// it.
fn check_signature(
    rules: &OperatorRules,
    name: &str,
    bytes: &[u8],
    inspection: &Inspection,
    origin: Origin<'_>,
) -> Result<Signers, LoadError> {
    let check = |rule| signature::check_trust(inspection, bytes, origin.signatures, rule);
    let mut signers = check(origin.trust).map_err(|source| LoadError::Untrusted {
        name: name.to_owned(),
        source,
    })?;
    let known = check(rules.trust.get(&inspection.role)).map_err(|source| {
        LoadError::UntrustedByOperator {
            name: name.to_owned(),
            source,
        }
    })?;
    signers.add(known);
    Ok(signers)
}

fn check_contract(name: &str, inspection: &Inspection) -> Result<(), LoadError> {
    let in_names = inspection
        .imports
        .iter()
        .map(|import| import.interface.as_str())
        .chain(inspection.exports.iter().map(String::as_str))
        .filter_map(contract_version);
    let mut found = in_names.chain([inspection.manifest.contract.as_str()]);
    match found.find(|version| *version != CONTRACT_VERSION) {
        None => Ok(()),
        Some(other) => Err(LoadError::ContractVersion {
            name: name.to_owned(),
            found: text::sentence(other, 64),
            supported: CONTRACT_VERSION.to_owned(),
        }),
    }
}

fn check_role(name: &str, inspection: &Inspection, wanted: Role) -> Result<(), LoadError> {
    let wrong = |found: &str| LoadError::WrongRole {
        name: name.to_owned(),
        wanted,
        found: found.to_owned(),
    };
    if inspection.manifest.role != wanted {
        return Err(wrong(inspection.manifest.role.as_str()));
    }
    let wanted_export = role_export(wanted);
    let mut is_there = false;
    for export in &inspection.exports {
        let plain = contract_version(export).is_some();
        if *export == wanted_export {
            is_there = true;
        } else if let Some(other) = Role::ALL
            .into_iter()
            .find(|role| role_export(*role) == *export)
            && plain
        {
            return Err(wrong(other.as_str()));
        } else if !is_tool_export(export) {
            return Err(LoadError::UnexpectedExport {
                name: name.to_owned(),
                export: text::sentence(export, 128),
                role: wanted,
            });
        }
    }
    if is_there {
        Ok(())
    } else {
        Err(wrong("component that exports no role"))
    }
}

/// What is imported must be asked for and granted. Noise of a standard library is let in
/// without: it is linked to stubs that deny.
fn check_imports(name: &str, inspection: &Inspection, grants: &Grants) -> Result<(), LoadError> {
    for import in &inspection.imports {
        let interface = || text::sentence(&import.interface, 256);
        if !import.is_offered() {
            return Err(LoadError::UnknownImport {
                name: name.to_owned(),
                interface: interface(),
            });
        }
        let Some(capability) = import.capability else {
            continue;
        };
        // An interface of which only types are used opens nothing: files name their times with
        // a type of the clock's.
        if import.functions.is_empty() {
            continue;
        }
        let asks = capability.is_always_granted()
            || inspection
                .manifest
                .capabilities
                .iter()
                .any(|request| request.capability == capability.as_str());
        match (grants.allows(capability), asks) {
            (true, true) => {}
            (_, false) if import.noise => {}
            (true, false) => {
                return Err(LoadError::NotAskedFor {
                    name: name.to_owned(),
                    interface: interface(),
                    capability: capability.to_string(),
                });
            }
            (false, _) => {
                return Err(LoadError::NotGranted {
                    name: name.to_owned(),
                    interface: interface(),
                    capability: capability.to_string(),
                    grant_with: format!("grant it with `{}`", capability.grant_with(name)),
                });
            }
        }
    }
    Ok(())
}

/// Links what was found to be allowed, and nothing else.
fn link(
    sandbox: &Sandbox,
    component: &Component,
    inspection: &Inspection,
    role: Role,
    asks_host: bool,
) -> wasmtime::Result<RolePre> {
    let mut linker: Linker<State> = Linker::new(sandbox.engine());
    let imports = &inspection.imports;
    let any = |wanted: &dyn Fn(&Import) -> bool| imports.iter().any(wanted);
    let needs = |capability| any(&|import| import.capability == Some(capability));
    if asks_host {
        process::link_apart(&mut linker, &needs)?;
    } else {
        link_here(&mut linker, &needs)?;
    }
    if any(&|import| import.interface.starts_with("wasi:cli/")) {
        noise::link(&mut linker)?;
    }
    let pre = linker.instantiate_pre(component)?;
    Ok(match role {
        Role::Connector => RolePre::Connector(connector::ConnectorPluginPre::new(pre)?),
        Role::Validator => RolePre::Validator(validator::ValidatorPluginPre::new(pre)?),
        Role::Policy => RolePre::Policy(policy::PolicyPluginPre::new(pre)?),
        Role::Adapter => RolePre::Adapter(adapter::AdapterPluginPre::new(pre)?),
    })
}

/// Links what this process answers itself.
fn link_here(
    linker: &mut Linker<State>,
    needs: &dyn Fn(Capability) -> bool,
) -> wasmtime::Result<()> {
    crate::columns::link(linker)?;
    noise::link_io(linker)?;
    noise::link_streams(linker)?;
    log::link(linker)?;
    config::link(linker)?;
    if needs(Capability::Files) {
        files::link(linker)?;
    }
    if needs(Capability::Http) {
        http::link(linker)?;
    }
    if needs(Capability::Clock) {
        clock::link(linker)?;
    }
    if needs(Capability::Random) {
        random::link(linker)?;
    }
    if needs(Capability::Compute) {
        compute::link(linker)?;
    }
    if needs(Capability::State) {
        state::link(linker)?;
    }
    if needs(Capability::Sql) {
        sql::link(linker)?;
    }
    if needs(Capability::Blob) {
        blob::link(linker)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
