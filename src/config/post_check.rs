//! The `[[check]]` tables: what must be true after a restore in place, and in a drill.

mod raw;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::CommandLine;

pub(super) use raw::{RawExpect, RawFileCheck, RawPostCheck, RawSqlCheck, collect_checks};

/// One `[[check]]`.
#[derive(Debug, Clone)]
pub struct PostCheck {
    /// Unique.
    pub name: String,
    /// What is looked at.
    pub kind: PostCheckKind,
    /// It is part of a restore in place.
    pub in_restore: bool,
    /// It is part of a drill.
    pub in_drill: bool,
    /// It runs on the new content before the service is stopped, as well as after the start. Only
    /// checks of databases and files can.
    pub when_staged: bool,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// What a failure means, by the value that was found.
    pub explain: Vec<Explanation>,
}

/// What a check looks at.
#[derive(Debug, Clone)]
pub enum PostCheckKind {
    /// The answer of the service to a request.
    Http(HttpCheck),
    /// The single value that a query of a restored database returns.
    Sql(SqlCheck),
    /// The exit code of a command.
    Command(CommandLine),
    /// A restored file.
    File(FileCheck),
}

/// A request, and what is expected of the answer.
#[derive(Debug, Clone)]
pub struct HttpCheck {
    /// Such as `GET`.
    pub method: String,
    /// Begins with a slash; follows the base URL.
    pub path: String,
    /// Sent as JSON. `None`: no body.
    pub body: Option<Value>,
    /// The file of a bearer token. `None`: none is sent.
    pub token_file: Option<PathBuf>,
    /// The expected status.
    pub status: u16,
    /// What each JSON pointer (RFC 6901) of the answer must lead to.
    pub json: Vec<(String, Vec<Expectation>)>,
}

/// A query of one database.
#[derive(Debug, Clone)]
pub struct SqlCheck {
    /// The database: a source's name, or a path in the snapshot.
    pub database: String,
    /// Returns one value.
    pub query: String,
    /// What the value must be; at least one.
    pub expect: Vec<Expectation>,
}

/// What a file must be.
#[derive(Debug, Clone)]
pub struct FileCheck {
    /// A path in the snapshot, which is looked at where it is restored to; or an absolute path.
    pub path: PathBuf,
    /// Least size. `None`: any.
    pub min_bytes: Option<u64>,
    /// Owner and group. `None`: any.
    pub owner: Option<(u32, u32)>,
    /// Permission bits. `None`: any.
    pub mode: Option<u32>,
    /// A text that it contains. `None`: any content.
    pub contains: Option<String>,
}

/// A condition on a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectation {
    /// How the value is compared.
    pub operator: Operator,
    /// What it is compared with.
    pub with: Value,
}

/// How a value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operator {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// A number of at least.
    Ge,
    /// A number above.
    Gt,
    /// A number of at most.
    Le,
    /// A number below.
    Lt,
    /// A text that matches a pattern with `*` and `?`.
    Matches,
    /// Whether the value exists.
    Exists,
    /// An array, object or text with at least this length.
    LenGe,
}

impl Operator {
    const ALL: [(&'static str, Self); 9] = [
        ("eq", Self::Eq),
        ("ne", Self::Ne),
        ("ge", Self::Ge),
        ("gt", Self::Gt),
        ("le", Self::Le),
        ("lt", Self::Lt),
        ("matches", Self::Matches),
        ("exists", Self::Exists),
        ("len_ge", Self::LenGe),
    ];

    /// Returns the operator as the configuration names it.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, operator)| *operator == self);
        found.map_or("", |(name, _)| name)
    }

    fn named(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, operator)| *operator)
    }

    fn known() -> String {
        Self::ALL.map(|(name, _)| name).join(", ")
    }

    /// Returns what is wrong with `value` as the operand; `None`: nothing.
    fn fault_of(self, value: &Value) -> Option<&'static str> {
        let (is_good, what) = match self {
            Self::Eq | Self::Ne => (true, ""),
            Self::Ge | Self::Gt | Self::Le | Self::Lt => (value.is_number(), "a number"),
            Self::Matches => (value.is_string(), "a text"),
            Self::Exists => (value.is_boolean(), "true or false"),
            Self::LenGe => (value.is_u64(), "a length"),
        };
        (!is_good).then_some(what)
    }
}

/// What a failure with a certain value means.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The condition on the value that was found.
    pub of: Expectation,
    /// For the operator.
    pub text: String,
}
