//! Folders as stores: an object is a file. Every step from the folder to a file is taken by itself and over
//! no link, so nothing that lies in the folder leads out of it, or out of what is granted of it.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, UNIX_EPOCH};

use bytes::Bytes;
use cap_primitives::ambient_authority;
use cap_primitives::fs::{
    DirOptions, FollowSymlinks, OpenOptions, create_dir, hard_link, open, open_ambient_dir,
    open_dir_nofollow, read_base_dir, remove_file, rename, stat,
};

use super::key::{MAX_PARTS, UNFINISHED, check_key};
use super::{Answer, Ask, Blob, Condition, Entry, Found, Most, Trouble};

/// Names of one folder that are held in memory to list them.
const MAX_NAMES: usize = 1_000_000;

/// Names for something unfinished that are tried.
const ATTEMPTS: u32 = 16;

/// One after the other: what is put on a condition is looked at and put in one step, among those who write by
/// this host.
static PUTTING: Mutex<()> = Mutex::new(());

/// Says whether a folder can be a store.
pub(super) fn check(path: &Path) -> Result<(), String> {
    let described = path.display();
    match std::fs::metadata(path) {
        Ok(found) if !found.is_dir() => Err(format!("{described} is not a folder")),
        Ok(_) => open_ambient_dir(path, ambient_authority())
            .map(|_| ())
            .map_err(|error| format!("{described} cannot be opened: {error}")),
        Err(error) => Err(format!("{described} cannot be opened: {error}")),
    }
}

/// Does what is asked, on the thread that calls it.
pub(super) fn ask(
    root: &Path,
    store: &str,
    ask: Ask,
    deadline: Instant,
) -> Result<Answer, Trouble> {
    let root = open_ambient_dir(root, ambient_authority()).map_err(away)?;
    let folder = Folder {
        root,
        store,
        deadline,
    };
    match ask {
        Ask::List {
            prefix,
            cursor,
            limit,
        } => folder.list(&prefix, cursor.as_deref(), limit),
        Ask::Head { key } => folder.head(&key).map(Answer::Head),
        Ask::Get { key, range, most } => folder.get(&key, range, &most),
        Ask::Put {
            key,
            bytes,
            condition,
        } => folder.put(&key, &bytes.0, &condition),
        Ask::Delete { key } => folder.delete(&key),
    }
}

struct Folder<'a> {
    root: File,
    store: &'a str,
    deadline: Instant,
}

/// What lies under a name.
enum Lying {
    Nothing,
    Folder,
    File(Entry),
}

impl Folder<'_> {
    fn link(&self, name: &str) -> Trouble {
        Trouble::Refused {
            line: format!("stores.{}.url", self.store),
            what: format!("`{name}` is neither a file nor a folder, and links are not followed"),
        }
    }

    /// What lies in a folder under a part of a key.
    fn lying(&self, folder: &File, part: &str, key: &str) -> Result<Lying, Trouble> {
        let found = match stat(folder, Path::new(part), FollowSymlinks::No) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Lying::Nothing),
            Err(error) => return Err(away(error)),
        };
        let kind = found.file_type();
        if kind.is_dir() {
            return Ok(Lying::Folder);
        }
        if !kind.is_file() {
            return Err(self.link(key));
        }
        let changed = found.modified().ok().map(|time| time.into_std());
        let since = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        #[cfg(unix)]
        let number = cap_primitives::fs::MetadataExt::ino(&found);
        #[cfg(not(unix))]
        let number = 0_u64;
        let nanoseconds = since.map_or(0, |since| since.as_nanos());
        Ok(Lying::File(Entry {
            key: key.to_owned(),
            size: found.len(),
            etag: Some(format!("{number:x}-{nanoseconds:x}-{:x}", found.len())),
            modified: since.and_then(|since| i64::try_from(since.as_secs()).ok()),
        }))
    }

    /// The folder that a key is in, and its last part. Nothing where it is not there and is not to be made.
    fn parent<'k>(&self, key: &'k str, make: bool) -> Result<Option<(File, &'k str)>, Trouble> {
        let mut at = self.root.try_clone().map_err(away)?;
        let (parts, last) = match key.rsplit_once('/') {
            None => ("", key),
            Some((parts, last)) => (parts, last),
        };
        for part in parts.split('/').filter(|part| !part.is_empty()) {
            match self.lying(&at, part, part)? {
                Lying::Folder => {}
                Lying::Nothing if make => {
                    let made = create_dir(&at, Path::new(part), &DirOptions::new());
                    match made {
                        // Somebody else was faster.
                        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                        made => made.map_err(away)?,
                    }
                }
                Lying::File(_) if make => {
                    return Err(Trouble::Wrong(format!(
                        "`{part}` is an object, and no folder"
                    )));
                }
                Lying::Nothing | Lying::File(_) => return Ok(None),
            }
            at = open_dir_nofollow(&at, Path::new(part)).map_err(away)?;
        }
        Ok(Some((at, last)))
    }

    fn head(&self, key: &str) -> Result<Option<Entry>, Trouble> {
        let Some((folder, name)) = self.parent(key, false)? else {
            return Ok(None);
        };
        Ok(match self.lying(&folder, name, key)? {
            Lying::File(entry) => Some(entry),
            Lying::Nothing | Lying::Folder => None,
        })
    }

    fn get(&self, key: &str, range: Option<(u64, u64)>, most: &Most) -> Result<Answer, Trouble> {
        let nothing = Ok(Answer::Object(None));
        let Some((folder, name)) = self.parent(key, false)? else {
            return nothing;
        };
        let Lying::File(entry) = self.lying(&folder, name, key)? else {
            return nothing;
        };
        let mut file = match open(&folder, Path::new(name), OpenOptions::new().read(true)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return nothing,
            Err(error) => return Err(away(error)),
        };
        let length = match range {
            None => entry.size,
            Some((offset, _)) if offset >= entry.size => {
                let what = "the object ends before that part begins";
                return Err(Trouble::Wrong(what.to_owned()));
            }
            Some((offset, length)) => length.min(entry.size - offset),
        };
        most.allows(length)?;
        file.seek(SeekFrom::Start(range.map_or(0, |(offset, _)| offset)))
            .map_err(away)?;
        let mut bytes = Vec::new();
        // It may have grown since; what was seen is what is given.
        file.take(length).read_to_end(&mut bytes).map_err(away)?;
        if bytes.len() as u64 != length {
            return Err(Trouble::Away(
                "the object was changed while it was read".to_owned(),
            ));
        }
        Ok(Answer::Object(Some(Found {
            entry,
            bytes: Blob(bytes.into()),
        })))
    }

    fn put(&self, key: &str, bytes: &Bytes, condition: &Condition) -> Result<Answer, Trouble> {
        let Some((folder, name)) = self.parent(key, true)? else {
            return Err(Trouble::Away(
                "the folder of the key cannot be made".to_owned(),
            ));
        };
        let (unfinished, mut file) = begin(&folder)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        let put = match written {
            Err(error) => Err(away(error)),
            Ok(()) => self.finish(&folder, name, key, &unfinished, condition),
        };
        if !matches!(put, Ok(Answer::Written(_))) {
            // It stays behind if that fails too, under a name that no key has.
            let _ = remove_file(&folder, Path::new(&unfinished));
        }
        put
    }

    /// Gives what was written its name, in one step.
    fn finish(
        &self,
        folder: &File,
        name: &str,
        key: &str,
        unfinished: &str,
        condition: &Condition,
    ) -> Result<Answer, Trouble> {
        let (from, to) = (Path::new(unfinished), Path::new(name));
        let held = PUTTING.lock().unwrap_or_else(PoisonError::into_inner);
        if Instant::now() >= self.deadline {
            return Err(Trouble::Away(
                "its time was up before it was put".to_owned(),
            ));
        }
        let there = self.lying(folder, name, key)?;
        match (condition, there) {
            (_, Lying::Folder) => {
                return Err(Trouble::Wrong(format!("`{key}` is a folder")));
            }
            (Condition::IfAbsent, Lying::File(_)) => return Ok(Answer::Unmet),
            (Condition::IfAbsent, Lying::Nothing) => {
                // Fails where somebody outside of this host was faster.
                match hard_link(folder, from, folder, to) {
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                        return Ok(Answer::Unmet);
                    }
                    linked => linked.map_err(away)?,
                }
                let _ = remove_file(folder, from);
            }
            (Condition::IfMatch(_), Lying::Nothing) => return Ok(Answer::Unmet),
            (Condition::IfMatch(tag), Lying::File(entry)) if entry.etag.as_ref() != Some(tag) => {
                return Ok(Answer::Unmet);
            }
            (Condition::IfMatch(_), Lying::File(_))
            | (Condition::Always, Lying::Nothing | Lying::File(_)) => {
                rename(folder, from, folder, to).map_err(away)?;
            }
        }
        let tag = match self.lying(folder, name, key)? {
            Lying::File(entry) => entry.etag,
            Lying::Nothing | Lying::Folder => None,
        };
        drop(held);
        // The name, on the disk; not every system does that with folders.
        if let Ok(itself) = open(folder, Path::new("."), OpenOptions::new().read(true)) {
            let _ = itself.sync_all();
        }
        Ok(Answer::Written(tag))
    }

    fn delete(&self, key: &str) -> Result<Answer, Trouble> {
        let Some((folder, name)) = self.parent(key, false)? else {
            return Ok(Answer::Deleted);
        };
        let _held = PUTTING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Lying::File(_) = self.lying(&folder, name, key)? {
            match remove_file(&folder, Path::new(name)) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                removed => removed.map_err(away)?,
            }
        }
        Ok(Answer::Deleted)
    }

    fn list(&self, prefix: &str, cursor: Option<&str>, limit: u32) -> Result<Answer, Trouble> {
        if cursor.is_some_and(|cursor| check_key(cursor).is_err() || !cursor.starts_with(prefix)) {
            return Err(Trouble::Wrong("this is no cursor of this list".to_owned()));
        }
        let mut walk = Walk {
            folder: self,
            after: cursor,
            // One more, to know whether there is more.
            limit: limit as usize + 1,
            entries: Vec::new(),
        };
        let marked = format!("{prefix}x");
        if let Some((folder, _)) = self.parent(&marked, false)? {
            walk.go(&folder, prefix, prefix.matches('/').count())?;
        }
        let mut entries = walk.entries;
        let mut cursor = None;
        if entries.len() > limit as usize {
            entries.truncate(limit as usize);
            cursor = entries.last().map(|entry| entry.key.clone());
        }
        Ok(Answer::Page { entries, cursor })
    }
}

/// A walk over a folder in the order of keys.
struct Walk<'a> {
    folder: &'a Folder<'a>,
    after: Option<&'a str>,
    limit: usize,
    entries: Vec<Entry>,
}

impl Walk<'_> {
    /// Goes over one folder and those in it. As deep as keys are.
    fn go(&mut self, folder: &File, prefix: &str, depth: usize) -> Result<(), Trouble> {
        if depth >= MAX_PARTS {
            return Ok(());
        }
        let mut names = Vec::new();
        for entry in read_base_dir(folder).map_err(away)? {
            if Instant::now() >= self.folder.deadline {
                return Err(Trouble::too_much("timeout", "it took too long"));
            }
            let entry = entry.map_err(away)?;
            let kind = entry.file_type().map_err(away)?;
            // What no key can name, and links, are not there.
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if !(kind.is_dir() || kind.is_file()) || name.starts_with(UNFINISHED) {
                continue;
            }
            if names.len() >= MAX_NAMES {
                return Err(Trouble::Away(format!(
                    "a folder holds more than {MAX_NAMES} names"
                )));
            }
            // A folder is where its keys are in order: `a-b`, `a/b`, `ab`.
            let slash = if kind.is_dir() { "/" } else { "" };
            names.push(format!("{prefix}{name}{slash}"));
        }
        names.sort_unstable();
        for key in names {
            if self.entries.len() >= self.limit {
                return Ok(());
            }
            let name = key.strip_prefix(prefix).unwrap_or(&key);
            if let Some(part) = name.strip_suffix('/') {
                let is_over = self
                    .after
                    .is_some_and(|after| !after.starts_with(&key) && after > key.as_str());
                if is_over || check_key(part).is_err() {
                    continue;
                }
                // It may be gone by now.
                if let Ok(inner) = open_dir_nofollow(folder, Path::new(part)) {
                    self.go(&inner, &key, depth + 1)?;
                }
            } else if self.after.is_none_or(|after| key.as_str() > after)
                && check_key(&key).is_ok()
                && let Ok(Lying::File(entry)) = self.folder.lying(folder, name, &key)
            {
                self.entries.push(entry);
            }
        }
        Ok(())
    }
}

/// A new file that has no name yet.
fn begin(folder: &File) -> Result<(String, File), Trouble> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{UNFINISHED}{:x}-{number:x}", std::process::id());
        match open(folder, Path::new(&name), &options) {
            Ok(file) => return Ok((name, file)),
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(
        || Trouble::Away("nothing can be written there".to_owned()),
        away,
    ))
}

/// What is said of a folder that does not do what it should. It names no path of the host.
fn away(error: std::io::Error) -> Trouble {
    tracing::warn!(%error, "the folder of a store does not answer");
    Trouble::Away(format!("the folder of the store: {}", error.kind()))
}
