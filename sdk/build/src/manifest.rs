//! `plugin.toml`, and the manifest that is made of it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cargo::Package;
use crate::{BuildError, GuestTarget};

/// `plugin.toml` as it was read.
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    pub(crate) target: GuestTarget,
    file: PluginToml,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct PluginToml {
    id: String,
    role: Role,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    vendor: String,
    #[serde(default)]
    contact: String,
    #[serde(default)]
    license: Option<String>,
    #[serde(default)]
    target: GuestTarget,
    /// What another tool made, in place of a crate: the file, relative to the folder.
    #[serde(default)]
    component: Option<PathBuf>,
    /// The version of that; a crate has its own.
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    capabilities: Vec<Capability>,
    #[serde(default)]
    adapter: Option<AdapterFacts>,
}

/// The part a plugin plays; each has a world and an exported interface of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    Connector,
    Validator,
    Policy,
    Adapter,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connector => "connector",
            Self::Validator => "validator",
            Self::Policy => "policy",
            Self::Adapter => "adapter",
        }
    }
}

/// A capability the plugin asks for, and why.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Capability {
    capability: String,
    reason: String,
}

/// What an adapter says about the models it makes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct AdapterFacts {
    data_sourcing: String,
    intended_use: String,
    update_cadence: String,
}

/// What goes into the component, as JSON.
#[derive(Debug, Serialize)]
struct Manifest<'a> {
    id: &'a str,
    version: &'a str,
    role: Role,
    contract: &'a str,
    vendor: &'a str,
    contact: &'a str,
    license: &'a str,
    description: &'a str,
    capabilities: &'a [Capability],
    #[serde(skip_serializing_if = "Option::is_none")]
    adapter: Option<&'a AdapterFacts>,
}

impl Source {
    pub(crate) fn read(crate_dir: &Path) -> Result<Self, BuildError> {
        let path = crate_dir.join("plugin.toml");
        let text = std::fs::read_to_string(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => BuildError::NotAPlugin {
                crate_dir: crate_dir.to_owned(),
                reason: "it has no `plugin.toml`".to_owned(),
            },
            _ => BuildError::File {
                path: path.clone(),
                action: "read",
                source: error,
            },
        })?;
        let file: PluginToml = toml::from_str(&text).map_err(|error| BuildError::Manifest {
            path: path.clone(),
            reason: error.to_string().trim().to_owned(),
        })?;
        let source = Self {
            target: file.target,
            path,
            text,
            file,
        };
        source.check()?;
        Ok(source)
    }

    fn check(&self) -> Result<(), BuildError> {
        let wrong = |reason: String| {
            Err(BuildError::Manifest {
                path: self.path.clone(),
                reason,
            })
        };
        let id = &self.file.id;
        let part = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        if !id
            .split_once('/')
            .is_some_and(|(vendor, name)| part(vendor) && part(name))
        {
            return wrong(format!(
                "`id` is `{id}`; it must be a vendor and a name in lower case, such as `acme/connector-orders`"
            ));
        }
        if let Some(capability) = self
            .file
            .capabilities
            .iter()
            .find(|capability| capability.reason.trim().is_empty())
        {
            return wrong(format!(
                "capability `{}` has no `reason`; say what it is for",
                capability.capability
            ));
        }
        match (&self.file.component, &self.file.version) {
            (Some(_), None) => {
                return wrong(
                    "what another tool made has no crate to take its version from; say `version`"
                        .to_owned(),
                );
            }
            (None, Some(_)) => {
                return wrong("`version` is for what another tool made, with `component`; that of a crate is in its `Cargo.toml`".to_owned());
            }
            _ => {}
        }
        match (self.file.role, &self.file.adapter) {
            (Role::Adapter, None) => wrong(
                "an adapter needs a table `[adapter]` with `data-sourcing`, `intended-use` and `update-cadence`".to_owned(),
            ),
            (role, Some(_)) if role != Role::Adapter => {
                wrong(format!("the table `[adapter]` is for adapters; this is a {}", role.name()))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.file.id
    }

    /// What another tool made, if that is what the folder is about: the file, and what is known of it.
    pub(crate) fn ready_made(&self) -> Option<(PathBuf, Package)> {
        let (component, version) = self
            .file
            .component
            .as_ref()
            .zip(self.file.version.as_ref())?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let (_, name) = self.file.id.split_once('/')?;
        let package = Package::without_crate(name, version, folder);
        Some((folder.join(component), package))
    }

    pub(crate) fn role(&self) -> Role {
        self.file.role
    }

    /// The manifest as JSON; `contract` is the version that the component itself speaks.
    pub(crate) fn json(
        &self,
        package: &Package,
        contract: &str,
    ) -> Result<String, serde_json::Error> {
        serde_json::to_string(&Manifest {
            id: &self.file.id,
            version: &package.version,
            role: self.file.role,
            contract,
            vendor: &self.file.vendor,
            contact: &self.file.contact,
            license: self.file.license.as_deref().unwrap_or(&package.license),
            description: self
                .file
                .description
                .as_deref()
                .unwrap_or(&package.description),
            capabilities: &self.file.capabilities,
            adapter: self.file.adapter.as_ref(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Source, BuildError> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("plugin.toml"), text).expect("written");
        Source::read(folder.path())
    }

    #[test]
    fn a_manifest_takes_what_it_lacks_from_the_crate() {
        let source = read("id = \"acme/numbers\"\nrole = \"connector\"\nvendor = \"Acme\"\n")
            .expect("a manifest");
        let package = Package::for_tests("numbers", "1.2.3");
        let json: serde_json::Value =
            serde_json::from_str(&source.json(&package, "0.1.0").expect("json")).expect("json");
        assert_eq!(json["version"], "1.2.3");
        assert_eq!(json["contract"], "0.1.0");
        assert_eq!(json["license"], package.license);
        assert_eq!(json["role"], "connector");
        assert!(json.get("adapter").is_none());
    }

    #[test]
    fn what_makes_no_sense_is_said_with_its_place() {
        let wrong = |text: &str| match read(text) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("accepted: {text}"),
        };
        assert!(wrong("id = \"Acme\"\nrole = \"policy\"\n").contains("a vendor and a name"));
        assert!(wrong("id = \"a/b\"\nrole = \"filter\"\n").contains("unknown variant `filter`"));
        assert!(wrong("id = \"a/b\"\nrole = \"policy\"\nvendr = \"x\"\n").contains("line 3"));
        assert!(wrong("id = \"a/b\"\nrole = \"adapter\"\n").contains("needs a table `[adapter]`"));
        assert!(
            wrong("id = \"a/b\"\nrole = \"policy\"\n[[capabilities]]\ncapability = \"files\"\nreason = \" \"\n")
                .contains("capability `files` has no `reason`")
        );
    }

    #[test]
    fn what_another_tool_made_has_its_version_here() {
        let text = "id = \"acme/rules\"\nrole = \"policy\"\nlicense = \"MIT\"\n";
        let source = read(&format!(
            "{text}component = \"app.wasm\"\nversion = \"2.0.0\"\n"
        ));
        let source = source.expect("a manifest");
        let (file, package) = source.ready_made().expect("ready-made");
        assert!(file.ends_with("app.wasm"), "{}", file.display());
        let json: serde_json::Value =
            serde_json::from_str(&source.json(&package, "0.1.0").expect("json")).expect("json");
        assert_eq!(
            (&json["version"], &json["license"]),
            (&"2.0.0".into(), &"MIT".into())
        );
        assert!(package.out_dir().ends_with("target/sandcast"));
        let wrong = |line: &str| match read(&format!("{text}{line}\n")) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("accepted: {line}"),
        };
        assert!(wrong("component = \"app.wasm\"").contains("say `version`"));
        assert!(wrong("version = \"2.0.0\"").contains("with `component`"));
    }

    #[test]
    fn a_folder_without_one_is_no_plugin() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(matches!(
            Source::read(folder.path()),
            Err(BuildError::NotAPlugin { .. })
        ));
    }
}
