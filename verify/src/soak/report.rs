//! The report of a run: one page of Markdown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Options;
use super::history::Line;
use super::nemesis::Event;
use super::plan::{Kind, Plan};
use raftkv::raft::Index;

pub struct Report<'a> {
    pub options: &'a Options,
    pub plan: &'a Plan,
    pub lines: &'a [Line],
    pub events: &'a [Event],
    pub stood_still_us: u64,
    pub logs: &'a [String],
    pub small_disk: Option<u64>,
    pub level: Option<Index>,
    pub verdict: &'a Result<(), String>,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Soak run, seed {}\n", self.options.seed)?;
        match self.verdict {
            Ok(()) => writeln!(f, "**Everything held.**\n")?,
            Err(sentence) => writeln!(f, "**FAILED**: {sentence}\n")?,
        }
        self.setting(f)?;
        self.figures(f)?;
        self.operations(f)?;
        self.gaps(f)?;
        self.timeline(f)
    }
}

impl Report<'_> {
    fn setting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (plan, options) = (self.plan, self.options);
        let disk = match self.small_disk {
            Some(id) => format!("node {id} has a small disk"),
            None => "no small disk could be mounted: a full disk is skipped".into(),
        };
        writeln!(f, "- {}", options.programs.kvnode.display())?;
        writeln!(
            f,
            "- {} nodes; {} Clerks that know them, {} behind proxies, one kvcli; a snapshot every \
             {} KiB of log; {disk}",
            plan.nodes,
            plan.direct,
            plan.proxied,
            plan.snapshot_log_bytes >> 10
        )?;
        writeln!(
            f,
            "- faults for {} s; again: `scripts/soak.sh {} {}`",
            options.seconds, options.seconds, options.seed
        )?;
        writeln!(
            f,
            "- the history once more: `scripts/soak.sh --check {}`\n",
            options.folder.display()
        )
    }

    fn figures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answered: Vec<_> = self
            .lines
            .iter()
            .filter(|l| l.outcome.is_answer())
            .collect();
        let end = self
            .lines
            .iter()
            .map(|line| line.returned_us)
            .max()
            .unwrap_or(0);
        let seconds = (end as f64 / 1e6).max(0.001);
        let mut times: Vec<_> = answered
            .iter()
            .map(|l| l.returned_us - l.called_us)
            .collect();
        times.sort_unstable();
        let at = |permille: usize| {
            let place = times.len().saturating_sub(1) * permille / 1000;
            times.get(place).map_or(0.0, |us| *us as f64 / 1000.0)
        };
        writeln!(f, "| figure | |\n| --- | --- |")?;
        writeln!(
            f,
            "| operations | {} in {seconds:.1} s, {:.0} answers a second |",
            self.lines.len(),
            answered.len() as f64 / seconds
        )?;
        write!(
            f,
            "| latency of answers | p50 {:.1} ms, p90 {:.1} ms",
            at(500),
            at(900)
        )?;
        write!(f, ", p99 {:.1} ms, p99.9 {:.1} ms", at(990), at(999))?;
        writeln!(f, ", longest {:.1} ms |", at(1000))?;
        writeln!(f, "| terms with a leader | {} |", self.leaders().len())?;
        let count = |with: &str| self.log_lines().filter(|line| line.contains(with)).count();
        let received = count(" received: ");
        writeln!(
            f,
            "| snapshots | {} taken, {received} sent and installed |",
            count("snapshot up to ") - received
        )?;
        if self.stood_still_us > 0 {
            let seconds = self.stood_still_us as f64 / 1e6;
            writeln!(f, "| the machine itself stood still | {seconds:.1} s |")?;
        }
        let closed = count("checksum");
        writeln!(f, "| connections closed for a bad checksum | {closed} |")?;
        match self.level {
            Some(index) => writeln!(
                f,
                "| all nodes level | at entry {index}, and their states are equal if all held |\n"
            ),
            None => writeln!(f, "| all nodes level | never |\n"),
        }
    }

    fn log_lines(&self) -> impl Iterator<Item = &str> {
        self.logs.iter().flat_map(|log| log.lines())
    }

    fn leaders(&self) -> BTreeSet<&str> {
        let after = |line| str::split_once(line, " leader in term ");
        let after = self.log_lines().filter_map(|line| Some(after(line)?.1));
        after.filter_map(|rest| rest.split(':').next()).collect()
    }

    fn operations(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
        for line in self.lines {
            let kind = counts.entry(line.ask.kind()).or_default();
            *kind.entry(line.outcome.kind()).or_default() += 1;
        }
        writeln!(
            f,
            "| operation | answered | not executed | unknown | wrong |\n\
             | --- | --- | --- | --- | --- |"
        )?;
        for (kind, counts) in counts {
            let count = |outcome| counts.get(outcome).copied().unwrap_or(0);
            let (answered, not) = (count("answered"), count("not executed"));
            let (unknown, wrong) = (count("unknown"), count("wrong"));
            writeln!(f, "| {kind} | {answered} | {not} | {unknown} | {wrong} |")?;
        }
        writeln!(f)
    }

    /// The longest time without an answer, by kind of fault: from its beginning until the work has
    /// gone on after its end.
    fn gaps(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answered = self.lines.iter().filter(|line| line.outcome.is_answer());
        let mut ends: Vec<u64> = answered.map(|line| line.returned_us).collect();
        ends.sort_unstable();
        let mut gaps: BTreeMap<Kind, (u64, u64)> = BTreeMap::new();
        for event in self.events {
            let gap = longest_gap(&ends, event.begun_us, event.over_us);
            let (times, longest) = gaps.entry(event.kind).or_default();
            *times += 1;
            *longest = gap.max(*longest);
        }
        writeln!(
            f,
            "| fault | times | longest gap without an answer |\n| --- | --- | --- |"
        )?;
        for (kind, (times, longest)) in gaps {
            writeln!(f, "| {kind} | {times} | {:.2} s |", longest as f64 / 1e6)?;
        }
        writeln!(f)
    }

    fn timeline(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| from | to | fault | |\n| --- | --- | --- | --- |")?;
        for event in self.events {
            let (from, to) = (event.begun_us as f64 / 1e6, event.over_us as f64 / 1e6);
            writeln!(
                f,
                "| {from:.1} s | {to:.1} s | {} | {} |",
                event.kind, event.note
            )?;
        }
        Ok(())
    }
}

/// The longest time between two of the sorted moments, of which at least a part lies between
/// `from` and `to`.
fn longest_gap(moments: &[u64], from: u64, to: u64) -> u64 {
    let first = moments.partition_point(|at| *at < from).saturating_sub(1);
    let last = (moments.partition_point(|at| *at < to) + 1).min(moments.len());
    let pairs = moments.get(first..last).unwrap_or_default().windows(2);
    pairs.map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_counts_with_the_answers_on_both_of_its_sides() {
        let moments = [10, 20, 70, 80, 200];
        assert_eq!(longest_gap(&moments, 30, 40), 50);
        assert_eq!(longest_gap(&moments, 75, 78), 10);
        assert_eq!(longest_gap(&moments, 72, 90), 120);
        assert_eq!(longest_gap(&[], 1, 2), 0);
        assert_eq!(longest_gap(&[5], 1, 9), 0);
    }
}
