//! What a store is: a bucket behind an endpoint of S3, or a folder.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::http::{HttpScheme, host_of, plain, roots};
use super::super::secrets::{SecretSource, sentence_of};
use super::folder;
use super::key::{check_key, check_prefix};
use crate::text;

/// A store of objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BlobStore {
    /// `s3://bucket/prefix`, or `file:folder` for one's own disk.
    pub url: StoreUrl,
    /// Where a bucket is, such as `https://s3.example.com:9000`; the one of AWS for the region when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The region of a bucket, such as `eu-central-1`; requests are signed for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// As whom a bucket is asked; nobody when absent. Nothing is taken from the environment or from the
    /// machine that is not named here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<StoreCredentials>,
    /// A PEM file with the certificate authorities to trust in place of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_authority: Option<PathBuf>,
    /// Networks that the endpoint may be in although they are not public, such as `10.1.0.0/16`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub networks: Vec<IpNet>,
}

/// As whom a bucket is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreCredentials {
    /// Where the id of the access key comes from.
    pub access_key: SecretSource,
    /// Where the secret of the access key comes from.
    pub secret_key: SecretSource,
    /// Where the token of a session comes from, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<SecretSource>,
}

/// Where objects lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum StoreUrl {
    /// A bucket, and what its keys begin with: nothing, or parts that each end with a slash.
    Bucket {
        /// Its name.
        bucket: String,
        /// What keys begin with.
        prefix: String,
    },
    /// A folder.
    Folder(PathBuf),
}

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        let shown = || text::sentence(url, 128);
        let strange = |c: char| c.is_control() || matches!(c, '?' | '#' | '%' | '\\' | '@');
        if url.chars().any(strange) {
            return Err(format!(
                "`{}` has a query, an escape or an account; a store is written like \
                 s3://bucket/prefix or file:folder",
                shown()
            ));
        }
        if let Some(rest) = url.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
            let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
            let is_bucket = (3..=63).contains(&bucket.len())
                && bucket.chars().all(plain)
                && edge(bucket.chars().next())
                && edge(bucket.chars().last())
                && !bucket.contains("..");
            if !is_bucket {
                return Err(format!(
                    "`{}` names no bucket; it has 3 to 63 lower case letters, digits, `-` and `.`",
                    shown()
                ));
            }
            let prefix = match prefix.strip_suffix('/').unwrap_or(prefix) {
                "" => String::new(),
                parts => format!("{parts}/"),
            };
            check_prefix(&prefix).map_err(|what| format!("the prefix of `{}` {what}", shown()))?;
            return Ok(Self::Bucket {
                bucket: bucket.to_owned(),
                prefix,
            });
        }
        let path = match url.strip_prefix("file:") {
            Some(rest) => match rest.strip_prefix("//") {
                // What would stand before its third slash is another machine.
                Some(path) if !path.starts_with('/') => "",
                Some(path) => path,
                None => rest,
            },
            None => "",
        };
        if path.is_empty() {
            return Err(format!(
                "`{}` is no store; write it like s3://bucket/prefix, file:folder or file:///folder",
                shown()
            ));
        }
        Ok(Self::Folder(PathBuf::from(path)))
    }
}

impl TryFrom<String> for StoreUrl {
    type Error = String;

    fn try_from(url: String) -> Result<Self, String> {
        url.parse()
    }
}

impl From<StoreUrl> for String {
    fn from(url: StoreUrl) -> Self {
        url.to_string()
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bucket { bucket, prefix } => {
                let prefix = prefix.trim_end_matches('/');
                let slash = if prefix.is_empty() { "" } else { "/" };
                write!(formatter, "s3://{bucket}{slash}{prefix}")
            }
            Self::Folder(path) => write!(formatter, "file:{}", path.display()),
        }
    }
}

/// The one host and port that requests to a bucket go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) scheme: HttpScheme,
    pub(super) host: String,
    pub(super) port: u16,
}

impl Endpoint {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = match text.split_once("://")? {
            ("https", rest) => (HttpScheme::Https, rest),
            ("http", rest) => (HttpScheme::Http, rest),
            _ => return None,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        // An address of IPv6 stands in brackets.
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => scheme.port(),
            None => return None,
            Some(port) => port.parse::<NonZeroU16>().ok()?.get(),
        };
        (host_of(host).as_deref() == Some(host)).then(|| Self {
            scheme,
            host: host.to_owned(),
            port,
        })
    }

    /// As a request names it.
    pub(super) fn authority(&self) -> String {
        let host = match self.host.parse() {
            Ok(IpAddr::V6(address)) => format!("[{address}]"),
            _ => self.host.clone(),
        };
        match self.port == self.scheme.port() {
            true => host,
            false => format!("{host}:{}", self.port),
        }
    }

    fn is_local(&self) -> bool {
        let address = self.host.parse::<IpAddr>();
        address.is_ok_and(|address| plain(address).is_loopback())
    }
}

impl BlobStore {
    /// Where requests go. The error is a sentence.
    pub(super) fn endpoint(&self) -> Result<Endpoint, String> {
        let region = self.region()?;
        let written = match &self.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => format!("https://s3.{region}.amazonaws.com"),
        };
        Endpoint::parse(&written).ok_or_else(|| {
            format!(
                "`{}` is no endpoint; write it like https://s3.example.com:9000, in lower case and \
                 without a path",
                text::sentence(&written, 128)
            )
        })
    }

    pub(super) fn region(&self) -> Result<&str, String> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        match self.region.as_deref() {
            Some(region) if (1..=64).contains(&region.len()) && region.chars().all(plain) => {
                Ok(region)
            }
            Some(_) => Err("`region` is lower case letters, digits and `-`".to_owned()),
            None => Err("a bucket has a `region`, such as eu-central-1".to_owned()),
        }
    }

    /// The references of what it is asked with.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &SecretSource> {
        let credentials = self.credentials.iter();
        credentials.flat_map(|of| {
            [&of.access_key, &of.secret_key]
                .into_iter()
                .chain(&of.session_token)
        })
    }

    /// Such as `s3://bucket/prefix at s3.example.com with env:KEY`.
    pub(super) fn in_words(&self, path: &impl Fn(&Path) -> String) -> String {
        let mut words = match &self.url {
            StoreUrl::Folder(folder) => return format!("file:{}", path(folder)),
            url @ StoreUrl::Bucket { .. } => url.to_string(),
        };
        if let Ok(endpoint) = self.endpoint() {
            words.push_str(&format!(" at {}", endpoint.authority()));
        }
        if let Some(credentials) = &self.credentials {
            words.push_str(&format!(" with {}", credentials.secret_key));
        }
        words
    }
}

/// Says whether a store can be used at all.
pub(super) fn check(store: &BlobStore) -> Result<(), String> {
    check_target(store)?;
    match &store.url {
        StoreUrl::Folder(path) => folder::check(path),
        StoreUrl::Bucket { .. } => {
            for secret in store.secrets() {
                secret.read().map_err(|what| sentence_of(secret, &what))?;
            }
            match store.endpoint()?.scheme {
                HttpScheme::Https => roots(store.certificate_authority.as_deref()).map(|_| ()),
                HttpScheme::Http => Ok(()),
            }
        }
    }
}

/// Says whether a store makes sense, wherever it is written.
pub(super) fn check_target(store: &BlobStore) -> Result<(), String> {
    let BlobStore {
        url,
        endpoint,
        region,
        credentials,
        certificate_authority,
        networks,
    } = store;
    match url {
        StoreUrl::Folder(_) => {
            let is_plain = endpoint.is_none()
                && region.is_none()
                && credentials.is_none()
                && certificate_authority.is_none()
                && networks.is_empty();
            match is_plain {
                true => Ok(()),
                false => Err(format!(
                    "`{url}` is a folder; leave out everything but its `url`"
                )),
            }
        }
        StoreUrl::Bucket { prefix, .. } => {
            // It was parsed, or written in code.
            prefix.strip_suffix('/').map_or(Ok(()), check_key)?;
            let endpoint = store.endpoint()?;
            if endpoint.scheme == HttpScheme::Http && credentials.is_some() && !endpoint.is_local()
            {
                return Err(format!(
                    "what is asked of `{}` with credentials would be sent in the clear; use https",
                    endpoint.authority()
                ));
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_bucket_or_a_folder_and_nothing_else() {
        let bucket = |bucket: &str, prefix: &str| StoreUrl::Bucket {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        };
        for (url, store, shown) in [
            ("s3://lake", bucket("lake", ""), "s3://lake"),
            ("s3://lake/", bucket("lake", ""), "s3://lake"),
            (
                "s3://a.b-1/raw/x",
                bucket("a.b-1", "raw/x/"),
                "s3://a.b-1/raw/x",
            ),
            ("s3://lake/raw/", bucket("lake", "raw/"), "s3://lake/raw"),
            (
                "file:data/lake",
                StoreUrl::Folder("data/lake".into()),
                "file:data/lake",
            ),
            (
                "file:///srv/lake",
                StoreUrl::Folder("/srv/lake".into()),
                "file:/srv/lake",
            ),
            (
                "file:/srv/lake",
                StoreUrl::Folder("/srv/lake".into()),
                "file:/srv/lake",
            ),
        ] {
            let parsed: StoreUrl = url.parse().expect(url);
            assert_eq!((&parsed, parsed.to_string()), (&store, shown.to_owned()));
            assert_eq!(shown.parse::<StoreUrl>().expect(shown), store);
        }
        for url in [
            "",
            "lake",
            "s3://",
            "s3://x",
            "s3://Lake",
            "s3:lake",
            "s3://a..b",
            "s3://-ab",
            "s3://lake//x",
            "s3://lake/../x",
            "s3://key:secret@lake",
            "s3://lake?x=1",
            "s3://lake/%2e%2e",
            "gs://lake",
            "https://lake",
            "file:",
            "file://",
            "file://host/x",
            "file:x%20y",
        ] {
            assert!(url.parse::<StoreUrl>().is_err(), "{url}");
        }
    }

    #[test]
    fn an_endpoint_is_one_host_and_one_port() {
        let parsed = |text: &str| Endpoint::parse(text).map(|it| (it.authority(), it.port));
        for (text, authority, port) in [
            ("https://s3.example.com", "s3.example.com", 443),
            ("https://s3.example.com/", "s3.example.com", 443),
            ("https://s3.example.com:9000", "s3.example.com:9000", 9000),
            ("http://127.0.0.1:80", "127.0.0.1", 80),
            ("http://[::1]:9000", "[::1]:9000", 9000),
        ] {
            assert_eq!(parsed(text), Some((authority.to_owned(), port)), "{text}");
        }
        for text in [
            "s3.example.com",
            "ftp://x",
            "https://",
            "https://a/b",
            "https://a:0",
            "https://a:99999",
            "https://u@a",
            "https://A.example",
            "https://127.1",
            "https://[::1",
            "https://[::1]x",
            "https://a:1:2",
            "https://a?x",
            "https://a b",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }
}
