use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::Utc;
use hmac::{Hmac, Mac};
use serde::Deserialize;
use serde_json::json;
use sha2::Sha256;

use super::Delivered;
use super::http::{Address, post};
use super::message::{Content, Message};
use super::secret::Secret;

/// JSON of our own, signed as standardwebhooks.com has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    pub url: Address,
    /// `whsec_` and base64, or any text.
    secret: Option<Secret>,
    /// The value of the header Authorization.
    pub authorization: Option<Secret>,
}

impl Webhook {
    pub fn send(&self, message: &Message) -> Delivered {
        let content = match &message.content {
            Content::Alerts(told) => json!({ "type": "alerts", "alerts": told }),
            Content::Report { markdown, .. } => json!({ "type": "report", "report": markdown }),
        };
        let mut body = json!({ "id": message.id, "database": message.database });
        body.as_object_mut().expect("an object").extend(content.as_object().expect("an object").clone());
        let body = body.to_string();
        let timestamp = Utc::now().timestamp().to_string();
        let signature = self.secret.as_ref().map(|secret| signature(secret.as_str(), &message.id, &timestamp, &body));
        let mut headers = vec![("webhook-id", message.id.as_str()), ("webhook-timestamp", &timestamp)];
        headers.extend(signature.iter().map(|signature| ("webhook-signature", signature.as_str())));
        headers.extend(self.authorization.iter().map(|value| ("authorization", value.as_str())));
        post(self.url.as_str(), &headers, body.as_bytes())
    }

    pub fn secrets(&self) -> Vec<String> {
        let secret = self.secret.iter().map(|secret| secret.as_str().to_owned());
        let credentials = self.authorization.iter().flat_map(Secret::credentials);
        self.url.secrets().into_iter().chain(secret).chain(credentials).collect()
    }
}

/// `v1,` and the HMAC-SHA256 of id, timestamp and body, joined by dots.
fn signature(secret: &str, id: &str, timestamp: &str, body: &str) -> String {
    let key = secret.strip_prefix("whsec_").and_then(|it| BASE64_STANDARD.decode(it).ok());
    let key = key.unwrap_or_else(|| secret.as_bytes().to_vec());
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("any length will do");
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::signature;

    #[test]
    fn a_signature_is_that_of_standard_webhooks() {
        // The example of the specification's own libraries.
        let body = r#"{"test": 2432232314}"#;
        let signed =
            signature("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
