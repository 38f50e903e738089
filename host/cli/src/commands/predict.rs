//! `sandcast predict`: predictions without a server.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use arrow::{
    datatypes::{DataType, SchemaRef},
    record_batch::RecordBatch,
};
use clap::Args;
use sandcast_access::{Action, Resource};
use sandcast_factory::{InferenceError, ServedModel, Workspace};
use sandcast_serve::ModelSelector;
use serde_json::{Map, Value};

use crate::{
    access::Need,
    arguments::{DeviceArguments, GlobalArguments},
    failure::{Exit, Failure, OrReject as _},
    output::Output,
    state,
    table::Table,
    values,
};

const EXAMPLES: &str = "\
Examples:
  sandcast predict --model credit-risk --input applicants.csv
  sandcast predict --model credit-risk@champion --input applicants.json --json
  echo '{\"age\": 41, \"income\": 38000}' | sandcast predict --model credit-risk --input -

Rows are a CSV file with a header, or JSON: an array of objects, one object, or an object a line.
Columns that the model does not use are left out; an empty field is a missing value. The model runs
in its sandbox, as in training and serving.";

/// The largest input that is read.
const MAX_INPUT_BYTES: u64 = 64 << 20;

/// Predict rows of a file with a registered model
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PredictArguments {
    /// name, name@alias or name@version
    #[arg(short, long)]
    model: ModelSelector,
    /// A .csv or .json file; - reads JSON from stdin
    #[arg(short, long, value_name = "FILE")]
    input: PathBuf,
    #[command(flatten)]
    device: DeviceArguments,
}

impl PredictArguments {
    pub(crate) fn need(&self, global: &GlobalArguments) -> Option<Need> {
        let resource = Resource::model(&self.model.name);
        super::in_state(global, Action::Predict, resource)
    }
}

pub(crate) async fn execute(
    arguments: &PredictArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let workspace = Workspace::open_with(
        &state::nearest(global.state.as_deref())?,
        arguments.device.sandbox(global)?,
    )?;
    let version = super::models::resolve(&workspace, &arguments.model)?;
    let model = ServedModel::load(&workspace, &version)
        .await
        .map_err(rejected_if_asked_wrongly)?;
    let mut rows = read_rows(&arguments.input, model.schema())?;
    leave_out_unknown(&mut rows, model.schema(), output);
    let batch = model.rows_from_json(&rows).or_reject()?;
    let answers = model
        .predict(&batch)
        .await
        .map_err(rejected_if_asked_wrongly)?;
    if output.wants_json() {
        output.json(&serde_json::json!({
            "model": version.model,
            "version": version.version,
            "predictions": as_objects(&answers.rows),
            "recording": answers.recording,
        }))?;
    } else {
        output.note(format_args!(
            "{} version {}",
            version.model, version.version
        ));
        output.line(as_table(model.schema(), &rows, &answers.rows))?;
        if let Some(recording) = answers.recording {
            output.note(format_args!(
                "recorded; `sandcast replay {}` shows it again",
                recording.short()
            ));
        }
    }
    Ok(Exit::Done)
}

fn rejected_if_asked_wrongly(error: InferenceError) -> Failure {
    match error {
        InferenceError::Rows(_)
        | InferenceError::Denied { .. }
        | InferenceError::Conduct { .. }
        | InferenceError::Untrusted { .. }
        | InferenceError::Call(_) => Failure::from(error).into_rejection(),
        error => error.into(),
    }
}

fn read_rows(input: &Path, schema: &SchemaRef) -> Result<Vec<Value>, Failure> {
    let mut text = String::new();
    let read = if input == Path::new("-") {
        io::stdin()
            .lock()
            .take(MAX_INPUT_BYTES + 1)
            .read_to_string(&mut text)
    } else {
        let file = fs::File::open(input).map_err(|error| {
            Failure::rejected_because(
                format_args!("cannot read {}: {error}", input.display()),
                "give a .csv or .json file, or - for JSON on stdin",
            )
        })?;
        file.take(MAX_INPUT_BYTES + 1).read_to_string(&mut text)
    };
    read.or_reject()?;
    if text.len() as u64 > MAX_INPUT_BYTES {
        return Err(Failure::rejected_because(
            format_args!("the input is larger than {MAX_INPUT_BYTES} bytes"),
            "predict it in parts",
        ));
    }
    if input
        .extension()
        .is_some_and(|extension| extension == "csv")
    {
        rows_of_csv(&text, schema)
    } else {
        rows_of_json(&text)
    }
}

/// An array of objects, or one object after the other.
fn rows_of_json(text: &str) -> Result<Vec<Value>, Failure> {
    let mut rows = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        let wrong = |error: serde_json::Error| {
            Failure::rejected_because(
                format_args!("the input is not JSON: {error}"),
                "give an array of objects, one object, or an object a line",
            )
        };
        match value.map_err(wrong)? {
            Value::Array(values) => rows.extend(values),
            value => rows.push(value),
        }
    }
    Ok(rows)
}

/// Fields become numbers and booleans where the model wants them. What does not parse stays text,
/// for the model's own check to name row and column.
fn rows_of_csv(text: &str, schema: &SchemaRef) -> Result<Vec<Value>, Failure> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let headers = reader.headers().or_reject()?.clone();
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.or_reject()?;
        let fields = headers.iter().zip(record.iter()).map(|(name, field)| {
            let kind = schema.field_with_name(name).map(|field| field.data_type());
            (name.to_owned(), value_of_field(field, kind.ok()))
        });
        rows.push(Value::Object(fields.collect::<Map<_, _>>()));
    }
    Ok(rows)
}

fn value_of_field(field: &str, kind: Option<&DataType>) -> Value {
    let text = field.trim();
    if text.is_empty() {
        return Value::Null;
    }
    let parsed = match kind {
        Some(DataType::Int64) => text.parse::<i64>().ok().map(Value::from),
        Some(DataType::Float64) => text.parse::<f64>().ok().map(Value::from),
        Some(DataType::Boolean) => text.parse::<bool>().ok().map(Value::from),
        _ => None,
    };
    parsed.unwrap_or_else(|| Value::from(text))
}

fn leave_out_unknown(rows: &mut [Value], schema: &SchemaRef, output: &Output) {
    let mut unknown: BTreeSet<String> = BTreeSet::new();
    for row in rows.iter_mut().filter_map(Value::as_object_mut) {
        row.retain(|name, _| {
            let known = schema.field_with_name(name).is_ok();
            if !known {
                unknown.insert(name.clone());
            }
            known
        });
    }
    if !unknown.is_empty() {
        let unknown: Vec<String> = unknown.into_iter().collect();
        output.note(format_args!(
            "left out, since the model does not use them: {}",
            unknown.join(", ")
        ));
    }
}

fn as_objects(answers: &RecordBatch) -> Vec<Value> {
    (0..answers.num_rows())
        .map(|row| values::object_at(answers, row))
        .collect()
}

/// The rows as they were given, with the answers at the end.
pub(super) fn as_table(schema: &SchemaRef, rows: &[Value], answers: &RecordBatch) -> Table {
    let given = schema.fields().iter().map(|field| field.name().as_str());
    let given: Vec<&str> = given.collect();
    let answered = answers.schema();
    let answered: Vec<&str> = answered
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    let numbers: Vec<usize> = (0..given.len() + answered.len()).collect();
    let mut table = Table::default().numbers_at(&numbers);
    let heading = |name: &&str| console::style(*name).dim().to_string();
    table.row(given.iter().chain(&answered).map(heading));
    for (row, answer) in rows.iter().zip(as_objects(answers)) {
        let asked = given.iter().map(|name| values::as_text(&row[*name]));
        let said = answered.iter().map(|name| match &answer[*name] {
            Value::Number(number) if number.is_f64() => {
                format!("{:.4}", number.as_f64().unwrap_or_default())
            }
            other => values::as_text(other),
        });
        table.row(asked.chain(said));
    }
    table
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{Field, Schema};

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("age", DataType::Int64, true),
            Field::new("income", DataType::Float64, true),
            Field::new("purpose", DataType::Utf8, true),
        ]))
    }

    #[test]
    fn csv_fields_take_the_types_of_the_model() {
        let rows = rows_of_csv(
            "age,income,purpose,note\n41,38000.5,car,7\n,x,12,\n",
            &schema(),
        )
        .expect("it is a csv file");
        assert_eq!(
            rows,
            [
                serde_json::json!({"age": 41, "income": 38000.5, "purpose": "car", "note": "7"}),
                serde_json::json!({"age": null, "income": "x", "purpose": "12", "note": null}),
            ]
        );
    }

    #[test]
    fn json_may_be_an_array_an_object_or_lines() {
        for text in ["[{\"a\":1},{\"a\":2}]", "{\"a\":1}\n{\"a\":2}\n"] {
            assert_eq!(rows_of_json(text).expect("it is json").len(), 2, "{text}");
        }
        let failure = rows_of_json("{\"a\":").expect_err("it is cut off");
        assert_eq!(failure.exit, Exit::Rejected);
    }
}
