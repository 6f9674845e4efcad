//! The way from one node to another, through a gate that can be shut: bytes that arrive at a shut
//! gate wait, as in a network that has been cut.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;

use parking_lot::{Condvar, Mutex};

use super::cluster::free_listener;

/// Open until it is shut.
#[derive(Clone, Default)]
pub struct Gate(Arc<State>);

#[derive(Default)]
struct State {
    shut: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    pub fn shut(&self) {
        *self.0.shut.lock() = true;
    }

    pub fn open(&self) {
        *self.0.shut.lock() = false;
        self.0.changed.notify_all();
    }

    fn pass(&self) {
        let mut shut = self.0.shut.lock();
        self.0.changed.wait_while(&mut shut, |shut| *shut);
    }

    /// Lays a way through this gate. Returns where it begins. Its threads live as long as the
    /// connections and the test program do.
    pub fn link(&self, target: &str) -> String {
        let listener = free_listener();
        let address = listener.local_addr().unwrap().to_string();
        let (gate, target) = (self.clone(), target.to_string());
        thread::spawn(move || {
            for caller in listener.incoming() {
                // Who cannot be connected sees the connection end, and dials again.
                let _ = gate.connect(caller.unwrap(), &target);
            }
        });
        address
    }

    fn connect(&self, caller: TcpStream, target: &str) -> io::Result<()> {
        let server = TcpStream::connect(target)?;
        for (from, to) in [(caller.try_clone()?, server.try_clone()?), (server, caller)] {
            let gate = self.clone();
            thread::spawn(move || gate.carry(from, to));
        }
        Ok(())
    }

    fn carry(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            self.pass();
            if to.write_all(&buffer[..len]).is_err() {
                break;
            }
        }
        self.pass();
        // Either side may be gone already.
        let _ = to.shutdown(std::net::Shutdown::Both);
        let _ = from.shutdown(std::net::Shutdown::Both);
    }
}
