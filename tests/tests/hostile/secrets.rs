//! Guests that look for a secret of the host, and guests that say what its log must not hold. A credential
//! is nowhere in what a guest hands back and nowhere in the log; a person whom a guest names is in the log
//! only where it made them the name of something.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use rusqlite::Connection;
use sandcast_sandbox::{
    Access, CallContext, FileGrant, FileQuota, HttpGrant, Plugin, Role, StateGrant,
};
use sandcast_tests::built;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::catalogue::rows_of;
use crate::guests::request;
use crate::world::seen;
use crate::yard::{Outcome, PERSON, Yard, grants};

/// What the host adds to requests, and nobody else may know.
const CREDENTIAL: &str = "c4nary-of-the-operator";

/// What a server was asked.
type Heard = Arc<Mutex<Vec<String>>>;

/// A server that remembers what it was asked, sends whoever wants it elsewhere, and answers nonsense where
/// it is asked to.
fn server(elsewhere: Option<SocketAddr>) -> (SocketAddr, Heard) {
    fn answer(
        mut stream: TcpStream,
        elsewhere: Option<SocketAddr>,
        heard: &Mutex<Vec<String>>,
    ) -> std::io::Result<()> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && head.len() < 10_000 && stream.read(&mut byte)? == 1 {
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        heard.lock().expect("no panic").push(head.clone());
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .and_then(|length| length.parse().ok())
            .unwrap_or(0);
        let mut body = Vec::new();
        std::io::Read::by_ref(&mut stream)
            .take(length)
            .read_to_end(&mut body)?;
        let text = match elsewhere {
            Some(place) if head.starts_with("GET /moved") => format!(
                "HTTP/1.1 302 Found\r\nlocation: http://{place}/\r\ncontent-length: 0\r\n\r\n"
            ),
            _ if head.starts_with("GET /garbage") => "220 ftp ready\r\n\r\n".to_owned(),
            _ => "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood".to_owned(),
        };
        stream.write_all(text.as_bytes())
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let heard = Heard::default();
    let ears = Arc::clone(&heard);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let heard = Arc::clone(&ears);
            std::thread::spawn(move || answer(stream, elsewhere, &heard));
        }
    });
    (address, heard)
}

/// May ask a port of this machine, where the host adds a secret from a file.
fn with_credential(port: u16, secret: &Path) -> HttpGrant {
    serde_json::from_value(json!({
        "host": "127.0.0.1", "port": port, "scheme": "http", "networks": ["127.0.0.0/8"],
        "timeout": "5s", "credential": { "prefix": "Bearer ", "secret": { "file": secret } },
    }))
    .expect("a grant")
}

async fn asked(plugin: &Plugin, config: &Value) -> Outcome {
    let context = CallContext::new(None, "test");
    let mut policy = plugin.policy(&context, config).await?;
    Ok(policy.decide(&request("production")).await?.reasons)
}

/// Everything that a guest hands back.
fn in_words(outcome: &Outcome) -> String {
    match outcome {
        Ok(texts) => texts.concat(),
        Err(error) => format!("{error} {error:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thieves() {
    let mut yard = Yard::new("thieves").await;
    let component = fs::read(built("tests/guests/hostile-thief")).expect("the guest");
    let outer = TempDir::with_prefix("sandcast-hostile-").expect("a folder");
    let secret = outer.path().join("credential");
    fs::write(&secret, CREDENTIAL).expect("a secret");
    let granted = outer.path().join("granted");
    fs::create_dir(&granted).expect("a folder");
    std::os::unix::fs::symlink("../credential", granted.join("link")).expect("a link");
    let (elsewhere, overheard) = server(None);
    let (address, heard) = server(Some(elsewhere));
    let mut to_ask = grants(Role::Policy);
    // Nobody answers at port 1.
    to_ask.http = vec![
        with_credential(address.port(), &secret),
        with_credential(1, &secret),
    ];
    to_ask.files = vec![FileGrant {
        host: granted,
        guest: "/data".into(),
        access: Access::Read,
        quota: FileQuota::default(),
    }];
    let loaded = yard.sandbox.load("thief", &component, Role::Policy, to_ask);
    let plugin = loaded.await.expect("it loads");
    let config = |behaviour: &str, path: &str| {
        json!({
            "behaviour": behaviour, "path": path, "url": format!("http://{address}/"),
            "elsewhere": elsewhere.to_string(),
        })
    };
    let good = config("behave", "");
    for row in rows_of("hostile-thief") {
        let (behaviour, path) = row.behaviour.split_once(' ').unwrap_or((row.behaviour, ""));
        let path = path.replace("{secret}", &secret.display().to_string());
        let bad = config(behaviour, &path);
        let told = Mutex::new(String::new());
        let attempt = async {
            let outcome = asked(&plugin, &bad).await;
            *told.lock().expect("no panic") = in_words(&outcome);
            outcome
        };
        yard.lets(&row, attempt, asked(&plugin, &good)).await;
        let told = told.into_inner().expect("no panic");
        assert!(!told.is_empty(), "{row}: it is told something");
        if told.contains(CREDENTIAL) {
            yard.is_wrong(format!("{row}: it has seen {CREDENTIAL}"));
        }
    }
    yard.is_not_on_record(CREDENTIAL);
    // The server is sent it, each time.
    let heard = heard.lock().expect("no panic");
    let field = format!("authorization: Bearer {CREDENTIAL}\r\n");
    assert!(!heard.is_empty() && heard.iter().all(|head| head.contains(&field)));
    let overheard = overheard.lock().expect("no panic");
    assert!(overheard.is_empty(), "nobody else is asked: {overheard:?}");
    yard.finish();
}

/// What `noise` sees of its environment and its arguments where the host has a credential for it.
#[tokio::test(flavor = "multi_thread")]
async fn the_standard_library_sees_no_credential() {
    let mut yard = Yard::new("credential").await;
    let component = fs::read(built("tests/guests/noise")).expect("the guest");
    let outer = TempDir::with_prefix("sandcast-hostile-").expect("a folder");
    let secret = outer.path().join("credential");
    fs::write(&secret, CREDENTIAL).expect("a secret");
    let mut to_ask = grants(Role::Validator);
    to_ask.http = vec![with_credential(1, &secret)];
    let loaded = yard
        .sandbox
        .load("noise", &component, Role::Validator, to_ask);
    let plugin = loaded.await.expect("it loads");
    let told = seen(&plugin, &json!({ "lines": 1 })).await;
    let told = told.expect("it is asked");
    assert!(told.contains(" 0 things seen"), "{told}");
    yard.is_not_on_record(CREDENTIAL);
    yard.finish();
}

/// The kind of the entries and their field where the log has what a guest made the name of something.
fn place_of(behaviour: &str) -> Option<(&'static str, &'static str)> {
    match behaviour {
        "in-state-key" | "in-object-key" | "in-file-name" | "in-path" => Some(("effect", "target")),
        "in-bucket-name" | "in-other-key" | "in-store-name" | "in-connection-name" | "in-host" => {
            Some(("denied", "detail"))
        }
        _ => None,
    }
}

/// What is wrong with the entries that name a person.
fn mistake_in(entries: &[Value], place: Option<(&str, &str)>) -> Option<String> {
    let Some((kind, field)) = place else {
        let first = entries.first()?;
        return Some(format!("{PERSON} is in {first}"));
    };
    if entries.is_empty() {
        return Some(format!("nobody is named in a `{kind}` entry"));
    }
    let is_other = |entry: &&Value| {
        let named = entry[field].as_str().unwrap_or_default();
        let times = entry.to_string().matches(PERSON).count();
        entry["event"] != kind || named.matches(PERSON).count() != 1 || times != 1
    };
    let other = entries.iter().find(is_other)?;
    Some(format!("{PERSON} is not in `{field}` alone in {other}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn tellers() {
    let mut yard = Yard::new("tellers").await;
    let component = fs::read(built("tests/guests/hostile-teller")).expect("the guest");
    let outer = TempDir::with_prefix("sandcast-hostile-").expect("a folder");
    for folder in ["granted", "lake"] {
        fs::create_dir(outer.path().join(folder)).expect("a folder");
    }
    let file = outer.path().join("people.sqlite");
    Connection::open(&file)
        .and_then(|database| database.execute_batch("CREATE TABLE people (name TEXT)"))
        .expect("a database");
    let (address, _) = server(None);
    let mut everything = grants(Role::Policy);
    everything.state = Some(StateGrant::default());
    let people = json!({ "connection": "people", "to": { "sqlite": file } });
    everything.sql = vec![serde_json::from_value(people).expect("a grant")];
    let lake = json!({
        "store": "lake", "prefix": "raw/", "access": "read-write",
        "to": { "url": format!("file:{}", outer.path().join("lake").display()) },
    });
    everything.blob = vec![serde_json::from_value(lake).expect("a grant")];
    let server = json!({
        "host": "127.0.0.1", "port": address.port(), "scheme": "http", "methods": ["GET", "POST"],
        "networks": ["127.0.0.0/8"], "timeout": "5s",
    });
    everything.http = vec![serde_json::from_value(server).expect("a grant")];
    everything.files = vec![FileGrant {
        host: outer.path().join("granted"),
        guest: "/data".into(),
        access: Access::ReadWrite,
        quota: FileQuota::default(),
    }];
    let loaded = yard
        .sandbox
        .load("teller", &component, Role::Policy, everything);
    let plugin = loaded.await.expect("it loads");
    let config =
        |behaviour: &str| json!({ "behaviour": behaviour, "url": format!("http://{address}/") });
    let good = config("behave");
    for row in rows_of("hostile-teller") {
        let before = yard.events().len();
        let bad = config(row.behaviour);
        yard.lets(&row, asked(&plugin, &bad), asked(&plugin, &good))
            .await;
        let told = yard.events().split_off(before);
        let entries: Vec<Value> = told
            .iter()
            .map(|event| serde_json::to_value(event).expect("JSON"))
            .filter(|entry| entry.to_string().contains(PERSON))
            .collect();
        if let Some(mistake) = mistake_in(&entries, place_of(row.behaviour)) {
            yard.is_wrong(format!("{row}: {mistake}"));
        }
    }
    yard.finish();
}
