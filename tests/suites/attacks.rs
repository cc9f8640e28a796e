//! What a container or an image may try, and the test that says what comes of it. The last test here reads this table: a
//! test that is renamed or lost is missed.
//!
//! | an image | tests |
//! |---|---|
//! | tar entries with `../` | `images/src/layer/attacks.rs` dot_dot_leads_nowhere |
//! | absolute names | `images/src/layer/attacks.rs` absolute_names_are_inside |
//! | a symlink, then a write through it | `images/src/layer/attacks.rs` symlink_then_write_stays_inside |
//! | chains and rings of symlinks | `images/src/layer/attacks.rs` symlink_chains_and_rings_stay_inside |
//! | a symlink named `.` or `/` | `images/src/layer/attacks.rs` a_symlink_cannot_become_the_root |
//! | hard links out | `images/src/layer/attacks.rs` hard_links_do_not_lead_out |
//! | whiteouts through symlinks | `images/src/layer/attacks.rs` whiteouts_through_symlinks_stay_inside |
//! | `.wh..` | `images/src/layer/attacks.rs` whiteouts_of_dots_are_refused |
//! | device nodes, setuid | `images/src/layer/attacks.rs` devices_stay_devices_and_set_id_stays_with_its_owner |
//! | xattrs | `images/src/layer/attacks.rs` xattrs_that_steer_the_host_are_left_out |
//! | long and odd names | `images/src/layer/attacks.rs` names_that_are_none_are_refused |
//! | trees too deep for a stack | `images/src/layer/attacks.rs` trees_too_deep_for_the_stack_are_removed |
//! | gzip and zstd bombs | `images/src/layer/attacks.rs` gzip_and_zstd_bombs_stop |
//! | bombs of empty entries | `images/src/layer/attacks.rs` bombs_of_headers_stop |
//! | sparse bombs | `images/src/layer/attacks.rs` sparse_bombs_are_refused |
//! | any entries at all | `images/src/hostile.rs` no_sequence_of_entries_reaches_outside |
//! | one layer several times | `images/src/snapshot/suite.rs` a_layer_may_come_twice |
//! | a size that lies, in a layer | `images/src/layer/attacks.rs` sizes_that_lie_are_noticed |
//! | another diff_id | `images/src/store/tests.rs` layers_are_unpacked_in_parallel_and_checked |
//! | another digest or size, from a registry | `images/tests/hostile_registry.rs` a_layer_of_other_bytes_or_another_size_is_refused |
//! | another manifest than asked for | `images/tests/hostile_registry.rs` a_manifest_must_be_what_was_asked_for |
//! | another digest, in an archive | `images/src/archive/attacks.rs` bytes_that_are_not_what_they_are_called_are_refused |
//! | another size, in an archive's index | `images/src/archive/attacks.rs` a_size_that_the_index_has_wrong_is_refused |
//! | a digest as a path | `images/src/digest.rs` digests_are_checked_before_they_become_paths |
//! | an id as a path | `images/src/snapshot/suite.rs` keys_are_unique_and_safe |
//! | an archive's links out of it | `images/src/archive/attacks.rs` devices_and_links_that_lead_out_are_refused |
//! | an archive's paths out of it | `images/src/archive/attacks.rs` paths_in_the_manifest_are_names_in_the_archive_and_nothing_else |
//! | tag poisoning on load | `images/src/archive/attacks.rs` poisoned_names_are_refused |
//! | a token realm on a foreign host | `images/tests/hostile_registry.rs` a_foreign_token_service_sees_no_password |
//! | a realm that is no web address | `images/tests/hostile_registry.rs` a_realm_must_be_a_web_address |
//! | credentials on a redirect | `images/tests/hostile_registry.rs` a_redirect_takes_no_password_along |
//! | redirects for ever, and to files | `images/tests/hostile_registry.rs` redirects_end |
//! | a manifest without an end | `images/tests/hostile_registry.rs` a_manifest_has_an_end |
//! | a helper's name that is a path | `images/src/registry/credentials.rs` a_helper_name_is_not_a_path |
//! | concurrent pulls | `tests/suites/interrupted.rs` processes_that_pull_the_same_image_share_one_download |
//! | kill -9 in mid-pull | `tests/suites/interrupted.rs` a_pull_that_is_killed_leaves_a_clean_store_and_is_resumed |
//! | kill -9 of any change of the store | `images/src/gc/tests.rs` a_store_whose_users_are_killed_stays_clean |
//! | escape sequences in names and errors | `tests/suites/words.rs` errors_cannot_steer_a_terminal |
//! | escape sequences in logs | `src/cli/text.rs` logs_keep_colours_only |
//!
//! | a WebAssembly program | tests |
//! |---|---|
//! | forged compiled code | `runtime/tests/wasm/mod.rs` compiled_code_is_never_taken_from_outside |
//! | the same, executed in a container | `tests/suites/exec.rs` programs_of_the_root_filesystem |
//! | a compile bomb | `runtime/tests/wasm/mod.rs` a_compile_bomb_meets_its_limit |
//! | malformed modules | `runtime/tests/wasm/mod.rs` malformed_modules_are_refused |
//! | deep recursion | `runtime/tests/wasm/mod.rs` recursion_ends_in_a_trap |
//! | memory without end | `runtime/tests/wasm/mod.rs` the_memory_limit_holds_and_says_so |
//! | several memories, tables | `runtime/src/backend/wasm/memory.rs` memories_and_tables_share_one_limit |
//! | handles and buffers of the host without end | `runtime/tests/wasm/mod.rs` what_guests_want_of_the_host_has_an_end |
//! | a stream without end | `tests/suites/attacks.rs` a_giant_stream_is_held_back |
//! | streams and tasks without end | `tests/suites/p3.rs` streams_and_tasks_without_end_end_their_guest_alone |
//! | bodies without end | `tests/suites/http.rs` bodies_stream_both_ways |
//! | requests that never end | `tests/suites/http.rs` a_guest_that_never_ends_is_ended |
//! | paths out of its mounts | `runtime/tests/wasm/mod.rs` no_path_leads_out |
//! | `..`, absolute and chained links | `runtime/src/wasi/vfs/tests.rs` symlinks_stay_inside_the_root |
//! | names with a slash at the end | `runtime/src/wasi/vfs/tests.rs` renaming_follows_the_rules |
//! | writes to what is read-only | `runtime/tests/wasm/mod.rs` read_only_is_read_only |
//! | links, renames, new times there | `runtime/src/wasi/vfs/tests.rs` read_only_is_truly_so |
//! | a link swapped by the host | `runtime/src/wasi/vfs/tests.rs` a_symlink_swapped_in_by_the_host_leads_nowhere |
//! | sockets it was not given | `runtime/tests/wasm/mod.rs` no_address_is_reachable |
//! | `0.0.0.0`, to be reached without being published | `tests/suites/bridge.rs` other_machines_reach_what_a_wasm_guest_publishes_and_nothing_else |
//! | another network, and the way out of an internal one | `tests/suites/bridge.rs` networks_are_apart_for_both_kinds |
//! | the same by IPv6, with its grants | `tests/suites/six.rs` grants_and_walls_between_networks_hold_for_ipv6 |
//! | the same by names, and by sockets that stand on several | `tests/portable.rs` a_container_is_on_several_networks |
//! | the host, link-local and IPv4-mapped addresses | `tests/suites/sockets.rs` forbidden_places_are_refused_and_the_log_says_what_would_allow_them |
//! | the same in any spelling | `runtime/src/network/grants.rs` forbidden_places_in_every_spelling |
//! | names that lead there, now or later | `tests/suites/sockets.rs` names_that_lead_to_forbidden_places |
//! | the same by HTTP, and redirects | `tests/suites/http.rs` requests_of_guests_obey_the_grants |
//! | another host in the target than in `Host` | `tests/suites/http.rs` bad_requests_are_refused |
//! | a port of the host that was not published | `tests/suites/sockets.rs` an_unpublished_port_is_the_containers_own |
//! | published ports of one that has lost its way out | `tests/suites/http.rs` published_ports_go_and_come_with_the_way_out |
//! | devices in its image or among its mounts | `tests/suites/walls.rs` devices_in_an_image_are_no_guests |
//! | devices, pipes and sockets made in its layer or elsewhere | `runtime/tests/wall/confine.rs` jail_special_files |
//! | a layer's device by another name | `runtime/src/wasi/vfs/tests.rs` pipes_and_sockets_of_lower_layers_are_copied_up_and_devices_are_not |
//! | more than its layer's limit, by several processes | `runtime/src/wasi/vfs/tests.rs` a_quota_holds_for_all_processes_together |
//! | another container's loopback | `tests/suites/exec.rs` the_network_is_shared |
//! | another container's files, memory and processes | `runtime/src/linux/escape.rs` alone |
//! | inherited descriptors | `runtime/tests/wasm/mod.rs` a_task_inherits_nothing |
//! | an escape from the sandbox | `runtime/src/linux/escape.rs` behind_the_first_wall_stands_the_second |
//! | what is said of the walls | `tests/suites/walls.rs` inspect_shows_the_walls_that_stand |
//! | an endless loop | `tests/suites/attacks.rs` an_endless_loop_ends_at_its_time |
//!
//! | a Linux container | tests |
//! |---|---|
//! | CVE-2019-5736, our own program's file | `runtime/tests/linux/attacks.rs` own_program |
//! | the same as an interpreter | `runtime/tests/linux/attacks.rs` own_program_as_interpreter |
//! | CVE-2024-21626, a working directory outside | `runtime/tests/linux/attacks.rs` cwd_outside |
//! | a joined process whose number is another's | `runtime/src/linux/neighbour.rs` a_number_alone_is_nobody |
//! | something else at a joined `/dev/shm` | `tests/suites/namespaces.rs` shared_memory_of_another_container |
//! | CVE-2025-31133, masks that are links | `runtime/tests/linux/attacks.rs` masked_path_replaced |
//! | CVE-2025-52565 and 52881, /proc or /sys as a link | `runtime/tests/linux/attacks.rs` kernel_file_systems_through_links |
//! | CVE-2021-30465, mount targets through links | `runtime/tests/linux/attacks.rs` mount_targets_through_links |
//! | links to the host | `runtime/tests/linux/attacks.rs` links_to_the_host |
//! | mounts, host names, kernel parameters, cgroups | `runtime/tests/linux/attacks.rs` denied |
//! | system calls that docker refuses | `runtime/tests/wall/confine.rs` docker_refuses |
//! | keyctl, bpf, AF_ALG and more, from a program | `tests/suites/attacks.rs` doors_of_the_kernel_are_shut |
//! | a fork bomb | `tests/suites/attacks.rs` a_fork_bomb_stays_in_its_container |
//! | a memory bomb | `tests/suites/attacks.rs` a_memory_bomb_ends_alone |
//! | the way out by a cgroup's release agent | `tests/suites/attacks.rs` cgroups_are_no_way_out |
//! | abstract sockets under the host's network | `tests/suites/attacks.rs` nothing_of_ours_listens_on_an_abstract_socket |
//! | another network's addresses, a way out of an internal one | `tests/suites/networks.rs` nobody_gets_by_a_forged_address_where_he_has_no_way |
//! | a way out of an internal one by what others publish | `tests/suites/relay.rs` who_has_no_way_out_has_none_by_published_ports |
//! | routes that containers announce to the host (CVE-2020-13401) | `tests/suites/networks.rs` networks_have_ipv6_too |
//! | names as a way out (CVE-2024-29018) | `tests/suites/networks.rs` containers_come_to_networks_and_leave_them_while_they_run |
//! | races of `cp` with links | `tests/suites/files.rs` attack_cp_races_with_links |

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::{Wharf, eventually, images};

#[test]
fn an_endless_loop_ends_at_its_time() {
    let wharf = Wharf::new();
    for guest in ["tools-p1", "tools-p2"] {
        wharf.ok(&["wasm", "pack", &images::guest(guest), "-t", "loop"]);
        let id = wharf.ok(&["run", "-d", "loop", "spin"]);
        wharf.ok(&["stop", "-t", "0", &id]);
        let code = wharf.ok(&["wait", &id]);
        assert!(code == "137" || code == "143", "{code}");
        let ran = wharf.run(&["wasm", "run", "--timeout", "500ms", &images::guest(guest), "spin"]);
        assert_ne!(ran.code, 0, "{ran}");
    }
}

/// What a guest writes and nobody reads is kept nowhere: it waits, and so does who feeds it.
#[test]
fn a_giant_stream_is_held_back() {
    let wharf = Wharf::new();
    wharf.ok(&["wasm", "pack", &images::guest("tools-p2"), "-t", "tools"]);
    let mut client = wharf.spawn(&["run", "-i", "--name", "stream", "tools", "cat"]);
    let mut input = client.stdin.take().expect("piped");
    let fed = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&fed);
    let feeder = std::thread::spawn(move || {
        let zeros = vec![0; 64 << 10];
        while let Ok(n) = input.write(&zeros) {
            count.fetch_add(n as u64, Ordering::Relaxed);
        }
    });
    let mut before = 0;
    eventually("it stands still", Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_millis(500));
        let now = fed.load(Ordering::Relaxed);
        (now > 0 && std::mem::replace(&mut before, now) == now).then_some(())
    });
    assert!(fed.load(Ordering::Relaxed) < 16 << 20, "{} bytes are somewhere", fed.load(Ordering::Relaxed));
    for pid in wharf.monitors().keys() {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        assert!(kib < 64 << 10, "a monitor of {kib} KiB");
    }
    wharf.ok(&["kill", "stream"]);
    client.kill().expect("it ends");
    client.wait().expect("a child");
    feeder.join().expect("no panic");
}

/// Calls that a perl program makes by number (x86-64), and what docker's profile says: not permitted.
#[cfg(target_arch = "x86_64")]
#[test]
fn doors_of_the_kernel_are_shut() {
    let wharf = Wharf::new();
    wharf.load(&images::debian());
    let calls = [
        ("keyctl", "250, 0, -3, 0"),
        ("add_key", "248, 'user', 'x', 'y', 1, -3"),
        ("bpf", "321, 0, 0, 0"),
        ("userfaultfd", "323, 0"),
        ("perf_event_open", "298, 0, 0, -1, -1, 0"),
        ("io_uring_setup", "425, 1, 0"),
        ("mount", "165, 'none', '/tmp', 'tmpfs', 0, 0"),
        ("move_mount", "429, -1, '', -1, '', 0"),
        ("unshare of a user namespace", "272, 0x10000000"),
        ("setns", "308, 0, 0"),
        ("open_by_handle_at", "304, -100, 0, 0"),
        ("kexec_load", "246, 0, 0, 0, 0"),
        ("init_module", "175, 0, 0, ''"),
        ("ptrace of the first process", "101, 16, 1, 0, 0"),
        ("pivot_root", "155, '/', '/'"),
        ("reboot", "169, 0, 0, 0, 0"),
        ("swapon", "167, '/x', 0"),
        ("settimeofday", "164, 0, 0"),
    ];
    let mut script = String::from(
        "sub t { my ($n, @a) = @_; my $r = syscall($a[0], @a[1..$#a]); print \"$n \", $r == -1 ? $!+0 : \"done\", \"\\n\" }\n",
    );
    for (name, arguments) in calls {
        // Perl passes texts by address; they must be variables.
        script += &format!("{{ my @a = ({arguments}); t('{name}', @a); }}\n");
    }
    // AF_ALG and AF_VSOCK.
    script += "socket(my $s, 38, 5, 0) ? print \"af_alg done\\n\" : print \"af_alg \", $!+0, \"\\n\";\n";
    script += "socket(my $v, 40, 1, 0) ? print \"af_vsock done\\n\" : print \"af_vsock \", $!+0, \"\\n\";\n";
    let told = wharf.ok(&["run", "--rm", "debian", "perl", "-e", &script]);
    assert_eq!(told.lines().count(), calls.len() + 2, "{told}");
    for line in told.lines() {
        let (name, outcome) = line.rsplit_once(' ').expect("a name and an outcome");
        let refused = match name {
            // A family that a socket may not have, and what the kernel does not have at all.
            "af_alg" | "af_vsock" => matches!(outcome, "1" | "97" | "22"),
            // Without a right to the process: not permitted; some kernels lack some calls.
            _ => matches!(outcome, "1" | "38" | "13"),
        };
        assert!(refused, "{line}");
    }
}

#[test]
fn a_fork_bomb_stays_in_its_container() {
    let wharf = Wharf::with_busybox();
    let bomb = "(while :; do (b() { b | b & }; b); sleep 0.01; done) 2>/dev/null & exec sleep 1000";
    let id = wharf.ok(&["run", "-d", "--pids-limit", "30", "busybox", "sh", "-c", bomb]);
    // It meets its limit while others go on, and it ends when it is told to.
    for _ in 0..5 {
        assert_eq!(wharf.ok(&["run", "--rm", "busybox", "echo", "beside"]), "beside");
        assert_eq!(wharf.ok(&["ps", "-q", "--no-trunc"]), id);
    }
    wharf.ok(&["kill", &id]);
    assert_eq!(wharf.ok(&["wait", &id]), "137");
}

#[test]
fn a_memory_bomb_ends_alone() {
    let wharf = Wharf::with_busybox();
    let ran = wharf.run(&[
        "run",
        "--name",
        "bomb",
        "-m",
        "16m",
        "--memory-swap",
        "16m",
        "busybox",
        "sh",
        "-c",
        "a=x; while :; do a=$a$a; done",
    ]);
    assert_ne!(ran.code, 0, "{ran}");
    assert_eq!(wharf.ok(&["run", "--rm", "busybox", "echo", "beside"]), "beside");
    assert_eq!(wharf.ok(&["inspect", "-f", "{{.State.Running}}", "bomb"]), "false");
}

/// <https://blog.trailofbits.com/2019/07/19/understanding-docker-container-escapes/>: a hierarchy of one's own, whose
/// release agent the host's kernel would start.
#[test]
fn cgroups_are_no_way_out() {
    let wharf = Wharf::with_busybox();
    let script = "mkdir /tmp/c; mount -t cgroup -o rdma cgroup /tmp/c; mount -t cgroup2 none /tmp/c; \
                  for f in $(find /sys/fs/cgroup -name release_agent -o -name notify_on_release -o -name cgroup.procs); \
                  do echo 1 >$f && echo wrote $f; done; \
                  mkdir /sys/fs/cgroup/mine && echo made; find /tmp/c -type f | head -1";
    for user in ["root", "anna"] {
        let told = wharf.run(&["run", "--rm", "-u", user, "busybox", "sh", "-c", script]);
        assert_eq!(told.stdout, "", "{told}");
    }
}

/// CVE-2020-15257: abstract sockets belong to the network's namespace, so who shares the host's could speak to ours.
#[test]
fn nothing_of_ours_listens_on_an_abstract_socket() {
    let wharf = Wharf::with_busybox();
    let id = wharf.ok(&["run", "-d", "--network", "host", "busybox", "sleep", "1000"]);
    eventually("it runs", Duration::from_secs(30), || (wharf.ok(&["ps", "-q", "--no-trunc"]) == id).then_some(()));
    let sockets = wharf.ok(&["exec", &id, "cat", "/proc/net/unix"]);
    assert!(sockets.lines().count() > 0);
    // Sockets are those of all of the host's; ours would be held by a monitor.
    for pid in wharf.monitors().keys() {
        for link in std::fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").flatten() {
            let Ok(target) = std::fs::read_link(link.path()) else { continue };
            let target = target.to_string_lossy().into_owned();
            let Some(inode) = target.strip_prefix("socket:[").and_then(|t| t.strip_suffix(']')) else { continue };
            let line = sockets.lines().find(|line| line.split_whitespace().nth(6) == Some(inode)).unwrap_or_default();
            assert!(!line.contains(" @"), "{line}");
        }
    }
}

#[test]
fn every_test_of_the_table_is_there() {
    let mut rows = 0;
    for line in include_str!("attacks.rs").lines().filter_map(|line| line.strip_prefix("//! | ")) {
        let Some((_, named)) = line.split_once("| `") else { continue };
        let (file, test) = named.trim_end_matches(" |").split_once("` ").expect("a file and a test");
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert!(text.contains(&format!("fn {test}(")), "{file} has no test {test}");
        rows += 1;
    }
    assert!(rows > 60, "{rows}");
}
