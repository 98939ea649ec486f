use std::collections::BTreeSet;

use super::*;

/// Every command, with its path; those that only group others too.
fn commands() -> Vec<(String, Command)> {
    fn below(command: &Command, path: &str, all: &mut Vec<(String, Command)>) {
        for one in command.get_subcommands() {
            let path = format!("{path} {}", one.get_name()).trim().to_owned();
            below(one, &path, all);
            all.push((path, one.clone()));
        }
    }
    let mut all = Vec::new();
    below(&command(), "", &mut all);
    all
}

/// Words of a command line, up to a pipe or a redirection.
fn shell_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
            continue;
        }
        let own = part.split(['|', '>']).next().unwrap_or_default();
        words.extend(own.split_whitespace().map(str::to_owned));
        if own.len() < part.len() {
            break;
        }
    }
    words
}

fn parses(line: &str) {
    let placeholder = |word: String| match word.as_str() {
        "STAMP" => "20260407T060000Z".to_owned(),
        _ => word,
    };
    let words = shell_words(line).into_iter().map(placeholder);
    if let Err(error) = command().try_get_matches_from(words) {
        panic!("{line}\n{error}");
    }
}

#[test]
fn every_command_is_in_exactly_one_group() {
    let root = command();
    let mut grouped: Vec<&str> = GROUPS
        .iter()
        .flat_map(|(_, names)| *names)
        .copied()
        .collect();
    let mut commands: Vec<&str> = root.get_subcommands().map(Command::get_name).collect();
    grouped.sort_unstable();
    commands.sort_unstable();
    assert_eq!(grouped, commands, "add it to GROUPS in src/cli/help.rs");
}

#[test]
fn every_command_has_a_page_with_two_examples_that_run_it() {
    let commands = commands();
    for (path, command) in &commands {
        if command.has_subcommands() {
            continue;
        }
        let page = pages::of(path).unwrap_or_else(|| panic!("add {path} to help/pages.rs"));
        assert!(page.examples.len() >= 2, "{path}");
        for (line, purpose) in page.examples {
            let words = shell_words(line).join(" ");
            assert!(
                words.starts_with("sealift ") && words.contains(path),
                "{line}"
            );
            assert!(
                purpose.starts_with(char::is_uppercase) && !purpose.ends_with('.'),
                "{purpose}"
            );
            parses(line);
        }
    }
    for page in pages::all() {
        assert!(
            commands.iter().any(|(path, _)| path == page.command),
            "{}",
            page.command
        );
    }
    let unique: BTreeSet<&str> = pages::all().map(|page| page.command).collect();
    assert_eq!(unique.len(), pages::all().count());
}

#[test]
fn topics_fit_on_a_screen_and_their_commands_exist() {
    for name in topics::NAMES {
        let text = topics::text(name).unwrap();
        assert!(text.lines().count() <= 40, "{name}");
        let mut lines = text.lines().peekable();
        let mut found = 0;
        while let Some(line) = lines.next() {
            assert!(line.is_ascii() && line.len() <= COLUMNS, "{name}: {line}");
            let Some(code) = line.strip_prefix("    sealift ") else {
                continue;
            };
            let mut code = format!("sealift {code}");
            while code.ends_with('\\') {
                code.pop();
                code += lines.next().unwrap().trim_start();
            }
            let code = code.split(" # ").next().unwrap();
            parses(code);
            found += 1;
        }
        assert!(
            found >= 2 || ["exit-codes", "environment"].contains(name),
            "{name}"
        );
        let (_, after) = text.split_at(text.find('`').unwrap_or(text.len()));
        for quoted in after.split('`').skip(1).step_by(2) {
            if quoted.starts_with("sealift ") && !quoted.contains("COMMAND") {
                parses(quoted);
            }
        }
    }
    let root = command();
    let mut arguments = root.find_subcommand("help").unwrap().get_arguments();
    let listed = arguments.find_map(Arg::get_help).unwrap().to_string();
    assert!(
        topics::NAMES.iter().all(|name| listed.contains(name)),
        "{listed}"
    );
}

#[test]
fn words_of_peers_are_no_commands_and_their_tips_name_some() {
    let root = command();
    for (alias, meant) in peers::ALIASES {
        assert_eq!(root.find_subcommand(alias).unwrap().get_name(), *meant);
    }
    let words = peers::COMMANDS
        .iter()
        .map(|(word, tip)| (None, *word, *tip));
    let below = peers::SUBCOMMANDS.iter();
    let below = below.map(|(parent, word, tip)| (Some(*parent), *word, *tip));
    for (parent, word, tip) in words.chain(below) {
        let above = parent.map_or(&root, |parent| root.find_subcommand(parent).unwrap());
        assert!(
            above.find_subcommand(word).is_none(),
            "{word} is a command: remove its tip"
        );
        assert!(
            format!("{}: {tip}", peers::has_no(word)).len() <= COLUMNS,
            "{word}"
        );
        for quoted in tip.split('`').skip(1).step_by(2) {
            let named = quoted.split(' ').nth(1).unwrap();
            assert!(root.find_subcommand(named).is_some(), "{tip}");
        }
    }
}

#[test]
fn tips_for_options_of_peers_name_options_that_exist() {
    let mut known: BTreeSet<String> = BTreeSet::new();
    for (_, command) in commands() {
        known.extend(command.get_arguments().filter_map(long_name));
    }
    for (_, tip) in peers::OPTIONS {
        for word in tip
            .split([' ', ',', ';', '='])
            .filter(|word| word.starts_with("--"))
        {
            assert!(known.contains(word), "{tip}");
        }
    }
}

#[test]
fn a_long_second_column_is_wrapped_below_itself() {
    let text = columns_text(&[("a", &"word ".repeat(20)), ("abcdef", "x")], 3);
    for line in text.lines().filter(|line| line.contains("word")) {
        assert!(line.len() <= COLUMNS);
        assert_eq!(line.find("word"), Some(7));
    }
    assert!(text.ends_with("  abcdef\n       x\n"), "{text}");
}
