//! What a terminal of 80 columns or fewer shows after each change of the lines at its bottom.

use std::fmt;

/// The screens that a terminal showed, one after the other.
pub struct Frames {
    frames: Vec<Vec<String>>,
}

impl Frames {
    /// Plays `said` on a terminal. A frame ends where the rest of the screen is erased or the line is begun again.
    pub fn of(said: &str, columns: usize) -> Self {
        let mut screen = Screen {
            rows: vec![Vec::new()],
            row: 0,
            column: 0,
            columns,
        };
        let mut frames = Vec::new();
        let mut chars = said.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\r' => {
                    frames.push(screen.lines());
                    screen.column = 0;
                }
                '\n' => screen.down(),
                '\x1b' => {
                    assert_eq!(chars.next(), Some('['));
                    let mut number = String::new();
                    let order = loop {
                        match chars.next().expect("the end of an escape sequence") {
                            digit if digit.is_ascii_digit() || digit == '?' => number.push(digit),
                            order => break order,
                        }
                    };
                    screen.obey(order, &number);
                    if order == 'J' {
                        frames.push(screen.lines());
                    }
                }
                c => screen.put(c),
            }
        }
        frames.push(screen.lines());
        Self { frames }
    }

    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.frames.iter().flatten().map(String::as_str)
    }

    pub fn any(&self, is: impl Fn(&str) -> bool) -> bool {
        self.lines().any(is)
    }

    /// The screen at the end.
    pub fn last(&self) -> &[String] {
        self.frames.last().unwrap()
    }

    /// The numbers that stand before `unit`, of the lines that `is` chooses.
    pub fn numbers_before(&self, unit: &str, is: impl Fn(&str) -> bool) -> Vec<u32> {
        let lines = self.lines().filter(|line| is(line));
        let words =
            lines.filter_map(|line| line.split_once(unit)?.0.rsplit(' ').next()?.parse().ok());
        words.collect()
    }
}

impl fmt::Display for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for frame in &self.frames {
            writeln!(f, "---\n{}", frame.join("\n"))?;
        }
        Ok(())
    }
}

struct Screen {
    rows: Vec<Vec<char>>,
    row: usize,
    column: usize,
    columns: usize,
}

impl Screen {
    fn down(&mut self) {
        self.row += 1;
        if self.row == self.rows.len() {
            self.rows.push(Vec::new());
        }
    }

    fn put(&mut self, c: char) {
        if self.column == self.columns {
            self.column = 0;
            self.down();
        }
        let row = &mut self.rows[self.row];
        row.resize(row.len().max(self.column + 1), ' ');
        row[self.column] = c;
        self.column += 1;
    }

    fn obey(&mut self, order: char, number: &str) {
        match order {
            'A' => {
                self.row = self
                    .row
                    .checked_sub(number.parse().unwrap())
                    .expect("a row above")
            }
            'K' => self.rows[self.row].truncate(self.column),
            'J' => {
                self.rows[self.row].truncate(self.column);
                self.rows.truncate(self.row + 1);
            }
            other => panic!("no order {other:?}"),
        }
    }

    fn lines(&self) -> Vec<String> {
        let lines = self.rows.iter().map(|row| row.iter().collect::<String>());
        lines
            .map(|line| line.trim_end().to_owned())
            .filter(|line| !line.is_empty())
            .collect()
    }
}
