-- `app` owns tables, `adm`, `op` and `mon` have the levels. The others harm nobody.
CREATE ROLE app LOGIN;
CREATE ROLE adm LOGIN;
CREATE ROLE op LOGIN;
CREATE ROLE mon LOGIN;
CREATE ROLE victim LOGIN;
CREATE ROLE bank LOGIN;
CREATE ROLE boss SUPERUSER LOGIN;
