//! The `[[check]]` tables as the file has them, and their validation.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use toml::Spanned;

use super::{
    Expectation, Explanation, FileCheck, HttpCheck, Operator, PostCheck, PostCheckKind, SqlCheck,
};
use crate::config::document::ConfigDocument;
use crate::config::error::ConfigError;
use crate::config::raw_command::RawCommand;
use crate::config::value::{self, ValueText, optional};

/// How long one attempt of a check may take if the configuration does not say.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// `[[check]]` as the file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawPostCheck {
    name: Spanned<String>,
    http: Option<Spanned<String>>,
    body: Option<Spanned<Value>>,
    token_file: Option<Spanned<String>>,
    expect: Option<Spanned<RawExpect>>,
    explain: Option<BTreeMap<Spanned<String>, String>>,
    sql: Option<Spanned<RawSqlCheck>>,
    command: Option<Spanned<RawCommand>>,
    file: Option<Spanned<RawFileCheck>>,
    when: Option<Spanned<Vec<Spanned<String>>>>,
    phase: Option<Spanned<String>>,
    timeout: Option<Spanned<ValueText>>,
}

/// `expect` of an HTTP check.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawExpect {
    status: Option<Spanned<u16>>,
    json: Option<BTreeMap<Spanned<String>, Spanned<Value>>>,
}

/// `sql` of a check. The other keys are operators.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawSqlCheck {
    database: String,
    query: Spanned<String>,
    eq: Option<Spanned<Value>>,
    ne: Option<Spanned<Value>>,
    ge: Option<Spanned<Value>>,
    gt: Option<Spanned<Value>>,
    le: Option<Spanned<Value>>,
    lt: Option<Spanned<Value>>,
    matches: Option<Spanned<Value>>,
}

/// `file` of a check.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawFileCheck {
    path: Spanned<String>,
    min_bytes: Option<Spanned<ValueText>>,
    owner: Option<Spanned<ValueText>>,
    mode: Option<Spanned<ValueText>>,
    contains: Option<String>,
}

/// Validates the `[[check]]` tables. One with the name of one of `defaults` replaces that one.
pub(in crate::config) fn collect_checks(
    document: &ConfigDocument<'_>,
    raw: &[Spanned<RawPostCheck>],
    defaults: Vec<PostCheck>,
) -> Result<Vec<PostCheck>, ConfigError> {
    let mut checks = defaults;
    let mut names = BTreeSet::new();
    for spanned in raw {
        let check = spanned.get_ref().validate(document, &spanned.span())?;
        let name_span = spanned.get_ref().name.span();
        if check.name.is_empty() || !names.insert(check.name.clone()) {
            let what = format!("check name {:?} is empty or used twice", check.name);
            return Err(document.invalid(&name_span, what));
        }
        match checks.iter_mut().find(|known| known.name == check.name) {
            Some(known) => *known = check,
            None => checks.push(check),
        }
    }
    Ok(checks)
}

impl RawPostCheck {
    fn validate(
        &self,
        document: &ConfigDocument<'_>,
        span: &std::ops::Range<usize>,
    ) -> Result<PostCheck, ConfigError> {
        let kind = self.kind(document, span)?;
        let is_http = matches!(kind, PostCheckKind::Http(_));
        let of_http = [
            ("body", self.body.as_ref().map(Spanned::span)),
            ("token_file", self.token_file.as_ref().map(Spanned::span)),
            ("expect", self.expect.as_ref().map(Spanned::span)),
        ];
        for (key, misplaced) in of_http {
            if let Some(misplaced) = misplaced.filter(|_| !is_http) {
                let what = format!("{key:?} has no effect without `http`");
                return Err(document.invalid(&misplaced, what));
            }
        }
        let (in_restore, in_drill) = self.when(document)?;
        Ok(PostCheck {
            name: self.name.get_ref().clone(),
            when_staged: self.when_staged(document, &kind)?,
            kind,
            in_restore,
            in_drill,
            timeout: optional(document, &self.timeout, value::parse_duration)?
                .unwrap_or(ATTEMPT_TIMEOUT),
            explain: self.explain(document)?,
        })
    }

    fn kind(
        &self,
        document: &ConfigDocument<'_>,
        span: &std::ops::Range<usize>,
    ) -> Result<PostCheckKind, ConfigError> {
        match (&self.http, &self.sql, &self.command, &self.file) {
            (Some(http), None, None, None) => self.http(document, http),
            (None, Some(sql), None, None) => sql.get_ref().validate(document, &sql.span()),
            (None, None, Some(command), None) => match command.get_ref().is_empty() {
                true => Err(document.invalid(&command.span(), "`command` names no program")),
                false => Ok(PostCheckKind::Command(command.get_ref().line())),
            },
            (None, None, None, Some(file)) => file.get_ref().validate(document),
            _ => {
                let what = "a check has one of `http`, `sql`, `command` and `file`";
                Err(document.invalid(span, what))
            }
        }
    }

    fn http(
        &self,
        document: &ConfigDocument<'_>,
        http: &Spanned<String>,
    ) -> Result<PostCheckKind, ConfigError> {
        const METHODS: [&str; 3] = ["GET", "HEAD", "POST"];
        let request = http.get_ref().split_once(' ');
        let request = request.map(|(method, path)| (method, path.trim()));
        let Some((method, path)) = request.filter(|(method, path)| {
            METHODS.contains(method)
                && path.starts_with('/')
                && !path.contains(|c: char| c.is_whitespace() || c.is_control())
        }) else {
            let what = format!(
                "{:?} is not a request such as \"GET /health\" (methods: {})",
                http.get_ref(),
                METHODS.join(", ")
            );
            return Err(document.invalid(&http.span(), what));
        };
        let expect = self.expect.as_ref().map(Spanned::get_ref);
        let status = expect.and_then(|expect| expect.status.as_ref());
        if let Some(status) = status.filter(|status| !(100..600).contains(status.get_ref())) {
            let what = format!("{} is not an HTTP status", status.get_ref());
            return Err(document.invalid(&status.span(), what));
        }
        let mut json = Vec::new();
        for (pointer, wanted) in expect.and_then(|e| e.json.as_ref()).into_iter().flatten() {
            let text = pointer.get_ref();
            if !text.is_empty() && !text.starts_with('/') {
                let what = format!("{text:?} is not a JSON pointer such as \"/documents\"");
                return Err(document.invalid(&pointer.span(), what));
            }
            json.push((text.clone(), expectations(document, wanted)?));
        }
        Ok(PostCheckKind::Http(HttpCheck {
            method: method.to_owned(),
            path: path.to_owned(),
            body: self.body.as_ref().map(|body| body.get_ref().clone()),
            token_file: self
                .token_file
                .as_ref()
                .map(|path| document.resolve(path.get_ref())),
            status: status.map_or(200, |status| *status.get_ref()),
            json,
        }))
    }

    fn when(&self, document: &ConfigDocument<'_>) -> Result<(bool, bool), ConfigError> {
        let Some(when) = &self.when else {
            return Ok((true, true));
        };
        let mut chosen = (false, false);
        for word in when.get_ref() {
            match word.get_ref().as_str() {
                "restore" => chosen.0 = true,
                "drill" => chosen.1 = true,
                other => {
                    let what = format!("when: {other:?} is neither \"restore\" nor \"drill\"");
                    return Err(document.invalid(&word.span(), what));
                }
            }
        }
        match chosen {
            (false, false) => {
                let what = "`when` is empty: name \"restore\", \"drill\" or both";
                Err(document.invalid(&when.span(), what))
            }
            _ => Ok(chosen),
        }
    }

    fn when_staged(
        &self,
        document: &ConfigDocument<'_>,
        kind: &PostCheckKind,
    ) -> Result<bool, ConfigError> {
        let Some(phase) = &self.phase else {
            return Ok(false);
        };
        let is_possible = matches!(kind, PostCheckKind::Sql(_) | PostCheckKind::File(_));
        match (phase.get_ref().as_str(), is_possible) {
            ("staged", true) => Ok(true),
            ("started", _) => Ok(false),
            ("staged", false) => {
                let what = "only a check of kind `sql` or `file` can run before the start";
                Err(document.invalid(&phase.span(), what))
            }
            (other, _) => {
                let what = format!("phase is \"started\" or \"staged\", not {other:?}");
                Err(document.invalid(&phase.span(), what))
            }
        }
    }

    /// Parses the keys of `explain`, such as `eq:0`.
    fn explain(&self, document: &ConfigDocument<'_>) -> Result<Vec<Explanation>, ConfigError> {
        let entries = self.explain.iter().flatten().map(|(key, text)| {
            let parsed = key.get_ref().split_once(':').and_then(|(name, operand)| {
                let operator = Operator::named(name)?;
                let with = serde_json::from_str(operand);
                let with = with.unwrap_or_else(|_| Value::String(operand.to_owned()));
                let is_good = operator.fault_of(&with).is_none();
                is_good.then_some(Expectation { operator, with })
            });
            match parsed {
                Some(of) => Ok(Explanation {
                    of,
                    text: text.clone(),
                }),
                None => {
                    let what = format!(
                        "explain: {:?} is not a condition such as \"eq:0\"",
                        key.get_ref()
                    );
                    Err(document.invalid(&key.span(), what))
                }
            }
        });
        entries.collect()
    }
}

/// Returns the conditions that `wanted` stands for: a table of operators, or a value to be equal
/// to.
fn expectations(
    document: &ConfigDocument<'_>,
    wanted: &Spanned<Value>,
) -> Result<Vec<Expectation>, ConfigError> {
    let Value::Object(operators) = wanted.get_ref() else {
        return Ok(vec![Expectation {
            operator: Operator::Eq,
            with: wanted.get_ref().clone(),
        }]);
    };
    let parsed = operators.iter().map(|(name, with)| {
        let Some(operator) = Operator::named(name) else {
            let what = format!("unknown condition {name:?} (known: {})", Operator::known());
            return Err(document.invalid(&wanted.span(), what));
        };
        expectation(document, operator, with, &wanted.span())
    });
    let parsed: Vec<Expectation> = parsed.collect::<Result<_, _>>()?;
    match parsed.is_empty() {
        true => {
            let what = format!("no condition: name one of {}", Operator::known());
            Err(document.invalid(&wanted.span(), what))
        }
        false => Ok(parsed),
    }
}

fn expectation(
    document: &ConfigDocument<'_>,
    operator: Operator,
    with: &Value,
    span: &std::ops::Range<usize>,
) -> Result<Expectation, ConfigError> {
    match operator.fault_of(with) {
        Some(kind) => {
            let what = format!("`{}` needs {kind}", operator.name());
            Err(document.invalid(span, what))
        }
        None => Ok(Expectation {
            operator,
            with: with.clone(),
        }),
    }
}

impl RawSqlCheck {
    fn validate(
        &self,
        document: &ConfigDocument<'_>,
        span: &std::ops::Range<usize>,
    ) -> Result<PostCheckKind, ConfigError> {
        let operands = [
            (Operator::Eq, &self.eq),
            (Operator::Ne, &self.ne),
            (Operator::Ge, &self.ge),
            (Operator::Gt, &self.gt),
            (Operator::Le, &self.le),
            (Operator::Lt, &self.lt),
            (Operator::Matches, &self.matches),
        ];
        let operands = operands.into_iter();
        let expect = operands.filter_map(|(operator, with)| Some((operator, with.as_ref()?)));
        let expect = expect
            .map(|(operator, with)| expectation(document, operator, with.get_ref(), &with.span()))
            .collect::<Result<Vec<_>, _>>()?;
        if self.query.get_ref().trim().is_empty() {
            return Err(document.invalid(&self.query.span(), "the query is empty"));
        }
        if expect.is_empty() {
            let what = "say what the query must return, such as `ge = 1`";
            return Err(document.invalid(span, what));
        }
        Ok(PostCheckKind::Sql(SqlCheck {
            database: self.database.clone(),
            query: self.query.get_ref().clone(),
            expect,
        }))
    }
}

impl RawFileCheck {
    fn validate(&self, document: &ConfigDocument<'_>) -> Result<PostCheckKind, ConfigError> {
        let path = PathBuf::from(self.path.get_ref());
        let is_bad = |part: &str| matches!(part, "" | "." | "..") || part.contains('\0');
        let relative = self.path.get_ref().trim_start_matches('/');
        if relative.split('/').any(is_bad) {
            let what = format!("{:?} is not a path of a file", self.path.get_ref());
            return Err(document.invalid(&self.path.span(), what));
        }
        Ok(PostCheckKind::File(FileCheck {
            path,
            min_bytes: optional(document, &self.min_bytes, value::parse_size)?,
            owner: optional(document, &self.owner, value::parse_owner)?,
            mode: optional(document, &self.mode, value::parse_mode)?,
            contains: self.contains.clone(),
        }))
    }
}
