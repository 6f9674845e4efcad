//! The list of a cluster's members as people write it.

use std::collections::{BTreeMap, BTreeSet};

use crate::raft::NodeId;

/// Reads a list such as `1=10.0.0.1:7000,2=10.0.0.2:7000,3=10.0.0.3:7000`.
///
/// ```
/// let members = raftkv::node::parse_members("1=localhost:7001, 2=localhost:7002").unwrap();
/// assert_eq!(members[&2], "localhost:7002");
/// assert!(raftkv::node::parse_members("1=localhost:7001,1=localhost:7002").is_err());
/// ```
///
/// # Errors
/// A sentence that names the part that is wrong.
pub fn parse_members(list: &str) -> Result<BTreeMap<NodeId, String>, String> {
    let mut members = BTreeMap::new();
    let mut addresses = BTreeSet::new();
    for part in list
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (id, address) = part
            .split_once('=')
            .ok_or_else(|| format!("\"{part}\" is not of the form ID=HOST:PORT"))?;
        let id: NodeId = match id.trim().parse() {
            Ok(id) if id != 0 => id,
            _ => {
                return Err(format!(
                    "\"{id}\" in \"{part}\" is no node id: a number from 1 on"
                ));
            }
        };
        let address = address.trim();
        check_address(address)?;
        if members.insert(id, address.to_string()).is_some() {
            return Err(format!(
                "node {id} is listed twice: every node needs its own id"
            ));
        }
        if !addresses.insert(address) {
            return Err(format!("the address {address} is listed twice"));
        }
    }
    match members.is_empty() {
        true => Err("the list is empty: name every node as ID=HOST:PORT".to_string()),
        false => Ok(members),
    }
}

/// Says what is wrong with an address that should be `host:port`, if anything is.
///
/// # Errors
/// A sentence.
pub fn check_address(address: &str) -> Result<(), String> {
    let (host, port) = address
        .rsplit_once(':')
        .ok_or_else(|| format!("\"{address}\" has no port: write HOST:PORT"))?;
    match port.parse::<u16>() {
        Ok(port) if port != 0 && !host.is_empty() => Ok(()),
        _ => Err(format!(
            "\"{address}\" is no address: write HOST:PORT, with a port from 1 to 65535"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_with_or_without_spaces() {
        let members = parse_members(" 3=c:3 ,1=a:1,2=[::1]:2,").unwrap();
        assert_eq!(members.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(members[&2], "[::1]:2");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = [
            ("", "empty"),
            ("1", "ID=HOST:PORT"),
            ("x=a:1", "\"x\""),
            ("0=a:1", "\"0\""),
            ("1=a", "no port"),
            ("1=a:x", "a:x"),
            ("1=a:0", "a:0"),
            ("1=:7", ":7"),
            ("1=a:99999", "a:99999"),
            ("1=a:1,1=b:2", "node 1 is listed twice"),
            ("1=a:1,2=a:1", "a:1 is listed twice"),
        ];
        for (list, names) in wrong {
            let error = parse_members(list).unwrap_err();
            assert!(error.contains(names), "{list:?}: {error}");
        }
    }
}
