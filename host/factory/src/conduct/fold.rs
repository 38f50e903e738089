//! From the entries of the audit log to observations and standings, one entry after the other.

use std::collections::BTreeMap;

use sandcast_audit::{Digest, Entry, Event, PluginRef, RunId};
use sandcast_sandbox::{Capability, egress_of};

use super::observation::{Most, Observation, Place, RunFacts, Scored, StageFacts};
use super::standing::{self, StandingRecord};

/// Targets of one observation that are told apart; what goes elsewhere is one more.
const MAX_TARGETS: usize = 200;

/// The name of that one.
const MORE_TARGETS: &str = "other places";

/// The events that say something of conduct.
const WANTED: [&[u8]; 11] = [
    b"calls-finished\"",
    b"calls-served\"",
    b"conduct-deviated\"",
    b"conduct-scored\"",
    b"denied\"",
    b"effect\"",
    b"effect-finished\"",
    b"run-finished\"",
    b"run-started\"",
    b"stage-finished\"",
    b"standing-changed\"",
];

/// Whether a line of the log has one of them.
pub(crate) fn is_wanted(line: &[u8]) -> bool {
    is_one_of(line, &WANTED)
}

/// Whether a line of the log has one of some events, each with the quote after its name. The names of a
/// line's fields stand in order, so what comes first after `"event":"` is the name of the event: texts
/// before it have their quotes escaped.
pub(crate) fn is_one_of(line: &[u8], events: &[&[u8]]) -> bool {
    const TAG: &[u8] = b"\"event\":\"";
    let tagged = line.windows(TAG.len()).position(|part| part == TAG);
    let name = tagged.map(|place| &line[place + TAG.len()..]);
    name.is_some_and(|name| events.iter().any(|event| name.starts_with(event)))
}

/// What is folded, wherever it is kept.
pub(crate) trait Memory {
    type Error;

    fn run(&mut self, run: &RunId) -> Result<Option<&mut RunFacts>, Self::Error>;
    fn begin_run(&mut self, run: &RunId, facts: RunFacts) -> Result<(), Self::Error>;
    fn observation(
        &mut self,
        run: &RunId,
        plugin: &PluginRef,
        stage: &str,
    ) -> Result<&mut Observation, Self::Error>;
    fn standing(&mut self, digest: &Digest) -> Result<Option<&mut StandingRecord>, Self::Error>;
    fn set_standing(&mut self, record: StandingRecord) -> Result<(), Self::Error>;
    /// Whether any component has a standing yet.
    fn has_standings(&mut self) -> Result<bool, Self::Error>;
    /// Keeps an entry for the history of a component.
    fn remember(&mut self, digest: &Digest, entry: &Entry) -> Result<(), Self::Error>;
}

/// Takes in an entry.
pub(crate) fn fold<M: Memory>(memory: &mut M, entry: &Entry) -> Result<(), M::Error> {
    match &entry.event {
        Event::RunStarted {
            run,
            pipeline,
            config,
        } => {
            let facts = RunFacts {
                pipeline: pipeline.clone(),
                config: *config,
                stages: BTreeMap::new(),
                is_judged: memory.has_standings()?,
                scored: None,
                outcome: None,
                served: false,
            };
            memory.begin_run(run, facts)
        }
        Event::CallsServed {
            run,
            model,
            version,
            stage,
            rows,
            ..
        } => {
            // A server that could not tell whether it wrote a stretch writes it again.
            if memory.run(run)?.is_some_and(|known| known.served) {
                return Ok(());
            }
            let told = StageFacts {
                rows: Some(*rows),
                kept: false,
            };
            let facts = RunFacts {
                pipeline: Place::serving(model),
                config: Digest::of(format!("{model}@{version}").as_bytes()),
                stages: BTreeMap::from([(stage.clone(), told)]),
                is_judged: true,
                scored: None,
                outcome: None,
                served: true,
            };
            memory.begin_run(run, facts)?;
            observe(memory, entry.sequence, &entry.event)
        }
        Event::StageFinished {
            run,
            stage,
            cached,
            rows_in,
            ..
        } => {
            if let Some(facts) = memory.run(run)? {
                let told = StageFacts {
                    rows: *rows_in,
                    kept: *cached,
                };
                facts.stages.insert(stage.clone(), told);
            }
            Ok(())
        }
        Event::RunFinished { run, outcome, .. } => {
            if let Some(facts) = memory.run(run)? {
                facts.outcome = Some(outcome.clone());
            }
            Ok(())
        }
        Event::ConductScored {
            run,
            plugins,
            deviating,
        } => {
            let mut served = false;
            if let Some(facts) = memory.run(run)? {
                served = facts.served;
                facts.scored = Some(Scored {
                    deviating: deviating.clone(),
                });
            }
            for digest in plugins {
                if let Some(record) = memory.standing(digest)? {
                    record.clean_runs = match deviating.contains(digest) {
                        true => 0,
                        // Many a minute on a server is not worth a run.
                        false if served => record.clean_runs,
                        false => record.clean_runs.saturating_add(1),
                    };
                }
            }
            Ok(())
        }
        Event::StandingChanged { plugin, .. } => {
            let digest = plugin.digest;
            let before = memory.standing(&digest)?;
            if let Some(record) = standing::after(before.as_deref(), entry) {
                memory.set_standing(record)?;
                memory.remember(&digest, entry)?;
            }
            Ok(())
        }
        Event::ConductDeviated { plugin, .. } => memory.remember(&plugin.digest, entry),
        event => observe(memory, entry.sequence, event),
    }
}

/// Takes in what an instance did.
fn observe<M: Memory>(memory: &mut M, sequence: u64, event: &Event) -> Result<(), M::Error> {
    let (Event::CallsFinished {
        run: Some(run),
        plugin,
        stage,
        ..
    }
    | Event::CallsServed {
        run, plugin, stage, ..
    }
    | Event::Denied {
        run: Some(run),
        plugin,
        stage,
        ..
    }
    | Event::Effect {
        run: Some(run),
        plugin,
        stage,
        ..
    }
    | Event::EffectFinished {
        run: Some(run),
        plugin,
        stage,
        ..
    }) = event
    else {
        return Ok(());
    };
    let seen = memory.observation(run, plugin, stage)?;
    seen.sequence = sequence;
    match event {
        Event::CallsFinished {
            host_calls,
            bytes_in,
            bytes_out,
            guest_seconds,
            peak_memory_bytes,
            outcome,
            ..
        } => {
            seen.instances += 1;
            let mut calls_of_all = 0_u64;
            for (function, calls) in host_calls {
                add(seen.calls.entry(function.clone()).or_default(), *calls);
                add(&mut calls_of_all, *calls);
            }
            add(&mut seen.bytes_in, *bytes_in);
            add(&mut seen.bytes_out, *bytes_out);
            add_seconds(&mut seen.guest_seconds, *guest_seconds);
            seen.peak_memory_bytes = seen.peak_memory_bytes.max(*peak_memory_bytes);
            let most = &mut seen.most;
            most.calls = most.calls.max(calls_of_all);
            most.bytes_in = most.bytes_in.max(*bytes_in);
            most.bytes_out = most.bytes_out.max(*bytes_out);
            most.guest_seconds = most.guest_seconds.max(guest_seconds.min(MOST_SECONDS));
            seen.strayed += u64::from(outcome == sandcast_sandbox::STRAYED);
        }
        Event::CallsServed {
            outcomes,
            host_calls,
            bytes_in,
            bytes_out,
            guest_seconds,
            peak_memory_bytes,
            most,
            ..
        } => {
            for (outcome, instances) in outcomes {
                add(&mut seen.instances, *instances);
                if outcome == sandcast_sandbox::STRAYED {
                    add(&mut seen.strayed, *instances);
                }
            }
            for (function, calls) in host_calls {
                add(seen.calls.entry(function.clone()).or_default(), *calls);
            }
            add(&mut seen.bytes_in, *bytes_in);
            add(&mut seen.bytes_out, *bytes_out);
            add_seconds(&mut seen.guest_seconds, *guest_seconds);
            seen.peak_memory_bytes = seen.peak_memory_bytes.max(*peak_memory_bytes);
            seen.most = Most {
                calls: most.host_calls,
                bytes_in: most.bytes_in,
                bytes_out: most.bytes_out,
                guest_seconds: most.guest_seconds,
            };
        }
        Event::Denied { capability, .. } => {
            add(seen.denials.entry(capability.clone()).or_default(), 1);
        }
        // Where it sends something; which files it reads is its data's affair.
        Event::Effect {
            capability, target, ..
        } if capability == Capability::Http.as_str() => {
            let mut target = egress_of(target);
            if seen.targets.len() >= MAX_TARGETS && !seen.targets.contains_key(&target) {
                MORE_TARGETS.clone_into(&mut target);
            }
            add(seen.targets.entry(target).or_default(), 1);
        }
        Event::EffectFinished {
            bytes_out,
            bytes_in,
            ..
        } => {
            add(&mut seen.sent_bytes, *bytes_out);
            add(&mut seen.received_bytes, *bytes_in);
        }
        _ => {}
    }
    Ok(())
}

fn add(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}

/// What a log says of time, at most: sums of it are numbers, whatever it says.
const MOST_SECONDS: f64 = 1e15;

fn add_seconds(sum: &mut f64, more: f64) {
    *sum = (*sum + more.max(0.0)).min(MOST_SECONDS);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_known_by_the_name_of_their_event() {
        let line =
            |fields: &str| format!("{{\"digest\":\"00\",\"event\":{{{fields}}},\"previous\"");
        for (fields, wanted) in [
            (
                "\"bytes_in\":1,\"event\":\"calls-finished\",\"stage\":\"x\"",
                true,
            ),
            ("\"event\":\"effect\",\"run\":null", true),
            ("\"event\":\"effect-finished\",\"run\":null", true),
            ("\"event\":\"effects\"", false),
            ("\"count\":1,\"event\":\"predictions-served\"", false),
            (
                "\"bytes_in\":1,\"event\":\"calls-served\",\"model\":\"x\"",
                true,
            ),
            (
                "\"detail\":\"\\\"event\\\":\\\"gated\\\"\",\"event\":\"denied\"",
                true,
            ),
        ] {
            assert_eq!(is_wanted(line(fields).as_bytes()), wanted, "{fields}");
        }
    }
}
