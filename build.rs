//! Two things cargo cannot know: where libtorch lies, if the program has it, so that the binary finds it without
//! environment variables, and which state of the sources is being built.

use std::path::Path;
use std::process::Command;

/// What the program is made of; its state decides whether the version is marked as dirty.
const SOURCES: [&str; 4] = ["src", "build.rs", "Cargo.toml", "Cargo.lock"];

fn main() {
    link_rpaths();
    set_version();
}

/// Lets binaries, tests and benches find libtorch, and an HDF5 named by `HDF5_DIR`, at run time.
fn link_rpaths() {
    println!("cargo:rerun-if-env-changed=HDF5_DIR");
    // Set by torch-sys, which knows whether LIBTORCH or a Python environment named the directory.
    let libtorch = std::env::var("DEP_TCH_LIBTORCH_LIB").ok();
    let hdf5 = std::env::var("HDF5_DIR").ok().map(|root| format!("{root}/lib"));
    for directory in libtorch.into_iter().chain(hdf5) {
        // libtorch finds its neighbours relative to where it really lies, not to a link to it.
        let resolved = Path::new(&directory).canonicalize();
        let directory = resolved.map_or(directory, |path| path.display().to_string());
        println!("cargo:rustc-link-arg=-Wl,-rpath,{directory}");
    }
}

/// Sets `NEURALRG_VERSION`, for example `0.2.0+3f2a91c-dirty`; plain `0.2.0` without git.
fn set_version() {
    for path in SOURCES {
        println!("cargo:rerun-if-changed={path}");
    }
    let mut version = env!("CARGO_PKG_VERSION").to_owned();
    // A copy of the sources inside somebody else's repository has a non-empty prefix.
    if git(&["rev-parse", "--show-prefix"]).as_deref() == Some("") {
        watch_commits();
        if let Some(hash) = git(&["rev-parse", "--short", "HEAD"]) {
            version.push('+');
            version.push_str(&hash);
            if sources_changed() {
                version.push_str("-dirty");
            }
        }
    }
    println!("cargo:rustc-env=NEURALRG_VERSION={version}");
}

/// Whether the sources differ from the last commit, files new to git included.
fn sources_changed() -> bool {
    let mut arguments = vec!["status", "--porcelain", "--"];
    arguments.extend(SOURCES);
    git(&arguments).is_none_or(|changes| !changes.is_empty())
}

/// Runs this script again after a commit or a checkout. A path that is not there would run it
/// every time, so before the first commit, when there is no log yet, the branches are watched.
fn watch_commits() {
    for place in ["logs/HEAD", "refs"] {
        if let Some(path) = git(&["rev-parse", "--git-path", place])
            && Path::new(&path).exists()
        {
            println!("cargo:rerun-if-changed={path}");
            return;
        }
    }
}

/// Trimmed output of a git command, if there is a git that succeeds.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
