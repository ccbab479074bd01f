//! What has to hold for any answer and any secret: nothing panics, every call ends, and no text holds what an upstream
//! sent or what we keep secret. (That a settled object is left alone, and that the normal form is one, are properties
//! of the plan; they stand with it.)

use std::{
    fmt::Write as _,
    io,
    sync::{Arc, LazyLock, Mutex},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proptest::prelude::*;
use serde_json::{Value, json};
use webhook_operator::{
    api::provider::ProviderType,
    domain::{
        desired::{BasicAuth, Desired, Header},
        status::Assessment,
    },
    net::{Response, SecretText},
    provider::{Credentials, Provider, ProviderError, Upstream},
};

use super::{
    Bench,
    calls::{Case, KINDS, Op, cases, want},
    model::Route,
    with_trouble,
};
use crate::rig::call;

fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
}

/// Every request of every call.
static REQUESTS: LazyLock<Vec<(Case, Route)>> = LazyLock::new(|| {
    let all = KINDS.into_iter().flat_map(cases);
    let with_routes = |case| {
        let routes = paused().block_on(Bench::routes(case));
        routes.into_iter().map(move |route| (case, route))
    };
    all.flat_map(with_routes).collect()
});

fn any_request() -> impl Strategy<Value = (Case, Route)> {
    prop::sample::select(REQUESTS.clone())
}

fn any_json() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec![
        "id",
        "data",
        "url",
        "has_more",
        "total_count",
        "state",
        "secret",
        "date_created",
        "webhook_config",
        "actions",
        "subscription_url",
        "http_auth_user",
        "errors",
        "message",
        "code",
        "success",
        "headers",
        "retry_config",
        "retry_value",
        "retry_enabled",
        "max_retries",
        "backoff_type",
        "backoff_value",
        "Callback",
        "Activo",
        "Description",
        "HeaderCustom01",
        "Name",
        "Value",
        "_links",
        "href",
        "method",
        "Errors",
        "params",
        "error",
        "x",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        ".{0,12}".prop_map(|text| Value::from(format!("kr0kodil{text}"))),
        prop::sample::select(vec![
            "7",
            "new",
            "valid",
            "DELETE",
            "https://a.example/",
            "multiplier",
            "true"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        let members = prop::collection::vec((name.clone(), inner.clone()), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            members.prop_map(|members| members
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect()),
        ]
    })
}

/// The good answer with some of its bytes changed, and with one part replaced.
fn damaged(
    good: &Value,
    damage: &[(prop::sample::Index, u8)],
    part: Option<&(prop::sample::Index, Value)>,
) -> Vec<u8> {
    let mut good = good.clone();
    if let Some((at, other)) = part {
        let mut places: Vec<&mut Value> = Vec::new();
        collect(&mut good, &mut places);
        if !places.is_empty() {
            let at = at.index(places.len());
            *places[at] = other.clone();
        }
    }
    let mut bytes = good.to_string().into_bytes();
    for (at, byte) in damage {
        let at = at.index(bytes.len());
        bytes[at] = *byte;
    }
    bytes
}

/// All leaves.
fn collect<'a>(value: &'a mut Value, places: &mut Vec<&'a mut Value>) {
    match value {
        Value::Object(object) => object.values_mut().for_each(|value| collect(value, places)),
        Value::Array(items) => items.iter_mut().for_each(|item| collect(item, places)),
        leaf => places.push(leaf),
    }
}

fn any_status() -> impl Strategy<Value = u16> {
    prop_oneof![6 => Just(200_u16), 1 => 200_u16..=299, 2 => 300_u16..=999]
}

fn no_files() -> ProptestConfig {
    ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Whatever came: the call ended, and an error says nothing that the upstream sent.
fn judge(bench: &Bench, result: &Result<String, ProviderError>) -> Result<(), TestCaseError> {
    prop_assert!(bench.carrier.seen.lock().unwrap().len() <= 200);
    if let Err(error) = result {
        let said = format!("{error} {error:?}");
        prop_assert!(!said.contains("kr0kodil"), "{said}");
        prop_assert!(said.len() < 2000, "{said}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(no_files())]

    #[test]
    fn any_bytes_can_be_read(
        (case, route) in any_request(),
        status in any_status(),
        body in prop::collection::vec(any::<u8>(), 0..400),
        retry_after in ".{0,20}",
    ) {
        let headers = vec![("Retry-After".to_owned(), retry_after)];
        let answer = Response::new(status, headers, body);
        let (bench, result) = paused().block_on(with_trouble(case, &route, move |_, _| answer.clone()));
        judge(&bench, &result)?;
    }

    #[test]
    fn any_json_can_be_read((case, route) in any_request(), status in any_status(), body in any_json()) {
        let answer = Response::new(status, Vec::new(), body.to_string());
        let (bench, result) = paused().block_on(with_trouble(case, &route, move |_, _| answer.clone()));
        judge(&bench, &result)?;
    }

    #[test]
    fn a_damaged_answer_can_be_read(
        (case, route) in any_request(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        part in prop::option::of((any::<prop::sample::Index>(), any_json())),
    ) {
        let (bench, result) = paused().block_on(with_trouble(case, &route, move |status, good| {
            Response::new(status, Vec::new(), damaged(good, &damage, part.as_ref()))
        }));
        judge(&bench, &result)?;
    }
}

/// Secrets as people make them; never a piece of an ordinary text.
fn any_secret() -> impl Strategy<Value = String> {
    "[!-~]{6}[!-~é☃\\\\\"%+/=]{6,30}"
}

/// In which disguises a secret could come out.
fn disguises(secret: &str) -> Vec<String> {
    let percent: String = secret.bytes().fold(String::new(), |mut text, byte| {
        write!(text, "%{byte:02X}").unwrap();
        text
    });
    let json = json!(secret).to_string();
    vec![
        secret.to_owned(),
        json.trim_matches('"').to_owned(),
        format!("{secret:?}").trim_matches('"').to_owned(),
        STANDARD.encode(secret),
        percent,
        secret.chars().take(8).collect(),
    ]
}

/// Everything that is logged while it stands.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn listen(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || log.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

/// A want and credentials with a secret in each place that can have one.
fn with_secrets(kind: ProviderType, secrets: &[String]) -> (Desired, Credentials) {
    let secret = |at: usize| SecretText::from(secrets[at % secrets.len()].clone());
    let header = |at: usize| Header {
        name: format!("X-{at}"),
        value: secret(at),
    };
    let want = Desired {
        secret: Some(secret(0)),
        basic_auth: Some(BasicAuth {
            username: "user".into(),
            password: secret(1),
        }),
        headers: (2..5).map(header).collect(),
        ..want(kind)
    };
    let credentials = match kind {
        ProviderType::Conpeek => Credentials::Conpeek { api_key: secret(5) },
        ProviderType::Thulium => Credentials::Thulium {
            username: "api".into(),
            password: secret(5),
        },
        ProviderType::Ricloud => Credentials::Ricloud { token: secret(5) },
        ProviderType::Autocosmos => Credentials::Autocosmos {
            app_key: "app".into(),
            app_secret: secret(5),
        },
    };
    (want, credentials)
}

/// What an upstream says that repeats everything: in its error forms, in names, values and headers.
fn echo(status: u16, secrets: &[String]) -> Response {
    let mut body = json!({
        "id": 7, "url": "https://a.example/", "Callback": "https://a.example/", "Activo": true,
        "actions": ["TICKET_CREATED"], "subscription_url": "https://a.example/",
        "error": secrets[0], "message": secrets[1], "Status": status,
        "params": { "url": secrets },
        "errors": [{ "message": format!("subscription_url {}", secrets.join(" ")), "code": 7 }],
        "Errors": { "Callback": secrets, secrets[0].clone(): [1] },
    });
    for secret in secrets {
        body[secret] = json!(secret);
    }
    let header = |name: &str, value: &String| (name.to_owned(), value.clone());
    let headers = vec![
        header("Retry-After", &secrets[0]),
        header("WWW-Authenticate", &secrets[1]),
        header("Location", &format!("https://{}", secrets[0])),
        header("Content-Type", &secrets[1]),
    ];
    Response::new(status, headers, body.to_string())
}

proptest! {
    #![proptest_config(no_files())]

    #[test]
    fn no_text_holds_a_secret(
        (case, route) in any_request(),
        status in any_status(),
        secrets in prop::collection::vec(any_secret(), 6),
        as_json in any::<bool>(),
    ) {
        let log = Log::default();
        let _guard = log.listen();
        let (want, credentials) = with_secrets(case.kind, &secrets);
        let mut texts = vec![format!("{want:?} {credentials:?}")];
        paused().block_on(async {
            let mut bench = Bench::new(case).await;
            bench.account.credentials = credentials;
            let secrets = secrets.clone();
            bench.carrier.make_trouble(&route, move |_, _| match as_json {
                true => echo(status, &secrets),
                false => Response::new(status, Vec::new(), secrets.join("\n")),
            });
            if matches!(case.op, Op::Create | Op::Change) {
                let made = Upstream::from(case.kind).create(&call(&bench.account), &want).await;
                texts.push(format!("{made:?}"));
                texts.extend(made.err().map(|error| error.to_string()));
            }
            let result = bench.call().await;
            if let Err(error) = &result {
                texts.push(format!("{error} {error:?} {:?}", Assessment::failed(error)));
            }
        });
        texts.push(log.text());
        let said = texts.join("\n");
        for secret in secrets.iter().flat_map(|secret| disguises(secret)) {
            prop_assert!(!said.contains(&secret), "{secret:?} in {said}");
        }
    }
}

#[tokio::test]
async fn the_real_transport_logs_no_secret() {
    let secrets: Vec<String> = (0..6).map(|at| format!("kr0kodil-{at}-in-the-river")).collect();
    let log = Log::default();
    let _guard = log.listen();
    for kind in KINDS {
        let (want, credentials) = with_secrets(kind, &secrets);
        let mirror = super::connections::mirror().await;
        let mut account = crate::rig::account(kind, &mirror, credentials);
        account.timeout = std::time::Duration::from_secs(30);
        let made = Upstream::from(kind).create(&call(&account), &want).await;
        let error = made.expect_err("a mirror is no upstream");
        tracing::error!(%error, ?error, "failed");
    }
    let said = log.text();
    assert!(
        said.contains("upstream answered") && said.contains("failed"),
        "{said}"
    );
    for secret in secrets.iter().flat_map(|secret| disguises(secret)) {
        assert!(!said.contains(&secret), "{secret:?} in {said}");
    }
}
