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

/// What its indexes are called.
fn indexes(migration: &str) -> BTreeSet<&str> {
    let lines = migration.lines().filter(|line| line.starts_with("CREATE INDEX "));
    lines.filter_map(|line| line.split_whitespace().nth(2)).collect()
}

#[test]
fn both_databases_have_the_same_tables_columns_and_indexes() {
    let sqlite = include_str!("../../migrations/sqlite/0001_first.sql");
    let postgres = include_str!("../../migrations/postgres/0001_first.sql");
    assert!(columns(sqlite).len() > 100);
    assert_eq!(columns(sqlite), columns(postgres));
    assert_eq!(indexes(sqlite), indexes(postgres));
}
