//! Who may ask: bearer tokens, held to the policies.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use sandcast_access::{Action, Gate, GateError, Resource};
use sandcast_audit::{AuditError, AuditLog, Digest, Event};
use tokio::sync::Semaphore;

use crate::app::App;
use crate::budget::{self, Caller, Callers};
use crate::error::ApiError;
use crate::handlers::Target;

/// How long a yes holds: a token that is revoked is good for so long still.
const HOLDS: Duration = Duration::from_secs(2);
/// Answers that are kept at most.
const MOST_KNOWN: usize = 4096;
/// How long somebody waits who is not known, and how many wait at a time; more are sent away.
const PAUSE: Duration = Duration::from_millis(100);
const MOST_PAUSED: usize = 64;
/// The longest token that is looked at.
const LONGEST_TOKEN: usize = 256;

/// The door of a server on a state where access is set up.
pub(crate) struct Door {
    gate: Arc<Gate>,
    known: Mutex<HashMap<Digest, Known>>,
    callers: Callers,
    refusals: Mutex<BTreeMap<String, u64>>,
    paused: Semaphore,
}

/// Who it was, when an answer was yes, and when somebody last began to find out again.
struct Known {
    caller: Arc<Caller>,
    since: Instant,
    looked: Instant,
}

impl Door {
    /// None for the gate of a state where access is not set up: it would let everybody through, as if
    /// somebody had been asked.
    pub(crate) fn new(gate: Arc<Gate>) -> Option<Self> {
        gate.store()?;
        Some(Self {
            gate,
            known: Mutex::default(),
            callers: Callers::default(),
            refusals: Mutex::default(),
            paused: Semaphore::new(MOST_PAUSED),
        })
    }

    /// Lets somebody through who is known and, where it is about something, may do that.
    async fn admit(
        &self,
        headers: &HeaderMap,
        wanted: Option<(Action, Resource)>,
    ) -> Result<Arc<Caller>, ApiError> {
        let token = bearer(headers);
        let answer = Digest::of(format!("{token:?} {wanted:?}").as_bytes());
        if let Some(caller) = self.known(answer) {
            return Ok(caller);
        }
        let decided = match &wanted {
            Some((action, resource)) => {
                let permit = self.gate.allows(token, *action, resource).await;
                permit.map(|permit| (permit.principal, permit.budget))
            }
            None => {
                let found = self.gate.authenticate(token, jiff::Timestamp::now());
                found.map(|(principal, _)| (principal.id.to_string(), principal.budget))
            }
        };
        let error = match decided {
            Ok((principal, budget)) => {
                let caller = self.callers.of(&principal, budget);
                self.keep(answer, &caller);
                return Ok(caller);
            }
            Err(error) => error,
        };
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&answer);
        Err(self.refuse(error).await)
    }

    /// Who it is, if the answer was yes within the last seconds. Where it has to be found out again,
    /// others go by what is known until this one is back.
    fn known(&self, answer: Digest) -> Option<Arc<Caller>> {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get_mut(&answer)?;
        let age = now.duration_since(known.since);
        if age < HOLDS {
            return Some(Arc::clone(&known.caller));
        }
        // A client that goes away before it is found out does not make an answer older than that.
        if age < 2 * HOLDS && now.duration_since(known.looked) < HOLDS {
            return Some(Arc::clone(&known.caller));
        }
        known.looked = now;
        None
    }

    fn keep(&self, answer: Digest, caller: &Arc<Caller>) {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_KNOWN {
            known.retain(|_, it| now.duration_since(it.since) < HOLDS);
        }
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.insert(
            answer,
            Known {
                caller: Arc::clone(caller),
                since: now,
                looked: now,
            },
        );
    }

    /// Lets somebody through who changes what the server does, each time on record with who it is. Strangers
    /// are sent away before that, so that they cannot fill the log.
    async fn demand(&self, headers: &HeaderMap) -> Result<budget::Request, ApiError> {
        let caller = self.admit(headers, None).await?;
        let request = self.begin(&caller)?;
        let state = Resource::state();
        let demanded = self
            .gate
            .demand(bearer(headers), Action::Serve, &state, BTreeMap::new());
        match demanded.await {
            Ok(_) => Ok(request),
            Err(error) => Err(self.refuse(error).await),
        }
    }

    async fn refuse(&self, error: GateError) -> ApiError {
        let GateError::Refused(refusal) = error else {
            tracing::error!(%error, "it cannot be decided who may ask, so nobody may");
            return ApiError::unavailable(
                "it cannot be decided who may ask; the server's log says why",
            );
        };
        self.count(refusal.kind());
        if !refusal.is_unauthenticated() {
            return ApiError::new(StatusCode::FORBIDDEN, refusal.to_string());
        }
        let Ok(_place) = self.paused.try_acquire() else {
            self.count("too-many");
            return ApiError::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too many requests without a good token; wait a little",
            );
        };
        tokio::time::sleep(PAUSE).await;
        ApiError::new(
            StatusCode::UNAUTHORIZED,
            format!(
                "{}; send `authorization: Bearer TOKEN`",
                match refusal.kind() {
                    "no-token" => "this server wants a token",
                    "expired" => "the token has expired",
                    _ => "the token is no good",
                }
            ),
        )
    }

    /// Takes a request out of the budget of somebody who was let in.
    pub(crate) fn begin(&self, caller: &Arc<Caller>) -> Result<budget::Request, ApiError> {
        caller
            .begin()
            .inspect_err(|_| self.count(&format!("over-budget of {}", caller.principal)))
    }

    fn count(&self, kind: &str) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        *refusals.entry(kind.to_owned()).or_default() += 1;
    }

    /// Writes what was refused to the audit log, in one entry. What cannot be written stays.
    pub(crate) fn write(&self, audit: &AuditLog) -> Result<(), AuditError> {
        let lock = || self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let refusals = std::mem::take(&mut *lock());
        if refusals.is_empty() {
            return Ok(());
        }
        let event = Event::RequestsRefused {
            refusals: refusals.clone(),
        };
        if let Err(error) = audit.append(event) {
            let mut current = lock();
            for (kind, number) in refusals {
                *current.entry(kind).or_default() += number;
            }
            return Err(error);
        }
        Ok(())
    }
}

/// The token of a request, if it has one.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && token.len() <= LONGEST_TOKEN).then_some(token)
}

impl App {
    /// Lets a request through that is about a model: who it is, where that is asked.
    pub(crate) async fn admit(
        &self,
        headers: &HeaderMap,
        action: Action,
        model: &str,
    ) -> Result<Option<Arc<Caller>>, ApiError> {
        match &self.door {
            None => Ok(None),
            Some(door) => {
                let wanted = Some((action, Resource::model(model)));
                door.admit(headers, wanted).await.map(Some)
            }
        }
    }

    /// Takes a request out of the budget of who asks, where that is asked. What could not be put on
    /// record afterwards is not begun.
    pub(crate) fn begin(
        &self,
        caller: Option<&Arc<Caller>>,
    ) -> Result<Option<budget::Request>, ApiError> {
        if self.is_off_record() {
            return Err(off_record());
        }
        match (&self.door, caller) {
            (Some(door), Some(caller)) => door.begin(caller).map(Some),
            _ => Ok(None),
        }
    }
}

/// The audit log does not take what is served.
pub(crate) fn off_record() -> ApiError {
    ApiError::unavailable(
        "the audit log cannot be written, so nothing is answered; the server's log says why",
    )
}

/// Before a model is asked or described.
pub(crate) async fn guard_model(
    State(app): State<Arc<App>>,
    Path(target): Path<Target>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if let Some(door) = &app.door {
        // Policies are not asked about names that clients make up.
        let wanted = app
            .models
            .is_served(&target.model)
            .then(|| (Action::Predict, Resource::model(&target.model)));
        let caller = door.admit(request.headers(), wanted).await?;
        request.extensions_mut().insert(caller);
    }
    Ok(next.run(request).await)
}

/// Before a body is read that says what it is about.
pub(crate) async fn guard_known(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if let Some(door) = &app.door {
        let caller = door.admit(request.headers(), None).await?;
        request.extensions_mut().insert(caller);
    }
    Ok(next.run(request).await)
}

/// Before the server is told to do something.
pub(crate) async fn guard_management(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let _begun = match &app.door {
        Some(door) => Some(door.demand(request.headers()).await?),
        None => None,
    };
    Ok(next.run(request).await)
}

/// Before the server itself is looked into.
pub(crate) async fn guard_state(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if let Some(door) = &app.door {
        let wanted = Some((Action::Inspect, Resource::state()));
        door.admit(request.headers(), wanted).await?;
    }
    Ok(next.run(request).await)
}
