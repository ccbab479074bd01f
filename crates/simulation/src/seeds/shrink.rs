//! Makes a plan that fails smaller: what can be left out of it while something is still wrong is left out.

use super::Plan;

/// A plan with as few events as can be found in so many runs. `tell`: how many events there were and are.
#[must_use]
pub fn shrink(plan: &Plan, most: usize, tell: impl Fn(usize, usize)) -> Plan {
    let mut small = plan.clone();
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
            if without.run().wrong.is_empty() {
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
