//! How long our programs take for a packet, beside the least that any filter with a count takes.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use agentsec_common::maps::{PROGRAM_INBOUND, PROGRAM_OUTBOUND};
use agentsec_common::policy::State;
use anyhow::{Context, Result, ensure};

use super::Options;
use super::object::{self, Expected, Object};
use super::row::Row;
use super::statistics::{Random, median};
use super::timing::{REPEAT, ROUNDS, time};
use super::yardstick::{self, By, Driver, Layer, NEXT, SHOT, Stop};
use crate::traffic::frames::{self, Path};

const AGENTS: u32 = 1000;
const ENDPOINTS_PER_AGENT: u32 = 16;
/// A power of two above `AGENTS * ENDPOINTS_PER_AGENT`; a few endpoints come twice in a round.
const STOPS: usize = 16_384;
/// Several times round, so that most packets find in the caches what belongs there.
const _: () = assert!(REPEAT as usize == 4 * STOPS);

const OPEN_TARGET: f64 = 1.0;
const CLOSED_TARGET: f64 = 2.5;

/// Measures.
pub(super) fn run(options: &Options) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut objects = vec![("", agentsec::kernel::OBJECT.to_vec())];
    if let Some(path) = &options.against {
        let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        objects.push(("other build: ", bytes));
    }
    for (_, bytes) in &objects {
        rows.extend(sizes(bytes)?);
    }
    rows.extend(one_flow(&objects)?);
    rows.extend(many_flows(&objects)?);
    Ok(rows)
}

fn sizes(bytes: &[u8]) -> Result<Vec<Row>> {
    let object = Object::load(bytes, 1, State::Closed, Expected::Everything)?;
    let mut rows = Vec::new();
    for name in [PROGRAM_OUTBOUND, PROGRAM_INBOUND] {
        let (verified, loaded, jited) = object.sizes(name)?;
        let measured = format!("{} instructions, {jited} B of code, {verified} verified", loaded / 8);
        rows.push(Row::information("program", format!("size of {name}"), measured));
    }
    let time = format!("{:.1} ms", object.load_time.as_secs_f64() * 1e3);
    rows.push(Row::information("program", "time to verify and compile one program", time));
    Ok(rows)
}

/// One program in one situation.
struct Subject {
    what: String,
    target: Option<f64>,
    frame: Vec<u8>,
    program: &'static str,
    object: Object,
    agents: u32,
    verdict: i32,
    driver: Option<Driver>,
}

impl Subject {
    fn program(&self) -> Result<BorrowedFd<'_>> {
        match &self.driver {
            Some(driver) => Ok(driver.program().as_fd()),
            None => self.object.program(self.program),
        }
    }

    fn ns(&self) -> Result<f64> {
        time(self.program()?, &self.frame, self.verdict)
    }

    /// That every repetition was a packet of a known agent, and came to what it should.
    fn check(&mut self, packets: u64) -> Result<()> {
        let (passed, dropped) = self.object.counted(self.agents)?;
        let expected = if self.verdict == NEXT { (packets, 0) } else { (0, packets) };
        ensure!((passed, dropped) == expected, "{}: {passed} passed, {dropped} dropped", self.what);
        if self.verdict == NEXT { self.object.ensure_untripped(self.agents) } else { Ok(()) }
    }
}

fn one_flow(objects: &[(&'static str, Vec<u8>)]) -> Result<Vec<Row>> {
    use Expected::{Everything, Nothing};
    let situations = [
        ("OPEN, one flow", State::Open, Everything, PROGRAM_OUTBOUND, Some(OPEN_TARGET)),
        ("CLOSED, one flow", State::Closed, Everything, PROGRAM_OUTBOUND, Some(CLOSED_TARGET)),
        ("CLOSED, one flow, inbound", State::Closed, Everything, PROGRAM_INBOUND, None),
        ("CLOSED, one flow to an unusual endpoint", State::Closed, Nothing, PROGRAM_OUTBOUND, None),
    ];
    let stop = stop(0, 0);
    let mut subjects = Vec::new();
    for (what, state, expected, program, target) in situations {
        for (label, bytes) in objects {
            subjects.push(Subject {
                what: format!("{label}{what}"),
                target: target.filter(|_| label.is_empty()),
                frame: frame(&stop, program == PROGRAM_INBOUND),
                program,
                object: Object::load(bytes, 1, state, expected)?,
                agents: 1,
                verdict: if state == State::Open { SHOT } else { NEXT },
                driver: None,
            });
        }
    }
    let minimal = yardstick::minimal(Layer::Frame, By::Source, &[stop.source.into()])?;
    compare(subjects, &yardstick::empty(Layer::Frame)?, &minimal, &frame(&stop, false))
}

/// The minimal program looks up what ours must look up as well: whose packet it is when everything of the agent is
/// dropped, else the endpoint. Against the smaller set it is measured, too.
fn many_flows(objects: &[(&'static str, Vec<u8>)]) -> Result<Vec<Row>> {
    let agents: Vec<_> = (0..AGENTS).map(|agent| Ipv4Addr::from(stop(agent, 0).source)).collect();
    let stops = round_trip();
    let mut endpoints: Vec<_> = stops.iter().map(|stop| Ipv4Addr::from(stop.destination)).collect();
    endpoints.sort_unstable();
    endpoints.dedup();
    let mixes = [
        ("OPEN, 1,000 agents at random", State::Open, By::Source, Some(OPEN_TARGET)),
        (
            "CLOSED, 1,000 agents and 16,000 endpoints at random",
            State::Closed,
            By::Destination,
            Some(CLOSED_TARGET),
        ),
        ("the same against a hash of 1,000 addresses", State::Closed, By::Source, None),
    ];
    let mut rows = Vec::new();
    for (what, state, by, target) in mixes {
        let mut subjects = Vec::new();
        for (label, bytes) in objects {
            let target = target.filter(|_| label.is_empty());
            subjects.push(mixed(format!("{label}{what}"), bytes, state, target, &stops)?);
        }
        let addresses = if matches!(by, By::Source) { &agents } else { &endpoints };
        let minimal = yardstick::minimal(Layer::Frame, by, addresses)?;
        let (for_empty, for_minimal) = (Driver::new(&stops)?, Driver::new(&stops)?);
        for_empty.aim(yardstick::empty(Layer::Frame)?.as_fd())?;
        for_minimal.aim(minimal.as_fd())?;
        rows.extend(compare(subjects, for_empty.program(), for_minimal.program(), &frame(&stops[0], false))?);
    }
    Ok(rows)
}

/// A thousand agents in one state, driven through all `stops`.
fn mixed(what: String, bytes: &[u8], state: State, target: Option<f64>, stops: &[Stop]) -> Result<Subject> {
    let object = Object::load(&object::by_mark(bytes)?, AGENTS, state, Expected::Everything)?;
    let driver = Driver::new(stops)?;
    driver.aim(object.program(PROGRAM_OUTBOUND)?)?;
    Ok(Subject {
        what,
        target,
        frame: frame(&stops[0], false),
        program: PROGRAM_OUTBOUND,
        object,
        agents: AGENTS,
        verdict: if state == State::Open { SHOT } else { NEXT },
        driver: Some(driver),
    })
}

/// Measures all in turn, round after round, and compares within each round. `empty` is what drives, with nothing
/// behind it.
fn compare(subjects: Vec<Subject>, empty: &OwnedFd, minimal: &OwnedFd, frame: &[u8]) -> Result<Vec<Row>> {
    let nothing = yardstick::empty(Layer::Frame)?;
    let mut measured: Vec<Vec<Measured>> = subjects.iter().map(|_| Vec::new()).collect();
    // The first round fills caches and makes the endpoints' entries.
    for round in 0..=ROUNDS {
        let bare = time(nothing.as_fd(), frame, NEXT)?;
        let empty = time(empty.as_fd(), frame, NEXT)?;
        let minimal = time(minimal.as_fd(), frame, SHOT)?;
        for (subject, measured) in subjects.iter().zip(&mut measured) {
            let ns = subject.ns()?;
            if round > 0 {
                measured.push(Measured { bare, minimal: minimal - empty, ours: ns - empty });
            }
        }
    }
    let mut rows = Vec::new();
    for (mut subject, measured) in subjects.into_iter().zip(measured) {
        subject.check((ROUNDS as u64 + 1) * u64::from(REPEAT))?;
        rows.push(row(&subject, &measured));
    }
    Ok(rows)
}

/// Nanoseconds in one round.
struct Measured {
    /// The loop around a program that does nothing.
    bare: f64,
    /// The minimal program, net of that and of the driver.
    minimal: f64,
    /// Ours, likewise.
    ours: f64,
}

fn row(subject: &Subject, measured: &[Measured]) -> Row {
    let of = |value: fn(&Measured) -> f64| median(measured.iter().map(value));
    // What BPF_PROG_TEST_RUN tells of a program includes its loop.
    let ratio = of(|round| (round.ours + round.bare) / (round.minimal + round.bare));
    let text = format!(
        "{ratio:.2}× the minimal program; {:.2}× net of the loop ({:.0} ns against {:.0} ns, the loop {:.0} ns)",
        of(|round| round.ours / round.minimal),
        of(|round| round.ours),
        of(|round| round.minimal),
        of(|round| round.bare),
    );
    match subject.target {
        Some(target) => Row::at_most("program", subject.what.clone(), text, ratio, target, "×"),
        None => Row::information("program", subject.what.clone(), text),
    }
}

/// One endpoint of an agent.
pub(super) fn stop(agent: u32, endpoint: u32) -> Stop {
    let flow = agent * ENDPOINTS_PER_AGENT + endpoint;
    Stop {
        source: Ipv4Addr::from(0x0a40_0002 + 4 * agent).octets(),
        destination: Ipv4Addr::from(0x0a50_0000 + flow).octets(),
        ports: [(40_000 + endpoint as u16).to_be_bytes(), 443u16.to_be_bytes()],
        mark: agent + 1,
    }
}

/// All endpoints of all agents in no order.
fn round_trip() -> Vec<Stop> {
    let flows = AGENTS * ENDPOINTS_PER_AGENT;
    let at = |flow: u32| stop(flow / ENDPOINTS_PER_AGENT, flow % ENDPOINTS_PER_AGENT);
    let mut stops: Vec<_> = (0..STOPS as u32).map(|flow| at(flow % flows)).collect();
    Random::new(1).shuffle(&mut stops);
    stops
}

/// A segment of an established connection.
pub(super) fn frame(stop: &Stop, inbound: bool) -> Vec<u8> {
    const ACK: u8 = 1 << 4;
    let port = |index: usize| u16::from_be_bytes(stop.ports[index]);
    let (agent, remote) = ((stop.source.into(), port(0)), (stop.destination.into(), port(1)));
    let (from, to) = if inbound { (remote, agent) } else { (agent, remote) };
    let path = Path { from: [2, 0, 0, 0, 0, 1], to: [2, 0, 0, 0, 0, 2] };
    path.frame(frames::IPV4, &frames::tcp4(from, to, ACK, &[0x5a; 100]))
}
