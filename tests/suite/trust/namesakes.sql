-- Namesakes of evil's for nearly all that pg_catalog has, in a schema that search paths name first. Each fails for everybody else.
CREATE SCHEMA trap AUTHORIZATION evil;
GRANT USAGE ON SCHEMA trap TO PUBLIC;
SET ROLE evil;
CREATE FUNCTION trap.tell(what text) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF current_user <> 'evil' THEN
        PERFORM nextval('public.ran');
        RAISE EXCEPTION 'a namesake of % is found', what;
    END IF;
    RETURN true;
END
$$;
DO $$
DECLARE
    namesake text;
BEGIN
    FOR namesake IN
        WITH type AS (
            SELECT t.oid, format('pg_catalog.%I', typname) AS name
            FROM pg_type t WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype <> 'p'),
        operator AS (
            SELECT row_number() OVER () AS number, oprname, l.name AS l, r.name AS r, result.name AS result
            FROM pg_operator JOIN type l ON l.oid = oprleft JOIN type r ON r.oid = oprright JOIN type result ON result.oid = oprresult
            WHERE oprnamespace = 'pg_catalog'::regnamespace),
        function AS (
            SELECT proname, string_agg(type.name, ', ' ORDER BY place) AS arguments, string_agg('$' || place, ', ' ORDER BY place) AS given,
                   result.name AS result
            FROM pg_proc p JOIN type result ON result.oid = prorettype
                 LEFT JOIN unnest(proargtypes) WITH ORDINALITY argument (oid, place) ON true LEFT JOIN type ON type.oid = argument.oid
            WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' AND NOT proretset AND provariadic = 0
            GROUP BY p.oid, result.name HAVING count(argument.oid) = count(type.oid))
        SELECT format('CREATE FUNCTION trap.op_%s(%s, %s) RETURNS %s LANGUAGE plpgsql
                       AS $f$BEGIN PERFORM trap.tell(%L); RETURN $1 OPERATOR(pg_catalog.%s) $2; END$f$',
                      number, l, r, result, format('%s(%s, %s)', oprname, l, r), oprname) FROM operator
        UNION ALL
        SELECT format('CREATE OPERATOR trap.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = trap.op_%s)', oprname, l, r, number) FROM operator
        UNION ALL
        SELECT format('CREATE FUNCTION trap.%I(%s) RETURNS %s LANGUAGE plpgsql AS $f$BEGIN PERFORM trap.tell(%L); RETURN pg_catalog.%I(%s); END$f$',
                      proname, arguments, result, proname, proname, given) FROM function
        UNION ALL
        SELECT format('CREATE DOMAIN trap.%I AS pg_catalog.%1$I CHECK (trap.tell(%L))', typname, typname)
        FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype = 'b' AND typelem = 0 AND typname !~ '^_'
        UNION ALL
        SELECT format('CREATE VIEW trap.%I AS SELECT * FROM pg_catalog.%1$I WHERE trap.tell(%L)', relname, relname)
        FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('r', 'v')
    LOOP
        BEGIN
            EXECUTE namesake;
        EXCEPTION WHEN OTHERS THEN -- what PostgreSQL allows nobody to make
        END;
    END LOOP;
END
$$;
GRANT SELECT ON ALL TABLES IN SCHEMA trap TO PUBLIC;
RESET ROLE;
