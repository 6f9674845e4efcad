//! Draws the next request and its key from a seed, so that a run can be repeated.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::args::{Args, Distribution};
use crate::kv::{Op, Query};
use crate::wire::client::Ask;
use crate::wire::codec;

/// How many different values the writes have. All values are slices of one buffer of random bytes,
/// and each begins one byte after the one before. So the buffer is longer than a value by this many
/// bytes.
const VARIETY: usize = 4096;

/// The kinds of requests that the benchmark sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sets the value of a key.
    Put,
    /// Adds to the end of a value.
    Append,
    /// Reads a value, without an entry in the log.
    Get,
    /// Removes a key.
    Delete,
}

impl Kind {
    /// All kinds of requests, in the order of their numbers. An array with a value for each kind is
    /// indexed by this number.
    pub const ALL: [Kind; 4] = [Kind::Put, Kind::Append, Kind::Get, Kind::Delete];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Put => "put",
            Kind::Append => "append",
            Kind::Get => "get",
            Kind::Delete => "delete",
        })
    }
}

/// The mix of requests: a weight for each kind, in proportion to how often it is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix([u32; 4]);

impl Mix {
    /// Makes a mix that has requests of one kind only.
    pub fn only(kind: Kind) -> Self {
        let mut weights = [0; 4];
        weights[kind as usize] = 1;
        Mix(weights)
    }

    /// How often one kind of request is drawn, relative to the weights of the other kinds.
    pub fn weight(&self, kind: Kind) -> u32 {
        self.0[kind as usize]
    }

    fn total(&self) -> u64 {
        self.0.iter().map(|weight| u64::from(*weight)).sum()
    }

    fn draw(&self, random: &mut ChaCha8Rng) -> Kind {
        let mut left = below(random, self.total());
        let drawn = Kind::ALL.into_iter().find(|kind| {
            let weight = u64::from(self.weight(*kind));
            let found = left < weight;
            left = left.saturating_sub(weight);
            found
        });
        drawn.unwrap_or(Kind::Put)
    }
}

impl FromStr for Mix {
    type Err = String;

    /// Reads a mix such as `put=50,get=50`. A kind without a weight has the weight 1.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut weights = [0; 4];
        for part in text.split(',') {
            let (name, weight) = part.trim().split_once('=').unwrap_or((part.trim(), "1"));
            let kind = Kind::ALL.into_iter().find(|kind| kind.to_string() == name);
            let kind = kind.ok_or_else(|| {
                format!("{name:?} cannot be asked for: put, append, get and delete can")
            })?;
            let weight = weight
                .parse::<u32>()
                .ok()
                .filter(|weight| *weight <= 1_000_000);
            weights[kind as usize] = weight
                .ok_or_else(|| format!("the weight of {name} is a whole number up to 1000000"))?;
        }
        let mix = Mix(weights);
        match mix.total() {
            0 => Err("the weights sum to 0: nothing would be asked".into()),
            _ => Ok(mix),
        }
    }
}

/// A random number in `0..bound`; `bound` is not zero. Low numbers are slightly more frequent,
/// which does not matter here.
fn below(random: &mut ChaCha8Rng, bound: u64) -> u64 {
    ((u128::from(random.next_u64()) * u128::from(bound)) >> 64) as u64
}

/// A request that the benchmark sends: a write or a read.
#[derive(Clone, Debug)]
pub enum Request {
    /// A write: it gets a sequence number in a session before it is sent.
    Write(Op),
    /// A read, which is sent without a session.
    Read(Ask),
}

/// Draws requests with random keys and values.
#[derive(Debug)]
pub struct Load {
    random: ChaCha8Rng,
    mix: Mix,
    keys: u64,
    zipf: Option<Zipf>,
    /// The text of a key. Its last digits are replaced for each request.
    key: Vec<u8>,
    prefix_len: usize,
    values: Bytes,
    value_size: usize,
    /// The number of the next key that [`Load::next_in_turn`] puts.
    turn: u64,
}

impl Load {
    /// Makes the generator of requests that the options ask for.
    pub fn new(args: &Args) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(args.seed);
        let mut values = vec![0; args.value_size + VARIETY];
        random.fill_bytes(&mut values);
        let mut key = vec![b'0'; args.key_size];
        key[..args.prefix.len()].copy_from_slice(args.prefix.as_bytes());
        Load {
            random,
            mix: args.mix,
            keys: args.keys,
            zipf: (args.distribution == Distribution::Zipfian)
                .then(|| Zipf::new(args.keys, args.theta)),
            key,
            prefix_len: args.prefix.len(),
            values: values.into(),
            value_size: args.value_size,
            turn: 0,
        }
    }

    /// Draws a request of a random kind for a random key.
    pub fn next(&mut self) -> (Kind, Request) {
        let kind = self.mix.draw(&mut self.random);
        let key = match &self.zipf {
            Some(zipf) => zipf.draw(&mut self.random),
            None => below(&mut self.random, self.keys),
        };
        (kind, self.request(kind, key))
    }

    /// Makes a put of the next key that has not been put, in ascending order; `None` after the last
    /// key.
    pub fn next_in_turn(&mut self) -> Option<(Kind, Request)> {
        let key = self.turn;
        if key >= self.keys {
            return None;
        }
        self.turn += 1;
        Some((Kind::Put, self.request(Kind::Put, key)))
    }

    fn request(&mut self, kind: Kind, key: u64) -> Request {
        let key = self.key(key);
        match kind {
            Kind::Get => Request::Read(Ask::Query(codec::to_bytes(&Query::Get { key }))),
            Kind::Delete => Request::Write(Op::Delete { key }),
            Kind::Put => {
                let value = self.value();
                Request::Write(Op::Put { key, value })
            }
            Kind::Append => {
                let value = self.value();
                Request::Write(Op::Append { key, value })
            }
        }
    }

    fn key(&mut self, mut number: u64) -> Bytes {
        for digit in self.key[self.prefix_len..].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        Bytes::copy_from_slice(&self.key)
    }

    fn value(&mut self) -> Bytes {
        let start = below(&mut self.random, VARIETY as u64) as usize;
        self.values.slice(start..start + self.value_size)
    }
}

/// Draws numbers below `keys` from the zipfian distribution: the number of rank r is drawn about
/// r^-theta times as often as the one of rank 1. This is the generator of Gray et al., "Quickly
/// Generating Billion-Record Synthetic Databases".
#[derive(Debug)]
struct Zipf {
    keys: u64,
    theta: f64,
    alpha: f64,
    zeta: f64,
    eta: f64,
    /// The number of a key is its rank times this stride, modulo `keys`. The stride is coprime to
    /// `keys`, so every rank gets a different key, and frequent keys are not neighbours.
    stride: u64,
}

impl Zipf {
    fn new(keys: u64, theta: f64) -> Self {
        let zeta = |count: u64| -> f64 {
            // Add up at most this many terms. The rest of the sum is approximated by an integral.
            let exact = count.min(10_000_000);
            let sum: f64 = (1..=exact).map(|rank| (rank as f64).powf(-theta)).sum();
            let power = 1.0 - theta;
            sum + ((count as f64).powf(power) - (exact as f64).powf(power)) / power
        };
        let total = zeta(keys);
        let eta = (1.0 - (2.0 / keys as f64).powf(1.0 - theta)) / (1.0 - zeta(2) / total);
        let mut stride = (keys as f64 * 0.618_033_988_749) as u64 | 1;
        while gcd(stride, keys) != 1 {
            stride += 2;
        }
        Zipf {
            keys,
            theta,
            alpha: 1.0 / (1.0 - theta),
            zeta: total,
            eta,
            stride,
        }
    }

    fn draw(&self, random: &mut ChaCha8Rng) -> u64 {
        let uniform = (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let scaled = uniform * self.zeta;
        let rank = if scaled < 1.0 {
            0
        } else if scaled < 1.0 + 0.5f64.powf(self.theta) {
            1
        } else {
            let base = self.eta * uniform - self.eta + 1.0;
            (self.keys as f64 * base.powf(self.alpha)) as u64
        };
        let rank = u128::from(rank.min(self.keys - 1));
        ((rank * u128::from(self.stride)) % u128::from(self.keys)) as u64
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    match b {
        0 => a,
        b => gcd(b, a % b),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn load(words: &[&str]) -> Load {
        Load::new(&Args::parse_from([&["bench"], words].concat()))
    }

    fn key_of(request: &Request) -> Bytes {
        match request {
            Request::Write(Op::Put { key, .. } | Op::Append { key, .. } | Op::Delete { key }) => {
                key.clone()
            }
            Request::Read(Ask::Query(query)) => match Query::decode(query) {
                Ok(Query::Get { key }) => key,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_requests() {
        let words = ["-m", "put=3,append=2,get=4,delete=1", "-d", "zipfian"];
        let run = |seed: &str| {
            let mut load = load(&[&words[..], &["--seed", seed]].concat());
            let drawn: Vec<_> = (0..50).map(|_| format!("{:?}", load.next())).collect();
            drawn
        };
        assert_eq!(run("7"), run("7"));
        assert_ne!(run("7"), run("8"));
    }

    #[test]
    fn kinds_come_as_often_as_their_weights_say() {
        let mut load = load(&["-m", "put=3,get=1"]);
        let gets = (0..10_000).filter(|_| load.next().0 == Kind::Get).count();
        assert!((2300..2700).contains(&gets), "{gets}");
    }

    #[test]
    fn keys_have_their_size_and_filling_reaches_each_once() {
        let mut load = load(&["-k", "250", "--key-size", "9", "--prefix", "k/"]);
        let mut keys = Vec::new();
        while let Some((Kind::Put, request)) = load.next_in_turn() {
            keys.push(key_of(&request));
        }
        assert_eq!((keys.len(), &keys[249][..]), (250, &b"k/0000249"[..]));
        keys.dedup();
        assert_eq!(keys.len(), 250);
    }

    fn counts(words: &[&str]) -> Vec<usize> {
        let mut load = load(words);
        let mut counts = vec![0; 100];
        for _ in 0..50_000 {
            let key = key_of(&load.next().1);
            let number = std::str::from_utf8(&key[1..]).unwrap().parse::<usize>();
            counts[number.unwrap()] += 1;
        }
        counts.sort_unstable_by(|a, b| b.cmp(a));
        counts
    }

    #[test]
    fn uniform_keys_come_alike() {
        let counts = counts(&["-k", "100"]);
        assert!(counts[0] < 2 * counts[99], "{counts:?}");
    }

    #[test]
    fn zipfian_keys_come_as_their_rank_says() {
        let counts = counts(&["-k", "100", "-d", "zipfian", "--theta", "0.99"]);
        // The sum of r^-0.99 over 100 ranks is 5.3, so the key of rank 1 gets 19 % of all requests.
        assert!((8500..10_500).contains(&counts[0]), "{counts:?}");
        let half = counts[0] as f64 / counts[1] as f64;
        assert!((1.8..2.2).contains(&half), "{counts:?}");
        assert!(counts[99] > 0, "{counts:?}");
    }

    #[test]
    fn few_keys_do_not_break_the_distribution() {
        for keys in ["1", "2", "3"] {
            let mut load = load(&["-k", keys, "-d", "zipfian"]);
            for _ in 0..100 {
                let key = key_of(&load.next().1);
                assert!(key[15] < b'0' + keys.parse::<u8>().unwrap(), "{key:?}");
            }
        }
    }
}
