-- The platform's tables, and code of every kind that hangs on them and is nobody's but their owners'.
CREATE ROLE regress_of_generations;
CREATE ROLE regress_of_leaf;
CREATE ROLE regress_of_recipes;
CREATE ROLE regress_of_users;
CREATE ROLE regress_of_ledger;

-- What ran, and as whom. A function that claims to be immutable may run in the planner and in parallel workers, where it
-- can write nothing: it fails where it runs as anybody else.
ALTER DATABASE :"DBNAME" SET regress.is_set_up = 'yes';
CREATE TABLE seen (place text, who name);
GRANT INSERT ON seen TO PUBLIC;
CREATE FUNCTION see(place text) RETURNS boolean LANGUAGE sql AS
    'INSERT INTO public.seen VALUES (place, current_user) RETURNING true';
-- What reads is rolled back: it can only say that it ran.
CREATE FUNCTION see_reading(place text) RETURNS boolean LANGUAGE plpgsql AS
    'BEGIN RAISE WARNING ''% is read as %'', place, current_user; RETURN true; END';
CREATE FUNCTION code_of(VARIADIC owners name[]) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    BEGIN
        IF current_user <> ALL (owners) AND current_setting('regress.is_set_up', true) = 'yes' THEN RAISE EXCEPTION 'code of % runs as %', owners, current_user; END IF;
        RETURN true;
    END $$;
CREATE FUNCTION see_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM public.see(concat(TG_TABLE_NAME, ' ', TG_NAME));
        -- What would reach further than the statement is refused in a security-restricted operation.
        BEGIN
            SET LOCAL ROLE postgres;
            PERFORM public.see('SET ROLE');
        EXCEPTION WHEN insufficient_privilege THEN
        END;
        BEGIN
            CREATE TEMP TABLE kept (x integer);
            PERFORM public.see('CREATE TEMP TABLE');
        EXCEPTION WHEN insufficient_privilege THEN
        END;
        PERFORM set_config('search_path', 'seen_by_nobody', false), set_config('row_security', 'on', false),
                set_config('lock_timeout', '1', false);
        RETURN CASE WHEN TG_WHEN = 'BEFORE' THEN coalesce(OLD, NEW) END;
    END $$;

-- The table of attempts: partitions, one of which belongs to somebody else; domains, an enum with a cast, a generated
-- column, indexes on expressions with predicates, policies, triggers of every kind, a rule.
CREATE DOMAIN name_of_mine AS text CHECK (public.code_of('regress_of_generations', 'regress_of_leaf') AND VALUE <> 'no such');
CREATE TYPE mood AS ENUM ('failed', 'completed', 'pending', 'processing');
CREATE FUNCTION mood(mood) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
    $$ SELECT CASE WHEN public.code_of('regress_of_generations', 'regress_of_leaf') THEN 'm' END $$;
CREATE CAST (mood AS text) WITH FUNCTION mood(mood);
CREATE TABLE job (
    "id"";DROP TABLE seen; --" name_of_mine NOT NULL,
    user_id    name_of_mine NOT NULL,
    recipe     mood,
    status     mood NOT NULL,
    updated_at timestamptz NOT NULL,
    failure_reason text,
    part       integer NOT NULL,
    doubled    integer GENERATED ALWAYS AS (part * 2) STORED
) PARTITION BY LIST (part);
CREATE TABLE job_0 PARTITION OF job FOR VALUES IN (0);
CREATE TABLE job_1 PARTITION OF job FOR VALUES IN (1);
CREATE INDEX ON job_0 ((code_of('regress_of_generations'))) WHERE code_of('regress_of_generations');
CREATE INDEX ON job_1 ((code_of('regress_of_leaf'))) WHERE code_of('regress_of_leaf');
ALTER TABLE job_1 ADD CHECK (code_of('regress_of_leaf') AND part = 1);
CREATE TRIGGER before BEFORE DELETE ON job FOR EACH ROW EXECUTE FUNCTION see_trigger();
CREATE TRIGGER after AFTER DELETE ON job_0 FOR EACH STATEMENT EXECUTE FUNCTION see_trigger();
CREATE CONSTRAINT TRIGGER deferred AFTER DELETE ON job DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION see_trigger();
CREATE RULE also AS ON DELETE TO job_0 DO ALSO SELECT see('job_0 rule');
CREATE POLICY mine ON job_1 USING (see('job_1 policy'));
ALTER TABLE job_1 ENABLE ROW LEVEL SECURITY;
-- Who looks at users and recipes looks at views.
CREATE VIEW seen_recipes AS SELECT 'm'::text AS id, 'Moody'::text AS name WHERE see_reading('seen_recipes');
CREATE VIEW seen_users AS SELECT id FROM users WHERE see_reading('seen_users');
ALTER TABLE users OWNER TO regress_of_users;
ALTER TABLE seen_users OWNER TO regress_of_users;
ALTER TABLE seen_recipes OWNER TO regress_of_recipes;
-- The ledger: a trigger, a default, a check.
ALTER TABLE credit_transactions ADD seen boolean DEFAULT see('ledger default'), ADD CHECK (see('ledger check'));
CREATE TRIGGER before BEFORE INSERT ON credit_transactions FOR EACH ROW EXECUTE FUNCTION see_trigger();
CREATE CONSTRAINT TRIGGER deferred AFTER INSERT ON credit_transactions DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION see_trigger();
ALTER TABLE credit_transactions OWNER TO regress_of_ledger;
ALTER SEQUENCE credit_transactions_id_seq OWNER TO regress_of_ledger;
ALTER TABLE job OWNER TO regress_of_generations;
ALTER TABLE job_0 OWNER TO regress_of_generations;
ALTER TABLE job_1 OWNER TO regress_of_leaf;

-- Hostile namesakes of what our own statements use, before pg_catalog in the caller's search path.
DO $$
DECLARE
    op text;
    of text;
BEGIN
    FOREACH of IN ARRAY '{text,varchar,integer,bigint,oid,timestamp,timestamptz,interval,jsonb,name,mood}'::text[] LOOP
        EXECUTE format('CREATE FUNCTION trap(%s, %1$s) RETURNS boolean LANGUAGE plpgsql AS ''BEGIN RAISE ''''captured''''; END''', of);
        FOREACH op IN ARRAY '{=,<>,<,>,<=,>=,-,+,||}'::text[] LOOP
            EXECUTE format('CREATE OPERATOR public.%s (LEFTARG = %s, RIGHTARG = %2$s, FUNCTION = public.trap)', op, of);
        END LOOP;
    END LOOP;
END $$;
CREATE FUNCTION now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'captured'; END $$;
CREATE FUNCTION unnest(anyarray) RETURNS SETOF anyelement LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'captured'; END $$;
CREATE FUNCTION timezone(text, timestamptz) RETURNS timestamp LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'captured'; END $$;
CREATE FUNCTION to_regclass(text) RETURNS regclass LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'captured'; END $$;
CREATE FUNCTION hashtext(text) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'captured'; END $$;
CREATE AGGREGATE count(*) (SFUNC = int8inc, STYPE = int8, INITCOND = '1000000');

SET client_min_messages = error;
CREATE EXTENSION backlog_cleanup;
SET client_min_messages = warning;
INSERT INTO backlog_cleanup.target
    (name, generations_table, recipes_table, users_table, id_column, recipe_column)
VALUES ('job', 'public.job', 'public.seen_recipes', 'public.seen_users', 'id";DROP TABLE seen; --', 'recipe');
UPDATE backlog_cleanup.policy SET keep = 3 WHERE target = 'job';
CREATE PROCEDURE fill() LANGUAGE sql
SET search_path = pg_catalog, public SET regress.is_set_up = no AS $$
    TRUNCATE job;
    INSERT INTO job SELECT pg_catalog.concat('id ', i), 'system_backlog', (ARRAY['failed', NULL, 'pending'])[i % 3 OPERATOR(pg_catalog.+) 1]::mood, 'failed',
                           now() OPERATOR(pg_catalog.-) make_interval(days => 2, secs => i), NULL, i % 2
                    FROM generate_series(1, 200) i;
    TRUNCATE seen;
$$;
GRANT ALL ON job, job_0, job_1 TO regress_of_generations, regress_of_leaf;
-- What ran, and as whom.
CREATE VIEW ran AS
SELECT DISTINCT place COLLATE "C" AS place, who FROM public.seen;
