use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Digest, RunId, TreeHash, VerifierKey};

/// Something worth remembering. In JSON the name stands under `event`, in kebab case.
///
/// No event carries payloads or secrets: names, counts, digests, reasons, and what plugins say of their failures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A run began.
    RunStarted {
        /// The run.
        run: RunId,
        /// The name of its pipeline.
        pipeline: String,
        /// The digest of the configuration as it was read.
        config: Digest,
    },
    /// A run ended.
    RunFinished {
        /// The run.
        run: RunId,
        /// How, such as `done`, `rejected` or `failed`.
        outcome: String,
        /// Why, where there is something to say.
        message: Option<String>,
    },
    /// A stage of a run ended well.
    StageFinished {
        /// The run.
        run: RunId,
        /// The name of the stage.
        stage: String,
        /// The digest of everything that went in.
        key: Digest,
        /// The digest of what came out.
        output: Digest,
        /// Whether the output was there from an earlier run.
        cached: bool,
        /// Rows read.
        rows_in: Option<u64>,
        /// Rows passed on.
        rows_out: Option<u64>,
        /// Rows put aside, each with its reason.
        rows_quarantined: Option<u64>,
        /// Wall time.
        seconds: f64,
    },
    /// A stage of a run failed.
    StageFailed {
        /// The run.
        run: RunId,
        /// The name of the stage.
        stage: String,
        /// What, where, and what to do next.
        message: String,
    },
    /// A plugin was checked, compiled and is ready to be called.
    PluginLoaded {
        /// The run it was loaded for, if any.
        run: Option<RunId>,
        /// The plugin.
        plugin: PluginRef,
        /// Its name in the configuration.
        name: String,
        /// What it was granted.
        grants: serde_json::Value,
        /// The digest of what pipelines may grant at most, where there is such a thing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ceiling: Option<Digest>,
        /// The keys that signed the ceiling, where the host was told whose it must be.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        ceiling_signers: Vec<VerifierKey>,
        /// The keys that signed the component, of those that a rule of trust names: what others
        /// signed is not checked, and does not stand here.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        signers: Vec<VerifierKey>,
        /// Who signed the component by Sigstore, of those that a rule of trust names.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        identities: Vec<CertifiedSigner>,
        /// The digest of the operator's rules of trust, where there are some.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trust: Option<Digest>,
        /// The keys that signed these rules, where the host was told whose they must be.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        trust_signers: Vec<VerifierKey>,
        /// The interfaces it imports.
        imports: Vec<String>,
    },
    /// A plugin was refused before anything of it ran.
    PluginRefused {
        /// Its name in the configuration.
        name: String,
        /// The digest of its component, if there was one.
        digest: Option<Digest>,
        /// Why.
        reason: String,
    },
    /// The host refused something a plugin asked for.
    Denied {
        /// The run, if any.
        run: Option<RunId>,
        /// The plugin.
        plugin: PluginRef,
        /// The stage it ran in.
        stage: String,
        /// The capability it wanted to use.
        capability: String,
        /// What it wanted to do.
        detail: String,
        /// The line of configuration that would grant it.
        grant_with: String,
    },
    /// A plugin is about to do something outside of the sandbox that it is granted.
    Effect {
        /// The run, if any.
        run: Option<RunId>,
        /// The plugin.
        plugin: PluginRef,
        /// The stage it runs in.
        stage: String,
        /// The capability it uses, such as `http`.
        capability: String,
        /// What it does, such as `GET`.
        action: String,
        /// To what, without payloads.
        target: String,
        /// The digest of what the target leaves out, such as the query of an address.
        digest: Option<Digest>,
        /// The reference of the secret that the host puts in.
        secret: Option<String>,
    },
    /// What it did has ended.
    EffectFinished {
        /// The run, if any.
        run: Option<RunId>,
        /// The plugin.
        plugin: PluginRef,
        /// The stage it ran in.
        stage: String,
        /// The entry that announced it.
        effect: u64,
        /// How, such as the status of an answer.
        outcome: String,
        /// Bytes that went out.
        bytes_out: u64,
        /// Bytes that came in.
        bytes_in: u64,
        /// Wall time.
        seconds: f64,
    },
    /// An instance of a plugin ended.
    CallsFinished {
        /// The run, if any.
        run: Option<RunId>,
        /// The plugin.
        plugin: PluginRef,
        /// The stage it ran in.
        stage: String,
        /// Calls from the plugin into the host, by function.
        host_calls: BTreeMap<String, u64>,
        /// What these calls took, by function; `other` are those to WASI that are not told apart, such as
        /// waiting.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        host_use: BTreeMap<String, HostUse>,
        /// Bytes copied into the plugin.
        bytes_in: u64,
        /// Bytes copied out of it.
        bytes_out: u64,
        /// Time spent inside the plugin.
        guest_seconds: f64,
        /// The largest its linear memories came to.
        peak_memory_bytes: u64,
        /// Times that something was refused to it. Each thing is an entry of its own, once.
        #[serde(default, skip_serializing_if = "is_zero")]
        denials: u64,
        /// How it ended, such as `done`, `trap` or `timeout`.
        outcome: String,
    },
    /// What the instances of a plugin did that answered for a model on a server, since the last such
    /// entry about them.
    CallsServed {
        /// That stretch of time. Denials, effects and recordings of these instances name it as their
        /// run.
        run: RunId,
        /// The model.
        model: String,
        /// The version.
        version: u64,
        /// The plugin.
        plugin: PluginRef,
        /// The stage they ran in.
        stage: String,
        /// How long the stretch was.
        seconds: f64,
        /// Rows they were asked about.
        rows: u64,
        /// Instances that ended, by how.
        outcomes: BTreeMap<String, u64>,
        /// Calls from them into the host, by function.
        host_calls: BTreeMap<String, u64>,
        /// What these calls took, by function; `other` are those to WASI that are not told apart, such as
        /// waiting.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        host_use: BTreeMap<String, HostUse>,
        /// Bytes copied into them.
        bytes_in: u64,
        /// Bytes copied out of them.
        bytes_out: u64,
        /// Time spent inside them.
        guest_seconds: f64,
        /// The largest that the linear memories of one came to.
        peak_memory_bytes: u64,
        /// Times that something was refused to them. Each thing is an entry of its own, once an instance.
        #[serde(default, skip_serializing_if = "is_zero")]
        denials: u64,
        /// Time that tensor programs ran for them.
        compute_seconds: f64,
        /// The most memory that tensor programs of one held on a device.
        compute_peak_bytes: u64,
        /// The most that one of them came to.
        most: MostOfOne,
    },
    /// A plugin did otherwise than it usually does, beyond the threshold of its pipeline.
    ConductDeviated {
        /// The run, or the stretch of time in which it was served.
        run: Option<RunId>,
        /// The plugin.
        plugin: PluginRef,
        /// The stage it ran in.
        stage: String,
        /// What was measured, such as `calls:http.handle`, `target` or `guest-seconds`.
        measure: String,
        /// How far it is from what is usual; the unit is a robust standard deviation.
        score: f64,
        /// What it came to, where it is a number.
        observed: Option<f64>,
        /// What is usual, where it is a number.
        usual: Option<f64>,
        /// In words and figures.
        reason: String,
    },
    /// What the plugins of a run did was held against what they usually do.
    ConductScored {
        /// The run, or the stretch of time in which they were served.
        run: RunId,
        /// The components that were judged.
        plugins: Vec<Digest>,
        /// Those of them that did otherwise than usual; nothing is learned from what they did.
        deviating: Vec<Digest>,
    },
    /// A component was given another standing. Where the change does not follow from the standing
    /// it had, because somebody else was faster, it changes nothing.
    StandingChanged {
        /// The component.
        plugin: PluginRef,
        /// The standing it had, if it was known.
        from: Option<Standing>,
        /// The standing it has now.
        to: Standing,
        /// Whether its instances are slowed down from now on.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        throttled: bool,
        /// Whether what it has done so far counts as usual from now on, deviations among it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        accepts: bool,
        /// Who decided: an operator of this system, or none where it was a rule.
        operator: Option<String>,
        /// Why.
        reason: String,
        /// The run that gave the occasion, if any.
        run: Option<RunId>,
        /// The approval that it was done by, if it took one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        approval: Option<String>,
    },
    /// Recordings are taken away, because they are older than they are to be kept. The entries that
    /// name them stay.
    RecordingsRemoved {
        /// Those that were made before this time.
        before: String,
        /// How many.
        recordings: u64,
        /// Files, with the rows and models that no other recording refers to.
        files: u64,
        /// Bytes of these.
        bytes: u64,
    },
    /// What a plugin keeps by a grant of `state` is taken away, all of it, once this entry is there.
    StateCleared {
        /// The pipeline whose plugin it is; nothing for one that is loaded without a pipeline.
        pipeline: String,
        /// What the pipeline calls the plugin.
        name: String,
        /// The id in its manifest.
        plugin: String,
        /// How many keys.
        keys: u64,
        /// Bytes of keys and values together.
        bytes: u64,
        /// Who cleared it.
        by: String,
        /// Why.
        reason: String,
    },
    /// The oldest entries are in an archive now, and leave the log. Their hashes stay, and so do the
    /// lines of those about keys and about the standing of components.
    EntriesArchived {
        /// They are those from before this time.
        before: String,
        /// The first of them.
        first: u64,
        /// The last of them.
        last: u64,
        /// The digest of the last.
        digest: Digest,
        /// The root of the tree of all entries up to the last.
        root: TreeHash,
        /// Bytes of the lines of all entries up to the last.
        bytes: u64,
        /// The digest of the lines that stay.
        kept: Digest,
    },
    /// What an instance of a plugin spent of its compute budget.
    ComputeUsed {
        /// The run, if any.
        run: Option<RunId>,
        /// The plugin.
        plugin: PluginRef,
        /// The stage it ran in.
        stage: String,
        /// What it ran on, such as `cpu`.
        device: String,
        /// Programs compiled.
        programs: u32,
        /// Time spent computing.
        seconds: f64,
        /// The most bytes of tensors, weights and working memory that were held at one time.
        peak_bytes: u64,
        /// Floating-point operations that its programs were planned to take.
        #[serde(default, skip_serializing_if = "is_zero")]
        flops: u64,
    },
    /// What an instance of a plugin was asked and answered was kept, so that it can be replayed.
    Recorded {
        /// The run, if any.
        run: Option<RunId>,
        /// The plugin.
        plugin: PluginRef,
        /// The stage it ran in.
        stage: String,
        /// The digest of the recording.
        recording: Digest,
        /// Calls in it.
        calls: u64,
        /// Calls from the plugin into the host in it.
        host_calls: u64,
        /// Its size, without the rows, models and components it refers to.
        bytes: u64,
    },
    /// A policy decided.
    Decided {
        /// The run, if any.
        run: Option<RunId>,
        /// The policy plugin, or none where the host's own default decided.
        plugin: Option<PluginRef>,
        /// Where in the line the question was asked.
        control_point: String,
        /// Who asked.
        principal: String,
        /// What was to be done.
        action: String,
        /// What it was to be done to.
        resource: String,
        /// `allow`, `deny` or `require-approval`.
        effect: String,
        /// Why, in sentences.
        reasons: Vec<String>,
        /// What must be done along with it.
        obligations: Vec<serde_json::Value>,
        /// The recording of it, where the policy was recorded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recording: Option<Digest>,
    },
    /// The gate judged a model.
    Gated {
        /// The run.
        run: RunId,
        /// Whether every check passed.
        approved: bool,
        /// The checks, in order.
        checks: Vec<GateCheck>,
    },
    /// A model version was registered.
    Registered {
        /// The run that made it.
        run: RunId,
        /// The name of the model.
        model: String,
        /// The version.
        version: u64,
        /// The digest of the model file.
        model_digest: Digest,
        /// The digest of its lineage.
        lineage: Digest,
        /// The digest of everything that is kept with the version: what its plugins may do, who vouches
        /// for them and who is asked before it answers are in it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        document: Option<Digest>,
    },
    /// A run came to a model that is registered, and who vouches for its plugins was renewed.
    VersionRenewed {
        /// The run.
        run: RunId,
        /// The name of the model.
        model: String,
        /// The version.
        version: u64,
        /// The digest of everything that is kept with the version from now on.
        document: Digest,
    },
    /// An alias of a model was set or moved.
    AliasMoved {
        /// The name of the model.
        model: String,
        /// The alias.
        alias: String,
        /// The version it meant before, if it was there.
        from: Option<u64>,
        /// The version it means now.
        to: u64,
        /// The run that moved it, if any.
        run: Option<RunId>,
        /// The approval that it was moved by, if it took one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        approval: Option<String>,
    },
    /// A management call was allowed or refused, before anything of it was done.
    AccessDecided {
        /// Who asked: a principal, `local:` and a name of the system where access is not set up, or
        /// `unknown`.
        principal: String,
        /// The id of the token they came with, never the token.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<String>,
        /// What was to be done.
        action: String,
        /// What it was to be done to.
        resource: String,
        /// The digest of exactly that, where it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        digest: Option<Digest>,
        /// Whether it may be done.
        allowed: bool,
        /// The ids of the policies that decided.
        policies: Vec<String>,
        /// Why, in sentences.
        reasons: Vec<String>,
        /// The digest of the policies, where there were any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        policy_set: Option<Digest>,
        /// The digest of the component that evaluated them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        engine: Option<Digest>,
        /// The recording of it, by which it can be shown again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recording: Option<Digest>,
    },
    /// Who may do what was changed: a principal, a token, or what was settled.
    AccessChanged {
        /// Who changed it.
        by: String,
        /// What happened, such as `principal-added`, `token-issued` or `token-revoked`.
        change: String,
        /// To whom or what, such as `principal:ann` or `token:0a1b2c3d4e5f6071`.
        subject: String,
        /// In words and figures.
        detail: String,
    },
    /// Somebody asked for what takes a second person's approval.
    ApprovalRequested {
        /// The id of the request.
        approval: String,
        /// What it is for: `promote`, `widen` or `release`.
        kind: String,
        /// Exactly what it is for, with digests.
        subject: serde_json::Value,
        /// The digest of that.
        subject_digest: Digest,
        /// Who asked.
        requester: String,
        /// Until when it can be answered.
        expires: String,
    },
    /// Another principal answered a request.
    ApprovalDecided {
        /// The id of the request.
        approval: String,
        /// What it is for.
        kind: String,
        /// The digest of exactly what it is for.
        subject_digest: Digest,
        /// Who asked.
        requester: String,
        /// Whether it was approved.
        approved: bool,
        /// Who answered.
        by: String,
        /// Why.
        reason: String,
    },
    /// An approved request took effect, or could not any more.
    ApprovalCarriedOut {
        /// The id of the request.
        approval: String,
        /// What it is for.
        kind: String,
        /// The digest of exactly what it is for.
        subject_digest: Digest,
        /// `done`, or why it is void.
        outcome: String,
    },
    /// Requests to a server that were refused since the last such entry because nobody knew who
    /// asked, or because they may not.
    RequestsRefused {
        /// How many, by why: `no-token`, `malformed`, `unknown`, `expired`, `revoked`, `disabled`,
        /// `denied` or `too-many`.
        refusals: BTreeMap<String, u64>,
    },
    /// A server began to answer.
    ServeStarted {
        /// The models it serves, as `name@version`.
        models: Vec<String>,
        /// Where it listens.
        address: String,
    },
    /// A server stopped.
    ServeStopped {
        /// Requests answered while it ran.
        predictions: u64,
    },
    /// Predictions served since the last such event.
    PredictionsServed {
        /// The name of the model.
        model: String,
        /// The version.
        version: u64,
        /// Who asked, where a server knows whom it answers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        principal: Option<String>,
        /// Requests.
        count: u64,
        /// Rows in them.
        rows: u64,
        /// Requests that failed.
        failures: u64,
    },
    /// An incomplete last line, left by a crash, was dropped from this log.
    LogRepaired {
        /// How many bytes were dropped.
        dropped_bytes: u64,
        /// The digest of those bytes.
        dropped: Digest,
    },
    /// An incomplete last checkpoint, left by a crash, was dropped. A new one takes its place.
    CheckpointsRepaired {
        /// How many bytes were dropped.
        dropped_bytes: u64,
        /// The digest of those bytes.
        dropped: Digest,
    },
    /// One of the two heads of this log, which say where it ends, was incomplete, or named an entry that
    /// is lost, as a loss of power leaves it. The other one took its place.
    HeadRepaired {
        /// How many bytes were dropped.
        dropped_bytes: u64,
        /// The digest of those bytes.
        dropped: Digest,
    },
    /// The log was given its first key, which signs it from here on.
    KeyCreated {
        /// The key; its name is the name of the log.
        key: VerifierKey,
    },
    /// The key in force named the one that signs from here on.
    KeyRotated {
        /// The new key.
        key: VerifierKey,
        /// A note signed by the key that was in force, whose text is the line `sandcast audit key
        /// rotation`, the name of the log, the number of this entry, the digest of the entry
        /// before it, and the new key.
        note: String,
    },
    /// An operator gave the log a new key without the signature of the old one, which is lost or
    /// cannot be trusted any more. Who checks the log must be told the new key in another way.
    KeyReplaced {
        /// The new key.
        key: VerifierKey,
        /// What happened to the old one, in the words of the operator.
        reason: String,
    },
}

/// The first line of what a key signs when it gives way to another: no checkpoint begins so,
/// for the second line of one is a number.
pub(crate) const ROTATION_TITLE: &str = "sandcast audit key rotation";

/// What a key signs when it gives way to another: bound to one place of one log.
pub(crate) fn rotation_text(key: &VerifierKey, sequence: u64, previous: &Digest) -> String {
    format!(
        "{ROTATION_TITLE}\n{}\n{sequence}\n{previous}\n{key}\n",
        key.name()
    )
}

impl Event {
    /// The key that is in force from this event on, where it is about that.
    pub(crate) fn key(&self) -> Option<&VerifierKey> {
        match self {
            Self::KeyCreated { key }
            | Self::KeyRotated { key, .. }
            | Self::KeyReplaced { key, .. } => Some(key),
            _ => None,
        }
    }

    /// Whether the log is pushed to the disk itself before the event counts as recorded, and a
    /// checkpoint signed after it.
    pub(crate) fn is_boundary(&self) -> bool {
        matches!(
            self,
            Self::RunStarted { .. }
                | Self::RunFinished { .. }
                | Self::Gated { .. }
                | Self::Registered { .. }
                | Self::VersionRenewed { .. }
                | Self::AliasMoved { .. }
                | Self::ServeStarted { .. }
                | Self::ServeStopped { .. }
                | Self::LogRepaired { .. }
                | Self::HeadRepaired { .. }
                | Self::EntriesArchived { .. }
                | Self::KeyCreated { .. }
                | Self::KeyRotated { .. }
                | Self::KeyReplaced { .. }
                | Self::StandingChanged { .. }
                | Self::StateCleared { .. }
                | Self::RecordingsRemoved { .. }
                | Self::AccessChanged { .. }
                | Self::ApprovalDecided { .. }
                | Self::ApprovalCarriedOut { .. }
        )
    }
}

/// Who a certificate says signed a component, with what vouches for that: a Sigstore bundle that held
/// under a root of trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CertifiedSigner {
    /// An e-mail address, or a URI such as that of a workflow.
    pub identity: String,
    /// Who issued that identity.
    pub issuer: String,
    /// The id of the transparency log with the signature: the hash of its key, in hex.
    pub log: String,
    /// The number of the signature in the log.
    pub log_index: u64,
    /// The earliest time of the signature that a log or a timestamp authority vouches for.
    #[schemars(with = "String")]
    pub time: jiff::Timestamp,
    /// The kind of what was attested, where a statement about the component was signed and not the
    /// component itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<String>,
    /// The digest of the root of trust that all of it held under.
    pub trust_root: Digest,
}

/// What calls of one function of the host took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostUse {
    /// How many calls there were.
    pub calls: u64,
    /// Wall time inside of them, waiting included.
    pub seconds: f64,
    /// Bytes copied into the plugin.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes_in: u64,
    /// Bytes copied out of it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes_out: u64,
}

impl std::ops::AddAssign for HostUse {
    fn add_assign(&mut self, more: Self) {
        self.calls = self.calls.saturating_add(more.calls);
        self.seconds += more.seconds;
        self.bytes_in = self.bytes_in.saturating_add(more.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(more.bytes_out);
    }
}

/// How far a component is trusted.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It is never loaded again.
    Revoked,
    /// It is not loaded until it is released.
    Quarantined,
    /// It may be loaded and has not run yet.
    Admitted,
    /// It runs, and has not shown for long enough what it does.
    Probation,
    /// It has shown what it does, or an operator vouches for it.
    Trusted,
}

impl Standing {
    /// The word that stands in records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Quarantined => "quarantined",
            Self::Admitted => "admitted",
            Self::Probation => "probation",
            Self::Trusted => "trusted",
        }
    }

    /// Whether a component of this standing may be loaded.
    #[must_use]
    pub fn may_load(self) -> bool {
        self >= Self::Admitted
    }
}

impl std::fmt::Display for Standing {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// Which plugin did something: enough to find the very bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct PluginRef {
    /// The id in its manifest, such as `sandcast/connector-csv`.
    pub id: String,
    /// The version in its manifest.
    pub version: String,
    /// What it does: `connector`, `validator`, `policy` or `adapter`.
    pub role: String,
    /// The digest of its component.
    pub digest: Digest,
}

/// The most that one instance of a plugin came to, each figure by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MostOfOne {
    /// Calls into the host.
    pub host_calls: u64,
    /// Bytes copied into it.
    pub bytes_in: u64,
    /// Bytes copied out of it.
    pub bytes_out: u64,
    /// Time spent inside it.
    pub guest_seconds: f64,
}

/// One condition of the gate and what it came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GateCheck {
    /// The expression as written.
    pub expression: String,
    /// Whether it held.
    pub passed: bool,
    /// The values it was judged on, in words.
    pub observed: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
