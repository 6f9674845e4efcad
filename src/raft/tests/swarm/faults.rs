//! What goes wrong in a run, and how it ends.

use super::world::World;
use crate::raft::{NodeId, Raft};

impl World {
    /// Draws the faults that the plan allows for this tick, and carries them out.
    pub fn interfere(&mut self) {
        let plan = self.plan.clone();
        if self.dice.chance(plan.cut) {
            self.cut_links();
        }
        if self.dice.chance(plan.heal) {
            self.cut.clear();
        }
        let victim = self.victim();
        // Crashes are more likely while a write is under way, when they do most harm.
        let idle = self.peers[&victim].disk.is_idle();
        if self
            .dice
            .chance(if idle { plan.crash } else { 5 * plan.crash })
        {
            self.crash(victim);
        }
        let other = self.dice.below(plan.nodes) + 1;
        if self.dice.chance(plan.restart) {
            self.restart(other);
        }
        let until = self.now + self.dice.below(100);
        if self.dice.chance(plan.pause) {
            self.peer(victim).paused_until = until;
        }
        if self.dice.chance(plan.stall) {
            self.peer(other).disk.stalled_until = until;
        }
        if self.dice.chance(plan.wipe) {
            self.wipe(victim);
        }
    }

    /// The node that a fault strikes: the leader more often than others.
    fn victim(&mut self) -> NodeId {
        let any = self.dice.below(self.plan.nodes) + 1;
        match self.leader() {
            Some((_, leader)) if self.dice.chance(400) => leader,
            _ => any,
        }
    }

    /// Cuts one link, or one node or group off, in one direction or both.
    fn cut_links(&mut self) {
        let group = match self.dice.below(3) {
            0 => {
                let (a, b) = (self.victim(), self.victim());
                self.cut.insert((a, b));
                return;
            }
            1 => 1 << self.victim(),
            _ => self.dice.below(2 << self.plan.nodes),
        };
        let within = (1..=self.plan.nodes).filter(|id| group >> id & 1 == 1);
        let within: Vec<NodeId> = within.collect();
        let (out, back) = self.direction();
        self.cut_off(&within, out, back);
    }

    /// Which way a cut goes: out of a group, back into it, or both.
    fn direction(&mut self) -> (bool, bool) {
        [(true, true), (true, false), (false, true)][self.dice.below(3) as usize]
    }

    fn cut_off(&mut self, group: &[NodeId], out: bool, back: bool) {
        for a in group {
            for b in (1..=self.plan.nodes).filter(|id| !group.contains(id)) {
                self.cut.extend(out.then_some((*a, b)));
                self.cut.extend(back.then_some((b, *a)));
            }
        }
    }

    pub fn crash(&mut self, id: NodeId) {
        let peer = self.peers.get_mut(&id).expect("a node of the cluster");
        if peer.raft.take().is_some() {
            peer.disk.crash(&mut self.dice);
            self.checker.crashed(id);
            self.crashes += 1;
        }
    }

    fn restart(&mut self, id: NodeId) {
        let peer = self.peer(id);
        if peer.raft.is_none() {
            let (hard_state, log) = (peer.disk.hard_state, peer.disk.log.clone());
            // Another seed than before the crash, as each start of a process has.
            peer.config.seed += 1;
            peer.raft = Some(Raft::new(peer.config.clone(), hard_state, log));
            peer.applied = 0;
        }
    }

    /// Ends the faults of a majority for good, and returns the majority. The other nodes stay as
    /// they are, up or down, and cut off from the majority in one direction or both.
    pub fn heal_majority(&mut self) -> Vec<NodeId> {
        let size = self.plan.size;
        let first = self.dice.below(size);
        let majority: Vec<NodeId> = (0..=size / 2).map(|n| (first + n) % size + 1).collect();
        self.end_faults(&majority);
        let (out, back) = self.direction();
        self.cut_off(&majority, out, back);
        majority
    }

    /// Ends all faults.
    pub fn heal(&mut self) {
        self.end_faults(&(1..=self.plan.nodes).collect::<Vec<_>>());
    }

    fn end_faults(&mut self, of: &[NodeId]) {
        self.plan = self.plan.healed();
        self.cut.clear();
        for id in of {
            self.restart(*id);
            let peer = self.peer(*id);
            (peer.paused_until, peer.disk.stalled_until, peer.skew) = (0, 0, 0);
        }
    }
}
