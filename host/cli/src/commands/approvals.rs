//! `sandcast approvals`: what takes effect only when a second person has agreed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use sandcast_access::{
    AccessError, Action, Approval, ApprovalStatus, FourEyes, GateError, Resource, Store, Subject,
    Widened,
};
use sandcast_audit::AuditLog;
use sandcast_factory::{
    ApprovedMove, AskToPromote, Pipeline, Plan, Workspace, conduct::Conduct, run::PlanCheck,
};
use sandcast_sandbox::{Excess, Grants};

use crate::{
    access::{self, Allowed, refused},
    arguments::GlobalArguments,
    failure::{Exit, Failure, OrReject as _},
    output::Output,
    state,
    table::Table,
};

use super::build::shown;

const EXAMPLES: &str = "\
Examples:
  sandcast models alias credit-risk champion 2         asks; it is not done yet, so the exit code is 1
  sandcast run examples/credit-risk                    registers, and asks for its alias
  sandcast plugins release 9f8e7d6c --reason \"...\"     the same
  sandcast approvals widen examples/credit-risk        asks for what a pipeline grants, where it is more
                                                       than was approved last
  sandcast approvals                                   what waits
  sandcast approvals show 0a1b2c3d4e5f                 exactly what it is for, by digest
  sandcast approvals approve 0a1b2c3d4e5f --reason \"ticket 4711\"      somebody else; then it is done

A request is for exactly what it names: where that has changed by the time it is approved, it is void.
It waits for seven days. Whoever asked cannot approve, whatever their role.";

/// Ask for, approve or reject what takes a second person
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ApprovalsArguments {
    #[command(subcommand)]
    action: Option<ApprovalsAction>,
}

#[derive(Debug, Subcommand)]
enum ApprovalsAction {
    /// List them
    List {
        /// Those that have ended, too
        #[arg(long)]
        all: bool,
    },
    /// Show exactly what one is for
    Show {
        /// Its id
        approval: String,
    },
    /// Agree, and carry it out
    Approve(DecideArguments),
    /// Refuse
    Reject(DecideArguments),
    /// Ask for the grants of a pipeline that are wider than those that were approved last
    Widen {
        /// A pipeline file, or a folder with a pipeline.yaml
        #[arg(default_value = ".")]
        pipeline: PathBuf,
    },
    /// Carry out what was approved, and cut off before it was done
    Resume,
}

#[derive(Debug, Args)]
struct DecideArguments {
    /// The id of the request
    approval: String,
    /// Why; it stands in the audit log
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

pub(crate) async fn execute(
    arguments: &ApprovalsArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let now = Timestamp::now();
    if let Some(ApprovalsAction::Widen { pipeline }) = &arguments.action {
        return widen(pipeline, global, output).await;
    }
    let folder = state::nearest(global.state.as_deref())?;
    let looking = || access::demand(global, &folder, Action::AccessRead, &STATE, None);
    static STATE: std::sync::LazyLock<Resource> = std::sync::LazyLock::new(Resource::state);
    match &arguments.action {
        None => list(store(&looking().await?, &folder)?, false, now, output),
        Some(ApprovalsAction::List { all }) => {
            list(store(&looking().await?, &folder)?, *all, now, output)
        }
        Some(ApprovalsAction::Show { approval }) => {
            let allowed = looking().await?;
            let approval = store(&allowed, &folder)?
                .approval(approval, now)
                .map_err(refused)?;
            show(&approval, output)
        }
        Some(ApprovalsAction::Approve(it)) => decide(it, true, &folder, global, output).await,
        Some(ApprovalsAction::Reject(it)) => decide(it, false, &folder, global, output).await,
        Some(ApprovalsAction::Widen { .. }) => Ok(Exit::Done),
        Some(ApprovalsAction::Resume) => {
            let allowed = looking().await?;
            let store = store(&allowed, &folder)?;
            let left: Vec<Approval> = store
                .approvals(now)
                .map_err(refused)?
                .into_iter()
                .filter(|approval| approval.status == ApprovalStatus::Approved)
                .collect();
            let mut done = Vec::new();
            for approval in &left {
                let resource = Resource::approval(&approval.id);
                let digest = Some(approval.digest);
                access::demand(global, &folder, Action::Approve, &resource, digest).await?;
                let audit = allowed.gate.audit();
                done.push(carry_out(store, audit, &folder, &approval.id)?);
            }
            if output.wants_json() {
                output.json(&done)?;
            } else {
                for approval in &done {
                    tell(approval, output)?;
                }
                if done.is_empty() {
                    output.note("nothing was left to be done");
                }
            }
            let is_void = |it: &Approval| it.status == ApprovalStatus::Void;
            Ok(match done.iter().any(is_void) {
                true => Exit::Rejected,
                false => Exit::Done,
            })
        }
    }
}

/// The store of a state where access is set up.
fn store<'a>(allowed: &'a Allowed, folder: &Path) -> Result<&'a Store, Failure> {
    allowed.store().ok_or_else(|| {
        Failure::rejected_because(
            format_args!(
                "access is not set up in {}, so nothing takes a second person",
                folder.display()
            ),
            "sandcast access init NAME --cedar plugins/policy-cedar",
        )
    })
}

/// Asks a second person. What was wanted is not done until they approve, so the command is rejected.
pub(crate) fn ask(
    store: &Store,
    allowed: &Allowed,
    subject: Subject,
    output: &Output,
) -> Result<Exit, Failure> {
    let approval = store
        .request(
            allowed.gate.audit(),
            subject,
            allowed.who(),
            Timestamp::now(),
        )
        .map_err(refused)?;
    if output.wants_json() {
        output.json(&approval)?;
    } else {
        output.line(format_args!(
            "asked: {}  {}",
            approval.id,
            approval.subject.told()
        ))?;
        output.note(format_args!(
            "it is not done until somebody else says `sandcast approvals approve {} --reason TEXT`",
            approval.id
        ));
    }
    Ok(Exit::Rejected)
}

/// What is asked for where an alias is to move.
pub(crate) fn promotion(wanted: &ApprovedMove<'_>) -> Subject {
    Subject::Promote {
        model: wanted.model.to_owned(),
        alias: wanted.alias.to_owned(),
        from: wanted.from,
        to: wanted.to,
        model_digest: wanted.artifact,
        lineage: wanted.lineage,
    }
}

/// What asks a second person to let a run move the alias of its model, where that takes one.
pub(crate) fn ask_to_promote(
    allowed: &Allowed,
    workspace: &Workspace,
) -> Result<Option<AskToPromote>, Failure> {
    let Some(store) = allowed.second_person_for(FourEyes::Promote)?.cloned() else {
        return Ok(None);
    };
    let (audit, who) = (workspace.audit().clone(), allowed.who().to_owned());
    Ok(Some(Arc::new(move |wanted: &ApprovedMove<'_>| {
        let approval = store.request(&audit, promotion(wanted), &who, Timestamp::now());
        approval
            .map(|approval| approval.id)
            .map_err(|error| error.to_string())
    })))
}

async fn decide(
    arguments: &DecideArguments,
    approve: bool,
    folder: &Path,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let reason = arguments.reason.trim();
    if reason.is_empty() {
        return Err(Failure::rejected_because(
            "a decision about a request needs a reason",
            "say it with `--reason`",
        ));
    }
    let now = Timestamp::now();
    // What the policies are told of it. Nobody is told anything before they are known.
    let context = Store::look(folder)
        .map_err(refused)?
        .and_then(|store| store.approval(&arguments.approval, now).ok())
        .map_or_else(BTreeMap::new, |approval| {
            [
                ("digest", approval.digest.to_string()),
                ("kind", approval.subject.kind().as_str().to_owned()),
                ("requester", approval.requester),
            ]
            .map(|(key, value)| (key.to_owned(), value))
            .into()
        });
    let resource = Resource::approval(&arguments.approval);
    let audit = AuditLog::open(&folder.join("audit"))?;
    let allowed =
        access::demand_with(global, folder, audit, Action::Approve, &resource, context).await?;
    let store = store(&allowed, folder)?;
    let audit = allowed.gate.audit();
    let mut approval = store
        .decide(
            audit,
            &arguments.approval,
            approve,
            allowed.who(),
            reason,
            now,
        )
        .map_err(refused)?;
    if approval.status == ApprovalStatus::Approved {
        approval = carry_out(store, audit, folder, &approval.id)?;
    }
    tell(&approval, output)
}

/// What can go wrong when a request is carried out.
enum CarryOut {
    Access(AccessError),
    Other(Failure),
}

impl From<AccessError> for CarryOut {
    fn from(error: AccessError) -> Self {
        Self::Access(error)
    }
}

/// Does what was approved, once.
fn carry_out(
    store: &Store,
    audit: &AuditLog,
    folder: &Path,
    id: &str,
) -> Result<Approval, Failure> {
    let done = store.carry_out(audit, id, |approval| {
        effect(approval, folder).map_err(CarryOut::Other)
    });
    done.map_err(|error| match error {
        CarryOut::Access(error) => refused(GateError::from(error)),
        CarryOut::Other(failure) => {
            tracing::warn!(
                "`sandcast approvals resume` carries out what was approved and not done"
            );
            failure
        }
    })
}

/// Where a request is about something outside of the store.
fn effect(approval: &Approval, folder: &Path) -> Result<Result<(), String>, Failure> {
    let decider = approval.decider.as_deref().unwrap_or("nobody");
    match &approval.subject {
        Subject::Promote {
            model,
            alias,
            from,
            to,
            model_digest,
            lineage,
        } => {
            let wanted = ApprovedMove {
                model,
                alias,
                from: *from,
                to: *to,
                artifact: *model_digest,
                lineage: *lineage,
            };
            let workspace = Workspace::open(folder)?;
            Ok(workspace
                .registry()
                .set_alias_as_approved(&approval.id, &wanted)?)
        }
        Subject::Release {
            plugin,
            standing,
            reason,
        } => {
            let who = format!("{}, approved by {decider}", approval.requester);
            let conduct = Conduct::of_state(folder)?;
            Ok(conduct.release_as_approved(&approval.id, plugin, *standing, &who, reason)?)
        }
        // It took effect with the approval.
        Subject::Widen { .. } => Ok(Ok(())),
    }
}

fn tell(approval: &Approval, output: &Output) -> Result<Exit, Failure> {
    if output.wants_json() {
        output.json(approval)?;
    } else {
        output.line(format_args!(
            "{}: {}  {}",
            approval.id,
            approval.status.as_str(),
            approval.subject.told()
        ))?;
    }
    Ok(match approval.status {
        ApprovalStatus::Void => {
            output.warn(approval.reason.as_deref().unwrap_or_default());
            Exit::Rejected
        }
        _ => Exit::Done,
    })
}

fn list(store: &Store, all: bool, now: Timestamp, output: &Output) -> Result<Exit, Failure> {
    let open = |approval: &Approval| {
        matches!(
            approval.status,
            ApprovalStatus::Pending | ApprovalStatus::Approved
        )
    };
    let mut approvals = store.approvals(now).map_err(refused)?;
    approvals.retain(|approval| all || open(approval));
    if output.wants_json() {
        output.json(&approvals)?;
        return Ok(Exit::Done);
    }
    if approvals.is_empty() {
        output.note("nothing waits");
        return Ok(Exit::Done);
    }
    let mut table = Table::with_headings(["approval", "is", "asked by", "until", "for"]);
    for approval in approvals {
        let until = approval.expires.strftime("%Y-%m-%d %H:%M").to_string();
        table.row([
            approval.id.clone(),
            approval.status.as_str().to_owned(),
            approval.requester.clone(),
            until,
            approval.subject.told(),
        ]);
    }
    output.line(table)?;
    Ok(Exit::Done)
}

fn show(approval: &Approval, output: &Output) -> Result<Exit, Failure> {
    if output.wants_json() {
        output.json(approval)?;
        return Ok(Exit::Done);
    }
    let mut table = Table::default();
    let mut fact = |what: &str, value: String| table.row([what.to_owned(), value]);
    fact("approval", approval.id.clone());
    fact("is", approval.status.as_str().to_owned());
    fact("for", approval.subject.told());
    fact("digest", approval.digest.to_string());
    fact(
        "asked by",
        format!("{} at {}", approval.requester, approval.requested),
    );
    fact("until", approval.expires.to_string());
    if let (Some(decider), Some(decided)) = (&approval.decider, approval.decided) {
        fact("answered by", format!("{decider} at {decided}"));
    }
    if let Some(reason) = &approval.reason {
        fact("because", reason.clone());
    }
    output.line(table)?;
    let subject = serde_json::to_string_pretty(&approval.subject)?;
    output.line(subject)?;
    Ok(Exit::Done)
}

async fn widen(path: &Path, global: &GlobalArguments, output: &Output) -> Result<Exit, Failure> {
    let pipeline = Pipeline::load(path).map_err(Failure::rejected)?;
    let folder = state::beside(path, global.state.as_deref());
    let resource = Resource::pipeline(&pipeline.sections.name);
    let digest = Some(pipeline.digest);
    let allowed = access::demand(global, &folder, Action::GrantWiden, &resource, digest).await?;
    let Some(store) = allowed.second_person_for(FourEyes::Widen)? else {
        return Err(Failure::rejected_because(
            "grants take no second person here",
            "`sandcast access init` says what does, with --four-eyes",
        ));
    };
    let plan = sandcast_factory::plan_in(&folder, &pipeline, &global.operator()?).or_reject()?;
    let plugins = wider(store, &plan).map_err(refused)?;
    if plugins.is_empty() {
        output.note("nothing is granted that was not approved");
        return Ok(Exit::Done);
    }
    let pipeline = pipeline.sections.name.clone();
    ask(
        store,
        &allowed,
        Subject::Widen { pipeline, plugins },
        output,
    )
}

/// The plugins of a plan whose grants are wider than those that were approved last; where none were,
/// than what every plugin gets.
fn wider(store: &Store, plan: &Plan) -> Result<BTreeMap<String, Widened>, AccessError> {
    let mut found = BTreeMap::new();
    for planned in &plan.plugins {
        let id = format!("{} as {}", planned.plugin.id, planned.name);
        let before = store.approved_grants(&plan.pipeline, &id)?;
        // Grants of an earlier version that this one does not know count for nothing.
        let most: Grants = before
            .clone()
            .and_then(|grants| serde_json::from_value(grants).ok())
            .unwrap_or_default();
        let wider = planned.grants.wider_than(&most);
        if wider.is_empty() {
            continue;
        }
        let told = |excess: &Excess| format!("{} {}", excess.key, excess.asked);
        let widened = Widened {
            component: planned.plugin.digest,
            before,
            after: serde_json::to_value(&planned.grants).unwrap_or_default(),
            wider: wider.iter().map(told).collect(),
        };
        found.insert(id, widened);
    }
    Ok(found)
}

/// What a plan grants and nobody has approved yet, in words by plugin, where that takes a second person
/// in this state. It changes nothing.
pub(crate) fn not_approved(
    folder: &Path,
    plan: &Plan,
) -> Result<BTreeMap<String, Vec<String>>, Failure> {
    let Some(store) = Store::look(folder).map_err(refused)? else {
        return Ok(BTreeMap::new());
    };
    if !store
        .settings()
        .map_err(refused)?
        .four_eyes
        .contains(&FourEyes::Widen)
    {
        return Ok(BTreeMap::new());
    }
    let wider = wider(&store, plan).map_err(refused)?;
    let told = wider.into_iter().map(|(id, widened)| (id, widened.wider));
    Ok(told.collect())
}

/// What must agree to the plan of a run: that every grant in it was approved.
pub(crate) fn check_of_grants(
    allowed: &Allowed,
    pipeline: &Path,
) -> Result<Option<PlanCheck>, Failure> {
    let Some(store) = allowed.second_person_for(FourEyes::Widen)?.cloned() else {
        return Ok(None);
    };
    let path = shown(pipeline);
    Ok(Some(Arc::new(move |plan: &Plan| {
        let wider = wider(&store, plan).map_err(|error| error.to_string())?;
        if wider.is_empty() {
            return Ok(());
        }
        let parts: Vec<String> = wider
            .iter()
            .map(|(id, widened)| format!("{id}: {}", widened.wider.join(", ")))
            .collect();
        Err(format!(
            "this pipeline grants more than was approved ({}); `sandcast approvals widen {path}` \
             asks somebody else to approve it",
            parts.join("; ")
        ))
    })))
}
