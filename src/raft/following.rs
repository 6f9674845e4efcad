//! Whom the leader follows as the configuration changes, and what it waits for: that founders
//! answer, that new members catch up (thesis 4.2.1), that those who have left hear of it.

use std::collections::BTreeMap;

use super::catch_up::{self, CatchUp};
use super::change::Change;
use super::common::Common;
use super::configuration::{Member, MemberRole};
use super::event::ConfigurationEvent;
use super::leader::Leader;
use super::news::Contact;
use super::progress::{Departing, Progress};
use super::types::{FolderId, MemberId, NodeId};

/// How many election timeouts the first leader waits for founders that have not answered it.
///
/// Long enough for one whose machine starts a little later, or starts once more: if its seat is
/// empty, it is missed in the next election, for only a leader can put it there. And not for ever,
/// because a founder that has lost its folder gets no seat before the others are in the log: those
/// that knew the lost folder are no witnesses of the new one. With an election timeout of 250 ms
/// the leader waits for 25 seconds.
const PATIENCE: u32 = 100;

impl Leader {
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

    /// The folders that are to be entered into the log, if it is time for that.
    ///
    /// The first leader of a new cluster enters the folders of the founders that have answered it,
    /// and its own. A folder answers who does not know it only if it is admitted, so each of them
    /// is the one folder of its node that ever counts while the cluster is founded. They are a
    /// quorum, for they have committed this leader's first entry.
    ///
    /// The leader waits for all of them, but not longer than for [`PATIENCE`]: a seat that stays
    /// empty is one voter less, until its admitted folder answers a leader or a change puts another
    /// one there. Before that the cluster goes on as well with any majority of admitted founders.
    /// The leader waits no longer once somebody asks for a change of members, which may be to
    /// replace the very founder that does not answer.
    ///
    /// One plain entry is safe. Before and after it the voters have the same ids, so any quorum of
    /// the one and any of the other share a node, and that node counts in both with the same
    /// folder.
    pub(super) fn settle(&self, common: &mut Common) -> Option<Change> {
        let configuration = common.configuration();
        let is_founding = configuration.is_founding();
        let empty = |member: &&Member| member.folder.is_none();
        let seats: Vec<NodeId> = (configuration.members().iter().filter(empty))
            .map(|member| member.id)
            .collect();
        let folder_of = |id: &NodeId| match *id == common.id() {
            // A leader of a cluster that is founded is admitted, else it would not have stood.
            true => is_founding.then_some(common.me().folder),
            false => self.progress.get(id).and_then(|progress| progress.answered),
        };
        let answered = seats.iter().filter_map(|id| Some((*id, folder_of(id)?)));
        let folders: BTreeMap<NodeId, FolderId> = answered.collect();
        // Nobody is replaced while the cluster is founded, so who has not answered this leader has
        // been silent since its election.
        let patience = PATIENCE.saturating_mul(common.config.election_ticks);
        let is_awaited = |id: &NodeId| {
            let progress = self.progress.get(id);
            progress.is_some_and(|p| p.answered.is_none() && p.silent_ticks < patience)
        };
        let waits = is_founding && !self.settles_now && seats.iter().any(is_awaited);
        let is_due = !folders.is_empty() && !waits;
        is_due.then(|| Change::Settle {
            folders,
            lineage: common.lineage(),
        })
    }

    /// A joining member that has caught up, if there is one.
    pub(super) fn caught_up(&mut self, common: &mut Common) -> Option<NodeId> {
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
