//! Real clusters of the built binary, real faults, and what must hold.
