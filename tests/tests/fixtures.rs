//! The fixtures themselves, so that the tests that rest on them test the daemon and not the fixtures.
#![expect(missing_docs, reason = "the names of tests say it")]

use std::time::{Duration, Instant};

use agentsec_tests::lab::Lab;
use agentsec_tests::link::{self, Noise};
use agentsec_tests::netns::Namespace;
use agentsec_tests::wait;
use anyhow::Result;

#[test]
fn a_thousand_agents() -> Result<()> {
    let start = Instant::now();
    let lab = Lab::many(1000)?;
    println!("1,000 links in {:?}", start.elapsed());
    assert_eq!(link::counters_of_all(lab.host())?.len(), 1002);
    let start = Instant::now();
    drop(lab);
    println!("gone in {:?}", start.elapsed());
    Ok(())
}
#[test]
fn two() -> Result<()> {
    let start = Instant::now();
    let lab = Lab::routed(2)?;
    println!("2 agents in {:?}", start.elapsed());
    let start = Instant::now();
    let lab = Lab::bridged(2)?;
    println!("2 bridged agents in {:?}", start.elapsed());
    Ok(())
}
