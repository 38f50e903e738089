//! `sandcast data`: the datasets of a state folder.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::{
    arguments::GlobalArguments,
    failure::{Exit, Failure},
    output::Output,
    state,
};

const EXAMPLES: &str = "\
Examples:
  sandcast data                                     every dataset, with rows and digest
  sandcast data show credit-risk                    schema and sources
  sandcast data profile credit-risk                 per column: missing, distinct, range, mean
  sandcast data quarantine branch                   the rows that were put aside, with reasons
  sandcast data head credit-risk -n 5
  sandcast data export credit-risk out.csv          or out.parquet";

/// List datasets, look into them, read their quarantine, export them
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DataArguments {
    #[command(subcommand)]
    action: Option<DataAction>,
}

#[derive(Debug, Subcommand)]
enum DataAction {
    /// List them
    List,
    /// Schema, rows, digest and sources of one
    Show {
        /// A name, or the beginning of a digest
        dataset: String,
    },
    /// What each column holds
    Profile {
        /// A name, or the beginning of a digest
        dataset: String,
    },
    /// The rows that were put aside, with the reason of each
    Quarantine {
        /// A name, or the beginning of a digest
        dataset: String,
        /// Show only this reason
        #[arg(long)]
        reason: Option<String>,
        /// At most so many rows
        #[arg(short = 'n', long, default_value_t = 20)]
        rows: usize,
    },
    /// The first rows
    Head {
        /// A name, or the beginning of a digest
        dataset: String,
        /// So many rows
        #[arg(short = 'n', long, default_value_t = 10)]
        rows: usize,
    },
    /// Write one to a file
    Export {
        /// A name, or the beginning of a digest
        dataset: String,
        /// A .csv or .parquet file
        file: PathBuf,
    },
}

pub(crate) async fn execute(
    arguments: &DataArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let _ = (
        &arguments.action,
        state::nearest(global.state.as_deref())?,
        output,
    );
    unimplemented!()
}
