//! Power cuts.

use esl_faulty_disk::{Image, Machine};

use crate::{
    check::{Found, check, note_the_hour},
    database,
    ledger::Ledger,
    life::Life,
    random, rounds, seeds,
};

const LIVES: u64 = 5;
const SURVIVORS: u64 = 2;

#[derive(Debug, Default)]
struct Totals {
    cuts: u64,
    found: Found,
}

#[test]
fn nothing_acknowledged_is_lost_in_power_cuts_and_nothing_is_there_by_halves() {
    note_the_hour();
    let (mut cuts, mut found) = (0, Found::default());
    for one in rounds(seeds(8), lives) {
        cuts += one.cuts;
        found += one.found;
    }
    println!(
        "{cuts} power cuts: of the events looked for after them {} were acknowledged and 0 of \
              those lost, {} were found though not acknowledged",
        found.acknowledged, found.unacknowledged
    );
    assert!(found.acknowledged > 0);
}

/// Some lives of one database, each of which ends with a cut.
async fn lives(seed: u64) -> Totals {
    let mut totals = Totals::default();
    let mut draws = random(seed, 100);
    let ledger = Ledger::default();
    let mut image = Image::new();
    for life in 0..LIVES {
        let machine = Machine::start(&image, draws.u64(..));
        // Most of what a life does comes after it has opened, and made, its database.
        let operations = if draws.bool() { draws.u64(1..200) } else { draws.u64(200..1500) };
        machine.cut_after(operations);
        match Life::open(database(&machine), &ledger) {
            Ok(living) => {
                let failures = living.run(seed * LIVES + life).await;
                assert!(failures.is_empty() || !machine.is_on(), "{failures:?}");
                machine.cut();
            }
            Err(error) => assert!(!machine.is_on(), "{error:?}"),
        }
        for survivor in 0..SURVIVORS {
            let left = machine.survivor();
            let is_last = survivor == SURVIVORS - 1;
            let ledger = if is_last { ledger.clone() } else { ledger.copy() };
            let again = Machine::start(&left, draws.u64(..));
            let living = Life::open(database(&again), &ledger).expect("it opens again");
            let found = check(&living, &mut draws).await;
            totals.cuts += 1;
            totals.found += found;
            again.cut();
            if is_last {
                image = again.survivor();
            }
        }
    }
    totals
}
