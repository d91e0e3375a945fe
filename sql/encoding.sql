-- The extension reads text as UTF-8. Names in another encoding would raise errors in the middle of a night.
DO $encoding$
BEGIN
    IF pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.<>) 'UTF8' THEN
        RAISE EXCEPTION 'encoding "%" of database "%" is not supported',
            pg_catalog.getdatabaseencoding(), pg_catalog.current_database()
            USING ERRCODE = 'feature_not_supported',
                  HINT = 'CREATE DATABASE app ENCODING ''UTF8'' TEMPLATE template0';
    END IF;
END
$encoding$;
