use proptest::prelude::*;

use super::*;
use crate::testing::{Folder, folder, key};
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
            "audit/log.jsonl: the head names entry 4, the log ends at entry 3: entries that were not signed yet were lost with the power, or cut off; all that was signed is here, so the next run goes on from it and says so in the log",
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

fn trust(keys: &[&VerifierKey]) -> Trust {
    Trust {
        keys: keys.iter().map(|key| (*key).clone()).collect(),
        checkpoints: Vec::new(),
    }
}

/// Writes a whole folder anew, as somebody without the key would: entries, chain, head, and
/// checkpoints signed with a key of their own.
fn rewritten(texts: &[&str]) -> Folder {
    log_of(texts)
}

#[test]
fn a_folder_rewritten_without_the_key_is_found() {
    let dir = log_of(&["a", "b", "c"]);
    let known = key(&dir.open());
    let report = verify_with(dir.path(), &trust(&[&known])).expect("is whole");
    assert!(report.is_trusted);

    let forged = rewritten(&["a", "x", "c"]);
    verify(forged.path()).expect("nothing in the folder says otherwise");
    let error = verify_with(forged.path(), &trust(&[&known])).expect_err("is forged");
    assert!(matches!(error, VerifyError::Untrusted { .. }), "{error}");

    // The forger names the key that is known, in the first entry, and cannot sign with it.
    let dir = folder();
    fs::create_dir_all(dir.path()).expect("a folder");
    let (_, line) = crate::entry::seal(
        1,
        "2026-11-21T20:15:30Z".to_owned(),
        Digest::ZERO,
        Event::KeyCreated { key: known.clone() },
    )
    .expect("seals");
    fs::write(dir.path().join(LOG_FILE), line).expect("writes");
    let error = verify_with(dir.path(), &trust(&[&known])).expect_err("is not signed");
    assert!(matches!(error, VerifyError::Untrusted { .. }), "{error}");
    fs::write(
        dir.path().join(CHECKPOINTS_FILE),
        forged.file(CHECKPOINTS_FILE),
    )
    .expect("writes");
    let error = verify_with(dir.path(), &trust(&[&known])).expect_err("is signed by another");
    assert!(error.to_string().contains("did not sign"), "{error}");
}

#[test]
fn what_was_signed_cannot_be_rewritten_even_with_its_chain_and_head() {
    let dir = log_of(&["a", "b"]);
    let log = dir.open();
    log.checkpoint().expect("signs");
    // The second entry is another, and all after it and the head fit.
    let text = String::from_utf8(dir.file(LOG_FILE)).expect("text");
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let second = forged(2, lines[0], "x");
    let third = forged(3, &second, "y");
    fs::write(
        dir.path().join(LOG_FILE),
        [lines[0], &second, &third].concat(),
    )
    .expect("writes");
    let digest = open_line(third.trim_end().as_bytes())
        .expect("opens")
        .digest;
    let head = Head {
        digest,
        key: None,
        sequence: 3,
        start: (lines[0].len() + second.len()) as u64,
        tree: None,
    };
    crate::head::store_old(&head, dir.path());
    let error = verify(dir.path()).expect_err("is forged");
    assert!(
        matches!(
            &error,
            VerifyError::Checkpoint {
                fault: CheckpointFault::Forked { size: 3, .. },
                line: 7,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("two histories"), "{error}");
}

#[test]
fn checkpoints_that_are_removed_repeated_or_reordered_are_found() {
    let dir = log_of(&[]);
    let log = dir.open();
    for number in 0..3 {
        log.append(crate::testing::event(number)).expect("appends");
    }
    let whole = String::from_utf8(dir.file(CHECKPOINTS_FILE)).expect("text");
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let parts: Vec<String> = lines.chunks(6).map(<[&str]>::concat).collect();
    assert_eq!(parts.len(), 4);
    let of = |order: &[usize]| -> String { order.iter().map(|at| parts[*at].as_str()).collect() };
    let cases = [
        (
            of(&[0, 2, 1, 3]),
            "line 13: this checkpoint is of 2 entries and stands after one of 3",
        ),
        (
            of(&[0, 1, 1, 2, 3]),
            "line 13: this checkpoint is of 2 entries and stands after one of 2",
        ),
        (
            whole.replacen("\n3\n", "\n5\n", 1),
            "line 13: the tail was cut off",
        ),
        (
            whole.replacen("\n3\n", "\n03\n", 1),
            "line 13: this is not a signed checkpoint",
        ),
        (whole.replacen("sandcast/", "sandcast+", 1), "line 1: "),
    ];
    for (text, wanted) in cases {
        fs::write(dir.path().join(CHECKPOINTS_FILE), text).expect("writes");
        let error = verify(dir.path()).expect_err("is found").to_string();
        assert!(error.contains(wanted), "{error}");
    }
    // One that is missing in between hides nothing: those after it cover the same entries.
    fs::write(dir.path().join(CHECKPOINTS_FILE), of(&[0, 3])).expect("writes");
    assert_eq!(verify(dir.path()).expect("is whole").signed, 4);
}

#[test]
fn a_checkpoint_that_was_kept_finds_what_was_rolled_back_or_told_twice() {
    let dir = log_of(&["a"]);
    let log = dir.open();
    let known = key(&log);
    let early = log.checkpoint().expect("signs");
    let rolled_back = [LOG_FILE, HEAD_FILE, CHECKPOINTS_FILE].map(|name| (name, dir.file(name)));
    log.append(crate::testing::event(1)).expect("appends");
    let kept = log.checkpoint().expect("signs");
    let trust = |checkpoints: &[&SignedCheckpoint]| Trust {
        keys: vec![known.clone()],
        checkpoints: checkpoints.iter().map(|kept| (*kept).clone()).collect(),
    };
    verify_with(dir.path(), &trust(&[&kept, &early])).expect("has both");

    drop(log);
    for (name, bytes) in &rolled_back {
        fs::write(dir.path().join(name), bytes).expect("writes");
    }
    verify_with(dir.path(), &trust(&[&early])).expect("nothing tells");
    let error = verify_with(dir.path(), &trust(&[&kept])).expect_err("is rolled back");
    let wanted = "the checkpoint of 3 entries that was kept from earlier: the tail was cut off";
    assert!(error.to_string().contains(wanted), "{error}");

    // From there the operator, who has the key, goes on differently.
    dir.forget_signed();
    dir.open()
        .append(crate::testing::event(2))
        .expect("appends");
    let error = verify_with(dir.path(), &trust(&[&kept])).expect_err("is another history");
    assert!(error.to_string().contains("two histories"), "{error}");
}

#[test]
fn keys_are_followed_from_any_that_is_trusted() {
    let dir = log_of(&["a"]);
    let log = dir.open();
    let first = key(&log);
    let second = log.rotate_key().expect("rotates");
    log.append(crate::testing::event(1)).expect("appends");
    let third = log.rotate_key().expect("rotates");
    for known in [&first, &second, &third] {
        let report = verify_with(dir.path(), &trust(&[known])).expect("is whole");
        assert_eq!(report.key.as_ref(), Some(&third));
        assert_eq!(report.rotations, [3, 5]);
    }
    let stranger = key(&log_of(&[]).open());
    assert!(verify_with(dir.path(), &trust(&[&stranger])).is_err());

    // Lost, and replaced: loud, and only with the new key.
    drop(log);
    fs::remove_file(dir.state().join("audit.key")).expect("removes");
    let fourth = AuditLog::replace_key(dir.path(), "the disk died", Vec::new()).expect("replaces");
    let error = verify_with(dir.path(), &trust(&[&third])).expect_err("nobody vouches");
    let text = error.to_string();
    assert!(
        text.contains("entry 6: the key was REPLACED by") && text.contains("the disk died"),
        "{text}"
    );
    let report = verify_with(dir.path(), &trust(&[&third, &fourth])).expect("is whole");
    assert_eq!(report.replacements, [6]);
    verify_with(dir.path(), &trust(&[&fourth])).expect("the new key covers all of it");
}

/// A log whose last entry is about a key, with head and chain in order.
fn with_key_event(make: impl FnOnce(&VerifierKey, u64, &Digest) -> Event) -> String {
    let dir = log_of(&["a"]);
    let known = key(&dir.open());
    let text = String::from_utf8(dir.file(LOG_FILE)).expect("text");
    let last = text.lines().last().expect("a line");
    let last = open_line(last.as_bytes()).expect("opens");
    let event = make(&known, last.sequence + 1, &last.digest);
    let time = "2026-11-21T20:15:30Z".to_owned();
    let (_, line) = crate::entry::seal(last.sequence + 1, time, last.digest, event).expect("seals");
    fs::write(dir.path().join(LOG_FILE), format!("{text}{line}")).expect("writes");
    let error = verify_with(dir.path(), &trust(&[&known])).expect_err("is forged");
    error.to_string()
}

#[test]
fn a_change_of_keys_must_be_signed_for_its_place_by_the_key_in_force() {
    let forger = crate::note::LogKey::generate("sandcast/00000000").expect("random");
    let own_name = |name: &str| crate::note::LogKey::generate(name).expect("random");
    let found = with_key_event(|known, sequence, previous| {
        let new = own_name(known.name());
        let text = rotation_text(&new.verifier(), sequence, previous);
        Event::KeyRotated {
            key: new.verifier(),
            note: new.sign(&text),
        }
    });
    assert!(
        found.contains("line 3: the change to another key is not signed"),
        "{found}"
    );
    let found = with_key_event(|known, _, _| Event::KeyCreated { key: known.clone() });
    assert!(
        found.contains("line 3: a first key is named here"),
        "{found}"
    );
    let found = with_key_event(|_, _, _| Event::KeyReplaced {
        key: forger.verifier(),
        reason: "trust me".to_owned(),
    });
    assert!(
        found.contains("line 3: the key that this entry names"),
        "{found}"
    );
    let found = with_key_event(|known, _, _| Event::KeyReplaced {
        key: own_name(known.name()).verifier(),
        reason: "trust me".to_owned(),
    });
    assert!(
        found.contains("REPLACED") && found.contains("trust me"),
        "{found}"
    );
}

#[test]
fn a_long_log_is_checked_by_all_processors_and_faults_have_their_lines() {
    let dir = log_of(&[]);
    let log = dir.open();
    for number in 0..3000 {
        log.append(crate::testing::small_event(number))
            .expect("appends");
    }
    assert_eq!(verify(dir.path()).expect("is whole").entries, 3001);
    let whole = String::from_utf8(dir.file(LOG_FILE)).expect("text");
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    for line in [2, 700, 1500, 1501, 3000] {
        let changed = lines[line - 1].replace("plugin-refused", "plugin-accepts");
        let text = format!(
            "{}{changed}{}",
            lines[..line - 1].concat(),
            lines[line..].concat()
        );
        fs::write(dir.path().join(LOG_FILE), text).expect("writes");
        let error = verify(dir.path()).expect_err("is changed").to_string();
        assert!(
            error.contains(&format!("line {line}: the entry was changed")),
            "{error}"
        );
    }
}
