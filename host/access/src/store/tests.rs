use jiff::ToSpan as _;
use sandcast_audit::Event;

use super::*;
use crate::testing::{Place, at, id, settings};

fn changes(place: &Place) -> Vec<(String, String)> {
    place
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::AccessChanged {
                change, subject, ..
            } => Some((change, subject)),
            _ => None,
        })
        .collect()
}

#[test]
fn what_is_set_up_is_on_record_and_private() {
    let place = Place::new();
    let told: Vec<String> = changes(&place).into_iter().map(|(what, _)| what).collect();
    assert_eq!(told, ["initialised", "principal-added", "token-issued"]);
    let again = Store::initialise(
        place.path(),
        &place.audit,
        (&id("mallory"), 1),
        &settings(),
        "local:m",
        |_| Ok(()),
    );
    assert!(matches!(again, Err(AccessError::Initialised(_))));
    #[cfg(unix)]
    for file in [DATABASE, KEY] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(place.path().join(file)).expect("it is there");
        assert_eq!(mode.permissions().mode() & 0o777, 0o600, "{file}");
    }
    let opened = Store::open(place.path(), &place.audit).expect("it opens");
    let opened = opened.expect("it is set up");
    assert_eq!(opened.principals().expect("a list").len(), 1);
    assert_eq!(
        opened.settings().expect("settings").engine,
        settings().engine
    );
}

#[test]
fn nothing_of_a_token_lies_on_the_disk_or_in_the_log() {
    let place = Place::new();
    let whole = place.ann.token.reveal();
    let secret = whole.split('_').nth(2).expect("a secret").to_owned();
    for path in [DATABASE, KEY, "audit/log.jsonl"] {
        let bytes = fs::read(place.path().join(path)).expect("a file");
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(!text.contains(&secret), "{path}");
    }
}

#[test]
fn names_are_taken_once_and_roles_are_needed() {
    let place = Place::new();
    let add = |name: &str, roles: BTreeSet<Role>| {
        place
            .store
            .add_principal(&place.audit, &id(name), roles, Timestamp::now(), "ann")
    };
    assert!(matches!(
        add("ann", [Role::Vendor].into()),
        Err(AccessError::Taken(_))
    ));
    assert!(matches!(add("bob", [].into()), Err(AccessError::NoRole)));
    add("bob", [Role::Auditor].into()).expect("added");
    assert_eq!(place.store.principals().expect("a list").len(), 2);
}

#[test]
fn the_last_operator_stays() {
    let place = Place::new();
    let disable = |name: &str| {
        let now = Timestamp::now();
        place
            .store
            .set_disabled(&place.audit, &id(name), true, now, "ann")
    };
    assert!(matches!(disable("ann"), Err(AccessError::LastOperator(_))));
    place.add("bob", Role::Operator);
    disable("ann").expect("bob is there");
    assert!(matches!(disable("bob"), Err(AccessError::LastOperator(_))));
    let issued = place
        .store
        .issue_token(&place.audit, &id("ann"), 1, Timestamp::now(), "bob");
    assert!(matches!(issued, Err(AccessError::Disabled(_))));
}

#[test]
fn a_replaced_token_is_good_for_a_while_and_times_are_bounded() {
    let place = Place::new();
    let now = Timestamp::now();
    let old = place.ann.record.id.clone();
    let rotate = |days, hours| {
        place
            .store
            .rotate_token(&place.audit, &old, Some(days), hours, now, "ann")
    };
    assert!(matches!(rotate(0, 1), Err(AccessError::OutOfBounds { .. })));
    assert!(matches!(
        rotate(367, 1),
        Err(AccessError::OutOfBounds { .. })
    ));
    assert!(matches!(
        rotate(90, 169),
        Err(AccessError::OutOfBounds { .. })
    ));
    let new = rotate(90, 2).expect("replaced");
    let all = place.store.tokens().expect("a list");
    let kept = all.iter().find(|it| it.id == old).expect("the old one");
    assert_eq!(kept.expires, now + 2.hours());
    assert_eq!(kept.replaced_by.as_ref(), Some(&new.record.id));
    assert_eq!(new.record.principal, id("ann"));
    let revoked = place
        .store
        .revoke_token(&place.audit, &old, now, "ann")
        .expect("it is still good");
    assert_eq!(revoked.revoked, Some(now));
    let again = place.store.revoke_token(&place.audit, &old, now, "ann");
    assert!(matches!(again, Err(AccessError::NoToken(_))));
    let later = at("2199-01-01T00:00:00Z");
    let expired = place
        .store
        .rotate_token(&place.audit, &new.record.id, Some(1), 1, later, "ann");
    assert!(matches!(expired, Err(AccessError::NoToken(_))));
}

#[test]
fn nobody_makes_a_token_last_longer_but_an_operator() {
    let place = Place::new();
    let now = Timestamp::now();
    place.add("eve", Role::Auditor);
    let issued = place
        .store
        .issue_token(&place.audit, &id("eve"), 30, now, "ann");
    let mut token = issued.expect("issued").record.id;
    let later = now + 20.hours();
    let rotate = |token: &TokenId, days, by| {
        place
            .store
            .rotate_token(&place.audit, token, days, 1, later, by)
    };
    let longer = rotate(&token, Some(31), "eve");
    assert!(matches!(
        longer,
        Err(AccessError::LongerThanBefore { most: 30 })
    ));
    for (days, by, wanted) in [
        (None, "eve", 30),
        (Some(7), "eve", 7),
        (None, "eve", 7),
        (Some(366), "ann", 366),
    ] {
        let new = rotate(&token, days, by).expect("replaced").record;
        assert_eq!(new.days(), wanted);
        token = new.id;
    }
}

#[test]
fn nothing_is_set_up_where_nobody_gets_the_first_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let audit = AuditLog::open(&folder.path().join("audit")).expect("a log");
    let set_up = |hand_over: fn(&IssuedToken) -> io::Result<()>| {
        let first = (&id("ann"), 90);
        Store::initialise(
            folder.path(),
            &audit,
            first,
            &settings(),
            "local:a",
            hand_over,
        )
    };
    let lost = set_up(|_| Err(io::Error::other("the disk is full")));
    assert!(matches!(lost, Err(AccessError::HandOver(_))));
    assert!(Store::look(folder.path()).expect("readable").is_none());
    let (store, issued) = set_up(|_| Ok(())).expect("set up");
    let tokens = store.tokens().expect("a list");
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0].id, issued.record.id);
    // The mark of it comes back, should a process have died before it was made.
    let marker = folder.path().join(ACCESS_FOLDER).join(MARKER);
    fs::remove_file(&marker).expect("removed");
    Store::open(folder.path(), &audit).expect("it opens");
    assert!(marker.is_file());
}

#[test]
fn a_row_that_was_changed_by_hand_is_found_out() {
    for (sql, table) in [
        (
            "UPDATE principals SET document = replace(document, 'auditor', 'operator')",
            "principals",
        ),
        (
            "UPDATE tokens SET document = replace(document, '\"expires\":\"2', '\"expires\":\"3')",
            "tokens",
        ),
        (
            "UPDATE settings SET document = replace(document, '\"promote\",', '')",
            "settings",
        ),
        // A whole row under another name.
        (
            "INSERT INTO principals SELECT 'mallory', document, seal FROM principals LIMIT 1",
            "principals",
        ),
    ] {
        let place = Place::new();
        place.add("eve", Role::Auditor);
        place.by_hand(sql);
        let error = match table {
            "principals" => place.store.principals().map(drop),
            "tokens" => place.store.tokens().map(drop),
            _ => place.store.settings().map(drop),
        };
        let error = error.expect_err(sql);
        assert!(
            matches!(&error, AccessError::Tampered { table: found, .. } if *found == table),
            "{error}"
        );
    }
}

#[test]
fn a_state_that_was_set_up_does_not_go_back_by_losing_a_file() {
    let place = Place::new();
    place.by_hand("DELETE FROM settings");
    assert!(matches!(
        Store::look(place.path()),
        Err(AccessError::Gone { .. })
    ));
    let place = Place::new();
    fs::remove_file(place.path().join(DATABASE)).expect("removed");
    assert!(Store::is_there(place.path()));
    assert!(matches!(
        Store::look(place.path()),
        Err(AccessError::Gone { .. })
    ));
    let place = Place::new();
    fs::remove_file(place.path().join(KEY)).expect("removed");
    assert!(matches!(
        Store::look(place.path()),
        Err(AccessError::File { .. })
    ));
    let empty = tempfile::tempdir().expect("a folder");
    assert!(!Store::is_there(empty.path()));
    assert!(Store::look(empty.path()).expect("nothing there").is_none());
}

#[test]
fn what_a_crash_left_in_the_outbox_is_told_once() {
    let place = Place::new();
    let before = changes(&place).len();
    let now = Timestamp::now();
    // As if the process died between the change and its entry.
    place
        .store
        .transact("test", |change| {
            change.add(&id("bob"), [Role::Vendor].into(), now, "ann")
        })
        .expect("changed");
    assert_eq!(changes(&place).len(), before);
    for _ in 0..2 {
        Store::open(place.path(), &place.audit).expect("it opens");
        assert_eq!(changes(&place).len(), before + 1);
    }
    // As if it died between the entry and taking the event out.
    place
        .store
        .transact("test", |change| {
            change.add(&id("carl"), [Role::Vendor].into(), now, "ann")
        })
        .expect("changed");
    place
        .audit
        .append(Event::AccessChanged {
            by: "ann".to_owned(),
            change: "principal-added".to_owned(),
            subject: "principal:carl".to_owned(),
            detail: "as vendor".to_owned(),
        })
        .expect("appended");
    Store::open(place.path(), &place.audit).expect("it opens");
    assert_eq!(changes(&place).len(), before + 2);
}

/// Opens the store and says what it found wrong with which row of which table.
fn found_wrong(place: &Place) -> Option<(&'static str, String)> {
    match Store::open(place.path(), &place.audit) {
        Ok(_) => None,
        Err(AccessError::Tampered { table, id }) => Some((table, id)),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn an_event_that_this_host_did_not_post_is_not_signed_and_nothing_else_is() {
    let place = Place::new();
    let now = Timestamp::now();
    place
        .store
        .transact("test", |change| {
            change.add(&id("bob"), [Role::Vendor].into(), now, "ann")
        })
        .expect("changed");
    let before = place.events();
    let forged = serde_json::to_string(&Event::ApprovalDecided {
        approval: "0a1b2c3d4e5f".to_owned(),
        kind: "promote".to_owned(),
        subject_digest: Digest::of(b"subject"),
        requester: "ann".to_owned(),
        approved: true,
        by: "bob".to_owned(),
        reason: String::new(),
    })
    .expect("JSON");
    // By somebody who can write the database, with the seal of another row or none.
    for seal in ["''", "(SELECT seal FROM outbox LIMIT 1)", "'nonsense'"] {
        place.by_hand(&format!(
            "INSERT INTO outbox (id, posted, event, seal) VALUES (77, '{now}', '{forged}', {seal})"
        ));
        let wrong = found_wrong(&place);
        assert_eq!(wrong, Some(("outbox", "77".to_owned())), "{seal}");
        assert_eq!(place.events(), before, "nothing is appended");
        place.by_hand("DELETE FROM outbox WHERE id = 77");
    }
    assert_eq!(found_wrong(&place), None);
    assert_eq!(place.events().len(), before.len() + 1, "bob");
    // Nor one with a good seal that is none of this store's, such as a change of the log's key.
    place
        .store
        .transact("test", |change| {
            change.post_event(&Event::ServeStopped { predictions: 1 })
        })
        .expect("posted");
    assert!(found_wrong(&place).is_some_and(|(table, _)| table == "outbox"));
    // An event with another time than it was posted at.
    place.by_hand("DELETE FROM outbox");
    place
        .store
        .transact("test", |change| {
            change.add(&id("carl"), [Role::Vendor].into(), now, "ann")
        })
        .expect("changed");
    place.by_hand("UPDATE outbox SET posted = '2020-01-01T00:00:00Z'");
    assert!(found_wrong(&place).is_some());
}

#[test]
fn a_database_of_the_first_version_goes_on_once_its_events_are_in_the_log() {
    let place = Place::new();
    place.by_hand("ALTER TABLE outbox DROP COLUMN seal; PRAGMA user_version = 1");
    assert_eq!(found_wrong(&place), None);
    place.add("bob", Role::Vendor);
    let told = changes(&place).len();
    let post = "INSERT INTO outbox (posted, event) VALUES ('2026-01-01T00:00:00Z', '{}')";
    // Nor does a process of that version that still runs leave one without a seal.
    let connection = Connection::open(place.path().join(DATABASE)).expect("it opens");
    connection.execute_batch(post).expect_err("it has no seal");
    assert_eq!(found_wrong(&place), None);

    place.by_hand(&format!(
        "ALTER TABLE outbox DROP COLUMN seal; PRAGMA user_version = 1; {post}"
    ));
    for _ in 0..2 {
        let error = Store::open(place.path(), &place.audit)
            .err()
            .expect("it waits");
        assert!(matches!(error, AccessError::Waiting(1)), "{error}");
        assert!(error.to_string().contains("of that version"), "{error}");
    }
    assert_eq!(changes(&place).len(), told);
    // As that version does it.
    place.by_hand("DELETE FROM outbox");
    assert_eq!(found_wrong(&place), None);
}

#[test]
fn setting_up_that_was_cut_off_sets_nothing_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let audit = AuditLog::open(&folder.path().join("audit")).expect("a log");
    let cut_off = || {
        Store::initialise(
            folder.path(),
            &audit,
            (&id("ann"), 90),
            &settings(),
            "local:ann",
            |_| Err(io::Error::other("nobody is there")),
        )
    };
    assert!(matches!(cut_off(), Err(AccessError::HandOver(_))));
    assert!(Store::is_there(folder.path()), "what was begun is there");
    assert!(!Store::is_set_up(folder.path()));
    let opened = Store::open(folder.path(), &audit).expect("it opens");
    assert!(opened.is_none());

    let place = Place::new();
    assert!(Store::is_set_up(place.path()));
    // A crash between the commit and the marker.
    fs::remove_file(place.path().join(ACCESS_FOLDER).join(MARKER)).expect("removed");
    assert!(!Store::is_set_up(place.path()));
    Store::open(place.path(), &place.audit).expect("it opens");
    assert!(Store::is_set_up(place.path()));
}

#[test]
fn a_budget_is_kept_with_its_principal_and_is_on_record() {
    let place = Place::new();
    let budget = Budget {
        requests_per_minute: std::num::NonZeroU32::new(60),
        ..Budget::default()
    };
    let unknown = place
        .store
        .set_budget(&place.audit, &id("eve"), budget, "ann");
    assert!(matches!(unknown, Err(AccessError::NoPrincipal(_))));
    for _ in 0..2 {
        let set = place
            .store
            .set_budget(&place.audit, &id("ann"), budget, "ann");
        assert_eq!(set.expect("set").budget, budget);
    }
    assert_eq!(
        place.store.principal(&id("ann")).expect("she is").budget,
        budget
    );
    let told = changes(&place);
    let times = told.iter().filter(|(what, _)| what == "principal-budget");
    assert_eq!(times.count(), 1, "nothing is told twice");
}

#[test]
fn another_key_takes_over_and_the_old_one_is_worth_nothing() {
    let place = Place::new();
    let key = || fs::read(place.path().join(KEY)).expect("a key");
    let before = key();
    // A server that has the store open while the key changes.
    let server = Store::open(place.path(), &place.audit).expect("it opens");
    let server = server.expect("it is set up");
    place
        .store
        .rotate_key(&place.audit, "ann")
        .expect("rotated");
    assert_ne!(key(), before);
    assert!(!place.path().join("access.key.next").exists());
    let told = changes(&place).pop();
    assert_eq!(
        told,
        Some(("key-rotated".to_owned(), "state:here".to_owned()))
    );
    let token = &place.ann.record.id;
    assert!(server.kept(token).expect("it reads on").is_some());
    server
        .add_principal(
            &place.audit,
            &id("bob"),
            [Role::Auditor].into(),
            at("2026-11-22T00:00:00Z"),
            "ann",
        )
        .expect("it writes on");
    assert_eq!(place.store.principals().expect("a list").len(), 2);
    place.store.rotate_key(&place.audit, "ann").expect("again");
    let opened = Store::open(place.path(), &place.audit).expect("it opens");
    assert!(
        opened
            .expect("it is set up")
            .kept(token)
            .expect("it reads")
            .is_some()
    );
    // With the old key nothing can be sealed that counts.
    fs::write(place.path().join(KEY), &before).expect("written");
    let refused = Store::open(place.path(), &place.audit).map(|_| ());
    assert!(
        matches!(refused, Err(AccessError::Tampered { .. })),
        "{refused:?}"
    );
}

#[test]
fn whoever_is_cut_off_while_the_key_changes_leaves_one_that_holds() {
    let place = Place::new();
    let next = place.path().join("access.key.next");
    let path = place.path().join(KEY);
    let old = fs::read(&path).expect("a key");
    place
        .store
        .rotate_key(&place.audit, "ann")
        .expect("rotated");
    let new = fs::read(&path).expect("a key");
    // As after the transaction, before the file was moved.
    fs::write(&next, &new).expect("written");
    fs::write(&path, &old).expect("written");
    let opened = Store::open(place.path(), &place.audit).expect("it opens");
    let opened = opened.expect("it is set up");
    assert_eq!(opened.principals().expect("a list").len(), 1);
    opened
        .add_principal(
            &place.audit,
            &id("bob"),
            [Role::Auditor].into(),
            at("2026-11-22T00:00:00Z"),
            "ann",
        )
        .expect("it writes, and the key is moved");
    assert_eq!(fs::read(&path).expect("a key"), new);
    assert!(!next.exists());
    // As before the transaction: the new key seals nothing.
    fs::write(&next, &old).expect("written");
    let opened = Store::open(place.path(), &place.audit).expect("it opens");
    assert_eq!(
        opened
            .expect("it is set up")
            .principals()
            .expect("a list")
            .len(),
        2
    );
    place
        .store
        .rotate_key(&place.audit, "ann")
        .expect("rotated");
    assert!(!next.exists());
    // A row that somebody changed is not sealed for them.
    let database = Connection::open(place.path().join(DATABASE)).expect("it opens");
    let change = "UPDATE principals SET document = replace(document, 'auditor', 'operator') WHERE id = 'bob'";
    assert_eq!(database.execute(change, []).expect("changed"), 1);
    let refused = place.store.rotate_key(&place.audit, "ann");
    assert!(
        matches!(refused, Err(AccessError::Tampered { .. })),
        "{refused:?}"
    );
    let kept = fs::read(&path).expect("a key");
    place.store.settings().expect("the old key stays in force");
    assert_eq!(fs::read(&path).expect("a key"), kept);
}
