//! Instances that run in processes of their own: with a Store there, or with their Store here and only
//! their guest there.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{Begun, Instance, outcome_of};
use crate::call::{CallError, Failure, Usage};
use crate::conduct::Watch;
use crate::effect::Actor;
use crate::limits::TimeLimit;
use crate::plugin::Ends;
use crate::process::{self, Apart, GRACE_APART, MAX_ANSWER_BYTES, Question, Reply, Wire};
use crate::recording::Recorder;
use crate::sandbox::Place;

/// An instance whose Store is in another process.
pub(super) struct Far {
    pub(super) process: Apart,
    pub(super) usage: Usage,
    pub(super) host_calls: u64,
    /// How much it is slowed down.
    pub(super) watch: Watch,
    /// Whether it has answered what it was asked last, so that it can be asked how it ended.
    pub(super) answers: bool,
}

impl Instance {
    /// One whose guest runs in another process and asks for everything here.
    pub(crate) fn asked_by(mut self, process: Apart) -> Self {
        self.guest = Some(process);
        self
    }

    /// One that runs in another process.
    pub(crate) fn apart(
        process: Apart,
        actor: Arc<Actor>,
        watch: Watch,
        place: Place,
        (ends, recorder): (Ends, Option<Recorder>),
    ) -> Self {
        let mut instance = Self::bare(actor, ends, Arc::new(place), recorder);
        instance.far = Some(Far {
            process,
            usage: Usage::default(),
            host_calls: 0,
            watch,
            answers: true,
        });
        instance
    }

    /// Asks an instance in another process: what its guest returned, which is words.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &mut self,
        question: &Question,
        rows: Option<&[u8]>,
    ) -> Result<T, CallError> {
        let (outcome, _) = self.asked(question, rows).await?;
        self.returned(outcome)
    }

    /// The same where what it returned is more than words.
    pub(crate) async fn ask_said<T: Wire>(
        &mut self,
        question: &Question,
        rows: Option<&[u8]>,
    ) -> Result<T, CallError> {
        match self.asked(question, rows).await? {
            (process::Outcome::Said, value) => process::value_of(&value, MAX_ANSWER_BYTES)
                .map_err(|error| self.bad_output(format!("what its role does not have: {error}"))),
            (process::Outcome::Returned(_), _) => {
                Err(self.bad_output("what its role does not have"))
            }
            (process::Outcome::Failed(failure), _) => Err(self.failed(failure)),
            (process::Outcome::Ended(error), _) => Err(self.ended(error)),
        }
    }

    async fn asked(
        &mut self,
        question: &Question,
        rows: Option<&[u8]>,
    ) -> Result<(process::Outcome, Vec<u8>), CallError> {
        if self.far.is_none() {
            let (reply, value) = self.converse(question, rows).await?;
            return Ok((reply.outcome, value));
        }
        if self.in_call {
            // An earlier question was dropped half-way; its answer would be taken for this one's.
            self.close("cancelled");
        }
        let Some(far) = &mut self.far else {
            return Err(CallError::Ended {
                plugin: self.plugin.clone(),
                stage: self.stage.clone(),
            });
        };
        self.in_call = true;
        far.answers = false;
        let limits = &self.actor.identity.grants.limits;
        let call_limit = limits.call_timeout.duration();
        let patience = call_limit.min(limits.total_timeout.duration());
        let patience = far.watch.patience(patience);
        // The process keeps the time itself; this is for one that does not.
        let asked = timeout(patience * 2 + GRACE_APART, far.process.ask(question, rows)).await;
        self.in_call = false;
        let (reply, value) = match asked {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                let error = CallError::Trap {
                    plugin: self.plugin.clone(),
                    stage: self.stage.clone(),
                    cause: process::gone_in_words(&error),
                };
                self.close(outcome_of(&error));
                return Err(error);
            }
            Err(_) => {
                let error = CallError::Timeout {
                    plugin: self.plugin.clone(),
                    stage: self.stage.clone(),
                    limit: TimeLimit::Call.key().to_owned(),
                    limit_seconds: call_limit.as_secs_f64(),
                };
                self.close(outcome_of(&error));
                return Err(error);
            }
        };
        far.answers = true;
        far.usage = reply.usage;
        far.host_calls = reply.host_calls;
        let run = self.actor.context.run.as_ref();
        let run = run.map_or("", |run| run.as_str());
        process::tell(&reply.lines, &self.actor.identity, (run, &self.stage));
        for denial in reply.denials {
            self.actor
                .deny_with(&denial.capability, denial.detail, denial.grant_with);
        }
        if let Some(lost) = self.actor.lost().map(str::to_owned) {
            let error = self.unwritten(&lost);
            self.close(outcome_of(&error));
            return Err(error);
        }
        if let Some(over) = self.actor.over() {
            let error = self.over_limit(over);
            self.close(outcome_of(&error));
            return Err(error);
        }
        Ok((reply.outcome, value))
    }

    /// What a guest in another process returned.
    fn returned<T: DeserializeOwned>(&mut self, outcome: process::Outcome) -> Result<T, CallError> {
        match outcome {
            process::Outcome::Returned(value) => serde_json::from_str(value.get())
                .map_err(|error| self.bad_output(format!("what its role does not have: {error}"))),
            process::Outcome::Said => Err(self.bad_output("what its role does not have")),
            process::Outcome::Failed(failure) => Err(self.failed(failure)),
            process::Outcome::Ended(error) => Err(self.ended(error)),
        }
    }

    /// The process has said that its instance ended.
    fn ended(&mut self, error: CallError) -> CallError {
        let error = error.of(&self.plugin, &self.stage);
        self.close(outcome_of(&error));
        error
    }

    /// Asks a guest in another process, whose Store is here: what it returned, or why it failed.
    pub(crate) async fn ask_apart<T: Wire>(
        &mut self,
        question: &Question,
        arguments: &impl Wire,
    ) -> Result<Result<T, Failure>, CallError> {
        let arguments = process::bytes_of(arguments);
        let (reply, value) = self.converse(question, Some(&arguments)).await?;
        match reply.outcome {
            process::Outcome::Said => match process::value_of(&value, MAX_ANSWER_BYTES) {
                Ok(value) => Ok(Ok(value)),
                Err(error) => Err(self.bad_output(format!("what its role does not have: {error}"))),
            },
            process::Outcome::Failed(failure) => Ok(Err(failure)),
            _ => Err(self.bad_output("what its role does not have")),
        }
    }

    /// A call into a guest in another process, whose Store is here.
    async fn converse(
        &mut self,
        question: &Question,
        arguments: Option<&[u8]>,
    ) -> Result<(Reply, Vec<u8>), CallError> {
        // It comes back once it has answered. A call that is dropped half-way drops it too.
        let Some(mut process) = self.guest.take() else {
            self.close("cancelled");
            return Err(CallError::Ended {
                plugin: self.plugin.clone(),
                stage: self.stage.clone(),
            });
        };
        let Begun { store, patience } = self.begin()?;
        let conversation = process.converse(store.data_mut(), question, arguments);
        let asked = timeout(patience + GRACE_APART, conversation).await;
        if matches!(asked, Ok(Ok(_))) {
            self.guest = Some(process);
        }
        self.end(asked)
    }

    /// Whether what its guest is lent is here, and is not sent along.
    pub(crate) fn lends(&self) -> bool {
        self.far.is_none()
    }

    /// An instance that ended as it should leaves its process to the next one.
    pub(super) fn close_far(&mut self, far: Far, outcome: &str) {
        let mut usage = far.usage;
        if far.answers
            && let Some(last) = far.process.end(outcome == "finished")
        {
            usage = last.usage;
            self.traced = last.traced;
        }
        self.record_end(&self.actor, None, &usage, outcome);
        self.lost = self.actor.lost().map(str::to_owned);
        self.usage = Some(usage);
        self.place.ended(outcome);
    }
}
