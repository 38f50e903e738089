//! `sandcast predict`: predictions without a server.

use std::path::PathBuf;

use clap::Args;

use crate::{
    arguments::GlobalArguments,
    failure::{Exit, Failure},
    output::Output,
    state,
};

const EXAMPLES: &str = "\
Examples:
  sandcast predict --model credit-risk --input applicants.csv
  sandcast predict --model credit-risk@champion --input rows.json --json
  echo '[{\"age\": 41, \"income\": 38000}]' | sandcast predict --model credit-risk --input -

Rows are a CSV file with a header, or JSON: an array of objects, one object, or an object a line.
Columns that the model does not use are ignored; one that is absent counts as missing. The model runs
in its sandbox, as in training and serving.";

/// Predict rows of a file with a registered model
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PredictArguments {
    /// name, name@alias or name@version
    #[arg(short, long)]
    model: String,
    /// A .csv or .json file; - reads JSON from stdin
    #[arg(short, long, value_name = "FILE")]
    input: PathBuf,
}

pub(crate) async fn execute(
    arguments: &PredictArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let _ = (
        &arguments.model,
        &arguments.input,
        state::nearest(global.state.as_deref())?,
        output,
    );
    unimplemented!()
}
