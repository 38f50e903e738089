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
        &id("mallory"),
        &settings(),
        1,
        "local:m",
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
            .rotate_token(&place.audit, &old, days, hours, now, "ann")
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
        .rotate_token(&place.audit, &new.record.id, 1, 1, later, "ann");
    assert!(matches!(expired, Err(AccessError::NoToken(_))));
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
