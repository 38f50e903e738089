//! Forests of decision trees, which the host trains by gradient boosting.
//!
//! ```no_run
//! use sandcast_sdk::forest::{Forest, ForestColumns, ForestExamples, ForestObjective, ForestPlan, ForestTarget};
//! use sandcast_sdk::{Failure, Trained, Training};
//!
//! fn train(training: &Training) -> Result<Trained, Failure> {
//!     let examples = ForestExamples {
//!         training: training.training_rows(),
//!         validation: training.validation_rows(),
//!         columns: ForestColumns { numbers: vec!["x".into()], categories: Vec::new() },
//!         target: ForestTarget::Number("y".into()),
//!         weight: None,
//!     };
//!     let plan = ForestPlan { rounds: 200, ..ForestPlan::new(ForestObjective::SquaredError) };
//!     let trained = Forest::train(examples, &plan, training.seed())?;
//!     Ok(Trained::new(Vec::new(), trained.forest))
//! }
//! ```

pub use crate::bindings::imports::sandcast::plugin::compute::{
    CategorySplits, Forest, ForestColumns, ForestExamples, ForestObjective, ForestPlan,
    ForestReport, ForestTarget, Importance, RoundReport, TrainedForest,
};

impl ForestPlan {
    /// A plan with the defaults of LightGBM.
    #[must_use]
    pub fn new(objective: ForestObjective) -> Self {
        Self {
            objective,
            rounds: 100,
            learning_rate: 0.1,
            max_leaves: 31,
            max_depth: None,
            min_rows: 20,
            min_hessian: 1e-3,
            l1: 0.0,
            l2: 0.0,
            min_gain: 0.0,
            max_bins: 255,
            min_rows_in_bin: 3,
            feature_fraction: 1.0,
            bagging_fraction: 1.0,
            bagging_rounds: 1,
            patience: None,
            categories: CategorySplits {
                one_vs_rest: 4,
                most: 32,
                min_rows: 100,
                smoothing: 10.0,
                l2: 10.0,
            },
            class_weights: Vec::new(),
        }
    }
}
