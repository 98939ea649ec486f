//! Whatever fails in whatever order: no edge is lost, and nothing is sent again after its success
//! was recorded.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::stubs::Stub;
use super::{World, at, finding, verdict};
use crate::jobs::notify::{deliver, evaluate};
use crate::jobs::verdict::FindingCode::{DiskLow, TargetStale};
use crate::jobs::verdict::Severity::{Amber, Red};
use crate::jobs::verdict::Verdict;
use crate::notify::{self, NotifyItem};
use crate::state::history::History;

#[derive(Debug, Clone)]
enum Step {
    /// The findings change: 0 gone, 1 amber, 2 red.
    Change(u8, u8),
    /// Time passes, in seconds.
    Pass(i64),
    Evaluate,
    Deliver,
    /// The channel stops or begins to answer.
    Down(bool),
    /// A process sends the next item and dies before it records that.
    CrashAfterSending,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0u8..3, 0u8..3).prop_map(|(one, two)| Step::Change(one, two)),
        3 => prop_oneof![Just(10i64), Just(40), Just(400), Just(4_000)].prop_map(Step::Pass),
        5 => Just(Step::Evaluate),
        4 => Just(Step::Deliver),
        1 => any::<bool>().prop_map(Step::Down),
        1 => Just(Step::CrashAfterSending),
    ];
    proptest::collection::vec(step, 1..40)
}

fn of(levels: (u8, u8)) -> Verdict {
    let mut findings = Vec::new();
    for (level, code) in [(levels.0, DiskLow), (levels.1, TargetStale)] {
        match level {
            1 => findings.push(finding(code, Amber, "amber")),
            2 => findings.push(finding(code, Red, "red")),
            _ => {}
        }
    }
    verdict(&findings)
}

struct Scene {
    stub: Stub,
    world: World,
    history: History,
    levels: (u8, u8),
    now: i64,
    /// Ids of the messages that a dying process sent.
    sent_twice: BTreeSet<String>,
}

impl Scene {
    fn new() -> Self {
        let stub = Stub::http();
        let channel = format!(
            "[[notify]]\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{}/\"\nhold = \"1m\"\nmin_interval = \"5m\"\n\
             repeat = \"off\"\n",
            stub.port
        );
        let world = World::new(&channel);
        Self {
            history: world.history(),
            world,
            stub,
            levels: (0, 0),
            now: 0,
            sent_twice: BTreeSet::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        let history = match step {
            // A process of its own.
            Step::CrashAfterSending => &self.world.history(),
            _ => &self.history,
        };
        let (config, now) = (&self.world.config, at(self.now));
        match step {
            Step::Change(one, two) => self.levels = (*one, *two),
            Step::Pass(seconds) => self.now += seconds,
            Step::Evaluate => evaluate(config, history, &of(self.levels), None, now).unwrap(),
            Step::Deliver => drop(deliver(config, history, now).unwrap()),
            Step::Down(is_down) => self.stub.answer(if *is_down { 503 } else { 200 }),
            Step::CrashAfterSending => {
                let outbox = history.outbox().unwrap();
                let Some(item) = outbox.iter().find(|item| item.due_at <= now) else {
                    return;
                };
                let parsed: NotifyItem = serde_json::from_str(&item.item).unwrap();
                let sent = notify::send(&config.channels[0], &parsed, notify::NETWORK_TIMEOUT);
                let NotifyItem::Message(message) = parsed else {
                    return;
                };
                if sent.is_ok() {
                    self.sent_twice.insert(message.id);
                }
            }
        }
    }

    /// Lets the agent run for 40 minutes with a channel that works.
    fn settle(&mut self) {
        self.step(&Step::Down(false));
        for _ in 0..40 {
            self.step(&Step::Pass(60));
            self.step(&Step::Evaluate);
            self.step(&Step::Deliver);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_edge_is_lost_and_none_is_sent_twice(steps in steps()) {
        let mut scene = Scene::new();
        for step in &steps {
            scene.step(step);
        }
        scene.settle();
        // What a reader knows of each finding, message by message.
        let mut times = BTreeMap::<String, usize>::new();
        let mut known = BTreeMap::<String, u8>::new();
        let got = scene.stub.take();
        for message in &got {
            let message = message.json();
            let id = message["id"].as_str().unwrap().to_owned();
            let number = times.entry(id).or_default();
            *number += 1;
            if *number > 1 {
                continue;
            }
            for one in message["new"].as_array().unwrap() {
                let level = if one["severity"] == "red" { 2 } else { 1 };
                known.insert(one["code"].as_str().unwrap().to_owned(), level);
            }
            for one in message["resolved"].as_array().unwrap() {
                let code = one["code"].as_str().unwrap();
                prop_assert!(known.remove(code).is_some(), "an end without a begin: {message}");
            }
        }
        let (one, two) = scene.levels;
        let mut wanted = BTreeMap::new();
        for (code, level) in [("disk_low", one), ("target_stale", two)] {
            if level > 0 {
                wanted.insert(code.to_owned(), level);
            }
        }
        prop_assert_eq!(known, wanted);
        for (id, number) in times {
            let most = if scene.sent_twice.contains(&id) { usize::MAX } else { 1 };
            prop_assert!(number <= most, "{} came {} times", id, number);
        }
        prop_assert_eq!(scene.world.history().outbox().unwrap(), []);
    }
}
