//! The words of the command `member`.

use bytes::Bytes;

use crate::cli::catalog::{Operand, Opt, Spec};
use crate::cli::command::{Arguments, Command};
use crate::cli::grammar;
use crate::client::Routes;
use crate::raft::{MemberRole, NodeId};
use crate::wire::members::ChangeRequest;

/// The row of the catalogue.
pub const SPEC: Spec = Spec {
    name: "member",
    aliases: &["members"],
    usage: "member list|add|promote|demote|remove|replace|move [ID[=HOST:PORT]]",
    summary: "show or change the members",
    details: "list shows the members, how far each of them is and what blocks a change; it works \
              without a leader. add ID=HOST:PORT lets in a node that runs with --join; it votes \
              once it has caught up, with --learner it never does. promote ID lets a learner vote, \
              demote ID makes a voter a learner, remove ID takes a member out. replace \
              ID[=HOST:PORT] gives the place of a member to the node that runs there with another \
              data folder. move ID=HOST:PORT notes where a member is reached from now on. kvcli \
              waits until the change is done. After Ctrl-C, or without progress for --timeout, the \
              change goes on without it. Each command may be repeated. Exit codes: 1 refused, 3 no \
              leader, 4 not done yet or not known.",
    examples: &[
        "member list",
        "member add 4=10.0.0.4:7000",
        "member add 5=10.0.0.5:7000 --learner",
        "member promote 5",
        "member demote 5",
        "member replace 3",
        "member replace 3=10.0.0.13:7000",
        "member move 2=10.0.0.12:7000",
        "member remove 3 --force",
    ],
    options: &[
        Opt {
            name: "--learner",
            short: None,
            value: None,
            summary: "add: the node does not vote",
        },
        Opt {
            name: "--force",
            short: None,
            value: None,
            summary: "even if too few of the voters answer that there would be",
        },
    ],
    operands: &[Operand::OneOf(WORDS), Operand::Value],
    required: 1,
    repeats: false,
    build,
};

const WORDS: &[&str] = &[
    "list", "add", "promote", "demote", "remove", "replace", "move",
];

fn build(arguments: &mut Arguments) -> Result<Command, String> {
    let word = arguments.required("the word after member")?;
    let (learner, force) = (arguments.flag("--learner"), arguments.flag("--force"));
    let node = arguments.operand();
    if learner && *word != *b"add" {
        return Err("--learner is for add only".into());
    }
    let change = match &*word {
        b"list" if node.is_some() || force => return Err("member list takes nothing more".into()),
        b"list" => return Ok(Command::Members),
        b"add" => {
            let role = match learner {
                true => MemberRole::Learner,
                false => MemberRole::Voter,
            };
            let (id, address) = id_and_address(node)?;
            ChangeRequest::Add { id, address, role }
        }
        b"promote" => ChangeRequest::Promote(id(node)?),
        b"demote" => ChangeRequest::Demote(id(node)?),
        b"remove" => ChangeRequest::Remove(id(node)?),
        b"replace" => {
            let (id, address) = id_and_perhaps_address(node)?;
            ChangeRequest::Replace { id, address }
        }
        b"move" => {
            let (id, address) = id_and_address(node)?;
            ChangeRequest::Move { id, address }
        }
        other => {
            let words = WORDS.join(", ");
            let other = grammar::word(other);
            return Err(format!("member knows no word {other}; there are {words}"));
        }
    };
    Ok(Command::ChangeMembers { change, force })
}

fn id(node: Option<Bytes>) -> Result<NodeId, String> {
    match id_and_perhaps_address(node)? {
        (id, None) => Ok(id),
        (_, Some(address)) => Err(format!("only the ID is needed here, without ={address}")),
    }
}

fn id_and_address(node: Option<Bytes>) -> Result<(NodeId, String), String> {
    match id_and_perhaps_address(node)? {
        (id, Some(address)) => Ok((id, address)),
        (id, None) => Err(format!("the address is missing: write {id}=HOST:PORT")),
    }
}

fn id_and_perhaps_address(node: Option<Bytes>) -> Result<(NodeId, Option<String>), String> {
    let node = node.ok_or("the ID of the node is missing")?;
    let text = str::from_utf8(&node).map_err(|_| "ID=HOST:PORT is not UTF-8")?;
    let (id, address) = match text.split_once('=') {
        Some((id, address)) => (id, Some(address)),
        None => (text, None),
    };
    let wrong = || {
        format!(
            "{} is no id of a node: a number from 1 on",
            grammar::word(id.as_bytes())
        )
    };
    let id = id.parse().ok().filter(|id| *id != 0).ok_or_else(wrong)?;
    // The routes of a client check that an address has its form.
    if let Some(address) = address {
        Routes::new([address], 0).map_err(|error| error.to_string())?;
    }
    Ok((id, address.map(String::from)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::command::parse_line;

    fn parsed(line: &str) -> Result<Command, String> {
        match parse_line(line.as_bytes()) {
            Ok(request) => Ok(request.unwrap().command),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn each_word_is_the_change_that_it_names() {
        let add = |role| ChangeRequest::Add {
            id: 4,
            address: "h:7000".into(),
            role,
        };
        let replace = |address: Option<&str>| ChangeRequest::Replace {
            id: 3,
            address: address.map(String::from),
        };
        let moved = ChangeRequest::Move {
            id: 2,
            address: "[::1]:7".into(),
        };
        let table = [
            ("add 4=h:7000", add(MemberRole::Voter), false),
            ("add 4=h:7000 --learner", add(MemberRole::Learner), false),
            ("promote 4", ChangeRequest::Promote(4), false),
            ("demote 4", ChangeRequest::Demote(4), false),
            ("remove 4 --force", ChangeRequest::Remove(4), true),
            ("replace 3", replace(None), false),
            ("--force replace 3=h:1", replace(Some("h:1")), true),
            ("move 2=[::1]:7", moved, false),
        ];
        for (words, change, force) in table {
            let command = Command::ChangeMembers { change, force };
            assert_eq!(parsed(&format!("member {words}")), Ok(command), "{words}");
        }
        assert_eq!(parsed("members list"), Ok(Command::Members));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let table = [
            ("", "needs more than its name"),
            ("frob 3", "no word frob; there are list, add"),
            ("list 3", "takes nothing more"),
            ("list --force", "takes nothing more"),
            ("add", "the ID of the node is missing"),
            ("add 4", "write 4=HOST:PORT"),
            ("add 4=h", "host:port"),
            ("add 0=h:1", "0 is no id"),
            ("add x=h:1", "x is no id"),
            ("promote 4=h:1", "without =h:1"),
            ("remove 3 --learner", "--learner is for add only"),
            ("move 3", "write 3=HOST:PORT"),
            ("remove 1 2", "does not know what to do with 2"),
        ];
        for (words, part) in table {
            let error = parsed(&format!("member {words}")).unwrap_err();
            assert!(error.contains(part), "{words}: {error}");
        }
    }
}
