use serde::Deserialize;
use serde_json::json;

use super::Delivered;
use super::http::{Address, post_json};
use super::message::{Content, Message};
use super::text::{headline, paragraphs};

/// An incoming webhook of Slack, or of what understands its form (Mattermost, Rocket.Chat, Discord's `/slack`).
#[derive(Deserialize)]
#[serde(try_from = "Written")]
pub struct Slack {
    url: Address,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    url: Address,
}

impl TryFrom<Written> for Slack {
    type Error = &'static str;

    fn try_from(Written { url }: Written) -> Result<Slack, &'static str> {
        // Whoever knows the address may write.
        if url.is_private() { Ok(Slack { url }) } else { Err("url must be https://") }
    }
}

impl Slack {
    pub fn send(&self, message: &Message) -> Delivered {
        let body = match &message.content {
            Content::Alerts(_) => paragraphs(message).iter().map(|it| format!("• {}", escaped(it))).collect(),
            Content::Report { text, .. } => vec![format!("```{}```", escaped(text))],
        };
        let text = format!("*{}*\n{}", escaped(&headline(message)), body.join("\n"));
        post_json(self.url.as_str(), &[], &json!({ "text": text }))
    }

    pub fn secrets(&self) -> Vec<&str> {
        self.url.secrets().collect()
    }
}

/// Text in which nothing is a link or calls anybody, as `<!channel>` does.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
