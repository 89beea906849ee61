-- A group of units of the kind that nearly all are of, in one call: new events that count as they should and
-- go to the lanes that were found for them, and what became of deliveries. Nothing of it depends on another
-- unit, so it is decided for the group as a whole, by organization. If anything is out of the ordinary nothing is
-- written, and the caller takes `commit_1`, which looks at unit by unit.
--
-- Arrays that begin alike belong together: o_ are the organizations, e_ their events, d_ what is owed of those, g_
-- the lanes that are settled, t_ what was delivered at its first try; s_, a_ and l_ are as in `commit_1`. Where
-- one names another it is by its place, from 1 on. An array whose values are all NULL may be empty.
CREATE FUNCTION esl.plain_commit_1(
    p_now bigint,
    -- Who calls, and which of its groups this is.
    p_handle uuid,
    p_number bigint,
    -- Those that are published to, in the order of their ids.
    o_id uuid[],
    o_version bigint[],
    o_events bigint[],
    -- How many of them count, and against what. The thresholds are where something is told.
    o_counted bigint[],
    o_limit bigint[],
    o_warning_at bigint[],
    o_exceeded_at bigint[],
    -- Those that settle, in the order of their epochs.
    p_workers uuid[],
    p_epochs int[],

    e_org int[],
    -- The how many-th of its organization in this group.
    e_place bigint[],
    e_id uuid[],
    e_event_type text[],
    e_at bigint[],
    e_digest bytea[],
    e_body bytea[],
    e_changes bytea[],
    e_deliveries bigint[],
    d_event int[],
    d_lane bigint[],

    g_lane bigint[],
    t_lane int[],
    t_seq bigint[],
    t_at bigint[],
    t_status int[],

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
    a_total_ns bigint[],

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
RETURNS TABLE (
    is_plain bool,
    -- Of each organization, before the group: its last seq, and what it had used of the hour.
    lasts bigint[],
    hours bigint[],
    used bigint[]
)
LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    v_now bigint;
    v_row record;
    v_count int := 0;
    o int;
    v_hour bigint;
    v_before bigint;
    v_after bigint;
    org_key int[];
    is_live bool[];
BEGIN
    PERFORM esl.begin_1(p_now);
    is_plain := true;

    -- A group that was committed, though nobody heard of it, gets the answer that it got.
    SELECT h.number, h.answer_lasts, h.answer_hours, h.answer_used INTO v_row
        FROM esl.handles h WHERE h.id = p_handle FOR UPDATE;
    IF v_row.number = p_number THEN
        lasts := v_row.answer_lasts;
        hours := v_row.answer_hours;
        used := v_row.answer_used;
        RETURN NEXT;
        RETURN;
    ELSIF v_row.number > p_number THEN
        -- One that was given up comes late, from a connection that is gone.
        RAISE EXCEPTION 'a later group was committed' USING ERRCODE = 'ESL04';
    END IF;

    -- 1. Locks, in the order of `commit_1`.
    FOR i IN 1 .. cardinality(p_epochs) LOOP
        PERFORM pg_advisory_xact_lock_shared(esl.class_1(), p_epochs[i]);
    END LOOP;
    lasts := array_fill(0::bigint, ARRAY[cardinality(o_id)]);
    hours := lasts;
    used := lasts;
    org_key := array_fill(0, ARRAY[cardinality(o_id)]);
    FOR v_row IN
        SELECT t.n, f.*
        FROM unnest(o_id) WITH ORDINALITY AS t (id, n)
        CROSS JOIN LATERAL (
            SELECT g.key, g.last_seq, g.route_version, g.fan_outs, g.used_hour, g.used_events
            FROM esl.organizations g
            WHERE g.id = t.id AND g.deleted_at IS NULL LIMIT 1 FOR NO KEY UPDATE
        ) f
    LOOP
        o := v_row.n;
        v_count := v_count + 1;
        org_key[o] := v_row.key;
        lasts[o] := v_row.last_seq;
        hours[o] := v_row.used_hour;
        used[o] := v_row.used_events;
        is_plain := is_plain AND v_row.route_version = o_version[o] AND v_row.fan_outs = 0;
    END LOOP;

    -- 2. Whether all of it stands. The time is that after all waiting.
    v_now := esl.now_1(p_now);
    is_plain := is_plain AND v_count = cardinality(o_id);
    FOR i IN 1 .. cardinality(p_epochs) LOOP
        is_plain := is_plain AND EXISTS (
            SELECT FROM esl.workers w
            WHERE w.id = p_workers[i] AND w.epoch = p_epochs[i] AND w.lapses_at > v_now
        );
    END LOOP;
    -- As core's `Metering::meter` says, for all that count together: they come to no threshold.
    FOR o IN 1 .. cardinality(o_id) LOOP
        v_hour := floor(v_now / 3600000.0)::bigint;
        v_before := 0;
        IF hours[o] >= v_hour AND hours[o] <= v_hour + 1 THEN
            v_hour := hours[o];
            v_before := used[o];
        END IF;
        v_after := v_before + o_counted[o];
        IF o_counted[o] > 0 THEN
            hours[o] := v_hour;
            used[o] := v_before;
            is_plain := is_plain
                AND (o_limit[o] IS NULL OR v_after <= o_limit[o])
                AND NOT coalesce(v_before < o_warning_at[o] AND v_after >= o_warning_at[o], false)
                AND NOT coalesce(v_before < o_exceeded_at[o] AND v_after >= o_exceeded_at[o], false);
        END IF;
    END LOOP;
    -- Ids that their publishers chose may be there; all others are new.
    is_plain := is_plain AND (
        cardinality(e_digest) = 0 OR NOT EXISTS (
            SELECT FROM unnest(e_id, e_org) AS t (id, org)
            CROSS JOIN LATERAL (
                SELECT FROM esl.events v
                WHERE v.id = t.id AND v.organization + 0 = org_key[t.org] LIMIT 1
            ) f
        )
    );
    IF NOT is_plain THEN
        -- Nobody has to wait until nothing is on the disk.
        PERFORM set_config('synchronous_commit', 'off', true);
        RETURN NEXT;
        RETURN;
    END IF;

    -- 3. What is written: first what others may wait for.
    IF cardinality(l_lane) > 0 THEN
        PERFORM esl.note_lanes_1(
            NULL, l_unit, l_lane, l_failures, l_failed_deliveries, l_failing_since, l_open_probes,
            l_not_before, l_last_success_at, l_exhaustion_told_at
        );
    END IF;
    IF cardinality(e_id) > 0 THEN
        INSERT INTO esl.events (
                organization, seq, id, event_type, timestamp, deliveries, digest, body, changes
            )
            SELECT org_key[t.org], lasts[t.org] + t.place, t.id, t.type, t.at, t.count, t.digest,
                t.body, t.changes
            FROM unnest(
                e_org, e_place, e_id, e_event_type, e_at, e_deliveries, e_digest, e_body, e_changes
            ) AS t (org, place, id, type, at, count, digest, body, changes);
        INSERT INTO esl.open (lane, due_at, seq)
            SELECT t.lane, 0, lasts[e_org[t.event]] + e_place[t.event]
            FROM unnest(d_event, d_lane) AS t (event, lane);
        UPDATE esl.organizations g
            SET last_seq = g.last_seq + o_events[t.n],
                used_hour = CASE WHEN o_counted[t.n] > 0 THEN hours[t.n] ELSE g.used_hour END,
                used_events = CASE WHEN o_counted[t.n] > 0
                    THEN used[t.n] + o_counted[t.n] ELSE g.used_events END
            FROM unnest(org_key) WITH ORDINALITY AS t (key, n)
            CROSS JOIN LATERAL (
                SELECT q.ctid AS place FROM esl.organizations q WHERE q.key = t.key LIMIT 1
            ) f
            WHERE g.ctid = f.place;
    END IF;
    IF cardinality(t_lane) > 0 THEN
        -- The deletion of a subscription has closed what it was owed, whether or not the rows say so yet.
        SELECT array_agg(coalesce(f.is_live, false) ORDER BY t.n) INTO is_live
        FROM unnest(g_lane) WITH ORDINALITY AS t (lane, n)
        LEFT JOIN LATERAL (
            SELECT b.deleted_at IS NULL AND q.deleted_at IS NULL AS is_live
            FROM esl.subscriptions b
            CROSS JOIN LATERAL (
                SELECT g.deleted_at FROM esl.organizations g WHERE g.key = b.organization LIMIT 1
            ) q
            WHERE b.lane = t.lane LIMIT 1
        ) f ON true;
        WITH gone AS (
            -- Rows of this table are never changed where they are, so a place is that of one row.
            DELETE FROM esl.open a
            USING unnest(t_lane, t_seq, t_at, t_status) AS t (lane, seq, at, status)
            CROSS JOIN LATERAL (
                SELECT q.ctid AS place, q.attempts FROM esl.open q
                    WHERE q.lane = g_lane[t.lane] AND q.due_at = 0 AND q.seq = t.seq
                UNION ALL
                SELECT q.ctid, q.attempts FROM esl.open q
                    WHERE q.lane = g_lane[t.lane] AND q.seq = t.seq AND q.due_at > 0
                LIMIT 1
            ) f
            -- One that has had an attempt was settled so before.
            WHERE is_live[t.lane] AND f.attempts = 0 AND a.ctid = f.place
            RETURNING a.lane, a.seq, t.at, a.created_at, coalesce(t.status, a.last_status) AS status
        )
        INSERT INTO esl.closed (lane, seq, state, attempts, finished_at, created_at, last_status)
            SELECT g.lane, g.seq, 0, 1, g.at, g.created_at, g.status FROM gone g;
    END IF;
    IF cardinality(s_lane) > 0 THEN
        PERFORM esl.settle_1(
            NULL, s_unit, s_lane, s_seq, s_outcome, s_due, s_attempts, s_charged, s_at, s_status,
            s_error, s_before, s_wave, a_settlement, a_number, a_started_at, a_status, a_error,
            a_detail, a_probe, a_charged, a_resolve_ns, a_connect_ns, a_tls_ns, a_first_byte_ns,
            a_total_ns
        );
    END IF;
    INSERT INTO esl.handles (id, number, used_at, answer_lasts, answer_hours, answer_used)
        VALUES (p_handle, p_number, v_now, lasts, hours, used)
    ON CONFLICT (id) DO UPDATE SET
        number = excluded.number,
        used_at = excluded.used_at,
        answer_lasts = excluded.answer_lasts,
        answer_hours = excluded.answer_hours,
        answer_used = excluded.answer_used,
        answer_codes = NULL,
        answer_details = NULL,
        answer_seqs = NULL,
        answer_deliveries = NULL,
        answer_flags = NULL,
        answer_firsts = NULL,
        answer_cancelled = NULL,
        answer_switched_off = NULL;
    RETURN NEXT;
END $$;
