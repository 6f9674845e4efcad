//! What a Clerk finds out about the members, and how it asks for changes of them, over servers that
//! give scripted answers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::client::{
    Answered, CallError, Clerk, Error, Kind, MembersChanged, Options, Stop, Transport,
};
use crate::raft::{Configuration, Index, LoggedConfiguration, NodeId, RoleName};
use crate::wire::client::{Answer, Ask, NotLeader};
use crate::wire::members::{ChangeRequest, MembersReport};

type Script = Vec<Result<Answer, CallError>>;

/// Servers `n1:1`, `n2:1` and so on, each with the answers that it gives, in their order.
#[derive(Default)]
struct Servers {
    answers: Mutex<BTreeMap<String, VecDeque<Result<Answer, CallError>>>>,
    asked: Mutex<Vec<String>>,
}

impl Servers {
    fn of(scripts: impl IntoIterator<Item = (NodeId, Script)>) -> Arc<Self> {
        let scripts = scripts.into_iter();
        let answers = scripts.map(|(id, script)| (address(id), script.into()));
        Arc::new(Servers {
            answers: Mutex::new(answers.collect()),
            asked: Mutex::default(),
        })
    }

    fn clerk(self: &Arc<Self>, ids: &[NodeId]) -> Clerk {
        let options = Options {
            deadline: Duration::from_millis(300),
            seed: 7,
            ..Options::default()
        };
        let servers = ids.iter().map(|id| address(*id));
        Clerk::over(Arc::clone(self) as Arc<dyn Transport>, servers, options).unwrap()
    }

    /// The servers that were asked, in their order, such as "1 2 2".
    fn asked(&self) -> String {
        let asked = self.asked.lock();
        let ids: Vec<_> = asked.iter().map(|at| &at[1..at.len() - 2]).collect();
        ids.join(" ")
    }
}

impl Transport for Servers {
    fn call(
        &self,
        server: &str,
        ask: &Ask,
        _: Index,
        _: Duration,
        _: &Stop,
    ) -> Result<Answered, CallError> {
        assert!(matches!(ask, Ask::Members | Ask::Change { .. }));
        self.asked.lock().push(server.to_string());
        let mut answers = self.answers.lock();
        let next = answers.get_mut(server).and_then(VecDeque::pop_front);
        let refused = || Err(CallError::NotSent("connection refused".into()));
        next.unwrap_or_else(refused).map(Answered::from)
    }
}

fn address(id: NodeId) -> String {
    format!("n{id}:1")
}

/// The report of a node that knows these members since this index.
fn report(id: NodeId, leader: Option<NodeId>, index: Index, ids: &[NodeId]) -> MembersReport {
    let members = ids.iter().map(|id| (*id, address(*id)));
    MembersReport {
        id,
        leader,
        term: 5,
        commit: 90,
        last_index: 90,
        configuration: LoggedConfiguration {
            index,
            configuration: Configuration::founding(members),
        },
        committed: index,
        blocker: None,
        members: Vec::new(),
    }
}

fn says(report: &MembersReport) -> Result<Answer, CallError> {
    Ok(Answer::Members(Box::new(report.clone())))
}

#[test]
fn the_report_is_the_leaders_whoever_is_asked_first() {
    let follower = report(1, Some(3), 7, &[1, 2, 3]);
    let leader = report(3, Some(3), 7, &[1, 2, 3]);
    let servers = Servers::of([(1, vec![says(&follower)]), (3, vec![says(&leader)])]);
    assert_eq!(servers.clerk(&[1, 2]).members(), Ok(leader));
    assert_eq!(servers.asked(), "1 3");
}

#[test]
fn a_node_that_was_removed_leads_to_the_members() {
    let removed = report(1, None, 7, &[4, 5]);
    let member = report(5, Some(4), 9, &[4, 5]);
    let leader = report(4, Some(4), 9, &[4, 5]);
    let servers = Servers::of([
        (1, vec![says(&removed)]),
        (4, vec![Ok(Answer::Busy), says(&leader)]),
        (5, vec![says(&member)]),
    ]);
    let clerk = servers.clerk(&[1]);
    assert_eq!(clerk.members(), Ok(member), "node 4 has not answered it");
    assert_eq!(servers.asked(), "1 4 5");
    assert_eq!(clerk.members_of(&address(4)), Ok(leader));
}

#[test]
fn without_a_leader_the_report_is_that_of_the_node_that_knows_most() {
    let old = report(1, None, 7, &[1, 2, 3]);
    let new = report(2, None, 9, &[1, 2, 3]);
    let servers = Servers::of([(1, vec![says(&old)]), (2, vec![says(&new)])]);
    assert_eq!(servers.clerk(&[1, 2, 3]).members(), Ok(new));
    assert_eq!(servers.asked(), "1 2 3");
}

#[test]
fn if_nobody_answers_the_error_says_how_each_server_was_asked_in_vain() {
    let error = Servers::of([]).clerk(&[1, 2]).members().unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    let text = error.to_string();
    assert!(
        text.contains("n1:1: not reached") && text.contains("n2:1: not reached"),
        "{text}"
    );
}

fn changed(is_new: bool) -> Result<Answer, CallError> {
    Ok(Answer::Changed { index: 9, is_new })
}

#[test]
fn a_change_goes_to_the_leader_and_is_repeated_until_an_answer_comes() {
    let names_node_2 = Answer::NotLeader(NotLeader {
        id: 1,
        role: RoleName::Follower,
        term: 5,
        leader: Some((2, address(2))),
    });
    let lost = Err(CallError::Lost("reset".into()));
    // While node 2 hands its leadership over, it is busy; then node 3 leads.
    let servers = Servers::of([
        (1, vec![Ok(names_node_2)]),
        (2, vec![Ok(Answer::Busy), lost]),
        (3, vec![changed(false)]),
    ]);
    let clerk = servers.clerk(&[1, 2, 3]);
    let expected = MembersChanged {
        index: 9,
        is_new: false,
    };
    assert_eq!(
        clerk.change_members(ChangeRequest::Remove(2), false),
        Ok(expected)
    );
    assert_eq!(servers.asked(), "1 2 2 3");
    assert_eq!(clerk.leader(), Some(address(3)));
}

#[test]
fn a_change_that_is_refused_or_that_nobody_answers_says_whether_it_may_have_been_made() {
    let remove = |script: Script| {
        let servers = Servers::of([(1, script)]);
        let clerk = servers.clerk(&[1]);
        clerk
            .change_members(ChangeRequest::Remove(2), false)
            .unwrap_err()
    };
    let no = remove(vec![Ok(Answer::Invalid("node 2 is the only voter".into()))]);
    assert!(
        matches!(&no, Error::No { reason, .. } if reason.contains("only voter")),
        "{no}"
    );
    assert_eq!(remove(vec![]).kind(), Kind::Unavailable);
    let lost = Err(CallError::Lost("reset".into()));
    assert_eq!(remove(vec![lost]).kind(), Kind::Unknown);
}
