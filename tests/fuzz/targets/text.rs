//! What a person types, or pipes in.

use raftkv::cli::{command, completion, grammar};
use raftkv::node::parse_members;

use super::depth::reached;

/// Lines of `kvcli` become words, a command, completions and hints, or an error that says
/// something; and what it writes for bytes of any kind reads back as those bytes.
pub fn lines(data: &[u8]) {
    let word = grammar::word(data);
    let read = grammar::split(word.as_bytes()).expect("what was written can be read");
    assert!(read.len() == 1 && read[0].bytes == data, "{word}");
    let line = grammar::line(data);
    assert!(!line.contains('\n'), "a line is one line: {line}");
    assert_eq!(grammar::unline(line.as_bytes()).as_deref(), Ok(data));

    for line in data.split(|byte| *byte == b'\n') {
        match command::parse_line(line) {
            Ok(None) => {}
            Ok(Some(_)) => {
                assert!(grammar::split(line).is_ok());
                reached("a line is a command");
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                reached("a line is refused");
            }
        }
        if let Some((_, unfinished)) = grammar::unfinished(line) {
            assert!(unfinished.start <= line.len());
        }
    }
    let _ = grammar::unline(data);
    if let Ok(text) = std::str::from_utf8(data) {
        let (start, _) = completion::complete(text, |prefix| vec![prefix.to_vec().into()]);
        assert!(
            text.is_char_boundary(start),
            "the shell cuts the line at {start}"
        );
        let _ = completion::hint(text);
        if parse_members(text).is_ok() {
            reached("a list of members is read");
        }
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    [
        "put key value",
        "get 'a key' -o json",
        "append \"k\\x00\\xff\" '{\"a\": 1}'",
        "cas key --missing new",
        "cas key old new",
        "scan --prefix user: --limit 10 --keys",
        "# a comment\nstatus\ndelete key",
        "transfer 2",
        "help put",
        "sca",
        "scan --o",
        "get \"open",
        "é ü \u{202e}",
        "1=10.0.0.1:7000, 2=[::1]:7000",
    ]
    .map(|line| line.as_bytes().to_vec())
    .to_vec()
}
