-- What settlements write, whichever function commits them. These are called by those alone, whose settings they
-- need: each row is looked up by itself, and is written at its place.
--
-- The arrays are as in `commit_1`. `p_codes` is what each unit came to; without it all stand.

-- How lanes fare.
CREATE FUNCTION esl.note_lanes_1(
    p_codes smallint[],
    l_unit int[],
    l_lane bigint[],
    l_failures bigint[],
    l_failed_deliveries bigint[],
    l_failing_since bigint[],
    l_open_probes bigint[],
    l_not_before bigint[],
    l_last_success_at bigint[],
    l_exhaustion_told_at bigint[]
)
RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    -- A lane once, whoever said how often how it fares. Of a deleted organization nothing may come to be
    -- that nobody would remove.
    INSERT INTO esl.lanes
        SELECT DISTINCT ON (t.lane) t.lane, t.failures, t.failed_deliveries, t.failing_since,
            t.open_probes, t.not_before, t.last_success_at, t.exhaustion_told_at
        FROM unnest(
            l_unit, l_lane, l_failures, l_failed_deliveries, l_failing_since, l_open_probes,
            l_not_before, l_last_success_at, l_exhaustion_told_at
        ) WITH ORDINALITY AS t (
            unit, lane, failures, failed_deliveries, failing_since, open_probes,
            not_before, last_success_at, exhaustion_told_at, n
        )
        CROSS JOIN LATERAL (
            SELECT b.organization, b.deleted_at FROM esl.subscriptions b
            WHERE b.lane = t.lane LIMIT 1
        ) b
        CROSS JOIN LATERAL (
            SELECT g.deleted_at FROM esl.organizations g WHERE g.key = b.organization LIMIT 1
        ) g
        WHERE (p_codes IS NULL OR p_codes[t.unit] = 0) AND b.deleted_at IS NULL AND g.deleted_at IS NULL
        ORDER BY t.lane, t.n DESC
    ON CONFLICT (lane) DO UPDATE SET
        failures = excluded.failures,
        failed_deliveries = excluded.failed_deliveries,
        failing_since = excluded.failing_since,
        open_probes = excluded.open_probes,
        not_before = excluded.not_before,
        last_success_at = excluded.last_success_at,
        exhaustion_told_at = excluded.exhaustion_told_at;
END $$;

-- What became of deliveries.
CREATE FUNCTION esl.settle_1(
    p_codes smallint[],
    s_unit int[],
    s_lane bigint[],
    s_seq bigint[],
    s_outcome smallint[],
    s_due bigint[],
    s_attempts bigint[],
    s_charged bigint[],
    s_at bigint[],
    s_status int[],
    s_error smallint[],
    s_before bigint[],
    s_wave int[],
    a_settlement int[],
    a_number bigint[],
    a_started_at bigint[],
    a_status int[],
    a_error smallint[],
    a_detail bytea[],
    a_probe bool[],
    a_charged bool[],
    a_resolve_ns bigint[],
    a_connect_ns bigint[],
    a_tls_ns bigint[],
    a_first_byte_ns bigint[],
    a_total_ns bigint[]
)
RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    i int;
    v_settled int[];
    is_settled bool[];
BEGIN
    is_settled := array_fill(false, ARRAY[cardinality(s_lane)]);
    FOR v_wave IN 1 .. coalesce((SELECT max(t.wave) FROM unnest(s_wave) AS t (wave)), 0) LOOP
        WITH s AS (
            SELECT s.*
            FROM unnest(
                s_unit, s_lane, s_seq, s_outcome, s_due, s_attempts, s_charged, s_at, s_status,
                s_error, s_before, s_wave
            ) WITH ORDINALITY AS s (
                unit, lane, seq, outcome, due, attempts, charged, at, status,
                error, before, wave, n
            )
            -- The deletion of its subscription has closed it, whether or not its row says so yet.
            CROSS JOIN LATERAL (
                SELECT b.organization, b.deleted_at FROM esl.subscriptions b
                WHERE b.lane = s.lane LIMIT 1
            ) b
            CROSS JOIN LATERAL (
                SELECT g.deleted_at FROM esl.organizations g WHERE g.key = b.organization LIMIT 1
            ) g
            WHERE s.wave = v_wave AND (p_codes IS NULL OR p_codes[s.unit] = 0)
                AND b.deleted_at IS NULL AND g.deleted_at IS NULL
        ),
        f AS (
            SELECT s.*, q.place FROM s CROSS JOIN LATERAL (
                SELECT a.ctid AS place, a.attempts FROM esl.open a
                    WHERE a.lane = s.lane AND a.due_at = 0 AND a.seq = s.seq
                UNION ALL
                SELECT a.ctid, a.attempts FROM esl.open a
                    WHERE a.lane = s.lane AND a.seq = s.seq AND a.due_at > 0
                LIMIT 1
            ) q
            -- One that has had more attempts was settled so before.
            WHERE q.attempts <= s.before
        ),
        gone AS (
            -- Rows of this table are never changed where they are, so a place is that of one row.
            DELETE FROM esl.open a USING f WHERE a.ctid = f.place
            RETURNING f.lane, f.seq, f.outcome, f.due, f.attempts, f.charged, f.at, f.error, f.n,
                a.created_at, coalesce(f.status, a.last_status) AS status
        ),
        shut AS (
            INSERT INTO esl.closed (
                lane, seq, state, attempts, finished_at, created_at, last_status, last_error
            )
            SELECT g.lane, g.seq, g.outcome - 1, g.attempts, g.at, g.created_at, g.status, g.error
            FROM gone g WHERE g.outcome > 0
        ),
        put_off AS (
            INSERT INTO esl.open (
                lane, due_at, seq, attempts, charged, created_at, last_status, last_error
            )
            SELECT g.lane, greatest(g.due, 1), g.seq, g.attempts, g.charged, g.created_at,
                g.status, g.error
            FROM gone g WHERE g.outcome = 0
        )
        SELECT array_agg(g.n) INTO v_settled FROM gone g;
        FOREACH i IN ARRAY coalesce(v_settled, '{}') LOOP
            is_settled[i] := true;
        END LOOP;
    END LOOP;
    IF cardinality(a_settlement) > 0 THEN
        INSERT INTO esl.attempts (
                lane, seq, number, started_at, status, error, detail, probe, charged,
                resolve_ns, connect_ns, tls_ns, first_byte_ns, total_ns
            )
            SELECT s_lane[t.settlement], s_seq[t.settlement], t.number, t.started_at, t.status,
                t.error, t.detail, t.probe, t.charged,
                t.resolve_ns, t.connect_ns, t.tls_ns, t.first_byte_ns, t.total_ns
            FROM unnest(
                a_settlement, a_number, a_started_at, a_status, a_error, a_detail, a_probe,
                a_charged, a_resolve_ns, a_connect_ns, a_tls_ns, a_first_byte_ns, a_total_ns
            ) AS t (
                settlement, number, started_at, status, error, detail, probe,
                charged, resolve_ns, connect_ns, tls_ns, first_byte_ns, total_ns
            )
            WHERE is_settled[t.settlement]
        ON CONFLICT (lane, seq, number) DO NOTHING;
    END IF;
END $$;
