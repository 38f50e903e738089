//! The targets guests compile to, and getting their standard library.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use crate::process::{self, Line};
use crate::{BuildError, cargo, file_error, write_atomically};

/// How long `rustup` may take; a download of some 20 MB on a slow line, or a server out of reach.
const RUSTUP_LIMIT: Duration = Duration::from_secs(120);

/// Builds the standard library from Debian's source of it, where no server of Rust's is in reach.
const INSTALL_SCRIPT: &str = include_str!("../../install-guest-target");

/// What a guest compiles to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum GuestTarget {
    /// No system interface but the contract.
    #[default]
    #[serde(rename = "wasm32-unknown-unknown")]
    Unknown,
    /// The standard library over WASI 0.2, for crates that need it.
    #[serde(rename = "wasm32-wasip2")]
    Wasip2,
}

impl GuestTarget {
    /// The name rustc has for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "wasm32-unknown-unknown",
            Self::Wasip2 => "wasm32-wasip2",
        }
    }
}

/// Makes sure that guests can be compiled here, by `rustup` or by building the standard library
/// from source. Quick when there is nothing to do.
///
/// # Errors
/// [`BuildError::GuestTarget`] when neither way works; it says what to do.
pub fn ensure_guest_target(progress: &mut dyn FnMut(&str)) -> Result<(), BuildError> {
    ensure(GuestTarget::Unknown, Path::new("."), progress)
}

pub(crate) fn ensure(
    target: GuestTarget,
    crate_dir: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<(), BuildError> {
    if is_installed(target, crate_dir)? {
        return Ok(());
    }
    let all = [GuestTarget::Unknown.name(), GuestTarget::Wasip2.name()];
    progress(&format!("asking rustup for {}", target.name()));
    let mut rustup = Command::new("rustup");
    rustup
        .args(["target", "add"])
        .args(all)
        .current_dir(crate_dir);
    let by_rustup = match process::run_silently(&mut rustup, RUSTUP_LIMIT) {
        Ok(Some(status)) if status.success() => "rustup added it, but it is not there",
        Ok(Some(_)) => "rustup could not add it",
        Ok(None) => "rustup did not answer in time",
        Err(_) => "there is no rustup",
    };
    if is_installed(target, crate_dir)? {
        return Ok(());
    }
    progress(&format!(
        "{by_rustup}; building the standard library from Debian's source"
    ));
    let mut script = Command::new("bash");
    script
        .args(["-c", INSTALL_SCRIPT, "install-guest-target"])
        .current_dir(crate_dir)
        .env("RUSTC", cargo::rustc());
    let mut last = String::new();
    let ended = process::run(&mut script, &mut |line| {
        let (Line::Out(text) | Line::Err(text)) = line;
        progress(&text);
        last = text;
    });
    match ended {
        Ok(status) if status.success() && is_installed(target, crate_dir)? => Ok(()),
        Ok(_) => Err(BuildError::GuestTarget {
            target: target.name(),
            reason: format!("{by_rustup}; {last}"),
        }),
        Err(_) => Err(BuildError::GuestTarget {
            target: target.name(),
            reason: format!("{by_rustup}, and there is no bash to build it with"),
        }),
    }
}

/// Whether the toolchain of this folder has the target's standard library.
fn is_installed(target: GuestTarget, crate_dir: &Path) -> Result<bool, BuildError> {
    Ok(standard_library(target, crate_dir)?.is_some())
}

/// The target's standard library in the toolchain of this folder.
fn standard_library(target: GuestTarget, crate_dir: &Path) -> Result<Option<PathBuf>, BuildError> {
    let mut rustc = Command::new(cargo::rustc());
    rustc
        .args(["--print", "target-libdir", "--target", target.name()])
        .current_dir(crate_dir);
    let libdir = process::output(&mut rustc)?.map_err(|log| BuildError::GuestTarget {
        target: target.name(),
        reason: log.trim().to_owned(),
    })?;
    let Ok(entries) = fs::read_dir(libdir.trim()) else {
        return Ok(None);
    };
    Ok(entries.flatten().map(|entry| entry.path()).find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("libstd-") && name.ends_with(".rlib")
    }))
}

/// Throws away what was compiled against another standard library of the same version. Cargo does
/// not notice that one was put in the place of another, and what it keeps no longer links.
pub(crate) fn forget_other(
    target: GuestTarget,
    crate_dir: &Path,
    target_directory: &Path,
) -> Result<(), BuildError> {
    let Some(library) = standard_library(target, crate_dir)? else {
        return Ok(());
    };
    let content = fs::read(&library).map_err(file_error(&library, "read"))?;
    let now = blake3::hash(&content).to_hex();
    let compiled = target_directory.join(target.name());
    fs::create_dir_all(&compiled).map_err(file_error(&compiled, "written"))?;
    let lock = compiled.join(".standard-library.lock");
    let turn = File::create(&lock).map_err(file_error(&lock, "locked"))?;
    turn.lock().map_err(file_error(&lock, "locked"))?;
    let stamp = compiled.join(".standard-library");
    let before = fs::read_to_string(&stamp).ok();
    if before.as_deref() == Some(now.as_str()) {
        return Ok(());
    }
    let release = compiled.join("release");
    if before.is_some() && release.exists() {
        fs::remove_dir_all(&release).map_err(file_error(&release, "removed"))?;
    }
    write_atomically(&stamp, now.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_standard_library_made_is_forgotten() {
        let folder = tempfile::tempdir().expect("a folder");
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let target = GuestTarget::Unknown;
        ensure(target, here, &mut |_| {}).expect("the target");
        let compiled = folder.path().join(target.name());
        let kept = compiled.join("release/kept");
        fs::create_dir_all(kept.parent().expect("a folder")).expect("a folder");
        fs::write(&kept, "").expect("a file");
        let forget = || forget_other(target, here, folder.path()).expect("looked at");

        forget();
        forget();
        assert!(kept.exists(), "the library is the same");
        fs::write(compiled.join(".standard-library"), "another").expect("a stamp");
        forget();
        assert!(!kept.exists());
        forget();
    }
}
