//! The only place that writes to the terminal: data to stdout, messages to stderr.

use std::{
    fmt,
    io::{self, IsTerminal as _, Write as _},
    panic,
};

use console::{Style, set_colors_enabled, set_colors_enabled_stderr};
use indicatif::MultiProgress;
use miette::GraphicalReportHandler;
use serde::Serialize;

use crate::{
    arguments::{Color, GlobalArguments},
    failure::{Exit, Failure},
    terminal,
};

/// Where a command's words go.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    json: bool,
    verbosity: i8,
    colored: bool,
    /// Progress bars, when stderr is a terminal that somebody looks at.
    bars: Option<MultiProgress>,
}

impl Output {
    pub(crate) fn new(arguments: &GlobalArguments) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let wants = |terminal: bool| match arguments.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && !no_color,
        };
        let verbosity = if arguments.quiet {
            -1
        } else {
            i8::try_from(arguments.verbose).unwrap_or(i8::MAX)
        };
        let colored = wants(io::stderr().is_terminal());
        set_colors_enabled(wants(io::stdout().is_terminal()));
        set_colors_enabled_stderr(colored);
        let watched = io::stderr().is_terminal() && std::env::var_os("CI").is_none();
        Self {
            json: arguments.json,
            verbosity,
            colored,
            bars: (watched && verbosity == 0).then(MultiProgress::new),
        }
    }

    /// Whether the result is wanted as JSON.
    pub(crate) fn wants_json(&self) -> bool {
        self.json
    }

    /// Whether messages that are not errors are wanted.
    pub(crate) fn is_quiet(&self) -> bool {
        self.verbosity < 0
    }

    /// Whether more than the usual is wanted.
    pub(crate) fn is_verbose(&self) -> bool {
        self.verbosity > 0
    }

    /// The bars of the terminal, if there is one.
    pub(crate) fn bars(&self) -> Option<&MultiProgress> {
        self.bars.as_ref()
    }

    /// A line of data.
    pub(crate) fn line(&self, text: impl fmt::Display) -> io::Result<()> {
        writeln!(
            io::stdout().lock(),
            "{}",
            terminal::shown(&text.to_string())
        )
    }

    /// Data that ends its last line itself.
    pub(crate) fn text(&self, text: impl fmt::Display) -> io::Result<()> {
        write!(
            io::stdout().lock(),
            "{}",
            terminal::shown(&text.to_string())
        )
    }

    /// Data as it is, without a newline of its own.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    }

    /// The whole result as one JSON value.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        let text = terminal::json(serde_json::to_string_pretty(value)?);
        writeln!(stdout, "{text}")?;
        Ok(())
    }

    /// A message for the person at the terminal.
    pub(crate) fn note(&self, text: impl fmt::Display) {
        if !self.is_quiet() {
            self.message(text);
        }
    }

    /// A message that is told even to those who asked for quiet.
    pub(crate) fn warn(&self, text: impl fmt::Display) {
        let mark = Style::new().for_stderr().yellow().bold();
        self.message(format_args!("{} {text}", mark.apply_to("warning:")));
    }

    /// Tells a failure and says how the program ends because of it.
    pub(crate) fn failure(&self, failure: &Failure) -> Exit {
        if failure.reader_left {
            return Exit::Done;
        }
        if self.json {
            self.message(terminal::json(self.failure_as_json(failure)));
        } else {
            self.message(self.failure_as_text(failure));
        }
        failure.exit
    }

    fn failure_as_text(&self, failure: &Failure) -> String {
        let mark = Style::new().for_stderr().red().bold();
        let mut text = format!("{} {}", mark.apply_to("error:"), failure.report);
        if failure.report.source_code().is_some() {
            let handler = if self.colored {
                GraphicalReportHandler::new()
            } else {
                GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor())
            };
            let mut drawn = String::new();
            if handler
                .render_report(&mut drawn, failure.report.as_ref())
                .is_ok()
            {
                return drawn.trim_end().to_owned();
            }
        }
        for cause in failure.report.chain().skip(1).map(ToString::to_string) {
            if !text.contains(&cause) {
                text.push_str(&format!("\n  because: {cause}"));
            }
        }
        if let Some(help) = failure.report.help() {
            text.push_str(&format!("\n  help: {help}"));
        }
        text
    }

    fn failure_as_json(&self, failure: &Failure) -> String {
        let causes: Vec<String> = failure
            .report
            .chain()
            .skip(1)
            .map(ToString::to_string)
            .collect();
        serde_json::json!({
            "error": failure.report.to_string(),
            "causes": causes,
            "help": failure.report.help().map(|help| help.to_string()),
        })
        .to_string()
    }

    #[expect(
        clippy::print_stderr,
        reason = "this is where messages leave the program"
    )]
    fn message(&self, text: impl fmt::Display) {
        let text = text.to_string();
        let text = terminal::shown(&text);
        match &self.bars {
            Some(bars) => bars.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    /// A panic is a bug of this program and is told as one.
    pub(crate) fn install_panic_message(&self) {
        let output = self.clone();
        let backtrace = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
        let standard = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if backtrace {
                standard(info);
                return;
            }
            let message = info.payload_as_str().unwrap_or("no message");
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            output.message(format_args!(
                "this is a bug in sandcast {}: {message}\n  at {place}\n  help: \
                 RUST_BACKTRACE=1 shows more; nothing half-written was kept, so the same command \
                 may be run again",
                env!("CARGO_PKG_VERSION")
            ));
        }));
    }

    /// Sends the program's own log to stderr: `-v` tells what it does, `-vv` more;
    /// `SANDCAST_LOG` takes directives such as `sandcast_sandbox=trace`.
    pub(crate) fn install_tracing(&self) {
        use tracing_subscriber::{EnvFilter, fmt};
        let level = match self.verbosity {
            ..=-1 => "error",
            0 => "warn",
            1 => "info",
            2 => "debug",
            _ => "trace",
        };
        let directives = format!("{level},datafusion=warn,wasmtime=warn,cranelift=warn");
        let filter =
            EnvFilter::try_from_env("SANDCAST_LOG").unwrap_or_else(|_| EnvFilter::new(directives));
        // A second subscriber is the only way for this to fail, and there is none.
        let _ = fmt()
            .with_env_filter(filter)
            .with_writer(io::stderr)
            .with_ansi(self.colored)
            .without_time()
            .try_init();
    }
}
