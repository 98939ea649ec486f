//! An error and its causes on one line, for reports that carry text only.

use std::error::Error;

/// Returns the error and its causes in one line; a cause that the text contains already is left
/// out.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}
