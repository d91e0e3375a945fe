-- What pgbench does to the table while a run goes on: half updates, half inserts.
\set id random(1, 1000000)
\set kind random(0, 1)
\if :kind
UPDATE generations SET like_count = like_count + 1 WHERE id = :id;
\else
INSERT INTO generations (user_id, recipe_id, prompt, status) VALUES ('user-1', 1, 'a cat dives', 'pending');
\endif
