use crate::doctor::job::remark;
use crate::extension;
use crate::obstacles::problem::{Problem, problems};
use crate::postgres::error::Result;
use crate::postgres::read::read_one;

const FAILING: &str = "
    (SELECT 'fail', format('channel \"%s\" takes no alerts, since %s UTC: %s', name,
                           to_char(failing_since AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'), left(last_error, 1000)), NULL
     FROM backlog_cleanup.alert_channel WHERE failures >= 3 ORDER BY failing_since, name LIMIT 50)
    UNION ALL
    (SELECT 'warn', format('no server has served channel \"%s\" since %s UTC: start backlog-cleanup serve, or forget the channel', name,
                          to_char(seen_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')),
           format('DELETE FROM backlog_cleanup.alert_channel WHERE name = %L', name)
     FROM backlog_cleanup.alert_channel WHERE seen_at NOT BETWEEN now() - interval '10 minutes' AND now() + interval '1 minute' ORDER BY seen_at, name LIMIT 50)
    UNION ALL
    (SELECT 'warn', format('channel \"%s\": %s', name, left(last_error, 1000)), NULL
     FROM backlog_cleanup.alert_channel WHERE failures = 0 AND last_error IS NOT NULL ORDER BY name LIMIT 50)
    UNION ALL
    (SELECT 'warn', format('channel \"%s\" has refused %s of an alert that is open, or of the last day: %s', channel,
                          CASE count(DISTINCT message) WHEN 1 THEN 'a message' ELSE count(DISTINCT message) || ' messages' END, max(left(refused, 1000))),
           NULL
     FROM backlog_cleanup.alert_delivery d JOIN backlog_cleanup.alert a ON a.id = d.alert
     WHERE refused IS NOT NULL AND (begun_at > now() - interval '1 day' OR a.resolved_at IS NULL)
     GROUP BY channel ORDER BY channel LIMIT 50)";

/// Finds channels of alerts that take nothing, that no server serves any more, or that have refused a message: of each 50.
pub fn deliveries(_target: &str) -> Result<Vec<Problem>> {
    // Until ALTER EXTENSION UPDATE there are none.
    const HAS_CHANNELS: &str = "SELECT EXISTS (SELECT FROM backlog_cleanup.alert_channel)";
    let none = "no server delivers alerts: backlog-cleanup serve --channels FILE does";
    match extension::is_updated()? && extension::as_owner(|| read_one::<bool>(HAS_CHANNELS, &[]))? == Some(true) {
        true => problems(FAILING, &[]),
        false => remark(none),
    }
}
