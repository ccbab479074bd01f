//! Helm and four other programs judge the chart: each set of values in its folder `ci/` is linted, rendered, held
//! against the schemas that a real apiserver serves, and scored; then the chart's unit tests run, and its README is
//! compared with what helm-docs makes of the values.

mod schemas;
mod score;
pub(super) mod tools;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use control_plane::{ControlPlane, Options, assets};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use self::tools::Tools;
use super::{Lack, Outcome, ask};
use crate::{
    control_plane::launcher,
    kubectl::Kubectl,
    progress::{Failure, block_on, root},
};

/// The chart.
pub(super) const CHART: &str = "charts/webhook-operator";

/// Name and namespace of what is rendered.
const RELEASE: [&str; 2] = ["webhook-operator", "webhook-operator"];

/// Kinds that are served a moment after their definitions are there.
const LATE: [&str; 4] = [
    "webhook-operator.dev-v1alpha1-webhook",
    "webhook-operator.dev-v1alpha1-clusterwebhookprovider",
    "monitoring.coreos.com-v1-servicemonitor",
    "monitoring.coreos.com-v1-prometheusrule",
];
const SERVED_LIMIT: Duration = Duration::from_secs(60);

/// What the judges judge by.
struct Bench {
    tools: Tools,
    /// A schema for each kind that is served; goes with this value.
    schemas: TempDir,
    kinds: usize,
    /// Version of the apiserver, as `v1.36.3`.
    version: String,
}

/// Asks all of them.
pub(super) fn run() -> Result<Outcome, Failure> {
    let tools = match Tools::get() {
        Ok(tools) => tools,
        Err(Lack::Missing(what)) => return Ok(Outcome::Missing(what)),
        Err(Lack::Failed(failure)) => return Err(failure),
    };
    let bench = block_on(Bench::set_up(tools))?;
    let mut complaints = Vec::new();
    complaints.extend(bench.refuses_what_is_wrong()?);

    let sets = value_sets()?;
    let (mut objects, mut checks, mut accepted) = (0, 0, 0);
    for values in &sets {
        let name = values
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let complain = |what: String| format!("{name}: {what}");
        complaints.extend(bench.lint(values)?.map(complain));
        let manifests = match bench.render(values)? {
            Ok(manifests) => manifests,
            Err(why) => {
                complaints.push(complain(why));
                continue;
            }
        };
        let conformity = bench.conform(&manifests)?;
        objects += conformity.summary.valid;
        complaints.extend(conformity.complaints().map(complain));
        let score = score::score(&bench.tools.kube_score, &name, &bench.version, &manifests)?;
        checks += score.passed;
        accepted += score.accepted;
        complaints.extend(score.complaints.into_iter().map(complain));
    }
    let (plain, wrong) = bench.plain_manifests()?;
    complaints.extend(wrong);
    let tests = bench.unit_tests()?;
    let tests = tests.unwrap_or_else(|why| {
        complaints.push(why);
        0
    });
    complaints.extend(bench.readme()?);

    if complaints.is_empty() {
        return Ok(Outcome::Agrees(format!(
            "{} sets of values linted; their {objects} objects and {plain} plain ones, by {} kinds served by {}; \
             {checks} checks of kube-score ({accepted} accepted failures), {tests} unit tests, the README",
            sets.len(),
            bench.kinds,
            bench.version
        )));
    }
    Err(Failure::new(complaints.join("\n")))
}

/// The sets of values that stand for how the chart is used.
fn value_sets() -> Result<Vec<PathBuf>, Failure> {
    let folder = root().join(CHART).join("ci");
    let mut sets = Vec::new();
    for entry in fs::read_dir(&folder)? {
        sets.push(entry?.path());
    }
    sets.sort();
    if sets.is_empty() {
        return Err(Failure::new(format!("no values in {}", folder.display())));
    }
    Ok(sets)
}

impl Bench {
    /// Takes the schemas from a control plane that is stopped again.
    async fn set_up(tools: Tools) -> Result<Self, Failure> {
        let kubectl = assets::kubectl().await?;
        let options = Options {
            // Nothing is done with the objects.
            controllers: Vec::new(),
            launcher: launcher(),
            ..Options::default()
        };
        let plane = ControlPlane::start(options).await?;
        let kubectl = Kubectl::with(&kubectl, plane.kubeconfig());
        for kinds in [
            &root().join("crds"),
            &tools.prometheus_kinds[0],
            &tools.prometheus_kinds[1],
        ] {
            let kinds = kinds.display().to_string();
            kubectl.run(&["apply", "--server-side", "-f", &kinds]).await?;
        }
        let schemas = tempfile::tempdir()?;
        let began = Instant::now();
        let kinds = loop {
            let kinds = schemas::write(&kubectl, schemas.path()).await?;
            if LATE.iter().all(|kind| kinds.contains(*kind)) {
                break kinds.len();
            }
            if began.elapsed() > SERVED_LIMIT {
                return Err(Failure::new(format!(
                    "not all of {} are served after {SERVED_LIMIT:?}",
                    LATE.join(", ")
                )));
            }
            sleep(Duration::from_millis(500)).await;
        };
        let version = kubectl.json(&["version"]).await?;
        let version = version
            .pointer("/serverVersion/gitVersion")
            .and_then(Value::as_str);
        let version = version.unwrap_or_default().to_owned();
        plane.stop().await?;
        Ok(Self {
            tools,
            schemas,
            kinds,
            version,
        })
    }

    fn helm(&self, words: &[&str], values: &Path) -> Command {
        let mut helm = Command::new(self.tools.helm.path());
        helm.args(words)
            .args(["--kube-version", &self.version, "--values"])
            .arg(values)
            .current_dir(root());
        helm
    }

    fn lint(&self, values: &Path) -> Result<Option<String>, Failure> {
        let output = ask(
            &mut self.helm(&["lint", "--strict", CHART], values),
            String::new(),
        )?;
        let said = String::from_utf8_lossy(&output.stdout);
        Ok((!output.status.success()).then(|| format!("helm lint --strict: {}", said.trim())))
    }

    /// The manifests, or why there are none.
    fn render(&self, values: &Path) -> Result<Result<String, String>, Failure> {
        let [name, namespace] = RELEASE;
        let words = ["template", name, CHART, "--namespace", namespace];
        let output = ask(self.helm(&words, values).stderr(Stdio::piped()), String::new())?;
        if output.status.success() {
            return Ok(Ok(String::from_utf8(output.stdout)?));
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Ok(Err(format!("helm template: {}", said.trim())))
    }

    fn conform(&self, manifests: &str) -> Result<Conformity, Failure> {
        let schemas = format!("{}/{}", self.schemas.path().display(), schemas::NAMES);
        let mut kubeconform = Command::new(self.tools.kubeconform.path());
        kubeconform
            .args([
                "-strict",
                "-summary",
                "-output",
                "json",
                "-schema-location",
                &schemas,
                "-",
            ])
            // How it ended says no more than what it prints.
            .stderr(Stdio::inherit());
        let output = ask(&mut kubeconform, manifests.to_owned())?;
        serde_json::from_slice(&output.stdout)
            .map_err(|error| Failure::new(format!("kubeconform's answer cannot be read: {error}")))
    }

    /// The schemas are made here, so that each kind of mistake is tried: what accepts everything agrees with everything.
    fn refuses_what_is_wrong(&self) -> Result<Option<String>, Failure> {
        let service = |spec: Value| {
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": spec})
                .to_string()
        };
        let port = json!([{"port": 1, "targetPort": "http"}]);
        let right = service(json!({"ports": port.clone()}));
        let wrong = [
            ("a field that is not there", service(json!({"ports": port, "port": 1}))),
            ("a number as text", service(json!({"ports": [{"port": "1"}]}))),
            ("what is required left out", service(json!({"ports": [{"name": "http"}]}))),
            ("a key twice", "apiVersion: v1\nkind: Service\nmetadata: {name: a, name: a}\n".to_owned()),
            ("a kind that is not served", right.replace("Service", "Servlet")),
            (
                "a number as text, in a kind of ours",
                json!({
                    "apiVersion": "webhook-operator.dev/v1alpha1", "kind": "Webhook", "metadata": {"name": "a"},
                    "spec": {"providerRef": {"name": "a"}, "url": "https://example.com", "events": [1]},
                })
                .to_string(),
            ),
        ];
        if let Some(complaint) = self.conform(&right)?.complaints().next() {
            return Ok(Some(format!(
                "the schemas refuse a Service that is right: {complaint}"
            )));
        }
        for (what, manifest) in wrong {
            if self.conform(&manifest)?.summary.valid > 0 {
                return Ok(Some(format!("the schemas accept {what}")));
            }
        }
        Ok(None)
    }

    /// How many objects of the manifests that need no rendering are right, and what is wrong with the others.
    fn plain_manifests(&self) -> Result<(usize, Vec<String>), Failure> {
        let mut files = Vec::new();
        for folder in [
            "examples/autocosmos",
            "examples/conpeek",
            "examples/ricloud",
            "examples/thulium",
        ] {
            for entry in fs::read_dir(root().join(folder))? {
                files.push(entry?.path());
            }
        }
        for file in [
            "examples/shared-account/shared.yaml",
            "config/rbac.yaml",
            "config/deployment.yaml",
        ] {
            files.push(root().join(file));
        }
        let (mut valid, mut complaints) = (0, Vec::new());
        for file in files {
            let conformity = self.conform(&fs::read_to_string(&file)?)?;
            valid += conformity.summary.valid;
            complaints.extend(
                conformity
                    .complaints()
                    .map(|what| format!("{}: {what}", file.display())),
            );
        }
        Ok((valid, complaints))
    }

    /// How many passed, or what failed.
    fn unit_tests(&self) -> Result<Result<usize, String>, Failure> {
        let mut unittest = Command::new(self.tools.helm_unittest.path());
        unittest
            .args(["--strict", "--color=false", CHART])
            .current_dir(root());
        let output = ask(&mut unittest, String::new())?;
        let said = String::from_utf8_lossy(&output.stdout);
        // `Tests:       38 passed, 38 total`
        let passed = said.lines().find_map(|line| {
            let mut words = line.strip_prefix("Tests:")?.split_whitespace();
            words.find_map(|word| word.parse::<usize>().ok())
        });
        match passed.filter(|_| output.status.success()) {
            Some(passed) if passed > 0 => Ok(Ok(passed)),
            _ => Ok(Err(format!("helm-unittest: {}", said.trim()))),
        }
    }

    /// What is wrong with the README.
    fn readme(&self) -> Result<Option<String>, Failure> {
        let mut docs = Command::new(self.tools.helm_docs.path());
        docs.args([
            "--dry-run",
            "--log-level",
            "warning",
            "--chart-search-root",
            CHART,
        ])
        .current_dir(root());
        let output = ask(&mut docs, String::new())?;
        let made = String::from_utf8(output.stdout)?;
        let file = format!("{CHART}/README.md");
        let there = fs::read_to_string(root().join(&file))?;
        if output.status.success() && made.trim() == there.trim() {
            return Ok(None);
        }
        let (mut made, mut there) = (made.lines(), there.lines());
        let differs = loop {
            match (made.next(), there.next()) {
                (Some(made), Some(there)) if made == there => {}
                (made, there) => break (made.unwrap_or_default(), there.unwrap_or_default()),
            }
        };
        Ok(Some(format!(
            "{file} is not what helm-docs makes of the values; write it anew with: {} --chart-search-root {CHART}\n  \
             made:  {}\n  there: {}",
            self.tools.helm_docs.path().display(),
            differs.0,
            differs.1
        )))
    }
}

/// What kubeconform prints.
#[derive(Debug, Deserialize)]
struct Conformity {
    resources: Vec<Unfit>,
    summary: Summary,
}

/// An object that does not conform.
#[derive(Debug, Deserialize)]
struct Unfit {
    kind: String,
    name: String,
    msg: String,
}

#[derive(Debug, Deserialize)]
struct Summary {
    valid: usize,
    skipped: usize,
}

impl Conformity {
    fn complaints(&self) -> impl Iterator<Item = String> {
        let skipped =
            (self.summary.skipped > 0).then(|| format!("kubeconform skipped {}", self.summary.skipped));
        let unfit = self.resources.iter();
        unfit
            .map(|object| format!("kubeconform: {} {}: {}", object.kind, object.name, object.msg))
            .chain(skipped)
    }
}
