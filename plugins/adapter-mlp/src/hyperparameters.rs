//! What can be set, with its defaults and bounds.

use std::collections::BTreeMap;

use sandcast_sdk::Failure;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the adapter takes. Every key may be left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Hyperparameters {
    /// The widths of the hidden layers; none for a linear model.
    pub hidden: Vec<u32>,
    /// What follows each hidden layer.
    pub activation: Activation,
    /// The share of a hidden layer that each training step leaves out, from 0 to below 1.
    pub dropout: f32,
    /// The most passes over the training rows.
    pub epochs: u32,
    /// Rows of one step.
    pub batch_rows: u32,
    /// The step size of AdamW at its highest.
    pub learning_rate: f32,
    /// How the step size changes.
    pub schedule: ScheduleKind,
    /// The share of all steps over which a cosine schedule warms up, from 0 to below 1.
    pub warmup: f32,
    /// The decoupled weight decay of AdamW.
    pub weight_decay: f32,
    /// Gradients are scaled down to this global norm; null for none.
    pub clip_norm: Option<f32>,
    /// Stop after this many epochs without a better validation loss; null for never.
    pub patience: Option<u32>,
    /// Weights of the classes in the loss.
    pub class_weights: ClassWeights,
    /// What stands in for a number that is missing.
    pub impute: Impute,
    /// Whether a nullable number gets a second input that says that it is missing.
    pub missing_indicators: bool,
    /// Pieces of a number's range that get an input each; 0 for none. All numbers together get
    /// at most 2,048.
    pub pieces: u32,
    /// Categories of a string that still get an input each; more of them are embedded.
    pub one_hot_limit: u32,
    /// The most categories of one string; rarer ones share one.
    pub max_categories: u32,
    /// Categories seen in fewer training rows share one.
    pub min_frequency: u32,
    /// The widest embedding. A string of n categories gets 1.6 n^0.56, at most this.
    pub max_embedding: u32,
    /// What a regression minimises.
    pub regression_loss: RegressionLoss,
    /// Where the Huber loss turns from a square into a line, in standard deviations of the target.
    pub huber_delta: f32,
}

impl Default for Hyperparameters {
    fn default() -> Self {
        Self {
            hidden: vec![128, 64],
            activation: Activation::Silu,
            dropout: 0.2,
            epochs: 20,
            batch_rows: 256,
            learning_rate: 0.002,
            schedule: ScheduleKind::Cosine,
            warmup: 0.05,
            weight_decay: 0.01,
            clip_norm: Some(1.0),
            patience: Some(10),
            class_weights: ClassWeights::Named(NamedWeights::None),
            impute: Impute::Mean,
            missing_indicators: true,
            pieces: 48,
            one_hot_limit: 32,
            max_categories: 1_000,
            min_frequency: 5,
            max_embedding: 50,
            regression_loss: RegressionLoss::Squared,
            huber_delta: 1.0,
        }
    }
}

/// What follows a hidden layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// max(x, 0).
    Relu,
    /// x times the normal distribution function.
    Gelu,
    /// x times the logistic function.
    Silu,
    /// The hyperbolic tangent.
    Tanh,
}

/// How the step size changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleKind {
    /// It does not.
    Constant,
    /// A linear warm-up, then half a cosine down to a hundredth.
    Cosine,
}

/// What stands in for a number that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Impute {
    /// The mean of the training rows.
    Mean,
    /// Their median, from a sample of at most 65,536.
    Median,
}

/// What a regression minimises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RegressionLoss {
    /// The squared error.
    Squared,
    /// Huber's loss, which minds outliers less.
    Huber,
}

/// Weights of the classes in the loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "class weights are \"none\", \"balanced\" or a weight for each class"
)]
pub enum ClassWeights {
    /// By a rule.
    Named(NamedWeights),
    /// A weight for each class.
    Explicit(BTreeMap<String, f32>),
}

/// A rule for the weights of the classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NamedWeights {
    /// Every row counts the same.
    None,
    /// Every class counts the same: rows / (classes * rows of the class).
    Balanced,
}

impl Hyperparameters {
    /// The JSON Schema of all of them, with the defaults.
    pub(crate) fn json_schema() -> String {
        schemars::schema_for!(Self).as_value().to_string()
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// `invalid-config`, naming the key and the bound.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let refuse = |key: &str, message: String| Err(Failure::invalid_config(key, message));
        let whole = |key: &str, value: u32, least: u32, most: u32| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(Failure::invalid_config(
                key,
                format!("{value} is not within {least} to {most}"),
            ))
        };
        let share = |key: &str, value: f32| {
            if (0.0..1.0).contains(&value) {
                return Ok(());
            }
            Err(Failure::invalid_config(
                key,
                format!("{value} is not at least 0 and below 1"),
            ))
        };
        if self.hidden.len() > 16 {
            return refuse(
                "hidden",
                format!("{} layers are more than 16", self.hidden.len()),
            );
        }
        for width in &self.hidden {
            whole("hidden", *width, 1, 8_192)?;
        }
        share("dropout", self.dropout)?;
        share("warmup", self.warmup)?;
        whole("epochs", self.epochs, 1, 10_000)?;
        whole("batch_rows", self.batch_rows, 1, 65_536)?;
        whole("pieces", self.pieces, 0, 256)?;
        whole("one_hot_limit", self.one_hot_limit, 0, 1_024)?;
        whole("max_categories", self.max_categories, 1, 100_000)?;
        whole("max_embedding", self.max_embedding, 1, 512)?;
        let above_zero = [
            ("learning_rate", Some(self.learning_rate)),
            ("clip_norm", self.clip_norm),
            ("huber_delta", Some(self.huber_delta)),
        ];
        for (key, value) in above_zero {
            if value.is_some_and(|value| !(value.is_finite() && value > 0.0)) {
                return refuse(key, "it must be finite and above 0".into());
            }
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            return refuse("weight_decay", "it must be finite and not negative".into());
        }
        if self.patience == Some(0) {
            return refuse("patience", "it must be at least 1, or null".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &str) -> Result<Hyperparameters, Failure> {
        sandcast_sdk::config::parse::<Hyperparameters>(json).and_then(|it| it.check().map(|()| it))
    }

    #[test]
    fn everything_has_a_default_within_bounds() {
        assert_eq!(parsed("{}").expect("defaults"), Hyperparameters::default());
    }

    #[test]
    fn class_weights_are_a_rule_or_a_weight_each() {
        let weights = |json: &str| {
            parsed(&format!("{{\"class_weights\": {json}}}")).map(|it| it.class_weights)
        };
        assert_eq!(
            weights("\"balanced\"").expect("a rule"),
            ClassWeights::Named(NamedWeights::Balanced)
        );
        let explicit =
            ClassWeights::Explicit(BTreeMap::from([("no".into(), 1.0), ("yes".into(), 3.5)]));
        assert_eq!(
            weights(r#"{"no": 1, "yes": 3.5}"#).expect("weights"),
            explicit
        );
        assert!(
            weights("\"even\"")
                .expect_err("no such rule")
                .message
                .contains("\"balanced\"")
        );
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        for (json, message) in [
            (r#"{"hiden": [1]}"#, "unknown field `hiden`"),
            (r#"{"hidden": [0]}"#, "`hidden`: 0 is not within 1 to 8192"),
            (
                r#"{"dropout": 1}"#,
                "`dropout`: 1 is not at least 0 and below 1",
            ),
            (
                r#"{"learning_rate": 0}"#,
                "`learning_rate`: it must be finite and above 0",
            ),
            (r#"{"clip_norm": -1}"#, "`clip_norm`"),
            (r#"{"patience": 0}"#, "`patience`"),
            (
                r#"{"activation": "sine"}"#,
                "`activation`: unknown variant `sine`",
            ),
            (r#"{"epochs": 1.5}"#, "`epochs`"),
        ] {
            let failure = parsed(json).expect_err(json);
            assert!(failure.message.contains(message), "{}", failure.message);
        }
        assert!(parsed(r#"{"clip_norm": null, "patience": null, "hidden": []}"#).is_ok());
    }

    #[test]
    fn the_schema_lists_every_key_with_its_default() {
        let schema: serde_json::Value =
            serde_json::from_str(&Hyperparameters::json_schema()).expect("JSON");
        let defaults = serde_json::to_value(Hyperparameters::default()).expect("JSON");
        let properties = schema["properties"].as_object().expect("properties");
        for (key, value) in defaults.as_object().expect("an object") {
            assert_eq!(&properties[key]["default"], value, "{key}");
            assert!(properties[key]["description"].is_string(), "{key}");
        }
        assert_eq!(schema["additionalProperties"], false);
    }
}
