-- The tables: those of `app` with children of its own and of `victim`, a ledger of `bank`, and a table that is no target's.
CREATE SCHEMA app AUTHORIZATION app;
CREATE SCHEMA adm AUTHORIZATION adm;
CREATE SCHEMA op AUTHORIZATION op;
CREATE SCHEMA mon AUTHORIZATION mon;
CREATE SCHEMA victim AUTHORIZATION victim;
GRANT USAGE ON SCHEMA app, adm, op, mon, victim, public TO PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'plperl') THEN CREATE EXTENSION plperl; END IF;
END $$;

-- Counts calls, rolled back or not, and reports a call as a role other than the owner.
CREATE SEQUENCE public.ran;
CREATE SEQUENCE public.escaped;
CREATE TABLE public.escape (code name, who name);
GRANT USAGE ON SEQUENCE public.ran, public.escaped TO PUBLIC;
GRANT INSERT ON public.escape TO PUBLIC;
CREATE FUNCTION public.witness(owner name) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF current_user <> owner THEN
        RAISE WARNING 'ESCAPE: code of % runs as %', owner, current_user;
        PERFORM nextval('public.escaped');
        INSERT INTO public.escape VALUES (owner, current_user);
    ELSIF NOT current_setting('transaction_read_only')::boolean THEN
        PERFORM nextval('public.ran');
    END IF;
END $$;

-- What each of them would have a superuser run.
DO $$
DECLARE
    hostile name;
BEGIN
    FOREACH hostile IN ARRAY '{app,adm,op,mon}'::name[] LOOP
        EXECUTE format($f$
            CREATE FUNCTION %1$I.payload() RETURNS integer LANGUAGE plpgsql AS $p$
            BEGIN
                PERFORM public.witness(%1$L);
                IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) current_user) THEN
                    ALTER ROLE %1$I SUPERUSER;
                END IF;
                RETURN 1;
            END $p$;
            ALTER FUNCTION %1$I.payload() OWNER TO %1$I$f$, hostile);
    END LOOP;
END $$;

ALTER TABLE generations OWNER TO app;
ALTER TABLE recipes OWNER TO app;
ALTER TABLE users OWNER TO app;
ALTER TABLE credit_transactions OWNER TO bank;
INSERT INTO recipes (id, name, slug, description, prompt, category, credit_cost)
SELECT i, 'recipe ' || i, 'slug ' || i, '', '', '', 1 FROM generate_series(1, 3) i;
CREATE TABLE app.leaf1 () INHERITS (generations);
CREATE TABLE app.leaf2 () INHERITS (generations);
ALTER TABLE app.leaf1 OWNER TO app;
ALTER TABLE app.leaf2 OWNER TO app;
CREATE VIEW app.recipes AS SELECT id, name FROM recipes;
CREATE VIEW app.users AS SELECT id FROM users;
CREATE FUNCTION app.throttle() RETURNS text LANGUAGE sql AS 'SELECT NULL::text';
ALTER VIEW app.recipes OWNER TO app;
ALTER VIEW app.users OWNER TO app;
ALTER FUNCTION app.throttle() OWNER TO app;
CREATE TABLE app.audit_log (x integer);
ALTER TABLE app.audit_log OWNER TO app;
CREATE TABLE app.parent (id integer PRIMARY KEY);
CREATE TABLE app.later (id integer REFERENCES app.parent DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE app.parent OWNER TO app;
ALTER TABLE app.later OWNER TO app;

CREATE TYPE app.mood AS ENUM ('failed', 'completed', 'pending', 'processing');
ALTER TYPE app.mood OWNER TO app;
CREATE DOMAIN app.st AS text;
ALTER DOMAIN app.st OWNER TO app;
CREATE TABLE app.job (id integer, user_id text, recipe_id app.mood, status app.st, updated_at timestamptz, failure_reason text);
CREATE TABLE app.job_0 () INHERITS (app.job);
ALTER TABLE app.job OWNER TO app;
ALTER TABLE app.job_0 OWNER TO app;

-- A target whose child belongs to somebody else; `app` owns no type in it.
CREATE TABLE app.task (id integer, user_id text, recipe_id integer, status text, updated_at timestamptz, failure_reason text);
CREATE TABLE victim.task () INHERITS (app.task);
ALTER TABLE app.task OWNER TO app;
ALTER TABLE victim.task OWNER TO victim;
CREATE TABLE victim.treasure (LIKE app.task);
ALTER TABLE victim.treasure OWNER TO victim;
CREATE TABLE adm.jobs (LIKE app.task);
ALTER TABLE adm.jobs OWNER TO adm;

INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table)
VALUES ('job', 'app.job', NULL, NULL), ('task', 'app.task', 'app.recipes', NULL);
UPDATE backlog_cleanup.target SET lock_timeout = '200 milliseconds';
UPDATE backlog_cleanup.target SET recipes_table = 'app.recipes', users_table = 'app.users',
    throttle_query = 'SELECT app.throttle()' WHERE name = 'generations';
UPDATE backlog_cleanup.policy SET keep = 3;
SELECT backlog_cleanup_grant('adm', 'admin'), backlog_cleanup_grant('op', 'operator'), backlog_cleanup_grant('mon', 'monitor');

-- Rows of recipe 99 are for the owner's own code.
CREATE FUNCTION app.fill() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    leaf text;
BEGIN
    FOREACH leaf IN ARRAY '{public.generations,app.leaf1,app.leaf2}'::text[] LOOP
        EXECUTE pg_catalog.format($f$
            INSERT INTO %s (user_id, recipe_id, prompt, status, updated_at)
            SELECT CASE WHEN i %% 9 = 0 THEN 'somebody' ELSE 'system_backlog' END,
                   CASE WHEN i %% 10 = 0 THEN 99 ELSE i %% 3 END, '',
                   CASE WHEN i %% 5 = 0 THEN 'completed' ELSE 'failed' END,
                   now() AT TIME ZONE 'UTC' - CASE WHEN i %% 4 = 0 THEN interval '0' ELSE interval '2 days' END
                                            - interval '1 second' * i
            FROM generate_series(1, 40) i$f$, leaf);
    END LOOP;
END $$;
ALTER FUNCTION app.fill() OWNER TO app;
SELECT app.fill();
DO $$
DECLARE
    leaf text;
    first integer := 0;
BEGIN
    FOREACH leaf IN ARRAY '{app.job,app.job_0,app.task,victim.task,victim.treasure,adm.jobs}'::text[] LOOP
        EXECUTE format($f$
            INSERT INTO %s (id, user_id, status, updated_at)
            SELECT i + %s, CASE WHEN i %% 9 = 0 THEN 'somebody' ELSE 'system_backlog' END,
                   CASE WHEN i %% 5 = 0 THEN 'completed' ELSE 'failed' END,
                   now() - CASE WHEN i %% 4 = 0 THEN interval '0' ELSE interval '2 days' END - interval '1 second' * i
            FROM generate_series(1, 40) i$f$, leaf, first);
        first := first + 100;
    END LOOP;
END $$;
SELECT lo_from_bytea(7, 'left'), lo_from_bytea(8, 'secret');
ALTER LARGE OBJECT 7 OWNER TO app;
