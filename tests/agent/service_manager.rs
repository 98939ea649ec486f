//! What the service manager receives (`sd_notify`): readiness, reloading, signs of life, and the end.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::scene::Scene;

struct Manager(UnixDatagram);

impl Manager {
    /// The next message. `None`: none comes within `time`.
    fn next(&self, time: Duration) -> Option<String> {
        self.0.set_read_timeout(Some(time)).unwrap();
        let mut bytes = [0; 4096];
        let read = self.0.recv(&mut bytes).ok()?;
        Some(String::from_utf8(bytes[..read].to_vec()).unwrap())
    }

    /// Waits for a message with this line; gives the whole message.
    fn wait_for(&self, line: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            assert!(Instant::now() < deadline, "no {line}");
            if let Some(message) = self.next(Duration::from_secs(1))
                && message.lines().any(|one| one == line)
            {
                return message;
            }
        }
    }

    /// Reads all that is there.
    fn drain(&self) {
        while self.next(Duration::from_millis(20)).is_some() {}
    }
}

#[test]
fn the_service_manager_sees_each_step_and_misses_a_scheduler_that_stopped() {
    let scene = Scene::new(1.0, "backup = \"0 6 * * *\"\nverify = \"off\"", "");
    let path = scene.host.path("notify");
    let manager = Manager(UnixDatagram::bind(&path).unwrap());
    let agent = scene.serve_with(|command| {
        command
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "1000000");
    });
    manager.wait_for("READY=1");
    for _ in 0..3 {
        manager.wait_for("WATCHDOG=1");
    }
    // The children have neither the socket nor the watchdog.
    scene.wait_for_runs("backup", 1);
    manager.drain();
    let began = Instant::now();
    let mut signs = 0;
    while began.elapsed() < Duration::from_secs(3) {
        let message = manager.next(Duration::from_secs(1));
        signs += usize::from(message.is_some_and(|text| text.contains("WATCHDOG=1")));
    }
    assert!((3..=14).contains(&signs), "{signs}");
    agent.signal(Signal::SIGHUP);
    let reloading = manager.wait_for("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    manager.wait_for("READY=1");
    agent.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(200));
    manager.drain();
    assert_eq!(manager.next(Duration::from_secs(2)), None);
    agent.signal(Signal::SIGCONT);
    manager.wait_for("WATCHDOG=1");
    agent.signal(Signal::SIGTERM);
    manager.wait_for("STOPPING=1");
    assert!(agent.wait().success());
}
