//! From a pipeline file to a registered model.
//!
//! [`config`] reads the file, [`plan`] says what will be done, [`run`](mod@run) does it: stage by stage,
//! each stage kept by the digest of everything that went in, and nothing registered that the
//! [`gate`] has not approved. [`registry`] knows the models, [`inference`] asks them,
//! [`declare`](mod@declare) asks an adapter what it would train.

mod clock;
pub mod conduct;
pub mod config;
pub mod declare;
pub mod gate;
pub mod inference;
pub mod metrics;
pub mod plan;
pub mod registry;
pub mod report;
pub mod run;
pub mod stages;
mod state;
mod usage;
pub mod workspace;

pub use config::{ConfigError, Pipeline};
pub use declare::{DeclareError, Declared, declare};
pub use inference::{Generated, InferenceError, Predicted, RowsError, ServedModel, check_trust};
pub use plan::{Plan, PlanError};
pub use registry::{
    ApprovedMove, HeldModels, ModelSummary, ModelVersion, Registry, RegistryError, Vouched,
    hold_models,
};
pub use run::{
    AskToPromote, CHECKPOINT_EVERY, Observer, PlanCheck, RunError, RunEvent, RunOptions,
    RunOutcome, run,
};
pub use state::{
    DatasetRecord, OutboxError, RunRecord, RunStatus, StageRecord, StageStatus, StateError,
};
pub use usage::{PluginUsage, usage_in};
pub use workspace::{PLUGIN_STATE_FILE, Workspace, WorkspaceError, plan_in};
