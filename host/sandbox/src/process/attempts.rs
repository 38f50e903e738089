//! What a confined process can still do, found out by trying.
//!
//! What a kernel is said to forbid and what it forbids are two things: a container may run on another
//! kernel, under other rules. So a process is confined as those of plugins are, and tries.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::thread;

use serde::{Deserialize, Serialize};

use super::confine::{Confinement, no_more_code};
use super::{ProcessProgram, frame};

pub(super) const TASK: &str = "attempt";

const MAX_REPORT_BYTES: u64 = 64 << 10;

/// Bytes of memory that the process may have.
const MEMORY_BYTES: u64 = 256 << 20;

/// Something that a confined process tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// What, such as `open a file`.
    pub what: String,
    /// Whether such a process must be able to do it.
    pub wanted: bool,
    /// Why it could not; it could when absent.
    pub refused: Option<String>,
}

impl Attempt {
    /// Whether it went as it must.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.wanted == self.refused.is_none()
    }
}

/// Starts a confined process and lets it try what it must not be able to do, and what it must.
///
/// # Errors
/// When it cannot be started or confined.
pub fn attempts(program: &ProcessProgram) -> io::Result<Vec<Attempt>> {
    let mut child = program.start(TASK)?;
    let told = match (child.stdin.take(), child.stdout.take()) {
        (Some(mut to), Some(mut from)) => {
            let confinement = Confinement {
                memory_bytes: MEMORY_BYTES,
                processor_seconds: Some(60),
                ends_with_parent: true,
            };
            frame::write_value(&mut to, &confinement)
                .and_then(|()| frame::read_value(&mut from, MAX_REPORT_BYTES))
        }
        _ => Err(io::Error::other("it has no pipes")),
    };
    let ended = child.wait_with_output()?;
    told.map_err(|error| {
        let words = String::from_utf8_lossy(&ended.stderr);
        io::Error::other(match crate::text::sentence(words.trim(), 512) {
            words if words.is_empty() => format!("it ended with {}: {error}", ended.status),
            words => words,
        })
    })
}

/// The process itself.
pub(super) fn serve() -> io::Result<()> {
    let confinement: Confinement = frame::read_value(&mut io::stdin().lock(), 4096)?;
    confinement.apply().map_err(io::Error::other)?;
    no_more_code().map_err(io::Error::other)?;
    let mut report = Vec::new();
    let mut tried = |what: &str, wanted: bool, outcome: io::Result<()>| {
        report.push(Attempt {
            what: what.to_owned(),
            wanted,
            refused: outcome.err().map(|error| error.to_string()),
        });
    };
    tried("start another thread", false, thread_of_its_own());
    tried("take some memory", true, take(MEMORY_BYTES / 4));
    tried("take more memory than it may", false, take(MEMORY_BYTES));
    tried("read a file", false, File::open("/etc/passwd").map(drop));
    tried("list a folder", false, fs::read_dir("/").map(drop));
    let new = Path::new("/tmp").join(format!("sandcast-attempt-{}", std::process::id()));
    tried("make a file", false, File::create(&new).map(drop));
    tried(
        "look at its own process",
        false,
        File::open("/proc/self/environ").map(drop),
    );
    tried(
        "connect",
        false,
        TcpStream::connect(("127.0.0.1", 9))
            .map(drop)
            .or_else(reached),
    );
    tried(
        "listen",
        false,
        TcpListener::bind(("127.0.0.1", 0)).map(drop),
    );
    tried(
        "send a datagram",
        false,
        UdpSocket::bind(("127.0.0.1", 0)).map(drop),
    );
    tried("start a program", false, start_a_program());
    #[cfg(target_os = "linux")]
    {
        tried("share memory", false, map(libc::MAP_SHARED));
        let growing = libc::MAP_PRIVATE | libc::MAP_GROWSDOWN;
        tried("have memory that grows by itself", false, map(growing));
        tried("have the kernel send signals", false, be_owned());
    }
    let mut to = io::stdout().lock();
    frame::write_value(&mut to, &report)?;
    to.flush()
}

fn thread_of_its_own() -> io::Result<()> {
    let thread = thread::Builder::new().spawn(|| ())?;
    thread.join().map_err(|_| io::Error::other("it panicked"))
}

/// Memory of a kind that no limit counts.
#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "no safe call asks for memory of a kind that is refused"
)]
fn map(kind: libc::c_int) -> io::Result<()> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: it is at no given address, and nobody uses it.
    let mapped = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            access,
            kind | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    match mapped {
        libc::MAP_FAILED => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Whoever owns what is open is sent signals when there is something to read.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no safe call names an owner")]
fn be_owned() -> io::Result<()> {
    // SAFETY: it takes three numbers.
    match unsafe { libc::fcntl(0, libc::F_SETOWN, std::process::id()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn take(bytes: u64) -> io::Result<()> {
    let mut memory: Vec<u8> = Vec::new();
    memory
        .try_reserve_exact(bytes as usize)
        .map_err(io::Error::other)
}

/// That nobody listens there says that the network was reached.
fn reached(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Ok(()),
        _ => Err(error),
    }
}

fn start_a_program() -> io::Result<()> {
    Command::new("/bin/true").spawn()?.wait().map(drop)
}
