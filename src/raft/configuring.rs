//! How the leader changes members (thesis 4.1 to 4.3).
//!
//! A change is an entry of the log, and the configuration in it is in force at once. The leader
//! appends one only if the one before it is committed, and an entry of its own term as well (the
//! erratum of 2015): else two leaders could each have a change on a minority, and either one's
//! voters might decide.
//!
//! What a change needs after its first entry does not depend on who asked for it. Each leader looks
//! at the configuration in force and goes on from there, with [`Leader::mind_configuration`]: it
//! leaves a joint configuration that is committed, it enters the folders of founders, it seats who
//! has caught up, and it gives up its office when it has no vote any more. So a change goes on
//! whoever fails meanwhile. What it knows of the members for that is in `following.rs`.

use super::Raft;
use super::change::{Change, Changed};
use super::common::Common;
use super::configuration::{Configuration, Member};
use super::event::{ConfigurationEvent, Reason};
use super::leader::Leader;
use super::progress::Progress;
use super::refusal::ChangeError;
use super::role::Role;
use super::types::{Index, NodeId, Payload};

impl Raft {
    /// Changes the members. When this returns, the change is in the leader's log only; whether it
    /// is done shows in [`committed_configuration`](Self::committed_configuration). It may be
    /// repeated: a change that is made already is not made again.
    ///
    /// With `force` it is made even if the voters after it do not answer.
    ///
    /// # Errors
    /// [`ChangeError`]; then nothing was appended.
    pub fn change(&mut self, change: &Change, force: bool) -> Result<Changed, ChangeError> {
        let Role::Leader(leader) = &mut self.role else {
            return Err(ChangeError::NotLeader);
        };
        let changed = leader.change(&mut self.common, change, force);
        self.check();
        changed
    }

    /// Whether [`change`](Self::change) would be made now. For who has to find out something else
    /// first that takes time.
    ///
    /// # Errors
    /// [`ChangeError`] if it would not.
    pub fn may_change(&self, change: &Change, force: bool) -> Result<(), ChangeError> {
        match &self.role {
            Role::Leader(leader) => leader.judge(&self.common, change, force).map(drop),
            _ => Err(ChangeError::NotLeader),
        }
    }
}

/// What a leader is to do for a change.
enum Judged {
    /// Nothing: it is so already.
    Done,
    /// To append this configuration.
    Append(Configuration),
    /// To let this voter lead, which will still be one after the change.
    HandOver(NodeId),
}

impl Leader {
    fn change(
        &mut self,
        common: &mut Common,
        change: &Change,
        force: bool,
    ) -> Result<Changed, ChangeError> {
        // Changes name folders, so those of the founders come first.
        self.settles_now |= common.configuration().is_founding();
        match self.judge(common, change, force)? {
            Judged::Done => Ok(Changed {
                index: common.log.configurations().newest().index,
                is_new: false,
            }),
            Judged::Append(next) => Ok(Changed {
                index: self.append_configuration(common, next),
                is_new: true,
            }),
            Judged::HandOver(to) => {
                self.transfer(common, Some(to));
                let event = ConfigurationEvent::HandingOver { to };
                common.configuration_events.push(event);
                Err(ChangeError::HandingOver { to })
            }
        }
    }

    fn judge(&self, common: &Common, change: &Change, force: bool) -> Result<Judged, ChangeError> {
        let newest = common.log.configurations().newest();
        let now = newest.configuration.left();
        // Judged by what will be when the present change is done, so that a repetition is
        // recognised at any time.
        let next = change.applied_to(&now)?;
        if next == now {
            return Ok(Judged::Done);
        }
        let committed = common.log.committed();
        if self.transfer.is_some() || committed < self.first {
            return Err(ChangeError::Busy);
        }
        let joint = newest.configuration.is_joint();
        if joint || newest.index > committed {
            let index = newest.index;
            return Err(ChangeError::UnderWay { index, joint });
        }
        if now.is_founding() {
            return Err(ChangeError::Busy);
        }
        self.check_replaced(common, change, &now)?;
        if !next.is_joint() {
            return Ok(Judged::Append(next));
        }
        let live = next.voters().filter(|voter| self.is_live(common, voter));
        let (voters, live) = (next.voters().count(), live.count());
        if 2 * live <= voters && !force {
            return Err(ChangeError::NoLiveMajority { voters, live });
        }
        // A leader that is to lose its vote hands over before the change: then the new leader is
        // there at once, and nobody waits for an election timeout. If there is nobody to hand over
        // to, it makes the change and leaves afterwards.
        if !next.left().is_voter(common.me())
            && let Some(to) = self.successor(common, &next)
        {
            return Ok(Judged::HandOver(to));
        }
        Ok(Judged::Append(next))
    }

    /// Refuses that a folder is replaced that still answers: there would be two nodes of one id.
    /// What a new leader does not know yet counts as an answer.
    fn check_replaced(
        &self,
        common: &Common,
        change: &Change,
        now: &Configuration,
    ) -> Result<(), ChangeError> {
        let Change::Replace { id, address, .. } = change else {
            return Ok(());
        };
        let Some(member) = now.contact(*id).filter(|member| member.folder.is_some()) else {
            return Ok(());
        };
        let silent = match now.seats(member, common.me()) {
            true => 0,
            false => self.progress.get(id).map_or(0, |p| p.silent_ticks),
        };
        match silent >= 2 * common.config.election_ticks {
            true => Ok(()),
            false => Err(ChangeError::StillAlive {
                id: *id,
                address: member.address.clone(),
                heard_ms: u64::from(silent) * common.config.tick_ms,
                new_address: address.clone(),
            }),
        }
    }

    /// Whether the member has answered within an election timeout.
    fn is_live(&self, common: &Common, member: &Member) -> bool {
        let is_heard = |p: &Progress| Index::from(p.silent_ticks < common.config.election_ticks);
        self.reached(common, member, 1, is_heard) == 1
    }

    /// The voter after the change that is best put into office: one that answers, and of those one
    /// that did not fail to take over, and then the one that has most of the log.
    fn successor(&self, common: &Common, next: &Configuration) -> Option<NodeId> {
        let voters = next.voters().filter(|voter| voter.id != common.id());
        let live = voters.filter(|voter| self.is_live(common, voter));
        let rank = |voter: &&Member| self.progress.get(&voter.id).map(Progress::as_successor);
        live.max_by_key(rank).map(|voter| voter.id)
    }

    /// Appends a configuration, which is in force from here on, and does what follows from that.
    fn append_configuration(&mut self, common: &mut Common, next: Configuration) -> Index {
        let id = self.append(common, Payload::Configuration(Box::new(next)));
        self.configure(common);
        // A smaller quorum may have been reached already, by entries and by confirmations.
        self.advance_commit(common);
        self.confirm_reads(common);
        id.index
    }

    /// Goes on with what the configuration in force asks for. At most one entry is appended, so
    /// that whatever calls this comes to an end. Returns the follower that this node becomes if it
    /// has no vote any more.
    pub(super) fn mind_configuration(&mut self, common: &mut Common) -> Option<Role> {
        let newest = common.log.configurations().newest();
        // Nothing follows a configuration that may still be replaced, and nothing follows any
        // before this leader knows what its predecessors have committed.
        if common.log.committed() < newest.index.max(self.first) {
            return None;
        }
        let configuration = &newest.configuration;
        if configuration.is_joint() {
            // Both majorities have it, so each later leader has it as well and will do this, if it
            // does not find it done: the configuration in force is stable then.
            let next = configuration.left();
            self.append_configuration(common, next);
            return None;
        }
        if !configuration.is_voter(common.me()) {
            return self.leave_office(common);
        }
        if self.transfer.is_some() {
            return None;
        }
        if let Some(settle) = self.settle(common) {
            // It names no node and needs no address, so nothing can speak against it.
            if let Ok(next) = settle.applied_to(common.configuration()) {
                self.append_configuration(common, next);
            }
            return None;
        }
        let seat = self.caught_up(common).map(Change::Seat);
        if let Some(seat) = seat
            && let Ok(Judged::Append(next)) = self.judge(common, &seat, false)
        {
            self.append_configuration(common, next);
        }
        None
    }

    /// A committed configuration has taken this leader's vote (thesis 4.2.2). It hands over, so
    /// that nobody has to wait for an election timeout, and becomes a follower after one at the
    /// latest.
    fn leave_office(&mut self, common: &mut Common) -> Option<Role> {
        if self.transfer.is_some() {
            return None;
        }
        let is_first_time = !std::mem::replace(&mut self.is_leaving, true);
        if is_first_time && let Some(to) = self.transfer(common, None) {
            let event = ConfigurationEvent::HandingOver { to };
            common.configuration_events.push(event);
            return None;
        }
        self.abandon_reads(common);
        Some(Role::follower(common, Reason::VoteTaken))
    }
}
