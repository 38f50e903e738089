//! Who may sign the plugins of a role.

use sandcast_audit::VerifierKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::IdentityRule;
use crate::manifest::Role;

/// Who may sign the plugins of a role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrustRule {
    /// Whether plugins without a signature of one of the keys or identities are refused.
    #[serde(default = "yes")]
    pub required: bool,
    /// The public keys, as `sandcast sign --new-key` prints them.
    #[serde(default)]
    pub keys: Vec<VerifierKey>,
    /// Whom a Sigstore bundle beside the component may name, `plugin.wasm.sigstore.json` for
    /// `plugin.wasm`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<IdentityRule>,
}

fn yes() -> bool {
    true
}

/// What is wrong with a rule, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleProblem {
    /// The place in the file.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl TrustRule {
    /// What is wrong with the rule of a role, as it is written.
    pub fn problems(&self, role: Role) -> Vec<RuleProblem> {
        if self.keys.is_empty() && self.identities.is_empty() {
            // An empty list would let nobody sign: that is said by a key, or not at all.
            return vec![RuleProblem {
                path: format!("trust.{role}.keys"),
                message: format!("nobody may sign a {role}"),
                help:
                    "write a public key, as `sandcast sign --new-key` prints it, or leave the role \
                       out"
                    .to_owned(),
            }];
        }
        let identities = self.identities.iter().enumerate();
        let problems = identities.filter_map(|(index, identity)| {
            let (field, message, help) = identity.problem()?;
            Some(RuleProblem {
                path: format!("trust.{role}.identities[{index}].{field}"),
                message,
                help: help.to_owned(),
            })
        });
        problems.collect()
    }

    /// Puts the roots of trust in, in place of the files that they are in.
    ///
    /// # Errors
    /// When one of them cannot be read, or cannot be used.
    pub fn put_roots_in(
        &mut self,
        role: Role,
        mut read: impl FnMut(&str) -> Result<String, String>,
    ) -> Result<(), RuleProblem> {
        for (index, identity) in self.identities.iter_mut().enumerate() {
            identity
                .put_root_in(&mut read)
                .map_err(|message| RuleProblem {
                    path: format!("trust.{role}.identities[{index}].trust_root"),
                    message,
                    help: "name the `trusted_root.json` of the Sigstore that is meant, as `cosign \
                       trusted-root create` or a TUF client writes it"
                        .to_owned(),
                })?;
        }
        Ok(())
    }
}
