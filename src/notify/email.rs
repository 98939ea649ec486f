//! The channel of mail.

use std::error::Error as _;
use std::time::Duration;

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use lettre::transport::smtp::AsyncSmtpTransportBuilder;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};

use super::item::NotifyMessage;
use super::{ChannelAnswer, text};
use crate::config::{EmailSettings, MailServer, MailTransport};
use crate::storage::install_ciphers;

type MailClient = AsyncSmtpTransport<Tokio1Executor>;

/// Sends the message as mail, in one dialogue that ends after `timeout`.
pub(super) fn send(
    server: &MailServer,
    settings: &EmailSettings,
    message: &NotifyMessage,
    timeout: Duration,
) -> Result<ChannelAnswer, String> {
    let mail = mail(settings, message)?;
    install_ciphers();
    let client = client(server, settings, timeout)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let sent = runtime.block_on(async {
        let answered = tokio::time::timeout(timeout, client.send(mail)).await;
        answered.map_err(|_| format!("the mail server did not answer in {} s", timeout.as_secs()))
    });
    // A look-up of a name that hangs must not keep this thread waiting.
    runtime.shutdown_background();
    match sent? {
        Ok(response) => {
            let said = response.first_line().unwrap_or_default();
            Ok(ChannelAnswer {
                status: format!("{} {said}", response.code()).trim().to_owned(),
                id: Some(message_id(message)),
            })
        }
        Err(error) => Err(failure(&error)),
    }
}

fn failure(error: &lettre::transport::smtp::Error) -> String {
    let source = error.source().map(|source| source.to_string());
    let said = source.unwrap_or_else(|| error.to_string());
    let said: String = said
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(200)
        .collect();
    match error.status() {
        Some(code) => format!("the mail server answers {code}: {said}"),
        None if error.is_timeout() => "the mail server did not answer in time".to_owned(),
        None if error.is_tls() => format!("no secure connection to the mail server: {said}"),
        None => format!("no connection to the mail server: {said}"),
    }
}

fn client(
    server: &MailServer,
    settings: &EmailSettings,
    timeout: Duration,
) -> Result<MailClient, String> {
    let parameters = || {
        let parameters = TlsParameters::new(server.host.clone());
        parameters.map_err(|error| format!("TLS cannot be used: {error}"))
    };
    let tls = match server.transport {
        MailTransport::Tls => Tls::Wrapper(parameters()?),
        MailTransport::StartTls => Tls::Required(parameters()?),
        MailTransport::Plain => Tls::None,
    };
    let mut builder: AsyncSmtpTransportBuilder = MailClient::builder_dangerous(&server.host)
        .port(server.port)
        .tls(tls)
        .timeout(Some(timeout))
        .hello_name(ClientId::Domain(domain(settings)));
    if let (Some(user), Some(password)) = (&server.user, &server.password) {
        builder = builder.credentials(Credentials::new(user.clone(), password.clone()));
    }
    Ok(builder.build())
}

/// Returns the domain of the sender.
fn domain(settings: &EmailSettings) -> String {
    let mailbox = settings.from.parse::<Mailbox>();
    let domain = mailbox.map(|mailbox| mailbox.email.domain().to_owned());
    domain.unwrap_or_else(|_| "localhost".to_owned())
}

/// Returns the header `Message-ID` of the message with this id. It must be the same for each try,
/// and on each channel's later messages of the thread.
fn id_header(id: &str, host: &str) -> String {
    format!("<{id}@{host}.sealift>")
}

fn message_id(message: &NotifyMessage) -> String {
    id_header(&message.id, &message.host)
}

fn mail(settings: &EmailSettings, message: &NotifyMessage) -> Result<Message, String> {
    let mailbox = |text: &str| {
        let parsed = text.parse::<Mailbox>();
        parsed.map_err(|_| format!("{text:?} is not a mail address"))
    };
    let at = std::time::SystemTime::from(message.at);
    let mut builder = Message::builder()
        .from(mailbox(&settings.from)?)
        .subject(text::title(message))
        .date(at)
        .message_id(Some(message_id(message)));
    for to in &settings.to {
        builder = builder.to(mailbox(to)?);
    }
    let earlier: Vec<String> = message
        .thread
        .iter()
        .filter(|id| **id != message.id)
        .map(|id| id_header(id, &message.host))
        .collect();
    if let Some(first) = earlier.first() {
        builder = builder
            .in_reply_to(first.clone())
            .references(earlier.join(" "));
    }
    let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
    builder = builder.raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()));
    let plain = SinglePart::builder()
        .header(ContentType::TEXT_PLAIN)
        .body(text::body(message));
    let html = SinglePart::builder()
        .header(ContentType::TEXT_HTML)
        .body(text::html(message));
    let parts = MultiPart::alternative().singlepart(plain).singlepart(html);
    builder
        .multipart(parts)
        .map_err(|error| format!("the mail cannot be written: {error}"))
}
