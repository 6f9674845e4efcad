//! Reusing a message buffer whose fields keep their old values when the new message leaves them at
//! the default.

use std::collections::BTreeMap;

use raftkv::client::Clerk;
use raftkv::kv::{Kv, Limits, Reply};
use raftkv::node::{Config, Node};
use raftkv::raft::{Entry, EntryId, Envelope, Message, Payload};
use raftkv::wire::client::{Answer, Response};
use raftkv::wire::{codec, frame};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Sends the values one behind the other on one stream and returns what arrives.
fn through_one_stream<T: Serialize + DeserializeOwned>(values: &[T]) -> Vec<T> {
    let mut bytes = Vec::new();
    values
        .iter()
        .for_each(|value| frame::put(value, &mut bytes));
    let mut rest = &bytes[..];
    let mut arrived = Vec::new();
    while let Some((payload, used)) = frame::split(rest, frame::MAX_PAYLOAD).unwrap() {
        arrived.push(codec::decode(payload).unwrap());
        rest = &rest[used..];
    }
    arrived
}

fn envelope(term: u64, message: Message) -> Envelope {
    let (from, to) = (1, 2);
    Envelope {
        from,
        from_folder: from.into(),
        to,
        to_folder: None,
        term,
        message,
    }
}

#[test]
fn a_message_of_defaults_arrives_as_such_behind_one_with_every_field_set() {
    let id = EntryId { term: 9, index: 77 };
    let entry = Entry {
        id,
        time_ms: 12_345,
        payload: Payload::Command("a command".into()),
    };
    let full = Message::Append {
        prev: EntryId { term: 9, index: 76 },
        entries: vec![entry; 3],
        commit: 70,
    };
    let empty = Message::Append {
        prev: EntryId::ZERO,
        entries: Vec::new(),
        commit: 0,
    };
    let granted = |granted| Message::PreVoteReply {
        next_term: u64::from(granted),
        granted,
    };
    let messages = [
        envelope(9, full.clone()),
        envelope(0, empty),
        envelope(9, full),
        envelope(0, granted(true)),
        envelope(0, granted(false)),
        envelope(
            0,
            Message::Heartbeat {
                commit: 0,
                matched_by_all: 0,
                round: 0,
            },
        ),
    ];
    assert_eq!(through_one_stream(&messages), messages);
}

#[test]
fn an_empty_answer_arrives_as_such_behind_a_full_one() {
    let value = |value: Option<&'static str>| {
        let reply = Reply::Value(value.map(Into::into));
        let answer = Answer::Reply(codec::to_bytes(&reply));
        Response {
            id: 1,
            answer,
            members: None,
        }
    };
    let answers = [value(Some("a value")), value(None), value(Some(""))];
    assert_eq!(through_one_stream(&answers), answers);
}

#[test]
fn a_missing_and_an_empty_value_are_read_as_such_behind_a_long_one_on_one_connection() {
    let folder = tempfile::tempdir().unwrap();
    let members = BTreeMap::from([(1, "127.0.0.1:1".to_string())]);
    let mut config = Config::new(1, members, folder.path().join("data"));
    config.listen = Some("127.0.0.1:0".to_string());
    let node = Node::start(config, Kv::new(Limits::default())).unwrap();
    let address = node.address().unwrap().to_string();
    let clerk = Clerk::connect([address]).unwrap();
    let long = "long ".repeat(100_000);
    clerk.put("long", &long).unwrap();
    clerk.put("empty", "").unwrap();
    for _ in 0..3 {
        assert_eq!(clerk.get("long").unwrap().as_deref(), Some(long.as_bytes()));
        assert_eq!(clerk.get("missing").unwrap(), None);
        assert_eq!(clerk.get("long").unwrap().as_deref(), Some(long.as_bytes()));
        assert_eq!(clerk.get("empty").unwrap().as_deref(), Some(&b""[..]));
    }
    assert_eq!(
        clerk.cas("missing", None, "").unwrap(),
        raftkv::client::CasOutcome::Swapped
    );
    assert!(!clerk.delete("never there").unwrap());
}
