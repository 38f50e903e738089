//! A policy that keeps things as its configuration says, when it decides. What it came to is its
//! reason, or its failure; it traps where it finds what it must not.

use sandcast_sdk::bindings::imports::wasi::keyvalue::store;
use sandcast_sdk::state::Bucket;
use sandcast_sdk::{Decision, Failure, Policy, Request};
use serde::Deserialize;

/// What to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Behaviour {
    /// Keeps a word, and says whether it was there before.
    Behave,
    /// Opens a bucket of another name.
    OtherBucket,
    /// Opens a path for a bucket.
    PathForBucket,
    /// Reads what a neighbour keeps.
    ReadNeighbour,
    /// Keeps something else under the key of a neighbour.
    SameKey,
    /// Deletes the key of a neighbour.
    DeleteNeighbour,
    /// A key that leads up, out of what is its own.
    KeyGoesUp,
    /// A key with a zero in it.
    ZeroInKey,
    /// A key that clears a terminal, and turns the direction of text.
    EscapesInKey,
    /// A key that is a piece of a statement.
    QuoteInKey,
    /// A key of no letters.
    EmptyKey,
    /// A key of 10 MiB.
    LongKey,
    /// A value that is longer than one may be.
    LongValue,
    /// A value of 32 MiB.
    GiantValue,
    /// More values than fit.
    ManyBytes,
    /// More keys than it may keep.
    ManyKeys,
    /// The same, and it goes on where it is refused.
    ManyKeysAnyway,
    /// More keys than it may keep, all at one time; none of them is kept.
    SetManyKeys,
    /// Two values at one time, of which the second is too long; neither is kept.
    SetOneTooLong,
    /// Ten thousand keys in one call.
    SetTenThousand,
    /// Asks for the values of a million names.
    GetMillion,
    /// Adds to the largest number that there is.
    AddAboveLargest,
    /// Takes off the smallest.
    AddBelowSmallest,
    /// Lists its keys from where no page ended.
    ForgedCursor,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    behaviour: Behaviour,
}

struct Hostile {
    behaviour: Behaviour,
    bucket: Bucket,
}

/// The key that a neighbour keeps something under.
const SHARED: &str = "shared";

/// Keys that are tried, far more than the tests grant.
const MANY: u32 = 20_000;

/// Bytes of a value that fits, as the tests grant it, and of one that does not.
const FITS: usize = 8 << 10;
const TOO_LONG: usize = FITS + 1;

/// Clears the screen, sets the title, goes up a line, hides what follows, and turns it around.
const ESCAPES: &str =
    "\u{1b}[2J\u{1b}]0;owned\u{7}\u{1b}[1A\r\u{8}\u{9b}31m\u{202e}\u{2066}\u{0}passed\n";

fn opened(name: &str) -> Result<String, Failure> {
    store::open(name).map_err(|error| Failure::denied(format!("`{name}`: {error:?}")))?;
    Ok("open".to_owned())
}

/// Keeps something under a key, and nothing else than that is there.
fn kept(bucket: &Bucket, key: &str) -> Result<String, Failure> {
    bucket.set(key, b"another")?;
    assert_eq!(bucket.keys()?, [key], "one key is its own");
    assert_eq!(bucket.get(key)?, Some(b"another".to_vec()));
    Ok("its own".to_owned())
}

/// Keeps values under one key after the other.
fn many(bucket: &Bucket, value: &[u8], goes_on: bool) -> Result<String, Failure> {
    for number in 0..MANY {
        let done = bucket.set(&number.to_string(), value);
        if !goes_on {
            done?;
        }
    }
    Ok(format!("{MANY} keys"))
}

/// Keeps all of some pairs, or none.
fn all_or_none(bucket: &Bucket, pairs: &[(String, Vec<u8>)]) -> Result<String, Failure> {
    let done = bucket.set_many(pairs);
    if done.is_err() {
        assert!(bucket.keys()?.is_empty(), "none is kept");
    }
    done.map(|()| "all of them".to_owned())
}

fn pairs(count: u32) -> Vec<(String, Vec<u8>)> {
    (0..count)
        .map(|number| (number.to_string(), b"x".to_vec()))
        .collect()
}

/// Adds to a number that is at its end; it stays what it was.
fn added(bucket: &Bucket, number: i64, delta: i64) -> Result<String, Failure> {
    let text = number.to_string().into_bytes();
    bucket.set("number", &text)?;
    let sum = bucket.increment("number", delta);
    assert_eq!(bucket.get("number")?, Some(text), "it is what it was");
    sum.map(|sum| sum.to_string())
}

/// Lists keys from places that no page gave.
fn listed(bucket: &Bucket) -> Result<String, Failure> {
    bucket.set("mine", b"another")?;
    let unopened = |error: store::Error| Failure::internal(format!("{error:?}"));
    let bucket = store::open("default").map_err(unopened)?;
    let long = "k".repeat(1 << 20);
    for cursor in [
        "",
        "a",
        "../neighbour",
        "a\0",
        "' OR 1=1 --",
        "\u{10ffff}",
        &long,
    ] {
        let page = bucket.list_keys(Some(cursor)).map_err(unopened)?;
        assert!(page.keys.iter().all(|key| key == "mine"), "its own keys");
        assert!(page.cursor.is_none(), "there is no other page");
    }
    Ok("its own".to_owned())
}

impl Hostile {
    fn keep(&self) -> Result<String, Failure> {
        let bucket = &self.bucket;
        match self.behaviour {
            Behaviour::Behave => {
                let before = match bucket.get(SHARED)?.as_deref() {
                    None => "nothing before",
                    Some(b"mine") => "the same before",
                    Some(_) => "something else before",
                };
                bucket.set(SHARED, b"mine")?;
                Ok(before.to_owned())
            }
            Behaviour::OtherBucket => opened("payroll"),
            Behaviour::PathForBucket => opened("../plugin-state.sqlite"),
            Behaviour::ReadNeighbour => {
                assert!(!bucket.exists(SHARED)?, "it is not there");
                assert_eq!(bucket.get(SHARED)?, None);
                assert!(bucket.keys()?.is_empty(), "nothing is there");
                Ok("nothing".to_owned())
            }
            Behaviour::SameKey => kept(bucket, SHARED),
            Behaviour::DeleteNeighbour => {
                bucket.delete(SHARED)?;
                bucket.delete_many(&[SHARED.to_owned()])?;
                Ok("nothing".to_owned())
            }
            Behaviour::KeyGoesUp => kept(bucket, "../../neighbour/shared"),
            Behaviour::ZeroInKey => {
                let its_own = kept(bucket, "shared\0a")?;
                assert_eq!(bucket.get(SHARED)?, None, "that is another key");
                Ok(its_own)
            }
            Behaviour::EscapesInKey => kept(bucket, ESCAPES),
            Behaviour::QuoteInKey => kept(bucket, "' OR 1=1; DROP TABLE pair; --"),
            Behaviour::EmptyKey => kept(bucket, ""),
            Behaviour::LongKey => kept(bucket, &"k".repeat(10 << 20)),
            Behaviour::LongValue => many(bucket, &[b'x'; TOO_LONG], false),
            Behaviour::GiantValue => many(bucket, &vec![b'x'; 32 << 20], false),
            Behaviour::ManyBytes => many(bucket, &[b'x'; FITS], false),
            Behaviour::ManyKeys => many(bucket, b"x", false),
            Behaviour::ManyKeysAnyway => many(bucket, b"x", true),
            Behaviour::SetManyKeys => all_or_none(bucket, &pairs(100)),
            Behaviour::SetOneTooLong => {
                let long = ("long".to_owned(), vec![b'x'; TOO_LONG]);
                let short = ("short".to_owned(), b"x".to_vec());
                all_or_none(bucket, &[short, long])
            }
            Behaviour::SetTenThousand => all_or_none(bucket, &pairs(10_000)),
            Behaviour::GetMillion => {
                let names: Vec<String> = (0..1_000_000_u32).map(|it| it.to_string()).collect();
                let found = bucket.get_many(&names)?;
                Ok(format!("{} values", found.len()))
            }
            Behaviour::AddAboveLargest => added(bucket, i64::MAX, 1),
            Behaviour::AddBelowSmallest => added(bucket, i64::MIN, -1),
            Behaviour::ForgedCursor => listed(bucket),
        }
    }
}

impl Policy for Hostile {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, Failure> {
        Ok(Self {
            behaviour: config.behaviour,
            bucket: Bucket::open()?,
        })
    }

    fn decide(&mut self, _: &Request) -> Result<Decision, Failure> {
        Ok(Decision::allow(self.keep()?))
    }
}

sandcast_sdk::export_policy!(Hostile);
