//! The pages that say which test shows what name tests that are there.

use std::path::Path;

use crate::source::{File, Finding, Tree};

/// Where every name in `code` is looked up.
const PAGES: [&str; 2] = ["docs/failures.md", "docs/testing.md"];

/// The page whose tables name a test in their last column, in whatever form.
const NAMES_TESTS: &str = "docs/failures.md";

/// The list of the scenarios that are run as tests, each in a line of the form `name: 3;`.
const SCENARIOS: &str = "verify/src/course/mod.rs";

/// What a word in `code` claims to be.
#[derive(Debug, PartialEq, Eq)]
enum Claim<'a> {
    /// A test, by the name of its function.
    Test(&'a str),
    /// The tests of this name in the folder `tests`.
    TestFile(&'a str),
    /// A file or a folder.
    Path(&'a str),
}

/// Every test, file and folder that the pages name is there.
pub fn names(tree: &Tree, findings: &mut Vec<Finding>) {
    for page in tree
        .files
        .iter()
        .filter(|file| PAGES.contains(&&*file.path))
    {
        let tables = page.path == NAMES_TESTS;
        for (line, claim) in claims(&page.text, tables) {
            if let Some(problem) = refuted(&claim, tree) {
                findings.push(page.finding(line, problem));
            }
        }
    }
}

fn refuted(claim: &Claim<'_>, tree: &Tree) -> Option<String> {
    let exists = |path: &str| Path::new(&tree.root).join(path).exists();
    match claim {
        Claim::Test(name) if !tree.files.iter().any(|file| has_test(file, name)) => Some(format!(
            "there is no test `{name}`: name the one that shows this"
        )),
        Claim::TestFile(name)
            if !exists(&format!("tests/{name}.rs"))
                && !exists(&format!("tests/{name}/main.rs"))
                && !exists(&format!("verify/tests/{name}.rs"))
                && !exists(&format!("verify/tests/{name}/main.rs")) =>
        {
            Some(format!("there are no tests `{name}` in tests"))
        }
        Claim::Path(path) if !exists(path) => Some(format!("`{path}` is not there")),
        _ => None,
    }
}

/// Whether the file has a function of that name which the test runner calls, or is the list of
/// scenarios, of each of which a macro makes such a function.
fn has_test(file: &File, name: &str) -> bool {
    if file.path == SCENARIOS {
        let entry = format!("{name}: ");
        let mut lines = file.text.lines().map(str::trim_start);
        return lines.any(|line| line.starts_with(&entry) && line.ends_with(';'));
    }
    let lines: Vec<&str> = file.text.lines().map(str::trim_start).collect();
    let start = format!("fn {name}(");
    let mut functions = (0..lines.len()).filter(|at| lines[*at].starts_with(&start));
    file.path.ends_with(".rs")
        && functions.any(|at| {
            let above = lines[..at].iter().rev();
            // Attributes and comments belong to what follows them.
            let mut own = above.take_while(|line| line.starts_with('#') || line.starts_with("//"));
            // Within this macro the attribute is optional.
            own.any(|line| *line == "#[test]") || file.text.contains("proptest! {")
        })
}

/// What a page claims, with line numbers. In the last column of its tables, if they name tests, any
/// word is one; elsewhere those that are made of several words.
fn claims(text: &str, tables: bool) -> Vec<(usize, Claim<'_>)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let cells = line
            .trim()
            .strip_prefix('|')
            .and_then(|row| row.strip_suffix('|'));
        let last = cells
            .filter(|_| tables)
            .and_then(|row| row.rsplit_once('|'));
        let last = last.map_or("", |(_, last)| last);
        let shows: Vec<&str> = spans(last)
            .filter(|(before, _)| !before.ends_with("target "))
            .map(|(_, span)| span)
            .collect();
        for (_, span) in spans(line) {
            if let Some(claim) = claim(span, shows.contains(&span)) {
                found.push((number + 1, claim));
            }
        }
    }
    found
}

/// What stands in backquotes, each with the text between it and the one before.
fn spans(line: &str) -> impl Iterator<Item = (&str, &str)> {
    let parts: Vec<&str> = line.split('`').collect();
    let pairs = parts.chunks_exact(2).map(|pair| (pair[0], pair[1]));
    pairs.collect::<Vec<_>>().into_iter()
}

fn claim(span: &str, shows: bool) -> Option<Claim<'_>> {
    let word = span.split(' ').next().unwrap_or_default();
    let folders = [
        "src/",
        "tests/",
        "scripts/",
        "docs/",
        "fuzz/",
        "examples/",
        "verify/",
    ];
    if folders.iter().any(|folder| word.starts_with(folder)) {
        return Some(Claim::Path(word));
    }
    if let Some((_, name)) = span.split_once("--test ") {
        return name.split(' ').next().map(Claim::TestFile);
    }
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let named = !span.is_empty() && span.chars().all(is_name);
    (named && (shows || span.contains('_'))).then_some(Claim::Test(span))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_files_and_folders_are_told_apart() {
        let text = "see `a_b`, `word`, `tests/x.rs`, `scripts/run.sh SECONDS`, `NOT_ONE`\n\
                    run `cargo test --test course -- -q`";
        let expected = [
            (1, Claim::Test("a_b")),
            (1, Claim::Path("tests/x.rs")),
            (1, Claim::Path("scripts/run.sh")),
            (2, Claim::TestFile("course")),
        ];
        assert_eq!(claims(text, false), expected);
    }

    #[test]
    fn in_the_last_column_of_a_table_a_single_word_is_a_test_too() {
        let text = "| `one` | `two` and the target `core` |";
        assert_eq!(claims(text, true), [(1, Claim::Test("two"))]);
        assert_eq!(claims(text, false), []);
    }

    #[test]
    fn a_function_that_the_test_runner_does_not_call_is_no_test() {
        let file = |text: &str| File {
            path: "tests/x.rs".into(),
            text: text.into(),
        };
        let test = file("#[test]\n// Why.\n#[should_panic]\nfn a_b() {}");
        assert!(has_test(&test, "a_b") && !has_test(&test, "a_"));
        assert!(!has_test(&file("#[test]\nfn c() {}\nfn a_b() {}"), "a_b"));
        assert!(has_test(
            &file("proptest! {\n    fn a_b(seed in 0..9) {}\n}"),
            "a_b"
        ));
        let list = File {
            path: SCENARIOS.into(),
            text: "elections {\n    a_b: 3;\n}\npub fn c() {}".into(),
        };
        assert!(has_test(&list, "a_b") && !has_test(&list, "b") && !has_test(&list, "c"));
    }
}
