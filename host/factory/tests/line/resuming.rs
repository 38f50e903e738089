//! Runs that end before their end: killed, cancelled, locked out.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandcast_audit::Event;
use sandcast_factory::{
    Observer, Pipeline, RunError, RunEvent, RunOptions, RunOutcome, RunStatus, Workspace, run,
};
use sandcast_sandbox::SandboxConfig;
use tokio_util::sync::CancellationToken;

use crate::bench::{AtStage, Bench, watched};

/// Tells the child which folder to run in.
const FOLDER: &str = "SANDCAST_TEST_FOLDER";

/// Tells the child at which stage to die; to run to its end if there is none.
const STAGE: &str = "SANDCAST_TEST_STAGE";

/// Tells the child after which epoch of its training to die.
const EPOCH: &str = "SANDCAST_TEST_EPOCH";

/// The test below that is the child's program.
const CHILD: &str = "resuming::the_child";

/// Runs the pipeline of a folder in a process of its own.
fn child(bench: &Bench, stage: Option<&str>) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args(["--exact", CHILD, "--nocapture", "--include-ignored"])
        .env(FOLDER, bench.folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some(stage) = stage {
        command.env(STAGE, stage);
    }
    command
}

/// What the child does. Not a test by itself.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the program of a process that another test starts"]
async fn the_child() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let folder = std::path::PathBuf::from(folder);
    let cache = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled");
    let config = SandboxConfig {
        cache_dir: Some(cache),
        ..SandboxConfig::default()
    };
    let workspace = Workspace::open_with(&folder.join("state"), config).expect("the state opens");
    let pipeline = Pipeline::load(&folder).expect("the pipeline is right");
    let options = if let Ok(stage) = std::env::var(STAGE) {
        watched(Arc::new(AtStage {
            stage,
            act: || std::process::abort(),
        }))
    } else if let Ok(epoch) = std::env::var(EPOCH) {
        RunOptions {
            checkpoint_every: Some(Duration::ZERO),
            ..watched(Arc::new(AfterEpoch(epoch.parse().expect("a number"))))
        }
    } else {
        RunOptions::default()
    };
    let outcome = run(&workspace, &pipeline, options)
        .await
        .expect("nothing of the host is wrong");
    assert!(matches!(outcome, RunOutcome::Completed(_)));
}

/// Dies when a training is past an epoch.
struct AfterEpoch(u32);

impl Observer for AfterEpoch {
    fn notice(&self, event: &RunEvent) {
        if matches!(event, RunEvent::Training { progress } if progress.epoch > self.0) {
            std::process::abort();
        }
    }
}

fn count(bench: &Bench, wanted: impl Fn(&Event) -> bool) -> usize {
    bench.events().iter().filter(|event| wanted(event)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_killed_goes_on_where_it_was() {
    let bench = Bench::new();
    let kept = ["connect people", "query", "validate", "train", "evaluate"];
    let deaths = [
        "query", "validate", "permit", "train", "evaluate", "gate", "register",
    ];
    for stage in deaths {
        let status = child(&bench, Some(stage))
            .status()
            .expect("the child starts");
        assert!(!status.success(), "the child dies at {stage}");
    }
    // Each of them did what the one before it had not done, and nothing again.
    let completed = bench.completes().await;
    assert!(bench.done_anew().is_empty(), "{:?}", bench.done_anew());
    assert_eq!((completed.version.version, completed.new), (1, true));
    let runs = bench.workspace().runs().expect("the state reads");
    let interrupted = runs
        .iter()
        .filter(|run| run.status == RunStatus::Interrupted)
        .count();
    assert_eq!(interrupted, deaths.len());
    for stage in kept {
        let anew = |event: &Event| matches!(event, Event::StageFinished { stage: done, cached: false, .. } if done == stage);
        assert_eq!(count(&bench, anew), 1, "{stage}");
    }
    assert_eq!(
        count(&bench, |event| matches!(event, Event::Registered { .. })),
        1
    );
    assert_eq!(
        count(&bench, |event| matches!(event, Event::AliasMoved { .. })),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_that_is_killed_goes_on_where_it_was_kept_and_comes_to_the_same_model() {
    // A seed of its own: trainings of the same seed and data share what is kept.
    let (whole, killed) = (Bench::new(), Bench::new());
    let epochs = |bench: &Bench, epochs: &str| {
        bench.write_pipeline(|text| {
            text.replace("seed: 7", "seed: 4711")
                .replace("epochs: 6", epochs)
        });
    };
    epochs(&whole, "epochs: 12");
    epochs(&killed, "epochs: 12");
    let wanted = whole.completes().await;
    let status = child(&killed, None)
        .env(EPOCH, "5")
        .status()
        .expect("the child starts");
    assert!(!status.success(), "the child dies in its training");
    let completed = killed.completes().await;
    assert_eq!(completed.version.artifact, wanted.version.artifact);
    let train = killed.latest().stages;
    let train = train.iter().find(|stage| stage.stage == "train");
    let message = &train.expect("the stage").message;
    assert!(message.contains("gone on with after step "), "{message}");
    // Whoever asks for everything anew gets it anew.
    let fresh = RunOptions {
        fresh: true,
        ..RunOptions::default()
    };
    epochs(&killed, "epochs: 13");
    let status = child(&killed, None)
        .env(EPOCH, "5")
        .status()
        .expect("the child starts");
    assert!(!status.success(), "the child dies in its training");
    run(&killed.workspace(), &killed.pipeline(), fresh)
        .await
        .expect("nothing of the host is wrong");
    let train = killed.latest().stages;
    let train = train.iter().find(|stage| stage.stage == "train");
    let message = &train.expect("the stage").message;
    assert!(!message.contains("gone on"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_killed_at_any_moment_does_no_harm() {
    let bench = Bench::new();
    for milliseconds in [40, 120, 260, 420, 600, 900] {
        let mut child = child(&bench, None).spawn().expect("the child starts");
        let until = Instant::now() + Duration::from_millis(milliseconds);
        while Instant::now() < until && child.try_wait().expect("it is ours").is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        // It may have come to its end, which is as good.
        let _ = child.kill();
        child.wait().expect("it is ours");
    }
    bench.completes().await;
    assert_eq!(
        count(&bench, |event| matches!(event, Event::Registered { .. })),
        1
    );
    assert_eq!(
        count(&bench, |event| matches!(event, Event::AliasMoved { .. })),
        1
    );
    let models = bench
        .workspace()
        .registry()
        .models()
        .expect("the state reads");
    assert_eq!(models[0].versions.len(), 1);
    let running = bench.workspace().runs().expect("the state reads");
    assert!(running.iter().all(|run| run.status != RunStatus::Running));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_cancelled_goes_on_later() {
    let bench = Bench::new();
    let cancel = CancellationToken::new();
    let token = cancel.clone();
    let observer = AtStage {
        stage: "train".to_owned(),
        act: move || token.cancel(),
    };
    let options = RunOptions {
        cancel,
        ..watched(Arc::new(observer))
    };
    let error = run(&bench.workspace(), &bench.pipeline(), options)
        .await
        .expect_err("cancelled");
    assert!(
        matches!(&error, RunError::Cancelled { stage } if stage == "train"),
        "{error}"
    );
    assert_eq!(bench.latest().status, RunStatus::Cancelled);
    bench.completes().await;
    assert_eq!(bench.done_anew(), ["train", "evaluate"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_do_not_share_a_state() {
    let bench = Bench::new();
    let (workspace, pipeline) = (bench.workspace(), bench.pipeline());
    let held = Arc::new(std::sync::Barrier::new(2));
    let (reached, released) = (Arc::clone(&held), Arc::clone(&held));
    let observer = AtStage {
        stage: "train".to_owned(),
        act: move || {
            reached.wait();
            reached.wait();
        },
    };
    let first =
        tokio::spawn(async move { run(&workspace, &pipeline, watched(Arc::new(observer))).await });
    tokio::task::block_in_place(|| released.wait());
    let error = bench.run().await.expect_err("the first is not done");
    assert!(matches!(error, RunError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("process"), "{error}");
    tokio::task::block_in_place(|| released.wait());
    let outcome = first
        .await
        .expect("it does not panic")
        .expect("nothing of the host is wrong");
    assert!(matches!(outcome, RunOutcome::Completed(_)));
}
