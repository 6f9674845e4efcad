//! Which configuration is in force at each index of the log.
//!
//! A configuration counts from the moment at which its entry is in the log, committed or not
//! (thesis 4.1). If it counted only from its commit on, nodes would have to agree on when that was
//! to agree on who counts. So when the entry goes, because another leader's log has something else
//! there, the configuration before it is in force again.
//!
//! The list stands beside the log and not in it: the log drops entries from its front, and the
//! configuration in force must not go with them.
//!
//! Invariants, asserted by [`Configurations::check`]:
//! - there is one configuration at least, and indexes ascend;
//! - the first one is not above what the state machine has been given, so what is executed next,
//!   and whatever a snapshot may stand for, has its configuration here;
//! - each one with an index above 0 is an entry of this log, or was one that a snapshot covers.

use std::collections::VecDeque;

use super::configuration::{Configuration, LoggedConfiguration};
use super::types::{Entry, Index, Payload, SnapshotMeta};

#[derive(Debug)]
pub(super) struct Configurations {
    /// In force is the last one.
    list: VecDeque<LoggedConfiguration>,
    /// What the cluster is founded with, as this node was told.
    founding: Configuration,
    /// How often the list has changed.
    version: u64,
}

impl Configurations {
    /// The configuration that a node starts from: that of its snapshot, or the founding one. The
    /// log's own follow as its entries are [pushed](Self::pushed).
    pub fn found(founding: Configuration, snapshot: Option<&SnapshotMeta>) -> Self {
        let start = snapshot.map(|meta| meta.configuration.clone());
        let mut found = Self {
            list: VecDeque::new(),
            founding,
            version: 0,
        };
        let start = found.or_founding(start.unwrap_or_default());
        found.list.push_back(start);
        found
    }

    /// A founding configuration that a snapshot has carried here was written by a node with another
    /// list of addresses, or by a version that kept none. Who was told what the cluster is founded
    /// with takes that.
    fn or_founding(&self, found: LoggedConfiguration) -> LoggedConfiguration {
        if found.index > 0 || self.founding.is_empty() {
            return found;
        }
        LoggedConfiguration::founding(self.founding.clone())
    }

    /// The configuration in force.
    pub fn newest(&self) -> &LoggedConfiguration {
        self.list.back().expect("there is one at least")
    }

    /// The one before it, while it is known: it is forgotten once entries behind the newest one are
    /// executed.
    pub fn former(&self) -> Option<&LoggedConfiguration> {
        self.list.iter().rev().nth(1)
    }

    /// The one that is in force up to and including the entry at `index`. `None` if that is not
    /// known any more.
    pub fn at(&self, index: Index) -> Option<&LoggedConfiguration> {
        self.list.iter().rev().find(|logged| logged.index <= index)
    }

    /// How often the configurations have changed: who looks at them again only then saves work.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// An entry was added to the log.
    pub fn pushed(&mut self, entry: &Entry) {
        if let Payload::Configuration(configuration) = &entry.payload {
            self.version += 1;
            self.list.push_back(LoggedConfiguration {
                index: entry.id.index,
                configuration: (**configuration).clone(),
            });
        }
    }

    /// The entries from `from` on were dropped from the end of the log. They were not committed, so
    /// one configuration stays at least.
    pub fn truncated(&mut self, from: Index) {
        let before = self.list.len();
        self.list.retain(|logged| logged.index < from);
        self.version += u64::from(self.list.len() != before);
    }

    /// A snapshot took the place of the log up to its last entry. What follows in the log stays if
    /// it `fits`, and with it the configurations that it holds. Otherwise all that was known here
    /// goes, also a configuration with a greater index than the snapshot's: its entry is in no log.
    pub fn installed(&mut self, meta: &SnapshotMeta, fits: bool) {
        let last = meta.last.index;
        self.list.retain(|logged| fits && logged.index > last);
        let start = self.or_founding(meta.configuration.clone());
        self.list.push_front(start);
        self.version += 1;
    }

    /// The state machine has executed the log up to `index`: no snapshot of an earlier state will
    /// be taken.
    pub fn applied(&mut self, index: Index) {
        while self.list.get(1).is_some_and(|next| next.index <= index) {
            self.list.pop_front();
        }
    }

    /// Asserts the invariants at the top of this file.
    pub fn check(&self, applying: Index, last: Index) {
        let in_order = self.list.iter().is_sorted_by(|a, b| a.index < b.index);
        assert!(in_order, "configurations out of order: {:?}", self.list);
        let first = self.list.front().map(|logged| logged.index);
        assert!(
            first.is_some_and(|first| first <= applying),
            "no configuration is known for what is executed next"
        );
        let newest = self.newest().index;
        assert!(newest <= last, "a configuration at {newest}, past the log");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::EntryId;

    fn entry(index: Index) -> Entry {
        Entry {
            id: EntryId { term: 1, index },
            time_ms: 0,
            payload: Payload::Configuration(Box::new(Configuration::of_voters([index]))),
        }
    }

    /// With the configurations at 0, 3, 5 and 9.
    fn some() -> Configurations {
        let mut some = Configurations::found(Configuration::of_voters([1]), None);
        [3, 5, 9]
            .iter()
            .for_each(|index| some.pushed(&entry(*index)));
        some
    }

    fn meta(last: Index, configuration: Index) -> SnapshotMeta {
        SnapshotMeta {
            last: EntryId {
                term: 1,
                index: last,
            },
            time_ms: 0,
            configuration: LoggedConfiguration {
                index: configuration,
                configuration: Configuration::of_voters([configuration]),
            },
        }
    }

    fn indexes(of: &Configurations) -> Vec<Index> {
        of.list.iter().map(|logged| logged.index).collect()
    }

    #[test]
    fn the_last_one_in_the_log_is_in_force_and_the_one_before_it_when_it_goes() {
        let mut some = some();
        assert_eq!(some.newest().index, 9);
        assert_eq!(some.former().map(|former| former.index), Some(5));
        some.truncated(9);
        assert_eq!(some.newest().index, 5);
        some.truncated(2);
        assert_eq!(some.newest().index, 0);
        assert_eq!(some.former(), None);
    }

    #[test]
    fn each_index_has_the_one_that_is_in_force_there() {
        let mut some = some();
        let at = |some: &Configurations, index| some.at(index).map(|logged| logged.index);
        assert_eq!(at(&some, 2), Some(0));
        assert_eq!(at(&some, 3), Some(3));
        assert_eq!(at(&some, 8), Some(5));
        some.applied(5);
        assert_eq!(indexes(&some), [5, 9]);
        assert_eq!(at(&some, 4), None);
        some.applied(8);
        assert_eq!(indexes(&some), [5, 9]);
    }

    #[test]
    fn a_snapshot_takes_the_place_of_what_it_covers() {
        let mut fitting = some();
        fitting.installed(&meta(7, 5), true);
        assert_eq!(indexes(&fitting), [5, 9]);
        let mut other = some();
        other.installed(&meta(7, 4), false);
        assert_eq!(indexes(&other), [4]);
    }

    #[test]
    fn a_founding_one_in_a_snapshot_gives_way_to_what_the_node_was_told() {
        let told = Configuration::founding([(1, "here:1".into())]);
        let found = Configurations::found(told.clone(), Some(&meta(7, 0)));
        assert_eq!(found.newest().configuration, told);
        let joiner = Configurations::found(Configuration::default(), Some(&meta(7, 0)));
        let carried = Configuration::of_voters([0]);
        assert_eq!(joiner.newest().configuration, carried);
    }
}
