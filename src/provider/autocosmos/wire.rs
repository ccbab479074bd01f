//! Autocosmos' bodies: builder of what is sent, reader of what is answered. Pure. Names are sent as documented
//! and read in any case.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    api::webhook_status::State,
    domain::{
        desired::{Desired, Header},
        remote::Remote,
    },
    net::{CheckedUrl, Response},
    provider::{
        Operation, ProviderError,
        wire::{member, named_fields, with_fields},
    },
};

/// What is sent: all seven members every time, because PUT replaces the whole.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Upsert<'a> {
    callback: &'a str,
    secret: Option<&'a str>,
    description: Option<&'a str>,
    activo: bool,
    header_custom01: Option<Custom<'a>>,
    header_custom02: Option<Custom<'a>>,
    header_custom03: Option<Custom<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Custom<'a> {
    name: &'a str,
    value: &'a str,
}

/// The body of POST and PUT. Headers beyond the third have been refused before.
pub(super) fn body(want: &Desired) -> Vec<u8> {
    let mut headers = want.headers.iter().map(|header| Custom {
        name: &header.name,
        value: header.value.expose(),
    });
    let upsert = Upsert {
        callback: &want.url,
        secret: want.secret.as_ref().map(|secret| secret.expose()),
        description: want.description.as_deref(),
        activo: want.active,
        header_custom01: headers.next(),
        header_custom02: headers.next(),
        header_custom03: headers.next(),
    };
    // Strings and booleans always have a JSON form.
    serde_json::to_vec(&upsert).unwrap_or_default()
}

const HEADERS: [&str; 3] = ["HeaderCustom01", "HeaderCustom02", "HeaderCustom03"];

/// A string; null and a missing member are `None`, anything else is an error.
fn text(object: &Map<String, Value>, name: &str) -> Result<Option<String>, ()> {
    match member(object, name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(()),
    }
}

/// `true`, `1`, `"true"` and their opposites.
fn flag(value: &Value) -> Result<Option<bool>, ()> {
    match value {
        Value::Null => Ok(None),
        Value::Bool(flag) => Ok(Some(*flag)),
        Value::Number(number) => match number.as_u64() {
            Some(0) => Ok(Some(false)),
            Some(1) => Ok(Some(true)),
            _ => Err(()),
        },
        Value::String(word) if word.eq_ignore_ascii_case("true") => Ok(Some(true)),
        Value::String(word) if word.eq_ignore_ascii_case("false") => Ok(Some(false)),
        _ => Err(()),
    }
}

/// The headers that are there, in order; `None`: the answer has none of the three members.
fn headers(object: &Map<String, Value>) -> Result<Option<Vec<Header>>, ()> {
    let shown: Vec<&Value> = HEADERS.iter().filter_map(|name| member(object, name)).collect();
    if shown.is_empty() {
        return Ok(None);
    }
    let mut headers = Vec::new();
    for value in shown {
        match value {
            Value::Null => {}
            Value::Object(custom) => {
                // A slot without a name sends nothing.
                if let Some(name) = text(custom, "Name")?.filter(|name| !name.is_empty()) {
                    headers.push(Header {
                        name,
                        value: text(custom, "Value")?.unwrap_or_default().into(),
                    });
                }
            }
            _ => return Err(()),
        }
    }
    Ok(Some(headers))
}

fn remote_of(topic: &str, object: &Map<String, Value>) -> Result<Remote, ()> {
    // One of these two must be there, or it is some other object.
    if member(object, "Callback").is_none() && member(object, "Activo").is_none() {
        return Err(());
    }
    let active = member(object, "Activo").map_or(Ok(None), flag)?;
    let description = match member(object, "Description") {
        None => None,
        Some(_) => Some(text(object, "Description")?.unwrap_or_default()),
    };
    Ok(Remote {
        description,
        headers: headers(object)?,
        // The upstream has no state of its own while it is on; whether the secret is shown is not documented, so
        // it is never taken from here.
        state: (active == Some(false)).then_some(State::Deactivated),
        ..Remote::new(topic, text(object, "Callback")?.unwrap_or_default())
    })
}

/// What is configured, and the answer itself for [`delete_link`]. It must show where deliveries go: nothing shown is
/// not the same as nothing there, which anybody may take.
pub(super) fn read(topic: &str, response: &Response) -> Result<(Remote, Map<String, Value>), ProviderError> {
    let operation = Operation::Read;
    let (remote, object) = parse(operation, topic, response)?;
    if member(&object, "Callback").is_none() {
        return Err(ProviderError::unexpected(operation, "it shows no Callback"));
    }
    Ok((remote, object))
}

fn parse(
    operation: Operation,
    topic: &str,
    response: &Response,
) -> Result<(Remote, Map<String, Value>), ProviderError> {
    let unexpected = || ProviderError::unexpected(operation, "it is not a webhook configuration");
    // The parser's own message can quote the answer, so it stays here.
    let object: Map<String, Value> = serde_json::from_slice(response.body()).map_err(|_| unexpected())?;
    let remote = remote_of(topic, &object).map_err(|()| unexpected())?;
    Ok((remote, object))
}

/// What a write's 2xx says is there. An answer without a body confirms what was sent.
pub(super) fn written(
    operation: Operation,
    topic: &str,
    want: &Desired,
    response: &Response,
) -> Result<Remote, ProviderError> {
    if response.body().trim_ascii().is_empty() {
        let state = (!want.active).then_some(State::Deactivated);
        return Ok(Remote {
            state,
            ..Remote::new(topic, want.url.clone())
        });
    }
    parse(operation, topic, response).map(|(remote, _)| remote)
}

/// Path and query, to be appended to `base`, of a link by which this very configuration says that it can be
/// deleted: any relation whose method is DELETE. The names of relations are not documented.
///
/// A link to another server, or to anything but `own` (the path of the configuration, below `base`) and what is
/// below it, is passed over: an answer must not decide what else gets deleted with our credentials.
pub(super) fn delete_link(object: &Map<String, Value>, base: &str, own: &str) -> Option<String> {
    let Some(Value::Object(links)) = member(object, "_links") else {
        return None;
    };
    links
        .values()
        .flat_map(|link| match link {
            Value::Array(several) => several.as_slice(),
            one => std::slice::from_ref(one),
        })
        .filter_map(Value::as_object)
        .filter(
            |link| matches!(text(link, "method"), Ok(Some(method)) if method.eq_ignore_ascii_case("DELETE")),
        )
        .filter_map(|link| text(link, "href").ok().flatten())
        .find_map(|href| own_link(&href, base, own))
}

fn own_link(href: &str, base: &str, own: &str) -> Option<String> {
    let there = CheckedUrl::parse(&format!("{base}{own}")).ok()?;
    let prefix = CheckedUrl::parse(base)
        .ok()?
        .path()
        .trim_end_matches('/')
        .to_owned();
    let target = if let Some(rest) = href.strip_prefix('/').filter(|rest| !rest.starts_with('/')) {
        // A gateway in front may add a path that the upstream knows nothing of.
        let known = !prefix.is_empty() && href.starts_with(&format!("{prefix}/"));
        let prefix = if known { "" } else { prefix.as_str() };
        CheckedUrl::parse(&format!("{}{prefix}/{rest}", there.origin())).ok()?
    } else {
        CheckedUrl::parse(href).ok()?
    };
    if target.origin() != there.origin() {
        return None;
    }
    let path = target.path().strip_prefix(prefix.as_str())?;
    let below = path.strip_prefix(there.path().strip_prefix(prefix.as_str())?)?;
    if !below.is_empty() && !below.starts_with('/') {
        return None;
    }
    Some(
        target
            .query()
            .map_or_else(|| path.to_owned(), |query| format!("{path}?{query}")),
    )
}

/// The refusal, with the fields of the spec that it names. (`_` stands for the whole entry.)
pub(super) fn refused(error: ProviderError, response: &Response) -> ProviderError {
    let known = [
        ("Callback", "url"),
        ("Secret", "secretRef"),
        ("Description", "description"),
        ("Activo", "active"),
        ("HeaderCustom01", "headers"),
        ("HeaderCustom02", "headers"),
        ("HeaderCustom03", "headers"),
    ];
    with_fields(error, &named_fields(response, "Errors", &known))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::ErrorClass;

    const SEED: &str = r#"{"Callback":"https://callbacks.myapp.com/autocosmos/event","Secret":null,"Description":"Mi callback para algo","Activo":true,"HeaderCustom01":{"Name":"X-MYAPP-PRODUCER","Value":"Autocosmos"},"HeaderCustom02":null,"HeaderCustom03":null}"#;

    fn header(name: &str, value: &str) -> Header {
        Header {
            name: name.into(),
            value: value.into(),
        }
    }

    fn seed() -> Desired {
        Desired {
            target: Some("invitaciones".into()),
            url: "https://callbacks.myapp.com/autocosmos/event".into(),
            description: Some("Mi callback para algo".into()),
            active: true,
            headers: vec![header("X-MYAPP-PRODUCER", "Autocosmos")],
            ..Desired::default()
        }
    }

    fn answer(body: &str) -> Response {
        Response::new(200, Vec::new(), body)
    }

    #[test]
    fn the_documented_body_byte_for_byte() {
        assert_eq!(String::from_utf8(body(&seed())).unwrap(), SEED);
    }

    #[test]
    fn all_seven_members_go_every_time() {
        let want = Desired {
            url: "https://a.example/".into(),
            ..Desired::default()
        };
        assert_eq!(
            String::from_utf8(body(&want)).unwrap(),
            r#"{"Callback":"https://a.example/","Secret":null,"Description":null,"Activo":false,"HeaderCustom01":null,"HeaderCustom02":null,"HeaderCustom03":null}"#
        );
        let want = Desired {
            url: "https://hooks.example.test/acs".into(),
            secret: Some("whop-demo-secret-0001".into()),
            description: Some("demo".into()),
            active: true,
            headers: vec![header("X-Env", "dev"), header("B", "2"), header("A", "1")],
            ..Desired::default()
        };
        assert_eq!(
            String::from_utf8(body(&want)).unwrap(),
            r#"{"Callback":"https://hooks.example.test/acs","Secret":"whop-demo-secret-0001","Description":"demo","Activo":true,"HeaderCustom01":{"Name":"X-Env","Value":"dev"},"HeaderCustom02":{"Name":"B","Value":"2"},"HeaderCustom03":{"Name":"A","Value":"1"}}"#
        );
    }

    #[test]
    fn the_documented_answer() {
        let body = SEED.strip_suffix('}').unwrap();
        let links = r#""_links":{"rel1":{"href":"/v3/appnotificaciones/somevalue"},"rel2":{"href":"/v3/appnotificaciones/somevalue","method":"PUT"}}"#;
        let (remote, object) = read("t", &answer(&format!("{body},{links}}}"))).unwrap();
        assert!(crate::domain::remote::differences(&seed(), &remote).is_empty());
        assert_eq!(
            (remote.id.0.as_str(), remote.state, remote.secret),
            ("t", None, None)
        );
        assert_eq!(
            delete_link(&object, "https://h", "/v3/appnotificaciones/somevalue"),
            None
        );
    }

    #[test]
    fn names_in_any_case_and_flags_in_any_form() {
        let read = |body: &str| parse(Operation::Update, "t", &answer(body)).map(|(remote, _)| remote);
        let odd = read(
            r#"{"callback":"https://a/","ACTIVO":0,"description":null,"secret":"kr0kodil","headerCustom01":{"name":"A","VALUE":null},"headercustom02":{"Name":""},"x":[]}"#,
        )
        .unwrap();
        assert_eq!(odd.url, "https://a/");
        assert_eq!(odd.state, Some(State::Deactivated));
        assert_eq!(odd.description.as_deref(), Some(""));
        assert_eq!(odd.headers, Some(vec![header("A", "")]));
        assert_eq!(odd.secret, None);
        for (word, state) in [
            ("true", None),
            ("1", None),
            ("null", None),
            ("\"False\"", Some(State::Deactivated)),
        ] {
            assert_eq!(
                read(&format!(r#"{{"Activo":{word}}}"#)).unwrap().state,
                state,
                "{word}"
            );
        }
        let bare = read(r#"{"Callback":null}"#).unwrap();
        assert_eq!(
            (bare.url.as_str(), bare.description, bare.headers),
            ("", None, None)
        );
    }

    #[test]
    fn other_shapes_are_unexpected() {
        for body in [
            "",
            "[]",
            "{}",
            "<html>",
            r#"{"Status":200}"#,
            r#"{"Callback":1}"#,
            r#"{"Activo":true}"#,
            r#"{"Callback":"https://a/","Activo":2}"#,
            r#"{"Callback":"https://a/","HeaderCustom01":"X"}"#,
            r#"{"Callback":"https://a/","Description":{}}"#,
        ] {
            let error = read("t", &answer(body)).unwrap_err();
            assert_eq!(error.class, ErrorClass::Unexpected, "{body}");
        }
    }

    #[test]
    fn a_write_without_an_answer_body_confirms_what_was_sent() {
        let remote = written(
            Operation::Update,
            "t",
            &seed(),
            &Response::new(204, Vec::new(), ""),
        )
        .unwrap();
        assert_eq!((remote.url.as_str(), remote.state), (seed().url.as_str(), None));
        let off = Desired {
            active: false,
            ..seed()
        };
        let remote = written(Operation::Update, "t", &off, &Response::new(200, Vec::new(), " ")).unwrap();
        assert_eq!(remote.state, Some(State::Deactivated));
        assert!(written(Operation::Update, "t", &off, &answer("<html>")).is_err());
    }

    #[test]
    fn a_delete_link_counts_only_for_the_configuration_itself() {
        const OWN: &str = "/v3/appnotificaciones/a%20b";
        let find = |base: &str, href: &str| {
            let json =
                serde_json::json!({"_links": {"x": {"href": OWN}, "y": {"Method": "delete", "Href": href}}});
            let Value::Object(object) = json else {
                panic!("no object")
            };
            delete_link(&object, base, OWN)
        };
        let own = || Some(OWN.to_owned());
        for (base, href, path) in [
            ("https://h", OWN, own()),
            ("https://h", "https://h/v3/appnotificaciones/a%20b", own()),
            ("https://h", "https://H:443/v3/appnotificaciones/a%20b", own()),
            (
                "https://h",
                "/v3/appnotificaciones/a%20b?x=1",
                Some(format!("{OWN}?x=1")),
            ),
            (
                "https://h",
                "/v3/appnotificaciones/a%20b/suscripcion",
                Some(format!("{OWN}/suscripcion")),
            ),
            ("https://h/gate", OWN, own()),
            ("https://h/gate", "/gate/v3/appnotificaciones/a%20b", own()),
            (
                "https://h/gate",
                "https://h/gate/v3/appnotificaciones/a%20b",
                own(),
            ),
            (
                "https://h",
                "https://evil.example/v3/appnotificaciones/a%20b",
                None,
            ),
            ("https://h", "//evil.example/v3/appnotificaciones/a%20b", None),
            ("https://h", "http://h/v3/appnotificaciones/a%20b", None),
            ("https://h", "https://h:8443/v3/appnotificaciones/a%20b", None),
            ("https://h", "https://u:p@h/v3/appnotificaciones/a%20b", None),
            ("https://h", "/v3/appnotificaciones/a%20bc", None),
            ("https://h", "/v3/appnotificaciones/a%20b/../other", None),
            ("https://h", "/v3/app", None),
            ("https://h", "", None),
        ] {
            assert_eq!(find(base, href), path, "{base} {href}");
        }
    }

    #[test]
    fn links_of_another_shape_are_no_links() {
        for json in [
            r#"{"_links":null}"#,
            r#"{"_links":[]}"#,
            r#"{"_links":{"a":"x","b":[7],"c":{"method":"DELETE"},"d":{"method":7,"href":"/v3/t"}}}"#,
        ] {
            let object: Map<String, Value> = serde_json::from_str(json).unwrap();
            assert_eq!(delete_link(&object, "https://h", "/v3/t"), None);
        }
        let several = r#"{"_links":{"a":[{"href":"/v3/t"},{"href":"/v3/t","method":"DELETE"}]}}"#;
        let object: Map<String, Value> = serde_json::from_str(several).unwrap();
        assert_eq!(
            delete_link(&object, "https://h", "/v3/t").as_deref(),
            Some("/v3/t")
        );
    }

    #[test]
    fn the_documented_refusal_names_no_field_and_a_known_one_does() {
        let refuse = |body: &str| {
            let error = ProviderError::from_status(Operation::Update, 400, None).unwrap();
            refused(error, &Response::new(400, Vec::new(), body)).to_string()
        };
        let seed =
            r#"{"Errors":{"_":["entry problem1","entry problem2"],"property1":["problem 1"]},"Status":400}"#;
        assert_eq!(
            refuse(seed),
            "the upstream refused to update (400); correct the Webhook's spec"
        );
        assert_eq!(
            refuse(r#"{"Errors":{"Secret":["kr0kodil"],"headercustom02":["x"],"HeaderCustom03":["x"]}}"#),
            "the upstream refused to update (400) because of: secretRef, headers; correct the Webhook's spec"
        );
    }
}
