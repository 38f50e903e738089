//! Finds and reads the components that a pipeline names.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sandcast_sandbox::{Inspection, MAX_BUNDLE_BYTES, Signatures, inspect};

use super::PlanError;
use crate::config::{Pipeline, PluginSection};

/// The largest component that is read.
const MAX_COMPONENT_BYTES: u64 = 256 << 20;

/// What is read of a signature; a longer one is cut off and then none.
const MAX_SIGNATURE_BYTES: u64 = 64 << 10;

/// A component as it was read.
#[derive(Debug, Clone)]
pub struct Component {
    /// Where it was read from.
    pub path: PathBuf,
    /// What it is.
    pub inspection: Inspection,
    /// Its bytes.
    pub bytes: Arc<[u8]>,
    /// The signed note beside it, if there is one.
    pub signature: Option<Arc<str>>,
    /// The Sigstore bundle beside it, or that the pipeline names, if there is one.
    pub bundle: Option<Arc<str>>,
}

impl Component {
    /// Reads the component of a plugin: a `.wasm` file, or what the build of a crate folder has
    /// left.
    ///
    /// # Errors
    /// If it is not built, cannot be read or is not a component.
    pub fn read(name: &str, section: &PluginSection) -> Result<Component, PlanError> {
        let path = component_path(name, &section.source)?;
        if section.source.is_dir() && !path.is_file() {
            return Err(PlanError::NotBuilt {
                plugin: name.to_owned(),
                folder: section.source.clone(),
                path,
            });
        }
        let cannot_read = |source| PlanError::Read {
            plugin: name.to_owned(),
            path: path.clone(),
            source,
        };
        let mut bytes = Vec::new();
        File::open(&path)
            .map_err(cannot_read)?
            .take(MAX_COMPONENT_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(cannot_read)?;
        if bytes.len() as u64 > MAX_COMPONENT_BYTES {
            let limit_bytes = MAX_COMPONENT_BYTES;
            return Err(PlanError::TooLarge {
                plugin: name.to_owned(),
                path,
                limit_bytes,
            });
        }
        let inspection = inspect(&bytes).map_err(|source| PlanError::Inspect {
            plugin: name.to_owned(),
            path: path.clone(),
            source: Box::new(source),
        })?;
        let signature = read_signature(&path).map_err(|source| PlanError::Read {
            plugin: name.to_owned(),
            path: signature_path(&path),
            source,
        })?;
        let bundle_path = match &section.bundle {
            Some(file) => file.clone(),
            None => bundle_path(&path),
        };
        let bundle = match read_bundle(&bundle_path) {
            // One that is named has to be there.
            Ok(None) if section.bundle.is_some() => Err(ErrorKind::NotFound.into()),
            outcome => outcome,
        };
        let bundle = bundle.map_err(|source| PlanError::Read {
            plugin: name.to_owned(),
            path: bundle_path,
            source,
        })?;
        Ok(Component {
            path,
            inspection,
            bytes: bytes.into(),
            signature: signature.map(Arc::from),
            bundle: bundle.map(Arc::from),
        })
    }

    /// What lies beside it to say who signed it.
    pub fn signatures(&self) -> Signatures<'_> {
        Signatures {
            note: self.signature.as_deref(),
            bundle: self.bundle.as_deref(),
        }
    }

    /// Reads the components of all plugins of a pipeline.
    ///
    /// # Errors
    /// If one of them cannot be read.
    pub fn read_all(pipeline: &Pipeline) -> Result<BTreeMap<String, Component>, PlanError> {
        let sections = pipeline.sections.plugins.iter();
        sections
            .map(|(name, section)| Ok((name.clone(), Component::read(name, section)?)))
            .collect()
    }
}

/// Where the signature of a component is: `plugin.wasm.sig` for `plugin.wasm`.
pub fn signature_path(component: &Path) -> PathBuf {
    let mut path = component.as_os_str().to_owned();
    path.push(".sig");
    path.into()
}

/// The signed note beside a component, as it is; `None` where there is none.
///
/// # Errors
/// If it is there and cannot be read as text.
pub fn read_signature(component: &Path) -> std::io::Result<Option<String>> {
    let mut text = String::new();
    match File::open(signature_path(component)) {
        Ok(file) => file.take(MAX_SIGNATURE_BYTES).read_to_string(&mut text)?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(text))
}

/// Where the Sigstore bundle of a component is: `plugin.wasm.sigstore.json` for `plugin.wasm`.
pub fn bundle_path(component: &Path) -> PathBuf {
    let mut path = component.as_os_str().to_owned();
    path.push(".sigstore.json");
    path.into()
}

/// A Sigstore bundle, as it is; `None` where there is none.
///
/// # Errors
/// If it is there and cannot be read as text, or is longer than any that is taken.
pub fn read_bundle(bundle: &Path) -> std::io::Result<Option<String>> {
    match File::open(bundle) {
        Ok(file) => read_short(file, MAX_BUNDLE_BYTES).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The text of a file that is not longer than it may be.
pub(crate) fn read_short(file: File, limit_bytes: usize) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    file.take(limit_bytes as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit_bytes {
        let what = format!("it is longer than {limit_bytes} bytes");
        return Err(std::io::Error::new(ErrorKind::FileTooLarge, what));
    }
    String::from_utf8(bytes)
        .map_err(|_| std::io::Error::new(ErrorKind::InvalidData, "it is not text"))
}

/// Where the component of a plugin's source is.
fn component_path(name: &str, source: &Path) -> Result<PathBuf, PlanError> {
    if !source.is_dir() {
        return Ok(source.to_path_buf());
    }
    sandcast_build::component_path(source).map_err(|error| PlanError::Crate {
        plugin: name.to_owned(),
        folder: source.to_path_buf(),
        source: error,
    })
}
