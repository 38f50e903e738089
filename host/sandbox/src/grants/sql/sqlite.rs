//! Files of SQLite, opened for reading.
//!
//! Nothing of what a statement does is read off its text. The file is opened for reading only; what a
//! statement would do step by step is asked of the authorizer when it is compiled, and everything but
//! reading tables and views of the file, calling functions that are listed and recursion is refused
//! there; a handler that SQLite calls as it goes ends it when its time is up, when it holds too much, or
//! when nobody waits any more.
//!
//! The handler is called between steps and not within one: a call of a function is one step, and steps
//! that follow each other without a jump are as one. So a value is small, no function takes longer than
//! its values are long, and the more values a program makes, the smaller each may be.

mod functions;
mod memory;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::{ToSql, ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, ErrorCode, InterruptHandle, OpenFlags};

use self::memory::Share;
use super::rows::{Cell, Collector, Rows};
use super::{Bounds, MAX_NAME_BYTES, MAX_PARAMETERS, MAX_STATEMENT_BYTES, Parameter, Trouble};
use crate::model::Kind;
use crate::text;

/// Steps of a statement between two looks at the clock and at the memory.
const STEPS: i32 = 50;

/// Bytes of a value, and of a row of a table or of what is sorted, at most.
const LARGEST_VALUE: usize = 1 << 20;

/// Bytes of a value of a statement of which it is not known what it does.
const SMALL_VALUE: u64 = 64 << 10;

/// Bytes of all the values that a statement makes between two looks: those of its answer, but at least
/// and at most these.
const LEAST_VALUES: u64 = 16 << 20;
const MOST_VALUES: u64 = 64 << 20;

/// Bytes that SQLite needs beside values and what it sorts: pages of the file above all.
const ROOM: u64 = 32 << 20;

/// What a comparison with a pattern counts as: it may look at each place as often as the pattern is long.
const PATTERN_WEIGHT: u64 = 64;

/// How long somebody who writes may hold the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What is bounded besides: how large and deep a statement and its parts may be.
const LIMITS: [(Limit, i32); 10] = [
    (Limit::SQLITE_LIMIT_SQL_LENGTH, MAX_STATEMENT_BYTES as i32),
    (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, MAX_PARAMETERS as i32),
    (Limit::SQLITE_LIMIT_COLUMN, 1000),
    (Limit::SQLITE_LIMIT_FUNCTION_ARG, 32),
    (Limit::SQLITE_LIMIT_EXPR_DEPTH, 100),
    (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 100),
    (Limit::SQLITE_LIMIT_VDBE_OP, 250_000),
    (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 100),
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
    let waiting = Waiting::default();
    let (is_left, ends_with) = (Arc::clone(&waiting.is_left), Arc::clone(&waiting.ends_with));
    let mut asking = tokio::task::spawn_blocking(move || {
        ask_now(&path, &statement, &parameters, &bounds, is_left, &ends_with)
    });
    let asked = tokio::select! {
        asked = &mut asking => asked,
        () = tokio::time::sleep_until(bounds.deadline.into()) => {
            waiting.end();
            asking.await
        }
    };
    asked.unwrap_or_else(|error| Err(Trouble::Away(error.to_string())))
}

/// Somebody who waits for an answer; the question ends with it.
#[derive(Default)]
struct Waiting {
    is_left: Arc<AtomicBool>,
    /// For what SQLite does in one step and still looks up from, such as counting a table.
    ends_with: Arc<OnceLock<InterruptHandle>>,
}

impl Waiting {
    fn end(&self) {
        self.is_left.store(true, Ordering::Relaxed);
        if let Some(handle) = self.ends_with.get() {
            handle.interrupt();
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.end();
    }
}

fn ask_now(
    path: &Path,
    statement: &str,
    parameters: &[Parameter],
    bounds: &Bounds,
    is_left: Arc<AtomicBool>,
    ends_with: &OnceLock<InterruptHandle>,
) -> Result<Rows, Trouble> {
    let away = |error: rusqlite::Error| {
        tracing::warn!(%error, "a file of SQLite cannot be opened");
        Trouble::Away("the database cannot be opened".to_owned())
    };
    let mut connection = open(path, bounds).map_err(away)?;
    let _ = ends_with.set(connection.get_interrupt_handle());
    functions::put_in_place(&connection).map_err(away)?;
    let readable = Readable::of(&connection).map_err(away)?;
    let values = bounds.bytes.clamp(LEAST_VALUES, MOST_VALUES);
    // What is sorted and grouped is in memory: a disk is filled sooner than a watch is kept on it. An
    // answer that is sorted is there once more while it is.
    let allowed = values + ROOM + bounds.bytes;
    let share = Share::of(allowed);
    let is_full = Arc::new(AtomicBool::new(false));
    let refused: Arc<OnceLock<String>> = Arc::default();
    let told = |error: rusqlite::Error| {
        if let Some(what) = refused.get() {
            return Trouble::Refused(what.clone());
        }
        if is_full.load(Ordering::Relaxed) {
            let what = format!("it needs more than {allowed} bytes to be answered");
            return Trouble::too_much("bytes", what);
        }
        trouble(&error, bounds)
    };
    let deadline = bounds.deadline;
    let fills = Arc::clone(&is_full);
    let is_over = move || {
        if share.is_over() {
            fills.store(true, Ordering::Relaxed);
            return true;
        }
        is_left.load(Ordering::Relaxed) || Instant::now() >= deadline
    };
    connection
        .progress_handler(STEPS, Some(is_over))
        .map_err(told)?;
    let says = Arc::clone(&refused);
    let authorise = move |context: AuthContext<'_>| match readable.refusal(&context.action) {
        None => Authorization::Allow,
        Some(what) => {
            let _ = says.set(what);
            Authorization::Deny
        }
    };
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
    let largest = match asked.is_explain() {
        0 => values / weight(&connection, statement).map_err(told)?,
        _ => SMALL_VALUE,
    };
    // As before the answer's own bound holds for each of its values.
    let largest = largest.min(bounds.bytes.max(SMALL_VALUE));
    let largest = largest.min(LARGEST_VALUE as u64) as i32;
    connection
        .set_limit(Limit::SQLITE_LIMIT_LENGTH, largest)
        .map_err(told)?;
    let told = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::TooBig) => {
            let what = format!("a value, or a row, is over {largest} bytes");
            Trouble::too_much("bytes", what)
        }
        _ => told(error),
    };
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
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER, false)?;
    // A file may be the work of others.
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "query_only", true)?;
    // What is sorted lies where it is counted and bounded, and in no file of the system's.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    for (limit, most) in LIMITS {
        connection.set_limit(limit, most)?;
    }
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, LARGEST_VALUE as i32)?;
    Ok(connection)
}

/// How many values the program of a statement makes, as SQLite explains it.
fn weight(connection: &Connection, statement: &str) -> rusqlite::Result<u64> {
    let mut explained = connection.prepare(&format!("EXPLAIN {statement}"))?;
    let mut steps = explained.raw_query();
    let mut weight = 1;
    while let Some(step) = steps.next()? {
        let opcode = step.get_ref("opcode")?.as_str().unwrap_or_default();
        let of = step.get_ref("p4")?.as_str().unwrap_or_default();
        weight += match opcode {
            "Function" | "PureFunc" if of.starts_with("like(") || of.starts_with("glob(") => {
                PATTERN_WEIGHT
            }
            "Function" | "PureFunc" | "AggStep" | "AggStep1" | "AggInverse" | "AggValue"
            | "AggFinal" | "Concat" | "Column" | "VColumn" | "Cast" | "Copy" | "MakeRecord"
            | "RowData" | "Variable" => 1,
            _ => 0,
        };
    }
    Ok(weight)
}

/// What a statement may read.
struct Readable {
    /// Tables and views of the file, in small letters.
    tables: HashSet<String>,
    /// Tables that SQLite makes up when they are named: what they answer is not of the file.
    modules: HashSet<String>,
}

impl Readable {
    fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let names = |statement: &str| -> rusqlite::Result<HashSet<String>> {
            let mut asked = connection.prepare(statement)?;
            let names = asked.query_map([], |row| row.get::<_, String>(0))?;
            names
                .map(|name| name.map(|name| name.to_ascii_lowercase()))
                .collect()
        };
        Ok(Self {
            // One that is virtual is read by code that takes what a statement gives it.
            tables: names(
                "SELECT name FROM sqlite_schema WHERE type = 'view' OR type = 'table' AND \
                 sql NOT LIKE 'CREATE VIRTUAL%'",
            )?,
            modules: names("SELECT name FROM pragma_module_list")?,
        })
    }

    /// Why a statement may not do that; none where it may.
    fn refusal(&self, action: &AuthAction<'_>) -> Option<String> {
        match action {
            AuthAction::Select | AuthAction::Recursive => None,
            AuthAction::Read {
                table_name,
                column_name,
            } => {
                let table = table_name.to_ascii_lowercase();
                let is_listed = self.tables.contains(&table)
                    || ["sqlite_master", "sqlite_schema", "json_each", "json_tree"]
                        .contains(&table.as_str());
                // A part of the question itself, of which no column is asked.
                let is_part = column_name.is_empty()
                    && !self.modules.contains(&table)
                    && !table.starts_with("pragma_");
                if is_listed || is_part {
                    return None;
                }
                let shown = text::sentence(table_name, MAX_NAME_BYTES);
                Some(format!("`{shown}` is no plain table or view of the file"))
            }
            AuthAction::Function { function_name } if functions::may_be_called(function_name) => {
                None
            }
            AuthAction::Function { function_name } => {
                let shown = text::sentence(function_name, MAX_NAME_BYTES);
                Some(format!("`{shown}` is no function that a question may call"))
            }
            _ => Some("the statement does more than read".to_owned()),
        }
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
            format!("a value or the statement is over {LARGEST_VALUE} bytes"),
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
        _ => Trouble::Wrong(match error {
            // With the whole statement, else, which may end in the reason of a failure.
            rusqlite::Error::SqlInputError { msg, offset, .. } => {
                format!("{msg}, at byte {offset} of the statement")
            }
            error => error.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests;
