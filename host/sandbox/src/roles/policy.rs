//! Decides what may happen.

use serde::{Deserialize, Serialize};

use crate::call::CallError;

/// Where in the line the question is asked.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
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
    pub context: serde_json::Value,
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
    pub parameters: serde_json::Value,
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

/// An instance that decides.
pub struct Policy {
    _private: (),
}

impl Policy {
    /// May this happen? Whoever asks records the answer.
    ///
    /// # Errors
    /// See [`CallError`]. Without an answer nothing may happen.
    pub async fn decide(&mut self, request: &Request) -> Result<Decision, CallError> {
        let _ = request;
        unimplemented!()
    }
}

impl Policy {
    /// Ends the instance and says what it used.
    pub fn finish(self) -> crate::call::Usage {
        unimplemented!()
    }
}
