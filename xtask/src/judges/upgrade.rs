//! Helm upgrades an earlier chart to this one and rolls it back, with the operator of each, over Webhooks that use every
//! field that the earlier one knew. Nothing may change at the upstreams, and no field may get lost.

mod earlier;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::{Map, Value, json};
use upstream_doubles::{Double, Upstream};

use self::earlier::Earlier;
use super::{
    Lack, Outcome,
    chart::CHART,
    release::{KINDS, NAME, NAMESPACE, Pod, Running, Site, condition},
};
use crate::{
    programs::Programs,
    progress::{Failure, block_on, root},
};

/// Where the users' objects are; named in [`OBJECTS`] as well.
const SHOP: &str = "shop";
/// The users' objects.
const OBJECTS: &str = "tests/chart/upgrade.yaml";
/// Annotation that asks for a read-back, and where the status says that it was made.
const ASK: &str = "webhook-operator.dev/reconcile-requested-at";
const ANSWER: &str = "/status/lastHandledReconcileAt";

/// Upgrades, rolls back and uninstalls.
pub(super) fn run() -> Result<Outcome, Failure> {
    let whole = || -> Result<String, Lack> {
        let earlier = Earlier::get()?;
        let operator = Programs::build(false)?.operator;
        // The runtime's main thread is this one, which the operator's processes are bound to.
        let whole = async || {
            let site = Site::start().await?;
            Ok::<_, Lack>(upgrade_and_back(site, &earlier, &operator).await?)
        };
        block_on(async { Ok::<_, Failure>(whole().await) })?
    };
    match whole() {
        Ok(words) => Ok(Outcome::Agrees(words)),
        Err(Lack::Missing(what)) => Ok(Outcome::Missing(what)),
        Err(Lack::Failed(failure)) => Err(failure),
    }
}

async fn upgrade_and_back(site: Site, earlier: &Earlier, operator: &Path) -> Result<String, Failure> {
    site.namespace(SHOP).await?;
    let objects = objects(&site)?;
    let fields = every_field_is_set(&earlier.kinds()?, &objects)?;
    let values = site.folder().join("values.yaml");
    fs::write(&values, json!({"allowNetworks": ["127.0.0.0/8"]}).to_string())?;
    let values = values.display().to_string();
    let (then, now) = (earlier.chart(), root().join(CHART));
    let [then, now] = [then, now].map(|chart| chart.display().to_string());

    site.helm(&["install", NAME, &then, "--values", &values]).await?;
    let running = pod(&site, earlier.operator()).await?;
    site.apply(SHOP, &objects).await?;
    all_are_ready(&site, &running).await?;
    let before = Snapshot::take(&site).await?;
    let kinds_then = served(&site).await?;

    site.helm(&["upgrade", NAME, &now, "--values", &values]).await?;
    let running = roll(&site, running, operator).await?;
    read_back(&site, &running, "upgraded").await?;
    before.is_kept(&Snapshot::take(&site).await?, "after the upgrade")?;
    if served(&site).await? == kinds_then {
        return Err(Failure::new("the upgrade did not bring the newer kinds"));
    }
    remove(&site, &running, "tickets").await?;

    let before = Snapshot::take(&site).await?;
    site.helm(&["rollback", NAME, "1"]).await?;
    let running = roll(&site, running, earlier.operator()).await?;
    read_back(&site, &running, "rolled-back").await?;
    before.is_kept(&Snapshot::take(&site).await?, "after the rollback")?;
    if served(&site).await? != kinds_then {
        return Err(Failure::new("the rollback did not bring the earlier kinds back"));
    }
    remove(&site, &running, "agents").await?;

    let before = Snapshot::take(&site).await?;
    site.helm(&["uninstall", NAME, "--wait", "--timeout", "60s"])
        .await?;
    running.stop().await?;
    before.is_kept(&Snapshot::take(&site).await?, "after uninstalling")?;
    if site.kinds().await? != KINDS {
        return Err(Failure::new(format!(
            "uninstalling took kinds away: {:?} are left",
            site.kinds().await?
        )));
    }
    let words = format!(
        "{} objects with all {fields} fields of {}, {} registrations: upgraded, rolled back and uninstalled without a \
         change at an upstream or a lost field",
        before.objects.len(),
        earlier.name(),
        before.registrations.len()
    );
    site.stop().await?;
    Ok(words)
}

/// The users' objects, with the addresses of the doubles.
fn objects(site: &Site) -> Result<Vec<Value>, Failure> {
    site.doubles.follow_ricloud("backups");
    let mut text = fs::read_to_string(root().join(OBJECTS))?;
    let urls = site.doubles.urls();
    for (name, url) in urls.as_object().into_iter().flatten() {
        text = text.replace(&format!("{{{name}}}"), url.as_str().unwrap_or_default());
    }
    let authority = site.authority().replace('\n', "\\n");
    Ok(webhook_operator::yaml::parse_all(
        &text.replace("{ca}", &authority),
    )?)
}

/// How many fields the specs of these kinds have; each must be set by an object of the kind.
fn every_field_is_set(kinds: &[Value], objects: &[Value]) -> Result<usize, Failure> {
    let mut count = 0;
    let mut missing = Vec::new();
    for kind in kinds {
        let name = kind
            .pointer("/spec/names/kind")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let spec = kind.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec");
        let mut fields = BTreeSet::new();
        schema_fields(spec.unwrap_or(&Value::Null), "spec", &mut fields);
        let mut set = BTreeSet::new();
        for object in objects
            .iter()
            .filter(|object| object.get("kind") == Some(&json!(name)))
        {
            set_fields(object.get("spec").unwrap_or(&Value::Null), "spec", &mut set);
        }
        count += fields.len();
        missing.extend(fields.difference(&set).map(|field| format!("{name} {field}")));
    }
    if count == 0 || !missing.is_empty() {
        return Err(Failure::new(format!(
            "{OBJECTS} sets no {missing:?}, of {count} fields"
        )));
    }
    Ok(count)
}

fn schema_fields(schema: &Value, path: &str, fields: &mut BTreeSet<String>) {
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, schema) in properties.into_iter().flatten() {
        let path = format!("{path}.{name}");
        schema_fields(schema, &path, fields);
        fields.insert(path);
    }
    if let Some(items) = schema.get("items") {
        schema_fields(items, path, fields);
    }
}

fn set_fields(value: &Value, path: &str, set: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = format!("{path}.{name}");
                set_fields(value, &path, set);
                set.insert(path);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| set_fields(item, path, set)),
        _ => {}
    }
}

/// Starts the operator as the Deployment says.
async fn pod(site: &Site, operator: &Path) -> Result<Running, Failure> {
    let name = format!("{NAME}-webhook-operator");
    let words = ["get", "deployment", &name, "--namespace", NAMESPACE];
    Pod::of(&site.kubectl.json(&words).await?)?
        .start(site, operator)
        .await
}

/// As the Deployment does: the new pod is ready before the old one is told to go.
async fn roll(site: &Site, old: Running, operator: &Path) -> Result<Running, Failure> {
    let new = pod(site, operator).await?;
    old.stop().await?;
    Ok(new)
}

async fn webhooks(site: &Site) -> Result<Vec<Value>, Failure> {
    let list = site
        .kubectl
        .json(&["get", "webhooks", "--namespace", SHOP])
        .await?;
    Ok(list
        .get("items")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default())
}

/// Those that the operator works on.
fn active(webhooks: Vec<Value>) -> impl Iterator<Item = Value> {
    let suspended = |webhook: &Value| webhook.pointer("/spec/suspend") == Some(&json!(true));
    webhooks.into_iter().filter(move |webhook| !suspended(webhook))
}

/// Waits until there is no complaint about a Webhook that is not suspended.
async fn all(
    site: &Site,
    running: &Running,
    complaint: impl Fn(&Value) -> Option<String>,
) -> Result<(), Failure> {
    let mut complaints = Vec::new();
    let met = site
        .until("", async || {
            complaints = active(webhooks(site).await?)
                .filter_map(|webhook| Some(format!("{} {}", name(&webhook), complaint(&webhook)?)))
                .collect();
            Ok(complaints.is_empty().then_some(()))
        })
        .await;
    met.map_err(|late| running.with_log(&Failure::new(format!("{}{late}", complaints.join("; ")))))
}

async fn all_are_ready(site: &Site, running: &Running) -> Result<(), Failure> {
    all(site, running, |webhook| {
        let conditions = webhook.pointer("/status/conditions");
        (condition(webhook, "Ready") != "True")
            .then(|| format!("is not Ready: {}", conditions.unwrap_or(&Value::Null)))
    })
    .await
}

/// Has every Webhook compared with its upstream, by the operator that runs now.
async fn read_back(site: &Site, running: &Running, word: &str) -> Result<(), Failure> {
    let ask = format!("{ASK}={word}");
    let words = [
        "annotate",
        "webhooks",
        "--all",
        "--overwrite",
        "--namespace",
        SHOP,
        &ask,
    ];
    site.kubectl.run(&words).await?;
    all(site, running, |webhook| {
        (webhook.pointer(ANSWER) != Some(&json!(word))).then(|| "was not read back".to_owned())
    })
    .await?;
    all_are_ready(site, running).await
}

/// Deletes a Webhook, of which the registration has to go.
async fn remove(site: &Site, running: &Running, name: &str) -> Result<(), Failure> {
    let registered = || {
        let objects = site.doubles.thulium().objects();
        serde_json::to_string(&objects).map(|objects| objects.contains(&format!("/thulium/{name}")))
    };
    if !registered()? {
        return Err(Failure::new(format!("{name} is not registered")));
    }
    let words = ["delete", "webhook", name, "--namespace", SHOP, "--timeout=60s"];
    let deleted = site.kubectl.run(&words).await;
    deleted.map_err(|failure| running.with_log(&failure))?;
    match registered()? {
        true => Err(Failure::new(format!("{name} is deleted and still registered"))),
        false => Ok(()),
    }
}

/// The schemas that the apiserver has of our kinds.
async fn served(site: &Site) -> Result<Vec<Value>, Failure> {
    let list = site
        .kubectl
        .json(&[&["get", "crds"][..], &KINDS].concat())
        .await?;
    let items = list.get("items").and_then(Value::as_array);
    let schema = |kind: &Value| kind.pointer("/spec/versions").cloned();
    Ok(items.into_iter().flatten().filter_map(schema).collect())
}

/// What must not change.
struct Snapshot {
    /// What is kept of each object, by kind and name.
    objects: BTreeMap<String, Value>,
    /// What is registered.
    registrations: Vec<Value>,
    /// How many requests changed something at an upstream.
    changes: usize,
}

impl Snapshot {
    async fn take(site: &Site) -> Result<Self, Failure> {
        let kinds = format!("{},secrets", KINDS.join(","));
        let list = site.kubectl.json(&["get", &kinds, "--namespace", SHOP]).await?;
        let mut objects = BTreeMap::new();
        for object in list.get("items").and_then(Value::as_array).into_iter().flatten() {
            let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
            objects.insert(format!("{kind} {}", name(object)), kept(object));
        }
        let mut snapshot = Self {
            objects,
            registrations: Vec::new(),
            changes: 0,
        };
        snapshot.add(site.doubles.conpeek())?;
        snapshot.add(site.doubles.thulium())?;
        snapshot.add(site.doubles.ricloud())?;
        snapshot.add(site.doubles.autocosmos())?;
        Ok(snapshot)
    }

    fn add<U: Upstream>(&mut self, double: &Double<U>) -> Result<(), Failure> {
        self.changes += double.requests_where(|seen| seen.effect).len();
        for object in double.objects() {
            self.registrations.push(serde_json::to_value(object)?);
        }
        Ok(())
    }

    /// Compares with how it is `now`.
    fn is_kept(&self, now: &Self, when: &str) -> Result<(), Failure> {
        let mut complaints = Vec::new();
        for (name, object) in &self.objects {
            match now.objects.get(name) {
                Some(now) => lost(object, now, name, &mut complaints),
                None => complaints.push(format!("{name} is gone")),
            }
        }
        if self.changes != now.changes || self.registrations != now.registrations {
            complaints.push(format!(
                "{} requests changed something at an upstream; registered were {}, now {}",
                now.changes - self.changes,
                Value::from(self.registrations.clone()),
                Value::from(now.registrations.clone())
            ));
        }
        if self.registrations.is_empty() {
            complaints.push("nothing is registered, which shows nothing".to_owned());
        }
        match complaints.is_empty() {
            true => Ok(()),
            false => Err(Failure::new(format!("{when}: {}", complaints.join("\n")))),
        }
    }
}

/// What of an object must be the same later.
fn kept(object: &Value) -> Value {
    let paths = [
        "/spec",
        "/data",
        "/metadata/labels",
        "/metadata/finalizers",
        "/metadata/uid",
        "/status/id",
        "/status/url",
        "/status/state",
    ];
    let mut kept: Map<String, Value> = paths
        .iter()
        .filter_map(|path| Some(((*path).to_owned(), object.pointer(path)?.clone())))
        .collect();
    let annotations = object.pointer("/metadata/annotations").and_then(Value::as_object);
    for (name, value) in annotations.into_iter().flatten().filter(|(name, _)| *name != ASK) {
        kept.insert(format!("/metadata/annotations/{name}"), value.clone());
    }
    kept.into()
}

/// Names what is in `before` and not, or not the same, in `now`. That something is more is no loss.
fn lost(before: &Value, now: &Value, path: &str, complaints: &mut Vec<String>) {
    match (before, now) {
        (Value::Object(before), Value::Object(now)) => {
            for (name, value) in before {
                let path = format!("{path}.{name}");
                match now.get(name) {
                    Some(now) => lost(value, now, &path, complaints),
                    None => complaints.push(format!("{path} is lost, it was {value}")),
                }
            }
        }
        (before, now) if before == now => {}
        (before, now) => complaints.push(format!("{path} was {before} and is {now}")),
    }
}

fn name(object: &Value) -> &str {
    let name = object.pointer("/metadata/name").and_then(Value::as_str);
    name.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_named_and_what_is_more_is_not() {
        let mut complaints = Vec::new();
        let before = json!({"a": {"b": 1, "c": [1]}, "d": 2});
        lost(
            &before,
            &json!({"a": {"b": 1, "c": [1, 2], "e": 3}}),
            "spec",
            &mut complaints,
        );
        assert_eq!(
            complaints,
            ["spec.a.c was [1] and is [1,2]", "spec.d is lost, it was 2"]
        );
    }

    #[test]
    fn a_field_that_no_object_sets_is_named() {
        let kind = json!({"spec": {"names": {"kind": "Webhook"}, "versions": [{"schema": {"openAPIV3Schema": {"properties": {
            "spec": {"properties": {"url": {}, "headers": {"items": {"properties": {"name": {}, "value": {}}}}}}}}}}]}});
        let object = json!({"kind": "Webhook", "spec": {"url": "a", "headers": [{"name": "b"}]}});
        let failure = every_field_is_set(&[kind], &[object]).unwrap_err().to_string();
        assert!(failure.contains("Webhook spec.headers.value"), "{failure}");
        assert!(!failure.contains("spec.url"), "{failure}");
    }
}
