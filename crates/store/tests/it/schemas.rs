//! The two databases have the same tables.

use std::collections::BTreeSet;

/// Every table's columns, out of a migration.
fn columns(migration: &str) -> BTreeSet<(String, String)> {
    let mut columns = BTreeSet::new();
    let mut table = None;
    for line in migration.lines() {
        if let Some(name) = line.strip_prefix("CREATE TABLE ").and_then(|rest| rest.strip_suffix(" (")) {
            table = Some(name);
        } else if line.starts_with(')') {
            table = None;
        } else if let Some(table) = table {
            let word = line.split_whitespace().next().unwrap_or_default();
            if word.chars().all(|character| character.is_ascii_lowercase() || character == '_') {
                columns.insert((table.to_owned(), word.to_owned()));
            }
        }
    }
    columns
}

/// Its indexes, each with what it is of, and its triggers by their names.
fn indexes_and_triggers(migration: &str) -> (BTreeSet<&str>, BTreeSet<&str>) {
    let indexes = migration.lines().filter(|line| line.starts_with("CREATE INDEX "));
    let triggers = migration.lines().filter_map(|line| line.strip_prefix("CREATE TRIGGER "));
    (indexes.collect(), triggers.filter_map(|rest| rest.split_whitespace().next()).collect())
}

#[test]
fn both_databases_have_the_same_tables_columns_indexes_and_triggers() {
    let sqlite = include_str!("../../migrations/sqlite/0001_first.sql");
    let postgres = include_str!("../../migrations/postgres/0001_first.sql");
    assert!(columns(sqlite).len() > 100);
    assert_eq!(columns(sqlite), columns(postgres));
    let (indexes, triggers) = indexes_and_triggers(sqlite);
    assert!(indexes.len() > 20 && triggers.len() > 5);
    assert_eq!((indexes, triggers), indexes_and_triggers(postgres));
}
