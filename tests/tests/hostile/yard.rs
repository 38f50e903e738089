//! Where hostile guests are let loose: one at a time, measured, and the host looked at afterwards.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Instant;

use sandcast_audit::{AuditLog, Event};
use sandcast_sandbox::{
    ByteSize, CallError, ComputeGrant, DeviceChoice, Grants, Limits, Plugin, Pooling, Role,
    Sandbox, SandboxConfig, TimeSpan,
};
use sandcast_tests::built;
use tokio::sync::{Mutex, MutexGuard};

use crate::MEMORY;
use crate::catalogue::{MIB, Must, Row};

/// What the guests here may hold of linear memory.
pub(crate) const MEMORY_LIMIT: ByteSize = ByteSize::from_mib(256);

/// Bytes of one answer of theirs.
pub(crate) const OUTPUT_LIMIT: ByteSize = ByteSize::from_mib(16);

/// What their tensor programs may hold, which lies on the host's heap.
pub(crate) const COMPUTE_LIMIT: ByteSize = ByteSize::from_mib(64);

/// Memory is counted over all threads, so one guest runs at a time.
static TURN: Mutex<()> = Mutex::const_new(());

/// A person whom guests name, where the log must not have it.
pub(crate) const PERSON: &str = "mustermann-4711";

/// A sandbox, with what was found out in it.
pub(crate) struct Yard {
    pub(crate) sandbox: Sandbox,
    pub(crate) audit: AuditLog,
    name: &'static str,
    /// What each behaviour came to, in words.
    pub(crate) told: String,
    figures: String,
    wrong: Vec<String>,
    _turn: MutexGuard<'static, ()>,
}

/// How long a call may take of a guest that is to be stopped, and of any other. The machine may be busy.
const HASTE: TimeSpan = TimeSpan::from_millis(500);
const PATIENCE: TimeSpan = TimeSpan::from_millis(60_000);

/// A guest, loaded.
pub(crate) struct Guest {
    pub(crate) patient: Plugin,
    hasty: Plugin,
}

impl Guest {
    /// The one for a row.
    pub(crate) fn of(&self, row: &Row) -> &Plugin {
        match row.must {
            Must::Timeout => &self.hasty,
            _ => &self.patient,
        }
    }
}

/// What a guest was let do: the texts that it had shown, or how it ended.
pub(crate) type Outcome = Result<Vec<String>, CallError>;

impl Yard {
    pub(crate) async fn new(name: &'static str) -> Self {
        Self::with(name, |_| {}).await
    }

    pub(crate) async fn with(name: &'static str, change: impl FnOnce(&mut SandboxConfig)) -> Self {
        let turn = TURN.lock().await;
        let audit = AuditLog::in_memory();
        let mut config = SandboxConfig {
            device: DeviceChoice::Cpu.into(),
            pooling: Pooling::Auto,
            ..SandboxConfig::default()
        };
        change(&mut config);
        Self {
            sandbox: Sandbox::new(config, audit.clone()).expect("a sandbox"),
            audit,
            name,
            told: String::new(),
            figures: String::new(),
            wrong: Vec::new(),
            _turn: turn,
        }
    }

    /// A sandbox that has nothing of any other.
    pub(crate) fn fresh() -> Sandbox {
        let config = SandboxConfig {
            device: DeviceChoice::Cpu.into(),
            pooling: Pooling::Off,
            ..SandboxConfig::default()
        };
        Sandbox::new(config, AuditLog::in_memory()).expect("a sandbox")
    }

    /// Loads a guest of `tests/guests`.
    pub(crate) async fn guest(&self, guest: &str, role: Role) -> Guest {
        let component = fs::read(built(&format!("tests/guests/{guest}"))).expect("the guest");
        self.load(&component, role).await
    }

    /// Loads a component twice, with and without much patience.
    pub(crate) async fn load(&self, component: &[u8], role: Role) -> Guest {
        let mut hasty = grants(role);
        hasty.limits.call_timeout = HASTE;
        let load = |grants| async {
            let loaded = self.sandbox.load("guest", component, role, grants).await;
            loaded.expect("it loads")
        };
        Guest {
            patient: load(grants(role)).await,
            hasty: load(hasty).await,
        }
    }

    /// Lets a guest do as its row says, holds what comes of it to the row, and then has another
    /// one, that behaves, do its work.
    pub(crate) async fn lets<Attempt, Afterwards>(
        &mut self,
        row: &Row,
        attempt: Attempt,
        afterwards: Afterwards,
    ) where
        Attempt: Future<Output = Outcome>,
        Afterwards: Future<Output = Outcome>,
    {
        let records = self.events().len();
        let before = MEMORY.begin();
        let sqlite_before = sqlite_held();
        let started = Instant::now();
        let outcome = attempt.await;
        let took = started.elapsed();
        let growth = MEMORY.growth(before) + sqlite_peak().saturating_sub(sqlite_before);
        let (must, told) = judged(&outcome);
        self.note(row, must, &told, growth);
        if must != row.must
            && let Err(error) = &outcome
        {
            self.wrong.push(format!("{row}: {error}"));
        }
        if let Ok(texts) = &outcome {
            texts.iter().for_each(|text| self.is_fit(row, text));
        }
        self.is_fit(row, &told);
        let limit = MEMORY_LIMIT.bytes();
        let mut memory = 0;
        for event in self.events().split_off(records) {
            if let Event::CallsFinished {
                peak_memory_bytes, ..
            } = &event
            {
                memory = memory.max(*peak_memory_bytes);
            }
            let value = serde_json::to_value(&event).expect("JSON");
            self.are_fit(row, &value);
        }
        if memory > limit {
            self.wrong.push(format!(
                "{row}: {memory} bytes of linear memory, over {limit}"
            ));
        }
        if self.sandbox.live_instances() != 0 {
            self.wrong.push(format!("{row}: an instance lives on"));
        }
        if let Err(error) = afterwards.await {
            self.wrong
                .push(format!("{row}: afterwards a good guest fails: {error}"));
        }
        writeln!(
            self.figures,
            "{row}\t{}\t{}\t{:.1}",
            growth >> 10,
            memory >> 10,
            took.as_secs_f64(),
        )
        .expect("a line");
    }

    /// What something came to, held to its row.
    pub(crate) fn note(&mut self, row: &Row, found: Must, told: &str, growth: usize) {
        writeln!(self.told, "{:<24} {told}", row.behaviour).expect("a line");
        if found != row.must {
            self.wrong.push(format!(
                "{row}: {told}: {found:?} instead of {:?}",
                row.must
            ));
        }
        if growth > row.heap_bytes {
            self.wrong.push(format!(
                "{row}: the host's heap grew by {} KiB, over {} MiB",
                growth >> 10,
                row.heap_bytes / MIB
            ));
        }
    }

    pub(crate) fn figure(&mut self, row: &Row, growth: usize, seconds: f64) {
        writeln!(self.figures, "{row}\t{}\t0\t{seconds:.1}", growth >> 10).expect("a line");
    }

    pub(crate) fn is_wrong(&mut self, what: String) {
        self.wrong.push(what);
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        let entries = self.audit.entries().expect("a log in memory");
        entries.into_iter().map(|entry| entry.event).collect()
    }

    /// A text is in no entry of the log.
    pub(crate) fn is_not_on_record(&mut self, text: &str) {
        for event in self.events() {
            let entry = serde_json::to_string(&event).expect("JSON");
            if entry.contains(text) {
                self.wrong.push(format!("{text} is in {entry}"));
            }
        }
    }

    /// Nothing that drives a terminal is in a text.
    pub(crate) fn is_fit(&mut self, row: &Row, text: &str) {
        let drives = |c: char| {
            c.is_control()
                || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        if text.chars().any(drives) {
            self.wrong
                .push(format!("{row}: what drives a terminal is in {text:?}"));
        }
    }

    fn are_fit(&mut self, row: &Row, value: &serde_json::Value) {
        match value {
            serde_json::Value::String(text) => self.is_fit(row, text),
            serde_json::Value::Array(values) => {
                values.iter().for_each(|value| self.are_fit(row, value));
            }
            serde_json::Value::Object(object) => {
                object.values().for_each(|value| self.are_fit(row, value));
            }
            _ => {}
        }
    }

    /// Everything was as it must be. Figures go to a file, for whoever asks.
    pub(crate) fn finish(self) -> String {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hostile");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(self.name), &self.figures).expect("the figures");
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
        assert_eq!(self.sandbox.live_instances(), 0, "every instance is gone");
        self.told
    }
}

/// The most bytes that SQLite held since this was asked last. They are not on the heap that is counted.
#[expect(unsafe_code, reason = "rusqlite has no safe way to ask for it")]
fn sqlite_peak() -> usize {
    // SAFETY: it takes a number and may be called from any thread, at any time.
    let bytes = unsafe { rusqlite::ffi::sqlite3_memory_highwater(1) };
    usize::try_from(bytes).unwrap_or(0)
}

/// Bytes that it holds now: the most since a moment ago.
fn sqlite_held() -> usize {
    sqlite_peak();
    sqlite_peak()
}

/// What guests are granted here.
pub(crate) fn grants(role: Role) -> Grants {
    Grants {
        compute: (role == Role::Adapter).then(|| ComputeGrant {
            memory: COMPUTE_LIMIT,
            time: TimeSpan::from_millis(1_000),
            ..ComputeGrant::default()
        }),
        limits: Limits {
            memory: MEMORY_LIMIT,
            output_bytes: OUTPUT_LIMIT,
            call_timeout: PATIENCE,
            ..Limits::default()
        },
        ..Grants::default()
    }
}

/// What kind of an end it was, and in words.
pub(crate) fn judged(outcome: &Outcome) -> (Must, String) {
    let error = match outcome {
        Ok(_) => return (Must::Harmless, "accepted".into()),
        Err(error) => error,
    };
    match error {
        CallError::Trap { .. } => (Must::Trap, "trap".into()),
        CallError::Timeout { limit, .. } => (Must::Timeout, format!("timeout ({limit})")),
        CallError::MemoryLimit { .. } => (Must::Memory, "memory limit".into()),
        CallError::OverLimit { limit, detail, .. } => (Must::Limit, format!("{limit}: {detail}")),
        CallError::Denied { capability, .. } => (Must::Denied, format!("denied ({capability})")),
        CallError::Failed { failure, .. } => {
            let hint = failure.hint.as_ref().map(|hint| format!("; {hint}"));
            let hint = hint.unwrap_or_default();
            let told = format!("failure ({}): {}{hint}", failure.code, failure.message);
            (Must::Failure, told)
        }
        CallError::BadOutput { what, .. } => (Must::Refused, format!("refused: {what}")),
        error => (Must::Never, format!("unexpected: {error}")),
    }
}
