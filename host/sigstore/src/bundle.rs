//! Checks a bundle.
//!
//! Beyond `sigstore-verify`: one bundle has one entry of one log, whose checkpoint is signed by the
//! key of that very log; the size of the tree is that of the checkpoint; an entry of the first Rekor
//! has its promise, without which its number in the log is only said; an attestation says where the
//! file comes from or that it was signed, and not just anything about it.

use sandcast_audit::CertifiedSigner;
use sigstore_verify::crypto::{SubjectAltName, VerificationKey, parse_certificate_info};
use sigstore_verify::types::bundle::VerificationMaterialContent;
use sigstore_verify::types::{
    Bundle, DsseEnvelope, KindVersion, MediaType, SignatureContent, Statement, TransparencyLogEntry,
};
use sigstore_verify::{VerificationPolicy, VerificationResult, Verifier};

use crate::fault::{BundleFault, clean};
use crate::ring;
use crate::root::TrustRoot;

/// The longest bundle that is read; those of signed files have some 10 KiB.
pub const MAX_BUNDLE_BYTES: usize = 256 << 10;

/// Each timestamp costs several signatures.
const MAX_TIMESTAMPS: usize = 4;

/// The longest identity and issuer that are taken.
const MAX_NAME_BYTES: usize = 1024;

/// What may be attested of a file for the attestation to be a signature of it: where it comes
/// from, or that it was signed. A finding about it, such as a failed test, is none.
const STATEMENTS: [&str; 4] = [
    "https://slsa.dev/provenance/v1",
    "https://slsa.dev/provenance/v0.2",
    "https://sigstore.dev/cosign/sign/v1",
    "https://in-toto.io/attestation/release/v0.1",
];

/// Who signed `file`, by its bundle, under a root of trust. Anybody may have: whether it is somebody
/// who should have is for the caller to ask.
///
/// # Errors
/// If any part of the bundle does not hold.
pub fn verify(file: &[u8], bundle: &str, root: &TrustRoot) -> Result<CertifiedSigner, BundleFault> {
    if bundle.len() > MAX_BUNDLE_BYTES {
        return Err(BundleFault::TooLarge {
            limit_bytes: MAX_BUNDLE_BYTES,
        });
    }
    ring::install();
    let bundle = Bundle::from_json(bundle).map_err(|error| BundleFault::Malformed {
        what: clean(&error.to_string()),
    })?;
    check_kind(&bundle)?;
    let entry = only_entry(&bundle)?;
    let statement = match &bundle.content {
        SignatureContent::DsseEnvelope(envelope) => Some(statement_of(envelope)?),
        _ => None,
    };
    let verifier = verifier(root, entry)?;
    let found = check(file, &bundle, &verifier)?;
    signer(&found, entry, statement, root)
}

/// A bundle of the present version, signed with a certificate.
fn check_kind(bundle: &Bundle) -> Result<(), BundleFault> {
    let unsupported = |what: &str| {
        Err(BundleFault::Unsupported {
            what: what.to_owned(),
        })
    };
    if bundle.media_type() != MediaType::Bundle0_3 {
        return unsupported("its version is not 0.3; sign with a newer cosign");
    }
    let material = &bundle.verification_material;
    match material.content {
        VerificationMaterialContent::Certificate(_) => {}
        VerificationMaterialContent::PublicKey(_) => {
            return unsupported("it is signed with a bare key and names nobody");
        }
        _ => return unsupported("it has no single certificate"),
    }
    if material
        .timestamp_verification_data
        .rfc3161_timestamps
        .len()
        > MAX_TIMESTAMPS
    {
        return unsupported("it has more than 4 timestamps");
    }
    Ok(())
}

/// The one entry of a log that the bundle has, with everything that must be in it.
fn only_entry(bundle: &Bundle) -> Result<&TransparencyLogEntry, BundleFault> {
    let log = |what: &str| BundleFault::Log {
        what: what.to_owned(),
    };
    let entry = match &bundle.verification_material.tlog_entries[..] {
        [entry] => entry,
        [] => return Err(log("it has none, so nobody can see that it was signed")),
        _ => return Err(log("it has more than one")),
    };
    let proof = entry.inclusion_proof.as_ref();
    let proof = proof.ok_or_else(|| log("there is no proof that the log has it"))?;
    let checkpoint = proof.checkpoint.checkpoint();
    let checkpoint = checkpoint.ok_or_else(|| log("there is no checkpoint of the log"))?;
    if entry.kind_version != KindVersion::HashedRekordV002 {
        if entry.inclusion_promise.is_none() || entry.integrated_time.is_none() {
            return Err(log("there is no promise of the log with number and time"));
        }
        if proof.tree_size != checkpoint.tree_size() {
            return Err(log(
                "the proof is of another size of the log than the checkpoint",
            ));
        }
    }
    Ok(entry)
}

/// The kind of a statement about a file.
fn statement_of(envelope: &DsseEnvelope) -> Result<String, BundleFault> {
    let statement = serde_json::from_slice(envelope.payload.as_bytes());
    let statement: Statement = statement.map_err(|error| BundleFault::Malformed {
        what: clean(&format!("its statement: {error}")),
    })?;
    let kind = statement.predicate_type;
    if STATEMENTS.contains(&kind.as_str()) {
        Ok(kind)
    } else {
        let what = format!(
            "it attests `{kind}`, which does not say where the file is from; taken are {}",
            STATEMENTS.join(", ")
        );
        Err(BundleFault::Unsupported { what: clean(&what) })
    }
}

/// A verifier that knows the log of the entry and no other, so that no other log's checkpoint
/// counts for it.
fn verifier(root: &TrustRoot, entry: &TransparencyLogEntry) -> Result<Verifier, BundleFault> {
    let mut root = root.root.clone();
    root.tlogs
        .retain(|log| log.log_id.key_id == entry.log_id.key_id);
    if root.tlogs.is_empty() {
        return Err(BundleFault::Log {
            what: "the log is none of those in the root of trust".to_owned(),
        });
    }
    Verifier::new(&root).map_err(|error| BundleFault::of(&error))
}

fn check(
    file: &[u8],
    bundle: &Bundle,
    verifier: &Verifier,
) -> Result<VerificationResult, BundleFault> {
    let malformed = |error: sigstore_verify::crypto::Error| BundleFault::Certificate {
        what: clean(&error.to_string()),
    };
    let certificate = bundle.signing_certificate();
    let certificate = certificate.ok_or_else(|| BundleFault::Unsupported {
        what: "it has no certificate".to_owned(),
    })?;
    let certificate = parse_certificate_info(certificate).map_err(malformed)?;
    let algorithm = certificate.key_algorithm;
    let scheme = match &bundle.content {
        SignatureContent::MessageSignature(message) => match &message.message_digest {
            Some(digest) => algorithm.resolve_signing_scheme(digest.algorithm),
            None => Ok(algorithm.default_signing_scheme()),
        },
        _ => Ok(algorithm.default_signing_scheme()),
    }
    .map_err(malformed)?;
    if !ring::is_supported(scheme) {
        return Err(BundleFault::Unsupported {
            what: format!(
                "this host cannot check signatures of the kind {}",
                scheme.name()
            ),
        });
    }
    // Who it must be is asked by the caller, of what is returned here.
    let policy = VerificationPolicy::any_identity();
    let verify = || {
        verifier
            .verify(file, bundle, &policy)
            .map_err(|error| BundleFault::of(&error))
    };
    let SignatureContent::MessageSignature(message) = &bundle.content else {
        return verify();
    };
    let key = VerificationKey::from_spki_with_scheme(&certificate.public_key, scheme);
    let key = key.map_err(malformed)?;
    ring::with_message(&key, file, &message.signature, verify)
}

fn signer(
    found: &VerificationResult,
    entry: &TransparencyLogEntry,
    statement: Option<String>,
    root: &TrustRoot,
) -> Result<CertifiedSigner, BundleFault> {
    let certificate = |what: &str| BundleFault::Certificate {
        what: what.to_owned(),
    };
    // That it was asked for is not relied on.
    if !(found.certificate_verified() && found.sct_verified() && found.tlog_verified()) {
        return Err(certificate("not every part of it was checked"));
    }
    let time = found.verified_timestamps().iter().min();
    let time = *time.ok_or_else(|| BundleFault::Time {
        what: "there is none".to_owned(),
    })?;
    let identity = match found.identity() {
        // Addresses and URIs cannot be taken for each other, so that a rule needs no kinds.
        Some(SubjectAltName::Email(email)) if !email.contains("://") => email,
        Some(SubjectAltName::Uri(uri)) if uri.contains("://") => uri,
        Some(_) => {
            return Err(certificate(
                "it names its holder in a way that is not taken",
            ));
        }
        None => return Err(certificate("it names no e-mail address and no URI")),
    };
    let issuer = found.issuer();
    let issuer = issuer.ok_or_else(|| certificate("it does not say who issued the identity"))?;
    for name in [identity.as_str(), issuer] {
        if name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
            return Err(certificate(
                "a name in it is too long, or has control characters",
            ));
        }
    }
    Ok(CertifiedSigner {
        identity: identity.clone(),
        issuer: issuer.to_owned(),
        log: hex(entry.log_id.key_id.as_bytes()),
        log_index: entry.log_index.get(),
        time,
        statement,
        trust_root: root.digest,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
