//! What HDF5 files hold: numbers, arrays with named axes and texts, each with its unit and meaning.

use std::path::Path;
use std::str::FromStr;

use hdf5::types::{FixedUnicode, TypeDescriptor, VarLenUnicode};
use ndarray::{ArrayView, Dimension};

use super::Numbers;
use super::atomic::write_atomically;
use super::dimension_scale;
use super::hdf5_image::image;
use super::schema::{self, Item};
use super::seal;
use crate::error::{Error, Result};

/// Room for every unit and description of the schema.
type Label = FixedUnicode<256>;

/// Lets `fill` write a new HDF5 file, in memory, and writes its bytes with their checksum to `path`.
///
/// # Errors
/// libhdf5's, or the file cannot be written; `path` then has what it had.
pub(crate) fn write_hdf5(
    path: &Path,
    fill: impl FnOnce(&hdf5::File) -> hdf5::Result<()>,
) -> Result<()> {
    let block = seal::block_for(None);
    let content = hdf5_content(path, block, fill)?;
    write_atomically(path, &seal::seal_hdf5_bytes(&content, block, None))
}

/// The bytes of an HDF5 file that `fill` has written, to stand behind a user block of so many bytes.
///
/// libhdf5 does not write to the disk itself, since it does not tell of every write that fails: a file
/// with zeros in the place of some numbers has been seen to pass.
pub(crate) fn hdf5_content(
    path: &Path,
    block: u64,
    fill: impl FnOnce(&hdf5::File) -> hdf5::Result<()>,
) -> Result<Vec<u8>> {
    let mut options = hdf5::File::with_options();
    options.with_fapl(|properties| properties.core_filebacked(false));
    options.with_fcpl(|properties| properties.userblock(block));
    let bytes = options.create(path).and_then(|file| {
        fill(&file)?;
        image(&file)
    });
    bytes.map_err(Error::hdf5("write", path))
}

/// The resolved configuration, as TOML.
pub(crate) fn write_configuration(file: &hdf5::File, configuration: &str) -> hdf5::Result<()> {
    let text = VarLenUnicode::from_str(configuration).expect("TOML text has no NUL");
    let dataset = file.new_dataset::<VarLenUnicode>().create(schema::CONFIGURATION.name)?;
    dataset.write_scalar(&text)?;
    describe(&dataset, &schema::CONFIGURATION)
}

pub(crate) fn write_numbers<'a>(
    group: &hdf5::Group,
    items: impl Iterator<Item = &'a Item>,
    numbers: &Numbers,
) -> hdf5::Result<()> {
    for item in items {
        let dataset = group.new_dataset::<f64>().create(item.name)?;
        dataset.write_scalar(&numbers[item.name])?;
        describe(&dataset, item)?;
    }
    Ok(())
}

/// Writes those of the items for which there are numbers.
pub(crate) fn write_known_numbers<'a>(
    group: &hdf5::Group,
    items: impl Iterator<Item = &'a Item>,
    numbers: &Numbers,
) -> hdf5::Result<()> {
    write_numbers(group, items.filter(|item| numbers.contains_key(item.name)), numbers)
}

/// Writes an array with its axes as dimension scales of the group.
pub(crate) fn write_array<T: hdf5::H5Type + Clone, D: Dimension>(
    group: &hdf5::Group,
    item: &Item,
    values: ArrayView<'_, T, D>,
) -> hdf5::Result<()> {
    let values = values.as_standard_layout();
    let dataset = group.new_dataset_builder().with_data(values.view()).create(item.name)?;
    describe(&dataset, item)?;
    if item.axes == [item.name] {
        return dimension_scale::make_scale(&dataset, item.name);
    }
    for (index, (axis, &length)) in item.axes.iter().zip(values.shape()).enumerate() {
        let scale = if group.link_exists(axis) {
            group.dataset(axis)?
        } else {
            dimension_scale::dimension(group, axis, length)?
        };
        dimension_scale::attach(&dataset, &scale, index)?;
    }
    Ok(())
}

/// Attributes that every dataset carries: units and long_name.
pub(crate) fn describe(dataset: &hdf5::Dataset, item: &Item) -> hdf5::Result<()> {
    write_label(dataset, "units", item.units)?;
    write_label(dataset, "long_name", item.description)
}

/// A text attribute of fixed length, which takes half the room of one that may change its length.
fn write_label(dataset: &hdf5::Dataset, name: &str, text: &str) -> hdf5::Result<()> {
    let kind = TypeDescriptor::FixedUnicode(text.len());
    let text = Label::from_str(text).map_err(|error| error.to_string())?;
    dataset.new_attr_builder().empty_as(&kind).create(name)?.write_scalar(&text)
}

pub(crate) fn write_text(location: &hdf5::Location, name: &str, text: &str) -> hdf5::Result<()> {
    let text = VarLenUnicode::from_str(text).map_err(|error| error.to_string())?;
    location.new_attr::<VarLenUnicode>().create(name)?.write_scalar(&text)
}

/// Several texts, in their order.
pub(crate) fn write_texts(
    location: &hdf5::Location,
    name: &str,
    texts: &[String],
) -> hdf5::Result<()> {
    let texts = texts.iter().map(|text| {
        VarLenUnicode::from_str(text).map_err(|error| hdf5::Error::from(error.to_string()))
    });
    let texts = texts.collect::<hdf5::Result<Vec<_>>>()?;
    location.new_attr_builder().with_data(&texts).create(name).map(|_| ())
}

pub(crate) fn write_number<T: hdf5::H5Type>(
    location: &hdf5::Location,
    name: &str,
    value: T,
) -> hdf5::Result<()> {
    location.new_attr::<T>().create(name)?.write_scalar(&value)
}
