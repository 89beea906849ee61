-- The keys that secrets are encrypted with. No engine may run without one of them, since it could not sign:
-- whoever is about to encrypt, and whoever begins an epoch, therefore looks at the other under a lock. It is
-- that of the epoch 0, which there is not; it comes after those of epochs and organizations.

-- Notes a key that secrets are about to be encrypted with, unless an engine runs that does not have it.
CREATE FUNCTION esl.seal_with_1(p_now bigint, p_key bytea) RETURNS bool LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(esl.class_1(), 0);
    IF EXISTS (
        SELECT FROM esl.workers w
        WHERE w.lapses_at > p_now AND NOT esl.has_key_1(w.key_ids, p_key)
    ) THEN
        RETURN false;
    END IF;
    INSERT INTO esl.encryption_keys AS e (id, is_used) VALUES (p_key, true)
        ON CONFLICT (id) DO UPDATE SET is_used = true WHERE NOT e.is_used;
    RETURN true;
END $$;

-- Refuses to begin an epoch of an engine that does not have every key.
CREATE FUNCTION esl.demand_keys_1(p_key_ids bytea) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(esl.class_1(), 0);
    IF EXISTS (
        SELECT FROM esl.encryption_keys e WHERE NOT esl.has_key_1(p_key_ids, e.id)
    ) THEN
        RAISE EXCEPTION 'secrets are encrypted with a key that was not given'
            USING ERRCODE = 'ESL04';
    END IF;
END $$;

-- Whether a key, by its id of 8 bytes, is among those whose ids stand one after the other.
CREATE FUNCTION esl.has_key_1(p_key_ids bytea, p_key bytea) RETURNS bool LANGUAGE sql IMMUTABLE AS $$
    SELECT EXISTS (
        SELECT FROM generate_series(1, length(p_key_ids), 8) AS t (place)
        WHERE substring(p_key_ids FROM t.place FOR 8) = p_key
    )
$$;
