//! Lays cells out in columns, as every table of `lon` is.

/// Space between columns.
const GAP: &str = "  ";

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

/// One line for the heads, one for each row, each with its newline. A column whose cells are all empty is left out,
/// a row that is too short counts as filled with empty cells, and no line ends in spaces.
pub fn columns(heads: &[Head], rows: &[Vec<String>]) -> String {
    let cell = |row: &'_ [String], index: usize| row.get(index).cloned().unwrap_or_default();
    let filled: Vec<(usize, &Head, usize)> = heads
        .iter()
        .enumerate()
        .filter_map(|(index, head)| {
            let widest =
                rows.iter().map(|row| width(&cell(row, index))).max().filter(|&widest| widest > 0)?;
            Some((index, head, widest.max(width(head.text))))
        })
        .collect();
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
}
