//! The bound of the breaker, for any limit and any order of asking, and what frees it again.

use proptest::prelude::*;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn limit(count: u32, window: Duration) -> Limit {
    Limit { count, window }
}

fn entry(second: i64, removals: i32) -> RecentRemovals {
    RecentRemovals {
        time: Time(at(second)),
        removals,
    }
}

/// Takes at a time, from a status as it was left.
fn take(limit: Limit, recent: &mut Vec<RecentRemovals>, removals: u32, now: i64) -> Option<Counted> {
    let mut ledger = Ledger::read(limit, recent, at(now));
    let taken = ledger.take(removals, None);
    *recent = ledger.recent();
    taken
}

#[test]
fn as_many_as_the_limit_go_and_then_none_until_the_window_has_passed() {
    let (limit, mut recent) = (limit(5, HOUR), Vec::new());
    for second in 0..5 {
        let taken = take(limit, &mut recent, 1, 1_000_000 + second).unwrap();
        assert!(taken.until > at(1_000_000 + second + 60) && taken.until <= at(1_000_000 + second + 120));
    }
    assert_eq!(take(limit, &mut recent, 1, 1_000_005), None);
    assert_eq!(
        take(limit, &mut recent, 1, 1_003_600),
        None,
        "they count a little longer"
    );
    assert!(
        take(limit, &mut recent, 5, 1_003_724).is_some(),
        "up to a thirtieth"
    );
    assert_eq!(take(limit, &mut recent, 1, 1_003_725), None);
}

#[test]
fn with_a_count_of_zero_none_goes_and_more_than_the_count_never_go_together() {
    assert_eq!(take(limit(0, HOUR), &mut Vec::new(), 1, 0), None);
    assert_eq!(take(limit(2, HOUR), &mut Vec::new(), 3, 0), None);
    let (limit, mut recent) = (limit(2, HOUR), Vec::new());
    assert!(take(limit, &mut recent, 1, 0).is_some());
    assert_eq!(take(limit, &mut recent, 2, 0), None, "all or none");
    assert!(take(limit, &mut recent, 1, 0).is_some());
}

#[test]
fn a_retry_is_not_counted_twice_as_long_as_it_counts_at_all() {
    let (limit, mut recent) = (limit(1, HOUR), Vec::new());
    let first = take(limit, &mut recent, 1, 0).unwrap();
    let mut ledger = Ledger::read(limit, &recent, at(3000));
    let second = ledger.take(1, Some(first)).unwrap();
    assert!(second.until > at(3000));
    recent = ledger.recent();
    assert_eq!(recent, [entry(second.until.as_second(), 1)], "moved, not added");
    assert_eq!(
        take(limit, &mut recent, 1, 4000),
        None,
        "it counts from the retry on"
    );
    // A failed attempt to count changes nothing.
    let mut ledger = Ledger::read(limit, &recent, at(4000));
    let before = ledger.clone();
    assert_eq!(ledger.take(2, Some(second)), None);
    assert_eq!(ledger, before);
    // Out of the window it gives nothing back.
    let mut ledger = Ledger::read(limit, &[], at(20_000));
    assert!(ledger.take(1, Some(second)).is_some());
    assert_eq!(ledger.take(1, Some(second)), None);
}

#[test]
fn a_clock_that_was_wrong_blocks_for_one_window_only() {
    let limit = limit(1, HOUR);
    let mut recent = vec![entry(1_000_000_000, 1)];
    assert_eq!(take(limit, &mut recent, 1, 0), None);
    recent = Ledger::read(limit, &recent, at(0)).recent();
    assert_eq!(recent, [entry(120, 1)]);
    assert!(take(limit, &mut recent, 1, 3720).is_some());
}

#[test]
fn what_the_schema_would_refuse_is_harmless() {
    let settings: ProviderSettings = serde_json::from_value(serde_json::json!({
        "type": "Ricloud", "deletionLimit": { "count": -3, "window": "0s" },
    }))
    .unwrap();
    let limit = Limit::of(&settings).unwrap();
    assert_eq!(limit.count, 0);
    assert_eq!(Ledger::read(limit, &[entry(0, -7)], at(0)).recent(), []);
    assert_eq!(
        Ledger::read(limit, &[entry(0, i32::MAX), entry(1, i32::MAX)], at(0)).free(),
        0
    );
}

#[test]
fn held_removals_go_when_another_value_was_handled_since() {
    let held = |confirmation: Option<&str>| DeletionHeld {
        since: Time(at(0)),
        confirmation: confirmation.map(str::to_owned),
    };
    assert!(!is_confirmed(&held(None), None));
    assert!(is_confirmed(&held(None), Some("1")));
    assert!(!is_confirmed(&held(Some("1")), Some("1")));
    assert!(is_confirmed(&held(Some("1")), Some("2")));
    assert!(
        !is_confirmed(&held(Some("1")), None),
        "a status that was wiped confirms nothing"
    );
}

/// What somebody does at a time.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// Asks for so many, and makes them this many thousandths of the time that is left for it.
    Ask(u32, u32),
    /// Asks once more for the ones that were granted last and not made.
    Again,
}

fn any_act() -> impl Strategy<Value = (u32, Act)> {
    let act = prop_oneof![
        4 => (1_u32..4, 0_u32..1001).prop_map(|(removals, late)| Act::Ask(removals, late)),
        1 => Just(Act::Again),
    ];
    (0_u32..400, act)
}

proptest! {
    /// However the calls fall within the time that they have, no window of that length has more than the count.
    #[test]
    fn no_window_has_more_calls_than_the_count(
        count in 0_u32..8,
        window in 1_u64..5000,
        acts in prop::collection::vec(any_act(), 1..120),
    ) {
        let limit = limit(count, Duration::from_secs(window));
        let (mut now, mut recent, mut made, mut unmade) = (1_700_000_000_i64, Vec::new(), Vec::new(), None);
        for (pause, act) in acts {
            now += i64::from(pause) * i64::try_from(window).unwrap() / 1000;
            let mut ledger = Ledger::read(limit, &recent, at(now));
            let taken = match act {
                Act::Ask(removals, _) => ledger.take(removals, None),
                Act::Again => unmade.take().and_then(|before: Counted| ledger.take(before.removals, Some(before))),
            };
            recent = ledger.recent();
            prop_assert!(recent.len() <= 64, "{}", recent.len());
            let Some(taken) = taken else { continue };
            prop_assert!(taken.until >= at(now + 2));
            match act {
                Act::Ask(_, late) if late < 900 => {
                    let left = taken.until.as_second() - now;
                    let call = now + left * i64::from(late) / 1000;
                    made.extend(std::iter::repeat_n(call, taken.removals as usize));
                }
                Act::Ask(..) => unmade = Some(taken),
                Act::Again => {
                    made.extend(std::iter::repeat_n(taken.until.as_second(), taken.removals as usize));
                }
            }
        }
        made.sort_unstable();
        for (first, call) in made.iter().enumerate() {
            let end = call + i64::try_from(window).unwrap();
            let within = made[first..].iter().take_while(|other| **other < end).count();
            prop_assert!(within <= count as usize, "{within} calls within {window} s from {call}: {made:?}");
        }
    }

    /// Nothing is lost for good: after a window and its last step all of the count is free again.
    #[test]
    fn all_of_it_is_free_again_after_the_window(
        count in 1_u32..50,
        window in 1_u64..100_000,
        asks in prop::collection::vec(1_u32..5, 1..40),
    ) {
        let limit = limit(count, Duration::from_secs(window));
        let mut ledger = Ledger::read(limit, &[], at(1_700_000_000));
        for removals in asks {
            ledger.take(removals, None);
        }
        let longest = window + 2 * window.div_ceil(60).max(2);
        let later = at(1_700_000_000 + i64::try_from(longest).unwrap());
        prop_assert_eq!(Ledger::read(limit, &ledger.recent(), later).free(), count);
    }
}
