//! Holds what a component did in a run against what it usually does.
//!
//! A number is judged in up to three ways: as it is, for each row and for each instance. It is odd
//! only where it is odd in all of them, because more rows are more work: of whatever costs
//! `a + b * rows`, one of the first two is on the usual side of its median at any number of rows.

use serde::{Deserialize, Serialize};

use super::baseline::{Baseline, host_of, measures, value_of, weight};
use super::observation::{Lesson, Observation, Place, Seen};
use super::statistics::{Scale, Usual};

/// The score of what is found by itself, without a number.
const NEW_HOST: f64 = 10.0;
const NEW_PATH: f64 = 6.0;
const NEW_DENIAL: f64 = 8.0;
const BEYOND_BOUNDS: f64 = 10.0;

/// The least share of lessons that went as far for it not to be odd to go there.
const SHARE_AS_FAR: f64 = 0.1;

/// Deviations of one component in one stage that are told, the farthest first.
const MAX_DEVIATIONS: usize = 12;

/// Something that was otherwise than usual.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deviation {
    /// Where.
    pub place: Place,
    /// What was measured, such as `calls:http.handle`, `target` or `guest-seconds`.
    pub measure: String,
    /// How far it is from what is usual, in robust standard deviations; what is found by itself has
    /// a number of its own.
    pub score: f64,
    /// What it came to, where it is a number.
    pub observed: Option<f64>,
    /// What is usual, where it is a number.
    pub usual: Option<f64>,
    /// In words and figures.
    pub reason: String,
}

/// Everything that was otherwise than usual, from the threshold on, the farthest first.
pub(crate) fn deviations(seen: &Seen, baseline: &Baseline, threshold: f64) -> Vec<Deviation> {
    let observation = &seen.observation;
    let mut found = Found {
        seen,
        baseline,
        all: Vec::new(),
    };
    found.functions(observation);
    found.targets(observation);
    found.denials(observation);
    found.numbers(observation, threshold);
    if observation.strayed > 0 {
        let times = observation.strayed;
        found.add("bounds", BEYOND_BOUNDS, None, || {
            format!(
                "{times} of its instances went beyond what is usual and were ended while they ran"
            )
        });
    }
    let mut all = found.all;
    all.retain(|deviation| deviation.score >= threshold);
    all.sort_by(|one, other| other.score.total_cmp(&one.score));
    all.truncate(MAX_DEVIATIONS);
    all
}

struct Found<'a> {
    seen: &'a Seen,
    baseline: &'a Baseline,
    all: Vec<Deviation>,
}

impl Found<'_> {
    fn add(
        &mut self,
        measure: &str,
        score: f64,
        numbers: Option<(f64, f64)>,
        reason: impl FnOnce() -> String,
    ) {
        let mut reason = reason();
        let runs = self.baseline.lessons.len();
        reason.push_str(&format!(", over {runs} runs"));
        if self.baseline.inherited {
            reason.push_str(" of this and earlier versions");
        }
        let last = self.baseline.lessons.last();
        if last.is_some_and(|last| last.config != self.seen.config) {
            reason.push_str("; the pipeline was changed since the last of them");
        }
        self.all.push(Deviation {
            place: self.seen.place.clone(),
            measure: measure.to_owned(),
            score,
            observed: numbers.map(|(observed, _)| observed),
            usual: numbers.map(|(_, usual)| usual),
            reason,
        });
    }

    fn functions(&mut self, observation: &Observation) {
        for (function, calls) in &observation.calls {
            let weight = weight(function);
            let known = self.baseline.knows(|it| it.calls.contains_key(function));
            if weight > 0.0 && !known {
                self.add("function", weight, None, || {
                    format!("it called `{function}` {calls} times, which it usually does not")
                });
            }
        }
    }

    fn targets(&mut self, observation: &Observation) {
        for (target, requests) in &observation.targets {
            let host = host_of(target);
            let is_known_host = self
                .baseline
                .knows(|it| it.targets.keys().any(|known| host_of(known) == host));
            if !is_known_host {
                self.add("target", NEW_HOST, None, || {
                    format!("it sent {requests} requests `{target}`, where it usually sends none")
                });
            } else if !self.baseline.has_open_paths(host)
                && !self.baseline.knows(|it| it.targets.contains_key(target))
            {
                self.add("target", NEW_PATH, None, || {
                    format!(
                        "it sent {requests} requests `{target}`, a path of a known host where it \
                         usually sends none"
                    )
                });
            }
        }
    }

    fn denials(&mut self, observation: &Observation) {
        for (capability, times) in &observation.denials {
            if !self
                .baseline
                .knows(|it| it.denials.contains_key(capability))
            {
                self.add("denial", NEW_DENIAL, None, || {
                    format!("it was denied `{capability}` {times} times, and usually is not")
                });
            }
        }
    }

    fn numbers(&mut self, observation: &Observation, threshold: f64) {
        for (measure, value, scale) in measures(observation) {
            // A function that is not known is found as such.
            let function = measure.strip_prefix("calls:");
            let is_new =
                function.is_some_and(|name| !self.baseline.knows(|it| it.calls.contains_key(name)));
            // What it takes in on a server is as large as whoever asks makes it.
            if is_new || (measure == "bytes-in" && self.seen.place.is_served()) {
                continue;
            }
            let Some(score) = self.score(&measure, value, scale) else {
                continue;
            };
            if score >= threshold {
                self.number(&measure, value, score);
            }
        }
        // Rows that are not looked at: a check that checks nothing any more.
        let (measure, value) = ("bytes-in", observation.bytes_in as f64);
        if !self.seen.place.is_served()
            && let Some(score) = self.score_below(measure, value, Scale::BYTES)
            && score >= threshold
        {
            self.number(measure, value, score);
        }
    }

    fn number(&mut self, measure: &str, value: f64, score: f64) {
        let of = |seen: &Observation| value_of(measure, seen);
        let usual = self.baseline.middle(of);
        let rows = self.seen.rows.filter(|rows| *rows > 0);
        let by_row = rows.zip(self.baseline.per_row(of));
        self.add(measure, score, Some((value, usual)), || {
            let mut text = format!(
                "{} came to {}, usually about {}",
                in_words(measure),
                figure(measure, value),
                figure(measure, usual)
            );
            if let Some((rows, usual)) = by_row {
                let here = value / rows as f64;
                text.push_str(&format!(
                    " (for each of {rows} rows {}, usually {})",
                    short(here),
                    short(usual)
                ));
            }
            text.push_str(&format!("; {score:.1} deviations"));
            text
        });
    }

    /// How far above the usual a number is, in the way in which it is the least so.
    fn score(&self, measure: &str, value: f64, scale: Scale) -> Option<f64> {
        let scores = self.scores(measure, value, scale);
        let least = scores.into_iter().min_by(f64::total_cmp)?;
        let is_usual = self.has_been(|seen| value_of(measure, seen) >= value);
        (least > 0.0 && !is_usual).then_some(least)
    }

    /// Whether enough lessons went as far for it not to be odd to go there: one that an operator has
    /// taken is enough.
    fn has_been(&self, as_far: impl Fn(&Observation) -> bool) -> bool {
        let lessons = &self.baseline.lessons;
        let share = lessons.iter().filter(|it| as_far(&it.observation)).count() as f64
            / lessons.len().max(1) as f64;
        self.baseline.knows(&as_far)
            && (share >= SHARE_AS_FAR
                || lessons
                    .iter()
                    .any(|it| it.lesson == Lesson::Accepted && as_far(&it.observation)))
    }

    /// How far below the usual a number is, in the way in which it is the least so; only where the
    /// stage ended well and had rows.
    fn score_below(&self, measure: &str, value: f64, scale: Scale) -> Option<f64> {
        self.seen.rows.filter(|rows| *rows > 0)?;
        let scores = self.scores(measure, value, scale);
        let least = scores.into_iter().max_by(f64::total_cmp)?;
        let is_usual = self.has_been(|seen| value_of(measure, seen) <= value);
        (least < 0.0 && !is_usual).then_some(-least)
    }

    fn scores(&self, measure: &str, value: f64, scale: Scale) -> Vec<f64> {
        let lessons = &self.baseline.lessons;
        let by = |per: &dyn Fn(&Seen) -> Option<f64>| {
            let values: Vec<(f64, f64)> = lessons
                .iter()
                .filter_map(|it| Some((value_of(measure, &it.observation), per(it)?)))
                .collect();
            // By rows only where enough lessons have some.
            let usual = (values.len() * 2 > lessons.len()).then(|| Usual::of(&values, scale))??;
            Some(usual.score(value, per(self.seen)?, scale))
        };
        let rows = |seen: &Seen| seen.rows.filter(|rows| *rows > 0).map(|rows| rows as f64);
        let mut scores: Vec<f64> = by(&|_| Some(1.0)).into_iter().collect();
        scores.extend(by(&rows));
        if !matches!(measure, "instances" | "peak-memory") {
            scores.extend(by(&|seen| Some(seen.observation.instances.max(1) as f64)));
        }
        scores
    }
}

fn in_words(measure: &str) -> String {
    match measure {
        "bytes-in" => "what it took in".to_owned(),
        "bytes-out" => "what it handed out".to_owned(),
        "guest-seconds" => "its own time".to_owned(),
        "peak-memory" => "its memory".to_owned(),
        "sent-bytes" => "what its requests carried".to_owned(),
        "received-bytes" => "what it was answered".to_owned(),
        "instances" | "requests" => format!("the number of its {measure}"),
        other => match other.strip_prefix("calls:") {
            Some(function) => format!("the calls of `{function}`"),
            None => other.to_owned(),
        },
    }
}

/// A number of a measure with its unit.
pub fn figure(measure: &str, value: f64) -> String {
    let unit = match measure {
        "guest-seconds" => return format!("{value:.3} s"),
        "bytes-in" | "bytes-out" | "sent-bytes" | "received-bytes" | "peak-memory" => " bytes",
        _ => "",
    };
    format!(
        "{}{unit}",
        crate::report::count(value.max(0.0).round() as u64)
    )
}

/// A small number with as many digits as say something.
fn short(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 1.0 => format!("{value:.1}"),
        value if value >= 0.001 => format!("{value:.4}"),
        value => format!("{value:.2e}"),
    }
}
