//! Moments as Azure writes them.

use std::time::Duration;

use domain::clock::UnixTime;

/// `2024-01-31T12:00:00.1234567Z`: seven fraction digits, which every SDK parses.
pub fn rfc3339(moment: UnixTime) -> String {
    format!("{}.{:06}0Z", date_and_time(moment), moment.micros().rem_euclid(1_000_000))
}

/// `2024-01-31T12:00:00Z`: without a fraction.
pub fn rfc3339_seconds(moment: UnixTime) -> String {
    format!("{}Z", date_and_time(moment))
}

/// `2024-01-31T12:00:00+00:00`: without a fraction, and with an offset, as notifications of files say when the file was
/// written; Java reads nothing else there.
pub fn rfc3339_offset(moment: UnixTime) -> String {
    format!("{}+00:00", date_and_time(moment))
}

/// `Fri, 20 Nov 2026 23:59:41 GMT`: RFC 1123, as the management API writes dates of certificates.
pub fn rfc1123(moment: UnixTime) -> String {
    timestamp(moment).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// `11/20/2026 23:59:41`, as tracking IDs of a hub carry it.
pub fn month_first(moment: UnixTime) -> String {
    timestamp(moment).strftime("%m/%d/%Y %H:%M:%S").to_string()
}

/// `12/09/2019 12:00:00 PM`, as headers of cloud-to-device messages carry it (`contract/hub-device.md 5.3`).
pub fn twelve_hours(moment: UnixTime) -> String {
    timestamp(moment).strftime("%m/%d/%Y %I:%M:%S %p").to_string()
}

/// Reads a moment as RFC 3339 writes it, with any number of fraction digits and any offset.
pub fn parse(text: &str) -> Option<UnixTime> {
    let moment: jiff::Timestamp = text.parse().ok()?;
    Some(UnixTime::from_micros(moment.as_microsecond()))
}

/// Reads a duration as ISO 8601 writes it, `PT1H30M` or `P2D`; without years and months, whose length nobody knows.
pub fn parse_duration(text: &str) -> Option<Duration> {
    // The parser would also take `1h`.
    let span: jiff::Span = text.parse().ok().filter(|_| text.starts_with('P'))?;
    let duration = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?;
    Duration::try_from(duration).ok()
}

/// `PT1H30M`.
pub fn duration(duration: Duration) -> String {
    jiff::SignedDuration::try_from(duration).unwrap_or(jiff::SignedDuration::MAX).to_string()
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
    fn durations_are_read_and_written_as_iso_8601_has_them() {
        let cases = [("PT1H", 3_600), ("P2D", 172_800), ("P1DT1M", 86_460), ("PT1H30M5S", 5_405), ("P1W", 604_800)];
        for (text, seconds) in cases {
            assert_eq!(parse_duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "1h", "PT", "P1M", "-PT1H", "PT1X", "60"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        let written = [60, 3_600, 172_800].map(|seconds| duration(Duration::from_secs(seconds)));
        assert_eq!(written, ["PT1M", "PT1H", "PT48H"]);
    }

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
        let noon = UnixTime::from_seconds(1_575_892_800);
        assert_eq!(twelve_hours(noon), "12/09/2019 12:00:00 PM");
        assert_eq!((parse("2019-12-09T12:00:00Z"), parse(&rfc3339(noon))), (Some(noon), Some(noon)));
        assert_eq!((parse("2019-12-09T14:00:00+02:00"), parse("noon"), parse("")), (Some(noon), None, None));
        assert_eq!(rfc3339_seconds(UnixTime::NEVER), "0001-01-01T00:00:00Z");
        assert_eq!(rfc1123(UnixTime::from_seconds(1_795_219_181)), "Fri, 20 Nov 2026 23:59:41 GMT");
        assert!(rfc3339(UnixTime::from_micros(i64::MAX)).starts_with("9999-12-30"));
    }
}
