//! `sandcast audit text`: what entries name by a digest, such as the policies that were in force.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args;
use sandcast_audit::Digest;
use serde::Serialize;
use serde_json::Value;

use super::origin::OriginArguments;
use crate::{
    arguments::GlobalArguments,
    failure::{Exit, Failure, OrReject as _},
    output::Output,
    table::{Table, bytes, count},
    terminal,
};

#[derive(Debug, Args)]
pub(super) struct TextArguments {
    /// The beginning of its digest, as entries name it [default: list them]
    #[arg(value_name = "DIGEST")]
    digest: Option<String>,
    #[command(flatten)]
    origin: OriginArguments,
}

impl TextArguments {
    /// Whether what is read is not the log of the state.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.origin.is_elsewhere()
    }
}

/// A text that entries name.
#[derive(Debug, Clone, Serialize)]
struct Named {
    /// What it is, such as `policies`.
    kind: &'static str,
    digest: Digest,
    /// The first entry that names it.
    first: u64,
    /// The last.
    last: u64,
    /// How many do.
    entries: u64,
    /// Its length, where it is there.
    bytes: Option<u64>,
}

pub(super) fn execute(
    arguments: &TextArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let folder = arguments.origin.folder(global, output)?;
    let named = named(&folder)?;
    match &arguments.digest {
        None => list(&named, &folder, arguments, output),
        Some(digest) => show(&named, &folder, digest, output),
    }
}

/// The texts that the entries of a log name, in the order in which they came up.
fn named(folder: &Path) -> Result<Vec<Named>, Failure> {
    let mut found: BTreeMap<(&'static str, Digest), Named> = BTreeMap::new();
    for entry in sandcast_audit::read(folder).or_reject()? {
        let entry = entry.or_reject()?;
        for (kind, digest) in entry.event.texts() {
            let first = entry.sequence;
            let named = found.entry((kind, digest)).or_insert_with(|| Named {
                kind,
                digest,
                first,
                last: first,
                entries: 0,
                bytes: None,
            });
            named.last = first;
            named.entries += 1;
        }
    }
    let mut named: Vec<Named> = found.into_values().collect();
    named.sort_by_key(|it| it.first);
    Ok(named)
}

/// The text of a digest, held against it.
fn text_of(folder: &Path, digest: &Digest) -> Result<Option<Vec<u8>>, Failure> {
    sandcast_audit::text_of(folder, digest).map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => Failure::rejected_because(
            format_args!(
                "the text {} was changed: it is not what entries of the log name by this digest",
                digest.short()
            ),
            format_args!("keep {} as evidence", folder.display()),
        ),
        _ => Failure::from(error),
    })
}

fn list(
    named: &[Named],
    folder: &Path,
    arguments: &TextArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let mut named = named.to_vec();
    for it in &mut named {
        it.bytes = text_of(folder, &it.digest)?.map(|text| text.len() as u64);
    }
    if output.wants_json() {
        output.json(&named)?;
        return Ok(Exit::Done);
    }
    let mut table = Table::with_headings(["text", "digest", "entries", "named by", "size"]);
    for it in &named {
        let range = match it.first == it.last {
            true => count(it.first),
            false => format!("{} to {}", count(it.first), count(it.last)),
        };
        let size = it.bytes.map_or_else(|| "not here".to_owned(), bytes);
        table.row([
            it.kind.to_owned(),
            it.digest.short(),
            range,
            count(it.entries),
            size,
        ]);
    }
    output.line(table)?;
    if named.iter().any(|it| it.bytes.is_none()) {
        output.note(
            "those that are not here were named before texts were kept, or were left out by whoever handed \
             this over",
        );
    }
    if !arguments.is_elsewhere() {
        output.note("`sandcast audit text DIGEST` prints one");
    }
    Ok(Exit::Done)
}

fn show(named: &[Named], folder: &Path, wanted: &str, output: &Output) -> Result<Exit, Failure> {
    let listed = "`sandcast audit text` lists them";
    let mut found: Vec<&Named> = named
        .iter()
        .filter(|it| it.digest.to_string().starts_with(wanted))
        .collect();
    found.dedup_by_key(|it| it.digest);
    let found = match found[..] {
        [one] => one,
        [] => {
            return Err(Failure::rejected_because(
                format_args!(
                    "no entry names a text by the digest {}",
                    terminal::one_line(wanted)
                ),
                listed,
            ));
        }
        _ => {
            return Err(Failure::rejected_because(
                format_args!("{} texts begin with {wanted}", found.len()),
                listed,
            ));
        }
    };
    let Some(text) = text_of(folder, &found.digest)? else {
        return Err(Failure::rejected_because(
            format_args!("the text {} is not here", found.digest.short()),
            "it was named before texts were kept, or whoever handed this over left it out",
        ));
    };
    // Most are JSON, on one line as their digest is of it.
    let value: Option<Value> = serde_json::from_slice(&text).ok();
    let text = String::from_utf8_lossy(&text);
    if output.wants_json() {
        let mut told = serde_json::to_value(found)?;
        told["text"] = value.unwrap_or_else(|| text.into());
        output.json(&told)?;
        return Ok(Exit::Done);
    }
    let shown = match &value {
        Some(value) => serde_json::to_string_pretty(value)?,
        None => text.into_owned(),
    };
    for line in shown.lines() {
        output.line(terminal::one_line(line))?;
    }
    Ok(Exit::Done)
}
