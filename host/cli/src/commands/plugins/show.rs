//! Everything that is known of a component.

use clap::Args;
use console::style;
use sandcast_audit::{Entry, Event};
use sandcast_factory::conduct::{
    Conduct, ConductSection, FunctionUse, Lesson, PlaceTold, PluginTold, Seen, figure,
};

use super::{because, moment, named, short, standing_in_colour};
use crate::{
    failure::{Exit, Failure},
    output::Output,
    table::{Table, bytes, count, sparkline},
};

/// Functions and targets of one place that are shown; `--json` has all.
const SHOWN: usize = 8;

/// What is plotted of a run.
type Measure = fn(&Seen) -> f64;

/// Runs that a plot shows.
const PLOTTED: usize = 40;

#[derive(Debug, Args)]
pub(super) struct ShowArguments {
    /// An id, eight digits or more of a digest, or a component file
    plugin: String,
    /// Runs that must be learned before anything is judged, as the pipeline has it
    #[arg(long, value_name = "N", default_value_t = ConductSection::default().runs)]
    runs: u32,
}

pub(super) fn execute(
    conduct: &Conduct,
    arguments: &ShowArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let mut told = Vec::new();
    for plugin in named(conduct, &arguments.plugin)? {
        told.push(conduct.tell(&plugin, arguments.runs)?);
    }
    if output.wants_json() {
        match told.as_slice() {
            [one] => output.json(one)?,
            all => output.json(&all)?,
        }
        return Ok(Exit::Done);
    }
    for (number, told) in told.iter().enumerate() {
        if number > 0 {
            output.line("")?;
        }
        show(told, output)?;
    }
    Ok(Exit::Done)
}

fn show(told: &PluginTold, output: &Output) -> Result<(), Failure> {
    let plugin = &told.plugin;
    output.line(format_args!(
        "{} {}  {}  {}",
        style(&plugin.id).bold(),
        sandcast_sandbox::sentence(&plugin.version, 32),
        plugin.role,
        short(plugin)
    ))?;
    match &told.standing {
        None => output.line("  no standing yet: it is given one when it is loaded next")?,
        Some(record) => output.line(format_args!(
            "  {} since {}, {}; {} clean runs since then",
            standing_in_colour(record),
            moment(&record.since),
            because(record),
            record.clean_runs
        ))?,
    }
    for place in &told.places {
        output.line(format_args!("\n{}", of_place(place)))?;
    }
    if !told.history.is_empty() {
        let mut table = Table::indented(2).numbers_at(&[0]);
        for entry in &told.history {
            table.row(of_history(entry));
        }
        output.line(format_args!("\nhistory\n{table}"))?;
    }
    Ok(())
}

fn of_place(told: &PlaceTold) -> String {
    let mut text = style(told.place.to_string()).bold().to_string();
    let of_whom = match told.inherited {
        true => " of this and earlier versions",
        false => "",
    };
    let learned = match told.is_known {
        true => format!("usual by {} runs{of_whom}", told.learned),
        false => format!("learning: {} runs so far{of_whom}", told.learned),
    };
    text.push_str(&format!("  {learned}\n"));
    let mut table = Table::indented(2);
    let calls = told.calls.iter().take(SHOWN).map(of_function);
    for (number, text) in calls.enumerate() {
        let what = if number == 0 { "calls" } else { "" };
        table.row([what.to_owned(), text]);
    }
    if told.calls.len() > SHOWN {
        let more = told.calls.len() - SHOWN;
        table.row([String::new(), format!("and {more} more")]);
    }
    for (number, target) in told.targets.iter().take(SHOWN).enumerate() {
        let what = if number == 0 { "requests" } else { "" };
        let target = sandcast_sandbox::sentence(target, 100);
        table.row([what.to_owned(), target]);
    }
    if told.targets.len() > SHOWN {
        let more = told.targets.len() - SHOWN;
        table.row([String::new(), format!("and {more} more")]);
    }
    if !table.is_empty() {
        text.push_str(&format!("{table}\n"));
    }
    let mut table = Table::indented(2);
    let whole = |value: f64| bytes(value.max(0.0) as u64);
    let plots: [(&str, String, Measure); 4] = [
        ("takes in", whole(told.bytes_in), |seen| {
            seen.observation.bytes_in as f64
        }),
        ("hands out", whole(told.bytes_out), |seen| {
            seen.observation.bytes_out as f64
        }),
        (
            "own time",
            figure("guest-seconds", told.guest_seconds),
            |seen| seen.observation.guest_seconds,
        ),
        ("memory", whole(told.peak_memory_bytes), |seen| {
            seen.observation.peak_memory_bytes as f64
        }),
    ];
    for (what, usual, of) in plots {
        let mut values = told.over_runs(of);
        values.drain(..values.len().saturating_sub(PLOTTED));
        let usual = match told.learned {
            0 => "–".to_owned(),
            _ => usual,
        };
        table.row([what.to_owned(), usual, sparkline(&values)]);
    }
    let deviating = |seen: &Seen| seen.lesson == Lesson::Deviating;
    let marks: String = told
        .seen
        .iter()
        .filter(|seen| seen.lesson != Lesson::Open)
        .map(|seen| if deviating(seen) { '!' } else { ' ' })
        .collect();
    if marks.contains('!') {
        let skipped = marks.chars().count().saturating_sub(PLOTTED);
        let marks: String = marks.chars().skip(skipped).collect();
        table.row([
            String::new(),
            "deviated".to_owned(),
            style(marks).red().to_string(),
        ]);
    }
    text.push_str(&table.to_string());
    text
}

fn of_function(function: &FunctionUse) -> String {
    let FunctionUse {
        function,
        share,
        per_run,
        per_row,
        ..
    } = function;
    let by_row = match per_row {
        Some(per_row) if *per_row >= 0.01 => format!(", {per_row:.2} a row"),
        _ => String::new(),
    };
    format!(
        "{function}  {:.0} %, about {} a run{by_row}",
        share * 100.0,
        count(per_run.round() as u64)
    )
}

fn of_history(entry: &Entry) -> [String; 4] {
    let (what, why) = match &entry.event {
        Event::StandingChanged {
            to,
            throttled,
            operator,
            reason,
            ..
        } => {
            let slowed = if *throttled { ", slowed down" } else { "" };
            let who = operator.as_deref().unwrap_or("rule");
            (format!("{to}{slowed}"), format!("by {who}: {reason}"))
        }
        Event::ConductDeviated {
            stage,
            score,
            reason,
            ..
        } => (
            style(format!("deviation {score:.1}")).yellow().to_string(),
            format!("{stage}: {reason}"),
        ),
        _ => (String::new(), String::new()),
    };
    [
        entry.sequence.to_string(),
        style(moment(&entry.time)).dim().to_string(),
        what,
        why,
    ]
}
