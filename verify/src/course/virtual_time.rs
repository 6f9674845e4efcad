//! The arena in virtual time is the simulator's lab.

use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use raftkv::raft::{EntryId, Index, Raft, RoleName};

use super::{Arena, Service, View, server_of};
use crate::sim::lab::{Call, Ended, Every, Lab, Numbering, Submitted, T, Ticket};
use crate::sim::{Action, Record, Time};

impl Arena for Lab {
    fn nominal_timeout(&self) -> Duration {
        T
    }

    /// About half a second, as in the course.
    fn pause_before_look(&mut self) -> Duration {
        Duration::from_millis(450 + self.below(100))
    }

    fn glance(&self) -> Duration {
        Duration::from_millis(20)
    }

    fn rounds(&self, course: u64) -> u64 {
        course
    }

    fn set_unreliable(&mut self, unreliable: bool) {
        Lab::set_unreliable(self, unreliable);
    }

    fn set_long_reordering(&mut self, long_reordering: bool) {
        Lab::set_long_reordering(self, long_reordering);
    }

    fn now(&self) -> Time {
        Lab::now(self)
    }

    fn run_to(&mut self, end: Time) {
        Lab::run_to(self, end);
    }

    fn run_until(&mut self, limit: Duration, holds: impl FnMut(&mut Self) -> bool) -> bool {
        Lab::run_until(self, limit, holds)
    }

    fn below(&mut self, bound: u64) -> u64 {
        Lab::below(self, bound)
    }

    fn servers(&self) -> usize {
        Lab::servers(self)
    }

    fn disconnect(&mut self, server: usize) {
        Lab::disconnect(self, server);
    }

    fn connect(&mut self, server: usize) {
        Lab::connect(self, server);
    }

    fn is_connected(&self, server: usize) -> bool {
        Lab::is_connected(self, server)
    }

    fn is_up(&self, server: usize) -> bool {
        Lab::is_up(self, server)
    }

    fn crash(&mut self, server: usize) {
        Lab::crash(self, server);
    }

    fn stop(&mut self, server: usize) {
        Lab::stop(self, server);
    }

    fn start(&mut self, server: usize) {
        Lab::start(self, server);
    }

    /// One after the other, in no time.
    fn submit_all(&mut self, server: usize, commands: Vec<Bytes>) -> Vec<Option<Submitted>> {
        let submit = |command| Lab::submit(self, server, command);
        commands.into_iter().map(submit).collect()
    }

    fn ended(&mut self, ticket: Ticket) -> Option<Ended> {
        Lab::ended(self, ticket).cloned()
    }

    fn numbering(&mut self) -> &mut Numbering {
        &mut self.numbering
    }

    fn view(&self, server: usize) -> Option<View> {
        self.with_raft(server, |raft: &Raft| View {
            term: raft.term(),
            leader: raft.leader().map(server_of),
            leads: raft.role() == RoleName::Leader,
        })
    }

    fn executed_entry(&self, entry: EntryId) -> usize {
        Lab::executed_entry(self, entry)
    }

    fn place(&self, index: Index) -> u64 {
        Lab::place(self, index)
    }

    fn executed(&self, n: u64) -> usize {
        Lab::executed(self, n)
    }

    fn place_in_log(&self, server: usize, index: Index) -> u64 {
        Lab::place_in_log(self, server, index)
    }

    fn value_at(&self, server: usize, key: &[u8]) -> Bytes {
        Lab::value_at(self, server, key)
    }

    fn snapshot(&mut self, every: Every) {
        Lab::snapshot(self, every);
    }

    fn snapshot_index(&self, server: usize) -> Index {
        Lab::snapshot_index(self, server)
    }

    fn installs(&self) -> u64 {
        Lab::installs(self)
    }

    fn held(&self, server: usize) -> RangeInclusive<Index> {
        let held = self.with_raft(server, |raft| raft.first_index()..=raft.last().index);
        held.expect("the server is up")
    }

    fn log_bytes(&self, server: usize) -> usize {
        Lab::log_bytes(self, server)
    }

    fn log_file_bytes(&self, server: usize) -> Option<usize> {
        Some(Lab::log_file_bytes(self, server))
    }

    fn requests(&self) -> u64 {
        Lab::requests(self)
    }

    fn requests_to(&self, server: usize) -> u64 {
        Lab::requests_to(self, server)
    }

    fn bytes(&self) -> u64 {
        Lab::bytes(self)
    }
}

impl Service for Lab {
    fn clients(&self) -> usize {
        Lab::clients(self)
    }

    fn split(&mut self, side: &[usize]) {
        Lab::split(self, side);
    }

    fn connect_client(&mut self, client: usize, servers: &[usize]) {
        Lab::connect_client(self, client, servers);
    }

    fn set_long_delays(&mut self, long_delays: bool) {
        Lab::set_long_delays(self, long_delays);
    }

    fn begin(&mut self, client: usize, action: Action) -> Call {
        Lab::begin(self, client, action)
    }

    fn record(&self, call: Call) -> &Record {
        Lab::record(self, call)
    }

    fn attempts(&self) -> u64 {
        self.stats().attempts
    }

    fn snapshot_bytes(&self, server: usize) -> u64 {
        Lab::snapshot_bytes(self, server)
    }

    fn check_history(&mut self) {
        Lab::check_history(self);
    }
}
