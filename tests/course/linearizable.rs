//! Whether a history of one key is linearizable: whether there is an order of its operations, each
//! at some moment between its call and its return, in which every answer is right.
//!
//! The search is Wing and Gong's ("Testing and verifying concurrent objects", 1993): take one of
//! the operations that may come first, and look for an order of the others; with Lowe's memory of
//! the sets of operations and values from which there is none. Keys are independent of each
//! other, so each is searched by itself. A search that exceeds its budget is no proof, and fails.

use std::collections::{BTreeMap, HashMap, HashSet};

/// How many steps the search of one key may take.
const BUDGET: usize = 1_000_000;

/// What was done to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// Read; this was the value.
    Get(Option<Vec<u8>>),
    /// Set to this value.
    Put(Vec<u8>),
    /// This was added, and the length became so much.
    Append(Vec<u8>, u64),
}

/// One operation. Times are of any clock that all operations share.
#[derive(Clone, Debug)]
pub struct Operation {
    pub called: u64,
    /// `None`: it was never heard of again, and may have happened at any time, or not at all. The
    /// answer in `done` is not compared.
    pub returned: Option<u64>,
    pub done: Done,
}

/// Why a history is not accepted.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    NotLinearizable,
    OutOfBudget,
}

/// Judges the histories of all keys.
pub fn check_all<K: Ord + std::fmt::Debug>(histories: BTreeMap<K, Vec<Operation>>) {
    for (key, history) in histories {
        let verdict = check(&history, BUDGET);
        assert_eq!(verdict, Verdict::Linearizable, "key {key:?}: {history:#?}");
    }
}

/// Judges the history of one key, which is missing at first.
pub fn check(history: &[Operation], budget: usize) -> Verdict {
    let mut history: Vec<&Operation> = history.iter().collect();
    history.sort_by_key(|operation| operation.called);
    Search {
        taken: vec![0; history.len().div_ceil(64)],
        history,
        values: Values::default(),
        tried: HashSet::new(),
    }
    .run(budget)
}

struct Search<'a> {
    history: Vec<&'a Operation>,
    /// A bit for each operation that is in the order already.
    taken: Vec<u64>,
    values: Values,
    /// From where there is no way on, or none that has not been tried.
    tried: HashSet<(Vec<u64>, usize)>,
}

/// Where the search stands: the operation taken last, the value before it, what else may follow.
struct Step {
    operation: usize,
    value_before: usize,
    alternatives: Vec<usize>,
}

impl Search<'_> {
    fn run(mut self, budget: usize) -> Verdict {
        let mut value = Values::MISSING;
        let mut path: Vec<Step> = Vec::new();
        let mut candidates = self.candidates();
        for _ in 0..budget {
            if self.is_complete() {
                return Verdict::Linearizable;
            }
            if let Some(operation) = candidates.pop() {
                let Some(next) = self.values.after(value, self.history[operation]) else {
                    continue;
                };
                self.flip(operation);
                if !self.tried.insert((self.taken.clone(), next)) {
                    self.flip(operation);
                    continue;
                }
                let alternatives = std::mem::replace(&mut candidates, self.candidates());
                path.push(Step {
                    operation,
                    value_before: value,
                    alternatives,
                });
                value = next;
            } else {
                let Some(step) = path.pop() else {
                    return Verdict::NotLinearizable;
                };
                self.flip(step.operation);
                value = step.value_before;
                candidates = step.alternatives;
            }
        }
        Verdict::OutOfBudget
    }

    fn is_taken(&self, operation: usize) -> bool {
        self.taken[operation / 64] >> (operation % 64) & 1 == 1
    }

    fn flip(&mut self, operation: usize) {
        self.taken[operation / 64] ^= 1 << (operation % 64);
    }

    /// The operations that may come next: those called before any other one has returned.
    fn candidates(&self) -> Vec<usize> {
        let mut first_return = u64::MAX;
        let mut candidates = Vec::new();
        for (at, operation) in self.history.iter().enumerate() {
            if operation.called > first_return {
                break;
            }
            if !self.is_taken(at) {
                first_return = first_return.min(operation.returned.unwrap_or(u64::MAX));
                candidates.push(at);
            }
        }
        candidates.retain(|at| self.history[*at].called <= first_return);
        candidates
    }

    /// Those that were never heard of again need not have happened.
    fn is_complete(&self) -> bool {
        let history = self.history.iter().enumerate();
        let mut heard = history.filter(|(_, operation)| operation.returned.is_some());
        heard.all(|(at, _)| self.is_taken(at))
    }
}

/// The values that a key has had in some order of its operations, by number.
struct Values {
    by_number: Vec<Option<Vec<u8>>>,
    numbers: HashMap<Option<Vec<u8>>, usize>,
}

impl Default for Values {
    fn default() -> Self {
        Self {
            by_number: vec![None],
            numbers: HashMap::from([(None, Self::MISSING)]),
        }
    }
}

impl Values {
    const MISSING: usize = 0;

    /// The value after an operation, if its answer is right before that value.
    fn after(&mut self, value: usize, operation: &Operation) -> Option<usize> {
        let present = &self.by_number[value];
        let unheard = operation.returned.is_none();
        match &operation.done {
            Done::Get(read) => (unheard || read == present).then_some(value),
            Done::Put(new) => {
                let new = new.clone();
                Some(self.number(new))
            }
            Done::Append(more, len) => {
                let mut new = present.clone().unwrap_or_default();
                new.extend_from_slice(more);
                (unheard || new.len() as u64 == *len).then(|| self.number(new))
            }
        }
    }

    fn number(&mut self, value: Vec<u8>) -> usize {
        let next = self.by_number.len();
        let number = *self.numbers.entry(Some(value.clone())).or_insert(next);
        if number == next {
            self.by_number.push(Some(value));
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(called: u64, returned: u64, done: Done) -> Operation {
        Operation {
            called,
            returned: Some(returned),
            done,
        }
    }

    fn unheard(called: u64, done: Done) -> Operation {
        Operation {
            called,
            returned: None,
            done,
        }
    }

    fn get(value: &str) -> Done {
        Done::Get(Some(value.into()))
    }

    fn put(value: &str) -> Done {
        Done::Put(value.into())
    }

    fn append(more: &str, len: u64) -> Done {
        Done::Append(more.into(), len)
    }

    fn verdict(history: &[Operation]) -> Verdict {
        check(history, 100_000)
    }

    #[track_caller]
    fn good(history: &[Operation]) {
        assert_eq!(verdict(history), Verdict::Linearizable);
    }

    #[track_caller]
    fn bad(history: &[Operation]) {
        assert_eq!(verdict(history), Verdict::NotLinearizable);
    }

    #[test]
    fn one_after_the_other_each_sees_what_was_before() {
        good(&[]);
        good(&[
            at(0, 1, Done::Get(None)),
            at(2, 3, put("a")),
            at(4, 5, append("b", 2)),
            at(6, 7, get("ab")),
        ]);
    }

    #[test]
    fn operations_that_overlap_may_come_in_either_order() {
        for read in ["ab", "ba"] {
            let lens = if read == "ab" { (1, 2) } else { (2, 1) };
            good(&[
                at(0, 10, append("a", lens.0)),
                at(0, 10, append("b", lens.1)),
                at(11, 12, get(read)),
            ]);
        }
        good(&[
            at(0, 10, put("a")),
            at(1, 2, Done::Get(None)),
            at(3, 4, get("a")),
        ]);
    }

    #[test]
    fn a_stale_read_is_noticed() {
        bad(&[at(0, 1, put("a")), at(2, 3, put("b")), at(4, 5, get("a"))]);
        bad(&[at(0, 1, put("a")), at(2, 3, Done::Get(None))]);
    }

    #[test]
    fn reads_that_go_back_are_noticed() {
        // Both overlap the write, but the later one sees the earlier value.
        bad(&[
            at(0, 10, put("a")),
            at(1, 2, get("a")),
            at(3, 4, Done::Get(None)),
        ]);
    }

    #[test]
    fn a_lost_a_doubled_and_a_reordered_append_are_noticed() {
        let appends = [at(0, 1, append("a", 1)), at(2, 3, append("b", 2))];
        for read in ["a", "b", "abb", "aab", "ba"] {
            bad(&[appends[0].clone(), appends[1].clone(), at(4, 5, get(read))]);
        }
    }

    #[test]
    fn an_answer_that_tells_of_a_lost_append_is_noticed_without_a_read() {
        bad(&[at(0, 1, append("a", 1)), at(2, 3, append("b", 1))]);
        bad(&[at(0, 10, append("a", 1)), at(0, 10, append("b", 1))]);
    }

    #[test]
    fn what_was_never_heard_of_may_happen_late_or_not_at_all_but_not_before_its_call() {
        let write = unheard(5, append("x", 0));
        good(&[at(0, 1, put("a")), write.clone(), at(6, 7, get("a"))]);
        good(&[at(0, 1, put("a")), write.clone(), at(60, 70, get("ax"))]);
        bad(&[at(0, 1, put("a")), write.clone(), at(2, 3, get("ax"))]);
        bad(&[
            at(0, 1, put("a")),
            write.clone(),
            at(6, 7, get("ax")),
            at(8, 9, get("a")),
        ]);
        bad(&[at(0, 1, put("a")), write, at(60, 70, get("axx"))]);
    }

    #[test]
    fn a_search_that_takes_too_long_is_no_proof() {
        let history: Vec<_> = (0..30).map(|n| at(0, 100, put(&n.to_string()))).collect();
        let impossible = at(101, 102, get("none of them"));
        let history = [history, vec![impossible]].concat();
        assert_eq!(check(&history, 1000), Verdict::OutOfBudget);
    }

    #[test]
    fn many_operations_one_after_the_other_take_few_steps() {
        let appends = (0..1000).map(|n| at(10 * n, 10 * n + 15, append("x", n + 1)));
        let history: Vec<_> = appends.collect();
        assert_eq!(check(&history, 10_000), Verdict::Linearizable);
    }
}
