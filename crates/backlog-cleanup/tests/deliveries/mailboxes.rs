//! One mailbox keeps nothing from the others.

use crate::receiver::MailServer;
use crate::{File, OPEN, RESOLVE, database, serve};
use cluster::{until_holds, until_true};

fn team(mails: &MailServer) -> File {
    File::of(&format!(
        "[mail.team]\nurl = \"{}\"\nfrom = \"db@example.com\"\nto = [\"one@example.com\", \"gone@example.com\", \"boss@example.com\"]\n",
        mails.address
    ))
}

#[test]
fn a_mailbox_that_is_gone_keeps_no_mail_from_the_others() {
    let mails = MailServer::start([]);
    mails.mailbox("gone@example.com", "550 5.1.1 no such user");
    let (cluster, mut client) = database("mailboxes_gone");
    let _server = serve(&cluster, "mailboxes_gone", &team(&mails));
    client.batch_execute(OPEN).unwrap();
    until_true(&mut client, "SELECT count(delivered_at) = 1 FROM backlog_cleanup.alert_delivery");
    client.batch_execute(RESOLVE).unwrap();
    client
        .batch_execute("UPDATE backlog_cleanup.alert_channel SET next_attempt_at = now(); NOTIFY backlog_cleanup")
        .unwrap();
    until_true(&mut client, "SELECT count(delivered_at) = 2 AND max(attempts) = 1 FROM backlog_cleanup.alert_delivery");
    assert_eq!(mails.to(), [["one@example.com"], ["boss@example.com"], ["one@example.com"], ["boss@example.com"]]);
    // Whoever looks is told who gets none.
    until_true(
        &mut client,
        "SELECT failures = 2 AND delivered_at IS NOT NULL AND last_error LIKE 'gone@example.com did not take it: %no such user%'
         FROM backlog_cleanup.alert_channel",
    );
}

#[test]
fn a_mailbox_that_is_busy_gets_the_mail_later_and_nobody_gets_it_twice() {
    let mails = MailServer::start([]);
    mails.mailbox("gone@example.com", "450 4.2.1 come again later");
    let (cluster, mut client) = database("mailboxes_busy");
    let _server = serve(&cluster, "mailboxes_busy", &team(&mails));
    client.batch_execute(OPEN).unwrap();
    until_true(&mut client, "SELECT coalesce(max(failures), 0) >= 2 FROM backlog_cleanup.alert_channel");
    mails.mailbox("gone@example.com", "250 fine");
    until_true(&mut client, "SELECT count(delivered_at) = 1 FROM backlog_cleanup.alert_delivery");
    assert_eq!(mails.to(), [["one@example.com"], ["boss@example.com"], ["gone@example.com"]]);
    until_holds(|| {
        mails.came().iter().all(|mail| {
            mail.lines().find(|it| it.starts_with("Message-ID"))
                == mails.came()[0].lines().find(|it| it.starts_with("Message-ID"))
        })
    });
}
