//! The picture as one SVG file that needs nothing else.

use std::fmt::Write as _;

use super::layout::{Layout, lay_out};
use super::{BoxKind, Drawn, Part, Picture};

/// The width of a character of the fixed-width font at its size, on the wide side.
const CHARACTER: f64 = 7.3;
const LINE: f64 = 15.0;
const PADDING: f64 = 9.0;
const MARGIN: f64 = 24.0;
/// Room for the title of a part.
const TITLE: f64 = 46.0;
const BETWEEN_PARTS: f64 = 56.0;

const STYLE: &str = "\
svg{background:#fff}
text{font:12px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#1f2937}
.title{font-size:15px;font-weight:700}.heading{font-weight:700}.faint{fill:#6b7280}
path{fill:none;stroke:#9ca3af;stroke-width:1.3}#tip{fill:#6b7280;stroke:none}
rect{stroke-width:1.2}
.input rect{fill:#eef2ff;stroke:#6366f1}.view rect{fill:#f9fafb;stroke:#9ca3af;stroke-dasharray:4 3}
.held rect{fill:#f9fafb;stroke:#9ca3af}.map rect{fill:#ecfdf5;stroke:#10b981}
.product rect{fill:#fff7ed;stroke:#f97316}.kernel rect{fill:#f0f9ff;stroke:#0ea5e9}
.result rect{fill:#fdf2f8;stroke:#db2777}
@media (prefers-color-scheme:dark){svg{background:#111827}text{fill:#e5e7eb}.faint{fill:#9ca3af}
path{stroke:#6b7280}#tip{fill:#9ca3af}.input rect{fill:#1e1b4b}.view rect,.held rect{fill:#1f2937}
.map rect{fill:#022c22}.product rect{fill:#431407}.kernel rect{fill:#082f49}.result rect{fill:#500724}}
";

impl Picture {
    /// An SVG file that needs nothing else.
    pub fn svg(&self) -> String {
        let mut body = String::new();
        let mut x = MARGIN;
        let mut height: f64 = 0.0;
        for part in &self.parts {
            let sizes: Vec<(f64, f64)> = part.boxes.iter().map(size).collect();
            let layout = lay_out(&sizes, &part.arrows);
            let titles = [&part.title, &part.subtitle].map(|text| text.chars().count());
            let title_width =
                (titles[0] as f64 * CHARACTER * 1.3).max(titles[1] as f64 * CHARACTER);
            let _ = writeln!(body, "<g transform=\"translate({x:.0} {MARGIN:.0})\">");
            draw(&mut body, part, &sizes, &layout);
            let _ = writeln!(body, "</g>");
            x += layout.width.max(title_width) + BETWEEN_PARTS;
            height = height.max(layout.height + TITLE);
        }
        let width = (x - BETWEEN_PARTS + MARGIN).max(2.0 * MARGIN);
        let height = height + 2.0 * MARGIN;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" \
             height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\">\n<style>\n{STYLE}\
             </style>\n<defs><marker id=\"arrow\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" \
             markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path id=\"tip\" \
             d=\"M0 0 8 4 0 8z\"/></marker></defs>\n{body}</svg>\n"
        )
    }
}

/// The size of a box.
fn size(drawn: &Drawn) -> (f64, f64) {
    let lines = drawn.lines.iter().chain([&drawn.heading]);
    let columns = lines.map(|line| line.chars().count()).max().unwrap_or(0);
    (
        columns as f64 * CHARACTER + 2.0 * PADDING,
        (drawn.lines.len() + 1) as f64 * LINE + 1.4 * PADDING,
    )
}

fn draw(body: &mut String, part: &Part, sizes: &[(f64, f64)], layout: &Layout) {
    // Writing to a string does not fail.
    let _ = writeln!(
        body,
        "<text class=\"title\" y=\"12\">{}</text>\n<text class=\"faint\" y=\"29\">{}</text>",
        escaped(&part.title),
        escaped(&part.subtitle)
    );
    for ((from, to), bends) in part.arrows.iter().zip(&layout.bends) {
        let (start_x, start_top) = layout.boxes[*from];
        let (end_x, end_top) = layout.boxes[*to];
        let (mut x, mut y) = (start_x, TITLE + start_top + sizes[*from].1);
        let mut path = format!("M{x:.1} {y:.1}");
        let ends = [(end_x, end_top, end_top)];
        for (next_x, top, bottom) in bends.iter().chain(&ends) {
            let top = TITLE + top;
            let half = (top - y) / 2.0;
            let _ = write!(
                path,
                "C{x:.1} {:.1} {next_x:.1} {:.1} {next_x:.1} {top:.1}",
                y + half,
                top - half
            );
            if bottom + TITLE > top {
                let _ = write!(path, "V{:.1}", bottom + TITLE);
            }
            (x, y) = (*next_x, bottom + TITLE);
        }
        let _ = writeln!(body, "<path d=\"{path}\" marker-end=\"url(#arrow)\"/>");
    }
    for ((drawn, (width, height)), (x, y)) in part.boxes.iter().zip(sizes).zip(&layout.boxes) {
        let (left, top) = (x - width / 2.0, y + TITLE);
        let _ = write!(
            body,
            "<g class=\"{}\"><title>{}</title><rect x=\"{left:.1}\" y=\"{top:.1}\" \
             width=\"{width:.1}\" height=\"{height:.1}\" rx=\"{}\"/>",
            drawn.kind.name(),
            escaped(&drawn.full),
            if drawn.kind == BoxKind::Result { 14 } else { 5 }
        );
        let mut line = top + PADDING * 0.7 + 11.0;
        let mut text = |class: &str, words: &str| {
            let _ = write!(
                body,
                "<text class=\"{class}\" x=\"{:.1}\" y=\"{line:.1}\">{}</text>",
                left + PADDING,
                escaped(words)
            );
            line += LINE;
        };
        text("heading", &drawn.heading);
        for words in &drawn.lines {
            text("line", words);
        }
        let _ = writeln!(body, "</g>");
    }
}

/// Text as XML has it.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // XML has no other control characters.
            character if character.is_control() && character != '\n' => escaped.push(' '),
            '\u{fffe}' | '\u{ffff}' => escaped.push(' '),
            character => escaped.push(character),
        }
    }
    escaped
}
