//! Draws the clients' operations: all that the store offers, on few keys. Every written value is
//! unique, so that a read tells which operation wrote the value.

use bytes::Bytes;

use super::client::APPEND_KEYS;
use super::history::Action;
use super::world::World;
use raftkv::kv::{Op, Scan};

impl World {
    /// The next thing that a client does.
    pub(super) fn draw_action(&mut self, c: usize) -> Action {
        let number = self.history.len();
        let filler = "x".repeat(self.random.below(self.plan.value_bytes) as usize);
        let value = Bytes::from(format!("<{number}{filler}>"));
        let append_key = self.random.below(self.plan.append_keys);
        let append_key = Bytes::from([APPEND_KEYS, append_key.to_string().as_bytes()].concat());
        let mixed_key = self.random.below(self.plan.mixed_keys);
        let key = Bytes::from(format!("m{mixed_key}"));
        let any_key = match self.random.chance(0.4) {
            true => append_key.clone(),
            false => key.clone(),
        };
        // Every third client hardly ever writes, so that nothing makes it leave a leader that is
        // cut off from the others.
        let reads_mostly = c % 3 == 2 && self.random.chance(0.95);
        let kinds = if reads_mostly { 40 } else { 100 };
        let op = match self.random.below(kinds) {
            0..25 => return Action::Get(any_key),
            25..35 => return Action::Scan(self.draw_scan()),
            35..40 => Op::Get { key: any_key },
            40..60 => Op::Append {
                key: append_key,
                value,
            },
            60..68 => Op::Append { key, value },
            68..83 => Op::Put { key, value },
            83..90 => Op::Delete { key },
            _ => {
                let expected = self.clients[c].seen.get(&key).cloned().unwrap_or(None);
                Op::Cas {
                    key,
                    expected,
                    value,
                }
            }
        };
        Action::Execute(op)
    }

    fn draw_scan(&mut self) -> Scan {
        let scan = match self.random.below(3) {
            0 => Scan::all(),
            1 => Scan::prefix("m"),
            _ => Scan::range("a1", Some("m2".into())),
        };
        match self.random.below(3) {
            0 => scan.with_limit(self.random.between(1, 3) as u32),
            1 => scan.with_limit_bytes(self.random.between(1, 100) as u32),
            _ => scan,
        }
    }
}
