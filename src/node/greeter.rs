//! The greetings of a node that runs: what [`greeting`](super::greeting) judges, with what the node
//! keeps of it on disk and tells others.

use std::sync::Arc;

use super::greeting::{Estranged, Given, Judged, Learned, Own, View, judge, learn, let_in, short};
use super::register::Register;
use super::sync::Mutex;
use crate::net::Announced;
use crate::raft::Raft;
use crate::wire::handshake::{Hello, PeerWelcome, Standing, Welcome};

/// The greetings of a node that runs.
pub struct Greeter {
    given: Given,
    /// The founders that this node knows, by their folder numbers. The thread `peers` writes them
    /// to the disk.
    register: Arc<Register>,
    announced: Arc<Announced>,
    /// Called when another node says that this one is a stranger. It must not block.
    on_estranged: Box<dyn Fn(&Estranged) + Send>,
    /// What was logged already about what others say of this node's folder.
    said: Mutex<Vec<Learned>>,
}

impl Greeter {
    /// Greets for a node with these settings and this register. `on_estranged` is called on the
    /// thread of the event loop, each time that another node says that this one is a stranger.
    pub fn new(
        given: Given,
        register: Arc<Register>,
        announced: Arc<Announced>,
        on_estranged: Box<dyn Fn(&Estranged) + Send>,
    ) -> Self {
        Self {
            given,
            register,
            announced,
            on_estranged,
            said: Mutex::new(Vec::new()),
        }
    }

    /// Judges a greeting by what the core knows.
    pub fn judge(&self, hello: &Hello, raft: &Raft) -> Judged {
        self.notice(raft);
        judge(hello, &View::of(raft, &self.given, &self.register))
    }

    /// Stops announcing that this node founds its cluster, if the core's log has a configuration.
    pub fn notice(&self, raft: &Raft) {
        if self.given.founding != 0 && raft.configuration().index > 0 {
            self.announced.found_no_more();
        }
    }

    /// The answer to a greeting that was judged so; `None` if it cannot be given yet. The event
    /// loop is woken when it may be.
    pub fn answer(&self, judged: Judged) -> Option<Welcome> {
        match judged {
            Judged::Answered(welcome) => Some(welcome),
            Judged::Peer {
                who,
                address,
                greeted,
                welcome,
            } => {
                if welcome.lineage != 0 {
                    self.register.settled();
                }
                let acquainted = self.register.meet(who.id, who.folder, greeted);
                let known = self.register.folder_of(who.id);
                let_in(acquainted, welcome, known.zip(address))
            }
        }
    }

    /// What this node learns from a welcome. Called while the core is locked, so it only looks.
    pub fn learn(&self, welcome: &PeerWelcome, raft: &Raft) -> Learned {
        let own = Own {
            me: raft.member(),
            newest: raft.configuration(),
            committed: raft.committed_configuration(),
            seated: self.given.seated,
            is_admitted: self.register.is_admitted() && !self.given.begins_anew,
        };
        learn(welcome, &own)
    }

    /// Draws the conclusions from what was learned from a welcome that came from `address`.
    pub fn conclude(&self, learned: Learned, welcome: &PeerWelcome, address: &str) {
        match learned {
            Learned::Nothing => return,
            Learned::Witness => return self.register.welcomed_by(welcome.id),
            Learned::OtherFolder | Learned::Outside | Learned::Removed => {}
        }
        self.say(learned, welcome, address);
        let Standing::Stranger {
            configuration,
            known,
        } = &welcome.standing
        else {
            return;
        };
        if learned == Learned::OtherFolder {
            return;
        }
        self.estranged(&Estranged {
            by: (welcome.id, address.to_string()),
            configuration: *configuration,
            known: known.clone(),
            was_member: learned == Learned::Removed,
        });
    }

    /// Another node says that this one is outside of the cluster.
    fn estranged(&self, estranged: &Estranged) {
        if !estranged.was_member {
            self.register.stranger_at(estranged.configuration);
            self.announced.found_no_more();
        }
        (self.on_estranged)(estranged);
    }

    /// Logs what was learned of this node's folder, once.
    fn say(&self, learned: Learned, welcome: &PeerWelcome, address: &str) {
        let mut said = self.said.lock();
        if said.contains(&learned) {
            return;
        }
        said.push(learned);
        let (by, own) = (welcome.id, &self.given.address);
        let how = match &welcome.standing {
            Standing::Stranger {
                known: Some((Some(folder), at)),
                ..
            } => format!("with another data folder, {} at {at}", short(*folder)),
            _ => "as no member".to_string(),
        };
        match learned {
            Learned::Nothing | Learned::Witness => {}
            Learned::OtherFolder => log::warn!(
                "node {by} at {address} knows this node, at {own}, {how}. A node that lost its \
                 folder has forgotten its votes and what it acknowledged: it takes part again only \
                 if a majority of the others is there to let it in. Start them, or bring the old \
                 folder back"
            ),
            Learned::Outside => log::warn!(
                "node {by} at {address} knows this node, at {own}, {how}: the cluster exists, and \
                 this node has to be let in"
            ),
            Learned::Removed => log::warn!(
                "node {by} at {address} knows this node, at {own}, {how} since a later change of \
                 members: this folder was removed or replaced, and counts no more. Stop this node"
            ),
        }
    }
}
