//! Generation: prompts go in, tokens come out one by one, several sequences at a time.
//!
//! Sequences join and leave between two steps (continuous batching, Yu et al. 2022), so a short
//! one does not wait for a long one. A sequence depends on its prompt, its sampling and the
//! weights alone: which others run beside it changes nothing.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::ops::ControlFlow;

use crate::backend::Decoder;
use crate::error::RunError;
use crate::program::Generating;
use crate::random::{self, Purpose, Stream};
use crate::session::Session;
use crate::train::StopReason;

/// The most tokens of a prompt that are read in one run; less is read in powers of two, so that
/// plans are few.
pub(crate) const PROMPT_PIECE: usize = 64;

/// The most tokens of prompts that are read in one step, so that a step is short whatever waits.
pub(crate) const PROMPT_TOKENS: usize = 4 * PROMPT_PIECE;

/// The most sequences at a time.
const SLOTS: usize = 4096;

/// How the next token is chosen from its logits.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; at 0 the largest is taken. Finite, not negative.
    pub temperature: f32,
    /// Only so many of the largest logits count; at least 1.
    pub top_k: Option<u32>,
    /// Only the likeliest tokens that together reach this probability count (Holtzman et al.
    /// 2020); above 0, at most 1.
    pub top_p: Option<f32>,
    /// Tokens to write, at least 1.
    pub maximum_tokens: u32,
    /// Tokens that end the sequence; they are not part of it.
    pub stop: Vec<u32>,
    /// What draws depend on, beside the place in the sequence.
    pub seed: u64,
    /// Draws that were made before, where the prompt holds what an earlier generation wrote: the
    /// sequence then goes on as if it had never been interrupted.
    pub drawn: u32,
    /// Whether a sequence that fills the context goes on from its later half; otherwise it ends
    /// there.
    pub slide: bool,
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Finish {
    /// A stop token came.
    Stop,
    /// There are as many tokens as were asked for.
    Length,
    /// The context is full.
    Context,
}

/// What a generation is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// The tokens to go on from, at least one.
    pub tokens: Vec<u32>,
    /// How to go on.
    pub sampling: Sampling,
}

/// A token that was written, or the end of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The number that [`Generator::submit`] gave.
    pub sequence: u64,
    /// The token; none where the sequence ended without one.
    pub token: Option<u32>,
    /// Set with the last one of a sequence.
    pub finish: Option<Finish>,
}

/// What was written after a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The tokens without the prompt.
    pub tokens: Vec<u32>,
    /// Why there are no more.
    pub finish: Finish,
}

/// Sequences under way with the weights of a session.
pub struct Generator<'a> {
    decoder: Box<dyn Decoder + 'a>,
    of: &'a Generating,
    slots: Vec<Option<Running>>,
    waiting: VecDeque<Running>,
    submitted: u64,
}

struct Running {
    sequence: u64,
    sampling: Sampling,
    /// The prompt and what was written.
    tokens: Vec<u32>,
    /// Tokens that were not read yet, at the end of `tokens`.
    unread: usize,
    written: u32,
}

impl<'a> Generator<'a> {
    pub(crate) fn new(
        decoder: Box<dyn Decoder + 'a>,
        of: &'a Generating,
        slots: usize,
    ) -> Generator<'a> {
        Generator {
            decoder,
            of,
            slots: (0..slots).map(|_| None).collect(),
            waiting: VecDeque::new(),
            submitted: 0,
        }
    }

    /// Puts a prompt in the queue.
    ///
    /// # Errors
    /// When the prompt is empty, longer than the context or outside the vocabulary, or the
    /// sampling makes no sense.
    pub fn submit(&mut self, prompt: Prompt) -> Result<u64, RunError> {
        check(&prompt, self.of)?;
        let sequence = self.submitted;
        self.submitted += 1;
        self.waiting.push_back(Running {
            sequence,
            unread: prompt.tokens.len(),
            tokens: prompt.tokens,
            sampling: prompt.sampling,
            written: 0,
        });
        Ok(sequence)
    }

    /// Whether nothing runs and nothing waits.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.slots.iter().all(Option::is_none)
    }

    /// Writes the next token of every sequence that has a slot and whose prompt is read. Sequences
    /// that wait take the slots that are free; of prompts, only so many tokens are read in a step
    /// that it stays short.
    ///
    /// # Errors
    /// When logits are not numbers. Every sequence has then ended.
    pub fn step(&mut self) -> Result<Vec<Written>, RunError> {
        let result = self.try_step();
        if result.is_err() {
            self.waiting.clear();
            for (index, slot) in self.slots.iter_mut().enumerate() {
                *slot = None;
                self.decoder.clear(index);
            }
        }
        result
    }

    fn try_step(&mut self) -> Result<Vec<Written>, RunError> {
        for slot in &mut self.slots {
            if slot.is_none() {
                *slot = self.waiting.pop_front();
            }
        }
        // Whatever has more than one token to read reads all but the last by itself.
        let mut left = PROMPT_TOKENS;
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some(running) = slot else { continue };
            while running.unread > 1 && left > 0 {
                let most = (running.unread - 1).min(PROMPT_PIECE).min(left);
                let count = 1 << most.ilog2();
                left -= count;
                let first = running.tokens.len() - running.unread;
                self.decoder
                    .advance(&[index], &signed(&running.tokens[first..first + count]))?;
                running.unread -= count;
            }
        }
        let slots: Vec<usize> = (0..self.slots.len())
            .filter(|index| matches!(&self.slots[*index], Some(running) if running.unread == 1))
            .collect();
        if slots.is_empty() {
            return Ok(Vec::new());
        }
        let last: Vec<u32> = slots
            .iter()
            .filter_map(|index| self.slots[*index].as_ref()?.tokens.last().copied())
            .collect();
        let logits = self.decoder.advance(&slots, &signed(&last))?;
        let mut written = Vec::with_capacity(slots.len());
        for (index, logits) in slots.iter().zip(logits.chunks_exact(self.of.vocabulary)) {
            let Some(running) = &mut self.slots[*index] else {
                continue;
            };
            running.unread = 0;
            let place = running.sampling.drawn.saturating_add(running.written);
            let token = sample(logits, &running.sampling, place)?;
            let mut event = Written {
                sequence: running.sequence,
                token: Some(token),
                finish: None,
            };
            if running.sampling.stop.contains(&token) {
                event.token = None;
                event.finish = Some(Finish::Stop);
            } else {
                running.tokens.push(token);
                running.unread = 1;
                running.written += 1;
                if running.written >= running.sampling.maximum_tokens {
                    event.finish = Some(Finish::Length);
                } else if self.decoder.length(*index) >= self.of.context {
                    if running.sampling.slide && self.of.context > 1 {
                        self.decoder.clear(*index);
                        running.unread = running.tokens.len().min(self.of.context / 2).max(1);
                    } else {
                        event.finish = Some(Finish::Context);
                    }
                }
            }
            if event.finish.is_some() {
                self.decoder.clear(*index);
                self.slots[*index] = None;
            }
            written.push(event);
        }
        Ok(written)
    }
}

impl Session {
    /// Begins a generation of at most so many sequences at a time.
    ///
    /// # Errors
    /// When the program declares no generation.
    pub fn generator(&self, slots: usize) -> Result<Generator<'_>, RunError> {
        let (engine, program) = self.parts();
        let Some(of) = &program.generating else {
            return Err(RunError::NotGenerating);
        };
        let slots = slots.clamp(1, SLOTS);
        Ok(Generator::new(engine.decoder(slots)?, of, slots))
    }

    /// Goes on from every prompt, at most `slots` at a time. `watch` is asked before each step,
    /// with the tokens written so far, whether to go on.
    ///
    /// # Errors
    /// As [`Generator::submit`] and [`Generator::step`], or when the watcher stops it.
    pub fn generate(
        &self,
        prompts: Vec<Prompt>,
        slots: usize,
        watch: &mut dyn FnMut(u64) -> ControlFlow<StopReason>,
    ) -> Result<Vec<Completion>, RunError> {
        let mut generator = self.generator(slots.min(prompts.len()))?;
        let mut completions: Vec<Completion> = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            generator.submit(prompt)?;
            completions.push(Completion {
                tokens: Vec::new(),
                finish: Finish::Length,
            });
        }
        let mut total = 0;
        while !generator.is_idle() {
            if let ControlFlow::Break(reason) = watch(total) {
                return Err(RunError::Stopped {
                    step: total + 1,
                    reason,
                });
            }
            for written in generator.step()? {
                let Some(completion) = completions.get_mut(written.sequence as usize) else {
                    continue;
                };
                total += u64::from(written.token.is_some());
                completion.tokens.extend(written.token);
                if let Some(finish) = written.finish {
                    completion.finish = finish;
                }
            }
        }
        Ok(completions)
    }
}

fn signed(tokens: &[u32]) -> Vec<i32> {
    // They were compared with the vocabulary.
    tokens.iter().map(|token| *token as i32).collect()
}

fn check(prompt: &Prompt, of: &Generating) -> Result<(), RunError> {
    let refuse = |what: String| Err(RunError::BadPrompt { what });
    let Prompt { tokens, sampling } = prompt;
    if tokens.is_empty() {
        return refuse("the prompt has no tokens; give at least one".into());
    }
    if tokens.len() > of.context {
        return refuse(format!(
            "the prompt has {} tokens, over the context of {}; give the last of them only",
            tokens.len(),
            of.context
        ));
    }
    let limit = of.vocabulary.min(i32::MAX as usize);
    if let Some(token) = tokens.iter().find(|token| **token as usize >= limit) {
        return refuse(format!(
            "token {token} of the prompt is outside the vocabulary of {}",
            of.vocabulary
        ));
    }
    if !(sampling.temperature.is_finite() && sampling.temperature >= 0.0) {
        return refuse(format!(
            "the temperature is {}; make it finite and not negative",
            sampling.temperature
        ));
    }
    if sampling.top_k == Some(0) {
        return refuse("top-k is 0; make it at least 1".into());
    }
    if let Some(share) = sampling.top_p
        && !(share > 0.0 && share <= 1.0)
    {
        return refuse(format!("top-p is {share}; make it above 0 and at most 1"));
    }
    if sampling.maximum_tokens == 0 {
        return refuse("the maximum of tokens is 0; make it at least 1".into());
    }
    Ok(())
}

/// Chooses a token.
fn sample(logits: &[f32], sampling: &Sampling, place: u32) -> Result<u32, RunError> {
    if logits
        .iter()
        .any(|logit| logit.is_nan() || *logit == f32::INFINITY)
    {
        return Err(RunError::Device {
            what: "logits are not finite; the weights of the model are broken".into(),
        });
    }
    // The largest first, and of equal ones the first.
    let larger = |a: &u32, b: &u32| {
        let order = logits[*b as usize].total_cmp(&logits[*a as usize]);
        order.then(a.cmp(b))
    };
    let mut chosen: Vec<u32> = (0..logits.len() as u32).collect();
    let count = if sampling.temperature == 0.0 {
        1
    } else {
        sampling
            .top_k
            .map_or(chosen.len(), |count| chosen.len().min(count as usize))
    };
    if count < chosen.len() {
        chosen.select_nth_unstable_by(count - 1, larger);
        chosen.truncate(count);
    }
    if let [only] = chosen.as_slice() {
        return Ok(*only);
    }
    chosen.sort_unstable_by(larger);
    let top = f64::from(logits[chosen[0] as usize]);
    let temperature = f64::from(sampling.temperature);
    let mut shares: Vec<f64> = chosen
        .iter()
        .map(|token| ((f64::from(logits[*token as usize]) - top) / temperature).exp())
        .collect();
    if let Some(wanted) = sampling.top_p {
        let wanted = f64::from(wanted) * shares.iter().sum::<f64>();
        let mut sum = 0.0;
        let enough = shares.iter().position(|share| {
            sum += share;
            sum.partial_cmp(&wanted) != Some(Ordering::Less)
        });
        shares.truncate(enough.map_or(shares.len(), |last| last + 1));
    }
    let stream = Stream::new(sampling.seed, Purpose::Sample, 0, u64::from(place));
    let draw = stream.numbers().next().map_or(0.5, random::unit);
    let mut rest = draw * shares.iter().sum::<f64>();
    for (token, share) in chosen.iter().zip(&shares) {
        rest -= share;
        if rest < 0.0 {
            return Ok(*token);
        }
    }
    Ok(chosen[shares.len() - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling() -> Sampling {
        Sampling {
            temperature: 1.0,
            top_k: None,
            top_p: None,
            maximum_tokens: 1,
            stop: Vec::new(),
            seed: 5,
            drawn: 0,
            slide: false,
        }
    }

    /// How often each token is drawn.
    fn counts(logits: &[f32], sampling: &Sampling) -> Vec<u32> {
        let mut counts = vec![0; logits.len()];
        for place in 0..4000 {
            let token = sample(logits, sampling, place).expect("logits are finite");
            counts[token as usize] += 1;
        }
        counts
    }

    #[test]
    fn draws_follow_the_softmax_of_logits_over_temperature() {
        let logits = [0.0, 2.0_f32.ln(), f32::NEG_INFINITY, 1.0_f32.ln()];
        let found = counts(&logits, &sampling());
        for (found, share) in found.iter().zip([0.25, 0.5, 0.0, 0.25]) {
            let expected: f64 = 4000.0 * share;
            // Five standard deviations.
            let bound = 5.0 * (expected * (1.0 - share)).sqrt();
            assert!(
                (f64::from(*found) - expected).abs() <= bound,
                "{found} of {expected}"
            );
        }
        let sharp = Sampling {
            temperature: 0.1,
            ..sampling()
        };
        assert!(counts(&logits, &sharp)[1] > 3900);
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail_and_zero_temperature_takes_the_largest() {
        let logits = [1.0, 3.0, 3.0, 2.0];
        let top_k = Sampling {
            top_k: Some(2),
            ..sampling()
        };
        let found = counts(&logits, &top_k);
        assert!(found[0] == 0 && found[3] == 0 && found[1] > 1000 && found[2] > 1000);
        let top_p = Sampling {
            top_p: Some(0.3),
            ..sampling()
        };
        assert_eq!(counts(&logits, &top_p), [0, 4000, 0, 0]);
        let greedy = Sampling {
            temperature: 0.0,
            ..sampling()
        };
        assert_eq!(counts(&logits, &greedy), [0, 4000, 0, 0]);
        assert!(sample(&[f32::NAN, 0.0], &greedy, 0).is_err());
    }
}
