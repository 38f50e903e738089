//! Bounds on what a graph may ask for, checked before anything is allocated.

/// Hard limits on a graph. A graph over one of them is refused with a diagnostic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Nodes in a graph.
    pub nodes: usize,
    /// Symbols in a graph.
    pub symbols: usize,
    /// Entries in a graph, and outputs of one entry.
    pub entries: usize,
    /// Extents of one tensor; at most [`Caps::RANK`].
    pub rank: usize,
    /// Operands of all concatenate nodes together.
    pub operands: usize,
    /// Bytes of one name.
    pub name_bytes: usize,
    /// Elements of one tensor, with every symbol at its maximum.
    pub elements_per_tensor: u64,
    /// Elements of all literals together.
    pub literal_elements: u64,
    /// Bytes of all parameters together.
    pub parameters_bytes: u64,
    /// Bytes that one run of an entry, or one training step, may hold at its peak, as in
    /// [`Cost::peak_bytes`](crate::Cost::peak_bytes).
    pub peak_bytes: u64,
    /// Floating-point operations of one run of an entry or one training step: what can happen
    /// between two looks at a cancellation.
    pub flops: u64,
}

impl Caps {
    /// The largest rank that kernels know.
    pub const RANK: usize = 8;
}

impl Default for Caps {
    fn default() -> Self {
        Caps {
            nodes: 4096,
            symbols: 8,
            entries: 16,
            rank: Caps::RANK,
            operands: 16_384,
            name_bytes: 256,
            elements_per_tensor: 1 << 30,
            literal_elements: 1 << 24,
            parameters_bytes: 1 << 32,
            peak_bytes: 1 << 34,
            flops: 1 << 42,
        }
    }
}
