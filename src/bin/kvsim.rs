//! Runs seeds of the simulator and says what became of them. See `docs/testing.md`.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use raftkv::sim::{self, Canary, Options, Report, Trace};

const USAGE: &str = "\
Runs whole clusters in virtual time, one for each seed, and checks what must hold.

Usage: kvsim [--seeds N] [--start SEED] [--threads T] [--canary NAME]
       kvsim --seed SEED [--canary NAME]      one seed, with a trace
       kvsim --canaries [--seeds N]           looks for the first seed that catches each canary";

/// After so many failures the rest of the seeds is left out.
const MOST_FAILURES: usize = 10;

struct Arguments {
    seeds: u64,
    start: u64,
    threads: u64,
    seed: Option<u64>,
    canary: Option<Canary>,
    all_canaries: bool,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(problem) => {
            eprintln!("{problem}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let held = if arguments.all_canaries {
        // They panic by design.
        std::panic::set_hook(Box::new(|_| {}));
        Canary::all()
            .into_iter()
            .all(|canary| catch(&arguments, canary))
    } else if let Some(seed) = arguments.seed {
        one(seed, arguments.canary)
    } else {
        std::panic::set_hook(Box::new(|_| {}));
        many(&arguments)
    };
    if held {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut parsed = Arguments {
        seeds: 1000,
        start: 1,
        threads: 2,
        seed: None,
        canary: None,
        all_canaries: false,
    };
    while let Some(name) = arguments.next() {
        if name == "--canaries" {
            parsed.all_canaries = true;
            continue;
        }
        let value = arguments.next().ok_or(format!("{name} needs a value"))?;
        let number = || value.parse().map_err(|_| format!("{value:?} is no number"));
        match name.as_str() {
            "--seeds" => parsed.seeds = number()?,
            "--start" => parsed.start = number()?,
            "--threads" => parsed.threads = number()?.max(1),
            "--seed" => parsed.seed = Some(number()?),
            "--canary" => {
                let canary = Canary::named(&value);
                parsed.canary = Some(canary.ok_or(format!("there is no canary {value:?}"))?);
            }
            _ => return Err(format!("there is no option {name:?}")),
        }
    }
    Ok(parsed)
}

/// One seed, with its trace.
fn one(seed: u64, canary: Option<Canary>) -> bool {
    let trace = Trace::Print;
    let report = sim::run(Options {
        seed,
        trace,
        canary,
    });
    println!("{:#?}", report.stats);
    match &report.failure {
        None => println!("seed {seed} held"),
        Some(failure) => println!("seed {seed} FAILED: {failure}"),
    }
    report.failure.is_none()
}

/// What many seeds came to.
#[derive(Default)]
struct Total {
    runs: u64,
    failures: Vec<u64>,
    virtual_us: u64,
    operations: u64,
    replies: u64,
    elections: u64,
    crashes: u64,
    disk_failures: u64,
    snapshots: u64,
    installs: u64,
    cuts: u64,
}

impl Total {
    fn add(&mut self, report: &Report) {
        let stats = &report.stats;
        self.runs += 1;
        self.virtual_us += stats.virtual_us;
        self.operations += stats.operations;
        self.replies += stats.replies;
        self.elections += stats.elections;
        self.crashes += stats.crashes;
        self.disk_failures += stats.disk_failures;
        self.snapshots += stats.snapshots;
        self.installs += stats.installs;
        self.cuts += stats.cuts;
    }
}

fn many(arguments: &Arguments) -> bool {
    let started = Instant::now();
    let next = AtomicU64::new(arguments.start);
    let end = arguments.start.saturating_add(arguments.seeds);
    let total = Mutex::new(Total::default());
    let work = || {
        while let seed = next.fetch_add(1, Ordering::Relaxed)
            && seed < end
        {
            let canary = arguments.canary;
            let trace = Trace::Off;
            let report = sim::run(Options {
                seed,
                trace,
                canary,
            });
            let mut total = total.lock().unwrap_or_else(|broken| broken.into_inner());
            total.add(&report);
            if let Some(failure) = report.failure {
                let with = canary.map_or(String::new(), |canary| format!(" --canary {canary}"));
                println!("seed {seed} FAILED: {failure}");
                println!("  again, with a trace: scripts/sim.sh --seed {seed}{with}");
                total.failures.push(seed);
                if total.failures.len() >= MOST_FAILURES {
                    next.store(end, Ordering::Relaxed);
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..arguments.threads {
            scope.spawn(work);
        }
    });
    let total = total
        .into_inner()
        .unwrap_or_else(|broken| broken.into_inner());
    summary(&total, started.elapsed().as_secs_f64())
}

fn summary(total: &Total, seconds: f64) -> bool {
    println!(
        "{} of {} seeds held, {:.1} seeds/s; {:.2} virtual hours in {seconds:.1} s; {} operations, \
         {} with a reply; {} elections; {} crashes; {} failed disks; \
         {} snapshots, {} sent and installed; {} logs cut",
        total.runs - total.failures.len() as u64,
        total.runs,
        total.runs as f64 / seconds,
        total.virtual_us as f64 / 3.6e9,
        total.operations,
        total.replies,
        total.elections,
        total.crashes,
        total.disk_failures,
        total.snapshots,
        total.installs,
        total.cuts
    );
    total.failures.is_empty()
}

/// Looks for the first seed that catches a canary.
fn catch(arguments: &Arguments, canary: Canary) -> bool {
    for seed in arguments.start..arguments.start.saturating_add(arguments.seeds) {
        let report = sim::run(Options {
            seed,
            trace: Trace::Off,
            canary: Some(canary),
        });
        if let Some(failure) = report.failure {
            let tried = seed - arguments.start + 1;
            let sentence: String = failure.sentence.chars().take(100).collect();
            println!("{canary}: {tried} seeds, {}: {sentence}", failure.check);
            return true;
        }
    }
    println!("{canary}: not caught within {} seeds", arguments.seeds);
    true
}
