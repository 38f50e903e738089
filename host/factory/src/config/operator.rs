//! The operator's files: YAML in, a checked [`Ceiling`] or rules of trust out.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use sandcast_audit::{Digest, VerifierKey};
use sandcast_sandbox::{
    Ceiling, CeilingVersion, IdentityRule, MAX_ROOT_BYTES, OperatorFile, OperatorFileError,
    OperatorRules, Role, TrustRule, verify_operator_file,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::load::reading;
use crate::plan::{read_short, read_signature, signature_path};

/// Bytes of a file of the operator's.
const MAX_BYTES: u64 = 1 << 20;

/// Why there is no file of the operator's. A host that is told of one does nothing without it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// The file could not be read.
    #[error("cannot read the {} {}; {}", kind.name(), path.display(), without(*kind))]
    Read {
        /// The kind of file.
        kind: OperatorFile,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is none of its kind.
    #[error("{} {}: {what}", path.display(), is_none(*kind))]
    Invalid {
        /// The kind of file.
        kind: OperatorFile,
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        what: String,
    },
    /// Whoever may sign it did not.
    #[error("the {} {} is refused: {source}", kind.name(), path.display())]
    Signature {
        /// The kind of file.
        kind: OperatorFile,
        /// The file.
        path: PathBuf,
        /// What is wrong with its signature.
        source: OperatorFileError,
    },
}

fn without(kind: OperatorFile) -> &'static str {
    match kind {
        OperatorFile::Ceiling => "nothing is granted without it",
        OperatorFile::Trust => "nothing is trusted without them",
    }
}

fn is_none(kind: OperatorFile) -> &'static str {
    match kind {
        OperatorFile::Ceiling => "is not a ceiling",
        OperatorFile::Trust => "has no rules of trust",
    }
}

/// What pipelines may grant at most, and who signed it.
#[derive(Clone, Debug, PartialEq)]
pub struct SignedCeiling {
    /// The ceiling.
    pub ceiling: Ceiling,
    /// Those of the wanted keys that signed the file; none where none was wanted.
    pub signers: Vec<VerifierKey>,
}

/// Who may sign plugins, and who signed that.
#[derive(Clone, Debug, PartialEq)]
pub struct SignedTrust {
    /// The rules, by role.
    pub trust: BTreeMap<Role, TrustRule>,
    /// Those of the wanted keys that signed the file; none where none was wanted.
    pub signers: Vec<VerifierKey>,
}

impl From<SignedTrust> for OperatorRules {
    /// These rules, and nothing else.
    fn from(SignedTrust { trust, signers }: SignedTrust) -> Self {
        Self {
            trust,
            trust_signers: signers,
            ..Self::default()
        }
    }
}

/// Reads what pipelines may grant at most. Where keys are given, one of them must have signed the
/// file, in a note beside it; that is looked at before anything that the file says.
///
/// # Errors
/// When the file cannot be read, is not signed by one of the keys, or does not make sense.
pub fn read_ceiling(path: &Path, keys: &[VerifierKey]) -> Result<SignedCeiling, OperatorError> {
    let kind = OperatorFile::Ceiling;
    let invalid = |what: String| OperatorError::Invalid {
        kind,
        path: path.to_path_buf(),
        what,
    };
    let (bytes, signers) = read_signed(kind, path, keys)?;
    let ceiling: Ceiling = parse(&bytes).map_err(invalid)?;
    ceiling.check().map_err(invalid)?;
    Ok(SignedCeiling { ceiling, signers })
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

/// Reads who may sign plugins on this host. Where keys are given, one of them must have signed the
/// file, in a note beside it, and with it the digests of the roots of trust that it names.
///
/// # Errors
/// When the file cannot be read, is not signed by one of the keys, or does not make sense.
pub fn read_trust(path: &Path, keys: &[VerifierKey]) -> Result<SignedTrust, OperatorError> {
    rules_of(path, keys, false)
}

/// Reads who may sign plugins on this host, for it to be signed: all that it rests on must be in the
/// file, or named there by its digest.
///
/// # Errors
/// When the file cannot be read, rests on something else, or does not make sense.
pub fn read_trust_to_sign(path: &Path) -> Result<SignedTrust, OperatorError> {
    rules_of(path, &[], true)
}

fn rules_of(
    path: &Path,
    keys: &[VerifierKey],
    must_be_whole: bool,
) -> Result<SignedTrust, OperatorError> {
    let mut unpinned = None;
    let kind = OperatorFile::Trust;
    let invalid = |what: String| OperatorError::Invalid {
        kind,
        path: path.to_path_buf(),
        what,
    };
    let (bytes, signers) = read_signed(kind, path, keys)?;
    let TrustFile { mut trust, .. } = parse(&bytes).map_err(invalid)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    for (role, rule) in &mut trust {
        if let Some(problem) = rule.problems(*role).into_iter().next() {
            let (path, message) = (problem.path, problem.message);
            return Err(invalid(format!("{path}: {message}; {}", problem.help)));
        }
        let in_other_files = in_other_files(rule);
        rule.put_roots_in(*role, |file| {
            let root = File::open(folder.join(file));
            let text = root.and_then(|root| read_short(root, MAX_ROOT_BYTES));
            text.map_err(|error| format!("cannot read `{file}`: {error}"))
        })
        .map_err(|problem| {
            let (path, message) = (problem.path, problem.message);
            invalid(format!("{path}: {message}; {}", problem.help))
        })?;
        for (index, identity) in rule.identities.iter().enumerate() {
            if in_other_files.contains(&index) {
                unpinned.get_or_insert_with(|| {
                    format!(
                        "trust.{role}.identities[{index}].trust_root is another file, which no \
                         signature of this one covers; write `trust_root_digest: {}` beside it, \
                         and sign this file again",
                        Digest::of(identity.trust_root.as_bytes())
                    )
                });
            }
        }
    }
    match unpinned {
        Some(what) if must_be_whole || !keys.is_empty() => Err(invalid(what)),
        _ => Ok(SignedTrust { trust, signers }),
    }
}

/// The roots of trust that are in other files, and may be changed there.
fn in_other_files(rule: &TrustRule) -> Vec<usize> {
    let identities = rule.identities.iter().enumerate();
    let is_open = |rule: &IdentityRule| !rule.has_root() && rule.trust_root_digest.is_none();
    identities
        .filter_map(|(index, it)| is_open(it).then_some(index))
        .collect()
}

/// The bytes of a file, and which of the keys signed it; one must have, where there are some.
fn read_signed(
    kind: OperatorFile,
    path: &Path,
    keys: &[VerifierKey],
) -> Result<(Vec<u8>, Vec<VerifierKey>), OperatorError> {
    let cannot_read = |path: PathBuf| move |source| OperatorError::Read { kind, path, source };
    let bytes = read_bounded(path).map_err(cannot_read(path.to_path_buf()))?;
    if keys.is_empty() {
        return Ok((bytes, Vec::new()));
    }
    let note = read_signature(path).map_err(cannot_read(signature_path(path)))?;
    let signers = verify_operator_file(kind, &bytes, note.as_deref(), keys);
    let signers = signers.map_err(|source| OperatorError::Signature {
        kind,
        path: path.to_path_buf(),
        source,
    })?;
    Ok((bytes, signers))
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
    use sandcast_little_sigstore::LittleSigstore;
    use sandcast_sandbox::sign_operator_file;

    use super::*;

    fn key(name: &str) -> LogKey {
        LogKey::generate(name).expect("random")
    }

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
        assert!(matches!(nowhere, Err(OperatorError::Read { .. })));
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
        let note = sign_operator_file(OperatorFile::Ceiling, text.as_bytes(), &operator, None);
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
        let note = sign_operator_file(OperatorFile::Ceiling, text.as_bytes(), &other, None);
        std::fs::write(signature_path(&path), note).expect("written");
        refused("signed by other.example (");
    }

    #[test]
    fn rules_of_trust_are_read_and_a_mistake_is_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("trust.yaml");
        let read = |text: &str| {
            std::fs::write(&path, text).expect("written");
            read_trust(&path, &[])
        };
        let key = LogKey::generate("acme.example").expect("random").verifier();
        let rules = format!("version: 1\ntrust: {{ adapter: {{ keys: [\"{key}\"] }} }}\n");
        let rules = read(&rules).expect("rules").trust;
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
        let nowhere = read_trust(Path::new("/nowhere/trust.yaml"), &[]);
        assert!(matches!(nowhere, Err(OperatorError::Read { .. })));
    }

    #[test]
    fn rules_that_must_be_signed_are_not_looked_at_without_and_pin_their_roots() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("trust.yaml");
        let (operator, other) = (key("operator.example"), key("other.example"));
        let little = LittleSigstore::new().trusted_root().to_string();
        std::fs::write(folder.path().join("root.json"), &little).expect("written");
        let write = |pin: &str| {
            let text = format!(
                "version: 1\ntrust:\n  adapter:\n    identities:\n      - identity: a@acme.example\n        \
                 issuer: https://accounts.example\n        trust_root: root.json\n{pin}"
            );
            std::fs::write(&path, &text).expect("written");
            text
        };
        let sign = |text: &str, by: &LogKey| {
            let note = sign_operator_file(OperatorFile::Trust, text.as_bytes(), by, None);
            std::fs::write(signature_path(&path), note).expect("written");
        };
        let keys = [operator.verifier()];
        let refused = |words: &str| {
            let error = read_trust(&path, &keys).expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        };
        let text = write("");
        refused("it is not signed; whoever has the key signs it with `sandcast sign --trust`");
        let plain = read_trust(&path, &[]).expect("nobody wants a key");
        assert_eq!(
            plain.trust[&Role::Adapter].identities[0].trust_root,
            little.as_str().into()
        );
        // The root is another file: its digest has to be in this one.
        sign(&text, &operator);
        refused("is another file, which no signature of this one covers");
        let digest = Digest::of(little.as_bytes());
        let told = read_trust_to_sign(&path)
            .expect_err("it is not whole")
            .to_string();
        assert!(
            told.contains(&format!("trust_root_digest: {digest}")),
            "{told}"
        );
        let text = write(&format!("        trust_root_digest: {digest}\n"));
        refused("it is not what was signed");
        sign(&text, &other);
        refused("none of the keys given with `--trust-key` signed it; signed by other.example (");
        read_trust_to_sign(&path).expect("it is whole");
        sign(&text, &operator);
        let signed = read_trust(&path, &keys).expect("signed");
        assert_eq!(signed.signers, keys);
        let note = sign_operator_file(OperatorFile::Ceiling, text.as_bytes(), &operator, None);
        std::fs::write(signature_path(&path), note).expect("written");
        refused("is not the signature of rules of trust");
        // Another root under the same signature, and none.
        sign(&text, &operator);
        let changed = LittleSigstore::new().trusted_root().to_string();
        std::fs::write(folder.path().join("root.json"), &changed).expect("written");
        refused("is wanted");
        std::fs::write(folder.path().join("root.json"), "x".repeat(1 << 20)).expect("written");
        refused("it is longer than 262144 bytes");
        std::fs::remove_file(folder.path().join("root.json")).expect("removed");
        refused("cannot read `root.json`");
        // The root is a part of what records name.
        std::fs::write(folder.path().join("root.json"), &little).expect("written");
        let again = read_trust(&path, &keys).expect("signed");
        assert_eq!(again.trust, signed.trust);
        let rules = OperatorRules::from(again);
        let text = String::from_utf8(rules.trust_text().expect("there are rules")).expect("text");
        assert!(text.contains("certificateAuthorities"), "{text}");
    }
}
