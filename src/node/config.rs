//! The settings of a node.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::StartError;
use crate::raft::{self, Configuration, MemberRole, NodeId};

/// The settings of one node.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's id; one of `members`, if there are any.
    pub id: NodeId,
    /// The cluster's name. Nodes and clients of another name are refused.
    pub cluster: String,
    /// The nodes that found the cluster, this one included, each with the address, `host:port`, at
    /// which the others and clients reach it. Empty at a node that comes into a cluster which
    /// exists. As soon as the log has a list of the members, only that one counts.
    pub members: BTreeMap<NodeId, String>,
    /// Where to listen. By default at the node's own address: the one in `members`, else the one
    /// in `address`, else the one that the log has.
    pub listen: Option<String>,
    /// How this node dials other nodes for which the address in `members` does not do, for instance
    /// through a proxy or past an address translation. It counts for this node only: the log and
    /// what clients are told keep the address that `members` has.
    pub reach: BTreeMap<NodeId, String>,
    /// Where the others and clients reach this node, `host:port`, if that is neither its entry in
    /// `members` nor `listen`.
    pub address: Option<String>,
    /// The addresses of nodes of a cluster that this one is to join. They are asked to let it in,
    /// if its log has no list of members.
    pub join: Vec<String>,
    /// What the node becomes when it joins: [`MemberRole::Joining`], so that it votes once it has
    /// caught up, or [`MemberRole::Learner`].
    pub joins_as: MemberRole,
    /// Whether a node with a new data folder asks by itself to be let in. If not, it waits until an
    /// operator changes the members.
    pub rejoins: bool,
    /// The folder that holds all that must survive a crash. It belongs to this node alone.
    pub data: PathBuf,
    /// The times by which leaders are elected; see [`Timing`].
    pub timing: Timing,
    /// The longest time that a request may take. A client that asks for more time gets this much.
    pub max_request_time: Duration,
    /// After how many bytes of log a snapshot is taken; after as many bytes as the last snapshot
    /// has, if that is more. With `None` a snapshot is taken only when somebody asks for one, and
    /// the log grows until then.
    pub snapshot_log_bytes: Option<u64>,
    /// Within what time all of the log and all snapshots are read again and verified. With `None`
    /// they are not.
    pub scrub: Option<Duration>,
    /// How many requests may wait for their end at a time; further ones are refused as busy.
    pub max_waiting: usize,
}

/// The times by which leaders are elected. All nodes should have the same times.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The length of a tick, the unit in which the other times are counted.
    pub tick: Duration,
    /// How long the leader waits from one heartbeat to the next.
    pub heartbeat: Duration,
    /// The shortest election timeout. Each timeout is drawn between this and twice this.
    pub election: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            tick: Duration::from_millis(10),
            heartbeat: Duration::from_millis(50),
            election: Duration::from_millis(250),
        }
    }
}

impl Timing {
    fn validate(&self) -> Result<(), String> {
        let Self {
            tick,
            heartbeat,
            election,
        } = *self;
        if tick < Duration::from_millis(1) || heartbeat < tick {
            return Err(format!(
                "a heartbeat every {heartbeat:?} is too often: choose at least {:?}",
                tick.max(Duration::from_millis(1))
            ));
        }
        if election < 2 * heartbeat + tick {
            return Err(format!(
                "an election timeout of {election:?} is too short for a heartbeat every \
                 {heartbeat:?}: one lost heartbeat would depose a leader. Choose at least {:?}, or \
                 a shorter heartbeat",
                2 * heartbeat + tick
            ));
        }
        Ok(())
    }
}

impl Config {
    /// The usual settings for node `id` of a cluster with these members, in the data folder `data`.
    pub fn new(
        id: NodeId,
        members: impl IntoIterator<Item = (NodeId, String)>,
        data: impl Into<PathBuf>,
    ) -> Self {
        Self {
            id,
            cluster: "raftkv".to_string(),
            members: members.into_iter().collect(),
            listen: None,
            reach: BTreeMap::new(),
            address: None,
            join: Vec::new(),
            joins_as: MemberRole::Joining,
            rejoins: true,
            data: data.into(),
            timing: Timing::default(),
            max_request_time: Duration::from_secs(30),
            snapshot_log_bytes: Some(64 << 20),
            scrub: Some(Duration::from_secs(24 * 60 * 60)),
            max_waiting: 65_536,
        }
    }

    /// The settings of the core that follow from these. `seed` decides the node's election
    /// timeouts. The number of the data folder is not among them: the caller sets it.
    ///
    /// # Errors
    /// [`StartError::Config`] if the settings cannot work.
    pub fn raft(&self, seed: u64) -> Result<raft::Config, StartError> {
        self.timing.validate().map_err(StartError::Config)?;
        self.validate_reach().map_err(StartError::Config)?;
        self.check_told_address().map_err(StartError::Config)?;
        let founding = Configuration::founding(self.members.clone());
        let mut config = raft::Config::new(self.id, founding, seed);
        let tick = self.timing.tick.as_millis().max(1);
        let ticks = |time: Duration| u32::try_from(time.as_millis() / tick).unwrap_or(u32::MAX / 4);
        config.tick_ms = tick as u64;
        config.heartbeat_ticks = ticks(self.timing.heartbeat);
        config.election_ticks = ticks(self.timing.election);
        // A follower that lags by less than this fraction of the log needs no snapshot.
        let trailing = self.snapshot_log_bytes.map_or(u64::MAX, |bytes| bytes / 4);
        let trailing = usize::try_from(trailing).unwrap_or(usize::MAX);
        config.trailing_bytes = config.trailing_bytes.min(trailing);
        config.validate().map_err(StartError::Config)?;
        Ok(config)
    }

    /// Where this node dials a node whose address is `address` for everybody else.
    pub(super) fn dials(&self, id: NodeId, address: &str) -> String {
        let own_way = self.reach.get(&id).map(String::as_str);
        own_way.unwrap_or(address).to_string()
    }

    /// Whom this node dials, and where: the others of `members`.
    pub(super) fn dialled_members(&self) -> Vec<(NodeId, String)> {
        let others = self.members.iter().filter(|(id, _)| **id != self.id);
        let dialled = others.map(|(id, address)| (*id, self.dials(*id, address)));
        dialled.collect()
    }

    /// A node of `reach` that is no member is no mistake: it may become a member later.
    fn validate_reach(&self) -> Result<(), String> {
        match self.reach.contains_key(&self.id) {
            true => Err(format!(
                "the addresses at which to reach other nodes name node {}, which is this node: a \
                 node does not dial itself",
                self.id
            )),
            false => Ok(()),
        }
    }

    /// Nobody can dial the address on which a node listens everywhere.
    fn check_told_address(&self) -> Result<(), String> {
        let told = self.told_address(None).unwrap_or_default();
        let everywhere = ["0.0.0.0:", "[::]:"];
        match everywhere.iter().any(|host| told.starts_with(host)) && !self.join.is_empty() {
            false => Ok(()),
            true => Err(format!(
                "{told} is no address at which other nodes reach this one: name that one as well, \
                 with --address HOST:PORT"
            )),
        }
    }

    /// Where the others are told to reach this node, if its log has it at the address `logged`. The
    /// log comes before the list of the first start, which may be out of date.
    pub(super) fn told_address(&self, logged: Option<String>) -> Option<String> {
        let own = self.members.get(&self.id).or(self.listen.as_ref());
        let told = self.address.clone().or(logged);
        told.or_else(|| own.cloned())
    }

    /// Where this node listens, if its log has it at the address `logged`.
    pub(super) fn listens_at(&self, logged: Option<String>) -> Option<String> {
        let own = self.members.get(&self.id);
        let listens = self.listen.as_ref().or(own).or(self.address.as_ref());
        listens.cloned().or(logged)
    }

    /// A time as a number of ticks, rounded up.
    pub(super) fn ticks(&self, time: Duration) -> u64 {
        let tick = self.timing.tick.as_nanos().max(1);
        u64::try_from(time.as_nanos().div_ceil(tick)).unwrap_or(u64::MAX / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_dials_the_addresses_of_its_own_and_else_those_that_all_have() {
        let members = [(1, "a:1"), (2, "b:1"), (3, "c:1")];
        let mut config = Config::new(1, members.map(|(id, at)| (id, at.to_string())), "data");
        config.reach = BTreeMap::from([(3, "proxy:1".to_string()), (4, "proxy:2".to_string())]);
        let dialled = [(2, "b:1".to_string()), (3, "proxy:1".to_string())];
        assert_eq!(config.dialled_members(), dialled);
        assert_eq!(config.dials(4, "d:1"), "proxy:2", "a member of later");
        let core = config.raft(1).unwrap();
        let addresses = core
            .founding
            .members()
            .iter()
            .map(|member| &*member.address);
        assert_eq!(addresses.collect::<Vec<_>>(), ["a:1", "b:1", "c:1"]);
    }

    #[test]
    fn a_node_that_is_told_how_to_dial_itself_does_not_start() {
        let mut config = Config::new(1, [(1, "a:1".to_string())], "data");
        config.reach = BTreeMap::from([(1, "proxy:1".to_string())]);
        let error = config.raft(1).unwrap_err();
        assert!(
            error.to_string().contains("does not dial itself"),
            "{error}"
        );
    }
}
