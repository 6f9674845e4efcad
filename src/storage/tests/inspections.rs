//! Tests that report what a folder holds, without changing it.

use crate::storage::{
    Disk, InspectedCommand, Inspection, Judge, ReadOnlyDisk, RealDisk, inspect, inspect_with,
};

use super::story::*;
use super::*;

/// Inspects a disk, and checks that this changes nothing.
#[track_caller]
fn look(disk: &SimDisk) -> Inspection {
    let before = disk.operations();
    let inspection = inspect(Arc::new(disk.clone())).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(disk.operations(), before, "the folder was changed");
    inspection
}

/// A node with the entries 1 to 9, two in each segment, and snapshots of the entries 3 and 6. The
/// first segment is cut off.
fn node() -> SimDisk {
    let disk = SimDisk::new(41);
    let (mut storage, _) = open(&disk);
    for index in 1..=9 {
        let write = write(3, index, 1, 800);
        storage.write(&write).expect("this disk does not fail");
    }
    for last in [3, 6] {
        take(&storage.snapshots(), id(3, last), 500).expect("this disk does not fail");
    }
    storage.cut(3).expect("this disk does not fail");
    disk
}

#[test]
fn a_folder_tells_what_it_holds() {
    let disk = node();
    let inspection = look(&disk);
    assert_eq!(inspection.identity, identity());
    assert_eq!(inspection.hard_state, term(3, None));
    let segments = inspection.segments.iter().map(|segment| {
        assert!(segment.record_bytes > segment.records * 800);
        (segment.name.clone(), segment.entries.clone())
    });
    let name = |number| format!("log-{number:020}");
    let expected = [
        (name(2), Some(3..=4)),
        (name(3), Some(5..=6)),
        (name(4), Some(7..=8)),
        (name(5), Some(9..=9)),
    ];
    assert_eq!(segments.collect::<Vec<_>>(), expected);
    let snapshots = inspection.snapshots.iter().map(|snapshot| {
        let info = snapshot.info.as_ref();
        info.map(|info| (info.meta.last, info.bytes))
    });
    let expected = [Some((id(3, 3), 8704)), Some((id(3, 6), 8704))];
    assert_eq!(snapshots.collect::<Vec<_>>(), expected);
    assert_eq!(inspection.start, Some((id(3, 6), id(3, 9))));
    assert_eq!(inspection.damage, Vec::<String>::new());
    assert_eq!(inspection.notes, Vec::<String>::new());
}

#[test]
fn commands_that_cannot_be_executed_are_shown_but_not_those_that_are_gone() {
    let disk = node();
    let (mut storage, _) = open(&disk);
    let known = Payload::Command("known".into());
    let bad = |text: &'static str| Payload::Command(text.into());
    let entry = |index, payload| Entry {
        id: id(3, index),
        time_ms: index,
        payload,
    };
    let all = [known, bad("bad"), bad("worse"), Payload::Empty];
    let mut write = write(3, 10, 4, 1);
    write.entries = (10..)
        .zip(all)
        .map(|(at, payload)| entry(at, payload))
        .collect();
    storage.write(&write).expect("this disk does not fail");
    // An entry of another leader replaces the last two.
    write.entries = vec![entry(12, Payload::Empty)];
    storage.write(&write).expect("this disk does not fail");
    drop(storage);
    let judge = |machine: &str| -> Judge {
        assert_eq!(machine, identity().machine);
        Box::new(
            |command| match command.starts_with(b"bad") || command == b"worse" {
                true => Err("it is bad".into()),
                false => Ok(()),
            },
        )
    };
    let inspection = inspect_with(Arc::new(disk.clone()), judge).expect("it can be read");
    let shown = InspectedCommand {
        id: id(3, 11),
        bytes: "bad".into(),
        reason: "it is bad".into(),
    };
    assert_eq!(inspection.inadmissible, [shown]);
    assert_eq!(inspection.damage, [""; 0]);
    assert_eq!(look(&disk).inadmissible, []);
}

#[test]
fn all_damage_is_found_and_not_only_the_first() {
    let disk = node();
    disk.flip_bit("vote", 4100, 1);
    disk.flip_bit("log-00000000000000000002", 4200, 1);
    disk.flip_bit("log-00000000000000000004", 4200, 1);
    disk.flip_bit("snapshot-00000000000000000003-3", 4200, 1);
    let inspection = look(&disk);
    for part in [
        "second copy of term and vote",
        "log-00000000000000000002 is damaged at offset 4096",
        "log-00000000000000000004 is damaged at offset 4096",
        "snapshot-00000000000000000003-3 is damaged at offset 4096",
    ] {
        let found = inspection.damage.iter().any(|damage| damage.contains(part));
        assert!(found, "{part:?} is not in {:?}", inspection.damage);
    }
    assert_eq!(inspection.start, None);
    assert_eq!(inspection.segments.len(), 4);
}

#[test]
fn parts_that_do_not_fit_together_are_damage_although_each_is_intact() {
    let disk = node();
    disk.take_away("log-00000000000000000003");
    let inspection = look(&disk);
    assert_eq!(inspection.start, None);
    let [damage] = &inspection.damage[..] else {
        panic!("{:?}", inspection.damage);
    };
    assert!(damage.contains("log-00000000000000000003"), "{damage}");
}

#[test]
fn a_torn_tail_and_what_is_not_used_are_no_damage() {
    let disk = node();
    let (mut storage, _) = open(&disk);
    disk.set_contents("snapshot-7.new", b"half");
    disk.stop_at(disk.operations() + 3);
    let _ = storage.write(&write(3, 10, 1, 1100));
    let torn = (0..20)
        .map(|_| look(&disk.crash()))
        .find(|inspection| !inspection.notes.is_empty());
    let torn = torn.expect("one of them is torn");
    assert_eq!(torn.damage, Vec::<String>::new());
    assert_eq!(torn.start, Some((id(3, 6), id(3, 9))));
    assert_eq!(torn.unused, ["snapshot-7.new"]);
}

#[test]
fn a_folder_on_which_a_node_runs_can_be_looked_at_and_one_that_is_none_is_an_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let disk = RealDisk::open(folder.path()).expect("nobody has it");
    let (mut storage, _) =
        Storage::open(Arc::new(disk), &identity(), small()).expect("it is a new folder");
    storage.write(&write(2, 1, 4, 100)).expect("there is space");
    let disk = ReadOnlyDisk::new(folder.path());
    assert!(disk.create("new").is_err() && disk.remove("vote").is_err());
    let inspection = inspect(Arc::new(disk)).expect("it is there");
    assert_eq!(inspection.start, Some((EntryId::ZERO, id(2, 4))));

    let none = folder.path().join("none");
    let error = inspect(Arc::new(ReadOnlyDisk::new(&none))).expect_err("there is none");
    assert!(error.to_string().contains("none"), "{error}");
    assert!(!none.exists());
    let empty = inspect(Arc::new(SimDisk::new(1))).expect_err("it holds nothing");
    assert!(empty.to_string().contains("identity"), "{empty}");
}
