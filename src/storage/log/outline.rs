//! The outline of a log: where the log starts and ends, and at which index each term begins.
//!
//! From the outline alone, without the entries, recovery and the writer can tell whether a write
//! continues the log.

use crate::raft::{Entry, EntryId, Index, Term};

/// A log without its entries. The log's indexes are those above `base.index`, up to `last.index`,
/// with `base.index <= last.index`. Terms never go down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage) struct Outline {
    /// The last entry before the log. Its term is 0 if the records that are left on disk do not
    /// tell the term: see [`append`](Self::append).
    base: EntryId,
    /// Whether segments with the start of the log have been removed. If so, the remaining records
    /// may have entries that replaced entries of the removed segments.
    cut: bool,
    /// The first entry of each term in the log, in ascending order. From these the term at any
    /// index is known.
    terms: Vec<EntryId>,
    /// The last entry of the log; `base` if the log is empty.
    last: EntryId,
}

impl Outline {
    /// The outline of an empty log whose first entry will be the one after `base`.
    pub(super) fn after(base: EntryId) -> Self {
        Self {
            base,
            cut: false,
            terms: Vec::new(),
            last: base,
        }
    }

    /// The outline of a log whose earlier segments have been removed, before any record of the
    /// remaining segments is added. `previous` was the log's last entry when the first remaining
    /// segment was begun. The first records of that segment may replace `previous` and entries
    /// before it.
    pub(super) fn cut_behind(previous: EntryId) -> Self {
        Self {
            cut: previous.index > 0,
            ..Self::after(previous)
        }
    }

    /// The last entry before the log. Its term is 0 if the records that are left on disk do not
    /// tell the term.
    pub(in crate::storage) fn base(&self) -> EntryId {
        self.base
    }

    /// Whether the log continues a snapshot whose last entry is `id`: the log holds this very
    /// entry, or its first entry is the next one. False if the index lies before the start of the
    /// log or beyond its end. If the log does not know the term at that index, the next term in the
    /// log decides: it must not be lower, because terms never go down.
    pub(in crate::storage) fn agrees(&self, id: EntryId) -> bool {
        let next = self.terms.iter().find(|start| start.index > id.index);
        match self.term_at(id.index) {
            _ if id.index < self.base.index || id.index > self.last.index => false,
            0 if id.index > 0 => next.is_none_or(|next| next.term >= id.term),
            term => term == id.term,
        }
    }

    /// Makes the outline start after the entry `id`, by removing all entries up to it. The log must
    /// [agree](Self::agrees) with this entry.
    pub(in crate::storage) fn start_behind(&mut self, id: EntryId) {
        self.terms.retain(|start| start.index > id.index);
        (self.base, self.cut) = (id, false);
        if self.last.index == id.index {
            self.last = id;
        }
    }

    /// The last entry of the log, or the entry before the log if the log is empty.
    pub(in crate::storage) fn last(&self) -> EntryId {
        self.last
    }

    /// Appends entries to the outline; they replace the log from the index of the first one on.
    /// Returns how many entries of the log remain before that index.
    ///
    /// If the start of the log was cut, the first entry may have an index at or below the base,
    /// because it replaces entries of the removed part. Then the log starts right before that
    /// index, with a base whose term is unknown.
    ///
    /// # Errors
    /// A sentence if the entries cannot follow this log, because there would be a gap or a term
    /// would go down. The outline is unchanged then.
    pub(super) fn append(&mut self, entries: &[Entry]) -> Result<usize, String> {
        let Some(first) = entries.first() else {
            return Err("there are no entries in it".into());
        };
        let first = first.id.index;
        let base = match self.cut && (1..=self.base.index).contains(&first) {
            true => EntryId {
                term: 0,
                index: first - 1,
            },
            false => self.base,
        };
        if first <= base.index || first > self.last.index + 1 {
            return Err(format!(
                "its first entry is {first}, and the log goes from {} to {}",
                base.index + 1,
                self.last.index
            ));
        }
        let mut previous = EntryId {
            term: if first - 1 == base.index {
                base.term
            } else {
                self.term_at(first - 1)
            },
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
        (self.base, self.last) = (base, previous);
        Ok((first - 1 - self.base.index) as usize)
    }

    fn term_at(&self, index: Index) -> Term {
        let start = self.terms.iter().rev().find(|start| start.index <= index);
        start.map_or(self.base.term, |start| start.term)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::raft::Payload;

    fn entries(first: Index, terms: &[Term]) -> Vec<Entry> {
        let ids = (first..).zip(terms);
        let ids = ids.map(|(index, term)| EntryId { term: *term, index });
        ids.map(|id| Entry {
            id,
            time_ms: 0,
            payload: Payload::Empty,
        })
        .collect()
    }

    #[test]
    fn a_log_behind_a_base_continues_it_and_does_not_reach_below_it() {
        let mut outline = Outline::after(EntryId { term: 3, index: 7 });
        assert!(outline.append(&entries(7, &[3])).is_err());
        assert!(outline.append(&entries(9, &[3])).is_err());
        assert!(outline.append(&entries(8, &[2])).is_err());
        assert!(outline.append(&[]).is_err());
        assert_eq!(outline.append(&entries(8, &[3, 3, 4])), Ok(0));
        assert_eq!(outline.append(&entries(10, &[5])), Ok(2));
        assert_eq!(outline.last(), EntryId { term: 5, index: 10 });
    }

    #[test]
    fn what_replaces_a_part_that_was_cut_off_moves_the_start_to_an_unknown_term() {
        let mut outline = Outline::cut_behind(EntryId { term: 3, index: 7 });
        assert!(outline.append(&entries(0, &[3])).is_err());
        assert!(outline.append(&entries(9, &[3])).is_err());
        assert_eq!(outline.append(&entries(5, &[4, 4, 4, 4])), Ok(0));
        assert_eq!(outline.base(), EntryId { term: 0, index: 4 });
        assert_eq!(outline.append(&entries(8, &[6])), Ok(3));
        for (term, index, agrees) in [
            (3, 4, true),
            // The entry after index 4 is of term 4, so a snapshot whose last entry is of term 5
            // cannot end at index 4.
            (5, 4, false),
            (4, 7, true),
            (3, 7, false),
            (6, 8, true),
            (6, 9, false),
            (3, 3, false),
        ] {
            let id = EntryId { term, index };
            assert_eq!(outline.agrees(id), agrees, "{id}");
        }
        outline.start_behind(EntryId { term: 4, index: 6 });
        assert!(outline.append(&entries(6, &[6])).is_err());
        assert!(outline.append(&entries(7, &[3])).is_err());
        assert_eq!(outline.append(&entries(7, &[4])), Ok(0));
        assert_eq!(outline.last(), EntryId { term: 4, index: 7 });
    }

    proptest! {
        /// Compares the outline with a plain list of the terms of all entries.
        #[test]
        fn an_outline_accepts_what_a_whole_log_would(
            writes in prop::collection::vec(
                (0..12u64, prop::collection::vec(1..6u64, 1..4)), 1..20),
        ) {
            let mut outline = Outline::after(EntryId::ZERO);
            let mut terms: Vec<Term> = Vec::new();
            for (first, new) in writes {
                let kept = first.checked_sub(1).and_then(|kept| terms.get(..kept as usize));
                let continued = kept.map(|kept| [kept, &new[..]].concat());
                let continued = continued.filter(|terms| terms.is_sorted());
                let result = outline.append(&entries(first, &new));
                prop_assert_eq!(result.is_ok(), continued.is_some(), "{:?}", result);
                if let Some(continued) = continued {
                    prop_assert_eq!(result, Ok(first as usize - 1));
                    terms = continued;
                }
                let last = EntryId {
                    term: terms.last().copied().unwrap_or(0),
                    index: terms.len() as Index,
                };
                prop_assert_eq!(outline.last(), last);
            }
        }
    }
}
