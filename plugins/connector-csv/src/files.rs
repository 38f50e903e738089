//! Which files a path means, and their bytes.

use std::io::{self, Chain, Cursor, Read};

use flate2::read::MultiGzDecoder;
use sandcast_sdk::Failure;

use crate::config::{Compression, Config};

/// What a file of this connector ends with when a folder is named.
const ENDINGS: [&str; 4] = [".csv", ".tsv", ".csv.gz", ".tsv.gz"];
/// A compressed file may grow as it likes up to here; its ratio is judged beyond.
const FREE_EXPANSION_BYTES: u64 = 64 << 20;

/// A file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) path: String,
    pub(crate) bytes: u64,
    /// Changes when the content does, as far as its size and time of change tell.
    pub(crate) version: Option<String>,
}

/// The files that the configured paths mean, each once, in rising order.
pub(crate) fn find(config: &Config) -> Result<Vec<Found>, Failure> {
    use sandcast_sdk::files::{Sort, list, metadata};
    let mut found = Vec::new();
    for path in config.paths() {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let names = if name.contains(['*', '?']) {
            Some((
                folder,
                list(if folder.is_empty() { "/" } else { folder })?,
                Names::Matching(name),
            ))
        } else if metadata(path)?.sort == Sort::Folder {
            Some((path.trim_end_matches('/'), list(path)?, Names::OfTables))
        } else {
            None
        };
        let Some((folder, entries, names)) = names else {
            found.push(describe(path.to_owned())?);
            continue;
        };
        let before = found.len();
        for entry in entries.iter().filter(|entry| names.take(&entry.name)) {
            let path = format!("{folder}/{}", entry.name);
            // A symbolic link counts as what it leads to.
            if entry.sort != Sort::Folder && metadata(&path)?.sort == Sort::File {
                found.push(describe(path)?);
            }
        }
        if found.len() == before {
            return Err(
                Failure::unavailable(format!("no file matches `{path}`")).hint(match names {
                    Names::OfTables => format!(
                        "a folder gives its files that end with {}",
                        ENDINGS.join(", ")
                    ),
                    Names::Matching(_) => "the last part of a path may hold `*` and `?`".to_owned(),
                }),
            );
        }
    }
    found.sort_by(|left, right| left.path.cmp(&right.path));
    found.dedup_by(|left, right| left.path == right.path);
    Ok(found)
}

fn describe(path: String) -> Result<Found, Failure> {
    let metadata = sandcast_sdk::files::metadata(&path)?;
    let version = metadata
        .modified
        .map(|modified| format!("{}-{}", metadata.bytes, modified.as_nanos()));
    Ok(Found {
        path,
        bytes: metadata.bytes,
        version,
    })
}

/// Which names of a folder count.
#[derive(Debug, Clone, Copy)]
enum Names<'a> {
    OfTables,
    Matching(&'a str),
}

impl Names<'_> {
    fn take(self, name: &str) -> bool {
        match self {
            Self::OfTables => {
                !name.starts_with('.') && ENDINGS.iter().any(|ending| name.ends_with(ending))
            }
            Self::Matching(pattern) => matches(pattern.as_bytes(), name.as_bytes()),
        }
    }
}

/// Whether a name fits a pattern, in time that grows with their product at most.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut place) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while place < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, place));
                at += 1;
            }
            Some(wanted) if *wanted == b'?' || *wanted == name[place] => {
                at += 1;
                place += 1;
            }
            _ => match star {
                Some((back, taken)) => {
                    star = Some((back, taken + 1));
                    at = back + 1;
                    place = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|rest| *rest == b'*')
}

/// The text of a file, decompressed where it is compressed.
pub(crate) type Text<R> = Bounded<Plain<R>>;

/// Opens what a source holds.
pub(crate) fn text<R: Read>(mut source: R, config: &Config) -> Result<Text<R>, Failure> {
    let mut magic = [0; 2];
    let mut read = 0;
    while read < magic.len() {
        match source.read(&mut magic[read..]) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let is_gzip = magic[..read] == [0x1f, 0x8b];
    let start = Cursor::new(magic[..read].to_vec()).chain(source);
    let plain = match config.compression {
        Compression::Auto if is_gzip => Plain::gzip(start),
        Compression::Gzip if is_gzip || read == 0 => Plain::gzip(start),
        Compression::Gzip => {
            return Err(
                Failure::invalid_input("the file does not start as gzip does")
                    .hint("leave `compression` out, so that every file is looked at"),
            );
        }
        Compression::Auto | Compression::None => Plain::Text(start),
    };
    Ok(Bounded {
        inner: plain,
        bytes: 0,
        max_bytes: config.max_file_bytes,
        max_expansion: config.max_expansion,
    })
}

/// A source whose first bytes have been looked at.
type Peeked<R> = Chain<Cursor<Vec<u8>>, R>;

/// A file as text.
pub(crate) enum Plain<R> {
    Text(Peeked<R>),
    Gzip(Box<MultiGzDecoder<Counted<Peeked<R>>>>),
}

impl<R: Read> Plain<R> {
    fn gzip(source: Peeked<R>) -> Self {
        Self::Gzip(Box::new(MultiGzDecoder::new(Counted {
            inner: source,
            bytes: 0,
        })))
    }
}

/// Counts what was read.
pub(crate) struct Counted<R> {
    inner: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.bytes += count as u64;
        Ok(count)
    }
}

/// Ends with a failure where a file grows past its bounds.
pub(crate) struct Bounded<P> {
    inner: P,
    bytes: u64,
    max_bytes: u64,
    max_expansion: u64,
}

impl<R: Read> Read for Bounded<Plain<R>> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let (count, compressed) = match &mut self.inner {
            Plain::Text(text) => (text.read(into)?, None),
            Plain::Gzip(gzip) => {
                let count = gzip.read(into).map_err(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => io::Error::other(
                        Failure::invalid_input("the compressed file ends in the middle")
                            .hint("copy it again"),
                    ),
                    io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => io::Error::other(
                        Failure::invalid_input(format!("the compressed file is broken: {error}")),
                    ),
                    _ => error,
                })?;
                (count, Some(gzip.get_ref().bytes))
            }
        };
        self.bytes += count as u64;
        if self.bytes > self.max_bytes {
            return Err(io::Error::other(
                Failure::exhausted(format!("the file holds more than {} bytes", self.max_bytes))
                    .hint("raise `max_file_bytes` if it is meant to"),
            ));
        }
        if let Some(compressed) = compressed
            && self.bytes > FREE_EXPANSION_BYTES
            && self.bytes / self.max_expansion > compressed
        {
            return Err(io::Error::other(
                Failure::exhausted(format!(
                    "the file grows to more than {} times its size",
                    self.max_expansion
                ))
                .hint("raise `max_expansion` if it is meant to"),
            ));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn config(json: &str) -> Config {
        sandcast_sdk::config::parse(json).expect("a configuration")
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).expect("in memory");
        encoder.finish().expect("in memory")
    }

    fn read(bytes: &[u8], config: &Config) -> Result<Vec<u8>, Failure> {
        let mut all = Vec::new();
        text(bytes, config)?.read_to_end(&mut all)?;
        Ok(all)
    }

    #[test]
    fn patterns() {
        for (pattern, name, fits) in [
            ("*.csv", "a.csv", true),
            ("*.csv", "a.csv.gz", false),
            ("part-?.csv", "part-1.csv", true),
            ("part-?.csv", "part-12.csv", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("*", "", true),
            ("a*", "b", false),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), name.as_bytes()),
                fits,
                "{pattern} {name}"
            );
        }
        // A pattern that takes exponential time in a naive matcher.
        assert!(!matches(
            "*a".repeat(30).as_bytes(),
            "a".repeat(10_000).replace("aaaaaaaaaa", "b").as_bytes()
        ));
    }

    #[test]
    fn gzip_is_found_by_its_first_bytes() {
        let config = config(r#"{"path": "/d"}"#);
        assert_eq!(read(&gzip(b"a,b\n"), &config).expect("read"), b"a,b\n");
        assert_eq!(read(b"a,b\n", &config).expect("read"), b"a,b\n");
        assert_eq!(read(b"", &config).expect("read"), b"");
        let two = [gzip(b"a\n"), gzip(b"b\n")].concat();
        assert_eq!(
            read(&two, &config).expect("members follow one another"),
            b"a\nb\n"
        );
    }

    #[test]
    fn gzip_that_is_none_is_said() {
        let forced = config(r#"{"path": "/d", "compression": "gzip"}"#);
        assert!(
            read(b"a,b\n", &forced)
                .expect_err("refused")
                .message
                .contains("does not start as gzip")
        );
        let auto = config(r#"{"path": "/d"}"#);
        let whole = gzip(&b"0123456789".repeat(100));
        let cut = read(&whole[..whole.len() - 9], &auto).expect_err("refused");
        assert_eq!(cut.message, "the compressed file ends in the middle");
        let mut broken = whole;
        broken[12] ^= 0xff;
        assert!(read(&broken, &auto).is_err());
    }

    #[test]
    fn files_that_grow_past_their_bounds_end() {
        let bomb = gzip(&vec![b'0'; FREE_EXPANSION_BYTES as usize + 1_000_000]);
        let grown = read(&bomb, &config(r#"{"path": "/d"}"#)).expect_err("refused");
        assert!(
            grown.message.contains("more than 200 times"),
            "{}",
            grown.message
        );
        assert!(read(&bomb, &config(r#"{"path": "/d", "max_expansion": 2000}"#)).is_ok());
        let small = config(r#"{"path": "/d", "max_file_bytes": 10}"#);
        assert!(read(b"0123456789", &small).is_ok());
        let large = read(b"0123456789a", &small).expect_err("refused");
        assert_eq!(large.code, sandcast_sdk::FailureCode::Exhausted);
    }
}
