//! Kernels on a GPU, by the driver, which is found at run time.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use cudarc::driver::result::{DriverError, ctx, device, function, module, primary_ctx};
use cudarc::driver::{result, sys};

use super::compiler::Compiler;
use super::processor::{Arguments, Processor};
use super::program::{Kernel, Program};
use crate::error::GPU_FAILED;

/// How phases run.
const PHASES: &str = include_str!("kernels/gpu.cuh");
/// Kernels that measure a GPU.
const RATES: &str = include_str!("kernels/rates.cuh");
const PHASES_OF_RATES: &str =
    "#define UNROLL _Pragma(\"unroll\")\n#define UNROLL_BY_EIGHT _Pragma(\"unroll 8\")\n";
/// Oldest driver interface that runs what NVRTC 12 makes.
const LEAST_DRIVER: i32 = 12_000;
/// Oldest architecture whose kernels may take their arguments by reference.
const LEAST_ARCHITECTURE: (i32, i32) = (7, 0);

/// Of an H100. The same numbers for all GPUs, since the order of sums depends on them.
const MULTIPROCESSORS: usize = 132;
const MOST_BLOCKS: usize = 2 * MULTIPROCESSORS;

/// A GPU with its compiler.
#[derive(Debug)]
pub struct Gpu {
    context: Context,
    compiler: Compiler,
    /// Such as `sm_90`.
    architecture: String,
    shared_limit: usize,
}

/// The GPU's primary context, which all parts of the process share, and which stays until it ends.
#[derive(Debug, Clone, Copy)]
struct Context {
    context: sys::CUcontext,
    device: sys::CUdevice,
}

// SAFETY: the driver's handles may be used from any thread.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

/// A piece of the GPU's memory.
#[derive(Debug)]
pub struct Memory {
    context: Context,
    address: sys::CUdeviceptr,
}

/// A program whose kernels are compiled when they are launched first.
#[derive(Debug)]
pub struct Loaded {
    context: Context,
    program: Program,
    kernels: Mutex<HashMap<Kernel, Code>>,
}

/// A kernel in the GPU.
#[derive(Debug, Clone, Copy)]
struct Code {
    module: sys::CUmodule,
    function: sys::CUfunction,
}

// SAFETY: the driver's handles may be used from any thread.
unsafe impl Send for Code {}

/// Whether the driver can be loaded.
pub fn driver_present() -> bool {
    // SAFETY: the driver's initializers have no preconditions.
    unsafe { sys::is_culib_present() }
}

/// Number of GPUs that these kernels can use.
///
/// # Errors
/// Why there is none, in words.
pub fn count() -> Result<usize, String> {
    if !driver_present() {
        return Err("there is no NVIDIA driver (libcuda.so.1)".into());
    }
    result::init()
        .map_err(|error| format!("the NVIDIA driver does not start: {}", words(error)))?;
    let mut version = 0;
    // SAFETY: the driver's function, given room for a number.
    let status = unsafe { sys::cuDriverGetVersion(&mut version) }.result();
    status.map_err(|error| format!("the NVIDIA driver has no version: {}", words(error)))?;
    if version < LEAST_DRIVER {
        return Err(format!(
            "the NVIDIA driver is too old (CUDA {}.{}); update it to one of CUDA 12, 525 or later",
            version / 1000,
            version % 1000 / 10
        ));
    }
    let count = device::get_count()
        .map_err(|error| format!("the NVIDIA driver counts no GPU: {}", words(error)))?;
    if count == 0 {
        return Err("no GPU is visible".into());
    }
    let compiler = Compiler::find()?;
    compiler.check_driver(version)?;
    for number in 0..count {
        let (_, (major, minor)) = device_of(number)?;
        if (major, minor) < LEAST_ARCHITECTURE {
            return Err(format!("GPU {number} is too old (compute capability {major}.{minor})"));
        }
        compiler.check_architecture(10 * major + minor)?;
    }
    Ok(usize::try_from(count).unwrap_or(0))
}

/// The driver's handle of a GPU, and its compute capability.
fn device_of(number: i32) -> Result<(sys::CUdevice, (i32, i32)), String> {
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    let failed = |error| format!("GPU {number} cannot be used: {}", words(error));
    result::init().map_err(failed)?;
    let device = device::get(number).map_err(failed)?;
    // SAFETY: the device was just got from the driver.
    let attribute = |of| unsafe { device::get_attribute(device, of) }.map_err(failed);
    Ok((device, (attribute(MAJOR)?, attribute(MINOR)?)))
}

impl Gpu {
    /// The visible GPU of this number, one of those that [`count`] has counted.
    ///
    /// # Errors
    /// It cannot be used, in words.
    pub fn open(number: usize) -> Result<Self, String> {
        use sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN as SHARED;
        let failed = |error| format!("GPU {number} cannot be used: {}", words(error));
        let number_of_driver = i32::try_from(number).map_err(|_| "no such GPU".to_owned())?;
        let (device, (major, minor)) = device_of(number_of_driver)?;
        // SAFETY: the device was just got from the driver.
        let shared = unsafe { device::get_attribute(device, SHARED) }.map_err(failed)?;
        // SAFETY: as above. It is never released: to make it again for each task would take longer than many tasks.
        let context = unsafe { primary_ctx::retain(device) }.map_err(failed)?;
        Ok(Self {
            context: Context { context, device },
            compiler: Compiler::find()?,
            architecture: format!("sm_{major}{minor}"),
            shared_limit: usize::try_from(shared).unwrap_or(0),
        })
    }

    /// Compiles a kernel, or takes it from those compiled before, and puts it into the GPU.
    fn code(&self, text: &str, name: &str, shared_bytes: usize) -> Code {
        let compiled = self.compiler.compile(text, &self.architecture).unwrap_or_else(|problem| {
            panic!("kernel `{name}` does not compile; please report this bug: {problem}")
        });
        log::debug!("kernel `{name}`: {}", compiled.log);
        let name = CString::new(name).expect("names of kernels have no zeros");
        let shared = i32::try_from(shared_bytes).expect("shared memory is far below 2³¹");
        // SAFETY: the code is a whole image, and the kernel is used only while the module is loaded.
        unsafe {
            let module = done(module::load_data(compiled.code.as_ptr().cast()));
            let function = done(module::get_function(module, name));
            let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            done(function::set_function_attribute(function, most, shared));
            Code { module, function }
        }
    }

    /// Starts a kernel.
    ///
    /// # Safety
    /// The kernel has these parameters.
    unsafe fn start(
        code: Code,
        (blocks, threads, shared): (usize, usize, usize),
        parameters: &mut [*mut c_void],
    ) {
        let number = |count: usize| u32::try_from(count).expect("grids are far below 2³²");
        let (grid, block) = ((number(blocks), 1, 1), (number(threads), 1, 1));
        // SAFETY: the caller vouches for the parameters; the stream is the context's own.
        let started = unsafe {
            result::launch_kernel(
                code.function,
                grid,
                block,
                number(shared),
                std::ptr::null_mut(),
                parameters,
            )
        };
        done(started);
    }

    /// What it can do at most, each measured with a kernel that does nothing else.
    pub fn rates(&self) -> Rates {
        const BLOCKS: usize = 4096;
        const BLOCK: usize = 256;
        const ROUNDS: i64 = 32;
        const FEW: i64 = 2048;
        let bytes = BLOCKS * BLOCK * 16 * ROUNDS as usize;
        let (from, to) = (self.allocate(bytes), self.allocate(bytes));
        let best = |name: &str, rounds: i64| {
            let code = self.code(&format!("{PHASES_OF_RATES}{RATES}"), name, 0);
            let seconds = (0..5).map(|_| {
                let start = Instant::now();
                let (mut from, mut to, mut rounds) = (from.address, to.address, rounds);
                let mut parameters = [
                    (&raw mut from).cast::<c_void>(),
                    (&raw mut to).cast(),
                    (&raw mut rounds).cast(),
                ];
                // SAFETY: the kernels of `kernels/rates.cuh` have these three, and stay within the memory.
                unsafe { Self::start(code, (BLOCKS, BLOCK, 0), &mut parameters) };
                done(ctx::synchronize());
                start.elapsed().as_secs_f64()
            });
            seconds.fold(f64::INFINITY, f64::min)
        };
        let threads = (BLOCKS * BLOCK) as f64;
        Rates {
            flops: threads * 32.0 * FEW as f64 / best("multiply_add", FEW),
            bytes: 2.0 * bytes as f64 / best("copy", ROUNDS),
        }
    }

    /// Its name, as the driver has it.
    pub fn name(&self) -> String {
        device::get_name(self.context.device).unwrap_or_default()
    }
}

/// Operations and bytes in a second.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    /// Of products and sums in f32.
    pub flops: f64,
    /// Read or written.
    pub bytes: f64,
}

impl Context {
    /// Makes it that of this thread.
    fn enter(self) {
        // SAFETY: the context is retained.
        done(unsafe { ctx::set_current(self.context) });
    }

    /// The same before memory is freed: where the GPU is lost there is nothing to free.
    fn enter_if_possible(self) {
        // SAFETY: the context is retained.
        let _ = unsafe { ctx::set_current(self.context) };
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.context.enter_if_possible();
        let kernels = self.kernels.get_mut().unwrap_or_else(PoisonError::into_inner);
        for Code { module, .. } in kernels.values() {
            // SAFETY: nothing that was launched runs any more, since all results were read.
            let _ = unsafe { module::unload(*module) };
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.context.enter_if_possible();
        // SAFETY: the address was allocated in this context, and nothing that was launched uses it, since all results were read.
        let _ = unsafe { result::free_sync(self.address) };
    }
}

impl Processor for Gpu {
    type Memory = Memory;
    type Loaded = Loaded;

    fn shared_limit(&self) -> usize {
        self.shared_limit
    }

    fn multiprocessors(&self) -> usize {
        MULTIPROCESSORS
    }

    fn most_blocks(&self) -> usize {
        MOST_BLOCKS
    }

    fn allocate(&self, bytes: usize) -> Memory {
        self.context.enter();
        // SAFETY: more than 0 bytes are asked for.
        match unsafe { result::malloc_sync(bytes.max(1)) } {
            Ok(address) => Memory { context: self.context, address },
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let (free, total) = result::mem_get_info().unwrap_or((0, 0));
                let [asked, free, total] = [bytes, free, total].map(|bytes| bytes as f64);
                let mebibyte = f64::from(1 << 20);
                // What comes after the full stop is not for users (`Error::panic`).
                panic!(
                    "the GPU is out of memory: {:.1} MiB asked for, {:.1} of {:.1} MiB free, where a batch of {:.0} % would \
                     fit. ",
                    asked / mebibyte,
                    free / mebibyte,
                    total / mebibyte,
                    (100.0 * free / asked).floor()
                )
            }
            Err(error) => done(Err(error)),
        }
    }

    fn address(memory: &Memory) -> u64 {
        memory.address
    }

    fn write(&self, bytes: &[u8], memory: &mut Memory) {
        self.context.enter();
        if !bytes.is_empty() {
            // SAFETY: callers allocate what they write.
            done(unsafe { result::memcpy_htod_sync(memory.address, bytes) });
        }
    }

    fn read(&self, memory: &Memory, bytes: &mut [u8]) {
        self.context.enter();
        if !bytes.is_empty() {
            // SAFETY: callers allocate what they read. Copies wait for all that was launched before.
            done(unsafe { result::memcpy_dtoh_sync(bytes, memory.address) });
        }
    }

    fn load(&self, program: &Program) -> Loaded {
        Loaded { context: self.context, program: program.clone(), kernels: Mutex::default() }
    }

    fn launch(&self, loaded: &Loaded, kernel: Kernel, blocks: usize, arguments: &Arguments) {
        self.context.enter();
        let code = *loaded
            .kernels
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(kernel)
            .or_insert_with(|| {
                let text = loaded.program.source(PHASES, &[kernel]);
                self.code(&text, kernel.name(), loaded.program.shared_bytes)
            });
        let mut arguments = *arguments;
        let mut parameters = [(&raw mut arguments).cast::<c_void>()];
        let Program { threads, shared_bytes, .. } = loaded.program;
        // SAFETY: the kernel has one parameter of this type, whose addresses are of this GPU's memory.
        unsafe { Self::start(code, (blocks, threads, shared_bytes), &mut parameters) };
    }
}

/// What the driver has done.
///
/// # Panics
/// The GPU is lost, or a kernel went wrong.
fn done<T>(result: Result<T, DriverError>) -> T {
    result.unwrap_or_else(|error| panic!("{GPU_FAILED}: {}", words(error)))
}

fn words(error: DriverError) -> String {
    let name = error.error_name().map(|name| name.to_string_lossy().into_owned());
    let sentence = error.error_string().map(|words| words.to_string_lossy().into_owned());
    format!("{} ({})", sentence.unwrap_or_default(), name.unwrap_or_default())
}
