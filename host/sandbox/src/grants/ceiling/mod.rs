//! The operator's ceiling: what a pipeline may grant at most, in a file that is not the pipeline's.
//!
//! A pipeline's grants narrow it. Every part of every grant is held against it here, and a part that
//! is new does not compile until somebody says what its ceiling is.

mod blob;
mod compute;
mod files;
mod http;
mod limits;
mod log;
mod sql;
mod state;

use std::collections::BTreeMap;
use std::fmt;

use sandcast_audit::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ByteSize, Grants, Isolation, RandomGrant};
use crate::manifest::Role;

/// What pipelines may grant at most, by plugin.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ceiling {
    /// The version of the file's layout: 1.
    pub version: CeilingVersion,
    /// By the id in a plugin's manifest, such as `sandcast/connector-csv`, or `sandcast/*` for every
    /// one that begins so; the longest that fits counts. A plugin that none fits gets what every
    /// plugin gets: its log, its configuration and the default limits.
    pub plugins: BTreeMap<String, Grants>,
}

/// The version of the layout of a [`Ceiling`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "u32", into = "u32")]
#[schemars(with = "u32", extend("const" = 1))]
pub struct CeilingVersion;

impl TryFrom<u32> for CeilingVersion {
    type Error = String;

    fn try_from(version: u32) -> Result<Self, String> {
        match version {
            1 => Ok(Self),
            other => Err(format!("version {other} is not known; this host reads 1")),
        }
    }
}

impl From<CeilingVersion> for u32 {
    fn from(CeilingVersion: CeilingVersion) -> Self {
        1
    }
}

/// A part of a grant that is over the ceiling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Excess {
    /// Where it stands below `grants`, such as `http[0].methods`.
    pub key: String,
    /// What is asked for.
    pub asked: String,
    /// What there may be at most.
    pub most: String,
}

/// The key that a ceiling demands instead of bounding it.
const DEMANDED: &str = "recording";

impl fmt::Display for Excess {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, asked, most } = self;
        if key == DEMANDED {
            return write!(formatter, "`{key}` is demanded, and is not there");
        }
        write!(formatter, "`{key}` is {asked}, and may be at most {most}")
    }
}

impl Ceiling {
    /// What a plugin may be granted at most, by its id.
    pub fn of(&self, id: &str) -> Grants {
        let fits = |pattern: &str| match pattern.strip_suffix('*') {
            None => pattern == id,
            Some(beginning) => id.starts_with(beginning),
        };
        let longest = self
            .plugins
            .iter()
            .filter(|(pattern, _)| fits(pattern))
            // An id itself is longer than whatever it begins with.
            .max_by_key(|(pattern, _)| (!pattern.ends_with('*'), pattern.len()));
        longest.map_or_else(Grants::default, |(_, grants)| grants.clone())
    }

    /// What makes no sense in it: a folder that is not absolute, a request that cannot be granted.
    ///
    /// # Errors
    /// A sentence with the place.
    pub fn check(&self) -> Result<(), String> {
        for (pattern, grants) in &self.plugins {
            for (index, file) in grants.files.iter().enumerate() {
                files::check(&format!("plugins.{pattern}.files[{index}]"), file)?;
            }
            for (index, request) in grants.http.iter().enumerate() {
                super::http::check_target(request)
                    .map_err(|what| format!("plugins.{pattern}.http[{index}]: {what}"))?;
            }
            if let Some(state) = &grants.state {
                super::state::check(state)
                    .map_err(|what| format!("plugins.{pattern}.state: {what}"))?;
            }
            for (index, question) in grants.sql.iter().enumerate() {
                sql::check(&format!("plugins.{pattern}.sql[{index}]"), question)?;
            }
            for (index, objects) in grants.blob.iter().enumerate() {
                blob::check(&format!("plugins.{pattern}.blob[{index}]"), objects)?;
            }
        }
        Ok(())
    }

    /// Its JSON form, in which keys have one order.
    pub fn text(&self) -> Vec<u8> {
        // Every part of it is text, numbers and lists.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The digest of that, for records.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.text())
    }

    /// Every part of a plugin's grants that is over its ceiling, or that it demands and is not there.
    pub fn excesses(&self, id: &str, role: Role, grants: &Grants) -> Vec<Excess> {
        let mut found = Vec::new();
        let most = self.of(id);
        compare(grants, &most, &mut Found(&mut found));
        // An operator who wants a plugin recorded does not leave it to the pipeline. Connectors cannot
        // be; what they read is kept by its digest.
        if most.recording.is_some() && grants.recording.is_none() && role != Role::Connector {
            Found(&mut found).add(DEMANDED, "nothing", "everything");
        }
        // The same for the process; connectors have none yet.
        if most.isolation == Isolation::Process
            && grants.isolation != Isolation::Process
            && role != Role::Connector
        {
            Found(&mut found).add("isolation", "engine", "process");
        }
        found
    }
}

impl Grants {
    /// Every part of these grants that is wider than others, as a ceiling would say it. What is the
    /// same in both is not wider, whether a folder is there or not.
    pub fn wider_than(&self, most: &Grants) -> Vec<Excess> {
        let mut asked = self.clone();
        asked.files.retain(|file| !most.files.contains(file));
        asked.http.retain(|request| !most.http.contains(request));
        asked.blob.retain(|objects| !most.blob.contains(objects));
        let mut found = Vec::new();
        compare(&asked, most, &mut Found(&mut found));
        found
    }
}

struct Found<'a>(&'a mut Vec<Excess>);

impl Found<'_> {
    fn add(&mut self, key: impl Into<String>, asked: impl fmt::Display, most: impl fmt::Display) {
        self.0.push(Excess {
            key: key.into(),
            asked: asked.to_string(),
            most: most.to_string(),
        });
    }

    /// Grants of which each must be covered by one of the ceiling.
    fn each<T>(
        &mut self,
        key: &str,
        asked: &[T],
        most: &[T],
        covers: impl Fn(&T, &T) -> bool,
        in_words: impl Fn(&T) -> String,
    ) {
        for (index, grant) in asked.iter().enumerate() {
            if !most.iter().any(|most| covers(most, grant)) {
                let texts = most.iter().map(&in_words).collect();
                self.add(format!("{key}[{index}]"), in_words(grant), any_of(texts));
            }
        }
    }

    /// A grant that is there or not, and is compared where it is in both.
    fn granted<T>(
        &mut self,
        key: &str,
        asked: &Option<T>,
        most: &Option<T>,
        compare: impl FnOnce(&T, &T, &mut Self),
    ) {
        match (asked, most) {
            (Some(_), None) => self.add(key, "granted", "nothing"),
            (Some(asked), Some(most)) => compare(asked, most, self),
            (None, _) => {}
        }
    }

    fn at_most<T: PartialOrd + fmt::Display>(&mut self, key: &str, asked: T, most: T) {
        if asked > most {
            self.add(key, asked, most);
        }
    }
}

fn compare(asked: &Grants, most: &Grants, found: &mut Found<'_>) {
    let Grants {
        files,
        http,
        log,
        clock,
        random,
        compute,
        state,
        sql,
        blob,
        limits,
        recording,
        // A process of its own is more than what any ceiling allows less of.
        isolation: _,
    } = asked;
    found.each("files", files, &most.files, files::covers, files::in_words);
    found.each("http", http, &most.http, http::covers, http::in_words);
    log::compare(log, &most.log, found);
    if *clock && !most.clock {
        found.add("clock", true, false);
    }
    found.granted("random", random, &most.random, |asked, most, found| {
        let RandomGrant { seed } = asked;
        if seed.is_none() && most.seed.is_some() {
            found.add("random.seed", "the system's", "a seed");
        }
    });
    found.granted("compute", compute, &most.compute, compute::compare);
    found.granted("state", state, &most.state, state::compare);
    found.each("sql", sql, &most.sql, sql::covers, sql::in_words);
    found.each("blob", blob, &most.blob, blob::covers, blob::in_words);
    limits::compare(limits, &most.limits, found);
    if let (Some(asked), Some(most)) = (recording, &most.recording) {
        found.at_most::<ByteSize>("recording.bytes", asked.bytes, most.bytes);
    }
}

/// What is said of a name that a ceiling gives no meaning.
fn leads_nowhere(at: &str) -> String {
    format!("{at}: it has no `to`, and names mean what each pipeline wants; say where it may lead")
}

fn any_of(texts: Vec<String>) -> String {
    if texts.is_empty() {
        "nothing".to_owned()
    } else {
        texts.join(" or ")
    }
}

#[cfg(test)]
mod tests;
