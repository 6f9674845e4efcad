//! Tests that a state survives being written and read back, and that a stream which is not exactly
//! the stream of some state is refused.

use std::io::{self, Read, Write};

use proptest::prelude::*;

use super::model::{a_step, small_limits};
use super::*;

pub(super) fn written(kv: &Kv) -> Vec<u8> {
    let mut bytes = Vec::new();
    Kv::write_snapshot(&kv.snapshot(), &mut bytes).expect("writing into memory does not fail");
    bytes
}

pub(super) fn restored(limits: Limits, bytes: &[u8]) -> io::Result<Kv> {
    Kv::new(limits).restore(&mut &bytes[..])
}

fn refusal(limits: Limits, bytes: &[u8]) -> String {
    match restored(limits, bytes) {
        Ok(_) => panic!("these bytes must be refused"),
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
            error.to_string()
        }
    }
}

/// The limits for these tests: values can be large, and sessions are few and expire soon.
fn limits() -> Limits {
    Limits {
        max_value_bytes: 12_000,
        max_session_reply_bytes: 20_000,
        max_reply_bytes: 40_000,
        ..small_limits()
    }
}

/// An operation with values of any length: from empty values to values of which a few, appended to
/// each other, reach the limit.
fn an_op() -> impl Strategy<Value = Op> {
    let key = || prop::sample::select(vec!["a", "b", "c", "a key of more bytes than a handle has"]);
    let value = || {
        let len = prop_oneof![3 => 0..40usize, 2 => 1000..5000usize];
        (any::<u8>(), len).prop_map(|(byte, len)| Bytes::from(vec![byte; len]))
    };
    let key = move || key().prop_map(Bytes::from);
    prop_oneof![
        2 => (key(), value()).prop_map(|(key, value)| Op::Put { key, value }),
        5 => (key(), value()).prop_map(|(key, value)| Op::Append { key, value }),
        2 => key().prop_map(|key| Op::Get { key }),
        1 => key().prop_map(|key| Op::Delete { key }),
        1 => (key(), prop::option::of(value()), value())
            .prop_map(|(key, expected, value)| Op::Cas { key, expected, value }),
    ]
}

proptest! {
    #[test]
    fn a_restored_machine_goes_on_exactly_as_the_one_that_was_written(
        steps in prop::collection::vec(a_step(an_op()), 1..120),
        at_step in 0..120usize,
    ) {
        let mut original = Replica::new(limits());
        let mut opened = Vec::new();
        let mut copy = None;
        for (number, step) in steps.iter().enumerate() {
            if number == at_step % steps.len() {
                let bytes = written(&original.kv);
                let kv = restored(limits(), &bytes).unwrap();
                prop_assert_eq!(written(&kv), bytes);
                copy = Some(Replica { kv, at: original.at });
            }
            let command = step.command(&opened);
            let replies = [Some(&mut original), copy.as_mut()].map(|replica| {
                replica.map(|replica| {
                    replica.at.time_ms += step.wait_ms;
                    replica.apply(&command)
                })
            });
            if let [reply, Some(same)] = &replies {
                prop_assert_eq!(reply.as_ref(), Some(same));
            }
            if let Some(Reply::Opened(session)) = &replies[0] {
                opened.push(*session);
            }
            if let Some(copy) = &copy {
                prop_assert_eq!(copy.kv.digest(), original.kv.digest());
                prop_assert_eq!(copy.kv.gauges(), original.kv.gauges());
            }
        }
        prop_assert_eq!(copy.map(|copy| written(&copy.kv)), Some(written(&original.kv)));
    }

    /// Two replicas give each key the same value. They execute different commands for it, and they
    /// take the keys in different orders.
    #[test]
    fn equal_states_give_equal_bytes_whatever_their_histories(
        keys in prop::collection::vec(
            (0..3usize, 0..3usize, 0..12_000usize, 0..12_000usize), 1..20),
        rotate in 0..20usize,
    ) {
        let history = |order: &[usize], way: fn(&(usize, usize, usize, usize)) -> usize| {
            let mut replica = Replica::new(limits());
            let session = replica.open();
            let mut seq = 0;
            for &number in order {
                let entry = &keys[number];
                for op in way_to(way(entry), number, entry.2, entry.3) {
                    seq += 1;
                    replica.apply(&numbered(session, seq, seq, op));
                }
            }
            replica.apply(&Command::KeepAlive { session, lowest_unanswered: seq + 1 });
            replica.kv
        };
        let order: Vec<usize> = (0..keys.len()).collect();
        let mut other = order.clone();
        other.rotate_left(rotate % order.len());
        other.reverse();
        let (one, two) = (history(&order, |entry| entry.0), history(&other, |entry| entry.1));
        prop_assert_eq!(one.digest(), two.digest());
        prop_assert!(written(&one) == written(&two));
    }

    /// A damaged stream is refused, or it is exactly the stream of another state. Either is right:
    /// the checksums around the stream notice the second case.
    #[test]
    fn damaged_bytes_are_refused_or_are_the_form_of_another_state(
        steps in prop::collection::vec(a_step(an_op()), 1..60),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut replica = Replica::new(limits());
        let mut opened = Vec::new();
        for step in steps {
            if let Reply::Opened(session) = replica.apply(&step.command(&opened)) {
                opened.push(session);
            }
        }
        let mut bytes = written(&replica.kv);
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        match restored(limits(), &bytes) {
            Ok(kv) => prop_assert!(written(&kv) == bytes),
            Err(error) => prop_assert_eq!(error.kind(), io::ErrorKind::InvalidData),
        }
    }
}

/// One of three ways to give a key its value: three commands after which the value is `len` times
/// the byte `number`.
fn way_to(way: usize, number: usize, len: usize, cut: usize) -> [Op; 3] {
    let key = || Bytes::from(format!("key {number:03}"));
    let part = |len| Bytes::from(vec![number as u8; len]);
    let put = |len| Op::Put {
        key: key(),
        value: part(len),
    };
    let append = |len| Op::Append {
        key: key(),
        value: part(len),
    };
    let (first, second) = (cut % (len + 1), cut / 2 % (len + 1));
    match way {
        0 => [put(cut), Op::Delete { key: key() }, put(len)],
        1 => [Op::Get { key: key() }, put(first), append(len - first)],
        _ => {
            let (low, high) = (first.min(second), first.max(second));
            [append(low), append(high - low), append(len - high)]
        }
    }
}

/// A state with one key and one session with one reply, and its bytes.
fn small_state() -> (Kv, Vec<u8>) {
    let mut replica = Replica::new(Limits::default());
    let session = replica.open();
    replica.at.time_ms = 300;
    replica.apply(&numbered(session, 5, 3, append("vw")));
    let number = u64::to_le_bytes;
    let bytes = [
        &b"rkvstate\x01\0\0\0"[..],
        &number(2),
        &number(300),
        &number(1),
        b"\x01\0\0\0\x02\0\0\0kvw",
        &number(0),
        &number(1),
        &[number(1), number(2), number(300), number(3), number(1)].concat(),
        &number(5),
        b"\x02\0\0\0\x05\x02",
    ];
    (replica.kv, bytes.concat())
}

/// Existing snapshots have this format, so these bytes must not change.
#[test]
fn a_state_has_the_form_that_old_snapshots_hold() {
    let (kv, bytes) = small_state();
    assert_eq!(written(&kv), bytes);
    let restored = restored(Limits::default(), &bytes).unwrap();
    assert_eq!(restored.digest(), kv.digest());
}

#[test]
fn an_empty_machine_comes_back_empty() {
    let kv = Kv::new(Limits::default());
    let restored = restored(Limits::default(), &written(&kv)).unwrap();
    assert_eq!(restored.digest(), kv.digest());
    assert_eq!(restored.gauges(), kv.gauges());
}

#[test]
fn a_snapshot_stays_as_it_was_while_the_machine_goes_on() {
    let mut replica = Replica::new(Limits::default());
    let session = replica.open();
    replica.apply(&numbered(session, 1, 1, append("a")));
    let (snapshot, bytes) = (replica.kv.snapshot(), written(&replica.kv));
    replica.apply(&numbered(session, 2, 2, append("b")));
    replica.open();
    let mut late = Vec::new();
    Kv::write_snapshot(&snapshot, &mut late).unwrap();
    assert!(late == bytes && late != written(&replica.kv));
}

#[test]
fn a_state_that_ends_early_or_goes_on_is_refused() {
    let (_, bytes) = small_state();
    for len in 0..bytes.len() {
        let reason = refusal(Limits::default(), &bytes[..len]);
        assert!(reason.contains("it ends before"), "{len} bytes: {reason}");
    }
    let longer = [&bytes[..], b"\0"].concat();
    let reason = refusal(Limits::default(), &longer);
    assert!(reason.contains("left over"), "{reason}");
}

#[test]
fn each_thing_that_cannot_be_is_refused_with_its_reason() {
    let (_, bytes) = small_state();
    // For each field of the small state: its offset, a byte that makes it invalid, and the reason
    // that the refusal must give.
    for (place, byte, reason) in [
        (0, b'x', "does not begin with"),
        (8, 2, "format version 2; this program reads version 1"),
        (35, 1, "key 2 of 72057594037927937: the key is empty"),
        (36, 0, "key 1 of 1: the key is empty"),
        (38, 2, "key 1 of 1: the key has 131073 bytes"),
        (43, 1, "key 1 of 1: the value has 16777218 bytes"),
        (62, 1, "it ends before all of it is there"),
        (63, 0, "its id, 0, does not follow"),
        (63, 3, "used before it was opened"),
        (71, 3, "or after the last command"),
        (79, 45, "or after the last command"),
        (87, 0, "lowest unanswered number is 0"),
        (87, 6, "number 5 does not follow"),
        (102, 1, "it ends before all of it is there"),
        (104, 4, "number 1029 does not follow"),
        (114, 1, "a reply of 16777218 bytes is too long"),
        (115, 99, "a reply: the bytes do not decode"),
        (115, 0, "that no operation returns"),
        (115, 1, "a reply: 1 bytes are left over"),
    ] {
        let mut bytes = bytes.clone();
        bytes[place] = byte;
        let told = refusal(Limits::default(), &bytes);
        assert!(told.contains(reason), "byte {place} = {byte}: {told}");
    }
    let mut long_form = bytes.clone();
    long_form.splice(111.., *b"\x04\0\0\0\x05\xfb\x02\0");
    let told = refusal(Limits::default(), &long_form);
    assert!(told.contains("not in the form"), "{told}");
}

#[test]
fn keys_that_do_not_ascend_are_refused() {
    let state = |keys: [&[u8]; 2]| {
        let item = |key: &[u8]| [&[key.len() as u8, 0, 0, 0, 0, 0, 0, 0], key].concat();
        let head = b"rkvstate\x01\0\0\0";
        let (last, count, none) = ([0; 16], 2u64.to_le_bytes(), [0; 16]);
        let items = keys.map(item).concat();
        [&head[..], &last, &count, &items, &none].concat()
    };
    for keys in [[b"a", b"a"], [b"b", b"a"]] {
        let reason = refusal(Limits::default(), &state(keys.map(|key| &key[..])));
        let expected = "key 2 of 2: it does not follow the one before it";
        assert!(reason.contains(expected), "{reason}");
    }
    assert!(restored(Limits::default(), &state([b"a", b"a\0"])).is_ok());
}

#[test]
fn sessions_that_cannot_be_together_are_refused() {
    // Makes a stream with these sessions: the id, the index of the last use, the cluster time of
    // the last use. The last command applied has index 9 and time 1000 ms.
    let state = |sessions: &[(u64, u64, u64)]| {
        let mut bytes = b"rkvstate\x01\0\0\0".to_vec();
        let mut numbers = vec![9, 1000, 0, 0, sessions.len() as u64];
        for &(id, index, time_ms) in sessions {
            numbers.extend([id, index, time_ms, 1, 0]);
        }
        bytes.extend(numbers.into_iter().flat_map(u64::to_le_bytes));
        bytes
    };
    let expired = (1, 1, 899);
    let four = [(1, 1, 1000), (2, 2, 1000), (3, 3, 1000), (4, 4, 1000)];
    for (sessions, reason) in [
        (&[(2, 8, 1000), (1, 9, 1000)][..], "its id, 1, does not"),
        (&[(1, 9, 1000), (2, 9, 1000)], "session 1 was last used by"),
        (&[(1, 9, 950), (2, 8, 960)], "time goes back"),
        (&[expired], "it has expired"),
        (&four, "the limit is 3 (max_sessions)"),
    ] {
        let told = refusal(small_limits(), &state(sessions));
        assert!(told.contains(reason), "{sessions:?}: {told}");
    }
    assert!(restored(small_limits(), &state(&four[..3])).is_ok());
}

#[test]
fn more_kept_bytes_than_the_limit_are_refused() {
    let mut replica = Replica::new(Limits::default());
    for _ in 0..2 {
        let session = replica.open();
        replica.apply(&numbered(session, 1, 1, append("a")));
    }
    let limits = Limits {
        max_reply_bytes: 127,
        max_session_reply_bytes: 127,
        ..Limits::default()
    };
    let reason = refusal(limits, &written(&replica.kv));
    assert!(reason.contains("128 bytes of replies"), "{reason}");
}

/// An output that fails at the first write beyond `room` bytes, and notes the longest piece that it
/// was given.
struct Outlet {
    room: usize,
    longest: usize,
    failed: bool,
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(!self.failed, "nothing is written after a write that failed");
        self.longest = self.longest.max(bytes.len());
        self.failed = self.room < bytes.len();
        if self.failed {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.room -= bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_grown_value_is_written_in_pieces_and_a_full_disk_is_told() {
    let mut replica = Replica::new(Limits::default());
    let session = replica.open();
    let part = Bytes::from(vec![b'x'; 1000]);
    for seq in 1..=1000 {
        let (key, value) = ("k".into(), part.clone());
        replica.apply(&numbered(session, seq, seq, Op::Append { key, value }));
    }
    let write = |room| {
        let mut outlet = Outlet {
            room,
            longest: 0,
            failed: false,
        };
        let result = Kv::write_snapshot(&replica.kv.snapshot(), &mut outlet);
        (result.map_err(|error| error.kind()), outlet.longest)
    };
    let (result, longest) = write(usize::MAX);
    assert_eq!(result, Ok(()));
    assert!(longest <= 64 << 10, "{longest}");
    assert_eq!(write(500_000).0, Err(io::ErrorKind::StorageFull));
    assert_eq!(write(10).0, Err(io::ErrorKind::StorageFull));
}

#[test]
fn an_input_that_fails_is_told_as_it_failed() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
    let (_, bytes) = small_state();
    let mut input = bytes[..50].chain(Broken);
    let error = Kv::new(Limits::default())
        .restore(&mut input)
        .err()
        .unwrap();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
}

/// A repeat arrives after its session has expired. Every replica refuses it alike: the one that has
/// executed the whole log, and those that started from a snapshot taken at any earlier time.
#[test]
fn a_repeat_after_the_end_of_its_session_is_refused_on_all_replicas_alike() {
    let ttl_ms = limits().session_ttl_ms;
    let mut original = Replica::new(limits());
    let mut copies: Vec<Replica> = Vec::new();
    let session = original.open();
    let first = numbered(session, 1, 1, append("a"));
    assert_eq!(original.apply(&first), Reply::Appended(1));
    let copy = |original: &Replica| Replica {
        kv: restored(limits(), &written(&original.kv)).expect("it was written by a store"),
        at: original.at,
    };
    let gone = Reply::NoSession(session);
    // The session still lives after its whole time to live; one more millisecond ends it; and it
    // stays gone.
    for (passed_ms, expected) in [
        (ttl_ms, Reply::Appended(1)),
        (ttl_ms + 1, gone.clone()),
        (0, gone),
    ] {
        copies.push(copy(&original));
        let time_ms = original.at.time_ms + passed_ms;
        for replica in copies.iter_mut().chain([&mut original]) {
            replica.at.time_ms = time_ms;
            assert_eq!(replica.apply(&first), expected);
        }
        copies.push(copy(&original));
        for replica in &copies {
            assert_eq!(replica.kv.digest(), original.kv.digest());
            assert_eq!(replica.read("k"), Some("a".into()));
        }
    }
}
