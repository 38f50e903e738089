//! What a component is, read from its bytes without running or compiling it.

use sandcast_audit::Digest;
use serde::Serialize;

use crate::grants::Capability;
use crate::load::LoadError;
use crate::manifest::{Manifest, Role};

/// An interface a component imports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Import {
    /// The full name, such as `wasi:filesystem/types@0.2.12`.
    pub interface: String,
    /// The functions and resource methods imported from it.
    pub functions: Vec<String>,
    /// The capability that opens it; none for the data types every plugin has, and for noise.
    pub capability: Option<Capability>,
    /// True for what a guest's standard library imports without being asked: linked, when it is
    /// not granted, to stubs that deny, log and count.
    pub noise: bool,
}

/// What a component is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// blake3 of the component.
    pub digest: Digest,
    /// The size of the component.
    pub size_bytes: u64,
    /// What it says about itself.
    pub manifest: Manifest,
    /// The part it plays.
    pub role: Role,
    /// The contract version found in the names of its imports and exports.
    pub contract: String,
    /// What it imports.
    pub imports: Vec<Import>,
    /// What it exports.
    pub exports: Vec<String>,
}

/// Reads what a component is. Nothing is compiled or run.
///
/// # Errors
/// When the bytes are not a component, carry no manifest, or speak another contract.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, LoadError> {
    let _ = bytes;
    unimplemented!()
}
