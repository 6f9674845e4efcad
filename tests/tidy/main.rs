//! The style guide, executed. Each test here is one habit of this code base; what it finds is
//! named by file and line, with the rule and what to write instead.
//!
//! The rules read the text of the repository, with a small lexer (`lexer.rs`) that tells code from
//! comments and strings, and no parser: they are meant to catch habits, not adversaries. Every
//! rule has tests of its own on small strings, because a rule that finds nothing proves nothing.

mod arrows;
mod bans;
mod canaries;
mod dependencies;
mod lexer;
mod markdown;
mod pages;
mod shell;
mod sizes;
mod source;

use std::process::Command;

use source::{Finding, Tree};

/// Runs one rule over every file and fails with all that it found.
fn check(rule: impl Fn(&source::File, &mut Vec<Finding>)) {
    let tree = Tree::load();
    let mut findings = Vec::new();
    for file in &tree.files {
        rule(file, &mut findings);
    }
    report(&findings);
}

fn report(findings: &[Finding]) {
    let list: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert!(
        list.is_empty(),
        "{} broken rule(s):\n{}",
        list.len(),
        list.join("\n")
    );
}

#[test]
fn the_rules_see_the_repository() {
    let tree = Tree::load();
    for path in [
        "src/lib.rs",
        "tests/tidy/main.rs",
        "Cargo.toml",
        "scripts/lib.sh",
    ] {
        assert!(
            tree.files.iter().any(|file| file.path == path),
            "{path} is not seen"
        );
    }
}

#[test]
fn lines_fit_in_100_columns() {
    check(sizes::lines);
}

#[test]
fn files_stay_short() {
    check(sizes::files);
}

#[test]
fn functions_stay_short() {
    let tree = Tree::load();
    let mut findings = Vec::new();
    sizes::functions(&tree.files, sizes::LONG_FUNCTIONS, &mut findings);
    report(&findings);
}

#[test]
fn banned_calls_stay_out() {
    let tree = Tree::load();
    let mut findings = Vec::new();
    bans::calls(&tree.files, bans::EXCEPTIONS, &mut findings);
    report(&findings);
}

#[test]
fn no_marker_is_left_over() {
    check(bans::markers);
}

#[test]
fn dependencies_bring_no_async_runtime() {
    check(dependencies::runtimes);
}

#[test]
fn every_dependency_has_its_reason() {
    let tree = Tree::load();
    let mut findings = Vec::new();
    dependencies::reasons(&tree.files, &mut findings);
    report(&findings);
}

#[test]
fn the_fuzz_targets_are_built_with_all_dependencies() {
    let lock = Tree::load().root.join("fuzz/Cargo.lock");
    let lock = std::fs::read_to_string(lock).expect("the lock file can be read");
    check(|file, findings| {
        if file.path == "Cargo.toml" {
            dependencies::fuzz_lock(file, &lock, findings);
        }
    });
}

#[test]
fn modules_import_only_along_the_arrows() {
    check(arrows::imports);
}

#[test]
fn links_in_markdown_lead_somewhere() {
    let tree = Tree::load();
    let mut findings = Vec::new();
    markdown::links(&tree, &mut findings);
    report(&findings);
}

#[test]
fn tests_that_the_pages_name_are_there() {
    let tree = Tree::load();
    let mut findings = Vec::new();
    pages::names(&tree, &mut findings);
    report(&findings);
}

#[test]
fn wrong_variants_name_their_check_and_can_be_made() {
    let tree = Tree::load();
    let mut findings = Vec::new();
    canaries::fit(&tree, &mut findings);
    report(&findings);
}

#[test]
fn shell_scripts_stop_at_the_first_error() {
    check(shell::header);
}

#[test]
fn shell_scripts_signal_only_what_they_started() {
    check(shell::signals);
}

#[test]
fn scripts_take_every_number_within_the_bounds_that_they_name() {
    let takes = |number: &str| {
        let script = format!("source scripts/lib.sh; need_number --seed {number} 0 2147483647");
        let status = Command::new("bash").args(["-c", &script]).output();
        status.expect("bash is there").status.success()
    };
    for number in ["0", "007", "1031993496", "2147483647"] {
        assert!(takes(number), "{number} is refused");
    }
    for number in ["2147483648", "99999999999999999999", "-1", "1.5", "''"] {
        assert!(!takes(number), "{number} is taken");
    }
}
