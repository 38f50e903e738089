use proptest::prelude::*;

use super::*;
use crate::testing::{Folder, folder};
use crate::{AuditLog, Event};

/// A log with one entry for each text.
fn log_of(texts: &[&str]) -> Folder {
    let dir = folder();
    let log = AuditLog::open(dir.path()).expect("opens");
    for text in texts {
        let event = Event::PluginRefused {
            name: (*text).to_owned(),
            digest: None,
            reason: "no \"reason\"\n".to_owned(),
        };
        log.append(event).expect("appends");
    }
    dir
}

/// Rewrites the log by its lines and says what that comes to.
fn after(texts: &[&str], change: impl FnOnce(&mut Vec<String>)) -> String {
    let dir = log_of(texts);
    let path = dir.path().join(LOG_FILE);
    let text = fs::read_to_string(&path).expect("reads");
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    change(&mut lines);
    fs::write(&path, lines.concat()).expect("writes");
    let message = verify(dir.path()).expect_err("is not whole").to_string();
    message.replace(&dir.path().display().to_string(), "audit")
}

#[test]
fn a_whole_log_is_reported() {
    let dir = log_of(&["a", "b", "c"]);
    let report = verify(dir.path()).expect("is whole");
    assert_eq!(
        (report.entries, report.unsealed, report.repairs.len()),
        (4, 0, 0)
    );
    assert!(report.first_time <= report.last_time && report.first_time.is_some());
}

#[test]
fn an_empty_log_is_whole() {
    let dir = folder();
    fs::create_dir_all(dir.path()).expect("a folder");
    fs::write(dir.path().join(LOG_FILE), "").expect("writes");
    assert_eq!(
        verify(dir.path()).expect("is whole"),
        VerifyReport::default()
    );
}

#[test]
fn no_log_is_an_error_of_its_own() {
    let dir = folder();
    assert!(matches!(verify(dir.path()), Err(VerifyError::Read { .. })));
}

#[test]
fn every_kind_of_fault_is_named_with_its_line() {
    // The first entry names the key.
    let four = ["b", "c", "d"];
    let cases: [(&str, String); 9] = [
        (
            "audit/log.jsonl, line 2: the entry was changed: its content does not match its digest",
            after(&four, |lines| {
                lines[1] = lines[1].replace("\"name\":\"b\"", "\"name\":\"x\"")
            }),
        ),
        (
            "audit/log.jsonl, line 2: entries 2 to 3 were removed before this one",
            after(&four, |lines| drop(lines.drain(1..3))),
        ),
        (
            "audit/log.jsonl, line 2: entry 3 stands where entry 2 belongs: entries were reordered",
            after(&four, |lines| lines.swap(1, 2)),
        ),
        (
            "audit/log.jsonl, line 3: this repeats line 2",
            after(&four, |lines| lines.insert(2, lines[1].clone())),
        ),
        (
            "audit/log.jsonl: the tail was cut off: the head names entry 4, the log ends at entry 3",
            after(&four, |lines| drop(lines.pop())),
        ),
        (
            "audit/log.jsonl: the tail was cut off: the head names entry 4, the log ends at entry 0",
            after(&four, Vec::clear),
        ),
        (
            "audit/log.jsonl, line 3: this is not an entry of an audit log",
            after(&four, |lines| lines[2] = "\n".into()),
        ),
        (
            "audit/log.jsonl, line 4: the last entry is incomplete; if a crash did that, the next run drops it and \
             says so in the log",
            after(&four, |lines| {
                lines[3].pop();
            }),
        ),
        (
            "audit/head.json was changed: it does not describe entry 4 of the log",
            after(&four, |lines| lines[3] = forged(4, &lines[2], "x")),
        ),
    ];
    for (wanted, found) in cases {
        assert_eq!(found, wanted);
    }
    let found = after(&four, |lines| lines[1] = forged(2, &lines[0], "x"));
    assert!(
        found.starts_with("audit/log.jsonl, line 3: the chain is broken"),
        "{found}"
    );
}

/// A well-formed entry that was never appended.
fn forged(sequence: u64, before: &str, name: &str) -> String {
    let previous = open_line(before.trim_end().as_bytes())
        .map(|entry| entry.digest)
        .unwrap_or(Digest::ZERO);
    let event = Event::PluginRefused {
        name: name.to_owned(),
        digest: None,
        reason: String::new(),
    };
    crate::entry::seal(sequence, "2026-11-21T20:15:30Z".to_owned(), previous, event)
        .expect("seals")
        .1
}

#[test]
fn a_missing_head_is_a_fault() {
    let dir = log_of(&["a", "b"]);
    fs::remove_file(dir.path().join(HEAD_FILE)).expect("removes");
    assert!(matches!(
        verify(dir.path()),
        Err(VerifyError::HeadMissing { .. })
    ));
}

#[test]
fn an_event_of_a_newer_version_does_not_break_the_chain() {
    let dir = log_of(&["a"]);
    let path = dir.path().join(LOG_FILE);
    let text = fs::read_to_string(&path).expect("reads");
    let last = text.lines().last().expect("a line");
    let last = open_line(last.as_bytes()).unwrap_or_else(|fault| panic!("{fault:?}"));
    let body = format!(
        "\"event\":{{\"event\":\"brand-new\"}},\"previous\":\"{}\",\"sequence\":3,\"time\":\"t\"}}",
        last.digest
    );
    let digest = Digest::of(format!("{{{body}").as_bytes());
    fs::write(&path, format!("{text}{{\"digest\":\"{digest}\",{body}\n")).expect("writes");
    assert_eq!(verify(dir.path()).expect("is whole").entries, 3);
    let log = AuditLog::open(dir.path()).expect("continues");
    assert_eq!(
        log.append(Event::ServeStopped { predictions: 1 })
            .expect("appends")
            .sequence,
        4
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_changed_byte_of_any_file_is_found_and_the_file_named(
        texts in prop::collection::vec(".{0,12}", 1..5),
        file in 0..3usize,
        place in any::<prop::sample::Index>(),
        flip in 1..=255u8,
    ) {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let dir = log_of(&texts);
        let file = [LOG_FILE, HEAD_FILE, CHECKPOINTS_FILE][file];
        let path = dir.path().join(file);
        let mut bytes = fs::read(&path).expect("reads");
        let place = place.index(bytes.len());
        bytes[place] ^= flip;
        fs::write(&path, bytes).expect("writes");
        let error = verify(dir.path()).expect_err("is found").to_string();
        // A line whose end went away is one with the next; what the head names is then missing.
        prop_assert!(error.contains(file) || file == HEAD_FILE && error.contains(LOG_FILE), "{}", error);
    }

    #[test]
    fn any_byte_removed_or_inserted_and_any_cut_is_found(
        texts in prop::collection::vec(".{0,12}", 1..5),
        place in any::<prop::sample::Index>(),
        change in 0..3u8,
        byte in any::<u8>(),
    ) {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let dir = log_of(&texts);
        let path = dir.path().join(LOG_FILE);
        let mut bytes = fs::read(&path).expect("reads");
        let place = place.index(bytes.len());
        match change {
            0 => drop(bytes.remove(place)),
            1 => bytes.insert(place, byte),
            _ => bytes.truncate(place),
        }
        fs::write(&path, bytes).expect("writes");
        prop_assert!(verify(dir.path()).is_err());
    }

    #[test]
    fn any_other_order_or_choice_of_entries_is_found(
        count in 2..7usize,
        choice in prop::collection::vec(any::<prop::sample::Index>(), 0..9),
    ) {
        let texts: Vec<String> = (1..count).map(|number| number.to_string()).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let choice: Vec<usize> = choice.iter().map(|index| index.index(count)).collect();
        prop_assume!(choice != (0..count).collect::<Vec<_>>());
        let dir = log_of(&texts);
        let path = dir.path().join(LOG_FILE);
        let text = fs::read_to_string(&path).expect("reads");
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let chosen: String = choice.iter().map(|place| lines[*place]).collect();
        fs::write(&path, chosen).expect("writes");
        prop_assert!(verify(dir.path()).is_err());
    }
}
