//! What no SDK lets a guest do: handles that it does not have, answers that are not in its memory, and
//! lists whose elements are all the same bytes.

use sandcast_sandbox::{Pooling, Role};
use sandcast_tests::components::Text;

use crate::catalogue::{Must, rows_of};
use crate::exports::{ONE_COLUMN, ask_everything, good};
use crate::yard::{Yard, grants};

const DATA: &str = r#"
  (import "sandcast:plugin/data@0.1.0" "[method]batch.rows" (func $rows (param i32) (result i32)))
  (import "sandcast:plugin/data@0.1.0" "[method]dataset.rows" (func $dataset-rows (param i32) (result i64)))
  (import "sandcast:plugin/data@0.1.0" "[static]batch.from-columns" (func $from (param i32 i32 i32 i32 i32)))
  (import "sandcast:plugin/data@0.1.0" "[resource-drop]batch" (func $drop-batch (param i32)))
"#;

/// Puts a batch of one column of no rows into `$a`.
const A_BATCH: &str = "
    (i32.store (i32.const 2048) (i32.const 3000))
    (i32.store (i32.const 2052) (i32.const 1))
    (i32.store8 (i32.const 2056) (i32.const 1))
    (i32.store8 (i32.const 3000) (i32.const 120))
    (i32.store8 (i32.const 4100) (i32.const 1))
    (call $from (i32.const 2048) (i32.const 1) (i32.const 4096) (i32.const 1) (i32.const 512))
    (if (i32.load8_u (i32.const 512)) (then unreachable))
    (local.set $a (i32.load (i32.const 516)))";

/// A chunk with the batch of this number.
fn chunk_with(batch: &str) -> String {
    format!(
        "(i32.store8 (i32.const 1032) (i32.const 1))
         (i32.store8 (i32.const 1048) (i32.const 1))
         (i32.store (i32.const 1052) {batch})"
    )
}

/// `count` elements of `bytes` each at 64 KiB and further, written by `element`, which has their
/// place in `$b`.
fn list(count: u32, bytes: u32, element: &str) -> String {
    let pages = (u64::from(count) * u64::from(bytes)).div_ceil(65536) + 2;
    format!(
        "(drop (memory.grow (i32.const {pages})))
         (local.set $a (i32.const {count}))
         (local.set $b (i32.const 131072))
         (loop $next
           {element}
           (local.set $b (i32.add (local.get $b) (i32.const {bytes})))
           (br_if $next (local.tee $a (i32.sub (local.get $a) (i32.const 1)))))"
    )
}

/// Writes the place and the length of a text at `$b`.
fn text_at(bytes: u32) -> String {
    format!(
        "(i32.store (local.get $b) (i32.const 0)) (i32.store offset=4 (local.get $b) (i32.const {bytes}))"
    )
}

fn answer(list: &str, count: u32) -> String {
    format!(
        "{list}
         (i32.store (i32.const 1028) (i32.const 131072))
         (i32.store (i32.const 1032) (i32.const {count}))"
    )
}

/// A decision with so many reasons of so many bytes, all the same ones.
fn reasons(count: u32, bytes: u32) -> String {
    format!(
        "{}
         (i32.store (i32.const 1032) (i32.const 131072))
         (i32.store (i32.const 1036) (i32.const {count}))",
        list(count, 8, &text_at(bytes))
    )
}

fn deciding(body: &str) -> (Role, Text) {
    let text = good(Role::Policy).imports(DATA).body("decide", body);
    (Role::Policy, text)
}

fn reading(function: &str, body: &str) -> (Role, Text) {
    let text = good(Role::Connector).imports(DATA).body(function, body);
    (Role::Connector, text)
}

fn forged(behaviour: &str) -> (Role, Text) {
    let rows_of = |number: &str| deciding(&format!("(drop (call $rows (i32.const {number})))"));
    match behaviour {
        "handle-zero" => rows_of("0"),
        "handle-guessed" => rows_of("77"),
        "handle-negative" => rows_of("-1"),
        "handle-of-another-kind" => deciding(&format!(
            "{A_BATCH} (drop (call $dataset-rows (local.get $a)))"
        )),
        "use-after-drop" => deciding(&format!(
            "{A_BATCH} (call $drop-batch (local.get $a)) (drop (call $rows (local.get $a)))"
        )),
        "drop-twice" => deciding(&format!(
            "{A_BATCH} (call $drop-batch (local.get $a)) (call $drop-batch (local.get $a))"
        )),
        "drop-guessed" => deciding("(call $drop-batch (i32.const 9))"),
        "handle-in-answer" => reading("next", &chunk_with("(i32.const 77)")),
        "answer-after-drop" => reading(
            "next",
            &format!(
                "{A_BATCH} (call $drop-batch (local.get $a)) {}",
                chunk_with("(local.get $a)")
            ),
        ),
        "misaligned-answer" => deciding("(return (i32.const 1027))"),
        "unknown-case" => deciding("(i32.store8 (i32.const 1024) (i32.const 9))"),
        "endless-list" => reading(
            "schema",
            &format!("{ONE_COLUMN} (i32.store (i32.const 1032) (i32.const -1))"),
        ),
        "aliased-names" => {
            let fields = list(65_536, 12, &text_at(65536));
            reading("schema", &answer(&fields, 65_536))
        }
        "aliased-reasons" => deciding(&reasons(1_000_000, 65536)),
        "empty-texts" => deciding(&reasons(2_000_000, 0)),
        "aliased-arguments" => aliased_arguments(),
        "greedy-allocator" => {
            // The host asks for room for the question, and is told a place that is none.
            let text = Text::new(Role::Policy).allocator("(i32.const 0x7fffff00)");
            (Role::Policy, text)
        }
        "table-bomb" => {
            let grow = "(loop $again (br_if $again
                (i32.ne (table.grow $bomb (ref.null func) (i32.const 5000)) (i32.const -1))))";
            let (role, text) = deciding(grow);
            (role, text.rest("(table $bomb 1 funcref)"))
        }
        "giant-table" => (
            Role::Policy,
            good(Role::Policy).rest("(table 10000000 funcref)"),
        ),
        "giant-memory" => (Role::Policy, good(Role::Policy).pages(5000)),
        "many-tables" => (
            Role::Policy,
            good(Role::Policy).rest(&"(table 1 funcref)".repeat(100)),
        ),
        other => panic!("`{other}` is not known here"),
    }
}

/// A batch of 4096 columns of one megabyte, which is the same one.
fn aliased_arguments() -> (Role, Text) {
    // A column: rows, a variant of values whose list is a place and a length, and no bitmap.
    let column = "
        (i32.store (local.get $b) (i32.const 131072))
        (i32.store8 offset=4 (local.get $b) (i32.const 1))
        (i32.store offset=8 (local.get $b) (i32.const 131072))
        (i32.store offset=12 (local.get $b) (i32.const 131072))";
    let body = format!(
        "{A_BATCH} {} (call $from (i32.const 2048) (i32.const 1) (i32.const 131072) (i32.const 4096) (i32.const 512))",
        list(4096, 36, column).replace(
            "(memory.grow (i32.const 5))",
            "(memory.grow (i32.const 40))"
        )
    );
    deciding(&body)
}

#[tokio::test(flavor = "multi_thread")]
async fn forgers() {
    let mut yard = Yard::with("forgers", |config| config.pooling = Pooling::Off).await;
    for row in rows_of("forger") {
        let (role, text) = forged(row.behaviour);
        let load = |name, text: &Text| {
            let component = text.component();
            let sandbox = yard.sandbox.clone();
            async move { sandbox.load(name, &component, role, grants(role)).await }
        };
        let behaving = load("good", &good(role)).await.expect("it loads");
        match load("forger", &text).await {
            Ok(plugin) => {
                let attempt = ask_everything(&plugin, role);
                yard.lets(&row, attempt, ask_everything(&behaving, role))
                    .await;
            }
            Err(error) => yard.note(&row, Must::NotLoaded, &error.to_string(), 0),
        }
    }
    insta::assert_snapshot!("forgers", yard.finish());
}
