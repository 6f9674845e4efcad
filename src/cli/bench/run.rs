//! Carries out a whole benchmark: opens the sessions, puts the keys, warms up, measures, and writes
//! the report.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use signal_hook::consts::SIGINT;
use signal_hook::flag;

use super::super::command::Format;
use super::super::session::exit;
use super::args::Args;
use super::chart;
use super::clients::{Clients, Counts, Done, Work};
use super::driver::{Phase, Pull, drive};
use super::load::{Kind, Load, Mix};
use super::measure::Measure;
use super::progress::Progress;
use super::report::Report;
use crate::client::{Error, Options};

/// The load with which the keys are put before the measurement (--prefill): how many clients, how
/// many requests under way for each client, and how many connections to each server.
const FILLERS: (usize, usize, usize) = (8, 32, 8);

/// Why a benchmark ended without a report.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The options of the benchmark contradict each other.
    #[error("{0}")]
    Usage(String),
    /// A step before the measurement failed at the cluster, such as opening the sessions.
    #[error("{what}: {error}")]
    Cluster {
        /// The step that failed, as a sentence.
        what: &'static str,
        /// Why the step failed.
        error: Error,
    },
    /// The operating system refused an operation, such as writing the report.
    #[error("{what}: {error}")]
    System {
        /// The operation that failed, as a sentence.
        what: String,
        /// Why the operation failed.
        error: io::Error,
    },
    /// Ctrl-C came before anything was measured.
    #[error("interrupted before anything was measured")]
    Interrupted,
}

impl Failure {
    /// The exit code of kvcli for this failure.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Usage(_) => exit::USAGE,
            Failure::Cluster {
                error: Error::Servers(_),
                ..
            } => exit::USAGE,
            Failure::Cluster { .. } => exit::UNAVAILABLE,
            Failure::System { .. } => exit::NO,
            Failure::Interrupted => exit::INTERRUPTED,
        }
    }

    fn waiting(error: io::Error) -> Self {
        let what = "cannot wait for sockets".into();
        Failure::System { what, error }
    }
}

/// Runs the benchmark and writes its report. Returns the exit code.
///
/// # Errors
/// `Failure` if there is nothing to report, or if the report cannot be written.
pub fn run(
    args: &Args,
    servers: &[String],
    options: &Options,
    format: Format,
) -> Result<u8, Failure> {
    args.check().map_err(Failure::Usage)?;
    let stop = Arc::new(AtomicBool::new(false));
    // The first Ctrl-C ends the measurement, and the report is written. The second one ends the
    // program at once.
    let handled = flag::register_conditional_shutdown(
        SIGINT,
        i32::from(exit::INTERRUPTED),
        Arc::clone(&stop),
    )
    .and_then(|_| flag::register(SIGINT, Arc::clone(&stop)));
    handled.map_err(|error| Failure::System {
        what: "cannot handle Ctrl-C".into(),
        error,
    })?;
    if args.prefill {
        fill(args, servers, options, &stop)?;
    }
    let shape = (args.clients, args.in_flight, args.lanes());
    let mut clients = connect(servers, options, shape, &stop)?;
    let report = measured(args, &mut clients, &stop)?;
    close(&mut clients);
    write(args, &report, format)?;
    Ok(report.code())
}

fn connect(
    servers: &[String],
    options: &Options,
    shape: (usize, usize, usize),
    stop: &AtomicBool,
) -> Result<Clients, Failure> {
    let what = "cannot open the sessions of the clients";
    let failed = |error| Failure::Cluster { what, error };
    let mut clients = Clients::new(servers, options.clone(), shape).map_err(failed)?;
    let mut phase = Each::new(clients.count(), || Work::Open);
    let slots = clients.first_slots();
    if !drive(&mut clients, slots, &mut phase, stop).map_err(Failure::waiting)? {
        return Err(Failure::Interrupted);
    }
    match phase.failed {
        Some(error) => Err(failed(error)),
        None => Ok(clients),
    }
}

/// Closes the sessions of all clients. This only frees memory at the nodes early: sessions that are
/// not closed expire.
fn close(clients: &mut Clients) {
    let mut phase = Each::new(clients.count(), || Work::Close);
    let slots = clients.first_slots();
    let _ = drive(clients, slots, &mut phase, &AtomicBool::new(false));
}

fn fill(
    args: &Args,
    servers: &[String],
    options: &Options,
    stop: &AtomicBool,
) -> Result<(), Failure> {
    let mut clients = connect(servers, options, FILLERS, stop)?;
    let mut phase = Fill {
        load: Load::new(&Args {
            mix: Mix::only(Kind::Put),
            ..args.clone()
        }),
        progress: Progress::new("filling", args.keys),
        filled: 0,
        failed: None,
    };
    let slots = clients.slots();
    let ended = drive(&mut clients, slots, &mut phase, stop).map_err(Failure::waiting)?;
    close(&mut clients);
    match phase.failed {
        _ if !ended => Err(Failure::Interrupted),
        Some(error) => Err(Failure::Cluster {
            what: "cannot put every key before the run (--prefill)",
            error,
        }),
        None => Ok(()),
    }
}

fn measured(args: &Args, clients: &mut Clients, stop: &AtomicBool) -> Result<Report, Failure> {
    let begun = clients.now();
    let start = begun + args.warm_up;
    let end = args.count.is_none().then_some(start + args.seconds);
    let mut phase = Run {
        load: Load::new(args),
        measure: Measure::new(start, end, clients.count()),
        progress: Progress::new(
            "measuring",
            match args.count {
                Some(count) => count,
                None => (args.warm_up + args.seconds).as_millis() as u64,
            },
        ),
        begun,
        start,
        end,
        count: args.count,
        interval: args.rate.map(|rate| Duration::from_secs_f64(1.0 / rate)),
        pulled: 0,
        measured: 0,
        before: None,
    };
    let slots = clients.slots();
    let ended = drive(clients, slots, &mut phase, stop).map_err(Failure::waiting)?;
    let now = clients.now();
    phase.measure.finish(now);
    let (before, cpu) = phase.before.unwrap_or((clients.counts(), cpu_time()));
    Ok(Report {
        config: args.describe(),
        servers: clients.servers().to_vec(),
        not_begun: phase.not_begun(now),
        measure: phase.measure,
        counts: since(clients.counts(), before),
        cpu: cpu_time().saturating_sub(cpu),
        interrupted: !ended,
    })
}

fn since(now: Counts, before: Counts) -> Counts {
    Counts {
        attempts: now.attempts - before.attempts,
        retries: now.retries - before.retries,
        repeats_in_doubt: now.repeats_in_doubt - before.repeats_in_doubt,
        sessions: now.sessions - before.sessions,
        leader_changes: now.leader_changes - before.leader_changes,
    }
}

/// The processor time that this process has taken so far.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

fn write(args: &Args, report: &Report, format: Format) -> Result<(), Failure> {
    let failed = |path: &Path| {
        let what = format!("cannot write {}", path.display());
        move |error| Failure::System { what, error }
    };
    let json = || format!("{:#}\n", report.json());
    let to_stdout = Path::new("-");
    let text = match format {
        _ if args.json.as_deref() == Some(to_stdout) => json(),
        Format::Json => json(),
        Format::Raw => report.line(),
        Format::Table => report.text(),
    };
    let written = io::stdout().write_all(text.as_bytes());
    written.map_err(failed(Path::new("standard output")))?;
    if let Some(path) = args.json.as_deref().filter(|path| *path != to_stdout) {
        std::fs::write(path, json()).map_err(failed(path))?;
    }
    if let Some(path) = &args.svg {
        let picture = chart::svg(report).map_err(io::Error::other);
        picture
            .and_then(|picture| std::fs::write(path, picture))
            .map_err(failed(path))?;
    }
    Ok(())
}

/// A phase of a benchmark in which each slot does the same work once, such as opening or closing a
/// session.
struct Each {
    left: usize,
    work: fn() -> Work,
    failed: Option<Error>,
}

impl Each {
    fn new(count: usize, work: fn() -> Work) -> Self {
        Each {
            left: count,
            work,
            failed: None,
        }
    }
}

impl Phase for Each {
    fn pull(&mut self, now: Duration) -> Pull {
        if self.left == 0 {
            return Pull::Never;
        }
        self.left -= 1;
        Pull::Begin((self.work)(), now)
    }

    fn done(&mut self, done: Done) {
        self.failed = self.failed.take().or(done.result.err());
    }

    fn tick(&mut self, _: Duration, _: &Clients) {}
}

/// The phase of a benchmark that puts each key once before the measurement.
struct Fill {
    load: Load,
    progress: Progress,
    filled: u64,
    failed: Option<Error>,
}

impl Phase for Fill {
    fn pull(&mut self, now: Duration) -> Pull {
        match self.load.next_in_turn() {
            Some((kind, request)) if self.failed.is_none() => {
                Pull::Begin(Work::Ask(kind, request), now)
            }
            _ => Pull::Never,
        }
    }

    fn done(&mut self, done: Done) {
        self.filled += 1;
        self.failed = self.failed.take().or(done.result.err());
    }

    fn tick(&mut self, now: Duration, _: &Clients) {
        self.progress.show(now, self.filled, self.filled);
    }
}

/// The phase of a benchmark with warm-up and measurement, one after the other without a pause.
struct Run {
    load: Load,
    measure: Measure,
    progress: Progress,
    begun: Duration,
    start: Duration,
    end: Option<Duration>,
    count: Option<u64>,
    /// In open loop, the time from one request to the next.
    interval: Option<Duration>,
    /// How many requests have begun, the warm-up included. `measured` counts those that were due
    /// after the warm-up.
    pulled: u64,
    measured: u64,
    /// The clients' counters and the processor time at the start of the measurement, to be
    /// subtracted from those at the end.
    before: Option<(Counts, Duration)>,
}

impl Run {
    /// When the next request is due: in open loop at a fixed time, in closed loop now.
    fn due(&self, now: Duration) -> Duration {
        match self.interval {
            Some(interval) => self.begun + interval.mul_f64(self.pulled as f64),
            None => now,
        }
    }

    /// In open loop, how many requests were due and were never sent, because no slot was free.
    fn not_begun(&self, now: Duration) -> u64 {
        let (Some(interval), Some(end)) = (self.interval, self.end) else {
            return 0;
        };
        let due = end.min(now).saturating_sub(self.begun).as_secs_f64() / interval.as_secs_f64();
        (due as u64).saturating_sub(self.pulled)
    }
}

impl Phase for Run {
    fn pull(&mut self, now: Duration) -> Pull {
        let is_over = self.end.is_some_and(|end| now >= end)
            || self.count.is_some_and(|count| self.measured >= count);
        if is_over {
            return Pull::Never;
        }
        let due = self.due(now);
        if due > now {
            return Pull::Later(self.end.map_or(due, |end| due.min(end)));
        }
        self.pulled += 1;
        self.measured += u64::from(due >= self.start);
        let (kind, request) = self.load.next();
        Pull::Begin(Work::Ask(kind, request), due)
    }

    fn done(&mut self, done: Done) {
        self.measure.done(&done);
    }

    fn tick(&mut self, now: Duration, clients: &Clients) {
        if self.before.is_none() && now >= self.start {
            self.before = Some((clients.counts(), cpu_time()));
        }
        let position = match self.count {
            Some(_) => self.measured,
            None => now.saturating_sub(self.begun).as_millis() as u64,
        };
        self.progress.show(now, position, self.pulled);
    }
}
