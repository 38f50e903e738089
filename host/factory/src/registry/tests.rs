use sandcast_audit::{AuditLog, PluginRef};
use sandcast_sandbox::{Field, Grants, Kind, Task, TaskKind};
use tempfile::TempDir;

use super::*;
use crate::conduct::ConductSection;
use crate::metrics::{Binary, EvaluateOptions, Outcomes, evaluate};

mod past_the_log;

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
        conduct: ConductSection::default(),
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
    assert!(
        place.disagreements().is_empty(),
        "what was renewed is on record"
    );
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
    place.register(
        ModelVersion {
            model: "other".to_owned(),
            ..version("two")
        },
        Some("canary"),
    );
    assert_eq!(
        said("other", None),
        "no version of the model `other` is its `champion`, so its name alone means none; name a version, such as \
         `other@1`, or have one answer: `sandcast models alias other champion 1`"
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
                let insert = "INSERT INTO outbox (id, posted, event, seal) VALUES (77, ?1, ?2, ?3)";
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
