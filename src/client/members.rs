//! Requests about the members of the cluster: who they are, and changes of them.

use std::collections::VecDeque;
use std::time::Duration;

use super::call::{Heard, Nature};
use super::error::{Error, LastWord, Word, shortened};
use super::shared::SharedClerk;
use super::status;
use super::transport::CallError;
use crate::raft::Index;
use crate::wire::client::{Answer, Ask};
use crate::wire::members::{ChangeRequest, MembersReport};

/// How long the leader may take to answer a request for a change, at least. Before it accepts a new
/// address it asks the node there who it is, for up to two seconds.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(4);

/// A change of members that is in the leader's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MembersChanged {
    /// The index of the configuration that has the change. The change is done when a configuration
    /// of this index or a later one is committed, is not joint, and has the member in the role
    /// that it is to have.
    pub index: Index,
    /// Whether this request made the change. If false, the members were so already, or were
    /// becoming so.
    pub is_new: bool,
}

/// Asks one server what it knows of the members.
pub(super) fn of_one(shared: &SharedClerk, address: &str) -> Result<MembersReport, CallError> {
    match status::call(shared, address, &Ask::Members)? {
        Answer::Members(report) => Ok(*report),
        other => Err(CallError::Lost(format!(
            "{} instead of a report about the members",
            shortened(&other)
        ))),
    }
}

/// Asks one server after the other, until the leader answers: at first the one that led last, then
/// always the one that an answer names as the leader. Without a leader, returns the report of the
/// node that knows most.
pub(super) fn report(shared: &SharedClerk) -> Result<MembersReport, Error> {
    let (started, stop) = (shared.now(), shared.stop());
    let mut to_ask = in_order(shared);
    let (mut asked, mut words) = (Vec::new(), Vec::new());
    let mut best: Option<MembersReport> = None;
    while let Some(address) = to_ask.pop_front() {
        if stop.is_set() {
            let maybe_executed = false;
            return Err(Error::Cancelled { maybe_executed });
        }
        if asked.contains(&address) {
            continue;
        }
        if shared.now() - started >= shared.options.deadline {
            break;
        }
        asked.push(address.clone());
        match of_one(shared, &address) {
            Ok(report) if report.leader == Some(report.id) => return Ok(report),
            Ok(report) => {
                let configuration = &report.configuration.configuration;
                // A node that was removed may be the only one that this client knew, so the
                // members that the report names are asked, too.
                for member in configuration.contacts() {
                    match report.leader == Some(member.id) {
                        true => to_ask.push_front(member.address.clone()),
                        false => to_ask.push_back(member.address.clone()),
                    }
                }
                if best
                    .as_ref()
                    .is_none_or(|best| knows(&report) > knows(best))
                {
                    best = Some(report);
                }
            }
            Err(error) => words.push(LastWord {
                server: address,
                word: match error {
                    CallError::NotSent(why) => Word::NotSent(why),
                    CallError::Lost(why) => Word::Lost(why),
                },
            }),
        }
    }
    best.ok_or_else(|| Error::Unavailable {
        asked: words,
        waited: shared.now() - started,
    })
}

/// The servers that the Clerk knows: the one that led last, the members, the others.
fn in_order(shared: &SharedClerk) -> VecDeque<String> {
    let routes = &shared.state.lock().routes;
    let all = 0..routes.servers().len();
    let members = all.clone().filter(|at| !routes.is_gone(*at));
    let gone = all.filter(|at| routes.is_gone(*at));
    let servers = routes.leader().into_iter().chain(members).chain(gone);
    servers.map(|at| routes.address(at).to_string()).collect()
}

/// How much a node knows that does not lead.
fn knows(report: &MembersReport) -> (Index, Index, u64) {
    (report.committed, report.commit, report.term)
}

/// Asks the leader to change the members, and returns as soon as the change is in its log.
pub(super) fn change(
    shared: &SharedClerk,
    change: ChangeRequest,
    force: bool,
) -> Result<MembersChanged, Error> {
    // A change is repeated while it is in doubt: the leader recognises what is made already.
    let timeout = shared.options.attempt_timeout.max(CHANGE_TIMEOUT);
    let mut call = shared.begin_with(Nature::Once, shared.options.deadline, timeout);
    let ask = Ask::Change { change, force };
    match shared.run(&mut call, &ask, &shared.stop())? {
        Heard::Changed { index, is_new } => Ok(MembersChanged { index, is_new }),
        other => Err(Error::bad_answer(&other, "a change of members")),
    }
}
