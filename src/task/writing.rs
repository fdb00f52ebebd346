//! Writing the file of a finished task.

use std::path::Path;

use ndarray::{Array2, ArrayView1, Axis};

use super::Task;
use super::record::{TaskRecord, verdict_text};
use super::task_file::Head;
use crate::config::Config;
use crate::error::Result;
use crate::files::atomic::write_atomically;
use crate::files::content::{
    hdf5_content, write_array, write_configuration, write_known_numbers, write_number,
    write_numbers, write_text,
};
use crate::files::schema::{self, Item};
use crate::files::seal;
use crate::flow::coupling::Half;
use crate::lattice::on_lattice;
use crate::sampling::config::Sampler;
use crate::sampling::states::TargetSamples;

/// Writes the file of a task that was finished with `config`.
///
/// # Errors
/// The file cannot be written; no file has the final name then.
pub fn write_task(path: &Path, record: &TaskRecord, config: &Config) -> Result<()> {
    let mut head = Head::of(record, config);
    let block = seal::block_for(Some(&head.line()));
    let content = hdf5_content(path, block, |file| fill_task(file, record))?;
    head.content_bytes = content.len() as u64;
    write_atomically(path, &seal::seal_hdf5_bytes(&content, block, Some(&head.line())))
}

fn fill_task(file: &hdf5::File, record: &TaskRecord) -> hdf5::Result<()> {
    let task = &record.task;
    write_text(file, "format", schema::TASK_FORMAT)?;
    write_number(file, "format_version", crate::FORMAT_VERSION)?;
    write_text(file, "code_version", crate::VERSION)?;
    write_identity(file, task)?;
    let (start, ancestry) = match &record.started_from {
        Some((start, before)) => (start.to_string(), format!("{start} < {before}")),
        None => (schema::AT_RANDOM.into(), schema::AT_RANDOM.into()),
    };
    write_text(file, schema::STARTED_FROM, &start)?;
    write_text(file, schema::ANCESTRY, &ancestry)?;
    write_text(file, "host", &record.host)?;
    write_text(file, "device", &record.device)?;
    write_number(file, "threads", record.threads as u64)?;

    write_configuration(file, &record.configuration)?;
    write_text(file, schema::VERDICT, &verdict_text(&record.verdict))?;
    let scalars = schema::task_scalars();
    write_known_numbers(&file.create_group(schema::SCALARS)?, scalars, &record.scalars)?;
    let references = schema::REFERENCE_SCALARS.iter();
    write_known_numbers(&file.create_group(schema::REFERENCES)?, references, &record.references)?;
    let timing = schema::TIMING_SCALARS.iter();
    write_numbers(&file.create_group(schema::TIMING)?, timing, &record.timing)?;

    write_training(file, record.parameters.view(), &record.halves, &record.history)?;
    let group = file.create_group(schema::EVALUATE)?;
    write_array(&group, &schema::LN_Q, ArrayView1::from(&record.ln_q))?;
    write_array(&group, &schema::LN_PI, ArrayView1::from(&record.ln_pi))?;
    write_array(&group, &schema::SAMPLES, on_lattice(record.samples.view()))?;
    let all = file.create_group(schema::CHAINS_GROUP)?;
    for sampler in &record.samplers {
        let group = all.create_group(sampler.name)?;
        write_text(&group, schema::VERDICT, &verdict_text(&sampler.verdict))?;
        write_text(&group, schema::WARMUP_RULE, &sampler.warmup_rule)?;
        for (item, values) in schema::CHAINS.iter().zip(sampler.chains.axis_iter(Axis(0))) {
            write_array(&group, item, values)?;
        }
        if let Some(TargetSamples { fields, latents }) = &sampler.states {
            let group = group.create_group(schema::STATES_GROUP)?;
            for (item, values) in schema::STATES.iter().zip([fields, latents]) {
                write_array(&group, item, on_lattice(values.view()))?;
            }
        }
        let group = group.create_group(schema::ESTIMATES)?;
        if sampler.name == Sampler::Latent.name() {
            link_scalars(&group, schema::sampler_scalars())?;
        } else {
            write_known_numbers(&group, schema::sampler_scalars(), &sampler.estimates)?;
        }
    }
    if record.course.ncols() > 0 {
        let group = file.create_group(schema::COURSE_GROUP)?;
        for (item, values) in schema::COURSE.iter().zip(record.course.axis_iter(Axis(0))) {
            write_array(&group, item, values)?;
        }
    }
    if !record.held_out.is_empty() {
        let group = file.create_group(schema::HELD_OUT)?;
        write_known_numbers(&group, schema::HELD_OUT_SCALARS.iter(), &record.held_out)?;
    }
    let group = file.create_group(schema::OBSERVABLES)?;
    for (item, values) in schema::LATTICE_OBSERVABLES.iter().zip(record.lattice.axis_iter(Axis(0)))
    {
        write_array(&group, item, values)?;
    }
    write_number(file, schema::COMPLETE, 1u8)
}

pub(super) fn write_identity(file: &hdf5::File, task: &Task) -> hdf5::Result<()> {
    write_text(file, "task", &task.name())?;
    write_number(file, "linear_size", task.linear_size as u64)?;
    write_number(file, "temperature", task.temperature)?;
    write_number(file, "depth", task.depth as u64)?;
    write_number(file, "seed", task.seed)
}

/// Gives scalars of the task a second name in another group of its file.
fn link_scalars<'a>(
    group: &hdf5::Group,
    items: impl Iterator<Item = &'a Item>,
) -> hdf5::Result<()> {
    for Item { name, .. } in items {
        group.link_hard(&format!("/{}/{name}", schema::SCALARS), name)?;
    }
    Ok(())
}

/// What a training leaves: the flow's parameters, and its history, one row for each of [`schema::TRAIN_HISTORY`].
pub(super) fn write_training(
    file: &hdf5::File,
    parameters: ArrayView1<f64>,
    halves: &[Half],
    history: &Array2<f64>,
) -> hdf5::Result<()> {
    let group = file.create_group(schema::MODEL)?;
    write_array(&group, &schema::PARAMETERS, parameters)?;
    if !halves.is_empty() {
        let sites = halves.as_flattened().iter().map(|&site| site as i8).collect();
        let sites = Array2::from_shape_vec((halves.len(), 2), sites).expect("halves are pairs");
        write_array(&group, &schema::HALVES, sites.view())?;
    }
    let group = file.create_group(schema::TRAIN)?;
    for (item, values) in schema::TRAIN_HISTORY.iter().zip(history.axis_iter(Axis(0))) {
        write_array(&group, item, values)?;
    }
    Ok(())
}
