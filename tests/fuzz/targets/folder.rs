//! What a node finds on its disk.
//!
//! Each input is a list of edits to the files of one good data folder, which is then opened.

use std::sync::{Arc, LazyLock};

use raftkv::raft::{Entry, HardState, MemberId, Payload, Write};
use raftkv::storage::{Disk, Identity, Options, Recovered, SimDisk, Storage, StorageError};

use super::bits::Bits;
use super::depth::reached;
use super::wire::entry;

const BLOCK: usize = 4096;
const RECORD_HEADER: usize = 32;
const SECTOR: usize = 512;
/// How many bytes of a record a sector holds; the rest of it is its mark.
const DATA: usize = SECTOR - 8;

/// Small segments, so that the log has several.
const OPTIONS: Options = Options::of_sizes(6 << 10, 512);

struct Base {
    disk: SimDisk,
    /// The log as it was before the first write and after each.
    logs: Vec<Vec<Entry>>,
    hard_state: HardState,
}

static BASE: LazyLock<Base> = LazyLock::new(|| {
    let disk = SimDisk::new(1);
    let (mut storage, _) = open(&disk).expect("a new folder opens");
    let mut logs = vec![Vec::new()];
    let mut hard_state = HardState::default();
    for write in writes() {
        storage.write(&write).expect("a good disk");
        hard_state = write.hard_state.unwrap_or(hard_state);
        logs.push(continued(&logs[logs.len() - 1], write.entries));
    }
    Base {
        disk,
        logs,
        hard_state,
    }
});

/// Several records in three segments: one with many entries, one that replaces a tail, and ones
/// with long runs of zeros. The last one has two sectors, so that it can be torn.
fn writes() -> Vec<Write> {
    let command = |len: usize, byte: u8| Payload::Command(vec![byte; len].into());
    let plan = [
        (1, 1, vec![Payload::Empty]),
        (1, 2, (0..4).map(|i| command(30, i)).collect()),
        (1, 6, vec![command(700, 0)]),
        (2, 5, vec![Payload::Empty, command(900, 0xff)]),
        (2, 7, vec![command(1200, b'r')]),
        (2, 8, vec![command(600, 0), command(1, 0)]),
        (3, 10, vec![command(900, b'x')]),
    ];
    let write = |(id, (term, first, payloads))| Write {
        id,
        restart: None,
        hard_state: Some(HardState {
            term,
            vote: Some(MemberId::plain(1)),
        }),
        entries: (first..)
            .zip(payloads)
            .map(|(index, payload)| entry(term, index, payload))
            .collect(),
    };
    (1..).zip(plan).map(write).collect()
}

fn continued(log: &[Entry], new: Vec<Entry>) -> Vec<Entry> {
    let kept = log.iter().filter(|entry| entry.id.index < new[0].id.index);
    kept.cloned().chain(new.iter().cloned()).collect()
}

fn open(disk: &SimDisk) -> Result<(Storage, Recovered), StorageError> {
    let identity = Identity {
        cluster: "fuzz".into(),
        node: 1,
        machine: "none".into(),
    };
    Storage::open(Arc::new(disk.clone()), &identity, OPTIONS)
}

/// Opens the folder; an error must have changed nothing.
fn recover(disk: &SimDisk) -> Option<(Storage, Recovered)> {
    let before = files(disk);
    match open(disk) {
        Ok(opened) => Some(opened),
        Err(error) => {
            assert!(files(disk) == before, "changed in spite of: {error}");
            None
        }
    }
}

fn files(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    let names = disk.list().expect("a good disk").into_iter();
    names
        .map(|name| {
            let contents = disk.contents(&name).unwrap_or_default();
            (name, contents)
        })
        .collect()
}

/// After any damage the node starts with what it had at some moment, or not at all.
pub fn damaged(data: &[u8]) {
    let disk = BASE.disk.fork();
    edit(&disk, &mut Bits::new(data), false);
    if files(&disk).is_empty() {
        return; // A new folder, as far as anybody can tell.
    }
    match recover(&disk) {
        None => reached("damage is found"),
        Some((_, recovered)) => {
            reached("a damaged folder starts");
            if recovered.notes.iter().any(|note| note.contains("torn")) {
                reached("a torn tail is cut");
            }
            let known = BASE.logs.contains(&recovered.entries);
            assert!(known, "a log that never was: {:?}", recovered.entries);
            assert_eq!(recovered.hard_state, BASE.hard_state);
        }
    }
}

/// After any change with all checksums made to fit again, the node starts or does not; if it does,
/// it can go on from there.
pub fn forged(data: &[u8]) {
    let disk = BASE.disk.fork();
    edit(&disk, &mut Bits::new(data), true);
    let Some((mut storage, recovered)) = recover(&disk) else {
        return reached("a forged file is refused");
    };
    if !BASE.logs.contains(&recovered.entries) {
        reached("a forged log is replayed");
    }
    if recovered.hard_state != BASE.hard_state {
        reached("a forged vote is believed");
    }
    let term = recovered.hard_state.term;
    let last = recovered.entries.last();
    let next = entry(
        term,
        last.map_or(0, |entry| entry.id.index) + 1,
        Payload::Empty,
    );
    let write = Write {
        id: 1,
        restart: None,
        hard_state: None,
        entries: vec![next.clone()],
    };
    storage.write(&write).expect("a good disk");
    drop(storage);
    let (_, again) = open(&disk).expect("what was written can be read");
    let expected = [recovered.entries, vec![next]].concat();
    assert!(again.entries == expected && again.hard_state == recovered.hard_state);
    assert_eq!(again.notes, [""; 0], "it had been repaired");
}

fn edit(disk: &SimDisk, input: &mut Bits<'_>, forge: bool) {
    let mut names = disk.list().expect("a good disk");
    names.sort();
    while !input.is_empty() {
        let name = &names[input.below(names.len())];
        let Some(mut bytes) = disk.contents(name) else {
            continue;
        };
        match input.byte() % 8 {
            0 => bytes.truncate(place(input, bytes.len())),
            1 => bytes.extend_from_slice(input.string()),
            2 => {
                let from = place(input, bytes.len());
                let part = bytes[from..].iter().take(input.byte().into());
                let part: Vec<u8> = part.copied().collect();
                overwrite(&mut bytes, &part, input);
            }
            3 => {
                let zeros = vec![0; 8 * usize::from(input.byte())];
                overwrite(&mut bytes, &zeros, input);
            }
            4 if input.byte() == 255 => {
                disk.take_away(name);
                continue;
            }
            5 if input.byte() == 255 => bytes = input.string().to_vec(),
            _ => overwrite(&mut bytes, input.string(), input),
        }
        if forge {
            seal(name, &mut bytes);
        }
        disk.set_contents(name, &bytes);
    }
}

/// A place in a file, likelier where something starts.
fn place(input: &mut Bits<'_>, len: usize) -> usize {
    let block = usize::from(input.byte() & 1) * BLOCK;
    let offset = usize::from(u16::from_le_bytes([input.byte(), input.byte()]));
    (block + offset % BLOCK).min(len)
}

fn overwrite(bytes: &mut [u8], new: &[u8], input: &mut Bits<'_>) {
    let at = place(input, bytes.len());
    for (old, new) in bytes[at..].iter_mut().zip(new) {
        *old = *new;
    }
}

/// Makes all checksums of a file fit what it holds, and the marks and salts of its records those
/// that the good file has. [`a_sealed_folder_is_the_good_one`] notices a change of the format.
fn seal(name: &str, bytes: &mut [u8]) {
    let blocks = if name == "vote" { 2 } else { 1 };
    for block in bytes.chunks_exact_mut(BLOCK).take(blocks) {
        let checksum = crc32c::crc32c(&block[..BLOCK - 4]);
        block[BLOCK - 4..].copy_from_slice(&checksum.to_le_bytes());
    }
    if name.starts_with("log-")
        && let Some(good) = BASE.disk.contents(name)
        && let Some(mark) = good.get(BLOCK + DATA..BLOCK + SECTOR)
        && let Some(records) = bytes.get_mut(BLOCK..)
    {
        seal_records(records, mark);
    }
}

/// Seals one record after the other, up to where none begins.
fn seal_records(mut rest: &mut [u8], mark: &[u8]) {
    while rest.starts_with(b"rkvR") || rest.starts_with(b"rkvS") {
        let Some(payload) = rest.get(4..8).and_then(|len| len.first_chunk()) else {
            return;
        };
        let payload = u32::from_le_bytes(*payload) as usize;
        let len = (RECORD_HEADER + payload).div_ceil(DATA) * SECTOR;
        let Some((record, behind)) = rest.split_at_mut_checked(len) else {
            return;
        };
        let mut data = Vec::new();
        for sector in record.chunks_exact_mut(SECTOR) {
            sector[DATA..].copy_from_slice(mark);
            data.extend_from_slice(&sector[..DATA]);
        }
        data[16..24].copy_from_slice(mark);
        let checksum = crc32c::crc32c(&data[RECORD_HEADER..]);
        data[24..28].copy_from_slice(&checksum.to_le_bytes());
        let checksum = crc32c::crc32c(&data[..28]);
        data[28..RECORD_HEADER].copy_from_slice(&checksum.to_le_bytes());
        record[..RECORD_HEADER].copy_from_slice(&data[..RECORD_HEADER]);
        rest = behind;
    }
}

/// To seal what is good changes nothing, but mends every checksum, mark and salt that was spoilt:
/// so [`seal`] knows the present format.
#[test]
fn a_sealed_folder_is_the_good_one() {
    let mut records = 0;
    for (name, good) in files(&BASE.disk) {
        let mut sealed = good.clone();
        seal(&name, &mut sealed);
        assert!(sealed == good, "{name} is changed");
        if !name.starts_with("log-") {
            continue;
        }
        // The first record's salt and checksums, and the mark of its first sector.
        for at in (16..RECORD_HEADER).chain(DATA..SECTOR) {
            sealed[BLOCK + at] ^= 0x55;
        }
        assert!(sealed != good);
        seal(&name, &mut sealed);
        assert!(sealed == good, "{name} is not mended");
        records += 1;
    }
    assert!(records > 2, "the log has several files");
}

/// One edit of each kind to each of the first files, and none.
pub fn seeds() -> Vec<Vec<u8>> {
    let edits: [&[u8]; 7] = [
        &[0, 1, 200, 0],
        &[1, 5, 1, 2, 3, 4, 5],
        &[2, 1, 0, 0, 64, 1, 48, 0],
        &[3, 4, 1, 8, 0],
        &[4, 255],
        &[5, 255, 3, 1, 2, 3],
        &[6, 2, 9, 9, 1, 40, 0],
    ];
    let mut seeds = vec![Vec::new()];
    for file in FILES {
        seeds.extend(edits.map(|edit| [&[file], edit].concat()));
        // The second sector of the last record was never written: a torn tail, in one of the files.
        seeds.extend([64, 255].map(|zeros| vec![file, 3, zeros, 1, 0, 6]));
    }
    seeds
}

/// As [`seeds`], and two bytes of what the first two blocks of each file say: among them the first
/// record's entries, and a copy of the vote with its sequence number, without which it would
/// contradict the other copy.
pub fn forged_seeds() -> Vec<Vec<u8>> {
    let mut seeds = seeds();
    for file in FILES {
        let edit = |block: u8, at: u8| vec![file, 6, 2, 9, 9, block, at, 0];
        seeds.extend((16..56).flat_map(|at| [edit(0, at), edit(1, at)]));
    }
    seeds
}

/// As many as the folder has, or more.
const FILES: std::ops::Range<u8> = 0..8;
