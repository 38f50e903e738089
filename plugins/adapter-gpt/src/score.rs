//! How surprising a text is, token by token.

use sandcast_sdk::graph::{Tensor, feed};
use sandcast_sdk::{Failure, Session};

use crate::network::SCORE;
use crate::tokenizer::{END, Tokenizer};

/// Tokens of one run.
const TOKENS_AT_ONCE: usize = 1 << 14;

/// The least length that stretches are filled up to.
const LEAST_LENGTH: usize = 16;

/// A stretch of a text: what is read, and what is to come.
#[derive(Debug, PartialEq)]
struct Stretch {
    row: usize,
    /// The place of its first label in the text.
    start: usize,
    /// Labels.
    length: usize,
    /// Labels at its beginning that another stretch counts.
    known: usize,
}

/// The surprise at each text, in nats, and its tokens.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Score {
    pub(crate) nats: f64,
    pub(crate) tokens: usize,
}

/// Cuts a text of so many tokens into stretches of at most `context`, so that each token is counted
/// once and sees at least half of the context before it, if there is as much.
fn stretches(row: usize, tokens: usize, context: usize) -> Vec<Stretch> {
    let step = (context / 2).max(1);
    let mut found = Vec::new();
    let mut counted = 0;
    while counted < tokens {
        let start = if counted == 0 {
            0
        } else {
            counted - (context - step)
        };
        let length = context.min(tokens - start);
        found.push(Stretch {
            row,
            start,
            length,
            known: counted - start,
        });
        counted = start + length;
    }
    found
}

/// The length that a stretch is filled up to: a function of its own length alone, so that what it
/// comes to does not depend on those beside it.
fn filled(length: usize, context: usize) -> usize {
    length.next_power_of_two().max(LEAST_LENGTH).min(context)
}

/// Scores texts.
///
/// # Errors
/// What the host says of the session.
pub(crate) fn score(
    session: &Session,
    tokenizer: &Tokenizer,
    context: usize,
    texts: &[&str],
) -> Result<Vec<Score>, Failure> {
    let mut encoder = tokenizer.encoder();
    let mut rows = Vec::with_capacity(texts.len());
    let mut waiting: Vec<(usize, Stretch)> = Vec::new();
    for (row, text) in texts.iter().enumerate() {
        let mut tokens = vec![END];
        encoder.encode(text, &mut tokens);
        let stretches = stretches(row, tokens.len() - 1, context);
        let stretches = stretches.into_iter();
        waiting.extend(stretches.map(|one| (filled(one.length, context), one)));
        rows.push(tokens);
    }
    let mut scores = vec![Score::default(); rows.len()];
    for (score, tokens) in scores.iter_mut().zip(&rows) {
        score.tokens = tokens.len() - 1;
        score.nats = tokens.iter().map(|token| tokenizer.open(*token)).sum();
    }
    waiting.sort_by_key(|(time, stretch)| (*time, stretch.row, stretch.start));
    for group in waiting.chunk_by(|one, other| one.0 == other.0) {
        let time = group.first().map_or(1, |(time, _)| *time);
        for together in group.chunks((TOKENS_AT_ONCE / time).max(1)) {
            let losses = run(session, &rows, together, time)?;
            for ((_, stretch), losses) in together.iter().zip(losses.chunks_exact(time)) {
                let counted = losses.get(stretch.known..stretch.length);
                let nats = counted.unwrap_or_default().iter();
                if let Some(score) = scores.get_mut(stretch.row) {
                    score.nats += nats.map(|loss| f64::from(loss.max(0.0))).sum::<f64>();
                }
            }
        }
    }
    Ok(scores)
}

fn run(
    session: &Session,
    rows: &[Vec<u32>],
    together: &[(usize, Stretch)],
    time: usize,
) -> Result<Vec<f32>, Failure> {
    let shape = [together.len() as u32, time as u32];
    let gather = |skip: usize| -> Vec<i32> {
        let mut values = Vec::with_capacity(together.len() * time);
        for (_, stretch) in together {
            let from = stretch.start + skip;
            let tokens = rows
                .get(stretch.row)
                .and_then(|tokens| tokens.get(from..from + stretch.length))
                .unwrap_or_default();
            values.extend(tokens.iter().map(|token| *token as i32));
            values.extend(std::iter::repeat_n(END as i32, time - tokens.len()));
        }
        values
    };
    let positions: Vec<i32> = (0..time as i32).collect();
    let results = session.run(
        SCORE,
        vec![
            feed("tokens", Tensor::from_i32(&shape, &gather(0))?),
            feed("positions", Tensor::repeated(&positions, shape[0])?),
            feed("labels", Tensor::from_i32(&shape, &gather(1))?),
        ],
    )?;
    let losses = results.first().map(|result| result.value.values());
    losses
        .filter(|losses| losses.len() == together.len() * time)
        .ok_or_else(|| Failure::internal("the network gave no losses"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_counted_once_and_sees_what_is_before_it() {
        for (tokens, context) in [
            (0, 8),
            (1, 8),
            (8, 8),
            (9, 8),
            (12, 8),
            (100, 8),
            (7, 3),
            (5, 2),
        ] {
            let mut counted = 0;
            for stretch in stretches(0, tokens, context) {
                assert!(stretch.length <= context);
                assert_eq!(stretch.start + stretch.known, counted);
                assert!(stretch.start == 0 || stretch.known >= context / 2);
                counted = stretch.start + stretch.length;
            }
            assert_eq!(counted, tokens, "{tokens} of {context}");
        }
    }

    #[test]
    fn stretches_are_filled_up_by_their_own_length() {
        assert_eq!(filled(1, 128), 16);
        assert_eq!(filled(17, 128), 32);
        assert_eq!(filled(100, 128), 128);
        assert_eq!(filled(100, 120), 120);
        assert_eq!(filled(5, 8), 8);
    }
}
