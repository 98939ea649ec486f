//! A service that does not let go of its data: it is named, and nothing is replaced.

use super::{assert_unchanged, code};
use crate::support::service::Deployment;

#[test]
fn a_service_that_refuses_to_stop_is_named_and_keeps_its_data() {
    let deployment = Deployment::new();
    deployment.behave("refuse-stop");
    let before = deployment.state();
    let pid = deployment.pid().unwrap();
    let (report, said) = deployment.restore(&[], 1);
    assert_eq!(code(&report), "stop_failed");
    let expected = format!("(pid {pid}) still has one.db open");
    assert!(said.contains(&expected), "{expected}\n{said}");
    assert_eq!(report["state"], "undone");
    assert_unchanged(&deployment, &before, &said);
    assert_eq!(deployment.pid(), Some(pid));
    assert_eq!(deployment.strangers(), Vec::<String>::new());
}

#[test]
fn a_service_that_starts_itself_again_is_named() {
    let deployment = Deployment::new();
    deployment.behave("restart");
    let before = deployment.state();
    let (report, said) = deployment.restore(&[], 1);
    assert_eq!(code(&report), "stop_failed", "{said}");
    assert!(said.contains("(pid "), "{said}");
    assert_unchanged(&deployment, &before, &said);
}

/// It opens the database after the service has stopped, and writes from then on.
#[test]
fn a_program_that_writes_between_stop_and_exchange_is_named() {
    let deployment = Deployment::new();
    deployment.behave("write-late");
    let (report, said) = deployment.restore(&[], 1);
    assert_eq!(code(&report), "stop_failed", "{said}");
    assert!(said.contains("(pid "), "{said}");
    assert_eq!(deployment.generations(), [2, 2, 2, 2]);
    assert!(deployment.is_running());
}

#[test]
fn data_in_use_without_a_command_that_stops_it_is_refused() {
    let deployment = Deployment::new();
    let config = deployment.host.config();
    let lines = config.lines().filter(|line| {
        !["stop = ", "start = ", "stopped = "]
            .iter()
            .any(|key| line.starts_with(key))
    });
    let text: Vec<&str> = lines.collect();
    std::fs::write(deployment.host.path("c.toml"), text.join("\n")).unwrap();
    let before = deployment.state();
    let (report, said) = deployment.restore(&[], 1);
    assert_eq!(code(&report), "in_use");
    assert!(
        said.contains(&format!(
            "(pid {}) has one.db open",
            deployment.pid().unwrap()
        )),
        "{said}"
    );
    assert_unchanged(&deployment, &before, &said);
    deployment.service("stop");
    deployment.restore(&[], 0);
    assert_eq!(deployment.generations(), [1, 1, 1, 1]);
}

#[test]
fn a_busy_service_loses_nothing_when_it_is_rolled_back() {
    let deployment = Deployment::new();
    deployment.behave("busy leave-log");
    deployment.configure_also(super::ONLY_SECOND);
    std::thread::sleep(std::time::Duration::from_millis(200));
    let rows = |deployment: &Deployment| {
        let database = rusqlite::Connection::open(deployment.root().join("one/one.db")).unwrap();
        let rows: i64 = database
            .query_row("SELECT count(*) FROM work", [], |row| row.get(0))
            .unwrap();
        rows
    };
    let before = rows(&deployment);
    let (report, said) = deployment.restore(&[], 1);
    assert_eq!(report["state"], "rolled_back", "{said}");
    assert!(rows(&deployment) >= before && before > 2, "{said}");
    assert_eq!(deployment.generations(), [2, 2, 2, 2]);
}
