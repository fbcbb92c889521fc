//! Statements in a text: where they end, and the dialect that they are read in.

use std::collections::VecDeque;

use datafusion::common::{Result, config_datafusion_err, exec_err};
use datafusion::config::SqlParserOptions;
use datafusion::error::DataFusionError;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::dialect::{Dialect, dialect_from_str};
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, Tokenizer};

/// The mark that editors put before a text to tell its encoding.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The statements of a text that have not been taken yet.
pub(crate) struct Script {
    text: String,
}

impl Script {
    /// The statements of a text, which may begin with a byte-order mark.
    pub(crate) fn new(text: &str) -> Self {
        Self { text: text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text).to_owned() }
    }

    /// Takes all statements, or those up to the first that sets an option of the parser: the rest is to be read under
    /// it. Gives none where none are left.
    ///
    /// # Errors
    /// Those of the parser, before any of these statements has run.
    pub(crate) fn take(&mut self, options: &SqlParserOptions) -> Result<VecDeque<Statement>> {
        let dialect = dialect(options)?;
        let mut tokens = Vec::new();
        let tokenized = Tokenizer::new(dialect.as_ref(), &self.text).tokenize_with_location_into_buf(&mut tokens);
        let mut statements = VecDeque::new();
        for tokens in tokens.split_inclusive(|token| token.token == Token::SemiColon) {
            let Some(last) = tokens.last() else { continue };
            if tokenized.is_err() && last.token != Token::SemiColon {
                break;
            }
            let parser = DFParserBuilder::new(tokens.to_vec()).with_dialect(dialect.as_ref());
            let mut parser = parser.with_recursion_limit(options.recursion_limit.get()).build()?;
            statements.extend(parser.parse_statements()?);
            if statements.back().is_some_and(sets_parser) {
                self.text = blank_before(&self.text, last.span.end);
                return Ok(statements);
            }
        }
        tokenized.map_err(|e| DataFusionError::from(ParserError::from(e)))?;
        self.text.clear();
        Ok(statements)
    }
}

/// Whether a text ends a statement: its last token is a semicolon, outside quotes and comments.
pub(crate) fn is_complete(text: &str, options: &SqlParserOptions) -> Result<bool> {
    match Tokenizer::new(dialect(options)?.as_ref(), text).tokenize() {
        Ok(tokens) => Ok(tokens.iter().rev().find(|t| !matches!(t, Token::Whitespace(_))) == Some(&Token::SemiColon)),
        // A quote or comment that is still open.
        Err(_) => Ok(false),
    }
}

/// The text of bytes in UTF-8.
///
/// # Errors
/// An execution error that says what they are in place of it.
pub(crate) fn decode(bytes: Vec<u8>, name: &str) -> Result<String> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return exec_err!("{name} is a text in UTF-16, expected UTF-8: save it as UTF-8");
    }
    String::from_utf8(bytes).or_else(|e| exec_err!("{name} is no text in UTF-8: {}", e.utf8_error()))
}

fn dialect(options: &SqlParserOptions) -> Result<Box<dyn Dialect>> {
    let name = &options.dialect;
    dialect_from_str(name).ok_or_else(|| {
        config_datafusion_err!(
            "datafusion.sql_parser.dialect: no dialect '{name}', expected one such as 'generic', 'postgresql', 'mysql' or \
             'duckdb'"
        )
    })
}

/// Whether a statement changes how those after it are parsed.
fn sets_parser(statement: &Statement) -> bool {
    let sql = statement.to_string().to_ascii_lowercase();
    (sql.starts_with("set ") || sql.starts_with("reset ")) && sql.contains("datafusion.sql_parser.")
}

/// A text with blanks in the place of all before a location, so that the locations of the rest stay.
fn blank_before(text: &str, end: Location) -> String {
    let mut line = 1;
    let mut column = 1;
    let blank = |character| {
        let is_before = (line, column) < (end.line, end.column);
        if character == '\n' {
            line += 1;
            column = 1;
            return character;
        }
        column += 1;
        if is_before { ' ' } else { character }
    };
    text.chars().map(blank).collect()
}

#[cfg(test)]
mod tests {
    use datafusion::config::ConfigOptions;

    use super::*;

    fn options(dialect: &str) -> SqlParserOptions {
        let mut options = ConfigOptions::new();
        options.set("datafusion.sql_parser.dialect", dialect).unwrap();
        options.sql_parser
    }

    fn take(script: &mut Script, dialect: &str) -> Vec<String> {
        script.take(&options(dialect)).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_statement_ends_with_a_semicolon_outside_quotes() {
        for (sql, complete) in [
            ("SELECT 1;", true),
            ("SELECT 1; -- done\n", true),
            ("SELECT 1", false),
            ("SELECT 'a;", false),
            ("SELECT ';'", false),
            ("SELECT 1 /* ;", false),
            ("SELECT 1 -- ;", false),
            ("", false),
        ] {
            assert_eq!(is_complete(sql, &options("generic")).unwrap(), complete, "{sql}");
        }
        assert!(is_complete("SELECT 'it\\'s';", &options("mysql")).unwrap());
        assert!(!is_complete("SELECT 'it\\'s';", &options("generic")).unwrap());
    }

    #[test]
    fn what_follows_an_option_of_the_parser_is_read_under_it() {
        let sql = "\u{feff}SELECT 1;\nSET datafusion.sql_parser.dialect = 'mysql';\nSELECT 'it\\'s'; SELECT 1 2";
        let mut script = Script::new(sql);
        assert_eq!(take(&mut script, "generic"), ["SELECT 1", "SET datafusion.sql_parser.dialect = 'mysql'"]);
        let error = script.take(&options("mysql")).unwrap_err().strip_backtrace();
        assert!(error.contains("Line: 3"), "{error}");

        let mut script = Script::new(&sql.replace("SELECT 1 2", ""));
        take(&mut script, "generic");
        assert_eq!(take(&mut script, "mysql").len(), 1);
        assert!(take(&mut script, "mysql").is_empty());
    }

    #[test]
    fn nothing_is_taken_from_a_text_with_a_mistake() {
        for (sql, message) in [
            ("SELECT 1; SELECT 'a", "Unterminated string literal at Line: 1, Column: 18"),
            ("SELECT 1;\nSELEC 2;", "Line: 2"),
            ("SELECT 1 SELECT 2", "end of statement"),
        ] {
            let error = Script::new(sql).take(&options("generic")).unwrap_err().strip_backtrace();
            assert!(error.contains(message), "{error}");
        }
        assert!(take(&mut Script::new(" ;; -- nothing\n"), "generic").is_empty());
    }

    #[test]
    fn bytes_are_text_in_utf_8() {
        assert_eq!(decode("SELECT 'é'".into(), "f").unwrap(), "SELECT 'é'");
        let error = |bytes: &[u8]| decode(bytes.to_vec(), "f.sql").unwrap_err().strip_backtrace();
        assert!(error(b"\xff\xfeS\0").contains("f.sql is a text in UTF-16, expected UTF-8: save it as UTF-8"));
        assert!(error(b"\xfe\xff\0S").contains("UTF-16"));
        assert!(error(b"a\xe9").contains("f.sql is no text in UTF-8: incomplete utf-8 byte sequence from index 1"));
    }
}
