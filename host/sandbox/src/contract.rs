//! The contract that this host speaks.

use crate::manifest::Role;

/// The version of the package `sandcast:plugin`.
pub(crate) const CONTRACT_VERSION: &str = "0.1.0";

/// The package itself.
pub(crate) const CONTRACT_PACKAGE: &str = "sandcast:plugin";

/// The interface that a role exports.
pub(crate) fn role_export(role: Role) -> String {
    format!("{CONTRACT_PACKAGE}/{role}@{CONTRACT_VERSION}")
}
