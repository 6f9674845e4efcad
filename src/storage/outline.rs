//! The outline of a log: where it starts and ends, and where each term begins in it.

use crate::raft::{Entry, EntryId, Index, Term};

/// What has to be known of a log to tell whether a write continues it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outline {
    /// The last entry that precedes the log.
    base: EntryId,
    /// The first entry of each term, in ascending order.
    terms: Vec<EntryId>,
    last: EntryId,
}

impl Outline {
    /// An empty log behind the given entry.
    pub(super) fn after(base: EntryId) -> Self {
        Self {
            base,
            terms: Vec::new(),
            last: base,
        }
    }

    /// The last entry, or the one that precedes the log if it has none.
    pub(super) fn last(&self) -> EntryId {
        self.last
    }

    /// Appends the entries, in place of those from the first one's index on. How many entries
    /// before that index remain is what it returns.
    ///
    /// # Errors
    /// A sentence if these entries cannot follow this log. Then nothing has changed.
    pub(super) fn append(&mut self, entries: &[Entry]) -> Result<usize, String> {
        let Some(first) = entries.first() else {
            return Err("there are no entries in it".into());
        };
        let first = first.id.index;
        if first <= self.base.index || first > self.last.index + 1 {
            return Err(format!(
                "its first entry is {first}, and the log goes from {} to {}",
                self.base.index + 1,
                self.last.index
            ));
        }
        let mut previous = EntryId {
            term: self.term_at(first - 1),
            index: first - 1,
        };
        for Entry { id, .. } in entries {
            if id.index != previous.index + 1 || id.term < previous.term {
                return Err(format!("entry {id} cannot follow entry {previous}"));
            }
            previous = *id;
        }
        while self.terms.pop_if(|start| start.index >= first).is_some() {}
        for Entry { id, .. } in entries {
            if self.terms.last().is_none_or(|start| start.term < id.term) {
                self.terms.push(*id);
            }
        }
        self.last = previous;
        Ok((first - 1 - self.base.index) as usize)
    }

    fn term_at(&self, index: Index) -> Term {
        let start = self.terms.iter().rev().find(|start| start.index <= index);
        start.map_or(self.base.term, |start| start.term)
    }
}
