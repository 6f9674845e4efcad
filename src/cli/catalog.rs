//! The catalogue of commands, one row each. Parsing, help, completion and hints all use these rows.
//! To add a command, add a row here, a variant of [`Command`], and an arm in the
//! [session](super::session), which executes the command.

use bytes::Bytes;

use super::command::{Arguments, Command, Extent, Format, Input, Range};
use super::grammar;

/// What parsing, help and completion need to know of a command.
#[derive(Debug)]
pub struct Spec {
    /// The command's name.
    pub name: &'static str,
    /// Other names for the same command.
    pub aliases: &'static [&'static str],
    /// The command with its operands, on one line. ` | ` stands between several ways to write it.
    pub usage: &'static str,
    /// What the command does, on one line.
    pub summary: &'static str,
    /// More about the command, for `help COMMAND`; may be empty.
    pub details: &'static str,
    /// Examples that a user can type as they are.
    pub examples: &'static [&'static str],
    /// The options of the command, in addition to [`COMMON`].
    pub options: &'static [Opt],
    /// The kind of each operand of the command, in order.
    pub operands: &'static [Operand],
    /// How many operands the command needs at least.
    pub required: usize,
    /// Whether the last operand may be repeated.
    pub repeats: bool,
    /// Makes the command from its operands and options. The number of operands has been checked
    /// before.
    pub build: fn(&mut Arguments) -> Result<Command, String>,
}

/// An option of a command of kvcli.
#[derive(Debug)]
pub struct Opt {
    /// The option's name, with both minuses.
    pub name: &'static str,
    /// The option's short name, with one minus.
    pub short: Option<&'static str>,
    /// The name of the option's value in help, if the option has a value.
    pub value: Option<&'static str>,
    /// What the option does, on one line.
    pub summary: &'static str,
}

/// The kind of an operand, by which completion finds candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// A key, or the beginning of one.
    Key,
    /// A value that only the user knows, so completion offers nothing.
    Value,
    /// The name of a command.
    Command,
    /// One word of a given list, which completion offers.
    OneOf(&'static [&'static str]),
}

impl Spec {
    /// All names of the command: the name and the aliases.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }

    /// The kind of the operand at this place, counted from zero; `None` if the command has no
    /// operand there.
    pub fn operand(&self, place: usize) -> Option<Operand> {
        match self.operands.get(place) {
            None if self.repeats => self.operands.last().copied(),
            found => found.copied(),
        }
    }
}

/// Finds a command by one of its names, in upper or lower case.
pub fn find(name: &[u8]) -> Option<&'static Spec> {
    COMMANDS.iter().find(|spec| {
        spec.names()
            .any(|known| known.as_bytes().eq_ignore_ascii_case(name))
    })
}

/// The options that every command has.
pub static COMMON: &[Opt] = &[
    Opt {
        name: "--output",
        short: Some("-o"),
        value: Some("raw|json|table"),
        summary: "the form of this one answer",
    },
    Opt {
        name: "--help",
        short: Some("-h"),
        value: None,
        summary: "explain the command instead of executing it",
    },
];

static FILE: &[Opt] = &[Opt {
    name: "--file",
    short: None,
    value: Some("PATH"),
    summary: "take the value from a file, byte for byte; - is standard input",
}];

/// All commands, in the order in which help lists them.
pub static COMMANDS: &[Spec] = &[
    Spec {
        name: "get",
        aliases: &[],
        usage: "get KEY",
        summary: "read a value",
        details: "The read is linearizable: it sees every write that was acknowledged before the \
                  read began. For a missing key the answer is (missing). As a single command, \
                  kvcli then prints nothing on standard output and exits with 1. With -o raw, the \
                  default if standard output is not a terminal, a single command prints exactly \
                  the bytes of the value.",
        examples: &["get colour", "get \"two words\"", r#"get "\x00\xff""#],
        options: &[],
        operands: &[Operand::Key],
        required: 1,
        repeats: false,
        build: |arguments| {
            let key = arguments.required("KEY")?;
            Ok(Command::Get { key })
        },
    },
    Spec {
        name: "put",
        aliases: &["set"],
        usage: "put KEY VALUE | put KEY --file PATH",
        summary: "set a value",
        details: "The put is executed once, however often kvcli has to send it.",
        examples: &[
            "put colour green",
            "put colour 'light green'",
            r#"put blob "\x00\xff""#,
            "put -- -key -value",
            "put licence --file /usr/share/common-licenses/GPL-3",
        ],
        options: FILE,
        operands: &[Operand::Key, Operand::Value],
        required: 1,
        repeats: false,
        build: |arguments| {
            let (key, value) = key_and_input(arguments)?;
            Ok(Command::Put { key, value })
        },
    },
    Spec {
        name: "append",
        aliases: &[],
        usage: "append KEY VALUE | append KEY --file PATH",
        summary: "add to the end of a value",
        details: "A missing key counts as empty. The answer is the length of the value after the \
                  append, in bytes.",
        examples: &["append word s", r#"append log "one line\n""#],
        options: FILE,
        operands: &[Operand::Key, Operand::Value],
        required: 1,
        repeats: false,
        build: |arguments| {
            let (key, value) = key_and_input(arguments)?;
            Ok(Command::Append { key, value })
        },
    },
    Spec {
        name: "delete",
        aliases: &["del"],
        usage: "delete KEY...",
        summary: "remove keys",
        details: "The answer is how many of the keys existed. The keys are removed one after the \
                  other: if the connection is lost in between, some of them may be gone and others \
                  not.",
        examples: &["delete colour", "delete colour shape 'two words'"],
        options: &[],
        operands: &[Operand::Key],
        required: 1,
        repeats: true,
        build: |arguments| {
            Ok(Command::Delete {
                keys: arguments.operands(),
            })
        },
    },
    Spec {
        name: "cas",
        aliases: &[],
        usage: "cas KEY EXPECTED NEW | cas KEY --missing NEW",
        summary: "set a value if the present one is as expected",
        details: "If the present value is not EXPECTED, nothing changes, and the answer is the \
                  present value; as a single command, kvcli then exits with 1. With --missing, the \
                  key must not exist.",
        examples: &["cas colour green blue", "cas lock --missing me"],
        options: &[Opt {
            name: "--missing",
            short: None,
            value: None,
            summary: "the key must not exist yet",
        }],
        operands: &[Operand::Key, Operand::Value, Operand::Value],
        required: 2,
        repeats: false,
        build: build_cas,
    },
    Spec {
        name: "scan",
        aliases: &[],
        usage: "scan [PREFIX] | scan [--from A] [--to B]",
        summary: "read keys and values in order",
        details: "Reads the keys that start with PREFIX, or those from A up to but without B, in \
                  the order of their bytes. Without --limit and --all, scan reads one page, which \
                  is as much as the server answers at once, and says where the next page starts. \
                  Each page is linearizable; writes may happen between two pages. With -o raw, \
                  each line is the two words KEY VALUE, in quotes if needed. With put in front, \
                  such a line is a command that restores the key.",
        examples: &[
            "scan",
            "scan user/ --limit 10",
            "scan --from a --to b --keys",
            "scan --all -o raw",
        ],
        options: &[
            Opt {
                name: "--from",
                short: None,
                value: Some("KEY"),
                summary: "the first key, inclusive",
            },
            Opt {
                name: "--to",
                short: None,
                value: Some("KEY"),
                summary: "the end of the range, exclusive",
            },
            Opt {
                name: "--limit",
                short: None,
                value: Some("N"),
                summary: "read this many keys at the most",
            },
            Opt {
                name: "--all",
                short: None,
                value: None,
                summary: "read all pages",
            },
            Opt {
                name: "--keys",
                short: None,
                value: None,
                summary: "leave the values out",
            },
        ],
        operands: &[Operand::Key],
        required: 0,
        repeats: false,
        build: build_scan,
    },
    Spec {
        name: "status",
        aliases: &[],
        usage: "status [-v]",
        summary: "show the state of every node",
        details: "Works without a leader and without a quorum. A node that does not answer is \
                  listed with the reason. kvcli exits with 3 if fewer voters answer than a quorum \
                  needs. With -v, status also shows how long each stage of a batch of commands \
                  took in the last 10 to 20 seconds: queue (until the write of the log begins), \
                  write and sync (of the log), round (from the leader to a follower's disk and \
                  back), heartbeat (to a follower and back, for reads), apply, reply.",
        examples: &["status", "status -v", "status -o json"],
        options: &[Opt {
            name: "--verbose",
            short: Some("-v"),
            value: None,
            summary: "also show each node's counters and where its time goes",
        }],
        operands: &[],
        required: 0,
        repeats: false,
        build: |arguments| {
            let verbose = arguments.flag("--verbose");
            Ok(Command::Status { verbose })
        },
    },
    Spec {
        name: "transfer",
        aliases: &[],
        usage: "transfer [ID]",
        summary: "transfer leadership to another node",
        details: "Leadership goes to the node with this id, or without an id to the node whose log \
                  is most up to date.",
        examples: &["transfer", "transfer 2"],
        options: &[],
        operands: &[Operand::Value],
        required: 0,
        repeats: false,
        build: |arguments| {
            let to = node_id(arguments)?;
            Ok(Command::Transfer { to })
        },
    },
    Spec {
        name: "snapshot",
        aliases: &[],
        usage: "snapshot [ID]",
        summary: "have nodes write a snapshot of their state now",
        details: "Asks the node with this id, or without an id every node; works without a leader. \
                  kvcli waits until the snapshots are durable. A node whose newest snapshot \
                  contains everything already takes no other one, and the answer says so. If no \
                  snapshot grows for --timeout, kvcli stops waiting and exits with 4; the nodes go \
                  on. kvcli exits with 3 if a node does not answer or cannot write. kvnode backup \
                  copies a snapshot to a file.",
        examples: &["snapshot", "snapshot 2"],
        options: &[],
        operands: &[Operand::Value],
        required: 0,
        repeats: false,
        build: |arguments| {
            let id = node_id(arguments)?;
            Ok(Command::Snapshot { id })
        },
    },
    super::member::words::SPEC,
    Spec {
        name: "timing",
        aliases: &[],
        usage: "timing on|off",
        summary: "show how long each answer takes",
        details: "The time is counted from the command to its answer, with all retries and \
                  redirections.",
        examples: &["timing on", "timing off"],
        options: &[],
        operands: &[Operand::OneOf(&["on", "off"])],
        required: 1,
        repeats: false,
        build: |arguments| match &*arguments.required("on or off")? {
            b"on" => Ok(Command::Timing(true)),
            b"off" => Ok(Command::Timing(false)),
            other => Err(format!("{} is neither on nor off", grammar::word(other))),
        },
    },
    Spec {
        name: "output",
        aliases: &[],
        usage: "output raw|json|table",
        summary: "change the form of the answers",
        details: "raw is for scripts: values and lines of words. json is for programs: one object \
                  per answer, on one line; bytes that are not UTF-8 are {\"base64\": \"...\"} \
                  where text would be a string. table is for people. To change a single answer, \
                  add -o to the command.",
        examples: &["output json", "output table"],
        options: &[],
        operands: &[Operand::OneOf(Format::NAMES)],
        required: 1,
        repeats: false,
        build: |arguments| Format::parse(&arguments.required("the format")?).map(Command::Output),
    },
    Spec {
        name: "help",
        aliases: &["?"],
        usage: "help [COMMAND]",
        summary: "explain a command, or list all",
        details: "",
        examples: &["help", "help scan"],
        options: &[],
        operands: &[Operand::Command],
        required: 0,
        repeats: false,
        build: |arguments| match arguments.operand() {
            None => Ok(Command::Help(None)),
            Some(name) => match find(&name) {
                Some(spec) => Ok(Command::Help(Some(spec.name))),
                None => Err(format!("there is no command {}", grammar::word(&name))),
            },
        },
    },
    Spec {
        name: "exit",
        aliases: &["quit"],
        usage: "exit",
        summary: "leave kvcli",
        details: "Ctrl-D does the same.",
        examples: &["exit"],
        options: &[],
        operands: &[],
        required: 0,
        repeats: false,
        build: |_| Ok(Command::Exit),
    },
];

fn node_id(arguments: &mut Arguments) -> Result<Option<u64>, String> {
    let id = arguments.operand();
    match id.map(|id| number(&id, "ID")).transpose()? {
        Some(0) => Err("no node has the id 0".into()),
        id => Ok(id),
    }
}

fn key_and_input(arguments: &mut Arguments) -> Result<(Bytes, Input), String> {
    let key = arguments.required("KEY")?;
    let value = match (arguments.operand(), arguments.take("--file")) {
        (Some(value), None) => Input::Here(value),
        (None, Some(path)) => Input::File(text(&path, "the path")?.into()),
        (Some(_), Some(_)) => return Err("a value and --file: one is too many".into()),
        (None, None) => return Err("VALUE is missing".into()),
    };
    Ok((key, value))
}

fn build_cas(arguments: &mut Arguments) -> Result<Command, String> {
    let missing = arguments.flag("--missing");
    let key = arguments.required("KEY")?;
    let expected = match missing {
        true => None,
        false => Some(arguments.required("EXPECTED")?),
    };
    let value = arguments.required("NEW")?;
    match arguments.operand() {
        None => Ok(Command::Cas {
            key,
            expected,
            value,
        }),
        Some(_) => Err("with --missing there is nothing to expect".into()),
    }
}

fn build_scan(arguments: &mut Arguments) -> Result<Command, String> {
    let (from, to) = (arguments.take("--from"), arguments.take("--to"));
    let (start, end) = match arguments.operand() {
        Some(_) if from.is_some() || to.is_some() => {
            return Err("a prefix and --from or --to: one is too many".into());
        }
        Some(prefix) => {
            let end = prefix_end(&prefix);
            (prefix, end)
        }
        None => (from.unwrap_or_default(), to),
    };
    let limit = arguments.take("--limit");
    let extent = match (limit, arguments.flag("--all")) {
        (Some(_), true) => return Err("--limit and --all: one is too many".into()),
        (Some(limit), false) => match number(&limit, "--limit")? {
            0 => return Err("--limit starts at 1".into()),
            limit => Extent::Limit(limit),
        },
        (None, true) => Extent::All,
        (None, false) => Extent::Page,
    };
    let keys_only = arguments.flag("--keys");
    Ok(Command::Scan(Range {
        start,
        end,
        extent,
        keys_only,
    }))
}

/// The lowest key above all keys that start with the prefix; `None` if there is no such key.
pub fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

fn text<'a>(bytes: &'a [u8], what: &str) -> Result<&'a str, String> {
    std::str::from_utf8(bytes).map_err(|_| format!("{what} is not UTF-8"))
}

fn number(bytes: &[u8], what: &str) -> Result<u64, String> {
    let text = text(bytes, what)?;
    text.parse().map_err(|_| {
        format!(
            "{what} must be a whole number, not {}",
            grammar::word(bytes)
        )
    })
}
