//! Clients of a cluster whose members change: a store in memory, reached at addresses that come and
//! go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::cluster::Store;
use super::server::{Server, echo_of};
use crate::client::{
    Answered, CallError, Carrier, Clerk, Error, MAX_SERVERS, Options, Stop, Tcp, Told, Transport,
};
use crate::raft::{Index, RoleName};
use crate::wire::client::{Answer, Ask, NotLeader, Request, Response, Status};
use crate::wire::codec;
use crate::wire::members::MemberList;

/// A timeout that only a failing test reaches.
const LONG: Duration = Duration::from_secs(20);

/// A cluster of whose members that run the first one leads. A node that was removed goes on for as
/// long as it runs: it refuses what it is asked, and knows the list in which it is missing.
#[derive(Default)]
struct Changing {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    list: Option<MemberList>,
    /// The nodes that run, members or not.
    running: Vec<u64>,
    store: Store,
    /// How often each address was asked, and how many answers brought a list.
    asked: BTreeMap<String, u64>,
    lists_sent: u64,
}

fn address(id: u64) -> String {
    format!("n{id}:1")
}

impl Changing {
    fn of(ids: &[u64]) -> Arc<Self> {
        let cluster = Arc::<Self>::default();
        cluster.become_members(ids, 77);
        cluster
    }

    /// Commits a list with these members. They run from now on, and so do all that ran before.
    fn become_members(&self, ids: &[u64], lineage: u64) {
        let mut inner = self.inner.lock();
        let index = inner.list.as_ref().map_or(3, |list| list.index + 10);
        let members = ids.iter().map(|id| (*id, address(*id))).collect();
        inner.list = Some(MemberList {
            index,
            lineage,
            members,
        });
        inner.running.extend(ids);
    }

    fn stop(&self, id: u64) {
        self.inner.lock().running.retain(|running| *running != id);
    }

    fn clerk(self: &Arc<Self>, ids: &[u64]) -> Clerk {
        let servers = ids.iter().map(|id| address(*id));
        let options = Options {
            seed: 7,
            ..Options::default()
        };
        Clerk::over(Arc::clone(self) as Arc<dyn Transport>, servers, options).unwrap()
    }

    fn asked(&self, id: u64) -> u64 {
        let inner = self.inner.lock();
        inner.asked.get(&address(id)).copied().unwrap_or(0)
    }
}

impl Inner {
    fn answer(&mut self, ask: &Ask, id: u64, list: &MemberList) -> Answer {
        let mut members = list.members.iter();
        let leader = members.find(|(id, _)| self.running.contains(id)).cloned();
        match ask {
            Ask::Submit(_) | Ask::Query(_) if leader.as_ref().is_none_or(|(it, _)| *it != id) => {
                Answer::NotLeader(NotLeader {
                    id,
                    role: RoleName::Follower,
                    term: 3,
                    leader,
                })
            }
            Ask::Submit(command) => Answer::Reply(codec::to_bytes(&self.store.submit(command))),
            Ask::Status => Answer::Status(Box::new(status(id, list))),
            _ => Answer::Invalid("not here".into()),
        }
    }
}

impl Transport for Changing {
    fn call(
        &self,
        server: &str,
        ask: &Ask,
        known: Index,
        _: Duration,
        _: &Stop,
    ) -> Result<Answered, CallError> {
        let mut inner = self.inner.lock();
        *inner.asked.entry(server.to_string()).or_default() += 1;
        let running = inner.running.iter().copied();
        let Some(id) = running.into_iter().find(|id| address(*id) == server) else {
            return Err(CallError::NotSent("connection refused".into()));
        };
        let list = inner.list.clone().expect("there are members");
        let answer = inner.answer(ask, id, &list);
        let members = (list.index > known).then(|| Box::new(list));
        inner.lists_sent += u64::from(members.is_some());
        Ok(Answered { answer, members })
    }
}

#[test]
fn a_clerk_goes_on_when_all_servers_that_it_began_with_are_gone() {
    let cluster = Changing::of(&[1, 2, 3]);
    let clerk = cluster.clerk(&[1, 2, 3]);
    let mut written = 0;
    let mut write = || {
        written += 1;
        assert_eq!(clerk.append("log", "x").unwrap(), written);
    };
    write();
    for members in [[1, 2, 4], [1, 5, 4], [6, 5, 4]] {
        cluster.become_members(&members, 77);
        write();
        let left: Vec<u64> = (1..=6).filter(|id| !members.contains(id)).collect();
        left.iter().for_each(|id| cluster.stop(*id));
        write();
    }
    // Node 5 was never named as the leader: the client knows it from the list.
    cluster.stop(6);
    write();
    let before = (cluster.asked(1), cluster.asked(2), cluster.asked(3));
    for _ in 0..20 {
        write();
    }
    let after = (cluster.asked(1), cluster.asked(2), cluster.asked(3));
    assert_eq!(before, after, "nobody asks who is gone");
    assert_eq!(
        cluster.inner.lock().lists_sent,
        4,
        "each list is sent to the client once"
    );
}

#[test]
fn four_threads_write_while_each_member_is_replaced_and_no_write_fails() {
    let cluster = Changing::of(&[1, 2, 3]);
    let clerk = cluster.clerk(&[1, 2, 3]);
    let over = AtomicBool::new(false);
    let writes: u64 = thread::scope(|scope| {
        let write = || {
            let mut count = 0;
            while !over.load(SeqCst) || count < 10 {
                clerk.append("log", "x").unwrap();
                count += 1;
            }
            count
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(write)).collect();
        for new in 4..=200 {
            cluster.become_members(&[new - 2, new - 1, new], 77);
            // The clients learn the list before the machines of the former members are switched
            // off.
            clerk.append("log", "x").unwrap();
            cluster.stop(new - 3);
        }
        over.store(true, SeqCst);
        threads.into_iter().map(|one| one.join().unwrap()).sum()
    });
    let inner = cluster.inner.lock();
    let length = inner
        .store
        .value(&Bytes::from_static(b"log"))
        .unwrap()
        .len();
    assert_eq!(length as u64, writes + 197, "each append once");
}

#[test]
fn one_old_address_is_enough_as_long_as_a_node_answers_there() {
    let cluster = Changing::of(&[1, 2, 3]);
    cluster.become_members(&[4, 5, 6], 77);
    let clerk = cluster.clerk(&[2]);
    clerk.put("key", "value").unwrap();
    assert_eq!(clerk.leader(), Some(address(4)));
    assert_eq!(cluster.asked(2), 1);
}

#[test]
fn a_clerk_does_not_go_on_with_a_cluster_that_was_made_anew() {
    let cluster = Changing::of(&[1, 2, 3]);
    let clerk = cluster.clerk(&[1, 2, 3]);
    clerk.put("key", "value").unwrap();
    cluster.become_members(&[1, 2, 3], 78);
    let error = clerk.put("key", "other").unwrap_err();
    assert!(
        matches!(
            error,
            Error::MadeAnew {
                maybe_executed: true,
                ..
            }
        ),
        "{error}"
    );
}

/// A server that sends a list of members with every answer to a client that does not know it.
fn with_list(list: MemberList) -> Server {
    Server::greeting(move |_, mut peer| {
        while let Some(request) = peer.try_receive::<Request>() {
            let members = (list.index > request.known).then(|| Box::new(list.clone()));
            peer.send(&Response {
                id: request.id,
                answer: echo_of(&request.ask),
                members,
            });
        }
    })
}

fn a_list() -> MemberList {
    MemberList {
        index: 9,
        lineage: 7,
        members: vec![(4, "n4:1".into())],
    }
}

fn query(text: &'static str) -> Ask {
    Ask::Query(Bytes::from_static(text.as_bytes()))
}

#[test]
fn over_tcp_the_client_says_which_list_it_has_and_gets_a_newer_one() {
    let server = with_list(a_list());
    let tcp = Tcp::new("");
    for (known, expected) in [(0, Some(Box::new(a_list()))), (9, None)] {
        let ask = query("x");
        let answered = tcp.call(&server.address, &ask, known, LONG, &Stop::never());
        assert_eq!(answered.unwrap().members, expected, "{known}");
        let mut carrier = Carrier::new(1, "").unwrap();
        carrier.ask(0, (0, &server.address), 1, (query("x"), known), LONG);
        assert_eq!(one(&mut carrier).result.unwrap().members, expected);
    }
}

/// Waits for the end of one request.
#[track_caller]
fn one(carrier: &mut Carrier) -> Told {
    let (deadline, mut told) = (carrier.now() + LONG, Vec::new());
    loop {
        assert!(carrier.now() < deadline, "the request does not end");
        carrier.wait(deadline, &mut told).unwrap();
        if let Some(told) = told.pop() {
            return told;
        }
    }
}

/// A server that answers nothing but its own number.
fn named(name: &'static str) -> Server {
    Server::greeting(move |_, mut peer| {
        while let Some(request) = peer.try_receive::<Request>() {
            peer.answer(request.id, Answer::Invalid(name.into()));
        }
    })
}

#[test]
fn an_index_that_gets_another_address_leads_to_the_server_there() {
    let (old, new) = (named("old"), named("new"));
    let mut carrier = Carrier::new(2, "").unwrap();
    for (server, lane) in [(&old, 0), (&old, 1), (&new, 0), (&new, 1), (&old, 1)] {
        carrier.ask(lane, (5, &server.address), 1, (query("who"), 0), LONG);
        let name = if server.address == old.address {
            "old"
        } else {
            "new"
        };
        let answered = one(&mut carrier).result.unwrap();
        assert_eq!(answered.answer, Answer::Invalid(name.into()));
    }
}

#[test]
fn requests_under_way_at_an_index_that_is_given_to_another_server_end_without_an_answer() {
    let silent = Server::greeting(|_, mut peer| while peer.try_receive::<Request>().is_some() {});
    let (first, new) = (named("first"), named("new"));
    let mut carrier = Carrier::new(1, "").unwrap();
    carrier.ask(0, (0, &silent.address), 1, (query("?"), 0), LONG);
    carrier.ask(0, (1, &first.address), 2, (query("?"), 0), LONG);
    assert_eq!(one(&mut carrier).tag, 2);
    carrier.ask(0, (0, &new.address), 3, (query("?"), 0), LONG);
    let told = one(&mut carrier);
    assert_eq!(told.tag, 1);
    let why = told.result.unwrap_err().to_string();
    assert!(why.contains("another server took its place"), "{why}");
    assert_eq!(one(&mut carrier).tag, 3);
}

#[test]
fn a_transport_reaches_ever_new_servers_and_keeps_the_connection_that_is_in_use() {
    let always = Server::echo();
    let tcp = Tcp::new("");
    let call = |address: &str| tcp.call(address, &query("x"), 0, LONG, &Stop::never());
    let others: Vec<_> = (0..MAX_SERVERS + 20).map(|_| Server::echo()).collect();
    for other in &others {
        call(&other.address).unwrap();
        call(&always.address).unwrap();
    }
    assert_eq!(always.connections(), 1);
    assert!(!tcp.is_connected(&others[0].address));
    assert!(tcp.is_connected(&others[others.len() - 1].address));
}

/// The status of a node that knows these members.
fn status(id: u64, list: &MemberList) -> Status {
    Status {
        id,
        cluster: "test".into(),
        role: RoleName::Follower,
        term: 3,
        leader: None,
        members: list.members.clone(),
        learners: Vec::new(),
        active: Vec::new(),
        commit: 9,
        applied: 9,
        last_index: 9,
        first_index: 1,
        log_bytes: 0,
        snapshot_index: 0,
        snapshot_bytes: 0,
        snapshot_age_ms: 0,
        sending: Vec::new(),
        uptime_ms: 0,
        gauges: Vec::new(),
        snapshot_pending: false,
        snapshot_written: 0,
        stages: Vec::new(),
        disk: Default::default(),
    }
}

#[test]
fn the_status_of_all_is_that_of_the_members_and_of_those_that_are_gone_only_if_no_member_answers() {
    let cluster = Changing::of(&[1, 2, 3]);
    let clerk = cluster.clerk(&[1]);
    let asked = || -> Vec<String> {
        let all = clerk.status().into_iter();
        all.map(|server| server.address).collect()
    };
    assert_eq!(asked(), [1, 2, 3].map(address));
    cluster.become_members(&[4, 5], 77);
    clerk.put("key", "value").unwrap();
    assert_eq!(asked(), [4, 5].map(address));
    [4, 5].iter().for_each(|id| cluster.stop(*id));
    let mut all = asked();
    all.sort_unstable();
    assert_eq!(all, [1, 2, 3, 4, 5].map(address));
}
