//! Every export of every role, by itself: whatever the contract lets a guest be asked, it may spin
//! there, trap, call itself without end, take memory, and answer with what lies outside of it.

use std::sync::Arc;

use sandcast_sandbox::{
    CallContext, Filter, GenerationOptions, Model, Plugin, Role, ScanRequest, Split,
};
use sandcast_tests::components::{Text, exports_of};
use serde_json::json;

use crate::catalogue::{Row, rows_of};
use crate::guests::{features, request, train_input};
use crate::yard::{Outcome, Yard};

/// What an export does in the place of an answer.
fn misdeed(behaviour: &str) -> &'static str {
    match behaviour {
        "spin" => "(loop $again (br $again))",
        "trap" => "unreachable",
        "stack" => "(call $deeper)",
        "memory" => {
            "(loop $again
              (if (i32.eq (memory.grow (i32.const 64)) (i32.const -1)) (then unreachable))
              (br $again))"
        }
        // An answer past the end of the memory.
        "wild" => "(return (i32.const 0x7ffffff0))",
        other => panic!("`{other}` is not known here"),
    }
}

/// A schema of one column, and the rest that a connector needs to be asked further.
pub(crate) const ONE_COLUMN: &str = "
    (i32.store (i32.const 1028) (i32.const 2048))
    (i32.store (i32.const 1032) (i32.const 1))
    (i32.store (i32.const 2048) (i32.const 3000))
    (i32.store (i32.const 2052) (i32.const 1))
    (i32.store8 (i32.const 2056) (i32.const 1))
    (i32.store8 (i32.const 3000) (i32.const 120))";

/// What an adapter's types are of, with a function of it, since types alone ask for nothing.
const COMPUTE: &str = r#"
  (import "sandcast:plugin/compute@0.1.0" "[method]program.digest" (func (param i32 i32)))"#;

/// One that answers everything.
pub(crate) fn good(role: Role) -> Text {
    let text = Text::new(role).rest("(func $deeper (call $deeper))");
    match role {
        Role::Connector => text.body("schema", ONE_COLUMN),
        Role::Adapter => text.imports(COMPUTE).manifest(|it| {
            it["capabilities"] = json!([{ "capability": "compute", "reason": "to" }])
        }),
        _ => text,
    }
}

fn context() -> CallContext {
    CallContext::new(None, "test")
}

/// Asks for all that a role can be asked for, in order.
pub(crate) async fn ask_everything(plugin: &Plugin, role: Role) -> Outcome {
    let config = json!({});
    let mut texts = Vec::new();
    match role {
        Role::Connector => {
            let mut connector = plugin.connector(&context(), &config).await?;
            connector.schema().await?;
            connector.partitions().await?;
            let split = Split {
                id: "all".into(),
                token: String::new(),
                rows: None,
                bytes: None,
                version: None,
            };
            let request = ScanRequest {
                filters: Vec::<Filter>::new(),
                ..ScanRequest::all(split)
            };
            connector.scan(&request).await?;
            connector.next().await?;
            connector.cursor().await?;
        }
        Role::Validator => {
            let rows = features();
            let mut validator = plugin
                .validator(&context(), &config, &rows.schema())
                .await?;
            validator.check(&rows).await?;
            validator.finish().await?;
        }
        Role::Policy => {
            let mut policy = plugin.policy(&context(), &config).await?;
            texts = policy.decide(&request("production")).await?.reasons;
        }
        Role::Adapter => {
            plugin.adapter(&context()).await?;
        }
    }
    Ok(texts)
}

/// Asks an adapter for one thing; what the others need is not what zeros are.
async fn ask_adapter(plugin: &Plugin, function: &str, models: &[Arc<Model>; 2]) -> Outcome {
    let [model, writing] = models;
    let mut adapter = plugin.adapter(&context()).await?;
    match function {
        "describe" => {
            adapter.describe().await?;
        }
        "declare" => {
            let input = train_input(json!({}));
            adapter.declare(&input.task, &[0], &json!({})).await?;
        }
        "train" => {
            adapter.train(train_input(json!({}))).await?;
        }
        "predict" => {
            adapter.predict(model, &features()).await?;
        }
        "generate" => {
            let options = GenerationOptions {
                maximum_tokens: 1,
                temperature: 1.0,
                top_k: None,
                top_p: None,
                stop: Vec::new(),
                seed: 1,
            };
            adapter
                .generate(writing, &features(), &options, None)
                .await?;
        }
        other => panic!("`{other}` is new in the contract: say here how it is asked"),
    }
    Ok(Vec::new())
}

/// A role in text with one misdeed in each of its exports, one after the other.
async fn every_export(role: Role) {
    let name = match role {
        Role::Connector => "text-connector",
        Role::Validator => "text-validator",
        Role::Policy => "text-policy",
        Role::Adapter => "text-adapter",
    };
    let mut yard = Yard::new(name).await;
    let models = models(&yard).await;
    let behaving = yard.load(&good(role).component(), role).await.patient;
    for row in rows_of(name) {
        for (function, text) in texts(role, &row) {
            let guest = yard.load(&text.component(), role).await;
            let attempt = async {
                if role == Role::Adapter {
                    ask_adapter(guest.of(&row), &function, &models).await
                } else {
                    ask_everything(guest.of(&row), role).await
                }
            };
            yard.lets(&row, attempt, ask_everything(&behaving, role))
                .await;
        }
    }
    yard.finish();
}

/// The components of a row, with the export that each is about.
fn texts(role: Role, row: &Row) -> Vec<(String, Text)> {
    if row.behaviour == "spin-in-start" {
        let text = good(role).rest("(func $begin (loop $again (br $again))) (start $begin)");
        let first = exports_of(role).swap_remove(0).function;
        return vec![(first, text)];
    }
    exports_of(role)
        .into_iter()
        .map(|export| {
            let text = good(role).body(&export.function, misdeed(row.behaviour));
            (export.function, text)
        })
        .collect()
}

/// A model that somebody else has trained, and one that is said to write.
async fn models(yard: &Yard) -> [Arc<Model>; 2] {
    let plugin = yard.guest("hostile-adapter", Role::Adapter).await.patient;
    let mut adapter = plugin.adapter(&context()).await.expect("an adapter");
    let trained = adapter
        .train(train_input(json!({ "behaviour": "behave" })))
        .await;
    let model = trained.expect("it behaves").model;
    let writing = writing(&model.to_bytes());
    let writing = Model::from_bytes(&writing, &yard.sandbox).expect("a model file");
    [model, Arc::new(writing)]
}

/// The file of a model with another task: the header stands after its length, in 8 bytes.
fn writing(file: &[u8]) -> Vec<u8> {
    let start = file
        .iter()
        .position(|byte| *byte == b'{')
        .expect("a header");
    let (front, rest) = file.split_at(start);
    let (magic, length) = front.split_at(start - 8);
    let length = u64::from_le_bytes(length.try_into().expect("8 bytes")) as usize;
    let (header, parts) = rest.split_at(length);
    let header = String::from_utf8_lossy(header).replace("\"regression\"", "\"text-generation\"");
    let length = (header.len() as u64).to_le_bytes();
    [magic, length.as_slice(), header.as_bytes(), parts].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_export_of_a_connector() {
    every_export(Role::Connector).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_export_of_a_validator() {
    every_export(Role::Validator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_export_of_a_policy() {
    every_export(Role::Policy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_export_of_an_adapter() {
    every_export(Role::Adapter).await;
}
