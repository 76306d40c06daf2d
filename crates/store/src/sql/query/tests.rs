use std::sync::Arc;

use domain::clock::{ManualClock, SeededEntropy, UnixTime};
use domain::query::parse;

use super::super::Context;
use super::super::link::Link;
use super::*;
use crate::seal::Sealer;

/// What SQLite does for the first piece of a query, in its own words.
fn plan_of(connection: &rusqlite::Connection, text: &str) -> Vec<String> {
    let context = Context {
        sealer: Arc::new(Sealer::ephemeral(&SeededEntropy::new(1))),
        clock: Arc::new(ManualClock::at(UnixTime::from_seconds(0))),
        run: 1,
        quotas: domain::quota::Quotas::default(),
    };
    let db = Db { link: Link::Sqlite(connection), context: &context };
    let plan = parse(text).unwrap();
    let search = Search { hub: HubKey(1), plan: &plan, after: 0 };
    let mut bound = Bound::default();
    let filter = compile(plan.condition.as_ref(), db, &mut bound);
    let lens = if filter.is_exact { Lens::NOTHING } else { Lens::NOTHING.with_condition(&plan) };
    let piece = access::Piece { upto: 9, next: None };
    let sql = Access::choose(&plan).sql(db, &mut bound, (&search, &piece), (&filter, lens));
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let mut rows = statement.raw_query();
    std::iter::from_fn(|| rows.next().unwrap().map(|row| row.get("detail").unwrap())).collect()
}

#[test]
fn equalities_of_tags_and_device_ids_go_by_an_index_and_everything_else_by_one_walk_over_a_piece() {
    const BY_TAG: &str =
        "SEARCH twin_tag USING PRIMARY KEY (hub=? AND path=? AND value=? AND identity>? AND identity<?)";
    const BY_DEVICE: &str =
        "SEARCH i USING COVERING INDEX sqlite_autoindex_identity_1 (hub=? AND device=? AND module=?)";
    const IDENTITIES: &str = "SEARCH i USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)";
    const TWINS: &str = "SEARCH t USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)";

    let connection = crate::sqlite::connect(None).unwrap();
    for (condition, first, tables) in [
        ("tags.site = 's0'", BY_TAG, "twin_tag i t hub"),
        ("tags.site IN ['a', 'b'] AND tags.floor > 1", BY_TAG, "twin_tag i t hub"),
        ("tags.site = 's0' AND LOWER(tags.place) = 'x'", BY_TAG, "twin_tag i t hub"),
        ("deviceId = 'd'", BY_DEVICE, "i hub"),
        ("connectionState = 'Connected'", IDENTITIES, "i s hub"),
        ("properties.desired.level < 0", TWINS, "t i hub"),
        ("LOWER(tags.site) = 'x'", IDENTITIES, "i t hub"),
    ] {
        let plan = plan_of(&connection, &format!("SELECT * FROM devices WHERE {condition}"));
        assert_eq!(plan.first().map(String::as_str), Some(first), "{condition}");
        let searched: Vec<&str> =
            plan.iter().filter_map(|step| step.strip_prefix("SEARCH ")?.split(' ').next()).collect();
        assert_eq!(searched.join(" "), tables, "{condition}");
        assert!(!plan.iter().any(|step| step.starts_with("SCAN")), "{condition}: {plan:#?}");
    }
}
