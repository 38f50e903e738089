//! A connector that misbehaves as its configuration says.

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
            Behaviour::TwinColumns => vec![field("number", Kind::Int64, false); 2],
            _ => schema(),
        })
    }

    fn partitions(&mut self) -> Result<Vec<Split>, Failure> {
        Ok(match self.behaviour {
            Behaviour::ManySplits => (0..200_000)
                .map(|place| Split::whole(&place.to_string()))
                .collect(),
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
