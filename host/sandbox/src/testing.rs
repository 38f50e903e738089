//! Small components for tests, written in WebAssembly text and made into components as a
//! compiler would: what the contract's own SDK cannot be made to do, such as to spin or to lie.

#![expect(
    clippy::expect_used,
    reason = "what fails here is the test's own making"
)]

use std::path::Path;
use std::sync::Arc;

use sandcast_audit::{AuditLog, Digest, Event, PluginRef};
use wasmtime::Store;
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::Resolve;

use crate::grants::http::{Lookups, Rates};
use crate::limits;
use crate::state::{Identity, State};
use crate::{
    CallContext, CallError, DeviceChoice, Grants, Plugin, Policy, Pooling, Role, Sandbox,
    SandboxConfig,
};

/// A sandbox of a test, with its log.
pub(crate) struct Bench {
    pub(crate) sandbox: Sandbox,
    pub(crate) audit: AuditLog,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut SandboxConfig)) -> Self {
        let audit = AuditLog::in_memory();
        let mut config = SandboxConfig {
            pooling: Pooling::Off,
            device: DeviceChoice::Cpu.into(),
            ..SandboxConfig::default()
        };
        change(&mut config);
        let sandbox = Sandbox::new(config, audit.clone()).expect("a sandbox");
        Self { sandbox, audit }
    }

    /// One whose log lies in a folder, and what takes the log away as a broken disk would.
    pub(crate) fn with_a_log_that_breaks() -> (Self, impl Fn()) {
        let folder = tempfile::tempdir().expect("a folder");
        let audit = AuditLog::open(folder.path()).expect("a log");
        let config = SandboxConfig {
            pooling: Pooling::Off,
            device: DeviceChoice::Cpu.into(),
            ..SandboxConfig::default()
        };
        let sandbox = Sandbox::new(config, audit.clone()).expect("a sandbox");
        let breaks = move || std::fs::write(folder.path().join("log.jsonl"), b"").expect("written");
        (Self { sandbox, audit }, breaks)
    }

    pub(crate) async fn load(&self, bytes: &[u8], grants: Grants) -> Plugin {
        self.sandbox
            .load("test", bytes, Role::Policy, grants)
            .await
            .expect("a policy that loads")
    }

    /// Loads a policy and configures it.
    pub(crate) async fn configure(
        &self,
        bytes: &[u8],
        grants: Grants,
        config: serde_json::Value,
    ) -> Result<Policy, CallError> {
        self.load(bytes, grants)
            .await
            .policy(&context(), &config)
            .await
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        let entries = self.audit.entries().expect("a log in memory");
        entries.into_iter().map(|entry| entry.event).collect()
    }

    /// What was denied: capability, detail, and the line that would grant it.
    pub(crate) fn denials(&self) -> Vec<(String, String, String)> {
        self.events()
            .into_iter()
            .filter_map(|event| match event {
                Event::Denied {
                    capability,
                    detail,
                    grant_with,
                    ..
                } => Some((capability, detail, grant_with)),
                _ => None,
            })
            .collect()
    }
}

pub(crate) fn context() -> CallContext {
    CallContext::new(None, "testing")
}

/// A manifest that asks for some capabilities.
pub(crate) fn manifest(role: &str, capabilities: &[&str]) -> serde_json::Value {
    let capabilities: Vec<_> = capabilities
        .iter()
        .map(|capability| serde_json::json!({ "capability": capability, "reason": "a test" }))
        .collect();
    serde_json::json!({
        "id": "test/guest", "version": "1.2.3", "role": role, "contract": "0.1.0",
        "capabilities": capabilities,
    })
}

/// Appends a custom section.
pub(crate) fn with_section(mut component: Vec<u8>, name: &str, contents: &[u8]) -> Vec<u8> {
    fn leb(bytes: &mut Vec<u8>, mut number: usize) {
        loop {
            let low = (number & 0x7f) as u8;
            number >>= 7;
            bytes.push(if number == 0 { low } else { low | 0x80 });
            if number == 0 {
                return;
            }
        }
    }
    let mut section = Vec::new();
    leb(&mut section, name.len());
    section.extend_from_slice(name.as_bytes());
    section.extend_from_slice(contents);
    component.push(0);
    leb(&mut component, section.len());
    component.extend_from_slice(&section);
    component
}

/// A component of a world out of a core module in text. The world is one of the contract's, or
/// the only one in `extra`, a WIT document.
pub(crate) fn encode(world: &str, module: &str, extra: Option<&str>) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
    let (contract, _) = resolve.push_dir(&wit).expect("the contract");
    let package = match extra {
        None => contract,
        Some(text) => resolve.push_str("test.wit", text).expect("a WIT document"),
    };
    let world = resolve
        .select_world(&[package], Some(world))
        .expect("the world");
    let mut module = wat::parse_str(module).expect("a module in text");
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
        .expect("metadata that fits");
    ComponentEncoder::default()
        .module(&module)
        .expect("a module with metadata")
        .encode()
        .expect("a component")
}

/// What every module needs: a memory, and an allocator that never frees. The first 64 KiB are
/// for the tests' own use.
pub(crate) const ALLOCATOR: &str = r#"
  (memory (export "memory") 2)
  (global $next (mut i32) (i32.const 65536))
  (func $allocate (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
    (global.set $next (i32.add (local.get $at) (local.get 3)))
    (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
      (then
        (if (i32.eq (i32.const -1) (memory.grow (i32.add (i32.const 1)
              (i32.div_u (local.get 3) (i32.const 65536)))))
          (then unreachable))))
    (local.get $at))
"#;

/// A guest that takes a batch apart, column by column, and makes it again of the very same bytes.
/// Exports `typed` and `raw`, which do so by `column` and by `raw-column`.
pub(crate) fn echo() -> Vec<u8> {
    // A column takes 36 bytes, a raw one too; an answer has 4 more in front.
    // 1024: an answer; 2048: the schema; 4096: the columns; 512: the new batch.
    let echo = |name: &str, column: &str, from: &str, bytes: u32| {
        format!(
            r#"(func (export "{name}") (param $batch i32) (result i32)
              (local $columns i32) (local $i i32)
              (call $schema (local.get $batch) (i32.const 2048))
              (local.set $columns (i32.load (i32.const 2052)))
              (block $done
                (loop $next
                  (br_if $done (i32.eq (local.get $i) (local.get $columns)))
                  (call {column} (local.get $batch) (local.get $i) (i32.const 1024))
                  (if (i32.load8_u (i32.const 1024)) (then unreachable))
                  (memory.copy
                    (i32.add (i32.const 4096) (i32.mul (local.get $i) (i32.const {bytes})))
                    (i32.const 1028) (i32.const {bytes}))
                  (local.set $i (i32.add (local.get $i) (i32.const 1)))
                  (br $next)))
              (call {from} (i32.load (i32.const 2048)) (local.get $columns)
                (i32.const 4096) (local.get $columns) (i32.const 512))
              (call $drop (local.get $batch))
              (i32.const 512))"#
        )
    };
    let module = format!(
        r#"(module
          (import "sandcast:plugin/data@0.1.0" "[method]batch.schema" (func $schema (param i32 i32)))
          (import "sandcast:plugin/data@0.1.0" "[method]batch.column" (func $column (param i32 i32 i32)))
          (import "sandcast:plugin/data@0.1.0" "[method]batch.raw-column" (func $raw-column (param i32 i32 i32)))
          (import "sandcast:plugin/data@0.1.0" "[static]batch.from-columns" (func $from (param i32 i32 i32 i32 i32)))
          (import "sandcast:plugin/data@0.1.0" "[static]batch.from-raw-columns" (func $from-raw (param i32 i32 i32 i32 i32)))
          (import "sandcast:plugin/data@0.1.0" "[resource-drop]batch" (func $drop (param i32)))
          {ALLOCATOR}
          {}
          {})"#,
        echo("typed", "$column", "$from", 36),
        echo("raw", "$raw-column", "$from-raw", 36),
    );
    let world = "package test:echo; world echo {
        import sandcast:plugin/types@0.1.0;
        use sandcast:plugin/types@0.1.0.{failure};
        use sandcast:plugin/data@0.1.0.{batch};
        export typed: func(rows: batch) -> result<batch, failure>;
        export raw: func(rows: batch) -> result<batch, failure>; }";
    encode("echo", &module, Some(world))
}

/// A store with everything that grants open, for a guest of no role.
pub(crate) fn store(bench: &Bench, grants: Grants) -> Store<State> {
    let limits = grants.limits.clone();
    let identity = Identity {
        name: "test".into(),
        reference: PluginRef {
            id: "test/guest".into(),
            version: "1.2.3".into(),
            role: "none".into(),
            digest: Digest::of(b"test"),
        },
        rates: Rates::of(&grants.http),
        grants,
        lookups: Lookups::default(),
    };
    let state = State::open(
        &bench.sandbox,
        Arc::new(identity),
        context(),
        &serde_json::Value::Null,
        None,
        None,
    )
    .expect("a state");
    let mut store = Store::new(bench.sandbox.engine(), state);
    limits::enforce(&mut store, &limits);
    store
}

/// A policy in text. `configure` may use `$config` and `$length`; falling off its end, or that of
/// `decide`, is the answer at 1024, which is "fine" and "allow" while it is all zeros.
#[derive(Default)]
pub(crate) struct PolicyText<'a> {
    pub(crate) imports: &'a str,
    pub(crate) configure: &'a str,
    pub(crate) decide: &'a str,
    pub(crate) rest: &'a str,
    pub(crate) capabilities: &'a [&'a str],
}

impl PolicyText<'_> {
    pub(crate) fn module(&self) -> String {
        format!(
            r#"(module
              {imports}
              {ALLOCATOR}
              (func (export "sandcast:plugin/policy@0.1.0#configure")
                (param $config i32) (param $length i32) (result i32)
                (local $a i32) (local $b i32)
                {configure}
                (i32.const 1024))
              (func (export "sandcast:plugin/policy@0.1.0#decide")
                (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
                {decide}
                (i32.const 1024))
              {rest})"#,
            imports = self.imports,
            configure = self.configure,
            decide = self.decide,
            rest = self.rest,
        )
    }

    /// The component without a manifest.
    pub(crate) fn bare(&self) -> Vec<u8> {
        encode("policy-plugin", &self.module(), None)
    }

    pub(crate) fn component(&self) -> Vec<u8> {
        let manifest = manifest("policy", self.capabilities).to_string();
        with_section(self.bare(), "sandcast:manifest", manifest.as_bytes())
    }
}

/// A policy that only configures.
pub(crate) fn configuring(configure: &str) -> Vec<u8> {
    PolicyText {
        configure,
        ..PolicyText::default()
    }
    .component()
}

/// A request that any policy can be asked.
pub(crate) fn request() -> crate::Request {
    crate::Request {
        control_point: crate::ControlPoint::Promote,
        principal: "user:test".into(),
        action: "promote".into(),
        resource: "model:test".into(),
        context: serde_json::json!({}),
    }
}
