//! What happened, line by line: what people did and which calls were made, in their order.

use std::fmt::Write;

use tokio::time::Instant;
use webhook_operator::api::provider::ProviderType;

use crate::{World, explore::registered};

const TYPES: [ProviderType; 4] = [
    ProviderType::Conpeek,
    ProviderType::Thulium,
    ProviderType::Ricloud,
    ProviderType::Autocosmos,
];

/// What is not a call: when, before which call, and what.
#[derive(Default)]
pub(super) struct Trace(Vec<(usize, String)>);

fn at(began: Instant, time: Instant) -> String {
    format!("{:>9.3} s", time.duration_since(began).as_secs_f64())
}

impl Trace {
    /// Something happened before the call of this number.
    pub(super) fn note(&mut self, began: Instant, before: usize, text: String) {
        self.0
            .push((before, format!("{} {text}", at(began, Instant::now()))));
    }

    /// All of it. The last lines are what there is in the end, so that two runs that went the same way and ended
    /// differently are told apart.
    pub(super) fn finish(&self, began: Instant, world: &World) -> String {
        let mut text = String::new();
        let mut notes = self.0.iter().peekable();
        for made in world.wire().made() {
            while let Some((_, note)) = notes.next_if(|(before, _)| *before <= made.number) {
                writeln!(text, "{note}").unwrap();
            }
            writeln!(text, "{}   {made}", at(began, made.at)).unwrap();
        }
        notes.for_each(|(_, note)| writeln!(text, "{note}").unwrap());
        for plural in ["webhooks", "webhookproviders", "namespaces"] {
            for object in world.api().list(plural) {
                writeln!(text, "{plural}: {object}").unwrap();
            }
        }
        for it in TYPES
            .into_iter()
            .flat_map(|it| registered::at(world.upstreams(), it))
        {
            writeln!(text, "registered: {it:?}").unwrap();
        }
        text
    }
}
