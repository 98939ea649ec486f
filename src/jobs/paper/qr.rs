//! A QR code as an SVG.

use qrcodegen::{QrCode, QrCodeEcc};

use crate::jobs::error::JobError;

/// White modules around the code, as the standard asks.
const QUIET: i32 = 4;

/// Returns the QR code of `text` as an SVG whose sizes are modules.
pub(super) fn qr_svg(text: &str) -> Result<String, JobError> {
    // A quarter of the code may be damaged: paper gets folded and stained.
    let levels = [QrCodeEcc::Quartile, QrCodeEcc::Medium, QrCodeEcc::Low];
    let code = levels
        .iter()
        .find_map(|level| QrCode::encode_text(text, *level).ok());
    let code = code.ok_or_else(|| JobError::request("the text is too long for a QR code"))?;
    let side = code.size() + 2 * QUIET;
    let mut path = String::new();
    for y in 0..code.size() {
        for x in 0..code.size() {
            if code.get_module(x, y) {
                path.push_str(&format!("M{},{}h1v1h-1z", x + QUIET, y + QUIET));
            }
        }
    }
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {side} {side}\" shape-rendering=\"crispEdges\" \
         role=\"img\" aria-label=\"QR code of the text beside it\"><path fill=\"#fff\" d=\"M0,0h{side}v{side}h-{side}z\"/>\
         <path fill=\"#000\" d=\"{path}\"/></svg>"
    ))
}
