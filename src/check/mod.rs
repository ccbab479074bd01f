//! `webhook-operator check`: judges manifests without a cluster, by the same schema, the same rules and the same
//! capability table as the cluster and the operator.
//!
//! [`input`] reads files and knows on which line a field stands, `schema` is what the apiserver checks of an
//! object's form, `rules` its CEL rules, and `domain::check` what the operator checks. This file brings them
//! together; [`report`] prints.

pub mod input;
pub mod report;
mod rules;
mod schema;

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use self::{input::Document, rules::Rules};
use crate::{
    api::{
        ClusterWebhookProvider, GROUP, VERSION, Webhook, WebhookProvider,
        provider::{AnyProviderSpec, ProviderSettings, ProviderType},
        schema::crds,
        webhook::ProviderKind,
    },
    domain::check::{Problem, check as check_spec, check_unread},
    provider::{Provider, Upstream},
};

/// How serious a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The cluster or the operator would refuse it.
    Error,
    /// Something could not be judged, and why.
    Note,
}

/// One problem of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How serious it is.
    pub severity: Severity,
    /// The file as it was named, `-` for standard input.
    pub file: String,
    /// The line of the field, from 1; of the nearest field around it if it is missing.
    pub line: usize,
    /// Kind of the object.
    pub kind: String,
    /// Name of the object, `namespace/name` where it has a namespace.
    pub object: String,
    /// Path of the field, such as `spec.headers[0].value`; empty: the object as a whole.
    pub field: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// What came of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Problems, by file and line.
    pub findings: Vec<Finding>,
    /// How many objects of this operator were looked at.
    pub checked: usize,
    /// How many objects of other kinds were passed over.
    pub others: usize,
    /// Rules that compare with an earlier version of the object and so cannot be judged offline.
    pub skipped_rules: Vec<String>,
}

impl Verdict {
    /// Whether a cluster would take everything, as far as can be known.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.severity == Severity::Note)
    }
}

/// A provider of the input: kind, namespace (empty for the cluster kind) and name.
type ProviderId = (ProviderKind, String, String);

/// The definitions and their rules, read once.
pub struct Judge {
    crds: Vec<CustomResourceDefinition>,
    rules: Rules,
}

impl Judge {
    /// Reads the definitions.
    ///
    /// # Errors
    ///
    /// The rules cannot be read at all: a defect of this build.
    pub fn new() -> Result<Self, String> {
        let crds = crds();
        let rules = Rules::new(&crds)?;
        Ok(Self { crds, rules })
    }

    /// Judges documents together: a Webhook is judged by its provider's type if the provider is among them, else by
    /// `assume`; without either a note says so.
    #[must_use]
    pub fn judge(&self, documents: &[Document], assume: Option<ProviderType>) -> Verdict {
        let mut verdict = Verdict {
            skipped_rules: self.crds.iter().flat_map(rules::with_old_self).collect(),
            ..Verdict::default()
        };
        let providers: BTreeMap<ProviderId, ProviderType> = documents.iter().filter_map(provider).collect();
        for document in documents {
            let Some(crd) = own_crd(&self.crds, &document.value) else {
                verdict.others += 1;
                continue;
            };
            verdict.checked += 1;
            verdict
                .findings
                .extend(self.findings(crd, document, &providers, assume));
        }
        verdict
            .findings
            .sort_by(|a, b| (&a.file, a.line, a.severity).cmp(&(&b.file, b.line, b.severity)));
        verdict
    }

    /// What the apiserver would say: form first, then rules, as it does; and only then the operator.
    fn findings(
        &self,
        crd: &CustomResourceDefinition,
        document: &Document,
        providers: &BTreeMap<ProviderId, ProviderType>,
        assume: Option<ProviderType>,
    ) -> Vec<Finding> {
        let error = |(field, message): (String, String)| finding(document, Severity::Error, &field, message);
        let wanted = format!("{GROUP}/{VERSION}");
        if text(&document.value, "/apiVersion") != wanted {
            let message = format!("this version is not served; write {wanted:?}");
            return vec![error(("apiVersion".to_owned(), message))];
        }
        let definition = crd
            .spec
            .versions
            .first()
            .and_then(|version| version.schema.as_ref()?.open_api_v3_schema.as_ref());
        let mut object = document.value.clone();
        let mut problems = schema::metadata(&object);
        if let Some(definition) = definition {
            schema::set_defaults(definition, &mut object);
            problems.extend(schema::violations(definition, &object));
            schema::drop_nulls(&mut object);
            if problems.is_empty() {
                problems = self.rules.violations(definition, &object);
            }
        }
        if problems.is_empty() {
            return check_meaning(document, &object, providers, assume);
        }
        problems.into_iter().map(error).collect()
    }
}

/// The definition of the object's kind, whatever its version; `None`: a kind of somebody else.
fn own_crd<'a>(crds: &'a [CustomResourceDefinition], object: &Value) -> Option<&'a CustomResourceDefinition> {
    let (group, _) = text(object, "/apiVersion").split_once('/')?;
    let kind = text(object, "/kind");
    (group == GROUP)
        .then(|| crds.iter().find(|crd| crd.spec.names.kind == kind))
        .flatten()
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn finding(document: &Document, severity: Severity, field: &str, message: String) -> Finding {
    let object = &document.value;
    let (namespace, name) = (
        text(object, "/metadata/namespace"),
        text(object, "/metadata/name"),
    );
    let name = if name.is_empty() {
        text(object, "/metadata/generateName")
    } else {
        name
    };
    Finding {
        severity,
        file: document.file.clone(),
        line: document.line(field),
        kind: text(object, "/kind").to_owned(),
        object: if namespace.is_empty() {
            name.to_owned()
        } else {
            format!("{namespace}/{name}")
        },
        field: field.to_owned(),
        message,
    }
}

/// What the operator would say.
fn check_meaning(
    document: &Document,
    object: &Value,
    providers: &BTreeMap<ProviderId, ProviderType>,
    assume: Option<ProviderType>,
) -> Vec<Finding> {
    let unreadable = |error: &serde_json::Error| {
        vec![finding(
            document,
            Severity::Error,
            "",
            format!("the operator cannot read it: {error}"),
        )]
    };
    let refused = |problems: Vec<Problem>| {
        let refuse = |problem: Problem| {
            finding(
                document,
                Severity::Error,
                &format!("spec.{}", problem.field),
                problem.message,
            )
        };
        problems.into_iter().map(refuse).collect::<Vec<_>>()
    };
    if let Some(settings) = settings(object) {
        return match settings {
            Ok(settings) => refused(check_unread(&settings.unread)),
            Err(error) => unreadable(&error),
        };
    }
    let webhook: Webhook = match serde_json::from_value(object.clone()) {
        Ok(webhook) => webhook,
        Err(error) => return unreadable(&error),
    };
    let unread = check_unread(&webhook.spec.unread);
    if !unread.is_empty() {
        return refused(unread);
    }
    let reference = &webhook.spec.provider_ref;
    let namespace = match reference.kind {
        ProviderKind::WebhookProvider => text(object, "/metadata/namespace").to_owned(),
        ProviderKind::ClusterWebhookProvider => String::new(),
    };
    let id = (reference.kind, namespace, reference.name.clone());
    let Some(kind) = providers.get(&id).copied().or(assume) else {
        let message = format!(
            "provider {:?} is not among the files, so what its upstream can do is not checked; give its file as well, or --provider-type",
            reference.name
        );
        return vec![finding(
            document,
            Severity::Note,
            "spec.providerRef.name",
            message,
        )];
    };
    refused(check_spec(
        &webhook.spec,
        Upstream::from(kind).capabilities(),
        kind.as_str(),
    ))
}

/// Settings of a provider of either kind; `None`: not a provider.
fn settings(object: &Value) -> Option<Result<ProviderSettings, serde_json::Error>> {
    match text(object, "/kind") {
        "WebhookProvider" => Some(
            serde_json::from_value::<WebhookProvider>(object.clone())
                .map(|provider| provider.spec.settings().clone()),
        ),
        "ClusterWebhookProvider" => Some(
            serde_json::from_value::<ClusterWebhookProvider>(object.clone())
                .map(|provider| provider.spec.settings().clone()),
        ),
        _ => None,
    }
}

/// What a document says about the type of a provider, even if something else is wrong with it.
fn provider(document: &Document) -> Option<(ProviderId, ProviderType)> {
    let object = &document.value;
    let (kind, namespace) = match text(object, "/kind") {
        "WebhookProvider" => (
            ProviderKind::WebhookProvider,
            text(object, "/metadata/namespace").to_owned(),
        ),
        "ClusterWebhookProvider" => (ProviderKind::ClusterWebhookProvider, String::new()),
        _ => return None,
    };
    let kind_of = serde_json::from_value(object.pointer("/spec/type")?.clone()).ok()?;
    Some((
        (kind, namespace, text(object, "/metadata/name").to_owned()),
        kind_of,
    ))
}

#[cfg(test)]
mod tests;
