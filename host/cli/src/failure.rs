//! How a command ends.

use std::{error::Error, fmt, io, process::ExitCode};

use miette::{Diagnostic, Report};

/// What the shell is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: done.
    Done,
    /// 1: the input, a policy or the gate said no.
    Rejected,
    /// 2: anything else.
    Unexpected,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Rejected => 1,
            Exit::Unexpected => 2,
        })
    }
}

/// An error on its way to the terminal. With `?` any error becomes an unexpected one;
/// [`OrReject::or_reject`] says that the input is at fault.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) report: Report,
    /// Nobody reads stdout any more; there is nothing to say and nobody to say it to.
    pub(crate) reader_left: bool,
}

impl Failure {
    /// The input is at fault.
    pub(crate) fn rejected(diagnostic: impl Diagnostic + Send + Sync + 'static) -> Self {
        Self {
            exit: Exit::Rejected,
            report: Report::new(diagnostic),
            reader_left: false,
        }
    }

    /// The input is at fault, in words of the command's own.
    pub(crate) fn rejected_because(message: impl fmt::Display, help: impl fmt::Display) -> Self {
        Self::rejected(Said {
            message: message.to_string(),
            help: Some(help.to_string()),
        })
    }

    /// The same failure, as one that the input is to blame for.
    pub(crate) fn into_rejection(self) -> Self {
        Self {
            exit: Exit::Rejected,
            ..self
        }
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let reader_left = (&error as &dyn Error)
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        Self {
            exit: Exit::Unexpected,
            report: miette::IntoDiagnostic::into_diagnostic(Err::<(), E>(error))
                .err()
                .unwrap_or_else(|| Report::msg("unknown failure")),
            reader_left,
        }
    }
}

/// Says that an error is the input's fault.
pub(crate) trait OrReject<T> {
    /// Ends the command with exit code 1 in case of an error.
    fn or_reject(self) -> Result<T, Failure>;
}

impl<T, E: Error + Send + Sync + 'static> OrReject<T> for Result<T, E> {
    fn or_reject(self) -> Result<T, Failure> {
        self.map_err(|error| Failure::from(error).into_rejection())
    }
}

#[derive(Debug)]
struct Said {
    message: String,
    help: Option<String>,
}

impl fmt::Display for Said {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl Error for Said {}

impl Diagnostic for Said {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help
            .as_ref()
            .map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }
}
