//! One expression: parsed, its names checked, judged.

use std::ops::Range;

use cel::common::ast::{Expr, IdedExpr, LiteralValue, operators};
use cel::common::types::CelDouble;
use cel::parser::Parser;
use cel::{Context, Value};
use sandcast_audit::GateCheck;
use thiserror::Error;

use super::explain::{explain, observed, written};
use super::facts::Shape;
use crate::config::hint;

/// The longest expression.
const MAX_EXPRESSION_BYTES: usize = 1000;

/// The deepest tree. Everything that walks one goes as deep as it is.
const MAX_DEPTH: usize = 64;

/// The parser goes down some twenty calls for every bracket, so it has a stack of its own, large
/// enough for the longest expression of nothing else.
const PARSER_STACK_BYTES: usize = 128 << 20;

/// The functions that an expression may call, beside operators and the macros `has`, `all`,
/// `exists`, `exists_one`, `map` and `filter`.
const FUNCTIONS: [&str; 7] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "string",
    "double",
    "int",
];

/// What is wrong with an expression.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("in the gate expression `{expression}`: {message}")]
pub struct ExpressionError {
    /// The expression.
    pub expression: String,
    /// What is wrong with it.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The bytes of the expression that it is about.
    pub bytes: Range<usize>,
}

/// A parsed expression.
#[derive(Debug, Clone)]
pub(super) struct Expression {
    text: String,
    tree: IdedExpr,
}

impl Expression {
    pub(super) fn parse(text: &str) -> Result<Expression, ExpressionError> {
        let wrong = |message: String, bytes: Range<usize>| ExpressionError {
            expression: text.to_owned(),
            message,
            help: None,
            bytes,
        };
        if text.len() > MAX_EXPRESSION_BYTES {
            let message = format!("it is longer than {MAX_EXPRESSION_BYTES} bytes");
            return Err(wrong(message, 0..text.len()));
        }
        match parse_bounded(text) {
            Ok(tree) => Ok(Expression {
                text: text.to_owned(),
                tree,
            }),
            Err((message, start)) => {
                let start = start.min(text.len());
                let start = (0..=start)
                    .rev()
                    .find(|at| text.is_char_boundary(*at))
                    .unwrap_or(0);
                Err(wrong(message, start..text.len()))
            }
        }
    }

    pub(super) fn check_names(&self, shape: &Shape) -> Result<(), ExpressionError> {
        let mut check = NameCheck {
            text: &self.text,
            shape,
            bound: Vec::new(),
        };
        check.visit(&self.tree).map(|_| ())
    }

    pub(super) fn judge(&self, context: &Context<'_, '_>) -> GateCheck {
        let (passed, observed) = match Value::resolve(&self.tree, context) {
            Ok(Value::Bool(true)) => (true, observed(&self.tree, context)),
            Ok(Value::Bool(false)) => (false, explain(&self.tree, context)),
            Ok(_) => (false, "it is neither true nor false".to_owned()),
            Err(error) => {
                let seen = observed(&self.tree, context);
                let seen = if seen.is_empty() {
                    seen
                } else {
                    format!("{seen}; ")
                };
                (false, format!("{seen}it cannot be worked out: {error}"))
            }
        };
        GateCheck {
            expression: self.text.clone(),
            passed,
            observed,
        }
    }
}

/// Parses on a large stack, and gives back only trees that are safe on a small one.
fn parse_bounded(text: &str) -> Result<IdedExpr, (String, usize)> {
    let parse = || {
        let mut tree = Parser::default().parse(text).map_err(|errors| {
            let first = errors.errors.first();
            let column = first.map_or(1, |error| error.pos.1);
            let message = first.map_or("", |error| error.msg.as_str());
            // What else could stand there would fill a screen.
            let message = message.split(" expecting ").next().unwrap_or(message);
            let message = message.replace("'<EOF>'", "the end");
            (
                format!("this is no CEL expression: {message}"),
                usize::try_from(column - 1).unwrap_or(0),
            )
        })?;
        if depth(&tree) > MAX_DEPTH {
            return Err((format!("it is nested more than {MAX_DEPTH} levels deep"), 0));
        }
        make_numbers_float(&mut tree);
        Ok(tree)
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(PARSER_STACK_BYTES);
        match thread
            .spawn_scoped(scope, parse)
            .map(|thread| thread.join())
        {
            Ok(Ok(parsed)) => parsed,
            Ok(Err(_)) => Err(("the parser gave up on it".to_owned(), 0)),
            Err(error) => Err((format!("there is no thread to parse it: {error}"), 0)),
        }
    })
}

fn depth(expression: &IdedExpr) -> usize {
    1 + children(&expression.expr)
        .into_iter()
        .map(depth)
        .max()
        .unwrap_or(0)
}

/// The direct parts of an expression.
pub(super) fn children(expression: &Expr) -> Vec<&IdedExpr> {
    match expression {
        Expr::Call(call) => call
            .target
            .iter()
            .map(AsRef::as_ref)
            .chain(&call.args)
            .collect(),
        Expr::Select(select) => vec![select.operand.as_ref()],
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Comprehension(inner) => vec![
            &inner.iter_range,
            &inner.accu_init,
            &inner.loop_cond,
            &inner.loop_step,
            &inner.result,
        ],
        _ => Vec::new(),
    }
}

fn children_mut(expression: &mut Expr) -> Vec<&mut IdedExpr> {
    match expression {
        Expr::Call(call) => call
            .target
            .iter_mut()
            .map(AsMut::as_mut)
            .chain(&mut call.args)
            .collect(),
        Expr::Select(select) => vec![select.operand.as_mut()],
        Expr::List(list) => list.elements.iter_mut().collect(),
        Expr::Comprehension(inner) => vec![
            &mut inner.iter_range,
            &mut inner.accu_init,
            &mut inner.loop_cond,
            &mut inner.loop_step,
            &mut inner.result,
        ],
        _ => Vec::new(),
    }
}

/// CEL does not mix whole and floating numbers in arithmetic; everything measured is floating.
fn make_numbers_float(expression: &mut IdedExpr) {
    if let Expr::Literal(literal) = &mut expression.expr {
        let number = match literal {
            LiteralValue::Int(number) => *number.inner() as f64,
            LiteralValue::UInt(number) => *number.inner() as f64,
            _ => return,
        };
        *literal = LiteralValue::Double(CelDouble::from(number));
        return;
    }
    children_mut(&mut expression.expr)
        .into_iter()
        .for_each(make_numbers_float);
}

struct NameCheck<'a> {
    text: &'a str,
    shape: &'a Shape,
    /// Variables of the macros around the place.
    bound: Vec<String>,
}

impl<'a> NameCheck<'a> {
    /// The shape of what an expression names, if it names something of ours.
    fn visit(&mut self, expression: &IdedExpr) -> Result<Option<&'a Shape>, ExpressionError> {
        match &expression.expr {
            Expr::Ident(name) if self.bound.contains(name) => Ok(None),
            Expr::Ident(name) => self.member(Some(self.shape), name, expression),
            Expr::Select(select) => {
                let within = self.visit(&select.operand)?;
                self.member(within, &select.field, expression)
            }
            Expr::Call(call) if call.func_name == operators::INDEX => match call.args.as_slice() {
                [record, key] => {
                    let within = self.visit(record)?;
                    match &key.expr {
                        Expr::Literal(LiteralValue::String(name)) => {
                            self.member(within, name.inner(), expression)
                        }
                        _ => self.visit(key).map(|_| None),
                    }
                }
                _ => Ok(None),
            },
            Expr::Call(call) => {
                let name = call.func_name.as_str();
                let operator = name.contains(['_', '@']) || name.is_empty();
                if !operator && !FUNCTIONS.contains(&name) {
                    let help = hint(name, "functions", FUNCTIONS);
                    return Err(self.wrong(format!("there is no function `{name}`"), help, name));
                }
                for part in children(&expression.expr) {
                    self.visit(part)?;
                }
                Ok(None)
            }
            Expr::Comprehension(inner) => {
                self.visit(&inner.iter_range)?;
                let before = self.bound.len();
                self.bound.push(inner.iter_var.clone());
                self.bound.extend(inner.iter_var2.clone());
                self.bound.push(inner.accu_var.clone());
                for part in [
                    &inner.accu_init,
                    &inner.loop_cond,
                    &inner.loop_step,
                    &inner.result,
                ] {
                    self.visit(part)?;
                }
                self.bound.truncate(before);
                Ok(None)
            }
            other => {
                for part in children(other) {
                    self.visit(part)?;
                }
                Ok(None)
            }
        }
    }

    fn member(
        &self,
        within: Option<&'a Shape>,
        name: &str,
        expression: &IdedExpr,
    ) -> Result<Option<&'a Shape>, ExpressionError> {
        let place = written(expression);
        match within {
            None => Ok(None),
            Some(Shape::Value) => {
                let message =
                    format!("there is nothing in a number or a text, and so no `{place}`");
                Err(self.wrong(message, String::new(), &place))
            }
            Some(Shape::Record(members)) => match members.get(name) {
                Some(shape) => Ok(Some(shape)),
                None => {
                    let help = hint(name, "names here", members.keys().map(String::as_str));
                    Err(self.wrong(format!("there is no `{place}`"), help, &place))
                }
            },
        }
    }

    fn wrong(&self, message: String, help: String, place: &str) -> ExpressionError {
        let start = self.text.find(place);
        ExpressionError {
            expression: self.text.to_owned(),
            message,
            help: (!help.is_empty()).then_some(help),
            bytes: start.map_or(0..self.text.len(), |start| start..start + place.len()),
        }
    }
}
