//! The processor as a device: entries over pieces of rows, on as many threads as there are.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::decoder::CpuDecoder;
use super::execute::execute;
use super::kept::Kept;
use super::level::Level;
use super::map::{BLOCK, Piece};
use super::memory::{AlignedBuffer, Memory, Span};
use super::threads::Threads;
use super::trainer::CpuTrainer;
use crate::backend::{Backend, Decoder, Engine, Job, Look, Trainer, look_before};
use crate::device::{DeviceError, DeviceInfo, DeviceKind, Precision};
use crate::error::RunError;
use crate::feeds::Bound;
use crate::graph::{DType, Extent};
use crate::plan::Plan;
use crate::program::{Program, Shared, Which};
use crate::shape;
use crate::tensor::{Tensor, TensorData};

/// Floating-point operations below which more threads cost more than they give.
const WORTH_THREADS: u64 = 4_000_000;

/// The processor.
#[derive(Debug)]
pub(crate) struct CpuBackend {
    info: DeviceInfo,
    level: Level,
    threads: Arc<Threads>,
}

impl CpuBackend {
    /// Starts the threads.
    pub(crate) fn open(threads: NonZeroUsize) -> Result<CpuBackend, DeviceError> {
        CpuBackend::open_at(threads, Level::best())
    }

    /// The same with kernels of another level than the best.
    fn open_at(threads: NonZeroUsize, level: Level) -> Result<CpuBackend, DeviceError> {
        let started = Threads::start(threads).map_err(|error| DeviceError::Threads {
            threads: threads.get(),
            reason: error.to_string(),
        })?;
        Ok(CpuBackend {
            info: describe(threads.get()),
            level,
            threads: Arc::new(started),
        })
    }
}

/// What the processor is.
pub(crate) fn describe(threads: usize) -> DeviceInfo {
    let level = Level::best().name();
    DeviceInfo {
        kind: DeviceKind::Cpu,
        name: format!(
            "cpu ({}, {level}, {threads} threads)",
            std::env::consts::ARCH
        ),
        usable: true,
        detail: format!(
            "{} with {level} kernels, {threads} threads",
            std::env::consts::ARCH
        ),
    }
}

impl Backend for CpuBackend {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn threads(&self) -> Option<&Arc<Threads>> {
        Some(&self.threads)
    }

    fn precision(&self, _least: Precision) -> Result<Precision, String> {
        Ok(Precision::F32Strict)
    }

    fn open(
        &self,
        program: Arc<Program>,
        _precision: Precision,
    ) -> Result<Box<dyn Engine>, RunError> {
        Ok(Box::new(CpuEngine {
            weights: AlignedBuffer::zeroed(program.layout.weights),
            program,
            level: self.level,
            threads: Arc::clone(&self.threads),
            shared: OnceLock::new(),
            workspaces: Mutex::new(Vec::new()),
        }))
    }
}

/// A program with its weights on the processor.
pub(crate) struct CpuEngine {
    pub(super) program: Arc<Program>,
    pub(super) level: Level,
    pub(super) threads: Arc<Threads>,
    pub(super) weights: AlignedBuffer,
    /// What depends on the weights alone, for as long as they stay.
    shared: OnceLock<AlignedBuffer>,
    workspaces: Mutex<Vec<Workspace>>,
}

impl fmt::Debug for CpuEngine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = &self.program;
        formatter
            .debug_struct("CpuEngine")
            .field("weights", &program.layout.weights)
            .finish()
    }
}

/// Memory that one run after the other uses.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    slab: AlignedBuffer,
    registers: AlignedBuffer,
    scratch: AlignedBuffer,
    pub(super) inputs: Vec<Span>,
    pub(super) outputs: Vec<Span>,
}

/// What all runs over the pieces of one call read.
#[derive(Clone, Copy)]
pub(super) struct Common {
    pub(super) shared: Span,
    pub(super) weights: Span,
    pub(super) literals: Span,
    pub(super) level: Level,
}

impl Workspace {
    /// Runs a plan over the inputs and outputs that were set.
    ///
    /// # Safety
    /// The spans of `common`, of the inputs and outputs and of the gradients name live memory;
    /// the outputs and the gradients belong to this run alone, and nothing writes the others.
    pub(super) unsafe fn run(
        &mut self,
        plan: &Plan,
        common: Common,
        gradients: Span,
        piece: Piece,
    ) -> Result<(), RunError> {
        // SAFETY: the caller's promise.
        unsafe { self.run_keeping(plan, common, gradients, piece, None) }
    }

    /// The same with the keys and values of a generation.
    ///
    /// # Safety
    /// As [`Workspace::run`]; the pages of the sequences belong to this run alone.
    pub(super) unsafe fn run_keeping(
        &mut self,
        plan: &Plan,
        common: Common,
        gradients: Span,
        piece: Piece,
        kept: Option<&Kept<'_>>,
    ) -> Result<(), RunError> {
        self.slab.reserve(plan.slab);
        self.registers.reserve(plan.registers as usize * BLOCK);
        self.scratch
            .reserve(plan.scratch.max(kept.map_or(0, Kept::scratch)));
        let memory = Memory {
            slab: Span::writable(self.slab.as_mut_slice()),
            shared: common.shared,
            weights: common.weights,
            literals: common.literals,
            gradients,
            inputs: &self.inputs,
            outputs: &self.outputs,
            registers: Span::writable(self.registers.as_mut_slice()),
            scratch: Span::writable(self.scratch.as_mut_slice()),
            kept,
        };
        // SAFETY: the slab and the registers are this workspace's; the rest is promised.
        unsafe { execute(plan, &memory, piece, common.level) }
    }
}

impl CpuEngine {
    /// Borrows a workspace for the length of a call.
    pub(super) fn with_workspace<R>(&self, work: impl FnOnce(&mut Workspace) -> R) -> R {
        let lock = || {
            self.workspaces
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let mut workspace = lock().pop().unwrap_or_default();
        let result = work(&mut workspace);
        workspace.inputs.clear();
        workspace.outputs.clear();
        lock().push(workspace);
        result
    }

    /// Computes what depends on the weights alone.
    pub(super) fn compute_shared(&self, shared: &Shared, piece: Piece, into: &mut AlignedBuffer) {
        into.reserve(shared.layout.elements);
        let span = Span::writable(into.as_mut_slice());
        let common = self.common(span);
        // SAFETY: `into` is borrowed for this run alone. The plan has no inputs, so no number
        // in it can be out of range; if a later version of it could fail, the run would.
        let _ = self.with_workspace(|workspace| unsafe {
            workspace.run(&shared.plan, common, Span::EMPTY, piece)
        });
    }

    pub(super) fn inference_shared(&self) -> Span {
        let shared = self.shared.get_or_init(|| {
            let mut buffer = AlignedBuffer::default();
            self.compute_shared(&self.program.shared, Piece::default(), &mut buffer);
            buffer
        });
        Span::read_only(shared.as_slice())
    }

    pub(super) fn common(&self, shared: Span) -> Common {
        Common {
            shared,
            weights: Span::read_only(self.weights.as_slice()),
            literals: Span::read_only(&self.program.layout.literals),
            level: self.level,
        }
    }

    /// Forgets what was computed from the weights.
    pub(super) fn weights_changed(&mut self) {
        self.shared = OnceLock::new();
    }

    /// Computes the results of a task over all rows of its feeds: pieces of rows, each written
    /// to its place in the results.
    pub(super) fn evaluate(
        &self,
        which: Which,
        feeds: &Bound<'_>,
        look: Look<'_>,
    ) -> Result<Vec<Tensor>, RunError> {
        look_before(0, look)?;
        let task = match (which, &self.program.training) {
            (Which::Entry(index), _) => &self.program.entries[index],
            (_, Some(training)) => &training.evaluation,
            (_, None) => return Err(RunError::NotTrainable { what: "loss" }),
        };
        let rows = task.rows.map(|rows| feeds.extent(rows));
        let piece_rows = rows.map_or(1, |rows| rows.clamp(1, task.piece_rows(&feeds.symbols)));
        let pieces = rows.map_or(1, |rows| rows.div_ceil(piece_rows).max(1));
        let by_rows = |shape: &[Extent]| match (shape.first(), task.rows) {
            (Some(Extent::Symbol(leading)), Some(rows)) => *leading == rows,
            _ => false,
        };
        let mut results: Vec<(Vec<usize>, TensorData)> = task
            .results
            .iter()
            .map(|result| {
                let extents = shape::resolve(&result.shape, &feeds.symbols);
                let elements = extents.iter().product();
                let data = match result.dtype {
                    DType::Float32 => TensorData::F32(vec![0.0; elements]),
                    DType::Int32 => TensorData::I32(vec![0; elements]),
                };
                (extents, data)
            })
            .collect();
        // Per result: where it begins, elements of one row, and whether it has rows.
        let targets: Vec<(Span, usize, bool)> = results
            .iter_mut()
            .zip(&task.results)
            .map(|((extents, data), wanted)| {
                let span = match data {
                    TensorData::F32(values) => Span::writable(values),
                    TensorData::I32(values) => Span::writable_int(values),
                };
                let per_row = extents.get(1..).map_or(1, |rest| rest.iter().product());
                (span, per_row, by_rows(&wanted.shape))
            })
            .collect();
        let common = self.common(self.inference_shared());
        let run_piece = |index: usize, plan: &Plan| {
            let first = index * piece_rows;
            let count = rows.map_or(0, |rows| piece_rows.min(rows - first));
            self.with_workspace(|workspace| {
                self.set_inputs(workspace, feeds, task.rows, first, count);
                // A result without rows is the same from every piece; the first keeps it.
                let mut aside: Vec<AlignedBuffer> = Vec::new();
                for (span, per_row, has_rows) in &targets {
                    workspace.outputs.push(if *has_rows {
                        span.part(first * per_row, count * per_row)
                    } else if index == 0 {
                        *span
                    } else {
                        aside.push(AlignedBuffer::zeroed(span.elements()));
                        aside.last_mut().map_or(Span::EMPTY, |buffer| {
                            Span::writable(buffer.as_mut_slice()).part(0, span.elements())
                        })
                    });
                }
                let piece = Piece {
                    first_row: first,
                    rows: count,
                    ..Piece::default()
                };
                // SAFETY: the results, the feeds and the weights outlive the run. Pieces write
                // other rows of the results, or memory of their own.
                unsafe { workspace.run(plan, common, Span::EMPTY, piece) }
            })
        };
        let mut symbols = feeds.symbols.clone();
        let mut plan_for = |count: usize| {
            if let Some(rows) = task.rows {
                symbols[rows as usize] = count;
            }
            self.program.plan(which, &symbols)
        };
        if pieces == 1 {
            run_piece(0, &plan_for(rows.unwrap_or(0)))?;
        } else {
            let last = rows.map_or(0, |rows| rows - (pieces - 1) * piece_rows);
            let plans = [plan_for(piece_rows), plan_for(last)];
            let outcome = Mutex::new(Ok(()));
            let work = |index: usize| {
                let may_begin = look_before(index, look);
                let result = may_begin
                    .and_then(|()| run_piece(index, &plans[usize::from(index + 1 == pieces)]));
                if let Err(error) = result {
                    // The first piece that fails is the one that is reported.
                    let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
                    let earlier = matches!(*outcome, Err((before, _)) if before < index);
                    if !earlier {
                        *outcome = Err((index, error));
                    }
                }
            };
            if plans[0].flops.saturating_mul(pieces as u64) >= WORTH_THREADS {
                self.threads.run(pieces, &work);
            } else {
                (0..pieces).for_each(work);
            }
            let outcome = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
            outcome.map_err(|(_, error)| error)?;
        }
        let tensors = results
            .into_iter()
            .map(|(shape, data)| Tensor::new(shape, data));
        tensors
            .collect::<Result<_, _>>()
            .map_err(|error| RunError::Device {
                what: error.to_string(),
            })
    }

    /// Points the inputs of a workspace at rows `first..first + count` of the feeds.
    pub(super) fn set_inputs(
        &self,
        workspace: &mut Workspace,
        feeds: &Bound<'_>,
        rows: Option<u32>,
        first: usize,
        count: usize,
    ) {
        for (info, tensor) in self.program.inputs.iter().zip(&feeds.inputs) {
            let Some(tensor) = tensor else {
                workspace.inputs.push(Span::EMPTY);
                continue;
            };
            let span = span_of(tensor);
            let leading = info.shape.first().copied();
            workspace.inputs.push(match rows {
                Some(rows) if leading == Some(Extent::Symbol(rows)) => {
                    let per_row: usize = tensor.shape()[1..].iter().product();
                    span.part(first * per_row, count * per_row)
                }
                _ => span,
            });
        }
    }
}

/// The values of a tensor, to be read.
pub(super) fn span_of(tensor: &Tensor) -> Span {
    match tensor.data() {
        TensorData::F32(values) => Span::read_only(values),
        TensorData::I32(values) => Span::read_only_int(values),
    }
}

impl Engine for CpuEngine {
    fn weights(&self) -> Vec<Vec<f32>> {
        let program = &self.program;
        let parameters = program.parameters().iter().zip(&program.layout.parameters);
        parameters
            .map(|(parameter, offset)| {
                self.weights.as_slice()[*offset..][..parameter.elements()].to_vec()
            })
            .collect()
    }

    fn set_weights(&mut self, weights: &[Vec<f32>]) {
        for (values, offset) in weights.iter().zip(&self.program.layout.parameters) {
            self.weights.as_mut_slice()[*offset..][..values.len()].copy_from_slice(values);
        }
        self.weights_changed();
    }

    fn infer(
        &self,
        entry: usize,
        feeds: &Bound<'_>,
        look: Look<'_>,
    ) -> Result<Vec<Tensor>, RunError> {
        self.evaluate(Which::Entry(entry), feeds, look)
    }

    fn train<'a>(&'a mut self, job: Job<'a>) -> Result<Box<dyn Trainer + 'a>, RunError> {
        Ok(Box::new(CpuTrainer::new(self, job)?))
    }

    fn decoder(&self, slots: usize) -> Result<Box<dyn Decoder + '_>, RunError> {
        Ok(Box::new(CpuDecoder::new(self, slots)?))
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::super::level::{PORTABLE_FUSED, Set};
    use super::*;
    use crate::device::Device;
    use crate::graph::*;
    use crate::session::Session;
    use crate::tensor::Feeds;
    use crate::train::{Schedule, TrainPlan};
    use crate::{Caps, Program};

    /// A program with every kind of kernel that rounds.
    fn program() -> Arc<Program> {
        let rows = Extent::Symbol(0);
        let mut graph = Graph {
            symbols: vec![Symbol {
                name: "rows".into(),
                maximum: 512,
            }],
            optimizer: Some(Optimizer::Adam(Adam {
                beta1: 0.9,
                beta2: 0.999,
                epsilon: 1e-8,
                weight_decay: 0.01,
                decoupled: true,
            })),
            ..Graph::default()
        };
        let mut node = |node| {
            graph.nodes.push(node);
            graph.nodes.len() as u32 - 1
        };
        let parameter = |name: &str, shape: &[u32], initializer| {
            let (name, shape) = (name.into(), shape.to_vec());
            Node::Parameter(Parameter {
                name,
                shape,
                initializer,
                trainable: true,
            })
        };
        let shape = vec![rows, Extent::Fixed(9)];
        let x = node(Node::Input(Input {
            name: "x".into(),
            dtype: DType::Float32,
            shape,
        }));
        let right = node(parameter("w", &[9, 45], Initializer::HeUniform));
        let sum = node(Node::Matmul(MatmulNode { left: x, right }));
        let mut operand = sum;
        for operation in [
            UnaryOperation::Gelu,
            UnaryOperation::Silu,
            UnaryOperation::Softplus,
        ] {
            operand = node(Node::Unary(UnaryNode { operation, operand }));
        }
        let operand = node(Node::Dropout(DropoutNode { operand, rate: 0.2 }));
        let scale = node(parameter("scale", &[45], Initializer::Ones));
        let offset = node(parameter("offset", &[45], Initializer::Zeros));
        let norm = LayerNormNode {
            operand,
            scale,
            offset,
            epsilon: 1e-5,
        };
        let operand = node(Node::LayerNorm(norm));
        let operand = node(Node::Unary(UnaryNode {
            operation: UnaryOperation::Tanh,
            operand,
        }));
        let right = node(parameter("v", &[45, 5], Initializer::GlorotUniform));
        let operand = node(Node::Matmul(MatmulNode {
            left: operand,
            right,
        }));
        let softmax = node(Node::Softmax(SoftmaxNode {
            operand,
            axis: 1,
            logarithm: false,
        }));
        let labels = node(Node::Argmax(ArgmaxNode {
            operand: x,
            axis: 1,
        }));
        let five = node(Node::I32Constant(I32Literal {
            shape: vec![],
            values: vec![4],
        }));
        let labels = node(Node::Binary(BinaryNode {
            operation: BinaryOperation::Minimum,
            left: labels,
            right: five,
        }));
        let per_row = node(Node::CrossEntropy(CrossEntropyNode {
            logits: operand,
            labels,
        }));
        let outputs = vec![Output {
            name: "shares".into(),
            node: softmax,
        }];
        graph.entries.push(Entry {
            name: "predict".into(),
            outputs,
        });
        graph.loss = Some(Loss {
            per_row,
            weight: None,
        });
        Arc::new(Program::compile(graph, &Caps::default()).expect("the graph compiles"))
    }

    /// So many results for each row, of which it declares one.
    fn wide(columns: u32) -> Session {
        let mut graph = Graph {
            symbols: vec![Symbol {
                name: "rows".into(),
                maximum: 1,
            }],
            ..Graph::default()
        };
        graph.nodes = vec![
            Node::Input(Input {
                name: "x".into(),
                dtype: DType::Float32,
                shape: vec![Extent::Symbol(0), Extent::Fixed(1)],
            }),
            Node::Parameter(Parameter {
                name: "w".into(),
                shape: vec![1, columns],
                initializer: Initializer::Ones,
                trainable: true,
            }),
            Node::Matmul(MatmulNode { left: 0, right: 1 }),
        ];
        graph.entries.push(Entry {
            name: "predict".into(),
            outputs: vec![Output {
                name: "y".into(),
                node: 2,
            }],
        });
        let program = Program::compile(graph, &Caps::default()).expect("the graph compiles");
        let backend = CpuBackend::open_at(NonZeroUsize::MIN, Level::best()).expect("a backend");
        Session::new(Arc::new(program), &Device::with(backend), 1).expect("a session")
    }

    fn fed(rows: usize) -> Feeds {
        let x = Tensor::from_f32(vec![rows, 1], vec![1.0; rows]).expect("as many values");
        Feeds::from([("x".to_owned(), x)])
    }

    #[test]
    fn rows_beyond_the_maximum_are_priced_before_anything_is_made() {
        let session = wide(1 << 20);
        let price = session.price("predict", &fed(4)).expect("a price");
        assert!(
            price.bytes >= 16 << 20 && price.flops >= 4 << 20,
            "{price:?}"
        );
        let of_rows = session.price_of_rows("predict", 4).expect("a price");
        assert_eq!(of_rows, price);
        session.infer("predict", &fed(4)).expect("four rows");
        let over = session.infer("predict", &fed(1 << 20));
        assert!(matches!(
            over,
            Err(RunError::TooLarge { what: "bytes", .. })
        ));
    }

    #[test]
    fn a_run_is_looked_at_between_pieces() {
        let session = wide(1 << 10);
        let looks = std::sync::atomic::AtomicUsize::new(0);
        let second = || match looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 | 1 => ControlFlow::Continue(()),
            _ => ControlFlow::Break(crate::StopReason::Cancelled),
        };
        let rows = 2 * crate::program::PIECE_ROWS + 1;
        let stopped = session.infer_watched("predict", &fed(rows), &second);
        assert!(matches!(stopped, Err(RunError::Stopped { step: 2, .. })));
        assert_eq!(looks.into_inner(), 4);
    }

    #[test]
    fn every_processor_that_fuses_gives_the_same_bits() {
        let program = program();
        let x = (0..300 * 9)
            .map(|index| ((index * 7919) % 1000) as f32 / 500.0 - 1.0)
            .collect();
        let x = Tensor::from_f32(vec![300, 9], x).expect("as many values");
        let feeds = Feeds::from([("x".to_owned(), x)]);
        let plan = TrainPlan {
            epochs: 3,
            epoch_rows: None,
            batch_rows: 256,
            accumulate_steps: 1,
            learning_rate: 1e-2,
            schedule: Schedule::Constant,
            clip_norm: Some(0.5),
            patience: None,
            shuffle: true,
        };
        let results: Vec<_> = Level::available()
            .into_iter()
            .filter(|level| level.set() != Set::Portable || PORTABLE_FUSED)
            .map(|level| {
                let backend = CpuBackend::open_at(NonZeroUsize::MIN, level).expect("a backend");
                let device = Device::with(backend);
                let mut session =
                    Session::new(Arc::clone(&program), &device, 3).expect("a session");
                let go_on = &mut |_: crate::Progress<'_>| ControlFlow::Continue(());
                session
                    .train(&feeds, None, &plan, go_on)
                    .expect("a training");
                (
                    session.to_safetensors(),
                    session.infer("predict", &feeds).expect("results"),
                )
            })
            .collect();
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]));
    }
}
