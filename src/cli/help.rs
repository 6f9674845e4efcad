//! The help texts, made from the [catalogue](super::catalog) of commands.

use std::fmt::Write as _;

use super::catalog::{COMMANDS, COMMON, Opt, Spec};
use super::output::Answer;

/// The width of the lines of help texts, in characters.
const WIDTH: usize = 80;

const GRAMMAR: &str = r#"Words are separated by blanks. Quote what has blanks, quotes or unusual bytes:
'single' takes every byte as it is, "double" knows \xNN \n \r \t \0 \\ \" \'.
A word after -- is never an option. # starts a comment line."#;

/// The answer of `help`: the explanation of the command with this name, or without a name the list
/// of all commands.
pub fn answer(name: Option<&str>) -> Answer {
    match COMMANDS.iter().find(|spec| Some(spec.name) == name) {
        None => Answer::Help {
            long: format!("{}\n\n{GRAMMAR}\n\nhelp COMMAND tells more.", list()),
            short: COMMANDS
                .iter()
                .map(|spec| spec.name)
                .collect::<Vec<_>>()
                .join(" "),
        },
        Some(spec) => Answer::Help {
            long: explain(spec),
            short: format!("{}: {}", spec.usage, spec.summary),
        },
    }
}

/// Lists all commands: a line for each, with its name and summary.
pub fn list() -> String {
    let line = |spec: &Spec| format!("  {:<10}{}", spec.name, spec.summary);
    COMMANDS.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn explain(spec: &Spec) -> String {
    let mut text = format!("{}: {}\n", spec.usage, spec.summary);
    let mut say = |part: &str| {
        writeln!(text, "{part}").expect("writing into a string does not fail");
    };
    if !spec.aliases.is_empty() {
        say(&format!("Also called {}.", spec.aliases.join(", ")));
    }
    if !spec.details.is_empty() {
        say(&format!("\n{}", wrap(spec.details)));
    }
    say("\nOptions:");
    for option in spec.options.iter().chain(COMMON) {
        say(&format!("  {:<31}{}", written(option), option.summary));
    }
    say("\nExamples:");
    for example in spec.examples {
        say(&format!("  {example}"));
    }
    text.trim_end().to_string()
}

/// Writes an option as a user types it, with its short name first and the name of its value last.
fn written(option: &Opt) -> String {
    let short = option
        .short
        .map_or(String::new(), |short| format!("{short}, "));
    let value = option
        .value
        .map_or(String::new(), |value| format!(" {value}"));
    format!("{short}{}{value}", option.name)
}

fn wrap(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always a last line");
        if !line.is_empty() && line.len() + 1 + word.len() > WIDTH {
            lines.push(word.into());
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(name: Option<&str>) -> String {
        match answer(name) {
            Answer::Help { long, .. } => long,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn help_lists_every_command() {
        let text = long(None);
        for spec in COMMANDS {
            assert!(text.contains(spec.summary), "{}", spec.name);
        }
    }

    #[test]
    fn help_of_a_command_tells_its_usage_options_and_examples_on_short_lines() {
        for spec in COMMANDS {
            let text = long(Some(spec.name));
            let parts = spec.options.iter().map(|option| option.name);
            for part in parts
                .chain([spec.usage])
                .chain(spec.examples.iter().copied())
            {
                assert!(text.contains(part), "{}: {part}\n{text}", spec.name);
            }
            for line in text.lines() {
                assert!(line.len() <= 100, "{line}");
            }
        }
    }
}
