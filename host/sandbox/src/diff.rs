//! What changed between two versions of a component: what the new one can do and could not, and
//! what it says differently about itself.

use std::collections::BTreeSet;

use sandcast_audit::Digest;
use serde::Serialize;

use crate::grants::Capability;
use crate::inspect::{Import, Inspection};
use crate::risk::{Risk, Surroundings, risk};
use crate::text;

/// Bytes of a text of a manifest in a comparison.
const MAX_TEXT_BYTES: usize = 512;

/// What changed from one component to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InspectionDiff {
    /// The component as it was.
    pub old: Side,
    /// The component as it is.
    pub new: Side,
    /// Capabilities that it asks for, or imports itself.
    pub capabilities: Changes,
    /// Interfaces of which it imports functions, without their versions.
    pub imports: Changes,
    /// Functions of interfaces that it imported before and imports now, as `interface#function`.
    pub functions: Changes,
    /// Interfaces whose version changed.
    pub versions: Vec<FactChange>,
    /// What it exports.
    pub exports: Changes,
    /// What it says about itself.
    pub facts: Vec<FactChange>,
    /// What it gained without approval: capabilities, interfaces and functions.
    pub unapproved: Vec<String>,
}

/// One of two components.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Side {
    /// What it calls itself.
    pub id: String,
    /// The version it calls itself.
    pub version: String,
    /// blake3 of the component.
    pub digest: Digest,
    /// The size of the component.
    pub size_bytes: u64,
    /// The contract that it speaks.
    pub contract: String,
    /// How much harm it could do, if what it imports were granted as narrowly as can be.
    pub risk: Risk,
}

/// What came and what went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// In the new one, and not in the old one.
    pub gained: Vec<String>,
    /// In the old one, and not in the new one.
    pub lost: Vec<String>,
}

/// Something that was said differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FactChange {
    /// What.
    pub fact: String,
    /// How it was; empty where it was not said.
    pub old: String,
    /// How it is; empty where it is not said.
    pub new: String,
}

impl Changes {
    fn between(old: &BTreeSet<String>, new: &BTreeSet<String>) -> Self {
        let shown = |text: &String| text::sentence(text, MAX_TEXT_BYTES);
        Self {
            gained: new.difference(old).map(shown).collect(),
            lost: old.difference(new).map(shown).collect(),
        }
    }

    /// Whether nothing came or went.
    pub fn is_empty(&self) -> bool {
        self.gained.is_empty() && self.lost.is_empty()
    }
}

impl InspectionDiff {
    /// Whether the two are the same bytes.
    pub fn is_same(&self) -> bool {
        self.old.digest == self.new.digest
    }
}

/// Compares two components. `approved` names what may be gained: capabilities (`http`), packages
/// (`wasi:http`), interfaces with or without version (`wasi:http/types`) or functions
/// (`wasi:http/types#fields`).
pub fn diff(old: &Inspection, new: &Inspection, approved: &[String]) -> InspectionDiff {
    let capabilities = Changes::between(&capabilities_of(old), &capabilities_of(new));
    let imports = Changes::between(&interfaces_of(old), &interfaces_of(new));
    let functions = functions_between(old, new);
    let unapproved = unapproved(new, approved, &capabilities, &imports, &functions);
    InspectionDiff {
        old: side(old),
        new: side(new),
        versions: versions(old, new),
        exports: Changes::between(
            &old.exports.iter().cloned().collect(),
            &new.exports.iter().cloned().collect(),
        ),
        facts: facts(old, new),
        capabilities,
        imports,
        functions,
        unapproved,
    }
}

fn side(inspection: &Inspection) -> Side {
    Side {
        id: inspection.manifest.id.clone(),
        version: text::sentence(&inspection.manifest.version, 64),
        digest: inspection.digest,
        size_bytes: inspection.size_bytes,
        contract: text::sentence(&inspection.contract, 64),
        risk: risk(inspection, &Surroundings::default()),
    }
}

/// What is imported for its functions: types alone open nothing.
fn callable(inspection: &Inspection) -> impl Iterator<Item = &Import> {
    let imports = inspection.imports.iter();
    imports.filter(|import| !import.functions.is_empty())
}

/// The name of an interface without its version.
fn path_of(interface: &str) -> &str {
    interface
        .split_once('@')
        .map_or(interface, |(path, _)| path)
}

fn capabilities_of(inspection: &Inspection) -> BTreeSet<String> {
    let asked = inspection.manifest.capabilities.iter();
    let asked = asked.map(|ask| ask.capability.clone());
    let imported = callable(inspection).filter(|import| !import.noise);
    let imported = imported.filter_map(|import| Some(import.capability?.to_string()));
    asked.chain(imported).collect()
}

fn interfaces_of(inspection: &Inspection) -> BTreeSet<String> {
    callable(inspection)
        .map(|import| path_of(&import.interface).to_owned())
        .collect()
}

/// Functions of interfaces that both import; those of the others come and go with them.
fn functions_between(old: &Inspection, new: &Inspection) -> Changes {
    let (before, after) = (interfaces_of(old), interfaces_of(new));
    let of = |inspection: &Inspection| -> BTreeSet<String> {
        callable(inspection)
            .map(|import| (path_of(&import.interface), import))
            .filter(|(path, _)| before.contains(*path) && after.contains(*path))
            .flat_map(|(path, import)| {
                let functions = import.functions.iter();
                functions.map(move |function| format!("{path}#{function}"))
            })
            .collect()
    };
    Changes::between(&of(old), &of(new))
}

fn versions(old: &Inspection, new: &Inspection) -> Vec<FactChange> {
    let mut changes = Vec::new();
    for import in callable(new) {
        let path = path_of(&import.interface);
        let before = callable(old).find(|other| path_of(&other.interface) == path);
        let Some(before) = before.filter(|other| other.interface != import.interface) else {
            continue;
        };
        let version = |interface: &str| {
            let (_, version) = interface.split_once('@').unwrap_or_default();
            text::sentence(version, 64)
        };
        changes.push(FactChange {
            fact: text::sentence(path, MAX_TEXT_BYTES),
            old: version(&before.interface),
            new: version(&import.interface),
        });
    }
    changes
}

fn facts(old: &Inspection, new: &Inspection) -> Vec<FactChange> {
    let mut changes = Vec::new();
    let mut compare = |fact: &str, old: &str, new: &str| {
        if old != new {
            changes.push(FactChange {
                fact: fact.to_owned(),
                old: text::sentence(old, MAX_TEXT_BYTES),
                new: text::sentence(new, MAX_TEXT_BYTES),
            });
        }
    };
    let (was, is) = (&old.manifest, &new.manifest);
    compare("id", &was.id, &is.id);
    compare("version", &was.version, &is.version);
    compare("role", was.role.as_str(), is.role.as_str());
    compare("contract", &old.contract, &new.contract);
    compare("vendor", &was.vendor, &is.vendor);
    compare("contact", &was.contact, &is.contact);
    compare("licence", &was.license, &is.license);
    compare("description", &was.description, &is.description);
    let adapter = |inspection: &Inspection| {
        let facts = inspection.manifest.adapter.as_ref();
        facts.map_or_else(<[String; 3]>::default, |facts| {
            [
                facts.data_sourcing.clone(),
                facts.intended_use.clone(),
                facts.update_cadence.clone(),
            ]
        })
    };
    let names = ["data sourcing", "intended use", "update cadence"];
    for ((name, was), is) in names.iter().zip(adapter(old)).zip(adapter(new)) {
        compare(name, &was, &is);
    }
    let reason = |inspection: &Inspection, name: &str| {
        let asked = inspection.manifest.capabilities.iter();
        let mut asked = asked.filter(|ask| ask.capability == name);
        asked.next().map(|ask| ask.reason.clone())
    };
    for ask in &was.capabilities {
        let name = &ask.capability;
        if let (Some(was), Some(is)) = (reason(old, name), reason(new, name)) {
            compare(
                &format!("reason for {}", text::sentence(name, 64)),
                &was,
                &is,
            );
        }
    }
    changes
}

/// What was gained and is not approved, in the order in which it is told.
fn unapproved(
    new: &Inspection,
    approved: &[String],
    capabilities: &Changes,
    imports: &Changes,
    functions: &Changes,
) -> Vec<String> {
    let is_named = |name: &str| approved.iter().any(|it| it == name);
    // An interface is approved with the capability that it opens, or by its own name.
    let is_import_approved = |path: &str| {
        let import = callable(new).find(|import| path_of(&import.interface) == path);
        let capability = import.and_then(|import| import.capability);
        let package = path.split_once('/').map_or(path, |(package, _)| package);
        capability.is_some_and(|capability| is_named(capability.as_str()))
            || is_named(path)
            || is_named(package)
            || import.is_some_and(|import| is_named(&import.interface))
    };
    let functions = functions.gained.iter().filter(|name| {
        let path = name.split_once('#').map_or(name.as_str(), |(path, _)| path);
        !is_named(name) && !is_import_approved(path)
    });
    let imports = imports.gained.iter();
    let imports = imports.filter(|path| !is_import_approved(path));
    let capabilities = capabilities.gained.iter();
    let capabilities = capabilities.filter(|name| !is_named(name) && !is_harmless(name));
    capabilities
        .chain(imports)
        .chain(functions)
        .cloned()
        .collect()
}

/// Whether a capability is one that every plugin has; its interface is still told as an import.
fn is_harmless(name: &str) -> bool {
    Capability::ALL
        .into_iter()
        .any(|known| known.as_str() == name && known.is_always_granted())
}

#[cfg(test)]
mod tests;
