//! Commands that no version of the store knows, from a leader and in a data folder: the node stops
//! and says which entry it is, whose, and what to do; it does not panic, and its log stays as it
//! was.

use std::path::Path;
use std::sync::Arc;

use raftkv::kv::{Kv, Limits};
use raftkv::machine::StateMachine;
use raftkv::raft::{Entry, EntryId, Envelope, HardState, Message, Payload, Write};
use raftkv::storage::{Inspection, Options, ReadOnlyDisk, RealDisk, Storage, inspect};
use raftkv::wire::handshake::{Caller, PeerHello, Welcome};

use super::cluster::{Cluster, kvnode, text};
use super::folders::{contents, stopped};
use super::raw::{Raw, frame_of, hello, opening};
use super::settings::{refusal, sentence};

const BAD: &[u8] = b"\xffno command";

/// How a bad command's bytes are shown.
const SHOWN: &str = "Its 11 bytes are \"\\xffno command\"";

fn bad(id: EntryId) -> Entry {
    Entry {
        id,
        time_ms: u64::MAX / 2,
        payload: Payload::Command(BAD.into()),
    }
}

fn inspected(folder: &Path) -> Inspection {
    inspect(Arc::new(ReadOnlyDisk::new(folder))).unwrap()
}

/// The last entry of the log in a folder.
fn last(folder: &Path) -> EntryId {
    inspected(folder).start.unwrap().1
}

#[test]
fn a_node_to_which_a_leader_sends_what_nobody_can_execute_stops_and_its_log_stays_good() {
    let mut cluster = Cluster::start(3);
    cluster.clerk().put("key", "value").unwrap();
    cluster.kill([2, 3]).unwrap();
    let before = last(&cluster.data(1));

    // Node 2 comes back as something that leads, and sends what is no command.
    let (term, index) = (100, before.index + 1);
    let folder = inspected(&cluster.data(2)).folder;
    let mut raw = Raw::connect(cluster.address(1));
    raw.write(&opening(&hello(
        "raftkv",
        Caller::Peer(PeerHello {
            from: 2,
            to: 1,
            machine: Kv::new(Limits::default()).identity(),
            folder,
            to_folder: None,
            address: String::new(),
            lineage: 0,
            configuration: 0,
            founding: 0,
        }),
    )));
    assert!(matches!(raw.receive(), Welcome::Peer(_)));
    raw.write(&frame_of(&Envelope {
        from: 2,
        from_folder: folder,
        to: 1,
        to_folder: None,
        term,
        message: Message::Append {
            prev: before,
            entries: vec![bad(EntryId { term, index })],
            commit: index,
        },
    }));
    let end = cluster.end(1).unwrap();
    assert_eq!(end.status.code(), Some(1), "{end:#?}");
    let said = end.lines.last().unwrap();
    let found = format!(
        "kvnode: node 2, the leader of term 100, has sent a command that this node cannot execute, \
         at index {index}: this is not a command of the store"
    );
    assert!(
        said.starts_with(&found),
        "sender and entry are not named: {said}"
    );
    assert!(said.contains("run the same version on all nodes"), "{said}");
    let panicked = end.lines.iter().find(|line| line.contains("panicked"));
    assert_eq!(panicked, None);

    // Nothing of it was written: with the true node 2 the cluster goes on.
    assert_eq!(last(&cluster.data(1)), before);
    cluster.restart([1, 2]).unwrap();
    assert_eq!(cluster.clerk().get("key"), Ok(Some("value".into())));
}

#[test]
fn a_node_with_a_log_that_nobody_can_execute_says_which_entry_it_is_and_inspect_shows_it() {
    let cluster = stopped();
    let data = cluster.data(1);
    let id = EntryId {
        index: last(&data).index + 1,
        term: 7,
    };
    let disk = Arc::new(RealDisk::open(&data).unwrap());
    let identity = inspected(&data).identity;
    let (mut storage, _) = Storage::open(disk, &identity, Options::default()).unwrap();
    let write = Write {
        id: 1,
        hard_state: Some(HardState {
            term: id.term,
            vote: None,
        }),
        entries: vec![bad(id)],
        restart: None,
    };
    storage.write(&write).unwrap();
    drop(storage);

    let before = contents(&data);
    let end = refusal(&mut cluster.command(1));
    assert_eq!(end.status.code(), Some(4), "{end:#?}");
    for part in [
        &format!("the log in {} holds a command", data.display()),
        &format!("at index {} of term 7", id.index),
        "this is not a command of the store",
        "Nothing was changed",
        "Run the version that wrote it",
        &format!("`kvnode inspect {}`", data.display()),
    ] {
        assert!(sentence(&end).contains(part), "{part}: {end:#?}");
    }
    assert!(contents(&data) == before, "the folder has changed");

    let output = kvnode().arg("inspect").arg(&data).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    let shown = text(&output.stdout);
    for part in [
        &format!(
            "entry      {} of term 7 cannot be executed: this is not a command",
            id.index
        ),
        SHOWN,
        "start      the node would not start",
        "unusable: all checksums hold, but 1 commands cannot be executed",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}
