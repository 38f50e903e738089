//! A policy that may ask a server to which the host adds a secret, and looks for that as its configuration
//! says, when it decides. What it found is its reason, or its failure.

use std::fmt::Write as _;

use sandcast_sdk::bindings::imports::wasi::config::store;
use sandcast_sdk::bindings::imports::wasi::filesystem::preopens;
use sandcast_sdk::bindings::imports::wasi::filesystem::types::{
    DescriptorFlags, OpenFlags, PathFlags,
};
use sandcast_sdk::bindings::imports::wasi::http::outgoing_handler;
use sandcast_sdk::bindings::imports::wasi::http::types::{Fields, Method, OutgoingRequest, Scheme};
use sandcast_sdk::http::Request as Question;
use sandcast_sdk::{Decision, Failure, Policy, Request};
use serde::Deserialize;

/// Where to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Behaviour {
    /// Asks the server that it may ask.
    Behave,
    /// Reads all of its configuration.
    Configuration,
    /// The path as it stands, handed to the first granted folder.
    Read,
    /// Sets the field that the secret is sent in.
    OwnField,
    /// The same in capital letters.
    OwnFieldInCapitals,
    /// Asks another server, to which nothing is added.
    AskElsewhere,
    /// Follows the server to another one.
    Follow,
    /// Has the server say what it was sent.
    Trace,
    /// Reads the fields of its request before it is sent, and those of the answer.
    ReadBack,
    /// Asks where nobody answers, and reads why.
    AskNobody,
    /// Asks for an answer that is none, and reads why.
    AskForGarbage,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    behaviour: Behaviour,
    /// The server that it may ask, with a slash behind it.
    url: String,
    /// Another one, as it is written in an address.
    elsewhere: String,
    path: String,
}

/// Bytes of an answer, or of a file.
const MOST: usize = 1 << 20;

/// The status, the fields and the body of an answer.
fn asked(question: Question) -> Result<String, Failure> {
    let answer = question.send()?;
    let mut told = answer.status.to_string();
    for (name, value) in &answer.fields {
        let _ = write!(told, " {name}={}", String::from_utf8_lossy(value));
    }
    let body = answer.bytes(MOST)?;
    let _ = write!(told, ": {}", String::from_utf8_lossy(&body));
    Ok(told)
}

fn configuration() -> Result<String, Failure> {
    let all = store::get_all().map_err(|error| Failure::internal(format!("{error:?}")))?;
    let told: Vec<String> = all
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    Ok(told.join(" "))
}

fn read(path: &str) -> Result<String, Failure> {
    let (folder, _) = preopens::get_directories()
        .into_iter()
        .next()
        .ok_or_else(|| Failure::internal("no folder is granted"))?;
    let file = folder
        .open_at(
            PathFlags::SYMLINK_FOLLOW,
            path,
            OpenFlags::empty(),
            DescriptorFlags::READ,
        )
        .map_err(|code| Failure::denied(format!("`{path}`: {}", code.name())))?;
    let (bytes, _) = file
        .read(MOST as u64, 0)
        .map_err(|code| Failure::denied(format!("`{path}`: {}", code.name())))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn follow(url: &str) -> Result<String, Failure> {
    let answer = Question::get(format!("{url}moved")).send()?;
    let Some(place) = answer.field("location").map(str::to_owned) else {
        return Err(Failure::internal("it was not sent elsewhere"));
    };
    asked(Question::get(place))
}

fn fields_of(fields: &Fields) -> String {
    fields
        .entries()
        .into_iter()
        .fold(String::new(), |told, (name, value)| {
            format!("{told} {name}={}", String::from_utf8_lossy(&value))
        })
}

fn read_back(url: &str) -> Result<String, Failure> {
    let unwritable = |()| Failure::internal("the host did not take it");
    let authority = url.trim_start_matches("http://").trim_end_matches('/');
    let request = OutgoingRequest::new(Fields::new());
    request.set_method(&Method::Get).map_err(unwritable)?;
    request
        .set_scheme(Some(&Scheme::Http))
        .map_err(unwritable)?;
    request.set_authority(Some(authority)).map_err(unwritable)?;
    request.set_path_with_query(Some("/")).map_err(unwritable)?;
    let before = fields_of(&request.headers());
    let pending = outgoing_handler::handle(request, None)
        .map_err(|code| Failure::denied(code.to_string()))?;
    pending.subscribe().block();
    match pending.get() {
        Some(Ok(Ok(answer))) => Ok(format!("{before}{}", fields_of(&answer.headers()))),
        Some(Ok(Err(code))) => Err(Failure::unavailable(code.to_string())),
        _ => Err(Failure::internal("no answer")),
    }
}

fn look(config: &Config) -> Result<String, Failure> {
    let url = config.url.as_str();
    match config.behaviour {
        Behaviour::Behave => asked(Question::get(url)),
        Behaviour::Configuration => configuration(),
        Behaviour::Read => read(&config.path),
        Behaviour::OwnField => asked(Question::get(url).field("authorization", "mine")),
        Behaviour::OwnFieldInCapitals => asked(Question::get(url).field("AUTHORIZATION", "mine")),
        Behaviour::AskElsewhere => asked(Question::get(format!("http://{}/", config.elsewhere))),
        Behaviour::Follow => follow(url),
        Behaviour::Trace => asked(Question::new("TRACE", url)),
        Behaviour::ReadBack => read_back(url),
        Behaviour::AskNobody => asked(Question::get("http://127.0.0.1:1/")),
        Behaviour::AskForGarbage => asked(Question::get(format!("{url}garbage"))),
    }
}

struct Hostile(Config);

impl Policy for Hostile {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, Failure> {
        Ok(Self(config))
    }

    fn decide(&mut self, _: &Request) -> Result<Decision, Failure> {
        Ok(Decision::allow(look(&self.0)?))
    }
}

sandcast_sdk::export_policy!(Hostile);
