//! Makes a plan.

use std::collections::BTreeMap;

use sandcast_audit::{Digest, DigestHasher, PluginRef, Standing};
use sandcast_sandbox::{
    Capability, ControlPoint, Grants, Inspection, OperatorRules, Signers, TaskKind, check_trust,
};
use serde::Serialize;

use super::{Plan, PlanError, PlannedCapability, PlannedPlugin, PlannedStage, Reuse};
use crate::config::{Pipeline, PolicySection, Sections};
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
        let Some(component) = components.get(name) else {
            continue;
        };
        let inspection = &component.inspection;
        if inspection.role != section.role {
            let (found, wanted) = (inspection.role, section.role);
            return Err(PlanError::OtherRole {
                plugin: name.clone(),
                found,
                wanted,
            });
        }
        if let Some(wanted) = section.digest
            && wanted != inspection.digest
        {
            let found = inspection.digest;
            return Err(PlanError::OtherDigest {
                plugin: name.clone(),
                found,
                wanted,
            });
        }
        let rule = sections.trust.get(&section.role);
        let signatures = component.signatures();
        let trusted = check_trust(inspection, &component.bytes, signatures, rule);
        let untrusted = trusted.as_ref().err().map(ToString::to_string);
        let signers = trusted.unwrap_or_default();
        plugins.push(PlannedPlugin {
            name: name.clone(),
            plugin: reference(inspection),
            path: component.path.clone(),
            size_bytes: inspection.size_bytes,
            capabilities: capabilities(inspection, &section.grants),
            grants: section.grants.clone(),
            isolate: sections.conduct.isolate,
            untrusted,
            signed_by: signers.keys,
            identities: signers.identities,
            over_ceiling: Vec::new(),
        });
    }
    let stages = Recipes {
        sections,
        components,
    }
    .stages();
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

impl Plan {
    /// Says what the operator's rules will refuse.
    pub(crate) fn hold_to(
        &mut self,
        rules: &OperatorRules,
        components: &BTreeMap<String, Component>,
    ) {
        for planned in &mut self.plugins {
            let Some(component) = components.get(&planned.name) else {
                continue;
            };
            let inspection = &component.inspection;
            let rule = rules.trust.get(&inspection.role);
            match check_trust(inspection, &component.bytes, component.signatures(), rule) {
                Ok(others) => {
                    let mut signers = Signers {
                        keys: std::mem::take(&mut planned.signed_by),
                        identities: std::mem::take(&mut planned.identities),
                    };
                    signers.add(others);
                    planned.signed_by = signers.keys;
                    planned.identities = signers.identities;
                }
                Err(error) => {
                    planned
                        .untrusted
                        .get_or_insert_with(|| format!("by the operator's rule of trust, {error}"));
                }
            }
            if let Some(ceiling) = &rules.ceiling {
                let id = &planned.plugin.id;
                // Where it depends on its standing, that is known when it is loaded.
                let grants = planned
                    .isolate
                    .applied(Standing::Trusted, planned.grants.clone());
                planned.over_ceiling = ceiling.excesses(id, inspection.role, &grants);
            }
        }
    }
}

fn reference(inspection: &Inspection) -> PluginRef {
    PluginRef {
        id: inspection.manifest.id.clone(),
        version: inspection.manifest.version.clone(),
        role: inspection.role.to_string(),
        digest: inspection.digest,
    }
}

/// Capabilities that are asked for, imported, or granted where they need to be.
fn capabilities(inspection: &Inspection, grants: &Grants) -> Vec<PlannedCapability> {
    let mut capabilities = Vec::new();
    for capability in Capability::ALL {
        let name = capability.as_str();
        let asked = inspection
            .manifest
            .capabilities
            .iter()
            .find(|ask| ask.capability == name);
        let imported = inspection.imports.iter().any(|import| {
            let can_call = !import.noise && !import.functions.is_empty();
            can_call && import.capability == Some(capability)
        });
        let granted = grants.allows(capability);
        let always = capability.is_always_granted();
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

/// A stage as it is planned, with the recipes of the stages before it.
struct Step<'a> {
    stage: String,
    summary: String,
    plugins: Vec<&'a String>,
    own: DigestHasher,
    before: Vec<Digest>,
    reuse: Reuse,
}

impl Step<'_> {
    fn planned(self) -> PlannedStage {
        let own = self.own.finish();
        let mut recipe = Digest::hasher();
        recipe.update_field(own.as_bytes());
        for before in &self.before {
            recipe.update_field(before.as_bytes());
        }
        PlannedStage {
            stage: self.stage,
            summary: self.summary,
            plugins: self.plugins.into_iter().cloned().collect(),
            own,
            recipe: recipe.finish(),
            reuse: self.reuse,
        }
    }
}

impl<'a> Recipes<'a> {
    fn stages(&self) -> Vec<PlannedStage> {
        let mut stages = vec![self.load()];
        let connected: Vec<PlannedStage> = self.connect();
        let mut before: Vec<Digest> = connected.iter().map(|stage| stage.recipe).collect();
        stages.extend(connected);
        let later = [
            Recipes::query,
            Recipes::validate,
            Recipes::permit,
            Recipes::train,
            Recipes::evaluate,
            Recipes::gate,
            Recipes::register,
        ];
        for plan in later {
            if let Some(stage) = plan(self, before.clone()).map(Step::planned) {
                before = vec![stage.recipe];
                stages.push(stage);
            }
        }
        stages
    }

    fn load(&self) -> PlannedStage {
        let plugins: Vec<&String> = self.sections.plugins.keys().collect();
        let mut own = self.own("load");
        plugins.iter().for_each(|name| self.plugin(&mut own, name));
        let summary = format!("check and compile {}", counted(plugins.len(), "plugin"));
        let stage = "load".to_owned();
        Step {
            stage,
            summary,
            plugins,
            own,
            before: Vec::new(),
            reuse: Reuse::Always,
        }
        .planned()
    }

    fn connect(&self) -> Vec<PlannedStage> {
        let sources = self.sections.sources.iter();
        let steps = sources.map(|(name, source)| {
            let mut own = self.own("connect");
            own.update_field(name.as_bytes());
            self.plugin(&mut own, &source.plugin);
            json(&mut own, &source.config);
            Step {
                stage: format!("connect {name}"),
                summary: "read it".to_owned(),
                plugins: vec![&source.plugin],
                own,
                before: Vec::new(),
                reuse: Reuse::New,
            }
        });
        steps.map(Step::planned).collect()
    }

    fn query(&self, before: Vec<Digest>) -> Option<Step<'a>> {
        let sql = self.sections.dataset.sql.as_ref()?;
        let names: Vec<&str> = self.sections.sources.keys().map(String::as_str).collect();
        let mut own = self.own("query");
        own.update_field(sql.as_bytes());
        names.iter().for_each(|name| {
            own.update_field(name.as_bytes());
        });
        Some(Step {
            stage: "query".to_owned(),
            summary: format!("make one table of {}", names.join(", ")),
            plugins: Vec::new(),
            own,
            before,
            reuse: Reuse::New,
        })
    }

    fn validate(&self, before: Vec<Digest>) -> Option<Step<'a>> {
        let checks = &self.sections.validate;
        let mut own = self.own("validate");
        for check in checks {
            self.plugin(&mut own, &check.plugin);
            json(&mut own, &check.config);
        }
        let summary = match checks.len() {
            0 => "describe the columns; there are no checks".to_owned(),
            many => format!("{}, then describe the columns", counted(many, "check")),
        };
        let plugins = checks.iter().map(|check| &check.plugin).collect();
        let stage = "validate".to_owned();
        Some(Step {
            stage,
            summary,
            plugins,
            own,
            before,
            reuse: Reuse::New,
        })
    }

    fn permit(&self, before: Vec<Digest>) -> Option<Step<'a>> {
        let asked = |policy: &&PolicySection| policy.at.contains(&ControlPoint::TrainStart);
        let policies: Vec<&PolicySection> = self.sections.policies.iter().filter(asked).collect();
        let mut own = self.own("permit");
        for policy in &policies {
            self.plugin(&mut own, &policy.plugin);
            json(&mut own, policy);
        }
        let summary = match policies.len() {
            0 => "nobody is asked whether training may start".to_owned(),
            many => format!("ask {} whether training may start", counted(many, "policy")),
        };
        let plugins = policies.iter().map(|policy| &policy.plugin).collect();
        let stage = "permit".to_owned();
        Some(Step {
            stage,
            summary,
            plugins,
            own,
            before,
            reuse: Reuse::Always,
        })
    }

    fn train(&self, before: Vec<Digest>) -> Option<Step<'a>> {
        let train = &self.sections.train;
        let mut own = self.own("train");
        self.plugin(&mut own, &train.plugin);
        json(&mut own, train);
        own.update_field(&self.sections.seed.to_le_bytes());
        Some(Step {
            stage: "train".to_owned(),
            summary: match (train.task, &train.target) {
                (TaskKind::AnomalyDetection, _) => "learn what is usual".to_owned(),
                (TaskKind::Clustering, _) => "learn which rows belong together".to_owned(),
                (TaskKind::TextGeneration, _) => "learn what comes next in a text".to_owned(),
                (_, target) => format!("learn {}", target.as_deref().unwrap_or_default()),
            },
            plugins: vec![&train.plugin],
            own,
            before,
            reuse: Reuse::New,
        })
    }

    fn evaluate(&self, before: Vec<Digest>) -> Option<Step<'a>> {
        let mut own = self.own("evaluate");
        json(&mut own, &self.sections.evaluate);
        let summary = match self.sections.evaluate.slices.as_slice() {
            [] => "measure the model".to_owned(),
            slices => format!("measure the model, and how it treats {}", slices.join(", ")),
        };
        Some(Step {
            stage: "evaluate".to_owned(),
            summary,
            plugins: vec![&self.sections.train.plugin],
            own,
            before,
            reuse: Reuse::New,
        })
    }

    fn gate(&self, before: Vec<Digest>) -> Option<Step<'a>> {
        let mut own = self.own("gate");
        json(&mut own, &self.sections.gate);
        let asked = |policy: &&PolicySection| policy.at.contains(&ControlPoint::Promote);
        let policies = self.sections.policies.iter().filter(asked);
        let plugins: Vec<&String> = policies.map(|policy| &policy.plugin).collect();
        let mut summary = counted(self.sections.gate.len(), "expression");
        if !plugins.is_empty() {
            summary = format!("{summary}, and ask {}", counted(plugins.len(), "policy"));
        }
        let stage = "gate".to_owned();
        Some(Step {
            stage,
            summary,
            plugins,
            own,
            before,
            reuse: Reuse::Always,
        })
    }

    fn register(&self, before: Vec<Digest>) -> Option<Step<'a>> {
        let register = &self.sections.register;
        let mut own = self.own("register");
        json(&mut own, register);
        let summary = match &register.alias {
            Some(alias) => format!("as {}, and make it the {alias}", register.model),
            None => format!("as {}", register.model),
        };
        let stage = "register".to_owned();
        Some(Step {
            stage,
            summary,
            plugins: Vec::new(),
            own,
            before,
            reuse: Reuse::Always,
        })
    }

    fn own(&self, stage: &str) -> DigestHasher {
        let mut hasher = Digest::hasher();
        hasher.update_field(b"sandcast recipe 1");
        hasher.update_field(SANDCAST_VERSION.as_bytes());
        hasher.update_field(stage.as_bytes());
        hasher
    }

    /// A plugin by its digest, and the grants that can change what it returns: where its files
    /// are and what it is given, but neither limits nor the log.
    fn plugin(&self, recipe: &mut DigestHasher, name: &str) {
        let Some(section) = self.sections.plugins.get(name) else {
            return;
        };
        if let Some(component) = self.components.get(name) {
            recipe.update_field(component.inspection.digest.as_bytes());
        }
        let grants = &section.grants;
        json(recipe, &grants.files);
        json(recipe, &grants.clock);
        json(recipe, &grants.random);
        recipe.update_field(&[u8::from(grants.compute.is_some())]);
        // Without them a recipe is as it always was.
        if grants.state.is_some() || !grants.sql.is_empty() {
            recipe.update_field(&[u8::from(grants.state.is_some())]);
            json(recipe, &grants.sql);
        }
        if !grants.blob.is_empty() {
            json(recipe, &grants.blob);
        }
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
