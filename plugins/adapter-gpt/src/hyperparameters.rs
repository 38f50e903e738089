//! What can be set, with its defaults and bounds.

use sandcast_sdk::Failure;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the adapter takes. Every key may be left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Hyperparameters {
    /// What a token is.
    pub tokenizer: TokenizerKind,
    /// The most tokens that are told apart, the end of a text among them.
    pub vocabulary_size: u32,
    /// Blocks of attention and feed-forward, one after the other.
    pub layers: u32,
    /// Numbers that stand for a position between two blocks.
    pub width: u32,
    /// Heads of each attention; a divisor of the width.
    pub heads: u32,
    /// Heads of keys and values, a divisor of the heads; null for as many as there are heads.
    pub key_heads: Option<u32>,
    /// The most tokens that the next one depends on.
    pub context: u32,
    /// How a position is told from another.
    pub positions: Positions,
    /// What stands before each attention and feed-forward.
    pub norm: Norm,
    /// What follows each attention.
    pub feed_forward: FeedForward,
    /// The width of the hidden layer in it; null for 4 times the width, or 8/3 times with swiglu.
    pub feed_forward_width: Option<u32>,
    /// The share of each layer that a training step leaves out, from 0 to below 1.
    pub dropout: f32,
    /// Whether the table that tokens are read from is also the one that they are chosen by.
    pub tied: bool,
    /// Stretches of text of one step, each as long as the context.
    pub batch_rows: u32,
    /// Training steps.
    pub steps: u32,
    /// The step size of AdamW at its highest.
    pub learning_rate: f32,
    /// Steps over which it rises.
    pub warmup_steps: u32,
    /// The share of it that half a cosine ends with, from 0 to 1.
    pub learning_rate_floor: f32,
    /// The decoupled weight decay of AdamW.
    pub weight_decay: f32,
    /// How slowly AdamW forgets the size of gradients, from 0 to below 1.
    pub beta2: f32,
    /// Gradients are scaled down to this global norm; null for none.
    pub clip_norm: Option<f32>,
    /// Steps between two looks at the validation loss.
    pub validation_interval: u32,
    /// The most stretches of text that the validation loss is measured on.
    pub validation_windows: u32,
    /// Stop after so many looks without a better validation loss and return to the best; null for
    /// never.
    pub patience: Option<u32>,
}

impl Default for Hyperparameters {
    fn default() -> Self {
        Self {
            tokenizer: TokenizerKind::BytePairs,
            vocabulary_size: 2_048,
            layers: 4,
            width: 128,
            heads: 4,
            key_heads: None,
            context: 128,
            positions: Positions::Rotary,
            norm: Norm::Rms,
            feed_forward: FeedForward::Gelu,
            feed_forward_width: None,
            dropout: 0.0,
            tied: true,
            batch_rows: 16,
            steps: 2_000,
            learning_rate: 0.002,
            warmup_steps: 100,
            learning_rate_floor: 0.1,
            weight_decay: 0.1,
            beta2: 0.99,
            clip_norm: Some(1.0),
            validation_interval: 250,
            validation_windows: 512,
            patience: None,
        }
    }
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TokenizerKind {
    /// A character that the training texts have; others are one token that stands for any of them.
    Characters,
    /// Bytes, and the pairs that the training texts have most (Sennrich, Haddow and Birch 2016).
    BytePairs,
}

/// How a position is told from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Positions {
    /// A learnt row for each position is added to its token.
    Learned,
    /// Queries and keys are turned by their position (Su et al. 2021).
    Rotary,
}

/// What stands before each attention and feed-forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Norm {
    /// The root-mean-square norm.
    Rms,
    /// The layer norm.
    Layer,
}

/// What follows each attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FeedForward {
    /// A hidden layer with gelu.
    Gelu,
    /// A hidden layer gated by silu of another (Shazeer 2020).
    Swiglu,
}

impl Hyperparameters {
    /// The JSON Schema of all of them, with the defaults.
    pub(crate) fn json_schema() -> String {
        schemars::schema_for!(Self).as_value().to_string()
    }

    /// Heads of keys and values.
    pub(crate) fn key_heads(&self) -> u32 {
        self.key_heads.unwrap_or(self.heads)
    }

    /// The width of the hidden layer.
    pub(crate) fn hidden(&self) -> u32 {
        self.feed_forward_width.unwrap_or(match self.feed_forward {
            FeedForward::Gelu => 4 * self.width,
            FeedForward::Swiglu => (8 * self.width).div_ceil(3).next_multiple_of(16),
        })
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// `invalid-config`, naming the key and the bound.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let whole = |key: &str, value: u32, least: u32, most: u32| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(Failure::invalid_config(
                key,
                format!("{value} is not within {least} to {most}"),
            ))
        };
        let least_tokens = match self.tokenizer {
            TokenizerKind::Characters => 3,
            TokenizerKind::BytePairs => 257,
        };
        whole(
            "vocabulary_size",
            self.vocabulary_size,
            least_tokens,
            65_536,
        )?;
        whole("layers", self.layers, 1, 48)?;
        whole("width", self.width, 2, 4_096)?;
        whole("heads", self.heads, 1, 64)?;
        whole("key_heads", self.key_heads(), 1, self.heads)?;
        whole("context", self.context, 2, 8_192)?;
        whole("feed_forward_width", self.hidden(), 1, 65_536)?;
        whole("batch_rows", self.batch_rows, 1, 4_096)?;
        whole("steps", self.steps, 1, 10_000_000)?;
        whole(
            "validation_interval",
            self.validation_interval,
            1,
            1_000_000,
        )?;
        whole("validation_windows", self.validation_windows, 1, 65_536)?;
        let refuse = |key: &str, message: String| Err(Failure::invalid_config(key, message));
        if !self.width.is_multiple_of(self.heads) {
            return refuse(
                "heads",
                format!("{} do not divide the width of {}", self.heads, self.width),
            );
        }
        if self.positions == Positions::Rotary && !(self.width / self.heads).is_multiple_of(2) {
            let each = self.width / self.heads;
            return refuse(
                "heads",
                format!("each is {each} wide; positions turn pairs, so make it an even number"),
            );
        }
        if !self.heads.is_multiple_of(self.key_heads()) {
            return refuse(
                "key_heads",
                format!(
                    "{} do not divide the {} heads",
                    self.key_heads(),
                    self.heads
                ),
            );
        }
        for (key, value) in [("dropout", self.dropout), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&value) {
                return refuse(key, format!("{value} is not at least 0 and below 1"));
            }
        }
        if !(0.0..=1.0).contains(&self.learning_rate_floor) {
            let message = format!("{} is not 0 to 1", self.learning_rate_floor);
            return refuse("learning_rate_floor", message);
        }
        let above_zero = [
            ("learning_rate", Some(self.learning_rate)),
            ("clip_norm", self.clip_norm),
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
    fn what_is_out_of_bounds_is_named() {
        for (json, message) in [
            (r#"{"layer": 1}"#, "unknown field `layer`"),
            (r#"{"layers": 0}"#, "`layers`: 0 is not within 1 to 48"),
            (
                r#"{"heads": 3}"#,
                "`heads`: 3 do not divide the width of 128",
            ),
            (r#"{"width": 12, "heads": 4}"#, "each is 3 wide"),
            (
                r#"{"key_heads": 3}"#,
                "`key_heads`: 3 do not divide the 4 heads",
            ),
            (r#"{"key_heads": 8}"#, "`key_heads`"),
            (
                r#"{"vocabulary_size": 256}"#,
                "`vocabulary_size`: 256 is not within 257",
            ),
            (
                r#"{"dropout": 1}"#,
                "`dropout`: 1 is not at least 0 and below 1",
            ),
            (
                r#"{"learning_rate": 0}"#,
                "`learning_rate`: it must be finite",
            ),
            (r#"{"learning_rate_floor": 2}"#, "`learning_rate_floor`"),
            (r#"{"patience": 0}"#, "`patience`"),
            (
                r#"{"tokenizer": "words"}"#,
                "`tokenizer`: unknown variant `words`",
            ),
        ] {
            let failure = parsed(json).expect_err(json);
            assert!(failure.message.contains(message), "{}", failure.message);
        }
        assert!(parsed(r#"{"tokenizer": "characters", "vocabulary_size": 3}"#).is_ok());
        assert!(parsed(r#"{"positions": "learned", "width": 12, "heads": 4}"#).is_ok());
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
