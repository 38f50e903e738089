//! Decides by Cedar policies that the operator writes: a `permit` must apply and no `forbid` may.
//!
//! The README says how a request becomes entities and what the annotations do.

use sandcast_sdk::{ControlPoint, Decision, Effect, Failure, Obligation, Policy, Request};

use crate::decide::{Outcome, decide};
use crate::policies::Policies;
use crate::request::Question;

mod decide;
mod obligations;
mod policies;
mod request;

pub use crate::policies::Config;

/// Policies in the Cedar language.
#[derive(Debug)]
pub struct CedarPolicy {
    policies: Policies,
}

impl Policy for CedarPolicy {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, Failure> {
        match Policies::from_config(config) {
            Ok(policies) => Ok(Self { policies }),
            Err(error) => {
                let failure =
                    Failure::new(sandcast_sdk::FailureCode::InvalidConfig, error.to_string());
                Err(failure.hint(error.hint()))
            }
        }
    }

    fn decide(&mut self, request: &Request) -> Result<Decision, Failure> {
        let question = Question {
            control_point: control_point_name(request.control_point),
            principal: &request.principal,
            action: &request.action,
            resource: &request.resource,
            context: &request.context,
        };
        let answer = decide(&self.policies, &question)
            .map_err(|error| Failure::invalid_input(error.to_string()).hint(error.hint()))?;
        Ok(Decision {
            effect: match answer.outcome {
                Outcome::Allow => Effect::Allow,
                Outcome::Deny => Effect::Deny,
                Outcome::RequireApproval => Effect::RequireApproval,
            },
            reasons: answer.reasons,
            obligations: answer
                .obligations
                .into_iter()
                .map(|obligation| Obligation {
                    kind: obligation.kind,
                    parameters: serde_json::Value::Object(obligation.parameters).to_string(),
                })
                .collect(),
        })
    }
}

fn control_point_name(point: ControlPoint) -> &'static str {
    match point {
        ControlPoint::PluginLoad => "plugin-load",
        ControlPoint::DataRead => "data-read",
        ControlPoint::TrainStart => "train-start",
        ControlPoint::Promote => "promote",
        ControlPoint::Predict => "predict",
        ControlPoint::Archive => "archive",
        ControlPoint::Export => "export",
    }
}

sandcast_sdk::export_policy!(CedarPolicy);

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(policies: &str) -> Result<CedarPolicy, Failure> {
        let config = serde_json::json!({ "policies": policies }).to_string();
        sandcast_sdk::config::parse(&config).and_then(CedarPolicy::configure)
    }

    fn request() -> Request {
        Request {
            control_point: ControlPoint::Promote,
            principal: "pipeline:credit-risk".into(),
            action: "promote".into(),
            resource: "model:credit-risk".into(),
            context: r#"{"metrics": {"auc": 0.81}}"#.into(),
        }
    }

    #[test]
    fn a_request_is_allowed_with_its_obligations() {
        let mut plugin = plugin(
            r#"@id("good") @obligation_notify("risk@example.org")
               permit (principal == Pipeline::"credit-risk", action == Action::"promote", resource)
               when { context.control_point == "promote" && context.metrics.auc.greaterThan(decimal("0.8")) };"#,
        )
        .expect("good policies");
        let decision = plugin.decide(&request()).expect("a decision");
        assert_eq!(decision.effect, Effect::Allow);
        assert_eq!(decision.reasons, ["permit `good` applies"]);
        assert_eq!(decision.obligations[0].kind, "notify");
        assert_eq!(
            decision.obligations[0].parameters,
            r#"{"value":"risk@example.org"}"#
        );
    }

    #[test]
    fn a_request_is_denied_by_default() {
        let mut plugin =
            plugin("forbid (principal, action, resource) when { false };").expect("good policies");
        let decision = plugin.decide(&request()).expect("a decision");
        assert_eq!(decision.effect, Effect::Deny);
        assert_eq!(
            decision.reasons,
            ["no policy permits pipeline:credit-risk to promote model:credit-risk"]
        );
    }

    #[test]
    fn the_policy_of_the_example_decides_as_its_story_says() {
        let mut plugin = plugin(include_str!("../../../examples/credit-risk/policy.cedar"))
            .expect("good policies");
        let mut train = |sensitive_features: &str| {
            let context = format!("{{\"sensitive_features\": {sensitive_features}}}");
            let request = Request {
                control_point: ControlPoint::TrainStart,
                action: "train".into(),
                resource: "dataset:credit-risk".into(),
                context,
                ..request()
            };
            plugin.decide(&request).expect("a decision").effect
        };
        assert_eq!(train("[]"), Effect::Allow);
        assert_eq!(train(r#"["origin"]"#), Effect::Deny);
    }

    #[test]
    fn failures_say_where_and_what_to_do() {
        let failure =
            plugin("permit (principal, action, resource)").expect_err("a semicolon is missing");
        assert_eq!(failure.code, sandcast_sdk::FailureCode::InvalidConfig);
        assert!(
            failure.message.contains("line 1, column 37"),
            "{}",
            failure.message
        );
        assert!(failure.hint.is_some());

        let mut plugin = plugin("permit (principal, action, resource);").expect("good policies");
        let failure = plugin
            .decide(&Request {
                context: "[]".into(),
                ..request()
            })
            .expect_err("a wrong context");
        assert_eq!(failure.code, sandcast_sdk::FailureCode::InvalidInput);
    }
}
