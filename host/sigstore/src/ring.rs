//! What the verifier computes with: ring, which TLS brings along.

use std::cell::RefCell;
use std::sync::Once;

use ring::digest::{Context, SHA256, SHA384, SHA512};
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use sigstore_verify::crypto::{
    CryptoProvider, Error, HashContext, Result, SigningScheme, VerificationKey,
    install_default_provider, validate_raw_public_key,
};
use sigstore_verify::types::{HashAlgorithm, SignatureBytes};

/// Makes ring what the verifier computes with. Nobody else in the program has a say in it.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // There is nobody who could have been first.
        let _ = install_default_provider(&Ring);
    });
}

#[derive(Debug)]
struct Ring;

impl CryptoProvider for Ring {
    fn hash(&self, algorithm: HashAlgorithm) -> Result<Box<dyn HashContext>> {
        Ok(Box::new(Hasher(Context::new(hash_of(algorithm)?))))
    }

    fn verify_raw(
        &self,
        scheme: SigningScheme,
        key: &[u8],
        data: &[u8],
        signature: &[u8],
    ) -> Result<()> {
        UnparsedPublicKey::new(algorithm_of(scheme)?, key)
            .verify(data, signature)
            .map_err(|_| Error::Verification(format!("{} signature does not fit", scheme.name())))
    }

    /// Ring hashes what it verifies, so it is the signature over the bytes that was looked at
    /// before, by [`with_message`]; this finds it again.
    fn verify_prehashed(
        &self,
        scheme: SigningScheme,
        key: &[u8],
        digest: &[u8],
        signature: &[u8],
    ) -> Result<()> {
        let is_held = HELD.with_borrow(|held| {
            held.as_ref().is_some_and(|held| {
                held.scheme == scheme
                    && held.key == key
                    && held.digest == digest
                    && held.signature == signature
            })
        });
        if is_held {
            Ok(())
        } else {
            let what = format!("{} signature does not fit the file", scheme.name());
            Err(Error::Verification(what))
        }
    }
}

struct Hasher(Context);

impl HashContext for Hasher {
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn finalize(self: Box<Self>) -> Vec<u8> {
        self.0.finish().as_ref().to_vec()
    }
}

fn hash_of(algorithm: HashAlgorithm) -> Result<&'static ring::digest::Algorithm> {
    match algorithm {
        HashAlgorithm::Sha2256 => Ok(&SHA256),
        HashAlgorithm::Sha2384 => Ok(&SHA384),
        HashAlgorithm::Sha2512 => Ok(&SHA512),
        other => Err(Error::UnsupportedAlgorithm(format!("hash {other}"))),
    }
}

fn algorithm_of(scheme: SigningScheme) -> Result<&'static dyn VerificationAlgorithm> {
    Ok(match scheme {
        SigningScheme::EcdsaP256Sha256 => &signature::ECDSA_P256_SHA256_ASN1,
        SigningScheme::EcdsaP256Sha384 => &signature::ECDSA_P256_SHA384_ASN1,
        SigningScheme::EcdsaP384Sha256 => &signature::ECDSA_P384_SHA256_ASN1,
        SigningScheme::EcdsaP384Sha384 => &signature::ECDSA_P384_SHA384_ASN1,
        SigningScheme::Ed25519 => &signature::ED25519,
        SigningScheme::RsaPkcs1Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        SigningScheme::RsaPkcs1Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        SigningScheme::RsaPkcs1Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        SigningScheme::RsaPssSha256 => &signature::RSA_PSS_2048_8192_SHA256,
        SigningScheme::RsaPssSha384 => &signature::RSA_PSS_2048_8192_SHA384,
        SigningScheme::RsaPssSha512 => &signature::RSA_PSS_2048_8192_SHA512,
        other => {
            let what = format!("{}: this host cannot check such a signature", other.name());
            return Err(Error::UnsupportedAlgorithm(what));
        }
    })
}

/// Whether signatures of this kind can be checked.
pub(crate) fn is_supported(scheme: SigningScheme) -> bool {
    algorithm_of(scheme).is_ok()
}

/// A signature over bytes that holds, with the digest of these bytes.
struct Held {
    scheme: SigningScheme,
    key: Vec<u8>,
    digest: Vec<u8>,
    signature: Vec<u8>,
}

thread_local! {
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
}

/// Calls `then` on this thread, in which a signature over the digest of `message` by this key is
/// found to hold if it holds over `message`, and no other is.
pub(crate) fn with_message<T>(
    key: &VerificationKey,
    message: &[u8],
    signature: &SignatureBytes,
    then: impl FnOnce() -> T,
) -> T {
    struct Forget;
    impl Drop for Forget {
        fn drop(&mut self) {
            HELD.take();
        }
    }
    let scheme = key.scheme();
    let digest = scheme
        .hash_algorithm()
        .and_then(|algorithm| hash_of(algorithm).ok());
    let _forget = Forget;
    if let Some(algorithm) = digest
        && validate_raw_public_key(scheme, key.as_bytes()).is_ok()
        && key.verify(message, signature).is_ok()
    {
        HELD.set(Some(Held {
            scheme,
            key: key.as_bytes().to_vec(),
            digest: ring::digest::digest(algorithm, message).as_ref().to_vec(),
            signature: signature.as_bytes().to_vec(),
        }));
    }
    then()
}
