//! `sandcast access principals`.

use clap::Subcommand;
use jiff::Timestamp;
use sandcast_access::{Action, Principal, PrincipalId, Resource, Role};

use super::{allowed, failed, moment, role_names, store};
use crate::{
    arguments::GlobalArguments,
    failure::{Exit, Failure},
    output::Output,
    table::Table,
};

#[derive(Debug, Subcommand)]
pub(super) enum PrincipalsAction {
    /// Add one; its name is never used again
    Add {
        /// A name: lower case letters, digits, `.`, `_`, `@`, `-`
        principal: PrincipalId,
        /// operator, vendor, auditor or service; may be repeated
        #[arg(long = "role", value_name = "ROLE", required = true)]
        roles: Vec<Role>,
    },
    /// List them
    List,
    /// Have none of its tokens be good any more
    Disable {
        /// Who
        principal: PrincipalId,
    },
    /// Take that back; tokens that have ended meanwhile stay so
    Enable {
        /// Who
        principal: PrincipalId,
    },
}

pub(super) async fn execute(
    action: &PrincipalsAction,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let now = Timestamp::now();
    let changed = match action {
        PrincipalsAction::List => {
            let allowed = allowed(global, Action::AccessRead, &Resource::state()).await?;
            let all = store(&allowed)?.principals().map_err(failed)?;
            return list(&all, output);
        }
        PrincipalsAction::Add { principal, roles } => {
            let resource = Resource::principal(principal);
            let allowed = allowed(global, Action::PrincipalManage, &resource).await?;
            let roles = roles.iter().copied().collect();
            let audit = allowed.gate.audit();
            store(&allowed)?.add_principal(audit, principal, roles, now, allowed.who())
        }
        PrincipalsAction::Disable { principal } | PrincipalsAction::Enable { principal } => {
            let disabled = matches!(action, PrincipalsAction::Disable { .. });
            let resource = Resource::principal(principal);
            let allowed = allowed(global, Action::PrincipalManage, &resource).await?;
            let audit = allowed.gate.audit();
            store(&allowed)?.set_disabled(audit, principal, disabled, now, allowed.who())
        }
    };
    let principal = changed.map_err(failed)?;
    if output.wants_json() {
        output.json(&principal)?;
    } else {
        let standing = match principal.disabled {
            Some(_) => "disabled",
            None => "enabled",
        };
        output.line(format_args!(
            "{}  {}  {standing}",
            principal.id,
            role_names(&principal.roles)
        ))?;
    }
    Ok(Exit::Done)
}

fn list(all: &[Principal], output: &Output) -> Result<Exit, Failure> {
    if output.wants_json() {
        output.json(&all)?;
        return Ok(Exit::Done);
    }
    let mut table = Table::with_headings(["principal", "roles", "since", "disabled since"]);
    for principal in all {
        table.row([
            principal.id.to_string(),
            role_names(&principal.roles),
            moment(principal.created),
            principal.disabled.map_or_else(String::new, moment),
        ]);
    }
    output.line(table)?;
    Ok(Exit::Done)
}
