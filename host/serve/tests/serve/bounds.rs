//! What a client cannot do, however it tries.

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode};
use sandcast_serve::{FailureCause, ServeConfig};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::models::{Manner, Shelf};
use crate::{get, infer, one_row, one_row_but, post, router_with, send, tensor};

fn one() -> NonZeroUsize {
    NonZeroUsize::MIN
}

#[tokio::test]
async fn a_large_body_is_refused_before_it_is_read() {
    let config = ServeConfig {
        max_body_bytes: NonZeroU64::new(1_000).expect("not zero"),
        ..ServeConfig::default()
    };
    let router = router_with(&Shelf::new(Manner::Formula), config).await;
    let message = "the body is larger than 1000 bytes; send fewer rows in a request";
    let large = "x".repeat(1_001);
    let request = Request::post("/v2/models/credit/infer")
        .header("content-length", "1001")
        .body(Body::from(large.clone()));
    let answer = send(&router, request.expect("a request")).await;
    assert_eq!(answer.error(StatusCode::PAYLOAD_TOO_LARGE), message);
    // Without an announcement it is cut off where the limit is.
    let chunks = futures::stream::iter(
        large
            .into_bytes()
            .chunks(100)
            .map(Bytes::copy_from_slice)
            .map(Ok::<_, std::io::Error>)
            .collect::<Vec<_>>(),
    );
    let request = Request::post("/v2/models/credit/infer").body(Body::from_stream(chunks));
    let answer = send(&router, request.expect("a request")).await;
    assert_eq!(answer.error(StatusCode::PAYLOAD_TOO_LARGE), message);
    assert_eq!(infer(&router, &one_row()).await.status, StatusCode::OK);
}

#[tokio::test]
async fn too_many_rows_are_refused() {
    let config = ServeConfig {
        max_rows: NonZeroUsize::new(2).expect("not zero"),
        ..ServeConfig::default()
    };
    let router = router_with(&Shelf::new(Manner::Formula), config).await;
    let three = one_row_but("age", tensor("age", "INT64", json!([1, 2, 3])));
    assert_eq!(
        infer(&router, &three).await.error(StatusCode::BAD_REQUEST),
        "input tensor `age` has 3 rows; expected 1 to 2 in a request"
    );
    // Claiming them is enough.
    let claim = json!({ "name": "age", "shape": [u64::MAX], "datatype": "INT64", "data": [] });
    let error = infer(&router, &one_row_but("age", claim))
        .await
        .error(StatusCode::BAD_REQUEST);
    assert!(error.contains("expected 1 to 2"), "{error}");
}

#[tokio::test]
async fn a_packed_body_is_not_guessed_at() {
    let router = router_with(&Shelf::new(Manner::Formula), ServeConfig::default()).await;
    let request = Request::post("/v2/models/credit/infer")
        .header("content-encoding", "gzip")
        .body(Body::from(one_row().to_string()));
    let answer = send(&router, request.expect("a request")).await;
    let error = answer.error(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(error.contains("\"gzip\""), "{error}");
}

#[tokio::test]
async fn who_does_not_fit_is_sent_away() {
    let permits = Arc::new(Semaphore::new(0));
    let config = ServeConfig {
        max_concurrent: one(),
        max_queued: 1,
        ..ServeConfig::default()
    };
    let router = router_with(&Shelf::new(Manner::WhenTold(Arc::clone(&permits))), config).await;
    let ask = || {
        let router = router.clone();
        tokio::spawn(async move { infer(&router, &one_row()).await.status })
    };
    let running = ask();
    wait_for(&router, "sandcast_sandbox_instances 1").await;
    let waiting = ask();
    wait_for(&router, "sandcast_inference_queued 1").await;

    let answer = infer(&router, &one_row()).await;
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(
        answer.error(StatusCode::SERVICE_UNAVAILABLE),
        "1 predictions are running and 1 wait; try again in a second"
    );
    wait_for(&router, "sandcast_inference_rejected_total 1").await;

    permits.add_permits(3);
    assert_eq!(running.await.expect("no panic"), StatusCode::OK);
    assert_eq!(waiting.await.expect("no panic"), StatusCode::OK);
    assert_eq!(infer(&router, &one_row()).await.status, StatusCode::OK);
    wait_for(&router, "sandcast_inference_queued 0").await;
}

/// Asks until a line is there; a test that waits forever fails by the runner's patience.
async fn wait_for(router: &axum::Router, line: &str) {
    for _ in 0..500 {
        if get(router, "/metrics")
            .await
            .text()
            .lines()
            .any(|found| found == line)
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!(
        "{line} never came:\n{}",
        get(router, "/metrics").await.text()
    );
}

#[tokio::test]
async fn who_goes_away_leaves_nothing_behind() {
    let permits = Arc::new(Semaphore::new(0));
    let config = ServeConfig {
        max_concurrent: one(),
        max_queued: 0,
        ..ServeConfig::default()
    };
    let router = router_with(&Shelf::new(Manner::WhenTold(Arc::clone(&permits))), config).await;
    let impatient = tokio::spawn({
        let router = router.clone();
        async move { infer(&router, &one_row()).await.status }
    });
    wait_for(&router, "sandcast_sandbox_instances 1").await;
    impatient.abort();
    wait_for(&router, "sandcast_sandbox_instances 0").await;
    wait_for(&router, "sandcast_inference_in_flight 0").await;
    permits.add_permits(1);
    assert_eq!(infer(&router, &one_row()).await.status, StatusCode::OK);
}

#[tokio::test]
async fn who_takes_too_long_is_told_so() {
    let config = ServeConfig {
        request_timeout: Duration::from_millis(50),
        ..ServeConfig::default()
    };
    let router = router_with(&Shelf::new(Manner::Slowly(Duration::from_secs(60))), config).await;
    let error = infer(&router, &one_row())
        .await
        .error(StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(error, "no answer within 50ms; send fewer rows in a request");
    wait_for(
        &router,
        r#"sandcast_inference_failures_total{model="credit",version="1",cause="Timeout"} 1"#,
    )
    .await;
    wait_for(&router, "sandcast_sandbox_instances 0").await;
}

#[tokio::test]
async fn a_body_that_never_ends_is_given_up() {
    let config = ServeConfig {
        request_timeout: Duration::from_millis(50),
        ..ServeConfig::default()
    };
    let router = router_with(&Shelf::new(Manner::Formula), config).await;
    let never = futures::stream::pending::<Result<Bytes, std::io::Error>>();
    let request = Request::post("/v2/models/credit/infer").body(Body::from_stream(never));
    let answer = send(&router, request.expect("a request")).await;
    let error = answer.error(StatusCode::REQUEST_TIMEOUT);
    assert_eq!(error, "the body did not come within 50ms");
}

#[tokio::test]
async fn a_failing_adapter_is_an_answer_with_the_right_status() {
    for (cause, status) in [
        (FailureCause::Input, StatusCode::BAD_REQUEST),
        (FailureCause::Timeout, StatusCode::GATEWAY_TIMEOUT),
        (FailureCause::Unavailable, StatusCode::SERVICE_UNAVAILABLE),
        (FailureCause::Trap, StatusCode::INTERNAL_SERVER_ERROR),
        (FailureCause::Memory, StatusCode::INTERNAL_SERVER_ERROR),
        (FailureCause::Denied, StatusCode::INTERNAL_SERVER_ERROR),
        (FailureCause::Output, StatusCode::INTERNAL_SERVER_ERROR),
    ] {
        let shelf = Shelf::new(Manner::Failing(cause));
        let router = router_with(&shelf, ServeConfig::default()).await;
        let error = infer(&router, &one_row()).await.error(status);
        assert_eq!(
            error,
            format!("plugin `mlp` failed in stage `predict`: {cause:?}")
        );
        let line = format!(
            r#"sandcast_inference_failures_total{{model="credit",version="1",cause="{cause:?}"}} 1"#
        );
        wait_for(&router, &line).await;
        assert_eq!(
            get(&router, "/v2/health/ready").await.status,
            StatusCode::OK
        );
    }
}

#[tokio::test]
async fn an_answer_of_another_length_is_not_passed_on() {
    let router = router_with(&Shelf::new(Manner::TooManyRows), ServeConfig::default()).await;
    assert_eq!(
        infer(&router, &one_row())
            .await
            .error(StatusCode::INTERNAL_SERVER_ERROR),
        "the adapter's answer cannot be used: 2 rows of predictions for 1 rows"
    );
}

#[tokio::test]
async fn a_model_that_may_not_run_is_not_ready_and_answers_403_until_it_may() {
    let allowed = Arc::new(AtomicBool::new(true));
    let shelf = Shelf::new(Manner::WhileAllowed(Arc::clone(&allowed)));
    let router = router_with(&shelf, ServeConfig::default()).await;
    let ready = "/v2/models/credit/ready";
    let state = || async {
        let index = post(&router, "/v2/repository/index", &json!({}))
            .await
            .json();
        let line = index
            .as_array()
            .expect("lines")
            .iter()
            .find(|line| line["name"] == "credit");
        line.expect("the model")["state"].clone()
    };
    for _ in 0..2 {
        for path in [
            ready,
            "/v2/models/credit/versions/1/ready",
            "/v2/health/ready",
        ] {
            assert_eq!(get(&router, path).await.status, StatusCode::OK, "{path}");
        }
        assert_eq!(infer(&router, &one_row()).await.status, StatusCode::OK);
        assert_eq!(state().await, "READY");

        allowed.store(false, Ordering::Relaxed);
        let wanted = "`acme/mlp` is quarantined";
        assert_eq!(
            get(&router, ready).await.error(StatusCode::FORBIDDEN),
            wanted
        );
        let answer = infer(&router, &one_row()).await;
        assert_eq!(answer.error(StatusCode::FORBIDDEN), wanted);
        assert!(!answer.headers.contains_key("retry-after"));
        // Anybody may ask this, so it names nothing.
        let server = get(&router, "/v2/health/ready").await;
        assert_eq!(
            server.error(StatusCode::FORBIDDEN),
            "1 of 2 models may not run; /v2/models/{model}/ready says why"
        );
        assert_eq!(state().await, "UNAVAILABLE");
        // The others go on, and so does the process.
        for path in ["/v2/models/price/ready", "/v2/health/live"] {
            assert_eq!(get(&router, path).await.status, StatusCode::OK, "{path}");
        }
        allowed.store(true, Ordering::Relaxed);
    }
}
