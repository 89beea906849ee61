-- Tokens. Whoever gives some out, trades or revokes one holds the row of their client, as whoever changes that
-- client does: so no token of a secret that is over comes to be, and all of a family go together.

-- Stores tokens for clients that are these organizations' and have that secret, all or none.
CREATE FUNCTION esl.store_tokens_1(
    p_now bigint,
    p_author uuid,
    p_secret bytea,
    p_digests bytea[],
    p_kinds smallint[],
    p_clients bytea[],
    p_organizations uuid[],
    p_families bytea[],
    p_scopes text[],
    p_expire_at bigint[]
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
DECLARE
    v_now bigint := esl.begin_1(p_now);
BEGIN
    PERFORM FROM esl.clients c WHERE c.id = ANY (p_clients) ORDER BY c.id FOR SHARE;
    IF EXISTS (
        SELECT FROM unnest(p_clients, p_organizations) AS t (client, organization)
        WHERE NOT EXISTS (
            SELECT FROM esl.clients c JOIN esl.organizations g ON g.key = c.organization
            WHERE c.id = t.client AND c.secret = p_secret
                AND g.id = t.organization AND g.deleted_at IS NULL
        )
    ) THEN
        RETURN false;
    END IF;
    INSERT INTO esl.tokens (digest, kind, client, organization, family, scopes, expires_at)
        SELECT t.digest, t.kind, t.client, c.organization, t.family, t.scopes, t.expires_at
        FROM unnest(p_digests, p_kinds, p_clients, p_families, p_scopes, p_expire_at)
            AS t (digest, kind, client, family, scopes, expires_at)
        JOIN esl.clients c ON c.id = t.client
        ON CONFLICT (digest) DO UPDATE SET kind = excluded.kind, client = excluded.client,
            organization = excluded.organization, family = excluded.family,
            scopes = excluded.scopes, expires_at = excluded.expires_at, used_at = NULL;
    INSERT INTO esl.changes (author, kind, at) VALUES (p_author, 3, v_now);
    RETURN true;
END $$;

-- Revokes a token: an access token alone, a refresh token (`p_refresh`) with its family. Says 0 if the
-- organization has none of that digest that has not expired, 1 if it was given to another client, 2 if it
-- is worth nothing any more.
CREATE FUNCTION esl.revoke_token_1(
    p_now bigint,
    p_author uuid,
    p_organization uuid,
    p_client bytea,
    p_digest bytea,
    p_refresh smallint
)
RETURNS int
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
    v_token record;
BEGIN
    PERFORM FROM esl.clients c JOIN esl.organizations g ON g.key = c.organization
        WHERE c.id = p_client AND g.id = p_organization
        FOR NO KEY UPDATE OF c;
    SELECT t.kind, t.client, t.organization, t.family INTO v_token
        FROM esl.tokens t JOIN esl.organizations g ON g.key = t.organization
        WHERE t.digest = p_digest AND t.expires_at > v_now
            AND g.id = p_organization AND g.deleted_at IS NULL;
    IF NOT FOUND THEN
        RETURN 0;
    ELSIF v_token.client <> p_client THEN
        RETURN 1;
    END IF;
    IF v_token.kind = p_refresh THEN
        DELETE FROM esl.tokens t WHERE t.organization = v_token.organization
            AND t.client = v_token.client AND t.family = v_token.family;
    ELSE
        DELETE FROM esl.tokens t WHERE t.digest = p_digest;
    END IF;
    INSERT INTO esl.changes (author, kind, at) VALUES (p_author, 3, v_now);
    RETURN 2;
END $$;
