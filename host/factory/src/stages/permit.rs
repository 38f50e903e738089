//! Asks whether a model may be trained on these rows.

use std::collections::BTreeSet;

use sandcast_audit::Digest;
use sandcast_sandbox::{ControlPoint, Effect, Field};
use serde_json::json;

use super::columns;
use super::line::{Halt, Line, StageNotes};
use super::policy::{Question, ask};
use super::validate::Validated;

/// The name of the stage.
const STAGE: &str = "permit";

/// Rows that may be learnt from, and by which columns.
pub(crate) struct Permitted {
    pub(crate) validated: Validated,
    pub(crate) features: Vec<Field>,
    /// What the policies at `train-start` said, if one was asked.
    pub(crate) effect: Option<Effect>,
}

pub(crate) async fn permit(line: &Line<'_>, validated: Validated) -> Result<Permitted, Halt> {
    let (features, effect) = line
        .stage(STAGE, async {
            let sections = line.sections();
            let passed = &validated.validation.passed;
            columns::check(line, &passed.schema)?;
            let wanted = columns::features(line, &passed.schema, &BTreeSet::new())?;
            let names = |fields: &[Field]| -> Vec<String> {
                fields.iter().map(|field| field.name.clone()).collect()
            };
            let sensitive = &sections.evaluate.slices;
            let is_sensitive = |field: &&Field| sensitive.contains(&field.name);
            let sensitive_features: Vec<&String> =
                wanted.iter().filter(is_sensitive).map(|field| &field.name).collect();
            let asked = Question {
                point: ControlPoint::TrainStart,
                action: "train",
                resource: format!("dataset:{}", sections.name),
                context: json!({
                    "task": sections.train.task,
                    "target": sections.train.target,
                    "rows": validated.validation.rows_passed,
                    "quarantined": quarantined(&validated),
                    "columns": passed.schema.fields().iter().map(|it| it.name()).collect::<Vec<_>>(),
                    "features": names(&wanted),
                    "sensitive_columns": sensitive,
                    "sensitive_features": sensitive_features,
                }),
            };
            let answer = ask(line, &validated.connected.loaded, STAGE, asked).await?;
            let masked = answer.masked_columns()?;
            let features = columns::features(line, &passed.schema, &masked)?;
            let left_out: Vec<String> =
                names(&wanted).into_iter().filter(|name| masked.contains(name)).collect();
            if !left_out.is_empty() {
                line.note(STAGE, format!("a policy leaves out {}", left_out.join(", ")));
            }
            line.write_report(|report| {
                for column in &mut report.profile {
                    if features.iter().any(|field| field.name == column.name) {
                        column.uses.insert(0, "feature".to_owned());
                    }
                }
            });
            let message = match answer.effect {
                Some(_) => format!("allowed, {} features", features.len()),
                None => format!("nobody to ask, {} features", features.len()),
            };
            let key = line.key(STAGE, &[passed.digest.as_bytes()]);
            let permitted = json!({ "features": names(&features), "effect": answer.effect });
            let notes = StageNotes {
                key: Some(key),
                output: Some(Digest::of(permitted.to_string().as_bytes())),
                rows_in: Some(passed.rows),
                rows_out: Some(passed.rows),
                message,
                ..StageNotes::default()
            };
            Ok(((features, answer.effect), notes))
        })
        .await?;
    Ok(Permitted {
        validated,
        features,
        effect,
    })
}

/// Rows put aside anywhere before training.
pub(crate) fn quarantined(validated: &Validated) -> u64 {
    let landed = validated
        .connected
        .sources
        .iter()
        .map(|source| source.quarantine.rows);
    landed.sum::<u64>() + validated.validation.rows_quarantined
}
