-- Publishing from SQL: events that are part of their publisher's own transaction. Both functions act with the
-- rights of their owner, and only those may call them who are granted that: without a right to any table.

-- Publishes an event, if and when the transaction is committed, and says its id. What may be published is what
-- core says; it is held to that by tests. `json` keeps what was written: numbers, the order of members.
CREATE FUNCTION esl.publish(
    organization text,
    type text,
    data json,
    changes json DEFAULT NULL,
    metadata json DEFAULT NULL,
    id text DEFAULT NULL
)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_at bigint := esl.now_1(NULL);
    v_organization uuid := esl.ulid_of_1(publish.organization, 'org_');
    v_id uuid := esl.ulid_of_1(publish.id, 'evt_');
    v_data text := esl.bare_json_1(publish.data);
    v_changes text := esl.bare_json_1(publish.changes);
    v_metadata text := esl.bare_json_1(publish.metadata);
    v_bytes bigint;
    v_bytes_max bigint := (SELECT s.payload_bytes_max FROM esl.settings s);
BEGIN
    IF v_organization IS NULL OR v_data IS NULL THEN
        RAISE EXCEPTION 'an event has an organization and data' USING ERRCODE = 'ESL02';
    END IF;
    IF (
        publish.type COLLATE "C" ~ '^[a-z0-9_]+(\.[a-z0-9_]+){1,7}$'
        AND length(publish.type) <= 128
    ) IS NOT TRUE THEN
        RAISE EXCEPTION 'a type has 2 to 8 segments of a-z, 0-9 and _, joined by dots, and 128 characters at most'
            USING ERRCODE = 'ESL02';
    END IF;
    IF starts_with(publish.type, 'system.') THEN
        RAISE EXCEPTION 'the types below system are ESL''s own' USING ERRCODE = 'ESL02';
    END IF;
    IF json_typeof(publish.changes) <> 'object' THEN
        RAISE EXCEPTION 'changes must be an object' USING ERRCODE = 'ESL02';
    END IF;
    PERFORM esl.demand_metadata_1(publish.metadata);
    -- The members of an envelope around what varies.
    v_bytes := 175 + length(publish.type) + octet_length(v_data)
        + coalesce(11 + octet_length(v_changes), 0) + coalesce(octet_length(v_metadata), 2);
    IF v_bytes > v_bytes_max THEN
        RAISE EXCEPTION 'the event has % bytes in its envelope; at most % go inline, and by SQL nothing else goes',
            v_bytes, v_bytes_max USING ERRCODE = 'ESL03';
    END IF;
    PERFORM esl.begin_publishing_1();
    PERFORM esl.demand_arrived_1();
    v_id := coalesce(v_id, esl.new_ulid_1(v_at));
    INSERT INTO esl.intake
        (organization, event_id, event_type, timestamp, data, changes, metadata, chose_id)
        VALUES (v_organization, v_id, publish.type, v_at, v_data, convert_to(v_changes, 'UTF8'),
            v_metadata, publish.id IS NOT NULL);
    RETURN 'evt_' || esl.ulid_text_1(v_id);
END $$;

-- Publishes an event that was sealed by its publisher. Says false, and does nothing, if this is not the database
-- that the publisher means, whose identity is `p_identity`.
CREATE FUNCTION esl.publish_sealed_1(
    p_identity uuid,
    p_organization uuid,
    p_event uuid,
    p_type text,
    p_timestamp bigint,
    p_digest bytea,
    p_body bytea,
    p_changes bytea
)
RETURNS bool LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF p_identity <> (SELECT s.identity FROM esl.settings s) THEN
        RETURN false;
    END IF;
    PERFORM esl.begin_publishing_1();
    PERFORM esl.demand_arrived_1();
    INSERT INTO esl.intake (organization, event_id, event_type, timestamp, digest, body, changes)
        VALUES (p_organization, p_event, p_type, p_timestamp, p_digest, p_body, p_changes);
    RETURN true;
END $$;

REVOKE ALL ON FUNCTION esl.publish(text, text, json, json, json, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION
    esl.publish_sealed_1(uuid, uuid, uuid, text, bigint, bytea, bytea, bytea) FROM PUBLIC;

-- What comes before a row of the intake gets its number.
CREATE FUNCTION esl.begin_publishing_1() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- The transaction is on the disk when it is acknowledged, whatever its session says.
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    -- It has its own number before the row has one. So whoever sees a row knows that all transactions of lower
    -- rows have begun, and waits for them before it looks only at higher ones. Without it, the row would be
    -- numbered first, and whoever was held up just then would be overtaken.
    PERFORM pg_current_xact_id();
END $$;

-- JSON as it is written, without white space around it.
CREATE FUNCTION esl.bare_json_1(p_json json) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT btrim(p_json::text, E' \t\n\r')
$$;

-- Refuses what cannot be an event's metadata.
CREATE FUNCTION esl.demand_metadata_1(p_metadata json) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF p_metadata IS NULL THEN
        RETURN;
    END IF;
    IF json_typeof(p_metadata) <> 'object' THEN
        RAISE EXCEPTION 'metadata must be an object' USING ERRCODE = 'ESL02';
    END IF;
    IF octet_length(esl.bare_json_1(p_metadata)) > 8192 THEN
        RAISE EXCEPTION 'metadata may have 8192 bytes' USING ERRCODE = 'ESL02';
    END IF;
    IF (SELECT count(*) <> count(DISTINCT t.name) FROM json_object_keys(p_metadata) AS t (name)) THEN
        RAISE EXCEPTION 'a member of metadata is repeated' USING ERRCODE = 'ESL02';
    END IF;
    -- What cannot be read as a text is no text.
    IF EXISTS (
        SELECT FROM json_each(p_metadata) t
        WHERE t.key IN ('correlation_id', 'triggered_by', 'source')
            AND (json_typeof(t.value) <> 'string' OR t.value #>> '{}' IS NULL)
    ) THEN
        RAISE EXCEPTION 'correlation_id, triggered_by and source must be texts'
            USING ERRCODE = 'ESL02';
    END IF;
END $$;
