//! "Did you mean": the nearest word by edit distance.

/// How many edits a typo may be away. Two letters swapped count as one.
const REACH: usize = 2;

/// The nearest of `candidates` that is near enough, and nearer than half of the word.
pub fn nearest(word: &str, candidates: Vec<&'static str>) -> Option<&'static str> {
    let near = |candidate: &&'static str| (distance(word, candidate), candidate.len().abs_diff(word.len()));
    let best = candidates.into_iter().min_by_key(near)?;
    let reach = REACH.min(word.chars().count() / 2);
    (distance(word, best) <= reach).then_some(best)
}

/// The optimal string alignment distance.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut least = change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    least = least.min(rows[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typos_find_their_word() {
        let words = || vec!["ps", "pull", "push", "images", "logs", "run", "rm", "container", "top"];
        assert_eq!(nearest("pss", words()), Some("ps"));
        assert_eq!(nearest("imgaes", words()), Some("images"));
        assert_eq!(nearest("logz", words()), Some("logs"));
        assert_eq!(nearest("contaner", words()), Some("container"));
        assert_eq!(nearest("xyzzy", words()), None);
        assert_eq!(nearest("foo", words()), None);
    }

    #[test]
    fn swapped_letters_are_one_edit() {
        assert_eq!(distance("rnu", "run"), 1);
        assert_eq!(distance("", "run"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
