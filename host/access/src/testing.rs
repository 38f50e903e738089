//! A state folder with two operators, an auditor and a service.

use std::path::Path;

use jiff::Timestamp;
use sandcast_audit::{AuditLog, Digest, Event};
use tempfile::TempDir;

use crate::{
    ACCESS_FOLDER, Action, FourEyes, Gate, IssuedToken, Judge, JudgeError, Judging, Policies,
    PrincipalId, Question, Role, Settings, Store, Verdict,
};

/// Operators may do everything, services may ask models. The real policies are asked where the real
/// plugin is.
pub(crate) struct ByRole;

impl Judge for ByRole {
    fn engine(&self) -> Digest {
        Digest::of(b"by role")
    }

    fn judge<'a>(&'a self, policies: &'a Policies, question: &'a Question) -> Judging<'a> {
        Box::pin(async move {
            if policies.text.is_empty() {
                return Err(JudgeError::Policies("there are none".to_owned()));
            }
            let serves = question.action == Action::Predict;
            let allowed = question.roles.contains(&Role::Operator)
                || serves && question.roles.contains(&Role::Service);
            let reason = match allowed {
                true => "permit `by-role`: it has the role".to_owned(),
                false => "no policy permits it".to_owned(),
            };
            Ok(Verdict::of_reasons(allowed, vec![reason]))
        })
    }
}

pub(crate) struct Place {
    pub(crate) folder: TempDir,
    pub(crate) audit: AuditLog,
    pub(crate) store: Store,
    /// Ann's, who is an operator.
    pub(crate) ann: IssuedToken,
}

pub(crate) fn id(name: &str) -> PrincipalId {
    name.parse().expect("a name")
}

pub(crate) fn at(time: &str) -> Timestamp {
    time.parse().expect("a time")
}

pub(crate) fn settings() -> Settings {
    Settings {
        initialised: Timestamp::now(),
        engine: ByRole.engine(),
        four_eyes: FourEyes::ALL.into(),
    }
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let audit = AuditLog::open(&folder.path().join("audit")).expect("a log");
        let (store, ann) = Store::initialise(
            folder.path(),
            &audit,
            (&id("ann"), 90),
            &settings(),
            "local:ann",
            |_| Ok(()),
        )
        .expect("it is set up");
        Self {
            folder,
            audit,
            store,
            ann,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn add(&self, name: &str, role: Role) -> IssuedToken {
        let now = Timestamp::now();
        self.store
            .add_principal(&self.audit, &id(name), [role].into(), now, "ann")
            .expect("added");
        self.store
            .issue_token(&self.audit, &id(name), 90, now, "ann")
            .expect("issued")
    }

    pub(crate) fn gate(&self) -> Gate {
        Gate::guarded(self.audit.clone(), self.store.clone(), Box::new(ByRole))
    }

    /// Runs SQL on the database, as somebody with an editor would.
    pub(crate) fn by_hand(&self, sql: &str) {
        let connection =
            rusqlite::Connection::open(self.path().join("access.sqlite")).expect("it opens");
        connection.execute_batch(sql).expect("it is done");
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        let entries = self.audit.entries().expect("entries");
        entries.into_iter().map(|entry| entry.event).collect()
    }

    pub(crate) fn write_policies(&self, text: &str) {
        let file = self.path().join(ACCESS_FOLDER).join("policies.cedar");
        std::fs::write(file, text).expect("written");
    }
}

/// Runs a future that never waits.
pub(crate) fn now_or_never<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(done) => done,
        std::task::Poll::Pending => panic!("it waits"),
    }
}
