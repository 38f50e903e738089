//! Signed envelopes for what is not a note: DSSE
//! (<https://github.com/secure-systems-lab/dsse>, version 1.0.2), with Ed25519 signatures.
//!
//! What is signed begins with `DSSEv1 `, which no heading of a note and no name of a log does, so a
//! signature made here means nothing there.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::note::{LogKey, VerifierKey};

/// Longer envelopes than this are refused before anything of them is looked at.
const MAX_ENVELOPE_BYTES: usize = 4 << 20;
/// More signatures than this are refused; each costs some work.
const MAX_SIGNATURES: usize = 64;

/// What is wrong with an envelope.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EnvelopeFault {
    /// It is not an envelope.
    #[error("it is not a signed envelope (DSSE): {what}")]
    Malformed {
        /// What is wrong with it.
        what: String,
    },
    /// None of the wanted keys signed it.
    #[error("none of the wanted keys signed it; signed by {}", if signers.is_empty() { "nobody" } else { signers })]
    OtherKey {
        /// The ids of the keys that say they did, made fit to be shown.
        signers: String,
    },
    /// There is a signature with the id of a wanted key, and it does not fit.
    #[error("the signature of `{key}` does not fit: the envelope was changed")]
    Forged {
        /// The id of the key.
        key: String,
    },
}

/// An envelope, taken apart; nothing of it is checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    payload_type: String,
    payload: Vec<u8>,
    signatures: Vec<(String, [u8; 64])>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    payload: String,
    payload_type: String,
    signatures: Vec<WrittenSignature>,
}

#[derive(Serialize, Deserialize)]
struct WrittenSignature {
    #[serde(default)]
    keyid: String,
    sig: String,
}

/// PAE, "pre-authentication encoding": what is really signed.
fn encoded(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    )
    .into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// Both base64 alphabets are allowed, padded or not.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let lenient =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let standard = GeneralPurpose::new(&alphabet::STANDARD, lenient);
    let of_urls = GeneralPurpose::new(&alphabet::URL_SAFE, lenient);
    let found = standard.decode(text);
    found.or_else(|_| of_urls.decode(text)).ok()
}

/// The id that a key goes by in an envelope: its name and hash.
fn key_id(key: &VerifierKey) -> String {
    format!("{}+{:08x}", key.name(), key.hash())
}

impl LogKey {
    /// The envelope with this payload and one signature, as JSON.
    #[must_use]
    pub fn seal(&self, payload_type: &str, payload: &[u8]) -> String {
        let signature = self.sign_bytes(&encoded(payload_type, payload));
        let written = Written {
            payload: STANDARD.encode(payload),
            payload_type: payload_type.to_owned(),
            signatures: vec![WrittenSignature {
                keyid: key_id(&self.verifier()),
                sig: STANDARD.encode(signature),
            }],
        };
        // Three texts: this always has a JSON form.
        let mut json = serde_json::to_string(&written).unwrap_or_default();
        json.push('\n');
        json
    }
}

impl Envelope {
    /// Takes an envelope apart.
    ///
    /// # Errors
    /// When it is not one.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeFault> {
        let malformed = |what: String| EnvelopeFault::Malformed { what };
        if bytes.len() > MAX_ENVELOPE_BYTES {
            return Err(malformed(format!("over {MAX_ENVELOPE_BYTES} bytes")));
        }
        let written: Written =
            serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        if written.signatures.len() > MAX_SIGNATURES {
            return Err(malformed(format!("over {MAX_SIGNATURES} signatures")));
        }
        let payload = decoded(&written.payload)
            .ok_or_else(|| malformed("its payload is not base64".to_owned()))?;
        let signatures = written.signatures.into_iter().map(|it| {
            let bytes = decoded(&it.sig)
                .ok_or_else(|| malformed("a signature is not base64".to_owned()))?;
            // Those of other algorithms are passed over.
            Ok((it.keyid, bytes.try_into().unwrap_or([0; 64])))
        });
        Ok(Self {
            payload_type: written.payload_type,
            payload,
            signatures: signatures.collect::<Result<_, EnvelopeFault>>()?,
        })
    }

    /// The payload, after checking its type and that one of the keys signed it; with the keys that did.
    ///
    /// # Errors
    /// When the type is another, or none of the keys signed it.
    pub fn open(
        &self,
        payload_type: &str,
        keys: &[VerifierKey],
    ) -> Result<(&[u8], Vec<VerifierKey>), EnvelopeFault> {
        if self.payload_type != payload_type {
            return Err(EnvelopeFault::Malformed {
                what: format!("it does not hold `{payload_type}`"),
            });
        }
        let signed = encoded(&self.payload_type, &self.payload);
        let mut signers: Vec<VerifierKey> = Vec::new();
        let mut forged = None;
        for key in keys {
            let id = key_id(key);
            // The id is a hint that nobody has signed: a signature may be another's, or have none.
            let holds = |signature: &[u8; 64]| key.has_signed(&signed, signature);
            if self
                .signatures
                .iter()
                .any(|(_, signature)| holds(signature))
            {
                if !signers.contains(key) {
                    signers.push(key.clone());
                }
            } else if self.signatures.iter().any(|(other, _)| *other == id) {
                forged.get_or_insert(id);
            }
        }
        match (signers.is_empty(), forged) {
            (false, _) => Ok((&self.payload, signers)),
            (true, Some(key)) => Err(EnvelopeFault::Forged { key }),
            (true, None) => {
                let ids = self.signatures.iter().map(|(id, _)| id.as_str());
                let signers = ids.collect::<Vec<_>>().join(", ");
                let shown = signers.chars().filter(|letter| !letter.is_control());
                Err(EnvelopeFault::OtherKey {
                    signers: shown.take(512).collect(),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "application/vnd.in-toto+json";

    fn key(name: &str) -> LogKey {
        LogKey::generate(name).expect("random")
    }

    #[test]
    fn what_is_signed_is_as_the_protocol_has_it() {
        // The example of the protocol's own text.
        assert_eq!(
            encoded("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }

    #[test]
    fn what_a_key_sealed_it_opens_and_no_other_does() {
        let (acme, other) = (key("acme.example"), key("other.example"));
        let sealed = acme.seal(TYPE, b"{}");
        let envelope = Envelope::parse(sealed.as_bytes()).expect("an envelope");
        let keys = [other.verifier(), acme.verifier()];
        assert_eq!(
            envelope.open(TYPE, &keys),
            Ok((&b"{}"[..], vec![acme.verifier()]))
        );
        let error = envelope.open(TYPE, &keys[..1]).expect_err("another key");
        assert!(error.to_string().contains("acme.example+"), "{error}");
        assert!(matches!(
            envelope.open("text/plain", &keys),
            Err(EnvelopeFault::Malformed { .. })
        ));
        // The id is a hint: without it the signature still counts.
        let id = key_id(&acme.verifier());
        let nameless = sealed.replace(&id, "");
        let envelope = Envelope::parse(nameless.as_bytes()).expect("an envelope");
        assert!(envelope.open(TYPE, &keys).is_ok());
        // A note of the same key is no envelope's signature.
        let stolen = envelope.signatures[0].1;
        assert!(!acme.verifier().has_signed(b"{}", &stolen));
    }

    #[test]
    fn any_changed_character_is_found() {
        let acme = key("acme.example");
        let keys = [acme.verifier()];
        let sealed = acme.seal(TYPE, b"{\"a\":1}");
        let id = key_id(&keys[0]);
        let start = sealed.find("keyid").expect("the hint");
        let hint = start..sealed.find(&id).expect("the id") + id.len();
        for place in 0..sealed.len() {
            let mut bytes = sealed.clone().into_bytes();
            bytes[place] ^= 1;
            let found = Envelope::parse(&bytes).and_then(|envelope| {
                envelope
                    .open(TYPE, &keys)
                    .map(|(payload, _)| payload.to_vec())
            });
            // Only the hint and white space may differ.
            let harmless = hint.contains(&place) || sealed.as_bytes()[place] == b'\n';
            if !harmless && let Ok(payload) = found {
                assert_eq!(payload, b"{\"a\":1}", "byte {place}");
                panic!("byte {place} makes no difference");
            }
        }
    }

    #[test]
    fn what_is_hostile_is_refused_in_little_time() {
        let many = format!(
            "{{\"payload\":\"\",\"payloadType\":\"\",\"signatures\":[{}]}}",
            vec!["{\"sig\":\"\"}"; MAX_SIGNATURES + 1].join(",")
        );
        let deep = "[".repeat(100_000);
        let long = " ".repeat(MAX_ENVELOPE_BYTES + 1);
        for text in [
            "",
            "{}",
            "null",
            &many,
            &deep,
            &long,
            "{\"payload\":\"!\",\"payloadType\":\"\",\"signatures\":[]}",
            "{\"payload\":\"\",\"payload\":\"\",\"payloadType\":\"\",\"signatures\":[]}",
            "{\"payload\":\"\",\"payloadType\":\"\",\"signatures\":[{\"sig\":\"?\"}]}",
        ] {
            assert!(matches!(
                Envelope::parse(text.as_bytes()),
                Err(EnvelopeFault::Malformed { .. })
            ));
        }
        let nobody = Envelope::parse(b"{\"payload\":\"\",\"payloadType\":\"x\",\"signatures\":[]}");
        let refused = nobody
            .expect("an envelope")
            .open("x", &[key("a").verifier()])
            .map(|_| ());
        assert!(
            refused
                .expect_err("unsigned")
                .to_string()
                .contains("nobody")
        );
    }
}
