//! Asks Cedar, and says what it decided and why.

use cedar_policy::{AuthorizationError, Authorizer, Decision, Effect};

use crate::obligations::{self, Obligation};
use crate::policies::Policies;
use crate::request::{Question, RequestError, translate};

/// How many reasons an answer gives.
const MAXIMUM_REASONS: usize = 100;

/// What is to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Allow,
    Deny,
    RequireApproval,
}

/// An outcome with what led to it and what it asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) outcome: Outcome,
    /// Sentences, the deciding policies in the order of the text.
    pub(crate) reasons: Vec<String>,
    pub(crate) obligations: Vec<Obligation>,
}

/// Decides a question: denied unless a `permit` applies and no `forbid` does.
///
/// Two things are stricter than in plain Cedar. A `forbid` that cannot be evaluated denies, where
/// Cedar would skip it. And every `permit` that applies brings its conditions along, so that one
/// without conditions does not lift those of another.
///
/// # Errors
/// The question cannot be put in Cedar's terms.
pub(crate) fn decide(policies: &Policies, question: &Question<'_>) -> Result<Answer, RequestError> {
    let request = translate(question, policies)?;
    let response = Authorizer::new().is_authorized(&request, &policies.set, &policies.entities);

    let mut reasons = Vec::new();
    let mut obligations = Vec::new();
    let mut approvals = Vec::new();
    let mut forbid_failed = false;
    for rule in &policies.rules {
        let decided = response.diagnostics().reason().any(|id| *id == rule.policy);
        let failure = response
            .diagnostics()
            .errors()
            .find_map(|error| match error {
                AuthorizationError::PolicyEvaluationError(error)
                    if *error.policy_id() == rule.policy =>
                {
                    Some(error.inner().to_string())
                }
                AuthorizationError::PolicyEvaluationError(_) => None,
            });
        if decided {
            let reason = match &rule.reason {
                Some(reason) => format!("{} `{}`: {reason}", rule.effect, rule.name),
                None => format!("{} `{}` applies", rule.effect, rule.name),
            };
            reasons.push((rule.effect, reason));
            obligations::merge(&mut obligations, &rule.conditions.obligations);
            if let Some(why) = &rule.conditions.approval {
                approvals.push(match why.as_str() {
                    "" => format!("permit `{}` asks for an approval", rule.name),
                    why => format!("permit `{}` asks for an approval: {why}", rule.name),
                });
            }
        }
        if let Some(failure) = failure {
            forbid_failed |= rule.effect == Effect::Forbid;
            let reason = format!(
                "{} `{}` could not be evaluated: {failure}",
                rule.effect, rule.name
            );
            reasons.push((rule.effect, reason));
        }
    }

    let response_allows = response.decision() == Decision::Allow;
    let outcome = match response.decision() {
        Decision::Allow if forbid_failed => Outcome::Deny,
        Decision::Allow if !approvals.is_empty() => Outcome::RequireApproval,
        Decision::Allow => Outcome::Allow,
        Decision::Deny => Outcome::Deny,
    };
    if outcome == Outcome::Deny {
        obligations.clear();
        // What would have permitted it explains nothing now.
        reasons.retain(|(effect, _)| *effect == Effect::Forbid || !response_allows);
    } else {
        reasons.extend(approvals.into_iter().map(|why| (Effect::Permit, why)));
    }
    let mut reasons: Vec<String> = reasons.into_iter().map(|(_, reason)| reason).collect();
    if outcome == Outcome::Deny && response.diagnostics().reason().next().is_none() {
        let Question {
            principal,
            action,
            resource,
            ..
        } = question;
        let nobody = format!("no policy permits {principal} to {action} {resource}");
        reasons.insert(0, nobody);
    }
    if reasons.len() > MAXIMUM_REASONS {
        let more = format!("and {} more", reasons.len() - MAXIMUM_REASONS);
        reasons.truncate(MAXIMUM_REASONS);
        reasons.push(more);
    }
    Ok(Answer {
        outcome,
        reasons,
        obligations,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const POLICIES: &str = r#"
        @id("team-trains")
        @reason("the risk team trains")
        permit (principal in Group::"risk", action == Action::"train-start", resource);

        @id("good-models")
        permit (principal, action == Action::"promote", resource is Model)
        when { context.metrics.auc.greaterThanOrEqual(decimal("0.75")) };

        @id("close-calls")
        @require_approval("the margin is small")
        permit (principal, action == Action::"promote", resource is Model)
        when { context.metrics.auc.greaterThanOrEqual(decimal("0.75")) && context.metrics.auc.lessThan(decimal("0.8")) };

        @id("unfair")
        @reason("selection rates differ by more than a tenth")
        forbid (principal, action == Action::"promote", resource)
        when { context has difference && context.difference.greaterThan(decimal("0.1")) };

        @obligation_mask_columns("name, ssn")
        permit (principal, action == Action::"data-read", resource);

        @obligation_mask_columns("ssn, phone")
        @obligation_log("")
        permit (principal, action == Action::"data-read", resource == Source::"branch");
    "#;

    fn policies(config: serde_json::Value) -> Policies {
        let config = serde_json::from_value(config).expect("keys that are known");
        Policies::from_config(config).expect("good policies")
    }

    fn answer(principal: &str, action: &str, resource: &str, context: serde_json::Value) -> Answer {
        let config = json!({"policies": POLICIES, "entities": [
            {"uid": {"type": "User", "id": "alice"}, "attrs": {}, "parents": [{"type": "Group", "id": "risk"}]}
        ]});
        let policies = policies(config);
        let context = context.to_string();
        let question = Question {
            control_point: action,
            principal,
            action,
            resource,
            context: &context,
        };
        decide(&policies, &question).expect("a good question")
    }

    #[test]
    fn a_group_member_is_allowed_with_the_reason() {
        let answer = answer(
            "user:alice",
            "train-start",
            "pipeline:credit-risk",
            json!({}),
        );
        assert_eq!(answer.outcome, Outcome::Allow);
        assert_eq!(
            answer.reasons,
            ["permit `team-trains`: the risk team trains"]
        );
        assert!(answer.obligations.is_empty());
    }

    #[test]
    fn nothing_is_allowed_by_default() {
        let answer = answer(
            "user:mallory",
            "train-start",
            "pipeline:credit-risk",
            json!({}),
        );
        assert_eq!(answer.outcome, Outcome::Deny);
        assert_eq!(
            answer.reasons,
            ["no policy permits user:mallory to train-start pipeline:credit-risk"]
        );
    }

    #[test]
    fn metrics_decide_and_a_forbid_wins() {
        let good = answer(
            "user:alice",
            "promote",
            "model:m",
            json!({"metrics": {"auc": 0.91}}),
        );
        assert_eq!(
            (good.outcome, good.reasons),
            (
                Outcome::Allow,
                vec!["permit `good-models` applies".to_owned()]
            )
        );
        let weak = answer(
            "user:alice",
            "promote",
            "model:m",
            json!({"metrics": {"auc": 0.6}}),
        );
        assert_eq!(weak.outcome, Outcome::Deny);
        let unfair = answer(
            "user:alice",
            "promote",
            "model:m",
            json!({"metrics": {"auc": 0.91}, "difference": 0.2}),
        );
        assert_eq!(unfair.outcome, Outcome::Deny);
        assert_eq!(
            unfair.reasons,
            ["forbid `unfair`: selection rates differ by more than a tenth"]
        );
    }

    #[test]
    fn an_approval_is_not_lifted_by_another_permit() {
        let close = answer(
            "user:alice",
            "promote",
            "model:m",
            json!({"metrics": {"auc": 0.76}}),
        );
        assert_eq!(close.outcome, Outcome::RequireApproval);
        assert!(
            close
                .reasons
                .iter()
                .any(|it| it.contains("the margin is small")),
            "{:?}",
            close.reasons
        );
    }

    #[test]
    fn a_permit_that_fails_does_not_permit() {
        let missing = answer("user:alice", "promote", "model:m", json!({}));
        assert_eq!(missing.outcome, Outcome::Deny);
        assert!(
            missing
                .reasons
                .iter()
                .any(|it| it.contains("`good-models` could not be evaluated"))
        );
    }

    #[test]
    fn a_forbid_that_fails_denies() {
        let broken = answer(
            "user:alice",
            "promote",
            "model:m",
            json!({"metrics": {"auc": 0.91}, "difference": "large"}),
        );
        assert_eq!(broken.outcome, Outcome::Deny);
        assert_eq!(broken.reasons.len(), 1, "{:?}", broken.reasons);
        assert!(broken.reasons[0].starts_with("forbid `unfair` could not be evaluated"));
        assert!(broken.obligations.is_empty());
    }

    #[test]
    fn obligations_of_all_permits_are_united() {
        let read = answer("user:alice", "data-read", "source:branch", json!({}));
        assert_eq!(read.outcome, Outcome::Allow);
        let told: Vec<_> = read
            .obligations
            .iter()
            .map(|it| (it.kind.as_str(), json!(it.parameters)))
            .collect();
        assert_eq!(
            told,
            [
                ("mask-columns", json!({"columns": ["name", "ssn", "phone"]})),
                ("log", json!({})),
            ]
        );
    }

    #[test]
    fn a_request_outside_the_schema_is_an_error() {
        let config = json!({
            "schema": "entity User, Model; action promote appliesTo { principal: User, resource: Model, context: { control_point: String } };",
            "policies": "permit (principal, action, resource);",
        });
        let policies = policies(config);
        let ask = |action| {
            decide(
                &policies,
                &Question {
                    control_point: "promote",
                    principal: "user:alice",
                    action,
                    resource: "model:m",
                    context: "",
                },
            )
        };
        assert_eq!(ask("promote").expect("declared").outcome, Outcome::Allow);
        assert!(
            ask("demote")
                .expect_err("not declared")
                .to_string()
                .contains("demote")
        );
    }
}
