//! Components and what comes out of them: columns, models, recordings, certificates.

use std::collections::BTreeMap;
use std::fs;
use std::sync::OnceLock;

use sandcast_audit::{AuditLog, Digest, VerifierKey};
use sandcast_sandbox::{
    Certificate, Grants, Inspection, Model, Recording, Recordings, Sandbox, SandboxConfig,
    Signatures, Surroundings, capabilities, check_trust, diff, inspect, replay, risk, signers,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{Said, first_line};
use crate::built;

pub use sandcast_sandbox::fuzzing::{asked, columns, recorded_rows, store_list};

/// A component: inspected, weighed, and compared with itself.
pub fn component(bytes: &[u8]) -> Said {
    let inspection = inspect(bytes).map_err(|error| error.to_string())?;
    let weighed = risk(&inspection, &Surroundings::default());
    let used = BTreeMap::from([("log".to_owned(), 1)]);
    let grants = Grants::default();
    let view = |path: &std::path::Path| path.display().to_string();
    let _ = capabilities(&inspection, Some(&grants), Some(&used), &weighed, view);
    let compared = diff(&inspection, &inspection, &[]);
    assert!(
        compared.unapproved.is_empty(),
        "nothing is new in the same component"
    );
    // The bytes as a signature of themselves.
    let text = String::from_utf8_lossy(bytes);
    let _ = signers(&inspection, &text);
    let signatures = Signatures {
        note: Some(&text),
        bundle: Some(&text),
    };
    let _ = check_trust(&inspection, bytes, signatures, None);
    Ok(())
}

/// What the targets of this file share: a sandbox, and a folder of recordings with a component.
struct Stand {
    runtime: Runtime,
    sandbox: Sandbox,
    recordings: Recordings,
    component: Digest,
    _folder: TempDir,
}

fn stand() -> Result<&'static Stand, String> {
    static STAND: OnceLock<Result<Stand, String>> = OnceLock::new();
    let made = STAND.get_or_init(|| {
        let said = |error: &dyn std::error::Error| error.to_string();
        let folder = TempDir::with_prefix("sandcast-fuzz-").map_err(|error| said(&error))?;
        let recordings = Recordings::at(folder.path());
        let oracle = fs::read(built("tests/guests/oracle")).map_err(|error| said(&error))?;
        let component = recordings.put(&oracle).map_err(|error| said(&error))?;
        let config = SandboxConfig {
            device: sandcast_sandbox::DeviceChoice::Cpu.into(),
            ..SandboxConfig::default()
        };
        let sandbox = Sandbox::new(config, AuditLog::in_memory()).map_err(|error| said(&error))?;
        Ok(Stand {
            runtime: Runtime::new().map_err(|error| said(&error))?,
            sandbox,
            recordings,
            component,
            _folder: folder,
        })
    });
    made.as_ref().map_err(Clone::clone)
}

/// A model file, loaded as a server loads it.
pub fn model(bytes: &[u8]) -> Said {
    let _ = Model::graph_of(bytes);
    let stand = stand()?;
    let loaded = Model::from_bytes(bytes, &stand.sandbox).map_err(|error| error.to_string())?;
    assert_eq!(
        loaded.digest(),
        Digest::of(bytes),
        "a model is the file it was read from"
    );
    Ok(())
}

/// What stands for the digest of the oracle in a recording of a target, so that the recording
/// outlives a new build of it.
pub(crate) const COMPONENT: &str = "{component}";

/// A recording, which may be another's evidence: read, and lived again.
pub fn recording(bytes: &[u8]) -> Said {
    let stand = stand()?;
    let text = String::from_utf8_lossy(bytes).replace(COMPONENT, &stand.component.to_string());
    let put = stand.recordings.put(text.as_bytes());
    let digest = put.map_err(|error| error.to_string())?;
    let read = Recording::read(&stand.recordings, &digest);
    let removed = fs::remove_file(stand.recordings.path_of(&digest));
    removed.map_err(|error| error.to_string())?;
    let recording = read.map_err(|error| error.to_string())?;
    let _ = recording.parts();
    let _ = recording.host_calls();
    let replayed = replay(&stand.sandbox, &stand.recordings, &recording);
    let replayed = stand.runtime.block_on(replayed);
    assert_eq!(stand.sandbox.live_instances(), 0, "nothing lives on");
    let replayed = replayed.map_err(|error| error.to_string())?;
    match replayed.divergence {
        None => Ok(()),
        Some(divergence) => Err(format!("{:?}", divergence.recorded.map(|call| call.name))),
    }
}

/// A key on a line, and after it a certificate, held against the component that it says it is of.
pub fn certificate(bytes: &[u8]) -> Said {
    let (key, rest) = first_line(bytes);
    let keys: Vec<VerifierKey> = key.parse().into_iter().collect();
    let certificate: Certificate =
        serde_json::from_slice(rest).map_err(|error| error.to_string())?;
    let plugin = &certificate.examination.plugin;
    let inspection = Inspection {
        digest: plugin.digest,
        ..inspection()?.clone()
    };
    let checked = certificate.check(&inspection, &keys);
    if checked.is_ok() {
        assert!(certificate.examination.is_passed() && !keys.is_empty());
    }
    checked.map(|_| ()).map_err(|error| error.to_string())
}

fn inspection() -> Result<&'static Inspection, String> {
    static INSPECTION: OnceLock<Result<Inspection, String>> = OnceLock::new();
    let made = INSPECTION.get_or_init(|| {
        let text = crate::components::Text::new(sandcast_sandbox::Role::Policy);
        inspect(&text.component()).map_err(|error| error.to_string())
    });
    made.as_ref().map_err(Clone::clone)
}
