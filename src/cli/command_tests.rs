use proptest::prelude::*;

use super::*;

fn parsed(line: &str) -> Command {
    match parse_line(line.as_bytes()) {
        Ok(Some(request)) => request.command,
        other => panic!("{line}: {other:?}"),
    }
}

fn refused(line: &str) -> String {
    match parse_line(line.as_bytes()) {
        Err(UsageError(message)) => message,
        other => panic!("{line}: {other:?}"),
    }
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn put(key: &'static str, value: &'static str) -> Command {
    Command::Put {
        key: bytes(key),
        value: Input::Here(bytes(value)),
    }
}

fn scan(start: &'static str, end: Option<&'static str>, extent: Extent) -> Command {
    Command::Scan(Range {
        start: bytes(start),
        end: end.map(bytes),
        extent,
        keys_only: false,
    })
}

#[test]
fn every_example_of_the_help_is_a_command_of_its_row() {
    for spec in catalog::COMMANDS {
        assert!(!spec.examples.is_empty(), "{}", spec.name);
        for example in spec.examples {
            parsed(example);
            let name = example.split(' ').next().unwrap();
            assert!(spec.names().any(|known| known == name), "{example}");
        }
    }
}

#[test]
fn no_two_commands_share_a_name_and_no_two_options_of_one() {
    let mut names: Vec<_> = catalog::COMMANDS.iter().flat_map(Spec::names).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    for spec in catalog::COMMANDS {
        let all = || spec.options.iter().chain(COMMON);
        let mut options: Vec<_> = all()
            .flat_map(|option| std::iter::once(option.name).chain(option.short))
            .collect();
        let count = options.len();
        options.sort_unstable();
        options.dedup();
        assert_eq!(options.len(), count, "{}", spec.name);
    }
}

fn assert_parsed<const N: usize>(table: [(&str, Command); N]) {
    for (line, command) in table {
        assert_eq!(parsed(line), command, "{line}");
    }
}

#[test]
fn words_become_commands() {
    let key = || bytes("k");
    assert_parsed([
        ("get k", Command::Get { key: key() }),
        ("GET k", Command::Get { key: key() }),
        ("put k v", put("k", "v")),
        ("set k v", put("k", "v")),
        ("put k ''", put("k", "")),
        ("put k -5", put("k", "-5")),
        ("put k -", put("k", "-")),
        ("put k '--file'", put("k", "--file")),
        ("put -- --k --v", put("--k", "--v")),
        ("put k -- --", put("k", "--")),
        (
            "put k --file=a",
            Command::Put {
                key: key(),
                value: Input::File("a".into()),
            },
        ),
        (
            "del a b",
            Command::Delete {
                keys: vec![bytes("a"), bytes("b")],
            },
        ),
        (
            "cas k a b",
            Command::Cas {
                key: key(),
                expected: Some(bytes("a")),
                value: bytes("b"),
            },
        ),
        (
            "cas k --missing b",
            Command::Cas {
                key: key(),
                expected: None,
                value: bytes("b"),
            },
        ),
    ]);
}

#[test]
fn words_become_scans_and_commands_about_the_cluster_and_the_session() {
    assert_parsed([
        ("scan", scan("", None, Extent::Page)),
        ("scan ab", scan("ab", Some("ac"), Extent::Page)),
        ("scan --from a --limit 7", scan("a", None, Extent::Limit(7))),
        ("scan --to b --all", scan("", Some("b"), Extent::All)),
        ("status", Command::Status { verbose: false }),
        ("status -v", Command::Status { verbose: true }),
        ("transfer", Command::Transfer { to: None }),
        ("transfer 2", Command::Transfer { to: Some(2) }),
        ("snapshot", Command::Snapshot { id: None }),
        ("snapshot 2", Command::Snapshot { id: Some(2) }),
        ("timing on", Command::Timing(true)),
        ("output json", Command::Output(Format::Json)),
        ("help", Command::Help(None)),
        ("help set", Command::Help(Some("put"))),
        ("scan --help", Command::Help(Some("scan"))),
        ("get -h", Command::Help(Some("get"))),
        ("quit", Command::Exit),
    ]);
}

#[test]
fn one_answer_can_have_a_form_of_its_own() {
    let request = parse_line(b"get k -o json").unwrap().unwrap();
    assert_eq!(request.format, Some(Format::Json));
    assert_eq!(parse_line(b"get k").unwrap().unwrap().format, None);
}

#[test]
fn a_blank_line_and_a_comment_are_no_command() {
    for line in ["", "  ", "# get k"] {
        assert_eq!(parse_line(line.as_bytes()), Ok(None));
    }
}

#[test]
fn a_mistake_is_answered_with_what_to_write() {
    let table = [
        ("gte k", "did you mean get?"),
        ("satus", "did you mean status?"),
        ("frobnicate", "help lists all"),
        ("get", "usage: get KEY"),
        (
            "get a b",
            "what to do with b; a word with blanks needs quotes",
        ),
        ("put k", "VALUE is missing"),
        ("put k v --file f", "one is too many"),
        ("put k --fiel f", "did you mean --file?"),
        ("put k --x", "put -- before it"),
        ("get k --cluster a:1", "--cluster, go before the command"),
        ("put k --file", "--file needs its PATH"),
        ("scan --limit x", "must be a whole number"),
        ("scan --limit 0", "starts at 1"),
        ("scan --limit 1 --limit 2", "given twice"),
        ("scan --limit 1 --all", "one is too many"),
        ("scan --keys=1", "takes no value"),
        ("scan p --from a", "one is too many"),
        ("cas k v", "NEW is missing"),
        ("cas k --missing a b", "nothing to expect"),
        ("timing maybe", "neither on nor off"),
        ("output xml", "raw, json and table"),
        ("get k -o xml", "raw, json and table"),
        ("transfer two", "must be a whole number"),
        ("transfer 0", "no node has the id 0"),
        ("snapshot all", "must be a whole number"),
        ("help frob", "no command frob"),
        ("get 'k", "never closed"),
    ];
    for (line, expected) in table {
        let message = refused(line);
        assert!(message.contains(expected), "{line}: {message}");
    }
}

#[test]
fn a_prefix_ends_before_the_first_key_that_does_not_start_with_it() {
    let end = |prefix: &[u8]| catalog::prefix_end(prefix).map(|end| end.to_vec());
    assert_eq!(end(b"a"), Some(b"b".to_vec()));
    assert_eq!(end(b"a\xff\xff"), Some(b"b".to_vec()));
    assert_eq!(end(b"\xff"), None);
    assert_eq!(end(b""), None);
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..40)
}

fn any_name() -> impl Strategy<Value = &'static str> {
    let names = catalog::COMMANDS.iter().flat_map(Spec::names);
    prop::sample::select(names.collect::<Vec<_>>())
}

proptest! {
    #[test]
    fn no_line_makes_the_parser_panic(name in any_name(), rest in any_bytes()) {
        let _ = parse_line(&[name.as_bytes(), b" ", &rest].concat());
        let _ = parse_line(&rest);
    }

    #[test]
    fn any_key_and_value_can_be_put(key in any_bytes(), value in any_bytes()) {
        let expected = Command::Put {
            key: key.clone().into(),
            value: Input::Here(value.clone().into()),
        };
        let line = format!("put {} {}", grammar::word(&key), grammar::word(&value));
        prop_assert_eq!(parsed(&line), expected.clone());
        let words = [b"put".to_vec(), b"--".to_vec(), key, value].map(Word::bare);
        prop_assert_eq!(parse(&words).unwrap().command, expected);
    }
}
