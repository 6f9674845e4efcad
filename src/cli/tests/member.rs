//! The `member` commands over a model of a cluster: the changes are those of the core, and with
//! each report the cluster takes a step of its change.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;

use crate::cli::command::{self, Format};
use crate::cli::interrupt::Interrupt;
use crate::cli::output::{Printer, Style};
use crate::cli::session::{Failure, Session, exit};
use crate::client::{Answered, CallError, Canceller, Clerk, Options, Stop, Transport};
use crate::raft::{
    Change, ChangeError, Changed, Configuration, FolderId, Index, LoggedConfiguration, Member,
    MemberRole, NodeId, RoleName,
};
use crate::wire::client::{Answer, Ask, NotLeader};
use crate::wire::members::{ChangeRequest, MemberReport, MembersReport};

/// What else happens, in the step with this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// Node 2 leads from now on.
    NewLeader,
    /// Node 2 leads from now on, and does not have what is not committed.
    NewLeaderWithoutIt,
    /// The answer to a change that was made gets lost.
    AnswerLost,
    /// Whoever catches up is too slow.
    TooSlow,
    /// Nothing moves any more.
    Stuck,
    /// Nobody answers.
    Down,
    /// The user presses Ctrl-C.
    CtrlC,
}

/// Nodes 1 to 3, of which node 1 leads at first.
struct Model {
    inner: Mutex<Inner>,
    interrupt: Arc<Interrupt>,
    canceller: Mutex<Option<Canceller>>,
    changes_asked: AtomicU64,
}

struct Inner {
    now: LoggedConfiguration,
    /// The newest committed one.
    committed: LoggedConfiguration,
    leader: NodeId,
    /// How far whoever joins is: from 0 to 3 rounds.
    rounds: u32,
    steps: u64,
    trouble: Option<(u64, Trouble)>,
}

fn address(id: NodeId) -> String {
    format!("n{id}:7000")
}

fn member(id: NodeId) -> Member {
    Member {
        id,
        folder: Some(folder(id, &address(id), false)),
        address: address(id),
        role: MemberRole::Voter,
    }
}

/// The folder of the node that answers at an address, before it was renewed or after.
fn folder(id: NodeId, at: &str, renewed: bool) -> FolderId {
    u128::from(id) << 100 | at.len() as u128 | u128::from(renewed) << 50
}

impl Model {
    fn new(trouble: Option<(u64, Trouble)>) -> Arc<Self> {
        let configuration = Configuration::of(7, [1, 2, 3].map(member).into(), Vec::new());
        let index = 20;
        let committed = LoggedConfiguration {
            index,
            configuration,
        };
        Arc::new(Model {
            inner: Mutex::new(Inner {
                now: committed.clone(),
                committed,
                leader: 1,
                rounds: 0,
                steps: 0,
                trouble,
            }),
            interrupt: Arc::new(Interrupt::that_ends()),
            canceller: Mutex::default(),
            changes_asked: AtomicU64::new(0),
        })
    }

    /// Runs one command. Returns the output and how it ended.
    fn run(self: &Arc<Self>, line: &str, format: Format) -> (String, Result<u8, Failure>) {
        let options = Options {
            deadline: Duration::from_millis(500),
            attempt_timeout: Duration::from_millis(50),
            seed: 7,
            ..Options::default()
        };
        let transport: Arc<dyn Transport> = Arc::clone(self) as _;
        let clerk = Clerk::over(transport, [address(3)], options).unwrap();
        *self.canceller.lock() = Some(clerk.canceller());
        let mut session = Session::new(clerk, Arc::clone(&self.interrupt), format, false);
        let mut out = Vec::new();
        let mut printer = Printer::new(&mut out, Style::Single { terminal: false }, format);
        let request = command::parse_line(line.as_bytes()).unwrap().unwrap();
        let result = session.run(&request, &mut printer);
        (
            String::from_utf8(out).unwrap(),
            result.map(|outcome| outcome.code),
        )
    }

    /// The members when nothing is under way, such as "1 2 3 4?": a learner has a question mark.
    fn members(&self) -> String {
        let inner = self.inner.lock();
        let now = &inner.now.configuration;
        assert!(!now.is_joint() && inner.now == inner.committed, "{now:?}");
        let shown = |member: &Member| match member.role {
            MemberRole::Voter => member.id.to_string(),
            MemberRole::Learner => format!("{}?", member.id),
            MemberRole::Joining => panic!("{member:?}"),
        };
        now.members()
            .iter()
            .map(shown)
            .collect::<Vec<_>>()
            .join(" ")
    }
}

impl Inner {
    fn happens(&self, trouble: Trouble) -> bool {
        self.trouble
            .is_some_and(|(since, what)| what == trouble && self.steps >= since)
    }

    fn append(&mut self, configuration: Configuration) -> Index {
        let index = self.now.index + 1;
        self.now = LoggedConfiguration {
            index,
            configuration,
        };
        self.rounds = 0;
        index
    }

    fn change(&mut self, request: &ChangeRequest) -> Result<Changed, ChangeError> {
        let now = self.now.configuration.left();
        let next = change(request, &now).applied_to(&now)?;
        let (index, joint) = (self.now.index, self.now.configuration.is_joint());
        if next == now {
            let is_new = false;
            return Ok(Changed { index, is_new });
        }
        if self.now != self.committed || joint {
            return Err(ChangeError::UnderWay { index, joint });
        }
        let (index, is_new) = (self.append(next), true);
        Ok(Changed { index, is_new })
    }

    /// The cluster goes on with its change by one step.
    fn step(&mut self) {
        self.steps += 1;
        if self.happens(Trouble::NewLeader) || self.happens(Trouble::NewLeaderWithoutIt) {
            if self.happens(Trouble::NewLeaderWithoutIt) && self.now != self.committed {
                self.now = self.committed.clone();
            }
            (self.leader, self.trouble) = (2, None);
            return;
        }
        if self.happens(Trouble::Stuck) {
            return;
        }
        if self.now != self.committed {
            self.committed = self.now.clone();
            return;
        }
        let now = self.now.configuration.clone();
        let mut joining = now
            .members()
            .iter()
            .filter(|one| one.role == MemberRole::Joining);
        match joining.next() {
            _ if now.is_joint() => _ = self.append(now.left()),
            Some(_) if self.happens(Trouble::TooSlow) => {}
            Some(_) if self.rounds < 3 => self.rounds += 1,
            Some(member) => _ = self.append(Change::Seat(member.id).applied_to(&now).unwrap()),
            None => {}
        }
    }

    fn report(&self, id: NodeId) -> MembersReport {
        let all = self.now.configuration.contacts().cloned();
        let known = all
            .filter(|member| member.id != id)
            .map(|member| MemberReport {
                id: member.id,
                folder: member.folder,
                matched: 500 - 100 * u64::from(3 - self.rounds),
                silent_ms: 5,
                snapshot: None,
                round: (!self.happens(Trouble::TooSlow)).then_some(self.rounds + 1),
                is_departing: false,
            });
        // What is in the log beyond the configurations is committed up to here.
        let commit = match self.now == self.committed {
            true => 500.max(self.now.index),
            false => self.committed.index,
        };
        MembersReport {
            id,
            leader: Some(self.leader),
            term: 5,
            commit,
            last_index: 500,
            configuration: self.now.clone(),
            committed: self.committed.index,
            blocker: None,
            members: match id == self.leader {
                true => known.collect(),
                false => Vec::new(),
            },
        }
    }
}

/// The change that the core is asked for.
fn change(request: &ChangeRequest, now: &Configuration) -> Change {
    match request.clone() {
        ChangeRequest::Add { id, address, role } => Change::Add(Member {
            id,
            folder: Some(folder(id, &address, false)),
            address,
            role,
        }),
        ChangeRequest::Promote(id) => Change::Promote(id),
        ChangeRequest::Demote(id) => Change::Demote(id),
        ChangeRequest::Remove(id) => Change::Remove(id),
        ChangeRequest::Replace { id, address } => {
            let present = now.contact(id).map(|member| member.address.clone());
            let address = address.or(present).unwrap_or_default();
            Change::Replace {
                id,
                folder: folder(id, &address, true),
                address,
            }
        }
        ChangeRequest::Move { id, address } => Change::Move {
            id,
            folder: now.contact(id).and_then(|one| one.folder).unwrap_or(0),
            address,
        },
    }
}

impl Transport for Model {
    fn call(
        &self,
        server: &str,
        ask: &Ask,
        _: Index,
        _: Duration,
        _: &Stop,
    ) -> Result<Answered, CallError> {
        let mut inner = self.inner.lock();
        let id: NodeId = server[1..2].parse().unwrap();
        if inner.happens(Trouble::Down) {
            return Err(CallError::NotSent("connection refused".into()));
        }
        let answer = match ask {
            Ask::Change { .. } if id != inner.leader => Answer::NotLeader(NotLeader {
                id,
                role: RoleName::Follower,
                term: 5,
                leader: Some((inner.leader, address(inner.leader))),
            }),
            Ask::Change { change, .. } => {
                self.changes_asked.fetch_add(1, SeqCst);
                match inner.change(change) {
                    Ok(_) if inner.happens(Trouble::AnswerLost) => {
                        inner.trouble = None;
                        return Err(CallError::Lost("reset".into()));
                    }
                    Ok(Changed { index, is_new }) => Answer::Changed { index, is_new },
                    Err(error) => Answer::Invalid(error.to_string()),
                }
            }
            Ask::Members => {
                if id == inner.leader {
                    inner.step();
                }
                if inner.happens(Trouble::CtrlC) {
                    self.interrupt.press();
                    let canceller = self.canceller.lock().clone();
                    drop(inner);
                    canceller.unwrap().cancel();
                    return Err(CallError::Lost("cancelled".into()));
                }
                Answer::Members(Box::new(inner.report(id)))
            }
            _ => panic!("{ask:?}"),
        };
        Ok(answer.into())
    }
}

/// Each word, the members and the sentence after it.
const WORDS: &[(&str, &str, &str)] = &[
    ("add 4=n4:7000", "1 2 3 4", "node 4 votes, at n4:7000"),
    (
        "add 4=n4:7000 --learner",
        "1 2 3 4?",
        "node 4 learns, at n4:7000",
    ),
    ("demote 3", "1 2 3?", "node 3 learns, at n3:7000"),
    ("remove 3", "1 2", "node 3 is no member"),
    ("replace 3", "1 2 3", "node 3 votes, at n3:7000"),
    ("replace 3=new:1", "1 2 3", "node 3 votes, at new:1"),
    ("move 3=new:1", "1 2 3", "node 3 votes, at new:1"),
];

#[test]
fn each_word_waits_until_the_change_is_done_and_may_be_repeated() {
    for (words, members, sentence) in WORDS {
        let model = Model::new(None);
        let line = format!("member {words}");
        for _ in 0..2 {
            let (out, result) = model.run(&line, Format::Table);
            assert_eq!(result.unwrap(), exit::DONE, "{words}");
            assert_eq!(out.trim_end(), *sentence, "{words}");
            assert_eq!(model.members(), *members, "{words}");
        }
        assert_eq!(model.changes_asked.load(SeqCst), 2, "{words}");
    }
}

#[test]
fn a_learner_is_promoted() {
    let model = Model::new(None);
    model.run("member demote 3", Format::Raw).1.unwrap();
    let (out, result) = model.run("member promote 3", Format::Json);
    assert_eq!(result.unwrap(), exit::DONE);
    assert_eq!(model.members(), "1 2 3");
    assert!(
        out.starts_with("{\"index\":") && out.contains("\"new\":true"),
        "{out}"
    );
    let (out, _) = model.run("member promote 3", Format::Json);
    assert!(out.contains("\"new\":false"), "{out}");
    assert_eq!(model.run("member promote 3", Format::Raw).0, "ok\n");
}

#[test]
fn whatever_happens_in_whatever_step_each_word_ends_with_the_change_made() {
    use Trouble::{AnswerLost, NewLeader, NewLeaderWithoutIt};
    for (words, members, _) in WORDS {
        for (trouble, steps) in [(NewLeader, 8), (NewLeaderWithoutIt, 8), (AnswerLost, 1)] {
            for step in 0..steps {
                let model = Model::new(Some((step, trouble)));
                let (_, result) = model.run(&format!("member {words}"), Format::Table);
                let case = format!("{words}: {trouble:?} in step {step}");
                assert_eq!(result.unwrap(), exit::DONE, "{case}");
                assert_eq!(model.members(), *members, "{case}");
            }
        }
    }
}

#[test]
fn a_change_that_was_lost_with_its_leader_is_asked_for_again() {
    let model = Model::new(Some((1, Trouble::NewLeaderWithoutIt)));
    let (_, result) = model.run("member add 4=n4:7000", Format::Table);
    assert_eq!(result.unwrap(), exit::DONE);
    assert_eq!(model.changes_asked.load(SeqCst), 2);
}

#[test]
fn a_refusal_is_passed_on_with_exit_code_1() {
    let table = [
        ("add 3=n4:7000", "node 3 is a member already, at n3:7000"),
        ("add 4=n3:7000", "n3:7000 is the address of node 3"),
        ("promote 4", "node 4 is no member"),
    ];
    for (words, part) in table {
        let model = Model::new(None);
        let failure = model
            .run(&format!("member {words}"), Format::Table)
            .1
            .unwrap_err();
        assert_eq!(failure.code(), exit::NO, "{words}");
        assert!(failure.to_string().contains(part), "{words}: {failure}");
        assert_eq!(model.members(), "1 2 3");
    }
}

/// Runs one command that does not end with the change made. Returns its exit code and its error.
fn failed(trouble: Trouble, step: u64, line: &str) -> (u8, String) {
    let (out, result) = Model::new(Some((step, trouble))).run(line, Format::Table);
    assert_eq!(out, "");
    let failure = result.unwrap_err();
    (failure.code(), failure.to_string())
}

#[test]
fn who_is_too_slow_and_what_does_not_move_end_the_wait_with_exit_code_4() {
    let (code, error) = failed(Trouble::TooSlow, 0, "member add 4=n4:7000");
    assert_eq!(code, exit::UNKNOWN);
    assert!(
        error.contains("node 4 is too slow") && error.contains("remove 4"),
        "{error}"
    );
    let (code, error) = failed(Trouble::Stuck, 0, "member add 4=n4:7000");
    assert_eq!(code, exit::UNKNOWN);
    assert!(error.contains("entry 21 has to be committed"), "{error}");
    assert!(error.contains("The change goes on by itself"), "{error}");
    let (code, error) = failed(Trouble::Stuck, 3, "member add 4=n4:7000");
    assert_eq!(code, exit::UNKNOWN);
    assert!(
        error.contains("node 4: 200 entries to come, round 2"),
        "{error}"
    );
}

#[test]
fn without_anybody_who_answers_the_exit_code_is_3_before_the_change_and_4_after_it() {
    for line in ["member list", "member remove 3"] {
        let (code, error) = failed(Trouble::Down, 0, line);
        assert_eq!(code, exit::UNAVAILABLE, "{line}: {error}");
    }
    let (code, error) = failed(Trouble::Down, 1, "member remove 3");
    assert_eq!(code, exit::UNKNOWN, "{error}");
    assert!(error.contains("connection refused"), "{error}");
}

#[test]
fn ctrl_c_leaves_the_change_going_on_and_says_so() {
    for step in 1..5 {
        let (code, error) = failed(Trouble::CtrlC, step, "member add 4=n4:7000");
        assert_eq!(code, exit::INTERRUPTED, "{error}");
        assert!(
            error.contains("the change goes on, and `kvcli member list` shows it"),
            "{error}"
        );
    }
}

#[test]
fn the_list_is_the_leaders_whichever_node_is_asked() {
    let model = Model::new(None);
    let (out, result) = model.run("member list", Format::Raw);
    assert_eq!(result.unwrap(), exit::DONE);
    let lines: Vec<_> = out.lines().collect();
    assert!(
        lines[0].starts_with("id=1 role=voter address=n1:7000 folder="),
        "{out}"
    );
    assert!(lines[2].ends_with("silent_ms=5"), "{out}");
    let (out, _) = model.run("member list", Format::Json);
    assert!(
        out.contains("\"leader\":1,") && out.contains("\"may_fail\":1"),
        "{out}"
    );
    let (out, _) = model.run("member list", Format::Table);
    assert!(
        out.contains("3 of 3 voters answer, a quorum needs 2: 1 may still fail"),
        "{out}"
    );
}
