use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::extension;
use crate::postgres::error::Result;
use crate::postgres::now::one_now;
use crate::schedule::auto;
use crate::target::row::row;

/// Says in sentences what the last tick has decided about a target, and why, and where its job is that follows the quietest hour. Reads only. Errors: 22004, 42704 (unknown target).
#[pg_extern(stable)]
fn backlog_cleanup_explain_tick(target: default!(Option<&str>, "'generations'")) -> Result<String> {
    const SAID: &str = "
        SELECT concat_ws('; ',
                   CASE WHEN NOT t.adaptive
                        THEN format('no tick decides about target \"%s\": it is not adaptive; UPDATE backlog_cleanup.target SET adaptive = true WHERE name = %L',
                                    t.name, t.name)
                        WHEN d.id IS NULL THEN format('no tick has decided about target \"%s\" yet', t.name)
                        ELSE format('tick %s, at %s: %s, since %s', d.tick, to_char(d.decided_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI UTC'),
                                    CASE d.action WHEN 'run' THEN 'a run was started' WHEN 'slow' THEN 'the run goes on slower'
                                                  WHEN 'resume' THEN 'the run goes on at its own pace' ELSE 'nothing was done' END,
                                    d.reason) END,
                   $2, m.said)
        FROM backlog_cleanup.target t
        LEFT JOIN LATERAL (SELECT * FROM backlog_cleanup.decision WHERE target = t.name AND action <> 'move' ORDER BY id DESC LIMIT 1) d ON true
        LEFT JOIN LATERAL (SELECT format('tick %s, at %s: %s', tick, to_char(decided_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI UTC'), reason) AS said
                           FROM backlog_cleanup.decision WHERE target = t.name AND action = 'move' AND $2 IS NOT NULL ORDER BY id DESC LIMIT 1) m ON true
        WHERE t.name = $1";
    let target = row(target)?;
    let jobs = auto::all()?.into_iter().filter(|job| job.is_there && job.target == target.name).map(|job| {
        let place = match job.is_known {
            true => "the quietest hour or on its way there",
            false => "until the samples tell the quietest hour",
        };
        format!("job {} is at {:02}:00 ({}), {place}", job.id, job.hour, target.time_zone)
    });
    let jobs = Some(jobs.collect::<Vec<_>>().join("; ")).filter(|jobs| !jobs.is_empty());
    let arguments = [target.name.as_str().into(), jobs.into()];
    let said = extension::as_owner(|| one_now::<String>(SAID, &arguments))?;
    Ok(said.unwrap_or_else(|| format!("target {} does not exist", quote_literal(&target.name))))
}
