//! What a program written down consists of.

use serde::Serialize;

use super::Stage;
use crate::program::Cost;

/// A program written down. Its `Display` is the text; [`Listing::picture`] draws it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Listing {
    /// Which form.
    pub stage: Stage,
    /// blake3 of the graph, in hexadecimal.
    pub digest: String,
    /// The extents that are known only when the program runs.
    pub symbols: Vec<SymbolLine>,
    /// What is computed, each by itself.
    pub functions: Vec<Function>,
}

/// A symbol of the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SymbolLine {
    /// Its name.
    pub name: String,
    /// The largest value it may have.
    pub maximum: u32,
    /// The value that the listing is made for, where it is made for one.
    pub value: Option<usize>,
}

/// Something that is computed: an entry, a training step, or the whole graph.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Function {
    /// `program`, `func` or `plan`: what the text calls it.
    pub keyword: &'static str,
    /// The name of the entry; `loss` is one training step.
    pub name: Option<String>,
    /// What is to be known of it as a whole, a sentence each.
    pub notes: Vec<String>,
    /// What one run costs, where the form knows it.
    pub cost: Option<Cost>,
    /// What is done, in order.
    pub lines: Vec<Line>,
    /// What is given back.
    pub returns: Vec<Returned>,
    /// What else the graph declares, a line each.
    pub declares: Vec<String>,
    /// What a picture ends in beside what is given back: a name, and the place of a line.
    #[serde(skip)]
    pub(super) ends: Vec<(String, usize)>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Line {
    /// The name of its result: `%3`, or `slab[0..8192]`.
    pub result: String,
    /// What is done.
    pub operation: String,
    /// To what.
    pub operands: Vec<Operand>,
    /// How: a word and what it is set to, or a word alone.
    pub attributes: Vec<(String, Option<String>)>,
    /// What comes of it: `f32[rows, 256]`.
    pub gives: Option<String>,
    /// What it came from or stands for.
    pub note: Option<String>,
    /// The steps of a fused loop.
    pub body: Vec<String>,
    /// What sort of step it is.
    pub kind: LineKind,
}

/// What a step reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Operand {
    /// As the text names it.
    pub text: String,
    /// The places, among the lines of the function, of the steps that made it.
    pub made_by: Vec<usize>,
}

/// Something that is given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Returned {
    /// The name under which it is given back.
    pub name: String,
    /// The value, as the text names it.
    pub value: String,
    /// The place of the line that made it; none where none of this function did.
    pub made_by: Option<usize>,
}

/// What sort of step a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LineKind {
    /// An input.
    Input,
    /// A parameter or a number written into the graph.
    Held,
    /// The same elements under another shape or in another order.
    View,
    /// Each element by itself.
    Map,
    /// A matrix product.
    Product,
    /// Everything else.
    Kernel,
}
