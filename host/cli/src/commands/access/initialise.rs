//! `sandcast access init`.

use std::io;
use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use sandcast_access::{
    ACCESS_FOLDER, Action, DEFAULT_LIFETIME_DAYS, FourEyes, IssuedToken, Judge as _, Policies,
    PrincipalId, Question, Resource, Role, Settings, Store, local_user,
};
use sandcast_audit::AuditLog;

use super::{
    failed,
    tokens::{self, Target},
};
use crate::{
    access::{CedarJudge, ENGINE, refused},
    arguments::GlobalArguments,
    commands::inspect,
    failure::{Exit, Failure},
    output::Output,
    state,
};

#[derive(Debug, Args)]
pub(super) struct InitArguments {
    /// The first operator
    principal: PrincipalId,
    /// The Cedar plugin that evaluates the policies: a component file, or its crate folder once it is
    /// built. It is copied into the state folder, and no other is taken from then on
    #[arg(long, value_name = "PLUGIN")]
    cedar: PathBuf,
    /// Days that the first token is good for
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LIFETIME_DAYS)]
    days: u16,
    /// What takes effect only when a second principal has approved it: promote, widen, release, or
    /// none
    #[arg(
        long,
        value_name = "WHAT",
        value_delimiter = ',',
        default_value = "promote,widen,release"
    )]
    four_eyes: Vec<String>,
    /// Write the token to this new file, for its owner alone, and not to stdout
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

pub(super) async fn execute(
    arguments: &InitArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let folder = match &global.state {
        Some(folder) => {
            std::fs::create_dir_all(folder)?;
            folder.clone()
        }
        None => state::nearest(None)?,
    };
    if Store::look(&folder).map_err(failed)?.is_some() {
        return Err(failed(sandcast_access::AccessError::Initialised(folder)));
    }
    let target = Target::open(arguments.to.as_deref())?;
    let four_eyes = match arguments.four_eyes.as_slice() {
        [one] if one == "none" => Default::default(),
        some => some
            .iter()
            .map(|text| text.parse::<FourEyes>())
            .collect::<Result<_, _>>()
            .map_err(|what| {
                Failure::rejected_because(what, "several are separated by commas; or say none")
            })?,
    };
    let (path, _) = inspect::read(&arguments.cedar)?;
    let component = std::fs::read(&path)?;
    let judge = CedarJudge::new(component.clone(), Some(folder.join("cache")));
    // What cannot decide must not be what everything waits for.
    let policies = Policies::of_state(&folder).map_err(failed)?;
    let question = Question {
        principal: arguments.principal.to_string(),
        roles: [Role::Operator].into(),
        action: Action::PrincipalManage,
        resource: Resource::principal(&arguments.principal),
        context: Default::default(),
    };
    let verdict = judge.judge(&policies, &question).await.map_err(refused)?;
    if !verdict.allowed {
        return Err(Failure::rejected_because(
            format_args!(
                "with these policies an operator may not manage principals, so nobody could: {}",
                verdict.reasons.join("; ")
            ),
            "mend `access/policies.cedar` in the state folder, or take it away",
        ));
    }
    std::fs::create_dir_all(folder.join(ACCESS_FOLDER))?;
    let kept = folder.join(ACCESS_FOLDER).join(ENGINE);
    let temporary = kept.with_extension("new");
    std::fs::write(&temporary, &component)?;
    std::fs::rename(&temporary, &kept)?;
    let audit = AuditLog::open(&folder.join("audit"))?;
    let settings = Settings {
        initialised: Timestamp::now(),
        engine: judge.engine(),
        four_eyes,
    };
    // The token is somebody's before it is needed.
    let hand_over = |issued: &IssuedToken| {
        tokens::hand_over_first(issued, target, output)
            .map_err(|failure| io::Error::other(failure.report.to_string()))
    };
    let first = (&arguments.principal, arguments.days);
    Store::initialise(&folder, &audit, first, &settings, &local_user(), hand_over)
        .map_err(failed)?;
    output.note(format_args!(
        "access is set up in {}: every command needs a token from now on",
        folder.display()
    ));
    Ok(Exit::Done)
}
