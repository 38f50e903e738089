//! What takes effect only when a second person has agreed.
//!
//! A request names exactly what it is for. It is pending, then approved or rejected by somebody else,
//! then carried out once. Between the last two a process may die: whoever comes next carries it
//! out, and the effect itself is written so that it happens once for each request.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use sandcast_audit::{AuditLog, Digest, Event, PluginRef};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::store::{AccessError, Change, FourEyes, Store};
use crate::token::hex;

/// How long a request waits for an answer.
const WAITS: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Requests that wait at one time, at most.
const MOST_PENDING: usize = 1000;

/// Exactly what a request is for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Subject {
    /// To point an alias of a model to another version.
    Promote {
        /// The model.
        model: String,
        /// The alias.
        alias: String,
        /// The version it means when this is asked; the request is void once it means another.
        from: Option<u64>,
        /// The version it is to mean.
        to: u64,
        /// The digest of that version's model file.
        model_digest: Digest,
        /// The digest of that version's lineage.
        lineage: Digest,
    },
    /// To release a plugin from quarantine.
    Release {
        /// The component.
        plugin: PluginRef,
        /// The entry that quarantined it; the request is void once it has another standing.
        standing: u64,
        /// Why it is to be released.
        reason: String,
    },
    /// To grant the plugins of a pipeline more than was approved last.
    Widen {
        /// The name of the pipeline.
        pipeline: String,
        /// What each plugin whose grants are wider had, and is to have, by its id.
        plugins: BTreeMap<String, Widened>,
    },
}

/// The grants of a plugin in a pipeline, before and after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Widened {
    /// The component that the request is about; another one of the same id has the same grants.
    pub component: Digest,
    /// What was approved last, if anything was.
    pub before: Option<Value>,
    /// What is asked for.
    pub after: Value,
    /// The parts that are wider, in words.
    pub wider: Vec<String>,
}

impl Subject {
    /// What needs the approval.
    #[must_use]
    pub fn kind(&self) -> FourEyes {
        match self {
            Self::Promote { .. } => FourEyes::Promote,
            Self::Release { .. } => FourEyes::Release,
            Self::Widen { .. } => FourEyes::Widen,
        }
    }

    /// The digest of everything in it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        // Text, numbers and sorted maps: this always has a JSON form.
        Digest::of(&serde_json::to_vec(self).unwrap_or_default())
    }

    /// In a sentence.
    #[must_use]
    pub fn told(&self) -> String {
        match self {
            Self::Promote {
                model,
                alias,
                from,
                to,
                model_digest,
                ..
            } => {
                let from = from.map_or_else(String::new, |from| format!("from version {from} "));
                let digest = model_digest.short();
                format!("point {model}@{alias} {from}to version {to} ({digest})")
            }
            Self::Release { plugin, .. } => format!(
                "release {} {} ({})",
                plugin.id,
                plugin.version,
                plugin.digest.short()
            ),
            Self::Widen { pipeline, plugins } => {
                let plugins: Vec<String> = plugins
                    .iter()
                    .map(|(id, widened)| format!("{id} ({})", widened.wider.join(", ")))
                    .collect();
                format!("widen the grants in {pipeline} of {}", plugins.join("; "))
            }
        }
    }
}

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApprovalStatus {
    /// Nobody has answered.
    Pending,
    /// Nobody has answered in time.
    Expired,
    /// Somebody else agreed, and it is to be carried out.
    Approved,
    /// Somebody else refused.
    Rejected,
    /// It has taken effect.
    CarriedOut,
    /// What it was for had changed by the time it was to take effect.
    Void,
}

impl ApprovalStatus {
    /// The word in lists and records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Expired => "expired",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::CarriedOut => "carried-out",
            Self::Void => "void",
        }
    }
}

/// A request and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Its id.
    pub id: String,
    /// What it is for.
    pub subject: Subject,
    /// The digest of that.
    pub digest: Digest,
    /// Who asked.
    pub requester: String,
    /// When.
    pub requested: Timestamp,
    /// Until when somebody may answer.
    pub expires: Timestamp,
    /// How far it has come.
    pub status: ApprovalStatus,
    /// Who answered.
    pub decider: Option<String>,
    /// When.
    pub decided: Option<Timestamp>,
    /// Why, in their words; or why it is void.
    pub reason: Option<String>,
}

impl Approval {
    /// As it stands at a time: what nobody answered expires by itself.
    #[must_use]
    pub fn at(mut self, now: Timestamp) -> Self {
        if self.status == ApprovalStatus::Pending && now >= self.expires {
            self.status = ApprovalStatus::Expired;
        }
        self
    }
}

/// What a pipeline grants a plugin at most, as it was approved last.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApprovedGrants {
    grants: Value,
    approval: String,
}

fn grants_id(pipeline: &str, plugin: &str) -> String {
    // A plugin's id has no space in it.
    format!("{plugin} {pipeline}")
}

impl Store {
    /// Asks for an approval. The same request that is waiting already is given back.
    ///
    /// # Errors
    /// When too many wait, or it cannot be written.
    pub fn request(
        &self,
        audit: &AuditLog,
        subject: Subject,
        requester: &str,
        now: Timestamp,
    ) -> Result<Approval, AccessError> {
        let digest = subject.digest();
        self.change(audit, "ask for an approval", |change| {
            let pending: Vec<Approval> = change
                .all::<Approval>("approvals")?
                .into_iter()
                .map(|approval| approval.at(now))
                .filter(|approval| approval.status == ApprovalStatus::Pending)
                .collect();
            let same = |it: &&Approval| it.digest == digest && it.requester == requester;
            if let Some(same) = pending.iter().find(same) {
                return Ok(same.clone());
            }
            if pending.len() >= MOST_PENDING {
                return Err(AccessError::TooMany("requests that wait"));
            }
            let mut id = [0; 6];
            getrandom::fill(&mut id).map_err(AccessError::Random)?;
            let approval = Approval {
                id: hex(&id),
                digest,
                requester: requester.to_owned(),
                requested: now,
                expires: now + WAITS,
                status: ApprovalStatus::Pending,
                decider: None,
                decided: None,
                reason: None,
                subject,
            };
            change.put("approvals", &approval.id, &approval)?;
            change.post_event(&Event::ApprovalRequested {
                approval: approval.id.clone(),
                kind: approval.subject.kind().as_str().to_owned(),
                subject: serde_json::to_value(&approval.subject).unwrap_or_default(),
                subject_digest: digest,
                requester: requester.to_owned(),
                expires: approval.expires.to_string(),
            })?;
            Ok(approval)
        })
    }

    /// Every request, the latest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn approvals(&self, now: Timestamp) -> Result<Vec<Approval>, AccessError> {
        let mut all: Vec<Approval> = self.read(|reading| reading.all("approvals"))?;
        all.sort_by_key(|approval| std::cmp::Reverse(approval.requested));
        Ok(all.into_iter().map(|approval| approval.at(now)).collect())
    }

    /// One request.
    ///
    /// # Errors
    /// When there is none such, or it cannot be read.
    pub fn approval(&self, id: &str, now: Timestamp) -> Result<Approval, AccessError> {
        self.find::<Approval>("approvals", id)?
            .map(|approval| approval.at(now))
            .ok_or_else(|| AccessError::NoApproval(id.chars().take(40).collect()))
    }

    /// Approves or rejects a request. Wider grants take effect with it; what lies elsewhere takes
    /// effect with [`carry_out`](Self::carry_out).
    ///
    /// # Errors
    /// When there is none such, it does not wait any more, whoever decides is who asked, or it cannot
    /// be written.
    pub fn decide(
        &self,
        audit: &AuditLog,
        id: &str,
        approve: bool,
        by: &str,
        reason: &str,
        now: Timestamp,
    ) -> Result<Approval, AccessError> {
        self.change(audit, "decide a request", |change| {
            let mut approval = change
                .find::<Approval>("approvals", id)?
                .map(|approval| approval.at(now))
                .ok_or_else(|| AccessError::NoApproval(id.chars().take(40).collect()))?;
            if approval.status != ApprovalStatus::Pending {
                return Err(AccessError::NotPending {
                    id: id.to_owned(),
                    status: approval.status.as_str(),
                });
            }
            if approval.requester == by {
                return Err(AccessError::SelfApproval(by.to_owned()));
            }
            approval.status = match approve {
                true => ApprovalStatus::Approved,
                false => ApprovalStatus::Rejected,
            };
            approval.decider = Some(by.to_owned());
            approval.decided = Some(now);
            let end = reason.floor_char_boundary(1024);
            approval.reason = Some(reason[..end].to_owned());
            change.post_event(&Event::ApprovalDecided {
                approval: approval.id.clone(),
                kind: approval.subject.kind().as_str().to_owned(),
                subject_digest: approval.digest,
                requester: approval.requester.clone(),
                approved: approve,
                by: by.to_owned(),
                reason: approval.reason.clone().unwrap_or_default(),
            })?;
            if let (true, Subject::Widen { pipeline, plugins }) = (approve, &approval.subject) {
                let outcome = match widen(change, &approval.id, pipeline, plugins)? {
                    Ok(()) => {
                        approval.status = ApprovalStatus::CarriedOut;
                        "done".to_owned()
                    }
                    Err(why) => {
                        approval.status = ApprovalStatus::Void;
                        approval.reason = Some(why.clone());
                        format!("void: {why}")
                    }
                };
                change.post_event(&carried_out(&approval, &outcome))?;
            }
            change.put("approvals", id, &approval)?;
            Ok(approval)
        })
    }

    /// Carries an approved request out: `effect` does it and says whether it could be done, or why it
    /// is void. While it does, no other process can do the same. It may be called again after a
    /// crash that came between the effect and its record, so it must be able to tell by the id of
    /// the request that it was done already.
    ///
    /// # Errors
    /// When it is not approved, the effect fails, in which case it stays approved, or it cannot be
    /// written.
    pub fn carry_out<E: From<AccessError>>(
        &self,
        audit: &AuditLog,
        id: &str,
        effect: impl FnOnce(&Approval) -> Result<Result<(), String>, E>,
    ) -> Result<Approval, E> {
        let mut failed = None;
        let done = self.change(audit, "carry a request out", |change| {
            let mut approval: Approval = change
                .find("approvals", id)?
                .ok_or_else(|| AccessError::NoApproval(id.chars().take(40).collect()))?;
            let not_approved = |status: ApprovalStatus| AccessError::NotPending {
                id: id.to_owned(),
                status: status.as_str(),
            };
            if approval.status != ApprovalStatus::Approved {
                return Err(not_approved(approval.status));
            }
            let outcome = match effect(&approval) {
                Ok(outcome) => outcome,
                Err(error) => {
                    failed = Some(error);
                    return Err(not_approved(approval.status));
                }
            };
            let told = match outcome {
                Ok(()) => {
                    approval.status = ApprovalStatus::CarriedOut;
                    "done".to_owned()
                }
                Err(why) => {
                    approval.status = ApprovalStatus::Void;
                    approval.reason = Some(why.clone());
                    format!("void: {why}")
                }
            };
            change.put("approvals", id, &approval)?;
            change.post_event(&carried_out(&approval, &told))?;
            Ok(approval)
        });
        match (done, failed) {
            (_, Some(error)) => Err(error),
            (done, None) => Ok(done?),
        }
    }

    /// What a pipeline may grant a plugin, as it was approved last, if anything was.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn approved_grants(
        &self,
        pipeline: &str,
        plugin: &str,
    ) -> Result<Option<Value>, AccessError> {
        let found: Option<ApprovedGrants> = self.find("grants", &grants_id(pipeline, plugin))?;
        Ok(found.map(|approved| approved.grants))
    }
}

/// Writes down what a pipeline may grant from now on; or, where what was approved last is not what
/// the request says that it was, nothing, and why.
fn widen(
    change: &Change<'_>,
    approval: &str,
    pipeline: &str,
    plugins: &BTreeMap<String, Widened>,
) -> Result<Result<(), String>, AccessError> {
    for (plugin, widened) in plugins {
        let now: Option<ApprovedGrants> = change.find("grants", &grants_id(pipeline, plugin))?;
        if now.map(|approved| approved.grants) != widened.before {
            return Ok(Err(format!(
                "what {pipeline} may grant {plugin} was changed after this was asked for; ask again"
            )));
        }
    }
    for (plugin, widened) in plugins {
        let approved = ApprovedGrants {
            grants: widened.after.clone(),
            approval: approval.to_owned(),
        };
        change.put("grants", &grants_id(pipeline, plugin), &approved)?;
    }
    Ok(Ok(()))
}

fn carried_out(approval: &Approval, outcome: &str) -> Event {
    Event::ApprovalCarriedOut {
        approval: approval.id.clone(),
        kind: approval.subject.kind().as_str().to_owned(),
        subject_digest: approval.digest,
        outcome: outcome.to_owned(),
    }
}

#[cfg(test)]
mod tests;
