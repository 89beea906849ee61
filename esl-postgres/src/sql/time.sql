-- Storage's time, and how transactions begin. A function's number is that of its kind: another kind gets
-- another number, and stays beside this one for as long as nodes that call this one may run.

-- What time it is: `p_now` if the caller says so, as the tests do with a clock that they move by hand.
CREATE FUNCTION esl.now_1(p_now bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    IF p_now IS NOT NULL THEN
        RETURN p_now;
    END IF;
    RETURN floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint
        + (SELECT s.clock_ahead_ms FROM esl.settings s);
END $$;

-- By how much storage's time is ahead of the server's clock from a renewal on, if the clock says `p_raw`,
-- time was ahead by `p_ahead`, and at the last renewal it was `p_latest`.
--
-- Time never goes back: where the clock was set back, or another server took over whose clock is behind, it
-- goes on from where it was. What it is ahead by it gives up again, 50 ms at each renewal, while it goes on.
CREATE FUNCTION esl.clock_ahead_1(p_raw bigint, p_ahead bigint, p_latest bigint)
RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT greatest(p_latest - p_raw, p_ahead - 50, 0)
$$;

-- Sees to it that time does not go back: to be called before an epoch is begun or renewed, whose end is in that
-- time. A write once a second, however many there are who do.
CREATE FUNCTION esl.follow_clock_1(p_now bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_raw bigint := floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint;
BEGIN
    IF p_now IS NULL THEN
        UPDATE esl.settings s
            SET clock_ahead_ms = esl.clock_ahead_1(v_raw, s.clock_ahead_ms, s.clock_latest),
                clock_latest = v_raw
                    + esl.clock_ahead_1(v_raw, s.clock_ahead_ms, s.clock_latest)
            WHERE v_raw + s.clock_ahead_ms - s.clock_latest NOT BETWEEN 0 AND 1000;
    END IF;
END $$;

-- What every transaction that writes begins with. Nobody waits for ever, and what is acknowledged is durable
-- whatever the database's default is.
CREATE FUNCTION esl.begin_1(p_now bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('lock_timeout', '5s', true);
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    RETURN esl.now_1(p_now);
END $$;

-- Refuses a database to which another storage's rows are still being moved.
CREATE FUNCTION esl.demand_arrived_1() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM esl.transfer t WHERE t.arrived_at IS NULL) THEN
        RAISE EXCEPTION 'another database is being moved to this one, and that is not finished'
            USING ERRCODE = 'ESL05';
    END IF;
END $$;

-- Locks an organization that is not deleted, as whoever changes what is its own does first of all, and says
-- what it is. The time is that after the wait.
CREATE FUNCTION esl.lock_1(p_now bigint, p_organization uuid)
RETURNS TABLE (
    now bigint,
    key int,
    last_seq bigint,
    route_version bigint,
    removed_to bigint,
    tier text,
    subscriptions_max text,
    events_per_hour text,
    retries bigint
)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_key int;
BEGIN
    SELECT g.key INTO v_key FROM esl.organizations g
        WHERE g.id = p_organization AND g.deleted_at IS NULL
        FOR NO KEY UPDATE;
    RETURN QUERY
        SELECT esl.now_1(p_now), g.key, g.last_seq, g.route_version, g.removed_to,
            g.tier, g.subscriptions_max, g.events_per_hour, g.retries
        FROM esl.organizations g WHERE g.key = v_key;
END $$;

-- The first of the two numbers that an epoch is locked by: another one in another schema.
CREATE FUNCTION esl.class_1() RETURNS int LANGUAGE sql STABLE AS $$
    SELECT hashtext('esl.')
$$;
