//! Reads what a bucket answers to `ListObjectsV2`. It comes from a server that may be anybody's: its bytes are
//! bounded before this, its depth here, and it has no entities but those that XML names.

use jiff::Timestamp;
use quick_xml::Reader;
use quick_xml::events::Event;

use super::Entry;
use super::key::{MAX_KEY_BYTES, check_key};

/// Elements in one another.
const MAX_DEPTH: usize = 16;

/// Bytes of a tag of an object.
pub(super) const MAX_TAG_BYTES: usize = 256;

/// Bytes of where a list goes on.
pub(super) const MAX_CURSOR_BYTES: usize = 2048;

/// A page as it came, with whole keys.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) entries: Vec<Entry>,
    pub(super) next: Option<String>,
}

/// Reads a page. The error says what is wrong with it, and holds nothing of it.
pub(super) fn read(bytes: &[u8]) -> Result<Listing, &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8")?;
    let mut reader = Reader::from_str(text);
    let mut path: Vec<String> = Vec::new();
    let mut value = String::new();
    let mut one: Option<Found> = None;
    let mut listing = Listing::default();
    let (mut is_list, mut is_truncated, mut token) = (false, false, None);
    loop {
        match reader.read_event().map_err(|_| "is no XML")? {
            Event::Start(tag) => {
                if path.len() >= MAX_DEPTH {
                    return Err("is too deep");
                }
                path.push(name_of(tag.local_name().as_ref())?);
                value.clear();
                match path.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                    ["ListBucketResult"] => is_list = true,
                    ["ListBucketResult", "Contents"] => one = Some(Found::default()),
                    _ => {}
                }
            }
            Event::End(_) => {
                let names: Vec<&str> = path.iter().map(String::as_str).collect();
                let said = std::mem::take(&mut value);
                match (&names[..], &mut one) {
                    (["ListBucketResult", "IsTruncated"], _) => {
                        is_truncated = said.trim() == "true"
                    }
                    (["ListBucketResult", "NextContinuationToken"], _) => token = Some(said),
                    (["ListBucketResult", "Contents"], found) => {
                        let found = found.take().ok_or("has an object that does not begin")?;
                        listing.entries.push(found.finish()?);
                    }
                    (["ListBucketResult", "Contents", "Key"], Some(found)) => {
                        found.key = Some(said)
                    }
                    (["ListBucketResult", "Contents", "Size"], Some(found)) => {
                        found.size =
                            Some(said.trim().parse().map_err(|_| "has a size that is none")?);
                    }
                    (["ListBucketResult", "Contents", "ETag"], Some(found)) => {
                        found.tag = tag_of(&said)
                    }
                    (["ListBucketResult", "Contents", "LastModified"], Some(found)) => {
                        let time: Result<Timestamp, _> = said.trim().parse();
                        found.modified = time.ok().map(Timestamp::as_second);
                    }
                    _ => {}
                }
                path.pop();
            }
            Event::Text(said) => push(&mut value, &said.decode().map_err(|_| "is not UTF-8")?)?,
            Event::CData(said) => push(&mut value, &said.decode().map_err(|_| "is not UTF-8")?)?,
            Event::GeneralRef(reference) => {
                let name = reference.decode().map_err(|_| "is not UTF-8")?;
                let character = match &*name {
                    "amp" => '&',
                    "lt" => '<',
                    "gt" => '>',
                    "quot" => '"',
                    "apos" => '\'',
                    _ => reference
                        .resolve_char_ref()
                        .ok()
                        .flatten()
                        .ok_or("has entities of its own")?,
                };
                push(&mut value, character.encode_utf8(&mut [0; 4]))?;
            }
            Event::DocType(_) => return Err("has a document type"),
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof => break,
        }
    }
    if !is_list || !path.is_empty() {
        return Err("is not a whole list");
    }
    listing.next = match (is_truncated, token) {
        (false, _) => None,
        (true, Some(token)) if (1..=MAX_CURSOR_BYTES).contains(&token.len()) => Some(token),
        (true, _) => return Err("does not say where it goes on"),
    };
    Ok(listing)
}

#[derive(Default)]
struct Found {
    key: Option<String>,
    size: Option<u64>,
    tag: Option<String>,
    modified: Option<i64>,
}

impl Found {
    fn finish(self) -> Result<Entry, &'static str> {
        Ok(Entry {
            key: self.key.ok_or("has an object without a key")?,
            size: self.size.ok_or("has an object without a size")?,
            etag: self.tag,
            modified: self.modified,
        })
    }
}

fn name_of(name: &[u8]) -> Result<String, &'static str> {
    match std::str::from_utf8(name) {
        Ok(name) if name.len() <= 64 => Ok(name.to_owned()),
        _ => Err("has an element with a strange name"),
    }
}

fn push(value: &mut String, more: &str) -> Result<(), &'static str> {
    if value.len() + more.len() > MAX_CURSOR_BYTES.max(2 * MAX_KEY_BYTES) {
        return Err("has a text that is too long");
    }
    value.push_str(more);
    Ok(())
}

/// The tag of an object, if it is one that can be sent back.
pub(super) fn tag_of(text: &str) -> Option<String> {
    let text = text.trim();
    let is_plain = text.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
    ((1..=MAX_TAG_BYTES).contains(&text.len()) && is_plain).then(|| text.to_owned())
}

/// The objects of a page as a plugin may see them: below the prefix that was asked for, under the store's own.
/// What a plugin could not name (a folder's marker, a key with empty parts) is left out; what was not asked for
/// makes the whole answer wrong.
pub(super) fn below(
    entries: Vec<Entry>,
    own: &str,
    prefix: &str,
    limit: u32,
) -> Result<Vec<Entry>, &'static str> {
    if entries.len() > limit as usize {
        return Err("has more than was asked for");
    }
    let mut seen = Vec::with_capacity(entries.len());
    for mut entry in entries {
        let key = entry.key.strip_prefix(own);
        let key = key.filter(|key| key.starts_with(prefix));
        let Some(key) = key else {
            return Err("has keys that were not asked for");
        };
        if check_key(key).is_ok() {
            entry.key = key.to_owned();
            seen.push(entry);
        }
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(inner: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
             <Name>lake</Name>{inner}</ListBucketResult>"
        )
    }

    fn object(key: &str) -> String {
        format!(
            "<Contents><Key>{key}</Key><LastModified>2009-10-12T17:50:30.000Z</LastModified>\
             <ETag>&quot;fba9&quot;</ETag><Size>7</Size><Owner><ID>x</ID></Owner></Contents>"
        )
    }

    #[test]
    fn a_page_is_read_with_its_entities() {
        let text = page(&format!(
            "<IsTruncated>true</IsTruncated>{}{}<NextContinuationToken>1/ab=</NextContinuationToken>",
            object("raw/a&amp;b&#x41;.csv"),
            object("raw/<![CDATA[<x>]]>"),
        ));
        let listing = read(text.as_bytes()).expect("a page");
        let keys: Vec<&str> = listing.entries.iter().map(|it| it.key.as_str()).collect();
        assert_eq!(keys, ["raw/a&bA.csv", "raw/<x>"]);
        assert_eq!(listing.entries[0].etag.as_deref(), Some("\"fba9\""));
        assert_eq!(listing.entries[0].modified, Some(1_255_369_830));
        assert_eq!(listing.next.as_deref(), Some("1/ab="));
        assert_eq!(read(page("").as_bytes()).expect("none"), Listing::default());
    }

    #[test]
    fn what_is_no_page_is_refused_and_bounded() {
        let deep = page(&"<a>".repeat(40));
        let bomb =
            "<!DOCTYPE x [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]>".to_owned() + &page("&b;");
        let entity = page("<Contents><Key>&b;</Key><Size>1</Size></Contents>");
        let long = page(&object(&"x".repeat(5000)));
        for (text, why) in [
            ("", "not a whole list"),
            (
                "<Error><Code>AccessDenied</Code></Error>",
                "not a whole list",
            ),
            ("<ListBucketResult>", "not a whole list"),
            ("<ListBucketResult></Other>", "no XML"),
            (&deep, "too deep"),
            (&bomb, "document type"),
            (&entity, "entities of its own"),
            (&long, "too long"),
            (
                &page("<Contents><Size>1</Size></Contents>"),
                "without a key",
            ),
            (&page("<Contents><Key>a</Key></Contents>"), "without a size"),
            (
                &page("<Contents><Key>a</Key><Size>-1</Size></Contents>"),
                "size that is none",
            ),
            (&page("<IsTruncated>true</IsTruncated>"), "where it goes on"),
        ] {
            let error = read(text.as_bytes()).expect_err(why);
            assert!(error.contains(why), "{why}: {error}");
        }
        assert_eq!(read(b"\xff\xfe").expect_err("bytes"), "is not UTF-8");
    }

    #[test]
    fn keys_are_held_to_what_was_asked() {
        let entry = |key: &str| Entry {
            key: key.to_owned(),
            size: 1,
            etag: None,
            modified: None,
        };
        let seen = |keys: &[&str], limit| {
            let entries = keys.iter().map(|key| entry(key)).collect();
            let seen = below(entries, "own/", "raw/", limit);
            seen.map(|seen| seen.into_iter().map(|it| it.key).collect::<Vec<_>>())
        };
        assert_eq!(
            seen(
                &[
                    "own/raw/",
                    "own/raw/a",
                    "own/raw//x",
                    "own/raw/../x",
                    "own/raw/b"
                ],
                5
            ),
            Ok(vec!["raw/a".to_owned(), "raw/b".to_owned()])
        );
        for keys in [
            ["own/secret/a"],
            ["raw/a"],
            ["own/raw"],
            ["own/raw-x"],
            ["other/own/raw/a"],
        ] {
            assert!(seen(&keys, 5).is_err(), "{keys:?}");
        }
        assert!(seen(&["own/raw/a", "own/raw/b"], 1).is_err());
    }
}
