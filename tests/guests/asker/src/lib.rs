//! A policy that asks a database what the context of a request says. The reasons of its decision are
//! the columns with their kinds and then the rows, or the failure.

use sandcast_sdk::sql::{self, Parameter};
use sandcast_sdk::{Batch, Column, Decision, Effect, Failure, Policy, Request, Values};
use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {}

#[derive(Debug, Deserialize)]
struct Context {
    connection: String,
    statement: String,
    #[serde(default)]
    parameters: Vec<Value>,
    #[serde(default = "one")]
    times: u32,
}

/// Rows that are told.
const SHOWN: u32 = 20;

fn one() -> u32 {
    1
}

struct Asker;

/// A list is bytes.
fn parameter(value: Value) -> Parameter {
    match value {
        Value::Bool(value) => value.into(),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => whole.into(),
            (None, float) => float.into(),
        },
        Value::String(text) => text.into(),
        Value::Array(bytes) => {
            let byte = |byte: &Value| byte.as_u64().and_then(|byte| u8::try_from(byte).ok());
            Parameter::Bytes(bytes.iter().filter_map(byte).collect())
        }
        Value::Null | Value::Object(_) => Parameter::Null,
    }
}

fn cell(column: &Column, row: usize) -> String {
    let there = column
        .validity
        .as_ref()
        .is_none_or(|bits| bits[row / 8] >> (row % 8) & 1 == 1);
    if !there {
        return "null".to_owned();
    }
    match &column.values {
        Values::Boolean(bits) => (bits[row / 8] >> (row % 8) & 1 == 1).to_string(),
        Values::Int64(values) => values[row].to_string(),
        Values::TimestampUs(values) => format!("{} us", values[row]),
        Values::Float64(values) => format!("{:?}", values[row]),
        Values::Date32(values) => format!("{} d", values[row]),
        Values::Utf8(strings) => {
            let (from, to) = (
                strings.offsets[row] as usize,
                strings.offsets[row + 1] as usize,
            );
            format!("{:?}", String::from_utf8_lossy(&strings.bytes[from..to]))
        }
    }
}

fn told(batch: &Batch) -> Result<Vec<String>, Failure> {
    let fields = batch.schema();
    let names: Vec<String> = fields
        .iter()
        .map(|field| format!("{} {:?}", field.name, field.kind))
        .collect();
    let columns = (0..fields.len() as u32).map(|index| batch.column(index));
    let columns: Vec<Column> = columns.collect::<Result<_, _>>()?;
    let mut reasons = vec![format!("{} rows of {}", batch.rows(), names.join(", "))];
    for row in 0..batch.rows().min(SHOWN) as usize {
        let cells: Vec<String> = columns.iter().map(|column| cell(column, row)).collect();
        reasons.push(cells.join(", "));
    }
    Ok(reasons)
}

impl Policy for Asker {
    type Config = Config;

    fn configure(_: Config) -> Result<Self, Failure> {
        Ok(Self)
    }

    fn decide(&mut self, request: &Request) -> Result<Decision, Failure> {
        let context: Context = serde_json::from_str(&request.context)
            .map_err(|error| Failure::invalid_input(error.to_string()))?;
        let parameters: Vec<Parameter> = context.parameters.into_iter().map(parameter).collect();
        let mut reasons = Vec::new();
        for _ in 0..context.times {
            let answer = sql::query(&context.connection, &context.statement, &parameters)
                .and_then(|batch| told(&batch));
            reasons = match answer {
                Ok(reasons) => reasons,
                Err(failure) => vec![format!("{:?}: {}", failure.code, failure.message)],
            };
        }
        Ok(Decision {
            effect: Effect::Allow,
            reasons,
            obligations: Vec::new(),
        })
    }
}

sandcast_sdk::export_policy!(Asker);
