-- Entities: what a group of units writes of them, and lists.

-- Writes what the steps of a group have come to. It is called by `commit_1` alone, whose settings it needs, and
-- whose arrays these are; the organizations are locked. `p_codes` is what each unit came to, `p_keys` are the keys
-- of the organizations.
--
-- Of each entity: where it was, what it is now, and by which steps it was put last and went last, 0 if by none.
CREATE FUNCTION esl.write_entities_1(
    p_codes smallint[],
    p_keys int[],
    k_org int[],
    k_kind text[],
    k_id text[],
    k_place tid[],
    k_revision bigint[],
    k_count bigint[],
    k_version bigint[],
    k_put int[],
    k_gone int[],
    n_unit int[],
    n_entity int[],
    n_created_at bigint[],
    n_updated_at bigint[],
    n_due_at bigint[],
    n_document bytea[],
    ni_step int[],
    ni_field bytea[],
    ni_value bytea[],
    ni_is_in bool[]
)
RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    -- What has gone has taken its index with it, also if it is there again.
    DELETE FROM esl.entity_index x
        USING unnest(k_org, k_kind, k_id, k_place, k_gone) AS t (org, kind, id, place, gone)
        CROSS JOIN LATERAL (
            SELECT q.ctid AS place FROM esl.entity_index q
            WHERE q.organization + 0 = p_keys[t.org]
                AND q.kind || ' ' || q.id = t.kind || ' ' || t.id
            -- As LIMIT does where it is one row.
            OFFSET 0
        ) f
        WHERE t.place IS NOT NULL AND t.gone > 0 AND x.ctid = f.place;
    DELETE FROM esl.entities e
        USING unnest(k_place, k_revision) AS t (place, revision)
        WHERE t.revision IS NULL AND e.ctid = t.place;
    UPDATE esl.entities e
        SET revision = t.revision, reference_count = t.count, reference_version = t.version,
            created_at = n_created_at[t.put], updated_at = n_updated_at[t.put],
            due_at = n_due_at[t.put], document = n_document[t.put]
        FROM unnest(k_place, k_revision, k_count, k_version, k_put)
            AS t (place, revision, count, version, put)
        WHERE t.put > 0 AND e.ctid = t.place;
    UPDATE esl.entities e
        SET reference_count = t.count, reference_version = t.version
        FROM unnest(k_place, k_revision, k_count, k_version, k_put)
            AS t (place, revision, count, version, put)
        WHERE t.revision IS NOT NULL AND t.put = 0 AND e.ctid = t.place
            AND e.reference_version <> t.version;
    INSERT INTO esl.entities (
            organization, kind, id, revision, reference_count, reference_version, created_at,
            updated_at, due_at, document
        )
        SELECT p_keys[t.org], t.kind, t.id, t.revision, t.count, t.version, n_created_at[t.put],
            n_updated_at[t.put], n_due_at[t.put], n_document[t.put]
        FROM unnest(k_org, k_kind, k_id, k_place, k_revision, k_count, k_version, k_put)
            AS t (org, kind, id, place, revision, count, version, put)
        WHERE t.place IS NULL AND t.revision IS NOT NULL;
    IF cardinality(ni_step) > 0 THEN
        WITH net AS MATERIALIZED (
            -- What was said last of an entry, since the entity went.
            SELECT DISTINCT ON (n_entity[t.step], t.field, t.value)
                n_entity[t.step] AS entity, t.field, t.value, t.is_in
            FROM unnest(ni_step, ni_field, ni_value, ni_is_in)
                WITH ORDINALITY AS t (step, field, value, is_in, n)
            WHERE p_codes[n_unit[t.step]] = 0 AND t.step > k_gone[n_entity[t.step]]
            ORDER BY n_entity[t.step], t.field, t.value, t.n DESC
        ),
        gone AS (
            DELETE FROM esl.entity_index x USING net
            CROSS JOIN LATERAL (
                SELECT q.ctid AS place FROM esl.entity_index q
                WHERE q.organization = p_keys[k_org[net.entity]] AND q.kind = k_kind[net.entity]
                    AND q.field = net.field AND q.value = net.value AND q.id = k_id[net.entity]
                LIMIT 1
            ) f
            WHERE NOT net.is_in AND x.ctid = f.place
        )
        INSERT INTO esl.entity_index (organization, kind, field, value, id)
            SELECT p_keys[k_org[net.entity]], k_kind[net.entity], net.field, net.value,
                k_id[net.entity]
            FROM net WHERE net.is_in
        ON CONFLICT DO NOTHING;
    END IF;
END $$;

-- Entities of a kind, as they are in the index of a field, in the order of its values and their ids, or the other
-- way round, behind a place: at most so many, of those that have all these entries, among at most so many. With
-- `p_value` those with that value only. A last row without a revision is the place behind which there may be more.
CREATE FUNCTION esl.entities_by_1(
    p_organization uuid,
    p_kind text,
    p_field bytea,
    p_value bytea,
    p_after_value bytea,
    p_after_id text,
    p_descending bool,
    p_fields bytea[],
    p_values bytea[],
    p_limit bigint,
    p_entries bigint
)
RETURNS TABLE (
    value bytea, id text, revision bigint, reference_count bigint, reference_version bigint,
    created_at bigint, updated_at bigint, due_at bigint, document bytea
)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_sort = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    v_key int;
    v_entries refcursor;
    v_value bytea;
    v_id text;
    v_found bigint := 0;
    v_looked_at bigint := 0;
BEGIN
    SELECT g.key INTO v_key FROM esl.organizations g
        WHERE g.id = p_organization AND g.deleted_at IS NULL;
    IF p_descending THEN
        OPEN v_entries FOR
            SELECT x.value, x.id FROM esl.entity_index x
            WHERE x.organization = v_key AND x.kind = p_kind AND x.field = p_field
                AND (x.value, x.id) < (p_after_value, p_after_id)
            ORDER BY x.value DESC, x.id DESC;
    ELSE
        OPEN v_entries FOR
            SELECT x.value, x.id FROM esl.entity_index x
            WHERE x.organization = v_key AND x.kind = p_kind AND x.field = p_field
                AND (x.value, x.id) > (p_after_value, p_after_id)
            ORDER BY x.value, x.id;
    END IF;
    LOOP
        FETCH v_entries INTO v_value, v_id;
        EXIT WHEN NOT FOUND OR v_value <> p_value;
        IF v_found >= p_limit OR v_looked_at >= p_entries THEN
            revision := NULL;
            document := NULL;
            RETURN NEXT;
            EXIT;
        END IF;
        v_looked_at := v_looked_at + 1;
        value := v_value;
        id := v_id;
        CONTINUE WHEN cardinality(p_fields) > (
            SELECT count(*) FROM unnest(p_fields, p_values) AS t (field, value)
            CROSS JOIN LATERAL (
                SELECT FROM esl.entity_index q
                WHERE q.organization = v_key AND q.kind = p_kind AND q.field = t.field
                    AND q.value = t.value AND q.id = v_id
                LIMIT 1
            ) f
        );
        SELECT e.revision, e.reference_count, e.reference_version, e.created_at, e.updated_at,
            e.due_at, e.document
        INTO revision, reference_count, reference_version, created_at, updated_at, due_at, document
        FROM esl.entities e
        WHERE e.organization = v_key AND e.kind = p_kind AND e.id = v_id;
        CONTINUE WHEN NOT FOUND;
        v_found := v_found + 1;
        RETURN NEXT;
    END LOOP;
    CLOSE v_entries;
END $$;

-- For each of some values, in the place that it has among them, those that have it in a field, at most so many.
CREATE FUNCTION esl.referring_1(
    p_organization uuid, p_kind text, p_field bytea, p_values bytea[], p_limit bigint
)
RETURNS TABLE (
    place bigint, id text, revision bigint, reference_count bigint, reference_version bigint,
    created_at bigint, updated_at bigint, due_at bigint, document bytea
)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_sort = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT t.n, f.id, e.*
        FROM unnest(p_values) WITH ORDINALITY AS t (value, n)
        CROSS JOIN LATERAL (
            SELECT g.key FROM esl.organizations g
            WHERE g.id = p_organization AND g.deleted_at IS NULL LIMIT 1
        ) g
        CROSS JOIN LATERAL (
            SELECT x.id FROM esl.entity_index x
            WHERE x.organization = g.key AND x.kind = p_kind AND x.field = p_field
                AND x.value = t.value
            ORDER BY x.id LIMIT p_limit
        ) f
        CROSS JOIN LATERAL (
            SELECT e.revision, e.reference_count, e.reference_version, e.created_at, e.updated_at,
                e.due_at, e.document
            FROM esl.entities e
            WHERE e.organization = g.key AND e.kind = p_kind AND e.id = f.id LIMIT 1
        ) e;
END $$;
