//! HDF5 dimension scales, which give arrays named coordinates in xarray, netCDF and h5py: three
//! functions of HDF5's high-level library, for which the hdf5 crate has no binding.

use std::ffi::{CString, c_char, c_int, c_uint};

use hdf5::{Dataset, Group};

/// HDF5's `hid_t`.
type Identifier = i64;

#[link(name = "hdf5_hl")]
unsafe extern "C" {
    fn H5DSset_scale(scale: Identifier, name: *const c_char) -> c_int;
    fn H5DSattach_scale(dataset: Identifier, scale: Identifier, index: c_uint) -> c_int;
}

/// Makes an axis of a group that has a name and a length but no values: a dataset without data that netCDF takes for a
/// dimension.
pub(crate) fn dimension(group: &Group, name: &str, length: usize) -> hdf5::Result<Dataset> {
    let dataset = group.new_dataset::<f32>().shape(length).create(name)?;
    // How the netCDF library marks these (and reads them), the length in ten places.
    let mark = format!("This is a netCDF dimension but not a netCDF variable.{length:10}");
    make_scale(&dataset, &mark)?;
    Ok(dataset)
}

/// Makes a one-dimensional dataset a dimension scale of the given name.
pub(crate) fn make_scale(dataset: &Dataset, name: &str) -> hdf5::Result<()> {
    let name = CString::new(name).expect("names in the schema have no NUL");
    // SAFETY: the identifier is that of an open dataset, the name lives through the call, and the lock
    // that the hdf5 crate takes around its own calls is held.
    check(hdf5::sync::sync(|| unsafe { H5DSset_scale(dataset.id(), name.as_ptr()) }))
}

/// Makes `scale` the coordinate of axis `index` of a dataset.
pub(crate) fn attach(dataset: &Dataset, scale: &Dataset, index: usize) -> hdf5::Result<()> {
    // SAFETY: as in `make_scale`, for both datasets.
    check(hdf5::sync::sync(|| unsafe {
        H5DSattach_scale(dataset.id(), scale.id(), index as c_uint)
    }))
}

fn check(status: c_int) -> hdf5::Result<()> {
    if status < 0 { Err("HDF5 cannot attach a dimension scale".into()) } else { Ok(()) }
}
