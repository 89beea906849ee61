-- Adds {count} events to the organization of the key 3, and of all else in proportion. In braces are the lanes, and
-- times. What an organization has lies together, so that it is not found soon by whoever goes through
-- everybody's.
CREATE TEMP TABLE filled AS
    SELECT (SELECT last_seq FROM esl.organizations WHERE key = 1) AS others,
        (SELECT last_seq FROM esl.organizations WHERE key = 3) AS own;
CREATE TEMP TABLE fill AS
    SELECT t.key, t.n, t.seq FROM (
        SELECT 3 AS key, n, own + n AS seq FROM filled, generate_series(1, {count}) n
        UNION ALL
        SELECT key, n, others + n FROM filled, generate_series(1, {count} / 2) n,
            unnest(ARRAY[1, 2, 4]) key
    ) t
    ORDER BY t.key, t.seq;
INSERT INTO esl.events (organization, seq, id, event_type, timestamp, deliveries, body)
    SELECT key, seq, (lpad(to_hex(key), 8, '0') || lpad(to_hex(seq), 24, '0'))::uuid,
        'person.updated', CASE key WHEN 1 THEN {long_ago} ELSE {noon} END, 1,
        convert_to(repeat('x', 200), 'UTF8')
    FROM fill;
INSERT INTO esl.open (lane, due_at, seq, attempts, charged)
    SELECT {failing}, CASE WHEN seq % 10 <= 5 THEN {noon} ELSE {later} END, seq, 1, 1
    FROM fill WHERE key = 3 AND seq % 10 > 0;
INSERT INTO esl.open (lane, due_at, seq)
    SELECT {backlog}, 0, seq FROM fill WHERE key = 3 AND seq % 3 = 0
    UNION ALL SELECT {paused}, 0, seq FROM fill WHERE key = 3 AND seq % 20 = 0
    UNION ALL SELECT {gone}, 0, seq FROM fill WHERE key = 2 AND seq % 2 = 0;
INSERT INTO esl.closed (lane, seq, state, attempts, finished_at)
    SELECT {quick}, seq, 0, 1, {noon} FROM fill WHERE key = 3
    UNION ALL SELECT {failing}, seq, 1 + (seq / 10) % 2, 2, {noon} FROM fill WHERE key = 3 AND seq % 10 = 0
    UNION ALL SELECT {old}, seq, seq % 2, 1, {long_ago} FROM fill WHERE key = 1
    UNION ALL SELECT {gone}, seq, 0, 2, {noon} FROM fill WHERE key = 2 AND seq % 2 = 1;
INSERT INTO esl.attempts (lane, seq, number, started_at, error, probe, charged, total_ns)
    SELECT {failing}, seq, 1, {noon}, 1, false, true, 1 FROM fill WHERE key = 3
    UNION ALL SELECT {old}, seq, 1, {long_ago}, 1, false, true, 1 FROM fill WHERE key = 1 AND seq % 2 = 1
    UNION ALL SELECT {gone}, seq, 1, {noon}, 1, false, true, 1 FROM fill WHERE key = 2;
INSERT INTO esl.idempotency (organization, key, fingerprint, answer, created_at)
    SELECT key, 'key ' || seq, '\x00', '', {noon} FROM fill WHERE key IN (2, 3) AND n % 3 = 0;
INSERT INTO esl.tokens (digest, kind, client, organization, family, scopes, expires_at)
    SELECT convert_to('token ' || key || ' ' || seq, 'UTF8'), 1, 'client', key,
        convert_to('family ' || key || ' ' || seq, 'UTF8'), '', {later}
    FROM fill WHERE key IN (2, 3) AND n % 3 = 0;
INSERT INTO esl.audit (organization, at, actor_kind, action, subject, fields)
    SELECT g.id, {noon}, 'system', 'subscription.updated', '', ''
    FROM fill f JOIN esl.organizations g ON g.key = f.key WHERE f.key <> 2 AND n % 3 = 0;
INSERT INTO esl.intake (organization, event_id, event_type, timestamp, body)
    SELECT g.id, md5('intake ' || g.key || ' ' || seq)::uuid, 'person.updated', {noon}, '{}'::bytea
    FROM fill f JOIN esl.organizations g ON g.key = f.key WHERE f.key = 4 AND n % 10 = 0
    UNION ALL
    SELECT md5('nobody')::uuid, md5('nobody ' || seq)::uuid, 'person.updated', {noon}, '{}'::bytea
    FROM fill WHERE key = 4 AND n % 10 = 0;
INSERT INTO esl.scheduled (due_at, organization, event_id, event_type, timestamp, body)
    SELECT {later}, g.id, md5('scheduled ' || seq)::uuid, 'person.updated', {later}, '{}'::bytea
    FROM fill f JOIN esl.organizations g ON g.key = f.key WHERE f.key IN (1, 4) AND n % 10 = 0;
INSERT INTO esl.entities (organization, kind, id, revision, reference_count, reference_version, created_at,
        updated_at, due_at, document)
    SELECT key, 'person', 'id_' || seq, 1, 0, 0, {noon}, {noon},
        CASE WHEN key = 2 OR n % 30 > 0 THEN NULL WHEN n % 60 > 0 THEN {noon} ELSE {later} END, '{}'::bytea
    FROM fill WHERE n % 3 = 0;
INSERT INTO esl.entity_index (organization, kind, field, value, id)
    SELECT key, 'person', e.field, e.value, 'id_' || seq
    FROM fill, LATERAL (
        VALUES ('color'::bytea, 'red'::bytea), ('name', int8send(seq)), ('owner', int8send(seq / 30))
    ) e (field, value)
    WHERE n % 3 = 0;
INSERT INTO esl.fan_outs (organization, seq, after_lane, last_lane)
    SELECT key, seq, 0, 1 FROM fill WHERE key = 4 AND n % 10 = 0;
INSERT INTO esl.replays (id, lane, kind, from_seq, to_seq, max_per_second, state, position, opened,
        created_at, finished_at)
    SELECT md5('replay ' || key || ' ' || seq)::uuid, CASE key WHEN 3 THEN {quick} ELSE {old} END, 8, 0,
        1, 1, 'done', 1, 0, {noon}, CASE key WHEN 3 THEN {noon} ELSE {long_ago} END
    FROM fill WHERE key IN (1, 3) AND n % (CASE key WHEN 1 THEN 2 ELSE 20 END) = 0;
INSERT INTO esl.changes (kind, at) SELECT 2, {noon} FROM fill WHERE key = 3 AND n % 3 = 0;
INSERT INTO esl.organizations (id, name, created_at)
    SELECT md5('other ' || seq)::uuid, convert_to('other ' || seq, 'UTF8'), 1
    FROM fill WHERE key = 3 AND n % 30 = 0;
INSERT INTO esl.deleted_organizations (id, deleted_at)
    SELECT md5('deleted ' || seq)::uuid, 1 FROM fill WHERE key = 3 AND n % 30 = 0;
CREATE TEMP TABLE others AS
    SELECT g.key, g.id FROM esl.organizations g JOIN fill f 
        ON f.key = 3 AND g.id = md5('other ' || f.seq)::uuid;
INSERT INTO esl.subscriptions (id, organization, created_at, callback_url, events, secret, sealed, active,
        held_since, send_order, on_exhausted, updated_at, deleted_at, is_swept)
    SELECT md5('subscription ' || key)::uuid, key, 1, 'https://receiver.example/'::bytea, '*', '\x00'::bytea, 0,
        key % 3 > 0, CASE WHEN key % 3 = 0 THEN {noon} END, '', '', 1, NULL, 0
    FROM others
    UNION ALL
    SELECT md5('deleted ' || key)::uuid, 3, 1, 'https://receiver.example/', '*', '\x00', 0, true,
        NULL, '', '', 1, 1, 2
    FROM others;
INSERT INTO esl.lanes (lane, failures, failed_deliveries)
    SELECT s.lane, 1, 1 FROM esl.subscriptions s JOIN others o ON o.key = s.organization;
INSERT INTO esl.owners (lane, epoch, call)
    SELECT s.lane, (SELECT epoch FROM esl.workers), 0
    FROM esl.subscriptions s JOIN others o ON o.key = s.organization;
INSERT INTO esl.feed_cursors (feed, organization, seq) SELECT 'feed', key, 0 FROM others;
INSERT INTO esl.clients (id, organization, secret, scopes, created_at)
    SELECT convert_to('client ' || key, 'UTF8'), key, '', '', 1 FROM others;
UPDATE esl.organizations g SET last_seq = t.seq, fan_outs = t.fan_outs
    FROM (
        SELECT key, max(seq) AS seq, count(*) FILTER (WHERE key = 4 AND n % 10 = 0) AS fan_outs
        FROM fill GROUP BY key
    ) t
    WHERE g.key = t.key;
DROP TABLE others, fill, filled;
