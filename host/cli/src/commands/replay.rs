//! `sandcast replay`: what was recorded of plugins, shown again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use console::style;
use sandcast_access::{Action, Resource};
use sandcast_audit::{AuditLog, Digest, Entry, Event, PluginRef, RunId, Trust, VerifierKey};
use sandcast_sandbox::process::ProcessProgram;
use sandcast_sandbox::{
    Call, DeviceChoice, Divergence, HostCall, Outcome, Pooling, Recording, RecordingError,
    Recordings, Replay, ReplayedCall, Sandbox, SandboxConfig, replay, sentence,
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    access::Need,
    arguments::GlobalArguments,
    commands::audit::verify::require_signed,
    failure::{Exit, Failure, OrReject as _},
    output::Output,
    progress::Step,
    state,
    table::{Table, count},
    values,
};

const EXAMPLES: &str = "\
Examples:
  sandcast replay                                what was recorded
  sandcast replay 42                             the decision in entry 42 of the audit log
  sandcast replay all --stage gate               every decision on whether to promote a model
  sandcast replay 20261121-201530-4f3a9c         everything recorded of a run
  sandcast replay 0a1b2c3d4e5f                   a recording, as a prediction names it
  sandcast replay --from ../evidence --key KEY   what an auditor was handed, without the system

A plugin is recorded where the pipeline says `grants: { recording: {} }`, or the operator's ceiling
asks for it. A replay runs the very component on the very inputs. It authorises nothing, reaches no
network, reads no secret and writes no record; what came from outside then comes from the recording,
and what was computed is computed again. Where something is not as it was, the first call into the
host that differs is named, and the exit code is 1.";

/// Show a recorded decision, validation, prediction or training again
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReplayArguments {
    /// The number of an entry, a run, the beginning of a recording's digest, or `all` [default: list
    /// them]
    #[arg(value_name = "WHAT")]
    what: Option<String>,
    /// Only what was recorded in this stage, such as `train` or `predict`
    #[arg(long, value_name = "STAGE")]
    stage: Option<String>,
    /// Only what was recorded of this plugin: its id, such as `sandcast/policy-cedar`
    #[arg(long, value_name = "ID")]
    plugin: Option<String>,
    /// From an export made with --recordings, not from the state; it is verified first
    #[arg(long, value_name = "FOLDER", requires = "key")]
    from: Option<PathBuf>,
    /// The public key of the log, which you have from elsewhere than the folder. May be given
    /// several times
    #[arg(long, value_name = "KEY", requires = "from")]
    key: Vec<VerifierKey>,
}

/// Something that was recorded, as the log has it.
#[derive(Debug, Clone, Serialize)]
struct Found {
    /// The entry that names the recording.
    entry: u64,
    time: String,
    run: Option<RunId>,
    plugin: PluginRef,
    stage: String,
    recording: Digest,
    calls: u64,
    host_calls: u64,
    /// The entry of the decision that it was made for, and what was asked and answered.
    decision: Option<(u64, String)>,
}

impl ReplayArguments {
    pub(crate) fn need(&self, global: &GlobalArguments) -> Option<Need> {
        match self.from {
            Some(_) => None,
            None => super::in_state(global, Action::RecordingRead, Resource::state()),
        }
    }
}

pub(crate) async fn execute(
    arguments: &ReplayArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let (log, recordings, compiled) = match &arguments.from {
        Some(folder) => {
            verify(folder, &arguments.key, output)?;
            (folder.clone(), folder.join("recordings"), None)
        }
        None => {
            let state = state::nearest(global.state.as_deref())?;
            (
                state.join("audit"),
                state.join("recordings"),
                Some(state.join("cache")),
            )
        }
    };
    let recordings = Recordings::at(recordings);
    let all = find_all(&log)?;
    let mut found = match &arguments.what {
        None => all,
        Some(what) => select(&all, &log, what)?,
    };
    found.retain(|it| {
        let is_stage = |stage: &String| it.stage == *stage;
        let is_plugin = |plugin: &String| it.plugin.id == *plugin;
        arguments.stage.as_ref().is_none_or(is_stage)
            && arguments.plugin.as_ref().is_none_or(is_plugin)
    });
    if arguments.what.is_none() {
        return list(&found, output);
    }
    if found.is_empty() {
        return Err(Failure::rejected_because(
            "nothing of it was recorded in that stage or of that plugin",
            "`sandcast replay` lists what was recorded",
        ));
    }
    let sandbox = Sandbox::new(
        SandboxConfig {
            cache_dir: compiled,
            pooling: Pooling::Off,
            device: DeviceChoice::Cpu.into(),
            process: Some(ProcessProgram::this()?),
            ..SandboxConfig::default()
        },
        AuditLog::in_memory(),
    )?;
    let mut shown = Vec::with_capacity(found.len());
    let all = found.len();
    for (number, found) in found.into_iter().enumerate() {
        let mut step = Step::begin(output, &found.plugin.id);
        step.update(&format!("{} of {all}, {}", number + 1, found.stage));
        let recording = Recording::read(&recordings, &found.recording).or_reject()?;
        if recording.plugin != found.plugin {
            return Err(Failure::rejected_because(
                format_args!(
                    "recording {} is of {}, and entry {} says that it is of {}",
                    found.recording, recording.plugin.id, found.entry, found.plugin.id
                ),
                "`sandcast audit verify` says whether the log is as it was written",
            ));
        }
        let replay = replay(&sandbox, &recordings, &recording)
            .await
            .or_reject()?;
        drop(step);
        let shown_now = Shown {
            same: replay.is_same(),
            device: recording.device.clone(),
            found,
            replay,
        };
        if !output.wants_json() {
            tell(&recordings, &shown_now, output)?;
        }
        shown.push(shown_now);
    }
    let same = shown.iter().filter(|it| it.same).count();
    if output.wants_json() {
        output.json(&shown)?;
    } else {
        conclude(&shown, same, output)?;
    }
    Ok(if same == shown.len() {
        Exit::Done
    } else {
        Exit::Rejected
    })
}

/// A recording that was replayed.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    found: Found,
    same: bool,
    device: String,
    replay: Replay,
}

fn verify(folder: &Path, keys: &[VerifierKey], output: &Output) -> Result<(), Failure> {
    let trust = Trust {
        keys: keys.to_vec(),
        checkpoints: Vec::new(),
    };
    let report = sandcast_audit::verify_with(folder, &trust).or_reject()?;
    require_signed(&report)?;
    output.note(format_args!(
        "the log is whole: {} entries, signed by the key that was given",
        count(report.entries)
    ));
    Ok(())
}

/// Everything that was recorded, oldest first, with the decisions that name it.
fn find_all(log: &Path) -> Result<Vec<Found>, Failure> {
    if !log.join("log.jsonl").is_file() {
        return Err(Failure::rejected_because(
            format_args!("there is no audit log in {}", log.display()),
            "`sandcast run` begins one; name a state with --state or an export with --from",
        ));
    }
    let mut all: Vec<Found> = Vec::new();
    let mut places: BTreeMap<Digest, usize> = BTreeMap::new();
    for entry in sandcast_audit::read(log).or_reject()? {
        let Entry {
            sequence,
            time,
            event,
            ..
        } = entry.or_reject()?;
        match event {
            Event::Recorded {
                run,
                plugin,
                stage,
                recording,
                calls,
                host_calls,
                ..
            } => {
                places.insert(recording, all.len());
                all.push(Found {
                    entry: sequence,
                    time,
                    run,
                    plugin,
                    stage,
                    recording,
                    calls,
                    host_calls,
                    decision: None,
                });
            }
            Event::Decided {
                recording: Some(recording),
                control_point,
                principal,
                action,
                resource,
                effect,
                ..
            } => {
                if let Some(found) = places.get(&recording).and_then(|place| all.get_mut(*place)) {
                    let said =
                        format!("{control_point}: may {principal} {action} {resource}? {effect}");
                    found.decision = Some((sequence, said));
                }
            }
            Event::AccessDecided {
                recording: Some(recording),
                principal,
                action,
                resource,
                allowed,
                ..
            } => {
                if let Some(found) = places.get(&recording).and_then(|place| all.get_mut(*place)) {
                    let verdict = if allowed { "allow" } else { "deny" };
                    let said = format!("access: may {principal} {action} {resource}? {verdict}");
                    found.decision = Some((sequence, said));
                }
            }
            _ => {}
        }
    }
    Ok(all)
}

/// Hex characters of a digest that are enough to name it.
const SHORT: usize = 6;

fn select(all: &[Found], log: &Path, what: &str) -> Result<Vec<Found>, Failure> {
    let of = |wanted: &dyn Fn(&Found) -> bool| -> Vec<Found> {
        all.iter().filter(|it| wanted(it)).cloned().collect()
    };
    if what == "all" {
        return Ok(all.to_vec());
    }
    if let Ok(number) = what.parse::<u64>()
        && what.len() < 12
    {
        let found = of(&|it| {
            it.entry == number
                || it
                    .decision
                    .as_ref()
                    .is_some_and(|(entry, _)| *entry == number)
        });
        if found.is_empty() {
            return Err(not_recorded(log, number)?);
        }
        return Ok(found);
    }
    let of_run = of(&|it| it.run.as_ref().is_some_and(|run| run.as_str() == what));
    if !of_run.is_empty() {
        return Ok(of_run);
    }
    let is_hex = what.len() >= SHORT && what.bytes().all(|byte| byte.is_ascii_hexdigit());
    let named = of(&|it| is_hex && it.recording.to_string().starts_with(what));
    match named.len() {
        1 => Ok(named),
        0 => Err(Failure::rejected_because(
            format_args!("nothing was recorded of `{}`", sentence(what, 80)),
            "give the number of an entry, a run, the beginning of a digest, or `all`; `sandcast \
             replay` lists what was recorded",
        )),
        many => Err(Failure::rejected_because(
            format_args!("{many} recordings begin with `{what}`"),
            "give more of the digest",
        )),
    }
}

/// Why the entry with a number cannot be shown again.
fn not_recorded(log: &Path, number: u64) -> Result<Failure, Failure> {
    for entry in sandcast_audit::read(log).or_reject()? {
        let entry = entry.or_reject()?;
        if entry.sequence != number {
            continue;
        }
        let value = serde_json::to_value(&entry.event)?;
        let kind = value["event"].as_str().unwrap_or_default().to_owned();
        return Ok(match entry.event {
            Event::AccessDecided { .. } => Failure::rejected_because(
                format_args!(
                    "no policy was asked in entry {number}, or what it said was not recorded"
                ),
                "what access allows or refuses by its policies is recorded where access is set up",
            ),
            Event::Decided { .. } => Failure::rejected_because(
                format_args!("the decision in entry {number} was not recorded"),
                "record the policy from now on: `grants: { recording: {} }` in the pipeline",
            ),
            _ => Failure::rejected_because(
                format_args!("entry {number} is a `{kind}`, and nothing that was recorded"),
                "`sandcast replay` lists what was",
            ),
        });
    }
    Ok(Failure::rejected_because(
        format_args!("there is no entry {number}"),
        "`sandcast audit show` prints their numbers",
    ))
}

fn list(found: &[Found], output: &Output) -> Result<Exit, Failure> {
    if output.wants_json() {
        output.json(&found)?;
        return Ok(Exit::Done);
    }
    if found.is_empty() {
        output.note(
            "nothing was recorded; `grants: { recording: {} }` of a plugin in the pipeline has it \
             recorded",
        );
        return Ok(Exit::Done);
    }
    let mut table = Table::with_headings(["entry", "time", "plugin", "stage", "recording", "what"]);
    for found in found {
        let what = match &found.decision {
            Some((_, said)) => said.clone(),
            None => calls(found.calls, found.host_calls),
        };
        let time = found.time.get(..19).unwrap_or(&found.time);
        table.row([
            found.entry.to_string(),
            time.replace('T', " "),
            found.plugin.id.clone(),
            found.stage.clone(),
            found.recording.short(),
            what,
        ]);
    }
    output.line(table.numbers_at(&[0]))?;
    Ok(Exit::Done)
}

fn calls(calls: u64, host_calls: u64) -> String {
    let named = if calls == 1 { "call" } else { "calls" };
    format!(
        "{} {named}, {} into the host",
        count(calls),
        count(host_calls)
    )
}

/// Answers of a long recording that are shown, at its start and at its end.
const MAX_SHOWN: usize = 8;

fn tell(recordings: &Recordings, shown: &Shown, output: &Output) -> Result<(), Failure> {
    let Shown {
        found,
        replay,
        device,
        ..
    } = shown;
    let run = match &found.run {
        Some(run) => format!(", run {run}"),
        None => String::new(),
    };
    output.line(format_args!(
        "{} {} {} in {}{run}, recording {}",
        style(format!("entry {}:", found.entry)).bold(),
        found.plugin.id,
        found.plugin.version,
        found.stage,
        found.recording.short()
    ))?;
    if device != "cpu" {
        output.warn(format_args!(
            "it was computed on {device}, and is computed on the processor now: numbers may differ \
             in their last bits"
        ));
    }
    let last = replay.calls.len().saturating_sub(1);
    let mut left_out = 0;
    for (number, call) in replay.calls.iter().enumerate() {
        let is_shown = number < MAX_SHOWN || number == last || !call.is_same || output.is_verbose();
        if !is_shown {
            left_out += 1;
            continue;
        }
        if left_out > 0 {
            output.line(format_args!("  … {left_out} more, all the same"))?;
            left_out = 0;
        }
        tell_call(recordings, call, output)?;
    }
    if let Some(divergence) = &replay.divergence {
        tell_divergence(divergence, output)?;
    }
    if let Some(said) = &replay.request_divergence {
        output.line(format_args!("  {} {said}", style("over HTTP:").red()))?;
    }
    if replay.not_replayable > 0 {
        output.note(format_args!(
            "  {} cannot be replayed: how long something takes is no part of a recording",
            calls(replay.not_replayable as u64, 0)
        ));
    }
    Ok(())
}

fn tell_call(recordings: &Recordings, call: &ReplayedCall, output: &Output) -> Result<(), Failure> {
    let mark = match call.is_same {
        true => style("same   ").green(),
        false => style("differs").red().bold(),
    };
    let question = &call.question;
    let name = question.name();
    output.line(format_args!(
        "  {mark}  {name}{}: {}",
        asked(question),
        answered(question, &call.recorded)
    ))?;
    if !call.is_same {
        let now = answered(question, &call.replayed);
        output.line(format_args!("           now: {now}"))?;
    }
    tell_rows(recordings, question, &call.recorded, output)
}

/// What was asked, in a few words.
fn asked(call: &Call) -> String {
    match call {
        Call::Decide { request } => format!(
            " may {} {} {}?",
            request.principal, request.action, request.resource
        ),
        Call::Train { seed, training, .. } => {
            format!(" from rows {}, seed {seed}", training.short())
        }
        Call::Check { rows } => format!(" rows {}", rows.short()),
        Call::Predict { model, rows } => {
            format!(" with model {}, rows {}", model.short(), rows.short())
        }
        Call::Generate { model, .. } => format!(" with model {}", model.short()),
        _ => String::new(),
    }
}

/// Bytes of an answer that are shown.
const MAX_ANSWER_BYTES: usize = 400;

/// What was answered, in a line.
fn answered(call: &Call, outcome: &Outcome) -> String {
    let answer = match outcome {
        Outcome::Failed { how, why } => {
            return sentence(&format!("{how}: {why}"), MAX_ANSWER_BYTES);
        }
        Outcome::Returned { answer } => answer,
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let short = |value: &Value| text(value).chars().take(12).collect::<String>();
    let items = answer.as_array();
    let said = match (call, items) {
        (Call::ConfigurePolicy | Call::Open, _) => "done".to_owned(),
        (Call::Decide { .. }, _) => {
            let reasons = answer["reasons"].as_array().into_iter().flatten();
            let reasons: Vec<String> = reasons.map(text).collect();
            format!("{} ({})", text(&answer["effect"]), reasons.join("; "))
        }
        (Call::ConfigureValidator { .. }, Some(rules)) => format!("{} rules", rules.len()),
        (Call::Check { .. }, Some(findings)) => {
            let rows = findings.iter().filter_map(|it| it["rows"].as_array());
            let rows: usize = rows.map(Vec::len).sum();
            format!("{} findings, of {rows} rows", findings.len())
        }
        (Call::Judge, Some(verdicts)) => {
            let failed = verdicts.iter().filter(|it| it["passed"] == false);
            let failed: Vec<String> = failed.map(|it| text(&it["rule"])).collect();
            let verdicts = verdicts.len();
            match failed.len() {
                0 => format!("{verdicts} verdicts, all passed"),
                _ => format!("{verdicts} verdicts, failed: {}", failed.join(", ")),
            }
        }
        (Call::Describe, _) => text(&answer["name"]),
        (Call::Train { .. }, _) => format!("model {}", short(&answer["model"])),
        (Call::Predict { .. } | Call::Generate { .. }, _) => {
            format!("{} rows {}", answer["rows"], short(&answer["digest"]))
        }
        _ => answer.to_string(),
    };
    sentence(&said, MAX_ANSWER_BYTES)
}

/// Rows of a prediction that are shown.
const MAX_ROWS: usize = 10;

/// The rows of a prediction beside what was answered.
fn tell_rows(
    recordings: &Recordings,
    call: &Call,
    outcome: &Outcome,
    output: &Output,
) -> Result<(), Failure> {
    let (
        Call::Predict { rows, .. } | Call::Generate { prompts: rows, .. },
        Outcome::Returned { answer },
    ) = (call, outcome)
    else {
        return Ok(());
    };
    let Some(answers) = answer["digest"].as_str().and_then(|text| text.parse().ok()) else {
        return Ok(());
    };
    let asked = recordings.rows(rows).or_reject()?;
    let said = match recordings.rows(&answers) {
        // An export of an earlier version has no answers; the digest was held all the same.
        Err(RecordingError::Missing { .. }) => {
            output.line("             (the rows that it answered are not kept here)")?;
            return Ok(());
        }
        said => said.or_reject()?,
    };
    let (Some(asked), Some(said)) = (asked.first(), said.first()) else {
        return Ok(());
    };
    let shown = asked.num_rows().min(MAX_ROWS);
    let objects: Vec<Value> = (0..shown)
        .map(|row| values::object_at(asked, row))
        .collect();
    let table = super::predict::as_table(&asked.schema(), &objects, &said.slice(0, shown));
    for line in table.to_string().lines() {
        output.line(format_args!("             {line}"))?;
    }
    if asked.num_rows() > shown {
        output.line(format_args!(
            "             … {} more",
            asked.num_rows() - shown
        ))?;
    }
    Ok(())
}

fn tell_divergence(divergence: &Divergence, output: &Output) -> Result<(), Failure> {
    let said = |call: &Option<HostCall>| match call {
        None => "nothing more".to_owned(),
        Some(HostCall {
            name,
            bytes_in,
            bytes_out,
            seen,
        }) => {
            let seen = match seen {
                0 => String::new(),
                seen => format!(", content {seen:016x}"),
            };
            format!("{name} ({bytes_in} bytes in, {bytes_out} out{seen})")
        }
    };
    output.line(format_args!(
        "  {} call {} into the host\n           then: {}\n           now:  {}",
        style("first difference:").red().bold(),
        divergence.host_call + 1,
        said(&divergence.recorded),
        said(&divergence.replayed)
    ))?;
    Ok(())
}

fn conclude(shown: &[Shown], same: usize, output: &Output) -> Result<(), Failure> {
    let all: u64 = shown.iter().map(|it| it.found.calls).sum();
    let host: u64 = shown.iter().map(|it| it.found.host_calls).sum();
    let verdict = if same == shown.len() {
        style("as it was").green().bold()
    } else {
        style("not as it was").red().bold()
    };
    output.line(format_args!(
        "{verdict}: {same} of {} {} the same; {}",
        shown.len(),
        if shown.len() == 1 {
            "recording"
        } else {
            "recordings"
        },
        calls(all, host)
    ))?;
    Ok(())
}
