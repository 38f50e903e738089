//! Health, metadata, inference as JSON, statistics and the repository.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::json;

use crate::models::{Manner, Shelf};
use crate::{get, infer, one_row, one_row_but, post, router_of, router_with, send, tensor};

#[tokio::test]
async fn it_says_what_it_is_and_that_it_is_well() {
    let router = router_of(&Shelf::new(Manner::Formula)).await;
    let server = get(&router, "/v2").await.json();
    assert_eq!(server["name"], "sandcast");
    assert_eq!(
        server["extensions"],
        json!(["binary_tensor_data", "model_repository", "statistics"])
    );
    for path in [
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/credit/ready",
        "/v2/models/credit/versions/1/ready",
    ] {
        assert_eq!(get(&router, path).await.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn a_model_says_what_goes_in_and_what_comes_out() {
    let router = router_of(&Shelf::new(Manner::Formula)).await;
    let metadata = get(&router, "/v2/models/credit").await.json();
    let column =
        |name: &str, datatype: &str| json!({ "name": name, "datatype": datatype, "shape": [-1] });
    assert_eq!(
        metadata,
        json!({
            "name": "credit",
            "versions": ["1"],
            "platform": "sandcast_adapter",
            "inputs": [
                column("age", "INT64"), column("income", "FP64"),
                column("purpose", "BYTES"), column("married", "BOOL"),
            ],
            "outputs": [
                column("probability:no", "FP64"), column("probability:yes", "FP64"),
                column("label", "BYTES"),
            ],
            "parameters": {
                "run": "run-1",
                "task": "binary-classification",
                "target": "repaid",
                "threshold": 0.4,
                "version": "1",
            },
        })
    );
    assert_eq!(
        get(&router, "/v2/models/credit/versions/1").await.json(),
        metadata
    );
    let price = get(&router, "/v2/models/price").await.json();
    assert_eq!(price["outputs"], json!([column("prediction", "FP64")]));
    assert_eq!(price["inputs"][1], column("since", "BYTES"));
}

#[tokio::test]
async fn rows_go_in_and_predictions_come_out() {
    let router = router_of(&Shelf::new(Manner::Formula)).await;
    let request = json!({
        "id": "42",
        "inputs": [
            tensor("age", "INT64", json!([20, 40, null])),
            tensor("income", "FP64", json!([1.5, 2, 3e3])),
            tensor("purpose", "BYTES", json!(["car", "", null])),
            tensor("married", "BOOL", json!([true, false, null])),
        ],
    });
    let answer = infer(&router, &request).await;
    assert_eq!(
        answer.json(),
        json!({
            "model_name": "credit",
            "model_version": "1",
            "id": "42",
            "outputs": [
                { "name": "probability:no", "datatype": "FP64", "shape": [3], "data": [0.8, 0.6, 0.5] },
                { "name": "probability:yes", "datatype": "FP64", "shape": [3], "data": [0.2, 0.4, 0.5] },
                // The model's threshold is 0.4, and it counts itself.
                { "name": "label", "datatype": "BYTES", "shape": [3], "data": ["no", "yes", "yes"] },
            ],
        })
    );
    assert_eq!(answer.headers["content-type"], "application/json");
}

#[tokio::test]
async fn a_version_can_be_named() {
    let router = router_of(&Shelf::new(Manner::Formula)).await;
    let answer = post(&router, "/v2/models/credit/versions/1/infer", &one_row()).await;
    assert_eq!(answer.json()["model_version"], "1");
}

#[tokio::test]
async fn several_versions_are_served_at_a_time() {
    let config = sandcast_serve::ServeConfig {
        models: ["credit@champion", "credit@5"]
            .map(|selector| selector.parse().expect("a selector"))
            .to_vec(),
        ..Default::default()
    };
    let router = router_with(&Shelf::new(Manner::Formula), config).await;
    for (path, version) in [
        ("/v2/models/credit/infer", "1"),
        ("/v2/models/credit/versions/5/infer", "5"),
        ("/v2/models/credit/versions/champion/infer", "1"),
    ] {
        let answer = post(&router, path, &one_row()).await;
        assert_eq!(answer.json()["model_version"], version, "{path}");
    }
    let error = get(&router, "/v2/models/credit/versions/9")
        .await
        .error(StatusCode::NOT_FOUND);
    assert_eq!(
        error,
        "model `credit` has no version `9` here; served versions: 1, 5, champion (1)"
    );
}

#[tokio::test]
async fn outputs_can_be_chosen() {
    let router = router_of(&Shelf::new(Manner::Formula)).await;
    let mut request = one_row();
    request["outputs"] = json!([{ "name": "label" }]);
    let answer = infer(&router, &request).await.json();
    assert_eq!(answer["outputs"].as_array().map(Vec::len), Some(1));
    assert_eq!(answer["outputs"][0]["data"], json!(["yes"]));

    request["outputs"] = json!([{ "name": "score" }]);
    let error = infer(&router, &request)
        .await
        .error(StatusCode::BAD_REQUEST);
    assert_eq!(
        error,
        "output tensor `score` is not an output of the model; its outputs: probability:no, \
         probability:yes, label"
    );
    request["outputs"] = json!([{ "name": "label" }, { "name": "label" }]);
    let error = infer(&router, &request)
        .await
        .error(StatusCode::BAD_REQUEST);
    assert!(error.contains("asked for twice"), "{error}");
}

#[tokio::test]
async fn the_threshold_is_a_parameter() {
    let router = router_of(&Shelf::new(Manner::Formula)).await;
    let mut request = one_row();
    request["parameters"] = json!({ "threshold": 0.41, "other": { "things": [1] } });
    assert_eq!(
        infer(&router, &request).await.output("label"),
        json!(["no"])
    );
    request["parameters"] = json!({ "threshold": 1.5 });
    let error = infer(&router, &request)
        .await
        .error(StatusCode::BAD_REQUEST);
    assert_eq!(
        error,
        "the parameter threshold is 1.5; expected a number from 0 to 1"
    );
}

#[tokio::test]
async fn a_regression_has_no_label() {
    let router = router_of(&Shelf::new(Manner::Formula)).await;
    let request = json!({ "inputs": [
        tensor("amount", "FP32", json!([1.25])),
        tensor("since", "BYTES", json!(["2026-11-21"])),
        tensor("at", "BYTES", json!(["2026-11-21T20:15:30Z"])),
    ]});
    let answer = post(&router, "/v2/models/price/infer", &request).await;
    assert_eq!(answer.output("prediction"), json!([2.5]));
    assert_eq!(answer.json()["outputs"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn what_is_not_there_is_said_with_what_is() {
    let router = router_of(&Shelf::new(Manner::Formula)).await;
    let error = get(&router, "/v2/models/credti")
        .await
        .error(StatusCode::NOT_FOUND);
    assert_eq!(
        error,
        "there is no model `credti` here; known models: credit, price"
    );
    let path = "/v2/models/credit/versions/two/infer";
    let error = post(&router, path, &one_row())
        .await
        .error(StatusCode::NOT_FOUND);
    assert_eq!(
        error,
        "model `credit` has no version `two` here; served versions: 1"
    );
    let error = get(&router, "/v1/models")
        .await
        .error(StatusCode::NOT_FOUND);
    assert!(
        error.starts_with("there is nothing at /v1/models; see /v2"),
        "{error}"
    );
    let error = get(&router, "/v2/models/credit/infer").await;
    let error = error.error(StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(error, "/v2/models/credit/infer does not take GET; try POST");
}

#[tokio::test]
async fn the_repository_lists_what_is_served() {
    let router = router_of(&Shelf::new(Manner::Formula)).await;
    let index = post(&router, "/v2/repository/index", &json!({}))
        .await
        .json();
    assert_eq!(
        index,
        json!([
            { "name": "credit", "version": "1", "state": "READY", "reason": "" },
            { "name": "price", "version": "7", "state": "READY", "reason": "" },
        ])
    );
}

#[tokio::test]
async fn nobody_takes_a_model_from_the_others() {
    let router = router_of(&Shelf::new(Manner::Formula)).await;
    let unload = |model: &str| format!("/v2/repository/models/{model}/unload");
    let answer = post(&router, &unload("credit"), &json!({})).await;
    let error = answer.error(StatusCode::NOT_IMPLEMENTED);
    assert!(
        error.starts_with("models are not unloaded on request"),
        "{error}"
    );
    post(&router, &unload("nothing"), &json!({}))
        .await
        .error(StatusCode::NOT_FOUND);
    assert_eq!(infer(&router, &one_row()).await.status, StatusCode::OK);
}

#[tokio::test]
async fn statistics_count_rows_and_time() {
    let router = router_of(&Shelf::new(Manner::Formula)).await;
    let before = get(&router, "/v2/models/credit/stats").await.json();
    assert_eq!(
        before["model_stats"][0]["inference_stats"]["success"]["count"],
        0
    );
    infer(&router, &one_row()).await;
    infer(&router, &one_row()).await;
    infer(
        &router,
        &one_row_but("age", tensor("age", "BYTES", json!(["x"]))),
    )
    .await;
    let stats = get(&router, "/v2/models/credit/versions/1/stats")
        .await
        .json();
    let stats = &stats["model_stats"][0];
    assert_eq!(
        (&stats["name"], &stats["version"]),
        (&json!("credit"), &json!("1"))
    );
    assert_eq!(
        (&stats["inference_count"], &stats["execution_count"]),
        (&json!(2), &json!(2))
    );
    let durations = &stats["inference_stats"];
    for (name, count) in [
        ("success", 2),
        ("fail", 1),
        ("queue", 2),
        ("compute_input", 2),
        ("compute_infer", 2),
        ("compute_output", 2),
    ] {
        assert_eq!(durations[name]["count"], count, "{name}");
    }
    let spent = |name: &str| durations[name]["ns"].as_u64().expect("a number");
    let parts = spent("compute_input") + spent("compute_infer") + spent("compute_output");
    assert!(spent("success") >= parts && parts > 0, "{durations}");
    let all = get(&router, "/v2/models/stats").await.json();
    assert_eq!(all["model_stats"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn metrics_count_by_model_and_status() {
    let router = router_of(&Shelf::new(Manner::Formula)).await;
    infer(&router, &one_row()).await;
    infer(&router, &json!({ "inputs": [] })).await;
    post(&router, "/v2/models/nothing/infer", &one_row()).await;
    let answer = get(&router, "/metrics").await;
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(answer.headers["content-type"], content_type);
    for line in [
        r#"sandcast_inference_requests_total{model="credit",version="1",code="200"} 1"#,
        r#"sandcast_inference_requests_total{model="credit",version="1",code="400"} 1"#,
        r#"sandcast_inference_requests_total{model="unknown",version="",code="404"} 1"#,
        r#"sandcast_inference_rows_total{model="credit",version="1"} 1"#,
        r#"sandcast_inference_request_duration_seconds_count{model="credit",version="1"} 2"#,
        r#"sandcast_inference_predict_duration_seconds_count{model="credit",version="1"} 1"#,
        r#"sandcast_http_requests_total{method="POST",route="/v2/models/{model}/infer",code="200"} 1"#,
        "sandcast_inference_in_flight 0",
        "sandcast_sandbox_instances 0",
        "sandcast_models 2",
        "# EOF",
    ] {
        assert!(
            answer.text().lines().any(|found| found == line),
            "no {line} in\n{}",
            answer.text()
        );
    }
    assert!(
        !answer.text().contains("nothing"),
        "labels come from a closed set"
    );
}

#[tokio::test]
async fn requests_have_ids() {
    let router = router_of(&Shelf::new(Manner::Formula)).await;
    let ask = async |id: &str| {
        let request = Request::get("/v2/health/live").header("x-request-id", id);
        let answer = send(&router, request.body(Body::empty()).expect("a request")).await;
        answer.headers["x-request-id"]
            .to_str()
            .expect("text")
            .to_owned()
    };
    assert_eq!(ask("client-7").await, "client-7");
    for hostile in ["", "a b", "{}", &"x".repeat(129)] {
        assert_ne!(ask(hostile).await, hostile);
    }
    let first = get(&router, "/v2/health/live").await.headers["x-request-id"].clone();
    let second = get(&router, "/v2").await.headers["x-request-id"].clone();
    assert_ne!(first, second);
}
