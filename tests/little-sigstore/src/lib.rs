//! A small Sigstore of one's own: authorities, logs and bundles that hold under its root of trust, and
//! parts that can be taken from another one. For tests; its keys are gone when it is.

#![expect(
    clippy::expect_used,
    reason = "tests end where something cannot be made"
)]

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType,
    SigningKey as _,
};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use time::OffsetDateTime;

/// How long a certificate is valid.
const VALID_SECONDS: i64 = 600;

/// The number of an entry in all of the log, as against in its present tree.
const INDEX: u64 = 4711;

/// A Sigstore with everything that it takes.
#[derive(Clone)]
pub struct LittleSigstore {
    /// Issues certificates.
    pub authority: Arc<Authority>,
    /// The key of the log of certificates.
    pub certificates: Arc<KeyPair>,
    /// The key of the log of signatures.
    pub log: Arc<KeyPair>,
}

/// A certificate authority: a root, and what it has certified to issue certificates.
pub struct Authority {
    root: Vec<u8>,
    intermediate: Vec<u8>,
    params: CertificateParams,
    key: KeyPair,
}

/// Who signs, and how.
#[derive(Clone, Debug)]
pub struct Signing<'a> {
    /// The e-mail address or URI of the certificate.
    pub identity: Option<&'a str>,
    /// Who issued that identity.
    pub issuer: Option<&'a str>,
    /// Seconds from when the certificate begins to be valid to when the log took the entry.
    pub logged_after: i64,
    /// Whether the certificate is in a log.
    pub is_in_log: bool,
    /// Whether the certificate is for signing code.
    pub is_for_code: bool,
}

impl<'a> Signing<'a> {
    /// As it should be.
    pub fn by(identity: &'a str, issuer: &'a str) -> Self {
        Self {
            identity: Some(identity),
            issuer: Some(issuer),
            logged_after: 60,
            is_in_log: true,
            is_for_code: true,
        }
    }
}

/// What is signed of a file.
enum Content<'a> {
    File(&'a [u8]),
    Statement(String),
}

impl LittleSigstore {
    /// A new one.
    #[expect(clippy::new_without_default, reason = "each has keys of its own")]
    pub fn new() -> Self {
        Self {
            authority: Arc::new(Authority::new()),
            certificates: Arc::new(key()),
            log: Arc::new(key()),
        }
    }

    /// Its `trusted_root.json`.
    pub fn trusted_root(&self) -> Value {
        let log = |key: &KeyPair| {
            json!({
                "baseUrl": "https://log.example",
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": STANDARD.encode(key.subject_public_key_info()),
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": { "start": "2020-01-01T00:00:00Z" },
                },
                "logId": { "keyId": STANDARD.encode(log_id(key)) },
            })
        };
        let certificates = [&self.authority.intermediate, &self.authority.root]
            .map(|certificate| json!({ "rawBytes": STANDARD.encode(certificate) }));
        json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(&self.log)],
            "certificateAuthorities": [{
                "subject": { "organization": "example", "commonName": "little" },
                "uri": "https://ca.example",
                "certChain": { "certificates": certificates },
                "validFor": { "start": "2020-01-01T00:00:00Z" },
            }],
            "ctlogs": [log(&self.certificates)],
        })
    }

    /// A bundle of a signature, as `cosign sign-blob` makes it.
    pub fn sign(&self, file: &[u8], signing: &Signing<'_>) -> Value {
        self.bundle(&Content::File(file), signing)
    }

    /// A bundle of a statement about a file, as GitHub's attestations are.
    pub fn attest(&self, file: &[u8], kind: &str, signing: &Signing<'_>) -> Value {
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{ "name": "plugin.wasm", "digest": { "sha256": hex(&sha256(file)) } }],
            "predicateType": kind,
            "predicate": {},
        });
        self.bundle(&Content::Statement(statement.to_string()), signing)
    }

    fn bundle(&self, content: &Content<'_>, signing: &Signing<'_>) -> Value {
        let key = key();
        let begins = now() - 1000;
        let certificate = self.certificate(&key, begins, signing);
        let pem = STANDARD.encode(certificate.pem());
        let (kind, body, field, value) = match content {
            Content::File(file) => {
                let signature = STANDARD.encode(key.sign(file).expect("signed"));
                let digest = sha256(file);
                let body = json!({
                    "apiVersion": "0.0.1",
                    "kind": "hashedrekord",
                    "spec": {
                        "data": { "hash": { "algorithm": "sha256", "value": hex(&digest) } },
                        "signature": { "content": signature, "publicKey": { "content": pem } },
                    },
                });
                let value = json!({
                    "messageDigest": { "algorithm": "SHA2_256", "digest": STANDARD.encode(digest) },
                    "signature": signature,
                });
                ("hashedrekord", body, "messageSignature", value)
            }
            Content::Statement(text) => {
                const TYPE: &str = "application/vnd.in-toto+json";
                let encoded = format!("DSSEv1 {} {TYPE} {} {text}", TYPE.len(), text.len());
                let signature = STANDARD.encode(key.sign(encoded.as_bytes()).expect("signed"));
                let hash = hex(&sha256(text.as_bytes()));
                let body = json!({
                    "apiVersion": "0.0.1",
                    "kind": "dsse",
                    "spec": {
                        "envelopeHash": { "algorithm": "sha256", "value": hash },
                        "payloadHash": { "algorithm": "sha256", "value": hash },
                        "signatures": [{ "signature": signature, "verifier": pem }],
                    },
                });
                let value = json!({
                    "payload": STANDARD.encode(text),
                    "payloadType": TYPE,
                    "signatures": [{ "sig": signature }],
                });
                ("dsse", body, "dsseEnvelope", value)
            }
        };
        let entry = self.entry(kind, &body.to_string(), begins + signing.logged_after);
        let mut bundle = json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "certificate": { "rawBytes": STANDARD.encode(certificate.der()) },
                "tlogEntries": [entry],
            },
        });
        bundle[field] = value;
        bundle
    }

    /// An entry between two others in a log of three.
    fn entry(&self, kind: &str, body: &str, time: i64) -> Value {
        let leaf = |bytes: &[u8]| sha256(&[&[0], bytes].concat());
        let node = |left: &[u8], right: &[u8]| sha256(&[&[1], left, right].concat());
        let (first, last) = (leaf(b"first"), leaf(b"last"));
        let root = node(&node(&first, &leaf(body.as_bytes())), &last);
        let id = log_id(&self.log);
        let note = format!("log.example - 1\n3\n{}\n", STANDARD.encode(&root));
        let signature = self.log.sign(note.as_bytes()).expect("signed");
        let signature = STANDARD.encode([&id[..4], &signature].concat());
        let promised = json!({
            "body": STANDARD.encode(body),
            "integratedTime": time,
            "logID": hex(&id),
            "logIndex": INDEX,
        });
        // Keys are sorted, and nothing in it would have another form in canonical JSON.
        let promise = self.log.sign(promised.to_string().as_bytes());
        json!({
            "logIndex": INDEX.to_string(),
            "logId": { "keyId": STANDARD.encode(&id) },
            "kindVersion": { "kind": kind, "version": "0.0.1" },
            "integratedTime": time.to_string(),
            "inclusionPromise": {
                "signedEntryTimestamp": STANDARD.encode(promise.expect("signed")),
            },
            "inclusionProof": {
                "logIndex": "1",
                "rootHash": STANDARD.encode(root),
                "treeSize": "3",
                "hashes": [STANDARD.encode(first), STANDARD.encode(last)],
                "checkpoint": { "envelope": format!("{note}\n\u{2014} log.example {signature}\n") },
            },
            "canonicalizedBody": STANDARD.encode(body),
        })
    }

    fn certificate(&self, key: &KeyPair, begins: i64, signing: &Signing<'_>) -> Certificate {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.not_before = at(begins);
        params.not_after = at(begins + VALID_SECONDS);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![if signing.is_for_code {
            ExtendedKeyUsagePurpose::CodeSigning
        } else {
            ExtendedKeyUsagePurpose::ServerAuth
        }];
        if let Some(identity) = signing.identity {
            let name = identity.try_into().expect("ASCII");
            params.subject_alt_names = vec![if identity.contains("://") {
                SanType::URI(name)
            } else {
                SanType::Rfc822Name(name)
            }];
        }
        if let Some(issuer) = signing.issuer {
            params
                .custom_extensions
                .push(CustomExtension::from_oid_content(
                    &[1, 3, 6, 1, 4, 1, 57264, 1, 8],
                    short_der(0x0c, issuer.as_bytes()),
                ));
        }
        let issuer = Issuer::from_params(&self.authority.params, &self.authority.key);
        let before = params.signed_by(key, &issuer).expect("a certificate");
        if !signing.is_in_log {
            return before;
        }
        // The log signs the certificate as it is without its own signature in it (RFC 6962).
        let receipt = self.receipt(to_be_signed(before.der()), begins);
        params
            .custom_extensions
            .push(CustomExtension::from_oid_content(
                &[1, 3, 6, 1, 4, 1, 11129, 2, 4, 2],
                short_der(0x04, &receipt),
            ));
        params.signed_by(key, &issuer).expect("a certificate")
    }

    /// The list of one signed certificate timestamp.
    fn receipt(&self, certificate: &[u8], time: i64) -> Vec<u8> {
        let milliseconds = (time * 1000).to_be_bytes();
        let of_issuer = sha256(&self.authority.key.subject_public_key_info());
        let length = u32::try_from(certificate.len())
            .expect("short")
            .to_be_bytes();
        let signed = [
            &[0, 0][..],
            &milliseconds,
            &[0, 1],
            &of_issuer,
            &length[1..],
            certificate,
            &[0, 0],
        ]
        .concat();
        let signature = self.certificates.sign(&signed).expect("signed");
        let id = log_id(&self.certificates);
        let head: [&[u8]; 5] = [&[0], &id, &milliseconds, &[0, 0], &[4, 3]];
        let timestamp = [head.concat(), with_length(&signature)].concat();
        with_length(&with_length(&timestamp))
    }
}

impl Authority {
    fn new() -> Self {
        let params = |name: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            params.not_before = at(now() - 1_000_000);
            params.not_after = at(now() + 1_000_000);
            params
        };
        let (of_root, key_of_root) = (params("little root"), key());
        let root = of_root.self_signed(&key_of_root).expect("a certificate");
        let (params, key) = (params("little intermediate"), key());
        let issuer = Issuer::from_params(&of_root, &key_of_root);
        let intermediate = params.signed_by(&key, &issuer).expect("a certificate");
        Self {
            root: root.der().to_vec(),
            intermediate: intermediate.der().to_vec(),
            params,
            key,
        }
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("random")
}

fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(elapsed.expect("after 1970").as_secs()).expect("not so long")
}

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).expect("a time")
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest(&SHA256, bytes).as_ref().to_vec()
}

fn log_id(key: &KeyPair) -> Vec<u8> {
    sha256(&key.subject_public_key_info())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes behind their length in two bytes, as TLS writes them.
fn with_length(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("short").to_be_bytes();
    [&length[..], bytes].concat()
}

/// A value of DER of less than 128 bytes.
fn short_der(tag: u8, bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 128, "it has a long form");
    let length = u8::try_from(bytes.len()).expect("short");
    [&[tag, length][..], bytes].concat()
}

/// The first part of a certificate: what its issuer has signed.
fn to_be_signed(certificate: &[u8]) -> &[u8] {
    let inner = &certificate[header(certificate).0..];
    let (start, length) = header(inner);
    &inner[..start + length]
}

/// How long the head of a value of DER is, and what it says of the rest.
fn header(der: &[u8]) -> (usize, usize) {
    match der[1] {
        short @ 0..128 => (2, usize::from(short)),
        long => {
            let bytes = usize::from(long & 0x7f);
            let length = der[2..2 + bytes].iter();
            let length = length.fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            (2 + bytes, length)
        }
    }
}
