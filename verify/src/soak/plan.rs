//! What a run consists of, drawn from its seed.

use std::fmt;
use std::time::Duration;

use crate::sim::Random;

/// What is done to nodes, network and clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `kill -9` of whoever leads; it comes back.
    KillLeader,
    /// `kill -9` of another one.
    KillFollower,
    /// `kill -9` of all nodes at once.
    KillAll,
    /// SIGTERM to whoever leads, which must end cleanly.
    StopLeader,
    /// SIGTERM to another one.
    StopFollower,
    /// SIGSTOP of whoever leads, for several election timeouts.
    FreezeLeader,
    /// SIGSTOP of another one.
    FreezeFollower,
    /// SIGSTOP of a client, and nothing else.
    FreezeClient,
    /// The leader alone on one side.
    IsolateLeader,
    /// Another one alone on one side.
    IsolateFollower,
    /// The leader on the side of the minority; of three nodes, as when it is isolated.
    LeaderInMinority,
    /// The leader on the side of the majority.
    LeaderInMajority,
    /// Two groups that only one node can reach both of.
    Bridge,
    /// What the leader sends vanishes.
    MuteLeader,
    /// What is sent to the leader vanishes.
    DeafLeader,
    /// 75 ms, give or take 50, between all nodes.
    Delay,
    /// Packets lost and sent again, connections that break off or do not come about.
    Loss,
    /// Changed bytes between nodes.
    Corruption,
    /// Some hundred kilobytes a second to one follower.
    Throttle,
    /// Changed bytes, lost packets and broken connections between clients and nodes.
    ClientNetwork,
    /// A follower that was down so long that it needs a snapshot, over a slow link.
    LateFollower,
    /// A follower comes back with an empty folder and must be refused; then its own is found.
    WipedFolder,
    /// No room is left on the disk of one node.
    FullDisk,
    /// The leader is asked to hand over.
    Transfer,
}

/// All kinds.
pub const KINDS: [Kind; 24] = [
    Kind::KillLeader,
    Kind::KillFollower,
    Kind::KillAll,
    Kind::StopLeader,
    Kind::StopFollower,
    Kind::FreezeLeader,
    Kind::FreezeFollower,
    Kind::FreezeClient,
    Kind::IsolateLeader,
    Kind::IsolateFollower,
    Kind::LeaderInMinority,
    Kind::LeaderInMajority,
    Kind::Bridge,
    Kind::MuteLeader,
    Kind::DeafLeader,
    Kind::Delay,
    Kind::Loss,
    Kind::Corruption,
    Kind::Throttle,
    Kind::ClientNetwork,
    Kind::LateFollower,
    Kind::WipedFolder,
    Kind::FullDisk,
    Kind::Transfer,
];

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::KillLeader => "kill -9 of the leader",
            Kind::KillFollower => "kill -9 of a follower",
            Kind::KillAll => "kill -9 of all nodes",
            Kind::StopLeader => "SIGTERM to the leader",
            Kind::StopFollower => "SIGTERM to a follower",
            Kind::FreezeLeader => "SIGSTOP of the leader",
            Kind::FreezeFollower => "SIGSTOP of a follower",
            Kind::FreezeClient => "SIGSTOP of a client",
            Kind::IsolateLeader => "leader isolated",
            Kind::IsolateFollower => "follower isolated",
            Kind::LeaderInMinority => "leader in a minority",
            Kind::LeaderInMajority => "leader in the majority",
            Kind::Bridge => "one node between two groups",
            Kind::MuteLeader => "leader not heard",
            Kind::DeafLeader => "leader hears nobody",
            Kind::Delay => "delay of 75 ± 50 ms",
            Kind::Loss => "loss",
            Kind::Corruption => "changed bytes",
            Kind::Throttle => "slow link to a follower",
            Kind::ClientNetwork => "bad network to clients",
            Kind::LateFollower => "snapshot over a slow link",
            Kind::WipedFolder => "wiped folder",
            Kind::FullDisk => "full disk",
            Kind::Transfer => "leadership handed over",
        })
    }
}

/// One fault of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: Kind,
    /// How long it lasts at the least.
    pub hold: Duration,
    /// How long nothing is wrong afterwards.
    pub rest: Duration,
    /// Whether what a cut network is given vanishes; else it waits.
    pub vanishes: bool,
    /// How bad a network is, in permille of chunks: from 10 to 100.
    pub permille: u32,
    /// Which of several nodes.
    pub choice: u64,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub nodes: u64,
    /// How many clients know the nodes themselves.
    pub direct: usize,
    /// How many know only proxies in front of the nodes, at first; they learn of others.
    pub proxied: usize,
    pub snapshot_log_bytes: u64,
    /// More than there is time for; taken from the front.
    pub faults: Vec<Fault>,
}

impl Plan {
    /// The plan of a seed, with faults for so many seconds.
    pub fn draw(seed: u64, seconds: u64) -> Self {
        let mut random = Random::new(seed);
        let nodes = *random.pick(&[3, 3, 5]);
        let direct = random.between(3, 5) as usize;
        let proxied = random.between(1, 3) as usize;
        let snapshot_log_bytes = *random.pick(&[64 << 10, 256 << 10, 1 << 20]);
        let mut faults = Vec::new();
        // Each kind once before any comes again, so that a short run has many; none is shorter
        // than a second.
        while faults.len() as u64 <= seconds {
            let mut kinds = KINDS;
            random.shuffle(&mut kinds);
            faults.extend(kinds.map(|kind| Fault {
                kind,
                hold: Duration::from_millis(random.between(500, 4000)),
                rest: Duration::from_millis(random.between(100, 1000)),
                vanishes: random.chance(0.5),
                permille: random.between(10, 100) as u32,
                choice: random.number(),
            }));
        }
        Self {
            nodes,
            direct,
            proxied,
            snapshot_log_bytes,
            faults,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_follows_from_its_seed() {
        assert_eq!(Plan::draw(7, 60), Plan::draw(7, 60));
        assert_ne!(Plan::draw(7, 60), Plan::draw(8, 60));
    }

    #[test]
    fn a_longer_run_of_a_seed_begins_like_a_shorter_one() {
        let (short, long) = (Plan::draw(7, 30), Plan::draw(7, 300));
        assert!(long.faults.starts_with(&short.faults));
        assert!(long.faults.len() > 300);
    }

    #[test]
    fn every_kind_comes_before_any_comes_again() {
        let mut first: Vec<_> = Plan::draw(7, 60).faults.iter().map(|f| f.kind).collect();
        first.truncate(KINDS.len());
        first.sort_unstable();
        assert_eq!(first, KINDS);
    }
}
