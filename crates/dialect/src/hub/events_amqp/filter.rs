//! Where a reader begins, as the filter of its source says (`contract/eventhub-endpoint.md 6.3`). Start at [`start_of`];
//! a reader of ours says it by [`source`].

use domain::clock::UnixTime;
use domain::operation::events::{From, Start};
use proto::amqp::{Described, Map, Source, Symbol, Value};

/// The filter that selects by an expression. Azure's clients call it by this name, whatever they describe its value by;
/// other clients call it as they like, and say by what its value is described what it is (AMQP 1.0, part 3, section 3.5.8).
const SELECTOR: &str = "apache.org:selector-filter:string";
/// The same as a number.
const SELECTOR_CODE: u64 = 0x468C_0000_0004;
/// Longest expression that is looked at.
const EXPRESSION_BYTES_MAX: usize = 512;
/// What an offset is compared with to mean the end.
const LATEST: &str = "@latest";

/// Why a filter is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    /// The value is no text, or too long.
    #[error("the filter is no expression of at most {EXPRESSION_BYTES_MAX} bytes")]
    NotText,
    /// It does not compare an annotation with something.
    #[error("the filter does not say that an annotation is greater than a value")]
    Comparison,
    /// The annotation is none that a place is told by.
    #[error("the filter compares with an annotation that tells no place")]
    Annotation,
    /// What it compares with is no number.
    #[error("the filter compares with what is no number")]
    Number,
}

/// Where a reader of `source` begins: at the oldest message if it does not say.
pub fn start_of(source: Option<&Source>) -> Result<Start, InvalidFilter> {
    let Some(filter) = source.and_then(|source| find_selector(&source.filter)) else {
        return Ok(Start::At(From::Oldest));
    };
    let expression = match filter {
        Value::Described(described) => match &**described {
            Described { value: Value::String(text), .. } => text,
            _ => return Err(InvalidFilter::NotText),
        },
        Value::String(text) => text,
        _ => return Err(InvalidFilter::NotText),
    };
    if expression.len() > EXPRESSION_BYTES_MAX {
        return Err(InvalidFilter::NotText);
    }
    parse(expression)
}

fn find_selector(filter: &Map) -> Option<&Value> {
    let is_selector = |value: &&Value| match value {
        Value::Described(described) => match &described.descriptor {
            Value::Symbol(name) => *name == SELECTOR,
            Value::Ulong(code) => *code == SELECTOR_CODE,
            _ => false,
        },
        _ => false,
    };
    filter.find(SELECTOR).or_else(|| filter.0.iter().map(|(_, value)| value).find(is_selector))
}

/// The source `address`, read from `start` on.
pub fn source(address: &str, start: Start) -> Source {
    let descriptor = Value::Symbol(Symbol::from_static(SELECTOR));
    let value = Value::from(expression(start));
    let filter = Value::Described(Box::new(Described { descriptor, value }));
    Source { filter: Map::from_iter([(Symbol::from_static(SELECTOR), filter)]), ..Source::at(address) }
}

fn expression(start: Start) -> String {
    match start {
        Start::Newest => format!("amqp.annotation.x-opt-offset > '{LATEST}'"),
        Start::At(From::Oldest) => "amqp.annotation.x-opt-offset > '-1'".to_owned(),
        Start::At(From::AfterOffset(offset)) => format!("amqp.annotation.x-opt-offset > '{offset}'"),
        Start::At(From::AfterSequence(sequence)) => format!("amqp.annotation.x-opt-sequence-number > '{sequence}'"),
        // The first millisecond of which nothing is left out.
        Start::At(From::AfterTime(time)) => {
            let first = UnixTime::from_micros(time.micros().saturating_add(1));
            format!("amqp.annotation.x-opt-enqueued-time >= '{}'", first.millis())
        }
    }
}

/// Reads `amqp.annotation.{name} > '{value}'`, also with `>=` and without quotes.
fn parse(expression: &str) -> Result<Start, InvalidFilter> {
    let (name, rest) = expression.split_once('>').ok_or(InvalidFilter::Comparison)?;
    let name = name.trim().strip_prefix("amqp.annotation.").ok_or(InvalidFilter::Annotation)?;
    let (is_inclusive, value) = match rest.strip_prefix('=') {
        Some(value) => (true, value.trim()),
        None => (false, rest.trim()),
    };
    let value = match value.strip_prefix('\'') {
        Some(quoted) => quoted.strip_suffix('\'').ok_or(InvalidFilter::Comparison)?,
        None => value,
    };
    match name {
        "x-opt-offset" if value == LATEST => Ok(Start::Newest),
        "x-opt-offset" => Ok(Start::At(behind(value, is_inclusive)?.map_or(From::Oldest, From::AfterOffset))),
        "x-opt-sequence-number" => {
            Ok(Start::At(behind(value, is_inclusive)?.map_or(From::Oldest, From::AfterSequence)))
        }
        "x-opt-enqueued-time" | "x-opt-enqueuedtimeutc" => Ok(Start::At(From::AfterTime(time(value, is_inclusive)?))),
        _ => Err(InvalidFilter::Annotation),
    }
}

/// The number behind which reading begins; `None` for one before all.
fn behind(value: &str, is_inclusive: bool) -> Result<Option<u64>, InvalidFilter> {
    let number: i64 = value.parse().map_err(|_| InvalidFilter::Number)?;
    let before = if is_inclusive { number.checked_sub(1) } else { Some(number) };
    Ok(before.and_then(|before| u64::try_from(before).ok()))
}

/// The moment behind which reading begins. Readers see milliseconds, and what lies inside the one that they name is not
/// behind it.
fn time(value: &str, is_inclusive: bool) -> Result<UnixTime, InvalidFilter> {
    const MICROS: i64 = 1_000;

    let millis: i64 = value.parse().map_err(|_| InvalidFilter::Number)?;
    let first = if is_inclusive { millis } else { millis.saturating_add(1) };
    Ok(UnixTime::from_micros(first.saturating_mul(MICROS).saturating_sub(1)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::amqp::{Map, Symbol};

    use super::*;

    const OLDEST: Result<Start, InvalidFilter> = Ok(Start::At(From::Oldest));

    #[test]
    fn every_clients_expression_is_read() {
        let at = |from| Ok(Start::At(from));
        let after = |micros| at(From::AfterTime(UnixTime::from_micros(micros)));
        let cases = [
            ("earliest", "amqp.annotation.x-opt-offset > '-1'", OLDEST),
            ("earliest, inclusive", "amqp.annotation.x-opt-offset >= '-1'", OLDEST),
            ("latest", "amqp.annotation.x-opt-offset > '@latest'", Ok(Start::Newest)),
            ("an offset", "amqp.annotation.x-opt-offset > '37344'", at(From::AfterOffset(37_344))),
            ("itself too", "amqp.annotation.x-opt-offset >= '37344'", at(From::AfterOffset(37_343))),
            ("the first", "amqp.annotation.x-opt-offset >= '0'", OLDEST),
            ("behind the first", "amqp.annotation.x-opt-offset > '0'", at(From::AfterOffset(0))),
            ("a number", "amqp.annotation.x-opt-sequence-number > '7'", at(From::AfterSequence(7))),
            ("itself too", "amqp.annotation.x-opt-sequence-number >= '7'", at(From::AfterSequence(6))),
            ("as documented", "amqp.annotation.x-opt-sequence-number > 2995", at(From::AfterSequence(2_995))),
            ("before all", "amqp.annotation.x-opt-sequence-number > '-1'", OLDEST),
            ("a time", "amqp.annotation.x-opt-enqueued-time > '1000'", after(1_000_999)),
            ("itself too", "amqp.annotation.x-opt-enqueued-time >= '1000'", after(999_999)),
            ("the CLI", "amqp.annotation.x-opt-enqueuedtimeutc > 1690000000000", after(1_690_000_000_000_999)),
            ("without spaces", "amqp.annotation.x-opt-sequence-number>='7'", at(From::AfterSequence(6))),
        ];
        for (case, expression, expected) in cases {
            assert_eq!(parse(expression), expected, "{case}: {expression}");
        }
    }

    #[test]
    fn what_tells_no_place_is_refused() {
        let cases = [
            ("", InvalidFilter::Comparison),
            ("amqp.annotation.x-opt-offset < '7'", InvalidFilter::Comparison),
            ("amqp.annotation.x-opt-offset > '7", InvalidFilter::Comparison),
            ("amqp.annotation.x-opt-partition-key > '7'", InvalidFilter::Annotation),
            ("x-opt-offset > '7'", InvalidFilter::Annotation),
            ("amqp.annotation.x-opt-offset > ''", InvalidFilter::Number),
            ("amqp.annotation.x-opt-offset > 'seven'", InvalidFilter::Number),
            ("amqp.annotation.x-opt-sequence-number > '@latest'", InvalidFilter::Number),
            ("amqp.annotation.x-opt-sequence-number > '99999999999999999999'", InvalidFilter::Number),
        ];
        for (expression, expected) in cases {
            assert_eq!(parse(expression), Err(expected), "{expression}");
        }
    }

    #[test]
    fn the_value_may_be_described_in_either_way_and_no_filter_means_all() {
        let expression = || Value::from("amqp.annotation.x-opt-sequence-number > '7'");
        let described = |descriptor| Value::Described(Box::new(Described { descriptor, value: expression() }));
        let seven = Ok(Start::At(From::AfterSequence(7)));
        let cases = [
            ("Python", described(Value::Symbol(Symbol::from_static(SELECTOR))), seven),
            ("Node", described(Value::Ulong(SELECTOR_CODE)), seven),
            ("bare", expression(), seven),
            ("a number", Value::Int(7), Err(InvalidFilter::NotText)),
            ("too long", Value::from("x".repeat(EXPRESSION_BYTES_MAX + 1)), Err(InvalidFilter::NotText)),
        ];
        for (case, value, expected) in cases {
            let filter = Map::from_iter([(Symbol::from_static(SELECTOR), value)]);
            let source = Source { filter, ..Source::default() };
            assert_eq!(start_of(Some(&source)), expected, "{case}");
        }
        let named = |descriptor| Source {
            filter: Map::from_iter([(Symbol::from_static("selector"), described(descriptor))]),
            ..Source::default()
        };
        let cases = [
            ("Proton", Value::Symbol(Symbol::from_static(SELECTOR)), seven),
            ("by number", Value::Ulong(SELECTOR_CODE), seven),
            ("another filter", Value::Symbol(Symbol::from_static("apache.org:no-local-filter:list")), OLDEST),
        ];
        for (case, descriptor, expected) in cases {
            assert_eq!(start_of(Some(&named(descriptor))), expected, "{case}");
        }
        assert_eq!(start_of(Some(&Source::default())), OLDEST);
        assert_eq!(start_of(None), OLDEST);
    }

    #[test]
    fn a_place_that_is_written_is_read_as_it_was() {
        let at = Start::At;
        let cases = [
            Start::Newest,
            at(From::Oldest),
            at(From::AfterOffset(0)),
            at(From::AfterOffset(37_344)),
            at(From::AfterSequence(7)),
            at(From::AfterTime(UnixTime::from_micros(1_690_000_000_000_999))),
        ];
        for start in cases {
            let source = source("hub/ConsumerGroups/$Default/Partitions/0", start);
            assert_eq!(start_of(Some(&source)), Ok(start));
        }
    }

    proptest! {
        #[test]
        fn any_expression_is_read(expression in ".*", value in any::<i64>()) {
            let _ = parse(&expression);
            for name in ["offset", "sequence-number", "enqueued-time"] {
                for operator in [">", ">="] {
                    let expression = format!("amqp.annotation.x-opt-{name} {operator} '{value}'");
                    prop_assert!(parse(&expression).is_ok(), "{}", expression);
                }
            }
        }
    }
}
