//! The small pieces of code that every request passes, one by one.
//!
//! ```console
//! $ cargo bench                    # all
//! $ cargo bench -- apply           # those whose name has the word in it
//! ```
//!
//! They tell where the processor's time goes, not how fast the store is: waiting for disks and
//! threads is most of a request. `kvcli bench` measures that.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, bench};
use raftkv::kv::{Command, Kv, Limits, Op, Query, Reply};
use raftkv::machine::{At, StateMachine};
use raftkv::raft::{Entry, EntryId, HardState, Payload, Write};
use raftkv::storage::{Disk, DiskFile, Identity, Options, Storage};
use raftkv::wire::client::{Answer, Ask, Request, Response};
use raftkv::wire::{codec, frame};

/// Sizes of values, in bytes.
const SIZES: [usize; 3] = [16, 128, 4096];

/// How many keys a store has before it is measured.
const KEYS: u64 = 100_000;

fn main() {
    divan::main();
}

fn put(seq: u64, key: u64, size: usize) -> Bytes {
    let op = Op::Put {
        key: format!("key-{key:012}").into(),
        value: vec![b'x'; size].into(),
    };
    execute(seq, op)
}

fn execute(seq: u64, op: Op) -> Bytes {
    Command::Execute {
        session: 1,
        seq,
        lowest_unanswered: seq,
        op,
    }
    .to_bytes()
}

fn request(size: usize) -> Request {
    Request {
        id: 1000,
        timeout_ms: 900,
        known: 0,
        ask: Ask::Submit(put(1000, 1000, size)),
    }
}

#[bench(args = SIZES)]
fn encode_request(bencher: Bencher, size: usize) {
    let request = request(size);
    let mut out = Vec::new();
    bencher.counter(ItemsCount::new(1usize)).bench_local(|| {
        out.clear();
        frame::put(black_box(&request), &mut out);
        out.len()
    });
}

#[bench(args = SIZES)]
fn decode_request(bencher: Bencher, size: usize) {
    let mut bytes = Vec::new();
    frame::put(&request(size), &mut bytes);
    bencher.counter(ItemsCount::new(1usize)).bench_local(|| {
        let split = frame::split(black_box(&bytes), frame::MAX_PAYLOAD);
        let (payload, _) = split.unwrap().unwrap();
        codec::decode::<Request>(payload).unwrap()
    });
}

#[bench]
fn encode_response(bencher: Bencher) {
    let mut out = Vec::new();
    bencher.counter(ItemsCount::new(1usize)).bench_local(|| {
        out.clear();
        let answer = Answer::Reply(codec::to_bytes(black_box(&Reply::Done)));
        frame::put(
            &Response {
                id: 1000,
                answer,
                members: None,
            },
            &mut out,
        );
        out.len()
    });
}

#[bench(args = [128, 4096, 65_536])]
fn checksum(bencher: Bencher, size: usize) {
    let bytes = vec![7; size];
    let bencher = bencher.counter(BytesCount::new(size));
    bencher.bench_local(|| crc32c::crc32c(black_box(&bytes)));
}

/// A store with one session and its keys, and the number of the session's last operation.
fn store() -> (Kv, u64) {
    let mut kv = Kv::new(Limits::default());
    kv.apply(at(1), &Command::OpenSession.to_bytes());
    for key in 0..KEYS {
        let reply = kv.apply(at(key + 2), &put(key + 1, key, 128));
        assert_eq!(reply, Reply::Done);
    }
    (kv, KEYS)
}

fn at(index: u64) -> At {
    At { index, time_ms: 0 }
}

#[bench(args = SIZES)]
fn apply_put(bencher: Bencher, size: usize) {
    let (mut kv, mut seq) = store();
    bencher
        .counter(ItemsCount::new(1usize))
        .with_inputs(|| {
            seq += 1;
            (seq, put(seq, seq * 7919 % KEYS, size))
        })
        .bench_local_values(|(seq, command)| kv.apply(at(seq + 1), &command));
}

#[bench(args = [0, 1_000_000])]
fn apply_append(bencher: Bencher, before: usize) {
    let (mut kv, mut seq) = store();
    seq += 1;
    kv.apply(at(seq + 1), &put(seq, KEYS, before));
    bencher
        .counter(ItemsCount::new(1usize))
        .with_inputs(|| {
            seq += 1;
            let key = format!("key-{KEYS:012}").into();
            let value = Bytes::from_static(&[b'x'; 128]);
            (seq, execute(seq, Op::Append { key, value }))
        })
        .bench_local_values(|(seq, command)| kv.apply(at(seq + 1), &command));
}

/// What the session does with a command that was executed before.
#[bench]
fn apply_repeat(bencher: Bencher) {
    let (mut kv, seq) = store();
    let command = put(seq, 0, 128);
    let mut index = seq + 1;
    bencher.counter(ItemsCount::new(1usize)).bench_local(|| {
        index += 1;
        kv.apply(at(index), black_box(&command))
    });
}

#[bench]
fn query_get(bencher: Bencher) {
    let (kv, _) = store();
    let mut key = 0;
    bencher
        .counter(ItemsCount::new(1usize))
        .with_inputs(|| {
            key = (key + 7919) % KEYS;
            let key = format!("key-{key:012}").into();
            Query::Get { key }.to_bytes()
        })
        .bench_local_values(|query| kv.query(&query));
}

#[bench]
fn clone_store(bencher: Bencher) {
    let (kv, _) = store();
    bencher.bench_local(|| black_box(&kv).clone());
}

/// Puts beside a clone that is still held, as while a snapshot is written: each copies the nodes
/// of the map on its way that it is the first to touch.
#[bench]
fn apply_put_beside_a_clone(bencher: Bencher) {
    let (mut kv, mut seq) = store();
    let clone = kv.clone();
    bencher
        .counter(ItemsCount::new(1usize))
        .with_inputs(|| {
            seq += 1;
            (seq, put(seq, seq * 7919 % KEYS, 128))
        })
        .bench_local_values(|(seq, command)| kv.apply(at(seq + 1), &command));
    drop(clone);
}

/// Entries into a record and the record into the file, on a disk that takes no time.
#[bench(args = [1, 16, 256])]
fn append_log(bencher: Bencher, entries: u64) {
    let identity = Identity {
        cluster: "bench".into(),
        node: 1,
        machine: "bench".into(),
    };
    let disk = Arc::new(NoDisk::default());
    let (mut storage, _) = Storage::open(disk, &identity, Options::default()).unwrap();
    let hard_state = Some(HardState {
        term: 1,
        vote: None,
    });
    let mut first = 1;
    let command = put(1, 1, 128);
    let write = move || {
        let entries = (first..first + entries).map(|index| Entry {
            id: EntryId { term: 1, index },
            time_ms: 0,
            payload: Payload::Command(command.clone()),
        });
        let write = Write {
            id: first,
            hard_state: hard_state.filter(|_| first == 1),
            entries: entries.collect(),
            restart: None,
        };
        first = write.entries.last().map_or(first, |last| last.id.index + 1);
        write
    };
    bencher
        .counter(ItemsCount::new(entries))
        .with_inputs(write)
        .bench_local_values(|write| storage.write(&write).unwrap());
}

/// Files whose beginning is kept, which is all that is read back.
#[derive(Default)]
struct NoDisk(Mutex<BTreeMap<String, Arc<NoFile>>>);

#[derive(Default)]
struct NoFile(Mutex<(Vec<u8>, u64)>);

impl NoFile {
    const KEPT: usize = 64 << 10;
}

struct Handle(Arc<NoFile>);

impl Disk for NoDisk {
    fn folder(&self) -> &Path {
        Path::new("nowhere")
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().unwrap().keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = Arc::<NoFile>::default();
        self.0.lock().unwrap().insert(name.into(), file.clone());
        Ok(Box::new(Handle(file)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = self.0.lock().unwrap().get(name).cloned();
        Ok(Box::new(Handle(file.ok_or(io::ErrorKind::NotFound)?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.0.lock().unwrap();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.into(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.lock().unwrap().remove(name);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn unique_id(&self) -> u64 {
        7
    }

    fn now_ms(&self) -> u64 {
        0
    }
}

impl DiskFile for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.0.lock().unwrap().1)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let file = self.0.0.lock().unwrap();
        if offset + buffer.len() as u64 > file.1 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // What was allocated and not written is zero.
        buffer.fill(0);
        let kept = file.0.get(offset as usize..).unwrap_or_default();
        let len = kept.len().min(buffer.len());
        buffer[..len].copy_from_slice(&kept[..len]);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut file = self.0.0.lock().unwrap();
        let end = offset as usize + bytes.len();
        file.1 = file.1.max(end as u64);
        if end <= NoFile::KEPT {
            if file.0.len() < end {
                file.0.resize(end, 0);
            }
            file.0[offset as usize..end].copy_from_slice(bytes);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, _: u64, to: u64) -> io::Result<()> {
        let mut file = self.0.0.lock().unwrap();
        file.1 = file.1.max(to);
        Ok(())
    }
}
