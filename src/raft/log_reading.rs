//! What is read from the log: entries to send or to execute, and where two logs part.

use super::log::Log;
use super::message::Conflict;
use super::types::{Entry, EntryId, Index, Term};

impl Log {
    /// The entries from `from` on, as many as weigh no more than `max_bytes` together, but at least
    /// one if there is any. None after `to`.
    pub fn slice(&self, from: Index, to: Index, max_bytes: usize) -> Vec<Entry> {
        let start = (from.saturating_sub(self.base.index + 1) as usize).min(self.entries.len());
        let mut weight = 0;
        self.entries
            .range(start..)
            .take_while(|entry| {
                let first = weight == 0;
                weight += entry.weight();
                entry.id.index <= to && (first || weight <= max_bytes)
            })
            .cloned()
            .collect()
    }

    /// Where this log departs from the leader's, which has an entry `prev` that this log lacks.
    pub fn conflict_at(&self, prev: EntryId) -> Conflict {
        // Up to `prev` the leader's log has no term above `prev`'s: entries of higher terms differ.
        let possible = self.last_index_up_to_term(prev.term).min(prev.index);
        match self.get(prev.index).filter(|_| possible == prev.index) {
            None => Conflict {
                term: None,
                first_index: possible + 1,
            },
            Some(entry) => {
                let term = entry.id.term;
                let first = self.entries.partition_point(|entry| entry.id.term < term);
                Conflict {
                    term: Some(term),
                    first_index: self.base.index + 1 + first as Index,
                }
            }
        }
    }

    /// The last index of an entry with this term or a lower one; the base's index if there is none.
    pub fn last_index_up_to_term(&self, term: Term) -> Index {
        let count = self.entries.partition_point(|entry| entry.id.term <= term);
        self.base.index + count as Index
    }
}
