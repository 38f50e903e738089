//! `sandcast access policies`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use sandcast_access::{
    Action, DEFAULT_POLICIES, Judge as _, Policies, Question, Resource, Role, SCHEMA,
};

use super::{allowed, failed, folder};
use crate::{
    access::{self, CedarJudge, refused},
    arguments::GlobalArguments,
    commands::inspect,
    failure::{Exit, Failure},
    output::Output,
};

#[derive(Debug, Subcommand)]
pub(super) enum PoliciesAction {
    /// Print the policies that are in force
    Show {
        /// Print what policies may speak of instead, as a Cedar schema
        #[arg(long, conflicts_with = "shipped")]
        schema: bool,
        /// Print the policies that Sandcast brings
        #[arg(long)]
        shipped: bool,
    },
    /// Whether policies parse, fit the schema, and let an operator manage principals
    Check {
        /// A file with policies
        file: PathBuf,
        /// The Cedar plugin that evaluates them [default: the one that access was set up with]
        #[arg(long, value_name = "PLUGIN")]
        cedar: Option<PathBuf>,
    },
}

pub(super) async fn execute(
    action: &PoliciesAction,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    match action {
        PoliciesAction::Show { schema: true, .. } => output.text(SCHEMA)?,
        PoliciesAction::Show { shipped: true, .. } => output.text(DEFAULT_POLICIES)?,
        PoliciesAction::Show { .. } => {
            allowed(global, Action::AccessRead, &Resource::state()).await?;
            let policies = Policies::of_state(&folder(global)?).map_err(failed)?;
            if output.wants_json() {
                output.json(&serde_json::json!({
                    "digest": policies.digest(), "file": policies.file, "policies": policies.text,
                }))?;
            } else {
                output.text(&policies.text)?;
            }
        }
        PoliciesAction::Check { file, cedar } => {
            return check(file, cedar.as_ref(), global, output).await;
        }
    }
    Ok(Exit::Done)
}

/// No token is asked for: it looks at a file that the caller has, and at nothing else.
async fn check(
    file: &Path,
    cedar: Option<&PathBuf>,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let (path, compiled) = match cedar {
        Some(cedar) => (inspect::read(cedar)?.0, None),
        None => {
            let folder = folder(global)?;
            let path = folder
                .join(sandcast_access::ACCESS_FOLDER)
                .join(access::ENGINE);
            (path, Some(folder.join("cache")))
        }
    };
    let judge = CedarJudge::new(std::fs::read(path)?, compiled);
    let policies = Policies::read(file).map_err(failed)?;
    let somebody = "somebody"
        .parse()
        .map_err(|error: sandcast_access::ParsePrincipalError| {
            Failure::from(error).into_rejection()
        })?;
    let question = Question {
        principal: "somebody-else".to_owned(),
        roles: [Role::Operator].into(),
        action: Action::PrincipalManage,
        resource: Resource::principal(&somebody),
        context: Default::default(),
    };
    let verdict = judge.judge(&policies, &question).await.map_err(refused)?;
    if !verdict.allowed {
        output.warn(
            "with these policies an operator may not manage principals: nobody could be added any more",
        );
    }
    if output.wants_json() {
        output.json(&serde_json::json!({
            "digest": policies.digest(), "operators_manage": verdict.allowed,
        }))?;
    } else {
        output.line(format_args!("good: {}", policies.digest().short()))?;
    }
    Ok(Exit::Done)
}
