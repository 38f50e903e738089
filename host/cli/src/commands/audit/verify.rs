//! `sandcast audit verify`: whether a log, an export or a proof is what it says.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use console::style;
use sandcast_audit::{
    Digest, Event, Proof, Proven, SignedCheckpoint, Trust, VerifierKey, VerifyError, VerifyReport,
};
use sandcast_factory::{HeldModels, RegistryError, hold_models};
use sandcast_sandbox::{Recording, Recordings};

use crate::{
    arguments::GlobalArguments,
    failure::{Exit, Failure, OrReject as _},
    output::Output,
    state,
    table::count,
    terminal,
};

#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
    /// An export, or a folder with a log [default: the log of the state]
    #[arg(value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// A public key that you have from the operator, not from the folder; the keys that it gave way
    /// to follow from it. May be given several times [default: the key of the state]
    #[arg(long, value_name = "KEY")]
    key: Vec<VerifierKey>,
    /// A checkpoint that you kept: the log must still contain it. May be given several times
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// Check this proof, of `sandcast audit prove`, and nothing else
    #[arg(long, value_name = "FILE", conflicts_with_all = ["folder", "contains", "checkpoint"])]
    proof: Option<PathBuf>,
    /// A head printed by an earlier `verify`, as `sequence:digest`: the log must still contain it
    #[arg(long, value_name = "HEAD")]
    contains: Option<String>,
}

impl VerifyArguments {
    /// Whether what is checked is not the log of the state.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.folder.is_some() || self.proof.is_some()
    }
}

/// Where the keys come from that a log is held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Source {
    /// Somebody gave them.
    Given,
    /// The private key beside the log.
    State,
    /// The log itself.
    Log,
}

pub(super) fn execute(
    arguments: &VerifyArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    if let Some(path) = &arguments.proof {
        return proof(path, &arguments.key, output);
    }
    let folder = match &arguments.folder {
        // A state folder is as good as the log in it.
        Some(folder) if folder.join("audit/log.jsonl").is_file() => folder.join("audit"),
        Some(folder) => folder.clone(),
        None => state::nearest(global.state.as_deref())?.join("audit"),
    };
    // A key that lies beside a folder which was handed over says no more than the log in it.
    let own_key = is_own(&folder, global).then(|| sandcast_audit::local_key(&folder));
    let (keys, source) = match own_key.flatten() {
        _ if !arguments.key.is_empty() => (arguments.key.clone(), Source::Given),
        Some(key) => (vec![key], Source::State),
        None => (Vec::new(), Source::Log),
    };
    let checkpoints = arguments.checkpoint.iter().map(|path| kept(path));
    let trust = Trust {
        keys,
        checkpoints: checkpoints.collect::<Result<_, _>>()?,
    };
    let report = sandcast_audit::verify_with(&folder, &trust).map_err(|error| match &error {
        // A disk that fails says nothing about the log.
        VerifyError::Read { source, .. } if source.kind() != io::ErrorKind::NotFound => {
            Failure::from(error)
        }
        _ => Failure::from(error).into_rejection(),
    })?;
    if let Some(head) = &arguments.contains {
        require_entry(&folder, head, report.present.0)?;
    }
    let own_state = is_own(&folder, global).then(|| state_of(&folder));
    let models = match own_state.flatten() {
        Some(state) => held_models(&state, output)?,
        None => None,
    };
    let kept = folder.join("recordings");
    let recordings = match kept.is_dir() {
        true => Some(held_recordings(&folder, &Recordings::at(kept))?),
        false => None,
    };
    if output.wants_json() {
        let mut value = serde_json::to_value(&report)?;
        if let Some(recordings) = &recordings {
            value["recordings"] = serde_json::to_value(recordings)?;
        }
        if let Some(models) = &models {
            value["models"] = serde_json::to_value(models)?;
        }
        value["whole"] = true.into();
        value["head"] = format!("{}:{}", report.entries, report.head).into();
        value["key_from"] = serde_json::to_value(source)?;
        value["unsigned"] = (report.entries - report.signed).into();
        output.json(&value)?;
        return Ok(Exit::Done);
    }
    tell(&report, source, output)?;
    if let Some(HeldModels {
        versions, aliases, ..
    }) = &models
    {
        output.line(format_args!(
            "models: {} versions and {} aliases, each as the log has it",
            count(*versions),
            count(*aliases)
        ))?;
    }
    if report.texts + report.texts_missing > 0 {
        output.line(format_args!(
            "texts: {} of {} that entries name, each under its digest",
            count(report.texts),
            count(report.texts + report.texts_missing)
        ))?;
    }
    if let Some(recordings) = &recordings {
        recordings.tell(output)?;
    }
    Ok(Exit::Done)
}

/// Whether a folder is the log of the state that this command works in.
fn is_own(folder: &Path, global: &GlobalArguments) -> bool {
    let own = state::nearest(global.state.as_deref());
    let own = own
        .ok()
        .and_then(|own| own.join("audit").canonicalize().ok());
    own.is_some() && own == folder.canonicalize().ok()
}

/// The state whose log is in a folder, if anything was ever run in it.
fn state_of(log: &Path) -> Option<PathBuf> {
    let log = log.canonicalize().ok()?;
    let state = log.parent()?;
    state.join(STATE_FILE).is_file().then(|| state.to_owned())
}

/// The file in a state folder that says which models there are and what their aliases mean.
const STATE_FILE: &str = "state.sqlite";

/// Holds what the state says of models against its log: nobody signs the state.
fn held_models(state: &Path, output: &Output) -> Result<Option<HeldModels>, Failure> {
    let held = hold_models(state).map_err(|error| match error {
        RegistryError::State(_) | RegistryError::Log(_) => Failure::from(error),
        _ => Failure::from(error).into_rejection(),
    })?;
    let Some(held) = held else {
        output.warn(format_args!(
            "{STATE_FILE} is of an earlier version and was not held against the log; the next command \
             that opens the state brings it up to date"
        ));
        return Ok(None);
    };
    let Some(first) = held.disagreements.first() else {
        return Ok(Some(held));
    };
    let more = match held.disagreements.len() {
        1 => String::new(),
        many => format!(" ({many} such disagreements)"),
    };
    Err(Failure::rejected_because(
        format_args!(
            "the log is whole, and {STATE_FILE} says something else: {}{more}",
            terminal::one_line(&first.to_string())
        ),
        "`sandcast audit show --event alias-moved` and `--event registered` show what the log says",
    ))
}

/// Somebody else's log is read no further than it is signed: what comes after the last checkpoint may be
/// anybody's, since it takes no key to write it.
pub(crate) fn require_signed(report: &VerifyReport) -> Result<(), Failure> {
    if report.signed >= report.entries {
        return Ok(());
    }
    Err(Failure::rejected_because(
        format_args!(
            "entries {} to {} are signed by nobody, so anybody may have written them",
            count(report.signed + 1),
            count(report.entries)
        ),
        "ask for an export, which ends with a signature: `sandcast audit export FOLDER`",
    ))
}

/// What came with an export to be replayed, held against the log.
#[derive(Debug, Default, serde::Serialize)]
struct Held {
    /// Recordings that are as they were written.
    recordings: u64,
    /// Files of these, and of what they refer to.
    files: u64,
    bytes: u64,
    /// Entries whose recording is not here: taken away before the export, or from it.
    missing: Vec<u64>,
}

/// Holds each recording, and all that it refers to, against the digests that the log and it name.
fn held_recordings(log: &Path, recordings: &Recordings) -> Result<Held, Failure> {
    let mut held = Held::default();
    let mut files: BTreeSet<Digest> = BTreeSet::new();
    let mut known: BTreeSet<Digest> = BTreeSet::new();
    for entry in sandcast_audit::read(log).or_reject()? {
        let entry = entry.or_reject()?;
        let Event::Recorded { recording, .. } = entry.event else {
            continue;
        };
        if !recordings.has(&recording) {
            held.missing.push(entry.sequence);
            continue;
        }
        if !known.insert(recording) {
            continue;
        }
        held.recordings += 1;
        let parts = Recording::read(recordings, &recording).or_reject()?.parts();
        for file in parts.into_iter().chain([recording]) {
            if files.insert(file) {
                held.bytes += recordings.get(&file).or_reject()?.len() as u64;
                held.files += 1;
            }
        }
    }
    Ok(held)
}

impl Held {
    fn tell(&self, output: &Output) -> Result<(), Failure> {
        output.line(format_args!(
            "recordings: {}, in {} files of {}, each as the log has it",
            count(self.recordings),
            count(self.files),
            crate::table::bytes(self.bytes)
        ))?;
        if !self.missing.is_empty() {
            output.warn(format_args!(
                "the recordings of {} entries are not here, so what they were of cannot be replayed: {:?}; \
                 `sandcast audit show --event recordings-removed` says whether the operator took them away",
                count(self.missing.len() as u64),
                &self.missing[..self.missing.len().min(MAX_MISSING)]
            ));
        }
        Ok(())
    }
}

/// Numbers of entries that are told.
const MAX_MISSING: usize = 20;

fn tell(report: &VerifyReport, source: Source, output: &Output) -> Result<(), Failure> {
    let mark = style("whole").green().bold();
    let (first, last) = report.present;
    if (first, last) == (1, report.entries) || report.entries == 0 {
        output.line(format_args!(
            "{mark}: {} entries, each chained to the one before",
            count(report.entries)
        ))?;
    } else {
        output.line(format_args!(
            "{mark}: entries {} to {} of {}, as the tree of all has them",
            count(first),
            count(last),
            count(report.entries)
        ))?;
    }
    if let (Some(first), Some(last)) = (&report.first_time, &report.last_time) {
        let (first, last) = (terminal::one_line(first), terminal::one_line(last));
        output.line(format_args!("from   {first}\nto     {last}"))?;
    }
    output.line(format_args!("head   {}:{}", report.entries, report.head))?;
    if let Some(key) = &report.key {
        output.line(format_args!("root   {}:{}", report.entries, report.root))?;
        output.line(format_args!(
            "signed {} entries; checkpoints: {}",
            count(report.signed),
            count(report.checkpoints)
        ))?;
        output.line(format_args!("key    {key}"))?;
    }
    warn(report, source, output);
    Ok(())
}

/// What is no fault, and still something to know.
fn warn(report: &VerifyReport, source: Source, output: &Output) {
    if report.key.is_none() {
        output.warn("this log is not signed: it shows damage, not a forger who rewrote it whole; the next run signs it");
    } else if source == Source::Log {
        output.warn(
            "the key is the one that the log itself names: whoever wrote the log anew could name theirs; \
             get the key from the operator and give it with --key",
        );
    }
    let unsigned = report.entries - report.signed;
    if report.key.is_some() && unsigned > 0 {
        output.warn(format_args!(
            "the last {} entries are not signed yet; `sandcast audit checkpoint` signs them",
            count(unsigned)
        ));
    }
    if !report.replacements.is_empty() {
        output.warn(format_args!(
            "the key was REPLACED without a signature of the one before, at the entries {:?}; ask the \
             operator whether that is so: `sandcast audit show --event key-replaced` says why",
            report.replacements
        ));
    }
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
}

/// A checkpoint that somebody kept in a file.
pub(super) fn kept(path: &Path) -> Result<SignedCheckpoint, Failure> {
    let text = fs::read_to_string(path).map_err(|error| cannot_read(path, &error))?;
    SignedCheckpoint::parse(&text).map_err(|fault| {
        Failure::rejected_because(
            format_args!("{} is not a checkpoint: {fault}", path.display()),
            "it is what `sandcast audit checkpoint` prints, and the file `checkpoint` of an export",
        )
    })
}

fn proof(path: &Path, keys: &[VerifierKey], output: &Output) -> Result<Exit, Failure> {
    if keys.is_empty() {
        return Err(Failure::rejected_because(
            "a proof shows nothing without a key to hold it to",
            "give the key that you have from the operator with --key",
        ));
    }
    let text = fs::read(path).map_err(|error| cannot_read(path, &error))?;
    let proof: Proof = serde_json::from_slice(&text).map_err(|error| {
        Failure::rejected_because(
            format_args!("{} is not a proof: {error}", path.display()),
            "`sandcast audit prove` prints one",
        )
    })?;
    let proven = sandcast_audit::verify_proof(&proof, keys).or_reject()?;
    if output.wants_json() {
        output.json(&proven)?;
        return Ok(Exit::Done);
    }
    let mark = style("proven").green().bold();
    match proven {
        Proven::Inclusion {
            origin,
            sequence,
            entry,
            size,
            key,
        } => output.line(format_args!(
            "{mark}: this is entry {sequence} of the {} of {origin}\n{entry}\nkey    {key}",
            count(size)
        ))?,
        Proven::Consistency {
            origin,
            old_size,
            size,
            key,
        } => output.line(format_args!(
            "{mark}: the first {} of the {} entries of {origin} are those of the older checkpoint\n\
             key    {key}",
            count(old_size),
            count(size)
        ))?,
    }
    Ok(Exit::Done)
}

fn cannot_read(path: &Path, error: &io::Error) -> Failure {
    Failure::rejected_because(
        format_args!("cannot read {}: {error}", path.display()),
        "name a file that is there",
    )
}

fn require_entry(folder: &Path, head: &str, first: u64) -> Result<(), Failure> {
    let malformed = || {
        Failure::rejected_because(
            format_args!("`{head}` is not a head"),
            "one is a sequence number, a colon and 64 hexadecimal characters, as `verify` prints it",
        )
    };
    let (sequence, digest) = head.split_once(':').ok_or_else(malformed)?;
    let sequence: u64 = sequence.parse().map_err(|_| malformed())?;
    if sequence < first {
        return Err(Failure::rejected_because(
            format_args!("entry {sequence} is not here; the first that is, is entry {first}"),
            "verify the archive or an export that has it; a checkpoint of that size, given with \
             --checkpoint, is held against this log all the same",
        ));
    }
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
