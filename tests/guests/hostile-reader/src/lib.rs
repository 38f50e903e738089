//! A connector that reads where it should not, and hands over what it got: a row with a column
//! `content`, or the failure.

use std::io::Read;

use sandcast_sdk::bindings::imports::wasi::filesystem::preopens;
use sandcast_sdk::bindings::imports::wasi::filesystem::types::{
    Descriptor, DescriptorFlags, ErrorCode, OpenFlags, PathFlags,
};
use sandcast_sdk::columns::{Rows, field};
use sandcast_sdk::{Chunk, Connector, Failure, Field, Kind, ScanRequest, Split, files};
use serde::Deserialize;

/// How to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Behaviour {
    /// The path, by the SDK.
    #[default]
    Read,
    /// The names in the folder at the path.
    List,
    /// The path as it stands, handed to the first granted folder: `../secret`, `/etc/passwd`.
    ReadRaw,
    /// Makes the file at the path, relative to the first granted folder.
    Write,
    /// Makes a symbolic link called `out` to the path in the first granted folder and reads through it.
    LinkAndRead,
    /// Moves the path, relative to the first granted folder, out of it.
    MoveOut,
    /// Writes to the file at the path until it may not, by a stream; says how many bytes went in.
    FillByStream,
    /// The same at offsets.
    FillByWrite,
    /// The same by making the file longer.
    FillBySize,
    /// Makes files called `0`, `1`, … beside the path until it may not; says how many.
    MakeMany,
    /// Reads the path as it stands, many times, while somebody changes what leads there; hands over
    /// the first content that is not `open`.
    ReadOften,
    /// Makes a hard link called `out` to the path and reads it.
    HardLinkAndRead,
    /// Writes a byte to the file at the path, a tebibyte beyond its end.
    WriteFar,
    /// The same by a stream that begins there.
    StreamFar,
    /// Writes exactly what the tests grant to the file at the path, and a byte more.
    FillExactly,
    /// Lists the folder at the path over and over at one time.
    ListMany,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    behaviour: Behaviour,
    path: String,
}

struct Reader {
    config: Config,
    done: bool,
}

/// Files that are made at most.
const MOST_FILES: u32 = 100;

/// Bytes that are written at a time, and how often at most.
const PIECE: usize = 1000;
const MOST_PIECES: u64 = 100;

/// Bytes that the tests let it write.
const QUOTA: usize = 10_500;

/// A place in a file that is beyond any end.
const FAR: u64 = 1 << 40;

/// Lists of a folder that are open at most.
const MOST_LISTINGS: usize = 1000;

/// How often a path is read that somebody changes.
const READINGS: u32 = 3000;

/// Makes a file in the first granted folder.
fn make(path: &str) -> Result<Descriptor, Failure> {
    let (folder, _) = first_folder()?;
    folder
        .open_at(
            PathFlags::empty(),
            path,
            OpenFlags::CREATE,
            DescriptorFlags::READ | DescriptorFlags::WRITE,
        )
        .map_err(|code| refused("open", path, code))
}

fn refused(what: &str, path: &str, code: ErrorCode) -> Failure {
    Failure::denied(format!("{what} `{path}`: {}", code.name()))
}

/// Writes a byte far beyond the end.
fn write_far(behaviour: Behaviour, path: &str) -> Result<String, Failure> {
    let file = make(path)?;
    match behaviour {
        Behaviour::StreamFar => {
            let stream = file.write_via_stream(FAR);
            let stream = stream.map_err(|code| refused("write", path, code))?;
            let written = stream.blocking_write_and_flush(b"x");
            written.map_err(|_| Failure::denied(format!("write `{path}`")))?;
        }
        _ => {
            let written = file.write(b"x", FAR);
            written.map_err(|code| refused("write", path, code))?;
        }
    }
    Ok("written".into())
}

/// Writes all that it may, to the last byte, and one more.
fn fill_exactly(path: &str) -> Result<String, Failure> {
    let file = make(path)?;
    let stream = file.write_via_stream(0);
    let stream = stream.map_err(|code| refused("write", path, code))?;
    for piece in [b'x'; QUOTA].chunks(PIECE) {
        let written = stream.blocking_write_and_flush(piece);
        written.map_err(|_| Failure::internal("what it may write was refused"))?;
    }
    let written = stream.blocking_write_and_flush(b"x");
    written.map_err(|_| Failure::denied("one byte more"))?;
    Ok("one byte more".into())
}

/// Lists a folder without ending any of the lists.
fn list_many(path: &str) -> Result<String, Failure> {
    let (folder, _) = first_folder()?;
    let folder = folder
        .open_at(
            PathFlags::empty(),
            path,
            OpenFlags::DIRECTORY,
            DescriptorFlags::READ,
        )
        .map_err(|code| refused("open", path, code))?;
    let mut listings = Vec::new();
    while listings.len() < MOST_LISTINGS {
        let listed = folder.read_directory().map_err(|code| {
            let count = listings.len();
            Failure::exhausted(format!("after {count} lists: {}", code.name()))
        })?;
        listings.push(listed);
    }
    Ok(format!("{} lists", listings.len()))
}

/// Writes until it may not.
fn fill(behaviour: Behaviour, path: &str) -> Result<String, Failure> {
    let file = make(path)?;
    let stream = match behaviour {
        Behaviour::FillByStream => file.write_via_stream(0).ok(),
        _ => None,
    };
    let mut said = "no end".to_owned();
    for piece in 0..MOST_PIECES {
        let offset = piece * PIECE as u64;
        let written = match (&stream, behaviour) {
            (Some(stream), _) => stream
                .blocking_write_and_flush(&[b'x'; PIECE])
                .map_err(|_| "the stream".to_owned()),
            (None, Behaviour::FillBySize) => file
                .set_size(offset + PIECE as u64)
                .map_err(|code| code.name().to_owned()),
            (None, _) => file
                .write(&[b'x'; PIECE], offset)
                .map(|_| ())
                .map_err(|code| code.name().to_owned()),
        };
        if let Err(why) = written {
            said = why;
            break;
        }
    }
    Ok(said)
}

/// Reads a path as it stands from the first granted folder.
fn raw(path: &str, open: OpenFlags, flags: DescriptorFlags) -> Result<String, Failure> {
    let (folder, _) = first_folder()?;
    let file = folder
        .open_at(PathFlags::SYMLINK_FOLLOW, path, open, flags)
        .map_err(|code| Failure::denied(format!("`{path}`: {}", code.name())))?;
    if flags.contains(DescriptorFlags::WRITE) {
        file.write(b"written", 0)
            .map_err(|code| Failure::denied(format!("`{path}`: {}", code.name())))?;
        return Ok("written".into());
    }
    let (bytes, _) = file
        .read(1 << 20, 0)
        .map_err(|code| Failure::denied(format!("`{path}`: {}", code.name())))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn first_folder() -> Result<(Descriptor, String), Failure> {
    preopens::get_directories()
        .into_iter()
        .next()
        .ok_or_else(|| Failure::denied("no folder is granted"))
}

impl Reader {
    fn content(&self) -> Result<String, Failure> {
        let path = &self.config.path;
        match self.config.behaviour {
            Behaviour::Read => {
                let mut content = String::new();
                files::open(path)?.read_to_string(&mut content)?;
                Ok(content)
            }
            Behaviour::List => {
                let names: Vec<String> = files::list(path)?
                    .into_iter()
                    .map(|entry| entry.name)
                    .collect();
                Ok(names.join(","))
            }
            Behaviour::ReadRaw => raw(path, OpenFlags::empty(), DescriptorFlags::READ),
            Behaviour::Write => raw(path, OpenFlags::CREATE, DescriptorFlags::WRITE),
            Behaviour::FillByStream | Behaviour::FillByWrite | Behaviour::FillBySize => {
                fill(self.config.behaviour, path)
            }
            Behaviour::MakeMany => {
                let made = (0..MOST_FILES).map_while(|number| {
                    let name = number.to_string();
                    raw(&name, OpenFlags::CREATE, DescriptorFlags::WRITE).ok()
                });
                Ok(format!("{} files", made.count()))
            }
            Behaviour::ReadOften => {
                let other = (0..READINGS).find_map(|_| {
                    let read = raw(path, OpenFlags::empty(), DescriptorFlags::READ).ok();
                    read.filter(|content| content != "open")
                });
                Ok(other.unwrap_or_else(|| "nothing else".into()))
            }
            Behaviour::HardLinkAndRead => {
                let (folder, _) = first_folder()?;
                let (there, _) = first_folder()?;
                folder
                    .link_at(PathFlags::empty(), path, &there, "out")
                    .map_err(|code| {
                        Failure::denied(format!("a hard link to `{path}`: {}", code.name()))
                    })?;
                raw("out", OpenFlags::empty(), DescriptorFlags::READ)
            }
            Behaviour::WriteFar | Behaviour::StreamFar => write_far(self.config.behaviour, path),
            Behaviour::FillExactly => fill_exactly(path),
            Behaviour::ListMany => list_many(path),
            Behaviour::LinkAndRead => {
                let (folder, _) = first_folder()?;
                folder.symlink_at(path, "out").map_err(|code| {
                    Failure::denied(format!("a link to `{path}`: {}", code.name()))
                })?;
                raw("out", OpenFlags::empty(), DescriptorFlags::READ)
            }
            Behaviour::MoveOut => {
                let (folder, _) = first_folder()?;
                let (there, _) = first_folder()?;
                folder
                    .rename_at(path, &there, "../moved-out")
                    .map_err(|code| {
                        Failure::denied(format!("`{path}` to `../moved-out`: {}", code.name()))
                    })?;
                Ok("moved".into())
            }
        }
    }
}

impl Connector for Reader {
    type Config = Config;

    fn open(config: Config) -> Result<Self, Failure> {
        Ok(Self {
            config,
            done: false,
        })
    }

    fn schema(&mut self) -> Result<Vec<Field>, Failure> {
        Ok(vec![field("content", Kind::Utf8, true)])
    }

    fn partitions(&mut self) -> Result<Vec<Split>, Failure> {
        Ok(vec![Split::whole("all")])
    }

    fn scan(&mut self, _request: ScanRequest) -> Result<(), Failure> {
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Chunk>, Failure> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(None);
        }
        Rows::new()
            .utf8("content", [Some(self.content()?)])
            .into_chunk()
            .map(Some)
    }
}

sandcast_sdk::export_connector!(Reader);
