//! The audit log and what stands on its own: checkpoints, signed notes, proofs and envelopes.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use sandcast_audit::{
    AuditLog, Digest, Envelope, Event, Note, Proof, SignedCheckpoint, Trust, VerifierKey,
    prove_consistency, prove_inclusion, read, verify, verify_proof, verify_with,
};
use tempfile::TempDir;

use super::{Said, first_line};

/// What stands before the name of a file.
const FILE: &str = "=== ";

/// A line before the files, after which the entries are chained again: who rewrites a log does so.
const RESEAL: &str = "resealed";

/// Several files as one input.
pub fn in_files(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, content) in files {
        bytes.extend_from_slice(format!("{FILE}{name}\n").as_bytes());
        bytes.extend_from_slice(content);
        if !content.ends_with(b"\n") {
            bytes.push(b'\n');
        }
    }
    bytes
}

/// The files in an input; none whose name leads out of their folder.
pub fn files(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if let Some(name) = line.strip_prefix(FILE.as_bytes()) {
            let name = String::from_utf8_lossy(name).trim().to_owned();
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if (1..=64).contains(&name.len())
                && name.chars().all(is_plain)
                && !name.starts_with('.')
            {
                files.push((name, Vec::new()));
            }
        } else if let Some((_, content)) = files.last_mut() {
            content.extend_from_slice(line);
        }
    }
    files
}

/// A folder of a log: verified, read, and asked for proofs.
pub fn log(bytes: &[u8]) -> Said {
    static FOLDER: OnceLock<Result<TempDir, String>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let made = TempDir::with_prefix("sandcast-fuzz-log-");
        made.map_err(|error| error.to_string())
    });
    let folder = folder.as_ref()?.path();
    let (line, rest) = first_line(bytes);
    let is_resealed = line == RESEAL;
    let mut found = files(if is_resealed { rest } else { bytes });
    if is_resealed {
        for (name, content) in &mut found {
            if name == "log.jsonl" {
                *content = resealed(content);
            }
        }
    }
    laid_out(folder, &found).map_err(|error| error.to_string())?;
    let verified = verify(folder);
    let checkpoints = found.iter().filter(|(name, _)| name == "checkpoint");
    let checkpoints: Vec<SignedCheckpoint> = checkpoints
        .filter_map(|(_, text)| SignedCheckpoint::parse(&String::from_utf8_lossy(text)).ok())
        .collect();
    let trust = Trust {
        keys: Vec::new(),
        checkpoints,
    };
    let _ = verify_with(folder, &trust);
    if let Ok(entries) = read(folder) {
        for entry in entries.take(1000) {
            if entry.is_err() {
                break;
            }
        }
    }
    let _ = prove_inclusion(folder, 1);
    let _ = prove_consistency(folder, 1, None);
    let place = folder.display().to_string();
    verified
        .map(|_| ())
        .map_err(|error| error.to_string().replace(&place, ""))
}

/// Puts files in the place of those that were there.
fn laid_out(folder: &Path, files: &[(String, Vec<u8>)]) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        fs::remove_file(entry?.path())?;
    }
    files
        .iter()
        .try_for_each(|(name, content)| fs::write(folder.join(name), content))
}

/// Each line with the digest of the line before it, and its own.
fn resealed(log: &[u8]) -> Vec<u8> {
    const DIGEST: &str = "{\"digest\":\"";
    const PREVIOUS: &str = "\"previous\":\"";
    let text = String::from_utf8_lossy(log);
    let mut previous = Digest::ZERO;
    let mut sealed = String::new();
    for line in text.lines() {
        let body = line
            .strip_prefix(DIGEST)
            .and_then(|rest| rest.split_once("\","));
        let Some((_, body)) = body else {
            sealed.push_str(line);
            sealed.push('\n');
            continue;
        };
        let mut body = body.to_owned();
        if let Some(at) = body.rfind(PREVIOUS).map(|at| at + PREVIOUS.len())
            && let Some(end) = body[at..].find('"')
        {
            body.replace_range(at..at + end, &previous.to_string());
        }
        previous = Digest::of(format!("{{{body}").as_bytes());
        sealed.push_str(&format!("{DIGEST}{previous}\",{body}\n"));
    }
    sealed.into_bytes()
}

/// Events, one on each line, as a log of another version may hold them: written and read again.
pub fn event(bytes: &[u8]) -> Said {
    let log = AuditLog::in_memory();
    for line in bytes.split(|byte| *byte == b'\n').take(64) {
        let event: Event = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        log.append(event).map_err(|error| error.to_string())?;
    }
    let entries = log.entries().map_err(|error| error.to_string())?;
    for entry in entries {
        let text = serde_json::to_string(&entry.event).map_err(|error| error.to_string())?;
        let again: Event = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let text_again = serde_json::to_string(&again).map_err(|error| error.to_string())?;
        assert_eq!(text, text_again, "what is read is what was written");
    }
    Ok(())
}

/// A key on a line, and a proof after it.
pub fn proof(bytes: &[u8]) -> Said {
    let (key, rest) = first_line(bytes);
    let keys: Vec<VerifierKey> = key.parse().into_iter().collect();
    let proof: Proof = serde_json::from_slice(rest).map_err(|error| error.to_string())?;
    verify_proof(&proof, &keys)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

/// A key on a line, and after it a signed note, which may be a checkpoint, or an envelope.
pub fn note(bytes: &[u8]) -> Said {
    let (key, rest) = first_line(bytes);
    let key: Result<VerifierKey, _> = key.parse();
    let text = String::from_utf8_lossy(rest);
    if rest.starts_with(b"{") {
        let envelope = Envelope::parse(rest).map_err(|error| error.to_string())?;
        let keys: Vec<VerifierKey> = key.into_iter().collect();
        let opened = envelope.open("application/vnd.in-toto+json", &keys);
        return opened.map(|_| ()).map_err(|error| error.to_string());
    }
    let key = key.map_err(|error| error.to_string())?;
    let note = Note::parse(&text).map_err(|error| error.to_string())?;
    let _ = note.signers();
    let checked = note.check(&key);
    let checkpoint = SignedCheckpoint::parse(&text).map_err(|error| error.to_string())?;
    assert_eq!(
        checked.is_ok(),
        checkpoint.check(&key).is_ok(),
        "a checkpoint is signed as its note is"
    );
    checked.map_err(|error| error.to_string())
}
