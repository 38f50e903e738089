//! The picture in the languages of Graphviz and Mermaid.

use std::fmt::Write as _;

use super::{BoxKind, Picture};
use crate::show::form::LineKind;

impl Picture {
    /// The picture in the DOT language of Graphviz.
    pub fn dot(&self) -> String {
        let mut text = String::from(
            "digraph program {\n  rankdir = TB;\n  node [shape = box, style = \"rounded,filled\", \
             fontname = \"monospace\", fontsize = 10];\n",
        );
        for (number, part) in self.parts.iter().enumerate() {
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "  subgraph cluster_{number} {{\n    label = \"{}\";",
                in_dot(&[&part.title, &part.subtitle])
            );
            for (index, drawn) in part.boxes.iter().enumerate() {
                let lines: Vec<&String> =
                    [&drawn.heading].into_iter().chain(&drawn.lines).collect();
                let _ = writeln!(
                    text,
                    "    b{number}_{index} [label = \"{}\", fillcolor = \"{}\"];",
                    in_dot(&lines),
                    fill(drawn.kind)
                );
            }
            for (from, to) in &part.arrows {
                let _ = writeln!(text, "    b{number}_{from} -> b{number}_{to};");
            }
            text.push_str("  }\n");
        }
        text.push_str("}\n");
        text
    }

    /// The picture in the language of Mermaid, which many viewers of Markdown draw.
    pub fn mermaid(&self) -> String {
        let mut text = String::from("flowchart TB\n");
        for (number, part) in self.parts.iter().enumerate() {
            let _ = writeln!(
                text,
                "  subgraph p{number}[\"{}\"]",
                in_mermaid(&[&part.title, &part.subtitle])
            );
            for (index, drawn) in part.boxes.iter().enumerate() {
                let lines: Vec<&String> =
                    [&drawn.heading].into_iter().chain(&drawn.lines).collect();
                let _ = writeln!(
                    text,
                    "    b{number}_{index}[\"{}\"]:::{}",
                    in_mermaid(&lines),
                    drawn.kind.name()
                );
            }
            for (from, to) in &part.arrows {
                let _ = writeln!(text, "    b{number}_{from} --> b{number}_{to}");
            }
            text.push_str("  end\n");
        }
        for kind in KINDS {
            let _ = writeln!(
                text,
                "  classDef {} fill:{},stroke:#6b7280,color:#1f2937",
                kind.name(),
                fill(kind)
            );
        }
        text
    }
}

const KINDS: [BoxKind; 6] = [
    BoxKind::Step(LineKind::Input),
    BoxKind::Step(LineKind::View),
    BoxKind::Step(LineKind::Map),
    BoxKind::Step(LineKind::Product),
    BoxKind::Step(LineKind::Kernel),
    BoxKind::Result,
];

fn fill(kind: BoxKind) -> &'static str {
    match kind {
        BoxKind::Step(LineKind::Input) => "#eef2ff",
        BoxKind::Step(LineKind::Held | LineKind::View) => "#f9fafb",
        BoxKind::Step(LineKind::Map) => "#ecfdf5",
        BoxKind::Step(LineKind::Product) => "#fff7ed",
        BoxKind::Step(LineKind::Kernel) => "#f0f9ff",
        BoxKind::Result => "#fdf2f8",
    }
}

/// Lines as a quoted string of DOT.
fn in_dot(lines: &[impl AsRef<str>]) -> String {
    let lines: Vec<String> = lines
        .iter()
        .filter(|line| !line.as_ref().is_empty())
        .map(|line| line.as_ref().replace('\\', "\\\\").replace('"', "\\\""))
        .collect();
    lines.join("\\n")
}

/// Lines as a quoted string of Mermaid, whose markup is that of HTML.
fn in_mermaid(lines: &[impl AsRef<str>]) -> String {
    let lines: Vec<String> = lines
        .iter()
        .filter(|line| !line.as_ref().is_empty())
        .map(|line| {
            let mut escaped = String::new();
            for character in line.as_ref().chars() {
                match character {
                    '"' => escaped.push_str("&quot;"),
                    '<' => escaped.push_str("&lt;"),
                    '>' => escaped.push_str("&gt;"),
                    '&' => escaped.push_str("&amp;"),
                    // Markdown, entities and links.
                    '#' => escaped.push_str("&#35;"),
                    '`' => escaped.push_str("&#96;"),
                    '*' => escaped.push_str("&#42;"),
                    '_' => escaped.push_str("&#95;"),
                    character => escaped.push(character),
                }
            }
            escaped
        })
        .collect();
    lines.join("<br/>")
}
