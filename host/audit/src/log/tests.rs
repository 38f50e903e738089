use std::io::Write as _;
use std::process::{Command, Stdio};

use super::*;
use crate::checkpoint::CHECKPOINTS_FILE;
use crate::entry::open_line;
use crate::head::{HEAD_FILE, Heads};
use crate::testing::{event, folder, key, small_event};
use crate::{anchor, key_file, verify};

fn predictions(entries: &[Entry]) -> Vec<u64> {
    entries
        .iter()
        .filter_map(|entry| match entry.event {
            Event::ServeStopped { predictions } => Some(predictions),
            _ => None,
        })
        .collect()
}

#[test]
fn what_is_appended_is_read_back_in_order_and_chained() {
    let dir = folder();
    let log = AuditLog::open(dir.path()).expect("opens");
    let first = log.append(event(1)).expect("appends");
    let second = log.append(event(2)).expect("appends");
    let entries = log.entries().expect("reads");
    assert_eq!(entries[0].event, Event::KeyCreated { key: key(&log) });
    assert_eq!((first.sequence, first.previous), (2, entries[0].digest));
    assert_eq!((second.sequence, second.previous), (3, first.digest));
    assert_eq!(entries[1..], [first, second.clone()]);

    let log = AuditLog::open(dir.path()).expect("opens again");
    let third = log.append(event(3)).expect("appends");
    assert_eq!((third.sequence, third.previous), (4, second.digest));
    assert_eq!(verify(dir.path()).expect("is whole").entries, 4);
}

#[test]
fn a_log_in_memory_is_chained_too() {
    let log = AuditLog::in_memory();
    let first = log.append(event(1)).expect("appends");
    let second = log.clone().append(event(2)).expect("appends");
    assert_eq!(second.previous, first.digest);
    assert_eq!(log.entries().expect("reads"), vec![first, second]);
    assert_eq!(log.dir(), None);
}

#[test]
fn two_openings_and_many_threads_make_one_chain() {
    let dir = folder();
    let logs = [
        AuditLog::open(dir.path()).expect("opens"),
        AuditLog::open(dir.path()).expect("opens"),
    ];
    std::thread::scope(|scope| {
        for (place, log) in logs.iter().enumerate() {
            for thread in 0..2 {
                scope.spawn(move || {
                    for number in 0..25 {
                        log.append(event((place * 2 + thread) as u64 * 100 + number))
                            .expect("appends");
                    }
                });
            }
        }
    });
    assert_eq!(verify(dir.path()).expect("is whole").entries, 101);
    let mut seen = predictions(&logs[0].entries().expect("reads"));
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 100);
}

#[test]
fn an_incomplete_last_line_is_dropped_and_the_log_says_so() {
    let dir = folder();
    let log = AuditLog::open(dir.path()).expect("opens");
    log.append(event(1)).expect("appends");
    let mut file = File::options()
        .append(true)
        .open(dir.path().join(LOG_FILE))
        .expect("opens");
    file.write_all(b"{\"digest\":\"12").expect("writes");
    assert!(
        verify(dir.path()).is_err(),
        "an incomplete line is not whole"
    );

    // Both a new opening and one that was there before notice.
    let entry = log.append(event(2)).expect("appends");
    assert_eq!(entry.sequence, 4);
    let report = verify(dir.path()).expect("is whole again");
    assert_eq!((report.entries, report.repairs), (4, vec![3]));
    let entries = log.entries().expect("reads");
    assert_eq!(
        entries[2].event,
        Event::LogRepaired {
            dropped_bytes: 13,
            dropped: Digest::of(b"{\"digest\":\"12")
        }
    );

    file.write_all(b"x").expect("writes");
    AuditLog::open(dir.path()).expect("opens and repairs");
    assert_eq!(
        verify(dir.path()).expect("is whole again").repairs,
        vec![3, 5]
    );
}

#[test]
fn a_head_that_is_one_entry_behind_is_caught_up() {
    let dir = folder();
    let log = AuditLog::open(dir.path()).expect("opens");
    log.append(event(1)).expect("appends");
    let head = fs::read(dir.path().join(HEAD_FILE)).expect("there is a head");
    log.append(event(2)).expect("appends");
    fs::write(dir.path().join(HEAD_FILE), head).expect("writes");
    assert_eq!(verify(dir.path()).expect("is whole").unsealed, 1);

    AuditLog::open(dir.path())
        .expect("opens")
        .append(event(3))
        .expect("appends");
    let report = verify(dir.path()).expect("is whole");
    assert_eq!((report.entries, report.unsealed), (4, 0));
}

#[test]
fn a_cut_log_is_not_continued() {
    let dir = folder();
    let log = AuditLog::open(dir.path()).expect("opens");
    log.append(event(1)).expect("appends");
    log.append(event(2)).expect("appends");
    let path = dir.path().join(LOG_FILE);
    let text = fs::read_to_string(&path).expect("reads");
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    fs::write(&path, lines[..2].concat()).expect("writes");

    assert!(matches!(
        log.append(event(3)),
        Err(AuditError::Cut { sequence: 3, .. })
    ));
    let error = AuditLog::open(dir.path()).expect_err("is cut");
    assert!(
        matches!(error, AuditError::Cut { sequence: 3, .. }),
        "{error}"
    );
    let left = read(dir.path()).expect("opens");
    let left: Vec<Entry> = left.collect::<Result<_, _>>().expect("reads");
    assert_eq!(predictions(&left), [1]);

    // A head that is cut too does not hide it: what was signed here last is known, and the checkpoints
    // know as well.
    let head = Head {
        digest: left[1].digest,
        key: Some(key(&log)),
        sequence: 2,
        start: lines[0].len() as u64,
        tree: None,
    };
    crate::head::store_old(&head, dir.path());
    let error = AuditLog::open(dir.path()).expect_err("is cut");
    assert!(
        matches!(error, AuditError::Rewritten { sequence: 3, .. }),
        "{error}"
    );
    dir.forget_signed();
    let error = AuditLog::open(dir.path()).expect_err("is cut");
    assert!(
        matches!(error, AuditError::Cut { sequence: 3, .. }),
        "{error}"
    );
}

#[test]
fn a_log_without_its_head_is_not_continued() {
    let dir = folder();
    let log = AuditLog::open(dir.path()).expect("opens");
    let head = dir.path().join(HEAD_FILE);
    fs::remove_file(&head).expect("removes");
    AuditLog::open(dir.path()).expect("a crash may come between the first entry and its head");

    log.append(event(2)).expect("appends");
    fs::remove_file(&head).expect("removes");
    assert!(matches!(
        AuditLog::open(dir.path()),
        Err(AuditError::Head { .. })
    ));
    fs::write(&head, "{}").expect("writes");
    assert!(matches!(
        AuditLog::open(dir.path()),
        Err(AuditError::Head { .. })
    ));
}

#[test]
fn a_changed_line_is_not_continued_or_read() {
    let dir = folder();
    let log = AuditLog::open(dir.path()).expect("opens");
    log.append(event(1)).expect("appends");
    let path = dir.path().join(LOG_FILE);
    let text = fs::read_to_string(&path).expect("reads");
    let first = text.find('\n').expect("a line") as u64 + 1;
    fs::write(
        &path,
        text.replace("\"predictions\":1", "\"predictions\":2"),
    )
    .expect("writes");
    let errors = [
        AuditLog::open(dir.path()).expect_err("is damaged"),
        log.entries().expect_err("is damaged"),
    ];
    for error in errors {
        assert!(
            matches!(error, AuditError::Damaged { offset, .. } if offset == first),
            "{error}"
        );
    }
}

#[test]
fn an_entry_whose_head_cannot_be_written_is_taken_back() {
    let dir = folder();
    let log = AuditLog::open(dir.path()).expect("opens");
    log.append(event(1)).expect("appends");
    let head_file = |file| log.in_folder(|folder| Ok(std::mem::replace(&mut folder.head, file)));
    let broken = HeadFile::broken(dir.path());
    let good = head_file(Some(broken)).expect("a folder");
    assert!(matches!(
        log.append(event(2)),
        Err(AuditError::Write { .. })
    ));
    assert!(matches!(
        log.append_all(vec![event(2), event(2)]),
        Err(AuditError::Write { .. })
    ));
    head_file(good).expect("a folder");
    // Nothing was written where the head is, so the line is all that had to be taken back.
    assert_eq!(verify(dir.path()).expect("is whole").entries, 2);
    assert_eq!(log.append(event(3)).expect("appends").sequence, 3);
    assert_eq!(predictions(&log.entries().expect("reads")), [1, 3]);
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let dir = folder();
    let file = dir.state().join("file");
    fs::write(&file, "").expect("writes");
    let error = AuditLog::open(&file.join("audit")).expect_err("a file is no folder");
    assert!(error.to_string().contains("audit"), "{error}");
    assert!(
        matches!(read(dir.path()), Err(AuditError::Read { .. })),
        "there is no log"
    );
}

const CHILD_DIR: &str = "SANDCAST_AUDIT_CHILD_DIR";
const CHILD_LIMIT: &str = "SANDCAST_AUDIT_CHILD_LIMIT";

/// Not a test of its own: the other process of the tests below.
#[test]
fn child_appends() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    let limit: u64 = std::env::var(CHILD_LIMIT)
        .expect("a limit")
        .parse()
        .expect("a number");
    let log = AuditLog::open(Path::new(&dir)).expect("opens");
    for number in 0..limit {
        if let Err(error) = log.append(event(number)) {
            assert!(matches!(error, AuditError::Write { .. }), "{error}");
            return;
        }
    }
}

fn child(program: &mut Command, dir: &Path, limit: u64) -> std::process::Child {
    program
        .env(CHILD_DIR, dir)
        .env(CHILD_LIMIT, limit.to_string())
        .stdout(Stdio::null())
        .spawn()
        .expect("the test program starts again")
}

fn this_program() -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "log::tests::child_appends"]);
    command
}

#[test]
fn several_processes_make_one_chain() {
    let dir = folder();
    let children: Vec<_> = (0..3)
        .map(|_| child(&mut this_program(), dir.path(), 20))
        .collect();
    for mut child in children {
        assert!(child.wait().expect("ends").success());
    }
    let report = verify(dir.path()).expect("is whole");
    assert_eq!((report.entries, report.repairs.len()), (61, 0));
}

#[test]
fn a_killed_process_leaves_a_log_that_can_be_continued() {
    let dir = folder();
    for _ in 0..3 {
        let mut child = child(&mut this_program(), dir.path(), u64::MAX);
        let before = fs::metadata(dir.path().join(LOG_FILE)).map_or(0, |data| data.len());
        while fs::metadata(dir.path().join(LOG_FILE)).map_or(0, |data| data.len()) < before + 2000 {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        child.kill().expect("dies");
        child.wait().expect("is dead");
        AuditLog::open(dir.path())
            .expect("opens")
            .append(event(0))
            .expect("appends");
        verify(dir.path()).expect("is whole");
    }
}

/// A file size limit stands in for a full disk: a line is written in part, then refused.
#[cfg(unix)]
#[test]
fn a_full_disk_is_an_error_and_the_chain_stays_whole() {
    let dir = folder();
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "trap '' XFSZ; ulimit -f 24; exec \"$0\" --exact log::tests::child_appends",
    ]);
    shell.arg(std::env::current_exe().expect("this program"));
    assert!(
        child(&mut shell, dir.path(), 1000)
            .wait()
            .expect("ends")
            .success()
    );
    let report = verify(dir.path()).expect("is whole");
    assert!(
        (1..1000).contains(&report.entries),
        "the limit was reached: {}",
        report.entries
    );
    assert!(
        report.repairs.is_empty(),
        "the incomplete line was taken back at once"
    );
    AuditLog::open(dir.path())
        .expect("opens")
        .append(event(0))
        .expect("appends once there is room");
    assert_eq!(
        verify(dir.path()).expect("is whole").entries,
        report.entries + 1
    );
}

/// What is left when a process is killed between two writes of one append.
#[test]
fn a_crash_between_any_two_writes_is_recovered_from() {
    let dir = folder();
    let log = dir.open();
    log.append(small_event(1)).expect("appends");
    let before = [HEAD_FILE, CHECKPOINTS_FILE].map(|name| (name, dir.file(name)));
    log.append(event(2)).expect("appends and signs");
    drop(log);
    let after = [LOG_FILE, HEAD_FILE, CHECKPOINTS_FILE].map(|name| (name, dir.file(name)));
    let restore = |files: &[(&str, Vec<u8>)]| {
        dir.forget_signed();
        for (name, bytes) in files {
            fs::write(dir.path().join(name), bytes).expect("writes");
        }
    };

    // Between the line and the head; between the head and the checkpoint.
    for left in [before.to_vec(), before[1..].to_vec()] {
        restore(&after);
        restore(&left);
        let report = verify(dir.path()).expect("is whole");
        assert_eq!((report.entries, report.signed), (3, 1));
        let log = dir.open();
        let report = verify(dir.path()).expect("is whole");
        assert_eq!(
            (report.entries, report.signed, report.repairs.len()),
            (3, 3, 0)
        );
        let bytes = dir.file(CHECKPOINTS_FILE);
        assert_eq!(
            bytes, after[2].1,
            "the same checkpoint is signed, to the byte"
        );
        log.append(small_event(4)).expect("goes on");
    }

    // Within the checkpoint, at any byte of it.
    let start = before[1].1.len();
    for end in (start + 1)..after[2].1.len() {
        restore(&after);
        fs::write(dir.path().join(CHECKPOINTS_FILE), &after[2].1[..end]).expect("writes");
        let error = verify(dir.path()).expect_err("is torn");
        let wanted = format!(
            "checkpoints, line {}: the last checkpoint is incomplete",
            before[1].1.iter().filter(|byte| **byte == b'\n').count() + 1
        );
        assert!(error.to_string().contains(&wanted), "{error}");
        let log = dir.open();
        let torn = &after[2].1[start..end];
        let wanted = Event::CheckpointsRepaired {
            dropped_bytes: torn.len() as u64,
            dropped: Digest::of(torn),
        };
        assert_eq!(log.entries().expect("reads")[3].event, wanted);
        let report = verify(dir.path()).expect("is whole");
        assert_eq!(
            (report.entries, report.signed, report.checkpoints),
            (4, 4, 2)
        );
    }
}

#[test]
fn a_checkpoint_that_cannot_be_written_is_made_up_for() {
    let dir = folder();
    let log = dir.open();
    let path = dir.path().join(CHECKPOINTS_FILE);
    let kept = dir.file(CHECKPOINTS_FILE);
    fs::remove_file(&path).expect("removes");
    fs::create_dir(&path).expect("stands in the way");
    log.append(event(1)).expect("the entry itself is recorded");
    assert!(matches!(
        log.checkpoint(),
        Err(AuditError::Checkpoint { .. })
    ));
    fs::remove_dir(&path).expect("removes");
    fs::write(&path, kept).expect("writes");
    log.append(small_event(2)).expect("appends");
    assert_eq!(verify(dir.path()).expect("is whole").signed, 3);
}

#[cfg(unix)]
#[test]
fn a_new_log_has_a_key_that_only_its_owner_may_read_outside_of_its_folder() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = folder();
    let log = AuditLog::open(&dir.path().join("")).expect("opens, with a slash at the end");
    let path = dir.state().join("audit.key");
    let mode = fs::metadata(&path).expect("a key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = fs::read_to_string(&path).expect("reads");
    let name = key(&log).name().to_owned();
    assert!(text.starts_with(&format!("PRIVATE+KEY+{name}+")));
    assert!(name.starts_with("sandcast/"));
    // The base64 of a key may have a plus too.
    let secret = text.trim_end().splitn(5, '+').last().expect("parts");
    assert_eq!(secret.len(), 44);
    for entry in fs::read_dir(dir.path()).expect("reads") {
        let bytes = fs::read(entry.expect("a file").path()).expect("reads");
        assert!(!String::from_utf8_lossy(&bytes).contains(secret));
    }
    assert!(!format!("{log:?}").contains(secret));
    // The same key from then on.
    assert_eq!(dir.open().key(), log.key());
}

#[test]
fn a_log_from_before_there_were_keys_goes_on_with_one() {
    let dir = folder();
    fs::create_dir_all(dir.path()).expect("a folder");
    let (first, line) = seal(1, now(), Digest::ZERO, event(1)).expect("seals");
    let (second, other) = seal(2, now(), first.digest, event(2)).expect("seals");
    fs::write(dir.path().join(LOG_FILE), format!("{line}{other}")).expect("writes");
    let head = Head {
        digest: second.digest,
        key: None,
        sequence: 2,
        start: line.len() as u64,
        tree: None,
    };
    crate::head::store_old(&head, dir.path());
    let text = String::from_utf8(dir.file(HEAD_FILE)).expect("text");
    assert!(!text.contains("tree") && !text.contains("key"), "{text}");
    let report = verify(dir.path()).expect("is whole");
    assert_eq!((report.entries, report.signed, report.key), (2, 0, None));

    let log = dir.open();
    let report = verify(dir.path()).expect("is whole");
    assert_eq!((report.entries, report.signed), (3, 3));
    assert_eq!(report.key, log.key());
}

#[test]
fn a_key_gives_way_to_another_and_other_processes_follow() {
    let dir = folder();
    let (one, other) = (dir.open(), dir.open());
    let first = key(&one);
    let second = one.rotate_key().expect("rotates");
    assert_ne!(first, second);
    assert_eq!(first.name(), second.name());
    other
        .append(event(1))
        .expect("appends and signs with the new key");
    assert_eq!(key(&other), second);
    let third = other.rotate_key().expect("rotates");
    assert_eq!(key(&dir.open()), third);
    let report = verify(dir.path()).expect("is whole");
    assert_eq!((report.rotations, report.key), (vec![2, 4], Some(third)));
    assert_eq!(report.checkpoints, 4);
    assert!(!dir.state().join("audit.key.next").exists());
}

#[test]
fn a_crash_while_keys_change_leaves_one_of_the_two() {
    let dir = folder();
    let path = dir.state().join("audit.key");
    let next = dir.state().join("audit.key.next");
    let log = dir.open();
    let old = fs::read(&path).expect("a key");
    let first = key(&log);

    // Before the entry: the old one stays.
    fs::write(
        &next,
        LogKey::generate(first.name()).expect("random").to_text(),
    )
    .expect("writes");
    assert_eq!(key(&dir.open()), first);
    // After it: the new one takes its place.
    let second = log.rotate_key().expect("rotates");
    drop(log);
    fs::rename(&path, &next).expect("renames");
    fs::write(&path, &old).expect("writes");
    assert_eq!(key(&dir.open()), second);
    assert!(!next.exists());
    verify(dir.path()).expect("is whole");

    // Between the first key and its entry.
    let dir = folder();
    let made = LogKey::generate("sandcast/00000000").expect("random");
    key_file::store(&dir.state().join("audit.key"), &made).expect("writes");
    assert_eq!(key(&dir.open()), made.verifier());
}

#[test]
fn a_lost_key_stops_the_log_until_an_operator_replaces_it() {
    let dir = folder();
    let log = dir.open();
    let first = key(&log);
    drop(log);
    let path = dir.state().join("audit.key");
    let old = fs::read_to_string(&path).expect("a key");
    fs::remove_file(&path).expect("removes");
    let error = AuditLog::open(dir.path()).expect_err("there is no key");
    assert!(
        matches!(&error, AuditError::KeyLost { key, .. } if *key == first),
        "{error}"
    );
    assert!(
        error.to_string().contains("sandcast audit key new"),
        "{error}"
    );
    fs::write(&path, old.replace("PRIVATE", "PRIVATO")).expect("writes");
    assert!(matches!(
        AuditLog::open(dir.path()),
        Err(AuditError::Key { .. })
    ));

    let second = AuditLog::replace_key(dir.path(), "the disk died", Vec::new()).expect("replaces");
    let log = dir.open();
    assert_eq!(key(&log), second);
    log.append(event(1)).expect("appends");
    let report = verify(dir.path()).expect("is whole");
    assert_eq!(report.replacements, [2]);
}

#[test]
fn a_checkpoint_is_signed_once_for_what_there_is() {
    let dir = folder();
    let log = dir.open();
    log.append(small_event(1)).expect("appends");
    let report = verify(dir.path()).expect("is whole");
    assert_eq!((report.entries, report.signed), (2, 1));
    let checkpoint = log.checkpoint().expect("signs");
    assert_eq!(log.checkpoint().expect("finds"), checkpoint);
    let text = format!(
        "{}\n2\n{}\n\n\u{2014} {} ",
        key(&log).name(),
        verify(dir.path()).expect("is whole").root,
        key(&log).name()
    );
    assert!(
        checkpoint.text().starts_with(&text),
        "{}",
        checkpoint.text()
    );
    assert_eq!(checkpoint.check(&key(&log)), Ok(()));
    assert_eq!(verify(dir.path()).expect("is whole").checkpoints, 2);
    assert!(matches!(
        AuditLog::in_memory().checkpoint(),
        Err(AuditError::NoKey)
    ));
}

#[test]
fn several_events_are_written_in_one_piece_and_chained() {
    let dir = folder();
    let log = dir.open();
    let (first, second) = (small_event(1), event(2));
    let entries = log.append_all(vec![first.clone(), second, small_event(3)]);
    let entries = entries.expect("appends");
    let numbers: Vec<u64> = entries.iter().map(|entry| entry.sequence).collect();
    assert_eq!(numbers, [2, 3, 4]);
    assert_eq!(entries[2].previous, entries[1].digest);
    assert_eq!(log.entries().expect("reads")[1..], entries);
    // One of them is a boundary, so all of them are signed.
    let report = verify(dir.path()).expect("is whole");
    assert_eq!((report.entries, report.signed, report.unsealed), (4, 4, 0));
    assert_eq!(log.append_all(Vec::new()).expect("nothing to do"), []);

    let memory = AuditLog::in_memory();
    let entries = memory.append_all(vec![first, event(2)]).expect("appends");
    assert_eq!(entries[1].previous, entries[0].digest);
    assert_eq!(memory.entries().expect("reads"), entries);
}

/// A crash while several lines are written leaves the first of them, up to any byte.
#[test]
fn a_crash_within_several_entries_leaves_the_first_of_them() {
    let dir = folder();
    let log = dir.open();
    let before = [LOG_FILE, HEAD_FILE].map(|name| dir.file(name));
    let events = (1..4).map(small_event).collect();
    log.append_all(events).expect("appends");
    drop(log);
    let after = dir.file(LOG_FILE);
    for end in (before[0].len()..after.len()).step_by(7) {
        fs::write(dir.path().join(LOG_FILE), &after[..end]).expect("writes");
        fs::write(dir.path().join(HEAD_FILE), &before[1]).expect("writes");
        let whole = after[..end].iter().filter(|byte| **byte == b'\n').count();
        let is_torn = after[end - 1] != b'\n';
        let log = dir.open();
        let report = verify(dir.path()).expect("is whole");
        assert_eq!(report.entries as usize, whole + usize::from(is_torn));
        assert_eq!(report.repairs.len(), usize::from(is_torn));
        drop(log);
        fs::write(dir.path().join(CHECKPOINTS_FILE), "").expect("begins anew");
        dir.forget_signed();
    }
}

#[test]
fn a_head_of_an_older_version_is_given_its_form_when_the_log_is_opened() {
    let dir = folder();
    let log = dir.open();
    log.append(small_event(1)).expect("appends");
    let head = log.in_folder(|folder| Ok(folder.tail.head())).expect("is");
    drop(log);
    crate::head::store_old(&head, dir.path());
    let old = dir.file(HEAD_FILE);
    assert!(old.len() < 1000 && old.ends_with(b"]}\n"));
    assert_eq!(verify(dir.path()).expect("is whole").unsealed, 0);

    let (one, other) = (dir.open(), dir.open());
    assert_eq!(dir.file(HEAD_FILE), crate::head::places(&head, &head));
    other.append(event(2)).expect("appends");
    one.append(event(3)).expect("appends");
    let report = verify(dir.path()).expect("is whole");
    assert_eq!((report.entries, report.unsealed), (4, 0));

    // Where a crash left no head beside the first entry, the next append makes one.
    drop((one, other));
    let dir = folder();
    let log = dir.open();
    fs::remove_file(dir.path().join(HEAD_FILE)).expect("removes");
    drop(log);
    let (one, other) = (dir.open(), dir.open());
    other.append(event(2)).expect("appends");
    one.append(event(3)).expect("appends");
    assert_eq!(verify(dir.path()).expect("is whole").unsealed, 0);
}

/// What a loss of power leaves when it comes while one of the two heads is written.
#[test]
fn a_head_that_is_incomplete_has_another_beside_it() {
    let dir = folder();
    let log = dir.open();
    let head = |log: &AuditLog| log.in_folder(|folder| Ok(folder.tail.head())).expect("is");
    let (first, before) = (head(&log), dir.file(HEAD_FILE));
    log.append(small_event(1)).expect("appends");
    log.append(small_event(2)).expect("appends");
    let (last, after) = (head(&log), dir.file(HEAD_FILE));
    assert_eq!(after, crate::head::places(&last, &first));
    drop(log);
    let renewed = crate::head::places(&last, &last);
    let kept = [LOG_FILE, CHECKPOINTS_FILE].map(|name| (name, dir.file(name)));

    for up_to in (1..4096).step_by(97) {
        for (place, left) in [
            crate::head::torn(&before, &after, 0, up_to),
            crate::head::torn(&after, &renewed, 1, up_to),
        ]
        .into_iter()
        .enumerate()
        {
            if left == before || left == after || left == renewed {
                continue;
            }
            for (name, bytes) in &kept {
                fs::write(dir.path().join(name), bytes).expect("writes");
            }
            fs::write(dir.path().join(HEAD_FILE), &left).expect("writes");
            dir.forget_signed();
            let error = verify(dir.path()).expect_err("is incomplete");
            assert!(
                error.to_string().contains("the next run mends it"),
                "{error}"
            );

            let log = dir.open();
            let torn = &left[place * 4096..(place + 1) * 4096];
            let wanted = Event::HeadRepaired {
                dropped_bytes: 4096,
                dropped: Digest::of(torn),
            };
            assert_eq!(log.entries().expect("reads")[3].event, wanted);
            let report = verify(dir.path()).expect("is whole");
            assert_eq!((report.entries, report.signed), (4, 4));
            log.append(small_event(5)).expect("goes on");
            assert_eq!(verify(dir.path()).expect("is whole").unsealed, 0);
        }
    }

    // Both: that is no crash.
    fs::write(dir.path().join(HEAD_FILE), vec![b' '; 8192]).expect("writes");
    assert!(matches!(
        AuditLog::open(dir.path()),
        Err(AuditError::Head { .. })
    ));
    // One, and a tail that was cut: what was signed says so.
    fs::write(
        dir.path().join(HEAD_FILE),
        crate::head::torn(&after, &renewed, 1, 100),
    )
    .expect("writes");
    let mut log = dir.file(LOG_FILE);
    let line = log.iter().position(|byte| *byte == b'\n').expect("a line");
    log.truncate(line + 1);
    fs::write(dir.path().join(LOG_FILE), log).expect("writes");
    assert!(matches!(
        AuditLog::open(dir.path()),
        Err(AuditError::Cut { .. })
    ));
}

#[test]
fn the_second_head_follows_the_first_at_a_distance() {
    let dir = folder();
    let log = dir.open();
    let second = || {
        let heads = Heads::load(dir.path()).expect("reads").expect("is there");
        (heads.last.sequence, heads.other.expect("both").sequence)
    };
    for number in 1..crate::head::MOST_AHEAD {
        log.append(small_event(number)).expect("appends");
    }
    assert_eq!(second(), (crate::head::MOST_AHEAD, 1));
    log.append(small_event(0)).expect("appends");
    let far = crate::head::MOST_AHEAD + 1;
    assert_eq!(second(), (far, far));
    log.append(small_event(0)).expect("appends");
    assert_eq!(second(), (far + 1, far));
    verify(dir.path()).expect("is whole");

    // Each of the two is held to the log.
    let heads = Heads::load(dir.path()).expect("reads").expect("is there");
    let forged = Head {
        start: 7,
        ..heads.other.expect("both")
    };
    let bytes = crate::head::places(&heads.last, &forged);
    fs::write(dir.path().join(HEAD_FILE), bytes).expect("writes");
    assert!(matches!(
        verify(dir.path()),
        Err(crate::VerifyError::HeadChanged { .. })
    ));
}

/// Everything of a log that lies in its folder, and not beside it, put in the place of another's.
fn put_in_place(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for name in [LOG_FILE, HEAD_FILE, CHECKPOINTS_FILE] {
        let _ = fs::remove_file(to.join(name));
        if from.join(name).exists() {
            fs::copy(from.join(name), to.join(name)).expect("copies");
        }
    }
}

#[test]
fn a_history_that_was_written_anew_is_not_signed() {
    let dir = folder();
    let log = AuditLog::open(dir.path()).expect("opens");
    for number in 0..5 {
        log.append(event(number)).expect("appends");
    }
    drop(log);
    // A forger who can write the folder, and has not the key: the first entry, which names it, and
    // others after it; a head for them; and no checkpoint that tells.
    let forged = folder();
    let first = fs::read_to_string(dir.path().join(LOG_FILE)).expect("reads");
    let first = first.lines().next().expect("a line").to_owned() + "\n";
    let mut tail = Tail::empty();
    let entry = open_line(first.trim_end().as_bytes()).expect("an entry");
    let (digest, key) = (entry.digest, entry.key_event(first.trim_end().as_bytes()));
    tail.step(digest, first.as_bytes(), key.as_ref().and_then(Event::key));
    let mut lines = first.clone();
    for number in 10..20 {
        let (entry, line) =
            seal(tail.sequence() + 1, now(), tail.digest, event(number)).expect("seals");
        tail.step(entry.digest, line.as_bytes(), None);
        lines.push_str(&line);
    }
    fs::create_dir_all(forged.path()).expect("a folder");
    fs::write(forged.path().join(LOG_FILE), &lines).expect("writes");
    HeadFile::create(forged.path(), &tail.head()).expect("writes");
    let signed = fs::read(dir.path().join(CHECKPOINTS_FILE)).expect("reads");
    put_in_place(forged.path(), dir.path());
    let error = AuditLog::open(dir.path()).expect_err("it was rewritten");
    assert!(
        matches!(error, AuditError::Rewritten { sequence: 6, .. }),
        "{error}"
    );
    assert!(
        !dir.path().join(CHECKPOINTS_FILE).exists(),
        "nothing is signed"
    );
    // Nor where the checkpoints stay.
    fs::write(dir.path().join(CHECKPOINTS_FILE), &signed).expect("writes");
    AuditLog::open(dir.path()).expect_err("it was rewritten");
    assert_eq!(
        fs::read(dir.path().join(CHECKPOINTS_FILE)).expect("reads"),
        signed
    );
}

#[test]
fn an_older_log_or_none_is_not_gone_on_with() {
    let dir = folder();
    let older = folder();
    let log = AuditLog::open(dir.path()).expect("opens");
    log.append(event(1)).expect("appends");
    put_in_place(dir.path(), older.path());
    let newer = folder();
    log.append(event(2)).expect("appends");
    put_in_place(dir.path(), newer.path());
    drop(log);

    put_in_place(older.path(), dir.path());
    let error = AuditLog::open(dir.path()).expect_err("it is older");
    assert!(
        matches!(error, AuditError::Rewritten { sequence: 3, .. }),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("put back the log that was there"),
        "{error}"
    );
    for name in [LOG_FILE, HEAD_FILE, CHECKPOINTS_FILE] {
        fs::remove_file(dir.path().join(name)).expect("removes");
    }
    let error = AuditLog::open(dir.path()).expect_err("there is none");
    assert!(
        matches!(error, AuditError::Rewritten { sequence: 3, .. }),
        "{error}"
    );
    let _ = fs::remove_file(dir.path().join(LOG_FILE));

    // What was there goes on, also where it is not known any more what was signed.
    put_in_place(newer.path(), dir.path());
    AuditLog::open(dir.path()).expect("opens");
    fs::write(anchor::path(dir.path()), "half").expect("writes");
    let log = AuditLog::open(dir.path()).expect("opens");
    drop(log);
    assert_eq!(
        anchor::load(dir.path())
            .expect("reads")
            .map(|at| at.sequence),
        Some(3)
    );
    // And where a key was changed, or a crash came after entries that are not signed.
    let log = AuditLog::open(dir.path()).expect("opens");
    log.rotate_key().expect("rotates");
    log.append(small_event(9)).expect("appends");
    put_in_place(dir.path(), older.path());
    drop(log);
    put_in_place(older.path(), dir.path());
    AuditLog::open(dir.path()).expect("opens");
    verify(dir.path()).expect("is whole");
}

#[test]
fn what_came_after_a_place_is_read_without_the_rest() {
    let dir = folder();
    let (log, other) = (dir.open(), dir.open());
    log.append(small_event(9)).expect("appends");
    log.append(event(1)).expect("appends");
    let position = log.position();
    other.append(event(2)).expect("appends");
    log.append(event(3)).expect("appends");
    let after = |position, least| {
        let wanted = |entry: &Entry| matches!(entry.event, Event::ServeStopped { predictions } if predictions >= least);
        predictions(&log.entries_after(position, wanted).expect("reads"))
    };
    assert_eq!(after(position, 0), [2, 3]);
    assert_eq!(after(position, 3), [3]);
    assert_eq!(after(None, 0), [1, 2, 3]);
    assert!(after(log.position(), 0).is_empty());
    // A place of another log is none of this one.
    let strange = folder().open().position();
    assert_eq!(after(strange, 0), [1, 2, 3]);

    // An entry before the place is not looked at, so that it was changed does not matter here.
    dir.change(LOG_FILE, |text| {
        text.replacen("\"name\":\"9\"", "\"name\":\"8\"", 1)
    });
    assert_eq!(after(position, 0), [2, 3]);
    let memory = AuditLog::in_memory();
    memory.append(event(4)).expect("appends");
    assert_eq!(memory.position(), None);
    assert_eq!(
        predictions(&memory.entries_after(None, |_| true).expect("reads")),
        [4]
    );
}

#[test]
fn what_waited_elsewhere_comes_into_the_log_once() {
    let dir = folder();
    let log = dir.open();
    let waits = |numbers: &[u64]| -> Vec<Waiting> {
        let waiting = |&number: &u64| Waiting {
            posted: jiff::Timestamp::now(),
            event: event(number),
        };
        numbers.iter().map(waiting).collect()
    };
    let logged = || predictions(&log.entries_after(None, |_| true).expect("reads"));
    // The same was had before, and is had again.
    log.append(event(1)).expect("appends");
    std::thread::sleep(std::time::Duration::from_millis(2));
    let waiting = waits(&[1, 2]);
    let settled = log.append_waiting(waiting.clone(), None).expect("appends");
    assert_eq!(logged(), [1, 1, 2]);
    // A process died before it could take them out, and one more came.
    let more = [waiting.clone(), waits(&[3])].concat();
    log.append_waiting(more, None).expect("appends");
    assert_eq!(logged(), [1, 1, 2, 3]);
    // Two that are the same, of which one is in the log.
    let twice = waits(&[4, 4]);
    log.append(event(4)).expect("appends");
    log.append_waiting(twice, settled).expect("appends");
    assert_eq!(logged(), [1, 1, 2, 3, 4, 4]);
    // One of long ago that somebody put back is found before the place where all was settled.
    let settled = log.settled();
    let settled = log.append_waiting(waiting, settled).expect("appends");
    assert_eq!(logged(), [1, 1, 2, 3, 4, 4]);
    // And what is new is looked for behind it alone.
    std::thread::sleep(std::time::Duration::from_millis(2));
    dir.change(LOG_FILE, |text| {
        text.replacen("\"predictions\":3", "\"predictions\":9", 1)
    });
    log.append_waiting(waits(&[5]), settled).expect("appends");
    log.append_waiting(waits(&[6]), None)
        .expect_err("all of it was read");
}

/// What a loss of power leaves when the page of the head came to the disk and the entries after the last
/// boundary did not.
#[test]
fn a_head_that_is_ahead_of_the_log_is_not_gone_by_where_nothing_signed_is_missing() {
    let dir = folder();
    let log = dir.open();
    log.append(event(1)).expect("appends and signs");
    let before = dir.file(LOG_FILE);
    let checkpoints = dir.file(CHECKPOINTS_FILE);
    for number in 0..3 {
        log.append(small_event(number)).expect("appends");
    }
    let (lost, heads) = (dir.file(LOG_FILE), dir.file(HEAD_FILE));
    drop(log);
    // Up to any byte of what was lost, that of a whole line too.
    for end in (before.len()..lost.len()).step_by(13).chain([before.len()]) {
        fs::write(dir.path().join(LOG_FILE), &lost[..end]).expect("writes");
        fs::write(dir.path().join(HEAD_FILE), &heads).expect("writes");
        fs::write(dir.path().join(CHECKPOINTS_FILE), &checkpoints).expect("writes");
        dir.forget_signed();
        assert!(verify(dir.path()).is_err());
        let log = dir.open();
        let dropped = heads[..4096].to_vec();
        let wanted = Event::HeadRepaired {
            dropped_bytes: 4096,
            dropped: Digest::of(&dropped),
        };
        let entries = log.entries().expect("reads");
        assert_eq!(entries.last().map(|last| &last.event), Some(&wanted));
        let report = verify(dir.path()).expect("is whole");
        assert_eq!((report.unsealed, report.signed), (0, report.entries));
        // Also where the power goes again before the head that was mended is written once more.
        log.append(small_event(9)).expect("goes on");
        drop(log);
        dir.open();
    }

    // `verify` tells it from a tail that was cut.
    fs::write(dir.path().join(LOG_FILE), &before).expect("writes");
    fs::write(dir.path().join(HEAD_FILE), &heads).expect("writes");
    fs::write(dir.path().join(CHECKPOINTS_FILE), &checkpoints).expect("writes");
    dir.forget_signed();
    assert!(matches!(
        verify(dir.path()),
        Err(crate::VerifyError::HeadAhead {
            expected: 5,
            found: 2,
            ..
        })
    ));

    // What was signed is missing: that is no loss of power, and nothing is written.
    let first = before
        .iter()
        .position(|byte| *byte == b'\n')
        .expect("a line")
        + 1;
    for end in [first, first + 20] {
        fs::write(dir.path().join(LOG_FILE), &before[..end]).expect("writes");
        assert!(matches!(
            AuditLog::open(dir.path()),
            Err(AuditError::Cut { sequence: 5, .. })
        ));
        assert_eq!(dir.file(LOG_FILE), before[..end]);
        assert_eq!(dir.file(HEAD_FILE), heads);
        assert!(matches!(
            verify(dir.path()),
            Err(crate::VerifyError::Cut { .. } | crate::VerifyError::Line { .. })
        ));
    }
}

/// A process that cannot read the key that another one made does not sign with the one before.
#[test]
fn a_change_of_keys_that_cannot_be_followed_is_asked_about_again() {
    let dir = folder();
    let (one, other) = (dir.open(), dir.open());
    one.append(event(1)).expect("appends");
    let next = other.rotate_key().expect("rotates");
    let path = key_file::path(dir.path());
    let hidden = dir.state().join("hidden");
    fs::rename(&path, &hidden).expect("hides it");
    for _ in 0..2 {
        assert!(matches!(
            one.append(event(2)),
            Err(AuditError::KeyLost { .. })
        ));
    }
    fs::rename(&hidden, &path).expect("is there again");
    one.append(event(3)).expect("appends and signs");
    assert_eq!(one.key(), Some(next.clone()));
    let report = verify(dir.path()).expect("is whole");
    assert_eq!((report.key, report.signed), (Some(next), report.entries));
    assert_eq!(predictions(&one.entries().expect("reads")), [1, 3]);
}

#[test]
fn what_cannot_be_taken_hold_of_keeps_nobody_from_the_log() {
    let dir = folder();
    let (one, other) = (dir.open(), dir.open());
    let path = dir.path().join(LOG_FILE);
    let away = dir.state().join("away");
    fs::rename(&path, &away).expect("moves it away");
    assert!(matches!(one.append(event(1)), Err(AuditError::Open { .. })));
    fs::rename(&away, &path).expect("moves it back");
    // Else this would wait for as long as the other one is open.
    other.append(event(2)).expect("appends");
    one.append(event(3)).expect("appends");
    assert_eq!(verify(dir.path()).expect("is whole").entries, 3);
}

/// As a version does that wrote one line and replaced the file with each append.
#[test]
fn a_head_that_was_replaced_is_not_written_to_where_nobody_finds_it() {
    let dir = folder();
    let (log, other) = (dir.open(), dir.open());
    other.append(small_event(1)).expect("appends");
    let head = other
        .in_folder(|folder| Ok(folder.tail.head()))
        .expect("is");
    fs::remove_file(dir.path().join(HEAD_FILE)).expect("removes");
    crate::head::store_old(&head, dir.path());
    log.append(small_event(2)).expect("appends");
    assert_eq!(verify(dir.path()).expect("is whole").unsealed, 0);
}

#[test]
fn a_byte_after_the_last_checkpoint_does_not_hide_that_the_log_was_cut() {
    let dir = folder();
    let log = dir.open();
    let head = log.in_folder(|folder| Ok(folder.tail.head())).expect("is");
    let first = dir.file(LOG_FILE);
    log.append(event(1)).expect("appends and signs");
    drop(log);
    fs::write(dir.path().join(LOG_FILE), first).expect("writes");
    let places = crate::head::places(&head, &head);
    fs::write(dir.path().join(HEAD_FILE), places).expect("writes");
    let torn = [dir.file(CHECKPOINTS_FILE), b"x".to_vec()].concat();
    fs::write(dir.path().join(CHECKPOINTS_FILE), torn).expect("writes");
    dir.forget_signed();
    assert!(matches!(
        AuditLog::open(dir.path()),
        Err(AuditError::Cut { sequence: 2, .. })
    ));
}

#[test]
fn who_replaces_a_key_is_on_record_in_one_piece_with_it() {
    let dir = folder();
    let log = dir.open();
    fs::remove_file(key_file::path(dir.path())).expect("is lost");
    let key = AuditLog::replace_key(dir.path(), "lost", vec![small_event(1)]).expect("replaces");
    let entries = log.entries().expect("reads");
    assert_eq!(entries[1].event, small_event(1));
    assert!(matches!(&entries[2].event, Event::KeyReplaced { key: new, .. } if *new == key));
    assert_eq!(verify(dir.path()).expect("is whole").signed, 3);
}
