//! The contract that this host speaks.

use crate::manifest::Role;

/// The version of the package `sandcast:plugin`.
pub(crate) const CONTRACT_VERSION: &str = "0.1.0";

/// The package itself.
pub(crate) const CONTRACT_PACKAGE: &str = "sandcast:plugin";

/// What tools for interpreters export beside the role: they call it when they write the component, to
/// start the interpreter once and for all. This host calls nothing but the role, so it opens nothing.
/// `exports` is that of componentize-py.
const TOOL_EXPORTS: [&str; 1] = ["exports"];

/// Whether an export is one that a tool leaves behind, and nobody calls.
pub(crate) fn is_tool_export(export: &str) -> bool {
    TOOL_EXPORTS.contains(&export)
}

/// The interface that a role exports.
pub(crate) fn role_export(role: Role) -> String {
    format!("{CONTRACT_PACKAGE}/{role}@{CONTRACT_VERSION}")
}
