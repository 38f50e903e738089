//! Two components: what the new one gained and lost.

use std::path::Path;

use console::style;
use sandcast_sandbox::{Capability, Changes, FactChange, InspectionDiff, Risk, RiskReason, diff};
use serde::Serialize;

use super::{InspectArguments, component, sarif, write_sarif};
use crate::{
    commands::build::shown,
    failure::{Exit, Failure},
    output::Output,
    table::{Table, bytes},
};

/// What is told of two components, as `--json` prints it.
#[derive(Serialize)]
struct Told<'a> {
    old_file: String,
    new_file: String,
    #[serde(flatten)]
    diff: &'a InspectionDiff,
}

pub(super) fn execute(
    old: &Path,
    new: &Path,
    arguments: &InspectArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let (old_file, old) = component::read(old)?;
    let (new_file, new) = component::read(new)?;
    let diff = diff(&old, &new, &arguments.allow);
    check_names(&arguments.allow, &diff)?;
    let told = Told {
        old_file: shown(&old_file),
        new_file: shown(&new_file),
        diff: &diff,
    };
    let log = sarif::of_changes(&told.new_file, &new, &diff);
    if !write_sarif(arguments, output, &log)? {
        if output.wants_json() {
            output.json(&told)?;
        } else {
            output.line(in_words(&diff))?;
        }
    }
    if diff.unapproved.is_empty() {
        return Ok(Exit::Done);
    }
    let names = diff.unapproved.join(",");
    output.warn(format_args!(
        "it gained what is not approved; if all of it is meant: --allow '{names}'"
    ));
    Ok(Exit::Rejected)
}

/// A name that stands for nothing would approve nothing, and nobody would notice.
fn check_names(names: &[String], diff: &InspectionDiff) -> Result<(), Failure> {
    let is_name = |name: &&String| {
        name.contains(':')
            || diff.capabilities.gained.contains(name)
            || Capability::ALL.iter().any(|known| known.as_str() == **name)
    };
    match names.iter().find(|name| !is_name(name)) {
        None => Ok(()),
        Some(name) => Err(Failure::rejected_because(
            format_args!("`{name}` is neither a capability nor an interface"),
            format_args!(
                "capabilities are {}; interfaces are like wasi:http/types",
                Capability::ALL.map(Capability::as_str).join(", ")
            ),
        )),
    }
}

fn in_words(diff: &InspectionDiff) -> String {
    let mut text = head(diff);
    if diff.is_same() {
        text.push_str("\n\nthe same bytes");
        return text;
    }
    let mut lists = String::new();
    for (name, changes) in [
        ("capabilities", &diff.capabilities),
        ("imports", &diff.imports),
        ("functions", &diff.functions),
        ("exports", &diff.exports),
    ] {
        lists.push_str(&list(name, changes, &diff.unapproved));
    }
    if lists.is_empty() {
        lists.push_str("\n\nit gained nothing and lost nothing");
    }
    text.push_str(&lists);
    text.push_str(&risks(&diff.old.risk, &diff.new.risk));
    text
}

fn head(diff: &InspectionDiff) -> String {
    let (old, new) = (&diff.old, &diff.new);
    let mut table = Table::indented(2);
    let mut row = |what: &str, old: String, new: String| {
        let change = if old == new {
            old
        } else {
            format!("{old} → {new}")
        };
        table.row([what.to_owned(), change]);
    };
    row("digest", old.digest.short(), new.digest.short());
    row("size", bytes(old.size_bytes), bytes(new.size_bytes));
    row("contract", old.contract.clone(), new.contract.clone());
    let is_told = |change: &&FactChange| !matches!(&*change.fact, "contract" | "id" | "version");
    let said = |text: &str| {
        if text.is_empty() {
            "(not said)".to_owned()
        } else {
            text.to_owned()
        }
    };
    let facts = diff.facts.iter().filter(is_told);
    for change in facts.chain(&diff.versions) {
        row(&change.fact, said(&change.old), said(&change.new));
    }
    let names = if old.id == new.id {
        format!(
            "{} {} → {}",
            style(&old.id).bold(),
            old.version,
            new.version
        )
    } else {
        format!(
            "{} {} → {} {}",
            style(&old.id).bold(),
            old.version,
            style(&new.id).bold(),
            new.version
        )
    };
    format!("{names}\n{table}")
}

fn list(name: &str, changes: &Changes, unapproved: &[String]) -> String {
    if changes.is_empty() {
        return String::new();
    }
    let mut text = format!("\n\n{name}");
    for gained in &changes.gained {
        let line = if unapproved.contains(gained) {
            style(format!("+ {gained}  (not approved)")).red()
        } else {
            style(format!("+ {gained}"))
        };
        text.push_str(&format!("\n  {line}"));
    }
    for lost in &changes.lost {
        text.push_str(&format!("\n  {}", style(format!("- {lost}")).green()));
    }
    text
}

fn risks(old: &Risk, new: &Risk) -> String {
    let said = |risk: &Risk| format!("{} ({})", risk.score, component::level(risk.level));
    let mut text = if old.score == new.score {
        format!("\n\nrisk {} before and after", said(new))
    } else {
        format!("\n\nrisk {} → {}", said(old), said(new))
    };
    let mut table = Table::indented(2).numbers_at(&[1]);
    let mut add = |mark: &str, reasons: &[RiskReason], others: &[RiskReason]| {
        let others = |reason: &&RiskReason| reason.points > 0 && !others.contains(reason);
        for reason in reasons.iter().filter(others) {
            table.row([
                mark.to_owned(),
                reason.points.to_string(),
                reason.factor.to_string(),
                reason.because.clone(),
            ]);
        }
    };
    add("+", &new.reasons, &old.reasons);
    add("-", &old.reasons, &new.reasons);
    if !table.is_empty() {
        text.push_str(&format!("\n{table}"));
    }
    text
}
