//! Requests that are wrong in one place, apart from their bodies.

use testkit::raw_http::RawRequest;

/// Longer than any text that has a bound.
const LONG_BYTES: usize = 5_000;
/// Longer than the head of a request may be.
const OVERLONG_BYTES: usize = 33_000;

/// Tokens that are good or nearly so.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// A good one.
    pub good: String,
    /// Those that must be refused, and what is wrong with them.
    pub bad: Vec<(&'static str, String)>,
}

/// A request in parts, each of which can be spoilt. Everything is as it goes over the wire.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The method.
    pub method: String,
    /// The path, with parameters in braces.
    pub path: String,
    /// Values of the path's parameters, encoded.
    pub parameters: Vec<(String, String)>,
    /// The query, encoded.
    pub query: Vec<(String, String)>,
    /// The headers.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

/// A request with one fault.
pub struct Case {
    /// Where.
    pub place: String,
    /// What was done there.
    pub how: &'static str,
    /// The request.
    pub request: RawRequest,
}

impl Parts {
    /// The request as it stands.
    pub fn request(&self) -> RawRequest {
        let path = self
            .parameters
            .iter()
            .fold(self.path.clone(), |path, (name, value)| path.replace(&format!("{{{name}}}"), value));
        let query: Vec<_> = self.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let separator = if query.is_empty() { "" } else { "?" };
        RawRequest {
            method: self.method.clone(),
            target: format!("{path}{separator}{}", query.join("&")),
            headers: self.headers.clone(),
            body: self.body.clone(),
        }
    }

    /// Everything that is tried apart from the body.
    pub fn spoil(&self, tokens: &Tokens) -> Vec<Case> {
        let mut cases = self.spoil_line();
        for (index, (name, value)) in self.parameters.iter().enumerate() {
            for (how, value) in wrong_segments(value) {
                let mut parts = self.clone();
                parts.parameters.splice(index..=index, [(name.clone(), value)]);
                cases.push(Case { place: format!("path {name}"), how, request: parts.request() });
            }
        }
        for (index, (name, value)) in self.query.iter().enumerate() {
            for (how, values) in wrong_parameters(value) {
                let mut parts = self.clone();
                parts.query.splice(index..=index, values.into_iter().map(|value| (name.clone(), value)));
                cases.push(Case { place: format!("query {name}"), how, request: parts.request() });
            }
        }
        for (index, (name, value)) in self.headers.iter().enumerate() {
            let mut wrong = wrong_headers(value);
            if name == "Authorization" {
                wrong.extend(tokens.bad.iter().map(|(how, token)| (*how, vec![token.clone().into_bytes()])));
            }
            for (how, values) in wrong {
                let mut parts = self.clone();
                parts.headers.splice(index..=index, values.into_iter().map(|value| (name.clone(), value)));
                cases.push(Case { place: format!("header {name}"), how, request: parts.request() });
            }
        }
        cases
    }

    fn spoil_line(&self) -> Vec<Case> {
        let case = |place: &str, how, spoil: &dyn Fn(&mut Self)| {
            let mut parts = self.clone();
            spoil(&mut parts);
            Case { place: place.to_owned(), how, request: parts.request() }
        };
        let header = |name: &str, value: Vec<u8>| (name.to_owned(), value);
        vec![
            case("method", "unknown", &|parts| "BREW".clone_into(&mut parts.method)),
            case("method", "of another operation", &|parts| "OPTIONS".clone_into(&mut parts.method)),
            case("method", "too long", &|parts| parts.method = "A".repeat(LONG_BYTES)),
            case("path", "one more segment", &|parts| parts.path += "/more"),
            case("path", "a slash at its end", &|parts| parts.path += "/"),
            case("path", "in capitals", &|parts| parts.path = capitals(&parts.path)),
            case("path", "too long", &|parts| parts.path += &"/a".repeat(LONG_BYTES)),
            case("query", "one more parameter", &|parts| {
                parts.query.push(("unknown".to_owned(), "1".to_owned()));
            }),
            case("query", "not UTF-8", &|parts| parts.query.push(("%FF".to_owned(), "%FF".to_owned()))),
            case("header", "one more", &|parts| parts.headers.push(header("X-Unknown", b"1".to_vec()))),
            case("header", "a hundred more", &|parts| {
                parts.headers.extend((0..100).map(|index| header(&format!("X-Unknown-{index}"), b"1".to_vec())));
            }),
            case("header", "overlong", &|parts| {
                parts.headers.push(header("X-Unknown", b"a".repeat(OVERLONG_BYTES)));
            }),
            case("header", "a blank in its name", &|parts| parts.headers.push(header("X Unknown", b"1".to_vec()))),
            case("header", "a null character", &|parts| parts.headers.push(header("X-Unknown", b"\0".to_vec()))),
        ]
    }
}

/// In capitals but for the parameters.
fn capitals(path: &str) -> String {
    let in_capitals = |segment: &str| {
        if segment.starts_with('{') { segment.to_owned() } else { segment.to_ascii_uppercase() }
    };
    path.split('/').map(in_capitals).collect::<Vec<_>>().join("/")
}

fn wrong_segments(good: &str) -> Vec<(&'static str, String)> {
    vec![
        ("absent", String::new()),
        ("unknown", "no-such-name".to_owned()),
        ("in capitals", good.to_ascii_uppercase()),
        ("too long", "a".repeat(129)),
        ("far too long", "a".repeat(LONG_BYTES)),
        ("with a slash", format!("{good}%2Fx")),
        ("with a control character", format!("{good}%07")),
        ("with a null character", format!("{good}%00")),
        ("with a blank", format!("{good}%20")),
        ("with a wildcard", format!("{good}%2B%23")),
        ("with an accent", format!("{good}%C3%A9")),
        ("not UTF-8", format!("{good}%FF")),
        ("with half an escape", format!("{good}%2")),
        ("two dots", "..".to_owned()),
    ]
}

fn wrong_parameters(good: &str) -> Vec<(&'static str, Vec<String>)> {
    vec![
        ("absent", vec![]),
        ("empty", vec![String::new()]),
        ("another word", vec!["word".to_owned()]),
        ("negative", vec!["-1".to_owned()]),
        ("zero", vec!["0".to_owned()]),
        ("huge", vec!["9".repeat(40)]),
        ("too long", vec!["a".repeat(LONG_BYTES)]),
        ("with a control character", vec![format!("{good}%07")]),
        ("not UTF-8", vec!["%FF".to_owned()]),
        ("twice", vec![good.to_owned(), good.to_owned()]),
    ]
}

fn wrong_headers(good: &[u8]) -> Vec<(&'static str, Vec<Vec<u8>>)> {
    vec![
        ("absent", vec![]),
        ("empty", vec![Vec::new()]),
        ("another word", vec![b"word".to_vec()]),
        ("negative", vec![b"-1".to_vec()]),
        ("huge", vec![b"9".repeat(40)]),
        ("too long", vec![b"a".repeat(LONG_BYTES)]),
        ("not ASCII", vec![b"\xff\xfe".to_vec()]),
        ("twice", vec![good.to_vec(), good.to_vec()]),
    ]
}
