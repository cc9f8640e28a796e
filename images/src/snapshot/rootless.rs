//! Snapshots without root, tried by an ordinary user (65534): this test program runs itself again as that user, and
//! again in a user namespace. The overlay is mounted as a rootless container would mount it.

use std::fs;
use std::os::unix::fs::{FileTypeExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Rootfs, open, suite};
use crate::error::Class;
use crate::layer::testing::{Archive, options};
use crate::layer::unpack;

const NOBODY: u32 = 65534;
const HOME: &str = "WHARF_TEST_HOME";

/// Runs the ignored test `name` of this program as an ordinary user, behind the command `before`.
fn as_nobody(name: &str, before: &[&str]) {
    let dir = tempfile::TempDir::new().unwrap();
    rustix::fs::chmod(dir.path(), rustix::fs::Mode::from_raw_mode(0o755)).unwrap();
    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
    // A program's own directory may be closed to others.
    let program = dir.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let words: Vec<&str> = before.iter().copied().chain([program.to_str().unwrap()]).collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).args(["--exact", "--ignored", "--nocapture", &format!("snapshot::rootless::{name}")]);
    let output = command.env(HOME, &home).env("TMPDIR", &home).uid(NOBODY).gid(NOBODY).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn home() -> PathBuf {
    PathBuf::from(std::env::var_os(HOME).expect("run by the test of the same subject"))
}

#[test]
fn an_ordinary_user_gets_overlays() {
    as_nobody("overlay_by_nobody", &[]);
}

#[test]
#[ignore = "run by an_ordinary_user_gets_overlays, as an ordinary user"]
fn overlay_by_nobody() {
    let home = home();
    let driver = open(&home).unwrap();
    assert_eq!(driver.name(), "overlay", "this kernel mounts overlays in user namespaces");
    let chain = suite::commit(&*driver, &suite::three_layers());
    let Rootfs::Overlay { lower, upper, work } = driver.prepare("c", &chain).unwrap() else { panic!("an overlay") };
    let point = home.join("mnt");
    fs::create_dir(&point).unwrap();
    let options = crate::os::testing::overlay_options(&lower, &upper, &work) + ",userxattr";
    let script = format!(
        "set -e; mount -t overlay overlay -o {options} {0}; cd {0}
         test \"$(echo *)\" = 'again etc kept link top'
         test \"$(echo etc/*)\" = etc/a
         test \"$(echo kept/*)\" = kept/upper
         test \"$(cat etc/a)\" = 'middle a'
         rm top; rm -r kept; mkdir kept; echo new >kept/new; mkdir -p deep/er; chmod 0 deep",
        point.display()
    );
    let output = Command::new("unshare").args(["-Urm", "sh", "-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(fs::symlink_metadata(upper.join("top")).unwrap().file_type().is_char_device());
    assert!(driver.usage("c").is_err() || driver.usage("c").unwrap().inodes > 3);
    driver.remove("c").unwrap();
    assert!(driver.keys().unwrap().is_empty());
    assert_eq!(
        fs::read_dir(home.join("snapshots/overlay/tmp")).unwrap().count(),
        0,
        "closed directories are removed too"
    );
}

#[test]
fn owners_need_a_mapping() {
    as_nobody("owners_in_a_namespace", &["unshare", "-Ur"]);
}

#[test]
#[ignore = "run by owners_need_a_mapping, as root of a user namespace"]
fn owners_in_a_namespace() {
    let unpack_in = |name: &str, archive: &Archive| {
        fs::create_dir(home().join(name)).unwrap();
        let dir = cap_std::fs::Dir::open_ambient_dir(home().join(name), cap_std::ambient_authority()).unwrap();
        unpack(&mut &archive.bytes()[..], "", &dir, &options())
    };
    let mut archive = Archive::new();
    archive.file("mine", 0o4755, b"").device(tar::EntryType::Char, "null", 1, 3).file("d/.wh.x", 0o644, b"");
    archive.file("d/.wh..wh..opq", 0o644, b"");
    let done = unpack_in("one", &archive).unwrap();
    assert_eq!(done.notes.len(), 1, "the device is left out: {:?}", done.notes);
    assert!(!Path::new(&home().join("one/null")).exists());
    archive.uid = 1234;
    archive.file("other's", 0o644, b"");
    let error = unpack_in("two", &archive).unwrap_err();
    assert_eq!(error.class(), Class::Forbidden, "{error}");
    assert!(error.hint().unwrap().contains("/etc/subuid"), "{error:?}");
}
