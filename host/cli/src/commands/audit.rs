//! `sandcast audit`: the record of what every plugin was granted and did.

use std::path::Path;

use clap::{Args, Subcommand};
use console::style;
use sandcast_audit::{Entry, Event, RunId};
use serde_json::Value;

use crate::{
    arguments::GlobalArguments,
    failure::{Exit, Failure, OrReject as _},
    output::Output,
    state,
    table::count,
};

const EXAMPLES: &str = "\
Examples:
  sandcast audit verify                          is every entry as it was written, and none missing?
  sandcast audit show                            the last 50 entries, a line each
  sandcast audit show --run 20261121-201530-4f3a9c --all
  sandcast audit show --event denied --json | jq .   what was refused, to whom

Each entry holds the digest of the one before it. Whoever changes, removes or reorders one must
rewrite everything after it and the head; keep the head that `verify` prints somewhere else, and
even that is found out.";

/// Verify or read the audit log
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AuditArguments {
    #[command(subcommand)]
    action: AuditAction,
}

#[derive(Debug, Subcommand)]
enum AuditAction {
    /// Check the whole chain; exit 1 names the first line that is not as it was written
    Verify {
        /// A head printed by an earlier `verify`, as `sequence:digest`: the log must still contain it
        #[arg(long, value_name = "HEAD")]
        contains: Option<String>,
    },
    /// Print entries, oldest first
    Show {
        /// Only those of one run
        #[arg(long, value_name = "RUN")]
        run: Option<RunId>,
        /// Only those of one kind, such as `denied`, `decided` or `registered`
        #[arg(long, value_name = "KIND")]
        event: Option<String>,
        /// The last so many
        #[arg(long, value_name = "N", default_value_t = 50)]
        last: usize,
        /// All of them
        #[arg(long, conflicts_with = "last")]
        all: bool,
    },
}

pub(crate) fn execute(
    arguments: &AuditArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let folder = state::nearest(global.state.as_deref())?.join("audit");
    match &arguments.action {
        AuditAction::Verify { contains } => verify(&folder, contains.as_deref(), output),
        AuditAction::Show {
            run,
            event,
            last,
            all,
        } => {
            let wanted = |entry: &Entry| {
                let value = &serde_json::to_value(&entry.event).unwrap_or_default();
                run.as_ref()
                    .is_none_or(|run| value["run"].as_str() == Some(run.as_str()))
                    && event
                        .as_ref()
                        .is_none_or(|kind| value["event"].as_str() == Some(kind))
            };
            let mut entries = Vec::new();
            for entry in sandcast_audit::read(&folder).or_reject()? {
                let entry = entry.or_reject()?;
                if wanted(&entry) {
                    entries.push(entry);
                }
            }
            if !all {
                entries.drain(..entries.len().saturating_sub(*last));
            }
            show(&entries, output)
        }
    }
}

fn verify(folder: &Path, contains: Option<&str>, output: &Output) -> Result<Exit, Failure> {
    let report = sandcast_audit::verify(folder).or_reject()?;
    if let Some(head) = contains {
        require_entry(folder, head)?;
    }
    if output.wants_json() {
        output.json(&serde_json::json!({
            "whole": true,
            "entries": report.entries,
            "head": format!("{}:{}", report.entries, report.head),
            "first_time": report.first_time,
            "last_time": report.last_time,
            "unsealed": report.unsealed,
            "repairs": report.repairs,
        }))?;
        return Ok(Exit::Done);
    }
    let mark = style("whole").green().bold();
    output.line(format_args!(
        "{mark}: {} entries, each chained to the one before",
        count(report.entries)
    ))?;
    if let (Some(first), Some(last)) = (&report.first_time, &report.last_time) {
        output.line(format_args!("from   {first}\nto     {last}"))?;
    }
    output.line(format_args!("head   {}:{}", report.entries, report.head))?;
    if report.unsealed > 0 {
        output.warn(format_args!(
            "the last {} entries came after the head was written: a crash; the next entry seals them",
            report.unsealed
        ));
    }
    if !report.repairs.is_empty() {
        output.warn(format_args!(
            "an incomplete line was dropped after a crash, as the entries at lines {:?} say",
            report.repairs
        ));
    }
    Ok(Exit::Done)
}

fn require_entry(folder: &Path, head: &str) -> Result<(), Failure> {
    let malformed = || {
        Failure::rejected_because(
            format_args!("`{head}` is not a head"),
            "one is a sequence number, a colon and 64 hexadecimal characters, as `verify` prints it",
        )
    };
    let (sequence, digest) = head.split_once(':').ok_or_else(malformed)?;
    let sequence: u64 = sequence.parse().map_err(|_| malformed())?;
    for entry in sandcast_audit::read(folder).or_reject()? {
        let entry = entry.or_reject()?;
        if entry.sequence == sequence && entry.digest.to_string() == digest {
            return Ok(());
        }
    }
    Err(Failure::rejected_because(
        format_args!(
            "the log does not contain the entry {head}: it was rewritten, or is another log"
        ),
        format_args!("keep {} as evidence", folder.display()),
    ))
}

fn show(entries: &[Entry], output: &Output) -> Result<Exit, Failure> {
    if output.wants_json() {
        output.json(&entries)?;
        return Ok(Exit::Done);
    }
    for entry in entries {
        let kind = serde_json::to_value(&entry.event)
            .ok()
            .and_then(|value| value["event"].as_str().map(str::to_owned))
            .unwrap_or_default();
        let time = entry
            .time
            .get(..19)
            .unwrap_or(&entry.time)
            .replace('T', " ");
        output.line(format_args!(
            "{:>6}  {}  {:<18}  {}",
            entry.sequence,
            style(time).dim(),
            colored_kind(&kind),
            describe(&entry.event)
        ))?;
    }
    Ok(Exit::Done)
}

fn colored_kind(kind: &str) -> console::StyledObject<String> {
    let padded = style(format!("{kind:<18}"));
    match kind {
        "denied" | "plugin-refused" | "stage-failed" => padded.red(),
        "gated" | "decided" => padded.yellow(),
        "registered" | "alias-moved" => padded.green(),
        _ => padded,
    }
}

/// One event in one line.
fn describe(event: &Event) -> String {
    match event {
        Event::RunStarted {
            run,
            pipeline,
            config,
        } => {
            format!("{run} of {pipeline}, configuration {}", config.short())
        }
        Event::RunFinished {
            run,
            outcome,
            message,
        } => match message {
            Some(message) => format!("{run} {outcome}: {message}"),
            None => format!("{run} {outcome}"),
        },
        Event::StageFinished {
            stage,
            output,
            cached,
            rows_in,
            rows_out,
            rows_quarantined,
            seconds,
            ..
        } => {
            let mut line = format!("{stage} -> {}", output.short());
            if let (Some(rows_in), Some(rows_out)) = (rows_in, rows_out) {
                line.push_str(&format!(
                    ", {} rows in, {} out",
                    count(*rows_in),
                    count(*rows_out)
                ));
            }
            if let Some(quarantined) = rows_quarantined {
                line.push_str(&format!(", {} quarantined", count(*quarantined)));
            }
            line.push_str(&if *cached {
                ", from the cache".to_owned()
            } else {
                format!(", {seconds:.2} s")
            });
            line
        }
        Event::StageFailed { stage, message, .. } => format!("{stage}: {message}"),
        Event::PluginLoaded {
            plugin,
            name,
            grants,
            ..
        } => {
            format!(
                "{name} is {} {} ({}), granted {}",
                plugin.id,
                plugin.version,
                plugin.digest.short(),
                granted(grants)
            )
        }
        Event::PluginRefused { name, reason, .. } => format!("{name}: {reason}"),
        Event::Denied {
            plugin,
            stage,
            capability,
            detail,
            grant_with,
            ..
        } => {
            format!(
                "{} in {stage}: {capability}: {detail}; granted by {grant_with}",
                plugin.id
            )
        }
        Event::CallsFinished {
            plugin,
            stage,
            host_calls,
            guest_seconds,
            peak_memory_bytes,
            outcome,
            ..
        } => format!(
            "{} in {stage}: {outcome}, {} host calls, {guest_seconds:.3} s inside, {} at most",
            plugin.id,
            count(host_calls.values().sum()),
            crate::table::bytes(*peak_memory_bytes)
        ),
        Event::Decided {
            control_point,
            principal,
            action,
            resource,
            effect,
            reasons,
            ..
        } => {
            format!(
                "{control_point}: {principal} may {action} {resource}? {effect} ({})",
                reasons.join("; ")
            )
        }
        Event::Gated {
            approved, checks, ..
        } => {
            let failed: Vec<String> = checks
                .iter()
                .filter(|check| !check.passed)
                .map(|check| format!("{} ({})", check.expression, check.observed))
                .collect();
            if *approved {
                format!("approved by {} checks", checks.len())
            } else {
                format!("refused: {}", failed.join("; "))
            }
        }
        Event::Registered {
            model,
            version,
            model_digest,
            ..
        } => {
            format!("{model} version {version}, {}", model_digest.short())
        }
        Event::AliasMoved {
            model,
            alias,
            from,
            to,
            ..
        } => match from {
            Some(from) => format!("{model}@{alias}: version {from} -> {to}"),
            None => format!("{model}@{alias}: version {to}"),
        },
        Event::ServeStarted { models, address } => format!("{} on {address}", models.join(", ")),
        Event::ServeStopped { predictions } => format!("{} predictions", count(*predictions)),
        Event::PredictionsServed {
            model,
            version,
            count: requests,
            rows,
            failures,
        } => format!(
            "{model} version {version}: {} requests, {} rows, {} failures",
            count(*requests),
            count(*rows),
            count(*failures)
        ),
        other => serde_json::to_value(other)
            .map(without_name)
            .unwrap_or_default(),
    }
}

fn without_name(mut value: Value) -> String {
    if let Some(fields) = value.as_object_mut() {
        fields.remove("event");
    }
    value.to_string()
}

fn granted(grants: &Value) -> String {
    let names: Vec<&str> = grants
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, value)| {
            let off = value.is_null()
                || **value == Value::Bool(false)
                || value.as_array().is_some_and(Vec::is_empty);
            name.as_str() != "limits" && !off
        })
        .map(|(name, _)| name.as_str())
        .collect();
    if names.is_empty() {
        "nothing".to_owned()
    } else {
        names.join(", ")
    }
}
