use std::io::Write as _;
use std::process::{Command, Stdio};

use super::*;
use crate::testing::{event, folder, key, small_event};
use crate::verify;

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
    assert_eq!((first.sequence, first.previous), (1, Digest::ZERO));
    assert_eq!((second.sequence, second.previous), (2, first.digest));
    assert_eq!(log.entries().expect("reads"), vec![first, second.clone()]);

    let log = AuditLog::open(dir.path()).expect("opens again");
    let third = log.append(event(3)).expect("appends");
    assert_eq!((third.sequence, third.previous), (3, second.digest));
    assert_eq!(verify(dir.path()).expect("is whole").entries, 3);
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
    assert_eq!(verify(dir.path()).expect("is whole").entries, 100);
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
    assert_eq!(entry.sequence, 3);
    let report = verify(dir.path()).expect("is whole again");
    assert_eq!((report.entries, report.repairs), (3, vec![2]));
    let entries = log.entries().expect("reads");
    assert_eq!(
        entries[1].event,
        Event::LogRepaired {
            dropped_bytes: 13,
            dropped: Digest::of(b"{\"digest\":\"12")
        }
    );

    file.write_all(b"x").expect("writes");
    AuditLog::open(dir.path()).expect("opens and repairs");
    assert_eq!(
        verify(dir.path()).expect("is whole again").repairs,
        vec![2, 4]
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
    assert_eq!((report.entries, report.unsealed), (3, 0));
}

#[test]
fn a_cut_log_is_not_continued() {
    let dir = folder();
    let log = AuditLog::open(dir.path()).expect("opens");
    let first = log.append(event(1)).expect("appends");
    log.append(event(2)).expect("appends");
    let path = dir.path().join(LOG_FILE);
    let text = fs::read_to_string(&path).expect("reads");
    let line = text.lines().next().expect("a line");
    fs::write(&path, format!("{line}\n")).expect("writes");

    assert!(matches!(
        log.append(event(3)),
        Err(AuditError::Cut { sequence: 2, .. })
    ));
    let error = AuditLog::open(dir.path()).expect_err("is cut");
    assert!(
        matches!(error, AuditError::Cut { sequence: 2, .. }),
        "{error}"
    );
    assert_eq!(
        read(dir.path())
            .expect("opens")
            .collect::<Result<Vec<_>, _>>()
            .expect("reads"),
        vec![first]
    );
}

#[test]
fn a_log_without_its_head_is_not_continued() {
    let dir = folder();
    let log = AuditLog::open(dir.path()).expect("opens");
    log.append(event(1)).expect("appends");
    let head = dir.path().join(HEAD_FILE);
    fs::remove_file(&head).expect("removes");
    AuditLog::open(dir.path()).expect("one entry may have been cut off from its head by a crash");

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
    fs::write(
        &path,
        text.replace("\"predictions\":1", "\"predictions\":2"),
    )
    .expect("writes");
    assert!(matches!(
        AuditLog::open(dir.path()),
        Err(AuditError::Damaged { offset: 0, .. })
    ));
    assert!(matches!(
        log.entries(),
        Err(AuditError::Damaged { offset: 0, .. })
    ));
}

#[test]
fn an_entry_whose_head_cannot_be_written_is_taken_back() {
    let dir = folder();
    let log = AuditLog::open(dir.path()).expect("opens");
    log.append(event(1)).expect("appends");
    fs::create_dir(dir.path().join("head.json.new")).expect("stands in the way");
    assert!(matches!(
        log.append(event(2)),
        Err(AuditError::Write { .. })
    ));
    assert_eq!(verify(dir.path()).expect("is whole").entries, 1);
    fs::remove_dir(dir.path().join("head.json.new")).expect("removes");
    assert_eq!(log.append(event(3)).expect("appends").sequence, 2);
    assert_eq!(predictions(&log.entries().expect("reads")), [1, 3]);
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let dir = folder();
    let file = dir.path().join("file");
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
    assert_eq!((report.entries, report.repairs.len()), (60, 0));
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
        "trap '' XFSZ; ulimit -f 2; exec \"$0\" --exact log::tests::child_appends",
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
