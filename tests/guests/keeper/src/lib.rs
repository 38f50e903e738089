//! A policy that does with its state what the context of a request says: `{ "do": [["set", "key",
//! "value"], ["get", "key"]] }`. Each step is a reason of its decision: what it came to.

use sandcast_sdk::bindings::imports::wasi::keyvalue::{atomics, store};
use sandcast_sdk::state::Bucket;
use sandcast_sdk::{Decision, Effect, Failure, Policy, Request};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {}

#[derive(Debug, Deserialize)]
struct Context {
    #[serde(rename = "do")]
    steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Step {
    Open(String),
    Get(String),
    Set(String, String),
    /// So many bytes.
    Fill(String, usize),
    Delete(String),
    Exists(String),
    Keys,
    Increment(String, i64),
    /// As often as it is said.
    Count(String, u32),
    /// Appends to what is there.
    Append(String, String),
    /// Looks at a key, changes it, and swaps what it saw.
    SwapLate(String),
    SetMany(Vec<(String, String)>),
    GetMany(Vec<String>),
    DeleteMany(Vec<String>),
}

struct Keeper {
    bucket: Bucket,
}

fn text(value: Option<Vec<u8>>) -> String {
    value.map_or_else(
        || "nothing".to_owned(),
        |bytes| match bytes.len() {
            0..100 => String::from_utf8_lossy(&bytes).into_owned(),
            many => format!("{many} bytes"),
        },
    )
}

fn done(_: ()) -> String {
    "done".to_owned()
}

impl Keeper {
    fn step(&self, step: Step) -> Result<String, Failure> {
        let bucket = &self.bucket;
        match step {
            Step::Open(name) => match store::open(&name) {
                Ok(_) => Ok("open".to_owned()),
                Err(error) => Ok(format!("{error:?}")),
            },
            Step::Get(key) => bucket.get(&key).map(text),
            Step::Set(key, value) => bucket.set(&key, value.as_bytes()).map(done),
            Step::Fill(key, bytes) => bucket.set(&key, &vec![b'x'; bytes]).map(done),
            Step::Delete(key) => bucket.delete(&key).map(done),
            Step::Exists(key) => bucket.exists(&key).map(|there| there.to_string()),
            Step::Keys => bucket.keys().map(|keys| keys.join(" ")),
            Step::Increment(key, delta) => bucket.increment(&key, delta).map(|sum| sum.to_string()),
            Step::Count(key, times) => {
                let mut sum = 0;
                for _ in 0..times {
                    sum = bucket.increment(&key, 1)?;
                }
                Ok(sum.to_string())
            }
            Step::Append(key, more) => bucket
                .update(&key, |before| {
                    let mut after = before.unwrap_or_default();
                    after.extend_from_slice(more.as_bytes());
                    after
                })
                .map(done),
            Step::SwapLate(key) => {
                let store =
                    store::open("").map_err(|error| Failure::internal(error.to_string()))?;
                let seen = atomics::Cas::new(&store, &key)
                    .map_err(|error| Failure::internal(error.to_string()))?;
                bucket.set(&key, b"in between")?;
                match atomics::swap(seen, b"late") {
                    Ok(()) => Ok("swapped".to_owned()),
                    Err(atomics::CasError::StoreError(error)) => Ok(format!("{error:?}")),
                    Err(atomics::CasError::CasFailed(again)) => {
                        match atomics::swap(again, b"again") {
                            Ok(()) => Ok("not the first time".to_owned()),
                            Err(error) => Ok(format!("{error:?}")),
                        }
                    }
                }
            }
            Step::SetMany(pairs) => {
                let pairs: Vec<(String, Vec<u8>)> = pairs
                    .into_iter()
                    .map(|(key, value)| (key, value.into_bytes()))
                    .collect();
                bucket.set_many(&pairs).map(done)
            }
            Step::GetMany(keys) => {
                let values = bucket.get_many(&keys)?;
                let texts: Vec<String> = values.into_iter().map(text).collect();
                Ok(texts.join(" "))
            }
            Step::DeleteMany(keys) => bucket.delete_many(&keys).map(done),
        }
    }
}

impl Policy for Keeper {
    type Config = Config;

    fn configure(_: Config) -> Result<Self, Failure> {
        let bucket = Bucket::open()?;
        Ok(Self { bucket })
    }

    fn decide(&mut self, request: &Request) -> Result<Decision, Failure> {
        let context: Context = serde_json::from_str(&request.context)
            .map_err(|error| Failure::invalid_input(error.to_string()))?;
        let reasons = context.steps.into_iter().map(|step| {
            self.step(step)
                .unwrap_or_else(|failure| format!("{:?}: {}", failure.code, failure.message))
        });
        Ok(Decision {
            effect: Effect::Allow,
            reasons: reasons.collect(),
            obligations: Vec::new(),
        })
    }
}

sandcast_sdk::export_policy!(Keeper);
