//! Keeps an approved model under its name, with everything it was made of.

use sandcast_sandbox::{ControlPoint, Grants, Plugin, Role};

use super::gate::Approved;
use super::line::{Halt, Line, StageNotes, Stop};
use crate::clock;
use crate::registry::{ApprovedMove, Lineage, ModelVersion, PredictPolicy, Registration, Vouched};
use crate::run::AskToPromote;

/// The name of the stage.
const STAGE: &str = "register";

/// A model that is registered.
pub(crate) struct Registered {
    pub(crate) registration: Registration,
    /// The alias that points to it now.
    pub(crate) alias: Option<String>,
    /// The request to let the alias point to it, where that takes a second person.
    pub(crate) approval: Option<String>,
}

pub(crate) async fn register(line: &Line<'_>, approved: Approved) -> Result<Registered, Halt> {
    line.stage(STAGE, async {
        let alias = line.sections().register.alias.as_deref();
        // Blobs first: a row never names what is not there.
        let version = version(line, &approved).await?;
        // What takes a second person is not moved along with the version.
        let moved = alias.filter(|_| line.promotion.is_none());
        let registration = line
            .workspace
            .registry()
            .register(&approved, version, moved)?;
        let known = &registration.version;
        let approval = match (&line.promotion, alias) {
            (Some(ask), Some(alias)) => asked(line, ask, known, alias)?,
            _ => None,
        };
        let mut message = match registration.new {
            true => format!("{} version {}", known.model, known.version),
            false => format!("{} version {} as before", known.model, known.version),
        };
        if let (Some(alias), true) = (alias, registration.alias_moved) {
            message = format!("{message}, now the {alias}");
        }
        if let (Some(alias), Some(approval)) = (alias, &approval) {
            message = format!("{message}, asked to be the {alias} ({approval})");
        }
        let alias = alias.filter(|_| approval.is_none()).map(str::to_owned);
        let lineage = known.lineage.digest();
        let notes = StageNotes {
            key: Some(line.key(STAGE, &[lineage.as_bytes()])),
            output: Some(lineage),
            message,
            ..StageNotes::default()
        };
        let registered = Registered {
            registration,
            alias,
            approval,
        };
        Ok((registered, notes))
    })
    .await
}

/// Asks a second person to let an alias point to a version, unless it does already.
fn asked(
    line: &Line<'_>,
    ask: &AskToPromote,
    version: &ModelVersion,
    alias: &str,
) -> Result<Option<String>, Stop> {
    let (model, to) = (version.model.as_str(), version.version);
    let registry = line.workspace.registry();
    let (_, from) = registry.could_set_alias(model, alias, to)?;
    if from == Some(to) {
        return Ok(None);
    }
    let wanted = ApprovedMove {
        model,
        alias,
        from,
        to,
        artifact: version.artifact,
        lineage: version.lineage.digest(),
    };
    let request = ask(&wanted).map_err(|why| {
        let what = format!("{model} version {to} is registered");
        Stop::host(
            STAGE,
            format!("{what}, and nobody could be asked to make it the {alias}: {why}"),
        )
    })?;
    Ok(Some(request))
}

async fn version(line: &Line<'_>, approved: &Approved) -> Result<ModelVersion, Stop> {
    let sections = line.sections();
    let evaluated = approved.evaluated();
    let output = &evaluated.trained.output;
    let validated = &evaluated.trained.permitted.validated;
    let loaded = &validated.connected.loaded;
    let adapter = loaded.plugin(&sections.train.plugin)?;
    let sources = validated.connected.sources.iter();
    let lineage = Lineage {
        data: validated.validation.passed.digest,
        sources: sources
            .map(|source| (source.name.clone(), source.digest))
            .collect(),
        plugins: loaded
            .plugins()
            .map(|(name, plugin)| (name.clone(), plugin.reference().clone()))
            .collect(),
        config: line.pipeline.digest,
        pipeline: sections.name.clone(),
        seed: sections.seed,
        artifact: output.artifact,
        sandcast_version: line.plan.sandcast_version.clone(),
    };
    let mut policies = Vec::new();
    for section in &sections.policies {
        if section.at.contains(&ControlPoint::Predict) {
            let plugin = loaded.plugin(&section.plugin)?;
            policies.push(PredictPolicy {
                name: section.plugin.clone(),
                plugin: plugin.reference().clone(),
                component: keep_component(line, &section.plugin).await?,
                grants: grants(line, plugin),
                vouched: vouched(line, &section.plugin, Role::Policy),
                config: section.config.clone(),
            });
        }
    }
    Ok(ModelVersion {
        model: sections.register.model.clone(),
        // Given by the registry.
        version: 0,
        created: clock::now(),
        run: line.run.clone(),
        lineage,
        evaluation: evaluated.evaluation.clone(),
        task: output.task.clone(),
        adapter: adapter.reference().clone(),
        adapter_name: sections.train.plugin.clone(),
        component: keep_component(line, &sections.train.plugin).await?,
        grants: grants(line, adapter),
        vouched: vouched(line, &sections.train.plugin, Role::Adapter),
        conduct: sections.conduct.clone(),
        artifact: output.artifact,
        policies,
    })
}

/// What a plugin may do whenever the model is used. Where it is held by its standing, that is looked at then.
fn grants(line: &Line<'_>, plugin: &Plugin) -> Grants {
    let section = line.sections().plugins.get(plugin.name());
    let mut grants = plugin.grants().clone();
    if let Some(section) = section {
        grants.isolation = section.grants.isolation;
    }
    grants
}

/// Who vouches for a component, and who must, as this run has it.
fn vouched(line: &Line<'_>, name: &str, role: Role) -> Vouched {
    let component = line.components.get(name);
    Vouched {
        signature: component.and_then(|it| it.signature.as_deref().map(str::to_owned)),
        bundle: component.and_then(|it| it.bundle.as_deref().map(str::to_owned)),
        trust: line.sections().trust.get(&role).cloned(),
    }
}

/// Keeps the bytes of a component, so that serving needs none of the files it was built from.
async fn keep_component(line: &Line<'_>, name: &str) -> Result<sandcast_audit::Digest, Stop> {
    let missing = || Stop::host(STAGE, format!("plugin `{name}` was not read"));
    let component = line.components.get(name).ok_or_else(missing)?;
    Ok(line.workspace.estate().put(&component.bytes).await?)
}
