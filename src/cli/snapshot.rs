//! Makes nodes take a snapshot, and waits until it is durable.
//!
//! A node answers before it writes the snapshot, so that it need not remember who waits. This file
//! asks for its status again and again, until that shows the snapshot.

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

/// The pause between two looks at the status: the first one, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(200)];

/// The result at one node.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The node, if it is known which one.
    id: Option<NodeId>,
    /// Its address, unless only its id is known.
    address: String,
    end: End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// There is a snapshot of all entries up to `index`, with a file of this many bytes. `new`:
    /// it was taken for this request.
    There { index: u64, bytes: u64, new: bool },
    /// It is not known whether there will be one. The sentence says why.
    Open(String),
    /// There will be none. The sentence says why.
    None(String),
}

/// A node that is writing a snapshot.
struct Writing {
    /// The place of its result in the list.
    place: usize,
    address: String,
    up_to: u64,
    /// How much of the file had been written at the last look, in bytes.
    written: u64,
}

/// Asks the node with this id, or all nodes, and waits. As long as a snapshot grows, the wait goes
/// on: nobody should have to guess how long a large one takes. It ends when none has grown for the
/// Clerk's deadline. If standard error is a terminal, a bar shows the progress.
///
/// # Errors
/// [`Failure::Interrupted`]. The nodes go on writing.
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

/// Asks the nodes to begin. Returns the results so far, and the nodes that are writing.
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
        let problem = "it does not answer: kvcli status lists who does";
        all.push(Taken {
            id: Some(id),
            address: "?".into(),
            end: End::None(problem.into()),
        });
    }
    (all, writing)
}

/// What a node's status says of the snapshot that it was asked for.
fn look(clerk: &Clerk, node: &mut Writing) -> End {
    let status: Status = match clerk.status_of(&node.address) {
        Ok(status) => status,
        Err(error) => return End::Open(format!("begun, but then {error}")),
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

/// The exit code for these results.
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
    /// One line of `name=value` words.
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

    /// A sentence.
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

    /// Everything, for programs.
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
