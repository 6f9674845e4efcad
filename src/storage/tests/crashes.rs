//! Tests that crash the machine at every operation, with many outcomes on the disk.

use proptest::prelude::*;

use crate::storage::Outcome;

use super::*;

/// How many random outcomes of a crash are tried, besides "all kept" and "all lost".
const OUTCOMES: u64 = 12;

/// The disks that may be found after the machine stopped. The first one is the disk after a crash
/// of the process alone.
pub(super) fn outcomes(disk: &SimDisk) -> Vec<SimDisk> {
    let killed = disk.fork();
    killed.heal();
    let mut outcomes = vec![
        killed,
        disk.crash_with(Outcome::Lost),
        disk.crash_with(Outcome::Kept),
    ];
    outcomes.extend((0..OUTCOMES).map(|_| disk.crash()));
    outcomes
}

/// Stops the machine at each operation of `act` in turn, and passes each outcome to `check`. `act`
/// must have more than `at_least` operations, so that the test cannot pass by doing nothing.
pub(super) fn stop_everywhere(
    disk: &SimDisk,
    at_least: u64,
    act: impl Fn(&SimDisk) -> Result<(), StorageError>,
    check: impl Fn(&SimDisk),
) {
    for step in 0.. {
        let disk = disk.fork();
        disk.stop_at(disk.operations() + step);
        let done = act(&disk).is_ok();
        outcomes(&disk).iter().for_each(&check);
        if done {
            assert!(step >= at_least, "there were only {step} operations");
            return;
        }
    }
}

fn try_write(disk: &SimDisk, write: &Write) -> Result<(), StorageError> {
    try_open(disk)?.0.write(write)
}

/// A disk on which these writes are durable, and what recovery should find on it.
fn disk_with(writes: &[Write]) -> (SimDisk, Memory) {
    let disk = SimDisk::new(5);
    let (mut storage, _) = open(&disk);
    let mut memory = Memory::default();
    for write in writes {
        storage.write(write).expect("this disk does not fail");
        memory = memory.after(write);
    }
    (disk, memory)
}

#[test]
fn a_crash_while_the_folder_is_made_leaves_one_that_can_be_made() {
    stop_everywhere(
        &SimDisk::new(3),
        12,
        |disk| try_open(disk).map(drop),
        |disk| {
            let write = write(1, 1, 2, 50);
            open(disk).0.write(&write).expect("this disk does not fail");
            assert_eq!(recovered(&disk.crash()), Memory::default().after(&write));
        },
    );
}

#[test]
fn a_crash_while_a_tail_is_replaced_leaves_the_old_log_or_the_new_one() {
    let (disk, old) = disk_with(&[write(1, 1, 4, 600), write(1, 5, 3, 100)]);
    let replacement = write(2, 3, 2, 700);
    let allowed = old.may_become(&replacement);
    stop_everywhere(
        &disk,
        8,
        |disk| try_write(disk, &replacement),
        |disk| {
            let found = recovered(disk);
            assert!(allowed.contains(&found), "{found:?}");
        },
    );
}

#[test]
fn a_crash_on_the_way_to_a_new_segment_loses_nothing() {
    let (disk, old) = disk_with(&[write(1, 1, 1, 700), write(1, 2, 1, 700)]);
    let before = segments(&disk).len();
    let next = write(1, 3, 1, 700);
    let allowed = old.may_become(&next);
    stop_everywhere(
        &disk,
        8,
        |disk| try_write(disk, &next),
        |disk| {
            let found = recovered(disk);
            assert!(allowed.contains(&found), "{found:?}");
            // After one more crash the node finds the same, so none of it was in memory only.
            assert_eq!(recovered(&disk.crash()), found);
        },
    );
    let (mut storage, _) = open(&disk);
    storage.write(&next).expect("this disk does not fail");
    assert!(segments(&disk).len() > before, "there was no new segment");
}

#[test]
fn a_vote_that_was_given_is_remembered_and_one_that_was_not_may_be() {
    let vote = |term, id| Write {
        id: term,
        hard_state: Some(HardState {
            term,
            vote: Some(MemberId::plain(id)),
        }),
        entries: Vec::new(),
        restart: None,
    };
    let (disk, old) = disk_with(&[vote(1, 2), vote(4, 1)]);
    let next = vote(5, 3);
    stop_everywhere(
        &disk,
        4,
        |disk| try_write(disk, &next),
        |disk| {
            let found = recovered(disk);
            assert!(old.may_become(&next).contains(&found), "{found:?}");
            let again = recovered(&disk.crash_with(Outcome::Lost));
            assert_eq!(again, found, "a vote that the node went on with is lost");
        },
    );
}

/// If a crash killed only the process, before its sync, recovery may read bytes that are in the
/// kernel's memory only. The node goes on from them, so a power failure afterwards must not lose
/// them.
#[test]
fn what_recovery_has_returned_is_durable_even_if_the_crash_before_it_only_killed_the_process() {
    let (disk, old) = disk_with(&[write(1, 1, 2, 600)]);
    let next = write(2, 3, 3, 600);
    for step in 0..20 {
        let disk = disk.fork();
        let (mut storage, _) = open(&disk);
        disk.stop_at(disk.operations() + step);
        let done = storage.write(&next).is_ok();
        disk.heal();
        let found = recovered(&disk);
        assert!(old.may_become(&next).contains(&found), "{found:?}");
        assert_eq!(recovered(&disk.crash_with(Outcome::Lost)), found, "{step}");
        if done {
            return;
        }
    }
    panic!("the write was never finished");
}

/// After a sync that failed, a file system may return bytes that it never wrote to the disk. A
/// restarted node that only synced such bytes again, with success, would still lose them.
#[test]
fn what_a_failed_sync_left_in_memory_is_written_again_before_it_is_believed() {
    let (disk, old) = disk_with(&[write(1, 1, 2, 300)]);
    let next = write(2, 3, 1, 300);
    let mut believed = 0;
    for step in 0..8 {
        let disk = disk.fork();
        let (mut storage, _) = open(&disk);
        disk.fail_at(disk.operations() + step);
        let failed = storage.write(&next).is_err();
        disk.heal();
        let found = recovered(&disk);
        assert!(old.may_become(&next).contains(&found), "{found:?}");
        assert_eq!(recovered(&disk.crash_with(Outcome::Lost)), found, "{step}");
        believed += u64::from(failed && found == old.after(&next));
    }
    assert!(believed > 0, "no failure left anything to believe");
}

/// If the sync of space for a record failed, a crash may leave a shorter file than the next record
/// needs. So a restarted node has to make the space again.
#[test]
fn space_whose_sync_failed_is_made_again_before_a_record_relies_on_it() {
    let (disk, _) = disk_with(&[]);
    let next = write(1, 1, 1, 300);
    for failing in 0..8 {
        let disk = disk.fork();
        let (mut storage, _) = open(&disk);
        disk.fail_at(disk.operations() + failing);
        let _ = storage.write(&next);
        disk.heal();
        let old = recovered(&disk.fork());
        let next = write(2, old.entries.len() as u64 + 1, 1, 10);
        for step in 0..8 {
            let disk = disk.fork();
            let (mut storage, _) = open(&disk);
            disk.fail_at(disk.operations() + step);
            let _ = storage.write(&next);
            for found in outcomes(&disk).iter().map(recovered) {
                assert!(old.may_become(&next).contains(&found), "{found:?}");
            }
        }
    }
}

/// If the sync of the vote's second copy failed, that copy must be written again at the start. The
/// next change may tear the first copy, and then the second is the only one.
#[test]
fn a_copy_of_the_vote_whose_sync_failed_is_written_again_before_the_other_is_touched() {
    let vote = |term| Write {
        id: term,
        hard_state: Some(HardState { term, vote: None }),
        entries: Vec::new(),
        restart: None,
    };
    let (disk, _) = disk_with(&[vote(1)]);
    let (mut storage, _) = open(&disk);
    let sync_of_second = disk.operations() + 3;
    disk.fail_at(sync_of_second);
    storage.write(&vote(2)).expect_err("its second sync fails");
    let (mut storage, found) = open(&disk);
    assert_eq!(found.hard_state.term, 2);
    disk.stop_at(disk.operations() + 1);
    storage.write(&vote(3)).expect_err("the machine stops");
    for disk in (0..40).map(|_| disk.crash()) {
        let found = recovered(&disk).hard_state.term;
        assert!(found == 2 || found == 3, "term {found}");
    }
}

/// The first copy of the vote is in memory only, and the second is an old one. If the start wrote
/// the second copy first, a power failure could leave neither of them whole.
#[test]
fn a_crash_while_a_vote_is_brought_back_leaves_one_good_copy() {
    let vote = write(5, 1, 0, 0);
    let (disk, old) = disk_with(&[write(1, 1, 1, 10)]);
    let (mut storage, _) = open(&disk);
    disk.stop_at(disk.operations() + 1);
    storage.write(&vote).expect_err("the machine stops");
    disk.heal();
    for step in 0..4 {
        let disk = disk.fork();
        disk.stop_at(disk.operations() + step);
        try_open(&disk).err().expect("the machine stops");
        for disk in (0..100).map(|_| disk.crash()) {
            let found = recovered(&disk);
            assert!(old.may_become(&vote).contains(&found), "{found:?}");
        }
    }
}

/// The torn record has several sectors. A crash may also interrupt the start that cuts the record
/// off, and the start after that.
#[test]
fn a_crash_while_a_torn_tail_is_cut_leaves_one_that_can_be_cut() {
    let (disk, old) = disk_with(&[write(1, 1, 1, 10)]);
    let torn_write = write(1, 2, 1, 1500);
    let (mut storage, _) = open(&disk);
    disk.stop_at(disk.operations() + 3);
    storage
        .write(&torn_write)
        .expect_err("the machine stops before the sync");
    let torn: Vec<SimDisk> = (0..200)
        .map(|_| disk.crash())
        .filter(|disk| open(&disk.fork()).1.notes.len() == 1)
        .collect();
    assert!(torn.len() > 20, "only {} were torn", torn.len());
    for disk in torn.iter().take(40) {
        stop_everywhere(
            disk,
            3,
            |disk| try_open(disk).map(drop),
            |disk| {
                let again = disk.crash();
                assert_eq!(recovered(&again), old);
                // A shorter record takes the place of the torn record, and no byte of the torn
                // record must be left after it.
                let short = write(2, 2, 1, 600);
                open(&again).0.write(&short).expect("this disk is fine");
                let (_, recovered) = open(&again.crash());
                assert_eq!(Memory::from(&recovered), old.after(&short));
                assert_eq!(recovered.notes, Vec::<String>::new());
            },
        );
    }
}

#[test]
fn cutting_a_torn_tail_is_noted_with_file_and_offset() {
    let (disk, old) = disk_with(&[write(1, 1, 1, 10)]);
    let (mut storage, _) = open(&disk);
    let end = 4096 + storage.log_bytes();
    disk.stop_at(disk.operations() + 3);
    let _ = storage.write(&write(1, 2, 1, 1500));
    let notes: Vec<Vec<String>> = (0..20)
        .map(|_| {
            let (_, recovered) = open(&disk.crash());
            recovered.notes
        })
        .collect();
    let note = notes.iter().flatten().next().expect("one of them is torn");
    assert!(note.contains("cut a torn tail of "), "{note}");
    let place = format!("/simulated/log-00000000000000000001:{end}");
    assert!(note.contains(&place), "{note}");
    assert_eq!(old.entries.len(), 1);
}

/// One step of a node's life: a write, perhaps a failure, and a restart.
#[derive(Clone, Debug)]
struct Step {
    /// By how much the node's term goes up in this step.
    terms: u64,
    vote: Option<NodeId>,
    /// How many entries at the end of the log are replaced.
    replaced: u64,
    count: u64,
    len: usize,
    /// After how many operations of the step's write the machine stops, if at all. `opening` is the
    /// same for the operations of the start that follows.
    stop: Option<u64>,
    opening: Option<u64>,
    /// If set, only the operation at `stop` fails, and the machine does not stop.
    fail: bool,
    kill: bool,
}

fn step() -> impl Strategy<Value = Step> {
    (
        0..3u64,
        prop::option::of(1..4u64),
        prop_oneof![3 => Just(0), 1 => 0..6u64],
        0..4u64,
        prop_oneof![4 => 0..80usize, 1 => 300..1200usize],
        prop::option::weighted(0.5, 0..14u64),
        prop::option::weighted(0.3, 0..9u64),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(terms, vote, replaced, count, len, stop, opening, fail, kill)| Step {
                terms,
                vote,
                replaced,
                count,
                len,
                stop,
                opening,
                fail,
                kill,
            },
        )
}

/// The write of this step, by a node that remembers `memory`.
fn next_write(step: &Step, memory: &Memory, id: u64) -> Write {
    let mut hard_state = memory.hard_state;
    if step.terms > 0 {
        hard_state = HardState {
            term: hard_state.term + step.terms,
            vote: step.vote.map(MemberId::plain),
        };
    }
    let last = memory.entries.len() as u64;
    let first = last - step.replaced.min(last) + 1;
    let entries = first..first + step.count;
    Write {
        id,
        hard_state: (hard_state != memory.hard_state).then_some(hard_state),
        entries: entries
            .map(|index| entry(hard_state.term, index, step.len))
            .collect(),
        restart: None,
    }
}

/// The disk after a crash. If the step says so, another crash interrupts a first attempt to open
/// the folder.
fn come_back(disk: &SimDisk, step: &Step) -> SimDisk {
    let found = |disk: &SimDisk| {
        if step.kill {
            disk.heal();
            disk.fork()
        } else {
            disk.crash()
        }
    };
    let disk = found(disk);
    match step.opening {
        None => disk,
        Some(operations) => {
            disk.stop_at(disk.operations() + operations);
            let _ = try_open(&disk);
            found(&disk)
        }
    }
}

proptest! {
    /// After each crash a node remembers what it acknowledged. It may also remember the write that
    /// the crash interrupted, but nothing else.
    #[test]
    fn nothing_acknowledged_is_lost_and_nothing_is_invented(
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 1..25),
    ) {
        let mut disk = SimDisk::new(seed);
        let (mut storage, _) = open(&disk);
        let mut memory = Memory::default();
        for (id, step) in steps.iter().enumerate() {
            let write = next_write(step, &memory, id as u64);
            match step.stop.map(|stop| disk.operations() + stop) {
                Some(operation) if step.fail => disk.fail_at(operation),
                Some(operation) => disk.stop_at(operation),
                None => {}
            }
            let allowed = match storage.write(&write) {
                Ok(()) => vec![memory.after(&write)],
                Err(_) => memory.may_become(&write).to_vec(),
            };
            memory = allowed[0].clone();
            if step.stop.is_some() {
                disk = come_back(&disk, step);
                let (reopened, recovered) = open(&disk);
                storage = reopened;
                memory = Memory::from(&recovered);
                prop_assert!(allowed.contains(&memory), "{memory:?}\nis none of {allowed:?}");
            }
        }
    }
}
