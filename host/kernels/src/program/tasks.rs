//! What is computed together: the results of an entry, or the losses of a step and their
//! gradients.

use super::{Diagnostic, PIECE_ROWS, Program, Shared};
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
    /// The extents between the rows and the columns of its products.
    positions: Vec<Shape>,
}

impl Task {
    /// How many rows of a product one row makes: what a piece of work is measured by.
    pub(crate) fn positions(&self, symbols: &[usize]) -> usize {
        let each = self.positions.iter();
        each.map(|shape| crate::shape::resolve(shape, symbols).iter().product())
            .max()
            .unwrap_or(1)
            .max(1)
    }

    /// Rows of one piece of inference.
    pub(crate) fn piece_rows(&self, symbols: &[usize]) -> usize {
        (PIECE_ROWS / self.positions(symbols)).max(1)
    }
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
    pub(crate) step: Vec<ValueId>,
    /// The gradient of each trainable parameter, by index of the parameter, where the loss
    /// depends on it.
    pub(crate) gradients: Vec<(usize, ValueId)>,
    /// The symbol that counts rows.
    pub(crate) rows: u32,
    pub(crate) shared: Shared,
}

/// What generation computes.
#[derive(Debug)]
pub(crate) struct Generating {
    pub(crate) task: Task,
    /// The inputs, by index.
    pub(crate) tokens: u32,
    pub(crate) positions: Option<u32>,
    /// The symbols of both.
    pub(crate) rows: u32,
    pub(crate) time: u32,
    /// The most positions of a sequence.
    pub(crate) context: usize,
    pub(crate) vocabulary: usize,
    /// The attentions, in order.
    pub(crate) layers: Vec<KeptLayer>,
}

/// An attention whose keys and values are kept.
#[derive(Debug)]
pub(crate) struct KeptLayer {
    /// Its value.
    pub(crate) id: ValueId,
    /// Elements of the key of one position.
    pub(crate) elements: usize,
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
            positions: self.evaluation.positions.clone(),
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
        let mut positions: Vec<Shape> = Vec::new();
        for (id, value) in self.ir.values.iter().enumerate() {
            if live[id]
                && matches!(value.operation, ir::Operation::Matmul(_))
                && let [Extent::Symbol(leading), between @ .., _] = value.shape.as_slice()
                && rows == Some(*leading)
                && !positions.iter().any(|known| known == between)
            {
                positions.push(between.to_vec());
            }
        }
        Ok(Task {
            name,
            results,
            inputs,
            rows,
            positions,
        })
    }

    /// Finds out whether a program can generate, if it says so.
    pub(super) fn generating(
        &self,
        lowered: &Lowered,
        types: &[Type],
    ) -> Result<Option<Generating>, Diagnostic> {
        let Some(declared) = self.graph.generation else {
            return Ok(None);
        };
        let refuse = |node: u32, message: &str| {
            Err(Diagnostic {
                node: Some(node),
                message: message.to_owned(),
            })
        };
        for node in [declared.tokens, declared.logits]
            .into_iter()
            .chain(declared.positions)
        {
            if node as usize >= types.len() {
                return refuse(node, "the generation refers to a node that is not there");
            }
        }
        let input = |node: u32| {
            let place = lowered.inputs.iter().position(|input| *input == node);
            place.map(|place| place as u32)
        };
        let of_tokens = &types[declared.tokens as usize];
        let (Some(tokens), DType::Int32, [Extent::Symbol(rows), Extent::Symbol(time)]) = (
            input(declared.tokens),
            of_tokens.dtype,
            of_tokens.shape.as_slice(),
        ) else {
            return refuse(
                declared.tokens,
                "the tokens of the generation must be an int32 input of shape [rows, time], both symbols",
            );
        };
        let (rows, time) = (*rows, *time);
        let positions = match declared.positions {
            None => None,
            Some(node) => match input(node) {
                Some(place) if types[node as usize] == *of_tokens => Some(place),
                _ => return refuse(node, "the positions must be an input like the tokens"),
            },
        };
        let vocabulary = match types[declared.logits as usize].shape.as_slice() {
            [
                Extent::Symbol(a),
                Extent::Symbol(b),
                Extent::Fixed(vocabulary @ 1..),
            ] if (*a, *b) == (rows, time) => *vocabulary as usize,
            _ => {
                return refuse(
                    declared.logits,
                    "the logits must have the shape [rows, time, vocabulary]",
                );
            }
        };
        let results = vec![wanted(
            "logits".to_owned(),
            declared.logits,
            &lowered.inference,
            types,
        )];
        let logits = results[0].value;
        if results[0].dtype != DType::Float32 {
            return refuse(declared.logits, "the logits must be float32");
        }
        let task = self.task("generate".to_owned(), results)?;
        let given = [Some(tokens), positions];
        if task
            .inputs
            .iter()
            .any(|input| !given.contains(&Some(*input)))
        {
            return refuse(
                declared.logits,
                "the logits depend on inputs other than the tokens and the positions",
            );
        }
        if rows == time || task.rows != Some(rows) {
            return refuse(declared.logits, "the logits mix the rows");
        }
        if !ir::is_causal(&self.ir, logits, time) {
            return refuse(
                declared.logits,
                "the logits of a position depend on others in another way than by causal \
                 attention to those before it",
            );
        }
        let live = self.ir.reached_from(&[logits]);
        let layers = self
            .ir
            .values
            .iter()
            .enumerate()
            .filter(|(id, _)| live[*id]);
        let layers = layers
            .filter(|(_, value)| matches!(value.operation, ir::Operation::Attention { .. }))
            .map(|(id, value)| {
                let key = self.ir.shape(value.operands[1]);
                let extents = key[2..].iter().map(|extent| match extent {
                    Extent::Fixed(extent) => *extent as usize,
                    Extent::Symbol(_) => 0,
                });
                KeptLayer {
                    id: id as ValueId,
                    elements: extents.product(),
                }
            })
            .collect();
        Ok(Some(Generating {
            task,
            tokens,
            positions,
            rows,
            time,
            context: self.graph.symbols[time as usize].maximum as usize,
            vocabulary,
            layers,
        }))
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
