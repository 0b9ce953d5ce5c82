//! Signals that the kernel sees, and those that come on top of them.

use super::*;
use agentsec_common::auth::AuthKind;

#[test]
fn slow_failures_come_on_top_of_the_kernels_and_the_greater_deviation_counts() {
    let mut world = World::new(added());
    world.signals = Signals { auth_failures_centi: 1_975, deviation_100us: 900, ..Signals::default() };
    let slow = |auth_failures| SlowSignals { auth_failures, deviation_100us: 1001, ..SlowSignals::default() };
    world.tick();
    world.input(Input::Signals { slot: SLOT, signals: slow(0) });
    let view = world.engine.view(world.now, SLOT).unwrap();
    assert_eq!((view.contributions.auth, view.contributions.deviation), (300, 200));
    world.input(Input::Signals { slot: SLOT, signals: slow(1) });
    assert_eq!(kinds(&world.tick()), ["control", "record"], "only together they exceed the limit");
    let trip = world.events(EventKind::ContainmentAction)[0];
    assert_eq!(trip.data["trigger_reason"], "20.75 failed authentications exceed max_auth_failures of 20");
    assert_eq!(trip.data["signals"]["auth_failures"], 20.75);
}

#[test]
fn what_the_kernel_sees_by_itself_is_left_to_it() {
    let mut world = World::new(added());
    world.signals = Signals { auth_failures_centi: 2_001, ..Signals::default() };
    let signals = SlowSignals { auth_failures: 21, ..SlowSignals::default() };
    world.input(Input::Signals { slot: SLOT, signals });
    assert_eq!(kinds(&world.tick()), [""; 0]);
}

#[test]
fn a_slow_deviation_alone_can_exceed_its_limit() {
    let mut added = added();
    added.settings.profile.max_deviation_100us = 2_500;
    let mut world = World::new(added);
    let signals = SlowSignals { deviation_100us: 2_501, ..SlowSignals::default() };
    world.input(Input::Signals { slot: SLOT, signals });
    world.tick();
    let explained = world.engine.explain(world.now, SLOT).unwrap();
    let reason = "response times deviate by 250100 µs, more than max_variance of 250000 µs";
    assert!(explained.because.iter().any(|line| line == reason), "{:?}", explained.because);
    let settings =
        ["profiles.web.limits.max_variance is 250000 µs", "profiles.web.response_time is 50000 µs"];
    assert_eq!(explained.would_change, settings);
}

#[test]
fn an_explanation_of_risk_names_the_settings_of_the_terms_that_counted() {
    let mut added = added();
    added.settings.profile.weights.requests = 300;
    added.settings.profile.anomalous_rate = 90;
    let mut world = World::new(added);
    let slow = SlowSignals { auth_failures: 6, deviation_100us: 1_001, ..SlowSignals::default() };
    world.signals = Signals { requests: 91, ..Signals::default() };
    world.input(Input::Signals { slot: SLOT, signals: slow });
    world.tick();
    let explained = world.engine.explain(world.now, SLOT).unwrap();
    for line in [
        "profiles.web.auth_failures is 5, and auth_weights say what each kind counts",
        "profiles.web.response_time_deviation is 100000 µs, from a response_time of 50000 µs",
        "profiles.web.expected_requests_per_minute and requests_ratio allow 90 in the window",
    ] {
        assert!(explained.would_change.iter().any(|found| found == line), "{:?}", explained.would_change);
    }
    assert!(explained.because.iter().any(|line| line.starts_with("91 requests in the window, more than 90")));
}

#[test]
fn a_failed_authentication_is_a_violation_that_says_which() {
    let mut world = World::new(added());
    let notice = |detail| Notice {
        slot: SLOT,
        kind: NoticeKind::AuthFailure as u8,
        detail,
        remote: address::to_address("::ffff:192.0.2.7".parse().unwrap()),
        remote_port: 8080,
        protocol: 6,
        direction: 1,
        ..Notice::default()
    };
    world.input(Input::Notice(notice(AuthKind::ResetBeforeData as u8)));
    assert!(world.input(Input::Notice(notice(7))).is_empty(), "a kind that nobody knows");
    let events = world.events(EventKind::SecurityViolation);
    assert_eq!(events.len(), 1);
    let data = &events[0].data;
    assert_eq!(data["violation_type"], "authentication_failed");
    let action = "connection with 192.0.2.7 port 8080, which was reset before anything was said";
    assert_eq!(data["attempted_action"], action);
    assert_eq!(
        (&data["context"]["kind"], &data["context"]["weight"]),
        (&"reset_before_data".into(), &0.25.into())
    );
    assert_eq!(data["context"]["packet"]["direction"], "inbound");
}
