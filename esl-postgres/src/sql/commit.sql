-- A group of units, in one call: what each comes to is decided in memory, in their order, and then written
-- table by table. A refused unit writes nothing, so nothing is ever undone.
--
-- Arrays that begin alike belong together: u_ are the units, e_ their events (each unit's notices come after
-- its own events), d_ the deliveries of events, x_ the slices of fan-outs and xl_ their lanes, s_
-- settlements, a_ their attempts, l_ states of lanes, w_ what is switched off, k_ the entities that are written,
-- each once, n_ the steps of that, and ni_ what they change of the index. Where one names another it is by its
-- place, from 1 on. What is NULL is not there.
--
-- A unit's code: 0 it stands, 1 repeated under its key, 2 no such organization, 3 rerouted, 4 an event of
-- that id is another one, 5 the key was used for something else, 6 gone from the intake, 7 over the limit,
-- 8 another slice is next, 9 the epoch is over, 10 it comes to a threshold whose notice it lacks, 11 an entity is
-- not as expected, 12 too many would refer to one.
-- An event's flags: 1 repeated, 2 fanned out, 4 a notice.
--
-- A function has 100 arguments at most.
CREATE FUNCTION esl.commit_1(
    p_now bigint,
    -- Who calls, and which of its groups this is.
    p_handle uuid,
    p_number bigint,
    -- Those that are published to, expanded or written, in the order of their ids.
    p_organizations uuid[],
    -- Those that settle, in the order of their epochs.
    p_workers uuid[],
    p_epochs int[],

    u_org int[],
    -- If it publishes.
    u_version bigint[],
    u_worker int[],
    u_first int[],
    u_last int[],
    u_last_notice int[],
    u_key text[],
    u_fingerprint bytea[],
    -- The unit before it with the same key.
    u_same int[],
    -- If it is metered.
    u_refuses bool[],
    u_limit bigint[],
    u_warning_at bigint[],
    u_exceeded_at bigint[],

    e_unit int[],
    e_id uuid[],
    e_event_type text[],
    e_at bigint[],
    e_digest bytea[],
    e_body bytea[],
    e_changes bytea[],
    e_deliveries bigint[],
    -- As `events` has it.
    e_audience bigint[],
    e_last_lane bigint[],
    -- Fanned out in any case.
    e_large bool[],
    -- The event before it with the same id, in the same organization.
    e_same int[],
    e_intake bigint[],
    -- Of a notice: in which hour it is told, at which threshold (1 warning, 2 exceeded).
    e_hour bigint[],
    e_threshold smallint[],

    d_event int[],
    d_lane bigint[],

    x_unit int[],
    x_org int[],
    x_seq bigint[],
    x_version bigint[],
    x_after bigint[],
    x_next bigint[],
    xl_expand int[],
    xl_lane bigint[],

    s_unit int[],
    s_lane bigint[],
    s_seq bigint[],
    -- 0 try again, 1 delivered, 2 exhausted.
    s_outcome smallint[],
    s_due bigint[],
    s_attempts bigint[],
    s_charged bigint[],
    s_at bigint[],
    s_status int[],
    s_error smallint[],
    s_before bigint[],
    -- 1, or more for what an earlier settlement of the group is of, too.
    s_wave int[],

    a_settlement int[],
    a_number bigint[],
    a_started_at bigint[],
    a_status int[],
    a_error smallint[],
    a_detail bytea[],
    a_probe bool[],
    a_charged bool[],
    a_resolve_ns bigint[],
    a_connect_ns bigint[],
    a_tls_ns bigint[],
    a_first_byte_ns bigint[],
    a_total_ns bigint[],

    l_unit int[],
    l_lane bigint[],
    l_failures bigint[],
    l_failed_deliveries bigint[],
    l_failing_since bigint[],
    l_open_probes bigint[],
    l_not_before bigint[],
    l_last_success_at bigint[],
    l_exhaustion_told_at bigint[],

    w_unit int[],
    w_lane bigint[],
    w_reason text[],

    k_org int[],
    k_kind text[],
    k_id text[],

    n_unit int[],
    n_entity int[],
    -- 0 it is not there, 1 it is, 2 at this revision, 3 at this revision and version.
    n_expected smallint[],
    n_revision bigint[],
    n_version bigint[],
    -- 0 nothing, 1 it is put, 2 it goes, 3 others refer to it.
    n_action smallint[],
    n_by int[],
    n_created_at bigint[],
    n_updated_at bigint[],
    n_due_at bigint[],
    n_document bytea[],

    -- Of a step what goes out comes before what comes in.
    ni_step int[],
    ni_field bytea[],
    ni_value bytea[],
    ni_is_in bool[]
)
RETURNS TABLE (
    codes smallint[],
    -- Of code 4 and 6 the event, of code 1 the unit of this group that was first, of code 11 and 12 the step.
    details int[],
    seqs bigint[],
    counts bigint[],
    flags smallint[],
    hours bigint[],
    used bigint[],
    firsts bytea[],
    cancelled bool[],
    -- Organizations of which a subscription was.
    switched_off uuid[]
)
LANGUAGE plpgsql
-- Tables that were empty when a plan was made are not empty for long. So each row is looked up by itself, which
-- LIMIT sees to, and is written at its place, by its ctid.
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    n_units int := cardinality(u_org);
    n_events int := cardinality(e_id);
    n_orgs int := cardinality(p_organizations);
    n_steps int := cardinality(n_unit);
    v_now bigint;
    v_row record;
    i int;
    k int;
    o int;
    p int;
    x int;
    y int;

    -- The organizations, as the units make them. A NULL key: there is none.
    org_key int[] := array_fill(NULL::int, ARRAY[n_orgs]);
    org_seq bigint[] := array_fill(0::bigint, ARRAY[n_orgs]);
    org_version bigint[] := org_seq;
    org_hour bigint[] := org_seq;
    org_used bigint[] := org_seq;
    org_fans int[] := array_fill(0, ARRAY[n_orgs]);
    org_dirty bool[] := array_fill(false, ARRAY[n_orgs]);

    -- What is there already.
    worker_runs bool[];
    known_seq bigint[];
    known_count bigint[];
    known_same bool[];
    in_intake bool[];
    key_answer bytea[];
    key_same bool[];
    is_keyed bool := false;
    fan_org int[];
    fan_seq bigint[];
    fan_after bigint[];
    begins_fan_out bool := false;

    -- The entities that are written, as the units make them. A NULL place: it was not there; a NULL revision: it is
    -- not there now.
    k_place tid[];
    k_revision bigint[];
    k_count bigint[];
    k_version bigint[];
    -- The steps that it was put by last, and went with last.
    k_put int[];
    k_gone int[];
    -- How many would refer to it, after the steps of this unit that were looked at.
    k_unit int[];
    k_would bigint[];
    is_scheduled bool := false;

    -- Of the unit that is looked at.
    v_seq bigint;
    v_new int;
    v_stands bool;
    v_hour bigint;
    v_before bigint;
    v_after bigint;
    v_warns bool;
    v_exceeds bool;
    v_expand int := 1;
    -- Its first step, and the first one behind it.
    v_step int := 1;
    v_end int := 1;
BEGIN
    PERFORM esl.begin_1(p_now);

    -- A group that was committed, though nobody heard of it, gets the answer that it got.
    SELECT * INTO v_row FROM esl.handles h WHERE h.id = p_handle FOR UPDATE;
    IF v_row.number = p_number THEN
        codes := v_row.answer_codes;
        details := v_row.answer_details;
        seqs := v_row.answer_seqs;
        counts := v_row.answer_deliveries;
        flags := v_row.answer_flags;
        hours := v_row.answer_hours;
        used := v_row.answer_used;
        firsts := v_row.answer_firsts;
        cancelled := v_row.answer_cancelled;
        switched_off := v_row.answer_switched_off;
        RETURN NEXT;
        RETURN;
    ELSIF v_row.number > p_number THEN
        -- One that was given up comes late, from a connection that is gone.
        RAISE EXCEPTION 'a later group was committed' USING ERRCODE = 'ESL04';
    END IF;

    codes := array_fill(0::smallint, ARRAY[n_units]);
    details := array_fill(NULL::int, ARRAY[n_units]);
    hours := array_fill(NULL::bigint, ARRAY[n_units]);
    used := hours;
    firsts := array_fill(NULL::bytea, ARRAY[n_units]);
    seqs := array_fill(NULL::bigint, ARRAY[n_events]);
    counts := array_fill(0::bigint, ARRAY[n_events]);
    flags := array_fill(0::smallint, ARRAY[n_events]);
    cancelled := '{}';
    switched_off := '{}';

    -- 1. Locks: epochs, then organizations, each in their order. Whoever takes over from a worker waits.
    FOR i IN 1 .. cardinality(p_epochs) LOOP
        PERFORM pg_advisory_xact_lock_shared(esl.class_1(), p_epochs[i]);
    END LOOP;
    FOR v_row IN
        SELECT t.n, f.*
        FROM unnest(p_organizations) WITH ORDINALITY AS t (id, n)
        CROSS JOIN LATERAL (
            SELECT g.key, g.last_seq, g.route_version, g.fan_outs, g.used_hour, g.used_events
            FROM esl.organizations g
            WHERE g.id = t.id AND g.deleted_at IS NULL LIMIT 1 FOR NO KEY UPDATE
        ) f
    LOOP
        o := v_row.n;
        org_key[o] := v_row.key;
        org_seq[o] := v_row.last_seq;
        org_version[o] := v_row.route_version;
        org_fans[o] := v_row.fan_outs;
        org_hour[o] := v_row.used_hour;
        org_used[o] := v_row.used_events;
    END LOOP;

    -- 2. What is there already. The time is that after all waiting.
    v_now := esl.now_1(p_now);
    IF cardinality(p_epochs) > 0 THEN
        SELECT array_agg(coalesce(f.lapses_at > v_now, false) ORDER BY t.n) INTO worker_runs
        FROM unnest(p_workers, p_epochs) WITH ORDINALITY AS t (id, epoch, n)
        LEFT JOIN LATERAL (
            SELECT w.lapses_at FROM esl.workers w WHERE w.id = t.id AND w.epoch = t.epoch LIMIT 1
        ) f ON true;
    END IF;
    IF n_events > 0 THEN
        SELECT array_agg(f.seq ORDER BY t.n),
            array_agg(f.deliveries ORDER BY t.n),
            array_agg(f.digest IS NOT DISTINCT FROM e_digest[t.n] ORDER BY t.n),
            array_agg(
                t.intake IS NULL OR EXISTS (
                    SELECT FROM esl.intake q
                    WHERE q.id = t.intake AND q.event_id = t.id
                        AND q.organization = p_organizations[u_org[t.unit]]
                )
                ORDER BY t.n
            )
        INTO known_seq, known_count, known_same, in_intake
        FROM unnest(e_id, e_unit, e_intake) WITH ORDINALITY AS t (id, unit, intake, n)
        LEFT JOIN LATERAL (
            SELECT v.seq, v.deliveries, v.digest FROM esl.events v
            WHERE v.id = t.id AND v.organization + 0 = org_key[u_org[t.unit]] LIMIT 1
        ) f ON true;
    END IF;
    IF EXISTS (SELECT FROM unnest(u_key) AS t (key) WHERE t.key IS NOT NULL) THEN
        is_keyed := true;
        SELECT array_agg(f.answer ORDER BY t.n),
            array_agg(f.fingerprint = u_fingerprint[t.n] ORDER BY t.n)
        INTO key_answer, key_same
        FROM unnest(u_org, u_key) WITH ORDINALITY AS t (org, key, n)
        LEFT JOIN LATERAL (
            SELECT q.answer, q.fingerprint FROM esl.idempotency q
            WHERE q.organization = org_key[t.org] AND q.key = t.key
                AND q.created_at > v_now - 86400000
            LIMIT 1
        ) f ON true;
    END IF;
    IF cardinality(x_unit) > 0 THEN
        -- More of one organization are not expanded in a group.
        SELECT array_agg(t.org ORDER BY t.org, f.seq),
            array_agg(f.seq ORDER BY t.org, f.seq),
            array_agg(f.after_lane ORDER BY t.org, f.seq)
        INTO fan_org, fan_seq, fan_after
        FROM (SELECT DISTINCT unnest(x_org) AS org) t
        CROSS JOIN LATERAL (
            SELECT q.seq, q.after_lane FROM esl.fan_outs q
            WHERE q.organization = org_key[t.org] ORDER BY q.seq LIMIT 70
        ) f;
    END IF;
    IF n_steps > 0 THEN
        -- Only whoever has locked the organization writes them, so each stays at its place.
        SELECT array_agg(f.place ORDER BY t.n),
            array_agg(f.revision ORDER BY t.n),
            array_agg(coalesce(f.reference_count, 0) ORDER BY t.n),
            array_agg(coalesce(f.reference_version, 0) ORDER BY t.n),
            array_agg(0 ORDER BY t.n)
        INTO k_place, k_revision, k_count, k_version, k_put
        FROM unnest(k_org, k_kind, k_id) WITH ORDINALITY AS t (org, kind, id, n)
        LEFT JOIN LATERAL (
            SELECT e.ctid AS place, e.revision, e.reference_count, e.reference_version
            FROM esl.entities e
            WHERE e.organization = org_key[t.org] AND e.kind = t.kind AND e.id = t.id LIMIT 1
        ) f ON true;
        k_gone := k_put;
        k_unit := k_put;
        k_would := k_count;
    END IF;

    -- 3. What each unit comes to.
    FOR i IN 1 .. n_units LOOP
        o := u_org[i];
        IF o IS NOT NULL AND org_key[o] IS NULL THEN
            codes[i] := 2;
            CONTINUE;
        END IF;
        IF u_key[i] IS NOT NULL THEN
            IF key_answer[i] IS NOT NULL THEN
                IF key_same[i] THEN
                    codes[i] := 1;
                    firsts[i] := key_answer[i];
                ELSE
                    codes[i] := 5;
                END IF;
                CONTINUE;
            END IF;
            p := u_same[i];
            WHILE p IS NOT NULL AND codes[p] <> 0 LOOP
                p := u_same[p];
            END LOOP;
            IF p IS NOT NULL THEN
                IF u_fingerprint[p] = u_fingerprint[i] THEN
                    codes[i] := 1;
                    details[i] := p;
                ELSE
                    codes[i] := 5;
                END IF;
                CONTINUE;
            END IF;
        END IF;
        IF u_worker[i] IS NOT NULL AND NOT worker_runs[u_worker[i]] THEN
            codes[i] := 9;
            CONTINUE;
        END IF;

        x := NULL;
        IF v_expand <= cardinality(x_unit) AND x_unit[v_expand] = i THEN
            x := v_expand;
            v_expand := v_expand + 1;
            IF org_key[x_org[x]] IS NULL THEN
                codes[i] := 2;
                CONTINUE;
            END IF;
            p := NULL;
            FOR e IN 1 .. coalesce(cardinality(fan_org), 0) LOOP
                IF fan_org[e] = x_org[x] AND fan_seq[e] IS NOT NULL THEN
                    p := e;
                    EXIT;
                END IF;
            END LOOP;
            IF p IS NULL OR fan_seq[p] <> x_seq[x] OR fan_after[p] <> x_after[x] THEN
                codes[i] := 8;
                CONTINUE;
            END IF;
            IF org_version[x_org[x]] <> x_version[x] THEN
                codes[i] := 3;
                CONTINUE;
            END IF;
        END IF;

        -- Every expectation is of what was there before the unit: as core's `Expected::is_met` says.
        IF n_steps > 0 THEN
            WHILE n_unit[v_step] < i LOOP
                v_step := v_step + 1;
            END LOOP;
            v_end := v_step;
            WHILE n_unit[v_end] = i LOOP
                k := n_entity[v_end];
                v_stands := CASE n_expected[v_end]
                    WHEN 0 THEN k_revision[k] IS NULL
                    WHEN 1 THEN k_revision[k] IS NOT NULL
                    WHEN 2 THEN k_revision[k] = n_revision[v_end]
                    ELSE k_revision[k] = n_revision[v_end] AND k_version[k] = n_version[v_end]
                END;
                IF v_stands IS NOT TRUE THEN
                    codes[i] := 11;
                    EXIT;
                END IF;
                IF n_action[v_end] = 3 THEN
                    IF k_unit[k] <> i THEN
                        k_unit[k] := i;
                        k_would[k] := k_count[k];
                    END IF;
                    k_would[k] := k_would[k] + n_by[v_end];
                    -- `REFERENCES_MAX`.
                    IF n_by[v_end] > 0 AND k_would[k] > 1000 THEN
                        codes[i] := 12;
                        EXIT;
                    END IF;
                END IF;
                v_end := v_end + 1;
            END LOOP;
            IF codes[i] > 0 THEN
                details[i] := v_end;
                CONTINUE;
            END IF;
        END IF;

        IF o IS NOT NULL THEN
            IF org_version[o] <> u_version[i] THEN
                codes[i] := 3;
                CONTINUE;
            END IF;
            v_seq := org_seq[o];
            v_new := 0;
            v_stands := true;
            FOR e IN u_first[i] .. u_last[i] LOOP
                IF known_seq[e] IS NOT NULL THEN
                    v_stands := known_same[e] OR e_intake[e] IS NOT NULL;
                    seqs[e] := known_seq[e];
                    counts[e] := known_count[e];
                    flags[e] := 1;
                ELSE
                    -- Of those before it in this group the last one that stands.
                    y := e_same[e];
                    WHILE y IS NOT NULL AND seqs[y] IS NULL LOOP
                        y := e_same[y];
                    END LOOP;
                    IF y IS NOT NULL THEN
                        -- Whoever committed an intake row is not there to be told of a conflict.
                        v_stands := e_digest[y] IS NOT DISTINCT FROM e_digest[e]
                            OR e_intake[e] IS NOT NULL;
                        seqs[e] := seqs[y];
                        counts[e] := counts[y];
                        flags[e] := 1;
                    ELSIF NOT in_intake[e] THEN
                        codes[i] := 6;
                        details[i] := e;
                        v_stands := false;
                        EXIT;
                    ELSE
                        v_seq := v_seq + 1;
                        v_new := v_new + 1;
                        seqs[e] := v_seq;
                        counts[e] := e_deliveries[e];
                        flags[e] := 0;
                    END IF;
                END IF;
                IF NOT v_stands THEN
                    codes[i] := 4;
                    details[i] := e;
                    EXIT;
                END IF;
            END LOOP;

            -- As core's `Metering::meter` says; a test holds one against the other.
            IF v_stands AND u_refuses[i] IS NOT NULL THEN
                v_hour := floor(v_now / 3600000.0)::bigint;
                v_before := 0;
                IF org_hour[o] >= v_hour AND org_hour[o] <= v_hour + 1 THEN
                    v_hour := org_hour[o];
                    v_before := org_used[o];
                END IF;
                v_after := v_before + v_new;
                hours[i] := v_hour;
                used[i] := v_after;
                IF v_new > 0 AND u_refuses[i] AND v_after > u_limit[i] THEN
                    codes[i] := 7;
                    used[i] := v_before;
                    v_stands := false;
                ELSIF v_new > 0 THEN
                    v_warns := coalesce(v_before < u_warning_at[i] AND v_after >= u_warning_at[i], false);
                    v_exceeds :=
                        coalesce(v_before < u_exceeded_at[i] AND v_after >= u_exceeded_at[i], false);
                    FOR e IN u_last[i] + 1 .. u_last_notice[i] LOOP
                        CONTINUE WHEN e_hour[e] <> v_hour;
                        IF v_warns AND e_threshold[e] = 1 THEN
                            v_warns := false;
                        ELSIF v_exceeds AND e_threshold[e] = 2 THEN
                            v_exceeds := false;
                        ELSE
                            CONTINUE;
                        END IF;
                        IF known_seq[e] IS NOT NULL THEN
                            seqs[e] := known_seq[e];
                            counts[e] := known_count[e];
                            flags[e] := 5;
                        ELSE
                            v_seq := v_seq + 1;
                            seqs[e] := v_seq;
                            counts[e] := e_deliveries[e];
                            flags[e] := 4;
                        END IF;
                    END LOOP;
                    IF v_warns OR v_exceeds THEN
                        codes[i] := 10;
                        v_stands := false;
                    END IF;
                END IF;
                IF v_stands AND v_new > 0 THEN
                    org_hour[o] := v_hour;
                    org_used[o] := v_after;
                    org_dirty[o] := true;
                END IF;
            END IF;

            IF NOT v_stands THEN
                FOR e IN u_first[i] .. u_last_notice[i] LOOP
                    seqs[e] := NULL;
                END LOOP;
                CONTINUE;
            END IF;
            IF v_seq > org_seq[o] THEN
                org_seq[o] := v_seq;
                org_dirty[o] := true;
                -- While one is fanned out, those after it are, too, so that every lane gets them in order.
                FOR e IN u_first[i] .. u_last_notice[i] LOOP
                    IF seqs[e] IS NOT NULL AND flags[e] & 1 = 0 AND (e_audience[e] < 0) IS NOT TRUE
                        AND e_deliveries[e] > 0 AND (e_large[e] OR org_fans[o] > 0)
                    THEN
                        flags[e] := flags[e] | 2;
                        begins_fan_out := begins_fan_out OR org_fans[o] = 0;
                        org_fans[o] := org_fans[o] + 1;
                    END IF;
                END LOOP;
            END IF;
        END IF;

        IF x IS NOT NULL THEN
            IF x_next[x] IS NULL THEN
                fan_seq[p] := NULL;
                org_fans[x_org[x]] := org_fans[x_org[x]] - 1;
                org_dirty[x_org[x]] := true;
            ELSE
                fan_after[p] := x_next[x];
            END IF;
        END IF;

        WHILE v_step < v_end LOOP
            k := n_entity[v_step];
            IF n_action[v_step] = 1 THEN
                k_revision[k] := coalesce(k_revision[k], 0) + 1;
                k_put[k] := v_step;
                is_scheduled := is_scheduled OR n_due_at[v_step] IS NOT NULL;
            ELSIF n_action[v_step] = 2 THEN
                k_revision[k] := NULL;
                k_count[k] := 0;
                k_version[k] := 0;
                k_put[k] := 0;
                k_gone[k] := v_step;
            ELSIF n_action[v_step] = 3 AND k_revision[k] IS NOT NULL THEN
                k_count[k] := greatest(k_count[k] + n_by[v_step], 0);
                k_version[k] := k_version[k] + 1;
            END IF;
            v_step := v_step + 1;
        END LOOP;
    END LOOP;

    -- 4. What is written, of the units that stand: first what others may wait for.
    IF cardinality(w_lane) > 0 THEN
        WITH w AS (
            UPDATE esl.subscriptions b
            SET active = false, disabled_reason = t.reason, held_since = v_now, updated_at = v_now
            FROM unnest(w_unit, w_lane, w_reason) AS t (unit, lane, reason), esl.organizations g
            WHERE codes[t.unit] = 0 AND b.lane = t.lane AND b.active AND b.deleted_at IS NULL
                AND g.key = b.organization AND g.deleted_at IS NULL
            RETURNING g.id AS organization, b.id AS subscription
        ),
        noted AS (
            INSERT INTO esl.audit (organization, at, actor_kind, action, subject, fields)
            SELECT w.organization, v_now, 'system', 'subscription.updated',
                convert_to('sub_' || esl.ulid_text_1(w.subscription), 'UTF8'), 'active'
            FROM w
        ),
        told AS (
            INSERT INTO esl.changes (author, kind, organization, at)
            SELECT DISTINCT p_handle, 1, w.organization, v_now FROM w
        )
        SELECT coalesce(array_agg(DISTINCT w.organization), '{}') INTO switched_off FROM w;
    END IF;
    IF cardinality(l_lane) > 0 THEN
        PERFORM esl.note_lanes_1(
            codes, l_unit, l_lane, l_failures, l_failed_deliveries, l_failing_since, l_open_probes,
            l_not_before, l_last_success_at, l_exhaustion_told_at
        );
    END IF;

    IF cardinality(x_unit) > 0 THEN
        -- Of an event that was erased meanwhile it is cancelled what would be owed.
        SELECT array_agg(codes[t.unit] = 0 AND coalesce(f.is_erased, false) ORDER BY t.n)
        INTO cancelled
        FROM unnest(x_unit, x_org, x_seq) WITH ORDINALITY AS t (unit, org, seq, n)
        LEFT JOIN LATERAL (
            SELECT v.erased_at IS NOT NULL AS is_erased FROM esl.events v
            WHERE v.organization = org_key[t.org] AND v.seq = t.seq LIMIT 1
        ) f ON true;
        INSERT INTO esl.open (lane, due_at, seq)
            SELECT t.lane, 0, x_seq[t.x] FROM unnest(xl_expand, xl_lane) AS t (x, lane)
            WHERE codes[x_unit[t.x]] = 0 AND NOT cancelled[t.x];
        INSERT INTO esl.closed (lane, seq, state, attempts, finished_at)
            SELECT t.lane, x_seq[t.x], 3, 0, v_now FROM unnest(xl_expand, xl_lane) AS t (x, lane)
            WHERE codes[x_unit[t.x]] = 0 AND cancelled[t.x];
        -- Of several slices of one the last says where it stands.
        WITH t AS (
            SELECT DISTINCT ON (t.org, t.seq) t.org, t.seq, t.next
            FROM unnest(x_unit, x_org, x_seq, x_next)
                WITH ORDINALITY AS t (unit, org, seq, next, n)
            WHERE codes[t.unit] = 0
            ORDER BY t.org, t.seq, t.n DESC
        ),
        f AS (
            SELECT f.place, t.next FROM t CROSS JOIN LATERAL (
                SELECT q.ctid AS place FROM esl.fan_outs q
                WHERE q.organization = org_key[t.org] AND q.seq = t.seq LIMIT 1
            ) f
        ),
        gone AS (
            DELETE FROM esl.fan_outs q USING f WHERE q.ctid = f.place AND f.next IS NULL
        )
        UPDATE esl.fan_outs q SET after_lane = f.next
            FROM f WHERE q.ctid = f.place AND f.next IS NOT NULL;
    END IF;

    IF n_events > 0 THEN
        DELETE FROM esl.intake q
            USING unnest(e_unit, e_id, e_intake) AS t (unit, id, intake)
            CROSS JOIN LATERAL (
                SELECT i.ctid AS place FROM esl.intake i
                WHERE i.id = t.intake AND i.event_id = t.id
                    AND i.organization = p_organizations[u_org[t.unit]]
                LIMIT 1
            ) f
            WHERE codes[t.unit] = 0 AND q.ctid = f.place;
        INSERT INTO esl.events (
                organization, seq, id, event_type, timestamp, deliveries, audience, digest, body, changes
            )
            SELECT org_key[u_org[t.unit]], seqs[t.n], t.id, t.type, t.at, t.count, t.audience,
                t.digest, t.body, t.changes
            FROM unnest(
                e_unit, e_id, e_event_type, e_at, e_deliveries, e_audience, e_digest, e_body, e_changes
            ) WITH ORDINALITY AS t (unit, id, type, at, count, audience, digest, body, changes, n)
            WHERE codes[t.unit] = 0 AND seqs[t.n] IS NOT NULL AND flags[t.n] & 1 = 0;
        INSERT INTO esl.open (lane, due_at, seq)
            SELECT t.lane, CASE WHEN e_audience[t.event] < 0 THEN greatest(v_now, 1) ELSE 0 END,
                seqs[t.event]
            FROM unnest(d_event, d_lane) AS t (event, lane)
            WHERE codes[e_unit[t.event]] = 0 AND seqs[t.event] IS NOT NULL
                AND flags[t.event] & 3 = 0;
        INSERT INTO esl.fan_outs (organization, seq, after_lane, last_lane, except_lane)
            SELECT org_key[u_org[t.unit]], seqs[t.n], 0, t.last_lane,
                CASE WHEN t.audience > 0 THEN t.audience END
            FROM unnest(e_unit, e_last_lane, e_audience)
                WITH ORDINALITY AS t (unit, last_lane, audience, n)
            WHERE codes[t.unit] = 0 AND seqs[t.n] IS NOT NULL AND flags[t.n] & 2 = 2;
        IF begins_fan_out THEN
            INSERT INTO esl.changes (author, kind, at) VALUES (p_handle, 8, v_now);
        END IF;
        IF is_keyed THEN
            INSERT INTO esl.idempotency (organization, key, fingerprint, answer, created_at)
                SELECT org_key[t.org], t.key, u_fingerprint[t.n], coalesce(
                    (
                        SELECT string_agg(
                            uuid_send(e_id[j]) || int8send(seqs[j]) || int4send(counts[j]::int),
                            ''::bytea ORDER BY j
                        )
                        FROM generate_series(u_first[t.n], u_last[t.n]) j
                    ),
                    ''::bytea
                ), v_now
                FROM unnest(u_org, u_key) WITH ORDINALITY AS t (org, key, n)
                WHERE t.key IS NOT NULL AND codes[t.n] = 0
            ON CONFLICT (organization, key) DO UPDATE SET
                fingerprint = excluded.fingerprint,
                answer = excluded.answer,
                created_at = excluded.created_at;
        END IF;
    END IF;

    IF n_steps > 0 THEN
        PERFORM esl.write_entities_1(
            codes, org_key, k_org, k_kind, k_id, k_place, k_revision, k_count, k_version, k_put,
            k_gone, n_unit, n_entity, n_created_at, n_updated_at, n_due_at, n_document, ni_step,
            ni_field, ni_value, ni_is_in
        );
        IF is_scheduled THEN
            INSERT INTO esl.changes (author, kind, at) VALUES (p_handle, 6, v_now);
        END IF;
    END IF;

    -- Settlements last, since they may be of what came to be in this group.
    IF cardinality(s_lane) > 0 THEN
        PERFORM esl.settle_1(
            codes, s_unit, s_lane, s_seq, s_outcome, s_due, s_attempts, s_charged, s_at, s_status,
            s_error, s_before, s_wave, a_settlement, a_number, a_started_at, a_status, a_error,
            a_detail, a_probe, a_charged, a_resolve_ns, a_connect_ns, a_tls_ns, a_first_byte_ns,
            a_total_ns
        );
    END IF;

    UPDATE esl.organizations g
        SET last_seq = org_seq[t.n], fan_outs = org_fans[t.n], used_hour = org_hour[t.n],
            used_events = org_used[t.n]
        FROM unnest(org_key) WITH ORDINALITY AS t (key, n)
        CROSS JOIN LATERAL (
            SELECT o.ctid AS place FROM esl.organizations o WHERE o.key = t.key LIMIT 1
        ) f
        WHERE org_dirty[t.n] AND g.ctid = f.place;
    INSERT INTO esl.handles VALUES (
        p_handle, p_number, v_now, codes, details, seqs, counts, flags, hours, used, firsts,
        cancelled, switched_off
    )
    ON CONFLICT (id) DO UPDATE SET
        number = excluded.number,
        used_at = excluded.used_at,
        answer_codes = excluded.answer_codes,
        answer_details = excluded.answer_details,
        answer_seqs = excluded.answer_seqs,
        answer_deliveries = excluded.answer_deliveries,
        answer_flags = excluded.answer_flags,
        answer_hours = excluded.answer_hours,
        answer_used = excluded.answer_used,
        answer_firsts = excluded.answer_firsts,
        answer_cancelled = excluded.answer_cancelled,
        answer_switched_off = excluded.answer_switched_off;
    RETURN NEXT;
END $$;
