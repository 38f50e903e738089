use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Budget;

/// Somebody or something that is known here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Principal {
    /// Who.
    pub id: PrincipalId,
    /// As what; at least one.
    pub roles: BTreeSet<Role>,
    /// Since when.
    pub created: Timestamp,
    /// Since when no token of theirs is good, if that is so.
    pub disabled: Option<Timestamp>,
    /// What they may take of a server.
    #[serde(default, skip_serializing_if = "Budget::is_unbounded")]
    pub budget: Budget,
}

/// The name of a principal: lower case letters, digits, and `.`, `_`, `@`, `-` between them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PrincipalId(String);

impl PrincipalId {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PrincipalId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

impl From<PrincipalId> for String {
    fn from(id: PrincipalId) -> Self {
        id.0
    }
}

/// A name that no principal can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` cannot name a principal: begin with a lower case letter or a digit, go on with these and \
     `.`, `_`, `@`, `-`, 64 at most"
)]
pub struct ParsePrincipalError(String);

impl FromStr for PrincipalId {
    type Err = ParsePrincipalError;

    fn from_str(text: &str) -> Result<Self, ParsePrincipalError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_good = text.len() <= 64
            && text.bytes().next().is_some_and(plain)
            && text
                .bytes()
                .all(|byte| plain(byte) || b"._@-".contains(&byte));
        match is_good {
            true => Ok(Self(text.to_owned())),
            false => Err(ParsePrincipalError(text.chars().take(80).collect())),
        }
    }
}

impl TryFrom<String> for PrincipalId {
    type Error = ParsePrincipalError;

    fn try_from(text: String) -> Result<Self, ParsePrincipalError> {
        text.parse()
    }
}

/// As what a principal acts; the policies say what that comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Runs the place.
    Operator,
    /// Writes plugins.
    Vendor,
    /// Reads the record.
    Auditor,
    /// Asks models.
    Service,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Operator, Self::Vendor, Self::Auditor, Self::Service];

    /// The word in policies and records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Vendor => "vendor",
            Self::Auditor => "auditor",
            Self::Service => "service",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| {
            let all = Self::ALL.map(Self::as_str).join(", ");
            format!("`{text}` is no role; one is: {all}")
        })
    }
}

/// The person at the machine, as the system names them, such as `local:ann`: who acts in a state
/// where access is not set up. No principal can have such a name.
#[must_use]
pub fn local_user() -> String {
    let name = ["USER", "LOGNAME"]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|name| !name.trim().is_empty());
    let name: String = name
        .unwrap_or_else(|| "unknown".to_owned())
        .chars()
        .filter(|letter| !letter.is_control())
        .take(64)
        .collect();
    format!("local:{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_cannot_be_taken_for_another_kind() {
        for good in ["ann", "ci-7", "ann@example.com", "0a"] {
            assert_eq!(good.parse::<PrincipalId>().expect(good).as_str(), good);
        }
        let long = "a".repeat(65);
        for bad in ["", "Ann", "local:ann", "a b", "-a", "ä", "a\n", &long] {
            let error = bad.parse::<PrincipalId>().expect_err(bad).to_string();
            assert!(error.contains("cannot name a principal"), "{error}");
        }
        assert!(local_user().starts_with("local:"));
    }
}
