//! Every hostile behaviour, what it tries, and what must come of it. The tests run the rows, so there
//! is no behaviour without a row; and there is no guest's behaviour that no row runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::fs;

use sandcast_tests::repository;

pub(crate) const MIB: usize = 1 << 20;

/// How far the host's heap may grow for one guest, its answers of 16 MiB and all of its messages.
const HEAP_BYTES: usize = 64 * MIB;

/// The same where tensors of the guest lie there too, of which it may hold 64 MiB, or what SQLite
/// answers it with, of which that may hold 48.
const HEAP_WITH_MORE_BYTES: usize = 128 * MIB;

/// What a behaviour tries to do to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    Spin,
    Memory,
    HostMemory,
    Fault,
    Handles,
    Columns,
    Lies,
    Text,
    Compute,
    Files,
    Network,
    Database,
    State,
    Objects,
    Secrets,
    Record,
    Fingerprint,
    Manifest,
    Compiler,
    Archive,
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Class::Spin => "never comes back",
            Class::Memory => "eats memory, tables or stack of its own",
            Class::HostMemory => "has the host make room",
            Class::Fault => "fails",
            Class::Handles => "forges handles",
            Class::Columns => "hands over columns that are none",
            Class::Lies => "lies about what it did",
            Class::Text => "floods, and drives terminals",
            Class::Compute => "abuses tensor programs",
            Class::Files => "looks for a way out of its folder",
            Class::Network => "looks for a way through the network",
            Class::Database => "asks a database for more than its rows",
            Class::State => "keeps more than it may, or what is a neighbour's",
            Class::Objects => "looks in a store for objects that are not its own",
            Class::Secrets => {
                "looks for a secret of the host, and for a way to carry out what it knows"
            }
            Class::Record => "names a person in every text that it has",
            Class::Fingerprint => "looks for what tells machines and moments apart",
            Class::Manifest => "says of itself what is not so",
            Class::Compiler => "has the compiler work without end",
            Class::Archive => "is innocent, and reads a bomb",
        }
    }
}

/// What must come of a behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Must {
    /// It ends as if nothing had been, and nothing was.
    Harmless,
    /// The instance ends in a trap.
    Trap,
    /// The instance is stopped in time.
    Timeout,
    /// It gets no more memory.
    Memory,
    /// It is over another of its limits.
    Limit,
    /// It is refused, and that is on record.
    Denied,
    /// It is told, as a value.
    Failure,
    /// What it answers is refused by the host.
    Refused,
    /// It is not loaded.
    NotLoaded,
    /// Nothing that a row may want.
    Never,
}

impl Must {
    fn name(self) -> &'static str {
        match self {
            Must::Harmless => "nothing",
            Must::Trap => "a trap, which ends the instance",
            Must::Timeout => "stopped in time",
            Must::Memory => "no more memory",
            Must::Limit => "stopped at a limit",
            Must::Denied => "denied, on record",
            Must::Failure => "told so, as a value",
            Must::Refused => "its answer is refused",
            Must::NotLoaded => "not loaded",
            Must::Never => "",
        }
    }
}

/// One behaviour of one guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// A guest of `tests/guests`, or what the tests make themselves.
    pub(crate) guest: &'static str,
    pub(crate) behaviour: &'static str,
    pub(crate) class: Class,
    pub(crate) must: Must,
    /// How far the host's heap may grow.
    pub(crate) heap_bytes: usize,
    /// What it tries, where the guest's own source does not say so.
    tries: &'static str,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.guest, self.behaviour)
    }
}

const fn row(guest: &'static str, behaviour: &'static str, class: Class, must: Must) -> Row {
    Row {
        guest,
        behaviour,
        class,
        must,
        heap_bytes: HEAP_BYTES,
        tries: "",
    }
}

/// A row about a guest whose source says nothing of it.
const fn told(
    guest: &'static str,
    behaviour: &'static str,
    class: Class,
    must: Must,
    tries: &'static str,
) -> Row {
    Row {
        tries,
        ..row(guest, behaviour, class, must)
    }
}

impl Row {
    /// A bound of its own.
    const fn within(self, mib: usize) -> Self {
        Self {
            heap_bytes: mib * MIB,
            ..self
        }
    }
}

/// The rows of a guest.
pub(crate) fn rows_of(guest: &str) -> Vec<Row> {
    let rows: Vec<Row> = all().into_iter().filter(|row| row.guest == guest).collect();
    assert!(!rows.is_empty(), "`{guest}` has no rows");
    rows
}

fn all() -> Vec<Row> {
    let mut rows = GUESTS.to_vec();
    rows.extend(MADE);
    for row in &mut rows {
        if row.guest.ends_with("adapter") || row.guest == "hostile-asker" {
            row.heap_bytes = row.heap_bytes.max(HEAP_WITH_MORE_BYTES);
        }
    }
    rows
}

/// What the guests in `tests/guests` do, whose sources say what each tries.
#[rustfmt::skip]
const GUESTS: &[Row] = &[
    row("hostile-connector", "fail", Class::Fault, Must::Failure),
    row("hostile-connector", "spin", Class::Spin, Must::Timeout),
    row("hostile-connector", "spin-in-open", Class::Spin, Must::Timeout),
    row("hostile-connector", "memory", Class::Memory, Must::Memory),
    row("hostile-connector", "trap", Class::Fault, Must::Trap),
    row("hostile-connector", "panic", Class::Fault, Must::Trap),
    row("hostile-connector", "stack", Class::Memory, Must::Trap),
    row("hostile-connector", "short-column", Class::Columns, Must::Failure),
    row("hostile-connector", "unequal-columns", Class::Columns, Must::Failure),
    row("hostile-connector", "short-validity", Class::Columns, Must::Failure),
    row("hostile-connector", "falling-offsets", Class::Columns, Must::Failure),
    row("hostile-connector", "negative-offsets", Class::Columns, Must::Failure),
    row("hostile-connector", "offsets-past-the-end", Class::Columns, Must::Failure),
    row("hostile-connector", "not-utf8", Class::Columns, Must::Failure),
    row("hostile-connector", "cut-character", Class::Columns, Must::Failure),
    row("hostile-connector", "wrong-kind", Class::Columns, Must::Failure),
    row("hostile-connector", "wrong-schema", Class::Columns, Must::Refused),
    row("hostile-connector", "null-in-required", Class::Columns, Must::Failure),
    row("hostile-connector", "flood-log", Class::Text, Must::Limit),
    row("hostile-connector", "long-log", Class::Text, Must::Limit),
    row("hostile-connector", "many-rejects", Class::HostMemory, Must::Memory),
    row("hostile-connector", "long-reject", Class::HostMemory, Must::Limit),
    row("hostile-connector", "claim-more-rows", Class::Lies, Must::Refused),
    row("hostile-connector", "claim-fewer-rows", Class::Lies, Must::Refused),
    row("hostile-connector", "reject-row-zero", Class::Lies, Must::Refused),
    row("hostile-connector", "endless", Class::Lies, Must::Harmless),
    row("hostile-connector", "endless-nothing", Class::Lies, Must::Refused),
    row("hostile-connector", "hoard-batches", Class::HostMemory, Must::Limit),
    row("hostile-connector", "wide-schema", Class::HostMemory, Must::Refused),
    row("hostile-connector", "twin-columns", Class::Columns, Must::Refused),
    row("hostile-connector", "many-splits", Class::HostMemory, Must::Limit),
    row("hostile-connector", "twin-splits", Class::Lies, Must::Refused),
    row("hostile-connector", "giant-rows", Class::Columns, Must::Failure),
    row("hostile-connector", "raw-fraction", Class::Columns, Must::Failure),
    row("hostile-connector", "raw-stray-offsets", Class::Columns, Must::Failure),
    row("hostile-connector", "raw-cut-offsets", Class::Columns, Must::Failure),
    row("hostile-connector", "wide-batch", Class::HostMemory, Must::Failure),
    row("hostile-connector", "long-names", Class::HostMemory, Must::Limit),
    row("hostile-connector", "escapes-in-failure", Class::Text, Must::Failure),
    row("hostile-connector", "escapes-in-reject", Class::Text, Must::Harmless),
    row("hostile-connector", "escapes-in-panic", Class::Text, Must::Trap),
    row("hostile-connector", "escapes-in-log", Class::Text, Must::Harmless),
    row("hostile-connector", "escapes-in-splits", Class::Text, Must::Refused),
    row("hostile-connector", "escapes-in-names", Class::Text, Must::Refused),
    row("hostile-validator", "fail", Class::Fault, Must::Failure),
    row("hostile-validator", "spin", Class::Spin, Must::Timeout),
    row("hostile-validator", "spin-in-finish", Class::Spin, Must::Timeout),
    row("hostile-validator", "memory", Class::Memory, Must::Memory),
    row("hostile-validator", "trap", Class::Fault, Must::Trap),
    row("hostile-validator", "stack", Class::Memory, Must::Trap),
    row("hostile-validator", "flood-log", Class::Text, Must::Limit),
    row("hostile-validator", "row-past-the-end", Class::Lies, Must::Refused),
    row("hostile-validator", "falling-rows", Class::Lies, Must::Refused),
    row("hostile-validator", "twin-rows", Class::Lies, Must::Refused),
    row("hostile-validator", "many-rows", Class::HostMemory, Must::Limit),
    row("hostile-validator", "unknown-rule", Class::Lies, Must::Refused),
    row("hostile-validator", "unknown-column", Class::Lies, Must::Refused),
    row("hostile-validator", "many-findings", Class::HostMemory, Must::Limit),
    row("hostile-validator", "long-message", Class::HostMemory, Must::Limit),
    row("hostile-validator", "mostly-not-a-number", Class::Lies, Must::Refused),
    row("hostile-validator", "mostly-above-one", Class::Lies, Must::Refused),
    row("hostile-validator", "twin-rules", Class::Lies, Must::Refused),
    row("hostile-validator", "many-rules", Class::HostMemory, Must::Limit),
    row("hostile-validator", "pass-anyway", Class::Lies, Must::Refused),
    row("hostile-validator", "claim-rows", Class::Lies, Must::Refused),
    row("hostile-validator", "no-verdict", Class::Lies, Must::Refused),
    row("hostile-validator", "column-past-the-end", Class::Lies, Must::Failure),
    row("hostile-validator", "read-forever", Class::Spin, Must::Timeout),
    row("hostile-validator", "escapes-in-rule", Class::Text, Must::Refused),
    row("hostile-validator", "escapes-in-message", Class::Text, Must::Harmless),
    row("hostile-validator", "escapes-in-failure", Class::Text, Must::Failure),
    row("hostile-validator", "many-columns", Class::HostMemory, Must::Limit),
    row("hostile-validator", "person-in-message", Class::Record, Must::Harmless),
    row("hostile-adapter", "spin", Class::Spin, Must::Timeout),
    row("hostile-adapter", "memory", Class::Memory, Must::Memory),
    row("hostile-adapter", "trap", Class::Fault, Must::Trap),
    row("hostile-adapter", "train-forever", Class::Spin, Must::Failure),
    row("hostile-adapter", "giant-graph", Class::HostMemory, Must::Limit),
    row("hostile-adapter", "giant-parameter", Class::Memory, Must::Failure),
    row("hostile-adapter", "overflowing-shape", Class::Compute, Must::Failure),
    row("hostile-adapter", "giant-symbol", Class::Compute, Must::Failure),
    row("hostile-adapter", "forward-reference", Class::Compute, Must::Failure),
    row("hostile-adapter", "missing-node", Class::Compute, Must::Failure),
    row("hostile-adapter", "wrong-shapes", Class::Compute, Must::Failure),
    row("hostile-adapter", "wrong-type", Class::Compute, Must::Failure),
    row("hostile-adapter", "nan-literal", Class::Compute, Must::Failure),
    row("hostile-adapter", "no-loss", Class::Compute, Must::Failure),
    row("hostile-adapter", "not-bound", Class::Compute, Must::Failure),
    row("hostile-adapter", "unknown-column", Class::Lies, Must::Failure),
    row("hostile-adapter", "no-batch-rows", Class::Compute, Must::Failure),
    row("hostile-adapter", "nan-rate", Class::Compute, Must::Failure),
    row("hostile-adapter", "no-accumulation", Class::Compute, Must::Failure),
    row("hostile-adapter", "set-nan", Class::Compute, Must::Failure),
    row("hostile-adapter", "set-other-shape", Class::Compute, Must::Failure),
    row("hostile-adapter", "set-nobody", Class::Compute, Must::Failure),
    row("hostile-adapter", "import-garbage", Class::Compute, Must::Failure),
    row("hostile-adapter", "import-long", Class::HostMemory, Must::Limit),
    row("hostile-adapter", "hoard-snapshots", Class::HostMemory, Must::Failure),
    row("hostile-adapter", "round-trip", Class::Compute, Must::Harmless),
    row("hostile-adapter", "turncoat", Class::Lies, Must::Harmless),
    row("hostile-adapter", "set-in-predict", Class::Compute, Must::Failure),
    row("hostile-adapter", "hoard-sessions", Class::HostMemory, Must::Failure),
    row("hostile-adapter", "hoard-tensors", Class::Memory, Must::Failure),
    row("hostile-adapter", "giant-forest", Class::Compute, Must::Failure),
    row("hostile-adapter", "grow-forever", Class::Spin, Must::Failure),
    row("hostile-adapter", "hoard-forests", Class::HostMemory, Must::Failure),
    row("hostile-adapter", "nan-forest", Class::Compute, Must::Failure),
    row("hostile-adapter", "forest-unknown-column", Class::Compute, Must::Failure),
    row("hostile-adapter", "forest-without-labels", Class::Compute, Must::Failure),
    row("hostile-adapter", "forest-of-nothing", Class::Compute, Must::Failure),
    row("hostile-adapter", "forest-of-three-labels", Class::Compute, Must::Failure),
    row("hostile-adapter", "standing-windows", Class::Compute, Must::Failure),
    row("hostile-adapter", "giant-windows", Class::Compute, Must::Failure),
    row("hostile-adapter", "giant-repetition", Class::Compute, Must::Failure),
    row("hostile-adapter", "train-on-forever", Class::Spin, Must::Failure),
    row("hostile-adapter", "train-beyond-count", Class::Compute, Must::Failure),
    row("hostile-adapter", "train-on-tokens-outside", Class::Compute, Must::Failure),
    row("hostile-adapter", "giant-prompt", Class::HostMemory, Must::Failure),
    row("hostile-adapter", "prompt-outside", Class::Compute, Must::Failure),
    row("hostile-adapter", "endless-generation", Class::Compute, Must::Failure),
    row("hostile-adapter", "long-generation", Class::Spin, Must::Failure),
    row("hostile-adapter", "many-prompts", Class::HostMemory, Must::Failure),
    row("hostile-adapter", "not-generating", Class::Compute, Must::Failure),
    row("hostile-adapter", "looks-ahead", Class::Compute, Must::Failure),
    row("hostile-adapter", "run-far-beyond", Class::Compute, Must::Failure),
    row("hostile-adapter", "many-results", Class::Compute, Must::Failure),
    row("hostile-adapter", "costly-rows", Class::Spin, Must::Failure),
    row("hostile-adapter", "feeds-that-differ", Class::Compute, Must::Failure),
    row("hostile-adapter", "judged-by-many", Class::Compute, Must::Failure),
    row("hostile-adapter", "long-vocabulary", Class::HostMemory, Must::Limit),
    row("hostile-adapter", "hoard-vocabularies", Class::HostMemory, Must::Failure),
    row("hostile-adapter", "wide-binding", Class::HostMemory, Must::Failure),
    row("hostile-adapter", "repeated-columns", Class::Columns, Must::Failure),
    row("hostile-adapter", "hoard-reads", Class::HostMemory, Must::Limit),
    row("hostile-adapter", "long-state", Class::HostMemory, Must::Memory),
    row("hostile-adapter", "spin-in-predict", Class::Spin, Must::Timeout),
    row("hostile-adapter", "trap-in-predict", Class::Fault, Must::Trap),
    row("hostile-adapter", "predict-fewer-rows", Class::Lies, Must::Refused),
    row("hostile-adapter", "predict-more-rows", Class::Lies, Must::Refused),
    row("hostile-adapter", "predict-other-columns", Class::Lies, Must::Refused),
    row("hostile-adapter", "predict-nan", Class::Lies, Must::Refused),
    row("hostile-adapter", "predict-more-than-one", Class::Lies, Must::Harmless),
    row("hostile-adapter", "unknown-entry", Class::Compute, Must::Failure),
    row("hostile-adapter", "compile-in-predict", Class::Compute, Must::Harmless),
    row("hostile-adapter", "person-in-model", Class::Record, Must::Harmless),
    row("hostile-asker", "tokenizer", Class::Database, Must::Denied),
    row("hostile-asker", "tokenizer-in-view", Class::Database, Must::Failure),
    row("hostile-asker", "rtree-check", Class::Database, Must::Denied),
    row("hostile-asker", "virtual-table", Class::Database, Must::Denied),
    row("hostile-asker", "pages", Class::Database, Must::Denied),
    row("hostile-asker", "load-extension", Class::Database, Must::Denied),
    row("hostile-asker", "attach", Class::Database, Must::Denied),
    row("hostile-asker", "writable-schema", Class::Database, Must::Denied),
    row("hostile-asker", "instr-without-end", Class::Spin, Must::Failure),
    row("hostile-asker", "replace-without-end", Class::Spin, Must::Failure),
    row("hostile-asker", "like-without-end", Class::Spin, Must::Failure),
    row("hostile-asker", "count-without-end", Class::Spin, Must::Failure),
    row("hostile-asker", "distinct-without-end", Class::Spin, Must::Failure),
    row("hostile-asker", "zeroblob", Class::HostMemory, Must::Failure),
    row("hostile-asker", "printf", Class::HostMemory, Must::Failure),
    row("hostile-asker", "group-concat", Class::HostMemory, Must::Failure),
    row("hostile-asker", "group-array", Class::HostMemory, Must::Failure),
    row("hostile-asker", "many-values", Class::HostMemory, Must::Failure),
    row("hostile-asker", "long-value", Class::HostMemory, Must::Failure),
    row("hostile-asker", "long-parameter", Class::HostMemory, Must::Failure),
    row("hostile-asker", "second-statement", Class::Database, Must::Denied),
    row("hostile-asker", "write-behind-comment", Class::Database, Must::Denied),
    row("hostile-asker", "write-in-comment", Class::Database, Must::Harmless),
    row("hostile-asker", "write-behind-cte", Class::Database, Must::Denied),
    row("hostile-asker", "write-in-cte", Class::Database, Must::Failure),
    row("hostile-asker", "quote-in-parameter", Class::Database, Must::Harmless),
    row("hostile-asker", "statement-in-parameter", Class::Database, Must::Harmless),
    row("hostile-asker", "table-as-parameter", Class::Database, Must::Failure),
    row("hostile-asker", "few-parameters", Class::Database, Must::Failure),
    row("hostile-asker", "many-parameters", Class::Database, Must::Failure),
    row("hostile-asker", "very-many-parameters", Class::Database, Must::Failure),
    row("hostile-asker", "pragma-behind-comment", Class::Database, Must::Denied),
    row("hostile-asker", "attach-behind-comment", Class::Database, Must::Denied),
    row("hostile-asker", "zero-in-statement", Class::Database, Must::Failure),
    row("hostile-asker", "long-statement", Class::HostMemory, Must::Failure),
    row("hostile-asker", "listed", Class::Database, Must::Harmless),
    row("hostile-asker", "listed-text", Class::Database, Must::Denied),
    row("hostile-asker", "listed-and-more", Class::Database, Must::Denied),
    row("hostile-asker", "listed-and-comment", Class::Database, Must::Denied),
    row("hostile-asker", "listed-and-union", Class::Database, Must::Denied),
    row("hostile-asker", "listed-in-capitals", Class::Database, Must::Denied),
    row("hostile-asker", "listed-and-space", Class::Database, Must::Denied),
    row("hostile-asker", "listed-and-zero", Class::Database, Must::Denied),
    row("hostile-asker", "listed-with-quote", Class::Database, Must::Harmless),
    row("hostile-keeper", "other-bucket", Class::State, Must::Denied),
    row("hostile-keeper", "path-for-bucket", Class::State, Must::Denied),
    row("hostile-keeper", "read-neighbour", Class::State, Must::Harmless),
    row("hostile-keeper", "same-key", Class::State, Must::Harmless),
    row("hostile-keeper", "delete-neighbour", Class::State, Must::Harmless),
    row("hostile-keeper", "key-goes-up", Class::State, Must::Harmless),
    row("hostile-keeper", "zero-in-key", Class::State, Must::Harmless),
    row("hostile-keeper", "escapes-in-key", Class::Text, Must::Harmless),
    row("hostile-keeper", "quote-in-key", Class::State, Must::Harmless),
    row("hostile-keeper", "empty-key", Class::State, Must::Failure),
    row("hostile-keeper", "long-key", Class::HostMemory, Must::Failure),
    row("hostile-keeper", "long-value", Class::State, Must::Failure),
    row("hostile-keeper", "giant-value", Class::HostMemory, Must::Limit),
    row("hostile-keeper", "many-bytes", Class::State, Must::Failure),
    row("hostile-keeper", "many-keys", Class::State, Must::Failure),
    row("hostile-keeper", "many-keys-anyway", Class::State, Must::Limit),
    row("hostile-keeper", "set-many-keys", Class::State, Must::Failure),
    row("hostile-keeper", "set-one-too-long", Class::State, Must::Failure),
    row("hostile-keeper", "set-ten-thousand", Class::HostMemory, Must::Failure),
    row("hostile-keeper", "get-million", Class::HostMemory, Must::Limit),
    row("hostile-keeper", "add-above-largest", Class::State, Must::Failure),
    row("hostile-keeper", "add-below-smallest", Class::State, Must::Failure),
    row("hostile-keeper", "forged-cursor", Class::State, Must::Harmless),
    row("hostile-policy", "fail", Class::Fault, Must::Failure),
    row("hostile-policy", "spin-in-configure", Class::Spin, Must::Timeout),
    row("hostile-policy", "spin", Class::Spin, Must::Timeout),
    row("hostile-policy", "memory", Class::Memory, Must::Memory),
    row("hostile-policy", "trap", Class::Fault, Must::Trap),
    row("hostile-policy", "stack", Class::Memory, Must::Trap),
    row("hostile-policy", "flood-log", Class::Text, Must::Limit),
    row("hostile-policy", "many-reasons", Class::HostMemory, Must::Limit),
    row("hostile-policy", "long-reason", Class::HostMemory, Must::Limit),
    row("hostile-policy", "many-obligations", Class::HostMemory, Must::Limit),
    row("hostile-policy", "nested-obligation", Class::HostMemory, Must::Refused),
    row("hostile-policy", "garbled-obligation", Class::Lies, Must::Refused),
    row("hostile-policy", "long-obligation", Class::HostMemory, Must::Refused),
    row("hostile-policy", "escapes-in-reason", Class::Text, Must::Harmless),
    row("hostile-policy", "escapes-in-failure", Class::Text, Must::Failure),
    row("hostile-policy", "escapes-in-obligation", Class::Text, Must::Refused),
    row("hostile-policy", "once-let-in", Class::Spin, Must::Timeout),
    row("hostile-teller", "in-log", Class::Record, Must::Harmless),
    row("hostile-teller", "in-failure", Class::Record, Must::Failure),
    row("hostile-teller", "in-reason", Class::Record, Must::Harmless),
    row("hostile-teller", "in-obligation", Class::Record, Must::Harmless),
    row("hostile-teller", "in-panic", Class::Record, Must::Trap),
    row("hostile-teller", "in-state-value", Class::Record, Must::Harmless),
    row("hostile-teller", "in-state-key", Class::Record, Must::Harmless),
    row("hostile-teller", "in-bucket-name", Class::Record, Must::Denied),
    row("hostile-teller", "in-object", Class::Record, Must::Harmless),
    row("hostile-teller", "in-object-key", Class::Record, Must::Harmless),
    row("hostile-teller", "in-other-key", Class::Record, Must::Denied),
    row("hostile-teller", "in-store-name", Class::Record, Must::Denied),
    row("hostile-teller", "in-tag", Class::Record, Must::Harmless),
    row("hostile-teller", "in-cursor", Class::Record, Must::Harmless),
    row("hostile-teller", "in-statement", Class::Record, Must::Harmless),
    row("hostile-teller", "in-wrong-statement", Class::Record, Must::Failure),
    row("hostile-teller", "in-parameter", Class::Record, Must::Harmless),
    row("hostile-teller", "in-connection-name", Class::Record, Must::Denied),
    row("hostile-teller", "in-file-name", Class::Record, Must::Harmless),
    row("hostile-teller", "in-file", Class::Record, Must::Harmless),
    row("hostile-teller", "in-path", Class::Record, Must::Harmless),
    row("hostile-teller", "in-query", Class::Record, Must::Harmless),
    row("hostile-teller", "in-host", Class::Record, Must::Denied),
    row("hostile-teller", "in-field", Class::Record, Must::Harmless),
    row("hostile-teller", "in-body", Class::Record, Must::Harmless),
    row("hostile-thief", "configuration", Class::Secrets, Must::Harmless),
    row("hostile-thief", "own-field", Class::Secrets, Must::Failure),
    row("hostile-thief", "own-field-in-capitals", Class::Secrets, Must::Failure),
    row("hostile-thief", "ask-elsewhere", Class::Secrets, Must::Denied),
    row("hostile-thief", "follow", Class::Secrets, Must::Denied),
    row("hostile-thief", "trace", Class::Secrets, Must::Denied),
    row("hostile-thief", "read-back", Class::Secrets, Must::Harmless),
    row("hostile-thief", "ask-nobody", Class::Secrets, Must::Failure),
    row("hostile-thief", "ask-for-garbage", Class::Secrets, Must::Failure),
];

/// What guests do that are told more than a word, or that the tests make themselves.
#[rustfmt::skip]
const MADE: &[Row] = &[
    // The world.
    told("hostile-reader", "read-raw ../secret.txt", Class::Files, Must::Denied, "goes up"),
    told("hostile-reader", "read-raw ./../secret.txt", Class::Files, Must::Denied, "goes up, from here"),
    told("hostile-reader", "read-raw inner/../../secret.txt", Class::Files, Must::Denied, "goes down and up"),
    told("hostile-reader", "read-raw /etc/passwd", Class::Files, Must::Denied, "begins at the root"),
    told("hostile-reader", "read-raw /proc/self/environ", Class::Files, Must::Denied, "reads the environment of the host, with its secrets"),
    told("hostile-reader", "read-raw open.txt/", Class::Files, Must::Failure, "takes a file for a folder"),
    told("hostile-reader", "read-raw open.txt/../../secret.txt", Class::Files, Must::Failure, "goes up out of a file"),
    told("hostile-reader", "read-raw open.txt\0.csv", Class::Files, Must::Failure, "ends a path with a zero"),
    told("hostile-reader", "read-raw link-out", Class::Files, Must::Denied, "follows a link of the operator's that leads out"),
    told("hostile-reader", "read-raw link-up/secret.txt", Class::Files, Must::Denied, "follows one to the folder above"),
    told("hostile-reader", "read-raw link-root", Class::Files, Must::Denied, "follows one that begins at the root"),
    told("hostile-reader", "read-raw link-proc/environ", Class::Files, Must::Denied, "follows one to its own process"),
    told("hostile-reader", "read-raw loop", Class::Files, Must::Failure, "follows links that lead to each other"),
    told("hostile-reader", "read-raw long", Class::Files, Must::Failure, "a path of a megabyte"),
    told("hostile-reader", "read /etc/passwd", Class::Files, Must::Failure, "asks the SDK for the root"),
    told("hostile-reader", "list /data/..", Class::Files, Must::Denied, "looks at the folder above"),
    told("hostile-reader", "write ../planted.txt", Class::Files, Must::Denied, "writes above"),
    told("hostile-reader", "write link-planted", Class::Files, Must::Denied, "writes through a link that leads out"),
    told("hostile-reader", "link-and-read ../secret.txt", Class::Files, Must::Denied, "makes a link that leads out, and follows it"),
    told("hostile-reader", "link-and-read /etc/passwd", Class::Files, Must::Denied, "makes one to the root"),
    told("hostile-reader", "hard-link-and-read ../secret.txt", Class::Files, Must::Denied, "makes a second name for a file outside"),
    told("hostile-reader", "move-out open.txt", Class::Files, Must::Denied, "moves a file out"),
    told("hostile-reader", "fill-by-stream filled", Class::Files, Must::Harmless, "fills the disk by a stream"),
    told("hostile-reader", "fill-by-write filled", Class::Files, Must::Harmless, "fills it at offsets"),
    told("hostile-reader", "fill-by-size filled", Class::Files, Must::Harmless, "fills it with nothing"),
    told("hostile-reader", "make-many x", Class::Files, Must::Harmless, "makes files until there are no more"),
    told("hostile-reader", "read-often swapped/secret.txt", Class::Files, Must::Harmless, "reads while somebody else puts a link in the place of a folder, over and over"),
    told("hostile-reader", "write-far filled", Class::Files, Must::Denied, "writes a byte a tebibyte beyond the end of a file"),
    told("hostile-reader", "stream-far filled", Class::Files, Must::Denied, "the same by a stream that begins there"),
    told("hostile-reader", "fill-exactly filled", Class::Files, Must::Denied, "writes to the last byte of its quota, which it may, and one more"),
    told("hostile-reader", "list-many .", Class::Files, Must::Failure, "lists a folder over and over at one time"),
    told("caller", "ask http://169.254.169.254/latest/meta-data", Class::Network, Must::Denied, "asks the cloud for its keys"),
    told("caller", "ask http://[::1]:{port}/", Class::Network, Must::Denied, "asks this machine, by another name"),
    told("caller", "ask http://[::ffff:127.0.0.1]:{port}/", Class::Network, Must::Denied, "and another"),
    told("caller", "ask http://0.0.0.0:{port}/", Class::Network, Must::Denied, "and another"),
    told("caller", "ask http://0x7f.0.0.1:{port}/", Class::Network, Must::Denied, "writes an address with a number of base 16"),
    told("caller", "ask http://0177.0.0.1:{port}/", Class::Network, Must::Denied, "and of base 8"),
    told("caller", "ask http://127.1:{port}/", Class::Network, Must::Denied, "and with too few"),
    told("caller", "ask http://localhost.:{port}/", Class::Network, Must::Denied, "ends a name with a dot"),
    told("caller", "ask http://127.0.0.1.nip.example:{port}/", Class::Network, Must::Denied, "names an address below a name"),
    told("caller", "ask http://granted.example@evil.example/", Class::Network, Must::Denied, "takes a host for a user"),
    told("caller", "ask http://127.0.0.1:{port}%2f@evil.example/", Class::Network, Must::Denied, "hides where a host ends"),
    told("caller", "ask http://127.0.0.1:99999/", Class::Network, Must::Denied, "a port that cannot be"),
    told("caller", "ask http://s3cret.evil.example/", Class::Network, Must::Denied, "carries a secret out in a name that is looked up"),
    told("caller", "ask http://127.0.0.1:{port}/../s3cret", Class::Network, Must::Denied, "goes up"),
    told("caller", "ask http://127.0.0.1:{port}/%2e%2e%2fs3cret", Class::Network, Must::Denied, "goes up, hidden"),
    told("caller", "ask file:///etc/passwd", Class::Network, Must::Failure, "asks for a file"),
    told("caller", "ask gopher://127.0.0.1:{port}/", Class::Network, Must::Failure, "speaks another protocol"),
    told("caller", "ask-raw {host} /v1 HTTP/1.1\r\nhost: evil.example\r\n\r\nGET /", Class::Network, Must::Failure, "smuggles a second request in a path"),
    told("caller", "ask-raw {host} //evil.example/", Class::Network, Must::Denied, "takes another host for a path"),
    told("caller", "ask-raw {host}\r\nx: /", Class::Network, Must::Failure, "smuggles a field in a host"),
    told("caller", "field transfer-encoding: chunked", Class::Network, Must::Failure, "says where a body ends in two ways"),
    told("caller", "field host: evil.example", Class::Network, Must::Failure, "asks another host on the same address"),
    told("caller", "field x: 1\r\nevil: 2", Class::Network, Must::Failure, "smuggles a field in a field"),
    told("caller", "field proxy-authorization: s3cret", Class::Network, Must::Failure, "speaks to a proxy"),
    told("caller", "field upgrade: h2c", Class::Network, Must::Failure, "changes the protocol on the way"),
    told("caller", "ask-again {server}", Class::Network, Must::Failure, "asks more often than it may"),
    told("caller", "ask-at-once {server}", Class::Network, Must::Harmless, "asks very often without waiting"),
    told("caller", "look-up localhost", Class::Network, Must::Harmless, "has a name looked up four hundred times at one time"),
    told("caller", "leave {server}", Class::Network, Must::Harmless, "asks for an answer without end and leaves it"),
    told("noise", "environment", Class::Fingerprint, Must::Harmless, "reads the environment and the arguments of the host"),
    told("noise", "fingerprint", Class::Fingerprint, Must::Harmless, "looks at the clock, at how long work takes, at keys of hashes and at where its memory lies; two instances see the same"),
    told("noise", "flood", Class::Text, Must::Harmless, "prints twenty thousand lines"),
    // Stores.
    told("hostile-stower", "get raw/../secret", Class::Objects, Must::Denied, "goes up"),
    told("hostile-stower", "get ../outside.txt", Class::Objects, Must::Denied, "goes up, out of the store"),
    told("hostile-stower", "get raw/./a", Class::Objects, Must::Denied, "stays where it is"),
    told("hostile-stower", "get /etc/passwd", Class::Objects, Must::Denied, "begins at the root"),
    told("hostile-stower", "get raw//a", Class::Objects, Must::Denied, "has an empty part"),
    told("hostile-stower", "get raw/a/", Class::Objects, Must::Denied, "takes an object for a folder"),
    told("hostile-stower", "get ", Class::Objects, Must::Denied, "has no key at all"),
    told("hostile-stower", "get raw/a\0", Class::Objects, Must::Denied, "ends a key with a zero"),
    told("hostile-stower", "get raw/\x1b[2J", Class::Text, Must::Denied, "a key that clears a terminal"),
    told("hostile-stower", "get raw\\..\\secret", Class::Objects, Must::Denied, "goes up, with backslashes"),
    told("hostile-stower", "get raw/%2e%2e/secret", Class::Objects, Must::Harmless, "goes up, percent-encoded; that is a name like others"),
    told("hostile-stower", "get secret", Class::Objects, Must::Denied, "another prefix"),
    told("hostile-stower", "get raw-secret", Class::Objects, Must::Denied, "what begins like its prefix"),
    told("hostile-stower", "get raw/.sandcast-1", Class::Objects, Must::Denied, "what the host has not finished"),
    told("hostile-stower", "get long", Class::Objects, Must::Denied, "a key of a megabyte"),
    told("hostile-stower", "get raw/link", Class::Objects, Must::Denied, "follows a link of the operator's that leads out"),
    told("hostile-stower", "get raw/up/outside.txt", Class::Objects, Must::Denied, "follows one to a folder outside"),
    told("hostile-stower", "get raw/large", Class::Objects, Must::Failure, "an object over its bound"),
    told("hostile-stower", "get-elsewhere raw/a", Class::Objects, Must::Denied, "another store"),
    told("hostile-stower", "put raw/../planted", Class::Objects, Must::Denied, "puts above"),
    told("hostile-stower", "put secret", Class::Objects, Must::Denied, "puts over another prefix"),
    told("hostile-stower", "put raw/link", Class::Objects, Must::Denied, "puts through a link that leads out"),
    told("hostile-stower", "put raw/up/planted", Class::Objects, Must::Denied, "puts through one to a folder outside"),
    told("hostile-stower", "put-large raw/more", Class::Objects, Must::Failure, "puts an object over its bound"),
    told("hostile-stower", "put-many raw/more", Class::Objects, Must::Failure, "puts more objects than it may"),
    told("hostile-stower", "put-much raw/more", Class::Objects, Must::Failure, "puts more bytes than it may"),
    told("hostile-stower", "forge-tag raw/a", Class::Objects, Must::Harmless, "puts over an object by a tag that means any"),
    told("hostile-stower", "delete secret", Class::Objects, Must::Denied, "takes an object of another prefix away"),
    told("hostile-stower", "delete raw/link", Class::Objects, Must::Denied, "takes a link away"),
    told("hostile-stower", "delete raw/up/outside.txt", Class::Objects, Must::Denied, "takes a file outside away, by a link"),
    told("hostile-stower", "list ", Class::Objects, Must::Denied, "lists everything"),
    told("hostile-stower", "list raw", Class::Objects, Must::Denied, "lists what begins like its prefix"),
    told("hostile-stower", "list raw/../", Class::Objects, Must::Denied, "lists the folder above"),
    told("hostile-stower", "list raw/up/", Class::Objects, Must::Denied, "lists a folder outside, by a link"),
    told("hostile-stower", "list raw/", Class::Objects, Must::Failure, "lists more objects than it is given"),
    told("hostile-stower", "giant-page raw/", Class::Objects, Must::Harmless, "a page of 2^32 - 1 objects; it is given as many as it may have"),
    told("hostile-stower", "empty-page raw/", Class::Objects, Must::Failure, "a page of none"),
    told("hostile-stower", "page-from secret", Class::Objects, Must::Failure, "a cursor in another prefix"),
    told("hostile-stower", "page-from raw/../secret", Class::Objects, Must::Failure, "a cursor that goes up"),
    told("hostile-stower", "page-from raw/a\0", Class::Objects, Must::Failure, "a cursor with a zero"),
    told("hostile-stower", "part-beyond raw/a", Class::Objects, Must::Failure, "a part that begins beyond the end"),
    told("hostile-stower", "part-around raw/a", Class::Objects, Must::Failure, "a part whose end is before its beginning"),
    told("hostile-stower", "empty-part raw/a", Class::Objects, Must::Failure, "a part of nothing"),
    told("hostile-stower", "giant-part raw/a", Class::Objects, Must::Harmless, "a part that is longer than the object"),
    // Secrets.
    told("hostile-thief", "read ../credential", Class::Secrets, Must::Denied, "reads the file of the secret, beside its folder"),
    told("hostile-thief", "read {secret}", Class::Secrets, Must::Denied, "reads it where it is"),
    told("hostile-thief", "read link", Class::Secrets, Must::Denied, "reads it through a link of the operator's"),
    told("hostile-thief", "read /proc/self/environ", Class::Secrets, Must::Denied, "reads the environment of the host"),
    // Components in text: each role, each of its exports.
    told("text-connector", "spin", Class::Spin, Must::Timeout, "spins, in each of its exports"),
    told("text-connector", "trap", Class::Fault, Must::Trap, "traps, in each"),
    told("text-connector", "stack", Class::Memory, Must::Trap, "calls itself without end, in each"),
    told("text-connector", "memory", Class::Memory, Must::Memory, "takes memory until there is none, in each"),
    told("text-connector", "wild", Class::Lies, Must::Trap, "answers with what lies outside its memory, in each"),
    told("text-connector", "spin-in-start", Class::Spin, Must::Timeout, "spins before it is asked anything"),
    told("text-validator", "spin", Class::Spin, Must::Timeout, "the same, as a validator"),
    told("text-validator", "trap", Class::Fault, Must::Trap, "the same, as a validator"),
    told("text-validator", "stack", Class::Memory, Must::Trap, "the same, as a validator"),
    told("text-validator", "memory", Class::Memory, Must::Memory, "the same, as a validator"),
    told("text-validator", "wild", Class::Lies, Must::Trap, "the same, as a validator"),
    told("text-validator", "spin-in-start", Class::Spin, Must::Timeout, "the same, as a validator"),
    told("text-policy", "spin", Class::Spin, Must::Timeout, "the same, as a policy"),
    told("text-policy", "trap", Class::Fault, Must::Trap, "the same, as a policy"),
    told("text-policy", "stack", Class::Memory, Must::Trap, "the same, as a policy"),
    told("text-policy", "memory", Class::Memory, Must::Memory, "the same, as a policy"),
    told("text-policy", "wild", Class::Lies, Must::Trap, "the same, as a policy"),
    told("text-policy", "spin-in-start", Class::Spin, Must::Timeout, "the same, as a policy"),
    told("text-adapter", "spin", Class::Spin, Must::Timeout, "the same, as an adapter"),
    told("text-adapter", "trap", Class::Fault, Must::Trap, "the same, as an adapter"),
    told("text-adapter", "stack", Class::Memory, Must::Trap, "the same, as an adapter"),
    told("text-adapter", "memory", Class::Memory, Must::Memory, "the same, as an adapter"),
    told("text-adapter", "wild", Class::Lies, Must::Trap, "the same, as an adapter"),
    told("text-adapter", "spin-in-start", Class::Spin, Must::Timeout, "the same, as an adapter"),
    // Components in text: what no SDK does.
    told("forger", "handle-zero", Class::Handles, Must::Trap, "asks a batch of the number 0"),
    told("forger", "handle-guessed", Class::Handles, Must::Trap, "asks a batch whose number it guessed"),
    told("forger", "handle-negative", Class::Handles, Must::Trap, "asks one of the number -1"),
    told("forger", "handle-of-another-kind", Class::Handles, Must::Trap, "asks a batch as if it were a dataset"),
    told("forger", "use-after-drop", Class::Handles, Must::Trap, "asks a batch that it let go of"),
    told("forger", "drop-twice", Class::Handles, Must::Trap, "lets go of a batch twice"),
    told("forger", "drop-guessed", Class::Handles, Must::Trap, "lets go of what it never had"),
    told("forger", "handle-in-answer", Class::Handles, Must::Trap, "hands over a batch that it does not have"),
    told("forger", "answer-after-drop", Class::Handles, Must::Trap, "hands over a batch that it let go of"),
    told("forger", "misaligned-answer", Class::Lies, Must::Trap, "answers where no answer can lie"),
    told("forger", "unknown-case", Class::Lies, Must::Trap, "answers with a case that there is not"),
    told("forger", "endless-list", Class::HostMemory, Must::Trap, "a list of 2^32 - 1 things"),
    told("forger", "aliased-names", Class::HostMemory, Must::Limit, "65,536 columns that share one name of 64 KiB"),
    told("forger", "aliased-reasons", Class::HostMemory, Must::Limit, "a million reasons that share one text of 64 KiB"),
    told("forger", "aliased-arguments", Class::HostMemory, Must::Limit, "a batch of 4096 columns that share one megabyte"),
    told("forger", "empty-texts", Class::HostMemory, Must::Limit, "two million reasons without a letter"),
    told("forger", "greedy-allocator", Class::Memory, Must::Trap, "says its memory is where there is none"),
    told("forger", "table-bomb", Class::Memory, Must::Harmless, "grows a table until it gets no more"),
    told("forger", "giant-table", Class::Memory, Must::Trap, "begins with a table of ten million places"),
    told("forger", "giant-memory", Class::Memory, Must::Memory, "begins with a memory over its limit"),
    told("forger", "many-tables", Class::Memory, Must::Trap, "begins with a hundred tables"),
    // Components that are not what they say.
    told("liar", "no-manifest", Class::Manifest, Must::NotLoaded, "says nothing of itself"),
    told("liar", "two-manifests", Class::Manifest, Must::NotLoaded, "says two things of itself"),
    told("liar", "long-manifest", Class::Manifest, Must::NotLoaded, "says 10 MB of itself"),
    told("liar", "nested-manifest", Class::Manifest, Must::NotLoaded, "says it in brackets, 30,000 deep"),
    told("liar", "other-role", Class::Manifest, Must::NotLoaded, "says it plays another role than it does"),
    told("liar", "other-contract", Class::Manifest, Must::NotLoaded, "says it speaks another contract"),
    told("liar", "unasked-import", Class::Manifest, Must::NotLoaded, "asks for nothing and imports the clock"),
    told("liar", "ungranted-import", Class::Manifest, Must::NotLoaded, "asks for the clock, which is not granted, and imports it"),
    told("liar", "unknown-import", Class::Manifest, Must::NotLoaded, "imports what there is not"),
    told("liar", "escapes-in-id", Class::Text, Must::NotLoaded, "has an id that drives a terminal"),
    told("liar", "escapes-in-version", Class::Text, Must::NotLoaded, "has a version that does"),
    told("liar", "many-capabilities", Class::Manifest, Must::Harmless, "asks for a thousand things that there are not"),
    told("liar", "garbage", Class::Manifest, Must::NotLoaded, "is no component"),
    told("liar", "module", Class::Manifest, Must::NotLoaded, "is a module, and no component"),
    told("liar", "cut", Class::Manifest, Must::NotLoaded, "ends in the middle"),
    told("bomb", "too-large", Class::Compiler, Must::NotLoaded, "is larger than components may be"),
    told("bomb", "giant-function", Class::Compiler, Must::NotLoaded, "one function of a million instructions"),
    told("bomb", "giant-table-of-branches", Class::Compiler, Must::NotLoaded, "one function that branches to 200,000 places"),
    told("bomb", "many-functions", Class::Compiler, Must::NotLoaded, "200,000 functions"),
    told("bomb", "deep-nesting", Class::Compiler, Must::NotLoaded, "blocks in blocks, 30,000 deep"),
    told("bomb", "many-locals", Class::Compiler, Must::Harmless, "twenty functions of 49,000 variables each").within(640),
    told("bomb", "functions-as-many-as-allowed", Class::Compiler, Must::Harmless, "65,000 functions, which it may have").within(640),
    told("bomb", "function-as-large-as-allowed", Class::Compiler, Must::Harmless, "functions of 250 KiB, which it may have").within(640),
    told("bomb", "nesting-as-deep-as-allowed", Class::Compiler, Must::Harmless, "blocks in blocks, 9,900 deep, which it may have").within(640),
    told("borrower", "repeated-in-a-field", Class::Secrets, Must::Denied, "asks a server that sends the credential back in a field"),
    told("borrower", "repeated-in-the-body", Class::Secrets, Must::Failure, "asks one that sends it back in its answer"),
    told("borrower", "repeated-in-pieces", Class::Secrets, Must::Failure, "asks one that sends it back cut in two"),
    told("borrower", "repeated-in-a-trailer", Class::Secrets, Must::Failure, "asks one that sends it back behind its answer"),
    told("borrower", "own-credential", Class::Secrets, Must::Failure, "puts a credential of its own in place of the host's"),
    told("borrower", "secret-in-a-name", Class::Secrets, Must::Denied, "carries what it knows out in a name that is looked up"),
    told("borrower", "secret-to-another-port", Class::Secrets, Must::Denied, "carries it to another port of the host that it is granted"),
    told("borrower", "http-that-is-not-granted", Class::Secrets, Must::NotLoaded, "has a way to other hosts, and is granted none"),
    told("borrower", "state-that-is-not-granted", Class::Secrets, Must::NotLoaded, "would leave it where another plugin finds it"),
    told("borrower", "store-that-is-not-granted", Class::Secrets, Must::NotLoaded, "would put it into a store"),
    told("borrower", "database-that-is-not-granted", Class::Secrets, Must::NotLoaded, "would ask a database with it"),
    told("borrower", "file-that-is-not-granted", Class::Secrets, Must::NotLoaded, "would write it into a file"),
    told("connector-csv", "bomb-of-rows", Class::Archive, Must::Harmless, "256 MiB of rows in a quarter of a megabyte of gzip; read as far as they are wanted"),
    told("connector-csv", "bomb-of-one-line", Class::Archive, Must::Failure, "256 MiB of one line in gzip"),
    told("connector-csv", "bomb-of-one-field", Class::Archive, Must::Harmless, "256 MiB in quotes in gzip; set aside row by row, as far as it is read"),
    told("connector-csv", "bomb-of-columns", Class::Archive, Must::Failure, "a header of 50 million columns in gzip"),
];

/// The guests of `tests/guests` whose behaviours are all in rows; the word that a behaviour's name
/// begins with is that of the guest's own list.
const LISTED: [&str; 11] = [
    "caller",
    "hostile-adapter",
    "hostile-asker",
    "hostile-connector",
    "hostile-keeper",
    "hostile-policy",
    "hostile-reader",
    "hostile-stower",
    "hostile-teller",
    "hostile-thief",
    "hostile-validator",
];

/// Rows of these begin with another word than the guest's.
const OWN_WORDS: [&str; 2] = ["field", "look-up"];

/// The behaviours in the source of a guest, with what each says of itself.
fn behaviours(guest: &str) -> BTreeMap<String, String> {
    let path = repository()
        .join("tests/guests")
        .join(guest)
        .join("src/lib.rs");
    let source = fs::read_to_string(path).unwrap_or_else(|error| panic!("{guest}: {error}"));
    let (_, rest) = source
        .split_once("enum Behaviour {")
        .expect("a list of behaviours");
    let (list, _) = rest.split_once("\n}").expect("its end");
    let mut found = BTreeMap::new();
    let mut words = String::new();
    for line in list.lines().map(str::trim) {
        if let Some(said) = line.strip_prefix("/// ") {
            let space = if words.is_empty() { "" } else { " " };
            write!(words, "{space}{said}").expect("a line");
        } else if let Some(name) = line.strip_suffix(',') {
            let mut kebab = String::new();
            for c in name.chars() {
                if c.is_ascii_uppercase() && !kebab.is_empty() {
                    kebab.push('-');
                }
                kebab.push(c.to_ascii_lowercase());
            }
            found.insert(kebab, std::mem::take(&mut words));
        }
    }
    found
}

#[test]
fn every_behaviour_has_a_row_and_every_row_a_behaviour() {
    let rows = all();
    let mut names = BTreeSet::new();
    for row in &rows {
        assert!(names.insert(row.to_string()), "{row} stands twice");
    }
    for guest in LISTED {
        let listed = behaviours(guest);
        let first = |row: &&Row| row.behaviour.split(' ').next().unwrap_or_default();
        let in_rows: BTreeSet<&str> = rows
            .iter()
            .filter(|row| row.guest == guest)
            .map(|row| first(&row))
            .filter(|word| !OWN_WORDS.contains(word))
            .collect();
        let wanted: BTreeSet<&str> = listed
            .keys()
            .map(String::as_str)
            .filter(|name| *name != "behave")
            .collect();
        assert_eq!(in_rows, wanted, "rows and behaviours of {guest}");
    }
    let guests: BTreeSet<&str> = rows.iter().map(|row| row.guest).collect();
    assert_eq!(
        guests,
        BTreeSet::from(crate::RUN),
        "every guest with rows is run"
    );
    let folder = fs::read_dir(repository().join("tests/guests")).expect("the guests");
    for entry in folder {
        let name = entry.expect("an entry").file_name().display().to_string();
        if name.starts_with("hostile-") {
            assert!(guests.contains(name.as_str()), "{name} has no rows");
        }
    }
    assert!(rows.len() >= 60, "{} behaviours", rows.len());
}

/// The rows as a table, for people.
fn table() -> String {
    let rows = all();
    let mut text = format!(
        "# What hostile guests try, and what comes of it\n\n\
         {} behaviours. Written by `tests/tests/hostile`, which runs each of them, measures how far\n\
         the host's heap grows (64 MiB at most, 128 with tensors or with what SQLite holds, unless the row says\n\
         otherwise) and how much linear memory there is (within `limits.memory`), and then has a good guest do\n\
         its work.\n\
         `UPDATE_HOSTILE=1` writes it anew.\n",
        rows.len()
    );
    let sources: BTreeMap<&str, BTreeMap<String, String>> = LISTED
        .iter()
        .map(|guest| (*guest, behaviours(guest)))
        .collect();
    let classes: BTreeSet<Class> = rows.iter().map(|row| row.class).collect();
    for class in classes {
        let of_class: Vec<&Row> = rows.iter().filter(|row| row.class == class).collect();
        write!(
            text,
            "\n## A guest {} ({})\n\n| guest | behaviour | what it does | what comes of it |\n|---|---|---|---|\n",
            class.name(),
            of_class.len()
        )
        .expect("a line");
        for row in of_class {
            let said = sources
                .get(row.guest)
                .and_then(|all| all.get(row.behaviour));
            let tries = if row.tries.is_empty() {
                said.expect("a behaviour that says what it does").as_str()
            } else {
                row.tries
            };
            let more = match row.heap_bytes {
                HEAP_BYTES | HEAP_WITH_MORE_BYTES => String::new(),
                bytes => format!("; at most {} MiB", bytes / MIB),
            };
            let shown: String = row.behaviour.escape_debug().collect();
            writeln!(
                text,
                "| {} | `{shown}` | {} | {}{more} |",
                row.guest,
                tries.trim_end_matches('.'),
                row.must.name()
            )
            .expect("a line");
        }
    }
    text
}

#[test]
fn the_table_for_people_is_that_of_the_tests() {
    let path = repository().join("tests/guests/HOSTILE.md");
    let table = table();
    if std::env::var_os("UPDATE_HOSTILE").is_some() {
        fs::write(&path, &table).expect("the table");
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == table,
        "tests/guests/HOSTILE.md is not what the tests run; run this test again with UPDATE_HOSTILE=1"
    );
}
