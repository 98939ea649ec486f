//! Short quotes of what a server answers, fit for an error message.
//!
//! Only code and message of an answer are quoted, because some servers put credentials beside them.

/// Maximum characters of a quote.
const MOST_QUOTED_CHARS: usize = 200;

/// Returns the code and the message of an XML or JSON body, the title of a web page, or the first
/// line of any other text.
pub(crate) fn said(body: &str) -> String {
    let xml = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(text, _)| text)
    };
    let json = |name: &str| {
        let value: serde_json::Value = serde_json::from_str(body).ok()?;
        let value = value.get("error").unwrap_or(&value);
        Some(value.get(name)?.to_string().trim_matches('"').to_owned())
    };
    let code = xml("Code").map(str::to_owned).or_else(|| json("code"));
    let message = xml("Message")
        .map(str::to_owned)
        .or_else(|| json("message"));
    match (code, message) {
        (Some(code), Some(message)) if message != code => shortened(&format!("{code}: {message}")),
        (Some(only), _) | (None, Some(only)) => shortened(&only),
        (None, None) if body.trim_start().starts_with('<') => {
            shortened(xml("title").unwrap_or_default())
        }
        (None, None) => shortened(body.trim().lines().next().unwrap_or_default()),
    }
}

/// Returns the beginning of `text` on one line, without control characters, on which a terminal
/// would act.
pub(crate) fn shortened(text: &str) -> String {
    let plain = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c });
    let mut short: String = plain.take(MOST_QUOTED_CHARS + 1).collect();
    if short.chars().count() > MOST_QUOTED_CHARS {
        short.pop();
        short.push_str("...");
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_is_short_and_on_one_line() {
        let long = said(&"é".repeat(5000));
        assert_eq!(long.chars().count(), MOST_QUOTED_CHARS + 3);
        assert_eq!(said("a\x1b[2Jb"), "a [2Jb");
    }
}
