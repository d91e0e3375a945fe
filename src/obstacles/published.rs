use crate::obstacles::problem::{Problem, problems};
use crate::obstacles::used::on_changed;
use crate::postgres::error::Result;
use crate::target::Target;

/// The publications that publish what happens to a table (`c`), also by one of its partitioned tables or its schema.
const PUBLISHED: &str = "
    SELECT c.oid, c.relreplident, array_agg(DISTINCT CASE WHEN is_removed THEN 'deletes' ELSE 'updates' END) AS what,
           array_agg(DISTINCT p.oid) AS publications, min(quote_ident(p.pubname)) AS publication
    FROM changed JOIN pg_class c USING (oid)
    JOIN pg_publication p ON CASE WHEN is_removed THEN p.pubdelete ELSE p.pubupdate END
    WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND c.oid >= 16384 -- FirstNormalObjectId
      AND (p.puballtables
           OR EXISTS (SELECT FROM pg_publication_rel WHERE prpubid = p.oid
                        AND (prrelid = c.oid OR prrelid IN (SELECT relid FROM pg_partition_ancestors(c.oid))))
           OR EXISTS (SELECT FROM pg_publication_namespace n JOIN pg_class r ON r.relnamespace = n.pnnspid
                      WHERE n.pnpubid = p.oid
                        AND (r.oid = c.oid OR r.oid IN (SELECT relid FROM pg_partition_ancestors(c.oid)))))
    GROUP BY 1, 2";

const IDENTITY: &str = "
    SELECT 'fail', format('%s has no replica identity, and publication %s publishes its %s: PostgreSQL refuses them',
                          t.oid::regclass, publication, array_to_string(what, ' and ')),
           CASE WHEN EXISTS (SELECT FROM pg_index WHERE indrelid = t.oid AND indisprimary AND indisvalid AND indimmediate)
                THEN format('ALTER TABLE %s REPLICA IDENTITY DEFAULT', t.oid::regclass)
                ELSE coalesce((
                    SELECT format('ALTER TABLE %s REPLICA IDENTITY USING INDEX %I', t.oid::regclass, min(x.relname))
                    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
                    WHERE i.indrelid = t.oid AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
                      AND NOT EXISTS (SELECT FROM unnest(i.indkey::int2[]) k (number)
                                      LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.number
                                      WHERE a.attnotnull IS NOT TRUE)
                    HAVING count(*) > 0), format('ALTER TABLE %s REPLICA IDENTITY FULL', t.oid::regclass)) END
    FROM published t
    WHERE relreplident <> 'f'
      AND NOT EXISTS (SELECT FROM pg_index
                      WHERE indrelid = t.oid AND indisvalid AND indimmediate
                        AND CASE relreplident WHEN 'd' THEN indisprimary WHEN 'i' THEN indisreplident END)
    ORDER BY 2";

/// A row filter may read the columns of the replica identity only, and a column list must have all of them. The dependencies of
/// one that has both do not tell them apart.
const FILTERS: &str = "
    SELECT 'fail', format('publication %I publishes %s of %s, but its %s does not fit the replica identity: decide which is to change',
                          p.pubname, array_to_string(what, ' and '), t.oid::regclass,
                          CASE WHEN r.prattrs IS NULL THEN 'WHERE clause' ELSE 'column list' END), NULL
    FROM published t
    JOIN pg_publication_rel r ON r.prpubid = ANY (publications)
     AND (r.prrelid = t.oid OR r.prrelid IN (SELECT relid FROM pg_partition_ancestors(t.oid)))
    JOIN pg_publication p ON p.oid = r.prpubid
    CROSS JOIN LATERAL (
        SELECT array_agg(a.attname) FROM pg_attribute a
        WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
          AND (relreplident = 'f'
               OR a.attnum IN (SELECT unnest(indkey::int2[]) FROM pg_index
                               WHERE indrelid = t.oid AND CASE relreplident WHEN 'd' THEN indisprimary ELSE indisreplident END))
    ) identity (columns)
    WHERE identity.columns IS NOT NULL AND CASE
        WHEN r.prattrs IS NOT NULL THEN relreplident = 'f' OR NOT identity.columns <@ ARRAY(
            SELECT a.attname FROM pg_attribute a WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs::int2[]))
        WHEN r.prqual IS NOT NULL THEN EXISTS (
            SELECT FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
            WHERE d.classid = 'pg_publication_rel'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
              AND d.refobjsubid > 0 AND NOT a.attname = ANY (identity.columns)) END
    ORDER BY 2";

/// Finds tables whose deletes or updates are published, without a replica identity that allows it: each DELETE is an error.
pub fn replica_identity(target: &Target) -> Result<Vec<Problem>> {
    let mut found = Vec::new();
    for statement in [IDENTITY, FILTERS] {
        let published = format!(", published AS ({PUBLISHED}) {statement}");
        found.extend(problems(&on_changed(&published), &[vec![target.table.oid].into()])?);
    }
    Ok(found)
}
