//! A text cut into rows.

use std::io::{self, BufRead, Read};

use sandcast_sdk::{Failure, Reject};

use crate::{Config, Unit};

/// Bytes of a reject that are shown.
const RAW_BYTES: usize = 1_024;

/// Bytes of one batch, beyond which it ends.
const BATCH_BYTES: usize = 4 << 20;

/// Some rows of a file.
#[derive(Debug, Default)]
pub(crate) struct Part {
    pub(crate) texts: Vec<String>,
    /// The line on which each begins.
    pub(crate) lines: Vec<i64>,
    pub(crate) rejects: Vec<Reject>,
}

/// Reads a file row by row.
pub(crate) struct Reader<R> {
    source: R,
    unit: Unit,
    join_characters: usize,
    max_row_bytes: usize,
    max_file_bytes: u64,
    batch_rows: usize,
    bytes: u64,
    line: u64,
    row: u64,
    ended: bool,
    /// The row under way.
    joined: Option<Joined>,
}

struct Joined {
    text: String,
    characters: usize,
    line: u64,
}

/// A paragraph or a line as it stands.
#[derive(Default)]
struct Piece {
    bytes: Vec<u8>,
    line: u64,
    too_long: bool,
}

/// What was read of a line.
struct Line {
    /// Nothing follows.
    at_end: bool,
    /// Bytes of it that were left out.
    cut: bool,
    /// Bytes that were read.
    bytes: u64,
}

impl<R: BufRead> Reader<R> {
    pub(crate) fn new(source: R, config: &Config) -> Self {
        Self {
            source,
            unit: config.rows,
            join_characters: config.join_characters,
            max_row_bytes: config.max_row_bytes,
            max_file_bytes: config.max_file_bytes,
            batch_rows: config.batch_rows,
            bytes: 0,
            line: 0,
            row: 0,
            ended: false,
            joined: None,
        }
    }

    /// The next rows, or nothing at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Part>, Failure> {
        let mut part = Part::default();
        let mut bytes = 0;
        while part.texts.len() + part.rejects.len() < self.batch_rows && bytes < BATCH_BYTES {
            let Some(piece) = self.piece()? else {
                self.give(&mut part);
                break;
            };
            bytes += piece.bytes.len();
            self.take(piece, &mut part);
        }
        let is_empty = part.texts.is_empty() && part.rejects.is_empty();
        Ok((!is_empty).then_some(part))
    }

    /// Joins a piece to the row under way, or puts it aside.
    fn take(&mut self, piece: Piece, part: &mut Part) {
        let text = match (piece.too_long, String::from_utf8(piece.bytes)) {
            (false, Ok(text)) => text,
            (too_long, text) => {
                // What was read before it comes first.
                self.give(part);
                self.row += 1;
                let raw = match text {
                    Ok(text) => text.into_bytes(),
                    Err(error) => error.into_bytes(),
                };
                let shown = raw.get(..RAW_BYTES).unwrap_or(&raw);
                let (reason, message) = if too_long {
                    (
                        "too-long",
                        format!("more than {} bytes", self.max_row_bytes),
                    )
                } else {
                    ("not-utf8", "not UTF-8".to_owned())
                };
                part.rejects.push(Reject {
                    row: self.row,
                    line: Some(piece.line),
                    column: Some("text".to_owned()),
                    reason: reason.to_owned(),
                    message,
                    raw: String::from_utf8_lossy(shown).into_owned(),
                });
                return;
            }
        };
        let between = match self.unit {
            Unit::Paragraphs => "\n\n",
            Unit::Lines => "\n",
        };
        let fits =
            |joined: &Joined| joined.text.len() + between.len() + text.len() <= self.max_row_bytes;
        if !self.joined.as_ref().is_some_and(fits) {
            self.give(part);
        }
        let characters = text.chars().count();
        match &mut self.joined {
            Some(joined) => {
                joined.text.push_str(between);
                joined.text.push_str(&text);
                joined.characters += between.len() + characters;
            }
            None => {
                self.joined = Some(Joined {
                    text,
                    characters,
                    line: piece.line,
                });
            }
        }
        let is_enough = |joined: &Joined| joined.characters >= self.join_characters;
        if self.joined.as_ref().is_some_and(is_enough) {
            self.give(part);
        }
    }

    /// Ends the row under way.
    fn give(&mut self, part: &mut Part) {
        if let Some(joined) = self.joined.take() {
            self.row += 1;
            part.texts.push(joined.text);
            part.lines
                .push(i64::try_from(joined.line).unwrap_or(i64::MAX));
        }
    }

    /// The next paragraph or line that is not blank.
    fn piece(&mut self) -> Result<Option<Piece>, Failure> {
        let mut piece = Piece::default();
        let mut begun = false;
        while !self.ended {
            let start = piece.bytes.len();
            if begun {
                piece.bytes.push(b'\n');
            }
            let room = (self.max_row_bytes + 1).saturating_sub(piece.bytes.len());
            let first = piece.bytes.len();
            let line = read_line(&mut self.source, room, &mut piece.bytes)?;
            self.ended = line.at_end;
            self.bytes += line.bytes;
            if self.bytes > self.max_file_bytes {
                return Err(Failure::exhausted(format!(
                    "the file holds more than {} bytes",
                    self.max_file_bytes
                ))
                .hint("raise `max_file_bytes` if it is meant to"));
            }
            if line.bytes > 0 {
                self.line += 1;
            }
            let read = piece.bytes.get(first..).unwrap_or_default();
            let blank = !line.cut && read.iter().all(u8::is_ascii_whitespace);
            if blank {
                piece.bytes.truncate(start);
                if begun {
                    return Ok(Some(piece));
                }
                continue;
            }
            if !begun {
                begun = true;
                piece.line = self.line;
            }
            piece.too_long |= line.cut || piece.bytes.len() > self.max_row_bytes;
            if self.unit == Unit::Lines {
                return Ok(Some(piece));
            }
        }
        Ok(begun.then_some(piece))
    }
}

/// Reads a line without its end and appends at most `limit` bytes of it.
fn read_line(source: &mut impl BufRead, limit: usize, into: &mut Vec<u8>) -> Result<Line, Failure> {
    let start = into.len();
    let mut taken = Read::take(&mut *source, limit as u64 + 1);
    let mut bytes = read_until(&mut taken, into)?;
    let mut ended = into.len() > start && into.last() == Some(&b'\n');
    let mut cut = false;
    if !ended && bytes > limit as u64 {
        cut = true;
        // The rest is read and forgotten.
        let mut rest = Vec::new();
        loop {
            rest.clear();
            let read = read_until(&mut Read::take(&mut *source, 1 << 16), &mut rest)?;
            bytes += read;
            ended = rest.last() == Some(&b'\n');
            if read == 0 || ended {
                break;
            }
        }
        into.truncate(start + limit);
    } else if ended {
        into.pop();
        if into.len() > start && into.last() == Some(&b'\r') {
            into.pop();
        }
    }
    Ok(Line {
        at_end: !ended,
        cut,
        bytes,
    })
}

fn read_until(source: &mut impl BufRead, into: &mut Vec<u8>) -> Result<u64, Failure> {
    loop {
        match source.read_until(b'\n', into) {
            Ok(read) => return Ok(read as u64),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], json: &str) -> Result<Part, Failure> {
        let config: Config = sandcast_sdk::config::parse(json).expect("a configuration");
        let mut reader = Reader::new(text, &config);
        let mut all = Part::default();
        while let Some(part) = reader.next()? {
            assert!(part.texts.len() + part.rejects.len() <= config.batch_rows + 1);
            all.texts.extend(part.texts);
            all.lines.extend(part.lines);
            all.rejects.extend(part.rejects);
        }
        Ok(all)
    }

    #[test]
    fn paragraphs_stand_between_blank_lines() {
        let text = b"\n\nFirst:\nBefore we\n\n \t\nAll:\r\nSpeak.\r\n\r\nEnd";
        for batch in [1, 2, 100] {
            let json = format!(r#"{{"path": "/t", "batch_rows": {batch}}}"#);
            let part = read(text, &json).expect("read");
            assert_eq!(part.texts, ["First:\nBefore we", "All:\nSpeak.", "End"]);
            assert_eq!(part.lines, [3, 7, 10]);
            assert!(part.rejects.is_empty());
        }
        assert!(
            read(b"", r#"{"path": "/t"}"#)
                .expect("read")
                .texts
                .is_empty()
        );
        assert!(
            read(b"\n \n", r#"{"path": "/t"}"#)
                .expect("read")
                .texts
                .is_empty()
        );
    }

    #[test]
    fn lines_and_joined_rows() {
        let text = b"one\n\ntwo\nthree\nfour\n";
        let lines = read(text, r#"{"path": "/t", "rows": "lines"}"#).expect("read");
        assert_eq!(lines.texts, ["one", "two", "three", "four"]);
        assert_eq!(lines.lines, [1, 3, 4, 5]);
        let json = r#"{"path": "/t", "rows": "lines", "join_characters": 6}"#;
        let joined = read(text, json).expect("read");
        assert_eq!(joined.texts, ["one\ntwo", "three\nfour"]);
        assert_eq!(joined.lines, [1, 4]);
        let json = r#"{"path": "/t", "join_characters": 5}"#;
        let joined = read(b"a\n\nb\n\nc\n\nd\n", json).expect("read");
        assert_eq!(joined.texts, ["a\n\nb\n\nc", "d"]);
    }

    #[test]
    fn what_is_too_long_or_no_text_is_put_aside_and_counted() {
        let text = b"good\nlonger than ten\nbad \xff\nexactly 10\nlast";
        let json = r#"{"path": "/t", "rows": "lines", "max_row_bytes": 10}"#;
        let part = read(text, json).expect("read");
        assert_eq!(part.texts, ["good", "exactly 10", "last"]);
        assert_eq!(part.lines, [1, 4, 5]);
        let of = |reject: &Reject| (reject.row, reject.line, reject.reason.clone());
        let rejects: Vec<_> = part.rejects.iter().map(of).collect();
        assert_eq!(
            rejects,
            [
                (2, Some(2), "too-long".to_owned()),
                (3, Some(3), "not-utf8".to_owned())
            ]
        );
        let json = r#"{"path": "/t", "max_row_bytes": 10}"#;
        let part = read(b"12345\n67890\n\nfits", json).expect("read");
        assert_eq!(
            (part.texts.as_slice(), part.rejects.len()),
            (&["fits".to_owned()][..], 1)
        );
        let huge = vec![b'x'; 300_000];
        let part = read(&huge, json).expect("read");
        assert_eq!((part.texts.len(), part.rejects.len()), (0, 1));
        assert!(part.rejects[0].raw.len() <= RAW_BYTES);
    }

    #[test]
    fn a_file_that_grows_past_its_bound_ends() {
        let json = r#"{"path": "/t", "max_file_bytes": 10}"#;
        assert!(read(b"0123456789", json).is_ok());
        assert!(read(b"0123456789a", json).is_err());
    }
}
