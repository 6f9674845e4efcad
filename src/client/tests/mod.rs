//! The Clerk as a whole: over a transport that executes and loses, and over real sockets.

mod exactly_once;
