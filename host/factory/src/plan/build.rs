//! Makes a plan.

use std::collections::BTreeMap;

use sandcast_audit::{Digest, DigestHasher, PluginRef};
use sandcast_sandbox::{Capability, Grants, Inspection};
use serde::Serialize;

use super::{Plan, PlanError, PlannedCapability, PlannedPlugin, PlannedStage, Reuse};
use crate::config::{Pipeline, Sections};
use crate::plan::Component;

/// The version of Sandcast that takes part in every key.
const SANDCAST_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Says what a pipeline will do. Nothing is read or run.
///
/// # Errors
/// If a plugin is not the one that the pipeline means.
///
/// # Panics
/// Never: `components` has every plugin of a checked pipeline, and one that is missing is left out.
pub fn plan(
    pipeline: &Pipeline,
    components: &BTreeMap<String, Component>,
) -> Result<Plan, PlanError> {
    let sections = &pipeline.sections;
    let mut plugins = Vec::with_capacity(components.len());
    for (name, section) in &sections.plugins {
        let Some(component) = components.get(name) else { continue };
        let inspection = &component.inspection;
        if inspection.role != section.role {
            let (found, wanted) = (inspection.role, section.role);
            return Err(PlanError::OtherRole { plugin: name.clone(), found, wanted });
        }
        if let Some(wanted) = section.digest
            && wanted != inspection.digest
        {
            let found = inspection.digest;
            return Err(PlanError::OtherDigest { plugin: name.clone(), found, wanted });
        }
        plugins.push(PlannedPlugin {
            name: name.clone(),
            plugin: reference(inspection),
            path: component.path.clone(),
            size_bytes: inspection.size_bytes,
            capabilities: capabilities(inspection, &section.grants),
            grants: section.grants.clone(),
        });
    }
    let stages = Recipes { sections, components }.stages();
    Ok(Plan {
        pipeline: sections.name.clone(),
        config: pipeline.digest,
        seed: sections.seed,
        sandcast_version: SANDCAST_VERSION.to_owned(),
        plugins,
        stages,
        gate: sections.gate.clone(),
        model: sections.register.model.clone(),
        alias: sections.register.alias.clone(),
    })
}

fn reference(inspection: &Inspection) -> PluginRef {
    PluginRef {
        id: inspection.manifest.id.clone(),
        version: inspection.manifest.version.clone(),
        role: inspection.role.to_string(),
        digest: inspection.digest,
    }
}

/// Whether a grant opens a capability.
fn is_granted(capability: Capability, grants: &Grants) -> bool {
    match capability {
        Capability::Files => !grants.files.is_empty(),
        Capability::Log | Capability::Config => true,
        Capability::Clock => grants.clock,
        Capability::Random => grants.random.is_some(),
        Capability::Compute => grants.compute.is_some(),
    }
}

/// Capabilities that are asked for, imported, or granted where they need to be.
fn capabilities(inspection: &Inspection, grants: &Grants) -> Vec<PlannedCapability> {
    const ALL: [Capability; 6] = [
        Capability::Files,
        Capability::Log,
        Capability::Config,
        Capability::Clock,
        Capability::Random,
        Capability::Compute,
    ];
    let mut capabilities = Vec::new();
    for capability in ALL {
        let name = capability.as_str();
        let asked = inspection.manifest.capabilities.iter().find(|ask| ask.capability == name);
        let imported = inspection
            .imports
            .iter()
            .any(|import| import.capability == Some(capability) && !import.noise);
        let granted = is_granted(capability, grants);
        let always = matches!(capability, Capability::Log | Capability::Config);
        if asked.is_some() || imported || (granted && !always) {
            capabilities.push(PlannedCapability {
                capability: name.to_owned(),
                reason: asked.map(|ask| ask.reason.clone()),
                imported,
                granted,
            });
        }
    }
    capabilities
}

/// Digests of everything that goes into a stage but for the data.
struct Recipes<'a> {
    sections: &'a Sections,
    components: &'a BTreeMap<String, Component>,
}

impl Recipes<'_> {
    fn stages(&self) -> Vec<PlannedStage> {
        let sections = self.sections;
        let mut stages = Vec::new();
        let stage = |stage: String, summary: String, plugins: &[&String], recipe, reuse| {
            let plugins = plugins.iter().map(|name| (*name).clone()).collect();
            PlannedStage { stage, summary, plugins, recipe, reuse }
        };

        let all: Vec<&String> = sections.plugins.keys().collect();
        let mut recipe = self.recipe("load");
        all.iter().for_each(|name| self.plugin(&mut recipe, name));
        let summary = format!("check and compile {}", counted(all.len(), "plugin"));
        stages.push(stage("load".to_owned(), summary, &all, recipe.finish(), Reuse::Always));

        let mut connected = Vec::new();
        for (name, source) in &sections.sources {
            let mut recipe = self.recipe("connect");
            self.plugin(&mut recipe, &source.plugin);
            json(&mut recipe, &source.config);
            let recipe = recipe.finish();
            connected.push((name, recipe));
            let summary = format!("read {name}");
            let plugins = [&source.plugin];
            stages.push(stage(format!("connect {name}"), summary, &plugins, recipe, Reuse::New));
        }

        let mut recipe = self.recipe("query");
        json(&mut recipe, &sections.dataset);
        for (name, source) in &connected {
            recipe.update_field(name.as_bytes());
            recipe.update_field(source.as_bytes());
        }
        let queried = recipe.finish();
        if sections.dataset.sql.is_some() {
            let names: Vec<&str> = connected.iter().map(|(name, _)| name.as_str()).collect();
            let summary = format!("make one table of {}", names.join(", "));
            stages.push(stage("query".to_owned(), summary, &[], queried, Reuse::New));
        }

        let mut recipe = self.recipe("validate");
        recipe.update_field(queried.as_bytes());
        for check in &sections.validate {
            self.plugin(&mut recipe, &check.plugin);
            json(&mut recipe, &check.config);
        }
        let validated = recipe.finish();
        let checkers: Vec<&String> = sections.validate.iter().map(|check| &check.plugin).collect();
        let summary = match checkers.len() {
            0 => "describe the columns; there are no checks".to_owned(),
            checks => format!("{}, then describe the columns", counted(checks, "check")),
        };
        stages.push(stage("validate".to_owned(), summary, &checkers, validated, Reuse::New));

        let mut recipe = self.recipe("permit");
        recipe.update_field(validated.as_bytes());
        let deciders: Vec<&String> = sections.policies.iter().map(|policy| &policy.plugin).collect();
        for policy in &sections.policies {
            self.plugin(&mut recipe, &policy.plugin);
            json(&mut recipe, policy);
        }
        let summary = match deciders.len() {
            0 => "no policy is asked".to_owned(),
            policies => format!("ask {} whether training may start", counted(policies, "policy")),
        };
        stages.push(stage("permit".to_owned(), summary, &deciders, recipe.finish(), Reuse::Always));

        let train = &sections.train;
        let mut recipe = self.recipe("train");
        recipe.update_field(validated.as_bytes());
        self.plugin(&mut recipe, &train.plugin);
        json(&mut recipe, train);
        recipe.update_field(&sections.seed.to_le_bytes());
        let trained = recipe.finish();
        let summary = format!("learn {}", train.target);
        let plugins = [&train.plugin];
        stages.push(stage("train".to_owned(), summary, &plugins, trained, Reuse::New));

        let mut recipe = self.recipe("evaluate");
        recipe.update_field(trained.as_bytes());
        json(&mut recipe, &sections.evaluate);
        let evaluated = recipe.finish();
        let summary = match sections.evaluate.slices.as_slice() {
            [] => "measure the model".to_owned(),
            slices => format!("measure the model, and how it treats {}", slices.join(", ")),
        };
        stages.push(stage("evaluate".to_owned(), summary, &plugins, evaluated, Reuse::New));

        let mut recipe = self.recipe("gate");
        recipe.update_field(evaluated.as_bytes());
        json(&mut recipe, &sections.gate);
        let gated = recipe.finish();
        let summary = counted(sections.gate.len(), "expression");
        stages.push(stage("gate".to_owned(), summary, &[], gated, Reuse::Always));

        let register = &sections.register;
        let mut recipe = self.recipe("register");
        recipe.update_field(gated.as_bytes());
        json(&mut recipe, register);
        let summary = match &register.alias {
            Some(alias) => format!("as {}, alias {alias}", register.model),
            None => format!("as {}", register.model),
        };
        let recipe = recipe.finish();
        stages.push(stage("register".to_owned(), summary, &[], recipe, Reuse::Always));
        stages
    }

    fn recipe(&self, stage: &str) -> DigestHasher {
        let mut hasher = Digest::hasher();
        hasher.update_field(b"sandcast recipe 1");
        hasher.update_field(SANDCAST_VERSION.as_bytes());
        hasher.update_field(stage.as_bytes());
        hasher
    }

    /// A plugin by its digest, and the grants that can change what it returns: where its files
    /// are and what it is given, but neither limits nor the log.
    fn plugin(&self, recipe: &mut DigestHasher, name: &str) {
        let Some(section) = self.sections.plugins.get(name) else { return };
        if let Some(component) = self.components.get(name) {
            recipe.update_field(component.inspection.digest.as_bytes());
        }
        let grants = &section.grants;
        json(recipe, &grants.files);
        json(recipe, &grants.clock);
        json(recipe, &grants.random);
        recipe.update_field(&[u8::from(grants.compute.is_some())]);
    }
}

/// A value by its canonical JSON text: maps are sorted.
pub(crate) fn json<T: Serialize>(hasher: &mut DigestHasher, value: &T) {
    // Everything that is passed here came from YAML or JSON, so it has a JSON form.
    hasher.update_field(&serde_json::to_vec(value).unwrap_or_default());
}

fn counted(count: usize, what: &str) -> String {
    match (count, what.strip_suffix('y')) {
        (1, _) => format!("1 {what}"),
        (_, Some(stem)) => format!("{count} {stem}ies"),
        (_, None) => format!("{count} {what}s"),
    }
}
