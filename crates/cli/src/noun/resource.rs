//! What hubs and provisioning services have in common in the management API.

use anyhow::{Context as _, Result};
use client::management::{ManagementClient, ManagementRequest};
use http::Method;
use serde_json::{Map, Value, json};

use crate::context::{Context, RESOURCE_GROUP, hide_secrets, manage};

/// Where resources made by these commands are said to be.
pub const LOCATION: &str = "local";

/// A kind of resource.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Its collection in paths.
    pub collection: &'static str,
    /// The API version to name.
    pub api_version: &'static str,
    /// The collection of its policies in paths.
    pub policies: &'static str,
}

/// Hubs.
pub const HUB: Kind =
    Kind { collection: "IotHubs", api_version: ManagementClient::HUB_API_VERSION, policies: "IotHubKeys" };
/// Provisioning services.
pub const SERVICE: Kind = Kind {
    collection: "provisioningServices",
    api_version: ManagementClient::PROVISIONING_API_VERSION,
    policies: "keys",
};

/// Asks something about the resource `name`: `rest` stands behind it in the path.
pub async fn send(
    context: &Context,
    kind: Kind,
    method: Method,
    rest: &str,
    body: (Option<&Value>, Option<&str>),
) -> Result<Value> {
    let client = context.management().await?;
    let path = client.path(RESOURCE_GROUP, &format!("{}{rest}", kind.collection));
    let what = format!("{method} {}{rest}", kind.collection);
    let request = ManagementRequest { method, path, api_version: kind.api_version, if_match: body.1, body: body.0 };
    manage(&client, &what, request).await
}

/// Reads a resource.
pub async fn show(context: &Context, kind: Kind, name: &str) -> Result<Value> {
    send(context, kind, Method::GET, &format!("/{name}"), (None, None)).await
}

/// Creates or replaces a resource.
pub async fn put(context: &Context, kind: Kind, name: &str, body: &Value) -> Result<Value> {
    let mut answer = send(context, kind, Method::PUT, &format!("/{name}"), (Some(body), None)).await?;
    hide_secrets(&mut answer, context.show_keys);
    Ok(answer)
}

/// Prints the resources of the group.
pub async fn list(context: &Context, kind: Kind, columns: &[(&str, &str)]) -> Result<()> {
    let mut answer = send(context, kind, Method::GET, "", (None, None)).await?;
    hide_secrets(&mut answer, context.show_keys);
    context.output.list(items(&answer), columns)
}

/// Removes a resource.
pub async fn delete(context: &Context, kind: Kind, name: &str) -> Result<()> {
    send(context, kind, Method::DELETE, &format!("/{name}"), (None, None)).await?;
    context.output.record(&json!({ "name": name, "deleted": true }))
}

/// The primary key of a policy of the resource `name`.
pub async fn primary_key(context: &Context, kind: Kind, name: &str, policy: &str) -> Result<String> {
    let rest = format!("/{name}/{}/{policy}/listkeys", kind.policies);
    let answer = send(context, kind, Method::POST, &rest, (None, None)).await?;
    let key = answer.get("primaryKey").and_then(Value::as_str);
    Ok(key.with_context(|| format!("the policy {policy} of {name} has no key"))?.to_owned())
}

/// Makes the resource group that the commands work in, unless it is there: a server started without defaults has none.
pub async fn ensure_group(context: &Context) -> Result<()> {
    let client = context.management().await?;
    let path = client.group_path(RESOURCE_GROUP);
    let request = |method, body| ManagementRequest {
        method,
        path: path.clone(),
        api_version: ManagementClient::GROUP_API_VERSION,
        if_match: None,
        body,
    };
    let present = client.send(request(Method::GET, None)).await.context("reading the resource group")?;
    if present.status().is_success() {
        return Ok(());
    }
    let body = json!({ "location": LOCATION });
    manage(&client, "creating the resource group", request(Method::PUT, Some(&body))).await.map(drop)
}

/// The records of a list, which the API wraps in `value`.
pub fn items(answer: &Value) -> &[Value] {
    answer.get("value").unwrap_or(answer).as_array().map_or(&[], Vec::as_slice)
}

/// Sets the member at `path`, making the objects on the way.
pub fn set(document: &mut Value, path: &[&str], value: Value) {
    let Some((first, rest)) = path.split_first() else {
        *document = value;
        return;
    };
    if !document.is_object() {
        *document = Value::Object(Map::new());
    }
    if let Value::Object(members) = document {
        set(members.entry((*first).to_owned()).or_insert(Value::Null), rest, value);
    }
}
