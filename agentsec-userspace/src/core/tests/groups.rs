//! Several agents in one step.

use super::*;

/// The agents `a`, `b` and `c` in slots 1, 2 and 3; the first two are tagged `batch`, the last two `eu`.
fn engine(change: impl Fn(&str, &mut AgentSettings)) -> Engine {
    let mut engine = Engine::new(GuardSettings::default());
    for (slot, id, tags) in [(1, "a", &["batch"][..]), (2, "b", &["batch", "eu"]), (3, "c", &["eu"])] {
        let tags = tags.iter().map(|&tag| tag.to_owned()).collect();
        let mut settings = AgentSettings { tags, ..settings() };
        change(id, &mut settings);
        let agent = AgentAdded { slot, id: id.into(), settings, ..added() };
        engine.handle(now(), Input::AgentAdded(Box::new(agent)));
    }
    engine
}

fn now() -> Time {
    Time { mono_ns: 1000 * SECOND, wall_ns: 1_700_000_000 * SECOND }
}

fn ask(engine: &mut Engine, request: Request) -> Vec<Command> {
    engine.handle(now(), Input::Operator { request, by: "alice".into() })
}

fn quarantine(tag: &str) -> Request {
    Request::Quarantine { target: Target::Tag(tag.into()), reason: "odd".into(), hold: false }
}

fn release(tag: &str) -> Request {
    Request::Release { target: Target::Tag(tag.into()), force: true }
}

fn outcomes(commands: &[Command]) -> Vec<(String, Result<bool, Refusal>)> {
    let Some(Command::Reply(outcomes)) = commands.last() else { panic!("{commands:?}") };
    let changed = |done: &Done| done.changed;
    outcomes.iter().map(|(id, outcome)| (id.clone(), outcome.as_ref().map(changed).map_err(|r| *r))).collect()
}

fn drafts(commands: &[Command]) -> Vec<&Draft> {
    let mut drafts = Vec::new();
    for command in commands {
        if let Command::Record(draft) = command {
            drafts.push(draft);
        }
    }
    drafts
}

fn state(engine: &Engine, slot: u32) -> State {
    engine.view(now(), slot).unwrap().state.into()
}

#[test]
fn all_of_a_tag_are_dropped_before_the_first_event_and_passed_after_the_last() {
    let mut engine = engine(|_, _| {});
    let commands = ask(&mut engine, quarantine("batch"));
    assert_eq!(kinds(&commands), ["control", "control", "record", "record", "record", "reply"]);
    assert_eq!(
        (state(&engine, 1), state(&engine, 2), state(&engine, 3)),
        (State::Open, State::Open, State::Closed)
    );
    let commands = ask(&mut engine, release("batch"));
    assert_eq!(kinds(&commands), ["record", "record", "record", "control", "control", "reply"]);
    let order: Vec<_> = drafts(&commands).iter().map(|draft| draft.kind).collect();
    let action = EventKind::ContainmentAction;
    assert_eq!(order, [action, action, EventKind::OperatorCommand]);
    assert_eq!(outcomes(&commands), [("a".into(), Ok(true)), ("b".into(), Ok(true))]);
    assert_eq!((state(&engine, 1), state(&engine, 2)), (State::Closed, State::Closed));
}

#[test]
fn a_refusal_of_one_agent_does_not_stop_the_others() {
    let mut engine = engine(|id, settings| settings.never_isolate = id == "b");
    let commands = ask(&mut engine, quarantine("eu"));
    assert_eq!(outcomes(&commands), [("b".into(), Err(Refusal::NeverIsolated)), ("c".into(), Ok(true))]);
    assert_eq!((state(&engine, 2), state(&engine, 3)), (State::Closed, State::Open));
}

#[test]
fn the_events_of_a_group_name_it() {
    let mut engine = engine(|_, _| {});
    let commands = ask(&mut engine, quarantine("batch"));
    let drafts = drafts(&commands);
    let [a, b, command] = drafts[..] else { panic!("{drafts:?}") };
    let group = command.correlation_id.clone().unwrap();
    assert_eq!(
        (&command.agent_id, &command.data["tag"], &command.data["agents"]),
        (&None, &"batch".into(), &2.into())
    );
    for (draft, id) in [(a, "a"), (b, "b")] {
        assert_eq!((draft.agent_id.as_deref(), &draft.data["group"]), (Some(id), &group.clone().into()));
    }
    assert_ne!(a.correlation_id, b.correlation_id, "each has an incident of its own");
}

#[test]
fn nobody_with_the_tag_is_a_refusal_that_is_recorded() {
    let mut engine = engine(|_, _| {});
    let commands = ask(&mut engine, quarantine("batc"));
    assert_eq!(outcomes(&commands), [("batc".into(), Err(Refusal::UnknownTag))]);
    assert_eq!(kinds(&commands), ["record", "reply"]);
    assert_eq!(drafts(&commands)[0].data["agents"], 0);
    assert_eq!(engine.tags().into_iter().collect::<Vec<_>>(), ["batch", "eu"]);
}

#[test]
fn an_edited_tag_counts_at_once() {
    let mut engine = engine(|_, _| {});
    let settings = Box::new(AgentSettings { tags: vec!["new".into()], ..settings() });
    engine.handle(now(), Input::AgentConfigured { slot: 3, settings });
    assert_eq!(outcomes(&ask(&mut engine, quarantine("new"))), [("c".into(), Ok(true))]);
    assert_eq!(engine.view(now(), 3).unwrap().tags, ["new"]);
}
