//! The report of a run: one HTML file that needs nothing else.
//!
//! No scripts, no fonts, no pictures from elsewhere: the charts are SVG in the page, the style is
//! in its head, and a content security policy keeps it so. Light and dark follow the reader's
//! system, and it prints. Everything that comes from data is escaped by `maud` and cut to a bound,
//! so that the size of a report does not depend on who wrote the data.

mod chart;
mod data;
mod evaluation;
mod gate;
mod head;
mod input;
mod lineage;
mod plugins;
mod profile;
mod slices;
#[cfg(test)]
mod tests;
mod text;
mod training;

use maud::{DOCTYPE, Markup, PreEscaped, html};

pub use input::{
    Capability, Champion, Column, Dataset, Decision, Deviation, Epoch, GateCheck, Model, Outcome,
    Plugin, ReportInput, Rule, Source, Training, Validation,
};
pub use text::count;

/// Draws the report as one self-contained HTML document.
pub fn render(input: &ReportInput) -> String {
    let sections: Vec<Section> = [
        gate::section(input),
        data::section(input),
        data::validation_section(input),
        profile::section(input),
        training::section(input),
        evaluation::section(input),
        slices::section(input),
        gate::decisions_section(input),
        lineage::section(input),
        plugins::section(input),
    ]
    .into_iter()
    .flatten()
    .collect();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy"
                    content="default-src 'none'; style-src 'unsafe-inline'";
                meta name="generator" content=(format!("Sandcast {}", input.sandcast_version));
                title { (text::clip(&input.pipeline, 80)) " · " (input.run) }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                main {
                    (head::head(input, &sections))
                    @for section in &sections { (section.draw()) }
                    footer {
                        "Drawn by Sandcast " (input.sandcast_version) " from the records of run "
                        code { (input.run) } ". What is said here is also in the audit log; "
                        code { "sandcast audit verify" } " checks it."
                    }
                }
            }
        }
    };
    page.into_string()
}

/// A part of the page.
struct Section {
    id: &'static str,
    title: &'static str,
    /// What the part says, in a sentence.
    lead: String,
    body: Markup,
}

impl Section {
    fn draw(&self) -> Markup {
        html! {
            section id=(self.id) {
                header {
                    h2 { (self.title) }
                    @if !self.lead.is_empty() { p { (self.lead) } }
                }
                (self.body)
            }
        }
    }
}
