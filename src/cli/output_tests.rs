use super::*;

fn written(
    style: Style,
    format: Format,
    write: impl FnOnce(&mut Printer) -> io::Result<()>,
) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut Printer::new(&mut out, style, format)).unwrap();
    out
}

fn said(style: Style, format: Format, answer: Answer) -> String {
    String::from_utf8(written(style, format, |printer| printer.answer(&answer))).unwrap()
}

fn value(bytes: &'static [u8]) -> Answer {
    Answer::Value(Some(Bytes::from_static(bytes)))
}

fn item(key: &'static [u8], value: &'static [u8]) -> Item {
    Item {
        key: Bytes::from_static(key),
        value: Bytes::from_static(value),
    }
}

fn scanned(style: Style, format: Format, pages: &[&[Item]], next: Option<&'static str>) -> String {
    let next = next.map(Bytes::from);
    let bytes = written(style, format, |printer| {
        printer.scan_begins()?;
        for page in pages {
            printer.scan_items(page, false)?;
        }
        printer.scan_ends(next.as_ref())
    });
    String::from_utf8(bytes).unwrap()
}

const TO_FILE: Style = Style::Single { terminal: false };
const TO_TERMINAL: Style = Style::Single { terminal: true };

#[test]
fn a_single_raw_value_is_its_bytes_and_nothing_else() {
    let all: Vec<u8> = (0..=255).collect();
    let answer = Answer::Value(Some(all.clone().into()));
    assert_eq!(
        written(TO_FILE, Format::Raw, |printer| printer.answer(&answer)),
        all
    );
    assert_eq!(said(TO_FILE, Format::Raw, Answer::Value(None)), "");
    assert_eq!(said(TO_TERMINAL, Format::Raw, value(b"v")), "v\n");
}

#[test]
fn elsewhere_a_value_is_one_line_and_never_looks_like_something_else() {
    for (style, format) in [
        (Style::Piped, Format::Raw),
        (Style::Shell, Format::Raw),
        (Style::Shell, Format::Table),
        (TO_TERMINAL, Format::Table),
    ] {
        assert_eq!(said(style, format, value(b"two words")), "two words\n");
        assert_eq!(said(style, format, value(b"a\nb\xff")), "\"a\\nb\\xff\"\n");
        assert_eq!(said(style, format, value(b"")), "\"\"\n");
        assert_eq!(said(style, format, value(b"(missing)")), "\"(missing)\"\n");
        assert_eq!(said(style, format, Answer::Value(None)), "(missing)\n");
    }
}

#[test]
fn answers_have_these_words() {
    let deleted = |removed, named| Answer::Deleted { removed, named };
    let differs = |present: Option<&'static str>| Answer::Swapped(Err(present.map(Bytes::from)));
    let table = [
        (Answer::Done, "ok", "ok", r#"{"ok":true}"#),
        (Answer::Length(12), "12", "12 bytes", r#"{"length":12}"#),
        (deleted(1, 1), "1", "ok", r#"{"deleted":1}"#),
        (deleted(0, 1), "0", "(missing)", r#"{"deleted":0}"#),
        (
            deleted(2, 3),
            "2",
            "2 of 3 keys removed",
            r#"{"deleted":2}"#,
        ),
        (Answer::Swapped(Ok(())), "ok", "ok", r#"{"swapped":true}"#),
        (
            differs(Some("v")),
            "(differs) v",
            "not set: the value is v",
            r#"{"swapped":false,"value":"v"}"#,
        ),
        (
            differs(None),
            "(differs) (missing)",
            "not set: the key is missing",
            r#"{"swapped":false,"value":null}"#,
        ),
        (
            value(b"\x00\xff"),
            r#""\x00\xff""#,
            r#""\x00\xff""#,
            r#"{"value":{"base64":"AP8="}}"#,
        ),
    ];
    for (answer, raw, people, json) in table {
        assert_eq!(
            said(Style::Piped, Format::Raw, answer.clone()).trim_end(),
            raw
        );
        assert_eq!(
            said(Style::Shell, Format::Table, answer.clone()).trim_end(),
            people
        );
        assert_eq!(said(Style::Piped, Format::Json, answer).trim_end(), json);
    }
}

#[test]
fn a_scan_is_lines_of_words_and_in_a_pipe_one_line() {
    let pages: &[&[Item]] = &[&[item(b"a", b"1 2")], &[item(b"b", b"\xff")]];
    let raw = |style| scanned(style, Format::Raw, pages, None);
    assert_eq!(raw(TO_FILE), "a \"1 2\"\nb \"\\xff\"\n");
    assert_eq!(raw(Style::Piped), "a \"1 2\" b \"\\xff\"\n");
    let empty = |style, format| scanned(style, format, &[], None);
    assert_eq!(empty(TO_FILE, Format::Raw), "");
    assert_eq!(empty(Style::Piped, Format::Raw), "(empty)\n");
    assert_eq!(empty(Style::Shell, Format::Table), "(empty)\n");
}

#[test]
fn a_scan_in_json_is_one_object_however_many_pages_it_has() {
    let pages: &[&[Item]] = &[&[item(b"a", b"1")], &[], &[item(b"b", b"\xff")]];
    let line = scanned(Style::Piped, Format::Json, pages, Some("c"));
    let read: Value = serde_json::from_str(&line).unwrap();
    let expected = json!({
        "items": [{"key": "a", "value": "1"}, {"key": "b", "value": {"base64": "/w=="}}],
        "next": "c",
    });
    assert_eq!(read, expected);
    assert_eq!(line.lines().count(), 1);
}

#[test]
fn a_scan_in_a_table_has_a_row_for_each_key() {
    let expected = "\
┌─────┬────────┐
│ key ┆ value  │
╞═════╪════════╡
│ a   ┆ 1 2    │
│ b   ┆ \"\\xff\" │
└─────┴────────┘
";
    let page: &[Item] = &[item(b"a", b"1 2"), item(b"b", b"\xff")];
    assert_eq!(
        scanned(Style::Shell, Format::Table, &[page], None),
        expected
    );
}

#[test]
fn a_table_cuts_long_values_and_tells_their_length() {
    assert_eq!(shortened(&[b'a'; 100]), "a".repeat(100));
    assert_eq!(
        shortened(&[b'a'; 101]),
        format!("{}... (101 bytes)", "a".repeat(100))
    );
    let long = shortened("é".repeat(1 << 20).as_bytes());
    assert_eq!(long, format!("{}... (2097152 bytes)", "é".repeat(100)));
    let binary = shortened(&[0; 1000]);
    assert!(
        binary.starts_with("\"\\x00") && binary.ends_with("... (1000 bytes)"),
        "{binary}"
    );
}

#[test]
fn a_scan_that_fails_half_way_is_still_one_line_in_a_pipe_and_one_object_in_json() {
    let failing = |style, format| {
        let out = written(style, format, |printer| {
            printer.scan_begins()?;
            printer.scan_items(&[item(b"a", b"1")], false)?;
            printer.failed("unavailable", "nobody answers")
        });
        String::from_utf8(out).unwrap()
    };
    assert_eq!(failing(Style::Piped, Format::Raw), "a 1 (error)\n");
    assert_eq!(failing(TO_FILE, Format::Raw), "a 1\n");
    for style in [Style::Piped, TO_FILE] {
        let read: Value = serde_json::from_str(&failing(style, Format::Json)).unwrap();
        assert_eq!(read["error"]["kind"], "unavailable");
        assert_eq!(read["items"][0]["key"], "a");
    }
}

#[test]
fn a_failed_command_has_its_line_in_a_pipe() {
    let failing = |style, format| {
        let out = written(style, format, |printer| printer.failed("no", "too large"));
        String::from_utf8(out).unwrap()
    };
    assert_eq!(failing(Style::Piped, Format::Raw), "(error)\n");
    let json = "{\"error\":{\"kind\":\"no\",\"message\":\"too large\"}}\n";
    assert_eq!(failing(Style::Piped, Format::Json), json);
    assert_eq!(failing(TO_FILE, Format::Raw), "");
}

#[test]
fn base64_is_the_one_of_the_rfc() {
    let table = [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg=="),
    ];
    for (plain, encoded) in table {
        assert_eq!(base64(plain.as_bytes()), encoded);
    }
}
