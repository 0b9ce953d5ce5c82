//! What the kernel programs and the daemon agree on.
//!
//! Everything here is pure: values in, values out. The same functions are compiled into the BPF object and
//! into the daemon, so both compute the same score and the same verdict from the same numbers. Atomics, maps
//! and packets live in `agentsec-ebpf`; files, sockets and clocks in `agentsec-userspace`.
//!
//! # Who writes what
//!
//! Every word in a map has exactly one writer.
//!
//! | map | value | written by | read by |
//! |---|---|---|---|
//! | [`maps::POLICY`] | [`policy::Policy`] | daemon | kernel |
//! | [`maps::PROFILES`] | [`profile::Profile`], never changed while referenced | daemon | kernel |
//! | [`maps::TYPICAL`] | [`typical::PortRules`], keyed by profile row | daemon | kernel |
//! | [`maps::IDENTITY_NEAR`], [`maps::IDENTITY_FAR`] | [`agent::Identity`] word | daemon | kernel |
//! | [`maps::IDENTITY_CGROUP`], [`maps::IDENTITY_IPV4`], [`maps::IDENTITY_IPV6`], [`maps::IDENTITY_PREFIX`] | [`agent::Identity`] word, never replaced | daemon | kernel |
//! | [`maps::SCOPE`] | [`agent::Scope`] | daemon | kernel |
//! | [`maps::RECENT`] | [`agent::Recent`], per CPU | kernel | kernel |
//! | [`maps::COVERED`] | one, by cookie | daemon | kernel |
//! | [`maps::AGENTS`] | [`agent::AgentName`] | daemon | daemon, break-glass commands |
//! | [`maps::LEDGER`] | [`ledger::Ledger`] | kernel | daemon |
//! | [`maps::COUNTERS`], [`maps::STRAYS`] | [`counters::Counters`], [`counters::Strays`], per CPU | kernel | daemon |
//! | [`maps::ENDPOINTS`] | [`endpoint::Endpoint`] | kernel; the daemon only deletes idle ones | both |
//! | [`maps::FLOWS`] | [`flow::Flow`], each word by packets of one direction | kernel; the daemon only deletes idle ones | both |
//! | [`maps::TIMES`] | histogram of response times, [`times`] | kernel | daemon |
//! | [`maps::RESPONSES`] | [`sample::Responses`] | kernel; the daemon only deletes those of endpoints that it deletes | daemon |
//! | [`maps::RECORDS`] | [`recorder::Entry`] | kernel | daemon |
//! | [`maps::NOTICES`] | [`notice::Notice`] | kernel | daemon |
//! | [`maps::SAMPLES`] | [`sample::Sample`] | kernel | daemon |
//! | [`maps::FLOW_RECORDS`] | [`flow::FlowRecord`], [`flow::OpeningRecord`] | kernel | daemon |
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_op_in_unsafe_fn)]

pub mod agent;
pub mod auth;
pub mod bucket;
pub mod counters;
pub mod endpoint;
pub mod flow;
pub mod gate;
pub mod ledger;
pub mod maps;
pub mod notice;
pub mod packet;
pub mod payload;
pub mod policy;
pub mod profile;
pub mod recorder;
pub mod risk;
pub mod sample;
pub mod times;
pub mod typical;
pub mod window;

/// Implements aya's `Pod` for types whose every bit pattern is valid and that have no implicit padding.
#[cfg(feature = "user")]
macro_rules! pod {
    ($($type:ty),+ $(,)?) => {$(
        // SAFETY: `repr(C)` of integers only; the size assertion beside each type shows that it has no padding.
        unsafe impl aya::Pod for $type {}
    )+};
}

#[cfg(feature = "user")]
pod!(
    agent::AgentName,
    agent::LinkAddress,
    agent::LinkIpv4,
    agent::Recent,
    agent::Scope,
    counters::Counters,
    counters::Strays,
    endpoint::EndpointKey,
    endpoint::Endpoint,
    flow::FlowKey,
    flow::Flow,
    flow::FlowRecord,
    flow::OpeningRecord,
    ledger::Ledger,
    notice::Notice,
    policy::Policy,
    profile::Profile,
    recorder::Entry,
    sample::Sample,
    sample::Responses,
    typical::TypicalKey,
    typical::PortRules,
);
