use super::*;
use crate::testing::{Bench, PolicyText, configuring, context, encode, manifest, with_section};
use crate::{ComputeDevice, ComputeGrant, FileGrant, RandomGrant, inspect};

async fn refusal(bytes: &[u8], role: Role, grants: Grants) -> (LoadError, Bench) {
    let bench = Bench::new();
    let outcome = bench.sandbox.load("guest", bytes, role, grants).await;
    let error = outcome
        .map(|_| ())
        .expect_err("a component that must be refused");
    (error, bench)
}

#[tokio::test]
async fn a_good_component_loads_runs_and_is_on_record() {
    let bench = Bench::new();
    let plugin = bench.load(&configuring(""), Grants::default()).await;
    assert_eq!(plugin.reference().id, "test/guest");
    assert_eq!(plugin.reference().version, "1.2.3");
    let mut policy = plugin
        .policy(&context(), &serde_json::json!({}))
        .await
        .expect("configured");
    let decision = policy
        .decide(&crate::testing::request())
        .await
        .expect("decided");
    assert_eq!(decision.effect, crate::Effect::Allow);
    drop(policy);
    let events = bench.events();
    assert!(matches!(&events[0], Event::PluginLoaded { name, .. } if name == "test"));
    assert!(matches!(&events[1], Event::CallsFinished { outcome, .. } if outcome == "finished"));
}

#[tokio::test]
async fn what_is_not_a_component_is_refused() {
    let module = wat::parse_str("(module)").expect("a core module");
    let good = configuring("");
    let cases: [(&str, Vec<u8>); 5] = [
        ("nothing", Vec::new()),
        ("text", b"hello".to_vec()),
        ("a core module", module),
        ("half a component", good[..good.len() / 2].to_vec()),
        ("a component with a broken byte", {
            let mut bytes = good.clone();
            bytes[9] ^= 0xff;
            bytes
        }),
    ];
    for (what, bytes) in cases {
        let (error, bench) = refusal(&bytes, Role::Policy, Grants::default()).await;
        assert!(
            matches!(error, LoadError::NotAComponent { .. }),
            "{what}: {error}"
        );
        assert!(error.to_string().contains("`guest`"), "{error}");
        assert!(
            matches!(&bench.events()[..], [Event::PluginRefused { name, digest: Some(_), .. }] if name == "guest"),
            "{what} must be on record"
        );
    }
}

#[tokio::test]
async fn a_component_over_the_limit_is_refused_before_it_is_read() {
    let bench = Bench::with(|config| config.max_component_bytes = 100);
    let error = bench
        .sandbox
        .load("guest", &[0; 101], Role::Policy, Grants::default())
        .await
        .map(|_| ())
        .expect_err("too large");
    assert!(matches!(
        error,
        LoadError::TooLarge {
            size_bytes: 101,
            limit_bytes: 100,
            ..
        }
    ));
}

#[tokio::test]
async fn a_manifest_is_wanted_exactly_once_and_right() {
    let bare = PolicyText::default().bare();
    let good = manifest("policy", &[]).to_string();
    let once = with_section(bare.clone(), "sandcast:manifest", good.as_bytes());
    let twice = with_section(once, "sandcast:manifest", good.as_bytes());
    let broken = with_section(bare.clone(), "sandcast:manifest", b"{");
    for bytes in [bare, twice, broken] {
        let (error, _) = refusal(&bytes, Role::Policy, Grants::default()).await;
        assert!(matches!(error, LoadError::Manifest { .. }), "{error}");
    }
}

#[tokio::test]
async fn another_contract_version_is_refused() {
    let mut other = manifest("policy", &[]);
    other["contract"] = "9.0.0".into();
    let bytes = with_section(
        PolicyText::default().bare(),
        "sandcast:manifest",
        other.to_string().as_bytes(),
    );
    let (error, _) = refusal(&bytes, Role::Policy, Grants::default()).await;
    assert!(
        matches!(&error, LoadError::ContractVersion { found, supported, .. } if found == "9.0.0" && supported == "0.1.0"),
        "{error}"
    );
    // The names in the binary count as well as the manifest.
    let later = encode(
        "later",
        r#"(module (func (export "sandcast:plugin/policy@0.2.0#go")))"#,
        Some(
            "package sandcast:plugin@0.2.0; interface policy { go: func(); } world later { export policy; }",
        ),
    );
    let good = manifest("policy", &[]).to_string();
    let bytes = with_section(later, "sandcast:manifest", good.as_bytes());
    let (error, _) = refusal(&bytes, Role::Policy, Grants::default()).await;
    assert!(
        matches!(&error, LoadError::ContractVersion { found, .. } if found == "0.2.0"),
        "{error}"
    );
}

#[tokio::test]
async fn the_role_must_be_the_one_it_is_used_in() {
    let (error, _) = refusal(&configuring(""), Role::Connector, Grants::default()).await;
    assert!(
        matches!(&error, LoadError::WrongRole { wanted: Role::Connector, found, .. } if found == "policy"),
        "{error}"
    );
    // A manifest that lies about the role does not help.
    let liar = manifest("connector", &[]).to_string();
    let bytes = with_section(
        PolicyText::default().bare(),
        "sandcast:manifest",
        liar.as_bytes(),
    );
    let (error, _) = refusal(&bytes, Role::Connector, Grants::default()).await;
    assert!(
        matches!(&error, LoadError::WrongRole { found, .. } if found == "policy"),
        "{error}"
    );
}

#[tokio::test]
async fn exports_beside_the_role_are_refused() {
    let with_export = |export: &str| {
        encode(
            "both",
            &format!(
                r#"(module {allocator}
              (func (export "sandcast:plugin/policy@0.1.0#configure") (param i32 i32) (result i32) i32.const 1024)
              (func (export "sandcast:plugin/policy@0.1.0#decide")
                (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) i32.const 1024)
              (func (export "{export}")))"#,
                allocator = crate::testing::ALLOCATOR
            ),
            Some(&format!(
                "package test:both; world both {{ export sandcast:plugin/policy@0.1.0; export {export}: func(); }}",
            )),
        )
    };
    let extra = with_export("back-door");
    let good = manifest("policy", &[]).to_string();
    let bytes = with_section(extra, "sandcast:manifest", good.as_bytes());
    let (error, _) = refusal(&bytes, Role::Policy, Grants::default()).await;
    assert!(
        matches!(&error, LoadError::UnexpectedExport { export, .. } if export == "back-door"),
        "{error}"
    );
    // What the tool that makes components of Python leaves behind is called by nobody.
    let bytes = with_section(with_export("exports"), "sandcast:manifest", good.as_bytes());
    Bench::new().load(&bytes, Grants::default()).await;
}

/// A policy that imports one function of the contract.
fn importing(interface: &str, function: &str, signature: &str, capabilities: &[&str]) -> Vec<u8> {
    let imports = format!(r#"(import "{interface}" "{function}" (func $imported {signature}))"#);
    PolicyText {
        imports: &imports,
        capabilities,
        ..PolicyText::default()
    }
    .component()
}

#[tokio::test]
async fn an_import_without_a_grant_is_refused_and_the_line_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = FileGrant {
        host: folder.path().into(),
        guest: "/data".into(),
        access: crate::Access::Read,
        quota: Default::default(),
    };
    let cases = [
        (
            importing(
                "wasi:filesystem/preopens@0.2.12",
                "get-directories",
                "(param i32)",
                &["files"],
            ),
            "files",
            Grants {
                files: vec![files],
                ..Grants::default()
            },
        ),
        (
            importing(
                "wasi:clocks/wall-clock@0.2.12",
                "now",
                "(param i32)",
                &["clock"],
            ),
            "clock",
            Grants {
                clock: true,
                ..Grants::default()
            },
        ),
        (
            importing(
                "wasi:random/random@0.2.12",
                "get-random-u64",
                "(result i64)",
                &["random"],
            ),
            "random",
            Grants {
                random: Some(RandomGrant::default()),
                ..Grants::default()
            },
        ),
    ];
    for (bytes, capability, grants) in cases {
        let (error, _) = refusal(&bytes, Role::Policy, Grants::default()).await;
        assert!(
            matches!(&error, LoadError::NotGranted { capability: found, .. } if found == capability),
            "{error}"
        );
        let message = error.to_string();
        assert!(
            message.contains(&format!("plugins.guest.grants.{capability}")),
            "{message}"
        );
        // The same component with the grant loads.
        Bench::new().load(&bytes, grants).await;
    }
}

#[tokio::test]
async fn what_the_manifest_does_not_ask_for_is_not_given() {
    let bytes = importing("wasi:clocks/wall-clock@0.2.12", "now", "(param i32)", &[]);
    let grants = Grants {
        clock: true,
        ..Grants::default()
    };
    let (error, _) = refusal(&bytes, Role::Policy, grants).await;
    assert!(
        matches!(&error, LoadError::NotAskedFor { capability, .. } if capability == "clock"),
        "{error}"
    );
}

#[tokio::test]
async fn an_import_that_no_grant_opens_is_refused() {
    let world = "package test:net; world net { \
        import wasi:sockets/instance-network@0.2.12; export sandcast:plugin/policy@0.1.0; }";
    let module = PolicyText {
        imports: r#"(import "wasi:sockets/instance-network@0.2.12" "instance-network" (func (result i32)))"#,
        ..PolicyText::default()
    }
    .module();
    let good = manifest("policy", &["net"]).to_string();
    let bytes = with_section(
        encode("net", &module, Some(world)),
        "sandcast:manifest",
        good.as_bytes(),
    );
    let everything = Grants {
        clock: true,
        random: Some(RandomGrant::default()),
        compute: Some(ComputeGrant::default()),
        ..Grants::default()
    };
    let (error, _) = refusal(&bytes, Role::Policy, everything).await;
    assert!(
        matches!(&error, LoadError::UnknownImport { interface, .. } if interface.starts_with("wasi:sockets/")),
        "{error}"
    );
}

#[tokio::test]
async fn a_grant_of_a_folder_that_is_not_there_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("file"), "x").expect("a file");
    for host in [folder.path().join("nowhere"), folder.path().join("file")] {
        let grants = Grants {
            files: vec![FileGrant {
                host,
                guest: "/data".into(),
                access: crate::Access::Read,
                quota: Default::default(),
            }],
            ..Grants::default()
        };
        let (error, _) = refusal(&configuring(""), Role::Policy, grants).await;
        assert!(
            matches!(&error, LoadError::BadGrant { grant, .. } if grant == "files"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_plugin_is_not_loaded_where_the_host_computes_on_what_it_may_not_have() {
    let granting = |devices: &[ComputeDevice]| Grants {
        compute: Some(ComputeGrant {
            devices: devices.to_vec(),
            ..ComputeGrant::default()
        }),
        ..Grants::default()
    };
    for (devices, told) in [
        (
            &[ComputeDevice::Cuda][..],
            "may run on cuda, and this host computes on cpu",
        ),
        (&[], "may run on nothing"),
    ] {
        let (error, _) = refusal(&configuring(""), Role::Policy, granting(devices)).await;
        let LoadError::BadGrant { grant, reason, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(grant, "compute");
        assert!(reason.contains(told), "{reason}");
    }
    let bench = Bench::new();
    bench
        .load(&configuring(""), granting(&[ComputeDevice::Cpu]))
        .await;
}

#[tokio::test]
async fn code_that_is_not_valid_is_refused_by_the_compiler() {
    // Structure and types are right, so only the compiler looks at the body.
    let good = configuring("(local.set $a (i32.const 1234567))");
    let needle = [0x41, 0x87, 0xad, 0xcb, 0x00];
    let place = good
        .windows(needle.len())
        .position(|window| window == needle);
    let place = place.expect("i32.const 1234567");
    let mut bytes = good;
    bytes[place] = 0x42; // i64.const: the type no longer fits the local
    let (error, _) = refusal(&bytes, Role::Policy, Grants::default()).await;
    assert!(matches!(error, LoadError::Compile { .. }), "{error}");
}

#[tokio::test]
async fn a_second_load_does_not_compile() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = configuring("");
    let cached = |bench: &Bench| {
        let digest = Digest::of(&bytes).to_string();
        std::fs::read_dir(folder.path())
            .expect("the cache")
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .find(|path| path.to_string_lossy().contains(&digest))
            .inspect(|_| assert_eq!(bench.sandbox.live_instances(), 0))
    };
    let first = Bench::with(|config| config.cache_dir = Some(folder.path().into()));
    assert!(cached(&first).is_none());
    first.load(&bytes, Grants::default()).await;
    let path = cached(&first).expect("an artifact");
    let written = std::fs::metadata(&path)
        .and_then(|found| found.modified())
        .expect("a time");
    let second = Bench::with(|config| config.cache_dir = Some(folder.path().into()));
    let plugin = second.load(&bytes, Grants::default()).await;
    plugin
        .policy(&context(), &serde_json::json!({}))
        .await
        .expect("it runs from the cache");
    let now = std::fs::metadata(&path)
        .and_then(|found| found.modified())
        .expect("a time");
    assert_eq!(written, now, "the artifact was read, not written again");
}

#[test]
fn inspect_says_what_a_component_is_without_running_it() {
    let bytes = importing(
        "wasi:clocks/wall-clock@0.2.12",
        "now",
        "(param i32)",
        &["clock"],
    );
    let seen = inspect(&bytes).expect("a component");
    assert_eq!(seen.role, Role::Policy);
    assert_eq!(seen.contract, "0.1.0");
    assert_eq!(seen.size_bytes, bytes.len() as u64);
    assert_eq!(seen.exports, ["sandcast:plugin/policy@0.1.0"]);
    let clock = seen
        .imports
        .iter()
        .find(|import| import.interface == "wasi:clocks/wall-clock@0.2.12")
        .expect("the import");
    assert_eq!(clock.functions, ["now"]);
    assert_eq!(clock.capability, Some(Capability::Clock));
    assert!(!clock.noise);
    assert!(serde_json::to_string(&seen).is_ok());
}

/// A guest built with a standard library: it imports `wasi:cli`, and with it a clock.
pub(crate) fn std_guest(capabilities: &[&str]) -> Vec<u8> {
    let world = "package test:std; world std { import wasi:cli/environment@0.2.12; \
        import wasi:cli/exit@0.2.12; import wasi:clocks/wall-clock@0.2.12; \
        import wasi:random/insecure-seed@0.2.12; export sandcast:plugin/policy@0.1.0; }";
    let module = PolicyText {
        imports: r#"
            (import "wasi:cli/environment@0.2.12" "get-arguments" (func $arguments (param i32)))
            (import "wasi:cli/exit@0.2.12" "exit" (func $exit (param i32)))
            (import "wasi:clocks/wall-clock@0.2.12" "now" (func $now (param i32)))
            (import "wasi:random/insecure-seed@0.2.12" "insecure-seed" (func $seed (param i32)))"#,
        configure: "(call $arguments (i32.const 2048)) (call $now (i32.const 4096))
            (call $seed (i32.const 4128))
            ;; no arguments, and the year 1970
            (if (i32.load (i32.const 2052)) (then unreachable))
            (if (i32.eqz (i64.eqz (i64.load (i32.const 4096)))) (then unreachable))",
        decide: "(call $exit (i32.const 1))",
        ..PolicyText::default()
    }
    .module();
    let manifest = manifest("policy", capabilities).to_string();
    with_section(
        encode("std", &module, Some(world)),
        "sandcast:manifest",
        manifest.as_bytes(),
    )
}

#[tokio::test]
async fn noise_of_a_standard_library_is_let_in_denied_counted_and_recorded() {
    let bytes = std_guest(&[]);
    let seen = inspect(&bytes).expect("a component");
    assert!(
        seen.imports
            .iter()
            .filter(|import| import.interface.starts_with("wasi:"))
            .all(|import| import.noise)
    );
    let bench = Bench::new();
    let mut policy = bench
        .configure(&bytes, Grants::default(), serde_json::json!({}))
        .await
        .expect("noise does not keep a guest out");
    let denied: Vec<String> = bench
        .denials()
        .into_iter()
        .map(|(capability, ..)| capability)
        .collect();
    assert_eq!(denied, ["clock", "random"]);
    // Leaving ends the instance and nothing else.
    let error = policy
        .decide(&crate::testing::request())
        .await
        .expect_err("it left");
    assert!(
        matches!(&error, crate::CallError::Trap { cause, .. } if cause.contains("status")),
        "{error}"
    );
}

#[tokio::test]
async fn noise_that_the_manifest_asks_for_is_not_noise() {
    let (error, _) = refusal(&std_guest(&["clock"]), Role::Policy, Grants::default()).await;
    assert!(
        matches!(&error, LoadError::NotGranted { capability, .. } if capability == "clock"),
        "{error}"
    );
}
