//! `sandcast data`: the datasets of a state folder.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use clap::{Args, Subcommand};
use console::style;
use futures::StreamExt as _;
use parquet::arrow::ArrowWriter;
use sandcast_access::{Action, Resource};
use sandcast_estate::{BlobRef, Dataset, Profile};
use sandcast_factory::{DatasetRecord, Workspace};
use serde_json::Value;

use crate::{
    access::Need,
    arguments::GlobalArguments,
    failure::{Exit, Failure},
    output::Output,
    state,
    table::{Table, bytes, count, decimal},
    values,
};

use super::build::shown;

const EXAMPLES: &str = "\
Examples:
  sandcast data                                     every dataset, with rows and digest
  sandcast data show branch                         schema and sources
  sandcast data profile branch                      per column: missing, distinct, range, mean
  sandcast data quarantine branch                   the rows that were put aside, with reasons
  sandcast data quarantine validate                 the same of the last validation
  sandcast data quarantine branch --reason bad-type -n 5
  sandcast data head branch -n 5
  sandcast data export branch out.csv               or out.parquet

A dataset is named as in the list: by its name, its stage or the beginning of its digest. Of several
the latest is meant.";

/// The longest cell that is shown whole.
const CELL_CHARACTERS: usize = 60;

/// List datasets, look into them, read their quarantine, export them
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DataArguments {
    #[command(subcommand)]
    action: Option<DataAction>,
}

#[derive(Debug, Subcommand)]
enum DataAction {
    /// List them, the latest first
    List,
    /// Schema, rows, digest and sources of one
    Show {
        /// A name, a stage, or the beginning of a digest
        dataset: String,
    },
    /// What each column holds
    Profile {
        /// A name, a stage, or the beginning of a digest
        dataset: String,
    },
    /// The rows that were put aside, with the reason of each
    Quarantine {
        /// A name, a stage, or the beginning of a digest
        dataset: String,
        /// Only rows with this reason
        #[arg(long)]
        reason: Option<String>,
        /// At most so many rows
        #[arg(short = 'n', long, default_value_t = 20)]
        rows: usize,
    },
    /// The first rows
    Head {
        /// A name, a stage, or the beginning of a digest
        dataset: String,
        /// So many rows
        #[arg(short = 'n', long, default_value_t = 10)]
        rows: usize,
    },
    /// Write one to a file
    Export {
        /// A name, a stage, or the beginning of a digest
        dataset: String,
        /// A .csv or .parquet file
        file: PathBuf,
    },
}

impl DataArguments {
    pub(crate) fn need(&self, global: &GlobalArguments) -> Option<Need> {
        let action = match self.action {
            None
            | Some(DataAction::List | DataAction::Show { .. } | DataAction::Profile { .. }) => {
                Action::Inspect
            }
            Some(_) => Action::DataRead,
        };
        super::in_state(global, action, Resource::state())
    }
}

pub(crate) async fn execute(
    arguments: &DataArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let workspace = Workspace::open(&state::nearest(global.state.as_deref())?)?;
    let records = workspace.datasets()?;
    match arguments.action.as_ref().unwrap_or(&DataAction::List) {
        DataAction::List => list(&records, output)?,
        DataAction::Show { dataset } => show(find(&records, dataset)?, output)?,
        DataAction::Profile { dataset } => {
            let dataset = &find(&records, dataset)?.dataset;
            profile(&workspace.estate().profile(dataset, None).await?, output)?;
        }
        DataAction::Quarantine {
            dataset,
            reason,
            rows,
        } => {
            let dataset = &find(&records, dataset)?.dataset;
            quarantine(&workspace, dataset, reason.as_deref(), *rows, output).await?;
        }
        DataAction::Head { dataset, rows } => {
            let dataset = &find(&records, dataset)?.dataset;
            let first = first_rows(&workspace, &dataset.blobs, *rows, |_| true).await?;
            show_rows(&dataset.schema, &first, output)?;
        }
        DataAction::Export { dataset, file } => {
            export(&workspace, &find(&records, dataset)?.dataset, file).await?;
            output.note(format_args!("wrote {}", shown(file)));
        }
    }
    Ok(Exit::Done)
}

fn find<'a>(records: &'a [DatasetRecord], wanted: &str) -> Result<&'a DatasetRecord, Failure> {
    let named = |record: &&DatasetRecord| record.dataset.name == wanted || record.stage == wanted;
    let digest = |record: &&DatasetRecord| {
        wanted.len() >= 4 && record.dataset.digest.to_string().starts_with(wanted)
    };
    let found = records
        .iter()
        .find(named)
        .or_else(|| records.iter().find(digest));
    found.ok_or_else(|| {
        let names: Vec<&str> = records
            .iter()
            .map(|record| record.dataset.name.as_str())
            .collect();
        let help = if names.is_empty() {
            "there is none yet; `sandcast run` makes them".to_owned()
        } else {
            format!("there are {}", names.join(", "))
        };
        Failure::rejected_because(format_args!("there is no dataset `{wanted}`"), help)
    })
}

fn list(records: &[DatasetRecord], output: &Output) -> Result<(), Failure> {
    if output.wants_json() {
        return output.json(&records);
    }
    if records.is_empty() {
        output.note("there is no dataset yet; `sandcast run` makes them");
        return Ok(());
    }
    let headings = [
        "dataset",
        "rows",
        "set aside",
        "size",
        "digest",
        "stage",
        "run",
    ];
    let mut table = Table::with_headings(headings).numbers_at(&[1, 2, 3]);
    for record in records {
        let dataset = &record.dataset;
        table.row([
            dataset.name.clone(),
            count(dataset.rows),
            count(dataset.quarantine.rows),
            bytes(dataset.bytes),
            dataset.digest.short(),
            record.stage.clone(),
            record.run.to_string(),
        ]);
    }
    output.line(table)?;
    Ok(())
}

fn show(record: &DatasetRecord, output: &Output) -> Result<(), Failure> {
    if output.wants_json() {
        return output.json(record);
    }
    let dataset = &record.dataset;
    output.line(format_args!(
        "{}  {} rows, {} set aside, {}\n  digest {}\n  by {} of {} in run {}",
        style(&dataset.name).bold(),
        count(dataset.rows),
        count(dataset.quarantine.rows),
        bytes(dataset.bytes),
        dataset.digest,
        record.stage,
        record.pipeline,
        record.run
    ))?;
    for source in &dataset.sources {
        for split in &source.splits {
            output.line(format_args!(
                "  from {} {}: {} rows, {} rejected, by {} {} ({})",
                source.name,
                split.id,
                count(split.rows),
                count(split.rejected),
                source.plugin.id,
                source.plugin.version,
                source.plugin.digest.short()
            ))?;
        }
    }
    for (reason, rows) in &dataset.quarantine.reasons {
        output.line(format_args!("  set aside {}: {reason}", count(*rows)))?;
    }
    output.line("")?;
    let mut columns = Table::with_headings(["column", "type", ""]);
    for field in dataset.schema.fields() {
        let nullable = if field.is_nullable() {
            "may be missing"
        } else {
            "always there"
        };
        columns.row([
            field.name().clone(),
            field.data_type().to_string(),
            nullable.to_owned(),
        ]);
    }
    output.line(columns)?;
    if let Some(sql) = &dataset.sql {
        output.line(format_args!("\n{}", sql.trim_end()))?;
    }
    Ok(())
}

fn profile(profile: &Profile, output: &Output) -> Result<(), Failure> {
    if output.wants_json() {
        return output.json(profile);
    }
    let headings = [
        "column",
        "values",
        "missing",
        "distinct",
        "least",
        "greatest",
        "mean",
        "std",
        "most frequent",
    ];
    let mut table = Table::with_headings(headings).numbers_at(&[1, 2, 3, 4, 5, 6, 7]);
    for column in &profile.columns {
        let about = if column.distinct_exact { "" } else { "~" };
        let top: Vec<String> = column
            .top
            .iter()
            .take(3)
            .map(|value| format!("{} ({})", cut(&value.value, 20), count(value.count)))
            .collect();
        table.row([
            column.name.clone(),
            count(column.count),
            count(column.nulls),
            format!("{about}{}", count(column.distinct)),
            cut(column.min.as_deref().unwrap_or("–"), 20),
            cut(column.max.as_deref().unwrap_or("–"), 20),
            decimal(column.numbers.as_ref().map(|numbers| numbers.mean)),
            decimal(column.numbers.as_ref().map(|numbers| numbers.std)),
            top.join(", "),
        ]);
    }
    output.line(format_args!("{} rows\n{table}", count(profile.rows)))?;
    Ok(())
}

async fn quarantine(
    workspace: &Workspace,
    dataset: &Dataset,
    reason: Option<&str>,
    rows: usize,
    output: &Output,
) -> Result<(), Failure> {
    let blobs = &dataset.quarantine.blobs;
    let wanted = |row: &Value| {
        reason.is_none_or(|reason| {
            row["reason"] == reason
                || row["quarantine.rules"]
                    .as_array()
                    .is_some_and(|rules| rules.iter().any(|rule| rule == reason))
        })
    };
    let first = first_rows(workspace, blobs, rows, wanted).await?;
    if !output.wants_json() {
        output.note(format_args!(
            "{} rows were set aside",
            count(dataset.quarantine.rows)
        ));
    }
    let schema = match workspace.estate().stream_blobs(blobs).next().await {
        Some(batch) => batch?.schema(),
        None => dataset.schema.clone(),
    };
    show_rows(&schema, &first, output)
}

/// The first rows that are wanted, as JSON objects.
async fn first_rows(
    workspace: &Workspace,
    blobs: &[BlobRef],
    rows: usize,
    wanted: impl Fn(&Value) -> bool,
) -> Result<Vec<Value>, Failure> {
    let mut found = Vec::new();
    let mut batches = workspace.estate().stream_blobs(blobs);
    while found.len() < rows {
        let Some(batch) = batches.next().await else {
            break;
        };
        let batch = batch?;
        let objects = (0..batch.num_rows()).map(|row| values::object_at(&batch, row));
        let missing = rows - found.len();
        found.extend(objects.filter(|row| wanted(row)).take(missing));
    }
    Ok(found)
}

fn show_rows(schema: &SchemaRef, rows: &[Value], output: &Output) -> Result<(), Failure> {
    if output.wants_json() {
        return output.json(&rows);
    }
    // A column in which nothing stands would only widen the table.
    let mut names: Vec<&str> = schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .filter(|name| rows.is_empty() || rows.iter().any(|row| !row[*name].is_null()))
        .collect();
    // Why a row was put aside is what one looks for; the rest of it comes after.
    names.sort_by_key(|name| !name.starts_with("quarantine."));
    let numbers: Vec<usize> = names
        .iter()
        .enumerate()
        .filter(|(_, name)| rows.iter().any(|row| row[**name].is_number()))
        .map(|(place, _)| place)
        .collect();
    let mut table = Table::default().numbers_at(&numbers);
    table.row(names.iter().map(|name| style(*name).dim().to_string()));
    for row in rows {
        table.row(
            names
                .iter()
                .map(|name| cut(&values::as_text(&row[*name]), CELL_CHARACTERS)),
        );
    }
    output.line(table)?;
    Ok(())
}

/// Text on one line, cut to so many characters.
fn cut(text: &str, characters: usize) -> String {
    let line = text.replace(['\n', '\r', '\t'], " ");
    if line.chars().count() <= characters {
        return line;
    }
    let kept: String = line.chars().take(characters.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// Writes beside the file first, so that a failure leaves nothing half-written in its place.
async fn export(workspace: &Workspace, dataset: &Dataset, file: &Path) -> Result<(), Failure> {
    let beside = file.with_added_extension("partial");
    let written = match file.extension().and_then(|extension| extension.to_str()) {
        Some("csv") => export_csv(workspace, dataset, &beside).await,
        Some("parquet") => export_parquet(workspace, dataset, &beside).await,
        _ => {
            return Err(Failure::rejected_because(
                format_args!("cannot tell the format of {}", file.display()),
                "end its name in .csv or .parquet",
            ));
        }
    };
    if written.is_err() {
        // The error that led here is the one to tell.
        let _ = std::fs::remove_file(&beside);
    }
    written?;
    std::fs::rename(&beside, file)?;
    Ok(())
}

async fn export_csv(workspace: &Workspace, dataset: &Dataset, file: &Path) -> Result<(), Failure> {
    let mut writer = csv::Writer::from_writer(BufWriter::new(File::create(file)?));
    writer.write_record(dataset.schema.fields().iter().map(|field| field.name()))?;
    let mut batches = workspace.estate().stream(dataset);
    while let Some(batch) = batches.next().await {
        write_csv(&mut writer, &batch?)?;
    }
    writer.flush()?;
    Ok(())
}

fn write_csv<W: std::io::Write>(
    writer: &mut csv::Writer<W>,
    batch: &RecordBatch,
) -> Result<(), Failure> {
    for row in 0..batch.num_rows() {
        let fields = batch
            .columns()
            .iter()
            .map(|column| match values::value_at(column, row) {
                Value::Null => String::new(),
                Value::String(text) => text,
                value => value.to_string(),
            });
        writer.write_record(fields)?;
    }
    Ok(())
}

async fn export_parquet(
    workspace: &Workspace,
    dataset: &Dataset,
    file: &Path,
) -> Result<(), Failure> {
    let out = BufWriter::new(File::create(file)?);
    let mut writer = ArrowWriter::try_new(out, dataset.schema.clone(), None)?;
    let mut batches = workspace.estate().stream(dataset);
    while let Some(batch) = batches.next().await {
        writer.write(&batch?)?;
    }
    writer.into_inner()?.flush()?;
    Ok(())
}
