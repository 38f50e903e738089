//! `sandcast access tokens`.

use std::{
    fs::File,
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use clap::Subcommand;
use jiff::Timestamp;
use sandcast_access::{
    Action, DEFAULT_LIFETIME_DAYS, IssuedToken, PrincipalId, Resource, TokenId, TokenRecord,
};

use super::{allowed, failed, moment, store};
use crate::{
    access::must_be_known,
    arguments::GlobalArguments,
    failure::{Exit, Failure},
    output::Output,
    table::Table,
};

#[derive(Debug, Subcommand)]
pub(super) enum TokensAction {
    /// Make one for a principal; it is shown once
    Issue {
        /// Whose it is to be
        principal: PrincipalId,
        /// Days that it is good for, 366 at most
        #[arg(long, value_name = "N", default_value_t = DEFAULT_LIFETIME_DAYS)]
        days: u16,
        /// Write it to this new file, for its owner alone, and not to stdout
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Make one in the place of another, which is good for some hours more
    Rotate {
        /// The id of the old one
        token: TokenId,
        /// Days that the new one is good for, 366 at most [default: as many as the old one was]; more
        /// than that takes an operator
        #[arg(long, value_name = "N")]
        days: Option<u16>,
        /// Hours that both are good, 168 at most
        #[arg(long, value_name = "N", default_value_t = 1)]
        overlap_hours: u16,
        /// Write it to this new file, for its owner alone, and not to stdout
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// End one at once
    Revoke {
        /// Its id
        token: TokenId,
    },
    /// List them, without the tokens themselves
    List,
}

pub(super) async fn execute(
    action: &TokensAction,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let now = Timestamp::now();
    match action {
        TokensAction::List => {
            let allowed = allowed(global, Action::AccessRead, &Resource::state()).await?;
            list(&store(&allowed)?.tokens().map_err(failed)?, now, output)
        }
        TokensAction::Issue {
            principal,
            days,
            to,
        } => {
            let target = Target::open(to.as_deref())?;
            let resource = Resource::principal(principal);
            let allowed = allowed(global, Action::TokenIssue, &resource).await?;
            let issued = store(&allowed)?
                .issue_token(allowed.gate.audit(), principal, *days, now, allowed.who())
                .map_err(failed)?;
            hand_over(&issued, target, output)
        }
        TokensAction::Rotate {
            token,
            days,
            overlap_hours,
            to,
        } => {
            let target = Target::open(to.as_deref())?;
            let resource = holder(token, Action::TokenRotate, global).await?;
            let allowed = allowed(global, Action::TokenRotate, &resource).await?;
            let issued = store(&allowed)?
                .rotate_token(
                    allowed.gate.audit(),
                    token,
                    *days,
                    *overlap_hours,
                    now,
                    allowed.who(),
                )
                .map_err(failed)?;
            hand_over(&issued, target, output)
        }
        TokensAction::Revoke { token } => {
            let resource = holder(token, Action::TokenRevoke, global).await?;
            let allowed = allowed(global, Action::TokenRevoke, &resource).await?;
            let record = store(&allowed)?
                .revoke_token(allowed.gate.audit(), token, now, allowed.who())
                .map_err(failed)?;
            if output.wants_json() {
                output.json(&record)?;
            } else {
                output.line(format_args!(
                    "{} of {}: revoked",
                    record.id, record.principal
                ))?;
            }
            Ok(Exit::Done)
        }
    }
}

/// Whose a token is: what may be done to it depends on that. Nobody is told who is not known, and who asks
/// for one that is not there is on record with it.
async fn holder(
    token: &TokenId,
    action: Action,
    global: &GlobalArguments,
) -> Result<Resource, Failure> {
    let folder = super::folder(global)?;
    must_be_known(global, &folder, action).await?;
    let store = sandcast_access::Store::look(&folder).map_err(failed)?;
    let tokens = match store {
        Some(store) => store.tokens().map_err(failed)?,
        None => Vec::new(),
    };
    let record = tokens.into_iter().find(|record| record.id == *token);
    Ok(match record {
        Some(record) => Resource::principal(&record.principal),
        None => Resource::holder_of(token),
    })
}

/// A new file for a token, made before there is one: what cannot be written is found out in time. It
/// goes away again where no token came to it.
pub(super) struct Target {
    path: PathBuf,
    file: File,
    is_written: bool,
}

impl Target {
    /// Makes the file, for its owner alone, where one is named.
    pub(super) fn open(to: Option<&Path>) -> Result<Option<Self>, Failure> {
        let Some(path) = to else {
            return Ok(None);
        };
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => Failure::rejected_because(
                format_args!("{} is there already", path.display()),
                "name a new file",
            ),
            _ => Failure::rejected_because(
                format_args!("a token cannot be written to {}: {error}", path.display()),
                "name a file in a folder that is there and that you may write",
            ),
        })?;
        Ok(Some(Self {
            path: path.to_path_buf(),
            file,
            is_written: false,
        }))
    }

    fn write(&mut self, token: &str) -> io::Result<()> {
        writeln!(self.file, "{token}")?;
        self.file.sync_all()?;
        self.is_written = true;
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.is_written {
            // Nothing is in it that anybody needs.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Gives a token to whoever asked for it before it is good: where the file does not take it, that is an
/// error, and there is no token.
pub(super) fn hand_over_first(
    issued: &IssuedToken,
    mut target: Option<Target>,
    output: &Output,
) -> Result<(), Failure> {
    if let Some(file) = &mut target {
        file.write(&issued.token.reveal())?;
    }
    let told = tell(issued, target.as_ref(), output);
    if told.is_err()
        && let Some(file) = &mut target
    {
        // There will be no such token.
        file.is_written = false;
    }
    told
}

/// Gives a new token to whoever asked for it, once. Where the file does not take it, it is shown: it
/// is good from now on, and nobody else has it.
pub(super) fn hand_over(
    issued: &IssuedToken,
    mut target: Option<Target>,
    output: &Output,
) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    if let Some(file) = &mut target
        && let Err(error) = file.write(&issued.token.reveal())
    {
        output.warn(format_args!(
            "the token {} cannot be written to {}, so it is shown: {error}",
            issued.record.id,
            file.path.display()
        ));
        target = None;
        exit = Exit::Rejected;
    }
    tell(issued, target.as_ref(), output)?;
    Ok(exit)
}

/// Shows a token, or says where it is.
fn tell(issued: &IssuedToken, target: Option<&Target>, output: &Output) -> Result<(), Failure> {
    let record = &issued.record;
    let token = issued.token.reveal();
    let to = target.map(|target| target.path.as_path());
    if output.wants_json() {
        let mut value = serde_json::json!({
            "principal": record.principal, "id": record.id, "expires": record.expires,
        });
        match to {
            Some(path) => value["file"] = path.display().to_string().into(),
            None => value["token"] = token.into(),
        }
        output.json(&value)?;
        return Ok(());
    }
    match to {
        Some(path) => output.line(path.display())?,
        None => output.line(token)?,
    }
    output.note(format_args!(
        "this is the token {} of {}, good until {}; it is not shown again",
        record.id,
        record.principal,
        moment(record.expires)
    ));
    Ok(())
}

fn list(all: &[TokenRecord], now: Timestamp, output: &Output) -> Result<Exit, Failure> {
    if output.wants_json() {
        output.json(&all)?;
        return Ok(Exit::Done);
    }
    let mut table =
        Table::with_headings(["token", "principal", "since", "until", "last used", "is"]);
    for record in all {
        let is = match (record.revoked, &record.replaced_by) {
            (Some(_), _) => "revoked".to_owned(),
            (None, _) if now >= record.expires => "expired".to_owned(),
            (None, Some(by)) => format!("replaced by {by}"),
            (None, None) => "good".to_owned(),
        };
        table.row([
            record.id.to_string(),
            record.principal.to_string(),
            moment(record.created),
            moment(record.expires),
            record.last_used.map_or_else(|| "never".to_owned(), moment),
            is,
        ]);
    }
    output.line(table)?;
    Ok(Exit::Done)
}
