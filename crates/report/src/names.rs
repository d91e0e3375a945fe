/// The target that is there from the start.
pub const DEFAULT_TARGET: &str = "generations";

/// When a job runs unless it is told otherwise: every night at two, UTC.
pub const DEFAULT_SCHEDULE: &str = "0 2 * * *";

/// The job of the default target.
pub const DEFAULT_JOB: &str = "backlog-cleanup-daily";

/// The job that ticks, and how often unless it is told otherwise: every five minutes.
pub const TICK_JOB: &str = "backlog-cleanup-tick";
pub const TICK_SCHEDULE: &str = "*/5 * * * *";

/// Bytes of a job's name that pg_cron stores.
const LONGEST: usize = 63;

/// Names the job of a target. A name that pg_cron would not store whole, or that is the default target's, that of the
/// tick or one of another database, ends in a hash of the target's name instead.
pub fn job_name(target: &str) -> String {
    if target == DEFAULT_TARGET {
        return DEFAULT_JOB.to_owned();
    }
    let name = format!("backlog-cleanup-{target}");
    if name.len() <= LONGEST && name != DEFAULT_JOB && name != TICK_JOB && !target.contains('@') {
        return name;
    }
    hashed(&name, target)
}

/// Names a job for a database other than pg_cron's, which has the jobs of all databases under names of their own.
pub fn job_name_in(database: &str, job_name: &str) -> String {
    let suffix = format!("@{database}");
    let name = if job_name.ends_with(&suffix) { job_name.to_owned() } else { format!("{job_name}{suffix}") };
    if name.len() <= LONGEST { name } else { hashed(&name, &name) }
}

/// Ends a name in a hash, cut so that pg_cron stores it whole.
fn hashed(name: &str, of: &str) -> String {
    let hash = format!("-{:08x}", fnv_1a(of));
    let end = name.floor_char_boundary(LONGEST - hash.len());
    format!("{}{hash}", &name[..end])
}

/// FNV-1a, 32 bits: the same in every version and on every machine.
fn fnv_1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::{fnv_1a, job_name, job_name_in};

    #[test]
    fn a_target_has_a_job_of_its_own_whose_name_pg_cron_stores() {
        let (a, b, c) = ("a".repeat(47), "b".repeat(48), "c".repeat(100));
        assert_eq!(job_name("generations"), "backlog-cleanup-daily");
        assert_eq!(job_name("second"), "backlog-cleanup-second");
        assert_eq!(job_name("daily"), format!("backlog-cleanup-daily-{:08x}", fnv_1a("daily")));
        assert_eq!(job_name("tick"), format!("backlog-cleanup-tick-{:08x}", fnv_1a("tick")));
        assert_eq!(job_name(&a), format!("backlog-cleanup-{a}"));
        assert_eq!(job_name(&b), format!("backlog-cleanup-{}-{:08x}", &b[..38], fnv_1a(&b)));
        assert_eq!(job_name(&c).len(), 63);
        assert_ne!(job_name(&c), job_name(&format!("{c}c")));
        // Two bytes a character: the cut is between two of them.
        let umlauts = "ü".repeat(40);
        assert_eq!(job_name(&umlauts), format!("backlog-cleanup-{}-{:08x}", "ü".repeat(19), fnv_1a(&umlauts)));
    }

    #[test]
    fn each_database_has_jobs_of_its_own() {
        assert_eq!(job_name_in("shop", "backlog-cleanup-daily"), "backlog-cleanup-daily@shop");
        assert_eq!(job_name_in("shop", "backlog-cleanup-daily@shop"), "backlog-cleanup-daily@shop");
        assert_ne!(job_name_in("b", "backlog-cleanup-a"), job_name("a@b"));
        let long = "d".repeat(63);
        let name = job_name_in(&long, "backlog-cleanup-daily");
        assert_eq!(name.len(), 63);
        assert_ne!(name, job_name_in(&format!("{}e", &long[1..]), "backlog-cleanup-daily"));
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!([fnv_1a(""), fnv_1a("a"), fnv_1a("foobar")], [0x811c_9dc5, 0xe40c_292c, 0xbf9c_f968]);
    }
}
