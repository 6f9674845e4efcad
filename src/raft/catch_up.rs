//! Whether a member that is to become a voter has caught up (thesis 4.2.1).
//!
//! A voter that lacks much of the log keeps the cluster from committing as soon as another voter
//! fails. So a member is first brought up to date in *rounds*: a round ends when it has what the
//! leader had when the round began. The first one may take long, each one after it is shorter, and
//! when one has taken no longer than an election timeout, the member lacks so little that to wait
//! for it costs no more than an election.
//!
//! A member that does not get there in [`ROUNDS`] rounds is too slow at present, and is tried again
//! after a pause. That it is to become a voter stands in the log; here is only how far it is.

use super::types::Index;

/// How many rounds there are before a pause.
const ROUNDS: u32 = 10;

/// How long the pause is, in election timeouts.
const PAUSE: u32 = 10;

#[derive(Debug)]
pub(super) struct CatchUp {
    /// The round that is under way, from 1 to [`ROUNDS`].
    round: u32,
    /// The leader's last index when the round began: the round ends when the member has it.
    target: Index,
    /// Ticks since the round began.
    ticks: u32,
    /// Ticks until it is tried again; 0 unless the member was too slow.
    pause: u32,
    /// Whether the last round was short enough, and the present one has not become too long.
    ready: bool,
}

/// What a look at a member has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing.
    None,
    /// A round begins, after one that took too long.
    Round(u32),
    /// The rounds are used up.
    TooSlow,
}

impl CatchUp {
    /// Begins with the first round: up to what the leader has now.
    pub fn new(last: Index) -> Self {
        Self {
            round: 1,
            target: last,
            ticks: 0,
            pause: 0,
            ready: false,
        }
    }

    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// The round that is under way; none during a pause.
    pub fn round(&self) -> Option<u32> {
        (self.pause == 0).then_some(self.round)
    }

    /// One tick has passed. `last` is the leader's last index.
    pub fn tick(&mut self, last: Index, election_ticks: u32) {
        if self.pause > 0 {
            self.pause -= 1;
            if self.pause == 0 {
                *self = Self::new(last);
            }
            return;
        }
        self.ticks = self.ticks.saturating_add(1);
        self.ready &= self.ticks <= election_ticks;
    }

    /// Looks at how far the member is: it has the log up to `matched`, the leader up to `last`.
    pub fn look(&mut self, matched: Index, last: Index, election_ticks: u32) -> News {
        if self.pause > 0 || matched < self.target {
            return News::None;
        }
        self.ready = self.ticks <= election_ticks;
        (self.target, self.ticks) = (last, 0);
        if self.ready {
            return News::None;
        }
        if self.round == ROUNDS {
            self.pause = PAUSE * election_ticks;
            return News::TooSlow;
        }
        self.round += 1;
        News::Round(self.round)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ELECTION: u32 = 10;

    fn wait(catch_up: &mut CatchUp, ticks: u32, last: Index) {
        (0..ticks).for_each(|_| catch_up.tick(last, ELECTION));
    }

    #[test]
    fn who_has_what_there_was_within_an_election_timeout_is_ready() {
        let mut member = CatchUp::new(100);
        wait(&mut member, 500, 200);
        assert_eq!(member.look(99, 200, ELECTION), News::None);
        assert_eq!(member.look(100, 200, ELECTION), News::Round(2));
        assert!(!member.is_ready());
        wait(&mut member, ELECTION, 205);
        assert_eq!(member.look(200, 205, ELECTION), News::None);
        assert!(member.is_ready());
    }

    #[test]
    fn who_falls_behind_again_is_not_ready_any_more() {
        let mut member = CatchUp::new(100);
        member.look(100, 120, ELECTION);
        assert!(member.is_ready());
        wait(&mut member, ELECTION + 1, 500);
        assert!(!member.is_ready());
    }

    #[test]
    fn who_is_too_slow_ten_times_has_a_pause_and_begins_anew() {
        let mut member = CatchUp::new(1);
        for round in 2..=ROUNDS {
            wait(&mut member, ELECTION + 1, 1);
            assert_eq!(member.look(1, 1, ELECTION), News::Round(round));
        }
        wait(&mut member, ELECTION + 1, 1);
        assert_eq!(member.look(1, 1, ELECTION), News::TooSlow);
        assert_eq!(member.round(), None);
        wait(&mut member, PAUSE * ELECTION - 1, 1);
        assert_eq!(member.look(1, 1, ELECTION), News::None);
        assert!(!member.is_ready());
        wait(&mut member, 1, 7);
        assert_eq!(member.round(), Some(1));
        assert_eq!(member.look(1, 7, ELECTION), News::None);
        assert!(!member.is_ready());
        assert_eq!(member.look(7, 7, ELECTION), News::None);
        assert!(member.is_ready());
    }
}
