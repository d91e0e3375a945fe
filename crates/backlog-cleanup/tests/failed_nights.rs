//! A night that fails in one transaction leaves no run: whoever looks at the history sees it all the same.

mod cli;
mod server;

use cluster::{Cluster, fail};
use server::{BASE, MONITOR, Server, bearer};

#[test]
fn a_night_that_failed_without_a_run_is_in_every_list_of_runs() {
    let cluster = Cluster::start("shared_preload_libraries = 'pg_cron'\ncron.database_name = 'nights'\n");
    let mut client = server::database(&cluster, "nights");
    client.batch_execute("CREATE EXTENSION pg_cron").unwrap();
    fail(&mut client, 1, 15);
    client
        .batch_execute(
            "SELECT backlog_cleanup_failed_generations();
             INSERT INTO cron.job_run_details (jobid, runid, database, username, command, status, return_message, start_time, end_time)
             SELECT 7, night, 'nights', 'postgres', 'SELECT public.backlog_cleanup_failed_generations()', 'failed',
                    E'ERROR:  no <room> in night ' || night || E'\\nDETAIL:  secret', now() - interval '1 day' * night,
                    now() - interval '1 day' * night + interval '1 second'
             FROM generate_series(1, 2) night;
             SELECT backlog_cleanup_emergency()",
        )
        .unwrap();
    let listed = cli::run(&cluster, "nights", &["runs"]).stdout;
    let line = |what: &str| listed.lines().position(|line| line.contains(what)).unwrap_or_else(|| panic!("{listed}"));
    assert!(line("no <room> in night 1") < line("no <room> in night 2"), "{listed}");
    assert!(listed.contains("emergency") && listed.contains("failed") && !listed.contains("secret"), "{listed}");
    let runs = cli::run(&cluster, "nights", &["runs", "--json"]).json();
    assert!(runs.as_array().unwrap().iter().all(|run| run["id"].is_number()), "{runs}");

    let server = Server::start(&cluster, "nights", &[]);
    let answer = server.get(MONITOR, &format!("{BASE}/runs")).json();
    assert_eq!(answer["runs"].as_array().unwrap().len(), 2, "{answer}");
    let nights = answer["failedNights"].as_array().unwrap();
    assert_eq!(nights.len(), 2, "{answer}");
    assert_eq!((nights[0]["jobId"].as_i64(), &nights[0]["state"]), (Some(7), &"failed".into()), "{answer}");
    assert_eq!(nights[0]["errorMessage"], "no <room> in night 1", "{answer}");
    // A page has those between its runs: both nights are older than the newest run.
    let newest = server.get(MONITOR, &format!("{BASE}/runs?limit=1")).json();
    assert_eq!(newest["failedNights"].as_array().unwrap().len(), 0, "{newest}");
    assert_eq!(server.get(MONITOR, &format!("{BASE}/runs?target=none")).status, 404);
    let page = server.send("GET", "/", &[("authorization", &bearer(MONITOR))], "").body;
    assert!(
        page.contains("no &lt;room&gt; in night 1") && page.contains("job 7") && !page.contains("secret"),
        "{page}"
    );
    let document = server.send("GET", "/api/openapi.json", &[], "").json();
    assert!(document["components"]["schemas"]["Runs"]["properties"]["failedNights"].is_object(), "{document}");
}
