//! Expected failures.

pub use crate::bindings::imports::sandcast::plugin::types::{Failure, FailureCode};

impl Failure {
    /// A failure with a message that says what and where.
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
        }
    }

    /// The configuration does not make sense. `key` is its path, such as `columns.age.type`.
    ///
    /// ```
    /// use sandcast_sdk::{Failure, FailureCode};
    ///
    /// let failure = Failure::invalid_config("delimiter", "`ab` is more than one byte")
    ///     .hint("use one byte, such as `;`");
    /// assert_eq!(failure.code, FailureCode::InvalidConfig);
    /// assert_eq!(failure.message, "`delimiter`: `ab` is more than one byte");
    /// ```
    pub fn invalid_config(key: &str, message: impl std::fmt::Display) -> Self {
        Self::new(FailureCode::InvalidConfig, format!("`{key}`: {message}"))
    }

    /// The data does not make sense.
    pub fn invalid_input(message: impl Into<String>) -> Self {
        Self::new(FailureCode::InvalidInput, message)
    }

    /// The host refused something the plugin asked for.
    pub fn denied(message: impl Into<String>) -> Self {
        Self::new(FailureCode::Denied, message)
    }

    /// Something outside is missing or does not answer.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(FailureCode::Unavailable, message)
    }

    /// A bound was reached.
    pub fn exhausted(message: impl Into<String>) -> Self {
        Self::new(FailureCode::Exhausted, message)
    }

    /// The plugin does not do this.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(FailureCode::Unsupported, message)
    }

    /// Anything else.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(FailureCode::Internal, message)
    }

    /// Says what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<std::io::Error> for Failure {
    /// Keeps a failure that travelled through `std::io`, and maps the kinds of everything else.
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        let kind = error.kind();
        let message = error.to_string();
        if let Some(inner) = error.into_inner()
            && let Ok(failure) = inner.downcast::<Self>()
        {
            return *failure;
        }
        let code = match kind {
            ErrorKind::PermissionDenied => FailureCode::Denied,
            ErrorKind::NotFound | ErrorKind::Interrupted | ErrorKind::TimedOut => {
                FailureCode::Unavailable
            }
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => FailureCode::InvalidInput,
            ErrorKind::OutOfMemory | ErrorKind::FileTooLarge => FailureCode::Exhausted,
            ErrorKind::Unsupported => FailureCode::Unsupported,
            _ => FailureCode::Internal,
        };
        Self::new(code, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_errors_keep_the_failure_they_carry() {
        let failure = Failure::exhausted("too large").hint("raise `max_bytes`");
        let back = Failure::from(std::io::Error::other(failure));
        assert_eq!(back.code, FailureCode::Exhausted);
        assert_eq!(back.message, "too large");
        assert_eq!(back.hint.as_deref(), Some("raise `max_bytes`"));
    }

    #[test]
    fn io_errors_without_one_are_mapped_by_kind() {
        let missing = Failure::from(std::io::Error::new(
            std::io::ErrorKind::NotFound,
            "no `/data/x`",
        ));
        assert_eq!(missing.code, FailureCode::Unavailable);
        assert_eq!(missing.message, "no `/data/x`");
    }
}
