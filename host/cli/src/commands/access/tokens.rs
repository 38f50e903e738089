//! `sandcast access tokens`.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
};

use clap::Subcommand;
use jiff::Timestamp;
use sandcast_access::{
    Action, DEFAULT_LIFETIME_DAYS, IssuedToken, PrincipalId, Resource, TokenId, TokenRecord,
};

use super::{allowed, failed, moment, store};
use crate::{
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
        /// Days that the new one is good for, 366 at most
        #[arg(long, value_name = "N", default_value_t = DEFAULT_LIFETIME_DAYS)]
        days: u16,
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
            check_target(to.as_deref())?;
            let resource = Resource::principal(principal);
            let allowed = allowed(global, Action::TokenIssue, &resource).await?;
            let issued = store(&allowed)?
                .issue_token(allowed.gate.audit(), principal, *days, now, allowed.who())
                .map_err(failed)?;
            hand_over(&issued, to.as_deref(), output)
        }
        TokensAction::Rotate {
            token,
            days,
            overlap_hours,
            to,
        } => {
            check_target(to.as_deref())?;
            let resource = Resource::principal(&owner(token, global)?);
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
            hand_over(&issued, to.as_deref(), output)
        }
        TokensAction::Revoke { token } => {
            let resource = Resource::principal(&owner(token, global)?);
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

/// Whose a token is: what may be done to it depends on that.
fn owner(token: &TokenId, global: &GlobalArguments) -> Result<PrincipalId, Failure> {
    let folder = super::folder(global)?;
    let store = sandcast_access::Store::look(&folder).map_err(failed)?;
    let tokens = match store {
        Some(store) => store.tokens().map_err(failed)?,
        None => Vec::new(),
    };
    tokens
        .into_iter()
        .find(|record| record.id == *token)
        .map(|record| record.principal)
        .ok_or_else(|| failed(sandcast_access::AccessError::NoToken(token.clone())))
}

/// Whether a token could be written there, before there is one.
pub(super) fn check_target(to: Option<&Path>) -> Result<(), Failure> {
    match to {
        Some(path) if path.exists() => Err(Failure::rejected_because(
            format_args!("{} is there already", path.display()),
            "name a new file",
        )),
        _ => Ok(()),
    }
}

/// Gives a new token to whoever asked for it, once.
pub(super) fn hand_over(
    issued: &IssuedToken,
    to: Option<&Path>,
    output: &Output,
) -> Result<Exit, Failure> {
    let record = &issued.record;
    let token = issued.token.reveal();
    if let Some(path) = to {
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let written = options
            .open(path)
            .and_then(|mut file| writeln!(file, "{token}"));
        written.map_err(|error| {
            Failure::rejected_because(
                format_args!(
                    "the token {} cannot be written to {}: {error}",
                    record.id,
                    path.display()
                ),
                format_args!("sandcast access tokens revoke {}", record.id),
            )
        })?;
    }
    if output.wants_json() {
        let mut value = serde_json::json!({
            "principal": record.principal, "id": record.id, "expires": record.expires,
        });
        match to {
            Some(path) => value["file"] = path.display().to_string().into(),
            None => value["token"] = token.into(),
        }
        output.json(&value)?;
        return Ok(Exit::Done);
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
    Ok(Exit::Done)
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
