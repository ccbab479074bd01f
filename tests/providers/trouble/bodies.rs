//! Answers with a good status and a bad body, each made from the good one.

use serde_json::{Map, Value, json};

/// One way in which a body can be wrong.
pub(super) struct Body {
    pub(super) name: &'static str,
    /// What is sent instead of the good body; `None`: makes no sense for this one.
    pub(super) make: fn(&Value) -> Option<Vec<u8>>,
}

const fn body(name: &'static str, make: fn(&Value) -> Option<Vec<u8>>) -> Body {
    Body { name, make }
}

/// All of them, in the order of the table.
pub(super) const ALL: &[Body] = &[
    body("empty", |_| text("")),
    body("blank", |_| text(" \r\n")),
    body("HTML", |_| text("<!doctype html><title>kr0kodil</title>")),
    body("plain text", |_| text("OK kr0kodil")),
    body("`null`", |_| text("null")),
    body("`true`", |_| text("true")),
    body("a number", |_| text("7")),
    body("a string", |_| text("\"kr0kodil\"")),
    body("`[]`", |_| text("[]")),
    body("`{}`", |_| text("{}")),
    body("an error in JSON", |_| {
        text(
            r#"{"error":"kr0kodil","errors":[{"message":"kr0kodil","code":1}],"Errors":{"kr0kodil":["x"]},"Status":500}"#,
        )
    }),
    body("cut off", |good| {
        let whole = good.to_string();
        text(whole.get(..whole.len() / 2)?)
    }),
    body("twice", |good| text(&format!("{good}{good}"))),
    body("and more text", |good| text(&format!("{good} kr0kodil"))),
    body("in an array", |good| text(&format!("[{good}]"))),
    body("under `data`", |good| text(&json!({ "data": good }).to_string())),
    body("not UTF-8", |good| {
        let marked = each_object(good, &|object| {
            object.insert("zz".to_owned(), json!("kr0kodil@"));
        });
        Some(
            marked
                .to_string()
                .into_bytes()
                .into_iter()
                .map(|byte| if byte == b'@' { 0xff } else { byte })
                .collect(),
        )
    }),
    body("UTF-16", |good| {
        Some(
            good.to_string()
                .encode_utf16()
                .flat_map(u16::to_be_bytes)
                .collect(),
        )
    }),
    body("after a byte order mark", |good| text(&format!("\u{feff}{good}"))),
    body("100,000 levels deep", |_| Some([b'['; 100_000].to_vec())),
    body("deep in an unknown member", |good| {
        let marked = each_object(good, &|object| {
            object.insert("zz".to_owned(), json!("@"));
        });
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        text(&marked.to_string().replacen("\"@\"", &deep, 1))
    }),
    body("unknown members", |good| {
        let more = each_object(good, &|object| {
            object.insert(
                "zz".to_owned(),
                json!({ "a": [1.5, null, { "kr0kodil": "\u{0}" }] }),
            );
        });
        text(&more.to_string())
    }),
    body("every member twice", |good| text(&doubled(good))),
    body("names in capitals", |good| text(&renamed(good).to_string())),
    body("strings for all else", |good| {
        text(
            &each_leaf(good, &|leaf| match leaf {
                Value::String(_) => leaf.clone(),
                other => json!(other.to_string()),
            })
            .to_string(),
        )
    }),
    body("numbers for all", |good| {
        text(&each_leaf(good, &|_| json!(41)).to_string())
    }),
    body("objects for all", |good| {
        text(&each_leaf(good, &|_| json!({ "kr0kodil": 1 })).to_string())
    }),
    body("`null` for all", |good| {
        text(&each_leaf(good, &|_| Value::Null).to_string())
    }),
    body("no id", |good| without(good, "id")),
    body("id `null`", |good| id(good, "null")),
    body("id a string of digits", |good| id(good, "\"7\"")),
    body("id a word", |good| id(good, "\"cfg-77\"")),
    body("id a path", |good| id(good, "\"../../x?y\"")),
    body("id empty", |good| id(good, "\"\"")),
    body("id negative", |good| id(good, "-7")),
    body("id a fraction", |good| id(good, "7.5")),
    body("id `7e2`", |good| id(good, "7e2")),
    body("id beyond 64 bits", |good| {
        id(good, "123456789012345678901234567890")
    }),
    body("id two lines", |good| id(good, r#""7\nkr0kodil""#)),
    body("id of 64 KiB", |good| {
        id(good, &format!("\"{}\"", "7".repeat(1 << 16)))
    }),
    body("id `true`", |good| id(good, "true")),
    body("id an object", |good| id(good, "{\"id\":7}")),
    body("no address", |good| {
        let bare = ["url", "subscription_url", "Callback"]
            .iter()
            .fold(good.clone(), |value, name| {
                each_object(&value, &|object| {
                    object.remove(*name);
                })
            });
        (bare != *good).then(|| bare.to_string().into_bytes())
    }),
    body("another address", |good| {
        let whole = good.to_string();
        let other = whole.replace("https://a.example/", "https://c.example/");
        (other != whole).then(|| other.into_bytes())
    }),
];

#[allow(clippy::unnecessary_wraps, reason = "what the table wants")]
fn text(text: &str) -> Option<Vec<u8>> {
    Some(text.as_bytes().to_vec())
}

fn each_object(value: &Value, change: &dyn Fn(&mut Map<String, Value>)) -> Value {
    match value {
        Value::Object(object) => {
            let mut object: Map<String, Value> = object
                .iter()
                .map(|(name, value)| (name.clone(), each_object(value, change)))
                .collect();
            change(&mut object);
            Value::Object(object)
        }
        Value::Array(items) => items.iter().map(|item| each_object(item, change)).collect(),
        leaf => leaf.clone(),
    }
}

fn each_leaf(value: &Value, change: &dyn Fn(&Value) -> Value) -> Value {
    match value {
        Value::Object(object) => object
            .iter()
            .map(|(name, value)| (name.clone(), each_leaf(value, change)))
            .collect(),
        Value::Array(items) => items.iter().map(|item| each_leaf(item, change)).collect(),
        leaf => change(leaf),
    }
}

fn renamed(value: &Value) -> Value {
    match value {
        Value::Object(object) => object
            .iter()
            .map(|(name, value)| (name.to_ascii_uppercase(), renamed(value)))
            .collect(),
        Value::Array(items) => items.iter().map(renamed).collect(),
        leaf => leaf.clone(),
    }
}

fn doubled(value: &Value) -> String {
    match value {
        Value::Object(object) => {
            let members: Vec<String> = object
                .iter()
                .map(|(name, value)| {
                    let member = format!("{}:{}", json!(name), doubled(value));
                    format!("{member},{member}")
                })
                .collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(doubled).collect::<Vec<_>>().join(",")),
        leaf => leaf.to_string(),
    }
}

fn without(good: &Value, name: &str) -> Option<Vec<u8>> {
    let bare = each_object(good, &|object| {
        object.remove(name);
    });
    (bare != *good).then(|| bare.to_string().into_bytes())
}

/// The first id becomes this; the others stay, so that a list has one bad entry among good ones.
fn id(good: &Value, new: &str) -> Option<Vec<u8>> {
    let marked = each_object(good, &|object| {
        if let Some(id) = object.get_mut("id") {
            *id = json!(format!("@{id}"));
        }
    });
    let text = marked.to_string();
    let first = text.find("\"@")?;
    let (before, rest) = text.split_at(first);
    let after = rest.get(2..)?.split_once('"')?.1;
    let rest = after.replace("\"@8\"", "8");
    Some(format!("{before}{new}{rest}").into_bytes())
}
