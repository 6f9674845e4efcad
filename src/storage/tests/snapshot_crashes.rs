//! Tests that crash the machine between a snapshot and the change of the log that follows the
//! snapshot.

use proptest::prelude::*;

use super::crashes::stop_everywhere;
use super::story::*;
use super::*;

/// A node with a snapshot of entry 2 and entries up to 5, and what it should recover after a crash.
fn node() -> (SimDisk, Memory) {
    let disk = SimDisk::new(21);
    let (mut storage, _) = open(&disk);
    let mut memory = Memory::default();
    for index in 1..=5 {
        let write = write(1, index, 1, 800);
        storage.write(&write).expect("this disk does not fail");
        memory = memory.after(&write);
    }
    take(&storage.snapshots(), id(1, 2), 300).expect("this disk does not fail");
    (disk, memory)
}

/// Opens the disk, and checks that recovery finds one of the `allowed` states. After one more crash
/// recovery must find the same state, and the node must be able to write.
fn goes_on_from(disk: &SimDisk, allowed: &[Memory]) {
    let (storage, recovered) = open(disk);
    let found = allowed
        .iter()
        .map(|memory| memory.matches(&storage, &recovered));
    let Some(at) = found.clone().position(|found| found.is_ok()) else {
        panic!("{:?}", found.collect::<Vec<_>>());
    };
    let memory = &allowed[at];
    drop(storage);
    let disk = disk.crash();
    let (mut storage, recovered) = open(&disk);
    memory
        .matches(&storage, &recovered)
        .expect("nothing was in memory only");
    let next = write(9, memory.last().index + 1, 1, 700);
    storage.write(&next).expect("this disk does not fail");
    assert_holds(&disk.crash(), &memory.after(&next));
}

#[test]
fn a_crash_while_snapshots_are_taken_and_the_log_is_cut_loses_nothing() {
    let (disk, memory) = node();
    let next = write(1, 6, 1, 800);
    let allowed = [memory.clone(), memory.after(&next)];
    stop_everywhere(
        &disk,
        25,
        |disk| {
            let (mut storage, _) = try_open(disk)?;
            let snapshots = storage.snapshots();
            take(&snapshots, id(1, 4), 300)?;
            storage.cut(snapshots.log_needed_behind())?;
            storage.write(&next)?;
            take(&snapshots, id(1, 5), 300)?;
            storage.cut(snapshots.log_needed_behind()).map(drop)
        },
        |disk| goes_on_from(disk, &allowed),
    );
}

#[test]
fn a_crash_while_old_segments_are_removed_after_further_writes_loses_nothing() {
    let (disk, memory) = node();
    let writes = [write(1, 6, 1, 800), write(1, 7, 1, 800)];
    let once = memory.after(&writes[0]);
    let allowed = [memory.clone(), once.clone(), once.after(&writes[1])];
    stop_everywhere(
        &disk,
        20,
        |disk| {
            let (mut storage, _) = try_open(disk)?;
            let snapshots = storage.snapshots();
            for last in [4, 5] {
                take(&snapshots, id(1, last), 300)?;
            }
            // The courier removes files later than the log lets go of them, and meanwhile the log
            // grows.
            let first = storage.let_go(4);
            assert!(!first.is_empty());
            storage.write(&writes[0])?;
            let second = storage.let_go(5);
            first.remove()?;
            storage.write(&writes[1])?;
            second.remove().map(drop)
        },
        |disk| goes_on_from(disk, &allowed),
    );
}

#[test]
fn term_and_vote_outlive_every_cut_and_every_new_beginning_of_the_log_whenever_a_crash_comes() {
    let (disk, _) = node();
    let (mut storage, _) = open(&disk);
    let voted = Write {
        id: 6,
        hard_state: term(4, Some(3)),
        entries: Vec::new(),
        restart: None,
    };
    storage.write(&voted).expect("this disk does not fail");
    drop(storage);
    let file = file_of(id(3, 50), 300);
    stop_everywhere(
        &disk,
        25,
        |disk| {
            let (mut storage, _) = try_open(disk)?;
            let snapshots = storage.snapshots();
            for index in [4, 5] {
                take(&snapshots, id(1, index), 300)?;
                storage.cut(snapshots.log_needed_behind())?;
            }
            receive(&snapshots, id(3, 50), &file)?;
            let anew = Write {
                id: 7,
                hard_state: None,
                entries: Vec::new(),
                restart: Some(id(3, 50)),
            };
            storage.write(&anew)?;
            storage.cut(snapshots.log_needed_behind()).map(drop)
        },
        |disk| {
            // The second start must find what the first one has repaired.
            for _ in 0..2 {
                let (_, recovered) = open(disk);
                assert_eq!(Some(recovered.hard_state), voted.hard_state);
            }
        },
    );
}

#[test]
fn a_crash_between_a_received_snapshot_and_the_new_log_is_made_up_for() {
    let (disk, memory) = node();
    for (last, term, count) in [
        // The snapshots end far beyond the log's last entry, within the log with another term, at
        // the last entry with another term, and one entry beyond it.
        (id(3, 50), 4, 2),
        (id(3, 4), 3, 1),
        (id(3, 5), 5, 0),
        (id(3, 6), 3, 1),
    ] {
        let file = file_of(last, 300);
        let vote = write(term, 1, 0, 0);
        let next = Write {
            restart: Some(last),
            ..write(term, last.index + 1, count, 900)
        };
        let voted = memory.after(&vote);
        let placed = voted.anew(last);
        let allowed = [memory.clone(), voted, placed.clone(), placed.after(&next)];
        stop_everywhere(
            &disk,
            15,
            |disk| {
                let (mut storage, _) = try_open(disk)?;
                storage.write(&vote)?;
                receive(&storage.snapshots(), last, &file)?;
                storage.write(&next)?;
                storage.cut(0).map(drop)
            },
            |disk| goes_on_from(disk, &allowed),
        );
    }
}

/// The log contains the snapshot's last entry, so the entries after the snapshot's last one must
/// stay.
#[test]
fn a_received_snapshot_that_the_log_contains_leaves_what_follows_it() {
    let (disk, memory) = node();
    let (storage, _) = open(&disk);
    let last = id(1, 4);
    receive(&storage.snapshots(), last, &file_of(last, 300)).expect("it is valid");
    assert_holds(&disk, &memory);
    assert_eq!(open(&disk).1.entries.len(), 1);
}

/// What a node does in one step, before the machine perhaps stops.
#[derive(Clone, Debug)]
enum Act {
    /// Appends entries, which may replace uncommitted entries at the end.
    Write {
        replaced: u64,
        count: u64,
        len: usize,
    },
    /// Takes a snapshot that ends `before` entries before the end of the log.
    Take { before: u64, len: usize },
    /// Removes the part of the log that no snapshot needs.
    Cut,
    /// Receives a snapshot from a leader of the next term, `ahead` entries beyond this node's log,
    /// and starts the log anew after it with `count` entries.
    Receive { ahead: u64, count: u64, len: usize },
}

#[derive(Clone, Debug)]
struct Step {
    act: Act,
    /// After how many operations the machine stops, if at all.
    stop: Option<u64>,
    /// After how many operations of the next start the machine stops again, if at all.
    opening: Option<u64>,
    kill: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let len = || prop_oneof![15 => 1..200usize, 1 => 66_000..67_000usize];
    let act = prop_oneof![
        5 => (0..4u64, 1..4u64, 0..1200usize)
            .prop_map(|(replaced, count, len)| Act::Write { replaced, count, len }),
        2 => (0..5u64, len()).prop_map(|(before, len)| Act::Take { before, len }),
        2 => Just(Act::Cut),
        1 => (1..9u64, 0..3u64, len())
            .prop_map(|(ahead, count, len)| Act::Receive { ahead, count, len }),
    ];
    let stop = prop::option::weighted(0.4, 0..14u64);
    let opening = prop::option::weighted(0.3, 0..12u64);
    (act, stop, opening, any::<bool>()).prop_map(|(act, stop, opening, kill)| Step {
        act,
        stop,
        opening,
        kill,
    })
}

/// A node, and the states that recovery may find if the machine stops now. The last of them is the
/// one to expect if nothing failed.
struct World {
    disk: SimDisk,
    storage: Storage,
    allowed: Vec<Memory>,
    /// Up to which index no leader would replace entries any more, because a snapshot covers them.
    committed: Index,
}

impl World {
    fn memory(&self) -> &Memory {
        self.allowed.last().expect("there is always one")
    }

    fn act(&mut self, act: &Act) -> Result<(), StorageError> {
        let memory = self.memory().clone();
        let snapshots = self.storage.snapshots();
        match *act {
            Act::Write {
                replaced,
                count,
                len,
            } => {
                let last = memory.last().index;
                let first = last - replaced.min(last - self.committed) + 1;
                let term = memory.hard_state.term + u64::from(first <= last);
                let write = write(term.max(1), first, count, len);
                self.allowed.extend(memory.may_become(&write));
                self.storage.write(&write)
            }
            Act::Take { before, len } => {
                let newest = snapshots.newest().map_or(0, |info| info.meta.last.index);
                let index = memory.last().index.saturating_sub(before);
                if index <= newest {
                    return Ok(());
                }
                self.committed = self.committed.max(index);
                take(&snapshots, memory.id_at(index), len).map(drop)
            }
            Act::Cut => self.storage.cut(snapshots.log_needed_behind()).map(drop),
            Act::Receive { ahead, count, len } => {
                let term = memory.hard_state.term + 1;
                let last = id(term, self.committed + ahead);
                let vote = write(term, 1, 0, 0);
                let next = Write {
                    restart: Some(last),
                    ..write(term, last.index + 1, count, 300)
                };
                let voted = memory.after(&vote);
                let placed = voted.anew(last);
                let after = placed.after(&next);
                self.allowed.extend([voted, placed, after]);
                self.committed = last.index;
                self.storage.write(&vote)?;
                receive(&snapshots, last, &file_of(last, len))?;
                self.storage.write(&next)
            }
        }
    }

    /// Stops the machine and starts the node again. Recovery must find one of the allowed states.
    fn come_back(&mut self, step: &Step) -> Result<(), String> {
        let found = |disk: &SimDisk| {
            let disk = if step.kill { disk.fork() } else { disk.crash() };
            disk.heal();
            disk
        };
        let mut disk = found(&self.disk);
        if let Some(operations) = step.opening {
            disk.stop_at(disk.operations() + operations);
            let _ = try_open(&disk);
            disk = found(&disk);
        }
        let (storage, recovered) = try_open(&disk).map_err(|error| error.to_string())?;
        let found = self.allowed.iter().rev();
        let differences = found
            .clone()
            .map(|memory| memory.matches(&storage, &recovered));
        let differences: Vec<_> = differences.collect();
        let at = differences.iter().position(|result| result.is_ok());
        let at = at.ok_or_else(|| format!("{differences:?}"))?;
        self.allowed = vec![found.clone().nth(at).expect("it was found").clone()];
        (self.disk, self.storage) = (disk, storage);
        // A snapshot that was not acknowledged may be gone, so the entries that only it covered may
        // be replaced again.
        self.committed = self.storage.newest_snapshot().index;
        Ok(())
    }
}

proptest! {
    /// Snapshot and log together hold exactly what was acknowledged.
    #[test]
    fn snapshot_and_log_together_are_what_was_acknowledged(
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 1..25),
    ) {
        let disk = SimDisk::new(seed);
        let (storage, _) = open(&disk);
        let mut world = World { disk, storage, allowed: vec![Memory::default()], committed: 0 };
        for step in &steps {
            if let Some(stop) = step.stop {
                world.disk.stop_at(world.disk.operations() + stop);
            }
            let result = world.act(&step.act);
            if result.is_ok() {
                world.allowed = vec![world.memory().clone()];
            }
            if step.stop.is_some() {
                let back = world.come_back(step);
                prop_assert!(back.is_ok(), "{}", back.unwrap_err());
            } else {
                prop_assert!(result.is_ok(), "{}", result.unwrap_err());
            }
        }
    }
}
