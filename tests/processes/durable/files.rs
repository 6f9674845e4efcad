//! The data folder of a node, as its system calls have made it: which bytes and which names are
//! durable since when.

use std::collections::HashMap;

use super::{Broken, Rule};
use crate::strace::Call;

/// A moment, in nanoseconds since 1970; `None` is never.
pub type When = Option<u64>;

/// Something in a file.
pub struct Stored<T> {
    pub what: T,
    file: usize,
    pub written: u64,
    pub durable: When,
    /// When the names of the file and of the folder were durable.
    pub findable: When,
}

/// The data folder.
#[derive(Default)]
pub struct Files {
    /// Each file by its present path.
    paths: HashMap<String, usize>,
    files: Vec<File>,
    /// When syncs of the folder began and ended.
    syncs: Vec<(u64, u64)>,
    /// The same of the folder around it.
    outer_syncs: Vec<(u64, u64)>,
    /// When the folder was made.
    made: u64,
    pub changes: Vec<Change>,
}

#[derive(Default)]
struct File {
    writes: Vec<Write>,
    /// When syncs of it began and ended.
    syncs: Vec<(u64, u64)>,
    /// When its name was changed last, if that was seen.
    named: When,
}

struct Write {
    begin: u64,
    end: u64,
    path: String,
    /// When the file had got its name, if that was seen.
    named: When,
    /// It was created under that name, rather than renamed to it.
    new: bool,
}

/// A file was renamed, or removed.
pub struct Change {
    begin: u64,
    end: u64,
    file: usize,
    pub from: String,
    pub to: Option<String>,
}

/// When the first sync ended that began at that moment or later.
fn synced(syncs: &[(u64, u64)], behind: u64) -> When {
    let later = syncs.iter().filter(|(begin, _)| *begin >= behind);
    later.map(|(_, end)| *end).min()
}

pub fn by(when: When, moment: u64) -> bool {
    when.is_some_and(|when| when <= moment)
}

fn is_unfinished(path: &str) -> bool {
    path.ends_with(".new")
}

pub fn is_log(path: &str) -> bool {
    path.contains("/log-") && !is_unfinished(path)
}

impl Files {
    /// Takes a call into account that has to do with a file of the folder.
    pub fn note(&mut self, folder: &str, call: &Call) {
        let within =
            |path: &str| path.starts_with(&format!("{folder}/")) && !path.ends_with("lock");
        match &*call.name {
            _ if call.result < 0 => {}
            "openat" | "open" | "creat" => {
                let path = call.strings().pop().unwrap();
                if within(&path) && call.has("O_TRUNC") {
                    self.paths.insert(path, self.files.len());
                    self.files.push(File {
                        named: Some(call.end),
                        ..File::default()
                    });
                }
            }
            "rename" | "renameat" | "renameat2" => {
                if let [from, to] = &call.strings()[..]
                    && within(from)
                {
                    self.change(call, from, Some(to));
                }
            }
            "unlink" | "unlinkat" => {
                let path = call.strings().pop().unwrap();
                if within(&path) {
                    self.change(call, &path, None);
                }
            }
            "mkdir" | "mkdirat" if call.strings() == [folder] => self.made = call.end,
            "fsync" | "fdatasync" if call.target() == Some(folder) => {
                self.syncs.push((call.begin, call.end));
            }
            "fsync" | "fdatasync" if call.target() == folder.rsplit_once('/').map(|at| at.0) => {
                self.outer_syncs.push((call.begin, call.end));
            }
            "fsync" | "fdatasync" => {
                if let Some(file) = call.target().and_then(|path| self.paths.get(path)) {
                    self.files[*file].syncs.push((call.begin, call.end));
                }
            }
            _ => self.note_write(call),
        }
    }

    fn change(&mut self, call: &Call, from: &str, to: Option<&str>) {
        let file = self.paths.remove(from).unwrap();
        if let Some(to) = to {
            self.paths.insert(to.to_string(), file);
            self.files[file].named = Some(call.end);
        }
        self.changes.push(Change {
            begin: call.begin,
            end: call.end,
            file,
            from: from.to_string(),
            to: to.map(String::from),
        });
    }

    fn note_write(&mut self, call: &Call) {
        let writes = ["write", "pwrite64", "writev", "pwritev", "pwritev2"];
        let path = call.target().filter(|_| writes.contains(&&*call.name));
        let Some((path, file)) = path.and_then(|path| Some((path, *self.paths.get(path)?))) else {
            return;
        };
        let renamed = |change: &Change| change.file == file && change.to.is_some();
        let new = !self.changes.iter().any(renamed);
        let file = &mut self.files[file];
        file.writes.push(Write {
            begin: call.begin,
            end: call.end,
            path: path.to_string(),
            named: file.named,
            new,
        });
    }

    /// Whether a file of the folder has this path.
    pub fn has(&self, path: &str) -> bool {
        self.paths.contains_key(path)
    }

    /// What a call has written to its file, with when it became durable.
    pub fn stored<T>(&self, what: T, call: &Call) -> Stored<T> {
        let file = self.paths[call.target().unwrap()];
        let named = self.files[file].named.unwrap_or_default();
        Stored {
            what,
            file,
            written: call.end,
            // Filled in when all syncs are known.
            durable: None,
            findable: Some(named),
        }
    }

    pub fn judge(&self, broken: &mut Vec<Broken>) {
        for file in &self.files {
            for write in file.writes.iter().filter(|write| !write.new) {
                let findable = write.named.and_then(|named| synced(&self.syncs, named));
                if !by(findable, write.begin) {
                    let what = format!("{} was written to", write.path);
                    broken.push((Rule::NamesBeforeWrites, what));
                }
            }
        }
        for (number, change) in self.changes.iter().enumerate() {
            let from = &change.from;
            if let Some(to) = change.to.as_ref().filter(|to| !is_unfinished(to)) {
                let file = &self.files[change.file];
                let mut before = file.writes.iter().filter(|write| write.end <= change.begin);
                if !before.all(|write| by(synced(&file.syncs, write.end), change.begin)) {
                    let what = format!("{from} was renamed to {to}");
                    broken.push((Rule::BytesBeforeNames, what));
                }
            }
            let earlier = self.changes[..number].iter().filter(|earlier| {
                is_log(&earlier.from)
                    || (earlier.to.as_ref()).is_some_and(|to| to.contains("/snapshot-"))
            });
            let pending = |at: &Change| !by(synced(&self.syncs, at.end), change.begin);
            if is_log(from) && earlier.into_iter().any(pending) {
                broken.push((Rule::NamesBeforeRemovals, format!("{from} was taken away")));
            }
        }
    }

    /// Enters when each was durable and findable, now that all syncs are known.
    pub fn settle<T>(&self, stored: &mut [Stored<T>]) {
        let folder = synced(&self.outer_syncs, self.made);
        for stored in stored {
            stored.durable = synced(&self.files[stored.file].syncs, stored.written);
            let name = stored.findable.and_then(|named| synced(&self.syncs, named));
            stored.findable = folder.zip(name).map(|(folder, name)| folder.max(name));
        }
    }
}
