//! After a run: scores what every component did, writes it down, and answers it.

use std::collections::BTreeMap;

use sandcast_audit::{Digest, Event, PluginRef, RunId, Standing};
use serde::{Deserialize, Serialize};

use super::baseline::Baseline;
use super::observation::Seen;
use super::rules::{ConductSection, Response};
use super::score::{self, Deviation};
use super::standing::{Change, StandingRecord};
use super::{Conduct, ConductError};

/// What a run came to in the conduct of its plugins.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The components that ran.
    pub plugins: Vec<JudgedPlugin>,
}

/// What a run came to in the conduct of one component.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JudgedPlugin {
    /// The component.
    pub plugin: PluginRef,
    /// Places in which there was something to hold it against.
    pub scored: u32,
    /// Places in which there is not enough yet.
    pub learning: u32,
    /// What was otherwise than usual.
    pub deviations: Vec<Deviation>,
    /// What is done where it deviates.
    pub response: Response,
    /// Its standing now.
    pub standing: Option<Standing>,
    /// Whether its instances are slowed down from now on.
    pub throttled: bool,
}

impl Judged {
    /// What is worth a warning: a sentence for each deviation and each answer.
    pub fn warnings(&self) -> Vec<String> {
        let mut told = Vec::new();
        for judged in self.plugins.iter().filter(|it| !it.deviations.is_empty()) {
            let id = &judged.plugin.id;
            for deviation in &judged.deviations {
                told.push(format!("{id} in {}: {}", deviation.place, deviation.reason));
            }
            let digest = super::standing::short(&judged.plugin.digest);
            let answer = match (judged.standing, judged.throttled) {
                (Some(Standing::Quarantined), _) => format!(
                    "{id} is quarantined and not loaded again until `sandcast plugins release \
                     {digest} --reason TEXT`"
                ),
                (_, true) => format!(
                    "{id} is slowed down from now on, until `sandcast plugins release \
                     {digest} --reason TEXT`"
                ),
                _ => format!(
                    "nothing of this is learned; if it is right: `sandcast plugins trust {digest} \
                     --reason TEXT`"
                ),
            };
            told.push(answer);
        }
        told
    }
}

impl Conduct {
    /// Judges a run: scores what its components did, writes deviations and answers to the audit
    /// log, and, as the last entry, that this was done. One that was judged before is not again,
    /// and one that was cut off in between is judged once more.
    ///
    /// # Errors
    /// If the log cannot be read or written.
    pub fn judge(
        &self,
        run: &RunId,
        rules: &ConductSection,
        response: impl Fn(&PluginRef) -> Response,
    ) -> Result<Judged, ConductError> {
        self.judge_by(run, rules, response, next)
    }

    /// The same for a stretch of time in which a model was served: nobody becomes trusted by that.
    ///
    /// # Errors
    /// If the log cannot be read or written.
    pub(crate) fn judge_served(
        &self,
        stretch: &RunId,
        rules: &ConductSection,
        response: Response,
    ) -> Result<Judged, ConductError> {
        self.judge_by(
            stretch,
            rules,
            |_| response,
            |record, judged, rules| {
                next(record, judged, rules).filter(|(to, ..)| *to != Standing::Trusted)
            },
        )
    }

    fn judge_by(
        &self,
        run: &RunId,
        rules: &ConductSection,
        response: impl Fn(&PluginRef) -> Response,
        next: Next,
    ) -> Result<Judged, ConductError> {
        self.catch_up()?;
        let mut by_component: BTreeMap<Digest, Vec<Seen>> = BTreeMap::new();
        for seen in self.cache.of_run(run)? {
            let digest = seen.observation.plugin.digest;
            by_component.entry(digest).or_default().push(seen);
        }
        let mut judged = Judged::default();
        let mut deviating = Vec::new();
        for (digest, did) in &by_component {
            let Some(first) = did.first() else { continue };
            let plugin = &first.observation.plugin;
            let mut one = JudgedPlugin {
                plugin: plugin.clone(),
                scored: 0,
                learning: 0,
                deviations: Vec::new(),
                response: response(plugin),
                standing: None,
                throttled: false,
            };
            let known = self.cache.seen(&plugin.id, &plugin.role)?;
            for seen in did {
                match Baseline::of(&known, digest, &seen.place, rules.runs) {
                    Some(baseline) => {
                        one.scored += 1;
                        let found = score::deviations(seen, &baseline, rules.threshold);
                        one.deviations.extend(found);
                    }
                    None => one.learning += 1,
                }
            }
            for deviation in &one.deviations {
                self.audit.append(Event::ConductDeviated {
                    run: Some(run.clone()),
                    plugin: plugin.clone(),
                    stage: deviation.place.stage.clone(),
                    measure: deviation.measure.clone(),
                    score: deviation.score,
                    observed: deviation.observed,
                    usual: deviation.usual,
                    reason: deviation.reason.clone(),
                })?;
            }
            if !one.deviations.is_empty() {
                deviating.push(*digest);
            }
            let record = self.answer(run, rules, &one, next)?;
            one.standing = record.as_ref().map(|record| record.standing);
            one.throttled = record.is_some_and(|record| record.throttled);
            judged.plugins.push(one);
        }
        // Last: what was cut off before this is done again.
        self.audit.append(Event::ConductScored {
            run: run.clone(),
            plugins: by_component.into_keys().collect(),
            deviating,
        })?;
        self.catch_up()?;
        Ok(judged)
    }

    /// Judges the runs that a process left behind when it was killed. Only for whoever has the lock
    /// of runs: another's run would look the same.
    pub(crate) fn judge_left(
        &self,
        rules: &ConductSection,
        response: impl Fn(&PluginRef) -> Response,
    ) -> Result<(), ConductError> {
        self.catch_up()?;
        for run in self.cache.open_runs()? {
            let judged = self.judge(&run, rules, &response)?;
            for warning in judged.warnings() {
                tracing::warn!(run.id = %run, "of a run that was cut off: {warning}");
            }
        }
        Ok(())
    }

    /// Changes the standing of a component as far as what it did calls for it.
    fn answer(
        &self,
        run: &RunId,
        rules: &ConductSection,
        judged: &JudgedPlugin,
        next: Next,
    ) -> Result<Option<StandingRecord>, ConductError> {
        let digest = judged.plugin.digest;
        let record = match self.cache.standing(&digest)? {
            Some(record) => record,
            None => self.introduce(&judged.plugin, Some(run))?,
        };
        let Some((to, throttled, reason)) = next(&record, judged, rules) else {
            return Ok(Some(record));
        };
        let change = Change {
            plugin: judged.plugin.clone(),
            from: Some(record.standing),
            to,
            throttled,
            accepts: false,
            operator: None,
            reason,
            run: Some(run.clone()),
            approval: None,
        };
        Ok(Some(self.change(change)?))
    }
}

/// What follows by rule, if anything: the standing, whether it is slowed down, and why.
type Next = fn(&StandingRecord, &JudgedPlugin, &ConductSection) -> Option<(Standing, bool, String)>;

/// The standing that follows by rule, if it is another.
fn next(
    record: &StandingRecord,
    judged: &JudgedPlugin,
    rules: &ConductSection,
) -> Option<(Standing, bool, String)> {
    use Standing::{Admitted, Probation, Quarantined, Trusted};
    let standing = record.standing;
    if !standing.may_load() {
        return None;
    }
    if let Some(farthest) = judged.deviations.first() {
        let more = match judged.deviations.len() {
            1 => String::new(),
            all => format!(", and {} more", all - 1),
        };
        let reason = format!("{}: {}{more}", farthest.place, farthest.reason);
        return match judged.response {
            Response::Quarantine | Response::Kill => Some((Quarantined, record.throttled, reason)),
            Response::Throttle if !record.throttled => Some((Probation, true, reason)),
            Response::Throttle | Response::Alert if standing == Trusted => {
                Some((Probation, record.throttled, reason))
            }
            Response::Throttle | Response::Alert => None,
        };
    }
    // This run is not counted yet.
    let clean_runs = record.clean_runs.saturating_add(1);
    match standing {
        Admitted => Some((Probation, record.throttled, "it ran".to_owned())),
        Probation if clean_runs >= rules.trust_after && !record.throttled => {
            let reason = format!("{clean_runs} runs one after the other were as usual");
            Some((Trusted, false, reason))
        }
        _ => None,
    }
}
