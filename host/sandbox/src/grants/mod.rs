//! What a plugin may use. One file or folder per capability: its configuration, its check, its state in
//! an instance and its linking. The tests that it is allowed and that it is denied lie beside it, in
//! `tests.rs` here and in `tests/tests/system`.
//!
//! What is not granted is not linked, but for what the standard library of a guest imports unasked:
//! clocks, random numbers and folders are linked then and deny, and `wasi:cli` is linked to stubs.

pub(crate) mod blob;
mod ceiling;
pub(crate) mod clock;
pub(crate) mod compute;
pub(crate) mod config;
pub(crate) mod files;
pub(crate) mod http;
pub(crate) mod log;
pub(crate) mod noise;
mod quantity;
pub(crate) mod random;
mod secrets;
pub(crate) mod sql;
pub(crate) mod state;
mod words;

use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;

use sandcast_kernels::DeviceKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use blob::{BlobGrant, BlobStore, StoreCredentials, StoreUrl};
pub use ceiling::{Ceiling, CeilingVersion, Excess};
pub use compute::Checkpointing;
pub use files::FileQuota;
pub use http::{HttpCredential, HttpGrant, HttpMethod, HttpScheme};
pub use quantity::{ByteSize, TimeSpan};
pub use secrets::SecretSource;
pub use sql::{PostgresServer, SqlAccess, SqlConnection, SqlGrant};
pub use state::{KeptBucket, KeptError, KeptPair, KeptState, StateGrant};

/// Something that a grant opens.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// Folders of the host, by `wasi:filesystem`.
    Files,
    /// Requests to other machines, by `wasi:http`.
    Http,
    /// Lines in the host's log, by `wasi:logging`.
    Log,
    /// The plugin's own configuration, by `wasi:config`; always granted.
    Config,
    /// The time, by `wasi:clocks`.
    Clock,
    /// Random numbers, by `wasi:random`.
    Random,
    /// Tensor programs, by `sandcast:plugin/compute`.
    Compute,
    /// Pairs that it keeps from one instance to the next, by `wasi:keyvalue`.
    State,
    /// Questions to databases, by `sandcast:plugin/sql`.
    Sql,
    /// Objects of stores, by `sandcast:plugin/blob`.
    Blob,
}

impl Capability {
    /// Every capability.
    pub const ALL: [Capability; 10] = [
        Capability::Files,
        Capability::Http,
        Capability::Log,
        Capability::Config,
        Capability::Clock,
        Capability::Random,
        Capability::Compute,
        Capability::State,
        Capability::Sql,
        Capability::Blob,
    ];

    /// Whether every plugin has it without a grant.
    pub fn is_always_granted(self) -> bool {
        matches!(self, Capability::Log | Capability::Config)
    }

    /// The key under `grants`.
    pub fn as_str(self) -> &'static str {
        match self {
            Capability::Files => "files",
            Capability::Http => "http",
            Capability::Log => "log",
            Capability::Config => "config",
            Capability::Clock => "clock",
            Capability::Random => "random",
            Capability::Compute => "compute",
            Capability::State => "state",
            Capability::Sql => "sql",
            Capability::Blob => "blob",
        }
    }
}

impl Capability {
    /// The line of a pipeline that grants it to a plugin.
    pub(crate) fn grant_with(self, plugin: &str) -> String {
        let example = match self {
            Capability::Files => "files: [{ host: data, guest: /data, access: read }]",
            Capability::Http => "http: [{ host: api.example.com, path: /v1 }]",
            Capability::Log => "log: { level: info }",
            Capability::Config => return format!("plugins.{plugin}.config"),
            Capability::Clock => "clock: true",
            Capability::Random => "random: { seed: 7 }",
            Capability::Compute => "compute: { memory: 1GiB, time: 10m }",
            Capability::State => "state: { bytes: 16MiB, keys: 10000 }",
            Capability::Sql => "sql: [{ connection: warehouse, access: read }]",
            Capability::Blob => "blob: [{ store: lake, prefix: raw/, access: read }]",
        };
        format!("plugins.{plugin}.grants.{example}")
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the operator lets a plugin use. Everything but the log and its own configuration is off
/// until it is written down.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// Folders it may read or write.
    pub files: Vec<FileGrant>,
    /// Hosts it may send requests to.
    pub http: Vec<HttpGrant>,
    /// How much it may log.
    pub log: LogGrant,
    /// Whether it may know the time.
    pub clock: bool,
    /// Whether it may draw random numbers.
    pub random: Option<RandomGrant>,
    /// Whether it may run tensor programs.
    pub compute: Option<ComputeGrant>,
    /// Whether it may keep something from one instance to the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<StateGrant>,
    /// Databases it may ask, by the names of connections.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sql: Vec<SqlGrant>,
    /// Objects it may read or write, by the names of stores.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blob: Vec<BlobGrant>,
    /// What one instance may use.
    pub limits: Limits,
    /// Whether what its instances are asked and answer is kept, so that it can be replayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recording: Option<RecordingGrant>,
    /// What holds its instances beside the engine.
    #[serde(skip_serializing_if = "Isolation::is_default")]
    pub isolation: Isolation,
}

impl Grants {
    /// The same without anything by which a plugin reaches beyond its sandbox, or keeps something.
    #[must_use]
    pub fn without_effects(&self) -> Self {
        Self {
            files: Vec::new(),
            http: Vec::new(),
            state: None,
            sql: Vec::new(),
            blob: Vec::new(),
            recording: None,
            ..self.clone()
        }
    }
}

/// What holds the instances of a plugin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// The WebAssembly engine, in the host's own process.
    #[default]
    Engine,
    /// The engine, in a process of its own that the kernel holds: no files, no network, no other
    /// program. What is granted it asks the host for.
    Process,
}

impl Isolation {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What is kept of an instance, beside what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RecordingGrant {
    /// Bytes of its calls into the host, and of what came to it from outside. An instance that
    /// needs more is ended: what cannot be kept does not happen.
    pub bytes: ByteSize,
}

impl Default for RecordingGrant {
    fn default() -> Self {
        Self {
            bytes: ByteSize::from_mib(256),
        }
    }
}

/// What may be done with a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Look only.
    #[default]
    Read,
    /// Look and change.
    ReadWrite,
}

/// A folder of the host, under a name of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileGrant {
    /// The folder of the host.
    pub host: PathBuf,
    /// Its path in the guest, such as `/data`.
    pub guest: String,
    /// What may be done with it.
    #[serde(default)]
    pub access: Access,
    /// How much of it one instance may fill, where it may change it.
    #[serde(default, skip_serializing_if = "FileQuota::is_default")]
    pub quota: FileQuota,
}

/// The least important lines that are kept.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// Nothing is kept.
    Off,
    /// Errors.
    Error,
    /// And warnings.
    Warn,
    /// And information.
    #[default]
    Info,
    /// And what helps to find a bug.
    Debug,
    /// And everything else.
    Trace,
}

/// How much a plugin may log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogGrant {
    /// The least important lines that are kept.
    pub level: LogLevel,
    /// Bytes a second, over a burst of ten times as much; what is over is dropped and counted.
    pub bytes_per_second: ByteSize,
    /// Bytes of one message; what is over is cut.
    pub message_bytes: ByteSize,
}

impl Default for LogGrant {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            bytes_per_second: ByteSize::from_kib(16),
            message_bytes: ByteSize::from_kib(4),
        }
    }
}

/// Random numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RandomGrant {
    /// Draws the same numbers in every run when given; from the operating system when not.
    pub seed: Option<u64>,
}

/// Tensor programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ComputeGrant {
    /// Bytes of tensors, weights and working memory at one time.
    pub memory: ByteSize,
    /// Time spent computing, over the life of an instance.
    pub time: TimeSpan,
    /// Programs compiled by one instance.
    pub programs: u32,
    /// Programs, sessions and tensors that an instance holds at one time.
    pub handles: u32,
    /// Floating-point operations over the life of an instance, as its runs, trainings and answers are
    /// planned before they begin.
    pub flops: u64,
    /// What its programs may run on. Where the host computes on something else, the plugin is not loaded.
    pub devices: Vec<ComputeDevice>,
}

/// What tensor programs run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ComputeDevice {
    /// The processor.
    Cpu,
    /// An NVIDIA accelerator.
    Cuda,
}

impl From<DeviceKind> for ComputeDevice {
    fn from(kind: DeviceKind) -> Self {
        match kind {
            DeviceKind::Cpu => Self::Cpu,
            DeviceKind::Cuda => Self::Cuda,
        }
    }
}

impl ComputeGrant {
    /// The devices, in words.
    pub(crate) fn device_names(&self) -> String {
        let names: Vec<&str> = self.devices.iter().map(|it| it.name()).collect();
        names.join(", ")
    }
}

impl ComputeDevice {
    fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }
}

impl Default for ComputeGrant {
    fn default() -> Self {
        Self {
            memory: ByteSize::from_gib(1),
            time: TimeSpan::from_secs(600),
            programs: 16,
            handles: 1024,
            // An hour of a fast GPU.
            flops: 1_000_000_000_000_000_000,
            devices: vec![ComputeDevice::Cpu, ComputeDevice::Cuda],
        }
    }
}

/// What one instance may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of linear memory, over all memories.
    pub memory: ByteSize,
    /// One call, without the time the host computes for it.
    pub call_timeout: TimeSpan,
    /// All calls of an instance together, without the time the host computes for it.
    pub total_timeout: TimeSpan,
    /// Elements of all tables together.
    pub table_elements: u32,
    /// Core instances inside the component.
    pub instances: u32,
    /// Host resources held at one time, such as batches.
    pub resources: u32,
    /// Rows of one batch that it returns.
    pub output_rows: u32,
    /// Bytes of one answer.
    pub output_bytes: ByteSize,
    /// Instances of the plugin that live at one time; more wait.
    pub at_once: NonZeroU32,
    /// Effects and denials of one instance that are in the audit log, each once. One that does, or is
    /// refused, more is ended: nothing is done that is not on record.
    pub entries: u32,
}

impl Grants {
    /// Whether a capability is granted.
    pub fn allows(&self, capability: Capability) -> bool {
        match capability {
            Capability::Files => !self.files.is_empty(),
            Capability::Http => !self.http.is_empty(),
            Capability::Log | Capability::Config => true,
            Capability::Clock => self.clock,
            Capability::Random => self.random.is_some(),
            Capability::Compute => self.compute.is_some(),
            Capability::State => self.state.is_some(),
            Capability::Sql => !self.sql.is_empty(),
            Capability::Blob => !self.blob.is_empty(),
        }
    }
}

/// Half of what a host has, so that no plugin takes all of it.
const AT_ONCE: NonZeroU32 = NonZeroU32::new(64).unwrap();

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: ByteSize::from_mib(256),
            call_timeout: TimeSpan::from_secs(60),
            total_timeout: TimeSpan::from_secs(3600),
            table_elements: 200_000,
            instances: 64,
            resources: 10_000,
            output_rows: 1 << 20,
            output_bytes: ByteSize::from_mib(128),
            at_once: AT_ONCE,
            entries: 10_000,
        }
    }
}

#[cfg(test)]
mod tests;
