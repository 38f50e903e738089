//! Calls into the host one by one, for an instance that is recorded or replayed.
//!
//! A call is kept as its name, the bytes that went in and out, and a digest of what else tells it
//! apart. What the host answered is computed again in a replay, for it is a function of what the
//! guest was given; only what came from outside (the time, an answer over HTTP, how long something
//! took) is kept as it was.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

/// A call into the host, as far as two of them are told apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCall {
    /// The function, as the ledger names it.
    pub name: String,
    /// Bytes that went into the guest.
    pub bytes_in: u64,
    /// Bytes that came out of it.
    pub bytes_out: u64,
    /// The beginning of a digest of what was asked and answered; 0 where neither was looked at.
    pub seen: u64,
}

/// Where a replay first did something else than the recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Divergence {
    /// The number of the call into the host, from 0, over the life of the instance.
    pub host_call: u64,
    /// What the recording has there; nothing past its end.
    pub recorded: Option<HostCall>,
    /// What the replay did there; nothing where it did no more.
    pub replayed: Option<HostCall>,
}

/// The guest of a replay asked for something that the recording has no answer to.
#[derive(Debug, Error)]
#[error("the replay differs from its recording")]
pub(crate) struct Diverged;

/// Calls in the order in which they were made, those that repeat counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct HostCalls {
    names: Vec<String>,
    runs: Vec<CallRun>,
}

/// The same call so many times: the number of its name, bytes in, bytes out, what was seen, times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CallRun(u32, u64, u64, u64, u64);

impl HostCalls {
    fn at(&self, run: usize) -> Option<HostCall> {
        let CallRun(name, bytes_in, bytes_out, seen, _) = *self.runs.get(run)?;
        Some(HostCall {
            name: self.names.get(name as usize)?.clone(),
            bytes_in,
            bytes_out,
            seen,
        })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.runs
            .iter()
            .fold(0, |sum, run| sum.saturating_add(run.4))
    }
}

/// What came from outside, at which call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) host_call: u64,
    pub(crate) value: Value,
}

/// What a trace comes to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Traced {
    pub(crate) host_calls: HostCalls,
    pub(crate) answers: Vec<Answer>,
}

/// Follows the calls of one instance.
#[derive(Debug)]
pub(crate) struct Trace {
    mode: Mode,
    /// The call under way.
    current: Option<Step>,
    /// Calls that have ended.
    count: u64,
}

#[derive(Debug)]
enum Mode {
    Record {
        kept: Traced,
        bytes: u64,
        limit: u64,
    },
    Replay {
        expected: Arc<Traced>,
        /// The run of calls that is next, and how many of it have been made.
        run: usize,
        made: u64,
        answer: usize,
        divergence: Option<Divergence>,
    },
}

#[derive(Debug)]
struct Step {
    name: &'static str,
    bytes_in: u64,
    bytes_out: u64,
    seen: Option<Box<blake3::Hasher>>,
}

impl Step {
    fn seen(&self) -> u64 {
        self.seen.as_ref().map_or(0, |hasher| {
            let digest = *hasher.finalize().as_bytes();
            let [a, b, c, d, e, f, g, h, ..] = digest;
            u64::from_le_bytes([a, b, c, d, e, f, g, h])
        })
    }
}

/// Bytes that a recording takes for a call that is not like the one before, at most.
const CALL_BYTES: u64 = 64;

impl Trace {
    /// Records, up to so many bytes.
    pub(crate) fn recording(limit: u64) -> Self {
        Self::of(Mode::Record {
            kept: Traced::default(),
            bytes: 0,
            limit,
        })
    }

    /// Holds an instance against what was recorded.
    pub(crate) fn replaying(expected: Arc<Traced>) -> Self {
        Self::of(Mode::Replay {
            expected,
            run: 0,
            made: 0,
            answer: 0,
            divergence: None,
        })
    }

    fn of(mode: Mode) -> Self {
        Self {
            mode,
            current: None,
            count: 0,
        }
    }

    /// A call begins; the one before it has ended.
    pub(crate) fn begin(&mut self, name: &'static str) {
        self.seal();
        self.current = Some(Step {
            name,
            bytes_in: 0,
            bytes_out: 0,
            seen: None,
        });
    }

    pub(crate) fn add_bytes(&mut self, bytes_in: usize, bytes_out: usize) {
        if let Some(step) = &mut self.current {
            step.bytes_in = step.bytes_in.saturating_add(bytes_in as u64);
            step.bytes_out = step.bytes_out.saturating_add(bytes_out as u64);
        }
    }

    /// Something that tells the call under way from others.
    pub(crate) fn saw(&mut self, what: &[u8]) {
        if let Some(step) = &mut self.current {
            let hasher = step.seen.get_or_insert_default();
            hasher.update(&(what.len() as u64).to_le_bytes());
            hasher.update(what);
        }
    }

    /// Something from outside: what happens now, or what happened then.
    pub(crate) fn outside<T: Serialize + DeserializeOwned>(
        &mut self,
        now: impl FnOnce() -> T,
    ) -> wasmtime::Result<T> {
        if self.is_replaying() {
            return self.then();
        }
        let answer = now();
        self.keep(&answer)?;
        Ok(answer)
    }

    /// Whether what comes from outside is what came then.
    pub(crate) fn is_replaying(&self) -> bool {
        matches!(self.mode, Mode::Replay { .. })
    }

    /// Keeps what came from outside, where that is kept.
    pub(crate) fn keep<T: Serialize>(&mut self, answer: &T) -> wasmtime::Result<()> {
        let Mode::Record { kept, bytes, limit } = &mut self.mode else {
            return Ok(());
        };
        let value = serde_json::to_value(answer)?;
        // A text is as long as its value in memory, near enough.
        *bytes = bytes.saturating_add(CALL_BYTES + length_of(&value));
        if *bytes <= *limit {
            kept.answers.push(Answer {
                host_call: self.count,
                value,
            });
        }
        Ok(())
    }

    /// What came from outside then.
    pub(crate) fn then<T: DeserializeOwned>(&mut self) -> wasmtime::Result<T> {
        let count = self.count;
        if let Mode::Replay {
            expected, answer, ..
        } = &mut self.mode
        {
            let then = expected
                .answers
                .get(*answer)
                .filter(|then| then.host_call == count)
                .and_then(|then| T::deserialize(&then.value).ok());
            *answer += 1;
            if let Some(then) = then {
                return Ok(then);
            }
        }
        self.seal();
        Err(wasmtime::Error::new(Diverged))
    }

    /// The call under way has ended: it is kept, or held against what was recorded.
    pub(crate) fn seal(&mut self) {
        let Some(step) = self.current.take() else {
            return;
        };
        let number = self.count;
        self.count = self.count.saturating_add(1);
        match &mut self.mode {
            Mode::Record { kept, bytes, limit } => {
                let calls = &mut kept.host_calls;
                let name = match calls.names.iter().position(|known| known == step.name) {
                    Some(known) => known,
                    None => {
                        calls.names.push(step.name.to_owned());
                        calls.names.len() - 1
                    }
                };
                // Names are the host's own, so there are only so many.
                let name = u32::try_from(name).unwrap_or(u32::MAX);
                let new = CallRun(name, step.bytes_in, step.bytes_out, step.seen(), 1);
                match calls.runs.last_mut() {
                    Some(last)
                        if (last.0, last.1, last.2, last.3) == (new.0, new.1, new.2, new.3) =>
                    {
                        last.4 = last.4.saturating_add(1);
                    }
                    _ => {
                        *bytes = bytes.saturating_add(CALL_BYTES);
                        if *bytes <= *limit {
                            calls.runs.push(new);
                        }
                    }
                }
            }
            Mode::Replay {
                expected,
                run,
                made,
                divergence,
                ..
            } => {
                let recorded = expected.host_calls.at(*run);
                let replayed = HostCall {
                    name: step.name.to_owned(),
                    bytes_in: step.bytes_in,
                    bytes_out: step.bytes_out,
                    seen: step.seen(),
                };
                if recorded.as_ref() != Some(&replayed) {
                    divergence.get_or_insert(Divergence {
                        host_call: number,
                        recorded,
                        replayed: Some(replayed),
                    });
                }
                *made += 1;
                if expected
                    .host_calls
                    .runs
                    .get(*run)
                    .is_some_and(|it| *made >= it.4)
                {
                    (*run, *made) = (*run + 1, 0);
                }
            }
        }
    }

    /// Calls that have ended.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Whether more was to be kept than may be.
    pub(crate) fn is_over(&self) -> bool {
        matches!(&self.mode, Mode::Record { bytes, limit, .. } if bytes > limit)
    }

    /// Where a replay first did something else, once so many calls should have been made.
    pub(crate) fn divergence(&self, calls: u64) -> Option<Divergence> {
        let Mode::Replay {
            expected,
            run,
            divergence,
            ..
        } = &self.mode
        else {
            return None;
        };
        if divergence.is_some() || self.count >= calls {
            return divergence.clone();
        }
        Some(Divergence {
            host_call: self.count,
            recorded: expected.host_calls.at(*run),
            replayed: None,
        })
    }

    /// What was recorded.
    pub(crate) fn into_recorded(mut self) -> Option<Traced> {
        self.seal();
        match self.mode {
            Mode::Record { kept, .. } => Some(kept),
            Mode::Replay { .. } => None,
        }
    }
}

/// About the bytes of a value as text.
fn length_of(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.len() as u64,
        Value::Array(values) => values.iter().map(|value| 2 + length_of(value)).sum(),
        Value::Object(entries) => entries
            .iter()
            .map(|(key, value)| key.len() as u64 + 4 + length_of(value))
            .sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 20,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drive(trace: &mut Trace, calls: &[(&'static str, usize, &[u8])]) {
        for (name, bytes, seen) in calls {
            trace.begin(name);
            trace.add_bytes(*bytes, 0);
            if !seen.is_empty() {
                trace.saw(seen);
            }
        }
        trace.seal();
    }

    fn recorded(calls: &[(&'static str, usize, &[u8])]) -> Arc<Traced> {
        let mut trace = Trace::recording(1 << 20);
        drive(&mut trace, calls);
        assert_eq!(trace.count(), calls.len() as u64);
        Arc::new(trace.into_recorded().expect("it records"))
    }

    const CALLS: [(&str, usize, &[u8]); 5] = [
        ("batch.schema", 8, b""),
        ("batch.column", 80, b"0"),
        ("batch.column", 80, b"0"),
        ("batch.column", 80, b"1"),
        ("log.log", 0, b"seen"),
    ];

    #[test]
    fn what_repeats_is_counted_and_the_same_calls_do_not_differ() {
        let then = recorded(&CALLS);
        assert_eq!(then.host_calls.runs.len(), 4);
        assert_eq!(then.host_calls.count(), 5);
        let text = serde_json::to_string(&*then).expect("it has a text");
        let read: Traced = serde_json::from_str(&text).expect("and is read from it");
        let mut trace = Trace::replaying(Arc::new(read));
        drive(&mut trace, &CALLS);
        assert_eq!(trace.divergence(5), None);
    }

    #[test]
    fn the_first_call_that_differs_is_named() {
        let then = recorded(&CALLS);
        for (place, other) in [
            (0, ("batch.rows", 8, b"".as_slice())),
            (1, ("batch.column", 81, b"0")),
            (3, ("batch.column", 80, b"2")),
        ] {
            let mut calls = CALLS;
            calls[place] = other;
            let mut trace = Trace::replaying(Arc::clone(&then));
            drive(&mut trace, &calls);
            let found = trace.divergence(5).expect("it differs");
            assert_eq!(found.host_call, place as u64);
            assert_eq!(found.recorded.expect("recorded").name, CALLS[place].0);
            assert_eq!(found.replayed.expect("replayed").name, other.0);
        }
    }

    #[test]
    fn a_call_too_many_and_one_too_few_differ() {
        let then = recorded(&CALLS);
        let mut longer = CALLS.to_vec();
        longer.push(("clock.now", 0, b""));
        let mut trace = Trace::replaying(Arc::clone(&then));
        drive(&mut trace, &longer);
        let found = trace.divergence(5).expect("one too many");
        assert_eq!((found.host_call, found.recorded), (5, None));
        let mut trace = Trace::replaying(then);
        drive(&mut trace, &CALLS[..4]);
        let found = trace.divergence(5).expect("one too few");
        assert_eq!((found.host_call, found.replayed), (4, None));
        assert_eq!(found.recorded.expect("recorded").name, "log.log");
    }

    #[test]
    fn what_came_from_outside_comes_again_and_nothing_is_made_up() {
        let mut trace = Trace::recording(1 << 20);
        trace.begin("clock.now");
        let then: (u64, u32) = trace.outside(|| (17, 4)).expect("the time");
        trace.begin("batch.rows");
        trace.begin("clock.now");
        trace.outside(|| (18_u64, 0_u32)).expect("the time");
        let traced = Arc::new(trace.into_recorded().expect("it records"));
        let again = |names: &[&'static str]| {
            let mut trace = Trace::replaying(Arc::clone(&traced));
            let mut times = Vec::new();
            for name in names {
                trace.begin(name);
                if *name == "clock.now" {
                    times.push(trace.outside(|| (0_u64, 0_u32)).ok());
                }
            }
            times
        };
        assert_eq!(then, (17, 4));
        let whole = again(&["clock.now", "batch.rows", "clock.now"]);
        assert_eq!(whole, [Some((17, 4)), Some((18, 0))]);
        assert_eq!(again(&["clock.now", "clock.now"]), [Some((17, 4)), None]);
        assert_eq!(again(&["batch.rows", "clock.now"]), [None]);
    }

    #[test]
    fn a_recording_that_is_too_large_keeps_no_more_and_says_so() {
        let mut trace = Trace::recording(10 * CALL_BYTES);
        for bytes in 0..1000 {
            trace.begin("batch.column");
            trace.add_bytes(bytes, 0);
        }
        assert!(trace.is_over());
        let kept = trace.into_recorded().expect("what there was room for");
        assert_eq!(kept.host_calls.runs.len(), 10);
        let mut trace = Trace::recording(1000);
        trace.begin("http.handle");
        trace.outside(|| "x".repeat(2000)).expect("an answer");
        assert!(trace.is_over());
        assert!(trace.into_recorded().expect("no room").answers.is_empty());
    }
}
