//! Files of operators, programs of adapters, and requests of clients.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use sandcast_factory::Pipeline;
use sandcast_factory::config::Sections;
use sandcast_factory::gate::{Facts, Gate};
use sandcast_kernels::graph::{DType, Extent, Graph, Node};
use sandcast_kernels::show::{Showing, Stage};
use sandcast_kernels::{Caps, Device, DeviceChoice, Feeds, Program, Session, Tensor};

use super::{Said, first_line};

/// Where a pipeline of a target would lie. There is nothing there.
const NOWHERE: &str = "/nowhere/sandcast/pipeline.yaml";

/// A pipeline file; what is wrong with it is drawn as for a terminal, with the lines it is about.
pub fn pipeline(bytes: &[u8]) -> Said {
    let text = String::from_utf8_lossy(bytes);
    match Pipeline::parse(&text, Path::new(NOWHERE)) {
        Ok(pipeline) => {
            Gate::of(&pipeline.sections).map_err(|error| error.to_string())?;
            serde_json::to_string(&pipeline.sections).map_err(|error| error.to_string())?;
            Ok(())
        }
        Err(error) => {
            let drawn = format!("{:?}", miette::Report::new(error));
            // The words, without the lines of the file.
            let words = drawn.lines().filter(|line| line.contains(['×', 'x', '╰']));
            Err(words.take(3).collect())
        }
    }
}

/// An expression of the gate: read, held against the names that there are, and worked out.
pub fn expression(bytes: &[u8]) -> Said {
    static SECTIONS: OnceLock<Result<Sections, String>> = OnceLock::new();
    let text = String::from_utf8_lossy(bytes);
    let sections = SECTIONS.get_or_init(|| {
        let parsed = Pipeline::parse(PIPELINE, Path::new(NOWHERE));
        parsed
            .map(|pipeline| pipeline.sections)
            .map_err(|error| format!("{error:?}"))
    });
    let mut sections = match sections {
        Ok(sections) => sections.clone(),
        Err(error) => panic!("the pipeline of the target: {error}"),
    };
    sections.gate = vec![text.into_owned()];
    let gate = Gate::of(&sections).map_err(|error| {
        let bytes = error.bytes.clone();
        assert!(
            error.expression.get(bytes).is_some(),
            "the place of an error is in the text: {error:?}"
        );
        error.message
    })?;
    let numbers = BTreeMap::from([("auc".to_owned(), 0.8), ("log_loss".to_owned(), f64::NAN)]);
    let judgement = gate.judge(&Facts {
        metrics: numbers.clone(),
        slices: BTreeMap::from([("sex".to_owned(), numbers)]),
        champion: None,
        policy: BTreeMap::new(),
        data: BTreeMap::from([("rows".to_owned(), 1000.0)]),
    });
    let refusals = judgement.refusals();
    refusals.into_iter().next().map_or(Ok(()), Err)
}

/// A pipeline whose gate the expressions of a target are in.
const PIPELINE: &str = "version: 1
name: fuzzed
plugins:
  csv: { source: csv, role: connector }
  mlp: { source: mlp, role: adapter }
sources: { people: { plugin: csv } }
train: { plugin: mlp, task: binary-classification, target: y, positive: 'yes' }
evaluate: { slices: [sex] }
gate: ['true']
register: { model: fuzzed }
";

/// Work that a target does for one program: floating-point operations, and bytes at the peak.
const MAX_FLOPS: u64 = 1 << 20;
const MAX_PEAK_BYTES: u64 = 4 << 20;

/// A tensor program as an adapter declares it: checked, differentiated, planned, written down, and
/// run where that is little work.
pub fn graph(bytes: &[u8]) -> Said {
    static DEVICE: OnceLock<Result<Device, String>> = OnceLock::new();
    let graph: Graph = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let program = Program::compile(graph, &Caps::default()).map_err(|error| error.message)?;
    for stage in [Stage::Graph, Stage::Values] {
        let showing = Showing {
            stage,
            ..Showing::default()
        };
        let listing = program.show(&showing);
        listing.map_err(|error| error.to_string())?;
    }
    let is_little = |cost: &sandcast_kernels::Cost| {
        cost.flops <= MAX_FLOPS && cost.peak_bytes <= MAX_PEAK_BYTES
    };
    if !program.costs().iter().all(is_little) {
        return Err("it is too much work for a target".to_owned());
    }
    let feeds = feeds(program.graph())?;
    let device = DEVICE.get_or_init(|| {
        let opened = Device::open(DeviceChoice::Cpu, None);
        opened.map_err(|error| error.to_string())
    });
    let program = Arc::new(program);
    let session = Session::new(Arc::clone(&program), device.as_ref()?, 7);
    let session = session.map_err(|error| error.to_string())?;
    for entry in &program.graph().entries {
        let run = session.infer(&entry.name, &feeds);
        run.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Zeros for every input, with each symbol at 3 where it may be.
fn feeds(graph: &Graph) -> Result<Feeds, String> {
    let extent = |extent: &Extent| match *extent {
        Extent::Fixed(extent) => extent as usize,
        Extent::Symbol(symbol) => {
            let symbol = graph.symbols.get(symbol as usize);
            symbol.map_or(1, |symbol| symbol.maximum.min(3) as usize)
        }
    };
    let inputs = graph.nodes.iter().filter_map(|node| match node {
        Node::Input(input) => Some(input),
        _ => None,
    });
    inputs
        .map(|input| {
            let shape: Vec<usize> = input.shape.iter().map(extent).collect();
            let count: usize = shape.iter().product();
            if count > 1 << 16 {
                return Err("its inputs are too long for a target".to_owned());
            }
            let made = match input.dtype {
                DType::Float32 => Tensor::from_f32(shape, vec![0.0; count]),
                DType::Int32 => Tensor::from_i32(shape, vec![0; count]),
            };
            let made = made.map_err(|error| error.to_string())?;
            Ok((input.name.clone(), made))
        })
        .collect()
}

/// A request for a prediction: a line with the length of the JSON, or `-`, and with how many
/// columns the model has; then the body. A line `completion` is followed by the body of one.
pub fn infer(bytes: &[u8]) -> Said {
    let (line, body) = first_line(bytes);
    if line == "completion" {
        return sandcast_serve::fuzzing::completion(body);
    }
    let Some((length, features)) = line.split_once(' ') else {
        // As clients send it who know nothing of binary tensors.
        return sandcast_serve::fuzzing::infer(bytes, None, 6);
    };
    let features = features.trim().parse().unwrap_or(6);
    let length = (length != "-").then_some(length);
    sandcast_serve::fuzzing::infer(body, length, features)
}
