//! Objects as a user writes them, sent to the apiserver untouched by the types of the code.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Client, Error, core::Status};
use serde_json::Value;
use webhook_operator::api::schema;

fn crd_of(kind: &str) -> CustomResourceDefinition {
    schema::crds()
        .into_iter()
        .find(|crd| crd.spec.names.kind == kind)
        .unwrap()
}

/// Folder of an object's kind in the API.
pub(crate) fn collection(object: &Value, namespace: &str) -> String {
    let crd = crd_of(object["kind"].as_str().unwrap());
    let namespaced = crd.spec.scope == "Namespaced";
    let folder = if namespaced {
        format!("namespaces/{namespace}/")
    } else {
        String::new()
    };
    format!(
        "/apis/{}/v1alpha1/{folder}{}",
        crd.spec.group, crd.spec.names.plural
    )
}

async fn send(client: &Client, method: &str, path: &str, body: &Value) -> Result<Value, Box<Status>> {
    // Strict: a field that does not exist is an error, not a warning, so that no case passes by a typing error.
    let request = http::Request::builder()
        .method(method)
        .uri(format!("{path}?fieldValidation=Strict"))
        .header("content-type", "application/json")
        .body(serde_json::to_vec(body).unwrap())
        .unwrap();
    match client.request::<Value>(request).await {
        Ok(value) => Ok(value),
        Err(Error::Api(status)) => Err(status),
        Err(other) => panic!("{method} {path}: {other}"),
    }
}

/// Creates an object in a namespace, or in the cluster where its kind is of the cluster.
pub(crate) async fn create(client: &Client, namespace: &str, object: &Value) -> Result<Value, Box<Status>> {
    send(client, "POST", &collection(object, namespace), object).await
}

/// Replaces an object by a new version of it.
pub(crate) async fn replace(
    client: &Client,
    namespace: &str,
    old: &Value,
    object: &Value,
) -> Result<Value, Box<Status>> {
    let mut object = object.clone();
    object["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
    let path = format!(
        "{}/{}",
        collection(&object, namespace),
        object["metadata"]["name"].as_str().unwrap()
    );
    send(client, "PUT", &path, &object).await
}
