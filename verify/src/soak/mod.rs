//! Real processes under real faults: `kvnode` binaries behind proxies, clients with real sockets,
//! and what the clients saw held against the checker of the simulator.
//!
//! A run follows a plan that is drawn from its seed; what the threads of the system make of it is
//! not repeatable. It ends with everything healed: then the work must go on, all nodes must become
//! level, and their folders must hold the same state. What the clients saw is kept in a file that
//! can be checked again at any time. `docs/testing.md` says how to run it and how to read its
//! report.

mod clients;
mod disk;
mod history;
mod judge;
mod level;
mod nemesis;
mod plan;
mod report;
mod testbed;
mod unsynced_disk;
mod workload;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use raftkv::client::Clerk;
use raftkv::raft::Index;

use clients::{Caller, ClerkCaller, CliCaller, History};
use disk::SmallDisk;
use history::{Line, Writer};
use nemesis::{Event, Nemesis};
use plan::Plan;
use report::Report;
use testbed::Testbed;
pub use unsynced_disk::UnsyncedDisk;
use workload::Keys;

/// The name of the file with what the clients saw, in the folder of a run.
const HISTORY: &str = "history.jsonl";
/// The name of the file with the report.
const REPORT: &str = "report.md";
/// How often a node may lack the end of the log in the end, before that counts as a failure.
const LATE: usize = 3;

/// The programs under test.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The server.
    pub kvnode: PathBuf,
    /// The command line client.
    pub kvcli: PathBuf,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// With what.
    pub programs: Programs,
    /// The faults, the clients and what they ask for follow from this.
    pub seed: u64,
    /// How long faults are done, in seconds. Ending the run takes some more.
    pub seconds: u64,
    /// Where everything is kept; made if it is missing. Must be empty.
    pub folder: PathBuf,
}

/// What came of a run.
#[derive(Debug)]
pub struct Ended {
    /// Whether everything held; else what did not, in a sentence.
    pub verdict: Result<(), String>,
    /// The report, in Markdown; it is in the folder as well.
    pub report: String,
}

/// Runs one seed. `interrupted` ends it early when it is set.
///
/// # Errors
/// A sentence: the run could not be begun, or its files not be written.
pub fn run(options: &Options, interrupted: &AtomicBool) -> Result<Ended, String> {
    let plan = Plan::draw(options.seed, options.seconds);
    let at = |error: std::io::Error| format!("{}: {error}", options.folder.display());
    fs::create_dir_all(&options.folder).map_err(at)?;
    if fs::read_dir(&options.folder).map_err(at)?.next().is_some() {
        return Err(format!("{} is not empty", options.folder.display()));
    }
    let history = History::new(Writer::create(&options.folder.join(HISTORY)).map_err(at)?);
    // Before the testbed, so that it is unmounted after the nodes have ended.
    let small = 1 + options.seed % plan.nodes;
    let mount = options.folder.join(format!("node-{small}"));
    fs::create_dir_all(&mount).map_err(at)?;
    let disk = SmallDisk::mount(&mount, 200 + options.seconds);
    let bytes = plan.snapshot_log_bytes;
    let testbed = Testbed::new(&options.programs, &options.folder, plan.nodes, bytes);
    let mut run = Run {
        options,
        plan,
        history,
        keys: Keys::new(),
        cli: Mutex::new(0),
        small_disk: disk.is_some().then_some(small),
        testbed: testbed.map_err(at)?,
        events: Vec::new(),
        stood_still_us: 0,
        level: None,
    };
    let held = run.carry_out(interrupted);
    run.end(held)
}

/// Judges the history in the folder of an earlier run; returns how many operations there are.
///
/// # Errors
/// A sentence: what did not hold, or why it cannot be read.
pub fn check(folder: &Path) -> Result<usize, String> {
    let lines = history::read(&folder.join(HISTORY)).map_err(|error| error.to_string())?;
    judge::judge(&lines).map(|()| lines.len())
}

struct Run<'a> {
    options: &'a Options,
    plan: Plan,
    history: History,
    keys: Keys,
    cli: Mutex<u32>,
    small_disk: Option<u64>,
    testbed: Testbed,
    events: Vec<Event>,
    /// For how long the machine did not let this program run.
    stood_still_us: u64,
    /// Up to where all nodes had applied the log in the end.
    level: Option<Index>,
}

impl Run<'_> {
    /// Everything but the judging. The error says what did not hold.
    fn carry_out(&mut self, interrupted: &AtomicBool) -> Result<(), String> {
        let callers = callers(self.options, &self.plan, &self.testbed, &self.cli)?;
        let (history, keys, plan) = (&self.history, &self.keys, &self.plan);
        let seed = self.options.seed;
        let mut nemesis = Nemesis {
            testbed: &mut self.testbed,
            history,
            keys,
            client: &self.cli,
            small_disk: self.small_disk,
            spared: None,
            interrupted,
            ran_us: history.now_us(),
            stood_still_us: 0,
        };
        nemesis.heal()?;
        let held = thread::scope(|scope| {
            for (client, mut caller) in callers.into_iter().enumerate() {
                let seed = seed.wrapping_mul(1000).wrapping_add(client as u64);
                scope.spawn(move || clients::run(client, &mut *caller, keys, history, seed));
            }
            let seconds = self.options.seconds;
            let held = faults(&mut nemesis, plan, seconds, &mut self.events);
            history.stop();
            // Whatever has happened: a frozen client would not end.
            nemesis.heal().and(held)
        });
        self.stood_still_us = nemesis.stood_still_us;
        held?;
        let clerk = self.last_clerk()?;
        clients::read_all(
            self.plan.direct + self.plan.proxied + 1,
            clerk,
            &self.keys,
            &self.history,
        )?;
        self.level = Some(self.become_level()?);
        self.compare()
    }

    fn last_clerk(&self) -> Result<Clerk, String> {
        let options = raftkv::client::Options {
            deadline: nemesis::PATIENCE,
            ..clients::options(self.options.seed)
        };
        let clerk = Clerk::with_options(self.testbed.nodes.addresses(), options);
        clerk.map_err(|error| error.to_string())
    }

    fn become_level(&mut self) -> Result<Index, String> {
        let begun_us = self.history.now_us();
        loop {
            let ids = self.testbed.nodes.ids();
            let statuses = ids.iter().filter_map(|id| self.testbed.status(*id));
            let statuses: Vec<_> = statuses.collect();
            if let Some(index) = level::of(&statuses, ids.len()) {
                return Ok(index);
            }
            if self.history.now_us() - begun_us > nemesis::PATIENCE.as_micros() as u64 {
                let known = statuses
                    .iter()
                    .map(|s| (s.id, s.applied, s.commit, s.last_index));
                return Err(format!(
                    "not level within {:?}: (node, applied, committed, last) {:?}",
                    nemesis::PATIENCE,
                    known.collect::<Vec<_>>()
                ));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The folders of all nodes hold the same state. A node whose disk was late when it was killed
    /// lacks the end of the log; then all start once more, and level out.
    fn compare(&mut self) -> Result<(), String> {
        for _ in 0..LATE {
            if self.folders_hold_the_same()? {
                return Ok(());
            }
            let launched = self.testbed.launch_all();
            launched.map_err(|error| error.to_string())?;
            self.level = Some(self.become_level()?);
        }
        Err(format!(
            "of {LATE} times that all nodes were killed when they were level, each time one had \
             not synced what it had executed for as long"
        ))
    }

    /// False if a folder ends before the entry at which all nodes were level. They are killed, for
    /// a node that is told to stop hands over, and the new leader's log would go on.
    fn folders_hold_the_same(&mut self) -> Result<bool, String> {
        let ids = self.testbed.nodes.ids();
        let killed = self.testbed.nodes.kill(ids.iter().copied());
        killed.map_err(|error| error.to_string())?;
        let index = self.level.unwrap_or_default();
        let mut digests = Vec::new();
        for id in ids {
            let Some(digest) = level::digest(&self.testbed.nodes.data(id), index)? else {
                return Ok(false);
            };
            digests.push((id, digest));
        }
        match digests.windows(2).all(|pair| pair[0].1 == pair[1].1) {
            true => Ok(true),
            false => Err(format!(
                "the states after entry {index} differ: {digests:x?}"
            )),
        }
    }

    fn end(self, held: Result<(), String>) -> Result<Ended, String> {
        let lines = self.history.finish().map_err(|error| error.to_string())?;
        let ids = self.testbed.nodes.ids();
        let logs: Vec<String> = ids.iter().map(|id| self.testbed.log(*id)).collect();
        let mut logged = logs.iter().flat_map(|log| log.lines());
        let panicked = logged.find(|line| line.contains("panicked at"));
        let verdict = held
            .and_then(|()| panicked.map_or(Ok(()), |line| Err(line.to_string())))
            .and_then(|()| each_client_was_served(&lines))
            .and_then(|()| judge::judge(&lines));
        let report = Report {
            options: self.options,
            plan: &self.plan,
            lines: &lines,
            events: &self.events,
            stood_still_us: self.stood_still_us,
            logs: &logs,
            small_disk: self.small_disk,
            level: self.level,
            verdict: &verdict,
        };
        let report = report.to_string();
        let path = self.options.folder.join(REPORT);
        fs::write(&path, &report).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Ended { verdict, report })
    }
}

/// The clients, the one that can be frozen last.
fn callers<'a>(
    options: &Options,
    plan: &Plan,
    testbed: &Testbed,
    cli: &'a Mutex<u32>,
) -> Result<Vec<Box<dyn Caller + 'a>>, String> {
    let mut callers: Vec<Box<dyn Caller>> = Vec::new();
    for client in 0..plan.direct + plan.proxied {
        let servers = match client < plan.direct {
            true => testbed.nodes.addresses(),
            false => testbed.proxied(),
        };
        let seed = options.seed.wrapping_add(client as u64);
        let clerk = Clerk::with_options(servers, clients::options(seed));
        callers.push(Box::new(ClerkCaller(
            clerk.map_err(|error| error.to_string())?,
        )));
    }
    let (program, servers) = (
        options.programs.kvcli.clone(),
        testbed.nodes.addresses().join(","),
    );
    callers.push(Box::new(CliCaller::new(program, servers, cli)));
    Ok(callers)
}

/// One fault after the other until the time is up.
fn faults(
    nemesis: &mut Nemesis,
    plan: &Plan,
    seconds: u64,
    events: &mut Vec<Event>,
) -> Result<(), String> {
    nemesis.work_goes_on("after the start")?;
    let end_us = nemesis.history.now_us() + seconds * 1_000_000;
    for fault in &plan.faults {
        if nemesis.history.now_us() >= end_us {
            break;
        }
        let strike = nemesis.strike(fault);
        events.push(strike.map_err(|sentence| format!("{}: {sentence}", fault.kind))?);
    }
    nemesis.heal()?;
    nemesis.work_goes_on("after all faults")
}

fn each_client_was_served(lines: &[Line]) -> Result<(), String> {
    let clients = lines.iter().map(|line| line.client);
    let clients: std::collections::BTreeSet<_> = clients.collect();
    let unserved = clients.into_iter().find(|client| {
        let mut of_this = lines.iter().filter(|line| line.client == *client);
        !of_this.any(|line| line.outcome.is_answer())
    });
    match unserved {
        None => Ok(()),
        Some(client) => Err(format!("client {client} never had an answer")),
    }
}
