//! The operator's files: YAML in, a checked [`Ceiling`] or rules of trust out.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use sandcast_audit::VerifierKey;
use sandcast_sandbox::{
    Ceiling, CeilingSignatureError, CeilingVersion, Role, TrustRule, verify_ceiling,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::load::reading;
use crate::plan::{read_signature, signature_path};

/// Bytes of a file of the operator's.
const MAX_BYTES: u64 = 1 << 20;

/// Why there is no ceiling. A host that is told of one does nothing without it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CeilingError {
    /// The file could not be read.
    #[error("cannot read the ceiling {}; nothing is granted without it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not a ceiling.
    #[error("{} is not a ceiling: {what}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        what: String,
    },
    /// Whoever may sign it did not.
    #[error("the ceiling {} is refused: {source}", path.display())]
    Signature {
        /// The file.
        path: PathBuf,
        /// What is wrong with its signature.
        source: CeilingSignatureError,
    },
}

/// What pipelines may grant at most, and who signed it.
#[derive(Clone, Debug, PartialEq)]
pub struct SignedCeiling {
    /// The ceiling.
    pub ceiling: Ceiling,
    /// Those of the wanted keys that signed the file; none where none was wanted.
    pub signers: Vec<VerifierKey>,
}

/// Reads what pipelines may grant at most. Where keys are given, one of them must have signed the
/// file, in a note beside it; that is looked at before anything that the file says.
///
/// # Errors
/// When the file cannot be read, is not signed by one of the keys, or does not make sense.
pub fn read_ceiling(path: &Path, keys: &[VerifierKey]) -> Result<SignedCeiling, CeilingError> {
    let invalid = |what: String| CeilingError::Invalid {
        path: path.to_path_buf(),
        what,
    };
    let bytes = read_bounded(path).map_err(|source| CeilingError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    let signers = if keys.is_empty() {
        Vec::new()
    } else {
        let note = read_signature(path).map_err(|source| CeilingError::Read {
            path: signature_path(path),
            source,
        })?;
        verify_ceiling(&bytes, note.as_deref(), keys).map_err(|source| CeilingError::Signature {
            path: path.to_path_buf(),
            source,
        })?
    };
    let ceiling: Ceiling = parse(&bytes).map_err(invalid)?;
    ceiling.check().map_err(invalid)?;
    Ok(SignedCeiling { ceiling, signers })
}

/// Why there are no rules of trust. A host that is told of some does nothing without them.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The file could not be read.
    #[error("cannot read the rules of trust {}; nothing is trusted without them", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file has no rules of trust.
    #[error("{} has no rules of trust: {what}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        what: String,
    },
}

/// Who may sign plugins on this host, whatever a pipeline says.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TrustFile {
    /// The version of the file's layout: 1.
    version: CeilingVersion,
    /// By role, as under `trust` in a pipeline. A role that does not stand here is up to pipelines.
    trust: BTreeMap<Role, TrustRule>,
}

/// Reads who may sign plugins on this host.
///
/// # Errors
/// When the file cannot be read, or does not make sense.
pub fn read_trust(path: &Path) -> Result<BTreeMap<Role, TrustRule>, TrustError> {
    let invalid = |what: String| TrustError::Invalid {
        path: path.to_path_buf(),
        what,
    };
    let bytes = read_bounded(path).map_err(|source| TrustError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    let file: TrustFile = parse(&bytes).map_err(invalid)?;
    // An empty list would let nobody sign: that is said by a key, or not at all.
    match file.trust.iter().find(|(_, rule)| rule.keys.is_empty()) {
        Some((role, _)) => Err(invalid(format!(
            "trust.{role}.keys: nobody may sign a {role}; write a public key, as `sandcast sign \
             --new-key` prints it, or leave the role out"
        ))),
        None => Ok(file.trust),
    }
}

/// The bytes of a file that is not too long.
fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("it is longer than {MAX_BYTES} bytes"));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    serde_saphyr::from_str_with_options(text, reading()).map_err(|error| error.to_string())
}

/// The JSON Schema (draft 2020-12) of a file with rules of trust.
pub fn trust_schema() -> serde_json::Value {
    schemars::schema_for!(TrustFile).to_value()
}

/// The JSON Schema (draft 2020-12) of a ceiling file.
pub fn ceiling_schema() -> serde_json::Value {
    schemars::schema_for!(Ceiling).to_value()
}

#[cfg(test)]
mod tests {
    use sandcast_audit::LogKey;
    use sandcast_sandbox::sign_ceiling;

    use super::*;

    fn read(text: &str) -> Result<Ceiling, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ceiling.yaml");
        std::fs::write(&path, text).expect("written");
        let read = read_ceiling(&path, &[]).map(|signed| signed.ceiling);
        read.map_err(|error| {
            let text = error.to_string();
            text.replace(&folder.path().display().to_string(), "")
        })
    }

    #[test]
    fn a_ceiling_is_read_and_a_mistake_is_shown_where_it_stands() {
        let ceiling = read(
            "version: 1\nplugins:\n  acme/*:\n    clock: true\n    \
             http: [{ host: '*.example.com', path: /v1 }]\n",
        )
        .expect("a ceiling");
        assert!(ceiling.of("acme/crm").clock);
        for (text, words) in [
            ("", "unexpected end of input"),
            ("version: 2\nplugins: {}\n", "this host reads 1"),
            ("version: 1\nplugins: { a: { clok: true } }\n", "clok"),
            (
                "version: 1\nplugins: { a: { files: [{ host: data, guest: /d }] } }\n",
                "plugins.a.files[0].host: `data` is not absolute",
            ),
            (
                "version: 1\nplugins: { a: { http: [{ host: 'http://x' }] } }\n",
                "plugins.a.http[0]: `http://x` is not a host",
            ),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(words), "{error}");
        }
        let nowhere = read_ceiling(Path::new("/nowhere/ceiling.yaml"), &[]);
        assert!(matches!(nowhere, Err(CeilingError::Read { .. })));
    }

    #[test]
    fn a_ceiling_that_must_be_signed_is_not_looked_at_without() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ceiling.yaml");
        let text = "version: 1\nplugins: {}\n";
        std::fs::write(&path, text).expect("written");
        let operator = LogKey::generate("operator.example").expect("random");
        let keys = [operator.verifier()];
        let refused = |words: &str| {
            let error = read_ceiling(&path, &keys).expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        };
        refused("it is not signed");
        let note = sign_ceiling(text.as_bytes(), &operator, None);
        std::fs::write(signature_path(&path), &note).expect("written");
        let signed = read_ceiling(&path, &keys).expect("signed");
        assert_eq!(signed.signers, keys);
        // Whoever wants no key is told of none.
        let plain = read_ceiling(&path, &[]).expect("a ceiling");
        assert_eq!(plain.signers, []);
        // A changed file is refused for its signature, not for what it says.
        std::fs::write(&path, "nonsense: [").expect("written");
        refused("it is not what was signed");
        std::fs::write(signature_path(&path), "nonsense").expect("written");
        refused("is not the signature of a ceiling");
        let other = LogKey::generate("other.example").expect("random");
        std::fs::write(&path, text).expect("written");
        let note = sign_ceiling(text.as_bytes(), &other, None);
        std::fs::write(signature_path(&path), note).expect("written");
        refused("signed by other.example (");
    }

    #[test]
    fn rules_of_trust_are_read_and_a_mistake_is_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("trust.yaml");
        let read = |text: &str| {
            std::fs::write(&path, text).expect("written");
            read_trust(&path)
        };
        let key = LogKey::generate("acme.example").expect("random").verifier();
        let rules = format!("version: 1\ntrust: {{ adapter: {{ keys: [\"{key}\"] }} }}\n");
        let rules = read(&rules).expect("rules");
        assert_eq!(rules[&Role::Adapter].keys, [key]);
        assert!(rules[&Role::Adapter].required);
        for (text, words) in [
            (
                "version: 1\ntrust: { adapter: { keys: [] } }\n",
                "nobody may sign a adapter",
            ),
            ("version: 1\ntrust: { filter: { keys: [] } }\n", "filter"),
            (
                "version: 1\ntrust: { adapter: { keys: [x] } }\n",
                "not a public key",
            ),
            ("version: 2\ntrust: {}\n", "this host reads 1"),
            ("trust: {}\n", "version"),
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.contains(words), "{error}");
        }
        let nowhere = read_trust(Path::new("/nowhere/trust.yaml"));
        assert!(matches!(nowhere, Err(TrustError::Read { .. })));
    }
}
