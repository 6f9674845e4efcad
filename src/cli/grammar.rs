//! The grammar of commands, whether they are typed, piped or given as arguments; and its inverse,
//! in which answers are written.
//!
//! A line is a sequence of words with blanks between them:
//!
//! | form        | meaning                                                                         |
//! |-------------|---------------------------------------------------------------------------------|
//! | `bare`      | every byte stands for itself, a backslash too; it ends at a blank               |
//! | `'single'`  | every byte up to the next `'` stands for itself                                 |
//! | `"double"`  | as single, but for `\xNN`, `\n`, `\r`, `\t`, `\0`, `\\`, `\"` and `\'`           |
//!
//! A line is a comment if its first byte that is not a blank is `#`. A quote inside a bare word is
//! an error. A shell would drop such quotes, and `put k {"a":1}` would store `{a:1}` without a
//! warning.
//!
//! [`word`] writes bytes so that [`split`] reads them back as one word. [`line()`] writes bytes as
//! a whole line, so blanks in them need no quotes.

use std::borrow::Cow;
use std::fmt::Write as _;

/// One word of a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The content of the word, with quotes removed and escapes resolved.
    pub bytes: Vec<u8>,
    /// Whether the word was in quotes. A quoted word is data and never an option.
    pub quoted: bool,
}

impl Word {
    /// Makes a word that was not in quotes, such as an argument of the process.
    pub fn bare(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            bytes: bytes.into(),
            quoted: false,
        }
    }
}

/// Why a line cannot be split into words. Columns count bytes, and the first is 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// A word begins with a quote, and the line ends before the closing quote.
    #[error("the {quote} at column {column} is never closed: end the word with another {quote}")]
    Unterminated {
        /// The quote that opens the word, single or double.
        quote: char,
        /// The column of the opening quote.
        column: usize,
    },
    /// A backslash in double quotes, followed by bytes that are not one of the grammar's escapes.
    #[error(
        "column {column}: no such escape; there are \\xNN (two hex digits), \\n, \\r, \\t, \\0, \
         \\\\, \\\" and \\'"
    )]
    BadEscape {
        /// The column of the escape's backslash.
        column: usize,
    },
    /// A quote inside a bare word, or a byte other than a blank right after a closing quote.
    #[error(
        "column {column}: quotes go around a whole word, with blanks on both sides; to have a \
         quote in a word, write '{{\"a\": 1}}' or \"it's\""
    )]
    Glued {
        /// The column of the unexpected quote or byte.
        column: usize,
    },
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Splits a line into its words. A blank line and a comment have no words.
///
/// # Errors
/// [`GrammarError`] tells the column and what to write instead.
pub fn split(line: &[u8]) -> Result<Vec<Word>, GrammarError> {
    let words = places(line)?.into_iter();
    Ok(words.map(|(_, word)| word).collect())
}

/// Splits a line into its words. Returns each word with the offset at which it starts.
fn places(line: &[u8]) -> Result<Vec<(usize, Word)>, GrammarError> {
    let mut words = Vec::new();
    let mut at = 0;
    loop {
        at += line[at..]
            .iter()
            .take_while(|&&byte| is_blank(byte))
            .count();
        let Some(&first) = line.get(at) else {
            return Ok(words);
        };
        let (word, end) = match first {
            b'#' if words.is_empty() => return Ok(words),
            b'\'' => single(line, at)?,
            b'"' => double(line, at)?,
            _ => bare(line, at)?,
        };
        words.push((at, word));
        at = end;
    }
}

/// The unfinished word at the end of a line that is being typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// The offset at which the word starts; the length of the line if nothing of the word has been
    /// typed.
    pub start: usize,
    /// The part of the word that has been typed.
    pub word: Word,
}

/// Splits a line that is being typed into its complete words and the last, unfinished one. `None`
/// if the line is a comment, or has an error that no further typing can mend.
pub fn unfinished(line: &[u8]) -> Option<(Vec<Word>, Unfinished)> {
    if line.trim_ascii_start().starts_with(b"#") {
        return None;
    }
    // Blanks after an open quote belong to the last word. To split a line with an open quote, close
    // the quote first: one of these three endings fits.
    let closings: [&[u8]; 3] = [b"", b"'", b"\""];
    let (mut words, closing) = closings.iter().find_map(|closing| {
        let words = places(&[line, *closing].concat()).ok()?;
        Some((words, *closing))
    })?;
    let nothing = (line.len(), Word::bare(""));
    let (start, word) = match closing.is_empty() && line.last().is_none_or(|byte| is_blank(*byte)) {
        true => nothing,
        false => words.pop().unwrap_or(nothing),
    };
    let words = words.into_iter().map(|(_, word)| word).collect();
    Some((words, Unfinished { start, word }))
}

fn bare(line: &[u8], start: usize) -> Result<(Word, usize), GrammarError> {
    let length = line[start..]
        .iter()
        .take_while(|&&byte| !is_blank(byte))
        .count();
    let bytes = &line[start..start + length];
    match bytes.iter().position(|byte| matches!(byte, b'"' | b'\'')) {
        Some(quote) => Err(GrammarError::Glued {
            column: start + quote + 1,
        }),
        None => Ok((Word::bare(bytes), start + length)),
    }
}

fn single(line: &[u8], start: usize) -> Result<(Word, usize), GrammarError> {
    let inside = &line[start + 1..];
    let length =
        inside
            .iter()
            .position(|&byte| byte == b'\'')
            .ok_or(GrammarError::Unterminated {
                quote: '\'',
                column: start + 1,
            })?;
    closed(line, inside[..length].to_vec(), start + length + 2)
}

fn double(line: &[u8], start: usize) -> Result<(Word, usize), GrammarError> {
    let mut bytes = Vec::new();
    let mut at = start + 1;
    loop {
        match line.get(at) {
            None => {
                return Err(GrammarError::Unterminated {
                    quote: '"',
                    column: start + 1,
                });
            }
            Some(b'"') => return closed(line, bytes, at + 1),
            Some(b'\\') => {
                let (byte, length) =
                    escape(&line[at + 1..]).ok_or(GrammarError::BadEscape { column: at + 1 })?;
                bytes.push(byte);
                at += 1 + length;
            }
            Some(&byte) => {
                bytes.push(byte);
                at += 1;
            }
        }
    }
}

/// Decodes the escape after a backslash. Returns the byte that it stands for, and how many bytes of
/// the line the escape takes up.
fn escape(behind: &[u8]) -> Option<(u8, usize)> {
    let byte = match behind.first()? {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'0' => 0,
        quoted @ (b'\\' | b'"' | b'\'') => *quoted,
        b'x' => {
            let digit = |at: usize| char::from(*behind.get(at)?).to_digit(16);
            let value = digit(1)? * 16 + digit(2)?;
            return Some((u8::try_from(value).ok()?, 3));
        }
        _ => return None,
    };
    Some((byte, 1))
}

/// Completes a quoted word, whose closing quote is the byte before `end`. Only a blank or the end
/// of the line may follow the quote.
fn closed(line: &[u8], bytes: Vec<u8>, end: usize) -> Result<(Word, usize), GrammarError> {
    match line.get(end) {
        Some(&byte) if !is_blank(byte) => Err(GrammarError::Glued { column: end + 1 }),
        _ => Ok((
            Word {
                bytes,
                quoted: true,
            },
            end,
        )),
    }
}

/// Writes bytes as one word that [`split`] reads back, in quotes if it needs them. The result never
/// looks like an option or a comment.
pub fn word(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text)
            if is_unmistakable(text)
                && !text.starts_with(['-', '#'])
                && !text.contains(char::is_whitespace)
                && !text.contains(['"', '\'', '\\']) =>
        {
            Cow::Borrowed(text)
        }
        _ => Cow::Owned(double_quoted(bytes)),
    }
}

/// Writes bytes as one line: as they are if they are plain text, else like [`word`].
///
/// So a line that starts with `"` is always a quoted value, and a line that starts with `(` is
/// never a value but a remark, such as `(missing)`.
pub fn line(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if is_unmistakable(text) && !text.starts_with('"') && text.trim() == text => {
            Cow::Borrowed(text)
        }
        _ => Cow::Owned(double_quoted(bytes)),
    }
}

/// Reads back what [`line()`] wrote.
///
/// # Errors
/// [`GrammarError`] if the text starts with a quote and is not one quoted word.
pub fn unline(text: &[u8]) -> Result<Vec<u8>, GrammarError> {
    if text.first() != Some(&b'"') {
        return Ok(text.to_vec());
    }
    match double(text, 0)? {
        (word, end) if end == text.len() => Ok(word.bytes),
        (_, end) => Err(GrammarError::Glued { column: end + 1 }),
    }
}

fn is_unmistakable(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('(') && text.chars().all(is_plain)
}

/// Whether a terminal shows the character as it is. Excluded are characters that are invisible or
/// that change the direction of the text around them.
fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
}

fn double_quoted(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                c if is_plain(c) => out.push(c),
                c => hex(c.encode_utf8(&mut [0; 4]).as_bytes(), &mut out),
            }
        }
        hex(chunk.invalid(), &mut out);
    }
    out.push('"');
    out
}

fn hex(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        write!(out, "\\x{byte:02x}").expect("writing into a string does not fail");
    }
}

#[cfg(test)]
#[path = "grammar_tests.rs"]
mod tests;
