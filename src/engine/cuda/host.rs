//! Kernels on the host, compiled by its C++ compiler: a phase is a loop over the threads of a block.

use std::ffi::CString;
use std::path::PathBuf;
use std::process::Command;

use libloading::Library;
use tempfile::TempDir;

use super::processor::{Arguments, Processor};
use super::program::{Kernel, Program};

/// How phases run.
const PHASES: &str = include_str!("kernels/host.h");

/// Products and sums are fused where the machine can, as GPUs do.
const OPTIONS: [&str; 10] = [
    "-std=c++17",
    "-O1",
    "-march=native",
    "-ffp-contract=fast",
    "-fexpensive-optimizations",
    "-shared",
    "-fPIC",
    "-Wall",
    "-Werror",
    "-o",
];

/// As if it were a GPU with these limits.
#[derive(Debug, Clone, Copy)]
pub struct Host {
    pub shared_limit: usize,
    pub multiprocessors: usize,
    pub most_blocks: usize,
}

/// A program as a shared library, and the bytes of a block's shared memory.
#[derive(Debug)]
pub struct Loaded {
    library: Library,
    shared_bytes: usize,
}

/// The library of a text, which stays beside the tests' program and is made once.
fn compiled(text: &str) -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let folder = program.parent().unwrap().join("kernels");
    std::fs::create_dir_all(&folder).unwrap();
    let compiler = std::env::var("CXX").unwrap_or("c++".into());
    let key = blake3::hash(format!("{compiler} {OPTIONS:?}\n{text}").as_bytes()).to_hex();
    let library = folder.join(format!("{key}.so"));
    if library.exists() {
        return library;
    }
    let making = TempDir::new_in(&folder).unwrap();
    let [source, made] = ["kernels.cc", "kernels.so"].map(|name| making.path().join(name));
    std::fs::write(&source, text).unwrap();
    let output = Command::new(&compiler)
        .args(OPTIONS)
        .args([&made, &source])
        .output()
        .unwrap_or_else(|error| panic!("{compiler}: {error}"));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}", &message[..message.len().min(8000)]);
    std::fs::rename(&made, &library).unwrap();
    library
}

impl Processor for Host {
    type Memory = Vec<u128>;
    type Loaded = Loaded;

    fn shared_limit(&self) -> usize {
        self.shared_limit
    }

    fn multiprocessors(&self) -> usize {
        self.multiprocessors
    }

    fn most_blocks(&self) -> usize {
        self.most_blocks
    }

    fn allocate(&self, bytes: usize) -> Vec<u128> {
        // What is read before it is written should be noticed.
        vec![u128::MAX; bytes.div_ceil(16)]
    }

    fn address(memory: &Vec<u128>) -> u64 {
        memory.as_ptr() as u64
    }

    fn write(&self, bytes: &[u8], memory: &mut Vec<u128>) {
        assert!(bytes.len() <= 16 * memory.len());
        // SAFETY: the memory has that many bytes, and any bytes make a number.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), memory.as_mut_ptr().cast(), bytes.len());
        }
    }

    fn read(&self, memory: &Vec<u128>, bytes: &mut [u8]) {
        assert!(bytes.len() <= 16 * memory.len());
        // SAFETY: the memory has that many bytes.
        unsafe {
            std::ptr::copy_nonoverlapping(memory.as_ptr().cast(), bytes.as_mut_ptr(), bytes.len());
        }
    }

    fn load(&self, program: &Program) -> Loaded {
        let text = program.source(PHASES, &Kernel::ALL);
        let library = compiled(&text);
        // SAFETY: the library was made from our text, which has no initializers.
        let library = unsafe { Library::new(&library) }.unwrap();
        Loaded { library, shared_bytes: program.shared_bytes }
    }

    fn launch(&self, loaded: &Loaded, kernel: Kernel, blocks: usize, arguments: &Arguments) {
        type Function = unsafe extern "C" fn(*const Arguments, i32, *mut u8);
        let name = CString::new(kernel.name()).unwrap();
        let mut shared = self.allocate(loaded.shared_bytes);
        // SAFETY: the function has this type (`kernels/host.h`), and the memory that it uses is as large as it was told.
        unsafe {
            let function = loaded.library.get::<Function>(name.as_bytes_with_nul()).unwrap();
            function(arguments, blocks as i32, shared.as_mut_ptr().cast());
        }
    }
}
