-- Replays.

-- Opens deliveries of a replay, and moves it on, in the one transaction. No row if the replay does not stand
-- where the step begins.
CREATE FUNCTION esl.advance_replay_1(
    p_now bigint,
    p_author uuid,
    p_worker uuid,
    p_epoch int,
    p_organization uuid,
    p_replay uuid,
    p_from bigint,
    p_to bigint,
    p_seqs bigint[],
    p_is_done bool
)
RETURNS SETOF esl.replays
LANGUAGE plpgsql ROWS 1
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    v_organization record;
    v_replay esl.replays;
    v_now bigint;
    v_due_at bigint;
    -- The first event that is still being fanned out.
    v_fan_out bigint;
    v_seqs bigint[];
    v_opened bigint;
BEGIN
    PERFORM esl.begin_1(p_now);
    -- Whoever takes over from the worker waits for it.
    PERFORM pg_advisory_xact_lock_shared(esl.class_1(), p_epoch);
    SELECT * INTO v_organization FROM esl.lock_1(p_now, p_organization);
    v_now := coalesce(v_organization.now, esl.now_1(p_now));
    v_due_at := greatest(v_now, 1);
    PERFORM esl.demand_running_1(p_worker, p_epoch, v_now);
    SELECT r.* INTO v_replay
        FROM esl.replays r JOIN esl.subscriptions s ON s.lane = r.lane
        WHERE r.id = p_replay AND r.state = 'running' AND r.position = p_from
            AND s.organization = v_organization.key AND s.deleted_at IS NULL
        FOR UPDATE OF r;
    IF NOT FOUND THEN
        RETURN;
    END IF;

    SELECT q.seq INTO v_fan_out FROM esl.fan_outs q
        WHERE q.organization = v_organization.key ORDER BY q.seq LIMIT 1;
    -- What of it is there, and for this lane.
    v_seqs := ARRAY(
        SELECT e.seq FROM (SELECT DISTINCT unnest(p_seqs) AS seq) t
        JOIN esl.events e ON e.organization = v_organization.key AND e.seq = t.seq
        WHERE t.seq > v_organization.removed_to AND (v_fan_out IS NULL OR t.seq < v_fan_out)
            AND e.erased_at IS NULL
            AND (
                e.audience IS NULL OR e.audience = -v_replay.lane
                OR (e.audience > 0 AND e.audience <> v_replay.lane)
            )
    );
    IF v_replay.kind = 8 THEN
        INSERT INTO esl.open (lane, due_at, seq, created_at)
            SELECT v_replay.lane, v_due_at, t.seq, v_now FROM unnest(v_seqs) AS t (seq)
            WHERE (SELECT c.seq FROM esl.closed c WHERE c.lane = v_replay.lane AND c.seq = t.seq) IS NULL
                AND (
                    SELECT a.seq FROM esl.open a
                    WHERE a.lane = v_replay.lane AND a.due_at = 0 AND a.seq = t.seq
                ) IS NULL
                AND (
                    SELECT a.seq FROM esl.open a
                    WHERE a.lane = v_replay.lane AND a.seq = t.seq AND a.due_at > 0
                ) IS NULL;
    ELSE
        WITH gone AS (
            DELETE FROM esl.closed c
            WHERE c.lane = v_replay.lane AND c.seq = ANY (v_seqs)
                AND CASE c.state WHEN 1 THEN 1 WHEN 2 THEN 2 WHEN 0 THEN 4 ELSE 0 END
                    & v_replay.kind <> 0
            RETURNING c.*
        )
        INSERT INTO esl.open (
                lane, due_at, seq, attempts, charged, created_at, last_status, last_error
            )
            SELECT g.lane, v_due_at, g.seq, g.attempts, 0, g.created_at, g.last_status, g.last_error
            FROM gone g;
    END IF;
    GET DIAGNOSTICS v_opened = ROW_COUNT;
    IF v_opened > 0 THEN
        INSERT INTO esl.changes (author, kind, at) VALUES (p_author, 2, v_now);
    END IF;
    RETURN QUERY
        UPDATE esl.replays r
            SET position = p_to,
                opened = r.opened + v_opened,
                state = CASE WHEN p_is_done THEN 'done' ELSE r.state END,
                finished_at = CASE WHEN p_is_done THEN v_now ELSE r.finished_at END
            WHERE r.number = v_replay.number
            RETURNING r.*;
END $$;
