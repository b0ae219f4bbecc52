//! KVdb.
fn main() {}
