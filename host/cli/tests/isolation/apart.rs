//! What tests of processes of their own have in common.

use std::fs;
use std::path::Path;

use sandcast_audit::{AuditLog, Event};
use sandcast_build::{BuildRequest, build};
use sandcast_sandbox::process::ProcessProgram;
use sandcast_sandbox::{CallContext, DeviceChoice, Pooling, Sandbox, SandboxConfig};
use tokio::sync::Mutex;

pub(crate) fn program() -> ProcessProgram {
    ProcessProgram::at(env!("CARGO_BIN_EXE_sandcast"))
}

pub(crate) fn sandbox(audit: &AuditLog, change: impl FnOnce(&mut SandboxConfig)) -> Sandbox {
    let mut config = SandboxConfig {
        pooling: Pooling::Off,
        device: DeviceChoice::Cpu.into(),
        process: Some(program()),
        ..SandboxConfig::default()
    };
    change(&mut config);
    Sandbox::new(config, audit.clone()).expect("a sandbox")
}

/// A guest of the repository, such as `plugins/connector-csv`.
pub(crate) fn component(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(name);
    let built = build(&BuildRequest::new(folder), &mut |_| {}).expect("it builds");
    fs::read(built.component).expect("it is there")
}

/// Processes of plugins that this one has started and not seen the end of.
pub(crate) fn children() -> usize {
    processes().len()
}

pub(crate) fn processes() -> Vec<String> {
    let threads = fs::read_dir("/proc/self/task").expect("threads");
    let of = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("children"));
    let lists: String = threads.filter_map(|thread| of(thread.ok()?).ok()).collect();
    let named = |child: &&str| {
        let words = fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
        words.contains("sandbox-process")
    };
    let found = lists.split_whitespace().filter(named);
    found.map(str::to_owned).collect()
}

/// One test at a time counts processes.
pub(crate) static ALONE: Mutex<()> = Mutex::const_new(());

pub(crate) fn context() -> CallContext {
    CallContext::new(None, "test")
}

/// What the log says of instances and denials, but for times.
pub(crate) fn told(audit: &AuditLog) -> Vec<String> {
    let entries = audit.entries().expect("a log in memory").into_iter();
    entries
        .filter_map(|entry| match entry.event {
            Event::CallsFinished {
                host_calls,
                bytes_in,
                bytes_out,
                outcome,
                ..
            } if !host_calls.contains_key("log.log") => Some(format!(
                "{outcome}: {host_calls:?}, {bytes_in}, {bytes_out}"
            )),
            // How much of a flood comes before its end is a matter of time.
            Event::CallsFinished { outcome, .. } => Some(format!("{outcome}, with a log")),
            Event::Denied {
                capability, detail, ..
            } => Some(format!("denied {capability}: {detail}")),
            _ => None,
        })
        .collect()
}

/// What is on record of effects and denials.
pub(crate) fn effects(audit: &AuditLog) -> Vec<String> {
    let entries = audit.entries().expect("a log in memory").into_iter();
    entries
        .filter_map(|entry| match entry.event {
            Event::Effect {
                capability,
                action,
                target,
                ..
            } => Some(format!("{capability} {action} {target}")),
            Event::Denied {
                detail, grant_with, ..
            } => Some(format!("denied {detail}: {grant_with}")),
            _ => None,
        })
        .collect()
}
