-- The floor: exactly the rows that a run removes, by tuple ids that are known beforehand.
DELETE FROM generations WHERE ctid = ANY (ARRAY(SELECT tid FROM removable));
