//! The store compared with a plain map of vectors, and the cases that such a comparison may miss.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::kv::{Command, CommandOf, Op};

type Naive = BTreeMap<Vec<u8>, Vec<u8>>;

fn small_limits() -> Limits {
    Limits {
        max_value_bytes: 10_000,
        max_scan_items: 20,
        max_scan_bytes: 12_000,
        ..Limits::default()
    }
}

/// Executes an operation as the state machine does: its key and values are slices of an encoded
/// command.
fn execute(store: &mut Store, op: &Op, limits: &Limits) -> Reply {
    let op = op.clone();
    let command = Command::Execute {
        session: 1,
        seq: 1,
        lowest_unanswered: 1,
        op,
    };
    let source = command.to_bytes();
    match CommandOf::decode(&source) {
        Ok(CommandOf::Execute { op, .. }) => store.execute(&source, op, limits),
        other => panic!("the command must decode: {other:?}"),
    }
}

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Op {
    Op::Put {
        key: key.into(),
        value: value.into(),
    }
}

fn append(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Op {
    Op::Append {
        key: key.into(),
        value: value.into(),
    }
}

fn naive_execute(map: &mut Naive, op: &Op, limits: &Limits) -> Reply {
    let bytes = |value: &Vec<u8>| Bytes::from(value.clone());
    match op {
        Op::Get { key } => Reply::Value(map.get(&key[..]).map(bytes)),
        Op::Put { key, value } => {
            map.insert(key.to_vec(), value.to_vec());
            Reply::Done
        }
        Op::Append { key, value } => {
            let mut grown = map.get(&key[..]).cloned().unwrap_or_default();
            grown.extend(value);
            let len = grown.len();
            if len > limits.max_value_bytes {
                return Reply::Refused(format!(
                    "the value after the append has {len} bytes; the limit is 10000 \
                     (max_value_bytes)"
                ));
            }
            map.insert(key.to_vec(), grown);
            Reply::Appended(len as u64)
        }
        Op::Delete { key } => Reply::Deleted(map.remove(&key[..]).is_some()),
        Op::Cas {
            key,
            expected,
            value,
        } => {
            let present = map.get(&key[..]);
            if present.map(Vec::as_slice) != expected.as_deref() {
                return Reply::Swapped(Err(present.map(bytes)));
            }
            map.insert(key.to_vec(), value.to_vec());
            Reply::Swapped(Ok(()))
        }
    }
}

/// A key, drawn from so few that operations often have the same key, and from so many that the map
/// has several nodes. The bytes in it are those that are easily handled wrongly.
fn a_key() -> impl Strategy<Value = Bytes> {
    let byte = prop::sample::select(vec![0x00, 0x01, b'a', 0xfe, 0xff]);
    prop::collection::vec(byte, 1..5).prop_map(Bytes::from)
}

fn a_value() -> impl Strategy<Value = Bytes> {
    let len = prop_oneof![4 => 0..4usize, 1 => 0..6000usize];
    (0..2u8, len).prop_map(|(byte, len)| vec![byte; len].into())
}

fn an_op() -> impl Strategy<Value = Op> {
    let expected = prop::option::of(a_value());
    prop_oneof![
        1 => a_key().prop_map(|key| Op::Get { key }),
        4 => (a_key(), a_value()).prop_map(|(key, value)| put(key, value)),
        2 => (a_key(), a_value()).prop_map(|(key, value)| append(key, value)),
        1 => a_key().prop_map(|key| Op::Delete { key }),
        2 => (a_key(), expected, a_value())
            .prop_map(|(key, expected, value)| Op::Cas { key, expected, value }),
    ]
}

fn a_scan() -> impl Strategy<Value = Scan> {
    let range = prop_oneof![
        Just(Scan::all()),
        prop::collection::vec(prop::sample::select(vec![0u8, b'a', 0xff]), 0..3)
            .prop_map(Scan::prefix),
        (a_key(), a_key()).prop_map(|(start, end)| Scan::range(start, Some(end))),
    ];
    (
        range,
        0..30u32,
        prop_oneof![Just(0), 1..20_000u32],
        any::<bool>(),
    )
        .prop_map(|(scan, limit, limit_bytes, keys_only)| Scan {
            limit,
            limit_bytes,
            keys_only,
            ..scan
        })
}

/// A page without a limit on its weight.
fn page_of(store: &Store, scan: &Scan, limits: &Limits) -> Page {
    let page = store.scan_within(scan, limits, usize::MAX);
    page.expect("no page is too large for that")
}

/// Reads all pages of a scan. Checks each page against the limits, and all items together against
/// the naive map.
fn check_scan(store: &Store, naive: &Naive, scan: Scan, limits: &Limits) {
    let weight = |item: &Item| item.key.len() + item.value.len();
    let max_items = at_most(scan.limit, limits.max_scan_items);
    let max_bytes = at_most(scan.limit_bytes, limits.max_scan_bytes);
    let mut read = Vec::new();
    let mut rest = Some(scan.clone());
    while let Some(scan) = rest {
        let page = page_of(store, &scan, limits);
        assert!(page.items.len() <= max_items, "{page:?}");
        let bytes: usize = page.items.iter().map(weight).sum();
        assert!(bytes <= max_bytes || page.items.len() == 1, "{page:?}");
        if let Some(next) = &page.next {
            let last = page
                .items
                .last()
                .expect("a page with more to come has an item");
            assert!(last.key < *next);
            // The page is full, or the next item would not have fitted.
            let value = if scan.keys_only {
                &[][..]
            } else {
                &naive[&next[..]]
            };
            let full = page.items.len() == max_items;
            assert!(full || bytes + next.len() + value.len() > max_bytes);
        }
        rest = scan.next(&page);
        read.extend(page.items);
    }
    let expected: Vec<Item> = naive
        .iter()
        .filter(|(key, _)| scan.contains(key))
        .map(|(key, value)| Item {
            key: key.clone().into(),
            value: if scan.keys_only {
                Bytes::new()
            } else {
                value.clone().into()
            },
        })
        .collect();
    assert_eq!(read, expected);
}

fn check_content(store: &Store, naive: &Naive) {
    assert_eq!(store.len(), naive.len());
    let bytes: usize = naive
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    assert_eq!(store.bytes(), bytes as u64);
    for ((key, value), (naive_key, naive_value)) in store.map.iter().zip(naive) {
        assert_eq!(key[..], naive_key[..]);
        assert!(value.equals(naive_value), "the value of {key:?}");
    }
}

fn digest_of(store: &Store) -> u64 {
    let mut digest = Digest::new();
    store.digest(&mut digest);
    digest.finish()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_store_does_what_a_plain_map_does(
        ops in prop::collection::vec(an_op(), 1..400),
        scans in prop::collection::vec(a_scan(), 8),
        clone_after in 0..400usize,
    ) {
        let limits = small_limits();
        let (mut store, mut naive) = (Store::default(), Naive::new());
        let mut clone = None;
        for (step, op) in ops.iter().enumerate() {
            if step == clone_after {
                clone = Some((store.clone(), naive.clone()));
            }
            let expected = naive_execute(&mut naive, op, &limits);
            prop_assert_eq!(execute(&mut store, op, &limits), expected);
        }
        check_content(&store, &naive);
        for scan in scans {
            check_scan(&store, &naive, scan, &limits);
        }
        if let Some((store, naive)) = clone {
            check_content(&store, &naive);
        }
        let mut again = Store::default();
        for (key, value) in naive.iter().rev() {
            execute(&mut again, &put(key.clone(), value.clone()), &limits);
        }
        prop_assert_eq!(digest_of(&store), digest_of(&again));
        execute(&mut again, &append("a", "!"), &limits);
        prop_assert_ne!(digest_of(&store), digest_of(&again));
    }
}

fn store_of(items: &[(&[u8], &[u8])]) -> Store {
    let mut store = Store::default();
    for (key, value) in items {
        let op = put(key.to_vec(), value.to_vec());
        execute(&mut store, &op, &Limits::default());
    }
    store
}

fn keys(page: &Page) -> Vec<&[u8]> {
    page.items.iter().map(|item| &item.key[..]).collect()
}

#[test]
fn an_append_beyond_the_limit_is_refused_and_changes_nothing() {
    let limits = Limits {
        max_value_bytes: 5,
        ..Limits::default()
    };
    let mut store = store_of(&[(b"k", b"abc")]);
    let reply = execute(&mut store, &append("k", "def"), &limits);
    let reason = "the value after the append has 6 bytes; the limit is 5 (max_value_bytes)";
    assert_eq!(reply, Reply::Refused(reason.into()));
    assert_eq!(store.get(b"k"), Some("abc".into()));
    assert_eq!(store.bytes(), 4);
    let reply = execute(&mut store, &append("k", "de"), &limits);
    assert_eq!(reply, Reply::Appended(5));
}

#[test]
fn an_empty_value_is_not_a_missing_one() {
    let mut store = store_of(&[(b"k", b"")]);
    assert_eq!(store.get(b"k"), Some(Bytes::new()));
    assert_eq!(store.get(b"other"), None);
    let cas = |expected| Op::Cas {
        key: "k".into(),
        expected,
        value: "new".into(),
    };
    let reply = execute(&mut store, &cas(None), &Limits::default());
    assert_eq!(reply, Reply::Swapped(Err(Some(Bytes::new()))));
    let reply = execute(&mut store, &cas(Some(Bytes::new())), &Limits::default());
    assert_eq!(reply, Reply::Swapped(Ok(())));
}

#[test]
fn keys_of_any_bytes_are_in_their_order_and_within_their_prefix() {
    let store = store_of(&[
        (b"\xff\xff", b""),
        (b"\xff", b""),
        (b"\x00", b""),
        (b"\x00\x00", b""),
        (b"a\xff", b""),
        (b"a\x00", b""),
        (b"b", b""),
    ]);
    let scan = |scan: Scan| page_of(&store, &scan, &Limits::default());
    let all: [&[u8]; 7] = [
        b"\x00",
        b"\x00\x00",
        b"a\x00",
        b"a\xff",
        b"b",
        b"\xff",
        b"\xff\xff",
    ];
    assert_eq!(keys(&scan(Scan::all())), all);
    assert_eq!(keys(&scan(Scan::prefix(""))), all);
    assert_eq!(keys(&scan(Scan::prefix("a"))), all[2..4]);
    assert_eq!(keys(&scan(Scan::prefix(&b"\xff"[..]))), all[5..]);
    assert_eq!(keys(&scan(Scan::prefix(&b"a\xff"[..]))), all[3..4]);
    assert_eq!(keys(&scan(Scan::prefix(&b"\x00"[..]))), all[..2]);
}

#[test]
fn a_range_that_ends_before_it_starts_is_empty() {
    let store = store_of(&[(b"a", b""), (b"b", b"")]);
    for end in ["", "a", "b"] {
        let scan = Scan::range("b", Some(end.into()));
        assert_eq!(
            page_of(&store, &scan, &Limits::default()),
            Page::default(),
            "{end}"
        );
    }
}

#[test]
fn an_item_larger_than_a_page_comes_alone_and_whole() {
    let large = vec![b'x'; 5000];
    let store = store_of(&[(b"a", b"1"), (b"b", &large), (b"c", b"3")]);
    let mut scan = Scan::all().with_limit_bytes(100);
    let mut pages = Vec::new();
    loop {
        let page = page_of(&store, &scan, &Limits::default());
        pages.push(
            page.items
                .iter()
                .map(|item| item.value.len())
                .collect::<Vec<_>>(),
        );
        match scan.next(&page) {
            Some(next) => scan = next,
            None => break,
        }
    }
    assert_eq!(pages, [vec![1], vec![5000], vec![1]]);
}

#[test]
fn a_page_of_the_largest_items_fits_into_a_message() {
    let limits = Limits::default();
    let mut store = Store::default();
    let value = vec![b'x'; limits.max_value_bytes];
    for number in 0..3u8 {
        let key = vec![number; limits.max_key_bytes];
        execute(&mut store, &put(key, value.clone()), &limits);
    }
    let page = page_of(&store, &Scan::all(), &limits);
    let encoded = crate::wire::codec::to_bytes(&Reply::Page(page));
    assert!(encoded.len() > limits.max_value_bytes);
    assert!(encoded.len() <= crate::kv::MAX_MESSAGE, "{}", encoded.len());
}

#[test]
fn paging_goes_on_where_it_was_when_the_next_key_is_deleted() {
    let limits = Limits::default();
    let mut store = store_of(&[(b"a", b""), (b"b", b""), (b"c", b""), (b"d", b"")]);
    let scan = Scan::all().with_limit(2);
    let page = page_of(&store, &scan, &limits);
    assert_eq!(
        (keys(&page), page.next.as_deref()),
        (vec![&b"a"[..], b"b"], Some(&b"c"[..]))
    );
    execute(&mut store, &Op::Delete { key: "c".into() }, &limits);
    let page = page_of(&store, &scan.next(&page).unwrap(), &limits);
    assert_eq!((keys(&page), &page.next), (vec![&b"d"[..]], &None));
}
