//! What was written into the cluster whose folders are kept under `tests/upgrade/0.1.0`, and how
//! their files are packed. `examples/make_fixtures.rs` writes it, and `main.rs` compares with it.
//! Neither may change as long as those folders are kept.

use std::collections::BTreeMap;

use raftkv::client::{Clerk, Error};
use raftkv::kv::Scan;

/// The cluster's name.
pub const CLUSTER: &str = "upgrade";

/// The file with the backup, beside the folders.
pub const BACKUP: &str = "backup.lz4";

/// Keys and their values, as text.
pub type Table = BTreeMap<String, String>;

/// What the snapshots and the backup hold.
pub fn before_the_snapshot() -> Table {
    let numbers = 0..200;
    let puts = numbers.filter(|n| n % 7 != 0).map(|n| (key(n), value(n)));
    let mut table: Table = puts.collect();
    table.insert("appended".into(), "one,two,".into());
    table
}

/// What is there once the log behind the snapshots is executed as well.
pub fn in_the_end() -> Table {
    let mut table = before_the_snapshot();
    table.extend((0..20).map(|n| (key(n), format!("{n} again"))));
    table.remove(&key(199));
    table.insert("appended".into(), "one,two,three".into());
    table.insert("swapped".into(), "new".into());
    table
}

/// The key with this number.
pub fn key(n: u32) -> String {
    format!("key-{n:03}")
}

/// The value that the key with this number gets first.
pub fn value(n: u32) -> String {
    format!("{n} and {}", n.wrapping_mul(2_654_435_761))
}

/// All that the cluster holds.
pub fn read_all(clerk: &Clerk) -> Result<Table, Error> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut table = Table::new();
    for page in clerk.pages(Scan::all()) {
        let items = page?.items.into_iter();
        table.extend(items.map(|item| (text(&item.key), text(&item.value))));
    }
    Ok(table)
}
