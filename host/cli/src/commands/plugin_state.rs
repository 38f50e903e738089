//! `sandcast state`: what plugins keep from one run to the next, by a grant of `state`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::{Args, Subcommand};
use sandcast_access::{Action, Resource};
use sandcast_audit::{AuditLog, Digest, Event};
use sandcast_factory::PLUGIN_STATE_FILE;
use sandcast_sandbox::{
    ByteSize, KeptBucket, KeptError, KeptPair, KeptState, StateGrant, sentence,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    access::{Need, demand_in, must_be_known},
    arguments::GlobalArguments,
    failure::{Exit, Failure},
    output::Output,
    state,
    table::{Table, bytes, count},
};

const EXAMPLES: &str = "\
Examples:
  sandcast state                                       what each plugin keeps, against its quota
  sandcast state show rates                            its keys, with the digests of their values
  sandcast state show rates --values -n 5              the values too
  sandcast state export rates rates.jsonl              all of it, a line of JSON for each key
  sandcast state clear rates --reason \"ticket 4711\"    takes all of it away

A plugin is named as the pipeline calls it, or by its id; --pipeline says in which, where there are
several. What is cleared is gone, and the audit log says who did it and why. A value is base64 where it
is no text.";

/// The longest value that is shown whole in a table.
const VALUE_CHARACTERS: usize = 60;

/// Show, hand over and clear what plugins keep from one run to the next
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StateArguments {
    #[command(subcommand)]
    action: Option<StateAction>,
}

#[derive(Debug, Subcommand)]
enum StateAction {
    /// List what each plugin keeps
    List,
    /// Show the keys of one
    Show {
        #[command(flatten)]
        bucket: BucketArguments,
        /// Show the values too, not only their digests
        #[arg(long)]
        values: bool,
        /// At most so many keys
        #[arg(short = 'n', long, default_value_t = 100, value_name = "KEYS")]
        keys: usize,
    },
    /// Write all that one keeps to a file, a line of JSON for each key
    Export {
        #[command(flatten)]
        bucket: BucketArguments,
        /// The file to make; there must be nothing of that name
        file: PathBuf,
    },
    /// Take away all that one keeps
    Clear {
        #[command(flatten)]
        bucket: BucketArguments,
        /// Why; it stands in the audit log
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

#[derive(Debug, Args)]
struct BucketArguments {
    /// What a pipeline calls the plugin, or the id in its manifest
    plugin: String,
    /// The pipeline
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
}

impl StateArguments {
    pub(crate) fn need(&self, global: &GlobalArguments) -> Option<Need> {
        let action = match self.action {
            None | Some(StateAction::List | StateAction::Show { values: false, .. }) => {
                Action::Inspect
            }
            // What is kept is data.
            Some(StateAction::Show { .. } | StateAction::Export { .. }) => Action::DataRead,
            // It asks itself.
            Some(StateAction::Clear { .. }) => return None,
        };
        super::in_state(global, action, Resource::state())
    }
}

pub(crate) async fn execute(
    arguments: &StateArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let folder = state::nearest(global.state.as_deref())?;
    let path = folder.join(PLUGIN_STATE_FILE);
    match arguments.action.as_ref().unwrap_or(&StateAction::List) {
        StateAction::List => list(&folder, &path, output),
        StateAction::Show {
            bucket,
            values,
            keys,
        } => {
            let (kept, bucket) = find(KeptState::look(&path)?, bucket)?;
            show(&kept, &bucket, *values, *keys, output)
        }
        StateAction::Export { bucket, file } => {
            let (kept, bucket) = find(KeptState::look(&path)?, bucket)?;
            export(&kept, &bucket, file, output)
        }
        StateAction::Clear { bucket, reason } => {
            // Before they are told what is there.
            must_be_known(global, &folder, Action::StateClear).await?;
            let found = find(KeptState::open_to_clear(&path)?, bucket)?;
            clear(found, &folder, reason, global, output).await
        }
    }
}

/// The bucket that is meant.
fn find(
    kept: Option<KeptState>,
    wanted: &BucketArguments,
) -> Result<(KeptState, KeptBucket), Failure> {
    let BucketArguments { plugin, pipeline } = wanted;
    let nothing = || {
        let place = pipeline
            .as_ref()
            .map_or_else(String::new, |it| format!(" in {it}"));
        Failure::rejected_because(
            format_args!("no plugin `{plugin}`{place} keeps anything here"),
            "`sandcast state` lists those that do",
        )
    };
    let kept = kept.ok_or_else(nothing)?;
    let mut found = kept.buckets()?;
    found.retain(|bucket| {
        let is_named = bucket.name == *plugin || bucket.plugin == *plugin;
        is_named && pipeline.as_ref().is_none_or(|it| bucket.pipeline == *it)
    });
    match found.as_slice() {
        [] => Err(nothing()),
        [bucket] => {
            let bucket = bucket.clone();
            Ok((kept, bucket))
        }
        several => {
            let places: Vec<String> = several
                .iter()
                .map(|it| format!("`{}` ({}) in {}", it.name, it.plugin, it.pipeline))
                .collect();
            Err(Failure::rejected_because(
                format_args!(
                    "`{plugin}` is {} plugins: {}",
                    several.len(),
                    places.join(", ")
                ),
                "name the one by what its pipeline calls it, and the pipeline with --pipeline",
            ))
        }
    }
}

/// What one plugin keeps, as `--json` prints it.
#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    bucket: KeptBucket,
    /// What it was granted when it was loaded last, as far as the audit log says.
    quota: Option<StateGrant>,
}

fn list(folder: &Path, path: &Path, output: &Output) -> Result<Exit, Failure> {
    let buckets = match KeptState::look(path)? {
        Some(kept) => kept.buckets()?,
        None => Vec::new(),
    };
    let mut quotas = match buckets.is_empty() {
        true => BTreeMap::new(),
        false => quotas(&folder.join("audit"))?,
    };
    let listed: Vec<Listed> = buckets
        .into_iter()
        .map(|bucket| {
            let key = (
                bucket.pipeline.clone(),
                bucket.name.clone(),
                bucket.plugin.clone(),
            );
            let quota = quotas.remove(&key);
            Listed { bucket, quota }
        })
        .collect();
    if output.wants_json() {
        output.json(&listed)?;
        return Ok(Exit::Done);
    }
    if listed.is_empty() {
        output.note("no plugin keeps anything here; a grant of `state` lets one");
        return Ok(Exit::Done);
    }
    let headings = ["pipeline", "name", "plugin", "keys", "of", "bytes", "of"];
    let mut table = Table::with_headings(headings).numbers_at(&[3, 4, 5, 6]);
    for Listed { bucket, quota } in listed {
        let of =
            |tell: &dyn Fn(&StateGrant) -> String| quota.as_ref().map_or_else(String::new, tell);
        table.row([
            sentence(&bucket.pipeline, 60),
            sentence(&bucket.name, 60),
            bucket.plugin.clone(),
            count(bucket.keys),
            of(&|quota| count(u64::from(quota.keys.get()))),
            bytes(bucket.bytes),
            of(&|quota| size(quota.bytes)),
        ]);
    }
    output.line(table)?;
    Ok(Exit::Done)
}

fn size(size: ByteSize) -> String {
    bytes(size.bytes())
}

/// What plugins were granted of `state` when they were loaded last: by pipeline, name and id.
fn quotas(log: &Path) -> Result<BTreeMap<(String, String, String), StateGrant>, Failure> {
    const WANTED: &[u8] = b"\"plugin-loaded\"";
    let mut found = BTreeMap::new();
    if !log.exists() {
        return Ok(found);
    }
    let mut entries = sandcast_audit::read(log)?;
    let is_wanted = |line: &[u8]| line.windows(WANTED.len()).any(|part| part == WANTED);
    while let Some(entry) = entries.next_wanted(is_wanted)? {
        let Event::PluginLoaded {
            name,
            plugin,
            grants,
            ..
        } = entry.event
        else {
            continue;
        };
        // A grant of an earlier version that this one does not know says nothing.
        let grant = grants.get("state").cloned();
        if let Some(grant) = grant.and_then(|it| serde_json::from_value::<StateGrant>(it).ok()) {
            let pipeline = grant.pipeline.clone().unwrap_or_default();
            found.insert((pipeline, name, plugin.id), grant);
        }
    }
    Ok(found)
}

/// A pair, as `--json` and an export print it.
#[derive(Serialize)]
struct Told {
    key: String,
    version: u64,
    bytes: usize,
    digest: Digest,
    /// The value where it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// The value where it is none, as base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

impl Told {
    fn of(pair: KeptPair, with_value: bool) -> Self {
        let (digest, bytes) = (pair.digest(), pair.value.len());
        let (text, base64) = match (with_value, String::from_utf8(pair.value)) {
            (false, _) => (None, None),
            (true, Ok(text)) => (Some(text), None),
            (true, Err(error)) => (None, Some(STANDARD.encode(error.as_bytes()))),
        };
        Self {
            key: pair.key,
            version: pair.version,
            bytes,
            digest,
            text,
            base64,
        }
    }

    /// The value for a table.
    fn shown(&self) -> String {
        match (&self.text, &self.base64) {
            (Some(text), _) => sentence(text, VALUE_CHARACTERS),
            (None, Some(base64)) => format!("base64 {}", sentence(base64, VALUE_CHARACTERS)),
            (None, None) => self.digest.to_string(),
        }
    }
}

fn show(
    kept: &KeptState,
    bucket: &KeptBucket,
    values: bool,
    most: usize,
    output: &Output,
) -> Result<Exit, Failure> {
    let mut pairs = Vec::new();
    if most > 0 {
        kept.pairs(bucket, |pair| {
            pairs.push(Told::of(pair, values));
            Ok::<_, KeptError>(pairs.len() < most)
        })?;
    }
    if output.wants_json() {
        let mut told = serde_json::to_value(bucket).unwrap_or_default();
        if let Value::Object(told) = &mut told {
            told.insert("pairs".to_owned(), json!(pairs));
        }
        output.json(&told)?;
        return Ok(Exit::Done);
    }
    output.line(format_args!(
        "{} as `{}` in {}: {} keys, {}",
        bucket.plugin,
        sentence(&bucket.name, 60),
        sentence(&bucket.pipeline, 60),
        count(bucket.keys),
        bytes(bucket.bytes)
    ))?;
    let value = if values { "value" } else { "digest" };
    let mut table = Table::with_headings(["key", "change", "bytes", value]).numbers_at(&[1, 2]);
    let shown = pairs.len();
    for pair in pairs {
        table.row([
            sentence(&pair.key, VALUE_CHARACTERS),
            count(pair.version),
            count(pair.bytes as u64),
            pair.shown(),
        ]);
    }
    if shown > 0 {
        output.line(table)?;
    }
    if (shown as u64) < bucket.keys {
        output.note(format_args!(
            "{} keys more; -n says how many are shown",
            count(bucket.keys - shown as u64)
        ));
    }
    Ok(Exit::Done)
}

fn export(
    kept: &KeptState,
    bucket: &KeptBucket,
    path: &Path,
    output: &Output,
) -> Result<Exit, Failure> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let file = options.open(path).map_err(|error| {
        Failure::rejected_because(
            format_args!("cannot make {}: {error}", path.display()),
            "give the name of a file that is not there yet, in a folder that is",
        )
    })?;
    let mut file = BufWriter::new(file);
    let mut keys = 0_u64;
    let written = kept
        .pairs(bucket, |pair| {
            serde_json::to_writer(&mut file, &Told::of(pair, true))?;
            file.write_all(b"\n")?;
            keys += 1;
            Ok::<_, Failure>(true)
        })
        .and_then(|()| Ok(file.flush()?));
    if let Err(error) = written {
        // Half of it would be taken for all.
        let _ = fs::remove_file(path);
        return Err(error);
    }
    if output.wants_json() {
        output.json(&json!({ "file": path, "keys": keys }))?;
    } else {
        output.line(format_args!(
            "{} keys are in {}",
            count(keys),
            path.display()
        ))?;
    }
    Ok(Exit::Done)
}

async fn clear(
    (mut kept, bucket): (KeptState, KeptBucket),
    folder: &Path,
    reason: &str,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    if reason.trim().is_empty() {
        return Err(Failure::rejected_because(
            "clearing what a plugin keeps needs a reason",
            "say why with --reason; it stands in the audit log",
        ));
    }
    let audit = AuditLog::open(&folder.join("audit"))?;
    let resource = Resource::plugin(&bucket.plugin);
    let action = Action::StateClear;
    let allowed = demand_in(global, folder, audit.clone(), action, &resource, None).await?;
    let by = allowed.who().to_owned();
    let cleared = kept.clear(&bucket, |found| {
        audit.append(Event::StateCleared {
            pipeline: found.pipeline.clone(),
            name: found.name.clone(),
            plugin: found.plugin.clone(),
            keys: found.keys,
            bytes: found.bytes,
            by,
            reason: sentence(reason.trim(), 1024),
        })?;
        Ok(())
    })?;
    if output.wants_json() {
        output.json(&json!({ "cleared": cleared }))?;
    } else {
        output.line(format_args!(
            "{} as `{}` in {} keeps nothing any more; it was {} keys, {}",
            cleared.plugin,
            sentence(&cleared.name, 60),
            sentence(&cleared.pipeline, 60),
            count(cleared.keys),
            bytes(cleared.bytes)
        ))?;
    }
    Ok(Exit::Done)
}
