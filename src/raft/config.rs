//! The settings of the consensus core.

use super::configuration::Configuration;
use super::types::{FolderId, MemberId, NodeId};

/// The settings of one node. Times are counted in ticks; the caller decides how long a tick is.
#[derive(Clone, Debug)]
pub struct Config {
    /// The id of this node; never 0.
    pub id: NodeId,
    /// The number of this node's data folder.
    pub folder: FolderId,
    /// The members that the cluster is founded with; this node is one of them. They count until a
    /// configuration is in the log. Empty at a node that joins a cluster which exists: it knows no
    /// member yet.
    pub founding: Configuration,
    /// Whether this node's data folder is admitted from the start. If not, the node sends nothing
    /// that a majority could count, neither votes nor acknowledgements, before
    /// [`Raft::admit`](super::Raft::admit): a node whose data folder is new may have lost the votes
    /// and entries of a former folder.
    pub admitted: bool,
    /// The shortest election timeout. Each timeout is drawn from this up to twice this (paper
    /// 5.2); within the shortest one a node that heard from a leader refuses votes (thesis 4.2.3).
    pub election_ticks: u32,
    /// How many ticks lie between two heartbeats of the leader.
    pub heartbeat_ticks: u32,
    /// How many milliseconds of cluster time one tick stands for.
    pub tick_ms: u64,
    /// Seeds the random election timeouts. Nodes must differ in it: with the same timeouts they
    /// would split the votes again and again.
    pub seed: u64,
    /// How many bytes of entries one message carries at the most; one entry is sent however large.
    pub max_append_bytes: usize,
    /// Once this many bytes of entries are on their way to one follower, unacknowledged, no further
    /// message is sent to it. One message may exceed the bound.
    pub max_inflight_bytes: usize,
    /// How many messages with entries may be on their way to one follower, unacknowledged.
    pub max_inflight_messages: usize,
    /// How many bytes of entries the leader may hold uncommitted; beyond that, proposals are
    /// refused.
    pub max_uncommitted_bytes: usize,
    /// How many bytes of entries that a snapshot covers are kept in memory, for followers that lag
    /// a little.
    pub trailing_bytes: usize,
    /// Whether the log in memory keeps the entries that every member has on its disk, until a
    /// snapshot covers them. No member asks for such an entry again, so a node that serves clients
    /// leaves this off and saves the memory; a test that compares logs turns it on.
    pub keeps_matched: bool,
    /// How many bytes of a snapshot one message carries at the most.
    pub snapshot_part_bytes: u64,
    /// How many bytes of a snapshot may be on their way to one follower, unacknowledged.
    pub snapshot_window_bytes: u64,
    /// How many reads may wait for their confirmation; further reads are refused.
    pub max_pending_reads: usize,
}

impl Config {
    /// The settings of a node with the usual timing and limits: a tick of 10 ms, heartbeats every
    /// 50 ms, elections after 250 to 500 ms of silence.
    ///
    /// The folder is the one that `founding` names for the node; if it names none, the caller sets
    /// the right one.
    pub fn new(id: NodeId, founding: Configuration, seed: u64) -> Self {
        let folder = founding.contact(id).and_then(|member| member.folder);
        Self {
            id,
            folder: folder.unwrap_or(MemberId::plain(id).folder),
            founding,
            admitted: true,
            election_ticks: 25,
            heartbeat_ticks: 5,
            tick_ms: 10,
            seed,
            max_append_bytes: 1 << 20,
            max_inflight_bytes: 8 << 20,
            max_inflight_messages: 256,
            max_uncommitted_bytes: 64 << 20,
            trailing_bytes: 8 << 20,
            keeps_matched: false,
            snapshot_part_bytes: 256 << 10,
            snapshot_window_bytes: 1 << 20,
            max_pending_reads: 16_384,
        }
    }

    /// Says what is wrong with the settings, if anything is.
    ///
    /// # Errors
    /// A sentence that names the setting.
    pub fn validate(&self) -> Result<(), String> {
        if !self.founding.is_empty() {
            let wrong =
                |sentence| format!("the list of the cluster's members is wrong: {sentence}");
            self.founding.validate().map_err(wrong)?;
        }
        let rules = [
            (self.id != 0, "the node id must not be 0"),
            (
                self.founding.is_empty() || self.founding.contact(self.id).is_some(),
                "the cluster does not list this node's own id",
            ),
            (
                self.heartbeat_ticks >= 1,
                "heartbeat_ticks must be at least 1",
            ),
            (
                self.election_ticks > 2 * self.heartbeat_ticks,
                "election_ticks must be more than twice heartbeat_ticks, or one lost heartbeat \
                 would depose a leader",
            ),
            (self.tick_ms >= 1, "tick_ms must be at least 1"),
            (
                self.max_append_bytes >= 1,
                "max_append_bytes must be at least 1",
            ),
            (
                self.max_inflight_bytes >= 1,
                "max_inflight_bytes must be at least 1",
            ),
            (
                self.max_inflight_messages >= 1,
                "max_inflight_messages must be at least 1",
            ),
            (
                self.snapshot_part_bytes >= 1 && self.snapshot_window_bytes >= 1,
                "snapshot_part_bytes and snapshot_window_bytes must be at least 1",
            ),
            (
                self.max_uncommitted_bytes >= 1,
                "max_uncommitted_bytes must be at least 1",
            ),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            None => Ok(()),
            Some((_, sentence)) => Err((*sentence).to_string()),
        }
    }
}
