//! Tensors in, as JSON and as binary: what is taken, and what is refused with which words.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::models::{Manner, Shelf};
use crate::{Answer, infer, one_row, one_row_but, post, router_of, send, tensor};

#[tokio::test]
async fn every_way_to_write_a_column_is_taken() {
    let router = router_of(&Shelf::new(Manner::Formula)).await;
    for (tensor, expected) in [
        (tensor("age", "INT32", json!([30])), 0.3),
        (tensor("age", "UINT8", json!([30])), 0.3),
        (tensor("age", "FP64", json!([30.0])), 0.3),
        (tensor("age", "INT64", json!([null])), 0.5),
        (
            json!({ "name": "age", "shape": [1, 1], "datatype": "INT64", "data": [[30]] }),
            0.3,
        ),
        (
            json!({ "name": "age", "shape": [1, 1], "datatype": "INT64", "data": [30] }),
            0.3,
        ),
        (
            json!({ "name": "age", "shape": [1], "datatype": "INT64", "data": [30],
                 "parameters": { "anything": true } }),
            0.3,
        ),
    ] {
        let answer = infer(&router, &one_row_but("age", tensor.clone())).await;
        assert_eq!(
            answer.output("probability:yes"),
            json!([expected]),
            "{tensor}"
        );
    }
    for tensor in [
        tensor("income", "INT64", json!([3])),
        tensor("income", "FP32", json!([3])),
        tensor("married", "BOOL", json!([1])),
    ] {
        let name = tensor["name"].as_str().expect("a name").to_owned();
        let answer = infer(&router, &one_row_but(&name, tensor)).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    }
}

#[tokio::test]
async fn dates_and_times_are_text_or_numbers() {
    let router = router_of(&Shelf::new(Manner::Formula)).await;
    let ask = async |since: Value, at: Value| {
        let request = json!({ "inputs": [tensor("amount", "FP64", json!([1])), since, at] });
        post(&router, "/v2/models/price/infer", &request).await
    };
    let (date, time) = (
        tensor("since", "BYTES", json!(["2026-02-28"])),
        tensor("at", "BYTES", json!(["2026-11-21T22:15:30.5+02:00"])),
    );
    assert_eq!(ask(date.clone(), time.clone()).await.status, StatusCode::OK);
    let numbers = (
        tensor("since", "INT32", json!([20_000])),
        tensor("at", "INT64", json!([1_700_000_000_000_000_i64])),
    );
    assert_eq!(ask(numbers.0, numbers.1).await.status, StatusCode::OK);
    let error = ask(tensor("since", "BYTES", json!(["2026-02-29"])), time).await;
    let error = error.error(StatusCode::BAD_REQUEST);
    assert_eq!(
        error,
        "input tensor `since`: row 0: \"2026-02-29\" is not a date such as \"2026-11-21\", or days \
         since 1970"
    );
    let error = ask(date, tensor("at", "BYTES", json!(["noon"]))).await;
    assert!(
        error
            .error(StatusCode::BAD_REQUEST)
            .contains("\"noon\" is not a time such as")
    );
}

#[tokio::test]
async fn a_wrong_tensor_is_named_with_what_was_expected() {
    let router = router_of(&Shelf::new(Manner::Formula)).await;
    let age = |datatype: &str, shape: Value, data: Value| json!({ "name": "age", "shape": shape, "datatype": datatype, "data": data });
    for (wrong, message) in [
        (
            age("BYTES", json!([1]), json!(["x"])),
            "input tensor `age`: datatype BYTES; expected INT64 (or INT32, INT16, INT8, UINT8, \
             UINT16, UINT32, UINT64, FP64, FP32)",
        ),
        (
            age("INT64", json!([1, 2]), json!([1, 2])),
            "input tensor `age` has shape [1, 2]; expected [n] or [n, 1], a value a row",
        ),
        (
            age("INT64", json!([2]), json!([1, 2])),
            "input tensor `income` has 1 rows, but `age` has 2; expected the same number",
        ),
        (
            age("INT64", json!([1]), json!([1, 2])),
            "input tensor `age`: the shape says 1 rows, but there is more data",
        ),
        (
            age("INT64", json!([1]), json!([])),
            "input tensor `age`: the shape says 1 rows, but there is data for 0",
        ),
        (
            age("INT64", json!([0]), json!([])),
            "input tensor `age` has 0 rows; expected 1 to 65536 in a request",
        ),
        (
            age("INT64", json!([1]), json!([1.5])),
            "input tensor `age`: row 0: 1.5 is not a whole number",
        ),
        (
            age("INT64", json!([1]), json!([1e300])),
            "input tensor `age`: row 0: 1e300 is not a whole number",
        ),
        (
            age("INT64", json!([1]), json!(["41"])),
            "input tensor `age`: row 0: \"41\" is not a whole number",
        ),
        (
            age("INT64", json!([1]), json!({ "0": 1 })),
            "input tensor `age`: invalid type: map, expected an array of numbers, booleans, \
             strings and nulls at line 1 column 1",
        ),
        (
            age("INT64", json!([1]), json!(3)),
            "input tensor `age`: the data is 3; expected an array",
        ),
        (
            json!({ "name": "age", "shape": [1], "datatype": "INT64" }),
            "input tensor `age`: it has no data; expected `data` or binary_data_size",
        ),
    ] {
        let answer = infer(&router, &one_row_but("age", wrong.clone())).await;
        assert_eq!(answer.error(StatusCode::BAD_REQUEST), message, "{wrong}");
    }
    let income = one_row_but("income", tensor("income", "FP64", json!([null])));
    assert_eq!(
        infer(&router, &income).await.error(StatusCode::BAD_REQUEST),
        "input tensor `income`: row 0: null is not allowed: the model was trained on rows that all \
         have a value"
    );
    let nested = age("INT64", json!([1]), json!([[[1]]]));
    let error = infer(&router, &one_row_but("age", nested))
        .await
        .error(StatusCode::BAD_REQUEST);
    assert!(error.contains("nested too deep"), "{error}");
    let long = tensor("age", "INT64", json!(["y".repeat(10_000)]));
    let error = infer(&router, &one_row_but("age", long))
        .await
        .error(StatusCode::BAD_REQUEST);
    assert!(error.len() < 200, "{error}");
}

#[tokio::test]
async fn a_wrong_set_of_tensors_is_refused() {
    let router = router_of(&Shelf::new(Manner::Formula)).await;
    let mut request = one_row();
    let inputs = request["inputs"].as_array_mut().expect("inputs");
    let age = inputs.remove(0);
    assert_eq!(
        infer(&router, &request)
            .await
            .error(StatusCode::BAD_REQUEST),
        "input tensor `age` is missing; the model expects it as INT64 of shape [n]"
    );
    let inputs = request["inputs"].as_array_mut().expect("inputs");
    inputs.extend([age.clone(), age]);
    assert_eq!(
        infer(&router, &request)
            .await
            .error(StatusCode::BAD_REQUEST),
        "input tensor `age` is there twice; expected it once"
    );
    let extra = one_row_but("age", tensor("aeg", "INT64", json!([1])));
    assert_eq!(
        infer(&router, &extra).await.error(StatusCode::BAD_REQUEST),
        "input tensor `aeg` is not an input of the model; its inputs: age, income, purpose, married"
    );
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let router = router_of(&Shelf::new(Manner::Formula)).await;
    for (body, part) in [
        ("", "EOF while parsing"),
        ("[]", "not an inference request"),
        ("{\"inputs\": 3}", "expected a sequence"),
        (
            "{\"inputs\": [{\"name\": \"age\"}]}",
            "missing field `shape`",
        ),
        (
            "{\"inputs\": [{\"name\": \"a\", \"shape\": [-1], \"datatype\": \"INT64\"}]}",
            "`-1`",
        ),
        (
            "{\"inputs\": [{\"name\": \"a\", \"shape\": [1], \"datatype\": \"INT65\"}]}",
            "`INT65`",
        ),
        ("{\"inputs\": []} and more", "trailing characters"),
    ] {
        let request = Request::post("/v2/models/credit/infer").body(Body::from(body));
        let error = send(&router, request.expect("a request")).await;
        let error = error.error(StatusCode::BAD_REQUEST);
        assert!(error.contains(part), "{body}: {error}");
    }
}

/// A request whose tensors are all binary, in the layout of Triton's extension.
struct BinaryRequest {
    json: Value,
    bytes: Vec<u8>,
}

impl BinaryRequest {
    fn new() -> Self {
        Self {
            json: json!({ "inputs": [] }),
            bytes: Vec::new(),
        }
    }

    fn tensor(mut self, name: &str, datatype: &str, rows: usize, bytes: &[u8]) -> Self {
        self.json["inputs"]
            .as_array_mut()
            .expect("inputs")
            .push(json!({
                "name": name, "shape": [rows], "datatype": datatype,
                "parameters": { "binary_data_size": bytes.len() },
            }));
        self.bytes.extend(bytes);
        self
    }

    async fn send(&self, router: &axum::Router) -> Answer {
        let mut body = self.json.to_string().into_bytes();
        let length = body.len();
        body.extend(&self.bytes);
        send_binary(router, length, body).await
    }
}

async fn send_binary(router: &axum::Router, json_length: usize, body: Vec<u8>) -> Answer {
    let request = Request::post("/v2/models/credit/infer")
        .header("Inference-Header-Content-Length", json_length)
        .header("Content-Type", "application/octet-stream")
        .body(Body::from(body));
    send(router, request.expect("a request")).await
}

fn texts(texts: &[&str]) -> Vec<u8> {
    let one = |text: &&str| [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    texts.iter().flat_map(one).collect()
}

fn two_rows() -> BinaryRequest {
    BinaryRequest::new()
        .tensor("purpose", "BYTES", 2, &texts(&["car", "übrig"]))
        .tensor(
            "income",
            "FP32",
            2,
            &[1.5_f32, -2.0].map(f32::to_le_bytes).concat(),
        )
        .tensor("married", "BOOL", 2, &[1, 0])
        .tensor(
            "age",
            "INT32",
            2,
            &[20_i32, 90].map(i32::to_le_bytes).concat(),
        )
}

#[tokio::test]
async fn binary_tensors_go_in() {
    let router = router_of(&Shelf::new(Manner::Formula)).await;
    let answer = two_rows().send(&router).await;
    assert_eq!(answer.output("probability:yes"), json!([0.2, 0.9]));
    let mut mixed = two_rows();
    mixed.json["inputs"][1] = tensor("income", "FP64", json!([1, 2]));
    mixed.bytes.drain(17..25);
    assert_eq!(
        mixed.send(&router).await.output("label"),
        json!(["no", "yes"])
    );
}

#[tokio::test]
async fn binary_tensors_come_out() {
    let router = router_of(&Shelf::new(Manner::Formula)).await;
    let mut request = two_rows();
    request.json["parameters"] = json!({ "binary_data_output": true });
    request.json["outputs"] = json!([
        { "name": "label" },
        { "name": "probability:no", "parameters": { "binary_data": false } },
        { "name": "probability:yes", "parameters": { "binary_data": true } },
    ]);
    let answer = request.send(&router).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    assert_eq!(answer.headers["content-type"], "application/octet-stream");
    let length = answer.headers["inference-header-content-length"]
        .to_str()
        .expect("a number");
    let (json, bytes) = answer.body.split_at(length.parse().expect("a number"));
    let json: Value = serde_json::from_slice(json).expect("JSON");
    assert_eq!(
        json["outputs"],
        json!([
            { "name": "label", "datatype": "BYTES", "shape": [2],
              "parameters": { "binary_data_size": 13 } },
            { "name": "probability:no", "datatype": "FP64", "shape": [2],
              "data": [0.8, 1.0 - 0.9] },
            { "name": "probability:yes", "datatype": "FP64", "shape": [2],
              "parameters": { "binary_data_size": 16 } },
        ])
    );
    let expected = [
        texts(&["no", "yes"]),
        [0.2_f64, 0.9].map(f64::to_le_bytes).concat(),
    ]
    .concat();
    assert_eq!(bytes, expected);
}

#[tokio::test]
async fn nan_stands_for_a_missing_number() {
    let router = router_of(&Shelf::new(Manner::Formula)).await;
    let mut request = two_rows();
    request.json["inputs"][3]["datatype"] = json!("FP32");
    request.bytes.truncate(request.bytes.len() - 8);
    request
        .bytes
        .extend([f32::NAN, 30.0].map(f32::to_le_bytes).concat());
    assert_eq!(
        request.send(&router).await.output("probability:yes"),
        json!([0.5, 0.3])
    );
}

#[tokio::test]
async fn binary_data_of_wrong_length_is_refused() {
    let router = router_of(&Shelf::new(Manner::Formula)).await;
    let refused =
        async |request: &BinaryRequest| request.send(&router).await.error(StatusCode::BAD_REQUEST);
    let mut request = two_rows();
    request.bytes.pop();
    let error = refused(&request).await;
    assert_eq!(
        error,
        "input tensor `age` says binary_data_size 8, but only 7 bytes are left after the JSON"
    );
    let mut request = two_rows();
    request.bytes.push(0);
    let error = refused(&request).await;
    assert!(
        error.starts_with("1 bytes after the JSON belong to no input tensor"),
        "{error}"
    );
    let request = two_rows();
    let mut short = BinaryRequest::new();
    short.json = request.json.clone();
    short.json["inputs"][3]["shape"] = json!([3]);
    short.json["inputs"][0]["shape"] = json!([3]);
    short.bytes.clone_from(&request.bytes);
    let error = refused(&short).await;
    assert_eq!(
        error,
        "input tensor `age`: 8 bytes of data; expected 12, 4 an element of INT32"
    );
    for (bytes, message) in [
        (
            texts(&["car"]),
            "the shape says 2 rows, but there is data for 1",
        ),
        (
            texts(&["car", "a", "b"]),
            "the shape says 2 rows, but there is more data",
        ),
        (
            vec![9, 0, 0, 0, b'x'],
            "row 0: the data ends inside of an element",
        ),
        (
            vec![255, 255, 255, 255],
            "row 0: the data ends inside of an element",
        ),
        (
            [texts(&["car"]), vec![1, 0, 0, 0, 0xff]].concat(),
            "row 1: the text is not UTF-8",
        ),
    ] {
        let request = BinaryRequest::new()
            .tensor("age", "INT8", 2, &[1, 2])
            .tensor(
                "income",
                "FP64",
                2,
                &[1.0_f64, 2.0].map(f64::to_le_bytes).concat(),
            )
            .tensor("purpose", "BYTES", 2, &bytes)
            .tensor("married", "BOOL", 2, &[0, 1]);
        let error = refused(&request).await;
        assert_eq!(error, format!("input tensor `purpose`: {message}"));
    }
}

#[tokio::test]
async fn a_wrong_length_of_the_json_is_refused() {
    let router = router_of(&Shelf::new(Manner::Formula)).await;
    let body = one_row().to_string().into_bytes();
    let length = body.len();
    let error = send_binary(&router, length + 1, body.clone()).await;
    let error = error.error(StatusCode::BAD_REQUEST);
    assert!(
        error.contains(&format!("expected a number up to {length}")),
        "{error}"
    );
    let error = send_binary(&router, 3, body.clone())
        .await
        .error(StatusCode::BAD_REQUEST);
    assert!(error.contains("not an inference request"), "{error}");
    assert_eq!(
        send_binary(&router, length, body).await.status,
        StatusCode::OK
    );
}
