//! Reads a pipeline file: bounded, parsed, checked, resolved.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use sandcast_audit::Digest;
use serde_saphyr::options::DuplicateKeyPolicy;

use super::diagnostic::{ConfigError, Problem};
use super::spans::Spans;
use super::{PIPELINE_FILE, Pipeline, Sections, grants, includes, references};

/// The largest pipeline file that is read.
const MAX_PIPELINE_BYTES: u64 = 1 << 20;

impl Pipeline {
    /// Reads and checks a pipeline file, or the `pipeline.yaml` of a folder.
    ///
    /// # Errors
    /// If the file cannot be read, or does not make sense; every problem that was found is told.
    pub fn load(path: &Path) -> Result<Pipeline, ConfigError> {
        let path = if path.is_dir() {
            path.join(PIPELINE_FILE)
        } else {
            path.to_path_buf()
        };
        let read = |source| ConfigError::Read {
            path: path.clone(),
            source,
        };
        let mut text = String::new();
        let file = File::open(&path).map_err(read)?;
        let size = file.metadata().map_err(read)?.len();
        file.take(MAX_PIPELINE_BYTES + 1)
            .read_to_string(&mut text)
            .map_err(read)?;
        if text.len() as u64 > MAX_PIPELINE_BYTES {
            return Err(ConfigError::TooLarge {
                path,
                bytes: size,
                limit_bytes: MAX_PIPELINE_BYTES,
            });
        }
        Pipeline::parse(&text, &path)
    }

    /// Checks the text of a pipeline file that is, or would be, at `path`.
    ///
    /// # Errors
    /// If the text does not make sense.
    pub fn parse(text: &str, path: &Path) -> Result<Pipeline, ConfigError> {
        let source = Spans::of(&path.display().to_string(), text);
        let written: Sections =
            serde_saphyr::from_str_with_options(text, reading()).map_err(|error| {
                ConfigError::invalid(&source, vec![Problem::of_yaml(&source, &error)])
            })?;
        let read = |error| ConfigError::Read {
            path: path.to_path_buf(),
            source: error,
        };
        let path: PathBuf = std::path::absolute(path).map_err(read)?;
        let folder = path.parent().unwrap_or(Path::new("/")).to_path_buf();

        let mut problems = references::check(&written, &source);
        let mut sections = written;
        problems.extend(includes::resolve(&mut sections, &folder, &source));
        let canonical = canonical(&sections);
        problems.extend(grants::resolve(&mut sections, &folder, &source));
        if problems.is_empty() {
            Ok(Pipeline {
                sections,
                path,
                folder,
                digest: Digest::of(&canonical),
                canonical: canonical.into(),
                source,
            })
        } else {
            problems.sort_by_key(|problem| (problem.line, problem.column));
            Err(ConfigError::invalid(&source, problems))
        }
    }

    /// A mistake that showed only later, such as a column that the data does not have, told as if
    /// it had been found here.
    pub(crate) fn problem_at(&self, path: &str, message: &str, help: Option<String>) -> Problem {
        let mut problem = Problem::at(&self.source, self.source.value(path), message);
        problem.help = help;
        problem
    }
}

/// What a file says, in one form. Maps are sorted, so the order of keys does not matter.
fn canonical(sections: &Sections) -> Vec<u8> {
    // A value of these types always has a JSON form: string keys, no infinite numbers from YAML.
    serde_json::to_vec(sections).unwrap_or_default()
}

/// How YAML is read: no surprises, and no more than a pipeline needs.
pub(super) fn reading() -> serde_saphyr::Options {
    serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::Error,
        strict_booleans: true,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_depth: 32,
            flow_nesting_limit: 32,
            max_documents: 1,
            max_events: 200_000,
            max_nodes: 50_000,
            max_aliases: 100,
            max_anchors: 100,
            max_merge_keys: 100,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 50_000,
            max_replay_stack_depth: 8,
        },
    }
}
