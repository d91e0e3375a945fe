-- What nobody hostile may change.
CREATE SCHEMA checker;
GRANT USAGE ON SCHEMA checker TO PUBLIC;
CREATE TABLE checker.parent (id integer PRIMARY KEY);
CREATE TABLE checker.child (id integer REFERENCES checker.parent DEFERRABLE INITIALLY IMMEDIATE);

CREATE FUNCTION checker.is_immediate() RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    INSERT INTO checker.child VALUES (1);
    RAISE EXCEPTION 'deferred';
EXCEPTION
    WHEN foreign_key_violation THEN RETURN true;
    WHEN OTHERS THEN RETURN false;
END $$;

CREATE FUNCTION checker.is_open(descriptor integer) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM lo_tell(descriptor);
    RETURN true;
EXCEPTION
    WHEN undefined_object THEN RETURN false;
END $$;

-- The state of the session, a line each. Those that begin with + may come: a run fires deferred triggers immediately, and lock
-- 9 is what the code of others takes for the transaction.
CREATE FUNCTION checker.session(path text) RETURNS SETOF text LANGUAGE sql SET search_path = pg_catalog AS $$
    SELECT format('search_path = %s', path)
    UNION ALL SELECT format('%s, %s, %s', current_user, session_user, current_setting('role'))
    UNION ALL SELECT format('hostile.mark = %s', coalesce(current_setting('hostile.mark', true), ''))
    UNION ALL SELECT format('%s = %s', name, setting) FROM pg_settings
              WHERE name <> 'search_path' AND name !~ '[.]'
    UNION ALL SELECT format('cursor %s: %s, %s, %s', name, statement, is_holdable, creation_time) FROM pg_cursors
              WHERE statement !~ 'checker.session'
    UNION ALL SELECT format('prepared %s: %s', name, statement) FROM pg_prepared_statements
    UNION ALL SELECT format('channel %s', c) FROM pg_listening_channels() c
    UNION ALL SELECT format('%sadvisory lock %s %s %s', CASE WHEN objid = 9 THEN '+ ' END, classid, objid, mode) FROM pg_locks
              WHERE pid = pg_backend_pid() AND locktype = 'advisory'
    UNION ALL SELECT format('temporary %s', pg_describe_object(classid, objid, objsubid)) FROM pg_depend
              WHERE refclassid = 'pg_namespace'::regclass AND refobjid = pg_my_temp_schema()
    UNION ALL SELECT format('descriptor %s', d) FROM generate_series(0, 8) d WHERE checker.is_open(d)
    UNION ALL SELECT '+ constraints are immediate' WHERE checker.is_immediate()
$$;

CREATE VIEW checker.hostile AS
    SELECT oid FROM pg_roles WHERE rolname IN ('app', 'adm', 'op', 'mon');

-- Roles, and everything that belongs to others, a line each.
CREATE FUNCTION checker.world() RETURNS SETOF text LANGUAGE sql SET search_path = pg_catalog AS $$
    SELECT format('role %s', to_jsonb(r) - 'oid') FROM pg_authid r
    UNION ALL SELECT format('member %s of %s', member::regrole, roleid::regrole) FROM pg_auth_members
    UNION ALL SELECT format('setting %s', to_jsonb(s)) FROM pg_db_role_setting s WHERE s.setdatabase = 0
    UNION ALL SELECT format('schema %s %s %s', nspname, nspowner::regrole, nspacl) FROM pg_namespace
              WHERE nspname !~ '^pg_(toast_)?temp'
    UNION ALL SELECT format('function %s %s', p.oid, p.xmin) FROM pg_proc p
              WHERE proowner NOT IN (TABLE checker.hostile) AND pronamespace::regnamespace::text !~ '^pg_temp'
    UNION ALL SELECT format('relation %s %s %s %s', c.oid, relname, relowner::regrole, relacl) FROM pg_class c
              WHERE relowner NOT IN (TABLE checker.hostile) AND relpersistence <> 't'
    UNION ALL SELECT format('column %s %s', a.attrelid, a.xmin) FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
              WHERE relowner NOT IN (TABLE checker.hostile) AND relpersistence <> 't'
    UNION ALL SELECT format('trigger %s on %s', tgname, tgrelid::regclass) FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid
              WHERE relowner NOT IN (TABLE checker.hostile)
    UNION ALL SELECT format('rule %s on %s', rulename, ev_class::regclass) FROM pg_rewrite r JOIN pg_class c ON c.oid = ev_class
              WHERE relowner NOT IN (TABLE checker.hostile)
    UNION ALL SELECT format('type %s %s', t.oid, typname) FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace
              WHERE typowner NOT IN (TABLE checker.hostile) AND nspname !~ '^pg_(toast_)?temp'
    UNION ALL SELECT format('large object %s', l) FROM pg_largeobject_metadata l
              WHERE lomowner NOT IN (TABLE checker.hostile)
    UNION ALL SELECT format('treasure %s', t) FROM victim.treasure t
$$;
