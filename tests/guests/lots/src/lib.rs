//! A policy that looks at the clock and draws lots; its reasons say what it got. It allows to
//! promote, never comes back from being asked to `spin`, and denies everything else.

use sandcast_sdk::{Decision, Effect, Failure, Policy, Request, clock, log, random};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Calls of the clock.
    #[serde(default)]
    looks: u32,
}

struct Lots {
    config: Config,
}

impl Policy for Lots {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, Failure> {
        Ok(Self { config })
    }

    #[expect(clippy::empty_loop, reason = "what it is for")]
    fn decide(&mut self, request: &Request) -> Result<Decision, Failure> {
        if request.action == "spin" {
            loop {}
        }
        let mut reasons = vec![format!("drew {}", random::number())];
        for _ in 0..self.config.looks {
            let (now, monotonic) = (clock::since_epoch(), clock::monotonic());
            reasons.push(format!("at {now:?}, {monotonic:?}"));
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

sandcast_sdk::export_policy!(Lots);
