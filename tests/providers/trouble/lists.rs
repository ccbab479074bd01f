//! Lists in pages that change, repeat, or do not end.

use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Value, json};
use webhook_operator::{
    api::provider::ProviderType::{self, Ricloud, Thulium},
    clock::Clock,
    domain::remote::{Look, Seen},
    net::{HttpError, Limit, Request, Response},
    provider::{Provider, Transport, Upstream},
};

use super::calls::account;
use crate::rig::call;

/// A list as the upstream would give it: from the number of the request and its paging parameters, which ids, and
/// for ricloud whether it says that there are more.
type Pages = fn(&Asked) -> (Vec<u64>, Option<bool>);

/// One request for a page.
struct Asked {
    /// Counted from 0.
    number: usize,
    /// Thulium's `offset`; where to go on.
    offset: usize,
    /// `limit`, where it is given.
    limit: Option<usize>,
    /// ricloud's `after_id`.
    after: Option<u64>,
}

struct Script {
    kind: ProviderType,
    pages: Pages,
    asked: AtomicUsize,
    /// Bytes of the pages until now.
    sent: AtomicUsize,
}

impl Transport for Script {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, HttpError>> {
        // All pages share the room of one list; the real transport cuts what goes beyond it.
        let left = Limit::List.bytes() - self.sent.load(Ordering::SeqCst);
        assert_eq!(request.body_limit(), Limit::Bytes(left));
        let query = request.url().query().unwrap_or_default().to_owned();
        let parameter = |name: &str| {
            let value = query
                .split('&')
                .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            value.and_then(|value| value.parse::<u64>().ok())
        };
        let number = |name| parameter(name).and_then(|value| usize::try_from(value).ok());
        let asked = Asked {
            number: self.asked.fetch_add(1, Ordering::SeqCst),
            offset: number("offset").unwrap_or(0),
            limit: number("limit"),
            after: parameter("after_id"),
        };
        let (ids, more) = (self.pages)(&asked);
        let body = match self.kind {
            Ricloud => {
                let configs = ids
                    .iter()
                    .map(|id| json!({ "id": id, "url": "https://a.example/", "state": "valid" }));
                let mut page = json!({ "data": configs.collect::<Vec<_>>() });
                if let Some(more) = more {
                    page["has_more"] = json!(more);
                }
                page
            }
            _ => ids
                .iter()
                .map(|id| json!({ "id": id, "actions": ["X"], "subscription_url": "https://a.example/" }))
                .collect::<Value>(),
        };
        let body = body.to_string();
        self.sent.fetch_add(body.len(), Ordering::SeqCst);
        Box::pin(async move { Ok(Response::new(200, Vec::new(), body)) })
    }
}

/// So many that are there, in pages as asked for.
fn page(all: impl Iterator<Item = u64>, asked: &Asked, unasked: usize) -> Vec<u64> {
    let after = asked.after.unwrap_or(0);
    all.filter(|id| *id > after)
        .skip(asked.offset)
        .take(asked.limit.unwrap_or(unasked))
        .collect()
}

fn thulium(all: impl Iterator<Item = u64>, asked: &Asked) -> (Vec<u64>, Option<bool>) {
    (page(all, asked, 100), None)
}

fn ricloud(all: impl Iterator<Item = u64> + Clone, asked: &Asked) -> (Vec<u64>, Option<bool>) {
    let rest = all.clone().filter(|id| *id > asked.after.unwrap_or(0)).count();
    let page = page(all, asked, 1000);
    let more = page.len() < rest;
    (page, Some(more))
}

/// What is played, what has to come of it, and in how many requests.
struct Play {
    kind: ProviderType,
    name: &'static str,
    pages: Pages,
    outcome: &'static str,
    requests: usize,
}

const fn play(
    kind: ProviderType,
    name: &'static str,
    outcome: &'static str,
    requests: usize,
    pages: Pages,
) -> Play {
    Play {
        kind,
        name,
        pages,
        outcome,
        requests,
    }
}

const UNEXPECTED: &str = "**unexpected**";

const PLAYS: &[Play] = &[
    play(Thulium, "2,150 in pages", "all 2150", 4, |asked| {
        thulium(1..=2150, asked)
    }),
    play(
        Thulium,
        "paging is not known, all come at once",
        "all 2150",
        1,
        |_| ((1..=2150).collect(), None),
    ),
    play(
        Thulium,
        "paging is not known, and there are exactly 100",
        "all 100",
        3,
        |_| ((1..=100).collect(), None),
    ),
    play(
        Thulium,
        "ten are removed at the front while it is read",
        "all 2150",
        4,
        |asked| thulium(if asked.number < 2 { 1..=2150 } else { 11..=2150 }, asked),
    ),
    play(
        Thulium,
        "ten are added at the front while it is read",
        "all 2140",
        4,
        |asked| thulium(if asked.number < 2 { 11..=2150 } else { 1..=2150 }, asked),
    ),
    play(Thulium, "each entry twice", "all 1200", 4, |asked| {
        thulium((1..=1200).flat_map(|id| [id, id]), asked)
    }),
    play(Thulium, "the same page again and again", UNEXPECTED, 3, |asked| {
        ((1..=asked.limit.unwrap_or(100) as u64).collect(), None)
    }),
    play(Thulium, "20,000 entries", "all 20000", 22, |asked| {
        thulium(1..=20_000, asked)
    }),
    play(Thulium, "one more", UNEXPECTED, 22, |asked| {
        thulium(1..=20_001, asked)
    }),
    play(Thulium, "it never ends", UNEXPECTED, 22, |asked| {
        thulium(1.., asked)
    }),
    play(Thulium, "half a million entries at once", UNEXPECTED, 1, |_| {
        ((1..=500_000).collect(), None)
    }),
    play(Ricloud, "2,150 in pages", "all 2150", 3, |asked| {
        ricloud(1..=2150, asked)
    }),
    play(
        Ricloud,
        "it does not say whether there are more",
        "all 2150",
        3,
        |asked| (ricloud(1..=2150, asked).0, None),
    ),
    play(
        Ricloud,
        "exactly 1,000, and it does not say whether there are more",
        "all 1000",
        2,
        |asked| (ricloud(1..=1000, asked).0, None),
    ),
    play(
        Ricloud,
        "ten are removed while it is read",
        "all 2150",
        3,
        |asked| ricloud(if asked.number < 1 { 1..=2150 } else { 11..=2150 }, asked),
    ),
    play(Ricloud, "each entry twice", "all 1200", 3, |asked| {
        ricloud(
            (1..=1200).flat_map(|id| [id, id]).collect::<Vec<_>>().into_iter(),
            asked,
        )
    }),
    play(
        Ricloud,
        "an empty page with more to come",
        "all 1000",
        2,
        |asked| {
            (
                if asked.number == 0 {
                    (1..=1000).collect()
                } else {
                    Vec::new()
                },
                Some(true),
            )
        },
    ),
    play(Ricloud, "the same page again and again", UNEXPECTED, 2, |_| {
        ((1..=1000).collect(), Some(true))
    }),
    play(Ricloud, "two pages in turn", UNEXPECTED, 3, |asked| {
        let first = if asked.number % 2 == 0 { 1 } else { 1001 };
        ((first..first + 1000).collect(), Some(true))
    }),
    play(Ricloud, "20,000 entries", "all 20000", 20, |asked| {
        ricloud(1..=20_000, asked)
    }),
    play(Ricloud, "one more", UNEXPECTED, 21, |asked| {
        ricloud(1..=20_001, asked)
    }),
    play(Ricloud, "it never ends", UNEXPECTED, 21, |asked| {
        let after = asked.after.unwrap_or(0);
        ((after + 1..=after + 1000).collect(), Some(true))
    }),
];

async fn run(play: &Play) -> (String, usize) {
    let script = Arc::new(Script {
        kind: play.kind,
        pages: play.pages,
        asked: AtomicUsize::new(0),
        sent: AtomicUsize::new(0),
    });
    let transport: Arc<Script> = Arc::clone(&script);
    let clock = Clock::starting_at(Timestamp::UNIX_EPOCH);
    let account = account(
        play.kind,
        "https://up.example",
        Duration::from_secs(20),
        transport,
        clock,
    );
    let seen = Upstream::from(play.kind)
        .look(&call(&account), &Look::All { inactive: false })
        .await;
    let outcome = match seen {
        Ok(Seen::All(all)) => {
            let ids: std::collections::BTreeSet<_> = all.iter().map(|remote| &remote.id).collect();
            assert_eq!(ids.len(), all.len(), "{}: an id stands twice", play.name);
            format!("all {}", all.len())
        }
        Ok(other) => panic!("{}: {other:?}", play.name),
        Err(error) => format!("**{}**", error.class.as_str()),
    };
    (outcome, script.asked.load(Ordering::SeqCst))
}

#[tokio::test(start_paused = true)]
async fn a_list_is_whole_or_an_error() {
    for play in PLAYS {
        let expected = (play.outcome.to_owned(), play.requests);
        assert_eq!(run(play).await, expected, "{:?}: {}", play.kind, play.name);
    }
}

/// The same as a part of the page.
pub(super) fn section() -> String {
    let mut text =
        "\n## Lists\n\n| upstream | what comes | outcome | requests |\n|---|---|---|---|\n".to_owned();
    for play in PLAYS {
        let (kind, name) = (play.kind.as_str(), play.name);
        writeln!(text, "| {kind} | {name} | {} | {} |", play.outcome, play.requests).unwrap();
    }
    text
}
