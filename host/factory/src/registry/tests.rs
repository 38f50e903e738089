use sandcast_audit::AuditLog;
use sandcast_sandbox::{Field, Kind, TaskKind};
use tempfile::TempDir;

use super::*;
use crate::metrics::{Binary, EvaluateOptions, Outcomes, evaluate};

struct Place {
    folder: TempDir,
    state: State,
    audit: AuditLog,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        let state = State::open(folder.path()).expect("a new state");
        let audit = AuditLog::open(&folder.path().join("audit")).expect("a new log");
        Place {
            folder,
            state,
            audit,
        }
    }

    /// Changes the state as whoever can write the file could.
    fn past_the_log(&self, change: &str) {
        let changed = self
            .state
            .write("test", |transaction| transaction.execute(change, []));
        assert_eq!(changed.expect("written"), 1, "{change}");
    }

    /// What does not agree with the log.
    fn disagreements(&self) -> Vec<String> {
        let held = hold_models(self.folder.path()).expect("both are readable");
        let held = held.expect("there is a state");
        held.disagreements.iter().map(ToString::to_string).collect()
    }

    /// Why a model does not answer.
    fn refusal(&self, which: Option<&str>) -> String {
        let resolved = self.registry().resolve("loans", which);
        let error = resolved.map(|found| found.version).expect_err("refused");
        assert!(error.is_disagreement(), "{error}");
        error.to_string()
    }

    fn registry(&self) -> Registry {
        Registry::new(self.state.clone(), self.audit.clone())
    }

    fn register(&self, version: ModelVersion, alias: Option<&str>) -> Registration {
        let registry = self.registry();
        let run = version.run.clone();
        let registration = registry.insert(&run, version, alias).expect("it registers");
        self.state
            .empty_outbox(&self.audit)
            .expect("the log takes it");
        registration
    }

    /// The names of the events in the log, in order, after the one that names its key.
    fn logged(&self) -> Vec<String> {
        let entries = self.audit.entries().expect("the log reads");
        let name = |entry: &sandcast_audit::Entry| match &entry.event {
            Event::Registered { version, .. } => format!("registered {version}"),
            Event::AliasMoved {
                alias, from, to, ..
            } => format!("{alias} {from:?} {to}"),
            other => format!("{other:?}"),
        };
        entries.iter().skip(1).map(name).collect()
    }
}

/// A version that differs from others by its artifact.
fn version(artifact: &str) -> ModelVersion {
    let plugin = PluginRef {
        id: "test/adapter".to_owned(),
        version: "0.1.0".to_owned(),
        role: "adapter".to_owned(),
        digest: Digest::of(b"component"),
    };
    let artifact = Digest::of(artifact.as_bytes());
    let binary = Binary::new(["no", "yes"], &[true, false, true], &[0.75, 0.25, 0.625]);
    let outcomes = Outcomes::Binary(binary.expect("three rows"));
    let evaluation = evaluate(&outcomes, &[], &EvaluateOptions::default());
    ModelVersion {
        model: "loans".to_owned(),
        version: 0,
        created: clock::now(),
        run: RunId::generate(),
        lineage: Lineage {
            data: Digest::of(b"rows"),
            sources: BTreeMap::new(),
            plugins: BTreeMap::from([("mlp".to_owned(), plugin.clone())]),
            config: Digest::of(b"config"),
            pipeline: "loans".to_owned(),
            seed: 7,
            artifact,
            sandcast_version: "0.1.0".to_owned(),
        },
        evaluation: evaluation.expect("no slices are no trouble"),
        task: Task {
            kind: TaskKind::BinaryClassification,
            features: vec![Field {
                name: "age".to_owned(),
                kind: Kind::Int64,
                nullable: true,
            }],
            target: Some("repaid".to_owned()),
            classes: vec!["no".to_owned(), "yes".to_owned()],
            weight: None,
        },
        adapter: plugin,
        adapter_name: "mlp".to_owned(),
        component: Digest::of(b"component"),
        grants: Grants::default(),
        vouched: Vouched::default(),
        isolate: Isolate::default(),
        artifact,
        policies: Vec::new(),
    }
}

#[test]
fn a_run_that_comes_to_the_same_model_renews_who_vouches_for_it() {
    let place = Place::new();
    let by = |note: &str, artifact: &str| ModelVersion {
        vouched: Vouched {
            signature: Some(note.to_owned()),
            bundle: None,
            trust: None,
        },
        ..version(artifact)
    };
    assert!(place.register(by("first", "one"), None).new);
    let again = place.register(by("second", "one"), None);
    assert!(!again.new);
    place.register(by("other", "two"), None);
    let kept = |number: &str| {
        let found = place.registry().resolve("loans", Some(number));
        found.expect("it is there").vouched.signature
    };
    assert!(place.disagreements().is_empty(), "what was renewed is on record");
    assert_eq!(kept("1").as_deref(), Some("second"));
    assert_eq!(kept("2").as_deref(), Some("other"));
    // A version of before this was kept.
    let old = serde_json::to_value(version("old")).expect("JSON");
    assert!(old.get("vouched").is_none(), "{old}");
    let old: ModelVersion = serde_json::from_value(old).expect("a version");
    assert_eq!(old.vouched, Vouched::default());
}

#[test]
fn versions_are_counted_and_resolved() {
    let place = Place::new();
    place.register(version("one"), Some("champion"));
    place.register(version("two"), None);
    let registry = place.registry();
    let resolve = |which| {
        registry
            .resolve("loans", which)
            .map(|found| found.version)
            .ok()
    };
    assert_eq!(resolve(None), Some(1), "the champion is what is meant");
    assert_eq!(resolve(Some("champion")), Some(1));
    assert_eq!(resolve(Some("2")), Some(2));
    let found = registry.resolve("loans", Some("2")).expect("it is there");
    let mut given = version("two");
    (given.version, given.created, given.run) = (2, found.created.clone(), found.run.clone());
    assert_eq!(found, given, "what is kept is what was given");
    let models = registry.models().expect("the state reads");
    assert_eq!(models.len(), 1);
    assert_eq!(
        models[0]
            .versions
            .iter()
            .map(|it| it.version)
            .collect::<Vec<_>>(),
        [2, 1]
    );
    assert_eq!(
        models[0].aliases,
        BTreeMap::from([("champion".to_owned(), 1)])
    );
    assert_eq!(
        place.logged(),
        ["registered 1", "champion None 1", "registered 2"]
    );
}

#[test]
fn the_same_lineage_is_registered_once() {
    let place = Place::new();
    assert!(place.register(version("one"), Some("champion")).new);
    let again = place.register(version("one"), Some("champion"));
    assert_eq!(
        (again.new, again.alias_moved, again.version.version),
        (false, false, 1)
    );
    assert_eq!(place.logged(), ["registered 1", "champion None 1"]);
}

#[test]
fn aliases_move_and_move_back() {
    let place = Place::new();
    place.register(version("one"), Some("champion"));
    place.register(version("two"), Some("champion"));
    let registry = place.registry();
    assert_eq!(
        registry
            .set_alias("loans", "champion", 1)
            .expect("it is there"),
        Some(2)
    );
    assert_eq!(
        registry
            .set_alias("loans", "canary", 2)
            .expect("it is there"),
        None
    );
    assert_eq!(
        registry
            .resolve("loans", None)
            .expect("it is there")
            .version,
        1
    );
    assert_eq!(
        place.logged(),
        [
            "registered 1",
            "champion None 1",
            "registered 2",
            "champion Some(1) 2",
            "champion Some(2) 1",
            "canary None 2"
        ]
    );
}

#[test]
fn what_is_not_there_is_named_with_what_is_near() {
    let place = Place::new();
    place.register(version("one"), Some("champion"));
    let registry = place.registry();
    let said = |model, which| {
        registry
            .resolve(model, which)
            .expect_err("not there")
            .to_string()
    };
    assert_eq!(
        said("loan", None),
        "there is no model `loan`; did you mean `loans`?"
    );
    assert_eq!(
        said("loans", Some("champoin")),
        "the model `loans` has no alias `champoin`; did you mean `champion`?"
    );
    assert_eq!(
        said("loans", Some("4")),
        "the model `loans` has no version 4; the latest is 1"
    );
    for alias in ["4", "", "Upper", "a b", "-x"] {
        let error = registry.set_alias("loans", alias, 1).expect_err("no alias");
        assert!(
            matches!(error, RegistryError::BadAlias { .. }),
            "{alias}: {error}"
        );
    }
    assert!(
        registry.set_alias("loans", "champion", 9).is_err(),
        "there is no version 9"
    );
}

#[test]
fn a_crash_between_effect_and_record_is_made_good_once() {
    let place = Place::new();
    let one = version("one");
    let run = one.run.clone();
    // The process dies after the transaction: the log knows nothing yet.
    place
        .registry()
        .insert(&run, one, Some("champion"))
        .expect("it registers");
    assert!(place.logged().is_empty());
    let reopened = State::open(place.folder.path()).expect("the state opens");
    reopened
        .empty_outbox(&place.audit)
        .expect("the log takes it");
    assert_eq!(place.logged(), ["registered 1", "champion None 1"]);

    // The process dies after the log was written and before the outbox was emptied.
    let two = version("two");
    let run = two.run.clone();
    place
        .registry()
        .insert(&run, two, None)
        .expect("it registers");
    let waiting: String = place
        .state
        .read("test", |connection| {
            connection.query_row("SELECT event FROM outbox", [], |row| row.get(0))
        })
        .expect("it waits");
    let waiting: Event = from_json(&waiting).expect("an event");
    assert!(matches!(&waiting, Event::Registered { run: of, version: 2, .. } if *of == run));
    place.audit.append(waiting).expect("the log takes it");
    reopened
        .empty_outbox(&place.audit)
        .expect("the log is there");
    reopened
        .empty_outbox(&place.audit)
        .expect("nothing is left");
    assert_eq!(
        place.logged(),
        ["registered 1", "champion None 1", "registered 2"]
    );
}

#[test]
fn an_approved_move_is_made_once_whatever_happens_in_between() {
    let place = Place::new();
    place.register(version("one"), Some("champion"));
    let second = place.register(version("two"), None).version;
    let registry = place.registry();
    let lineage = second.lineage.digest();
    let wanted = ApprovedMove {
        model: "loans",
        alias: "champion",
        from: Some(1),
        to: 2,
        artifact: second.artifact,
        lineage,
    };
    let champion = || {
        let found = registry.resolve("loans", Some("champion"));
        found.expect("there is one").version
    };
    let carry_out = |approval: &str, wanted: &ApprovedMove<'_>| {
        let outcome = registry.set_alias_as_approved(approval, wanted);
        outcome.expect("the state is written")
    };
    assert_eq!(carry_out("a1", &wanted), Ok(()));
    assert_eq!(champion(), 2);
    // Back again by hand; then the first approval once more, as after a crash before it was marked
    // as carried out. It was, so nothing moves, although the alias is where it began.
    registry.set_alias("loans", "champion", 1).expect("moved");
    assert_eq!(carry_out("a1", &wanted), Ok(()));
    assert_eq!(champion(), 1);
    // Another approval of the same is another matter.
    assert_eq!(carry_out("a2", &wanted), Ok(()));
    assert_eq!(champion(), 2);
    let why = carry_out("a3", &wanted).expect_err("it points there already");
    assert!(why.contains("means version 2 by now"), "{why}");
    let other = ApprovedMove {
        from: Some(2),
        to: 1,
        ..wanted
    };
    let why = carry_out("a4", &other).expect_err("version 1 has another lineage");
    assert!(why.contains("is not the one that was approved"), "{why}");
    let by: Vec<Option<String>> = place
        .audit
        .entries()
        .expect("the log reads")
        .into_iter()
        .filter_map(|entry| match entry.event {
            Event::AliasMoved { approval, .. } => Some(approval),
            _ => None,
        })
        .collect();
    let approved = |id: &str| Some(id.to_owned());
    assert_eq!(by, [None, approved("a1"), None, approved("a2")]);
}

#[test]
fn a_version_that_is_another_by_now_is_not_the_one_that_was_approved() {
    let place = Place::new();
    place.register(version("one"), Some("champion"));
    let second = place.register(version("two"), None).version;
    let wanted = ApprovedMove {
        model: "loans",
        alias: "champion",
        from: Some(1),
        to: 2,
        artifact: second.artifact,
        lineage: second.lineage.digest(),
    };
    // The columns say what they said; what would be served has other weights, or another history.
    let mut other_weights = second.clone();
    other_weights.artifact = Digest::of(b"other weights");
    let mut other_line = second.clone();
    other_line.lineage.seed += 1;
    for changed in [other_weights, other_line] {
        let document = to_json(&changed).expect("JSON");
        place
            .state
            .write("test", |transaction| {
                let update = "UPDATE model_versions SET document = ?1 WHERE version = 2";
                transaction.execute(update, [document])
            })
            .expect("written");
        let outcome = place.registry().set_alias_as_approved("a1", &wanted);
        let why = outcome.expect("readable").expect_err("it is another");
        assert!(why.contains("is not the one that was approved"), "{why}");
    }
    let champion = place.registry().resolve("loans", Some("champion"));
    assert_eq!(champion.expect("there is one").version, 1);
}

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
            assert!(told.contains("sandcast models alias loans champion 1"), "{told}");
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
        (set("$.grants.clock", "json('true')"), "all that is kept with it is"),
        (set("$.artifact", &format!("'{}'", Digest::ZERO)), "its model file is"),
        (set("$.lineage.seed", "8"), "its lineage is"),
        (set("$.version", "3"), "what is kept there in state.sqlite is version 3"),
        ("UPDATE model_versions SET document = ''".to_owned(), "cannot be read"),
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
        assert!(alias.expect_err("no alias is pointed at it").is_disagreement());
        let again = place.register(version("one"), Some("champion"));
        assert_eq!((again.new, again.version.version), (false, 1));
        assert_eq!(place.registry().resolve("loans", None).expect("anew"), again.version);
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
    for which in [None, Some("3")] {
        let told = place.refusal(which);
        assert!(told.contains("the audit log has no such version"), "{told}");
    }
    place.past_the_log("DELETE FROM model_versions WHERE version = 3");
    place.past_the_log("DELETE FROM model_versions WHERE version = 2");
    for which in [None, Some("2")] {
        let told = place.refusal(which);
        let gone = "version 2 of `loans` is registered by the audit log, and the latest in state.sqlite is version 1";
        assert!(told.contains(gone), "{told}");
    }
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
                let moved = Moved { logged: Some(2), ..Moved::default() };
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
        let error = registry.resolve("loans", None).map(|_| ()).expect_err("forged");
        assert!(error.to_string().contains("the row 77 of outbox"), "{error}");
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
    assert_eq!(place.registry().resolve("loans", None).expect("as it was"), one);
    assert!(place.disagreements().is_empty());
    place.past_the_log(&format!(
        "UPDATE model_versions SET document = json_set(document, '$.component', '{}')",
        Digest::ZERO
    ));
    let told = place.refusal(None);
    assert!(told.contains("its adapter is"), "{told}");
    // The next run that comes to it has all of it on record.
    place.register(version("one"), None);
    assert_eq!(place.logged(), ["registered 1", "registered 1"]);
    place.registry().resolve("loans", None).expect("as it is");
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
    sandcast_audit::archive(&place.audit, &archive.path().join("old"), tomorrow)
        .expect("archived");
    assert!(sandcast_audit::archived_entries(&place.folder.path().join("audit")).expect("a log") > 3);
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
    let error = registry.resolve("loans", None).expect_err("nothing is on record");
    assert!(error.is_disagreement(), "{error}");
    assert_eq!(place.disagreements().len(), 2);
}

#[test]
fn only_events_of_the_registry_and_of_runs_go_from_here_into_the_log() {
    let place = Place::new();
    let one = version("one");
    let run = one.run.clone();
    place
        .registry()
        .insert(&run, one, None)
        .expect("it registers");
    let forged = Event::ServeStopped { predictions: 1 };
    for event in [to_json(&forged).expect("JSON"), "{}".to_owned()] {
        place
            .state
            .write("test", |transaction| {
                let posted = clock::now();
                let seal = place.state.key().expect("a key");
                let seal = seal.seal("outbox", &posted, &event).to_hex().to_string();
                let insert =
                    "INSERT INTO outbox (id, posted, event, seal) VALUES (77, ?1, ?2, ?3)";
                transaction.execute(insert, [posted, event, seal])
            })
            .expect("written");
        let error = place.state.empty_outbox(&place.audit);
        let error = error.expect_err("a row of somebody else").to_string();
        assert!(error.contains("the row 77 of outbox"), "{error}");
        assert!(place.logged().is_empty(), "nothing is appended");
        place
            .state
            .write("test", |transaction| {
                transaction.execute("DELETE FROM outbox WHERE id = 77", [])
            })
            .expect("written");
    }
    place.state.empty_outbox(&place.audit).expect("the rest");
    assert_eq!(place.logged(), ["registered 1"]);
}
