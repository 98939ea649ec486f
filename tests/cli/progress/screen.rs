//! What a terminal of 80 columns or fewer shows after each change of the lines at its bottom.

use std::fmt;

/// The screens that a terminal showed, one after the other.
pub struct Frames {
    frames: Vec<Vec<String>>,
}

/// The lines that a terminal shows in the end, those that scrolled away too, as if it were so wide that no line broke.
pub fn final_lines(said: &str) -> Vec<String> {
    let mut screen = Screen::new(usize::MAX);
    screen.play(said, |_| {});
    let rows = screen.rows.iter().map(|row| row.iter().collect::<String>());
    let mut lines: Vec<String> = rows.map(|row| row.trim_end().to_owned()).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

impl Frames {
    /// Plays `said` on a terminal. A frame ends where the rest of the screen is erased or the line is begun again.
    pub fn of(said: &str, columns: usize) -> Self {
        let mut frames = Vec::new();
        let mut screen = Screen::new(columns);
        screen.play(said, |screen| frames.push(screen.lines()));
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
    fn new(columns: usize) -> Self {
        Self {
            rows: vec![Vec::new()],
            row: 0,
            column: 0,
            columns,
        }
    }

    /// Shows `said`, and calls `at_frame` where a frame ends.
    fn play(&mut self, said: &str, mut at_frame: impl FnMut(&Self)) {
        let mut chars = said.chars();
        while let Some(c) = chars.next() {
            match c {
                '\r' => {
                    at_frame(self);
                    self.column = 0;
                }
                '\n' => self.down(),
                '\x1b' => {
                    assert_eq!(chars.next(), Some('['));
                    let mut number = String::new();
                    let order = loop {
                        match chars.next().expect("the end of an escape sequence") {
                            digit if digit.is_ascii_digit() || digit == '?' => number.push(digit),
                            order => break order,
                        }
                    };
                    self.obey(order, &number);
                    if order == 'J' {
                        at_frame(self);
                    }
                }
                c => self.put(c),
            }
        }
    }

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
            // A colour.
            'm' => {}
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
