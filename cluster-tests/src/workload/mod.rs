//! Workloads: what clients do while faults happen, recorded as a history.
