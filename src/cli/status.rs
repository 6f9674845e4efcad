//! The state of the cluster, put together from the statuses of its nodes. Nodes that do not answer
//! are listed, too, with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::{Map, Value, json};

use super::{grammar, stages};
use crate::raft::{NodeId, RoleName};
use crate::wire::client::Status;

/// A report about the cluster: its nodes, which of them leads, and which of them vote.
#[derive(Clone, Debug)]
pub struct Report {
    nodes: Vec<Node>,
    leader: Option<NodeId>,
    /// The members that vote, according to the answers. Empty if no node has answered.
    voters: BTreeSet<NodeId>,
    /// The members that do not vote, according to the answers.
    learners: BTreeSet<NodeId>,
}

/// One node, or an address from which no node has answered.
#[derive(Clone, Debug)]
struct Node {
    /// The node's id, if the node itself or another one has told it.
    id: Option<NodeId>,
    address: String,
    /// The node's status, or why there is none.
    answer: Result<Status, String>,
}

/// The gauge that has a column in the table of nodes: the number of sessions, which is about the
/// number of clients.
const SESSIONS: &str = "sessions";

impl Report {
    /// Makes a report from the status that each address has answered, or the reason why it has not.
    pub fn new(answers: Vec<(String, Result<Status, String>)>) -> Self {
        let best = answers
            .iter()
            .filter_map(|(_, answer)| answer.as_ref().ok())
            .max_by_key(|status| (status.role == RoleName::Leader, status.term));
        let members: BTreeMap<NodeId, String> = best.map_or_else(BTreeMap::new, |status| {
            status.members.iter().cloned().collect()
        });
        let learners = best.map_or(&[][..], |status| &status.learners);
        let learners: BTreeSet<NodeId> = learners.iter().copied().collect();
        let mut nodes: Vec<Node> = Vec::new();
        for (address, answer) in answers {
            let id = match &answer {
                Ok(status) => Some(status.id),
                Err(_) => members
                    .iter()
                    .find(|(_, known)| **known == address)
                    .map(|(id, _)| *id),
            };
            // A node may be listed under two addresses, such as a host name and an IP address. Keep
            // one entry for it, preferably one that has answered.
            if id.is_none()
                || !nodes
                    .iter()
                    .any(|node| node.id == id && node.answer.is_ok())
            {
                nodes.retain(|node| id.is_none() || node.id != id);
                nodes.push(Node {
                    id,
                    address,
                    answer,
                });
            }
        }
        for (id, address) in &members {
            if !nodes.iter().any(|node| node.id == Some(*id)) {
                nodes.push(Node {
                    id: Some(*id),
                    address: address.clone(),
                    answer: Err("it was not asked: --cluster does not name it".into()),
                });
            }
        }
        nodes.sort_by_key(|node| (node.id.is_none(), node.id, node.address.clone()));
        let leader = nodes
            .iter()
            .filter_map(|node| node.answer.as_ref().ok())
            .filter(|status| status.role == RoleName::Leader)
            .max_by_key(|status| status.term)
            .map(|status| status.id);
        Self {
            nodes,
            leader,
            voters: &members.into_keys().collect() - &learners,
            learners,
        }
    }

    /// How many voters answer. Learners and nodes that are not members do not count.
    fn answering(&self) -> usize {
        let ids = self.nodes.iter().filter(|node| node.answer.is_ok());
        ids.filter_map(|node| node.id)
            .filter(|id| self.voters.contains(id))
            .count()
    }

    /// How many voters there are, according to the answers. Without any answer: how many addresses
    /// were asked.
    fn voters(&self) -> usize {
        match self.voters.len() {
            0 => self.nodes.len(),
            known => known,
        }
    }

    /// Whether a majority of the voters answers, which the cluster needs to work.
    pub fn has_quorum(&self) -> bool {
        self.answering() > self.voters() / 2
    }

    /// The state of the cluster in one sentence.
    pub fn summary(&self) -> String {
        let (answering, voters) = (self.answering(), self.voters());
        if answering == 0 {
            return format!(
                "0 of {voters} servers answer: check the addresses and whether the nodes run"
            );
        }
        let verb = if answering == 1 { "answers" } else { "answer" };
        let leader = match self.leader {
            Some(leader) => format!("leader {leader}"),
            None => "no leader".into(),
        };
        let advice = match self.has_quorum() {
            true if self.leader.is_none() && answering < voters => {
                "; an election takes a moment, and a new cluster waits until its nodes have met: \
                 start the others"
                    .into()
            }
            true => String::new(),
            false => format!("; a quorum needs {}: start the others", voters / 2 + 1),
        };
        format!("{answering} of {voters} voters {verb}, {leader}{advice}")
    }

    /// The state of the cluster as a table for people. Below the table are the reason for each node
    /// that does not answer, and the summary. If `verbose`, the text also has the gauges of the
    /// state machines and the times of the stages.
    pub fn table(&self, verbose: bool) -> String {
        let gauges: BTreeSet<&str> = match verbose {
            true => self.gauges().filter(|name| *name != SESSIONS).collect(),
            false => BTreeSet::new(),
        };
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        let fixed = [
            "id",
            "address",
            "role",
            "term",
            "commit",
            "applied",
            "last index",
            "log",
            SESSIONS,
            "snapshot",
            "uptime",
        ];
        table.set_header(fixed.iter().chain(&gauges).copied());
        for node in &self.nodes {
            table.add_row(self.row(node, &gauges));
        }
        let mut text = format!("{table}\n");
        if verbose {
            text.extend(stages::table(self.statuses()));
        }
        for node in &self.nodes {
            let name = node.id.map_or("the node".into(), |id| format!("node {id}"));
            match &node.answer {
                Err(reason) => {
                    writeln!(text, "{name} at {} does not answer: {reason}", node.address)
                }
                Ok(status) => status.sending.iter().try_for_each(|(to, received, bytes)| {
                    let percent = percent(*received, *bytes);
                    let bytes = size(*bytes);
                    writeln!(
                        text,
                        "{name} is sending its snapshot to {to}: {percent} % of {bytes}"
                    )
                }),
            }
            .expect("writing into a string does not fail");
        }
        text.extend(self.nodes.iter().flat_map(disk_lines));
        text + &self.summary()
    }

    /// The statuses of the nodes that answer.
    fn statuses(&self) -> impl Iterator<Item = &Status> {
        let answers = self.nodes.iter();
        answers.filter_map(|node| node.answer.as_ref().ok())
    }

    fn gauges(&self) -> impl Iterator<Item = &str> {
        self.statuses()
            .flat_map(|status| status.gauges.iter().map(|(name, _)| name.as_str()))
    }

    fn row(&self, node: &Node, gauges: &BTreeSet<&str>) -> Vec<Cell> {
        let id = node.id.map_or("?".into(), |id| id.to_string());
        let mut row = vec![id, node.address.clone()];
        match &node.answer {
            Err(_) => {
                row.push("no answer".into());
                row.resize(11 + gauges.len(), "-".into());
            }
            Ok(status) => {
                // A leader that was cut off may still report that it leads, so only the leader of
                // the highest term is marked.
                let mark = if self.leader == node.id { " *" } else { "" };
                let gauge = |name: &str| find(status, name).map_or("-".into(), |n| n.to_string());
                let role = match self.learners.contains(&status.id) {
                    true if status.role == RoleName::Follower => "learner".into(),
                    _ => status.role.to_string(),
                };
                row.push(format!("{role}{mark}"));
                let counts = [
                    status.term,
                    status.commit,
                    status.applied,
                    status.last_index,
                ];
                row.extend(counts.map(|count| count.to_string()));
                row.push(size(status.log_bytes));
                row.push(gauge(SESSIONS));
                row.push(snapshot(status));
                row.push(duration(status.uptime_ms));
                row.extend(gauges.iter().map(|name| gauge(name)));
            }
        }
        let align = |(column, text)| match column {
            1 | 2 => Cell::new(text),
            _ => Cell::new(text).set_alignment(CellAlignment::Right),
        };
        row.into_iter().enumerate().map(align).collect()
    }

    /// The state of each node in one line of `name=value` words, for scripts.
    pub fn lines(&self) -> Vec<String> {
        let line = |node: &Node| {
            let id = node.id.map_or("?".into(), |id| id.to_string());
            let mut words = vec![format!("id={id}"), format!("address={}", node.address)];
            match &node.answer {
                Err(reason) => words.push(format!("error={}", grammar::word(reason.as_bytes()))),
                Ok(status) => {
                    words.push(format!("role={}", status.role));
                    let numbers = numbers(status);
                    words.extend(numbers.map(|(name, number)| format!("{name}={number}")));
                    let sending = status.sending.iter();
                    words.extend(sending.map(|(to, received, bytes)| {
                        format!("sending_to={to} sending_received={received} sending_bytes={bytes}")
                    }));
                    let gauges = status.gauges.iter();
                    words.extend(gauges.map(|(name, number)| format!("{name}={number}")));
                    let trouble = disk_trouble(status).into_iter();
                    words.extend(trouble.map(|(name, sentence)| {
                        format!("{name}={}", grammar::word(sentence.as_bytes()))
                    }));
                }
            }
            words.join(" ")
        };
        self.nodes.iter().map(line).collect()
    }

    /// The whole state of the cluster as JSON, for programs.
    pub fn json(&self) -> Value {
        let node = |node: &Node| {
            let mut fields = Map::new();
            fields.insert("id".into(), json!(node.id));
            fields.insert("address".into(), json!(node.address));
            match &node.answer {
                Err(reason) => {
                    fields.insert("error".into(), json!(reason));
                }
                Ok(status) => {
                    fields.insert("cluster".into(), json!(status.cluster));
                    fields.insert("role".into(), json!(status.role.to_string()));
                    fields.insert("leader".into(), json!(status.leader));
                    for (name, number) in numbers(status) {
                        fields.insert(name.into(), json!(number));
                    }
                    let gauges = status.gauges.iter();
                    let gauges: Map<_, _> = gauges
                        .map(|(name, number)| (name.clone(), json!(number)))
                        .collect();
                    fields.insert("active".into(), json!(status.active));
                    fields.insert("snapshot_pending".into(), json!(status.snapshot_pending));
                    let sending = status.sending.iter().map(|(to, received, bytes)| {
                        json!({"to": to, "received": received, "bytes": bytes})
                    });
                    fields.insert("sending".into(), sending.collect());
                    fields.insert("gauges".into(), gauges.into());
                    fields.insert("stages".into(), stages::json(&status.stages));
                    for (name, sentence) in disk_trouble(status) {
                        fields.insert(name.into(), json!(sentence));
                    }
                }
            }
            Value::Object(fields)
        };
        json!({
            "leader": self.leader,
            "voters": self.voters(),
            "learners": self.learners,
            "answering": self.answering(),
            "quorum": self.has_quorum(),
            "nodes": self.nodes.iter().map(node).collect::<Vec<_>>(),
        })
    }
}

fn find(status: &Status, gauge: &str) -> Option<u64> {
    let mut gauges = status.gauges.iter();
    gauges
        .find(|(name, _)| name == gauge)
        .map(|(_, number)| *number)
}

fn numbers(status: &Status) -> impl Iterator<Item = (&'static str, u64)> + use<> {
    [
        ("term", status.term),
        ("commit", status.commit),
        ("applied", status.applied),
        ("last_index", status.last_index),
        ("log_bytes", status.log_bytes),
        ("first_index", status.first_index),
        ("snapshot_index", status.snapshot_index),
        ("snapshot_bytes", status.snapshot_bytes),
        ("snapshot_age_ms", status.snapshot_age_ms),
        ("snapshot_written", status.snapshot_written),
        ("uptime_ms", status.uptime_ms),
        ("write_ms", status.disk.write_ms),
        ("verified_bytes", status.disk.verified_bytes),
        ("verified_times", status.disk.verified_times),
    ]
    .into_iter()
}

/// What is wrong with a node's disk, by the name that scripts and programs know it by.
fn disk_trouble(status: &Status) -> Vec<(&'static str, &str)> {
    let no_space = status.disk.no_space.iter().map(|why| ("no_space", why));
    let damage = status.disk.damage.iter().map(|what| ("damage", what));
    let trouble = no_space.chain(damage);
    trouble.map(|(name, text)| (name, text.as_str())).collect()
}

/// A write that takes so long is worth a line, in milliseconds: no disk in order takes so long.
const SLOW_WRITE_MS: u64 = 250;

/// One line for each thing that is wrong with a node's disk.
fn disk_lines(node: &Node) -> Vec<String> {
    let Ok(status) = &node.answer else {
        return Vec::new();
    };
    let id = status.id;
    let mut lines = Vec::new();
    if status.disk.write_ms >= SLOW_WRITE_MS && status.disk.no_space.is_none() {
        let seconds = status.disk.write_ms as f64 / 1000.0;
        lines.push(format!(
            "node {id} has a slow disk: a write of its log has not returned for {seconds:.1} s\n"
        ));
    }
    let trouble = disk_trouble(status).into_iter();
    lines.extend(trouble.map(|(_, sentence)| format!("node {id}: {sentence}\n")));
    lines
}

/// Describes a node's newest snapshot: its last index, its size and its age.
fn snapshot(status: &Status) -> String {
    let writing = match status.snapshot_pending {
        true => format!(" (writing: {})", size(status.snapshot_written)),
        false => String::new(),
    };
    if status.snapshot_index == 0 {
        return format!("-{writing}");
    }
    let (index, bytes) = (status.snapshot_index, size(status.snapshot_bytes));
    let age = duration(status.snapshot_age_ms);
    format!("{index}, {bytes}, {age} ago{writing}")
}

/// What percentage of `whole` is `part`, rounded down, so that 100 means all of it.
pub(super) fn percent(part: u64, whole: u64) -> u64 {
    let percent = u128::from(part) * 100 / u128::from(whole.max(1));
    percent.min(100) as u64
}

/// Writes a number of bytes in a unit in which it has few digits.
pub(super) fn size(bytes: u64) -> String {
    let mut scaled = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if scaled < 1024.0 {
            let decimals = usize::from(unit != "B");
            return format!("{scaled:.decimals$} {unit}");
        }
        scaled /= 1024.0;
    }
    format!("{scaled:.1} TiB")
}

/// Writes a number of milliseconds in its two largest units.
pub(super) fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h {:02}m", minutes % 60),
        _ => format!("{days}d {:02}h", hours % 24),
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
