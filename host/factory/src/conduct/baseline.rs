//! What a component usually does in one place: the lessons that count, and what they say.

use std::collections::{BTreeMap, BTreeSet};

use sandcast_audit::Digest;
use serde::Serialize;

use super::observation::{Lesson, Observation, Place, Seen};
use super::statistics::{Scale, median};

/// Lessons of one place that are looked at, the latest.
const MAX_LESSONS: usize = 64;

/// One run teaches nothing new: what it did for the first time is known once a second run, or an
/// operator, has it.
const RUNS_TO_BE_KNOWN: usize = 2;

/// What a component usually does in one place.
#[derive(Debug, Clone, PartialEq)]
pub struct Baseline {
    /// The lessons, oldest first.
    pub lessons: Vec<Seen>,
    /// Whether they are of other components of the same id, because the component itself has not
    /// run often enough.
    pub inherited: bool,
}

impl Baseline {
    /// What there is to hold a component against in a place, if it is enough.
    ///
    /// Its own lessons count where there are enough of them; else those of all components of its
    /// id, which is how a new version is held to what the one before it did.
    pub(crate) fn of(seen: &[Seen], digest: &Digest, place: &Place, runs: u32) -> Option<Self> {
        let here = || {
            seen.iter()
                .filter(|seen| seen.place == *place && seen.is_learned())
        };
        let is_enough = |lessons: &[Seen]| lessons.len() >= runs as usize;
        let latest = |mut lessons: Vec<Seen>| {
            let old = lessons.len().saturating_sub(MAX_LESSONS);
            lessons.drain(..old);
            lessons
        };
        let is_own = |seen: &&Seen| seen.observation.plugin.digest == *digest;
        let own = latest(here().filter(is_own).cloned().collect());
        if is_enough(&own) {
            return Some(Self {
                lessons: own,
                inherited: false,
            });
        }
        let all = latest(here().cloned().collect());
        is_enough(&all).then(|| Self {
            inherited: all.iter().any(|seen| !is_own(&seen)),
            lessons: all,
        })
    }

    /// Whether something is known: done in two lessons, or in one that an operator has taken.
    pub(crate) fn knows(&self, did: impl Fn(&Observation) -> bool) -> bool {
        let lessons = self.lessons.iter().filter(|seen| did(&seen.observation));
        let (mut runs, mut accepted) = (0, false);
        for seen in lessons {
            runs += 1;
            accepted |= seen.lesson == Lesson::Accepted;
        }
        accepted || runs >= RUNS_TO_BE_KNOWN
    }

    /// Whether the beginnings of paths on a host tell nothing: there are too many of them, or most
    /// runs bring new ones.
    pub(crate) fn has_open_paths(&self, host: &str) -> bool {
        /// Beginnings of paths of one host.
        const MAX_PATHS: usize = 16;
        let mut known: BTreeSet<&str> = BTreeSet::new();
        let (mut asking, mut bringing) = (0_usize, 0_usize);
        for seen in &self.lessons {
            let targets = seen.observation.targets.keys();
            let before = known.len();
            let mut asks = false;
            for target in targets.filter(|target| host_of(target) == host) {
                asks = true;
                known.insert(target);
            }
            asking += usize::from(asks);
            bringing += usize::from(asks && known.len() > before);
        }
        // The first run that asks always brings some.
        known.len() > MAX_PATHS || (asking >= 4 && (bringing - 1) * 2 > asking)
    }

    /// The functions of the host that it calls, each with its share of all calls and how often it
    /// is called in the median run.
    #[must_use]
    pub fn call_mix(&self) -> Vec<FunctionUse> {
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for seen in &self.lessons {
            for (function, calls) in &seen.observation.calls {
                let sum: &mut u64 = sums.entry(function).or_default();
                *sum = sum.saturating_add(*calls);
            }
        }
        let all = sums.values().copied().fold(0, u64::saturating_add);
        let mut mix: Vec<FunctionUse> = sums
            .into_iter()
            .map(|(function, calls)| {
                let called = |seen: &Observation| seen.calls.get(function).copied().unwrap_or(0);
                FunctionUse {
                    function: function.to_owned(),
                    share: calls as f64 / all.max(1) as f64,
                    per_run: self.middle(|seen| called(seen) as f64),
                    per_instance: self
                        .middle(|seen| called(seen) as f64 / seen.instances.max(1) as f64),
                    per_row: self.per_row(|seen| called(seen) as f64),
                }
            })
            .collect();
        mix.sort_by(|one, other| other.share.total_cmp(&one.share));
        mix
    }

    /// The median of something over the lessons.
    pub(crate) fn middle(&self, of: impl Fn(&Observation) -> f64) -> f64 {
        let mut values: Vec<f64> = self.lessons.iter().map(|it| of(&it.observation)).collect();
        median(&mut values).unwrap_or(0.0)
    }

    /// The median of something for each row, where rows are counted.
    pub(crate) fn per_row(&self, of: impl Fn(&Observation) -> f64) -> Option<f64> {
        let by_row = |seen: &Seen| Some(of(&seen.observation) / seen.rows? as f64);
        let mut values: Vec<f64> = self
            .lessons
            .iter()
            .filter(|seen| seen.rows.is_some_and(|rows| rows > 0))
            .filter_map(by_row)
            .collect();
        median(&mut values)
    }

    /// Functions and targets that are known, whoever asks how often.
    pub(crate) fn union(&self, of: impl Fn(&Observation) -> Vec<&String>) -> BTreeSet<String> {
        let all = self.lessons.iter().flat_map(|seen| of(&seen.observation));
        all.cloned().collect()
    }
}

/// A function of the host as a component uses it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FunctionUse {
    /// The function, such as `http.handle`.
    pub function: String,
    /// Its share of all calls.
    pub share: f64,
    /// Calls of the median run.
    pub per_run: f64,
    /// Calls of an instance in the median run.
    pub per_instance: f64,
    /// Calls for each row in the median run, where rows are counted.
    pub per_row: Option<f64>,
}

/// What is measured of an observation, with how.
pub(crate) fn measures(seen: &Observation) -> Vec<(String, f64, Scale)> {
    let requests: u64 = seen.targets.values().sum();
    let mut all = vec![
        ("instances".to_owned(), seen.instances as f64, Scale::COUNT),
        ("bytes-in".to_owned(), seen.bytes_in as f64, Scale::BYTES),
        ("bytes-out".to_owned(), seen.bytes_out as f64, Scale::BYTES),
        (
            "guest-seconds".to_owned(),
            seen.guest_seconds,
            Scale::SECONDS,
        ),
        (
            "peak-memory".to_owned(),
            seen.peak_memory_bytes as f64,
            Scale::MEMORY,
        ),
        ("requests".to_owned(), requests as f64, Scale::COUNT),
        (
            "sent-bytes".to_owned(),
            seen.sent_bytes as f64,
            Scale::BYTES,
        ),
        (
            "received-bytes".to_owned(),
            seen.received_bytes as f64,
            Scale::BYTES,
        ),
    ];
    let weighed = seen.calls.iter().filter(|(name, _)| weight(name) > 0.0);
    all.extend(weighed.map(|(name, calls)| (format!("calls:{name}"), *calls as f64, Scale::COUNT)));
    all
}

/// The value of a measure.
pub(crate) fn value_of(measure: &str, seen: &Observation) -> f64 {
    let calls = |name: &str| seen.calls.get(name).copied().unwrap_or(0) as f64;
    match measure.strip_prefix("calls:") {
        Some(name) => calls(name),
        None => measures(seen)
            .into_iter()
            .find(|(name, ..)| name == measure)
            .map_or(0.0, |(_, value, _)| value),
    }
}

/// How much it says that a function is called for the first time. What everybody is given depends
/// on the data: a rule that fails for the first time is logged for the first time.
pub(crate) fn weight(function: &str) -> f64 {
    match function.split('.').next().unwrap_or_default() {
        "log" | "config" => 0.0,
        "batch" | "dataset" | "models" => 5.0,
        _ => 10.0,
    }
}

/// A target without the beginning of its path.
pub(crate) fn host_of(target: &str) -> &str {
    let after_scheme = target.find("://").map_or(0, |place| place + 3);
    let path = target[after_scheme..].find('/');
    path.map_or(target, |path| &target[..after_scheme + path])
}
