//! Columns that are right come back as they went; columns that are wrong are refused.

use arrow::array::{
    Array, ArrayRef, BooleanArray, Date32Array, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{Field, Schema};
use proptest::prelude::*;
use wasmtime::component::{Component, Linker, Resource};

use super::lift::{self, Bounds, ColumnIn, Malformed, RawColumnIn, StringsIn, ValuesIn};
use super::list::{Element, List};
use super::*;
use crate::bindings::adapter::sandcast::plugin::types::Failure;
use crate::testing::{Bench, echo, store};
use crate::{ByteSize, Grants, Limits};

/// A column of every kind, with and without nulls.
fn rows(count: usize) -> RecordBatch {
    let some = |row: usize| !row.is_multiple_of(3);
    let zone = |array: TimestampMicrosecondArray| array.with_timezone("UTC");
    RecordBatch::try_from_iter([
        (
            "truth",
            Arc::new(
                (0..count)
                    .map(|row| some(row).then_some(row % 2 == 0))
                    .collect::<BooleanArray>(),
            ) as ArrayRef,
        ),
        (
            "whole",
            Arc::new(
                (0..count)
                    .map(|row| some(row).then_some(row as i64 * -7))
                    .collect::<Int64Array>(),
            ),
        ),
        (
            "number",
            Arc::new(
                (0..count)
                    .map(|row| Some(row as f64 / 3.0))
                    .collect::<Float64Array>(),
            ),
        ),
        (
            "text",
            Arc::new(
                (0..count)
                    .map(|row| some(row).then(|| "ä".repeat(row % 5)))
                    .collect::<StringArray>(),
            ),
        ),
        (
            "day",
            Arc::new(
                (0..count)
                    .map(|row| Some(row as i32))
                    .collect::<Date32Array>(),
            ),
        ),
        (
            "time",
            Arc::new(zone(
                (0..count)
                    .map(|row| some(row).then_some(row as i64))
                    .collect(),
            )),
        ),
    ])
    .expect("a batch")
}

/// Sends a batch into a guest and back, by columns and by raw columns.
async fn there_and_back(bench: &Bench, rows: &RecordBatch, grants: Grants) -> Vec<RecordBatch> {
    let engine = bench.sandbox.engine();
    let component = Component::new(engine, echo()).expect("it compiles");
    let mut linker = Linker::new(engine);
    link(&mut linker).expect("it links");
    let mut back = Vec::new();
    for export in ["typed", "raw"] {
        let mut store = store(bench, grants.clone());
        let instance = linker
            .instantiate_async(&mut store, &component)
            .await
            .expect("an instance");
        let function = instance
            .get_typed_func::<(Resource<Batch>,), (Result<Resource<Batch>, Failure>,)>(
                &mut store, export,
            )
            .expect("the export");
        let lent = Batch::lend(rows).expect("known types");
        let lent = store.data_mut().table.push(lent).expect("room");
        let (answer,) = function
            .call_async(&mut store, (lent,))
            .await
            .expect("a call");
        let made = answer.unwrap_or_else(|failure| panic!("{}", failure.message));
        back.push(store.data_mut().take_batch(made).expect("a batch"));
        assert_eq!(store.data().held_bytes, 0, "what was charged is given back");
    }
    back
}

#[tokio::test]
async fn every_kind_comes_back_as_it_went() {
    let bench = Bench::new();
    for count in [0, 1, 7, 8, 9, 1000] {
        let rows = rows(count);
        for back in there_and_back(&bench, &rows, Grants::default()).await {
            assert_eq!(back, rows, "{count} rows");
        }
    }
}

#[tokio::test]
async fn slices_come_back_too_wherever_they_start() {
    let bench = Bench::new();
    let rows = rows(200);
    for (start, length) in [(0, 5), (1, 64), (3, 8), (8, 16), (13, 187), (200, 0)] {
        let slice = rows.slice(start, length);
        for back in there_and_back(&bench, &slice, Grants::default()).await {
            assert_eq!(back, slice, "{length} rows from {start}");
        }
    }
}

#[tokio::test]
async fn large_columns_go_in_one_piece() {
    let bench = Bench::new();
    let values = Float64Array::from_iter_values((0..300_000).map(f64::from));
    let rows = RecordBatch::try_from_iter([("x", Arc::new(values) as ArrayRef)]).expect("a batch");
    for back in there_and_back(&bench, &rows, Grants::default()).await {
        assert_eq!(back, rows);
    }
}

#[tokio::test]
async fn what_a_guest_makes_is_charged_to_it() {
    let bench = Bench::new();
    let component = Component::new(bench.sandbox.engine(), echo()).expect("it compiles");
    let mut linker = Linker::new(bench.sandbox.engine());
    link(&mut linker).expect("it links");
    let limits = Limits {
        memory: ByteSize::from_mib(1),
        ..Limits::default()
    };
    let mut store = store(
        &bench,
        Grants {
            limits,
            ..Grants::default()
        },
    );
    // The guest's own memory has room for its share of the host's, and no more.
    store.data_mut().held_bytes = (1 << 20) - 100;
    let instance = linker
        .instantiate_async(&mut store, &component)
        .await
        .expect("an instance");
    let function = instance
        .get_typed_func::<(Resource<Batch>,), (Result<Resource<Batch>, Failure>,)>(
            &mut store, "typed",
        )
        .expect("the export");
    let lent = Batch::lend(&rows(100)).expect("known types");
    let lent = store.data_mut().table.push(lent).expect("room");
    let (answer,) = function
        .call_async(&mut store, (lent,))
        .await
        .expect("a call");
    let failure = answer.map(|_| ()).expect_err("over the limit");
    assert!(failure.message.contains("1MiB"), "{}", failure.message);
    assert!(
        failure
            .hint
            .is_some_and(|hint| hint.contains("plugins.test.grants.limits.memory"))
    );
}

fn field(kind: types::Kind, nullable: bool) -> types::Field {
    types::Field {
        name: "c".into(),
        kind,
        nullable,
    }
}

fn list<T: Element>(values: Vec<T>) -> List<T> {
    List::of(&values.into())
}

fn bounds() -> Bounds {
    Bounds::of(&Limits {
        output_rows: 1000,
        ..Limits::default()
    })
}

fn one(
    field: types::Field,
    rows: u32,
    values: ValuesIn,
    validity: Option<Vec<u8>>,
) -> Result<RecordBatch, Malformed> {
    lift::batch(
        &[field],
        vec![ColumnIn {
            rows,
            values,
            validity: validity.map(list),
        }],
        &bounds(),
    )
}

fn strings(offsets: Vec<i32>, bytes: &[u8]) -> ValuesIn {
    ValuesIn::Utf8(StringsIn {
        offsets: list(offsets),
        bytes: list(bytes.to_vec()),
    })
}

#[test]
fn lengths_must_be_those_of_the_rows() {
    use types::Kind;
    let cases = [
        one(
            field(Kind::Int64, false),
            3,
            ValuesIn::Int64(list(vec![1, 2])),
            None,
        ),
        one(
            field(Kind::Float64, false),
            1,
            ValuesIn::Float64(list(vec![1.0, 2.0])),
            None,
        ),
        one(
            field(Kind::Date32, false),
            0,
            ValuesIn::Date32(list(vec![1])),
            None,
        ),
        one(
            field(Kind::TimestampUs, false),
            2,
            ValuesIn::TimestampUs(list(vec![])),
            None,
        ),
        one(
            field(Kind::Boolean, false),
            9,
            ValuesIn::Boolean(list(vec![0])),
            None,
        ),
        one(
            field(Kind::Boolean, false),
            8,
            ValuesIn::Boolean(list(vec![0, 0])),
            None,
        ),
        one(
            field(Kind::Int64, true),
            1,
            ValuesIn::Int64(list(vec![1])),
            Some(vec![]),
        ),
        one(
            field(Kind::Int64, true),
            1,
            ValuesIn::Int64(list(vec![1])),
            Some(vec![1, 1]),
        ),
        one(field(Kind::Utf8, false), 2, strings(vec![0, 0], b""), None),
        one(field(Kind::Utf8, false), 0, strings(vec![], b""), None),
    ];
    for (place, case) in cases.into_iter().enumerate() {
        assert!(
            matches!(case, Err(Malformed::Length { .. })),
            "case {place}: {case:?}"
        );
    }
}

#[test]
fn offsets_must_rise_from_0_to_the_end_of_the_bytes() {
    use types::Kind;
    for (offsets, bytes) in [
        (vec![1, 2], b"ab".as_slice()),
        (vec![0, 2, 1], b"ab"),
        (vec![0, 1], b"ab"),
        (vec![0, 3], b"ab"),
        (vec![0, -1], b"ab"),
        (vec![i32::MIN, 2], b"ab"),
        (vec![0, i32::MAX], b"ab"),
    ] {
        let rows = offsets.len() as u32 - 1;
        let made = one(
            field(Kind::Utf8, false),
            rows,
            strings(offsets.clone(), bytes),
            None,
        );
        assert!(
            matches!(made, Err(Malformed::Offset { .. })),
            "{offsets:?}: {made:?}"
        );
    }
}

#[test]
fn text_must_be_utf8_within_each_value() {
    use types::Kind;
    let broken = one(
        field(Kind::Utf8, false),
        1,
        strings(vec![0, 1], b"\xff"),
        None,
    );
    assert!(
        matches!(broken, Err(Malformed::NotUtf8 { .. })),
        "{broken:?}"
    );
    // Whole, but cut through a character by an offset.
    let split = one(
        field(Kind::Utf8, false),
        2,
        strings(vec![0, 1, 2], "ä".as_bytes()),
        None,
    );
    assert!(matches!(split, Err(Malformed::NotUtf8 { .. })), "{split:?}");
}

#[test]
fn nulls_and_kinds_must_be_as_declared() {
    use types::Kind;
    let nulls = one(
        field(Kind::Int64, false),
        2,
        ValuesIn::Int64(list(vec![1, 2])),
        Some(vec![0b01]),
    );
    assert!(
        matches!(nulls, Err(Malformed::UnexpectedNulls { nulls: 1, .. })),
        "{nulls:?}"
    );
    // Bits after the last row are nobody's.
    let spare = one(
        field(Kind::Int64, false),
        2,
        ValuesIn::Int64(list(vec![1, 2])),
        Some(vec![0b11]),
    );
    assert!(spare.is_ok(), "{spare:?}");
    let kinds = one(
        field(Kind::Utf8, false),
        1,
        ValuesIn::Int64(list(vec![1])),
        None,
    );
    assert!(
        matches!(kinds, Err(Malformed::KindsDiffer { .. })),
        "{kinds:?}"
    );
}

#[test]
fn columns_must_agree_with_each_other_and_with_the_fields() {
    use types::Kind;
    let column = |rows: u32| ColumnIn {
        rows,
        values: ValuesIn::Int64(list(vec![0; rows as usize])),
        validity: None,
    };
    let named = |name: &str| types::Field {
        name: name.into(),
        kind: Kind::Int64,
        nullable: false,
    };
    let made = |fields: &[types::Field], columns| lift::batch(fields, columns, &bounds());
    assert!(matches!(
        made(&[named("a")], vec![]),
        Err(Malformed::ColumnCount { .. })
    ));
    assert!(matches!(
        made(&[named("a"), named("b")], vec![column(1), column(2)]),
        Err(Malformed::RowsDiffer { .. })
    ));
    assert!(matches!(
        made(&[named("a"), named("a")], vec![column(1), column(1)]),
        Err(Malformed::TwiceNamed { .. })
    ));
    assert!(matches!(
        made(&[named("")], vec![column(1)]),
        Err(Malformed::NameLength { bytes: 0 })
    ));
    assert!(matches!(
        made(
            &[named(&"x".repeat(lift::MAX_COLUMN_NAME_BYTES + 1))],
            vec![column(1)]
        ),
        Err(Malformed::NameLength { .. })
    ));
    assert!(matches!(
        made(&[named("a")], vec![column(1001)]),
        Err(Malformed::TooManyRows {
            rows: 1001,
            limit: 1000
        })
    ));
}

#[test]
fn raw_columns_need_whole_numbers_and_no_stray_offsets() {
    use types::Kind;
    let raw = |kind: Kind, rows: u32, values: usize, offsets: usize| {
        let column = RawColumnIn {
            kind,
            rows,
            values: list(vec![0_u8; values]),
            offsets: list(vec![0_u8; offsets]),
            validity: None,
        };
        lift::raw_batch(&[field(kind, false)], vec![column], &bounds())
    };
    assert!(raw(Kind::Int64, 2, 16, 0).is_ok());
    assert!(raw(Kind::Utf8, 2, 0, 12).is_ok());
    assert!(raw(Kind::Date32, 2, 8, 0).is_ok());
    assert!(raw(Kind::Boolean, 9, 2, 0).is_ok());
    for bad in [
        raw(Kind::Int64, 2, 15, 0),
        raw(Kind::Int64, 2, 24, 0),
        raw(Kind::Int64, 2, 16, 4),
        raw(Kind::Utf8, 2, 0, 11),
        raw(Kind::Utf8, 2, 0, 8),
        raw(Kind::Boolean, 9, 1, 0),
    ] {
        assert!(matches!(bad, Err(Malformed::Length { .. })), "{bad:?}");
    }
}

fn any_values() -> impl Strategy<Value = ValuesIn> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
    let wild = proptest::collection::vec(any::<i32>(), 0..12);
    let tame = proptest::collection::vec(0_i32..12, 0..12).prop_map(|mut offsets| {
        offsets.sort_unstable();
        offsets.insert(0, 0);
        offsets
    });
    prop_oneof![
        bytes().prop_map(|values| ValuesIn::Boolean(list(values))),
        proptest::collection::vec(any::<i64>(), 0..12)
            .prop_map(|values| ValuesIn::Int64(list(values))),
        proptest::collection::vec(any::<f64>(), 0..12)
            .prop_map(|values| ValuesIn::Float64(list(values))),
        proptest::collection::vec(any::<i32>(), 0..12)
            .prop_map(|values| ValuesIn::Date32(list(values))),
        proptest::collection::vec(any::<i64>(), 0..12)
            .prop_map(|values| ValuesIn::TimestampUs(list(values))),
        (prop_oneof![wild, tame], bytes()).prop_map(|(offsets, bytes)| strings(offsets, &bytes)),
        proptest::string::string_regex("[aä€]{0,6}")
            .expect("a pattern")
            .prop_map(|text| { strings(vec![0, text.len() as i32], text.as_bytes()) }),
    ]
}

proptest! {
    /// Whatever a guest sends, the host neither panics nor accepts what Arrow would not.
    #[test]
    fn no_column_panics_and_what_is_accepted_is_valid(
        rows in 0_u32..14,
        values in any_values(),
        validity in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..3)),
        nullable in any::<bool>(),
        kind in 0_usize..6,
    ) {
        use types::Kind;
        let kinds = [Kind::Boolean, Kind::Int64, Kind::Float64, Kind::Utf8, Kind::Date32, Kind::TimestampUs];
        let field = field(kinds[kind], nullable);
        if let Ok(batch) = one(field, rows, values, validity) {
            prop_assert_eq!(batch.num_rows(), rows as usize);
            let column = batch.column(0);
            prop_assert!(column.to_data().validate_full().is_ok());
            prop_assert!(nullable || column.null_count() == 0);
        }
    }

    /// A slice of any array goes out as its values, whatever bit or offset it starts at.
    #[test]
    fn a_slice_goes_out_as_what_it_is(
        bits in proptest::collection::vec(any::<Option<bool>>(), 1..80),
        start in 0_usize..80,
        length in 0_usize..80,
    ) {
        let start = start.min(bits.len());
        let length = length.min(bits.len() - start);
        let texts: StringArray =
            bits.iter().map(|bit| bit.map(|bit| if bit { "yes" } else { "no" })).collect();
        let truths: BooleanArray = bits.iter().copied().collect();
        for array in [Arc::new(texts) as ArrayRef, Arc::new(truths)] {
            let slice = array.slice(start, length);
            let column = lower::column(&slice).expect("a known kind");
            let back = back(column);
            prop_assert_eq!(&slice, &back);
        }
    }
}

/// The host's own reading of a column it would send.
fn back(column: lower::ColumnOut) -> ArrayRef {
    let (kind, rows, values, offsets, validity) = column.into_raw().into_parts();
    let field = types::Field {
        name: "c".into(),
        kind,
        nullable: true,
    };
    let column = RawColumnIn {
        kind,
        rows,
        values,
        offsets,
        validity,
    };
    let batch = lift::raw_batch(&[field], vec![column], &bounds()).expect("what was sent is right");
    Arc::clone(batch.column(0))
}

#[test]
fn bits_after_the_last_row_go_out_as_0() {
    let truths = BooleanArray::new(BooleanBuffer::new(vec![0xff_u8, 0xff].into(), 0, 11), None);
    let sent = lower::column(&(Arc::new(truths) as ArrayRef)).expect("a known kind");
    let (_, _, values, _, validity) = sent.into_raw().into_parts();
    assert_eq!(values.into_buffer().as_slice(), [0xff, 0b111]);
    assert!(validity.is_none(), "no nulls, no bitmap");
    let nulls = NullBuffer::new(BooleanBuffer::new(vec![0b1111_0101_u8].into(), 0, 4));
    let numbers = Int64Array::new(vec![1, 2, 3, 4].into(), Some(nulls));
    let sent = lower::column(&(Arc::new(numbers) as ArrayRef)).expect("a known kind");
    let (.., validity) = sent.into_raw().into_parts();
    assert_eq!(validity.expect("nulls").into_buffer().as_slice(), [0b0101]);
}

#[test]
fn datasets_need_one_schema_and_a_batch() {
    assert!(matches!(Dataset::lend(&[]), Err(ConformError::Empty)));
    let other = RecordBatch::new_empty(Arc::new(Schema::new(vec![Field::new(
        "other",
        arrow::datatypes::DataType::Int64,
        true,
    )])));
    assert!(matches!(
        Dataset::lend(&[rows(1), other]),
        Err(ConformError::SchemasDiffer { .. })
    ));
    let lent = Dataset::lend(&[rows(2), rows(3)]).expect("one schema");
    assert_eq!(lent.rows, 5);
    let read = read(&lent, 1, &["text".into(), "day".into()]).expect("columns that are there");
    assert_eq!(read.num_rows(), 3);
    assert_eq!(read.num_columns(), 2);
    assert!(super::read(&lent, 2, &[]).is_err());
    assert!(super::read(&lent, 0, &["nothing".into()]).is_err());
}

#[test]
fn a_column_is_read_once_for_each_time_it_is_named() {
    let lent = Dataset::lend(&[rows(3)]).expect("one schema");
    let named = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        read(&lent, 0, &names)
    };
    let all = ["time", "day", "text", "number", "whole", "truth"];
    let read = named(&all).expect("each of them once, in any order");
    assert_eq!(column_names(&read.schema()), all);
    assert_eq!(named(&[]).expect("no column").num_rows(), 3);
    for (names, twice) in [
        (vec!["text", "text"], "text"),
        (vec!["day", "text", "day", "text"], "day"),
        // Whatever else is wrong with them.
        (vec!["nothing", "nothing"], "nothing"),
        (vec!["text"; 100_000], "text"),
    ] {
        let refused = named(&names).expect_err("it is named twice");
        assert!(matches!(refused.code, types::FailureCode::InvalidInput));
        let said = format!("the column `{twice}` is asked for twice");
        assert_eq!(refused.message, said);
    }
}
