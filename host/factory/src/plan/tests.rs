use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sandcast_audit::{Digest, RunId};
use sandcast_sandbox::{
    Capability, CapabilityRequest, Import, Inspection, Manifest, OperatorRules, Role,
};

use super::{Component, Plan, PlanError, Reuse, plan};
use crate::config::Pipeline;
use crate::config::tests::GOOD;

fn component(name: &str, role: Role, capability: Option<Capability>) -> Component {
    let import = |capability: Capability| Import {
        interface: format!("test:{capability}/all@0.1.0"),
        functions: vec!["one".to_owned()],
        capability: Some(capability),
        noise: false,
    };
    let asked = |capability: Capability| CapabilityRequest {
        capability: capability.to_string(),
        reason: format!("needs {capability}"),
    };
    let digest = Digest::of(name.as_bytes());
    Component {
        path: PathBuf::from(format!("/plugins/{name}.wasm")),
        inspection: Inspection {
            digest,
            size_bytes: 1000,
            manifest: Manifest {
                id: format!("test/{name}"),
                version: "0.1.0".to_owned(),
                role,
                contract: "0.1.0".to_owned(),
                vendor: String::new(),
                contact: String::new(),
                license: String::new(),
                description: String::new(),
                capabilities: capability.into_iter().map(asked).collect(),
                adapter: None,
            },
            role,
            contract: "0.1.0".to_owned(),
            imports: capability.into_iter().map(import).collect(),
            exports: Vec::new(),
        },
        bytes: Vec::new().into(),
        signature: None,
        bundle: None,
    }
}

fn components() -> BTreeMap<String, Component> {
    BTreeMap::from([
        (
            "csv".to_owned(),
            component("csv", Role::Connector, Some(Capability::Files)),
        ),
        (
            "rules".to_owned(),
            component("rules", Role::Validator, Some(Capability::Clock)),
        ),
        ("cedar".to_owned(), component("cedar", Role::Policy, None)),
        (
            "mlp".to_owned(),
            component("mlp", Role::Adapter, Some(Capability::Compute)),
        ),
    ])
}

fn pipeline(text: &str) -> Pipeline {
    Pipeline::parse(text, Path::new("/line/pipeline.yaml")).expect("everything is right")
}

fn planned(text: &str) -> Plan {
    plan(&pipeline(text), &components()).expect("the plugins fit")
}

#[test]
fn a_plan_is_a_tree() {
    let mut planned = planned(GOOD);
    let run: RunId = "20261121-201530-4f3a9c".parse().expect("a run");
    planned.stages[1].reuse = Reuse::Unchanged {
        run,
        when: "2026-11-21T20:15:30Z".to_owned(),
    };
    insta::assert_snapshot!("tree", planned.to_string());
}

#[test]
fn a_missing_grant_is_seen() {
    let planned = planned(GOOD);
    let rules = planned
        .plugins
        .iter()
        .find(|it| it.name == "rules")
        .expect("it is planned");
    assert!(
        rules
            .capabilities
            .iter()
            .any(|it| it.capability == "clock" && it.is_missing())
    );
    let csv = planned
        .plugins
        .iter()
        .find(|it| it.name == "csv")
        .expect("it is planned");
    assert!(csv.capabilities.iter().all(|it| !it.is_missing()));
}

/// The names of the stages whose recipes differ.
fn changed(one: &str, other: &str) -> Vec<String> {
    let (one, other) = (planned(one), planned(other));
    let pairs = one.stages.iter().zip(&other.stages);
    pairs
        .filter(|(one, other)| one.recipe != other.recipe)
        .map(|(it, _)| it.stage.clone())
        .collect()
}

#[test]
fn a_change_reaches_what_comes_after_it_and_nothing_else() {
    let nothing: [&str; 0] = [];
    assert_eq!(
        changed(
            GOOD,
            &GOOD.replace("call_timeout: 10m", "call_timeout: 20m")
        ),
        nothing
    );
    assert_eq!(
        changed(GOOD, &GOOD.replace("auc >= 0.75", "auc >= 0.76")),
        ["gate", "register"]
    );
    assert_eq!(
        changed(GOOD, &GOOD.replace("threshold: 0.5", "threshold: 0.4")),
        ["evaluate", "gate", "register"]
    );
    assert_eq!(
        changed(GOOD, &GOOD.replace("seed: 7", "seed: 8")),
        ["train", "evaluate", "gate", "register"]
    );
    assert_eq!(
        changed(GOOD, &GOOD.replace("min: 18", "min: 21")),
        [
            "validate", "permit", "train", "evaluate", "gate", "register"
        ]
    );
    assert_eq!(
        changed(GOOD, &GOOD.replace("/data/web.csv", "/data/net.csv")),
        [
            "connect web",
            "query",
            "validate",
            "permit",
            "train",
            "evaluate",
            "gate",
            "register"
        ]
    );
}

#[test]
fn a_plugin_that_is_another_is_refused() {
    let digest = Digest::of(b"csv");
    let role = "role: connector";
    let pinned = GOOD.replace(role, &format!("{role}\n    digest: {digest}"));
    plan(&pipeline(&pinned), &components()).expect("this is the one that is meant");
    let pinned = GOOD.replace(
        role,
        &format!("{role}\n    digest: {}", Digest::of(b"other")),
    );
    let error = plan(&pipeline(&pinned), &components()).expect_err("this is another one");
    assert!(matches!(error, PlanError::OtherDigest { .. }), "{error}");

    let mut components = components();
    components.insert("csv".to_owned(), component("csv", Role::Validator, None));
    let error = plan(&pipeline(GOOD), &components).expect_err("a validator reads nothing");
    assert!(matches!(error, PlanError::OtherRole { .. }), "{error}");
}

#[test]
fn a_plugin_that_nobody_signed_is_said_to_be_refused() {
    let mut pipeline = pipeline(GOOD);
    let rule = sandcast_sandbox::TrustRule {
        required: true,
        keys: Vec::new(),
        identities: Vec::new(),
    };
    pipeline.sections.trust.insert(Role::Connector, rule);
    let plan = plan(&pipeline, &components()).expect("a plan");
    let untrusted = plan.plugins.iter().filter(|it| it.untrusted.is_some());
    let untrusted: Vec<&str> = untrusted.map(|it| it.name.as_str()).collect();
    assert_eq!(untrusted, ["csv"]);
    assert!(plan.to_string().contains("NOT TRUSTED"), "{plan}");
}

#[test]
fn what_the_rules_of_the_operator_refuse_is_said() {
    let components = components();
    let mut plan = plan(&pipeline(GOOD), &components).expect("a plan");
    plan.hold_to(&OperatorRules::default(), &components);
    let before = plan.to_string();
    assert!(
        !before.contains("CEILING") && !before.contains("NOT TRUSTED"),
        "{before}"
    );
    let mut rules = OperatorRules {
        ceiling: Some(sandcast_sandbox::Ceiling::default()),
        ..OperatorRules::default()
    };
    let rule = sandcast_sandbox::TrustRule {
        required: true,
        keys: Vec::new(),
        identities: Vec::new(),
    };
    rules.trust.insert(Role::Adapter, rule);
    plan.hold_to(&rules, &components);
    let told = plan.to_string();
    assert!(told.contains("OVER THE CEILING"), "{told}");
    assert!(told.contains("by the operator's rule of trust"), "{told}");
}
