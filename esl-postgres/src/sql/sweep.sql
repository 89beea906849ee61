-- Chores, a slice at a time. What somebody else has in hand is left for the next slice: a sweep waits for
-- nobody, so nobody waits in a circle with it.

-- Closes open deliveries of a lane, and says how many. Each is moved once, whoever else would settle it.
CREATE FUNCTION esl.close_1(
    p_lane bigint, p_due_at bigint[], p_seq bigint[], p_state smallint, p_finished_at bigint
)
RETURNS bigint
LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_count bigint;
BEGIN
    WITH gone AS (
        DELETE FROM esl.open a WHERE a.ctid = ANY (ARRAY(
            SELECT b.ctid
            FROM unnest(p_due_at, p_seq) AS t (due_at, seq)
            JOIN esl.open b ON b.lane = p_lane AND b.due_at = t.due_at AND b.seq = t.seq
            FOR UPDATE OF b SKIP LOCKED
        ))
        RETURNING a.*
    )
    INSERT INTO esl.closed (
            lane, seq, state, attempts, finished_at, created_at, last_status, last_error
        )
        SELECT g.lane, g.seq, p_state, g.attempts, p_finished_at, g.created_at, g.last_status,
            g.last_error
        FROM gone g;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;

-- Expires deliveries of subscriptions that were held for too long. The lanes that may have some are gone
-- through in turn, some at each call, so that very many paused subscriptions cost a call no more than few:
-- those after `p_after`, and `after` says where the next call goes on.
CREATE FUNCTION esl.expire_1(
    p_now bigint, p_author uuid, p_limit bigint, p_held_max_ms bigint, p_after bigint
)
RETURNS TABLE (
    expired bigint,
    -- Lanes that may send from now on.
    ready bigint[],
    -- Whether it went through all lanes, and nothing of them is left to do.
    is_all bool,
    after bigint
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
    v_held record;
    v_row record;
    -- Up to when deliveries came to be owed that are to be expired: see `expires_until` in core.
    v_until bigint;
    v_due_at bigint[];
    v_seqs bigint[];
    v_found bigint;
    v_closed bigint;
    v_left bigint := p_limit;
    v_lanes bigint := 0;
    v_is_passed_over bool := false;
BEGIN
    expired := 0;
    ready := '{}';
    after := p_after;
    FOR v_held IN
        SELECT s.lane, s.organization, s.held_since, s.expiring FROM esl.subscriptions s
        WHERE s.lane > p_after AND s.deleted_at IS NULL
            AND (s.held_since IS NOT NULL OR s.expiring IS NOT NULL)
        ORDER BY s.lane LIMIT p_limit
    LOOP
        v_lanes := v_lanes + 1;
        v_until := greatest(
            v_held.expiring,
            CASE WHEN p_now - v_held.held_since >= p_held_max_ms THEN p_now - p_held_max_ms END
        );
        IF v_until IS NULL THEN
            after := v_held.lane;
            CONTINUE;
        END IF;
        -- Retries that were due by then, and of what was never tried the first ones, up to one that came to
        -- be owed later.
        SELECT coalesce(array_agg(t.due_at), '{}'), coalesce(array_agg(t.seq), '{}')
            INTO v_due_at, v_seqs
            FROM (
                SELECT a.due_at, a.seq FROM esl.open a
                WHERE a.lane = v_held.lane AND a.due_at > 0 AND a.due_at <= v_until
                ORDER BY a.due_at, a.seq LIMIT v_left
            ) t;
        FOR v_row IN
            SELECT a.seq, coalesce(a.created_at, e.timestamp) AS owed_at
            FROM esl.open a
            JOIN esl.events e ON e.organization = v_held.organization AND e.seq = a.seq
            WHERE a.lane = v_held.lane AND a.due_at = 0
            ORDER BY a.seq LIMIT v_left - cardinality(v_seqs)
        LOOP
            EXIT WHEN v_row.owed_at > v_until;
            v_due_at := array_append(v_due_at, 0::bigint);
            v_seqs := array_append(v_seqs, v_row.seq);
        END LOOP;
        v_found := cardinality(v_seqs);
        IF v_found = 0 AND v_held.expiring IS NULL THEN
            after := v_held.lane;
            CONTINUE;
        END IF;
        -- As it was when that was found: it may have been resumed since, or paused.
        PERFORM FROM esl.subscriptions s
            WHERE s.lane = v_held.lane AND s.deleted_at IS NULL
                AND s.held_since IS NOT DISTINCT FROM v_held.held_since
                AND s.expiring IS NOT DISTINCT FROM v_held.expiring
            FOR NO KEY UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            v_is_passed_over := true;
            after := v_held.lane;
            CONTINUE;
        END IF;
        v_closed := esl.close_1(v_held.lane, v_due_at, v_seqs, 2::smallint, p_now);
        expired := expired + v_closed;
        IF v_found = v_left THEN
            -- There may be more in this lane: the next call begins with it again.
            is_all := false;
            RETURN NEXT;
            RETURN;
        END IF;
        v_left := v_left - v_found;
        IF v_closed < v_found THEN
            v_is_passed_over := true;
        ELSIF v_held.expiring IS NOT NULL THEN
            UPDATE esl.subscriptions s SET expiring = NULL WHERE s.lane = v_held.lane;
            ready := ready || v_held.lane;
            -- It may be another engine's.
            INSERT INTO esl.changes (author, kind, organization, at)
                SELECT p_author, 1, g.id, p_now FROM esl.organizations g
                WHERE g.key = v_held.organization;
        END IF;
        after := v_held.lane;
    END LOOP;
    is_all := v_lanes < p_limit;
    IF is_all THEN
        after := 0;
        is_all := NOT v_is_passed_over;
    END IF;
    RETURN NEXT;
END $$;

-- Closes the open deliveries of deleted subscriptions, lane by lane.
CREATE FUNCTION esl.cancel_1(p_limit bigint)
RETURNS TABLE (cancelled bigint, is_all bool)
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
    v_deleted record;
    v_due_at bigint[];
    v_seqs bigint[];
    v_found bigint;
    v_closed bigint;
    v_left bigint := p_limit;
    v_lanes bigint := 0;
BEGIN
    cancelled := 0;
    is_all := true;
    -- Lanes that have nothing open are rows, too.
    FOR v_deleted IN
        SELECT s.lane, s.deleted_at FROM esl.subscriptions s
        WHERE s.deleted_at IS NOT NULL AND s.is_swept = 0
        ORDER BY s.lane LIMIT p_limit
        FOR NO KEY UPDATE SKIP LOCKED
    LOOP
        v_lanes := v_lanes + 1;
        SELECT coalesce(array_agg(t.due_at), '{}'), coalesce(array_agg(t.seq), '{}')
            INTO v_due_at, v_seqs
            FROM (
                SELECT a.due_at, a.seq FROM esl.open a WHERE a.lane = v_deleted.lane
                ORDER BY a.due_at, a.seq LIMIT v_left
            ) t;
        v_found := cardinality(v_seqs);
        v_closed := esl.close_1(v_deleted.lane, v_due_at, v_seqs, 3::smallint, v_deleted.deleted_at);
        cancelled := cancelled + v_closed;
        v_left := v_left - v_found;
        IF v_left > 0 AND v_closed = v_found THEN
            -- A deleted lane gets nothing new, so this was the last of it. A settlement that began before
            -- the deletion still shows the row that it is about to write anew, and has it locked.
            UPDATE esl.subscriptions s SET is_swept = 1 WHERE s.lane = v_deleted.lane;
            DELETE FROM esl.owners o WHERE o.lane = v_deleted.lane;
        ELSE
            is_all := false;
        END IF;
        EXIT WHEN v_left <= 0;
    END LOOP;
    is_all := is_all AND v_lanes < p_limit;
    RETURN NEXT;
END $$;

-- One slice of everything.
CREATE FUNCTION esl.sweep_1(
    p_now bigint,
    p_author uuid,
    p_worker uuid,
    p_epoch int,
    p_limit bigint,
    p_held_max_ms bigint,
    p_after bigint
)
RETURNS TABLE (
    idempotency_keys bigint,
    tokens bigint,
    cancelled bigint,
    expired bigint,
    ready bigint[],
    more bool,
    after bigint
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
    v_day bigint := 86400000;
    v_left bigint := p_limit;
    v_count bigint;
    v_is_expired bool;
    v_is_cancelled bool;
BEGIN
    v_now := esl.begin_1(p_now);
    PERFORM esl.demand_running_1(p_worker, p_epoch, v_now);
    -- First, because a subscription that was resumed may wait for it.
    SELECT e.expired, e.ready, e.is_all, e.after INTO expired, ready, v_is_expired, after
        FROM esl.expire_1(v_now, p_author, v_left, p_held_max_ms, p_after) e;
    v_left := v_left - expired;

    DELETE FROM esl.idempotency i WHERE i.ctid = ANY (ARRAY(
        SELECT q.ctid FROM esl.idempotency q WHERE q.created_at <= v_now - v_day
        ORDER BY q.created_at LIMIT v_left FOR UPDATE SKIP LOCKED
    ));
    GET DIAGNOSTICS idempotency_keys = ROW_COUNT;
    v_left := v_left - idempotency_keys;

    DELETE FROM esl.tokens t WHERE t.ctid = ANY (ARRAY(
        SELECT q.ctid FROM esl.tokens q WHERE q.expires_at <= v_now
        ORDER BY q.expires_at LIMIT v_left FOR UPDATE SKIP LOCKED
    ));
    GET DIAGNOSTICS tokens = ROW_COUNT;
    v_left := v_left - tokens;

    UPDATE esl.subscriptions s SET old_secret = NULL, old_secret_until = NULL
        WHERE s.ctid = ANY (ARRAY(
            SELECT q.ctid FROM esl.subscriptions q
            WHERE q.old_secret_until IS NOT NULL AND q.old_secret_until <= v_now
            ORDER BY q.old_secret_until LIMIT v_left FOR NO KEY UPDATE SKIP LOCKED
        ));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    v_left := v_left - v_count;

    SELECT c.cancelled, c.is_all INTO cancelled, v_is_cancelled FROM esl.cancel_1(v_left) c;
    v_left := v_left - cancelled;

    -- A lane that is yet to be swept counts whether or not something is open in it: of very many lanes,
    -- finding that out for each would cost more than sweeping some.
    more := NOT v_is_expired OR (
        (v_left <= 0 OR NOT v_is_cancelled) AND (
            EXISTS (SELECT FROM esl.idempotency q WHERE q.created_at <= v_now - v_day)
            OR EXISTS (SELECT FROM esl.tokens q WHERE q.expires_at <= v_now)
            OR EXISTS (
                SELECT FROM esl.subscriptions q WHERE q.deleted_at IS NOT NULL AND q.is_swept = 0
            )
        )
    );
    RETURN NEXT;
END $$;
