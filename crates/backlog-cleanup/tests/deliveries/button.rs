//! The test of a channel by the API.

use serde_json::json;

use crate::receiver::{Answer, Receiver};
use crate::server::{ADMIN, BASE, MONITOR, OPERATOR};
use crate::{File, database, serve};

#[test]
fn an_admin_tests_a_channel_and_is_told_why_it_fails() {
    let receiver = Receiver::start([]);
    let file = File::of(&format!("[slack.ops]\nurl = \"{}/secret-path\"\n", receiver.address));
    let (cluster, _client) = database("button");
    let server = serve(&cluster, "button", &file);
    let test = |token| server.post(token, &format!("{BASE}/channels/ops/test"), "");
    assert_eq!(test(OPERATOR).status, 403);
    assert!(receiver.came().is_empty());
    assert_eq!(test(ADMIN).json(), json!({"success": true, "delivered": true, "error": null}));
    assert_eq!(receiver.came().len(), 2);
    receiver.then(Answer::Status(404, "no_team for /secret-path"));
    let failed = test(ADMIN).json();
    assert!(failed["error"].as_str().unwrap().starts_with("HTTP 404"), "{failed}");
    assert!(!failed.to_string().contains("secret-path"), "{failed}");
    assert_eq!(server.post(ADMIN, &format!("{BASE}/channels/other/test"), "").status, 404);
    let channels = server.get(MONITOR, &format!("{BASE}/channels")).json();
    assert_eq!(channels["here"], json!(["ops"]));
    assert!(!channels.to_string().contains("secret-path"), "{channels}");
}
