//! Questions to databases, by `sandcast:plugin/sql`: over the connections that are granted, as far as
//! they are granted.
//!
//! A plugin names a connection and never sees where it leads or with which secret. A statement is one
//! statement, what varies in it are typed parameters beside it, and that it only reads is the
//! database's affair: SQLite is opened for reading and asked about every step of a statement before
//! it runs, PostgreSQL runs it in a transaction that cannot write. Answers are whole or not at all:
//! rows, bytes, time and calls are bounded. Each question is on record before it is asked, by the digest
//! of its statement.

mod postgres;
mod rows;
mod sqlite;

use std::collections::BTreeMap;
use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use ipnet::IpNet;
use sandcast_audit::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wasmtime::component::{HasData, Linker, Resource};

use super::secrets::{SecretSource, sentence_of};
use super::{ByteSize, Capability, TimeSpan};
use crate::bindings::adapter::sandcast::plugin::sql::{self, Parameter};
use crate::bindings::adapter::sandcast::plugin::types::{Failure, FailureCode};
use crate::columns::Batch;
use crate::effect::{Act, Actor};
use crate::state::State;
use crate::text;
use rows::Rows;

/// Bytes of a statement.
const MAX_STATEMENT_BYTES: usize = 64 << 10;

/// Parameters of one question, and their bytes.
const MAX_PARAMETERS: usize = 1000;
const MAX_PARAMETER_BYTES: usize = 16 << 20;

/// Bytes of an answer, whatever is granted: it is in memory at once.
const MAX_ANSWER_BYTES: u64 = 1 << 30;

/// Bytes of the name of a connection or a statement.
const MAX_NAME_BYTES: usize = 64;

/// Bytes of what a database says of a statement.
const MAX_MESSAGE_BYTES: usize = 512;

/// Questions over one connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqlGrant {
    /// The name of the connection, under `connections` of the pipeline.
    pub connection: String,
    /// What may be done over it.
    #[serde(default)]
    pub access: SqlAccess,
    /// The statements that may be asked, by the names that the plugin calls them. Without any, it may
    /// ask whatever reads.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub statements: BTreeMap<String, String>,
    /// Rows of one answer.
    #[serde(default = "many_rows")]
    pub rows: NonZeroU32,
    /// Bytes of one answer.
    #[serde(default = "large_answer")]
    pub bytes: ByteSize,
    /// How long one question may take.
    #[serde(default = "half_a_minute")]
    pub timeout: TimeSpan,
    /// Questions of one instance.
    #[serde(default = "many_calls")]
    pub calls: NonZeroU32,
    /// Where the connection leads. Written in a ceiling; in a pipeline it stands under `connections`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<SqlConnection>,
}

fn many_rows() -> NonZeroU32 {
    NonZeroU32::new(100_000).unwrap_or(NonZeroU32::MIN)
}

fn large_answer() -> ByteSize {
    ByteSize::from_mib(64)
}

fn half_a_minute() -> TimeSpan {
    TimeSpan::from_secs(30)
}

fn many_calls() -> NonZeroU32 {
    NonZeroU32::new(1000).unwrap_or(NonZeroU32::MIN)
}

/// What may be done over a connection. Writing cannot be granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SqlAccess {
    /// Statements that read.
    #[default]
    Read,
}

/// A database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum SqlConnection {
    /// A file of SQLite.
    Sqlite(PathBuf),
    /// A server of PostgreSQL.
    Postgres(PostgresServer),
}

/// A server of PostgreSQL, and as whom it is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresServer {
    /// Its name, or its address.
    pub host: String,
    /// Its port.
    #[serde(default = "usual_port")]
    pub port: NonZeroU16,
    /// The database.
    pub database: String,
    /// The account; one that may read what the plugin needs, and nothing else.
    pub user: String,
    /// Where the password comes from, if the account has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretSource>,
    /// Whether TLS is spoken, with a certificate for the host; only on this machine it need not be.
    #[serde(default = "secured")]
    pub tls: bool,
    /// A PEM file with the certificate authorities to trust in place of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_authority: Option<PathBuf>,
    /// Networks that the host may be in although they are not public, such as `10.1.0.0/16`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub networks: Vec<IpNet>,
}

fn usual_port() -> NonZeroU16 {
    NonZeroU16::new(5432).unwrap_or(NonZeroU16::MIN)
}

fn secured() -> bool {
    true
}

impl SqlGrant {
    /// Such as `warehouse (sqlite /srv/warehouse.sqlite), any statement that reads`.
    pub(super) fn in_words(&self, path: &impl Fn(&Path) -> String) -> String {
        let leads = match &self.to {
            None => String::new(),
            Some(to) => format!(" ({})", to.in_words(path)),
        };
        let statements = match self.statements.len() {
            0 => "any statement that reads".to_owned(),
            _ => {
                let names: Vec<&str> = self.statements.keys().map(String::as_str).collect();
                format!("the statements {}", names.join(" "))
            }
        };
        format!("{}{leads}, {statements}", self.connection)
    }

    pub(crate) fn secret(&self) -> Option<&SecretSource> {
        match &self.to {
            Some(SqlConnection::Postgres(server)) => server.password.as_ref(),
            _ => None,
        }
    }
}

impl SqlConnection {
    /// Such as `postgres reader@db.example.com/sales with env:PASSWORD`.
    pub(super) fn in_words(&self, path: &impl Fn(&Path) -> String) -> String {
        match self {
            Self::Sqlite(file) => format!("sqlite {}", path(file)),
            Self::Postgres(server) => {
                let PostgresServer {
                    host,
                    port,
                    database,
                    user,
                    ..
                } = server;
                let port = match *port == usual_port() {
                    true => String::new(),
                    false => format!(":{port}"),
                };
                let mut words = format!("postgres {user}@{host}{port}/{database}");
                if let Some(password) = &server.password {
                    words.push_str(&format!(" with {password}"));
                }
                words
            }
        }
    }
}

/// Says whether grants can be given at all.
pub(crate) fn check_all(grants: &[SqlGrant]) -> Result<(), String> {
    for (index, grant) in grants.iter().enumerate() {
        let connection = &grant.connection;
        if grants[..index]
            .iter()
            .any(|other| other.connection == *connection)
        {
            return Err(format!(
                "`{connection}` is granted twice; write one grant for it"
            ));
        }
        check(grant)?;
        match &grant.to {
            None => {
                return Err(format!(
                    "there is no connection `{connection}`; write it under `connections` of the pipeline"
                ));
            }
            Some(SqlConnection::Sqlite(path)) => sqlite::check(path)?,
            Some(SqlConnection::Postgres(server)) => postgres::check(server)?,
        }
    }
    Ok(())
}

/// Says whether a grant makes sense, wherever it is given.
pub(crate) fn check(grant: &SqlGrant) -> Result<(), String> {
    let connection = &grant.connection;
    for name in [connection].into_iter().chain(grant.statements.keys()) {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(is_plain) {
            return Err(format!(
                "`{}` cannot be a name; use letters, digits, `-` and `_`",
                text::sentence(name, MAX_NAME_BYTES)
            ));
        }
    }
    for (name, statement) in &grant.statements {
        if statement.trim().is_empty() || statement.len() > MAX_STATEMENT_BYTES {
            return Err(format!(
                "the statement `{name}` has {} bytes; write 1 to {MAX_STATEMENT_BYTES}",
                statement.len()
            ));
        }
    }
    let bytes = grant.bytes.bytes();
    if bytes == 0 || bytes > MAX_ANSWER_BYTES {
        return Err(format!(
            "`bytes` of `{connection}` is {}; write something from 1 to {}",
            grant.bytes,
            ByteSize::from_bytes(MAX_ANSWER_BYTES)
        ));
    }
    if grant.timeout.duration().is_zero() {
        return Err(format!(
            "`timeout` of `{connection}` is nothing; write it like 30s"
        ));
    }
    match &grant.to {
        Some(SqlConnection::Postgres(server)) => postgres::check_target(server),
        Some(SqlConnection::Sqlite(_)) | None => Ok(()),
    }
}

/// What is said of a password that cannot be read.
fn password_sentence(source: &SecretSource, what: &str) -> String {
    sentence_of(source, what)
}

/// What an instance has asked.
pub(crate) struct SqlState {
    actor: Arc<Actor>,
    /// By grant.
    calls: Vec<u32>,
}

impl SqlState {
    pub(crate) fn new(actor: Arc<Actor>) -> Self {
        let calls = vec![0; actor.identity.grants.sql.len()];
        Self { actor, calls }
    }
}

/// How far an answer may go.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    rows: u32,
    bytes: u64,
    timeout: TimeSpan,
    deadline: Instant,
}

/// A question that was authorised.
struct Question {
    grant: SqlGrant,
    statement: String,
    parameters: Vec<Parameter>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Trouble {
    /// A bound was reached: its key in the grant.
    TooMuch { key: String, detail: String },
    /// It may not be done.
    Refused(String),
    /// The statement makes no sense to the database, or its answer none to plugins.
    Wrong(String),
    /// The database does not answer.
    Away(String),
}

impl Trouble {
    fn too_much(key: &str, detail: impl Into<String>) -> Self {
        Self::TooMuch {
            key: key.to_owned(),
            detail: detail.into(),
        }
    }

    fn too_late(bounds: &Bounds) -> Self {
        Self::too_much("timeout", format!("it took longer than {}", bounds.timeout))
    }

    /// In a word for the record: a database repeats parameters and data in what it says.
    fn in_a_word(&self) -> String {
        match self {
            Self::TooMuch { key, .. } => format!("over its `{key}`"),
            Self::Refused(_) => "refused".to_owned(),
            Self::Wrong(_) => "an error of the statement".to_owned(),
            Self::Away(_) => "no answer".to_owned(),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMuch { detail, .. } => formatter.write_str(detail),
            Self::Refused(what) | Self::Wrong(what) | Self::Away(what) => formatter.write_str(what),
        }
    }
}

/// Links `sandcast:plugin/sql`.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    sql::add_to_linker::<State, Sql>(linker, |state| SqlView(state))
}

struct Sql;

impl HasData for Sql {
    type Data<'a> = SqlView<'a>;
}

/// What answers, on the state of an instance.
pub(crate) struct SqlView<'a>(pub(crate) &'a mut State);

impl sql::Host for SqlView<'_> {
    async fn query(
        &mut self,
        connection: String,
        statement: String,
        parameters: Vec<Parameter>,
    ) -> wasmtime::Result<Result<Resource<Batch>, Failure>> {
        self.0.ledger.count("sql.query");
        self.0.ledger.saw(|| &connection);
        self.0.ledger.saw(|| &statement);
        self.0.ledger.saw(|| format!("{parameters:?}"));
        let given: usize = parameters.iter().map(bytes_of).sum();
        self.0.ledger.count_bytes_out(statement.len() + given);
        let (index, question) = match self.authorise(&connection, statement, parameters) {
            Ok(authorised) => authorised,
            Err(failure) => return Ok(Err(failure)),
        };
        let actor = Arc::clone(&self.0.sql.actor);
        let answered = self.0.ledger.outside_later(ask(actor, question));
        match answered.await? {
            Ok(answer) => {
                let bytes = answer.bytes();
                let Rows(rows) = answer;
                self.0.ledger.count_bytes_in(bytes);
                self.0.ledger.count_rows(rows.num_rows());
                if let Err(failure) = self.0.charge(bytes) {
                    return Ok(Err(failure));
                }
                let charged = bytes;
                Ok(Ok(self.0.table.push(Batch { rows, charged })?))
            }
            Err(trouble) => Ok(Err(self.told(index, &connection, &trouble))),
        }
    }
}

fn bytes_of(parameter: &Parameter) -> usize {
    match parameter {
        Parameter::Null | Parameter::Boolean(_) => 1,
        Parameter::Int64(_) | Parameter::Float64(_) => 8,
        Parameter::Text(text) => text.len(),
        Parameter::Bytes(bytes) => bytes.len(),
    }
}

impl SqlView<'_> {
    /// The grant that covers a question, with its number.
    fn authorise(
        &mut self,
        connection: &str,
        statement: String,
        parameters: Vec<Parameter>,
    ) -> Result<(usize, Question), Failure> {
        let identity = Arc::clone(&self.0.identity);
        let grants = identity.grants.sql.iter();
        let granted = grants
            .enumerate()
            .find(|(_, it)| it.connection == connection);
        let Some((index, grant)) = granted else {
            let shown = text::sentence(connection, MAX_NAME_BYTES);
            let detail = format!("ask over `{shown}`, which is no connection of its");
            self.0.deny(Capability::Sql, detail.clone());
            return Err(failure(FailureCode::Denied, detail));
        };
        let line = |key: &str| format!("plugins.{}.grants.sql[{index}].{key}", identity.name);
        let statement = match grant.statements.get(&statement) {
            Some(listed) => listed.clone(),
            None if grant.statements.is_empty() => statement,
            None => {
                let detail = format!("ask `{connection}` something that is not listed");
                let capability = Capability::Sql.as_str();
                self.0
                    .deny_with(capability, detail.clone(), line("statements"));
                return Err(failure(FailureCode::Denied, detail));
            }
        };
        let given: usize = parameters.iter().map(bytes_of).sum();
        if statement.len() > MAX_STATEMENT_BYTES
            || statement.contains('\0')
            || parameters.len() > MAX_PARAMETERS
            || given > MAX_PARAMETER_BYTES
        {
            let what = format!(
                "a statement has at most {MAX_STATEMENT_BYTES} bytes without a zero, and \
                 {MAX_PARAMETERS} parameters of {MAX_PARAMETER_BYTES} bytes"
            );
            return Err(failure(FailureCode::InvalidInput, what));
        }
        let calls = &mut self.0.sql.calls[index];
        if *calls >= grant.calls.get() {
            let detail = format!("ask `{connection}`: it has asked {calls} times already");
            let capability = Capability::Sql.as_str();
            self.0.deny_with(capability, detail.clone(), line("calls"));
            return Err(failure(FailureCode::Exhausted, detail));
        }
        *calls += 1;
        let question = Question {
            grant: grant.clone(),
            statement,
            parameters,
        };
        Ok((index, question))
    }

    /// What the guest is told; what was refused or over a bound is a denial.
    fn told(&mut self, index: usize, connection: &str, trouble: &Trouble) -> Failure {
        let message = text::sentence(&trouble.to_string(), MAX_MESSAGE_BYTES);
        let (code, key) = match trouble {
            Trouble::TooMuch { key, .. } => (FailureCode::Exhausted, key.as_str()),
            Trouble::Refused(_) => (FailureCode::Denied, "access"),
            Trouble::Wrong(_) => return failure(FailureCode::InvalidInput, message),
            Trouble::Away(_) => return failure(FailureCode::Unavailable, message),
        };
        let line = format!("plugins.{}.grants.sql[{index}].{key}", self.0.identity.name);
        let detail = format!("ask `{connection}`: {}", trouble.in_a_word());
        self.0.deny_with(Capability::Sql.as_str(), detail, line);
        failure(code, message)
    }
}

fn failure(code: FailureCode, message: impl Into<String>) -> Failure {
    Failure {
        code,
        message: message.into(),
        hint: None,
    }
}

/// Puts a question on record and asks it.
async fn ask(actor: Arc<Actor>, question: Question) -> Result<Rows, Trouble> {
    let Question {
        grant,
        statement,
        parameters,
    } = question;
    let begun = actor.begin(Act {
        capability: Capability::Sql,
        action: "query",
        target: grant.connection.clone(),
        digest: Some(Digest::of(statement.as_bytes())),
        secret: grant.secret().map(ToString::to_string),
    });
    let mut effect = begun.map_err(|error| {
        tracing::error!(%error, "a question to a database could not be recorded, so it is not asked");
        Trouble::Away("the question could not be put on record".to_owned())
    })?;
    let given: usize = parameters.iter().map(bytes_of).sum();
    let sent = (statement.len() + given) as u64;
    effect.bytes_out.store(sent, Ordering::Relaxed);
    let bounds = Bounds {
        rows: grant.rows.get(),
        bytes: grant.bytes.bytes(),
        timeout: grant.timeout,
        deadline: Instant::now() + grant.timeout.duration(),
    };
    let answer = match &grant.to {
        None => Err(Trouble::Away("the connection leads nowhere".to_owned())),
        Some(SqlConnection::Sqlite(path)) => {
            sqlite::ask(path.clone(), statement, parameters, bounds).await
        }
        Some(SqlConnection::Postgres(server)) => {
            postgres::ask(server, &statement, &parameters, bounds).await
        }
    };
    effect.outcome = match &answer {
        Ok(answer) => {
            effect.bytes_in = answer.bytes() as u64;
            format!("{} rows", answer.0.num_rows())
        }
        Err(trouble) => trouble.in_a_word(),
    };
    answer
}

#[cfg(test)]
mod tests;
