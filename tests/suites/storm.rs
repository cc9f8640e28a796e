//! Many containers at once, and monitors and clients that die in the middle of it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Wharf, eventually, wharf};

const CONTAINERS: usize = 200;
const VICTIMS: usize = 50;

/// 200 clients at once: each container is recorded, none is lost, no name or id is given twice.
/// Then 50 monitors and clients are killed: the next `ps -a` knows, and `rm -f` leaves nothing.
#[test]
fn two_hundred_at_once_and_fifty_killed() {
    let wharf = Wharf::with_busybox();
    let clients: Vec<Child> = (0..CONTAINERS)
        .map(|_| wharf.spawn(&["run", "-d", "--network", "none", "busybox", "sleep", "10000"]))
        .collect();
    let told: BTreeSet<String> = clients.into_iter().map(end).collect();
    assert_eq!(told.len(), CONTAINERS, "an id was told twice");
    let rows = rows(&wharf);
    assert_eq!(rows.keys().cloned().collect::<BTreeSet<_>>(), told, "recorded, and told to the clients");
    let names: BTreeSet<_> = rows.values().map(|row| &row.name).collect();
    assert_eq!(names.len(), CONTAINERS, "a name was given twice");
    assert!(rows.values().all(|row| row.state == "running"), "{rows:?}");

    // Clients that are attached, so that there are some to kill.
    let mut attached: Vec<Child> =
        (0..VICTIMS).map(|_| wharf.spawn(&["run", "--network", "none", "busybox", "sleep", "10000"])).collect();
    eventually("all of them run", Duration::from_secs(60), || {
        (wharf.ok(&["ps", "-q", "--filter", "status=running"]).lines().count() == CONTAINERS + VICTIMS).then_some(())
    });

    let monitors = wharf.monitors();
    let mut pids: Vec<u32> = monitors.keys().copied().chain(attached.iter().map(Child::id)).collect();
    let mut random = Random::new();
    let victims: Vec<u32> = (0..VICTIMS).map(|_| pids.swap_remove(random.below(pids.len()))).collect();
    for &victim in &victims {
        let pid = i32::try_from(victim).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, Signal::KILL).expect("a living process");
    }
    let dead: BTreeSet<&String> = victims.iter().filter_map(|pid| monitors.get(pid)).collect();

    let rows = self::rows(&wharf);
    assert_eq!(rows.len(), CONTAINERS + VICTIMS);
    for (id, row) in &rows {
        let expected = if dead.contains(id) { ("exited", "Exited (137) ") } else { ("running", "Up ") };
        assert!(row.state == expected.0 && row.status.starts_with(expected.1), "{id}: {row:?}, {} killed", dead.len());
    }
    // The clients of killed monitors have noticed; those of the living are waiting, or dead themselves.
    wharf.sweep();
    for client in &mut attached {
        wharf::wait(client, "an attached run");
    }
}

#[derive(Debug)]
struct Row {
    name: String,
    state: String,
    status: String,
}

/// `ps -a`, by id.
fn rows(wharf: &Wharf) -> BTreeMap<String, Row> {
    let format = "{{.ID}}\t{{.Names}}\t{{.State}}\t{{.Status}}";
    let table = wharf.ok(&["ps", "-a", "--no-trunc", "--format", format]);
    let mut rows = BTreeMap::new();
    for line in table.lines() {
        let mut cells = line.split('\t').map(str::to_owned);
        let mut cell = || cells.next().unwrap_or_else(|| panic!("four cells: {line}"));
        let id = cell();
        let row = Row { name: cell(), state: cell(), status: cell() };
        assert!(rows.insert(id, row).is_none(), "twice: {line}");
    }
    rows
}

/// What a `run -d` printed, once it has ended well.
fn end(child: Child) -> String {
    let out = child.wait_with_output().expect("a child");
    assert!(out.status.success(), "{}: {}", out.status, String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim_end().to_owned()
}

/// Numbers from a seed that is printed, so that a failure can be had again (xorshift64).
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = std::env::var("WHARF_STORM_SEED").ok().and_then(|s| s.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        eprintln!("WHARF_STORM_SEED={seed}");
        Random(seed | 1)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).expect("below a usize")
    }
}
