//! A small server of S3 on this machine, which can misbehave.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What stands in answers that nobody may repeat.
pub(crate) const SECRET: &str = "wJalrXUtnFEMIEXAMPLE";

pub(crate) const ACCESS: &str = "AKIAEXAMPLE";

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Well,
    /// It is too busy at first.
    Busy(u32),
    Redirects,
    Endless,
    /// It says that more comes than does.
    Short,
    /// It says that a terabyte comes.
    Huge,
    /// It expands entities.
    Bomb,
    /// It lists what was not asked for.
    Stranger,
    /// It lists more than was asked for.
    More,
    /// It repeats the secret in a page of an error.
    Tells(u16),
    Slow,
    /// It hangs up after it has read the request.
    Leaves,
    /// It gives another part than was asked for.
    OtherPart,
    /// It gives all of it where a part was asked for.
    Whole,
    /// It sends fields without end.
    Fields,
}

#[derive(Debug)]
struct Shared {
    objects: BTreeMap<String, Vec<u8>>,
    heard: Vec<String>,
    unsigned: Vec<String>,
    manner: Manner,
}

#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let server = Self {
            address: listener.local_addr().expect("its address"),
            shared: Arc::new(Mutex::new(Shared {
                objects: BTreeMap::new(),
                heard: Vec::new(),
                unsigned: Vec::new(),
                manner: Manner::Well,
            })),
        };
        let serving = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = serving.clone();
                // A client that has gone is no concern of the server.
                std::thread::spawn(move || server.serve(stream).unwrap_or_default());
            }
        });
        server
    }

    fn with<T>(&self, work: impl FnOnce(&mut Shared) -> T) -> T {
        work(&mut self.shared.lock().expect("nobody panics"))
    }

    pub(crate) fn is(&self, manner: Manner) {
        self.with(|shared| shared.manner = manner);
    }

    pub(crate) fn holds(&self, key: &str, bytes: &[u8]) {
        self.with(|shared| shared.objects.insert(key.to_owned(), bytes.to_vec()));
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.with(|shared| shared.objects.keys().cloned().collect())
    }

    /// What it heard since it was asked last: methods and targets.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.with(|shared| std::mem::take(&mut shared.heard))
    }

    /// Requests that were not signed as they should be.
    pub(crate) fn unsigned(&self) -> Vec<String> {
        self.with(|shared| shared.unsigned.clone())
    }

    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut bytes = Vec::new();
        let mut buffer = [0; 65536];
        let head = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            match stream.read(&mut buffer)? {
                0 => return Ok(()),
                read => bytes.extend_from_slice(&buffer[..read]),
            }
        };
        let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
        let mut lines = text.lines();
        let mut first = lines.next().unwrap_or_default().split(' ');
        let method = first.next().unwrap_or_default().to_owned();
        let target = first.next().unwrap_or_default().to_owned();
        let fields: BTreeMap<String, String> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let length: usize = fields
            .get("content-length")
            .map_or(0, |length| length.parse().expect("a length"));
        while bytes.len() < head + 4 + length {
            match stream.read(&mut buffer)? {
                0 => return Ok(()),
                read => bytes.extend_from_slice(&buffer[..read]),
            }
        }
        let body = bytes[head + 4..head + 4 + length].to_vec();
        let manner = self.with(|shared| {
            shared.heard.push(format!("{method} {target}"));
            if !is_signed(&fields) {
                shared
                    .unsigned
                    .push(format!("{method} {target} {fields:?}"));
            }
            match shared.manner {
                Manner::Busy(0) => Manner::Well,
                Manner::Busy(times) => {
                    shared.manner = Manner::Busy(times - 1);
                    Manner::Tells(503)
                }
                manner => manner,
            }
        });
        let answer = match manner {
            Manner::Redirects => {
                let to = format!("http://{}/elsewhere", self.address);
                answer(307, &[("location", &to)], b"")
            }
            Manner::Endless => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
                loop {
                    stream.write_all(b"10000\r\n")?;
                    stream.write_all(&[b'x'; 65536])?;
                    stream.write_all(b"\r\n")?;
                }
            }
            Manner::Short => b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nonly this".to_vec(),
            Manner::Huge => b"HTTP/1.1 200 OK\r\ncontent-length: 1099511627776\r\n\r\n".to_vec(),
            Manner::Bomb => {
                let mut page = String::from("<!DOCTYPE l [<!ENTITY a0 \"boom\">");
                for level in 1..30 {
                    let before = format!("&a{};", level - 1).repeat(10);
                    page.push_str(&format!("<!ENTITY a{level} \"{before}\">"));
                }
                page.push_str("]><ListBucketResult><Contents><Key>&a29;</Key><Size>1</Size></Contents></ListBucketResult>");
                answer(200, &[], page.as_bytes())
            }
            Manner::Stranger => answer(200, &[], page(&[("own/other/a", 1)], None).as_bytes()),
            Manner::More => {
                let keys: Vec<String> = (0..1001).map(|n| format!("own/raw/{n:05}")).collect();
                let keys: Vec<(&str, usize)> = keys.iter().map(|key| (key.as_str(), 1)).collect();
                answer(200, &[], page(&keys, None).as_bytes())
            }
            Manner::Tells(status) => {
                let page =
                    format!("<Error><Message>the key {SECRET} of {ACCESS}</Message></Error>");
                answer(status, &[("x-told", SECRET)], page.as_bytes())
            }
            Manner::Slow => {
                std::thread::sleep(Duration::from_secs(3));
                Vec::new()
            }
            Manner::Leaves => Vec::new(),
            Manner::OtherPart => answer(206, &[("content-range", "bytes 0-1/10")], b"ab"),
            Manner::Whole => answer(200, &[], b"0123456789"),
            Manner::Fields => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
                loop {
                    stream.write_all(b"x-more: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n")?;
                }
            }
            Manner::Well | Manner::Busy(_) => self.answer(&method, &target, &fields, body),
        };
        stream.write_all(&answer)
    }

    fn answer(
        &self,
        method: &str,
        target: &str,
        fields: &BTreeMap<String, String>,
        body: Vec<u8>,
    ) -> Vec<u8> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let Some(rest) = path.strip_prefix("/lake") else {
            return answer(404, &[], b"");
        };
        let key = decoded(rest.trim_start_matches('/'));
        let tag = |bytes: &[u8]| format!("\"{:x}-{}\"", bytes.len(), bytes.first().unwrap_or(&0));
        self.with(|shared| {
            let there = shared.objects.get(&key).cloned();
            let date = "Sun, 06 Nov 1994 08:49:37 GMT";
            match (method, &there) {
                ("GET", _) if key.is_empty() => list(&shared.objects, query),
                ("HEAD", Some(bytes)) => {
                    let length = bytes.len().to_string();
                    let tag = tag(bytes);
                    let fields = [
                        ("content-length", length.as_str()),
                        ("etag", &tag),
                        ("last-modified", date),
                    ];
                    head(200, &fields)
                }
                ("HEAD", None) => head(404, &[]),
                ("GET", Some(bytes)) => {
                    let tag = tag(bytes);
                    let Some(range) = fields.get("range") else {
                        return answer(200, &[("etag", &tag), ("last-modified", date)], bytes);
                    };
                    let (from, to) = range
                        .strip_prefix("bytes=")
                        .and_then(|range| range.split_once('-'))
                        .expect("a range");
                    let from: usize = from.parse().expect("a number");
                    let to: usize = to.parse().expect("a number");
                    if from >= bytes.len() {
                        return answer(416, &[], b"");
                    }
                    let to = to.min(bytes.len() - 1);
                    let part = format!("bytes {from}-{to}/{}", bytes.len());
                    answer(
                        206,
                        &[("content-range", &part), ("etag", &tag)],
                        &bytes[from..=to],
                    )
                }
                ("GET", None) => answer(404, &[], b"<Error><Code>NoSuchKey</Code></Error>"),
                ("PUT", there) => {
                    if fields.contains_key("if-none-match") && there.is_some() {
                        return answer(412, &[], b"");
                    }
                    if let Some(wanted) = fields.get("if-match") {
                        match there {
                            None => return answer(404, &[], b""),
                            Some(bytes) if tag(bytes) != *wanted => return answer(412, &[], b""),
                            Some(_) => {}
                        }
                    }
                    let tag = tag(&body);
                    shared.objects.insert(key, body);
                    answer(200, &[("etag", &tag)], b"")
                }
                ("DELETE", _) => {
                    shared.objects.remove(&key);
                    answer(204, &[], b"")
                }
                _ => answer(400, &[], b""),
            }
        })
    }
}

/// As the reference of S3 wants it, for the region and the account of the tests.
fn is_signed(fields: &BTreeMap<String, String>) -> bool {
    let is_hex = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let field = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
    let day = field("x-amz-date").get(..8).unwrap_or("none");
    let begin = format!(
        "AWS4-HMAC-SHA256 Credential={ACCESS}/{day}/eu-test-1/s3/aws4_request,\
         SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature="
    );
    let signature = field("authorization").strip_prefix(&begin);
    signature.is_some_and(is_hex) && is_hex(field("x-amz-content-sha256"))
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let pair: String = rest.by_ref().take(2).map(char::from).collect();
            bytes.push(u8::from_str_radix(&pair, 16).expect("two digits"));
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}

fn head(status: u16, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} X\r\n");
    for (name, value) in fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.into_bytes()
}

fn answer(status: u16, fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let length = body.len().to_string();
    let mut fields = fields.to_vec();
    fields.push(("content-length", &length));
    let mut answer = head(status, &fields);
    answer.extend_from_slice(body);
    answer
}

fn page(keys: &[(&str, usize)], next: Option<&str>) -> String {
    let mut page = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult>");
    page.push_str(&format!("<IsTruncated>{}</IsTruncated>", next.is_some()));
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;");
    for (key, size) in keys {
        let key = escaped(key);
        page.push_str(&format!(
            "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
             <ETag>&quot;{size}&quot;</ETag><Size>{size}</Size></Contents>"
        ));
    }
    if let Some(next) = next.map(escaped) {
        page.push_str(&format!(
            "<NextContinuationToken>{next}</NextContinuationToken>"
        ));
    }
    page.push_str("</ListBucketResult>");
    page
}

fn list(objects: &BTreeMap<String, Vec<u8>>, query: &str) -> Vec<u8> {
    let pairs: BTreeMap<String, String> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect();
    let most: usize = pairs["max-keys"].parse().expect("a number");
    let after = pairs.get("continuation-token").map(|token| {
        token
            .strip_prefix("after+")
            .expect("its own token")
            .to_owned()
    });
    let below = objects.iter().filter(|(key, _)| {
        key.starts_with(&pairs["prefix"]) && after.as_ref().is_none_or(|after| *key > after)
    });
    let mut found: Vec<(&str, usize)> = below
        .map(|(key, bytes)| (key.as_str(), bytes.len()))
        .take(most + 1)
        .collect();
    let next = (found.len() > most).then(|| {
        found.truncate(most);
        format!("after+{}", found.last().map_or("", |(key, _)| *key))
    });
    answer(200, &[], page(&found, next.as_deref()).as_bytes())
}
