//! How a node with a new data folder comes into a cluster that exists: it asks to be let in.
//!
//! The node has nothing to say: it has no log, and its folder counts for nobody. So it does not act
//! on what the others do, it asks the leader to change the members, as an operator would. From then
//! on the leader sends it the log, and makes it a voter once it has caught up.
//!
//! The thread `join` asks until the node finds itself in a committed configuration. To repeat the
//! request is safe: the leader makes the change once.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::NodeError;
use super::config::Config;
use super::healing::others_of;
use super::hub::Hub;
use crate::machine::StateMachine;
use crate::raft::{FolderId, LoggedConfiguration, NodeId, Raft};
use crate::wire::client::{Answer, Ask};
use crate::wire::members::JoinRequest;

/// How long one node may take to answer: longer than a leader takes to probe an address.
const PATIENCE: Duration = Duration::from_secs(3);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How many addresses are remembered, and how many reasons.
const MOST: usize = 32;

/// Asks to be let in.
pub(super) struct Joiner {
    request: JoinRequest,
    config: Config,
    /// Whether to ask at once. Else only when another node says that the cluster exists: this node
    /// may as well be one of those that found it.
    at_once: bool,
    addresses: Addresses,
    /// How long to wait before the nodes are asked again.
    pause: Duration,
    /// Why the node was not let in so far. Each reason is logged once.
    reasons: BTreeSet<String>,
}

/// Whom to ask: the nodes that were named, and leaders that these have named.
struct Addresses {
    all: Vec<String>,
    /// Those that are still to be asked in this round, the next one last.
    left: Vec<String>,
}

/// What follows from an answer.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// The change is in the leader's log.
    LetIn,
    /// Another node may know more. `None`: nothing is worth a line in the log.
    Other(Option<String>),
    /// No other node will answer otherwise in this round.
    Later(Option<String>),
}

impl Addresses {
    fn of(all: Vec<String>) -> Self {
        Self {
            all,
            left: Vec::new(),
        }
    }

    fn begin_round(&mut self) {
        self.left = self.all.iter().rev().cloned().collect();
    }

    /// A node has named the leader: it is asked next, and first in later rounds. If it was asked in
    /// this round already it is not asked again, so that a round ends.
    fn leader_is(&mut self, address: String, asked: &BTreeSet<String>) {
        self.all.retain(|known| *known != address);
        self.all.insert(0, address.clone());
        self.all.truncate(MOST);
        self.left.retain(|known| *known != address);
        if !asked.contains(&address) {
            self.left.push(address);
        }
    }
}

impl Joiner {
    /// What a node with these settings does whose folder has no logged configuration: `None` if it
    /// waits for an operator.
    pub fn of(config: &Config, folder: FolderId) -> Option<Self> {
        let address = config.told_address(None)?;
        let at_once = !config.join.is_empty();
        let others = config.dialled_members().into_iter();
        let addresses: Vec<String> = match at_once {
            true => config.join.clone(),
            false => others.map(|(_, address)| address).collect(),
        };
        let asks = config.rejoins && !addresses.is_empty();
        asks.then(|| Self {
            request: JoinRequest {
                id: config.id,
                folder,
                address,
                role: config.joins_as,
                only_back: !at_once,
            },
            config: config.clone(),
            at_once,
            addresses: Addresses::of(addresses),
            pause: FIRST_PAUSE,
            reasons: BTreeSet::new(),
        })
    }

    /// What a node does whose folder has taken the place of a damaged one, or asked before: it asks
    /// the `members` that it knows of, and those that it was told of. `None` if it waits for an
    /// operator. If its id `had_place` in a committed configuration, it only wants that back.
    pub fn back(
        config: &Config,
        folder: FolderId,
        members: &LoggedConfiguration,
        had_place: bool,
    ) -> Option<Self> {
        let own = members.configuration.contact(config.id);
        let own = own.map(|member| member.address.clone());
        let own = own.filter(|address| !address.is_empty());
        // Who has told the node to join has said where it is. Its id may have another address in
        // what the node knows: that of the folder whose place it is to take.
        let told = config
            .told_address(None)
            .filter(|_| !config.join.is_empty());
        let addresses = others_of(config, Some(members));
        let asks = config.rejoins && !addresses.is_empty();
        let request = JoinRequest {
            id: config.id,
            folder,
            address: told.or_else(|| config.told_address(own))?,
            role: config.joins_as,
            only_back: had_place || config.join.is_empty(),
        };
        asks.then(|| Self {
            request,
            config: config.clone(),
            at_once: true,
            addresses: Addresses::of(addresses.into_iter().collect()),
            reasons: BTreeSet::new(),
            pause: FIRST_PAUSE,
        })
    }

    /// The body of the thread `join`: asks until the node is a member, or stops.
    pub fn run<S: StateMachine>(mut self, hub: &Hub<S>) -> Result<(), NodeError> {
        if !self.at_once {
            // Whoever joins is nobody's witness, also after a crash.
            let founds = || hub.founds.load(Ordering::SeqCst);
            let is_stranger = || hub.is_stranger.load(Ordering::SeqCst) && !founds();
            hub.wait_until(Duration::MAX, |replica| {
                is_stranger() || is_member(replica.raft())
            });
            if !is_stranger() {
                return Ok(());
            }
            log::info!(
                "the cluster exists and has node {} with another data folder: this node asks to \
                 take its place",
                self.request.id
            );
        }
        if !hub.with_raft(is_member) {
            hub.files.write_that_it_asks();
        }
        while !hub.is_stopping() && !hub.with_raft(is_member) {
            self.round(hub);
            if hub.wait_until(self.pause, |replica| is_member(replica.raft())) {
                break;
            }
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
        Ok(())
    }

    /// Asks one node after the other, until one has let this node in or says that nobody will.
    fn round<S: StateMachine>(&mut self, hub: &Hub<S>) {
        let mut asked = BTreeSet::new();
        self.addresses.begin_round();
        while let Some(address) = self.addresses.left.pop() {
            if hub.is_stopping() {
                return;
            }
            let ask = Ask::Join(self.request.clone());
            let answer = hub.transport().ask(&address, &ask, PATIENCE);
            asked.insert(address.clone());
            let (reason, is_over) = match self.next(&address, answer, &asked) {
                Next::LetIn => (None, true),
                Next::Other(reason) => (reason, false),
                Next::Later(reason) => (reason, true),
            };
            self.note(reason);
            if is_over {
                return;
            }
        }
    }

    fn next(
        &mut self,
        address: &str,
        answer: Result<Answer, String>,
        asked: &BTreeSet<String>,
    ) -> Next {
        match answer {
            Ok(Answer::Changed { .. }) => Next::LetIn,
            Ok(Answer::NotLeader(not_leader)) => {
                let Some((id, leader)) = not_leader.leader else {
                    let reason = format!("the node at {address} knows no leader");
                    return Next::Other(Some(reason));
                };
                let leader = self.config.dials(id, &leader);
                self.addresses.leader_is(leader, asked);
                Next::Other(None)
            }
            Ok(Answer::Busy) => Next::Later(None),
            Ok(Answer::Invalid(sentence)) => Next::Later(Some(sentence)),
            Ok(_) => Next::Other(None),
            Err(sentence) => Next::Other(Some(sentence)),
        }
    }

    /// Logs a reason that has not passed after a second, and that is another one than before.
    fn note(&mut self, reason: Option<String>) {
        let Some(reason) = reason.filter(|_| self.pause == LONGEST_PAUSE) else {
            return;
        };
        // How long ago somebody was heard, or how many entries are to come, makes no other reason.
        let mut kind = reason.clone();
        kind.retain(|letter| !letter.is_ascii_digit());
        if self.reasons.len() < MOST && self.reasons.insert(kind) {
            log::warn!("this node is not let in yet: {reason}. It goes on asking");
        }
    }
}

/// Whether a committed configuration has this node with this folder.
fn is_member(raft: &Raft) -> bool {
    let committed = raft.committed_configuration();
    let configuration = &committed.configuration;
    let mut members = configuration.members().iter();
    committed.index > 0 && members.any(|member| configuration.seats(member, raft.member()))
}

/// Says once whom a node without a logged configuration has to wait for.
pub(super) fn explain_waiting(id: NodeId, address: &str) {
    log::info!(
        "this node is in no cluster and asks for nothing: `kvcli member add {id}={address}` lets \
         it in, and `kvcli member replace {id}={address}` gives it the place of a member that lost \
         its data folder"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{MemberRole, RoleName};
    use crate::wire::client::NotLeader;

    fn joiner(join: &[&str]) -> Joiner {
        let mut config = Config::new(4, [], "in memory");
        config.address = Some("d:1".to_string());
        config.join = join.iter().map(ToString::to_string).collect();
        Joiner::of(&config, 44).expect("it asks")
    }

    fn not_leader(leader: Option<&str>) -> Result<Answer, String> {
        Ok(Answer::NotLeader(NotLeader {
            id: 1,
            role: RoleName::Follower,
            term: 3,
            leader: leader.map(|address| (2, address.to_string())),
        }))
    }

    #[test]
    fn the_leader_that_a_node_names_is_asked_next_and_first_in_the_next_round() {
        let mut joiner = joiner(&["a:1", "b:1"]);
        joiner.addresses.begin_round();
        assert_eq!(joiner.addresses.left.pop().as_deref(), Some("a:1"));
        let asked = BTreeSet::from(["a:1".to_string()]);
        let next = joiner.next("a:1", not_leader(Some("c:1")), &asked);
        assert_eq!(next, Next::Other(None));
        assert_eq!(joiner.addresses.left, ["b:1", "c:1"]);
        // Two nodes that take each other for the leader do not keep the joiner going.
        joiner.addresses.left.pop();
        let asked = BTreeSet::from(["a:1".to_string(), "c:1".to_string()]);
        joiner.next("c:1", not_leader(Some("a:1")), &asked);
        assert_eq!(joiner.addresses.left, ["b:1"]);
        joiner.addresses.begin_round();
        assert_eq!(joiner.addresses.left, ["b:1", "c:1", "a:1"]);
    }

    #[test]
    fn a_leader_to_which_this_node_has_a_way_of_its_own_is_asked_there() {
        let mut joiner = joiner(&["a:1"]);
        joiner.config.reach.insert(2, "way:1".to_string());
        let asked = BTreeSet::from(["a:1".to_string()]);
        joiner.next("a:1", not_leader(Some("c:1")), &asked);
        assert_eq!(joiner.addresses.left, ["way:1"]);
    }

    #[test]
    fn a_reason_is_kept_once_if_it_has_not_passed_after_a_while() {
        let mut joiner = joiner(&["a:1"]);
        let note = |joiner: &mut Joiner, heard: usize| {
            joiner.note(Some(format!("node 2 was heard {heard} ms ago")));
            joiner.reasons.len()
        };
        assert_eq!(note(&mut joiner, 40), 0);
        joiner.pause = LONGEST_PAUSE;
        assert_eq!([note(&mut joiner, 40), note(&mut joiner, 90)], [1, 1]);
        for number in 0..3 * MOST {
            joiner.note(Some("x".repeat(number)));
        }
        assert_eq!(joiner.reasons.len(), MOST);
    }

    #[test]
    fn a_founder_asks_the_other_founders_and_only_once_it_knows_that_the_cluster_exists() {
        let members = [(1, "a:1".to_string()), (2, "b:1".to_string())];
        let mut config = Config::new(1, members, "in memory");
        let joiner = Joiner::of(&config, 11).expect("it may have to ask");
        assert!(!joiner.at_once);
        assert_eq!(joiner.addresses.all, ["b:1"]);
        assert_eq!(joiner.request.address, "a:1");
        config.rejoins = false;
        assert!(Joiner::of(&config, 11).is_none());
        config.rejoins = true;
        config.joins_as = MemberRole::Learner;
        let joiner = Joiner::of(&config, 11).expect("it may have to ask");
        assert_eq!(joiner.request.role, MemberRole::Learner);
    }
}
