//! The picture of a listing: boxes for steps, arrows for what flows between them, one part for
//! each function. Parameters and numbers stand in the boxes of the steps that read them.

mod layout;
mod svg;
mod written;

use super::form::{Function, Line, LineKind, Listing};
use super::names::quoted;
use super::text::said;

/// Characters of a line in a box.
const COLUMNS: usize = 46;

/// Lines of a fused loop that a box shows.
const BODY_LINES: usize = 12;

/// Boxes and arrows. [`Picture::svg`] draws them; [`Picture::dot`] and [`Picture::mermaid`] hand
/// them to Graphviz and Mermaid.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    parts: Vec<Part>,
}

/// The boxes of one function.
#[derive(Clone, Debug, PartialEq)]
struct Part {
    title: String,
    subtitle: String,
    boxes: Vec<Drawn>,
    /// From box to box.
    arrows: Vec<(usize, usize)>,
}

/// A box.
#[derive(Clone, Debug, PartialEq)]
struct Drawn {
    kind: BoxKind,
    /// What is done.
    heading: String,
    /// How, and what comes of it.
    lines: Vec<String>,
    /// The whole of it, where lines were cut.
    full: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BoxKind {
    Step(LineKind),
    Result,
}

impl BoxKind {
    fn name(self) -> &'static str {
        match self {
            BoxKind::Step(LineKind::Input) => "input",
            BoxKind::Step(LineKind::Held) => "held",
            BoxKind::Step(LineKind::View) => "view",
            BoxKind::Step(LineKind::Map) => "map",
            BoxKind::Step(LineKind::Product) => "product",
            BoxKind::Step(LineKind::Kernel) => "kernel",
            BoxKind::Result => "result",
        }
    }
}

impl Listing {
    /// Draws it.
    pub fn picture(&self) -> Picture {
        Picture {
            parts: self.functions.iter().map(part).collect(),
        }
    }
}

fn part(function: &Function) -> Part {
    let mut part = Part {
        title: match &function.name {
            Some(name) => format!("{} {}", function.keyword, quoted(name)),
            None => function.keyword.to_owned(),
        },
        subtitle: function.cost.as_ref().map_or(String::new(), said),
        boxes: Vec::new(),
        arrows: Vec::new(),
    };
    // The box of each line; none for what stands in the boxes of its readers.
    let mut places = vec![None; function.lines.len()];
    for (index, line) in function.lines.iter().enumerate() {
        if line.kind == LineKind::Held {
            continue;
        }
        let place = part.boxes.len();
        places[index] = Some(place);
        part.boxes.push(drawn(function, line));
        let mut from: Vec<usize> = line
            .operands
            .iter()
            .flat_map(|operand| operand.made_by.iter().filter_map(|maker| places[*maker]))
            .collect();
        from.sort_unstable();
        from.dedup();
        part.arrows
            .extend(from.into_iter().map(|from| (from, place)));
    }
    let returns = function.returns.iter();
    let mut wanted: Vec<(String, Option<usize>)> = returns
        .map(|returned| (quoted(&returned.name), returned.made_by))
        .collect();
    wanted.extend(
        function
            .ends
            .iter()
            .map(|(name, line)| (name.clone(), Some(*line))),
    );
    for (name, made_by) in wanted {
        let Some(from) = made_by.and_then(|line| places.get(line).copied().flatten()) else {
            continue;
        };
        part.arrows.push((from, part.boxes.len()));
        part.boxes.push(Drawn {
            kind: BoxKind::Result,
            heading: cut(&name),
            lines: Vec::new(),
            full: name,
        });
    }
    part
}

fn drawn(function: &Function, line: &Line) -> Drawn {
    let mut lines = Vec::new();
    let heading = if line.kind == LineKind::Input {
        let name = line.attributes.first();
        name.map_or_else(|| line.operation.clone(), |(name, _)| name.clone())
    } else {
        lines.extend(line.attributes_text());
        line.operation.clone()
    };
    for operand in &line.operands {
        if operand.made_by.is_empty() {
            lines.push(format!("reads {}", operand.text));
        }
        for maker in &operand.made_by {
            let held = &function.lines[*maker];
            if held.kind == LineKind::Held {
                lines.push(format!(
                    "{} {} {}",
                    held.operation,
                    held.attributes.first().map_or("", |(name, _)| name),
                    held.gives.as_deref().unwrap_or_default()
                ));
            }
        }
    }
    let hidden = line.body.len().saturating_sub(BODY_LINES);
    lines.extend(line.body.iter().take(BODY_LINES).cloned());
    if hidden > 0 {
        lines.push(format!("... {hidden} more steps"));
    }
    let result = match &line.gives {
        Some(gives) if line.result.starts_with('%') => format!("{} : {gives}", line.result),
        Some(gives) => gives.clone(),
        None => line.result.clone(),
    };
    lines.push(result);
    Drawn {
        kind: BoxKind::Step(line.kind),
        heading: cut(&heading),
        lines: lines.iter().map(|line| cut(line)).collect(),
        full: line.to_string().trim().to_owned(),
    }
}

/// A line no longer than a box is wide.
fn cut(text: &str) -> String {
    if text.chars().count() <= COLUMNS {
        return text.to_owned();
    }
    let kept: String = text.chars().take(COLUMNS - 1).collect();
    format!("{kept}…")
}
