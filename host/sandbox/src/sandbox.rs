//! The engine with everything that plugins share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use sandcast_audit::{AuditLog, Digest, VerifierKey};
use sandcast_kernels::trees::Workers;
use sandcast_kernels::{Device, DeviceOptions};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::cache::{self, Cache};
use crate::engine;
use crate::fairness::{Fairness, Health, LongCalls};
use crate::grants::state::Pairs;
use crate::grants::{Ceiling, Grants};
use crate::load::{self, LoadError, Origin};
use crate::manifest::Role;
use crate::plugin::Plugin;
use crate::process::{
    self, CompileBounds, CompileFailure, OutOfProcessorTime, ProcessProgram, Stop,
};
use crate::recording::Recordings;
use crate::signature::{Signers, TrustRule};
use crate::state::Identity;
use crate::text;

/// Whether memories are taken from a pool made at start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// A pool where the address space allows one, else on demand.
    #[default]
    Auto,
    /// Always on demand.
    Off,
}

/// What the operator of a host holds every pipeline and every registered model to.
#[derive(Clone, Debug, Default)]
pub struct OperatorRules {
    /// What pipelines may grant at most; anything when absent.
    pub ceiling: Option<Ceiling>,
    /// The keys that signed the ceiling, for records; checked by whoever read it.
    pub ceiling_signers: Vec<VerifierKey>,
    /// Who may sign the plugins of a role, beside what a pipeline says of it.
    pub trust: BTreeMap<Role, TrustRule>,
    /// The keys that signed the file with these rules, for records; checked by whoever read it.
    pub trust_signers: Vec<VerifierKey>,
}

impl OperatorRules {
    /// What pipelines may grant at most, as records name it by its digest.
    pub fn ceiling_text(&self) -> Option<Vec<u8>> {
        self.ceiling.as_ref().map(Ceiling::text)
    }

    /// Who may sign plugins, as records name it by its digest: with the roots of trust that the rules
    /// rest on.
    pub fn trust_text(&self) -> Option<Vec<u8>> {
        // Every part of it is text, numbers and lists.
        let text = || serde_json::to_vec(&self.trust).unwrap_or_default();
        (!self.trust.is_empty()).then(text)
    }

    /// The digest of that.
    pub fn trust_digest(&self) -> Option<Digest> {
        self.trust_text().map(|text| Digest::of(&text))
    }
}

/// How a [`Sandbox`] is made.
#[derive(Clone, Debug)]
pub struct SandboxConfig {
    /// Where compiled plugins, kernels and trainings under way are kept; nothing is kept when
    /// absent.
    pub cache_dir: Option<PathBuf>,
    /// Whether memories come from a pool.
    pub pooling: Pooling,
    /// Where tensor programs run, and how.
    pub device: DeviceOptions,
    /// What the operator holds every pipeline and every model to.
    pub operator: OperatorRules,
    /// Where recordings are kept; a plugin that is to be recorded does not load when absent.
    pub recordings: Option<Recordings>,
    /// The file of what plugins keep by a grant of `state`, made with the first of it; in memory, as
    /// long as the sandbox lives, when absent.
    pub plugin_state: Option<PathBuf>,
    /// The largest component that is read.
    pub max_component_bytes: u64,
    /// Processor time that one component may take to compile, over all threads, in a process of its
    /// own; in whole seconds.
    pub compile_time: Duration,
    /// How long one component may compile by the clock, others before it included: for what is not
    /// done for another reason than its own work.
    pub compile_timeout: Duration,
    /// What is started for processes of their own. Without one, components compile in this process.
    pub process: Option<ProcessProgram>,
    /// Bytes of memory that one component may take to compile, in a process of its own.
    pub compile_memory_bytes: u64,
    /// How calls share the threads; when absent, each gives way with every tick and that is all.
    pub fairness: Option<Fairness>,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            cache_dir: None,
            pooling: Pooling::Auto,
            device: DeviceOptions::default(),
            operator: OperatorRules::default(),
            recordings: None,
            plugin_state: None,
            max_component_bytes: 64 << 20,
            compile_time: Duration::from_secs(5 * 60),
            compile_timeout: Duration::from_secs(30 * 60),
            process: None,
            compile_memory_bytes: 4 << 30,
            fairness: None,
        }
    }
}

/// Why there is no sandbox.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// The engine could not be made.
    #[error("the WebAssembly engine cannot start: {reason}")]
    Engine {
        /// What it said.
        reason: String,
    },
    /// The device could not be opened.
    #[error("the compute device cannot be opened: {reason}")]
    Device {
        /// What it said.
        reason: String,
    },
    /// The folder of compiled plugins cannot be used.
    #[error("the cache of compiled plugins at {path} cannot be used: {reason}")]
    Cache {
        /// The folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The engine with everything that plugins share. Cheap to clone.
#[derive(Clone)]
pub struct Sandbox {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Engine,
    device: Device,
    workers: Workers,
    audit: AuditLog,
    cache: Option<Arc<Cache>>,
    recordings: Option<Recordings>,
    plugin_state: Option<PathBuf>,
    /// What plugins keep, once one of them may.
    pairs: Mutex<Option<Arc<Pairs>>>,
    operator: RwLock<Arc<OperatorRules>>,
    max_component_bytes: u64,
    compile_time: Duration,
    compile_timeout: Duration,
    process: Option<ProcessProgram>,
    compile_memory_bytes: u64,
    /// Components compiled or loaded by this process, the latest last.
    compiled: Mutex<Vec<(Digest, Component)>>,
    /// One component compiles at a time: the compiler uses every core by itself.
    compiling: Semaphore,
    /// Places on the compiler, each held until the compiler is really done.
    compilers: Arc<Semaphore>,
    instances: Arc<Semaphore>,
    fairness: Option<Fairness>,
    /// Where calls go on that are beyond their first tick, if not where they are made.
    long_calls: Option<Arc<LongCalls>>,
}

/// Components that a process keeps compiled.
const MAX_COMPILED: usize = 32;

/// Compilations that go on at a time: the one that somebody waits for, and one that was late and that
/// nobody waits for any more. The compiler cannot be interrupted.
const MAX_COMPILING: usize = 2;

/// How long a new instance waits for another to end.
const INSTANCE_PATIENCE: Duration = Duration::from_secs(60);

impl Sandbox {
    /// Starts the engine, its ticker and the compute device.
    ///
    /// # Errors
    /// When the engine, the device or the cache folder cannot be used.
    pub fn new(config: SandboxConfig, audit: AuditLog) -> Result<Sandbox, SandboxError> {
        let engine = engine::start(config.pooling)?;
        let mut options = config.device;
        if options.kernel_cache.is_none() {
            options.kernel_cache = config.cache_dir.as_ref().map(|dir| dir.join("kernels"));
        }
        let device = Device::open_with(options).map_err(|error| SandboxError::Device {
            reason: error.to_string(),
        })?;
        let workers = Workers::of(&device).map_err(|error| SandboxError::Device {
            reason: error.to_string(),
        })?;
        let cache = match &config.cache_dir {
            None => None,
            Some(dir) => {
                let opened = Cache::open(dir, engine::compatibility(&engine));
                Some(Arc::new(opened.map_err(|error| SandboxError::Cache {
                    path: dir.clone(),
                    reason: error.to_string(),
                })?))
            }
        };
        let long_calls = config.fairness.as_ref();
        let long_calls = long_calls.map(|fairness| LongCalls::start(fairness.long_calls));
        let long_calls = long_calls
            .transpose()
            .map_err(|error| SandboxError::Engine {
                reason: format!("its threads for long calls cannot be started: {error}"),
            })?;
        let long_calls = long_calls.map(Arc::new);
        Ok(Sandbox {
            shared: Arc::new(Shared {
                engine,
                device,
                workers,
                audit,
                cache,
                recordings: config.recordings,
                plugin_state: config.plugin_state,
                pairs: Mutex::new(None),
                operator: RwLock::new(Arc::new(config.operator)),
                max_component_bytes: config.max_component_bytes,
                compile_time: config.compile_time,
                compile_timeout: config.compile_timeout,
                process: config.process,
                compile_memory_bytes: config.compile_memory_bytes,
                compiled: Mutex::new(Vec::new()),
                compiling: Semaphore::new(1),
                compilers: Arc::new(Semaphore::new(MAX_COMPILING)),
                instances: Arc::new(Semaphore::new(engine::MAX_INSTANCES as usize)),
                long_calls,
                fairness: config.fairness,
            }),
        })
    }

    /// Checks a component against its role and grants, compiles it, and records the load.
    ///
    /// # Errors
    /// When the component is not one, has no manifest, speaks another contract, is too large,
    /// plays another role, imports what is not granted, or does not compile.
    pub async fn load(
        &self,
        name: &str,
        component: &[u8],
        role: Role,
        grants: Grants,
    ) -> Result<Plugin, LoadError> {
        self.load_from(name, component, role, grants, Origin::default())
            .await
    }

    /// The same for a component whose signature is held to a rule before anything else of it is
    /// looked at.
    ///
    /// # Errors
    /// As for [`Sandbox::load`], and when the rule refuses it.
    pub async fn load_from(
        &self,
        name: &str,
        component: &[u8],
        role: Role,
        grants: Grants,
        origin: Origin<'_>,
    ) -> Result<Plugin, LoadError> {
        load::load(self, name, component, role, grants, origin).await
    }

    /// Who signed a component, by its own rule and that of the operator as they are now; nothing of it
    /// is compiled, and nothing is recorded.
    ///
    /// # Errors
    /// When it is no component, or one of the rules refuses it.
    pub fn check_signatures(
        &self,
        name: &str,
        component: &[u8],
        origin: Origin<'_>,
    ) -> Result<Signers, LoadError> {
        load::check_signatures(self, name, component, origin)
    }

    /// Where tensor programs run.
    pub fn device(&self) -> &Device {
        &self.shared.device
    }

    /// What the operator holds every plugin to.
    pub fn operator(&self) -> Arc<OperatorRules> {
        let rules = self.shared.operator.read();
        Arc::clone(&rules.unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts the operator's rules of trust of `rules` in force, for what is loaded from now on. What is
    /// loaded stays: whoever keeps it asks again.
    pub fn set_trust(&self, rules: OperatorRules) {
        let held = self.shared.operator.write();
        let mut held = held.unwrap_or_else(PoisonError::into_inner);
        let OperatorRules {
            ceiling,
            ceiling_signers,
            ..
        } = (**held).clone();
        *held = Arc::new(OperatorRules {
            ceiling,
            ceiling_signers,
            ..rules
        });
    }

    /// What is started for processes of their own.
    pub(crate) fn process(&self) -> Option<&ProcessProgram> {
        self.shared.process.as_ref()
    }

    /// Where recordings are kept.
    pub fn recordings(&self) -> Option<&Recordings> {
        self.shared.recordings.as_ref()
    }

    /// What plugins keep from one instance to the next. The error is a sentence.
    pub(crate) fn pairs(&self) -> Result<Arc<Pairs>, String> {
        let held = self.shared.pairs.lock();
        let mut held = held.unwrap_or_else(PoisonError::into_inner);
        if let Some(pairs) = &*held {
            return Ok(Arc::clone(pairs));
        }
        let pairs = Arc::new(Pairs::open(self.shared.plugin_state.as_deref())?);
        *held = Some(Arc::clone(&pairs));
        Ok(pairs)
    }

    /// The host's own folder.
    pub(crate) fn cache(&self) -> Option<Arc<Cache>> {
        self.shared.cache.clone()
    }

    /// What forests are trained and asked on.
    pub(crate) fn workers(&self) -> &Workers {
        &self.shared.workers
    }

    /// Where loads, denials and uses are recorded.
    pub fn audit(&self) -> &AuditLog {
        &self.shared.audit
    }

    /// How many instances live now.
    pub fn live_instances(&self) -> usize {
        engine::MAX_INSTANCES as usize - self.shared.instances.available_permits()
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    pub(crate) fn max_component_bytes(&self) -> u64 {
        self.shared.max_component_bytes
    }

    /// Where calls go on that are beyond their first tick, if not where they are made.
    pub(crate) fn long_calls(&self) -> Option<Arc<LongCalls>> {
        self.shared.long_calls.clone()
    }

    /// A place for an instance of a plugin, once there is one: of those that its plugin may have, and
    /// then of the host's, so that who waits for its own kind keeps nobody else waiting.
    pub(crate) async fn admit(
        &self,
        of_plugin: &Arc<Semaphore>,
        health: &Arc<Health>,
        identity: &Identity,
    ) -> Result<Place, String> {
        if let Some(fairness) = &self.shared.fairness
            && let Some(start) = health.next_start(fairness.back_off)?
        {
            tokio::time::sleep_until(start.into()).await;
        }
        let wait = |places: &Arc<Semaphore>| {
            tokio::time::timeout(INSTANCE_PATIENCE, Arc::clone(places).acquire_owned())
        };
        let alive = |number: u32, next: String| {
            let seconds = INSTANCE_PATIENCE.as_secs();
            format!("{number} instances were alive for {seconds} s and none ended; {next}")
        };
        let own = wait(of_plugin).await.map_err(|_| {
            let name = &identity.name;
            let next = format!("let go of some, or raise `plugins.{name}.grants.limits.at_once`");
            alive(identity.grants.limits.at_once.get(), next)
        })?;
        let of_host = wait(&self.shared.instances).await;
        let of_host =
            of_host.map_err(|_| alive(engine::MAX_INSTANCES, "let go of some".to_owned()))?;
        Ok(Place {
            _of_plugin: own.map_err(|closed| closed.to_string())?,
            _of_host: of_host.map_err(|closed| closed.to_string())?,
            health: Arc::clone(health),
        })
    }

    /// A component in compiled form: from this process, from the cache, or from the compiler, in a
    /// process of its own or else on a thread.
    pub(crate) async fn compile(
        &self,
        name: &str,
        digest: Digest,
        bytes: &[u8],
    ) -> Result<Component, LoadError> {
        let failed = |reason: String| LoadError::Compile {
            name: name.to_owned(),
            reason,
        };
        let timeout = self.shared.compile_timeout;
        let patience = tokio::time::Instant::now() + timeout;
        let late = || LoadError::CompileTimeout {
            name: name.to_owned(),
            limit_seconds: timeout.as_secs(),
        };
        let turn = tokio::time::timeout_at(patience, self.shared.compiling.acquire())
            .await
            .map_err(|_| late())?
            .map_err(|closed| failed(closed.to_string()))?;
        if let Some(component) = self.kept(digest) {
            return Ok(component);
        }
        let shared = Arc::clone(&self.shared);
        let place = Arc::clone(&shared.compilers).acquire_owned();
        let place = tokio::time::timeout_at(patience, place)
            .await
            .map_err(|_| late())?
            .map_err(|closed| failed(closed.to_string()))?;
        let bytes = bytes.to_vec();
        // On a thread the compiler cannot be interrupted; when it is late, nobody waits for it any
        // more, but it keeps its place until it is done, so that few go on at a time. A process is
        // ended, also when whoever waits is gone.
        let stopped = StopOnDrop(Stop::default());
        let stop = stopped.0.clone();
        let compiling = tokio::task::spawn_blocking(move || {
            let component = shared.compile(digest, &bytes, &stop);
            drop(place);
            component
        });
        let component = tokio::time::timeout_at(patience, compiling)
            .await
            .map_err(|_| late())?
            .map_err(|error| failed(error.to_string()))?
            .map_err(|error| match error.downcast_ref() {
                Some(OutOfProcessorTime { limit_seconds }) => LoadError::CompileProcessorTime {
                    name: name.to_owned(),
                    limit_seconds: *limit_seconds,
                },
                None => failed(text::sentence(&format!("{error:#}"), 1024)),
            })?;
        drop(turn);
        Ok(component)
    }

    fn kept(&self, digest: Digest) -> Option<Component> {
        let compiled = self
            .shared
            .compiled
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        compiled
            .iter()
            .find(|(known, _)| *known == digest)
            .map(|(_, component)| component.clone())
    }
}

/// What an instance takes up as long as it lives.
#[derive(Debug)]
pub(crate) struct Place {
    _of_plugin: OwnedSemaphorePermit,
    _of_host: OwnedSemaphorePermit,
    health: Arc<Health>,
}

impl Place {
    /// Whether the last instance of its plugin failed.
    pub(crate) fn is_of_one_that_failed(&self) -> bool {
        self.health.has_failed()
    }

    /// What became of the instance.
    pub(crate) fn ended(&self, outcome: &str) {
        match outcome {
            "finished" => self.health.ended(true),
            "trapped" | "out of time" | "out of memory" | "over a limit" | "bad output" => {
                self.health.ended(false);
            }
            _ => {}
        }
    }
}

impl Shared {
    fn compile(&self, digest: Digest, bytes: &[u8], stop: &Stop) -> wasmtime::Result<Component> {
        let cached = self
            .cache
            .as_ref()
            .and_then(|cache| cache.load(&self.engine, digest));
        let component = match cached {
            Some(component) => component,
            None => {
                let artifact = self.artifact(bytes, stop)?;
                let component = cache::compiled(&self.engine, &artifact)?;
                if let Some(cache) = &self.cache
                    && let Err(error) = cache.store(digest, &artifact)
                {
                    tracing::warn!(%error, "a compiled plugin cannot be kept");
                }
                component
            }
        };
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if compiled.len() >= MAX_COMPILED {
            compiled.remove(0);
        }
        compiled.push((digest, component.clone()));
        Ok(component)
    }

    fn artifact(&self, bytes: &[u8], stop: &Stop) -> wasmtime::Result<Vec<u8>> {
        let Some(program) = &self.process else {
            return self.engine.precompile_component(bytes);
        };
        let bounds = CompileBounds {
            memory_bytes: self.compile_memory_bytes,
            // Whole seconds are what the kernel counts.
            processor_seconds: self.compile_time.as_secs().max(1),
        };
        process::compile(program, bytes, bounds, stop).map_err(|failure| match failure {
            CompileFailure::OutOfTime(error) => error.into(),
            other => wasmtime::Error::msg(other.to_string()),
        })
    }
}

/// Ends a process with whoever waits for it.
struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}
