//! `sandcast models`: the registry.

use clap::{Args, Subcommand};
use console::style;
use sandcast_access::{Action, FourEyes, Resource};
use sandcast_factory::{ApprovedMove, ModelSummary, ModelVersion, RegistryError, Workspace};
use sandcast_serve::ModelSelector;

use super::approvals;
use crate::{
    access::{self, Allowed, Need},
    arguments::GlobalArguments,
    failure::{Exit, Failure},
    output::Output,
    state,
    table::{Table, decimal},
};

const EXAMPLES: &str = "\
Examples:
  sandcast models                                   every model, its versions and aliases
  sandcast models show credit-risk                  the champion: metrics, lineage, features
  sandcast models show credit-risk@2 --json
  sandcast models alias credit-risk champion 2      go back to version 2; the audit log says so

Models get here by passing the gate of a run, and in no other way.";

/// List registered models, show one, or move an alias
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ModelsArguments {
    #[command(subcommand)]
    action: Option<ModelsAction>,
}

#[derive(Debug, Subcommand)]
enum ModelsAction {
    /// List them
    List,
    /// Show a version with its metrics and lineage
    Show {
        /// name, name@alias or name@version
        model: ModelSelector,
    },
    /// Point an alias to a version
    Alias {
        /// The model
        model: String,
        /// The alias, such as champion
        alias: String,
        /// The version
        #[arg(value_name = "VERSION")]
        to: u64,
    },
}

/// The version that a selector means.
///
/// # Errors
/// When there is none such.
pub(crate) fn resolve(
    workspace: &Workspace,
    selector: &ModelSelector,
) -> Result<ModelVersion, Failure> {
    workspace
        .registry()
        .resolve(&selector.name, selector.reference.as_deref())
        .map_err(rejected_unless_state)
}

fn rejected_unless_state(error: RegistryError) -> Failure {
    match error {
        RegistryError::State(_) | RegistryError::Audit(_) | RegistryError::Log(_) => error.into(),
        _ => Failure::from(error).into_rejection(),
    }
}

impl ModelsArguments {
    pub(crate) fn need(&self, global: &GlobalArguments) -> Option<Need> {
        let resource = match &self.action {
            None | Some(ModelsAction::List) => Resource::state(),
            Some(ModelsAction::Show { model }) => Resource::model(&model.name),
            // It asks itself.
            Some(ModelsAction::Alias { .. }) => return None,
        };
        super::in_state(global, Action::Inspect, resource)
    }
}

pub(crate) async fn execute(
    arguments: &ModelsArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let folder = state::nearest(global.state.as_deref())?;
    if let Some(ModelsAction::Alias { model, alias, to }) = &arguments.action {
        let resource = Resource::model(model);
        let allowed = access::demand(global, &folder, Action::Promote, &resource, None).await?;
        let workspace = Workspace::open(&folder)?;
        return point(&workspace, &allowed, (model, alias, *to), output);
    }
    let workspace = Workspace::open(&folder)?;
    match &arguments.action {
        None | Some(ModelsAction::List) => list(&workspace.registry().models()?, output)?,
        Some(ModelsAction::Show { model }) => show(&resolve(&workspace, model)?, output)?,
        Some(ModelsAction::Alias { .. }) => {}
    }
    Ok(Exit::Done)
}

/// Points an alias to a version, or asks a second person to let it.
fn point(
    workspace: &Workspace,
    allowed: &Allowed,
    (model, alias, to): (&str, &str, u64),
    output: &Output,
) -> Result<Exit, Failure> {
    let registry = workspace.registry();
    if let Some(store) = allowed.second_person_for(FourEyes::Promote)? {
        let (version, from) = registry
            .could_set_alias(model, alias, to)
            .map_err(rejected_unless_state)?;
        // Nothing is moved here without a second person, nor where another process moves the alias
        // away in between.
        if from == Some(to) {
            return moved((model, alias, to), from, output);
        }
        let wanted = ApprovedMove {
            model,
            alias,
            from,
            to,
            artifact: version.artifact,
            lineage: version.lineage.digest(),
        };
        return approvals::ask(store, allowed, approvals::promotion(&wanted), output);
    }
    let before = registry
        .set_alias(model, alias, to)
        .map_err(rejected_unless_state)?;
    moved((model, alias, to), before, output)
}

fn moved(
    (model, alias, to): (&str, &str, u64),
    before: Option<u64>,
    output: &Output,
) -> Result<Exit, Failure> {
    if output.wants_json() {
        output.json(&serde_json::json!({
            "model": model, "alias": alias, "from": before, "to": to,
        }))?;
    } else {
        let before = before.map_or("nothing".to_owned(), |before| format!("version {before}"));
        output.line(format_args!("{model}@{alias}: {before} -> version {to}"))?;
    }
    Ok(Exit::Done)
}

fn list(models: &[ModelSummary], output: &Output) -> Result<(), Failure> {
    if output.wants_json() {
        return output.json(&models);
    }
    if models.is_empty() {
        output.note("no model has passed a gate here yet; `sandcast run` is how one gets here");
        return Ok(());
    }
    let mut table =
        Table::with_headings(["model", "version", "aliases", "auc", "registered", "run"])
            .numbers_at(&[1, 3]);
    for model in models {
        for version in &model.versions {
            let aliases: Vec<&str> = model
                .aliases
                .iter()
                .filter(|(_, to)| **to == version.version)
                .map(|(alias, _)| alias.as_str())
                .collect();
            table.row([
                model.name.clone(),
                version.version.to_string(),
                aliases.join(", "),
                decimal(version.metrics.get("auc").copied()),
                version
                    .created
                    .get(..19)
                    .unwrap_or(&version.created)
                    .replace('T', " "),
                version.run.to_string(),
            ]);
        }
    }
    output.line(table)?;
    Ok(())
}

fn show(version: &ModelVersion, output: &Output) -> Result<(), Failure> {
    if output.wants_json() {
        return output.json(version);
    }
    let lineage = &version.lineage;
    output.line(format_args!(
        "{} version {}  registered {} by run {}",
        style(&version.model).bold(),
        version.version,
        version.created,
        version.run
    ))?;
    let mut facts = Table::indented(2);
    let fields: Vec<String> = version
        .task
        .features
        .iter()
        .map(|field| format!("{} {}", field.name, kind_name(field)))
        .collect();
    let predicts = match &version.task.target {
        Some(target) => target.clone(),
        None => version.task.kind.name().to_owned(),
    };
    facts.row(["predicts".to_owned(), predicts]);
    facts.row(["from".to_owned(), fields.join(", ")]);
    let plugin = |plugin: &sandcast_audit::PluginRef| {
        format!(
            "{} {} ({})",
            plugin.id,
            plugin.version,
            plugin.digest.short()
        )
    };
    facts.row(["adapter".to_owned(), plugin(&version.adapter)]);
    facts.row([
        "pipeline".to_owned(),
        format!(
            "{}, seed {}, configuration {}",
            lineage.pipeline,
            lineage.seed,
            lineage.config.short()
        ),
    ]);
    facts.row(["data".to_owned(), lineage.data.short()]);
    for (name, digest) in &lineage.sources {
        facts.row([format!("  source {name}"), digest.short()]);
    }
    for (name, reference) in &lineage.plugins {
        facts.row([format!("  plugin {name}"), plugin(reference)]);
    }
    facts.row(["weights".to_owned(), version.artifact.short()]);
    facts.row(["lineage".to_owned(), lineage.digest().short()]);
    output.line(facts)?;
    output.line(format_args!(
        "\n{}",
        crate::summary::of_evaluation(&version.evaluation)
    ))?;
    Ok(())
}

fn kind_name(field: &sandcast_sandbox::Field) -> String {
    serde_json::to_value(field.kind)
        .ok()
        .and_then(|kind| kind.as_str().map(str::to_owned))
        .unwrap_or_default()
}
