use super::{MetricsError, check_finite, check_length, ratio};

/// Texts that a model was asked about: how surprised it was by each, and how long each is.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    loss: &'a [f64],
    tokens: &'a [u64],
    lengths: &'a Lengths,
}

/// How long texts are, by the host's own count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lengths {
    /// Unicode scalar values of each text.
    pub characters: Vec<u64>,
    /// Bytes of each text in UTF-8.
    pub bytes: Vec<u64>,
}

impl Lengths {
    /// Appends a text; none is as long as an empty one.
    pub fn push(&mut self, text: Option<&str>) {
        let text = text.unwrap_or_default();
        self.characters.push(text.chars().count() as u64);
        self.bytes.push(text.len() as u64);
    }
}

impl<'a> Text<'a> {
    /// Takes, for each text, the mean of minus the log-probability of its tokens, and their number.
    ///
    /// # Errors
    /// No rows, different lengths, a loss that is not finite, or a text without tokens.
    pub fn new(
        loss: &'a [f64],
        tokens: &'a [u64],
        lengths: &'a Lengths,
    ) -> Result<Self, MetricsError> {
        if loss.is_empty() {
            return Err(MetricsError::NoRows);
        }
        check_length("the tokens", tokens.len(), loss.len())?;
        check_length("the characters", lengths.characters.len(), loss.len())?;
        check_length("the bytes", lengths.bytes.len(), loss.len())?;
        check_finite("the loss", loss)?;
        // Otherwise a model that skips what it cannot say would look good.
        let skipped = |row: &usize| tokens[*row] == 0 && lengths.bytes[*row] > 0;
        if let Some(row) = (0..loss.len()).find(skipped) {
            return Err(MetricsError::Value {
                what: "the number of tokens",
                row,
                value: 0.0,
                expected: "at least 1, since there is text",
            });
        }
        Ok(Self {
            loss,
            tokens,
            lengths,
        })
    }

    /// How many texts there are.
    pub fn rows(&self) -> usize {
        self.loss.len()
    }

    /// Nats of all texts together.
    fn nats(&self) -> f64 {
        let rows = self.loss.iter().zip(self.tokens);
        rows.map(|(loss, tokens)| loss * *tokens as f64).sum()
    }

    /// Nats for each token. `None` where there are no tokens.
    pub fn nats_per_token(&self) -> Option<f64> {
        ratio(self.nats(), self.tokens.iter().sum::<u64>() as f64)
    }

    /// e to the nats for each token: how many tokens it is as unsure among. `None` where it is too
    /// large for a number.
    pub fn perplexity(&self) -> Option<f64> {
        let perplexity = self.nats_per_token()?.exp();
        Some(perplexity).filter(|perplexity| perplexity.is_finite())
    }

    /// Nats for each character, which models with different tokens have in common.
    pub fn nats_per_character(&self) -> Option<f64> {
        let characters: u64 = self.lengths.characters.iter().sum();
        ratio(self.nats(), characters as f64)
    }

    /// Bits for each byte of UTF-8.
    pub fn bits_per_byte(&self) -> Option<f64> {
        let bytes: u64 = self.lengths.bytes.iter().sum();
        ratio(self.nats() / std::f64::consts::LN_2, bytes as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(texts: &[Option<&str>]) -> Lengths {
        let mut lengths = Lengths::default();
        texts.iter().for_each(|text| lengths.push(*text));
        lengths
    }

    #[test]
    fn longer_texts_count_for_more() {
        let lengths = lengths(&[Some("näh!"), Some("ab"), None]);
        assert_eq!(lengths.characters, [4, 2, 0]);
        assert_eq!(lengths.bytes, [5, 2, 0]);
        let text = Text::new(&[1.0, 4.0, 0.0], &[4, 1, 0], &lengths).expect("texts");
        assert_eq!(text.rows(), 3);
        assert_eq!(text.nats_per_token(), Some(1.6));
        assert_eq!(text.perplexity(), Some(1.6_f64.exp()));
        assert_eq!(text.nats_per_character(), Some(8.0 / 6.0));
        let bits = text.bits_per_byte().expect("bytes");
        assert!((bits - 8.0 / std::f64::consts::LN_2 / 7.0).abs() < 1e-12);
    }

    #[test]
    fn a_uniform_guess_among_bytes_has_eight_bits() {
        let lengths = lengths(&[Some("sixteen letters.")]);
        let loss = [256.0_f64.ln()];
        let text = Text::new(&loss, &[16], &lengths).expect("a text");
        assert!((text.bits_per_byte().expect("bytes") - 8.0).abs() < 1e-12);
        assert!((text.perplexity().expect("tokens") - 256.0).abs() < 1e-9);
    }

    #[test]
    fn what_cannot_be_judged_is_refused() {
        let lengths = lengths(&[Some("a"), None]);
        assert!(matches!(
            Text::new(&[0.0, 0.0], &[0, 0], &lengths),
            Err(MetricsError::Value { row: 0, .. })
        ));
        assert!(Text::new(&[f64::NAN, 0.0], &[1, 0], &lengths).is_err());
        assert!(Text::new(&[1.0], &[1], &lengths).is_err());
        assert_eq!(
            Text::new(&[], &[], &Lengths::default()).map(|_| ()),
            Err(MetricsError::NoRows)
        );
        let empty = self::lengths(&[None]);
        let nothing = Text::new(&[0.0], &[0], &empty).expect("an empty text");
        assert_eq!(nothing.nats_per_token(), None);
        assert_eq!(nothing.bits_per_byte(), None);
        let unlikely = self::lengths(&[Some("x")]);
        let huge = Text::new(&[1e6], &[1], &unlikely).expect("a text");
        assert_eq!(huge.perplexity(), None);
    }
}
