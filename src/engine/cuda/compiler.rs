//! The compiler of kernels: NVRTC, found at run time, and the folder where compiled kernels stay.

use std::error::Error as _;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::ptr;

use libloading::{Library, Symbol};

/// Names of the library, by which the system looks for it too. The first one works with the oldest drivers.
const NAMES: [&str; 3] = ["libnvrtc.so.12", "libnvrtc.so.13", "libnvrtc.so"];
const REMEDY: &str = "`make setup CUDA=1` installs it, NEURALRG_NVRTC names its folder";
const LANGUAGE: [&CStr; 3] = [c"-std=c++17", c"-default-device", c"--ptxas-options=-v"];

type Program = *mut c_void;
type Status = c_int;

/// NVRTC, which may be used by several threads.
#[derive(Debug)]
pub struct Compiler {
    /// It stays until the process ends: to load it again takes long.
    library: ManuallyDrop<Library>,
    /// Folder of compiled kernels; none where the user has no home.
    cache: Option<PathBuf>,
}

/// What the compiler makes of a text.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// Machine code for one architecture.
    pub code: Vec<u8>,
    /// What the compiler says, registers and spills among it; empty for code that was compiled before.
    pub log: String,
}

impl Compiler {
    /// The first one that is found.
    ///
    /// # Errors
    /// There is none, in words.
    pub fn find() -> Result<Self, String> {
        let mut problem = None;
        for path in candidates() {
            load_neighbours(&path);
            // SAFETY: NVRTC's initializers have no preconditions.
            match unsafe { Library::new(&path) } {
                Ok(library) => {
                    return Ok(Self { library: ManuallyDrop::new(library), cache: cache() });
                }
                Err(error) => problem = problem.or(Some(error)),
            }
        }
        let problem = problem
            .map_or(String::new(), |error| format!(" ({})", error.source().unwrap_or(&error)));
        Err(format!("NVRTC, the compiler of its kernels, is not there{problem}; {REMEDY}"))
    }

    /// Whether a driver, by the version of its interface, such as 12080, runs what it makes.
    ///
    /// # Errors
    /// It does not, in words.
    pub fn check_driver(&self, driver: c_int) -> Result<(), String> {
        let (major, minor) = self.version()?;
        if driver / 1000 >= major {
            return Ok(());
        }
        Err(format!(
            "the NVIDIA driver (CUDA {}.{}) is older than NVRTC {major}.{minor}; {REMEDY}",
            driver / 1000,
            driver % 1000 / 10
        ))
    }

    /// Whether it makes code for an architecture, such as 90.
    ///
    /// # Errors
    /// It does not, in words.
    pub fn check_architecture(&self, architecture: c_int) -> Result<(), String> {
        let mut count = 0;
        // SAFETY: NVRTC's functions with their types; the second one writes as many numbers as the first one tells.
        let known = unsafe {
            let number: Symbol<'_, unsafe extern "C" fn(*mut c_int) -> Status> =
                self.function(b"nvrtcGetNumSupportedArchs\0")?;
            self.check(number(&mut count))?;
            let mut known = vec![0; usize::try_from(count).unwrap_or(0)];
            let all: Symbol<'_, unsafe extern "C" fn(*mut c_int) -> Status> =
                self.function(b"nvrtcGetSupportedArchs\0")?;
            self.check(all(known.as_mut_ptr()))?;
            known
        };
        if known.contains(&architecture) {
            return Ok(());
        }
        let (major, minor) = self.version()?;
        Err(format!(
            "code for sm_{architecture}, which NVRTC {major}.{minor} cannot make; {REMEDY}"
        ))
    }

    /// Compiles a text for an architecture such as `sm_90`, or takes what was compiled of it before.
    ///
    /// # Errors
    /// In words: the architecture is not known, or the text has an error.
    pub fn compile(&self, text: &str, architecture: &str) -> Result<Compiled, String> {
        let version = self.version()?;
        let key =
            blake3::hash(format!("{version:?} {LANGUAGE:?} {architecture}\n{text}").as_bytes())
                .to_hex();
        let path = self.cache.as_ref().map(|folder| folder.join(format!("{key}.cubin")));
        if let Some(code) = path.as_deref().and_then(|path| std::fs::read(path).ok()) {
            return Ok(Compiled { code, log: String::new() });
        }
        let compiled = self.compile_anew(text, architecture)?;
        if let Some(path) = path
            && let Err(error) = keep(&path, &compiled.code)
        {
            log::debug!("{} is not kept: {error}", path.display());
        }
        Ok(compiled)
    }

    /// The same, always by compiling.
    ///
    /// # Errors
    /// As above.
    pub fn compile_anew(&self, text: &str, architecture: &str) -> Result<Compiled, String> {
        let text = CString::new(text).map_err(|_| "the text of a kernel has a zero".to_owned())?;
        let option = CString::new(format!("--gpu-architecture={architecture}"))
            .map_err(|_| "the name of an architecture has a zero".to_owned())?;
        let mut options = vec![option.as_ptr()];
        options.extend(LANGUAGE.map(CStr::as_ptr));
        let mut program: Program = ptr::null_mut();
        // SAFETY: these are NVRTC's functions with their types; all strings live until the program is destroyed.
        unsafe {
            let create: Symbol<
                '_,
                unsafe extern "C" fn(
                    *mut Program,
                    *const c_char,
                    *const c_char,
                    c_int,
                    *const *const c_char,
                    *const *const c_char,
                ) -> Status,
            > = self.function(b"nvrtcCreateProgram\0")?;
            let status =
                create(&mut program, text.as_ptr(), ptr::null(), 0, ptr::null(), ptr::null());
            self.check(status)?;
            let compile: Symbol<
                '_,
                unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status,
            > = self.function(b"nvrtcCompileProgram\0")?;
            let status = compile(program, options.len() as c_int, options.as_ptr());
            let log =
                self.bytes(program, [b"nvrtcGetProgramLogSize\0", b"nvrtcGetProgramLog\0"])?;
            let log = String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned();
            let code = match self.check(status) {
                Ok(()) => self.bytes(program, [b"nvrtcGetCUBINSize\0", b"nvrtcGetCUBIN\0"]),
                Err(problem) => Err(format!("{problem} for {architecture}: {log}")),
            };
            let destroy: Symbol<'_, unsafe extern "C" fn(*mut Program) -> Status> =
                self.function(b"nvrtcDestroyProgram\0")?;
            destroy(&mut program);
            Ok(Compiled { code: code?, log })
        }
    }

    fn version(&self) -> Result<(c_int, c_int), String> {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: NVRTC's function with its type.
        unsafe {
            let version: Symbol<'_, unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status> =
                self.function(b"nvrtcVersion\0")?;
            self.check(version(&mut major, &mut minor))?;
        }
        Ok((major, minor))
    }

    /// What a pair of functions, of a size and of so many bytes, has of a program.
    unsafe fn bytes(&self, program: Program, names: [&[u8]; 2]) -> Result<Vec<u8>, String> {
        // SAFETY: the caller names functions of these types.
        unsafe {
            let size: Symbol<'_, unsafe extern "C" fn(Program, *mut usize) -> Status> =
                self.function(names[0])?;
            let get: Symbol<'_, unsafe extern "C" fn(Program, *mut c_char) -> Status> =
                self.function(names[1])?;
            let mut length = 0;
            self.check(size(program, &mut length))?;
            let mut bytes = vec![0u8; length];
            self.check(get(program, bytes.as_mut_ptr().cast()))?;
            Ok(bytes)
        }
    }

    unsafe fn function<T>(&self, name: &[u8]) -> Result<Symbol<'_, T>, String> {
        // SAFETY: the caller names a function of this type.
        unsafe { self.library.get(name) }.map_err(|error| format!("NVRTC is too old: {error}"))
    }

    fn check(&self, status: Status) -> Result<(), String> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: NVRTC's function with its type, which returns a constant.
        let words = unsafe {
            let words: Symbol<'_, unsafe extern "C" fn(Status) -> *const c_char> =
                self.function(b"nvrtcGetErrorString\0")?;
            CStr::from_ptr(words(status)).to_string_lossy().into_owned()
        };
        Err(format!("NVRTC says {words}"))
    }
}

/// The folder that `NEURALRG_NVRTC` names and no other, or this program's own, the project's `.venv`, and the system's.
fn candidates() -> Vec<PathBuf> {
    if let Some(folder) = std::env::var_os("NEURALRG_NVRTC") {
        return NAMES.map(|name| Path::new(&folder).join(name)).into();
    }
    let beside = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.to_owned()));
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/nvrtc");
    let folders = beside.into_iter().chain([project]);
    let named: Vec<PathBuf> =
        folders.flat_map(|folder| NAMES.map(|name| folder.join(name))).collect();
    let found = named.into_iter().filter(|path| path.exists());
    found.chain(NAMES.map(PathBuf::from)).collect()
}

/// What NVRTC opens by its name only lies beside it.
fn load_neighbours(path: &Path) {
    let folder = path.canonicalize().ok().and_then(|path| Some(path.parent()?.to_owned()));
    let files = folder.and_then(|folder| std::fs::read_dir(folder).ok());
    for file in files.into_iter().flatten().flatten() {
        let name = file.file_name();
        if name.to_string_lossy().starts_with("libnvrtc-builtins.so") {
            // SAFETY: the library's initializers have no preconditions.
            if let Ok(library) = unsafe { Library::new(file.path()) } {
                std::mem::forget(library);
            }
        }
    }
}

/// Where the user's programs keep what they can make again (XDG base directories).
fn cache() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let base = folder("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| folder("HOME").map(|home| Path::new(&home).join(".cache")))?;
    Some(base.join("neuralrg"))
}

/// Writes beside and renames, since other ranks may do the same.
fn keep(path: &Path, code: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().expect("a file is in a folder");
    std::fs::create_dir_all(folder)?;
    let file = tempfile::NamedTempFile::new_in(folder)?;
    std::fs::write(file.path(), code)?;
    file.persist(path)?;
    Ok(())
}
