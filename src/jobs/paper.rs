//! The page for the safe: an identity on paper, and how to restore with it.
//!
//! It is one HTML file without a script, a font or an image from elsewhere, and prints on A4 and on
//! Letter.

mod qr;

use chrono::{DateTime, Utc};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use zeroize::Zeroizing;

use super::error::JobError;
use crate::base::ids::Hash;
use crate::base::shell_word::shell_word;
use qr::qr_svg;

/// How an identity in a file begins.
const SECRET_KEY: &str = "AGE-SECRET-KEY-";
/// Letters in a group: a person reads and types one at a time.
const GROUP: usize = 6;
/// Groups in a line.
const GROUPS: usize = 8;
/// Largest identity file that is printed, in bytes: what a QR code holds.
const MAX_SECRET_BYTES: usize = 2_000;

/// What the page says.
pub(crate) struct Paper<'a> {
    /// The secrets to print; empty: it is a public page.
    pub(crate) secrets: Vec<PaperSecret>,
    pub(crate) recipients: &'a [String],
    /// The fingerprints of the host's signers, `SHA256:…`. Empty: not given.
    pub(crate) signers: &'a [String],
    /// Where the backups are, without credentials.
    pub(crate) places: &'a [String],
    /// SHA-256 of `recover.py`.
    pub(crate) recover_py: Hash,
    pub(crate) made_at: DateTime<Utc>,
}

/// A secret as it is printed.
pub(crate) struct PaperSecret {
    /// What the QR code holds, and the groups spell.
    text: Zeroizing<String>,
    /// Whether the lines of the text matter: it is a file that is encrypted, or an OpenSSH key.
    is_file: bool,
}

impl PaperSecret {
    /// Returns the secrets in the content of an identity file: each native identity, or the file as
    /// it is.
    pub(crate) fn of_file(content: &str) -> Result<Vec<Self>, JobError> {
        let lines = content.lines().map(str::trim);
        let native: Vec<Self> = lines
            .filter(|line| line.starts_with(SECRET_KEY))
            .map(|line| Self {
                text: Zeroizing::new(line.to_owned()),
                is_file: false,
            })
            .collect();
        let secrets = match native.is_empty() {
            false => native,
            true => vec![Self {
                text: Zeroizing::new(content.trim_end().to_owned()),
                is_file: true,
            }],
        };
        match secrets.iter().all(|one| one.text.len() <= MAX_SECRET_BYTES) {
            true => Ok(secrets),
            false => Err(
                JobError::request("the identity file is too long for a QR code").with_next(
                    "print the file itself, or make a native identity: `sealift key generate`",
                ),
            ),
        }
    }

    fn render(&self) -> Result<Markup, JobError> {
        let svg = qr_svg(&self.text)?;
        let lines: Vec<String> = match self.is_file {
            true => self.text.lines().map(str::to_owned).collect(),
            false => grouped_lines(&self.text),
        };
        Ok(html! {
            section.secret {
                div.code { (PreEscaped(svg)) }
                pre.letters { @for line in &lines { (line) "\n" } }
            }
        })
    }
}

impl Paper<'_> {
    /// Returns the page.
    pub(crate) fn render(&self) -> Result<Zeroizing<String>, JobError> {
        let secrets: Vec<Markup> = self
            .secrets
            .iter()
            .map(PaperSecret::render)
            .collect::<Result<_, _>>()?;
        let is_encrypted = self.secrets.iter().any(|one| one.is_file);
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="robots" content="noindex";
                    title { "Sealift: recovery page" }
                    style { (PreEscaped(STYLE)) }
                }
                body { main {
                    h1 { "Sealift: recovery page" }
                    p { "Made on " time datetime=(self.made_at.format("%Y-%m-%d")) {
                        (self.made_at.format("%Y-%m-%d"))
                    } "." }
                    @if secrets.is_empty() {
                        p.note { "The identity is not on this page." }
                    } @else {
                        h2 { "The identity" }
                        p.note {
                            @if is_encrypted {
                                "This is the identity file as it is. If a passphrase protects it, keep the \
                                 passphrase in another place than this page."
                            } @else {
                                "This page alone decrypts every backup for it. Keep it where you keep deeds and \
                                 passports."
                            }
                        }
                        @for secret in &secrets { (secret) }
                        p { "Typed back, and " code { "sealift key check" } " accepted it, on: "
                            span.blank {} }
                    }
                    h2 { "What opens with it" }
                    dl {
                        @for recipient in self.recipients {
                            dt { "Recipient" } dd { code { (recipient) } }
                        }
                        @for signer in self.signers {
                            dt { "Signer of the backups" } dd { code { (signer) } }
                        }
                        @for place in self.places {
                            dt { "Backups at" } dd { code { (place) } }
                        }
                        dt { "SHA-256 of recover.py" } dd { code { (self.recover_py) } }
                    }
                    (self.steps())
                } }
            }
        };
        Ok(Zeroizing::new(page.into_string()))
    }

    /// Returns the recovery in ten lines.
    fn steps(&self) -> Markup {
        let place = self
            .places
            .first()
            .map_or("URL".into(), |place| shell_word(place));
        // Of several, the reader chooses: some may be those of other hosts.
        let signer = match self.signers {
            [signer] => signer,
            _ => "SIGNER",
        };
        html! {
            h2 { "To restore" }
            ol {
                li { "On a machine that you trust, put the identity into the file " code { "key.txt" }
                    ": scan the code, or type the letters without the blanks." }
                li { "Close it to others: " code { "chmod 600 key.txt" } }
                li { "Install Sealift, and check the file: " code { "sealift key show key.txt" }
                    " prints the recipient above." }
                li { "See what is there: " code { "sealift list --from " (place) " --signer " (signer) } }
                li { "Restore the newest: " code { "sealift restore --from " (place) " --signer " (signer)
                    " --identity key.txt --to restored" } }
                li { "On the server itself, see docs/recovery.md: "
                    code { "sealift restore --in-place --dir restored" } }
                li { "Without Sealift: get recover.py from beside the identity, or from the backups, and compare \
                      its SHA-256 with the one above." }
                li { "Copy the host's folder to this machine, and install Python 3, age, zstd and tar." }
                li { code { "python3 recover.py FOLDER --identity key.txt --signer " (signer) " --to restored" } }
                li { "Delete " code { "key.txt" } " when you are done." }
            }
        }
    }
}

/// Returns `text` in groups, several to a line.
fn grouped_lines(text: &str) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    let groups: Vec<String> = letters
        .chunks(GROUP)
        .map(|group| group.iter().collect())
        .collect();
    groups.chunks(GROUPS).map(|line| line.join(" ")).collect()
}

/// Black on white, whatever the reader prefers: it is for paper.
const STYLE: &str = "
@page { size: auto; margin: 12mm 15mm; }
html { background: #fff; color: #000; }
body { font: 10pt/1.3 sans-serif; margin: 0; }
main { max-width: 180mm; margin: 0 auto; }
h1 { font-size: 16pt; margin: 0 0 1mm; }
h2 { font-size: 12pt; margin: 4mm 0 1mm; }
p { margin: 1mm 0; }
.note { font-weight: bold; }
.secret { display: flex; flex-wrap: wrap; gap: 6mm; align-items: center; break-inside: avoid; margin: 3mm 0; }
.code svg { display: block; width: 50mm; height: 50mm; }
.letters { font: 13pt/1.5 monospace; margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.blank { display: inline-block; width: 60mm; border-bottom: 1px solid #000; }
code { font-family: monospace; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: 45mm 1fr; gap: 1mm 4mm; margin: 0; }
dd { margin: 0; }
li { margin: 0.8mm 0; }
";

#[cfg(test)]
mod tests {
    use super::*;

    fn page(secrets: Vec<PaperSecret>) -> String {
        let paper = Paper {
            secrets,
            recipients: &["age1<recipient>".to_owned()],
            signers: &["SHA256:abc".to_owned()],
            places: &["s3://backups/\"a&b\"".to_owned()],
            recover_py: Hash::sha256(b"x"),
            made_at: DateTime::UNIX_EPOCH,
        };
        paper.render().unwrap().to_string()
    }

    #[test]
    fn an_identity_is_printed_in_groups_and_what_is_not_ours_is_escaped() {
        let line = format!("{SECRET_KEY}1{}", "Q".repeat(58));
        let content = format!("# created: today\n# public key: age1x\n{line}\n");
        let secrets = PaperSecret::of_file(&content).unwrap();
        assert_eq!(secrets.len(), 1);
        assert_eq!(grouped_lines(&line).concat().replace(' ', ""), line);
        let page = page(secrets);
        assert!(page.contains("AGE-SE CRET-K EY-1QQ QQQQQQ"), "{page}");
        assert!(page.contains("age1&lt;recipient&gt;") && page.contains("&quot;a&amp;b&quot;"));
        assert!(!page.contains("<script") && !page.contains("src=") && !page.contains("href="));
    }

    #[test]
    fn an_encrypted_file_is_printed_line_by_line() {
        let content =
            "-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n-----END AGE ENCRYPTED FILE-----\n";
        let secrets = PaperSecret::of_file(content).unwrap();
        assert_eq!(secrets[0].text.as_str(), content.trim_end());
        assert!(page(secrets).contains("YWdl\n"));
        assert!(PaperSecret::of_file(&"x".repeat(3_000)).is_err());
    }

    #[test]
    fn a_public_page_has_no_secret() {
        let page = page(Vec::new());
        assert!(page.contains("not on this page") && !page.contains("<svg"));
    }
}
