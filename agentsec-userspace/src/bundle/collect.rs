//! Collects the parts, all at once, each with its time limit: what is late is kept as far as it is, and marked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::BundlesConfig;
use crate::core::Time;

use super::guarded::{self, Started, within};
use super::part::{Paper, Part};
use super::trip::{Order, Places, Source};
use super::whereabouts::{self, Whereabouts};
use super::{network, processes, sockets};

/// What a part may be late after its limit, to say itself what it lacks.
const GRACE: Duration = Duration::from_millis(250);

/// The parts that are read from the machine, in the order in which they are begun: what vanishes first comes first.
pub const MACHINE_PARTS: [&str; 5] =
    ["processes.json", "sockets.json", "interfaces.json", "routes.json", "neighbours.json"];

/// Collects everything that an order asks for. It takes as long as one part may, and a little.
#[must_use]
pub fn collect(order: &mut Order) -> Vec<Part> {
    let sources = std::mem::take(&mut order.sources);
    let mut works = machine(&order.places, order.at, &order.config);
    works.extend(sources.into_iter().map(|source| begin(source, &order.config)));
    works.into_iter().map(|work| work.end(limit(&order.config))).collect()
}

fn limit(config: &BundlesConfig) -> Duration {
    Duration::from_nanos(config.part_timeout_ns)
}

/// A part at work.
struct Work {
    name: &'static str,
    paper: Arc<Paper>,
    begun: Instant,
    started: Result<Started<Result<(), String>>, guarded::Lost>,
}

impl Work {
    fn end(self, limit: Duration) -> Part {
        let left = (limit + GRACE).saturating_sub(self.begun.elapsed());
        let ended = match self.started.and_then(|started| started.wait(left)) {
            Ok(ended) => ended,
            Err(guarded::Lost::Late) => Err(format!("did not end within {} ms", limit.as_millis())),
            Err(lost) => Err(lost.why().to_owned()),
        };
        self.paper.finish(self.name, ended, self.begun.elapsed())
    }
}

fn begin(source: Source, config: &BundlesConfig) -> Work {
    // The parts share the room: none of them alone may fill the bundle.
    let most = usize::try_from(config.max_bundle_bytes / 4).unwrap_or(usize::MAX);
    let paper = Arc::new(Paper::new(limit(config), most));
    let Source { name, write } = source;
    let shared = Arc::clone(&paper);
    let started = guarded::start(name, move || write(&shared));
    Work { name, paper, begun: Instant::now(), started }
}

type Look = fn(&Paper, &Whereabouts, Time) -> Result<(), String>;

fn machine(places: &Places, now: Time, config: &BundlesConfig) -> Vec<Work> {
    let looks: [Look; 5] = [
        processes::write,
        |paper, where_, _| sockets::write(paper, where_),
        |paper, where_, _| network::interfaces(paper, where_),
        |paper, where_, _| network::routes(paper, where_),
        |paper, where_, _| network::neighbours(paper, where_),
    ];
    let places = places.clone();
    let found = match within("whereabouts", limit(config), move || whereabouts::find(&places)) {
        Ok(found) => found,
        Err(lost) => Whereabouts {
            unknown: vec![format!("looking for where the agent is {}", lost.why())],
            ..Whereabouts::default()
        },
    };
    let found = Arc::new(found);
    let begin = |(name, look): (&'static str, Look)| {
        let found = Arc::clone(&found);
        let write = Box::new(move |paper: &Paper| look(paper, &found, now));
        begin(Source { name, write }, config)
    };
    MACHINE_PARTS.into_iter().zip(looks).map(begin).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Gate;
    use super::super::part::Status;
    use super::super::trip::Trip;
    use super::*;
    use serde_json::json;
    use std::sync::mpsc::channel;

    #[test]
    fn a_part_that_hangs_costs_its_time_and_the_others_are_whole() {
        let (release, hold) = channel::<()>();
        let hangs = Source {
            name: "hangs.json",
            write: Box::new(move |paper| {
                paper.item(json!("before"));
                hold.recv().map_err(|error| error.to_string())
            }),
        };
        let dies = Source { name: "dies.json", write: Box::new(|_| std::panic::resume_unwind(Box::new(()))) };
        let fails = Source { name: "fails.json", write: Box::new(|_| Err("no such thing".into())) };
        let config = BundlesConfig { part_timeout_ns: 200_000_000, ..BundlesConfig::default() };
        let mut order = Order {
            trip: Trip::default(),
            at: Time::default(),
            places: Places { addresses: vec!["192.0.2.1".into()], ..Places::default() },
            sources: vec![hangs, dies, fails, Source::value("signals.json", json!({ "risk": 0.7 }))],
            config,
            gate: Gate::default().close("a"),
        };
        let begun = Instant::now();
        let parts = collect(&mut order);
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
        let status = |name: &str| parts.iter().find(|part| part.name == name).map(|part| part.status);
        assert_eq!(status("signals.json"), Some(Status::Complete));
        assert_eq!(status("hangs.json"), Some(Status::Partial), "what it had is kept");
        assert_eq!((status("dies.json"), status("fails.json")), (Some(Status::Failed), Some(Status::Failed)));
        assert_eq!(status("processes.json"), Some(Status::Unavailable), "an address has no processes");
        let hung = parts.iter().find(|part| part.name == "hangs.json").unwrap();
        assert_eq!(hung.bytes, b"{\"items\":[\"before\"]}\n");
        assert_eq!(hung.reasons, ["did not end within 200 ms"]);
        drop(release);
    }
}
