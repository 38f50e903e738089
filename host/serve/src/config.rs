use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU64, NonZeroUsize};
use std::str::FromStr;
use std::time::Duration;

/// How a server is set up. [`ServeConfig::default`] listens on the loopback interface only; who may
/// ask, and over what, is said by a [`Protection`](crate::Protection).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeConfig {
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// The models to serve, the first of a name being its default version. Empty for every model
    /// of the registry, those included that are registered while serving.
    pub models: Vec<ModelSelector>,
    /// The largest request body.
    pub max_body_bytes: NonZeroU64,
    /// The most rows of one request.
    pub max_rows: NonZeroUsize,
    /// How many predictions run at a time.
    pub max_concurrent: NonZeroUsize,
    /// How many requests wait for their turn, their bodies in memory, before others are sent away
    /// with 503.
    pub max_queued: usize,
    /// How many connections are open at a time; others wait to be accepted.
    pub max_connections: NonZeroUsize,
    /// How long a request may take, from its first body byte to its answer.
    pub request_timeout: Duration,
    /// How long a client may take to send the head of a request, and how long a connection may
    /// lie idle.
    pub header_timeout: Duration,
    /// How long a client may take to take its answers, once it lets the server wait for that.
    pub write_timeout: Duration,
    /// How long requests under way may still take once the server was told to stop.
    pub drain_timeout: Duration,
    /// How often the registry is asked whether an alias has moved; `None` for only on request.
    pub reload_interval: Option<Duration>,
    /// How often served predictions are summed up in the audit log.
    pub audit_interval: Duration,
}

impl Default for ServeConfig {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            models: Vec::new(),
            max_body_bytes: NonZeroU64::MIN.saturating_add((8 << 20) - 1),
            max_rows: NonZeroUsize::MIN.saturating_add((1 << 16) - 1),
            max_concurrent: cores.saturating_mul(NonZeroUsize::MIN.saturating_add(1)),
            max_queued: 64,
            max_connections: NonZeroUsize::MIN.saturating_add(1023),
            request_timeout: Duration::from_secs(30),
            header_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(10),
            reload_interval: Some(Duration::from_secs(5)),
            audit_interval: Duration::from_secs(60),
        }
    }
}

/// A model of the registry, and which of its versions: `credit-risk`, `credit-risk@champion` or
/// `credit-risk@3`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelSelector {
    /// The model's name.
    pub name: String,
    /// An alias or a version; `None` for what the registry takes for current.
    pub reference: Option<String>,
}

impl fmt::Display for ModelSelector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)?;
        match &self.reference {
            Some(reference) => write!(formatter, "@{reference}"),
            None => Ok(()),
        }
    }
}

/// A selector without a name, or with an empty reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` does not select a model; write `name`, `name@alias` or `name@version`")]
pub struct SelectorError(String);

impl FromStr for ModelSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let (name, reference) = match text.split_once('@') {
            Some((name, reference)) => (name, Some(reference)),
            None => (text, None),
        };
        if name.is_empty() || reference.is_some_and(str::is_empty) {
            return Err(SelectorError(text.to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            reference: reference.map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_say_model_and_reference() {
        for (text, name, reference) in [
            ("credit-risk", "credit-risk", None),
            ("credit-risk@champion", "credit-risk", Some("champion")),
            ("credit-risk@3", "credit-risk", Some("3")),
        ] {
            let selector: ModelSelector = text.parse().expect("a selector");
            assert_eq!(
                (selector.name.as_str(), selector.reference.as_deref()),
                (name, reference)
            );
            assert_eq!(selector.to_string(), text);
        }
    }

    #[test]
    fn a_selector_without_name_or_reference_is_refused() {
        for text in ["", "@champion", "credit-risk@"] {
            let error = text.parse::<ModelSelector>().expect_err("no selector");
            assert!(error.to_string().contains("write `name`"), "{error}");
        }
    }

    #[test]
    fn the_default_is_local() {
        let config = ServeConfig::default();
        assert!(config.address.ip().is_loopback());
        assert_eq!(config.max_body_bytes.get(), 8 << 20);
        assert_eq!(config.max_rows.get(), 65_536);
    }
}
