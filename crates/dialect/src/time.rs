//! Moments as Azure writes them.

use domain::clock::UnixTime;

/// `2024-01-31T12:00:00.1234567Z`: seven fraction digits, which every SDK parses.
pub fn rfc3339(moment: UnixTime) -> String {
    format!("{}.{:06}0Z", date_and_time(moment), moment.micros().rem_euclid(1_000_000))
}

/// `2024-01-31T12:00:00Z`: without a fraction.
pub fn rfc3339_seconds(moment: UnixTime) -> String {
    format!("{}Z", date_and_time(moment))
}

/// `Fri, 20 Nov 2026 23:59:41 GMT`: RFC 1123, as the management API writes dates of certificates.
pub fn rfc1123(moment: UnixTime) -> String {
    timestamp(moment).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// `11/20/2026 23:59:41`, as tracking IDs of a hub carry it.
pub fn month_first(moment: UnixTime) -> String {
    timestamp(moment).strftime("%m/%d/%Y %H:%M:%S").to_string()
}

fn date_and_time(moment: UnixTime) -> String {
    timestamp(moment).strftime("%Y-%m-%dT%H:%M:%S").to_string()
}

/// Moments outside the calendar's range are shown at its nearest end.
fn timestamp(moment: UnixTime) -> jiff::Timestamp {
    jiff::Timestamp::from_second(moment.seconds()).unwrap_or(match moment.seconds() {
        ..0 => jiff::Timestamp::MIN,
        0.. => jiff::Timestamp::MAX,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_seven_digits_and_never_is_the_first_of_the_calendar() {
        let cases = [
            (UnixTime::from_micros(1_706_702_400_123_456), "2024-01-31T12:00:00.1234560Z"),
            (UnixTime::from_seconds(0), "1970-01-01T00:00:00.0000000Z"),
            (UnixTime::NEVER, "0001-01-01T00:00:00.0000000Z"),
        ];
        for (moment, expected) in cases {
            assert_eq!(rfc3339(moment), expected);
        }
        assert_eq!(rfc3339_seconds(UnixTime::NEVER), "0001-01-01T00:00:00Z");
        assert_eq!(rfc1123(UnixTime::from_seconds(1_795_219_181)), "Fri, 20 Nov 2026 23:59:41 GMT");
        assert!(rfc3339(UnixTime::from_micros(i64::MAX)).starts_with("9999-12-30"));
    }
}
