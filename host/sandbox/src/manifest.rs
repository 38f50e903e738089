//! What a plugin says about itself, inside the component, so that its digest covers it.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::is_invisible;

/// The custom section that holds the manifest as JSON.
pub(crate) const MANIFEST_SECTION: &str = "sandcast:manifest";

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
    /// Every role.
    pub const ALL: [Role; 4] = [
        Role::Connector,
        Role::Validator,
        Role::Policy,
        Role::Adapter,
    ];

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

/// Bytes of a manifest.
const MAX_MANIFEST_BYTES: usize = 64 << 10;

/// Reads the manifest out of the custom sections of a component, of which exactly one must hold
/// one.
pub(crate) fn parse(sections: &[Vec<u8>]) -> Result<Manifest, String> {
    let [section] = sections else {
        return Err(match sections.len() {
            0 => format!("it has no custom section `{MANIFEST_SECTION}`"),
            several => format!("it has {several} custom sections `{MANIFEST_SECTION}`"),
        });
    };
    if section.len() > MAX_MANIFEST_BYTES {
        return Err(format!(
            "its manifest has {} bytes, over the limit of {MAX_MANIFEST_BYTES}",
            section.len()
        ));
    }
    let manifest: Manifest = serde_json::from_slice(section)
        .map_err(|error| format!("its manifest is wrong: {error}"))?;
    if manifest.id.is_empty() || manifest.id.len() > 256 || !manifest.id.chars().all(is_id) {
        return Err(
            "its id is not made of letters, digits and `-_./`, 1 to 256 of them".to_owned(),
        );
    }
    let is_version = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
    if manifest.version.is_empty() || manifest.version.len() > 64 {
        return Err("its version has no characters, or more than 64".to_owned());
    }
    // It is shown wherever the plugin is named.
    if !manifest.version.chars().all(is_version) {
        return Err("its version is not made of letters, digits and `-_.+`".to_owned());
    }
    if let Some(what) = hides(&manifest) {
        return Err(format!(
            "its {what} has characters that are not seen: control characters, or those that turn the direction of text"
        ));
    }
    Ok(manifest)
}

/// What of a manifest is not what it seems to whoever reads it. Facts about models may have lines.
fn hides(manifest: &Manifest) -> Option<String> {
    let said = [
        ("contract", &manifest.contract),
        ("vendor", &manifest.vendor),
        ("contact", &manifest.contact),
        ("license", &manifest.license),
        ("description", &manifest.description),
    ];
    if let Some((what, _)) = said.iter().find(|(_, text)| text.contains(is_invisible)) {
        return Some((*what).to_owned());
    }
    let hides = |request: &CapabilityRequest| {
        request.capability.contains(is_invisible) || request.reason.contains(is_invisible)
    };
    if let Some(place) = manifest.capabilities.iter().position(hides) {
        return Some(format!("capability {}", place + 1));
    }
    let facts = manifest.adapter.as_ref()?;
    let is_hidden = |c: char| is_invisible(c) && !matches!(c, '\n' | '\t');
    [
        ("data-sourcing", &facts.data_sourcing),
        ("intended-use", &facts.intended_use),
        ("update-cadence", &facts.update_cadence),
    ]
    .into_iter()
    .find_map(|(what, text)| text.contains(is_hidden).then(|| what.to_owned()))
}

fn is_id(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
        let mut json = serde_json::json!({
            "id": "acme/part", "version": "1.0.0", "role": "connector", "contract": "0.1.0",
        });
        change(&mut json);
        json.to_string().into_bytes()
    }

    #[test]
    fn a_short_manifest_is_enough() {
        let manifest = parse(&[section(|_| {})]).expect("a manifest");
        assert_eq!(manifest.role, Role::Connector);
        assert!(manifest.capabilities.is_empty());
    }

    #[test]
    fn exactly_one_manifest_is_wanted() {
        assert!(parse(&[]).expect_err("none").contains("no custom section"));
        let two = [section(|_| {}), section(|_| {})];
        assert!(parse(&two).expect_err("two").contains("2 custom sections"));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(parse(&[b"not json".to_vec()]).is_err());
        assert!(parse(&[section(|json| json["role"] = "king".into())]).is_err());
        assert!(parse(&[section(|json| json["id"] = "a b\u{1b}".into())]).is_err());
        assert!(parse(&[section(|json| json["version"] = "".into())]).is_err());
        assert!(parse(&[section(|json| json["version"] = "1.0\u{202e}".into())]).is_err());
        assert!(parse(&[section(|json| json["version"] = "1.0.0-rc.1+7".into())]).is_ok());
        for (what, change) in [
            (
                "description",
                serde_json::json!({ "description": "fine\u{1b}[2K" }),
            ),
            ("vendor", serde_json::json!({ "vendor": "a\nb" })),
            (
                "capability 2",
                serde_json::json!({ "capabilities": [
                    { "capability": "log", "reason": "to tell" },
                    { "capability": "files", "reason": "to\u{202e}read" },
                ] }),
            ),
        ] {
            let section = section(|json| {
                for (name, value) in change.as_object().expect("an object") {
                    json[name] = value.clone();
                }
            });
            let error = parse(&[section]).expect_err("it hides something");
            assert!(
                error.contains(&format!("its {what} has characters")),
                "{error}"
            );
        }
        let long = " ".repeat(MAX_MANIFEST_BYTES + 1).into_bytes();
        assert!(
            parse(&[long])
                .expect_err("too long")
                .contains("over the limit")
        );
    }

    #[test]
    fn adapter_facts_are_read_in_both_spellings() {
        let facts = |json: &mut serde_json::Value| {
            json["adapter"] = serde_json::json!({
                "data-sourcing": "none", "intended_use": "any", "update-cadence": "yearly",
            });
        };
        let manifest = parse(&[section(facts)]).expect("a manifest");
        assert_eq!(manifest.adapter.expect("facts").intended_use, "any");
    }
}
