use proptest::prelude::*;

use super::*;
use crate::testing::{Folder, event, folder, key, small_event};
use crate::{AuditLog, Digest, PluginRef, RunId, VerifierKey, verify};

fn log_of(entries: u64) -> (Folder, AuditLog) {
    let dir = folder();
    let log = dir.open();
    for number in 2..=entries {
        log.append(small_event(number)).expect("appends");
    }
    (dir, log)
}

fn trust(key: VerifierKey) -> Trust {
    Trust {
        keys: vec![key],
        checkpoints: Vec::new(),
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn an_export_is_checked_without_the_state() {
    let (dir, log) = log_of(300);
    let to = dir.state().join("export");
    let report = export(&log, &to, Period::default()).expect("exports");
    assert_eq!((report.present, report.tiles), ((1, 300), 5));
    let names: Vec<String> = files(&to)
        .iter()
        .filter_map(|path| Some(path.strip_prefix(&to).ok()?.display().to_string()))
        .collect();
    assert_eq!(
        names,
        [
            "README",
            "checkpoint",
            "checkpoints",
            "entry.schema.json",
            "export.json",
            "log.jsonl",
            "tile/0/000",
            "tile/0/001.p/44",
            "tile/1/000.p/1",
            "tile/entries/000",
            "tile/entries/001.p/44",
        ]
    );
    assert_eq!(
        fs::read(to.join("log.jsonl")).expect("reads"),
        dir.file("log.jsonl")
    );

    let key = key(&log);
    drop(log);
    let elsewhere = tempfile::tempdir().expect("a folder");
    let moved = elsewhere.path().join("given");
    fs::rename(&to, &moved).expect("moves");
    let found = verify_with(&moved, &trust(key)).expect("is whole");
    assert_eq!(
        (found.entries, found.signed, found.present),
        (300, 300, (1, 300))
    );
    assert!(found.is_trusted);
}

#[test]
fn an_export_is_not_written_over_and_a_failed_one_leaves_nothing() {
    let (dir, log) = log_of(3);
    let to = dir.state().join("export");
    export(&log, &to, Period::default()).expect("exports");
    assert!(matches!(
        export(&log, &to, Period::default()),
        Err(ExportError::Exists { .. })
    ));
    let file = dir.state().join("file");
    fs::write(&file, "mine").expect("writes");
    assert!(matches!(
        export(&log, &file, Period::default()),
        Err(ExportError::Exists { .. })
    ));
    assert_eq!(fs::read(&file).expect("reads"), b"mine");

    // What somebody else has put where an export is made is no part of it, and stays.
    let foreign = dir
        .state()
        .join(format!("mine.partial-{}", std::process::id()));
    fs::create_dir(&foreign).expect("a folder");
    fs::write(foreign.join("notes"), "mine").expect("writes");
    assert!(matches!(
        export(&log, &dir.state().join("mine"), Period::default()),
        Err(ExportError::File { .. })
    ));
    assert_eq!(fs::read(foreign.join("notes")).expect("reads"), b"mine");

    let late = Period {
        since: Some(Timestamp::MAX),
        until: None,
    };
    let other = dir.state().join("other");
    assert!(matches!(
        export(&log, &other, late),
        Err(ExportError::Empty)
    ));
    dir.change("log.jsonl", |text| {
        text.replacen("\"name\":\"2\"", "\"name\":\"9\"", 1)
    });
    assert!(matches!(
        export(&log, &other, Period::default()),
        Err(ExportError::NotWhole(_))
    ));
    let left: Vec<PathBuf> = fs::read_dir(dir.state())
        .expect("reads")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.to_string_lossy().contains("other"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_export_of_a_period_is_held_to_the_tree_of_all() {
    let (dir, log) = log_of(300);
    let first = key(&log);
    let second = log.rotate_key().expect("rotates");
    for number in 0..300 {
        log.append(small_event(number)).expect("appends");
    }
    let entries = log.entries().expect("reads");
    let time = |sequence: usize| entries[sequence - 1].time.parse().ok();
    let to = dir.state().join("export");
    let period = Period {
        since: time(310),
        until: time(320),
    };
    let report = export(&log, &to, period).expect("exports");
    assert_eq!(report.present, (310, 319));
    let lines = fs::read_to_string(to.join("log.jsonl")).expect("reads");
    assert_eq!(lines.lines().count(), 10);
    assert!(!to.join("tile/entries").exists());
    let keys = fs::read_to_string(to.join(KEYS_FILE)).expect("reads");
    assert_eq!(keys.lines().count(), 2);
    for key in [&first, &second] {
        let report = verify_with(&to, &trust(key.clone())).expect("is whole");
        assert_eq!((report.entries, report.present), (601, (310, 319)));
        assert_eq!(report.rotations, [301]);
    }
    // What is there is what was written: an entry left out or put in is found.
    type Forgery = fn(String) -> String;
    let forgeries: [(&str, Forgery); 5] = [
        ("log.jsonl", |text| {
            text.split_inclusive('\n').skip(1).collect()
        }),
        ("log.jsonl", |text| {
            let lines: Vec<&str> = text.split_inclusive('\n').collect();
            lines[..9].concat()
        }),
        ("keys.jsonl", |text| {
            text.split_inclusive('\n').take(1).collect()
        }),
        ("keys.jsonl", |text| {
            text.split_inclusive('\n').skip(1).collect()
        }),
        ("export.json", |text| {
            text.replace("\"last\":319", "\"last\":318")
        }),
    ];
    for (name, forge) in forgeries {
        let path = to.join(name);
        let text = fs::read_to_string(&path).expect("reads");
        fs::write(&path, forge(text.clone())).expect("writes");
        assert!(verify_with(&to, &trust(first.clone())).is_err(), "{name}");
        fs::write(&path, text).expect("writes");
    }
    verify_with(&to, &trust(first)).expect("is whole again");
}

#[test]
fn every_file_of_the_tree_is_missed() {
    let (dir, log) = log_of(300);
    let to = dir.state().join("export");
    export(&log, &to, Period::default()).expect("exports");
    for path in files(&to) {
        let name = path
            .strip_prefix(&to)
            .expect("inside")
            .display()
            .to_string();
        if ["README", "entry.schema.json"].contains(&name.as_str()) {
            continue;
        }
        let bytes = fs::read(&path).expect("reads");
        fs::remove_file(&path).expect("removes");
        let error = verify_with(&to, &trust(key(&log)))
            .expect_err("is missed")
            .to_string();
        // Without the file that says what it is, it is a log without a head.
        let named = if name == MANIFEST_FILE {
            "head.json"
        } else {
            &name
        };
        assert!(error.contains(named), "{name}: {error}");
        fs::write(&path, bytes).expect("writes");
    }
    verify(&to).expect("is whole again");
}

#[test]
fn the_schema_describes_every_kind_of_event() {
    let schema = entry_schema().to_string();
    for name in [
        "run-started",
        "denied",
        "key-created",
        "key-rotated",
        "key-replaced",
    ] {
        assert!(schema.contains(&format!("\"{name}\"")), "{name}");
    }
    assert!(schema.contains("BLAKE3"));
}

#[test]
fn the_checkpoints_of_an_export_end_where_it_does() {
    let (dir, log) = log_of(3);
    let to = dir.state().join("export");
    export(&log, &to, Period::default()).expect("exports");
    log.append(event(9)).expect("appends");
    let again = dir.state().join("again");
    export(&log, &again, Period::default()).expect("exports");
    let kept = fs::read_to_string(to.join(CHECKPOINT_FILE)).expect("reads");
    let trust = Trust {
        keys: vec![key(&log)],
        checkpoints: vec![SignedCheckpoint::parse(&kept).expect("a checkpoint")],
    };
    assert_eq!(
        verify_with(&again, &trust)
            .expect("goes on from it")
            .entries,
        4
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_changed_byte_of_an_export_is_found_and_the_file_named(
        entries in 1..300u64,
        place in any::<prop::sample::Index>(),
        bit in 0..8u8,
    ) {
        let (dir, log) = log_of(entries);
        let to = dir.state().join("export");
        export(&log, &to, Period::default()).expect("exports");
        let trust = trust(key(&log));
        for path in files(&to) {
            let name = path.strip_prefix(&to).expect("inside").display().to_string();
            if ["README", "entry.schema.json"].contains(&name.as_str()) {
                continue;
            }
            let bytes = fs::read(&path).expect("reads");
            let mut changed = bytes.clone();
            changed[place.index(bytes.len())] ^= 1 << bit;
            fs::write(&path, changed).expect("writes");
            let error = verify_with(&to, &trust).expect_err("is found").to_string();
            // A number of entries that is another one is that of a tree with other tiles, and a first
            // entry that is another one leaves out those that name keys.
            let follows = error.contains("/tile/") || error.contains("names the key of the log");
            let is_named = error.contains(&name) || name == "export.json" && follows;
            prop_assert!(is_named, "{}: {}", name, error);
            fs::write(&path, bytes).expect("writes");
        }
        verify_with(&to, &trust).expect("is whole again");
    }
}

#[test]
fn what_the_exported_entries_rest_upon_goes_along_and_is_held_to_the_tree() {
    let (dir, log) = log_of(5);
    let plugin = PluginRef {
        id: "acme/rules".to_owned(),
        version: "1.0.0".to_owned(),
        role: "validator".to_owned(),
        digest: Digest::of(b"rules"),
    };
    let loaded = |name: &str| Event::PluginLoaded {
        run: Some(RunId::generate()),
        plugin: plugin.clone(),
        name: name.to_owned(),
        grants: serde_json::json!({ "clock": true }),
        ceiling: None,
        ceiling_signers: Vec::new(),
        signers: Vec::new(),
        identities: Vec::new(),
        trust: None,
        trust_signers: Vec::new(),
        imports: Vec::new(),
    };
    let lineage = log.keep(b"a lineage").expect("kept");
    let events = [
        loaded("rules"),
        loaded("other"),
        loaded("rules"),
        Event::Registered {
            run: RunId::generate(),
            model: "m".to_owned(),
            version: 1,
            model_digest: Digest::ZERO,
            lineage,
            document: None,
        },
    ];
    for event in events {
        log.append(event).expect("appends");
    }
    std::thread::sleep(std::time::Duration::from_millis(2));
    let since = Some(Timestamp::now());
    for number in 0..3 {
        log.append(small_event(number)).expect("appends");
    }
    let to = dir.state().join("late");
    let period = Period { since, until: None };
    let report = export(&log, &to, period).expect("exports");
    assert_eq!(
        (report.present, report.earlier, report.texts),
        ((10, 12), 3, 1)
    );
    let numbers: Vec<u64> = crate::read(&to)
        .expect("an export")
        .map(|entry| entry.expect("an entry").sequence)
        .collect();
    assert_eq!(
        numbers,
        [7, 8, 9, 10, 11, 12],
        "of two loads alike the last"
    );
    assert_eq!(crate::first_entry(&to).expect("it says"), 10);
    let verified = verify_with(&to, &trust(key(&log))).expect("whole");
    assert_eq!((verified.texts, verified.texts_missing), (1, 0));

    let path = to.join(EARLIER_FILE);
    let lines = fs::read_to_string(&path).expect("lines");
    let swapped: String = lines.split_inclusive('\n').rev().collect();
    let forged = lines.replacen("\"clock\":true", "\"clock\":null", 1);
    let late = fs::read_to_string(to.join(LOG_FILE)).expect("lines");
    for changed in [
        swapped,
        forged,
        format!("{lines}{late}"),
        format!("{lines}{{}}\n"),
    ] {
        fs::write(&path, changed).expect("writes");
        let error = verify_with(&to, &trust(key(&log))).expect_err("it was changed");
        assert!(error.to_string().contains(EARLIER_FILE), "{error}");
    }
    fs::write(&path, lines).expect("writes");
    let text = texts::path_of(&to, &lineage);
    fs::write(&text, "another lineage").expect("writes");
    let error = verify_with(&to, &trust(key(&log))).expect_err("it was changed");
    assert!(error.to_string().contains("is not the text"), "{error}");
    fs::remove_file(text).expect("removed");
    let verified = verify_with(&to, &trust(key(&log))).expect("missing is no fault");
    assert_eq!((verified.texts, verified.texts_missing), (0, 1));
    // One that was changed beside the log is not handed over.
    fs::write(texts::path_of(dir.path(), &lineage), "another").expect("writes");
    let refused = export(&log, &dir.state().join("again"), Period::default());
    assert!(
        matches!(refused, Err(ExportError::NotWhole(_))),
        "{refused:?}"
    );
}
