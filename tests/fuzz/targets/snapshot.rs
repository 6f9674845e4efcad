//! Snapshots: files that may say anything, and their parts, which may come in any order.
//!
//! An input makes a file, which a node then receives in the parts that the rest of the input
//! draws. What must hold: no panic; no buffer of a size that only the file claims; the node has the
//! snapshot only if it has got every byte of what was announced; a state that is accepted is
//! written again as the same bytes, and has the same digest.

mod seeds;

use std::io::{Read, Write};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use raftkv::kv::{Command, Kv, Limits, Op};
use raftkv::machine::{At, StateMachine};
use raftkv::raft::{
    Configuration, EntryId, HardState, LoggedConfiguration, Raft, SnapshotMeta, StoredSnapshot,
    Write as LogWrite,
};
use raftkv::storage::{
    Disk, Identity, Incoming, Options, SimDisk, Snapshots, Storage, StorageError,
};
use raftkv::wire::codec;

use super::bits::Bits;
use super::depth::reached;
use super::wire::encoded;
pub use seeds::seeds;

const BLOCK: usize = 4096;
const PIECE_HEADER: usize = 12;
/// The size of the buffer between the state and its stream.
const BUFFER: usize = 64 << 10;
/// What a snapshot's header holds: the owner, what it stands for, when it was written, the salt,
/// and how it is compressed.
type Header = ((String, String), SnapshotMeta, u64, u64, u32);

const LAST: EntryId = EntryId { term: 3, index: 90 };

/// A snapshot as its sender has it.
#[derive(Clone)]
struct Original {
    state: Vec<u8>,
    file: Vec<u8>,
}

/// One of a single piece, and one of several of which some do not compress.
static ORIGINALS: LazyLock<[Original; 2]> = LazyLock::new(|| {
    let [mut small, mut large] = [(); 2].map(|()| Kv::new(limits()));
    fill(&mut small, 3, 5);
    fill(&mut large, 60, 2500);
    [small, large].map(|machine| {
        let mut state = Vec::new();
        Kv::write_snapshot(&machine.snapshot(), &mut state).expect("memory does not fail");
        let file = file_of(&state);
        Original { state, file }
    })
});

/// Small enough for a length to exceed them.
fn limits() -> Limits {
    Limits {
        max_value_bytes: 3000,
        max_sessions: 3,
        session_ttl_ms: 1000,
        max_in_flight: 4,
        max_session_reply_bytes: 4000,
        ..Limits::default()
    }
}

/// Several sessions with replies, and keys whose values repeat themselves or do not.
fn fill(machine: &mut Kv, keys: u64, value_bytes: usize) {
    let mut index = 0;
    let mut run = |command: Command| {
        index += 1;
        let at = At {
            index,
            time_ms: 10 + index / 2,
        };
        machine.apply(at, &encoded(&command).into());
    };
    run(Command::OpenSession);
    run(Command::OpenSession);
    let mut random = 1u64;
    for number in 0..keys {
        let noise = std::iter::repeat_with(|| {
            random = random
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (random >> 56) as u8
        });
        let value: Bytes = match number % 2 {
            0 => vec![b'v'; value_bytes].into(),
            _ => noise.take(value_bytes).collect(),
        };
        let key: Bytes = format!("key-{number}").into();
        run(Command::Execute {
            session: 1 + number % 2,
            seq: 1 + number / 2,
            lowest_unanswered: (number / 2).max(1),
            op: match number {
                0..3 => Op::Cas {
                    key,
                    expected: Some("x".into()),
                    value,
                },
                _ => Op::Put { key, value },
            },
        });
    }
}

fn meta() -> SnapshotMeta {
    SnapshotMeta {
        last: LAST,
        time_ms: 100,
        configuration: LoggedConfiguration::founding(Configuration::of_voters([1, 2, 3])),
    }
}

/// A valid file with whatever state.
fn file_of(state: &[u8]) -> Vec<u8> {
    let (_, storage) = folder();
    let snapshots = storage.snapshots();
    let mut writer = snapshots.create(meta()).expect("it is the first one");
    writer.write_all(state).expect("a good disk");
    writer.finish().expect("a good disk");
    let file = snapshots.read_chunk(LAST, 0, usize::MAX);
    file.expect("a good disk").to_vec()
}

/// The folder of a node in the snapshot's term, and without a log.
fn folder() -> (SimDisk, Storage) {
    static BASE: LazyLock<SimDisk> = LazyLock::new(|| {
        let disk = SimDisk::new(1);
        let (mut storage, _) = open(&disk).expect("a new folder opens");
        let hard_state = Some(HardState {
            term: LAST.term,
            vote: None,
        });
        let write = LogWrite {
            id: 1,
            hard_state,
            entries: Vec::new(),
            restart: None,
        };
        storage.write(&write).expect("a good disk");
        disk
    });
    let disk = BASE.fork();
    let (storage, _) = open(&disk).expect("a good folder");
    (disk, storage)
}

fn open(disk: &SimDisk) -> Result<(Storage, Option<StoredSnapshot>), StorageError> {
    let identity = Identity {
        cluster: "fuzz".into(),
        node: 1,
        machine: Kv::new(limits()).identity(),
    };
    let options = Options::of_sizes(BLOCK as u64, 512);
    let (storage, recovered) = Storage::open(Arc::new(disk.clone()), &identity, options)?;
    let snapshot = recovered.snapshot.map(|info| StoredSnapshot {
        meta: info.meta,
        bytes: info.bytes,
    });
    Ok((storage, snapshot))
}

/// What an input makes of a snapshot.
enum Kind {
    /// Every checksum is right, whatever the state is.
    State,
    /// The file is changed, and its checksums are made to fit.
    Forged,
    /// One byte of it is changed, or its end is missing: no such file is ever accepted.
    Damaged,
    /// It is as it was.
    Intact,
}

pub fn files(data: &[u8]) {
    let mut input = Bits::new(data);
    let shape = input.byte();
    let original = &ORIGINALS[usize::from(shape & 1)];
    let kind = match shape >> 1 & 3 {
        0 => Kind::State,
        1 => Kind::Forged,
        2 => Kind::Damaged,
        _ => Kind::Intact,
    };
    let Original {
        mut state,
        mut file,
    } = original.clone();
    match kind {
        Kind::State => {
            edit(&mut state, &mut input);
            file = file_of(&state);
        }
        Kind::Forged => {
            edit(&mut file, &mut input);
            seal(&mut file);
        }
        Kind::Damaged => damage(&mut file, &mut input),
        Kind::Intact => {}
    }
    let announced = header(&file).map_or_else(meta, |header| header.1);
    let bytes = match input.byte() {
        255 => input.near(file.len() as u64),
        _ => file.len() as u64,
    };
    let (disk, storage) = folder();
    let accepted = receive(&storage.snapshots(), &announced, bytes, &file, &mut input);
    check_accepted(&kind, accepted, bytes == file.len() as u64);
    if accepted {
        let restored = restore(&storage.snapshots(), &announced);
        match kind {
            Kind::Intact => {
                assert!(restored, "the state of an intact file");
                reached("an intact file is restored");
            }
            _ if restored => reached("a forged state is restored"),
            _ => reached("a forged state is refused"),
        }
    }
    drop(storage);
    restart(&disk, accepted.then_some(&announced));
}

/// Whether the right files are accepted. `all_announced`: the receiver was told the true length.
fn check_accepted(kind: &Kind, accepted: bool, all_announced: bool) {
    match kind {
        Kind::Damaged => {
            assert!(!accepted, "damage was accepted");
            reached("a damaged file is refused");
        }
        Kind::Forged if accepted => reached("a forged file is accepted"),
        Kind::Forged => {}
        Kind::State | Kind::Intact => assert_eq!(
            accepted, all_announced,
            "a good file is accepted, and no other"
        ),
    }
}

/// Sends parts of the file, in the order that the input draws and then in their own, until the
/// receiver has it or refuses it. Returns which.
fn receive(
    snapshots: &Snapshots,
    announced: &SnapshotMeta,
    bytes: u64,
    file: &[u8],
    input: &mut Bits<'_>,
) -> bool {
    let begin = || snapshots.receive(announced.clone(), bytes);
    let mut incoming = begin().expect("there is none yet");
    let mut given = Vec::new();
    for _ in 0..input.byte() % 16 {
        let at = match input.byte() {
            0..=127 => given.len(),
            128..=250 => place(input, file.len()),
            _ => {
                (incoming, given) = (begin().expect("there is none yet"), Vec::new());
                continue;
            }
        };
        let len = 64 * usize::from(input.byte());
        let part = &file[at.min(file.len())..(at + len).min(file.len())];
        if !add(&mut incoming, &mut given, at, part) {
            return false;
        }
    }
    while given.len() < file.len() {
        let at = given.len();
        let end = file.len().min(at + 20_000);
        if !add(&mut incoming, &mut given, at, &file[at..end]) {
            return false;
        }
    }
    let accepted = incoming.finish();
    let newest = snapshots.newest();
    assert_eq!(
        accepted.as_ref().ok(),
        newest.as_ref(),
        "refused and there, or the reverse"
    );
    let Ok(info) = accepted else {
        return false;
    };
    assert!(
        (given.len() as u64, bytes) == (info.bytes, info.bytes),
        "not all of it had come"
    );
    let stored = snapshots.read_chunk(info.meta.last, 0, usize::MAX);
    assert!(
        stored.expect("a good disk") == given,
        "it is not what was sent"
    );
    assert_eq!(info.meta, *announced);
    true
}

/// Hands over one part; only the one that comes next may count.
fn add(incoming: &mut Incoming, given: &mut Vec<u8>, at: usize, part: &[u8]) -> bool {
    let Ok(next) = incoming.write(at as u64, part) else {
        return false;
    };
    if at == given.len() {
        given.extend_from_slice(part);
    }
    assert_eq!(next, given.len() as u64, "it counts what it was not given");
    true
}

/// Counts how much is asked of the file at a time.
struct Watched<R>(R);

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = BUFFER + limits().max_value_bytes + 1024;
        assert!(buffer.len() <= most, "a buffer of {} bytes", buffer.len());
        self.0.read(buffer)
    }
}

/// Takes over the state of a snapshot that was accepted, if it is one. Returns whether it is.
fn restore(snapshots: &Snapshots, meta: &SnapshotMeta) -> bool {
    let reader = snapshots.open(meta.last).expect("it was verified");
    let mut state = Vec::new();
    let mut whole = snapshots.open(meta.last).expect("it was verified");
    whole.read_to_end(&mut state).expect("it was verified");
    let Ok(machine) = Kv::new(limits()).restore(&mut Watched(reader)) else {
        return false;
    };
    let mut again = Vec::new();
    Kv::write_snapshot(&machine.snapshot(), &mut again).expect("memory does not fail");
    assert!(again == state, "a state has one form only");
    let copy = Kv::new(limits()).restore(&mut &again[..]);
    assert_eq!(
        copy.expect("it was restored before").digest(),
        machine.digest()
    );
    true
}

/// The node starts with what it has, or says why not; and it starts the same way a second time.
fn restart(disk: &SimDisk, has: Option<&SnapshotMeta>) {
    let [first, second] = [(); 2].map(|()| open(disk).map(|(_, snapshot)| snapshot));
    assert_eq!(first.as_ref().ok(), second.as_ref().ok());
    let snapshot = match first {
        Ok(snapshot) => snapshot,
        // A snapshot of a later term than this node's.
        Err(StorageError::Damaged { .. }) if has.is_some() => return,
        Err(error) => panic!("{error}"),
    };
    assert_eq!(snapshot.as_ref().map(|snapshot| &snapshot.meta), has);
    assert!(
        disk.list()
            .expect("a good disk")
            .iter()
            .all(|name| !name.ends_with(".new"))
    );
    let config = raftkv::raft::Config::new(1, Configuration::of_voters([1, 2, 3]), 1);
    let hard_state = HardState {
        term: LAST.term,
        vote: None,
    };
    let last = snapshot
        .as_ref()
        .map_or(EntryId::ZERO, |snapshot| snapshot.meta.last);
    let raft = Raft::restore(config, hard_state, snapshot, Vec::new());
    assert_eq!(raft.last(), last);
}

/// A few changes to bytes of which the input knows the form.
fn edit(bytes: &mut Vec<u8>, input: &mut Bits<'_>) {
    for _ in 0..input.byte() % 8 {
        let at = place(input, bytes.len());
        match input.byte() % 8 {
            0 => bytes.truncate(at),
            1 => drop(bytes.splice(at..at, input.string().to_vec())),
            2 => drop(bytes.drain(at..bytes.len().min(at + usize::from(input.byte())))),
            3 => {
                let number = input.near(0);
                overwrite(bytes, at, &number.to_le_bytes());
            }
            4 => {
                let number = input.near(0) as u32;
                overwrite(bytes, at, &number.to_le_bytes());
            }
            5 => {
                let part: Vec<u8> = bytes[at..]
                    .iter()
                    .take(input.byte().into())
                    .copied()
                    .collect();
                let to = place(input, bytes.len());
                overwrite(bytes, to, &part);
            }
            _ => overwrite(bytes, at, input.string()),
        }
    }
}

fn overwrite(bytes: &mut [u8], at: usize, new: &[u8]) {
    for (old, new) in bytes[at..].iter_mut().zip(new) {
        *old = *new;
    }
}

/// A place in a file or a state, likelier where something starts.
fn place(input: &mut Bits<'_>, len: usize) -> usize {
    let near = usize::from(input.byte());
    let base = match near >> 6 {
        0 => 0,
        1 => BLOCK,
        2 => len.saturating_sub(usize::from(input.byte())),
        _ => {
            let part = usize::from(u16::from_le_bytes([input.byte(), input.byte()]));
            (len * part) >> 16
        }
    };
    (base + (near & 63)).min(len)
}

/// Damage that every checksum notices: see the polynomial.
fn damage(file: &mut Vec<u8>, input: &mut Bits<'_>) {
    let at = place(input, file.len()).min(file.len() - 1);
    match input.byte() {
        0 => file.truncate(at),
        change => file[at] ^= change,
    }
}

fn header(file: &[u8]) -> Option<Header> {
    let block = file.get(..BLOCK)?;
    let len = u32::from_le_bytes([block[12], block[13], block[14], block[15]]) as usize;
    codec::decode(block[16..BLOCK - 4].get(..len)?).ok()
}

/// Makes all checksums of a file fit what it holds, and its footer the pieces before it.
fn seal(file: &mut [u8]) {
    let Some(header) = header(file) else {
        return;
    };
    seal_block(&mut file[..BLOCK]);
    let salt = header.3.to_le_bytes();
    let end = file.len().saturating_sub(BLOCK).max(BLOCK);
    let (mut pieces, mut state_bytes, mut all) = (0u64, 0u64, 0);
    let mut rest = &mut file[BLOCK..end];
    while rest.len() > PIECE_HEADER {
        let [len, state_len] = [0, 4].map(|at| number(rest, at));
        let Some((piece, behind)) = rest.split_at_mut_checked(PIECE_HEADER + len as usize) else {
            break;
        };
        let parts = [
            &salt[..],
            &pieces.to_le_bytes(),
            &piece[..8],
            &piece[PIECE_HEADER..],
        ];
        let checksum = parts
            .iter()
            .fold(0, |sum, part| crc32c::crc32c_append(sum, part));
        piece[8..PIECE_HEADER].copy_from_slice(&checksum.to_le_bytes());
        all = crc32c::crc32c_append(all, &checksum.to_le_bytes());
        (pieces, state_bytes) = (pieces + 1, state_bytes.saturating_add(state_len.into()));
        rest = behind;
    }
    let Some(footer) = file.get_mut(end..end + BLOCK) else {
        return;
    };
    let body = codec::to_bytes(&(header.3, pieces, state_bytes, all));
    footer[12..16].copy_from_slice(&(body.len() as u32).to_le_bytes());
    footer[16..16 + body.len()].copy_from_slice(&body);
    seal_block(footer);
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[at + i]))
}

fn seal_block(block: &mut [u8]) {
    let checksum = crc32c::crc32c(&block[..BLOCK - 4]);
    block[BLOCK - 4..].copy_from_slice(&checksum.to_le_bytes());
}
