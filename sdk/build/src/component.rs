//! Turning a module into a component that carries its manifest.

use std::collections::BTreeMap;

use wasm_encoder::{ComponentSection, CustomSection};
use wasmparser::{Parser, Payload};

use crate::BuildError;
use crate::cargo::Package;
use crate::manifest::Source;

/// The custom section that holds the manifest.
const SECTION: &str = "sandcast:manifest";
/// The package of the contract.
const CONTRACT: &str = "sandcast:plugin/";

/// Makes the component and its manifest.
pub(crate) fn assemble(
    module: &[u8],
    source: &Source,
    package: &Package,
) -> Result<(Vec<u8>, String), BuildError> {
    let wrong = |reason: String| BuildError::Componentise {
        name: package.name.clone(),
        reason,
    };
    let mut component = if Parser::is_component(module) {
        module.to_vec()
    } else {
        wit_component::ComponentEncoder::default()
            .validate(true)
            .module(module)
            .and_then(|mut encoder| encoder.encode())
            .map_err(|error| wrong(format!("{error:#}")))?
    };
    if has_manifest(&component) {
        return Err(wrong(format!(
            "it has a section `{SECTION}` already; give the component as its tool made it"
        )));
    }
    let exports = contract_exports(&component).map_err(|error| wrong(error.to_string()))?;
    let role = source.role().name();
    let Some(contract) = exports.get(role) else {
        let found: Vec<&str> = exports.keys().map(String::as_str).collect();
        return Err(wrong(if found.is_empty() {
            format!("it exports no role; call `sandcast_sdk::export_{role}!` once")
        } else {
            format!(
                "`plugin.toml` says it is a {role}, but it exports {}",
                found.join(", ")
            )
        }));
    };
    let manifest = source
        .json(package, contract)
        .map_err(|error| wrong(error.to_string()))?;
    CustomSection {
        name: SECTION.into(),
        data: manifest.as_bytes().into(),
    }
    .append_to_component(&mut component);
    Ok((component, manifest))
}

/// Whether somebody gave it a manifest before.
fn has_manifest(component: &[u8]) -> bool {
    let mut payloads = Parser::new(0).parse_all(component);
    payloads.any(|payload| {
        matches!(payload, Ok(Payload::CustomSection(section)) if section.name() == SECTION)
    })
}

/// The interfaces of the contract that a component exports, with their versions.
fn contract_exports(component: &[u8]) -> wasmparser::Result<BTreeMap<String, String>> {
    let mut exports = BTreeMap::new();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    let name = export?.name.name;
                    if let Some((interface, version)) = name
                        .strip_prefix(CONTRACT)
                        .and_then(|rest| rest.split_once('@'))
                    {
                        exports.insert(interface.to_owned(), version.to_owned());
                    }
                }
            }
            _ => {}
        }
    }
    Ok(exports)
}
