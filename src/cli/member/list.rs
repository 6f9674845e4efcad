//! A report about the members as people, scripts and programs read it. Pure.

use std::fmt::Write as _;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::{Value, json};

use super::progress::{SILENT_MS, grouped, progress_of};
use crate::cli::grammar;
use crate::cli::status::{duration, percent, size};
use crate::raft::{Configuration, Member, MemberRole, NodeId};
use crate::wire::members::{MemberReport, MembersReport};

/// A report about the members, in the forms in which kvcli writes it.
#[derive(Clone, Debug)]
pub struct Listing {
    report: MembersReport,
    rows: Vec<Row>,
}

/// One member, or a node that is about to be one or was one until now.
#[derive(Clone, Debug)]
struct Row {
    id: NodeId,
    address: String,
    folder: Option<String>,
    /// Its role. In a joint configuration the one before the change.
    role: &'static str,
    /// In a joint configuration the role after the change, if that is another one.
    becomes: Option<&'static str>,
    /// How many entries of the leader's log it lacks; `None` if that is not known here.
    behind: Option<u64>,
    /// For how long the leader has heard nothing of it, in milliseconds. `None` if that is not
    /// known here, and for the leader itself.
    silent_ms: Option<u64>,
    note: Option<String>,
}

/// What can be said of the voters in one half of a configuration.
struct Half {
    voters: usize,
    /// How many of them the leader hears of, itself included.
    live: usize,
}

const GONE: &str = "gone";

impl Listing {
    /// Prepares a report.
    pub fn new(report: MembersReport) -> Self {
        let configuration = &report.configuration.configuration;
        let mut rows: Vec<Row> = Vec::new();
        for member in configuration.members() {
            rows.push(Row::of(&report, member, role_before(configuration, member)));
        }
        // The voters before the change that are members no longer, or not with this folder.
        for voter in configuration.outgoing() {
            if !configuration
                .members()
                .iter()
                .any(|now| is_same(now, voter))
            {
                let mut row = Row::of(&report, voter, MemberRole::Voter);
                row.becomes = Some(GONE);
                rows.push(row);
            }
        }
        for known in report.members.iter().filter(|known| known.is_departing) {
            rows.push(Row::of_departing(known));
        }
        rows.sort_by_key(|row| row.id);
        Listing { report, rows }
    }

    fn configuration(&self) -> &Configuration {
        &self.report.configuration.configuration
    }

    /// Whether the report is the leader's, who alone knows how far the others are.
    fn is_of_leader(&self) -> bool {
        self.report.leader == Some(self.report.id)
    }

    /// The voters after the change that is under way, and those before it if there is one.
    fn halves(&self) -> Vec<Half> {
        let configuration = self.configuration();
        let half = |voters: Vec<&Member>| Half {
            voters: voters.len(),
            live: voters.iter().filter(|voter| self.is_live(voter)).count(),
        };
        let mut halves = vec![half(configuration.voters().collect())];
        if configuration.is_joint() {
            halves.push(half(configuration.outgoing().iter().collect()));
        }
        halves
    }

    fn is_live(&self, voter: &Member) -> bool {
        let is_leader = voter.id == self.report.id && self.is_of_leader();
        let is_heard = |known: &MemberReport| known.silent_ms < SILENT_MS;
        let is_empty_seat = self.configuration().is_empty_seat(voter);
        !is_empty_seat && (is_leader || progress_of(&self.report, voter).is_some_and(is_heard))
    }

    /// How many voters may fail before nothing can be decided, whichever they are. Negative if too
    /// few are left already; `None` if the report is not the leader's.
    fn may_fail(&self) -> Option<i64> {
        let spare = |half: &Half| half.live as i64 - (half.voters / 2 + 1) as i64;
        let halves = self.halves();
        let least = halves.iter().map(spare).min();
        least.filter(|_| self.is_of_leader())
    }

    /// The members as a table for people, and below it what is to be known of all of them.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header([
            "id",
            "role",
            "folder",
            "address",
            "behind",
            "last heard",
            "note",
        ]);
        for row in &self.rows {
            table.add_row(row.cells(self.report.leader));
        }
        let mut text = format!("{table}\n");
        let sentences = [self.state(), self.majority()];
        for sentence in sentences.into_iter().chain(self.blocked()) {
            writeln!(text, "{sentence}").expect("writing into a string does not fail");
        }
        match self.next() {
            Some(next) => text + "next: " + &next,
            None => text.trim_end().to_string(),
        }
    }

    /// Where the change is that is under way, or that there is none.
    fn state(&self) -> String {
        let (index, report) = (self.report.configuration.index, &self.report);
        let configuration = self.configuration();
        let what = if configuration.is_empty() {
            "this node does not know the members yet: it is to join a cluster".into()
        } else if configuration.is_founding() {
            "the cluster was founded with these members; their folders are not in the log yet"
                .into()
        } else if configuration.is_joint() {
            format!(
                "a change of voters is under way since entry {index}: a majority before and one \
                 after it both have to agree"
            )
        } else if report.committed < index {
            format!("the change of entry {index} is under way: it is not committed yet")
        } else {
            let joins = |member: &&Member| member.role == MemberRole::Joining;
            let joining = configuration.members().iter().filter(joins);
            match joining.map(|member| member.id).collect::<Vec<_>>() {
                ids if ids.is_empty() => format!("no change is under way since entry {index}"),
                ids => format!("{} to vote once caught up", listed(&ids, "is", "are")),
            }
        };
        match (self.is_of_leader(), report.leader) {
            (true, _) => what,
            (false, Some(leader)) => format!(
                "{what} (according to node {}: leader {leader} does not answer)",
                report.id
            ),
            (false, None) => format!("{what} (according to node {}: no leader)", report.id),
        }
    }

    /// How many voters answer, how many have to, and how many may still fail.
    fn majority(&self) -> String {
        let halves = self.halves();
        let half = |half: &Half, when: &str| {
            let (voters, quorum) = (half.voters, half.voters / 2 + 1);
            match self.is_of_leader() {
                true => format!(
                    "{} of {voters} voters{when} answer, a quorum needs {quorum}",
                    half.live
                ),
                false => format!("of {voters} voters{when} a quorum needs {quorum}"),
            }
        };
        let text = match &halves[..] {
            [now] => half(now, ""),
            [after, before, ..] => {
                format!("{}; {}", half(before, " before"), half(after, " after"))
            }
            [] => String::new(),
        };
        match self.may_fail() {
            None => format!("{text}; how many may still fail is not known without the leader"),
            Some(spare) if spare < 0 => format!("{text}: {} more must answer", -spare),
            Some(0) => format!("{text}: none may fail now"),
            Some(spare) => format!("{text}: {spare} may still fail"),
        }
    }

    fn blocked(&self) -> Option<String> {
        let blocker = self.report.blocker.as_ref()?;
        Some(format!("it waits: {blocker}"))
    }

    /// The command, or whatever else, that comes next. `None` if all is well.
    fn next(&self) -> Option<String> {
        if !self.is_of_leader() {
            return match self.report.leader {
                Some(leader) => Some(format!("start node {leader}, or wait for an election")),
                None => Some("start the members that do not run: kvcli status lists them".into()),
            };
        }
        let configuration = self.configuration();
        let is_stable =
            !configuration.is_joint() && self.report.committed >= self.report.configuration.index;
        let silent = |member: &&Member| {
            progress_of(&self.report, member).is_some_and(|known| known.silent_ms >= SILENT_MS)
        };
        let members = || configuration.members().iter();
        if let Some(Member { id, address, .. }) =
            members().find(|one| configuration.is_empty_seat(one))
        {
            return Some(format!(
                "start node {id} at {address}, or give its place to a node with an empty folder: \
                 kvcli member replace {id}[=HOST:PORT]"
            ));
        }
        if let Some(Member {
            id, address, role, ..
        }) = members().chain(configuration.outgoing()).find(silent)
        {
            let start = format!("start node {id} at {address}");
            return Some(match role {
                _ if !is_stable => start,
                MemberRole::Joining => format!("{start} with --join, or kvcli member remove {id}"),
                MemberRole::Voter | MemberRole::Learner => format!(
                    "{start}; if its machine or its folder is lost: kvcli member replace \
                     {id}[=HOST:PORT] or kvcli member remove {id}"
                ),
            });
        }
        let rests = |member: &&Member| {
            let known = progress_of(&self.report, member);
            member.role == MemberRole::Joining && known.is_some_and(rests)
        };
        if let Some(Member { id, .. }) = members().find(rests) {
            return Some(format!(
                "lower the load until node {id} has caught up, or kvcli member demote {id}"
            ));
        }
        let learners = || members().filter(|member| member.role == MemberRole::Learner);
        let learner = learners().find(|_| is_stable)?;
        Some(format!("kvcli member promote {} lets it vote", learner.id))
    }

    /// Each member in one line of `name=value` words, for scripts.
    pub fn lines(&self) -> Vec<String> {
        self.rows.iter().map(Row::line).collect()
    }

    /// The whole report as JSON, for programs.
    pub fn json(&self) -> Value {
        let (report, configuration) = (&self.report, self.configuration());
        let halves: Vec<_> = self
            .halves()
            .iter()
            .map(|half| half.voters / 2 + 1)
            .collect();
        json!({
            "node": report.id,
            "leader": report.leader,
            "term": report.term,
            "lineage": format!("{:016x}", configuration.lineage()),
            "index": report.configuration.index,
            "committed": report.committed,
            "joint": configuration.is_joint(),
            "quorum": halves[0],
            "quorum_before": halves.get(1),
            "may_fail": self.may_fail(),
            "blocker": report.blocker,
            "next": self.next(),
            "members": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
        })
    }
}

impl Row {
    fn of(report: &MembersReport, member: &Member, before: MemberRole) -> Self {
        let leads = report.leader == Some(member.id) && report.leader == Some(report.id);
        let known = progress_of(report, member);
        let behind = known.map(|known| report.last_index.saturating_sub(known.matched));
        Row {
            id: member.id,
            address: member.address.clone(),
            folder: member.folder.map(|folder| format!("{folder:032x}")),
            role: name(before),
            becomes: (before != member.role).then(|| name(member.role)),
            behind: if leads { Some(0) } else { behind },
            silent_ms: known.map(|known| known.silent_ms),
            note: match report.configuration.configuration.is_empty_seat(member) {
                true => Some("nobody counts here: its folder is not known".into()),
                false => known.and_then(|known| note(known, member.role)),
            },
        }
    }

    fn of_departing(known: &MemberReport) -> Self {
        Row {
            id: known.id,
            address: "-".into(),
            folder: known.folder.map(|folder| format!("{folder:032x}")),
            role: GONE,
            becomes: None,
            behind: None,
            silent_ms: Some(known.silent_ms),
            note: Some("is no member any more, and is told so".into()),
        }
    }

    fn cells(&self, leader: Option<NodeId>) -> Vec<Cell> {
        let leads = leader == Some(self.id) && self.becomes != Some(GONE) && self.role != GONE;
        let role = match self.becomes {
            Some(becomes) => format!("{} -> {becomes}", self.role),
            None => self.role.into(),
        };
        let unknown = || {
            if leads {
                "-".to_string()
            } else {
                "?".to_string()
            }
        };
        let heard = |ms: u64| match ms {
            0..1000 => "now".to_string(),
            _ => format!("{} ago", duration(ms)),
        };
        let number = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        vec![
            number(self.id.to_string()),
            Cell::new(format!("{role}{}", if leads { " *" } else { "" })),
            Cell::new(self.folder.as_ref().map_or("-", |folder| &folder[..8])),
            Cell::new(&self.address),
            number(self.behind.map_or_else(unknown, grouped)),
            number(self.silent_ms.map_or_else(unknown, heard)),
            Cell::new(self.note.as_deref().unwrap_or_default()),
        ]
    }

    fn line(&self) -> String {
        let mut words = vec![
            format!("id={}", self.id),
            format!("role={}", self.role),
            format!("address={}", self.address),
        ];
        let becomes = self.becomes.map(String::from);
        let note = self
            .note
            .as_ref()
            .map(|note| grammar::word(note.as_bytes()).into_owned());
        let more = [
            ("becomes", becomes),
            ("folder", self.folder.clone()),
            ("behind", self.behind.map(|count| count.to_string())),
            ("silent_ms", self.silent_ms.map(|ms| ms.to_string())),
            ("note", note),
        ];
        let known = more
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        words.extend(known.map(|(name, value)| format!("{name}={value}")));
        words.join(" ")
    }

    fn json(&self) -> Value {
        json!({
            "id": self.id,
            "role": self.role,
            "becomes": self.becomes,
            "folder": self.folder,
            "address": self.address,
            "behind": self.behind,
            "silent_ms": self.silent_ms,
            "note": self.note,
        })
    }
}

/// What is to be said of a member besides the numbers.
fn note(known: &MemberReport, role: MemberRole) -> Option<String> {
    if let Some((received, bytes)) = known.snapshot {
        let percent = percent(received, bytes);
        return Some(format!("gets a snapshot: {percent} % of {}", size(bytes)));
    }
    match (role, known.round) {
        (MemberRole::Joining, Some(round)) => Some(format!("catches up, round {round}")),
        (MemberRole::Joining, None) => Some("too slow: tried again after a while".into()),
        _ if known.silent_ms >= SILENT_MS => Some("silent".into()),
        _ => None,
    }
}

/// Whether the leader lets a member rest that was too slow to catch up.
fn rests(known: &MemberReport) -> bool {
    known.round.is_none() && known.snapshot.is_none()
}

fn is_same(one: &Member, other: &Member) -> bool {
    one.id == other.id && one.folder == other.folder
}

/// The role that a member had before the change that is under way. Who votes after it and did not
/// before was about to: a folder never enters as a voter.
fn role_before(configuration: &Configuration, member: &Member) -> MemberRole {
    let voted = configuration
        .outgoing()
        .iter()
        .any(|voter| is_same(voter, member));
    match (configuration.is_joint(), voted, member.role) {
        (true, true, _) => MemberRole::Voter,
        (true, false, MemberRole::Voter) => MemberRole::Joining,
        (_, _, role) => role,
    }
}

fn name(role: MemberRole) -> &'static str {
    match role {
        MemberRole::Voter => "voter",
        MemberRole::Learner => "learner",
        MemberRole::Joining => "joining",
    }
}

/// Names nodes at the beginning of a sentence, such as "node 4 is" or "nodes 4 and 5 are".
fn listed(ids: &[NodeId], one: &str, many: &str) -> String {
    match ids {
        [id] => format!("node {id} {one}"),
        [first @ .., last] => {
            let first: Vec<_> = first.iter().map(ToString::to_string).collect();
            format!("nodes {} and {last} {many}", first.join(", "))
        }
        [] => String::new(),
    }
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
