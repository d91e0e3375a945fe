//! Every SQL example of the README runs, in its order, on the platform's tables.

use cluster::with_pg_cron;

#[test]
fn every_sql_example_runs() {
    let cluster = with_pg_cron();
    cluster.platform();
    let readme = include_str!("../../README.md");
    let examples: Vec<&str> =
        readme.split("```sql\n").skip(1).map(|rest| rest.split("```").next().expect("an end")).collect();
    assert!(examples.len() >= 10, "the README has lost its examples");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, examples.concat()).unwrap();
    cluster.program("psql", &["-X", "-v", "ON_ERROR_STOP=1", "-f", file.path().to_str().unwrap(), "postgres"]);
}
