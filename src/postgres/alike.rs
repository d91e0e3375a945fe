use std::cell::{OnceCell, RefCell};
use std::ffi::CStr;

use pgrx::JsonB;
use pgrx::prelude::*;

use crate::postgres::acting::acting_as;
use crate::postgres::error::Result;
use crate::postgres::read::read_one;
use crate::postgres::settings::{accepts, record, reset_local, set_local};

/// What code of a table can depend on, each with the value that PostgreSQL has without a configuration.
const SETTINGS: [(&CStr, &str); 8] = [
    (c"TimeZone", "GMT"),
    (c"DateStyle", "ISO, MDY"),
    (c"default_text_search_config", "pg_catalog.simple"),
    (c"xmloption", "content"),
    (c"xmlbinary", "base64"),
    (c"lc_time", "C"),
    (c"lc_numeric", "C"),
    (c"gin_fuzzy_search_limit", "0"),
];

type Values = [String; SETTINGS.len()];

thread_local! {
    static RECORDS: OnceCell<[*mut pg_sys::config_generic; SETTINGS.len()]> = const { OnceCell::new() };
    /// The values of the database and the server, and when their files were read.
    static VALUES: RefCell<Option<(pg_sys::TimestampTz, Values)>> = const { RefCell::new(None) };
}

/// Sets what code can depend on as the database or the server has it, whatever the session, its role or its client has set, until the
/// innermost `with_settings` ends.
pub fn see_alike() -> Result<()> {
    // SAFETY: each has a record.
    let records = RECORDS.with(|records| *records.get_or_init(|| SETTINGS.map(|(name, _)| unsafe { record(name) })));
    for (place, (name, _)) in SETTINGS.iter().enumerate() {
        let name = name.to_str().unwrap_or_default();
        // SAFETY: the records live as long as the process.
        let (source, of_reset) = unsafe { ((*records[place]).source, (*records[place]).reset_source) };
        if of_reset > pg_sys::GucSource::PGC_S_DATABASE {
            set_local(name, &values()?[place]);
        } else if source != of_reset {
            reset_local(name);
        }
    }
    // In the order that it has now.
    set_local("DateStyle", "ISO");
    Ok(())
}

/// The values of a session whose role and client set nothing. Where one of them does, PostgreSQL forgets what it would be otherwise.
fn values() -> Result<Values> {
    // SAFETY: a variable of the one thread of a backend.
    let read_at = unsafe { pg_sys::PgReloadTime };
    let known = |known: &Option<(pg_sys::TimestampTz, Values)>| {
        known.as_ref().filter(|(at, _)| *at == read_at).map(|(_, values)| values.clone())
    };
    if let Some(values) = VALUES.with_borrow(known) {
        return Ok(values);
    }
    const VALUES_NOW: &str = r#"
        SELECT jsonb_agg(jsonb_build_array(of_database.setting, of_command_line.setting, of_file.setting) ORDER BY place)
        FROM unnest($1) WITH ORDINALITY asked (name, place)
        LEFT JOIN LATERAL (
            SELECT substr(setting, strpos(setting, '=') + 1) AS setting
            FROM pg_db_role_setting JOIN unnest(setconfig) AS setting ON lower(split_part(setting, '=', 1)) = lower(asked.name)
            WHERE setrole = 0 AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
            ORDER BY setdatabase DESC LIMIT 1) of_database ON true
        LEFT JOIN LATERAL (
            SELECT found[1] AS setting
            FROM regexp_matches(pg_read_file('postmaster.opts', 0, 1000000, true),
                                format('"(?:-c|--)?%s=([^"]*)"', replace(asked.name, '_', '[-_]')), 'gi') WITH ORDINALITY option (found, place)
            ORDER BY place DESC LIMIT 1) of_command_line ON true
        LEFT JOIN LATERAL (
            -- None is applied while another line is wrong: the server keeps what it has read before.
            SELECT setting FROM pg_file_settings
            WHERE lower(name) = lower(asked.name) AND error IS NULL ORDER BY seqno DESC LIMIT 1) of_file ON true"#;
    let names: Vec<&str> = SETTINGS.iter().map(|(name, _)| name.to_str().unwrap_or_default()).collect();
    // Only a superuser may read the server's files.
    let superuser = pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID);
    let read = || read_one::<JsonB>(VALUES_NOW, &[names.clone().into()]);
    let found = acting_as(superuser, "pg_catalog, pg_temp", read)?;
    let found: Option<Vec<[Option<String>; 3]>> = found.and_then(|JsonB(found)| serde_json::from_value(found).ok());
    let found = found.unwrap_or_default();
    let values = std::array::from_fn(|place| {
        // PostgreSQL passes over what a parameter cannot have, such as a configuration that was dropped.
        let mut given = found.get(place).into_iter().flatten().flatten();
        given.find(|value| accepts(names[place], value)).cloned().unwrap_or_else(|| SETTINGS[place].1.into())
    });
    VALUES.set(Some((read_at, Values::clone(&values))));
    Ok(values)
}
