//! Looks at a node after each of its steps: runs the checks on its core, and handles a node that
//! has stopped because of a failure.

use raftkv::node::NodeError;
use raftkv::raft::{Fault, RoleName};

use super::Failure;
use super::check::{Folders, Look};
use super::trace::trace;
use super::world::World;

impl World {
    /// Looks at a node's core after something has happened to it.
    pub(super) fn look(&mut self, n: usize) -> Result<(), Failure> {
        let running = self.nodes[n].running.as_ref().expect("it runs");
        let (checks, checked) = (&mut self.checks, running.checked);
        let folders = Folders {
            nodes: &self.nodes,
            lost: &self.lost,
        };
        let (role, term, leader, commit, newest) = running.hub.with_raft(|raft| {
            let before = &running.configuration;
            checks.node(&Look {
                n,
                now: self.now,
                raft,
                checked,
                before,
                folders,
            })?;
            let newest = raft.configuration();
            let newest = (newest != before).then(|| newest.clone());
            let (role, term) = (raft.role(), raft.term());
            Ok((role, term, raft.leader(), raft.commit(), newest))
        })?;
        let running = self.running(n);
        running.checked = commit.max(checked);
        if let Some(newest) = newest {
            running.configuration = newest;
        }
        let before = std::mem::replace(&mut running.seen, (role, term, leader));
        if before != (role, term, leader) {
            trace!(
                self,
                "node {}: {role} in term {term}, leader {leader:?}",
                n + 1
            );
        }
        if role == RoleName::Leader {
            if (before.0, before.1) != (role, term) {
                self.elected(n);
            }
            if commit > checked {
                self.has_committed(n);
            }
        }
        Ok(())
    }

    /// If a node has stopped by itself, its process ends.
    pub(super) fn stopped(&mut self, n: usize) -> Result<(), Failure> {
        if !self.running(n).hub.is_stopping() {
            return Ok(());
        }
        match self.running(n).hub.failure() {
            // Somebody has stopped it, and goes on with it.
            None => Ok(()),
            Some(NodeError::Storage(error)) => self.stops_for(n, &error),
            Some(NodeError::Restore { index, reason }) if self.may_fail_to_install(n, index) => {
                trace!(self, "node {} cannot install {index}: {reason}", n + 1);
                self.stats.disk_failures += 1;
                self.go_down(n);
                Ok(())
            }
            Some(NodeError::Fault(fault @ Fault::AcknowledgedEntriesLost { .. }))
                if self.lacks_a_past(n) =>
            {
                trace!(self, "node {} stops: {fault}", n + 1);
                self.stats.denied += 1;
                self.go_down(n);
                Ok(())
            }
            Some(error @ NodeError::Replaced { .. }) => {
                // No former folder ever comes back here.
                let sentence = format!("node {}: {error}", n + 1);
                Err(Failure::new("only a former folder is replaced", sentence))
            }
            Some(NodeError::Fault(fault)) => {
                let sentence = format!("node {}: {fault}", n + 1);
                Err(Failure::new("no node finds a fault", sentence))
            }
            Some(error) => {
                let sentence = format!("node {}: {error}", n + 1);
                Err(Failure::new("a snapshot can be installed", sentence))
            }
        }
    }
}
