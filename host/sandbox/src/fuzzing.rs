//! What is private and takes bytes of somebody else, opened for the targets in `tests/`.
//!
//! Each function takes any bytes at all and comes back: what is wrong with them is a value. The
//! targets that are public already are called by their names there.

use arrow::array::AsArray as _;
use arrow::buffer::Buffer;

use crate::bindings::adapter::sandcast::plugin::{compute, models, sql, types};
use crate::columns::list::{Element, List};
use crate::columns::{Batch, lift, lower};
use crate::grants::{HttpGrant, Limits, blob, http};
use crate::process::{Wire, bytes_of, value_of};
use crate::recording::rows_of_bytes;

/// Most columns that a target makes.
const MAX_COLUMNS: u8 = 8;

/// Columns as a guest hands them over, typed or raw: checked, made into a batch, and every value of
/// what was let through looked at, as later stages do. What is let through goes out again, too.
///
/// # Errors
/// When they are refused, with what the guest is told.
pub fn columns(bytes: &[u8]) -> Result<(), String> {
    let mut bytes = Bytes(bytes);
    let bounds = lift::Bounds::of(&Limits::default());
    let is_raw = bytes.byte() % 2 == 1;
    let count = bytes.byte() % (MAX_COLUMNS + 1);
    let fields: Vec<types::Field> = (0..count).map(|_| bytes.field()).collect();
    let made = if is_raw {
        let columns = fields.iter().map(|_| bytes.raw_column()).collect();
        lift::raw_batch(&fields, columns, &bounds)
    } else {
        let columns = fields.iter().map(|_| bytes.column()).collect();
        lift::batch(&fields, columns, &bounds)
    };
    let batch = made.map_err(|malformed| malformed.to_string())?;
    for array in batch.columns() {
        if let Some(texts) = array.as_string_opt::<i32>() {
            let shown: usize = texts
                .iter()
                .flatten()
                .map(|text| text.chars().count())
                .sum();
            std::hint::black_box(shown);
        }
        let half = array.slice(array.len() / 2, array.len() - array.len() / 2);
        for array in [array, &half] {
            assert!(
                lower::column(array).is_ok(),
                "what was let in can be handed out"
            );
        }
    }
    Ok(())
}

/// Whether grants cover a request, by what it says of itself: the method, the scheme, the host, the port
/// and the path. Which of them does.
///
/// # Errors
/// When none does, with what the guest is told.
pub fn http_target(
    grants: &[HttpGrant],
    method: &::http::Method,
    uri: &::http::Uri,
) -> Result<usize, String> {
    http::covering(grants, method, uri)
}

/// What a guest in a process of its own asks with, which is that process's word: the first byte says for which
/// kind of thing. What is taken is what was sent, to the byte.
///
/// # Errors
/// When it is none, with what is wrong.
pub fn asked(bytes: &[u8]) -> Result<(), String> {
    fn taken<T: Wire>(bytes: &[u8]) -> Result<(), String> {
        let value: T = value_of(bytes, ASKED_ROOM_BYTES).map_err(|error| error.to_string())?;
        assert!(bytes_of(&value) == bytes, "what is taken is what was sent");
        Ok(())
    }
    let Some((kind, bytes)) = bytes.split_first() else {
        return Err("nothing was asked".to_owned());
    };
    match kind % 8 {
        0 => taken::<compute::Graph>(bytes),
        1 => taken::<(Vec<types::Field>, Vec<lift::ColumnIn>)>(bytes),
        2 => taken::<(Vec<types::Field>, Vec<lift::RawColumnIn>)>(bytes),
        3 => taken::<Vec<compute::Prompt>>(bytes),
        4 => taken::<(String, String, Vec<sql::Parameter>)>(bytes),
        5 => taken::<(compute::ForestExamples, compute::ForestPlan)>(bytes),
        6 => taken::<(Option<Vec<compute::Feed>>, compute::TrainPlan)>(bytes),
        _ => taken::<(models::Task, Vec<u32>, String)>(bytes),
    }
}

/// Bytes of memory that the target may make of what was asked.
const ASKED_ROOM_BYTES: u64 = 8 << 20;

/// Rows as they lie beside a recording, which may be another's evidence.
///
/// # Errors
/// When they cannot be read, or no guest can be given them.
pub fn recorded_rows(bytes: &[u8]) -> Result<(), String> {
    for batch in &rows_of_bytes(bytes)? {
        // What is read goes to a guest.
        Batch::lend(batch).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// A list as a store answers it, held to what was asked for: whatever is let through is a key below the prefix.
///
/// # Errors
/// When it is refused.
pub fn store_list(bytes: &[u8]) -> Result<(), String> {
    let seen = blob::listed(bytes, "own/", "raw/")?;
    for key in seen {
        let parts = key.strip_prefix("raw/");
        let is_plain = |part: &str| !matches!(part, "" | "." | "..");
        assert!(
            parts.is_some_and(|parts| parts.split('/').all(is_plain)),
            "what was let in is below the prefix"
        );
    }
    Ok(())
}

/// Bytes, taken from the front. When they are used up, zeros.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn take(&mut self, count: usize) -> &[u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A short number, or an extreme one.
    fn rows(&mut self) -> u32 {
        match self.byte() {
            255 => u32::MAX,
            254 => 1 << 20,
            253 => u32::from(self.byte()) << 8,
            small => u32::from(small),
        }
    }

    fn list<T: Element>(&mut self) -> List<T> {
        let count = usize::from(self.byte()) | usize::from(self.byte()) << 8;
        // The buffers of a guest's lists are aligned, as those made here are.
        let taken = self.take(count);
        let whole = taken.len() / size_of::<T>() * size_of::<T>();
        List::of_bytes(Buffer::from_slice_ref(&taken[..whole]))
    }

    fn validity(&mut self) -> Option<List<u8>> {
        (self.byte() % 2 == 1).then(|| self.list())
    }

    fn kind(&mut self) -> types::Kind {
        match self.byte() % 6 {
            0 => types::Kind::Boolean,
            1 => types::Kind::Int64,
            2 => types::Kind::Float64,
            3 => types::Kind::Utf8,
            4 => types::Kind::Date32,
            _ => types::Kind::TimestampUs,
        }
    }

    fn field(&mut self) -> types::Field {
        let length = usize::from(self.byte()) * if self.byte() == 255 { 4 } else { 1 };
        let name = String::from_utf8_lossy(self.take(length)).into_owned();
        types::Field {
            name,
            kind: self.kind(),
            nullable: self.byte() % 2 == 1,
        }
    }

    fn column(&mut self) -> lift::ColumnIn {
        let rows = self.rows();
        let values = match self.kind() {
            types::Kind::Boolean => lift::ValuesIn::Boolean(self.list()),
            types::Kind::Int64 => lift::ValuesIn::Int64(self.list()),
            types::Kind::Float64 => lift::ValuesIn::Float64(self.list()),
            types::Kind::Utf8 => lift::ValuesIn::Utf8(lift::StringsIn {
                offsets: self.list(),
                bytes: self.list(),
            }),
            types::Kind::Date32 => lift::ValuesIn::Date32(self.list()),
            types::Kind::TimestampUs => lift::ValuesIn::TimestampUs(self.list()),
        };
        lift::ColumnIn {
            rows,
            values,
            validity: self.validity(),
        }
    }

    fn raw_column(&mut self) -> lift::RawColumnIn {
        lift::RawColumnIn {
            kind: self.kind(),
            rows: self.rows(),
            values: self.list(),
            offsets: self.list(),
            validity: self.validity(),
        }
    }
}
