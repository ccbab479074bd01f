//! Helm installs the chart into a real control plane, the operator runs as the Deployment says, and a Webhook becomes
//! valid: for the whole cluster, and for one namespace. Then helm takes it away, and what must stay is there.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Lack, Outcome,
    chart::{CHART, tools},
    release::{KINDS, NAME, NAMESPACE, Pod, Running, Site},
};
use crate::{
    programs::Programs,
    progress::{Failure, block_on, root},
};

/// Where the Webhook is.
const SHOP: &str = "shop";
/// Where another one is, which an operator that serves [`SHOP`] must not touch.
const OTHER: &str = "other";
/// Name of the Webhook.
const WEBHOOK: &str = "backups";

/// What the operator makes in its own namespace, for the next one: helm knows nothing of it.
const LEFT: [&str; 2] = [
    "Lease hooks-system/webhook-operator",
    "Secret hooks-system/webhook-operator-hash-key",
];

/// Installs, works, and uninstalls in both modes.
pub(super) fn run() -> Result<Outcome, Failure> {
    let operator = Programs::build(false)?.operator;
    let whole = async || {
        let cluster = cluster_mode(&operator).await?;
        let namespaced = namespaced_mode(&operator).await?;
        Ok::<_, Lack>(format!(
            "from `helm install` to a valid Webhook {cluster:.1} s (serving the cluster) and {namespaced:.1} s (serving \
             one namespace); uninstalled and installed again with the same registration; the kinds stay unless asked, \
             and nothing else of the release does"
        ))
    };
    // The runtime's main thread is this one, which the operator's processes are bound to.
    match block_on(async { Ok::<_, Failure>(whole().await) })? {
        Ok(words) => Ok(Outcome::Agrees(words)),
        Err(Lack::Missing(what)) => Ok(Outcome::Missing(what)),
        Err(Lack::Failed(failure)) => Err(failure),
    }
}

/// Everything on, all namespaces.
async fn cluster_mode(operator: &Path) -> Result<f64, Lack> {
    let site = Site::start().await?;
    for kinds in tools::prometheus_kinds()? {
        let file = kinds.display().to_string();
        site.kubectl.run(&["apply", "--server-side", "-f", &file]).await?;
    }
    site.namespace(SHOP).await?;
    let before = site.inventory().await?;
    let values = json!({
        "replicas": 2,
        "allowNetworks": ["127.0.0.0/8"],
        "grafanaDashboard": {"enabled": true},
        "networkPolicy": {"enabled": true},
        "prometheusRule": {"enabled": true},
        "serviceMonitor": {"enabled": true},
    });
    let install = Install::new(&site, operator, &values)?;

    let began = Instant::now();
    install.install().await?;
    let running = install.run().await?;
    let account = account(&site);
    site.apply(SHOP, &account).await?;
    let webhook = valid(&site, &running).await?;
    let took = began.elapsed();

    keeps_the_kinds(&install, running, &webhook, &before).await?;
    gives_the_kinds_up_when_asked(&install, &before).await?;
    site.stop().await?;
    Ok(took.as_secs_f64())
}

/// Uninstalled, the Webhook, its registration and its kind are there, and nothing else of the release is; installed
/// again, it is the same Webhook with the same registration.
async fn keeps_the_kinds(
    install: &Install<'_>,
    running: Running,
    webhook: &Value,
    before: &BTreeSet<String>,
) -> Result<(), Failure> {
    let site = install.site;
    install.uninstall().await?;
    running.stop().await?;
    let expected = with_what_stays(site, before.clone(), &[SHOP]);
    same("after `helm uninstall`", &expected, &site.inventory().await?)?;

    // Kinds that stayed belong to the release that brought them.
    match install.install_as("others").await {
        Err(failure) if failure.to_string().contains("invalid ownership metadata") => {}
        Err(failure) => return Err(failure),
        Ok(()) => return Err(Failure::new("helm lets another release take the kinds")),
    }
    let created = creates(site);
    install.install().await?;
    let running = install.run().await?;
    let again = valid(site, &running).await?;
    if again.pointer("/metadata/uid") != webhook.pointer("/metadata/uid")
        || again.pointer("/status/id") != webhook.pointer("/status/id")
        || creates(site) != created
        || created != 1
    {
        return Err(Failure::new(format!(
            "installed again, it is another registration: {created} creates before, {} now; {webhook} became {again}",
            creates(site)
        )));
    }
    site.kubectl
        .run(&["delete", "webhook", WEBHOOK, "--namespace", SHOP, "--timeout=60s"])
        .await
        .map_err(|failure| running.with_log(&failure))?;
    // The garbage collector's work, which it cannot do once the owner's kind is gone.
    let signing = ["get", "secrets", "--namespace", SHOP, "-o", "name"];
    site.until("the signing secret stays without its Webhook", async || {
        let secrets = site.kubectl.run(&signing).await?;
        Ok((!secrets.contains("-signing")).then_some(()))
    })
    .await?;
    // Left out of the chart, they are kept as well: whoever lets another tool bring them goes this way.
    install.upgrade(&json!({"crds": {"enabled": false}})).await?;
    same(
        "left out of the chart",
        &kinds(),
        &site.kinds().await?.into_iter().collect(),
    )?;
    install.upgrade(&json!({})).await?;
    running.stop().await
}

/// Only what is asked for beforehand takes the kinds away.
async fn gives_the_kinds_up_when_asked(
    install: &Install<'_>,
    before: &BTreeSet<String>,
) -> Result<(), Failure> {
    let site = install.site;
    install.upgrade(&json!({"crds": {"keep": false}})).await?;
    install.uninstall().await?;
    site.until(
        "the kinds are there, although they were not to be kept",
        async || Ok(site.kinds().await?.is_empty().then_some(())),
    )
    .await?;
    let mut expected: BTreeSet<String> = before.clone();
    expected.extend(LEFT.map(str::to_owned));
    expected.insert(format!("Secret {SHOP}/ricloud-account"));
    same("without the kinds", &expected, &site.inventory().await?)
}

/// One namespace, with Roles only.
async fn namespaced_mode(operator: &Path) -> Result<f64, Lack> {
    let site = Site::start().await?;
    site.namespace(SHOP).await?;
    site.namespace(OTHER).await?;
    let before = site.inventory().await?;
    let values = json!({"watchNamespaces": [SHOP], "allowNetworks": ["127.0.0.0/8"]});
    let install = Install::new(&site, operator, &values)?;

    let began = Instant::now();
    install.install().await?;
    let running = install.run().await?;
    // First where nobody is served, so that it had the time to be seen.
    site.apply(OTHER, &account(&site)).await?;
    site.apply(SHOP, &account(&site)).await?;
    valid(&site, &running).await?;
    let took = began.elapsed();

    let inventory = site.inventory().await?;
    let wide: Vec<&String> = inventory
        .iter()
        .filter(|object| object.starts_with("ClusterRole") && object.contains(NAME))
        .collect();
    if !wide.is_empty() {
        return Err(Failure::new(format!("rights for the whole cluster: {wide:?}")).into());
    }
    let untouched = site
        .kubectl
        .json(&["get", "webhook", WEBHOOK, "--namespace", OTHER])
        .await?;
    if untouched.pointer("/status/observedGeneration") != Some(&json!(-1))
        || untouched.pointer("/metadata/finalizers").is_some()
        || creates(&site) != 1
    {
        return Err(Failure::new(format!("a namespace that is not served was: {untouched}")).into());
    }
    install.uninstall().await?;
    running.stop().await?;
    let expected = with_what_stays(&site, before, &[SHOP, OTHER]);
    same("after `helm uninstall`", &expected, &site.inventory().await?)?;
    site.stop().await?;
    Ok(took.as_secs_f64())
}

/// The chart of the checkout with values of its own, and the operator for it.
struct Install<'s> {
    site: &'s Site,
    operator: &'s Path,
    values: String,
}

impl<'s> Install<'s> {
    fn new(site: &'s Site, operator: &'s Path, values: &Value) -> Result<Self, Failure> {
        let file = site.folder().join("values.yaml");
        fs::write(&file, values.to_string())?;
        let values = file.display().to_string();
        Ok(Self {
            site,
            operator,
            values,
        })
    }

    async fn install(&self) -> Result<(), Failure> {
        self.install_as(NAME).await
    }

    async fn install_as(&self, name: &str) -> Result<(), Failure> {
        let chart = root().join(CHART).display().to_string();
        let words = ["install", name, &chart, "--values", &self.values];
        self.site.helm(&words).await.map(drop)
    }

    /// With some values more.
    async fn upgrade(&self, more: &Value) -> Result<(), Failure> {
        let chart = root().join(CHART).display().to_string();
        let file = self.site.folder().join("more-values.yaml");
        fs::write(&file, more.to_string())?;
        let more = file.display().to_string();
        let words = [
            "upgrade",
            NAME,
            &chart,
            "--values",
            &self.values,
            "--values",
            &more,
        ];
        self.site.helm(&words).await.map(drop)
    }

    /// `--wait` because what helm has told the apiserver to delete may be there for a moment.
    async fn uninstall(&self) -> Result<(), Failure> {
        let words = ["uninstall", NAME, "--wait", "--timeout", "60s"];
        self.site.helm(&words).await.map(drop)
    }

    /// Starts the operator as a pod of the Deployment.
    async fn run(&self) -> Result<Running, Failure> {
        let name = format!("{NAME}-webhook-operator");
        let words = ["get", "deployment", &name, "--namespace", NAMESPACE];
        Pod::of(&self.site.kubectl.json(&words).await?)?
            .start(self.site, self.operator)
            .await
    }
}

/// An account at the double of ricloud, and a Webhook there: the upstream tests it itself, at the doubles' receiver.
fn account(site: &Site) -> [Value; 3] {
    site.doubles.follow_ricloud(WEBHOOK);
    let url = format!("{}/ricloud/{WEBHOOK}", site.doubles.receiver().url());
    let ours = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "webhook-operator.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let base_url = site.doubles.ricloud().url();
    [
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ricloud-account"},
            "stringData": {"token": "demo-ricloud-token"},
        }),
        ours(
            "WebhookProvider",
            "ricloud",
            json!({"type": "Ricloud", "baseUrl": base_url, "credentialsRef": {"name": "ricloud-account"}}),
        ),
        ours(
            "Webhook",
            WEBHOOK,
            json!({"providerRef": {"name": "ricloud"}, "url": url}),
        ),
    ]
}

/// An inventory with what is more when helm has taken the release away, with an account in each of these namespaces.
fn with_what_stays(site: &Site, mut inventory: BTreeSet<String>, namespaces: &[&str]) -> BTreeSet<String> {
    inventory.extend(LEFT.map(str::to_owned));
    inventory.extend(KINDS.map(|kind| format!("CustomResourceDefinition {kind}")));
    for namespace in namespaces {
        for object in account(site) {
            let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
            inventory.insert(format!(
                "{} {namespace}/{}",
                text("/kind"),
                text("/metadata/name")
            ));
        }
    }
    // What ricloud made.
    inventory.insert(format!("Secret {SHOP}/{WEBHOOK}-signing"));
    inventory
}

async fn valid(site: &Site, running: &Running) -> Result<Value, Failure> {
    let settled = site.settled(SHOP, WEBHOOK, "valid").await;
    settled.map_err(|failure| running.with_log(&failure))
}

/// How many registrations were made so far.
fn creates(site: &Site) -> usize {
    let made = |seen: &upstream_doubles::Seen| {
        seen.method == "POST" && seen.path.ends_with("/webhook") && seen.effect
    };
    site.doubles.ricloud().requests_where(made).len()
}

fn kinds() -> BTreeSet<String> {
    KINDS.map(str::to_owned).into()
}

fn same(when: &str, expected: &BTreeSet<String>, there: &BTreeSet<String>) -> Result<(), Failure> {
    if expected == there {
        return Ok(());
    }
    let missing: Vec<&String> = expected.difference(there).collect();
    let extra: Vec<&String> = there.difference(expected).collect();
    Err(Failure::new(format!(
        "{when}, missing: {missing:?}; left: {extra:?}"
    )))
}
