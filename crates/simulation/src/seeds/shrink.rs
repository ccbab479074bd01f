//! Makes a plan that fails smaller: what can be left out of it while the same is still wrong is left out.

use super::Plan;

/// A plan with as few events as can be found in so many runs. `tell`: how many events there were and are.
#[must_use]
pub fn shrink(plan: &Plan, most: usize, tell: impl Fn(usize, usize)) -> Plan {
    let mut small = plan.clone();
    let wrong = plan.run().wrong;
    let wanted = wrong.first().map_or("", |what| kind(what));
    let mut tries = 0;
    // Large pieces first, then smaller ones, single events until none can go any more.
    let mut piece = (small.events.len() / 2).max(1);
    loop {
        let before = small.events.len();
        let mut from = 0;
        while from < small.events.len() && tries < most {
            let out: Vec<usize> = small
                .events
                .iter()
                .skip(from)
                .take(piece)
                .map(|it| it.number)
                .collect();
            let without = small.without(&out);
            tries += 1;
            if !without.run().wrong.iter().any(|what| kind(what) == wanted) {
                from += piece;
            } else {
                small = without;
                tell(plan.events.len(), small.events.len());
            }
        }
        if tries >= most || (piece == 1 && small.events.len() == before) {
            return small;
        }
        piece = (piece / 2).max(1);
    }
}

/// What sort of thing is wrong: its words up to the first that name something.
fn kind(wrong: &str) -> &str {
    // `namespace/name: ` comes first in most.
    let wrong = wrong.split_once(": ").map_or(wrong, |(_, wrong)| wrong);
    let end = wrong.find(|letter: char| !letter.is_ascii_alphabetic() && letter != ' ');
    wrong.split_at(end.unwrap_or(wrong.len())).0
}
