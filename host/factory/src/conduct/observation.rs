//! What a component did in one stage of one run, as the audit log has it.

use std::collections::BTreeMap;

use sandcast_audit::{Digest, PluginRef, RunId};
use serde::{Deserialize, Serialize};

/// What a component did in one stage of one run, all its instances together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// The component.
    pub plugin: PluginRef,
    /// The run.
    pub run: RunId,
    /// The stage.
    pub stage: String,
    /// The last entry of the audit log about it.
    pub sequence: u64,
    /// Instances that ended.
    pub instances: u64,
    /// Calls into the host, by function.
    pub calls: BTreeMap<String, u64>,
    /// Bytes copied into it.
    pub bytes_in: u64,
    /// Bytes copied out of it.
    pub bytes_out: u64,
    /// Seconds spent inside it.
    pub guest_seconds: f64,
    /// The most linear memory that an instance held.
    pub peak_memory_bytes: u64,
    /// The most that one instance came to.
    pub most: Most,
    /// Requests by where they went: method, host and the beginning of the path.
    pub targets: BTreeMap<String, u64>,
    /// Bytes of the bodies of requests.
    pub sent_bytes: u64,
    /// Bytes of the bodies of answers.
    pub received_bytes: u64,
    /// How often it was denied something, by capability.
    pub denials: BTreeMap<String, u64>,
    /// Instances that were ended because they went beyond what is usual.
    pub strayed: u64,
}

/// The most that one instance came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Most {
    /// Calls into the host.
    pub calls: u64,
    /// Bytes copied into it.
    pub bytes_in: u64,
    /// Bytes copied out of it.
    pub bytes_out: u64,
    /// Seconds spent inside it.
    pub guest_seconds: f64,
}

impl Observation {
    pub(crate) fn new(plugin: PluginRef, run: RunId, stage: String) -> Self {
        Self {
            plugin,
            run,
            stage,
            sequence: 0,
            instances: 0,
            calls: BTreeMap::new(),
            bytes_in: 0,
            bytes_out: 0,
            guest_seconds: 0.0,
            peak_memory_bytes: 0,
            most: Most::default(),
            targets: BTreeMap::new(),
            sent_bytes: 0,
            received_bytes: 0,
            denials: BTreeMap::new(),
            strayed: 0,
        }
    }
}

/// A run as far as its observations need it, or a stretch of time in which a model was served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunFacts {
    pub(crate) pipeline: String,
    pub(crate) config: Digest,
    /// The stages that ended well.
    pub(crate) stages: BTreeMap<String, StageFacts>,
    /// Whether it will be judged: it is not from before there was judging.
    pub(crate) is_judged: bool,
    /// The components that were judged, and those of them that deviated.
    pub(crate) scored: Option<Scored>,
    /// How it ended, if it has.
    pub(crate) outcome: Option<String>,
    /// Whether it is no run, but a stretch of time in which a model was served.
    #[serde(default)]
    pub(crate) served: bool,
}

impl RunFacts {
    /// Whether it is still to be judged.
    pub(crate) fn is_open(&self) -> bool {
        // What was served is judged by the server that writes it down, or by nobody.
        self.scored.is_none() && (self.is_judged || self.outcome.is_none()) && !self.served
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct StageFacts {
    pub(crate) rows: Option<u64>,
    /// Its output was there from an earlier run.
    pub(crate) kept: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Scored {
    pub(crate) deviating: Vec<Digest>,
}

/// Where conduct is compared: the same stage of the same pipeline, and whether the stage had to do
/// its work. What a plugin is configured to do differs between places.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The pipeline.
    pub pipeline: String,
    /// The stage.
    pub stage: String,
    /// Whether the output of the stage was kept from an earlier run, so that there was less to do.
    pub kept: bool,
}

/// What the name of a pipeline begins with that is none.
const SERVED: &str = "the served model ";

impl Place {
    /// Where the adapter of a model answers on a server. No pipeline has such a name.
    pub(crate) fn serving(model: &str) -> String {
        format!("{SERVED}{model}")
    }

    /// Whether that is on a server: how large what it reads is, others say.
    pub(crate) fn is_served(&self) -> bool {
        self.pipeline.starts_with(SERVED)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} of {}", self.stage, self.pipeline)?;
        if self.kept {
            formatter.write_str(", kept")?;
        }
        Ok(())
    }
}

/// What an observation is worth as a lesson.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lesson {
    /// The run goes on, was cut off or was not judged, or its stage did not end well: it teaches
    /// nothing.
    Open,
    /// It deviated, and nobody has said that this is right: it teaches nothing.
    Deviating,
    /// It was as usual, or there was nothing yet to hold it against.
    Usual,
    /// An operator looked at what the component did until then and took it.
    Accepted,
}

/// An observation with what is known of its run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// What the component did.
    #[serde(flatten)]
    pub observation: Observation,
    /// Where.
    pub place: Place,
    /// The digest of the pipeline's configuration.
    pub config: Digest,
    /// Rows that went into the stage, where it ended well and counts rows.
    pub rows: Option<u64>,
    /// What it is worth as a lesson.
    pub lesson: Lesson,
}

impl Seen {
    pub(crate) fn new(observation: Observation, run: &RunFacts, accepted_until: u64) -> Self {
        let digest = observation.plugin.digest;
        let stage = run.stages.get(&observation.stage);
        let lesson = match (&run.scored, &run.outcome, stage) {
            _ if stage.is_some() && observation.sequence <= accepted_until => Lesson::Accepted,
            (Some(scored), ..) if scored.deviating.contains(&digest) => Lesson::Deviating,
            (Some(_), _, Some(_)) => Lesson::Usual,
            // A run from before conduct was looked at.
            (None, Some(outcome), Some(_))
                if !run.is_judged && matches!(&**outcome, "completed" | "rejected") =>
            {
                Lesson::Usual
            }
            _ => Lesson::Open,
        };
        Self {
            place: Place {
                pipeline: run.pipeline.clone(),
                stage: observation.stage.clone(),
                kept: stage.is_some_and(|stage| stage.kept),
            },
            config: run.config,
            rows: stage.and_then(|stage| stage.rows),
            lesson,
            observation,
        }
    }

    pub(crate) fn is_learned(&self) -> bool {
        matches!(self.lesson, Lesson::Usual | Lesson::Accepted)
    }
}
