//! What the command line asks for.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::Failure;

/// How long no address may take a connection before the load gives up, and how late an answer may
/// be without `timeout_ms`.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// etcd itself takes requests of up to 1.5 MiB.
const MAX_VALUE: usize = 1 << 20;

/// What is asked of etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Linearizable reads of random keys.
    Get,
    /// Writes of random keys.
    Put,
    /// Each key is written once, however long that takes.
    Fill,
}

/// The load, as its options describe it.
#[derive(Debug)]
pub struct Plan {
    /// The servers, in the order in which they are tried.
    pub addresses: Vec<SocketAddr>,
    /// How many requests are under way at once.
    pub clients: usize,
    /// How many connections the clients share; from 1 to `clients`.
    pub connections: usize,
    /// What the clients ask for.
    pub kind: Kind,
    /// How many keys there are.
    pub keys: u64,
    /// The value of every key.
    pub value: Bytes,
    /// How long the load is counted. Has no meaning for [`Kind::Fill`].
    pub seconds: f64,
    /// How many requests are due in a second, at fixed times; without it each client asks again as
    /// soon as it has an answer.
    pub rate: Option<f64>,
    /// How long the load runs before it is counted. Has no meaning for [`Kind::Fill`].
    pub warm_up: f64,
    /// An answer later than this counts as a failure of its connection.
    pub timeout: Duration,
}

impl Plan {
    /// Reads the words of the command line: the addresses, then `name=value` words.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let addresses = words.next().ok_or("which servers? HOST:PORT,...")?;
        let addresses: Result<_, _> = addresses.split(',').map(str::parse).collect();
        let mut plan = Plan {
            addresses: addresses?,
            clients: 1,
            connections: 0,
            kind: Kind::Put,
            keys: 10_000,
            value: value_of(128)?,
            seconds: 10.0,
            rate: None,
            warm_up: 1.0,
            timeout: PATIENCE,
        };
        for word in words {
            let (name, value) = word.split_once('=').ok_or("options are name=value words")?;
            plan.set(name, value)?;
        }
        if plan.connections == 0 {
            plan.connections = plan.clients;
        }
        let is_time = |seconds: f64| (0.0..=1e6).contains(&seconds);
        let is_possible = plan.clients > 0
            && plan.connections <= plan.clients
            && plan.keys > 0
            && is_time(plan.seconds)
            && is_time(plan.warm_up)
            && plan.rate.is_none_or(|rate| (0.1..=1e7).contains(&rate));
        match is_possible {
            true => Ok(plan),
            false => Err("a number among the options is out of range".into()),
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Failure> {
        match name {
            "clients" => self.clients = value.parse()?,
            "connections" => self.connections = value.parse()?,
            "kind" => self.kind = kind(value)?,
            "keys" => self.keys = value.parse()?,
            "value_size" => self.value = value_of(value.parse()?)?,
            "seconds" => self.seconds = value.parse()?,
            "rate" => self.rate = Some(value.parse()?),
            "warm_up" => self.warm_up = value.parse()?,
            "timeout_ms" => self.timeout = Duration::from_millis(value.parse()?),
            _ => return Err(format!("there is no option {name}").into()),
        }
        Ok(())
    }
}

fn value_of(size: usize) -> Result<Bytes, Failure> {
    match size <= MAX_VALUE {
        true => Ok(vec![b'x'; size].into()),
        false => Err(format!("value_size is {size}, and {MAX_VALUE} is the most").into()),
    }
}

fn kind(word: &str) -> Result<Kind, Failure> {
    match word {
        "get" => Ok(Kind::Get),
        "put" => Ok(Kind::Put),
        "fill" => Ok(Kind::Fill),
        _ => Err(format!("there is no kind {word}: get, put and fill are known").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Plan, Failure> {
        Plan::parse(line.split(' ').map(str::to_owned))
    }

    #[test]
    fn options_change_what_they_name() {
        let plan = parse("127.0.0.1:1,127.0.0.1:2 kind=get clients=8 connections=2 timeout_ms=50");
        let plan = plan.expect("a command line");
        assert_eq!(plan.addresses.len(), 2);
        assert_eq!(
            (plan.kind, plan.clients, plan.connections),
            (Kind::Get, 8, 2)
        );
        assert_eq!(plan.timeout, Duration::from_millis(50));
    }

    #[test]
    fn each_client_has_a_connection_unless_told_otherwise() {
        assert_eq!(
            parse("127.0.0.1:1 clients=8")
                .expect("a command line")
                .connections,
            8
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "nowhere",
            "127.0.0.1:1 clients=0",
            "127.0.0.1:1 clients=2 connections=3",
            "127.0.0.1:1 kind=scan",
            "127.0.0.1:1 seconds=-1",
            "127.0.0.1:1 colour=red",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
