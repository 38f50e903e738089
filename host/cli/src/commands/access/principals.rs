//! `sandcast access principals`.

use std::num::{NonZeroU32, NonZeroU64};

use clap::Subcommand;
use jiff::Timestamp;
use sandcast_access::{Action, Budget, Principal, PrincipalId, Resource, Role};

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
    /// Say what one may take of a server; what is not said is not bounded any more
    Budget {
        /// Who
        principal: PrincipalId,
        /// Requests to models in a minute
        #[arg(long, value_name = "N")]
        requests_per_minute: Option<NonZeroU32>,
        /// Rows that are predicted, or texts that are written, in a minute
        #[arg(long, value_name = "N")]
        rows_per_minute: Option<NonZeroU64>,
        /// Requests that are answered at one time
        #[arg(long, value_name = "N")]
        at_once: Option<NonZeroU32>,
    },
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
        PrincipalsAction::Budget {
            principal,
            requests_per_minute,
            rows_per_minute,
            at_once,
        } => {
            let budget = Budget {
                requests_per_minute: *requests_per_minute,
                rows_per_minute: *rows_per_minute,
                at_once: *at_once,
            };
            let resource = Resource::principal(principal);
            let allowed = allowed(global, Action::PrincipalManage, &resource).await?;
            let audit = allowed.gate.audit();
            store(&allowed)?.set_budget(audit, principal, budget, allowed.who())
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
            "{}  {}  {standing}  {}",
            principal.id,
            role_names(&principal.roles),
            principal.budget
        ))?;
    }
    Ok(Exit::Done)
}

fn list(all: &[Principal], output: &Output) -> Result<Exit, Failure> {
    if output.wants_json() {
        output.json(&all)?;
        return Ok(Exit::Done);
    }
    let mut table =
        Table::with_headings(["principal", "roles", "since", "disabled since", "budget"]);
    for principal in all {
        table.row([
            principal.id.to_string(),
            role_names(&principal.roles),
            moment(principal.created),
            principal.disabled.map_or_else(String::new, moment),
            principal.budget.to_string(),
        ]);
    }
    output.line(table)?;
    Ok(Exit::Done)
}
