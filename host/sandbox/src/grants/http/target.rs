//! Where a request goes, read from what a guest says as strictly as it can be read.

use std::fmt;
use std::net::IpAddr;

use http::Uri;
use sandcast_audit::Digest;

use super::{HttpGrant, HttpMethod, HttpScheme};
use crate::text;

/// Bytes of a path with its query.
const MAX_PATH_BYTES: usize = 8 << 10;

/// Bytes of a name of a host (RFC 1035, 2.3.4).
const MAX_HOST_BYTES: usize = 253;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) method: HttpMethod,
    pub(super) scheme: HttpScheme,
    /// In lower case, without a final dot; an address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Without the query.
    path: String,
    query: Option<String>,
}

impl Target {
    /// Reads where a request goes, or says why that cannot be told or is never allowed.
    pub(super) fn of(method: &http::Method, uri: &Uri) -> Result<Target, String> {
        let Some(method) = HttpMethod::of(method) else {
            let method = text::sentence(method.as_str(), 64);
            return Err(format!("the method {method} is never granted"));
        };
        let scheme = match uri.scheme_str() {
            Some("https") => HttpScheme::Https,
            Some("http") => HttpScheme::Http,
            other => {
                let other = text::sentence(other.unwrap_or_default(), 64);
                return Err(format!("the scheme `{other}` is never granted"));
            }
        };
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let Some((host, port)) = split_authority(authority) else {
            // Whoever stands before an `@` is nobody's business.
            let (user, host) = match authority.rsplit_once('@') {
                None => ("", authority),
                Some((_, host)) => ("somebody@", host),
            };
            let host = text::sentence(host, 128);
            return Err(format!("`{user}{host}` is not a host with a port"));
        };
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let (path, query) = match target.split_once('?') {
            None => (target, None),
            Some((path, query)) => (path, Some(query.to_owned())),
        };
        // What is looked for is not told.
        check_path(target)
            .map_err(|what| format!("the path `{}` {what}", text::sentence(path, 128)))?;
        Ok(Target {
            method,
            scheme,
            port: port.unwrap_or(scheme.port()),
            host,
            path: path.to_owned(),
            query,
        })
    }

    /// Which grant covers it, or why none does.
    pub(super) fn covered_by(&self, grants: &[HttpGrant]) -> Result<usize, String> {
        let mut nearest = None;
        for (index, grant) in grants.iter().enumerate() {
            if !self.is_at(grant) {
                continue;
            }
            nearest = Some(grant);
            if grant.methods.contains(&self.method) && self.is_below(&grant.path) {
                return Ok(index);
            }
        }
        Err(match nearest {
            None => format!("{self}: the host is not granted"),
            Some(grant) => {
                let methods: Vec<&str> =
                    grant.methods.iter().map(|method| method.as_str()).collect();
                let methods = methods.join(", ");
                format!("{self}: granted are {methods} below {}", grant.path)
            }
        })
    }

    /// Whether a grant is for this host, port and scheme.
    fn is_at(&self, grant: &HttpGrant) -> bool {
        let port = grant.port.map_or(grant.scheme.port(), Into::into);
        let host = match grant.host.strip_prefix("*.") {
            None => self.host == grant.host,
            Some(above) => self
                .host
                .strip_suffix(above)
                .is_some_and(|below| below.len() > 1 && below.ends_with('.')),
        };
        host && self.scheme == grant.scheme && self.port == port
    }

    /// Whether the path begins with whole segments of another.
    fn is_below(&self, prefix: &str) -> bool {
        match self.path.strip_prefix(prefix) {
            None => false,
            Some(rest) => prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/'),
        }
    }

    /// The digest of the query, which may hold what should not stand in a record.
    pub(super) fn query_digest(&self) -> Option<Digest> {
        let query = self.query.as_deref()?;
        Some(Digest::of(query.as_bytes()))
    }
}

impl fmt::Display for Target {
    /// The method and the address without its query.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (method, scheme) = (self.method.as_str(), self.scheme.as_str());
        let (port, path) = (self.port, &self.path);
        match self.host.parse() {
            Ok(IpAddr::V6(address)) => {
                write!(formatter, "{method} {scheme}://[{address}]:{port}{path}")
            }
            _ => write!(formatter, "{method} {scheme}://{}:{port}{path}", self.host),
        }
    }
}

/// The host and the port of an authority. One with a user is none: browsers and libraries disagree
/// about what stands before an `@`.
fn split_authority(authority: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        address.parse::<std::net::Ipv6Addr>().ok()?;
        let port = match rest {
            "" => None,
            rest => Some(rest.strip_prefix(':')?),
        };
        (address, port)
    } else {
        match authority.split_once(':') {
            None => (authority, None),
            Some((host, port)) => (host, Some(port)),
        }
    };
    let port = match port {
        None => None,
        // `parse` takes a sign as well.
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().ok().filter(|port| *port != 0)?)
        }
        Some(_) => return None,
    };
    Some((host_of(host)?, port))
}

/// A name or an address as it is compared. Names that are numbers are none: 127.1 and 0x7f000001
/// are addresses to some.
pub(in crate::grants) fn host_of(host: &str) -> Option<String> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Some(address.to_string());
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_name = host.len() <= MAX_HOST_BYTES && host.split('.').all(label);
    let last = host.rsplit('.').next()?;
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last
            .get(..2)
            .is_some_and(|two| two.eq_ignore_ascii_case("0x"));
    (is_name && !is_number).then(|| host.to_ascii_lowercase())
}

/// Says whether a path means to every server what it seems to mean: it begins at the root, and has
/// no segment that stands for another, written plainly or not.
pub(super) fn check_path(path: &str) -> Result<(), String> {
    let complain = |what: &str| Err(what.to_owned());
    if path.len() > MAX_PATH_BYTES {
        return Err(format!("is longer than {MAX_PATH_BYTES} bytes"));
    }
    if !path.starts_with('/') || path.starts_with("//") {
        return complain("does not begin with a single `/`");
    }
    if let Some(byte) = path
        .bytes()
        .find(|byte| !byte.is_ascii_graphic() || matches!(byte, b'#' | b'\\' | b'"' | b'<' | b'>'))
    {
        return Err(format!("holds byte {byte:#04x}; write it as %{byte:02X}"));
    }
    let before_query = path.split('?').next().unwrap_or(path);
    let is_dots = |segment: &[u8]| {
        let segment = segment
            .split(|byte| *byte == b';')
            .next()
            .unwrap_or(segment);
        segment == b"." || segment == b".."
    };
    const DOTS: &str = "has a segment `.` or `..`";
    if !before_query.contains('%') {
        // It is what it decodes to.
        return match before_query
            .as_bytes()
            .split(|byte| *byte == b'/')
            .any(is_dots)
        {
            true => complain(DOTS),
            false => Ok(()),
        };
    }
    let Some(decoded) = decode(before_query) else {
        return complain("has a `%` that two hexadecimal digits do not follow");
    };
    if decoded.iter().any(|byte| *byte < 0x20 || *byte == 0x7f) {
        return complain("holds a control character");
    }
    // What decodes to a slash changes what the segments are.
    let slashes = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'/').count();
    if slashes(&decoded) != slashes(before_query.as_bytes()) || decoded.contains(&b'\\') {
        return complain("hides a slash");
    }
    // Decoded twice, `%252e` is a dot as well; some servers do that.
    let twice = String::from_utf8_lossy(&decoded).into_owned();
    let twice = decode(&twice).unwrap_or(decoded);
    if twice
        .split(|byte| matches!(byte, b'/' | b'\\'))
        .any(is_dots)
    {
        return complain(DOTS);
    }
    Ok(())
}

/// A path with its `%` decoded (RFC 3986, 2.1).
fn decode(path: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
        decoded.push(u8::try_from(high * 16 + low).ok()?);
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_or_addresses_and_nothing_between() {
        for (written, read) in [
            ("api.example.com", "api.example.com"),
            ("API.Example.COM.", "api.example.com"),
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "::1"),
            ("0:0:0:0:0:0:0:1", "::1"),
            ("my_host", "my_host"),
        ] {
            assert_eq!(host_of(written).as_deref(), Some(read));
        }
        for written in [
            "",
            ".",
            "a..b",
            "-a.com",
            "a-.com",
            "127.1",
            "0x7f000001",
            "2130706433",
            "a.0x7f",
            "0177.0.0.1",
            "user@host",
            "host/path",
            "host?x",
            "host#x",
            "höst",
            "a b",
            "a%2eb",
            "*.example.com",
            "[::1]",
        ] {
            assert_eq!(host_of(written), None, "{written}");
        }
    }

    #[test]
    fn authorities_have_a_host_and_maybe_a_port() {
        for (written, host, port) in [
            ("example.com", "example.com", None),
            ("example.com:8443", "example.com", Some(8443)),
            ("[::1]:80", "::1", Some(80)),
            ("[::1]", "::1", None),
        ] {
            assert_eq!(split_authority(written), Some((host.to_owned(), port)));
        }
        for written in [
            "",
            ":80",
            "example.com:",
            "example.com:0",
            "example.com:65536",
            "example.com:+80",
            "example.com:80:80",
            "user@example.com",
            "user:word@example.com",
            "[::1",
            "[::1]x",
            "[127.0.0.1]",
            "::1",
            "http://example.com",
            "example.com/",
            "a,b",
        ] {
            assert_eq!(split_authority(written), None, "{written}");
        }
    }

    #[test]
    fn paths_mean_what_they_seem_to_mean() {
        for path in [
            "/",
            "/v1",
            "/v1/a%20b?c=/../d",
            "/a..b/.c",
            "/a.",
            "/v1/?x=%2e%2e",
        ] {
            assert_eq!(check_path(path), Ok(()), "{path}");
        }
        for path in [
            "",
            "v1",
            "//host/",
            "http://host/",
            "/a/../b",
            "/..",
            "/.",
            "/a/.",
            "/%2e%2e/b",
            "/%2E./b",
            "/%252e%252e/b",
            "/a%2fb",
            "/a%5cb",
            "/a\\b",
            "/a#b",
            "/a b",
            "/a%0d%0aX: y",
            "/a\r\nX: y",
            "/a%00",
            "/a%",
            "/a%zz",
            "/..;x/b",
            "/é",
            "*",
        ] {
            assert!(check_path(path).is_err(), "{path}");
        }
        assert!(check_path(&format!("/{}", "a".repeat(MAX_PATH_BYTES))).is_err());
    }

    #[test]
    fn who_asks_and_what_for_is_not_told_where_it_is_refused() {
        let refused = |uri: &str| {
            let uri = uri.parse().expect("an address");
            Target::of(&http::Method::GET, &uri)
                .map(|target| target.to_string())
                .expect_err("refused")
        };
        assert_eq!(
            refused("https://ann:word@api.example.com/v1"),
            "`somebody@api.example.com` is not a host with a port"
        );
        let told = refused("https://api.example.com/%2e%2e/people?name=Mustermann");
        assert_eq!(told, "the path `/%2e%2e/people` has a segment `.` or `..`");
        let told = refused("https://api.example.com/people?name=Muster\\mann");
        assert!(
            told.starts_with("the path `/people` holds byte 0x5c"),
            "{told}"
        );
    }

    #[test]
    fn a_prefix_is_whole_segments() {
        let target = |path: &str| Target {
            method: HttpMethod::Get,
            scheme: HttpScheme::Https,
            host: "example.com".into(),
            port: 443,
            path: path.into(),
            query: None,
        };
        for (path, prefix, is_below) in [
            ("/v1", "/", true),
            ("/v1", "/v1", true),
            ("/v1/", "/v1", true),
            ("/v1/x", "/v1/", true),
            ("/v1", "/v1/", false),
            ("/v10", "/v1", false),
            ("/V1/x", "/v1", false),
            ("/", "/v1", false),
        ] {
            assert_eq!(
                target(path).is_below(prefix),
                is_below,
                "{path} below {prefix}"
            );
        }
    }
}
