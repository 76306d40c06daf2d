//! Groups of documents and what is counted and computed over them, one document at a time.
//!
//! Bounded in number and in bytes, however many documents there are.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::evaluate::Outcome;
use super::value::{Known, Number};
use super::{GroupColumn, GroupValue, Path};

/// Most groups of an answer.
pub const GROUPS_MAX: usize = 10_000;
/// Most bytes of all groups together: their keys, what is known of their columns, and the texts that are the smallest or
/// largest so far.
const BYTES_MAX: usize = 64 << 20;

/// Something counted or computed over documents. Values that are no numbers, or for the smallest and largest no
/// primitives, are passed over; without any value left there is no result.
#[derive(Clone, Debug, PartialEq)]
pub enum Aggregate {
    /// `COUNT()`: how many documents.
    Count,
    /// `AVG`
    Average(Path),
    /// `SUM`
    Sum(Path),
    /// `MIN`: truths before numbers before texts.
    Minimum(Path),
    /// `MAX`: in the same order.
    Maximum(Path),
}

impl Aggregate {
    /// What it is computed of.
    pub const fn path(&self) -> Option<&Path> {
        match self {
            Self::Count => None,
            Self::Average(path) | Self::Sum(path) | Self::Minimum(path) | Self::Maximum(path) => Some(path),
        }
    }

    /// As it is written.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Count => "COUNT",
            Self::Average(_) => "AVG",
            Self::Sum(_) => "SUM",
            Self::Minimum(_) => "MIN",
            Self::Maximum(_) => "MAX",
        }
    }
}

/// There are more groups than an answer may have, or they take too much room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("GROUP BY makes more than {GROUPS_MAX} groups, or they take more than {BYTES_MAX} bytes")]
pub struct TooManyGroups;

/// The groups of an answer, in order of their keys.
#[derive(Clone, Debug)]
pub struct Groups {
    keys: Vec<Path>,
    columns: Vec<GroupColumn>,
    by_key: BTreeMap<String, Group>,
    bytes: usize,
}

#[derive(Clone, Debug)]
struct Group {
    keys: Vec<Option<Value>>,
    count: u64,
    /// One for each column.
    folds: Vec<Fold>,
}

/// What was seen of one column.
#[derive(Clone, Debug, Default)]
struct Fold {
    /// Numbers seen.
    numbers: u64,
    integers: i128,
    reals: f64,
    has_reals: bool,
    /// The smallest or largest value so far.
    extreme: Option<Value>,
}

impl Groups {
    /// No groups yet; without keys the one group there is.
    pub fn new(keys: &[Path], columns: &[GroupColumn]) -> Self {
        let mut groups = Self { keys: keys.to_vec(), columns: columns.to_vec(), by_key: BTreeMap::new(), bytes: 0 };
        if keys.is_empty() {
            groups.by_key.insert(String::new(), groups.fresh(Vec::new()));
        }
        groups
    }

    /// Whether documents need only be counted.
    pub fn only_counts(&self) -> bool {
        let is_count = |column: &GroupColumn| column.value == GroupValue::Aggregate(Aggregate::Count);
        self.keys.is_empty() && self.columns.iter().all(is_count)
    }

    /// Counts documents that nothing else has to be known of ([`Self::only_counts`]).
    pub fn count(&mut self, documents: u64) {
        for group in self.by_key.values_mut() {
            group.count += documents;
        }
    }

    /// Puts a document to its group.
    pub fn observe(&mut self, document: &Map<String, Value>) -> Result<(), TooManyGroups> {
        let keys: Vec<Option<Value>> = self.keys.iter().map(|path| path.find(document).map(canonical)).collect();
        let place: Vec<String> =
            keys.iter().map(|key| key.as_ref().map_or_else(|| "undefined".to_owned(), Value::to_string)).collect();
        let place = place.join(",");
        if !self.by_key.contains_key(&place) {
            // The key is kept as text and as values.
            self.bytes += 2 * place.len() + self.columns.len() * size_of::<Fold>();
            if self.by_key.len() == GROUPS_MAX {
                return Err(TooManyGroups);
            }
            self.by_key.insert(place.clone(), self.fresh(keys));
        }
        if let Some(group) = self.by_key.get_mut(&place) {
            group.count += 1;
            for (fold, column) in group.folds.iter_mut().zip(&self.columns) {
                let before = fold.text_bytes();
                fold.observe(&column.value, document);
                self.bytes = (self.bytes + fold.text_bytes()).saturating_sub(before);
            }
        }
        if self.bytes > BYTES_MAX { Err(TooManyGroups) } else { Ok(()) }
    }

    /// Up to `limit` rows of groups behind the one at `after`, and the place of the last if there are more.
    pub fn rows(&self, after: Option<&str>, limit: usize) -> (Vec<Outcome>, Option<String>) {
        use std::ops::Bound::{Excluded, Unbounded};

        let behind = (after.map_or(Unbounded, Excluded), Unbounded);
        let mut groups = self.by_key.range::<str, _>(behind);
        let (mut rows, mut last) = (Vec::new(), None);
        for (place, group) in groups.by_ref().take(limit) {
            rows.push(self.row(group));
            last = Some(place);
        }
        (rows, groups.next().and(last.cloned()))
    }

    fn fresh(&self, keys: Vec<Option<Value>>) -> Group {
        Group { keys, count: 0, folds: vec![Fold::default(); self.columns.len()] }
    }

    fn row(&self, group: &Group) -> Outcome {
        let value = |column: &GroupColumn, fold: &Fold| match &column.value {
            GroupValue::Key(key) => group.keys.get(*key).cloned().flatten(),
            GroupValue::Aggregate(Aggregate::Count) => Some(group.count.into()),
            GroupValue::Aggregate(Aggregate::Sum(_)) => fold.sum(),
            GroupValue::Aggregate(Aggregate::Average(_)) => fold.average(),
            GroupValue::Aggregate(Aggregate::Minimum(_) | Aggregate::Maximum(_)) => fold.extreme.clone(),
        };
        let columns = self.columns.iter().zip(&group.folds);
        columns.filter_map(|(column, fold)| Some((column.name.clone(), value(column, fold)?))).collect()
    }
}

/// A value by which equal numbers are equal: whole numbers without a fraction.
fn canonical(value: &Value) -> Value {
    let Value::Number(number) = value else { return value.clone() };
    let number = Number::from_json(number).canonical();
    number.to_json().map_or_else(|| value.clone(), Value::Number)
}

impl Fold {
    fn observe(&mut self, value: &GroupValue, document: &Map<String, Value>) {
        use std::cmp::Ordering::{Greater, Less};

        let GroupValue::Aggregate(aggregate) = value else { return };
        let Some(found) = aggregate.path().and_then(|path| path.find(document)) else { return };
        match aggregate {
            Aggregate::Count => {}
            Aggregate::Sum(_) | Aggregate::Average(_) => self.add(found),
            Aggregate::Minimum(_) => self.keep(found, Less),
            Aggregate::Maximum(_) => self.keep(found, Greater),
        }
    }

    fn add(&mut self, value: &Value) {
        let Value::Number(number) = value else { return };
        self.numbers += 1;
        match Number::from_json(number) {
            Number::Integer(integer) => self.integers += i128::from(integer),
            Number::Real(real) => {
                self.reals += real;
                self.has_reals = true;
            }
        }
    }

    fn keep(&mut self, value: &Value, wanted: std::cmp::Ordering) {
        let Some(rank) = rank(value) else { return };
        let is_further = self.extreme.as_ref().and_then(self::rank).is_none_or(|known| rank.cmp(&known) == wanted);
        if is_further {
            self.extreme = Some(value.clone());
        }
    }

    /// Bytes of the text that is the smallest or largest so far.
    fn text_bytes(&self) -> usize {
        self.extreme.as_ref().and_then(Value::as_str).map_or(0, str::len)
    }

    fn total(&self) -> f64 {
        self.integers as f64 + self.reals
    }

    fn sum(&self) -> Option<Value> {
        if self.numbers == 0 {
            return None;
        }
        match i64::try_from(self.integers) {
            Ok(integers) if !self.has_reals => Some(integers.into()),
            _ => serde_json::Number::from_f64(self.total()).map(Value::Number),
        }
    }

    fn average(&self) -> Option<Value> {
        if self.numbers == 0 {
            return None;
        }
        serde_json::Number::from_f64(self.total() / self.numbers as f64).map(Value::Number)
    }
}

/// Where a primitive value stands among all.
fn rank(value: &Value) -> Option<(u8, bool, Number, &str)> {
    const ZERO: Number = Number::Integer(0);

    match Known::of_json(Some(value)) {
        Known::Bool(truth) => Some((0, truth, ZERO, "")),
        Known::Number(number) => Some((1, false, number, "")),
        Known::Text(_) => value.as_str().map(|text| (2, false, ZERO, text)),
        Known::Undefined | Known::Null | Known::Array | Known::Object => None,
    }
}
