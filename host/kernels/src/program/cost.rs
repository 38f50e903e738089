//! What running costs, found before anything runs.

use std::collections::BTreeMap;

use super::{Cost, Diagnostic, GenerationCost, Program, Task, Which};
use crate::caps::Caps;
use crate::cpu::PAGE;
use crate::error::RunError;
use crate::generate::{PROMPT_PIECE, PROMPT_TOKENS};
use crate::graph::{Extent, Optimizer};
use crate::shape;
use crate::show::ShowError;

/// The largest number of shards of a batch, so that gradients of a large batch stay few.
const SHARDS: usize = 32;

impl Program {
    /// What everything costs with symbols at their maximum.
    pub(super) fn price(&self, caps: &Caps) -> Result<Vec<Cost>, Diagnostic> {
        let largest: Vec<usize> = self
            .graph
            .symbols
            .iter()
            .map(|symbol| symbol.maximum as usize)
            .collect();
        let entries = self
            .entries
            .iter()
            .enumerate()
            .map(|(index, task)| (Which::Entry(index), task));
        let step = self
            .training
            .iter()
            .map(|training| (Which::Step, &training.evaluation));
        let mut costs = Vec::new();
        for (which, task) in entries.chain(step) {
            let cost = self.cost(which, task, &largest);
            for (what, found, cap) in [
                ("floating-point operations", cost.flops, caps.flops),
                ("bytes at the peak", cost.peak_bytes, caps.peak_bytes),
            ] {
                if found > cap {
                    return Err(Diagnostic {
                        node: None,
                        message: format!(
                            "`{}` takes {found} {what} with symbols at their maximum, over the cap of \
                             {cap}",
                            task.name
                        ),
                    });
                }
            }
            costs.push(cost);
        }
        Ok(costs)
    }

    /// What each entry costs, in the order of the graph, then `loss` where there is one: for
    /// these extents by name, the others at their maximum. Nothing runs.
    ///
    /// # Errors
    /// When a symbol is not of this program, or cannot be what is asked.
    pub fn costs_at(&self, extents: &BTreeMap<String, usize>) -> Result<Vec<Cost>, ShowError> {
        let extents = self.extents(extents)?;
        let tasks = self.chosen(None)?;
        Ok(tasks
            .into_iter()
            .filter(|(which, _)| *which != Which::Generation)
            .map(|(which, task)| self.cost(which, task, &extents))
            .collect())
    }

    /// The extents of one piece of a task's work, and how many pieces there are.
    pub(crate) fn piece(
        &self,
        which: Which,
        task: &Task,
        largest: &[usize],
    ) -> (Vec<usize>, usize) {
        let mut piece = largest.to_vec();
        let Some(rows) = task.rows else {
            return (piece, 1);
        };
        let rows = rows as usize;
        let size = if which == Which::Step {
            task.shard_rows(largest[rows], largest)
        } else {
            task.piece_rows(largest)
        };
        piece[rows] = largest[rows].min(size);
        (piece, largest[rows].div_ceil(size))
    }

    pub(crate) fn cost(&self, which: Which, task: &Task, largest: &[usize]) -> Cost {
        let whole = self.make_plan(which, largest);
        let shared = match (which, &self.training) {
            (Which::Step, Some(training)) => &training.shared,
            _ => &self.shared,
        };
        // What is cut holds only pieces at a time.
        let (piece, pieces) = self.piece(which, task, largest);
        let slab = if piece == *largest {
            whole.slab
        } else {
            self.make_plan(which, &piece).slab
        };
        let elements = |shape: &[Extent]| shape::resolve(shape, largest).iter().product::<usize>();
        let fed: usize = task
            .inputs
            .iter()
            .map(|index| elements(&self.inputs[*index as usize].shape))
            .sum();
        let results: usize = task
            .results
            .iter()
            .map(|result| elements(&result.shape))
            .sum();
        let scratch = if piece == *largest {
            whole.scratch
        } else {
            self.make_plan(which, &piece).scratch
        };
        let slab = slab.saturating_add(scratch);
        let mut held = self.layout.weights + shared.layout.elements + fed + results;
        if which == Which::Step {
            let kept = match self.graph.optimizer {
                Some(Optimizer::Adam(_)) => 3,
                _ => 2,
            };
            held = held.saturating_add((kept + pieces) * self.layout.trainable);
            held = held.saturating_add(pieces.saturating_mul(slab));
        } else {
            held = held.saturating_add(slab);
        }
        Cost {
            entry: task.name.clone(),
            flops: whole.flops.saturating_add(shared.plan.flops),
            bytes_moved: whole.bytes_moved.saturating_add(shared.plan.bytes_moved),
            peak_bytes: (held as u64).saturating_mul(4),
        }
    }
}

/// What one run of an entry over given inputs comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunPrice {
    /// Floating-point operations.
    pub flops: u64,
    /// Those of one piece of rows: what is done between two looks at a watch.
    pub piece_flops: u64,
    /// Bytes of the results, and of what is worked with. Weights and inputs are not in it.
    pub bytes: u64,
}

impl RunPrice {
    /// Refuses what is over the caps of any program.
    pub(crate) fn check(&self, entry: &str) -> Result<(), RunError> {
        let caps = Caps::default();
        for (what, found, limit) in [
            ("bytes", self.bytes, caps.peak_bytes),
            (
                "floating-point operations at a time",
                self.piece_flops,
                caps.flops,
            ),
        ] {
            if found > limit {
                return Err(RunError::TooLarge {
                    entry: entry.to_owned(),
                    what,
                    found,
                    limit,
                });
            }
        }
        Ok(())
    }
}

impl Program {
    /// What a run comes to with these extents on so many threads. Rows may be over the maximum that
    /// is declared, so nothing that was found with symbols at their maximum holds for it.
    pub(crate) fn price_of_run(
        &self,
        which: Which,
        task: &Task,
        symbols: &[usize],
        threads: usize,
    ) -> RunPrice {
        let rows = task.rows.map(|rows| symbols[rows as usize]);
        let piece_rows = rows.map_or(1, |rows| rows.clamp(1, task.piece_rows(symbols)));
        let pieces = rows.map_or(1, |rows| rows.div_ceil(piece_rows).max(1)) as u64;
        let mut piece = symbols.to_vec();
        if let Some(symbol) = task.rows {
            let rows = &mut piece[symbol as usize];
            *rows = piece_rows.min(*rows);
        }
        let plan = self.plan(which, &piece);
        let at_once = pieces.min(threads as u64).max(1);
        let product = |shape: &[Extent]| {
            let extents = shape::resolve(shape, symbols).into_iter();
            extents.fold(1, |product: u64, extent| {
                product.saturating_mul(extent as u64)
            })
        };
        let results = task.results.iter().map(|result| {
            let leading = result.shape.first();
            let has_rows = matches!((leading, task.rows), (Some(Extent::Symbol(one)), Some(rows)) if *one == rows);
            // Each piece has one of its own where it is of all rows.
            let copies = if has_rows { 1 } else { at_once };
            product(&result.shape).saturating_mul(copies)
        });
        let worked = (plan.slab as u64)
            .saturating_add(plan.scratch as u64)
            .saturating_mul(at_once);
        let elements = results
            .fold(worked, u64::saturating_add)
            .saturating_add(self.shared.layout.elements as u64);
        RunPrice {
            flops: plan
                .flops
                .saturating_mul(pieces)
                .saturating_add(self.shared.plan.flops),
            piece_flops: plan.flops,
            bytes: elements.saturating_mul(4),
        }
    }
}

impl Program {
    /// What generating costs at most, so many sequences at a time, each of at most `length`
    /// tokens with its prompt; none for a program that cannot generate.
    pub fn generation_cost(&self, slots: usize, length: usize) -> Option<GenerationCost> {
        let of = self.generating.as_ref()?;
        let length = length.clamp(1, of.context);
        let plan = |rows: usize, time: usize| {
            let mut symbols = vec![0; self.graph.symbols.len()];
            symbols[of.rows as usize] = rows;
            symbols[of.time as usize] = time;
            self.make_plan(Which::Generation, &symbols)
        };
        let piece = PROMPT_PIECE.min(of.context);
        let (prompt, step) = (plan(1, piece), plan(slots, 1));
        let slots = slots as u64;
        let product = |factors: &[u64]| factors.iter().fold(1, |a: u64, b| a.saturating_mul(*b));
        // Scores against everything that is kept, and the sums of it.
        let attended = of.layers.iter().map(|layer| {
            let query = shape::resolve(&self.ir.shape(layer.id)[2..], &[]);
            product(&[4, query.iter().product::<usize>() as u64, length as u64])
        });
        let attended = attended.fold(0, u64::saturating_add);
        let read = PROMPT_TOKENS.div_ceil(piece) as u64;
        let flops = step
            .flops
            .saturating_add(product(&[read, prompt.flops]))
            .saturating_add(product(&[
                slots.saturating_add(PROMPT_TOKENS as u64),
                attended,
            ]));
        // Memory for pages doubles as it grows, and one layer at a time is copied over.
        let pages = slots.saturating_mul(length.div_ceil(PAGE) as u64).max(8);
        let page = |elements: usize| product(&[pages, elements as u64, PAGE as u64, 2]);
        let layers = of.layers.iter().map(|layer| page(layer.elements));
        let kept = layers
            .clone()
            .fold(0, u64::saturating_add)
            .saturating_mul(2);
        let copied = layers.max().unwrap_or(0);
        let worked = [&prompt, &step].map(|plan| (plan.slab + plan.scratch) as u64);
        // Logits of a piece of a prompt and of a step, and what choosing from one of them takes.
        let rows = slots.saturating_add(piece as u64).saturating_add(8);
        let logits = product(&[2, of.vocabulary as u64, rows]);
        let scores = product(&[slots, (length + PAGE) as u64]);
        let elements = [kept, copied, worked[0], worked[1], logits, scores]
            .into_iter()
            .fold(0, u64::saturating_add);
        Some(GenerationCost {
            flops_of_step: flops,
            peak_bytes: elements.saturating_mul(4),
        })
    }
}

impl Task {
    /// Rows of one shard of a batch: a function of the program and of the extents of the batch
    /// alone, so that the order of sums does not depend on the number of threads.
    pub(crate) fn shard_rows(&self, batch_rows: usize, symbols: &[usize]) -> usize {
        batch_rows
            .div_ceil(SHARDS)
            .max(1)
            .next_multiple_of(self.piece_rows(symbols))
    }
}
