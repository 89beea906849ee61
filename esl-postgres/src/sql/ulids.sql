-- Ids as they are written: a prefix, and 26 characters of Crockford's base 32.

CREATE FUNCTION esl.ulid_text_1(p_id uuid) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT string_agg(
        substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', 1 + substring(t.bits FROM 1 + 5 * i FOR 5)::bit(5)::int, 1),
        '' ORDER BY i
    )
    FROM (SELECT B'00' || ('x' || replace(p_id::text, '-', ''))::bit(128) AS bits) t,
        generate_series(0, 25) i
$$;
