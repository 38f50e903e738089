//! Asks policies whether something may happen. Nobody's silence is a yes: a policy that fails, or
//! whose conditions cannot be met, stops the run.

use std::collections::BTreeSet;

use sandcast_audit::Event;
use sandcast_sandbox::{ControlPoint, Effect, Obligation, Request};
use serde_json::{Map, Value};

use super::line::{Line, Stop, chain};
use super::load::Loaded;
use crate::report;

/// The obligation to leave columns out of what is learnt from.
const MASK_COLUMNS: &str = "mask-columns";

/// What is asked.
pub(crate) struct Question {
    pub(crate) point: ControlPoint,
    pub(crate) action: &'static str,
    pub(crate) resource: String,
    /// An object. The pipeline, the user and the run are added to it.
    pub(crate) context: Value,
}

/// What all policies at a control point said together.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// The strictest effect, or nothing if no policy is asked here.
    pub(crate) effect: Option<Effect>,
    /// Why not, a sentence each, if the effect is not to allow.
    pub(crate) refusals: Vec<String>,
    obligations: Vec<(String, Obligation)>,
}

/// Asks every policy at the control point, and writes each decision into the audit log.
pub(crate) async fn question(
    line: &Line<'_>,
    loaded: &Loaded,
    stage: &str,
    question: Question,
) -> Result<Answer, Stop> {
    let sections = line.sections();
    let mut answer = Answer::default();
    let request = Request {
        control_point: question.point,
        principal: format!("pipeline:{}", sections.name),
        action: question.action.to_owned(),
        resource: question.resource,
        context: context(line, question.context),
    };
    let asked = sections
        .policies
        .iter()
        .filter(|section| section.at.contains(&question.point));
    for section in asked {
        let name = &section.plugin;
        let plugin = loaded.plugin(name)?;
        let stop = |error| Stop::of(stage, &error);
        let mut policy = plugin
            .policy(&line.context(stage), &section.config)
            .await
            .map_err(stop)?;
        let decision = policy.decide(&request).await.map_err(stop)?;
        let recording = policy.finish().map_err(stop)?.recording;
        let effect = decision.effect;
        line.workspace.audit().append(Event::Decided {
            run: Some(line.run.clone()),
            plugin: Some(plugin.reference().clone()),
            control_point: question.point.as_str().to_owned(),
            principal: request.principal.clone(),
            action: request.action.clone(),
            resource: request.resource.clone(),
            effect: effect.as_str().to_owned(),
            reasons: decision.reasons.clone(),
            obligations: decision.obligations.iter().filter_map(as_json).collect(),
            recording,
        })?;
        line.write_report(|report| {
            report.decisions.push(report::Decision {
                policy: name.clone(),
                control_point: question.point.as_str().to_owned(),
                principal: request.principal.clone(),
                action: request.action.clone(),
                resource: request.resource.clone(),
                effect: effect.as_str().to_owned(),
                reasons: decision.reasons.clone(),
            });
        });
        if effect != Effect::Allow {
            let what = match effect {
                Effect::RequireApproval => "wants a person's approval to",
                _ => "does not allow to",
            };
            let why = decision.reasons.join("; ");
            let (action, resource) = (&request.action, &request.resource);
            answer
                .refusals
                .push(format!("policy `{name}` {what} {action} {resource}: {why}"));
        }
        answer.effect = strictest(answer.effect, effect);
        answer.obligations.extend(
            decision
                .obligations
                .into_iter()
                .map(|it| (name.clone(), it)),
        );
    }
    Ok(answer)
}

/// The same, where anything but a yes stops the run.
pub(crate) async fn ask(
    line: &Line<'_>,
    loaded: &Loaded,
    stage: &str,
    asked: Question,
) -> Result<Answer, Stop> {
    let answer = question(line, loaded, stage, asked).await?;
    if answer.refusals.is_empty() {
        Ok(answer)
    } else {
        Err(Stop::Rejected(answer.refusals))
    }
}

impl Answer {
    /// Nothing can be promised here, so an obligation stops the run.
    pub(crate) fn without_obligations(&self, stage: &str) -> Result<(), Stop> {
        let refused = self.obligations.iter().map(|(policy, obligation)| {
            format!(
                "policy `{policy}` allows it only with `{}`, which cannot be done in stage `{stage}`",
                obligation.kind
            )
        });
        let refused: Vec<String> = refused.collect();
        if refused.is_empty() {
            Ok(())
        } else {
            Err(Stop::Rejected(refused))
        }
    }

    /// The columns that must not be learnt from. Any other obligation stops the run.
    pub(crate) fn masked_columns(&self) -> Result<BTreeSet<String>, Stop> {
        let mut masked = BTreeSet::new();
        for (policy, obligation) in &self.obligations {
            let columns = obligation
                .parameters
                .get("columns")
                .and_then(Value::as_array);
            let names = columns.map(|columns| {
                columns
                    .iter()
                    .map(|column| column.as_str().map(str::to_owned))
                    .collect()
            });
            match (obligation.kind.as_str(), names) {
                (MASK_COLUMNS, Some(Some::<Vec<String>>(names))) => masked.extend(names),
                (MASK_COLUMNS, _) => {
                    return Err(Stop::rejected(format!(
                        "policy `{policy}` allows it only with `{MASK_COLUMNS}`, and does not \
                         name the columns in `columns`"
                    )));
                }
                (kind, _) => {
                    return Err(Stop::rejected(format!(
                        "policy `{policy}` allows it only with `{kind}`, which this host does not \
                         know how to do"
                    )));
                }
            }
        }
        Ok(masked)
    }
}

fn strictest(one: Option<Effect>, other: Effect) -> Option<Effect> {
    let rank = |effect| match effect {
        Effect::Allow => 0,
        Effect::RequireApproval => 1,
        Effect::Deny => 2,
    };
    match one {
        Some(one) if rank(one) >= rank(other) => Some(one),
        _ => Some(other),
    }
}

/// What is known of any question. What is unknown is left out: there is no null in Cedar.
fn context(line: &Line<'_>, own: Value) -> Value {
    let mut context = match own {
        Value::Object(own) => own,
        _ => Map::new(),
    };
    context.insert("pipeline".to_owned(), line.sections().name.clone().into());
    context.insert("run".to_owned(), line.run.to_string().into());
    if let Some(user) = &line.user {
        context.insert("user".to_owned(), user.clone().into());
    }
    Value::Object(context)
}

fn as_json(obligation: &Obligation) -> Option<Value> {
    serde_json::to_value(obligation)
        .inspect_err(|error| tracing::error!("an obligation has no JSON form: {}", chain(error)))
        .ok()
}
