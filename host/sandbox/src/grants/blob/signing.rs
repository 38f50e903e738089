//! Signatures of requests to S3: version 4 (AWS General Reference, "Signature Version 4 signing process";
//! for S3 a path is encoded once).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::{digest, hmac};

use super::super::secrets::Secret;

/// What is encoded in a query: all but the unreserved characters of RFC 3986.
const STRICT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// In a path, slashes stand for themselves.
const PATH: &AsciiSet = &STRICT.remove(b'/');

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What a request is signed with. It is not printed.
pub(super) struct Keys {
    pub(super) access: String,
    pub(super) secret: Secret,
    /// The token of a session.
    pub(super) token: Option<String>,
}

/// A request, as far as it is signed.
pub(super) struct Signed<'a> {
    pub(super) region: &'a str,
    /// Such as `20130524T000000Z`.
    pub(super) at: &'a str,
    pub(super) method: &'a str,
    /// Encoded.
    pub(super) path: &'a str,
    /// Encoded, in the order of its names.
    pub(super) query: &'a str,
    /// By their names in lower case, in the order of these.
    pub(super) headers: &'a [(&'a str, &'a str)],
    /// Of its body, in hexadecimal.
    pub(super) payload: &'a str,
}

/// The path of a key in a bucket.
pub(super) fn path_of(bucket: &str, key: Option<&str>) -> String {
    let key = key.unwrap_or_default();
    format!("/{bucket}/{}", utf8_percent_encode(key, PATH))
        .trim_end_matches(|c| key.is_empty() && c == '/')
        .to_owned()
}

/// A query, in the order of its names.
pub(super) fn query_of(pairs: &[(&str, String)]) -> String {
    let mut pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| {
            format!(
                "{}={}",
                utf8_percent_encode(name, STRICT),
                utf8_percent_encode(value, STRICT)
            )
        })
        .collect();
    pairs.sort_unstable();
    pairs.join("&")
}

/// The digest of a body, in hexadecimal.
pub(super) fn digest_of(bytes: &[u8]) -> String {
    hexadecimal(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// The value of the field `authorization`.
pub(super) fn authorization(keys: &Keys, request: &Signed<'_>) -> String {
    let names: Vec<&str> = request.headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let headers: String = request
        .headers
        .iter()
        .map(|(name, value)| format!("{name}:{}\n", value.trim()))
        .collect();
    let canonical = [
        request.method,
        request.path,
        request.query,
        &headers,
        &names,
        request.payload,
    ]
    .join("\n");
    let day = request.at.get(..8).unwrap_or(request.at);
    let scope = format!("{day}/{}/s3/aws4_request", request.region);
    let text = [
        ALGORITHM,
        request.at,
        &scope,
        &digest_of(canonical.as_bytes()),
    ]
    .join("\n");
    let mut key = [b"AWS4", keys.secret.bytes()].concat();
    let mut signing = hmac::Key::new(hmac::HMAC_SHA256, &key);
    key.fill(0);
    for part in [day, request.region, "s3", "aws4_request"] {
        let tag = hmac::sign(&signing, part.as_bytes());
        signing = hmac::Key::new(hmac::HMAC_SHA256, tag.as_ref());
    }
    let signature = hexadecimal(hmac::sign(&signing, text.as_bytes()).as_ref());
    format!(
        "{ALGORITHM} Credential={}/{scope},SignedHeaders={names},Signature={signature}",
        keys.access
    )
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the API reference of S3, "Signature Calculations for the Authorization Header".
    #[test]
    fn requests_are_signed_as_the_reference_signs_them() {
        let keys = Keys {
            access: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret: Secret::of(b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
            token: None,
        };
        let host = ("host", "examplebucket.s3.amazonaws.com");
        let empty = digest_of(b"");
        let date = ("x-amz-date", "20130524T000000Z");
        let of_empty = ("x-amz-content-sha256", empty.as_str());
        let text = digest_of(b"Welcome to Amazon S3.");
        let sent = path_of("x", Some("test$file.text"));
        for (method, path, query, headers, payload, signature) in [
            (
                "GET",
                "/test.txt",
                String::new(),
                vec![host, ("range", "bytes=0-9"), of_empty, date],
                &empty,
                "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            ),
            (
                "PUT",
                sent.strip_prefix("/x").expect("a path"),
                String::new(),
                vec![
                    ("date", "Fri, 24 May 2013 00:00:00 GMT"),
                    host,
                    ("x-amz-content-sha256", text.as_str()),
                    date,
                    ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
                ],
                &text,
                "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
            ),
            (
                "GET",
                "/",
                query_of(&[("lifecycle", String::new())]),
                vec![host, of_empty, date],
                &empty,
                "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
            ),
            (
                "GET",
                "/",
                query_of(&[("prefix", "J".to_owned()), ("max-keys", "2".to_owned())]),
                vec![host, of_empty, date],
                &empty,
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ),
        ] {
            let told = authorization(
                &keys,
                &Signed {
                    region: "us-east-1",
                    at: date.1,
                    method,
                    path,
                    query: &query,
                    headers: &headers,
                    payload,
                },
            );
            let begins = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,";
            assert!(told.starts_with(begins), "{told}");
            assert!(told.ends_with(&format!("Signature={signature}")), "{told}");
        }
    }

    #[test]
    fn keys_stand_in_paths_without_meaning_anything_there() {
        assert_eq!(
            path_of("lake", Some("a b/ä?#%2e.csv")),
            "/lake/a%20b/%C3%A4%3F%23%252e.csv"
        );
        assert_eq!(path_of("lake", None), "/lake");
        assert_eq!(
            query_of(&[("b", "x&y=z".to_owned()), ("a", "1/2".to_owned())]),
            "a=1%2F2&b=x%26y%3Dz"
        );
    }
}
