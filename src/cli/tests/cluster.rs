//! A cluster for tests of kvcli: a map in memory, without a network.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::client::{Answered, CallError, Stop, Transport};
use crate::kv::{Command, Item, Op, Page, Query, Reply, Scan};
use crate::raft::{Index, RoleName};
use crate::wire::client::{Answer, Ask, Doubt, Status};
use crate::wire::codec;

/// The most keys on a page of a scan.
const PAGE: usize = 3;

/// What the server does instead of executing a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    Down,
    Doubt,
    Refusal,
}

/// One server. It keeps no sessions, because its clients never repeat a request.
#[derive(Default)]
pub struct MapCluster {
    pub map: Mutex<BTreeMap<Bytes, Bytes>>,
    /// The last index applied, and the last index in the newest snapshot.
    pub applied: AtomicU64,
    pub snapshot: AtomicU64,
    /// How many more statuses say that a snapshot is being written.
    pub writing: AtomicU64,
    /// How many bytes of that snapshot are written, and how many more each status reports.
    pub written: [AtomicU64; 2],
    /// Whether snapshots cannot be written.
    pub disk_is_full: AtomicBool,
    /// How many more operations are executed before the trouble begins, and what the trouble is.
    trouble: Mutex<Option<(u64, Trouble)>>,
}

impl MapCluster {
    pub fn put(&self, pairs: &[(&'static str, &'static str)]) {
        let pairs = pairs
            .iter()
            .map(|(key, value)| (Bytes::from(*key), Bytes::from(*value)));
        self.map.lock().extend(pairs);
    }

    pub fn trouble_after(&self, operations: u64, trouble: Trouble) {
        *self.trouble.lock() = Some((operations, trouble));
    }

    fn trouble(&self) -> Option<Trouble> {
        match &mut *self.trouble.lock() {
            Some((0, trouble)) => Some(*trouble),
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        }
    }

    fn execute(&self, op: Op) -> Reply {
        let mut map = self.map.lock();
        match op {
            Op::Get { key } => Reply::Value(map.get(&key).cloned()),
            Op::Put { key, value } => {
                map.insert(key, value);
                Reply::Done
            }
            Op::Append { key, value } => {
                let old = map.get(&key).cloned().unwrap_or_default();
                let new = [old, value].concat();
                let length = new.len() as u64;
                map.insert(key, new.into());
                Reply::Appended(length)
            }
            Op::Delete { key } => Reply::Deleted(map.remove(&key).is_some()),
            Op::Cas {
                key,
                expected,
                value,
            } => {
                let present = map.get(&key).cloned();
                if present != expected {
                    return Reply::Swapped(Err(present));
                }
                map.insert(key, value);
                Reply::Swapped(Ok(()))
            }
        }
    }

    fn query(&self, query: Query) -> Reply {
        let map = self.map.lock();
        let scan: Scan = match query {
            Query::Get { key } => return Reply::Value(map.get(&key).cloned()),
            Query::Scan(scan) => scan,
        };
        let limit = match scan.limit as usize {
            0 => PAGE,
            limit => limit.min(PAGE),
        };
        let in_range = |key: &Bytes| scan.end.as_ref().is_none_or(|end| key < end);
        let mut range = map.range(scan.start..).filter(|(key, _)| in_range(key));
        let item = |(key, value): (&Bytes, &Bytes)| Item {
            key: key.clone(),
            value: match scan.keys_only {
                true => Bytes::new(),
                false => value.clone(),
            },
        };
        let items = range.by_ref().take(limit).map(item).collect();
        let next = range.next().map(|(key, _)| key.clone());
        Reply::Page(Page { items, next })
    }

    fn take_snapshot(&self) -> Answer {
        let (up_to, is_there) = (self.applied.load(SeqCst), self.is_there());
        Answer::Snapshot { up_to, is_there }
    }

    fn is_there(&self) -> bool {
        self.snapshot.load(SeqCst) >= self.applied.load(SeqCst)
    }

    fn status(&self) -> Status {
        let left = self.writing.load(SeqCst);
        self.writing.store(left.saturating_sub(1), SeqCst);
        if left == 1 && !self.disk_is_full.load(SeqCst) {
            self.snapshot.store(self.applied.load(SeqCst), SeqCst);
        }
        Status {
            id: 1,
            cluster: "test".into(),
            role: RoleName::Leader,
            term: 3,
            leader: Some(1),
            members: vec![(1, "one:1".into())],
            learners: Vec::new(),
            active: vec![1],
            commit: 9,
            applied: 9,
            last_index: 9,
            first_index: 1,
            log_bytes: 512,
            snapshot_index: self.snapshot.load(SeqCst),
            snapshot_bytes: 2048,
            snapshot_age_ms: 0,
            sending: Vec::new(),
            uptime_ms: 1000,
            gauges: vec![],
            snapshot_pending: left > 1,
            snapshot_written: self.written[0].fetch_add(self.written[1].load(SeqCst), SeqCst),
            stages: Vec::new(),
            disk: Default::default(),
        }
    }
}

impl Transport for MapCluster {
    fn call(
        &self,
        _: &str,
        ask: &Ask,
        _: Index,
        _: Duration,
        _: &Stop,
    ) -> Result<Answered, CallError> {
        self.answer(ask).map(Answered::from)
    }
}

impl MapCluster {
    fn answer(&self, ask: &Ask) -> Result<Answer, CallError> {
        let reply = match ask {
            Ask::Status => return Ok(Answer::Status(Box::new(self.status()))),
            Ask::Transfer(_) => return Ok(Answer::Transferring),
            Ask::Snapshot => return Ok(self.take_snapshot()),
            Ask::Members | Ask::Change { .. } | Ask::Join(_) => {
                return Ok(Answer::Invalid("not here".into()));
            }
            Ask::Submit(bytes) => match codec::decode(bytes).unwrap() {
                Command::OpenSession => Reply::Opened(1),
                Command::KeepAlive { .. } | Command::CloseSession { .. } => Reply::Done,
                Command::Execute { op, .. } => match self.trouble() {
                    Some(Trouble::Down) => return Err(CallError::NotSent("refused".into())),
                    Some(Trouble::Doubt) => return Ok(Answer::Unknown(Doubt::Timeout)),
                    Some(Trouble::Refusal) => Reply::Refused("the value is too large".into()),
                    None => self.execute(op),
                },
            },
            Ask::Query(bytes) => match self.trouble() {
                Some(_) => return Err(CallError::NotSent("refused".into())),
                None => self.query(codec::decode(bytes).unwrap()),
            },
        };
        Ok(Answer::Reply(codec::to_bytes(&reply)))
    }
}
