//! `muster query`: twins of a hub that fulfil a condition, counted and grouped, in the query language of hubs.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use clap::Args;
use client::service::ServiceRequest;
use http::Method;
use serde_json::{Value, json};

use crate::context::{Context, ask_with_headers};

/// Rows asked for at a time.
const PAGE: usize = 1_000;

/// What to ask.
#[derive(Debug, Args)]
pub struct QueryArgs {
    /// The query, as in "SELECT * FROM devices WHERE tags.site = 'cave' AND connectionState = 'Connected'"
    query: String,
    /// Hub [default: the first]
    #[arg(long)]
    hub: Option<String>,
    /// Rows at most; for fewer from the start, the language has SELECT TOP
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// Does it.
pub async fn run(args: &QueryArgs, context: &Context) -> Result<()> {
    let hub = context.hub(args.hub.as_deref())?;
    let limit = usize::try_from(args.limit)?;
    let body = json!({ "query": args.query });
    let (mut rows, mut next, mut is_twins) = (Vec::new(), None, false);
    while rows.len() < limit {
        let mut headers = vec![("x-ms-max-item-count", PAGE.min(limit - rows.len()).to_string())];
        headers.extend(next.take().map(|next| ("x-ms-continuation", next)));
        let path = ["devices", "query"];
        let request =
            ServiceRequest { body: Some(&body), headers: &headers, ..ServiceRequest::new(Method::POST, &path) };
        let (page, answered) = ask_with_headers(&hub, "the query", request).await?;
        let header = |name: &str| answered.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        is_twins = header("x-ms-item-type").as_deref() == Some("Twin");
        let Value::Array(page) = page else { bail!("the answer to the query is no list") };
        rows.extend(page);
        next = header("x-ms-continuation");
        if next.is_none() {
            break;
        }
    }
    let columns = if is_twins { twin_columns() } else { columns_of(&rows) };
    let columns: Vec<(&str, &str)> = columns.iter().map(|(title, path)| (title.as_str(), path.as_str())).collect();
    context.output.list(&rows, &columns)?;
    if next.is_some() {
        eprintln!("there are more rows: raise --limit");
    }
    Ok(())
}

/// What a table shows of twins.
fn twin_columns() -> Vec<(String, String)> {
    let members = ["deviceId", "moduleId", "status", "connectionState", "lastActivityTime", "tags"];
    members.into_iter().map(|member| (member.to_owned(), format!("/{member}"))).collect()
}

/// The names of all members of the rows, and where they stand in them.
fn columns_of(rows: &[Value]) -> Vec<(String, String)> {
    let mut known = BTreeSet::new();
    let members = rows.iter().filter_map(Value::as_object).flat_map(serde_json::Map::keys);
    let fresh = members.filter(|name| known.insert(*name));
    // A JSON pointer spells two characters otherwise (RFC 6901, section 3).
    fresh.map(|name| (name.clone(), format!("/{}", name.replace('~', "~0").replace('/', "~1")))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_column_for_each_member_of_any_row() {
        let rows = [json!({ "n": 1, "a/b~c": 2 }), json!({ "n": 3, "z": null })];
        let columns = columns_of(&rows);
        let titles: Vec<&str> = columns.iter().map(|(title, _)| title.as_str()).collect();
        assert_eq!(titles, ["n", "a/b~c", "z"]);
        assert_eq!(rows[0].pointer(&columns[1].1), Some(&json!(2)));
    }
}
