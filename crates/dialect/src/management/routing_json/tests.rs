use super::*;

fn endpoints() -> Value {
    json!({
        "serviceBusQueues": [{
            "id": "11111111-2222-3333-4444-555555555555", "name": "q", "subscriptionId": "s", "resourceGroup": "g",
            "connectionString": "Endpoint=sb://bus.example.org/;SharedAccessKeyName=send;SharedAccessKey=c2VjcmV0;EntityPath=q",
        }],
        "serviceBusTopics": [],
        "eventHubs": [{
            "name": "eh", "entityPath": "hub",
            "connectionString": "Endpoint=sb://eh.example.org/;SharedAccessKeyName=send;SharedAccessKey=c2VjcmV0",
        }],
        "storageContainers": [],
        "webhooks": [{ "name": "w", "url": "https://example.org/in", "mode": "batch", "headers": { "X-Key": "secret" } }],
        "natsSubjects": [{ "name": "n", "url": "nats://localhost", "subject": "a.b", "user": "u", "password": "secret" }],
        "amqpAddresses": [{ "name": "m", "connectionString": "amqps://u:secret@localhost/queue" }],
    })
}

fn whole() -> Value {
    json!({ "routing": {
        "endpoints": endpoints(),
        "routes": [{
            "name": "hot", "source": "devicemessages", "condition": "level = 'hot'", "endpointNames": ["w"],
            "isEnabled": true,
        }],
        "fallbackRoute": {
            "name": "$fallback", "source": "DeviceMessages", "condition": "true", "endpointNames": ["events"],
            "isEnabled": true,
        },
    } })
}

#[test]
fn routing_is_shown_as_it_was_put_and_no_secret_with_it() {
    let draft = parse(&whole()).unwrap().unwrap();
    assert!(draft.unsaid.is_empty());
    let settled = Routing::settle(draft, &Routing::default()).unwrap();
    let shown = show(&settled);
    assert!(!shown.to_string().contains("secret") && !shown.to_string().contains("c2VjcmV0"), "{shown}");
    let lists = &shown["endpoints"];
    assert_eq!(lists["serviceBusQueues"][0]["resourceGroup"], "g");
    assert_eq!(
        lists["eventHubs"][0]["connectionString"],
        "Endpoint=sb://eh.example.org:5671/;SharedAccessKeyName=send;SharedAccessKey=****;EntityPath=hub"
    );
    assert_eq!(lists["webhooks"][0]["headers"], json!({ "X-Key": "****" }));
    assert_eq!(lists["natsSubjects"][0]["password"], "****");
    assert_eq!(lists["amqpAddresses"][0]["connectionString"], "amqps://u:****@localhost:5671/queue");
    assert_eq!(lists["cosmosDBSqlContainers"], json!([]));
    assert_eq!(shown["routes"][0]["source"], "DeviceMessages");

    // What a client was shown and sends back changes nothing, secrets included.
    let again = parse(&json!({ "routing": shown })).unwrap().unwrap();
    assert_eq!(Routing::settle(again, &settled).unwrap(), settled);
}

#[test]
fn a_client_that_knows_nothing_of_our_endpoints_leaves_them_alone() {
    let draft = parse(&json!({ "routing": { "endpoints": { "eventHubs": [] } } })).unwrap().unwrap();
    assert_eq!(draft.unsaid, [OwnKind::Webhook, OwnKind::Nats, OwnKind::Container]);
    assert!(!draft.routing.fallback.enabled);
    assert!(parse(&json!({})).unwrap().is_none());
}

#[test]
fn what_cannot_be_routed_is_refused_in_words() {
    let put = |pointer: &str, value: Value| {
        let mut document = whole();
        *document.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
        document
    };
    let with = |member: &str, value: Value| json!({ "routing": { member: value } });
    let cases = [
        (with("enrichments", json!([{ "key": "k", "value": "v", "endpointNames": ["events"] }])), "enrichments: "),
        (with("routes", json!({})), "routes is not a list"),
        (with("endpoints", json!({ "storageContainers": [{ "name": "s" }] })), "storageContainers: "),
        (with("endpoints", json!([])), "endpoints is not an object"),
        (put("/routing/routes/0/condition", json!("level =")), "condition of the route hot: at character 8: "),
        (put("/routing/routes/0/source", json!("Gossip")), "source: it is none of DeviceMessages, "),
        (put("/routing/routes/0/endpointNames", json!(["w", "n"])), "endpointNames: a list of exactly one name"),
        (put("/routing/routes/0/isEnabled", json!("yes")), "isEnabled is not true or false"),
        (put("/routing/routes/0/name", json!("a b")), "name of a route: "),
        (put("/routing/endpoints/webhooks/0/url", json!("ftp://a")), "url: "),
        (put("/routing/endpoints/webhooks/0/mode", json!("many")), "mode: neither single nor batch"),
        (put("/routing/endpoints/webhooks/0/headers", json!({ "a": 1 })), "headers: "),
        (put("/routing/endpoints/natsSubjects/0/password", Value::Null), ""),
        (put("/routing/endpoints/natsSubjects/0/user", Value::Null), "user: "),
        (put("/routing/endpoints/serviceBusQueues/0/connectionString", json!("x")), "connectionString: "),
        (put("/routing/endpoints/serviceBusQueues/0/resourceGroup", json!([])), "resourceGroup of the endpoint q: "),
        (put("/routing/endpoints/serviceBusQueues/0/id", json!("x".repeat(2_000))), "id of the endpoint q: "),
        (put("/routing/fallbackRoute/condition", json!("false")), "condition of the fallback route: "),
        (put("/routing/fallbackRoute/endpointNames", json!([])), "endpointNames: "),
    ];
    for (document, begins) in cases {
        match parse(&document) {
            Ok(_) => assert!(begins.is_empty(), "{document}"),
            Err(refused) => assert!(refused.public.contains(begins) && !begins.is_empty(), "{}", refused.public),
        }
    }
}
