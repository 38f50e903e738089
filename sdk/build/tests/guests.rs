//! Builds guests of this repository, and a vendor's crate outside of it.

use std::fs;
use std::path::{Path, PathBuf};

use sandcast_build::{BuildError, BuildRequest, Built, build, component_path};
use wasmparser::{Parser, Payload};

fn guest(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/guests")
        .join(name)
}

fn built(crate_dir: &Path) -> Built {
    build(&BuildRequest::new(crate_dir), &mut |_| {}).unwrap_or_else(|error| panic!("{error}"))
}

/// The names of what the component imports and exports, and its manifests.
fn outline(component: &Path) -> (Vec<String>, Vec<String>, Vec<String>) {
    let bytes = fs::read(component).expect("a component");
    let (mut imports, mut exports, mut manifests) = (Vec::new(), Vec::new(), Vec::new());
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(&bytes) {
        match payload.expect("a whole component") {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(section) if depth == 0 => {
                imports.extend(
                    section
                        .into_iter()
                        .map(|import| import.expect("an import").name.name.to_owned()),
                );
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                exports.extend(
                    section
                        .into_iter()
                        .map(|export| export.expect("an export").name.name.to_owned()),
                );
            }
            Payload::CustomSection(section)
                if depth == 0 && section.name() == "sandcast:manifest" =>
            {
                manifests.push(String::from_utf8_lossy(section.data()).into_owned());
            }
            _ => {}
        }
    }
    (imports, exports, manifests)
}

#[test]
fn a_guest_imports_what_it_uses_and_nothing_else() {
    let probe = built(&guest("probe-validator"));
    let (imports, exports, manifests) = outline(&probe.component);
    assert_eq!(
        imports,
        ["sandcast:plugin/types@0.1.0", "sandcast:plugin/data@0.1.0"]
    );
    assert_eq!(exports, ["sandcast:plugin/validator@0.1.0"]);
    assert_eq!(manifests, [probe.manifest_json.as_str()]);
    let manifest: serde_json::Value = serde_json::from_str(&probe.manifest_json).expect("json");
    assert_eq!(manifest["id"], "sandcast-tests/probe-validator");
    assert_eq!(manifest["contract"], "0.1.0");

    let hostile = built(&guest("hostile-connector"));
    let (imports, ..) = outline(&hostile.component);
    assert_eq!(imports[2..], ["wasi:logging/logging@0.1.0-draft"]);
}

#[test]
fn a_guest_of_the_standard_library_imports_its_noise() {
    let noise = built(&guest("noise"));
    let (imports, exports, _) = outline(&noise.component);
    assert!(
        imports
            .iter()
            .any(|import| import.starts_with("wasi:cli/stdout@")),
        "{imports:?}"
    );
    assert_eq!(exports, ["sandcast:plugin/validator@0.1.0"]);
}

#[test]
fn a_second_build_finds_the_first_and_a_tampered_one_is_mended() {
    let folder = tempfile::tempdir().expect("a folder");
    let request = BuildRequest {
        out_dir: Some(folder.path().to_owned()),
        ..BuildRequest::new(guest("probe-connector"))
    };
    let first = build(&request, &mut |_| {}).expect("built");
    let mut lines = Vec::new();
    let second = build(&request, &mut |line| lines.push(line.to_owned())).expect("built");
    assert_eq!(first.digest, second.digest);
    assert!(
        !lines.iter().any(|line| line.starts_with("componentising")),
        "{lines:?}"
    );

    fs::write(&first.component, b"something else").expect("written");
    let third = build(&request, &mut |_| {}).expect("built");
    assert_eq!(first.digest, third.digest);
    assert_eq!(
        fs::read(&third.component).expect("read").len() as u64,
        first.bytes
    );
    assert!(
        component_path(&guest("probe-connector"))
            .expect("a crate")
            .ends_with("sandcast/probe-connector.wasm")
    );
}

#[test]
fn callers_at_once_get_the_same() {
    let digests: Vec<[u8; 32]> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| built(&guest("probe-validator")).digest))
            .collect();
        callers
            .into_iter()
            .map(|caller| caller.join().expect("no panic"))
            .collect()
    });
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]));
}

/// The bytes of a component before its manifest, which is the last thing in it.
fn without_manifest(component: &Path) -> Vec<u8> {
    let bytes = fs::read(component).expect("a component");
    let contents = Parser::new(0)
        .parse_all(&bytes)
        .find_map(|payload| match payload.expect("a whole component") {
            Payload::CustomSection(section) if section.name() == "sandcast:manifest" => {
                Some(section.range())
            }
            _ => None,
        })
        .expect("a manifest");
    assert_eq!(contents.end, bytes.len());
    // A byte for what follows, and its length, seven bits to a byte.
    let bits = usize::BITS - contents.len().leading_zeros();
    let head = 1 + bits.div_ceil(7) as usize;
    bytes[..contents.start - head].to_vec()
}

/// A crate outside of this repository, as a vendor would write it.
fn vendor(folder: &Path, role: &str, source: &str) -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the repository");
    let crate_dir = folder.join("vendor");
    fs::create_dir_all(crate_dir.join("src")).expect("made");
    let cargo_toml = format!(
        "[package]\nname = \"vendor\"\nversion = \"3.2.1\"\nedition = \"2024\"\nlicense = \"MIT\"\n\n[lib]\n\
         crate-type = [\"cdylib\"]\n\n[dependencies]\nsandcast-sdk = {{ path = {:?} }}\n\n[workspace]\n",
        repository.join("sdk/rust")
    );
    fs::write(crate_dir.join("Cargo.toml"), cargo_toml).expect("written");
    fs::copy(
        repository.join("plugins/Cargo.lock"),
        crate_dir.join("Cargo.lock"),
    )
    .expect("copied");
    fs::write(
        crate_dir.join("plugin.toml"),
        format!("id = \"acme/vendor\"\nrole = \"{role}\"\n"),
    )
    .expect("written");
    fs::write(crate_dir.join("src/lib.rs"), source).expect("written");
    // What both compile is compiled once.
    fs::create_dir_all(crate_dir.join(".cargo")).expect("made");
    let target = component_path(&guest("noise")).expect("a crate");
    let target = target.ancestors().nth(2).expect("a target folder");
    fs::write(
        crate_dir.join(".cargo/config.toml"),
        format!("[build]\ntarget-dir = {target:?}\n"),
    )
    .expect("written");
    crate_dir
}

const POLICY: &str = "
use sandcast_sdk::{Decision, Failure, Policy, Request};
#[derive(Debug)]
struct No;
impl Policy for No {
    type Config = std::collections::BTreeMap<String, String>;
    fn configure(_: Self::Config) -> Result<Self, Failure> { Ok(No) }
    fn decide(&mut self, _: &Request) -> Result<Decision, Failure> { Ok(Decision::deny(\"no\")) }
}
sandcast_sdk::export_policy!(No);
";

#[test]
fn a_vendors_crate_builds_and_its_mistakes_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let request = |crate_dir: &Path| BuildRequest {
        out_dir: Some(folder.path().join("out")),
        ..BuildRequest::new(crate_dir)
    };
    let fail = |crate_dir: &Path| build(&request(crate_dir), &mut |_| {}).expect_err("refused");

    let crate_dir = vendor(folder.path(), "policy", POLICY);
    let good = build(&request(&crate_dir), &mut |_| {}).unwrap_or_else(|error| panic!("{error}"));
    assert!(good.manifest_json.contains("\"version\":\"3.2.1\""));
    let text = fs::read(&good.component).expect("read");
    let leaks = |path: &Path| {
        let path = path.to_string_lossy().into_owned();
        text.windows(path.len())
            .any(|window| window == path.as_bytes())
    };
    assert!(
        !leaks(&crate_dir) && !leaks(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/rust"))
    );

    // What another tool made is given its manifest, once.
    let other = folder.path().join("other");
    fs::create_dir_all(&other).expect("made");
    let plugin_toml =
        "id = \"acme/other\"\nrole = \"policy\"\ncomponent = \"app.wasm\"\nversion = \"0.9.0\"\n";
    fs::write(other.join("plugin.toml"), plugin_toml).expect("written");
    fs::write(other.join("app.wasm"), without_manifest(&good.component)).expect("written");
    let made = built(&other);
    assert_eq!(made.component, component_path(&other).expect("its place"));
    let (_, exports, manifests) = outline(&made.component);
    assert_eq!(exports, ["sandcast:plugin/policy@0.1.0"]);
    assert_eq!(manifests.len(), 1);
    assert!(
        manifests[0].contains("\"version\":\"0.9.0\""),
        "{manifests:?}"
    );
    fs::copy(&made.component, other.join("app.wasm")).expect("copied");
    let error = fail(&other).to_string();
    assert!(
        error.contains("has a section `sandcast:manifest` already"),
        "{error}"
    );

    let crate_dir = vendor(folder.path(), "connector", POLICY);
    let error = fail(&crate_dir).to_string();
    assert!(
        error.contains("`plugin.toml` says it is a connector, but it exports policy"),
        "{error}"
    );

    let crate_dir = vendor(folder.path(), "policy", "pub fn nothing() {}\n");
    let error = fail(&crate_dir).to_string();
    assert!(
        error.contains("`vendor` compiles, but is no plugin"),
        "{error}"
    );

    let crate_dir = vendor(folder.path(), "policy", "fn broken() -> u32 { \"text\" }\n");
    let error = fail(&crate_dir);
    assert!(
        matches!(&error, BuildError::Compile { log, .. } if log.contains("mismatched types")),
        "{error}"
    );

    fs::remove_file(crate_dir.join("plugin.toml")).expect("removed");
    assert!(
        fail(&crate_dir)
            .to_string()
            .contains("it has no `plugin.toml`")
    );
}
