//! Columns between Arrow and guests: the host's side of the contract's `data`.
//!
//! The interface is linked by hand, so that a column is copied once: see [`list`]. What goes to
//! a guest is made in [`lower`], what comes back is checked in [`lift`].

mod conform;
pub(crate) mod lift;
pub(crate) mod list;
pub(crate) mod lower;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, LinkerInstance, Resource, ResourceType};

pub use conform::{ConformError, conform};
pub(crate) use lift::check_fields;

use crate::bindings::adapter::sandcast::plugin::types;
use crate::contract::CONTRACT_VERSION;
use crate::model::{Kind, fields_of};
use crate::process::{Halt, Reader, Wire, away};
use crate::state::State;

/// Rows with a schema, in a guest's hands.
#[derive(Clone, Debug)]
#[expect(
    unreachable_pub,
    reason = "generated code re-exports it under its name in the contract"
)]
pub struct Batch {
    pub(crate) rows: RecordBatch,
    /// Bytes charged to the guest's memory; 0 for a batch lent by the host.
    pub(crate) charged: usize,
}

impl Batch {
    /// Lends a batch to a guest. Types that the contract does not know are converted to those
    /// that it does.
    pub(crate) fn lend(rows: &RecordBatch) -> Result<Self, ConformError> {
        let rows = conform(rows)?;
        if u32::try_from(rows.num_rows()).is_err() {
            return Err(ConformError::TooManyRows {
                rows: rows.num_rows(),
            });
        }
        Ok(Self { rows, charged: 0 })
    }
}

/// Many batches of one schema, in a guest's hands.
#[derive(Clone, Debug)]
#[expect(
    unreachable_pub,
    reason = "generated code re-exports it under its name in the contract"
)]
pub struct Dataset {
    pub(crate) schema: SchemaRef,
    pub(crate) batches: Arc<[RecordBatch]>,
    pub(crate) rows: u64,
}

impl Dataset {
    /// Lends batches of one schema. Types that the contract does not know are converted.
    pub(crate) fn lend(batches: &[RecordBatch]) -> Result<Self, ConformError> {
        let batches = batches.iter().map(conform).collect::<Result<Vec<_>, _>>()?;
        let Some(first) = batches.first() else {
            return Err(ConformError::Empty);
        };
        let schema = first.schema();
        if let Some(other) = batches
            .iter()
            .find(|batch| batch.schema().fields() != schema.fields())
        {
            return Err(ConformError::SchemasDiffer {
                first: format!("{:?}", column_names(&schema)),
                other: format!("{:?}", column_names(&other.schema())),
            });
        }
        if let Some(batch) = batches
            .iter()
            .find(|batch| u32::try_from(batch.num_rows()).is_err())
        {
            return Err(ConformError::TooManyRows {
                rows: batch.num_rows(),
            });
        }
        let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        Ok(Self {
            schema,
            batches: batches.into(),
            rows,
        })
    }
}

fn column_names(schema: &SchemaRef) -> Vec<&str> {
    schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect()
}

/// The functions of `sandcast:plugin/data`: linked, for guests here; linked to a pipe, for those in
/// processes of their own; and answered, where such a process asks.
macro_rules! functions {
    ($($path:literal $name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        fn link_functions(data: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
            $(data.func_wrap(
                $path,
                |mut store: StoreContextMut<'_, State>, ($($argument,)*): ($($type,)*)| {
                    Ok(($name(store.data_mut(), $($argument),*)?,))
                },
            )?;)*
            Ok(())
        }

        fn link_functions_apart(data: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
            $(data.func_wrap(
                $path,
                |mut store: StoreContextMut<'_, State>, ($($argument,)*): ($($type,)*)| {
                    let put = |to: &mut Vec<u8>| {
                        $(Wire::put(&$argument, to);)*
                    };
                    let answer: $answer = away::ask(store.data_mut(), $path, put)?;
                    Ok((answer,))
                },
            )?;)*
            Ok(())
        }

        /// Answers a guest in another process; not at all where the function is another's.
        pub(crate) fn answer(
            state: &mut State,
            name: &str,
            from: &mut Reader<'_>,
            to: &mut Vec<u8>,
        ) -> Result<bool, Halt> {
            match name {
                $($path => {
                    $(let $argument = Wire::take(from)?;)*
                    from.end()?;
                    $name(state, $($argument),*)?.put(to);
                })*
                BATCH_DROP => drop_batch(state, Wire::take(from)?)?,
                DATASET_DROP => drop_dataset(state, Wire::take(from)?)?,
                _ => return Ok(false),
            }
            Ok(true)
        }
    };
}

functions! {
    "[static]batch.from-columns" from_columns(fields: Vec<types::Field>, columns: Vec<lift::ColumnIn>) -> Made;
    "[static]batch.from-raw-columns" from_raw_columns(fields: Vec<types::Field>, columns: Vec<lift::RawColumnIn>) -> Made;
    "[method]batch.schema" batch_schema(batch: Resource<Batch>) -> Vec<types::Field>;
    "[method]batch.rows" batch_rows(batch: Resource<Batch>) -> u32;
    "[method]batch.column" batch_column(batch: Resource<Batch>, index: u32) -> Result<lower::ColumnOut, types::Failure>;
    "[method]batch.raw-column" batch_raw_column(batch: Resource<Batch>, index: u32) -> Result<lower::RawColumnOut, types::Failure>;
    "[method]dataset.schema" dataset_schema(dataset: Resource<Dataset>) -> Vec<types::Field>;
    "[method]dataset.rows" dataset_rows(dataset: Resource<Dataset>) -> u64;
    "[method]dataset.batches" dataset_batches(dataset: Resource<Dataset>) -> u32;
    "[method]dataset.read" dataset_read(dataset: Resource<Dataset>, index: u32, columns: Vec<String>) -> Made;
}

/// A batch for a guest.
type Made = Result<Resource<Batch>, types::Failure>;

const BATCH_DROP: &str = "batch.drop";
const DATASET_DROP: &str = "dataset.drop";

/// Links `sandcast:plugin/data`.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut data = linker.instance(&format!("sandcast:plugin/data@{CONTRACT_VERSION}"))?;
    data.resource("batch", ResourceType::host::<Batch>(), |mut store, rep| {
        drop_batch(store.data_mut(), Resource::new_own(rep))
    })?;
    let dataset = ResourceType::host::<Dataset>();
    data.resource("dataset", dataset, |mut store, rep| {
        drop_dataset(store.data_mut(), Resource::new_own(rep))
    })?;
    link_functions(&mut data)
}

/// Links it for a guest in a process of its own: what it asks for goes over the pipe.
pub(crate) fn link_apart(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut data = linker.instance(&format!("sandcast:plugin/data@{CONTRACT_VERSION}"))?;
    data.resource("batch", ResourceType::host::<Batch>(), |mut store, rep| {
        away::let_go(store.data_mut(), BATCH_DROP, rep)
    })?;
    let dataset = ResourceType::host::<Dataset>();
    data.resource("dataset", dataset, |mut store, rep| {
        away::let_go(store.data_mut(), DATASET_DROP, rep)
    })?;
    link_functions_apart(&mut data)
}

fn drop_batch(state: &mut State, batch: Resource<Batch>) -> wasmtime::Result<()> {
    let batch = state.table.delete(batch)?;
    state.refund(batch.charged);
    Ok(())
}

fn drop_dataset(state: &mut State, dataset: Resource<Dataset>) -> wasmtime::Result<()> {
    state.table.delete(dataset)?;
    Ok(())
}

fn from_columns(
    state: &mut State,
    fields: Vec<types::Field>,
    columns: Vec<lift::ColumnIn>,
) -> wasmtime::Result<Made> {
    state.ledger.count("batch.from-columns");
    let bounds = lift::Bounds::of(&state.identity.grants.limits);
    let made = lift::batch(&fields, columns, &bounds);
    keep(state, made)
}

fn from_raw_columns(
    state: &mut State,
    fields: Vec<types::Field>,
    columns: Vec<lift::RawColumnIn>,
) -> wasmtime::Result<Made> {
    state.ledger.count("batch.from-raw-columns");
    let bounds = lift::Bounds::of(&state.identity.grants.limits);
    let made = lift::raw_batch(&fields, columns, &bounds);
    keep(state, made)
}

fn batch_schema(state: &mut State, batch: Resource<Batch>) -> wasmtime::Result<Vec<types::Field>> {
    state.ledger.count("batch.schema");
    fields(&state.table.get(&batch)?.rows.schema())
}

fn batch_rows(state: &mut State, batch: Resource<Batch>) -> wasmtime::Result<u32> {
    state.ledger.count("batch.rows");
    Ok(u32::try_from(state.table.get(&batch)?.rows.num_rows())?)
}

fn batch_column(
    state: &mut State,
    batch: Resource<Batch>,
    index: u32,
) -> wasmtime::Result<Result<lower::ColumnOut, types::Failure>> {
    state.ledger.count("batch.column");
    state.ledger.saw(|| index.to_le_bytes());
    let column = column_at(&state.table.get(&batch)?.rows, index)
        .and_then(|array| lower::column(array).map_err(internal));
    if let Ok(column) = &column {
        state.ledger.count_bytes_in(column.bytes());
    }
    Ok(column)
}

fn batch_raw_column(
    state: &mut State,
    batch: Resource<Batch>,
    index: u32,
) -> wasmtime::Result<Result<lower::RawColumnOut, types::Failure>> {
    state.ledger.count("batch.raw-column");
    state.ledger.saw(|| index.to_le_bytes());
    let column = column_at(&state.table.get(&batch)?.rows, index)
        .and_then(|array| lower::column(array).map_err(internal))
        .map(lower::ColumnOut::into_raw);
    if let Ok(column) = &column {
        state.ledger.count_bytes_in(column.bytes());
    }
    Ok(column)
}

fn dataset_schema(
    state: &mut State,
    dataset: Resource<Dataset>,
) -> wasmtime::Result<Vec<types::Field>> {
    state.ledger.count("dataset.schema");
    fields(&state.table.get(&dataset)?.schema)
}

fn dataset_rows(state: &mut State, dataset: Resource<Dataset>) -> wasmtime::Result<u64> {
    state.ledger.count("dataset.rows");
    Ok(state.table.get(&dataset)?.rows)
}

fn dataset_batches(state: &mut State, dataset: Resource<Dataset>) -> wasmtime::Result<u32> {
    state.ledger.count("dataset.batches");
    Ok(u32::try_from(state.table.get(&dataset)?.batches.len())?)
}

fn dataset_read(
    state: &mut State,
    dataset: Resource<Dataset>,
    index: u32,
    columns: Vec<String>,
) -> wasmtime::Result<Made> {
    state.ledger.count("dataset.read");
    state.ledger.saw(|| format!("{index} {columns:?}"));
    let read = read(state.table.get(&dataset)?, index, &columns);
    Ok(match read {
        Ok(rows) => {
            state.ledger.count_rows(rows.num_rows());
            Ok(state.table.push(Batch { rows, charged: 0 })?)
        }
        Err(failure) => Err(failure),
    })
}

/// Puts a batch that the guest has made into the table and charges its bytes.
fn keep(
    state: &mut State,
    made: Result<RecordBatch, lift::Malformed>,
) -> wasmtime::Result<Result<Resource<Batch>, types::Failure>> {
    let rows = match made {
        Ok(rows) => rows,
        Err(malformed) => return Ok(Err(invalid(malformed.to_string()))),
    };
    let bytes = rows.get_array_memory_size();
    state.ledger.count_bytes_out(bytes);
    state.ledger.count_rows(rows.num_rows());
    if let Err(failure) = state.charge(bytes) {
        return Ok(Err(failure));
    }
    Ok(Ok(state.table.push(Batch {
        rows,
        charged: bytes,
    })?))
}

fn fields(schema: &SchemaRef) -> wasmtime::Result<Vec<types::Field>> {
    let fields = fields_of(schema).map_err(|(column, data_type)| {
        wasmtime::Error::msg(format!(
            "column `{column}` is {data_type}, which plugins do not know"
        ))
    })?;
    Ok(fields.into_iter().map(types::Field::from).collect())
}

fn column_at(rows: &RecordBatch, index: u32) -> Result<&arrow::array::ArrayRef, types::Failure> {
    rows.columns().get(index as usize).ok_or_else(|| {
        invalid(format!(
            "there is no column {index}; the batch has {}",
            rows.num_columns()
        ))
    })
}

fn read(dataset: &Dataset, index: u32, columns: &[String]) -> Result<RecordBatch, types::Failure> {
    let batch = dataset.batches.get(index as usize).ok_or_else(|| {
        invalid(format!(
            "there is no batch {index}; the dataset has {}",
            dataset.batches.len()
        ))
    })?;
    select(batch, columns).map_err(invalid)
}

/// The named columns of a batch, in that order.
pub(crate) fn select(batch: &RecordBatch, columns: &[String]) -> Result<RecordBatch, String> {
    let schema = batch.schema();
    // A name more than once would be a column that nobody pays for.
    let mut named = HashSet::new();
    if let Some(twice) = columns.iter().find(|name| !named.insert(name.as_str())) {
        let name = crate::text::sentence(twice, 64);
        return Err(format!("the column `{name}` is asked for twice"));
    }
    let places = columns
        .iter()
        .map(|name| {
            schema.index_of(name).map_err(|_| {
                format!(
                    "there is no column `{name}`; there are {:?}",
                    column_names(&schema)
                )
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let projected = schema.project(&places).map_err(|error| error.to_string())?;
    let arrays = places
        .iter()
        .map(|place| Arc::clone(batch.column(*place)))
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(projected), arrays, &options)
        .map_err(|error| error.to_string())
}

fn invalid(message: impl Into<String>) -> types::Failure {
    types::Failure {
        code: types::FailureCode::InvalidInput,
        message: message.into(),
        hint: None,
    }
}

fn internal(message: String) -> types::Failure {
    types::Failure {
        code: types::FailureCode::Internal,
        message,
        hint: None,
    }
}

impl From<crate::model::Field> for types::Field {
    fn from(field: crate::model::Field) -> Self {
        Self {
            name: field.name,
            kind: field.kind.into(),
            nullable: field.nullable,
        }
    }
}

impl From<types::Field> for crate::model::Field {
    fn from(field: types::Field) -> Self {
        Self {
            name: field.name,
            kind: field.kind.into(),
            nullable: field.nullable,
        }
    }
}

impl From<Kind> for types::Kind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Boolean => types::Kind::Boolean,
            Kind::Int64 => types::Kind::Int64,
            Kind::Float64 => types::Kind::Float64,
            Kind::Utf8 => types::Kind::Utf8,
            Kind::Date32 => types::Kind::Date32,
            Kind::TimestampUs => types::Kind::TimestampUs,
        }
    }
}

impl From<types::Kind> for Kind {
    fn from(kind: types::Kind) -> Self {
        match kind {
            types::Kind::Boolean => Kind::Boolean,
            types::Kind::Int64 => Kind::Int64,
            types::Kind::Float64 => Kind::Float64,
            types::Kind::Utf8 => Kind::Utf8,
            types::Kind::Date32 => Kind::Date32,
            types::Kind::TimestampUs => Kind::TimestampUs,
        }
    }
}
