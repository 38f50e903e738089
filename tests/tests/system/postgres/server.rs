//! A server of PostgreSQL to try things at: the one that the environment names, else one that is started
//! from the programs of this machine and ends with these tests.

use std::env;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, NoTls};

const ADDRESS: &str = "SANDCAST_TEST_POSTGRES";
const PASSWORD: &str = "SANDCAST_TEST_POSTGRES_PASSWORD";
const AUTHORITY: &str = "SANDCAST_TEST_POSTGRES_AUTHORITY";

/// The password of the account on a server that is started here.
const OWN_PASSWORD: &str = "n0t-for-guests";

/// A server to try things at.
#[derive(Clone)]
pub(super) struct Server {
    config: Config,
    host: String,
    port: u16,
    pub(super) password: Option<Password>,
    /// The file of the authority that vouches for it as `localhost`, where it speaks TLS.
    pub(super) authority: Option<PathBuf>,
}

/// The password of the account.
#[derive(Clone)]
pub(super) struct Password {
    pub(super) text: String,
    /// Where a grant says that it is.
    source: Value,
    /// How records name that.
    pub(super) reference: String,
}

impl Server {
    /// The one that the environment names, or one of its own; else it is said that nothing was tried.
    pub(super) fn found() -> Option<Self> {
        static OWN: OnceLock<Option<Own>> = OnceLock::new();
        if let Ok(address) = env::var(ADDRESS) {
            return Some(Self::named(&address));
        }
        let own = OWN.get_or_init(|| Own::start(&programs()?));
        #[expect(clippy::print_stderr, reason = "a test that tries nothing says so")]
        if own.is_none() {
            eprintln!(
                "{ADDRESS} names no server and there is no `initdb` here, so PostgreSQL is not tried"
            );
        }
        own.as_ref().map(|own| own.server.clone())
    }

    fn named(address: &str) -> Self {
        let mut config: Config = address.parse().expect("an address of PostgreSQL");
        let password = env::var(PASSWORD).ok().map(|text| Password {
            text,
            source: json!({ "env": PASSWORD }),
            reference: format!("env:{PASSWORD}"),
        });
        if let Some(password) = &password {
            config.password(&password.text);
        }
        let host = match config.get_hosts() {
            [Host::Tcp(host)] => host.clone(),
            other => panic!("one host is wanted, not {other:?}"),
        };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        Self {
            config,
            host,
            port,
            password,
            authority: env::var_os(AUTHORITY).map(PathBuf::from),
        }
    }

    /// A connection that may write, for what is there to be read.
    pub(super) async fn writer(&self) -> Client {
        let stream = tokio::net::TcpStream::connect((self.host.as_str(), self.port)).await;
        let connected = self.config.connect_raw(stream.expect("it listens"), NoTls);
        let (client, connection) = connected.await.expect("a connection");
        tokio::spawn(connection);
        client
    }

    pub(super) fn grant(&self) -> Value {
        let mut server = json!({
            "host": self.host,
            "port": self.port,
            "database": self.config.get_dbname().expect("a database"),
            "user": self.config.get_user().expect("an account"),
            "tls": false,
            "networks": ["127.0.0.0/8", "::1/128"],
        });
        if let Some(password) = &self.password {
            server["password"] = password.source.clone();
        }
        json!({ "connection": "people", "to": { "postgres": server }, "timeout": "20s" })
    }

    /// A table of people of a name of its own.
    pub(super) async fn people(&self, table: &str) {
        let text = format!(
            "DROP TABLE IF EXISTS {table}; \
             CREATE TABLE {table} (id int PRIMARY KEY, name text, age smallint, height real, \
               born date, seen timestamptz, grown boolean, paid numeric); \
             INSERT INTO {table} VALUES \
               (1, 'Ada', 36, 1.5, '1815-12-10', '2024-01-01 00:00:00+00', true, 1.10), \
               (2, 'Bob', NULL, NULL, NULL, NULL, NULL, NULL), \
               (3, 'O''Hara', 51, 1.75, '1970-01-02', '1999-12-31 23:59:59.5+00', false, 2.20);"
        );
        self.writer()
            .await
            .batch_execute(&text)
            .await
            .expect("its table");
    }
}

/// The folder with the programs of PostgreSQL, as Debian has them or in the search path; the last of several
/// versions.
fn programs() -> Option<PathBuf> {
    let version = |path: &PathBuf| -> u32 {
        let name = path.parent().and_then(Path::file_name);
        let name = name.and_then(|name| name.to_str());
        name.and_then(|name| name.parse().ok()).unwrap_or(0)
    };
    let versions = fs::read_dir("/usr/lib/postgresql")
        .ok()
        .into_iter()
        .flatten();
    let installed = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    let path = env::var_os("PATH").unwrap_or_default();
    let searched = env::split_paths(&path).collect::<Vec<_>>();
    let has_all = |folder: &PathBuf| {
        ["initdb", "postgres", "pg_isready", "psql"]
            .iter()
            .all(|program| folder.join(program).is_file())
    };
    let found = installed.chain(searched).filter(has_all);
    found.max_by_key(version)
}

/// A server that was started here.
struct Own {
    server: Server,
    /// It ends when its input does, which is when this process ends, however it ends.
    _watcher: Child,
}

/// Whoever the server runs as: it refuses to run as root.
#[derive(Clone, Copy)]
struct Account {
    user: u32,
    group: u32,
}

impl Account {
    /// Another one where this process is root's.
    fn find() -> Option<Self> {
        let this = fs::metadata("/proc/self").expect("a process");
        if this.uid() != 0 {
            return None;
        }
        let known = fs::read_to_string("/etc/passwd").expect("accounts");
        let of = |name: &str| {
            let line = known
                .lines()
                .find(|line| line.split(':').next() == Some(name))?;
            let mut ids = line.split(':').skip(2).map(str::parse);
            let (user, group) = (ids.next()?.ok()?, ids.next()?.ok()?);
            Some(Self { user, group })
        };
        Some(of("postgres").or_else(|| of("nobody")).expect("an account"))
    }
}

/// A program that is run as an account.
fn program(path: &Path, account: Option<Account>) -> Command {
    let mut command = Command::new(path);
    if let Some(Account { user, group }) = account {
        command.gid(group).uid(user);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .env_clear()
        .current_dir("/");
    command
}

#[track_caller]
fn succeeds(command: &mut Command) {
    let output = command.stderr(Stdio::piped()).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

impl Own {
    /// Starts one in a folder of its own, which goes with it.
    fn start(programs: &Path) -> Option<Self> {
        let account = Account::find();
        let folder = tempfile::Builder::new()
            .prefix("sandcast-postgres-")
            .tempdir()
            .expect("a folder")
            .keep();
        let own = |path: &Path, mode: u32| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode");
            if let Some(Account { user, group }) = account {
                chown(path, Some(user), Some(group)).expect("its owner");
            }
        };
        let certificates = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates");
        for name in ["server.pem", "server.key"] {
            fs::copy(certificates.join(name), folder.join(name)).expect("a copy");
            own(&folder.join(name), 0o600);
        }
        let password = folder.join("password");
        fs::write(&password, OWN_PASSWORD).expect("written");
        own(&folder, 0o700);
        let data = folder.join("data");
        succeeds(
            program(&programs.join("initdb"), account)
                .arg("--pgdata")
                .arg(&data)
                .args(["--username=owner", "--auth-local=trust"])
                .args([
                    "--auth-host=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale=C",
                    "--no-sync",
                ]),
        );
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let setting = |name: &str, value: &dyn std::fmt::Display| format!("--{name}={value}");
        let watched =
            "\"$@\" & server=$!; cat; kill -INT $server; wait $server; rm -rf \"$FOLDER\"";
        let watcher = program(Path::new("/bin/sh"), account)
            .args(["-c", watched, "sh"])
            .arg(programs.join("postgres"))
            .arg("-D")
            .arg(&data)
            .args([
                setting("port", &port),
                setting("listen_addresses", &"localhost"),
                setting("unix_socket_directories", &folder.display()),
                setting("fsync", &"off"),
                setting("ssl", &"on"),
                setting("ssl_cert_file", &folder.join("server.pem").display()),
                setting("ssl_key_file", &folder.join("server.key").display()),
            ])
            .env("FOLDER", &folder)
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::piped())
            .spawn()
            .expect("it starts");
        let port_text = port.to_string();
        let is_ready = || {
            program(&programs.join("pg_isready"), account)
                .arg("--host")
                .arg(&folder)
                .args(["--port", &port_text])
                .status()
                .is_ok_and(|status| status.success())
        };
        let mut tries = 0;
        while !is_ready() {
            tries += 1;
            assert!(tries < 300, "the server does not come up");
            std::thread::sleep(Duration::from_millis(100));
        }
        for statement in [
            format!("CREATE ROLE tester LOGIN PASSWORD '{OWN_PASSWORD}'"),
            "CREATE DATABASE tests OWNER tester".to_owned(),
        ] {
            succeeds(
                program(&programs.join("psql"), account)
                    .arg("--host")
                    .arg(&folder)
                    .args([
                        "--port",
                        &port_text,
                        "--username=owner",
                        "--dbname=postgres",
                    ])
                    .args(["--no-psqlrc", "--command", &statement]),
            );
        }
        let mut server = Server::named(&format!("postgres://tester@127.0.0.1:{port}/tests"));
        server.config.password(OWN_PASSWORD);
        server.authority = Some(certificates.join("authority.pem"));
        server.password = Some(Password {
            text: OWN_PASSWORD.to_owned(),
            reference: format!("file:{}", password.display()),
            source: json!({ "file": password }),
        });
        Some(Self {
            server,
            _watcher: watcher,
        })
    }
}
