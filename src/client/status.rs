//! Requests to one particular server, whether it leads or not: for its status, and to take a
//! snapshot.

use std::collections::BTreeSet;
use std::thread;

use super::error::{Error, shortened};
use super::shared::SharedClerk;
use super::transport::CallError;
use crate::raft::Index;
use crate::wire::client::{Answer, Ask, Status};

/// The status of one server, or why it gave none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    /// The server's address, host:port.
    pub address: String,
    /// The server's status, or why there is none.
    pub result: Result<Status, CallError>,
}

/// The answer of a server that was asked to take a snapshot. The server answers before it has
/// written the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotBegun {
    /// The snapshot will contain the effect of all entries up to this index, inclusive, and perhaps
    /// of later ones.
    pub up_to: Index,
    /// Whether the newest snapshot already contains every entry that the server has applied. If so,
    /// the server does not take another snapshot.
    pub is_there: bool,
}

/// Asks one server for its status.
pub(super) fn of_one(shared: &SharedClerk, address: &str) -> Result<Status, CallError> {
    match call(shared, address, &Ask::Status)? {
        Answer::Status(status) => Ok(*status),
        other => Err(CallError::Lost(format!(
            "{} instead of a status",
            shortened(&other)
        ))),
    }
}

/// Asks one server to take a snapshot.
pub(super) fn take_snapshot(
    shared: &SharedClerk,
    address: &str,
) -> Result<SnapshotBegun, CallError> {
    match call(shared, address, &Ask::Snapshot)? {
        Answer::Snapshot { up_to, is_there } => Ok(SnapshotBegun { up_to, is_there }),
        other => Err(CallError::Lost(format!(
            "{} instead of a snapshot",
            shortened(&other)
        ))),
    }
}

/// Asks one server once. If its answer brings a newer list of members, the Clerk takes it in.
pub(super) fn call(shared: &SharedClerk, address: &str, ask: &Ask) -> Result<Answer, CallError> {
    let timeout = shared.options.attempt_timeout.min(shared.options.deadline);
    let stop = shared.stop();
    let known = shared.state.lock().routes.known();
    let answered = shared.transport.call(address, ask, known, timeout, &stop)?;
    if let Some(list) = answered.members
        && shared.state.lock().routes.learned(&list).is_err()
    {
        let error = Error::MadeAnew {
            server: address.to_string(),
            maybe_executed: false,
        };
        return Err(CallError::Lost(error.to_string()));
    }
    Ok(answered.answer)
}

/// Asks all known members for their status, and then the members that their answers name and that
/// have not answered. If nobody answers, asks the known servers that are members no longer. The
/// Clerk adds the members to the servers that it knows.
pub(super) fn of_all(shared: &SharedClerk) -> Vec<ServerStatus> {
    let known = |is_gone: bool| {
        let routes = &shared.state.lock().routes;
        let servers = (0..routes.servers().len()).filter(|at| routes.is_gone(*at) == is_gone);
        let addresses = servers.map(|at| routes.address(at).to_string());
        addresses.collect::<Vec<_>>()
    };
    let mut all = ask(shared, known(false));
    if all.iter().all(|server| server.result.is_err()) {
        all.extend(ask(shared, known(true)));
    }
    let mut unheard = unheard_members(&all);
    unheard.retain(|address| all.iter().all(|server| server.address != *address));
    let learned: Vec<String> = {
        let routes = &mut shared.state.lock().routes;
        let mut is_known = |address: &String| routes.learn(address).is_some();
        unheard
            .into_iter()
            .filter(|address| is_known(address))
            .collect()
    };
    all.extend(ask(shared, learned));
    all
}

/// The addresses of those members that have not answered under any address, as the answers of other
/// servers name them.
fn unheard_members(heard: &[ServerStatus]) -> BTreeSet<String> {
    let statuses = || {
        heard
            .iter()
            .filter_map(|server| server.result.as_ref().ok())
    };
    let ids: BTreeSet<_> = statuses().map(|status| status.id).collect();
    statuses()
        .flat_map(|status| &status.members)
        .filter(|(id, _)| !ids.contains(id))
        .map(|(_, address)| address.clone())
        .collect()
}

/// Asks all these servers for their status at once, each from a thread of its own. There are at
/// most [`MAX_SERVERS`](super::routes::MAX_SERVERS) of them.
fn ask(shared: &SharedClerk, addresses: Vec<String>) -> Vec<ServerStatus> {
    let ask_one = |address: &str| of_one(shared, address);
    thread::scope(|scope| {
        let asked: Vec<_> = addresses
            .iter()
            .map(|address| {
                thread::Builder::new()
                    .name("status".into())
                    .spawn_scoped(scope, || ask_one(address))
            })
            .collect();
        let results = asked.into_iter().map(|thread| match thread {
            Ok(thread) => thread
                .join()
                .unwrap_or_else(|_| panic!("a transport panicked while it asked for a status")),
            Err(error) => Err(CallError::NotSent(format!(
                "cannot start a thread that asks it: {error}"
            ))),
        });
        addresses
            .iter()
            .zip(results)
            .map(|(address, result)| ServerStatus {
                address: address.clone(),
                result,
            })
            .collect()
    })
}
