//! The policies of who may do what, in the Cedar language, and what is asked of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::future::Future;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use sandcast_audit::{Digest, Event};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

use crate::store::{ACCESS_FOLDER, AccessError};
use crate::{Action, Resource, Role};

/// The policies that hold until an operator writes their own.
pub const DEFAULT_POLICIES: &str = include_str!("policies.cedar");

/// Roles, actions and resources, as policies may speak of them.
pub const SCHEMA: &str = include_str!("schema.cedarschema");

/// The file with an operator's own policies, in the folder `access` of the state.
const POLICIES_FILE: &str = "policies.cedar";

/// The longest file of policies that is read.
const MAX_BYTES: u64 = 1 << 20;

/// The policies that are in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policies {
    /// Their text.
    pub text: String,
    /// The file they stand in, or none where they are the shipped ones.
    pub file: Option<PathBuf>,
}

impl Policies {
    /// Those of a state folder: the operator's own, else the shipped ones.
    ///
    /// # Errors
    /// When there is a file and it cannot be read, which is a no to everything.
    pub fn of_state(folder: &Path) -> Result<Self, AccessError> {
        let path = folder.join(ACCESS_FOLDER).join(POLICIES_FILE);
        match Self::read(&path) {
            Err(AccessError::Policies { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(Self {
                    text: DEFAULT_POLICIES.to_owned(),
                    file: None,
                })
            }
            read => read,
        }
    }

    /// Those of a file.
    ///
    /// # Errors
    /// When it cannot be read or is too long.
    pub fn read(path: &Path) -> Result<Self, AccessError> {
        let wrap = |source| AccessError::Policies {
            path: path.to_path_buf(),
            source,
        };
        let mut text = String::new();
        let read = File::open(path)
            .and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text))
            .map_err(wrap)?;
        if read as u64 > MAX_BYTES {
            let what = format!("it is longer than {MAX_BYTES} bytes");
            return Err(wrap(std::io::Error::other(what)));
        }
        Ok(Self {
            text,
            file: Some(path.to_path_buf()),
        })
    }

    /// The digest of their text, as records name them.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(self.text.as_bytes())
    }
}

/// May this principal do this?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Who, without its kind.
    pub principal: String,
    /// As what.
    pub roles: BTreeSet<Role>,
    /// What is to be done.
    pub action: Action,
    /// To what.
    pub resource: Resource,
    /// What else is known, such as the `digest` of a component.
    pub context: BTreeMap<String, String>,
}

impl Question {
    /// The configuration of the Cedar plugin for this question: the policies, the schema and who the
    /// principal is.
    #[must_use]
    pub fn configuration(&self, policies: &Policies) -> Value {
        let uid = |kind: &str, id: &str| json!({ "type": kind, "id": id });
        let roles = |role: &Role| uid("Role", role.as_str());
        let parents: Vec<Value> = self.roles.iter().map(roles).collect();
        let known = |role: &Role| json!({ "uid": roles(role), "attrs": {}, "parents": [] });
        let mut entities: Vec<Value> = Role::ALL.iter().map(known).collect();
        entities.push(json!({
            "uid": uid("Principal", &self.principal), "attrs": {}, "parents": parents,
        }));
        json!({ "policies": policies.text, "schema": SCHEMA, "entities": entities })
    }
}

/// What the policies say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether it may be done.
    pub allowed: bool,
    /// The policies that decided, by their `@id`.
    pub policies: Vec<String>,
    /// Why, in sentences.
    pub reasons: Vec<String>,
}

impl Verdict {
    /// From the answer of the Cedar plugin, whose reasons begin with the effect and the id of a
    /// policy: ``permit `operators-manage`: …``.
    #[must_use]
    pub fn of_reasons(allowed: bool, reasons: Vec<String>) -> Self {
        let named = |reason: &String| {
            let rest = ["permit `", "forbid `"]
                .into_iter()
                .find_map(|start| reason.strip_prefix(start))?;
            Some(rest.split_once('`')?.0.to_owned())
        };
        Self {
            allowed,
            policies: reasons.iter().filter_map(named).collect(),
            reasons,
        }
    }
}

/// Why there is no verdict, which is a no.
#[derive(Debug, Error)]
pub enum JudgeError {
    /// The policies do not parse, or do not fit the schema.
    #[error("the policies are refused, so nothing is allowed: {0}")]
    Policies(String),
    /// What evaluates them cannot be used.
    #[error("the policies cannot be asked, so nothing is allowed: {0}")]
    Engine(String),
}

/// A verdict to come.
pub type Judging<'a> = Pin<Box<dyn Future<Output = Result<Verdict, JudgeError>> + Send + 'a>>;

/// A verdict that was kept, to come: with the entry about its recording, where there is one.
pub type JudgingOnRecord<'a> =
    Pin<Box<dyn Future<Output = Result<(Verdict, Option<Event>), JudgeError>> + Send + 'a>>;

/// What evaluates policies.
pub trait Judge: Send + Sync {
    /// The digest of the component that evaluates, as records name it.
    fn engine(&self) -> Digest;

    /// Asks policies a question.
    fn judge<'a>(&'a self, policies: &'a Policies, question: &'a Question) -> Judging<'a>;

    /// The same, kept so that it can be shown again, by whoever can keep it.
    fn judge_on_record<'a>(
        &'a self,
        policies: &'a Policies,
        question: &'a Question,
    ) -> JudgingOnRecord<'a> {
        Box::pin(async move { Ok((self.judge(policies, question).await?, None)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_that_decided_are_named() {
        let verdict = Verdict::of_reasons(
            true,
            vec![
                "permit `operators-manage`: they run the place".to_owned(),
                "no policy permits principal:x".to_owned(),
                "forbid `night` applies".to_owned(),
            ],
        );
        assert_eq!(verdict.policies, ["operators-manage", "night"]);
        assert_eq!(verdict.reasons.len(), 3);
    }

    #[test]
    fn the_operators_file_comes_before_the_shipped_policies_and_must_be_readable() {
        let folder = tempfile::tempdir().expect("a folder");
        let shipped = Policies::of_state(folder.path()).expect("shipped");
        assert_eq!(
            (shipped.text.as_str(), shipped.file),
            (DEFAULT_POLICIES, None)
        );
        let access = folder.path().join(ACCESS_FOLDER);
        std::fs::create_dir(&access).expect("a folder");
        std::fs::write(access.join(POLICIES_FILE), [0xff]).expect("written");
        Policies::of_state(folder.path()).expect_err("not text, so nothing is allowed");
        std::fs::write(access.join(POLICIES_FILE), "permit").expect("written");
        let own = Policies::of_state(folder.path()).expect("text");
        assert_eq!(own.text, "permit");
        assert_ne!(
            own.digest(),
            Policies::read(&access).map_or(Digest::ZERO, |it| it.digest())
        );
    }

    #[test]
    fn every_action_stands_in_the_schema() {
        for action in Action::ALL {
            assert!(SCHEMA.contains(&format!("\"{action}\"")), "{action}");
        }
    }
}
