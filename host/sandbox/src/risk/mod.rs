//! How much harm a plugin could do, as a number from 0 to 100 with its reasons.
//!
//! The number is the sum of the points of its reasons, and stops at 100. What a reason weighs is
//! in [`RiskFactor::points`]; the weights are judgements, made so that
//!
//! - a plugin that opens nothing is low, whatever it forgets to say about itself;
//! - one capability, narrowly granted, is low or moderate;
//! - a way out for data, which takes something to read and somewhere to send it, is high;
//! - a way out that is wide, or reaches into the operator's own networks, is critical.
//!
//! It is a function of what goes in and of nothing else, and to grant more never lowers it. A
//! low number is no proof of good intentions: it says how much trust a plugin needs, not whether it
//! deserves any.

mod factor;
mod weigh;

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

pub use factor::RiskFactor;

use crate::grants::Grants;
use crate::inspect::Inspection;

/// What is known around a component.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surroundings<'a> {
    /// What a pipeline grants it. Without one, what it imports and asks for counts as if it were
    /// granted as narrowly as can be.
    pub grants: Option<&'a Grants>,
    /// Calls of its runs, by capability; none where no run is known.
    pub used: Option<&'a BTreeMap<String, u64>>,
    /// Columns or classes of the data that are known to be sensitive.
    pub sensitive: &'a [String],
    /// Whether the pipeline pins its digest, where there is a pipeline.
    pub pinned: Option<bool>,
}

/// How much harm a plugin could do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Risk {
    /// 0 to 100.
    pub score: u8,
    /// The same in a word.
    pub level: RiskLevel,
    /// Why, the heaviest first.
    pub reasons: Vec<RiskReason>,
}

/// A score in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RiskLevel {
    /// 0 to 19.
    Low,
    /// 20 to 44.
    Moderate,
    /// 45 to 69.
    High,
    /// 70 and more.
    Critical,
}

impl RiskLevel {
    fn of(score: u8) -> Self {
        match score {
            0..=19 => Self::Low,
            20..=44 => Self::Moderate,
            45..=69 => Self::High,
            70.. => Self::Critical,
        }
    }

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Moderate => "moderate",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for RiskLevel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Something that adds to the risk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RiskReason {
    /// What it is.
    pub factor: RiskFactor,
    /// What it adds.
    pub points: u8,
    /// The capability it is about, or what the manifest calls one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
    /// What was found.
    pub because: String,
    /// What would take it away, or make it weigh less.
    pub lowered_by: String,
}

/// Weighs a component.
pub fn risk(inspection: &Inspection, surroundings: &Surroundings<'_>) -> Risk {
    let mut reasons = weigh::reasons(inspection, surroundings);
    // Stable, so reasons of the same weight stay in the order in which they were looked for.
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.points));
    let sum: u32 = reasons.iter().map(|reason| u32::from(reason.points)).sum();
    let score = u8::try_from(sum.min(100)).unwrap_or(100);
    Risk {
        score,
        level: RiskLevel::of(score),
        reasons,
    }
}

#[cfg(test)]
mod tests;
