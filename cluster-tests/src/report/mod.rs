//! Reports: a page for each run, and an index of them.
