//! From the configuration to checked policies.

use std::fmt::Write as _;

use cedar_policy::{Effect, Entities, PolicyId, PolicySet, Schema, ValidationMode, Validator};
use miette::Diagnostic;
use serde::Deserialize;
use thiserror::Error;

use crate::obligations::{self, Conditions};

/// The longest policy text and the longest schema, in bytes.
const MAXIMUM_TEXT_BYTES: usize = 1 << 20;

/// How many errors of one text are named.
const ERRORS_SHOWN: usize = 3;

/// The configuration of the plugin.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Policies in the Cedar language.
    policies: String,
    /// A schema in the Cedar language; policies, entities and requests are checked against it.
    schema: Option<String>,
    /// Entities in Cedar's JSON form, for attributes and groups.
    #[serde(default)]
    entities: Vec<serde_json::Value>,
    /// The namespace of every type and action of a request.
    namespace: Option<String>,
}

/// Why a configuration was refused.
#[derive(Debug, Error)]
pub(crate) enum ConfigError {
    #[error("`{key}` is {bytes} bytes long, at most {MAXIMUM_TEXT_BYTES} are allowed")]
    TooLong { key: &'static str, bytes: usize },
    #[error("`policies` holds no policy, so that everything would be denied")]
    NoPolicies,
    #[error("`{key}`: {details}")]
    Text {
        key: &'static str,
        details: String,
        help: Option<String>,
    },
    #[error(
        "`policies`: policy {policy} is a template (it has a `?principal` or `?resource` slot)"
    )]
    Template { policy: String },
    #[error("`policies`: `@id(\"{id}\")` is used twice")]
    SameId { id: String },
    #[error("`policies`: policy {policy}: {details}")]
    Annotation { policy: String, details: String },
    #[error("`entities`: {0}")]
    Entities(String),
    #[error("`namespace` is not a Cedar namespace: {0}")]
    Namespace(String),
}

impl ConfigError {
    /// What to do next.
    pub(crate) fn hint(&self) -> String {
        match self {
            Self::TooLong { .. } => "split the policies over several policy plugins".into(),
            Self::NoPolicies => "write at least one `permit (principal, action, resource);`".into(),
            Self::Text { help: Some(help), .. } => help.clone(),
            Self::Text { .. } => "the syntax is described at https://docs.cedarpolicy.com".into(),
            Self::Template { .. } => "write the principal and the resource out".into(),
            Self::SameId { .. } => "give every policy an `@id` of its own".into(),
            Self::Annotation { .. } => "the annotations are listed in the plugin's README".into(),
            Self::Entities(_) => {
                "the form is [{\"uid\": {\"type\": \"User\", \"id\": \"alice\"}, \"attrs\": {}, \"parents\": []}]".into()
            }
            Self::Namespace(_) => "write identifiers joined by `::`, such as `Acme::Factory`".into(),
        }
    }
}

/// Policies that were parsed and checked, with what they are checked against.
#[derive(Debug)]
pub(crate) struct Policies {
    pub(crate) set: PolicySet,
    pub(crate) schema: Option<Schema>,
    pub(crate) entities: Entities,
    pub(crate) namespace: Option<String>,
    /// In the order of the text.
    pub(crate) rules: Vec<PolicyRule>,
}

/// What the annotations of one policy say.
#[derive(Debug)]
pub(crate) struct PolicyRule {
    pub(crate) policy: PolicyId,
    /// `@id`, else Cedar's own `policy0`, `policy1`, ...
    pub(crate) name: String,
    pub(crate) effect: Effect,
    /// `@reason`.
    pub(crate) reason: Option<String>,
    pub(crate) conditions: Conditions,
}

impl Policies {
    /// Parses and checks everything in a configuration.
    ///
    /// # Errors
    /// Names the key and, within a text, line and column.
    pub(crate) fn from_config(config: Config) -> Result<Self, ConfigError> {
        bounded("policies", &config.policies)?;

        let schema = match &config.schema {
            None => None,
            Some(text) => {
                bounded("schema", text)?;
                let (schema, _warnings) = Schema::from_cedarschema_str(text)
                    .map_err(|error| text_error("schema", text, &[&error]))?;
                Some(schema)
            }
        };
        let set: PolicySet =
            config
                .policies
                .parse()
                .map_err(|errors: cedar_policy::ParseErrors| {
                    let errors: Vec<&dyn Diagnostic> = errors
                        .iter()
                        .map(|error| error as &dyn Diagnostic)
                        .collect();
                    text_error("policies", &config.policies, &errors)
                })?;
        if let Some(template) = set.templates().next() {
            return Err(ConfigError::Template {
                policy: template.id().to_string(),
            });
        }
        let rules = read_rules(&set)?;
        if rules.is_empty() {
            return Err(ConfigError::NoPolicies);
        }
        if let Some(schema) = &schema {
            let outcome = Validator::new(schema.clone()).validate(&set, ValidationMode::Strict);
            let errors: Vec<&dyn Diagnostic> = outcome
                .validation_errors()
                .map(|error| error as &dyn Diagnostic)
                .collect();
            if !errors.is_empty() {
                return Err(text_error("policies", &config.policies, &errors));
            }
        }
        let entities = Entities::from_json_value(config.entities.into(), schema.as_ref())
            .map_err(|error| ConfigError::Entities(chain(&error)))?;
        if let Some(namespace) = &config.namespace {
            namespace
                .parse::<cedar_policy::EntityNamespace>()
                .map_err(|_| ConfigError::Namespace(namespace.clone()))?;
        }
        Ok(Self {
            set,
            schema,
            entities,
            namespace: config.namespace,
            rules,
        })
    }
}

fn read_rules(set: &PolicySet) -> Result<Vec<PolicyRule>, ConfigError> {
    let mut rules: Vec<PolicyRule> = Vec::new();
    for policy in set.policies() {
        let name = match policy.annotation("id") {
            Some(id) if !id.is_empty() => id.to_owned(),
            _ => policy.id().to_string(),
        };
        if rules.iter().any(|rule| rule.name == name) {
            return Err(ConfigError::SameId { id: name });
        }
        let conditions =
            obligations::read(policy.effect(), policy.annotations()).map_err(|details| {
                ConfigError::Annotation {
                    policy: format!("`{name}`"),
                    details,
                }
            })?;
        rules.push(PolicyRule {
            policy: policy.id().clone(),
            name,
            effect: policy.effect(),
            reason: policy
                .annotation("reason")
                .filter(|reason| !reason.is_empty())
                .map(str::to_owned),
            conditions,
        });
    }
    Ok(rules)
}

fn bounded(key: &'static str, text: &str) -> Result<(), ConfigError> {
    if text.len() > MAXIMUM_TEXT_BYTES {
        return Err(ConfigError::TooLong {
            key,
            bytes: text.len(),
        });
    }
    Ok(())
}

fn text_error(key: &'static str, text: &str, errors: &[&dyn Diagnostic]) -> ConfigError {
    let mut details = String::new();
    for (index, error) in errors.iter().take(ERRORS_SHOWN).enumerate() {
        if index > 0 {
            details.push_str("; ");
        }
        let label = error.labels().and_then(|mut labels| labels.next());
        if let Some(label) = &label {
            let (line, column) = line_and_column(text, label.offset());
            let _ = write!(details, "line {line}, column {column}: ");
        }
        details.push_str(&chain(*error));
        if let Some(words) = label.as_ref().and_then(|label| label.label()) {
            let _ = write!(details, " ({words})");
        }
    }
    if errors.len() > ERRORS_SHOWN {
        let _ = write!(details, "; and {} more", errors.len() - ERRORS_SHOWN);
    }
    let help = errors
        .first()
        .and_then(|error| error.help())
        .map(|help| help.to_string());
    ConfigError::Text { key, details, help }
}

/// An error with its causes, each said once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            let _ = write!(text, ": {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Line and column of a byte offset, both from 1, the column in characters.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = &text[..end];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(config: serde_json::Value) -> Config {
        serde_json::from_value(config).expect("keys that are known")
    }

    fn refuse(wrong: serde_json::Value) -> String {
        Policies::from_config(config(wrong))
            .expect_err("this configuration is wrong")
            .to_string()
    }

    const SCHEMA: &str = r#"
        entity User; entity Model;
        action promote appliesTo { principal: User, resource: Model, context: { metrics: { auc: decimal } } };
    "#;

    #[test]
    fn a_syntax_error_names_line_and_column() {
        let message = refuse(
            json!({"policies": "permit (principal, action, resource);\nforbid (principal action, resource);"}),
        );
        assert!(message.contains("line 2, column 19"), "{message}");
        assert!(message.contains("action"), "{message}");
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(line_and_column("é\néé x", "é\néé ".len()), (2, 4));
        assert_eq!(line_and_column("ab", 99), (1, 3));
    }

    #[test]
    fn unknown_and_missing_keys_are_named() {
        let refused = |json: &str| {
            sandcast_sdk::config::parse::<Config>(json)
                .expect_err("a wrong key")
                .message
        };
        assert!(
            refused(r#"{"policy": "x"}"#)
                .contains("unknown field `policy`, expected one of `policies`")
        );
        assert!(refused("{}").contains("missing field `policies`"));
    }

    #[test]
    fn an_empty_text_is_refused() {
        assert!(refuse(json!({"policies": "// nothing"})).contains("no policy"));
    }

    #[test]
    fn templates_and_repeated_ids_are_refused() {
        let template =
            refuse(json!({"policies": "permit (principal == ?principal, action, resource);"}));
        assert!(template.contains("template"), "{template}");
        let twice = refuse(json!({"policies":
            "@id(\"a\") permit (principal, action, resource);\n@id(\"a\") permit (principal, action, resource);"}));
        assert!(twice.contains("`@id(\"a\")` is used twice"), "{twice}");
    }

    #[test]
    fn policies_are_checked_against_the_schema() {
        let good = json!({"schema": SCHEMA, "policies":
            "permit (principal is User, action == Action::\"promote\", resource is Model)\nwhen { context.metrics.auc.greaterThan(decimal(\"0.8\")) };"});
        assert!(Policies::from_config(config(good)).is_ok());

        let message = refuse(json!({"schema": SCHEMA, "policies":
            "permit (principal is User, action == Action::\"promote\", resource is Model)\nwhen { context.metrics.aucc.greaterThan(decimal(\"0.8\")) };"}));
        assert!(
            message.contains("line 2") && message.contains("aucc"),
            "{message}"
        );

        let message = refuse(
            json!({"schema": "entity User in [Grup];\nentity", "policies": "permit (principal, action, resource);"}),
        );
        assert!(message.starts_with("`schema`: line 2"), "{message}");
    }

    #[test]
    fn entities_of_a_wrong_form_are_refused() {
        let message = refuse(
            json!({"policies": "permit (principal, action, resource);", "entities": [{"uid": 3}]}),
        );
        assert!(message.starts_with("`entities`"), "{message}");
    }

    #[test]
    fn a_wrong_namespace_is_refused() {
        let message = refuse(
            json!({"policies": "permit (principal, action, resource);", "namespace": "not a name"}),
        );
        assert!(message.contains("not a name"), "{message}");
    }

    #[test]
    fn a_text_that_is_too_long_is_refused() {
        let message = refuse(json!({"policies": " ".repeat(MAXIMUM_TEXT_BYTES + 1)}));
        assert!(message.contains("at most"), "{message}");
    }
}
