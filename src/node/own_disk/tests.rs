//! Three replicas whose disks do what the test says.

use super::*;
use crate::node::{Replica, Wanted};
use crate::raft::{Config, Configuration, Envelope, HardState, Write};

const SIZE: u64 = 3;

struct Trio {
    replicas: Vec<Replica<&'static str>>,
    /// The write that each replica has handed out, and that is not on its disk.
    writes: Vec<Option<Write>>,
    /// The nodes whose disks do nothing.
    hung: Vec<NodeId>,
    full: Vec<NodeId>,
    notices: Vec<(NodeId, DiskNotice)>,
}

impl Trio {
    fn new() -> Self {
        let replica = |id| {
            let config = Config::new(id, Configuration::of_voters(1..=SIZE), id);
            let raft = Raft::new(config, HardState::default(), Vec::new());
            Replica::new(raft, 10, None)
        };
        let mut trio = Self {
            replicas: (1..=SIZE).map(replica).collect(),
            writes: vec![None; SIZE as usize],
            hung: Vec::new(),
            full: Vec::new(),
            notices: Vec::new(),
        };
        while trio.leader().is_none() {
            trio.tick();
        }
        trio.settle();
        trio
    }

    fn replica(&mut self, id: NodeId) -> &mut Replica<&'static str> {
        &mut self.replicas[id as usize - 1]
    }

    /// The leader of the highest term.
    fn leader(&self) -> Option<NodeId> {
        let rafts = self.replicas.iter().map(Replica::raft);
        let leaders = rafts.filter(|raft| raft.role() == RoleName::Leader);
        leaders.max_by_key(|raft| raft.term()).map(Raft::id)
    }

    /// Carries messages and writes until there are none.
    fn settle(&mut self) {
        loop {
            let mut messages: Vec<Envelope> = Vec::new();
            for at in 0..self.replicas.len() {
                let id = at as NodeId + 1;
                if let Some(write) = self.writes[at].take_if(|_| !self.hung.contains(&id)) {
                    self.replicas[at].durable(write.id);
                }
                let wanted = match self.writes[at] {
                    None => Wanted::WRITE,
                    Some(_) => Wanted::MESSAGES,
                };
                let consequences = self.replicas[at].output(wanted);
                messages.extend(consequences.messages);
                let notices = consequences.disk_notices.into_iter();
                self.notices.extend(notices.map(|notice| (id, notice)));
                if consequences.write.is_some() {
                    self.writes[at] = consequences.write;
                }
            }
            let at_rest = |(at, write): (usize, &Option<Write>)| {
                write.is_none() || self.hung.contains(&(at as NodeId + 1))
            };
            if messages.is_empty() && self.writes.iter().enumerate().all(at_rest) {
                return;
            }
            for message in messages {
                self.replica(message.to).step(message);
            }
        }
    }

    fn tick(&mut self) {
        for at in 0..self.replicas.len() {
            self.replicas[at].note_disk(DiskState {
                is_full: self.full.contains(&(at as NodeId + 1)),
                write: self.writes[at].as_ref().map(|write| write.id),
            });
            self.replicas[at].tick();
        }
        self.settle();
    }

    fn put(&mut self, at: NodeId) -> bool {
        let accepted = self.replica(at).submit("command".into(), 100, "waiter");
        self.settle();
        accepted.is_some()
    }

    fn patience(&self) -> u64 {
        patience(self.replicas[0].raft())
    }
}

#[test]
fn a_leader_whose_disk_hangs_hands_over_when_the_others_have_written_what_it_has_not() {
    let mut trio = Trio::new();
    let first = trio.leader().expect("one leads");
    trio.hung.push(first);
    for _ in 0..2 * trio.patience() {
        trio.tick();
    }
    assert_eq!(trio.leader(), Some(first), "nothing is under way");
    assert!(trio.put(first));
    for _ in 1..trio.patience() {
        trio.tick();
        assert_eq!(trio.leader(), Some(first), "not so soon");
    }
    trio.tick();
    let next = trio.leader().expect("the others can elect one");
    assert_ne!(next, first);
    let ms = trio.patience() * trio.replicas[0].raft().tick_ms();
    let why = Trouble::Hangs { ms };
    let hands_over = DiskNotice::HandsOver { to: next, why };
    assert_eq!(
        trio.notices,
        [(first, DiskNotice::Hangs { ms }), (first, hands_over)]
    );
    let said = trio.notices[1].1.to_string();
    assert!(said.contains("has not returned for"), "{said}");
    assert!(trio.put(next));
}

#[test]
fn a_slow_disk_that_returns_is_left_alone() {
    let mut trio = Trio::new();
    let leader = trio.leader().expect("one leads");
    for _ in 0..5 {
        trio.hung = vec![leader];
        assert!(trio.put(leader));
        // One tick comes before the disk is seen to have returned.
        for _ in 2..trio.patience() {
            trio.tick();
        }
        trio.hung.clear();
        trio.tick();
    }
    assert_eq!(trio.leader(), Some(leader));
    assert_eq!(trio.notices, []);
}

#[test]
fn a_leader_whose_disk_hangs_leads_on_where_the_others_are_no_better() {
    let mut trio = Trio::new();
    let leader = trio.leader().expect("one leads");
    let other = leader % SIZE + 1;
    trio.hung = vec![leader, other];
    assert!(trio.put(leader));
    for _ in 0..3 * trio.patience() {
        trio.tick();
    }
    assert_eq!(trio.leader(), Some(leader));
    // As soon as the other one writes, it can take over.
    trio.hung = vec![leader];
    for _ in 0..2 {
        trio.tick();
    }
    assert_ne!(trio.leader(), Some(leader));
}

#[test]
fn where_all_disks_are_full_leadership_stays_where_it_is_but_for_one_try_a_minute() {
    let mut trio = Trio::new();
    let leader = trio.leader().expect("one leads");
    trio.full = vec![1, 2, 3];
    trio.tick();
    assert!(!trio.put(leader), "there is no space");
    let ticks = REST_MS / trio.replicas[0].raft().tick_ms();
    for _ in 0..2 * ticks - 10 {
        trio.tick();
    }
    assert_eq!(
        trio.leader(),
        Some(leader),
        "nobody without space campaigns"
    );
    let hands_over =
        |(_, notice): &&(NodeId, DiskNotice)| matches!(notice, DiskNotice::HandsOver { .. });
    let tried: Vec<_> = trio.notices.iter().filter(hands_over).collect();
    assert_eq!(tried.len(), 2, "{tried:?}");
    assert_ne!(tried[0], tried[1], "it is not the same one twice");
    // One of them has space again.
    let other = leader % SIZE + 1;
    trio.full.retain(|id| *id != other);
    for _ in 0..2 * ticks {
        trio.tick();
    }
    assert_eq!(trio.leader(), Some(other));
    assert!(trio.put(other));
}
