//! Makes a [`Plan`] of a text. Bounded in length, depth and number of terms; an error says where, and what was expected.
//!
//! ```text
//! SELECT [TOP n] ( * | item [AS name] {, item [AS name]} )
//! FROM   devices | devices.modules | devices.jobs
//! [WHERE condition] [GROUP BY path {, path}]
//! ```

use super::document::parse_moment;
use super::evaluate::fold;
use super::lexer::{Placed, Token, Vocabulary, shown, tokens};
use super::message;
use super::value::Number;
use super::{
    Aggregate, Collection, Column, Comparison, Constant, DEPTH_MAX, Expression, Fault, Function, GroupColumn,
    GroupValue, InvalidQuery, Operator, Path, Plan, Select, TERMS_MAX, TEXT_BYTES_MAX,
};

/// Words that are no paths of one name.
const RESERVED: [&str; 16] = [
    "SELECT",
    "TOP",
    "FROM",
    "WHERE",
    "GROUP",
    "BY",
    "AS",
    "AND",
    "OR",
    "NOT",
    "IN",
    "NIN",
    "TRUE",
    "FALSE",
    "NULL",
    "UNDEFINED",
];

/// Reads a query.
pub fn parse(text: &str) -> Result<Plan, InvalidQuery> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(InvalidQuery { at: 1, fault: Fault::TooLong });
    }
    Parser::new(text, Vocabulary::Twins)?.query()
}

/// Reads a condition on a message ([`message`]).
pub fn parse_condition(text: &str) -> Result<Expression, InvalidQuery> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(InvalidQuery { at: 1, fault: Fault::TooLong });
    }
    let mut parser = Parser::new(text, Vocabulary::Messages)?;
    let condition = parser.condition()?;
    if *parser.peek() == Token::End {
        Ok(condition)
    } else {
        parser.expected("an operator or the end of the condition")
    }
}

/// Reads what tells the twins of a job or a configuration from others: a condition on devices, `*` for all of them, or
/// `FROM devices.modules WHERE` and a condition on modules.
pub fn parse_target(text: &str) -> Result<Plan, InvalidQuery> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(InvalidQuery { at: 1, fault: Fault::TooLong });
    }
    Parser::new(text, Vocabulary::Twins)?.target()
}

/// What stands behind `SELECT`.
struct Selection {
    at: usize,
    items: Option<Vec<Item>>,
}

struct Item {
    at: usize,
    name: Option<String>,
    what: Selected,
}

enum Selected {
    Path(Path),
    Aggregate(Aggregate),
}

struct Parser {
    vocabulary: Vocabulary,
    tokens: Vec<Placed>,
    next: usize,
    terms: usize,
    depth: usize,
}

impl Parser {
    fn new(text: &str, vocabulary: Vocabulary) -> Result<Self, InvalidQuery> {
        Ok(Self { vocabulary, tokens: tokens(text, vocabulary)?, next: 0, terms: 0, depth: 0 })
    }

    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |placed| &placed.token)
    }

    /// Where the next token begins.
    fn at(&self) -> usize {
        self.tokens.get(self.next).or(self.tokens.last()).map_or(1, |placed| placed.at)
    }

    fn fail<T>(&self, fault: Fault) -> Result<T, InvalidQuery> {
        Err(InvalidQuery { at: self.at(), fault })
    }

    fn expected<T>(&self, wanted: &'static str) -> Result<T, InvalidQuery> {
        self.fail(Fault::Expected { wanted, found: self.peek().to_string() })
    }

    /// The word that comes next, if it is one name.
    fn peek_word(&self) -> Option<&str> {
        match self.peek() {
            Token::Path(names) => match names.as_slice() {
                [word] => Some(word),
                _ => None,
            },
            _ => None,
        }
    }

    fn is_word(&self, word: &str) -> bool {
        self.peek_word().is_some_and(|found| found.eq_ignore_ascii_case(word))
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let eaten = self.is_word(word);
        self.next += usize::from(eaten);
        eaten
    }

    fn expect_word(&mut self, word: &'static str) -> Result<(), InvalidQuery> {
        if self.eat_word(word) { Ok(()) } else { self.expected(word) }
    }

    fn is_symbol(&self, symbol: &str) -> bool {
        matches!(self.peek(), Token::Symbol(found) if *found == symbol)
    }

    fn eat(&mut self, symbol: &str) -> bool {
        let eaten = self.is_symbol(symbol);
        self.next += usize::from(eaten);
        eaten
    }

    fn expect(&mut self, symbol: &'static str) -> Result<(), InvalidQuery> {
        if self.eat(symbol) { Ok(()) } else { self.expected(symbol) }
    }

    /// Counts a term.
    fn term(&mut self) -> Result<(), InvalidQuery> {
        self.terms += 1;
        if self.terms > TERMS_MAX { self.fail(Fault::TooManyTerms) } else { Ok(()) }
    }

    fn query(&mut self) -> Result<Plan, InvalidQuery> {
        self.expect_word("SELECT")?;
        let top = self.top()?;
        let selection = self.selection()?;
        self.expect_word("FROM")?;
        let collection = self.collection()?;
        let condition = if self.eat_word("WHERE") { Some(self.condition()?) } else { None };
        let keys = if self.eat_word("GROUP") { Some(self.keys()?) } else { None };
        match self.peek() {
            Token::End => {}
            _ if keys.is_some() => return self.expected("a comma or the end of the query"),
            _ if condition.is_some() => return self.expected("an operator, GROUP BY or the end of the query"),
            _ => return self.expected("WHERE, GROUP BY or the end of the query"),
        }
        if collection == Collection::Jobs && selection.items.is_some() {
            return Err(InvalidQuery { at: selection.at, fault: Fault::JobColumns });
        }
        let select = plan_selection(selection, keys)?;
        Ok(Plan { collection, top, select, condition })
    }

    fn target(&mut self) -> Result<Plan, InvalidQuery> {
        let (collection, condition) = if self.eat("*") {
            (Collection::Devices, None)
        } else if self.eat_word("FROM") {
            let at = self.at();
            let collection = self.collection()?;
            if collection == Collection::Jobs {
                return Err(InvalidQuery { at, fault: Fault::JobTarget });
            }
            (collection, if self.eat_word("WHERE") { Some(self.condition()?) } else { None })
        } else {
            (Collection::Devices, Some(self.condition()?))
        };
        match self.peek() {
            Token::End => Ok(Plan { collection, top: None, select: Select::Whole, condition }),
            _ => self.expected("an operator or the end of the condition"),
        }
    }

    fn top(&mut self) -> Result<Option<u64>, InvalidQuery> {
        if !self.eat_word("TOP") {
            return Ok(None);
        }
        match *self.peek() {
            Token::Number(Number::Integer(top)) if top > 0 => {
                self.next += 1;
                Ok(Some(top.unsigned_abs()))
            }
            _ => self.expected("a number of rows"),
        }
    }

    fn selection(&mut self) -> Result<Selection, InvalidQuery> {
        let at = self.at();
        if self.eat("*") {
            return Ok(Selection { at, items: None });
        }
        let mut items = vec![self.item()?];
        while self.eat(",") {
            items.push(self.item()?);
        }
        Ok(Selection { at, items: Some(items) })
    }

    fn item(&mut self) -> Result<Item, InvalidQuery> {
        self.term()?;
        let at = self.at();
        let what = match self.peek_word().map(str::to_ascii_uppercase) {
            Some(word) if self.is_call() => Selected::Aggregate(self.aggregate(&word)?),
            _ => Selected::Path(self.path("a column, an aggregate or *")?),
        };
        let name = if self.eat_word("AS") { Some(self.name()?) } else { None };
        Ok(Item { at, name, what })
    }

    fn is_call(&self) -> bool {
        matches!(self.tokens.get(self.next + 1), Some(Placed { token: Token::Symbol("("), .. }))
    }

    fn aggregate(&mut self, word: &str) -> Result<Aggregate, InvalidQuery> {
        let make = match word {
            "COUNT" => {
                self.next += 2;
                self.expect(")")?;
                return Ok(Aggregate::Count);
            }
            "AVG" => Aggregate::Average,
            "SUM" => Aggregate::Sum,
            "MIN" => Aggregate::Minimum,
            "MAX" => Aggregate::Maximum,
            _ => return self.expected("COUNT, AVG, SUM, MIN or MAX"),
        };
        self.next += 2;
        let path = self.path("a path")?;
        self.expect(")")?;
        Ok(make(path))
    }

    fn name(&mut self) -> Result<String, InvalidQuery> {
        let Some(word) = self.peek_word() else { return self.expected("a name") };
        let name = word.to_owned();
        self.next += 1;
        Ok(name)
    }

    fn path(&mut self, wanted: &'static str) -> Result<Path, InvalidQuery> {
        let names = match self.peek() {
            Token::Path(names) => names.clone(),
            _ => return self.expected(wanted),
        };
        if self.peek_word().is_some_and(is_word) {
            return self.expected(wanted);
        }
        let path = match self.vocabulary {
            Vocabulary::Twins => Path::resolve(names),
            Vocabulary::Messages => match message::resolve(names) {
                Ok(path) => path,
                Err(name) => return self.fail(Fault::UnknownProperty { name: shown(&name) }),
            },
        };
        self.next += 1;
        Ok(path)
    }

    fn collection(&mut self) -> Result<Collection, InvalidQuery> {
        let found = match self.peek() {
            Token::Path(names) => names.join(".").to_ascii_lowercase(),
            _ => String::new(),
        };
        let collection = match found.as_str() {
            "devices" => Collection::Devices,
            "devices.modules" => Collection::Modules,
            "devices.jobs" => Collection::Jobs,
            _ => return self.expected("devices, devices.modules or devices.jobs"),
        };
        self.next += 1;
        Ok(collection)
    }

    fn keys(&mut self) -> Result<Vec<Path>, InvalidQuery> {
        self.expect_word("BY")?;
        let mut keys = Vec::new();
        loop {
            self.term()?;
            keys.push(self.path("a path")?);
            if !self.eat(",") {
                return Ok(keys);
            }
        }
    }

    /// An expression inside another.
    fn condition(&mut self) -> Result<Expression, InvalidQuery> {
        if self.depth == DEPTH_MAX {
            return self.fail(Fault::TooDeep);
        }
        self.depth += 1;
        let condition =
            self.chain("OR", |parser| parser.chain("AND", Self::negation, Expression::All), Expression::Any);
        self.depth -= 1;
        condition
    }

    /// One or more parts with `word` between them.
    fn chain(
        &mut self,
        word: &str,
        part: impl Fn(&mut Self) -> Result<Expression, InvalidQuery>,
        join: impl Fn(Vec<Expression>) -> Expression,
    ) -> Result<Expression, InvalidQuery> {
        let first = part(self)?;
        if !self.is_word(word) {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.eat_word(word) {
            self.term()?;
            parts.push(part(self)?);
        }
        Ok(folded(join(parts)))
    }

    fn negation(&mut self) -> Result<Expression, InvalidQuery> {
        let mut negations = 0;
        while self.eat_word("NOT") {
            self.term()?;
            negations += 1;
        }
        let mut inner = self.comparison()?;
        // Twice is not the same as never: what is no truth becomes undefined.
        for _ in 0..if negations > 2 { 2 - negations % 2 } else { negations } {
            inner = folded(Expression::Not(Box::new(inner)));
        }
        Ok(inner)
    }

    fn comparison(&mut self) -> Result<Expression, InvalidQuery> {
        let left = self.sum()?;
        let comparison = match self.peek() {
            Token::Symbol("=") => Comparison::Equal,
            Token::Symbol("!=" | "<>") => Comparison::NotEqual,
            Token::Symbol("<") => Comparison::Less,
            Token::Symbol("<=") => Comparison::AtMost,
            Token::Symbol(">") => Comparison::Greater,
            Token::Symbol(">=") => Comparison::AtLeast,
            _ => return self.membership(left),
        };
        self.term()?;
        self.next += 1;
        let right = self.sum()?;
        Ok(compare(comparison, left, right))
    }

    fn membership(&mut self, operand: Expression) -> Result<Expression, InvalidQuery> {
        let negated = if self.eat_word("NIN") {
            true
        } else if self.eat_word("IN") {
            false
        } else if self.eat_word("NOT") {
            self.expect_word("IN")?;
            true
        } else {
            return Ok(operand);
        };
        self.term()?;
        if !self.is_symbol("[") {
            return self.expected("an array");
        }
        let list = self.array()?;
        let is_in = folded(Expression::In(Box::new(operand), list));
        Ok(if negated { folded(Expression::Not(Box::new(is_in))) } else { is_in })
    }

    fn sum(&mut self) -> Result<Expression, InvalidQuery> {
        let mut left = self.product()?;
        loop {
            let operator = match self.peek() {
                Token::Symbol("+") => Operator::Plus,
                Token::Symbol("-") => Operator::Minus,
                _ => return Ok(left),
            };
            self.term()?;
            self.next += 1;
            left = folded(Expression::Compute(operator, Box::new(left), Box::new(self.product()?)));
        }
    }

    fn product(&mut self) -> Result<Expression, InvalidQuery> {
        let mut left = self.signed()?;
        loop {
            let operator = match self.peek() {
                Token::Symbol("*") => Operator::Times,
                Token::Symbol("/") => Operator::Divide,
                Token::Symbol("%") => Operator::Remainder,
                _ => return Ok(left),
            };
            self.term()?;
            self.next += 1;
            left = folded(Expression::Compute(operator, Box::new(left), Box::new(self.signed()?)));
        }
    }

    fn signed(&mut self) -> Result<Expression, InvalidQuery> {
        let mut signs = 0;
        while self.is_symbol("-") || self.is_symbol("+") {
            self.term()?;
            signs += usize::from(self.is_symbol("-"));
            self.next += 1;
        }
        let mut inner = self.primary()?;
        for _ in 0..signs {
            inner = folded(Expression::Negative(Box::new(inner)));
        }
        Ok(inner)
    }

    fn primary(&mut self) -> Result<Expression, InvalidQuery> {
        self.term()?;
        if self.eat("(") {
            let inner = self.condition()?;
            self.expect(")")?;
            return Ok(inner);
        }
        if self.is_symbol("[") {
            return Ok(Expression::Constant(Constant::Array(self.array()?)));
        }
        if self.peek_word().is_some() && self.is_call() {
            return self.call();
        }
        if let Some(constant) = self.constant() {
            return Ok(Expression::Constant(constant));
        }
        Ok(Expression::Path(self.path("a value")?))
    }

    /// The constant that comes next, if one does.
    fn constant(&mut self) -> Option<Constant> {
        let constant = match self.peek() {
            Token::Number(number) => Constant::Number(*number),
            Token::Text(text) => Constant::Text(text.as_str().into()),
            _ if self.is_word("true") => Constant::Bool(true),
            _ if self.is_word("false") => Constant::Bool(false),
            _ if self.is_word("null") => Constant::Null,
            _ if self.is_word("undefined") => Constant::Undefined,
            _ => return None,
        };
        self.next += 1;
        Some(constant)
    }

    fn array(&mut self) -> Result<Vec<Constant>, InvalidQuery> {
        self.expect("[")?;
        let mut items = Vec::new();
        if self.eat("]") {
            return Ok(items);
        }
        loop {
            self.term()?;
            let is_negative = self.eat("-");
            match self.constant() {
                Some(Constant::Number(number)) if is_negative => {
                    let negative = Expression::Negative(Box::new(Expression::Constant(Constant::Number(number))));
                    items.extend(fold(&negative));
                }
                Some(constant) if !is_negative => items.push(constant),
                _ => return self.expected("a constant"),
            }
            if self.eat("]") {
                return Ok(items);
            }
            if !self.eat(",") {
                return self.expected("a comma or ]");
            }
        }
    }

    fn call(&mut self) -> Result<Expression, InvalidQuery> {
        let (at, name) = (self.at(), self.peek_word().unwrap_or_default().to_owned());
        let Some(function) = Function::find(&name) else {
            return self.fail(Fault::UnknownFunction { name: shown(&name) });
        };
        self.next += 2;
        let mut arguments = Vec::new();
        while !self.eat(")") {
            if !arguments.is_empty() && !self.eat(",") {
                return self.expected("a comma or )");
            }
            arguments.push(self.condition()?);
        }
        let (fewest, most, wanted) = function.arity();
        if !(fewest..=most).contains(&arguments.len()) {
            return Err(InvalidQuery { at, fault: Fault::Arguments { name: function.name(), wanted } });
        }
        Ok(folded(Expression::Call(function, arguments)))
    }
}

/// Whether the language uses a word itself.
pub(super) fn is_word(word: &str) -> bool {
    RESERVED.iter().any(|reserved| word.eq_ignore_ascii_case(reserved))
}

/// The expression, computed if it holds constants alone.
fn folded(expression: Expression) -> Expression {
    let mut has_path = false;
    expression.visit_paths(&mut |_| has_path = true);
    if has_path {
        return expression;
    }
    fold(&expression).map_or(expression, Expression::Constant)
}

/// A comparison. A moment of the document is compared with a text that is one as moments are, not letter by letter.
fn compare(comparison: Comparison, left: Expression, right: Expression) -> Expression {
    let moment = |constant: &Constant| match constant {
        Constant::Text(text) => parse_moment(text),
        _ => None,
    };
    match (&left, &right) {
        (Expression::Path(path), Expression::Constant(constant)) if path.is_moment() => {
            if let Some(at) = moment(constant) {
                return Expression::Moment(comparison, path.clone(), at);
            }
        }
        (Expression::Constant(constant), Expression::Path(path)) if path.is_moment() => {
            if let Some(at) = moment(constant) {
                return Expression::Moment(comparison.mirrored(), path.clone(), at);
            }
        }
        _ => {}
    }
    folded(Expression::Compare(comparison, Box::new(left), Box::new(right)))
}

fn plan_selection(selection: Selection, keys: Option<Vec<Path>>) -> Result<Select, InvalidQuery> {
    let Selection { at, items } = selection;
    let Some(items) = items else {
        let wanted = "columns or aggregates to go with GROUP BY";
        let fault = Fault::Expected { wanted, found: "*".to_owned() };
        return if keys.is_none() { Ok(Select::Whole) } else { Err(InvalidQuery { at, fault }) };
    };
    let is_grouped = keys.is_some() || items.iter().any(|item| matches!(item.what, Selected::Aggregate(_)));
    let keys = keys.unwrap_or_default();
    let (mut columns, mut grouped) = (Vec::new(), Vec::new());
    for (place, Item { at, name, what }) in (1_usize..).zip(items) {
        let name = name.unwrap_or_else(|| match &what {
            Selected::Path(path) => path.last_name().to_owned(),
            Selected::Aggregate(_) => format!("${place}"),
        });
        let names = columns.iter().map(|column: &Column| &column.name);
        if names.chain(grouped.iter().map(|column: &GroupColumn| &column.name)).any(|known| *known == name) {
            return Err(InvalidQuery { at, fault: Fault::NameRepeated { name: shown(&name) } });
        }
        match what {
            Selected::Path(path) if !is_grouped => columns.push(Column { name, path }),
            Selected::Path(path) => match keys.iter().position(|key| *key == path) {
                Some(key) => grouped.push(GroupColumn { name, value: GroupValue::Key(key) }),
                None => {
                    return Err(InvalidQuery { at, fault: Fault::NotGrouped { path: shown(&path.to_string()) } });
                }
            },
            Selected::Aggregate(aggregate) => {
                grouped.push(GroupColumn { name, value: GroupValue::Aggregate(aggregate) });
            }
        }
    }
    Ok(if is_grouped { Select::Groups { keys, columns: grouped } } else { Select::Columns(columns) })
}
