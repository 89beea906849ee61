-- Ids as they are written: a prefix, and 26 characters of Crockford's base 32.

CREATE FUNCTION esl.ulid_text_1(p_id uuid) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT string_agg(
        substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', 1 + substring(t.bits FROM 1 + 5 * i FOR 5)::bit(5)::int, 1),
        '' ORDER BY i
    )
    FROM (SELECT B'00' || ('x' || replace(p_id::text, '-', ''))::bit(128) AS bits) t,
        generate_series(0, 25) i
$$;

-- An id from how it is written. There is one way to write it, so that one event does not have two names.
CREATE FUNCTION esl.ulid_of_1(p_text text, p_prefix text) RETURNS uuid
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    v_bits text;
BEGIN
    IF p_text COLLATE "C" !~ ('^' || p_prefix || '[0-7][0-9A-HJKMNP-TV-Z]{25}$') THEN
        RAISE EXCEPTION 'an id is `%` and 26 characters of Crockford''s base 32, upper case', p_prefix
            USING ERRCODE = 'ESL02';
    END IF;
    SELECT string_agg(
            (strpos('0123456789ABCDEFGHJKMNPQRSTVWXYZ', t.digit) - 1)::bit(5)::text,
            '' ORDER BY t.n
        )
        INTO v_bits
        FROM unnest(string_to_array(right(p_text, 26), NULL)) WITH ORDINALITY AS t (digit, n);
    RETURN (
        SELECT string_agg(to_hex(substr(v_bits, 3 + 4 * i, 4)::bit(4)::int), '' ORDER BY i)::uuid
        FROM generate_series(0, 31) i
    );
END $$;

-- An id of a time and 80 random bits.
CREATE FUNCTION esl.new_ulid_1(p_at bigint) RETURNS uuid LANGUAGE sql VOLATILE AS $$
    -- The digits between are not random: they say what kind of uuid it is.
    SELECT (lpad(to_hex(p_at), 12, '0') || substr(t.digits, 1, 12) || substr(t.digits, 21, 8))::uuid
    FROM (SELECT replace(gen_random_uuid()::text, '-', '') AS digits) t
$$;
