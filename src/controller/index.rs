//! Who refers to what: Secrets and providers to Webhooks, targets, URLs and ids to the Webhooks that mean them.
//! Kept in step by the watch, so that no pass has to go through all objects.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use kube::{ResourceExt, runtime::reflector::ObjectRef};

use crate::{
    api::{ID_ANNOTATION, Webhook},
    domain::{owner::ProviderKey, remote::normal_url},
};

/// What a Webhook refers to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Link {
    Provider(ProviderKey),
    Secret { namespace: String, name: String },
    Target(String),
    Url(String),
    Id(String),
}

#[derive(Debug, Default)]
struct Tables {
    from: HashMap<Link, HashSet<ObjectRef<Webhook>>>,
    of: HashMap<ObjectRef<Webhook>, Vec<Link>>,
}

/// The index. Cheap to ask, locked only for the moment.
#[derive(Debug, Default)]
pub struct Index(Mutex<Tables>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section leaves the data whole, so a panic elsewhere cannot have torn it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Index {
    /// Takes the present form of an object in. Links of the previous form go.
    pub fn update(&self, webhook: &Webhook) {
        let object = ObjectRef::from_obj(webhook);
        let links = links(webhook);
        let mut tables = lock(&self.0);
        if tables.of.get(&object) == Some(&links) {
            return;
        }
        tables.unlink(&object);
        for link in &links {
            tables
                .from
                .entry(link.clone())
                .or_default()
                .insert(object.clone());
        }
        tables.of.insert(object, links);
    }

    /// The object is gone.
    pub fn remove(&self, object: &ObjectRef<Webhook>) {
        lock(&self.0).unlink(object);
    }

    /// All objects that are known, in the order of namespaces and names.
    #[must_use]
    pub fn objects(&self) -> Vec<ObjectRef<Webhook>> {
        in_order(lock(&self.0).of.keys().cloned().collect())
    }

    /// Webhooks of a provider.
    #[must_use]
    pub fn by_provider(&self, provider: &ProviderKey) -> Vec<ObjectRef<Webhook>> {
        self.find(&Link::Provider(provider.clone()))
    }

    /// Webhooks that read or write a Secret.
    #[must_use]
    pub fn by_secret(&self, namespace: &str, name: &str) -> Vec<ObjectRef<Webhook>> {
        self.find(&Link::Secret {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    /// Webhooks of a target, at whatever provider.
    #[must_use]
    pub fn by_target(&self, target: &str) -> Vec<ObjectRef<Webhook>> {
        self.find(&Link::Target(target.to_owned()))
    }

    /// Webhooks of a URL, at whatever provider.
    #[must_use]
    pub fn by_url(&self, url: &str) -> Vec<ObjectRef<Webhook>> {
        self.find(&Link::Url(normal_url(url)))
    }

    /// Webhooks that have recorded an id, at whatever provider.
    #[must_use]
    pub fn by_id(&self, id: &str) -> Vec<ObjectRef<Webhook>> {
        self.find(&Link::Id(id.to_owned()))
    }

    fn find(&self, link: &Link) -> Vec<ObjectRef<Webhook>> {
        let found = lock(&self.0)
            .from
            .get(link)
            .map(|objects| objects.iter().cloned().collect());
        in_order(found.unwrap_or_default())
    }
}

/// A hash table has another order in each process. Whom a change wakes first must not hang on that: a simulation of the
/// same seed has to go the same way again.
fn in_order(mut objects: Vec<ObjectRef<Webhook>>) -> Vec<ObjectRef<Webhook>> {
    objects.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
    objects
}

impl Tables {
    fn unlink(&mut self, object: &ObjectRef<Webhook>) {
        for link in self.of.remove(object).unwrap_or_default() {
            if let Some(objects) = self.from.get_mut(&link) {
                objects.remove(object);
                if objects.is_empty() {
                    self.from.remove(&link);
                }
            }
        }
    }
}

/// Names of all Secrets that a Webhook reads or writes.
#[must_use]
pub fn secret_names(webhook: &Webhook) -> Vec<String> {
    let spec = &webhook.spec;
    let mut names = vec![webhook.signing_secret().name];
    names.extend(
        spec.basic_auth_ref
            .as_ref()
            .map(|reference| reference.name.clone()),
    );
    names.extend(
        spec.headers
            .iter()
            .filter_map(|header| header.value_from.as_ref())
            .map(|from| from.secret_key_ref.name.clone()),
    );
    names.sort();
    names.dedup();
    names
}

fn links(webhook: &Webhook) -> Vec<Link> {
    let namespace = webhook.namespace().unwrap_or_default();
    let mut links = vec![
        Link::Provider(ProviderKey::of(webhook.provider_ref(), &namespace)),
        Link::Url(normal_url(&webhook.spec.url)),
    ];
    links.extend(webhook.spec.target.clone().map(Link::Target));
    links.extend(secret_names(webhook).into_iter().map(|name| Link::Secret {
        namespace: namespace.clone(),
        name,
    }));
    let annotated = webhook.annotations().get(ID_ANNOTATION).cloned();
    let in_status = webhook.status.as_ref().and_then(|status| status.id.clone());
    links.extend(
        annotated
            .iter()
            .chain(in_status.iter().filter(|id| annotated.as_ref() != Some(id)))
            .cloned()
            .map(Link::Id),
    );
    links
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{
        WebhookSpec,
        webhook::{ProviderKind, ProviderRef},
    };

    fn webhook(name: &str, url: &str) -> Webhook {
        let provider = ProviderRef {
            kind: ProviderKind::WebhookProvider,
            name: "p".into(),
        };
        let mut webhook = Webhook::new(name, WebhookSpec::new(provider, url));
        webhook.metadata.namespace = Some("ns".into());
        webhook
    }

    #[test]
    fn links_follow_the_object() {
        let index = Index::default();
        index.update(&webhook("a", "https://A.example/x"));
        assert_eq!(index.by_url("https://a.example/x").len(), 1);
        index.update(&webhook("a", "https://b.example/x"));
        assert!(index.by_url("https://a.example/x").is_empty());
        assert_eq!(index.by_url("https://b.example/x").len(), 1);
        let provider = ProviderKey {
            kind: ProviderKind::WebhookProvider,
            namespace: "ns".into(),
            name: "p".into(),
        };
        assert_eq!(index.by_provider(&provider).len(), 1);
        assert_eq!(index.by_secret("ns", "a-signing").len(), 1);
        assert!(index.by_secret("other", "a-signing").is_empty());
        for name in ["d", "b", "c"] {
            index.update(&webhook(name, "https://b.example/x"));
        }
        let names = |found: Vec<ObjectRef<Webhook>>| found.into_iter().map(|it| it.name).collect::<Vec<_>>();
        let in_order = ["a", "b", "c", "d"];
        assert_eq!(names(index.by_url("https://b.example/x")), in_order);
        assert_eq!(names(index.objects()), in_order);
        for name in in_order {
            index.remove(&ObjectRef::from_obj(&webhook(name, "")));
        }
        assert!(index.objects().is_empty() && index.by_url("https://b.example/x").is_empty());
    }
}
