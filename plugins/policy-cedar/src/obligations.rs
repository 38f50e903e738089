//! What annotations on a policy ask of the host.

use cedar_policy::Effect;
use serde_json::{Map, Value, json};

const OBLIGATION_PREFIX: &str = "obligation_";
const REQUIRE_APPROVAL: &str = "require_approval";

/// Something the host must do if it goes ahead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Obligation {
    /// Such as `mask-columns`.
    pub(crate) kind: String,
    pub(crate) parameters: Map<String, Value>,
}

/// What a permission depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Conditions {
    /// `@require_approval("why")`; the text may be empty.
    pub(crate) approval: Option<String>,
    pub(crate) obligations: Vec<Obligation>,
}

/// Reads the conditions of a policy from its annotations.
///
/// `@obligation_mask_columns("a, b")` becomes the kind `mask-columns` with
/// `{"columns": ["a", "b"]}`. Any other `@obligation_some_kind(text)` becomes the kind
/// `some-kind`, with the text as its parameters where it is a JSON object, with `{}` where it is
/// empty, else with `{"value": text}`.
///
/// # Errors
/// A condition on a `forbid`, an obligation without a kind, and columns that are not named.
pub(crate) fn read<'a>(
    effect: Effect,
    annotations: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<Conditions, String> {
    let mut conditions = Conditions::default();
    for (name, value) in annotations {
        let kind = name.strip_prefix(OBLIGATION_PREFIX);
        if kind.is_none() && name != REQUIRE_APPROVAL {
            continue;
        }
        if effect == Effect::Forbid {
            return Err(format!("`@{name}` has no meaning on a `forbid`"));
        }
        match kind {
            None => conditions.approval = Some(value.trim().to_owned()),
            Some("") => return Err("`@obligation_` lacks the kind of obligation".into()),
            Some(kind) => conditions.obligations.push(obligation(kind, value.trim())?),
        }
    }
    conditions
        .obligations
        .sort_by(|left, right| left.kind.cmp(&right.kind));
    Ok(conditions)
}

fn obligation(kind: &str, value: &str) -> Result<Obligation, String> {
    let kind = kind.replace('_', "-");
    let parameters = match serde_json::from_str(value) {
        Ok(Value::Object(parameters)) => parameters,
        _ if kind == "mask-columns" => {
            let columns: Vec<&str> = value
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .collect();
            if columns.is_empty() {
                return Err("`@obligation_mask_columns` names no column".into());
            }
            Map::from_iter([("columns".to_owned(), json!(columns))])
        }
        _ if value.is_empty() => Map::new(),
        _ => Map::from_iter([("value".to_owned(), json!(value))]),
    };
    Ok(Obligation { kind, parameters })
}

/// Adds obligations to those there are: the same one counts once, columns to mask are united.
pub(crate) fn merge(all: &mut Vec<Obligation>, more: &[Obligation]) {
    for obligation in more {
        let same_kind = all
            .iter_mut()
            .find(|known| known.kind == obligation.kind && known.kind == "mask-columns");
        if let Some(known) = same_kind
            && let (Some(Value::Array(columns)), Some(Value::Array(extra))) = (
                known.parameters.get_mut("columns"),
                obligation.parameters.get("columns"),
            )
        {
            for column in extra {
                if !columns.contains(column) {
                    columns.push(column.clone());
                }
            }
        } else if !all.contains(obligation) {
            all.push(obligation.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(annotations: &[(&str, &str)]) -> Result<Conditions, String> {
        read(Effect::Permit, annotations.iter().copied())
    }

    #[test]
    fn columns_to_mask_are_a_list() {
        let conditions = conditions(&[("obligation_mask_columns", "name, ssn"), ("id", "x")])
            .expect("well formed");
        assert_eq!(conditions.obligations[0].kind, "mask-columns");
        assert_eq!(
            json!(conditions.obligations[0].parameters),
            json!({"columns": ["name", "ssn"]})
        );
        assert_eq!(conditions.approval, None);
    }

    #[test]
    fn other_kinds_take_an_object_a_text_or_nothing() {
        let conditions = conditions(&[
            ("obligation_retain_days", "{\"days\": 30}"),
            ("obligation_notify", "risk@example.org"),
            ("obligation_log", ""),
        ])
        .expect("well formed");
        let told: Vec<_> = conditions
            .obligations
            .iter()
            .map(|it| (it.kind.as_str(), json!(it.parameters)))
            .collect();
        assert_eq!(
            told,
            [
                ("log", json!({})),
                ("notify", json!({"value": "risk@example.org"})),
                ("retain-days", json!({"days": 30})),
            ]
        );
    }

    #[test]
    fn conditions_on_a_forbid_are_refused() {
        let refused =
            read(Effect::Forbid, [("require_approval", "")].into_iter()).expect_err("a forbid");
        assert!(refused.contains("no meaning on a `forbid`"));
    }

    #[test]
    fn obligations_without_kind_or_columns_are_refused() {
        assert!(conditions(&[("obligation_", "x")]).is_err());
        assert!(conditions(&[("obligation_mask_columns", " , ")]).is_err());
    }

    #[test]
    fn merging_unites_columns_and_drops_repeats() {
        let first = conditions(&[("obligation_mask_columns", "a,b"), ("obligation_log", "")])
            .expect("well formed");
        let second = conditions(&[("obligation_mask_columns", "b,c"), ("obligation_log", "")])
            .expect("well formed");
        let mut all = Vec::new();
        merge(&mut all, &first.obligations);
        merge(&mut all, &second.obligations);
        assert_eq!(all.len(), 2);
        assert_eq!(
            json!(all[1].parameters),
            json!({"columns": ["a", "b", "c"]})
        );
    }
}
