//! What somebody changes in `state.sqlite` past the audit log.

use super::*;

#[test]
fn an_alias_that_was_moved_past_the_log_means_nothing_until_somebody_says_so() {
    let place = Place::new();
    place.register(version("one"), Some("champion"));
    place.register(version("two"), None);
    assert!(place.disagreements().is_empty());
    let update = "UPDATE aliases SET version = 2";
    let insert = "INSERT INTO aliases VALUES ('loans', 'champion', 2, '2026-01-01T00:00:00Z')";
    let (changed, gone) = (
        "`loans@champion` means version 2 in state.sqlite and version 1 by the audit log",
        "`loans@champion` means nothing in state.sqlite and version 1 by the audit log",
    );
    for (change, why) in [
        (update, changed),
        ("DELETE FROM aliases", gone),
        (insert, changed),
    ] {
        place.past_the_log(change);
        for which in [None, Some("champion")] {
            let told = place.refusal(which);
            assert!(told.contains(why), "{told}");
            assert!(
                told.contains("sandcast models alias loans champion 1"),
                "{told}"
            );
        }
        place
            .registry()
            .at_alias("loans", "champion")
            .expect_err("a gate is not told another champion either");
        let all = place.disagreements();
        assert!(all.len() == 1 && all[0].contains(why), "{all:?}");
        // By its number nobody can mean another one.
        let by_number = place.registry().resolve("loans", Some("1"));
        assert_eq!(by_number.expect("as it was").version, 1);
    }
    // To say what it is to mean is on record, also where the state says so already.
    let moved = place.registry().set_alias("loans", "champion", 2);
    assert_eq!(moved.expect("it is there"), Some(2));
    assert_eq!(place.logged().last().expect("one"), "champion Some(1) 2");
    let found = place.registry().resolve("loans", None);
    assert_eq!(found.expect("it is on record").version, 2);
    assert!(place.disagreements().is_empty());
}

#[test]
fn a_version_that_was_changed_past_the_log_does_not_answer_until_a_run_writes_it_anew() {
    let place = Place::new();
    place.register(version("one"), Some("champion"));
    let set = |path: &str, value: &str| {
        format!("UPDATE model_versions SET document = json_set(document, '{path}', {value})")
    };
    for (change, why) in [
        (
            set("$.grants.clock", "json('true')"),
            "all that is kept with it is",
        ),
        (
            set("$.artifact", &format!("'{}'", Digest::ZERO)),
            "its model file is",
        ),
        (set("$.lineage.seed", "8"), "its lineage is"),
        (
            set("$.version", "3"),
            "what is kept there in state.sqlite is version 3",
        ),
        (
            "UPDATE model_versions SET document = ''".to_owned(),
            "cannot be read",
        ),
    ] {
        place.past_the_log(&change);
        for which in [None, Some("champion"), Some("1")] {
            let told = place.refusal(which);
            assert!(told.contains("version 1 of `loans`"), "{told}");
            assert!(told.contains(why), "{told}");
        }
        let all = place.disagreements();
        assert!(all.len() == 1 && all[0].contains(why), "{all:?}");
        let registry = place.registry();
        let alias = registry.set_alias("loans", "canary", 1);
        assert!(
            alias
                .expect_err("no alias is pointed at it")
                .is_disagreement()
        );
        let again = place.register(version("one"), Some("champion"));
        assert_eq!((again.new, again.version.version), (false, 1));
        assert_eq!(
            place.registry().resolve("loans", None).expect("anew"),
            again.version
        );
        assert!(place.disagreements().is_empty());
    }
}

#[test]
fn versions_that_only_the_state_or_only_the_log_has_are_told() {
    let place = Place::new();
    place.register(version("one"), None);
    place.register(version("two"), None);
    place.past_the_log(
        "INSERT INTO model_versions
         SELECT model, 3, 'other', created, json_set(document, '$.version', 3)
         FROM model_versions WHERE version = 1",
    );
    let told = place.refusal(Some("3"));
    assert!(told.contains("the audit log has no such version"), "{told}");
    place.past_the_log("DELETE FROM model_versions WHERE version = 3");
    place.past_the_log("DELETE FROM model_versions WHERE version = 2");
    let told = place.refusal(Some("2"));
    let gone = "version 2 of `loans` is registered by the audit log, and the latest in state.sqlite is version 1";
    assert!(told.contains(gone), "{told}");
    assert_eq!(place.disagreements().len(), 1);
    place.past_the_log("DELETE FROM model_versions WHERE version = 1");
    assert!(place.refusal(None).contains("is nothing"));
    // A number that was given is not given again.
    assert_eq!(place.register(version("three"), None).version.version, 3);
}

#[test]
fn an_effect_that_the_log_has_yet_to_be_told_is_believed_if_it_is_sealed() {
    let place = Place::new();
    place.register(version("one"), Some("champion"));
    place.register(version("two"), Some("champion"));
    let registry = place.registry();
    let sealed: (String, String, String) = {
        // The process dies after the transaction.
        place
            .state
            .write("test", |transaction| {
                let moved = Moved {
                    logged: Some(2),
                    ..Moved::default()
                };
                registry.move_alias(transaction, "loans", "champion", 1, moved)
            })
            .expect("moved");
        let row = |connection: &Connection| {
            connection.query_row("SELECT posted, event, seal FROM outbox", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
        };
        place.state.read("test", row).expect("it waits")
    };
    let champion = || registry.resolve("loans", None).map(|found| found.version);
    assert_eq!(champion().expect("it waits for the log"), 1);
    assert!(place.disagreements().is_empty());
    place.state.empty_outbox(&place.audit).expect("told");
    assert_eq!(champion().expect("it is in the log"), 1);
    registry.set_alias("loans", "champion", 2).expect("moved");
    let logged = place.logged();

    // Somebody puts it back in, with its seal: what the log has is not told twice.
    let put = |(posted, event, seal): &(String, String, String)| {
        place
            .state
            .write("test", |transaction| {
                let insert = "INSERT INTO outbox (id, posted, event, seal) VALUES (77, ?1, ?2, ?3)";
                transaction.execute(insert, [posted, event, seal])
            })
            .expect("written");
    };
    put(&sealed);
    place.past_the_log("UPDATE aliases SET version = 1");
    assert!(place.refusal(None).contains("version 2 by the audit log"));
    place.state.empty_outbox(&place.audit).expect("emptied");
    assert_eq!(place.logged(), logged);

    // With another time, or by another hand, it has no seal, and nothing is believed.
    let (posted, event, seal) = sealed;
    let now = clock::now();
    for (forged, seal) in [((now, &event), &seal), ((posted, &event), &String::new())] {
        put(&(forged.0, forged.1.clone(), seal.clone()));
        let error = registry
            .resolve("loans", None)
            .map(|_| ())
            .expect_err("forged");
        assert!(
            error.to_string().contains("the row 77 of outbox"),
            "{error}"
        );
        place.state.empty_outbox(&place.audit).expect_err("forged");
        hold_models(place.folder.path()).expect_err("forged");
        place.past_the_log("DELETE FROM outbox WHERE id = 77");
    }
    assert_eq!(place.logged(), logged);
}

#[test]
fn a_version_of_before_all_of_it_was_on_record_is_held_to_what_is() {
    let place = Place::new();
    let mut one = version("one");
    one.version = 1;
    let (document, lineage) = (to_json(&one).expect("JSON"), one.lineage.digest());
    place
        .state
        .write("test", |transaction| {
            let insert = "INSERT INTO model_versions VALUES ('loans', 1, ?1, ?2, ?3)";
            let values = [&lineage.to_string(), &one.created, &document];
            transaction.execute(insert, values)
        })
        .expect("written");
    let mut event = registered(&one, &lineage, Digest::ZERO);
    if let Event::Registered { document, .. } = &mut event {
        *document = None;
    }
    place.audit.append(event).expect("the log takes it");
    assert_eq!(
        place
            .registry()
            .resolve("loans", Some("1"))
            .expect("as it was"),
        one
    );
    assert!(place.disagreements().is_empty());
    place.past_the_log(&format!(
        "UPDATE model_versions SET document = json_set(document, '$.component', '{}')",
        Digest::ZERO
    ));
    let told = place.refusal(Some("1"));
    assert!(told.contains("its adapter is"), "{told}");
    // A run that comes to it writes it anew; one of an earlier version too, where it is as it was.
    place.register(version("one"), None);
    assert_eq!(place.logged(), ["registered 1", "registered 1"]);
    let kept = place
        .registry()
        .resolve("loans", Some("1"))
        .expect("as it is");
    let mut before = registered(&kept, &lineage, Digest::ZERO);
    if let Event::Registered { document, .. } = &mut before {
        *document = None;
    }
    place.audit.append(before).expect("the log takes it");
    place.register(version("one"), None);
    let last = place.audit.entries().expect("a log").pop().expect("one");
    assert!(matches!(
        last.event,
        Event::VersionRenewed { version: 1, .. }
    ));
    place.past_the_log(
        "UPDATE model_versions SET document = json_set(document, '$.grants.clock', json('true'))",
    );
    assert!(
        place
            .refusal(Some("1"))
            .contains("all that is kept with it is")
    );
}

#[test]
fn what_is_archived_of_the_log_still_says_what_aliases_mean() {
    let place = Place::new();
    place.register(version("one"), Some("champion"));
    place.register(version("two"), None);
    for predictions in 0..300 {
        let stopped = Event::ServeStopped { predictions };
        place.audit.append(stopped).expect("the log takes it");
    }
    let registry = place.registry();
    registry.resolve("loans", None).expect("before");
    let archive = tempfile::tempdir().expect("a folder");
    let tomorrow = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24);
    sandcast_audit::archive(&place.audit, &archive.path().join("old"), tomorrow).expect("archived");
    assert!(
        sandcast_audit::archived_entries(&place.folder.path().join("audit")).expect("a log") > 3
    );
    for registry in [registry, place.registry()] {
        let found = registry.resolve("loans", None).expect("as it was");
        assert_eq!(found.version, 1);
    }
    assert!(place.disagreements().is_empty());
    place.past_the_log("UPDATE aliases SET version = 2");
    assert!(place.refusal(None).contains("version 1 by the audit log"));
}

#[test]
fn a_log_that_was_begun_anew_knows_no_version() {
    let place = Place::new();
    place.register(version("one"), Some("champion"));
    std::fs::remove_dir_all(place.folder.path().join("audit")).expect("it is there");
    let signed = place.folder.path().join("audit.signed");
    std::fs::remove_file(signed).expect("it is there");
    let audit = AuditLog::open(&place.folder.path().join("audit")).expect("a new log");
    let registry = Registry::new(place.state.clone(), audit);
    let error = registry
        .resolve("loans", None)
        .expect_err("nothing is on record");
    assert!(error.is_disagreement(), "{error}");
    assert_eq!(place.disagreements().len(), 2);
}

#[test]
fn a_long_log_is_read_on_from_where_the_last_process_ended() {
    let place = Place::new();
    place.register(version("one"), Some("champion"));
    let look_up = || place.registry().resolve("loans", None).map(|it| it.version);
    assert_eq!(look_up().expect("on record"), 1);
    let kept = || keeping::kept(&place.state).expect("the state reads");
    assert_eq!(kept(), None, "a short log is read again");

    let noise = Event::ServeStopped { predictions: 1 };
    let much = place.audit.append_all(vec![noise; 2_000]);
    much.expect("written");
    assert_eq!(look_up().expect("on record"), 1);
    let mut anew = OnRecord::default();
    anew.catch_up(&place.audit).expect("the log reads");
    assert_eq!(kept().as_ref(), Some(&anew));
    // What the log has gained since is taken in.
    place.register(version("two"), None);
    place
        .registry()
        .set_alias("loans", "champion", 2)
        .expect("it is there");
    assert_eq!(kept().as_ref(), Some(&anew), "it is little");
    assert_eq!(look_up().expect("on record"), 2);

    // Another hand makes it say that the alias means version 1 still.
    place.past_the_log("UPDATE aliases SET version = 1");
    place.past_the_log("UPDATE on_record SET document = replace(document, '200', '204')");
    assert_eq!(kept(), None, "it is not what was sealed");
    let told = place.refusal(None);
    assert!(told.contains("and version 2 by the audit log"), "{told}");
    place.past_the_log("UPDATE on_record SET document = '{}', seal = ''");
    assert_eq!(kept(), None);
    place.refusal(None);
}
