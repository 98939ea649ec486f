//! A command as the configuration writes it.

/// A command of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// A line for the shell.
    Shell(String),
    /// A program and its arguments.
    Words(Vec<String>),
}

impl CommandLine {
    /// Returns the program only, for a log: the arguments may contain a password.
    pub fn brief(&self) -> String {
        let words: Vec<&str> = match self {
            Self::Shell(line) => line.split_whitespace().collect(),
            Self::Words(words) => words.iter().map(String::as_str).collect(),
        };
        // A shell line may begin with settings: `PGPASSWORD=… pg_dump`.
        let is_set = |word: &&&str| matches!(self, Self::Shell(_)) && word.contains('=');
        let set = words.iter().take_while(is_set).count();
        // A value with a blank goes on in the next word.
        let is_quoted = |word: &&str| word.contains(['\'', '"', '\\', '$', '`']);
        if words[..set].iter().any(is_quoted) {
            return "...".to_owned();
        }
        let program = words.get(set).copied().unwrap_or("...");
        match words.len() {
            1 => program.to_owned(),
            _ => format!("{program} ..."),
        }
    }
}

impl std::fmt::Display for CommandLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Shell(line) => f.write_str(line),
            Self::Words(words) => f.write_str(&words.join(" ")),
        }
    }
}
