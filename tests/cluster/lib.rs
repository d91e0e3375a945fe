//! A throwaway PostgreSQL server per test: its own directory, its own socket, never root, gone at the end.

mod cluster;
mod fixtures;
mod installed;
mod nodes;
mod pages;
mod rows;
mod shared;
mod wait;

pub use cluster::{Cluster, PG_CRON, pg_config};
pub use fixtures::{
    JOBS, SEE, create_index, fail, fail_in_any_order, finding, findings, findings_of, genuine_errors, last_state,
    own_by, platform_of, start_run, veto, with_pg_cron,
};
pub use nodes::Nodes;
pub use pages::Page;
pub use rows::{balance, column, number, numbers, refused, truth, value};
pub use wait::{until, until_holds, until_true};
