-- Epochs, and whose the lanes are.
--
-- An epoch is locked by two numbers: shared by whoever commits or takes under it, and alone by whoever ends
-- it or takes over from it. So what was begun under an epoch is over before its lanes are another's. Those
-- locks end with their transaction, and are taken in the order of the epochs.

CREATE FUNCTION esl.is_running_1(p_epoch int, p_now bigint) RETURNS bool LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM esl.workers w WHERE w.epoch = p_epoch AND w.lapses_at > p_now)
$$;

-- Refuses a worker whose epoch is over.
CREATE FUNCTION esl.demand_running_1(p_worker uuid, p_epoch int, p_now bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM esl.workers w
        WHERE w.id = p_worker AND w.epoch = p_epoch AND w.lapses_at > p_now
    ) THEN
        RAISE EXCEPTION 'the epoch is over' USING ERRCODE = 'ESL01';
    END IF;
END $$;

-- The time, whether a worker leads, and who is alive and takes lanes. `p_duty` is what it would lead, if
-- nobody else does.
CREATE FUNCTION esl.standing_1(p_now bigint, p_epoch int, p_duty text)
RETURNS TABLE (at bigint, leads bool, peers uuid[])
LANGUAGE plpgsql AS $$
BEGIN
    IF p_duty IS NOT NULL THEN
        INSERT INTO esl.leaders AS l (duty, epoch) VALUES (p_duty, p_epoch)
            ON CONFLICT (duty) DO UPDATE SET epoch = excluded.epoch
            WHERE l.epoch <> excluded.epoch AND NOT esl.is_running_1(l.epoch, p_now);
    END IF;
    RETURN QUERY
        SELECT p_now,
            EXISTS (SELECT FROM esl.leaders l WHERE l.duty = p_duty AND l.epoch = p_epoch),
            coalesce(array_agg(w.id ORDER BY w.id), '{}')
        FROM esl.workers w WHERE w.lapses_at > p_now AND w.takes_lanes;
END $$;

-- Begins an epoch. What the worker owned under an earlier one is free, since that is in no row any more.
CREATE FUNCTION esl.enlist_1(
    p_now bigint, p_author uuid, p_worker uuid, p_lasts_ms bigint, p_takes_lanes bool, p_duty text, p_key_ids bytea
)
RETURNS TABLE (epoch int, at bigint, leads bool, peers uuid[])
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_former int;
    v_epoch int;
    v_now bigint;
BEGIN
    PERFORM esl.begin_1(p_now);
    PERFORM esl.follow_clock_1(p_now);
    SELECT w.epoch INTO v_former FROM esl.workers w WHERE w.id = p_worker;
    IF FOUND THEN
        PERFORM pg_advisory_xact_lock(esl.class_1(), v_former);
    END IF;
    PERFORM esl.demand_keys_1(p_key_ids);
    PERFORM esl.demand_arrived_1();
    v_now := esl.now_1(p_now);
    INSERT INTO esl.workers AS w (id, epoch, lapses_at, takes_lanes, duty, key_ids)
        VALUES (
            p_worker, nextval('esl.epochs'), v_now + p_lasts_ms, p_takes_lanes, p_duty, p_key_ids
        )
        ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, lapses_at = excluded.lapses_at,
            takes_lanes = excluded.takes_lanes, duty = excluded.duty, key_ids = excluded.key_ids
        RETURNING w.epoch INTO v_epoch;
    INSERT INTO esl.changes (author, kind, at) VALUES (p_author, 9, v_now);
    RETURN QUERY SELECT v_epoch, s.at, s.leads, s.peers
        FROM esl.standing_1(v_now, v_epoch, p_duty) s;
END $$;

-- Lets an epoch go on, unless it is over. It never waits for a commit.
CREATE FUNCTION esl.renew_1(p_now bigint, p_worker uuid, p_epoch int, p_lasts_ms bigint)
RETURNS TABLE (at bigint, leads bool, peers uuid[])
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_now bigint;
    v_duty text;
BEGIN
    PERFORM esl.begin_1(p_now);
    PERFORM esl.follow_clock_1(p_now);
    v_now := esl.now_1(p_now);
    UPDATE esl.workers w SET lapses_at = v_now + p_lasts_ms
        WHERE w.id = p_worker AND w.epoch = p_epoch AND w.lapses_at > v_now
        RETURNING w.duty INTO v_duty;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the epoch is over' USING ERRCODE = 'ESL01';
    END IF;
    RETURN QUERY SELECT s.at, s.leads, s.peers FROM esl.standing_1(v_now, p_epoch, v_duty) s;
END $$;

-- Ends an epoch, once what was begun under it is over; says whether it was there.
CREATE FUNCTION esl.resign_1(p_now bigint, p_author uuid, p_worker uuid, p_epoch int) RETURNS bool
LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    PERFORM esl.begin_1(p_now);
    PERFORM pg_advisory_xact_lock(esl.class_1(), p_epoch);
    DELETE FROM esl.workers w WHERE w.id = p_worker AND w.epoch = p_epoch;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM esl.owners o WHERE o.epoch = p_epoch;
    INSERT INTO esl.changes (author, kind, at) VALUES (p_author, 9, esl.now_1(p_now));
    RETURN true;
END $$;

-- Takes those of the lanes that are free, and says which are the worker's now. There is one row for each
-- lane, which is written over only if the epoch in it does not run, and no epoch runs again that once did
-- not: so nobody's lane is taken, and of two who take one it is one's.
CREATE FUNCTION esl.take_1(
    p_now bigint, p_worker uuid, p_epoch int, p_lanes bigint[], p_call bigint
)
RETURNS SETOF bigint
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
    v_epoch int;
BEGIN
    PERFORM esl.begin_1(p_now);
    v_now := esl.now_1(p_now);
    -- Those whose epoch has lapsed may have a commit under way that was in time.
    FOR v_epoch IN
        SELECT p_epoch
        UNION
        SELECT o.epoch FROM esl.owners o
            WHERE o.lane = ANY (p_lanes) AND NOT esl.is_running_1(o.epoch, v_now)
        ORDER BY 1
    LOOP
        IF v_epoch = p_epoch THEN
            PERFORM pg_advisory_xact_lock_shared(esl.class_1(), v_epoch);
        ELSE
            PERFORM pg_advisory_xact_lock(esl.class_1(), v_epoch);
        END IF;
    END LOOP;
    v_now := esl.now_1(p_now);
    PERFORM esl.demand_running_1(p_worker, p_epoch, v_now);
    RETURN QUERY
        INSERT INTO esl.owners AS o (lane, epoch, call)
            SELECT s.lane, p_epoch, p_call
            FROM esl.subscriptions s JOIN esl.organizations g ON g.key = s.organization
            WHERE s.lane = ANY (p_lanes) AND s.deleted_at IS NULL AND g.deleted_at IS NULL
            ORDER BY s.lane
        ON CONFLICT (lane) DO UPDATE SET epoch = excluded.epoch,
            call = CASE o.epoch WHEN excluded.epoch THEN greatest(o.call, excluded.call)
                ELSE excluded.call END
            WHERE o.epoch = excluded.epoch OR NOT esl.is_running_1(o.epoch, v_now)
        RETURNING o.lane;
END $$;

-- Lets go of lanes; says whether of any. Whoever does that has settled everything of them. A call that comes
-- late, from a connection that was given up, leaves what its worker has taken since.
CREATE FUNCTION esl.release_1(
    p_now bigint, p_author uuid, p_epoch int, p_lanes bigint[], p_call bigint
)
RETURNS bool
LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    PERFORM esl.begin_1(p_now);
    -- Put so that no plan goes through all that the epoch owns.
    DELETE FROM esl.owners o
        WHERE o.lane = ANY (p_lanes) AND o.epoch + 0 = p_epoch AND o.call < p_call;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO esl.changes (author, kind, at) VALUES (p_author, 2, esl.now_1(p_now));
    RETURN true;
END $$;

-- What lanes of a worker have, without the bodies. Of each lane that is the worker's and sends there is a row
-- of `part` 0, with the time in `due_at`; then the first rows of each part, in their order:
-- 1 retries that are due by their time, 2 the first that is not, 3 retries whose time is too far away to be
-- true, 4 what was never tried; in a lane that is in order 5 retries by seq, and 4.
CREATE FUNCTION esl.claim_1(
    p_now bigint,
    p_worker uuid,
    p_epoch int,
    p_delay_max_ms bigint,
    p_lanes bigint[],
    -- How many rows of each part at most.
    p_retries bigint[],
    p_untried bigint[],
    -- Above which seq; NULL for retries alone.
    p_after bigint[],
    p_in_order bool[]
)
RETURNS TABLE (
    want int,
    organization int,
    organization_id uuid,
    part int,
    due_at bigint,
    seq bigint,
    attempts bigint,
    charged bigint,
    bytes bigint
)
LANGUAGE plpgsql
-- As in `commit_1`: each row is looked up by itself, whatever the planner thinks of the tables.
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    v_now bigint := esl.now_1(p_now);
    v_far bigint := v_now + p_delay_max_ms;
BEGIN
    PERFORM esl.demand_running_1(p_worker, p_epoch, v_now);
    RETURN QUERY
    WITH w AS MATERIALIZED (
        SELECT t.n::int AS want, t.lane, t.retries, t.untried, t.after, t.in_order,
            f.key AS organization, f.id AS organization_id
        FROM unnest(p_lanes, p_retries, p_untried, p_after, p_in_order)
            WITH ORDINALITY AS t (lane, retries, untried, after, in_order, n)
        CROSS JOIN LATERAL (
            SELECT o.epoch FROM esl.owners o WHERE o.lane = t.lane LIMIT 1
        ) o
        CROSS JOIN LATERAL (
            SELECT s.organization, s.active AND s.expiring IS NULL AND s.deleted_at IS NULL AS sends
            FROM esl.subscriptions s WHERE s.lane = t.lane LIMIT 1
        ) s
        CROSS JOIN LATERAL (
            SELECT g.key, g.id, g.deleted_at FROM esl.organizations g
            WHERE g.key = s.organization LIMIT 1
        ) f
        WHERE o.epoch = p_epoch AND s.sends AND f.deleted_at IS NULL
    )
    SELECT w.want, w.organization, w.organization_id, d.part, d.due_at, d.seq,
        d.attempts, d.charged, d.bytes
    FROM w CROSS JOIN LATERAL (
        SELECT 0 AS part, v_now AS due_at, 0::bigint AS seq, 0::bigint AS attempts,
            0::bigint AS charged, 0::bigint AS bytes
        UNION ALL (
            SELECT 1, a.due_at, a.seq, a.attempts, a.charged, e.bytes
            FROM esl.open a
            LEFT JOIN LATERAL (
                SELECT octet_length(v.body)::bigint AS bytes, v.erased_at FROM esl.events v
                WHERE v.organization = w.organization AND v.seq = a.seq LIMIT 1
            ) e ON true
            WHERE a.lane = w.lane AND a.due_at > 0 AND a.due_at <= v_now
                AND NOT w.in_order AND e.erased_at IS NULL
            ORDER BY a.due_at, a.seq LIMIT w.retries
        )
        UNION ALL (
            SELECT 2, a.due_at, a.seq, a.attempts, a.charged, 0
            FROM esl.open a
            WHERE a.lane = w.lane AND a.due_at > v_now AND a.due_at <= v_far AND NOT w.in_order
            ORDER BY a.due_at, a.seq LIMIT w.retries
        )
        UNION ALL (
            SELECT 3, a.due_at, a.seq, a.attempts, a.charged, e.bytes
            FROM esl.open a
            LEFT JOIN LATERAL (
                SELECT octet_length(v.body)::bigint AS bytes, v.erased_at FROM esl.events v
                WHERE v.organization = w.organization AND v.seq = a.seq LIMIT 1
            ) e ON true
            WHERE a.lane = w.lane AND a.due_at > v_far AND NOT w.in_order
                AND e.erased_at IS NULL
            ORDER BY a.due_at, a.seq LIMIT w.retries
        )
        UNION ALL (
            SELECT 4, a.due_at, a.seq, a.attempts, a.charged, e.bytes
            FROM esl.open a
            LEFT JOIN LATERAL (
                SELECT octet_length(v.body)::bigint AS bytes, v.erased_at FROM esl.events v
                WHERE v.organization = w.organization AND v.seq = a.seq LIMIT 1
            ) e ON true
            WHERE a.lane = w.lane AND a.due_at = 0 AND a.seq > w.after AND e.erased_at IS NULL
            ORDER BY a.seq LIMIT w.untried
        )
        UNION ALL (
            SELECT 5, a.due_at, a.seq, a.attempts, a.charged, e.bytes
            FROM esl.open a
            LEFT JOIN LATERAL (
                SELECT octet_length(v.body)::bigint AS bytes, v.erased_at FROM esl.events v
                WHERE v.organization = w.organization AND v.seq = a.seq LIMIT 1
            ) e ON true
            WHERE a.lane = w.lane AND a.due_at > 0 AND w.in_order AND e.erased_at IS NULL
            ORDER BY a.seq LIMIT w.retries
        )
    ) d;
END $$;
