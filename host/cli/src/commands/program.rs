//! `sandcast program`: the tensor program of a model, written down, drawn and priced.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand, ValueEnum};
use sandcast_access::{Action, Resource};
use sandcast_factory::{DeclareError, Pipeline, PlanError, Workspace};
use sandcast_kernels::{
    Caps, Cost, Program,
    show::{Listing, Showing, Stage},
};
use sandcast_sandbox::{Declaration, Graph, Model, ModelError};
use sandcast_serve::ModelSelector;
use serde::Serialize;

use crate::{
    access::Need,
    arguments::GlobalArguments,
    failure::{Exit, Failure, OrReject as _},
    output::Output,
    state,
    table::{Table, bytes, count},
};

use super::build::shown;

const EXAMPLES: &str = "\
Examples:
  sandcast program show credit-risk                     the graph behind the champion
  sandcast program show credit-risk@2 --stage values    what it became: simpler, each value once
  sandcast program show credit-risk --stage plan --rows 1000
  sandcast program show credit-risk --stage values --entry loss --output step.svg
  sandcast program show examples/credit-risk            what its adapter would train
  sandcast program show graph.json --format mermaid
  sandcast program cost credit-risk --rows 1,128,8192

A program is shown as it was declared (graph), as the simpler values that run and their gradient
(values), or as the instructions for so many rows: what is fused, and where everything lies (plan).
A pipeline must have been run as far as its validation, since its rows say what columns there are.";

/// The largest file that is read.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// Show the tensor program of a model, draw it, or say what it costs
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ProgramArguments {
    #[command(subcommand)]
    action: ProgramAction,
}

#[derive(Debug, Subcommand)]
enum ProgramAction {
    /// Write it down, or draw it
    Show(ShowArguments),
    /// What each entry costs: operations, bytes moved, bytes at the peak
    Cost(CostArguments),
}

impl ProgramArguments {
    /// The state that is looked into: that of a pipeline, or the one that models are in.
    pub(crate) fn need(&self, global: &GlobalArguments) -> Option<Need> {
        let what = match &self.action {
            ProgramAction::Show(arguments) => &arguments.what,
            ProgramAction::Cost(arguments) => &arguments.what,
        };
        let (action, resource) = (Action::Inspect, Resource::state());
        match Meant::by(what) {
            Meant::Pipeline(path) => {
                let folder = state::beside(path, global.state.as_deref());
                Some(Need::new(folder, action, resource))
            }
            Meant::File(_) => None,
            Meant::Model => super::in_state(global, action, resource),
        }
    }
}

/// What a word stands for.
enum Meant<'a> {
    Pipeline(&'a Path),
    File(&'a Path),
    Model,
}

impl<'a> Meant<'a> {
    fn by(what: &'a str) -> Self {
        let path = Path::new(what);
        let ending = path.extension();
        if path.is_dir() || ending.is_some_and(|ending| ending == "yaml" || ending == "yml") {
            Self::Pipeline(path)
        } else if path.is_file() {
            Self::File(path)
        } else {
            Self::Model
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct ShowArguments {
    /// A model, as name, name@alias or name@version; a pipeline file or its folder; a graph as
    /// JSON; or a model file
    what: String,
    /// Only this entry; loss is one training step
    #[arg(short, long)]
    entry: Option<String>,
    /// Which form
    #[arg(short, long, value_enum, default_value = "graph")]
    stage: StageArgument,
    /// The plan for so many rows [default: the most there may be]
    #[arg(long, value_name = "N")]
    rows: Option<usize>,
    /// The plan for so much of another symbol, such as time=128; may be repeated
    #[arg(long, value_name = "SYMBOL=N", value_parser = extent)]
    extent: Vec<(String, usize)>,
    /// How [default: by the ending of --output, else text]
    #[arg(short, long, value_enum)]
    format: Option<Format>,
    /// Write it to this file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct CostArguments {
    /// A model, as name, name@alias or name@version; a pipeline file or its folder; a graph as
    /// JSON; or a model file
    what: String,
    /// Only this entry; loss is one training step
    #[arg(short, long)]
    entry: Option<String>,
    /// At these numbers of rows [default: the most there may be]
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    rows: Vec<usize>,
    /// At so much of another symbol, such as time=128; may be repeated
    #[arg(long, value_name = "SYMBOL=N", value_parser = extent)]
    extent: Vec<(String, usize)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StageArgument {
    /// As it was declared
    Graph,
    /// The values that run, and those of the gradient
    Values,
    /// The instructions for given extents
    Plan,
}

impl From<StageArgument> for Stage {
    fn from(stage: StageArgument) -> Stage {
        match stage {
            StageArgument::Graph => Stage::Graph,
            StageArgument::Values => Stage::Values,
            StageArgument::Plan => Stage::Plan,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs; of a whole graph, a file that this command reads
    Json,
    /// For Graphviz
    Dot,
    /// A picture
    Svg,
    /// For viewers of Markdown
    Mermaid,
}

fn extent(text: &str) -> Result<(String, usize), String> {
    let (symbol, value) = text
        .split_once('=')
        .ok_or_else(|| "give a symbol and a number, such as time=128".to_owned())?;
    let value = value
        .parse()
        .map_err(|_| format!("`{value}` is not a number"))?;
    Ok((symbol.to_owned(), value))
}

pub(crate) async fn execute(
    arguments: &ProgramArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    match &arguments.action {
        ProgramAction::Show(arguments) => {
            let program = compiled(&arguments.what, global).await?;
            show(&program, arguments, output)?;
        }
        ProgramAction::Cost(arguments) => {
            let program = compiled(&arguments.what, global).await?;
            cost(&program, arguments, output)?;
        }
    }
    Ok(Exit::Done)
}

/// The program that a word means.
async fn compiled(what: &str, global: &GlobalArguments) -> Result<Program, Failure> {
    let graph = graph(what, global).await?;
    Program::compile(graph, &Caps::default()).map_err(|diagnostic| {
        Failure::rejected_because(
            format_args!("the graph of {what} is refused: {diagnostic}"),
            "nodes are counted from 0, in the order in which they are declared",
        )
    })
}

async fn graph(what: &str, global: &GlobalArguments) -> Result<Graph, Failure> {
    match Meant::by(what) {
        Meant::Pipeline(path) => return of_pipeline(path, global).await,
        Meant::File(path) => return of_file(path),
        Meant::Model => {}
    }
    let unknown = || {
        Failure::rejected_because(
            format_args!("`{what}` is neither a file, nor a pipeline, nor a model"),
            "`sandcast models` lists the models there are",
        )
    };
    let selector: ModelSelector = what.parse().map_err(|_| unknown())?;
    let workspace = Workspace::open(&state::nearest(global.state.as_deref())?)?;
    let known = workspace.registry().models()?;
    if !known.iter().any(|model| model.name == selector.name) {
        return Err(unknown());
    }
    let version = super::models::resolve(&workspace, &selector)?;
    let artifact = workspace.estate().get(&version.artifact).await?;
    Model::graph_of(&artifact).map_err(|error| match error {
        ModelError::NoProgram => Failure::from(error).into_rejection(),
        error => error.into(),
    })
}

async fn of_pipeline(path: &Path, global: &GlobalArguments) -> Result<Graph, Failure> {
    let pipeline = Pipeline::load(path).map_err(Failure::rejected)?;
    let folder = state::beside(path, global.state.as_deref());
    let never_run = || {
        Failure::rejected_because(
            format_args!(
                "`{}` has not come to its validated rows yet, which say what columns there are",
                pipeline.sections.name
            ),
            format_args!("`sandcast run {}` comes to them", shown(path)),
        )
    };
    if !folder.is_dir() {
        return Err(never_run());
    }
    let workspace = Workspace::open_with(&folder, global.sandbox()?)?;
    let declared = sandcast_factory::declare(&workspace, &pipeline).await;
    let declared = declared.map_err(|error| match error {
        DeclareError::NoRows { .. } => never_run(),
        DeclareError::State(_) | DeclareError::Read(_) => error.into(),
        DeclareError::Plan(PlanError::State(_)) => error.into(),
        error => Failure::from(error).into_rejection(),
    })?;
    match declared.declaration {
        Declaration::Program { graph, .. } => Ok(graph),
        Declaration::Forest(plan) => Err(Failure::rejected_because(
            format_args!(
                "the adapter of `{}` trains a forest of decision trees, so there is no tensor \
                 program",
                pipeline.sections.name
            ),
            format_args!(
                "it would have up to {} rounds of trees of up to {} leaves",
                plan.rounds, plan.max_leaves
            ),
        )),
    }
}

fn of_file(path: &Path) -> Result<Graph, Failure> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .or_reject()?
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .or_reject()?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Failure::rejected_because(
            format_args!("{} is larger than {MAX_FILE_BYTES} bytes", shown(path)),
            "give a graph as JSON, or a model file",
        ));
    }
    if Model::is_model_file(&bytes) {
        return Model::graph_of(&bytes).or_reject();
    }
    serde_json::from_slice(&bytes).map_err(|error| {
        Failure::rejected_because(
            format_args!("{} is not a graph: {error}", shown(path)),
            "`sandcast program show MODEL --format json` writes one",
        )
    })
}

fn show(program: &Program, arguments: &ShowArguments, output: &Output) -> Result<(), Failure> {
    let showing = Showing {
        stage: arguments.stage.into(),
        entry: arguments.entry.clone(),
        extents: extents(program, arguments.rows, &arguments.extent)?,
    };
    let listing = program.show(&showing).or_reject()?;
    let text = written(program, &listing, &showing, format(arguments, output)?)?;
    match &arguments.output {
        None => output.text(&text)?,
        Some(path) => {
            fs::write(path, &text).map_err(|error| {
                Failure::rejected_because(
                    format_args!("cannot write {}: {error}", shown(path)),
                    "give the path of a file in a folder that is there",
                )
            })?;
            output.note(format_args!("wrote {}", shown(path)));
        }
    }
    Ok(())
}

/// The format asked for, by whichever of three ways.
fn format(arguments: &ShowArguments, output: &Output) -> Result<Format, Failure> {
    let ending = arguments
        .output
        .as_ref()
        .and_then(|path| match path.extension()?.to_str()? {
            "json" => Some(Format::Json),
            "dot" | "gv" => Some(Format::Dot),
            "svg" => Some(Format::Svg),
            "mmd" | "mermaid" => Some(Format::Mermaid),
            _ => None,
        });
    match (arguments.format, output.wants_json()) {
        (Some(format), true) if format != Format::Json => Err(Failure::rejected_because(
            "--json and --format ask for two formats",
            "leave one of them out",
        )),
        (Some(format), _) => Ok(format),
        (None, true) => Ok(Format::Json),
        (None, false) => Ok(ending.unwrap_or(Format::Text)),
    }
}

fn written(
    program: &Program,
    listing: &Listing,
    showing: &Showing,
    format: Format,
) -> Result<String, Failure> {
    Ok(match format {
        Format::Text => listing.to_string(),
        // A whole graph as the file that it may be read from again.
        Format::Json if showing.stage == Stage::Graph && showing.entry.is_none() => {
            serde_json::to_string_pretty(program.graph())? + "\n"
        }
        Format::Json => serde_json::to_string_pretty(listing)? + "\n",
        Format::Dot => listing.picture().dot(),
        Format::Svg => listing.picture().svg(),
        Format::Mermaid => listing.picture().mermaid(),
    })
}

/// Extents by symbol: the rows by whatever name the program gives them, and the others.
fn extents(
    program: &Program,
    rows: Option<usize>,
    others: &[(String, usize)],
) -> Result<BTreeMap<String, usize>, Failure> {
    let mut extents: BTreeMap<String, usize> = others.iter().cloned().collect();
    if let Some(rows) = rows {
        let symbol = program.rows_symbol().ok_or_else(|| {
            Failure::rejected_because(
                "no symbol of this program counts rows",
                "name the symbol that is meant: --extent SYMBOL=N",
            )
        })?;
        extents.insert(symbol.to_owned(), rows);
    }
    Ok(extents)
}

/// What an entry costs at given extents.
#[derive(Debug, Serialize)]
struct Priced {
    /// The rows, where the program has any.
    rows: Option<usize>,
    #[serde(flatten)]
    cost: Cost,
}

fn cost(program: &Program, arguments: &CostArguments, output: &Output) -> Result<(), Failure> {
    let symbols = &program.graph().symbols;
    let most = program.rows_symbol().and_then(|name| {
        let symbol = symbols.iter().find(|symbol| symbol.name == name)?;
        Some(symbol.maximum as usize)
    });
    let wanted: Vec<Option<usize>> = if arguments.rows.is_empty() {
        vec![None]
    } else {
        arguments.rows.iter().copied().map(Some).collect()
    };
    // Says which entries there are when there is none such.
    let showing = Showing {
        entry: arguments.entry.clone(),
        ..Showing::default()
    };
    program.show(&showing).or_reject()?;
    let mut priced = Vec::new();
    for rows in wanted {
        let extents = extents(program, rows, &arguments.extent)?;
        for cost in program.costs_at(&extents).or_reject()? {
            let named = |entry: &String| *entry == cost.entry;
            if arguments.entry.as_ref().is_none_or(named) {
                let rows = rows.or(most);
                priced.push(Priced { rows, cost });
            }
        }
    }
    if output.wants_json() {
        return output.json(&serde_json::json!({
            "parameters": program.parameter_count(),
            "costs": priced,
        }));
    }
    output.line(format_args!(
        "{} parameters",
        count(program.parameter_count())
    ))?;
    let headings = ["entry", "rows", "flop", "moved", "peak", "flop per byte"];
    let mut table = Table::with_headings(headings).numbers_at(&[1, 2, 3, 4, 5]);
    for Priced { rows, cost } in &priced {
        let intensity = match cost.bytes_moved {
            0 => "–".to_owned(),
            moved => format!("{:.1}", cost.flops as f64 / moved as f64),
        };
        table.row([
            cost.entry.clone(),
            rows.map_or("–".to_owned(), |rows| count(rows as u64)),
            count(cost.flops),
            bytes(cost.bytes_moved),
            bytes(cost.peak_bytes),
            intensity,
        ]);
    }
    output.line(table)?;
    Ok(())
}
