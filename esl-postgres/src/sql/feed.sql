-- Feeds: how far all that is committed was passed on, in each organization.

-- Begins a feed, unless it has begun: what is committed so far is not for it.
CREATE FUNCTION esl.begin_feed_1(p_now bigint, p_worker uuid, p_epoch int, p_name text)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    v_now bigint := esl.begin_1(p_now);
BEGIN
    PERFORM esl.demand_running_1(p_worker, p_epoch, v_now);
    INSERT INTO esl.feeds (name, begun_at) VALUES (p_name, v_now) ON CONFLICT DO NOTHING;
    IF FOUND THEN
        INSERT INTO esl.feed_cursors (feed, organization, seq)
            SELECT p_name, g.key, g.last_seq FROM esl.organizations g WHERE g.deleted_at IS NULL;
    END IF;
END $$;

-- Moves cursors, each from where it is expected to stand; others stay. An organization is held meanwhile, so
-- that no cursor is left of one that goes.
CREATE FUNCTION esl.advance_feed_1(
    p_now bigint,
    p_worker uuid,
    p_epoch int,
    p_name text,
    p_organizations uuid[],
    p_from bigint[],
    p_to bigint[]
)
RETURNS void
LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_now bigint := esl.begin_1(p_now);
    v_key int;
BEGIN
    PERFORM esl.demand_running_1(p_worker, p_epoch, v_now);
    IF NOT EXISTS (SELECT FROM esl.feeds f WHERE f.name = p_name) THEN
        RETURN;
    END IF;
    PERFORM FROM esl.organizations g
        WHERE g.id = ANY (p_organizations) AND g.deleted_at IS NULL
        ORDER BY g.id FOR KEY SHARE;
    FOR i IN 1 .. cardinality(p_organizations) LOOP
        SELECT g.key INTO v_key FROM esl.organizations g
            WHERE g.id = p_organizations[i] AND g.deleted_at IS NULL
                AND p_to[i] BETWEEN p_from[i] AND g.last_seq;
        CONTINUE WHEN NOT FOUND;
        UPDATE esl.feed_cursors c SET seq = p_to[i]
            WHERE c.feed = p_name AND c.organization = v_key AND c.seq = p_from[i];
        IF NOT FOUND AND p_from[i] = 0 THEN
            INSERT INTO esl.feed_cursors (feed, organization, seq) VALUES (p_name, v_key, p_to[i])
                ON CONFLICT DO NOTHING;
        END IF;
    END LOOP;
END $$;
