//! `sandcast access`: who may do what.

mod initialise;
mod policies;
mod principals;
mod tokens;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use sandcast_access::{Action, GateError, PrincipalId, Resource, Role, Store};
use sandcast_audit::AuditLog;

use crate::{
    access::{self, Allowed, refused},
    arguments::GlobalArguments,
    failure::{Exit, Failure},
    output::Output,
    state,
};

const EXAMPLES: &str = "\
Examples:
  sandcast build plugins/policy-cedar                      what evaluates the policies
  sandcast access init ann --cedar plugins/policy-cedar --to ann.token
  export SANDCAST_TOKEN=$(cat ann.token)                   from now on every command needs one
  sandcast access principals add bob --role operator
  sandcast access principals add bank-app --role service
  sandcast access tokens issue bank-app --days 30 --to bank-app.token
  sandcast access can bank-app predict model:credit-risk
  sandcast access policies show > policies.cedar           a start for your own
  sandcast access key rotate                               after somebody has seen access.key
  sandcast access tokens rotate 0a1b2c3d4e5f6071 --overlap-hours 24 --to new.token

Until `init` a state belongs to whoever is at the machine. Then every command that looks into it or
changes it needs a token (SANDCAST_TOKEN, or --token-file), is held to the policies, and is an entry
of the audit log, with who, what, by which policies, and whether it was allowed. Whoever can write the
state folder itself is not held by that: keep it to the account that runs the server.";

/// Set up and change who may do what
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AccessArguments {
    #[command(subcommand)]
    action: AccessAction,
}

#[derive(Debug, Subcommand)]
enum AccessAction {
    /// Set access up: a first operator, and what needs a second person
    Init(initialise::InitArguments),
    /// Who is known here
    #[command(subcommand)]
    Principals(principals::PrincipalsAction),
    /// What they show to be who they are
    #[command(subcommand)]
    Tokens(tokens::TokensAction),
    /// What they may do
    #[command(subcommand)]
    Policies(policies::PoliciesAction),
    /// The key that seals who may do what
    #[command(subcommand)]
    Key(KeyAction),
    /// Whose token this is
    Whoami,
    /// Whether somebody may do something; nothing is done and nothing recorded but the question
    Can(CanArguments),
}

#[derive(Debug, Subcommand)]
enum KeyAction {
    /// Seal everything anew with another key; the old one is worth nothing then
    Rotate,
}

#[derive(Debug, Args)]
struct CanArguments {
    /// A principal
    principal: PrincipalId,
    /// What, such as promote
    action: Action,
    /// To what, such as model:credit-risk
    #[arg(default_value = "state:here")]
    resource: Resource,
}

pub(crate) async fn execute(
    arguments: &AccessArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    match &arguments.action {
        AccessAction::Init(arguments) => initialise::execute(arguments, global, output).await,
        AccessAction::Principals(action) => principals::execute(action, global, output).await,
        AccessAction::Tokens(action) => tokens::execute(action, global, output).await,
        AccessAction::Policies(action) => policies::execute(action, global, output).await,
        AccessAction::Key(KeyAction::Rotate) => rotate_key(global, output).await,
        AccessAction::Whoami => who_am_i(global, output),
        AccessAction::Can(arguments) => can(arguments, global, output).await,
    }
}

/// The state folder, in which access must be set up.
fn folder(global: &GlobalArguments) -> Result<PathBuf, Failure> {
    let folder = state::nearest(global.state.as_deref())?;
    if Store::is_there(&folder) {
        return Ok(folder);
    }
    Err(Failure::rejected_because(
        format_args!("access is not set up in {}", folder.display()),
        "sandcast access init NAME --cedar plugins/policy-cedar",
    ))
}

/// Lets a call about access through.
async fn allowed(
    global: &GlobalArguments,
    action: Action,
    resource: &Resource,
) -> Result<Allowed, Failure> {
    access::demand(global, &folder(global)?, action, resource, None).await
}

/// The store of a state where access is set up.
fn store(allowed: &Allowed) -> Result<&Store, Failure> {
    let folder = PathBuf::from(".");
    allowed
        .store()
        .ok_or_else(|| refused(sandcast_access::AccessError::NotInitialised(folder)))
}

fn who_am_i(global: &GlobalArguments, output: &Output) -> Result<Exit, Failure> {
    let folder = state::nearest(global.state.as_deref())?;
    if !Store::is_there(&folder) {
        let name = access::nobody_asked();
        if output.wants_json() {
            output.json(&serde_json::json!({ "principal": name, "roles": [], "token": null }))?;
        } else {
            output.line(format_args!("{name}  (access is not set up)"))?;
        }
        return Ok(Exit::Done);
    }
    let gate = access::gate(&folder, AuditLog::open(&folder.join("audit"))?)?;
    let token = access::token(global)?;
    let (principal, token) = gate
        .authenticate(token.as_deref(), Timestamp::now())
        .map_err(refused)?;
    if output.wants_json() {
        output.json(&serde_json::json!({
            "principal": principal.id, "roles": principal.roles, "token": token,
        }))?;
    } else {
        let roles: Vec<&str> = principal.roles.iter().map(|role| role.as_str()).collect();
        output.line(format_args!(
            "{}  {}  token {token}",
            principal.id,
            roles.join(", ")
        ))?;
    }
    Ok(Exit::Done)
}

async fn can(
    arguments: &CanArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let allowed = allowed(global, Action::AccessRead, &Resource::state()).await?;
    let principal = store(&allowed)?
        .principal(&arguments.principal)
        .map_err(refused)?;
    let mut verdict = allowed
        .gate
        .verdict_on(
            principal.id.as_str(),
            principal.roles,
            arguments.action,
            &arguments.resource,
            Default::default(),
        )
        .await
        .map_err(refused)?;
    if principal.disabled.is_some() {
        verdict.allowed = false;
        verdict.reasons = vec![format!("`{}` is disabled", principal.id)];
    }
    if output.wants_json() {
        output.json(&verdict)?;
    } else {
        let word = if verdict.allowed { "yes" } else { "no" };
        output.line(format_args!("{word}: {}", verdict.reasons.join("; ")))?;
    }
    Ok(match verdict.allowed {
        true => Exit::Done,
        false => Exit::Rejected,
    })
}

async fn rotate_key(global: &GlobalArguments, output: &Output) -> Result<Exit, Failure> {
    let allowed = allowed(global, Action::KeyRotate, &Resource::state()).await?;
    store(&allowed)?
        .rotate_key(allowed.gate.audit(), allowed.who())
        .map_err(failed)?;
    if output.wants_json() {
        output.json(&serde_json::json!({ "rotated": true }))?;
    } else {
        output.line("rotated: every row of access.sqlite is sealed with a new access.key")?;
    }
    output.note("keep a copy of access.key together with one of access.sqlite; earlier copies go together, too");
    Ok(Exit::Done)
}

/// What is wrong with a call about access.
fn failed(error: sandcast_access::AccessError) -> Failure {
    refused(GateError::from(error))
}

/// A day and a time for people.
fn moment(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M").to_string()
}

fn role_names(roles: &std::collections::BTreeSet<Role>) -> String {
    let words: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
    words.join(", ")
}
