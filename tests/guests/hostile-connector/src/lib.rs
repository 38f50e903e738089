//! A connector that misbehaves as its configuration says.

use sandcast_sdk::bindings::imports::sandcast::plugin::data::RawColumn;
use sandcast_sdk::columns::{Rows, field};
use sandcast_sdk::{
    Batch, Chunk, Column, Connector, Failure, Field, Kind, Reject, ScanRequest, Split, Strings,
    Values, log,
};
use serde::Deserialize;

/// What to do, in the call where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Behaviour {
    /// Three rows, then the end.
    Behave,
    /// Fails as a plugin should.
    Fail,
    /// Never comes back from `next`.
    Spin,
    /// Never comes back from `open`.
    SpinInOpen,
    /// Takes memory until there is none.
    Memory,
    /// Traps.
    Trap,
    /// Panics.
    Panic,
    /// Calls itself without end.
    Stack,
    /// A column of fewer values than it says.
    ShortColumn,
    /// Columns of different lengths.
    UnequalColumns,
    /// A bitmap of too few bytes.
    ShortValidity,
    /// String offsets that fall.
    FallingOffsets,
    /// String offsets below 0.
    NegativeOffsets,
    /// String offsets past the bytes.
    OffsetsPastTheEnd,
    /// Strings that are not UTF-8.
    NotUtf8,
    /// Offsets that cut a character in two.
    CutCharacter,
    /// Values of another kind than the schema says.
    WrongKind,
    /// A batch with other columns than `schema` has said.
    WrongSchema,
    /// A null where the schema says there is none.
    NullInRequired,
    /// Many messages.
    FloodLog,
    /// One message of many bytes.
    LongLog,
    /// More rejects than anybody can want.
    ManyRejects,
    /// A reject of many bytes.
    LongReject,
    /// Says it has read more rows than it hands over.
    ClaimMoreRows,
    /// Says it has read fewer rows than it hands over.
    ClaimFewerRows,
    /// Rejects rows that cannot be, such as row 0.
    RejectRowZero,
    /// Rows without end.
    Endless,
    /// Chunks without rows and without end.
    EndlessNothing,
    /// Keeps every batch it makes.
    HoardBatches,
    /// A schema of very many columns.
    WideSchema,
    /// Two columns of one name.
    TwinColumns,
    /// Very many splits.
    ManySplits,
    /// Splits of the same id.
    TwinSplits,
    /// A column that says it has 2^32 - 1 rows and brings no values.
    GiantRows,
    /// Bytes of numbers that do not make a whole number of them.
    RawFraction,
    /// Offsets where there are no strings.
    RawStrayOffsets,
    /// Offsets that make no whole numbers.
    RawCutOffsets,
    /// A batch of very many columns.
    WideBatch,
    /// Names of columns of many bytes.
    LongNames,
    /// A failure that clears a terminal, and turns the direction of text.
    EscapesInFailure,
    /// A reject that does.
    EscapesInReject,
    /// A panic that does.
    EscapesInPanic,
    /// A message in the log that does.
    EscapesInLog,
    /// The id of a split, twice, that does.
    EscapesInSplits,
    /// The name of a column, twice, that does.
    EscapesInNames,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    behaviour: Behaviour,
}

struct Hostile {
    behaviour: Behaviour,
    calls: u32,
    hoard: Vec<Batch>,
}

/// Clears the screen, sets the title, goes up a line, hides what follows, and turns it around.
const ESCAPES: &str =
    "\u{1b}[2J\u{1b}]0;owned\u{7}\u{1b}[1A\r\u{8}\u{9b}31m\u{202e}\u{2066}\u{0}passed\n";

fn rows() -> Rows {
    Rows::new().int64("number", vec![1, 2, 3]).column(
        field("word", Kind::Utf8, true),
        [Some("a"), None, Some("c")].into_iter().collect(),
    )
}

fn schema() -> Vec<Field> {
    vec![
        field("number", Kind::Int64, false),
        field("word", Kind::Utf8, true),
    ]
}

/// The number column, beside a word column of these parts.
fn words(
    offsets: Vec<i32>,
    bytes: Vec<u8>,
    validity: Option<Vec<u8>>,
) -> Result<Option<Chunk>, Failure> {
    let word = Column {
        rows: 3,
        values: Values::Utf8(Strings { offsets, bytes }),
        validity,
    };
    columns(Column::from(vec![1_i64, 2, 3]), word)
}

fn columns(number: Column, word: Column) -> Result<Option<Chunk>, Failure> {
    Ok(Some(Chunk::rows(Batch::from_columns(
        &schema(),
        &[number, word],
    )?)))
}

/// The number column in bytes beside a word column of these offsets.
fn raw(values: Vec<u8>, stray: Vec<u8>, offsets: Vec<u8>) -> Result<Option<Chunk>, Failure> {
    let number = RawColumn {
        kind: Kind::Int64,
        rows: 3,
        values,
        offsets: stray,
        validity: None,
    };
    let word = RawColumn {
        kind: Kind::Utf8,
        rows: 3,
        values: Vec::new(),
        offsets,
        validity: None,
    };
    let batch = Batch::from_raw_columns(&schema(), &[number, word])?;
    Ok(Some(Chunk::rows(batch)))
}

fn reject(row: u64, raw: String) -> Reject {
    Reject {
        row,
        line: None,
        column: None,
        reason: "bad".into(),
        message: "told to".into(),
        raw,
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

impl Connector for Hostile {
    type Config = Config;

    fn open(config: Config) -> Result<Self, Failure> {
        if config.behaviour == Behaviour::SpinInOpen {
            spin();
        }
        Ok(Self {
            behaviour: config.behaviour,
            calls: 0,
            hoard: Vec::new(),
        })
    }

    fn schema(&mut self) -> Result<Vec<Field>, Failure> {
        Ok(match self.behaviour {
            Behaviour::WideSchema => (0..200_000)
                .map(|place| field(&format!("column_{place}"), Kind::Int64, false))
                .collect(),
            Behaviour::LongNames => (0..4096)
                .map(|place| {
                    field(
                        &format!("{place}{}", "x".repeat(10_000)),
                        Kind::Int64,
                        false,
                    )
                })
                .collect(),
            Behaviour::EscapesInNames => vec![field(ESCAPES, Kind::Int64, false); 2],
            Behaviour::TwinColumns => vec![field("number", Kind::Int64, false); 2],
            _ => schema(),
        })
    }

    fn partitions(&mut self) -> Result<Vec<Split>, Failure> {
        Ok(match self.behaviour {
            Behaviour::ManySplits => (0..200_000)
                .map(|place| Split::whole(&place.to_string()))
                .collect(),
            Behaviour::EscapesInSplits => vec![Split::whole(ESCAPES), Split::whole(ESCAPES)],
            Behaviour::TwinSplits => vec![Split::whole("all"), Split::whole("all")],
            _ => vec![Split::whole("all")],
        })
    }

    fn scan(&mut self, _request: ScanRequest) -> Result<(), Failure> {
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Chunk>, Failure> {
        self.calls += 1;
        let endless = matches!(
            self.behaviour,
            Behaviour::Endless | Behaviour::EndlessNothing | Behaviour::HoardBatches
        );
        if self.calls > 1 && !endless {
            return Ok(None);
        }
        match self.behaviour {
            Behaviour::Fail => {
                return Err(
                    Failure::unavailable("the source does not answer").hint("try again later")
                );
            }
            Behaviour::Spin => spin(),
            Behaviour::Memory => {
                let mut taken: Vec<Vec<u8>> = Vec::new();
                loop {
                    taken.push(std::hint::black_box(vec![1; 1 << 20]));
                }
            }
            #[cfg(target_arch = "wasm32")]
            Behaviour::Trap => core::arch::wasm32::unreachable(),
            Behaviour::Panic => panic!("told to"),
            Behaviour::Stack => {
                recurse(0);
            }
            Behaviour::ShortColumn => {
                let number = Column {
                    rows: 3,
                    values: Values::Int64(vec![1, 2]),
                    validity: None,
                };
                return columns(number, [Some("a"), None, Some("c")].into_iter().collect());
            }
            Behaviour::UnequalColumns => {
                return columns(
                    Column::from(vec![1_i64, 2, 3]),
                    [Some("a")].into_iter().collect(),
                );
            }
            Behaviour::ShortValidity => {
                let number = Column {
                    rows: 9,
                    values: Values::Int64(vec![1; 9]),
                    validity: Some(vec![0xff]),
                };
                let word = [Some("a"); 9].into_iter().collect();
                return columns(number, word);
            }
            Behaviour::FallingOffsets => return words(vec![0, 2, 1, 3], b"abc".to_vec(), None),
            Behaviour::NegativeOffsets => return words(vec![-2, -1, 0, 3], b"abc".to_vec(), None),
            Behaviour::OffsetsPastTheEnd => {
                return words(vec![0, 1, 2, i32::MAX], b"abc".to_vec(), None);
            }
            Behaviour::NotUtf8 => return words(vec![0, 1, 2, 3], vec![b'a', 0xff, b'c'], None),
            Behaviour::CutCharacter => return words(vec![0, 1, 2, 3], "aé".into(), None),
            Behaviour::WrongKind => {
                return columns(
                    Column::from(vec![1.0, 2.0, 3.0]),
                    [Some("a"); 3].into_iter().collect(),
                );
            }
            Behaviour::WrongSchema => {
                return Rows::new()
                    .float64("other", vec![1.0, 2.0, 3.0])
                    .into_chunk()
                    .map(Some);
            }
            Behaviour::NullInRequired => {
                let number = Column {
                    rows: 3,
                    values: Values::Int64(vec![1, 2, 3]),
                    validity: Some(vec![0b101]),
                };
                return columns(number, [Some("a"); 3].into_iter().collect());
            }
            Behaviour::FloodLog => (0..1_000_000).for_each(|number| log::info!("message {number}")),
            Behaviour::LongLog => log::info!("{}", "x".repeat(64 << 20)),
            Behaviour::ManyRejects => {
                let rejects = (1..=2_000_000)
                    .map(|row| reject(row, String::new()))
                    .collect();
                return Ok(Some(Chunk::with_rejects(None, rejects)));
            }
            Behaviour::LongReject => {
                return Ok(Some(Chunk::with_rejects(
                    None,
                    vec![reject(1, "x".repeat(64 << 20))],
                )));
            }
            Behaviour::ClaimMoreRows => {
                return Ok(Some(Chunk {
                    rows_read: 1_000,
                    batch: Some(rows().into_batch()?),
                    rejects: Vec::new(),
                }));
            }
            Behaviour::ClaimFewerRows => {
                return Ok(Some(Chunk {
                    rows_read: 1,
                    batch: Some(rows().into_batch()?),
                    rejects: Vec::new(),
                }));
            }
            Behaviour::RejectRowZero => {
                return Ok(Some(Chunk::with_rejects(
                    None,
                    vec![reject(0, String::new())],
                )));
            }
            Behaviour::GiantRows => {
                let giant = |values| Column {
                    rows: u32::MAX,
                    values,
                    validity: None,
                };
                let words = Values::Utf8(Strings {
                    offsets: Vec::new(),
                    bytes: Vec::new(),
                });
                return columns(giant(Values::Int64(Vec::new())), giant(words));
            }
            Behaviour::RawFraction => return raw(vec![1; 23], Vec::new(), Vec::new()),
            Behaviour::RawStrayOffsets => return raw(vec![1; 24], vec![0; 16], Vec::new()),
            Behaviour::RawCutOffsets => return raw(vec![1; 24], Vec::new(), vec![0; 15]),
            Behaviour::WideBatch => {
                let fields: Vec<Field> = (0..100_000)
                    .map(|place| field(&format!("column_{place}"), Kind::Int64, false))
                    .collect();
                let columns: Vec<Column> =
                    (0..100_000).map(|_| Column::from(vec![1_i64])).collect();
                return Ok(Some(Chunk::rows(Batch::from_columns(&fields, &columns)?)));
            }
            Behaviour::EscapesInFailure => {
                return Err(Failure::unavailable(ESCAPES).hint(ESCAPES));
            }
            Behaviour::EscapesInReject => {
                let escaping = Reject {
                    column: Some(ESCAPES.into()),
                    reason: ESCAPES.into(),
                    message: ESCAPES.into(),
                    ..reject(1, ESCAPES.into())
                };
                return Ok(Some(Chunk::with_rejects(None, vec![escaping])));
            }
            Behaviour::EscapesInPanic => panic!("{ESCAPES}"),
            Behaviour::EscapesInLog => log::error!("{ESCAPES}"),
            Behaviour::EndlessNothing => {
                return Ok(Some(Chunk {
                    rows_read: 0,
                    batch: None,
                    rejects: Vec::new(),
                }));
            }
            Behaviour::HoardBatches => loop {
                self.hoard.push(rows().into_batch()?);
            },
            _ => {}
        }
        rows().into_chunk().map(Some)
    }
}

sandcast_sdk::export_connector!(Hostile);
