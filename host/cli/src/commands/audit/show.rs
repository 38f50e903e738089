//! `sandcast audit show`: entries as lines, or as JSON.

use clap::Args;
use console::style;
use sandcast_access::Subject;
use sandcast_audit::{Entry, Event, RunId, Standing};
use serde_json::Value;

use super::origin::OriginArguments;
use crate::{
    arguments::GlobalArguments,
    failure::{Exit, Failure, OrReject as _},
    output::Output,
    table::count,
    terminal,
};

#[derive(Debug, Args)]
pub(super) struct ShowArguments {
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
    #[command(flatten)]
    origin: OriginArguments,
}

impl ShowArguments {
    /// Whether what is read is not the log of the state.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.origin.is_elsewhere()
    }
}

pub(super) fn execute(
    arguments: &ShowArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let folder = &arguments.origin.folder(global, output)?;
    let wanted = |entry: &Entry| {
        let value = &serde_json::to_value(&entry.event).unwrap_or_default();
        arguments
            .run
            .as_ref()
            .is_none_or(|run| value["run"].as_str() == Some(run.as_str()))
            && arguments
                .event
                .as_ref()
                .is_none_or(|kind| value["event"].as_str() == Some(kind))
    };
    let mut entries = Vec::new();
    for entry in sandcast_audit::read(folder).or_reject()? {
        let entry = entry.or_reject()?;
        if wanted(&entry) {
            entries.push(entry);
        }
    }
    if !arguments.all {
        entries.drain(..entries.len().saturating_sub(arguments.last));
    }
    arguments.origin.note_archived(folder, output)?;
    show(&entries, output)
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
        output.line(format_args!(
            "{:>6}  {}  {:<18}  {}",
            entry.sequence,
            style(terminal::one_line(&shown_time(&entry.time))).dim(),
            colored_kind(&kind),
            terminal::one_line(&describe(&entry.event))
        ))?;
    }
    Ok(Exit::Done)
}

/// The time of an entry to the second, as it is read best.
pub(super) fn shown_time(time: &str) -> String {
    time.get(..19).unwrap_or(time).replace('T', " ")
}

fn colored_kind(kind: &str) -> console::StyledObject<String> {
    let padded = style(format!("{kind:<18}"));
    match kind {
        "denied" | "plugin-refused" | "stage-failed" | "key-replaced" | "conduct-deviated" => {
            padded.red()
        }
        "gated"
        | "decided"
        | "effect"
        | "key-rotated"
        | "standing-changed"
        | "access-changed"
        | "approval-requested"
        | "approval-decided"
        | "approval-carried-out" => padded.yellow(),
        "registered" | "alias-moved" => padded.green(),
        _ => padded,
    }
}

/// One event in one line.
pub(super) fn describe(event: &Event) -> String {
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
            ceiling_signers,
            signers,
            identities,
            trust_signers,
            ..
        } => {
            let mut line = format!(
                "{name} is {} {} ({}), granted {}",
                plugin.id,
                plugin.version,
                plugin.digest.short(),
                granted(grants)
            );
            for (what, keys) in [
                ("signed by", signers),
                ("under the ceiling of", ceiling_signers),
                ("under the rules of trust of", trust_signers),
            ] {
                let names: Vec<&str> = keys.iter().map(|key| key.name()).collect();
                if !names.is_empty() {
                    line.push_str(&format!(", {what} {}", names.join(" and ")));
                }
            }
            for signer in identities {
                line.push_str(&format!(
                    ", signed by {} (issued by {}, entry {} of the log {} at {})",
                    signer.identity,
                    signer.issuer,
                    signer.log_index,
                    signer.log.get(..12).unwrap_or(&signer.log),
                    signer.time
                ));
            }
            line
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
        Event::Effect {
            plugin,
            stage,
            action,
            target,
            secret,
            ..
        } => {
            let with = secret
                .as_ref()
                .map_or_else(String::new, |secret| format!(", with {secret}"));
            let target = target
                .strip_prefix(action.as_str())
                .unwrap_or(target)
                .trim();
            format!("{} in {stage}: {action} {target}{with}", plugin.id)
        }
        Event::EffectFinished {
            plugin,
            stage,
            effect,
            outcome,
            bytes_out,
            bytes_in,
            seconds,
            ..
        } => format!(
            "{} in {stage}: entry {effect} ended: {outcome}, {} out, {} in, {seconds:.3} s",
            plugin.id,
            crate::table::bytes(*bytes_out),
            crate::table::bytes(*bytes_in)
        ),
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
        Event::CallsServed {
            model,
            version,
            plugin,
            outcomes,
            rows,
            seconds,
            host_calls,
            guest_seconds,
            peak_memory_bytes,
            ..
        } => {
            let ends = outcomes
                .iter()
                .map(|(outcome, instances)| format!("{} {outcome}", count(*instances)));
            format!(
                "{} for {model} version {version}, {seconds:.0} s: {} rows, instances: {}; {} host \
                 calls, {guest_seconds:.3} s inside, {} at most",
                plugin.id,
                count(*rows),
                ends.collect::<Vec<_>>().join(", "),
                count(host_calls.values().sum()),
                crate::table::bytes(*peak_memory_bytes)
            )
        }
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
        Event::ComputeUsed {
            plugin,
            stage,
            device,
            programs,
            seconds,
            peak_bytes,
            ..
        } => format!(
            "{} in {stage} on {device}: programs {programs}, {seconds:.3} s, {} at most",
            plugin.id,
            crate::table::bytes(*peak_bytes)
        ),
        Event::Recorded {
            plugin,
            stage,
            recording,
            calls,
            host_calls,
            ..
        } => format!(
            "{} in {stage}: calls {}, into the host {}, kept as {}",
            plugin.id,
            count(*calls),
            count(*host_calls),
            recording.short()
        ),
        Event::RecordingsRemoved {
            before,
            recordings,
            files,
            bytes,
        } => format!(
            "{} recordings from before {before}, in {} files of {}",
            count(*recordings),
            count(*files),
            crate::table::bytes(*bytes)
        ),
        Event::StateCleared {
            pipeline,
            name,
            plugin,
            keys,
            bytes,
            by,
            reason,
        } => format!(
            "what {plugin} kept as `{name}` in {pipeline}, {} keys of {}, was cleared by {by}: {reason}",
            count(*keys),
            crate::table::bytes(*bytes)
        ),
        Event::EntriesArchived {
            before,
            first,
            last,
            ..
        } => format!(
            "entries {} to {} from before {before} left for an archive",
            count(*first),
            count(*last)
        ),
        Event::ConductDeviated {
            plugin,
            stage,
            score,
            reason,
            ..
        } => format!("{} in {stage}: {reason} (score {score:.1})", plugin.id),
        Event::ConductScored {
            plugins, deviating, ..
        } => format!(
            "{} plugins held against what they usually do, {} deviated",
            plugins.len(),
            deviating.len()
        ),
        Event::StandingChanged {
            plugin,
            from,
            to,
            throttled,
            operator,
            reason,
            approval,
            ..
        } => format!(
            "{} {} ({}): {} -> {to}{}, by {}{}: {reason}",
            plugin.id,
            plugin.version,
            plugin.digest.short(),
            from.map_or("unknown", Standing::as_str),
            if *throttled { ", slowed down" } else { "" },
            operator.as_deref().unwrap_or("rule"),
            by_approval(approval.as_deref())
        ),
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
        Event::VersionRenewed { model, version, .. } => {
            format!("{model} version {version}: who vouches for its plugins")
        }
        Event::AliasMoved {
            model,
            alias,
            from,
            to,
            approval,
            ..
        } => {
            let by = by_approval(approval.as_deref());
            match from {
                Some(from) => format!("{model}@{alias}: version {from} -> {to}{by}"),
                None => format!("{model}@{alias}: version {to}{by}"),
            }
        }
        Event::AccessDecided {
            principal,
            token,
            action,
            resource,
            allowed,
            policies,
            reasons,
            ..
        } => {
            let token = token
                .as_ref()
                .map_or_else(String::new, |token| format!(" with token {token}"));
            let word = if *allowed { "allowed" } else { "REFUSED" };
            let why = match policies.as_slice() {
                [] => reasons.join("; "),
                policies => format!("by {}", policies.join(", ")),
            };
            format!("{principal}{token}: {action} {resource} {word} ({why})")
        }
        Event::AccessChanged {
            by,
            change,
            subject,
            detail,
        } => {
            let detail = match detail.as_str() {
                "" => String::new(),
                detail => format!(", {detail}"),
            };
            format!("{change} {subject}{detail}, by {by}")
        }
        Event::ApprovalRequested {
            approval,
            subject,
            requester,
            expires,
            ..
        } => {
            let what = serde_json::from_value::<Subject>(subject.clone())
                .map_or_else(|_| subject.to_string(), |subject| subject.told());
            let until = expires.get(..10).unwrap_or(expires);
            format!("{approval}: {requester} asks to {what}, until {until}")
        }
        Event::ApprovalDecided {
            approval,
            kind,
            requester,
            approved,
            by,
            reason,
            ..
        } => {
            let word = if *approved { "approved" } else { "rejected" };
            let why = match reason.as_str() {
                "" => String::new(),
                reason => format!(": {reason}"),
            };
            format!("{approval}: {kind} that {requester} asked for {word} by {by}{why}")
        }
        Event::ApprovalCarriedOut {
            approval,
            kind,
            outcome,
            ..
        } => format!("{approval}: {kind}, {outcome}"),
        Event::RequestsRefused { refusals } => {
            let refusals: Vec<String> = refusals
                .iter()
                .map(|(why, number)| format!("{why} {}", count(*number)))
                .collect();
            refusals.join(", ")
        }
        Event::ServeStarted { models, address } => format!("{} on {address}", models.join(", ")),
        Event::ServeStopped { predictions } => format!("{} predictions", count(*predictions)),
        Event::PredictionsServed {
            model,
            version,
            principal,
            count: requests,
            rows,
            failures,
        } => format!(
            "{model} version {version}{}: {} requests, {} rows, {} failures",
            principal
                .as_ref()
                .map_or_else(String::new, |principal| format!(" for {principal}")),
            count(*requests),
            count(*rows),
            count(*failures)
        ),
        Event::KeyCreated { key } => format!("{key} signs from here on"),
        Event::KeyRotated { key, .. } => {
            format!("{key} signs from here on, as the key before it signed")
        }
        Event::KeyReplaced { key, reason } => {
            format!("{key} signs from here on, WITHOUT the key before it: {reason}")
        }
        other => serde_json::to_value(other)
            .map(without_name)
            .unwrap_or_default(),
    }
}

fn by_approval(approval: Option<&str>) -> String {
    approval.map_or_else(String::new, |approval| format!(", by approval {approval}"))
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
