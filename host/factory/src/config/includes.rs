//! Files that the configuration of a policy names are read by the host, so that a policy needs no
//! grant to read what the operator wrote; and roots of trust are put into the rules that name them.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde_json::Value;

use super::Sections;
use super::diagnostic::Problem;
use super::grants::inside;
use super::spans::Spans;

/// The largest file that is put into a configuration.
const MAX_INCLUDED_BYTES: u64 = 1 << 20;

/// The key that names a file.
const FILE: &str = "file";

/// The key under which the text of `file` arrives.
const POLICIES: &str = "policies";

/// Puts the files in. What cannot be read is a problem.
pub(super) fn resolve(sections: &mut Sections, folder: &Path, source: &Spans) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (role, rule) in &mut sections.trust {
        let put = rule.put_roots_in(*role, |file| text_of(file, folder));
        if let Err(problem) = put {
            let place = source.value(&problem.path);
            problems.push(Problem::at(source, place, problem.message).with_help(problem.help));
        }
    }
    for (index, policy) in sections.policies.iter_mut().enumerate() {
        let path = format!("policies[{index}].config");
        let Value::Object(config) = &mut policy.config else {
            continue;
        };
        for (key, value) in config.iter_mut().filter(|(key, _)| *key != FILE) {
            put_in(
                value,
                &format!("{path}.{key}"),
                folder,
                source,
                &mut problems,
            );
        }
        let Some(Value::String(file)) = config.get(FILE) else {
            continue;
        };
        match text_of(file, folder) {
            Ok(text) => {
                config.remove(FILE);
                let before = config
                    .get(POLICIES)
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                let all = if before.is_empty() {
                    text
                } else {
                    format!("{before}\n{text}")
                };
                config.insert(POLICIES.to_owned(), Value::String(all));
            }
            Err(message) => {
                let place = source.value(&format!("{path}.{FILE}"));
                problems.push(Problem::at(source, place, message));
            }
        }
    }
    problems
}

fn put_in(
    value: &mut Value,
    path: &str,
    folder: &Path,
    source: &Spans,
    problems: &mut Vec<Problem>,
) {
    match value {
        Value::Object(object) => {
            if let (1, Some(Value::String(file))) = (object.len(), object.get(FILE)) {
                let place = format!("{path}.{FILE}");
                match text_of(file, folder) {
                    Ok(text) => *value = Value::String(text),
                    Err(message) => {
                        problems.push(Problem::at(source, source.value(&place), message));
                    }
                }
                return;
            }
            for (key, inner) in object.iter_mut() {
                put_in(inner, &format!("{path}.{key}"), folder, source, problems);
            }
        }
        Value::Array(array) => {
            for (index, inner) in array.iter_mut().enumerate() {
                put_in(inner, &format!("{path}[{index}]"), folder, source, problems);
            }
        }
        _ => {}
    }
}

fn text_of(file: &str, folder: &Path) -> Result<String, String> {
    let path = inside(Path::new(file), folder)?;
    let cannot = |error: std::io::Error| format!("cannot read `{file}`: {error}");
    let mut text = String::new();
    File::open(&path)
        .map_err(cannot)?
        .take(MAX_INCLUDED_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(cannot)?;
    if text.len() as u64 > MAX_INCLUDED_BYTES {
        return Err(format!("`{file}` has more than {MAX_INCLUDED_BYTES} bytes"));
    }
    Ok(text)
}
