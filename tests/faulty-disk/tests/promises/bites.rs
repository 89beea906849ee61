//! That the disk bites: without syncs, or without a journal, the same cuts do lose and tear.

use esl_faulty_disk::{Image, Machine};
use esl_sqlite::rusqlite::{self, Connection};

use crate::{database, random, seeds};

/// What has become of transactions that were acknowledged.
#[derive(Debug, Default)]
struct Toll {
    acknowledged: u64,
    lost: u64,
    torn: u64,
}

#[test]
fn without_syncs_acknowledged_transactions_are_lost_and_with_them_none_is() {
    let careless = toll("WAL", "OFF");
    let careful = toll("WAL", "FULL");
    println!("without syncs: {careless:?}; with them: {careful:?}");
    assert!(careless.lost * 10 > careless.acknowledged, "{careless:?}");
    assert!(careful.acknowledged > 0);
    assert_eq!((careful.lost, careful.torn), (0, 0), "{careful:?}");
}

#[test]
fn without_a_journal_a_torn_write_is_seen() {
    let toll = toll("OFF", "FULL");
    println!("without a journal: {toll:?}");
    assert!(toll.torn > 0, "{toll:?}");
}

/// Each transaction writes the same number into rows on many pages.
fn toll(journal: &str, synchronous: &str) -> Toll {
    let mut toll = Toll::default();
    for seed in seeds(60) {
        let mut draws = random(seed, 200);
        let machine = Machine::start(&Image::new(), seed);
        let acknowledged = write(&machine, journal, synchronous, draws.u64(1..200));
        let again = Machine::start(&machine.survivor(), seed);
        toll.acknowledged += acknowledged;
        match found(&again) {
            Ok((least, most)) => {
                toll.lost += acknowledged.saturating_sub(least);
                toll.torn += u64::from(least != most);
            }
            // Not even that is left that there is such a table.
            Err(_) if acknowledged == 0 => {}
            Err(_) => {
                toll.lost += acknowledged;
                toll.torn += u64::from(journal == "OFF");
            }
        }
    }
    toll
}

/// How many transactions were acknowledged before the power went.
fn write(machine: &Machine, journal: &str, synchronous: &str, operations: u64) -> u64 {
    let connection = Connection::open(database(machine)).unwrap();
    let setup = format!(
        "PRAGMA journal_mode = {journal}; PRAGMA synchronous = FULL;
         CREATE TABLE numbers (number INTEGER NOT NULL, filling BLOB NOT NULL);
         WITH RECURSIVE rows (row) AS (SELECT 1 UNION ALL SELECT row + 1 FROM rows WHERE row < 20)
         INSERT INTO numbers SELECT 0, zeroblob(3000) FROM rows;
         PRAGMA synchronous = {synchronous};"
    );
    connection.execute_batch(&setup).unwrap();
    machine.cut_after(operations);
    let mut acknowledged = 0;
    while connection.execute("UPDATE numbers SET number = number + 1", []).is_ok() {
        acknowledged += 1;
    }
    assert!(!machine.is_on());
    acknowledged
}

fn found(machine: &Machine) -> rusqlite::Result<(u64, u64)> {
    let connection = Connection::open(database(machine))?;
    let sql = "SELECT min(number), max(number) FROM numbers";
    connection.query_row(sql, [], |row| {
        Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, i64>(1)?.unsigned_abs()))
    })
}
