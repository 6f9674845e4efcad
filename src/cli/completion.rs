//! Finds completions and hints for a line that is being typed, from the [catalogue](super::catalog)
//! of commands.

use bytes::Bytes;

use super::catalog::{self, COMMANDS, COMMON, Operand, Spec};
use super::grammar::{self, Word};

/// One possible completion of the unfinished word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The text that a list of candidates shows.
    pub shown: String,
    /// The text that replaces the unfinished word.
    pub replacement: String,
}

impl Candidate {
    /// Makes a candidate that is a complete word: a blank follows it.
    fn word(word: &str) -> Self {
        Self {
            shown: word.into(),
            replacement: format!("{word} "),
        }
    }

    /// Makes a candidate that is a key. No blank follows it, because longer keys may start with it.
    fn key(key: &[u8]) -> Self {
        let word = grammar::word(key).into_owned();
        Self {
            shown: word.clone(),
            replacement: word,
        }
    }
}

/// Returns the offset in bytes at which the last word of `line` starts, and the candidates for that
/// word. `keys` finds some of the keys that start with the given bytes.
pub fn complete(line: &str, keys: impl FnOnce(&[u8]) -> Vec<Bytes>) -> (usize, Vec<Candidate>) {
    let Some((words, last)) = grammar::unfinished(line.as_bytes()) else {
        return (line.len(), Vec::new());
    };
    let candidates = match expected(&words, &last.word) {
        Expected::Nothing => Vec::new(),
        Expected::Key => keys(&last.word.bytes)
            .iter()
            .map(|key| Candidate::key(key))
            .collect(),
        Expected::OneOf(names) => names
            .into_iter()
            .filter(|name| name.as_bytes().starts_with(&last.word.bytes))
            .map(Candidate::word)
            .collect(),
    };
    (last.start, candidates)
}

enum Expected {
    Nothing,
    Key,
    OneOf(Vec<&'static str>),
}

fn expected(words: &[Word], last: &Word) -> Expected {
    let Some((name, rest)) = words.split_first() else {
        return Expected::OneOf(COMMANDS.iter().flat_map(Spec::names).collect());
    };
    let Some(spec) = catalog::find(&name.bytes) else {
        return Expected::Nothing;
    };
    let mut place = 0;
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        let takes_value = option(spec, word).is_some_and(|takes_value| takes_value);
        match (option(spec, word).is_some(), takes_value) {
            (false, _) => place += 1,
            (true, false) => {}
            (true, true) if rest.next().is_none() => return option_value(word),
            (true, true) => {}
        }
    }
    if last.bytes.starts_with(b"-") && !last.quoted {
        let all = spec.options.iter().chain(COMMON);
        return Expected::OneOf(all.map(|option| option.name).collect());
    }
    match spec.operand(place) {
        None | Some(Operand::Value) => Expected::Nothing,
        Some(Operand::Key) => Expected::Key,
        Some(Operand::OneOf(names)) => Expected::OneOf(names.to_vec()),
        Some(Operand::Command) => Expected::OneOf(COMMANDS.iter().map(|spec| spec.name).collect()),
    }
}

/// If the word is an option of the command, whether a value follows the option; `None` if it is not
/// an option.
fn option(spec: &Spec, word: &Word) -> Option<bool> {
    let names = |name: &str| name.as_bytes() == word.bytes;
    let mut all = spec.options.iter().chain(COMMON);
    let found = all.find(|option| names(option.name) || option.short.is_some_and(names));
    found
        .filter(|_| !word.quoted)
        .map(|option| option.value.is_some())
}

fn option_value(option: &Word) -> Expected {
    match &*option.bytes {
        b"--output" | b"-o" => Expected::OneOf(super::command::Format::NAMES.to_vec()),
        b"--from" | b"--to" => Expected::Key,
        _ => Expected::Nothing,
    }
}

/// Returns the part of the command's usage that is still missing at the end of `line`.
pub fn hint(line: &str) -> Option<String> {
    let (words, last) = grammar::unfinished(line.as_bytes())?;
    let typed_blank = last.start == line.len();
    let all = words.iter().chain((!typed_blank).then_some(&last.word));
    let all: Vec<&Word> = all.collect();
    let (name, operands) = all.split_first()?;
    let spec = catalog::find(&name.bytes)?;
    if operands.iter().any(|word| option(spec, word).is_some()) {
        return None;
    }
    // The usage may give several ways to write the command; the hint shows the first.
    let usage = spec.usage.split(" | ").next().unwrap_or_default();
    let usage: Vec<&str> = usage.split(' ').skip(1 + operands.len()).collect();
    match (usage.is_empty(), typed_blank) {
        (true, _) => None,
        (false, true) => Some(usage.join(" ")),
        (false, false) => Some(format!(" {}", usage.join(" "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str) -> (usize, Vec<String>) {
        let all = ["apple", "apricot", "two words", "-dash", "it's"];
        let keys = |prefix: &[u8]| {
            let all = all.iter().map(|key| Bytes::from_static(key.as_bytes()));
            all.filter(|key| key.starts_with(prefix)).collect()
        };
        let (start, candidates) = complete(line, keys);
        let replacements = candidates
            .into_iter()
            .map(|candidate| candidate.replacement);
        (start, replacements.collect())
    }

    #[test]
    fn the_last_word_is_completed_to_what_may_stand_there() {
        let table: &[(&str, usize, &[&str])] = &[
            ("ge", 0, &["get "]),
            ("s", 0, &["set ", "scan ", "status ", "snapshot "]),
            ("xyz", 0, &[]),
            ("get ap", 4, &["apple", "apricot"]),
            ("get two", 4, &["\"two words\""]),
            ("get \"two w", 4, &["\"two words\""]),
            ("get 'two w", 4, &["\"two words\""]),
            ("get \"-", 4, &["\"-dash\""]),
            ("get apple ", 10, &[]),
            ("put apple ap", 10, &[]),
            ("delete x ap", 9, &["apple", "apricot"]),
            ("help sc", 5, &["scan "]),
            ("output j", 7, &["json "]),
            ("timing o", 7, &["on ", "off "]),
            ("member re", 7, &["remove ", "replace "]),
            ("member add --l", 11, &["--learner "]),
            ("scan --l", 5, &["--limit "]),
            ("scan --from ap", 12, &["apple", "apricot"]),
            ("scan --limit a", 13, &[]),
            ("scan --keys ap", 12, &["apple", "apricot"]),
            ("get -o r", 7, &["raw "]),
            ("frob a", 5, &[]),
            ("get it's", 8, &[]),
            ("# get", 5, &[]),
        ];
        for (line, start, replacements) in table {
            let (found_start, found) = found(line);
            assert_eq!(found, *replacements, "{line}");
            if !replacements.is_empty() {
                assert_eq!(found_start, *start, "{line}");
            }
        }
    }

    #[test]
    fn a_hint_is_what_is_still_to_be_typed() {
        let table = [
            ("", None),
            ("pu", None),
            ("put", Some(" KEY VALUE")),
            ("put ", Some("KEY VALUE")),
            ("put k", Some(" VALUE")),
            ("put 'k", Some(" VALUE")),
            ("put k ", Some("VALUE")),
            ("put k v", None),
            ("scan", Some(" [PREFIX]")),
            ("scan --keys", None),
            ("status", Some(" [-v]")),
            ("exit", None),
            ("frob ", None),
        ];
        for (line, expected) in table {
            assert_eq!(hint(line).as_deref(), expected, "{line}");
        }
    }
}
