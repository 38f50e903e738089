//! A policy that does with stores what the context of a request says, step by step. The reasons of its decision
//! say what each step came to.

use sandcast_sdk::blob::{self, Condition, Entry, Outcome};
use sandcast_sdk::{Decision, Effect, Failure, Policy, Request};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {}

#[derive(Debug, Deserialize)]
struct Context {
    steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
enum Step {
    /// One page.
    Page {
        store: String,
        prefix: String,
        cursor: Option<String>,
        limit: u32,
    },
    /// Every key, page after page.
    List {
        store: String,
        prefix: String,
    },
    Head {
        store: String,
        key: String,
    },
    Get {
        store: String,
        key: String,
        range: Option<(u64, u64)>,
    },
    /// A text, over and over.
    Put {
        store: String,
        key: String,
        text: String,
        #[serde(default = "one")]
        times: usize,
        /// `absent`, or the tag that it must have; `same` is the one that it has.
        when: Option<String>,
    },
    Delete {
        store: String,
        key: String,
    },
}

/// Bytes that are told.
const SHOWN: usize = 60;

fn one() -> usize {
    1
}

fn entry(entry: &Entry) -> String {
    format!("{} {}", entry.key, entry.size)
}

fn keys(entries: &[Entry]) -> String {
    entries.iter().map(entry).collect::<Vec<_>>().join(", ")
}

fn step(step: &Step) -> Result<String, Failure> {
    Ok(match step {
        Step::Page {
            store,
            prefix,
            cursor,
            limit,
        } => {
            let page = blob::page(store, prefix, cursor.as_deref(), *limit)?;
            format!(
                "{} | {}",
                keys(&page.entries),
                page.cursor.unwrap_or_default()
            )
        }
        Step::List { store, prefix } => {
            let entries: Vec<Entry> = blob::list(store, prefix).collect::<Result<_, _>>()?;
            keys(&entries)
        }
        Step::Head { store, key } => match blob::head(store, key)? {
            None => "nothing".to_owned(),
            Some(it) => format!(
                "{}, {} {}",
                entry(&it),
                it.etag.is_some(),
                it.modified.is_some()
            ),
        },
        Step::Get { store, key, range } => {
            let object = match range {
                None => blob::get(store, key)?,
                Some((offset, length)) => blob::get_range(store, key, *offset, *length)?,
            };
            match object {
                None => "nothing".to_owned(),
                Some(it) => {
                    let shown = &it.bytes[..it.bytes.len().min(SHOWN)];
                    let shown = String::from_utf8_lossy(shown).into_owned();
                    format!("{}: {} {shown}", entry(&it.entry), it.bytes.len())
                }
            }
        }
        Step::Put {
            store,
            key,
            text,
            times,
            when,
        } => {
            let condition = match when.as_deref() {
                None => Condition::Always,
                Some("absent") => Condition::IfAbsent,
                Some("same") => {
                    let there = blob::head(store, key)?;
                    Condition::IfMatch(there.and_then(|it| it.etag).unwrap_or_default())
                }
                Some(tag) => Condition::IfMatch(tag.to_owned()),
            };
            match blob::put(store, key, text.repeat(*times).as_bytes(), &condition)? {
                Outcome::Done(tag) => format!("done {}", tag.is_some()),
                Outcome::Unmet => "unmet".to_owned(),
            }
        }
        Step::Delete { store, key } => {
            blob::delete(store, key)?;
            "deleted".to_owned()
        }
    })
}

struct Stower;

impl Policy for Stower {
    type Config = Config;

    fn configure(_: Config) -> Result<Self, Failure> {
        Ok(Self)
    }

    fn decide(&mut self, request: &Request) -> Result<Decision, Failure> {
        let context: Context = serde_json::from_str(&request.context)
            .map_err(|error| Failure::invalid_input(error.to_string()))?;
        let told = |done: Result<String, Failure>| {
            done.unwrap_or_else(|failure| format!("{:?}: {}", failure.code, failure.message))
        };
        Ok(Decision {
            effect: Effect::Allow,
            reasons: context.steps.iter().map(|it| told(step(it))).collect(),
            obligations: Vec::new(),
        })
    }
}

sandcast_sdk::export_policy!(Stower);
