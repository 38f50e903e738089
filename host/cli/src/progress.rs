//! What a person sees while something takes its time: a moving line on a terminal, plain lines
//! elsewhere.

use std::time::{Duration, Instant};

use console::Style;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{output::Output, table::seconds};

/// How long a step may take before it is said, where there is no terminal, that it has begun.
const TICK: Duration = Duration::from_millis(90);

/// One step that is going on. Dropped unfinished, its line disappears.
#[derive(Debug)]
pub(crate) struct Step {
    output: Output,
    name: String,
    began: Instant,
    bar: Option<ProgressBar>,
}

impl Step {
    /// Says that a step begins.
    pub(crate) fn begin(output: &Output, name: &str) -> Self {
        let bar = output.bars().map(|bars| {
            let bar = bars.add(ProgressBar::new_spinner());
            bar.set_style(
                ProgressStyle::with_template(
                    "{spinner:.cyan} {prefix:<22} {wide_msg:.dim} {elapsed:>5}",
                )
                .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            bar.set_prefix(name.to_owned());
            bar.enable_steady_tick(TICK);
            bar
        });
        Self {
            output: output.clone(),
            name: name.to_owned(),
            began: Instant::now(),
            bar,
        }
    }

    /// Says how far it is. Only a terminal shows it.
    pub(crate) fn update(&self, message: impl Into<String>) {
        if let Some(bar) = &self.bar {
            bar.set_message(message.into());
        }
    }

    /// Says something that should stay.
    pub(crate) fn say(&self, message: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(message.to_owned()),
            None => self.output.note(format_args!("  {}: {message}", self.name)),
        }
    }

    /// Says that it is done, and what came of it.
    pub(crate) fn done(self, result: &str) {
        self.end(Style::new().for_stderr().green(), "✓", result);
    }

    /// Says that it did not work out.
    pub(crate) fn failed(self, result: &str) {
        self.end(Style::new().for_stderr().red().bold(), "✗", result);
    }

    fn end(&self, style: Style, mark: &str, result: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.output.note(format_args!(
            "{} {:<22} {result} {}",
            style.apply_to(mark),
            self.name,
            Style::new().for_stderr().dim().apply_to(format_args!(
                "({})",
                seconds(self.began.elapsed().as_secs_f64())
            ))
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
