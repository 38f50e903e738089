//! The text of a listing.

use std::fmt;

use super::form::{Function, Line, LineKind, Listing};
use super::names::{quoted, scaled};
use crate::program::Cost;

/// Columns after which a note goes to a line of its own.
const NOTE_COLUMN: usize = 72;

impl fmt::Display for Listing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "// graph {}", self.digest)?;
        for symbol in &self.symbols {
            write!(out, "// symbol {}", quoted(&symbol.name))?;
            match symbol.value {
                Some(value) => writeln!(out, " = {value}, at most {}", symbol.maximum)?,
                None => writeln!(out, " is at most {}", symbol.maximum)?,
            }
        }
        for function in &self.functions {
            writeln!(out)?;
            write!(out, "{function}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Function {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(cost) = &self.cost {
            writeln!(out, "// {}", said(cost))?;
        }
        for note in &self.notes {
            writeln!(out, "// {note}")?;
        }
        match &self.name {
            Some(name) => writeln!(out, "{} {} {{", self.keyword, quoted(name))?,
            None => writeln!(out, "{} {{", self.keyword)?,
        }
        for line in &self.lines {
            write!(out, "{line}")?;
        }
        if !self.returns.is_empty() {
            let mut separator = "  return ";
            for returned in &self.returns {
                write!(
                    out,
                    "{separator}{} = {}",
                    quoted(&returned.name),
                    returned.value
                )?;
                separator = ",\n         ";
            }
            writeln!(out)?;
        }
        for declared in &self.declares {
            writeln!(out, "  {declared}")?;
        }
        writeln!(out, "}}")
    }
}

impl fmt::Display for Line {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.without_note();
        write!(out, "  {line}")?;
        if let Some(note) = &self.note {
            let width = line.chars().count() + 2;
            if width < NOTE_COLUMN {
                write!(out, "{:1$}// {note}", "", NOTE_COLUMN - width)?;
            } else {
                write!(out, "  // {note}")?;
            }
        }
        writeln!(out)?;
        for step in &self.body {
            writeln!(out, "    | {step}")?;
        }
        Ok(())
    }
}

impl Line {
    /// Its own line of text.
    pub(super) fn without_note(&self) -> String {
        let mut line = format!("{} = {}", self.result, self.did());
        if let Some(gives) = &self.gives {
            line.push_str(&format!(" : {gives}"));
        }
        line
    }

    /// What is done to what, and how.
    fn did(&self) -> String {
        let mut text = self.operation.clone();
        let operands: Vec<&str> = self
            .operands
            .iter()
            .map(|operand| operand.text.as_str())
            .collect();
        if !operands.is_empty() {
            text.push_str(&format!(" {}", operands.join(", ")));
        }
        let attributes = self.attributes_text();
        if attributes.is_empty() {
            return text;
        }
        if self.is_source() {
            text.push_str(&format!(" {}", attributes.join(" ")));
        } else {
            text.push_str(&format!(" {{{}}}", attributes.join(", ")));
        }
        text
    }

    fn is_source(&self) -> bool {
        matches!(self.kind, LineKind::Input | LineKind::Held)
    }

    pub(super) fn attributes_text(&self) -> Vec<String> {
        self.attributes
            .iter()
            .map(|(word, value)| match value {
                // A source has its words one after the other.
                Some(value) if self.is_source() => format!("{word}({value})"),
                Some(value) => format!("{word} = {value}"),
                None => word.clone(),
            })
            .collect()
    }
}

/// `12.3 Mflop, 4.56 MB moved, 7.89 MB at the peak`.
pub(super) fn said(cost: &Cost) -> String {
    format!(
        "{}flop, {}B moved, {}B at the peak",
        scaled(cost.flops),
        scaled(cost.bytes_moved),
        scaled(cost.peak_bytes)
    )
}
