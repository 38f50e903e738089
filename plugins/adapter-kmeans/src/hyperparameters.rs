//! What can be set, with its defaults and bounds.

use sandcast_sdk::Failure;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use table_features::Options;

/// What the adapter takes. Every key may be left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Hyperparameters {
    /// How many clusters there are.
    pub clusters: u32,
    /// How often it begins anew with other centres; the best is kept.
    pub restarts: u32,
    /// The most passes over the training rows of one beginning.
    pub iterations: u32,
    /// Stop when the squared way of all centres in a pass is less than this share of the variance
    /// of the rows.
    pub tolerance: f64,
    /// How far apart two strings that differ are, in standard deviations of a number.
    pub category_distance: f32,
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
            clusters: 8,
            restarts: 4,
            iterations: 100,
            tolerance: 1e-4,
            category_distance: 1.0,
            farthest: 10.0,
            max_categories: 32,
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
        for (key, value, least, most) in [
            ("clusters", self.clusters, 2, 1_024),
            ("restarts", self.restarts, 1, 100),
            ("iterations", self.iterations, 1, 10_000),
            ("max_categories", self.max_categories, 1, 1_024),
        ] {
            if !(least..=most).contains(&value) {
                return refuse(key, format!("{value} is not within {least} to {most}"));
            }
        }
        if !(self.tolerance.is_finite() && self.tolerance >= 0.0) {
            return refuse("tolerance", "it must be finite and not negative".into());
        }
        for (key, value) in [
            ("category_distance", self.category_distance),
            ("farthest", self.farthest),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return refuse(key, "it must be finite and above 0".into());
            }
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
            (r#"{"k": 3}"#, "unknown field `k`"),
            (
                r#"{"clusters": 1}"#,
                "`clusters`: 1 is not within 2 to 1024",
            ),
            (r#"{"clusters": 2000}"#, "`clusters`"),
            (r#"{"restarts": 0}"#, "`restarts`"),
            (r#"{"iterations": 0}"#, "`iterations`"),
            (r#"{"tolerance": -1}"#, "`tolerance`"),
            (r#"{"category_distance": 0}"#, "`category_distance`"),
            (r#"{"farthest": 0}"#, "`farthest`"),
        ] {
            let failure = parsed(json).expect_err(json);
            assert!(failure.message.contains(message), "{}", failure.message);
        }
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
