//! What is wrong with a pipeline file, where, and what to do about it.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};
use serde_saphyr::Error as YamlError;
use thiserror::Error;

use super::names::hint;
use super::spans::Spans;

/// Why a pipeline file was refused.
#[derive(Debug, Error, Diagnostic)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the pipeline {}: {source}", path.display())]
    #[diagnostic(help("give the path of a pipeline file, or of a folder with a `pipeline.yaml`"))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is too large to be a pipeline.
    #[error("{} has {bytes} bytes; a pipeline file may have {limit_bytes}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The largest size that is read.
        limit_bytes: u64,
    },
    /// What the file says does not make sense.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Invalid(Box<InvalidPipeline>),
}

impl ConfigError {
    /// The problems, for [`ConfigError::Invalid`].
    pub fn problems(&self) -> &[Problem] {
        match self {
            ConfigError::Invalid(invalid) => &invalid.problems,
            _ => &[],
        }
    }

    pub(crate) fn invalid(source: &Spans, problems: Vec<Problem>) -> ConfigError {
        ConfigError::Invalid(Box::new(InvalidPipeline {
            source: NamedSource::new(source.name(), source.text().to_string())
                .with_language("yaml"),
            name: source.name().to_owned(),
            problems,
        }))
    }
}

/// One or more problems of one pipeline file.
#[derive(Debug)]
pub struct InvalidPipeline {
    name: String,
    source: NamedSource<String>,
    problems: Vec<Problem>,
}

impl fmt::Display for InvalidPipeline {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.problems.first() else {
            return write!(formatter, "{} is not a pipeline", self.name);
        };
        write!(
            formatter,
            "{}:{}:{}: {first}",
            self.name, first.line, first.column
        )
    }
}

impl std::error::Error for InvalidPipeline {}

impl Diagnostic for InvalidPipeline {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problems.first().and_then(Diagnostic::help)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.problems.first().and_then(Diagnostic::labels)
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(
            self.problems
                .iter()
                .skip(1)
                .map(|problem| problem as &dyn Diagnostic),
        ))
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Where it is, from 1.
    pub line: usize,
    /// Where it is, in characters from 1.
    pub column: usize,
    /// The bytes it is about.
    pub bytes: Range<usize>,
}

impl Problem {
    /// A problem with what stands in `bytes`.
    pub(crate) fn at(source: &Spans, bytes: Range<usize>, message: impl Into<String>) -> Problem {
        let (line, column) = source.line_and_column(bytes.start);
        Problem {
            message: message.into(),
            help: None,
            line,
            column,
            bytes,
        }
    }

    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }

    /// What the YAML reader did not like.
    pub(crate) fn of_yaml(source: &Spans, error: &YamlError) -> Problem {
        let error = error.without_snippet();
        let bytes = error.location().map_or(0..0, |location| {
            let start = location.span().byte_offset().unwrap_or(0) as usize;
            let length = location.span().byte_len().unwrap_or(1) as usize;
            start..start + length
        });
        let problem = |message: String| Problem::at(source, bytes.clone(), message);
        match error {
            YamlError::SerdeUnknownField {
                field, expected, ..
            } => problem(format!("unknown key `{field}`")).with_help(hint(
                field,
                "keys here",
                expected.iter().copied(),
            )),
            YamlError::SerdeUnknownVariant {
                variant, expected, ..
            } => problem(format!("unknown value `{variant}`")).with_help(hint(
                variant,
                "values here",
                expected.iter().copied(),
            )),
            YamlError::SerdeMissingField { field, .. } => problem(format!("missing key `{field}`")),
            YamlError::SerdeInvalidType {
                unexpected,
                expected,
                ..
            }
            | YamlError::SerdeInvalidValue {
                unexpected,
                expected,
                ..
            } => problem(format!("expected {expected}, found {unexpected}")),
            YamlError::InvalidScalar { ty, .. } => problem(match *ty {
                "u8" | "u16" | "u32" | "u64" => "expected a whole number, from 0".to_owned(),
                "i8" | "i16" | "i32" | "i64" => "expected a whole number".to_owned(),
                "f32" | "f64" => "expected a number".to_owned(),
                other => format!("expected a value of the type {other}"),
            }),
            YamlError::InvalidBooleanStrict { .. } => problem("expected true or false".to_owned()),
            YamlError::DuplicateMappingKey { key, .. } => match key {
                Some(key) => problem(format!("the key `{key}` is there twice")),
                None => problem("a key is there twice".to_owned()),
            },
            YamlError::Message { msg, .. } => problem(msg.clone()),
            other => problem(without_place(&other.to_string())),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help
            .as_ref()
            .map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = LabeledSpan::new_with_span(
            Some("here".to_owned()),
            (self.bytes.start, self.bytes.len()),
        );
        Some(Box::new(std::iter::once(label)))
    }
}

/// The first line of a message without the place at its end, which is told anyway.
fn without_place(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    line.rfind(" at line ")
        .map_or(line, |at| &line[..at])
        .to_owned()
}
