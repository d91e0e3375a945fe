/// `type`: the types `$1` and those below them, as of domains, arrays, row types and ranges.
macro_rules! types_below {
    () => {
        "WITH RECURSIVE type (oid) AS (
             SELECT oid FROM pg_catalog.unnest($1) AS oid
             UNION
             SELECT below.oid FROM type JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) type.oid,
                                   LATERAL (SELECT pg_catalog.unnest(ARRAY[t.typbasetype, t.typelem])
                                            UNION ALL
                                            SELECT a.atttypid FROM pg_catalog.pg_attribute a
                                            WHERE a.attrelid OPERATOR(pg_catalog.=) t.typrelid AND a.attnum OPERATOR(pg_catalog.>) 0::pg_catalog.int2
                                            UNION ALL
                                            SELECT CASE WHEN r.rngtypid OPERATOR(pg_catalog.=) t.oid THEN r.rngsubtype ELSE r.rngtypid END
                                            FROM pg_catalog.pg_range r
                                            WHERE t.oid OPERATOR(pg_catalog.=) ANY (ARRAY[r.rngtypid, r.rngmultitypid])) AS below (oid)
             WHERE below.oid OPERATOR(pg_catalog.<>) '0'::pg_catalog.oid)
         "
    };
}
pub(crate) use types_below;
