//! The demo: four agents at work, two of which turn bad, are contained by the kernel, and come back.
//!
//! [`run`] makes a lab of its own, with the real daemon in it, and takes everything away in the end, also when it
//! is interrupted. What it claims is measured on both sides of the hook: see [`HELP`] for what each number means.

mod agents;
mod interrupt;
mod keep;
mod measure;
mod plan;
mod report;
mod terminal;
mod watch;

pub use interrupt::Interrupted;
pub use keep::down;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::daemon::{Daemon, Launch};
use crate::lab::{Lab, Plan};
use agents::{Journal, Scouting, Services, Theft, Work};
use measure::Gauge;
use plan::{PARTS, SCOUT, THIEF};
use report::{Report, Times};
use terminal::{Screen, Tone};
use watch::Watch;

/// What the numbers mean, for `--help`.
pub const HELP: &str = "\
--json prints one object. Its numbers about the exfiltrating agent (summarizer) come from packet
captures on both sides of AgentSec's hook (the host's end of the agent's link, before the hook, and
world0, beyond it) and from the link's own counters, never from the daemon:

  limit_bytes          what the agent may send in its window of a minute, wire bytes (layer 2)
  bytes_passed         wire bytes of the agent seen beyond the hook from its first packet until it
                       was killed: all of the window, and whatever passed after the trip
  bytes_over_limit     max(0, bytes_passed - limit_bytes)
  packets_after_trip   packets seen beyond the hook, less those that came to the hook before the
                       first one that was dropped; null without a trip. What the captures might
                       miss can only make it larger
  ns_crossing_to_first_drop
                       from the packet with which all that came to the hook exceeds the limit to
                       the first dropped one, by the kernel's timestamps at the hook; 0 when that
                       is the same packet, or one in flight beside it; null without a trip
  packets_dropped      packets of the agent that came to the hook and were not seen beyond it
  bystanders_unharmed  the two ordinary agents had no failed request, were never anything but
                       CLOSED, and their median latency during the attacks was at most 10 times
                       that before, plus 20 ms
  states               for each agent the states that `agentsec status` showed, in their order

The exit code is 0 if bytes_over_limit is 0, packets_after_trip is at most CPUs - 1, nobody else was
hurt, the sweep reached no more doors than its limit, the kernel tripped both, both came back to
CLOSED and had every request answered since their release, and the daemon counted as many dropped
packets as were measured; 1 if not; 130 when interrupted.";

/// What the demo shall be like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Leave lab and daemon in place.
    pub keep: bool,
    /// One JSON object instead of the story.
    pub json: bool,
}

/// Runs it; whether everything was contained.
///
/// # Errors
///
/// When it could not be run to its end; [`Interrupted`] when somebody asked it to end.
pub fn run(options: Options) -> Result<bool> {
    interrupt::install()?;
    let mut screen = Screen::new(options.json);
    let result = Stage::set(options, &mut screen).and_then(|stage| stage.play(options, &mut screen));
    // A daemon or a command that got the signal as well fails in ways that are nobody's fault.
    let result = if interrupt::asked() { Err(Interrupted.into()) } else { result };
    drop(screen);
    result
}

/// Everything that has to be there; taken away in this order.
struct Stage {
    work: Vec<Option<Work>>,
    gauge: Option<Gauge>,
    daemon: Daemon,
    _services: Services,
    lab: Lab,
    journals: Vec<Journal>,
    watch: Watch,
}

impl Stage {
    /// The lab, its services, the daemon and the captures. Nobody works yet.
    fn set(options: Options, screen: &mut Screen) -> Result<Self> {
        let lab = Plan::new(PARTS.len()).named(options.keep).build()?;
        screen.note("a lab of its own: four agents, a host between them, a world with HTTP, TCP and UDP");
        interrupt::check()?;
        let services = Services::start(&lab)?;
        let launch = Launch::new(lab.host(), &plan::config(&lab));
        let daemon = if options.keep { launch.outlive() } else { launch }.start()?;
        interrupt::check()?;
        daemon.wait_until("all agents are attached", Duration::from_secs(10), all_attached)?;
        screen.note("agentsec runs on the host; all four agents are attached");
        let gauge = Some(Gauge::start(&lab, lab.agent(THIEF))?);
        let journals: Vec<_> = PARTS.iter().map(|_| Journal::default()).collect();
        let watch = Watch::new(&journals);
        let work = PARTS.iter().map(|_| None).collect();
        Ok(Self { work, gauge, daemon, _services: services, lab, journals, watch })
    }

    fn play(mut self, options: Options, screen: &mut Screen) -> Result<bool> {
        let work = Instant::now();
        (0..PARTS.len()).try_for_each(|index| self.employ(index))?;
        screen.note("everybody does their work: HTTP requests, and downloads by researcher");
        self.watch_for(plan::QUIET, screen)?;
        let attack = Instant::now();
        let theft = self.turn_thief(screen)?;
        let scouting = self.turn_scout(screen)?;
        let doors = (scouting.reached(), scouting.tried());
        drop((theft, scouting));
        (self.work[THIEF], self.work[SCOUT]) = (None, None);
        let killed = Instant::now();
        screen.note("the two compromised processes are killed; their circuits stay as they are");
        self.watch_for(Duration::from_secs(1), screen)?;
        let counted = self.watch.agents[THIEF].dropped_outbound();
        let gauge = self.gauge.take().context("the captures run until here")?;
        let measured = gauge.finish(&self.lab, plan::LIMIT_BYTES)?;
        let restored = Instant::now();
        self.bring_back(screen)?;
        self.ask_the_log(screen)?;
        let times = Times { work, attack, killed, restored, end: Instant::now() };
        let report = Report::new(measured, &self.watch, &self.journals, &times, doors, counted);
        report.show(screen);
        self.end(&report, options, screen)
    }

    fn employ(&mut self, index: usize) -> Result<()> {
        let (node, journal) = (self.lab.agent(index), &self.journals[index]);
        self.work[index] = Some(Work::start(&self.lab, node, PARTS[index].role, journal)?);
        Ok(())
    }

    fn turn_thief(&mut self, screen: &mut Screen) -> Result<Theft> {
        let id = PARTS[THIEF].id;
        let what = format!("{id:<11} is compromised: four TCP flows and a UDP flood, each at full speed");
        screen.note(&screen.paint(Tone::Warning, &what));
        let theft = Theft::start(&self.lab, self.lab.agent(THIEF))?;
        self.watch_until(plan::TRIP_WITHIN, screen, |watch| watch.agents[THIEF].state() == "OPEN")?;
        self.gauge = self.gauge.take().map(Gauge::tripped).transpose()?;
        self.watch_for(plan::STRUGGLE, screen)?;
        Ok(theft)
    }

    fn turn_scout(&mut self, screen: &mut Screen) -> Result<Scouting> {
        let id = PARTS[SCOUT].id;
        let what =
            format!("{id:<11} is compromised: it sweeps its neighbours, then strangers, six ports each");
        screen.note(&screen.paint(Tone::Warning, &what));
        let scouting = Scouting::start(&self.lab, self.lab.agent(SCOUT))?;
        self.watch_until(plan::TRIP_WITHIN, screen, |watch| watch.agents[SCOUT].state() == "OPEN")?;
        self.watch_for(plan::STRUGGLE, screen)?;
        Ok(scouting)
    }

    /// The operator releases both, and their restored processes work under probation until they are trusted again.
    fn bring_back(&mut self, screen: &mut Screen) -> Result<()> {
        for index in [THIEF, SCOUT] {
            let id = PARTS[index].id;
            screen.note(&format!("$ agentsec release {id}"));
            let said = self.daemon.cli_ok(&["release", id])?;
            screen.note(&format!("  {}", said.trim()));
            self.employ(index)?;
        }
        self.watch_until(plan::CLOSED_WITHIN, screen, |watch| {
            watch.agents.iter().all(|seen| seen.state() == "CLOSED")
        })?;
        self.watch_for(plan::AFTERWARDS, screen)
    }

    /// What an operator finds afterwards.
    fn ask_the_log(&self, screen: &mut Screen) -> Result<()> {
        let scout = PARTS[SCOUT].id;
        for question in [&["bundle", "list"][..], &["chain", "--agent", scout], &["log", "verify"]] {
            screen.note(&format!("$ agentsec {}", question.join(" ")));
            for line in self.daemon.cli_ok(question)?.lines().take(plan::ANSWER_LINES) {
                screen.print(&format!("           {line}"));
            }
        }
        Ok(())
    }

    fn end(mut self, report: &Report, options: Options, screen: &mut Screen) -> Result<bool> {
        interrupt::check()?;
        self.work.clear();
        if options.json {
            println!("{}", report.json());
            report.failures().iter().for_each(|failure| eprintln!("failed: {failure}"));
        }
        if options.keep {
            keep::leave(self.lab, self.daemon, screen)?;
        }
        Ok(report.succeeded())
    }

    fn watch_for(&mut self, time: Duration, screen: &mut Screen) -> Result<()> {
        self.watch_until(time, screen, |_| false)
    }

    /// Watches until `enough` holds, but not for long: what did not happen in time is found by the report.
    fn watch_until(
        &mut self,
        longest: Duration,
        screen: &mut Screen,
        enough: impl Fn(&Watch) -> bool,
    ) -> Result<()> {
        let begin = Instant::now();
        loop {
            interrupt::check()?;
            self.watch.look(&self.daemon, screen)?;
            let left = longest.saturating_sub(begin.elapsed());
            if left.is_zero() || enough(&self.watch) {
                return Ok(());
            }
            interrupt::sleep(left.min(Duration::from_millis(80)))?;
        }
    }
}

fn all_attached(status: &Value) -> bool {
    let agents = status["agents"].as_array();
    agents.is_some_and(|agents| {
        agents.len() == PARTS.len()
            && agents.iter().all(|agent| agent["attachments"][0]["status"] == "attached")
    })
}
