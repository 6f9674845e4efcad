//! What comes in on a socket.

use std::fmt::Debug;

use raftkv::node::steps::{Judged, View, judge};
use raftkv::raft::{
    Configuration, Conflict, Entry, EntryId, Envelope, Index, LoggedConfiguration, Member,
    MemberId, MemberRole, Message, Payload, RoleName, SnapshotMeta, Term,
};
use raftkv::wire::client::{
    Answer, Ask, DiskStatus, Doubt, NotLeader, Request, Response, Stage, Status,
};
use raftkv::wire::handshake::{
    Caller, Hello, HelloError, PeerHello, PeerWelcome, Standing, VERSION, Welcome,
};
use raftkv::wire::members::{ChangeRequest, JoinRequest, MemberList, MemberReport, MembersReport};
use raftkv::wire::{codec, frame};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::depth::reached;

/// The largest frame that the target admits, in bytes: small enough for an input to exceed it.
const LIMIT: usize = 1000;

/// A stream of frames is read to its end, or to the first bytes that are no frame; and a frame that
/// has not come in as a whole yet is waited for.
pub fn frames(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some((payload, used))) = frame::split(rest, LIMIT) {
        assert!(payload.len() <= LIMIT && used == frame::HEADER_LEN + payload.len());
        let cut = &rest[..used - 1];
        assert_eq!(
            frame::split(cut, LIMIT),
            Ok(None),
            "a frame without its end"
        );
        let mut again = Vec::new();
        frame::put_with(&mut again, |out| out.extend_from_slice(payload));
        assert_eq!(again, rest[..used], "a frame has one form only");
        reached("a frame is read");
        rest = &rest[used..];
    }
}

pub fn frame_seeds() -> Vec<Vec<u8>> {
    let mut stream = Vec::new();
    frame::put(&"one", &mut stream);
    frame::put(&(2u64, "two"), &mut stream);
    let mut empty = Vec::new();
    frame::put_with(&mut empty, |_| {});
    let over = [0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0].to_vec();
    vec![stream, empty, over]
}

/// What decodes is a value: it is the same after it has been sent on.
pub fn value<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8]) -> Option<T> {
    let value: T = codec::decode(data).ok()?;
    let again = codec::decode(&codec::to_bytes(&value));
    assert_eq!(again.as_ref(), Ok(&value), "a value changed on its way");
    Some(value)
}

pub fn handshake(data: &[u8]) {
    let hello = Hello::decode(data);
    let welcome = value::<Welcome>(data);
    // Any version can tell any other what is wrong.
    let version = codec::decode_prefix::<u16>(data);
    match hello {
        Ok(hello) => {
            assert_eq!(Hello::decode(&codec::to_bytes(&hello)).as_ref(), Ok(&hello));
            reached("a hello is read");
            greeted(&hello);
        }
        Err(HelloError::Version { theirs }) => {
            assert_eq!(version, Ok(theirs));
            reached("another version is told");
        }
        Err(HelloError::Malformed(error)) => assert!(!error.to_string().is_empty()),
    }
    if welcome.is_some() {
        reached("a welcome is read");
    }
}

/// A node that is named wrongly lets nobody in, and what is said of a folder depends on the node
/// that is called alone.
fn greeted(hello: &Hello) {
    let members = [1, 3].map(|id| (id, "a:1".to_string()));
    let newest = LoggedConfiguration::founding(Configuration::founding(members));
    let own = MemberId { id: 2, folder: 1 };
    let view = View {
        cluster: "raftkv",
        machine: "raftkv store, version 1",
        own,
        newest: &newest,
        committed: &newest,
        founding: 0,
        is_blank: true,
    };
    if let Judged::Peer { who, welcome, .. } = judge(hello, &view) {
        let Caller::Peer(peer) = &hello.caller else {
            panic!("{hello:?} is no node's");
        };
        assert!(peer.to == own.id && peer.to_folder.is_none_or(|folder| folder == own.folder));
        assert_eq!((who.id, who.folder), (peer.from, peer.folder));
        let is_member = newest.configuration.contact(who.id).is_some();
        assert_eq!(welcome.standing == Standing::Member, is_member);
        reached("a node is let in");
    }
}

pub fn handshake_seeds() -> Vec<Vec<u8>> {
    let hello = |version, caller| Hello {
        version,
        cluster: "raftkv".into(),
        caller,
    };
    let peer = Caller::Peer(PeerHello {
        from: 1,
        to: 2,
        machine: "raftkv store, version 1".into(),
        folder: u128::MAX,
        to_folder: Some(1),
        address: "a:1".into(),
        lineage: 7,
        configuration: 300,
        founding: 0,
    });
    let accepted = Welcome::Accepted {
        cluster: "raftkv".into(),
        id: 300,
    };
    vec![
        encoded(&hello(VERSION, Caller::Client)),
        encoded(&hello(VERSION, peer)),
        encoded(&hello(VERSION, Caller::Probe { to: 2 })),
        encoded(&hello(999, Caller::Client)),
        encoded(&accepted),
        encoded(&Welcome::Refused("no".into())),
        encoded(&Welcome::Peer(peer_welcome(Standing::Witness))),
        encoded(&Welcome::Peer(peer_welcome(Standing::Member))),
        encoded(&Welcome::Peer(peer_welcome(Standing::Stranger {
            configuration: 300,
            known: Some((Some(u128::MAX), "a:1".into())),
        }))),
    ]
}

fn peer_welcome(standing: Standing) -> PeerWelcome {
    PeerWelcome {
        cluster: "raftkv".into(),
        id: 2,
        machine: "raftkv store, version 1".into(),
        folder: 1,
        lineage: 7,
        is_blank: false,
        standing,
    }
}

pub fn client(data: &[u8]) {
    if value::<Request>(data).is_some() {
        reached("a request is read");
    }
    if value::<Response>(data).is_some() {
        reached("a response is read");
    }
}

pub fn client_seeds() -> Vec<Vec<u8>> {
    let asks = [
        Ask::Submit("command".into()),
        Ask::Query("query".into()),
        Ask::Status,
        Ask::Transfer(None),
        Ask::Transfer(Some(70_000)),
        Ask::Snapshot,
        Ask::Members,
        Ask::Join(JoinRequest {
            id: 4,
            folder: u128::MAX,
            address: "d:1".into(),
            role: MemberRole::Learner,
            only_back: true,
        }),
    ];
    let changes = changes().map(|change| Ask::Change {
        change,
        force: true,
    });
    let requests = asks.into_iter().chain(changes).map(|ask| {
        encoded(&Request {
            id: 1 << 40,
            timeout_ms: 5000,
            known: 0,
            ask,
        })
    });
    let requests: Vec<_> = requests.collect();
    let list = MemberList {
        index: 300,
        lineage: 7,
        members: vec![(1, "a:1".into())],
    };
    let responses = answers().map(|answer| {
        encoded(&Response {
            id: 7,
            answer,
            members: Some(Box::new(list.clone())),
        })
    });
    [&requests[..], &responses[..]].concat()
}

fn changes() -> [ChangeRequest; 6] {
    let address = "d:1".to_string();
    [
        ChangeRequest::Add {
            id: 4,
            address: address.clone(),
            role: MemberRole::Voter,
        },
        ChangeRequest::Promote(4),
        ChangeRequest::Demote(4),
        ChangeRequest::Remove(4),
        ChangeRequest::Replace {
            id: 4,
            address: Some(address.clone()),
        },
        ChangeRequest::Move { id: 4, address },
    ]
}

fn members_report() -> MembersReport {
    let logged = LoggedConfiguration {
        index: 300,
        configuration: Configuration::of_voters([1, 2]),
    };
    MembersReport {
        id: 1,
        leader: Some(1),
        term: 3,
        commit: 1000,
        last_index: 1001,
        configuration: logged,
        committed: 299,
        blocker: Some("node 2 is silent".into()),
        members: vec![MemberReport {
            id: 2,
            folder: Some(u128::MAX),
            matched: 900,
            silent_ms: 70,
            snapshot: Some((10, 1 << 32)),
            round: Some(3),
            is_departing: false,
        }],
    }
}

fn disk_status() -> DiskStatus {
    DiskStatus {
        write_ms: 10,
        no_space: Some("full".into()),
        verified_bytes: 1 << 40,
        verified_times: 3,
        damage: Some("damaged".into()),
    }
}

fn answers() -> [Answer; 11] {
    let not_leader = NotLeader {
        id: 1,
        role: RoleName::PreCandidate,
        term: 4,
        leader: Some((2, "host:7000".into())),
    };
    let status = Status {
        id: 1,
        cluster: "raftkv".into(),
        role: RoleName::Leader,
        term: 3,
        leader: Some(1),
        members: vec![(1, "a:1".into()), (2, "b:1".into())],
        learners: vec![2],
        active: vec![1, 2],
        commit: 1000,
        applied: 999,
        last_index: 1001,
        first_index: 900,
        log_bytes: 1 << 33,
        snapshot_index: 899,
        snapshot_bytes: 1 << 32,
        snapshot_age_ms: 1000,
        snapshot_pending: true,
        snapshot_written: 1 << 20,
        sending: vec![(2, 10, 1 << 32)],
        uptime_ms: 5,
        gauges: vec![("keys".into(), 7)],
        stages: vec![Stage {
            name: "sync".into(),
            count: 1000,
            p50_ns: 250_000,
            p99_ns: 1 << 20,
            max_ns: 1 << 33,
        }],
        disk: disk_status(),
    };
    [
        Answer::Reply("reply".into()),
        Answer::NotLeader(not_leader),
        Answer::Busy,
        Answer::Invalid("no".into()),
        Answer::Unknown(Doubt::ShuttingDown),
        Answer::Status(Box::new(status)),
        Answer::Transferring,
        Answer::Snapshot {
            up_to: 1000,
            is_there: false,
        },
        Answer::Members(Box::new(members_report())),
        Answer::Changed {
            index: 300,
            is_new: true,
        },
        Answer::NoSpace("full".into()),
    ]
}

pub fn peer(data: &[u8]) {
    if value::<Envelope>(data).is_some() {
        reached("a message is read");
    }
    if value::<Vec<Entry>>(data).is_some_and(|entries| !entries.is_empty()) {
        reached("entries are read");
    }
}

pub fn peer_seeds() -> Vec<Vec<u8>> {
    let entries = vec![
        entry(3, 10, Payload::Empty),
        entry(3, 11, Payload::Command("x".into())),
        entry(3, 12, Payload::Configuration(Box::new(configuration()))),
    ];
    let messages = messages().map(|message| encoded(&envelope(message)));
    [&messages[..], &[encoded(&entries)]].concat()
}

/// A joint one, with every role, an empty seat and a folder number that needs all of its bytes.
fn configuration() -> Configuration {
    let member = |id, folder, role| Member {
        id,
        folder,
        address: format!("host-{id}:7000"),
        role,
    };
    let members = vec![
        member(1, Some(u128::MAX - 5), MemberRole::Voter),
        member(2, None, MemberRole::Voter),
        member(3, Some(3), MemberRole::Joining),
        member(4, Some(4), MemberRole::Learner),
    ];
    let outgoing = vec![member(1, Some(1), MemberRole::Voter)];
    Configuration::of(77, members, outgoing)
}

fn envelope(message: Message) -> Envelope {
    Envelope {
        from: 1,
        from_folder: 1,
        to: 2,
        to_folder: Some(2),
        term: 300,
        message,
    }
}

fn messages() -> [Message; 13] {
    let last = EntryId { term: 3, index: 9 };
    let conflict = Conflict {
        term: Some(2),
        first_index: 4,
    };
    let entries = [(10, Payload::Empty), (11, Payload::Command("x".into()))];
    let entries = entries.map(|(index, payload)| entry(3, index, payload));
    [
        Message::PreVote { next_term: 4, last },
        Message::PreVoteReply {
            next_term: 4,
            granted: true,
        },
        Message::Vote {
            last,
            transfer: true,
        },
        Message::VoteReply { granted: true },
        Message::Append {
            prev: last,
            entries: entries.to_vec(),
            commit: 9,
        },
        Message::Accepted { matched: 11 },
        Message::Rejected { prev: 9, conflict },
        Message::Heartbeat {
            commit: 9,
            matched_by_all: 7,
            round: 1 << 20,
        },
        Message::HeartbeatReply { round: 1 },
        Message::Snapshot {
            meta: SnapshotMeta {
                last,
                time_ms: 90,
                configuration: LoggedConfiguration {
                    index: 7,
                    configuration: configuration(),
                },
            },
            bytes: 1 << 33,
            offset: 1 << 20,
            data: "part".into(),
        },
        Message::SnapshotReply {
            last,
            received: 1 << 20,
        },
        Message::TimeoutNow,
        Message::Outdated,
    ]
}

pub fn entry(term: Term, index: Index, payload: Payload) -> Entry {
    Entry {
        id: EntryId { term, index },
        time_ms: 10 * index,
        payload,
    }
}

pub fn encoded<T: Serialize>(value: &T) -> Vec<u8> {
    codec::to_bytes(value).to_vec()
}
