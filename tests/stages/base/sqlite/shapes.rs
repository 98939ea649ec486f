//! Databases that were made to harm the program that checks them.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rusqlite::Connection;

/// How a check of a shape must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It would go on for years: only its time ends it.
    Endless,
    /// It would take all memory, or more than a value may have.
    Heavy,
    /// Soon, with any outcome.
    Soon,
}

/// Runs an SQL script on a new database.
fn sql(path: &Path, script: &str) -> Connection {
    let db = Connection::open(path).unwrap();
    db.execute_batch(script).unwrap();
    db
}

/// Replaces text in the schema, where SQLite looks only when it is opened the next time.
fn edit_schema(db: &Connection, from: &str, to: &str) {
    db.execute_batch(&format!(
        "PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql = replace(sql, '{from}', '{to}')"
    ))
    .unwrap();
}

const CHEAP: &str = "instr(zeroblob(1),zeroblob(1))";
/// One call, which no progress handler interrupts.
const ENDLESS: &str = "instr(zeroblob(50000000),zeroblob(25000000)||x''01'')";

fn endless_generated_column(path: &Path) {
    let script = format!(
        "CREATE TABLE t(x, y INT GENERATED ALWAYS AS ({CHEAP}+x) VIRTUAL NOT NULL);
         INSERT INTO t(x) VALUES (1)"
    );
    edit_schema(&sql(path, &script), CHEAP, ENDLESS);
}

fn endless_check(path: &Path) {
    let script = format!("CREATE TABLE t(x CHECK ({CHEAP}+x>0)); INSERT INTO t VALUES (1)");
    edit_schema(&sql(path, &script), CHEAP, ENDLESS);
}

fn endless_expression_index(path: &Path) {
    let script =
        format!("CREATE TABLE t(x); CREATE INDEX i ON t({CHEAP}+x); INSERT INTO t VALUES (1)");
    edit_schema(&sql(path, &script), CHEAP, ENDLESS);
}

fn endless_partial_index(path: &Path) {
    let script = format!(
        "CREATE TABLE t(x); CREATE INDEX i ON t(x) WHERE {CHEAP}+x>0; INSERT INTO t VALUES (1)"
    );
    edit_schema(&sql(path, &script), CHEAP, ENDLESS);
}

fn many_slow_rows(path: &Path) {
    let db = sql(
        path,
        "CREATE TABLE t(x INT, y INT GENERATED ALWAYS AS (length(hex(zeroblob(x)))) VIRTUAL NOT NULL);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<100000)
         INSERT INTO t(x) SELECT 1 FROM n",
    );
    edit_schema(&db, "zeroblob(x)", "zeroblob(x+30000000)");
}

fn large_values(path: &Path) {
    let db = sql(
        path,
        "CREATE TABLE t(x INT, y INT GENERATED ALWAYS AS (length(hex(zeroblob(x)))) VIRTUAL NOT NULL);
         INSERT INTO t(x) VALUES (1)",
    );
    edit_schema(&db, "zeroblob(x)", "zeroblob(x+900000000)");
}

/// A table of one row whose columns are declared otherwise only when SQLite opens it the next time.
fn with_columns(path: &Path, columns: &str) {
    let db = sql(
        path,
        "CREATE TABLE t(x); INSERT INTO t(x) VALUES ('0123456789')",
    );
    db.execute_batch(&format!(
        "PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql = 'CREATE TABLE t({columns})'"
    ))
    .unwrap();
}

/// `x`, and `count` columns of which each is twice the one before.
fn doubling(kind: &str, operator: &str, count: u32) -> String {
    let column = |i: u32| {
        let before = if i == 0 {
            "x".to_owned()
        } else {
            format!("y{}", i - 1)
        };
        format!("y{i}{kind} GENERATED ALWAYS AS ({before}{operator}{before}) VIRTUAL")
    };
    format!("x,{}", (0..count).map(column).collect::<Vec<_>>().join(","))
}

fn doubling_columns(path: &Path) {
    with_columns(path, &format!("{} NOT NULL", doubling("", "+", 24)));
}

fn doubling_text(path: &Path) {
    with_columns(path, &format!("{} NOT NULL", doubling(" TEXT", "||", 24)));
}

/// A recursive view that the schema calls a table, so that its rows are counted.
fn view_as_table(path: &Path) {
    sql(
        path,
        "CREATE TABLE t(x); INSERT INTO t VALUES (1); PRAGMA writable_schema=ON;
         INSERT INTO sqlite_schema VALUES ('table', 'v', 'v', 2, 'CREATE VIEW v AS
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT i FROM n')",
    );
}

fn recursive_views(path: &Path) {
    sql(
        path,
        "CREATE TABLE t(x); CREATE VIEW v AS WITH RECURSIVE n(i) AS
         (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT i FROM n;
         CREATE TRIGGER r AFTER INSERT ON t BEGIN INSERT INTO t SELECT i FROM v; END",
    );
}

fn plain(path: &Path) {
    sql(
        path,
        "PRAGMA page_size=512; CREATE TABLE t(x);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<4000)
         INSERT INTO t SELECT randomblob(60) FROM n",
    );
}

fn patch(path: &Path, at: u64, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

/// The header counts four billion pages.
fn huge_header(path: &Path) {
    plain(path);
    patch(path, 28, &0xffff_fffe_u32.to_be_bytes());
}

/// As many pages as its header says, all of them holes.
fn huge_hole(path: &Path) {
    plain(path);
    let pages: u32 = 1 << 30;
    patch(path, 28, &pages.to_be_bytes());
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(u64::from(pages) * 512).unwrap();
}

fn free_list_loop(path: &Path) {
    plain(path);
    sql(path, "DELETE FROM t WHERE rowid % 2");
    let trunk = 5_u32;
    patch(path, 32, &trunk.to_be_bytes());
    patch(path, 36, &u32::MAX.to_be_bytes());
    let at = u64::from(trunk - 1) * 512;
    patch(path, at, &trunk.to_be_bytes());
    patch(path, at + 4, &120_u32.to_be_bytes());
}

/// Each interior page's right child is the root.
fn tree_with_cycles(path: &Path) {
    plain(path);
    let bytes = fs::read(path).unwrap();
    for (page, content) in bytes.chunks(512).enumerate().skip(1) {
        if content[0] == 5 {
            let at = page as u64 * 512;
            patch(path, at + 8, &2_u32.to_be_bytes());
        }
    }
}

fn noise_in_pages(path: &Path) {
    plain(path);
    let bytes = fs::metadata(path).unwrap().len();
    for page in 1..bytes / 512 {
        patch(path, page * 512 + 7 * (page % 60), &[0xff, 0, 1, 0xfe]);
    }
}

fn many_tables(path: &Path) {
    let tables: String = (0..5_000)
        .map(|i| format!("CREATE TABLE t{i}(a,b,c);"))
        .collect();
    sql(
        path,
        &format!("PRAGMA synchronous=OFF; BEGIN; {tables} COMMIT"),
    );
}

fn large_schema(path: &Path) {
    let comment = "x".repeat(200_000);
    let tables: String = (0..100)
        .map(|i| format!("CREATE TABLE t{i}(a /* {comment} */ DEFAULT '{comment}');"))
        .collect();
    sql(path, &format!("BEGIN; {tables} COMMIT"));
}

fn deep_expression(path: &Path) {
    let db = sql(
        path,
        "CREATE TABLE t(x CHECK (x+1)); INSERT INTO t VALUES (1)",
    );
    let deep = format!("{}x{}", "(".repeat(50_000), ")".repeat(50_000));
    edit_schema(&db, "x+1", &deep);
}

/// Twice as many joins as SQLite can plan, in a view, and thousands of terms.
fn large_view(path: &Path) {
    let terms = vec!["SELECT 1"; 400].join(" UNION ");
    sql(
        path,
        &format!("CREATE TABLE t(x); CREATE VIEW v AS {terms}"),
    );
}

fn all_wal_and_no_log(path: &Path) {
    plain(path);
    patch(path, 18, &[2, 2]);
}

pub type Make = fn(&Path);

/// By name; what a `quick_check` of it must not do for long.
pub const SHAPES: &[(&str, Make, End)] = &[
    (
        "endless-generated-column",
        endless_generated_column,
        End::Endless,
    ),
    ("endless-check", endless_check, End::Soon),
    (
        "endless-expression-index",
        endless_expression_index,
        End::Soon,
    ),
    ("endless-partial-index", endless_partial_index, End::Soon),
    ("many-slow-rows", many_slow_rows, End::Endless),
    ("large-values", large_values, End::Heavy),
    ("doubling-columns", doubling_columns, End::Heavy),
    ("doubling-text", doubling_text, End::Heavy),
    ("view-as-table", view_as_table, End::Soon),
    ("recursive-views", recursive_views, End::Soon),
    ("huge-header", huge_header, End::Soon),
    ("huge-hole", huge_hole, End::Soon),
    ("free-list-loop", free_list_loop, End::Soon),
    ("tree-with-cycles", tree_with_cycles, End::Soon),
    ("noise-in-pages", noise_in_pages, End::Soon),
    ("many-tables", many_tables, End::Soon),
    ("large-schema", large_schema, End::Soon),
    ("deep-expression", deep_expression, End::Soon),
    ("large-view", large_view, End::Soon),
    ("all-wal-and-no-log", all_wal_and_no_log, End::Soon),
];
