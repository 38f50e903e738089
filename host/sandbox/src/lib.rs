//! The WebAssembly sandbox: third-party parts of the line run here and nowhere else.
//!
//! [`Sandbox::load`] takes a component, the role it is to play and what the operator grants it,
//! and refuses it before compiling when it asks for more. A [`Plugin`] makes instances, one Store
//! each: [`Connector`], [`Validator`], [`Policy`], [`Adapter`]. Whatever an instance returns is
//! bounded, then checked, then converted. A trap, a timeout or a denial is a [`CallError`] and
//! ends that instance only.

mod bindings;
mod cache;
mod call;
mod capabilities;
mod certify;
mod code;
mod columns;
mod conduct;
mod contract;
mod database;
mod diff;
mod effect;
mod engine;
mod fairness;
#[doc(hidden)]
pub mod fuzzing;
mod grants;
mod inspect;
mod instance;
mod ledger;
mod limits;
mod load;
mod manifest;
mod model;
mod plugin;
pub mod process;
mod recording;
mod risk;
mod roles;
mod sandbox;
mod signature;
mod state;
mod tally;
#[cfg(test)]
mod testing;
mod text;

pub use sandcast_kernels::graph::Graph;
pub use sandcast_kernels::trees::ForestPlan;
pub use sandcast_kernels::{DeviceChoice, DeviceOptions, Precision};

pub use call::{CallError, Failure, FailureCode, Usage};
pub use capabilities::{CapabilityView, capabilities};
pub use certify::{
    Certificate, CertificateError, Demand, Examination, TRIALS_VERSION, Trial, TrialError,
    TrialOptions, Verdict as TrialVerdict, examine,
};
pub use columns::{ConformError, conform};
pub use conduct::{Bounds, RowBounds, StageBounds, egress_of};
pub use database::write_ahead;
pub use diff::{Changes, FactChange, InspectionDiff, Side, diff};
pub use fairness::Fairness;
pub use grants::{
    Access, BlobGrant, BlobStore, ByteSize, Capability, Ceiling, CeilingVersion, Checkpointing,
    ComputeDevice, ComputeGrant, Excess, FileGrant, FileQuota, Grants, HttpCredential, HttpGrant,
    HttpMethod, HttpScheme, Isolation, KeptBucket, KeptError, KeptPair, KeptState, Limits,
    LogGrant, LogLevel, PostgresServer, RandomGrant, RecordingGrant, SecretSource, SqlAccess,
    SqlConnection, SqlGrant, StateGrant, StoreCredentials, StoreUrl, TimeSpan,
};
pub use inspect::{Import, Inspection, inspect};
pub use instance::STRAYED;
pub use load::{LoadError, Origin};
pub use manifest::{AdapterFacts, CapabilityRequest, Manifest, Role};
pub use model::{Field, Kind, Model, ModelError, Task, TaskKind, fields_of, schema_of};
pub use plugin::{CallContext, Plugin};
pub use recording::{
    Call, Divergence, HostCall, Outcome, RecordedCall, Recording, RecordingError, Recordings,
    Replay, ReplayError, ReplayedCall, replay,
};
pub use risk::{Risk, RiskFactor, RiskLevel, RiskReason, Surroundings, risk};
pub use roles::{
    Adapter, Chunk, Comparison, Connector, ControlPoint, Cost, Decision, Declaration, Description,
    Effect, EpochReport, Filter, Finding, GenerationOptions, Literal, Obligation, Policy,
    ProgressSink, Reject, Request, Rule, ScanRequest, Severity, Split, TextSink, TrainInput,
    TrainProgress, TrainReport, Trained, Validator, Verdict,
};
pub use sandbox::{OperatorRules, Pooling, Sandbox, SandboxConfig, SandboxError};
// Of Sigstore's files, so that whoever reads them knows where to stop.
pub use sandcast_sigstore::{MAX_BUNDLE_BYTES, MAX_ROOT_BYTES};
pub use signature::{
    IdentityRule, OperatorFile, OperatorFileError, RuleProblem, SignatureError, Signatures,
    Signers, TrustRule, check_trust, sign, sign_operator_file, signers, verify, verify_bundle,
    verify_operator_file,
};
pub use tally::{Sum, Tally};
pub use text::sentence;
