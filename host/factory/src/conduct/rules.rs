//! The section `conduct` of a pipeline file: when a plugin did otherwise than usual, and what is
//! done about it.

use std::collections::BTreeMap;

use sandcast_audit::Standing;
use sandcast_sandbox::{Grants, Isolation, Role};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is done about plugins that do otherwise than they usually do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConductSection {
    /// What is done about a plugin that deviates, unless its role or its name says otherwise.
    pub response: Response,
    /// The same by role.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub roles: BTreeMap<Role, Response>,
    /// The same by the name of a plugin, which comes before its role.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub plugins: BTreeMap<String, Response>,
    /// From how many robust standard deviations on something is a deviation.
    #[schemars(range(min = 2.0, max = 100.0))]
    pub threshold: f64,
    /// Runs that are learned before anything is judged.
    #[schemars(range(min = 3, max = 50))]
    pub runs: u32,
    /// Clean runs after which a plugin on probation is trusted.
    #[schemars(range(min = 1, max = 1000))]
    pub trust_after: u32,
    /// With the response `kill`: how many times what is usual an instance may come to.
    #[schemars(range(min = 2.0, max = 1000.0))]
    pub headroom: f64,
    /// With the response `throttle`: the share of its time that a guest may run, in percent.
    #[schemars(range(min = 1, max = 99))]
    pub pace: u8,
    /// Who lets a component in that was never seen here.
    pub admission: Admission,
    /// Whose instances run in processes of their own, whatever the grants of a plugin say.
    #[serde(skip_serializing_if = "Isolate::is_default")]
    pub isolate: Isolate,
}

/// What is done about a plugin that deviates. Each does what those before it do, but that a plugin
/// that is not loaded need not be slowed down.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// It is told and recorded; what is trusted goes back to probation.
    #[default]
    Alert,
    /// And from the next run on it runs for a share of its time only, with one request at a time.
    Throttle,
    /// And it is not loaded again until an operator releases it.
    Quarantine,
    /// And while a run goes on, an instance that goes far beyond what is usual is ended.
    Kill,
}

impl Response {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Throttle => "throttle",
            Self::Quarantine => "quarantine",
            Self::Kill => "kill",
        }
    }
}

/// Who lets a component in that was never seen here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Admission {
    /// Whoever names it in a pipeline.
    #[default]
    Automatic,
    /// An operator, with `sandcast plugins admit`.
    Operator,
}

/// Whose instances run in processes of their own, by how far a component is trusted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Isolate {
    /// Those whose grants say so.
    #[default]
    Granted,
    /// And those of components that are not trusted yet: admitted, or on probation.
    Probation,
    /// And those of components that are trusted, which is everybody.
    Trusted,
}

impl Isolate {
    /// Whether a record need not say it.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a component of a standing runs in processes of its own.
    #[must_use]
    pub fn covers(self, standing: Standing) -> bool {
        match self {
            Self::Granted => false,
            Self::Probation => standing <= Standing::Probation,
            Self::Trusted => true,
        }
    }

    /// The grants of a component of a standing, with that.
    #[must_use]
    pub fn applied(self, standing: Standing, mut grants: Grants) -> Grants {
        if self.covers(standing) {
            grants.isolation = Isolation::Process;
        }
        grants
    }
}

impl Default for ConductSection {
    fn default() -> Self {
        Self {
            response: Response::Alert,
            roles: BTreeMap::new(),
            plugins: BTreeMap::new(),
            threshold: 3.5,
            runs: 5,
            trust_after: 10,
            headroom: 10.0,
            pace: 25,
            admission: Admission::Automatic,
            isolate: Isolate::Granted,
        }
    }
}

impl ConductSection {
    /// Whether a pipeline file need not say it.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// What is done about a plugin, by its name in the pipeline and its role.
    #[must_use]
    pub fn response_to(&self, name: &str, role: Role) -> Response {
        let by_name = self.plugins.get(name);
        let by_role = self.roles.get(&role);
        by_name.or(by_role).copied().unwrap_or(self.response)
    }

    /// The values that make no sense, each with its key and what it may be.
    pub(crate) fn mistakes(&self) -> Vec<(&'static str, &'static str)> {
        let mut found = Vec::new();
        let mut check = |key, holds: bool, may_be| {
            if !holds {
                found.push((key, may_be));
            }
        };
        let is_in = |range: std::ops::RangeInclusive<f64>, value: f64| range.contains(&value);
        check("threshold", is_in(2.0..=100.0, self.threshold), "2 to 100");
        check("runs", (3..=50).contains(&self.runs), "3 to 50");
        check(
            "trust_after",
            (1..=1000).contains(&self.trust_after),
            "1 to 1000",
        );
        check("headroom", is_in(2.0..=1000.0, self.headroom), "2 to 1000");
        check("pace", (1..=99).contains(&self.pace), "1 to 99 percent");
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_before_a_role_and_a_role_before_the_rest() {
        let rules = ConductSection {
            response: Response::Quarantine,
            roles: [(Role::Connector, Response::Throttle)].into(),
            plugins: [("crm".to_owned(), Response::Kill)].into(),
            ..ConductSection::default()
        };
        assert_eq!(rules.response_to("crm", Role::Connector), Response::Kill);
        assert_eq!(
            rules.response_to("csv", Role::Connector),
            Response::Throttle
        );
        assert_eq!(
            rules.response_to("mlp", Role::Adapter),
            Response::Quarantine
        );
    }

    #[test]
    fn who_is_not_trusted_yet_is_isolated_where_that_is_wanted() {
        use Standing::{Admitted, Probation, Trusted};
        let apart = |rule: Isolate| {
            [Admitted, Probation, Trusted].map(|standing| {
                let grants = rule.applied(standing, Grants::default());
                grants.isolation == Isolation::Process
            })
        };
        assert_eq!(apart(Isolate::Granted), [false, false, false]);
        assert_eq!(apart(Isolate::Probation), [true, true, false]);
        assert_eq!(apart(Isolate::Trusted), [true, true, true]);
        let granted = Grants {
            isolation: Isolation::Process,
            ..Grants::default()
        };
        for rule in [Isolate::Granted, Isolate::Probation] {
            let grants = rule.applied(Trusted, granted.clone());
            assert_eq!(grants.isolation, Isolation::Process, "never less");
        }
    }

    #[test]
    fn values_out_of_range_are_told() {
        let rules = ConductSection {
            threshold: f64::NAN,
            pace: 0,
            ..ConductSection::default()
        };
        let keys: Vec<&str> = rules.mistakes().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["threshold", "pace"]);
        assert!(ConductSection::default().mistakes().is_empty());
    }
}
