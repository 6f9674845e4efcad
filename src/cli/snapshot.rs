//! Makes nodes take a snapshot, and waits until it is durable.
//!
//! A node answers the request before it writes the snapshot, so that it need not remember which
//! clients wait. So kvcli asks for the node's status again and again, until the status shows the
//! snapshot.

use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::grammar;
use super::interrupt::Interrupt;
use super::session::{Failure, exit};
use super::status::size;
use crate::client::Clerk;
use crate::raft::NodeId;
use crate::wire::client::Status;

/// The pauses between two requests for a node's status: the first pause and the longest. Each pause
/// is twice as long as the one before, up to the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(200)];

/// The result of a request for a snapshot at one node.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The node's id, if it is known.
    id: Option<NodeId>,
    /// The node's address; `?` if only its id is known.
    address: String,
    end: End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// The node has a snapshot of all entries up to `index`, in a file of `bytes` bytes. `new` is
    /// true if the snapshot was taken for this request.
    There { index: u64, bytes: u64, new: bool },
    /// It is not known whether there will be a snapshot. The sentence says why.
    Open(String),
    /// There will be no snapshot. The sentence says why.
    None(String),
}

/// A node that is writing a snapshot.
struct Writing {
    /// The place of this node's result in the list of all results.
    place: usize,
    address: String,
    up_to: u64,
    /// How many bytes of the snapshot's file the node had written, according to its last status.
    written: u64,
}

/// Asks the node with this id, or all nodes, to take a snapshot, and waits until all are durable.
/// The wait goes on as long as a snapshot grows, because nobody can guess how long a large one
/// takes. It ends when none has grown for as long as the Clerk's deadline. If standard error is a
/// terminal, a bar shows the progress.
///
/// # Errors
/// [`Failure::Interrupted`] after Ctrl-C. The nodes go on writing.
pub fn take(
    clerk: &Clerk,
    id: Option<NodeId>,
    interrupt: &Interrupt,
) -> Result<Vec<Taken>, Failure> {
    let patience = clerk.options().deadline;
    let (mut all, mut writing) = begin(clerk, id);
    let (mut deadline, mut before) = (Instant::now() + patience, 0);
    let bar = bar(all.len());
    let mut pause = PAUSES[0];
    loop {
        writing.retain_mut(|node| {
            let end = look(clerk, node);
            let goes_on = matches!(end, End::Open(_));
            all[node.place].end = end;
            goes_on
        });
        bar.set_position((all.len() - writing.len()) as u64);
        let written = writing.iter().map(|node| node.written).sum();
        if written != before {
            (deadline, before) = (Instant::now() + patience, written);
        }
        bar.set_message(size(written));
        bar.tick();
        if writing.is_empty() || Instant::now() >= deadline {
            break;
        }
        if interrupt.is_set() {
            bar.finish_and_clear();
            return Err(Failure::Interrupted);
        }
        thread::sleep(pause);
        pause = (2 * pause).min(PAUSES[1]);
    }
    bar.finish_and_clear();
    Ok(all)
}

fn bar(nodes: usize) -> ProgressBar {
    let bar = ProgressBar::new(nodes as u64);
    let style = ProgressStyle::with_template(
        "{spinner} writing snapshots [{bar:24}] {pos} of {len} nodes done, {msg}, {elapsed}",
    );
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Asks the nodes to begin a snapshot. Returns a result for each node, and the nodes that are still
/// writing.
fn begin(clerk: &Clerk, id: Option<NodeId>) -> (Vec<Taken>, Vec<Writing>) {
    let (mut all, mut writing) = (Vec::<Taken>::new(), Vec::new());
    for server in clerk.status() {
        let address = server.address;
        let known = server.result.as_ref().ok().map(|status| status.id);
        // Skip a node that was not asked for, and one that has answered at another address.
        let is_meant = id.is_none() || known == id;
        if !is_meant || known.is_some() && all.iter().any(|taken| taken.id == known) {
            continue;
        }
        let begun = server.result.and_then(|status| {
            let begun = clerk.take_snapshot(&address)?;
            Ok((begun, status.snapshot_bytes))
        });
        let end = match begun {
            Err(error) => End::None(error.to_string()),
            Ok((begun, bytes)) if begun.is_there => End::There {
                index: begun.up_to,
                bytes,
                new: false,
            },
            Ok((begun, _)) => {
                writing.push(Writing {
                    place: all.len(),
                    address: address.clone(),
                    up_to: begun.up_to,
                    written: 0,
                });
                End::Open("it is still being written".into())
            }
        };
        all.push(Taken {
            id: known,
            address,
            end,
        });
    }
    if let (Some(id), true) = (id, all.is_empty()) {
        let problem = "it does not answer: kvcli status lists the nodes that do";
        all.push(Taken {
            id: Some(id),
            address: "?".into(),
            end: End::None(problem.into()),
        });
    }
    (all, writing)
}

/// Asks a node for its status, and returns what the status says about the snapshot.
fn look(clerk: &Clerk, node: &mut Writing) -> End {
    let status: Status = match clerk.status_of(&node.address) {
        Ok(status) => status,
        Err(error) => {
            let why = format!("the node began to write it and has given no status since: {error}");
            return End::Open(why);
        }
    };
    node.written = status.snapshot_written;
    if status.snapshot_index >= node.up_to {
        End::There {
            index: status.snapshot_index,
            bytes: status.snapshot_bytes,
            new: true,
        }
    } else if status.snapshot_pending {
        End::Open("it is still being written: kvcli status shows it when it is there".into())
    } else {
        End::None("it could not be written: the node's log says why".into())
    }
}

/// The exit code of the command: "unavailable" if a node has no snapshot, "unknown" if one is not
/// finished, else "done".
pub fn code(all: &[Taken]) -> u8 {
    let any = |is: fn(&End) -> bool| all.iter().any(|taken| is(&taken.end));
    if any(|end| matches!(end, End::None(_))) || all.is_empty() {
        exit::UNAVAILABLE
    } else if any(|end| matches!(end, End::Open(_))) {
        exit::UNKNOWN
    } else {
        exit::DONE
    }
}

impl Taken {
    /// One node's result in one line of `name=value` words, for scripts.
    pub fn line(&self) -> String {
        let id = self.id.map_or("?".into(), |id| id.to_string());
        let node = format!("id={id} address={}", self.address);
        match &self.end {
            End::There { index, bytes, new } => {
                format!("{node} snapshot_index={index} snapshot_bytes={bytes} new={new}")
            }
            End::Open(why) | End::None(why) => {
                format!("{node} error={}", grammar::word(why.as_bytes()))
            }
        }
    }

    /// One node's result in a sentence, for people.
    pub fn sentence(&self) -> String {
        let node = match self.id {
            Some(id) => format!("node {id}"),
            None => format!("the node at {}", self.address),
        };
        match &self.end {
            End::There { index: 0, .. } => format!("{node}: it has applied nothing yet"),
            End::There { index, bytes, new } => {
                let nothing = if *new { "" } else { "nothing new since the " };
                format!("{node}: {nothing}snapshot up to {index}, {}", size(*bytes))
            }
            End::Open(why) | End::None(why) => format!("{node}: no snapshot: {why}"),
        }
    }

    /// One node's result as JSON, for programs.
    pub fn json(&self) -> Value {
        let (id, address) = (self.id, &self.address);
        match &self.end {
            End::There { index, bytes, new } => json!({
                "id": id, "address": address,
                "snapshot_index": index, "snapshot_bytes": bytes, "new": new,
            }),
            End::Open(why) | End::None(why) => {
                json!({"id": id, "address": address, "error": why})
            }
        }
    }
}
