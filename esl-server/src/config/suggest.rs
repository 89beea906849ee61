//! What somebody may have meant.

/// The candidate nearest to `name`, unless all of them are far from it.
pub(super) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .min()
        .filter(|&(distance, candidate)| distance * 3 <= candidate.len())
        .map(|(_, candidate)| candidate)
}

/// How many letters must be put in, left out, replaced or swapped with their neighbour to get from
/// one name to the other (optimal string alignment).
fn distance(from: &str, to: &str) -> usize {
    let (from, to) = (from.as_bytes(), to.as_bytes());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for row in 1..=from.len() {
        let mut current = vec![row];
        for column in 1..=to.len() {
            let is_other = usize::from(from[row - 1] != to[column - 1]);
            let mut least =
                (last[column] + 1).min(current[column - 1] + 1).min(last[column - 1] + is_other);
            let is_swap = row > 1
                && column > 1
                && from[row - 1] == to[column - 2]
                && from[row - 2] == to[column - 1];
            if is_swap {
                least = least.min(before_last[column - 2] + 1);
            }
            current.push(least);
        }
        before_last = std::mem::replace(&mut last, current);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_letters() {
        for (from, to, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "abc", 0),
            ("abc", "abd", 1),
            ("abc", "acb", 1),
            ("ESL_LITSEN", "ESL_LISTEN", 1),
            ("ESL_RETRY_DELAY", "ESL_RETRY_DELAY_MS", 3),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!((distance(from, to), distance(to, from)), (expected, expected), "{from}");
        }
    }

    #[test]
    fn only_what_is_near_is_suggested() {
        let names = ["ESL_LISTEN", "ESL_LOG", "OAUTH_TOKEN_LIFETIME"];
        for (name, expected) in [
            ("ESL_LISTN", Some("ESL_LISTEN")),
            ("ESL_LOGS", Some("ESL_LOG")),
            ("ESL_TOKEN_LIFETIME", Some("OAUTH_TOKEN_LIFETIME")),
            ("ESL_SOMETHING_ELSE", None),
        ] {
            assert_eq!(nearest(name, names), expected, "{name}");
        }
    }
}
