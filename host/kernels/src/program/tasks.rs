//! What is computed together: the results of an entry, or the losses of a step and their
//! gradients.

use super::{Diagnostic, Program, Shared};
use crate::check::Type;
use crate::graph::{DType, Extent, Shape};
use crate::ir::{self, Lowered, ValueId};

/// Values that are wanted together.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) name: String,
    pub(crate) results: Vec<Wanted>,
    /// The inputs that it needs, by index, in order.
    pub(crate) inputs: Vec<u32>,
    /// The symbol along which it may be cut into pieces.
    pub(crate) rows: Option<u32>,
}

/// A value that is wanted.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    pub(crate) value: ValueId,
    pub(crate) dtype: DType,
    pub(crate) shape: Shape,
}

/// What training computes.
#[derive(Debug)]
pub(crate) struct Training {
    /// The losses, and the weights of the rows where there are any, without dropout.
    pub(crate) evaluation: Task,
    /// The same with dropout.
    pub(super) step: Vec<ValueId>,
    /// The gradient of each trainable parameter, by index of the parameter, where the loss
    /// depends on it.
    pub(super) gradients: Vec<(usize, ValueId)>,
    /// The symbol that counts rows.
    pub(crate) rows: u32,
    pub(crate) shared: Shared,
}

impl Training {
    /// The evaluation as if it could be cut along the rows: for feeds of which each batch takes
    /// its share.
    pub(crate) fn evaluation_by_batch(&self) -> Task {
        Task {
            name: self.evaluation.name.clone(),
            results: Vec::new(),
            inputs: self.evaluation.inputs.clone(),
            rows: Some(self.rows),
        }
    }
}

impl Program {
    pub(super) fn entry(
        &self,
        index: usize,
        lowered: &Lowered,
        types: &[Type],
    ) -> Result<Task, Diagnostic> {
        let entry = &self.graph.entries[index];
        let results = entry
            .outputs
            .iter()
            .map(|output| wanted(output.name.clone(), output.node, &lowered.inference, types))
            .collect();
        self.task(entry.name.clone(), results)
    }

    /// Finds out what a task needs and whether it may be cut.
    fn task(&self, name: String, results: Vec<Wanted>) -> Result<Task, Diagnostic> {
        let roots: Vec<ValueId> = results.iter().map(|result| result.value).collect();
        let live = self.ir.reached_from(&roots);
        let mut needed = vec![false; self.inputs.len()];
        let mut named = vec![false; self.graph.symbols.len()];
        for (id, value) in self.ir.values.iter().enumerate() {
            if live[id] {
                if let ir::Operation::Input(index) = value.operation {
                    needed[index as usize] = true;
                }
                symbols_of(&value.shape).for_each(|symbol| named[symbol as usize] = true);
            }
        }
        let inputs: Vec<u32> = (0..needed.len())
            .filter(|index| needed[*index])
            .map(|index| index as u32)
            .collect();
        let shapes = || {
            inputs
                .iter()
                .map(|index| self.inputs[*index as usize].shape.as_slice())
        };
        for symbol in 0..named.len() as u32 {
            if named[symbol as usize]
                && !shapes().any(|shape| symbols_of(shape).any(|one| one == symbol))
            {
                return Err(Diagnostic {
                    node: None,
                    message: format!(
                        "symbol `{}` of `{name}` is an extent of none of its inputs",
                        self.graph.symbols[symbol as usize].name
                    ),
                });
            }
        }
        let rows = shapes()
            .filter_map(|shape| match shape.first() {
                Some(Extent::Symbol(symbol)) => Some(*symbol),
                _ => None,
            })
            .find(|symbol| ir::is_row_wise(&self.ir, &roots, *symbol));
        Ok(Task {
            name,
            results,
            inputs,
            rows,
        })
    }

    pub(super) fn training(
        &mut self,
        lowered: &Lowered,
        types: &[Type],
    ) -> Result<Option<Training>, Diagnostic> {
        let Some(loss) = self.graph.loss.clone() else {
            return Ok(None);
        };
        let nodes: Vec<u32> = [loss.per_row].into_iter().chain(loss.weight).collect();
        let results = nodes
            .iter()
            .map(|node| wanted("loss".to_owned(), *node, &lowered.inference, types))
            .collect();
        let rows = match types[loss.per_row as usize].shape.first() {
            Some(Extent::Symbol(rows)) => *rows,
            // The check wants a symbol.
            _ => return Ok(None),
        };
        let mut evaluation = self.task("loss".to_owned(), results)?;
        let step: Vec<ValueId> = nodes
            .iter()
            .map(|node| lowered.training[*node as usize])
            .collect();
        // Training cuts along the rows of the loss or not at all.
        let row_wise = evaluation.rows == Some(rows) && ir::is_row_wise(&self.ir, &step, rows);
        evaluation.rows = row_wise.then_some(rows);
        let wanted: Vec<usize> = (0..self.parameters.len())
            .filter(|index| self.parameters[*index].trainable)
            .collect();
        let values: Vec<ValueId> = wanted
            .iter()
            .map(|index| lowered.training[self.parameters[*index].node as usize])
            .collect();
        let seeds = match step.get(1) {
            Some(weights) => *weights,
            None => self.ir.filled(1.0, vec![Extent::Symbol(rows)]),
        };
        let slopes = ir::differentiate(&mut self.ir, step[0], seeds, &values);
        let gradients: Vec<(usize, ValueId)> = wanted
            .into_iter()
            .zip(slopes)
            .filter_map(|(index, slope)| Some((index, slope?)))
            .collect();
        let roots: Vec<ValueId> = step
            .iter()
            .copied()
            .chain(gradients.iter().map(|(_, slope)| *slope))
            .collect();
        let shared = self.share(&roots);
        Ok(Some(Training {
            evaluation,
            step,
            gradients,
            rows,
            shared,
        }))
    }
}

fn symbols_of(shape: &[Extent]) -> impl Iterator<Item = u32> {
    shape.iter().filter_map(|extent| match extent {
        Extent::Symbol(symbol) => Some(*symbol),
        Extent::Fixed(_) => None,
    })
}

fn wanted(name: String, node: u32, values: &[ValueId], types: &[Type]) -> Wanted {
    let Type { dtype, shape } = types[node as usize].clone();
    Wanted {
        name,
        value: values[node as usize],
        dtype,
        shape,
    }
}
