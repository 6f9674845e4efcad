//! What a client knows of the servers: their addresses, which of them are members, and which server
//! led last. The code is pure.
//!
//! The leader is a guess that saves requests. A wrong guess costs an attempt and never correctness,
//! because a server that does not lead refuses.
//!
//! The members of a cluster change. With an answer, a server sends its list of members if it is
//! newer than the client's. An address that the newest list does not have is *gone*: the client
//! keeps it, because its user may have named the server in another way than the cluster does, but
//! asks it only if no member answers. So a client that began with servers none of which is left
//! goes on, as long as it makes a request now and then.
//!
//! Invariants: there are at least one and at most [`MAX_SERVERS`] addresses, and none twice. Calls
//! under way name servers by index. An index keeps its address until there is no room for another
//! member; then the address that has been gone longest gives its index up. A call that was under
//! way at that address credits its answer to the other server: a wrong guess, which costs an
//! attempt.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::error::Error;
use crate::raft::Index;
use crate::wire::members::MemberList;

/// How many servers a client knows at most: those that its user named, and those that it learned
/// from answers. A [`Call`](super::Call) has one bit for each server in a number of 64 bits.
pub const MAX_SERVERS: usize = 64;

/// The servers that a client knows. Shared by all its calls.
#[derive(Debug)]
pub struct Routes {
    /// The servers' addresses, host:port. The place of an address is the server's index.
    servers: Vec<String>,
    /// For each server, by its index: the index of the list of members that was the first not to
    /// have its address, or 0 if the newest list has it or there was no list since it was learned.
    gone: Vec<Index>,
    /// The index of the newest list of members and the lineage of its cluster; 0 without a list.
    newest: (Index, u64),
    /// The server to ask first: the one that acted as the leader last, or that another server has
    /// named as the leader since. `None` after that server turned out not to lead.
    leader: Option<usize>,
    /// The server that acted as the leader last. Unlike `leader`, it stays when the server stops
    /// leading, so that changes of leader can be counted.
    answered_last: Option<usize>,
    /// The index of the server that a new call asks first while no leader is known: the index after
    /// that of the last server that did not lead. If the index were fixed, every new call would
    /// first wait for the same silent server.
    turn: usize,
    leader_changes: u64,
    /// The source of the jitter in pauses.
    random: ChaCha8Rng,
}

impl Routes {
    /// Makes the routes of a client to these servers, host:port each; an address that is listed
    /// twice counts once. `seed` is for the jitter of pauses.
    ///
    /// # Errors
    /// [`Error::Servers`] if the list is empty or longer than [`MAX_SERVERS`], or if an entry has
    /// no port.
    pub fn new<I, S>(servers: I, seed: u64) -> Result<Self, Error>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        let mut known: Vec<String> = Vec::new();
        for server in servers {
            let server: String = server.into();
            check(&server)?;
            if !known.contains(&server) {
                known.push(server);
            }
            if known.len() > MAX_SERVERS {
                return Err(Error::Servers(format!(
                    "the list names more than {MAX_SERVERS} servers: name some of one cluster"
                )));
            }
        }
        if known.is_empty() {
            return Err(Error::Servers(
                "no server is named: name at least one, as host:port".into(),
            ));
        }
        Ok(Routes {
            gone: vec![0; known.len()],
            newest: (0, 0),
            servers: known,
            leader: None,
            answered_last: None,
            turn: 0,
            leader_changes: 0,
            random: ChaCha8Rng::seed_from_u64(seed),
        })
    }

    /// All known addresses; a server's index is its place here.
    pub fn servers(&self) -> &[String] {
        &self.servers
    }

    /// The address of the server with this index.
    pub fn address(&self, server: usize) -> &str {
        &self.servers[server]
    }

    /// The server that is believed to lead.
    pub fn leader(&self) -> Option<usize> {
        self.leader
    }

    /// How many changes of leader this client has noticed: how often the server that answered as
    /// the leader was another one than the time before.
    pub fn leader_changes(&self) -> u64 {
        self.leader_changes
    }

    /// Returns the index of an address that a server has named. A new address is added; `None` if
    /// there is no room for it, or if it is not of the form host:port.
    pub fn learn(&mut self, address: &str) -> Option<usize> {
        if let Some(known) = self.servers.iter().position(|server| server == address) {
            return Some(known);
        }
        check(address).ok()?;
        let place = match self.servers.len() {
            MAX_SERVERS => self.gone_longest()?,
            free => free,
        };
        match place == self.servers.len() {
            true => {
                self.servers.push(address.to_string());
                self.gone.push(0);
            }
            false => {
                self.servers[place] = address.to_string();
                self.gone[place] = 0;
            }
        }
        Some(place)
    }

    /// Takes in a list of members that a server has sent. A list that is not newer than the one
    /// that the client has changes nothing: answers may overtake each other.
    ///
    /// # Errors
    /// [`MadeAnew`] if the list is of another cluster than the one before: the cluster
    /// was made anew, and has nothing of what this client wrote since. Nothing is changed then.
    pub fn learned(&mut self, list: &MemberList) -> Result<(), MadeAnew> {
        let (index, lineage) = self.newest;
        if index > 0 && list.lineage != lineage {
            return Err(MadeAnew);
        }
        if list.index <= index {
            return Ok(());
        }
        self.newest = (list.index, list.lineage);
        let is_listed = |server: &String| list.members.iter().any(|(_, at)| at == server);
        for (server, gone) in self.servers.iter().zip(&mut self.gone) {
            *gone = match (is_listed(server), *gone) {
                (true, _) => 0,
                (false, 0) => list.index,
                (false, since) => since,
            };
        }
        // A configuration has fewer members than a client may know servers, and all others are gone
        // now. So there is room for each member.
        for (_, address) in &list.members {
            self.learn(address);
        }
        Ok(())
    }

    /// The index of the newest list of members that the client has; 0 without one. Each request
    /// tells it, so that the answer brings a newer one.
    pub fn known(&self) -> Index {
        self.newest.0
    }

    /// Whether the newest list of members does not have this server's address.
    pub fn is_gone(&self, server: usize) -> bool {
        self.gone[server] > 0
    }

    /// The server that has been gone longest, without the one that is believed to lead.
    fn gone_longest(&self) -> Option<usize> {
        let gone = self.gone.iter().enumerate();
        gone.filter(|(server, since)| **since > 0 && self.leader != Some(*server))
            .min_by_key(|(_, since)| **since)
            .map(|(server, _)| server)
    }

    /// Notes that this server has just acted as the leader: its answer is one that only a leader
    /// gives.
    pub(super) fn leads(&mut self, server: usize) {
        if self
            .answered_last
            .replace(server)
            .is_some_and(|last| last != server)
        {
            self.leader_changes += 1;
        }
        self.leader = Some(server);
    }

    /// Notes that this server did not act as the leader. `hint` is the server that it names as the
    /// leader, if any.
    ///
    /// The hint is used only if this server or none was believed to lead. If another server than
    /// this one is believed to lead, another call has found that server, perhaps after this answer
    /// was sent, and an old answer must not replace newer knowledge.
    pub(super) fn does_not_lead(&mut self, server: usize, hint: Option<usize>) {
        self.turn = server + 1;
        if self.leader.is_none_or(|leader| leader == server) {
            self.leader = hint.filter(|hint| *hint != server);
        }
    }

    /// The index of the server to ask first while no leader is known. It is to be taken modulo the
    /// number of servers.
    pub(super) fn turn(&self) -> usize {
        self.turn
    }

    /// A random number in `0..bound`; zero if `bound` is zero.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        // The remainder makes low numbers slightly more frequent, which does not matter for jitter.
        self.random.next_u64().checked_rem(bound).unwrap_or(0)
    }
}

/// A list of members is of another cluster than the one before, although it has the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MadeAnew;

/// Refuses an address that is not of the form host:port.
fn check(address: &str) -> Result<(), Error> {
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0) => {
            Ok(())
        }
        _ => Err(Error::Servers(format!(
            "{address:?} is no server: write host:port, such as 127.0.0.1:7001"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_cannot_be_used_is_refused_with_what_to_write() {
        for list in [
            &[][..],
            &["localhost"],
            &["a:1", ":7001"],
            &["a:0"],
            &["a:70000"],
        ] {
            let error = Routes::new(list.iter().copied(), 0).unwrap_err();
            assert!(error.to_string().contains("host:port"), "{list:?}: {error}");
        }
        let many = (0..=MAX_SERVERS).map(|i| format!("host{i}:1"));
        assert!(Routes::new(many, 0).is_err());
    }

    #[test]
    fn a_server_named_twice_is_asked_once() {
        let routes = Routes::new(["a:1", "b:1", "a:1"], 0).unwrap();
        assert_eq!(routes.servers(), ["a:1", "b:1"]);
    }

    #[test]
    fn the_number_of_learned_servers_is_bounded() {
        let mut routes = Routes::new(["a:1"], 0).unwrap();
        for i in 0..200 {
            routes.learn(&format!("host{i}:1"));
        }
        assert_eq!(routes.servers().len(), MAX_SERVERS);
        assert_eq!(routes.learn("a:1"), Some(0));
    }

    fn list(index: Index, members: &[&str]) -> MemberList {
        let members = members.iter().zip(1..).map(|(at, id)| (id, at.to_string()));
        MemberList {
            index,
            lineage: 77,
            members: members.collect(),
        }
    }

    /// The addresses that are not gone.
    fn present(routes: &Routes) -> Vec<&str> {
        let all = (0..routes.servers().len()).filter(|server| !routes.is_gone(*server));
        all.map(|server| routes.address(server)).collect()
    }

    #[test]
    fn a_newer_list_adds_members_and_marks_the_others_gone() {
        let mut routes = Routes::new(["a:1", "b:1"], 0).unwrap();
        assert_eq!(routes.known(), 0);
        routes.learned(&list(5, &["b:1", "c:1"])).unwrap();
        assert_eq!(routes.known(), 5);
        assert_eq!(routes.servers(), ["a:1", "b:1", "c:1"]);
        assert_eq!(present(&routes), ["b:1", "c:1"]);
        routes.learned(&list(9, &["a:1"])).unwrap();
        assert_eq!(present(&routes), ["a:1"]);
    }

    #[test]
    fn a_list_that_was_overtaken_by_a_newer_one_changes_nothing() {
        let mut routes = Routes::new(["a:1"], 0).unwrap();
        routes.learned(&list(9, &["b:1"])).unwrap();
        for index in [9, 8] {
            routes.learned(&list(index, &["a:1", "c:1"])).unwrap();
            assert_eq!((routes.known(), present(&routes)), (9, vec!["b:1"]));
        }
    }

    #[test]
    fn a_list_of_another_lineage_is_refused_whatever_its_index() {
        let mut routes = Routes::new(["a:1"], 0).unwrap();
        routes.learned(&list(9, &["a:1"])).unwrap();
        for index in [8, 9, 10] {
            let other = MemberList {
                lineage: 78,
                ..list(index, &["x:1"])
            };
            assert_eq!(routes.learned(&other), Err(MadeAnew));
        }
        assert_eq!((routes.known(), present(&routes)), (9, vec!["a:1"]));
    }

    #[test]
    fn after_a_hundred_replacements_the_members_are_known_and_the_oldest_are_forgotten() {
        let mut routes = Routes::new(["n1:1", "n2:1", "n3:1"], 0).unwrap();
        for new in 4..104_u64 {
            let members = [new - 2, new - 1, new].map(|id| format!("n{id}:1"));
            let members = members.each_ref().map(String::as_str);
            routes.learned(&list(new, &members)).unwrap();
            let mut found = present(&routes);
            found.sort_unstable();
            let mut expected = members.to_vec();
            expected.sort_unstable();
            assert_eq!(found, expected);
        }
        assert_eq!(routes.servers().len(), MAX_SERVERS);
        let all = routes.servers().iter();
        let mut ids: Vec<u64> = all.map(|at| at[1..at.len() - 2].parse().unwrap()).collect();
        ids.sort_unstable();
        assert_eq!(ids, (40..104).collect::<Vec<_>>());
    }

    #[test]
    fn the_server_that_is_believed_to_lead_keeps_its_index_although_it_is_gone() {
        let mut routes = Routes::new(["proxy:1"], 0).unwrap();
        routes.leads(0);
        for i in 1..100 {
            routes.learned(&list(i, &[&format!("n{i}:1")])).unwrap();
        }
        assert_eq!(routes.address(0), "proxy:1");
        assert_eq!(routes.leader(), Some(0));
    }

    #[test]
    fn a_late_refusal_does_not_undo_what_another_call_found_out() {
        let mut routes = Routes::new(["a:1", "b:1", "c:1"], 0).unwrap();
        routes.leads(1);
        routes.does_not_lead(0, Some(2));
        assert_eq!(routes.leader(), Some(1));
        routes.does_not_lead(1, Some(2));
        assert_eq!(routes.leader(), Some(2));
        routes.does_not_lead(2, None);
        assert_eq!(routes.leader(), None);
    }
}
