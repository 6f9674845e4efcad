//! Tests of clusters of one that are made from the folder of a survivor, with crashes in between.

use std::io;

use crate::raft::{LoggedConfiguration, Member, MemberRole};
use crate::storage::{
    DamagedFolder, Parent, RealDisk, Recovery, Survivor, finish_recovery, finish_recovery_in,
};

use super::crashes::stop_everywhere;
use super::repairs::{NAME, contents, lived, number, of};
use super::story::*;
use super::*;

const ASIDE: &str = "1.before-recover";
/// The length of the state, in bytes.
const STATE: usize = 2_000;
const ADDRESS: &str = "host:7001";

fn find(disk: &SimDisk) -> Result<Survivor, StorageError> {
    Survivor::find_in(Arc::new(disk.clone()), NAME, small())
}

/// What `kvnode recover` does, with a state that the last entry determines.
fn recover(disk: &SimDisk) -> Result<Option<Recovery>, StorageError> {
    if finish_recovery_in(Arc::new(disk.clone()), NAME)? {
        return Ok(None);
    }
    let survivor = find(disk)?;
    let state = state(survivor.last(), STATE);
    let done = survivor.recover(ADDRESS, |out| out.write_all(&state))?;
    Ok(Some(done))
}

/// Checks that the folder is that of a cluster of one, which goes on behind the survivor's log.
#[track_caller]
fn assert_alone(disk: &SimDisk, former: u128) {
    let (storage, recovered) = open(&of(disk, NAME));
    let last = id(4, 8);
    let folder = storage.own_folder();
    assert_ne!(folder, former);
    assert_eq!((recovered.base, recovered.entries), (last, vec![]));
    let (term, vote) = (5, None);
    assert_eq!(recovered.hard_state, HardState { term, vote });
    let info = recovered.snapshot.expect("it has the state");
    let LoggedConfiguration {
        index,
        configuration,
    } = info.meta.configuration;
    let alone = Member {
        id: 1,
        folder: Some(folder),
        address: ADDRESS.into(),
        role: MemberRole::Voter,
    };
    assert_eq!((index, configuration.members()), (8, &[alone][..]));
    assert!(!configuration.is_founding() && configuration.lineage() != 1);
    assert_eq!(info.meta.time_ms, 80, "the cluster's time goes back");
    let found = read(&storage.snapshots(), last).expect("it is whole");
    assert!(found == state(last, STATE), "it is another state");
    assert!(!storage.peers().expect("a good disk").is_founding());
}

#[test]
fn a_survivor_says_what_it_has_and_becomes_a_cluster_of_one() {
    let disk = lived();
    let former = number(&of(&disk, NAME)).expect("it is sound");
    let before = contents(&of(&disk, NAME));
    let survivor = find(&disk).expect("it is sound");
    assert_eq!((survivor.folder(), survivor.last()), (former, id(4, 8)));
    let certain = survivor.snapshot().map(|info| info.meta.last);
    assert_eq!(certain, Some(id(2, 5)));
    assert_eq!(survivor.entries().len(), 3);
    assert!(contents(&of(&disk, NAME)) == before, "it was only asked");
    let done = recover(&disk).expect("a good disk").expect("it is done");
    assert!(done.aside.ends_with(ASIDE), "{:?}", done.aside);
    assert!(contents(&of(&disk, ASIDE)) == before);
    assert_alone(&disk, former);
    // Once more: the first folder stays.
    let second = recover(&disk).expect("a good disk").expect("it is done");
    assert!(second.aside.ends_with("1.before-recover-2"));
    assert!(contents(&of(&disk, ASIDE)) == before);
}

#[test]
fn whatever_step_of_a_recovery_a_crash_interrupts_the_node_is_the_former_one_or_waits_or_is_alone()
{
    let disk = lived();
    let former = number(&of(&disk, NAME)).expect("it is sound");
    let before = contents(&of(&disk, NAME));
    let there = |disk: &SimDisk| disk.folder_named(NAME);
    stop_everywhere(
        &disk,
        40,
        |disk| recover(disk).map(drop),
        |disk| {
            match there(disk) {
                Some(folder) if number(&folder) == Some(former) => {
                    assert!(contents(&folder) == before, "it is no longer what it was");
                }
                Some(_) => assert_alone(disk, former),
                None => {
                    let refused = Parent::open(disk, NAME).err();
                    let sentence = refused
                        .expect("a node would begin with nothing")
                        .to_string();
                    assert!(sentence.contains("Repeat `kvnode recover`"), "{sentence}");
                }
            }
            // The operator repeats the command, until the folder is another one.
            let next = disk.fork();
            next.stop_at(next.operations() + 5);
            drop(recover(&next));
            for disk in [disk.clone(), next.crash()] {
                repeat(&disk, former);
                assert_alone(&disk, former);
                // After a kill the last name may not be durable yet.
                let disk = disk.crash();
                repeat(&disk, former);
                assert_alone(&disk, former);
                assert!(contents(&of(&disk, ASIDE)) == before, "it was not kept");
                assert!(disk.folder_named("1.before-recover-2").is_none());
            }
        },
    );
}

/// The command again, if the folder is still the former one, or is not there.
#[track_caller]
fn repeat(disk: &SimDisk, former: u128) {
    let folder = disk.folder_named(NAME);
    if folder.is_none_or(|folder| number(&folder) == Some(former)) {
        recover(disk).expect("this disk does not fail");
    }
}

#[test]
fn a_damaged_vote_is_no_hindrance_and_a_damaged_log_is() {
    let disk = lived();
    of(&disk, NAME).take_away("vote");
    assert_eq!(find(&disk).expect("nobody needs it").last(), id(4, 8));
    of(&disk, NAME).flip_bit("log-00000000000000000001", 4096 + 20, 3);
    let refused = find(&disk).err().expect("it is not known what is missing");
    assert!(matches!(refused, StorageError::Damaged { .. }), "{refused}");
}

#[test]
fn a_state_that_cannot_be_written_leaves_the_folder_as_it_is() {
    let disk = lived();
    let before = contents(&of(&disk, NAME));
    let survivor = find(&disk).expect("it is sound");
    let failed = survivor.recover(ADDRESS, |_| Err(io::Error::other("no state")));
    let sentence = failed.expect_err("it failed").to_string();
    assert!(sentence.contains("no state"), "{sentence}");
    assert!(contents(&of(&disk, NAME)) == before);
    assert!(disk.folder_named(ASIDE).is_none());
}

#[test]
fn an_empty_folder_and_one_in_use_and_a_missing_one_are_not_recovered() {
    let above = tempfile::tempdir().expect("a temporary folder");
    let path = above.path().join("1");
    let missing = Survivor::find(&path)
        .err()
        .expect("it is missing")
        .to_string();
    assert!(missing.contains("open the data folder"), "{missing}");
    let disk = Arc::new(RealDisk::open(&path).expect("it is nobody's"));
    let (mut storage, _) = Storage::open(disk, &identity(), small()).expect("a good disk");
    let locked = Survivor::find(&path).err();
    assert!(
        matches!(locked, Some(StorageError::Locked { .. })),
        "{locked:?}"
    );
    storage.write(&write(1, 1, 1, 10)).expect("a good disk");
    drop(storage);
    let survivor = Survivor::find(&path).expect("it has an entry");
    // Nobody starts a node on it between the question and the answer.
    let refused = RealDisk::open(&path).err();
    assert!(
        matches!(refused, Some(StorageError::Locked { .. })),
        "{refused:?}"
    );
    drop(survivor);
    let empty = above.path().join("2");
    let disk = Arc::new(RealDisk::open(&empty).expect("it is nobody's"));
    drop(Storage::open(disk, &identity(), small()).expect("a good disk"));
    let refused = Survivor::find(&empty)
        .err()
        .expect("it is empty")
        .to_string();
    assert!(refused.contains("nothing to recover"), "{refused}");
}

#[test]
fn a_node_does_not_start_with_nothing_where_a_recovery_was_interrupted() {
    let above = tempfile::tempdir().expect("a temporary folder");
    let (path, half) = (above.path().join("1"), above.path().join("1.recovered"));
    std::fs::create_dir(&half).expect("it can be made");
    let refused = RealDisk::open(&path)
        .expect_err("it would begin with nothing")
        .to_string();
    assert!(refused.contains("1.recovered cannot be used"), "{refused}");
    assert!(DamagedFolder::find(&path, &identity()).is_err());
    assert!(finish_recovery(&path).expect("it can be renamed"));
    assert!(path.is_dir() && !half.exists());
    assert!(!finish_recovery(&path).expect("nothing is to be done"));
}
