//! The options of sockets that neither the standard library nor mio can set.

use std::io;
use std::time::Duration;

use mio::net::TcpStream;
use rustix::net::sockopt;

/// How long an accepted connection may be silent before the kernel probes whether the other machine
/// is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// The time between two probes, and after how many unanswered probes the kernel closes the
/// connection.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// Sets the options of an accepted socket. Keep-alive closes a connection whose other machine has
/// vanished, so that it does not occupy its place for ever.
pub(super) fn set_accepted(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(socket, KEEPALIVE_PROBES)?;
    Ok(())
}

/// Sets the options of a socket that dials a peer. If the peer's kernel does not acknowledge sent
/// bytes within `patience`, the connection ends and the peer is dialled again. Without this limit
/// the kernel would retransmit at longer and longer intervals. After a partition of some minutes,
/// the nodes would need up to two more minutes to find each other.
pub(super) fn set_dialled(socket: &TcpStream, patience: Duration) -> io::Result<()> {
    socket.set_nodelay(true)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let millis = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_tcp_user_timeout(socket, millis)?;
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = patience;
    Ok(())
}
