use super::*;
use crate::manifest::{CapabilityRequest, Manifest, Role};

fn import(interface: &str, functions: &[&str], capability: Option<Capability>) -> Import {
    Import {
        interface: interface.to_owned(),
        functions: functions.iter().map(|it| (*it).to_owned()).collect(),
        capability,
        noise: false,
    }
}

fn files() -> Import {
    import(
        "wasi:filesystem/types@0.2.12",
        &["[method]descriptor.read"],
        Some(Capability::Files),
    )
}

fn http(version: &str) -> Import {
    import(
        &format!("wasi:http/outgoing-handler@{version}"),
        &["handle"],
        Some(Capability::Http),
    )
}

fn component(version: &str, asks: &[&str], imports: Vec<Import>) -> Inspection {
    let asks = asks.iter().map(|name| CapabilityRequest {
        capability: (*name).to_owned(),
        reason: "a test".to_owned(),
    });
    Inspection {
        digest: Digest::of(version.as_bytes()),
        size_bytes: 1000,
        manifest: Manifest {
            id: "test/part".to_owned(),
            version: version.to_owned(),
            role: Role::Connector,
            contract: "0.1.0".to_owned(),
            vendor: "test".to_owned(),
            contact: "test".to_owned(),
            license: "MIT".to_owned(),
            description: String::new(),
            capabilities: asks.collect(),
            adapter: None,
        },
        role: Role::Connector,
        contract: "0.1.0".to_owned(),
        imports,
        exports: vec!["sandcast:plugin/connector@0.1.0".to_owned()],
    }
}

fn unapproved(old: &Inspection, new: &Inspection, approved: &[&str]) -> Vec<String> {
    let approved: Vec<String> = approved.iter().map(|it| (*it).to_owned()).collect();
    diff(old, new, &approved).unapproved
}

#[test]
fn nothing_changes_between_a_component_and_itself() {
    let one = component("1.0.0", &["files"], vec![files()]);
    let same = diff(&one, &one, &[]);
    assert!(same.is_same() && same.facts.is_empty() && same.versions.is_empty());
    for changes in [
        &same.capabilities,
        &same.imports,
        &same.functions,
        &same.exports,
    ] {
        assert!(changes.is_empty(), "{changes:?}");
    }
    assert_eq!(same.unapproved, [""; 0]);
}

#[test]
fn a_gained_capability_wants_approval_by_one_of_its_names() {
    let old = component("1.0.0", &["files"], vec![files()]);
    let new = component("1.1.0", &["files", "http"], vec![files(), http("0.2.12")]);
    let found = diff(&old, &new, &[]);
    assert_eq!(found.capabilities.gained, ["http"]);
    assert_eq!(found.imports.gained, ["wasi:http/outgoing-handler"]);
    assert_eq!(found.functions, Changes::default());
    assert_eq!(found.unapproved, ["http", "wasi:http/outgoing-handler"]);
    assert!(found.new.risk.score > found.old.risk.score);
    assert_eq!(unapproved(&old, &new, &["http"]), [""; 0]);
    // The interface alone does not approve what the manifest asks for.
    for name in ["wasi:http/outgoing-handler", "wasi:http"] {
        assert_eq!(unapproved(&old, &new, &[name]), ["http"], "{name}");
    }
    assert_eq!(
        unapproved(&old, &new, &["files"]),
        ["http", "wasi:http/outgoing-handler"]
    );
    let back = diff(&new, &old, &[]);
    assert_eq!(back.capabilities.lost, ["http"]);
    assert_eq!(back.unapproved, [""; 0]);
}

#[test]
fn a_new_function_of_an_old_interface_is_a_gain() {
    let old = component("1.0.0", &["files"], vec![files()]);
    let mut more = files();
    more.functions
        .push("[method]descriptor.unlink-file-at".into());
    let new = component("1.1.0", &["files"], vec![more]);
    let gained = "wasi:filesystem/types#[method]descriptor.unlink-file-at";
    assert_eq!(unapproved(&old, &new, &[]), [gained]);
    for name in [gained, "wasi:filesystem/types", "files"] {
        assert_eq!(unapproved(&old, &new, &[name]), [""; 0], "{name}");
    }
}

#[test]
fn a_gain_does_not_hide_as_noise_of_a_standard_library() {
    let old = component("1.0.0", &[], vec![]);
    let mut noise = files();
    noise.noise = true;
    let new = component("1.1.0", &[], vec![noise]);
    let found = diff(&old, &new, &[]);
    assert_eq!(found.capabilities, Changes::default());
    assert_eq!(found.unapproved, ["wasi:filesystem/types"]);
}

#[test]
fn another_version_of_an_interface_is_told_and_is_no_gain() {
    let old = component("1.0.0", &["http"], vec![http("0.2.9")]);
    let new = component("1.0.1", &["http"], vec![http("0.2.12")]);
    let found = diff(&old, &new, &[]);
    assert_eq!(found.unapproved, [""; 0]);
    let [change] = &found.versions[..] else {
        panic!("one change: {:?}", found.versions)
    };
    assert_eq!((&*change.old, &*change.new), ("0.2.9", "0.2.12"));
}

#[test]
fn facts_that_changed_are_told_and_made_fit_to_be_shown() {
    let old = component("1.0.0", &["files"], vec![files()]);
    let mut new = component("1.0.0", &["files"], vec![files()]);
    new.manifest.license = "proprietary\u{1b}[2J".into();
    new.manifest.capabilities[0].reason = "everything".into();
    let facts = diff(&old, &new, &[]).facts;
    let told: Vec<(&str, &str, &str)> = facts
        .iter()
        .map(|it| (&*it.fact, &*it.old, &*it.new))
        .collect();
    assert_eq!(
        told,
        [
            ("licence", "MIT", "proprietary\\u{1b}[2J"),
            ("reason for files", "a test", "everything"),
        ]
    );
}
