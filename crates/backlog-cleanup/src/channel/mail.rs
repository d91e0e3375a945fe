use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lettre::address::Envelope;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder};
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::Credentials;
use lettre::{SmtpTransport, Transport};
use serde::Deserialize;
use url::Url;

use super::each::{Each, undelivered};
use super::message::{Content, Message};
use super::secret::Secret;
use super::text::{headline, paragraphs};
use super::{Delivered, STEP, Undelivered};
use crate::printable::printable;

/// Mails, by SMTP.
#[derive(Deserialize)]
#[serde(try_from = "Written")]
pub struct Mail {
    transport: SmtpTransport,
    from: Mailbox,
    to: Vec<Mailbox>,
    /// The password, and what AUTH PLAIN and AUTH LOGIN make of it.
    secrets: Vec<String>,
    each: Each,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// `smtps://host`, or `smtp://host` with STARTTLS; without TLS only on this machine.
    url: String,
    user: Option<String>,
    password: Option<Secret>,
    from: String,
    to: Vec<String>,
}

impl TryFrom<Written> for Mail {
    type Error = String;

    fn try_from(Written { url, user, password, from, to }: Written) -> Result<Mail, String> {
        let mailbox = |address: &String| address.parse().map_err(|_| format!("\"{address}\" is no address of mails"));
        if to.is_empty() {
            return Err("to has no address".into());
        }
        let (mut transport, mut secrets) = (transport(&url)?, Vec::new());
        match (user, password) {
            (Some(user), Some(password)) => {
                let password = password.as_str();
                secrets.push(password.to_owned());
                secrets.extend(
                    [password.to_owned(), format!("\0{user}\0{password}")].map(|it| BASE64_STANDARD.encode(it)),
                );
                transport = transport.credentials(Credentials::new(user, password.to_owned()));
            }
            (None, None) => (),
            _ => return Err("it takes both a user and a password, or none of them".into()),
        }
        Ok(Mail {
            transport: transport.timeout(Some(STEP)).build(),
            from: mailbox(&from)?,
            to: to.iter().map(mailbox).collect::<Result<_, _>>()?,
            secrets,
            each: Each::default(),
        })
    }
}

fn transport(url: &str) -> Result<lettre::transport::smtp::SmtpTransportBuilder, String> {
    let wrong = || "url must be smtps://host or smtp://host, with or without a port".to_owned();
    let parsed = Url::parse(url).map_err(|_| wrong())?;
    let is_plain =
        parsed.path().trim_matches('/').is_empty() && parsed.query().is_none() && parsed.username().is_empty();
    let host = parsed.host_str().filter(|_| is_plain).ok_or_else(wrong)?;
    let builder = match parsed.scheme() {
        "smtps" => SmtpTransport::relay(host).map_err(|error| error.to_string())?,
        "smtp" if ["localhost", "127.0.0.1", "[::1]"].contains(&host) => {
            SmtpTransport::builder_dangerous(host.trim_matches(['[', ']'])).port(25)
        }
        "smtp" => SmtpTransport::starttls_relay(host).map_err(|error| error.to_string())?,
        _ => return Err(wrong()),
    };
    Ok(match parsed.port() {
        Some(port) => builder.port(port),
        None => builder,
    })
}

impl Mail {
    pub fn send(&self, message: &Message) -> Delivered {
        let body = match &message.content {
            Content::Alerts(_) => paragraphs(message).join("\n\n") + "\n",
            Content::Report { markdown, .. } => printable(markdown),
        };
        let to = |builder: MessageBuilder, to: &Mailbox| builder.to(to.clone());
        let builder = self.to.iter().fold(lettre::Message::builder().from(self.from.clone()), to);
        // RFC 3834: nobody answers that he is on holiday.
        let automatic = HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".into());
        let mail = builder
            .subject(format!("[backlog-cleanup] {}", headline(message)))
            .message_id(Some(format!("<{}@backlog-cleanup>", message.id)))
            .raw_header(automatic)
            .header(ContentType::TEXT_PLAIN)
            .body(body)
            .map_err(|error| Undelivered::later(error.to_string()))?;
        if !self.each.has_begun(&message.id) {
            match self.transport.send(&mail) {
                Ok(_) => return Ok(()),
                Err(error) if self.to.len() == 1 || !is_of_recipient(&error) => return Err(undelivered(&error)),
                Err(_) => (),
            }
        }
        let (to, text) = (self.to.iter().map(|mailbox| mailbox.email.clone()), mail.formatted());
        let sent = self.each.send(&message.id, to, |recipient| {
            let envelope = Envelope::new(Some(self.from.email.clone()), vec![recipient.clone()]);
            self.transport.send_raw(&envelope.expect("it has a recipient"), &text).map(drop)
        });
        sent.map_err(|failed| match &message.content {
            Content::Alerts(told) if failed.is_final && self.each.has_begun(&message.id) => {
                Undelivered { taken: told.iter().map(|told| told.alert.id).collect(), ..failed }
            }
            _ => failed,
        })
    }

    pub fn secrets(&self) -> Vec<String> {
        self.secrets.clone()
    }
}

/// Whether it may be about one of several recipients: a login that is refused, or a server that is busy, is about all of them.
fn is_of_recipient(error: &Error) -> bool {
    error.status().is_some_and(|code| matches!(u16::from(code), 450..=452 | 550..=554))
}
