use crate::extension;
use crate::postgres::error::Result;
use crate::postgres::read::read_one;

pub fn database() -> Result<String> {
    read_one::<String>("SELECT pg_catalog.current_database()::pg_catalog.text", &[]).map(Option::unwrap_or_default)
}

/// A setting that only superusers may read.
pub fn setting(name: &str) -> Result<Option<String>> {
    extension::as_owner(|| read_one::<String>("SELECT pg_catalog.current_setting($1, true)", &[name.into()]))
}

/// The one database that has the jobs of all databases.
fn pg_cron_home() -> Result<Option<String>> {
    setting("cron.database_name")
}

/// pg_cron's database, if it is another one than this.
pub fn pg_cron_elsewhere() -> Result<Option<String>> {
    let here = database()?;
    Ok(pg_cron_home()?.filter(|home| *home != here))
}

/// Whether pg_cron is installed in this database, and not left over from before `cron.database_name` changed.
pub fn pg_cron_is_here() -> Result<bool> {
    let is_installed = read_one::<bool>(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) 'pg_cron')",
        &[],
    )?;
    Ok(is_installed == Some(true) && pg_cron_elsewhere()?.is_none())
}
