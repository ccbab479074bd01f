//! The cluster, found as kubectl finds it, and Webhooks in it: as they are for programs, and typed for us.

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
    core::{ApiResource, DynamicObject, PartialObjectMeta},
};

use super::{ClusterArgs, PluginError};
use crate::api::Webhook;

/// A cluster and where to look in it.
pub(super) struct Cluster {
    client: Client,
    /// The namespace that was asked for, else that of the context.
    pub(super) namespace: String,
}

/// A Webhook.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// As the server has it, fields of other versions included.
    pub(super) raw: DynamicObject,
    /// As this version knows it.
    pub(super) webhook: Webhook,
}

impl Item {
    fn new(raw: DynamicObject) -> Result<Self, PluginError> {
        let name = full_name(&raw.name_any());
        let webhook = serde_json::to_value(&raw)
            .and_then(serde_json::from_value)
            .map_err(|error| PluginError::Form(name, error))?;
        Ok(Self { raw, webhook })
    }

    pub(super) fn name(&self) -> String {
        self.webhook.name_any()
    }

    pub(super) fn namespace(&self) -> String {
        self.webhook.namespace().unwrap_or_default()
    }
}

/// What kubectl prints for `-o name`.
pub(super) fn full_name(name: &str) -> String {
    format!("webhook.{}/{name}", crate::api::GROUP)
}

/// A client for the context that was asked for. Inside a pod without a kubeconfig, that of its service account.
pub(super) async fn connect(args: &ClusterArgs) -> Result<Cluster, PluginError> {
    let config = config(args).await.map_err(|error| {
        PluginError::NoCluster(format!(
            "no cluster: {error}; set KUBECONFIG, or name a file with --kubeconfig and a context in it with --context"
        ))
    })?;
    let namespace = args
        .namespace
        .clone()
        .unwrap_or_else(|| config.default_namespace.clone());
    Ok(Cluster {
        client: Client::try_from(config)?,
        namespace,
    })
}

async fn config(args: &ClusterArgs) -> Result<Config, KubeconfigError> {
    let options = KubeConfigOptions {
        context: args.context.clone(),
        ..KubeConfigOptions::default()
    };
    if let Some(path) = &args.kubeconfig {
        return Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await;
    }
    match Config::from_kubeconfig(&options).await {
        Err(error) if args.context.is_none() => Config::incluster().map_err(|_| error),
        result => result,
    }
}

impl Cluster {
    fn webhooks(&self, namespace: Option<&str>) -> Api<DynamicObject> {
        let kind = ApiResource::erase::<Webhook>(&());
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &kind),
            None => Api::all_with(self.client.clone(), &kind),
        }
    }

    /// Objects of another kind, in the namespace that was asked for.
    pub(super) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The typed Webhooks, for changes.
    pub(super) fn typed(&self) -> Api<Webhook> {
        self.api()
    }

    pub(super) async fn get(&self, name: &str) -> Result<Item, PluginError> {
        Item::new(self.webhooks(Some(&self.namespace)).get(name).await?)
    }

    /// All Webhooks with these labels, in order of namespace and name.
    pub(super) async fn list(
        &self,
        everywhere: bool,
        labels: Option<&str>,
    ) -> Result<Vec<Item>, PluginError> {
        let mut params = ListParams::default();
        if let Some(labels) = labels {
            params = params.labels(labels);
        }
        let namespace = (!everywhere).then_some(self.namespace.as_str());
        let found = self.webhooks(namespace).list(&params).await?;
        found.items.into_iter().map(Item::new).collect()
    }

    /// Metadata of a Secret, never its content. `None`: there is none.
    pub(super) async fn secret(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<PartialObjectMeta<Secret>>, kube::Error> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        api.get_metadata_opt(name).await
    }
}
