//! What a plugin says about itself, inside the component, so that its digest covers it.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The custom section that holds the manifest as JSON.
pub const MANIFEST_SECTION: &str = "sandcast:manifest";

/// The part a plugin plays in the line.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Brings rows in.
    Connector,
    /// Says which rows can be trusted.
    Validator,
    /// Decides what may happen.
    Policy,
    /// Trains models and predicts with them.
    Adapter,
}

impl Role {
    /// The name as it stands in a manifest and in a pipeline.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Connector => "connector",
            Role::Validator => "validator",
            Role::Policy => "policy",
            Role::Adapter => "adapter",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "connector" => Ok(Role::Connector),
            "validator" => Ok(Role::Validator),
            "policy" => Ok(Role::Policy),
            "adapter" => Ok(Role::Adapter),
            other => Err(format!(
                "`{other}` is not a role; the roles are connector, validator, policy and adapter"
            )),
        }
    }
}

/// A capability the plugin asks for, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityRequest {
    /// The name under `grants`, such as `files`.
    pub capability: String,
    /// Why the plugin needs it, in the vendor's words.
    pub reason: String,
}

/// What an adapter says about the model it makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AdapterFacts {
    /// Where the data behind any pre-trained part came from.
    #[serde(alias = "data_sourcing")]
    pub data_sourcing: String,
    /// What the models are meant for.
    #[serde(alias = "intended_use")]
    pub intended_use: String,
    /// How often the vendor updates the plugin.
    #[serde(alias = "update_cadence")]
    pub update_cadence: String,
}

/// What a plugin says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Vendor and name, such as `sandcast/connector-csv`.
    pub id: String,
    /// The version of the plugin.
    pub version: String,
    /// The part it plays.
    pub role: Role,
    /// The version of the contract it was built against, such as `0.1.0`.
    pub contract: String,
    /// Who makes it.
    #[serde(default)]
    pub vendor: String,
    /// Where to reach the vendor.
    #[serde(default)]
    pub contact: String,
    /// An SPDX expression.
    #[serde(default)]
    pub license: String,
    /// One sentence.
    #[serde(default)]
    pub description: String,
    /// What it asks for.
    #[serde(default)]
    pub capabilities: Vec<CapabilityRequest>,
    /// Facts about an adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterFacts>,
}
