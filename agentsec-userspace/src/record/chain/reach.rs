//! Earliest arrivals along contacts in time.

use super::contact::Contact;
use super::story::AgentNumber;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Where something arrived first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When, milliseconds since 1970.
    pub at: u64,
    /// Through which contact; `None` where it began.
    pub through: Option<u32>,
    /// How many contacts it took.
    pub hops: u32,
}

/// The first arrival at each agent of something that is with `start` at `at`. A contact carries it if it is not over
/// when it comes, and takes no time. It does not go to an agent that `admits` refuses at that time; who admits
/// it at one time has to admit it earlier as well.
pub fn earliest(
    agents: usize,
    contacts: &[Contact],
    start: AgentNumber,
    at: u64,
    admits: impl Fn(AgentNumber, u64) -> bool,
) -> Vec<Option<Arrival>> {
    let (first, order) = by_opener(agents, contacts);
    let mut arrivals: Vec<Option<Arrival>> = vec![None; agents];
    let mut done = vec![false; agents];
    arrivals[start as usize] = Some(Arrival { at, through: None, hops: 0 });
    let mut queue = BinaryHeap::from([Reverse((at, 0, start))]);
    while let Some(Reverse((now, hops, agent))) = queue.pop() {
        let agent = agent as usize;
        if std::mem::replace(&mut done[agent], true) {
            continue;
        }
        for &number in &order[first[agent] as usize..first[agent + 1] as usize] {
            let contact = &contacts[number as usize];
            let then = contact.span.0.max(now);
            let to = contact.to as usize;
            let is_late = arrivals[to].is_some_and(|known| (known.at, known.hops) <= (then, hops + 1));
            if contact.span.1 < now || done[to] || is_late || !admits(contact.to, then) {
                continue;
            }
            arrivals[to] = Some(Arrival { at: then, through: Some(number), hops: hops + 1 });
            queue.push(Reverse((then, hops + 1, contact.to)));
        }
    }
    arrivals
}

/// The numbers of all contacts, those of one opener together: where each one's begin, and the numbers.
fn by_opener(agents: usize, contacts: &[Contact]) -> (Vec<u32>, Vec<u32>) {
    let mut first = vec![0; agents + 1];
    for contact in contacts {
        first[contact.from as usize + 1] += 1;
    }
    for agent in 0..agents {
        first[agent + 1] += first[agent];
    }
    let mut next = first.clone();
    let mut order = vec![0; contacts.len()];
    for (number, contact) in contacts.iter().enumerate() {
        let place = &mut next[contact.from as usize];
        order[*place as usize] = number as u32;
        *place += 1;
    }
    (first, order)
}
