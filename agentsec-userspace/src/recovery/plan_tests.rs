//! Plans over made-up and over random histories.

use super::*;
use proptest::prelude::*;

fn at(second: u64) -> Moment {
    Moment { wall_ns: second * 1_000_000_000, mono_ns: second * 1_000_000_000, boot_id: "b".into() }
}

fn record(id: &str, second: u64, depends: &[(&str, &str)]) -> Record {
    Record {
        id: id.into(),
        started: at(second),
        finished: at(second),
        verified_ns: Some(1),
        depends: depends.iter().map(|(agent, id)| ((*agent).into(), (*id).into())).collect(),
        ..Record::default()
    }
}

fn pair() -> Known {
    let app = vec![
        record("a1", 10, &[("db", "d1")]),
        record("a2", 20, &[("db", "d2")]),
        record("a3", 30, &[("db", "d3")]),
    ];
    let db = vec![record("d1", 10, &[]), record("d2", 20, &[]), record("d3", 30, &[]), record("d4", 35, &[])];
    Known {
        records: [("app".into(), app), ("db".into(), db)].into(),
        dependencies: [("app".into(), vec!["db".into()]), ("db".into(), vec![])].into(),
        ..Known::default()
    }
}

fn chosen(known: &Known, agent: &str, wanted: Option<&str>) -> Vec<String> {
    plan(known, agent, wanted).unwrap().steps.into_iter().map(|step| step.snapshot).collect()
}

#[test]
fn the_newest_point_from_before_anything_suspicious_is_taken() {
    let mut known = pair();
    assert_eq!(chosen(&known, "app", None), ["d3", "a3"], "dependencies first");
    assert_eq!(chosen(&known, "db", None), ["d4"], "nobody's dependent comes with it");
    known.suspicious.insert("app".into(), at(25));
    assert_eq!(chosen(&known, "app", None), ["d2", "a2"]);
    known.suspicious.insert("db".into(), at(20));
    let plan = plan(&known, "app", None).unwrap();
    assert_eq!(plan.steps[1].snapshot, "a1", "what was finished at that moment is not before it");
    assert_eq!(plan.passed_over.len(), 2, "{plan:?}");
}

#[test]
fn whoever_depends_on_somebody_in_a_plan_and_is_not_in_it_is_told() {
    let known = pair();
    let told = |agent: &str| left_out(&plan(&known, agent, None).unwrap(), &known.dependencies);
    assert_eq!(told("db"), ["`app` depends on `db` and keeps the state that it has"]);
    assert_eq!(told("app"), Vec::<String>::new());
}

#[test]
fn what_is_from_an_earlier_incident_is_taken_only_if_it_is_named() {
    let mut known = pair();
    known.records.get_mut("db").unwrap()[2].suspect = Some("i".into());
    let found = plan(&known, "app", None).unwrap();
    assert_eq!(found.steps[1].snapshot, "a2");
    assert!(found.passed_over[0].contains("d3 of `db` is from incident i"), "{found:?}");
    let named = plan(&known, "app", Some("a3")).unwrap();
    assert!(named.warnings[0].contains("incident i"), "{named:?}");
}

#[test]
fn what_its_repository_has_lost_will_do_if_it_is_elsewhere() {
    for elsewhere in
        [(|record: &mut Record| record.copied = true) as fn(&mut Record), |record| record.in_memory = true]
    {
        let mut known = pair();
        let lost = &mut known.records.get_mut("db").unwrap()[2];
        (lost.missing, lost.damaged, lost.tree) = (true, Some("a byte".into()), Some("t".into()));
        assert_eq!(chosen(&known, "app", None), ["d2", "a2"]);
        elsewhere(&mut known.records.get_mut("db").unwrap()[2]);
        assert_eq!(chosen(&known, "app", None), ["d3", "a3"]);
        known.records.get_mut("db").unwrap()[2].tree = None;
        assert_eq!(chosen(&known, "app", None), ["d2", "a2"], "what has no tree cannot be told elsewhere");
    }
}

#[test]
fn a_point_is_as_good_as_the_worst_in_it() {
    for spoil in [
        (|record: &mut Record| record.verified_ns = None) as fn(&mut Record),
        |record| record.damaged = Some("a byte".into()),
        |record| record.missing = true,
    ] {
        let mut known = pair();
        spoil(&mut known.records.get_mut("db").unwrap()[2]);
        assert_eq!(chosen(&known, "app", None), ["d2", "a2"]);
    }
    let mut known = pair();
    known.records.get_mut("app").unwrap()[2].depends.clear();
    assert_eq!(chosen(&known, "app", None), ["d2", "a2"], "it was taken without its dependency");
    known.records.get_mut("db").unwrap().remove(1);
    assert_eq!(chosen(&known, "app", None), ["d1", "a1"], "its dependency is gone");
}

#[test]
fn who_names_a_snapshot_gets_it_with_warnings_unless_it_cannot_be_restored() {
    let mut known = pair();
    known.suspicious.insert("app".into(), at(5));
    assert!(matches!(plan(&known, "app", None), Err(NoPlan::NoneFits(reasons)) if reasons.len() == 3));
    let insisted = plan(&known, "app", Some("a2")).unwrap();
    assert!(insisted.warnings.iter().all(|warning| warning.contains("suspicious")), "{insisted:?}");
    assert_eq!(insisted.warnings.len(), 2);
    known.records.get_mut("db").unwrap()[1].damaged = Some("a byte".into());
    assert!(matches!(plan(&known, "app", Some("a2")), Err(NoPlan::Unfit(why)) if why.contains("a byte")));
    assert_eq!(plan(&known, "app", Some("a")), Err(NoPlan::Unknown("a".into())));
    assert_eq!(plan(&known, "nobody", None), Err(NoPlan::NoSnapshots("nobody".into())));
}

#[test]
fn a_circle_is_told() {
    let dependencies = [("a".into(), vec!["b".into()]), ("b".into(), vec!["a".into()])].into();
    assert_eq!(order("a", &dependencies), Err(NoPlan::Circle("a".into())));
}

/// A random history of agents 0 to n, each of which may depend on those before it.
fn histories() -> impl Strategy<Value = Known> {
    let agents = 1usize..5;
    agents
        .prop_flat_map(|count| {
            let edges = proptest::collection::vec(any::<bool>(), count * count);
            let flaws = proptest::collection::vec(0u8..6, count * 6);
            let suspects = proptest::collection::vec(proptest::option::of(0u64..70), count);
            (Just(count), edges, flaws, suspects)
        })
        .prop_map(|(count, edges, flaws, suspects)| {
            let mut known = Known::default();
            for agent in 0..count {
                let others: Vec<usize> = (0..agent).filter(|other| edges[agent * count + other]).collect();
                let records = (0..6).map(|point| {
                    let depends: Vec<(String, String)> = others
                        .iter()
                        .map(|other| (format!("g{other}"), format!("s{other}-{point}")))
                        .collect();
                    let depends: Vec<(&str, &str)> =
                        depends.iter().map(|(agent, id)| (agent.as_str(), id.as_str())).collect();
                    let mut record =
                        record(&format!("s{agent}-{point}"), point * 10 + agent as u64, &depends);
                    match flaws[agent * 6 + point as usize] {
                        0 => record.verified_ns = None,
                        1 => record.damaged = Some("flaw".into()),
                        2 => record.missing = true,
                        _ => {}
                    }
                    record
                });
                known.records.insert(format!("g{agent}"), records.collect());
                known
                    .dependencies
                    .insert(format!("g{agent}"), others.iter().map(|other| format!("g{other}")).collect());
                if let Some(second) = suspects[agent] {
                    known.suspicious.insert(format!("g{agent}"), at(second));
                }
            }
            known
        })
}

proptest! {
    #[test]
    fn a_plan_is_sound_complete_and_consistent(known in histories()) {
        let agent = format!("g{}", known.records.len() - 1);
        let find = |step: &Step| known.records[&step.agent].iter().find(|record| record.id == step.snapshot).unwrap();
        let is_fit = |record: &Record| {
            record.is_verified() && known.suspicious.values().all(|since| record.finished.is_before(since))
        };
        let group = order(&agent, &known.dependencies).unwrap();
        match plan(&known, &agent, None) {
            Ok(plan) => {
                let names: Vec<&String> = plan.steps.iter().map(|step| &step.agent).collect();
                prop_assert_eq!(names, group.iter().collect::<Vec<_>>());
                for (place, step) in plan.steps.iter().enumerate() {
                    let record = find(step);
                    prop_assert!(is_fit(record));
                    for (other, id) in &record.depends {
                        let before = plan.steps[..place].iter().any(|step| step.agent == *other && step.snapshot == *id);
                        prop_assert!(before, "a dependency starts first, in the state that fits");
                    }
                }
                // Nothing newer would have done.
                let chosen = find(plan.steps.last().unwrap());
                for newer in known.records[&agent].iter().filter(|record| chosen.finished.is_before(&record.finished)) {
                    let point = newer.id.rsplit('-').next().unwrap();
                    let all = group.iter().all(|name| {
                        known.records[name].iter().find(|record| record.id.ends_with(&format!("-{point}"))).is_some_and(is_fit)
                    });
                    prop_assert!(!all, "{} would have done", newer.id);
                }
            }
            Err(NoPlan::NoneFits(reasons)) => prop_assert_eq!(reasons.len(), 6),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}

#[test]
fn what_the_log_denies_is_passed_over_and_what_it_does_not_know_is_told() {
    let mut known = pair();
    known.attested.insert("d3".into(), Attested::No("unheard of".into()));
    known.attested.insert("a2".into(), Attested::Unknown("no log".into()));
    known.attested.insert("d2".into(), Attested::Yes);
    let found = plan(&known, "app", None).unwrap();
    assert_eq!(found.steps[1].snapshot, "a2");
    assert!(found.passed_over[0].contains("unheard of") && found.warnings[0].contains("no log"), "{found:?}");
    let insisted = plan(&known, "app", Some("a3")).unwrap();
    assert_eq!(insisted.steps[0].snapshot, "d3", "an operator may know better");
    assert!(insisted.warnings[0].contains("unheard of"), "{insisted:?}");
}
