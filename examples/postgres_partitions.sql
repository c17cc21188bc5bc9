-- Makes the table `steps` of a rubriscope database partitioned by writer, with what it holds:
--
--     psql "$URL" -v writers=64 -v partitions=16 -f examples/postgres_partitions.sql
--
-- A partition holds the snapshots of `writers` writers (a writer is a rank of a run; writers are numbered as
-- they come), the last one, steps_rest, those of all that come after. Recorders may be open: they wait for it.
-- An old partition goes in an instant: ALTER TABLE steps DETACH PARTITION steps_0; (the ledgers of its sessions
-- then say that records are missing, which is true).
\set ON_ERROR_STOP on
BEGIN;
SELECT pg_advisory_xact_lock(1381188432);  -- as recorders that make the tables take turns
LOCK TABLE steps IN ACCESS EXCLUSIVE MODE;
SELECT pg_get_viewdef('trajectory'::regclass) AS trajectory \gset
DROP VIEW trajectory;
ALTER TABLE steps RENAME TO steps_before;
ALTER INDEX steps_pkey RENAME TO steps_before_pkey;
CREATE TABLE steps (LIKE steps_before INCLUDING DEFAULTS INCLUDING STORAGE, PRIMARY KEY (step_key))
  PARTITION BY RANGE (step_key);
-- A key is writer_key << 40 | sequence; writers are numbered from 1.
SELECT format(
    'CREATE TABLE steps_%s PARTITION OF steps FOR VALUES FROM (%s) TO (%s)',
    n, (n * :writers)::bigint << 40, ((n + 1) * :writers)::bigint << 40)
  FROM generate_series(0, :partitions - 1) AS n \gexec
CREATE TABLE steps_rest PARTITION OF steps DEFAULT;
INSERT INTO steps SELECT * FROM steps_before;
DROP TABLE steps_before;
CREATE VIEW trajectory AS :trajectory
COMMIT;
