//! Feeds held against what a task needs, before anything runs.

use crate::error::RunError;
use crate::graph::Extent;
use crate::program::{Program, Task};
use crate::shape;
use crate::tensor::{Feeds, Tensor};

/// Feeds that fit a task.
#[derive(Debug)]
pub(crate) struct Bound<'a> {
    /// By index of the program's inputs; none where the task does not need it.
    pub(crate) inputs: Vec<Option<&'a Tensor>>,
    /// The value of every symbol; 0 for one that the task does not have.
    pub(crate) symbols: Vec<usize>,
}

impl Bound<'_> {
    /// The value of a symbol.
    pub(crate) fn extent(&self, symbol: u32) -> usize {
        self.symbols[symbol as usize]
    }
}

/// Holds feeds against what a task needs.
pub(crate) fn bind<'a>(
    program: &Program,
    task: &Task,
    feeds: &'a Feeds,
) -> Result<Bound<'a>, RunError> {
    let declared = &program.inputs;
    for name in feeds.keys() {
        if !declared.iter().any(|input| input.name == *name) {
            let known: Vec<String> = declared
                .iter()
                .map(|input| format!("`{}`", input.name))
                .collect();
            return Err(RunError::UnknownInput {
                input: name.clone(),
                known: known.join(", "),
            });
        }
    }
    let symbols = &program.graph().symbols;
    let mut bound = Bound {
        inputs: vec![None; declared.len()],
        symbols: vec![0; symbols.len()],
    };
    let mut known = vec![false; symbols.len()];
    for index in &task.inputs {
        let input = &declared[*index as usize];
        let name = || input.name.clone();
        let Some(tensor) = feeds.get(&input.name) else {
            return Err(RunError::MissingInput { input: name() });
        };
        if tensor.dtype() != input.dtype {
            return Err(RunError::WrongDType {
                input: name(),
                given: tensor.dtype(),
                declared: input.dtype,
            });
        }
        let fits = tensor.shape().len() == input.shape.len()
            && input
                .shape
                .iter()
                .zip(tensor.shape())
                .all(|(declared, given)| match declared {
                    Extent::Fixed(extent) => *extent as usize == *given,
                    Extent::Symbol(_) => true,
                });
        if !fits {
            return Err(RunError::WrongShape {
                input: name(),
                given: tensor.shape().to_vec(),
                declared: shape::describe(&input.shape, symbols),
            });
        }
        for (declared, given) in input.shape.iter().zip(tensor.shape()) {
            let Extent::Symbol(symbol) = declared else {
                continue;
            };
            let place = *symbol as usize;
            if known[place] && bound.symbols[place] != *given {
                return Err(RunError::ExtentsDiffer {
                    input: name(),
                    symbol: symbols[place].name.clone(),
                    given: *given,
                    before: bound.symbols[place],
                });
            }
            let maximum = symbols[place].maximum as usize;
            if *given > maximum && task.rows != Some(*symbol) {
                return Err(RunError::ExtentTooLarge {
                    symbol: symbols[place].name.clone(),
                    given: *given,
                    maximum,
                });
            }
            known[place] = true;
            bound.symbols[place] = *given;
        }
        bound.inputs[*index as usize] = Some(tensor);
    }
    Ok(bound)
}
