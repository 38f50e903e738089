//! What is known of a plugin, for whoever asks.

use std::path::Path;

use sandcast_audit::{Digest, Entry, PluginRef, RunId};
use serde::Serialize;

use super::baseline::{Baseline, FunctionUse, host_of};
use super::cache::Cache;
use super::observation::{Lesson, Place, Seen};
use super::standing::{self, StandingRecord};
use super::{Conduct, ConductError};

/// Everything that is known of a component.
#[derive(Debug, Clone, Serialize)]
pub struct PluginTold {
    /// The component.
    pub plugin: PluginRef,
    /// Its standing, if it has one.
    pub standing: Option<StandingRecord>,
    /// What it usually does, by place.
    pub places: Vec<PlaceTold>,
    /// Changes of its standing, and its deviations, oldest first: entries of the audit log.
    pub history: Vec<Entry>,
}

/// What a component does in one place.
#[derive(Debug, Clone, Serialize)]
pub struct PlaceTold {
    /// The place.
    pub place: Place,
    /// Runs that count as lessons.
    pub learned: usize,
    /// Whether they are those of another component of its id, too.
    pub inherited: bool,
    /// Whether there are enough of them to judge by.
    pub is_known: bool,
    /// The functions that it calls.
    pub calls: Vec<FunctionUse>,
    /// Where its requests go.
    pub targets: Vec<String>,
    /// Hosts of which the beginnings of paths are not told apart, because there are so many.
    pub open_hosts: Vec<String>,
    /// Bytes that it takes in, of the median run.
    pub bytes_in: f64,
    /// Bytes that it hands out.
    pub bytes_out: f64,
    /// Its own time.
    pub guest_seconds: f64,
    /// Its memory.
    pub peak_memory_bytes: f64,
    /// Everything it did there, oldest first.
    pub seen: Vec<Seen>,
}

impl Conduct {
    /// The components that are known, by id and then the latest first; each with its standing, if
    /// it has one.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn list(&self) -> Result<Vec<(PluginRef, Option<StandingRecord>)>, ConductError> {
        self.catch_up()?;
        let standings = self.cache.standings()?;
        let mut all: Vec<(PluginRef, Option<StandingRecord>)> = standings
            .into_iter()
            .map(|record| (record.plugin.clone(), Some(record)))
            .collect();
        for plugin in self.cache.components()? {
            if !all.iter().any(|(known, _)| known.digest == plugin.digest) {
                all.push((plugin, None));
            }
        }
        all.sort_by(|(one, _), (other, _)| one.id.cmp(&other.id));
        Ok(all)
    }

    /// What every component did in a run, by id and stage.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn seen_in(&self, run: &RunId) -> Result<Vec<Seen>, ConductError> {
        self.catch_up()?;
        self.cache.of_run(run)
    }

    /// The components that a text names: an id, or eight digits or more of a digest.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn named(&self, text: &str) -> Result<Vec<PluginRef>, ConductError> {
        let all = self.list()?.into_iter().map(|(plugin, _)| plugin);
        Ok(all
            .filter(|plugin| standing::is_named(plugin, text))
            .collect())
    }

    /// Everything that is known of a component, held to a number of runs to learn from.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn tell(&self, plugin: &PluginRef, runs: u32) -> Result<PluginTold, ConductError> {
        self.catch_up()?;
        tell(&self.cache, plugin, runs)
    }
}

/// The standing of a component in a state folder, without opening the state for writing. Reads
/// the whole log.
///
/// # Errors
/// If the log cannot be read.
pub fn standing_in(folder: &Path, digest: &Digest) -> Result<Option<StandingRecord>, ConductError> {
    let log = folder.join("audit");
    if !log.join("log.jsonl").is_file() {
        return Ok(None);
    }
    let cache = Cache::in_memory()?;
    cache.catch_up(&log)?;
    cache.standing(digest)
}

fn tell(cache: &Cache, plugin: &PluginRef, runs: u32) -> Result<PluginTold, ConductError> {
    let seen = cache.seen(&plugin.id, &plugin.role)?;
    let own = |seen: &&Seen| seen.observation.plugin.digest == plugin.digest;
    let mut places: Vec<&Place> = seen.iter().filter(own).map(|seen| &seen.place).collect();
    places.sort();
    places.dedup();
    let told = places.into_iter().map(|place| {
        let here = seen.iter().filter(own).filter(|seen| seen.place == *place);
        let known = Baseline::of(&seen, &plugin.digest, place, runs);
        let is_known = known.is_some();
        let baseline = known.unwrap_or_else(|| Baseline {
            lessons: here.clone().filter(|it| it.is_learned()).cloned().collect(),
            inherited: false,
        });
        let targets = baseline.union(|seen| seen.targets.keys().collect());
        let mut hosts: Vec<&str> = targets.iter().map(|target| host_of(target)).collect();
        hosts.dedup();
        hosts.retain(|host| baseline.has_open_paths(host));
        PlaceTold {
            place: place.clone(),
            learned: baseline.lessons.len(),
            inherited: baseline.inherited,
            is_known,
            calls: baseline.call_mix(),
            open_hosts: hosts.into_iter().map(str::to_owned).collect(),
            bytes_in: baseline.middle(|seen| seen.bytes_in as f64),
            bytes_out: baseline.middle(|seen| seen.bytes_out as f64),
            guest_seconds: baseline.middle(|seen| seen.guest_seconds),
            peak_memory_bytes: baseline.middle(|seen| seen.peak_memory_bytes as f64),
            targets: targets.into_iter().collect(),
            seen: here.cloned().collect(),
        }
    });
    Ok(PluginTold {
        plugin: plugin.clone(),
        standing: cache.standing(&plugin.digest)?,
        places: told.collect(),
        history: cache.history(&plugin.digest)?,
    })
}

impl PlaceTold {
    /// A measure of every run that was learned or deviated, oldest first, for a plot.
    pub fn over_runs(&self, of: impl Fn(&Seen) -> f64) -> Vec<f64> {
        let ended = |seen: &&Seen| seen.lesson != Lesson::Open;
        self.seen.iter().filter(ended).map(of).collect()
    }
}
