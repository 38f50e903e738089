//! A server for guests that ask over HTTP.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// A server that answers by the path it is asked for.
pub(crate) fn serve() -> SocketAddr {
    fn answer(mut stream: TcpStream) {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .and_then(|length| length.parse().ok())
            .unwrap_or(0);
        let mut body = Vec::new();
        let _ = std::io::Read::by_ref(&mut stream)
            .take(length)
            .read_to_end(&mut body);
        let whole = |body: &str| {
            let length = body.len();
            format!("HTTP/1.1 200 OK\r\nx-kind: test\r\ncontent-length: {length}\r\n\r\n{body}")
        };
        let text = match head.split(' ').nth(1).unwrap_or_default() {
            "/large" => whole(&"x".repeat(300_000)),
            "/cut" => "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_owned(),
            "/nonsense" => "220 ftp ready\r\n\r\n".to_owned(),
            "/silent" => {
                std::thread::sleep(Duration::from_secs(3));
                return;
            }
            path => whole(&format!("{path} with {} bytes", body.len())),
        };
        let _ = stream.write_all(text.as_bytes());
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten().take(100) {
            std::thread::spawn(move || answer(stream));
        }
    });
    address
}
