//! What clients ask for: all that the store offers, on few keys, with values that nobody else
//! writes.
//!
//! A write whose end is unknown may take effect at any time, so that each one doubles what a
//! checker has to think of from there on. Hence a key that has had a few is left alone, and another
//! takes its place; and no more than a few clients write to a key at the same time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::history::{Ask, Line, Outcome};
use crate::sim::Random;

/// How the keys begin that are only appended to.
pub const APPENDED: &str = "a";
const MIXED: &str = "m";
const COUNTER: &str = "c";
const LARGE: &str = "l";

/// The present keys by how they begin, and how many there are of each.
const PLACES: [(&str, usize); 4] = [(APPENDED, 3), (MIXED, 3), (COUNTER, 1), (LARGE, 2)];
/// How many writes of unknown end a key may have before it is left alone.
const MAX_UNKNOWN: usize = 2;
/// How many writes of any end; so that values stay short.
const MAX_WRITES: usize = 300;
/// How many writes to a key may be under way at once.
const MAX_WRITERS: usize = 3;

const LARGE_BYTES: u64 = 16 << 10;

/// A key in use.
struct Place {
    key: String,
    begin: &'static str,
    generation: u64,
    writers: usize,
    writes: usize,
    unknown: usize,
}

/// The keys that all clients share.
pub struct Keys {
    places: Mutex<Vec<Place>>,
    all: Mutex<Vec<String>>,
    /// Whether much is to be written, so that disks fill up.
    pub flood: AtomicBool,
}

impl Keys {
    pub fn new() -> Self {
        let each = |(begin, count): (&'static str, usize)| {
            (0..count).map(move |number| Place {
                key: format!("{begin}{number}-0"),
                begin,
                generation: 0,
                writers: 0,
                writes: 0,
                unknown: 0,
            })
        };
        let places: Vec<_> = PLACES.into_iter().flat_map(each).collect();
        let all = places.iter().map(|place| place.key.clone()).collect();
        Self {
            places: Mutex::new(places),
            all: Mutex::new(all),
            flood: AtomicBool::new(false),
        }
    }

    /// All keys that were ever in use.
    pub fn all(&self) -> Vec<String> {
        self.all.lock().clone()
    }

    fn any(&self, random: &mut Random) -> String {
        let places = self.places.lock();
        random.pick(&places).key.clone()
    }

    /// A key to write to, unless all of this kind have enough writers.
    fn to_write(&self, begin: &str, random: &mut Random) -> Option<String> {
        let mut places = self.places.lock();
        let fit = |place: &&mut Place| place.begin == begin && place.writers < MAX_WRITERS;
        let mut fitting: Vec<_> = places.iter_mut().filter(fit).collect();
        let chosen = random.below(fitting.len() as u64) as usize;
        let place = fitting.get_mut(chosen)?;
        place.writers += 1;
        Some(place.key.clone())
    }

    /// A write has ended.
    fn written(&self, line: &Line) {
        let mut places = self.places.lock();
        // A key that was left alone meanwhile needs no more counting.
        let Some(place) = places.iter_mut().find(|place| place.key == line.ask.key()) else {
            return;
        };
        place.writers -= 1;
        place.writes += 1;
        place.unknown += usize::from(matches!(line.outcome, Outcome::Unknown(_)));
        if place.unknown >= MAX_UNKNOWN || place.writes >= MAX_WRITES {
            let (number, generation) = (
                place.key.split('-').next().unwrap_or_default(),
                place.generation + 1,
            );
            *place = Place {
                key: format!("{number}-{generation}"),
                begin: place.begin,
                generation,
                writers: 0,
                writes: 0,
                unknown: 0,
            };
            self.all.lock().push(place.key.clone());
        }
    }
}

/// What one client does.
pub struct Workload<'a> {
    keys: &'a Keys,
    random: Random,
    client: usize,
    number: u64,
    /// What it saw last of each key.
    seen: BTreeMap<String, Option<String>>,
    /// The counter that it has just read and is about to count up.
    counting: Option<String>,
}

impl<'a> Workload<'a> {
    pub fn new(keys: &'a Keys, client: usize, seed: u64) -> Self {
        Self {
            keys,
            random: Random::new(seed),
            client,
            number: 0,
            seen: BTreeMap::new(),
            counting: None,
        }
    }

    /// The next thing that it does. What came of it is to be told, whatever it was.
    pub fn next(&mut self) -> Ask {
        if let Some(ask) = self.count_up() {
            return ask;
        }
        let flood = self.keys.flood.load(Ordering::Relaxed);
        let ask = match self.random.below(100) {
            _ if flood && self.random.chance(0.3) => self.put(LARGE),
            0..30 => None,
            30..35 => {
                let key = self.keys.any(&mut self.random);
                return Ask::LoggedGet { key };
            }
            35..60 => self.append(APPENDED),
            60..65 => self.append(MIXED),
            65..80 => self.put(MIXED),
            80..84 => self.delete(),
            84..92 => self.cas(),
            92..99 => {
                self.counting = self.keys.to_write(COUNTER, &mut self.random);
                let key = self.counting.clone();
                key.map(|key| Ask::Get { key })
            }
            _ => self.put(LARGE),
        };
        ask.unwrap_or_else(|| Ask::Get {
            key: self.keys.any(&mut self.random),
        })
    }

    /// The end of what it did last.
    pub fn ended(&mut self, line: &Line) {
        let key = line.ask.key().to_string();
        if let Outcome::Value(value) | Outcome::Differs(value) = &line.outcome {
            // Of keys that were left alone, nothing is needed.
            if self.seen.len() > 100 {
                self.seen.clear();
            }
            self.seen.insert(key, value.clone());
        }
        if !line.ask.is_read() {
            self.keys.written(line);
        }
    }

    fn value(&mut self, most: u64) -> String {
        self.number += 1;
        let filler = "x".repeat(self.random.below(most) as usize);
        format!("<{}.{}{filler}>", self.client, self.number)
    }

    fn append(&mut self, begin: &str) -> Option<Ask> {
        let key = self.keys.to_write(begin, &mut self.random)?;
        let value = self.value(20);
        Some(Ask::Append { key, value })
    }

    fn put(&mut self, begin: &str) -> Option<Ask> {
        let key = self.keys.to_write(begin, &mut self.random)?;
        let value = self.value(if begin == LARGE { LARGE_BYTES } else { 20 });
        Some(Ask::Put { key, value })
    }

    fn delete(&mut self) -> Option<Ask> {
        let key = self.keys.to_write(MIXED, &mut self.random)?;
        Some(Ask::Delete { key })
    }

    fn cas(&mut self) -> Option<Ask> {
        let key = self.keys.to_write(MIXED, &mut self.random)?;
        let expected = self.seen.get(&key).cloned().unwrap_or_default();
        let value = self.value(20);
        Some(Ask::Cas {
            key,
            expected,
            value,
        })
    }

    /// The second half of counting: what was read, and one more, if it was not changed meanwhile.
    fn count_up(&mut self) -> Option<Ask> {
        let key = self.counting.take()?;
        let expected = self.seen.get(&key).cloned().unwrap_or_default();
        let number: u64 = expected
            .as_deref()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let value = (number + 1).to_string();
        Some(Ask::Cas {
            key,
            expected,
            value,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(workload: &mut Workload, ask: Ask, outcome: Outcome) {
        workload.ended(&Line {
            client: 1,
            called_us: 1,
            returned_us: 2,
            ask,
            outcome,
        });
    }

    #[test]
    fn a_key_with_writes_of_unknown_end_is_left_alone() {
        let keys = Keys::new();
        let mut workload = Workload::new(&keys, 1, 1);
        let mut unknown: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..1000 {
            let ask = workload.next();
            if !ask.is_read() {
                *unknown.entry(ask.key().to_string()).or_default() += 1;
            }
            end(&mut workload, ask, Outcome::Unknown("late".into()));
        }
        assert!(unknown.values().all(|count| *count <= MAX_UNKNOWN));
        assert!(unknown.keys().all(|key| keys.all().contains(key)));
    }

    #[test]
    fn few_write_to_a_key_at_the_same_time() {
        let keys = Keys::new();
        let mut under_way: BTreeMap<String, usize> = BTreeMap::new();
        for client in 0..100 {
            let mut workload = Workload::new(&keys, client, client as u64);
            let ask = workload.next();
            if !ask.is_read() {
                *under_way.entry(ask.key().to_string()).or_default() += 1;
            }
        }
        assert!(under_way.values().all(|count| *count <= MAX_WRITERS));
    }

    #[test]
    fn the_same_seed_asks_for_the_same() {
        let run = || {
            let keys = Keys::new();
            let mut workload = Workload::new(&keys, 1, 7);
            let mut asked = Vec::new();
            for _ in 0..200 {
                let ask = workload.next();
                asked.push(ask.clone());
                end(&mut workload, ask, Outcome::NotExecuted("no".into()));
            }
            asked
        };
        assert_eq!(run(), run());
    }
}
