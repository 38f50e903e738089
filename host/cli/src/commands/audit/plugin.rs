//! `sandcast audit plugin`: what plugins could do, did and were allowed, from the record alone.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use console::style;
use jiff::Timestamp;
use sandcast_audit::{Digest, Entry, Event, HostUse, PluginRef};
use sandcast_sandbox::{Capability, Grants, sentence};
use serde::Serialize;

use super::{
    hand_over::time,
    origin::{OriginArguments, Record},
    show::{describe, shown_time},
    who,
};
use crate::{
    arguments::GlobalArguments,
    failure::{Exit, Failure},
    output::Output,
    table::{Table, bytes, count, seconds},
    terminal::one_line,
};

#[derive(Debug, Args)]
pub(super) struct PluginArguments {
    /// A plugin, by its id or eight digits or more of its digest; a run; or a model, as name@version:
    /// the plugins of the run that made it [default: every plugin]
    what: Option<String>,
    /// Only what it did from this time on: 2026-11-21 or 2026-11-21T20:15:30Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Only what it did before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
    #[command(flatten)]
    origin: OriginArguments,
}

impl PluginArguments {
    /// Whether what is read is not the log of the state.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.origin.is_elsewhere()
    }
}

/// What the record says of one component.
#[derive(Debug, Serialize)]
struct Told {
    plugin: PluginRef,
    /// The first entry of the record; what was before it is not told.
    record_begins: u64,
    /// What it could do: each way in which it was loaded, the latest last.
    loaded: Vec<Loaded>,
    /// How often it was refused, by the reason.
    refused: BTreeMap<String, u64>,
    did: Did,
    /// The numbers of the entries that say who allowed it.
    allowed_by: Vec<u64>,
}

/// One way in which a component was loaded.
#[derive(Debug, PartialEq, Serialize)]
struct Loaded {
    /// Its name in the pipeline.
    name: String,
    /// What it was granted.
    grants: serde_json::Value,
    /// The interfaces that it imports.
    imports: Vec<String>,
    /// The names of the keys and identities that signed it and count.
    signers: Vec<String>,
    /// The digest of the operator's ceiling.
    ceiling: Option<Digest>,
    times: u64,
    first: String,
    last: String,
}

/// What a component did.
#[derive(Debug, Default, Serialize)]
struct Did {
    runs: u64,
    /// Rows that it was asked about where it answered for models on servers.
    served_rows: u64,
    instances: u64,
    /// Calls into the host, by function.
    calls: BTreeMap<String, u64>,
    /// What these took, by function; `other` are those to WASI that are not told apart.
    host_use: BTreeMap<String, HostUse>,
    /// What was done outside, with what it came to.
    effects: BTreeMap<String, Outside>,
    /// What it was denied, in words, and how often.
    denied: BTreeMap<String, u64>,
    /// How instances ended other than well.
    ended: BTreeMap<String, u64>,
    /// Decisions that it made, by what it decided.
    decided: BTreeMap<String, u64>,
    /// Deviations from its usual conduct, in words.
    deviated: Vec<String>,
    /// Recordings of it.
    recordings: u64,
    guest_seconds: f64,
    compute_seconds: f64,
    peak_memory_bytes: u64,
    #[serde(skip)]
    seen_runs: BTreeSet<String>,
    /// Those that are stretches of time in which it was served.
    #[serde(skip)]
    served: BTreeSet<String>,
}

/// An effect that a plugin had outside, as often as it had it.
#[derive(Debug, Default, Serialize)]
struct Outside {
    times: u64,
    bytes_out: u64,
    bytes_in: u64,
}

pub(super) fn execute(
    arguments: &PluginArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let record = arguments.origin.record(global, output)?;
    let told = tell_all(&record, arguments);
    if output.wants_json() {
        output.json(&told)?;
    } else {
        for (number, told) in told.iter().enumerate() {
            if number > 0 {
                output.line("")?;
            }
            tell(told, &record.entries, output)?;
        }
    }
    record.note_beginning(output);
    if told.is_empty() {
        return Err(Failure::rejected_because(
            "no such plugin did anything on this record or was refused, or not in that time",
            "name a plugin, a run or a model as the log has it; `sandcast audit plugin` alone tells of all",
        ));
    }
    Ok(Exit::Done)
}

fn tell_all(record: &Record, arguments: &PluginArguments) -> Vec<Told> {
    let (entries, begins) = (&record.entries[..], record.begins());
    let wanted = Wanted::new(entries, arguments.what.as_deref());
    let mut found: BTreeMap<Digest, Told> = BTreeMap::new();
    let mut refused: Vec<(&Digest, &String, &String)> = Vec::new();
    // Entries of effects, to find what they came to.
    let mut effects: BTreeMap<u64, (Digest, String)> = BTreeMap::new();
    for entry in entries {
        let Ok(when) = entry.time.parse::<Timestamp>() else {
            continue;
        };
        // Clocks are set back, and those of several hosts are not one.
        if arguments.until.is_some_and(|until| when >= until) {
            continue;
        }
        let early = arguments.since.is_some_and(|since| when < since);
        if let Event::PluginRefused {
            name,
            digest,
            reason,
        } = &entry.event
            && !early
        {
            let digest = digest.as_ref().unwrap_or(&Digest::ZERO);
            refused.push((digest, name, reason));
        }
        let Some(plugin) = plugin_of(&entry.event) else {
            continue;
        };
        if !wanted.is(plugin, &entry.event) {
            continue;
        }
        let told = found.entry(plugin.digest);
        let told = told.or_insert_with(|| Told::of(plugin.clone(), begins));
        if matches!(entry.event, Event::PluginLoaded { .. }) {
            told.load(entry, early);
        } else if !early {
            told.did.add(entry, &mut effects, plugin.digest);
        }
    }
    // By name too: where it was never loaded, that is all there may be to know it by.
    let mut never_loaded: BTreeMap<(Digest, &str), Told> = BTreeMap::new();
    for (digest, name, reason) in refused {
        let told = match found.get_mut(digest) {
            Some(_) if wanted.runs.is_some() => continue,
            Some(told) => told,
            None if wanted.is_refused(name, digest) => never_loaded
                .entry((*digest, name.as_str()))
                .or_insert_with(|| Told::of(never_seen(name, *digest), begins)),
            None => continue,
        };
        *told.refused.entry(reason.clone()).or_default() += 1;
    }
    let mut told: Vec<Told> = found.into_values().collect();
    told.extend(never_loaded.into_values());
    for told in &mut told {
        told.did.runs = told.did.seen_runs.difference(&told.did.served).count() as u64;
        let digest = told.plugin.digest.to_string();
        let allowed = who::about(entries, &digest).into_iter();
        let until = |entry: &&Entry| {
            let when = entry.time.parse::<Timestamp>();
            when.is_ok_and(|when| arguments.until.is_none_or(|until| when < until))
        };
        told.allowed_by = allowed.filter(until).map(|it| it.sequence).collect();
    }
    // Who did nothing in a period that was named is not told of.
    if arguments.since.is_some() || wanted.runs.is_some() {
        told.retain(|told| told.did.instances > 0 || told.did.runs > 0 || !told.refused.is_empty());
    }
    told.sort_by(|one, other| one.plugin.id.cmp(&other.plugin.id));
    told
}

/// Which plugins are meant.
struct Wanted<'a> {
    what: Option<&'a str>,
    /// The runs that are meant, if it is a run or a model.
    runs: Option<BTreeSet<String>>,
    /// The components that took part in them.
    components: BTreeSet<Digest>,
}

impl<'a> Wanted<'a> {
    fn new(entries: &'a [Entry], what: Option<&'a str>) -> Self {
        let mut wanted = Wanted {
            what,
            runs: None,
            components: BTreeSet::new(),
        };
        let Some(what) = what else {
            return wanted;
        };
        let (model, version) = match what.split_once('@') {
            Some((model, version)) => (model, version.parse::<u64>().ok()),
            None => (what, None),
        };
        let mut runs = BTreeSet::new();
        for entry in entries {
            match &entry.event {
                Event::RunStarted { run, .. } if run.as_str() == what => {
                    runs.insert(run.to_string());
                }
                Event::Registered {
                    run,
                    model: name,
                    version: number,
                    ..
                } if name == model && version.is_some_and(|version| version == *number) => {
                    runs.insert(run.to_string());
                }
                _ => {}
            }
        }
        if runs.is_empty() {
            return wanted;
        }
        let took_part = entries.iter().filter_map(|entry| {
            let run = run_of(&entry.event)?;
            let plugin = plugin_of(&entry.event)?;
            runs.contains(run).then_some(plugin.digest)
        });
        wanted.components = took_part.collect();
        wanted.runs = Some(runs);
        wanted
    }

    fn is(&self, plugin: &PluginRef, event: &Event) -> bool {
        if let Some(runs) = &self.runs {
            // How it was loaded is not said by run.
            return match run_of(event) {
                Some(run) => runs.contains(run),
                None => {
                    matches!(event, Event::PluginLoaded { .. })
                        && self.components.contains(&plugin.digest)
                }
            };
        }
        self.names(&plugin.id, &plugin.digest)
    }

    /// Whether a component is meant that was refused. In which run that was is not on record.
    fn is_refused(&self, name: &str, digest: &Digest) -> bool {
        self.runs.is_none() && self.names(name, digest)
    }

    fn names(&self, name: &str, digest: &Digest) -> bool {
        self.what.is_none_or(|what| {
            name == what || what.len() >= 8 && digest.to_string().starts_with(what)
        })
    }
}

/// A component that was refused whenever somebody wanted to load it, so that only its name in a
/// pipeline and its digest are known; the latter is zero where it was none.
fn never_seen(name: &str, digest: Digest) -> PluginRef {
    PluginRef {
        id: name.to_owned(),
        version: "never loaded".to_owned(),
        role: "unknown".to_owned(),
        digest,
    }
}

fn plugin_of(event: &Event) -> Option<&PluginRef> {
    match event {
        Event::PluginLoaded { plugin, .. }
        | Event::Denied { plugin, .. }
        | Event::Effect { plugin, .. }
        | Event::EffectFinished { plugin, .. }
        | Event::CallsFinished { plugin, .. }
        | Event::CallsServed { plugin, .. }
        | Event::ComputeUsed { plugin, .. }
        | Event::ConductDeviated { plugin, .. }
        | Event::Recorded { plugin, .. }
        | Event::Decided {
            plugin: Some(plugin),
            ..
        } => Some(plugin),
        _ => None,
    }
}

fn run_of(event: &Event) -> Option<&str> {
    match event {
        Event::Denied { run, .. }
        | Event::Effect { run, .. }
        | Event::EffectFinished { run, .. }
        | Event::CallsFinished { run, .. }
        | Event::ComputeUsed { run, .. }
        | Event::ConductDeviated { run, .. }
        | Event::Recorded { run, .. }
        | Event::Decided { run, .. } => run.as_ref().map(sandcast_audit::RunId::as_str),
        Event::CallsServed { run, .. } => Some(run.as_str()),
        _ => None,
    }
}

impl Told {
    fn of(plugin: PluginRef, record_begins: u64) -> Self {
        Self {
            plugin,
            record_begins,
            loaded: Vec::new(),
            refused: BTreeMap::new(),
            did: Did::default(),
            allowed_by: Vec::new(),
        }
    }

    fn load(&mut self, entry: &Entry, early: bool) {
        let Event::PluginLoaded {
            name,
            grants,
            imports,
            signers,
            identities,
            ceiling,
            ..
        } = &entry.event
        else {
            return;
        };
        let keys = signers.iter().map(|key| key.name().to_owned());
        let signers = keys.chain(identities.iter().map(|it| it.identity.clone()));
        let mut loaded = Loaded {
            name: name.clone(),
            grants: grants.clone(),
            imports: imports.clone(),
            signers: signers.collect(),
            ceiling: *ceiling,
            times: 1,
            first: entry.time.clone(),
            last: entry.time.clone(),
        };
        // Of what was before the time that is asked about, the last counts: it may have gone on.
        if early {
            self.loaded = vec![loaded];
            return;
        }
        let same = self.loaded.iter().position(|it| {
            it.name == loaded.name
                && it.grants == loaded.grants
                && it.signers == loaded.signers
                && it.ceiling == loaded.ceiling
        });
        if let Some(place) = same {
            let before = self.loaded.remove(place);
            loaded.times = before.times + 1;
            loaded.first = before.first;
        }
        self.loaded.push(loaded);
    }
}

impl Did {
    fn used(
        &mut self,
        host_calls: &BTreeMap<String, u64>,
        host_use: &BTreeMap<String, HostUse>,
        guest_seconds: f64,
        peak_memory_bytes: u64,
    ) {
        for (function, calls) in host_calls {
            *self.calls.entry(function.clone()).or_default() += calls;
        }
        for (function, used) in host_use {
            *self.host_use.entry(function.clone()).or_default() += *used;
        }
        self.guest_seconds += guest_seconds;
        self.peak_memory_bytes = self.peak_memory_bytes.max(peak_memory_bytes);
    }

    /// Calls into the host, with what they took where that is known.
    fn calls_in_words(&self) -> BTreeMap<String, u64> {
        let mut told: BTreeMap<String, u64> = BTreeMap::new();
        for (function, used) in &self.host_use {
            let mut what = format!("{function} ({}", seconds(used.seconds));
            for (bytes_of, way) in [(used.bytes_in, "in"), (used.bytes_out, "out")] {
                if bytes_of > 0 {
                    what.push_str(&format!(", {} {way}", bytes(bytes_of)));
                }
            }
            what.push(')');
            let calls = self.calls.get(function).copied();
            told.insert(what, calls.unwrap_or(used.calls));
        }
        // What was done before times were kept.
        for (function, calls) in &self.calls {
            if !self.host_use.contains_key(function) {
                told.insert(function.clone(), *calls);
            }
        }
        told
    }

    fn ended(&mut self, outcome: &str, instances: u64) {
        self.instances += instances;
        if !matches!(outcome, "finished" | "done") {
            *self.ended.entry(outcome.to_owned()).or_default() += instances;
        }
    }

    fn add(
        &mut self,
        entry: &Entry,
        effects: &mut BTreeMap<u64, (Digest, String)>,
        component: Digest,
    ) {
        if let Some(run) = run_of(&entry.event) {
            self.seen_runs.insert(run.to_owned());
        }
        match &entry.event {
            Event::CallsFinished {
                host_calls,
                host_use,
                guest_seconds,
                peak_memory_bytes,
                outcome,
                ..
            } => {
                self.used(host_calls, host_use, *guest_seconds, *peak_memory_bytes);
                self.ended(outcome, 1);
            }
            Event::CallsServed {
                run,
                rows,
                outcomes,
                host_calls,
                host_use,
                guest_seconds,
                peak_memory_bytes,
                compute_seconds,
                ..
            } => {
                self.served.insert(run.as_str().to_owned());
                self.served_rows = self.served_rows.saturating_add(*rows);
                self.compute_seconds += compute_seconds;
                self.used(host_calls, host_use, *guest_seconds, *peak_memory_bytes);
                for (outcome, instances) in outcomes {
                    self.ended(outcome, *instances);
                }
            }
            Event::Effect {
                capability,
                action,
                target,
                secret,
                ..
            } => {
                let target = target
                    .strip_prefix(action.as_str())
                    .unwrap_or(target)
                    .trim();
                let with = secret
                    .as_ref()
                    .map_or_else(String::new, |secret| format!(", with {secret}"));
                let what = format!("{capability}: {action} {target}{with}");
                self.effects.entry(what.clone()).or_default().times += 1;
                effects.insert(entry.sequence, (component, what));
            }
            Event::EffectFinished {
                effect,
                bytes_out,
                bytes_in,
                ..
            } => {
                if let Some((_, what)) = effects.remove(effect)
                    && let Some(outside) = self.effects.get_mut(&what)
                {
                    outside.bytes_out += bytes_out;
                    outside.bytes_in += bytes_in;
                }
            }
            Event::Denied {
                capability, detail, ..
            } => {
                let what = format!("{capability}: {detail}");
                *self.denied.entry(what).or_default() += 1;
            }
            Event::ComputeUsed { seconds, .. } => self.compute_seconds += seconds,
            Event::ConductDeviated { reason, .. } => self.deviated.push(reason.clone()),
            Event::Recorded { .. } => self.recordings += 1,
            Event::Decided { effect, .. } => {
                *self.decided.entry(effect.clone()).or_default() += 1;
            }
            _ => {}
        }
    }
}

/// Lines of a list that are shown; `--json` has all of them.
const MAX_LINES: usize = 20;

fn tell(told: &Told, entries: &[Entry], output: &Output) -> Result<(), Failure> {
    let plugin = &told.plugin;
    output.line(format_args!(
        "{} {}  {}  {}",
        style(one_line(&plugin.id)).bold(),
        one_line(&plugin.version),
        one_line(&plugin.role),
        plugin.digest
    ))?;
    for loaded in &told.loaded {
        output.line(format_args!("\n{}", could(loaded)))?;
    }
    if told.loaded.is_empty() {
        output.line("\ncould do: how it was loaded is not on this record")?;
    }
    list("refused", &told.refused, output)?;
    let did = &told.did;
    let mut head = format!(
        "\ndid: runs {}, instances {}, {} inside it",
        count(did.runs),
        count(did.instances),
        seconds(did.guest_seconds)
    );
    if did.served_rows > 0 {
        head.push_str(&format!(", {} rows served", count(did.served_rows)));
    }
    if did.compute_seconds > 0.0 {
        head.push_str(&format!(", {} of computing", seconds(did.compute_seconds)));
    }
    head.push_str(&format!(", {} at most", bytes(did.peak_memory_bytes)));
    if did.recordings > 0 {
        head.push_str(&format!(", recordings {}", count(did.recordings)));
    }
    output.line(head)?;
    list("calls into the host", &did.calls_in_words(), output)?;
    let effects: BTreeMap<String, u64> = did
        .effects
        .iter()
        .map(|(what, outside)| {
            let bytes = format!(
                "{what} ({} out, {} in)",
                bytes(outside.bytes_out),
                bytes(outside.bytes_in)
            );
            (bytes, outside.times)
        })
        .collect();
    list("outside of the sandbox", &effects, output)?;
    list("denied", &did.denied, output)?;
    list("decided", &did.decided, output)?;
    list("ended otherwise than well", &did.ended, output)?;
    for reason in did.deviated.iter().take(MAX_LINES) {
        output.line(format_args!("  deviated: {}", sentence(reason, 512)))?;
    }
    output.line("\nallowed by")?;
    let allowed = |entry: &&Entry| told.allowed_by.binary_search(&entry.sequence).is_ok();
    let left = told.allowed_by.len().saturating_sub(MAX_LINES);
    if left > 0 {
        output.line(format_args!(
            "  … {} before these; `sandcast audit who {}` has all",
            count(left as u64),
            plugin.digest.short()
        ))?;
    }
    for entry in entries.iter().filter(allowed).skip(left) {
        output.line(format_args!(
            "  {:>6}  {}  {}",
            entry.sequence,
            one_line(&shown_time(&entry.time)),
            one_line(&describe(&entry.event))
        ))?;
    }
    Ok(())
}

/// What a component could do as it was loaded.
fn could(loaded: &Loaded) -> String {
    let times = match loaded.times {
        1 => one_line(&shown_time(&loaded.first)).into_owned(),
        times => format!(
            "{} times, {} to {}",
            count(times),
            one_line(&shown_time(&loaded.first)),
            one_line(&shown_time(&loaded.last))
        ),
    };
    let mut text = format!("could do, as `{}`, loaded {times}", one_line(&loaded.name));
    let mut table = Table::indented(2);
    match serde_json::from_value::<Grants>(loaded.grants.clone()) {
        Ok(grants) => {
            for capability in Capability::ALL {
                let words = grants.in_words(capability, |path| path.display().to_string());
                if let Some(words) = words {
                    table.row([capability.as_str().to_owned(), sentence(&words, 1024)]);
                }
            }
        }
        // Of a version that knew other grants.
        Err(_) => table.row([
            "grants".to_owned(),
            sentence(&loaded.grants.to_string(), 1024),
        ]),
    }
    table.row([
        "imports".to_owned(),
        sentence(&loaded.imports.join(", "), 2048),
    ]);
    let signers = match &loaded.signers[..] {
        [] => "nobody who was asked for".to_owned(),
        signers => sentence(&signers.join(", "), 512),
    };
    table.row(["signed by".to_owned(), signers]);
    if let Some(ceiling) = &loaded.ceiling {
        table.row([
            "under".to_owned(),
            format!("the ceiling {}", ceiling.short()),
        ]);
    }
    text.push_str(&format!("\n{table}"));
    text
}

fn list(heading: &str, items: &BTreeMap<String, u64>, output: &Output) -> Result<(), Failure> {
    if items.is_empty() {
        return Ok(());
    }
    let mut most: Vec<(&String, &u64)> = items.iter().collect();
    most.sort_by(|one, other| other.1.cmp(one.1).then(one.0.cmp(other.0)));
    let mut table = Table::indented(4).numbers_at(&[0]);
    for (what, times) in most.iter().take(MAX_LINES) {
        table.row([count(**times), sentence(what, 512)]);
    }
    output.line(format_args!("  {heading}\n{table}"))?;
    if most.len() > MAX_LINES {
        output.line(format_args!(
            "    … {} more; --json has all",
            count((most.len() - MAX_LINES) as u64)
        ))?;
    }
    Ok(())
}
