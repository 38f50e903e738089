//! The plugin's configuration: a JSON object, parsed into the plugin's own type, and single values
//! from `wasi:config`.

use serde::de::DeserializeOwned;

use crate::Failure;
use crate::bindings::imports::wasi::config::store;

/// Parses a JSON object; nothing at all counts as an empty one. The failure names the key.
///
/// ```
/// #[derive(Debug, serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Config {
///     limit: u32,
/// }
///
/// let config: Config = sandcast_sdk::config::parse(r#"{"limit": 3}"#).expect("a good configuration");
/// assert_eq!(config.limit, 3);
///
/// let failure = sandcast_sdk::config::parse::<Config>(r#"{"limit": "x"}"#).expect_err("a bad one");
/// assert!(failure.message.starts_with("`limit`: invalid type: string"));
/// ```
///
/// # Errors
/// `invalid-config` with the path of the key.
pub fn parse<T: DeserializeOwned>(json: &str) -> Result<T, Failure> {
    let json = if json.trim().is_empty() { "{}" } else { json };
    let mut deserializer = serde_json::Deserializer::from_str(json);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        // The position is one in JSON that the host made, and tells the operator nothing.
        let message = inner.to_string();
        let message = message.split(" at line ").next().unwrap_or(&message);
        if inner.is_syntax() || inner.is_eof() {
            Failure::new(
                crate::FailureCode::InvalidConfig,
                format!("the configuration is not JSON: {message}"),
            )
        } else if path == "." {
            Failure::new(crate::FailureCode::InvalidConfig, message)
        } else {
            Failure::invalid_config(&path, message)
        }
    })
}

/// One value that the operator has set for this plugin, as text.
///
/// # Errors
/// `unavailable` when the host's store does not answer.
pub fn get(key: &str) -> Result<Option<String>, Failure> {
    store::get(key).map_err(|error| {
        let (store::Error::Upstream(message) | store::Error::Io(message)) = error;
        Failure::unavailable(format!("configuration key `{key}`: {message}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        #[serde(default)]
        rules: Vec<Rule>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Rule {
        #[serde(default)]
        min: f64,
    }

    #[test]
    fn nothing_is_an_empty_object() {
        assert!(parse::<Config>("").expect("parsed").rules.is_empty());
    }

    #[test]
    fn failures_name_the_path() {
        let wrong_type =
            parse::<Config>(r#"{"rules": [{"min": 1}, {"min": "a"}]}"#).expect_err("refused");
        assert_eq!(
            wrong_type.message,
            "`rules[1].min`: invalid type: string \"a\", expected f64"
        );
        let unknown = parse::<Config>(r#"{"rule": []}"#).expect_err("refused");
        assert!(
            unknown.message.contains("unknown field `rule`"),
            "{}",
            unknown.message
        );
        let broken = parse::<Config>(r#"{"rules": ["#).expect_err("refused");
        assert!(
            broken.message.starts_with("the configuration is not JSON"),
            "{}",
            broken.message
        );
        assert_eq!(
            parse::<Config>("{}")
                .expect("parsed")
                .rules
                .iter()
                .map(|rule| rule.min)
                .sum::<f64>(),
            0.0
        );
    }
}
