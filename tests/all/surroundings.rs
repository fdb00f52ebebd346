//! What shells and systems do to the program: a umask, a limit for the size of files, a reader that leaves.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::job::{Job, PROGRESS, Point, held, held_at, release};
use crate::common::{Sweep, TINY_TASKS, assert_same_tasks, everything_measured, neuralrg, outcome};

/// A command that a shell runs after `first`, with the same program and arguments.
fn after(first: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{first} && exec \"$0\" \"$@\"")]).arg(command.get_program());
    shell.args(command.get_args()).stdin(Stdio::null()).env_remove("RUST_LOG");
    shell
}

/// Every file and folder below one, with its permissions.
fn permissions(folder: &Path) -> Vec<(String, bool, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let data = entry.path().symlink_metadata().unwrap();
        if data.is_symlink() {
            continue;
        }
        found.push((entry.path().display().to_string(), data.is_dir(), data.mode() & 0o777));
        if data.is_dir() {
            found.extend(permissions(&entry.path()));
        }
    }
    found
}

trait Mode {
    fn mode(&self) -> u32;
}

impl Mode for fs::Metadata {
    fn mode(&self) -> u32 {
        self.permissions().mode()
    }
}

#[test]
fn all_files_and_folders_follow_the_umask() {
    for (umask, of_file, of_folder) in [("002", 0o664, 0o775), ("077", 0o600, 0o700)] {
        let sweep = Sweep::new(&everything_measured());
        let umask = format!("umask {umask}");
        // Asked to stop in its first step, the first task leaves its checkpoint.
        let point = Point { path: PROGRESS, number: 1, later: 0 };
        let run = after(&umask, &sweep.run_with(neuralrg()));
        let mut job = Job::start(held_at(run, &sweep, point));
        job.wait_until_held(&sweep, 1);
        job.signal("-TERM");
        release(&held(&sweep));
        let stopped = job.end();
        assert_eq!(stopped.status, Some(75), "{}", stopped.stderr);
        let follow = || {
            let found = permissions(&sweep.dir);
            assert!(found.len() >= 12, "{found:?}");
            for (path, is_folder, mode) in found {
                let expected = if is_folder { of_folder } else { of_file };
                assert_eq!(mode, expected, "{path} is {mode:o}, with {umask}");
            }
        };
        follow();
        outcome(&mut after(&umask, &sweep.run_with(neuralrg()))).success();
        for command in ["collect", "respond"] {
            let mut plain = neuralrg();
            plain.arg(command).arg(&sweep.dir);
            outcome(&mut after(&umask, &plain)).success();
        }
        follow();
    }
}

/// 80 blocks of 512 bytes: more than a checkpoint has, less than a task file.
#[test]
fn a_limit_for_the_size_of_files_is_like_a_full_disk() {
    let (sweep, unbroken) = (Sweep::new(crate::common::TINY), Sweep::finished());
    let result = outcome(&mut after("ulimit -f 80", &sweep.run_with(neuralrg())));
    assert_eq!(result.status, Some(1), "{}", result.stderr);
    assert!(result.errors()[0].contains("4 of 4 tasks failed"), "{}", result.stderr);
    for name in TINY_TASKS {
        let told = fs::read_to_string(sweep.dir.join(format!("failed/{name}.txt"))).unwrap();
        assert!(told.contains("File too large") && told.contains(name), "{told}");
    }
    let result = sweep.run();
    result.success();
    assert!(result.stderr.contains("goes on with its file"), "{}", result.stderr);
    assert_same_tasks(&sweep, &unbroken);

    let mut collect = neuralrg();
    collect.arg("collect").arg(&sweep.dir);
    let refused = outcome(&mut after("ulimit -f 80", &collect));
    assert!(refused.refusal().contains("File too large"), "{refused:?}");
    assert!(!sweep.dir.join("sweep.h5").exists());
}

#[test]
fn every_command_ends_without_a_word_when_its_reader_has_left() {
    let sweep = Sweep::finished();
    let [dir, config] = [&sweep.dir, &sweep.config].map(|path| path.to_str().unwrap());
    let ended_by_pipe = |arguments: &[&str]| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = neuralrg().args(arguments).stdout(writer).stderr(Stdio::piped()).output();
        let output = output.unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            !stderr.contains("error") && !stderr.contains("panicked"),
            "{arguments:?}: {stderr}"
        );
        (output.status.signal(), stderr)
    };
    for arguments in [
        &["check", config][..],
        &["plan", config],
        &["status", dir],
        &["status", dir, "--json"],
        &["status", dir, "--watch"],
        &["status", dir, "--task", TINY_TASKS[0]],
        &["collect", dir],
        &["exact", "--linear-size=4", "--temperatures=2.0"],
        &["reference", "--linear-size=4", "--temperatures=2.0", "--measurements=1000"],
    ] {
        assert_eq!(ended_by_pipe(arguments), (Some(libc::SIGPIPE), String::new()), "{arguments:?}");
    }
    // These log as well.
    let (signal, _) = ended_by_pipe(&["coarse", dir, "--samples=256"]);
    assert_eq!(signal, Some(libc::SIGPIPE));
    assert!(sweep.dir.join("sweep.h5").exists(), "what was to be written is");

    // Of `run` only the log is read, without which it goes on.
    fs::remove_file(sweep.task(TINY_TASKS[0])).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = sweep.run_with(neuralrg()).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(sweep.task(TINY_TASKS[0]).exists());
}
