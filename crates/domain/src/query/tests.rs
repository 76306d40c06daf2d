use serde_json::{Map, Value, json};

use super::*;

fn document() -> Map<String, Value> {
    let document = json!({
        "deviceId": "dev-1",
        "status": "enabled",
        "statusReason": null,
        "connectionState": "Connected",
        "lastActivityTime": "2026-11-21T10:00:00.5000000Z",
        "statusUpdateTime": "0001-01-01T00:00:00Z",
        "capabilities": { "iotEdge": true },
        "tags": { "site": "Köln", "floor": 3, "ratio": 1.5, "on": true, "off": false, "odd key": 1, "list": [1], "in": { "from": "x" } },
        "properties": {
            "desired": { "interval": 10, "$version": 4 },
            "reported": { "interval": 20, "big": 9_007_199_254_740_993_i64, "text": "12.5", "empty": "", "$version": 7 },
        },
    });
    let Value::Object(document) = document else { panic!("it is one") };
    document
}

fn condition(text: &str) -> Expression {
    let plan = parse(&format!("SELECT * FROM devices WHERE {text}")).unwrap_or_else(|error| panic!("{text}: {error}"));
    plan.condition.unwrap()
}

/// What a condition comes to: `None` for what is neither true nor false.
fn truth(text: &str) -> Option<bool> {
    condition(text).value(&document()).truth()
}

#[test]
fn conditions_are_true_false_or_undefined() {
    const T: Option<bool> = Some(true);
    const F: Option<bool> = Some(false);
    let cases: &[(&str, Option<bool>)] = &[
        ("tags.site = 'Köln'", T),
        ("tags.site = \"K\\u00f6ln\"", T),
        ("Tags.site != 'Köln'", F),
        ("tags.Site = 'Köln'", None),
        ("'Köln' = tags.site", T),
        ("tags.floor = 3.0 AND tags.floor < 3.5 AND 0x03 >= tags.floor", T),
        ("properties.reported.big = 9007199254740992.0", F),
        ("properties.reported.big > 9007199254740992.0", T),
        ("tags.floor = '3'", F),
        ("tags.floor <> '3'", T),
        ("tags.floor < '4'", None),
        ("tags.on = true", T),
        ("tags.on = 1", F),
        ("tags.off = 0", F),
        ("tags.on > tags.off", None),
        ("statusReason = null", T),
        ("tags.site != null", T),
        ("tags.gone != null", None),
        ("tags.gone = undefined", None),
        ("tags.in = null", None),
        ("tags.list = tags.list", None),
        ("properties.reported.interval > properties.desired.interval", T),
        ("properties.desired.$version = 4", T),
        ("tags.[[odd key]] = 1", T),
        ("tags.in.from = 'x'", T),
        ("capabilities.iotEdge = true", T),
        ("capabilities.iotEdge", T),
        ("tags.site", None),
        ("1", None),
        // The collection may stand before a path.
        ("devices.deviceId = 'dev-1' AND devices.tags.floor = 3", T),
        // Logic of three values.
        ("tags.gone = 1 AND tags.floor = 4", F),
        ("tags.gone = 1 AND tags.floor = 3", None),
        ("tags.gone = 1 OR tags.floor = 3", T),
        ("tags.gone = 1 OR tags.floor = 4", None),
        ("NOT tags.gone = 1", None),
        ("NOT NOT tags.on", T),
        ("NOT NOT tags.site", None),
        ("NOT tags.floor = 4 AND tags.on", T),
        ("NOT (tags.floor = 4 AND tags.on)", T),
        ("tags.floor = 4 OR tags.floor = 3 AND tags.on = false OR tags.ratio = 1.5", T),
    ];
    check_truths(cases);
}

#[test]
fn lists_arithmetic_and_moments_come_to_truths() {
    const T: Option<bool> = Some(true);
    const F: Option<bool> = Some(false);
    let cases: &[(&str, Option<bool>)] = &[
        ("tags.floor IN [1, 2, 3]", T),
        ("tags.floor in [1, '3', true, null]", F),
        ("tags.floor NIN [1, -3]", T),
        ("tags.floor NOT IN [3]", F),
        ("NOT tags.floor IN [3]", F),
        ("tags.gone IN [undefined]", None),
        ("tags.gone NIN [1]", None),
        ("tags.list IN [1]", None),
        ("statusReason IN [null]", T),
        ("tags.floor IN []", F),
        ("tags.floor * 2 + 1 = 7", T),
        ("1 + tags.floor * 2 = 7", T),
        ("(1 + tags.floor) * 2 = 8", T),
        ("7 / 2 = 3.5 AND 8 / 2 = 4 AND 7 % 4 = 3 AND -7 % 4 = -3", T),
        ("tags.floor - 4 = -1 AND -tags.floor = - 3 AND 1-1=0", T),
        ("tags.floor / 0 = 0", None),
        ("tags.site + 1 = 1", None),
        ("9223372036854775807 + 1 = 9223372036854775808", T),
        // Moments are compared as moments.
        ("lastActivityTime >= '2026-11-21T10:00:00Z'", T),
        ("lastActivityTime > '2026-11-21T10:00:00.5Z'", F),
        ("'2026-11-21T12:00:00+01:00' > lastActivityTime", T),
        ("lastActivityTime < '2026-11-22'", T),
        ("statusUpdateTime = '0001-01-01'", T),
        ("lastActivityTime = 'soon'", F),
    ];
    check_truths(cases);
}

#[track_caller]
fn check_truths(cases: &[(&str, Option<bool>)]) {
    for (text, expected) in cases {
        assert_eq!(truth(text), *expected, "{text}");
        assert_eq!(condition(text).is_true(&document()), *expected == Some(true), "{text}");
    }
}

#[test]
fn functions_are_defined_for_their_type_alone() {
    let cases: &[(&str, Option<bool>)] = &[
        ("IS_DEFINED(tags.site)", Some(true)),
        ("is_defined(statusReason)", Some(true)),
        ("IsDefined(tags.gone)", Some(false)),
        ("IS_NULL(statusReason) AND NOT IS_NULL(tags.gone)", Some(true)),
        ("IS_BOOL(tags.on) AND IS_NUMBER(tags.ratio) AND IS_STRING(tags.site)", Some(true)),
        ("IS_ARRAY(tags.list) AND IS_OBJECT(tags.in) AND IS_ARRAY([1, 2])", Some(true)),
        ("IS_PRIMITIVE(tags.list) OR IS_PRIMITIVE(tags.gone)", Some(false)),
        ("STARTS_WITH(deviceId, 'dev-') AND startswith(deviceId, '')", Some(true)),
        ("ENDS_WITH(deviceId, '-1') AND CONTAINS(tags.site, 'öl')", Some(true)),
        ("STARTS_WITH(tags.floor, '3')", None),
        ("CONTAINS(deviceId, 1)", None),
        ("LENGTH(tags.site) = 4 AND LENGTH(properties.reported.empty) = 0", Some(true)),
        ("LOWER(tags.site) = 'köln' AND UPPER(tags.site) = 'KÖLN'", Some(true)),
        ("SUBSTRING(tags.site, 1) = 'öln' AND SUBSTRING(tags.site, 1, 2) = 'öl'", Some(true)),
        ("SUBSTRING(tags.site, 9) = '' AND SUBSTRING(tags.site, 0, 0) = ''", Some(true)),
        ("SUBSTRING(tags.site, -1) = ''", None),
        ("INDEX_OF(tags.site, 'ln') = 2 AND INDEX_OF(tags.site, 'x') = -1", Some(true)),
        ("CONCAT(deviceId, '/', tags.site) = 'dev-1/Köln'", Some(true)),
        ("CONCAT(deviceId, 1) = 'dev-11'", None),
        ("AS_NUMBER(properties.reported.text) = 12.5 AND AS_NUMBER(3) = 3", Some(true)),
        ("AS_NUMBER(tags.site) = 1", None),
        ("AS_NUMBER('inf') = 1", None),
        ("ABS(-3) = 3 AND ABS(-1.5) = 1.5 AND SIGN(-2) = -1 AND SIGN(0) = 0", Some(true)),
        ("CEILING(1.2) = 2 AND FLOOR(-1.2) = -2 AND FLOOR(3) = 3", Some(true)),
        ("SQUARE(3) = 9 AND SQRT(9) = 3 AND POWER(2, 10) = 1024 AND EXP(0) = 1", Some(true)),
        ("SQRT(-1) = 0", None),
        ("SQRT(tags.site) = 0", None),
    ];
    check_truths(cases);
}

#[test]
fn what_holds_constants_alone_is_computed_once() {
    let cases = [
        ("1 = 1", "true"),
        ("NOT 1 = 1", "false"),
        ("60 * 60 * 24", "86400"),
        ("UPPER('a')", "\"A\""),
        ("tags.a = 2 * (3 + 4)", "(tags.a = 14)"),
        ("-(-5)", "5"),
        ("1 / 0", "undefined"),
        ("tags.a NIN [1]", "(NOT (tags.a IN [1]))"),
        ("lastActivityTime > '2026-01-01'", "(lastActivityTime > '2026-01-01T00:00:00.0000000Z')"),
    ];
    for (text, expected) in cases {
        assert_eq!(condition(text).to_string(), expected, "{text}");
    }
}

#[test]
fn plans_are_read_whatever_the_letter_case_and_the_spacing() {
    let cases = [
        ("select * from devices", "SELECT * FROM devices"),
        ("SELECT\t*\r\nFROM Devices.Modules", "SELECT * FROM devices.modules"),
        ("select top 5 * from devices.jobs where jobId='x'", "SELECT TOP 5 * FROM devices.jobs WHERE (jobId = \"x\")"),
        (
            "SELECT deviceid, devices.tags.a.b as c,properties.Reported.x FROM devices",
            "SELECT deviceId, tags.a.b AS c, properties.reported.x FROM devices",
        ),
        (
            "SELECT tags.site AS s, COUNT() AS n, avg(properties.reported.t) FROM devices GROUP BY tags.site",
            "SELECT tags.site AS s, COUNT() AS n, AVG(properties.reported.t) AS $3 FROM devices GROUP BY tags.site",
        ),
        ("SELECT COUNT() FROM devices WHERE a", "SELECT COUNT() AS $1 FROM devices WHERE a"),
        (
            "SELECT devices.jobs.deviceId FROM devices.modules WHERE configurations.[[c 1]].status='Applied'",
            "SELECT deviceId FROM devices.modules WHERE (configurations.[[c 1]].status = \"Applied\")",
        ),
    ];
    for (text, expected) in cases {
        let plan = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(plan.to_string(), expected, "{text}");
        assert_eq!(parse(expected), Ok(plan), "{text}");
    }
}

#[test]
fn an_error_says_where_and_what_was_expected() {
    let cases = [
        ("", "at character 1: expected SELECT, found the end of the query"),
        ("SELEC * FROM devices", "at character 1: expected SELECT, found SELEC"),
        ("SELECT FROM devices", "at character 8: expected a column, an aggregate or *, found FROM"),
        ("SELECT * FORM devices", "at character 10: expected FROM, found FORM"),
        ("SELECT * FROM twins", "at character 15: expected devices, devices.modules or devices.jobs, found twins"),
        ("SELECT TOP 0 * FROM devices", "at character 12: expected a number of rows, found 0"),
        (
            "SELECT * FROM devices tags.a = 1",
            "at character 23: expected WHERE, GROUP BY or the end of the query, found tags.a",
        ),
        ("SELECT * FROM devices WHERE", "at character 28: expected a value, found the end of the query"),
        ("SELECT * FROM devices WHERE tags.a =", "at character 37: expected a value, found the end of the query"),
        (
            "SELECT * FROM devices WHERE tags.a = 'x' tags.b",
            "at character 42: expected an operator, GROUP BY or the end of the query, found tags.b",
        ),
        ("SELECT * FROM devices WHERE (tags.a", "at character 36: expected ), found the end of the query"),
        ("SELECT * FROM devices WHERE tags.a = 'x", "at character 38: the text is not closed"),
        (
            "SELECT * FROM devices WHERE tags.a = 'x\\q'",
            "at character 41: expected one of \\' \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX",
        ),
        (
            "SELECT * FROM devices WHERE tags.a = '\\ud800'",
            "at character 40: expected one of \\' \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX",
        ),
        ("SELECT * FROM devices WHERE tags.a == 1", "at character 37: expected a value, found ="),
        ("SELECT * FROM devices WHERE tags.a = 1x", "at character 38: this is not a number"),
        ("SELECT * FROM devices WHERE tags. = 1", "at character 34: expected the name of a member, found  "),
        ("SELECT * FROM devices WHERE tags.[[a = 1", "at character 36: [[ is not closed"),
        ("SELECT * FROM devices WHERE tags.a & 1", "at character 36: '&' begins nothing that the language knows"),
        ("SELECT * FROM devices WHERE IS_COLD(tags.a)", "at character 29: IS_COLD is not a function of the language"),
        ("SELECT * FROM devices WHERE CONTAINS(tags.a)", "at character 29: CONTAINS takes two arguments"),
        ("SELECT * FROM devices WHERE tags.a IN 1", "at character 39: expected an array, found 1"),
        ("SELECT * FROM devices WHERE tags.a IN [tags.b]", "at character 40: expected a constant, found tags.b"),
        (
            "SELECT * FROM devices GROUP BY tags.a",
            "at character 8: expected columns or aggregates to go with GROUP BY, found *",
        ),
        (
            "SELECT tags.a, COUNT() FROM devices",
            "at character 8: tags.a is neither in GROUP BY nor inside an aggregate",
        ),
        (
            "SELECT tags.a, properties.reported.a FROM devices",
            "at character 16: two columns are called a: give one of them another name with AS",
        ),
        ("SELECT TOTAL(tags.a) FROM devices", "at character 8: expected COUNT, AVG, SUM, MIN or MAX, found TOTAL"),
        ("SELECT jobId FROM devices.jobs", "at character 8: from devices.jobs only SELECT * is possible"),
        ("SELECT * FROM devices WHERE tags.é = ?", "at character 38: '?' begins nothing that the language knows"),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(text).unwrap_err().to_string(), expected, "{text}");
    }
}

#[test]
fn texts_are_bounded_in_length_depth_and_terms() {
    let query = |condition: &str| parse(&format!("SELECT * FROM devices WHERE {condition}"));
    let nested = |depth: usize| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
    assert!(query(&nested(DEPTH_MAX - 1)).is_ok());
    assert_eq!(query(&nested(DEPTH_MAX)).unwrap_err().fault, Fault::TooDeep);
    let calls = |depth: usize| format!("{}a{}", "LOWER(".repeat(depth), ")".repeat(depth));
    assert_eq!(query(&calls(DEPTH_MAX)).unwrap_err().fault, Fault::TooDeep);

    for many in ["a OR ", "NOT ", "- ", "1 + "] {
        let text = format!("{}a", many.repeat(TERMS_MAX));
        assert_eq!(query(&text).unwrap_err().fault, Fault::TooManyTerms, "{many}");
    }
    let list = format!("a IN [{}1]", "1,".repeat(TERMS_MAX));
    assert_eq!(query(&list).unwrap_err().fault, Fault::TooManyTerms);
    let columns = format!("SELECT {}a FROM devices", "a,".repeat(TERMS_MAX));
    assert_eq!(parse(&columns).unwrap_err().fault, Fault::TooManyTerms);

    let long = format!("a = '{}'", "x".repeat(TEXT_BYTES_MAX));
    assert_eq!(query(&long).unwrap_err(), InvalidQuery { at: 1, fault: Fault::TooLong });
    let shown = query(&format!("{} b", "x".repeat(1_000))).unwrap_err().to_string();
    assert!(shown.len() < 200, "{shown}");
}

fn rows(text: &str, documents: &[Value]) -> Value {
    let plan = parse(text).unwrap();
    let chosen = documents.iter().filter_map(Value::as_object).filter(|document| plan.matches(document));
    match &plan.select {
        Select::Whole => chosen.cloned().map(Value::Object).collect(),
        Select::Columns(columns) => chosen.map(|document| Value::Object(Plan::project(columns, document))).collect(),
        Select::Groups { keys, columns } => {
            let mut groups = Groups::new(keys, columns);
            chosen.for_each(|document| groups.observe(document).unwrap());
            groups.rows(None, 100).0.into_iter().map(Value::Object).collect()
        }
    }
}

#[test]
fn columns_and_groups_are_answered_under_their_names() {
    let documents = [
        json!({ "deviceId": "a", "tags": { "site": "x", "n": 1, "t": "b" } }),
        json!({ "deviceId": "b", "tags": { "site": "y", "n": 2.5 } }),
        json!({ "deviceId": "c", "tags": { "site": "x", "n": 3, "t": "a" } }),
        json!({ "deviceId": "d", "tags": { "n": "many", "t": true } }),
    ];
    let cases = [
        ("SELECT deviceId FROM devices WHERE tags.site = 'x'", json!([{ "deviceId": "a" }, { "deviceId": "c" }])),
        ("SELECT tags.site AS s FROM devices WHERE deviceId IN ['b', 'd']", json!([{ "s": "y" }, {}])),
        ("SELECT COUNT() AS n FROM devices", json!([{ "n": 4 }])),
        ("SELECT COUNT() AS n, SUM(tags.n) AS s FROM devices WHERE deviceId = 'e'", json!([{ "n": 0 }])),
        (
            "SELECT tags.site, COUNT() AS n FROM devices GROUP BY tags.site",
            json!([{ "site": "x", "n": 2 }, { "site": "y", "n": 1 }, { "n": 1 }]),
        ),
        (
            "SELECT SUM(tags.n), AVG(tags.n) AS mean, MIN(tags.n) AS low, MAX(tags.n) AS high FROM devices",
            json!([{ "$1": 6.5, "mean": 2.166_666_666_666_666_5, "low": 1, "high": "many" }]),
        ),
        ("SELECT SUM(tags.n) AS s FROM devices WHERE tags.site = 'x'", json!([{ "s": 4 }])),
        ("SELECT MIN(tags.t) AS a, MAX(tags.t) AS z FROM devices", json!([{ "a": true, "z": "b" }])),
    ];
    for (text, expected) in cases {
        assert_eq!(rows(text, &documents), expected, "{text}");
    }
}

#[test]
fn equal_numbers_are_one_group_and_groups_come_in_pages() {
    let Select::Groups { keys, columns } =
        parse("SELECT tags.n, COUNT() AS c FROM devices GROUP BY tags.n").unwrap().select
    else {
        panic!("it is grouped")
    };
    let mut groups = Groups::new(&keys, &columns);
    let documents: Value = serde_json::from_str(
        r#"[{"tags":{"n":1}},{"tags":{"n":1.0}},{"tags":{"n":1e0}},{"tags":{"n":"1"}},{"tags":{}},{"tags":{"n":null}}]"#,
    )
    .unwrap();
    for document in documents.as_array().unwrap() {
        groups.observe(document.as_object().unwrap()).unwrap();
    }
    let (first, next) = groups.rows(None, 3);
    assert_eq!(json!(first), json!([{ "n": "1", "c": 1 }, { "n": 1, "c": 3 }, { "n": null, "c": 1 }]));
    let (second, end) = groups.rows(next.as_deref(), 3);
    assert_eq!((json!(second), end), (json!([{ "c": 1 }]), None));
}

#[test]
fn groups_are_bounded() {
    let Select::Groups { keys, columns } = parse("SELECT COUNT() FROM devices GROUP BY tags.n").unwrap().select else {
        panic!("it is grouped")
    };
    let document = |number: usize| json!({ "tags": { "n": number } }).as_object().unwrap().clone();
    let mut groups = Groups::new(&keys, &columns);
    for number in 0..GROUPS_MAX {
        groups.observe(&document(number)).unwrap();
    }
    assert_eq!(groups.observe(&document(GROUPS_MAX)), Err(TooManyGroups));
    assert_eq!(groups.observe(&document(0)), Ok(()));

    let columns: Vec<String> = (0..200).map(|number| format!("MAX(tags.t) AS c{number}")).collect();
    let text = format!("SELECT {} FROM devices GROUP BY tags.n", columns.join(", "));
    let Select::Groups { keys, columns } = parse(&text).unwrap().select else { panic!("it is grouped") };
    let mut groups = Groups::new(&keys, &columns);
    let document = |number: usize| json!({ "tags": { "n": number, "t": "x".repeat(4_000) } });
    let taken = (0..GROUPS_MAX).take_while(|&number| groups.observe(document(number).as_object().unwrap()).is_ok());
    assert!((50..100).contains(&taken.count()), "long texts count");
}

#[test]
fn numbers_compare_exactly() {
    use std::cmp::Ordering::{Equal, Greater, Less};

    let cases = [
        ("1", "1.0", Equal),
        ("9007199254740993", "9007199254740992.0", Greater),
        ("9223372036854775807", "9223372036854775808", Less),
        ("-9223372036854775808", "-9223372036854775808.0", Equal),
        ("-9223372036854775808", "-1e300", Greater),
        ("0", "-0.0", Equal),
        ("-3", "-3.5", Greater),
        ("3", "3.5", Less),
        ("1e400", "1e308", Greater),
    ];
    for (one, two, expected) in cases {
        let (left, right) = (Number::from_text(one), Number::from_text(two));
        assert_eq!((left.cmp(&right), right.cmp(&left)), (expected, expected.reverse()), "{one} and {two}");
    }
}

#[test]
fn moments_are_read_as_people_write_them() {
    let cases = [
        ("2026-11-21T10:00:00Z", Some(1_795_255_200_000_000)),
        ("2026-11-21T10:00:00.1234567Z", Some(1_795_255_200_123_456)),
        ("2026-11-21 11:00:00+01:00", Some(1_795_255_200_000_000)),
        ("2026-11-21T10:00:00", Some(1_795_255_200_000_000)),
        ("2026-11-21", Some(1_795_219_200_000_000)),
        ("0001-01-01T00:00:00Z", Some(UnixTime::NEVER.micros())),
        ("soon", None),
        ("2026", None),
        ("2026-13-01", None),
        ("", None),
    ];
    for (text, expected) in cases {
        assert_eq!(document::parse_moment(text).map(UnixTime::micros), expected, "{text}");
    }
}

#[test]
fn tags_are_indexed_by_their_primitive_leaves() {
    let tags = r#"{"site":"x","n":{"one":1.0,"on":true,"list":[1],"none":{}},"é":"y","big":1e300,"null":null}"#;
    let tags: Map<String, Value> = serde_json::from_str(tags).unwrap();
    let leaves: Vec<String> =
        leaf::of_tags(&tags).into_iter().map(|leaf| format!("{} {}", leaf.path, leaf.value)).collect();
    assert_eq!(leaves, ["site tx", "n.one n1", "n.on btrue", "é ty", "big n1e300"]);

    let cases = [
        ("tags.site = 'x'", Some("site tx")),
        ("tags.n.one = 1", Some("n.one n1")),
        ("tags.n.one = 1e0", Some("n.one n1")),
        ("tags.n.on = true", Some("n.on btrue")),
        ("tags.a = null", None),
        ("tags.[[a.b]] = 1", None),
        ("tags = 1", None),
        ("properties.reported.a = 1", None),
    ];
    for (text, expected) in cases {
        let Expression::Compare(Comparison::Equal, path, constant) = condition(text) else { panic!("{text}") };
        let (Expression::Path(path), Expression::Constant(constant)) = (*path, *constant) else { panic!("{text}") };
        let found = leaf::of_path(&path).zip(leaf::of_constant(&constant));
        assert_eq!(found.map(|(path, value)| format!("{path} {value}")).as_deref(), expected, "{text}");
    }
    let long = Constant::Text("x".repeat(300).into());
    assert_eq!(leaf::of_constant(&long), None);
}

#[test]
fn a_target_is_a_condition_on_devices_or_names_the_modules() {
    let target = |text| parse_target(text).map(|plan| (plan.collection, plan.condition.is_some()));
    assert_eq!(target("*"), Ok((Collection::Devices, false)));
    assert_eq!(target("tags.site = 'x' AND deviceId IN ['a', 'b']"), Ok((Collection::Devices, true)));
    assert_eq!(target("from devices where status = 'enabled'"), Ok((Collection::Devices, true)));
    assert_eq!(target("FROM devices.modules WHERE moduleId = 'm'"), Ok((Collection::Modules, true)));
    assert_eq!(target("FROM devices.modules"), Ok((Collection::Modules, false)));
    for text in ["", "* AND", "SELECT * FROM devices", "FROM devices.jobs", "tags.a = 1 GROUP BY tags.a", "FROM x", "="]
    {
        assert!(target(text).is_err(), "{text}");
    }
}

#[test]
fn what_a_row_must_equal_is_found_where_it_is_said_plainly() {
    let cases = [
        ("jobId = 'a'", Some("a")),
        ("'a' = devices.jobs.jobId AND status = 'failed'", Some("a")),
        ("jobId = 'a' OR status = 'failed'", None),
        ("jobId != 'a'", None),
        ("jobId.x = 'a'", None),
        ("jobId = 1", None),
    ];
    let root = Root::Other("jobId".into());
    for (text, expected) in cases {
        let plan = parse(&format!("SELECT * FROM devices.jobs WHERE {text}")).unwrap();
        assert_eq!(plan.required_text(&root), expected, "{text}");
    }
}
