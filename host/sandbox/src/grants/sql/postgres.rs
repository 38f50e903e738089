//! Servers of PostgreSQL, asked in transactions that cannot write.
//!
//! Each question has a connection of its own, so nothing of a session is left to the next. The address is
//! checked as one of HTTP is. The statement goes through the extended protocol, which takes one, with
//! its parameters beside it; the transaction is read-only from its first snapshot on, and the server
//! ends it when its time is up. What comes back is bounded before it is decoded.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{BufMut as _, BytesMut};
use futures::StreamExt as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{ChannelBinding, NoTls, TlsConnect, TlsStream};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Config, IsolationLevel, Row};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::super::http::{host_of, is_public, look_up, plain, roots};
use super::rows::{Cell, Collector, Rows};
use super::{Bounds, Parameter, PostgresServer, Trouble, password_sentence};
use crate::model::Kind;
use crate::text;

/// What a connection may read beside an answer, and how much longer than its columns an answer is on
/// the wire.
const GREETING_BYTES: u64 = 1 << 20;
const WIRE_FACTOR: u64 = 4;

/// Days and microseconds from 1970 to 2000, where PostgreSQL begins to count.
const DAYS: i32 = 10_957;
const MICROSECONDS: i64 = 946_684_800_000_000;

/// What a statement that reads begins with. The server holds it to reading; this keeps out what is no
/// question at all, such as `COPY`, `SET` or `COMMIT`.
const BEGINNINGS: [&str; 4] = ["SELECT", "WITH", "VALUES", "TABLE"];

/// Says whether a server could be asked, as far as this host alone can tell.
pub(super) fn check(server: &PostgresServer) -> Result<(), String> {
    check_target(server)?;
    if let Some(password) = &server.password {
        password
            .read()
            .map_err(|what| password_sentence(password, &what))?;
    }
    match server.tls {
        true => roots(server.certificate_authority.as_deref()).map(|_| ()),
        false => Ok(()),
    }
}

/// Says whether a server makes sense, wherever it is written.
pub(super) fn check_target(server: &PostgresServer) -> Result<(), String> {
    let host = &server.host;
    if host_of(host).as_deref() != Some(host) {
        return Err(format!(
            "`{}` is not a host; write a name in lower case like db.example.com, or an address",
            text::sentence(host, 128)
        ));
    }
    let is_local = host
        .parse::<IpAddr>()
        .is_ok_and(|address| plain(address).is_loopback());
    if !server.tls && !is_local {
        return Err(format!(
            "what is asked of `{host}` would be sent in the clear; leave out `tls: false`"
        ));
    }
    for (key, value) in [("user", &server.user), ("database", &server.database)] {
        if value.is_empty() || value.len() > 63 || value.contains('\0') {
            return Err(format!("`{key}` of `{host}` has 1 to 63 bytes"));
        }
    }
    Ok(())
}

/// Asks a statement, within its time.
pub(super) async fn ask(
    server: &PostgresServer,
    statement: &str,
    parameters: &[Parameter],
    bounds: Bounds,
) -> Result<Rows, Trouble> {
    if !reads(statement) {
        return Err(Trouble::Refused(format!(
            "a question begins with {}",
            BEGINNINGS.join(", ")
        )));
    }
    let deadline = tokio::time::Instant::from_std(bounds.deadline);
    let asking = connect_and_ask(server, statement, parameters, &bounds);
    let asked = tokio::time::timeout_at(deadline, asking).await;
    asked.unwrap_or_else(|_| Err(Trouble::too_late(&bounds)))
}

async fn connect_and_ask(
    server: &PostgresServer,
    statement: &str,
    parameters: &[Parameter],
    bounds: &Bounds,
) -> Result<Rows, Trouble> {
    let is_over = Arc::new(AtomicBool::new(false));
    let stream = Counted {
        stream: reach(server).await?,
        left: bounds
            .bytes
            .saturating_mul(WIRE_FACTOR)
            .saturating_add(GREETING_BYTES),
        is_over: Arc::clone(&is_over),
    };
    let told = |error: tokio_postgres::Error| match is_over.load(Ordering::Relaxed) {
        true => Trouble::too_much(
            "bytes",
            format!("the answer has more than {} bytes", bounds.bytes),
        ),
        false => trouble(&error, bounds),
    };
    let config = config_of(server)?;
    // A connection works only while somebody waits for it, and ends with the question.
    if server.tls {
        let authorities = roots(server.certificate_authority.as_deref()).map_err(|what| {
            tracing::warn!(%what, "no certificate authority can be trusted");
            Trouble::Away("the database cannot be reached over TLS".to_owned())
        })?;
        let name = ServerName::try_from(server.host.clone())
            .map_err(|_| Trouble::Away("the database has no name for TLS".to_owned()))?;
        let tls = Securing {
            connector: TlsConnector::from(authorities),
            name,
        };
        let (mut client, connection) = config.connect_raw(stream, tls).await.map_err(told)?;
        let asking = read(&mut client, statement, parameters, bounds, &told);
        alongside(connection, asking).await
    } else {
        let (mut client, connection) = config.connect_raw(stream, NoTls).await.map_err(told)?;
        let asking = read(&mut client, statement, parameters, bounds, &told);
        alongside(connection, asking).await
    }
}

/// Waits for an answer while its connection works.
async fn alongside<C>(
    connection: C,
    asking: impl Future<Output = Result<Rows, Trouble>>,
) -> Result<Rows, Trouble>
where
    C: Future<Output = Result<(), tokio_postgres::Error>>,
{
    let (mut connection, mut asking) = (Box::pin(connection), pin!(asking));
    tokio::select! {
        biased;
        answer = &mut asking => return answer,
        _ = &mut connection => {}
    }
    // Whoever asks is told by its client, once the connection is gone.
    drop(connection);
    asking.await
}

/// A connection to an address that was checked.
async fn reach(server: &PostgresServer) -> Result<TcpStream, Trouble> {
    let port = server.port.get();
    let away = |what: &str| Trouble::Away(format!("the database {what}"));
    let addresses: Vec<SocketAddr> = match server.host.parse() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) => look_up(&server.host, port, ())
            .await
            .map_err(|_| away("has a name that nobody knows"))?,
    };
    // One address that may not be is enough: a name that stands for both is a trap.
    let may_be = |address: &SocketAddr| {
        let address = plain(address.ip());
        is_public(address) || server.networks.iter().any(|net| net.contains(&address))
    };
    if !addresses.iter().all(may_be) {
        return Err(Trouble::Refused(
            "the database is at an address that is neither public nor in `networks`".to_owned(),
        ));
    }
    for address in addresses {
        if let Ok(stream) = TcpStream::connect(address).await {
            // Small messages go out at once; a failure costs time only.
            let _ = stream.set_nodelay(true);
            return Ok(stream);
        }
    }
    Err(away("cannot be reached"))
}

fn config_of(server: &PostgresServer) -> Result<Config, Trouble> {
    let mut config = Config::new();
    config
        .user(&server.user)
        .dbname(&server.database)
        .application_name("sandcast")
        .ssl_mode(match server.tls {
            true => SslMode::Require,
            false => SslMode::Disable,
        });
    if let Some(source) = &server.password {
        let secret = source.read().map_err(|what| {
            let what = password_sentence(source, &what);
            tracing::warn!(%what, "a password cannot be read");
            Trouble::Away("the database cannot be reached".to_owned())
        })?;
        config.password(secret.bytes());
    }
    Ok(config)
}

/// The answer to a statement, in a transaction that cannot write.
async fn read(
    client: &mut Client,
    statement: &str,
    parameters: &[Parameter],
    bounds: &Bounds,
    told: &(dyn Fn(tokio_postgres::Error) -> Trouble + Sync),
) -> Result<Rows, Trouble> {
    let beginning = client
        .build_transaction()
        .read_only(true)
        .isolation_level(IsolationLevel::RepeatableRead)
        .start();
    let transaction = beginning.await.map_err(told)?;
    let left = bounds.deadline.saturating_duration_since(Instant::now());
    let millis = left.max(Duration::from_millis(1)).as_millis().to_string();
    // With this the transaction has a snapshot, after which it cannot be made one that writes.
    let bounding = transaction.query_typed_raw(
        "SELECT set_config('statement_timeout', $1, true), set_config('lock_timeout', $1, true)",
        [(millis, Type::TEXT)],
    );
    let mut bounding = pin!(bounding.await.map_err(told)?);
    while let Some(row) = bounding.next().await {
        row.map_err(told)?;
    }
    let types: Vec<Type> = parameters.iter().map(type_of).collect();
    let prepared = transaction
        .prepare_typed(statement, &types)
        .await
        .map_err(told)?;
    if prepared.columns().is_empty() {
        return Err(Trouble::Refused("the statement does not read".to_owned()));
    }
    if prepared.params().len() != parameters.len() {
        return Err(Trouble::Wrong(format!(
            "the statement has {} places, and there are {} parameters",
            prepared.params().len(),
            parameters.len()
        )));
    }
    let columns = prepared
        .columns()
        .iter()
        .map(|column| match kind_of(column.type_()) {
            Some(kind) => Ok((column.name().to_owned(), Some(kind))),
            None => Err(Trouble::Wrong(format!(
                "the column `{}` is {}, which plugins do not know; cast it, such as to text or float8",
                text::sentence(column.name(), 64),
                column.type_()
            ))),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut collector = Collector::new(columns, *bounds);
    let portal = transaction
        .bind_raw(&prepared, parameters.iter().map(Given))
        .await
        .map_err(told)?;
    // One more than there may be tells that there are more.
    let most = i32::try_from(bounds.rows)
        .unwrap_or(i32::MAX)
        .saturating_add(1);
    let rows = transaction
        .query_portal_raw(&portal, most)
        .await
        .map_err(told)?;
    let mut rows = pin!(rows);
    while let Some(row) = rows.next().await {
        let row = row.map_err(told)?;
        collector.begin_row()?;
        for index in 0..collector.width() {
            let cell = cell_of(&row, index)?;
            collector.push(index, cell)?;
        }
    }
    collector.finish()
}

/// Whether a statement begins like one that reads.
fn reads(statement: &str) -> bool {
    let mut rest = statement;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '(');
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once('\n').map_or("", |(_, after)| after);
        } else if rest.starts_with("/*") {
            rest = after_comment(rest);
        } else {
            break;
        }
    }
    let is_of_word = |c: char| c.is_alphanumeric() || c == '_';
    let end = rest.find(|c: char| !is_of_word(c)).unwrap_or(rest.len());
    BEGINNINGS
        .iter()
        .any(|word| rest[..end].eq_ignore_ascii_case(word))
}

/// What comes after a comment, which may have comments in it.
fn after_comment(text: &str) -> &str {
    let mut depth = 0_usize;
    let mut rest = text;
    loop {
        if let Some(inner) = rest.strip_prefix("/*") {
            (depth, rest) = (depth + 1, inner);
        } else if let Some(after) = rest.strip_prefix("*/") {
            (depth, rest) = (depth - 1, after);
        } else {
            let mut chars = rest.chars();
            match chars.next() {
                Some(_) => rest = chars.as_str(),
                None => return "",
            }
        }
        if depth == 0 {
            return rest;
        }
    }
}

/// The types whose values a batch has.
fn kind_of(known: &Type) -> Option<Kind> {
    Some(match *known {
        Type::BOOL => Kind::Boolean,
        Type::INT2 | Type::INT4 | Type::INT8 => Kind::Int64,
        Type::FLOAT4 | Type::FLOAT8 => Kind::Float64,
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN => Kind::Utf8,
        Type::DATE => Kind::Date32,
        Type::TIMESTAMP | Type::TIMESTAMPTZ => Kind::TimestampUs,
        _ => return None,
    })
}

/// A value as the server sends it.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

fn cell_of(row: &Row, index: usize) -> Result<Cell<'_>, Trouble> {
    let malformed = || Trouble::Away("the database sent a value that is none".to_owned());
    let raw: Option<Raw<'_>> = row.try_get(index).map_err(|_| malformed())?;
    let Some(Raw(bytes)) = raw else {
        return Ok(Cell::Null);
    };
    fn fixed<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
        bytes.try_into().ok()
    }
    let cell = match *row.columns()[index].type_() {
        Type::BOOL => fixed(bytes).map(|[byte]| Cell::Boolean(byte != 0)),
        Type::INT2 => fixed(bytes).map(|bytes| Cell::Int64(i16::from_be_bytes(bytes).into())),
        Type::INT4 => fixed(bytes).map(|bytes| Cell::Int64(i32::from_be_bytes(bytes).into())),
        Type::INT8 => fixed(bytes).map(|bytes| Cell::Int64(i64::from_be_bytes(bytes))),
        Type::FLOAT4 => fixed(bytes).map(|bytes| Cell::Float64(f32::from_be_bytes(bytes).into())),
        Type::FLOAT8 => fixed(bytes).map(|bytes| Cell::Float64(f64::from_be_bytes(bytes))),
        // Both ends are PostgreSQL's infinities, which no date is.
        Type::DATE => fixed(bytes).and_then(|bytes| match i32::from_be_bytes(bytes) {
            i32::MIN | i32::MAX => None,
            days => days.checked_add(DAYS).map(Cell::Date),
        }),
        Type::TIMESTAMP | Type::TIMESTAMPTZ => {
            fixed(bytes).and_then(|bytes| match i64::from_be_bytes(bytes) {
                i64::MIN | i64::MAX => None,
                time => time.checked_add(MICROSECONDS).map(Cell::Timestamp),
            })
        }
        _ => std::str::from_utf8(bytes).ok().map(Cell::Text),
    };
    cell.ok_or_else(|| {
        let name = text::sentence(row.columns()[index].name(), 64);
        Trouble::Wrong(format!(
            "the column `{name}` holds a value that plugins do not know"
        ))
    })
}

/// The type of a parameter; that of a null is found by the server.
fn type_of(parameter: &Parameter) -> Type {
    match parameter {
        Parameter::Null => Type::UNKNOWN,
        Parameter::Boolean(_) => Type::BOOL,
        Parameter::Int64(_) => Type::INT8,
        Parameter::Float64(_) => Type::FLOAT8,
        Parameter::Text(_) => Type::TEXT,
        Parameter::Bytes(_) => Type::BYTEA,
    }
}

/// A parameter, sent beside the statement and never as part of it.
#[derive(Debug)]
struct Given<'a>(&'a Parameter);

impl ToSql for Given<'_> {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self.0 {
            Parameter::Null => return Ok(IsNull::Yes),
            Parameter::Boolean(value) => out.put_u8(u8::from(*value)),
            Parameter::Int64(value) => out.put_i64(*value),
            Parameter::Float64(value) => out.put_f64(*value),
            Parameter::Text(text) => out.put_slice(text.as_bytes()),
            Parameter::Bytes(bytes) => out.put_slice(bytes),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

fn trouble(error: &tokio_postgres::Error, bounds: &Bounds) -> Trouble {
    let Some(said) = error.as_db_error() else {
        // Of the connection; what it says may name the server.
        tracing::warn!(%error, "a database does not answer");
        return Trouble::Away("the database does not answer".to_owned());
    };
    let code = said.code();
    if *code == SqlState::READ_ONLY_SQL_TRANSACTION || *code == SqlState::INSUFFICIENT_PRIVILEGE {
        return Trouble::Refused(said.message().to_owned());
    }
    if *code == SqlState::QUERY_CANCELED || *code == SqlState::LOCK_NOT_AVAILABLE {
        return Trouble::too_late(bounds);
    }
    // 08: connections; 28: who may; 53, 57 and 58: the server itself.
    let is_of_server = ["08", "28", "53", "57", "58", "XX"];
    if is_of_server
        .iter()
        .any(|class| code.code().starts_with(class))
    {
        tracing::warn!(%error, "a database does not answer");
        return Trouble::Away("the database does not answer".to_owned());
    }
    Trouble::Wrong(said.message().to_owned())
}

/// A stream that ends when more came than may.
struct Counted {
    stream: TcpStream,
    left: u64,
    is_over: Arc<AtomicBool>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let bytes = (buffer.filled().len() - before) as u64;
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                read
            }
            None => {
                self.is_over.store(true, Ordering::Relaxed);
                Poll::Ready(Err(io::Error::other("more came than may")))
            }
        }
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// How TLS is begun, with the name that the certificate must have.
struct Securing {
    connector: TlsConnector,
    name: ServerName<'static>,
}

type Securely = Pin<Box<dyn Future<Output = io::Result<Secured>> + Send>>;

impl TlsConnect<Counted> for Securing {
    type Stream = Secured;
    type Error = io::Error;
    type Future = Securely;

    fn connect(self, stream: Counted) -> Securely {
        Box::pin(async move {
            let secured = self.connector.connect(self.name, stream).await?;
            Ok(Secured(secured))
        })
    }
}

struct Secured(tokio_rustls::client::TlsStream<Counted>);

impl TlsStream for Secured {
    // The certificate is held to the name; binding besides is not done.
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_begins_like_a_question_is_asked() {
        for statement in [
            "SELECT 1",
            "  select 1",
            "-- a remark\nSELECT 1",
            "/* one /* inside */ another */ ( select 1 )",
            "WITH a AS (SELECT 1) SELECT * FROM a",
            "values (1)",
            "table people",
        ] {
            assert!(reads(statement), "{statement}");
        }
        for statement in [
            "",
            "-- SELECT 1",
            "/* SELECT 1",
            "/* SELECT 1 */ COMMIT",
            "COPY people TO PROGRAM 'sh'",
            "SET TRANSACTION READ WRITE",
            "INSERT INTO people VALUES (1)",
            "selection",
            "select_1",
            "EXPLAIN ANALYZE DELETE FROM people",
            "DO $$ BEGIN END $$",
            "CALL something()",
        ] {
            assert!(!reads(statement), "{statement}");
        }
    }
}
