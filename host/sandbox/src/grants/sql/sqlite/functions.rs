//! The functions that a question may call.
//!
//! Only these: what is left out can run code of a guest's choosing (tokenizers of full text search),
//! tells of the host, or takes a time that grows faster than what it is given. A call is one step,
//! which nothing ends, so its time must be that of its values. Where a function of SQLite is slower
//! than that and questions need it, the one here is called in its place.

use std::borrow::Cow;
use std::collections::HashSet;

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error};

use super::LARGEST_VALUE;

/// The functions, in order.
#[rustfmt::skip]
const FUNCTIONS: [&str; 108] = [
    "->", "->>", "abs", "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "avg", "ceil",
    "ceiling", "char", "coalesce", "concat", "concat_ws", "cos", "cosh", "count", "cume_dist",
    "current_date", "current_time", "current_timestamp", "date", "datetime", "degrees", "dense_rank",
    "exp", "first_value", "floor", "format", "glob", "group_concat", "hex", "if", "ifnull", "iif",
    "instr", "json", "json_array", "json_array_length", "json_extract",
    "json_group_array", "json_group_object", "json_object", "json_quote", "json_type",
    "json_valid", "julianday", "lag", "last_value", "lead", "length", "like", "likelihood", "likely",
    "ln", "log", "log10", "log2", "lower", "ltrim", "max", "min", "mod", "nth_value", "ntile",
    "nullif", "octet_length", "percent_rank", "pi", "pow", "power", "printf", "quote", "radians",
    "random", "rank", "replace", "round", "row_number", "rtrim", "sign", "sin", "sinh", "soundex",
    "sqrt", "strftime", "string_agg", "substr", "substring", "sum", "tan", "tanh", "time",
    "timediff", "total", "trim", "trunc", "typeof", "unicode", "unistr", "unistr_quote", "unixepoch",
    "unlikely", "upper", "zeroblob",
];

/// Whether a question may call it.
pub(super) fn may_be_called(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    FUNCTIONS.contains(&name.as_str())
}

/// Puts those of here in the place of SQLite's.
pub(super) fn put_in_place(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_INNOCUOUS;
    connection.create_scalar_function("instr", 2, flags, instr)?;
    connection.create_scalar_function("replace", 3, flags, replace)?;
    for (name, ends) in [
        ("trim", Ends::Both),
        ("ltrim", Ends::Left),
        ("rtrim", Ends::Right),
    ] {
        for arguments in [1, 2] {
            let trim = move |given: &Context<'_>| trim(given, ends);
            connection.create_scalar_function(name, arguments, flags, trim)?;
        }
    }
    Ok(())
}

/// Where a text is in another, in characters from 1; 0 where it is not.
fn instr(given: &Context<'_>) -> rusqlite::Result<Option<i64>> {
    let (Some(whole), Some(part)) = (text(given, 0)?, text(given, 1)?) else {
        return Ok(None);
    };
    let found = whole.find(part.as_ref());
    let place = found.map_or(0, |bytes| whole[..bytes].chars().count() + 1);
    Ok(Some(i64::try_from(place).unwrap_or(i64::MAX)))
}

fn replace(given: &Context<'_>) -> rusqlite::Result<Option<String>> {
    let (Some(whole), Some(part), Some(with)) = (text(given, 0)?, text(given, 1)?, text(given, 2)?)
    else {
        return Ok(None);
    };
    if part.is_empty() {
        return Ok(Some(whole.into_owned()));
    }
    // It is held to the bound before it is made.
    let times = whole.matches(part.as_ref()).count();
    let bytes = (whole.len() - times * part.len()).saturating_add(times.saturating_mul(with.len()));
    if bytes > LARGEST_VALUE {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_TOOBIG);
        return Err(Error::SqliteFailure(code, None));
    }
    Ok(Some(whole.replace(part.as_ref(), &with)))
}

#[derive(Clone, Copy)]
enum Ends {
    Both,
    Left,
    Right,
}

fn trim(given: &Context<'_>, ends: Ends) -> rusqlite::Result<Option<String>> {
    let Some(whole) = text(given, 0)? else {
        return Ok(None);
    };
    let off: HashSet<char> = match given.len() {
        1 => HashSet::from([' ']),
        _ => match text(given, 1)? {
            Some(characters) => characters.chars().collect(),
            None => return Ok(None),
        },
    };
    let is_off = |character: char| off.contains(&character);
    let left = match ends {
        Ends::Both => whole.trim_matches(is_off),
        Ends::Left => whole.trim_start_matches(is_off),
        Ends::Right => whole.trim_end_matches(is_off),
    };
    Ok(Some(left.to_owned()))
}

/// A value as text; none for null.
fn text<'a>(given: &'a Context<'_>, index: usize) -> rusqlite::Result<Option<Cow<'a, str>>> {
    let told = |what: &str| {
        let place = index + 1;
        Error::UserFunctionError(format!("argument {place} is {what}; cast it to text").into())
    };
    match given.get_raw(index) {
        ValueRef::Null => Ok(None),
        ValueRef::Integer(value) => Ok(Some(Cow::Owned(value.to_string()))),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Some(Cow::Borrowed(text))),
            Err(_) => Err(told("text that is not UTF-8")),
        },
        ValueRef::Real(_) => Err(told("a float")),
        ValueRef::Blob(_) => Err(told("bytes")),
    }
}
