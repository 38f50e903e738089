//! The operator's ceiling: what a pipeline may grant at most, in a file that is not the pipeline's.
//!
//! A pipeline's grants narrow it. Every part of every grant is held against it here, and a part that
//! is new does not compile until somebody says what its ceiling is.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use sandcast_audit::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Access, BlobGrant, BlobStore, ByteSize, ComputeGrant, FileGrant, Grants, HttpCredential,
    HttpGrant, Isolation, Limits, LogGrant, PostgresServer, RandomGrant, SqlConnection, SqlGrant,
    StateGrant, StoreUrl, TimeSpan,
};
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
                if !file.host.is_absolute() {
                    let host = file.host.display();
                    return Err(format!(
                        "plugins.{pattern}.files[{index}].host: `{host}` is not absolute"
                    ));
                }
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
                let at = format!("plugins.{pattern}.sql[{index}]");
                super::sql::check(question).map_err(|what| format!("{at}: {what}"))?;
                match &question.to {
                    None => {
                        return Err(format!(
                            "{at}: it has no `to`, and names mean what each pipeline wants; say \
                             where it may lead"
                        ));
                    }
                    Some(SqlConnection::Sqlite(path)) if !path.is_absolute() => {
                        let path = path.display();
                        return Err(format!("{at}.to.sqlite: `{path}` is not absolute"));
                    }
                    Some(_) => {}
                }
            }
            for (index, objects) in grants.blob.iter().enumerate() {
                let at = format!("plugins.{pattern}.blob[{index}]");
                super::blob::check(objects).map_err(|what| format!("{at}: {what}"))?;
                match &objects.to {
                    None => {
                        return Err(format!(
                            "{at}: it has no `to`, and names mean what each pipeline wants; say \
                             where it may lead"
                        ));
                    }
                    Some(BlobStore {
                        url: StoreUrl::Folder(path),
                        ..
                    }) if !path.is_absolute() => {
                        let path = path.display();
                        return Err(format!("{at}.to.url: `{path}` is not absolute"));
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Its digest, for records: of its JSON form, in which keys have one order.
    pub fn digest(&self) -> Digest {
        // Every part of it is text, numbers and lists.
        Digest::of(&serde_json::to_vec(self).unwrap_or_default())
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
    for (index, file) in files.iter().enumerate() {
        if !most.files.iter().any(|most| is_within(file, most)) {
            let folders = most.files.iter().map(folder_text).collect();
            found.add(
                format!("files[{index}]"),
                folder_text(file),
                any_of(folders),
            );
        }
    }
    for (index, request) in http.iter().enumerate() {
        if !most.http.iter().any(|most| covers(most, request)) {
            let hosts = most.http.iter().map(request_text).collect();
            found.add(
                format!("http[{index}]"),
                request_text(request),
                any_of(hosts),
            );
        }
    }
    compare_log(log, &most.log, found);
    if *clock && !most.clock {
        found.add("clock", true, false);
    }
    match (random, &most.random) {
        (Some(_), None) => found.add("random", "granted", "nothing"),
        (Some(RandomGrant { seed: None }), Some(RandomGrant { seed: Some(_) })) => {
            found.add("random.seed", "the system's", "a seed");
        }
        (None, _) | (Some(_), Some(_)) => {}
    }
    match (compute, &most.compute) {
        (Some(_), None) => found.add("compute", "granted", "nothing"),
        (Some(asked), Some(most)) => compare_compute(asked, most, found),
        (None, _) => {}
    }
    match (state, &most.state) {
        (Some(_), None) => found.add("state", "granted", "nothing"),
        (Some(asked), Some(most)) => compare_state(asked, most, found),
        (None, _) => {}
    }
    for (index, question) in sql.iter().enumerate() {
        if !most.sql.iter().any(|most| answers(most, question)) {
            let databases = most.sql.iter().map(question_text).collect();
            found.add(
                format!("sql[{index}]"),
                question_text(question),
                any_of(databases),
            );
        }
    }
    for (index, objects) in blob.iter().enumerate() {
        if !most.blob.iter().any(|most| holds(most, objects)) {
            let stores = most.blob.iter().map(objects_text).collect();
            found.add(
                format!("blob[{index}]"),
                objects_text(objects),
                any_of(stores),
            );
        }
    }
    compare_limits(limits, &most.limits, found);
    if let (Some(asked), Some(most)) = (recording, &most.recording) {
        found.at_most::<ByteSize>("recording.bytes", asked.bytes, most.bytes);
    }
}

fn any_of(texts: Vec<String>) -> String {
    if texts.is_empty() {
        "nothing".to_owned()
    } else {
        texts.join(" or ")
    }
}

fn folder_text(grant: &FileGrant) -> String {
    let access = match grant.access {
        Access::Read => "read",
        Access::ReadWrite => "read-write",
    };
    let quota = match grant.access {
        Access::ReadWrite if !grant.quota.is_default() => {
            format!(" ({}, {} entries)", grant.quota.bytes, grant.quota.entries)
        }
        _ => String::new(),
    };
    format!("{} {access}{quota}", grant.host.display())
}

/// Whether a folder lies in another one, links followed, and is no more open than it.
fn is_within(asked: &FileGrant, most: &FileGrant) -> bool {
    let FileGrant {
        host,
        guest: _,
        access,
        quota,
    } = asked;
    // What cannot be followed is not there, and then the grant cannot be given anyway.
    let real = |path: &Path| path.canonicalize().ok();
    let inside = match (real(host), real(&most.host)) {
        (Some(host), Some(most)) => host.starts_with(most),
        _ => false,
    };
    let fills_less = quota.bytes <= most.quota.bytes && quota.entries <= most.quota.entries;
    inside && (*access == Access::Read || most.access == Access::ReadWrite && fills_less)
}

fn request_text(grant: &HttpGrant) -> String {
    let port = grant
        .port
        .map_or_else(String::new, |port| format!(":{port}"));
    let methods: Vec<&str> = grant.methods.iter().map(|method| method.as_str()).collect();
    let credential = match &grant.credential {
        None => String::new(),
        Some(credential) => format!(" with {}", credential.secret),
    };
    format!(
        "{} {}://{}{port}{}{credential}",
        methods.join(","),
        grant.scheme.as_str(),
        grant.host,
        grant.path
    )
}

/// Whether every request that one grant covers is covered by another, with no larger bounds.
fn covers(most: &HttpGrant, asked: &HttpGrant) -> bool {
    let HttpGrant {
        host,
        scheme,
        port,
        methods,
        path,
        networks,
        credential,
        certificate_authority,
        requests,
        at_once,
        request_bytes,
        response_bytes,
        timeout,
    } = asked;
    let is_host = *host == most.host
        || most.host.strip_prefix('*').is_some_and(|above| {
            let name = host.strip_prefix('*').unwrap_or(host);
            name.len() > above.len() && name.ends_with(above)
        });
    let is_port = scheme == &most.scheme
        && port.map_or(scheme.port(), Into::into)
            == most.port.map_or(most.scheme.port(), Into::into);
    let is_below = path
        .strip_prefix(&most.path)
        .is_some_and(|rest| most.path.ends_with('/') || rest.is_empty() || rest.starts_with('/'));
    let is_network = networks
        .iter()
        .all(|network| most.networks.iter().any(|most| most.contains(network)));
    let is_credential = match (credential, &most.credential) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(asked), Some(most)) => {
            let HttpCredential {
                header,
                prefix,
                secret,
            } = asked;
            header.eq_ignore_ascii_case(&most.header)
                && *prefix == most.prefix
                && *secret == most.secret
        }
    };
    is_host
        && is_port
        && methods.iter().all(|method| most.methods.contains(method))
        && is_below
        && is_network
        && is_credential
        // Another authority could speak for the host; only the operator's own may.
        && *certificate_authority == most.certificate_authority
        && requests <= &most.requests
        && at_once <= &most.at_once
        && request_bytes <= &most.request_bytes
        && response_bytes <= &most.response_bytes
        && timeout <= &most.timeout
}

fn compare_state(asked: &StateGrant, most: &StateGrant, found: &mut Found<'_>) {
    let StateGrant {
        access,
        bytes,
        keys,
        value_bytes,
        // Whose state it is is no bound.
        pipeline: _,
    } = asked;
    if *access == Access::ReadWrite && most.access == Access::Read {
        found.add("state.access", "read-write", "read");
    }
    found.at_most::<ByteSize>("state.bytes", *bytes, most.bytes);
    found.at_most("state.keys", *keys, most.keys);
    found.at_most::<ByteSize>("state.value_bytes", *value_bytes, most.value_bytes);
}

fn question_text(grant: &SqlGrant) -> String {
    let leads = grant.to.as_ref().map_or_else(
        || "nowhere".to_owned(),
        |to| to.in_words(&|path| path.display().to_string()),
    );
    let statements = match grant.statements.len() {
        0 => "any statement that reads".to_owned(),
        1 => "1 statement".to_owned(),
        many => format!("{many} statements"),
    };
    format!("{leads}, {statements}")
}

/// Whether every question that one grant allows is allowed by another, with no larger bounds. The
/// name of a connection is the pipeline's; what counts is where it leads.
fn answers(most: &SqlGrant, asked: &SqlGrant) -> bool {
    let SqlGrant {
        connection: _,
        // There is only one.
        access: _,
        statements,
        rows,
        bytes,
        timeout,
        calls,
        to,
    } = asked;
    let is_there = match (to, &most.to) {
        (Some(asked), Some(most)) => leads_there(asked, most),
        _ => false,
    };
    // By their texts: a name is the pipeline's as well.
    let listed = |text: &String| most.statements.values().any(|known| known == text);
    let is_listed =
        most.statements.is_empty() || !statements.is_empty() && statements.values().all(listed);
    is_there
        && is_listed
        && rows <= &most.rows
        && bytes <= &most.bytes
        && timeout <= &most.timeout
        && calls <= &most.calls
}

fn leads_there(asked: &SqlConnection, most: &SqlConnection) -> bool {
    match (asked, most) {
        (SqlConnection::Sqlite(asked), SqlConnection::Sqlite(most)) => {
            let real = |path: &Path| path.canonicalize().ok();
            real(asked).is_some_and(|asked| real(most) == Some(asked))
        }
        (SqlConnection::Postgres(asked), SqlConnection::Postgres(most)) => {
            let PostgresServer {
                host,
                port,
                database,
                user,
                password,
                tls,
                certificate_authority,
                networks,
            } = asked;
            let is_network = networks
                .iter()
                .all(|network| most.networks.iter().any(|most| most.contains(network)));
            *host == most.host
                && *port == most.port
                && *database == most.database
                && *user == most.user
                && *password == most.password
                && (*tls || !most.tls)
                && *certificate_authority == most.certificate_authority
                && is_network
        }
        _ => false,
    }
}

fn objects_text(grant: &BlobGrant) -> String {
    grant.in_words(&|path| path.display().to_string())
}

/// Whether everything that one grant allows is allowed by another, with no larger bounds. The name of a
/// store is the pipeline's; what counts is where it leads.
fn holds(most: &BlobGrant, asked: &BlobGrant) -> bool {
    let BlobGrant {
        store: _,
        prefix,
        access,
        object_bytes,
        read_bytes,
        write_bytes,
        objects,
        entries,
        calls,
        timeout,
        to,
    } = asked;
    let is_there = match (to, &most.to) {
        (Some(asked), Some(most_to)) => lies_there(asked, prefix, most_to, &most.prefix),
        _ => false,
    };
    is_there
        && (*access == Access::Read || most.access == Access::ReadWrite)
        && object_bytes <= &most.object_bytes
        && read_bytes <= &most.read_bytes
        && write_bytes <= &most.write_bytes
        && objects <= &most.objects
        && entries <= &most.entries
        && calls <= &most.calls
        && timeout <= &most.timeout
}

/// Whether the objects below a prefix of a store are below one of another.
fn lies_there(asked: &BlobStore, prefix: &str, most: &BlobStore, most_prefix: &str) -> bool {
    let BlobStore {
        url,
        endpoint,
        region,
        credentials,
        certificate_authority,
        networks,
    } = asked;
    match (url, &most.url) {
        (StoreUrl::Folder(asked), StoreUrl::Folder(most)) => {
            // Below the folder itself no link is followed.
            let real = |path: &Path, prefix: &str| Some(path.canonicalize().ok()?.join(prefix));
            match (real(asked, prefix), real(most, most_prefix)) {
                (Some(asked), Some(most)) => asked.starts_with(most),
                _ => false,
            }
        }
        (
            StoreUrl::Bucket {
                bucket,
                prefix: own,
            },
            StoreUrl::Bucket {
                bucket: most_bucket,
                prefix: most_own,
            },
        ) => {
            let is_network = networks
                .iter()
                .all(|network| most.networks.iter().any(|most| most.contains(network)));
            bucket == most_bucket
                && format!("{own}{prefix}").starts_with(&format!("{most_own}{most_prefix}"))
                && *endpoint == most.endpoint
                && *region == most.region
                && (credentials.is_none() || *credentials == most.credentials)
                && *certificate_authority == most.certificate_authority
                && is_network
        }
        _ => false,
    }
}

fn compare_log(asked: &LogGrant, most: &LogGrant, found: &mut Found<'_>) {
    let LogGrant {
        level,
        bytes_per_second,
        message_bytes,
    } = asked;
    if *level > most.level {
        let name = |level| format!("{level:?}").to_lowercase();
        found.add("log.level", name(*level), name(most.level));
    }
    found.at_most::<ByteSize>(
        "log.bytes_per_second",
        *bytes_per_second,
        most.bytes_per_second,
    );
    found.at_most::<ByteSize>("log.message_bytes", *message_bytes, most.message_bytes);
}

fn compare_compute(asked: &ComputeGrant, most: &ComputeGrant, found: &mut Found<'_>) {
    let ComputeGrant {
        memory,
        time,
        programs,
        handles,
    } = asked;
    found.at_most::<ByteSize>("compute.memory", *memory, most.memory);
    found.at_most::<TimeSpan>("compute.time", *time, most.time);
    found.at_most("compute.programs", *programs, most.programs);
    found.at_most("compute.handles", *handles, most.handles);
}

fn compare_limits(asked: &Limits, most: &Limits, found: &mut Found<'_>) {
    let Limits {
        memory,
        call_timeout,
        total_timeout,
        table_elements,
        instances,
        resources,
        output_rows,
        output_bytes,
        at_once,
    } = asked;
    found.at_most::<ByteSize>("limits.memory", *memory, most.memory);
    found.at_most::<TimeSpan>("limits.call_timeout", *call_timeout, most.call_timeout);
    found.at_most::<TimeSpan>("limits.total_timeout", *total_timeout, most.total_timeout);
    found.at_most(
        "limits.table_elements",
        *table_elements,
        most.table_elements,
    );
    found.at_most("limits.instances", *instances, most.instances);
    found.at_most("limits.resources", *resources, most.resources);
    found.at_most("limits.output_rows", *output_rows, most.output_rows);
    found.at_most::<ByteSize>("limits.output_bytes", *output_bytes, most.output_bytes);
    found.at_most("limits.at_once", *at_once, most.at_once);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn grants(text: Value) -> Grants {
        serde_json::from_value(text).expect("grants")
    }

    fn ceiling(plugins: Value) -> Ceiling {
        serde_json::from_value(json!({ "version": 1, "plugins": plugins })).expect("a ceiling")
    }

    fn keys(ceiling: &Ceiling, asked: Value) -> Vec<String> {
        let excesses = ceiling.excesses("acme/crm", Role::Policy, &grants(asked));
        excesses.into_iter().map(|excess| excess.key).collect()
    }

    #[test]
    fn the_longest_pattern_that_fits_counts() {
        let ceiling = ceiling(json!({
            "*": {},
            "acme/*": { "clock": true },
            "acme/crm": { "clock": true, "random": {} },
            "acme/crm*": { "compute": {} },
        }));
        for (id, clock, random) in [
            ("acme/crm", true, true),
            ("acme/other", true, false),
            ("other/crm", false, false),
        ] {
            let most = ceiling.of(id);
            assert_eq!((most.clock, most.random.is_some()), (clock, random), "{id}");
        }
        assert!(ceiling.of("acme/crm-2").compute.is_some());
        assert_eq!(Ceiling::default().of("acme/crm"), Grants::default());
    }

    #[test]
    fn the_same_grants_are_not_wider_and_wider_ones_are_named() {
        let before = grants(json!({
            "files": [{ "host": "/nowhere/that/is", "guest": "/d" }],
            "http": [{ "host": "example.com" }],
            "clock": true,
        }));
        assert_eq!(before.wider_than(&before), []);
        assert_eq!(Grants::default().wider_than(&before), []);
        let mut after = before.clone();
        after.random = Some(RandomGrant { seed: None });
        after.files[0].access = Access::ReadWrite;
        let wider = after.wider_than(&before);
        let keys: Vec<&str> = wider.iter().map(|excess| excess.key.as_str()).collect();
        assert_eq!(keys, ["files[0]", "random"]);
        let all = before.wider_than(&Grants::default());
        let keys: Vec<&str> = all.iter().map(|excess| excess.key.as_str()).collect();
        assert_eq!(keys, ["files[0]", "http[0]", "clock"]);
    }

    #[test]
    fn a_recording_is_demanded_of_all_but_connectors() {
        let ceiling = ceiling(json!({ "acme/*": { "recording": { "bytes": "1MiB" } } }));
        let small = json!({ "recording": { "bytes": "1MiB" } });
        assert_eq!(keys(&ceiling, json!({})), ["recording"]);
        assert_eq!(
            keys(&ceiling, json!({ "recording": {} })),
            ["recording.bytes"]
        );
        assert_eq!(keys(&ceiling, small), Vec::<String>::new());
        let grants = Grants::default();
        assert_eq!(ceiling.excesses("acme/crm", Role::Connector, &grants), []);
        assert_eq!(ceiling.excesses("other/crm", Role::Policy, &grants), []);
    }

    #[test]
    fn what_is_within_passes_and_what_is_over_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("data/inner")).expect("a folder");
        std::fs::create_dir_all(folder.path().join("data2")).expect("a folder");
        std::os::unix::fs::symlink(folder.path().join("data2"), folder.path().join("data/link"))
            .expect("a link");
        let at = |name: &str| folder.path().join(name);
        let ceiling = ceiling(json!({ "acme/*": {
            "files": [{ "host": at("data"), "guest": "/any", "access": "read" }],
            "http": [{ "host": "*.example.com", "path": "/v1", "methods": ["GET", "HEAD", "POST"],
                       "networks": ["10.0.0.0/8"],
                       "credential": { "prefix": "Bearer ", "secret": { "env": "TOKEN" } } }],
            "log": { "level": "warn" },
            "random": { "seed": 1 },
            "compute": { "memory": "2GiB" },
            "limits": { "memory": "512MiB" },
        } }));
        let within = json!({
            "files": [{ "host": at("data/inner"), "guest": "/data" }, { "host": at("data"), "guest": "/d" }],
            "http": [
                { "host": "api.example.com", "path": "/v1/people", "networks": ["10.1.0.0/16"] },
                { "host": "*.eu.example.com", "path": "/v1", "methods": ["POST"], "requests": 10,
                  "credential": { "prefix": "Bearer ", "secret": { "env": "TOKEN" } } },
            ],
            "log": { "level": "error" },
            "random": { "seed": 99 },
            "compute": { "memory": "2GiB", "time": "1m" },
            "limits": { "memory": "512MiB", "call_timeout": "1s" },
        });
        assert_eq!(keys(&ceiling, within), Vec::<String>::new());
        for (asked, key) in [
            (
                json!({ "files": [{ "host": at("data"), "guest": "/d", "access": "read-write" }] }),
                "files[0]",
            ),
            (
                json!({ "files": [{ "host": at("data2"), "guest": "/d" }] }),
                "files[0]",
            ),
            (
                json!({ "files": [{ "host": at("data/link"), "guest": "/d" }] }),
                "files[0]",
            ),
            (
                json!({ "files": [{ "host": at("data/../data2"), "guest": "/d" }] }),
                "files[0]",
            ),
            (
                json!({ "files": [{ "host": at("nowhere"), "guest": "/d" }] }),
                "files[0]",
            ),
            (
                json!({ "http": [{ "host": "example.com", "path": "/v1" }] }),
                "http[0]",
            ),
            (
                json!({ "http": [{ "host": "badexample.com", "path": "/v1" }] }),
                "http[0]",
            ),
            (
                json!({ "http": [{ "host": "*.com", "path": "/v1" }] }),
                "http[0]",
            ),
            (json!({ "http": [{ "host": "a.example.com" }] }), "http[0]"),
            (
                json!({ "http": [{ "host": "a.example.com", "path": "/v10" }] }),
                "http[0]",
            ),
            (
                json!({ "http": [{ "host": "a.example.com", "path": "/v1", "port": 8443 }] }),
                "http[0]",
            ),
            (
                json!({ "http": [{ "host": "a.example.com", "path": "/v1", "scheme": "http" }] }),
                "http[0]",
            ),
            (
                json!({ "http": [{ "host": "a.example.com", "path": "/v1", "methods": ["DELETE"] }] }),
                "http[0]",
            ),
            (
                json!({ "http": [{ "host": "a.example.com", "path": "/v1", "networks": ["0.0.0.0/0"] }] }),
                "http[0]",
            ),
            (
                json!({ "http": [{ "host": "a.example.com", "path": "/v1", "requests": 1001 }] }),
                "http[0]",
            ),
            (
                json!({ "http": [{ "host": "a.example.com", "path": "/v1", "timeout": "1h" }] }),
                "http[0]",
            ),
            (
                json!({ "http": [{ "host": "a.example.com", "path": "/v1", "certificate_authority": "/ca" }] }),
                "http[0]",
            ),
            (
                json!({ "http": [{ "host": "a.example.com", "path": "/v1",
                "credential": { "prefix": "Bearer ", "secret": { "env": "OTHER" } } }] }),
                "http[0]",
            ),
            (json!({ "log": { "level": "info" } }), "log.level"),
            (
                json!({ "log": { "level": "warn", "message_bytes": "1MiB" } }),
                "log.message_bytes",
            ),
            (json!({ "clock": true }), "clock"),
            (json!({ "random": {} }), "random.seed"),
            (json!({ "compute": { "memory": "3GiB" } }), "compute.memory"),
            (json!({ "compute": { "time": "1h" } }), "compute.time"),
            (json!({ "compute": { "programs": 17 } }), "compute.programs"),
            (json!({ "limits": { "memory": "1GiB" } }), "limits.memory"),
            (
                json!({ "limits": { "output_rows": 9_000_000 } }),
                "limits.output_rows",
            ),
        ] {
            let mut asked_for = asked.clone();
            if asked.get("log").is_none() {
                asked_for["log"] = json!({ "level": "warn" });
            }
            assert_eq!(keys(&ceiling, asked_for), [key], "{asked}");
        }
        let none = Ceiling::default().excesses(
            "x",
            Role::Policy,
            &grants(json!({ "compute": {}, "random": {} })),
        );
        assert_eq!(
            none.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "`random` is granted, and may be at most nothing",
                "`compute` is granted, and may be at most nothing",
            ]
        );
    }

    #[test]
    fn state_and_questions_are_held_to_their_bounds_and_to_where_they_lead() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, "").expect("a file");
            path
        };
        let (one, other) = (file("one.sqlite"), file("other.sqlite"));
        std::os::unix::fs::symlink(&one, folder.path().join("link.sqlite")).expect("a link");
        let server = json!({ "host": "db.example.com", "database": "d", "user": "u",
            "password": { "env": "P" }, "networks": ["10.0.0.0/8"] });
        let ceiling = ceiling(json!({ "acme/*": {
            "state": { "bytes": "1MiB", "keys": 10, "value_bytes": "1KiB" },
            "sql": [
                { "connection": "any", "to": { "sqlite": one }, "rows": 10,
                  "statements": { "a": "SELECT 1", "b": "SELECT 2" } },
                { "connection": "any", "to": { "postgres": server } },
            ],
        } }));
        assert_eq!(ceiling.check(), Ok(()));
        let state = json!({ "bytes": "1MiB", "keys": 10, "value_bytes": "1KiB" });
        let changed = |mut value: Value, key: &str, to: Value| {
            value[key] = to;
            value
        };
        let question = json!({ "connection": "mine", "to": { "sqlite": one }, "rows": 10,
            "statements": { "mine": "SELECT 2" } });
        let asked = json!({ "connection": "db", "to": { "postgres": server } });
        let at = |key: &str, to: Value| {
            changed(
                asked.clone(),
                "to",
                json!({ "postgres": changed(server.clone(), key, to) }),
            )
        };
        let link = json!({ "sqlite": folder.path().join("link.sqlite") });
        for within in [
            json!({ "state": state, "sql": [question, asked] }),
            json!({ "state": changed(state.clone(), "access", json!("read")) }),
            json!({ "sql": [changed(question.clone(), "to", link)] }),
            json!({ "sql": [at("networks", json!(["10.1.0.0/16"]))] }),
        ] {
            assert_eq!(
                keys(&ceiling, within.clone()),
                Vec::<String>::new(),
                "{within}"
            );
        }
        for (over, key) in [
            (
                json!({ "state": changed(state.clone(), "bytes", json!("2MiB")) }),
                "state.bytes",
            ),
            (
                json!({ "state": changed(state.clone(), "keys", json!(11)) }),
                "state.keys",
            ),
            (
                json!({ "state": changed(state, "value_bytes", json!("2KiB")) }),
                "state.value_bytes",
            ),
            (
                json!({ "sql": [changed(question.clone(), "rows", json!(11))] }),
                "sql[0]",
            ),
            (
                json!({ "sql": [changed(question.clone(), "calls", json!(1001))] }),
                "sql[0]",
            ),
            (
                json!({ "sql": [changed(question.clone(), "statements", json!({}))] }),
                "sql[0]",
            ),
            (
                json!({ "sql": [changed(question.clone(), "statements", json!({ "a": "SELECT 3" }))] }),
                "sql[0]",
            ),
            (
                json!({ "sql": [changed(question.clone(), "to", json!({ "sqlite": other }))] }),
                "sql[0]",
            ),
            (
                json!({ "sql": [changed(question, "to", Value::Null)] }),
                "sql[0]",
            ),
            (
                json!({ "sql": [at("host", json!("other.example.com"))] }),
                "sql[0]",
            ),
            (json!({ "sql": [at("user", json!("postgres"))] }), "sql[0]"),
            (json!({ "sql": [at("tls", json!(false))] }), "sql[0]"),
            (
                json!({ "sql": [at("password", json!({ "env": "Q" }))] }),
                "sql[0]",
            ),
            (
                json!({ "sql": [at("networks", json!(["0.0.0.0/0"]))] }),
                "sql[0]",
            ),
            (
                json!({ "sql": [at("certificate_authority", json!("/ca"))] }),
                "sql[0]",
            ),
        ] {
            assert_eq!(keys(&ceiling, over.clone()), [key], "{over}");
        }
        assert_eq!(keys(&Ceiling::default(), json!({ "state": {} })), ["state"]);
        let nowhere = json!({ "acme/*": { "sql": [{ "connection": "any" }] } });
        let relative =
            json!({ "acme/*": { "sql": [{ "connection": "any", "to": { "sqlite": "w" } }] } });
        for (text, why) in [(nowhere, "has no `to`"), (relative, "is not absolute")] {
            let ceiling = serde_json::from_value(json!({ "version": 1, "plugins": text }));
            let ceiling: Ceiling = ceiling.expect("a ceiling");
            let error = ceiling.check().expect_err(why);
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn objects_are_compared_by_where_they_lie() {
        let folder = tempfile::tempdir().expect("a folder");
        let lake = folder.path().join("lake");
        std::fs::create_dir_all(lake.join("raw")).expect("folders");
        let url = |path: &Path| json!({ "url": format!("file:{}", path.display()) });
        let account = json!({ "access_key": { "env": "A" }, "secret_key": { "env": "B" } });
        let bucket = json!({ "url": "s3://lake/own", "region": "x", "credentials": account,
            "endpoint": "https://s3.example.com", "networks": ["10.0.0.0/8"] });
        let ceiling: Ceiling = serde_json::from_value(json!({ "version": 1, "plugins": {
            "acme/*": { "blob": [
                { "store": "any", "prefix": "raw/", "access": "read-write", "to": url(&lake) },
                { "store": "far", "prefix": "raw/", "to": bucket, "objects": 10 },
            ] },
        } }))
        .expect("a ceiling");
        ceiling.check().expect("it makes sense");
        let at = |store: Value, prefix: &str, more: Value| {
            let mut grant = json!({ "store": "mine", "prefix": prefix, "to": store });
            for (key, value) in more.as_object().expect("keys") {
                grant[key] = value.clone();
            }
            json!({ "blob": [grant] })
        };
        let changed = |key: &str, to: Value| {
            let mut store = bucket.clone();
            store[key] = to;
            store
        };
        let few = json!({ "objects": 10 });
        for within in [
            at(url(&lake), "raw/", json!({ "access": "read-write" })),
            at(url(&lake), "raw/deep/", json!({})),
            at(url(&lake.join("raw")), "", json!({})),
            at(bucket.clone(), "raw/", few.clone()),
            at(changed("url", json!("s3://lake/own/raw")), "", few.clone()),
            at(
                changed("networks", json!(["10.1.0.0/16"])),
                "raw/x/",
                few.clone(),
            ),
            at(changed("credentials", Value::Null), "raw/", few.clone()),
        ] {
            assert_eq!(
                keys(&ceiling, within.clone()),
                Vec::<String>::new(),
                "{within}"
            );
        }
        for over in [
            at(url(&lake), "", json!({})),
            at(url(&lake), "other/", json!({})),
            at(url(folder.path()), "raw/", json!({})),
            at(url(&lake), "raw/", json!({ "object_bytes": "65MiB" })),
            at(url(&lake), "raw/", json!({ "read_bytes": "2GiB" })),
            at(url(&lake), "raw/", json!({ "write_bytes": "257MiB" })),
            at(url(&lake), "raw/", json!({ "objects": 1001 })),
            at(url(&lake), "raw/", json!({ "entries": 100_001 })),
            at(url(&lake), "raw/", json!({ "calls": 1001 })),
            at(url(&lake), "raw/", json!({ "timeout": "31s" })),
            at(Value::Null, "raw/", json!({})),
            at(bucket.clone(), "raw/", json!({})),
            at(
                bucket.clone(),
                "raw/",
                json!({ "objects": 10, "access": "read-write" }),
            ),
            at(bucket.clone(), "", few.clone()),
            at(changed("url", json!("s3://lake")), "raw/", few.clone()),
            at(
                changed("url", json!("s3://lake/owner")),
                "raw/",
                few.clone(),
            ),
            at(changed("url", json!("s3://other/own")), "raw/", few.clone()),
            at(
                changed("endpoint", json!("https://evil.example")),
                "raw/",
                few.clone(),
            ),
            at(changed("endpoint", Value::Null), "raw/", few.clone()),
            at(changed("region", json!("y")), "raw/", few.clone()),
            at(
                changed("networks", json!(["0.0.0.0/0"])),
                "raw/",
                few.clone(),
            ),
            at(
                changed("certificate_authority", json!("/ca")),
                "raw/",
                few.clone(),
            ),
            at(
                changed(
                    "credentials",
                    json!({ "access_key": { "env": "A" }, "secret_key": { "env": "C" } }),
                ),
                "raw/",
                few,
            ),
        ] {
            assert_eq!(keys(&ceiling, over.clone()), ["blob[0]"], "{over}");
        }
        let nowhere = json!({ "acme/*": { "blob": [{ "store": "any" }] } });
        let relative =
            json!({ "acme/*": { "blob": [{ "store": "any", "to": { "url": "file:lake" } }] } });
        for (plugins, why) in [(nowhere, "has no `to`"), (relative, "is not absolute")] {
            let ceiling = serde_json::from_value(json!({ "version": 1, "plugins": plugins }));
            let ceiling: Ceiling = ceiling.expect("a ceiling");
            let error = ceiling.check().expect_err(why);
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_file_of_another_version_or_with_unknown_keys_is_refused() {
        for text in [
            json!({ "version": 2, "plugins": {} }),
            json!({ "version": 1 }),
            json!({ "version": 1, "plugins": {}, "more": 1 }),
            json!({ "version": 1, "plugins": { "a": { "network": true } } }),
        ] {
            serde_json::from_value::<Ceiling>(text.clone()).expect_err(&text.to_string());
        }
    }
}
