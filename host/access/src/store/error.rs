use std::io;
use std::path::PathBuf;

use sandcast_audit::AuditError;
use thiserror::Error;

use super::MOST_ROWS;
use crate::{PrincipalId, TokenId};

/// Why something about access was not done.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AccessError {
    /// A file cannot be used.
    #[error("cannot use {}, so nothing is allowed; make it readable and writable for the owner of the state", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The database cannot be used.
    #[error("cannot {what} in access.sqlite, so nothing is allowed")]
    Database {
        /// What was being done.
        what: &'static str,
        /// Why not.
        source: rusqlite::Error,
    },
    /// A row is not as it was written.
    #[error(
        "the row `{id}` of {table} in access.sqlite is not as this host wrote it, so nothing is allowed; somebody changed it by hand, or access.key is another one: keep the file as evidence and restore both from a copy"
    )]
    Tampered {
        /// The table.
        table: &'static str,
        /// The row.
        id: String,
    },
    /// The state was set up, and what was set up is gone.
    #[error("access was set up in {}, and {what} is gone, so nothing is allowed; restore it from a copy", folder.display())]
    Gone {
        /// The state folder.
        folder: PathBuf,
        /// What is gone.
        what: &'static str,
    },
    /// The database is of a later version.
    #[error("access.sqlite was written by a later version of Sandcast")]
    Newer,
    /// An earlier version was cut off before it had told the audit log of a change.
    #[error(
        "access.sqlite is of an earlier version of Sandcast, which was cut off before {0} of its events were in the audit log; `sandcast access whoami` of that version puts them there, and then this one takes over"
    )]
    Waiting(i64),
    /// Access is not set up.
    #[error("access is not set up in {}; `sandcast access init` does that", .0.display())]
    NotInitialised(PathBuf),
    /// Access is set up already.
    #[error("access is set up in {} already; `sandcast access principals add` makes more principals", .0.display())]
    Initialised(PathBuf),
    /// A file of policies cannot be read.
    #[error("cannot read the policies {}, so nothing is allowed; mend the file, or take it away to have the shipped ones", path.display())]
    Policies {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no such principal.
    #[error("there is no principal `{0}`; `sandcast access principals list` lists them")]
    NoPrincipal(String),
    /// There is such a principal.
    #[error("there is a principal `{0}` already; names are never used again")]
    Taken(PrincipalId),
    /// A principal needs a role.
    #[error("a principal needs a role; say --role operator, vendor, auditor or service")]
    NoRole,
    /// The principal is disabled.
    #[error("`{0}` is disabled; `sandcast access principals enable {0}` changes that")]
    Disabled(PrincipalId),
    /// Nobody could manage anything any more.
    #[error("`{0}` is the last operator who is not disabled; add another one first")]
    LastOperator(PrincipalId),
    /// There is no such token, or it has ended.
    #[error("there is no token `{0}` that is still good; `sandcast access tokens list` lists them")]
    NoToken(TokenId),
    /// A time is not within its bounds.
    #[error("{what} is between 1 and {most}")]
    OutOfBounds {
        /// Which.
        what: &'static str,
        /// The most it may be.
        most: u16,
    },
    /// Somebody would have a token for longer than they were given one.
    #[error("the token was made for {most} days, and only an operator makes another one for more")]
    LongerThanBefore {
        /// The days of the old one.
        most: u16,
    },
    /// Nobody would have the first token.
    #[error("the first token cannot be handed over, so access was not set up: {0}")]
    HandOver(io::Error),
    /// There are too many.
    #[error("there are {MOST_ROWS} {0} already, which is the most that are kept")]
    TooMany(&'static str),
    /// There is no such request.
    #[error("there is no approval `{0}`; `sandcast approvals list` lists them")]
    NoApproval(String),
    /// A request is not open any more.
    #[error("approval {id} is {status}, so there is nothing to decide")]
    NotPending {
        /// The request.
        id: String,
        /// What it is.
        status: &'static str,
    },
    /// Whoever asks cannot be the one who approves.
    #[error("`{0}` asked for this, and it takes another principal to decide it")]
    SelfApproval(String),
    /// The system has no random numbers.
    #[error("the system has no random numbers: {0}")]
    Random(getrandom::Error),
    /// The audit log cannot be written, so nothing is done.
    #[error(transparent)]
    Audit(#[from] AuditError),
}
