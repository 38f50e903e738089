//! Who signed a component by Sigstore: a bundle beside it, with a certificate that names an identity and
//! who issued it, held against a root of trust that the operator gives.

use std::sync::Arc;

use sandcast_audit::{CertifiedSigner, Digest};
use sandcast_sigstore::TrustRoot;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SignatureError;
use crate::manifest::Role;
use crate::text;

/// An identity that may sign, as its certificate names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentityRule {
    /// An e-mail address or a URI, whole. A URI may end in `*` behind its host, for every identity
    /// that begins so.
    pub identity: String,
    /// Who issued the identity, whole: a URL such as
    /// `https://token.actions.githubusercontent.com`.
    pub issuer: String,
    /// The root of trust: a `trusted_root.json`, relative to this file. Once it is read, what it says.
    pub trust_root: Arc<str>,
    /// If given, only the root of trust with this blake3 digest (64 hex digits) is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = r"^[0-9a-f]{64}$"))]
    pub trust_root_digest: Option<Digest>,
}

impl IdentityRule {
    /// What is wrong with it: the field, what, and what to do.
    pub(super) fn problem(&self) -> Option<(&'static str, String, &'static str)> {
        const IDENTITY: &str = "write an e-mail address, or a URI such as \
            `https://github.com/acme/fetch/.github/workflows/release.yml@refs/tags/*`";
        let identity = self.identity.as_str();
        let fault = |what: &str| format!("`{}` {what}", text::sentence(identity, 128));
        let (start, is_prefix) = match identity.strip_suffix('*') {
            Some(start) => (start, true),
            None => (identity, false),
        };
        let path = start
            .split_once("://")
            .map(|(_, rest)| rest.split_once('/'));
        let message = match path {
            _ if start.contains('*') => Some(fault("has a `*` before its end")),
            _ if start
                .chars()
                .any(|it| it.is_control() || it.is_whitespace()) =>
            {
                Some(fault("has spaces or control characters"))
            }
            // Else `https://github.com*` would be that of `https://github.com.example`.
            Some(None | Some(("", _))) if is_prefix => {
                Some(fault("leaves the host open, so it would be everybody's"))
            }
            None if is_prefix => Some(fault("leaves open whose address it is")),
            None if !start.contains('@') => Some(fault("is neither an address nor a URI")),
            _ => None,
        };
        if let Some(message) = message {
            return Some(("identity", message, IDENTITY));
        }
        let rest = self.issuer.strip_prefix("https://");
        if rest.is_none_or(|rest| rest.is_empty() || rest.contains('*')) {
            return Some((
                "issuer",
                format!(
                    "`{}` is not a URL of https",
                    text::sentence(&self.issuer, 128)
                ),
                "write the issuer of the identity, whole, as the certificate names it",
            ));
        }
        None
    }

    /// Whether the root of trust is there, and not just the name of its file.
    pub fn has_root(&self) -> bool {
        self.trust_root.trim_start().starts_with('{')
    }

    pub(super) fn put_root_in(
        &mut self,
        read: &mut impl FnMut(&str) -> Result<String, String>,
    ) -> Result<(), String> {
        if !self.has_root() {
            self.trust_root = read(&self.trust_root)?.into();
        }
        self.root().map(|_| ())
    }

    /// The root of trust, once it was put in.
    fn root(&self) -> Result<TrustRoot, String> {
        if !self.has_root() {
            return Err(format!(
                "`{}` was not read, or is none",
                text::sentence(&self.trust_root, 128)
            ));
        }
        let root = TrustRoot::parse(&self.trust_root).map_err(|fault| fault.to_string())?;
        match self.trust_root_digest {
            Some(wanted) if wanted != root.digest() => Err(format!(
                "it has the digest {}, and {wanted} is wanted",
                root.digest()
            )),
            _ => Ok(root),
        }
    }

    fn allows(&self, signer: &CertifiedSigner) -> bool {
        let is_identity = match self.identity.strip_suffix('*') {
            Some(start) => signer.identity.starts_with(start),
            None => signer.identity == self.identity,
        };
        is_identity && signer.issuer == self.issuer
    }
}

/// A signer in a few words.
pub(super) fn named(signer: &CertifiedSigner) -> String {
    let identity = text::sentence(&signer.identity, 256);
    format!(
        "{identity} (issued by {})",
        text::sentence(&signer.issuer, 256)
    )
}

/// Which signer of a component some identities allow, by its bundle.
///
/// # Errors
/// When there is no bundle, it does not hold under any of their roots of trust, or another signed.
pub fn verify_bundle(
    role: Role,
    component: &[u8],
    bundle: Option<&str>,
    identities: &[IdentityRule],
) -> Result<CertifiedSigner, SignatureError> {
    let bundle = bundle.ok_or(SignatureError::NoBundle)?;
    let mut refused = None;
    let mut other = None;
    for (index, rule) in identities.iter().enumerate() {
        // Most rules are under one root, which is asked once.
        let is_known = |earlier: &IdentityRule| earlier.trust_root == rule.trust_root;
        if identities[..index].iter().any(is_known) {
            continue;
        }
        let root = rule.root();
        let root = root.map_err(|what| SignatureError::Root { role, index, what })?;
        let signer = match sandcast_sigstore::verify(component, bundle, &root) {
            Ok(signer) => signer,
            Err(fault) => {
                refused.get_or_insert(fault);
                continue;
            }
        };
        let mut rules = identities.iter();
        if rules.any(|it| it.trust_root == rule.trust_root && it.allows(&signer)) {
            return Ok(signer);
        }
        other.get_or_insert(named(&signer));
    }
    match (other, refused) {
        (Some(signer), _) => Err(SignatureError::OtherIdentity { role, signer }),
        (None, Some(fault)) => Err(SignatureError::Bundle(fault)),
        (None, None) => Err(SignatureError::NoBundle),
    }
}
