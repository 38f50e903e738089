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

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType};

pub use conform::{ConformError, conform};
pub(crate) use lift::check_fields;

use crate::bindings::adapter::sandcast::plugin::types;
use crate::contract::CONTRACT_VERSION;
use crate::model::{Kind, fields_of};
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

/// Links `sandcast:plugin/data`.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut data = linker.instance(&format!("sandcast:plugin/data@{CONTRACT_VERSION}"))?;
    data.resource("batch", ResourceType::host::<Batch>(), |mut store, rep| {
        let state = store.data_mut();
        let batch: Batch = state.table.delete(Resource::new_own(rep))?;
        state.refund(batch.charged);
        Ok(())
    })?;
    data.resource(
        "dataset",
        ResourceType::host::<Dataset>(),
        |mut store, rep| {
            store
                .data_mut()
                .table
                .delete(Resource::<Dataset>::new_own(rep))?;
            Ok(())
        },
    )?;
    data.func_wrap(
        "[static]batch.from-columns",
        |mut store: StoreContextMut<'_, State>,
         (fields, columns): (Vec<types::Field>, Vec<lift::ColumnIn>)| {
            let state = store.data_mut();
            state.ledger.count("batch.from-columns");
            let bounds = lift::Bounds::of(&state.identity.grants.limits);
            let made = lift::batch(&fields, columns, &bounds);
            Ok((keep(state, made)?,))
        },
    )?;
    data.func_wrap(
        "[static]batch.from-raw-columns",
        |mut store: StoreContextMut<'_, State>,
         (fields, columns): (Vec<types::Field>, Vec<lift::RawColumnIn>)| {
            let state = store.data_mut();
            state.ledger.count("batch.from-raw-columns");
            let bounds = lift::Bounds::of(&state.identity.grants.limits);
            let made = lift::raw_batch(&fields, columns, &bounds);
            Ok((keep(state, made)?,))
        },
    )?;
    data.func_wrap(
        "[method]batch.schema",
        |mut store: StoreContextMut<'_, State>, (batch,): (Resource<Batch>,)| {
            let state = store.data_mut();
            state.ledger.count("batch.schema");
            Ok((fields(&state.table.get(&batch)?.rows.schema())?,))
        },
    )?;
    data.func_wrap(
        "[method]batch.rows",
        |mut store: StoreContextMut<'_, State>, (batch,): (Resource<Batch>,)| {
            let state = store.data_mut();
            state.ledger.count("batch.rows");
            Ok((u32::try_from(state.table.get(&batch)?.rows.num_rows())?,))
        },
    )?;
    data.func_wrap(
        "[method]batch.column",
        |mut store: StoreContextMut<'_, State>, (batch, index): (Resource<Batch>, u32)| {
            let state = store.data_mut();
            state.ledger.count("batch.column");
            state.ledger.saw(|| index.to_le_bytes());
            let column = column_at(&state.table.get(&batch)?.rows, index)
                .and_then(|array| lower::column(array).map_err(internal));
            if let Ok(column) = &column {
                state.ledger.count_bytes_in(column.bytes());
            }
            Ok((column,))
        },
    )?;
    data.func_wrap(
        "[method]batch.raw-column",
        |mut store: StoreContextMut<'_, State>, (batch, index): (Resource<Batch>, u32)| {
            let state = store.data_mut();
            state.ledger.count("batch.raw-column");
            state.ledger.saw(|| index.to_le_bytes());
            let column = column_at(&state.table.get(&batch)?.rows, index)
                .and_then(|array| lower::column(array).map_err(internal))
                .map(lower::ColumnOut::into_raw);
            if let Ok(column) = &column {
                state.ledger.count_bytes_in(column.bytes());
            }
            Ok((column,))
        },
    )?;
    data.func_wrap(
        "[method]dataset.schema",
        |mut store: StoreContextMut<'_, State>, (dataset,): (Resource<Dataset>,)| {
            let state = store.data_mut();
            state.ledger.count("dataset.schema");
            Ok((fields(&state.table.get(&dataset)?.schema)?,))
        },
    )?;
    data.func_wrap(
        "[method]dataset.rows",
        |mut store: StoreContextMut<'_, State>, (dataset,): (Resource<Dataset>,)| {
            let state = store.data_mut();
            state.ledger.count("dataset.rows");
            Ok((state.table.get(&dataset)?.rows,))
        },
    )?;
    data.func_wrap(
        "[method]dataset.batches",
        |mut store: StoreContextMut<'_, State>, (dataset,): (Resource<Dataset>,)| {
            let state = store.data_mut();
            state.ledger.count("dataset.batches");
            Ok((u32::try_from(state.table.get(&dataset)?.batches.len())?,))
        },
    )?;
    data.func_wrap(
        "[method]dataset.read",
        |mut store: StoreContextMut<'_, State>,
         (dataset, index, columns): (Resource<Dataset>, u32, Vec<String>)| {
            let state = store.data_mut();
            state.ledger.count("dataset.read");
            state.ledger.saw(|| format!("{index} {columns:?}"));
            let read = read(state.table.get(&dataset)?, index, &columns);
            Ok((match read {
                Ok(rows) => {
                    state.ledger.count_rows(rows.num_rows());
                    Ok(state.table.push(Batch { rows, charged: 0 })?)
                }
                Err(failure) => Err(failure),
            },))
        },
    )?;
    Ok(())
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
