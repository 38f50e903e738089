//! Models that write: what may be asked of them, and what comes back.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode};
use sandcast_serve::{FailureCause, ServeConfig};
use serde_json::{Value, json};

use crate::models::{Manner, Shelf};
use crate::{Answer, get, post, router_with, send};

const PATH: &str = "/v1/completions";

async fn router(manner: Manner) -> Router {
    router_for(manner, ServeConfig::default()).await
}

async fn router_for(manner: Manner, config: ServeConfig) -> Router {
    let shelf = Shelf::new(manner);
    shelf.names.lock().expect("no panic").push("writer");
    router_with(&Arc::clone(&shelf), config).await
}

async fn ask(router: &Router, more: Value) -> Answer {
    let mut request = json!({ "model": "writer", "prompt": "Rain" });
    let object = request.as_object_mut().expect("an object");
    object.extend(more.as_object().expect("an object").clone());
    post(router, PATH, &request).await
}

#[tokio::test]
async fn a_prompt_is_gone_on_from_as_it_was_asked() {
    let router = router(Manner::Formula).await;
    let answer = ask(
        &router,
        json!({ "max_tokens": 9, "temperature": 0.5, "top_k": 4, "top_p": 0.9, "seed": 11,
                "stop": ".", "user": "somebody" }),
    )
    .await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    let json = answer.json();
    assert_eq!(json["object"], "text_completion");
    assert_eq!(json["model"], "writer@1");
    assert_eq!(json["usage"], json!({ "completion_tokens": 3 }));
    assert!(
        json["id"]
            .as_str()
            .is_some_and(|id| id.starts_with("cmpl-"))
    );
    assert!(json["created"].as_i64().is_some_and(|second| second > 0));
    let choice = &json["choices"][0];
    assert_eq!(choice["index"], 0);
    assert_eq!(choice["finish_reason"], "stop");
    let text = choice["text"].as_str().expect("a text");
    for wanted in [
        " after Rain: ",
        "maximum_tokens: 9",
        "temperature: 0.5",
        "top_k: Some(4)",
        "top_p: Some(0.9)",
        "stop: [\".\"]",
        "seed: 11",
    ] {
        assert!(text.contains(wanted), "{wanted} in {text}");
    }
}

#[tokio::test]
async fn several_prompts_and_copies_come_back_in_order() {
    let router = router(Manner::Formula).await;
    let answer = ask(
        &router,
        json!({ "prompt": ["Rain", "Snow"], "n": 2, "echo": true, "seed": 1 }),
    )
    .await;
    let json = answer.json();
    let choices = json["choices"].as_array().expect("choices");
    let texts: Vec<&str> = choices
        .iter()
        .filter_map(|choice| choice["text"].as_str())
        .map(|text| text.split(':').next().unwrap_or(text))
        .collect();
    let [rain, snow] = ["Rain after Rain", "Snow after Snow"];
    assert_eq!(texts, [rain, rain, snow, snow]);
    let places: Vec<Option<u64>> = choices.iter().map(|one| one["index"].as_u64()).collect();
    assert_eq!(places, [Some(0), Some(1), Some(2), Some(3)]);
    assert_eq!(json["usage"]["completion_tokens"], 12);
}

#[tokio::test]
async fn what_is_not_understood_is_refused_and_not_passed_over() {
    let router = router(Manner::Formula).await;
    for (more, words) in [
        (json!({ "logprobs": 3 }), "unknown field `logprobs`"),
        (json!({ "prompt": 7 }), "a text or a list of texts"),
        (json!({ "stream": true }), "`stream` is not understood"),
        (
            json!({ "n": 17 }),
            "17 texts are asked for; ask for 1 to 16",
        ),
        (json!({ "n": 0 }), "0 texts are asked for"),
        (json!({ "prompt": [] }), "0 texts are asked for"),
        (
            json!({ "n": 18_446_744_073_709_551_615_u64, "prompt": ["a", "b"] }),
            "ask for 1 to 16",
        ),
        (json!({ "max_tokens": 5000 }), "make it at most 4096"),
        (json!({ "max_tokens": 0 }), "the maximum of tokens is 0"),
        (json!({ "temperature": -1 }), "the temperature is -1"),
        (json!({ "top_p": 0 }), "top-p is 0"),
        (json!({ "top_k": 0 }), "top-k is 0"),
        (json!({ "stop": "" }), "a stop text has 0 bytes"),
        (
            json!({ "model": "credit" }),
            "does not write; ask /v2/models/credit/infer",
        ),
    ] {
        let error = ask(&router, more.clone()).await;
        let error = error.error(StatusCode::BAD_REQUEST);
        assert!(error.contains(words), "{more}: {error}");
    }
    let error = ask(&router, json!({ "model": "poet" })).await;
    let error = error.error(StatusCode::NOT_FOUND);
    assert!(error.contains("poet"), "{error}");
    let nothing = post(&router, PATH, &json!([])).await;
    nothing.error(StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_body_that_never_ends_is_given_up_and_leaves_its_place() {
    let config = ServeConfig {
        request_timeout: Duration::from_millis(50),
        max_concurrent: NonZeroUsize::MIN,
        max_queued: 0,
        ..ServeConfig::default()
    };
    let router = router_for(Manner::Formula, config).await;
    for _ in 0..2 {
        let never = futures::stream::pending::<Result<Bytes, std::io::Error>>();
        let request = Request::post(PATH).body(Body::from_stream(never));
        let answer = send(&router, request.expect("a request"));
        let answer = tokio::time::timeout(Duration::from_secs(10), answer).await;
        let answer = answer.expect("nobody waits for ever");
        let error = answer.error(StatusCode::REQUEST_TIMEOUT);
        assert!(error.contains("did not come within 50ms"), "{error}");
    }
    assert_eq!(ask(&router, json!({})).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_model_that_fails_or_takes_too_long_is_an_error_that_is_counted() {
    let failing = router(Manner::Failing(FailureCause::Trap)).await;
    let error = ask(&failing, json!({})).await;
    assert!(error.status.is_server_error(), "{:?}", error.status);
    let config = ServeConfig {
        request_timeout: Duration::from_millis(20),
        ..ServeConfig::default()
    };
    let slow = router_for(Manner::Slowly(Duration::from_secs(60)), config).await;
    let error = ask(&slow, json!({})).await;
    let error = error.error(StatusCode::GATEWAY_TIMEOUT);
    assert!(error.contains("ask for fewer tokens"), "{error}");
    let metrics = get(&slow, "/metrics").await;
    let counted = |line: &&str| line.contains("writer") && line.contains("504");
    assert!(
        metrics.text().lines().any(|line| counted(&line)),
        "{}",
        metrics.text()
    );
}
