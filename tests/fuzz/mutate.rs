//! Inputs made from others, the same ones for the same seed.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The longest input that is made, in bytes.
const MAX_LEN: usize = 4096;

/// Bytes at which decoders and arithmetic change their ways.
const EDGES: [u8; 12] = [0, 1, 2, 127, 128, 250, 251, 252, 253, 254, 255, 15];

/// Makes inputs.
pub struct Mutator(ChaCha8Rng);

impl Mutator {
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.0.next_u64() % limit as u64) as usize
    }

    /// An input of the corpus with a few changes.
    pub fn next(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = corpus[self.below(corpus.len())].clone();
        for _ in 0..1 + self.below(5) {
            let at = self.below(input.len() + 1);
            self.change(&mut input, at, corpus);
        }
        input.truncate(MAX_LEN);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, at: usize, corpus: &[Vec<u8>]) {
        let byte = match self.below(2) {
            0 => EDGES[self.below(EDGES.len())],
            _ => self.below(256) as u8,
        };
        match self.below(7) {
            0 => input.truncate(at),
            1 => input.insert(at, byte),
            2 => drop(input.drain(at..input.len().min(at + 1 + usize::from(byte % 4)))),
            3 => {
                let other = &corpus[self.below(corpus.len())];
                let from = self.below(other.len() + 1);
                input.truncate(at);
                input.extend(&other[from..]);
            }
            4 => {
                let part: Vec<u8> = input[at..].iter().take(16).copied().collect();
                let to = self.below(input.len() + 1);
                input.splice(to..to, part);
            }
            5 => {
                if let Some(old) = input.get_mut(at) {
                    *old ^= 1 << (byte % 8);
                }
            }
            _ => {
                if let Some(old) = input.get_mut(at) {
                    *old = byte;
                }
            }
        }
    }
}
