//! Watches a run for the person at the terminal.

use std::sync::{Mutex, PoisonError};

use sandcast_factory::{RunEvent, StageRecord, StageStatus, run::Observer};
use sandcast_sandbox::TrainProgress;

use crate::{output::Output, progress::Step, table::count};

/// Turns the events of a run into lines.
#[derive(Debug)]
pub(crate) struct Watcher {
    output: Output,
    /// The stage that goes on.
    step: Mutex<Option<Step>>,
}

impl Watcher {
    pub(crate) fn new(output: &Output) -> Self {
        Self {
            output: output.clone(),
            step: Mutex::new(None),
        }
    }

    /// Clears what is left of a stage that was cut off.
    pub(crate) fn end(&self) {
        self.set(None);
    }

    fn set(&self, step: Option<Step>) -> Option<Step> {
        std::mem::replace(
            &mut *self.step.lock().unwrap_or_else(PoisonError::into_inner),
            step,
        )
    }

    fn update(&self, message: &str) {
        if let Some(step) = &mut *self.step.lock().unwrap_or_else(PoisonError::into_inner) {
            step.update(message);
        }
    }
}

impl Observer for Watcher {
    fn notice(&self, event: &RunEvent) {
        match event {
            RunEvent::Started { run, pipeline, .. } => {
                self.output.note(format_args!("{pipeline}: run {run}"));
            }
            RunEvent::StageStarted { stage } => {
                self.set(Some(Step::begin(&self.output, stage)));
            }
            RunEvent::Rows { done, total, .. } => self.update(&match total {
                Some(total) => format!("{} of {} rows", count(*done), count(*total)),
                None => format!("{} rows", count(*done)),
            }),
            RunEvent::Training { progress } => self.update(&training(progress)),
            RunEvent::Note { stage, message } => {
                self.output.note(format_args!("  {stage}: {message}"));
            }
            RunEvent::Warning { stage, message } => {
                self.output.warn(format_args!("{stage}: {message}"));
            }
            RunEvent::StageFinished { record } => {
                let step = self
                    .set(None)
                    .unwrap_or_else(|| Step::begin(&self.output, &record.stage));
                match record.status {
                    StageStatus::Done if record.cached => step.kept(&result(record)),
                    StageStatus::Done => step.done(&result(record)),
                    StageStatus::Rejected => step.failed("said no"),
                    StageStatus::Failed => step.failed("could not be done"),
                }
            }
            _ => {}
        }
    }
}

fn training(progress: &TrainProgress) -> String {
    let mut text = format!("epoch {} of {}", progress.epoch, progress.epochs);
    if let Some(report) = &progress.report {
        text.push_str(&format!(", loss {:.4}", report.train_loss));
        if let Some(loss) = report.validation_loss {
            text.push_str(&format!(", validation {loss:.4}"));
        }
    }
    text
}

/// What a stage came to, in a few words.
fn result(record: &StageRecord) -> String {
    match (record.rows_in, record.rows_out, record.rows_quarantined) {
        (Some(rows_in), Some(rows_out), Some(quarantined)) => format!(
            "{} rows in, {} out, {} set aside",
            count(rows_in),
            count(rows_out),
            count(quarantined)
        ),
        _ => record.message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(rows: [Option<u64>; 3], message: &str) -> StageRecord {
        StageRecord {
            stage: "connect branch".to_owned(),
            status: StageStatus::Done,
            key: None,
            output: None,
            cached: false,
            seconds: 0.1,
            rows_in: rows[0],
            rows_out: rows[1],
            rows_quarantined: rows[2],
            message: message.to_owned(),
        }
    }

    #[test]
    fn a_stage_that_put_rows_aside_says_so() {
        assert_eq!(
            result(&record([Some(6_043), Some(5_957), Some(86)], "")),
            "6,043 rows in, 5,957 out, 86 set aside"
        );
        assert_eq!(
            result(&record([Some(5), Some(4), None], "auc 0.8")),
            "auc 0.8"
        );
    }
}
