//! Lines in the host's log, by `wasi:logging`: bounded in size and in bytes a second, with
//! control characters made visible.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use wasmtime::component::{HasData, Linker};

use super::{Capability, LogGrant, LogLevel};
use crate::bindings::adapter::wasi::logging::logging;
use crate::limits::OverLimit;
use crate::process::LogLine;
use crate::state::State;
use crate::text;

/// Seconds' worth of bytes that may come at once.
const BURST_SECONDS: u64 = 10;

/// Messages dropped before the guest is stopped: by then it is not logging but flooding.
const MAX_DROPPED_MESSAGES: u64 = 100_000;

/// Bytes of the context of a message.
pub(crate) const MAX_CONTEXT_BYTES: usize = 128;

/// What one instance may still log.
#[derive(Debug)]
pub(crate) struct LogState {
    level: LogLevel,
    message_bytes: usize,
    bucket: Bucket,
    dropped: u64,
    last_words: Option<String>,
    /// Where lines go instead of the host's log.
    collected: Option<Arc<Mutex<Vec<LogLine>>>>,
}

impl LogState {
    pub(crate) fn new(grant: &LogGrant) -> Self {
        Self {
            level: grant.level,
            message_bytes: grant.message_bytes.to_usize(),
            bucket: Bucket::new(grant.bytes_per_second.bytes()),
            dropped: 0,
            last_words: None,
            collected: None,
        }
    }

    /// Leaves lines there instead of in the host's log.
    pub(crate) fn collect(&mut self, lines: Arc<Mutex<Vec<LogLine>>>) {
        self.collected = Some(lines);
    }

    /// The last error the guest has logged, which tells why it trapped.
    pub(crate) fn last_words(&self) -> Option<&str> {
        self.last_words.as_deref()
    }
}

/// Bytes that come in at a rate, up to a burst.
#[derive(Debug)]
struct Bucket {
    bytes_per_second: u64,
    level: u64,
    filled: Instant,
}

impl Bucket {
    fn new(bytes_per_second: u64) -> Self {
        let level = bytes_per_second.saturating_mul(BURST_SECONDS);
        Self {
            bytes_per_second,
            level,
            filled: Instant::now(),
        }
    }

    /// Takes bytes out, if there are so many.
    fn take(&mut self, bytes: u64, now: Instant) -> bool {
        let burst = self.bytes_per_second.saturating_mul(BURST_SECONDS);
        let elapsed = now.saturating_duration_since(self.filled);
        let refill = (elapsed.as_secs_f64() * self.bytes_per_second as f64) as u64;
        if refill > 0 {
            self.level = self.level.saturating_add(refill).min(burst);
            self.filled = now;
        }
        match self.level.checked_sub(bytes) {
            Some(left) => {
                self.level = left;
                true
            }
            None => false,
        }
    }
}

/// Links `wasi:logging/logging`.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    logging::add_to_linker::<State, Log>(linker, |state| LogView(state))
}

struct Log;

impl HasData for Log {
    type Data<'a> = LogView<'a>;
}

/// What answers, on the state of an instance.
pub(crate) struct LogView<'a>(pub(crate) &'a mut State);

impl logging::Host for LogView<'_> {
    fn log(
        &mut self,
        level: logging::Level,
        context: String,
        message: String,
    ) -> wasmtime::Result<()> {
        self.0.ledger.count("log.log");
        self.0.ledger.count_bytes_out(context.len() + message.len());
        self.0.ledger.saw(|| &message);
        write(self.0, level_of(level), &context, &message)
    }
}

fn level_of(level: logging::Level) -> LogLevel {
    match level {
        logging::Level::Trace => LogLevel::Trace,
        logging::Level::Debug => LogLevel::Debug,
        logging::Level::Info => LogLevel::Info,
        logging::Level::Warn => LogLevel::Warn,
        logging::Level::Error | logging::Level::Critical => LogLevel::Error,
    }
}

/// Leaves a message of a guest in the host's log.
pub(crate) fn write(
    state: &mut State,
    level: LogLevel,
    context: &str,
    message: &str,
) -> wasmtime::Result<()> {
    let message = text::sentence(message, state.log.message_bytes);
    let context = text::sentence(context, MAX_CONTEXT_BYTES);
    if level == LogLevel::Error {
        state.log.last_words = Some(text::sentence(&message, 512));
    }
    if level > state.log.level || state.log.level == LogLevel::Off {
        return Ok(());
    }
    let bytes = (message.len() + context.len()) as u64;
    if !state.log.bucket.take(bytes, Instant::now()) {
        state.log.dropped += 1;
        if state.log.dropped == 1 {
            let rate = state.identity.grants.log.bytes_per_second;
            let grant_with = format!(
                "plugins.{}.grants.log.bytes_per_second",
                state.identity.name
            );
            state.deny_with(
                Capability::Log.as_str(),
                format!("logs more than {rate} a second; what is over is dropped"),
                grant_with,
            );
        }
        if state.log.dropped > MAX_DROPPED_MESSAGES {
            return Err(wasmtime::Error::new(OverLimit {
                key: "log.bytes_per_second",
                detail: format!(
                    "it flooded the log: {} messages were over its share",
                    state.log.dropped
                ),
            }));
        }
        return Ok(());
    }
    if let Some(lines) = &state.log.collected {
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push(LogLine {
            level,
            context,
            message,
        });
        return Ok(());
    }
    let stage = state.actor.context.stage.as_str();
    let run = state.actor.context.run.as_ref();
    let run = run.map_or("", |run| run.as_str());
    let plugin = state.identity.reference.id.as_str();
    emit(level, plugin, run, stage, &context, &message);
    Ok(())
}

/// Puts a line of a guest into the host's log.
pub(crate) fn emit(
    level: LogLevel,
    plugin: &str,
    run: &str,
    stage: &str,
    context: &str,
    message: &str,
) {
    match level {
        LogLevel::Error => {
            tracing::error!(target: "plugin", { plugin.id = plugin, run.id = run, stage = stage, context = context }, "{message}");
        }
        LogLevel::Warn => {
            tracing::warn!(target: "plugin", { plugin.id = plugin, run.id = run, stage = stage, context = context }, "{message}");
        }
        LogLevel::Info => {
            tracing::info!(target: "plugin", { plugin.id = plugin, run.id = run, stage = stage, context = context }, "{message}");
        }
        LogLevel::Debug => {
            tracing::debug!(target: "plugin", { plugin.id = plugin, run.id = run, stage = stage, context = context }, "{message}");
        }
        LogLevel::Trace => {
            tracing::trace!(target: "plugin", { plugin.id = plugin, run.id = run, stage = stage, context = context }, "{message}");
        }
        LogLevel::Off => {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_gives_a_burst_and_then_a_rate() {
        let mut bucket = Bucket::new(100);
        let start = bucket.filled;
        assert!(bucket.take(1000, start), "ten seconds' worth at once");
        assert!(!bucket.take(1, start));
        let later = start + Duration::from_millis(500);
        assert!(bucket.take(50, later));
        assert!(!bucket.take(1, later));
        let much_later = start + Duration::from_secs(3600);
        assert!(bucket.take(1000, much_later));
        assert!(!bucket.take(1, much_later), "never more than the burst");
    }
}
