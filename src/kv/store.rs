//! The map of keys and values, in the order of the keys, and the operations on it.

use std::ops::Bound;

use bytes::Bytes;
use imbl::OrdMap;

use super::command::{OpOf, Reply};
use super::digest::Digest;
use super::key::Key;
use super::limits::Limits;
use super::scan::{Item, Page, Scan};
use super::value::Value;

/// The keys and values of the store. The map is persistent: a clone takes O(1) and shares its nodes
/// with the original until one of the two changes them. This makes a snapshot cheap.
#[derive(Clone, Default)]
pub(super) struct Store {
    map: OrdMap<Key, Value>,
    /// How many bytes all keys and values have together.
    bytes: u64,
}

impl Store {
    /// How many keys the store has.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// How many bytes all keys and values have together.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Executes an operation. Its keys and values are slices of `source`, the command's bytes, so
    /// that a large value can be kept without a copy.
    pub fn execute(&mut self, source: &Bytes, op: OpOf<&[u8]>, limits: &Limits) -> Reply {
        match op {
            OpOf::Get { key } => Reply::Value(self.get(key)),
            OpOf::Put { key, value } => {
                self.put(source, key, value);
                Reply::Done
            }
            OpOf::Append { key, value } => self.append(source, key, value, limits),
            OpOf::Delete { key } => Reply::Deleted(self.delete(key)),
            OpOf::Cas {
                key,
                expected,
                value,
            } => Reply::Swapped(self.cas(source, key, expected, value)),
        }
    }

    /// The value of a key; `None` if the key is missing.
    pub fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.map.get(key).map(Value::to_bytes)
    }

    /// The value of a key. The outer `None`: the value is longer than `room` bytes and was not
    /// read. The inner `None`: the key is missing.
    pub fn get_within(&self, key: &[u8], room: usize) -> Option<Option<Bytes>> {
        match self.map.get(key) {
            Some(value) if value.len() > room => None,
            value => Some(value.map(Value::to_bytes)),
        }
    }

    fn put(&mut self, source: &Bytes, key: &[u8], part: &[u8]) {
        let value = Value::new(source, part);
        self.bytes += value.len() as u64;
        match self.map.get_mut(key) {
            Some(present) => {
                self.bytes -= present.len() as u64;
                *present = value;
            }
            None => {
                self.bytes += key.len() as u64;
                self.map.insert(Key::new(key), value);
            }
        }
    }

    /// The gate has checked the key and the part to append. The length of the value after the
    /// append depends on the state, which the gate does not see, so that length is checked here.
    fn append(&mut self, source: &Bytes, key: &[u8], part: &[u8], limits: &Limits) -> Reply {
        let len = self.map.get(key).map_or(0, Value::len) + part.len();
        if let Err(reason) = limits.check_value("the value after the append", len) {
            return Reply::Refused(reason);
        }
        match self.map.get_mut(key) {
            Some(value) => {
                value.append(source, part);
                self.bytes += part.len() as u64;
            }
            None => self.put(source, key, part),
        }
        Reply::Appended(len as u64)
    }

    fn delete(&mut self, key: &[u8]) -> bool {
        let removed = self.map.remove(key);
        if let Some(value) = &removed {
            self.bytes -= (key.len() + value.len()) as u64;
        }
        removed.is_some()
    }

    fn cas(
        &mut self,
        source: &Bytes,
        key: &[u8],
        expected: Option<&[u8]>,
        value: &[u8],
    ) -> Result<(), Option<Bytes>> {
        let present = self.map.get(key);
        let as_expected = match (present, expected) {
            (Some(present), Some(expected)) => present.equals(expected),
            (None, None) => true,
            _ => false,
        };
        if !as_expected {
            return Err(present.map(Value::to_bytes));
        }
        self.put(source, key, value);
        Ok(())
    }

    /// Reads one page, or gives up and returns `None` as soon as the page would weigh more than
    /// `max_weight`.
    ///
    /// A page holds at least one item if the range has any, even if that item alone is above the
    /// limit on bytes. The client continues after the last item of a page, so after an empty page
    /// it would ask for the same page again, for ever.
    pub fn scan_within(&self, scan: &Scan, limits: &Limits, max_weight: usize) -> Option<Page> {
        let mut page = Page::default();
        // A range that ends before it starts is empty, and must not be passed to the map.
        if scan.end.as_ref().is_some_and(|end| *end <= scan.start) {
            return Some(page);
        }
        let mut weight = 0;
        let mut items = Gathered::default();
        let max_items = at_most(scan.limit, limits.max_scan_items);
        let mut room = at_most(scan.limit_bytes, limits.max_scan_bytes);
        let start = Bound::Included(&scan.start[..]);
        let end = scan
            .end
            .as_deref()
            .map_or(Bound::Unbounded, Bound::Excluded);
        for (key, value) in self.map.range::<_, [u8]>((start, end)) {
            let value_len = if scan.keys_only { 0 } else { value.len() };
            let fits = items.parts.len() < max_items && key.len() + value_len <= room;
            if !fits && !items.parts.is_empty() {
                page.next = Some(Bytes::copy_from_slice(key));
                break;
            }
            room = room.saturating_sub(key.len() + value_len);
            weight += Item::OVERHEAD + key.len() + value_len;
            if weight > max_weight {
                return None;
            }
            items.push(key, (!scan.keys_only).then_some(value));
        }
        page.items = items.finish();
        Some(page)
    }

    /// All keys of the store and their values, in ascending order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Value)> {
        self.map.iter()
    }

    /// Adds items with strictly ascending keys, all above the store's present keys. Leaves `items`
    /// empty.
    ///
    /// The items at even places are inserted first, then those at odd places. Inserting in
    /// ascending order would leave every node of the map half empty: the map splits a full node in
    /// the middle, and no later key falls into the lower half. Here the items at odd places fill
    /// the halves that the items at even places have left empty.
    pub fn extend_sorted(&mut self, items: &mut Vec<(Key, Value)>) {
        let mut later = Vec::with_capacity(items.len() / 2);
        for (place, (key, value)) in items.drain(..).enumerate() {
            self.bytes += (key.len() + value.len()) as u64;
            match place % 2 {
                0 => drop(self.map.insert(key, value)),
                _ => later.push((key, value)),
            }
        }
        self.map.extend(later);
    }

    /// Adds all keys and values to a digest. Stores with equal content give the same digest,
    /// whichever commands they have executed.
    pub fn digest(&self, digest: &mut Digest) {
        digest.number(self.map.len() as u64);
        for (key, value) in &self.map {
            digest.number(key.len() as u64);
            digest.bytes(key);
            value.digest(digest);
        }
    }
}

/// A page that is being read. Its keys and small values are copied one after the other into one
/// buffer, whose memory the items then share. A page has up to 10,000 items; allocating each key
/// and value apart would take longer than everything else that a scan does.
#[derive(Default)]
struct Gathered {
    bytes: Vec<u8>,
    /// For each item, in the order of the keys: how many bytes of the buffer are its key, and where
    /// its value is.
    parts: Vec<(usize, ValuePart)>,
}

enum ValuePart {
    /// The value is in the buffer, right after its key, and has this many bytes.
    Copied(usize),
    /// The value is not in the buffer: a large value in one piece is shared instead of copied.
    Shared(Bytes),
}

impl Gathered {
    fn push(&mut self, key: &[u8], value: Option<&Value>) {
        self.bytes.extend_from_slice(key);
        let before = self.bytes.len();
        let value = match value.map(|value| (value, value.shared())) {
            None => ValuePart::Copied(0),
            Some((_, Some(shared))) => ValuePart::Shared(shared.clone()),
            Some((value, None)) => {
                value
                    .pieces()
                    .for_each(|piece| self.bytes.extend_from_slice(piece));
                ValuePart::Copied(self.bytes.len() - before)
            }
        };
        self.parts.push((key.len(), value));
    }

    fn finish(self) -> Vec<Item> {
        let mut bytes = Bytes::from(self.bytes);
        let parts = self.parts.into_iter();
        let items = parts.map(|(key, value)| Item {
            key: bytes.split_to(key),
            value: match value {
                ValuePart::Copied(len) => bytes.split_to(len),
                ValuePart::Shared(value) => value,
            },
        });
        items.collect()
    }
}

/// The limit that applies to a page: the client's own limit `wish`, but at most the server's
/// `limit`. If `wish` is zero, the client has no limit of its own.
fn at_most(wish: u32, limit: usize) -> usize {
    match wish as usize {
        0 => limit,
        wish => wish.min(limit),
    }
}

#[cfg(test)]
mod tests;
