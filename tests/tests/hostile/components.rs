//! Components that are refused before anything of them runs: those that say of themselves what is not
//! so, and those that the compiler would work on without end.

use std::time::{Duration, Instant};

use sandcast_sandbox::{LoadError, Role};
use sandcast_tests::components::{Text, with_section};
use serde_json::json;
use wasm_encoder::{
    BlockType, CodeSection, ComponentSection as _, Function, FunctionSection, Instruction, Module,
    ModuleSection, TypeSection, ValType,
};

use crate::MEMORY;
use crate::catalogue::{Must, Row, rows_of};
use crate::exports::{ask_everything, good};
use crate::yard::{Yard, grants};

const ESCAPES: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\r\u{9b}31m\u{202e}\u{2066}\u{0}good";

const CLOCK: &str = r#"(import "wasi:clocks/monotonic-clock@0.2.12" "now" (func (result i64)))"#;

fn lying(behaviour: &str) -> (Role, Vec<u8>) {
    let policy = || Text::new(Role::Policy);
    let clock = |capabilities: serde_json::Value| {
        let text = policy().imports(CLOCK);
        text.manifest(|it| it["capabilities"] = capabilities)
            .component()
    };
    let component = match behaviour {
        "no-manifest" => policy().without_manifest(),
        "two-manifests" => with_section(policy().component(), "sandcast:manifest", b"{}"),
        "long-manifest" => {
            let long = policy().manifest(|it| it["description"] = json!("x".repeat(10 << 20)));
            long.component()
        }
        "nested-manifest" => {
            let lists = ["[".repeat(30_000), "]".repeat(30_000)].concat();
            let text = format!("{{\"id\":\"a/b\",\"capabilities\":{lists}}}");
            with_section(
                policy().without_manifest(),
                "sandcast:manifest",
                text.as_bytes(),
            )
        }
        "other-role" => {
            let text = policy().manifest(|it| it["role"] = json!("validator"));
            return (Role::Validator, text.component());
        }
        "other-contract" => policy()
            .manifest(|it| it["contract"] = json!("9.9.9"))
            .component(),
        "unasked-import" => clock(json!([])),
        "ungranted-import" => clock(json!([{ "capability": "clock", "reason": "to know" }])),
        "unknown-import" => with_unknown_import(),
        "escapes-in-id" => policy()
            .manifest(|it| it["id"] = json!(ESCAPES))
            .component(),
        "escapes-in-version" => policy()
            .manifest(|it| it["version"] = json!(ESCAPES))
            .component(),
        "many-capabilities" => {
            let many: Vec<_> = (0..1000)
                .map(|number| json!({ "capability": format!("c{number}"), "reason": "" }))
                .collect();
            policy()
                .manifest(|it| it["capabilities"] = json!(many))
                .component()
        }
        "garbage" => vec![7; 10_000],
        "module" => Module::new().finish(),
        "cut" => {
            let whole = policy().component();
            whole[..whole.len() / 2].to_vec()
        }
        other => panic!("`{other}` is not known here"),
    };
    (Role::Policy, component)
}

/// One that wants an interface which nobody offers.
fn with_unknown_import() -> Vec<u8> {
    let manifest = json!({ "id": "a/b", "version": "1", "role": "policy", "contract": "0.1.0" });
    let text = r#"(component (import "sandcast:root/shell" (instance (export "run" (func)))))"#;
    let component = wat::parse_str(text).expect("a component");
    with_section(
        component,
        "sandcast:manifest",
        manifest.to_string().as_bytes(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn liars() {
    let mut yard = Yard::new("liars").await;
    let behaving = good(Role::Policy).component();
    for row in rows_of("liar") {
        let (role, component) = lying(row.behaviour);
        let before = MEMORY.begin();
        let started = Instant::now();
        let loaded = yard
            .sandbox
            .load("liar", &component, role, grants(role))
            .await;
        let growth = MEMORY.growth(before);
        yard.figure(&row, growth, started.elapsed().as_secs_f64());
        let (found, told) = match loaded {
            Ok(_) => (Must::Harmless, "loaded".to_owned()),
            Err(error) => (Must::NotLoaded, error.to_string()),
        };
        yard.is_fit(&row, &told);
        yard.note(&row, found, &told, growth);
        let good = yard
            .sandbox
            .load("good", &behaving, Role::Policy, grants(role))
            .await;
        let plugin = good.expect("it loads");
        let asked = ask_everything(&plugin, Role::Policy).await;
        asked.expect("a good guest is not harmed");
    }
    insta::assert_snapshot!("liars", yard.finish());
}

/// Bytes of a component here.
const MAX_COMPONENT_BYTES: u64 = 16 << 20;

/// A policy with another module inside, which nothing of it uses and the compiler compiles.
fn with_module(functions: &[Function]) -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([ValType::I32], [ValType::I32]);
    let mut declared = FunctionSection::new();
    let mut code = CodeSection::new();
    for function in functions {
        declared.function(0);
        code.function(function);
    }
    let mut module = Module::new();
    module.section(&types).section(&declared).section(&code);
    let mut component = good(Role::Policy).component();
    ModuleSection(&module).append_to_component(&mut component);
    component
}

fn function(locals: u32, body: impl FnOnce(&mut Function)) -> Function {
    let locals = (locals > 0).then_some((locals, ValType::I64));
    let mut function = Function::new(locals);
    body(&mut function);
    function.instruction(&Instruction::LocalGet(0));
    function.instruction(&Instruction::End);
    function
}

fn nested(function: &mut Function, depth: u32) {
    for _ in 0..depth {
        function.instruction(&Instruction::Block(BlockType::Empty));
    }
    for _ in 0..depth {
        function.instruction(&Instruction::LocalGet(0));
        function.instruction(&Instruction::BrIf(0));
        function.instruction(&Instruction::End);
    }
}

fn bombing(behaviour: &str) -> Vec<u8> {
    match behaviour {
        "too-large" => vec![0; MAX_COMPONENT_BYTES as usize + 1],
        "giant-function" => with_module(&[function(0, |it| {
            for _ in 0..250_000 {
                it.instruction(&Instruction::LocalGet(0));
                it.instruction(&Instruction::I32Const(7));
                it.instruction(&Instruction::I32Mul);
                it.instruction(&Instruction::LocalSet(0));
            }
        })]),
        "giant-table-of-branches" => with_module(&[function(0, |it| {
            it.instruction(&Instruction::Block(BlockType::Empty));
            it.instruction(&Instruction::LocalGet(0));
            it.instruction(&Instruction::BrTable(vec![0; 200_000].into(), 0));
            it.instruction(&Instruction::End);
        })]),
        "many-functions" => {
            let one = function(0, |it| {
                it.instruction(&Instruction::LocalGet(0));
                it.instruction(&Instruction::Drop);
            });
            with_module(&vec![one; 200_000])
        }
        "deep-nesting" => with_module(&[function(0, |it| {
            nested(it, 30_000);
        })]),
        "functions-as-many-as-allowed" => {
            let one = function(0, |it| {
                it.instruction(&Instruction::LocalGet(0));
                it.instruction(&Instruction::Drop);
            });
            with_module(&vec![one; 65_000])
        }
        "function-as-large-as-allowed" => {
            let one = function(0, |it| {
                for _ in 0..36_000 {
                    it.instruction(&Instruction::LocalGet(0));
                    it.instruction(&Instruction::I32Const(7));
                    it.instruction(&Instruction::I32Mul);
                    it.instruction(&Instruction::LocalSet(0));
                }
            });
            with_module(&vec![one; 2])
        }
        "nesting-as-deep-as-allowed" => with_module(&[function(0, |it| nested(it, 9_900))]),
        "many-locals" => {
            let one = function(49_000, |it| {
                for place in 1..1000 {
                    it.instruction(&Instruction::LocalGet(place * 48));
                    it.instruction(&Instruction::LocalSet(place * 48 + 1));
                }
            });
            with_module(&vec![one; 20])
        }
        other => panic!("`{other}` is not known here"),
    }
}

/// How long whoever waits for a compiler waits at most.
const PATIENCE: Duration = Duration::from_secs(240);

/// Loads a component, and then, as long as that takes, one that is good.
async fn loads(yard: &mut Yard, row: &Row, component: &[u8]) -> Result<(), LoadError> {
    let started = Instant::now();
    let granted = grants(Role::Policy);
    let loaded = yard
        .sandbox
        .load("bomb", component, Role::Policy, granted.clone())
        .await;
    if started.elapsed() > PATIENCE {
        yard.is_wrong(format!(
            "{row}: the host waited {} s",
            started.elapsed().as_secs()
        ));
    }
    let behaving = good(Role::Policy).component();
    loop {
        match yard
            .sandbox
            .load("good", &behaving, Role::Policy, granted.clone())
            .await
        {
            Ok(plugin) => {
                let asked = ask_everything(&plugin, Role::Policy).await;
                asked.expect("a good guest is not harmed");
                break;
            }
            Err(LoadError::CompileTimeout { .. }) if started.elapsed() < PATIENCE => {}
            Err(error) => {
                yard.is_wrong(format!(
                    "{row}: afterwards a good guest is not loaded: {error}"
                ));
                break;
            }
        }
    }
    loaded.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs() {
    let mut yard = Yard::with("bombs", |config| {
        config.compile_timeout = PATIENCE;
        config.max_component_bytes = MAX_COMPONENT_BYTES;
    })
    .await;
    for row in rows_of("bomb") {
        let component = bombing(row.behaviour);
        let before = MEMORY.begin();
        let started = Instant::now();
        let loaded = loads(&mut yard, &row, &component).await;
        let growth = MEMORY.growth(before);
        let (found, told) = match loaded {
            Ok(()) => (Must::Harmless, "loaded".to_owned()),
            Err(error) => (Must::NotLoaded, error.to_string()),
        };
        yard.figure(&row, growth, started.elapsed().as_secs_f64());
        yard.note(&row, found, &told, growth);
    }
    yard.finish();
}

/// The compiler cannot be interrupted: who loads something else meanwhile has a place on it all the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_compiles_late_holds_nobody_up() {
    let mut yard = Yard::with("late", |config| {
        config.compile_timeout = Duration::from_millis(200);
    })
    .await;
    let rows = rows_of("bomb");
    let row = rows
        .iter()
        .find(|row| row.behaviour == "functions-as-many-as-allowed");
    let row = row.expect("the row");
    let loaded = loads(&mut yard, row, &bombing(row.behaviour)).await;
    assert!(
        matches!(loaded, Ok(()) | Err(LoadError::CompileTimeout { .. })),
        "{loaded:?}"
    );
    yard.finish();
}
