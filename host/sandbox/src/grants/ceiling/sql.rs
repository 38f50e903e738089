//! Questions to databases.

use std::path::Path;

use super::leads_nowhere;
use crate::grants::{PostgresServer, SqlConnection, SqlGrant, sql};

/// Says whether a grant can be one of a ceiling.
pub(super) fn check(at: &str, grant: &SqlGrant) -> Result<(), String> {
    sql::check(grant).map_err(|what| format!("{at}: {what}"))?;
    match &grant.to {
        None => Err(leads_nowhere(at)),
        Some(SqlConnection::Sqlite(path)) if !path.is_absolute() => {
            let path = path.display();
            Err(format!("{at}.to.sqlite: `{path}` is not absolute"))
        }
        Some(_) => Ok(()),
    }
}

pub(super) fn in_words(grant: &SqlGrant) -> String {
    let leads = grant.to.as_ref().map_or_else(
        || "nowhere".to_owned(),
        |to| to.in_words(&|path| path.display().to_string()),
    );
    let statements = match grant.statements.len() {
        0 => "any statement that reads".to_owned(),
        1 => "1 statement".to_owned(),
        many => format!("{many} statements"),
    };
    format!("{leads}, {statements}")
}

/// Whether every question that one grant allows is allowed by another, with no larger bounds. The
/// name of a connection is the pipeline's; what counts is where it leads.
pub(super) fn covers(most: &SqlGrant, asked: &SqlGrant) -> bool {
    let SqlGrant {
        connection: _,
        // There is only one.
        access: _,
        statements,
        rows,
        bytes,
        timeout,
        calls,
        to,
    } = asked;
    let is_there = match (to, &most.to) {
        (Some(asked), Some(most)) => leads_there(asked, most),
        _ => false,
    };
    // By their texts: a name is the pipeline's as well.
    let listed = |text: &String| most.statements.values().any(|known| known == text);
    let is_listed =
        most.statements.is_empty() || !statements.is_empty() && statements.values().all(listed);
    is_there
        && is_listed
        && rows <= &most.rows
        && bytes <= &most.bytes
        && timeout <= &most.timeout
        && calls <= &most.calls
}

fn leads_there(asked: &SqlConnection, most: &SqlConnection) -> bool {
    match (asked, most) {
        (SqlConnection::Sqlite(asked), SqlConnection::Sqlite(most)) => {
            let real = |path: &Path| path.canonicalize().ok();
            real(asked).is_some_and(|asked| real(most) == Some(asked))
        }
        (SqlConnection::Postgres(asked), SqlConnection::Postgres(most)) => {
            let PostgresServer {
                host,
                port,
                database,
                user,
                password,
                tls,
                certificate_authority,
                networks,
            } = asked;
            let is_network = networks
                .iter()
                .all(|network| most.networks.iter().any(|most| most.contains(network)));
            *host == most.host
                && *port == most.port
                && *database == most.database
                && *user == most.user
                && *password == most.password
                && (*tls || !most.tls)
                && *certificate_authority == most.certificate_authority
                && is_network
        }
        _ => false,
    }
}
