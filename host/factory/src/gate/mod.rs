//! The gate: expressions that must hold before a model may be registered.
//!
//! The language is CEL, the Common Expression Language. All numbers are floating point, so that
//! `metrics.auc * 100 >= 75` and `data.rows / 2 >= 500` mean what they say.

mod explain;
mod expression;
mod facts;

use sandcast_audit::GateCheck;

pub use expression::ExpressionError;
pub use facts::{Champion, Facts};
pub(crate) use facts::{metrics_by_name, slices_by_name};

use crate::config::Sections;
use expression::Expression;

/// The expressions of a pipeline, checked.
#[derive(Debug, Clone)]
pub struct Gate {
    expressions: Vec<Expression>,
}

/// What the gate came to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Judgement {
    /// Whether every expression held.
    pub approved: bool,
    /// Each expression with the numbers it saw.
    pub checks: Vec<GateCheck>,
}

impl Judgement {
    /// A sentence for every expression that did not hold.
    pub fn refusals(&self) -> Vec<String> {
        self.checks
            .iter()
            .filter(|check| !check.passed)
            .map(|check| format!("`{}` does not hold: {}", check.expression, check.observed))
            .collect()
    }
}

impl Gate {
    /// Checks one expression against the names that a pipeline like this one will know.
    ///
    /// # Errors
    /// If it is not an expression, or uses a name or a function that there is not.
    pub fn check(expression: &str, sections: &Sections) -> Result<(), ExpressionError> {
        Expression::parse(expression)?.check_names(&facts::shape(sections))
    }

    /// Takes the expressions of a pipeline.
    ///
    /// # Errors
    /// As for [`Gate::check`].
    pub fn of(sections: &Sections) -> Result<Gate, ExpressionError> {
        let shape = facts::shape(sections);
        let mut expressions = Vec::with_capacity(sections.gate.len());
        for text in &sections.gate {
            let expression = Expression::parse(text)?;
            expression.check_names(&shape)?;
            expressions.push(expression);
        }
        Ok(Gate { expressions })
    }

    /// Judges what was measured. An expression that cannot be worked out does not hold.
    pub fn judge(&self, facts: &Facts) -> Judgement {
        let context = facts.context();
        let checks: Vec<GateCheck> = self
            .expressions
            .iter()
            .map(|expression| expression.judge(&context))
            .collect();
        // An empty gate approves nothing; a pipeline cannot have one.
        let approved = !checks.is_empty() && checks.iter().all(|check| check.passed);
        Judgement { approved, checks }
    }
}

#[cfg(test)]
mod tests;
