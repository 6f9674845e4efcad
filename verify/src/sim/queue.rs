//! The queue of future events, ordered by virtual time.

use std::collections::BTreeMap;

use super::Time;

/// Events by time; those of one time in the order in which they were added.
pub(super) struct Queue<E> {
    events: BTreeMap<(Time, u64), E>,
    added: u64,
}

impl<E> Queue<E> {
    pub fn new() -> Self {
        Self {
            events: BTreeMap::new(),
            added: 0,
        }
    }

    pub fn add(&mut self, at: Time, event: E) {
        self.added += 1;
        self.events.insert((at, self.added), event);
    }

    /// Events of this kind that are due later than `latest` are due then.
    pub fn bring_forward(&mut self, latest: Time, is_of_kind: impl Fn(&E) -> bool) {
        let late = self.events.range((latest, u64::MAX)..);
        let late: Vec<(Time, u64)> = late
            .filter(|(_, e)| is_of_kind(e))
            .map(|(at, _)| *at)
            .collect();
        for at in late {
            if let Some(event) = self.events.remove(&at) {
                self.add(latest, event);
            }
        }
    }

    /// When the next event is due.
    pub fn next_at(&self) -> Option<Time> {
        self.events.first_key_value().map(|((at, _), _)| *at)
    }

    pub fn next(&mut self) -> Option<(Time, E)> {
        let ((at, _), event) = self.events.pop_first()?;
        Some((at, event))
    }
}
