//! Findings in the Static Analysis Results Interchange Format (SARIF) 2.1.0 of OASIS, which code
//! scanning reads. Only what is used of it is here; names are those of the standard
//! (<https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html>).

use std::collections::BTreeMap;

use sandcast_audit::Digest;
use sandcast_sandbox::{Inspection, InspectionDiff, Risk, RiskFactor, RiskReason};
use serde::Serialize;

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// What fingerprints are made of; another number when that changes.
const FINGERPRINT: &str = "sandcastFinding/v1";

/// Something that was gained, beside the factors of a risk.
const GAINS: [(&str, &str); 3] = [
    (
        "capability-gained",
        "A new version asks for, or imports, a capability that the old one did not.",
    ),
    (
        "import-gained",
        "A new version imports an interface that the old one did not.",
    ),
    (
        "function-gained",
        "A new version imports a function of an interface that the old one did not.",
    ),
];

/// `sarifLog`.
#[derive(Debug, Serialize)]
pub(super) struct Log {
    #[serde(rename = "$schema")]
    schema: &'static str,
    version: &'static str,
    runs: [Run; 1],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    tool: Tool,
    automation_details: AutomationDetails,
    artifacts: [Artifact; 1],
    results: Vec<SarifResult>,
    column_kind: &'static str,
    properties: RunProperties,
}

#[derive(Debug, Serialize)]
struct Tool {
    driver: Driver,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Driver {
    name: &'static str,
    organization: &'static str,
    semantic_version: &'static str,
    information_uri: &'static str,
    rules: Vec<Rule>,
}

/// `reportingDescriptor`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    id: String,
    short_description: Text,
    default_configuration: Configuration,
    properties: RuleProperties,
}

#[derive(Debug, Serialize)]
struct Configuration {
    level: Level,
}

#[derive(Debug, Serialize)]
struct RuleProperties {
    tags: [&'static str; 2],
    /// 0.0 to 10.0, as text: what code scanning sorts by.
    #[serde(rename = "security-severity")]
    security_severity: &'static str,
}

#[derive(Debug, Serialize)]
struct AutomationDetails {
    id: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Artifact {
    location: ArtifactLocation,
    length: u64,
    mime_type: &'static str,
    roles: [&'static str; 1],
    hashes: BTreeMap<&'static str, String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ArtifactLocation {
    uri: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u32>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SarifResult {
    rule_id: String,
    rule_index: usize,
    level: Level,
    message: Text,
    locations: [Location; 1],
    partial_fingerprints: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline_state: Option<&'static str>,
    properties: ResultProperties,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Note,
    Warning,
    Error,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    physical_location: PhysicalLocation,
    logical_locations: [LogicalLocation; 1],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PhysicalLocation {
    artifact_location: ArtifactLocation,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LogicalLocation {
    fully_qualified_name: String,
    kind: &'static str,
}

#[derive(Debug, Serialize)]
struct Text {
    text: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ResultProperties {
    #[serde(skip_serializing_if = "Option::is_none")]
    points: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lowered_by: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RunProperties {
    risk_score: u8,
    risk_level: &'static str,
}

/// The risk of a component.
pub(super) fn of_component(file: &str, inspection: &Inspection, risk: &Risk) -> Log {
    let results = risk.reasons.iter();
    let results = results.map(|reason| of_reason(file, inspection, reason, None));
    log(file, inspection, risk, results.collect())
}

/// What a component gained, and its risk set against that of the old one.
pub(super) fn of_changes(file: &str, new: &Inspection, diff: &InspectionDiff) -> Log {
    let gained = [&diff.capabilities, &diff.imports, &diff.functions];
    let mut results = Vec::new();
    for ((rule, _), changes) in GAINS.iter().zip(gained) {
        for name in &changes.gained {
            let (level, said) = if diff.unapproved.contains(name) {
                (Level::Error, "and that is not approved")
            } else {
                (Level::Note, "which is approved")
            };
            results.push(SarifResult {
                level,
                message: Text {
                    text: format!(
                        "`{name}` was gained since version {}, {said}.",
                        diff.old.version
                    ),
                },
                baseline_state: Some("new"),
                ..result(file, new, rule, Some(name))
            });
        }
    }
    for reason in &diff.new.risk.reasons {
        let state = if diff.old.risk.reasons.contains(reason) {
            "unchanged"
        } else {
            "new"
        };
        results.push(of_reason(file, new, reason, Some(state)));
    }
    log(file, new, &diff.new.risk, results)
}

fn of_reason(
    file: &str,
    inspection: &Inspection,
    reason: &RiskReason,
    baseline_state: Option<&'static str>,
) -> SarifResult {
    let subject = reason.capability.as_ref();
    let mut result = result(file, inspection, reason.factor.as_str(), subject);
    result.level = level_of(reason.factor);
    result.message.text = format!("{}. To lower it: {}.", reason.because, reason.lowered_by);
    result.baseline_state = baseline_state;
    result.properties.points = Some(reason.points);
    result.properties.lowered_by = Some(reason.lowered_by.clone());
    result
}

/// A result without words, at the file of the component.
fn result(
    file: &str,
    inspection: &Inspection,
    rule: &str,
    subject: Option<&String>,
) -> SarifResult {
    let id = &inspection.manifest.id;
    let about = subject.map_or("", String::as_str);
    // Not of the digest: the same finding in the next version is the same finding.
    let fingerprint = Digest::of(format!("{rule}\n{id}\n{about}").as_bytes());
    let rules = RiskFactor::ALL.iter().map(|factor| factor.as_str());
    let mut rules = rules.chain(GAINS.iter().map(|(name, _)| *name));
    SarifResult {
        rule_id: format!("sandcast/{rule}"),
        // Every rule is in the table.
        rule_index: rules.position(|name| name == rule).unwrap_or_default(),
        level: Level::Note,
        message: Text {
            text: String::new(),
        },
        locations: [Location {
            physical_location: PhysicalLocation {
                artifact_location: ArtifactLocation {
                    uri: uri(file),
                    index: Some(0),
                },
            },
            logical_locations: [LogicalLocation {
                fully_qualified_name: match subject {
                    None => id.clone(),
                    Some(subject) => format!("{id}#{subject}"),
                },
                kind: "module",
            }],
        }],
        partial_fingerprints: BTreeMap::from([(FINGERPRINT, fingerprint.to_string())]),
        baseline_state: None,
        properties: ResultProperties {
            points: None,
            subject: subject.cloned(),
            lowered_by: None,
        },
    }
}

fn log(file: &str, inspection: &Inspection, risk: &Risk, results: Vec<SarifResult>) -> Log {
    Log {
        schema: SCHEMA,
        version: "2.1.0",
        runs: [Run {
            tool: Tool {
                driver: Driver {
                    name: "sandcast",
                    organization: "Sandcast",
                    semantic_version: env!("CARGO_PKG_VERSION"),
                    information_uri: env!("CARGO_PKG_REPOSITORY"),
                    rules: rules(),
                },
            },
            automation_details: AutomationDetails {
                id: format!("sandcast/inspect/{}/", inspection.manifest.id),
            },
            artifacts: [Artifact {
                location: ArtifactLocation {
                    uri: uri(file),
                    index: None,
                },
                length: inspection.size_bytes,
                mime_type: "application/wasm",
                roles: ["analysisTarget"],
                hashes: BTreeMap::from([("blake3", inspection.digest.to_string())]),
            }],
            results,
            column_kind: "utf16CodeUnits",
            properties: RunProperties {
                risk_score: risk.score,
                risk_level: risk.level.as_str(),
            },
        }],
    }
}

/// Every rule there is, so that the place of one does not depend on what was found.
fn rules() -> Vec<Rule> {
    let factors = RiskFactor::ALL
        .into_iter()
        .map(|factor| rule(factor.as_str(), factor.title(), level_of(factor)));
    let gains = GAINS
        .iter()
        .map(|(name, title)| rule(name, title, Level::Error));
    factors.chain(gains).collect()
}

fn rule(name: &str, title: &str, level: Level) -> Rule {
    Rule {
        id: format!("sandcast/{name}"),
        short_description: Text {
            text: title.to_owned(),
        },
        default_configuration: Configuration { level },
        properties: RuleProperties {
            tags: ["security", "supply-chain"],
            security_severity: match level {
                Level::Error => "8.0",
                Level::Warning => "5.0",
                Level::Note => "2.0",
            },
        },
    }
}

fn level_of(factor: RiskFactor) -> Level {
    match factor {
        // It weighs nothing, since it cannot run.
        RiskFactor::ImportsUngranted => Level::Error,
        factor => match factor.points() {
            15.. => Level::Error,
            4..=14 => Level::Warning,
            _ => Level::Note,
        },
    }
}

/// A path as a URI (RFC 3986): relative, or with the scheme `file` where it is absolute.
fn uri(path: &str) -> String {
    let mut uri = String::new();
    if path.starts_with('/') {
        uri.push_str("file://");
    }
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                uri.push(char::from(byte));
            }
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_uris() {
        assert_eq!(uri("a b/ü.wasm"), "a%20b/%C3%BC.wasm");
        assert_eq!(uri("/tmp/a.wasm"), "file:///tmp/a.wasm");
    }

    #[test]
    fn every_rule_has_its_place() {
        let rules = rules();
        assert_eq!(rules.len(), RiskFactor::ALL.len() + GAINS.len());
        for (index, rule) in rules.iter().enumerate() {
            let first = rules.iter().position(|it| it.id == rule.id);
            assert_eq!(first, Some(index), "{}", rule.id);
        }
    }
}
