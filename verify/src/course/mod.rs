//! The tests of the distributed-systems course (MIT 6.5840): each is one text, which drives a
//! cluster in virtual time and one on threads alike.
//!
//! A scenario is a function of an [`Arena`]: a cluster whose servers it cuts off, crashes and
//! starts, and to whose leader it submits commands. A scenario of the key/value service is a
//! function of a [`Service`]: an arena that has clients, too. There are two:
//!
//! - [`Lab`](crate::sim::lab::Lab), in virtual time: one thread, simulated disks, each run repeated
//!   from its seed, and the simulator's checks after every step. Numbers, limits and times are the
//!   course's.
//! - [`Threads`], in real time: whole nodes with all their threads, over the network in memory, and
//!   clients with a thread and a Clerk each. Election timeouts are the product's, so the nominal
//!   timeout is half the course's.
//!
//! [`scenarios!`](crate::scenarios) is the list of all scenarios. A command is an operation of the
//! product's store, in one session: the value of one key shows what a server has executed, and in
//! which order.

mod clients;
mod executions;
mod generic;
mod procedures;
mod scripted;
mod threads;
mod virtual_time;

pub mod agreement;
pub mod elections;
pub mod faults;
pub mod kv;
pub mod kv_snapshots;
pub mod persistence;
pub mod snapshots;
pub mod state_machine;

use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;

pub use clients::{Calls, Service};
pub use procedures::{Actor, Agreement, Procedures};
pub use scripted::{LOG, Scripted};
pub use threads::Threads;

use crate::sim::Time;
use crate::sim::lab::{Ended, Every, Numbering, Submitted, Ticket};
use raftkv::raft::{EntryId, Index, NodeId, Term};

/// Hands the list of scenarios to a macro: by family, each with its number of servers, and of
/// clients if it has any.
#[macro_export]
macro_rules! scenarios {
    ($make:ident) => {
        $make! {
            elections {
                initial_election: 3;
                re_election: 3;
                many_elections: 7;
            }
            agreement {
                basic_agree: 3;
                rpc_bytes: 3;
                follower_failure: 3;
                leader_failure: 3;
                fail_agree: 3;
                fail_no_agree: 5;
                concurrent_starts: 3;
                rejoin: 3;
                backup: 5;
                count: 3;
            }
            persistence {
                persist_1: 3;
                persist_2: 5;
                persist_3: 3;
            }
            faults {
                figure_8: 5;
                unreliable_agree: 5;
                figure_8_unreliable: 5;
                reliable_churn: 5;
                unreliable_churn: 5;
            }
            snapshots {
                snapshot_basic: 3;
                snapshot_install: 3;
                snapshot_install_unreliable: 3;
                snapshot_install_crash: 3;
                snapshot_install_un_crash: 3;
                snapshot_all_crash: 3;
                snapshot_init: 3;
            }
            state_machine {
                basic: 3;
                concurrent: 3;
                leader_failure: 3;
                leader_partition: 3;
                restart_replay: 3;
                shutdown: 3;
                restart_submit: 3;
                snapshot: 3;
            }
            kv {
                basic: 5, 1;
                speed: 3, 1;
                concurrent: 5, 5;
                unreliable: 5, 5;
                unreliable_one_key: 3, 5;
                one_partition: 5, 5;
                many_partitions_one_client: 5, 1;
                many_partitions_many_clients: 5, 5;
                long_delays: 5, 5;
                persist_one_client: 5, 1;
                persist_concurrent: 5, 5;
                persist_concurrent_unreliable: 5, 5;
                persist_partition: 5, 5;
                persist_partition_unreliable: 5, 5;
                persist_partition_unreliable_linearizable: 7, 15;
                put_concurrent_reliable: 1, 10;
                unreliable_net: 1, 1;
                a_get_from_local_state_is_not_linearizable: 3, 1;
            }
            kv_snapshots {
                speed_with_snapshots: 3, 1;
                snapshot_rpc: 3, 3;
                snapshot_size: 3, 1;
                snapshot_recover: 5, 1;
                snapshot_recover_many_clients: 5, 20;
                snapshot_unreliable: 5, 5;
                snapshot_unreliable_recover: 5, 5;
                snapshot_unreliable_recover_concurrent_partition: 5, 5;
                snapshot_unreliable_recover_concurrent_partition_linearizable: 7, 15;
            }
        }
    };
}

/// A cluster of servers, from 0 on, that a scenario drives.
pub trait Arena: Sized {
    /// The course's nominal election timeout, by which a scenario waits: no election timeout of
    /// the servers is longer.
    fn nominal_timeout(&self) -> Duration;

    /// How long to look away before the next look for a leader.
    fn pause_before_look(&mut self) -> Duration;

    /// How long to look away between two looks at a command that was submitted.
    fn glance(&self) -> Duration;

    /// How many rounds a random procedure takes here, if the course takes `course` of them. In real
    /// time there are fewer, because each round costs real time.
    fn rounds(&self, course: u64) -> u64;

    /// The course's unreliable network, or the one without loss and delay.
    fn set_unreliable(&mut self, unreliable: bool);

    /// Whether many of the messages that the unreliable network does not lose are late by more than
    /// an election timeout.
    fn set_long_reordering(&mut self, long_reordering: bool);

    /// The time since the start.
    fn now(&self) -> Time;

    /// Lets time pass up to this moment.
    fn run_to(&mut self, end: Time);

    /// Lets time pass until something holds, at most for the limit. Returns whether it holds.
    fn run_until(&mut self, limit: Duration, holds: impl FnMut(&mut Self) -> bool) -> bool;

    /// A random number below the bound.
    fn below(&mut self, bound: u64) -> u64;

    /// How many servers there are.
    fn servers(&self) -> usize;

    /// Cuts a server off from all others, in both directions; its process goes on.
    fn disconnect(&mut self, server: usize);

    /// Connects a server with all others that are connected.
    fn connect(&mut self, server: usize);

    /// Whether a server is up and connected.
    fn is_connected(&self, server: usize) -> bool;

    /// Whether a server is up.
    fn is_up(&self, server: usize) -> bool;

    /// The power of a server fails: what was not synced is lost, torn or kept by chance. The
    /// server is disconnected, too. A server that is down stays so.
    fn crash(&mut self, server: usize);

    /// A server stops in good order: whoever waits for it is told so. It is disconnected, and what
    /// it has not synced meets the fate that it meets in a [`crash`](Self::crash).
    fn stop(&mut self, server: usize);

    /// Starts a server that is down from what its disk holds, and connects it.
    fn start(&mut self, server: usize);

    /// Submits commands to a server, all at once. `None` for a command that the server does not
    /// take, because it does not lead.
    fn submit_all(&mut self, server: usize, commands: Vec<Bytes>) -> Vec<Option<Submitted>>;

    /// How a command that was submitted has ended, if it has.
    fn ended(&mut self, ticket: Ticket) -> Option<Ended>;

    /// The numbers of the commands that the scenario makes.
    fn numbering(&mut self) -> &mut Numbering;

    /// The term of a server that is up, the server that it follows in that term, and whether it
    /// leads itself.
    fn view(&self, server: usize) -> Option<View>;

    /// How many servers have executed the entry of this id.
    fn executed_entry(&self, entry: EntryId) -> usize;

    /// The place of the entry at this index among all commands that are committed; the first
    /// command has place 1. The course calls this an index: the entry that opens a term has no
    /// place, and neither has the opening of a session.
    fn place(&self, index: Index) -> u64;

    /// How many servers have executed at least `n` commands. Entries that are no commands, such as
    /// the one that opens a term, do not count.
    fn executed(&self, n: u64) -> usize;

    /// The place that an entry has among the commands of this server's log, committed or not.
    fn place_in_log(&self, server: usize, index: Index) -> u64;

    /// What a server's state holds under a key; a missing value is empty.
    fn value_at(&self, server: usize, key: &[u8]) -> Bytes;

    /// From now on servers take snapshots. Nothing may have happened before.
    fn snapshot(&mut self, every: Every);

    /// The last entry of a server's newest snapshot; zero without one, and for a server that is
    /// down.
    fn snapshot_index(&self, server: usize) -> Index;

    /// How many snapshots servers have got from others in place of their state.
    fn installs(&self) -> u64;

    /// The indexes of the entries that the log of a server holds, which is up.
    fn held(&self, server: usize) -> RangeInclusive<Index>;

    /// The weight of the log that a server holds in memory, in bytes, each entry 32 beside its
    /// command. Zero for a server that is down.
    fn log_bytes(&self, server: usize) -> usize;

    /// The size of the files of a server's log, in bytes; `None` where the log's segments are too
    /// large for the course's limit to say anything.
    fn log_file_bytes(&self, server: usize) -> Option<usize>;

    /// How many requests the servers sent to each other, lost ones included. Answers do not count.
    fn requests(&self) -> u64;

    /// How many requests were sent to a server.
    fn requests_to(&self, server: usize) -> u64;

    /// How many bytes the servers sent to each other, in frames, answers included.
    fn bytes(&self) -> u64;

    /// What must hold at the end of every scenario.
    fn check_end(&mut self) {
        self.check_logs();
    }
}

/// What a server knows of the leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// The server's term.
    pub term: Term,
    /// The leader of that term, as far as the server knows it; itself if it leads.
    pub leader: Option<usize>,
    /// Whether the server leads.
    pub leads: bool,
}

/// The server that has this id.
fn server_of(id: NodeId) -> usize {
    id as usize - 1
}
