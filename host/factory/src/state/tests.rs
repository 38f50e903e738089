use sandcast_audit::{AuditLog, Digest, Event, RunId};
use tempfile::TempDir;

use super::{
    KEY_FILE, KeptOutput, RunRecord, RunStatus, STATE_FILE, StageRecord, StageStatus, State,
    StateError,
};
use crate::clock;

fn opened() -> (TempDir, State) {
    let folder = tempfile::tempdir().expect("a folder");
    let state = State::open(folder.path()).expect("a new state");
    (folder, state)
}

fn record(run: &RunId) -> RunRecord {
    RunRecord {
        run: run.clone(),
        pipeline: "loans".to_owned(),
        config: Digest::of(b"config"),
        seed: u64::MAX,
        started: clock::now(),
        finished: None,
        status: RunStatus::Running,
        stage: None,
        reasons: Vec::new(),
        model: None,
        version: None,
        stages: Vec::new(),
    }
}

fn stage(name: &str) -> StageRecord {
    StageRecord {
        stage: name.to_owned(),
        status: StageStatus::Done,
        key: Some(Digest::of(name.as_bytes())),
        output: None,
        cached: true,
        seconds: 0.25,
        rows_in: Some(10),
        rows_out: Some(9),
        rows_quarantined: Some(1),
        message: "10 rows".to_owned(),
    }
}

#[test]
fn runs_come_back_as_they_were_written() {
    let (folder, state) = opened();
    let run = RunId::generate();
    let mut wanted = record(&run);
    state.begin_run(&wanted).expect("a new run");
    wanted.stages = vec![
        stage("load"),
        stage("connect branch"),
        stage("connect branch"),
    ];
    for stage in &wanted.stages {
        state.add_stage(&run, stage).expect("the run is there");
    }
    wanted.status = RunStatus::Rejected;
    wanted.finished = Some(clock::now());
    wanted.stage = Some("gate".to_owned());
    wanted.reasons = vec!["it does not hold".to_owned(), "\"quoted\"".to_owned()];
    state.end_run(&wanted).expect("the run is there");

    let reopened = State::open(folder.path()).expect("the state opens again");
    assert_eq!(
        reopened.run(&run).expect("the state reads"),
        Some(wanted.clone())
    );
    wanted.stages.clear();
    assert_eq!(reopened.runs().expect("the state reads"), [wanted]);
    assert_eq!(
        reopened.run(&RunId::generate()).expect("the state reads"),
        None
    );
}

#[test]
fn runs_without_a_process_are_marked_once() {
    let (_folder, state) = opened();
    let run = RunId::generate();
    state.begin_run(&record(&run)).expect("a new run");
    assert_eq!(
        state.mark_interrupted().expect("the state writes"),
        std::slice::from_ref(&run)
    );
    assert!(
        state
            .mark_interrupted()
            .expect("the state writes")
            .is_empty()
    );
    let found = state
        .run(&run)
        .expect("the state reads")
        .expect("it is there");
    assert_eq!(found.status, RunStatus::Interrupted);
}

/// What the log says of runs, in order.
fn told(audit: &AuditLog) -> Vec<String> {
    let entries = audit.entries().expect("the log reads");
    let said = |entry: &sandcast_audit::Entry| match &entry.event {
        Event::RunStarted { .. } => Some("started".to_owned()),
        Event::RunFinished { outcome, .. } => Some(outcome.clone()),
        _ => None,
    };
    entries.iter().filter_map(said).collect()
}

#[test]
fn a_run_ends_once_on_record_wherever_its_process_dies() {
    let (folder, state) = opened();
    let audit = AuditLog::in_memory();
    let empty = |state: &State| state.empty_outbox(&audit).expect("the log takes it");
    let run = RunId::generate();
    let mut ends = record(&run);
    state.begin_run(&ends).expect("a new run");
    empty(&state);
    // It dies once the end is kept and before the log has it: the next process tells the log, and
    // does not say that the run was interrupted.
    ends.status = RunStatus::Completed;
    ends.finished = Some(clock::now());
    state.end_run(&ends).expect("the run is there");
    assert_eq!(told(&audit), ["started"]);
    let next = State::open(folder.path()).expect("the state opens again");
    assert!(next.mark_interrupted().expect("written").is_empty());
    empty(&next);
    assert_eq!(told(&audit), ["started", "completed"]);
    // It dies once the log has it, and before the outbox does not.
    let event = Event::RunFinished {
        run: run.clone(),
        outcome: "completed".to_owned(),
        message: None,
    };
    let posted = "2020-01-01T00:00:00Z";
    let text = super::to_json(&event).expect("JSON");
    let seal = next
        .key()
        .expect("there is one")
        .seal("outbox", posted, &text);
    next.write("test", |transaction| {
        let insert = "INSERT INTO outbox (posted, event, seal) VALUES (?1, ?2, ?3)";
        transaction.execute(insert, [posted, &text, seal.to_hex().as_str()])
    })
    .expect("posted");
    empty(&next);
    assert_eq!(told(&audit), ["started", "completed"]);
    // It dies in the middle: that is what is told, and a late end changes nothing.
    let other = RunId::generate();
    let mut ends = record(&other);
    next.begin_run(&ends).expect("a new run");
    assert_eq!(
        next.mark_interrupted().expect("written"),
        std::slice::from_ref(&other)
    );
    ends.status = RunStatus::Completed;
    next.end_run(&ends).expect("nothing is written");
    empty(&next);
    assert_eq!(
        told(&audit),
        ["started", "completed", "started", "interrupted"]
    );
    let found = next.run(&other).expect("readable").expect("it is there");
    assert_eq!(found.status, RunStatus::Interrupted);
}

#[test]
fn outputs_are_found_by_their_key() {
    let (_folder, state) = opened();
    let run = RunId::generate();
    state.begin_run(&record(&run)).expect("a new run");
    let key = Digest::of(b"key");
    assert_eq!(
        state.output(&key).expect("the state reads"),
        KeptOutput::None
    );
    for output in ["{}", "{\"rows\":3}"] {
        state
            .keep_output(&key, "query", &run, output)
            .expect("the state writes");
        assert_eq!(
            state.output(&key).expect("the state reads"),
            KeptOutput::Sealed(output.to_owned())
        );
    }
    let recipe = Digest::of(b"recipe");
    assert_eq!(
        state.last_with_recipe(&recipe).expect("the state reads"),
        None
    );
    state.see_recipe(&recipe, &run).expect("the state writes");
    let seen = state
        .last_with_recipe(&recipe)
        .expect("the state reads")
        .expect("it was seen");
    assert_eq!(seen.0, run);
}

#[test]
fn an_output_that_another_hand_wrote_is_not_taken() {
    let (folder, state) = opened();
    let (run, other) = (RunId::generate(), RunId::generate());
    state.begin_run(&record(&run)).expect("a new run");
    state.begin_run(&record(&other)).expect("a new run");
    let (key, next) = (Digest::of(b"key"), Digest::of(b"next"));
    let found = |state: &State, key: &Digest| state.output(key).expect("the state reads");
    let sealed = KeptOutput::Sealed("{\"auc\":0.6}".to_owned());
    let keep = || {
        state
            .keep_output(&key, "judge", &run, "{\"auc\":0.6}")
            .expect("the state writes");
    };
    let edit = |statement: &str| {
        state
            .write("edit a row", |transaction| {
                transaction.execute(statement, [])
            })
            .expect("the state writes");
    };
    for change in [
        "output = '{\"auc\":0.9}'".to_owned(),
        "stage = 'gate'".to_owned(),
        "written = '2020-01-01T00:00:00.000Z'".to_owned(),
        format!("run = '{other}'"),
        "seal = ''".to_owned(),
    ] {
        keep();
        assert_eq!(found(&state, &key), sealed);
        edit(&format!("UPDATE stage_outputs SET {change}"));
        assert_eq!(found(&state, &key), KeptOutput::Foreign, "{change}");
    }
    // Nor is a sealed one taken for the output of something else.
    keep();
    edit(&format!("UPDATE stage_outputs SET key = '{next}'"));
    assert_eq!(found(&state, &next), KeptOutput::Foreign);
    assert_eq!(found(&state, &key), KeptOutput::None);
    keep();
    let reopened = State::open(folder.path()).expect("the state opens again");
    assert_eq!(found(&reopened, &key), sealed);
    // Without the key nothing is believed, nor with another one.
    std::fs::remove_file(folder.path().join(KEY_FILE)).expect("there is a key");
    let looking = State::look(folder.path()).expect("the state opens");
    let looking = looking.expect("it is there");
    assert_eq!(found(&looking, &key), KeptOutput::Foreign);
    let reopened = State::open(folder.path()).expect("the state opens again");
    assert_eq!(found(&reopened, &key), KeptOutput::Foreign);
}

#[test]
fn outputs_from_before_there_were_seals_are_not_taken() {
    let (folder, state) = opened();
    let run = RunId::generate();
    state.begin_run(&record(&run)).expect("a new run");
    let key = Digest::of(b"key");
    state
        .keep_output(&key, "query", &run, "{}")
        .expect("the state writes");
    state
        .write("go back a version", |transaction| {
            transaction.execute_batch(
                "ALTER TABLE stage_outputs DROP COLUMN seal; PRAGMA user_version = 4",
            )
        })
        .expect("the state writes");
    drop(state);
    let state = State::open(folder.path()).expect("the state is brought up to date");
    let found = || state.output(&key).expect("the state reads");
    assert_eq!(found(), KeptOutput::Foreign);
    state
        .keep_output(&key, "query", &run, "{}")
        .expect("the state writes");
    assert_eq!(found(), KeptOutput::Sealed("{}".to_owned()));
}

#[test]
fn what_waits_unsealed_from_an_earlier_version_is_left_to_that_version() {
    let (folder, state) = opened();
    let back =
        "ALTER TABLE stage_outputs DROP COLUMN seal; DROP TABLE on_record; DROP TABLE outbox;
                CREATE TABLE outbox (id INTEGER PRIMARY KEY AUTOINCREMENT, posted TEXT NOT NULL,
                    event TEXT NOT NULL) STRICT;
                INSERT INTO outbox (posted, event) VALUES ('2026-01-01T00:00:00.000Z', '{}');
                PRAGMA user_version = 2";
    state
        .write("go back some versions", |transaction| {
            transaction.execute_batch(back)
        })
        .expect("the state writes");
    drop(state);
    let error = State::open(folder.path()).err().expect("somebody waits");
    assert!(
        matches!(error, StateError::Waiting { waiting: 1, .. }),
        "{error}"
    );
    // It is as it was, for the version that wrote it.
    let connection = rusqlite::Connection::open(folder.path().join(STATE_FILE)).expect("a file");
    let emptied = connection.execute("DELETE FROM outbox", []);
    assert_eq!(emptied.expect("it is there"), 1);
    State::open(folder.path()).expect("nothing waits any more");
    let unsealed = "INSERT INTO outbox (posted, event) VALUES ('now', '{}')";
    let refused = connection.execute(unsealed, []);
    refused.expect_err("an earlier version cannot put it there");
}

#[test]
fn a_state_of_a_later_version_is_left_alone() {
    let (folder, state) = opened();
    let set = |version: i64| {
        state.write("set the version", |transaction| {
            transaction.pragma_update(None, "user_version", version)
        })
    };
    set(99).expect("the state writes");
    let error = State::open(folder.path())
        .err()
        .expect("this program does not know version 99");
    assert!(
        matches!(error, StateError::Newer { found: 99, .. }),
        "{error}"
    );
}

#[test]
fn a_write_that_fails_leaves_nothing() {
    let (_folder, state) = opened();
    let run = RunId::generate();
    let failed = state.write("fail half-way", |transaction| {
        let insert = "INSERT INTO runs (id, pipeline, config, seed, started, status)
                      VALUES (?1, 'p', 'c', '0', 'now', 'running')";
        transaction.execute(insert, [run.to_string()])?;
        transaction.execute("INSERT INTO nothing VALUES (1)", [])
    });
    assert!(failed.is_err());
    assert!(state.runs().expect("the state reads").is_empty());
}

#[test]
fn a_full_disk_is_told_as_such() {
    let (_folder, state) = opened();
    let run = RunId::generate();
    state.begin_run(&record(&run)).expect("a new run");
    let pages = state.read("count pages", |connection| {
        let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
        connection
            .pragma_update_and_check(None, "max_page_count", pages, |row| row.get::<_, i64>(0))
    });
    pages.expect("SQLite counts its pages");
    let large = "x".repeat(1 << 20);
    let key = Digest::of(b"key");
    let error = state
        .keep_output(&key, "query", &run, &large)
        .expect_err("there is no room");
    assert!(matches!(error, StateError::Full { .. }), "{error}");
    assert_eq!(
        state.output(&key).expect("the state reads"),
        KeptOutput::None
    );
}

#[test]
fn what_cannot_be_opened_is_told_with_its_path() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join(STATE_FILE)).expect("a folder in the way");
    let error = State::open(folder.path())
        .err()
        .expect("a folder is no file");
    assert!(error.to_string().contains(STATE_FILE), "{error}");

    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(
        folder.path().join(STATE_FILE),
        "this is no database, not at all",
    )
    .expect("a file in the way");
    assert!(State::open(folder.path()).is_err());
}
