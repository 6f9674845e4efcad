//! A disk that takes its time: a write takes some ticks, and a crash may come before it is done.

use std::collections::VecDeque;

use super::plan::Dice;
use crate::raft::{Entry, HardState, Index, Write, WriteId};

#[derive(Default)]
pub struct Disk {
    pub hard_state: HardState,
    pub log: Vec<Entry>,
    /// Writes that were handed over, each with the tick at which it is done.
    queue: VecDeque<(u64, Write)>,
    /// No write is done before this tick.
    pub stalled_until: u64,
}

impl Disk {
    pub fn submit(&mut self, due: u64, write: Write) {
        self.queue.push_back((due, write));
    }

    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Executes the next write, whenever it is due.
    pub fn work_once(&mut self) -> Option<WriteId> {
        let (_, write) = self.queue.pop_front()?;
        let id = write.id;
        self.execute(write, usize::MAX);
        Some(id)
    }

    /// A crash that loses all writes under way.
    pub fn lose_writes(&mut self) {
        self.queue.clear();
    }

    /// Executes the writes that are due; returns the last of them.
    pub fn work(&mut self, now: u64) -> Option<WriteId> {
        if now < self.stalled_until {
            return None;
        }
        let mut done = None;
        while self.queue.front().is_some_and(|(due, _)| *due <= now) {
            let (_, write) = self.queue.pop_front().expect("just seen");
            done = Some(write.id);
            self.execute(write, usize::MAX);
        }
        done
    }

    /// A crash: some of the writes under way are done though nobody was told, the next one perhaps
    /// in part, and the rest is lost.
    pub fn crash(&mut self, dice: &mut Dice) {
        for (_, write) in std::mem::take(&mut self.queue) {
            if dice.chance(500) {
                self.execute(write, usize::MAX);
                continue;
            }
            if dice.chance(500) {
                let kept = dice.below(write.entries.len() as u64 + 1) as usize;
                self.execute(write, kept);
            }
            return;
        }
    }

    /// Writes the term and vote first, then the first `kept` of the entries in place of the log's
    /// old tail.
    fn execute(&mut self, write: Write, kept: usize) {
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        if let Some(first) = write.entries.first().filter(|_| kept > 0) {
            self.log.truncate(first.id.index as usize - 1);
        }
        self.log.extend(write.entries.into_iter().take(kept));
    }

    pub fn entry(&self, index: Index) -> Option<&Entry> {
        self.log.get((index as usize).checked_sub(1)?)
    }
}
