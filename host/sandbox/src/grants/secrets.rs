//! Secrets by reference: a grant says where one comes from, the host reads it when it uses it, and
//! neither a plugin nor a record ever holds it.

use std::fmt;
use std::io::Read as _;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bytes of a secret.
const MAX_SECRET_BYTES: u64 = 16 << 10;

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum SecretSource {
    /// A variable of the host's environment.
    Env(String),
    /// A file of the host; a final newline is no part of it.
    File(PathBuf),
}

impl fmt::Display for SecretSource {
    /// The reference, such as `env:TOKEN`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(formatter, "env:{name}"),
            Self::File(path) => write!(formatter, "file:{}", path.display()),
        }
    }
}

/// A secret in memory. It is not printed, and its bytes are overwritten when it is dropped.
pub(crate) struct Secret(Vec<u8>);

impl Secret {
    #[cfg(test)]
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        // Nobody reads them again, which a compiler might notice.
        std::hint::black_box(&self.0);
    }
}

impl SecretSource {
    /// Reads it. The error never holds any of it.
    pub(crate) fn read(&self) -> Result<Secret, String> {
        let mut bytes = Vec::new();
        match self {
            Self::Env(name) => match std::env::var_os(name) {
                None => return Err("is not set".to_owned()),
                Some(value) => bytes.extend_from_slice(value.as_encoded_bytes()),
            },
            Self::File(path) => {
                let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
                file.take(MAX_SECRET_BYTES + 2)
                    .read_to_end(&mut bytes)
                    .map_err(|error| error.to_string())?;
                if bytes.last() == Some(&b'\n') {
                    bytes.pop();
                }
                if bytes.last() == Some(&b'\r') {
                    bytes.pop();
                }
            }
        }
        let secret = Secret(bytes);
        match secret.bytes().len() as u64 {
            0 => Err("is empty".to_owned()),
            length if length > MAX_SECRET_BYTES => {
                Err(format!("is longer than {MAX_SECRET_BYTES} bytes"))
            }
            _ => Ok(secret),
        }
    }
}

/// What is said of a secret that cannot be read.
pub(crate) fn sentence_of(source: &SecretSource, what: &str) -> String {
    match source {
        SecretSource::Env(name) => {
            format!("the secret in the environment variable `{name}` {what}; set it for the host")
        }
        SecretSource::File(path) => format!("the secret in {} {what}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_without_its_newline_and_an_empty_one_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("token");
        let source = SecretSource::File(path.clone());
        assert!(source.read().is_err(), "not there");
        for (content, secret) in [
            ("t0ken\n", "t0ken"),
            ("t0ken\r\n", "t0ken"),
            ("a\nb", "a\nb"),
        ] {
            std::fs::write(&path, content).expect("written");
            assert_eq!(source.read().expect("a secret").bytes(), secret.as_bytes());
        }
        for content in ["", "\n"] {
            std::fs::write(&path, content).expect("written");
            assert_eq!(source.read().expect_err("empty"), "is empty");
        }
        std::fs::write(&path, vec![b'x'; 20_000]).expect("written");
        let error = source.read().expect_err("too long");
        assert!(error.contains("longer") && !error.contains('x'), "{error}");
    }

    #[test]
    fn a_secret_is_not_printed() {
        let source = SecretSource::Env("PATH".into());
        assert_eq!(source.to_string(), "env:PATH");
        let secret = source.read().expect("there is a path");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        let nowhere = SecretSource::Env("SANDCAST_NO_SUCH_VARIABLE".into());
        let what = nowhere.read().expect_err("not set");
        assert_eq!(
            sentence_of(&nowhere, &what),
            "the secret in the environment variable `SANDCAST_NO_SUCH_VARIABLE` is not set; set it for the host"
        );
    }
}
