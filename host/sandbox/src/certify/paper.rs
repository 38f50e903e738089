//! What a component says of itself.

use super::{Demand, Trial};
use crate::grants::Capability;
use crate::inspect::Inspection;
use crate::risk::{Surroundings, risk};

/// Bytes of a component that loads without anybody waiting for it.
const HANDY_BYTES: u64 = 16 << 20;

pub(super) fn try_all(inspection: &Inspection, trials: &mut Vec<Trial>) {
    trials.push(Trial::new(
        "complete-manifest",
        Demand::Must,
        "the manifest says who made it, under which licence, and what each capability is for",
        complete(inspection),
    ));
    trials.push(Trial::new(
        "asks-for-what-it-imports",
        Demand::Must,
        "every capability that is imported is asked for",
        asks(inspection),
    ));
    trials.push(Trial::new(
        "imports-what-it-asks-for",
        Demand::Should,
        "nothing is asked for that is not imported",
        imports(inspection),
    ));
    trials.push(Trial::new(
        "no-noise",
        Demand::Should,
        "nothing is imported by a standard library without being asked",
        noise(inspection),
    ));
    trials.push(Trial::new(
        "handy",
        Demand::Should,
        "the component is at most 16 MiB",
        match inspection.size_bytes {
            bytes if bytes <= HANDY_BYTES => Ok(format!("{bytes} bytes")),
            bytes => Err(format!("{bytes} bytes")),
        },
    ));
    let risk = risk(inspection, &Surroundings::default());
    trials.push(Trial::new(
        "risk",
        Demand::Should,
        "what it could do, granted as narrowly as can be, weighs less than 45 of 100",
        match risk.score {
            score @ 0..45 => Ok(format!("{score}, {}", risk.level)),
            score => Err(format!("{score}, {}", risk.level)),
        },
    ));
}

fn complete(inspection: &Inspection) -> Result<String, String> {
    let manifest = &inspection.manifest;
    let mut missing: Vec<String> = [
        ("vendor", &manifest.vendor),
        ("contact", &manifest.contact),
        ("license", &manifest.license),
    ]
    .into_iter()
    .filter(|(_, value)| value.trim().is_empty())
    .map(|(name, _)| name.to_owned())
    .collect();
    let capabilities = manifest.capabilities.iter();
    missing.extend(
        capabilities
            .filter(|request| request.reason.trim().is_empty())
            .map(|request| format!("the reason for `{}`", request.capability)),
    );
    match missing.is_empty() {
        true => Ok(format!("{}, {}", manifest.vendor, manifest.license)),
        false => Err(format!("missing: {}", missing.join(", "))),
    }
}

fn names(found: Vec<&str>) -> Result<String, String> {
    match found.is_empty() {
        true => Ok("nothing else".to_owned()),
        false => Err(found.join(", ")),
    }
}

fn asked<'a>(inspection: &'a Inspection) -> impl Fn(&str) -> bool + 'a {
    |name| {
        let mut requests = inspection.manifest.capabilities.iter();
        requests.any(|request| request.capability == name)
    }
}

fn imported(inspection: &Inspection) -> Vec<Capability> {
    let imports = inspection.imports.iter().filter(|import| !import.noise);
    let mut imported: Vec<Capability> = imports.filter_map(|import| import.capability).collect();
    imported.sort();
    imported.dedup();
    imported
}

fn asks(inspection: &Inspection) -> Result<String, String> {
    let asked = asked(inspection);
    let unasked = imported(inspection)
        .into_iter()
        .filter(|capability| !capability.is_always_granted() && !asked(capability.as_str()));
    names(unasked.map(Capability::as_str).collect())
}

fn imports(inspection: &Inspection) -> Result<String, String> {
    let imported = imported(inspection);
    let requests = inspection.manifest.capabilities.iter();
    let unused = requests
        .map(|request| request.capability.as_str())
        .filter(|name| {
            !imported
                .iter()
                .any(|capability| capability.as_str() == *name)
        });
    names(unused.collect())
}

fn noise(inspection: &Inspection) -> Result<String, String> {
    let noise = inspection.imports.iter().filter(|import| import.noise);
    names(noise.map(|import| import.interface.as_str()).collect())
}
