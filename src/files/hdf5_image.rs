//! An HDF5 file as bytes, by a function of HDF5 for which the hdf5 crate has no binding.

use std::ffi::c_void;
use std::ptr::null_mut;

/// HDF5's `hid_t`.
type Identifier = i64;

#[link(name = "hdf5")]
unsafe extern "C" {
    fn H5Fget_file_image(file: Identifier, buffer: *mut c_void, length: usize) -> isize;
}

/// The bytes of an open file, without its user block.
pub(crate) fn image(file: &hdf5::File) -> hdf5::Result<Vec<u8>> {
    file.flush()?;
    // SAFETY: the identifier is that of an open file, the buffer is as long as is said, and the lock that
    // the hdf5 crate takes around its own calls is held.
    let get = |buffer: *mut c_void, length: usize| {
        let size = hdf5::sync::sync(|| unsafe { H5Fget_file_image(file.id(), buffer, length) });
        usize::try_from(size).map_err(|_| "HDF5 cannot give a file's bytes".to_owned())
    };
    let mut bytes = vec![0; get(null_mut(), 0)?];
    let length = get(bytes.as_mut_ptr().cast(), bytes.len())?;
    bytes.truncate(length);
    Ok(bytes)
}
