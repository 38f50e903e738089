//! What this host keeps for itself on disk: compiled components, so that the second run does not
//! compile, and trainings under way, so that one that was cut off goes on.
//!
//! Wasmtime runs whatever a compiled artifact says, so only the host's own may be read back. The
//! folder is private, and every file starts with a keyed blake3 hash of its name and contents
//! under a key that lies beside them. A file that is torn, changed, of another engine or made by
//! somebody else is made again, never used.

#![expect(unsafe_code, reason = "deserialising compiled code is unsafe")]

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sandcast_audit::Digest;
use wasmtime::Engine;
use wasmtime::component::Component;

/// Bytes of the hash in front of an artifact.
const TAG_BYTES: usize = 32;

/// A folder of compiled components.
#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
    key: [u8; 32],
    /// What the engine's artifacts are compatible with; part of every name.
    compatibility: String,
}

impl Cache {
    /// Opens the folder, makes it private, and reads or makes its key.
    pub(crate) fn open(dir: &Path, compatibility: String) -> io::Result<Self> {
        make_private_dir(dir)?;
        let key = match read_key(dir)? {
            Some(key) => key,
            None => make_key(dir)?,
        };
        Ok(Self {
            dir: dir.to_owned(),
            key,
            compatibility,
        })
    }

    /// A compiled component, if this host has put it here.
    pub(crate) fn load(&self, engine: &Engine, digest: Digest) -> Option<Component> {
        let name = self.name(digest);
        let artifact = self.read(&name)?;
        // SAFETY: the keyed hash says that these are the bytes that `write` was given for this
        // name. The name ends like those of components alone and holds the engine's compatibility
        // hash, so they are what a compiler for this engine made. The key is readable by this user
        // only.
        match unsafe { Component::deserialize(engine, &artifact) } {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::warn!(%error, %name, "a compiled plugin is of another engine; it is compiled again");
                None
            }
        }
    }

    /// Keeps a compiled component. The file appears whole or not at all.
    pub(crate) fn store(&self, digest: Digest, artifact: &[u8]) -> io::Result<()> {
        self.write(&self.name(digest), artifact)
    }

    /// The folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What this host has put under a name.
    pub(crate) fn read(&self, name: &str) -> Option<Vec<u8>> {
        let mut bytes = match fs::read(self.dir.join(name)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(%error, %name, "a kept file cannot be read; it is made again");
                return None;
            }
        };
        let Some((tag, content)) = bytes.split_first_chunk::<TAG_BYTES>() else {
            tracing::warn!(%name, "a kept file is cut short; it is made again");
            return None;
        };
        // Equality of blake3 hashes takes the same time wherever they differ.
        if blake3::Hash::from_bytes(*tag) != self.tag(name, content) {
            tracing::warn!(%name, "a kept file is not what was put there; it is made again");
            return None;
        }
        bytes.drain(..TAG_BYTES);
        Some(bytes)
    }

    /// Puts something under a name. The file appears whole or not at all.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
        file.write_all(self.tag(name, content).as_bytes())?;
        file.write_all(content)?;
        file.persist(self.dir.join(name))
            .map_err(|error| error.error)?;
        Ok(())
    }

    /// Removes what is under a name, if anything is.
    pub(crate) fn remove(&self, name: &str) {
        match fs::remove_file(self.dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, %name, "a kept file cannot be removed");
            }
            _ => {}
        }
    }

    fn name(&self, digest: Digest) -> String {
        format!("{digest}-{}.cwasm", &self.compatibility[..16])
    }

    fn tag(&self, name: &str, artifact: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(self.compatibility.as_bytes());
        hasher.update(artifact);
        hasher.finalize()
    }
}

/// What a compiler that this host has just run has answered.
pub(crate) fn compiled(engine: &Engine, artifact: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes are what the compiler of this very host answered over a pipe that nobody else
    // has, for an engine of the same settings, which is looked at again here. They are trusted as much
    // as the code that it would have made in this process.
    unsafe { Component::deserialize(engine, artifact) }
}

const KEY_FILE: &str = "key";

fn make_private_dir(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(dir)?.permissions().mode();
        if mode & 0o077 != 0 {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
        }
    }
    Ok(())
}

/// The key, unless there is none or somebody else could have read or written it: then every
/// artifact under it is worth nothing, and a new key says so.
fn read_key(dir: &Path) -> io::Result<Option<[u8; 32]>> {
    let mut file = match fs::File::open(dir.join(KEY_FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if file.metadata()?.permissions().mode() & 0o077 != 0 {
            tracing::warn!("the key of the compiled plugins was open to others; it is made anew");
            return Ok(None);
        }
    }
    let mut key = [0; 32];
    match file.read_exact(&mut key) {
        Ok(()) => Ok(Some(key)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn make_key(dir: &Path) -> io::Result<[u8; 32]> {
    use wasmtime_wasi::Rng;
    let mut key = [0; 32];
    wasmtime_wasi::thread_rng().fill_bytes(&mut key);
    // A temporary file is readable by this user only.
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(&key)?;
    file.as_file().sync_all()?;
    file.persist(dir.join(KEY_FILE))
        .map_err(|error| error.error)?;
    // Another process may have won the race; the file is what counts.
    Ok(read_key(dir)?.unwrap_or(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine;
    use crate::sandbox::Pooling;

    fn component(engine: &Engine) -> (Digest, Vec<u8>) {
        let text = "(component (core module (func (export \"f\"))))";
        let bytes = wat::parse_str(text).expect("text");
        let artifact = engine.precompile_component(&bytes);
        (Digest::of(text.as_bytes()), artifact.expect("a component"))
    }

    fn cache(dir: &Path, engine: &Engine) -> Cache {
        Cache::open(dir, engine::compatibility(engine)).expect("a cache")
    }

    #[test]
    fn what_was_stored_is_loaded_by_another_process_too() {
        let dir = tempfile::tempdir().expect("a folder");
        let engine = engine::start(Pooling::Off).expect("an engine");
        let (digest, compiled) = component(&engine);
        cache(dir.path(), &engine)
            .store(digest, &compiled)
            .expect("stored");
        assert!(cache(dir.path(), &engine).load(&engine, digest).is_some());
        assert!(
            cache(dir.path(), &engine)
                .load(&engine, Digest::of(b"other"))
                .is_none()
        );
    }

    #[test]
    fn a_changed_cut_or_renamed_artifact_is_not_run() {
        let dir = tempfile::tempdir().expect("a folder");
        let engine = engine::start(Pooling::Off).expect("an engine");
        let cache = cache(dir.path(), &engine);
        let (digest, compiled) = component(&engine);
        cache.store(digest, &compiled).expect("stored");
        let path = dir.path().join(cache.name(digest));
        let good = fs::read(&path).expect("the artifact");
        for place in [0, TAG_BYTES, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[place] ^= 1;
            fs::write(&path, &bad).expect("tampered");
            assert!(
                cache.load(&engine, digest).is_none(),
                "byte {place} was changed"
            );
        }
        for length in [0, TAG_BYTES - 1, TAG_BYTES, good.len() - 1] {
            fs::write(&path, &good[..length]).expect("cut");
            assert!(
                cache.load(&engine, digest).is_none(),
                "cut to {length} bytes"
            );
        }
        let other = Digest::of(b"another component");
        fs::write(dir.path().join(cache.name(other)), &good).expect("renamed");
        assert!(cache.load(&engine, other).is_none(), "under another name");
        fs::write(&path, &good).expect("restored");
        assert!(
            cache.load(&engine, digest).is_some(),
            "the test must be able to pass"
        );
    }

    #[test]
    fn an_artifact_under_another_key_is_not_run() {
        let (mine, theirs) = (
            tempfile::tempdir().expect("one"),
            tempfile::tempdir().expect("two"),
        );
        let engine = engine::start(Pooling::Off).expect("an engine");
        let (digest, compiled) = component(&engine);
        let foreign = cache(theirs.path(), &engine);
        foreign.store(digest, &compiled).expect("stored");
        let own = cache(mine.path(), &engine);
        fs::copy(
            theirs.path().join(foreign.name(digest)),
            mine.path().join(own.name(digest)),
        )
        .expect("copied");
        assert!(own.load(&engine, digest).is_none());
    }

    #[cfg(unix)]
    #[test]
    fn folder_and_key_are_private_and_an_open_key_is_replaced() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a folder");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("opened up");
        let engine = engine::start(Pooling::Off).expect("an engine");
        let first = cache(dir.path(), &engine);
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(dir.path()), 0o700);
        let key = dir.path().join(KEY_FILE);
        assert_eq!(mode(&key), 0o600);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("opened up");
        let second = cache(dir.path(), &engine);
        assert_ne!(first.key, second.key);
        assert_eq!(mode(&key), 0o600);
    }
}
