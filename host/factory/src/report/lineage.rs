//! From which sources, by which plugins, to which model: a small drawn graph.

use maud::{Markup, html};

use super::Section;
use super::chart::at;
use super::input::{Outcome, ReportInput};
use super::text::{clip, count, counted, short_digest};

const SOURCES: usize = 7;
const WIDTH: f64 = 1040.0;
const NODE_WIDTH: f64 = 168.0;
const NODE_HEIGHT: f64 = 66.0;
const ROW: f64 = 82.0;

/// A thing with a digest.
struct Node {
    kind: &'static str,
    name: String,
    detail: String,
    digest: String,
    class: &'static str,
}

/// A step of the line: its things, and by what the step before became them.
struct Layer {
    made_by: String,
    nodes: Vec<Node>,
}

pub(super) fn section(input: &ReportInput) -> Option<Section> {
    let layers = layers(input);
    if layers.len() < 2 {
        return None;
    }
    let body = html! { div.card.scroll { (draw(&layers)) } };
    Some(Section {
        id: "lineage",
        title: "Lineage",
        lead: "What the model was made of; each thing is known by the digest of its content."
            .to_owned(),
        body,
    })
}

fn layers(input: &ReportInput) -> Vec<Layer> {
    let mut layers = Vec::new();
    let mut sources: Vec<Node> = input
        .sources
        .iter()
        .take(SOURCES)
        .map(|source| Node {
            kind: "source",
            name: clip(&source.name, 22),
            detail: format!(
                "{}, by {}",
                counted(source.rows_landed, "row"),
                clip(&source.plugin, 12)
            ),
            digest: short_digest(&source.digest),
            class: "",
        })
        .collect();
    if input.sources.len() > SOURCES {
        sources.push(Node {
            kind: "sources",
            name: format!("{} more", input.sources.len() - SOURCES),
            detail: String::new(),
            digest: String::new(),
            class: "",
        });
    }
    let mut push = |made_by: String, nodes: Vec<Node>| {
        if !nodes.is_empty() {
            layers.push(Layer { made_by, nodes });
        }
    };
    push(String::new(), sources);
    push(
        "sql".to_owned(),
        input
            .dataset
            .iter()
            .map(|dataset| Node {
                kind: "dataset",
                name: clip(&dataset.name, 22),
                detail: format!("{} × {} columns", count(dataset.rows), dataset.columns),
                digest: short_digest(&dataset.digest),
                class: "",
            })
            .collect(),
    );
    push(
        "checks".to_owned(),
        input
            .validation
            .iter()
            .map(|validation| Node {
                kind: "validated",
                name: format!("{} passed", count(validation.rows_passed)),
                detail: format!("{} quarantined", count(validation.rows_quarantined)),
                digest: short_digest(&validation.digest),
                class: "",
            })
            .collect(),
    );
    let adapter = input
        .training
        .as_ref()
        .map_or("", |training| training.adapter.as_str());
    push(
        clip(adapter, 10),
        input
            .model
            .iter()
            .map(|model| Node {
                kind: "model",
                name: model
                    .name
                    .as_deref()
                    .map_or_else(|| "model".to_owned(), |name| clip(name, 22)),
                detail: input
                    .training
                    .as_ref()
                    .map(|training| format!("{} parameters", count(training.parameters)))
                    .unwrap_or_default(),
                digest: short_digest(&model.digest),
                class: "",
            })
            .collect(),
    );
    if input.model.is_some() {
        push("gate".to_owned(), vec![outcome(&input.outcome)]);
    }
    layers
}

fn outcome(outcome: &Outcome) -> Node {
    let node = |name: String, detail: String, class| Node {
        kind: "outcome",
        name,
        detail,
        digest: String::new(),
        class,
    };
    match outcome {
        Outcome::Approved {
            model,
            version,
            alias,
            approval,
        } => node(
            format!("{} v{version}", clip(model, 18)),
            match (alias, approval) {
                (_, Some(_)) => "waits for approval".to_owned(),
                (Some(alias), None) => format!("registered as {}", clip(alias, 14)),
                (None, None) => "registered".to_owned(),
            },
            "good",
        ),
        Outcome::Refused { .. } => node("refused".to_owned(), "not registered".to_owned(), "bad"),
        Outcome::Failed { stage, .. } => node(
            "failed".to_owned(),
            format!("in {}", clip(stage, 20)),
            "bad",
        ),
    }
}

fn draw(layers: &[Layer]) -> Markup {
    let rows = layers
        .iter()
        .map(|layer| layer.nodes.len())
        .max()
        .unwrap_or(1);
    let height = ROW * rows as f64;
    let step = ((WIDTH - NODE_WIDTH) / (layers.len() - 1).max(1) as f64).min(300.0);
    let x = |layer: usize| layer as f64 * step;
    let y = |layer: &Layer, node: usize| {
        let above = (rows - layer.nodes.len()) as f64 * ROW / 2.0;
        above + node as f64 * ROW + (ROW - NODE_HEIGHT) / 2.0
    };
    html! {
        svg.chart viewBox=(format!("0 0 {} {}", at(WIDTH), at(height))) role="img"
            aria-label="Lineage" style="min-width:860px" {
            @for (index, pair) in layers.windows(2).enumerate() {
                @let (from, to) = (x(index) + NODE_WIDTH, x(index + 1));
                @for (source, _) in pair[0].nodes.iter().enumerate() {
                    @for (target, _) in pair[1].nodes.iter().enumerate() {
                        (edge(
                            (from, y(&pair[0], source) + NODE_HEIGHT / 2.0),
                            (to, y(&pair[1], target) + NODE_HEIGHT / 2.0),
                        ))
                    }
                }
                text.faint.halo x=(at((from + to) / 2.0 - 1.0)) y=(at(height / 2.0 - 8.0))
                    text-anchor="middle" style="font-size:10.5px" { (pair[1].made_by) }
            }
            @for (index, layer) in layers.iter().enumerate() {
                @for (position, node) in layer.nodes.iter().enumerate() {
                    (draw_node(node, x(index), y(layer, position)))
                }
            }
        }
    }
}

fn edge(from: (f64, f64), to: (f64, f64)) -> Markup {
    let end = to.0 - 6.0;
    let middle = (from.0 + end) / 2.0;
    let path = format!(
        "M{} {}C{} {} {} {} {} {}",
        at(from.0),
        at(from.1),
        at(middle),
        at(from.1),
        at(middle),
        at(to.1),
        at(end),
        at(to.1),
    );
    let head = format!(
        "{},{} {},{} {},{}",
        at(to.0 - 1.0),
        at(to.1),
        at(to.0 - 8.0),
        at(to.1 - 4.0),
        at(to.0 - 8.0),
        at(to.1 + 4.0),
    );
    html! { path.edge d=(path) {} polygon.arrow points=(head) {} }
}

fn draw_node(node: &Node, x: f64, y: f64) -> Markup {
    html! {
        rect class={ "node " (node.class) } x=(at(x + 0.5)) y=(at(y + 0.5))
            width=(at(NODE_WIDTH - 1.0)) height=(at(NODE_HEIGHT - 1.0)) rx="9" {}
        text.faint x=(at(x + 12.0)) y=(at(y + 17.0)) style="font-size:10px" { (node.kind) }
        text.mono.faint x=(at(x + NODE_WIDTH - 12.0)) y=(at(y + 17.0)) text-anchor="end"
            style="font-size:9.5px" { (node.digest) }
        text.strong x=(at(x + 12.0)) y=(at(y + 36.0)) style="font-size:13px" { (node.name) }
        text x=(at(x + 12.0)) y=(at(y + 53.0)) { (node.detail) }
    }
}
