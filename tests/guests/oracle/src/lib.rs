//! A policy that is no function of its question: it looks at the clock, draws lots, and asks over
//! HTTP. Its reasons say what it got.

use sandcast_sdk::http::Request as HttpRequest;
use sandcast_sdk::{Decision, Effect, Failure, Policy, Request, clock, log, random};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Asked with the action as the body; not asked when absent.
    url: Option<String>,
    /// Calls of the clock.
    #[serde(default)]
    looks: u32,
}

struct Oracle {
    config: Config,
    asked: u32,
}

impl Policy for Oracle {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, Failure> {
        Ok(Self { config, asked: 0 })
    }

    fn decide(&mut self, request: &Request) -> Result<Decision, Failure> {
        self.asked += 1;
        let mut reasons = vec![format!("question {}", self.asked)];
        for _ in 0..self.config.looks {
            let (now, monotonic) = (clock::since_epoch(), clock::monotonic());
            reasons.push(format!("at {now:?}, {monotonic:?}"));
        }
        reasons.push(format!("drew {}", random::number()));
        if let Some(url) = &self.config.url {
            let answer = HttpRequest::new("POST", url)
                .body(request.action.clone().into_bytes())
                .send()?;
            let status = answer.status;
            let body = answer.bytes(1 << 20)?;
            reasons.push(format!("{status}: {}", String::from_utf8_lossy(&body)));
        }
        log::info!("{}", reasons.join("; "));
        Ok(Decision {
            effect: if request.action == "promote" {
                Effect::Allow
            } else {
                Effect::Deny
            },
            reasons,
            obligations: Vec::new(),
        })
    }
}

sandcast_sdk::export_policy!(Oracle);
