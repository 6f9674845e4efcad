//! A scenario that independent random faults seldom reach: a node that starts late, the newcomer,
//! acknowledges entries and loses its data folder before most nodes have met that folder. If the
//! leader counted those acknowledgements, committed entries could be lost.
//!
//! At first the newcomer reaches only the leader. The leader reaches so few others that they are a
//! quorum only together with the newcomer. If an entry is committed nevertheless, the newcomer
//! loses its folder, and the leader loses its power. The other nodes admit the newcomer's next
//! folder, because they have never met the first one. So the newcomer and the nodes that lag are a
//! quorum, which may lack the entry.

use super::Time;
use super::trace::trace;
use super::world::{Event, World};
use raftkv::raft::MemberRole;

/// For how long the newcomer is met by few, and for how long nothing is heard afterwards of those
/// that hold what was committed.
const APART: Time = 2_000_000;

/// Who is who, from the moment at which the newcomer starts.
pub(super) struct Newcomer {
    leader: usize,
    /// Those that hear the leader.
    beside: Vec<usize>,
    lagging: Vec<usize>,
}

impl World {
    /// Starts all nodes of the run; the newcomer, if there is one, when the others are at work, and
    /// sometimes each node when it likes.
    pub(super) fn start_all(&mut self) -> Result<(), super::Failure> {
        let last = self.plan.nodes - 1;
        for n in 0..self.nodes.len() {
            if n > last {
                // A node that was no founder.
                let role = *self
                    .random
                    .pick(&[MemberRole::Joining, MemberRole::Learner]);
                self.nodes[n].joins = Some(role).filter(|_| self.random.chance(0.3));
                let at = self.random.exponential(1_000_000);
                self.queue.add(at, Event::Start(n));
            } else if self.plan.newcomer && n == last {
                let at = 1_500_000 + self.random.exponential(1_000_000);
                self.queue.add(at, Event::Newcomer);
            } else if self.plan.starts > 0 {
                let at = self.random.exponential(self.plan.starts);
                self.queue.add(at, Event::Start(n));
            } else {
                self.start(n)?;
            }
        }
        Ok(())
    }

    /// The last node starts for the first time.
    pub(super) fn newcomer_starts(&mut self) -> Result<(), super::Failure> {
        let new = self.plan.nodes - 1;
        let until = self.now + APART;
        let mut others: Vec<usize> = (0..new).collect();
        if let Some(leader) = self.a_leader()
            && self.faults_go_on
        {
            others.retain(|other| *other != leader);
            self.random.shuffle(&mut others);
            let lagging = others.split_off(self.plan.quorum() - 2);
            let mut part = |from, to| {
                self.network.cut(from, to, until);
                self.network.cut(to, from, until);
            };
            lagging.iter().for_each(|other| part(*other, leader));
            lagging.iter().for_each(|other| part(*other, new));
            others.iter().for_each(|other| part(*other, new));
            trace!(
                self,
                "a newcomer; leader, from 0: {leader}, with {others:?}"
            );
            self.newcomer = Some(Newcomer {
                leader,
                beside: others,
                lagging,
            });
        }
        self.start(new)
    }

    /// A leader has committed something. If the newcomer may have helped and is not admitted, that
    /// is the last that is seen of the two for a while.
    pub(super) fn newcomer_may_go(&mut self, n: usize) {
        let new = self.plan.nodes - 1;
        let may_have_helped = self.faults_go_on
            && self.nodes[new].running.is_some()
            && !self.nodes[new].admitted
            && self.may_lose_a_folder(new);
        if !may_have_helped || !self.random.chance(0.5) {
            return;
        }
        let Some(newcomer) = self.newcomer.take_if(|newcomer| newcomer.leader == n) else {
            return;
        };
        let until = self.now + APART;
        for other in 0..new {
            self.network.mend(other, new);
            self.network.mend(new, other);
        }
        for lags in &newcomer.lagging {
            for holder in newcomer.beside.iter().chain([&n]) {
                self.network.cut(*holder, *lags, until);
            }
        }
        let life = self.nodes[n].life;
        self.queue.add(self.now + 1, Event::Doom(n, life));
        let life = self.nodes[new].life;
        self.queue.add(self.now + 1, Event::Wipe(new, life));
    }
}
