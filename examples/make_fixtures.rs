//! Makes the data folders and the backup that `tests/upgrade` keeps of a version.
//!
//! ```console
//! $ cargo run --example make_fixtures -- FOLDER
//! ```
//!
//! Three nodes in this process, with real disks and sockets, serve one client: some writes, then a
//! snapshot on each node, then further writes. When all nodes have executed all of them, the nodes
//! stop, and each file of their folders is packed into FOLDER/node-N/NAME.lz4: its length in four
//! bytes, little-endian, and one LZ4 block. FOLDER/backup.lz4 is a backup of node 1, packed alike.

use std::error::Error;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use raftkv::client::{self, Clerk};
use raftkv::kv::{Kv, Limits};
use raftkv::node::{Config, Handle, Node};
use raftkv::storage::back_up;

#[path = "../tests/upgrade/contents.rs"]
mod contents;

type Failure = Box<dyn Error>;

const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> Result<(), Failure> {
    let to = std::env::args().nth(1).ok_or("which folder?")?;
    let to = PathBuf::from(to);
    fs::create_dir(&to)?;
    let work = to.join("work");
    let addresses = free_addresses()?;
    let members: Vec<(u64, String)> = (1..).zip(addresses.clone()).collect();
    let start = |id: u64| {
        let mut config = Config::new(id, members.clone(), work.join(id.to_string()));
        config.cluster = contents::CLUSTER.into();
        Node::start(config, Kv::new(Limits::default()))
    };
    let nodes = [start(1)?, start(2)?, start(3)?];
    let clerk = Clerk::connect(addresses)?;
    write_first(&clerk)?;
    let is = |expected| match contents::read_all(&clerk) {
        Ok(found) if found == expected => Ok(()),
        Ok(_) => Err("what was written is not what there should be".into()),
        Err(error) => Err(Failure::from(error)),
    };
    is(contents::before_the_snapshot())?;
    wait_for_agreement(&nodes)?;
    nodes.iter().for_each(|node| assert!(node.take_snapshot()));
    wait("no snapshot on every node", || {
        nodes.iter().all(|node| node.status().snapshot_index > 0)
    })?;
    write_rest(&clerk)?;
    is(contents::in_the_end())?;
    // Closes its session, which is one more entry.
    drop(clerk);
    wait_for_agreement(&nodes)?;
    nodes.iter().for_each(Handle::shutdown);
    for id in 1..=3 {
        pack_folder(&work.join(id.to_string()), &to.join(format!("node-{id}")))?;
    }
    let backup = work.join("backup");
    back_up(&work.join("1"), &backup)?;
    pack(&backup, &to.join(contents::BACKUP))?;
    fs::remove_dir_all(&work)?;
    Ok(())
}

/// Writes what [`contents::before_the_snapshot`] says.
fn write_first(clerk: &Clerk) -> Result<(), client::Error> {
    for n in 0..200 {
        clerk.put(contents::key(n), contents::value(n))?;
    }
    for n in (0..200).step_by(7) {
        clerk.delete(contents::key(n))?;
    }
    clerk.append("appended", "one,")?;
    clerk.append("appended", "two,")?;
    Ok(())
}

/// Writes what [`contents::in_the_end`] says besides.
fn write_rest(clerk: &Clerk) -> Result<(), client::Error> {
    for n in 0..20 {
        clerk.put(contents::key(n), format!("{n} again"))?;
    }
    clerk.delete(contents::key(199))?;
    clerk.append("appended", "three")?;
    clerk.put("swapped", "old")?;
    clerk.cas("swapped", Some(b"old"), "new")?;
    Ok(())
}

/// Waits until all nodes have executed all that any of them has in its log.
fn wait_for_agreement(nodes: &[Handle<Kv>]) -> Result<(), Failure> {
    wait("the nodes do not agree", || {
        let lasts = nodes.iter().map(|node| node.status().last_index);
        let last = lasts.max().unwrap_or_default();
        nodes.iter().all(|node| node.status().applied == last)
    })
}

fn wait(otherwise: &'static str, mut until: impl FnMut() -> bool) -> Result<(), Failure> {
    let begun = Instant::now();
    while !until() {
        if begun.elapsed() > PATIENCE {
            return Err(otherwise.into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Addresses of this machine at which nothing listens.
fn free_addresses() -> Result<Vec<String>, Failure> {
    let listeners: Vec<_> = (0..3)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()?;
    let addresses = listeners
        .iter()
        .map(|listener| listener.local_addr().map(|address| address.to_string()))
        .collect::<Result<_, _>>()?;
    Ok(addresses)
}

fn pack_folder(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().ok_or("a name that is no text")?;
        // The next start makes the one anew, and removes the other.
        if name != "lock" && !name.ends_with(".new") {
            pack(&entry.path(), &to.join(format!("{name}.lz4")))?;
        }
    }
    Ok(())
}

fn pack(from: &Path, to: &Path) -> Result<(), Failure> {
    let bytes = fs::read(from)?;
    fs::write(to, lz4_flex::block::compress_prepend_size(&bytes))?;
    Ok(())
}
