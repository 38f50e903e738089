//! Random numbers, by `wasi:random`: the output of blake3 in extendable mode under a key, which
//! comes from a seed, from the operating system, or, where nothing is granted and a guest's
//! standard library asks all the same, from nowhere.

use wasmtime::component::{HasData, Linker};
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};

use super::{Capability, Grants};
use crate::state::State;

/// Bytes drawn by one call.
const MAX_DRAW_BYTES: u64 = 1 << 20;

/// Domain of the keys, so that a seed here means nothing elsewhere.
const KEY_CONTEXT: &str = "sandcast 2026 random numbers of a plugin";

/// The numbers of one instance.
pub(crate) struct RandomState {
    key: [u8; 32],
    stream: blake3::OutputReader,
}

impl RandomState {
    pub(crate) fn new(grants: &Grants) -> Self {
        let mut seed = [0_u8; 32];
        match grants.random {
            None => {}
            Some(super::RandomGrant { seed: Some(number) }) => {
                seed[..8].copy_from_slice(&number.to_le_bytes());
                seed[8] = 1;
            }
            Some(super::RandomGrant { seed: None }) => {
                use wasmtime_wasi::Rng;
                wasmtime_wasi::thread_rng().fill_bytes(&mut seed);
            }
        }
        Self::of_key(blake3::derive_key(KEY_CONTEXT, &seed))
    }

    /// The numbers of a key that was kept.
    pub(crate) fn of_key(key: [u8; 32]) -> Self {
        Self {
            key,
            stream: blake3::Hasher::new_keyed(&key).finalize_xof(),
        }
    }

    /// From now on the numbers of a key.
    pub(crate) fn follow(&mut self, key: [u8; 32]) {
        *self = Self::of_key(key);
    }

    /// What all the numbers follow from.
    pub(crate) fn key(&self) -> [u8; 32] {
        self.key
    }

    fn draw(&mut self, bytes: &mut [u8]) {
        self.stream.fill(bytes);
    }

    fn draw_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.draw(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// Links `wasi:random`.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    random::add_to_linker::<State, Random>(linker, |state| RandomView(state))?;
    insecure::add_to_linker::<State, Random>(linker, |state| RandomView(state))?;
    insecure_seed::add_to_linker::<State, Random>(linker, |state| RandomView(state))
}

struct Random;

impl HasData for Random {
    type Data<'a> = RandomView<'a>;
}

/// What answers, on the state of an instance.
pub(crate) struct RandomView<'a>(pub(crate) &'a mut State);

impl RandomView<'_> {
    fn call(&mut self, name: &'static str) {
        self.0.ledger.count(name);
        if self.0.identity.grants.random.is_none() {
            self.0.deny(
                Capability::Random,
                "asked for random numbers, and was given a fixed sequence".into(),
            );
        }
    }

    fn bytes(&mut self, name: &'static str, length: u64) -> wasmtime::Result<Vec<u8>> {
        self.call(name);
        if length > MAX_DRAW_BYTES {
            return Err(wasmtime::Error::msg(format!(
                "it asked for {length} random bytes at once; at most {MAX_DRAW_BYTES} are given"
            )));
        }
        let mut bytes = vec![0; length as usize];
        self.0.random.draw(&mut bytes);
        self.0.ledger.count_bytes_in(bytes.len());
        Ok(bytes)
    }

    fn number(&mut self, name: &'static str) -> u64 {
        self.call(name);
        self.0.random.draw_u64()
    }
}

impl random::Host for RandomView<'_> {
    fn get_random_bytes(&mut self, length: u64) -> wasmtime::Result<Vec<u8>> {
        self.bytes("random.get-random-bytes", length)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.number("random.get-random-u64"))
    }
}

impl insecure::Host for RandomView<'_> {
    fn get_insecure_random_bytes(&mut self, length: u64) -> wasmtime::Result<Vec<u8>> {
        self.bytes("random.get-insecure-random-bytes", length)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.number("random.get-insecure-random-u64"))
    }
}

impl insecure_seed::Host for RandomView<'_> {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        let first = self.number("random.insecure-seed");
        Ok((first, self.0.random.draw_u64()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::RandomGrant;
    use super::*;

    fn first(random: Option<RandomGrant>) -> u64 {
        RandomState::new(&Grants {
            random,
            ..Grants::default()
        })
        .draw_u64()
    }

    #[test]
    fn a_seed_gives_the_same_numbers_and_another_seed_others() {
        let seeded = |seed| first(Some(RandomGrant { seed: Some(seed) }));
        assert_eq!(seeded(7), seeded(7));
        assert_ne!(seeded(7), seeded(8));
        assert_ne!(seeded(0), first(None), "no grant is not the seed 0");
    }

    #[test]
    fn without_a_seed_no_two_instances_agree() {
        let fresh = || first(Some(RandomGrant { seed: None }));
        assert_ne!(fresh(), fresh());
    }
}
