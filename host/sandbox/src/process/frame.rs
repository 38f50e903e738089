//! What goes over the pipe between the host and a process of its own: pieces with their length in
//! front. Either side bounds what it takes before it makes room for it.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Writes a piece.
pub(crate) fn write(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(&(bytes.len() as u64).to_le_bytes())?;
    to.write_all(bytes)
}

/// Puts a piece after others, to be written with them.
pub(crate) fn append(to: &mut Vec<u8>, put: impl FnOnce(&mut Vec<u8>)) {
    let begin = to.len();
    to.extend_from_slice(&[0; 8]);
    put(to);
    let length = (to.len() - begin - 8) as u64;
    to[begin..begin + 8].copy_from_slice(&length.to_le_bytes());
}

/// Reads a piece of so many bytes at most; nothing where the other side has closed the pipe.
pub(crate) fn read(from: &mut impl Read, most: u64) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 8];
    match from.read(&mut length)? {
        0 => return Ok(None),
        begun => from.read_exact(&mut length[begun..])?,
    }
    let length = u64::from_le_bytes(length);
    if length > most {
        return Err(invalid(format!("a piece of {length} bytes, over {most}")));
    }
    // As it comes, not as it is said: who lies about a length pays for the bytes.
    let mut bytes = Vec::new();
    from.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length {
        return Err(invalid(format!(
            "a piece of {length} bytes ends after {}",
            bytes.len()
        )));
    }
    Ok(Some(bytes))
}

/// Writes a value as JSON.
pub(crate) fn write_value(to: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    write(to, &serde_json::to_vec(value)?)
}

/// Reads a value; the pipe must not be closed yet.
pub(crate) fn read_value<T: DeserializeOwned>(from: &mut impl Read, most: u64) -> io::Result<T> {
    let bytes = read(from, most)?.ok_or_else(closed)?;
    serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))
}

/// The other side is gone.
pub(crate) fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the pipe was closed")
}

pub(super) fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_out_as_they_went_in_and_no_larger_than_allowed() {
        let mut pipe = Vec::new();
        write(&mut pipe, b"abc").expect("room");
        write_value(&mut pipe, &[1, 2]).expect("room");
        let mut from = pipe.as_slice();
        assert_eq!(read(&mut from, 3).expect("whole"), Some(b"abc".to_vec()));
        assert_eq!(read_value::<Vec<u8>>(&mut from, 9).expect("whole"), [1, 2]);
        assert_eq!(read(&mut from, 3).expect("closed"), None);
        let over = read(&mut pipe.as_slice(), 2).expect_err("too large");
        assert_eq!(over.to_string(), "a piece of 3 bytes, over 2");
        for cut in 1..11 {
            read(&mut &pipe[..cut], 3).expect_err("cut");
        }
        // A length that nobody means takes no memory.
        let mut lie = u64::MAX.to_le_bytes().to_vec();
        lie.push(0);
        read(&mut lie.as_slice(), u64::MAX).expect_err("a lie");
    }
}
