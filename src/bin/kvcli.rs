//! The interactive shell of raftkv.

fn main() {}
