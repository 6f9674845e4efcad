//! Lines of 100 columns, files of 500 lines (350 in the core), functions of 60 lines.

use crate::lexer::{self, Kind};
use crate::source::{File, Finding, item_end, line_of};

const COLUMNS: usize = 100;
const FILE_LINES: usize = 500;
const CORE_FILE_LINES: usize = 350;
const FUNCTION_LINES: usize = 60;

/// Functions that are over the limit: file, name, number of lines. A ratchet: the number may only
/// fall, and an entry that is no longer needed fails until it is taken out. Nothing is added.
pub const LONG_FUNCTIONS: &[(&str, &str, usize)] = &[];

/// Lines end within the 100th column. What cannot be broken may be longer: an address, a raw
/// string, text that a string goes on with, a table or a fenced block of Markdown.
pub fn lines(file: &File, findings: &mut Vec<Finding>) {
    if file.path.ends_with(".toml") {
        return; // Lists of features read best on one line.
    }
    let mut fenced = false;
    for (number, (line, width)) in file.text.lines().zip(widths(file)).enumerate() {
        let fence = file.is_markdown() && line.trim_start().starts_with("```");
        fenced ^= fence;
        let table = line.trim_start_matches(['/', '!', ' ']).starts_with('|');
        if width > COLUMNS && !fenced && !table && !line.contains("://") {
            let rule = format!("{width} columns; break the line at {COLUMNS}");
            findings.push(file.finding(number + 1, rule));
        }
    }
}

/// The width of each line, without what lies in a raw string or goes on from the line before in an
/// ordinary one: a break there would be a part of the text.
fn widths(file: &File) -> Vec<usize> {
    if !file.is_rust() {
        return file.text.lines().map(|line| line.chars().count()).collect();
    }
    const BREAK: (char, Kind) = ('\n', Kind::Literal);
    const BACKSLASH: (char, Kind) = ('\\', Kind::Literal);
    let characters = lexer::classify(&file.text);
    let mut goes_on = false;
    let mut widths = Vec::new();
    for line in characters.split_inclusive(|(c, _)| *c == '\n') {
        let fixed = |kind| kind == Kind::Raw || (goes_on && kind == Kind::Literal);
        let counted = line.iter().filter(|(c, kind)| *c != '\n' && !fixed(*kind));
        widths.push(counted.count());
        // A string that opens with a backslash only puts its text on lines of its own.
        goes_on = match line {
            [.., ('"', Kind::Code), BACKSLASH, BREAK] => true,
            [.., BACKSLASH, BREAK] => false,
            _ => line.ends_with(&[BREAK]),
        };
    }
    widths
}

/// Source files and scripts stay short enough to be read in one go.
pub fn files(file: &File, findings: &mut Vec<Finding>) {
    if !file.is_rust() && !file.is_shell() {
        return;
    }
    let core = file.is_in(&["src/raft"]) && !file.is_test();
    let limit = if core { CORE_FILE_LINES } else { FILE_LINES };
    let lines = file.text.lines().count();
    if lines > limit {
        let rule = format!("{lines} lines; at {limit} a file becomes two, one idea each");
        findings.push(file.finding(lines, rule));
    }
}

/// Functions stay within 60 lines, from `fn` to the closing brace, but for those in the ratchet.
pub fn functions(files: &[File], ratchet: &[(&str, &str, usize)], findings: &mut Vec<Finding>) {
    let mut used = vec![false; ratchet.len()];
    for file in files.iter().filter(|file| file.is_rust()) {
        for (line, name, length) in long_functions(&file.code()) {
            let known = ratchet
                .iter()
                .position(|(path, known, _)| file.path == *path && name == *known);
            let limit = known.map_or(FUNCTION_LINES, |known| ratchet[known].2);
            if let Some(known) = known {
                used[known] = length == limit;
            }
            if length > limit {
                let rule = format!("fn {name} has {length} lines; at {limit} split it by idea");
                findings.push(file.finding(line, rule));
            }
        }
    }
    for ((path, name, lines), _) in ratchet.iter().zip(used).filter(|(_, used)| !used) {
        findings.push(Finding {
            path: (*path).into(),
            line: 0,
            rule: format!("fn {name} has no longer {lines} lines; lower or drop its entry"),
        });
    }
}

/// Line, name and length of each function over the limit.
fn long_functions(code: &str) -> Vec<(usize, String, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let inside_word = code[..at].ends_with(lexer::is_word);
        let rest = &code[at + 3..];
        let name: String = rest.chars().take_while(|c| lexer::is_word(*c)).collect();
        if inside_word || name.is_empty() {
            continue;
        }
        let length = item_end(rest).unwrap_or(rest.len());
        let lines = rest[..length].matches('\n').count() + 1;
        if lines > FUNCTION_LINES {
            found.push((line_of(code, at), name, lines));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn too_long(path: &str, text: &str) -> Vec<usize> {
        let mut findings = Vec::new();
        lines(&File::new(path, text), &mut findings);
        findings.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_line_of_101_columns_is_found_and_one_of_100_is_not() {
        let text = format!("{}\n// {}\n", "a".repeat(100), "b".repeat(98));
        assert_eq!(too_long("src/x.rs", &text), [2]);
        assert_eq!(too_long("x.sh", &format!("\n{}", "é".repeat(101))), [2]);
        assert_eq!(too_long("x.sh", &"é".repeat(100)), [0; 0]);
    }

    #[test]
    fn what_cannot_be_broken_may_be_long() {
        let long = "a".repeat(120);
        assert_eq!(too_long("src/x.rs", &format!("// https://{long}")), [0; 0]);
        assert_eq!(too_long("src/x.rs", &format!("f(r\"{long}\")")), [0; 0]);
        assert_eq!(too_long("src/x.rs", &format!("f(\"{long}\")")), [1]);
        assert_eq!(too_long("src/x.rs", &format!("//! | {long} |\n")), [0; 0]);
        assert_eq!(
            too_long("src/x.rs", &format!("f(\"\\\n{long}\n{long}\")")),
            [0; 0]
        );
        assert_eq!(too_long("src/x.rs", &format!("f(\"a \\\n{long}\")")), [2]);
        let page = format!("| {long} |\n```\n{long}\n```\n{long}\n");
        assert_eq!(too_long("x.md", &page), [5]);
    }

    #[test]
    fn a_file_over_its_limit_is_found() {
        let found = |path, lines| {
            let mut findings = Vec::new();
            files(&File::new(path, &"a\n".repeat(lines)), &mut findings);
            findings.len()
        };
        assert_eq!(
            (found("src/kv/x.rs", 500), found("src/kv/x.rs", 501)),
            (0, 1)
        );
        assert_eq!(
            (found("src/raft/x.rs", 350), found("src/raft/x.rs", 351)),
            (0, 1)
        );
        assert_eq!(
            (found("src/raft/tests.rs", 351), found("README.md", 999)),
            (0, 0)
        );
    }

    fn function_of(lines: usize) -> File {
        let body = "    x(\"}\");\n".repeat(lines - 2);
        File::new(
            "src/x.rs",
            &format!("type F = fn(u8);\nfn f(a: [u8; 2]) {{\n{body}}}\n"),
        )
    }

    fn judged(file: File, ratchet: &[(&str, &str, usize)]) -> Vec<usize> {
        let mut findings = Vec::new();
        functions(&[file], ratchet, &mut findings);
        findings.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_function_of_61_lines_is_found_and_one_of_60_is_not() {
        assert_eq!(judged(function_of(60), &[]), [0; 0]);
        assert_eq!(judged(function_of(61), &[]), [2]);
    }

    #[test]
    fn the_ratchet_holds_and_only_shrinks() {
        assert_eq!(judged(function_of(80), &[("src/x.rs", "f", 80)]), [0; 0]);
        assert_eq!(judged(function_of(81), &[("src/x.rs", "f", 80)]), [2, 0]);
        assert_eq!(judged(function_of(79), &[("src/x.rs", "f", 80)]), [0]);
        assert_eq!(judged(function_of(9), &[("src/x.rs", "f", 80)]), [0]);
    }
}
