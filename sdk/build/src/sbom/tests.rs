use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

/// What `cargo tree` says of a small crate, with a proc macro, a package that stands twice and one
/// with other features for the build.
const TREE: &str = "\
0|default|app v0.1.0 (/home/ada|x/app)
1|alloc,std|left v1.2.3
2||shared v2.0.0+build.1
1|default|derive v0.3.0 (proc-macro)
2|extra|shared v2.0.0+build.1
1||right v0.1.0 (/home/ada|x/right)
2|alloc,std|left v1.2.3 (*)
";

#[test]
fn a_tree_is_read_with_features_and_who_needs_whom() {
    let graph = Graph::of_tree(TREE).expect("a tree");
    assert_eq!((graph.root.name.as_str(), graph.packages.len()), ("app", 5));
    let of = |name: &str| {
        let found = graph.packages.iter().find(|(key, _)| key.name == name);
        found.expect("it is there")
    };
    let needs = |name: &str| -> Vec<&str> {
        of(name)
            .1
            .needs
            .iter()
            .map(|key| key.name.as_str())
            .collect()
    };
    assert_eq!(needs("app"), ["derive", "left", "right"]);
    assert_eq!(needs("right"), ["left"]);
    assert_eq!(needs("shared"), Vec::<&str>::new());
    assert_eq!(
        of("shared").1.features,
        BTreeSet::from(["extra".to_owned()])
    );
    assert_eq!(of("shared").0.version, "2.0.0+build.1");
}

#[test]
fn what_is_no_tree_is_refused() {
    for text in [
        "",
        "app v1",
        "0|a|app",
        "0||app 1.0",
        "x||app v1.0",
        "1||app v1.0",
        "0|| v1",
    ] {
        let refused = Graph::of_tree(text);
        assert!(
            matches!(refused, Err(SbomError::NotUnderstood { .. })),
            "{text}: {refused:?}"
        );
    }
}

fn here() -> SbomRequest {
    SbomRequest::new(env!("CARGO_MANIFEST_DIR"))
}

fn parsed(request: &SbomRequest) -> Value {
    let made = sbom(request).expect("a bill of materials");
    serde_json::from_str(&made.json).expect("JSON")
}

#[test]
fn this_crate_is_made_of_what_its_manifest_and_the_lock_file_say() {
    let document = parsed(&here());
    assert_eq!(document["bomFormat"], "CycloneDX");
    assert_eq!(document["specVersion"], "1.6");
    let root = &document["metadata"]["component"];
    assert_eq!(root["name"], env!("CARGO_PKG_NAME"));
    assert!(
        root.get("scope").is_none() && root.get("hashes").is_none(),
        "{root}"
    );
    let components = document["components"].as_array().expect("a list");
    let of = |name: &str| {
        let found = components.iter().find(|it| it["name"] == name);
        found.unwrap_or_else(|| panic!("{name} is not there"))
    };
    let blake3 = of("blake3");
    let purl = blake3["purl"].as_str().expect("a text");
    assert_eq!(
        purl,
        format!(
            "pkg:cargo/blake3@{}",
            blake3["version"].as_str().expect("a text")
        )
    );
    assert_eq!(blake3["bom-ref"], blake3["purl"]);
    assert_eq!(blake3["scope"], "required");
    assert_eq!(blake3["hashes"][0]["alg"], "SHA-256");
    assert_eq!(
        blake3["hashes"][0]["content"].as_str().map(str::len),
        Some(64)
    );
    assert!(
        blake3["licenses"][0]["expression"]
            .as_str()
            .expect("a text")
            .contains("Apache-2.0")
    );
    // What only builds is not part of what runs, and what only tests is not there.
    assert_eq!(of("serde_derive")["scope"], "excluded");
    assert!(!components.iter().any(|it| it["name"] == "tempfile"));
    // The standard library is linked in, and no crate of the graph.
    assert_eq!(
        of("rust-std")["licenses"][0]["expression"],
        "MIT OR Apache-2.0"
    );

    let dependencies = document["dependencies"].as_array().expect("a list");
    let refs: Vec<&str> = dependencies
        .iter()
        .filter_map(|it| it["ref"].as_str())
        .collect();
    assert_eq!(refs.len(), components.len() + 1, "each has its line");
    let is_sorted = |list: &[&str]| list.windows(2).all(|pair| pair[0] < pair[1]);
    assert!(is_sorted(&refs));
    for dependency in dependencies {
        let needs = dependency["dependsOn"].as_array().into_iter().flatten();
        let needs: Vec<&str> = needs.filter_map(Value::as_str).collect();
        assert!(is_sorted(&needs), "{dependency}");
        assert!(needs.iter().all(|it| refs.contains(it)), "{dependency}");
    }
    let of_root = dependencies.iter().find(|it| it["ref"] == root["bom-ref"]);
    let of_root = of_root.expect("the root has its line")["dependsOn"].to_string();
    assert!(
        of_root.contains(purl) && of_root.contains("rust-std"),
        "{of_root}"
    );
}

#[test]
fn the_same_sources_give_the_same_bytes_and_no_folder_gets_in() {
    let one = sbom(&here()).expect("a bill of materials");
    assert_eq!(one, sbom(&here()).expect("a bill of materials"));
    let folder = env!("CARGO_MANIFEST_DIR");
    let checkout = Path::new(folder).ancestors().nth(2).expect("a checkout");
    assert!(!one.json.contains(&*checkout.to_string_lossy()));
    let dated = SbomRequest {
        source_date_epoch: Some(1_700_000_000),
        ..here()
    };
    let dated = parsed(&dated);
    assert_eq!(dated["metadata"]["timestamp"], "2023-11-14T22:13:20Z");
    let undated: Value = serde_json::from_str(&one.json).expect("JSON");
    assert!(undated["metadata"].get("timestamp").is_none());
    let serial = |document: &Value| {
        document["serialNumber"]
            .as_str()
            .expect("a text")
            .to_owned()
    };
    assert_ne!(
        serial(&dated),
        serial(&undated),
        "other content, another number"
    );
    assert!(serial(&undated).starts_with("urn:uuid:"));
    assert_eq!(&serial(&undated)[23..24], "8");
}

#[test]
fn what_was_built_is_hashed_and_another_target_has_other_parts() {
    let folder = tempfile::tempdir().expect("a folder");
    let artifact = folder.path().join("app.wasm");
    fs::write(&artifact, "abc").expect("written");
    let request = SbomRequest {
        artifact: Some(artifact.clone()),
        target: Some("wasm32-unknown-unknown".to_owned()),
        ..here()
    };
    let document = parsed(&request);
    let root = &document["metadata"]["component"];
    // FIPS 180-2, B.1.
    assert_eq!(
        root["hashes"][0]["content"],
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    assert_eq!(root["hashes"][1]["alg"], "BLAKE3");
    assert_eq!(root["properties"][0]["value"], "wasm32-unknown-unknown");
    let written = sbom(&request).expect("made").write_beside(&artifact);
    assert_eq!(
        written.expect("written"),
        folder.path().join("app.cdx.json")
    );
}

#[test]
fn what_cannot_be_resolved_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused = sbom(&SbomRequest::new(folder.path()));
    assert!(
        matches!(refused, Err(SbomError::Unresolved { .. })),
        "{refused:?}"
    );
    let odd = SbomRequest {
        source_date_epoch: Some(i64::MAX),
        ..here()
    };
    assert!(matches!(sbom(&odd), Err(SbomError::Date { .. })));
    let nowhere = SbomRequest {
        artifact: Some(folder.path().join("nothing.wasm")),
        ..here()
    };
    assert!(matches!(sbom(&nowhere), Err(SbomError::Build(_))));
}
