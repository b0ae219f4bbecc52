//! KVdb beside its peers: the same load on each, in turn, on one machine.
