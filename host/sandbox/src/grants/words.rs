//! Grants in words, as a person reads them.

use std::path::Path;

use super::{Access, Capability, Grants, HttpGrant, StateGrant};

impl Grants {
    /// What is granted of a capability, in words; `None` where it is not granted. `path` says how a
    /// folder of the host is shown.
    pub fn in_words(
        &self,
        capability: Capability,
        path: impl Fn(&Path) -> String,
    ) -> Option<String> {
        if !self.allows(capability) {
            return None;
        }
        Some(match capability {
            Capability::Files => {
                let files = self.files.iter().map(|grant| {
                    let access = match grant.access {
                        Access::Read => "read",
                        Access::ReadWrite => "read and write",
                    };
                    format!("{access} {} as {}", path(&grant.host), grant.guest)
                });
                files.collect::<Vec<_>>().join(", ")
            }
            Capability::Http => {
                let hosts = self.http.iter().map(HttpGrant::in_words);
                hosts.collect::<Vec<_>>().join(", ")
            }
            Capability::Log => format!("{} a second", self.log.bytes_per_second),
            Capability::Random => match self.random.as_ref().and_then(|random| random.seed) {
                Some(seed) => format!("from seed {seed}"),
                None => "unseeded".to_owned(),
            },
            Capability::Compute => self.compute.as_ref().map_or_else(String::new, |compute| {
                format!(
                    "{} of tensors, {} of computing",
                    compute.memory, compute.time
                )
            }),
            Capability::State => self
                .state
                .as_ref()
                .map_or_else(String::new, StateGrant::in_words),
            Capability::Sql => {
                let connections = self.sql.iter().map(|grant| grant.in_words(&path));
                connections.collect::<Vec<_>>().join(", ")
            }
            Capability::Blob => {
                let stores = self.blob.iter().map(|grant| grant.in_words(&path));
                stores.collect::<Vec<_>>().join(", ")
            }
            Capability::Config | Capability::Clock => "yes".to_owned(),
        })
    }
}

impl HttpGrant {
    /// Such as `GET HEAD https://api.example.com/v1 with env:TOKEN`.
    fn in_words(&self) -> String {
        let methods: Vec<&str> = self.methods.iter().map(|method| method.as_str()).collect();
        let port = self
            .port
            .map_or_else(String::new, |port| format!(":{port}"));
        let mut words = format!(
            "{} {}://{}{port}{}",
            methods.join(" "),
            self.scheme.as_str(),
            self.host,
            self.path
        );
        if !self.networks.is_empty() {
            let networks: Vec<String> = self.networks.iter().map(ToString::to_string).collect();
            words.push_str(&format!(" also in {}", networks.join(" ")));
        }
        if let Some(credential) = &self.credential {
            words.push_str(&format!(" with {}", credential.secret));
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FileGrant, RandomGrant};
    use super::*;

    fn words(grants: &Grants, capability: Capability) -> Option<String> {
        grants.in_words(capability, |path| path.display().to_string())
    }

    #[test]
    fn what_is_granted_is_said_and_what_is_not_is_nothing() {
        let http = r#"{ "host": "api.example.com", "path": "/v1", "port": 8443,
            "networks": ["10.1.0.0/16"], "credential": { "secret": { "env": "TOKEN" } } }"#;
        let grants = Grants {
            files: vec![FileGrant {
                host: "/srv/data".into(),
                guest: "/data".into(),
                access: Access::ReadWrite,
                quota: Default::default(),
            }],
            http: vec![serde_json::from_str(http).expect("a grant")],
            random: Some(RandomGrant { seed: None }),
            ..Grants::default()
        };
        let said = |capability| words(&grants, capability).expect("granted");
        assert_eq!(said(Capability::Files), "read and write /srv/data as /data");
        assert_eq!(
            said(Capability::Http),
            "GET HEAD https://api.example.com:8443/v1 also in 10.1.0.0/16 with env:TOKEN"
        );
        assert_eq!(said(Capability::Random), "unseeded");
        assert_eq!(words(&grants, Capability::Clock), None);
        assert_eq!(words(&Grants::default(), Capability::Files), None);
    }
}
