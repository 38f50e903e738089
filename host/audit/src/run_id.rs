use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::str::FromStr;

use jiff::{Timestamp, tz::TimeZone};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

/// Names one run, such as `20261121-201530-4f3a9c`: the UTC date, the UTC time, then three hex
/// characters of the fraction of the second and three at random. Text order is time order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct RunId(String);

impl RunId {
    /// A new id from the clock.
    #[must_use]
    pub fn generate() -> Self {
        let now = Timestamp::now();
        let second = now
            .to_zoned(TimeZone::UTC)
            .strftime("%Y%m%d-%H%M%S")
            .to_string();
        let nanosecond = now.subsec_nanosecond().unsigned_abs();
        let fraction = u64::from(nanosecond) * 4096 / 1_000_000_000;
        // The standard library seeds each hasher from the system's randomness.
        let random = std::collections::hash_map::RandomState::new()
            .build_hasher()
            .finish()
            % 4096;
        Self(format!("{second}-{fraction:03x}{random:03x}"))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Text that is not a run id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{text}` is not a run id: one looks like 20261121-201530-4f3a9c; `sandcast runs` lists them"
)]
pub struct ParseRunIdError {
    /// What was given, cut to 80 characters.
    pub text: String,
}

impl FromStr for RunId {
    type Err = ParseRunIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shape = text.len() == 22
            && text.bytes().enumerate().all(|(place, byte)| match place {
                8 | 15 => byte == b'-',
                0..15 => byte.is_ascii_digit(),
                _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            });
        if shape {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseRunIdError {
                text: text.chars().take(80).collect(),
            })
        }
    }
}

impl<'de> Deserialize<'de> for RunId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

impl JsonSchema for RunId {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RunId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "The name of a run: date, time and six hex characters",
            "type": "string",
            "pattern": "^[0-9]{8}-[0-9]{6}-[0-9a-f]{6}$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_id_parses_and_sorts_after_an_older_one() {
        let id = RunId::generate();
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
        let older: RunId = "20240101-000000-000000".parse().expect("a run id");
        assert!(older < id);
    }

    #[test]
    fn a_path_is_not_a_run_id() {
        for text in [
            "",
            "../../etc/passwd",
            "20261121-201530-4F3A9C",
            "20261121-201530-4f3a9c0",
            "20261121x201530-4f3a9c",
        ] {
            assert!(text.parse::<RunId>().is_err(), "{text}");
        }
    }
}
