//! Runs seeds of the simulator and says what became of them. See `docs/testing.md`.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use raftkv_verify::sim::{self, Options, Report, Scenario, Trace};

const USAGE: &str = "\
Runs whole clusters in virtual time, one for each seed, and checks what must hold.

Usage: kvsim [--members] [--seeds N] [--start SEED] [--threads T]
       kvsim [--members] --seed SEED      one seed, with a trace

With --members the members change all the time in each run, else in some.";

/// After so many failures the rest of the seeds is left out.
const MOST_FAILURES: usize = 10;

struct Arguments {
    seeds: u64,
    start: u64,
    threads: u64,
    seed: Option<u64>,
    scenario: Scenario,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(problem) => {
            eprintln!("{problem}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let held = if let Some(seed) = arguments.seed {
        one(seed, arguments.scenario)
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
        scenario: Scenario::Drawn,
    };
    while let Some(name) = arguments.next() {
        if name == "--members" {
            parsed.scenario = Scenario::Members;
            continue;
        }
        let value = arguments.next().ok_or(format!("{name} needs a value"))?;
        let number = || value.parse().map_err(|_| format!("{value:?} is no number"));
        match name.as_str() {
            "--seeds" => parsed.seeds = number()?,
            "--start" => parsed.start = number()?,
            "--threads" => parsed.threads = number()?.max(1),
            "--seed" => parsed.seed = Some(number()?),
            _ => return Err(format!("there is no option {name:?}")),
        }
    }
    Ok(parsed)
}

/// One seed, with its trace.
fn one(seed: u64, scenario: Scenario) -> bool {
    let trace = Trace::Print;
    let report = sim::run(Options {
        seed,
        trace,
        scenario,
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
    wiped: u64,
    refused: u64,
    wishes: u64,
    changes: u64,
    led_after_us: u64,
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
        self.wiped += stats.wiped;
        self.refused += stats.refused;
        self.wishes += stats.wishes;
        self.changes += stats.changes;
        self.led_after_us = self.led_after_us.max(stats.led_after_us);
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
            let trace = Trace::Off;
            let report = sim::run(Options {
                seed,
                trace,
                scenario: arguments.scenario,
            });
            let mut total = total.lock().unwrap_or_else(|broken| broken.into_inner());
            total.add(&report);
            if let Some(failure) = report.failure {
                println!("seed {seed} FAILED: {failure}");
                let members = match arguments.scenario {
                    Scenario::Drawn => "",
                    Scenario::Members => "--members ",
                };
                println!("  again, with a trace: scripts/sim.sh {members}--seed {seed}");
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
         {} snapshots, {} sent and installed; {} logs cut; {} folders lost, \
         {} greetings refused; {} changes of members of {} that were asked for; after the \
         faults a leader within {} ms",
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
        total.cuts,
        total.wiped,
        total.refused,
        total.changes,
        total.wishes,
        total.led_after_us / 1000
    );
    total.failures.is_empty()
}
