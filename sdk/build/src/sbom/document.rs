//! The document: the part of CycloneDX 1.6 that is written here.

use std::collections::BTreeMap;

use serde::Serialize;

use super::About;
use super::graph::{Graph, Key, Package};

/// The registry that a purl of type cargo means where it names none.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    #[serde(rename = "$schema")]
    schema: &'static str,
    bom_format: &'static str,
    spec_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial_number: Option<String>,
    version: u32,
    metadata: Metadata,
    components: Vec<Component>,
    dependencies: Vec<Dependency>,
}

#[derive(Serialize)]
struct Metadata {
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    lifecycles: [Lifecycle; 1],
    tools: Tools,
    component: Component,
}

#[derive(Serialize)]
struct Lifecycle {
    phase: &'static str,
}

#[derive(Serialize)]
struct Tools {
    components: [Component; 1],
}

#[derive(Serialize, Default)]
#[serde(rename_all = "kebab-case")]
struct Component {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bom_ref: Option<String>,
    name: String,
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hashes: Vec<Hash>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    licenses: Vec<License>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purl: Option<String>,
    #[serde(rename = "externalReferences", skip_serializing_if = "Vec::is_empty")]
    external_references: Vec<Reference>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    properties: Vec<Property>,
}

#[derive(Serialize)]
struct Hash {
    alg: &'static str,
    content: String,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum License {
    Expression(String),
    License { name: String },
}

#[derive(Serialize)]
struct Reference {
    #[serde(rename = "type")]
    kind: &'static str,
    url: String,
}

#[derive(Serialize)]
struct Property {
    name: &'static str,
    value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Dependency {
    #[serde(rename = "ref")]
    of: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    depends_on: Vec<String>,
}

impl Document {
    pub(super) fn of(graph: &Graph, about: &About) -> Self {
        let names: BTreeMap<&Key, String> = graph
            .packages
            .iter()
            .map(|(key, package)| (key, purl(key, package)))
            .collect();
        let standard_library = format!("pkg:generic/rust-std@{}", about.rustc);
        let mut components: Vec<Component> = graph
            .packages
            .iter()
            .filter(|(key, _)| **key != graph.root)
            .map(|(key, package)| of_package(key, package))
            .collect();
        components.push(Component {
            kind: "library",
            bom_ref: Some(standard_library.clone()),
            name: "rust-std".to_owned(),
            version: about.rustc.clone(),
            scope: Some("required"),
            licenses: vec![License::Expression("MIT OR Apache-2.0".to_owned())],
            purl: Some(standard_library.clone()),
            external_references: vec![Reference {
                kind: "vcs",
                url: "https://github.com/rust-lang/rust".to_owned(),
            }],
            ..Component::default()
        });
        components.sort_by(|one, other| one.bom_ref.cmp(&other.bom_ref));
        let mut dependencies: Vec<Dependency> = graph
            .packages
            .iter()
            .map(|(key, package)| {
                let needs = package.needs.iter().filter_map(|it| names.get(it).cloned());
                let mut depends_on: Vec<String> = needs.collect();
                if *key == graph.root {
                    depends_on.push(standard_library.clone());
                }
                depends_on.sort();
                depends_on.dedup();
                Dependency {
                    of: names.get(key).cloned().unwrap_or_default(),
                    depends_on,
                }
            })
            .collect();
        dependencies.push(Dependency {
            of: standard_library,
            depends_on: Vec::new(),
        });
        dependencies.sort_by(|one, other| one.of.cmp(&other.of));
        let mut document = Self {
            schema: "http://cyclonedx.org/schema/bom-1.6.schema.json",
            bom_format: "CycloneDX",
            spec_version: "1.6",
            serial_number: None,
            version: 1,
            metadata: Metadata {
                timestamp: about.timestamp.clone(),
                lifecycles: [Lifecycle { phase: "build" }],
                tools: Tools {
                    components: [Component {
                        kind: "application",
                        name: "sandcast".to_owned(),
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                        ..Component::default()
                    }],
                },
                component: of_root(graph, about),
            },
            components,
            dependencies,
        };
        document.serial_number = Some(serial_number(&document.to_json()));
        document
    }

    /// How many components it lists, without the one it is about.
    pub(super) fn components(&self) -> usize {
        self.components.len()
    }

    pub(super) fn to_json(&self) -> String {
        // Text, numbers and lists: this always has a JSON form.
        let mut json = serde_json::to_string_pretty(self).unwrap_or_default();
        json.push('\n');
        json
    }
}

/// What the document is about.
fn of_root(graph: &Graph, about: &About) -> Component {
    let package = graph.packages.get(&graph.root).cloned();
    let mut root = of_package(&graph.root, &package.unwrap_or_default());
    root.kind = "application";
    root.scope = None;
    if let Some(artifact) = &about.artifact {
        root.hashes = [("SHA-256", &artifact.sha256), ("BLAKE3", &artifact.blake3)]
            .map(|(alg, content)| Hash {
                alg,
                content: content.clone(),
            })
            .into();
    }
    let mut property = |name, value: String| root.properties.push(Property { name, value });
    if let Some(id) = &about.plugin_id {
        property("sandcast:plugin:id", id.clone());
    }
    property("sandcast:target", about.target.clone());
    root
}

fn of_package(key: &Key, package: &Package) -> Component {
    let purl = purl(key, package);
    let license = match (&package.license, package.license_file) {
        // What crates wrote before SPDX expressions were asked for.
        (Some(text), _) => Some(License::Expression(text.replace('/', " OR "))),
        (None, true) => Some(License::License {
            name: "a file of its own".to_owned(),
        }),
        (None, false) => None,
    };
    let hashes = package.checksum.iter().map(|content| Hash {
        alg: "SHA-256",
        content: content.clone(),
    });
    let repository = package.repository.iter().map(|url| Reference {
        kind: "vcs",
        url: url.trim().to_owned(),
    });
    let features: Vec<&str> = package.features.iter().map(String::as_str).collect();
    Component {
        kind: "library",
        bom_ref: Some(purl.clone()),
        name: key.name.clone(),
        version: key.version.clone(),
        scope: Some(if package.runs { "required" } else { "excluded" }),
        hashes: hashes.collect(),
        licenses: license.into_iter().collect(),
        purl: Some(purl),
        external_references: repository.filter(|it| !it.url.is_empty()).collect(),
        properties: (!features.is_empty())
            .then(|| Property {
                name: "sandcast:cargo:features",
                value: features.join(","),
            })
            .into_iter()
            .collect(),
    }
}

/// The package URL (<https://github.com/package-url/purl-spec>) of a package. One of the checkout is
/// not on crates.io, which the repository in it says; the folder of the checkout stays out.
fn purl(key: &Key, package: &Package) -> String {
    // A `+` stands in versions with build metadata.
    let mut purl = format!("pkg:cargo/{}@{}", key.name, key.version.replace('+', "%2B"));
    let place = match package.source.as_deref() {
        Some(CRATES_IO) => None,
        Some(source) => match source.strip_prefix("git+") {
            Some(git) => {
                let url = git.replace('#', "@");
                // Queries name a branch or a tag; the commit says it all.
                let url = match url.split_once('?') {
                    None => url,
                    Some((start, query)) => {
                        let commit = query.rsplit_once('@').map_or("", |(_, commit)| commit);
                        format!("{start}@{commit}")
                    }
                };
                Some(("vcs_url", format!("git+{url}")))
            }
            None => {
                let url = source.split_once('+').map_or(source, |(_, url)| url);
                Some(("repository_url", url.to_owned()))
            }
        },
        None => package
            .repository
            .as_ref()
            .map(|url| ("vcs_url", format!("git+{}", url.trim()))),
    };
    if let Some((name, value)) = place {
        purl.push_str(&format!("?{name}={}", percent_encoded(&value)));
    }
    purl
}

/// A value of a purl's qualifier.
fn percent_encoded(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_~:/@".contains(&byte);
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        if plain(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// A UUID (version 8, RFC 9562) of the content, so that two documents that differ have two.
fn serial_number(json: &str) -> String {
    let hash = blake3::hash(json.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_bytes()[..16]);
    bytes[6] = (bytes[6] & 0x0f) | 0x80;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = super::hex(&bytes);
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    format!("urn:uuid:{}", parts.join("-"))
}
