//! What the runs of a plugin have used, from the audit log of a state folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sandcast_audit::{AuditError, Digest, Event, RunId};
use serde::Serialize;

/// What a component has used, over everything that the log knows of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PluginUsage {
    /// Runs in which an instance of it ended.
    pub runs: u64,
    /// The last of them.
    pub last_run: Option<RunId>,
    /// Its instances that ended, in runs or not.
    pub instances: u64,
    /// Its calls into the host, by capability: the ledger names them `<capability>.<function>`.
    pub calls: BTreeMap<String, u64>,
    /// How often it was denied something, by capability.
    pub denials: BTreeMap<String, u64>,
    /// Seconds spent inside it.
    pub guest_seconds: f64,
    /// The most memory an instance of it held, in bytes.
    pub peak_memory_bytes: u64,
}

impl PluginUsage {
    fn add(
        &mut self,
        instances: u64,
        host_calls: BTreeMap<String, u64>,
        guest_seconds: f64,
        peak_memory_bytes: u64,
    ) {
        self.instances += instances;
        self.guest_seconds += guest_seconds;
        self.peak_memory_bytes = self.peak_memory_bytes.max(peak_memory_bytes);
        for (function, calls) in host_calls {
            let capability = function.split('.').next().unwrap_or_default();
            let sum = self.calls.entry(capability.to_owned()).or_default();
            *sum = sum.saturating_add(calls);
        }
    }
}

/// Reads what the component with a digest has used, without opening the state for writing. `None`
/// where there is no audit log, or nothing of the component in it has ended yet.
///
/// # Errors
/// If the log cannot be read.
pub fn usage_in(folder: &Path, component: &Digest) -> Result<Option<PluginUsage>, AuditError> {
    let audit = folder.join("audit");
    if !audit.join("log.jsonl").is_file() {
        return Ok(None);
    }
    let mut usage = PluginUsage::default();
    let mut runs: BTreeSet<RunId> = BTreeSet::new();
    for entry in sandcast_audit::read(&audit)? {
        match entry?.event {
            Event::CallsFinished {
                run,
                plugin,
                host_calls,
                guest_seconds,
                peak_memory_bytes,
                ..
            } if plugin.digest == *component => {
                usage.add(1, host_calls, guest_seconds, peak_memory_bytes);
                if let Some(run) = run {
                    usage.last_run = Some(run.clone());
                    runs.insert(run);
                }
            }
            Event::CallsServed {
                plugin,
                outcomes,
                host_calls,
                guest_seconds,
                peak_memory_bytes,
                ..
            } if plugin.digest == *component => {
                let instances = outcomes.values().sum();
                usage.add(instances, host_calls, guest_seconds, peak_memory_bytes);
            }
            Event::Denied {
                plugin, capability, ..
            } if plugin.digest == *component => {
                *usage.denials.entry(capability).or_default() += 1;
            }
            _ => {}
        }
    }
    usage.runs = runs.len() as u64;
    Ok((usage.instances > 0).then_some(usage))
}

#[cfg(test)]
mod tests {
    use sandcast_audit::{AuditLog, PluginRef};

    use super::*;

    fn plugin(name: &str) -> PluginRef {
        PluginRef {
            id: format!("test/{name}"),
            version: "1.0.0".to_owned(),
            role: "connector".to_owned(),
            digest: Digest::of(name.as_bytes()),
        }
    }

    fn calls(run: &str, name: &str, calls: &[(&str, u64)]) -> Event {
        Event::CallsFinished {
            run: run.parse().ok(),
            plugin: plugin(name),
            stage: "connect".to_owned(),
            host_calls: calls.iter().map(|(f, n)| ((*f).to_owned(), *n)).collect(),
            host_use: Default::default(),
            bytes_in: 0,
            bytes_out: 0,
            guest_seconds: 0.5,
            peak_memory_bytes: 100,
            denials: 0,
            outcome: "done".to_owned(),
        }
    }

    fn served(name: &str, requests: u64) -> Event {
        Event::CallsServed {
            run: RunId::generate(),
            model: "loans".to_owned(),
            version: 1,
            plugin: plugin(name),
            stage: "predict".to_owned(),
            seconds: 60.0,
            rows: requests,
            outcomes: BTreeMap::from([("finished".to_owned(), requests)]),
            host_calls: BTreeMap::from([("batch.column".to_owned(), requests)]),
            host_use: Default::default(),
            bytes_in: 0,
            bytes_out: 0,
            guest_seconds: 0.5,
            peak_memory_bytes: 300,
            denials: 0,
            compute_seconds: 0.0,
            compute_peak_bytes: 0,
            most: sandcast_audit::MostOfOne::default(),
        }
    }

    #[test]
    fn what_was_served_counts_too() {
        let state = tempfile::tempdir().expect("a folder");
        let log = AuditLog::open(&state.path().join("audit")).expect("a log");
        for event in [served("mlp", 7), served("mlp", 3), served("other", 9)] {
            log.append(event).expect("appended");
        }
        let usage = usage_in(state.path(), &Digest::of(b"mlp"));
        let usage = usage.expect("a log").expect("it was used");
        assert_eq!((usage.runs, usage.instances), (0, 10), "no runs");
        assert_eq!(usage.calls["batch"], 10);
        assert_eq!((usage.guest_seconds, usage.peak_memory_bytes), (1.0, 300));
    }

    #[test]
    fn calls_and_denials_of_one_component_are_added_up() {
        let state = tempfile::tempdir().expect("a folder");
        let digest = Digest::of(b"csv");
        assert_eq!(usage_in(state.path(), &digest).expect("no log"), None);
        let log = AuditLog::open(&state.path().join("audit")).expect("a log");
        let (first, second) = ("20261121-201530-4f3a9c", "20261122-201530-4f3a9c");
        for event in [
            calls(first, "csv", &[("files.read", 2), ("files.stat", 1)]),
            calls(first, "csv", &[("files.read", 1)]),
            calls(second, "csv", &[("clock.now", 1)]),
            calls(second, "other", &[("http.handle", 9)]),
            Event::Denied {
                run: None,
                plugin: plugin("csv"),
                stage: "connect".to_owned(),
                capability: "clock".to_owned(),
                detail: "a test".to_owned(),
                grant_with: "clock: true".to_owned(),
            },
        ] {
            log.append(event).expect("appended");
        }
        let usage = usage_in(state.path(), &digest)
            .expect("a log")
            .expect("runs");
        assert_eq!((usage.runs, usage.instances), (2, 3));
        assert_eq!(
            usage.last_run.as_ref().map(RunId::as_str),
            Some(second),
            "the last"
        );
        assert_eq!(
            usage.calls,
            BTreeMap::from([("clock".to_owned(), 1), ("files".to_owned(), 4)])
        );
        assert_eq!(usage.denials, BTreeMap::from([("clock".to_owned(), 1)]));
        assert_eq!(usage.peak_memory_bytes, 100);
        let never = usage_in(state.path(), &Digest::of(b"never"));
        assert_eq!(never.expect("a log"), None);
    }
}
