use std::collections::BTreeSet;
use std::num::NonZeroU16;

use proptest::collection::vec;
use proptest::prelude::*;
use sandcast_audit::Digest;

use super::*;
use crate::grants::{
    Access, BlobGrant, ByteSize, Capability, ComputeGrant, FileGrant, HttpGrant, HttpMethod,
    HttpScheme, RandomGrant, SqlGrant, StateGrant, TimeSpan,
};
use crate::inspect::Import;
use crate::manifest::{CapabilityRequest, Manifest, Role};

fn import(capability: Capability, noise: bool) -> Import {
    let interface = match capability {
        Capability::Files => "wasi:filesystem/types@0.2.12",
        Capability::Http => "wasi:http/outgoing-handler@0.2.12",
        Capability::Log => "wasi:logging/logging",
        Capability::Config => "wasi:config/store@0.2.0-rc.1",
        Capability::Clock => "wasi:clocks/wall-clock@0.2.12",
        Capability::Random => "wasi:random/random@0.2.12",
        Capability::Compute => "sandcast:plugin/compute@0.1.0",
        Capability::State => "wasi:keyvalue/store@0.2.0-draft2",
        Capability::Sql => "sandcast:plugin/sql@0.1.0",
        Capability::Blob => "sandcast:plugin/blob@0.1.0",
    };
    Import {
        interface: interface.to_owned(),
        functions: vec!["one".to_owned()],
        capability: Some(capability),
        noise,
    }
}

/// A component that says everything about itself, asks for and imports these.
fn component(role: Role, capabilities: &[Capability]) -> Inspection {
    let asks = capabilities.iter().map(|capability| CapabilityRequest {
        capability: capability.to_string(),
        reason: "a test".to_owned(),
    });
    Inspection {
        digest: Digest::of(b"test"),
        size_bytes: 1000,
        manifest: Manifest {
            id: "test/part".to_owned(),
            version: "1.0.0".to_owned(),
            role,
            contract: "0.1.0".to_owned(),
            vendor: "test".to_owned(),
            contact: "test".to_owned(),
            license: "MIT".to_owned(),
            description: String::new(),
            capabilities: asks.collect(),
            adapter: None,
        },
        role,
        contract: "0.1.0".to_owned(),
        imports: capabilities
            .iter()
            .map(|capability| import(*capability, false))
            .collect(),
        exports: vec![format!("sandcast:plugin/{role}@0.1.0")],
    }
}

fn http(host: &str) -> HttpGrant {
    serde_json::from_value(serde_json::json!({ "host": host })).expect("a grant")
}

fn folder(host: &str, access: Access) -> FileGrant {
    FileGrant {
        host: host.into(),
        guest: "/data".to_owned(),
        access,
        quota: Default::default(),
    }
}

fn weigh(inspection: &Inspection, grants: &Grants) -> Risk {
    let surroundings = Surroundings {
        grants: Some(grants),
        ..Surroundings::default()
    };
    risk(inspection, &surroundings)
}

fn factors(risk: &Risk) -> BTreeSet<&'static str> {
    let reasons = risk.reasons.iter();
    reasons.map(|reason| reason.factor.as_str()).collect()
}

#[test]
fn names_are_unlike_and_plain() {
    let names: BTreeSet<&str> = RiskFactor::ALL.iter().map(|it| it.as_str()).collect();
    assert_eq!(names.len(), RiskFactor::ALL.len());
    let is_plain = |name: &&str| name.chars().all(|c| c == '-' || c.is_ascii_lowercase());
    assert!(names.iter().all(is_plain), "{names:?}");
}

#[test]
fn what_opens_nothing_is_low_whatever_it_leaves_out() {
    let mut plain = component(Role::Policy, &[]);
    assert_eq!(risk(&plain, &Surroundings::default()).score, 0);
    plain.role = Role::Adapter;
    for fact in [
        &mut plain.manifest.vendor,
        &mut plain.manifest.contact,
        &mut plain.manifest.license,
    ] {
        fact.clear();
    }
    plain.exports = vec!["sandcast:plugin/adapter@0.1.0".into()];
    let found = risk(&plain, &Surroundings::default());
    assert_eq!(
        factors(&found),
        BTreeSet::from([
            "contact-missing",
            "facts-missing",
            "licence-missing",
            "vendor-missing"
        ])
    );
    assert_eq!(found.level, RiskLevel::Low);
}

#[test]
fn a_folder_to_read_is_low_and_a_way_out_is_high() {
    let reader = component(Role::Connector, &[Capability::Files]);
    let mut grants = Grants {
        files: vec![folder("/srv/line/data", Access::Read)],
        ..Grants::default()
    };
    assert_eq!(weigh(&reader, &grants).level, RiskLevel::Low);
    let both = component(Role::Connector, &[Capability::Files, Capability::Http]);
    grants.http = vec![http("api.example.com")];
    let found = weigh(&both, &grants);
    assert_eq!(found.level, RiskLevel::High, "{found:?}");
    assert!(factors(&found).contains("network-and-files"));
    grants.http = vec![http("*.example.com")];
    assert_eq!(weigh(&both, &grants).level, RiskLevel::Critical);
    let adapter = component(Role::Adapter, &[Capability::Http]);
    assert!(factors(&weigh(&adapter, &grants)).contains("network-and-rows"));
}

#[test]
fn wide_folders_weigh_more_than_narrow_ones() {
    let reader = component(Role::Connector, &[Capability::Files]);
    let found = |host: &str| {
        let grants = Grants {
            files: vec![folder(host, Access::Read)],
            ..Grants::default()
        };
        factors(&weigh(&reader, &grants))
    };
    assert!(found("/").contains("files-broad"));
    assert!(found("/home").contains("files-broad"));
    assert!(found("/etc/ssl").contains("files-system"));
    assert!(found("/home/me/.ssh").contains("files-system"));
    assert_eq!(found("/srv/line/data"), BTreeSet::from(["files-read"]));
    // `/etcetera/data` only begins like a folder of the system.
    assert_eq!(found("/etcetera/data"), BTreeSet::from(["files-read"]));
}

#[test]
fn what_does_not_fit_together_is_said() {
    let mut odd = component(Role::Connector, &[Capability::Files]);
    odd.imports = vec![import(Capability::Http, false)];
    odd.manifest.capabilities[0].reason = " ".into();
    odd.manifest.capabilities.push(CapabilityRequest {
        capability: "gpu".to_owned(),
        reason: "joins".to_owned(),
    });
    let grants = Grants {
        clock: true,
        ..Grants::default()
    };
    let found = weigh(&odd, &grants);
    let about = |name: &str| {
        let reasons = found.reasons.iter();
        let about = reasons.filter(|it| it.capability.as_deref() == Some(name));
        about.map(|it| it.factor.as_str()).collect::<BTreeSet<_>>()
    };
    assert_eq!(
        about("http"),
        BTreeSet::from(["imports-unasked", "imports-ungranted"])
    );
    assert_eq!(
        about("files"),
        BTreeSet::from(["asks-unimported", "asks-without-reason"])
    );
    assert_eq!(about("gpu"), BTreeSet::from(["asks-unknown"]));
    assert_eq!(about("clock"), BTreeSet::from(["grants-unimported"]));
}

#[test]
fn what_was_asked_for_and_never_used_is_said_where_runs_are_known() {
    let reader = component(Role::Connector, &[Capability::Files, Capability::Clock]);
    let used = BTreeMap::from([("files".to_owned(), 3)]);
    let found = risk(
        &reader,
        &Surroundings {
            used: Some(&used),
            ..Surroundings::default()
        },
    );
    let unused = found.reasons.iter();
    let unused = unused.filter(|it| it.factor == RiskFactor::AsksUnused);
    let unused: Vec<_> = unused.map(|it| it.capability.as_deref()).collect();
    assert_eq!(unused, [Some("clock")]);
}

#[test]
fn sensitive_data_weighs_more_where_it_can_leave() {
    let sensitive = ["sex".to_owned()];
    let surroundings = Surroundings {
        sensitive: &sensitive,
        ..Surroundings::default()
    };
    let rules = component(Role::Validator, &[]);
    assert_eq!(
        factors(&risk(&rules, &surroundings)),
        BTreeSet::from(["sensitive-data"])
    );
    let calling = component(Role::Validator, &[Capability::Http]);
    assert!(factors(&risk(&calling, &surroundings)).contains("network-and-sensitive"));
    let policy = component(Role::Policy, &[]);
    assert_eq!(factors(&risk(&policy, &surroundings)), BTreeSet::new());
}

#[test]
fn randomness_and_time_are_more_together() {
    let both = component(Role::Policy, &[Capability::Clock, Capability::Random]);
    let mut grants = Grants {
        clock: true,
        random: Some(RandomGrant { seed: Some(7) }),
        ..Grants::default()
    };
    assert_eq!(factors(&weigh(&both, &grants)), BTreeSet::from(["clock"]));
    grants.random = Some(RandomGrant { seed: None });
    assert_eq!(
        factors(&weigh(&both, &grants)),
        BTreeSet::from(["clock", "clock-and-random", "random-unseeded"])
    );
}

#[test]
fn noise_that_is_granted_unasked_is_said() {
    let mut noisy = component(Role::Connector, &[]);
    noisy.imports = vec![import(Capability::Clock, true)];
    assert_eq!(
        factors(&risk(&noisy, &Surroundings::default())),
        BTreeSet::from(["noise"])
    );
    let grants = Grants {
        clock: true,
        ..Grants::default()
    };
    assert_eq!(
        factors(&weigh(&noisy, &grants)),
        BTreeSet::from(["clock", "grants-unasked", "noise"])
    );
}

#[test]
fn another_contract_and_unknown_imports_weigh_much() {
    let mut other = component(Role::Connector, &[]);
    other.contract = "0.9.0".into();
    other.imports.push(Import {
        interface: "wasi:sockets/tcp@0.2.12".to_owned(),
        functions: vec!["one".to_owned()],
        capability: None,
        noise: false,
    });
    other.exports.push("exports".into());
    let with_tool = risk(&other, &Surroundings::default());
    assert!(
        !factors(&with_tool).contains("exports-unexpected"),
        "what the tool for an interpreter leaves behind is not called by anybody"
    );
    other.exports.push("cabi_realloc".into());
    other.size_bytes = 100 << 20;
    let found = risk(&other, &Surroundings::default());
    assert_eq!(
        factors(&found),
        BTreeSet::from([
            "component-large",
            "contract-unknown",
            "exports-unexpected",
            "imports-unknown"
        ])
    );
    assert_eq!(found.score, 44);
}

/// Some component, whatever it asks for and imports.
fn components() -> impl Strategy<Value = Inspection> {
    let capability = prop::sample::select(Capability::ALL.to_vec());
    (
        prop::sample::select(Role::ALL.to_vec()),
        vec(capability.clone(), 0..5),
        vec((capability, any::<bool>()), 0..6),
        any::<bool>(),
    )
        .prop_map(|(role, asks, imports, says)| {
            let mut component = component(role, &asks);
            component.imports = imports
                .into_iter()
                .map(|(capability, noise)| import(capability, noise))
                .collect();
            if !says {
                component.manifest.license.clear();
            }
            component
        })
}

fn hosts() -> impl Strategy<Value = HttpGrant> {
    let host = prop::sample::select(vec!["a.example", "*.example.com", "10.0.0.1"]);
    (host, any::<[bool; 4]>(), 1..3_u16).prop_map(
        |(host, [clear, private, posts, secret], port)| {
            let mut grant = http(host);
            grant.port = NonZeroU16::new(port);
            if clear {
                grant.scheme = HttpScheme::Http;
            }
            if private {
                grant.networks = vec!["10.0.0.0/8".parse().expect("a network")];
            }
            if posts {
                grant.methods.push(HttpMethod::Post);
            }
            if secret {
                let credential = serde_json::json!({ "secret": { "env": "TOKEN" } });
                grant.credential = serde_json::from_value(credential).ok();
            }
            grant
        },
    )
}

fn databases() -> impl Strategy<Value = SqlGrant> {
    any::<[bool; 2]>().prop_map(|[listed, secret]| {
        let mut grant = serde_json::json!({ "connection": "warehouse", "to": { "sqlite": "/w" } });
        if listed {
            grant["statements"] = serde_json::json!({ "all": "SELECT 1" });
        }
        if secret {
            let server = serde_json::json!({
                "host": "db.example", "database": "d", "user": "u", "password": { "env": "P" },
            });
            grant["to"] = serde_json::json!({ "postgres": server });
        }
        serde_json::from_value(grant).expect("a grant")
    })
}

fn stores() -> impl Strategy<Value = BlobGrant> {
    any::<[bool; 4]>().prop_map(|[all, writes, remote, secret]| {
        let mut grant = serde_json::json!({ "store": "lake", "to": { "url": "file:/lake" } });
        if !all {
            grant["prefix"] = serde_json::json!("raw/");
        }
        if writes {
            grant["access"] = serde_json::json!("read-write");
        }
        if remote {
            grant["to"] = serde_json::json!({ "url": "s3://lake", "region": "eu-central-1" });
        }
        if remote && secret {
            let key = serde_json::json!({ "env": "K" });
            grant["to"]["credentials"] =
                serde_json::json!({ "access_key": key, "secret_key": key });
        }
        serde_json::from_value(grant).expect("a grant")
    })
}

fn folders() -> impl Strategy<Value = FileGrant> {
    let path = prop::sample::select(vec!["/", "/srv", "/srv/line/data", "/etc/x", "data"]);
    let access = prop::sample::select(vec![Access::Read, Access::ReadWrite]);
    (path, access).prop_map(|(path, access)| folder(path, access))
}

fn grants() -> impl Strategy<Value = Grants> {
    let size = || (0..200_u64).prop_map(ByteSize::from_gib);
    let time = || (0..300_000_u64).prop_map(TimeSpan::from_secs);
    let compute = (size(), time()).prop_map(|(memory, time)| ComputeGrant {
        memory,
        time,
        ..ComputeGrant::default()
    });
    let random = prop::option::of(any::<u64>()).prop_map(|seed| RandomGrant { seed });
    (
        vec(folders(), 0..3),
        vec(hosts(), 0..3),
        any::<bool>(),
        prop::option::of(random),
        prop::option::of(compute),
        (size(), time(), size()),
        (any::<bool>(), vec(databases(), 0..2), vec(stores(), 0..2)),
    )
        .prop_map(
            |(files, http, clock, random, compute, (memory, total, log), (state, sql, blob))| {
                let mut grants = Grants {
                    files,
                    http,
                    clock,
                    random,
                    compute,
                    state: state.then(StateGrant::default),
                    sql,
                    blob,
                    ..Grants::default()
                };
                grants.limits.memory = memory;
                grants.limits.total_timeout = total;
                grants.log.bytes_per_second = log;
                grants
            },
        )
}

/// Everything of both.
fn union(one: &Grants, other: &Grants) -> Grants {
    let mut both = one.clone();
    both.files.extend(other.files.iter().cloned());
    both.http.extend(other.http.iter().cloned());
    both.sql.extend(other.sql.iter().cloned());
    both.blob.extend(other.blob.iter().cloned());
    both.state = one.state.clone().or_else(|| other.state.clone());
    both.clock |= other.clock;
    both.random = match (&one.random, &other.random) {
        (None, granted) | (granted, None) => granted.clone(),
        // Without a seed is more than with any.
        (Some(one), Some(other)) => Some(RandomGrant {
            seed: one.seed.filter(|_| other.seed.is_some()),
        }),
    };
    both.compute = match (&one.compute, &other.compute) {
        (None, granted) | (granted, None) => granted.clone(),
        (Some(one), Some(other)) => Some(ComputeGrant {
            memory: one.memory.max(other.memory),
            time: one.time.max(other.time),
            ..one.clone()
        }),
    };
    both.limits.memory = one.limits.memory.max(other.limits.memory);
    both.limits.total_timeout = one.limits.total_timeout.max(other.limits.total_timeout);
    both.log.bytes_per_second = one.log.bytes_per_second.max(other.log.bytes_per_second);
    both
}

proptest! {
    #[test]
    fn to_grant_more_never_lowers_the_score(
        component in components(), less in grants(), more in grants(),
    ) {
        let before = weigh(&component, &less);
        let after = weigh(&component, &union(&less, &more));
        prop_assert!(after.score >= before.score, "{before:?} {after:?}");
    }

    #[test]
    fn to_widen_a_grant_never_lowers_the_score(component in components(), grants in grants()) {
        let before = weigh(&component, &grants);
        let mut wider = grants;
        for file in &mut wider.files {
            file.access = Access::ReadWrite;
        }
        for objects in &mut wider.blob {
            objects.access = Access::ReadWrite;
            objects.prefix.clear();
        }
        for host in &mut wider.http {
            host.networks.push("192.168.0.0/16".parse().expect("a network"));
            host.methods.push(HttpMethod::Delete);
        }
        prop_assert!(weigh(&component, &wider).score >= before.score);
    }

    #[test]
    fn a_score_is_the_sum_of_its_reasons_and_always_the_same(
        component in components(), grants in grants(),
    ) {
        let found = weigh(&component, &grants);
        let sum: u32 = found.reasons.iter().map(|it| u32::from(it.points)).sum();
        prop_assert_eq!(u32::from(found.score), sum.min(100));
        prop_assert!(found.reasons.iter().all(|it| it.points <= it.factor.points()));
        prop_assert!(found.reasons.iter().all(|it| !it.lowered_by.is_empty()));
        prop_assert_eq!(found, weigh(&component, &grants));
    }
}
