//! The status of a node, as clients get it.

use super::announcing::list_of;
use super::hub::Hub;
use super::sync;
use crate::machine::StateMachine;
use crate::wire::client::Status;

impl<S: StateMachine> Hub<S> {
    /// The node's status at present.
    pub(super) fn status(&self) -> Status {
        let gauges = self.execution.gauges();
        let stages = self.stages.lately();
        let replica = self.replica();
        let raft = replica.raft();
        // Read under the replica's lock: when the replica says that no snapshot is pending, the one
        // that was taken must be seen here.
        let newest = self.files.snapshots.newest();
        let sending = raft.snapshots_sending().into_iter();
        let sending = sending.map(|(to, received, snapshot)| (to, received, snapshot.bytes));
        let committed = raft.committed_configuration();
        let configuration = &committed.configuration;
        let learners = configuration.contacts();
        let learners = learners.filter(|member| !configuration.counts(member));
        Status {
            id: self.config.id,
            cluster: self.config.cluster.clone(),
            role: raft.role(),
            term: raft.term(),
            leader: raft.leader(),
            members: list_of(committed).members,
            learners: learners.map(|member| member.id).collect(),
            active: raft.active(),
            commit: raft.commit(),
            applied: raft.applied_index(),
            last_index: raft.last().index,
            first_index: raft.first_index(),
            log_bytes: self.files.log_bytes(),
            snapshot_index: newest.as_ref().map_or(0, |info| info.meta.last.index),
            snapshot_bytes: newest.as_ref().map_or(0, |info| info.bytes),
            snapshot_age_ms: (newest.as_ref()).map_or(0, |info| self.files.snapshots.age_ms(info)),
            sending: sending.collect(),
            uptime_ms: u64::try_from((sync::now() - self.started).as_millis()).unwrap_or(u64::MAX),
            gauges: gauges
                .into_iter()
                .map(|(name, value)| (name.to_string(), value))
                .collect(),
            snapshot_pending: replica.snapshot_pending(),
            snapshot_written: match replica.snapshot_pending() {
                true => self.files.snapshots.written(),
                false => 0,
            },
            stages,
            disk: (self.files).disk_status(replica.write_ticks().saturating_mul(raft.tick_ms())),
        }
    }
}
