//! A reply delivered to another request that reused the index.

use raftkv::node::{End, Outcome, Pending, Replica, Share, Wanted};
use raftkv::raft::{
    Config, Configuration, Entry, EntryId, Envelope, HardState, Index, Message, Payload, Raft,
    RoleName,
};
use raftkv::testkit::{Cluster, Executed, Recorder};
use raftkv::wire::client::Doubt;

use super::support::{LONG, others, recorders, wait_for_leader_among};

type Named = (String, Pending<Executed>);

fn start(cluster: &Cluster<Recorder>, id: u64, name: &str) -> Vec<Named> {
    let node = cluster.node(id);
    let start = |n| {
        let command = format!("{name} {n}");
        let pending = node.start(command.clone(), LONG);
        (command, pending.ok().unwrap())
    };
    (0..20).map(start).collect()
}

/// Asserts that each gets its own reply.
fn assert_replies(commands: Vec<Named>) {
    for (command, pending) in commands {
        let index = pending.id().index;
        let expected = Outcome::Reply((index, command.into()));
        assert_eq!(pending.wait(LONG), expected);
    }
}

/// Asserts that each has been ended by its node, for this reason, long before its own time is up. A
/// request that its node has forgotten ends as a timeout instead.
fn assert_ends(commands: Vec<Named>, doubt: Doubt) {
    let expected = Outcome::Ended(End::Unknown(doubt));
    for (command, pending) in commands {
        assert_eq!(pending.wait(LONG), expected, "{command}");
    }
}

fn reused(old: &[Named], new: &[Named]) -> usize {
    let indexes = |all: &[Named]| -> Vec<Index> { all.iter().map(|(_, p)| p.id().index).collect() };
    let old = indexes(old);
    let new = indexes(new).into_iter();
    new.filter(|index| old.contains(index)).count()
}

#[test]
fn a_request_never_gets_the_reply_of_another_leaders_command_at_its_index() {
    let (cluster, journal) = recorders(3);
    let old = cluster.wait_for_leader();
    let rest = others(&cluster, old);
    cluster.isolate(old);
    let lost = start(&cluster, old, "old");
    let next = wait_for_leader_among(&cluster, &rest);
    let kept = start(&cluster, next, "new");
    assert!(reused(&lost, &kept) > 10, "the case of this test");
    // The old leader may still have its waiters, or have ended them: neither may get a reply.
    cluster.heal();
    assert_replies(kept);
    assert_ends(lost, Doubt::LeadershipLost);

    // And when the old leader leads again, its own replies are those of its new commands.
    cluster.wait_for_agreement();
    cluster.isolate(next);
    let again = wait_for_leader_among(&cluster, &others(&cluster, next));
    assert_replies(start(&cluster, again, "newer"));
    cluster.heal();
    cluster.wait_for_agreement();
    assert_eq!(journal.contradiction(), None);
}

#[test]
fn a_request_from_before_a_restart_never_gets_a_reply_from_after_it() {
    let (cluster, journal) = recorders(3);
    let old = cluster.wait_for_leader();
    cluster.isolate(old);
    let lost = start(&cluster, old, "old");
    cluster.ids().for_each(|id| cluster.crash(id));
    cluster.heal();
    // Without the old leader, so that its entries are overwritten.
    let rest = others(&cluster, old);
    rest.iter().for_each(|id| cluster.restart(*id));
    let next = wait_for_leader_among(&cluster, &rest);
    let kept = start(&cluster, next, "new");
    assert!(reused(&lost, &kept) > 10, "the case of this test");
    cluster.restart(old);
    assert_replies(kept);
    assert_ends(lost, Doubt::ShuttingDown);
    cluster.wait_for_agreement();
    assert!(
        journal
            .executed()
            .iter()
            .all(|(_, command)| command.starts_with(b"new"))
    );
    assert_eq!(journal.contradiction(), None);
}

/// A replica of three that leads, by the votes of node 2, with a log that is on disk.
fn leading_replica() -> Replica<&'static str> {
    let config = Config::new(1, Configuration::of_voters([1, 2, 3]), 7);
    let raft = Raft::new(config, HardState::default(), Vec::new());
    let mut replica = Replica::new(raft, 100, None);
    while replica.raft().role() != RoleName::Leader {
        replica.tick();
        for message in replica.output(Wanted::MESSAGES).messages {
            let reply = match message.message {
                Message::PreVote { next_term, .. } => Message::PreVoteReply {
                    next_term,
                    granted: true,
                },
                Message::Vote { .. } => Message::VoteReply { granted: true },
                _ => continue,
            };
            let (from, to, term) = (message.to, 1, message.term);
            replica.step(Envelope {
                from,
                from_folder: from.into(),
                to,
                to_folder: Some(to.into()),
                term,
                message: reply,
            });
        }
        write(&mut replica);
    }
    write(&mut replica);
    replica
}

fn write(replica: &mut Replica<&'static str>) {
    /// Messages stay inside: who writes would lose them.
    const ONLY_WRITE: Wanted = Wanted {
        write: true,
        ..Wanted::NOTHING
    };
    while let Some(write) = replica.output(ONLY_WRITE).write {
        replica.durable(write.id);
    }
}

#[test]
fn a_waiter_is_not_answered_by_an_entry_that_replaces_its_own_and_is_committed_at_once() {
    let mut replica = leading_replica();
    let id = replica
        .submit("mine".into(), 1000, "who sent mine")
        .unwrap();
    write(&mut replica);
    // One message brings the end of the leadership, the other entry, and its commit.
    let term = id.term + 1;
    let prev = EntryId {
        term: id.term,
        index: id.index - 1,
    };
    let other = Entry {
        id: EntryId { term, ..id },
        time_ms: 1_000_000,
        payload: Payload::Command("another".into()),
    };
    replica.step(Envelope {
        from: 3,
        from_folder: 3,
        to: 1,
        to_folder: Some(1),
        term,
        message: Message::Append {
            prev,
            entries: vec![other.clone()],
            commit: id.index,
        },
    });
    write(&mut replica);
    let executing = replica.output(Wanted::work(Share::EVERYTHING));
    let last = executing.work.entries.last().unwrap();
    assert_eq!((&last.0, last.1), (&other, None));
    let lost = End::Unknown(Doubt::LeadershipLost);
    assert_eq!(executing.ended, [("who sent mine", lost)]);
}
