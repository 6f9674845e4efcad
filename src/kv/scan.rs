//! Scans: the request for a part of the key space, and the page of keys and values that answers it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The request for one page of a range of keys: which keys to read, and how many at the most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// The first key of the range, inclusive. Empty: from the first key of all.
    pub start: Bytes,
    /// The end of the range, exclusive. `None`: to the last key of all.
    pub end: Option<Bytes>,
    /// How many items the page may have. Zero, or more than the server's limit, means the server's
    /// limit.
    pub limit: u32,
    /// How many bytes of keys and values the page may have. Zero, or more than the server's limit,
    /// means the server's limit. A page always has its first item, even if that item alone is
    /// larger.
    pub limit_bytes: u32,
    /// Leave the values out: every item's value comes back empty.
    pub keys_only: bool,
}

/// One page of a scan: some of its items, and where the next page starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The items, in ascending order of their keys.
    pub items: Vec<Item>,
    /// The first key after this page, where the next page starts; `None` if this is the last page
    /// of the range.
    pub next: Option<Bytes>,
}

/// A key and its value, as a scan returns them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The key.
    pub key: Bytes,
    /// The key's value; empty if the scan left the values out.
    pub value: Bytes,
}

impl Item {
    /// How long it takes to find an item in the map, to allocate, to encode and to free it, as the
    /// number of bytes that could be copied in the same time.
    pub(super) const OVERHEAD: usize = 64;
}

impl Page {
    /// About how long it takes to read and to send the page, as the number of bytes that could be
    /// copied in the same time.
    pub(super) fn weight(&self) -> usize {
        let of_item = |item: &Item| Item::OVERHEAD + item.key.len() + item.value.len();
        self.items.iter().map(of_item).sum()
    }
}

impl Scan {
    /// A scan of all keys.
    pub fn all() -> Self {
        Self::range(Bytes::new(), None)
    }

    /// A scan of the keys from `start` (inclusive) to `end` (exclusive); without an end, to the
    /// last key.
    ///
    /// ```
    /// use raftkv::kv::Scan;
    ///
    /// let scan = Scan::range("b", Some("d".into())).with_limit(10);
    /// assert!(scan.contains(b"b") && scan.contains(b"cat"));
    /// assert!(!scan.contains(b"a") && !scan.contains(b"d"));
    /// ```
    pub fn range(start: impl Into<Bytes>, end: Option<Bytes>) -> Self {
        Self {
            start: start.into(),
            end,
            limit: 0,
            limit_bytes: 0,
            keys_only: false,
        }
    }

    /// A scan of the keys that begin with `prefix`.
    ///
    /// ```
    /// use raftkv::kv::Scan;
    ///
    /// let scan = Scan::prefix("user/");
    /// assert!(scan.contains(b"user/7") && !scan.contains(b"users"));
    ///
    /// // No key follows all those that begin with 0xff, so the range has no end.
    /// assert_eq!(Scan::prefix(&b"\xff\xff"[..]).end, None);
    /// assert_eq!(Scan::prefix(&b"a\xff"[..]).end.as_deref(), Some(&b"b"[..]));
    /// ```
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        let end = end_of_prefix(&start);
        Self::range(start, end)
    }

    /// The same scan with at most `items` items on a page.
    #[must_use]
    pub fn with_limit(self, items: u32) -> Self {
        Self {
            limit: items,
            ..self
        }
    }

    /// The same scan with at most `bytes` bytes of keys and values on a page.
    #[must_use]
    pub fn with_limit_bytes(self, bytes: u32) -> Self {
        Self {
            limit_bytes: bytes,
            ..self
        }
    }

    /// The same scan without the values.
    #[must_use]
    pub fn keys_only(self) -> Self {
        Self {
            keys_only: true,
            ..self
        }
    }

    /// The scan for the page that follows `page`, which is the answer to this scan; `None` if
    /// `page` is the last one.
    #[must_use]
    pub fn next(&self, page: &Page) -> Option<Self> {
        let start = page.next.clone()?;
        Some(Self {
            start,
            ..self.clone()
        })
    }

    /// Whether the key lies within the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        *self.start <= *key && self.end.as_ref().is_none_or(|end| *key < **end)
    }
}

/// The lowest key above all keys that begin with the prefix: the prefix up to and including its
/// last byte that is not 0xff, with that byte increased by one. `None` if all bytes are 0xff: no
/// key is above all those.
fn end_of_prefix(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}
