//! The gate: the only place where an [`Approved`] is made.

use std::collections::BTreeMap;

use sandcast_audit::{Event, RunId};
use sandcast_sandbox::{ControlPoint, Effect};
use serde_json::{Map, Value, json};

use super::evaluate::Evaluated;
use super::line::{Halt, Line, StageNotes, Stop};
use super::permit::quarantined;
use super::policy::{Question, question};
use crate::gate::{Champion, Facts, Gate, metrics_by_name, slices_by_name};
use crate::report;

/// The name of the stage.
const STAGE: &str = "gate";

/// A model that the gate has approved. Nothing else can be registered, and nothing but the gate
/// makes one:
///
/// ```compile_fail
/// let run = sandcast_audit::RunId::generate();
/// let approved = sandcast_factory::stages::Approved { run };
/// ```
pub struct Approved {
    run: RunId,
    evaluated: Evaluated,
}

impl Approved {
    /// The run that made the model.
    pub fn run(&self) -> &RunId {
        &self.run
    }

    pub(crate) fn evaluated(&self) -> &Evaluated {
        &self.evaluated
    }
}

pub(crate) async fn gate(line: &Line<'_>, evaluated: Evaluated) -> Result<Approved, Halt> {
    line.stage(STAGE, async {
        let gate = Gate::of(line.sections()).map_err(|error| Stop::rejected(error.to_string()))?;
        let mut facts = facts(line, &evaluated);
        let loaded = &evaluated.trained.permitted.validated.connected.loaded;
        let answer = question(line, loaded, STAGE, promotion(line, &evaluated, &facts)).await?;
        if let Some(effect) = answer.effect {
            facts
                .policy
                .insert(ControlPoint::Promote, effect.as_str().to_owned());
        }
        let judgement = gate.judge(&facts);
        line.workspace.audit().append(Event::Gated {
            run: line.run.clone(),
            approved: judgement.approved && answer.refusals.is_empty(),
            checks: judgement.checks.clone(),
        })?;
        line.write_report(|report| {
            let checks = judgement.checks.iter().map(|check| report::GateCheck {
                expression: check.expression.clone(),
                passed: check.passed,
                observed: check.observed.clone(),
            });
            report.gate = checks.collect();
        });
        let mut refusals = judgement.refusals();
        refusals.extend(answer.refusals.iter().cloned());
        if !judgement.approved || !refusals.is_empty() {
            return Err(Stop::Rejected(refusals));
        }
        answer.without_obligations(STAGE)?;
        let notes = StageNotes {
            key: Some(line.key(STAGE, &[evaluated.trained.output.artifact.as_bytes()])),
            output: Some(evaluated.trained.output.artifact),
            message: format!("all {} expressions hold", judgement.checks.len()),
            ..StageNotes::default()
        };
        Ok((
            Approved {
                run: line.run.clone(),
                evaluated,
            },
            notes,
        ))
    })
    .await
}

fn facts(line: &Line<'_>, evaluated: &Evaluated) -> Facts {
    let output = &evaluated.trained.output;
    let permitted = &evaluated.trained.permitted;
    let count = |count: u64| count as f64;
    let data = [
        ("rows", count(permitted.validated.validation.rows_passed)),
        ("quarantined", count(quarantined(&permitted.validated))),
        ("training_rows", count(output.rows_training)),
        ("test_rows", count(output.rows_test)),
    ];
    // Whatever had not been allowed would have stopped the run before.
    let asked = line
        .sections()
        .policies
        .iter()
        .flat_map(|policy| policy.at.iter().copied());
    let mut policy: BTreeMap<ControlPoint, String> = asked
        .map(|point| (point, Effect::Allow.as_str().to_owned()))
        .collect();
    policy.remove(&ControlPoint::Promote);
    if let Some(effect) = permitted.effect {
        policy.insert(ControlPoint::TrainStart, effect.as_str().to_owned());
    }
    let champion = evaluated.champion.as_ref().map(|champion| Champion {
        version: champion.version,
        metrics: champion
            .evaluation
            .as_ref()
            .map(metrics_by_name)
            .unwrap_or_default(),
        slices: champion
            .evaluation
            .as_ref()
            .map(slices_by_name)
            .unwrap_or_default(),
    });
    Facts {
        metrics: metrics_by_name(&evaluated.evaluation),
        slices: slices_by_name(&evaluated.evaluation),
        champion,
        policy,
        data: data.map(|(name, value)| (name.to_owned(), value)).into(),
    }
}

fn promotion(line: &Line<'_>, evaluated: &Evaluated, facts: &Facts) -> Question {
    let sections = line.sections();
    let features = &evaluated.trained.output.task.features;
    let mut context = json!({
        "metrics": facts.metrics,
        "slices": facts.slices,
        "features": features.iter().map(|field| &field.name).collect::<Vec<_>>(),
        "sensitive_columns": sections.evaluate.slices,
        "rows": evaluated.trained.permitted.validated.validation.rows_passed,
        "quarantined": quarantined(&evaluated.trained.permitted.validated),
        "test_rows": evaluated.evaluation.rows,
    });
    let champion = facts.champion.as_ref();
    if let (Some(champion), Value::Object(context)) = (champion, &mut context) {
        let mut known = Map::new();
        known.insert("version".to_owned(), champion.version.into());
        known.insert("metrics".to_owned(), json!(champion.metrics));
        context.insert("champion".to_owned(), Value::Object(known));
    }
    Question {
        point: ControlPoint::Promote,
        action: "promote",
        resource: format!("model:{}", sections.register.model),
        context,
    }
}
