use super::*;
use std::io::Write as _;

fn file(parts: &[(&[u8], usize)]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for (part, times) in parts {
        file.write_all(&part.repeat(*times)).unwrap();
    }
    file
}

fn verdict(parts: &[(&[u8], usize)]) -> JsonVerdict {
    let file = file(parts);
    let (dir, name) = Dir::open_parent(file.path()).unwrap();
    check(&dir, &name)
}

#[test]
fn the_verdict_is_that_of_a_parser_of_the_whole_text() {
    let texts: [&[u8]; 16] = [
        b"{}",
        b" [1, 2.5e3, \"a\\u00e9\\\"]\", null] ",
        b"\"\xc3\xa9\"",
        b"",
        b"{",
        b"[1,]",
        b"{} {}",
        b"\"\xff\"",
        b"\"\xc3\"",
        b"\"\xc3",
        b"\"\n\"",
        b"nul",
        b"[\"]\"]",
        b"{\"a\":[{\"b\":\"\\\\\"}]}",
        b"01",
        b"\0\0\0\0",
    ];
    for text in texts {
        let whole = std::str::from_utf8(text)
            .ok()
            .filter(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok());
        let is_json = verdict(&[(text, 1)]) == JsonVerdict::Json;
        assert_eq!(
            is_json,
            whole.is_some(),
            "{:?}",
            text.escape_ascii().to_string()
        );
    }
}

fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(bytes).collect()
}

#[test]
fn deviations_that_programs_read_are_named_and_others_are_invalid() {
    let little = utf16("\u{feff}{\"a\": \"€𝄞\"}", u16::to_le_bytes);
    let big = utf16("\u{feff}[NaN]", u16::to_be_bytes);
    let cases: [(&[u8], &str); 8] = [
        (b"\xef\xbb\xbf{}", "it begins with a byte order mark"),
        (b"NaN", "it holds NaN or Infinity"),
        (b"[NaN, -Infinity,Infinity]", "it holds NaN or Infinity"),
        (b"{\"a\":-Infinity}", "it holds NaN or Infinity"),
        (
            b"\xef\xbb\xbf[NaN]",
            "it begins with a byte order mark and holds NaN or Infinity",
        ),
        (&little, "it is UTF-16"),
        (&big, "it is UTF-16 and holds NaN or Infinity"),
        (b"[\"a\\\"\", NaN]", "it holds NaN or Infinity"),
    ];
    for (text, expected) in cases {
        let shown = text.escape_ascii();
        let JsonVerdict::Lenient(why) = verdict(&[(text, 1)]) else {
            panic!("{shown}: {:?}", verdict(&[(text, 1)]));
        };
        assert_eq!(why, expected, "{shown}");
    }
    for text in [
        &b"{\"a\":1,\"a\":2}"[..],
        b"[\"NaN\", \"-Infinity\"]",
        b"{}\n",
    ] {
        assert_eq!(verdict(&[(text, 1)]), JsonVerdict::Json);
    }
    let cut = &little[..little.len() - 1];
    for text in [
        &b"[1NaN]"[..],
        b"[NaN1]",
        b"[-NaN]",
        b"[--Infinity]",
        b"[+Infinity]",
        b"{NaN: 1}",
        b"[NaN NaN]",
        b"[Na]",
        b"-",
        b"Infinit",
        b"{}x",
        b"{}\0\0",
        b"{} {}",
        b"{\"a\":1,}",
        b"// x\n{}",
        b"\xef\xbb\xbf",
        b"\xef\xbb\xbf\xef\xbb\xbf{}",
        b"{\0}\0",
        b"\xff\xfe{\0",
        b"\xff\xfe\0\xd8\"\0",
        b"\xff\xfe\0\0{\0\0\0}\0\0\0",
        cut,
    ] {
        let said = verdict(&[(text, 1)]);
        assert!(
            matches!(said, JsonVerdict::Invalid(_)),
            "{}: {said:?}",
            text.escape_ascii()
        );
    }
}

/// Python's parser accepts and refuses the same texts.
#[test]
fn the_verdict_is_that_of_python() {
    const PIECES: [&[u8]; 26] = [
        b"[",
        b"]",
        b"{",
        b"}",
        b",",
        b":",
        b"\"a\"",
        b"\"NaN\"",
        b"\"\\\"\"",
        b"1",
        b"-",
        b"0.5",
        b"1e3",
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"true",
        b"null",
        b" ",
        b"\n",
        b"\"\xc3\xa9\"",
        b"Na",
        b"\0",
        b"\xff",
        b"[NaN]",
        b"{\"a\":Infinity}",
    ];
    let mut state = 18_u64;
    let mut next = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize % below
    };
    let texts: Vec<Vec<u8>> = (0..600)
        .map(|_| {
            let pieces = 1 + next(6);
            let body: Vec<u8> = (0..pieces)
                .flat_map(|_| PIECES[next(26)].to_vec())
                .collect();
            match (next(6), std::str::from_utf8(&body)) {
                (0, _) => [&b"\xef\xbb\xbf"[..], &body].concat(),
                (1, Ok(text)) => utf16(&format!("\u{feff}{text}"), u16::to_le_bytes),
                (2, _) => [&b"["[..], &body, b"]"].concat(),
                _ => body,
            }
        })
        .collect();
    let script = "import sys,json\n\
                  for line in sys.stdin:\n\
                  \x20   try: json.loads(bytes.fromhex(line.strip())); print(1)\n\
                  \x20   except ValueError: print(0)\n";
    let mut python = std::process::Command::new("python3")
        .args(["-c", script])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let hex = |text: &Vec<u8>| text.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let lines: Vec<String> = texts.iter().map(hex).collect();
    let mut stdin = python.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(lines.join("\n").as_bytes()).unwrap());
    let said = python.wait_with_output().unwrap().stdout;
    writer.join().unwrap();
    let said: Vec<bool> = said
        .split(|b| *b == b'\n')
        .map(|line| line == b"1")
        .collect();
    let mut valid = 0;
    for (text, python) in texts.iter().zip(said) {
        // Python guesses UTF-16 without a mark from zeros; no program writes it.
        if text.contains(&0) && !text.starts_with(b"\xff\xfe") {
            continue;
        }
        let ours = !matches!(verdict(&[(text, 1)]), JsonVerdict::Invalid(_));
        assert_eq!(ours, python, "{}", text.escape_ascii());
        valid += u32::from(ours);
    }
    assert!(valid > 60, "{valid}");
}

#[test]
fn characters_may_be_split_across_reads() {
    for before in 0..4 {
        let text = [
            (&b"\""[..], 1),
            (b"x", before),
            ("é€𝄞".as_bytes(), 40_000),
            (b"\"", 1),
        ];
        assert_eq!(verdict(&text), JsonVerdict::Json);
        let whole = format!("\u{feff}\"{}{}\"", "x".repeat(before), "é€𝄞".repeat(40_000));
        let text = utf16(&whole, u16::to_le_bytes);
        assert!(matches!(verdict(&[(&text, 1)]), JsonVerdict::Lenient(_)));
        let numbers = [
            (&b"["[..], 1),
            (b" ", before),
            (b"-Infinity,", 40_000),
            (b"NaN]", 1),
        ];
        assert!(matches!(verdict(&numbers), JsonVerdict::Lenient(_)));
    }
}

#[test]
fn too_many_open_brackets_are_refused() {
    let JsonVerdict::Invalid(why) = verdict(&[(b"[", 3 << 20)]) else {
        panic!("it is not JSON");
    };
    assert!(why.contains("brackets"), "{why}");
    let deep = [(&b"["[..], 1 << 20), (b"]", 1 << 20)];
    assert_eq!(verdict(&deep), JsonVerdict::Json);
}

#[test]
fn a_check_that_takes_too_long_is_no_fault_of_the_file() {
    let text = file(&[(b"[", 1), (b"1,", 10_000), (b"1]", 1)]);
    let file = File::open(text.path()).unwrap();
    assert!(matches!(
        check_within(file, Duration::ZERO),
        JsonVerdict::Unchecked(_)
    ));
}
