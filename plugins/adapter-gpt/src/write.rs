//! Goes on from texts: pieces of a few tokens at a time, so that stop texts are seen and whoever
//! watches can read along.

use sandcast_sdk::graph::{Completion, Finish, Prompt, Sampling};
use sandcast_sdk::{Failure, GenerationOptions, Model, Session};

use crate::tokenizer::{Decoder, END, Text, Tokenizer};

/// Tokens of the first piece; each next one is twice as long.
const FIRST_PIECE: u32 = 8;

/// Tokens of the longest piece.
const LONGEST_PIECE: u32 = 256;

/// Texts that are written at a time.
const SLOTS: u32 = 64;

/// What was written after a prompt.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) text: String,
    pub(crate) tokens: u32,
    pub(crate) stopped: bool,
}

/// A text under way.
struct Writing<'a> {
    decoder: &'a Decoder,
    options: &'a GenerationOptions,
    /// What the next token depends on.
    window: Vec<u32>,
    text: Text,
    /// The bytes of the text after each token, as far as it was certain.
    lengths: Vec<usize>,
    /// Bytes of the text that were told.
    told: usize,
    /// Where the text is cut, once a stop text or the end came.
    end: Option<usize>,
    ended: bool,
}

impl<'a> Writing<'a> {
    fn new(
        mut window: Vec<u32>,
        context: usize,
        decoder: &'a Decoder,
        options: &'a GenerationOptions,
    ) -> Self {
        slide(&mut window, context);
        Self {
            decoder,
            options,
            window,
            text: Text::default(),
            lengths: Vec::new(),
            told: 0,
            end: None,
            ended: false,
        }
    }

    fn tokens(&self) -> u32 {
        self.lengths.len() as u32
    }

    /// Tokens that are still to be written.
    fn left(&self) -> u32 {
        if self.ended {
            0
        } else {
            self.options.maximum_tokens.saturating_sub(self.tokens())
        }
    }

    /// Appends what came of a piece, and gives the text that is certain now and was not told.
    fn append(&mut self, completion: &Completion, context: usize) -> &str {
        for token in &completion.tokens {
            self.window.push(*token);
            let before = self.text.so_far().len();
            self.text.push(self.decoder.bytes(*token));
            self.lengths.push(self.text.so_far().len());
            if let Some(at) = self.stop_after(before) {
                self.end = Some(at);
                self.ended = true;
                break;
            }
        }
        if !self.ended {
            match completion.finish {
                Finish::Stop => self.ended = true,
                Finish::Context => slide(&mut self.window, (context / 2).max(1)),
                Finish::Length => slide(&mut self.window, context),
            }
        }
        let certain = match self.end {
            Some(end) => end,
            None => self.safe(),
        };
        let from = self.told.min(certain);
        self.told = certain.max(self.told);
        self.text.so_far().get(from..certain).unwrap_or_default()
    }

    /// Where a stop text begins that ends in the text after `before`.
    fn stop_after(&self, before: usize) -> Option<usize> {
        let text = self.text.so_far();
        let places = self.options.stop.iter().filter_map(|stop| {
            let mut from = before.saturating_sub(stop.len());
            while !text.is_char_boundary(from) {
                from -= 1;
            }
            Some(from + text.get(from..)?.find(stop.as_str())?)
        });
        places.min()
    }

    /// As much of the text as no stop text can begin in.
    fn safe(&self) -> usize {
        let text = self.text.so_far();
        let held = self.options.stop.iter().filter_map(|stop| {
            let starts = stop.char_indices().skip(1).map(|(at, _)| at);
            // The longest beginning of the stop text that the text ends in.
            starts
                .filter(|at| stop.get(..*at).is_some_and(|begin| text.ends_with(begin)))
                .max()
        });
        text.len() - held.max().unwrap_or(0)
    }

    fn finish(self) -> Written {
        let tokens = self.tokens();
        match self.end {
            None => Written {
                text: self.text.finish(),
                tokens,
                stopped: self.ended,
            },
            Some(end) => {
                // Tokens of which something is left.
                let whole = self.lengths.iter().filter(|length| **length <= end).count();
                let covered = whole.checked_sub(1).and_then(|last| self.lengths.get(last));
                let partial = covered.copied().unwrap_or(0) < end;
                Written {
                    text: self.text.so_far().get(..end).unwrap_or_default().to_owned(),
                    tokens: (whole as u32 + u32::from(partial)).min(tokens),
                    stopped: true,
                }
            }
        }
    }
}

/// Leaves the last tokens, at most so many; a window that is too long keeps half of them.
fn slide(window: &mut Vec<u32>, context: usize) {
    if window.len() > context {
        let kept = (context / 2).max(1);
        window.drain(..window.len() - kept);
    }
}

/// Goes on from prompts.
///
/// # Errors
/// What the host says of the session or the options.
pub(crate) fn write(
    model: &Model,
    tokenizer: &Tokenizer,
    context: usize,
    prompts: &[&str],
    options: &GenerationOptions,
) -> Result<Vec<Written>, Failure> {
    let session = model.session()?;
    let decoder = tokenizer.decoder();
    let mut encoder = tokenizer.encoder();
    let mut all: Vec<Writing<'_>> = prompts
        .iter()
        .map(|prompt| {
            let mut window = vec![END];
            encoder.encode(prompt, &mut window);
            Writing::new(window, context, &decoder, options)
        })
        .collect();
    let mut piece = FIRST_PIECE;
    while all.iter().any(|one| one.left() > 0) {
        let rows: Vec<usize> = (0..all.len()).filter(|row| all[*row].left() > 0).collect();
        let asked = rows.iter().filter_map(|row| {
            let one = all.get(*row)?;
            Some(Prompt {
                tokens: one.window.clone(),
                sampling: sampling(options, *row, one.tokens(), one.left().min(piece)),
            })
        });
        let completions = generate(&session, asked.collect())?;
        for (row, completion) in rows.into_iter().zip(&completions) {
            let Some(one) = all.get_mut(row) else {
                continue;
            };
            let told = one.append(completion, context);
            if !told.is_empty() {
                model.wrote(row as u32, told);
            }
        }
        piece = (2 * piece).min(LONGEST_PIECE);
    }
    let mut written = Vec::with_capacity(all.len());
    for (row, one) in all.into_iter().enumerate() {
        let told = one.told;
        let one = one.finish();
        match one.text.get(told..) {
            Some(rest) if !rest.is_empty() => model.wrote(row as u32, rest),
            _ => {}
        }
        written.push(one);
    }
    Ok(written)
}

fn generate(session: &Session, prompts: Vec<Prompt>) -> Result<Vec<Completion>, Failure> {
    let count = prompts.len();
    let completions = session.generate(&prompts, SLOTS)?;
    if completions.len() == count {
        Ok(completions)
    } else {
        Err(Failure::internal(format!(
            "{} completions for {count} prompts",
            completions.len()
        )))
    }
}

fn sampling(options: &GenerationOptions, row: usize, drawn: u32, tokens: u32) -> Sampling {
    Sampling {
        temperature: options.temperature,
        top_k: options.top_k,
        top_p: options.top_p,
        maximum_tokens: tokens,
        stop: vec![END],
        // The same prompt twice is gone on from in two ways.
        seed: options
            .seed
            .wrapping_add((row as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        drawn,
        slide: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hyperparameters::Hyperparameters;

    fn options(maximum_tokens: u32, stop: &[&str]) -> GenerationOptions {
        GenerationOptions {
            maximum_tokens,
            temperature: 1.0,
            top_k: None,
            top_p: None,
            stop: stop.iter().map(|one| (*one).to_owned()).collect(),
            seed: 1,
        }
    }

    /// Bytes as tokens.
    fn bytes() -> Tokenizer {
        Tokenizer::learn(std::iter::empty(), &Hyperparameters::default())
    }

    fn piece(text: &[u8], finish: Finish) -> Completion {
        Completion {
            tokens: text.iter().map(|byte| u32::from(*byte) + 1).collect(),
            finish,
        }
    }

    /// What is told of pieces, one after the other, and what comes of them.
    fn told(pieces: &[&[u8]], options: &GenerationOptions) -> (Vec<String>, Written) {
        let tokenizer = bytes();
        let decoder = tokenizer.decoder();
        let mut writing = Writing::new(vec![END], 1_000, &decoder, options);
        let told = pieces
            .iter()
            .map(|text| {
                writing
                    .append(&piece(text, Finish::Length), 1_000)
                    .to_owned()
            })
            .collect();
        (told, writing.finish())
    }

    #[test]
    fn a_stop_text_ends_the_writing_wherever_pieces_end() {
        let options = options(100, &["END", "\n\n"]);
        let (said, written) = told(&[b"one EN", b"ough E", b"N", b"D two"], &options);
        assert_eq!(said, ["one ", "ENough ", "", ""]);
        assert_eq!(
            written,
            Written {
                text: "one ENough ".into(),
                tokens: 11,
                stopped: true
            }
        );
        let (said, written) = told(&[b"a\n", b"b\n\nc"], &options);
        assert_eq!(said, ["a", "\nb"]);
        assert_eq!(written.text, "a\nb");
        let (_, written) = told(&[b"END"], &options);
        assert_eq!((written.text.as_str(), written.tokens), ("", 0));
    }

    #[test]
    fn what_was_held_back_is_written_where_no_stop_text_comes() {
        let options = options(7, &["END"]);
        let (said, written) = told(&[b"x", b" is EN"], &options);
        assert_eq!(said, ["x", " is "]);
        assert_eq!(
            written,
            Written {
                text: "x is EN".into(),
                tokens: 7,
                stopped: false
            }
        );
    }

    #[test]
    fn half_a_character_is_told_when_it_is_whole() {
        let (said, written) = told(&["é".as_bytes(), &[0xe2], &[0x82, 0xac]], &options(9, &[]));
        assert_eq!(said, ["é", "", "€"]);
        assert_eq!(written.text, "é€");
    }

    #[test]
    fn the_end_of_a_text_and_a_full_context_are_told_apart() {
        let tokenizer = bytes();
        let decoder = tokenizer.decoder();
        let options = options(100, &[]);
        let mut writing = Writing::new(vec![END; 6], 8, &decoder, &options);
        writing.append(&piece(b"abc", Finish::Context), 8);
        let token = |byte: u8| u32::from(byte) + 1;
        assert_eq!(writing.window, [token(b'b'), token(b'c')]);
        assert_eq!(writing.left(), 97);
        writing.append(&piece(b"d", Finish::Stop), 8);
        assert_eq!(writing.left(), 0);
        assert!(writing.finish().stopped);
        let long = Writing::new(vec![5; 20], 8, &decoder, &options);
        assert_eq!(long.window.len(), 4);
    }

    #[test]
    fn rows_draw_by_themselves() {
        let options = options(10, &[]);
        let seeds: Vec<u64> = (0..3)
            .map(|row| sampling(&options, row, 0, 1).seed)
            .collect();
        assert_eq!(seeds[0], 1);
        assert!(seeds[0] != seeds[1] && seeds[1] != seeds[2]);
    }
}
