//! How the leader changes members (thesis 4.1 to 4.3).
//!
//! A change is an entry of the log, and the configuration in it is in force at once. The leader
//! appends one only if the one before it is committed, and an entry of its own term as well (the
//! erratum of 2015): else two leaders could each have a change on a minority, and either one's
//! voters might decide.
//!
//! What a change needs after its first entry does not depend on who asked for it. Each leader looks
//! at the configuration in force and goes on from there, with [`Leader::mind_configuration`]: it
//! leaves a joint configuration that is committed, it seats who has caught up, and it gives up its
//! office when it has no vote any more. So a change goes on whoever fails meanwhile.

use super::Raft;
use super::catch_up::{self, CatchUp};
use super::change::{Change, Changed};
use super::common::Common;
use super::configuration::{Configuration, Member, MemberRole};
use super::event::{ConfigurationEvent, Reason};
use super::leader::Leader;
use super::news::Contact;
use super::progress::{Departing, Progress};
use super::refusal::ChangeError;
use super::role::Role;
use super::types::{Index, MemberId, NodeId, Payload};

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
        // The folders of the founders come first: changes name folders.
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

    /// The voter after the change that is best put into office: one that answers, and of those the
    /// one that has most of the log.
    fn successor(&self, common: &Common, next: &Configuration) -> Option<NodeId> {
        let voters = next.voters().filter(|voter| voter.id != common.id());
        let live = voters.filter(|voter| self.is_live(common, voter));
        let matched = |voter: &&Member| self.progress.get(&voter.id).map(Progress::matched);
        live.max_by_key(matched).map(|voter| voter.id)
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

    /// Follows the members of the configuration in force, and nobody else. Who is a member with the
    /// same folder as before is followed on from where it is. Who has gone is told so for a while.
    pub(super) fn configure(&mut self, common: &Common) {
        let last = common.log.last().index;
        let others = common.others();
        let former = common.log.configurations().former();
        for (id, progress) in &mut self.progress {
            if progress.departing.is_none() && !others.iter().any(|member| member.id == *id) {
                let known = former.and_then(|former| former.configuration.contact(*id));
                progress.departing = Some(Departing {
                    ticks: 0,
                    address: known.map_or(String::new(), |member| member.address.clone()),
                });
            }
        }
        for member in others {
            let progress = self.progress.remove(&member.id);
            let mut progress = match progress.filter(|p| p.is_of(member.folder)) {
                Some(progress) => progress,
                None => Progress::new(member.folder, last),
            };
            (progress.folder, progress.departing) = (member.folder, None);
            match member.role {
                MemberRole::Joining => {
                    let begin = || CatchUp::new(last);
                    progress.catch_up.get_or_insert_with(begin);
                }
                MemberRole::Voter | MemberRole::Learner => progress.catch_up = None,
            }
            self.progress.insert(member.id, progress);
        }
    }

    /// One tick has passed for all that are followed.
    pub(super) fn members_tick(&mut self, common: &mut Common) {
        let election_ticks = common.config.election_ticks;
        let last = common.log.last().index;
        for progress in self.progress.values_mut() {
            progress.silent_ticks = progress.silent_ticks.saturating_add(1);
            if let Some(catch_up) = &mut progress.catch_up {
                catch_up.tick(last, election_ticks);
            }
            if let Some(departing) = &mut progress.departing {
                departing.ticks += 1;
            }
        }
        // Long enough to hear of it, if they hear anything.
        let gone = |p: &Progress| {
            let departing = p.departing.as_ref();
            departing.is_some_and(|departing| departing.ticks > 2 * election_ticks)
        };
        let before = self.progress.len();
        self.progress.retain(|_, progress| !gone(progress));
        common.told.contacts_changed |= self.progress.len() != before;
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

    /// A joining member that has caught up, if there is one.
    fn caught_up(&mut self, common: &mut Common) -> Option<NodeId> {
        let (last, election_ticks) = (common.log.last().index, common.config.election_ticks);
        let mut ready = None;
        for (id, progress) in &mut self.progress {
            let matched = progress.matched();
            let Some(catch_up) = &mut progress.catch_up else {
                continue;
            };
            let id = *id;
            match catch_up.look(matched, last, election_ticks) {
                catch_up::News::None => {}
                catch_up::News::Round(round) => {
                    let behind = last - matched;
                    let event = ConfigurationEvent::Round { id, round, behind };
                    common.configuration_events.push(event);
                }
                catch_up::News::TooSlow => {
                    let event = ConfigurationEvent::TooSlow { id };
                    common.configuration_events.push(event);
                }
            }
            let is_heard = progress.silent_ticks < election_ticks;
            if catch_up.is_ready() && is_heard {
                ready = ready.or(Some(id));
            }
        }
        ready
    }

    /// Those that have left and are told so, with where they are reached.
    pub(super) fn departing(&self) -> impl Iterator<Item = Contact> {
        let all = self.progress.iter();
        all.filter_map(|(id, progress)| {
            let departing = progress.departing.as_ref()?;
            Some(Contact {
                id: *id,
                folder: progress.folder,
                address: departing.address.clone(),
            })
        })
    }

    /// Whether this is one that has left and still has to hear of it: its acknowledgements tell
    /// what it needs next.
    pub(super) fn is_departing(&self, who: MemberId) -> bool {
        let progress = self.progress.get(&who.id);
        progress.is_some_and(|p| p.departing.is_some() && p.folder == Some(who.folder))
    }
}
