//! Tests of a folder of version 0.1.0, which is in format 2, while a node raises it to format 3.

use std::collections::BTreeMap;
use std::path::Path;

use crate::raft::Configuration;
use crate::storage::{Disk, Peers, inspect};

use super::crashes::stop_everywhere;
use super::*;

/// The disk with the folder of node 1 that `tests/upgrade` keeps. It has a snapshot, and a log that
/// goes on behind it.
fn kept() -> SimDisk {
    let disk = SimDisk::new(7);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/upgrade/0.1.0/node-1");
    for entry in std::fs::read_dir(folder).expect("the folder is kept") {
        let path = entry.expect("the folder can be listed").path();
        let packed = std::fs::read(&path).expect("the kept file can be read");
        let bytes = lz4_flex::block::decompress_size_prepended(&packed);
        let name = path.file_stem().and_then(|name| name.to_str());
        let name = name.expect("a file has a name");
        let mut bytes = bytes.expect("the kept file can be unpacked");
        if name.starts_with("log-") {
            // The space behind the last record only takes time to copy.
            let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
            bytes.truncate((used + 1).next_multiple_of(4096));
        }
        disk.set_contents(name, &bytes);
    }
    disk
}

/// What a node finds in the folder: its log, and what it knows of the others.
struct Found {
    recovered: Recovered,
    admitted: bool,
    founding: bool,
    known: BTreeMap<NodeId, u128>,
}

impl Found {
    fn new(recovered: Recovered, peers: &Peers) -> Self {
        Self {
            recovered,
            admitted: peers.admitted(),
            founding: peers.is_founding(),
            known: peers.known().clone(),
        }
    }
}

/// Opens the folder for the node that it belongs to.
fn try_open_kept(
    disk: &SimDisk,
    identity: &Identity,
) -> Result<(Storage, Recovered, Peers), StorageError> {
    let options = Options::of_sizes(1 << 20, 4096);
    let opened = Storage::open(Arc::new(disk.clone()), identity, options);
    let (storage, recovered) = opened?;
    let peers = storage.peers()?;
    Ok((storage, recovered, peers))
}

/// The formats of the blocks in the small files, and of the heads of segments and snapshots.
fn formats(disk: &SimDisk) -> BTreeMap<String, Vec<u32>> {
    let names = disk.list().expect("a simulated folder can be listed");
    let is_used = |name: &String| !name.ends_with(".new") && name != "lock";
    let of = |name: String| {
        let bytes = disk.contents(&name).expect("the file is there");
        // Only the vote has a second block, which is the second copy.
        let heads = match name == "vote" {
            true => vec![0, 4096],
            false => vec![0],
        };
        let format = |at: &usize| {
            let field = bytes.get(at + 8..at + 12)?;
            field.try_into().map(u32::from_le_bytes).ok()
        };
        (name, heads.iter().filter_map(format).collect())
    };
    names.into_iter().filter(is_used).map(of).collect()
}

/// The first write of the newer version: a term, a vote, and the folders of the founders.
fn first_write(after: EntryId) -> Write {
    let index = after.index + 1;
    let founders = Configuration::of_voters(1..=3);
    let settled = Entry {
        payload: Payload::Configuration(Box::new(founders)),
        ..entry(9, index, 0)
    };
    Write {
        id: 1,
        hard_state: term(9, Some(2)),
        entries: vec![settled, entry(9, index + 1, 700)],
        restart: None,
    }
}

/// Power fails at each operation with which a node opens the folder, writes to its log, and writes
/// down whom it has met.
#[test]
fn a_crash_while_a_folder_of_0_1_0_is_raised_loses_nothing() {
    let identity = inspect(Arc::new(kept())).expect("it can be read").identity;
    // A twin tells what is in the folder, since to open it changes it.
    let opened = try_open_kept(&kept(), &identity);
    let (_, before, peers) = opened.unwrap_or_else(|error| panic!("{error}"));
    let before = Found::new(before, &peers);
    let log = &before.recovered.entries;
    let last = log.last().expect("the log goes on behind the snapshot").id;
    assert!(before.admitted && before.founding && before.known.len() == 2);
    let next = first_write(last);
    let longer = [log.as_slice(), next.entries.as_slice()].concat();
    let act = |disk: &SimDisk| {
        let (mut storage, _, mut peers) = try_open_kept(disk, &identity)?;
        storage.write(&next)?;
        peers.meet(4, 44).map(drop)
    };
    let check = |disk: &SimDisk| {
        // Version 0.1.0 reads the identity first. While it takes the folder for one of its own,
        // there is nothing in it that it does not know.
        let formats = formats(disk);
        if formats["identity"] == [2] {
            let mut all = formats.values().flatten();
            assert!(all.all(|format| *format == 2), "{formats:?}");
        }
        let opened = try_open_kept(disk, &identity);
        let (_, recovered, peers) = opened.unwrap_or_else(|error| panic!("{error}"));
        let found = Found::new(recovered, &peers);
        let (old, new) = (before.recovered.hard_state, next.hard_state);
        let state = found.recovered.hard_state;
        assert!(state == old || Some(state) == new, "{state:?}");
        let entries = &found.recovered.entries;
        assert!(entries == log || *entries == longer && Some(state) == new);
        assert_eq!(found.recovered.snapshot, before.recovered.snapshot);
        assert!(found.admitted && found.founding);
        let mut known = found.known;
        assert!(known.remove(&4).is_none_or(|folder| folder == 44));
        assert_eq!(known, before.known);
        // What it goes on with is on the disk.
        let again = try_open_kept(&disk.crash(), &identity);
        let (_, again, _) = again.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((again.hard_state, &again.entries), (state, entries));
    };
    stop_everywhere(&kept(), 20, act, check);
}
