//! Tells code from comments and strings in Rust text.

/// What a character of the text belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Code, the quotes around a literal included.
    Code,
    /// A comment, documentation included.
    Comment,
    /// The inside of a string or character literal.
    Literal,
    /// The inside of a raw string, which no line break may be added to.
    Raw,
}

/// The text as characters, each with its kind.
pub fn classify(text: &str) -> Vec<(char, Kind)> {
    let chars: Vec<char> = text.chars().collect();
    let mut out: Vec<(char, Kind)> = Vec::with_capacity(chars.len());
    while out.len() < chars.len() {
        let at = out.len();
        let rest = &chars[at..];
        let before = at.checked_sub(1).map(|i| chars[i]);
        let (opening, inside, kind) = match rest {
            ['/', '/', ..] => (0, line_comment(rest), Kind::Comment),
            ['/', '*', ..] => (0, block_comment(rest), Kind::Comment),
            ['"', ..] => (1, until_quote(&rest[1..], '"'), Kind::Literal),
            ['\'', ..] if is_char(rest) => (1, until_quote(&rest[1..], '\''), Kind::Literal),
            ['r', '"' | '#', ..] if !before.is_some_and(is_word) => raw_string(rest),
            ['b' | 'c', 'r', '"' | '#', ..] if !before.is_some_and(is_word) => {
                let (opening, inside, kind) = raw_string(&rest[1..]);
                (opening + 1, inside, kind)
            }
            _ => (1, 0, Kind::Code),
        };
        out.extend(rest[..opening].iter().map(|c| (*c, Kind::Code)));
        out.extend(rest[opening..opening + inside].iter().map(|c| (*c, kind)));
        // The closing quote is code like the opening one.
        let closed = matches!(kind, Kind::Literal | Kind::Raw) && out.len() < chars.len();
        if closed {
            out.push((chars[out.len()], Kind::Code));
        }
    }
    out
}

/// The text with everything but code turned into spaces; line breaks stay.
pub fn code_only(text: &str) -> String {
    let blank = |(c, kind)| {
        if kind == Kind::Code || c == '\n' {
            c
        } else {
            ' '
        }
    };
    classify(text).into_iter().map(blank).collect()
}

/// Whether a character may be part of a name.
pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn line_comment(rest: &[char]) -> usize {
    rest.iter().position(|c| *c == '\n').unwrap_or(rest.len())
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn until_quote(inside: &[char], quote: char) -> usize {
    let mut at = 0;
    while at < inside.len() && inside[at] != quote {
        at += if inside[at] == '\\' { 2 } else { 1 };
    }
    at.min(inside.len())
}

/// Tells a character literal from a lifetime: `'a'` and `'\n'`, but not `'a`.
fn is_char(rest: &[char]) -> bool {
    matches!(rest, ['\'', '\\', ..] | ['\'', _, '\'', ..])
}

fn raw_string(rest: &[char]) -> (usize, usize, Kind) {
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    let opening = 1 + hashes + 1;
    if rest.get(1 + hashes) != Some(&'"') {
        return (1, 0, Kind::Code); // A raw identifier: r#type.
    }
    let mut end = vec!['"'];
    end.extend(std::iter::repeat_n('#', hashes));
    let inside = &rest[opening..];
    let length = inside.windows(end.len()).position(|window| window == end);
    (opening, length.unwrap_or(inside.len()), Kind::Raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_blanked_and_code_stays() {
        for (text, code) in [
            ("a // b", "a     "),
            ("a /* b /* c */ d */ e", "a                   e"),
            ("f(\"x // y\") // z", "f(\"      \")     "),
            ("\"a\\\"b\" c", "\"    \" c"),
            ("r#\"a\"b\"# c", "r#\"   \"# c"),
            ("br\"a\" c", "br\" \" c"),
            ("b\"a\" c", "b\" \" c"),
            ("'{' + '\\'' + 'a", "' ' + '  ' + 'a"),
            ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
            ("r#type = var\"x\"", "r#type = var\" \""),
            ("/// doc\ncode", "       \ncode"),
            ("\"open", "\"    "),
        ] {
            assert_eq!(code_only(text), code, "{text}");
        }
    }
}
