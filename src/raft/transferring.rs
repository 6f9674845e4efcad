//! How leadership is handed to another voter (thesis 3.10).
//!
//! A voter whose disk is full or hangs answers heartbeats, and has all of the log while nobody
//! writes, but it does not stand for election. The leader cannot see that. So where it chooses
//! itself whom it hands over to, those come first to which that has failed least often.

use std::cmp::Reverse;

use super::common::Common;
use super::leader::Leader;
use super::message::Message;
use super::progress::Progress;
use super::replication::receiver;
use super::types::{Index, NodeId};

/// A transfer of leadership that is under way (thesis 3.10).
#[derive(Debug)]
pub(super) struct Transfer {
    /// The voter that is to lead next; never this node.
    to: NodeId,
    /// Ticks since the transfer began; less than `election_ticks` between two inputs.
    elapsed: u32,
    /// Whether the target has been told to campaign. It is told once: if the message is lost, the
    /// transfer is given up in time, and may be asked for again.
    told: bool,
}

impl Leader {
    /// Transfers leadership to a voter: `to`, or the one that is furthest along, where one that has
    /// answered lately comes before one that has not, and then one that did not fail to take over.
    /// Returns that voter; `None` if `to` is not another voter, or there is no other voter. A
    /// transfer that is under way is replaced.
    pub fn transfer(&mut self, common: &mut Common, to: Option<NodeId>) -> Option<NodeId> {
        // Not those that a change of voters takes the vote from.
        let voters = common.configuration().voters().map(|member| member.id);
        let voters: Vec<NodeId> = voters.filter(|id| *id != common.id()).collect();
        let rank = |id: &&NodeId| {
            let progress = self.progress.get(id)?;
            Some((progress.active, progress.as_successor()))
        };
        let to = match to {
            Some(to) => voters.contains(&to).then_some(to)?,
            None => *voters.iter().max_by_key(rank)?,
        };
        self.transfer = Some(Transfer {
            to,
            elapsed: 0,
            told: false,
        });
        self.finish_transfer(common);
        Some(to)
    }

    /// Tells the target to campaign once it has the whole log: only then is it sure to get the
    /// votes of nodes whose logs are as long as this one.
    pub(super) fn finish_transfer(&mut self, common: &mut Common) {
        let Some(transfer) = self.transfer.as_mut().filter(|t| !t.told) else {
            return;
        };
        let Some(progress) = self.progress.get(&transfer.to) else {
            return;
        };
        if progress.matched() == common.log.last().index {
            transfer.told = true;
            common.ask(receiver(transfer.to, progress), Message::TimeoutNow);
        }
    }

    /// One tick has passed.
    pub(super) fn transfer_tick(&mut self, common: &Common) {
        if let Some(transfer) = &mut self.transfer {
            transfer.elapsed += 1;
            if transfer.elapsed >= common.config.election_ticks {
                if let Some(progress) = self.progress.get_mut(&transfer.to) {
                    progress.failed_transfers = progress.failed_transfers.saturating_add(1);
                }
                // The target may be dead: from here on commands are accepted again. If the target
                // campaigns all the same, its higher term deposes this leader, which is safe.
                self.transfer = None;
            }
        }
    }
}

impl Progress {
    /// How well it is suited to lead next, of those that answer; the highest is the best. First
    /// whether it took over when it was told to, then how much of the log it has.
    pub(super) fn as_successor(&self) -> (Reverse<u32>, Index) {
        (Reverse(self.failed_transfers), self.matched())
    }
}
