//! What comes of every trouble that an upstream can make, for every request of every call: the table in
//! `docs/upstream-errors.md`, which these tests make anew and compare. What has to hold for every row whatever the
//! table says stands in [`statuses`] and [`properties`].
//!
//! `UPDATE_DOCS=1 cargo test --test providers trouble` writes the table; read the difference before it is committed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod bodies;
mod calls;
mod connections;
mod lists;
mod model;
mod properties;
mod statuses;
mod table;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::Value;
use webhook_operator::{
    clock::Clock,
    net::{HttpError, Request, Response},
    provider::{Account, ProviderError, Transport},
};

use self::{
    calls::{Case, account, make},
    model::{Model, Route},
};

/// Turns the good answer to the request that has trouble into what arrives.
type Trouble = dyn Fn(u16, &Value) -> Response + Send + Sync;

/// Carries requests to a [`Model`] without a socket, with trouble for those of one route.
pub(super) struct Carrier {
    model: Mutex<Model>,
    trouble: Mutex<Option<(Route, Arc<Trouble>)>>,
    seen: Mutex<Vec<Route>>,
}

impl Carrier {
    fn new(case: Case) -> Arc<Self> {
        Arc::new(Self {
            model: Mutex::new(Model::new(case.kind)),
            trouble: Mutex::new(None),
            seen: Mutex::default(),
        })
    }

    fn make_trouble(&self, route: &Route, trouble: impl Fn(u16, &Value) -> Response + Send + Sync + 'static) {
        *self.trouble.lock().unwrap() = Some((route.clone(), Arc::new(trouble)));
    }

    fn answer(&self, request: &Request) -> Response {
        let body = request.body_bytes().unwrap_or_default();
        let route = Route::new(request.method().as_str(), request.url().path());
        self.seen.lock().unwrap().push(route.clone());
        if let Some((troubled, trouble)) = &*self.trouble.lock().unwrap()
            && *troubled == route
        {
            // Without an effect: a request that is refused has none, and of the others nobody knows.
            let (status, good) = Model::new(self.model.lock().unwrap().kind()).answer(&route, body);
            return trouble(status, &good);
        }
        let (status, body) = self.model.lock().unwrap().answer(&route, body);
        Response::new(status, json_type(), body.to_string())
    }
}

impl Transport for Carrier {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, HttpError>> {
        let answer = self.answer(&request);
        Box::pin(async move { Ok(answer) })
    }
}

fn json_type() -> Vec<(String, String)> {
    vec![("Content-Type".to_owned(), "application/json".to_owned())]
}

/// One call over a [`Carrier`], on a clock that moves when everybody waits.
struct Bench {
    case: Case,
    carrier: Arc<Carrier>,
    account: Account,
}

impl Bench {
    async fn new(case: Case) -> Self {
        let carrier = Carrier::new(case);
        let clock = Clock::starting_at(Timestamp::UNIX_EPOCH);
        let transport = Arc::clone(&carrier);
        let account = account(
            case.kind,
            "https://up.example",
            Duration::from_secs(20),
            transport,
            clock,
        );
        let bench = Self {
            case,
            carrier,
            account,
        };
        if case.known {
            bench
                .call()
                .await
                .unwrap_or_else(|error| panic!("{case:?}: {error}"));
            *bench.carrier.model.lock().unwrap() = Model::new(case.kind);
            bench.carrier.seen.lock().unwrap().clear();
        }
        bench
    }

    async fn call(&self) -> Result<String, ProviderError> {
        make(self.case, &self.account).await
    }

    /// The requests of the call when all goes well, each route once.
    async fn routes(case: Case) -> Vec<Route> {
        let bench = Self::new(case).await;
        bench
            .call()
            .await
            .unwrap_or_else(|error| panic!("{case:?}: {error}"));
        let mut routes: Vec<Route> = Vec::new();
        for route in bench.carrier.seen.lock().unwrap().iter() {
            if !routes.contains(route) {
                routes.push(route.clone());
            }
        }
        routes
    }
}

/// What comes of a call when one of its requests is answered so, every time that it is made.
async fn with_trouble(
    case: Case,
    route: &Route,
    trouble: impl Fn(u16, &Value) -> Response + Send + Sync + 'static,
) -> (Bench, Result<String, ProviderError>) {
    let bench = Bench::new(case).await;
    bench.carrier.make_trouble(route, trouble);
    let result = bench.call().await;
    (bench, result)
}
