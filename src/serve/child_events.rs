//! The events of a child, read from its pipe.

use serde_json::Value;

use super::wake::ChildEvent;

/// The longest line that is read, in bytes: the report of a run that skipped very much.
const LONGEST: usize = 8 << 20;

/// Collects what was read to whole lines. A line that is too long is dropped.
#[derive(Debug, Default)]
pub(super) struct LineReader {
    line: Vec<u8>,
    is_too_long: bool,
}

impl LineReader {
    /// Takes the next `bytes`, and returns the lines that end in them.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.add(&bytes[..end]);
            let line = std::mem::take(&mut self.line);
            if !std::mem::take(&mut self.is_too_long) {
                lines.push(line);
            }
            bytes = &bytes[end + 1..];
        }
        self.add(bytes);
        lines
    }

    fn add(&mut self, bytes: &[u8]) {
        self.is_too_long |= self.line.len() + bytes.len() > LONGEST;
        match self.is_too_long {
            true => self.line = Vec::new(),
            false => self.line.extend(bytes),
        }
    }
}

/// Returns the event of one line. `None`: it is of no concern to the agent.
pub(super) fn parse(line: &[u8]) -> Option<ChildEvent> {
    let mut event: Value = serde_json::from_slice(line).ok()?;
    let text = |event: &Value, key: &str| event[key].as_str().map(str::to_owned);
    match event["event"].as_str()? {
        "stage" => {
            let subjects = ["source", "target", "host"];
            let subject = subjects.iter().find_map(|key| text(&event, key));
            let stage = text(&event, "stage")?;
            Some(ChildEvent::Stage { stage, subject })
        }
        "progress" => Some(ChildEvent::Progress(event)),
        "snapshot" => Some(ChildEvent::Snapshot(event["metadata"].take())),
        "report" => Some(ChildEvent::Report(event["report"].take())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_are_whole_however_they_arrive() {
        let mut reader = LineReader::default();
        let mut lines = Vec::new();
        for piece in ["a", "b\nc", "", "d\n\ne", "f\n"] {
            lines.extend(reader.take(piece.as_bytes()));
        }
        assert_eq!(lines, [&b"ab"[..], b"cd", b"", b"ef"]);
        let long = vec![b'x'; LONGEST / 2 + 1];
        assert!(reader.take(&long).is_empty() && reader.take(&long).is_empty());
        assert_eq!(reader.take(b"x\nshort\n"), [b"short".to_vec()]);
    }

    #[test]
    fn events_are_what_they_say() {
        let stage = br#"{"event":"stage","stage":"producing","source":"db","t":"x"}"#;
        let expected = ChildEvent::Stage {
            stage: "producing".to_owned(),
            subject: Some("db".to_owned()),
        };
        assert_eq!(parse(stage), Some(expected));
        let report = br#"{"event":"report","report":{"kind":"backup"}}"#;
        let expected = ChildEvent::Report(json!({ "kind": "backup" }));
        assert_eq!(parse(report), Some(expected));
        let ready = br#"{"event":"snapshot","stamp":"s","path":"/p","metadata":{"stamp":"s"}}"#;
        let expected = ChildEvent::Snapshot(json!({ "stamp": "s" }));
        assert_eq!(parse(ready), Some(expected));
        for other in [&br#"{"event":"note","text":"x"}"#[..], b"{}", b"no", b""] {
            assert_eq!(parse(other), None);
        }
    }
}
