//! Generation on the processor: runs of the program over the new positions alone, the sequences
//! shared out among the threads.

use std::sync::{Arc, Mutex, PoisonError};

use super::engine::CpuEngine;
use super::kept::{Kept, Layer, PAGE, Pages, Sequence};
use super::map::Piece;
use super::memory::Span;
use crate::backend::Decoder;
use crate::error::RunError;
use crate::program::{Generating, Program, Which};

/// Floating-point operations below which more threads cost more than they give.
const WORTH_THREADS: u64 = 4_000_000;

/// Sequences under way.
pub(super) struct CpuDecoder<'a> {
    engine: &'a CpuEngine,
    program: Arc<Program>,
    pages: Pages,
    slots: Vec<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    length: usize,
    pages: Vec<u32>,
}

impl<'a> CpuDecoder<'a> {
    pub(super) fn new(engine: &'a CpuEngine, slots: usize) -> Result<CpuDecoder<'a>, RunError> {
        let program = Arc::clone(&engine.program);
        let layers = generating(&program)?
            .layers
            .iter()
            .map(|layer| Layer {
                id: layer.id,
                page_elements: layer.elements * PAGE,
                keys: Default::default(),
                values: Default::default(),
            })
            .collect();
        Ok(CpuDecoder {
            engine,
            program,
            pages: Pages::new(layers),
            slots: (0..slots).map(|_| Slot::default()).collect(),
        })
    }
}

fn generating(program: &Program) -> Result<&Generating, RunError> {
    program.generating.as_ref().ok_or(RunError::NotGenerating)
}

impl Decoder for CpuDecoder<'_> {
    fn advance(&mut self, slots: &[usize], tokens: &[i32]) -> Result<Vec<f32>, RunError> {
        let program = Arc::clone(&self.program);
        let of = generating(&program)?;
        let time = tokens.len() / slots.len().max(1);
        for slot in slots {
            let slot = &mut self.slots[*slot];
            while slot.pages.len() * PAGE < slot.length + time {
                slot.pages.push(self.pages.take());
            }
        }
        let layers = self.pages.spans();
        let mut symbols = vec![0; program.graph().symbols.len()];
        symbols[of.time as usize] = time;
        let mut plan_for = |count: usize| {
            symbols[of.rows as usize] = count;
            program.plan(Which::Generation, &symbols)
        };
        let threads = &self.engine.threads;
        let worth = plan_for(slots.len()).flops >= WORTH_THREADS;
        let pieces = if worth {
            threads.count().min(slots.len()).max(1)
        } else {
            1
        };
        let size = slots.len().div_ceil(pieces).max(1);
        let plans = [
            plan_for(size),
            plan_for(slots.len() - (slots.len() - 1) / size * size),
        ];
        let pieces = slots.len().div_ceil(size);
        let common = self.engine.common(self.engine.inference_shared());
        let width = time * of.vocabulary;
        let mut logits = vec![0.0; slots.len() * width];
        let whole = Span::writable(&mut logits);
        let all = &self.slots;
        let outcome = Mutex::new(Ok(()));
        let run = |index: usize| {
            let first = index * size;
            let chosen = &slots[first..(first + size).min(slots.len())];
            let kept = Kept {
                layers: &layers,
                sequences: chosen
                    .iter()
                    .map(|slot| Sequence {
                        length: all[*slot].length,
                        pages: &all[*slot].pages,
                    })
                    .collect(),
            };
            let tokens = &tokens[first * time..][..chosen.len() * time];
            let positions: Vec<i32> = kept
                .sequences
                .iter()
                .flat_map(|sequence| (sequence.length..sequence.length + time).map(|at| at as i32))
                .collect();
            let result = self.engine.with_workspace(|workspace| {
                for input in 0..program.inputs.len() as u32 {
                    workspace.inputs.push(if input == of.tokens {
                        Span::read_only_int(tokens)
                    } else if of.positions == Some(input) {
                        Span::read_only_int(&positions)
                    } else {
                        Span::EMPTY
                    });
                }
                workspace
                    .outputs
                    .push(whole.part(first * width, chosen.len() * width));
                let piece = Piece {
                    rows: chosen.len(),
                    ..Piece::default()
                };
                let plan = &plans[usize::from(index + 1 == pieces)];
                // SAFETY: tokens, positions and logits outlive the run; pieces write other rows
                // of the logits and pages of other sequences.
                unsafe { workspace.run_keeping(plan, common, Span::EMPTY, piece, Some(&kept)) }
            });
            if let Err(error) = result {
                *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Err(error);
            }
        };
        if pieces > 1 {
            threads.run(pieces, &run);
        } else {
            (0..pieces).for_each(run);
        }
        outcome
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)?;
        for slot in slots {
            self.slots[*slot].length += time;
        }
        let last = logits
            .chunks_exact(width.max(1))
            .flat_map(|rows| &rows[width - of.vocabulary..]);
        Ok(last.copied().collect())
    }

    fn length(&self, slot: usize) -> usize {
        self.slots[slot].length
    }

    fn clear(&mut self, slot: usize) {
        let slot = &mut self.slots[slot];
        slot.length = 0;
        self.pages.give_back(&mut slot.pages);
    }
}
