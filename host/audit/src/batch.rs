//! Lines of a log by the thousand, checked on their own by all processors at once.

use std::io::{self, BufRead};
use std::num::NonZeroUsize;
use std::thread;

use crate::entry::{LineFault, RawEntry, open_line};
use crate::tree::TreeHash;
use crate::verify::Fault;

/// Enough to keep every processor at work for some milliseconds, little enough to forget.
const BATCH_BYTES: usize = 2 << 20;
/// Fewer lines than this are not worth a thread.
const LINES_PER_THREAD: usize = 256;

/// Some lines, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    /// The byte after each line.
    ends: Vec<usize>,
}

/// A line, and what can be said of it without those before.
#[derive(Debug)]
pub(crate) struct Checked<'a> {
    /// With its newline, if it has one.
    pub(crate) line: &'a [u8],
    pub(crate) entry: Result<RawEntry<'a>, Fault>,
    pub(crate) leaf: TreeHash,
}

impl Batch {
    /// Replaces the lines by those that come next: at most so many, and none at the end.
    pub(crate) fn fill(&mut self, reader: &mut impl BufRead, most: u64) -> io::Result<()> {
        self.bytes.clear();
        self.ends.clear();
        while self.bytes.len() < BATCH_BYTES && (self.ends.len() as u64) < most {
            if reader.read_until(b'\n', &mut self.bytes)? == 0 {
                break;
            }
            self.ends.push(self.bytes.len());
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(crate) fn check(&self) -> Vec<Checked<'_>> {
        let starts = std::iter::once(&0).chain(&self.ends);
        let lines: Vec<&[u8]> = starts
            .zip(&self.ends)
            .map(|(start, end)| &self.bytes[*start..*end])
            .collect();
        let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let threads = processors.min(lines.len() / LINES_PER_THREAD).max(1);
        let mut parts = lines.chunks(lines.len().div_ceil(threads).max(1));
        let first = parts.next().unwrap_or_default();
        thread::scope(|scope| {
            let others: Vec<_> = parts.map(|part| (part, spawn(scope, part))).collect();
            let mut checked: Vec<Checked<'_>> = first.iter().map(|line| check(line)).collect();
            for (part, other) in others {
                // A thread that could not be had, or that ended early, is made up for here.
                match other.and_then(|thread| thread.join().ok()) {
                    Some(found) => checked.extend(found),
                    None => checked.extend(part.iter().map(|line| check(line))),
                }
            }
            checked
        })
    }
}

fn spawn<'scope, 'a: 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    part: &'scope [&'a [u8]],
) -> Option<thread::ScopedJoinHandle<'scope, Vec<Checked<'a>>>> {
    thread::Builder::new()
        .spawn_scoped(scope, move || part.iter().map(|line| check(line)).collect())
        .ok()
}

fn check(line: &[u8]) -> Checked<'_> {
    let body = line.strip_suffix(b"\n");
    Checked {
        line,
        entry: match body.map(open_line) {
            Some(Ok(entry)) => Ok(entry),
            Some(Err(LineFault::Malformed)) => Err(Fault::Malformed),
            Some(Err(LineFault::Changed)) => Err(Fault::Changed),
            None => Err(Fault::Incomplete),
        },
        leaf: TreeHash::leaf(body.unwrap_or_default()),
    }
}
