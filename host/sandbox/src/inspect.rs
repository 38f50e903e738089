//! What a component is, read from its bytes without running or compiling it.

use sandcast_audit::Digest;
use serde::Serialize;
use wasmparser::component_types::ComponentEntityType;
use wasmparser::types::Types;
use wasmparser::{
    ComponentTypeRef, Encoding, Parser, Payload, ValidPayload, Validator, WasmFeatures,
};

use crate::contract::CONTRACT_PACKAGE;
use crate::grants::Capability;
use crate::load::LoadError;
use crate::manifest::{self, MANIFEST_SECTION, Manifest, Role};
use crate::text;

/// An interface a component imports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Import {
    /// The full name, such as `wasi:filesystem/types@0.2.12`.
    pub interface: String,
    /// The functions and resource methods imported from it.
    pub functions: Vec<String>,
    /// The capability that opens it; none for the data types every plugin has, and for noise.
    pub capability: Option<Capability>,
    /// True for what a guest's standard library imports without being asked: linked, when it is
    /// not granted, to stubs that deny, log and count.
    pub noise: bool,
}

/// What a component is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// blake3 of the component.
    pub digest: Digest,
    /// The size of the component.
    pub size_bytes: u64,
    /// What it says about itself.
    pub manifest: Manifest,
    /// The part it plays.
    pub role: Role,
    /// The contract version found in the names of its imports and exports.
    pub contract: String,
    /// What it imports.
    pub imports: Vec<Import>,
    /// What it exports.
    pub exports: Vec<String>,
}

/// Reads what a component is. Nothing is compiled or run.
///
/// # Errors
/// When the bytes are not a component, or carry no manifest.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, LoadError> {
    inspect_named("component", bytes)
}

/// The same, for a plugin that has a name already.
pub(crate) fn inspect_named(name: &str, bytes: &[u8]) -> Result<Inspection, LoadError> {
    let outline = Outline::read(bytes).map_err(|reason| LoadError::NotAComponent {
        name: name.to_owned(),
        reason: text::sentence(&reason, 512),
    })?;
    let manifest = manifest::parse(&outline.manifests).map_err(|reason| LoadError::Manifest {
        name: name.to_owned(),
        reason: text::sentence(&reason, 512),
    })?;
    let is_std_guest = outline
        .imports
        .iter()
        .any(|(name, _)| name.starts_with("wasi:cli/"));
    let imports: Vec<Import> = outline
        .imports
        .into_iter()
        .map(|(interface, functions)| Import::classify(interface, functions, is_std_guest))
        .collect();
    let contract = imports
        .iter()
        .map(|import| &import.interface)
        .chain(&outline.exports)
        .find_map(|name| contract_version(name))
        .unwrap_or(&manifest.contract)
        .to_owned();
    Ok(Inspection {
        digest: Digest::of(bytes),
        size_bytes: bytes.len() as u64,
        role: manifest.role,
        manifest,
        contract,
        imports,
        exports: outline.exports,
    })
}

impl Import {
    /// Says what an import is for. A guest that imports `wasi:cli` was built with a standard
    /// library that imports clocks, randomness and folders without being asked.
    fn classify(interface: String, functions: Vec<String>, is_std_guest: bool) -> Self {
        let path = interface
            .split_once('@')
            .map_or(interface.as_str(), |(path, _)| path);
        let opened_by = capability_of(path);
        // An interface that is imported for its types alone (the times of `wasi:filesystem` are those
        // of the clock) opens nothing.
        let capability = opened_by.filter(|_| !functions.is_empty());
        let from_std = matches!(
            opened_by,
            Some(Capability::Clock | Capability::Random | Capability::Files)
        );
        let noise = path.starts_with("wasi:cli/")
            || is_std_guest && (from_std || path.starts_with("wasi:io/"));
        Self {
            interface,
            functions,
            capability,
            noise,
        }
    }

    /// Whether this host offers the interface at all, under whatever grant.
    pub fn is_offered(&self) -> bool {
        let path = self
            .interface
            .split_once('@')
            .map_or(self.interface.as_str(), |(path, _)| path);
        self.capability.is_some()
            || (self.functions.is_empty() && capability_of(path).is_some())
            || ALWAYS_OFFERED.contains(&path)
            || STD_NOISE.contains(&path)
    }
}

/// Interfaces that open nothing by themselves.
const ALWAYS_OFFERED: [&str; 5] = [
    "sandcast:plugin/types",
    "sandcast:plugin/data",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
];

/// What a standard library imports for programs that have a terminal.
const STD_NOISE: [&str; 10] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/stderr",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:cli/terminal-stderr",
];

/// The capability that opens an interface.
fn capability_of(path: &str) -> Option<Capability> {
    Some(match path {
        "wasi:filesystem/preopens" | "wasi:filesystem/types" => Capability::Files,
        "wasi:http/outgoing-handler" | "wasi:http/types" => Capability::Http,
        "wasi:logging/logging" => Capability::Log,
        "wasi:config/store" => Capability::Config,
        "wasi:clocks/wall-clock" | "wasi:clocks/monotonic-clock" => Capability::Clock,
        "wasi:random/random" | "wasi:random/insecure" | "wasi:random/insecure-seed" => {
            Capability::Random
        }
        "sandcast:plugin/compute" | "sandcast:plugin/models" => Capability::Compute,
        "wasi:keyvalue/store" | "wasi:keyvalue/atomics" | "wasi:keyvalue/batch" => {
            Capability::State
        }
        "sandcast:plugin/sql" => Capability::Sql,
        "sandcast:plugin/blob" => Capability::Blob,
        _ => return None,
    })
}

/// The version in the name of an interface of the contract.
pub(crate) fn contract_version(name: &str) -> Option<&str> {
    let (path, version) = name.split_once('@')?;
    let (package, _) = path.split_once('/')?;
    (package == CONTRACT_PACKAGE).then_some(version)
}

/// What stands at the top level of a component.
struct Outline {
    /// The contents of the custom sections that hold manifests.
    manifests: Vec<Vec<u8>>,
    /// The names of imports, each with its functions.
    imports: Vec<(String, Vec<String>)>,
    /// The names of exports.
    exports: Vec<String>,
}

impl Outline {
    /// Checks the structure of a component and reads its top level. The code in it is left to
    /// the compiler to check.
    fn read(bytes: &[u8]) -> Result<Self, String> {
        if !bytes.starts_with(b"\0asm") {
            return Err("it does not begin like a WebAssembly file".into());
        }
        let mut validator = Validator::new_with_features(WasmFeatures::all());
        let mut names = Vec::new();
        let mut exports = Vec::new();
        let mut manifests = Vec::new();
        let mut depth = 0_usize;
        let mut types = None;
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload.map_err(|error| error.to_string())?;
            match &payload {
                Payload::Version {
                    encoding: Encoding::Module,
                    ..
                } if depth == 0 => {
                    return Err("it is a core module, not a component".into());
                }
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::CustomSection(section)
                    if depth == 0 && section.name() == MANIFEST_SECTION =>
                {
                    manifests.push(section.data().to_vec());
                }
                Payload::ComponentImportSection(section) if depth == 0 => {
                    for import in section.clone() {
                        let import = import.map_err(|error| error.to_string())?;
                        if !matches!(import.ty, ComponentTypeRef::Type(_)) {
                            names.push(import.name.name.to_owned());
                        }
                    }
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section.clone() {
                        let export = export.map_err(|error| error.to_string())?;
                        exports.push(export.name.name.to_owned());
                    }
                }
                _ => {}
            }
            if let ValidPayload::End(seen) = validator
                .payload(&payload)
                .map_err(|error| error.to_string())?
            {
                if depth == 0 {
                    types = Some(seen);
                } else {
                    depth -= 1;
                }
            }
        }
        let types = types.ok_or("it ends before its end")?;
        let imports = names
            .into_iter()
            .map(|name| {
                let functions = functions_of(&types, &name);
                (name, functions)
            })
            .collect();
        Ok(Self {
            manifests,
            imports,
            exports,
        })
    }
}

/// The functions of an imported instance.
fn functions_of(types: &Types, import: &str) -> Vec<String> {
    let types = types.as_ref();
    let Some(item) = types.component_item_for_import(import) else {
        return Vec::new();
    };
    match item.ty {
        ComponentEntityType::Instance(id) => types[id]
            .exports
            .iter()
            .filter(|(_, item)| matches!(item.ty, ComponentEntityType::Func(_)))
            .map(|(name, _)| name.clone())
            .collect(),
        ComponentEntityType::Func(_) => vec![import.to_owned()],
        _ => Vec::new(),
    }
}
