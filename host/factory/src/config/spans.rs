//! Where everything is in a YAML file: byte ranges by path, such as `train.features.exclude[0]`.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use serde_saphyr::granit_parser::{Event, Parser, Span};

/// The text of a pipeline file with the place of every key and value in it.
#[derive(Debug, Clone, Default)]
pub struct Spans {
    name: String,
    text: Arc<str>,
    keys: Arc<HashMap<String, Range<usize>>>,
    values: Arc<HashMap<String, Range<usize>>>,
}

impl Spans {
    /// Reads the places of all keys and values. Text that is not YAML has none from the mistake
    /// on; the parser proper reports the mistake.
    pub fn of(name: &str, text: &str) -> Spans {
        let mut walk = Walk::default();
        for event in Parser::new_from_str(text) {
            match event {
                Ok((event, span)) => walk.see(&event, span),
                Err(_) => break,
            }
        }
        Spans {
            name: name.to_owned(),
            text: Arc::from(text),
            keys: Arc::new(walk.keys),
            values: Arc::new(walk.values),
        }
    }

    /// What the file is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text of the file.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Whether there is a value at a path.
    pub fn has(&self, path: &str) -> bool {
        self.values.contains_key(path)
    }

    /// The bytes of the value at a path, or of the nearest value around it.
    pub fn value(&self, path: &str) -> Range<usize> {
        self.nearest(&self.values, path)
    }

    /// The bytes of the key at a path, or of the nearest key around it.
    pub fn key(&self, path: &str) -> Range<usize> {
        self.nearest(&self.keys, path)
    }

    /// The line and the column of a byte, both from 1; columns count characters.
    pub fn line_and_column(&self, byte: usize) -> (usize, usize) {
        let before = self.text.get(..byte).unwrap_or(&self.text);
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (line, before[start..].chars().count() + 1)
    }

    fn nearest(&self, places: &HashMap<String, Range<usize>>, path: &str) -> Range<usize> {
        let mut path = path;
        loop {
            if let Some(range) = places.get(path) {
                return range.clone();
            }
            match path.rfind(['.', '[']) {
                Some(cut) => path = &path[..cut],
                None => return 0..0,
            }
        }
    }
}

/// A mapping or a sequence that has begun and not ended.
struct Open {
    path: String,
    start: usize,
    /// In a mapping, the key whose value comes next; in a sequence, the number of values so far.
    place: Place,
}

enum Place {
    Key,
    Value(String),
    Item(usize),
}

#[derive(Default)]
struct Walk {
    open: Vec<Open>,
    keys: HashMap<String, Range<usize>>,
    values: HashMap<String, Range<usize>>,
}

impl Walk {
    fn see(&mut self, event: &Event<'_>, span: Span) {
        let range = bytes(&span);
        match event {
            Event::Scalar(value, ..) => match self.open.last_mut() {
                Some(Open {
                    path,
                    place: place @ Place::Key,
                    ..
                }) => {
                    let key = join(path, value);
                    self.keys.insert(key.clone(), range);
                    *place = Place::Value(key);
                }
                _ => {
                    let path = self.next_path();
                    self.values.insert(path, range);
                }
            },
            Event::Alias(_) => {
                let path = self.next_path();
                self.values.insert(path, range);
            }
            Event::MappingStart(..) => {
                let path = self.next_path();
                self.open.push(Open {
                    path,
                    start: range.start,
                    place: Place::Key,
                });
            }
            Event::SequenceStart(..) => {
                let path = self.next_path();
                self.open.push(Open {
                    path,
                    start: range.start,
                    place: Place::Item(0),
                });
            }
            Event::MappingEnd | Event::SequenceEnd => {
                if let Some(open) = self.open.pop() {
                    self.values
                        .insert(open.path, open.start..range.end.max(open.start));
                }
            }
            _ => {}
        }
    }

    /// The path of the value that begins now, and a step on to the place after it.
    fn next_path(&mut self) -> String {
        match self.open.last_mut() {
            None => String::new(),
            Some(Open { path, place, .. }) => match place {
                Place::Item(index) => {
                    let item = format!("{path}[{index}]");
                    *index += 1;
                    item
                }
                Place::Value(key) => {
                    let key = std::mem::take(key);
                    *place = Place::Key;
                    key
                }
                // A key that is not a scalar, which no pipeline has.
                Place::Key => {
                    *place = Place::Value(join(path, "?"));
                    join(path, "?")
                }
            },
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

fn bytes(span: &Span) -> Range<usize> {
    let start = span.start.byte_offset().unwrap_or(0);
    start..span.end.byte_offset().unwrap_or(start)
}

#[cfg(test)]
mod tests {
    use super::Spans;

    const TEXT: &str = "name: größe\nplugins:\n  csv: { source: a.wasm }\nat: [x, yy]\n";

    #[test]
    fn values_and_keys_are_found_by_path() {
        let spans = Spans::of("p.yaml", TEXT);
        assert_eq!(&TEXT[spans.value("plugins.csv.source")], "a.wasm");
        assert_eq!(&TEXT[spans.key("plugins.csv")], "csv");
        assert_eq!(&TEXT[spans.value("at[1]")], "yy");
        assert_eq!(spans.line_and_column(spans.value("at[1]").start), (4, 9));
    }

    #[test]
    fn a_path_that_is_not_there_is_the_nearest_around_it() {
        let spans = Spans::of("p.yaml", TEXT);
        assert_eq!(&TEXT[spans.key("plugins.csv.grants.files[0]")], "csv");
        assert_eq!(spans.value("nothing"), 0..0);
    }

    #[test]
    fn text_that_is_not_yaml_does_no_harm() {
        let spans = Spans::of("p.yaml", "a: [1, 2\nb: {");
        assert_eq!(&"a: [1, 2\nb: {"[spans.value("a[0]")], "1");
    }
}
