//! All that surrounds the kernels for GPUs, against a stand-in for the driver and its compiler (`tests/gpu_stand_in`), whose kernels run on
//! the host: sweeps, interruptions, and every way in which a GPU can be missing or fail.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::common::{Outcome, Sweep, TINY, assert_same_tasks, contents, neuralrg, outcome};

/// Folder with the stand-ins, built once for each test program.
fn stand_in() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let name = format!("{}-gpu", env!("CARGO_CRATE_NAME"));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        // What an earlier test program has compiled may be of other texts.
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(folder.join("nvrtc")).unwrap();
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gpu_stand_in");
        for (source, library) in
            [("driver.cc", "libcuda.so.1"), ("nvrtc.cc", "nvrtc/libnvrtc.so.12")]
        {
            let status = Command::new(std::env::var("CXX").unwrap_or("c++".into()))
                .args(["-std=c++17", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o"])
                .arg(folder.join(library))
                .arg(sources.join(source))
                .arg("-ldl")
                .status()
                .unwrap();
            assert!(status.success(), "{source}");
        }
        folder
    })
}

/// A command that finds the stand-ins, with variables that tell them what to be.
fn beside_stand_in(variables: &[(&str, &str)]) -> Command {
    let folder = stand_in();
    let mut command = neuralrg();
    let others = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    command
        .env("LD_LIBRARY_PATH", format!("{}:{others}", folder.display()))
        .env("NEURALRG_NVRTC", folder.join("nvrtc"))
        .env("XDG_CACHE_HOME", folder.join("cache"))
        .env("HOST_PHASES", concat!(env!("CARGO_MANIFEST_DIR"), "/src/engine/cuda/kernels/host.h"))
        .envs(variables.iter().copied());
    command
}

fn run(sweep: &Sweep, variables: &[(&str, &str)]) -> Outcome {
    outcome(&mut sweep.run_with(beside_stand_in(variables)))
}

/// The tiny sweep on a GPU, in f64.
fn on_gpu() -> String {
    TINY.replace("device = \"cpu\"", "engine = \"cuda\"\nprecision = \"f64\"")
}

fn one_task_on_gpu() -> String {
    on_gpu()
        .replace("temperatures = [2.0, 3.0]", "temperatures = [2.0]")
        .replace("depths = [1, 2]", "depths = [2]")
}

const TASK: &str = "L4_T2_d2_s1";

fn numbers(sweep: &Sweep, task: &str, name: &str) -> Vec<f64> {
    let bits = &contents(&sweep.task(task))[name].bits;
    bits.iter().map(|&bits| f64::from_bits(bits)).collect()
}

#[test]
fn a_sweep_on_a_gpu_has_the_numbers_of_the_native_engine() {
    let gpu = Sweep::new(&on_gpu());
    run(&gpu, &[]).success();
    let native = Sweep::new(&on_gpu().replace("\"cuda\"", "\"native\""));
    native.run().success();
    assert_eq!(gpu.task_files(), native.task_files());
    for task in gpu.task_files() {
        let task = task.trim_end_matches(".h5");
        assert_eq!(contents(&gpu.task(task))["/@device"].text, ["cuda:0"]);
        for name in ["/scalars/free_energy", "/evaluate/ln_q", "/chains/latent/energy"] {
            let [found, expected] = [&gpu, &native].map(|sweep| numbers(sweep, task, name));
            assert!(found.len() == expected.len() && !found.is_empty());
            for (found, expected) in found.iter().zip(&expected) {
                let error = (found - expected).abs() / expected.abs().max(1.0);
                assert!(error < 1e-9, "{task}, {name}: {found} {expected}");
            }
        }
    }
}

/// `auto` takes the GPU and, of a flow whose kernels there are none of, the next engine, with one warning.
#[test]
fn auto_takes_the_gpu_or_tells_once_what_it_lacks() {
    let auto = one_task_on_gpu().replace("\"cuda\"", "\"auto\"");
    let sweep = Sweep::new(&auto);
    let told = run(&sweep, &[]);
    told.success();
    assert!(told.stderr.contains("Cuda(0)") && !told.stderr.contains("takes its place"));

    let channels = on_gpu()
        .replace("\"cuda\"", "\"auto\"")
        .replace("[flow]", "[flow]\narrangement = \"checkerboard\"\nchannels = 2");
    let sweep = Sweep::new(&channels);
    let told = run(&sweep, &[]);
    told.success();
    let sentence =
        "the engine for GPUs lacks flow.channels above 0; engine \"native\" takes its place";
    assert_eq!(told.stderr.matches(sentence).count(), 1, "{}", told.stderr);
    assert_eq!(sweep.task_files().len(), 4);
}

/// A GPU that is lost fails its task, whose checkpoint stays; when it is back, the task goes on to the bits of an unbroken one.
#[test]
fn a_lost_gpu_fails_the_task_which_goes_on_from_its_checkpoint() {
    let each_step = one_task_on_gpu().replace("[run]", "[run]\ncheckpoint_minutes = 1e-12");
    let unbroken = Sweep::new(&each_step);
    run(&unbroken, &[]).success();
    for launches in ["3", "9", "40"] {
        let sweep = Sweep::new(&each_step);
        let lost = run(&sweep, &[("STAND_IN_LAUNCHES", launches)]);
        assert_eq!(lost.status, Some(1), "{lost:?}");
        let words = "the GPU failed: unspecified launch failure (CUDA_ERROR_LAUNCH_FAILED); \
                     the task goes on from its last checkpoint";
        assert!(lost.stderr.contains(words), "{}", lost.stderr);
        assert!(sweep.dir.join("checkpoints").join(TASK).exists());
        run(&sweep, &[]).success();
        assert_same_tasks(&sweep, &unbroken);
    }
}

#[test]
fn ranks_may_share_a_gpu_and_a_team_its_task() {
    let team = on_gpu().replace("[run]", "[run]\nranks_per_task = 2");
    let alone = Sweep::new(&on_gpu());
    run(&alone, &[]).success();
    if cfg!(not(feature = "mpi")) {
        return;
    }
    let sweep = Sweep::new(&team);
    let mut command = crate::common::mpirun(2);
    command.envs(beside_stand_in(&[]).get_envs().filter_map(|(name, value)| Some((name, value?))));
    outcome(&mut sweep.run_with(command)).success();
    assert_eq!(sweep.task_files(), alone.task_files());
    for task in sweep.task_files() {
        let task = task.trim_end_matches(".h5");
        let [found, expected] =
            [&sweep, &alone].map(|sweep| numbers(sweep, task, "/scalars/free_energy")[0]);
        assert!((found - expected).abs() < 1e-9, "{task}: {found} {expected}");
    }
}

#[test]
fn a_gpu_that_is_not_there_is_told_in_words() {
    let no_nvrtc = stand_in().join("empty");
    std::fs::create_dir_all(&no_nvrtc).unwrap();
    let no_nvrtc = no_nvrtc.to_str().unwrap();
    for (variable, value, words) in [
        ("LD_LIBRARY_PATH", "", "there is no NVIDIA driver (libcuda.so.1)"),
        ("STAND_IN_VERSION", "11040", "the NVIDIA driver is too old (CUDA 11.4); update it to"),
        ("STAND_IN_ARCHITECTURE", "60", "GPU 0 is too old (compute capability 6.0)"),
        ("STAND_IN_ARCHITECTURE", "120", "code for sm_120, which NVRTC 12.9 cannot make"),
        ("STAND_IN_GPUS", "0", "the NVIDIA driver does not start: an error of the stand-in"),
        ("NEURALRG_NVRTC", no_nvrtc, "NVRTC, the compiler of its kernels, is not there"),
    ] {
        let sweep = Sweep::new(&on_gpu());
        let mut command = beside_stand_in(&[]);
        if variable == "LD_LIBRARY_PATH" {
            command = neuralrg();
            if Path::new("/dev/nvidia0").exists() {
                continue;
            }
        } else {
            command.env(variable, value);
        }
        let refused = outcome(&mut sweep.run_with(command));
        let line = refused.refusal();
        assert!(line.contains("run.device = \"cuda\": ") && line.contains(words), "{line}");
        assert!(!sweep.dir.exists(), "nothing is left behind");
    }
}

#[test]
fn a_gpu_without_memory_and_a_kernel_that_does_not_compile_fail_their_tasks() {
    for (variable, value, words) in [
        (
            "STAND_IN_MEMORY",
            "20000",
            ["not enough memory: out of memory: ", " % would fit; lower train.batch"],
        ),
        (
            "STAND_IN_BROKEN",
            "1",
            ["kernel `loss_total` does not compile", "please report this bug"],
        ),
    ] {
        let sweep = Sweep::new(&one_task_on_gpu());
        let mut command = beside_stand_in(&[(variable, value)]);
        // A kernel that was compiled before would be found.
        command.env("XDG_CACHE_HOME", sweep.folder());
        let failed = outcome(&mut sweep.run_with(command));
        assert_eq!(failed.status, Some(1), "{failed:?}");
        assert!(words.iter().all(|words| failed.stderr.contains(words)), "{}", failed.stderr);
        assert!(sweep.dir.join("failed").join(format!("{TASK}.txt")).exists());
    }
}
