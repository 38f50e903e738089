//! A policy that misbehaves as its configuration says.

use sandcast_sdk::{Decision, Effect, Failure, Obligation, Policy, Request, log};
use serde::Deserialize;

/// What to do, in the call where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Behaviour {
    /// Allows.
    Behave,
    /// Fails as a plugin should.
    Fail,
    /// Never comes back from `configure`.
    SpinInConfigure,
    /// Never comes back from `decide`.
    Spin,
    /// Takes memory until there is none.
    Memory,
    /// Traps.
    Trap,
    /// Calls itself without end.
    Stack,
    /// Many messages.
    FloodLog,
    /// Very many reasons.
    ManyReasons,
    /// A reason of many bytes.
    LongReason,
    /// Very many obligations.
    ManyObligations,
    /// An obligation whose parameters are lists in lists, very deep.
    NestedObligation,
    /// An obligation whose parameters are no JSON.
    GarbledObligation,
    /// An obligation of many bytes.
    LongObligation,
    /// A reason that clears a terminal, and turns the direction of text.
    EscapesInReason,
    /// A failure that does.
    EscapesInFailure,
    /// An obligation whose name does.
    EscapesInObligation,
    /// Allows whatever is asked in a trial, and never comes back in production.
    OnceLetIn,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    behaviour: Behaviour,
}

struct Hostile(Behaviour);

/// Clears the screen, sets the title, goes up a line, hides what follows, and turns it around.
const ESCAPES: &str =
    "\u{1b}[2J\u{1b}]0;owned\u{7}\u{1b}[1A\r\u{8}\u{9b}31m\u{202e}\u{2066}\u{0}passed\n";

#[expect(clippy::empty_loop, reason = "what it is for")]
fn spin() -> ! {
    loop {}
}

#[expect(unconditional_recursion, reason = "what it is for")]
fn recurse(depth: u64) -> u64 {
    let here = std::hint::black_box([depth; 64]);
    recurse(depth + 1) + here[(depth % 64) as usize]
}

fn allow(reasons: Vec<String>, obligations: Vec<Obligation>) -> Decision {
    Decision {
        effect: Effect::Allow,
        reasons,
        obligations,
    }
}

fn obliged(kind: &str, parameters: String) -> Decision {
    let obligation = Obligation {
        kind: kind.into(),
        parameters,
    };
    allow(Vec::new(), vec![obligation])
}

impl Policy for Hostile {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, Failure> {
        if config.behaviour == Behaviour::SpinInConfigure {
            spin();
        }
        Ok(Self(config.behaviour))
    }

    fn decide(&mut self, request: &Request) -> Result<Decision, Failure> {
        Ok(match self.0 {
            Behaviour::Behave | Behaviour::SpinInConfigure => Decision::allow("told to"),
            Behaviour::Fail => return Err(Failure::unavailable("nobody knows")),
            Behaviour::Spin => spin(),
            Behaviour::Memory => {
                let mut taken: Vec<Vec<u8>> = Vec::new();
                loop {
                    taken.push(std::hint::black_box(vec![1; 1 << 20]));
                }
            }
            Behaviour::Trap => {
                #[cfg(target_arch = "wasm32")]
                core::arch::wasm32::unreachable();
                #[cfg(not(target_arch = "wasm32"))]
                panic!("told to")
            }
            Behaviour::Stack => Decision::allow(recurse(0).to_string()),
            Behaviour::FloodLog => {
                (0..1_000_000).for_each(|number| log::warn!("message {number}"));
                Decision::allow("told to")
            }
            Behaviour::ManyReasons => allow(vec![String::new(); 1_000_000], Vec::new()),
            Behaviour::LongReason => allow(vec!["x".repeat(64 << 20)], Vec::new()),
            Behaviour::ManyObligations => {
                let obligation = Obligation {
                    kind: "mask-columns".into(),
                    parameters: "{}".into(),
                };
                allow(Vec::new(), vec![obligation; 300_000])
            }
            Behaviour::NestedObligation => {
                let depth = 30_000;
                let lists = ["[".repeat(depth), "]".repeat(depth)].concat();
                obliged("mask-columns", format!("{{\"columns\":{lists}}}"))
            }
            Behaviour::GarbledObligation => obliged("mask-columns", "no JSON".into()),
            Behaviour::LongObligation => obliged(
                "mask-columns",
                format!("{{\"columns\":\"{}\"}}", "x".repeat(8 << 20)),
            ),
            Behaviour::EscapesInReason => Decision::allow(ESCAPES),
            Behaviour::EscapesInFailure => {
                return Err(Failure::denied(ESCAPES).hint(ESCAPES));
            }
            Behaviour::EscapesInObligation => obliged(ESCAPES, "{}".into()),
            Behaviour::OnceLetIn => {
                let is_trial = [&request.principal, &request.resource]
                    .iter()
                    .any(|text| !text.ends_with(":production"));
                if !is_trial {
                    spin();
                }
                Decision::allow("told to")
            }
        })
    }
}

sandcast_sdk::export_policy!(Hostile);
