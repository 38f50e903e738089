//! Guests that are granted something of the world, and want more of it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::AsArray as _;
use sandcast_audit::Event;
use sandcast_sandbox::{
    Access, ByteSize, CallContext, CallError, FileGrant, FileQuota, Grants, Plugin, Role,
    ScanRequest,
};
use sandcast_tests::built;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::catalogue::{Row, rows_of};
use crate::guests::features;
use crate::yard::{Yard, grants};

/// What nobody may see.
const SECRET: &str = "s3cret-of-the-host";

/// What the guest hands over.
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

/// A granted folder with a secret beside it, and links that an operator has made without a thought.
fn folder() -> TempDir {
    let outer = TempDir::with_prefix("sandcast-hostile-").expect("a folder");
    let granted = outer.path().join("granted");
    fs::create_dir(&granted).expect("a folder");
    fs::write(granted.join("open.txt"), "open").expect("a file");
    fs::write(outer.path().join("secret.txt"), SECRET).expect("a file");
    fs::create_dir(granted.join("inner")).expect("a folder");
    fs::create_dir(granted.join("real")).expect("a folder");
    fs::write(granted.join("real/secret.txt"), "open").expect("a file");
    for (target, name) in [
        ("../secret.txt", "link-out"),
        ("..", "link-up"),
        ("/etc/passwd", "link-root"),
        ("/proc/self", "link-proc"),
        ("loop", "loop"),
        ("../planted.txt", "link-planted"),
        ("real", "swapped"),
    ] {
        std::os::unix::fs::symlink(target, granted.join(name)).expect("a link");
    }
    outer
}

/// Puts a link to the folder above in the place of one to a folder within, over and over.
fn swapping(granted: &Path, is_over: Arc<AtomicBool>) -> std::thread::JoinHandle<u64> {
    let granted = granted.to_path_buf();
    std::thread::spawn(move || {
        let mut swaps = 0;
        while !is_over.load(Ordering::Relaxed) {
            let target = ["..", "real"][swaps as usize % 2];
            let made = std::os::unix::fs::symlink(target, granted.join("next"));
            let swapped =
                made.and_then(|()| fs::rename(granted.join("next"), granted.join("swapped")));
            if swapped.is_err() {
                let _ = fs::remove_file(granted.join("next"));
            }
            swaps += 1;
        }
        swaps
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn readers() {
    let mut yard = Yard::new("readers").await;
    let component = fs::read(built("tests/guests/hostile-reader")).expect("the guest");
    for row in rows_of("hostile-reader") {
        let outer = folder();
        let granted = outer.path().join("granted");
        let mut with_folder = grants(Role::Connector);
        with_folder.files = vec![FileGrant {
            host: granted.clone(),
            guest: "/data".into(),
            access: Access::ReadWrite,
            quota: FileQuota {
                bytes: ByteSize::from_bytes(10_500),
                entries: 5,
            },
        }];
        let loaded = yard
            .sandbox
            .load("reader", &component, Role::Connector, with_folder);
        let plugin = loaded.await.expect("it loads");
        let (behaviour, path) = row.behaviour.split_once(' ').expect("a path");
        let path = if path == "long" {
            "x/".repeat(1 << 19)
        } else {
            path.to_owned()
        };
        let is_over = Arc::new(AtomicBool::new(false));
        let swapper = (behaviour == "read-often").then(|| swapping(&granted, Arc::clone(&is_over)));
        let config = json!({ "behaviour": behaviour, "path": path });
        let good = json!({ "path": "/data/open.txt" });
        let seen = Mutex::new(String::new());
        let attempt = async {
            let content = content(&plugin, &config).await?;
            seen.lock().expect("no panic").push_str(&content);
            Ok(Vec::new())
        };
        let afterwards = async {
            let content = content(&plugin, &good).await;
            // It may have been moved, or filled; then it is the folder that says so.
            match content {
                Err(CallError::Failed { .. }) | Ok(_) => Ok(Vec::new()),
                Err(error) => Err(error),
            }
        };
        yard.lets(&row, attempt, afterwards).await;
        is_over.store(true, Ordering::Relaxed);
        if let Some(swapper) = swapper {
            let swaps = swapper.join().expect("no panic");
            assert!(swaps > 2, "{row}: the link was swapped {swaps} times");
        }
        let seen = seen.into_inner().expect("no panic");
        for never in [SECRET, "root:", "PATH="] {
            if seen.contains(never) {
                yard.is_wrong(format!("{row}: it has seen {never}"));
            }
        }
        let secret = fs::read_to_string(outer.path().join("secret.txt"));
        assert_eq!(secret.expect("the secret"), SECRET, "{row}");
        for outside in ["planted.txt", "moved-out", "out"] {
            assert!(!outer.path().join(outside).exists(), "{row}: {outside}");
        }
        let taken: u64 = fs::read_dir(&granted)
            .expect("the folder")
            .filter_map(|entry| entry.ok()?.metadata().ok())
            .filter(fs::Metadata::is_file)
            .map(|found| found.len())
            .sum();
        assert!(taken <= 10_600, "{row}: {taken} bytes lie there");
        if behaviour == "fill-exactly" {
            let quota = 10_500 + "open".len() as u64;
            assert_eq!(taken, quota, "{row}: the last byte is written");
        }
    }
    yard.finish();
}

/// A server that remembers what it was asked, and answers without end where it is asked to.
fn server() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    fn answer(mut stream: TcpStream, heard: &Mutex<Vec<String>>) -> std::io::Result<()> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && head.len() < 10_000 && stream.read(&mut byte)? == 1 {
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        heard.lock().expect("no panic").push(head.clone());
        if head.starts_with("GET /endless") {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            loop {
                stream.write_all(&[b'x'; 65536])?;
            }
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood")
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let ears = Arc::clone(&heard);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let heard = Arc::clone(&ears);
            std::thread::spawn(move || answer(stream, &heard));
        }
    });
    (address, heard)
}

/// The configuration of the caller for a row, as the row writes it.
fn asking(row: &Row, address: SocketAddr) -> Value {
    let (behaviour, rest) = row.behaviour.split_once(' ').expect("what to ask");
    let host = address.to_string();
    let server = format!("http://{host}/");
    let rest = rest
        .replace("{port}", &address.port().to_string())
        .replace("{server}", &server);
    match behaviour {
        "field" => {
            let (name, value) = rest.split_once(": ").expect("a field");
            json!({ "url": server, "fields": [[name, value]] })
        }
        "ask-raw" => {
            let rest = rest.replace("{host}", &host);
            let place = rest.find(" /").expect("a path");
            let (authority, path) = rest.split_at(place);
            json!({ "behaviour": behaviour, "url": authority, "path": &path[1..] })
        }
        "look-up" => json!({
            "behaviour": "ask-at-once", "times": LOOKUPS,
            "url": format!("http://{rest}:{}/", address.port()),
        }),
        "leave" => json!({ "behaviour": behaviour, "url": format!("{server}endless") }),
        _ => json!({ "behaviour": behaviour, "url": rest, "times": 100 }),
    }
}

/// Names that one row has looked up at one time.
const LOOKUPS: u32 = 400;

/// Threads that the host may need for it: those for 64 lookups, a few of its own, and those of tests that
/// begin meanwhile.
fn most_threads() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    64 + 16 + 2 * processors
}

/// Threads of this process, as far as the system says.
fn threads() -> usize {
    fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// Looks again and again how many there are: the most that there were.
fn watching_threads(is_over: Arc<AtomicBool>) -> std::thread::JoinHandle<usize> {
    std::thread::spawn(move || {
        let mut most = 0;
        while !is_over.load(Ordering::Relaxed) {
            most = most.max(threads());
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        most
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn callers() {
    let mut yard = Yard::new("callers").await;
    let component = fs::read(built("tests/guests/caller")).expect("the guest");
    let (address, heard) = server();
    let mut with_host = grants(Role::Connector);
    with_host.http = vec![
        serde_json::from_value(json!({
            "host": "127.0.0.1", "port": address.port(), "scheme": "http",
            "networks": ["127.0.0.0/8"], "requests": 50, "at_once": 4, "timeout": "5s",
        }))
        .expect("a grant"),
    ];
    let good = json!({ "url": format!("http://{address}/") });
    // By its name it is nowhere that is public, so nothing is sent.
    let by_name = serde_json::from_value(json!({
        "host": "localhost", "port": address.port(), "scheme": "http", "at_once": LOOKUPS,
    }));
    let mut with_name = with_host.clone();
    with_name.http.push(by_name.expect("a grant"));
    for row in rows_of("caller") {
        let looks_up = row.behaviour.starts_with("look-up ");
        let granted = if looks_up { &with_name } else { &with_host };
        // A new one for each row: requests are counted over the life of an instance.
        let loaded = yard
            .sandbox
            .load("caller", &component, Role::Connector, granted.clone());
        let plugin = loaded.await.expect("it loads");
        heard.lock().expect("no panic").clear();
        let config = asking(&row, address);
        let attempt = async {
            content(&plugin, &config).await?;
            Ok(Vec::new())
        };
        let afterwards = async {
            // What was heard is looked at before it is asked again.
            let smuggled = heard.lock().expect("no panic").concat();
            for never in ["evil", "s3cret", "x: 1", "chunked", "h2c"] {
                assert!(
                    !smuggled.contains(never),
                    "{row}: the server was told {smuggled}"
                );
            }
            content(&plugin, &good).await?;
            Ok(Vec::new())
        };
        let is_over = Arc::new(AtomicBool::new(false));
        let before = threads();
        let watcher = looks_up.then(|| watching_threads(Arc::clone(&is_over)));
        yard.lets(&row, attempt, afterwards).await;
        is_over.store(true, Ordering::Relaxed);
        if let Some(watcher) = watcher {
            let most = watcher.join().expect("no panic");
            assert!(
                most <= before + most_threads(),
                "{row}: {most} threads, and {before} before"
            );
        }
    }
    yard.finish();
}

/// What the standard library of a guest sees of the host.
pub(crate) async fn seen(plugin: &Plugin, config: &Value) -> Result<String, CallError> {
    let rows = features();
    let context = CallContext::new(None, "test");
    let mut validator = plugin.validator(&context, config, &rows.schema()).await?;
    validator.check(&rows).await?;
    Ok(validator.finish().await?.remove(0).message)
}

#[tokio::test(flavor = "multi_thread")]
async fn noise() {
    let mut yard = Yard::new("noise").await;
    let plugin = yard.guest("noise", Role::Validator).await.patient;
    let good = json!({ "lines": 1 });
    for row in rows_of("noise") {
        let config = match row.behaviour {
            "environment" => json!({ "lines": 1 }),
            "fingerprint" => json!({ "lines": 0, "fingerprint": true }),
            "flood" => json!({ "lines": 20_000 }),
            other => panic!("`{other}` is not known here"),
        };
        let first = Mutex::new(String::new());
        let attempt = async {
            *first.lock().expect("no panic") = seen(&plugin, &config).await?;
            Ok(Vec::new())
        };
        let afterwards = async {
            seen(&plugin, &good).await?;
            Ok(Vec::new())
        };
        yard.lets(&row, attempt, afterwards).await;
        let first = first.into_inner().expect("no panic");
        match row.behaviour {
            "environment" => assert!(first.contains(" 0 things seen"), "{first}"),
            "fingerprint" => {
                tokio::time::sleep(std::time::Duration::from_millis(30)).await;
                let again = seen(&plugin, &config).await.expect("again");
                assert_eq!(first, again, "two instances see the same");
                let other = Yard::fresh();
                let component = fs::read(built("tests/guests/noise")).expect("the guest");
                let loaded = other.load("noise", &component, Role::Validator, Grants::default());
                let elsewhere = seen(&loaded.await.expect("it loads"), &config).await;
                assert_eq!(first, elsewhere.expect("elsewhere"), "and in another host");
            }
            _ => {}
        }
    }
    let is_noisy = |event: &Event| matches!(event, Event::CallsFinished { .. });
    assert!(yard.events().iter().any(is_noisy));
    yard.finish();
}

/// That nothing here is refused for another reason than it is meant to be: what is granted works.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_granted_is_given() {
    let yard = Yard::new("granted").await;
    let component = fs::read(built("tests/guests/hostile-reader")).expect("the guest");
    let outer = folder();
    let mut with_folder = grants(Role::Connector);
    with_folder.files = vec![FileGrant {
        host: outer.path().join("granted"),
        guest: "/data".into(),
        access: Access::Read,
        quota: FileQuota::default(),
    }];
    let loaded = yard
        .sandbox
        .load("reader", &component, Role::Connector, with_folder);
    let plugin = loaded.await.expect("it loads");
    for (behaviour, path) in [
        ("read", "/data/open.txt"),
        ("read-raw", "inner/../open.txt"),
        ("read-raw", "swapped/secret.txt"),
    ] {
        let config = json!({ "behaviour": behaviour, "path": path });
        let content = content(&plugin, &config).await;
        assert_eq!(content.expect("granted"), "open", "{path}");
    }
    yard.finish();
}
