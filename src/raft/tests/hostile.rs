//! What no correct node sends: whatever arrives, in whatever role, in whatever order, a core does
//! not panic. It may drop the message or record a fault.

use proptest::prelude::*;

use super::harness::{envelope, members, take_entries, take_messages, take_write};
use crate::raft::{
    Config, Configuration, Conflict, Entry, EntryId, Envelope, HardState, Message, NodeId, Payload,
    Raft, RoleName,
};

/// The id of the core under attack.
const ME: NodeId = 1;

#[derive(Clone, Debug)]
enum Input {
    Tick(u8),
    /// A message, with a sender, whose term lies this far from the core's own, or is arbitrary.
    Message(NodeId, TermOf, Message),
    /// Votes as node 2 would give them, so that the core comes to lead.
    Votes,
    WriteTaken,
    WritesDone,
    Collected,
    Propose,
    Read,
    Transfer(Option<NodeId>),
}

#[derive(Clone, Copy, Debug)]
enum TermOf {
    Own,
    Next,
    Any(u64),
}

/// Small numbers, and large ones at which arithmetic may overflow.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => 0..12u64,
        1 => Just(u64::MAX),
        1 => Just(u64::MAX - 1),
        1 => Just(u64::MAX / 2),
        1 => Just(u64::MAX / 2 + 1),
        1 => any::<u64>(),
    ]
}

fn entry_id() -> impl Strategy<Value = EntryId> {
    (number(), number()).prop_map(|(term, index)| EntryId { term, index })
}

fn any_entry() -> impl Strategy<Value = Entry> {
    (entry_id(), number(), any::<bool>()).prop_map(|(id, time_ms, empty)| Entry {
        id,
        time_ms,
        payload: match empty {
            true => Payload::Empty,
            false => Payload::Command("command".into()),
        },
    })
}

/// Entries with indexes and terms as a log could hold them, so that some pass the first checks.
fn consecutive(prev: EntryId, terms: Vec<u64>) -> Vec<Entry> {
    let mut last = prev;
    let mut entries = Vec::new();
    for more in terms {
        last = EntryId {
            term: last.term.saturating_add(more),
            index: last.index.saturating_add(1),
        };
        entries.push(Entry {
            id: last,
            time_ms: last.index,
            payload: Payload::Empty,
        });
    }
    entries
}

fn append() -> impl Strategy<Value = Message> {
    let wild = prop::collection::vec(any_entry(), 0..4);
    let tame = prop::collection::vec(0..2u64, 0..6);
    (entry_id(), number(), wild, tame, any::<bool>()).prop_map(
        |(prev, commit, wild, tame, tamed)| {
            let entries = match tamed {
                true => consecutive(prev, tame),
                false => wild,
            };
            Message::Append {
                prev,
                entries,
                commit,
            }
        },
    )
}

fn message() -> impl Strategy<Value = Message> {
    let rejected =
        (number(), prop::option::of(number()), number()).prop_map(|(prev, term, first_index)| {
            let conflict = Conflict { term, first_index };
            Message::Rejected { prev, conflict }
        });
    prop_oneof![
           4 => append(),
           1 => (number(), entry_id())
               .prop_map(|(next_term, last)| Message::PreVote { next_term, last }),
           1 => (number(), any::<bool>())
               .prop_map(|(next_term, granted)| Message::PreVoteReply { next_term, granted }),
           1 => (entry_id(), any::<bool>())
               .prop_map(|(last, transfer)| Message::Vote { last, transfer }),
           1 => any::<bool>().prop_map(|granted| Message::VoteReply { granted }),
           2 => number().prop_map(|matched| Message::Accepted { matched }),
           2 => rejected,
           1 => (number(), number(), number())
               .prop_map(|(commit, matched_by_all, round)| {
    Message::Heartbeat { commit, matched_by_all, round }}),
           1 => number().prop_map(|round| Message::HeartbeatReply { round }),
           1 => Just(Message::TimeoutNow),
           1 => Just(Message::Outdated),
       ]
}

fn input() -> impl Strategy<Value = Input> {
    let term = prop_oneof![
        6 => Just(TermOf::Own),
        2 => Just(TermOf::Next),
        1 => number().prop_map(TermOf::Any),
    ];
    let from = prop_oneof![8 => 2..5u64, 1 => number()];
    prop_oneof![
        8 => (from, term, message()).prop_map(|(from, term, m)| Input::Message(from, term, m)),
        2 => (0..60u8).prop_map(Input::Tick),
        2 => Just(Input::Votes),
        2 => Just(Input::WriteTaken),
        2 => Just(Input::WritesDone),
        1 => Just(Input::Collected),
        1 => Just(Input::Propose),
        1 => Just(Input::Read),
        1 => prop::option::of(number()).prop_map(Input::Transfer),
    ]
}

/// Hands over one input. `written` is the last write that was taken and is not reported as durable.
fn handle(raft: &mut Raft, input: Input, written: &mut Option<u64>, reads: &mut u64) {
    let envelope = |from, term, message| Envelope {
        from,
        from_folder: from.into(),
        to: ME,
        to_folder: Some(ME.into()),
        term,
        message,
    };
    match input {
        Input::Tick(times) => (0..times).for_each(|_| raft.tick()),
        Input::Message(from, term, message) => {
            let term = match term {
                TermOf::Own => raft.term(),
                TermOf::Next => raft.term() + 1,
                TermOf::Any(term) => term,
            };
            raft.step(envelope(from, term, message));
        }
        Input::Votes => {
            let (term, granted) = (raft.term(), true);
            let next_term = term + 1;
            let pre_vote = Message::PreVoteReply { next_term, granted };
            raft.step(envelope(2, term, pre_vote));
            raft.step(envelope(2, raft.term(), Message::VoteReply { granted }));
        }
        Input::WriteTaken => *written = take_write(raft).map(|write| write.id).or(*written),
        Input::WritesDone => {
            if let Some(write) = written.take() {
                raft.durable(write);
            }
        }
        Input::Collected => {
            take_messages(raft);
            if let Some(last) = take_entries(raft, 100).last() {
                raft.applied(last.id.index);
            }
        }
        Input::Propose => _ = raft.propose("command".into()),
        Input::Read => {
            *reads += 1;
            _ = raft.read(*reads);
        }
        Input::Transfer(to) => _ = raft.transfer(to),
    }
}

fn core(founding: Configuration) -> Raft {
    Raft::new(
        Config::new(ME, founding, 7),
        HardState::default(),
        Vec::new(),
    )
}

/// Leads a fresh core into a role, as correct nodes would.
fn bring_to(raft: &mut Raft, role: RoleName) {
    let (mut written, mut reads) = (None, 0);
    let way = [
        Input::Tick(50),
        Input::Votes,
        Input::WriteTaken,
        Input::WritesDone,
        Input::Votes,
        Input::Propose,
        Input::Collected,
    ];
    let mut way = way.into_iter();
    while raft.role() != role {
        let input = way.next().expect("this way leads through every role");
        handle(raft, input, &mut written, &mut reads);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 500,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_sequence_of_messages_makes_a_core_panic(
        inputs in prop::collection::vec(input(), 1..60),
        learner in any::<bool>(),
        start in prop::sample::select(vec![
            RoleName::Follower,
            RoleName::PreCandidate,
            RoleName::Candidate,
            RoleName::Leader,
        ]),
    ) {
        let founding = match learner {
            true => members([2, 3], [], [ME, 4]),
            false => members([ME, 2, 3], [], [4]),
        };
        let mut raft = core(founding);
        if !learner {
            bring_to(&mut raft, start);
        }
        let (mut written, mut reads) = (None, 0);
        for input in inputs {
            // A node with a fault stops: nothing reaches its core any more.
            if raft.fault().is_none() {
                handle(&mut raft, input, &mut written, &mut reads);
            }
        }
    }

    /// An answer of a node outside the configuration cannot change anything, nor a message of one
    /// that claims the core's own id, nor one that is meant for another node.
    #[test]
    fn answers_of_strangers_are_not_heard(
        message in message(),
        term in number(),
        stranger in number(),
    ) {
        let mut raft = core(Configuration::of_voters([ME, 2, 3]));
        let before = format!("{raft:?}");
        let from = if [2, 3].contains(&stranger) { ME } else { stranger };
        if message.is_answer() || from == ME {
            raft.step(envelope(from, ME, term, message.clone()));
        }
        raft.step(envelope(2, 3, term, message));
        prop_assert_eq!(before, format!("{raft:?}"));
    }
}
