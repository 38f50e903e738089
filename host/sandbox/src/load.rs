//! From bytes to a plugin: every check comes before the compiler, and before anything runs.

use thiserror::Error;

use crate::manifest::Role;

/// Why a component was not loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The bytes are not a WebAssembly component.
    #[error("plugin `{name}` is not a WebAssembly component: {reason}; build it with `sandcast build`")]
    NotAComponent {
        /// The plugin as the pipeline names it.
        name: String,
        /// What was found instead.
        reason: String,
    },
    /// The component is larger than the limit.
    #[error("plugin `{name}` is {size_bytes} bytes, over the limit of {limit_bytes}")]
    TooLarge {
        /// The plugin as the pipeline names it.
        name: String,
        /// Its size.
        size_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// There is no usable manifest inside.
    #[error("plugin `{name}` has no usable manifest: {reason}; build it with `sandcast build`, which writes one from plugin.toml")]
    Manifest {
        /// The plugin as the pipeline names it.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The component was built for another contract.
    #[error("plugin `{name}` speaks contract {found}, this host speaks {supported}; rebuild it with a matching SDK")]
    ContractVersion {
        /// The plugin as the pipeline names it.
        name: String,
        /// The version it was built against.
        found: String,
        /// The version of this host.
        supported: String,
    },
    /// The component plays another role.
    #[error("plugin `{name}` is used as a {wanted}, but it is a {found}")]
    WrongRole {
        /// The plugin as the pipeline names it.
        name: String,
        /// The role it is used in.
        wanted: Role,
        /// The role it says it plays.
        found: String,
    },
    /// The component exports something that its role does not have.
    #[error("plugin `{name}` exports `{export}`, which a {role} does not have")]
    UnexpectedExport {
        /// The plugin as the pipeline names it.
        name: String,
        /// The export.
        export: String,
        /// Its role.
        role: Role,
    },
    /// The component imports what it was not granted.
    #[error("plugin `{name}` imports `{interface}`, which needs the capability `{capability}`; it is not granted: {grant_with}")]
    NotGranted {
        /// The plugin as the pipeline names it.
        name: String,
        /// The interface it imports.
        interface: String,
        /// The capability that opens it.
        capability: String,
        /// The line of the pipeline that would grant it.
        grant_with: String,
    },
    /// The component imports what no grant can open.
    #[error("plugin `{name}` imports `{interface}`, which this host does not offer under any grant")]
    UnknownImport {
        /// The plugin as the pipeline names it.
        name: String,
        /// The interface it imports.
        interface: String,
    },
    /// A grant cannot be given.
    #[error("the grant at `plugins.{name}.grants.{grant}` cannot be given: {reason}")]
    BadGrant {
        /// The plugin as the pipeline names it.
        name: String,
        /// The grant.
        grant: String,
        /// Why.
        reason: String,
    },
    /// The component does not compile.
    #[error("plugin `{name}` does not compile: {reason}")]
    Compile {
        /// The plugin as the pipeline names it.
        name: String,
        /// What the compiler said.
        reason: String,
    },
    /// Compiling took too long.
    #[error("plugin `{name}` was still compiling after {limit_seconds} s")]
    CompileTimeout {
        /// The plugin as the pipeline names it.
        name: String,
        /// The limit.
        limit_seconds: u64,
    },
    /// The audit log could not be written, so the plugin was not loaded.
    #[error("the audit log refused the record of loading plugin `{name}`: {reason}")]
    Audit {
        /// The plugin as the pipeline names it.
        name: String,
        /// What the log said.
        reason: String,
    },
}
