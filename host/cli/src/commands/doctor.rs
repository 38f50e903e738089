//! `sandcast doctor`: whether this machine has what it takes.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use clap::Args;
use console::style;
use sandcast_audit::AuditLog;
use sandcast_kernels::Device;
use sandcast_sandbox::process::{Attempt, ProcessProgram, attempts};
use sandcast_sandbox::{Sandbox, SandboxConfig};
use serde::Serialize;

use crate::{
    arguments::GlobalArguments,
    failure::{Exit, Failure},
    output::Output,
    state,
    table::{Table, bytes},
};

const EXAMPLES: &str = "\
Examples:
  sandcast doctor
  sandcast doctor --json | jq '.checks[] | select(.status != \"good\")'

Exit code 1 says that something must be mended before a pipeline can run here; what is only slower or
absent without harm (a GPU, say) is told and does not count.";

/// Where guests are compiled for.
const GUEST_TARGET: &str = "wasm32-unknown-unknown";

/// Below this much free space a build of the plugins or a run may end in a full disk.
const LITTLE_DISK_BYTES: u64 = 5 << 30;

/// Check the toolchain, the state folder, the sandbox and the devices of this machine
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DoctorArguments {}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Status {
    /// As it should be.
    Good,
    /// Worth knowing; nothing needs to be done.
    Note,
    /// Must be mended before a pipeline can run here.
    Bad,
}

#[derive(Debug, Serialize)]
struct Check {
    what: String,
    status: Status,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

impl Check {
    fn good(what: &str, found: impl Into<String>) -> Self {
        Self {
            what: what.to_owned(),
            status: Status::Good,
            found: found.into(),
            help: None,
        }
    }

    fn note(what: &str, found: impl Into<String>, help: &str) -> Self {
        Self {
            status: Status::Note,
            help: Some(help.to_owned()),
            ..Self::good(what, found)
        }
    }

    fn bad(what: &str, found: impl Into<String>, help: &str) -> Self {
        Self {
            status: Status::Bad,
            help: Some(help.to_owned()),
            ..Self::good(what, found)
        }
    }
}

pub(crate) fn execute(
    _arguments: &DoctorArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let folder = state::nearest(global.state.as_deref()).unwrap_or_else(|_| {
        global
            .state
            .clone()
            .unwrap_or_else(|| PathBuf::from(state::FOLDER))
    });
    let mut checks = vec![toolchain(), guest_target(), writable(&folder)];
    checks.extend(free_space(&folder));
    checks.extend(audit_log(&folder));
    checks.push(sandbox());
    checks.push(processes());
    checks.extend(operator(global));
    checks.extend(devices());
    let healthy = checks.iter().all(|check| check.status != Status::Bad);

    if output.wants_json() {
        output.json(&serde_json::json!({ "healthy": healthy, "checks": checks }))?;
    } else {
        show(&checks, output)?;
    }
    Ok(if healthy { Exit::Done } else { Exit::Rejected })
}

fn show(checks: &[Check], output: &Output) -> Result<(), Failure> {
    let mut table = Table::default();
    for check in checks {
        let mark = match check.status {
            Status::Good => style("good").green(),
            Status::Note => style("note").yellow(),
            Status::Bad => style("BAD").red().bold(),
        };
        table.row([mark.to_string(), check.what.clone(), check.found.clone()]);
        if let Some(help) = &check.help {
            table.row([String::new(), String::new(), style(help).dim().to_string()]);
        }
    }
    output.line(table)?;
    Ok(())
}

/// The files of the operator, where there are some.
fn operator(global: &GlobalArguments) -> Option<Check> {
    const WHAT: &str = "rules of the operator";
    let keys = [&global.ceiling_key, &global.trust_key];
    let files = [&global.ceiling, &global.trust];
    if files.iter().all(|it| it.is_none()) && keys.iter().all(|it| it.is_empty()) {
        return None;
    }
    let rules = match global.operator() {
        Ok(rules) => rules,
        Err(failure) => {
            return Some(Check::bad(
                WHAT,
                failure.report.to_string(),
                "nothing runs under them until this is mended",
            ));
        }
    };
    let mut found = Vec::new();
    if let Some(ceiling) = &rules.ceiling {
        let names: Vec<&str> = rules.ceiling_signers.iter().map(|key| key.name()).collect();
        found.push(match &names[..] {
            [] => format!("ceiling {}, no key wanted", ceiling.digest().short()),
            names => format!(
                "ceiling {}, signed by {}",
                ceiling.digest().short(),
                names.join(", ")
            ),
        });
    }
    for (role, rule) in &rules.trust {
        let keys = rule.keys.iter().map(|key| key.name());
        let identities = rule.identities.iter().map(|it| it.identity.as_str());
        let names: Vec<&str> = keys.chain(identities).collect();
        found.push(format!("{role} signed by {}", names.join(" or ")));
    }
    if !rules.trust_signers.is_empty() {
        let names: Vec<&str> = rules.trust_signers.iter().map(|key| key.name()).collect();
        found.push(format!("these rules signed by {}", names.join(", ")));
    }
    Some(Check::good(WHAT, found.join("; ")))
}

fn toolchain() -> Check {
    match said_by("rustc", &["--version"]) {
        Some(version) => Check::good("Rust toolchain", version),
        None => Check::note(
            "Rust toolchain",
            "there is none on the path",
            "only `build` and `run --build` need it: https://rustup.rs",
        ),
    }
}

fn guest_target() -> Check {
    let installed = said_by("rustc", &["--print", "sysroot"])
        .map(|sysroot| {
            Path::new(&sysroot)
                .join("lib/rustlib")
                .join(GUEST_TARGET)
                .join("lib")
        })
        .and_then(|folder| folder.read_dir().ok())
        .is_some_and(|mut files| {
            files.any(|file| {
                file.is_ok_and(|file| file.file_name().to_string_lossy().starts_with("libstd-"))
            })
        });
    if installed {
        Check::good("guest target", GUEST_TARGET)
    } else {
        Check::note(
            "guest target",
            format!("{GUEST_TARGET} is not installed"),
            "`sandcast build` installs it when it is needed",
        )
    }
}

fn said_by(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !said.is_empty()).then_some(said)
}

fn writable(folder: &Path) -> Check {
    let existing = existing_part(folder);
    let trial = existing.join(format!(".sandcast-doctor-{}", std::process::id()));
    let written = std::fs::write(&trial, b"").and_then(|()| std::fs::remove_file(&trial));
    match written {
        Ok(()) if existing == folder => Check::good(
            "state folder",
            format!("{} can be written", folder.display()),
        ),
        Ok(()) => Check::good(
            "state folder",
            format!("{} is not there yet and can be made", folder.display()),
        ),
        Err(error) => Check::bad(
            "state folder",
            format!("{} cannot be written: {error}", existing.display()),
            "name another one with --state or SANDCAST_STATE",
        ),
    }
}

/// The folder, or the nearest one above it that exists.
fn existing_part(folder: &Path) -> PathBuf {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
    if folder.is_dir() {
        return folder.to_path_buf();
    }
    absolute
        .ancestors()
        .find(|ancestor| ancestor.is_dir())
        .map_or_else(|| PathBuf::from("/"), Path::to_path_buf)
}

#[cfg(unix)]
fn free_space(folder: &Path) -> Option<Check> {
    let found = rustix::fs::statvfs(existing_part(folder)).ok()?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let text = format!("{} free", bytes(free));
    Some(if free < LITTLE_DISK_BYTES {
        Check::note(
            "disk",
            text,
            "a full disk stops a run; what was done is kept and the run can be resumed",
        )
    } else {
        Check::good("disk", text)
    })
}

#[cfg(not(unix))]
fn free_space(_folder: &Path) -> Option<Check> {
    None
}

fn audit_log(folder: &Path) -> Option<Check> {
    let audit = folder.join("audit");
    if !audit.is_dir() {
        return None;
    }
    let trust = sandcast_audit::Trust {
        keys: sandcast_audit::local_key(&audit).into_iter().collect(),
        checkpoints: Vec::new(),
    };
    Some(match sandcast_audit::verify_with(&audit, &trust) {
        Ok(report) => Check::good(
            "audit log",
            format!(
                "whole, {} entries, {} signed",
                report.entries, report.signed
            ),
        ),
        Err(error) => Check::bad(
            "audit log",
            error.to_string(),
            "keep the folder as evidence; `sandcast audit verify` says more",
        ),
    })
}

fn sandbox() -> Check {
    match Sandbox::new(SandboxConfig::default(), AuditLog::in_memory()) {
        Ok(_) => Check::good("sandbox", "the WebAssembly engine starts"),
        Err(error) => Check::bad(
            "sandbox",
            error.to_string(),
            "a limit on address space (ulimit -v) is the usual reason",
        ),
    }
}

/// Plugins are compiled in processes of their own, which the kernel holds. One is started and tries.
fn processes() -> Check {
    const WHAT: &str = "processes of plugins";
    let tried = match ProcessProgram::this().and_then(|program| attempts(&program)) {
        Ok(tried) => tried,
        Err(error) => {
            return Check::bad(
                WHAT,
                error.to_string(),
                "plugins cannot be compiled here; a container that forbids seccomp or Landlock is the usual reason",
            );
        }
    };
    let (right, wrong): (Vec<_>, Vec<_>) = tried.iter().partition(|attempt| attempt.is_right());
    let named = |attempts: &[&Attempt]| {
        let names: Vec<_> = attempts
            .iter()
            .map(|attempt| attempt.what.as_str())
            .collect();
        names.join(", ")
    };
    if !wrong.is_empty() {
        return Check::note(
            WHAT,
            format!("against the rule one can, or cannot: {}", named(&wrong)),
            "the engine alone holds plugins then; Linux 5.13 or newer holds their processes too",
        );
    }
    let refused: Vec<_> = right
        .into_iter()
        .filter(|attempt| !attempt.wanted)
        .collect();
    Check::good(
        WHAT,
        format!("confined; one tried and could not: {}", named(&refused)),
    )
}

fn devices() -> Vec<Check> {
    let describe = |device: sandcast_kernels::DeviceInfo| {
        let what = format!("device {}", device.name);
        if device.usable {
            Check::good(&what, device.detail)
        } else {
            Check::note(
                &what,
                device.detail,
                "models train and answer on the processor",
            )
        }
    };
    Device::probe().into_iter().map(describe).collect()
}
