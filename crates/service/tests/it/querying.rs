//! What operators ask in the query language, page by page.

use domain::ids::Precondition;
use domain::operation::query::{Answer, Ask};
use domain::operation::{Caller, Cursor, ErrorKind, Operation, Page, PageRequest, Reply};
use domain::twin::ServiceChange;
use serde_json::{Value, json};
use service::EndpointOf;
use store::conformance::Done as _;
use store::conformance::sample::{NOON, device, identity, object};
use store::ports::{IdentityStore as _, TwinStore as _};

use crate::ground::Ground;

/// Devices of the hub: `dev-0` and on, every third at site `x`.
const DEVICES: u64 = 10;

async fn scene() -> (Ground, Caller) {
    let ground = Ground::new().await;
    let hub = ground.hub().key;
    for number in 0..DEVICES {
        let tags = format!(r#"{{"site":"{}","number":{number}}}"#, if number % 3 == 0 { "x" } else { "y" });
        let twin = ServiceChange { tags: Some(object(&tags)), desired: None };
        let name = device(&format!("dev-{number}"));
        ground.store.create_identity(hub, identity(name, number), Some(twin), NOON).await.unwrap().done();
    }
    let caller = ground.program(&EndpointOf::Hub(ground.hub()));
    (ground, caller)
}

async fn ask(ground: &Ground, caller: &Caller, text: &str, page: PageRequest) -> Result<Answer, (ErrorKind, String)> {
    let ask = Ask::Run { text: text.to_owned(), page };
    match ground.service.perform(caller, Operation::Query(ask)).await {
        Ok(Reply::Query(answer)) => Ok(answer),
        Ok(other) => panic!("{other:?}"),
        Err(failure) => Err((failure.kind, failure.public.into_owned())),
    }
}

fn simple(answer: Answer) -> Page<Value> {
    match answer {
        Answer::Twins(Page { items, next }) => {
            let names = items.into_iter().map(|(_, identity)| json!(identity.name.to_string())).collect();
            Page { items: names, next }
        }
        Answer::DeviceJobs(Page { items, next }) => {
            Page { items: items.into_iter().map(|row| json!(row.name.to_string())).collect(), next }
        }
        Answer::Rows(Page { items, next }) => Page { items: items.into_iter().map(Value::Object).collect(), next },
    }
}

/// The pages of an answer, `limit` rows each.
async fn pages(ground: &Ground, caller: &Caller, text: &str, limit: usize) -> Vec<Value> {
    let (mut pages, mut after) = (Vec::new(), None);
    loop {
        let page = simple(ask(ground, caller, text, PageRequest { after, limit }).await.unwrap());
        pages.push(Value::Array(page.items));
        after = page.next;
        if after.is_none() {
            return pages;
        }
    }
}

#[tokio::test]
async fn pages_are_full_and_end_with_the_last_row_that_there_is() {
    let (ground, caller) = scene().await;
    let cases = [
        ("SELECT * FROM devices WHERE tags.site = 'x'", 2, json!([["dev-0", "dev-3"], ["dev-6", "dev-9"]])),
        ("SELECT * FROM devices WHERE tags.site = 'x'", 4, json!([["dev-0", "dev-3", "dev-6", "dev-9"]])),
        ("SELECT * FROM devices WHERE tags.number > 6", 2, json!([["dev-7", "dev-8"], ["dev-9"]])),
        ("SELECT * FROM devices WHERE tags.number % 5 = 4", 1, json!([["dev-4"], ["dev-9"]])),
        ("SELECT * FROM devices WHERE tags.site = 'z'", 5, json!([[]])),
        ("SELECT TOP 3 * FROM devices", 2, json!([["dev-0", "dev-1"], ["dev-2"]])),
        ("SELECT TOP 2 * FROM devices", 2, json!([["dev-0", "dev-1"]])),
        ("SELECT TOP 5 * FROM devices WHERE tags.number > 8", 2, json!([["dev-9"]])),
        ("SELECT deviceId AS d FROM devices WHERE deviceId IN ['dev-7']", 9, json!([[{ "d": "dev-7" }]])),
        ("SELECT COUNT() AS n FROM devices WHERE tags.site = 'y'", 9, json!([[{ "n": 6 }]])),
        (
            "SELECT tags.site AS s, COUNT() AS n FROM devices GROUP BY tags.site",
            1,
            json!([[{ "s": "x", "n": 4 }], [{ "s": "y", "n": 6 }]]),
        ),
        ("SELECT TOP 1 tags.site AS s FROM devices GROUP BY tags.site", 1, json!([[{ "s": "x" }]])),
    ];
    for (text, limit, expected) in cases {
        assert_eq!(Value::Array(pages(&ground, &caller, text, limit).await), expected, "{text} by {limit}");
    }
}

#[tokio::test]
async fn rows_that_come_and_go_between_pages_disturb_no_others() {
    let (ground, caller) = scene().await;
    let (text, hub) = ("SELECT * FROM devices WHERE tags.site = 'x'", ground.hub().key);
    let first = simple(ask(&ground, &caller, text, PageRequest { after: None, limit: 2 }).await.unwrap());
    ground.store.delete_identity(hub, &device("dev-3"), Precondition::Exists).await.unwrap().done();
    let tags = ServiceChange { tags: Some(object(r#"{"site":"x"}"#)), desired: None };
    ground.store.patch_twin(hub, &device("dev-1"), tags.clone(), Precondition::None, NOON).await.unwrap().done();
    ground.store.patch_twin(hub, &device("dev-8"), tags, Precondition::None, NOON).await.unwrap().done();
    let second = simple(ask(&ground, &caller, text, PageRequest { after: first.next, limit: 9 }).await.unwrap());
    assert_eq!(second.items, [json!("dev-6"), json!("dev-8"), json!("dev-9")]);
}

#[tokio::test]
async fn what_is_no_query_or_no_place_in_its_answer_is_refused_in_words() {
    let (ground, caller) = scene().await;
    let after = |cursor: &str| PageRequest { after: Some(Cursor(cursor.to_owned())), limit: 5 };
    let whole = || PageRequest { after: None, limit: 5 };
    let cases = [
        (
            "SELECT * FROM twins",
            whole(),
            "The query, at character 15: expected devices, devices.modules or devices.jobs, found twins.",
        ),
        (
            "SELECT jobId FROM devices.jobs",
            whole(),
            "The query, at character 8: from devices.jobs only SELECT * is possible.",
        ),
        ("SELECT * FROM devices", after("nonsense"), "The continuation does not belong to this query."),
        ("SELECT * FROM devices", after("1:g:x"), "The continuation does not belong to this query."),
        ("SELECT COUNT() FROM devices", after("1:t:5"), "The continuation does not belong to this query."),
    ];
    for (text, page, expected) in cases {
        let (kind, public) = ask(&ground, &caller, text, page).await.unwrap_err();
        assert_eq!((kind, public.as_str()), (ErrorKind::InvalidArgument, expected), "{text}");
    }
}

#[tokio::test]
async fn a_page_of_large_rows_is_shorter_than_asked() {
    const LARGE: u64 = 60;
    let ground = Ground::new().await;
    let pad = "x".repeat(4_000);
    let members: Vec<String> = (0..7).map(|member| format!(r#""m{member}":"{pad}""#)).collect();
    let desired = object(&format!("{{{}}}", members.join(",")));
    for number in 0..LARGE {
        let twin = ServiceChange { tags: None, desired: Some(desired.clone()) };
        let name = device(&format!("dev-{number}"));
        let made = ground.store.create_identity(ground.hub().key, identity(name, number), Some(twin), NOON).await;
        made.unwrap().done();
    }
    let caller = ground.program(&EndpointOf::Hub(ground.hub()));
    let whole = pages(&ground, &caller, "SELECT * FROM devices", 1_000).await;
    assert_eq!(whole.len(), 1);
    let columns: Vec<String> = (0..20).map(|copy| format!("properties.desired AS c{copy}")).collect();
    let copied = pages(&ground, &caller, &format!("SELECT {} FROM devices", columns.join(", ")), 1_000).await;
    let rows: Vec<usize> = copied.iter().map(|page| page.as_array().unwrap().len()).collect();
    assert!(rows.len() > 1 && rows.iter().sum::<usize>() as u64 == LARGE, "{rows:?}");
}
