//! The report of a run: one HTML file that needs nothing else.

mod input;

pub use input::{
    Capability, Champion, Column, Dataset, Decision, Epoch, GateCheck, Model, Outcome, Plugin,
    ReportInput, Rule, Source, Training, Validation,
};

/// Draws the report as one self-contained HTML document.
pub fn render(input: &ReportInput) -> String {
    maud::html! { h1 { (input.pipeline) } }.into_string()
}
