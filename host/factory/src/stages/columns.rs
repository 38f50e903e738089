//! Which columns are learnt from: names checked against the data, nearest right names told.

use std::collections::BTreeSet;

use arrow::datatypes::Schema;
use sandcast_sandbox::{Field, Kind, TaskKind, fields_of};

use super::line::{Line, Stop};
use crate::config::hint;

/// The columns that are learnt from, in order: never the target, the weight or a masked one.
pub(crate) fn features(
    line: &Line<'_>,
    schema: &Schema,
    masked: &BTreeSet<String>,
) -> Result<Vec<Field>, Stop> {
    let train = &line.sections().train;
    let fields = fields_of(schema).map_err(|(column, found)| {
        Stop::rejected(format!(
            "column `{column}` is {found}, which plugins do not know"
        ))
    })?;
    let selection = &train.features;
    let mut chosen = Vec::new();
    for (index, name) in selection.include.iter().flatten().enumerate() {
        let place = if line
            .pipeline
            .source
            .has(&format!("train.features[{index}]"))
        {
            format!("train.features[{index}]")
        } else {
            format!("train.features.include[{index}]")
        };
        chosen.push(column(line, &fields, &place, name)?);
    }
    for (index, name) in selection.exclude.iter().enumerate() {
        column(
            line,
            &fields,
            &format!("train.features.exclude[{index}]"),
            name,
        )?;
    }
    if selection.include.is_none() {
        chosen.extend(fields);
    }
    chosen.retain(|field| {
        Some(&field.name) != train.target.as_ref()
            && Some(&field.name) != train.weight.as_ref()
            && !selection.exclude.contains(&field.name)
            && !masked.contains(&field.name)
    });
    let mut seen = BTreeSet::new();
    if let Some(twice) = chosen.iter().find(|field| !seen.insert(&field.name)) {
        let message = format!("the feature `{}` is there twice", twice.name);
        return Err(line.rejected_at("train.features", &message, None));
    }
    if chosen.is_empty() {
        let message = "there is no column left to learn from";
        return Err(line.rejected_at("train.features", message, None));
    }
    if train.task == TaskKind::TextGeneration
        && !matches!(chosen.as_slice(), [text] if text.kind == Kind::Utf8)
    {
        let of = |field: &Field| format!("`{}` ({})", field.name, name_of(field.kind));
        let found: Vec<String> = chosen.iter().take(8).map(of).collect();
        let message = format!(
            "a text generation learns from one column of texts, and there are {}: {}",
            chosen.len(),
            found.join(", ")
        );
        let help = "name the one in `train.features`".to_owned();
        return Err(line.rejected_at("train.features", &message, Some(help)));
    }
    Ok(chosen)
}

/// Checks that the columns that the pipeline names outside the features are there and fit.
pub(crate) fn check(line: &Line<'_>, schema: &Schema) -> Result<(), Stop> {
    let sections = line.sections();
    let train = &sections.train;
    let fields = fields_of(schema).map_err(|(column, found)| {
        Stop::rejected(format!(
            "column `{column}` is {found}, which plugins do not know"
        ))
    })?;
    if let Some(target) = &train.target {
        let target = column(line, &fields, "train.target", target)?;
        check_target(line, &target)?;
    }
    if let Some(weight) = &train.weight {
        let weight = column(line, &fields, "train.weight", weight)?;
        if !matches!(weight.kind, Kind::Int64 | Kind::Float64) {
            let message = format!(
                "a weight is a number, and `{}` is {}",
                weight.name,
                name_of(weight.kind)
            );
            return Err(line.rejected_at("train.weight", &message, None));
        }
    }
    for (index, name) in sections.evaluate.slices.iter().enumerate() {
        column(line, &fields, &format!("evaluate.slices[{index}]"), name)?;
    }
    Ok(())
}

/// Checks that a target is of a kind that the task can have.
fn check_target(line: &Line<'_>, target: &Field) -> Result<(), Stop> {
    let task = line.sections().train.task;
    let fits = match task {
        TaskKind::Regression => matches!(target.kind, Kind::Int64 | Kind::Float64),
        _ => matches!(target.kind, Kind::Utf8 | Kind::Int64 | Kind::Boolean),
    };
    if fits {
        return Ok(());
    }
    let cast = "cast it in `dataset.sql`, such as `CAST(target AS VARCHAR)`";
    let (message, help) = match task {
        TaskKind::Regression => ("a regression needs a target of numbers", None),
        TaskKind::AnomalyDetection => (
            "labels to judge by are texts, whole numbers or booleans",
            Some(cast.to_owned()),
        ),
        _ => (
            "a classification needs a target of texts, whole numbers or booleans",
            Some(cast.to_owned()),
        ),
    };
    let message = format!(
        "{message}, and `{}` is {}",
        target.name,
        name_of(target.kind)
    );
    Err(line.rejected_at("train.target", &message, help))
}

fn column(line: &Line<'_>, fields: &[Field], path: &str, name: &str) -> Result<Field, Stop> {
    let found = fields.iter().find(|field| field.name == name);
    found.cloned().ok_or_else(|| {
        let help = hint(
            name,
            "columns",
            fields.iter().map(|field| field.name.as_str()),
        );
        line.rejected_at(
            path,
            &format!("the data has no column `{name}`"),
            Some(help),
        )
    })
}

/// The name of a kind, as the contract has it.
pub(crate) fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Boolean => "boolean",
        Kind::Int64 => "int64",
        Kind::Float64 => "float64",
        Kind::Utf8 => "utf8",
        Kind::Date32 => "date32",
        Kind::TimestampUs => "timestamp-us",
    }
}
