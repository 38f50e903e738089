//! A server over HTTP that sends back what it was sent, as a careless one does.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Longest head of a request that is read.
const MAX_HEAD_BYTES: usize = 100_000;

/// Time between two pieces, so that they are not read as one.
const BETWEEN_PIECES: Duration = Duration::from_millis(20);

/// Answers one request: `/field`, `/body`, `/pieces` and `/trailer` say where the credential is repeated;
/// any other path gets all of it but the last byte.
pub fn answer(mut stream: TcpStream, heard: &Mutex<Vec<String>>) {
    let head = head_of(&mut stream);
    let mut said = heard.lock().unwrap_or_else(PoisonError::into_inner);
    said.push(head.clone());
    drop(said);
    let sent = head
        .lines()
        .find_map(|line| line.strip_prefix("authorization: "))
        .unwrap_or_default();
    for piece in pieces(head.split(' ').nth(1).unwrap_or_default(), sent) {
        // Who hangs up has heard enough.
        if stream.write_all(piece.as_bytes()).is_err() {
            return;
        }
        std::thread::sleep(BETWEEN_PIECES);
    }
}

fn head_of(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_HEAD_BYTES {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

fn pieces(path: &str, sent: &str) -> Vec<String> {
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n";
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    match path {
        "/field" => vec![format!(
            "HTTP/1.1 200 OK\r\nyou-sent: {sent}\r\ncontent-length: 0\r\n\r\n"
        )],
        "/body" => vec![format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\nyou sent {sent}",
            sent.len() + 9
        )],
        "/pieces" => {
            let (first, second) = sent.split_at(sent.len() / 2);
            vec![
                format!("{CHUNKED}\r\n{}", chunk(first)),
                format!("{}0\r\n\r\n", chunk(second)),
            ]
        }
        "/trailer" => vec![format!(
            "{CHUNKED}trailer: sent\r\n\r\n{}0\r\nsent: {sent}\r\n\r\n",
            chunk("x")
        )],
        _ => vec![
            format!(
                "{CHUNKED}\r\n{}",
                chunk(&sent[..sent.len().saturating_sub(1)])
            ),
            "0\r\n\r\n".to_owned(),
        ],
    }
}
