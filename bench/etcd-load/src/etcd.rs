//! etcd as a client sees it: two of its calls, over connections that lead to one server each.

use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::PathAndQuery;
use tokio::sync::Mutex;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::plan::{Kind, PATIENCE, Plan};

/// How long to wait between two rounds over all addresses.
const PAUSE: Duration = Duration::from_millis(10);

/// `PutRequest` and `RangeRequest` of etcd's `rpc.proto`, as far as they are used here: the fields
/// have the same numbers in both, and a field that is empty is not sent.
#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    /// Of a `PutRequest`. In a `RangeRequest` this number is the end of the range: it stays empty.
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// Any answer: its fields are skipped.
#[derive(Clone, PartialEq, prost::Message)]
struct Answer {}

/// One request, ready to be sent.
pub struct Request {
    path: &'static str,
    message: Message,
}

impl Request {
    /// The request of this kind of load about a key.
    pub fn new(plan: &Plan, key: u64) -> Self {
        let (path, value) = match plan.kind {
            Kind::Get => ("/etcdserverpb.KV/Range", Bytes::new()),
            Kind::Put | Kind::Fill => ("/etcdserverpb.KV/Put", plan.value.clone()),
        };
        let key = format!("b{key:015}").into();
        Request {
            path,
            message: Message { key, value },
        }
    }
}

/// Why a request did not succeed.
#[derive(Debug)]
pub enum Failed {
    /// The server answered with an error: its connection is as good as before.
    Answer,
    /// The connection broke, or the answer is late.
    Connection,
}

/// No address takes a connection.
#[derive(Debug)]
pub struct Unreachable;

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = PATIENCE.as_secs();
        write!(
            f,
            "no address has taken a connection for {seconds} s; is etcd running?"
        )
    }
}

impl std::error::Error for Unreachable {}

/// A connection that several clients share, and that is opened again when it breaks.
pub struct Line {
    plan: Rc<Plan>,
    open: Mutex<Open>,
}

struct Open {
    channel: Channel,
    /// Which address it leads to.
    place: usize,
    /// How many connections there were before this one.
    attempt: u64,
}

impl Line {
    /// Opens a connection to the first address that takes one.
    pub async fn open(plan: Rc<Plan>) -> Result<Self, Unreachable> {
        let (channel, place) = connect(&plan, 0).await?;
        let open = Mutex::new(Open {
            channel,
            place,
            attempt: 0,
        });
        Ok(Line { plan, open })
    }

    /// The connection, and its number for [`Line::reopen`]. Waits while it is being opened again.
    pub async fn channel(&self) -> (Channel, u64) {
        let open = self.open.lock().await;
        (open.channel.clone(), open.attempt)
    }

    /// Sends a request and waits for its answer.
    pub async fn call(&self, channel: Channel, request: Request) -> Result<(), Failed> {
        let call = async {
            let mut grpc = Grpc::new(channel);
            grpc.ready().await.map_err(|_| Failed::Connection)?;
            let message = tonic::Request::new(request.message);
            let path = PathAndQuery::from_static(request.path);
            let codec = ProstCodec::<Message, Answer>::default();
            let answer = grpc.unary(message, path, codec).await;
            match answer {
                Ok(_) => Ok(()),
                // A status that the client's own side made has an error as its source.
                Err(status) if std::error::Error::source(&status).is_some() => {
                    Err(Failed::Connection)
                }
                Err(_) => Err(Failed::Answer),
            }
        };
        let answer = tokio::time::timeout(self.plan.timeout, call).await;
        answer.unwrap_or(Err(Failed::Connection))
    }

    /// Opens the connection again, at the next address. Does nothing if the connection with this
    /// number has been replaced already: all its clients see it break.
    pub async fn reopen(&self, attempt: u64) -> Result<(), Unreachable> {
        let mut open = self.open.lock().await;
        if open.attempt == attempt {
            let (channel, place) = connect(&self.plan, open.place + 1).await?;
            *open = Open {
                channel,
                place,
                attempt: attempt + 1,
            };
        }
        Ok(())
    }
}

/// Connects to the first address that takes a connection, from this place of the list on.
async fn connect(plan: &Plan, first: usize) -> Result<(Channel, usize), Unreachable> {
    let begun = Instant::now();
    let count = plan.addresses.len();
    while begun.elapsed() < PATIENCE {
        for step in 0..count {
            let place = (first + step) % count;
            let endpoint = Endpoint::from_shared(format!("http://{}", plan.addresses[place]));
            let endpoint = endpoint
                .expect("an address and a port are a URI")
                .connect_timeout(plan.timeout)
                .tcp_nodelay(true)
                .initial_stream_window_size(16 << 20)
                .initial_connection_window_size(16 << 20);
            if let Ok(channel) = endpoint.connect().await {
                return Ok((channel, place));
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(Unreachable)
}
