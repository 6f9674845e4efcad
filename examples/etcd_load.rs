//! Puts load on an etcd cluster, for comparison: what `kvcli bench` is for this store.
//!
//! ```console
//! $ cargo run --release --example etcd_load -- 127.0.0.1:2379,127.0.0.1:22379 clients=64 kind=put
//! ```
//!
//! Debian has etcd, but no tool that loads it. This one speaks gRPC as etcd's own clients do, with
//! one thread over non-blocking sockets, so that it takes no more of a small machine than what it
//! is compared with. It knows just enough of HTTP/2 for unary calls of up to 32 KiB. Clients talk
//! to the first address and turn to the next when a connection breaks or an answer is later than
//! `timeout_ms`; what was under way there has failed. Options are `name=value` words, see
//! `Plan::parse`. The result is one line of such words, named as by `kvcli -o raw bench`.

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

type Failure = Box<dyn Error>;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The kinds of frames, as RFC 9113 section 6 numbers them.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What either side may send before it is told that there is more room, in bytes.
const FIRST_WINDOW: i64 = 65_535;
const OUR_WINDOW: u32 = 16 << 20;
/// The largest payload of a frame, in bytes.
const MAX_FRAME: usize = 16_384;
const MAX_VALUE: usize = 32 << 10;
/// How often it looks at the clock.
const TICK: Duration = Duration::from_millis(10);
/// How long no address may take a connection.
const PATIENCE: Duration = Duration::from_secs(10);

struct Plan {
    addresses: Vec<SocketAddr>,
    clients: usize,
    connections: usize,
    is_get: bool,
    /// Each key once, instead of for a time.
    fill: bool,
    keys: u64,
    value_size: usize,
    seconds: f64,
    warm_up: f64,
    timeout: Duration,
}

impl Plan {
    fn parse() -> Result<Self, Failure> {
        let mut words = std::env::args().skip(1);
        let addresses = words.next().ok_or("which servers? HOST:PORT,...")?;
        let addresses: Result<_, _> = addresses.split(',').map(str::parse).collect();
        let mut plan = Plan {
            addresses: addresses?,
            clients: 1,
            connections: 0,
            is_get: false,
            fill: false,
            keys: 10_000,
            value_size: 128,
            seconds: 10.0,
            warm_up: 1.0,
            timeout: PATIENCE,
        };
        for word in words {
            let (name, value) = word.split_once('=').ok_or("options are name=value words")?;
            match name {
                "clients" => plan.clients = value.parse()?,
                "connections" => plan.connections = value.parse()?,
                "kind" => (plan.is_get, plan.fill) = (value == "get", value == "fill"),
                "keys" => plan.keys = value.parse()?,
                "value_size" => plan.value_size = value.parse()?,
                "seconds" => plan.seconds = value.parse()?,
                "warm_up" => plan.warm_up = value.parse()?,
                "timeout_ms" => plan.timeout = Duration::from_millis(value.parse()?),
                _ => return Err(format!("there is no option {name}").into()),
            }
        }
        if plan.connections == 0 {
            plan.connections = plan.clients;
        }
        let sizes = plan.clients > 0 && plan.keys > 0 && plan.value_size <= MAX_VALUE;
        let is_possible = sizes && plan.connections <= plan.clients;
        let error = "clients, keys, connections or value_size are out of range";
        is_possible.then_some(plan).ok_or(error.into())
    }
}

/// A protobuf field of bytes.
fn field(number: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    let mut len = bytes.len();
    while len >= 128 {
        out.push(len as u8 | 128);
        len >>= 7;
    }
    out.push(len as u8);
    out.extend_from_slice(bytes);
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// The header block of every request, by RFC 7541 without its dynamic table.
fn header_block(path: &str) -> Vec<u8> {
    // POST and http are whole entries of the static table; 4, 1 and 31 are its names.
    let mut block = vec![0x83, 0x86, 0x04, path.len() as u8];
    block.extend_from_slice(path.as_bytes());
    for (head, value) in [
        (&[0x01][..], "etcd"),
        (&[0x0f, 0x10], "application/grpc"),
        (&[0x00, 2, b't', b'e'], "trailers"),
    ] {
        block.extend_from_slice(head);
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
    }
    block
}

struct Call {
    client: usize,
    begun: Instant,
    has_data: bool,
}

struct Connection {
    stream: TcpStream,
    out: Vec<u8>,
    rest: Vec<u8>,
    calls: HashMap<u32, Call>,
    next_stream: u32,
    /// What may be sent, and what has been received and not been made room for.
    window: i64,
    received: u32,
    /// Bodies that wait for the window.
    held: Vec<(u32, Vec<u8>)>,
}

impl Connection {
    fn open(address: SocketAddr, poll: &Poll, token: Token) -> std::io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, token, interest)?;
        let mut out = PREFACE.to_vec();
        let mut settings = vec![0, 4];
        settings.extend_from_slice(&OUR_WINDOW.to_be_bytes());
        frame(SETTINGS, 0, 0, &settings, &mut out);
        let more = OUR_WINDOW - FIRST_WINDOW as u32;
        frame(WINDOW_UPDATE, 0, 0, &more.to_be_bytes(), &mut out);
        Ok(Connection {
            stream,
            out,
            rest: Vec::new(),
            calls: HashMap::new(),
            next_stream: 1,
            window: FIRST_WINDOW,
            received: 0,
            held: Vec::new(),
        })
    }

    fn call(&mut self, headers: &[u8], message: &[u8], call: Call) {
        let stream = self.next_stream;
        self.next_stream += 2;
        self.calls.insert(stream, call);
        frame(HEADERS, END_HEADERS, stream, headers, &mut self.out);
        let mut body = vec![0];
        body.extend_from_slice(&(message.len() as u32).to_be_bytes());
        body.extend_from_slice(message);
        self.held.push((stream, body));
        self.send_held();
    }

    /// Sends the bodies for which there is room.
    fn send_held(&mut self) {
        let fits = |window: &mut i64, body: &Vec<u8>| {
            *window -= body.len() as i64;
            *window >= 0
        };
        let mut window = self.window;
        let held = self.held.iter();
        let count = held.take_while(|(_, body)| fits(&mut window, body)).count();
        for (stream, body) in self.held.drain(..count) {
            self.window -= body.len() as i64;
            let chunks = body.chunks(MAX_FRAME);
            let last = chunks.len() - 1;
            for (place, chunk) in chunks.enumerate() {
                let flags = if place == last { END_STREAM } else { 0 };
                frame(DATA, flags, stream, chunk, &mut self.out);
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if is_not_yet(error.kind()) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what is there; each call that has ended goes into `ended`, with its success.
    fn read(&mut self, ended: &mut Vec<(Call, bool)>) -> Result<(), Failure> {
        let mut scratch = [0; 64 << 10];
        loop {
            match self.stream.read(&mut scratch) {
                Ok(0) => return Err("closed".into()),
                Ok(count) => self.rest.extend_from_slice(&scratch[..count]),
                Err(error) if is_not_yet(error.kind()) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            let bytes = std::mem::take(&mut self.rest);
            let mut rest = &bytes[..];
            while let Some((head, after)) = rest.split_first_chunk::<9>() {
                let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *head;
                let len = u32::from_be_bytes([0, l0, l1, l2]) as usize;
                let Some(payload) = after.get(..len) else {
                    break;
                };
                let stream = u32::from_be_bytes([s0, s1, s2, s3]);
                self.frame(kind, flags, stream, payload, ended)?;
                rest = &after[len..];
            }
            self.rest = rest.to_vec();
        }
    }

    fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
        ended: &mut Vec<(Call, bool)>,
    ) -> Result<(), Failure> {
        match kind {
            DATA => {
                self.received += payload.len() as u32;
                if self.received > OUR_WINDOW / 2 {
                    let more = self.received.to_be_bytes();
                    frame(WINDOW_UPDATE, 0, 0, &more, &mut self.out);
                    self.received = 0;
                }
                if let Some(call) = self.calls.get_mut(&stream) {
                    call.has_data |= !payload.is_empty();
                }
            }
            SETTINGS if flags & ACK == 0 => frame(SETTINGS, ACK, 0, &[], &mut self.out),
            PING if flags & ACK == 0 => frame(PING, ACK, 0, payload, &mut self.out),
            WINDOW_UPDATE if stream == 0 => {
                let more: [u8; 4] = payload.try_into()?;
                self.window += i64::from(u32::from_be_bytes(more));
                self.send_held();
            }
            GOAWAY => return Err("the server says go away".into()),
            _ => {}
        }
        // A call that failed ends with trailers and no message.
        let ends = kind == RST_STREAM || kind == HEADERS && flags & END_STREAM != 0;
        if ends && let Some(call) = self.calls.remove(&stream) {
            let has_data = call.has_data;
            ended.push((call, has_data && kind == HEADERS));
        }
        Ok(())
    }
}

fn is_not_yet(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted
    )
}

struct Run {
    plan: Plan,
    headers: Vec<u8>,
    value: Vec<u8>,
    random: u64,
    asked: u64,
    start: Instant,
    end: Instant,
    latencies: Histogram<u64>,
    in_time: u64,
    failures: u64,
    /// Of each client, when it last succeeded.
    seen: Vec<Instant>,
    gap: Duration,
}

impl Run {
    fn message(&mut self) -> Vec<u8> {
        // A xorshift: any spread over the keys will do.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let key = match self.plan.fill {
            true => self.asked % self.plan.keys,
            false => self.random % self.plan.keys,
        };
        self.asked += 1;
        let mut message = Vec::new();
        field(1, format!("b{key:015}").as_bytes(), &mut message);
        if !self.plan.is_get {
            field(2, &self.value, &mut message);
        }
        message
    }

    fn is_over(&self, now: Instant) -> bool {
        match self.plan.fill {
            true => self.asked >= self.plan.keys,
            false => now >= self.end,
        }
    }

    fn ended(&mut self, call: &Call, success: bool, now: Instant) {
        if success && now >= self.start {
            let before = std::mem::replace(&mut self.seen[call.client], now);
            self.gap = self.gap.max(now.duration_since(before.max(self.start)));
        }
        if call.begun < self.start {
            return;
        }
        if !success {
            self.failures += 1;
            return;
        }
        let latency = now.duration_since(call.begun).as_nanos() as u64;
        self.latencies.saturating_record(latency);
        self.in_time += u64::from(self.plan.fill || now <= self.end);
    }

    fn report(&self, ended: Instant) -> String {
        let us = |quantile| self.latencies.value_at_quantile(quantile) as f64 / 1000.0;
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(us);
        let until = if self.plan.fill { ended } else { self.end };
        let seconds = until.duration_since(self.start).as_secs_f64();
        // A gap that has not ended counts as well.
        let open = self.seen.iter().map(|seen| until.duration_since(*seen));
        let gap = open.fold(self.gap, Duration::max).as_secs_f64() * 1000.0;
        format!(
            "throughput={:.0} requests={} failures={} seconds={seconds:.3} p50_us={p50:.1} \
             p99_us={p99:.1} max_us={max:.1} client_gap_ms={gap:.1}",
            self.in_time as f64 / seconds,
            self.latencies.len(),
            self.failures,
        )
    }
}

struct Load {
    run: Run,
    poll: Poll,
    connections: Vec<Connection>,
    /// Which address is used.
    address: usize,
    /// Clients that have nothing under way, in the order in which they became free.
    free: VecDeque<usize>,
}

impl Load {
    /// Gives free clients something to do.
    fn feed(&mut self) {
        let now = Instant::now();
        while !self.run.is_over(now)
            && let Some(client) = self.free.pop_front()
        {
            let message = self.run.message();
            let call = Call {
                client,
                begun: now,
                has_data: false,
            };
            let place = client % self.connections.len();
            self.connections[place].call(&self.run.headers, &message, call);
        }
    }

    /// Whether the first answer takes too long.
    fn is_late(&self, place: usize) -> bool {
        let mut calls = self.connections[place].calls.values();
        self.run.plan.timeout < PATIENCE
            && calls.any(|call| call.begun.elapsed() > self.run.plan.timeout)
    }

    /// Opens a connection again, at the next address if this one has just failed.
    fn reopen(&mut self, place: usize) -> Result<(), Failure> {
        let begun = Instant::now();
        let (poll, token) = (&self.poll, Token(place));
        // Its socket closes here, which takes it out of the events.
        let calls = std::mem::take(&mut self.connections[place].calls);
        self.address = (self.address + 1) % self.run.plan.addresses.len();
        self.connections[place] = loop {
            match Connection::open(self.run.plan.addresses[self.address], poll, token) {
                Ok(connection) => break connection,
                Err(error) if begun.elapsed() > PATIENCE => return Err(error.into()),
                Err(_) => self.address = (self.address + 1) % self.run.plan.addresses.len(),
            }
        };
        for call in calls.into_values() {
            self.run.ended(&call, false, begun);
            self.free.push_back(call.client);
        }
        Ok(())
    }

    fn go(&mut self) -> Result<(), Failure> {
        let mut events = Events::with_capacity(1024);
        let mut ended = Vec::new();
        loop {
            self.feed();
            if self.run.is_over(Instant::now()) && self.free.len() == self.run.plan.clients {
                return Ok(());
            }
            for place in 0..self.connections.len() {
                let broken = self.connections[place].flush().is_err();
                if broken || self.is_late(place) {
                    self.reopen(place)?;
                }
            }
            self.poll.poll(&mut events, Some(TICK))?;
            for event in &events {
                let place = event.token().0;
                let read = self.connections[place].read(&mut ended);
                let now = Instant::now();
                for (call, success) in ended.drain(..) {
                    self.run.ended(&call, success, now);
                    self.free.push_back(call.client);
                }
                if read.is_err() {
                    self.reopen(place)?;
                }
            }
        }
    }
}

fn main() -> Result<(), Failure> {
    let plan = Plan::parse()?;
    let poll = Poll::new()?;
    let connections = (0..plan.connections)
        .map(|place| Connection::open(plan.addresses[0], &poll, Token(place)))
        .collect::<Result<_, _>>()?;
    let begun = Instant::now();
    let warm_up = if plan.fill { 0.0 } else { plan.warm_up };
    let start = begun + Duration::from_secs_f64(warm_up);
    let path = match plan.is_get {
        true => "/etcdserverpb.KV/Range",
        false => "/etcdserverpb.KV/Put",
    };
    let mut load = Load {
        poll,
        connections,
        address: 0,
        free: (0..plan.clients).collect(),
        run: Run {
            headers: header_block(path),
            value: vec![b'x'; plan.value_size],
            random: 0x9e37_79b9_7f4a_7c15,
            asked: 0,
            start,
            end: start + Duration::from_secs_f64(plan.seconds),
            latencies: Histogram::new_with_bounds(100, 3_600_000_000_000, 3)?,
            in_time: 0,
            failures: 0,
            seen: vec![begun; plan.clients],
            gap: Duration::ZERO,
            plan,
        },
    };
    load.go()?;
    println!("{}", load.run.report(Instant::now()));
    Ok(())
}
