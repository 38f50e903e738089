use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Digest, Event};

/// One link of the chain: one line of the log.
///
/// A line is canonical JSON (keys sorted, no spaces): `{"digest":"<64 hex>",` and then the body
/// `"event":…,"previous":…,"sequence":…,"time":…}`. The digest is BLAKE3 over `{` and the body,
/// byte for byte, so checking it needs no parser.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Entry {
    /// Counted from 1; also the number of its line.
    pub sequence: u64,
    /// When it was appended, RFC 3339 in UTC.
    pub time: String,
    /// The digest of the entry before, or [`Digest::ZERO`].
    pub previous: Digest,
    /// What happened.
    pub event: Event,
    /// The digest of all of the above.
    pub digest: Digest,
}

/// The schema of an entry, for those who read logs with other programs.
#[must_use]
pub fn entry_schema() -> Value {
    schemars::schema_for!(Entry).to_value()
}

/// An entry of which only the name of its event is known, so that a log with events of a newer
/// version can still be verified and continued.
#[derive(Debug, Deserialize)]
pub(crate) struct RawEntry<'a> {
    pub(crate) sequence: u64,
    #[serde(borrow)]
    pub(crate) time: Cow<'a, str>,
    pub(crate) previous: Digest,
    #[serde(borrow)]
    pub(crate) event: RawEvent<'a>,
    pub(crate) digest: Digest,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RawEvent<'a> {
    #[serde(borrow, rename = "event")]
    pub(crate) name: Cow<'a, str>,
}

impl RawEntry<'_> {
    /// The event, where it is about the key of the log.
    pub(crate) fn key_event(&self, line: &[u8]) -> Option<Event> {
        if !self.event.name.starts_with("key-") {
            return None;
        }
        let entry: Entry = serde_json::from_slice(line).ok()?;
        Some(entry.event)
    }
}

const LINE_START: &str = "{\"digest\":\"";
/// The start, 64 hex characters and `",`.
const BODY_START: usize = LINE_START.len() + 64 + 2;

/// What is wrong with a line on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineFault {
    /// Not an entry at all.
    Malformed,
    /// The body is not the one that the digest was made of.
    Changed,
}

/// Makes an entry and its line, which ends in a newline.
pub(crate) fn seal(
    sequence: u64,
    time: String,
    previous: Digest,
    event: Event,
) -> Result<(Entry, String), serde_json::Error> {
    let event_value = serde_json::to_value(&event)?;
    let mut body = String::with_capacity(256);
    body.push_str("{\"event\":");
    write_canonical(&event_value, &mut body);
    body.push_str(",\"previous\":");
    write_canonical(&Value::String(previous.to_string()), &mut body);
    body.push_str(",\"sequence\":");
    body.push_str(&sequence.to_string());
    body.push_str(",\"time\":");
    write_canonical(&Value::String(time.clone()), &mut body);
    body.push('}');
    let digest = Digest::of(body.as_bytes());
    let line = format!("{LINE_START}{digest}\",{}\n", &body[1..]);
    // A number that JSON cannot hold (NaN) would make a line that nobody can read back.
    serde_json::from_str::<Entry>(&line)?;
    Ok((
        Entry {
            sequence,
            time,
            previous,
            event,
            digest,
        },
        line,
    ))
}

/// Checks that a line, without its newline, is what its digest was made of, and parses it.
pub(crate) fn open_line(line: &[u8]) -> Result<RawEntry<'_>, LineFault> {
    let text = std::str::from_utf8(line).map_err(|_| LineFault::Malformed)?;
    let (start, rest) = text
        .split_at_checked(LINE_START.len())
        .ok_or(LineFault::Malformed)?;
    let (hex, _) = rest.split_at_checked(64).ok_or(LineFault::Malformed)?;
    let digest: Digest = hex.parse().map_err(|_| LineFault::Malformed)?;
    let body = line.get(BODY_START..).ok_or(LineFault::Malformed)?;
    if start != LINE_START || &line[BODY_START - 2..BODY_START] != b"\"," {
        return Err(LineFault::Malformed);
    }
    if Digest::hasher().update(b"{").update(body).finish() != digest {
        return Err(LineFault::Changed);
    }
    let entry: RawEntry<'_> = serde_json::from_slice(line).map_err(|_| LineFault::Malformed)?;
    // A second `digest` key in the body would make the parsed one differ from the checked one.
    if entry.digest == digest {
        Ok(entry)
    } else {
        Err(LineFault::Malformed)
    }
}

/// JSON with keys in byte order and no spaces, whatever order the map keeps.
pub(crate) fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            out.push('{');
            for (place, key) in keys.into_iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                out.push_str(&Value::String(key.clone()).to_string());
                out.push(':');
                write_canonical(&map[key], out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event::ServeStopped { predictions: 3 }
    }

    #[test]
    fn a_sealed_line_opens() {
        let (entry, line) = seal(
            4,
            "2026-11-21T20:15:30Z".to_owned(),
            Digest::of(b"before"),
            event(),
        )
        .expect("seals");
        let raw = open_line(line.trim_end().as_bytes())
            .unwrap_or_else(|fault| panic!("{fault:?}: {line}"));
        assert_eq!(
            (raw.sequence, raw.previous, raw.digest),
            (4, entry.previous, entry.digest)
        );
        assert_eq!(serde_json::from_str::<Entry>(&line).expect("parses"), entry);
    }

    #[test]
    fn a_changed_byte_does_not_open() {
        let (_, line) =
            seal(4, "2026-11-21T20:15:30Z".to_owned(), Digest::ZERO, event()).expect("seals");
        let changed = line.replace("\"predictions\":3", "\"predictions\":4");
        assert_eq!(
            open_line(changed.trim_end().as_bytes()).err(),
            Some(LineFault::Changed)
        );
        assert_eq!(open_line(b"{}").err(), Some(LineFault::Malformed));
        assert_eq!(open_line(b"\xff\xfe").err(), Some(LineFault::Malformed));
    }

    #[test]
    fn what_cannot_be_read_back_is_not_written() {
        let run = "20261121-201530-4f3a9c".parse().expect("a run id");
        let stage = Event::StageFinished {
            run,
            stage: "train".to_owned(),
            key: Digest::ZERO,
            output: Digest::ZERO,
            cached: false,
            rows_in: None,
            rows_out: None,
            rows_quarantined: None,
            seconds: f64::NAN,
        };
        assert!(seal(1, String::new(), Digest::ZERO, stage).is_err());
    }

    #[test]
    fn keys_are_sorted_at_every_depth() {
        let value = serde_json::json!({"b": [{"z": 1, "a": "\u{e9}\n"}], "a": null});
        let mut text = String::new();
        write_canonical(&value, &mut text);
        assert_eq!(text, "{\"a\":null,\"b\":[{\"a\":\"\u{e9}\\n\",\"z\":1}]}");
    }
}
