//! A component that was checked and compiled, ready to make instances.

use std::sync::{Arc, Mutex, OnceLock};

use arrow::datatypes::Schema;
use sandcast_audit::{PluginRef, RunId};
use tokio::sync::Semaphore;
use wasmtime::Store;

use crate::bindings;
use crate::call::CallError;
use crate::conduct::{Bounds, Watch};
use crate::effect::{Actor, Entries};
use crate::fairness::Health;
use crate::grants::Grants;
use crate::grants::random::RandomState;
use crate::inspect::Inspection;
use crate::instance::Instance;
use crate::limits;
use crate::manifest::{Manifest, Role};
use crate::process::{Opening, Workshop};
use crate::recording::{Playback, Recorder, Recordings};
use crate::roles::{Adapter, Connector, Policy, Validator};
use crate::sandbox::{Place, Sandbox};
use crate::signature::Signers;
use crate::state::{Identity, State};
use crate::tally::Tally;

/// On whose behalf an instance runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallContext {
    /// The run, if there is one.
    pub run: Option<RunId>,
    /// The stage, such as `train`.
    pub stage: String,
}

impl CallContext {
    /// A stage of a run, or of no run.
    pub fn new(run: Option<RunId>, stage: impl Into<String>) -> Self {
        Self {
            run,
            stage: stage.into(),
        }
    }
}

/// A component that was checked and compiled. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    made: Arc<Made>,
    ends: Ends,
    bounds: Option<Arc<Bounds>>,
}

/// Where it goes what an instance came to when it ends.
#[derive(Clone, Debug)]
pub(crate) enum Ends {
    /// Into the audit log.
    Recorded,
    /// To what others came to, for whoever writes that down.
    Summed(Arc<Tally>),
    /// Nowhere.
    Untold,
}

struct Made {
    sandbox: Sandbox,
    identity: Arc<Identity>,
    inspection: Inspection,
    signers: Signers,
    pre: RolePre,
    /// What its instances are given in place of the world.
    playback: Option<Arc<Playback>>,
    /// Where its instances run, if in processes of their own.
    workshop: Option<Arc<Workshop>>,
    /// For its instances.
    places: Arc<Semaphore>,
    health: Arc<Health>,
}

/// A component with everything it imports, for the role it plays.
pub(crate) enum RolePre {
    Connector(bindings::connector::ConnectorPluginPre<State>),
    Validator(bindings::validator::ValidatorPluginPre<State>),
    Policy(bindings::policy::PolicyPluginPre<State>),
    Adapter(bindings::adapter::AdapterPluginPre<State>),
}

impl RolePre {
    fn role(&self) -> Role {
        match self {
            RolePre::Connector(_) => Role::Connector,
            RolePre::Validator(_) => Role::Validator,
            RolePre::Policy(_) => Role::Policy,
            RolePre::Adapter(_) => Role::Adapter,
        }
    }
}

fn places(identity: &Identity) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(identity.grants.limits.at_once.get() as usize))
}

impl Plugin {
    pub(crate) fn new(
        sandbox: Sandbox,
        identity: Arc<Identity>,
        inspection: Inspection,
        signers: Signers,
        pre: RolePre,
        workshop: Option<Arc<Workshop>>,
    ) -> Self {
        let places = places(&identity);
        Self {
            made: Arc::new(Made {
                sandbox,
                identity,
                inspection,
                signers,
                pre,
                playback: None,
                workshop,
                places,
                health: Arc::default(),
            }),
            ends: Ends::Recorded,
            bounds: None,
        }
    }

    /// A plugin of which one instance is lived again.
    pub(crate) fn replayed(
        sandbox: Sandbox,
        identity: Arc<Identity>,
        inspection: Inspection,
        pre: RolePre,
        playback: Arc<Playback>,
    ) -> Self {
        let places = places(&identity);
        Self {
            made: Arc::new(Made {
                sandbox,
                identity,
                inspection,
                signers: Signers::default(),
                pre,
                playback: Some(playback),
                workshop: None,
                places,
                health: Arc::default(),
            }),
            ends: Ends::Untold,
            bounds: None,
        }
    }

    /// Who it is, for records.
    pub fn reference(&self) -> &PluginRef {
        &self.made.identity.reference
    }

    /// The name the pipeline gives it.
    pub fn name(&self) -> &str {
        &self.made.identity.name
    }

    /// What it says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.made.inspection.manifest
    }

    /// What it may use.
    pub fn grants(&self) -> &Grants {
        &self.made.identity.grants
    }

    /// What it is made of.
    pub fn inspection(&self) -> &Inspection {
        &self.made.inspection
    }

    /// Who signed it, of those that a rule of trust names.
    pub fn signers(&self) -> &Signers {
        &self.made.signers
    }

    /// The same plugin, whose instances write no `calls-finished` record of their own when they end,
    /// for benchmarks.
    #[must_use]
    pub fn unrecorded(&self) -> Plugin {
        self.ending(Ends::Untold)
    }

    /// The same plugin, whose instances are added up when they end, for a server: it writes down what
    /// they came to.
    #[must_use]
    pub fn summed(&self, tally: Arc<Tally>) -> Plugin {
        self.ending(Ends::Summed(tally))
    }

    fn ending(&self, ends: Ends) -> Plugin {
        Plugin {
            made: Arc::clone(&self.made),
            ends,
            bounds: self.bounds.clone(),
        }
    }

    /// The same plugin, whose instances are held to what it usually does, or to nothing but its grants.
    #[must_use]
    pub fn bounded(&self, bounds: Option<Bounds>) -> Plugin {
        Plugin {
            made: Arc::clone(&self.made),
            ends: self.ends.clone(),
            bounds: bounds.map(Arc::new),
        }
    }

    /// A new instance that reads, configured.
    ///
    /// # Errors
    /// When it is no connector, cannot be instantiated or refuses the configuration.
    pub async fn connector(
        &self,
        context: &CallContext,
        config: &serde_json::Value,
    ) -> Result<Connector, CallError> {
        let RolePre::Connector(pre) = &self.made.pre else {
            return Err(self.wrong_role(Role::Connector));
        };
        let (instance, opening) = self.instance_anywhere(context, config).await?;
        Connector::open(instance, pre, config, opening).await
    }

    /// A new instance that checks rows of a schema, configured.
    ///
    /// # Errors
    /// When it is no validator, cannot be instantiated or refuses the configuration.
    pub async fn validator(
        &self,
        context: &CallContext,
        config: &serde_json::Value,
        schema: &Schema,
    ) -> Result<Validator, CallError> {
        let RolePre::Validator(pre) = &self.made.pre else {
            return Err(self.wrong_role(Role::Validator));
        };
        let (instance, opening) = self.instance_anywhere(context, config).await?;
        Validator::open(instance, pre, config, schema, opening).await
    }

    /// A new instance that decides, configured.
    ///
    /// # Errors
    /// When it is no policy, cannot be instantiated or refuses the configuration.
    pub async fn policy(
        &self,
        context: &CallContext,
        config: &serde_json::Value,
    ) -> Result<Policy, CallError> {
        let RolePre::Policy(pre) = &self.made.pre else {
            return Err(self.wrong_role(Role::Policy));
        };
        let (instance, opening) = self.instance_anywhere(context, config).await?;
        Policy::open(instance, pre, config, opening).await
    }

    /// A new instance that trains and predicts.
    ///
    /// # Errors
    /// When it is no adapter or cannot be instantiated.
    pub async fn adapter(&self, context: &CallContext) -> Result<Adapter, CallError> {
        let RolePre::Adapter(pre) = &self.made.pre else {
            return Err(self.wrong_role(Role::Adapter));
        };
        let config = &serde_json::Value::Null;
        let (instance, opening) = self.instance_anywhere(context, config).await?;
        Adapter::open(instance, pre, self.made.sandbox.clone(), opening).await
    }

    /// What it is linked to, for the role it plays.
    pub(crate) fn role_pre(&self) -> &RolePre {
        &self.made.pre
    }

    /// A Store for an instance that another process asks; what is to be kept and to be told of it is
    /// that process's affair.
    pub(crate) async fn instance_apart(
        &self,
        context: &CallContext,
        config: &serde_json::Value,
        bounds: Option<&Bounds>,
        prepare: impl FnOnce(&mut State),
    ) -> Result<Instance, String> {
        let sandbox = &self.made.sandbox;
        let place = self.admit().await?;
        let identity = Arc::clone(&self.made.identity);
        let mut state = State::open(sandbox, identity, context.clone(), config, bounds, None)?;
        prepare(&mut state);
        let mut store = Store::new(sandbox.engine(), state);
        limits::enforce(&mut store, &self.grants().limits);
        Ok(Instance::new(store, Ends::Untold, place, None))
    }

    /// An instance in a process of its own, with what that is to be given, or else here.
    async fn instance_anywhere(
        &self,
        context: &CallContext,
        config: &serde_json::Value,
    ) -> Result<(Instance, Option<Box<Opening>>), CallError> {
        let Some(workshop) = &self.made.workshop else {
            return Ok((self.instance(context, config).await?, None));
        };
        let host = self.failed_at(context);
        let sandbox = &self.made.sandbox;
        let opening = |random, recording_bytes| {
            let bounds = self.bounds.as_deref();
            let stage = bounds.and_then(|it| it.stages.get(&context.stage));
            Box::new(Opening {
                run: context.run.clone(),
                stage: context.stage.clone(),
                config: config.clone(),
                random,
                recording_bytes,
                bounds: stage.map(|it| (**it).clone()),
                pace_percent: bounds.and_then(|it| it.pace_percent),
            })
        };
        let place = self.admit().await.map_err(host)?;
        let process = workshop.hire().await;
        let process = process.map_err(|error| host(format!("it has no process: {error}")))?;
        if workshop.asks_host() {
            let instance = self.instance_at(place, context, config)?;
            // Random numbers are the host's too.
            return Ok((instance.asked_by(process), Some(opening([0; 32], None))));
        }
        let actor = Arc::new(Actor {
            identity: Arc::clone(&self.made.identity),
            context: context.clone(),
            audit: sandbox.audit().clone(),
            denied: Mutex::default(),
            lost: OnceLock::new(),
            entries: Entries::default(),
        });
        let grants = self.grants();
        let random = RandomState::new(grants).key();
        let recording = grants.recording.as_ref().zip(sandbox.recordings());
        let recorder =
            recording.map(|(_, recordings)| self.recorder(recordings, &actor, config, random));
        let opening = opening(random, recording.map(|(grant, _)| grant.bytes.bytes()));
        let watch = Watch::new(self.bounds.as_deref(), &context.stage);
        let instance = Instance::apart(process, actor, watch, place, (self.ends.clone(), recorder));
        Ok((instance, Some(opening)))
    }

    /// Keeps what an instance does.
    fn recorder(
        &self,
        recordings: &Recordings,
        actor: &Arc<Actor>,
        config: &serde_json::Value,
        random: [u8; 32],
    ) -> Recorder {
        let unseeded = matches!(&self.grants().random, Some(grant) if grant.seed.is_none());
        Recorder::new(
            recordings.clone(),
            Arc::clone(actor),
            config,
            self.made.sandbox.device().kind().to_string(),
            unseeded.then_some(random),
        )
    }

    async fn admit(&self) -> Result<Place, String> {
        let made = &self.made;
        let sandbox = &made.sandbox;
        sandbox
            .admit(&made.places, &made.health, &made.identity)
            .await
    }

    fn wrong_role(&self, wanted: Role) -> CallError {
        CallError::WrongRole {
            plugin: self.name().to_owned(),
            wanted,
            found: self.made.pre.role(),
        }
    }

    /// What the host could not do for a stage.
    fn failed_at(&self, context: &CallContext) -> impl Fn(String) -> CallError + Copy {
        move |reason| CallError::Host {
            plugin: self.name().to_owned(),
            stage: context.stage.clone(),
            reason,
        }
    }

    /// A Store with everything an instance is granted.
    async fn instance(
        &self,
        context: &CallContext,
        config: &serde_json::Value,
    ) -> Result<Instance, CallError> {
        let place = self.admit().await.map_err(self.failed_at(context))?;
        self.instance_at(place, context, config)
    }

    fn instance_at(
        &self,
        place: Place,
        context: &CallContext,
        config: &serde_json::Value,
    ) -> Result<Instance, CallError> {
        let sandbox = &self.made.sandbox;
        let identity = Arc::clone(&self.made.identity);
        let playback = self.made.playback.as_deref();
        let bounds = self.bounds.as_deref();
        let opened = State::open(sandbox, identity, context.clone(), config, bounds, playback);
        let state = opened.map_err(self.failed_at(context))?;
        let recorder = match (&self.grants().recording, playback, sandbox.recordings()) {
            (Some(_), None, Some(recordings)) => {
                let random = state.random.key();
                Some(self.recorder(recordings, &state.actor, config, random))
            }
            _ => None,
        };
        let mut store = Store::new(sandbox.engine(), state);
        limits::enforce(&mut store, &self.grants().limits);
        let instance = Instance::new(store, self.ends.clone(), place, recorder);
        Ok(instance.sharing(sandbox.long_calls()))
    }
}
