use sandcast_audit::{Digest, Event, MostOfOne, Standing};

use super::testing::{Bench, Did, STAGE, version};
use super::*;

fn standing(bench: &Bench, plugin: &PluginRef) -> Standing {
    let record = bench.conduct.standing(&plugin.digest).expect("readable");
    record.expect("known").standing
}

fn small() -> ConductSection {
    ConductSection {
        trust_after: 3,
        ..ConductSection::default()
    }
}

#[test]
fn other_hosts_functions_and_amounts_are_found() {
    let other_host = "POST https://evil.example/collect";
    let odd: [(&str, Did); 8] = [
        (
            "target",
            Did::rows(1_000).with(|did| did.targets.push(other_host.to_owned())),
        ),
        (
            "target",
            Did::rows(1_000).with(|did| {
                did.targets
                    .push("POST https://api.acme.example/v1/people".to_owned());
            }),
        ),
        (
            "function",
            Did::rows(1_000).with(|did| {
                did.calls.insert("random.get-bytes".to_owned(), 1);
            }),
        ),
        (
            "calls:http.handle",
            Did::rows(1_000).with(|did| {
                did.calls.insert("http.handle".to_owned(), 60);
            }),
        ),
        (
            "bytes-out",
            Did::rows(1_000).with(|did| did.bytes_out *= 10),
        ),
        ("bytes-in", Did::rows(1_000).with(|did| did.bytes_in = 10)),
        (
            "guest-seconds",
            Did::rows(1_000).with(|did| did.seconds = 2.0),
        ),
        (
            "denial",
            Did::rows(1_000).with(|did| did.denied = Some("files".to_owned())),
        ),
    ];
    for (measure, did) in odd {
        let bench = Bench::new();
        bench.ordinary(6);
        let found = bench.run(&did);
        assert!(found.iter().any(|it| it == measure), "{measure}: {found:?}");
        let again = bench.run(&did);
        assert_eq!(again, found, "it was not learned");
        bench.ordinary(1);
    }
}

#[test]
fn ordinary_plugins_are_not_found_whatever_the_rows() {
    let bench = Bench::new();
    let mut draws = 7_u64;
    for run in 0..60 {
        draws = draws
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        // One row to a million, every size as likely as any other.
        let share = (draws >> 11) as f64 / (1_u64 << 53) as f64;
        let rows = 10.0_f64.powf(share * 6.0) as u64;
        let noise = 0.4 + (draws >> 40) as f64 / f64::from(1 << 24) * 2.0;
        let did = Did::rows(rows).with(|did| did.seconds *= noise);
        let found = bench.run(&did);
        assert!(found.is_empty(), "run {run}, {rows} rows: {found:?}");
    }
    assert!(bench.run(&Did::rows(0)).is_empty(), "an empty source");
}

#[test]
fn more_parts_and_stages_that_were_kept_are_not_found() {
    let bench = Bench::new();
    for run in 0..20_u64 {
        let parts = 1 + run % 7;
        let did = Did::rows(2_000 * parts).with(|did| did.instances = 1 + parts);
        assert!(bench.run(&did).is_empty());
        let kept = Did::rows(2_000).with(|did| {
            did.kept = true;
            did.instances = 1;
            did.calls.clear();
            did.bytes_in = 0;
            did.bytes_out = 100;
        });
        assert!(bench.run(&kept).is_empty());
    }
}

#[test]
fn nothing_is_judged_before_enough_was_learned() {
    let bench = Bench::new();
    bench.ordinary(4);
    let odd = Did::rows(1_000).with(|did| did.bytes_out *= 1_000);
    assert!(bench.run(&odd).is_empty(), "the fifth run is learned");
    assert_eq!(bench.run(&odd), ["bytes-out"], "and moves nothing");
}

#[test]
fn one_run_of_those_that_are_learned_teaches_nothing_new() {
    let bench = Bench::new();
    bench.ordinary(3);
    let astray = "GET https://evil.example/";
    let odd = Did::rows(1_000).with(|did| did.targets.push(astray.to_owned()));
    assert!(bench.run(&odd).is_empty(), "nothing is judged yet");
    bench.ordinary(3);
    assert_eq!(bench.run(&odd), ["target"]);
}

#[test]
fn what_an_operator_takes_is_learned() {
    let bench = Bench::new();
    bench.ordinary(6);
    let plugin = version("1.0.0");
    let moved = Did::rows(1_000).with(|did| {
        did.targets = vec!["GET https://api.acme.example/v2/people".to_owned()];
    });
    assert_eq!(bench.run(&moved), ["target"]);
    assert_eq!(bench.run(&moved), ["target"]);
    bench
        .conduct
        .decide(Action::Trust, &plugin, "ann", "  ")
        .expect_err("a reason is wanted");
    let record = bench
        .conduct
        .decide(Action::Trust, &plugin, "ann", "the API has moved")
        .expect("it applies");
    assert_eq!(record.standing, Standing::Trusted);
    assert_eq!(record.operator.as_deref(), Some("ann"));
    assert!(bench.run(&moved).is_empty());
    let told = bench.conduct.tell(&plugin, 5).expect("readable");
    assert_eq!(told.places.len(), 1);
    assert!(told.places[0].is_known && !told.places[0].inherited);
    assert!(
        told.history
            .iter()
            .any(|entry| matches!(&entry.event, Event::StandingChanged { operator: Some(_), reason, .. } if reason == "the API has moved"))
    );
}

#[test]
fn trust_is_earned_lost_and_earned_again() {
    let mut bench = Bench::new();
    bench.rules = small();
    let plugin = version("1.0.0");
    let let_in = || {
        let record = bench.conduct.let_in(&plugin, Admission::Automatic, None);
        record.expect("it may be loaded").standing
    };
    assert_eq!(let_in(), Standing::Admitted);
    assert_eq!(let_in(), Standing::Admitted, "once");
    bench.ordinary(1);
    assert_eq!(let_in(), Standing::Probation);
    bench.ordinary(1);
    assert_eq!(let_in(), Standing::Probation);
    bench.ordinary(1);
    assert_eq!(let_in(), Standing::Trusted);
    bench.ordinary(3);
    let odd = Did::rows(1_000).with(|did| did.bytes_out *= 50);
    assert_eq!(bench.run(&odd), ["bytes-out"]);
    assert_eq!(let_in(), Standing::Probation);
    bench.ordinary(3);
    assert_eq!(let_in(), Standing::Trusted);
}

#[test]
fn quarantine_holds_until_it_is_released_and_revocation_for_ever() {
    let mut bench = Bench::new();
    bench.response = Response::Quarantine;
    bench.ordinary(6);
    let plugin = version("1.0.0");
    let odd = Did::rows(1_000).with(|did| did.bytes_out *= 50);
    bench.run(&odd);
    let refusal = || {
        let refused = bench.conduct.let_in(&plugin, Admission::Automatic, None);
        refused.expect_err("it is not loaded").to_string()
    };
    let text = refusal();
    let digest = &plugin.digest.to_string()[..16];
    assert!(
        text.contains(&format!("sandcast plugins release {digest} --reason TEXT")),
        "{text}"
    );
    assert!(text.contains("what it handed out came to"), "{text}");
    let decide = |action, reason| bench.conduct.decide(action, &plugin, "ann", reason);
    decide(Action::Trust, "no").expect_err("it is released first");
    let record = decide(Action::Release, "they sent the backlog").expect("it applies");
    assert_eq!(record.standing, Standing::Probation);
    assert!(bench.run(&odd).is_empty(), "what it did was taken");
    decide(Action::Revoke, "sold to somebody else").expect("it applies");
    assert!(refusal().contains("final for this digest"), "{}", refusal());
    decide(Action::Release, "please").expect_err("it is final");
}

#[test]
fn a_new_version_is_on_probation_and_held_to_the_one_before() {
    let mut bench = Bench::new();
    bench.rules = small();
    bench.ordinary(8);
    assert_eq!(standing(&bench, &version("1.0.0")), Standing::Trusted);
    let next = |did: Did| did.with(|did| did.plugin = version("1.1.0"));
    let record = bench
        .conduct
        .let_in(&version("1.1.0"), Admission::Automatic, None)
        .expect("it may be loaded");
    assert_eq!(record.standing, Standing::Probation);
    assert!(record.reason.contains("version 1.0.0"), "{}", record.reason);
    assert!(bench.run(&next(Did::rows(1_200))).is_empty());
    let astray = next(Did::rows(1_200)).with(|did| {
        did.targets.push("GET https://evil.example/".to_owned());
    });
    assert_eq!(bench.run(&astray), ["target"]);
    assert_eq!(standing(&bench, &version("1.0.0")), Standing::Trusted);
    assert_eq!(standing(&bench, &version("1.1.0")), Standing::Probation);
}

#[test]
fn an_operator_may_have_to_let_a_component_in() {
    let bench = Bench::new();
    let plugin = version("1.0.0");
    let let_in = || bench.conduct.let_in(&plugin, Admission::Operator, None);
    let refused = let_in().expect_err("nobody knows it").to_string();
    assert!(refused.contains("sandcast plugins admit"), "{refused}");
    bench
        .conduct
        .decide(Action::Admit, &plugin, "ann", "reviewed")
        .expect("it applies");
    assert_eq!(let_in().expect("admitted").standing, Standing::Admitted);
}

#[test]
fn a_run_that_was_cut_off_is_judged_by_the_next_and_only_once() {
    let mut bench = Bench::new();
    bench.response = Response::Quarantine;
    bench.ordinary(6);
    let odd = Did::rows(1_000).with(|did| did.bytes_out *= 50);
    bench.begin(&odd);
    // The process is killed here; another one begins.
    let again = Conduct::open(bench.folder.path(), bench.audit.clone()).expect("a cache");
    for _ in 0..2 {
        again
            .judge_left(&bench.rules, |_| Response::Quarantine)
            .expect("judged");
    }
    assert_eq!(standing(&bench, &version("1.0.0")), Standing::Quarantined);
    let deviations = |event: &Event| matches!(event, Event::ConductDeviated { .. });
    let entries = bench.audit.entries().expect("readable");
    let found = entries.iter().filter(|entry| deviations(&entry.event));
    assert_eq!(found.count(), 1);
}

#[test]
fn a_run_that_ended_and_was_not_judged_is_no_lesson() {
    let bench = Bench::new();
    bench.ordinary(6);
    let odd = Did::rows(1_000).with(|did| did.bytes_out *= 50);
    for _ in 0..3 {
        // The disk is full just then.
        let run = bench.begin(&odd);
        bench.end(run);
    }
    assert_eq!(bench.run(&odd), ["bytes-out"]);
    bench
        .conduct
        .judge_left(&bench.rules, |_| Response::Alert)
        .expect("judged");
    let entries = bench.audit.entries().expect("readable");
    let scored = |event: &Event| matches!(event, Event::ConductScored { .. });
    let scored = entries.iter().filter(|entry| scored(&entry.event));
    assert_eq!(scored.count(), 10);
}

#[test]
fn runs_from_before_there_was_judging_are_lessons() {
    let bench = Bench::new();
    for _ in 0..6 {
        let run = bench.begin(&Did::rows(1_000));
        bench.end(run);
    }
    let plugin = version("1.0.0");
    let record = bench.conduct.let_in(&plugin, Admission::Automatic, None);
    assert_eq!(record.expect("let in").standing, Standing::Probation);
    let odd = Did::rows(1_000).with(|did| did.bytes_out *= 50);
    assert_eq!(bench.run(&odd), ["bytes-out"]);
}

#[test]
fn what_is_known_is_the_same_however_it_was_read() {
    let mut bench = Bench::new();
    bench.rules = small();
    bench.ordinary(8);
    bench.run(&Did::rows(1_000).with(|did| did.bytes_out *= 50));
    let plugin = version("1.0.0");
    let told = |conduct: &Conduct| {
        let told = conduct.tell(&plugin, 5).expect("readable");
        serde_json::to_value(&told).expect("JSON")
    };
    let before = told(&bench.conduct);
    // Deleted, broken, and of another log: made anew each time.
    let file = bench.folder.path().join("conduct.sqlite");
    for content in [None, Some("this is no database, not at all")] {
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", file.display()));
        }
        if let Some(content) = content {
            std::fs::write(&file, content).expect("written");
        }
        let again = Conduct::open(bench.folder.path(), bench.audit.clone()).expect("a cache");
        assert_eq!(told(&again), before);
    }
    let other = Bench::new();
    other.ordinary(1);
    let (from, to) = (other.folder.path(), bench.folder.path());
    std::fs::copy(from.join("audit/log.jsonl"), to.join("audit/log.jsonl")).expect("copied");
    let again = Conduct::open(to, bench.audit.clone()).expect("a cache");
    let record = again.standing(&plugin.digest).expect("readable");
    assert_eq!(record.map(|it| it.standing), Some(Standing::Probation));
}

#[test]
fn two_processes_take_in_each_entry_once() {
    let bench = Bench::new();
    bench.ordinary(3);
    let other = Conduct::of_state(bench.folder.path()).expect("another process");
    let (one, two) = std::thread::scope(|scope| {
        let one = scope.spawn(|| {
            bench.ordinary(5);
            bench.conduct.tell(&version("1.0.0"), 5).expect("readable")
        });
        for _ in 0..20 {
            other.catch_up().expect("readable");
        }
        let one = one.join().expect("no panic");
        (one, other.tell(&version("1.0.0"), 5).expect("readable"))
    });
    let json = |told| serde_json::to_value(told).expect("JSON");
    assert_eq!(json(one), json(two));
}

#[test]
fn a_standing_that_nobody_knows_is_a_no() {
    let bench = Bench::new();
    bench.ordinary(1);
    let path = bench.folder.path().join("audit/log.jsonl");
    let text = std::fs::read_to_string(&path).expect("a log");
    let line = text
        .lines()
        .find(|line| line.contains("standing-changed"))
        .expect("an entry");
    let body = line.split_once("\",").expect("a digest").1;
    let body = body.replace("\"to\":\"probation\"", "\"to\":\"sanctified\"");
    let digest = Digest::of(format!("{{{body}").as_bytes());
    std::fs::write(&path, format!("{text}{{\"digest\":\"{digest}\",{body}\n")).expect("written");
    let error = bench
        .conduct
        .let_in(&version("1.0.0"), Admission::Automatic, None)
        .expect_err("who knows what that is");
    assert!(matches!(error, ConductError::Audit(_)), "{error}");
}

#[test]
fn a_throttled_plugin_is_slowed_down_until_it_is_released() {
    let mut bench = Bench::new();
    bench.response = Response::Throttle;
    bench.ordinary(6);
    let plugin = version("1.0.0");
    bench.run(&Did::rows(1_000).with(|did| did.bytes_out *= 50));
    let bounds = || {
        let conduct = &bench.conduct;
        let record = conduct.let_in(&plugin, Admission::Automatic, None);
        let record = record.expect("it may be loaded");
        conduct
            .bounds(&record, "loans", &bench.rules, Response::Throttle)
            .expect("readable")
    };
    assert_eq!(bounds().and_then(|it| it.pace_percent), Some(25));
    bench.ordinary(12);
    assert!(bounds().is_some(), "clean runs alone do not lift it");
    // Nor does one person who trusts it, where it takes two to release it.
    let trusted = bench
        .conduct
        .decide(Action::Trust, &plugin, "ann", "seen and understood");
    let error = trusted.expect_err("it is released first").to_string();
    assert!(error.contains("slowed down; `release` it first"), "{error}");
    assert!(bounds().is_some());
    bench
        .conduct
        .decide(Action::Release, &plugin, "ann", "seen and understood")
        .expect("it applies");
    assert_eq!(bounds(), None);
}

#[test]
fn bounds_are_of_what_most_runs_did() {
    let bench = Bench::new();
    bench.ordinary(8);
    let plugin = version("1.0.0");
    let record = bench.conduct.standing(&plugin.digest).expect("readable");
    let bounds = bench
        .conduct
        .bounds(
            &record.expect("known"),
            "loans",
            &bench.rules,
            Response::Kill,
        )
        .expect("readable")
        .expect("some");
    let stage = &bounds.stages[STAGE];
    assert!(stage.functions.contains("files.read") && stage.functions.contains("log.log"));
    assert!(!stage.functions.contains("clock.now"));
    assert_eq!(
        stage.targets.iter().collect::<Vec<_>>(),
        ["GET https://api.acme.example/v1"]
    );
    assert_eq!((stage.host_calls, stage.bytes_out), (120, 1 << 20));
    assert_eq!(stage.guest_seconds, 1.0);
    assert!((320.0..340.0).contains(&stage.for_each_row.bytes_out));
}

#[test]
fn an_approved_release_is_made_once_and_only_of_what_was_looked_at() {
    let bench = Bench::new();
    let plugin = version("1.0.0");
    let conduct = &bench.conduct;
    let quarantine = || {
        let record = conduct.decide(Action::Quarantine, &plugin, "ann", "odd");
        record.expect("it applies").sequence
    };
    conduct
        .let_in(&plugin, Admission::Automatic, None)
        .expect("admitted");
    conduct
        .could_decide(Action::Release, &plugin)
        .expect_err("it is not held");
    let first = quarantine();
    conduct
        .could_decide(Action::Release, &plugin)
        .expect("it is held");
    let release = |approval: &str, standing| {
        let who = "ann, approved by bob";
        let outcome = conduct.release_as_approved(approval, &plugin, standing, who, "looked at");
        outcome.expect("the log is written")
    };
    let standing = || {
        let record = conduct.standing(&plugin.digest).expect("readable");
        record.expect("it is known").standing
    };
    assert_eq!(release("a1", first), Ok(()));
    assert_eq!(standing(), Standing::Probation);
    // Again, as after a crash, when it has been quarantined anew: that is not what was approved.
    let second = quarantine();
    assert_eq!(release("a1", first), Ok(()));
    assert_eq!(standing(), Standing::Quarantined);
    release("a2", first).expect_err("it has another standing by now");
    assert_eq!(standing(), Standing::Quarantined);
    assert_eq!(release("a3", second), Ok(()));
    assert_eq!(standing(), Standing::Probation);
}

#[test]
fn what_a_served_model_does_is_judged_and_trusts_nobody() {
    let bench = Bench::new();
    let plugin = version("1.0.0");
    let conduct = &bench.conduct;
    conduct
        .let_in(&plugin, Admission::Automatic, None)
        .expect("admitted");
    let rules = ConductSection {
        trust_after: 2,
        ..ConductSection::default()
    };
    let tell = |stretch: &RunId, calls: &[(&str, u64)], (bytes_in, seconds): (u64, f64)| {
        bench.append(Event::CallsServed {
            run: stretch.clone(),
            model: "loans".to_owned(),
            version: 1,
            plugin: plugin.clone(),
            stage: "predict".to_owned(),
            seconds: 60.0,
            rows: 40,
            outcomes: [("finished".to_owned(), 40)].into(),
            host_calls: calls.iter().map(|(f, n)| ((*f).to_owned(), *n)).collect(),
            host_use: Default::default(),
            bytes_in,
            bytes_out: 400,
            guest_seconds: seconds,
            peak_memory_bytes: 1 << 20,
            denials: 0,
            compute_seconds: 0.0,
            compute_peak_bytes: 0,
            most: MostOfOne::default(),
        });
    };
    let serve = |calls: &[(&str, u64)]| {
        let stretch = RunId::generate();
        tell(&stretch, calls, (4_000, 0.01));
        stretch
    };
    let judge = |stretch: &RunId| {
        let judged = conduct.judge_served(stretch, &rules, Response::Quarantine);
        judged.expect("the log reads and writes")
    };
    let usual = [("batch.column", 40), ("session.infer", 40)];
    for _ in 0..8 {
        let judged = judge(&serve(&usual));
        assert!(judged.warnings().is_empty(), "{:?}", judged.warnings());
    }
    let record = || {
        let record = conduct.standing(&plugin.digest).expect("readable");
        record.expect("known")
    };
    assert_eq!(record().standing, Standing::Probation);
    assert_eq!(record().clean_runs, 0, "a minute is not a run");

    // One that nobody judged is a lesson to nobody, and is not judged by a run.
    let left = serve(&[("http.handle", 9)]);
    conduct
        .judge_left(&rules, |_| Response::Quarantine)
        .expect("readable");
    assert!(record().standing.may_load());
    let seen = conduct.seen_in(&left).expect("readable");
    assert_eq!(seen[0].lesson, Lesson::Open);
    assert_eq!(
        seen[0].place.to_string(),
        "predict of the served model loans"
    );

    // One that is written again, for nobody knew whether it was, counts once and stays judged.
    let again = serve(&usual);
    judge(&again);
    let before = conduct.seen_in(&again).expect("readable");
    tell(&again, &usual, (4_000, 0.01));
    let after = conduct.seen_in(&again).expect("readable");
    assert_eq!(after, before);

    // Who asks says how large what is read is: that is not held against the adapter.
    for bytes in [400_000_000, 4] {
        let large = RunId::generate();
        tell(&large, &usual, (bytes, 0.01));
        assert!(judge(&large).warnings().is_empty(), "{bytes}");
    }

    // What nobody can add up is judged like the rest.
    let (lies, most) = (RunId::generate(), u64::MAX);
    tell(
        &lies,
        &[("batch.column", most), ("session.infer", most)],
        (most, f64::MAX),
    );
    let judged = conduct.judge_served(&lies, &rules, Response::Alert);
    let warnings = judged.expect("it is a number").warnings();
    assert!(!warnings.is_empty(), "{warnings:?}");

    let judged = judge(&serve(&[("batch.column", 40), ("http.handle", 9)]));
    let warnings = judged.warnings();
    assert!(warnings[0].contains("http.handle"), "{warnings:?}");
    assert_eq!(record().standing, Standing::Quarantined);
}

#[test]
fn a_standing_that_somebody_else_wrote_counts_for_nothing() {
    let bench = Bench::new();
    let plugin = version("1.0.0");
    bench
        .conduct
        .let_in(&plugin, Admission::Automatic, None)
        .expect("admitted");
    bench
        .conduct
        .decide(Action::Quarantine, &plugin, "ann", "odd")
        .expect("it applies");
    let file = bench.folder.path().join("conduct.sqlite");
    let changed = |statement: &str| {
        let connection = rusqlite::Connection::open(&file).expect("the file is ours");
        let rows = connection.execute(statement, []).expect("it is written");
        assert!(rows > 0, "{statement}");
        let conduct = Conduct::open(bench.folder.path(), bench.audit.clone()).expect("a cache");
        let let_in = conduct.let_in(&plugin, Admission::Automatic, None);
        let error = let_in.expect_err("it is quarantined").to_string();
        assert!(
            error.contains("is quarantined since"),
            "{statement}: {error}"
        );
        // Who has it open all the while is not taken in either.
        connection.execute(statement, []).expect("it is written");
        bench
            .conduct
            .let_in(&plugin, Admission::Automatic, None)
            .expect_err("it is quarantined");
    };
    // Nor is what is written after it was looked at and before it is read.
    let caught_up = bench.conduct.standing(&plugin.digest);
    assert!(caught_up.expect("readable").is_some());
    let connection = rusqlite::Connection::open(&file).expect("the file is ours");
    for statement in ["DELETE FROM standings", "DELETE FROM place"] {
        connection.execute(statement, []).expect("it is written");
        let read = bench.conduct.cache.standing(&plugin.digest);
        assert!(matches!(read, Err(ConductError::Changed)), "{read:?}");
    }
    let again = bench.conduct.standing(&plugin.digest).expect("readable");
    assert_eq!(again.expect("by the log").standing, Standing::Quarantined);
    changed("UPDATE standings SET document = replace(document, '\"quarantined\"', '\"trusted\"')");
    changed("DELETE FROM standings");
    changed("UPDATE place SET seal = upper(seal)");
    // Without its key nothing that is there counts.
    std::fs::remove_file(bench.folder.path().join("conduct.key")).expect("it is there");
    let conduct = Conduct::open(bench.folder.path(), bench.audit.clone()).expect("a cache");
    conduct
        .let_in(&plugin, Admission::Automatic, None)
        .expect_err("it is quarantined");
}
