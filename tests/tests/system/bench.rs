//! A sandbox with a log and recordings that a test reads, and what is asked in it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use sandcast_audit::{AuditLog, Digest, Event};
use sandcast_sandbox::{
    CallContext, ControlPoint, DeviceChoice, Grants, LoadError, Plugin, Recording, Recordings,
    Request, Role, Sandbox, SandboxConfig, replay,
};
use sandcast_tests::built;
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) struct Bench {
    pub(crate) sandbox: Sandbox,
    pub(crate) audit: AuditLog,
    pub(crate) recordings: Recordings,
    pub(crate) folder: Arc<TempDir>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let folder = TempDir::with_prefix("sandcast-bench-").expect("a folder");
        Self::on(Arc::new(folder), AuditLog::in_memory())
    }

    /// One whose log lies in its folder.
    pub(crate) fn with_a_log_on_disk() -> Self {
        let folder = TempDir::with_prefix("sandcast-bench-").expect("a folder");
        let audit = AuditLog::open(&folder.path().join("audit")).expect("a log");
        Self::on(Arc::new(folder), audit)
    }

    /// Takes that log away, as a disk that is full or broken does.
    pub(crate) fn breaks_its_log(&self) {
        let log = self.folder.path().join("audit/log.jsonl");
        fs::write(log, b"").expect("it is there");
    }

    /// Another one on the same folder: another process, as far as what is kept there can tell.
    pub(crate) fn beside(&self) -> Self {
        Self::on(Arc::clone(&self.folder), AuditLog::in_memory())
    }

    fn on(folder: Arc<TempDir>, audit: AuditLog) -> Self {
        let recordings = Recordings::at(folder.path().join("recordings"));
        let config = SandboxConfig {
            cache_dir: Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled")),
            device: DeviceChoice::Cpu.into(),
            recordings: Some(recordings.clone()),
            plugin_state: Some(folder.path().join("plugin-state.sqlite")),
            ..SandboxConfig::default()
        };
        Self {
            sandbox: Sandbox::new(config, audit.clone()).expect("a sandbox"),
            audit,
            recordings,
            folder,
        }
    }

    /// Loads a guest of the repository by a name.
    pub(crate) async fn load(
        &self,
        name: &str,
        guest: &str,
        role: Role,
        grants: Grants,
    ) -> Result<Plugin, LoadError> {
        let component = fs::read(built(guest)).expect("the guest");
        self.sandbox.load(name, &component, role, grants).await
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        let entries = self.audit.entries().expect("a log in memory");
        entries.into_iter().map(|entry| entry.event).collect()
    }

    /// What was denied, with the line that would grant it.
    pub(crate) fn denied(&self) -> Vec<(String, String)> {
        self.events()
            .into_iter()
            .filter_map(|event| match event {
                Event::Denied {
                    detail, grant_with, ..
                } => Some((detail, grant_with)),
                _ => None,
            })
            .collect()
    }

    /// The recordings that are on record, in order.
    pub(crate) fn recorded(&self) -> Vec<Digest> {
        self.events()
            .into_iter()
            .filter_map(|event| match event {
                Event::Recorded { recording, .. } => Some(recording),
                _ => None,
            })
            .collect()
    }

    /// Replays a recording where nothing of this one is but its recordings: to the same, and with no
    /// effect.
    pub(crate) async fn is_replayed(&self, elsewhere: &Self, digest: &Digest) {
        let recording = Recording::read(&self.recordings, digest).expect("a recording");
        let again = replay(&elsewhere.sandbox, &self.recordings, &recording).await;
        let again = again.expect("it is replayed");
        assert!(again.is_same(), "{again:?}");
        let effects = elsewhere.events().into_iter();
        let effects = effects.filter(|event| matches!(event, Event::Effect { .. }));
        assert_eq!(effects.count(), 0, "nothing is done");
    }
}

/// What a new instance of a policy says to a question.
pub(crate) async fn asks(plugin: &Plugin, question: Value) -> Vec<String> {
    let context = CallContext::new(None, "test");
    let policy = plugin.policy(&context, &json!({})).await;
    let mut policy = policy.expect("it is configured");
    let request = Request {
        control_point: ControlPoint::Promote,
        principal: "user:test".into(),
        action: "promote".into(),
        resource: "model:test".into(),
        context: question,
    };
    policy.decide(&request).await.expect("it decides").reasons
}

/// A grant with some of its keys set.
pub(crate) fn with(mut grant: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().expect("keys") {
        grant[key] = value.clone();
    }
    grant
}
