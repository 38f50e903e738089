//! Files below the folders that the operator grants, by absolute guest path such as `/data/a.csv`.
//!
//! ```no_run
//! use std::io::Read;
//! use sandcast_sdk::files;
//!
//! # fn main() -> Result<(), sandcast_sdk::Failure> {
//! for entry in files::list("/data")? {
//!     let mut text = String::new();
//!     files::open(&format!("/data/{}", entry.name))?.take(1024).read_to_string(&mut text)?;
//! }
//! # Ok(()) }
//! ```

use std::io;
use std::time::Duration;

use crate::bindings::imports::wasi::filesystem::preopens;
use crate::bindings::imports::wasi::filesystem::types::{
    Descriptor, DescriptorFlags, DescriptorType, ErrorCode, OpenFlags, PathFlags,
};
use crate::{Failure, FailureCode};

/// How much one call into the host reads: large enough that calls do not count.
const BLOCK_BYTES: u64 = 256 * 1024;

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// Anything else, such as a symbolic link.
    Other,
}

impl From<DescriptorType> for Sort {
    fn from(kind: DescriptorType) -> Self {
        match kind {
            DescriptorType::RegularFile => Self::File,
            DescriptorType::Directory => Self::Folder,
            _ => Self::Other,
        }
    }
}

/// What is known of a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// A file, a folder or something else.
    pub sort: Sort,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was last changed, since 1970-01-01T00:00:00Z, where that is known.
    pub modified: Option<Duration>,
}

/// One thing in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name within the folder.
    pub name: String,
    /// A file, a folder or something else.
    pub sort: Sort,
}

/// Opens a file for reading, from its start. Symbolic links are followed inside the granted folder.
///
/// # Errors
/// `denied` when no granted folder holds the path, `unavailable` when it is not there.
pub fn open(path: &str) -> Result<File, Failure> {
    let (folder, rest) = locate(path)?;
    let descriptor = folder
        .open_at(
            PathFlags::SYMLINK_FOLLOW,
            rest,
            OpenFlags::empty(),
            DescriptorFlags::READ,
        )
        .map_err(|code| failure(path, code))?;
    Ok(File {
        path: path.to_owned(),
        descriptor,
        position: 0,
        block: Vec::new(),
        taken: 0,
        ended: false,
    })
}

/// What is known of a path.
///
/// # Errors
/// As [`open`].
pub fn metadata(path: &str) -> Result<Metadata, Failure> {
    let (folder, rest) = locate(path)?;
    let stat = folder
        .stat_at(PathFlags::SYMLINK_FOLLOW, rest)
        .map_err(|code| failure(path, code))?;
    Ok(Metadata {
        sort: stat.type_.into(),
        bytes: stat.size,
        modified: stat
            .data_modification_timestamp
            .map(|time| Duration::new(time.seconds, time.nanoseconds)),
    })
}

/// What is in a folder, by name in rising order.
///
/// # Errors
/// As [`open`], and for a path that is no folder.
pub fn list(path: &str) -> Result<Vec<Entry>, Failure> {
    let (folder, rest) = locate(path)?;
    let opened = folder
        .open_at(
            PathFlags::SYMLINK_FOLLOW,
            rest,
            OpenFlags::DIRECTORY,
            DescriptorFlags::READ,
        )
        .map_err(|code| failure(path, code))?;
    let stream = opened
        .read_directory()
        .map_err(|code| failure(path, code))?;
    let mut entries = Vec::new();
    while let Some(entry) = stream
        .read_directory_entry()
        .map_err(|code| failure(path, code))?
    {
        entries.push(Entry {
            name: entry.name,
            sort: entry.type_.into(),
        });
    }
    entries.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(entries)
}

/// A file open for reading, in large blocks.
#[derive(Debug)]
pub struct File {
    path: String,
    descriptor: Descriptor,
    position: u64,
    block: Vec<u8>,
    taken: usize,
    ended: bool,
}

impl File {
    fn fill(&mut self) -> io::Result<()> {
        while self.taken == self.block.len() && !self.ended {
            let (block, ended) = self
                .descriptor
                .read(BLOCK_BYTES, self.position)
                .map_err(|code| io::Error::other(failure(&self.path, code)))?;
            self.position += block.len() as u64;
            // A host that gives nothing and does not say that this is the end would be asked forever.
            self.ended = ended || block.is_empty();
            self.block = block;
            self.taken = 0;
        }
        Ok(())
    }
}

impl io::Read for File {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let available = io::BufRead::fill_buf(self)?;
        let count = available.len().min(into.len());
        into[..count].copy_from_slice(&available[..count]);
        self.taken += count;
        Ok(count)
    }
}

impl io::BufRead for File {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.fill()?;
        Ok(self.block.get(self.taken..).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.taken = (self.taken + count).min(self.block.len());
    }
}

/// The granted folder that holds a path most closely, and the path within it.
fn locate(path: &str) -> Result<(Descriptor, &str), Failure> {
    let mut best: Option<(usize, Descriptor, &str)> = None;
    for (descriptor, folder) in preopens::get_directories() {
        if let Some(rest) = within(&folder, path)
            && best
                .as_ref()
                .is_none_or(|(length, ..)| folder.len() > *length)
        {
            best = Some((folder.len(), descriptor, rest));
        }
    }
    best.map(|(_, descriptor, rest)| (descriptor, rest)).ok_or_else(|| {
        Failure::denied(format!("no folder that holds `{path}` is granted"))
            .hint("grant one under `grants.files`, with the folder of the host and the path of the guest")
    })
}

/// The part of a path below a folder; `.` for the folder itself.
fn within<'p>(folder: &str, path: &'p str) -> Option<&'p str> {
    let rest = path.strip_prefix(folder.trim_end_matches('/'))?;
    if !rest.is_empty() && !rest.starts_with('/') {
        return None;
    }
    let rest = rest.trim_start_matches('/');
    Some(if rest.is_empty() { "." } else { rest })
}

fn failure(path: &str, code: ErrorCode) -> Failure {
    let (kind, what) = match code {
        ErrorCode::Access | ErrorCode::NotPermitted | ErrorCode::ReadOnly => {
            (FailureCode::Denied, "is not permitted")
        }
        ErrorCode::NoEntry => (FailureCode::Unavailable, "is not there"),
        ErrorCode::NotDirectory => (FailureCode::InvalidInput, "is not a folder"),
        ErrorCode::IsDirectory => (FailureCode::InvalidInput, "is a folder"),
        ErrorCode::Loop => (FailureCode::InvalidInput, "goes round in symbolic links"),
        ErrorCode::InsufficientMemory | ErrorCode::InsufficientSpace | ErrorCode::Quota => {
            (FailureCode::Exhausted, "does not fit")
        }
        other => return Failure::unavailable(format!("`{path}`: {}", other.name())),
    };
    Failure::new(kind, format!("`{path}` {what}"))
}

#[cfg(test)]
mod tests {
    use super::within;

    #[test]
    fn a_path_is_inside_only_at_a_slash() {
        assert_eq!(within("/data", "/data/a.csv"), Some("a.csv"));
        assert_eq!(within("/data/", "/data/sub/a.csv"), Some("sub/a.csv"));
        assert_eq!(within("/data", "/data"), Some("."));
        assert_eq!(within("/data", "/database/a.csv"), None);
        assert_eq!(within("/", "/a.csv"), Some("a.csv"));
        assert_eq!(within("/data", "a.csv"), None);
        assert_eq!(
            within("/data", "/data/../etc"),
            Some("../etc"),
            "refused by the host, not guessed at here"
        );
    }
}
