//! How far an instance may go while a run goes on, from what its plugin usually does.

use std::collections::BTreeMap;
use std::sync::Arc;

use sandcast_audit::PluginRef;
use sandcast_sandbox::{Bounds, RowBounds, StageBounds};

use super::baseline::Baseline;
use super::observation::{Lesson, Most, Observation, Place, Seen};
use super::rules::{ConductSection, Response};
use super::standing::StandingRecord;
use super::{Conduct, ConductError};

/// What an instance may always come to: below this nobody is harmed, and figures are noise.
const LEAST_CALLS: f64 = 100.0;
const LEAST_BYTES: f64 = 1_048_576.0;
const LEAST_SECONDS: f64 = 1.0;
const LEAST_MEMORY_BYTES: f64 = 16.0 * 1_048_576.0;

/// What everybody may call: the log, and the own configuration.
const ALWAYS: [&str; 3] = ["log.log", "config.get", "config.get-all"];

impl Conduct {
    /// What a plugin's instances are held to in the runs of a pipeline. `None` where they are held
    /// to nothing but their grants.
    pub(crate) fn bounds(
        &self,
        record: &StandingRecord,
        pipeline: &str,
        rules: &ConductSection,
        response: Response,
    ) -> Result<Option<Bounds>, ConductError> {
        let pace_percent = record.throttled.then_some(rules.pace);
        let stages = match response {
            Response::Kill => self.stages(&record.plugin, pipeline, rules)?,
            _ => BTreeMap::new(),
        };
        let bounds = Bounds {
            stages,
            pace_percent,
        };
        Ok((bounds != Bounds::default()).then_some(bounds))
    }

    fn stages(
        &self,
        plugin: &PluginRef,
        pipeline: &str,
        rules: &ConductSection,
    ) -> Result<BTreeMap<String, Arc<StageBounds>>, ConductError> {
        let mut seen = self.cache.seen(&plugin.id, &plugin.role)?;
        seen.retain(|seen| seen.place.pipeline == pipeline);
        // Whether there is less to do is known only when the stage is over.
        for seen in &mut seen {
            seen.place.kept = false;
        }
        let mut stages = BTreeMap::new();
        for stage in seen.iter().map(|seen| &seen.place.stage) {
            let place = Place {
                pipeline: pipeline.to_owned(),
                stage: stage.clone(),
                kept: false,
            };
            if stages.contains_key(stage) {
                continue;
            }
            if let Some(baseline) = Baseline::of(&seen, &plugin.digest, &place, rules.runs) {
                stages.insert(stage.clone(), Arc::new(of_stage(&baseline, rules.headroom)));
            }
        }
        Ok(stages)
    }
}

fn of_stage(baseline: &Baseline, headroom: f64) -> StageBounds {
    let most = |of: fn(&Most) -> f64, least: f64| {
        let second = second_most(&baseline.lessons, |seen| of(&seen.most));
        (second * headroom).max(least)
    };
    let whole = |number: f64| number.ceil() as u64;
    let row = |of: fn(&Observation) -> f64| baseline.per_row(of).unwrap_or(0.0) * headroom;
    let memory = second_most(&baseline.lessons, |seen| seen.peak_memory_bytes as f64);
    let mut functions = baseline.union(|seen| seen.calls.keys().collect());
    functions.extend(ALWAYS.map(str::to_owned));
    StageBounds {
        functions,
        targets: baseline.union(|seen| seen.targets.keys().collect()),
        host_calls: whole(most(|most| most.calls as f64, LEAST_CALLS)),
        bytes_in: whole(most(|most| most.bytes_in as f64, LEAST_BYTES)),
        bytes_out: whole(most(|most| most.bytes_out as f64, LEAST_BYTES)),
        guest_seconds: most(|most| most.guest_seconds, LEAST_SECONDS),
        memory_bytes: whole((memory * headroom).max(LEAST_MEMORY_BYTES)),
        for_each_row: RowBounds {
            host_calls: row(|seen| {
                let calls = seen.calls.values().copied();
                calls.fold(0, u64::saturating_add) as f64
            }),
            bytes_in: row(|seen| seen.bytes_in as f64),
            bytes_out: row(|seen| seen.bytes_out as f64),
            guest_seconds: row(|seen| seen.guest_seconds),
        },
    }
}

/// The second largest, for no single run says how far others may go; but the largest of those that
/// an operator has taken.
fn second_most(lessons: &[Seen], of: impl Fn(&Observation) -> f64) -> f64 {
    let accepted = lessons
        .iter()
        .filter(|seen| seen.lesson == Lesson::Accepted);
    let accepted = accepted
        .map(|seen| of(&seen.observation))
        .fold(0.0, f64::max);
    let mut values: Vec<f64> = lessons.iter().map(|seen| of(&seen.observation)).collect();
    values.sort_unstable_by(|one, other| other.total_cmp(one));
    let second = values.get(1).or(values.first()).copied().unwrap_or(0.0);
    second.max(accepted)
}
