//! A program written down: as it was declared, as the values it became, and as the instructions
//! that run for given extents. One [`Listing`] has what each form says; its text is in the manner
//! of the StableHLO and MLIR texts, its picture a graph of boxes.

mod form;
mod graph;
mod names;
mod picture;
mod plan;
mod text;
mod values;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::program::{Program, Task, Which};

pub use form::{Function, Line, LineKind, Listing, Operand, Returned, SymbolLine};
pub use picture::Picture;

/// Which form of a program is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The graph as it was declared.
    #[default]
    Graph,
    /// The simpler values that it became, each only once, with those of the gradient.
    Values,
    /// The instructions for given extents: what is fused, and where everything lies.
    Plan,
}

/// What of a program is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Showing {
    /// Which form.
    pub stage: Stage,
    /// One entry, or `loss` for a training step; else all.
    pub entry: Option<String>,
    /// Extents by the names of their symbols; those left out are at their maximum.
    pub extents: BTreeMap<String, usize>,
}

/// Why a program cannot be shown, or priced, as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShowError {
    /// The program has no entry of this name.
    #[error("the program has no entry `{entry}`; it has {known}")]
    UnknownEntry {
        /// The name asked for.
        entry: String,
        /// The names there are.
        known: String,
    },
    /// The program has no symbol of this name.
    #[error("the program has no symbol `{symbol}`; it has {known}")]
    UnknownSymbol {
        /// The name asked for.
        symbol: String,
        /// The names there are.
        known: String,
    },
    /// A symbol cannot have this value.
    #[error("`{symbol}` cannot be {given}; it is at least 1 and at most {maximum}")]
    WrongExtent {
        /// The symbol.
        symbol: String,
        /// What was asked for.
        given: usize,
        /// What the program declares.
        maximum: u32,
    },
}

impl Program {
    /// Writes the program down.
    ///
    /// # Errors
    /// When the entry or a symbol asked for is not of this program.
    pub fn show(&self, showing: &Showing) -> Result<Listing, ShowError> {
        let chosen = self.chosen(showing.entry.as_deref())?;
        let extents = self.extents(&showing.extents)?;
        let given = |index: usize| match showing.stage {
            Stage::Plan => Some(extents[index]),
            Stage::Graph | Stage::Values => None,
        };
        let symbols = self.graph().symbols.iter().enumerate();
        let functions = match showing.stage {
            Stage::Graph => vec![graph::function(self, showing.entry.as_deref())],
            Stage::Values => chosen
                .iter()
                .map(|(which, task)| values::function(self, *which, task))
                .collect(),
            Stage::Plan => plan::functions(self, &chosen, &extents),
        };
        Ok(Listing {
            stage: showing.stage,
            digest: names::hexadecimal(&self.digest()),
            symbols: symbols
                .map(|(index, symbol)| SymbolLine {
                    name: symbol.name.clone(),
                    maximum: symbol.maximum,
                    value: given(index),
                })
                .collect(),
            functions,
        })
    }

    /// The name of the symbol that counts rows: the one along which work may be cut, or that of
    /// the losses; else the only symbol.
    pub fn rows_symbol(&self) -> Option<&str> {
        let cut = self.entries.iter().filter_map(|task| task.rows);
        let learnt = self.training.iter().map(|training| training.rows);
        let symbols = &self.graph().symbols;
        let found = cut.chain(learnt).next();
        let only = (symbols.len() == 1).then_some(0);
        let symbol = symbols.get(found.or(only)? as usize)?;
        Some(&symbol.name)
    }

    /// The tasks that a name means; all without one. How a sequence goes on is called
    /// `generate`.
    pub(crate) fn chosen(&self, entry: Option<&str>) -> Result<Vec<(Which, &Task)>, ShowError> {
        let entries = self.entries.iter().enumerate();
        let all = entries
            .map(|(index, task)| (Which::Entry(index), task))
            .chain(
                self.training
                    .iter()
                    .map(|training| (Which::Step, &training.evaluation)),
            )
            .chain(
                self.generating
                    .iter()
                    .map(|generating| (Which::Generation, &generating.task)),
            );
        let Some(entry) = entry else {
            return Ok(all.collect());
        };
        let all: Vec<_> = all.collect();
        let found: Vec<_> = all
            .iter()
            .copied()
            .filter(|(_, task)| task.name == entry)
            .collect();
        if found.is_empty() {
            return Err(ShowError::UnknownEntry {
                entry: entry.to_owned(),
                known: names::list(all.iter().map(|(_, task)| task.name.as_str())),
            });
        }
        Ok(found)
    }

    /// The value of every symbol, those not given at their maximum.
    pub(crate) fn extents(&self, given: &BTreeMap<String, usize>) -> Result<Vec<usize>, ShowError> {
        let symbols = &self.graph().symbols;
        for (name, value) in given {
            let Some(symbol) = symbols.iter().find(|symbol| symbol.name == *name) else {
                return Err(ShowError::UnknownSymbol {
                    symbol: name.clone(),
                    known: names::list(symbols.iter().map(|symbol| symbol.name.as_str())),
                });
            };
            if !(1..=symbol.maximum as usize).contains(value) {
                return Err(ShowError::WrongExtent {
                    symbol: name.clone(),
                    given: *value,
                    maximum: symbol.maximum,
                });
            }
        }
        Ok(symbols
            .iter()
            .map(|symbol| {
                let value = given.get(&symbol.name).copied();
                value.unwrap_or(symbol.maximum as usize)
            })
            .collect())
    }
}
