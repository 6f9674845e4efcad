use proptest::prelude::*;

use super::*;

fn words(line: &str) -> Vec<Vec<u8>> {
    let words = split(line.as_bytes()).unwrap_or_else(|error| panic!("{line}: {error}"));
    words.into_iter().map(|word| word.bytes).collect()
}

#[test]
fn lines_split_into_words() {
    let table: &[(&str, &[&[u8]])] = &[
        ("", &[]),
        (" \t ", &[]),
        ("# a comment", &[]),
        ("   # a comment", &[]),
        ("get a", &[b"get", b"a"]),
        ("get a\r\n", &[b"get", b"a"]),
        ("put a #1", &[b"put", b"a", b"#1"]),
        ("put 'a b'  \"c d\"", &[b"put", b"a b", b"c d"]),
        ("put '' \"\"", &[b"put", b"", b""]),
        (r"put a\x41 b", &[b"put", br"a\x41", b"b"]),
        (r#"'a\n"b"'"#, &[br#"a\n"b""#]),
        (r#""\x00\xfF\n\r\t\0\\\"\'""#, &[b"\x00\xff\n\r\t\0\\\"'"]),
        ("get größe", &[b"get", "größe".as_bytes()]),
    ];
    for (line, expected) in table {
        assert_eq!(words(line), *expected, "{line}");
    }
}

#[test]
fn a_line_that_is_not_made_of_words_tells_the_column() {
    let table = [
        (
            "get 'a",
            GrammarError::Unterminated {
                quote: '\'',
                column: 5,
            },
        ),
        (
            "get \"a\\\"",
            GrammarError::Unterminated {
                quote: '"',
                column: 5,
            },
        ),
        (r#"put "\q""#, GrammarError::BadEscape { column: 6 }),
        (r#"put "\x4""#, GrammarError::BadEscape { column: 6 }),
        (r#"put "\"#, GrammarError::BadEscape { column: 6 }),
        ("get it's", GrammarError::Glued { column: 7 }),
        (r#"put k {"a":1}"#, GrammarError::Glued { column: 8 }),
        ("get 'a'b", GrammarError::Glued { column: 8 }),
    ];
    for (line, error) in table {
        assert_eq!(split(line.as_bytes()), Err(error), "{line}");
    }
}

#[test]
fn only_what_needs_quotes_gets_them() {
    let table: &[(&[u8], &str, &str)] = &[
        (b"plain", "plain", "plain"),
        ("größe".as_bytes(), "größe", "größe"),
        (b"two words", "\"two words\"", "two words"),
        (b" edge", "\" edge\"", "\" edge\""),
        (b"", "\"\"", "\"\""),
        (b"-5", "\"-5\"", "-5"),
        (b"#1", "\"#1\"", "#1"),
        (b"{\"a\":1}", r#""{\"a\":1}""#, r#"{"a":1}"#),
        (b"\"a", r#""\"a""#, r#""\"a""#),
        (b"(missing)", "\"(missing)\"", "\"(missing)\""),
        (b"a\nb\0", r#""a\nb\x00""#, r#""a\nb\x00""#),
        (b"\xff\xc3", r#""\xff\xc3""#, r#""\xff\xc3""#),
        (
            "a\u{202e}b".as_bytes(),
            r#""a\xe2\x80\xaeb""#,
            r#""a\xe2\x80\xaeb""#,
        ),
    ];
    for (bytes, as_word, as_line) in table {
        assert_eq!(word(bytes), *as_word);
        assert_eq!(line(bytes), *as_line);
    }
}

proptest! {
    #[test]
    fn whatever_is_written_as_words_is_read_back(
        all in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..6)
    ) {
        let text: Vec<_> = all.iter().map(|bytes| word(bytes)).collect();
        let read = split(text.join(" ").as_bytes()).unwrap();
        prop_assert_eq!(read.into_iter().map(|word| word.bytes).collect::<Vec<_>>(), all);
    }

    #[test]
    fn whatever_text_is_written_as_words_is_read_back(
        all in prop::collection::vec("\\PC{0,8}|[ \"'\\\\#(-]{0,8}", 0..6)
    ) {
        let text: Vec<_> = all.iter().map(|text| word(text.as_bytes())).collect();
        let read = split(text.join(" ").as_bytes()).unwrap();
        let text = |word: Word| String::from_utf8(word.bytes).unwrap();
        let read: Vec<_> = read.into_iter().map(text).collect();
        prop_assert_eq!(read, all);
    }

    #[test]
    fn whatever_is_written_as_a_line_is_one_line_and_is_read_back(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            "[ a\"(\\\\\n]{0,6}".prop_map(String::into_bytes),
        ]
    ) {
        let text = line(&bytes);
        prop_assert!(!text.contains(['\n', '\r']));
        prop_assert_eq!(unline(text.as_bytes()).unwrap(), bytes);
    }

    #[test]
    fn no_line_makes_the_grammar_panic(
        bytes in prop::collection::vec(
            prop_oneof![any::<u8>(), prop::sample::select(b"'\"\\x0 #".to_vec())],
            0..60,
        )
    ) {
        let _ = split(&bytes);
        let _ = unline(&bytes);
    }
}
