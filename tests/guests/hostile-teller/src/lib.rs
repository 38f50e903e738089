//! A policy that names a person in a way that its configuration says, when it decides: in each text that
//! it hands to the host.

use sandcast_sdk::bindings::imports::wasi::filesystem::preopens;
use sandcast_sdk::bindings::imports::wasi::filesystem::types::{
    DescriptorFlags, OpenFlags, PathFlags,
};
use sandcast_sdk::bindings::imports::wasi::keyvalue::store;
use sandcast_sdk::blob::{self, Condition};
use sandcast_sdk::http::Request as Question;
use sandcast_sdk::sql::{self, Parameter};
use sandcast_sdk::state::Bucket;
use sandcast_sdk::{Decision, Failure, Policy, Request, log};
use serde::Deserialize;

/// Where to name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Behaviour {
    /// Names nobody.
    Behave,
    /// In a message of the log of the host.
    InLog,
    /// In a failure and its hint.
    InFailure,
    /// In the reason of a decision.
    InReason,
    /// In the parameters of an obligation.
    InObligation,
    /// In what a panic says.
    InPanic,
    /// In a value that is kept.
    InStateValue,
    /// In the key of one, which is the name of what is changed.
    InStateKey,
    /// In the name of a bucket that there is not, which is the name of what is denied.
    InBucketName,
    /// In an object.
    InObject,
    /// In its key, which is the name of what is put.
    InObjectKey,
    /// In a key that is not granted, which is the name of what is denied.
    InOtherKey,
    /// In the name of a store that is not granted, the same.
    InStoreName,
    /// In the tag that an object is to have.
    InTag,
    /// In a cursor.
    InCursor,
    /// In a statement.
    InStatement,
    /// In a statement that the database does not understand.
    InWrongStatement,
    /// In a parameter.
    InParameter,
    /// In the name of a connection that is not granted, which is the name of what is denied.
    InConnectionName,
    /// In the name of a file, which is the name of what is made.
    InFileName,
    /// In a file.
    InFile,
    /// In the path of an address, which is the name of what is asked.
    InPath,
    /// In the query of one.
    InQuery,
    /// In the name of a host that is not granted, which is the name of what is denied.
    InHost,
    /// In a field of a request.
    InField,
    /// In the body of one.
    InBody,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    behaviour: Behaviour,
    /// The server that it may ask, with a slash behind it.
    url: String,
}

/// Whom it names.
const PERSON: &str = "mustermann-4711";

/// What the tests grant.
const CONNECTION: &str = "people";
const STORE: &str = "lake";
const PREFIX: &str = "raw/";

fn put(key: &str, text: &str, condition: &Condition) -> Result<(), Failure> {
    blob::put(STORE, key, text.as_bytes(), condition).map(|_| ())
}

fn query(connection: &str, statement: &str, parameters: &[Parameter]) -> Result<(), Failure> {
    sql::query(connection, statement, parameters).map(|_| ())
}

fn write(name: &str, text: &str) -> Result<(), Failure> {
    let refused = |what: &str| Failure::internal(format!("the file: {what}"));
    let (folder, _) = preopens::get_directories()
        .into_iter()
        .next()
        .ok_or_else(|| refused("no folder is granted"))?;
    let file = folder
        .open_at(
            PathFlags::empty(),
            name,
            OpenFlags::CREATE,
            DescriptorFlags::READ | DescriptorFlags::WRITE,
        )
        .map_err(|code| refused(code.name()))?;
    file.write(text.as_bytes(), 0)
        .map_err(|code| refused(code.name()))?;
    Ok(())
}

fn ask(question: Question) -> Result<(), Failure> {
    question.send().map(|_| ())
}

fn tell(config: &Config) -> Result<(), Failure> {
    let url = config.url.as_str();
    match config.behaviour {
        Behaviour::InLog => {
            log::error!("{PERSON}");
            Ok(())
        }
        Behaviour::InFailure => Err(Failure::invalid_input(PERSON).hint(PERSON)),
        Behaviour::InPanic => {
            log::report_panics();
            panic!("{PERSON}")
        }
        Behaviour::InStateValue => Bucket::open()?.set("note", PERSON.as_bytes()),
        Behaviour::InStateKey => Bucket::open()?.set(PERSON, b"note"),
        Behaviour::InBucketName => store::open(PERSON)
            .map(|_| ())
            .map_err(|error| Failure::denied(format!("{error:?}"))),
        Behaviour::InObject => put("raw/note", PERSON, &Condition::Always),
        Behaviour::InObjectKey => put(&format!("{PREFIX}{PERSON}"), "note", &Condition::Always),
        Behaviour::InOtherKey => put(PERSON, "note", &Condition::Always),
        Behaviour::InStoreName => blob::head(PERSON, "raw/note").map(|_| ()),
        Behaviour::InTag => put("raw/note", "note", &Condition::IfMatch(PERSON.to_owned())),
        Behaviour::InCursor => {
            let cursor = format!("{PREFIX}{PERSON}");
            blob::page(STORE, PREFIX, Some(&cursor), 1).map(|_| ())
        }
        Behaviour::InStatement => query(CONNECTION, &format!("SELECT '{PERSON}' AS x"), &[]),
        Behaviour::InWrongStatement => query(CONNECTION, &format!("SELEKT '{PERSON}'"), &[]),
        Behaviour::InParameter => query(CONNECTION, "SELECT length(?1) AS x", &[PERSON.into()]),
        Behaviour::InConnectionName => query(PERSON, "SELECT 1 AS x", &[]),
        Behaviour::InFileName => write(PERSON, "note"),
        Behaviour::InFile => write("note", PERSON),
        Behaviour::InPath => ask(Question::get(format!("{url}{PERSON}"))),
        Behaviour::InQuery => ask(Question::get(format!("{url}?name={PERSON}"))),
        Behaviour::InHost => ask(Question::get(format!("http://{PERSON}.example/"))),
        Behaviour::InField => ask(Question::get(url).field("x-name", PERSON)),
        Behaviour::InBody => ask(Question::post(url, PERSON)),
        Behaviour::Behave | Behaviour::InReason | Behaviour::InObligation => Ok(()),
    }
}

struct Hostile(Config);

impl Policy for Hostile {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, Failure> {
        Ok(Self(config))
    }

    fn decide(&mut self, _: &Request) -> Result<Decision, Failure> {
        tell(&self.0)?;
        Ok(match self.0.behaviour {
            Behaviour::InReason => Decision::allow(PERSON),
            Behaviour::InObligation => Decision::allow("told to")
                .oblige("mask-columns", format!("{{\"columns\":[\"{PERSON}\"]}}")),
            _ => Decision::allow("told to"),
        })
    }
}

sandcast_sdk::export_policy!(Hostile);
