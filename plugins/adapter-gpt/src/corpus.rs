//! The texts of a dataset as one stream of tokens.

use sandcast_sdk::{Dataset, Failure, Kind, Task, TaskKind};

use crate::tokenizer::{END, Encoder};

/// Bytes of text that are learnt from at most.
const MAX_BYTES: usize = 1 << 30;

/// The column of the texts.
///
/// # Errors
/// `unsupported` for another task, `invalid-input` for other columns.
pub(crate) fn text_column(task: &Task) -> Result<&str, Failure> {
    if task.kind != TaskKind::TextGeneration {
        return Err(Failure::unsupported(
            "this adapter learns what comes next in a text, and nothing else",
        ));
    }
    match task.features.as_slice() {
        [text] if text.kind == Kind::Utf8 => Ok(&text.name),
        features => Err(Failure::invalid_input(format!(
            "{} features are given where one column of texts is wanted",
            features.len()
        ))),
    }
}

/// The texts of a dataset, in order; nulls are left out.
///
/// # Errors
/// What keeps the rows from being read, or too much text.
pub(crate) fn read(dataset: &Dataset, column: &str) -> Result<Vec<String>, Failure> {
    let mut texts = Vec::new();
    let mut bytes = 0_usize;
    for index in 0..dataset.batches() {
        let batch = dataset.read(index, &[column.to_owned()])?;
        let read = batch.column(0)?;
        let Some(values) = read.utf8() else {
            return Err(Failure::invalid_input(format!("`{column}` holds no texts")));
        };
        for text in values.iter().flatten() {
            bytes += text.len();
            if bytes > MAX_BYTES {
                return Err(Failure::invalid_input(format!(
                    "there are more than {MAX_BYTES} bytes of text; learn from fewer rows"
                )));
            }
            texts.push(text.to_owned());
        }
    }
    Ok(texts)
}

/// Texts one after the other, the end of a text before the first and after each.
pub(crate) fn stream<'t>(
    texts: impl Iterator<Item = &'t str>,
    encoder: &mut Encoder<'_>,
) -> Vec<i32> {
    let mut stream = vec![END as i32];
    let mut tokens = Vec::new();
    for text in texts {
        tokens.clear();
        encoder.encode(text, &mut tokens);
        stream.extend(tokens.iter().map(|token| *token as i32));
        stream.push(END as i32);
    }
    stream
}

/// How a stream is cut into rows to learn from, and how many steps make an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Windows {
    /// How far each begins after the one before it.
    pub(crate) stride: u32,
    /// How many there are.
    pub(crate) rows: u32,
}

/// The most windows that are told apart, so that their order stays small.
const MAX_WINDOWS: usize = 1 << 22;

impl Windows {
    /// Windows to learn from: every place of the stream, as far as there are not too many.
    pub(crate) fn to_learn(stream: usize, context: u32) -> Option<Self> {
        Self::of(stream, context, 1, MAX_WINDOWS)
    }

    /// Windows to judge by: side by side, further apart where there would be too many.
    pub(crate) fn to_judge(stream: usize, context: u32, most: u32) -> Option<Self> {
        Self::of(stream, context, context as usize, most as usize)
    }

    /// A window holds as many tokens as the context, and the label of the last lies behind it.
    fn of(stream: usize, context: u32, stride: usize, most: usize) -> Option<Self> {
        let places = stream.checked_sub(context as usize + 1)? + 1;
        let stride = stride.max(places.div_ceil(most.max(1))).max(1);
        Some(Self {
            stride: u32::try_from(stride).ok()?,
            rows: u32::try_from((places - 1) / stride + 1).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hyperparameters::Hyperparameters;
    use crate::tokenizer::Tokenizer;

    #[test]
    fn texts_stand_between_their_ends() {
        let hyperparameters = Hyperparameters::default();
        let tokenizer = Tokenizer::learn(std::iter::empty(), &hyperparameters);
        let stream = stream(["ab", "", "c"].into_iter(), &mut tokenizer.encoder());
        let token = |byte: u8| i32::from(byte) + 1;
        assert_eq!(stream, [0, token(b'a'), token(b'b'), 0, 0, token(b'c'), 0]);
    }

    #[test]
    fn windows_cover_the_stream() {
        assert_eq!(Windows::to_learn(8, 8), None);
        assert_eq!(
            Windows::to_learn(9, 8),
            Some(Windows { stride: 1, rows: 1 })
        );
        assert_eq!(
            Windows::to_learn(20, 8),
            Some(Windows {
                stride: 1,
                rows: 12
            })
        );
        let huge = Windows::to_learn(1 << 30, 8).expect("windows");
        assert!(huge.stride == 256 && huge.rows as usize <= MAX_WINDOWS);
        assert_eq!(
            Windows::to_judge(100, 8, 1_000),
            Some(Windows {
                stride: 8,
                rows: 12
            })
        );
        let few = Windows::to_judge(10_000, 8, 10).expect("windows");
        assert!(few.rows <= 10 && few.stride >= 8);
    }
}
