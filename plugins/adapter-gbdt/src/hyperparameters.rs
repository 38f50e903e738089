//! What can be set, with its defaults and bounds. The names are those of LightGBM; the names of
//! XGBoost and scikit-learn for the same things are understood too.

use std::collections::BTreeMap;

use sandcast_sdk::Failure;
use sandcast_sdk::forest::{CategorySplits, ForestObjective, ForestPlan};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the adapter takes. Every key may be left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Hyperparameters {
    /// The most rounds of boosting; each grows a tree, or one for each of several classes.
    #[serde(alias = "n_estimators", alias = "num_boost_round", alias = "num_trees")]
    pub num_iterations: u32,
    /// What each tree's step is multiplied by.
    #[serde(alias = "eta", alias = "shrinkage_rate")]
    pub learning_rate: f32,
    /// The most leaves of a tree; the leaf that gains most is split next.
    #[serde(alias = "max_leaves", alias = "max_leaf_nodes")]
    pub num_leaves: u32,
    /// The most splits above a leaf; null for no bound.
    pub max_depth: Option<u32>,
    /// Rows that a leaf needs.
    #[serde(alias = "min_child_samples", alias = "min_samples_leaf")]
    pub min_data_in_leaf: u32,
    /// The sum of second derivatives that a leaf needs.
    #[serde(alias = "min_child_weight")]
    pub min_sum_hessian_in_leaf: f32,
    /// The L1 term of leaf values.
    #[serde(alias = "reg_alpha")]
    pub lambda_l1: f32,
    /// The L2 term of leaf values.
    #[serde(alias = "reg_lambda", alias = "lambda", alias = "l2_regularization")]
    pub lambda_l2: f32,
    /// What a split must gain.
    #[serde(alias = "min_split_gain", alias = "min_split_loss", alias = "gamma")]
    pub min_gain_to_split: f32,
    /// Bins that a column of numbers is cut into, and categories of a string that are kept apart,
    /// the most frequent ones; 2 to 255.
    #[serde(alias = "max_bins")]
    pub max_bin: u32,
    /// Rows that a bin of a column of numbers should have.
    pub min_data_in_bin: u32,
    /// The share of columns that a tree may use, drawn for each.
    #[serde(alias = "colsample_bytree", alias = "sub_feature")]
    pub feature_fraction: f32,
    /// The share of rows that a tree is grown on.
    #[serde(alias = "subsample", alias = "bagging")]
    pub bagging_fraction: f32,
    /// Rounds after which the rows are drawn anew.
    #[serde(alias = "subsample_freq")]
    pub bagging_freq: u32,
    /// Stop after this many rounds without a better validation loss; null for never.
    #[serde(alias = "early_stopping_rounds", alias = "n_iter_no_change")]
    pub early_stopping_round: Option<u32>,
    /// Up to so many categories in a node, each is tried against the rest.
    pub max_cat_to_onehot: u32,
    /// The most categories on the smaller side of a split.
    pub max_cat_threshold: u32,
    /// Rows that a group of categories needs.
    pub min_data_per_group: u32,
    /// What keeps rare categories from deciding: added to their second derivatives.
    pub cat_smooth: f32,
    /// The L2 term by which splits of categories are judged, on top of `lambda_l2`.
    pub cat_l2: f32,
    /// Weights of the classes in the loss.
    #[serde(alias = "class_weight")]
    pub class_weights: ClassWeights,
    /// What a regression minimises.
    pub regression_loss: RegressionLoss,
    /// Where the Huber loss turns from a square into a line, in units of the target.
    #[serde(alias = "alpha")]
    pub huber_delta: f32,
}

impl Default for Hyperparameters {
    fn default() -> Self {
        Self {
            num_iterations: 500,
            learning_rate: 0.05,
            num_leaves: 31,
            max_depth: None,
            min_data_in_leaf: 20,
            min_sum_hessian_in_leaf: 1e-3,
            lambda_l1: 0.0,
            lambda_l2: 0.0,
            min_gain_to_split: 0.0,
            max_bin: 255,
            min_data_in_bin: 3,
            feature_fraction: 1.0,
            bagging_fraction: 1.0,
            bagging_freq: 1,
            early_stopping_round: Some(50),
            max_cat_to_onehot: 4,
            max_cat_threshold: 32,
            min_data_per_group: 100,
            cat_smooth: 10.0,
            cat_l2: 10.0,
            class_weights: ClassWeights::Named(NamedWeights::None),
            regression_loss: RegressionLoss::Squared,
            huber_delta: 1.0,
        }
    }
}

/// What a regression minimises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RegressionLoss {
    /// The squared error.
    #[serde(alias = "l2", alias = "squared_error")]
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
        for (key, value, least, most) in [
            ("num_iterations", self.num_iterations, 1, 100_000),
            ("num_leaves", self.num_leaves, 2, 8_192),
            ("max_depth", self.max_depth.unwrap_or(1), 1, 1_024),
            ("min_data_in_leaf", self.min_data_in_leaf, 1, u32::MAX),
            ("max_bin", self.max_bin, 2, 255),
            ("min_data_in_bin", self.min_data_in_bin, 1, u32::MAX),
            ("bagging_freq", self.bagging_freq, 1, u32::MAX),
            (
                "early_stopping_round",
                self.early_stopping_round.unwrap_or(1),
                1,
                u32::MAX,
            ),
            ("max_cat_threshold", self.max_cat_threshold, 1, 255),
        ] {
            if !(least..=most).contains(&value) {
                return refuse(key, format!("{value} is not within {least} to {most}"));
            }
        }
        for (key, value) in [
            ("feature_fraction", self.feature_fraction),
            ("bagging_fraction", self.bagging_fraction),
        ] {
            if !(value > 0.0 && value <= 1.0) {
                return refuse(key, format!("{value} is not above 0 and at most 1"));
            }
        }
        for (key, value) in [
            ("learning_rate", self.learning_rate),
            ("huber_delta", self.huber_delta),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return refuse(key, "it must be finite and above 0".into());
            }
        }
        for (key, value) in [
            ("min_sum_hessian_in_leaf", self.min_sum_hessian_in_leaf),
            ("lambda_l1", self.lambda_l1),
            ("lambda_l2", self.lambda_l2),
            ("min_gain_to_split", self.min_gain_to_split),
            ("cat_smooth", self.cat_smooth),
            ("cat_l2", self.cat_l2),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return refuse(key, "it must be finite and not negative".into());
            }
        }
        Ok(())
    }

    /// The plan of a forest that minimises this.
    pub(crate) fn plan(&self, objective: ForestObjective, class_weights: Vec<f32>) -> ForestPlan {
        ForestPlan {
            objective,
            rounds: self.num_iterations,
            learning_rate: self.learning_rate,
            max_leaves: self.num_leaves,
            max_depth: self.max_depth,
            min_rows: self.min_data_in_leaf,
            min_hessian: self.min_sum_hessian_in_leaf,
            l1: self.lambda_l1,
            l2: self.lambda_l2,
            min_gain: self.min_gain_to_split,
            max_bins: self.max_bin,
            min_rows_in_bin: self.min_data_in_bin,
            feature_fraction: self.feature_fraction,
            bagging_fraction: self.bagging_fraction,
            bagging_rounds: self.bagging_freq,
            patience: self.early_stopping_round,
            categories: CategorySplits {
                one_vs_rest: self.max_cat_to_onehot,
                most: self.max_cat_threshold,
                min_rows: self.min_data_per_group,
                smoothing: self.cat_smooth,
                l2: self.cat_l2,
            },
            class_weights,
        }
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
    fn names_of_other_programs_mean_the_same() {
        let named = parsed(
            r#"{"n_estimators": 7, "eta": 0.5, "max_leaves": 9, "min_child_samples": 3,
                "min_child_weight": 2, "reg_alpha": 0.1, "reg_lambda": 0.2, "gamma": 0.3,
                "colsample_bytree": 0.4, "subsample": 0.6, "early_stopping_rounds": 4}"#,
        );
        let expected = Hyperparameters {
            num_iterations: 7,
            learning_rate: 0.5,
            num_leaves: 9,
            min_data_in_leaf: 3,
            min_sum_hessian_in_leaf: 2.0,
            lambda_l1: 0.1,
            lambda_l2: 0.2,
            min_gain_to_split: 0.3,
            feature_fraction: 0.4,
            bagging_fraction: 0.6,
            early_stopping_round: Some(4),
            ..Hyperparameters::default()
        };
        assert_eq!(named.expect("known names"), expected);
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
        let failure = weights("\"even\"").expect_err("no such rule");
        assert!(failure.message.contains("\"balanced\""), "{failure:?}");
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        for (json, message) in [
            (r#"{"leaves": 1}"#, "unknown field `leaves`"),
            (
                r#"{"num_leaves": 1}"#,
                "`num_leaves`: 1 is not within 2 to 8192",
            ),
            (
                r#"{"max_bin": 256}"#,
                "`max_bin`: 256 is not within 2 to 255",
            ),
            (r#"{"max_depth": 0}"#, "`max_depth`"),
            (r#"{"early_stopping_round": 0}"#, "`early_stopping_round`"),
            (
                r#"{"feature_fraction": 0}"#,
                "`feature_fraction`: 0 is not above 0 and at most 1",
            ),
            (r#"{"bagging_fraction": 1.5}"#, "`bagging_fraction`"),
            (
                r#"{"learning_rate": 0}"#,
                "`learning_rate`: it must be finite and above 0",
            ),
            (
                r#"{"lambda_l2": -1}"#,
                "`lambda_l2`: it must be finite and not negative",
            ),
            (r#"{"num_iterations": 1.5}"#, "`num_iterations`"),
            (
                r#"{"regression_loss": "cubic"}"#,
                "`regression_loss`: unknown variant `cubic`",
            ),
        ] {
            let failure = parsed(json).expect_err(json);
            assert!(failure.message.contains(message), "{}", failure.message);
        }
        assert!(parsed(r#"{"max_depth": null, "early_stopping_round": null}"#).is_ok());
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
