//! From a request of the host to a request in Cedar's terms.

use cedar_policy::{Context, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression};
use serde_json::Value;
use thiserror::Error;

use crate::policies::{Policies, chain};

/// The largest absolute value of Cedar's `decimal`: 64 bits, four digits after the point.
const MAXIMUM_DECIMAL: f64 = 922_337_203_685_477.0;

/// A question of the host, in its own terms.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    /// Such as `promote`; becomes `context.control_point`.
    pub(crate) control_point: &'a str,
    /// Such as `user:alice`.
    pub(crate) principal: &'a str,
    /// Such as `promote`.
    pub(crate) action: &'a str,
    /// Such as `model:credit-risk`.
    pub(crate) resource: &'a str,
    /// A JSON object; empty for none.
    pub(crate) context: &'a str,
}

/// Why a question could not be put to Cedar.
#[derive(Debug, Error)]
pub(crate) enum RequestError {
    #[error("the {role} `{text}` does not name a Cedar entity: `{type_name}` is not a type name")]
    Name {
        role: &'static str,
        text: String,
        type_name: String,
    },
    #[error("the context is not a JSON object: {0}")]
    Json(String),
    #[error("`context.{path}` is {number}, which is neither a Cedar long nor a decimal")]
    Number { path: String, number: String },
    #[error("the context cannot be used: {0}")]
    Context(String),
    #[error("the request does not fit the schema: {0}")]
    Schema(String),
}

impl RequestError {
    /// What to do next.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Name { .. } => "write it as `type:id`, such as `user:alice`",
            Self::Json(_) | Self::Context(_) => "give the context as a JSON object",
            Self::Number { .. } => "keep numbers within 64 bits, and fractions below 9.2e14",
            Self::Schema(_) => {
                "declare the action, the types and every attribute of the context (with `control_point: String`) in `schema`, or leave `schema` out"
            }
        }
    }
}

/// Puts a question in Cedar's terms; with a schema, the request is checked against it.
///
/// # Errors
/// [`RequestError`] names the part that does not fit.
pub(crate) fn translate(
    question: &Question<'_>,
    policies: &Policies,
) -> Result<Request, RequestError> {
    let namespace = policies.namespace.as_deref();
    let principal = entity("principal", question.principal, "User", namespace)?;
    let resource = entity("resource", question.resource, "Resource", namespace)?;
    let action = uid(
        "action",
        question.action,
        "Action",
        question.action,
        namespace,
    )?;
    let context = context(question)?;
    Request::new(
        principal,
        action,
        resource,
        context,
        policies.schema.as_ref(),
    )
    .map_err(|error| RequestError::Schema(chain(&error)))
}

/// `service-account:ci` is `ServiceAccount::"ci"`; a name without a type is of `default_type`.
fn entity(
    role: &'static str,
    text: &str,
    default_type: &str,
    namespace: Option<&str>,
) -> Result<EntityUid, RequestError> {
    match split_at_single_colon(text) {
        None => uid(role, text, default_type, text, namespace),
        Some((type_name, id)) => {
            let type_name: Vec<String> = type_name.split("::").map(pascal_case).collect();
            uid(role, text, &type_name.join("::"), id, namespace)
        }
    }
}

fn uid(
    role: &'static str,
    text: &str,
    type_name: &str,
    id: &str,
    namespace: Option<&str>,
) -> Result<EntityUid, RequestError> {
    let type_name = match namespace {
        None => type_name.to_owned(),
        Some(namespace) => format!("{namespace}::{type_name}"),
    };
    match type_name.parse::<EntityTypeName>() {
        Ok(parsed) => Ok(EntityUid::from_type_name_and_id(parsed, EntityId::new(id))),
        Err(_) => Err(RequestError::Name {
            role,
            text: text.to_owned(),
            type_name,
        }),
    }
}

/// Splits at the first colon that is not part of a `::`.
fn split_at_single_colon(text: &str) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    (0..bytes.len())
        .find(|&at| {
            bytes[at] == b':'
                && bytes.get(at + 1) != Some(&b':')
                && (at == 0 || bytes[at - 1] != b':')
        })
        .map(|at| (&text[..at], &text[at + 1..]))
}

/// `service-account` and `service_account` are `ServiceAccount`.
fn pascal_case(name: &str) -> String {
    let mut result = String::with_capacity(name.len());
    for word in name.split(['-', '_']) {
        let mut letters = word.chars();
        if let Some(first) = letters.next() {
            result.extend(first.to_uppercase());
            result.push_str(letters.as_str());
        }
    }
    result
}

fn context(question: &Question<'_>) -> Result<Context, RequestError> {
    let value = match question.context.trim() {
        "" => Value::Object(serde_json::Map::new()),
        text => {
            serde_json::from_str(text).map_err(|error| RequestError::Json(error.to_string()))?
        }
    };
    let Value::Object(fields) = value else {
        return Err(RequestError::Json(format!("it is {}", json_kind(&value))));
    };
    let mut pairs = Vec::with_capacity(fields.len() + 1);
    for (key, value) in &fields {
        if key != "control_point"
            && let Some(expression) = expression(key, value)?
        {
            pairs.push((key.clone(), expression));
        }
    }
    let control_point = RestrictedExpression::new_string(question.control_point.to_owned());
    pairs.push(("control_point".to_owned(), control_point));
    Context::from_pairs(pairs).map_err(|error| RequestError::Context(chain(&error)))
}

/// Builds values rather than handing JSON to Cedar, whose `__entity` and `__extn` escapes would
/// let whoever fills the context name entities. A null has no value: the attribute is left out.
fn expression(path: &str, value: &Value) -> Result<Option<RestrictedExpression>, RequestError> {
    Ok(Some(match value {
        Value::Null => return Ok(None),
        Value::Bool(value) => RestrictedExpression::new_bool(*value),
        Value::String(value) => RestrictedExpression::new_string(value.clone()),
        Value::Number(number) => {
            let wrong = || RequestError::Number {
                path: path.to_owned(),
                number: number.to_string(),
            };
            if let Some(value) = number.as_i64() {
                RestrictedExpression::new_long(value)
            } else if number.is_f64() {
                let value = number
                    .as_f64()
                    .filter(|value| value.abs() <= MAXIMUM_DECIMAL)
                    .ok_or_else(wrong)?;
                RestrictedExpression::new_decimal(format!("{value:.4}"))
            } else {
                return Err(wrong());
            }
        }
        Value::Array(values) => {
            let mut elements = Vec::with_capacity(values.len());
            for (index, value) in values.iter().enumerate() {
                elements.extend(expression(&format!("{path}[{index}]"), value)?);
            }
            RestrictedExpression::new_set(elements)
        }
        Value::Object(fields) => {
            let mut pairs = Vec::with_capacity(fields.len());
            for (key, value) in fields {
                if let Some(expression) = expression(&format!("{path}.{key}"), value)? {
                    pairs.push((key.clone(), expression));
                }
            }
            RestrictedExpression::new_record(pairs)
                .map_err(|error| RequestError::Context(chain(&error)))?
        }
    }))
}

fn json_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> String {
        entity("principal", text, "User", None)
            .expect("a name")
            .to_string()
    }

    #[test]
    fn names_become_entities() {
        assert_eq!(name("user:alice"), "User::\"alice\"");
        assert_eq!(name("service-account:ci"), "ServiceAccount::\"ci\"");
        assert_eq!(name("data_source:s3:bucket"), "DataSource::\"s3:bucket\"");
        assert_eq!(name("acme::user:bob"), "Acme::User::\"bob\"");
        assert_eq!(name("alice"), "User::\"alice\"");
        assert_eq!(name("user:a\"b"), "User::\"a\\\"b\"");
        let inside = entity("principal", "user:alice", "User", Some("Acme")).expect("a name");
        assert_eq!(inside.to_string(), "Acme::User::\"alice\"");
    }

    #[test]
    fn names_that_are_no_entities_are_refused() {
        for text in [":x", "9lives:x", "a b:c"] {
            let error = entity("resource", text, "Resource", None).expect_err(text);
            assert!(error.to_string().contains("the resource"), "{error}");
        }
    }

    fn shown(json: &str) -> Result<String, RequestError> {
        let question = Question {
            control_point: "promote",
            principal: "a",
            action: "b",
            resource: "c",
            context: json,
        };
        let context = context(&question)?;
        let mut shown: Vec<String> = ["x", "y", "control_point"]
            .into_iter()
            .filter_map(|key| Some(format!("{key}={:?}", context.get(key)?)))
            .collect();
        shown.sort();
        Ok(shown.join(" "))
    }

    #[test]
    fn integers_are_longs_and_fractions_are_decimals() {
        let text = shown(r#"{"x": 3, "y": 0.91236}"#).expect("a context");
        assert!(text.contains("x=Long(3)"), "{text}");
        assert!(text.contains("0.9124"), "{text}");
    }

    #[test]
    fn nulls_are_left_out_and_the_control_point_cannot_be_forged() {
        let text = shown(r#"{"x": null, "control_point": "predict"}"#).expect("a context");
        assert_eq!(text, "control_point=String(\"promote\")");
    }

    #[test]
    fn entity_escapes_are_plain_records() {
        let text =
            shown(r#"{"x": {"__entity": {"type": "User", "id": "root"}}}"#).expect("a context");
        assert!(text.contains("Record"), "{text}");
    }

    #[test]
    fn what_cedar_cannot_hold_is_refused_by_name() {
        assert!(
            shown("[1]")
                .expect_err("a list")
                .to_string()
                .contains("a list")
        );
        assert!(shown("{").is_err());
        let message = shown(r#"{"x": {"big": [1, 18446744073709551615]}}"#)
            .expect_err("too big")
            .to_string();
        assert!(message.contains("context.x.big[1]"), "{message}");
        assert!(shown(r#"{"x": 1e300}"#).is_err());
    }
}
