//! Decides what may happen.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::check_name;
use crate::bindings::policy::exports::sandcast::plugin::policy as wire;
use crate::bindings::policy::{PolicyPlugin, PolicyPluginPre};
use crate::call::{CallError, Failure, Usage};
use crate::instance::{Instance, MAX_SENTENCE_BYTES, failure_of};
use crate::process::{Opening, Question};
use crate::recording::{Call, Recordings, answers};
use crate::state::State;
use crate::text;

/// Where in the line the question is asked.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum ControlPoint {
    /// Before a plugin is used.
    PluginLoad,
    /// Before data is read.
    DataRead,
    /// Before training.
    TrainStart,
    /// Before a model is registered.
    Promote,
    /// Before a prediction.
    Predict,
    /// Before data is put away.
    Archive,
    /// Before data leaves.
    Export,
}

impl ControlPoint {
    /// The name in the contract and in a pipeline.
    pub fn as_str(self) -> &'static str {
        match self {
            ControlPoint::PluginLoad => "plugin-load",
            ControlPoint::DataRead => "data-read",
            ControlPoint::TrainStart => "train-start",
            ControlPoint::Promote => "promote",
            ControlPoint::Predict => "predict",
            ControlPoint::Archive => "archive",
            ControlPoint::Export => "export",
        }
    }
}

/// May this happen?
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Where in the line.
    pub control_point: ControlPoint,
    /// Who asks, such as `pipeline:credit-risk`.
    pub principal: String,
    /// What is to be done, such as `promote`.
    pub action: String,
    /// What it is done to, such as `model:credit-risk`.
    pub resource: String,
    /// Everything else that is known; an object.
    pub context: Value,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// It may.
    Allow,
    /// It may not.
    Deny,
    /// It may once a person has agreed.
    RequireApproval,
}

impl Effect {
    /// The name in the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Effect::Allow => "allow",
            Effect::Deny => "deny",
            Effect::RequireApproval => "require-approval",
        }
    }
}

/// What the host must do if it goes ahead.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Obligation {
    /// What, such as `mask-columns`.
    pub kind: String,
    /// How; an object.
    pub parameters: Value,
}

/// The answer, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The answer.
    pub effect: Effect,
    /// The policies that decided, and why, in sentences.
    pub reasons: Vec<String>,
    /// What the host must do if it goes ahead.
    pub obligations: Vec<Obligation>,
}

/// Reasons and obligations of one decision.
const MAX_ITEMS: usize = 256;

/// Bytes of the parameters of an obligation.
const MAX_PARAMETERS_BYTES: usize = 64 << 10;

/// An instance that decides.
pub struct Policy {
    instance: Instance,
    /// None where it runs in another process.
    guest: Option<Arc<PolicyPlugin>>,
}

impl Policy {
    pub(crate) async fn open(
        mut instance: Instance,
        pre: &PolicyPluginPre<State>,
        config: &Value,
        opening: Option<Box<Opening>>,
    ) -> Result<Self, CallError> {
        let opened = match opening {
            Some(opening) => {
                let opened = instance.ask(&Question::Open(opening), None).await;
                opened.map(|()| None)
            }
            None => {
                let made = configure(&mut instance, pre, &config.to_string()).await;
                made.and_then(|(guest, answer)| {
                    instance.accept(answer)?;
                    Ok(Some(guest))
                })
            }
        };
        let guest = instance.keep(
            opened,
            |_| Ok(Call::ConfigurePolicy),
            |_, _| Ok(Value::Null),
        )?;
        Ok(Self { instance, guest })
    }

    /// May this happen? Whoever asks records the answer.
    ///
    /// # Errors
    /// See [`CallError`]. Without an answer nothing may happen.
    pub async fn decide(&mut self, request: &Request) -> Result<Decision, CallError> {
        let decision = self.ask(request).await;
        let call = |_: &Recordings| {
            Ok(Call::Decide {
                request: request.clone(),
            })
        };
        self.instance
            .keep(decision, call, |_, decision| Ok(answers::value(decision)))
    }

    async fn ask(&mut self, request: &Request) -> Result<Decision, CallError> {
        if !request.context.is_object() {
            return Err(self
                .instance
                .bad_input("the context of a request is not an object"));
        }
        let request = wire::Request::from(request);
        let decision = match &self.guest {
            Some(guest) => {
                let answer = decide(&mut self.instance, guest, request).await?;
                self.instance.accept(answer)?
            }
            None => {
                let question = Question::Decide { request };
                self.instance.ask(&question, None).await?
            }
        };
        check_decision(decision).map_err(|what| self.instance.bad_output(what))
    }

    /// Ends the instance and says what it used.
    ///
    /// # Errors
    /// If its recording could not be written; then what it decided counts for nothing.
    pub fn finish(self) -> Result<Usage, CallError> {
        self.instance.finish()
    }

    pub(crate) fn instance(&mut self) -> &mut Instance {
        &mut self.instance
    }
}

/// Makes an instance and gives it its configuration.
pub(crate) async fn configure(
    instance: &mut Instance,
    pre: &PolicyPluginPre<State>,
    config: &str,
) -> Result<(Arc<PolicyPlugin>, Result<(), Failure>), CallError> {
    let (pre, config) = (pre.clone(), config.to_owned());
    let made = instance.call(move |store| {
        Box::pin(async move {
            let guest = pre.instantiate_async(&mut *store).await?;
            let policy = guest.sandcast_plugin_policy();
            let answer = policy.call_configure(&mut *store, &config).await?;
            Ok((Arc::new(guest), answer.map_err(failure_of)))
        })
    });
    made.await
}

/// What a guest decides, as it says it.
pub(crate) async fn decide(
    instance: &mut Instance,
    guest: &Arc<PolicyPlugin>,
    request: wire::Request,
) -> Result<Result<wire::Decision, Failure>, CallError> {
    let guest = Arc::clone(guest);
    let answer = instance.call(move |store| {
        Box::pin(async move {
            guest
                .sandcast_plugin_policy()
                .call_decide(store, &request)
                .await
        })
    });
    Ok(answer.await?.map_err(failure_of))
}

fn check_decision(decision: wire::Decision) -> Result<Decision, String> {
    let items = decision.reasons.len().max(decision.obligations.len());
    if items > MAX_ITEMS {
        return Err(format!(
            "a decision with {items} reasons or obligations, over {MAX_ITEMS}"
        ));
    }
    let obligations = decision
        .obligations
        .into_iter()
        .map(|obligation| {
            check_name("the kind of an obligation", &obligation.kind)?;
            if obligation.parameters.len() > MAX_PARAMETERS_BYTES {
                return Err(format!(
                    "an obligation of {} bytes",
                    obligation.parameters.len()
                ));
            }
            // An obligation that is not understood cannot be met, so it cannot be dropped either.
            match serde_json::from_str(&obligation.parameters) {
                Ok(parameters @ Value::Object(_)) => Ok(Obligation {
                    kind: obligation.kind,
                    parameters,
                }),
                _ => Err(format!(
                    "obligation `{}` whose parameters are not a JSON object",
                    obligation.kind
                )),
            }
        })
        .collect::<Result<_, _>>()?;
    Ok(Decision {
        effect: match decision.effect {
            wire::Effect::Allow => Effect::Allow,
            wire::Effect::Deny => Effect::Deny,
            wire::Effect::RequireApproval => Effect::RequireApproval,
        },
        reasons: decision
            .reasons
            .iter()
            .map(|reason| text::sentence(reason, MAX_SENTENCE_BYTES))
            .collect(),
        obligations,
    })
}

impl From<&Request> for wire::Request {
    fn from(request: &Request) -> Self {
        Self {
            control_point: match request.control_point {
                ControlPoint::PluginLoad => wire::ControlPoint::PluginLoad,
                ControlPoint::DataRead => wire::ControlPoint::DataRead,
                ControlPoint::TrainStart => wire::ControlPoint::TrainStart,
                ControlPoint::Promote => wire::ControlPoint::Promote,
                ControlPoint::Predict => wire::ControlPoint::Predict,
                ControlPoint::Archive => wire::ControlPoint::Archive,
                ControlPoint::Export => wire::ControlPoint::Export,
            },
            principal: request.principal.clone(),
            action: request.action.clone(),
            resource: request.resource.clone(),
            context: request.context.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(parameters: &str) -> wire::Decision {
        wire::Decision {
            effect: wire::Effect::Allow,
            reasons: vec!["because\u{7}".into()],
            obligations: vec![wire::Obligation {
                kind: "mask-columns".into(),
                parameters: parameters.into(),
            }],
        }
    }

    #[test]
    fn an_obligation_that_is_not_understood_is_not_dropped() {
        let good = check_decision(decision(r#"{"columns":["ssn"]}"#)).expect("an object");
        assert_eq!(good.obligations[0].parameters["columns"][0], "ssn");
        assert_eq!(good.reasons, ["because\\u{7}"]);
        assert!(check_decision(decision("[1]")).is_err());
        assert!(check_decision(decision("{")).is_err());
    }
}
