//! What the adapter of a pipeline declares that it would train, so that it can be seen and priced
//! before anything is.

use std::collections::BTreeSet;

use arrow::array::AsArray as _;
use arrow::compute::{cast, concat};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use sandcast_audit::{Digest, PluginRef};
use sandcast_estate::{Dataset, ReadError};
use sandcast_sandbox::{
    CallContext, CallError, Declaration, Field, Kind, LoadError, Origin, Role, Task, TaskKind,
    fields_of,
};
use thiserror::Error;

use crate::conduct::ConductError;
use crate::config::{Pipeline, TrainSection};
use crate::plan::{Component, PlanError, plan};
use crate::stages::classes_of;
use crate::state::StateError;
use crate::workspace::Workspace;

/// The stage whose rows training would learn from.
const STAGE: &str = "validate";

/// What an adapter declares for the rows that a pipeline has validated last.
#[derive(Debug, Clone)]
pub struct Declared {
    /// The adapter.
    pub adapter: PluginRef,
    /// The rows that say which columns and classes there are.
    pub dataset: Digest,
    /// What would be trained.
    pub task: Task,
    /// What would be trained. A vocabulary that training leaves rare values out of may be smaller.
    pub declaration: Declaration,
}

/// Why there is no declaration.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DeclareError {
    /// The pipeline's plugins are not those it means.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Nothing was validated yet.
    #[error(
        "`{pipeline}` has not come to its validated rows yet, which say what columns there are"
    )]
    NoRows {
        /// The name of the pipeline.
        pipeline: String,
    },
    /// The columns or the target are not those the pipeline means.
    #[error("the rows that `{pipeline}` validated last do not fit it: {what}")]
    OtherRows {
        /// The name of the pipeline.
        pipeline: String,
        /// What does not fit.
        what: String,
    },
    /// The adapter may not be loaded, by what it did so far.
    #[error(transparent)]
    Conduct(#[from] ConductError),
    /// The state could not be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The rows could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The adapter was refused.
    #[error(transparent)]
    Load(#[from] Box<LoadError>),
    /// The adapter is not looked at with all that its pipeline grants, and does without none of it.
    #[error(
        "the adapter `{name}` is only looked at, so it has no files, network, state, databases and stores here"
    )]
    OnlyLooked {
        /// Its name in the pipeline.
        name: String,
        /// Why it is not loaded so.
        source: Box<LoadError>,
    },
    /// The adapter failed, or what it declares does not compile.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Asks the adapter of a pipeline, in its sandbox, what it would train on the rows
/// which the pipeline validated last. Policies are not asked: a column that one masks at
/// `train-start` counts as a feature here. Nobody has approved what the pipeline grants either, so
/// the adapter has none of it that reaches beyond its sandbox.
///
/// # Errors
/// When the pipeline was not run as far as its validation yet, its rows do not fit it any more, or
/// the adapter declares nothing that compiles.
pub async fn declare(workspace: &Workspace, pipeline: &Pipeline) -> Result<Declared, DeclareError> {
    let sections = &pipeline.sections;
    let train = &sections.train;
    let components = Component::read_all(pipeline)?;
    let plan = plan(pipeline, &components)?;
    let records = workspace.datasets()?;
    let record = records
        .into_iter()
        .find(|record| record.pipeline == sections.name && record.stage == STAGE);
    let no_rows = || DeclareError::NoRows {
        pipeline: sections.name.clone(),
    };
    let dataset = record.ok_or_else(no_rows)?.dataset;
    let other_rows = |what: String| DeclareError::OtherRows {
        pipeline: sections.name.clone(),
        what,
    };
    let features = features(train, &dataset).map_err(other_rows)?;
    let task = Task {
        kind: train.task,
        classes: classes(workspace, train, &dataset, &other_rows).await?,
        features,
        target: train.target.clone(),
        weight: train.weight.clone(),
    };
    let profile = workspace.estate().profile(&dataset, None).await?;
    let distinct = |field: &Field| {
        let column = profile.columns.iter().find(|one| one.name == field.name);
        match field.kind {
            Kind::Utf8 => column.map_or(0, |one| u32::try_from(one.distinct).unwrap_or(u32::MAX)),
            _ => 0,
        }
    };
    let cardinalities: Vec<u32> = task.features.iter().map(distinct).collect();
    // A checked pipeline names a plugin that it has, and every plugin was read.
    let (Some(section), Some(component), Some(planned)) = (
        sections.plugins.get(&train.plugin),
        components.get(&train.plugin),
        plan.plugins.iter().find(|one| one.name == train.plugin),
    ) else {
        return Err(other_rows(format!("there is no plugin `{}`", train.plugin)));
    };
    let standing = workspace.conduct().let_look(&planned.plugin)?;
    let without = section.grants.without_effects();
    let is_less = without != section.grants;
    let grants = sections.conduct.isolate.applied(standing, without);
    let name = &train.plugin;
    let origin = Origin {
        signatures: component.signatures(),
        trust: sections.trust.get(&Role::Adapter),
    };
    let plugin = workspace
        .sandbox()
        .load_from(name, &component.bytes, Role::Adapter, grants, origin)
        .await
        .map_err(|error| match error {
            LoadError::NotGranted { .. } if is_less => DeclareError::OnlyLooked {
                name: name.clone(),
                source: Box::new(error),
            },
            error => DeclareError::Load(Box::new(error)),
        })?;
    let mut adapter = plugin.adapter(&CallContext::new(None, "declare")).await?;
    let declaration = adapter
        .declare(&task, &cardinalities, &train.hyperparameters)
        .await?;
    adapter.finish()?;
    Ok(Declared {
        adapter: planned.plugin.clone(),
        dataset: dataset.digest,
        task,
        declaration,
    })
}

/// The columns that would be learnt from, in order.
fn features(train: &TrainSection, dataset: &Dataset) -> Result<Vec<Field>, String> {
    let fields = fields_of(&dataset.schema)
        .map_err(|(column, found)| format!("column `{column}` is {found}"))?;
    let selection = &train.features;
    let mut chosen = match &selection.include {
        None => fields,
        Some(names) => names
            .iter()
            .map(|name| {
                let found = fields.iter().find(|field| field.name == *name);
                found
                    .cloned()
                    .ok_or_else(|| format!("there is no column `{name}`"))
            })
            .collect::<Result<_, _>>()?,
    };
    let left_out: BTreeSet<&String> = selection
        .exclude
        .iter()
        .chain(&train.target)
        .chain(&train.weight)
        .collect();
    chosen.retain(|field| !left_out.contains(&field.name));
    if chosen.is_empty() {
        return Err("there is no column left to learn from".to_owned());
    }
    Ok(chosen)
}

/// The classes of the target, in the order in which training would have them.
async fn classes(
    workspace: &Workspace,
    train: &TrainSection,
    dataset: &Dataset,
    other_rows: &impl Fn(String) -> DeclareError,
) -> Result<Vec<String>, DeclareError> {
    let has_classes = matches!(
        train.task,
        TaskKind::BinaryClassification | TaskKind::MulticlassClassification
    );
    let Some(target) = train.target.as_deref().filter(|_| has_classes) else {
        return Ok(Vec::new());
    };
    let arrow = |error: ArrowError| other_rows(error.to_string());
    let mut targets = Vec::new();
    for batch in workspace.estate().read(dataset).await? {
        let column = batch.column_by_name(target);
        let missing = || other_rows(format!("there is no column `{target}`"));
        targets.push(cast(column.ok_or_else(missing)?, &DataType::Utf8).map_err(arrow)?);
    }
    let all: Vec<_> = targets.iter().map(AsRef::as_ref).collect();
    if all.is_empty() {
        return Err(other_rows("there are no rows".to_owned()));
    }
    let all = concat(&all).map_err(arrow)?;
    classes_of(
        all.as_string::<i32>(),
        train.task,
        train.positive.as_deref(),
    )
    .map_err(|(_, message)| other_rows(message))
}
