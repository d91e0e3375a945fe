use serde::Deserialize;
use serde_json::json;

use super::Delivered;
use super::http::{PrivateAddress, post_json};
use super::message::{Content, Message};
use super::text::{headline, paragraphs};
use crate::printable::printable;

/// An incoming webhook of Slack, or of what understands its form (Mattermost, Rocket.Chat, Discord's `/slack`).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slack {
    /// Whoever knows it may write.
    url: PrivateAddress,
}

impl Slack {
    pub fn send(&self, message: &Message) -> Delivered {
        let body = match &message.content {
            Content::Alerts(_) => paragraphs(message).iter().map(|it| format!("• {}", escaped(it))).collect(),
            Content::Report { text, .. } => vec![format!("```{}```", escaped(&printable(text)))],
        };
        let text = format!("*{}*\n{}", escaped(&headline(message)), body.join("\n"));
        post_json(self.url.as_str(), &[], &json!({ "text": text }))
    }

    pub fn secrets(&self) -> Vec<String> {
        self.url.secrets()
    }
}

/// Text in which nothing is a link or calls anybody, as `<!channel>` does.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
