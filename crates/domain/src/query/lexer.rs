//! Cuts a text into tokens. A path is one token, so that names below the first may be words of the language.

use std::fmt;

use super::value::Number;
use super::{Fault, InvalidQuery};

/// Most characters of the text that an error repeats.
const SHOWN_CHARS_MAX: usize = 40;

/// What the names of a text mean, and so how they are cut out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vocabulary {
    /// Members of twins.
    Twins,
    /// Properties of messages: also with hyphens, in braces, and with places in arrays behind them.
    Messages,
}

/// A piece of the text.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// Names separated by dots; a word of the language is a path of one name.
    Path(Vec<String>),
    Number(Number),
    Text(String),
    Symbol(&'static str),
    End,
}

/// A token and the character at which it begins, from 1.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Placed {
    pub at: usize,
    pub token: Token,
}

/// Longer symbols before their beginnings.
const SYMBOLS: [&str; 16] = ["!=", "<>", "<=", ">=", "=", "<", ">", "+", "-", "*", "/", "%", "(", ")", ",", "["];
const CLOSING: &str = "]";

/// Text as an error shows it: cut if it is long.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(names) => f.write_str(&shown(&names.join("."))),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "the text {:?}", shown(text)),
            Self::Symbol(symbol) => f.write_str(symbol),
            Self::End => f.write_str("the end of the query"),
        }
    }
}

const fn begins_name(character: char) -> bool {
    character.is_ascii_alphabetic() || matches!(character, '_' | '$') || !character.is_ascii()
}

const fn continues_name(character: char) -> bool {
    begins_name(character) || character.is_ascii_digit()
}

/// Whether a name below the first needs no brackets.
pub(super) fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|character| continues_name(character) && !character.is_whitespace())
}

/// Whether a path can begin with a name.
pub(super) fn is_first_name(name: &str) -> bool {
    name.starts_with(begins_name) && is_plain_name(name) && !super::parser::is_word(name)
}

/// All tokens of `text`, the end among them.
pub(super) fn tokens(text: &str, vocabulary: Vocabulary) -> Result<Vec<Placed>, InvalidQuery> {
    let mut lexer = Lexer { vocabulary, rest: text, at: 1 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip(char::is_whitespace);
        let at = lexer.at;
        let token = lexer.next()?;
        let is_end = token == Token::End;
        tokens.push(Placed { at, token });
        if is_end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'t> {
    vocabulary: Vocabulary,
    rest: &'t str,
    /// The character at which `rest` begins, from 1.
    at: usize,
}

impl<'t> Lexer<'t> {
    fn fail<T>(&self, fault: Fault) -> Result<T, InvalidQuery> {
        Err(InvalidQuery { at: self.at, fault })
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let mut rest = self.rest.chars();
        let character = rest.next()?;
        self.rest = rest.as_str();
        self.at += 1;
        Some(character)
    }

    /// Passes over `start` if the rest begins with it.
    fn eat(&mut self, start: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(start) else { return false };
        self.rest = rest;
        self.at += start.chars().count();
        true
    }

    /// Passes over characters that `fits` and gives them.
    fn skip(&mut self, fits: impl Fn(char) -> bool) -> &'t str {
        let end = self.rest.find(|character| !fits(character)).unwrap_or(self.rest.len());
        let (skipped, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.at += skipped.chars().count();
        skipped
    }

    fn next(&mut self) -> Result<Token, InvalidQuery> {
        let Some(character) = self.peek() else { return Ok(Token::End) };
        match character {
            '\'' | '"' => self.text(character),
            _ if begins_name(character) => self.path(),
            '{' if self.vocabulary == Vocabulary::Messages => self.braced(),
            '0'..='9' | '.' => self.number(),
            _ => match SYMBOLS.into_iter().chain([CLOSING]).find(|symbol| self.eat(symbol)) {
                Some(symbol) => Ok(Token::Symbol(symbol)),
                None => self.fail(Fault::Character { found: character }),
            },
        }
    }

    fn path(&mut self) -> Result<Token, InvalidQuery> {
        let is_part = |character: char| continues_name(character) && !character.is_whitespace();
        let mut names = vec![self.skip(is_part).to_owned()];
        let reads_messages = self.vocabulary == Vocabulary::Messages;
        if let Some(first) = names.first_mut().filter(|first| reads_messages && first.starts_with('$')) {
            while self.rest.strip_prefix('-').is_some_and(|rest| rest.starts_with(begins_name)) {
                self.eat("-");
                first.push('-');
                first.push_str(self.skip(is_part));
            }
        }
        let has_places = reads_messages && names.iter().any(|first| first.starts_with('$'));
        loop {
            if let Some(place) = if has_places { self.place() } else { None } {
                names.push(place);
                continue;
            }
            if !self.eat(".") {
                break;
            }
            let name = if self.eat("[[") {
                let Some(end) = self.rest.find("]]") else { return self.fail(Fault::Unclosed { what: "[[" }) };
                let name = self.rest.get(..end).unwrap_or_default();
                self.eat(name);
                self.eat("]]");
                name
            } else {
                self.skip(is_part)
            };
            if name.is_empty() {
                let found = self.peek().map_or_else(|| Token::End.to_string(), |found| found.to_string());
                return self.fail(Fault::Expected { wanted: "the name of a member", found });
            }
            names.push(name.to_owned());
        }
        Ok(Token::Path(names))
    }

    /// A place in an array, with its brackets: no member is called so.
    fn place(&mut self) -> Option<String> {
        let digits = self.rest.strip_prefix('[')?.split_once(']')?.0;
        let is_place = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let place = is_place.then(|| format!("[{digits}]"))?;
        self.eat(&place);
        Some(place)
    }

    /// The name of an application property, whatever characters it has; its braces stay, so that it is no word of the
    /// language.
    fn braced(&mut self) -> Result<Token, InvalidQuery> {
        let Some((inside, _)) = self.rest.split_once('}') else {
            return self.fail(Fault::Unclosed { what: "{" });
        };
        let name = format!("{inside}}}");
        self.eat(&name);
        Ok(Token::Path(vec![name]))
    }

    fn number(&mut self) -> Result<Token, InvalidQuery> {
        let at = self.at;
        let wrong = InvalidQuery { at, fault: Fault::Number };
        if self.eat("0x") || self.eat("0X") {
            let digits = self.skip(|character| character.is_ascii_alphanumeric());
            let number = i64::from_str_radix(digits, 16).map_err(|_| wrong)?;
            return Ok(Token::Number(Number::Integer(number)));
        }
        let whole = self.rest;
        self.skip(|character| character.is_ascii_digit());
        if self.eat(".") {
            self.skip(|character| character.is_ascii_digit());
        }
        if self.eat("e") || self.eat("E") {
            let _ = self.eat("+") || self.eat("-");
            self.skip(|character| character.is_ascii_digit());
        }
        let length = whole.len() - self.rest.len();
        let text = whole.get(..length).unwrap_or_default();
        // Rust reads what this may let through, as `1.` and `.5`, and nothing that it should not.
        if text.parse::<f64>().is_err() || self.peek().is_some_and(continues_name) {
            return Err(wrong);
        }
        Ok(Token::Number(Number::from_text(text)))
    }

    fn text(&mut self, quote: char) -> Result<Token, InvalidQuery> {
        let (at, mut text) = (self.at, String::new());
        self.bump();
        loop {
            match self.bump() {
                None => return Err(InvalidQuery { at, fault: Fault::Unclosed { what: "the text" } }),
                Some('\\') => text.push(self.escape()?),
                Some(end) if end == quote => return Ok(Token::Text(text)),
                Some(character) => text.push(character),
            }
        }
    }

    /// What stands behind a backslash (RFC 8259, section 7, and single quotes).
    fn escape(&mut self) -> Result<char, InvalidQuery> {
        let wrong = InvalidQuery { at: self.at, fault: Fault::Escape };
        match self.bump() {
            Some(same @ ('\'' | '"' | '\\' | '/')) => Ok(same),
            Some('b') => Ok('\u{8}'),
            Some('f') => Ok('\u{c}'),
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('t') => Ok('\t'),
            Some('u') => {
                let first = self.unit().ok_or(wrong.clone())?;
                if let Some(Ok(character)) = char::decode_utf16([first]).next() {
                    return Ok(character);
                }
                let second = if self.eat("\\u") { self.unit() } else { None };
                let pair = second.and_then(|second| char::decode_utf16([first, second]).next());
                pair.and_then(Result::ok).ok_or(wrong)
            }
            _ => Err(wrong),
        }
    }

    /// Four hexadecimal digits.
    fn unit(&mut self) -> Option<u16> {
        let digits = self.rest.get(..4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        let unit = u16::from_str_radix(digits, 16).ok()?;
        self.eat(digits);
        Some(unit)
    }
}
