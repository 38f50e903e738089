//! Why an expression holds or not, with the numbers it saw.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators};
use cel::{Context, Value};

use super::expression::children;

/// The names in an expression with their values: `metrics.auc = 0.8123`.
pub(super) fn observed(expression: &IdedExpr, context: &Context<'_, '_>) -> String {
    let mut seen: Vec<String> = Vec::new();
    gather(expression, context, &mut seen);
    seen.join("; ")
}

fn gather(expression: &IdedExpr, context: &Context<'_, '_>, seen: &mut Vec<String>) {
    if is_name(expression) {
        let said = match Value::resolve(expression, context) {
            Ok(value) => shown(&value).map(|value| format!("{} = {value}", written(expression))),
            Err(_) if in_loop(expression) => None,
            Err(_) => Some(format!("{} is not known", written(expression))),
        };
        if let Some(said) = said
            && !seen.contains(&said)
        {
            seen.push(said);
        }
        return;
    }
    for part in children(&expression.expr) {
        gather(part, context, seen);
    }
}

/// Why an expression is false: what was seen against what was wanted.
pub(super) fn explain(expression: &IdedExpr, context: &Context<'_, '_>) -> String {
    let holds = |part: &IdedExpr| Value::resolve(part, context) == Ok(Value::Bool(true));
    if let Expr::Call(call) = &expression.expr {
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::LOGICAL_OR, [left, right]) => {
                return format!(
                    "{}, and {}",
                    explain(left, context),
                    explain(right, context)
                );
            }
            (operators::LOGICAL_AND, parts) => {
                let failing = parts.iter().filter(|part| !holds(part));
                return failing
                    .map(|part| explain(part, context))
                    .collect::<Vec<_>>()
                    .join("; ");
            }
            (name, [left, right]) if comparison(name).is_some() => {
                return compared(call, left, right, context);
            }
            _ => {}
        }
    }
    match observed(expression, context) {
        seen if seen.is_empty() => "it is false".to_owned(),
        seen => seen,
    }
}

fn compared(
    call: &CallExpr,
    left: &IdedExpr,
    right: &IdedExpr,
    context: &Context<'_, '_>,
) -> String {
    let value_of = |part: &IdedExpr| Value::resolve(part, context).ok();
    let operator = comparison(&call.func_name).unwrap_or_default();
    let seen = match value_of(left).as_ref().and_then(shown) {
        Some(value) if is_literal(left) => value,
        Some(value) => format!("{} = {value}", written(left)),
        None if value_of(right) == Some(Value::Null) => {
            return format!("{} is there, wanted {operator} null", written(left));
        }
        None => written(left),
    };
    let wanted = match value_of(right).as_ref().and_then(shown) {
        Some(_) if is_literal(right) => written(right),
        Some(value) => format!("{value} ({})", written(right)),
        None => written(right),
    };
    format!("{seen}, wanted {operator} {wanted}")
}

/// The expression as text.
pub(super) fn written(expression: &IdedExpr) -> String {
    match &expression.expr {
        Expr::Ident(name) => name.clone(),
        Expr::Select(select) if select.test => {
            format!("has({}.{})", written(&select.operand), select.field)
        }
        Expr::Select(select) => format!("{}.{}", written(&select.operand), select.field),
        Expr::Literal(literal) => match literal {
            LiteralValue::Boolean(value) => value.inner().to_string(),
            LiteralValue::Double(value) => number(*value.inner()),
            LiteralValue::Int(value) => value.inner().to_string(),
            LiteralValue::UInt(value) => value.inner().to_string(),
            LiteralValue::String(value) => format!("'{}'", value.inner()),
            LiteralValue::Null => "null".to_owned(),
            LiteralValue::Bytes(_) => "bytes".to_owned(),
        },
        Expr::List(list) => {
            let elements: Vec<String> = list.elements.iter().map(written).collect();
            format!("[{}]", elements.join(", "))
        }
        Expr::Call(call) => written_call(call),
        _ => "…".to_owned(),
    }
}

fn written_call(call: &CallExpr) -> String {
    match (call.func_name.as_str(), call.args.as_slice()) {
        (operators::INDEX, [record, key]) => format!("{}[{}]", written(record), written(key)),
        (operators::LOGICAL_NOT, [part]) => format!("!{}", written(part)),
        (operators::NEGATE, [part]) => format!("-{}", written(part)),
        (operators::CONDITIONAL, [condition, yes, no]) => {
            format!(
                "{} ? {} : {}",
                written(condition),
                written(yes),
                written(no)
            )
        }
        (name, [left, right]) if infix(name).is_some() => {
            format!(
                "{} {} {}",
                written(left),
                infix(name).unwrap_or_default(),
                written(right)
            )
        }
        (name, arguments) => {
            let arguments: Vec<String> = arguments.iter().map(written).collect();
            let target = call
                .target
                .as_ref()
                .map(|target| format!("{}.", written(target)));
            format!(
                "{}{name}({})",
                target.unwrap_or_default(),
                arguments.join(", ")
            )
        }
    }
}

fn comparison(name: &str) -> Option<&'static str> {
    Some(match name {
        operators::EQUALS => "==",
        operators::NOT_EQUALS => "!=",
        operators::GREATER => ">",
        operators::GREATER_EQUALS => ">=",
        operators::LESS => "<",
        operators::LESS_EQUALS => "<=",
        _ => return None,
    })
}

fn infix(name: &str) -> Option<&'static str> {
    comparison(name).or(Some(match name {
        operators::ADD => "+",
        operators::SUBSTRACT => "-",
        operators::MULTIPLY => "*",
        operators::DIVIDE => "/",
        operators::MODULO => "%",
        operators::LOGICAL_AND => "&&",
        operators::LOGICAL_OR => "||",
        operators::IN => "in",
        _ => return None,
    }))
}

/// Whether an expression is a name, or a path of names.
fn is_name(expression: &IdedExpr) -> bool {
    match &expression.expr {
        Expr::Ident(_) => true,
        Expr::Select(select) => !select.test && is_name(&select.operand),
        Expr::Call(call) if call.func_name == operators::INDEX => {
            matches!(call.args.as_slice(), [record, key] if is_name(record) && is_literal(key))
        }
        _ => false,
    }
}

/// Whether a name is one that only exists inside a macro.
fn in_loop(expression: &IdedExpr) -> bool {
    const ROOTS: [&str; 5] = ["metrics", "slices", "champion", "policy", "data"];
    match &expression.expr {
        Expr::Ident(name) => !ROOTS.contains(&name.as_str()),
        Expr::Select(select) => in_loop(&select.operand),
        Expr::Call(call) => call.args.first().is_some_and(in_loop),
        _ => false,
    }
}

fn is_literal(expression: &IdedExpr) -> bool {
    matches!(expression.expr, Expr::Literal(_))
}

fn shown(value: &Value) -> Option<String> {
    match value {
        Value::Float(value) => Some(number(*value)),
        Value::Int(value) => Some(value.to_string()),
        Value::UInt(value) => Some(value.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::String(value) => Some(format!("'{value}'")),
        Value::Null => Some("null".to_owned()),
        _ => None,
    }
}

/// Four digits after the point are enough to see why; trailing zeros say nothing.
fn number(value: f64) -> String {
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.is_empty() || text == "-0" {
        "0".to_owned()
    } else {
        text.to_owned()
    }
}
