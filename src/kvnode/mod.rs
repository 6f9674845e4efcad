//! The program `kvnode`: one node of a cluster, and the commands for data folders.
//!
//! It is a function of the library, so that the same program can be built on another disk: the
//! tests run it on a disk that loses everything that was not synced when the process is killed.

mod healing;
mod offline;
mod recover;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use crate::kv::{Kv, Limits};
use crate::machine::StateMachine;
use crate::node::{
    Config, Handle, Node, NodeError, StartError, Timing, check_address, parse_members,
};
use crate::raft::{Fault, MemberRole, NodeId};
use crate::storage::{Disk, StorageError};

/// One node of a replicated key/value store.
///
/// To found a cluster, start one on each machine with the same --cluster list and its own --id. It
/// serves as soon as a majority of the list is up.
///
/// To join a cluster that exists, start it with a new --id, with --listen and with --join, the
/// addresses of some nodes of the cluster. It receives what the others have, and votes once it has
/// caught up. A node that lost its data folder comes back in the same way, with its old --id.
///
/// Once the cluster is founded, the members are in its log: --cluster and --join count only for a
/// data folder that has none. `kvcli member` shows and changes them.
///
/// Other commands, each with its own --help:
///   kvnode inspect DIR          show what a data folder holds, and verify all of it
///   kvnode backup DIR FILE      copy the newest snapshot out of a data folder
///   kvnode restore FILE ...     make a data folder for a new cluster from such a copy
///   kvnode recover DIR          make a cluster of one, after a majority was lost
///
/// Exit codes: 0 stopped cleanly, 1 stopped by a failure, 2 wrong usage, 3 another process uses
/// the data folder, 4 the data folder is damaged, another node's, or replaced by another one,
/// 5 cannot listen.
#[derive(Parser)]
#[command(name = "kvnode", version, about, long_about, verbatim_doc_comment)]
struct Args {
    /// This node's id: a number from 1 on, its own for good.
    #[arg(long, env = "RAFTKV_ID")]
    id: NodeId,
    /// Found a cluster of these nodes, this one included: ID=HOST:PORT,...; the same list on every
    /// one.
    #[arg(
        long,
        env = "RAFTKV_MEMBERS",
        value_name = "ID=HOST:PORT,...",
        conflicts_with = "join"
    )]
    cluster: Option<String>,
    /// Join a cluster that exists: the addresses of some of its nodes, which let this one in.
    #[arg(
        long,
        env = "RAFTKV_JOIN",
        value_name = "HOST:PORT,...",
        value_delimiter = ','
    )]
    join: Vec<String>,
    /// With --join: receive the log and never vote.
    #[arg(long, env = "RAFTKV_LEARNER")]
    learner: bool,
    /// With a new data folder, do not ask to be let in: wait for `kvcli member add` or `replace`.
    #[arg(long, env = "RAFTKV_NO_REJOIN")]
    no_rejoin: bool,
    /// The folder for everything that must survive a crash. It is made if it is missing.
    #[arg(long, env = "RAFTKV_DATA", value_name = "DIR")]
    data: std::path::PathBuf,
    /// The cluster's name: keeps nodes and clients of other clusters out.
    #[arg(
        long,
        env = "RAFTKV_CLUSTER_NAME",
        default_value = "raftkv",
        value_name = "NAME"
    )]
    cluster_name: String,
    /// Where to listen, if not at this node's own address.
    #[arg(long, env = "RAFTKV_LISTEN", value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Where the others and clients reach this node, if that is neither its address in the
    /// --cluster list nor --listen.
    #[arg(long, env = "RAFTKV_ADDRESS", value_name = "HOST:PORT")]
    address: Option<String>,
    /// Where this node dials other nodes, if not at their addresses in the --cluster list, for
    /// instance through a tunnel. Only this node uses these addresses.
    #[arg(long, env = "RAFTKV_REACH", value_name = "ID=HOST:PORT,...")]
    reach: Option<String>,
    /// How often the leader sends heartbeats, in milliseconds.
    #[arg(
        long,
        env = "RAFTKV_HEARTBEAT_MS",
        default_value_t = 50,
        value_name = "MS"
    )]
    heartbeat_ms: u64,
    /// The shortest election timeout in milliseconds; each timeout is drawn between this and twice
    /// this.
    #[arg(
        long,
        env = "RAFTKV_ELECTION_MS",
        default_value_t = 250,
        value_name = "MS"
    )]
    election_ms: u64,
    /// The largest key in bytes; the same on every node, and for good.
    #[arg(long, env = "RAFTKV_MAX_KEY_BYTES", default_value_t = Limits::default().max_key_bytes,
          value_name = "BYTES")]
    max_key_bytes: usize,
    /// The largest value in bytes; the same on every node, and for good.
    #[arg(long, env = "RAFTKV_MAX_VALUE_BYTES",
          default_value_t = Limits::default().max_value_bytes, value_name = "BYTES")]
    max_value_bytes: usize,
    /// Take a snapshot when the log has grown by this many bytes, or by the size of the last
    /// snapshot, if that is larger. -1: take snapshots only when asked to (kvcli snapshot); the log
    /// grows until then.
    #[arg(long, env = "RAFTKV_SNAPSHOT_LOG_BYTES", default_value_t = 64 << 20,
          value_parser = clap::value_parser!(i64).range(-1..), allow_hyphen_values = true,
          value_name = "BYTES")]
    snapshot_log_bytes: i64,
    /// Read all of the log and all snapshots again, and verify them, once in so many seconds: a day
    /// by default. 0: never.
    #[arg(
        long,
        env = "RAFTKV_SCRUB",
        default_value_t = 86400,
        value_name = "SECONDS"
    )]
    scrub: u64,
}

/// The exit codes of the program; its help text explains them.
#[derive(Clone, Copy)]
enum Exit {
    Stopped = 0,
    Failed = 1,
    Usage = 2,
    Locked = 3,
    Folder = 4,
    Listen = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Runs the whole program. The node uses the disk that `open_disk` makes of the data folder's path.
/// The commands that work without a node use the real folder.
pub fn main(open_disk: impl Fn(&Path) -> Result<Arc<dyn Disk>, StorageError>) -> ExitCode {
    if let Some(command) = offline::Command::from_args() {
        return offline::run(command).into();
    }
    let args = Args::parse();
    // A write beyond the limit on the size of files (ulimit -f) raises SIGXFSZ, which would end the
    // process without a message. With a handler for the signal, the write fails instead, and the
    // node stops and says why.
    let too_large = Arc::new(AtomicBool::new(false));
    if let Err(error) = flag::register(SIGXFSZ, too_large) {
        eprintln!("kvnode: cannot catch a signal: {error}");
        return Exit::Failed.into();
    }
    let default = env_logger::Env::default().default_filter_or("info");
    env_logger::Builder::from_env(default)
        .format_timestamp_millis()
        .init();
    run(args, open_disk)
        .unwrap_or_else(|(exit, sentence)| {
            eprintln!("kvnode: {sentence}");
            exit
        })
        .into()
}

fn run(
    args: Args,
    open_disk: impl Fn(&Path) -> Result<Arc<dyn Disk>, StorageError>,
) -> Result<Exit, (Exit, String)> {
    let usage = |sentence: String| (Exit::Usage, sentence);
    let list = args.cluster.as_deref();
    let members = list.map(|list| members(list, args.id)).transpose();
    let members = members.map_err(usage)?.unwrap_or_default();
    let addresses = [
        ("--join", &args.join[..]),
        ("--address", args.address.as_slice()),
    ];
    for (option, address) in addresses
        .iter()
        .flat_map(|(o, all)| all.iter().map(move |a| (o, a)))
    {
        let checked = check_address(address);
        checked.map_err(|sentence| usage(format!("{option}: {sentence}")))?;
    }
    let limits = Limits {
        max_key_bytes: args.max_key_bytes,
        max_value_bytes: args.max_value_bytes,
        ..Limits::default()
    };
    limits
        .validate()
        .map_err(|error| usage(error.to_string()))?;
    let mut config = Config::new(args.id, members, args.data);
    config.cluster = args.cluster_name;
    config.listen = args.listen;
    config.address = args.address;
    config.join = args.join;
    config.rejoins = !args.no_rejoin;
    if args.learner {
        config.joins_as = MemberRole::Learner;
    }
    if let Some(list) = args.reach {
        config.reach = parse_members(&list).map_err(|why| usage(format!("--reach: {why}")))?;
    }
    // The only negative number that the option allows is -1, which becomes `None`: no snapshot
    // unless a client asks for one.
    config.snapshot_log_bytes = u64::try_from(args.snapshot_log_bytes).ok();
    config.scrub = (args.scrub > 0).then(|| Duration::from_secs(args.scrub));
    config.timing = Timing {
        heartbeat: Duration::from_millis(args.heartbeat_ms),
        election: Duration::from_millis(args.election_ms),
        ..Timing::default()
    };
    // Register the signals before the node starts. So a signal that comes during the start is kept,
    // and the node stops cleanly once it runs.
    let signals = Signals::new([SIGTERM, SIGINT])
        .map_err(|error| (Exit::Failed, format!("cannot listen for signals: {error}")))?;
    let node = start(&config, &limits, open_disk)?;
    serve(&node, signals)
}

/// Starts the node. If its data folder is damaged and the others are there, it begins anew.
fn start(
    config: &Config,
    limits: &Limits,
    open_disk: impl Fn(&Path) -> Result<Arc<dyn Disk>, StorageError>,
) -> Result<Handle<Kv>, (Exit, String)> {
    let start = || Node::start_with(config.clone(), Kv::new(limits.clone()), &open_disk);
    let started = match start() {
        Err(StartError::Storage(error @ StorageError::Damaged { .. })) => {
            healing::begin_anew(config, &Kv::new(limits.clone()).identity(), &error)?;
            start()
        }
        started => started,
    };
    started.map_err(explain)
}

/// Reads the nodes of a `--cluster` list, one of which must be `id`.
fn members(list: &str, id: NodeId) -> Result<BTreeMap<NodeId, String>, String> {
    let members = parse_members(list).map_err(|sentence| format!("--cluster: {sentence}"))?;
    if members.contains_key(&id) {
        return Ok(members);
    }
    let ids: Vec<String> = members.keys().map(NodeId::to_string).collect();
    Err(format!(
        "--cluster lists the nodes {} but not this one, --id {id}: the list must name every node, \
         and be the same on each",
        ids.join(", "),
    ))
}

/// Waits until a signal or a failure ends the node.
fn serve(node: &Handle<Kv>, mut signals: Signals) -> Result<Exit, (Exit, String)> {
    let closer = signals.handle();
    let ended = thread::scope(|scope| {
        scope.spawn(move || {
            if let Some(signal) = signals.forever().next() {
                log::info!(
                    "signal {signal}: transferring leadership and stopping; a second signal stops \
                     at once"
                );
                thread::spawn(move || {
                    if signals.forever().next().is_some() {
                        std::process::exit(Exit::Failed as i32);
                    }
                });
                // If no other node has become the leader within a second, stop all the same: the
                // others elect a leader when their election timeouts end.
                node.resign(Duration::from_secs(1));
                node.shutdown();
            }
        });
        let ended = node.wait();
        closer.close();
        ended
    });
    match ended {
        Ok(()) => Ok(Exit::Stopped),
        // The node has already written this fault to the diagnostic log. It gets its own exit code,
        // which says that the data folder is damaged.
        Err(NodeError::Fault(fault @ Fault::AcknowledgedEntriesLost { .. })) => {
            Err((Exit::Folder, fault.to_string()))
        }
        Err(error @ NodeError::Replaced { .. }) => Err((Exit::Folder, error.to_string())),
        Err(error) => Err((Exit::Failed, error.to_string())),
    }
}

fn explain(error: StartError) -> (Exit, String) {
    let exit = match &error {
        StartError::Config(_) => Exit::Usage,
        StartError::Net(_) => Exit::Listen,
        StartError::Storage(error) => of_storage(error),
        StartError::Thread(_) => Exit::Failed,
        StartError::Restore(_) | StartError::Inadmissible(_) => Exit::Folder,
    };
    (exit, error.to_string())
}

fn of_storage(error: &StorageError) -> Exit {
    match error {
        StorageError::Locked { .. } => Exit::Locked,
        StorageError::Io { .. } => Exit::Failed,
        StorageError::Unusable { .. } => Exit::Usage,
        _ => Exit::Folder,
    }
}
