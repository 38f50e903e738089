//! The server as its clients see it.
//!
//! Models here answer by a formula, slowly or wrongly, as a test needs it; the whole line with a
//! trained model in its sandbox is tested where the whole line is.

mod access;
mod bounds;
mod completions;
mod listener;
mod models;
mod protocol;
mod rows;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use sandcast_serve::ServeConfig;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use models::Shelf;

/// What came back.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// The sentence of an error; there must be one, and nothing else.
    #[track_caller]
    fn error(&self, status: StatusCode) -> String {
        assert_eq!(self.status, status, "{:?}", self.body);
        let json = self.json();
        let object = json.as_object().expect("an object");
        assert_eq!(object.len(), 1, "{json}");
        object["error"].as_str().expect("a sentence").to_owned()
    }

    #[track_caller]
    fn output(&self, name: &str) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{:?}", self.body);
        let json = self.json();
        let outputs = json["outputs"].as_array().expect("outputs");
        let output = outputs.iter().find(|output| output["name"] == name);
        output.unwrap_or_else(|| panic!("no output {name} in {json}"))["data"].clone()
    }
}

async fn router_of(shelf: &Arc<Shelf>) -> Router {
    router_with(shelf, ServeConfig::default()).await
}

async fn router_with(shelf: &Arc<Shelf>, config: ServeConfig) -> Router {
    let source: Arc<Shelf> = Arc::clone(shelf);
    sandcast_serve::router(source, config)
        .await
        .expect("the models load")
}

async fn send(router: &Router, request: Request<Body>) -> Answer {
    let response = router
        .clone()
        .oneshot(request)
        .await
        .expect("an axum router always answers");
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body,
    }
}

async fn get(router: &Router, path: &str) -> Answer {
    send(
        router,
        Request::get(path).body(Body::empty()).expect("a request"),
    )
    .await
}

async fn post(router: &Router, path: &str, body: &Value) -> Answer {
    let body = Body::from(body.to_string());
    send(router, Request::post(path).body(body).expect("a request")).await
}

async fn infer(router: &Router, body: &Value) -> Answer {
    post(router, "/v2/models/credit/infer", body).await
}

/// A tensor of a column.
fn tensor(name: &str, datatype: &str, data: Value) -> Value {
    let rows = data.as_array().map_or(0, Vec::len);
    json!({ "name": name, "shape": [rows], "datatype": datatype, "data": data })
}

/// A request for one row that is right in every way.
fn one_row() -> Value {
    json!({ "inputs": [
        tensor("age", "INT64", json!([40])),
        tensor("income", "FP64", json!([30_000.0])),
        tensor("purpose", "BYTES", json!(["car"])),
        tensor("married", "BOOL", json!([true])),
    ]})
}

/// The same with one of its tensors replaced.
fn one_row_but(name: &str, with: Value) -> Value {
    let mut request = one_row();
    let inputs = request["inputs"].as_array_mut().expect("inputs");
    let input = inputs
        .iter_mut()
        .find(|input| input["name"] == name)
        .expect("the tensor");
    *input = with;
    request
}
