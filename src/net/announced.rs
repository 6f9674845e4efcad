//! What a node says of itself and of its cluster: to the peers that it dials, and to its clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::raft::Index;
use crate::wire::members::MemberList;

/// What a node announces. The node sets it, from any thread; its connections read it.
///
/// Nothing here goes back: an older list never takes the place of a newer one, whichever thread
/// comes last, and a node that does not found its cluster any more never says again that it does.
pub struct Announced {
    /// The index of the list. Each answer to a client reads this number; only an answer that has to
    /// carry the list reads more.
    newest: AtomicU64,
    state: RwLock<State>,
}

struct State {
    list: Arc<MemberList>,
    founding: u64,
    address: Option<String>,
}

impl Announced {
    /// Announces no members, and that the node founds its cluster with ids of this digest; 0 if it
    /// founds none.
    pub fn new(founding: u64) -> Self {
        let list = MemberList {
            index: 0,
            lineage: 0,
            members: Vec::new(),
        };
        Self {
            newest: AtomicU64::new(0),
            state: RwLock::new(State {
                list: Arc::new(list),
                founding,
                address: None,
            }),
        }
    }

    /// Announces that the node is reached at another address than it was told at its start.
    pub fn reached_at(&self, address: &str) {
        self.state.write().address = Some(address.to_string());
    }

    /// Where the node is reached, if that is another address than at its start.
    pub(super) fn address(&self) -> Option<String> {
        self.state.read().address.clone()
    }

    /// Announces the members of the newest committed configuration: clients get the list with their
    /// next answer, and peers learn its index and lineage when they are dialled. A list that is
    /// older than the announced one is dropped.
    pub fn announce(&self, list: MemberList) {
        let mut state = self.state.write();
        if list.index < state.list.index {
            return;
        }
        if list.index > 0 {
            state.founding = 0;
        }
        // The list is in its place before the number says so, because both change under the lock
        // that a reader of the list takes.
        self.newest.store(list.index, Ordering::Relaxed);
        state.list = Arc::new(list);
    }

    /// Announces from now on that the node founds no cluster.
    pub fn found_no_more(&self) {
        self.state.write().founding = 0;
    }

    /// The index of the announced list; 0 if it is the one that the cluster is founded with.
    pub(super) fn newest(&self) -> Index {
        self.newest.load(Ordering::Relaxed)
    }

    /// The announced list.
    pub fn list(&self) -> Arc<MemberList> {
        self.state.read().list.clone()
    }

    /// The digest of the ids with which the node founds its cluster; 0 if it founds none.
    pub fn founding(&self) -> u64 {
        self.state.read().founding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(index: Index) -> MemberList {
        MemberList {
            index,
            lineage: 7,
            members: Vec::new(),
        }
    }

    #[test]
    fn an_older_list_does_not_take_the_place_of_a_newer_one() {
        let announced = Announced::new(5);
        announced.announce(list(0));
        assert_eq!((announced.newest(), announced.founding()), (0, 5));
        announced.announce(list(9));
        announced.announce(list(4));
        assert_eq!((announced.newest(), announced.list().index), (9, 9));
        assert_eq!(announced.founding(), 0, "the cluster is founded");
    }
}
