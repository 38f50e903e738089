//! How a text is gone on from.

use serde::{Deserialize, Serialize};

use crate::bindings::adapter::exports::sandcast::plugin::adapter as wire;

/// How a generation goes on from a text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GenerationOptions {
    /// Tokens to write, at least 1.
    pub maximum_tokens: u32,
    /// Divides the logits; at 0 the likeliest token is taken.
    pub temperature: f32,
    /// Only so many of the likeliest tokens count.
    pub top_k: Option<u32>,
    /// Only the likeliest tokens that together reach this probability count.
    pub top_p: Option<f32>,
    /// Texts that end the writing; they are not part of what is written.
    pub stop: Vec<String>,
    /// What draws depend on, beside the place of the row and the place in its text.
    pub seed: u64,
}

impl Default for GenerationOptions {
    fn default() -> Self {
        Self {
            maximum_tokens: 256,
            temperature: 1.0,
            top_k: None,
            top_p: None,
            stop: Vec::new(),
            seed: 0,
        }
    }
}

impl GenerationOptions {
    /// The most tokens of one text.
    pub const MAX_TOKENS: u32 = 1 << 20;

    /// The most stop texts.
    pub const MAX_STOPS: usize = 16;

    /// The most bytes of one stop text.
    pub const MAX_STOP_BYTES: usize = 1024;

    /// Checks every bound.
    ///
    /// # Errors
    /// With the option at fault and what it may be.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=Self::MAX_TOKENS).contains(&self.maximum_tokens) {
            return Err(format!(
                "the maximum of tokens is {}; make it 1 to {}",
                self.maximum_tokens,
                Self::MAX_TOKENS
            ));
        }
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return Err(format!(
                "the temperature is {}; make it finite and not negative",
                self.temperature
            ));
        }
        if self.top_k == Some(0) {
            return Err("top-k is 0; make it at least 1".into());
        }
        if let Some(share) = self.top_p.filter(|share| !(*share > 0.0 && *share <= 1.0)) {
            return Err(format!("top-p is {share}; make it above 0 and at most 1"));
        }
        if self.stop.len() > Self::MAX_STOPS {
            return Err(format!(
                "there are {} stop texts; give at most {}",
                self.stop.len(),
                Self::MAX_STOPS
            ));
        }
        let sizes = 1..=Self::MAX_STOP_BYTES;
        if let Some(stop) = self.stop.iter().find(|stop| !sizes.contains(&stop.len())) {
            return Err(format!(
                "a stop text has {} bytes; make it 1 to {}",
                stop.len(),
                Self::MAX_STOP_BYTES
            ));
        }
        Ok(())
    }
}

impl From<&GenerationOptions> for wire::GenerationOptions {
    fn from(options: &GenerationOptions) -> Self {
        Self {
            maximum_tokens: options.maximum_tokens,
            temperature: options.temperature,
            top_k: options.top_k,
            top_p: options.top_p,
            stop: options.stop.clone(),
            seed: options.seed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_generation_have_bounds() {
        let good = GenerationOptions::default();
        assert_eq!(good.check(), Ok(()));
        let cases: [(GenerationOptions, &str); 7] = [
            (
                GenerationOptions {
                    maximum_tokens: 0,
                    ..good.clone()
                },
                "maximum of tokens",
            ),
            (
                GenerationOptions {
                    maximum_tokens: u32::MAX,
                    ..good.clone()
                },
                "maximum of tokens",
            ),
            (
                GenerationOptions {
                    temperature: f32::NAN,
                    ..good.clone()
                },
                "temperature",
            ),
            (
                GenerationOptions {
                    top_k: Some(0),
                    ..good.clone()
                },
                "top-k",
            ),
            (
                GenerationOptions {
                    top_p: Some(1.5),
                    ..good.clone()
                },
                "top-p",
            ),
            (
                GenerationOptions {
                    stop: vec![String::new()],
                    ..good.clone()
                },
                "0 bytes",
            ),
            (
                GenerationOptions {
                    stop: vec!["a".into(); 17],
                    ..good.clone()
                },
                "17 stop texts",
            ),
        ];
        for (options, why) in cases {
            let error = options.check().expect_err(why);
            assert!(error.contains(why), "{error}");
        }
    }
}
