//! The operator's ceiling file: YAML in, a checked [`Ceiling`] out.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use sandcast_sandbox::Ceiling;
use thiserror::Error;

use super::load::reading;

/// Bytes of a ceiling file.
const MAX_BYTES: u64 = 1 << 20;

/// Why there is no ceiling. A host that is told of one does nothing without it.
#[derive(Debug, Error)]
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
}

/// Reads what pipelines may grant at most.
///
/// # Errors
/// When the file cannot be read, or does not make sense.
pub fn read_ceiling(path: &Path) -> Result<Ceiling, CeilingError> {
    let read = |source| CeilingError::Read {
        path: path.to_path_buf(),
        source,
    };
    let invalid = |what: String| CeilingError::Invalid {
        path: path.to_path_buf(),
        what,
    };
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text))
        .map_err(read)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(invalid(format!("it is longer than {MAX_BYTES} bytes")));
    }
    let ceiling: Ceiling = serde_saphyr::from_str_with_options(&text, reading())
        .map_err(|error| invalid(error.to_string()))?;
    ceiling.check().map_err(invalid)?;
    Ok(ceiling)
}

/// The JSON Schema (draft 2020-12) of a ceiling file.
pub fn ceiling_schema() -> serde_json::Value {
    schemars::schema_for!(Ceiling).to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Ceiling, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ceiling.yaml");
        std::fs::write(&path, text).expect("written");
        read_ceiling(&path).map_err(|error| {
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
        let nowhere = read_ceiling(Path::new("/nowhere/ceiling.yaml"));
        assert!(matches!(nowhere, Err(CeilingError::Read { .. })));
    }
}
