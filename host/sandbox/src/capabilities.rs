//! The auditor's view of a component, a row for each capability: what it asks for, imports, is
//! granted and has used.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::grants::{Capability, Grants};
use crate::inspect::{Import, Inspection};
use crate::risk::Risk;
use crate::text;

/// One capability of a component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CapabilityView {
    /// Its name; what the manifest calls it where the host knows none of that name.
    pub capability: String,
    /// Why the plugin asks for it, as its manifest says; `None` where it does not ask.
    pub asks: Option<String>,
    /// The interfaces of it whose functions the binary imports.
    pub imports: Vec<String>,
    /// Whether those are only what a guest's standard library imports unasked.
    pub noise: bool,
    /// What the pipeline grants of it, in words; `None` where it grants nothing or none was given.
    pub granted: Option<String>,
    /// Calls in the runs that are known; `None` where no run is.
    pub used: Option<u64>,
    /// What does not fit, in words.
    pub remarks: Vec<String>,
}

/// The rows, in the order of [`Capability::ALL`]: what is asked for, imported or granted.
/// `risk` is of the same component in the same surroundings, `path` says how folders are shown.
pub fn capabilities(
    inspection: &Inspection,
    grants: Option<&Grants>,
    used: Option<&BTreeMap<String, u64>>,
    risk: &Risk,
    path: impl Fn(&Path) -> String,
) -> Vec<CapabilityView> {
    let asked = &inspection.manifest.capabilities;
    let asks = |name: &str| {
        let ask = asked.iter().find(|ask| ask.capability == name)?;
        Some(text::sentence(&ask.reason, 512))
    };
    let remarks = |name: &str| {
        let about = |factor: &&crate::RiskReason| factor.capability.as_deref() == Some(name);
        risk.reasons
            .iter()
            .filter(about)
            .filter(|reason| reason.factor.is_mismatch())
            .map(|reason| reason.because.clone())
            .collect()
    };
    let mut rows = Vec::new();
    for capability in Capability::ALL {
        let name = capability.as_str();
        let imports: Vec<&Import> = inspection
            .imports
            .iter()
            .filter(|import| import.capability == Some(capability))
            .collect();
        let asks = asks(name);
        let granted = grants.and_then(|grants| grants.in_words(capability, &path));
        let is_granted = granted.is_some() && !capability.is_always_granted();
        if asks.is_none() && imports.is_empty() && !is_granted {
            continue;
        }
        rows.push(CapabilityView {
            capability: name.to_owned(),
            asks,
            noise: !imports.is_empty() && imports.iter().all(|import| import.noise),
            imports: imports.iter().map(|import| shown(import)).collect(),
            granted,
            used: used.map(|used| used.get(name).copied().unwrap_or(0)),
            remarks: remarks(name),
        });
    }
    let is_unknown = |name: &str| Capability::ALL.iter().all(|known| known.as_str() != name);
    for ask in asked.iter().filter(|ask| is_unknown(&ask.capability)) {
        let name = text::sentence(&ask.capability, 128);
        rows.push(CapabilityView {
            asks: asks(&ask.capability),
            imports: Vec::new(),
            noise: false,
            granted: None,
            used: None,
            remarks: remarks(&name),
            capability: name,
        });
    }
    rows
}

fn shown(import: &Import) -> String {
    text::sentence(&import.interface, 256)
}
