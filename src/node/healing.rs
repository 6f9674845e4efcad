//! Whether a node whose data folder is damaged can begin anew: the others are asked, before
//! anything is changed.
//!
//! The node needs a leader that follows this node's id with the damaged folder and hears a quorum
//! of the voters without it. Then the change that lets the new folder in can be committed, and
//! what was ever committed is with those voters. Of two damaged nodes among three neither finds
//! such a leader, and both stay as they are: their folders may be all that there is.
//!
//! Nothing of the decision is kept: a start that comes later asks again.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use super::config::Config;
use super::inquiry::question;
use crate::raft::{FolderId, LoggedConfiguration};
use crate::storage::DamagedFolder;
use crate::wire::client::{Answer, Ask};
use crate::wire::members::MembersReport;

/// How long the others are asked again and again: they may be starting, or choosing a leader.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one of them may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(200);
/// Who has not answered its leader for so long counts as silent, in milliseconds.
const SILENT_MS: u128 = 2000;

/// What is known of the node that asks.
struct Asking<'a> {
    config: &'a Config,
    /// The number of the damaged folder.
    folder: FolderId,
    /// The lineage of its cluster; 0 if that is not known.
    lineage: u64,
}

/// What a report of one node means for the node that asks.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// The cluster can let the new folder in.
    Willing,
    /// Not now: a leader or a quorum is missing.
    NotNow(String),
    /// Not at all: an operator has to decide.
    Never(String),
}

/// Asks the other members whether the cluster can let a new folder in for this damaged one. Takes
/// up to some ten seconds.
///
/// # Errors
/// A sentence that says why it cannot.
pub fn can_begin_anew(config: &Config, damaged: &DamagedFolder) -> Result<(), String> {
    let known = damaged.members();
    let asking = Asking {
        config,
        folder: damaged.folder(),
        lineage: (known.as_ref()).map_or(0, |known| known.configuration.lineage()),
    };
    let addresses = others_of(config, known.as_ref());
    if addresses.is_empty() {
        return Err("no other node is known that could be asked".into());
    }
    let damage = damaged.problem().damage().unwrap_or_default();
    log::warn!("{damage}. Asking the other nodes whether they can give this one what it needs");
    let begun = Instant::now();
    loop {
        // A voter counts if the leader heard it after this node began to ask. A leader that has
        // just lost its quorum goes on for a while, and may say that it heard a node a moment ago
        // that is down by now, and damaged like this one.
        let since_ms = begun.elapsed().as_millis().min(SILENT_MS);
        match asking.round(&addresses, since_ms as u64) {
            Verdict::Willing => return Ok(()),
            Verdict::Never(sentence) => return Err(sentence),
            Verdict::NotNow(sentence) if begun.elapsed() >= PATIENCE => return Err(sentence),
            Verdict::NotNow(_) => thread::sleep(PAUSE),
        }
    }
}

/// Where the other nodes are reached, as far as the damaged folder and the settings tell.
pub(super) fn others_of(config: &Config, known: Option<&LoggedConfiguration>) -> BTreeSet<String> {
    let known = known.into_iter().flat_map(|it| it.configuration.contacts());
    let others = known.filter(|member| member.id != config.id);
    let others = others.map(|member| config.dials(member.id, &member.address));
    let told = config
        .dialled_members()
        .into_iter()
        .map(|(_, address)| address);
    let all = others.chain(told).chain(config.join.iter().cloned());
    all.filter(|address| !address.is_empty()).collect()
}

impl Asking<'_> {
    /// Asks all of them at a time.
    fn round(&self, addresses: &BTreeSet<String>, since_ms: u64) -> Verdict {
        let ask = |address: &String| {
            let cluster = &self.config.cluster;
            match question(cluster, address, &Ask::Members, TIMEOUT) {
                Ok(Answer::Members(report)) => Ok(report),
                Ok(_) => Err(format!("at {address} is no node that knows its members")),
                Err(sentence) => Err(sentence),
            }
        };
        let answers: Vec<_> = thread::scope(|scope| {
            let asked: Vec<_> = addresses
                .iter()
                .map(|address| scope.spawn(move || ask(address)))
                .collect();
            let answers = asked.into_iter().map(|thread| thread.join());
            answers
                .map(|answer| answer.unwrap_or_else(|_| Err("a thread has panicked".into())))
                .collect()
        });
        let (reports, silent): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        let reports: Vec<_> = reports.into_iter().flatten().collect();
        let silent: Vec<String> = silent.into_iter().filter_map(Result::err).collect();
        self.decide(&reports, &silent, since_ms)
    }

    /// What the reports and the complaints about those who do not answer come to. The leader of the
    /// highest term decides: one of a lower term may not know yet that it has been deposed.
    fn decide(&self, reports: &[Box<MembersReport>], silent: &[String], since_ms: u64) -> Verdict {
        let mut leaders = reports
            .iter()
            .filter(|report| report.leader == Some(report.id));
        let first = leaders.next();
        let newest = leaders.fold(first, |newest, report| match newest {
            Some(newest) if newest.term >= report.term => Some(newest),
            _ => Some(report),
        });
        match newest {
            Some(report) => self.judge(report, since_ms),
            None => Verdict::NotNow(format!(
                "{} of the others {}, and none of them leads{}",
                reports.len(),
                if reports.len() == 1 {
                    "answers"
                } else {
                    "answer"
                },
                silent
                    .iter()
                    .fold(String::new(), |all, one| all + "; " + one)
            )),
        }
    }

    fn judge(&self, report: &MembersReport, since_ms: u64) -> Verdict {
        let (id, leader) = (self.config.id, report.id);
        let configuration = &report.configuration.configuration;
        let lineage = configuration.lineage();
        if lineage != 0 && self.lineage != 0 && lineage != self.lineage {
            return Verdict::Never(format!(
                "node {leader} belongs to another cluster of the same name: it was made anew \
                 without this node"
            ));
        }
        let Some(member) = configuration.contact(id) else {
            return Verdict::Never(format!(
                "node {id} is no member any more, says node {leader}"
            ));
        };
        if member.folder.is_some_and(|folder| folder != self.folder) {
            return Verdict::Never(format!(
                "node {id} has another data folder by now, at {}, says node {leader}",
                member.address
            ));
        }
        let is_heard = |id| {
            let mut its = report.members.iter().filter(|its| its.id == id);
            id == leader || its.any(|its| its.silent_ms < since_ms)
        };
        match configuration.has_quorum(|voter| voter.id != id && is_heard(voter.id)) {
            true => Verdict::Willing,
            false => Verdict::NotNow(format!(
                "without node {id} no majority of the voters answers node {leader}, which leads"
            )),
        }
    }
}

#[cfg(test)]
mod tests;
