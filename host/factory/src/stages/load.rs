//! Checks and compiles every plugin, before any of them sees anything.

use std::collections::BTreeMap;

use sandcast_audit::Event;
use sandcast_sandbox::{ControlPoint, Origin, Plugin, Role, Signers};
use serde_json::json;

use super::line::{Halt, Line, StageNotes, Stop};
use super::policy::{Question, ask};
use crate::conduct::StandingRecord;
use crate::report;

/// The name of the stage.
const STAGE: &str = "load";

/// Plugins that are checked, compiled and allowed to take part.
pub(crate) struct Loaded {
    plugins: BTreeMap<String, Plugin>,
}

impl Loaded {
    /// A plugin of the pipeline.
    pub(crate) fn plugin(&self, name: &str) -> Result<&Plugin, Stop> {
        // References were checked when the pipeline was read.
        let missing = || Stop::host(STAGE, format!("plugin `{name}` was not loaded"));
        self.plugins.get(name).ok_or_else(missing)
    }

    pub(crate) fn plugins(&self) -> impl Iterator<Item = (&String, &Plugin)> {
        self.plugins.iter()
    }
}

pub(crate) async fn load(line: &Line<'_>) -> Result<Loaded, Halt> {
    line.stage(STAGE, async {
        let mut loaded = Loaded {
            plugins: BTreeMap::new(),
        };
        // Policies first: they are asked about the others.
        let (policies, others): (Vec<_>, Vec<_>) = line
            .sections()
            .plugins
            .iter()
            .partition(|(_, section)| section.role == Role::Policy);
        for (name, section) in policies.into_iter().chain(others) {
            let missing = || Stop::host(STAGE, format!("plugin `{name}` was not read"));
            let component = line.components.get(name).ok_or_else(missing)?;
            let standing = let_in(line, name)?;
            if section.role != Role::Policy {
                let manifest = &component.inspection.manifest;
                let question = Question {
                    point: ControlPoint::PluginLoad,
                    action: "load",
                    resource: format!("plugin:{}", manifest.id),
                    context: json!({
                        "name": name,
                        "version": manifest.version,
                        "role": section.role,
                        "vendor": manifest.vendor,
                        "license": manifest.license,
                        "digest": component.inspection.digest,
                        "grants": granted(line, name),
                        "standing": standing.standing,
                    }),
                };
                ask(line, &loaded, STAGE, question)
                    .await?
                    .without_obligations(STAGE)?;
            }
            let sandbox = line.workspace.sandbox();
            let origin = Origin {
                signatures: component.signatures(),
                trust: line.sections().trust.get(&section.role),
            };
            let isolate = line.sections().conduct.isolate;
            let grants = standing.leaves(isolate, section.grants.clone());
            let bytes = &component.bytes;
            let plugin = sandbox
                .load_from(name, bytes, section.role, grants, origin)
                .await?;
            let plugin = held(line, name, section.role, plugin, &standing)?;
            loaded.plugins.insert(name.clone(), plugin);
        }
        line.write_report(|report| report.plugins = told(line, &loaded));
        let message = match loaded.plugins.len() {
            1 => "1 plugin checked and compiled".to_owned(),
            plugins => format!("{plugins} plugins checked and compiled"),
        };
        let notes = StageNotes {
            key: line.recipe(STAGE),
            output: line.recipe(STAGE),
            message,
            ..StageNotes::default()
        };
        Ok((loaded, notes))
    })
    .await
}

/// Whether a plugin may be loaded, by what it did so far. A refusal is on record.
fn let_in(line: &Line<'_>, name: &str) -> Result<StandingRecord, Stop> {
    let planned = line.plan.plugins.iter().find(|it| it.name == name);
    let missing = || Stop::host(STAGE, format!("plugin `{name}` was not planned"));
    let plugin = &planned.ok_or_else(missing)?.plugin;
    let admission = line.sections().conduct.admission;
    let conduct = line.workspace.conduct();
    let result = conduct.let_in(plugin, admission, Some(&line.run));
    if let Err(error) = &result {
        line.workspace.audit().append(Event::PluginRefused {
            name: name.to_owned(),
            digest: Some(plugin.digest),
            reason: error.to_string(),
        })?;
    }
    Ok(result?)
}

/// A plugin, held to what it usually does as far as the pipeline and its standing want.
fn held(
    line: &Line<'_>,
    name: &str,
    role: Role,
    plugin: Plugin,
    standing: &StandingRecord,
) -> Result<Plugin, Stop> {
    let sections = line.sections();
    let rules = &sections.conduct;
    let response = rules.response_to(name, role);
    let conduct = line.workspace.conduct();
    let bounds = conduct.bounds(standing, &sections.name, rules, response)?;
    if standing.throttled {
        let (id, pace) = (&standing.plugin.id, rules.pace);
        line.note(
            STAGE,
            format!(
                "{id} is slowed down to {pace} % of its time: {}",
                standing.reason
            ),
        );
    }
    Ok(plugin.bounded(bounds))
}

fn granted<'a>(line: &'a Line<'_>, name: &str) -> Vec<&'a str> {
    let planned = line
        .plan
        .plugins
        .iter()
        .find(|planned| planned.name == name);
    let capabilities = planned
        .into_iter()
        .flat_map(|planned| &planned.capabilities);
    capabilities
        .filter(|it| it.granted)
        .map(|it| it.capability.as_str())
        .collect()
}

/// Who signed a plugin: keys whole, so that they can be compared, and then identities.
fn signers(signers: &Signers) -> Vec<String> {
    let keys = signers.keys.iter().map(ToString::to_string);
    let identities = signers.identities.iter();
    let identities = identities.map(|it| format!("{} (issued by {})", it.identity, it.issuer));
    keys.chain(identities).collect()
}

/// The plugins as the report shows them, before anything of them has run.
fn told(line: &Line<'_>, loaded: &Loaded) -> Vec<report::Plugin> {
    let planned = line.plan.plugins.iter();
    let known = planned.filter_map(|planned| Some((planned, loaded.plugins.get(&planned.name)?)));
    known
        .map(|(planned, plugin)| report::Plugin {
            name: planned.name.clone(),
            id: planned.plugin.id.clone(),
            version: planned.plugin.version.clone(),
            role: planned.plugin.role.clone(),
            vendor: plugin.manifest().vendor.clone(),
            license: plugin.manifest().license.clone(),
            digest: planned.plugin.digest.to_string(),
            bytes: planned.size_bytes,
            signers: signers(plugin.signers()),
            capabilities: planned
                .capabilities
                .iter()
                .map(|capability| report::Capability {
                    name: capability.capability.clone(),
                    reason: capability.reason.clone(),
                    granted: capability.granted.then(|| planned.said_of(capability)),
                    calls: 0,
                })
                .collect(),
            ..report::Plugin::default()
        })
        .collect()
}
