//! The system calls of a process, as `strace` writes them down.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};

use raftkv::raft::NodeId;

use super::cluster::Cluster;

/// The calls that change files and names, make them durable, and carry bytes over sockets.
const CALLS: &str = "openat,open,creat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,\
    write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,\
    sendto,sendmsg,recvfrom,recvmsg,read,readv";

/// How many bytes of a buffer are written down; what is behind them counts as zeros.
const BYTES: &str = "65536";

/// A system call that has ended.
#[derive(Debug)]
pub struct Call {
    pub name: String,
    /// Not before this, in nanoseconds since 1970.
    pub begin: u64,
    /// Not after this: nothing that the process does because of it comes earlier.
    pub end: u64,
    /// What it returned; negative if it failed.
    pub result: i64,
    args: String,
}

/// Runs a node under `strace`, which writes to this file. The node stays the direct child, so that
/// signals reach it; its standard error ends when `strace` has written everything.
pub fn watch(cluster: &mut Cluster, id: NodeId, file: &Path) {
    let mut version = Command::new("strace");
    let version = version.arg("--version").stdout(Stdio::null());
    assert!(
        version.status().is_ok_and(|status| status.success()),
        "this test watches system calls and needs strace: apt-get install strace"
    );
    let (calls, file) = (format!("trace={CALLS}"), file.to_str().unwrap());
    let time = "--absolute-timestamps=format:unix,precision:ns";
    let how = ["strace", "-D", "-f", "-y", "-qq", "-T", "-s", BYTES, time];
    let what = ["-e", &calls, "-o", file, "--"];
    cluster.run_under(id, &[&how[..], &what].concat());
}

/// The calls in a file of `strace`, in the order in which they began. One that did not end is left
/// out.
pub fn calls(text: &str) -> Vec<Call> {
    let mut begun: HashMap<&str, (u64, &str)> = HashMap::new();
    let mut calls = Vec::new();
    for line in text.lines() {
        let Some((process, rest)) = line.split_once(' ') else {
            continue;
        };
        let Some((time, rest)) = rest.trim_start().split_once(' ') else {
            continue;
        };
        let time = nanoseconds(time);
        if let Some(head) = rest.strip_suffix(" <unfinished ...>") {
            begun.insert(process, (time, head));
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            let (begin, head) = match begun.remove(process) {
                Some(begun) => begun,
                None => continue,
            };
            let (_, tail) = resumed.split_once(" resumed>").unwrap();
            calls.extend(call(&format!("{head}{tail}"), begin, Some(time)));
        } else {
            calls.extend(call(rest, time, None));
        }
    }
    calls.sort_by_key(|call| call.begin);
    calls
}

/// "1795278299.731199938".
fn nanoseconds(time: &str) -> u64 {
    let (seconds, rest) = time.split_once('.').unwrap();
    seconds.parse::<u64>().unwrap() * 1_000_000_000 + rest.parse::<u64>().unwrap()
}

/// "name(args) = result <0.000123>"; `None` if it is something else, or has no result.
fn call(text: &str, begin: u64, end: Option<u64>) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    let (args, result) = rest.rsplit_once(" = ")?;
    let args = args.trim_end().strip_suffix(')')?;
    let number = result.split([' ', '<']).next()?;
    let (_, took) = result.strip_suffix('>')?.rsplit_once('<')?;
    let (seconds, micros) = took.split_once('.')?;
    let took = seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?;
    Some(Call {
        name: name.to_string(),
        begin,
        end: end.unwrap_or(begin + took * 1000),
        result: number.parse().ok()?,
        args: args.to_string(),
    })
}

impl Call {
    /// What the first argument, a descriptor, stands for: a path or `socket:[…]`.
    pub fn target(&self) -> Option<&str> {
        let (number, rest) = self.args.split_once('<')?;
        let target = rest.split_once('>')?.0;
        number.parse::<u32>().is_ok().then_some(target)
    }

    /// The arguments that are strings, such as paths.
    pub fn strings(&self) -> Vec<String> {
        let strings = literals(&self.args).into_iter();
        let strings = strings.map(|(bytes, _)| String::from_utf8_lossy(&bytes).into_owned());
        strings.collect()
    }

    /// Whether the arguments have this flag.
    pub fn has(&self, flag: &str) -> bool {
        self.args.contains(flag)
    }

    /// Whether the bytes that were carried begin with this. Cheap: most do not.
    pub fn carries(&self, start: &str) -> bool {
        let bytes = self.args.split_once('"');
        bytes.is_some_and(|(_, bytes)| bytes.starts_with(start))
    }

    /// The bytes that were carried, as many as the result says.
    pub fn data(&self) -> Vec<u8> {
        let mut data = Vec::new();
        for (mut bytes, behind) in literals(&self.args) {
            let behind = behind.trim_start_matches('.');
            if let Some(rest) = behind.strip_prefix(", iov_len=") {
                let len = rest.split(|c: char| !c.is_ascii_digit()).next();
                bytes.resize(len.and_then(|len| len.parse().ok()).unwrap(), 0);
            }
            data.extend(bytes);
        }
        data.resize(usize::try_from(self.result).unwrap_or(0), 0);
        data
    }
}

/// All string literals, each with the text behind it.
fn literals(args: &str) -> Vec<(Vec<u8>, &str)> {
    let mut found = Vec::new();
    let mut rest = args;
    while let Some((_, inside)) = rest.split_once('"') {
        let (bytes, used) = literal(inside);
        rest = &inside[used..];
        found.push((bytes, rest));
    }
    found
}

/// The bytes that a literal stands for, up to its closing quote, and how long it is with that.
fn literal(text: &str) -> (Vec<u8>, usize) {
    let mut bytes = Vec::new();
    let mut at = 0;
    // Plain text is copied at once: there is a lot of it.
    let mut quote = text.find('"').unwrap();
    loop {
        let plain = &text[at..quote];
        let Some(escape) = plain.find('\\') else {
            bytes.extend_from_slice(plain.as_bytes());
            return (bytes, quote + 1);
        };
        bytes.extend_from_slice(&plain.as_bytes()[..escape]);
        at += escape + 1;
        let digits = text.as_bytes()[at..].iter().take(3);
        let digits = digits.take_while(|c| (b'0'..b'8').contains(*c)).count();
        bytes.push(match text.as_bytes()[at] {
            _ if digits > 0 => u8::from_str_radix(&text[at..at + digits], 8).unwrap(),
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'v' => 11,
            b'f' => 12,
            other => other,
        });
        at += digits.max(1);
        if at > quote {
            quote = at + text[at..].find('"').unwrap();
        }
    }
}

#[test]
fn calls_are_read_with_their_bytes_and_put_together_where_others_came_in_between() {
    let text = r#"7 1.000000005 pwrite64(9</d/log>, "a\0\1\"\n\3770", 7, 4096) = 7 <0.000002>
8  1.000003000 recvfrom(3<socket:[5]>,  <unfinished ...>
7  1.000003500 fsync(6</d>)              = 0 <0.000001>
8  1.000004000 <... recvfrom resumed>"xy"..., 4, 0, NULL, NULL) = 4 <0.000001>
8  1.000005000 writev(3<socket:[5]>, [{iov_base="q"..., iov_len=2}, {iov_base="r", iov_len=1}], 2) = 3 <0.0>
8  1.000006000 read(3<socket:[5]>, 0x5, 4) = -1 EAGAIN (Resource temporarily unavailable) <0.000001>
7  1.000007000 +++ exited with 0 +++
"#;
    let calls = calls(text);
    let of = |at: usize| (&*calls[at].name, calls[at].begin, calls[at].end);
    assert_eq!(of(0), ("pwrite64", 1_000_000_005, 1_000_002_005));
    assert_eq!(calls[0].target(), Some("/d/log"));
    assert_eq!(calls[0].data(), b"a\0\x01\"\n\xff0");
    assert_eq!(of(1), ("recvfrom", 1_000_003_000, 1_000_004_000));
    assert_eq!(calls[1].target(), Some("socket:[5]"));
    assert_eq!(calls[1].data(), b"xy\0\0");
    assert_eq!(of(2), ("fsync", 1_000_003_500, 1_000_004_500));
    assert_eq!((calls[2].target(), calls[2].result), (Some("/d"), 0));
    assert_eq!(calls[3].data(), b"q\0r");
    assert_eq!((calls[4].result, calls[4].data().len()), (-1, 0));
    assert_eq!(calls.len(), 5);
}
