//! What goes wrong in a run, one fault after the other, each with its end; and that the work goes
//! on: under every fault that leaves a majority together, and after every one.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use super::clients::History;
use super::plan::{Fault, Kind};
use super::testbed::Testbed;
use super::workload::Keys;
use raftkv::raft::NodeId;
use raftkv::testkit::{self, Quality, Way};

/// Within what time the work must go on.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// So many answers to what was asked since are the work going on.
const ANSWERS: usize = 20;
const STEP: Duration = Duration::from_millis(50);
/// Far longer than anything between two steps takes, but for the waits that have bounds of their
/// own.
const STANDSTILL: Duration = Duration::from_secs(5);

/// One fault as it came.
pub struct Event {
    pub kind: Kind,
    /// When it began, and when the work went on after its end: microseconds since the start.
    pub begun_us: u64,
    pub over_us: u64,
    /// What happened, for a person.
    pub note: String,
}

/// Does what the plan says.
pub struct Nemesis<'a> {
    pub testbed: &'a mut Testbed,
    pub history: &'a History,
    pub keys: &'a Keys,
    /// The process of the client that can be frozen; 0 if it does not run.
    pub client: &'a Mutex<u32>,
    /// Whose disk is small, if that could be had.
    pub small_disk: Option<NodeId>,
    /// Who may end by itself at present.
    pub spared: Option<NodeId>,
    /// Set from outside: end now.
    pub interrupted: &'a AtomicBool,
    /// When this thread last ran.
    pub ran_us: u64,
    /// For how long it did not, though it wanted to: because the machine stood still, for which
    /// the cluster cannot be blamed.
    pub stood_still_us: u64,
}

/// Why a run ends early, in a sentence.
type Verdict<T> = Result<T, String>;

fn sentence(error: io::Error) -> String {
    error.to_string()
}

impl Nemesis<'_> {
    /// One fault from its beginning to its end, and until the work goes on.
    pub fn strike(&mut self, fault: &Fault) -> Verdict<Event> {
        let begun_us = self.history.now_us();
        let note = self.carry_out(fault)?;
        self.heal()?;
        self.work_goes_on("after it")?;
        let over_us = self.history.now_us();
        self.pause(fault.rest)?;
        Ok(Event {
            kind: fault.kind,
            begun_us,
            over_us,
            note,
        })
    }

    fn carry_out(&mut self, fault: &Fault) -> Verdict<String> {
        let leader = self.leader()?;
        let others: Vec<_> = self
            .testbed
            .nodes
            .ids()
            .into_iter()
            .filter(|id| *id != leader)
            .collect();
        let other = others[fault.choice as usize % others.len()];
        match fault.kind {
            Kind::KillLeader => self.crash(&[leader], fault),
            Kind::KillFollower => self.crash(&[other], fault),
            Kind::KillAll => self.crash(&self.testbed.nodes.ids(), fault),
            Kind::StopLeader => self.stop(leader, fault),
            Kind::StopFollower => self.stop(other, fault),
            Kind::FreezeLeader => self.freeze(leader, fault),
            Kind::FreezeFollower => self.freeze(other, fault),
            Kind::FreezeClient => self.freeze_client(fault),
            Kind::LateFollower => self.late(leader, other, fault),
            Kind::WipedFolder => self.wipe(other, fault),
            Kind::FullDisk => self.fill_disk(fault),
            Kind::Transfer => self.transfer(leader, fault),
            _ => self.bad_network(leader, &others, fault),
        }
    }

    /// Ends everything that is wrong.
    pub fn heal(&mut self) -> Verdict<()> {
        self.keys.flood.store(false, Ordering::Relaxed);
        self.testbed.heal().map_err(sentence)?;
        self.signal_client("CONT")?;
        self.testbed.launch_all().map_err(sentence)
    }

    fn crash(&mut self, ids: &[NodeId], fault: &Fault) -> Verdict<String> {
        self.testbed
            .nodes
            .kill(ids.iter().copied())
            .map_err(sentence)?;
        if ids.len() == 1 {
            self.hold(fault)?;
        } else {
            self.pause(fault.hold / 4)?;
        }
        Ok(named(ids))
    }

    fn stop(&mut self, id: NodeId, fault: &Fault) -> Verdict<String> {
        let status = self.testbed.nodes.stop(id).map_err(sentence)?.status;
        if !status.success() {
            return Err(format!("node {id} was told to stop and ended: {status}"));
        }
        self.hold(fault)?;
        Ok(named(&[id]))
    }

    fn freeze(&mut self, id: NodeId, fault: &Fault) -> Verdict<String> {
        self.testbed.freeze(id).map_err(sentence)?;
        self.hold(fault)?;
        Ok(named(&[id]))
    }

    fn freeze_client(&mut self, fault: &Fault) -> Verdict<String> {
        self.signal_client("STOP")?;
        self.hold(fault)?;
        Ok(String::new())
    }

    fn signal_client(&self, name: &str) -> Verdict<()> {
        match *self.client.lock() {
            0 => Ok(()),
            pid => testkit::signal(pid, name).map_err(sentence),
        }
    }

    fn transfer(&mut self, leader: NodeId, fault: &Fault) -> Verdict<String> {
        let result = self.testbed.transfer();
        self.hold(fault)?;
        let took = match self.testbed.leader() {
            Some(id) => format!("from {leader} to {id}"),
            None => format!("from {leader}"),
        };
        // Another election may have come first; then it is refused, or its answer lost.
        Ok(result.map_or_else(|error| format!("{took}: {error}"), |()| took.clone()))
    }

    /// Down until the others have snapshots beyond it, then back behind a slow link.
    fn late(&mut self, leader: NodeId, id: NodeId, fault: &Fault) -> Verdict<String> {
        self.testbed.nodes.kill([id]).map_err(sentence)?;
        self.keys.flood.store(true, Ordering::Relaxed);
        self.hold(fault)?;
        for other in self.testbed.nodes.ids() {
            if other != id {
                self.testbed.take_snapshot(other);
            }
        }
        let slow = Quality {
            bytes_per_second: 200_000,
            ..Quality::default()
        };
        for from in self.testbed.nodes.ids() {
            if let Some(cable) = self.testbed.cables.get(&(from, id)) {
                cable.set(slow);
            }
        }
        self.keys.flood.store(false, Ordering::Relaxed);
        self.testbed.nodes.launch([id]).map_err(sentence)?;
        self.hold(fault)?;
        Ok(format!("node {id}, of leader {leader}"))
    }

    /// The folder is gone, as with a disk that was not mounted; the node must be kept out. Then
    /// the operator mounts the disk.
    fn wipe(&mut self, id: NodeId, fault: &Fault) -> Verdict<String> {
        self.testbed.nodes.kill([id]).map_err(sentence)?;
        self.testbed.move_data(id, true).map_err(sentence)?;
        let seen = self.testbed.log(id).len();
        self.spared = Some(id);
        self.testbed.nodes.launch([id]).map_err(sentence)?;
        self.hold(fault)?;
        let new = |this: &Self| this.testbed.log(id)[seen..].to_string();
        // Others refuse the new folder; if a leader comes first that knows what the old one has
        // acknowledged, the node finds out by itself, and ends.
        let (refused, found_out) = ("with another data folder", "its disk lost writes");
        let noticed = |this: &Self| {
            [refused, found_out]
                .iter()
                .any(|how| new(this).contains(how))
        };
        self.until("a wiped node is not refused", &noticed)?;
        if new(self).contains("it may vote") {
            return Err(format!("node {id} may vote with a wiped folder"));
        }
        if let Some(end) = self.testbed.nodes.ended(id).map_err(sentence)?
            && (end.status.code() != Some(4) || !new(self).contains(found_out))
        {
            let status = end.status;
            return Err(format!("node {id} with a wiped folder ended, {status}"));
        }
        self.testbed.nodes.kill([id]).map_err(sentence)?;
        self.testbed.move_data(id, false).map_err(sentence)?;
        self.spared = None;
        Ok(match new(self).contains(found_out) {
            true => format!("node {id}: ended, for it lacks what it had acknowledged"),
            false => format!("node {id}: refused"),
        })
    }

    fn fill_disk(&mut self, fault: &Fault) -> Verdict<String> {
        let Some(id) = self.small_disk else {
            return Ok("skipped: no small disk can be mounted here".into());
        };
        fill(&mut self.testbed.filler(id).map_err(sentence)?);
        self.keys.flood.store(true, Ordering::Relaxed);
        let outcome = self.full(id, fault);
        self.keys.flood.store(false, Ordering::Relaxed);
        self.testbed.remove_filler(id).map_err(sentence)?;
        let note = outcome?;
        let is_over = |this: &Self| {
            thread::sleep(STEP);
            this.no_space(id).is_none()
        };
        self.until("a disk that has space again is not used", &is_over)?;
        Ok(note)
    }

    /// Waits for the node to notice: its status must say so, and it must go on.
    fn full(&mut self, id: NodeId, fault: &Fault) -> Verdict<String> {
        let begun_us = self.history.now_us();
        self.work_goes_on("while a disk is full")?;
        while self.history.now_us() - begun_us < 2 * fault.hold.as_micros() as u64 {
            self.pause(STEP)?;
            if let Some(reason) = self.no_space(id) {
                self.work_goes_on("while a disk is known to be full")?;
                self.hold(fault)?;
                return Ok(format!("node {id} went on: {reason}"));
            }
        }
        Ok(format!("node {id} had room enough in its files"))
    }

    /// Why a node has no space on its disk, as it says itself.
    fn no_space(&self, id: NodeId) -> Option<String> {
        self.testbed.status(id)?.disk.no_space
    }

    /// A fault of the network that leaves processes alone.
    fn bad_network(&mut self, leader: NodeId, others: &[NodeId], fault: &Fault) -> Verdict<String> {
        let choice = fault.choice as usize;
        let other = others[choice % others.len()];
        let minority = others.len() / 2;
        let mut rotated = others.to_vec();
        rotated.rotate_left(choice % others.len());
        let note = match fault.kind {
            Kind::IsolateLeader => self.cut_off(&[leader], fault),
            Kind::IsolateFollower => self.cut_off(&[other], fault),
            Kind::LeaderInMinority => {
                let group = [&[leader], &rotated[..minority - 1]].concat();
                self.cut_off(&group, fault)
            }
            Kind::LeaderInMajority => self.cut_off(&rotated[..minority], fault),
            Kind::Bridge => self.bridge(leader, &rotated, fault),
            Kind::MuteLeader => self.swallow(|from, _| from == leader, leader),
            Kind::DeafLeader => self.swallow(|_, to| to == leader, leader),
            Kind::Throttle => self.throttle(other),
            Kind::ClientNetwork => self.bad_client_network(fault),
            _ => self.bad_links(fault),
        };
        self.hold(fault)?;
        Ok(note)
    }

    /// No way between a group and the others.
    fn cut_off(&self, group: &[NodeId], fault: &Fault) -> String {
        let apart = |from, to| group.contains(&from) != group.contains(&to);
        self.cut(apart, fault);
        format!("{} apart{}", named(group), how(fault))
    }

    fn cut(&self, apart: impl Fn(NodeId, NodeId) -> bool, fault: &Fault) {
        let quality = match fault.vanishes {
            true => Quality::vanishing(),
            false => Quality::waiting(),
        };
        for ((from, to), cable) in &self.testbed.cables {
            if apart(*from, *to) {
                cable.set(quality);
            }
        }
    }

    /// The last of the nodes sees everybody; the others see only their half.
    fn bridge(&self, leader: NodeId, others: &[NodeId], fault: &Fault) -> String {
        let mut nodes = [&[leader], others].concat();
        let bridge = nodes.remove(fault.choice as usize % nodes.len());
        let half = &nodes[..nodes.len() / 2];
        let apart = |from: NodeId, to: NodeId| {
            from != bridge && to != bridge && half.contains(&from) != half.contains(&to)
        };
        self.cut(apart, fault);
        format!("node {bridge}, beside it {}{}", named(half), how(fault))
    }

    fn swallow(&self, swallowed: impl Fn(NodeId, NodeId) -> bool, leader: NodeId) -> String {
        for ((from, to), cable) in &self.testbed.cables {
            if swallowed(*from, *to) {
                // What a node sends goes over the connection that it dialled itself.
                cable.set_way(Way::There, Quality::vanishing());
            }
        }
        named(&[leader])
    }

    fn throttle(&self, id: NodeId) -> String {
        for ((_, to), cable) in &self.testbed.cables {
            if *to == id {
                cable.set(Quality {
                    bytes_per_second: 100_000,
                    ..Quality::default()
                });
            }
        }
        named(&[id])
    }

    fn bad_links(&self, fault: &Fault) -> String {
        let permille = fault.permille;
        let (mean, jitter) = (Duration::from_millis(75), Duration::from_millis(50));
        let (quality, note) = match fault.kind {
            Kind::Delay => (Quality::delayed(mean, jitter), String::new()),
            Kind::Loss => {
                let quality = Quality {
                    stalled_permille: 3 * permille,
                    broken_permille: permille / 10,
                    refused_permille: 5 * permille,
                    ..Quality::default()
                };
                let note = format!(
                    "of 1000: {} chunks late, {} break, {} connections refused",
                    quality.stalled_permille, quality.broken_permille, quality.refused_permille
                );
                (quality, note)
            }
            _ => {
                let quality = Quality {
                    corrupted_permille: permille,
                    ..Quality::default()
                };
                (quality, format!("{permille} of 1000 chunks"))
            }
        };
        self.testbed
            .cables
            .values()
            .for_each(|cable| cable.set(quality));
        note
    }

    fn bad_client_network(&self, fault: &Fault) -> String {
        for cable in self.testbed.client_cables.values() {
            cable.set(Quality {
                max_delay: Duration::from_millis(50),
                corrupted_permille: fault.permille,
                broken_permille: fault.permille,
                accept_delay: Duration::from_millis(20),
                ..Quality::default()
            });
        }
        format!("{} of 1000 chunks each", fault.permille)
    }

    /// Keeps a fault up: until the work has gone on under it, and for its time.
    fn hold(&mut self, fault: &Fault) -> Verdict<()> {
        let begun_us = self.history.now_us();
        self.work_goes_on("under it")?;
        let held = Duration::from_micros(self.history.now_us() - begun_us);
        self.pause(fault.hold.saturating_sub(held))
    }

    /// Waits until what is asked from this moment on is answered.
    pub fn work_goes_on(&mut self, when: &str) -> Verdict<()> {
        let (history, begun_us) = (self.history, self.history.now_us());
        let answered = |_: &Self| history.answers_since(begun_us, ANSWERS, STEP);
        self.until(&format!("no {ANSWERS} answers {when}"), &answered)
    }

    fn leader(&mut self) -> Verdict<NodeId> {
        self.until("no leader", &|this: &Self| {
            let found = this.testbed.leader().is_some();
            if !found {
                thread::sleep(STEP);
            }
            found
        })?;
        // It may have lost its leadership since; whoever led last is as good.
        Ok(self.testbed.leader().unwrap_or(1))
    }

    /// Waits until something is so, but not for ever.
    pub fn until(&mut self, else_what: &str, is_so: &dyn Fn(&Self) -> bool) -> Verdict<()> {
        self.step()?;
        let begun_us = self.ran_us - self.stood_still_us;
        while !is_so(self) {
            self.step()?;
            if self.ran_us - self.stood_still_us - begun_us > PATIENCE.as_micros() as u64 {
                return Err(format!("{else_what} within {PATIENCE:?}"));
            }
        }
        Ok(())
    }

    fn pause(&mut self, time: Duration) -> Verdict<()> {
        let end_us = self.history.now_us() + time.as_micros() as u64;
        while self.history.now_us() < end_us {
            self.step()?;
            thread::sleep(STEP.min(time));
        }
        Ok(())
    }

    /// What must hold at any time.
    fn step(&mut self) -> Verdict<()> {
        let (before, now) = (self.ran_us, self.history.now_us());
        self.ran_us = now;
        if now - before > STANDSTILL.as_micros() as u64 {
            self.stood_still_us += now - before;
        }
        if self.interrupted.load(Ordering::SeqCst) {
            return Err("interrupted".into());
        }
        match self.history.failure() {
            Some(error) => Err(format!("the history cannot be written: {error}")),
            None => Ok(()),
        }?;
        match self.testbed.lost(self.spared).map_err(sentence)? {
            Some(sentence) => Err(sentence),
            None => Ok(()),
        }
    }
}

/// Writes until there is no more room.
fn fill(file: &mut std::fs::File) {
    let zeros = vec![0; 1 << 16];
    while file.write_all(&zeros).is_ok() {}
}

fn how(fault: &Fault) -> &'static str {
    match fault.vanishes {
        true => ", bytes vanish",
        false => ", bytes wait",
    }
}

fn named(ids: &[NodeId]) -> String {
    let ids: Vec<_> = ids.iter().map(NodeId::to_string).collect();
    match ids.len() {
        1 => format!("node {}", ids[0]),
        _ => format!("nodes {}", ids.join(", ")),
    }
}
