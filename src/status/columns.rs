//! Lays cells out in columns, as every table of `lon` is.

/// Space between columns.
const GAP: &str = "  ";

/// Characters that are shown of a cell of the last column, however narrow the lines are to be.
pub(crate) const LEAST_CELL: usize = 24;

/// The head of a column.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    text: &'static str,
    right: bool,
}

impl Head {
    /// Of a column of text.
    pub const fn left(text: &'static str) -> Head {
        Head { text, right: false }
    }

    /// Of a column of numbers.
    pub const fn right(text: &'static str) -> Head {
        Head { text, right: true }
    }
}

/// One line for the heads, one for each row, each with its newline. A column whose cells are all
/// empty is left out, a row that is too short counts as filled with empty cells, and no line ends
/// in spaces.
pub fn columns(heads: &[Head], rows: &[Vec<String>]) -> String {
    let cell = |row: &'_ [String], index: usize| row.get(index).cloned().unwrap_or_default();
    let filled = widths(heads, rows);
    let heads: Vec<String> = heads.iter().map(|head| head.text.to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&heads).chain(rows) {
        let cells: Vec<String> = filled
            .iter()
            .map(|&(index, head, widest)| {
                let cell = cell(row, index);
                let pad = " ".repeat(widest - width(&cell));
                if head.right { pad + &cell } else { cell + &pad }
            })
            .collect();
        text.push_str(cells.join(GAP).trim_end());
        text.push('\n');
    }
    text
}

/// The same in lines of at most `most` characters: what is too much is cut from the middle of the
/// last column's cells, of which [`LEAST_CELL`] characters are shown in any case.
pub fn columns_within(heads: &[Head], rows: &[Vec<String>], most: usize) -> String {
    let Some(last) = heads.len().checked_sub(1) else { return columns(heads, rows) };
    let others: Vec<Vec<String>> = rows.iter().map(|row| row.iter().take(last).cloned().collect()).collect();
    let taken = widths(heads, &others).iter().map(|(_, _, widest)| widest + GAP.len()).sum();
    let room = most.saturating_sub(taken).max(LEAST_CELL);
    let cut = |row: &Vec<String>| {
        let mut row = row.clone();
        if let Some(cell) = row.get_mut(last) {
            *cell = cut_middle(cell, room);
        }
        row
    };
    columns(heads, &rows.iter().map(cut).collect::<Vec<_>>())
}

/// The columns that have something in a row: their places, their heads, and how wide they are.
fn widths<'a>(heads: &'a [Head], rows: &[Vec<String>]) -> Vec<(usize, &'a Head, usize)> {
    let widest = |index: usize| rows.iter().filter_map(|row| row.get(index)).map(|cell| width(cell)).max();
    let filled = |(index, head): (usize, &'a Head)| {
        let widest = widest(index).filter(|&widest| widest > 0)?;
        Some((index, head, widest.max(width(head.text))))
    };
    heads.iter().enumerate().filter_map(filled).collect()
}

/// `text` in at most `most` characters: its beginning and its end, with a mark where it was cut.
/// What an error is about stands at its beginning, the cause at its end.
pub fn cut_middle(text: &str, most: usize) -> String {
    let length = width(text);
    if length <= most {
        return text.to_owned();
    }
    let kept = most.saturating_sub(1);
    let end = kept / 2;
    let mut short: String = text.chars().take(kept - end).collect();
    short.push('…');
    short.extend(text.chars().skip(length - end));
    short
}

/// `text` in at most `most` characters, with a mark where it was cut.
pub fn cut(text: &str, most: usize) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most.saturating_sub(1)).collect();
    short.push('…');
    short
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_empty_ones_left_out() {
        let rows = [vec!["é".to_owned(), String::new(), "7".to_owned()], vec!["long".to_owned()]];
        let heads = [Head::left("A"), Head::left("NONE"), Head::right("COUNT")];
        assert_eq!(columns(&heads, &rows), "A     COUNT\né         7\nlong\n");
    }

    #[test]
    fn a_cut_is_marked_and_within_the_bound() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("äbcd", 3), "äb…");
    }

    #[test]
    fn a_cut_in_the_middle_keeps_both_ends() {
        assert_eq!(cut_middle("abc", 3), "abc");
        assert_eq!(cut_middle("äbcdëf", 5), "äb…ëf");
        assert_eq!(cut_middle("abcdef", 4), "ab…f");
        assert_eq!(cut_middle("abc", 1), "…");
    }

    #[test]
    fn lines_that_are_too_long_lose_the_middle_of_their_last_cell_and_nothing_else() {
        let heads = [Head::left("PEER"), Head::left("NONE"), Head::left("ERROR")];
        let long = format!("connect 127.0.0.2: {} refused", "x".repeat(200));
        let rows =
            [vec!["msul1".to_owned(), String::new(), long.clone()], vec!["msul2".to_owned()], Vec::new()];
        let text = columns_within(&heads, &rows, 60);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(width(lines[1]), 60, "{text}");
        assert!(
            lines[1].starts_with("msul1  connect 127.0.0.2: x") && lines[1].ends_with("x refused"),
            "{text}"
        );
        assert_eq!(columns_within(&heads, &rows, 1000), columns(&heads, &rows));
        let narrow = columns_within(&heads, &rows, 5);
        assert_eq!(width(narrow.lines().nth(1).unwrap()), "msul1  ".len() + LEAST_CELL, "{narrow}");
    }
}
