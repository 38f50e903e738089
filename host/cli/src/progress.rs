//! What a person sees while something takes its time: a moving line on a terminal, plain lines
//! elsewhere.

use std::time::{Duration, Instant};

use console::Style;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{output::Output, table::seconds};

const TICK: Duration = Duration::from_millis(90);

/// Where there is no terminal, how often a step that goes on says how far it is.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// One step that is going on. Dropped unfinished, its line disappears.
#[derive(Debug)]
pub(crate) struct Step {
    output: Output,
    name: String,
    began: Instant,
    said: Instant,
    bar: Option<ProgressBar>,
}

impl Step {
    /// Says that a step begins.
    pub(crate) fn begin(output: &Output, name: &str) -> Self {
        let bar = output.bars().map(|bars| {
            let bar = bars.add(ProgressBar::new_spinner());
            let template = "{spinner:.cyan} {prefix:<24} {wide_msg:.dim} {elapsed:>5}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_prefix(name.to_owned());
            bar.enable_steady_tick(TICK);
            bar
        });
        let now = Instant::now();
        Self {
            output: output.clone(),
            name: name.to_owned(),
            began: now,
            said: now,
            bar,
        }
    }

    /// Says how far it is.
    pub(crate) fn update(&mut self, message: &str) {
        let message = message.trim();
        if let Some(bar) = &self.bar {
            bar.set_message(message.to_owned());
        } else if self.said.elapsed() >= SIGN_OF_LIFE {
            self.said = Instant::now();
            self.output
                .note(format_args!("  {:<24} {message}", self.name));
        }
    }

    /// Says that it is done, and what came of it.
    pub(crate) fn done(self, result: &str) {
        self.end(Style::new().green(), "✓", result);
    }

    /// Says that it need not be done, because an earlier result still stands.
    pub(crate) fn kept(self, result: &str) {
        self.end(Style::new().cyan(), "=", result);
    }

    /// Says that it did not work out.
    pub(crate) fn failed(self, result: &str) {
        self.end(Style::new().red().bold(), "✗", result);
    }

    fn end(&self, style: Style, mark: &str, result: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let took = format!("({})", seconds(self.began.elapsed().as_secs_f64()));
        self.output.note(format_args!(
            "{} {:<24} {result} {}",
            style.for_stderr().apply_to(mark),
            self.name,
            Style::new().for_stderr().dim().apply_to(took)
        ));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
