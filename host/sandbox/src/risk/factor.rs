//! What is weighed, and what it weighs.

use std::fmt;

use serde::Serialize;

/// What can add to the risk of a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RiskFactor {
    /// It can send requests to other machines.
    Network,
    /// A wildcard stands for many hosts.
    NetworkWildcard,
    /// It may reach addresses that are not public.
    NetworkPrivate,
    /// It may speak without TLS.
    NetworkClear,
    /// It may do more than read at a host.
    NetworkWrites,
    /// It has several hosts to send to.
    NetworkSeveral,
    /// The host lends it a secret with its requests.
    NetworkSecret,
    /// It can read files and send requests.
    NetworkAndFiles,
    /// It is handed rows and can send requests.
    NetworkAndRows,
    /// It can send requests, and the data is known to be sensitive.
    NetworkAndSensitive,
    /// It sees data that is known to be sensitive.
    Sensitive,
    /// It can read files.
    FilesRead,
    /// It can change files.
    FilesWrite,
    /// It has the whole host, or a folder right below its root.
    FilesBroad,
    /// It has a folder of the system, or one that is known for secrets.
    FilesSystem,
    /// Its random numbers are others in every run.
    RandomUnseeded,
    /// It knows the time.
    Clock,
    /// It knows the time and has randomness of its own.
    ClockAndRandom,
    /// It may run tensor programs.
    Compute,
    /// It may use much memory or time of a device.
    ComputeLarge,
    /// It keeps something from one instance to the next.
    State,
    /// It can ask databases.
    Sql,
    /// It may ask a database whatever reads.
    SqlAny,
    /// The host lends it a secret with its questions.
    SqlSecret,
    /// It can ask databases and send requests.
    NetworkAndSql,
    /// It can read objects of stores.
    Blob,
    /// It may read everything that a store holds.
    BlobAll,
    /// It may put and delete objects.
    BlobWrite,
    /// A store is another machine.
    BlobRemote,
    /// The host lends it a secret with its calls of a store.
    BlobSecret,
    /// It can read objects and send requests.
    NetworkAndBlob,
    /// An instance may use much memory or time.
    LimitsLarge,
    /// It may write much into the host's log.
    LogLarge,
    /// It imports what it does not ask for.
    ImportsUnasked,
    /// It imports what this host does not offer under any grant.
    ImportsUnknown,
    /// It imports what the pipeline does not grant.
    ImportsUngranted,
    /// It asks for what it does not import.
    AsksUnimported,
    /// It asks for something that this host does not know.
    AsksUnknown,
    /// It asks for something and does not say why.
    AsksWithoutReason,
    /// It asks for what its runs never used.
    AsksUnused,
    /// It is granted what it does not import.
    GrantsUnimported,
    /// It is granted what it does not ask for.
    GrantsUnasked,
    /// It imports what a standard library brings along.
    Noise,
    /// It exports something that its role does not have.
    ExportsUnexpected,
    /// It speaks another version of the contract.
    ContractUnknown,
    /// It does not say under which licence it is.
    LicenceMissing,
    /// It does not say who makes it.
    VendorMissing,
    /// It does not say where to reach the vendor.
    ContactMissing,
    /// An adapter that says nothing about its data and its use.
    FactsMissing,
    /// Nobody can review that much code.
    ComponentLarge,
    /// Another component could take its place.
    DigestUnpinned,
}

impl RiskFactor {
    /// Every factor.
    pub const ALL: [RiskFactor; 51] = [
        RiskFactor::Network,
        RiskFactor::NetworkWildcard,
        RiskFactor::NetworkPrivate,
        RiskFactor::NetworkClear,
        RiskFactor::NetworkWrites,
        RiskFactor::NetworkSeveral,
        RiskFactor::NetworkSecret,
        RiskFactor::NetworkAndFiles,
        RiskFactor::NetworkAndRows,
        RiskFactor::NetworkAndSensitive,
        RiskFactor::Sensitive,
        RiskFactor::FilesRead,
        RiskFactor::FilesWrite,
        RiskFactor::FilesBroad,
        RiskFactor::FilesSystem,
        RiskFactor::RandomUnseeded,
        RiskFactor::Clock,
        RiskFactor::ClockAndRandom,
        RiskFactor::Compute,
        RiskFactor::ComputeLarge,
        RiskFactor::State,
        RiskFactor::Sql,
        RiskFactor::SqlAny,
        RiskFactor::SqlSecret,
        RiskFactor::NetworkAndSql,
        RiskFactor::Blob,
        RiskFactor::BlobAll,
        RiskFactor::BlobWrite,
        RiskFactor::BlobRemote,
        RiskFactor::BlobSecret,
        RiskFactor::NetworkAndBlob,
        RiskFactor::LimitsLarge,
        RiskFactor::LogLarge,
        RiskFactor::ImportsUnasked,
        RiskFactor::ImportsUnknown,
        RiskFactor::ImportsUngranted,
        RiskFactor::AsksUnimported,
        RiskFactor::AsksUnknown,
        RiskFactor::AsksWithoutReason,
        RiskFactor::AsksUnused,
        RiskFactor::GrantsUnimported,
        RiskFactor::GrantsUnasked,
        RiskFactor::Noise,
        RiskFactor::ExportsUnexpected,
        RiskFactor::ContractUnknown,
        RiskFactor::LicenceMissing,
        RiskFactor::VendorMissing,
        RiskFactor::ContactMissing,
        RiskFactor::FactsMissing,
        RiskFactor::ComponentLarge,
        RiskFactor::DigestUnpinned,
    ];

    /// The name, in records and after `sandcast/` in rules.
    pub fn as_str(self) -> &'static str {
        self.rule().0
    }

    /// What it adds; where it has degrees, the most it adds.
    pub fn points(self) -> u8 {
        self.rule().1
    }

    /// What it is, in a sentence.
    pub fn title(self) -> &'static str {
        self.rule().2
    }

    /// Whether it says that manifest, binary, grants and use do not fit together.
    pub fn is_mismatch(self) -> bool {
        matches!(
            self,
            Self::ImportsUnasked
                | Self::ImportsUnknown
                | Self::ImportsUngranted
                | Self::AsksUnimported
                | Self::AsksUnknown
                | Self::AsksWithoutReason
                | Self::AsksUnused
                | Self::GrantsUnimported
                | Self::GrantsUnasked
        )
    }

    /// The table of weights.
    fn rule(self) -> (&'static str, u8, &'static str) {
        match self {
            Self::Network => ("network", 15, "It can send requests to other machines."),
            Self::NetworkWildcard => ("network-wildcard", 22, "A wildcard stands for many hosts."),
            Self::NetworkPrivate => (
                "network-private",
                22,
                "It may reach addresses that are not on the public Internet.",
            ),
            Self::NetworkClear => ("network-clear", 5, "It may speak to a host without TLS."),
            Self::NetworkWrites => (
                "network-writes",
                5,
                "It may do more at a host than read, and send bodies there.",
            ),
            Self::NetworkSeveral => ("network-several", 3, "It has several hosts to send to."),
            Self::NetworkSecret => (
                "network-secret",
                15,
                "It acts with a secret of the operator, which the host puts into its requests.",
            ),
            Self::NetworkAndFiles => (
                "network-and-files",
                25,
                "It can read files and send requests: a way out for data.",
            ),
            Self::NetworkAndRows => (
                "network-and-rows",
                33,
                "It is handed rows and can send requests: a way out for data.",
            ),
            Self::NetworkAndSensitive => (
                "network-and-sensitive",
                10,
                "It can send requests, and the data is known to be sensitive.",
            ),
            Self::Sensitive => (
                "sensitive-data",
                4,
                "It sees data that is known to be sensitive.",
            ),
            Self::FilesRead => ("files-read", 8, "It can read files of the host."),
            Self::FilesWrite => ("files-write", 15, "It can change files of the host."),
            Self::FilesBroad => (
                "files-broad",
                30,
                "It has the whole host, or a folder right below its root.",
            ),
            Self::FilesSystem => (
                "files-system",
                20,
                "It has a folder of the system, or one where secrets are kept.",
            ),
            Self::RandomUnseeded => (
                "random-unseeded",
                4,
                "Its random numbers are others in every run, so a run cannot be repeated.",
            ),
            Self::Clock => (
                "clock",
                3,
                "It knows the time, so a run cannot be repeated.",
            ),
            Self::ClockAndRandom => (
                "clock-and-random",
                6,
                "It knows the time and has randomness of its own: enough to tell runs apart, and \
                 to signal by timing.",
            ),
            Self::Compute => ("compute", 2, "It may run tensor programs."),
            Self::ComputeLarge => (
                "compute-large",
                6,
                "It may use much memory or time of a device.",
            ),
            Self::State => (
                "state",
                3,
                "It keeps something from one instance to the next, so a run depends on those before.",
            ),
            Self::Sql => ("sql", 8, "It can ask databases of the operator."),
            Self::SqlAny => (
                "sql-any",
                5,
                "It may ask a database whatever reads, not listed statements alone.",
            ),
            Self::SqlSecret => (
                "sql-secret",
                5,
                "It asks a database as an account of the operator, with a secret that the host has.",
            ),
            Self::NetworkAndSql => (
                "network-and-sql",
                25,
                "It can ask databases and send requests: a way out for data.",
            ),
            Self::Blob => ("blob", 8, "It can read objects of the operator's stores."),
            Self::BlobAll => (
                "blob-all",
                5,
                "It may use everything that a store holds, not what is below a prefix alone.",
            ),
            Self::BlobWrite => (
                "blob-write",
                15,
                "It can put and delete objects of the operator's stores.",
            ),
            Self::BlobRemote => (
                "blob-remote",
                5,
                "It reaches stores on other machines, over the network.",
            ),
            Self::BlobSecret => (
                "blob-secret",
                5,
                "It asks a store as an account of the operator, with a secret that the host has.",
            ),
            Self::NetworkAndBlob => (
                "network-and-blob",
                25,
                "It can read objects and send requests: a way out for data.",
            ),
            Self::LimitsLarge => (
                "limits-large",
                4,
                "An instance may use much memory or time.",
            ),
            Self::LogLarge => ("log-large", 2, "It may write much into the host's log."),
            Self::ImportsUnasked => (
                "imports-unasked",
                15,
                "Its binary imports what its manifest does not ask for.",
            ),
            Self::ImportsUnknown => (
                "imports-unknown",
                20,
                "It imports what this host does not offer under any grant.",
            ),
            Self::ImportsUngranted => (
                "imports-ungranted",
                0,
                "It imports what the pipeline does not grant, so it will be refused.",
            ),
            Self::AsksUnimported => (
                "asks-unimported",
                2,
                "Its manifest asks for what its binary does not import.",
            ),
            Self::AsksUnknown => (
                "asks-unknown",
                3,
                "Its manifest asks for something that this host does not know.",
            ),
            Self::AsksWithoutReason => (
                "asks-without-reason",
                3,
                "Its manifest asks for something and does not say why.",
            ),
            Self::AsksUnused => (
                "asks-unused",
                2,
                "It asks for what none of its runs has used.",
            ),
            Self::GrantsUnimported => (
                "grants-unimported",
                3,
                "The pipeline grants what the binary does not import.",
            ),
            Self::GrantsUnasked => (
                "grants-unasked",
                5,
                "The pipeline grants what its standard library imports and its manifest does not \
                 ask for.",
            ),
            Self::Noise => (
                "noise",
                1,
                "It imports what a standard library brings along, which hides what it needs.",
            ),
            Self::ExportsUnexpected => (
                "exports-unexpected",
                5,
                "It exports something that its role does not have.",
            ),
            Self::ContractUnknown => (
                "contract-unknown",
                15,
                "It speaks another version of the contract than this host.",
            ),
            Self::LicenceMissing => ("licence-missing", 3, "It does not say its licence."),
            Self::VendorMissing => ("vendor-missing", 3, "It does not say who makes it."),
            Self::ContactMissing => (
                "contact-missing",
                3,
                "It does not say where to reach its vendor.",
            ),
            Self::FactsMissing => (
                "facts-missing",
                3,
                "An adapter that says nothing about its data, its use and its updates.",
            ),
            Self::ComponentLarge => (
                "component-large",
                4,
                "Its component is larger than anybody reviews.",
            ),
            Self::DigestUnpinned => (
                "digest-unpinned",
                2,
                "The pipeline takes whatever component lies in its place.",
            ),
        }
    }
}

impl fmt::Display for RiskFactor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Serialize for RiskFactor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
