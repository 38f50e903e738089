//! Who may give a command: the token, the policies, and the entry that says so.

use std::{
    collections::BTreeMap,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use sandcast_access::{
    ACCESS_FOLDER, AccessError, Action, FourEyes, Gate, GateError, Judge, JudgeError, Judging,
    JudgingOnRecord, Permit, Policies, Question, Refusal, Resource, Store, Verdict, local_user,
};
use sandcast_audit::{AuditLog, Digest, Event};
use sandcast_factory::WorkspaceError;
use sandcast_sandbox::{
    CallContext, CallError, ControlPoint, Decision, Effect, FailureCode, Grants, Plugin, Pooling,
    RecordingGrant, Recordings, Request, Role, Sandbox, SandboxConfig,
};
use tokio::sync::Mutex;

use crate::{arguments::GlobalArguments, failure::Failure};

/// The component that evaluates policies, in the folder `access` of a state.
pub(crate) const ENGINE: &str = "policy-cedar.wasm";

/// Decisions after which the component is loaded anew: what it did is kept in memory by then.
const DECISIONS_EACH: u32 = 256;

/// What a command that changes nothing needs to be allowed.
#[derive(Debug)]
pub(crate) struct Need {
    /// The state folder it looks into.
    pub(crate) folder: PathBuf,
    pub(crate) action: Action,
    pub(crate) resource: Resource,
}

impl Need {
    pub(crate) fn new(folder: PathBuf, action: Action, resource: Resource) -> Self {
        Self {
            folder,
            action,
            resource,
        }
    }
}

/// Lets a command through that changes nothing, or refuses it. Where access is not set up, there is
/// nothing to do.
pub(crate) async fn require(need: Option<Need>, global: &GlobalArguments) -> Result<(), Failure> {
    match need {
        Some(need) if Store::is_there(&need.folder) => {
            demand(global, &need.folder, need.action, &need.resource, None).await?;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Lets a call through and says so in the audit log, or refuses it and says that.
pub(crate) async fn demand(
    global: &GlobalArguments,
    folder: &Path,
    action: Action,
    resource: &Resource,
    digest: Option<Digest>,
) -> Result<Allowed, Failure> {
    // The log makes its own folder only, and a state that cannot be is told of as such.
    std::fs::create_dir_all(folder).map_err(|source| WorkspaceError::Folder {
        path: folder.to_path_buf(),
        source,
    })?;
    let audit = AuditLog::open(&folder.join("audit"))?;
    demand_in(global, folder, audit, action, resource, digest).await
}

/// The same, with the log to say it in.
pub(crate) async fn demand_in(
    global: &GlobalArguments,
    folder: &Path,
    audit: AuditLog,
    action: Action,
    resource: &Resource,
    digest: Option<Digest>,
) -> Result<Allowed, Failure> {
    let context = digest.map(|digest| ("digest".to_owned(), digest.to_string()));
    demand_with(
        global,
        folder,
        audit,
        action,
        resource,
        context.into_iter().collect(),
    )
    .await
}

/// The same, with everything that policies are told.
pub(crate) async fn demand_with(
    global: &GlobalArguments,
    folder: &Path,
    audit: AuditLog,
    action: Action,
    resource: &Resource,
    context: BTreeMap<String, String>,
) -> Result<Allowed, Failure> {
    let gate = gate(folder, audit)?;
    permitted(gate, global, action, resource, context).await
}

/// The same, told to a log that is not the folder's own. What waits for that one goes on waiting.
pub(crate) async fn demand_apart(
    global: &GlobalArguments,
    folder: &Path,
    apart: AuditLog,
    action: Action,
    resource: &Resource,
) -> Result<Allowed, Failure> {
    let store = Store::look(folder).map_err(refused)?;
    let gate = gate_of(folder, apart, store)?;
    permitted(gate, global, action, resource, BTreeMap::new()).await
}

async fn permitted(
    gate: Gate,
    global: &GlobalArguments,
    action: Action,
    resource: &Resource,
    context: BTreeMap<String, String>,
) -> Result<Allowed, Failure> {
    let token = match gate.store() {
        Some(_) => token(global)?,
        None => None,
    };
    let permit = gate
        .demand(token.as_deref(), action, resource, context)
        .await
        .map_err(refused)?;
    Ok(Allowed { permit, gate })
}

/// A call that was allowed, and what to ask further.
pub(crate) struct Allowed {
    pub(crate) permit: Permit,
    pub(crate) gate: Gate,
}

impl Allowed {
    /// Who acts, as records name them.
    pub(crate) fn who(&self) -> &str {
        &self.permit.principal
    }

    /// The store, where access is set up.
    pub(crate) fn store(&self) -> Option<&Store> {
        self.gate.store()
    }

    /// The store, where something takes a second person.
    pub(crate) fn second_person_for(&self, what: FourEyes) -> Result<Option<&Store>, Failure> {
        match self.gate.store() {
            Some(store) if store.settings().map_err(refused)?.four_eyes.contains(&what) => {
                Ok(Some(store))
            }
            _ => Ok(None),
        }
    }
}

/// Refuses whoever is not known, and says that in the log, before they are told what is there. What
/// they may do is asked afterwards.
pub(crate) async fn must_be_known(
    global: &GlobalArguments,
    folder: &Path,
    action: Action,
) -> Result<(), Failure> {
    if !Store::is_there(folder) {
        return Ok(());
    }
    let gate = gate(folder, AuditLog::open(&folder.join("audit"))?)?;
    let token = token(global)?;
    let known = gate.authenticate(token.as_deref(), jiff::Timestamp::now());
    if known.is_err() {
        permitted(gate, global, action, &Resource::state(), BTreeMap::new()).await?;
    }
    Ok(())
}

/// What decides calls to a state.
pub(crate) fn gate(folder: &Path, audit: AuditLog) -> Result<Gate, Failure> {
    if !Store::is_there(folder) {
        return Ok(Gate::open_to_all(audit));
    }
    let store = Store::open(folder, &audit).map_err(refused)?;
    gate_of(folder, audit, store)
}

fn gate_of(folder: &Path, audit: AuditLog, store: Option<Store>) -> Result<Gate, Failure> {
    let Some(store) = store else {
        return Ok(Gate::open_to_all(audit));
    };
    let engine = store.settings().map_err(refused)?.engine;
    let judge = CedarJudge::of_state(folder, engine).map_err(refused)?;
    Ok(Gate::guarded(audit, store, Box::new(judge)))
}

/// The token of whoever gives the command, from the environment or a file; never from the command
/// line, which everybody on the machine can read.
pub(crate) fn token(global: &GlobalArguments) -> Result<Option<String>, Failure> {
    const LONGEST: u64 = 4096;
    let Some(path) = &global.token_file else {
        return Ok(std::env::var("SANDCAST_TOKEN").ok());
    };
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LONGEST).read_to_string(&mut text))
        .map_err(|error| {
            Failure::rejected_because(
                format_args!("cannot read the token in {}: {error}", path.display()),
                "`sandcast access tokens issue NAME --to FILE` writes one",
            )
        })?;
    Ok(Some(text.trim().to_owned()))
}

/// A refusal is the caller's affair, anything else the host's.
pub(crate) fn refused(error: impl Into<GateError>) -> Failure {
    let error = error.into();
    let help = match &error {
        GateError::Refused(Refusal::Denied { .. }) => {
            "`sandcast access policies show` has the policies; an operator may change them, or a role"
        }
        GateError::Refused(Refusal::NoToken) => {
            "set SANDCAST_TOKEN, or name a file with --token-file; an operator makes one with \
             `sandcast access tokens issue`"
        }
        GateError::Refused(_) => {
            "an operator makes another one with `sandcast access tokens issue`"
        }
        GateError::Judge(JudgeError::Policies(_)) => {
            "mend `access/policies.cedar` in the state folder, or take it away to have the shipped \
             policies; `sandcast access policies check FILE` says what is wrong with one"
        }
        GateError::Judge(JudgeError::Engine(_)) => {
            "the component is `access/policy-cedar.wasm` in the state folder, as it was when access was set up"
        }
        GateError::Audit(_)
        | GateError::Access(AccessError::Audit(_) | AccessError::Database { .. }) => {
            return Failure::from(error);
        }
        GateError::Access(_) => return Failure::from(error).into_rejection(),
    };
    Failure::rejected_because(error, help)
}

/// Who acts in a state that access is not asked for.
pub(crate) fn nobody_asked() -> String {
    local_user()
}

/// The first-party Cedar plugin, in its sandbox.
pub(crate) struct CedarJudge {
    component: Arc<Vec<u8>>,
    digest: Digest,
    cache: Option<PathBuf>,
    /// Where decisions are kept that are on record.
    recordings: Option<Recordings>,
    loaded: Mutex<Option<Loaded>>,
}

/// The component, loaded.
struct Loaded {
    plugin: Plugin,
    /// What it did.
    record: AuditLog,
    decisions: u32,
    /// Whether what it does is kept.
    is_recorded: bool,
}

impl CedarJudge {
    /// A component that evaluates policies; what is compiled of it is kept in a folder.
    pub(crate) fn new(component: Vec<u8>, cache: Option<PathBuf>) -> Self {
        Self {
            digest: Digest::of(&component),
            component: Arc::new(component),
            cache,
            recordings: None,
            loaded: Mutex::new(None),
        }
    }

    /// The one that access was set up with.
    fn of_state(folder: &Path, wanted: Digest) -> Result<Self, GateError> {
        let path = folder.join(ACCESS_FOLDER).join(ENGINE);
        let component = std::fs::read(&path).map_err(|error| {
            JudgeError::Engine(format!("cannot read {}: {error}", path.display()))
        })?;
        let mut judge = Self::new(component, Some(folder.join("cache")));
        judge.recordings = Some(Recordings::at(folder.join("recordings")));
        if judge.digest != wanted {
            return Err(JudgeError::Engine(format!(
                "{} is not the component that access was set up with, {}",
                path.display(),
                wanted.short()
            ))
            .into());
        }
        Ok(judge)
    }

    /// The component, and the record that it has of its own.
    async fn plugin(&self, is_recorded: bool) -> Result<(Plugin, AuditLog), JudgeError> {
        let mut loaded = self.loaded.lock().await;
        if let Some(loaded) = loaded.as_mut()
            && loaded.decisions < DECISIONS_EACH
            && loaded.is_recorded == is_recorded
        {
            loaded.decisions += 1;
            return Ok((loaded.plugin.clone(), loaded.record.clone()));
        }
        let engine = |error: &dyn std::fmt::Display| JudgeError::Engine(error.to_string());
        // The entry of each call names the component, so its loads need no entries there.
        let record = AuditLog::in_memory();
        let sandbox = Sandbox::new(
            SandboxConfig {
                cache_dir: self.cache.clone(),
                pooling: Pooling::Off,
                recordings: self.recordings.clone(),
                ..SandboxConfig::default()
            },
            record.clone(),
        )
        .map_err(|error| engine(&error))?;
        let grants = Grants {
            recording: is_recorded.then(RecordingGrant::default),
            ..Grants::default()
        };
        let plugin = sandbox
            .load("access", &self.component, Role::Policy, grants)
            .await
            .map_err(|error| engine(&error))?;
        *loaded = Some(Loaded {
            plugin: plugin.clone(),
            record: record.clone(),
            decisions: 1,
            is_recorded,
        });
        Ok((plugin, record))
    }

    /// What the policies say, with the entry about the recording of it.
    async fn decide(
        &self,
        policies: &Policies,
        question: &Question,
        is_recorded: bool,
    ) -> Result<(Verdict, Option<Event>), JudgeError> {
        let (plugin, record) = self.plugin(is_recorded).await?;
        let context = CallContext::new(None, "access");
        let mut instance = plugin
            .policy(&context, &question.configuration(policies))
            .await
            .map_err(not_a_verdict)?;
        let request = Request {
            control_point: control_point(question.action),
            principal: format!("principal:{}", question.principal),
            action: question.action.to_string(),
            resource: question.resource.to_string(),
            context: serde_json::json!(question.context),
        };
        let verdict = match instance.decide(&request).await {
            Ok(decision) => verdict_of(decision),
            // An action that does not go with such a resource.
            Err(CallError::Failed { failure, .. }) if failure.code == FailureCode::InvalidInput => {
                Verdict::of_reasons(false, vec![failure.message])
            }
            Err(error) => return Err(not_a_verdict(error)),
        };
        let recording = instance.finish().map_err(not_a_verdict)?.recording;
        let entries = record.entries();
        let mut entries = entries.map_err(|error| JudgeError::Engine(error.to_string()))?;
        // The newest of it: others may be asked at the same time.
        let is_of_it = |event: &Event| matches!(event, Event::Recorded { recording: it, .. } if Some(*it) == recording);
        let place = entries.iter().rposition(|entry| is_of_it(&entry.event));
        Ok((verdict, place.map(|place| entries.swap_remove(place).event)))
    }
}

/// What a decision of the component comes to.
fn verdict_of(decision: Decision) -> Verdict {
    let mut reasons = decision.reasons;
    // Conditions cannot be met here, so they are a no.
    let conditions = decision
        .obligations
        .iter()
        .map(|obligation| format!("it wants `{}`, which is not done here", obligation.kind));
    reasons.extend(conditions);
    let allowed = decision.effect == Effect::Allow && decision.obligations.is_empty();
    Verdict::of_reasons(allowed, reasons)
}

impl Judge for CedarJudge {
    fn engine(&self) -> Digest {
        self.digest
    }

    fn judge<'a>(&'a self, policies: &'a Policies, question: &'a Question) -> Judging<'a> {
        Box::pin(async move { Ok(self.decide(policies, question, false).await?.0) })
    }

    fn judge_on_record<'a>(
        &'a self,
        policies: &'a Policies,
        question: &'a Question,
    ) -> JudgingOnRecord<'a> {
        Box::pin(self.decide(policies, question, self.recordings.is_some()))
    }
}

fn not_a_verdict(error: CallError) -> JudgeError {
    match error {
        CallError::Failed { failure, .. } if failure.code == FailureCode::InvalidConfig => {
            JudgeError::Policies(failure.message)
        }
        error => JudgeError::Engine(error.to_string()),
    }
}

/// The nearest of the contract's control points; policies go by the action.
fn control_point(action: Action) -> ControlPoint {
    match action {
        Action::Predict | Action::Generate => ControlPoint::Predict,
        Action::Promote => ControlPoint::Promote,
        Action::Run | Action::Plan | Action::GrantWiden => ControlPoint::TrainStart,
        Action::DataRead | Action::Inspect | Action::RecordingRead => ControlPoint::DataRead,
        Action::RecordingRemove | Action::StateClear | Action::LogArchive => ControlPoint::Archive,
        Action::PluginAdmit
        | Action::PluginTrust
        | Action::PluginQuarantine
        | Action::PluginRevoke
        | Action::PluginRelease => ControlPoint::PluginLoad,
        Action::AuditRead
        | Action::Export
        | Action::KeyRotate
        | Action::KeyNew
        | Action::AccessRead
        | Action::PrincipalManage
        | Action::TokenIssue
        | Action::TokenRotate
        | Action::TokenRevoke
        | Action::Approve
        | Action::Serve => ControlPoint::Export,
    }
}
