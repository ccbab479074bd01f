//! Every crash point, one after the other: each operation of a user is carried out again and again, and each time
//! another call of the operator meets another fault. Whatever happened, everything has to be as it would have been
//! without.
//!
//! The operations are a table ([`operation::OPERATIONS`]), and so are the upstreams, each in the forms that its
//! documents leave open ([`dialect::DIALECTS`]). A new row is explored with every fault at every call.

pub mod dialect;
mod figures;
mod hunt;
mod judge;
pub mod operation;
pub mod point;
pub(crate) mod registered;
mod stage;
pub(crate) mod webhook;

pub use self::{
    dialect::Dialect,
    figures::Figures,
    hunt::{Hunt, Progress, hunt},
    operation::Operation,
    point::{Choice, Fault, Outcome, Plan},
    stage::Stage,
};

/// A point at which something was wrong in the end.
#[derive(Debug)]
pub struct Failure {
    /// Upstream, operation and faults.
    pub point: String,
    /// What is wrong, and the calls that led there.
    pub report: String,
}

/// One operation at one upstream.
#[derive(Clone, Copy)]
pub struct Case {
    /// The upstream.
    pub dialect: &'static Dialect,
    /// The operation.
    pub operation: &'static Operation,
    /// The operator creates without looking first: to show that this is found.
    pub broken: bool,
}

impl Case {
    /// All that there are, in the order of the tables.
    pub fn all() -> impl Iterator<Item = Self> {
        dialect::DIALECTS.iter().flat_map(|dialect| {
            operation::OPERATIONS
                .iter()
                .filter(|operation| operation.is_for(dialect))
                .map(move |operation| Self {
                    dialect,
                    operation,
                    broken: false,
                })
        })
    }

    /// Carries the operation out with these faults.
    #[must_use]
    pub fn run(&self, plan: &Plan) -> Outcome {
        point::run(self, plan)
    }

    /// All points with one fault more than `plan`, behind its last, at what the run with `plan` called.
    #[must_use]
    pub fn points(plan: &Plan, outcome: &Outcome, choice: Choice) -> Vec<Plan> {
        let calls = outcome.calls.iter().skip(plan.after());
        calls
            .flat_map(|made| Fault::at(&made.call, choice).map(|fault| plan.and(made.number, fault)))
            .collect()
    }

    /// Explores one point and counts it.
    #[must_use]
    pub fn explore(&self, plan: &Plan, figures: &mut Figures) -> (Outcome, Option<Failure>) {
        let outcome = self.run(plan);
        figures.count(self, plan, &outcome);
        let failure = (!outcome.wrong.is_empty()).then(|| Failure {
            point: format!("{self}: {plan}"),
            report: outcome.report(),
        });
        (outcome, failure)
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.dialect.name, self.operation.name)
    }
}
