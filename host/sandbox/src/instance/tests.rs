use std::time::Instant;

use tokio::time::timeout;

use super::*;
use crate::testing::{Bench, PolicyText, configuring, context, request};
use crate::{ByteSize, Grants, Limits, TimeSpan};

fn limits(change: impl FnOnce(&mut Limits)) -> Grants {
    let mut limits = Limits::default();
    change(&mut limits);
    Grants {
        limits,
        ..Grants::default()
    }
}

/// Configures a hostile guest and says how it went, then checks that the host is unharmed: the
/// next guest runs.
async fn hostile(configure: &str, grants: Grants) -> (CallError, Bench) {
    let bench = Bench::new();
    let outcome = bench
        .configure(&configuring(configure), grants, serde_json::json!({}))
        .await;
    let error = outcome.map(|_| ()).expect_err("a guest that must fail");
    let message = error.to_string();
    assert!(
        message.contains("`test`") && message.contains("`testing`"),
        "{message}"
    );
    bench
        .configure(&configuring(""), Grants::default(), serde_json::json!({}))
        .await
        .expect("the next guest is not harmed");
    assert_eq!(bench.sandbox.live_instances(), 0, "nothing is left behind");
    (error, bench)
}

fn outcomes(bench: &Bench) -> Vec<String> {
    let outcomes = bench.events().into_iter().filter_map(|event| match event {
        Event::CallsFinished { outcome, .. } => Some(outcome),
        _ => None,
    });
    outcomes.collect()
}

#[tokio::test]
async fn a_guest_that_spins_is_stopped_in_time() {
    let grants = limits(|limits| limits.call_timeout = TimeSpan::from_millis(100));
    let started = Instant::now();
    let (error, bench) = hostile("(loop $again (br $again))", grants).await;
    assert!(
        matches!(&error, CallError::Timeout { limit, limit_seconds, .. } if limit == "call_timeout" && *limit_seconds == 0.1),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("plugins.test.grants.limits.call_timeout"),
        "{error}"
    );
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(outcomes(&bench), ["out of time", "finished"]);
}

#[tokio::test]
async fn a_guest_that_spins_does_not_hold_up_other_tasks() {
    let bench = Bench::new();
    let grants = limits(|limits| limits.call_timeout = TimeSpan::from_millis(1500));
    let plugin = bench
        .load(&configuring("(loop $again (br $again))"), grants)
        .await;
    let context = context();
    let config = serde_json::json!({});
    let spinning = plugin.policy(&context, &config);
    let other = async {
        let mut turns = 0;
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(1) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            turns += 1;
        }
        turns
    };
    // One thread runs both, so the other task moves only if the guest is interrupted: else it
    // has one turn before the guest and one after.
    let (stopped, turns) = tokio::join!(spinning, other);
    assert!(stopped.is_err());
    assert!(turns >= 5, "the other task had {turns} turns");
}

#[tokio::test]
async fn the_sum_of_all_calls_is_limited_too() {
    let bench = Bench::new();
    let grants = limits(|limits| {
        limits.call_timeout = TimeSpan::from_secs(10);
        limits.total_timeout = TimeSpan::from_millis(300);
    });
    // About a tenth of a second or more in debug and release alike, and far under ten.
    let decide = "(local $i i32) (local.set $i (i32.const 100000000))
        (loop $again (br_if $again (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))";
    let text = PolicyText {
        decide,
        ..PolicyText::default()
    };
    let mut policy = bench
        .configure(&text.component(), grants, serde_json::json!({}))
        .await
        .expect("configured");
    for _ in 0..1000 {
        match policy.decide(&request()).await {
            Ok(_) => {}
            Err(CallError::Timeout { limit, .. }) => {
                assert_eq!(limit, "total_timeout");
                return;
            }
            Err(other) => panic!("{other}"),
        }
    }
    panic!("a thousand calls fit into 300 ms");
}

#[tokio::test]
async fn a_guest_that_eats_memory_is_stopped() {
    let grants = limits(|limits| limits.memory = ByteSize::from_mib(4));
    let bomb = "(loop $again
        (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
        (br $again))";
    let (error, bench) = hostile(bomb, grants).await;
    assert!(
        matches!(&error, CallError::MemoryLimit { limit_bytes, .. } if *limit_bytes == 4 << 20),
        "{error}"
    );
    let peaks = bench.events().into_iter().filter_map(|event| match event {
        Event::CallsFinished {
            peak_memory_bytes, ..
        } => Some(peak_memory_bytes),
        _ => None,
    });
    let peak = peaks.max().expect("a record");
    assert!(peak > 2 << 20 && peak <= 4 << 20, "{peak}");
}

#[tokio::test]
async fn a_memory_that_starts_too_large_is_refused() {
    let grants = limits(|limits| limits.memory = ByteSize::from_kib(64));
    let (error, _) = hostile("", grants).await;
    assert!(matches!(error, CallError::MemoryLimit { .. }), "{error}");
}

#[tokio::test]
async fn a_guest_that_traps_is_named_with_its_cause() {
    for (configure, cause) in [
        ("unreachable", "unreachable"),
        (
            "(drop (i32.div_u (i32.const 1) (local.get $a)))",
            "divide by zero",
        ),
        ("(drop (i32.load (i32.const -4)))", "out of bounds"),
        ("(drop (call_indirect (result i32) (local.get $a)))", ""),
    ] {
        let rest = "(table 1 funcref)";
        let bench = Bench::new();
        let text = PolicyText {
            configure,
            rest,
            ..PolicyText::default()
        };
        let error = bench
            .configure(&text.component(), Grants::default(), serde_json::json!({}))
            .await
            .map(|_| ())
            .expect_err("a trap");
        assert!(
            matches!(&error, CallError::Trap { cause: found, .. } if found.contains(cause)),
            "{configure}: {error}"
        );
    }
}

#[tokio::test]
async fn a_guest_that_overflows_its_stack_is_stopped() {
    let bench = Bench::new();
    let text = PolicyText {
        configure: "(call $deeper)",
        rest: "(func $deeper (call $deeper))",
        ..PolicyText::default()
    };
    let error = bench
        .configure(&text.component(), Grants::default(), serde_json::json!({}))
        .await
        .map(|_| ())
        .expect_err("no stack is that deep");
    assert!(
        matches!(&error, CallError::Trap { cause, .. } if cause.contains("overflowed its stack")),
        "{error}"
    );
}

#[tokio::test]
async fn a_guest_that_grows_a_table_without_end_gets_no_more() {
    let grants = limits(|limits| limits.table_elements = 1000);
    let bench = Bench::new();
    // Asks for 10,000 elements and traps if it gets them.
    let text = PolicyText {
        configure: "(if (i32.ne (table.grow (ref.null func) (i32.const 10000)) (i32.const -1))
            (then unreachable))",
        rest: "(table 1 funcref)",
        ..PolicyText::default()
    };
    bench
        .configure(&text.component(), grants, serde_json::json!({}))
        .await
        .expect("refused to it");
}

#[tokio::test]
async fn an_answer_out_of_bounds_is_a_trap_and_no_more() {
    // The answer at 1024 is a failure whose message lies outside the memory.
    let lie = "(i32.store8 (i32.const 1024) (i32.const 1))
        (i32.store (i32.const 1032) (i32.const 0x7fffff00))
        (i32.store (i32.const 1036) (i32.const 0x7fffff00))";
    let (error, _) = hostile(lie, Grants::default()).await;
    assert!(matches!(&error, CallError::Trap { .. }), "{error}");
    // Or whose code is none.
    let lie = "(i32.store8 (i32.const 1024) (i32.const 1))
        (i32.store8 (i32.const 1028) (i32.const 99))";
    let (error, _) = hostile(lie, Grants::default()).await;
    assert!(matches!(&error, CallError::Trap { .. }), "{error}");
}

#[tokio::test]
async fn an_answer_over_the_bound_is_refused() {
    let grants = limits(|limits| limits.output_bytes = ByteSize::from_kib(16));
    // A failure with a message of 64 KiB.
    let long = "(i32.store8 (i32.const 1024) (i32.const 1))
        (i32.store (i32.const 1032) (i32.const 0))
        (i32.store (i32.const 1036) (i32.const 65536))";
    let (error, _) = hostile(long, grants).await;
    assert!(
        matches!(&error, CallError::OverLimit { limit, .. } if limit == "limits.output_bytes"),
        "{error}"
    );
}

#[tokio::test]
async fn a_failure_is_a_value_and_its_text_is_made_fit_to_show() {
    let bench = Bench::new();
    let text = PolicyText {
        configure: "(i32.store8 (i32.const 1024) (i32.const 1))
            (i32.store8 (i32.const 1028) (i32.const 0))
            (i32.store (i32.const 1032) (i32.const 512))
            (i32.store (i32.const 1036) (i32.const 12))",
        rest: r#"(data (i32.const 512) "no \1b[31m key")"#,
        ..PolicyText::default()
    };
    let error = bench
        .configure(&text.component(), Grants::default(), serde_json::json!({}))
        .await
        .map(|_| ())
        .expect_err("a failure");
    let CallError::Failed { failure, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(failure.code, FailureCode::InvalidConfig);
    assert_eq!(failure.message, "no \\u{1b}[31m key");
}

#[tokio::test]
async fn a_call_that_is_dropped_half_way_ends_the_instance() {
    let bench = Bench::new();
    let text = PolicyText {
        decide: "(loop $again (br $again))",
        ..PolicyText::default()
    };
    let mut policy = bench
        .configure(&text.component(), Grants::default(), serde_json::json!({}))
        .await
        .expect("configured");
    let question = request();
    let half_way = timeout(Duration::from_millis(100), policy.decide(&question));
    assert!(half_way.await.is_err(), "it was dropped");
    let error = policy
        .decide(&question)
        .await
        .expect_err("its Store is gone");
    assert!(matches!(error, CallError::Ended { .. }), "{error}");
    assert_eq!(outcomes(&bench), ["cancelled"]);
}

#[tokio::test]
async fn a_plugin_that_has_its_share_of_instances_waits_and_keeps_nobody_else_waiting() {
    let bench = Bench::new();
    let one = limits(|limits| limits.at_once = std::num::NonZeroU32::MIN);
    let component = configuring("");
    let (greedy, other) = (
        bench.load(&component, one.clone()).await,
        bench.load(&component, one).await,
    );
    let (context, config) = (context(), serde_json::json!({}));
    let first = greedy.policy(&context, &config).await.expect("its share");
    let second = timeout(Duration::from_millis(100), greedy.policy(&context, &config));
    assert!(second.await.is_err(), "it waits");
    other
        .policy(&context, &config)
        .await
        .expect("another's share");
    drop(first);
    greedy
        .policy(&context, &config)
        .await
        .expect("a place again");
}

fn fair(back_off: Duration) -> Bench {
    Bench::with(|config| {
        config.fairness = Some(crate::Fairness {
            long_calls: std::num::NonZeroUsize::MIN,
            back_off,
        });
    })
}

/// A policy whose decision is this.
async fn deciding(bench: &Bench, decide: &str, call_timeout: u64) -> crate::Plugin {
    let text = PolicyText {
        decide,
        ..PolicyText::default()
    };
    let grants = limits(|limits| limits.call_timeout = TimeSpan::from_millis(call_timeout));
    bench.load(&text.component(), grants).await
}

/// Waits until so many calls go on among the long ones.
async fn long_calls(bench: &Bench, number: usize) {
    let long = bench.sandbox.long_calls().expect("threads for them");
    for _ in 0..2_000 {
        if long.number() == number {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{} long calls go on, not {number}", long.number());
}

const FOR_EVER: &str = "(loop $again (br $again))";

/// Two that never come back and share a thread are each given the time that they may have, and no less
/// because the other had it; nothing of them is on the threads of others.
#[tokio::test]
async fn long_calls_go_on_elsewhere_and_waiting_for_each_other_is_not_their_time() {
    let bench = fair(Duration::from_millis(1));
    let plugin = deciding(&bench, FOR_EVER, 300).await;
    let began = Instant::now();
    let calls: Vec<_> = (0..2)
        .map(|_| {
            let plugin = plugin.clone();
            tokio::spawn(async move {
                let policy = plugin.policy(&context(), &serde_json::json!({})).await;
                let mut policy = policy.expect("configured");
                let error = policy.decide(&request()).await.expect_err("no end");
                assert!(matches!(error, CallError::Timeout { .. }), "{error}");
            })
        })
        .collect();
    // This thread has none of them then, and it is the only one.
    long_calls(&bench, 2).await;
    for call in calls {
        call.await.expect("no panic");
    }
    let used = bench.events().into_iter().filter_map(|event| match event {
        Event::CallsFinished { guest_seconds, .. } => Some(guest_seconds),
        _ => None,
    });
    let used: Vec<f64> = used.collect();
    assert!(
        used.len() == 2 && used.iter().all(|seconds| *seconds >= 0.29),
        "{used:?}"
    );
    assert!(
        began.elapsed() >= Duration::from_millis(550),
        "one after the other, nearly: {:?}",
        began.elapsed()
    );
    assert_eq!(bench.sandbox.live_instances(), 0);
}

#[tokio::test]
async fn what_a_long_call_returns_comes_back_and_so_does_its_instance() {
    let bench = fair(Duration::from_millis(1));
    let long = "(local $i i32) (local.set $i (i32.const 200000000))
        (loop $again (br_if $again (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))";
    let plugin = deciding(&bench, long, 60_000).await;
    let policy = plugin.policy(&context(), &serde_json::json!({})).await;
    let mut policy = policy.expect("configured");
    for _ in 0..2 {
        let moved = {
            let request = request();
            let deciding = policy.decide(&request);
            tokio::pin!(deciding);
            tokio::select! {
                biased;
                () = long_calls(&bench, 1) => {}
                decided = &mut deciding => panic!("it was not long: {decided:?}"),
            }
            deciding.await
        };
        moved.expect("a decision");
    }
    policy.finish().expect("ended");
    assert_eq!(outcomes(&bench), ["finished"]);
}

#[tokio::test]
async fn a_long_call_that_is_given_up_ends_by_itself_and_is_on_record() {
    let bench = fair(Duration::from_millis(1));
    let plugin = deciding(&bench, FOR_EVER, 60_000).await;
    let policy = plugin.policy(&context(), &serde_json::json!({})).await;
    let mut policy = policy.expect("configured");
    {
        let request = request();
        let deciding = policy.decide(&request);
        tokio::pin!(deciding);
        tokio::select! {
            biased;
            () = long_calls(&bench, 1) => {}
            decided = &mut deciding => panic!("{decided:?}"),
        }
    }
    drop(policy);
    long_calls(&bench, 0).await;
    for _ in 0..1_000 {
        if bench.sandbox.live_instances() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(bench.sandbox.live_instances(), 0, "its place is free");
    assert_eq!(outcomes(&bench), ["cancelled"]);
    let seconds = bench.events().into_iter().find_map(|event| match event {
        Event::CallsFinished { guest_seconds, .. } => Some(guest_seconds),
        _ => None,
    });
    assert!(
        // A tick or so; less where the machine has much else to do.
        seconds.is_some_and(|seconds| seconds > 0.0),
        "{seconds:?}"
    );
}

#[tokio::test]
async fn a_plugin_that_fails_on_end_waits_for_its_next_instance_and_no_other_does() {
    let most = Duration::from_millis(200);
    let bench = fair(most);
    let broken = PolicyText {
        decide: "unreachable",
        ..PolicyText::default()
    };
    let broken = bench.load(&broken.component(), Grants::default()).await;
    let (context, config) = (context(), serde_json::json!({}));
    let began = Instant::now();
    for _ in 0..9 {
        let mut policy = broken.policy(&context, &config).await.expect("in time");
        policy.decide(&request()).await.expect_err("a trap");
    }
    // After the third failure 10 ms, twice that each time, and 200 at most.
    let waited = began.elapsed();
    assert!(waited >= Duration::from_millis(500), "{waited:?}");
    // One waits; those who come meanwhile are told.
    let (one, two, three) = tokio::join!(
        broken.policy(&context, &config),
        broken.policy(&context, &config),
        broken.policy(&context, &config),
    );
    let told: Vec<CallError> = [one, two, three]
        .into_iter()
        .filter_map(Result::err)
        .collect();
    assert!(!told.is_empty(), "not all of them wait");
    for error in told {
        assert!(
            error.to_string().contains("failed one after the other"),
            "{error}"
        );
    }
    let other = bench.load(&configuring(""), Grants::default()).await;
    let began = Instant::now();
    other.policy(&context, &config).await.expect("another's");
    assert!(began.elapsed() < most, "it does not wait");
}

#[tokio::test]
async fn an_instance_that_trapped_is_not_asked_again() {
    let bench = Bench::new();
    let text = PolicyText {
        decide: "unreachable",
        ..PolicyText::default()
    };
    let mut policy = bench
        .configure(&text.component(), Grants::default(), serde_json::json!({}))
        .await
        .expect("configured");
    let first = policy.decide(&request()).await.expect_err("a trap");
    assert!(matches!(first, CallError::Trap { .. }), "{first}");
    let second = policy.decide(&request()).await.expect_err("gone");
    assert!(matches!(second, CallError::Ended { .. }), "{second}");
    assert_eq!(outcomes(&bench), ["trapped"]);
}

#[tokio::test]
async fn an_instance_whose_end_cannot_be_recorded_counts_for_nothing() {
    let (bench, breaks) = Bench::with_a_log_that_breaks();
    let plugin = bench.load(&configuring(""), Grants::default()).await;
    let policy = plugin.policy(&context(), &serde_json::json!({})).await;
    let policy = policy.expect("configured");
    breaks();
    let error = policy.finish().expect_err("nobody knows that it ran");
    let CallError::Host { reason, .. } = &error else {
        panic!("{error}");
    };
    assert!(
        reason.contains("counts for nothing: the end of an instance"),
        "{reason}"
    );
}

#[tokio::test]
async fn an_unrecorded_plugin_leaves_no_record_of_its_calls() {
    let bench = Bench::new();
    let plugin = bench
        .load(&configuring(""), Grants::default())
        .await
        .unrecorded();
    plugin
        .policy(&context(), &serde_json::json!({}))
        .await
        .expect("configured");
    assert_eq!(outcomes(&bench), [""; 0]);
}

#[tokio::test]
async fn the_same_works_in_a_pool() {
    let bench = Bench::with(|config| config.pooling = crate::Pooling::Auto);
    let plugin = bench.load(&configuring(""), Grants::default()).await;
    let mut alive = Vec::new();
    for _ in 0..40 {
        alive.push(
            plugin
                .policy(&context(), &serde_json::json!({}))
                .await
                .expect("configured"),
        );
    }
    assert_eq!(bench.sandbox.live_instances(), 40);
    drop(alive);
    assert_eq!(bench.sandbox.live_instances(), 0);
}
