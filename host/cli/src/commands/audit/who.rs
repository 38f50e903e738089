//! `sandcast audit who`: who allowed what, from the record alone.

use std::collections::BTreeSet;

use clap::Args;
use sandcast_access::Subject;
use sandcast_audit::{Entry, Event, PluginRef};
use serde::Serialize;

use super::{
    origin::OriginArguments,
    show::{describe, shown_time},
};
use crate::{
    arguments::GlobalArguments,
    failure::{Exit, Failure},
    output::Output,
    terminal,
};

#[derive(Debug, Args)]
pub(super) struct WhoArguments {
    /// A plugin, by its id or eight digits or more of its digest; a model, or name@version; a
    /// pipeline; a run; or a principal [default: everything]
    what: Option<String>,
    #[command(flatten)]
    origin: OriginArguments,
}

impl WhoArguments {
    /// Whether what is read is not the log of the state.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.origin.is_elsewhere()
    }
}

/// One answer, as `--json` prints it.
#[derive(Serialize)]
struct Told<'a> {
    /// The first entry of the record; what was before it is not told.
    record_begins: u64,
    entry: u64,
    time: &'a str,
    event: &'a Event,
}

pub(super) fn execute(
    arguments: &WhoArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let record = arguments.origin.record(global, output)?;
    let entries = &record.entries;
    let found = match &arguments.what {
        None => entries
            .iter()
            .filter(|entry| allows(&entry.event))
            .collect(),
        Some(what) => about(entries, what),
    };
    if output.wants_json() {
        let told: Vec<Told<'_>> = found
            .iter()
            .map(|entry| Told {
                record_begins: record.begins(),
                entry: entry.sequence,
                time: &entry.time,
                event: &entry.event,
            })
            .collect();
        output.json(&told)?;
    } else {
        for entry in &found {
            output.line(format_args!(
                "{:>6}  {}  {}",
                entry.sequence,
                terminal::one_line(&shown_time(&entry.time)),
                terminal::one_line(&describe(&entry.event))
            ))?;
        }
    }
    record.note_beginning(output);
    if found.is_empty() {
        return Err(Failure::rejected_because(
            "nothing of that is on record here",
            "name a plugin, a model, a pipeline, a run or a principal as the log has it; \
             `sandcast audit show` shows the log",
        ));
    }
    Ok(Exit::Done)
}

/// Whether an event says that somebody allowed something, or did what others had to allow.
fn allows(event: &Event) -> bool {
    matches!(
        event,
        Event::AccessDecided { .. }
            | Event::AccessChanged { .. }
            | Event::ApprovalRequested { .. }
            | Event::ApprovalDecided { .. }
            | Event::ApprovalCarriedOut { .. }
            | Event::StandingChanged { .. }
            | Event::Registered { .. }
            | Event::VersionRenewed { .. }
            | Event::AliasMoved { .. }
            | Event::RunStarted { .. }
            | Event::Gated { .. }
    )
}

/// What is followed through the log: names that stand for one thing.
#[derive(Default)]
struct Wanted<'a> {
    name: &'a str,
    version: Option<u64>,
    /// The run itself, or those that made what is wanted.
    runs: BTreeSet<&'a str>,
    /// Those in which the plugin that is wanted took part.
    took_part: BTreeSet<&'a str>,
    /// The configurations of those.
    configs: BTreeSet<String>,
    approvals: BTreeSet<&'a str>,
}

/// The entries about one thing: its own, and those of the runs and approvals behind it.
pub(super) fn about<'a>(entries: &'a [Entry], what: &'a str) -> Vec<&'a Entry> {
    let (name, version) = match what.split_once('@') {
        Some((name, version)) => match version.parse() {
            Ok(version) => (name, Some(version)),
            Err(_) => (what, None),
        },
        None => (what, None),
    };
    let mut wanted = Wanted {
        name,
        version,
        ..Wanted::default()
    };
    for entry in entries {
        match &entry.event {
            Event::Registered {
                run,
                model,
                version,
                ..
            } if *model == name && wanted.version.is_none_or(|it| it == *version) => {
                wanted.runs.insert(run.as_str());
            }
            Event::RunStarted { run, pipeline, .. }
                if run.as_str() == name || wanted.is_pipeline(pipeline) =>
            {
                wanted.runs.insert(run.as_str());
            }
            Event::CallsFinished {
                run: Some(run),
                plugin,
                ..
            } if wanted.is_plugin(plugin) => {
                wanted.took_part.insert(run.as_str());
            }
            Event::ApprovalRequested {
                approval,
                subject,
                requester,
                ..
            } if requester == name || wanted.is_subject(subject) => {
                wanted.approvals.insert(approval);
            }
            Event::ApprovalDecided { approval, by, .. } if by == name => {
                wanted.approvals.insert(approval);
            }
            _ => {}
        }
    }
    for entry in entries {
        if let Event::RunStarted { run, config, .. } = &entry.event
            && (wanted.runs.contains(run.as_str()) || wanted.took_part.contains(run.as_str()))
        {
            wanted.configs.insert(config.to_string());
        }
    }
    entries
        .iter()
        .filter(|entry| allows(&entry.event) && wanted.is_about(&entry.event))
        .collect()
}

impl Wanted<'_> {
    fn is_digest(&self, digest: &sandcast_audit::Digest) -> bool {
        self.name.len() >= 8 && digest.to_string().starts_with(self.name)
    }

    fn is_plugin(&self, plugin: &PluginRef) -> bool {
        plugin.id == self.name || self.is_digest(&plugin.digest)
    }

    /// A version is one of a model, and no pipeline of that name is meant.
    fn is_pipeline(&self, pipeline: &str) -> bool {
        self.version.is_none() && pipeline == self.name
    }

    /// Whether a resource of a call, such as `model:credit-risk`, is what is wanted.
    fn is_resource(&self, resource: &str) -> bool {
        let Some((kind, id)) = resource.split_once(':') else {
            return false;
        };
        self.approvals.contains(id)
            || id == self.name && (self.version.is_none() || kind == "model")
    }

    fn is_version(&self, version: u64) -> bool {
        self.version.is_none_or(|wanted| wanted == version)
    }

    fn is_subject(&self, subject: &serde_json::Value) -> bool {
        match serde_json::from_value(subject.clone()) {
            Ok(Subject::Promote {
                model, to, from, ..
            }) => {
                model == self.name
                    && (self.is_version(to) || from.is_some_and(|it| self.is_version(it)))
            }
            Ok(Subject::Release { plugin, .. }) => {
                plugin.id == self.name || self.is_digest(&plugin.digest)
            }
            Ok(Subject::Widen { pipeline, plugins }) => {
                self.is_pipeline(&pipeline)
                    || plugins.iter().any(|(id, widened)| {
                        id.split(' ').next() == Some(self.name)
                            || self.is_digest(&widened.component)
                    })
            }
            Err(_) => false,
        }
    }

    fn is_about(&self, event: &Event) -> bool {
        match event {
            Event::AccessDecided {
                principal,
                resource,
                digest,
                ..
            } => {
                principal == self.name
                    || self.is_resource(resource)
                    || digest.is_some_and(|digest| {
                        self.is_digest(&digest) || self.configs.contains(&digest.to_string())
                    })
            }
            Event::AccessChanged { by, subject, .. } => {
                by == self.name || subject.split_once(':').map(|(_, id)| id) == Some(self.name)
            }
            Event::ApprovalRequested { approval, .. }
            | Event::ApprovalDecided { approval, .. }
            | Event::ApprovalCarriedOut { approval, .. } => {
                self.approvals.contains(approval.as_str())
            }
            Event::StandingChanged { plugin, .. } => self.is_plugin(plugin),
            Event::Registered { model, version, .. }
            | Event::VersionRenewed { model, version, .. } => {
                *model == self.name && self.is_version(*version)
            }
            Event::AliasMoved {
                model, from, to, ..
            } => {
                *model == self.name
                    && (self.is_version(*to) || from.is_some_and(|from| self.is_version(from)))
            }
            Event::RunStarted { run, .. } => {
                self.runs.contains(run.as_str()) || self.took_part.contains(run.as_str())
            }
            Event::Gated { run, .. } => self.runs.contains(run.as_str()),
            _ => false,
        }
    }
}
