//! What clients ask of the key/value store.

use bytes::Bytes;
use raftkv::kv::{Command, CommandOf, Kv, Limits, Op, Page, Query, Reply, Scan};
use raftkv::machine::{At, StateMachine};

use super::bits::Bits;
use super::depth::reached;
use super::wire::{encoded, value};

/// Commands, queries and replies decode or do not; and the two ways to read a command agree.
pub fn decoders(data: &[u8]) {
    let owned = value::<Command>(data);
    let in_place = CommandOf::decode(data);
    assert_eq!(owned.is_some(), in_place.is_ok());
    if owned.is_some() {
        reached("a command is read");
    }
    if value::<Query>(data).is_some() {
        reached("a query is read");
    }
    if value::<Reply>(data).is_some() {
        reached("a reply is read");
    }
}

pub fn decoder_seeds() -> Vec<Vec<u8>> {
    let page = Page {
        items: Vec::new(),
        next: Some("k".into()),
    };
    let replies = [
        Reply::Opened(7),
        Reply::Done,
        Reply::Value(Some("v".into())),
        Reply::Deleted(true),
        Reply::Swapped(Err(Some("v".into()))),
        Reply::Appended(300),
        Reply::Page(page),
        Reply::NoSession(1),
        Reply::AnswerDropped,
        Reply::TooManyInFlight,
        Reply::Refused("no".into()),
    ];
    let commands = commands().into_iter().map(|command| encoded(&command));
    let queries = queries().into_iter().map(|query| encoded(&query));
    let replies = replies.iter().map(encoded);
    commands.chain(queries).chain(replies).collect()
}

/// Whatever passes the gate is executed, on two replicas alike, and every reply can be sent.
pub fn sequence(data: &[u8]) {
    let mut input = Bits::new(data);
    // Small enough to be reached by a short input.
    let limits = Limits {
        max_key_bytes: 8,
        max_value_bytes: 40,
        max_sessions: 3,
        session_ttl_ms: 1000,
        max_in_flight: 4,
        max_session_reply_bytes: 100,
        max_reply_bytes: 200,
        max_scan_items: 3,
        max_scan_bytes: 64,
    };
    let (mut first, mut second) = (Kv::new(limits.clone()), Kv::new(limits));
    let gate = first.gate();
    let mut at = At {
        index: 0,
        time_ms: 0,
    };
    while !input.is_empty() {
        let kind = input.byte();
        let bytes = Bytes::copy_from_slice(input.string());
        if kind & 1 == 1 {
            let reply = first.query(&bytes);
            assert_eq!(reply, sent(reply.clone()));
            if !matches!(reply, Reply::Refused(_)) {
                reached("a query is answered");
            }
            continue;
        }
        at.index += 1;
        at.time_ms = at.time_ms.saturating_add(match kind {
            255.. => u64::MAX,
            _ => u64::from(kind >> 3) * 20,
        });
        if gate(&bytes).is_err() {
            reached("a command is refused");
        } else {
            let copy = first.clone();
            let before = first.digest();
            let reply = first.apply(at, &bytes);
            assert_eq!(reply, second.apply(at, &bytes), "replicas differ");
            assert_eq!(reply, sent(reply.clone()));
            assert_eq!(copy.digest(), before, "a copy is of one moment");
            note(&copy, &first, &reply);
        }
    }
    assert_eq!(first.digest(), second.digest());
    assert_eq!(first.gauges(), second.gauges());
}

/// Notes what a command has led to.
fn note(before: &Kv, after: &Kv, reply: &Reply) {
    let gauge = |machine: &Kv, name| {
        let gauges = machine.gauges();
        gauges.into_iter().find(|(known, _)| *known == name)
    };
    if gauge(before, "duplicates") != gauge(after, "duplicates") {
        reached("a repeated one is answered");
    } else if matches!(reply, Reply::NoSession(_)) {
        reached("a session has expired");
    } else {
        reached("a command is executed");
    }
}

fn sent(reply: Reply) -> Reply {
    let mut bytes = Vec::new();
    Kv::encode_reply(&reply, &mut bytes);
    Reply::decode(&bytes).expect("a reply decodes")
}

pub fn sequence_seeds() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for command in commands() {
        put(&mut all, 8, &encoded(&command));
    }
    for query in queries() {
        put(&mut all, 1, &encoded(&query));
    }
    let mut repeated = Vec::new();
    for command in [
        &commands()[0],
        &commands()[0],
        &commands()[4],
        &commands()[4],
    ] {
        put(&mut repeated, 16, &encoded(command));
    }
    // The session that the first command opens has expired when the second one comes.
    let mut late = Vec::new();
    put(&mut late, 8, &encoded(&commands()[0]));
    put(&mut late, 248, &encoded(&commands()[0]));
    put(&mut late, 248, &encoded(&commands()[1]));
    vec![all, repeated, late]
}

fn put(input: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    input.extend([kind, bytes.len() as u8]);
    input.extend(bytes);
}

fn commands() -> Vec<Command> {
    let key = || Bytes::from_static(b"key");
    let value = || Bytes::from_static(b"value");
    let ops = [
        Op::Put {
            key: key(),
            value: value(),
        },
        Op::Append {
            key: key(),
            value: value(),
        },
        Op::Get { key: key() },
        Op::Cas {
            key: key(),
            expected: Some(value()),
            value: "new".into(),
        },
        Op::Delete { key: key() },
    ];
    let execute = |(seq, op)| Command::Execute {
        session: 1,
        seq,
        lowest_unanswered: 1,
        op,
    };
    let mut commands = vec![Command::OpenSession];
    commands.extend((1..).zip(ops).map(execute));
    commands.push(Command::KeepAlive {
        session: 1,
        lowest_unanswered: 3,
    });
    commands.push(Command::CloseSession { session: 1 });
    commands
}

fn queries() -> Vec<Query> {
    let range = Scan::range("a", Some("z".into()));
    vec![
        Query::Get { key: "key".into() },
        Query::Scan(Scan::all()),
        Query::Scan(range.with_limit(2)),
    ]
}
