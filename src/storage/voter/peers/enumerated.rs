//! All that can happen to the folders of a cluster's founders, by going through every state.
//!
//! One founder is looked at closely, the *subject*: which of the others have written its present
//! folder down, and which a former one. Nothing else counts of the others, so two of them in the
//! same situation are the same, and a state keeps them sorted. Whether the others are admitted is
//! not followed: they count whenever the subject in their place might. Nor does anybody ever hear
//! that the cluster exists; who hears it is out of the way.

use std::collections::BTreeSet;

use super::{Grounds, may_witness, welcomes_needed};

/// What a founder other than the subject has on its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// Its first folder, and no configuration of the log.
    Lags,
    /// A configuration of the log; its folder counts.
    Holds,
    /// An empty folder in place of one that held no configuration of the log. It may be admitted.
    BlankAndFree,
    /// An empty folder in place of one that counted. Nobody has come back by the log since.
    Blank,
    /// The same, and somebody has come back since.
    LongBlank,
}

/// Which folder of the subject a founder has written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Book {
    Nothing,
    Present,
    Former,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Other {
    place: Place,
    book: Book,
    /// It has welcomed the subject's present folder, perhaps with a folder that it has lost since.
    has_welcomed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    /// The first configuration of the log is committed.
    is_founded: bool,
    /// Where the subject is. `Blank` and `LongBlank` also if the lost folder was admitted, and so
    /// may have counted before anything was in the log.
    subject: Place,
    others: Vec<Other>,
}

impl Place {
    fn is_blank(self) -> bool {
        matches!(self, Self::BlankAndFree | Self::Blank | Self::LongBlank)
    }

    /// After the loss of a folder, which may have `counted`.
    fn lost(self, counted: bool) -> Self {
        match self {
            Self::Lags | Self::Holds if counted => Self::Blank,
            Self::Lags | Self::Holds => Self::BlankAndFree,
            blank => blank,
        }
    }
}

impl State {
    fn start(size: usize) -> Self {
        let other = Other {
            place: Place::Lags,
            book: Book::Nothing,
            has_welcomed: false,
        };
        Self {
            is_founded: false,
            subject: Place::Lags,
            others: vec![other; size - 1],
        }
    }

    fn size(&self) -> usize {
        self.others.len() + 1
    }

    fn quorum(&self) -> usize {
        self.size() / 2 + 1
    }

    fn is_admitted(&self) -> bool {
        let welcomes = self.others.iter().filter(|other| other.has_welcomed);
        welcomes.count() >= welcomes_needed(self.size())
    }

    fn place(&self, at: usize) -> Place {
        self.others
            .get(at)
            .map_or(self.subject, |other| other.place)
    }

    fn places(&self) -> impl Iterator<Item = Place> {
        let others = self.others.iter().map(|other| other.place);
        others.chain([self.subject])
    }

    fn may_lose_one(&self) -> bool {
        let blank = self.places().filter(|place| place.is_blank());
        blank.count() < (self.size() - 1) / 2
    }

    fn can_commit(&self) -> bool {
        let holding = self.places().filter(|place| *place == Place::Holds);
        self.is_founded && holding.count() >= self.quorum()
    }

    /// The state with another situation of one of the others.
    fn with(&self, at: usize, change: impl FnOnce(&mut Other)) -> Self {
        let mut next = self.clone();
        change(&mut next.others[at]);
        next.others.sort_unstable();
        next
    }

    /// The subject says hello to one of the others, whose rules are the product's.
    fn met(&self, at: usize) -> Option<Self> {
        let other = self.others[at];
        let is_witness = may_witness(Grounds {
            logged_here: other.place == Place::Holds,
            is_founding: true,
            same_founders: true,
        });
        (is_witness && other.book == Book::Nothing).then(|| {
            self.with(at, |other| {
                (other.book, other.has_welcomed) = (Book::Present, true);
            })
        })
    }

    /// One of the others loses its folder, and with it what it has written down.
    fn other_lost(&self, at: usize) -> Option<Self> {
        let place = self.others[at].place;
        (place.is_blank() || self.may_lose_one()).then(|| {
            self.with(at, |other| {
                other.place = place.lost(place == Place::Holds);
                other.book = Book::Nothing;
            })
        })
    }

    fn subject_lost(&self) -> Option<Self> {
        let place = self.subject;
        (place.is_blank() || self.may_lose_one()).then(|| {
            let mut next = self.clone();
            next.subject = place.lost(place == Place::Holds || self.is_admitted());
            for other in &mut next.others {
                other.has_welcomed = false;
                if other.book == Book::Present {
                    other.book = Book::Former;
                }
            }
            next.others.sort_unstable();
            next
        })
    }

    /// All ways in which the first configuration of the log is committed.
    fn founded(&self) -> Vec<Self> {
        let mut all = vec![self.clone()];
        for at in 0..self.size() {
            // Each one holds it or does not.
            let more: Vec<Self> = all.iter().filter_map(|state| state.entered(at)).collect();
            all.extend(more);
        }
        all.iter_mut().for_each(|state| {
            state.is_founded = true;
            state.others.sort_unstable();
        });
        all.retain(Self::can_commit);
        all
    }

    /// A founder gets the log, with its folder in it; the subject is the one behind the others. The
    /// others stay in their order.
    fn entered(&self, at: usize) -> Option<Self> {
        let mut next = self.clone();
        let place = match next.others.get_mut(at) {
            Some(other) => &mut other.place,
            None => &mut next.subject,
        };
        let before = std::mem::replace(place, Place::Holds);
        let is_admitted = at < self.others.len() || self.is_admitted();
        match before {
            Place::Lags if is_admitted => Some(next),
            Place::BlankAndFree if is_admitted => {
                next.somebody_came_back();
                Some(next)
            }
            _ => None,
        }
    }

    fn somebody_came_back(&mut self) {
        let others = self.others.iter_mut().map(|other| &mut other.place);
        for place in others.chain([&mut self.subject]) {
            if *place == Place::Blank {
                *place = Place::LongBlank;
            }
        }
    }

    /// The log lets the present folder of a blank founder take the place of the former one.
    fn came_back(&self, at: usize) -> Option<Self> {
        let mut next = self.clone();
        let place = match next.others.get_mut(at) {
            Some(other) => &mut other.place,
            None => &mut next.subject,
        };
        let is_blank = std::mem::replace(place, Place::Holds).is_blank();
        next.somebody_came_back();
        is_blank.then_some(next)
    }

    fn next(&self) -> Vec<Self> {
        let mut next = Vec::new();
        for at in 0..self.others.len() {
            next.extend(self.met(at));
            next.extend(self.other_lost(at));
        }
        next.extend(self.subject_lost());
        if !self.is_founded {
            next.extend(self.founded());
        }
        for at in (0..self.size()).filter(|_| self.is_founded) {
            let enters = self.entered(at);
            next.extend(enters.filter(|next| next.can_commit() || !self.place(at).is_blank()));
            next.extend(self.came_back(at).filter(|_| self.can_commit()));
        }
        next.iter_mut().for_each(|next| next.others.sort_unstable());
        next
    }

    fn check(&self) {
        let admitted = self.is_admitted();
        // Unless somebody has come back since, no second folder is admitted beside one that
        // counted.
        let is_second = self.subject == Place::Blank && admitted;
        assert!(!is_second, "a second folder is admitted: {self:?}");
        // Who may vote for a candidate that knows no configuration of the log: not the others that
        // are `Blank`, for in their place the subject is not admitted either.
        let votes =
            |place: &Place| matches!(place, Place::Lags | Place::BlankAndFree | Place::LongBlank);
        let others = self.others.iter().map(|other| other.place).filter(votes);
        let votes = others.count() + usize::from(admitted && votes(&self.subject));
        let elects = self.is_founded && votes >= self.quorum();
        assert!(!elects, "founders elect a leader beside the log: {self:?}");
    }
}

/// As the top of `peers.rs` argues, whatever happens in whatever order.
#[test]
fn no_founding_folder_counts_beside_one_in_the_log() {
    for size in 3..=7 {
        let start = State::start(size);
        let mut seen = BTreeSet::from([start.clone()]);
        let mut ahead = vec![start];
        while let Some(state) = ahead.pop() {
            state.check();
            for next in state.next() {
                if seen.insert(next.clone()) {
                    ahead.push(next);
                }
            }
        }
        // The model does not stand still: folders are lost beside C1, and come back.
        let lost = |state: &&State| state.subject == Place::Blank && state.is_founded;
        assert!(seen.iter().filter(lost).any(State::can_commit), "{size}");
        let back = |state: &State| state.subject == Place::Holds && !state.is_admitted();
        assert!(seen.iter().any(back), "{size} nodes");
    }
}
