//! Guests that look for the secrets of the host, and for a way to carry out what they know. None of them
//! sees the credential that is sent for it, and nothing of it is on record.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use arrow::array::AsArray as _;
use sandcast_sandbox::{CallContext, CallError, LoadError, Plugin, Role, ScanRequest};
use sandcast_tests::{built, repeating};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::MEMORY;
use crate::catalogue::{Must, Row, rows_of};
use crate::yard::{Yard, grants};

/// What the host puts into requests.
const SECRET: &str = "s3cret-of-the-host";

/// Connections that the server takes.
const MAX_CONNECTIONS: usize = 100;

/// A server that repeats what it is sent.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        for stream in listener.incoming().flatten().take(MAX_CONNECTIONS) {
            let heard = Arc::clone(&heard);
            std::thread::spawn(move || repeating::answer(stream, &heard));
        }
    });
    address
}

/// What a connector hands over in its one row.
async fn content(plugin: &Plugin, config: &Value) -> Result<String, CallError> {
    let context = CallContext::new(None, "test");
    let mut connector = plugin.connector(&context, config).await?;
    connector.schema().await?;
    let split = connector.partitions().await?.remove(0);
    connector.scan(&ScanRequest::all(split)).await?;
    let chunk = connector.next().await?.expect("a chunk");
    let batch = chunk.batch.expect("a row");
    Ok(batch.column(0).as_string::<i32>().value(0).to_owned())
}

/// What the guest is told to do.
fn wanted(row: &Row, address: SocketAddr) -> Value {
    let at = |path: &str| json!({ "url": format!("http://{address}{path}") });
    match row.behaviour {
        "repeated-in-a-field" => at("/field"),
        "repeated-in-the-body" => at("/body"),
        "repeated-in-pieces" => at("/pieces"),
        "repeated-in-a-trailer" => at("/trailer"),
        "own-credential" => json!({
            "url": format!("http://{address}/body"), "fields": [["authorization", "mine"]],
        }),
        "secret-in-a-name" => json!({ "url": "http://what-i-know.evil.example/" }),
        "secret-to-another-port" => {
            let other = if address.port() == 1 { 2 } else { 1 };
            json!({ "url": format!("http://{}:{other}/what-i-know", address.ip()) })
        }
        other => panic!("`{other}` is not known here"),
    }
}

/// A guest that has a way out and is granted nothing.
async fn loads(yard: &Yard, guest: &str, role: Role) -> Result<(), LoadError> {
    let component = fs::read(built(&format!("tests/guests/{guest}"))).expect("the guest");
    let loaded = yard
        .sandbox
        .load("borrower", &component, role, grants(role))
        .await;
    loaded.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn borrowers() {
    let mut yard = Yard::new("borrowers").await;
    let folder = TempDir::with_prefix("sandcast-hostile-").expect("a folder");
    let file = folder.path().join("token");
    fs::write(&file, SECRET).expect("a secret");
    let path = file.to_str().expect("a path in UTF-8");
    let address = server();
    let mut with_credential = grants(Role::Connector);
    with_credential.http = vec![
        serde_json::from_value(json!({
            "host": "127.0.0.1", "port": address.port(), "scheme": "http",
            "networks": ["127.0.0.0/8"], "timeout": "5s",
            "credential": { "prefix": "Bearer ", "secret": { "file": path } },
        }))
        .expect("a grant"),
    ];
    let component = fs::read(built("tests/guests/caller")).expect("the guest");
    let loaded = yard
        .sandbox
        .load("borrower", &component, Role::Connector, with_credential);
    let caller = loaded.await.expect("it loads");
    let good = json!({ "url": format!("http://{address}/almost") });
    for row in rows_of("borrower") {
        let ungranted = match row.behaviour {
            "http-that-is-not-granted" => Some(("caller", Role::Connector)),
            "file-that-is-not-granted" => Some(("hostile-reader", Role::Connector)),
            "state-that-is-not-granted" => Some(("keeper", Role::Policy)),
            "store-that-is-not-granted" => Some(("stower", Role::Policy)),
            "database-that-is-not-granted" => Some(("asker", Role::Policy)),
            _ => None,
        };
        if let Some((guest, role)) = ungranted {
            let before = MEMORY.begin();
            let (found, told) = match loads(&yard, guest, role).await {
                Err(error @ LoadError::NotGranted { .. }) => (Must::NotLoaded, error.to_string()),
                other => (Must::Never, format!("{other:?}")),
            };
            yard.note(&row, found, &told, MEMORY.growth(before));
            continue;
        }
        let config = wanted(&row, address);
        let attempt = async {
            let seen = content(&caller, &config).await;
            let told = match &seen {
                Ok(content) => content.clone(),
                Err(error) => error.to_string(),
            };
            assert!(!told.contains(SECRET), "{row}: {told}");
            seen.map(|_| Vec::new())
        };
        let afterwards = async {
            let almost = content(&caller, &good).await?;
            assert!(almost.contains("Bearer s3cret"), "it was sent: {almost}");
            Ok(Vec::new())
        };
        yard.lets(&row, attempt, afterwards).await;
        let record = serde_json::to_string(&yard.events()).expect("JSON");
        if record.contains(SECRET) {
            yard.is_wrong(format!("{row}: the secret is on record"));
        }
    }
    let port = address.port().to_string();
    let told = yard.finish().replace(&port, "PORT");
    let told = told.replace(&folder.path().display().to_string(), "FOLDER");
    insta::assert_snapshot!("borrowers", told);
}
