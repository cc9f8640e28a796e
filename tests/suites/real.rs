//! Programs that were not written for Wharf nor for its tests, at their own work: SQLite's shell and Lua, compiled to
//! WebAssembly from the sources that crates.io has, and a server in Python that componentize-py made. `.ci/programs` brings
//! and builds them.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::support::http::Client;
use crate::support::terminal::Terminal;
use crate::support::{Wharf, eventually, wharf};

const PATIENCE: Duration = Duration::from_secs(100);

/// An instance with this program as an image of the same name.
fn with(program: &str) -> Wharf {
    let file = format!("/var/cache/wharf-tests/programs/{program}.wasm");
    assert!(Path::new(&file).exists(), "{file} is not there; .ci/programs brings and builds it");
    let wharf = Wharf::new();
    wharf.ok(&["wasm", "pack", &file, "-t", program]);
    wharf
}

/// Where a volume's files are on the host.
fn place(wharf: &Wharf, volume: &str) -> PathBuf {
    wharf.ok(&["volume", "create", volume]);
    wharf.ok(&["volume", "inspect", "-f", "{{.Mountpoint}}", volume]).into()
}

/// Runs SQL in a container of its own on the database `/db/data` of the volume `db`.
fn sql(wharf: &Wharf, text: &str) -> String {
    let args = ["run", "--rm", "-i", "-v", "db:/db", "sqlite", "-bail", "-batch", "/db/data"];
    let ran = wharf.run_with(&args, text.as_bytes());
    assert_eq!(ran.code, 0, "{ran}");
    ran.stdout
}

/// SQL that adds so many rows, from 1 on.
fn rows(count: u64) -> String {
    format!(
        "insert into t(text) with recursive n(i) as (select 1 union all select i + 1 from n where i < {count}) \
         select hex(randomblob(50)) from n;\n"
    )
}

#[test]
fn a_database_on_a_volume() {
    let wharf = with("sqlite");
    let files = place(&wharf, "db");
    let journals = ["delete", "truncate", "persist"];
    let mut script = "create table t(id integer primary key, text); create index i on t(text);\n".to_owned();
    for n in 0..30 {
        script += &format!("pragma journal_mode = {};\nbegin;\n{}commit;\n", journals[n % 3], rows(500));
    }
    sql(&wharf, &(script + "begin; delete from t; rollback;\n"));
    // Others see the same, and may change it.
    let told = sql(&wharf, "pragma integrity_check; select count(*), max(id), count(distinct text) from t;");
    assert_eq!(told, "ok\n15000|15000|15000\n");
    let large = std::fs::metadata(files.join("data")).expect("the database").len();
    sql(&wharf, "pragma secure_delete = on; delete from t where id % 10; vacuum;");
    let small = std::fs::metadata(files.join("data")).expect("the database").len();
    assert!(small < large / 5, "{large} bytes became {small}");
    assert_eq!(sql(&wharf, "pragma integrity_check; select count(*) from t;"), "ok\n1500\n");
    // It is an ordinary database: one copied in and out by the shell's own means, through the working directory.
    let args = ["run", "--rm", "-v", "db:/db", "-w", "/db", "sqlite", "data", ".backup copy", ".output text", ".dump"];
    wharf.ok(&args);
    let dump = std::fs::read_to_string(files.join("text")).expect("the dump");
    assert_eq!(dump.matches("INSERT INTO t ").count(), 1500);
    let header = std::fs::read(files.join("copy")).expect("the copy");
    assert!(header.starts_with(b"SQLite format 3\0") && header.len() as u64 == small);
    // What cannot be written is an error, and nothing has changed; not even the lock that SQLite wants can be made.
    let looked = |name: &str, text: &str| wharf.run(&["run", "--rm", "-v", "db:/db:ro", "sqlite", name, text]);
    let refused = looked("/db/data", "delete from t");
    assert!(refused.code != 0 && refused.stderr.contains("disk I/O error"), "{refused}");
    let told = looked("file:/db/data?immutable=1", "select count(*) from t");
    assert_eq!(told.stdout, "1500\n", "{told}");
}

#[test]
fn a_database_survives_a_kill_in_the_middle_of_a_transaction() {
    let wharf = with("sqlite");
    let files = place(&wharf, "db");
    sql(&wharf, "create table t(id integer primary key, text);");
    let mut committed = 0;
    for round in 1..=3_u64 {
        // Two transactions that end, and one that does not in this life; what it changes goes to the file before that,
        // because so small a cache does not hold it.
        let script =
            format!("pragma cache_size = 5; begin; {0} commit; begin; {0} commit; select 'two'; {1}", rows(1000), {
                rows(1 << 40)
            });
        wharf.ok(&["run", "-d", "--name", "writer", "-v", "db:/db", "sqlite", "/db/data", &script]);
        eventually("two commits", PATIENCE, || (wharf.ok(&["logs", "writer"]) == "two").then_some(()));
        let size = || std::fs::metadata(files.join("data")).expect("the database").size();
        let before = size();
        eventually("the file grows", PATIENCE, || (size() > before + (1 << 20)).then_some(()));
        wharf.ok(&["kill", "writer"]);
        assert_eq!(wharf.ok(&["wait", "writer"]), "137");
        wharf.ok(&["rm", "writer"]);
        assert!(files.join("data-journal").exists(), "it was in the middle");
        // Where there are no locks of the system, SQLite makes a directory in place of one; it outlives its maker on any.
        std::fs::remove_dir(files.join("data.lock")).expect("the lock of the dead");
        committed = round * 2000;
        let told = sql(&wharf, "pragma integrity_check; select count(*) from t;");
        assert_eq!(told, format!("ok\n{committed}\n"), "what was committed is there, and nothing else");
        assert!(!files.join("data-journal").exists(), "it was rolled back");
    }
    assert_eq!(sql(&wharf, "select count(*) from t;"), format!("{committed}\n"));
}

#[test]
fn two_containers_write_to_one_database() {
    let wharf = with("sqlite");
    place(&wharf, "db");
    sql(&wharf, "create table t(n integer); insert into t values(0);");
    let each = 60;
    let script = ".timeout 100000\n".to_owned() + &"begin immediate; update t set n = n + 1; commit;\n".repeat(each);
    let args = ["run", "--rm", "-i", "-v", "db:/db", "sqlite", "-bail", "-batch", "/db/data"];
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let ran = wharf.run_with(&args, script.as_bytes());
                assert_eq!(ran.code, 0, "{ran}");
            });
        }
    });
    assert_eq!(sql(&wharf, "select n from t; pragma integrity_check;"), format!("{}\nok\n", 3 * each));
}

#[test]
fn sqlite_and_lua_at_a_terminal() {
    let wharf = with("sqlite");
    let mut terminal = Terminal::start(&wharf.command(&["run", "-it", "--rm", "-v", "db:/db", "sqlite", "/db/data"]));
    terminal.expect("Enter \".help\" for usage hints.");
    terminal.expect("sqlite> ");
    terminal.send("create table t(a);\ninsert into t\n");
    terminal.expect("...> ");
    terminal.send("values('from a per\x7f\x7f\x7fkeyboard');\nselect a from t;\n");
    terminal.expect("from a keyboard\r\n");
    terminal.send("\x04");
    assert_eq!(terminal.wait(), 0, "{}", terminal.screen());
    assert_eq!(sql(&wharf, "select a from t;"), "from a keyboard\n");

    let wharf = with("lua");
    let mut terminal = Terminal::start(&wharf.command(&["run", "-it", "--rm", "lua"]));
    terminal.expect("Lua 5.4");
    terminal.send("print(6 * 7)\n");
    terminal.expect("42\r\n");
    terminal.send("error('no')\n");
    terminal.expect("lua: [string \"error('no')");
    terminal.send("os.exit(7)\n");
    assert_eq!(terminal.wait(), 7, "{}", terminal.screen());
}

#[test]
fn lua_works_with_files() {
    let wharf = with("lua");
    let scripts = wharf.dir().join("scripts");
    std::fs::create_dir(&scripts).expect("a directory");
    std::fs::write(scripts.join("work.lua"), include_str!("../programs/work.lua")).expect("a script");
    let files = place(&wharf, "data");
    let mount = format!("{}:/scripts:ro", scripts.display());
    let flags = ["run", "--rm", "-v", &mount, "-v", "data:/data", "--tmpfs", "/tmp", "-e", "COLOUR=blue"];
    let lua = |args: &[&str]| wharf.run(&[&flags[..], &["lua"], args].concat());
    let ran = lua(&["/scripts/work.lua", "/data", "two words", ""]);
    assert!(ran.code == 0 && ran.stderr.is_empty(), "{ran}");
    assert_eq!(ran.stdout, "arguments: /data|two words|\nblue\n2500 files, 250 directories\nall done\n");
    assert!(files.join("tree/249").is_dir());
    // What one has written the next one reads: the same in the temporary directory, which is new each time.
    let again = lua(&["/scripts/work.lua", "/tmp"]);
    assert_eq!(again.stdout, "arguments: /tmp\nblue\n2500 files, 250 directories\nall done\n", "{again}");
    let read = lua(&["/scripts/work.lua", "read", "/data"]);
    assert_eq!(read.stdout, "2500 files, 250 directories\n", "{read}");
    // An error in the program is its own.
    let failed = lua(&["/scripts/missing.lua"]);
    assert!(failed.code == 1 && failed.stderr.contains("cannot open /scripts/missing.lua"), "{failed}");
    // Its standard input is a stream like any: far more than a pipe holds.
    let args = [&["run", "--rm", "-i", "-v", &mount, "lua", "/scripts/work.lua", "count"][..]].concat();
    let counted = wharf.run_with(&args, "a line of text\n".repeat(100_000).as_bytes());
    assert_eq!(counted.stdout, "100000 lines, 1500000 bytes\n", "{counted}");
}

#[test]
fn a_python_server_answers() {
    let wharf = with("server");
    let files = place(&wharf, "notes");
    let run = ["run", "-d", "--name", "py", "-p", "127.0.0.1::80", "-v", "notes:/data", "-e", "COLOUR=blue", "server"];
    wharf.ok(&run);
    let shown = wharf.ok(&["port", "py", "80"]);
    let port = shown.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let mut client = Client::connect(port);
    let env = client.get("/env");
    assert!(env.status == 200 && env.text().contains("\"COLOUR\": \"blue\""), "{env:?}");
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let length = body.len() as u64;
    let sum = client.post("/sum", length, |out| out.write_all(&body).expect("sent")).text();
    let hex: String = Sha256::digest(&body).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(sum, format!("{{\"method\": \"POST\", \"bytes\": {length}, \"sha256\": \"{hex}\"}}"));
    // Both ways at once.
    let echo = client.post("/echo", length, |out| out.write_all(&body).expect("sent"));
    assert!(echo.complete && echo.body == body, "{} bytes of {length}", echo.body.len());
    // Files, by Python's own means.
    client.send("PUT /notes/hello HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\nGrüße!\n");
    let put = client.answer();
    assert_eq!((put.status, put.text().as_str()), (201, "[\"hello\"]"));
    assert_eq!(std::fs::read_to_string(files.join("hello")).expect("the note"), "Grüße!\n");
    assert_eq!(client.get("/notes/hello?a=b").text(), "{\"note\": \"Gr\\u00fc\\u00dfe!\\n\", \"of\": \"a=b\"}");
    assert_eq!(client.get("/notes/none").status, 404);
    // A request that fails says why in the log, and harms no other.
    assert_eq!(client.get("/fail").status, 500);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..5).for_each(|_| assert_eq!(Client::connect(port).get("/env").status, 200)));
        }
    });
    let logs = wharf.run(&["logs", "py"]).stderr;
    assert!(logs.contains("ValueError: as asked") && logs.contains("GET /fail: wasm trap"), "{logs}");
    let mut stop = wharf.spawn(&["stop", "py"]);
    assert_eq!(wharf::wait(&mut stop, "stop"), 0);
    assert_eq!(wharf.ok(&["inspect", "-f", "{{.State.Status}}", "py"]), "exited");
}
