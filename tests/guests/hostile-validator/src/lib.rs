//! A validator that misbehaves as its configuration says.

use sandcast_sdk::{Batch, Failure, Field, Finding, Rule, Severity, Validator, Verdict, log};
use serde::Deserialize;

/// What to do, in the call where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Behaviour {
    /// Finds nothing.
    Behave,
    /// Fails as a plugin should.
    Fail,
    /// Never comes back from `check`.
    Spin,
    /// Never comes back from `finish`.
    SpinInFinish,
    /// Takes memory until there is none.
    Memory,
    /// Traps.
    Trap,
    /// Calls itself without end.
    Stack,
    /// Many messages.
    FloodLog,
    /// A row that the batch does not have.
    RowPastTheEnd,
    /// Rows that fall.
    FallingRows,
    /// The same row twice.
    TwinRows,
    /// More rows than there are.
    ManyRows,
    /// A finding of a rule that does not exist.
    UnknownRule,
    /// A finding about a column that does not exist.
    UnknownColumn,
    /// Very many findings.
    ManyFindings,
    /// A message of many bytes.
    LongMessage,
    /// A share that is not a number.
    MostlyNotANumber,
    /// A share above 1.
    MostlyAboveOne,
    /// Two rules of one name.
    TwinRules,
    /// Very many rules.
    ManyRules,
    /// A verdict that passes, against what was found.
    PassAnyway,
    /// A verdict about rows that were never seen.
    ClaimRows,
    /// No verdict at all.
    NoVerdict,
    /// A column that does not exist.
    ColumnPastTheEnd,
    /// Reads the same column without end.
    ReadForever,
    /// A rule whose id clears a terminal, and turns the direction of text.
    EscapesInRule,
    /// A description, a finding and a verdict that do.
    EscapesInMessage,
    /// A failure that does.
    EscapesInFailure,
    /// A rule about very many columns.
    ManyColumns,
    /// Names a person in the description of a rule, in a finding and in a verdict.
    PersonInMessage,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    behaviour: Behaviour,
}

struct Hostile {
    behaviour: Behaviour,
    rows: u64,
    failed: u64,
}

/// Clears the screen, sets the title, goes up a line, hides what follows, and turns it around.
const ESCAPES: &str =
    "\u{1b}[2J\u{1b}]0;owned\u{7}\u{1b}[1A\r\u{8}\u{9b}31m\u{202e}\u{2066}\u{0}passed\n";

/// Whom it names.
const PERSON: &str = "mustermann-4711";

fn rule(id: &str, mostly: f64) -> Rule {
    Rule {
        id: id.into(),
        kind: "hostile".into(),
        columns: Vec::new(),
        severity: Severity::Error,
        mostly,
        description: "does as it is told".into(),
    }
}

fn finding(rows: Vec<u32>) -> Finding {
    Finding {
        rule: "rule".into(),
        column: None,
        severity: Severity::Error,
        rows,
        message: "told to".into(),
    }
}

#[expect(clippy::empty_loop, reason = "what it is for")]
fn spin() -> ! {
    loop {}
}

#[expect(unconditional_recursion, reason = "what it is for")]
fn recurse(depth: u64) -> u64 {
    let here = std::hint::black_box([depth; 64]);
    recurse(depth + 1) + here[(depth % 64) as usize]
}

impl Validator for Hostile {
    type Config = Config;

    fn configure(config: Config, _schema: &[Field]) -> Result<Self, Failure> {
        Ok(Self {
            behaviour: config.behaviour,
            rows: 0,
            failed: 0,
        })
    }

    fn rules(&self) -> Vec<Rule> {
        match self.behaviour {
            Behaviour::MostlyNotANumber => vec![rule("rule", f64::NAN)],
            Behaviour::MostlyAboveOne => vec![rule("rule", 1.5)],
            Behaviour::TwinRules => vec![rule("rule", 1.0), rule("rule", 0.5)],
            Behaviour::ManyRules => (0..1_000_000)
                .map(|number| rule(&format!("rule-{number}"), 1.0))
                .collect(),
            Behaviour::EscapesInRule => vec![rule(ESCAPES, 1.0), rule(ESCAPES, 7.0)],
            Behaviour::EscapesInMessage => vec![Rule {
                description: ESCAPES.into(),
                columns: vec![ESCAPES.into()],
                ..rule("rule", 1.0)
            }],
            Behaviour::ManyColumns => vec![Rule {
                columns: vec![String::new(); 1_000_000],
                ..rule("rule", 1.0)
            }],
            Behaviour::PersonInMessage => vec![Rule {
                description: PERSON.into(),
                ..rule("rule", 1.0)
            }],
            _ => vec![rule("rule", 1.0)],
        }
    }

    fn check(&mut self, batch: &Batch) -> Result<Vec<Finding>, Failure> {
        let rows = batch.rows();
        self.rows += u64::from(rows);
        Ok(match self.behaviour {
            Behaviour::Fail => return Err(Failure::invalid_input("the rows make no sense")),
            Behaviour::Spin => spin(),
            Behaviour::Memory => {
                let mut taken: Vec<Vec<u8>> = Vec::new();
                loop {
                    taken.push(std::hint::black_box(vec![1; 1 << 20]));
                }
            }
            #[cfg(target_arch = "wasm32")]
            Behaviour::Trap => core::arch::wasm32::unreachable(),
            Behaviour::Stack => {
                recurse(0);
                Vec::new()
            }
            Behaviour::FloodLog => {
                (0..1_000_000).for_each(|number| log::warn!("message {number}"));
                Vec::new()
            }
            Behaviour::RowPastTheEnd => vec![finding(vec![rows])],
            Behaviour::FallingRows => vec![finding(vec![1, 0])],
            Behaviour::TwinRows => vec![finding(vec![0, 0])],
            Behaviour::ManyRows => vec![finding((0..u32::MAX >> 8).collect())],
            Behaviour::UnknownRule => vec![Finding {
                rule: "another".into(),
                ..finding(vec![0])
            }],
            Behaviour::UnknownColumn => vec![Finding {
                column: Some("another".into()),
                ..finding(vec![0])
            }],
            Behaviour::ManyFindings => (0..1_000_000).map(|_| finding(vec![0])).collect(),
            Behaviour::LongMessage => vec![Finding {
                message: "x".repeat(64 << 20),
                ..finding(vec![0])
            }],
            Behaviour::PassAnyway => {
                self.failed += 1;
                vec![finding(vec![0])]
            }
            Behaviour::EscapesInMessage => {
                self.failed += 1;
                vec![Finding {
                    message: ESCAPES.into(),
                    ..finding(vec![0])
                }]
            }
            Behaviour::PersonInMessage => {
                self.failed += 1;
                vec![Finding {
                    message: PERSON.into(),
                    ..finding(vec![0])
                }]
            }
            Behaviour::EscapesInFailure => {
                return Err(Failure::invalid_input(ESCAPES).hint(ESCAPES));
            }
            Behaviour::ColumnPastTheEnd => {
                batch.column(u32::MAX)?;
                Vec::new()
            }
            Behaviour::ReadForever => loop {
                std::hint::black_box(batch.column(0)?);
            },
            _ => Vec::new(),
        })
    }

    fn finish(&mut self) -> Result<Vec<Verdict>, Failure> {
        let verdict = Verdict {
            rule: "rule".into(),
            passed: true,
            rows_checked: self.rows,
            rows_failed: self.failed,
            message: "told to".into(),
        };
        Ok(match self.behaviour {
            Behaviour::SpinInFinish => spin(),
            Behaviour::NoVerdict => Vec::new(),
            Behaviour::EscapesInMessage => vec![Verdict {
                passed: false,
                message: ESCAPES.into(),
                ..verdict
            }],
            Behaviour::PersonInMessage => vec![Verdict {
                passed: false,
                message: PERSON.into(),
                ..verdict
            }],
            Behaviour::ClaimRows => vec![Verdict {
                rows_checked: self.rows + 1,
                rows_failed: u64::MAX,
                ..verdict
            }],
            _ => vec![verdict],
        })
    }
}

sandcast_sdk::export_validator!(Hostile);
