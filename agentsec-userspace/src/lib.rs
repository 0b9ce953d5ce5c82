//! The daemon.
//!
//! Data flows one way: words and notices of the kernel's programs become inputs of [`core`], which decides and
//! emits commands; [`daemon`] stores the words and hands the events to [`record`]. [`config`] says what is
//! expected of whom, [`recovery`] brings agents back, [`api`] and [`cli`] are how operators see and steer it.
//!
//! ```text
//! kernel::collector ─▶ core ─▶ Command ─┬▶ kernel::enforcer
//!        ▲ api: operators               ├▶ record::journal
//!                                       └▶ api (views)
//! ```
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | agent | a named workload, known in the kernel by a dense *slot* |
//! | attachment | where an agent meets the kernel: an interface |
//! | outbound, inbound | sent by the agent, sent to the agent |
//! | endpoint | whom an agent talks to: protocol, remote address, and the remote port of what it opens or its own port of what it accepts |
//! | flow | a TCP or UDP connection of an agent, as the kernel follows it |
//! | response time | from the end of what an agent asks to the first answer |
//! | late | an answer that is missing for longer than deviates from what is normal |
//! | slow signals | what only the daemon sees of an agent, in one word that fades |
//! | signal | one measured number that feeds the score |
//! | profile | an agent's expected behaviour and limits; compiled into a *row* |
//! | risk | the composite score, per mille |
//! | CLOSED, HALF_OPEN, OPEN | passing, probing, dropping everything |
//! | trip | the transition to OPEN, by the kernel, the daemon or an operator |
//! | epoch | counts an agent's transitions; windows restart when it changes |
//! | trip sequence | counts the kernel's trips; acknowledged once logged |
//! | limit | a bound that trips by itself, whatever the score |
//! | notice | what the kernel tells at once through the ring |
//! | event | one record of what happened |
//! | recorder | the latest packets of an agent, kept in the kernel until its circuit opens |
//! | recording | what was read from one |
//! | bundle | the evidence that is collected about an agent at a trip |
//! | snapshot | an immutable, verified copy of an agent's state to recover from |
//! | point | the snapshots of a group of agents that were taken together |
//! | incident | what belongs together from a trip to CLOSED; an event's correlation id |
//!
//! Only [`daemon`] sees both sides; only [`kernel`] imports aya; [`core`] imports neither clock nor file.

pub mod api;
pub mod bundle;
pub mod cli;
pub mod clock;
pub mod config;
pub mod core;
pub mod daemon;
mod file_lock;
pub mod inspect;
pub mod kernel;
pub mod record;
pub mod recorder;
pub mod recovery;
mod whole_file;
