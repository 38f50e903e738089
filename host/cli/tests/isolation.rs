//! What works on a guest's bytes does so in a process that the kernel holds, and takes nobody with it.

mod apart;

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use sandcast_audit::{AuditLog, Event};
use sandcast_sandbox::process::{ProcessProgram, attempts};
use sandcast_sandbox::{
    ByteSize, CallError, ControlPoint, Effect, Grants, Isolation, Limits, LoadError, Plugin,
    RandomGrant, Recording, RecordingGrant, Recordings, Request, Role, Sandbox, StateGrant,
    TimeSpan, replay,
};
use serde_json::json;

use apart::{ALONE, children, component, context, processes, program, sandbox, told};

/// A policy that does nothing, with a module in it that takes long to compile.
fn heavy(functions: usize, adds: usize) -> Vec<u8> {
    let manifest = json!({
        "id": "acme/heavy", "version": "1.0.0", "role": "policy", "contract": "0.1.0",
        "capabilities": [],
    });
    let manifest = manifest.to_string().replace('"', "\\22");
    let mut module = String::new();
    for number in 0..functions {
        let _ = write!(module, "(func (param i64) (result i64) local.get 0");
        for add in 0..adds {
            let _ = write!(
                module,
                " i64.const {} i64.mul local.get 0 i64.xor",
                number + add
            );
        }
        module.push(')');
    }
    let text = format!(
        r#"(component
             (core module {module})
             (instance $role)
             (export "sandcast:plugin/policy@0.1.0" (instance $role))
             (@custom "sandcast:manifest" "{manifest}"))"#
    );
    wat::parse_str(text).expect("a component in text")
}

#[test]
fn a_confined_process_can_compute_and_nothing_else() {
    let tried = attempts(&program()).expect("a process");
    let wrong: Vec<_> = tried.iter().filter(|attempt| !attempt.is_right()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(tried.iter().any(|attempt| attempt.wanted));
    assert!(tried.iter().any(|attempt| !attempt.wanted));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_compiled_apart_decides() {
    let _alone = ALONE.lock().await;
    let audit = AuditLog::in_memory();
    let folder = tempfile::tempdir().expect("a folder");
    let cache = folder.path().to_path_buf();
    let sandbox = sandbox(&audit, |config| config.cache_dir = Some(cache));
    let grants = granted(Isolation::Engine);
    let plugin = load(&sandbox, "tests/guests/lots", Role::Policy, grants).await;
    let mut policy = plugin.policy(&context(), &json!({})).await.expect("made");
    let decision = policy.decide(&question("promote")).await.expect("decided");
    assert_eq!(decision.effect, Effect::Allow);
    policy.finish().expect("ended");
    let kept = fs::read_dir(folder.path()).expect("the cache");
    let kept = kept.filter_map(|file| file.ok()?.file_name().into_string().ok());
    assert_eq!(kept.filter(|name| name.ends_with(".cwasm")).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_compiles_too_long_is_ended_with_its_process() {
    let _alone = ALONE.lock().await;
    let audit = AuditLog::in_memory();
    let patience = Duration::from_millis(300);
    let sandbox = sandbox(&audit, |config| config.compile_timeout = patience);
    let bytes = heavy(4000, 400);
    let begun = Instant::now();
    let error = sandbox
        .load("heavy", &bytes, Role::Policy, Grants::default())
        .await
        .map(|_| ())
        .expect_err("it takes longer");
    assert!(matches!(error, LoadError::CompileTimeout { .. }), "{error}");
    assert!(error.to_string().contains("by the clock"), "{error}");
    // Nothing goes on compiling behind the back of whoever was told so.
    while children() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "it still runs");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let refused = audit.entries().expect("a log").into_iter();
    let refused = refused.filter(|entry| matches!(entry.event, Event::PluginRefused { .. }));
    assert_eq!(refused.count(), 1);
    // The next one is compiled.
    let next = sandbox
        .load("small", &heavy(1, 1), Role::Policy, Grants::default())
        .await
        .map(|_| ())
        .expect_err("it has no functions of a policy");
    assert!(next.to_string().contains("does not compile"), "{next}");
}

/// Stops the process that compiles for a while, once there is one, as a busy machine does.
fn hold_up(time: Duration) {
    let begun = Instant::now();
    let compiler = loop {
        match processes().into_iter().next() {
            Some(process) => break process,
            None => assert!(
                begun.elapsed() < Duration::from_secs(30),
                "nothing compiles"
            ),
        }
    };
    for signal in ["-STOP", "-CONT"] {
        let sent = Command::new("kill").args([signal, &compiler]).status();
        assert!(sent.expect("a signal").success(), "it has ended by then");
        if signal == "-STOP" {
            thread::sleep(time);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_is_bound_by_the_processor_time_it_takes_and_not_by_the_clock() {
    let _alone = ALONE.lock().await;
    let audit = AuditLog::in_memory();
    let sandbox = sandbox(&audit, |config| {
        config.compile_time = Duration::from_secs(1);
    });
    let error = sandbox
        .load("heavy", &heavy(4000, 400), Role::Policy, Grants::default())
        .await
        .map(|_| ())
        .expect_err("it takes more");
    let LoadError::CompileProcessorTime { limit_seconds, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(*limit_seconds, 1);
    let told = error.to_string();
    assert!(told.contains("1 s of processor time"), "{told}");
    assert_eq!(children(), 0);
    let refused = audit.entries().expect("a log").into_iter();
    let refused = refused.filter(|entry| matches!(entry.event, Event::PluginRefused { .. }));
    assert_eq!(refused.count(), 1);
    // While it is stopped the clock goes on and its time does not: an honest one is not refused for it.
    let held_up = Duration::from_millis(2500);
    let component = heavy(200, 200);
    let loading = sandbox.load("small", &component, Role::Policy, Grants::default());
    let holding = tokio::task::spawn_blocking(move || hold_up(held_up));
    let begun = Instant::now();
    let loaded = loading.await;
    holding.await.expect("it was held up");
    assert!(begun.elapsed() >= held_up);
    let next = loaded.map(|_| ()).expect_err("no functions of a policy");
    assert!(matches!(next, LoadError::Compile { .. }), "{next}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_takes_the_compiler_too_much_memory_takes_no_more_than_that() {
    let _alone = ALONE.lock().await;
    let audit = AuditLog::in_memory();
    let sandbox = sandbox(&audit, |config| config.compile_memory_bytes = 96 << 20);
    let error = sandbox
        .load("heavy", &heavy(16, 20_000), Role::Policy, Grants::default())
        .await
        .map(|_| ())
        .expect_err("it takes more");
    let told = error.to_string();
    assert!(
        told.contains("its compiler, which may use 96 MiB, ended with signal"),
        "{told}"
    );
    assert_eq!(children(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_process_nothing_compiles() {
    let _alone = ALONE.lock().await;
    let audit = AuditLog::in_memory();
    for (path, why) in [
        ("/nowhere/sandcast", "No such file"),
        // A program that knows nothing of this.
        ("/bin/true", "ended with"),
    ] {
        let program = ProcessProgram::at(path);
        let sandbox = sandbox(&audit, |config| config.process = Some(program));
        let error = sandbox
            .load("any", &heavy(1, 1), Role::Policy, Grants::default())
            .await
            .map(|_| ())
            .expect_err("no process");
        assert!(error.to_string().contains(why), "{error}");
    }
}

fn granted(isolation: Isolation) -> Grants {
    Grants {
        isolation,
        clock: true,
        random: Some(RandomGrant { seed: Some(7) }),
        limits: Limits {
            memory: ByteSize::from_bytes(256 << 20),
            call_timeout: TimeSpan::from_secs(5),
            ..Limits::default()
        },
        ..Grants::default()
    }
}

async fn load(sandbox: &Sandbox, guest: &str, role: Role, grants: Grants) -> Plugin {
    let loaded = sandbox.load("guest", &component(guest), role, grants).await;
    loaded.expect("it loads")
}

fn question(action: &str) -> Request {
    Request {
        control_point: ControlPoint::Promote,
        principal: "pipeline:test".into(),
        action: action.into(),
        resource: "model:test".into(),
        context: json!({ "approved": true }),
    }
}

/// What a validator makes of a batch, in words; with everything that it says.
async fn checked(plugin: &Plugin, behaviour: &str) -> String {
    let rows = RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef),
        (
            "name",
            Arc::new(StringArray::from(vec![Some("a"), None, Some("c")])),
        ),
    ])
    .expect("rows");
    let config = json!({ "behaviour": behaviour });
    let judged = async {
        let mut validator = plugin
            .validator(&context(), &config, &rows.schema())
            .await?;
        let mut said = format!("{:?}", validator.rules());
        for part in [rows.clone(), rows.slice(1, 2)] {
            said.push_str(&format!("\n{:?}", validator.check(&part).await?));
        }
        Ok::<_, CallError>(format!("{said}\n{:?}", validator.finish().await?))
    };
    match judged.await {
        Ok(said) => said,
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validator_in_a_process_says_what_it_says_in_the_engine() {
    let _alone = ALONE.lock().await;
    let mut logs = Vec::new();
    let mut said = Vec::new();
    let folder = tempfile::tempdir().expect("a folder");
    // One that may keep state asks the host for everything, also for its columns.
    for (isolation, state) in [
        (Isolation::Engine, None),
        (Isolation::Process, None),
        (Isolation::Process, Some(StateGrant::default())),
    ] {
        let audit = AuditLog::in_memory();
        let kept = folder.path().join("plugin-state.sqlite");
        let sandbox = sandbox(&audit, |config| config.plugin_state = Some(kept));
        let guest = "tests/guests/hostile-validator";
        let grants = Grants {
            state,
            ..granted(isolation)
        };
        let mut more_time = grants.clone();
        more_time.limits.call_timeout = TimeSpan::from_secs(60);
        let hasty = load(&sandbox, guest, Role::Validator, grants).await;
        let patient = load(&sandbox, guest, Role::Validator, more_time).await;
        let mut outcomes = Vec::new();
        for behaviour in [
            "behave",
            "fail",
            "spin",
            "spin-in-finish",
            "memory",
            "trap",
            "stack",
            "flood-log",
            "row-past-the-end",
            "falling-rows",
            "twin-rows",
            "many-rows",
            "unknown-rule",
            "unknown-column",
            "many-findings",
            "long-message",
            "mostly-above-one",
            "twin-rules",
            "many-rules",
            "pass-anyway",
            "claim-rows",
            "no-verdict",
            "column-past-the-end",
            "no-such-behaviour",
        ] {
            // Only those that never end by themselves are to be ended soon.
            let plugin = match behaviour {
                "spin" | "spin-in-finish" => &hasty,
                _ => &patient,
            };
            let came = checked(plugin, behaviour).await;
            outcomes.push(format!("{behaviour}: {came}"));
        }
        // A number that JSON does not know is refused all the same.
        let strange = checked(&patient, "mostly-not-a-number").await;
        assert!(strange.contains("returned something wrong"), "{strange}");
        assert_eq!(sandbox.live_instances(), 0);
        assert!(children() <= 8, "processes that wait for work are few");
        said.push(outcomes);
        logs.push(told(&audit));
        drop((hasty, patient, sandbox));
        assert_eq!(children(), 0, "they end with their plugin");
    }
    for apart in [1, 2] {
        for (here, there) in said[0].iter().zip(&said[apart]) {
            assert_eq!(here, there);
        }
        assert_eq!(logs[0], logs[apart]);
    }
    assert!(logs[0].iter().any(|line| line.starts_with("denied log")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_in_a_process_is_recorded_and_replayed() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().expect("a folder");
    let recordings = Recordings::at(folder.path().join("recordings"));
    let audit = AuditLog::in_memory();
    let kept = recordings.clone();
    let sandbox = sandbox(&audit, |config| config.recordings = Some(kept));
    let grants = Grants {
        random: Some(RandomGrant { seed: None }),
        recording: Some(RecordingGrant::default()),
        ..granted(Isolation::Process)
    };
    let plugin = load(&sandbox, "tests/guests/lots", Role::Policy, grants).await;
    let mut policy = plugin
        .policy(&context(), &json!({ "looks": 2 }))
        .await
        .expect("made");
    let first = policy.decide(&question("promote")).await.expect("decided");
    let second = policy.decide(&question("archive")).await.expect("decided");
    assert_eq!((first.effect, second.effect), (Effect::Allow, Effect::Deny));
    assert_ne!(first.reasons, second.reasons);
    let usage = policy.finish().expect("ended");
    let drawn = usage
        .host_calls
        .keys()
        .any(|name| name.starts_with("random."));
    assert!(drawn, "{:?}", usage.host_calls);
    let digest = usage.recording.expect("a recording");
    let recording = Recording::read(&recordings, &digest).expect("it is there");
    assert!(recording.host_calls() > 4);
    assert_eq!(recording.grants.isolation, Isolation::Process);
    // A replay is in the engine, and nothing but what was kept comes to it.
    let replayed = replay(&sandbox, &recordings, &recording)
        .await
        .expect("replayed");
    assert!(replayed.is_same(), "{replayed:?}");
    assert_eq!(replayed.calls.len(), 3);
    // One that is stopped is recorded too, and its process serves nobody else.
    let mut policy = plugin.policy(&context(), &json!({})).await.expect("made");
    let error = policy
        .decide(&question("spin"))
        .await
        .expect_err("it never ends");
    assert!(matches!(error, CallError::Timeout { .. }), "{error}");
    drop(policy);
    let entries = audit.entries().expect("a log in memory").into_iter();
    let kept = entries.filter(|entry| matches!(entry.event, Event::Recorded { .. }));
    assert_eq!(kept.count(), 2);
    assert_eq!(children(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_gone_takes_its_instance_and_nothing_else() {
    let _alone = ALONE.lock().await;
    let audit = AuditLog::in_memory();
    let sandbox = sandbox(&audit, |_| {});
    let guest = "tests/guests/lots";
    let plugin = load(&sandbox, guest, Role::Policy, granted(Isolation::Process)).await;
    let config = json!({});
    let mut policy = plugin.policy(&context(), &config).await.expect("made");
    policy.decide(&question("promote")).await.expect("decided");
    for process in processes() {
        let killed = Command::new("kill").args(["-9", &process]).status();
        assert!(killed.expect("kill").success());
    }
    let error = policy
        .decide(&question("promote"))
        .await
        .expect_err("it is gone");
    assert!(
        error
            .to_string()
            .contains("the process that it runs in is gone"),
        "{error}"
    );
    let error = policy
        .decide(&question("promote"))
        .await
        .expect_err("it was closed");
    assert!(matches!(error, CallError::Ended { .. }), "{error}");
    drop(policy);
    let mut policy = plugin
        .policy(&context(), &config)
        .await
        .expect("another process");
    policy.decide(&question("promote")).await.expect("decided");
    policy.finish().expect("ended");
    let ends: Vec<String> = told(&audit);
    assert!(ends[0].starts_with("trapped"), "{ends:?}");
    assert!(ends[1].starts_with("finished"), "{ends:?}");
    // The process of the one that ended well waits, and serves the next.
    let waiting = processes();
    assert_eq!(waiting.len(), 1);
    let policy = plugin.policy(&context(), &config).await.expect("made");
    assert_eq!(processes(), waiting);
    policy.finish().expect("ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_a_program_for_it_runs_nothing_in_a_process() {
    let _alone = ALONE.lock().await;
    let audit = AuditLog::in_memory();
    let without = sandbox(&audit, |config| config.process = None);
    let (oracle, grants) = (component("tests/guests/lots"), granted(Isolation::Process));
    let error = without.load("guest", &oracle, Role::Policy, grants).await;
    let error = error.map(|_| ()).expect_err("it cannot be given");
    assert!(
        error.to_string().contains("plugins.guest.grants.isolation")
            && error.to_string().contains("no program to start"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standard_library_in_a_process_prints_and_is_denied_as_it_is_in_the_engine() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().expect("a folder");
    let rows =
        RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)])
            .expect("rows");
    let mut logs = Vec::new();
    // With state everything is asked of the host, also the streams that are printed to.
    for (isolation, state) in [
        (Isolation::Engine, None),
        (Isolation::Process, None),
        (Isolation::Process, Some(StateGrant::default())),
    ] {
        let audit = AuditLog::in_memory();
        let kept = folder.path().join("plugin-state.sqlite");
        let sandbox = sandbox(&audit, |config| config.plugin_state = Some(kept));
        let grants = Grants {
            isolation,
            state,
            ..Grants::default()
        };
        let plugin = load(&sandbox, "tests/guests/noise", Role::Validator, grants).await;
        let config = json!({ "lines": 50 });
        let validator = plugin.validator(&context(), &config, &rows.schema()).await;
        let mut validator = validator.expect("it is configured");
        validator.check(&rows).await.expect("it checks");
        let verdicts = validator.finish().await.expect("it judges");
        logs.push((format!("{verdicts:?}"), told(&audit)));
    }
    assert_eq!(logs[0], logs[1]);
    assert_eq!(logs[0], logs[2]);
}
