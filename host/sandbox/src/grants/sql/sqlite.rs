//! Files of SQLite, opened for reading.
//!
//! Nothing of what a statement does is read off its text. The file is opened for reading only; what a
//! statement would do step by step is asked of the authorizer when it is compiled, and everything but
//! reading tables, calling functions and recursion is refused there; a handler that SQLite calls as it
//! goes ends it when its time is up or nobody waits any more.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::{ToSql, ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::rows::{Cell, Collector, Rows};
use super::{Bounds, MAX_PARAMETERS, MAX_STATEMENT_BYTES, Parameter, Trouble};
use crate::model::Kind;

/// Steps of a statement between two looks at the clock.
const STEPS: i32 = 1000;

/// How long somebody who writes may hold the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What is bounded besides: how large and deep a statement and its parts may be.
const LIMITS: [(Limit, i32); 9] = [
    (Limit::SQLITE_LIMIT_SQL_LENGTH, MAX_STATEMENT_BYTES as i32),
    (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, MAX_PARAMETERS as i32),
    (Limit::SQLITE_LIMIT_COLUMN, 1000),
    (Limit::SQLITE_LIMIT_EXPR_DEPTH, 100),
    (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 100),
    (Limit::SQLITE_LIMIT_VDBE_OP, 250_000),
    (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1000),
    (Limit::SQLITE_LIMIT_ATTACHED, 0),
    (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
];

/// Says whether a file can be asked.
pub(super) fn check(path: &Path) -> Result<(), String> {
    let described = path.display();
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(format!("{described} is not a file of SQLite")),
        Ok(_) => {
            let opened = open(path, &Bounds::of_check()).and_then(|connection| {
                connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
            });
            opened.map_err(|error| format!("{described} cannot be asked: {error}"))
        }
        Err(error) => Err(format!("{described} cannot be opened: {error}")),
    }
}

impl Bounds {
    fn of_check() -> Self {
        let timeout = super::super::TimeSpan::from_secs(30);
        Self {
            rows: 1,
            bytes: 1 << 20,
            timeout,
            deadline: Instant::now() + timeout.duration(),
        }
    }
}

/// Asks a statement, on a thread of its own.
pub(super) async fn ask(
    path: PathBuf,
    statement: String,
    parameters: Vec<Parameter>,
    bounds: Bounds,
) -> Result<Rows, Trouble> {
    let is_left = Arc::new(AtomicBool::new(false));
    // Dropped when nobody waits any more.
    let _waiting = Waiting(Arc::clone(&is_left));
    let asking = tokio::task::spawn_blocking(move || {
        ask_now(&path, &statement, &parameters, &bounds, is_left)
    });
    let asked = asking.await;
    asked.unwrap_or_else(|error| Err(Trouble::Away(error.to_string())))
}

struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn ask_now(
    path: &Path,
    statement: &str,
    parameters: &[Parameter],
    bounds: &Bounds,
    is_left: Arc<AtomicBool>,
) -> Result<Rows, Trouble> {
    let told = |error: rusqlite::Error| trouble(&error, bounds);
    let mut connection = open(path, bounds).map_err(|error| {
        tracing::warn!(%error, "a file of SQLite cannot be opened");
        Trouble::Away("the database cannot be opened".to_owned())
    })?;
    let deadline = bounds.deadline;
    let is_over = move || is_left.load(Ordering::Relaxed) || Instant::now() >= deadline;
    connection
        .progress_handler(STEPS, Some(is_over))
        .map_err(told)?;
    connection.authorizer(Some(authorise)).map_err(told)?;
    let mut asked = connection.prepare(statement).map_err(told)?;
    if asked.column_count() == 0 || !asked.readonly() {
        return Err(Trouble::Refused("the statement does not read".to_owned()));
    }
    if asked.parameter_count() != parameters.len() {
        return Err(Trouble::Wrong(format!(
            "the statement has {} places, and there are {} parameters",
            asked.parameter_count(),
            parameters.len()
        )));
    }
    let columns: Vec<(String, Option<Kind>)> = asked
        .columns()
        .map(|column| {
            (
                column.name().to_owned(),
                column.decl_type().and_then(kind_of),
            )
        })
        .collect();
    let mut collector = Collector::new(columns, *bounds);
    let given = rusqlite::params_from_iter(parameters.iter().map(Given));
    let mut rows = asked.query(given).map_err(told)?;
    while let Some(row) = rows.next().map_err(told)? {
        collector.begin_row()?;
        for index in 0..collector.width() {
            let cell = match row.get_ref(index).map_err(told)? {
                ValueRef::Null => Cell::Null,
                ValueRef::Integer(value) => Cell::Int64(value),
                ValueRef::Real(value) => Cell::Float64(value),
                ValueRef::Text(value) => Cell::Text(std::str::from_utf8(value).map_err(|_| {
                    Trouble::Wrong(format!("column {index} holds text that is not UTF-8"))
                })?),
                ValueRef::Blob(_) => {
                    return Err(Trouble::Wrong(format!(
                        "column {index} holds bytes, which plugins do not know; ask for hex() of it"
                    )));
                }
            };
            collector.push(index, cell)?;
        }
    }
    collector.finish()
}

fn open(path: &Path, bounds: &Bounds) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT.min(bounds.timeout.duration()))?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    // A file may be the work of others.
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "query_only", true)?;
    for (limit, most) in LIMITS {
        connection.set_limit(limit, most)?;
    }
    // A value, and a row while it is sorted.
    let length = i32::try_from(bounds.bytes).unwrap_or(i32::MAX).max(1 << 16);
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, length)?;
    Ok(connection)
}

/// What a statement may do.
fn authorise(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive => {
            Authorization::Allow
        }
        // It cannot be loaded from either; this says so by its name.
        AuthAction::Function { function_name }
            if !function_name.eq_ignore_ascii_case("load_extension") =>
        {
            Authorization::Allow
        }
        _ => Authorization::Deny,
    }
}

/// The kind of a column by the affinity of its type (SQLite, "Datatypes", 3.1). What it says of dates
/// and of truth is not held to by the file.
fn kind_of(declared: &str) -> Option<Kind> {
    let declared = declared.to_ascii_uppercase();
    let has = |words: &[&str]| words.iter().any(|word| declared.contains(word));
    if has(&["INT"]) {
        Some(Kind::Int64)
    } else if has(&["CHAR", "CLOB", "TEXT"]) {
        Some(Kind::Utf8)
    } else if has(&["REAL", "FLOA", "DOUB"]) {
        Some(Kind::Float64)
    } else {
        None
    }
}

/// A parameter, bound and never text.
struct Given<'a>(&'a Parameter);

impl ToSql for Given<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self.0 {
            Parameter::Null => ToSqlOutput::Owned(Value::Null),
            Parameter::Boolean(value) => ToSqlOutput::Owned(Value::Integer(i64::from(*value))),
            Parameter::Int64(value) => ToSqlOutput::Owned(Value::Integer(*value)),
            Parameter::Float64(value) => ToSqlOutput::Owned(Value::Real(*value)),
            Parameter::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Parameter::Bytes(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
        })
    }
}

fn trouble(error: &rusqlite::Error, bounds: &Bounds) -> Trouble {
    if matches!(error, rusqlite::Error::MultipleStatement) {
        return Trouble::Refused("there is more than one statement".to_owned());
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted) => Trouble::too_late(bounds),
        Some(ErrorCode::TooBig) => Trouble::too_much(
            "bytes",
            format!("a value or the statement is over {} bytes", bounds.bytes),
        ),
        Some(ErrorCode::AuthorizationForStatementDenied | ErrorCode::ReadOnly) => {
            Trouble::Refused("the statement does more than read".to_owned())
        }
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::CannotOpen
            | ErrorCode::SystemIoFailure
            | ErrorCode::DatabaseCorrupt
            | ErrorCode::NotADatabase
            | ErrorCode::PermissionDenied
            | ErrorCode::OutOfMemory
            | ErrorCode::DiskFull,
        ) => {
            tracing::warn!(%error, "a file of SQLite does not answer");
            Trouble::Away("the database does not answer".to_owned())
        }
        _ => Trouble::Wrong(error.to_string()),
    }
}
