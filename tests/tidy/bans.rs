//! Words and calls that this code base does without, each with what to write instead.

use crate::lexer::is_word;
use crate::source::{File, Finding, line_of};

/// Where a ban holds.
#[derive(Clone, Copy)]
enum Where {
    /// In all Rust code.
    Everywhere,
    /// In all Rust code, but not in these folders.
    EverywhereBut(&'static [&'static str]),
    /// In what ships, but not in these folders or files.
    ShippedBut(&'static [&'static str]),
    /// In what ships of these folders.
    ShippedIn(&'static [&'static str]),
    /// In these folders and in all test code.
    TestsAnd(&'static [&'static str]),
}

struct Ban {
    /// Any of these. A word matches whole words only, in code only.
    words: &'static [&'static str],
    place: Where,
    instead: &'static str,
}

/// What decides is pure: it is driven by a simulator, and the same input gives the same trace.
const PURE: &[&str] = &["src/raft", "src/kv"];
const PROGRAMS: &[&str] = &[
    "examples",
    "src/bin",
    "src/cli",
    "src/kvnode",
    "verify/src",
    "bench/etcd-load",
];
/// The load for etcd speaks gRPC, and all crates for gRPC that are kept up are asynchronous. It is
/// no part of the product: it has a workspace and a lock file of its own.
pub const ASYNCHRONOUS: &[&str] = &["bench/etcd-load"];

const BANS: &[Ban] = &[
    Ban {
        words: &[".unwrap()", ".unwrap_err()"],
        place: Where::ShippedBut(&[]),
        instead: "return an error that says what to do; about our own state, `expect` with a \
                  sentence",
    },
    Ban {
        words: &["panic!()", "unreachable!()", "assert!(false"],
        place: Where::ShippedBut(&[]),
        instead: "say in a sentence which invariant is broken",
    },
    Ban {
        words: &["sleep", "sleep_ms"],
        place: Where::TestsAnd(PURE),
        instead: "wait for the condition itself with a deadline (`Condvar::wait_for`, \
                  `recv_timeout`), or hand in ticks",
    },
    Ban {
        words: &["unbounded", "mpsc::channel", "mpsc::{channel"],
        place: Where::Everywhere,
        instead: "give the queue a bound: `crossbeam::channel::bounded(n)`, \
                  `mpsc::sync_channel(n)`",
    },
    Ban {
        words: &["SystemTime", "Instant"],
        place: Where::ShippedIn(PURE),
        instead: "time comes in from outside: ticks, or the entry's `time_ms`",
    },
    Ban {
        words: &["SystemTime"],
        place: Where::ShippedBut(&["src/storage/disk"]),
        instead: "`Instant`: the time of day may jump by hours. To show it to people, \
                  `Disk::now_ms`, which a test can set",
    },
    Ban {
        words: &["HashMap", "HashSet", "RandomState"],
        place: Where::ShippedIn(PURE),
        instead: "iterate in one order everywhere: `BTreeMap`, `BTreeSet`, `imbl::OrdMap`",
    },
    Ban {
        words: &[
            "std::fs",
            "std::net",
            "std::thread",
            "thread::spawn",
            "getrandom",
            "thread_rng",
        ],
        place: Where::ShippedIn(PURE),
        instead: "hand out an effect and let a thread of `node` carry it out; random numbers \
                  come from the seeded generator",
    },
    Ban {
        words: &["async", "await", "tokio", "futures"],
        place: Where::EverywhereBut(ASYNCHRONOUS),
        instead: "a named blocking thread, or the event loop of `net`",
    },
    Ban {
        words: &["println!", "print!", "eprintln!", "eprint!"],
        place: Where::ShippedBut(PROGRAMS),
        instead: "the macros of `log`: only the two programs own a terminal",
    },
    Ban {
        words: &["process::exit", "process::abort"],
        place: Where::ShippedBut(PROGRAMS),
        instead: "return the error: the program chooses its exit code, and threads are joined",
    },
    Ban {
        words: &["bincode"],
        place: Where::ShippedBut(&["src/wire/codec"]),
        instead: "`wire::codec`: the frozen crate is reached through one module",
    },
    Ban {
        words: &["dbg!"],
        place: Where::Everywhere,
        instead: "nothing, or the macros of `log`",
    },
];

/// Banned code that may stay: file, banned word, text on its line. An entry that nothing needs
/// fails until it is taken out.
pub const EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// No banned word stands in the code of the files, but for the exceptions.
pub fn calls(files: &[File], exceptions: &[(&str, &str, &str)], findings: &mut Vec<Finding>) {
    let mut used = vec![false; exceptions.len()];
    for file in files.iter().filter(|file| file.is_rust()) {
        for (line, word, instead) in banned_in(file) {
            let text = file.text.lines().nth(line - 1).unwrap_or_default();
            let excused = exceptions.iter().position(|(path, excused, part)| {
                file.path == *path && word == *excused && text.contains(part)
            });
            match excused {
                Some(known) => used[known] = true,
                None => {
                    findings.push(file.finding(line, format!("`{word}` is banned; {instead}")));
                }
            }
        }
    }
    for ((path, word, _), _) in exceptions.iter().zip(used).filter(|(_, used)| !used) {
        let rule = format!("the exception for `{word}` is not needed any more; take it out");
        findings.push(Finding {
            path: (*path).into(),
            line: 0,
            rule,
        });
    }
}

fn banned_in(file: &File) -> Vec<(usize, &'static str, &'static str)> {
    let mut found = Vec::new();
    let (all, shipped) = (file.code(), file.shipped_code());
    for ban in BANS {
        let code = match ban.place {
            Where::Everywhere => &all,
            Where::EverywhereBut(folders) if !file.is_in(folders) => &all,
            Where::ShippedIn(folders) if file.is_in(folders) => &shipped,
            Where::ShippedBut(folders) if !file.is_in(folders) => &shipped,
            Where::TestsAnd(folders) if file.is_in(folders) => &all,
            Where::TestsAnd(_) => &only_in(&all, &shipped),
            _ => continue,
        };
        for word in ban.words {
            let lines = occurrences(code, word).map(|at| line_of(code, at));
            found.extend(lines.map(|line| (line, *word, ban.instead)));
        }
    }
    found
}

/// The lines of the code that are not among the shipped ones: test code.
fn only_in(all: &str, shipped: &str) -> String {
    let shipped = shipped.lines().chain(std::iter::repeat(""));
    let lines = all.lines().zip(shipped).map(
        |(line, shipped)| {
            if shipped.trim().is_empty() { line } else { "" }
        },
    );
    lines.collect::<Vec<_>>().join("\n")
}

/// Where a word stands by itself, not as a part of a longer name.
fn occurrences<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |at| {
            let joins_before = word.starts_with(is_word) && text[..*at].ends_with(is_word);
            let joins_after =
                word.ends_with(is_word) && text[at + word.len()..].starts_with(is_word);
            !joins_before && !joins_after
        })
}

/// What marks work as unfinished, in any file. Written in two halves, so that this file does not
/// find itself.
const MARKERS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
    concat!("HA", "CK"),
    concat!("W", "IP"),
    concat!("to", "do!"),
    concat!("unimpl", "emented!"),
    concat!("#[ig", "nore"),
    concat!("for ", "now"),
];

/// No marker of unfinished work is left over.
pub fn markers(file: &File, findings: &mut Vec<Finding>) {
    for marker in MARKERS {
        for at in occurrences(&file.text, marker) {
            let rule = format!(
                "`{marker}` is left over; finish it, or say what is not done where \
                                users look for it"
            );
            findings.push(file.finding(line_of(&file.text, at), rule));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn banned(path: &str, text: &str) -> Vec<(usize, &'static str)> {
        let file = File::new(path, text);
        banned_in(&file)
            .into_iter()
            .map(|(line, word, _)| (line, word))
            .collect()
    }

    #[test]
    fn each_ban_finds_its_own_words_where_it_holds() {
        for ban in BANS {
            let path = match ban.place {
                Where::Everywhere | Where::EverywhereBut(_) => "tests/x.rs".to_string(),
                Where::ShippedBut(_) => "src/node/x.rs".to_string(),
                Where::ShippedIn(folders) | Where::TestsAnd(folders) => {
                    format!("{}/x.rs", folders[0])
                }
            };
            for word in ban.words {
                let found = banned(&path, &format!("fn f() {{\n    x{word};\n}}"));
                let joined = word.starts_with(is_word);
                assert_eq!(
                    found.contains(&(2, word)),
                    !joined,
                    "{word} as a part of a name"
                );
                let found = banned(&path, &format!("fn f() {{\n    {word};\n}}"));
                assert!(found.contains(&(2, word)), "{word} by itself");
            }
        }
    }

    #[test]
    fn a_ban_holds_where_it_is_meant_to_and_nowhere_else() {
        assert_eq!(
            banned("src/node/x.rs", "thread::sleep(d); Instant::now(); HashMap"),
            []
        );
        assert_eq!(banned("tests/x.rs", "thread::sleep(d)"), [(1, "sleep")]);
        let text = "thread::sleep(d);\n#[cfg(test)]\nmod tests {\n    thread::sleep(d);\n}";
        assert_eq!(banned("src/node/x.rs", text), [(4, "sleep")]);
        assert_eq!(banned("tests/x.rs", "x.unwrap(); println!()"), []);
        assert_eq!(banned("src/cli/x.rs", "println!()"), []);
        assert_eq!(banned("bench/etcd-load/src/x.rs", "x.await"), []);
        assert_eq!(banned("src/cli/x.rs", "x.await"), [(1, "await")]);
        assert_eq!(banned("src/wire/codec.rs", "bincode::x"), []);
        assert_eq!(banned("src/wire/frame.rs", "bincode::x"), [(1, "bincode")]);
    }

    #[test]
    fn comments_and_strings_may_name_what_is_banned() {
        assert_eq!(
            banned("src/kv/x.rs", "// no HashMap\nlet x = \"SystemTime\";"),
            []
        );
    }

    #[test]
    fn an_exception_excuses_one_place_and_must_be_needed() {
        let judged = |text: &str| {
            let mut findings = Vec::new();
            let exceptions = [("src/x.rs", ".unwrap()", "a.")];
            calls(&[File::new("src/x.rs", text)], &exceptions, &mut findings);
            findings
                .iter()
                .map(|finding| finding.line)
                .collect::<Vec<_>>()
        };
        assert_eq!(judged("a.unwrap()"), [0; 0]);
        assert_eq!(judged("a.unwrap();\nb.unwrap()"), [2]);
        assert_eq!(judged("c()"), [0]);
    }

    #[test]
    fn every_marker_is_found_in_comments_too() {
        for marker in MARKERS {
            let mut findings = Vec::new();
            markers(
                &File::new("x.md", &format!("a\n// {marker}: b")),
                &mut findings,
            );
            assert_eq!(findings.len(), 1, "{marker}");
            assert_eq!(findings[0].line, 2);
        }
    }
}
