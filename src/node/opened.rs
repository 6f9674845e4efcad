//! What a node finds in its data folder when it starts, and what follows from that together with
//! its settings: whose folder it is, where the node listens, whom it dials, whether it has to ask
//! to be let in.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use super::StartError;
use super::config::Config;
use super::joining::{Joiner, explain_waiting};
use super::register::Register;
use crate::raft::{Index, LoggedConfiguration, MemberId, NodeId, Payload};
use crate::storage::{self, Disk, Identity, Recovered, Storage, StorageError};

/// What a node found on its disk, and the seed of its election timeouts.
pub(super) struct Opened {
    pub storage: Storage,
    pub recovered: Recovered,
    /// The seed, drawn for each start: nodes that start together must not time out together (paper
    /// 5.2).
    pub seed: u64,
    /// Whether this data folder is admitted, so that the node is known never to have voted or
    /// acknowledged with another folder.
    pub admitted: bool,
    /// The newest list of members in the log or in the snapshot, if there is one.
    pub logged: Option<LoggedConfiguration>,
    /// If this folder has taken the place of a damaged one or has asked to be let in, and was not
    /// let in yet: the members that are known to have been committed, if there are any.
    pub anew: Option<LoggedConfiguration>,
    /// The index of a configuration that is known to have been committed, and that has this folder;
    /// 0 if none is known.
    pub seated: Index,
}

impl Opened {
    /// Takes over whether the folder is admitted.
    pub fn admitted_by(&mut self, register: &Register) {
        self.admitted = register.is_admitted();
        if register.is_founding() && !self.admitted {
            log::info!(
                "this data folder is new to the cluster: the node votes and acknowledges once it \
                 has met {} others",
                register.needed()
            );
        }
    }

    /// Whether this folder may have read the log without a place in it: a leader that knows the
    /// node's id alone sends it the log. If so, the node asks for its place as soon as another one
    /// tells it that it has none.
    fn may_be_outside(&self, config: &Config, logged: &LoggedConfiguration) -> bool {
        let configuration = &logged.configuration;
        let me = MemberId {
            id: config.id,
            folder: self.storage.own_folder(),
        };
        let its = configuration.contact(me.id);
        let has_other = its.is_some_and(|member| !configuration.seats(member, me));
        has_other && !self.admitted && self.seated == 0
    }

    /// Where this node is reached, by its log, or by that of the damaged folder before.
    pub fn own_address(&self, config: &Config) -> Option<String> {
        let logged = self.logged.as_ref().or(self.anew.as_ref())?;
        let member = logged.configuration.contact(config.id)?;
        Some(member.address.clone()).filter(|address| !address.is_empty())
    }

    /// Whom to dial first, and where: the members that the log has, else the founders.
    pub fn contacts(&self, config: &Config) -> Vec<(NodeId, String)> {
        let Some(logged) = &self.logged else {
            return config.dialled_members();
        };
        let others = logged.configuration.contacts();
        let others = others.filter(|member| member.id != config.id);
        let dialled = others.map(|it| (it.id, config.dials(it.id, &it.address)));
        dialled.collect()
    }
}

/// The newest list of members that was found, if there is one in the log or in the snapshot.
fn logged(recovered: &Recovered) -> Option<LoggedConfiguration> {
    let in_log = recovered.entries.iter().rev().find_map(|entry| {
        let Payload::Configuration(configuration) = &entry.payload else {
            return None;
        };
        Some(LoggedConfiguration {
            index: entry.id.index,
            configuration: (**configuration).clone(),
        })
    });
    let snapshot = recovered.snapshot.as_ref();
    let in_snapshot = snapshot.map(|snapshot| snapshot.meta.configuration.clone());
    in_log.or(in_snapshot.filter(|it| it.index > 0))
}

pub(super) fn open(
    config: &Config,
    disk: &Arc<dyn Disk>,
    machine: &str,
) -> Result<Opened, StorageError> {
    let identity = Identity {
        cluster: config.cluster.clone(),
        node: config.id,
        machine: machine.to_string(),
    };
    let options = storage::Options::default();
    let (storage, recovered) = Storage::open(disk.clone(), &identity, options)?;
    for note in &recovered.notes {
        log::warn!("{note}");
    }
    let book = storage.address_book();
    let anew = book
        .begins_anew()
        .then(|| book.members().cloned().unwrap_or_default());
    Ok(Opened {
        anew,
        seated: book.seated(),
        storage,
        logged: logged(&recovered),
        recovered,
        seed: disk.unique_id(),
        admitted: !config.members.is_empty(),
    })
}

/// Where a node listens, if its log has it at the address `logged`.
pub(super) fn listen_address(
    config: &Config,
    logged: Option<String>,
) -> Result<SocketAddr, StartError> {
    let text = config.listens_at(logged).ok_or_else(|| {
        StartError::Config("nothing says where to listen: name it with --listen HOST:PORT".into())
    })?;
    resolve(&text)
}

pub(super) fn resolve(text: &str) -> Result<SocketAddr, StartError> {
    let resolved = text.to_socket_addrs().ok().and_then(|mut all| all.next());
    resolved.ok_or_else(|| {
        StartError::Config(format!(
            "cannot listen on \"{text}\": this is no HOST:PORT of this machine"
        ))
    })
}

/// Whoever asks for this node to be let in, if it has to ask. The members in the log, if there are
/// any, make the settings of the first start idle; but a folder that has asked before and was in no
/// committed configuration since asks again: what its log has of it may have been taken back.
pub(super) fn joiner(config: &Config, opened: &Opened) -> Result<Option<Joiner>, StartError> {
    if let Some(members) = &opened.anew {
        let folder = opened.storage.own_folder();
        // Only what was committed counts: who asks to be added may stand in its log.
        let had_place = members.configuration.contact(config.id).is_some();
        let newer = opened.logged.as_ref().filter(|it| it.index > members.index);
        let members = newer.unwrap_or(members);
        let joiner = Joiner::back(config, folder, members, had_place);
        if let (None, Some(address)) = (&joiner, config.told_address(opened.own_address(config))) {
            explain_waiting(config.id, &address);
        }
        return Ok(joiner);
    }
    if let Some(logged) = &opened.logged {
        let listed = config.members.iter();
        let of_log = logged.configuration.contacts();
        let is_same = listed.eq(of_log.map(|member| (&member.id, &member.address)));
        if !config.join.is_empty() || !config.members.is_empty() && !is_same {
            log::info!(
                "the members are those of entry {} in the log, {}; the list of the first start \
                 does not count any more",
                logged.index,
                logged.configuration
            );
        }
        let may_ask = opened.may_be_outside(config, logged);
        return Ok(Joiner::of(config, opened.storage.own_folder()).filter(|_| may_ask));
    }
    let recovered = &opened.recovered;
    let is_blank = recovered.entries.is_empty() && recovered.hard_state.term == 0;
    check_is_told(config, is_blank)?;
    let is_told = !config.members.is_empty() || !config.join.is_empty();
    if let (false, Some(address)) = (is_told, config.told_address(None)) {
        explain_waiting(config.id, &address);
    }
    Ok(Joiner::of(config, opened.storage.own_folder()))
}

/// Refuses settings that do not say what a node is to do whose log names no members. `is_blank`:
/// its data folder is new.
pub(super) fn check_is_told(config: &Config, is_blank: bool) -> Result<(), StartError> {
    let is_told = !config.members.is_empty() || !config.join.is_empty() || !config.rejoins;
    match is_blank {
        _ if is_told => Ok(()),
        false => Err(StartError::Config(
            "the log in this data folder does not name the members yet, and nothing else does: \
             start the node with the --cluster list with which its cluster was founded"
                .into(),
        )),
        true => Err(StartError::Config(
            "this data folder is new, and nothing says what to do with it: found a new cluster \
             with --cluster, or name nodes of one that exists with --join"
                .into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_folder_is_called_new_if_nothing_names_the_members() {
        let mut config = Config::new(1, [], "in memory");
        let sentence = |config: &Config, is_blank| {
            let refused = check_is_told(config, is_blank).expect_err("nothing is told");
            refused.to_string()
        };
        assert!(sentence(&config, true).contains("this data folder is new"));
        let begun = sentence(&config, false);
        assert!(
            begun.contains("--cluster") && !begun.contains("new"),
            "{begun}"
        );
        config.rejoins = false;
        assert!(check_is_told(&config, false).is_ok());
    }

    #[test]
    fn what_others_are_told_comes_from_the_log_before_the_first_list_and_listening_is_local() {
        let own = |address: &str| Some(address.to_string());
        let mut config = Config::new(1, [], "in memory");
        let places = |config: &Config, logged: Option<&str>| {
            let logged = logged.map(str::to_string);
            (
                config.told_address(logged.clone()),
                config.listens_at(logged),
            )
        };
        assert_eq!(places(&config, None), (None, None));
        assert_eq!(places(&config, Some("log:1")), (own("log:1"), own("log:1")));
        config.listen = own("listen:1");
        assert_eq!(places(&config, None), (own("listen:1"), own("listen:1")));
        assert_eq!(
            places(&config, Some("log:1")),
            (own("log:1"), own("listen:1"))
        );
        config.listen = None;
        config.members.insert(1, "list:1".to_string());
        assert_eq!(places(&config, None), (own("list:1"), own("list:1")));
        assert_eq!(
            places(&config, Some("log:1")),
            (own("log:1"), own("list:1"))
        );
        config.address = own("told:1");
        assert_eq!(
            places(&config, Some("log:1")),
            (own("told:1"), own("list:1"))
        );
    }
}
