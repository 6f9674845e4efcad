//! The course's Raft tests, part C: crashes and losses at random.

use std::collections::BTreeSet;
use std::time::Duration;

use raftkv::raft::Term;

use super::{Actor, Agreement, Arena, Procedures, Scripted};
use crate::sim::Time;
use crate::sim::lab::Submitted;

const MS: Duration = Duration::from_millis(1);

/// Submits a command to every server that is up, and returns the last that took it.
fn submit_to_all(arena: &mut impl Arena) -> Option<(usize, Submitted)> {
    let command = arena.fresh();
    let mut taken = None;
    for server in 0..arena.servers() {
        let submitted = arena.submit(server, command.clone());
        taken = submitted.map(|submitted| (server, submitted)).or(taken);
    }
    taken
}

/// Lets up to half an election timeout pass now and then, else next to no time.
fn let_some_time_pass(arena: &mut impl Arena) {
    let most = if arena.chance(10) {
        arena.nominal_timeout().as_millis() as u64 / 2
    } else {
        13
    };
    let time = MS * arena.below(most) as u32;
    arena.run_for(time);
}

fn start_all(arena: &mut impl Arena) {
    for server in 0..arena.servers() {
        if !arena.is_up(server) {
            arena.start(server);
        }
    }
    arena.connect_all();
}

/// Leaders crash soon after they have taken a command, again and again.
///
/// In virtual time this does not reliably notice a leader that counts replicas of entries of
/// earlier terms: that wrong variant passes forty seeds. The simulator draws runs of this kind with
/// limits so small that an entry of an earlier term travels alone, and notices within ten.
pub fn figure_8(arena: &mut impl Arena) {
    arena.agree(1);
    let mut commands = Vec::new();
    let rounds = arena.rounds(1000);
    for _ in 0..rounds {
        let taken = submit_to_all(arena);
        let_some_time_pass(arena);
        if let Some((leader, submitted)) = taken {
            commands.push(submitted.entry);
            arena.crash(leader);
        }
        if arena.connected().len() < 3 {
            let server = arena.any_server();
            if !arena.is_up(server) {
                arena.start(server);
            }
        }
    }
    start_all(arena);
    arena.agree(5);
    let terms: BTreeSet<Term> = commands.iter().map(|entry| entry.term).collect();
    assert!(terms.len() >= 3, "commands were taken in {terms:?} only");
    let executed = commands.iter().map(|entry| arena.executed_entry(*entry));
    let executed: Vec<usize> = executed.filter(|servers| *servers > 0).collect();
    assert!(executed.iter().all(|servers| *servers == 5), "{executed:?}");
    // In fewer rounds fewer commands live long enough; but without any this would show nothing.
    let least = if rounds < 1000 { 1 } else { 20 };
    let (executed, taken) = (executed.len(), commands.len());
    assert!(
        executed >= least,
        "of {taken} commands that leaders took in {rounds} rounds {executed} were executed"
    );
}

/// Commands of five clients at a time come to agreement though messages are lost.
pub fn unreliable_agree(arena: &mut impl Arena) {
    arena.set_unreliable(true);
    let mut others = Vec::new();
    for _ in 1..arena.rounds(50) {
        for _ in 0..4 {
            let command = arena.fresh();
            others.push(Agreement::new(arena, command, 1, true));
        }
        let command = arena.fresh();
        let own = Agreement::new(arena, command, 1, true);
        arena.agree_beside(own, &mut others);
    }
    arena.set_unreliable(false);
    arena.await_agreements(&mut others);
    arena.agree(5);
}

/// As [`figure_8`], with servers cut off instead of crashed, and late messages.
pub fn figure_8_unreliable(arena: &mut impl Arena) {
    arena.set_unreliable(true);
    arena.agree(1);
    let rounds = arena.rounds(1000);
    let mut commands = Vec::new();
    for round in 0..rounds {
        if round == rounds / 5 {
            arena.set_long_reordering(true);
        }
        let taken = submit_to_all(arena);
        let_some_time_pass(arena);
        if let Some((leader, submitted)) = taken {
            commands.push(submitted.entry);
            if arena.chance(50) {
                arena.disconnect(leader);
            }
        }
        if arena.connected().len() < 3 {
            let server = arena.any_server();
            arena.connect(server);
        }
    }
    arena.connect_all();
    arena.agree(5);
    let terms: BTreeSet<Term> = commands.iter().map(|entry| entry.term).collect();
    assert!(terms.len() >= 2, "commands were taken in {terms:?} only");
    let executed = commands.iter().map(|entry| arena.executed_entry(*entry));
    let executed: Vec<usize> = executed.filter(|servers| *servers > 0).collect();
    assert!(!executed.is_empty(), "nothing was executed");
    assert!(executed.iter().all(|servers| *servers == 5), "{executed:?}");
}

/// Servers are cut off, crashed and started while clients submit commands.
pub fn reliable_churn(arena: &mut impl Arena) {
    churn(arena);
}

/// As [`reliable_churn`], with messages that are lost and late.
pub fn unreliable_churn(arena: &mut impl Arena) {
    arena.set_unreliable(true);
    churn(arena);
}

fn churn(arena: &mut impl Arena) {
    arena.agree(5);
    let mut clients: Vec<Client> = (0..3).map(|id| Client::new(arena, id)).collect();
    for _ in 0..20 {
        if arena.chance(20) {
            let server = arena.any_server();
            arena.disconnect(server);
        }
        if arena.chance(50) {
            let server = arena.any_server();
            match arena.is_up(server) {
                true => arena.connect(server),
                false => arena.start(server),
            }
        }
        if arena.chance(20) {
            let server = arena.any_server();
            arena.crash(server);
        }
        arena.run_with(7 * arena.nominal_timeout() / 10, &mut clients);
    }
    arena.run_with(arena.nominal_timeout(), &mut clients);
    arena.set_unreliable(false);
    start_all(arena);
    // Each goes on until it knows what became of its last command.
    clients.iter_mut().for_each(|client| client.stops = true);
    arena.run_with(2 * arena.nominal_timeout(), &mut clients);
    assert!(clients.iter().all(|client| client.due == Time::MAX));

    arena.agree(5);
    let noted: Vec<u64> = clients
        .into_iter()
        .flat_map(|client| client.noted)
        .collect();
    assert!(!noted.is_empty(), "no command got through");
    for server in 0..5 {
        let log = arena.log_of(server);
        let log = String::from_utf8_lossy(&log);
        for command in &noted {
            assert!(
                log.contains(&format!("<{command}>")),
                "server {server} lost {command}"
            );
        }
    }
}

/// Submits commands and notes those that it saw executed.
struct Client {
    id: u32,
    due: Time,
    stops: bool,
    /// The number of its command, what became of it, and how often it was looked for.
    under_way: Option<(u64, Submitted, usize)>,
    noted: Vec<u64>,
}

/// How long the course waits before each look.
const LOOKS: [u32; 5] = [10, 20, 50, 100, 200];

impl Client {
    fn new(arena: &impl Arena, id: u32) -> Self {
        Self {
            id,
            due: arena.now(),
            stops: false,
            under_way: None,
            noted: Vec::new(),
        }
    }

    fn begin(&mut self, arena: &mut impl Arena) {
        if self.stops {
            self.due = Time::MAX;
            return;
        }
        let number = arena.next_fresh();
        match submit_to_all(arena) {
            Some((_, submitted)) => {
                self.under_way = Some((number, submitted, 0));
                self.due = arena.after(MS * LOOKS[0]);
            }
            None => self.due = arena.after(MS * (79 + 17 * self.id)),
        }
    }
}

impl<A: Arena> Actor<A> for Client {
    fn due(&self) -> Time {
        self.due
    }

    fn act(&mut self, arena: &mut A) {
        let Some((number, submitted, looks)) = self.under_way.take() else {
            return self.begin(arena);
        };
        if arena.executed_entry(submitted.entry) > 0 {
            self.noted.push(number);
            self.begin(arena);
        } else if let Some(wait) = LOOKS.get(looks + 1) {
            self.under_way = Some((number, submitted, looks + 1));
            self.due = arena.after(MS * *wait);
        } else {
            self.begin(arena);
        }
    }
}
