//! The options of `kvcli bench`, and the check that they do not contradict each other.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use super::load::{Kind, Mix};
use crate::client::WINDOW;

/// The most connections to each server that the option allows: a node accepts no more connections.
const MAX_CONNECTIONS: usize = 4096;
/// The most clients that the option allows. Each client has a session. This is half of the sessions
/// that a cluster keeps, so that other clients have room.
const MAX_CLIENTS: usize = 32_768;
/// How many requests all clients together may have under way at most.
const MAX_IN_FLIGHT: usize = 65_536;
const MAX_VALUE: usize = 16 << 20;
const MAX_KEY: usize = 64 << 10;
const MAX_KEYS: u64 = 1_000_000_000;
const MAX_RATE: f64 = 10_000_000.0;

/// Put load on the cluster and measure how long its answers take.
///
/// In closed loop, the default, each client sends a request as soon as it has an answer: this finds
/// the highest throughput. With --rate, requests are due at fixed times (open loop). Latency counts
/// from when a request was due, even if it had to wait for a free client, so that a pause of the
/// cluster shows in every request that was due during the pause.
///
/// Clients behave like those of the library: each has a session, numbers its writes, finds the
/// leader, and repeats lost writes under the same number until --timeout. One thread drives all
/// clients.
///
/// The benchmark writes to keys that begin with --prefix, and does not remove them.
#[derive(Clone, Debug, Parser)]
#[command(name = "kvcli bench", after_help = AFTER_HELP)]
pub struct Args {
    /// How many clients, each with a session of its own
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    pub clients: usize,

    /// How many connections to each server the clients share [default: one for each client]
    #[arg(short = 'C', long, value_name = "N")]
    pub connections: Option<usize>,

    /// How many requests of one client are under way at once
    #[arg(
        short = 'P',
        long,
        visible_alias = "pipeline",
        value_name = "N",
        default_value_t = 1
    )]
    pub in_flight: usize,

    /// The kinds of requests with their weights: put, append, get, delete
    #[arg(short, long, value_name = "KIND=WEIGHT,...", default_value = "put")]
    pub mix: Mix,

    /// The size of the values that are put or appended, in bytes; also 4k, 1m
    #[arg(short, long, value_name = "BYTES", default_value = "128", value_parser = size)]
    pub value_size: usize,

    /// The size of the keys, in bytes
    #[arg(long, value_name = "BYTES", default_value = "16", value_parser = size)]
    pub key_size: usize,

    /// How many keys there are; also 10k, 1m
    #[arg(short, long, value_name = "N", default_value = "10000", value_parser = count)]
    pub keys: u64,

    /// How often each key is chosen
    #[arg(
        short,
        long,
        value_enum,
        value_name = "NAME",
        default_value = "uniform"
    )]
    pub distribution: Distribution,

    /// How uneven the zipfian distribution is, from 0 (even) to below 1
    #[arg(long, value_name = "THETA", default_value_t = 0.99)]
    pub theta: f64,

    /// What each key begins with
    #[arg(long, value_name = "TEXT", default_value = "b")]
    pub prefix: String,

    /// How long to measure, in seconds
    #[arg(short, long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub seconds: Duration,

    /// How many requests to measure, instead of --seconds
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "seconds", value_parser = count)]
    pub count: Option<u64>,

    /// How long to put load on the cluster before measuring, in seconds
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = seconds_or_none)]
    pub warm_up: Duration,

    /// Open loop: how many requests are due in a second
    #[arg(short, long, value_name = "PER_SECOND")]
    pub rate: Option<f64>,

    /// Put every key once before anything is measured
    #[arg(long)]
    pub prefill: bool,

    /// The seed from which requests, keys and values are drawn
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// Write the report as JSON into a file; - writes it to standard output instead of the text
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Draw latency over time and by percentile into an SVG file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
Options such as --cluster and --timeout come before the word bench; there, -o raw writes the report
as one line of name=value words, and -o json as JSON.

  kvcli bench -c 64                                   64 clients put, one request each
  kvcli bench -c 256 -C 8 -s 30                       256 requests in flight over 8 connections
  kvcli bench -c 64 -m get -k 1m --prefill            reads of a million keys
  kvcli bench -c 64 -m put=50,get=50 -d zipfian -k 1m --prefill --svg mixed.svg
  kvcli bench -c 64 --rate 20000                      latency at 20,000 requests a second

The longest gap is the longest time between two successes of one client, and of all: the pause that
a failing leader causes. Appends make values longer and longer: use enough keys.

Exit codes: 0 measured; 2 wrong usage; 3 no request succeeded; 130 Ctrl-C, after which the report of
what was measured until then is still written.";

/// The distribution of the keys: how often a request is for each key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Distribution {
    /// All keys are equally frequent.
    Uniform,
    /// A few keys are very frequent, most keys are rare.
    Zipfian,
}

impl Args {
    /// How many connections to each server the clients share: as many as asked for, but at most one
    /// for each client.
    pub fn lanes(&self) -> usize {
        self.connections
            .unwrap_or(MAX_CONNECTIONS)
            .min(self.clients)
    }

    /// Checks that the options fit together.
    ///
    /// # Errors
    /// A sentence that names the options which contradict each other, or the limit that an option
    /// breaks.
    pub fn check(&self) -> Result<(), String> {
        let within = |name: &str, number: usize, most: usize| match number {
            0 => Err(format!("--{name} is at least 1")),
            number if number > most => Err(format!("--{name} is at most {most}")),
            _ => Ok(()),
        };
        within("clients", self.clients, MAX_CLIENTS)?;
        within("in-flight", self.in_flight, WINDOW as usize)?;
        within(
            "connections",
            self.connections.unwrap_or(1),
            MAX_CONNECTIONS,
        )?;
        let under_way = self.clients * self.in_flight;
        if under_way > MAX_IN_FLIGHT {
            return Err(format!(
                "{under_way} requests would be under way at once, and {MAX_IN_FLIGHT} is the most: \
                 --clients times --in-flight"
            ));
        }
        if under_way.div_ceil(self.lanes()) > MAX_CONNECTIONS {
            return Err(format!(
                "one connection carries at most {MAX_CONNECTIONS} requests at once: use more \
                 --connections"
            ));
        }
        self.check_keys()?;
        match self.rate {
            Some(rate) if !(0.001..=MAX_RATE).contains(&rate) => Err(format!(
                "--rate is from 0.001 to {MAX_RATE} requests a second"
            )),
            _ => Ok(()),
        }
    }

    fn check_keys(&self) -> Result<(), String> {
        if self.value_size > MAX_VALUE {
            return Err(format!("--value-size is at most {MAX_VALUE} bytes"));
        }
        if self.key_size > MAX_KEY {
            return Err(format!("--key-size is at most {MAX_KEY} bytes"));
        }
        if self.keys == 0 || self.keys > MAX_KEYS {
            return Err(format!("--keys is from 1 to {MAX_KEYS}"));
        }
        let needed = self.prefix.len() + (self.keys - 1).max(1).ilog10() as usize + 1;
        if self.key_size < needed {
            return Err(format!(
                "{} keys that begin with {:?} need --key-size {needed} at least",
                self.keys, self.prefix
            ));
        }
        if self.distribution == Distribution::Zipfian && !(0.0..=0.9999).contains(&self.theta) {
            return Err("--theta is from 0 to 0.9999".into());
        }
        if self.count == Some(0) {
            return Err("--count is at least 1".into());
        }
        Ok(())
    }

    /// The options of the benchmark as JSON, for the report.
    pub fn describe(&self) -> serde_json::Value {
        let mix: Vec<String> = Kind::ALL
            .iter()
            .filter(|kind| self.mix.weight(**kind) > 0)
            .map(|kind| format!("{kind}={}", self.mix.weight(*kind)))
            .collect();
        serde_json::json!({
            "clients": self.clients,
            "connections": self.lanes(),
            "in_flight": self.in_flight,
            "mix": mix.join(","),
            "value_size": self.value_size,
            "key_size": self.key_size,
            "keys": self.keys,
            "distribution": match self.distribution {
                Distribution::Uniform => "uniform".to_string(),
                Distribution::Zipfian => format!("zipfian {}", self.theta),
            },
            "seconds": self.count.is_none().then_some(self.seconds.as_secs_f64()),
            "count": self.count,
            "warm_up": self.warm_up.as_secs_f64(),
            "rate": self.rate,
            "seed": self.seed,
        })
    }
}

/// Reads a number with an optional suffix k, m or g, which multiplies it by the first, second or
/// third power of `base`: 1000 for counts, 1024 for bytes.
fn scaled(text: &str, base: u64) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no number: write 500, 10k or 1m");
    let (digits, scale) = match text.to_ascii_lowercase().strip_suffix(['k', 'm', 'g']) {
        None => (text.to_string(), 1),
        Some(digits) => {
            let power = match text.chars().last().map(|c| c.to_ascii_lowercase()) {
                Some('k') => 1,
                Some('m') => 2,
                _ => 3,
            };
            (digits.to_string(), base.pow(power))
        }
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(scale).ok_or_else(wrong)
}

fn count(text: &str) -> Result<u64, String> {
    scaled(text, 1000)
}

fn size(text: &str) -> Result<usize, String> {
    usize::try_from(scaled(text, 1024)?).map_err(|error| error.to_string())
}

fn seconds_or_none(text: &str) -> Result<Duration, String> {
    /// The longest run that the option allows, in seconds, so that the figures of all moments of
    /// the run do not take much memory.
    const LONGEST: f64 = 24.0 * 3600.0;
    let number = text.strip_suffix('s').unwrap_or(text).parse::<f64>();
    match number {
        Ok(number) if (0.0..=LONGEST).contains(&number) => Ok(Duration::from_secs_f64(number)),
        _ => Err(format!(
            "{text:?} is no number of seconds from 0 to {LONGEST}"
        )),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match seconds_or_none(text)? {
        shortest if shortest < Duration::from_millis(1) => Err("at least 0.001 s".into()),
        seconds => Ok(seconds),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parsed(words: &[&str]) -> Result<Args, String> {
        let args = Args::try_parse_from([&["bench"], words].concat());
        let args = args.map_err(|error| error.to_string())?;
        args.check().map(|()| args)
    }

    #[test]
    fn the_description_of_the_options_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn nonsense_is_refused_with_what_is_wrong() {
        for (words, part) in [
            (&["-c", "0"][..], "--clients is at least 1"),
            (&["-C", "0"], "--connections is at least 1"),
            (&["-P", "0"], "--in-flight is at least 1"),
            (&["-P", "513"], "--in-flight is at most 512"),
            (&["-c", "32768", "-P", "512"], "--clients times --in-flight"),
            (&["-c", "8192", "-C", "1"], "use more --connections"),
            (&["-m", "put=0,get=0"], "sum to 0"),
            (&["-m", "scan"], "cannot be asked for"),
            (&["-m", "put=-1"], "whole number"),
            (&["-k", "0"], "--keys is from 1"),
            (&["-k", "1m", "--key-size", "6"], "--key-size 7"),
            (&["-d", "zipfian", "--theta", "1"], "--theta"),
            (&["-s", "0"], "at least"),
            (&["-s", "1", "-n", "1"], "cannot be used with"),
            (&["-n", "0"], "--count is at least 1"),
            (&["--rate", "0"], "--rate"),
            (&["--rate", "NaN"], "--rate"),
            (&["-v", "1t"], "no number"),
            (&["-v", "17m"], "--value-size is at most"),
        ] {
            let error = parsed(words).expect_err("nonsense");
            assert!(error.contains(part), "{words:?}: {error}");
        }
    }

    #[test]
    fn sizes_count_in_1024_and_numbers_in_1000() {
        let args = parsed(&["-v", "4k", "-k", "10k", "-c", "3"]).unwrap();
        assert_eq!((args.value_size, args.keys), (4096, 10_000));
        assert_eq!(args.lanes(), 3);
        assert_eq!(parsed(&["-c", "3", "-C", "9"]).unwrap().lanes(), 3);
    }
}
