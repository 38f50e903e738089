//! A policy that asks a store as its configuration says, when it decides. What it came to is its reason, or
//! its failure.

use sandcast_sdk::blob::{self, Condition, Entry, Object, Outcome};
use sandcast_sdk::{Decision, Failure, Policy, Request};
use serde::Deserialize;

/// What to ask of the store, with the key as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Behaviour {
    /// The object.
    Get,
    /// The object of that key in a store of another name.
    GetElsewhere,
    /// Puts a few bytes there.
    Put,
    /// Puts more bytes there than an object has.
    PutLarge,
    /// Puts objects under keys that begin so, until it may not.
    PutMany,
    /// Puts large ones, until it may not.
    PutMuch,
    /// Puts a few bytes over whatever has the tag `*`.
    ForgeTag,
    /// Takes the object away.
    Delete,
    /// Every object below the key.
    List,
    /// One page below the key, of as many as a number can say.
    GiantPage,
    /// One page below the key, of none.
    EmptyPage,
    /// The page behind a cursor that is the key.
    PageFrom,
    /// A part that begins a tebibyte beyond the end.
    PartBeyond,
    /// A part that ends before it begins, once its ends are added.
    PartAround,
    /// A part of no bytes.
    EmptyPart,
    /// A part that begins at the second byte and is as long as a number can say.
    GiantPart,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    behaviour: Behaviour,
    key: String,
}

/// The store and the prefix that the tests grant.
const STORE: &str = "lake";
const PREFIX: &str = "raw/";

/// Objects that are put, more than the tests grant.
const MANY: u32 = 1000;

/// Bytes that fit into an object, as the tests grant it, and that do not.
const FITS: usize = 60 << 10;
const TOO_LONG: usize = 1 << 20;

/// Where there is nothing of any object.
const FAR: u64 = 1 << 40;

fn content(object: Option<Object>) -> String {
    object.map_or_else(
        || "nothing".to_owned(),
        |it| String::from_utf8_lossy(&it.bytes).into_owned(),
    )
}

fn put(key: &str, bytes: &[u8], condition: &Condition) -> Result<String, Failure> {
    match blob::put(STORE, key, bytes, condition)? {
        Outcome::Done(_) => Ok("done".to_owned()),
        Outcome::Unmet => Ok("unmet".to_owned()),
    }
}

fn put_many(key: &str, bytes: usize) -> Result<String, Failure> {
    let bytes = vec![b'x'; bytes];
    for number in 0..MANY {
        put(&format!("{key}{number}"), &bytes, &Condition::Always)?;
    }
    Ok(format!("{MANY} objects"))
}

fn page(prefix: &str, cursor: Option<&str>, limit: u32) -> Result<String, Failure> {
    let page = blob::page(STORE, prefix, cursor, limit)?;
    Ok(format!("{} entries", page.entries.len()))
}

fn part(key: &str, offset: u64, length: u64) -> Result<String, Failure> {
    blob::get_range(STORE, key, offset, length).map(content)
}

fn ask(config: &Config) -> Result<String, Failure> {
    let key = config.key.as_str();
    match config.behaviour {
        Behaviour::Get => blob::get(STORE, key).map(content),
        Behaviour::GetElsewhere => blob::get("payroll", key).map(content),
        Behaviour::Put => put(key, b"planted", &Condition::Always),
        Behaviour::PutLarge => put(key, &vec![b'x'; TOO_LONG], &Condition::Always),
        Behaviour::PutMany => put_many(key, 1),
        Behaviour::PutMuch => put_many(key, FITS),
        Behaviour::ForgeTag => put(key, b"planted", &Condition::IfMatch("*".to_owned())),
        Behaviour::Delete => blob::delete(STORE, key).map(|()| "deleted".to_owned()),
        Behaviour::List => {
            let entries: Vec<Entry> = blob::list(STORE, key).collect::<Result<_, _>>()?;
            Ok(format!("{} entries", entries.len()))
        }
        Behaviour::GiantPage => page(key, None, u32::MAX),
        Behaviour::EmptyPage => page(key, None, 0),
        Behaviour::PageFrom => page(PREFIX, Some(key), 1),
        Behaviour::PartBeyond => part(key, FAR, 10),
        Behaviour::PartAround => part(key, u64::MAX, u64::MAX),
        Behaviour::EmptyPart => part(key, 0, 0),
        Behaviour::GiantPart => part(key, 1, u64::MAX - 1),
    }
}

struct Hostile(Config);

impl Policy for Hostile {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, Failure> {
        Ok(Self(config))
    }

    fn decide(&mut self, _: &Request) -> Result<Decision, Failure> {
        Ok(Decision::allow(ask(&self.0)?))
    }
}

sandcast_sdk::export_policy!(Hostile);
