//! What can be set, with its defaults and bounds.

use sandcast_sdk::Failure;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use table_features::Options;

/// What the adapter takes. Every key may be left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Hyperparameters {
    /// The widths of the layers from the columns to the bottleneck; they are mirrored behind it.
    pub hidden: Vec<u32>,
    /// The width of the bottleneck; null for a quarter as many numbers as there are
    /// columns.
    pub bottleneck: Option<u32>,
    /// The share of its inputs that each training step hides from the network, from 0 to below 1,
    /// so that it learns to rebuild a column from the others.
    pub noise: f32,
    /// The most passes over the training rows.
    pub epochs: u32,
    /// Rows of one step.
    pub batch_rows: u32,
    /// The step size of AdamW at its highest; it falls by half a cosine to a hundredth.
    pub learning_rate: f32,
    /// The share of all steps over which the step size warms up, from 0 to below 1.
    pub warmup: f32,
    /// The decoupled weight decay of AdamW.
    pub weight_decay: f32,
    /// Stop after this many epochs without a better validation loss; null for never.
    pub patience: Option<u32>,
    /// Whether an error counts in multiples of what is usual for its column, so that a column that
    /// nothing foretells does not drown the others.
    pub scale_errors: bool,
    /// Numbers further than this from the mean, in standard deviations, count as this far.
    pub farthest: f32,
    /// The most categories of one string; rarer ones share one.
    pub max_categories: u32,
    /// Categories seen in fewer training rows share one.
    pub min_frequency: u32,
}

impl Default for Hyperparameters {
    fn default() -> Self {
        Self {
            hidden: vec![32],
            bottleneck: None,
            noise: 0.1,
            epochs: 50,
            batch_rows: 256,
            learning_rate: 0.003,
            warmup: 0.05,
            weight_decay: 0.0,
            patience: Some(10),
            scale_errors: true,
            farthest: 10.0,
            max_categories: 64,
            min_frequency: 5,
        }
    }
}

impl Hyperparameters {
    /// The JSON Schema of all of them, with the defaults.
    pub(crate) fn json_schema() -> String {
        schemars::schema_for!(Self).as_value().to_string()
    }

    /// How columns are read.
    pub(crate) fn options(&self) -> Options {
        Options {
            max_categories: self.max_categories,
            min_frequency: self.min_frequency,
            farthest: self.farthest,
        }
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// `invalid-config`, naming the key and the bound.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let refuse = |key: &str, message: String| Err(Failure::invalid_config(key, message));
        if self.hidden.len() > 8 {
            let message = format!("{} layers are more than 8", self.hidden.len());
            return refuse("hidden", message);
        }
        let widths = self.hidden.iter().map(|width| ("hidden", *width, 4_096));
        let whole = [
            ("epochs", self.epochs, 10_000),
            ("batch_rows", self.batch_rows, 65_536),
            ("max_categories", self.max_categories, 1_024),
            ("bottleneck", self.bottleneck.unwrap_or(1), 4_096),
            ("patience", self.patience.unwrap_or(1), u32::MAX),
        ];
        for (key, value, most) in whole.into_iter().chain(widths) {
            if !(1..=most).contains(&value) {
                return refuse(key, format!("{value} is not within 1 to {most}"));
            }
        }
        for (key, value) in [("noise", self.noise), ("warmup", self.warmup)] {
            if !(0.0..1.0).contains(&value) {
                return refuse(key, format!("{value} is not at least 0 and below 1"));
            }
        }
        for (key, value) in [
            ("learning_rate", self.learning_rate),
            ("farthest", self.farthest),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return refuse(key, "it must be finite and above 0".into());
            }
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            return refuse("weight_decay", "it must be finite and not negative".into());
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
    fn what_is_out_of_bounds_is_named() {
        for (json, message) in [
            (r#"{"hiden": [1]}"#, "unknown field `hiden`"),
            (r#"{"hidden": [0]}"#, "`hidden`: 0 is not within 1 to 4096"),
            (r#"{"bottleneck": 0}"#, "`bottleneck`"),
            (
                r#"{"noise": 1}"#,
                "`noise`: 1 is not at least 0 and below 1",
            ),
            (r#"{"learning_rate": 0}"#, "`learning_rate`"),
            (r#"{"farthest": -1}"#, "`farthest`"),
            (r#"{"weight_decay": -1}"#, "`weight_decay`"),
            (r#"{"patience": 0}"#, "`patience`"),
            (r#"{"epochs": 0}"#, "`epochs`"),
        ] {
            let failure = parsed(json).expect_err(json);
            assert!(failure.message.contains(message), "{}", failure.message);
        }
        assert!(parsed(r#"{"bottleneck": null, "patience": null, "hidden": []}"#).is_ok());
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
