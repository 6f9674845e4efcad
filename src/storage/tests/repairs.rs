//! Tests of damaged folders that are set aside, with crashes in between.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::raft::{Configuration, LoggedConfiguration, SnapshotMeta};
use crate::storage::disk::Folder;
use crate::storage::voter::identity;
use crate::storage::{
    DamagedFolder, Disk, Parent, RealDisk, SetAside, Unreadable, block, snapshot,
};

use super::crashes::stop_everywhere;
use super::story::*;
use super::*;

pub(super) const NAME: &str = "1";

/// What is done to a folder, and a part of the sentence that tells it.
type Case<'a> = (&'static str, &'a dyn Fn(&SimDisk));

/// The length of the state in the snapshots, in bytes.
const STATE: usize = 5_000;

fn members() -> LoggedConfiguration {
    LoggedConfiguration {
        index: 3,
        configuration: Configuration::of_voters([1, 2, 3]),
    }
}

/// A disk with the data folder of a node that has voted in term 5, has snapshots up to the entries
/// 3 and 5, and a log up to entry 8 that reaches back to the first of them.
pub(super) fn lived() -> SimDisk {
    let disk = SimDisk::new(51);
    Parent::open(&disk, NAME).expect("a good disk");
    let (mut storage, _) = open(&of(&disk, NAME));
    let write_one = |storage: &mut Storage, index, term| {
        let next = write(term, index, 1, 300);
        storage.write(&next).expect("a good disk");
    };
    (1..=3).for_each(|index| write_one(&mut storage, index, 2));
    take(&storage.snapshots(), id(2, 3), STATE).expect("a good disk");
    (4..=5).for_each(|index| write_one(&mut storage, index, 2));
    take(&storage.snapshots(), id(2, 5), STATE).expect("a good disk");
    let mut vote = write(4, 6, 1, 300);
    storage.write(&vote).expect("a good disk");
    vote = write(4, 7, 2, 300);
    storage.write(&vote).expect("a good disk");
    vote.entries.clear();
    vote.hard_state = term(5, Some(2));
    storage.write(&vote).expect("a good disk");
    let mut peers = storage.peers().expect("a good disk");
    peers.meet(2, 22).expect("a good disk");
    peers.admit().expect("a good disk");
    storage
        .address_book()
        .write(&members())
        .expect("a good disk");
    disk
}

/// The data folder of this name.
pub(super) fn of(disk: &SimDisk, name: &str) -> SimDisk {
    disk.folder_named(name).expect("the folder is there")
}

pub(super) fn contents(disk: &SimDisk) -> BTreeMap<String, Vec<u8>> {
    let names = disk.list().expect("a good disk").into_iter();
    names
        .map(|name| (name.clone(), disk.contents(&name).expect("it is listed")))
        .collect()
}

fn find(disk: &SimDisk) -> Result<Option<DamagedFolder>, StorageError> {
    DamagedFolder::find_in(Arc::new(disk.clone()), NAME, &identity(), small())
}

/// What a node does at its start.
fn heal(disk: &SimDisk) -> Result<Option<SetAside>, StorageError> {
    find(disk)?.map(DamagedFolder::set_aside).transpose()
}

pub(super) fn number(disk: &SimDisk) -> Option<u128> {
    let folder = Folder::new(Arc::new(disk.clone()));
    identity::look(&folder).ok().map(|(owner, _)| owner.folder)
}

/// Checks that the node begins anew: as another member, which knows that its cluster exists, with
/// this snapshot and nothing else.
#[track_caller]
fn assert_begins_anew(disk: &SimDisk, former: u128, kept: Option<EntryId>) {
    let folder = of(disk, NAME);
    let (storage, recovered) = open(&folder);
    assert_ne!(
        storage.own_folder(),
        former,
        "it goes on as the same member"
    );
    assert_eq!(recovered.base, kept.unwrap_or_default());
    assert_eq!(recovered.entries, []);
    let begun = HardState {
        term: kept.map_or(0, |last| last.term),
        vote: None,
    };
    assert_eq!(recovered.hard_state, begun);
    let peers = storage.peers().expect("a good disk");
    assert!(!peers.is_founding(), "it would found its cluster again");
    assert!(!peers.admitted() && peers.known().is_empty());
    if let Some(last) = kept {
        let state_of = read(&storage.snapshots(), last).expect("it is whole");
        assert!(state_of == state(last, STATE), "it is another state");
    }
}

#[test]
fn a_damaged_folder_is_set_aside_as_it_is_and_its_node_begins_anew_with_the_newest_sound_snapshot()
{
    for (name, offset, kept) in [
        ("log-00000000000000000001", 4096 + 20, Some(id(2, 5))),
        ("snapshot-00000000000000000005-2", 5_000, Some(id(2, 3))),
        ("peers", 20, Some(id(2, 5))),
        ("identity", 20, Some(id(2, 5))),
    ] {
        let disk = lived();
        let folder = of(&disk, NAME);
        let former = number(&folder).expect("it is sound");
        folder.flip_bit(name, offset, 3);
        if name.starts_with("snapshot") {
            // The log cannot take its place: it starts behind the other one.
            folder.take_away("log-00000000000000000001");
        }
        let before = contents(&folder);
        assert!(try_open(&folder).is_err(), "{name}");
        assert!(
            contents(&folder) == before,
            "the failed start has changed it"
        );
        let damaged = find(&disk).expect("it is damage").expect("it is damage");
        let problem = damaged.problem().to_string();
        assert_eq!(
            (damaged.folder(), damaged.members()),
            (former, Some(members()))
        );
        let done = damaged.set_aside().expect("a good disk");
        assert!(
            done.aside.ends_with("1.damaged-1"),
            "{:?}: {problem}",
            done.aside
        );
        assert_eq!(done.snapshot.map(|info| info.meta.last), kept, "{problem}");
        assert_eq!(Some(done.folder), number(&of(&disk, NAME)));
        assert!(contents(&of(&disk, "1.damaged-1")) == before, "{name}");
        assert_begins_anew(&disk, former, kept);
        let (storage, _) = open(&of(&disk, NAME));
        let book = storage.address_book();
        assert_eq!(
            (book.members(), book.begins_anew()),
            (Some(&members()), true)
        );
        assert!(
            heal(&disk).expect("a good disk").is_none(),
            "it is sound now"
        );
    }
}

#[test]
fn a_lost_vote_a_lost_identity_and_an_older_vote_are_damage_of_the_folder() {
    let old_vote = of(&lived(), NAME).contents("vote");
    let cases: [Case<'_>; 5] = [
        ("both copies", &|folder| {
            folder.flip_bit("vote", 20, 1);
            folder.flip_bit("vote", 4096 + 20, 1);
        }),
        ("the file is missing", &|folder| folder.take_away("vote")),
        ("the file is missing", &|folder| {
            folder.take_away("identity")
        }),
        ("a vote has been lost", &|folder| {
            let fresh = SimDisk::new(1);
            let (owner, _) = identity::look(&Folder::new(Arc::new(folder.clone()))).unwrap();
            crate::storage::voter::vote::create(&Folder::new(Arc::new(fresh.clone())), &owner)
                .unwrap();
            folder.set_contents("vote", &fresh.contents("vote").unwrap());
        }),
        ("is missing", &|folder| {
            segments(folder)
                .iter()
                .for_each(|name| folder.take_away(name));
        }),
    ];
    for (problem, damage) in cases {
        let disk = lived();
        assert_eq!(of(&disk, NAME).contents("vote"), old_vote);
        let former = number(&of(&disk, NAME)).expect("it is sound");
        damage(&of(&disk, NAME));
        let damaged = find(&disk).expect("it is damage").expect("it is damage");
        let sentence = damaged.problem().to_string();
        assert!(sentence.contains(problem), "{sentence}");
        damaged.set_aside().expect("a good disk");
        assert_begins_anew(&disk, former, Some(id(2, 5)));
    }
}

/// Of such a snapshot a node cannot tell whose it is, so no leader would let the folder in.
#[test]
fn a_snapshot_from_before_the_members_were_in_the_log_is_not_kept() {
    let disk = lived();
    let founders = Configuration::founding([(1, "a:1".into()), (2, "b:1".into())]);
    let (storage, _) = open(&of(&disk, NAME));
    let founding = SnapshotMeta {
        configuration: LoggedConfiguration::founding(founders.clone()),
        ..meta(id(4, 7))
    };
    let writer = storage.snapshots().create(founding);
    writer.and_then(|it| it.finish()).expect("a good disk");
    drop(storage);
    let former = number(&of(&disk, NAME)).expect("it is sound");
    of(&disk, NAME).take_away("members");
    of(&disk, NAME).flip_bit("peers", 20, 1);
    let done = heal(&disk).expect("a good disk").expect("it is damaged");
    assert_eq!(done.snapshot, None);
    assert_begins_anew(&disk, former, None);
    let (storage, _) = open(&of(&disk, NAME));
    let book = storage.address_book();
    let known = book.members().map(|known| &known.configuration);
    assert_eq!((known, book.begins_anew()), (Some(&founders), true));
}

/// Its log never had a configuration, and it has no snapshot: nothing else says whom to ask.
#[test]
fn a_founder_that_begins_anew_knows_whom_it_was_to_found_its_cluster_with() {
    let disk = SimDisk::new(52);
    Parent::open(&disk, NAME).expect("a good disk");
    let (storage, _) = open(&of(&disk, NAME));
    let mut peers = storage.peers().expect("a good disk");
    peers.meet(2, 22).expect("a good disk");
    drop(storage);
    of(&disk, NAME).flip_bit("peers", 20, 1);
    let founders = Configuration::founding([(1, "a:1".into()), (2, "b:1".into())]);
    let damaged = find(&disk).expect("it is damage").expect("it is damage");
    let damaged = damaged.with_founders(founders.clone());
    damaged.set_aside().expect("a good disk");
    let (storage, _) = open(&of(&disk, NAME));
    let book = storage.address_book();
    let known = book.members().map(|known| &known.configuration);
    assert_eq!((known, book.begins_anew()), (Some(&founders), true));
}

#[test]
fn a_second_damaged_folder_gets_a_name_of_its_own() {
    let disk = lived();
    of(&disk, NAME).flip_bit("peers", 20, 1);
    heal(&disk).expect("a good disk").expect("it is damaged");
    of(&disk, NAME).flip_bit("identity", 20, 1);
    let second = heal(&disk).expect("a good disk").expect("it is damaged");
    assert!(second.aside.ends_with("1.damaged-2"), "{:?}", second.aside);
    let first = of(&disk, "1.damaged-1").contents("peers");
    assert!(first.is_some(), "the first one is gone");
}

#[test]
fn whatever_step_a_crash_interrupts_the_folder_is_the_damaged_one_or_a_whole_new_one() {
    let disk = lived();
    let former = number(&of(&disk, NAME)).expect("it is sound");
    of(&disk, NAME).flip_bit("log-00000000000000000001", 4096 + 20, 3);
    let before = contents(&of(&disk, NAME));
    stop_everywhere(
        &disk,
        40,
        |disk| heal(disk).map(drop),
        |disk| {
            // The next start, whenever it comes, ends in the same way. It may be interrupted too.
            let next = disk.fork();
            next.stop_at(next.operations() + 7);
            drop(heal(&next));
            for disk in [disk.clone(), next.crash()] {
                let done = heal(&disk).expect("this disk does not fail");
                assert_begins_anew(&disk, former, Some(id(2, 5)));
                let once = done.is_none_or(|done| done.aside.ends_with("1.damaged-1"));
                assert!(once && disk.folder_named("1.damaged-2").is_none());
                // After a kill the last name may not be durable yet: the next start gives it again.
                let disk = disk.crash();
                assert!(heal(&disk).expect("it is sound").is_none());
                assert_begins_anew(&disk, former, Some(id(2, 5)));
                let aside = contents(&of(&disk, "1.damaged-1"));
                assert!(aside == before, "what was set aside has changed");
            }
        },
    );
}

#[test]
fn what_an_attempt_has_left_is_neither_used_nor_in_the_way() {
    let disk = lived();
    of(&disk, NAME).flip_bit("peers", 20, 1);
    for left in ["1.healing", "1.healed", "1.recovering", "1.recovered"] {
        let folder = Parent::open(&disk, left).expect("a good disk");
        folder.create("rest").expect("a good disk");
    }
    heal(&disk).expect("a good disk").expect("it is damaged");
    let names = contents(&of(&disk, NAME));
    assert!(!names.contains_key("rest"), "{:?}", names.keys());
    for left in ["1.healing", "1.healed", "1.recovering", "1.recovered"] {
        assert!(disk.folder_named(left).is_none(), "{left}");
    }
}

/// Somebody may take the damaged folder away, and then the next start would use what is left.
#[test]
fn what_an_attempt_has_completed_is_whole_as_long_as_it_has_that_name() {
    let disk = lived();
    of(&disk, NAME).flip_bit("peers", 20, 1);
    let left = Parent::open(&disk, "1.healed").expect("a good disk");
    for name in ["left", "of an", "earlier attempt"] {
        left.create(name).expect("a good disk");
    }
    left.sync_dir().expect("a good disk");
    let whole = contents(&of(&disk, "1.healed"));
    stop_everywhere(
        &disk,
        40,
        |disk| heal(disk).map(drop),
        |disk| {
            if let Some(left) = disk.folder_named("1.healed") {
                let is_new = number(&left).is_some();
                assert!(is_new || contents(&left) == whole, "a part of it is gone");
            }
        },
    );
}

#[test]
fn a_folder_of_somebody_else_or_of_a_newer_format_or_that_cannot_be_read_is_left_alone() {
    let cases: [Case<'_>; 5] = [
        ("belongs to node 9", &|folder| {
            let other = SimDisk::new(4);
            let mut stranger = identity();
            stranger.node = 9;
            drop(Storage::open(Arc::new(other.clone()), &stranger, small()));
            for (name, bytes) in contents(&other) {
                folder.set_contents(&name, &bytes);
            }
        }),
        ("its files are of node 9", &|folder| {
            let other = SimDisk::new(4);
            let mut stranger = identity();
            stranger.node = 9;
            drop(Storage::open(Arc::new(other.clone()), &stranger, small()));
            folder.set_contents("vote", &other.contents("vote").expect("it is there"));
            folder.flip_bit("identity", 20, 1);
        }),
        ("but no \"identity\"", &|folder| {
            for name in folder.list().expect("a good disk") {
                if !name.starts_with("snapshot") {
                    folder.take_away(&name);
                }
            }
        }),
        ("has the format", &|folder| {
            let bytes = folder.contents("identity").expect("it is there");
            folder.set_contents("identity", &block::with_format(bytes, block::FORMAT + 1));
        }),
        ("cannot read this", &|folder| {
            let last = snapshot::name(id(2, 5));
            folder.fail_reads(Unreadable::File(last));
            folder.take_away("log-00000000000000000001");
            folder.fail_reads(Unreadable::Everything);
        }),
    ];
    for (problem, change) in cases {
        let disk = lived();
        change(&of(&disk, NAME));
        let before = disk.operations();
        let error = find(&disk)
            .err()
            .unwrap_or_else(|| panic!("no refusal: {problem}"));
        assert!(error.to_string().contains(problem), "{error}");
        assert!(!matches!(error, StorageError::Damaged { .. }), "{error}");
        assert_eq!(disk.operations(), before, "something was written");
    }
}

#[test]
fn a_folder_in_use_or_without_a_name_is_not_set_aside() {
    let above = tempfile::tempdir().expect("a temporary folder");
    let path = above.path().join("1");
    let disk = Arc::new(RealDisk::open(&path).expect("it is nobody's"));
    drop(Storage::open(disk.clone(), &identity(), small()).expect("a good disk"));
    let refused = DamagedFolder::find(&path, &identity()).err();
    assert!(
        matches!(refused, Some(StorageError::Locked { .. })),
        "{refused:?}"
    );
    drop(disk);
    let sound = DamagedFolder::find(&path, &identity()).expect("it is sound");
    assert!(sound.is_none());
    let refused = DamagedFolder::find(std::path::Path::new("/"), &identity()).err();
    assert!(
        matches!(refused, Some(StorageError::Unusable { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_real_folder_is_set_aside_where_it_lies_also_if_a_link_leads_there() {
    let above = tempfile::tempdir().expect("a temporary folder");
    let (path, link) = (above.path().join("big/1"), above.path().join("link"));
    let disk = Arc::new(RealDisk::open(&path).expect("it is nobody's"));
    drop(Storage::open(disk, &identity(), small()).expect("a good disk"));
    std::os::unix::fs::symlink(&path, &link).expect("a link can be made");
    std::fs::remove_file(path.join("vote")).expect("it is there");
    let damaged = DamagedFolder::find(&link, &identity()).expect("it is damage");
    let done = damaged
        .expect("it is damage")
        .set_aside()
        .expect("it can be renamed");
    assert!(done.aside.ends_with("big/1.damaged-1"), "{:?}", done.aside);
    assert!(done.aside.join("identity").is_file() && path.join("vote").is_file());
    // As a crash before the last step leaves it: the next start takes that step.
    std::fs::rename(&path, above.path().join("big/1.healed")).expect("it can be renamed");
    let disk = RealDisk::open(&link).expect("it is nobody's");
    assert!(disk.list().expect("a list").contains(&"vote".to_string()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A bit of any file flips: the folder is sound, as far as a start can tell, or the node begins
    /// anew with a snapshot that verifies.
    #[test]
    fn wherever_a_bit_flips_nothing_of_the_log_or_the_vote_is_kept(
        which in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let disk = lived();
        let folder = of(&disk, NAME);
        let former = number(&folder).expect("it is sound");
        let files: Vec<(String, Vec<u8>)> = contents(&folder).into_iter().collect();
        let (name, bytes) = &files[which.index(files.len())];
        folder.flip_bit(name, place.index(bytes.len()), bit);
        let is_damaged = try_open(&folder.fork()).is_err();
        let done = heal(&disk).expect("it is damage, or sound");
        prop_assert_eq!(done.is_some(), is_damaged);
        if let Some(done) = done {
            let kept = done.snapshot.map(|info| info.meta.last);
            assert_begins_anew(&disk, former, kept);
        }
    }
}
