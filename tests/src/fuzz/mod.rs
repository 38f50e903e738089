//! What reads bytes of somebody else, as functions that take any bytes at all.
//!
//! A target says what the reader made of its input: nothing where it took it, and else why not.
//! What must never be is a panic, an answer that is not bounded in time, or memory out of
//! proportion; `tests/fuzz.rs` holds every target to that. What a target says steers the search:
//! an input that is refused with other words than those before it is worth keeping.

mod line;
mod mutate;
mod plugin;
mod record;

pub use line::{expression, graph, infer, pipeline};
pub use mutate::Mutator;
pub use plugin::{
    asked, certificate, columns, component, model, recorded_rows, recording, store_list,
};
pub use record::{event, files, in_files, log, note, proof};

/// What a reader made of an input.
pub type Said = Result<(), String>;

/// A reader, and what it may take.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is that of its folder in `tests/fuzz/corpus`.
    pub name: &'static str,
    /// The reader.
    pub run: fn(&[u8]) -> Said,
    /// Inputs that `cargo test` tries.
    pub executions: u32,
    /// Bytes of memory that one input may take at its peak.
    pub heap_bytes: usize,
    /// Files of the repository that are inputs too.
    pub also: &'static [&'static str],
}

const MIB: usize = 1 << 20;

/// All of them.
pub const TARGETS: [Target; 16] = [
    Target {
        name: "component",
        run: component,
        executions: 1500,
        heap_bytes: 32 * MIB,
        also: &[],
    },
    Target {
        name: "columns",
        run: columns,
        executions: 5000,
        heap_bytes: 32 * MIB,
        also: &[],
    },
    Target {
        name: "asked",
        run: asked,
        executions: 5000,
        heap_bytes: 32 * MIB,
        also: &[],
    },
    Target {
        name: "recorded-rows",
        run: recorded_rows,
        executions: 4000,
        heap_bytes: 32 * MIB,
        also: &[],
    },
    Target {
        name: "store-list",
        run: store_list,
        executions: 3000,
        heap_bytes: 32 * MIB,
        also: &[],
    },
    Target {
        name: "recording",
        run: recording,
        executions: 600,
        heap_bytes: 64 * MIB,
        also: &[],
    },
    Target {
        name: "model",
        run: model,
        executions: 3000,
        heap_bytes: 64 * MIB,
        also: &[],
    },
    Target {
        name: "certificate",
        run: certificate,
        executions: 3000,
        heap_bytes: 32 * MIB,
        also: &[],
    },
    Target {
        name: "pipeline",
        run: pipeline,
        executions: 600,
        heap_bytes: 32 * MIB,
        also: &[
            "examples/credit-risk/biased.yaml",
            "examples/credit-risk/pipeline.yaml",
            "examples/pump-telemetry/modes.yaml",
            "examples/pump-telemetry/pipeline.yaml",
            "examples/weather-notes/pipeline.yaml",
            "tests/adult/pipeline.yaml",
        ],
    },
    Target {
        name: "expression",
        run: expression,
        executions: 600,
        heap_bytes: 32 * MIB,
        also: &[],
    },
    Target {
        name: "graph",
        run: graph,
        executions: 3000,
        heap_bytes: 64 * MIB,
        also: &[],
    },
    Target {
        name: "infer",
        run: infer,
        executions: 5000,
        heap_bytes: 32 * MIB,
        also: &["examples/credit-risk/request.json"],
    },
    Target {
        name: "log",
        run: log,
        executions: 400,
        heap_bytes: 32 * MIB,
        also: &[],
    },
    Target {
        name: "event",
        run: event,
        executions: 3000,
        heap_bytes: 32 * MIB,
        also: &[],
    },
    Target {
        name: "proof",
        run: proof,
        executions: 3000,
        heap_bytes: 32 * MIB,
        also: &[],
    },
    Target {
        name: "note",
        run: note,
        executions: 3000,
        heap_bytes: 32 * MIB,
        also: &[],
    },
];

/// The first line of an input, as text, and what follows it.
fn first_line(bytes: &[u8]) -> (String, &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (line, rest) = match end {
        None => (bytes, &[][..]),
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
    };
    (String::from_utf8_lossy(line).into_owned(), rest)
}
