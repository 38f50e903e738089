//! Who signed a file by a Sigstore bundle, as `cosign sign-blob --bundle` and GitHub's attestations
//! make them: version 0.3, JSON. It is held against a root of trust that is given; nothing is ever
//! fetched.
//!
//! `sigstore-verify` checks the certificate's chain at every time that is vouched for, its entry in
//! a certificate log, the inclusion in the transparency log, the signatures, and that all of them are
//! of one file. What it leaves open is checked here ([`bundle`]).

pub mod bundle;
mod fault;
mod ring;
mod root;

#[cfg(test)]
mod tests;

pub use bundle::{MAX_BUNDLE_BYTES, verify};
pub use fault::BundleFault;
pub use root::{MAX_ROOT_BYTES, RootFault, TrustRoot};
