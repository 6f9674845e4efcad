//! The status of all servers, as each of them sees it.

use std::collections::BTreeSet;
use std::thread;

use super::error::shortened;
use super::shared::Shared;
use super::transport::CallError;
use crate::wire::client::{Answer, Ask, Status};

/// What one server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    /// Its address, host:port.
    pub address: String,
    /// Its status, or why there is none.
    pub result: Result<Status, CallError>,
}

/// Asks all known servers, and then the members that these name and that have not answered yet.
pub(super) fn of_all(shared: &Shared) -> Vec<ServerStatus> {
    let known = shared.state.lock().routes.servers().to_vec();
    let mut all = ask(shared, known);
    let members = unheard_members(&all);
    let learned: Vec<String> = {
        let routes = &mut shared.state.lock().routes;
        let mut is_new = |address: &String| {
            !routes.servers().contains(address) && routes.learn(address).is_some()
        };
        members
            .into_iter()
            .filter(|address| is_new(address))
            .collect()
    };
    all.extend(ask(shared, learned));
    all
}

/// The addresses of members that are named by others but have not answered under any address.
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

/// Asks servers all at once; there are no more than a client knows.
fn ask(shared: &Shared, addresses: Vec<String>) -> Vec<ServerStatus> {
    let timeout = shared.options.attempt_timeout.min(shared.options.deadline);
    let stop = shared.stop();
    let ask_one =
        |address: &str| match shared
            .transport
            .call(address, &Ask::Status, timeout, &stop)?
        {
            Answer::Status(status) => Ok(*status),
            other => Err(CallError::Lost(format!(
                "{} instead of a status",
                shortened(&other)
            ))),
        };
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
                "no thread to ask with: {error}"
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
