use serde_json::json;

use super::*;

fn name(text: &str) -> EndpointName {
    EndpointName::parse(text).unwrap()
}

fn webhook(text: &str, url: &str, header: &str) -> Endpoint {
    let url = Url::parse(url, &[("https", 443), ("http", 80)], "https://").unwrap();
    let headers = vec![("Authorization".to_owned(), SecretText::new(header))];
    let target = Target::Webhook(Webhook { url, mode: WebhookMode::Single, headers, authority: None });
    Endpoint { name: name(text), target, labels: Map::new() }
}

fn route(text: &str, condition: &str, endpoint: &str) -> Route {
    Route {
        name: RouteName::parse(text).unwrap(),
        source: Source::DeviceMessages,
        condition: Condition::parse(condition).unwrap(),
        endpoint: name(endpoint),
        enabled: true,
    }
}

fn routing(endpoints: &[&str], routes: Vec<Route>, fallback: bool) -> Routing {
    Routing {
        endpoints: endpoints.iter().map(|name| webhook(name, "https://example.org/hook", "secret")).collect(),
        routes,
        fallback: Fallback { enabled: fallback, ..Fallback::default() },
    }
}

fn draft(routing: Routing) -> RoutingDraft {
    RoutingDraft { routing, unsaid: Vec::new() }
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(object) = value else { panic!("{value} is no object") };
    object
}

#[test]
fn a_message_goes_where_routes_take_it_and_else_where_the_fallback_leads() {
    let hot = || route("hot", "level = 'hot'", "a");
    let also = || route("also", "level = 'hot' OR level = 'warm'", "b");
    let twice = || route("twice", "true", "a");
    let off = || Route { enabled: false, ..route("off", "true", "a") };
    let back = || route("back", "level = 'hot'", "events");
    let cases: Vec<(&str, Vec<Route>, bool, &str, &[&str])> = vec![
        ("no routes", vec![], true, "hot", &["events"]),
        ("no routes, no fallback", vec![], false, "hot", &[]),
        ("taken by one", vec![hot()], true, "hot", &["a"]),
        ("taken by none", vec![hot()], true, "cold", &["events"]),
        ("taken by none, no fallback", vec![hot()], false, "cold", &[]),
        ("taken by two", vec![hot(), also()], true, "hot", &["a", "b"]),
        ("taken by two to one", vec![hot(), twice()], true, "hot", &["a"]),
        ("only a disabled route", vec![off()], true, "hot", &["events"]),
        ("routed to the built-in one", vec![hot(), back()], false, "hot", &["a", "events"]),
        ("undefined is not taken", vec![route("r", "gone = 1", "a")], true, "hot", &["events"]),
    ];
    for (case, routes, fallback, level, expected) in cases {
        let routing = routing(&["a", "b"], routes, fallback);
        let document = object(json!({ "level": level }));
        let leads = |endpoint: &&str| routing.leads_to(&name(endpoint), Source::DeviceMessages, &document);
        let reached: Vec<&str> = ["a", "b", "events"].into_iter().filter(leads).collect();
        assert_eq!(reached, expected, "{case}");
        for endpoint in ["a", "b", "events"] {
            let (endpoint, source) = (name(endpoint), Source::DeviceMessages);
            let is_reached = reached.contains(&endpoint.as_str());
            assert!(routing.can_lead_to(&endpoint, source) || !is_reached, "{case}");
            assert!(!routing.always_leads_to(&endpoint, source) || is_reached, "{case}");
        }
    }
}

#[test]
fn the_fallback_is_for_messages_of_devices_alone() {
    let source = Source::TwinChangeEvents;
    let plain = Routing::default();
    assert!(!plain.takes(source) && !plain.leads_to(&events(), source, &Map::new()));
    let told = Route { source, ..route("twins", "true", "events") };
    let routing = routing(&[], vec![told], true);
    assert!(routing.takes(source) && routing.leads_to(&events(), source, &Map::new()));
    assert!(routing.always_leads_to(&events(), Source::DeviceMessages));
}

#[test]
fn what_cannot_be_routed_is_refused() {
    let many = |count: usize| (0..count).map(|number| route(&format!("r{number}"), "true", "events")).collect();
    let names: Vec<String> = (0..=ENDPOINTS_MAX).map(|number| format!("e{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let cases: Vec<(Routing, Option<&str>)> = vec![
        (routing(&["a"], vec![route("r", "true", "A")], true), None),
        (routing(&[], many(ROUTES_MAX), true), None),
        (routing(&[], many(ROUTES_MAX + 1), true), Some("a hub has at most 100 routes")),
        (routing(&names[..ENDPOINTS_MAX], vec![], true), None),
        (routing(&names, vec![], true), Some("a hub has at most 10 endpoints beside the built-in one")),
        (routing(&["a", "A"], vec![], true), Some("endpoint a is named twice")),
        (routing(&["Events"], vec![], true), Some("Events is the name of a built-in endpoint")),
        (
            routing(&[], vec![route("r", "true", "gone")], true),
            Some("route r leads to gone, which is no endpoint of the hub"),
        ),
        (routing(&["a"], vec![route("r", "true", "a"), route("R", "true", "a")], true), Some("route r is named twice")),
    ];
    for (routing, expected) in cases {
        let settled = Routing::settle(draft(routing), &Routing::default());
        assert_eq!(settled.err().map(|invalid| invalid.to_string()).as_deref(), expected);
    }
}

#[test]
fn headers_that_would_change_how_a_request_is_read_cannot_be_set() {
    let cases = [
        ("Authorization", true),
        ("x-functions-key", true),
        ("Content-Type", false),
        ("content-encoding", false),
        ("HOST", false),
        ("Transfer-Encoding", false),
        ("TE", false),
        ("Expect", false),
        ("Connection", false),
        ("Keep-Alive", false),
        ("", false),
        ("two words", false),
        ("a:b", false),
        ("a\r\nb", false),
    ];
    for (header, expected) in cases {
        let mut endpoint = webhook("a", "https://example.org/hook", "x");
        if let Target::Webhook(webhook) = &mut endpoint.target {
            webhook.headers = vec![(header.to_owned(), SecretText::new("x"))];
        }
        let written = Routing { endpoints: vec![endpoint], ..Routing::default() };
        assert_eq!(Routing::settle(draft(written), &Routing::default()).is_ok(), expected, "{header:?}");
    }
}

#[test]
fn a_masked_secret_stands_for_the_one_that_is_kept_for_the_same_server() {
    let with = |url: &str, header: &str| Routing { endpoints: vec![webhook("a", url, header)], ..Routing::default() };
    let present = with("https://example.org/hook", "Bearer 1");
    let header = |routing: Routing| match &routing.endpoints[0].target {
        Target::Webhook(webhook) => webhook.headers[0].1.expose().to_owned(),
        other => panic!("{other:?}"),
    };
    let cases = [
        ("https://example.org/hook", MASK, Ok("Bearer 1")),
        ("https://example.org/other", MASK, Ok("Bearer 1")),
        ("https://example.org/hook", "Bearer 2", Ok("Bearer 2")),
        ("https://example.org:444/hook", MASK, Err(InvalidEndpoint::Masked)),
        ("http://example.org:443/hook", MASK, Err(InvalidEndpoint::Masked)),
        ("https://elsewhere.org/hook", MASK, Err(InvalidEndpoint::Masked)),
        ("https://example.org/hook", "line\nbreak", Err(InvalidEndpoint::Character { what: "the value of a header" })),
    ];
    for (url, written, expected) in cases {
        let settled = Routing::settle(draft(with(url, written)), &present).map(header);
        let expected = expected.map(str::to_owned);
        let expected = expected.map_err(|reason| InvalidRouting::Endpoint { endpoint: name("a"), reason });
        assert_eq!(settled, expected, "{url} {written}");
    }
    assert!(!format!("{present:?}").contains("Bearer"));
}

#[test]
fn kinds_that_a_client_does_not_know_stay() {
    let present = routing(&["a"], vec![], true);
    let unsaid = RoutingDraft { routing: Routing::default(), unsaid: vec![OwnKind::Webhook] };
    assert_eq!(Routing::settle(unsaid, &present).unwrap().endpoints, present.endpoints);
    assert!(Routing::settle(draft(Routing::default()), &present).unwrap().endpoints.is_empty());
}

#[test]
fn connection_strings_are_read_and_shown_without_their_secrets() {
    const KEY: &str = "SharedAccessKeyName=send;SharedAccessKey=c2VjcmV0";
    let cases: Vec<(AmqpKind, String, Result<(&str, &str), &str>)> = vec![
        (
            AmqpKind::EventHub,
            format!("Endpoint=sb://Ns.example.org/;{KEY};EntityPath=eh"),
            Ok((
                "amqps://ns.example.org:5671/",
                "Endpoint=sb://ns.example.org:5671/;SharedAccessKeyName=send;SharedAccessKey=****;EntityPath=eh",
            )),
        ),
        (
            AmqpKind::Queue,
            format!("Endpoint=sb://[::1]:1234;{KEY};UseDevelopmentEmulator=true"),
            Ok((
                "amqp://::1:1234/",
                "Endpoint=sb://[::1]:1234/;SharedAccessKeyName=send;SharedAccessKey=****;EntityPath=entity;\
                 UseDevelopmentEmulator=true",
            )),
        ),
        (
            AmqpKind::Container,
            "amqps://us%40er:pa%3Ass@host.example.org/queue/a%20b".to_owned(),
            Ok(("amqps://host.example.org:5671/", "amqps://us%40er:****@host.example.org:5671/queue/a%20b")),
        ),
        (AmqpKind::Container, "amqp://host/a".to_owned(), Ok(("amqp://host:5672/", "amqp://host:5672/a"))),
        (AmqpKind::EventHub, format!("Endpoint=https://host/;{KEY}"), Err("form Endpoint=sb://host/")),
        (AmqpKind::EventHub, "Endpoint=sb://host/;SharedAccessKeyName=x".to_owned(), Err("no SharedAccessKey")),
        (AmqpKind::EventHub, KEY.to_owned(), Err("no Endpoint")),
        (AmqpKind::Container, "amqps://us%4gr@host/a".to_owned(), Err("of the form amqps://")),
        (AmqpKind::Container, "http://host/a".to_owned(), Err("of the form amqps://")),
    ];
    for (kind, text, expected) in cases {
        let read = AmqpAddress::parse(kind, &text, Some("entity"));
        match (read, expected) {
            (Ok(read), Ok((url, masked))) => {
                assert_eq!(read.url.to_string().replace(['[', ']'], ""), url);
                assert_eq!(read.masked(), masked);
                let again = AmqpAddress::parse(kind, masked, None).unwrap();
                assert_eq!((&again.url, &again.user, &again.address), (&read.url, &read.user, &read.address), "{text}");
            }
            (Err(invalid), Err(expected)) => assert!(invalid.to_string().contains(expected), "{text}: {invalid}"),
            (read, expected) => panic!("{text}: {read:?}, not {expected:?}"),
        }
    }
}

#[test]
fn addresses_that_readers_would_take_apart_differently_are_refused() {
    let parse = |text: &str| Url::parse(text, &[("https", 443)], "https://host/path");
    let good = [("https://Example.org", "https://example.org:443/"), ("HTTPS://a:1?x=1", "https://a:1/?x=1")];
    for (text, shown) in good {
        assert_eq!(parse(text).map(|url| url.to_string()), Ok(shown.to_owned()));
    }
    let bad = [
        "",
        "https://",
        "http://a",
        "https:///x",
        "https://user@a/",
        "https://a:0/",
        "https://a:70000/",
        "https://a b/",
        "https://a#b",
        "https://[::1",
        "https://[::1]x/",
        "https://[a]/",
        "https://a\\b/",
        "https://é.org/",
        "a.org",
    ];
    for text in bad {
        assert!(parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn routes_survive_being_kept() {
    let routing = routing(&["a"], vec![route("r", "$body.x > 1", "a")], false);
    let kept = serde_json::to_string(&routing).unwrap();
    assert_eq!(serde_json::from_str::<Routing>(&kept).unwrap(), routing);
    assert_eq!(Condition::parse("  ").unwrap().text(), "true");
}

#[test]
fn what_an_endpoint_says_is_kept_short_and_on_one_line() {
    let refusal = Refusal::of_all(format!("it answers a\r\nb\u{1b}[31m{}", "é".repeat(1_000)));
    assert_eq!(refusal.text().chars().count(), Refusal::TEXT_CHARS_MAX);
    assert!(refusal.text().starts_with("it answers a\u{fffd}\u{fffd}b\u{fffd}[31mé"));
}
