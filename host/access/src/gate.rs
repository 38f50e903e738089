//! The one way in: who is it, may they, and the entry that says so, before anything is done.

use std::collections::{BTreeMap, BTreeSet};

use blake3::Hash;
use jiff::Timestamp;
use sandcast_audit::{AuditError, AuditLog, Digest, Event};
use thiserror::Error;

use crate::{
    AccessError, Action, Budget, Judge, JudgeError, Policies, Principal, PrincipalId, Question,
    Resource, Role, Store, Token, TokenId, Verdict, local_user,
};

/// Longest reason in an entry, in bytes.
const MAX_REASON_BYTES: usize = 512;
/// Reasons in an entry.
const MAX_REASONS: usize = 16;

/// Decides calls to one state folder.
pub struct Gate {
    audit: AuditLog,
    /// None where access is not set up: then the person at the machine acts.
    guarded: Option<Guarded>,
}

struct Guarded {
    store: Store,
    judge: Box<dyn Judge>,
}

/// A call that was allowed and is on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    /// Who, as records name them: the name of a principal, or `local:` and a name of the system.
    pub principal: String,
    /// The token they came with.
    pub token: Option<TokenId>,
    /// The entry of the audit log, where there is one.
    pub entry: Option<u64>,
    /// What they may take of a server.
    pub budget: Budget,
}

/// Why somebody is not let in.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// There is no token.
    #[error("access is set up here, and there is no token")]
    NoToken,
    /// What was given is no token at all, or is mistyped.
    #[error("that is no token, or it is mistyped")]
    Malformed,
    /// Nobody here has such a token.
    #[error("nobody here has this token")]
    Unknown,
    /// The token is no good any more.
    #[error("the token {token} of `{principal}` expired at {expired}")]
    Expired {
        /// The token.
        token: TokenId,
        /// Whose it was.
        principal: PrincipalId,
        /// Since when.
        expired: Timestamp,
    },
    /// Somebody ended the token.
    #[error("the token {token} of `{principal}` was revoked")]
    Revoked {
        /// The token.
        token: TokenId,
        /// Whose it was.
        principal: PrincipalId,
    },
    /// The principal is disabled.
    #[error("`{0}` is disabled")]
    Disabled(PrincipalId),
    /// No policy permits it, or one forbids it.
    #[error("`{principal}` may not {action} {resource}: {why}")]
    Denied {
        /// Who.
        principal: String,
        /// What.
        action: Action,
        /// To what.
        resource: Resource,
        /// Why not.
        why: String,
    },
}

impl Refusal {
    /// One word for counts.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoToken => "no-token",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Expired { .. } => "expired",
            Self::Revoked { .. } => "revoked",
            Self::Disabled(_) => "disabled",
            Self::Denied { .. } => "denied",
        }
    }

    /// Who it was, where that is known.
    fn principal(&self) -> Option<String> {
        match self {
            Self::NoToken | Self::Malformed | Self::Unknown => None,
            Self::Expired { principal, .. } | Self::Revoked { principal, .. } => {
                Some(principal.to_string())
            }
            Self::Disabled(principal) => Some(principal.to_string()),
            Self::Denied { principal, .. } => Some(principal.clone()),
        }
    }

    /// Whether it is not known who asks; else they are known and may not.
    #[must_use]
    pub fn is_unauthenticated(&self) -> bool {
        !matches!(self, Self::Denied { .. })
    }
}

/// Why a call is not allowed.
#[derive(Debug, Error)]
pub enum GateError {
    /// Somebody is not let in.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no verdict.
    #[error(transparent)]
    Judge(#[from] JudgeError),
    /// What is kept cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The audit log cannot be written.
    #[error(transparent)]
    Audit(#[from] AuditError),
}

impl Gate {
    /// Of a state where access is not set up.
    #[must_use]
    pub fn open_to_all(audit: AuditLog) -> Self {
        Self {
            audit,
            guarded: None,
        }
    }

    /// Of a state where access is set up.
    #[must_use]
    pub fn guarded(audit: AuditLog, store: Store, judge: Box<dyn Judge>) -> Self {
        Self {
            audit,
            guarded: Some(Guarded { store, judge }),
        }
    }

    /// The store, where access is set up.
    #[must_use]
    pub fn store(&self) -> Option<&Store> {
        self.guarded.as_ref().map(|guarded| &guarded.store)
    }

    /// The audit log.
    #[must_use]
    pub fn audit(&self) -> &AuditLog {
        &self.audit
    }

    /// Lets a call through and says so in the audit log, or refuses it and says that.
    ///
    /// # Errors
    /// When it is refused, or cannot be decided or recorded, which is the same.
    pub async fn demand(
        &self,
        token: Option<&str>,
        action: Action,
        resource: &Resource,
        context: BTreeMap<String, String>,
    ) -> Result<Permit, GateError> {
        let digest = context.get("digest").and_then(|text| text.parse().ok());
        let Some(guarded) = &self.guarded else {
            return self.local(action, resource, digest);
        };
        // Read for each call, so that a change holds from the next one on.
        let policies = Policies::of_state(guarded.store.folder());
        let text = policies.as_ref().ok().map(|it| it.text.as_bytes());
        let policy_set = text.map(|text| self.audit.keep(text)).transpose()?;
        let decided = match policies {
            Ok(policies) => {
                self.decide(&policies, token, action, resource, context, true)
                    .await
            }
            Err(error) => Err(error.into()),
        };
        let record = |principal: String,
                      token: Option<TokenId>,
                      verdict: Verdict,
                      recording: Option<Digest>| {
            let mut reasons = verdict.reasons;
            reasons.truncate(MAX_REASONS);
            for reason in &mut reasons {
                reason.truncate(reason.floor_char_boundary(MAX_REASON_BYTES));
            }
            self.audit.append(Event::AccessDecided {
                principal,
                token: token.map(|token| token.to_string()),
                action: action.to_string(),
                resource: resource.to_string(),
                digest,
                allowed: verdict.allowed,
                policies: verdict.policies,
                reasons,
                policy_set,
                engine: Some(guarded.judge.engine()),
                recording,
            })
        };
        let no = |reason: String| Verdict {
            allowed: false,
            policies: Vec::new(),
            reasons: vec![reason],
        };
        match decided {
            Ok(Decided {
                principal,
                token,
                verdict,
                recorded,
            }) => {
                let recording = match &recorded {
                    Some(Event::Recorded { recording, .. }) => Some(*recording),
                    _ => None,
                };
                if let Some(recorded) = recorded {
                    self.audit.append(recorded)?;
                }
                let allowed = verdict.allowed;
                let why = verdict.reasons.join("; ");
                let id = principal.id.to_string();
                let entry = record(id.clone(), Some(token.clone()), verdict, recording)?;
                if !allowed {
                    return Err(GateError::Refused(Refusal::Denied {
                        principal: id,
                        action,
                        resource: resource.clone(),
                        why,
                    }));
                }
                Ok(Permit {
                    principal: id,
                    token: Some(token),
                    entry: Some(entry.sequence),
                    budget: principal.budget,
                })
            }
            Err(error) => {
                let (principal, token) = match &error {
                    GateError::Refused(refusal) => {
                        let token = match refusal {
                            Refusal::Expired { token, .. } | Refusal::Revoked { token, .. } => {
                                Some(token.clone())
                            }
                            _ => None,
                        };
                        (refusal.principal(), token)
                    }
                    _ => (None, None),
                };
                let principal = principal.unwrap_or_else(|| "unknown".to_owned());
                record(principal, token, no(error.to_string()), None)?;
                Err(error)
            }
        }
    }

    /// Whether a token may do something, without a record: a server sums those up.
    ///
    /// # Errors
    /// As [`demand`](Self::demand).
    pub async fn allows(
        &self,
        token: Option<&str>,
        action: Action,
        resource: &Resource,
    ) -> Result<Permit, GateError> {
        let Some(guarded) = &self.guarded else {
            return Ok(Permit {
                principal: local_user(),
                token: None,
                entry: None,
                budget: Budget::default(),
            });
        };
        let policies = Policies::of_state(guarded.store.folder())?;
        let Decided {
            principal,
            token,
            verdict,
            ..
        } = self
            .decide(&policies, token, action, resource, BTreeMap::new(), false)
            .await?;
        match verdict.allowed {
            true => Ok(Permit {
                principal: principal.id.to_string(),
                token: Some(token),
                entry: None,
                budget: principal.budget,
            }),
            false => Err(GateError::Refused(Refusal::Denied {
                principal: principal.id.to_string(),
                action,
                resource: resource.clone(),
                why: verdict.reasons.join("; "),
            })),
        }
    }

    /// Whose a token is.
    ///
    /// # Errors
    /// When it is nobody's, or not good any more.
    pub fn authenticate(
        &self,
        token: Option<&str>,
        now: Timestamp,
    ) -> Result<(Principal, TokenId), GateError> {
        let Some(guarded) = &self.guarded else {
            return Err(Refusal::NoToken.into());
        };
        let text = token
            .map(str::trim)
            .filter(|token| !token.is_empty())
            .ok_or(Refusal::NoToken)?;
        let token: Token = text.parse().map_err(|()| Refusal::Malformed)?;
        let kept = guarded.store.kept(token.id())?;
        // The same work whether there is such a token or not; hashes are compared in constant time.
        let given = token.hash();
        let (record, hash) = match kept {
            Some((record, hash)) => (Some(record), hash),
            None => (None, Hash::from_bytes([0; 32])),
        };
        let is_same = given == hash;
        let Some(record) = record.filter(|_| is_same) else {
            return Err(Refusal::Unknown.into());
        };
        if record.revoked.is_some() {
            return Err(Refusal::Revoked {
                token: record.id,
                principal: record.principal,
            }
            .into());
        }
        if now >= record.expires {
            return Err(Refusal::Expired {
                token: record.id,
                principal: record.principal,
                expired: record.expires,
            }
            .into());
        }
        let principal = guarded.store.principal(&record.principal)?;
        if principal.disabled.is_some() {
            return Err(Refusal::Disabled(principal.id).into());
        }
        guarded.store.used(&record.id, now)?;
        Ok((principal, record.id))
    }

    /// What the policies say of somebody who need not be known here, without a record.
    ///
    /// # Errors
    /// When there is no verdict.
    pub async fn verdict_on(
        &self,
        principal: &str,
        roles: BTreeSet<Role>,
        action: Action,
        resource: &Resource,
        context: BTreeMap<String, String>,
    ) -> Result<Verdict, GateError> {
        let Some(guarded) = &self.guarded else {
            return Ok(Verdict {
                allowed: true,
                policies: Vec::new(),
                reasons: vec!["access is not set up".to_owned()],
            });
        };
        let policies = Policies::of_state(guarded.store.folder())?;
        let question = Question {
            principal: principal.to_owned(),
            roles,
            action,
            resource: resource.clone(),
            context,
        };
        Ok(guarded.judge.judge(&policies, &question).await?)
    }

    async fn decide(
        &self,
        policies: &Policies,
        token: Option<&str>,
        action: Action,
        resource: &Resource,
        context: BTreeMap<String, String>,
        on_record: bool,
    ) -> Result<Decided, GateError> {
        let (principal, token) = self.authenticate(token, Timestamp::now())?;
        let Some(guarded) = &self.guarded else {
            return Err(Refusal::NoToken.into());
        };
        let question = Question {
            principal: principal.id.to_string(),
            roles: principal.roles.clone(),
            action,
            resource: resource.clone(),
            context,
        };
        let (verdict, recorded) = match on_record {
            true => guarded.judge.judge_on_record(policies, &question).await?,
            false => (guarded.judge.judge(policies, &question).await?, None),
        };
        Ok(Decided {
            principal,
            token,
            verdict,
            recorded,
        })
    }

    /// The person at the machine, in a state where access is not set up.
    fn local(
        &self,
        action: Action,
        resource: &Resource,
        digest: Option<Digest>,
    ) -> Result<Permit, GateError> {
        let principal = local_user();
        let entry = match action.changes_something() {
            false => None,
            true => Some(self.audit.append(Event::AccessDecided {
                principal: principal.clone(),
                token: None,
                action: action.to_string(),
                resource: resource.to_string(),
                digest,
                allowed: true,
                policies: Vec::new(),
                reasons: vec!["access is not set up".to_owned()],
                policy_set: None,
                engine: None,
                recording: None,
            })?),
        };
        Ok(Permit {
            principal,
            token: None,
            entry: entry.map(|entry| entry.sequence),
            budget: Budget::default(),
        })
    }
}

struct Decided {
    principal: Principal,
    token: TokenId,
    verdict: Verdict,
    /// The entry about its recording.
    recorded: Option<Event>,
}

#[cfg(test)]
mod tests;
