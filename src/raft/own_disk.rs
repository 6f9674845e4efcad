//! Who can lead in the place of a leader whose own disk is full, or does not return.

use super::Raft;
use super::configuration::Member;
use super::progress::Progress;
use super::role::Role;
use super::types::{Index, NodeId};

impl Raft {
    /// Up to this index, inclusive, the log is known to be on this node's disk.
    pub fn durable_index(&self) -> Index {
        self.common.log.durable()
    }

    /// The length of a tick, in milliseconds.
    pub fn tick_ms(&self) -> u64 {
        self.common.config.tick_ms
    }

    /// The shortest election timeout, in ticks.
    pub fn election_ticks(&self) -> u32 {
        self.common.config.election_ticks
    }

    /// The voter that can take over from this leader without this leader's disk, and whose own disk
    /// is known to work. If there are several: not `but`, and of the others one that did not fail
    /// to take over, and then the one that has most of the log. `None` if there is none, or this
    /// node does not lead.
    ///
    /// What a leader knows of the disks of others is what they have acknowledged.
    /// - *Something is not on this node's own disk.* Then the others must have committed without it
    ///   an entry that it does not have on disk: `committed > durable`. A majority of the voters,
    ///   in a joint configuration one of either half, has acknowledged that entry, and this node is
    ///   not among them, for it counts as having `durable`. So a majority writes, and can elect one
    ///   of its own without a vote of this node, which could not write it down. Of 3 voters both
    ///   others must have the entry, of 4 all three, of 5 three of four, of 7 four of six. Where
    ///   there is no majority without this node, as with 2 voters, nobody can take over.
    /// - *The own disk has all of the log.* Then this node can write down its term and vote, for
    ///   that takes no space, and a voter is enough that has all of the log, too.
    ///
    /// To name a wrong one is safe in any case: it has to win an election like any candidate.
    pub fn successor_by_disk(&self, but: Option<NodeId>) -> Option<NodeId> {
        let Role::Leader(leader) = &self.role else {
            return None;
        };
        let (common, log) = (&self.common, &self.common.log);
        let least = match log.durable() == log.last().index {
            true => log.durable(),
            false => Some(log.committed()).filter(|committed| *committed > log.durable())?,
        };
        let election_ticks = common.config.election_ticks;
        let heard = |p: &Progress| {
            if p.silent_ticks < election_ticks {
                p.matched()
            } else {
                0
            }
        };
        let matched = |member: &Member| leader.reached(common, member, 0, heard);
        let voters = common.configuration().voters();
        let others = voters.filter(|voter| voter.id != common.id());
        let able = others.filter(|voter| matched(voter) >= least);
        let rank = |voter: &&Member| {
            let progress = leader.progress.get(&voter.id);
            (Some(voter.id) != but, progress.map(Progress::as_successor))
        };
        let best = able.max_by_key(rank);
        best.map(|voter| voter.id)
    }
}
