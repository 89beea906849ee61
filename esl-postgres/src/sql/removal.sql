-- Letting go: of what is old, of what deleted organizations have left, and of what an event said. Each call is
-- a slice, and a transaction of its own; whose turn it is, the callers decide.

-- Refuses a worker whose epoch is over, and says what time it is.
CREATE FUNCTION esl.removal_1(p_now bigint, p_worker uuid, p_epoch int) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_now bigint := esl.now_1(p_now);
BEGIN
    PERFORM esl.demand_running_1(p_worker, p_epoch, v_now);
    RETURN v_now;
END $$;

-- Replays that have been over for as long as events are kept, and what is as old in the audit trail.
CREATE FUNCTION esl.remove_records_1(p_now bigint, p_old bigint, p_limit bigint)
RETURNS TABLE (replays bigint, audit bigint)
LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_replays bigint;
    v_audit bigint;
BEGIN
    PERFORM esl.begin_1(p_now);
    DELETE FROM esl.replays r WHERE r.number = ANY (ARRAY(
        SELECT f.number FROM esl.replays f
        WHERE f.finished_at IS NOT NULL AND f.finished_at <= p_old
        ORDER BY f.finished_at LIMIT p_limit
    ));
    GET DIAGNOSTICS v_replays = ROW_COUNT;
    DELETE FROM esl.audit a WHERE a.ctid = ANY (ARRAY(
        SELECT f.ctid FROM esl.audit f WHERE f.at <= p_old ORDER BY f.at
        LIMIT greatest(p_limit - v_replays, 0)
    ));
    GET DIAGNOSTICS v_audit = ROW_COUNT;
    RETURN QUERY SELECT v_replays, v_audit;
END $$;

-- The first event from a seq on whose time is possible, and whether it is old. After one whose time is not,
-- ever further on, so that very many of them cost few searches.
CREATE FUNCTION esl.first_from_1(
    p_organization int, p_from bigint, p_last bigint, p_old bigint, p_possible bigint,
    OUT seq bigint, OUT is_old bool
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
    v_from bigint := p_from;
    v_stride bigint := 1;
    v_seq bigint;
    v_at bigint;
BEGIN
    LOOP
        SELECT e.seq, e.timestamp INTO v_seq, v_at FROM esl.events e
            WHERE e.organization = p_organization AND e.seq >= v_from AND e.seq <= p_last
            ORDER BY e.seq LIMIT 1;
        IF NOT FOUND THEN
            RETURN;
        ELSIF v_at <= p_possible THEN
            seq := v_seq;
            is_old := v_at <= p_old;
            RETURN;
        END IF;
        v_from := v_seq + v_stride;
        v_stride := v_stride * 2;
    END LOOP;
END $$;

-- The last event of an organization that is old, by halving: events are sealed in the order of their seqs, but
-- for moments. NULL if none is. What is yet to be owed counts as young.
CREATE FUNCTION esl.old_to_1(p_organization int, p_old bigint, p_possible bigint) RETURNS bigint
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
    v_last bigint;
    v_old bigint;
    v_young bigint;
    v_middle bigint;
    v_found record;
BEGIN
    SELECT coalesce(
        (
            SELECT f.seq - 1 FROM esl.fan_outs f WHERE f.organization = p_organization
            ORDER BY f.seq LIMIT 1
        ),
        g.last_seq
    ) INTO v_last FROM esl.organizations g WHERE g.key = p_organization;
    SELECT * INTO v_found FROM esl.first_from_1(p_organization, 1, v_last, p_old, p_possible);
    IF v_found.is_old IS NOT TRUE THEN
        RETURN NULL;
    END IF;
    -- v_old is old; nothing from v_young on is.
    v_old := v_found.seq;
    v_young := v_last + 1;
    WHILE v_young - v_old > 1 LOOP
        v_middle := v_old + (v_young - v_old) / 2;
        SELECT * INTO v_found
            FROM esl.first_from_1(p_organization, v_middle, v_last, p_old, p_possible);
        IF v_found.is_old THEN
            v_old := v_found.seq;
            v_young := greatest(v_young, v_found.seq + 1);
        ELSE
            v_young := v_middle;
        END IF;
    END LOOP;
    RETURN v_old;
END $$;

-- Goes through the organizations after one, at most so many, until one has something that is old, and writes
-- down up to where before anything is removed: from then on nothing up to there is opened again. `after` is
-- how far it went, NULL beyond the last; `key` is NULL if none was found.
CREATE FUNCTION esl.retention_1(
    p_now bigint, p_after int, p_limit bigint, p_old bigint, p_possible bigint
)
RETURNS TABLE (after int, looked_at bigint, key int, old_to bigint)
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
    v_after int := p_after;
    v_looked_at bigint := 0;
    v_removed_to bigint;
    v_to bigint;
BEGIN
    PERFORM esl.begin_1(p_now);
    WHILE v_looked_at < p_limit LOOP
        -- Put so that no plan takes the index of those that are not deleted, and sorts them.
        SELECT g.key, g.removed_to INTO v_after, v_removed_to FROM esl.organizations g
            WHERE g.key > v_after AND (g.deleted_at IS NULL) IS NOT FALSE ORDER BY g.key LIMIT 1;
        IF NOT FOUND THEN
            RETURN QUERY SELECT NULL::int, v_looked_at, NULL::int, NULL::bigint;
            RETURN;
        END IF;
        v_looked_at := v_looked_at + 1;
        v_to := esl.old_to_1(v_after, p_old, p_possible);
        -- One organization at a time is locked, and looked at once more when it is.
        IF v_to > v_removed_to THEN
            PERFORM FROM esl.organizations g
                WHERE g.key = v_after AND g.deleted_at IS NULL FOR NO KEY UPDATE;
            v_to := esl.old_to_1(v_after, p_old, p_possible);
            UPDATE esl.organizations g SET removed_to = v_to
                WHERE g.key = v_after AND g.deleted_at IS NULL AND g.removed_to < v_to;
            RETURN QUERY SELECT v_after, v_looked_at, v_after, greatest(v_to, v_removed_to);
            RETURN;
        ELSIF v_removed_to > 0 THEN
            RETURN QUERY SELECT v_after, v_looked_at, v_after, v_removed_to;
            RETURN;
        END IF;
    END LOOP;
    RETURN QUERY SELECT v_after, v_looked_at, NULL::int, NULL::bigint;
END $$;

-- Removes closed deliveries of a lane up to a seq, with their attempts: the first ones, as many as make up
-- `p_left` rows with their attempts, but one at least.
CREATE FUNCTION esl.remove_closed_of_1(
    p_lane bigint, p_to bigint, p_left bigint,
    OUT deliveries bigint, OUT attempts bigint, OUT is_done bool
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
    v_found bigint;
    v_seqs bigint[];
    v_tried bigint[];
BEGIN
    -- A success at the first try has left no attempts.
    SELECT count(*),
        array_agg(c.seq) FILTER (WHERE c.place = 1 OR c.cost <= p_left),
        array_agg(c.seq) FILTER (WHERE c.is_tried AND (c.place = 1 OR c.cost <= p_left))
    INTO v_found, v_seqs, v_tried
    FROM (
        SELECT d.seq, d.is_tried,
            row_number() OVER (ORDER BY d.seq) AS place,
            sum(CASE WHEN d.is_tried THEN 1 + d.attempts ELSE 1 END) OVER (ORDER BY d.seq) AS cost
        FROM (
            SELECT c.seq, c.attempts, c.attempts > 1 OR c.state <> 0 AS is_tried
            FROM esl.closed c WHERE c.lane = p_lane AND c.seq <= p_to
            ORDER BY c.seq LIMIT p_left + 1
        ) d
    ) c;
    is_done := v_found = coalesce(cardinality(v_seqs), 0);
    DELETE FROM esl.attempts a WHERE a.lane = p_lane AND a.seq = ANY (v_tried);
    GET DIAGNOSTICS attempts = ROW_COUNT;
    DELETE FROM esl.closed c WHERE c.lane = p_lane AND c.seq = ANY (v_seqs);
    GET DIAGNOSTICS deliveries = ROW_COUNT;
END $$;

-- The first event from a seq on that a lane owes, up to another.
CREATE FUNCTION esl.first_owed_1(p_lane bigint, p_from bigint, p_to bigint) RETURNS bigint
LANGUAGE sql STABLE
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
    SELECT least(
        (
            SELECT a.seq FROM esl.open a
            WHERE a.lane = p_lane AND a.due_at = 0 AND a.seq >= p_from AND a.seq <= p_to
            ORDER BY a.seq LIMIT 1
        ),
        (
            SELECT a.seq FROM esl.open a
            WHERE a.lane = p_lane AND a.due_at > 0 AND a.seq >= p_from AND a.seq <= p_to
            ORDER BY a.seq LIMIT 1
        )
    )
$$;

-- Removes what is closed in the lanes of an organization after one, up to a seq. `after` is the lane up to
-- which it is done then, NULL after the last; `used` counts rows and lanes; the lanes that owe something up to
-- that seq come with the first that they owe. No row if the organization was deleted meanwhile.
CREATE FUNCTION esl.remove_closed_1(
    p_now bigint, p_organization int, p_after bigint, p_to bigint, p_left bigint
)
RETURNS TABLE (
    after bigint, used bigint, deliveries bigint, attempts bigint,
    owing_lanes bigint[], owing_seqs bigint[]
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
    v_after bigint := p_after;
    v_used bigint := 0;
    v_deliveries bigint := 0;
    v_attempts bigint := 0;
    v_lanes bigint[] := '{}';
    v_seqs bigint[] := '{}';
    v_lane bigint;
    v_is_swept smallint;
    v_first bigint;
    v_removed record;
BEGIN
    PERFORM esl.begin_1(p_now);
    PERFORM FROM esl.organizations g
        WHERE g.key = p_organization AND g.deleted_at IS NULL AND g.removed_to >= p_to;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    WHILE v_used < p_left LOOP
        SELECT s.lane, s.is_swept INTO v_lane, v_is_swept FROM esl.subscriptions s
            WHERE s.organization = p_organization AND s.lane > v_after AND s.is_swept < 2
            ORDER BY s.lane LIMIT 1;
        IF NOT FOUND THEN
            v_after := NULL;
            EXIT;
        END IF;
        SELECT * INTO v_removed FROM esl.remove_closed_of_1(v_lane, p_to, p_left - v_used);
        v_deliveries := v_deliveries + v_removed.deliveries;
        v_attempts := v_attempts + v_removed.attempts;
        -- The visit comes last, so that the smallest slice, too, removes something.
        v_used := v_used + v_removed.deliveries + v_removed.attempts + 1;
        EXIT WHEN NOT v_removed.is_done;
        v_after := v_lane;
        v_first := esl.first_owed_1(v_lane, 0, p_to);
        IF v_first IS NOT NULL THEN
            v_lanes := v_lanes || v_lane;
            v_seqs := v_seqs || v_first;
        END IF;
        -- A deleted subscription's lane gets nothing new: once nothing is left in it, no round visits it
        -- again. A replay to it is cancelled, whether or not its row says so yet.
        IF v_is_swept = 1
            AND NOT EXISTS (SELECT FROM esl.closed c WHERE c.lane = v_lane)
            AND NOT EXISTS (SELECT FROM esl.open a WHERE a.lane = v_lane)
        THEN
            UPDATE esl.replays r SET state = 'cancelled', finished_at = s.deleted_at
                FROM esl.subscriptions s
                WHERE r.lane = v_lane AND r.state = 'running' AND s.lane = v_lane;
            UPDATE esl.subscriptions s SET is_swept = 2 WHERE s.lane = v_lane;
        END IF;
    END LOOP;
    RETURN QUERY SELECT v_after, v_used, v_deliveries, v_attempts, v_lanes, v_seqs;
END $$;

-- Removes events. Of those that may name a blob, `heads` are the beginnings.
CREATE FUNCTION esl.remove_events_1(p_now bigint, p_organization int, p_seqs bigint[])
RETURNS TABLE (events bigint, heads bytea[])
LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    PERFORM esl.begin_1(p_now);
    RETURN QUERY
        WITH gone AS (
            DELETE FROM esl.events e WHERE e.organization = p_organization AND e.seq = ANY (p_seqs)
            RETURNING substring(e.body FROM 1 FOR 1024) AS head
        )
        SELECT count(*),
            coalesce(
                array_agg(gone.head) FILTER (WHERE position('"data_ref":'::bytea IN gone.head) > 0),
                '{}'
            )
        FROM gone;
END $$;

-- Removes the first rows of the intake for an organization that there is not: all of them if it was deleted,
-- or those that are old. (If there is one after all, they are its own.)
CREATE FUNCTION esl.remove_strays_1(
    p_now bigint, p_organization uuid, p_old bigint, p_limit bigint
)
RETURNS TABLE (found bigint, removed bigint, bytes bigint)
LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    PERFORM esl.begin_1(p_now);
    RETURN QUERY
        WITH r AS (
            SELECT q.id, q.timestamp FROM esl.intake q
            WHERE (q.organization, q.id) >= (p_organization, 0)
                AND q.organization <= p_organization
                AND NOT EXISTS (
                    SELECT FROM esl.organizations g
                    WHERE g.id = p_organization AND g.deleted_at IS NULL
                )
            -- Of the index by organization: by id alone, a plan could go through everybody's.
            ORDER BY q.organization, q.id LIMIT p_limit
        ),
        gone AS (
            DELETE FROM esl.intake q USING r
            WHERE q.id = r.id
                AND (
                    r.timestamp <= p_old
                    OR EXISTS (
                        SELECT FROM esl.deleted_organizations d WHERE d.id = p_organization
                    )
                )
            RETURNING coalesce(octet_length(q.body), octet_length(q.data), 0)
                + coalesce(octet_length(q.changes), 0) AS bytes
        )
        SELECT (SELECT count(*) FROM r), count(*), coalesce(sum(gone.bytes), 0)::bigint FROM gone;
END $$;

-- Removes rows of the first organization that is deleted, at most so many; no row if there is none.
CREATE FUNCTION esl.remove_deleted_1(p_now bigint, p_limit bigint)
RETURNS TABLE (
    used bigint, events bigint, bytes bigint, deliveries bigint, attempts bigint,
    organizations bigint, heads bytea[]
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
    v_key int;
    v_lane bigint;
    v_left bigint := p_limit;
    v_events bigint := 0;
    v_bytes bigint := 0;
    v_deliveries bigint := 0;
    v_attempts bigint := 0;
    v_heads bytea[] := '{}';
    v_count bigint;
    v_removed record;
BEGIN
    PERFORM esl.begin_1(p_now);
    -- Of two who remove, the second takes the next one.
    SELECT g.key INTO v_key FROM esl.organizations g
        WHERE g.deleted_at IS NOT NULL ORDER BY g.key LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    WHILE v_left > 0 LOOP
        SELECT s.lane INTO v_lane FROM esl.subscriptions s
            WHERE s.organization = v_key ORDER BY s.lane LIMIT 1;
        EXIT WHEN NOT FOUND;
        DELETE FROM esl.open a WHERE a.ctid = ANY (ARRAY(
            SELECT f.ctid FROM esl.open f WHERE f.lane = v_lane LIMIT v_left
        ));
        GET DIAGNOSTICS v_count = ROW_COUNT;
        v_deliveries := v_deliveries + v_count;
        v_left := v_left - v_count;
        EXIT WHEN v_left <= 0;
        SELECT * INTO v_removed FROM esl.remove_closed_of_1(v_lane, 1::bigint << 40, v_left);
        v_deliveries := v_deliveries + v_removed.deliveries;
        v_attempts := v_attempts + v_removed.attempts;
        v_left := v_left - v_removed.deliveries - v_removed.attempts;
        EXIT WHEN v_left <= 0 OR NOT v_removed.is_done;
        -- Of what was open when it was deleted.
        DELETE FROM esl.attempts a WHERE a.ctid = ANY (ARRAY(
            SELECT f.ctid FROM esl.attempts f WHERE f.lane = v_lane LIMIT v_left
        ));
        GET DIAGNOSTICS v_count = ROW_COUNT;
        v_attempts := v_attempts + v_count;
        v_left := v_left - v_count;
        EXIT WHEN v_left <= 0;
        DELETE FROM esl.owners o WHERE o.lane = v_lane;
        DELETE FROM esl.lanes l WHERE l.lane = v_lane;
        DELETE FROM esl.replays r WHERE r.lane = v_lane;
        DELETE FROM esl.subscriptions s WHERE s.lane = v_lane;
        v_left := v_left - 1;
    END LOOP;
    IF v_left > 0 AND v_lane IS NULL THEN
        WITH e AS (
            SELECT e.seq, e.ctid AS place,
                octet_length(e.body) + coalesce(octet_length(e.changes), 0) AS bytes,
                substring(e.body FROM 1 FOR 1024) AS head
            FROM esl.events e WHERE e.organization = v_key ORDER BY e.seq LIMIT v_left
        ),
        -- A page of a large body costs as much as a row.
        chosen AS (
            SELECT e.place, e.bytes, e.head,
                row_number() OVER (ORDER BY e.seq) AS number,
                sum(1 + e.bytes / 4096) OVER (ORDER BY e.seq) AS cost
            FROM e
        ),
        gone AS (
            DELETE FROM esl.events e USING chosen c
            WHERE e.ctid = c.place AND (c.cost <= v_left OR c.number = 1)
            RETURNING c.bytes, c.cost, c.head
        )
        SELECT count(*) AS events, coalesce(sum(gone.bytes), 0) AS bytes,
            coalesce(max(gone.cost), 0) AS cost,
            coalesce(
                array_agg(gone.head) FILTER (WHERE position('"data_ref":'::bytea IN gone.head) > 0),
                '{}'
            ) AS heads
        INTO v_removed FROM gone;
        v_events := v_removed.events;
        v_bytes := v_removed.bytes;
        v_heads := v_removed.heads;
        v_left := v_left - v_removed.cost;
    END IF;
    IF v_left > 0 AND v_lane IS NULL AND v_events = 0 THEN
        DELETE FROM esl.idempotency i WHERE i.ctid = ANY (ARRAY(
            SELECT f.ctid FROM esl.idempotency f WHERE f.organization = v_key LIMIT v_left
        ));
        GET DIAGNOSTICS v_count = ROW_COUNT;
        v_left := v_left - v_count;
        DELETE FROM esl.tokens t WHERE t.ctid = ANY (ARRAY(
            SELECT f.ctid FROM esl.tokens f WHERE f.organization = v_key LIMIT greatest(v_left, 0)
        ));
        GET DIAGNOSTICS v_count = ROW_COUNT;
        v_left := v_left - v_count;
        DELETE FROM esl.fan_outs o WHERE o.ctid = ANY (ARRAY(
            SELECT f.ctid FROM esl.fan_outs f WHERE f.organization = v_key LIMIT greatest(v_left, 0)
        ));
        GET DIAGNOSTICS v_count = ROW_COUNT;
        v_left := v_left - v_count;
        DELETE FROM esl.entity_index x WHERE x.ctid = ANY (ARRAY(
            SELECT f.ctid FROM esl.entity_index f
            WHERE f.organization = v_key LIMIT greatest(v_left, 0)
        ));
        GET DIAGNOSTICS v_count = ROW_COUNT;
        v_left := v_left - v_count;
        IF v_left > 0 THEN
            WITH e AS (
                SELECT e.kind, e.id, e.ctid AS place, octet_length(e.document) AS bytes
                FROM esl.entities e WHERE e.organization = v_key ORDER BY e.kind, e.id LIMIT v_left
            ),
            -- A page of a large document costs as much as a row.
            chosen AS (
                SELECT e.place,
                    row_number() OVER (ORDER BY e.kind, e.id) AS number,
                    sum(1 + e.bytes / 4096) OVER (ORDER BY e.kind, e.id) AS cost
                FROM e
            ),
            gone AS (
                DELETE FROM esl.entities e USING chosen c
                WHERE e.ctid = c.place AND (c.cost <= v_left OR c.number = 1)
                RETURNING c.cost
            )
            SELECT coalesce(max(gone.cost), 0) INTO v_count FROM gone;
            v_left := v_left - v_count;
        END IF;
        -- If there were some, the next slice looks whether those were all.
        IF v_left > 0 AND v_count = 0 THEN
            -- Few: one for each event that is being erased, and for each feed.
            DELETE FROM esl.erasures e WHERE e.organization = v_key;
            DELETE FROM esl.feed_cursors o WHERE o.organization = v_key;
            DELETE FROM esl.organizations g WHERE g.key = v_key;
            RETURN QUERY SELECT p_limit - v_left + 1, 0::bigint, 0::bigint, v_deliveries,
                v_attempts, 1::bigint, v_heads;
            RETURN;
        END IF;
    END IF;
    RETURN QUERY SELECT p_limit - v_left, v_events, v_bytes, v_deliveries, v_attempts, 0::bigint,
        v_heads;
END $$;

-- Cancels what is owed of an erased event, and takes what receivers said to it from the attempts, in at most
-- so many lanes; true when none is left.
CREATE FUNCTION esl.erase_1(p_now bigint, p_organization int, p_seq bigint, p_limit bigint)
RETURNS bool
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
    v_after bigint;
    v_lanes bigint[];
BEGIN
    v_now := esl.begin_1(p_now);
    SELECT e.after_lane INTO v_after FROM esl.erasures e
        WHERE e.organization = p_organization AND e.seq = p_seq FOR UPDATE;
    IF NOT FOUND THEN
        RETURN true;
    END IF;
    v_lanes := ARRAY(
        SELECT s.lane FROM esl.subscriptions s
        WHERE s.organization = p_organization AND s.lane > v_after AND s.is_swept < 2
        ORDER BY s.lane LIMIT p_limit
    );
    IF cardinality(v_lanes) = 0 THEN
        DELETE FROM esl.erasures e WHERE e.organization = p_organization AND e.seq = p_seq;
        RETURN true;
    END IF;
    -- A settlement under way may put off what it has found open: it is waited for, and what it has left open
    -- is seen at the next look.
    WHILE EXISTS (
        SELECT FROM unnest(v_lanes) AS t (lane)
        WHERE esl.first_owed_1(t.lane, p_seq, p_seq) IS NOT NULL
    ) LOOP
        WITH due AS (
            SELECT a.place FROM unnest(v_lanes) AS t (lane)
            CROSS JOIN LATERAL (
                SELECT a.ctid AS place FROM esl.open a
                WHERE a.lane = t.lane AND a.due_at = 0 AND a.seq = p_seq
                UNION ALL
                SELECT a.ctid FROM esl.open a
                WHERE a.lane = t.lane AND a.seq = p_seq AND a.due_at > 0
            ) a
        ),
        gone AS (
            -- Rows of this table are never changed where they are, so a place is that of one row.
            DELETE FROM esl.open a USING due
            WHERE a.ctid = due.place
            RETURNING a.lane, a.attempts, a.created_at, a.last_status, a.last_error
        )
        INSERT INTO esl.closed
            (lane, seq, state, attempts, finished_at, created_at, last_status, last_error)
        SELECT g.lane, p_seq, 3, g.attempts, v_now, g.created_at, g.last_status, g.last_error
        FROM gone g;
    END LOOP;
    UPDATE esl.attempts a SET detail = NULL
        WHERE a.lane = ANY (v_lanes) AND a.seq = p_seq AND a.detail IS NOT NULL;
    UPDATE esl.erasures e SET after_lane = v_lanes[cardinality(v_lanes)]
        WHERE e.organization = p_organization AND e.seq = p_seq;
    RETURN false;
END $$;

-- What handles and engines have left that are gone, and changes that every listener has read or has missed:
-- those are the first ones, and of the others no more than a stretch is looked at.
CREATE FUNCTION esl.remove_remains_1(p_now bigint) RETURNS void
LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_now bigint;
    v_old bigint;
    v_to bigint;
BEGIN
    v_now := esl.begin_1(p_now);
    LOOP
        SELECT max(t.number) INTO v_old
            FROM (
                SELECT c.number, c.at FROM esl.changes c WHERE c.number > coalesce(v_to, 0)
                ORDER BY c.number LIMIT 500
            ) t
            WHERE t.at < v_now - 600000;
        EXIT WHEN v_old IS NULL;
        v_to := v_old;
    END LOOP;
    IF v_to IS NOT NULL THEN
        DELETE FROM esl.changes c WHERE c.number <= v_to AND c.at < v_now - 600000;
        UPDATE esl.settings s SET changes_removed_to = greatest(s.changes_removed_to, v_to);
    END IF;
    DELETE FROM esl.workers w WHERE w.lapses_at < v_now - 86400000;
    DELETE FROM esl.leaders l
        WHERE NOT EXISTS (SELECT FROM esl.workers w WHERE w.epoch = l.epoch);
    DELETE FROM esl.handles h WHERE h.used_at < v_now - 604800000;
END $$;
