//! What fuzzers feed: every parser of bytes that somebody else has written.
//!
//! The targets are plain functions, so that two can run them: a test over the committed corpora with some mutations
//! (`tests/tests/fuzz_corpora.rs`), and libFuzzer (`cargo xtask fuzz`, which builds `tests/fuzz` around the same file).

pub use agentsec::inspect;

pub mod targets;
