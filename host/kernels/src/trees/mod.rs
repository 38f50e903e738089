//! Forests of decision trees, trained by gradient boosting over histograms (Friedman 2001; Chen
//! and Guestrin 2016; Ke et al. 2017).
//!
//! The flow is [`Table`] -> [`Forest::train`] -> [`Forest::predict`]. Columns are cut into bins
//! once; a tree is grown leaf by leaf from the sums of gradients and hessians in each bin.
//!
//! What always holds:
//!
//! 1. The same rows, plan and seed give the same bits, at any number of threads: sums of
//!    gradients are whole numbers, which add up to the same in any order, and the sums of a
//!    child are exactly those of its parent less those of the other child.
//! 2. A row goes the same way in training and in prediction, and has the same bits alone and
//!    among others.
//! 3. A forest from bytes was checked whole: children come after their parents, each once, and
//!    every number that selects something was compared with what there is.
//!
//! ```
//! use std::ops::ControlFlow;
//!
//! use sandcast_kernels::trees::*;
//!
//! // 1 where x is above 10.
//! let x: Vec<f32> = (0..100).map(|row| row as f32 / 5.0).collect();
//! let labels: Vec<i32> = x.iter().map(|x| i32::from(*x > 10.0)).collect();
//! let rows = Examples {
//!     table: Table::new(100, (1, &x), (0, &[]))?,
//!     targets: Targets::Labels(&labels),
//!     weights: None,
//! };
//! let plan = ForestPlan { objective: Objective::Logistic, ..ForestPlan::default() };
//! let workers = Workers::start(None)?;
//! let job = ForestJob {
//!     training: rows,
//!     validation: None,
//!     plan: &plan,
//!     caps: &ForestCaps::default(),
//!     seed: 7,
//! };
//! let go_on = &mut |_: ForestProgress<'_>| ControlFlow::Continue(());
//! let (forest, report) = Forest::train(&job, &workers, go_on)?;
//! assert_eq!(report.rounds.len(), 100);
//! let shares = forest.predict(&Table::new(2, (1, &[2.0, 17.0]), (0, &[]))?, &workers)?;
//! assert!(shares[0] < 0.01 && shares[1] > 0.99);
//! # Ok::<(), ForestError>(())
//! ```

mod bins;
mod boost;
mod error;
mod file;
mod forest;
mod grow;
mod objective;
mod plan;
mod split;
mod table;
mod workers;

pub use boost::{ForestJob, ForestProgress, ForestReport, ForestWatch, RoundReport};
pub use error::ForestError;
pub use forest::{Forest, Importance};
pub use plan::{CategoryPlan, ForestCaps, ForestPlan, Objective, TableSize};
pub use table::{Examples, Table, Targets};
pub use workers::Workers;
