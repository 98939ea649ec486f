//! Which of several names a mistyped one most likely means.

/// Returns the one of `known` that looks most like `key`. `None`: none of them is similar.
pub fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    let key = key.to_lowercase().replace('-', "_");
    // Of two names that are as near, the one with the same letters: they were exchanged.
    let others = |name: &str| name.chars().filter(|c| !key.contains(*c)).count();
    let scored = known
        .iter()
        .map(|name| (edit_distance(&key, name, usize::MAX), others(name), *name));
    let (steps, _, name) = scored.min()?;
    let is_part = name.contains(key.as_str()) || key.contains(name);
    (steps <= 1 + key.len().min(name.len()) / 3 || is_part).then_some(name)
}

/// Returns Levenshtein's distance of two texts in characters; if their lengths differ by more than
/// `limit`, a number above `limit`.
pub fn edit_distance(a: &str, b: &str, limit: usize) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > limit {
        return limit + 1;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
