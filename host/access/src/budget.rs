use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};

use serde::{Deserialize, Serialize};

/// What a principal may take of a server; what is not said is not bounded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Requests to models in a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<NonZeroU32>,
    /// Rows that are predicted, or texts that are written, in a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_per_minute: Option<NonZeroU64>,
    /// Requests that are answered at one time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_once: Option<NonZeroU32>,
}

impl Budget {
    /// Whether nothing is bounded.
    #[must_use]
    pub fn is_unbounded(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            requests_per_minute,
            rows_per_minute,
            at_once,
        } = self;
        let parts: Vec<String> = [
            requests_per_minute.map(|number| format!("{number} requests a minute")),
            rows_per_minute.map(|number| format!("{number} rows a minute")),
            at_once.map(|number| format!("{number} at once")),
        ]
        .into_iter()
        .flatten()
        .collect();
        match parts.is_empty() {
            true => formatter.write_str("no bounds"),
            false => formatter.write_str(&parts.join(", ")),
        }
    }
}
