use crate::extension;
use crate::postgres::error::Result;
use crate::target::Target;
use crate::target::trust::{Stranger, beside_strangers, stranger};

/// The tables that foreign keys have PostgreSQL read, as their owners, when rows of the target (`$1`) go and the ledger (`$2`) gets
/// one: those that reference what is removed or updated, also behind actions of keys and behind what code of a table names, and those
/// that what is written or updated references. A partitioned table is read whole, a plain one alone. Triggers are the index of keys by the table that they reference.
/// `$3` says which: those of owners whom the owners of the target trust, or the others, who have made keys to the target of their own
/// will, and could stop each run; so could a role by code that changes what the role may change anyway (`is_strange`).
const READ_BY_KEYS: &str = beside_strangers!(
    "WITH RECURSIVE used (oid, how) AS (
        SELECT unnest($1), 'removed'
        UNION
        SELECT unnest($2), 'written'
        UNION
        SELECT i.inhrelid, used.how FROM used JOIN pg_inherits i ON i.inhparent = used.oid
    ), changed (owner, oid, how, is_strange) AS (
        SELECT relowner, oid, how, false FROM used JOIN pg_class USING (oid)
        UNION
        SELECT next.owner, next.oid, next.how, changed.is_strange OR next.is_strange
        FROM changed CROSS JOIN LATERAL (
            SELECT changed.owner, inhrelid, changed.how, false FROM pg_inherits WHERE inhparent = changed.oid
            UNION ALL
            SELECT changed.owner, f.conrelid, CASE WHEN changed.how = 'removed' AND f.confdeltype = 'c' THEN 'removed' ELSE 'updated' END, false
            FROM pg_trigger t JOIN pg_constraint f ON f.oid = t.tgconstraint
            WHERE t.tgrelid = changed.oid AND f.confrelid = changed.oid AND f.contype = 'f'
              AND CASE changed.how WHEN 'removed' THEN f.confdeltype WHEN 'updated' THEN f.confupdtype END IN ('c', 'n', 'd')
            UNION ALL
            -- Its code may change the tables that it names. The target's owners may not trust its role: then only the tables that
            -- the role may change anyway, since a rule can name any.
            SELECT wants.owner, c.oid, each.how, NOT is_trusted
            FROM pg_class made
            CROSS JOIN pg_has_role(made.relowner, changed.owner, 'USAGE') is_trusted
            CROSS JOIN LATERAL (
                WITH RECURSIVE code (class, object) AS (
                    SELECT 'pg_class'::regclass::oid, changed.oid
                    UNION
                    SELECT below.class, below.object
                    FROM code CROSS JOIN LATERAL (
                        SELECT refclassid, refobjid FROM pg_depend
                        WHERE classid = code.class AND objid = code.object
                          AND (refclassid IN ('pg_type'::regclass, 'pg_proc'::regclass, 'pg_operator'::regclass)
                               OR refclassid = 'pg_class'::regclass
                                  AND code.class IN ('pg_rewrite'::regclass, 'pg_proc'::regclass, 'pg_policy'::regclass))
                        UNION ALL
                        SELECT classid, objid FROM pg_depend
                        WHERE refclassid = code.class AND refobjid = code.object AND deptype IN ('a', 'i')
                          AND classid IN ('pg_rewrite'::regclass, 'pg_attrdef'::regclass, 'pg_constraint'::regclass,
                                          'pg_policy'::regclass, 'pg_trigger'::regclass)
                        UNION ALL
                        SELECT 'pg_class'::regclass, indexrelid FROM pg_index
                        WHERE code.class = 'pg_class'::regclass AND indrelid = code.object
                    ) below (class, object)
                    WHERE code.class <> 'pg_class'::regclass OR code.object = changed.oid
                       OR EXISTS (SELECT FROM pg_index WHERE indexrelid = code.object)
                )
                SELECT object FROM code WHERE class = 'pg_class'::regclass AND object <> changed.oid
            ) named (oid)
            JOIN pg_class c ON c.oid = named.oid AND c.relkind NOT IN ('i', 'I')
            CROSS JOIN (VALUES ('removed', 'DELETE'), ('updated', 'UPDATE'), ('written', 'INSERT')) each (how, privilege)
            CROSS JOIN LATERAL (
                SELECT changed.owner
                WHERE is_trusted OR CASE each.how WHEN 'removed' THEN has_table_privilege(made.relowner, c.oid, each.privilege)
                                    ELSE has_any_column_privilege(made.relowner, c.oid, each.privilege) END
                UNION ALL
                SELECT c.relowner WHERE is_trusted
            ) wants (owner)
            WHERE made.oid = changed.oid
        ) next (owner, oid, how, is_strange)
    ), read (oid, is_trusted, types) AS (
        SELECT f.conrelid, NOT is_strange AND pg_has_role(c.relowner, changed.owner, 'USAGE'),
               -- A value that the key sets meets the CHECKs of a domain.
               CASE WHEN CASE changed.how WHEN 'removed' THEN f.confdeltype ELSE f.confupdtype END IN ('n', 'd')
                         OR changed.how = 'updated' AND f.confupdtype = 'c'
                    THEN 'd' ELSE '' END
        FROM changed
        JOIN pg_trigger t ON t.tgrelid = changed.oid
        JOIN pg_constraint f ON f.oid = t.tgconstraint AND f.confrelid = changed.oid
        JOIN pg_class c ON c.oid = f.conrelid
        WHERE f.contype = 'f' AND changed.how <> 'written'
        UNION
        SELECT f.confrelid, NOT is_strange AND pg_has_role(c.relowner, changed.owner, 'USAGE'), ''
        FROM changed JOIN pg_constraint f ON f.conrelid = changed.oid JOIN pg_class c ON c.oid = f.conrelid
        WHERE f.contype = 'f' AND changed.how <> 'removed'
    )
    SELECT c.relowner, array_agg(DISTINCT c.oid), c.relkind = 'p', read.types
    FROM read JOIN pg_class c USING (oid)
    GROUP BY c.relowner, c.relkind = 'p', read.types, read.is_trusted
    HAVING read.is_trusted = $3"
);

impl Target {
    /// Refuses a run that would have PostgreSQL check foreign keys with code that the owner of the table with the key does not trust,
    /// where that is somebody whom the target's owners trust. Errors: 42501.
    pub fn keys_are_trusted(&self) -> Result<()> {
        self.stranger_by_keys(true)?.map_or(Ok(()), |stranger| Err(stranger.refusal()))
    }

    /// What runs as an owner of another table than the target's, whom the target's owners do not trust.
    pub fn strange_keys(&self) -> Result<Option<String>> {
        Ok(self.stranger_by_keys(false)?.map(|stranger| stranger.message()))
    }

    fn stranger_by_keys(&self, is_trusted: bool) -> Result<Option<Stranger>> {
        let ledger: Vec<_> = self.ledger.iter().map(|ledger| ledger.table.oid).collect();
        let arguments = [vec![self.table.oid].into(), ledger.into(), is_trusted.into()];
        extension::as_owner(|| stranger(READ_BY_KEYS, &arguments, &[]))
    }
}
