//! Lives a recorded instance again.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use sandcast_audit::Digest;
use serde::Serialize;
use serde_json::Value;

use super::answers;
use super::call::{Call, Outcome, RecordedCall, Recording, VERSION};
use super::rows::rows_of_bytes;
use super::store::{RecordingError, Recordings};
use super::trace::{Divergence, Traced};
use crate::grants::TimeSpan;
use crate::grants::http::{Exchange, Given};
use crate::load::{self, LoadError};
use crate::manifest::Role;
use crate::model::Model;
use crate::plugin::{CallContext, Plugin};
use crate::roles::{Adapter, Policy, TrainInput, Validator};
use crate::sandbox::Sandbox;

/// How much longer than then a replay may take: the machine may be another.
const PATIENCE: u32 = 10;

/// What a replay came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Replay {
    /// The calls, up to the first that is not as it was.
    pub calls: Vec<ReplayedCall>,
    /// The first call into the host that was not as it was.
    pub divergence: Option<Divergence>,
    /// The first request over HTTP that was not as it was, in a sentence.
    pub request_divergence: Option<String>,
    /// Calls that were recorded and cannot be made again, such as one that ran out of time.
    pub not_replayable: usize,
}

impl Replay {
    /// Whether everything that can be made again was as it was, and there was something to make.
    pub fn is_same(&self) -> bool {
        !self.calls.is_empty()
            && self.divergence.is_none()
            && self.request_divergence.is_none()
            && self.calls.iter().all(|call| call.is_same)
    }
}

/// A call that was made again.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReplayedCall {
    /// What was asked.
    pub question: Call,
    /// What it came to then.
    pub recorded: Outcome,
    /// What it came to now.
    pub replayed: Outcome,
    /// Whether that is the same.
    pub is_same: bool,
    /// Seconds it took now.
    pub seconds: f64,
}

impl Recordings {
    /// The rows that lie under a digest.
    ///
    /// # Errors
    /// If they are not there, were changed, or are no rows.
    pub fn rows(&self, digest: &Digest) -> Result<Vec<RecordBatch>, RecordingError> {
        let bytes = self.get(digest)?;
        rows_of_bytes(&bytes).map_err(|reason| RecordingError::Format {
            digest: *digest,
            reason,
        })
    }
}

impl Recording {
    /// Reads the recording with a digest.
    ///
    /// # Errors
    /// If it is not there, was changed, or is of another form.
    pub fn read(recordings: &Recordings, digest: &Digest) -> Result<Recording, RecordingError> {
        let bytes = recordings.get(digest)?;
        let format = |reason: String| RecordingError::Format {
            digest: *digest,
            reason,
        };
        #[derive(serde::Deserialize)]
        struct Version {
            version: u32,
        }
        let version: Version = serde_json::from_slice(&bytes)
            .map_err(|_| format("it is part of a recording, or none at all".to_owned()))?;
        if version.version != VERSION {
            return Err(format(format!(
                "it has version {}, and this host reads {VERSION}",
                version.version
            )));
        }
        serde_json::from_slice(&bytes).map_err(|error| format(error.to_string()))
    }

    /// Everything that it takes besides itself to replay it and to show what it answered.
    pub fn parts(&self) -> Vec<Digest> {
        let component = [self.plugin.digest];
        let rows = self.calls.iter().flat_map(|recorded| recorded.call.parts());
        let answers = self.calls.iter().filter_map(RecordedCall::answered_rows);
        let bodies = self.exchanges.iter().filter_map(Exchange::body);
        let given = component.into_iter().chain(rows).chain(bodies);
        let mut parts: Vec<Digest> = given.chain(answers).collect();
        parts.sort();
        parts.dedup();
        parts
    }
}

/// What an instance that is replayed is given in place of the world.
pub(crate) struct Playback {
    pub(crate) traced: Arc<Traced>,
    pub(crate) random: Option<[u8; 32]>,
    pub(crate) exchanges: Given,
}

/// Lives a recorded instance again, on this machine and with nothing of the world, and holds every
/// answer against what it was then.
///
/// # Errors
/// If a part of the recording is missing or was changed, or the component does not load any more.
pub async fn replay(
    sandbox: &Sandbox,
    recordings: &Recordings,
    recording: &Recording,
) -> Result<Replay, ReplayError> {
    let component = recordings.get(&recording.plugin.digest)?;
    let mut grants = recording.grants.clone();
    grants.recording = None;
    let later = |time: TimeSpan| time.times(PATIENCE);
    grants.limits.call_timeout = later(grants.limits.call_timeout);
    grants.limits.total_timeout = later(grants.limits.total_timeout);
    if let Some(compute) = &mut grants.compute {
        compute.time = later(compute.time);
    }
    let playback = Arc::new(Playback {
        traced: Arc::new(recording.traced.clone()),
        random: recording.random,
        exchanges: Given::new(recordings.clone(), recording.exchanges.clone()),
    });
    let role: Role = recording
        .plugin
        .role
        .parse()
        .map_err(ReplayError::Impossible)?;
    let plugin = load::replayed(
        sandbox,
        &recording.name,
        &component,
        role,
        grants,
        Arc::clone(&playback),
    )
    .await?;
    let mut again = Again {
        sandbox,
        recordings,
        plugin,
        config: &recording.config,
        context: CallContext::new(recording.run.clone(), recording.stage.clone()),
        acting: Acting::Nobody,
    };
    let mut replay = Replay {
        calls: Vec::new(),
        divergence: None,
        request_divergence: None,
        not_replayable: 0,
    };
    for recorded in &recording.calls {
        if !recorded.outcome.is_replayable() {
            replay.not_replayable += 1;
            continue;
        }
        let began = std::time::Instant::now();
        let replayed = again.call(&recorded.call).await?;
        let is_same = replayed == recorded.outcome;
        replay.calls.push(ReplayedCall {
            question: recorded.call.clone(),
            recorded: recorded.outcome.clone(),
            replayed,
            is_same,
            seconds: began.elapsed().as_secs_f64(),
        });
        replay.divergence = again.divergence(recorded);
        replay.request_divergence = playback.exchanges.divergence();
        if !replay.is_same() {
            break;
        }
    }
    Ok(replay)
}

/// Why a recording could not be replayed at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// A part of it cannot be read.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// Its component does not load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The recording contradicts itself.
    #[error("the recording cannot be replayed: {0}")]
    Impossible(String),
}

/// Who answers.
enum Acting {
    Nobody,
    Policy(Box<Policy>),
    Validator(Box<Validator>),
    Adapter(Box<Adapter>),
}

/// An instance that lives again.
struct Again<'a> {
    sandbox: &'a Sandbox,
    recordings: &'a Recordings,
    plugin: Plugin,
    config: &'a Value,
    context: CallContext,
    acting: Acting,
}

impl Again<'_> {
    /// Makes a call again. What it comes to is said as a recording says it.
    async fn call(&mut self, call: &Call) -> Result<Outcome, ReplayError> {
        match call {
            Call::ConfigurePolicy => {
                let policy = self.plugin.policy(&self.context, self.config).await;
                let outcome = Outcome::of(&policy, |_| Value::Null);
                if let Ok(policy) = policy {
                    self.acting = Acting::Policy(Box::new(policy));
                }
                Ok(outcome)
            }
            Call::Decide { request } => {
                let Acting::Policy(policy) = &mut self.acting else {
                    return Err(out_of_turn(call));
                };
                Ok(Outcome::of(&policy.decide(request).await, answers::value))
            }
            Call::ConfigureValidator { schema } => {
                let schema = self.batch(schema)?.schema();
                let (context, config) = (&self.context, self.config);
                let validator = self.plugin.validator(context, config, &schema).await;
                let outcome = Outcome::of(&validator, |it| answers::value(&it.rules()));
                if let Ok(validator) = validator {
                    self.acting = Acting::Validator(Box::new(validator));
                }
                Ok(outcome)
            }
            Call::Check { rows } => {
                let rows = self.batch(rows)?;
                let Acting::Validator(validator) = &mut self.acting else {
                    return Err(out_of_turn(call));
                };
                Ok(Outcome::of(&validator.check(&rows).await, answers::value))
            }
            Call::Judge => {
                let Acting::Validator(validator) = &mut self.acting else {
                    return Err(out_of_turn(call));
                };
                Ok(Outcome::of(&validator.judge().await, answers::value))
            }
            Call::Open => {
                let adapter = self.plugin.adapter(&self.context).await;
                let outcome = Outcome::of(&adapter, |_| Value::Null);
                if let Ok(adapter) = adapter {
                    self.acting = Acting::Adapter(Box::new(adapter));
                }
                Ok(outcome)
            }
            Call::Describe => {
                let adapter = self.adapter(call)?;
                Ok(Outcome::of(&adapter.describe().await, answers::value))
            }
            Call::Declare {
                task,
                cardinalities,
                hyperparameters,
            } => {
                let adapter = self.adapter(call)?;
                let declared = adapter.declare(task, cardinalities, hyperparameters).await;
                Ok(Outcome::of(&declared, answers::declaration))
            }
            Call::Train {
                task,
                hyperparameters,
                seed,
                training,
                validation,
                precision,
            } => {
                let validation = validation.as_ref().map(|rows| self.recordings.rows(rows));
                let input = TrainInput {
                    task: task.clone(),
                    hyperparameters: hyperparameters.clone(),
                    seed: *seed,
                    training: self.recordings.rows(training)?,
                    validation: validation.transpose()?,
                    progress: None,
                    checkpoints: None,
                    precision: *precision,
                };
                let trained = self.adapter(call)?.train(input).await;
                Ok(Outcome::of(&trained, answers::trained))
            }
            Call::Predict { model, rows } => {
                let (model, rows) = (self.model(model)?, self.batch(rows)?);
                let predicted = self.adapter(call)?.predict(&model, &rows).await;
                answers::rows(&predicted).map_err(ReplayError::Impossible)
            }
            Call::Generate {
                model,
                prompts,
                options,
            } => {
                let (model, prompts) = (self.model(model)?, self.batch(prompts)?);
                let adapter = self.adapter(call)?;
                let written = adapter.generate(&model, &prompts, options, None).await;
                answers::rows(&written).map_err(ReplayError::Impossible)
            }
        }
    }

    fn adapter(&mut self, call: &Call) -> Result<&mut Adapter, ReplayError> {
        match &mut self.acting {
            Acting::Adapter(adapter) => Ok(adapter),
            _ => Err(out_of_turn(call)),
        }
    }

    fn batch(&self, digest: &Digest) -> Result<RecordBatch, ReplayError> {
        let mut rows = self.recordings.rows(digest)?;
        match rows.len() {
            1 => Ok(rows.remove(0)),
            count => Err(unreadable(
                digest,
                format!("it holds {count} batches where one was lent"),
            )),
        }
    }

    fn model(&self, digest: &Digest) -> Result<Arc<Model>, ReplayError> {
        let bytes = self.recordings.get(digest)?;
        let model = Model::from_bytes(&bytes, self.sandbox);
        let model = model.map_err(|error| unreadable(digest, error.to_string()))?;
        Ok(Arc::new(model))
    }

    /// Where the instance first differed, once a call has ended.
    fn divergence(&mut self, recorded: &RecordedCall) -> Option<Divergence> {
        let instance = match &mut self.acting {
            Acting::Nobody => return None,
            Acting::Policy(policy) => policy.instance(),
            Acting::Validator(validator) => validator.instance(),
            Acting::Adapter(adapter) => adapter.instance(),
        };
        instance.divergence(recorded.host_calls)
    }
}

fn out_of_turn(call: &Call) -> ReplayError {
    ReplayError::Impossible(format!("`{}` comes out of turn in it", call.name()))
}

fn unreadable(digest: &Digest, reason: String) -> ReplayError {
    ReplayError::Recording(RecordingError::Format {
        digest: *digest,
        reason,
    })
}
