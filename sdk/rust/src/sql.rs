//! Questions to databases, over the connections that the operator grants.
//!
//! What varies in a statement is a parameter beside it, never part of its text. An answer is a batch;
//! it is whole, or it is a failure.
//!
//! ```no_run
//! use sandcast_sdk::sql;
//!
//! # fn main() -> Result<(), sandcast_sdk::Failure> {
//! let orders = sql::query(
//!     "warehouse",
//!     "SELECT id, amount FROM orders WHERE region = ?1 AND amount > ?2",
//!     &["north".into(), 100_i64.into()],
//! )?;
//! let amounts = orders.column(1)?;
//! # let _ = amounts;
//! # Ok(()) }
//! ```

use crate::bindings::imports::sandcast::plugin::sql;
use crate::{Batch, Failure};

pub use crate::bindings::imports::sandcast::plugin::sql::Parameter;

/// Asks one statement over a connection. Where the grant lists statements, `statement` is the name of
/// one of them.
///
/// # Errors
/// `denied` when no grant covers it or it does more than read, `exhausted` when a bound is reached,
/// `invalid-input` when the database does not understand it, `unavailable` when the database does not
/// answer.
pub fn query(
    connection: &str,
    statement: &str,
    parameters: &[Parameter],
) -> Result<Batch, Failure> {
    sql::query(connection, statement, parameters)
}

impl From<bool> for Parameter {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<i64> for Parameter {
    fn from(value: i64) -> Self {
        Self::Int64(value)
    }
}

impl From<f64> for Parameter {
    fn from(value: f64) -> Self {
        Self::Float64(value)
    }
}

impl From<&str> for Parameter {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Parameter {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<Vec<u8>> for Parameter {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(value)
    }
}

impl<T: Into<Parameter>> From<Option<T>> for Parameter {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}
