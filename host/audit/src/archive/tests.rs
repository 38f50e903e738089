use std::fs;
use std::path::Path;
use std::slice;
use std::time::Duration;

use jiff::Timestamp;

use super::{ArchiveError, archivable, archive, archived_entries};
use crate::archived::Archived;
use crate::testing::{Folder, event, folder, key, small_event};
use crate::{
    AuditError, AuditLog, Event, Period, Position, Proof, ProveError, SignedCheckpoint, Trust,
    VerifierKey, VerifyError, export, prove_consistency, prove_inclusion, read, read_after, verify,
    verify_proof, verify_with,
};

/// A log with so many entries that are old, its key among them, and seven more.
fn log_of(old: u64) -> (Folder, AuditLog, Timestamp) {
    let folder = folder();
    let log = folder.open();
    for number in 1..old {
        log.append(small_event(number)).expect("appends");
    }
    let before = later();
    for number in 0..7 {
        log.append(small_event(old + number)).expect("appends");
    }
    (folder, log, before)
}

/// A time that is after all that was, and before all that comes.
fn later() -> Timestamp {
    std::thread::sleep(Duration::from_millis(2));
    let time = Timestamp::now();
    std::thread::sleep(Duration::from_millis(2));
    time
}

fn trust(key: &VerifierKey, checkpoints: &[SignedCheckpoint]) -> Trust {
    Trust {
        keys: vec![key.clone()],
        checkpoints: checkpoints.to_vec(),
    }
}

fn numbers(dir: &Path) -> Vec<u64> {
    let entries = read(dir).expect("a log");
    entries
        .map(|entry| entry.expect("an entry").sequence)
        .collect()
}

#[test]
fn old_entries_leave_and_the_log_stays_provable() {
    let (folder, log, before) = log_of(600);
    let old_checkpoint = log.checkpoint().expect("signs");
    let out = folder.state().join("archive");
    let would = archivable(&log, before).expect("there are some");
    assert_eq!((would.first, would.last), (1, 512), "whole tiles leave");
    let size = folder.file("log.jsonl").len() as u64;
    let report = archive(&log, &out, before).expect("archives");
    assert_eq!(report.archived, would);

    // The file is shorter by what left; the entry that says so came before.
    let left = folder.file("log.jsonl");
    assert!((left.len() as u64) < size - would.bytes + 2_000);
    assert_eq!(left.iter().filter(|byte| **byte == b'\n').count(), 96);
    let report = verify_with(
        folder.path(),
        &trust(&key(&log), slice::from_ref(&old_checkpoint)),
    )
    .expect("is whole and trusted");
    assert_eq!((report.entries, report.present), (608, (513, 608)));
    assert_eq!(report.signed, 608);

    // What is needed of the old ones is read all the same: here the key.
    let read = numbers(folder.path());
    assert_eq!((read[0], read[1], read.len()), (1, 513, 97));

    // The archive stands on its own, and both make one log.
    let archived = verify_with(&out, &trust(&key(&log), &[])).expect("is whole");
    assert_eq!(archived.present, (1, 512));

    // Old checkpoints are still proven to be the start of it, and entries by where they are.
    let proof = prove_consistency(folder.path(), old_checkpoint.checkpoint().size, None);
    verify_proof(&proof.expect("a proof"), &[key(&log)]).expect("holds");
    assert!(matches!(
        prove_inclusion(folder.path(), 5),
        Err(ProveError::NotPresent { sequence: 5 })
    ));
    for (dir, sequence) in [(out.as_path(), 5), (folder.path(), 550)] {
        let proof = prove_inclusion(dir, sequence).expect("a proof");
        assert!(matches!(&proof, Proof::Inclusion { index, .. } if *index == sequence - 1));
        verify_proof(&proof, &[key(&log)]).expect("holds");
    }

    // A later export has the tree of all entries, and those that are here.
    let exported = folder.state().join("export");
    let report = export(&log, &exported, Period::default()).expect("exports");
    assert_eq!(report.present, (513, 608));
    // What is put beside it is not checked with it, so it is not read with it either.
    for name in ["archived-512.json", "kept-512.jsonl"] {
        fs::copy(folder.path().join(name), exported.join(name)).expect("copies");
    }
    verify_with(&exported, &trust(&key(&log), &[old_checkpoint])).expect("is whole");
    assert_eq!(numbers(&exported), (513..=608).collect::<Vec<_>>());
    assert_eq!(archived_entries(&exported).expect("reads"), 0);
}

#[test]
fn logs_that_were_open_go_on_and_may_archive_again() {
    let (folder, log, before) = log_of(300);
    let other = folder.open();
    other.append(event(1)).expect("appends");
    let mut entries = read(folder.path()).expect("a log");
    assert!(entries.by_ref().all(|entry| entry.is_ok()));
    let position = entries.position();
    archive(&log, &folder.state().join("one"), before).expect("archives");

    // Another writer with the old file open; it appends to the new one.
    let size = other.append(event(2)).expect("appends").sequence;
    assert_eq!(log.append(event(3)).expect("appends").sequence, size + 1);
    assert_eq!(verify(folder.path()).expect("is whole").entries, size + 1);

    // A reader who had read further goes on, one who had not is told to begin again.
    let more = read_after(folder.path(), position).expect("a log");
    let more: Vec<u64> = more
        .expect("the same log")
        .map(|entry| entry.expect("an entry").sequence)
        .collect();
    assert_eq!(more, (position.sequence + 1..=size + 1).collect::<Vec<_>>());
    assert!(
        read_after(folder.path(), Position::START)
            .expect("a log")
            .is_some()
    );

    // Keys change, more entries come, and a second archive leaves the first as it was.
    let old_key = key(&log);
    log.rotate_key().expect("a new key");
    for number in 0..400 {
        other.append(small_event(number)).expect("appends");
    }
    let before = later();
    other.append(event(4)).expect("appends");
    let report = archive(&other, &folder.state().join("two"), before).expect("archives");
    assert_eq!((report.archived.first, report.archived.last), (257, 512));
    drop((log, other));
    let log = folder.open();
    log.append(event(5)).expect("appends");
    let report = verify_with(folder.path(), &trust(&old_key, &[])).expect("by the first key");
    assert_eq!(report.rotations.len(), 1);
    assert_eq!(report.present.0, 513);
    for name in ["one", "two"] {
        let dir = folder.state().join(name);
        verify_with(&dir, &trust(&old_key, &[])).expect("is whole");
    }
    // The change of keys is proven with what was kept.
    let proof = prove_inclusion(folder.path(), 600).expect("a proof");
    verify_proof(&proof, &[old_key]).expect("holds");
    // Where the entries begin, reading can begin too.
    let archived = Archived::of(folder.path())
        .expect("reads")
        .expect("there is");
    let position: Position = serde_json::from_value(serde_json::json!({
        "sequence": 512, "digest": archived.digest, "start": archived.bytes, "end": archived.bytes,
    }))
    .expect("a position");
    let first = read_after(folder.path(), position).expect("a log");
    let first = first.expect("the same log").next().expect("an entry");
    assert_eq!(first.expect("an entry").sequence, 513);
}

#[test]
fn what_cannot_be_archived_stays() {
    let (folder, log, before) = log_of(200);
    let out = folder.state().join("archive");
    let error = archive(&log, &out, before).expect_err("too few");
    assert!(matches!(error, ArchiveError::Nothing { .. }));
    assert!(!out.exists());

    let (folder, log, before) = log_of(300);
    let out = folder.state().join("archive");
    fs::create_dir(&out).expect("makes");
    let whole = folder.file("log.jsonl");
    let error = archive(&log, &out, before).expect_err("in the way");
    assert!(matches!(error, ArchiveError::Export(_)), "{error}");
    assert!(folder.file("log.jsonl").starts_with(&whole));
    assert_eq!(numbers(folder.path()).len(), 307);

    // Where the new file cannot be written, the old one stays, and the log goes on.
    fs::remove_dir(&out).expect("removes");
    fs::create_dir(folder.path().join("log.jsonl.new")).expect("makes");
    let error = archive(&log, &out, before).expect_err("in the way");
    assert!(matches!(
        error,
        ArchiveError::Audit(AuditError::Write { .. })
    ));
    log.append(event(1)).expect("appends");
    let report = verify(folder.path()).expect("is whole");
    assert_eq!(report.present, (1, report.entries));
    fs::remove_dir(folder.path().join("log.jsonl.new")).expect("removes");
    archive(&log, &folder.state().join("again"), before).expect("archives");
    verify(folder.path()).expect("is whole");
}

/// A crash before the file is replaced leaves what stands beside it, and nothing that counts on it.
#[test]
fn what_was_prepared_and_not_done_is_of_no_account() {
    let (folder, log, before) = log_of(300);
    let whole = folder.file("log.jsonl");
    archive(&log, &folder.state().join("archive"), before).expect("archives");
    let rest = folder.file("log.jsonl");
    // As it was before the last step: the entry that says so, and all entries.
    let told = rest.split_inclusive(|byte| *byte == b'\n').next_back();
    let whole = [whole.as_slice(), told.expect("an entry")].concat();
    fs::write(folder.path().join("log.jsonl"), &whole).expect("writes");
    fs::write(folder.path().join("log.jsonl.new"), b"half").expect("writes");
    drop(log);
    let log = folder.open();
    log.append(event(1)).expect("appends");
    let report = verify(folder.path()).expect("is whole");
    assert_eq!(report.present.0, 1);
    archive(&log, &folder.state().join("again"), before).expect("archives");
    assert_eq!(verify(folder.path()).expect("is whole").present.0, 257);
}

#[test]
fn what_is_kept_of_archived_entries_is_held_to_what_was_signed() {
    type Damage = fn(&Path);
    let damage: [(&str, Damage); 7] = [
        ("tile/0/000", flip),
        ("tile/0/000", |path| fs::remove_file(path).expect("removes")),
        ("kept-256.jsonl", flip),
        ("kept-256.jsonl", |path| {
            fs::write(path, b"").expect("writes");
        }),
        ("archived-256.json", flip),
        ("archived-256.json", |path| {
            fs::remove_file(path).expect("removes");
        }),
        ("log.jsonl", |path| {
            let text = fs::read_to_string(path).expect("reads");
            let lines: Vec<&str> = text.split_inclusive('\n').collect();
            fs::write(path, lines[1..].concat()).expect("writes");
        }),
    ];
    for (name, change) in damage {
        let (folder, log, before) = log_of(300);
        archive(&log, &folder.state().join("archive"), before).expect("archives");
        change(&folder.path().join(name));
        let error = verify(folder.path()).expect_err(name);
        let told = error.to_string();
        let named = match name {
            // Without a line, entries are missing as in any other log.
            "log.jsonl" => told.contains("removed"),
            // Without it they are, too. Where it names another digest of the kept lines, one of the
            // two files is wrong.
            "archived-256.json" => [name, "kept-256.jsonl", "removed"]
                .iter()
                .any(|word| told.contains(word)),
            // A hash that is another makes other roots than those that were written down.
            "tile/0/000" => told.contains(name) || told.contains("archived-256.json"),
            _ => told.contains(name),
        };
        assert!(named, "{name}: {told}");
    }
}

#[test]
fn entries_do_not_leave_without_a_word() {
    let (folder, log, before) = log_of(300);
    archive(&log, &folder.state().join("archive"), before).expect("archives");
    // Somebody with the files, and without the entry that names them: as if it were an older log.
    folder.change("log.jsonl", |text| {
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        lines[..lines.len() - 1].concat()
    });
    fs::remove_file(folder.path().join("head.json")).expect("removes");
    let error = verify(folder.path()).expect_err("untold");
    assert!(
        matches!(error, VerifyError::NotArchived { last: 256, .. }),
        "{error}"
    );
    // Nor does a reader take other lines for those that were kept.
    let path = Archived::kept_path(folder.path(), 256);
    flip(&path);
    let error = read(folder.path()).map(|_| ()).expect_err("changed");
    assert!(matches!(error, AuditError::Archived { .. }), "{error}");
}

#[test]
fn writers_are_not_lost_while_entries_leave() {
    let (folder, log, before) = log_of(800);
    let writers: Vec<AuditLog> = (0..3).map(|_| folder.open()).collect();
    std::thread::scope(|scope| {
        for writer in &writers {
            scope.spawn(move || {
                for number in 0..200 {
                    writer.append(small_event(number)).expect("appends");
                }
            });
        }
        scope.spawn(|| archive(&log, &folder.state().join("archive"), before).expect("archives"));
    });
    let report = verify(folder.path()).expect("is whole");
    // Theirs, and the entry about it.
    assert_eq!(report.entries, 807 + 600 + 1);
    assert_eq!(report.present.0, 769);
    let told = read(folder.path()).expect("a log");
    let told = told
        .filter(|entry| {
            let event = &entry.as_ref().expect("an entry").event;
            matches!(event, Event::EntriesArchived { last: 768, .. })
        })
        .count();
    assert_eq!(told, 1);
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).expect("writes");
}

/// An older `audit.signed`, as a copy or a loss of power brings it back, may name an entry that left.
#[test]
fn what_was_signed_before_entries_left_is_followed_over_them() {
    let folder = folder();
    let log = folder.open();
    let path = crate::anchor::path(folder.path());
    let signed = || fs::read(&path).expect("is there");
    let fill = || {
        for number in 0..100 {
            log.append(small_event(number)).expect("appends");
        }
    };
    fill();
    log.checkpoint().expect("signs");
    let first = signed();
    log.rotate_key().expect("rotates");
    fill();
    log.checkpoint().expect("signs");
    let second = signed();
    fill();
    let before = later();
    archive(&log, &folder.state().join("archive"), before).expect("archives");
    assert_eq!(archived_entries(folder.path()).expect("reads"), 256);
    let newest = signed();
    drop(log);
    for older in [&first, &second] {
        fs::write(&path, older).expect("writes");
        folder.open();
        assert_eq!(signed(), newest);
    }

    // Of another log, or where the hashes of what left are others.
    let strange = self::folder();
    let other = strange.open();
    for number in 0..100 {
        other.append(small_event(number)).expect("appends");
    }
    other.checkpoint().expect("signs");
    let theirs = fs::read(crate::anchor::path(strange.path())).expect("is there");
    fs::write(&path, theirs).expect("writes");
    let refused = |folder: &Folder| match AuditLog::open(folder.path()) {
        Err(error) => assert!(matches!(error, AuditError::Rewritten { .. }), "{error}"),
        Ok(_) => panic!("it is not the log that was signed"),
    };
    refused(&folder);
    fs::write(&path, &second).expect("writes");
    let tile = folder.path().join("tile/0/000");
    let mut hashes = fs::read(&tile).expect("is there");
    hashes[32 * 5] ^= 1;
    fs::write(&tile, hashes).expect("writes");
    refused(&folder);
}

/// What says how far the log was signed must be written before the entry that it names leaves.
#[test]
fn nothing_leaves_where_it_cannot_be_kept_what_was_signed() {
    let (folder, log, before) = log_of(300);
    let path = crate::anchor::path(folder.path());
    fs::remove_file(&path).expect("removes");
    fs::create_dir(&path).expect("stands in the way");
    let error = archive(&log, &folder.state().join("archive"), before).expect_err("cannot write");
    assert!(
        matches!(error, ArchiveError::Audit(AuditError::Write { .. })),
        "{error}"
    );
    assert_eq!(archived_entries(folder.path()).expect("reads"), 0);
    fs::remove_dir(&path).expect("removes");
    log.append(event(1)).expect("goes on");
    verify(folder.path()).expect("is whole");
}
