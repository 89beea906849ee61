-- Notes each settlement: which node has made it, and whose the lane was.
CREATE SCHEMA noted;
CREATE TABLE noted.settlements (
    number bigserial PRIMARY KEY,
    lane bigint NOT NULL,
    seq bigint NOT NULL,
    attempts bigint NOT NULL,
    is_last bool NOT NULL,
    node text NOT NULL,
    epoch int
);
CREATE FUNCTION noted.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO noted.settlements (lane, seq, attempts, is_last, node, epoch)
        SELECT NEW.lane, NEW.seq, NEW.attempts, TG_TABLE_NAME = 'closed',
            current_setting('application_name'),
            (SELECT o.epoch FROM esl.owners o WHERE o.lane = NEW.lane);
    RETURN NULL;
END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE ON esl.closed
    FOR EACH ROW EXECUTE FUNCTION noted.note();
CREATE TRIGGER note AFTER INSERT OR UPDATE ON esl.open
    FOR EACH ROW WHEN (NEW.attempts > 0) EXECUTE FUNCTION noted.note();
