//! Who is whose witness, and who is admitted.

use super::*;
use crate::storage::{Identity, Options, SimDisk, Storage};

/// A greeting between two nodes that found the same cluster.
const FOUNDING: Greeted = Greeted {
    logged_here: false,
    same_founders: true,
};

/// What node 1 finds in its folder.
fn peers(disk: &SimDisk) -> Peers {
    let identity = Identity {
        cluster: "test".into(),
        node: 1,
        machine: "a test's".into(),
    };
    let opened = Storage::open(Arc::new(disk.clone()), &identity, Options::default());
    let (storage, _) = opened.expect("this disk does not fail");
    storage.peers().expect("this disk does not fail")
}

/// Node 1 of a cluster with these founders.
fn node(disk: &SimDisk, founders: impl IntoIterator<Item = NodeId>) -> Registrar {
    let peers = peers(disk);
    Registrar::new(Register::new(&peers, founders, Box::new(|| {})), peers)
}

/// All that the node writes now.
fn writes(node: &mut Registrar) -> Vec<Written> {
    let mut all = Vec::new();
    loop {
        match node.write().expect("this disk does not fail") {
            Written::Nothing => return all,
            written => all.push(written),
        }
    }
}

#[test]
fn a_founder_is_a_witness_of_the_first_folder_that_it_meets_once_that_is_written() {
    let mut node = node(&SimDisk::new(1), 1..=3);
    let register = node.register.clone();
    assert_eq!(register.meet(2, 20, FOUNDING), Acquainted::NotYet);
    assert_eq!(register.meet(2, 21, FOUNDING), Acquainted::NotYet);
    assert_eq!(writes(&mut node), [Written::Folder]);
    assert_eq!(register.meet(2, 20, FOUNDING), Acquainted::Known);
    assert_eq!(register.meet(2, 21, FOUNDING), Acquainted::OtherFolder);
}

#[test]
fn a_node_that_is_not_founding_with_the_caller_is_no_witness_even_of_a_folder_that_it_knows() {
    let mut node = node(&SimDisk::new(1), 1..=3);
    let register = node.register.clone();
    register.meet(2, 20, FOUNDING);
    assert_eq!(writes(&mut node), [Written::Folder]);
    let logged = Greeted {
        logged_here: true,
        ..FOUNDING
    };
    let other_list = Greeted {
        same_founders: false,
        ..FOUNDING
    };
    for (peer, greeted) in [
        (2, logged),
        (3, logged),
        (2, other_list),
        (3, other_list),
        (4, FOUNDING),
    ] {
        let found = register.meet(peer, 20, greeted);
        assert_eq!(found, Acquainted::NoWitness, "{peer}: {greeted:?}");
    }
    assert_eq!(writes(&mut node), []);
    // What was in the log may be taken back before it was committed.
    assert_eq!(register.meet(2, 20, FOUNDING), Acquainted::Known);
}

#[test]
fn who_hears_that_the_cluster_exists_without_it_is_never_admitted_and_nobodys_witness() {
    let disk = SimDisk::new(1);
    let mut first = node(&disk, 1..=3);
    let register = first.register.clone();
    assert_eq!(register.meet(2, 20, FOUNDING), Acquainted::NotYet);
    register.welcomed_by(2);
    register.stranger_at(7);
    register.welcomed_by(3);
    assert_eq!(register.meet(2, 20, FOUNDING), Acquainted::NoWitness);
    assert_eq!(writes(&mut first), [Written::FoundsNoMore]);
    assert!(!register.is_founding() && register.is_complete());
    // Nor after a restart, whatever it hears then.
    let mut again = node(&disk.crash(), 1..=3);
    let register = again.register.clone();
    [2, 3].iter().for_each(|peer| register.welcomed_by(*peer));
    assert_eq!(register.meet(2, 20, FOUNDING), Acquainted::NoWitness);
    assert_eq!(writes(&mut again), []);
    assert!(!register.is_admitted() && !register.is_founding());
}

#[test]
fn who_is_admitted_or_is_a_stranger_to_a_founder_only_goes_on_founding() {
    let mut node = node(&SimDisk::new(1), 1..=3);
    let register = node.register.clone();
    register.stranger_at(0);
    assert_eq!(writes(&mut node), []);
    [2, 3].iter().for_each(|peer| register.welcomed_by(*peer));
    assert_eq!(writes(&mut node), [Written::Admission]);
    register.stranger_at(7);
    assert_eq!(writes(&mut node), []);
    assert!(register.is_admitted() && register.is_founding());
}

#[test]
fn welcomes_of_nodes_that_are_no_founders_admit_nobody() {
    let mut node = node(&SimDisk::new(1), 1..=3);
    [2, 4].iter().for_each(|id| node.register.welcomed_by(*id));
    assert_eq!(writes(&mut node), []);
    assert!(!node.register.is_admitted());
}

/// A node that is to join was given no list. The only founder of a cluster needs no witness.
#[test]
fn a_node_without_founders_is_not_admitted_and_a_lone_founder_is() {
    let joins = node(&SimDisk::new(1), []).register;
    assert!(!joins.is_admitted() && !joins.is_founding());
    let founds = node(&SimDisk::new(2), [1]).register;
    assert!(founds.is_admitted() && founds.is_founding());
    let elsewhere = node(&SimDisk::new(3), [2, 3]).register;
    assert!(!elsewhere.is_admitted() && !elsewhere.is_founding());
}

#[test]
fn nothing_more_is_written_once_a_configuration_is_committed_and_the_node_admitted() {
    let mut node = node(&SimDisk::new(1), 1..=4);
    let register = node.register.clone();
    register.settled();
    assert!(!register.is_complete(), "it may be admitted yet");
    [2, 3].iter().for_each(|peer| register.welcomed_by(*peer));
    assert_eq!(writes(&mut node), [Written::Admission]);
    assert!(register.is_complete(), "it waits for node 4");
}
