//! The programs that judge the chart, each of a fixed version.

use std::path::PathBuf;

use crate::{
    judges::{
        Lack,
        go::{Program, module_files},
        have,
    },
    progress::Failure,
};

/// Helm 3, with which the chart is installed.
const HELM: [&str; 2] = ["helm.sh/helm/v3/cmd/helm", "v3.22.0"];
const KUBECONFORM: [&str; 2] = ["github.com/yannh/kubeconform/cmd/kubeconform", "v0.8.0"];
const KUBE_SCORE: [&str; 2] = ["github.com/zegl/kube-score/cmd/kube-score", "v1.20.0"];
const HELM_DOCS: [&str; 2] = ["github.com/norwoodj/helm-docs/cmd/helm-docs", "v1.14.2"];
/// Module of the checkout that requires helm-unittest, and the package of its program.
const HELM_UNITTEST: [&str; 2] = [
    "tests/chart/helm-unittest",
    "github.com/helm-unittest/helm-unittest/cmd/helm-unittest",
];
/// Module with the kinds of the Prometheus operator, which the chart makes objects of.
const PROMETHEUS_OPERATOR: [&str; 2] = ["github.com/prometheus-operator/prometheus-operator", "v0.85.0"];
/// Folder of these kinds in it.
const PROMETHEUS_KINDS: &str = "example/prometheus-operator-crd";

/// All of them.
pub(super) struct Tools {
    pub(super) helm: Program,
    pub(super) kubeconform: Program,
    pub(super) kube_score: Program,
    pub(super) helm_docs: Program,
    pub(super) helm_unittest: Program,
    /// The kinds of the Prometheus operator that the chart makes objects of.
    pub(super) prometheus_kinds: [PathBuf; 2],
}

impl Tools {
    /// Builds and fetches what is not there yet.
    pub(super) fn get() -> Result<Self, Lack> {
        let [module, package] = HELM_UNITTEST;
        Ok(Self {
            helm: helm()?,
            kubeconform: published(KUBECONFORM)?,
            kube_score: published(KUBE_SCORE)?,
            helm_docs: published(HELM_DOCS)?,
            helm_unittest: have(Program::of_package("helm-unittest", module, package))?,
            prometheus_kinds: prometheus_kinds()?,
        })
    }
}

/// The program `helm`.
pub(in crate::judges) fn helm() -> Result<Program, Lack> {
    published(HELM)
}

/// Files of the kinds of the Prometheus operator that the chart makes objects of.
pub(in crate::judges) fn prometheus_kinds() -> Result<[PathBuf; 2], Lack> {
    let [module, version] = PROMETHEUS_OPERATOR;
    let folder = have(module_files(module, version))?.join(PROMETHEUS_KINDS);
    let files = ["servicemonitors", "prometheusrules"]
        .map(|kind| folder.join(format!("monitoring.coreos.com_{kind}.yaml")));
    match files.iter().find(|file| !file.is_file()) {
        Some(file) => Err(Failure::new(format!("{module} {version} has no {}", file.display())).into()),
        None => Ok(files),
    }
}

fn published([package, version]: [&str; 2]) -> Result<Program, Lack> {
    have(Program::published(package, version))
}
