"""What was promised, held against what was seen."""

from collections import Counter, defaultdict

from receivers import kind

# A receiver's answer is in the database after so long, unless something went wrong.
SETTLED_SECONDS = 3


async def judge(run, quiet):
    events = {
        organization.id: await all_events(organization) for organization in run.organizations
    }
    by_lane = defaultdict(list)
    for arrival in run.receivers.arrivals:
        by_lane[arrival.lane].append(arrival)
    nothing_is_lost(run, events, by_lane)
    again(run, quiet)
    limits_are_kept(run)
    strict_lanes_are_in_order(run, by_lane)
    if run.broker:
        the_broker_has_all(run, events)
    if run.way == "stops":
        one_at_a_time(run)
    if quiet:
        shares(run, quiet, by_lane)
    for peer in run.peers:
        run.failures += peer.failures


async def all_events(organization):
    """Of each event the id, by seq."""
    found, cursor = {}, ""
    while cursor is not None:
        after = f"&cursor={cursor}" if cursor else ""
        page = await organization.call("GET", f"/api/v1/events?limit=100{after}")
        found |= {event["seq"]: event for event in page["data"]}
        cursor = page["next_cursor"]
    return found


def nothing_is_lost(run, events, by_lane):
    acknowledged = lost = 0
    for number, organization in enumerate(run.organizations):
        stored = events[organization.id]
        if sorted(stored) != list(range(1, len(stored) + 1)):
            run.failures.append(f"{organization.name}: seqs have gaps")
        by_id = {event["id"]: event for event in stored.values()}
        of = Counter(event["envelope"]["data"].get("of") for event in stored.values())
        twice = [one for one, count in of.items() if count > 1]
        if twice:
            run.failures.append(f"{organization.name}: {len(twice)} published twice, as {twice[:3]}")
        for one, event in organization.acknowledged.items():
            known = by_id.get(event)
            acknowledged += 1
            if not known or known["envelope"]["data"].get("of") != one or known["seq"] != organization.seqs[event]:
                lost += 1
                run.failures.append(f"{organization.name}: {one} was acknowledged as {event}, which is {known}")
        for lane in (lane for lane in run.lanes() if lane.startswith(f"{number}/")):
            wanted = kind(lane).events.removesuffix("*")
            owed = {event["id"] for event in stored.values() if event["type"].startswith(wanted)}
            came = {arrival.event for arrival in by_lane[lane] if arrival.is_accepted}
            if owed != came:
                lost += len(owed - came)
                some = [by_id[one]["seq"] for one in owed - came][:5]
                run.failures.append(
                    f"{lane}: {len(owed - came)} of {len(owed)} never came, as {some}; "
                    f"{len(came - owed)} came that are not there"
                )
    tries = sum(organization.tries for organization in run.organizations)
    deliveries = len({arrival.delivery for arrival in run.receivers.arrivals})
    print(
        f"{acknowledged} events acknowledged in {tries} requests, {lost} lost; "
        f"{len(run.receivers.arrivals)} sends of {deliveries} deliveries"
    )


def again(run, quiet):
    """What came though it was accepted before, or under the number of an earlier attempt."""
    before, explained, counts = {}, Counter(), Counter(one.kind + " " + service(one) for one in run.faults)
    for arrival in run.receivers.arrivals:
        earlier = before.get(arrival.delivery)
        before[arrival.delivery] = arrival
        if not earlier or not earlier.is_accepted and earlier.attempt < arrival.attempt:
            continue
        why = explanation(run, earlier) or waking(run, arrival)
        if quiet and arrival.at < quiet.ended or not why:
            run.failures.append(f"came again without a reason: {earlier} and then {arrival}")
        explained[why] += 1
    print("faults: " + ", ".join(f"{count} × {what}" for what, count in counts.items()))
    reasons = "; ".join(f"{count} after {why}" for why, count in explained.items())
    print(f"{explained.total()} came again ({reasons or 'none'})" + (", 0 without faults" if quiet else ""))


def service(fault):
    return fault.who if fault.who in ("postgres", "rabbitmq") else "node"


def explanation(run, arrival):
    """What has kept this one's answer from being settled: its node's end or stop, or the database's."""
    until = (arrival.ended or arrival.at) + SETTLED_SECONDS
    # What a node had sent before it was killed may come to be read only then.
    is_over = lambda fault: fault.kind != "kill" and fault.ended is not None and fault.ended < arrival.at
    touches = lambda fault: fault.began <= until and not is_over(fault)
    of_postgres = [fault for fault in run.faults if fault.who == "postgres" and touches(fault)]
    for fault in of_postgres:
        # What waits for the database is settled then.
        until = max(until, fault.ended + SETTLED_SECONDS)
    of_node = [fault for fault in run.faults if fault.who == arrival.node and touches(fault)]
    if of_node:
        return f"{of_node[0].kind} node" + (", with the database away" if of_postgres else "")
    return f"{of_postgres[0].kind} postgres" if of_postgres else None


def waking(run, arrival):
    """Whether its node had begun to send it before it stood still for longer than its epoch."""
    for fault in run.faults:
        if run.way == "stops" and fault.who == arrival.node:
            if fault.ended <= arrival.at <= fault.ended + SETTLED_SECONDS:
                return "pause node, which then went on"
    return None


def limits_are_kept(run):
    # After a stop of more than an epoch, what was begun before is at the receiver still.
    if run.way == "stops":
        return
    for lane, most in run.receivers.most_open.items():
        if most > kind(lane).in_flight_max:
            run.failures.append(f"{lane}: {most} at once, of {kind(lane).in_flight_max}")


def strict_lanes_are_in_order(run, by_lane):
    for lane, arrivals in by_lane.items():
        if "strict" not in lane:
            continue
        # Of each seq, since when it is accepted.
        last, accepted, came = 0, {}, set()
        for arrival in arrivals:
            if arrival.seq not in came:
                if arrival.seq < last:
                    run.failures.append(f"{lane}: {arrival.seq} came after {last}, as {arrival}")
                if last and accepted.get(last, arrival.at) >= arrival.at:
                    run.failures.append(f"{lane}: {arrival.seq} came, and {last} was not accepted yet")
                last = max(last, arrival.seq)
                came.add(arrival.seq)
            if arrival.is_accepted:
                accepted.setdefault(arrival.seq, arrival.ended)


def the_broker_has_all(run, events):
    ingest, consumer = run.peers
    came_again = missing = 0
    for organization in run.organizations:
        stored = events[organization.id]
        of = defaultdict(list)
        for seq, event in stored.items():
            of[event["envelope"]["data"].get("of")].append(seq)
        for one in ingest.confirmed[organization.id]:
            if len(of[one]) != 1:
                run.failures.append(f"{organization.name}: {one} was confirmed, and is {len(of[one])} events")
        seqs = [seq for one in ingest.confirmed[organization.id] for seq in of[one]]
        passed = sum(later < earlier for earlier, later in zip(seqs, seqs[1:]))
        if passed:
            run.failures.append(f"{organization.name}: {passed} messages of esl.ingest were passed by later ones")
        came = consumer.came.get(organization.id, [])
        first = list(dict.fromkeys(came))
        came_again += len(came) - len(first)
        if first != sorted(first):
            run.failures.append(f"{organization.name}: esl.events is out of order")
        absent = {(seq, event["id"]) for seq, event in stored.items()} - set(first)
        missing += len(absent)
        if absent:
            some = sorted(absent)[:3]
            run.failures.append(f"{organization.name}: {len(absent)} events never went to the broker, as {some}")
    confirmed = sum(map(len, ingest.confirmed.values()))
    print(
        f"esl.ingest: {confirmed} messages confirmed in {ingest.tries} tries, each one event, in order; "
        f"esl.events: {missing} missing, {came_again} came again, in order"
    )


def one_at_a_time(run):
    """No two settle for a lane: each epoch is one node's, and each delivery ends once."""
    rows = run.postgres.ask("SELECT epoch, node, count(*) FROM noted.settlements GROUP BY 1, 2")
    nodes = defaultdict(set)
    for epoch, node, _ in rows:
        nodes[epoch].add(node)
    if any(len(names) > 1 for names in nodes.values()) or "" in nodes:
        run.failures.append(f"who has settled under which epoch: {dict(nodes)}")
    twice = run.postgres.ask(
        "SELECT lane, seq, count(*) FROM noted.settlements WHERE is_last GROUP BY 1, 2"
        " HAVING count(*) > 1 LIMIT 3"
    )
    late = run.postgres.ask(
        "SELECT s.lane, s.seq FROM noted.settlements s JOIN noted.settlements e USING (lane, seq)"
        " WHERE e.is_last AND s.number > e.number LIMIT 3"
    )
    if twice or late:
        run.failures.append(f"settled twice: {twice}; after the end: {late}")
    [[ends, retries, handed_over]] = run.postgres.ask(
        "SELECT count(*) FILTER (WHERE is_last), count(*) FILTER (WHERE NOT is_last),"
        " (SELECT count(*) FROM (SELECT epoch, lag(epoch) OVER (PARTITION BY lane ORDER BY number) AS former"
        " FROM noted.settlements) c WHERE epoch <> former)"
        " FROM noted.settlements"
    )
    void = sum(node.said("settlements are void") for node in run.nodes)
    lost = sum(node.said("epoch not renewed") for node in run.nodes)
    print(
        f"{ends} ends and {retries} retries settled, 0 twice; lanes changed hands {handed_over} times; "
        f"{lost} epochs lost, groups of settlements refused {void} times"
    )
    if not (handed_over != "0" and void):
        run.failures.append("no node has tried to settle for lanes that were another's by then")


def shares(run, quiet, by_lane):
    """How long it took until nodes that came and went had their share, and how long a receiver waited."""
    ends = [began for _, began in quiet.changes[1:]] + [quiet.ended]
    for (what, began), end in zip(quiet.changes, ends):
        moved, gaps, owners = [], [], Counter()
        for lane, arrivals in by_lane.items():
            if "failing" in lane:
                continue
            before = [one for one in arrivals if one.at < began]
            since = [one for one in arrivals if began <= one.at < end]
            if not before or not since:
                continue
            times = [before[-1].at, *(one.at for one in since)]
            gaps.append((max(b - a for a, b in zip(times, times[1:])), lane))
            owners[since[-1].node] += 1
            if since[-1].node != before[-1].node:
                moved.append(next(one.at for one in since if one.node == since[-1].node) - began)
        print(
            f"{what}: {len(moved)} lanes moved, the last after {max(moved, default=0):.1f} s; "
            f"the longest gap {max(gaps)[0]:.1f} s ({max(gaps)[1]}); {dict(sorted(owners.items()))}"
        )
