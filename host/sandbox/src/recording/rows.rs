//! Rows as they are kept beside a recording: Arrow's IPC stream format.

use arrow::record_batch::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_ipc::{DateUnit, MessageHeader, Precision as ArrowPrecision, TimeUnit, Type};

/// Rows as they are kept.
pub(crate) fn rows_to_bytes(
    schema: &arrow::datatypes::Schema,
    batches: &[RecordBatch],
) -> std::io::Result<Vec<u8>> {
    let written = || {
        let mut writer = StreamWriter::try_new(Vec::new(), schema)?;
        for batch in batches {
            writer.write(batch)?;
        }
        writer.into_inner()
    };
    written().map_err(std::io::Error::other)
}

/// The rows in bytes that were kept, perhaps by somebody else.
pub(crate) fn rows_of_bytes(bytes: &[u8]) -> Result<Vec<RecordBatch>, String> {
    check(bytes)?;
    let read = || {
        let reader = StreamReader::try_new(bytes, None)?;
        let schema = reader.schema();
        let mut batches = reader.collect::<Result<Vec<_>, _>>()?;
        if batches.is_empty() {
            batches.push(RecordBatch::new_empty(schema));
        }
        Ok::<_, arrow::error::ArrowError>(batches)
    };
    read().map_err(|error| format!("its rows cannot be read: {error}"))
}

/// Holds bytes to what Arrow's reader takes for granted: that lengths are within the bytes, and that
/// types are those that rows have. The reader makes room for whatever length it is told, and panics
/// over types that it does not know and over bitmaps that are too short.
fn check(bytes: &[u8]) -> Result<(), String> {
    let mut rest = bytes;
    let mut columns = Vec::new();
    while let Some(message) = Message::split(rest)? {
        if !message.is_good(&mut columns) {
            return Err(
                "its rows cannot be read: they are not as this host writes rows".to_owned(),
            );
        }
        rest = message.rest;
    }
    Ok(())
}

/// What is to be known of a column to find its buffers.
#[derive(Clone, Copy, Debug)]
struct Column {
    /// Of its values.
    of: Type,
    /// Bytes of one of its numbers: values, offsets, views; 0 where there are none, or bits.
    width: i64,
    /// The dictionary that its values are in, if they are numbers of places in one, and the bytes of
    /// such a number.
    dictionary: Option<(i64, i64)>,
}

impl Column {
    /// A column of a schema that was found good.
    fn of(field: arrow_ipc::Field<'_>) -> Self {
        Self {
            of: field.type_type(),
            width: width(field),
            dictionary: field.dictionary().map(|dictionary| {
                let bits = dictionary.indexType().map_or(32, |index| index.bitWidth());
                (dictionary.id(), i64::from(bits / 8))
            }),
        }
    }

    /// The bytes of one number as they lie in a batch: of the place in the dictionary, if there is
    /// one.
    fn width_in_batch(&self) -> i64 {
        match self.dictionary {
            Some((_, width)) => width,
            None => self.width,
        }
    }
}

fn width(field: arrow_ipc::Field<'_>) -> i64 {
    let bits = match field.type_type() {
        Type::Utf8 => 32,
        Type::LargeUtf8 | Type::Timestamp => 64,
        Type::Utf8View => 128,
        Type::Int => field.type_as_int().map_or(0, |int| int.bitWidth()),
        Type::Decimal => field
            .type_as_decimal()
            .map_or(0, |decimal| decimal.bitWidth()),
        Type::FloatingPoint => match field
            .type_as_floating_point()
            .map(|float| float.precision())
        {
            Some(ArrowPrecision::HALF) => 16,
            Some(ArrowPrecision::SINGLE) => 32,
            _ => 64,
        },
        Type::Date => match field.type_as_date().map(|date| date.unit()) {
            Some(DateUnit::DAY) => 32,
            _ => 64,
        },
        _ => 0,
    };
    i64::from(bits / 8)
}

/// One message of a stream.
struct Message<'a> {
    message: arrow_ipc::Message<'a>,
    body: usize,
    rest: &'a [u8],
}

/// What stands before the length of a message.
const CONTINUATION: [u8; 4] = [0xff; 4];

/// Rows that a batch may have beside those that its bytes make likely: a column may be nothing but
/// nulls, which take no bytes.
const MAX_ROWS_OF_NOTHING: u64 = 1 << 20;

impl<'a> Message<'a> {
    /// The message at the front; none at the end.
    fn split(bytes: &'a [u8]) -> Result<Option<Self>, String> {
        let cut = || "its rows cannot be read: they are cut short".to_owned();
        let Some((word, rest)) = bytes.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let (length, rest) = match *word {
            CONTINUATION => rest.split_first_chunk::<4>().ok_or_else(cut)?,
            _ => (word, rest),
        };
        let length = u32::from_le_bytes(*length);
        if length == 0 {
            return Ok(None);
        }
        let (head, rest) = rest.split_at_checked(length as usize).ok_or_else(cut)?;
        let message = arrow_ipc::root_as_message(head)
            .map_err(|_| "its rows cannot be read: a message is garbled".to_owned())?;
        let body = usize::try_from(message.bodyLength()).map_err(|_| cut())?;
        let (_, rest) = rest.split_at_checked(body).ok_or_else(cut)?;
        Ok(Some(Self {
            message,
            body,
            rest,
        }))
    }

    /// Whether it is one that can be read. The columns are those of the schema, once it has been
    /// read.
    fn is_good(&self, columns: &mut Vec<Column>) -> bool {
        match self.message.header_type() {
            MessageHeader::Schema => {
                let schema = self.message.header_as_schema().filter(is_schema);
                let fields = schema.and_then(|schema| schema.fields());
                columns.extend(fields.into_iter().flatten().map(Column::of));
                fields.is_some()
            }
            MessageHeader::RecordBatch => {
                let batch = self.message.header_as_record_batch();
                batch.is_some_and(|batch| self.holds(batch, columns))
            }
            MessageHeader::DictionaryBatch => {
                let Some(dictionary) = self.message.header_as_dictionary_batch() else {
                    return false;
                };
                let mut known = columns.iter();
                let id = dictionary.id();
                let column = known.find(|column| column.dictionary.is_some_and(|(of, _)| of == id));
                let values = column.map(|column| Column {
                    dictionary: None,
                    ..*column
                });
                let batch = dictionary.data();
                batch
                    .zip(values)
                    .is_some_and(|(batch, values)| self.holds(batch, &[values]))
            }
            _ => false,
        }
    }

    /// Whether everything that a batch refers to is in its body.
    fn holds(&self, batch: arrow_ipc::RecordBatch<'_>, columns: &[Column]) -> bool {
        let body = self.body as u64;
        let (Some(nodes), Some(buffers)) = (batch.nodes(), batch.buffers()) else {
            return false;
        };
        let most = body.saturating_mul(8).saturating_add(MAX_ROWS_OF_NOTHING);
        let is_count = |count: i64| u64::try_from(count).is_ok_and(|count| count <= most);
        let is_within = |buffer: &arrow_ipc::Buffer| {
            let start = u64::try_from(buffer.offset()).ok();
            let length = u64::try_from(buffer.length()).ok();
            let end = start
                .zip(length)
                .and_then(|(start, length)| start.checked_add(length));
            end.is_some_and(|end| end <= body)
        };
        if batch.compression().is_some()
            || !is_count(batch.length())
            || nodes.len() != columns.len()
            || !buffers.iter().all(is_within)
        {
            return false;
        }
        let mut counts = batch.variadicBufferCounts().into_iter().flatten();
        let mut place = 0_usize;
        for (node, column) in nodes.iter().zip(columns) {
            let nulls = node.null_count();
            if !is_count(node.length()) || !(0..=node.length()).contains(&nulls) {
                return false;
            }
            let own = match (column.of, column.dictionary) {
                (Type::Null, None) => 0,
                (Type::Utf8 | Type::LargeUtf8, None) => 3,
                (Type::Utf8View, None) => {
                    let count = counts.next().and_then(|count| usize::try_from(count).ok());
                    match count.filter(|count| *count <= buffers.len()) {
                        Some(count) => count + 2,
                        None => return false,
                    }
                }
                _ => 2,
            };
            if own > buffers.len() - place {
                return false;
            }
            if own > 0 && nulls > 0 {
                let bits = buffers.get(place).length().saturating_mul(8);
                if bits < node.length() {
                    return false;
                }
            }
            // A column of truths is a bitmap, too.
            if column.of == Type::Bool && column.dictionary.is_none() {
                let bits = buffers.get(place + 1).length().saturating_mul(8);
                if bits < node.length() {
                    return false;
                }
            }
            // Whole numbers, and nothing after the last.
            let width = column.width_in_batch();
            if own > 1 && width > 0 && buffers.get(place + 1).length() % width != 0 {
                return false;
            }
            place += own;
        }
        true
    }
}

fn is_schema(schema: &arrow_ipc::Schema<'_>) -> bool {
    let Some(fields) = schema.fields() else {
        return false;
    };
    schema.endianness() == arrow_ipc::Endianness::Little && fields.iter().all(is_column)
}

/// Whether a column is of a type that rows have: a number, a text, a time, or nothing.
fn is_column(field: arrow_ipc::Field<'_>) -> bool {
    let is_whole = |int: arrow_ipc::Int<'_>| matches!(int.bitWidth(), 8 | 16 | 32 | 64);
    let index = field.dictionary().map(|dictionary| dictionary.indexType());
    let is_indexed = index.is_none_or(|index| index.is_some_and(is_whole));
    let has_parts = field
        .children()
        .is_some_and(|children| !children.is_empty());
    let is_known = match field.type_type() {
        Type::Null | Type::Bool | Type::Utf8 | Type::LargeUtf8 | Type::Utf8View => true,
        Type::Int => field.type_as_int().is_some_and(is_whole),
        Type::FloatingPoint => field.type_as_floating_point().is_some_and(|float| {
            let known = [
                ArrowPrecision::HALF,
                ArrowPrecision::SINGLE,
                ArrowPrecision::DOUBLE,
            ];
            known.contains(&float.precision())
        }),
        Type::Date => field
            .type_as_date()
            .is_some_and(|date| [DateUnit::DAY, DateUnit::MILLISECOND].contains(&date.unit())),
        Type::Timestamp => field.type_as_timestamp().is_some_and(|time| {
            let known = [
                TimeUnit::SECOND,
                TimeUnit::MILLISECOND,
                TimeUnit::MICROSECOND,
                TimeUnit::NANOSECOND,
            ];
            known.contains(&time.unit())
        }),
        Type::Decimal => field.type_as_decimal().is_some_and(|decimal| {
            matches!(decimal.bitWidth(), 32 | 64 | 128 | 256)
                && (1..=76).contains(&decimal.precision())
                && i8::try_from(decimal.scale()).is_ok()
        }),
        _ => false,
    };
    is_known && is_indexed && !has_parts
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Int64Array,
        LargeStringArray, NullArray, StringArray, StringViewArray, TimestampMicrosecondArray,
        UInt8Array,
    };
    use arrow::datatypes::Int8Type;

    use super::*;

    #[test]
    fn rows_are_kept_as_they_are_also_slices_and_none() {
        let names: StringArray = ["a", "b", "c"].into_iter().map(Some).collect();
        let numbers = Int64Array::from(vec![Some(1), None, Some(3)]);
        let all = RecordBatch::try_from_iter_with_nullable([
            ("name", Arc::new(names) as _, false),
            ("number", Arc::new(numbers) as _, true),
        ])
        .expect("rows");
        for kept in [vec![all.slice(1, 2), all.clone()], vec![all.slice(0, 0)]] {
            let bytes = rows_to_bytes(&all.schema(), &kept).expect("bytes");
            assert_eq!(rows_of_bytes(&bytes).expect("rows"), kept);
            let again = rows_to_bytes(&all.schema(), &kept).expect("bytes");
            assert_eq!(again, bytes, "the same rows are the same bytes");
        }
        assert!(rows_of_bytes(b"no rows").is_err());
    }

    #[test]
    fn rows_of_every_type_that_a_guest_can_be_given_come_back() {
        let places: DictionaryArray<Int8Type> = [Some("a"), None, Some("b")].into_iter().collect();
        let long = "a text that is too long to lie in a view";
        let amounts = Decimal128Array::from(vec![1, 2, 3]).with_precision_and_scale(10, 2);
        let columns: [(&str, ArrayRef); 9] = [
            ("place", Arc::new(places)),
            (
                "view",
                Arc::new(StringViewArray::from(vec![Some(long), None, Some("b")])),
            ),
            (
                "large",
                Arc::new(LargeStringArray::from(vec!["a", "b", "c"])),
            ),
            ("nothing", Arc::new(NullArray::new(3))),
            (
                "truth",
                Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
            ),
            ("small", Arc::new(UInt8Array::from(vec![1, 2, 3]))),
            ("day", Arc::new(Date32Array::from(vec![1, 2, 3]))),
            (
                "time",
                Arc::new(TimestampMicrosecondArray::from(vec![1, 2, 3])),
            ),
            ("amount", Arc::new(amounts.expect("a decimal"))),
        ];
        let nullable = columns.map(|(name, column)| (name, column, true));
        let all = RecordBatch::try_from_iter_with_nullable(nullable).expect("rows");
        for kept in [vec![all.slice(1, 2), all.clone()], vec![all.slice(0, 0)]] {
            let bytes = rows_to_bytes(&all.schema(), &kept).expect("bytes");
            assert_eq!(rows_of_bytes(&bytes).expect("rows"), kept);
        }
    }

    /// Each of these made Arrow's reader panic, or take gigabytes.
    #[test]
    fn rows_of_somebody_else_are_refused_before_they_are_read() {
        let numbers = Int64Array::from(vec![1, 2, 3]);
        let rows = RecordBatch::try_from_iter([("number", Arc::new(numbers) as _)]).expect("rows");
        let bytes = rows_to_bytes(&rows.schema(), &[rows]).expect("bytes");
        assert!(rows_of_bytes(&bytes).is_ok());
        let mut long = bytes.clone();
        long[4..8].copy_from_slice(&0x7fff_fff0_u32.to_le_bytes());
        assert!(rows_of_bytes(&long).is_err());
        // Whatever byte is another, it is an answer and not a panic.
        for place in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[place] = value;
                let _ = rows_of_bytes(&changed);
            }
        }
    }
}
