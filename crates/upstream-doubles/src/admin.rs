//! The admin port: the same controls as the Rust handles, as JSON over HTTP. The README lists them with examples.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::Parts;
use crate::double::{Double, Upstream};
use crate::faults::Fault;
use crate::journal::Seen;
use crate::receiver::Receiver;
use crate::secret::Secret;
use crate::sign::DeliverySignature;

/// A refusal with its reason.
struct Refused(StatusCode, String);

impl Refused {
    fn bad(reason: impl ToString) -> Self {
        Self(StatusCode::BAD_REQUEST, reason.to_string())
    }

    fn missing(what: &str) -> Self {
        Self(StatusCode::NOT_FOUND, format!("no such {what}"))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": self.1}))).into_response()
    }
}

type Answer<T = Value> = Result<Json<T>, Refused>;

fn done() -> Answer {
    Ok(Json(json!({})))
}

/// The whole admin API.
pub(crate) fn router(parts: &Arc<Parts>) -> Router {
    Router::new()
        .route("/", get(urls))
        .route("/healthz", get(|| async { "ok" }))
        .route("/reset", post(reset))
        .with_state(Arc::clone(parts))
        .nest("/conpeek", upstream(&parts.conpeek).merge(applications(parts)))
        .nest("/thulium", upstream(&parts.thulium))
        .nest("/ricloud", upstream(&parts.ricloud))
        .nest("/autocosmos", upstream(&parts.autocosmos))
        .nest("/receiver", receiver(parts))
}

async fn urls(State(parts): State<Arc<Parts>>) -> Json<Value> {
    Json(parts.urls())
}

async fn reset(State(parts): State<Arc<Parts>>) -> Answer {
    parts.reset();
    done()
}

fn upstream<U: Upstream>(double: &Arc<Double<U>>) -> Router {
    Router::new()
        .route("/requests", get(requests::<U>).delete(clear_requests::<U>))
        .route("/counts", get(counts::<U>))
        .route("/objects", get(objects::<U>).delete(clear_objects::<U>))
        // A wildcard because the keys of Autocosmos have a slash in them.
        .route(
            "/objects/{*key}",
            delete(remove_object::<U>).patch(edit_object::<U>),
        )
        .route("/duplicates", get(duplicates::<U>))
        .route(
            "/faults",
            get(faults::<U>).post(set_fault::<U>).delete(clear_faults::<U>),
        )
        .route("/faults/{id}", delete(remove_fault::<U>))
        .route(
            "/behaviour",
            get(behaviour::<U>)
                .patch(change_behaviour::<U>)
                .delete(default_behaviour::<U>),
        )
        .route("/accounts", get(accounts::<U>).post(add_account::<U>))
        .route("/accounts/{name}", delete(remove_account::<U>))
        .route("/latency", get(latency::<U>).put(set_latency::<U>))
        .route("/deliver", post(deliver::<U>))
        .with_state(Arc::clone(double))
}

type On<U> = State<Arc<Double<U>>>;

/// Which requests to show.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wanted {
    /// Only those with a higher number.
    #[serde(default)]
    after: u64,
    method: Option<String>,
    account: Option<String>,
    path_prefix: Option<String>,
    effect: Option<bool>,
}

impl Wanted {
    fn fits(&self, seen: &Seen) -> bool {
        let is = |wanted: &Option<String>, value: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| Some(wanted) == value)
        };
        seen.seq > self.after
            && is(&self.method, Some(&seen.method))
            && is(&self.account, seen.account.as_deref())
            && self
                .path_prefix
                .as_deref()
                .is_none_or(|prefix| seen.path.starts_with(prefix))
            && self.effect.is_none_or(|effect| effect == seen.effect)
    }
}

async fn requests<U: Upstream>(State(double): On<U>, Query(wanted): Query<Wanted>) -> Json<Vec<Seen>> {
    Json(double.requests_where(|seen| wanted.fits(seen)))
}

async fn clear_requests<U: Upstream>(State(double): On<U>) -> Answer {
    double.clear_requests();
    done()
}

async fn counts<U: Upstream>(State(double): On<U>) -> impl IntoResponse {
    Json(double.counts())
}

async fn objects<U: Upstream>(State(double): On<U>) -> Json<Value> {
    Json(json!(double.objects()))
}

async fn clear_objects<U: Upstream>(State(double): On<U>) -> Answer {
    double.upstream().clear();
    done()
}

async fn remove_object<U: Upstream>(State(double): On<U>, Path(key): Path<String>) -> Answer {
    if double.remove(&key) {
        done()
    } else {
        Err(Refused::missing("object"))
    }
}

async fn edit_object<U: Upstream>(
    State(double): On<U>,
    Path(key): Path<String>,
    Json(patch): Json<Map<String, Value>>,
) -> Answer {
    let mut outcome = Ok(());
    let found = double.edit(&key, |object| match merged(object, &patch) {
        Ok(changed) => *object = changed,
        Err(error) => outcome = Err(error),
    });
    outcome?;
    if found {
        done()
    } else {
        Err(Refused::missing("object"))
    }
}

/// `current` with the top-level fields of `patch` put over it; unknown ones are refused.
fn merged<T: Serialize + serde::de::DeserializeOwned>(
    current: &T,
    patch: &Map<String, Value>,
) -> Result<T, Refused> {
    let mut value = serde_json::to_value(current).map_err(Refused::bad)?;
    let fields = value
        .as_object_mut()
        .ok_or_else(|| Refused::bad("not an object"))?;
    for (name, new) in patch {
        let field = fields
            .get_mut(name)
            .ok_or_else(|| Refused::bad(format!("unknown field {name}")))?;
        *field = new.clone();
    }
    serde_json::from_value(value).map_err(Refused::bad)
}

async fn duplicates<U: Upstream>(State(double): On<U>) -> impl IntoResponse {
    Json(double.duplicates())
}

async fn faults<U: Upstream>(State(double): On<U>) -> impl IntoResponse {
    Json(double.faults())
}

async fn set_fault<U: Upstream>(State(double): On<U>, Json(fault): Json<Fault>) -> Answer {
    match fault.problem() {
        Some(problem) => Err(Refused::bad(problem)),
        None => Ok(Json(json!({"id": double.set_fault(fault)}))),
    }
}

async fn clear_faults<U: Upstream>(State(double): On<U>) -> Answer {
    double.clear_faults();
    done()
}

async fn remove_fault<U: Upstream>(State(double): On<U>, Path(id): Path<u64>) -> Answer {
    if double.remove_fault(id) {
        done()
    } else {
        Err(Refused::missing("fault"))
    }
}

async fn behaviour<U: Upstream>(State(double): On<U>) -> Json<Value> {
    Json(json!(double.behaviour()))
}

async fn change_behaviour<U: Upstream>(
    State(double): On<U>,
    Json(patch): Json<Map<String, Value>>,
) -> Answer {
    let mut outcome = Ok(());
    double.change_behaviour(|current| match merged(current, &patch) {
        Ok(changed) => *current = changed,
        Err(error) => outcome = Err(error),
    });
    outcome?;
    Ok(Json(json!(double.behaviour())))
}

async fn default_behaviour<U: Upstream>(State(double): On<U>) -> Json<Value> {
    double.change_behaviour(|behaviour| *behaviour = U::Behaviour::default());
    Json(json!(double.behaviour()))
}

async fn accounts<U: Upstream>(State(double): On<U>) -> Json<Vec<String>> {
    Json(double.accounts())
}

async fn add_account<U: Upstream>(State(double): On<U>, Json(account): Json<U::Account>) -> Answer {
    double.add_account(account);
    done()
}

async fn remove_account<U: Upstream>(State(double): On<U>, Path(name): Path<String>) -> Answer {
    if double.remove_account(&name) {
        done()
    } else {
        Err(Refused::missing("account"))
    }
}

/// A latency.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Latency {
    milliseconds: u64,
}

async fn latency<U: Upstream>(State(double): On<U>) -> Json<Latency> {
    let milliseconds = u64::try_from(double.latency().as_millis()).unwrap_or(u64::MAX);
    Json(Latency { milliseconds })
}

async fn set_latency<U: Upstream>(State(double): On<U>, Json(latency): Json<Latency>) -> Answer {
    double.set_latency(Duration::from_millis(latency.milliseconds));
    done()
}

async fn deliver<U: Upstream>(State(double): On<U>, Json(order): Json<Value>) -> Answer {
    let delivered = double.deliver(order).await.map_err(Refused::bad)?;
    Ok(Json(json!(delivered)))
}

fn applications(parts: &Arc<Parts>) -> Router {
    Router::new()
        .route(
            "/applications/{id}",
            put(add_application).delete(remove_application),
        )
        .with_state(Arc::clone(parts))
}

async fn add_application(State(parts): State<Arc<Parts>>, Path(id): Path<u64>) -> Answer {
    parts.conpeek.upstream().add_application(id);
    done()
}

async fn remove_application(State(parts): State<Arc<Parts>>, Path(id): Path<u64>) -> Answer {
    parts.conpeek.upstream().remove_application(id);
    done()
}

fn receiver(parts: &Arc<Parts>) -> Router {
    Router::new()
        .route("/received", get(received).delete(clear_received))
        .route("/ricloud/{name}", put(expect_ricloud).delete(forget))
        .route("/autocosmos/{name}", put(expect_autocosmos).delete(forget))
        .route("/basic/{name}", put(expect_basic).delete(forget))
        .with_state(Arc::clone(parts))
}

/// Which deliveries to show.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WantedDeliveries {
    #[serde(default)]
    after: u64,
    path_prefix: Option<String>,
}

async fn received(
    State(parts): State<Arc<Parts>>,
    Query(wanted): Query<WantedDeliveries>,
) -> impl IntoResponse {
    let mut deliveries = parts
        .receiver
        .received_at(wanted.path_prefix.as_deref().unwrap_or_default());
    deliveries.retain(|delivery| delivery.seq > wanted.after);
    Json(deliveries)
}

async fn clear_received(State(parts): State<Arc<Parts>>) -> Answer {
    parts.receiver.clear();
    done()
}

/// The secret, or the wish to take it from the ricloud double's own store.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RicloudSecret {
    secret: Option<Secret>,
    #[serde(default)]
    from_double: bool,
}

async fn expect_ricloud(
    State(parts): State<Arc<Parts>>,
    Path(name): Path<String>,
    Json(wanted): Json<RicloudSecret>,
) -> Answer {
    match (wanted.secret, wanted.from_double) {
        (Some(secret), false) => parts.receiver.expect_ricloud(&name, secret),
        (None, true) => parts.follow_ricloud(&name),
        _ => return Err(Refused::bad("give either secret or fromDouble: true")),
    }
    done()
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AutocosmosSecret {
    secret: Secret,
    scheme: Option<DeliverySignature>,
}

async fn expect_autocosmos(
    State(parts): State<Arc<Parts>>,
    Path(name): Path<String>,
    Json(wanted): Json<AutocosmosSecret>,
) -> Answer {
    parts
        .receiver
        .expect_autocosmos(&name, wanted.secret, wanted.scheme);
    done()
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BasicCredentials {
    username: String,
    password: Secret,
}

async fn expect_basic(
    State(parts): State<Arc<Parts>>,
    Path(name): Path<String>,
    Json(wanted): Json<BasicCredentials>,
) -> Answer {
    parts
        .receiver
        .expect_basic(&name, &wanted.username, wanted.password);
    done()
}

async fn forget(State(parts): State<Arc<Parts>>, Path(name): Path<String>) -> Answer {
    let receiver: &Receiver = &parts.receiver;
    receiver.forget(&name);
    done()
}
