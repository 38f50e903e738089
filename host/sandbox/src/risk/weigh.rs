//! Looks for reasons, one group of factors after the other.
//!
//! What is granted counts where the component imports it: what is not linked cannot be used. Each
//! reason is there or weighs more when something is granted, and none goes away by it.

use std::path::{Component, Path};

use super::{RiskFactor, RiskReason, Surroundings};
use crate::contract::{CONTRACT_VERSION, is_tool_export, role_export};
use crate::grants::{Access, ByteSize, Capability, Grants, HttpMethod, HttpScheme, TimeSpan};
use crate::inspect::Inspection;
use crate::manifest::Role;
use crate::text;

/// Bytes of a text of the manifest in a reason.
const MAX_TEXT_BYTES: usize = 128;

/// Folders that belong to the system.
const SYSTEM_FOLDERS: [&str; 8] = [
    "/boot", "/dev", "/etc", "/proc", "/root", "/run", "/sys", "/var/run",
];

/// Folders where programs keep secrets, wherever they are.
const SECRET_FOLDERS: [&str; 6] = [".aws", ".azure", ".config", ".gnupg", ".kube", ".ssh"];

/// Everything that adds to the risk of a component.
pub(super) fn reasons(inspection: &Inspection, surroundings: &Surroundings<'_>) -> Vec<RiskReason> {
    let mut weighing = Weighing {
        inspection,
        surroundings,
        reasons: Vec::new(),
    };
    weighing.network();
    weighing.files();
    weighing.databases();
    weighing.stores();
    weighing.data();
    weighing.time_and_chance();
    weighing.memory();
    weighing.amounts();
    weighing.asked_and_imported();
    weighing.granted();
    weighing.about_itself();
    weighing.reasons
}

struct Weighing<'a> {
    inspection: &'a Inspection,
    surroundings: &'a Surroundings<'a>,
    reasons: Vec<RiskReason>,
}

impl<'a> Weighing<'a> {
    fn add(
        &mut self,
        factor: RiskFactor,
        capability: impl Into<Subject>,
        because: impl Into<String>,
        lowered_by: impl Into<String>,
    ) {
        self.add_points(factor, factor.points(), capability, because, lowered_by);
    }

    fn add_points(
        &mut self,
        factor: RiskFactor,
        points: u8,
        capability: impl Into<Subject>,
        because: impl Into<String>,
        lowered_by: impl Into<String>,
    ) {
        self.reasons.push(RiskReason {
            factor,
            points,
            capability: capability.into().0,
            because: because.into(),
            lowered_by: lowered_by.into(),
        });
    }

    fn grants(&self) -> Option<&'a Grants> {
        self.surroundings.grants
    }

    fn asks(&self, capability: Capability) -> bool {
        self.inspection
            .manifest
            .capabilities
            .iter()
            .any(|ask| ask.capability == capability.as_str())
    }

    /// Whether the component imports a function of it, its standard library's among them or not.
    fn imports(&self, capability: Capability, with_noise: bool) -> bool {
        self.inspection
            .imports
            .iter()
            .any(|import| import.capability == Some(capability) && (with_noise || !import.noise))
    }

    /// Whether the component can use it.
    fn opens(&self, capability: Capability) -> bool {
        match self.grants() {
            // What is granted is linked to whatever imports it, noise too.
            Some(grants) => grants.allows(capability) && self.imports(capability, true),
            None => self.imports(capability, self.asks(capability)),
        }
    }

    fn network(&mut self) {
        let http = Capability::Http;
        if !self.opens(http) {
            return;
        }
        self.add(
            RiskFactor::Network,
            http,
            "it can send requests to other machines",
            "have a connector land the data, and grant no `http`",
        );
        let Some(grants) = self.grants() else { return };
        let grants = &grants.http;
        let hosts = |wanted: &dyn Fn(&crate::HttpGrant) -> bool| {
            let hosts: Vec<&str> = grants
                .iter()
                .filter(|grant| wanted(grant))
                .map(|grant| grant.host.as_str())
                .collect();
            (!hosts.is_empty()).then(|| hosts.join(", "))
        };
        if let Some(hosts) = hosts(&|grant| grant.host.starts_with('*')) {
            self.add(
                RiskFactor::NetworkWildcard,
                http,
                format!("{hosts} stands for every name below it"),
                "write the names of the hosts that are needed",
            );
        }
        if let Some(hosts) = hosts(&|grant| !grant.networks.is_empty()) {
            self.add(
                RiskFactor::NetworkPrivate,
                http,
                format!("{hosts} may be in networks that are not public"),
                "leave out `networks`, or narrow them to one address",
            );
        }
        if let Some(hosts) = hosts(&|grant| grant.scheme == HttpScheme::Http) {
            self.add(
                RiskFactor::NetworkClear,
                http,
                format!("requests to {hosts} go in the clear"),
                "use https",
            );
        }
        let writes = |method: &HttpMethod| {
            !matches!(
                method,
                HttpMethod::Get | HttpMethod::Head | HttpMethod::Options
            )
        };
        if let Some(hosts) = hosts(&|grant| grant.methods.iter().any(writes)) {
            self.add(
                RiskFactor::NetworkWrites,
                http,
                format!("it may do more than read at {hosts}"),
                "leave out `methods`: GET and HEAD are what is granted then",
            );
        }
        if let Some(hosts) = hosts(&|grant| grant.credential.is_some()) {
            self.add(
                RiskFactor::NetworkSecret,
                http,
                format!("the host puts a secret into its requests to {hosts}"),
                "use a secret that can do no more than the plugin needs, or none",
            );
        }
        if grants.len() > 1 {
            self.add(
                RiskFactor::NetworkSeveral,
                http,
                format!("it has {} hosts to send to", grants.len()),
                "grant one host",
            );
        }
    }

    fn files(&mut self) {
        let files = Capability::Files;
        if !self.opens(files) {
            return;
        }
        self.add(
            RiskFactor::FilesRead,
            files,
            "it can read files of the host",
            "grant a folder that holds nothing but its input",
        );
        let Some(grants) = self.grants() else { return };
        let folders = |wanted: &dyn Fn(&crate::FileGrant) -> bool| {
            let folders: Vec<String> = grants
                .files
                .iter()
                .filter(|grant| wanted(grant))
                .map(|grant| grant.guest.clone())
                .collect();
            (!folders.is_empty()).then(|| folders.join(", "))
        };
        if let Some(folders) = folders(&|grant| grant.access == Access::ReadWrite) {
            self.add(
                RiskFactor::FilesWrite,
                files,
                format!("it can change what is in {folders}"),
                "grant `access: read`",
            );
        }
        if let Some(folders) = folders(&|grant| is_broad(&grant.host)) {
            self.add(
                RiskFactor::FilesBroad,
                files,
                format!("{folders} is the root of the host or right below it"),
                "grant a folder that holds nothing but its input",
            );
        }
        if let Some(folders) = folders(&|grant| is_of_system(&grant.host)) {
            self.add(
                RiskFactor::FilesSystem,
                files,
                format!("{folders} belongs to the system, or is where secrets are kept"),
                "copy what is needed into a folder of its own, and grant that",
            );
        }
    }

    fn databases(&mut self) {
        let sql = Capability::Sql;
        if !self.opens(sql) {
            return;
        }
        self.add(
            RiskFactor::Sql,
            sql,
            "it can ask databases",
            "have a connector land the data, and grant no `sql`",
        );
        let Some(grants) = self.grants() else { return };
        let connections = |wanted: &dyn Fn(&crate::SqlGrant) -> bool| {
            let connections: Vec<&str> = grants
                .sql
                .iter()
                .filter(|grant| wanted(grant))
                .map(|grant| grant.connection.as_str())
                .collect();
            (!connections.is_empty()).then(|| connections.join(", "))
        };
        if let Some(connections) = connections(&|grant| grant.statements.is_empty()) {
            self.add(
                RiskFactor::SqlAny,
                sql,
                format!("it may ask {connections} whatever reads"),
                "list the `statements` that it needs",
            );
        }
        if let Some(connections) = connections(&|grant| grant.secret().is_some()) {
            self.add(
                RiskFactor::SqlSecret,
                sql,
                format!("the host asks {connections} with a secret"),
                "use an account that may read what the plugin needs, and nothing else",
            );
        }
    }

    fn stores(&mut self) {
        let blob = Capability::Blob;
        if !self.opens(blob) {
            return;
        }
        self.add(
            RiskFactor::Blob,
            blob,
            "it can read objects of stores",
            "grant a prefix that holds nothing but its input",
        );
        let Some(grants) = self.grants() else { return };
        let stores = |wanted: &dyn Fn(&crate::BlobGrant) -> bool| {
            let stores: Vec<&str> = grants
                .blob
                .iter()
                .filter(|grant| wanted(grant))
                .map(|grant| grant.store.as_str())
                .collect();
            (!stores.is_empty()).then(|| stores.join(", "))
        };
        if let Some(stores) = stores(&|grant| grant.prefix.is_empty()) {
            self.add(
                RiskFactor::BlobAll,
                blob,
                format!("it may use everything in {stores}"),
                "grant a `prefix`",
            );
        }
        if let Some(stores) = stores(&|grant| grant.access == Access::ReadWrite) {
            self.add(
                RiskFactor::BlobWrite,
                blob,
                format!("it can change what is in {stores}"),
                "grant `access: read`",
            );
        }
        if let Some(stores) = stores(&|grant| grant.is_remote()) {
            self.add(
                RiskFactor::BlobRemote,
                blob,
                format!("{stores} is on another machine"),
                "have a connector land the data, and grant no `blob`",
            );
        }
        if let Some(stores) = stores(&|grant| grant.has_secret()) {
            self.add(
                RiskFactor::BlobSecret,
                blob,
                format!("the host asks {stores} with a secret"),
                "use an account that may do what the plugin needs, and nothing else",
            );
        }
    }

    /// Ways out for data.
    fn data(&mut self) {
        let http = self.opens(Capability::Http);
        let files = self.opens(Capability::Files);
        let role = self.inspection.role;
        let is_handed_rows = matches!(role, Role::Validator | Role::Adapter);
        if http && files {
            self.add(
                RiskFactor::NetworkAndFiles,
                Capability::Http,
                "it can read files and send requests: a way out for data",
                "give the two to two plugins",
            );
        }
        if http && self.opens(Capability::Sql) {
            self.add(
                RiskFactor::NetworkAndSql,
                Capability::Http,
                "it can ask databases and send requests: a way out for data",
                "give the two to two plugins",
            );
        }
        if http && self.opens(Capability::Blob) {
            self.add(
                RiskFactor::NetworkAndBlob,
                Capability::Http,
                "it can read objects and send requests: a way out for data",
                "give the two to two plugins",
            );
        }
        if http && is_handed_rows {
            self.add(
                RiskFactor::NetworkAndRows,
                Capability::Http,
                format!("a {role} is handed rows, and this one can send requests"),
                "grant a validator or an adapter no `http`",
            );
        }
        let sees_rows = is_handed_rows || role == Role::Connector;
        let sensitive = self.surroundings.sensitive;
        if sees_rows && !sensitive.is_empty() {
            let shown: Vec<String> = sensitive
                .iter()
                .map(|name| text::sentence(name, 64))
                .collect();
            let shown = shown.join(", ");
            self.add(
                RiskFactor::Sensitive,
                None,
                format!("the data is sensitive: {shown}"),
                "leave out or mask what is not needed before it gets there",
            );
            if http {
                self.add(
                    RiskFactor::NetworkAndSensitive,
                    Capability::Http,
                    format!("the data is sensitive ({shown}), and it can send requests"),
                    "grant no `http` to what sees this data",
                );
            }
        }
    }

    fn time_and_chance(&mut self) {
        let clock = self.opens(Capability::Clock);
        let unseeded = self.opens(Capability::Random)
            && self
                .grants()
                .and_then(|grants| grants.random.as_ref())
                .is_some_and(|random| random.seed.is_none());
        if unseeded {
            self.add(
                RiskFactor::RandomUnseeded,
                Capability::Random,
                "its random numbers are others in every run",
                "grant `random: { seed: 7 }`",
            );
        }
        if clock {
            self.add(
                RiskFactor::Clock,
                Capability::Clock,
                "it knows the time",
                "hand it the time in its configuration, and grant no `clock`",
            );
        }
        if clock && unseeded {
            self.add(
                RiskFactor::ClockAndRandom,
                Capability::Clock,
                "with the time and unseeded randomness it can tell runs apart and signal by timing",
                "grant a seed, or no `clock`",
            );
        }
    }

    /// What it remembers.
    fn memory(&mut self) {
        if self.opens(Capability::State) {
            self.add(
                RiskFactor::State,
                Capability::State,
                "it keeps something from one instance to the next",
                "hand it what it needs in its configuration, and grant no `state`",
            );
        }
    }

    /// Grants that are large. Steps are few, so that a score does not move with every byte.
    fn amounts(&mut self) {
        let compute = self.opens(Capability::Compute);
        if compute {
            self.add(
                RiskFactor::Compute,
                Capability::Compute,
                "it may run tensor programs",
                "grant no `compute` to what does not train or predict",
            );
        }
        let Some(grants) = self.grants() else { return };
        if let Some(granted) = grants.compute.as_ref().filter(|_| compute) {
            let points = 2 * step(bytes(granted.memory), 8 << 30, 64 << 30)
                + step(seconds(granted.time), 4 * 3600, 24 * 3600);
            if points > 0 {
                self.add_points(
                    RiskFactor::ComputeLarge,
                    points,
                    Capability::Compute,
                    format!(
                        "it may hold {} of tensors and compute for {}",
                        granted.memory, granted.time
                    ),
                    "grant less than 8GiB and 4h of `compute`",
                );
            }
        }
        let limits = &grants.limits;
        let points = step(bytes(limits.memory), 2 << 30, 8 << 30)
            + step(seconds(limits.total_timeout), 4 * 3600, 24 * 3600);
        if points > 0 {
            self.add_points(
                RiskFactor::LimitsLarge,
                points,
                None,
                format!(
                    "an instance may use {} and run for {}",
                    limits.memory, limits.total_timeout
                ),
                "set `limits` below 2GiB and 4h",
            );
        }
        if bytes(grants.log.bytes_per_second) > 1 << 20 {
            self.add(
                RiskFactor::LogLarge,
                Capability::Log,
                format!("it may log {} a second", grants.log.bytes_per_second),
                "set `log.bytes_per_second` to 1MiB or less",
            );
        }
    }

    /// The manifest against the binary, and against what was used.
    fn asked_and_imported(&mut self) {
        for capability in Capability::ALL {
            let imported = self.imports(capability, false);
            if imported && !capability.is_always_granted() && !self.asks(capability) {
                self.add(
                    RiskFactor::ImportsUnasked,
                    capability,
                    format!("it imports `{capability}`, and its manifest does not ask for it"),
                    format!("ask the vendor what `{capability}` is for, and to write it down"),
                );
            }
        }
        for import in &self.inspection.imports {
            if !import.is_offered() {
                let interface = text::sentence(&import.interface, MAX_TEXT_BYTES);
                self.add(
                    RiskFactor::ImportsUnknown,
                    Subject(Some(interface.clone())),
                    format!("it imports `{interface}`, which this host does not offer"),
                    "take a plugin that was built for this host",
                );
            }
        }
        for ask in &self.inspection.manifest.capabilities {
            let name = text::sentence(&ask.capability, MAX_TEXT_BYTES);
            let subject = || Subject(Some(name.clone()));
            let known = Capability::ALL
                .into_iter()
                .find(|known| known.as_str() == ask.capability);
            match known {
                None => self.add(
                    RiskFactor::AsksUnknown,
                    subject(),
                    format!("it asks for `{name}`, which this host does not know"),
                    "ask the vendor what it means",
                ),
                Some(known) if !self.imports(known, true) => self.add(
                    RiskFactor::AsksUnimported,
                    subject(),
                    format!("it asks for `{name}`, and does not import it"),
                    "ask the vendor to take it out of the manifest",
                ),
                Some(_) => {
                    let used = self.surroundings.used;
                    if used.is_some_and(|used| used.get(&ask.capability).is_none_or(|n| *n == 0)) {
                        self.add(
                            RiskFactor::AsksUnused,
                            subject(),
                            format!("it asks for `{name}`, and none of its runs has used it"),
                            format!("do not grant `{name}`, and see whether it is missed"),
                        );
                    }
                }
            }
            if ask.reason.trim().is_empty() {
                self.add(
                    RiskFactor::AsksWithoutReason,
                    subject(),
                    format!("it asks for `{name}` and does not say why"),
                    "ask the vendor for a reason",
                );
            }
        }
        let noise = self.inspection.imports.iter();
        let noise = noise.filter(|import| import.noise && !import.functions.is_empty());
        let noise = noise.count();
        if noise > 0 {
            self.add(
                RiskFactor::Noise,
                None,
                format!("{noise} of its imports are its standard library's"),
                "build it for a target without WASI, such as wasm32-unknown-unknown",
            );
        }
    }

    /// The pipeline against the binary and the manifest.
    fn granted(&mut self) {
        let Some(grants) = self.grants() else { return };
        for capability in Capability::ALL {
            if capability.is_always_granted() {
                continue;
            }
            match (
                grants.allows(capability),
                self.imports(capability, false),
                self.imports(capability, true),
            ) {
                (true, _, false) => self.add(
                    RiskFactor::GrantsUnimported,
                    capability,
                    format!("`{capability}` is granted, and it does not import it"),
                    format!("take `{capability}` out of its grants"),
                ),
                (true, false, true) if !self.asks(capability) => self.add(
                    RiskFactor::GrantsUnasked,
                    capability,
                    format!(
                        "`{capability}` is granted, only its standard library imports it, and \
                         its manifest does not ask for it"
                    ),
                    format!("take `{capability}` out of its grants"),
                ),
                (false, imported, with_noise)
                    if imported || with_noise && self.asks(capability) =>
                {
                    self.add(
                        RiskFactor::ImportsUngranted,
                        capability,
                        format!("it imports `{capability}`, which is not granted: it is refused"),
                        format!("grant `{capability}`, or take another plugin"),
                    );
                }
                _ => {}
            }
        }
        if self.surroundings.pinned == Some(false) {
            self.add(
                RiskFactor::DigestUnpinned,
                None,
                "the pipeline takes whatever component lies in its place",
                format!("write its digest: {}", self.inspection.digest),
            );
        }
    }

    /// What it says, or does not say, about itself.
    fn about_itself(&mut self) {
        let inspection = self.inspection;
        let manifest = &inspection.manifest;
        let versions = [&inspection.contract, &manifest.contract];
        if let Some(other) = versions.into_iter().find(|it| *it != CONTRACT_VERSION) {
            let other = text::sentence(other, 64);
            self.add(
                RiskFactor::ContractUnknown,
                None,
                format!("it speaks contract {other}, and this host {CONTRACT_VERSION}"),
                "take a plugin that was built for this contract",
            );
        }
        let wanted = role_export(inspection.role);
        let is_other = |it: &&String| **it != wanted && !is_tool_export(it);
        if let Some(other) = inspection.exports.iter().find(is_other) {
            let other = text::sentence(other, MAX_TEXT_BYTES);
            self.add(
                RiskFactor::ExportsUnexpected,
                None,
                format!(
                    "it exports `{other}`, which a {} does not have",
                    inspection.role
                ),
                "take a plugin that exports its role alone",
            );
        }
        let facts = [
            (RiskFactor::LicenceMissing, &manifest.license, "its licence"),
            (RiskFactor::VendorMissing, &manifest.vendor, "who makes it"),
            (
                RiskFactor::ContactMissing,
                &manifest.contact,
                "where to reach its vendor",
            ),
        ];
        for (factor, fact, what) in facts {
            if fact.trim().is_empty() {
                let because = format!("it does not say {what}");
                self.add(factor, None, because, "ask whoever handed it to you");
            }
        }
        if inspection.role == Role::Adapter && manifest.adapter.is_none() {
            self.add(
                RiskFactor::FactsMissing,
                None,
                "it does not say where its data is from, what it is for and how it is updated",
                "ask the vendor for the facts under `adapter` in its manifest",
            );
        }
        let points = 2 * step(inspection.size_bytes, 4 << 20, 32 << 20);
        if points > 0 {
            let mib = inspection.size_bytes >> 20;
            self.add_points(
                RiskFactor::ComponentLarge,
                points,
                None,
                format!("its component is {mib} MiB"),
                "ask for a build without an interpreter, or with fewer dependencies",
            );
        }
    }
}

/// What a reason is about.
struct Subject(Option<String>);

impl From<Capability> for Subject {
    fn from(capability: Capability) -> Self {
        Self(Some(capability.to_string()))
    }
}

impl From<Option<String>> for Subject {
    fn from(subject: Option<String>) -> Self {
        Self(subject)
    }
}

fn bytes(size: ByteSize) -> u64 {
    size.bytes()
}

fn seconds(time: TimeSpan) -> u64 {
    time.duration().as_secs()
}

/// 0 up to the first bound, 1 up to the second, 2 above.
fn step(amount: u64, first: u64, second: u64) -> u8 {
    u8::from(amount > first) + u8::from(amount > second)
}

/// Whether a folder is the root of the host, or right below it.
fn is_broad(path: &Path) -> bool {
    let below = path
        .components()
        .filter(|part| matches!(part, Component::Normal(_)));
    path.has_root() && below.count() <= 1
}

fn is_of_system(path: &Path) -> bool {
    SYSTEM_FOLDERS.iter().any(|folder| path.starts_with(folder))
        || path
            .components()
            .any(|part| SECRET_FOLDERS.iter().any(|name| part.as_os_str() == *name))
}
