//! Checkers: what a history must satisfy, and the fewest operations that show that it does not.
