//! Components written in WebAssembly text, for what no compiler would make.
//!
//! Whatever a role exports in the contract is there, by itself: what a test does not write down
//! answers with zeros, which mean "fine", "nothing" and "no more". So a function that the contract
//! gets is tried as soon as it is there.

use std::collections::BTreeMap;

use sandcast_sandbox::Role;
use serde_json::{Value, json};
use wasm_encoder::{ComponentSection as _, CustomSection};
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::Resolve;
use wit_parser::abi::{AbiVariant, WasmType};

use crate::repository;

/// The custom section of the manifest.
const MANIFEST: &str = "sandcast:manifest";

/// Where an answer of zeros lies. The first 64 KiB of the memory are free for bodies.
pub const ANSWER: u32 = 1024;

/// Gives room that is never taken back.
const ALLOCATOR: &str = "
    (local.set $at (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
    (global.set $next (i32.add (local.get $at) (local.get 3)))
    (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
      (then
        (if (i32.eq (i32.const -1) (memory.grow (i32.add (i32.const 1)
              (i32.div_u (local.get 3) (i32.const 65536)))))
          (then unreachable))))
    (local.get $at)";

/// A component of a role.
#[derive(Clone, Debug)]
pub struct Text {
    role: Role,
    imports: String,
    bodies: BTreeMap<String, String>,
    rest: String,
    manifest: Value,
    pages: u32,
    allocator: String,
}

impl Text {
    /// One that answers everything with zeros.
    #[must_use]
    pub fn new(role: Role) -> Self {
        Self {
            role,
            imports: String::new(),
            bodies: BTreeMap::new(),
            rest: String::new(),
            pages: 2,
            allocator: ALLOCATOR.to_owned(),
            manifest: json!({
                "id": "sandcast-tests/text", "version": "1.0.0", "role": role, "contract": "0.1.0",
                "capabilities": [],
            }),
        }
    }

    /// What an export does. Its parameters are `$0`, `$1` and so on; `$a` and `$b` are numbers.
    #[must_use]
    pub fn body(mut self, export: &str, body: &str) -> Self {
        self.bodies.insert(export.to_owned(), body.to_owned());
        self
    }

    /// Functions that it imports.
    #[must_use]
    pub fn imports(mut self, imports: &str) -> Self {
        self.imports.push_str(imports);
        self
    }

    /// What else is in the module.
    #[must_use]
    pub fn rest(mut self, rest: &str) -> Self {
        self.rest.push_str(rest);
        self
    }

    /// The pages of 64 KiB that its memory begins with.
    #[must_use]
    pub fn pages(mut self, pages: u32) -> Self {
        self.pages = pages;
        self
    }

    /// What it answers when the host asks it for room.
    #[must_use]
    pub fn allocator(mut self, body: &str) -> Self {
        self.allocator = body.to_owned();
        self
    }

    /// Changes what it says about itself.
    #[must_use]
    pub fn manifest(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.manifest);
        self
    }

    /// The component.
    ///
    /// # Panics
    /// If the text is wrong.
    pub fn component(&self) -> Vec<u8> {
        let manifest = self.manifest.to_string();
        with_section(self.without_manifest(), MANIFEST, manifest.as_bytes())
    }

    /// The component without what it says about itself.
    ///
    /// # Panics
    /// If the text is wrong.
    pub fn without_manifest(&self) -> Vec<u8> {
        component_of(self.role, &self.module())
    }

    fn module(&self) -> Vec<u8> {
        let exports: String = exports_of(self.role)
            .into_iter()
            .map(|export| self.function(&export))
            .collect();
        let text = format!(
            r#"(module
  {}
  (memory (export "memory") {})
  (global $next (mut i32) (i32.const 65536))
  (func $allocate (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    {})
  {exports}
  {})"#,
            self.imports, self.pages, self.allocator, self.rest
        );
        match wat::parse_str(&text) {
            Ok(module) => module,
            Err(error) => panic!("the module of a test: {error}\n{text}"),
        }
    }

    fn function(&self, export: &Export) -> String {
        let parameters: String = export
            .parameters
            .iter()
            .enumerate()
            .map(|(place, kind)| format!(" (param ${place} {kind})"))
            .collect();
        let result: String = export
            .results
            .iter()
            .map(|kind| format!(" (result {kind})"))
            .collect();
        let body = self.bodies.get(&export.function).map_or("", String::as_str);
        let answer = if export.results.is_empty() {
            String::new()
        } else {
            format!("(i32.const {ANSWER})")
        };
        let name = &export.name;
        // Nothing of the answer before it is left.
        let clear = format!("(memory.fill (i32.const {ANSWER}) (i32.const 0) (i32.const 256))");
        format!(
            "(func (export \"{name}\"){parameters}{result} (local $a i32) (local $b i32) {clear} {body} {answer})\n"
        )
    }
}

/// A function that a role exports.
#[derive(Clone, Debug)]
pub struct Export {
    /// As the contract calls it, such as `next`.
    pub function: String,
    name: String,
    parameters: Vec<&'static str>,
    results: Vec<&'static str>,
}

/// Everything that a role exports, out of the contract.
///
/// # Panics
/// If the contract cannot be read.
pub fn exports_of(role: Role) -> Vec<Export> {
    let (resolve, world) = world_of(role);
    let mut exports = Vec::new();
    for item in resolve.worlds[world].exports.values() {
        let wit_parser::WorldItem::Interface { id, .. } = item else {
            continue;
        };
        let interface = resolve.id_of(*id).expect("an interface with a name");
        for function in resolve.interfaces[*id].functions.values() {
            let signature = resolve.wasm_signature(AbiVariant::GuestExport, function);
            exports.push(Export {
                function: function.name.clone(),
                name: format!("{interface}#{}", function.name),
                parameters: signature.params.iter().map(kind).collect(),
                results: signature.results.iter().map(kind).collect(),
            });
        }
    }
    exports
}

fn kind(kind: &WasmType) -> &'static str {
    match kind {
        WasmType::I64 | WasmType::PointerOrI64 => "i64",
        WasmType::F32 => "f32",
        WasmType::F64 => "f64",
        WasmType::I32 | WasmType::Pointer | WasmType::Length => "i32",
    }
}

fn world_of(role: Role) -> (Resolve, wit_parser::WorldId) {
    let mut resolve = Resolve::default();
    let read = resolve.push_dir(repository().join("wit"));
    let (contract, _) = read.expect("the contract");
    let world = resolve.select_world(&[contract], Some(&format!("{role}-plugin")));
    (resolve, world.expect("the world of the role"))
}

/// A component out of a module, however large, without a manifest.
///
/// # Panics
/// If the module is not one of the role.
pub fn component_of(role: Role, module: &[u8]) -> Vec<u8> {
    let (resolve, world) = world_of(role);
    let mut module = module.to_vec();
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
        .expect("metadata that fits");
    ComponentEncoder::default()
        .validate(false)
        .module(&module)
        .expect("a module with metadata")
        .encode()
        .expect("a component")
}

/// Appends a custom section.
#[must_use]
pub fn with_section(mut component: Vec<u8>, name: &str, content: &[u8]) -> Vec<u8> {
    let section = CustomSection {
        name: name.into(),
        data: content.into(),
    };
    section.append_to_component(&mut component);
    component
}
