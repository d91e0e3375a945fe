//! The server, attacked on loopback: by clients that send no end, nothing or too much, by text of the database, by times
//! that no calendar has, by signals, and by its own configuration.

#[path = "../cli/mod.rs"]
mod cli;
#[path = "../server/mod.rs"]
mod server;

mod configured;
mod credentials;
mod loaded;
mod logged;
mod rows;
mod signalled;

/// Makes batches small and slow.
const SLOW: &str = "
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.1); RETURN NULL; END $$;
    CREATE TRIGGER slow AFTER DELETE ON generations FOR EACH STATEMENT EXECUTE FUNCTION slow();
    UPDATE backlog_cleanup.target SET batch_size = 5";

/// The headers of a form of the server's own pages.
const FORM: [(&str, &str); 2] =
    [("content-type", "application/x-www-form-urlencoded"), ("sec-fetch-site", "same-origin")];

/// Logs in; returns the cookie as browsers send it.
fn login(server: &server::Server, token: &str) -> String {
    let login = server.send("POST", "/login", &FORM, &format!("token={token}"));
    assert_eq!(login.status, 303, "{login:?}");
    login.header("set-cookie").split(';').next().unwrap().to_owned()
}
