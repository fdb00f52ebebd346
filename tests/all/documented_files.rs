//! `docs/files.md` tells the truth about the files: its tables are those of the schema, and the schema's are those of
//! the files that the program writes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{Sweep, TINY, everything_measured, make_hdf5, neuralrg, outcome};
use hdf5::types::{FixedAscii, FixedUnicode, TypeDescriptor, VarLenArray};
use hdf5::{Dataset, Group, ObjectReference1, ReferencedObject};
use neuralrg::files::schema::{self, Item};
use neuralrg::targets::observe::{Derived, Observable};

/// Set to anything, it makes the tests write the tables instead of comparing them.
const WRITE: &str = "NEURALRG_WRITE_DOCUMENTS";

/// Groups of a task file with what is in them.
fn task_layout() -> Vec<(&'static str, Vec<Item>)> {
    vec![
        ("", vec![schema::CONFIGURATION]),
        (schema::SCALARS, schema::task_scalars().copied().collect()),
        (schema::REFERENCES, schema::REFERENCE_SCALARS.to_vec()),
        (schema::TIMING, schema::TIMING_SCALARS.to_vec()),
        (schema::MODEL, vec![schema::PARAMETERS, schema::HALVES]),
        (schema::TRAIN, schema::TRAIN_HISTORY.to_vec()),
        (schema::EVALUATE, vec![schema::LN_Q, schema::LN_PI, schema::SAMPLES]),
        (schema::CHAINS_GROUP, schema::CHAINS.to_vec()),
        ("chains/latent/states", schema::STATES.to_vec()),
        (schema::COURSE_GROUP, schema::COURSE.to_vec()),
        (schema::HELD_OUT, schema::HELD_OUT_SCALARS.to_vec()),
        (schema::OBSERVABLES, schema::LATTICE_OBSERVABLES.to_vec()),
    ]
}

/// Files beside the sweep's own, by the names of their tables.
fn other_layouts() -> Vec<(&'static str, Vec<Item>)> {
    let responses = [&schema::RESPONDING[..], &schema::RESPONSES].concat();
    let pairs = schema::MUTUAL_INFORMATION.as_flattened();
    let information = [&[schema::VARIABLE_LEVEL, schema::DISTANCE][..], pairs].concat();
    let couplings = schema::EFFECTIVE_COUPLINGS.as_flattened();
    let coarse = [&[schema::LEVEL][..], &schema::COARSE_FIELDS, couplings, &schema::WALK].concat();
    let drawn = vec![schema::FIELD, schema::LATENT, schema::SIGN, schema::LN_Q, schema::LN_PI];
    let temperature = Item { axes: &schema::FIELDS.axes[..1], ..schema::TEMPERATURE };
    let modes = [
        &schema::OF_SEEDS[..],
        &schema::FREQUENCIES,
        &[schema::MODE_LATENT],
        &schema::SLOW_MODES,
        &schema::MODE_INFORMATION,
    ]
    .concat();
    let kept = [&[schema::CANONICAL_SAMPLES][..], &schema::REDRAWN].concat();
    vec![
        ("responses", responses),
        ("mutual_information", information),
        ("coarse", coarse),
        ("samples", drawn),
        ("fields", vec![schema::FIELDS, temperature]),
        ("pictures", vec![schema::LN_NOISE, schema::EDGES]),
        ("evaluate of a learned file", vec![schema::SAMPLES, schema::LEVELS, schema::EDGES]),
        ("coordinates", vec![schema::COORDINATES, schema::ANGLES]),
        ("scalars of a canonical file", schema::CANONICAL_SCALARS.to_vec()),
        ("modes of a canonical file", modes),
        ("model of a canonical file", vec![schema::PARAMETERS, schema::FROZEN]),
        ("evaluate of a canonical file", kept),
        ("modes of samples", vec![schema::FREQUENCIES[0], schema::MODE_VALUES]),
    ]
}

/// The layout of this name.
fn other_layout(name: &str) -> Vec<Item> {
    let found = other_layouts().into_iter().find(|(other, _)| *other == name);
    found.expect("it is listed").1
}

/// What the collected file adds: its coordinates.
fn coordinates() -> Vec<Item> {
    let lattice = [schema::LATTICE_ROWS, schema::WAVE_NUMBERS, schema::DISTANCES].concat();
    [vec![schema::TEMPERATURE, schema::DEPTH, schema::SEED, schema::SAMPLE], lattice].concat()
}

/// Axes of the collected file with the arrays over them.
fn sweep_layout() -> Vec<(Vec<&'static str>, Vec<Item>)> {
    let grid = schema::COMPLETENESS.axes;
    let over_tasks = |axes: &[&'static str]| [grid, axes].concat();
    let numbers = schema::task_scalars().chain(schema::TIMING_SCALARS);
    let (spectrum, correlation) = schema::LATTICE_OBSERVABLES.split_at(2);
    vec![
        (vec![schema::TEMPERATURE.name], schema::REFERENCE_SCALARS.to_vec()),
        (grid.to_vec(), numbers.chain([&schema::COMPLETENESS]).copied().collect()),
        (over_tasks(schema::SAMPLES.axes), vec![schema::SAMPLES]),
        (over_tasks(spectrum[0].axes), spectrum.to_vec()),
        (over_tasks(correlation[0].axes), correlation.to_vec()),
    ]
}

/// A table of datasets in Markdown.
fn table(items: &[Item]) -> String {
    let row = |item: &Item| {
        let axes = if item.axes.is_empty() { "".into() } else { item.axes.join(", ") + " " };
        let meaning = item.description.replace('|', "\\|");
        format!("| `{}` | {} | {axes}| {meaning} |\n", item.name, item.units)
    };
    let rows: String = items.iter().map(row).collect();
    format!("| dataset | units | axes | meaning |\n|---|---|---|---|\n{rows}")
}

/// The arrays of the collected file by their axes, whose meaning the tables of the task file tell.
fn table_of_axes() -> String {
    let row = |(axes, items): &(Vec<&str>, Vec<Item>)| {
        let names: Vec<_> = items.iter().map(|item| format!("`{}`", item.name)).collect();
        format!("| {} | {} |\n", axes.join(", "), names.join(", "))
    };
    let rows: String = sweep_layout().iter().map(row).collect();
    format!("| axes | arrays |\n|---|---|\n{rows}")
}

fn document() -> (PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/files.md");
    let text = fs::read_to_string(&path).unwrap();
    (path, text)
}

/// `text` with what stands between the marks of `name` replaced.
fn replaced(text: &str, name: &str, table: &str) -> String {
    let mark = format!("<!-- table of {name} -->\n");
    let [before, rest] = text.split(&mark).collect::<Vec<_>>()[..] else {
        panic!("docs/files.md must have one line {mark:?}, then one `<!-- end -->`");
    };
    let (_, after) = rest.split_once("<!-- end -->").expect("every table has an end");
    format!("{before}{mark}{table}<!-- end -->{after}")
}

#[test]
fn tables_are_those_of_the_schema() {
    let (path, text) = document();
    let mut tables: Vec<(String, String)> =
        task_layout().iter().map(|(group, items)| (format!("/{group}"), table(items))).collect();
    tables.extend(other_layouts().iter().map(|(name, items)| ((*name).into(), table(items))));
    tables.push(("the coordinates".into(), table(&coordinates())));
    tables.push(("the arrays".into(), table_of_axes()));
    assert_eq!(text.matches("<!-- table of ").count(), tables.len(), "tables of docs/files.md");
    let expected =
        tables.iter().fold(text.clone(), |text, (name, table)| replaced(&text, name, table));
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, &expected).unwrap();
    } else if let Some((line, _)) =
        text.lines().zip(expected.lines()).find(|(line, expected)| line != expected)
    {
        panic!(
            "docs/files.md is not what src/files/schema/ says, from this line on: {line}\n\
             write its tables anew with {WRITE}=1 cargo test --release --test all documented_files::"
        );
    }
}

/// Units, meaning and axes of a dataset, as its attributes and dimension scales have them; the lengths of scales are those
/// of the axes.
fn described(dataset: &Dataset) -> (String, String, Vec<String>) {
    let text = |name: &str| dataset.attr(name).unwrap().read_scalar::<FixedUnicode<256>>().unwrap();
    let axes = if let Ok(scales) = dataset.attr("DIMENSION_LIST") {
        let scales = scales.read_raw::<VarLenArray<ObjectReference1>>().unwrap();
        let scales: Vec<Dataset> =
            scales.iter().map(|scale| scale_of(dataset, &scale[0])).collect();
        let lengths: Vec<usize> = scales.iter().map(|scale| scale.size()).collect();
        assert_eq!(lengths, dataset.shape(), "{}", dataset.name());
        scales.iter().map(own_name).collect()
    } else if dataset.attr("CLASS").is_ok() {
        // A coordinate is its own axis.
        vec![own_name(dataset)]
    } else {
        Vec::new()
    };
    assert_eq!(axes.len(), dataset.ndim(), "{} has its dimension scales", dataset.name());
    (text("units").to_string(), text("long_name").to_string(), axes)
}

fn scale_of(dataset: &Dataset, reference: &ObjectReference1) -> Dataset {
    match dataset.dereference(reference).unwrap() {
        ReferencedObject::Dataset(scale) => scale,
        other => panic!("a dimension scale is no {other:?}"),
    }
}

/// Name of a dataset in its group.
fn own_name(dataset: &Dataset) -> String {
    dataset.name().rsplit('/').next().expect("paths have parts").to_owned()
}

/// Whether a dataset only names an axis and its length, as netCDF marks it.
fn is_bare_dimension(dataset: &Dataset) -> bool {
    let name = dataset.attr("NAME").and_then(|name| name.read_scalar::<FixedAscii<80>>());
    name.is_ok_and(|name| name.starts_with("This is a netCDF dimension but not a netCDF variable."))
}

/// The datasets of a group as the schema describes them.
#[track_caller]
fn assert_holds(group: &Group, items: &[Item]) {
    let found: BTreeMap<String, _> = group
        .datasets()
        .unwrap()
        .iter()
        .filter(|dataset| !is_bare_dimension(dataset))
        .map(|dataset| (own_name(dataset), described(dataset)))
        .collect();
    let described = |item: &Item| {
        let axes = item.axes.iter().map(ToString::to_string).collect();
        (item.name.to_owned(), (item.units.to_owned(), item.description.to_owned(), axes))
    };
    let expected: BTreeMap<String, _> = items.iter().map(described).collect();
    assert_eq!(found, expected, "{}", group.name());
}

fn name_in(group: &Group, path: &str) -> String {
    path.strip_prefix(&group.name()).expect("it is in it").trim_start_matches('/').to_owned()
}

fn groups_of(group: &Group) -> BTreeSet<String> {
    group.groups().unwrap().iter().map(|child| name_in(group, &child.name())).collect()
}

fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    names.into_iter().map(Into::into).collect()
}

#[test]
fn a_task_file_holds_what_the_tables_say() {
    let sweep = Sweep::new(&everything_measured());
    assert_eq!(sweep.run().status, Some(0));
    let file = hdf5::File::open(sweep.task("L4_T2_d2_s1")).unwrap();
    let layout = task_layout();
    let root = file.group("/").unwrap();
    let here = |name: &str| !["", schema::HELD_OUT].contains(&name) && !name.contains('/');
    assert_eq!(
        groups_of(&root),
        names(layout.iter().map(|(group, _)| *group).filter(|it| here(it)))
    );
    let plain = |name: &str| ![schema::CHAINS_GROUP, schema::HELD_OUT].contains(&name);
    for (name, items) in layout.iter().filter(|(name, _)| plain(name)) {
        assert_holds(&file.group(&format!("/{name}")).unwrap(), items);
    }
    let samplers = file.group(schema::CHAINS_GROUP).unwrap();
    let chains = ["latent", "physical", "fourier", "independence"];
    assert_eq!(groups_of(&samplers), names(chains.into_iter().chain([schema::REWEIGHTING])));
    let estimates: Vec<Item> = schema::sampler_scalars().copied().collect();
    for name in chains {
        let group = samplers.group(name).unwrap();
        assert_holds(&group, &schema::CHAINS);
        assert_holds(&group.group(schema::ESTIMATES).unwrap(), &estimates);
    }
    let reweighting = samplers.group(schema::REWEIGHTING).unwrap();
    assert_holds(&reweighting, &schema::CHAINS[..8]);
    let observables = Observable::TABLE.map(|(_, naming)| naming.name);
    let derived = Derived::TABLE.map(|(_, [name, ..])| name);
    let of_means = |item: &Item| {
        let name = item.name.strip_suffix("_error").unwrap_or(item.name);
        observables.contains(&name) || derived.contains(&name)
    };
    let estimates: Vec<Item> = estimates.into_iter().filter(of_means).collect();
    assert_holds(&reweighting.group(schema::ESTIMATES).unwrap(), &estimates);
    assert_attributes(
        "a task file",
        &root,
        &[(OF_SAMPLER, &samplers.group("latent").unwrap()), (OF_SAMPLER, &reweighting)],
    );
}

#[test]
fn a_collected_file_holds_what_the_tables_say() {
    let sweep = Sweep::finished();
    sweep.look("collect").success();
    let file = hdf5::File::open(sweep.dir.join("sweep.h5")).unwrap();
    let root = file.group("/").unwrap();
    let axes: Vec<(Vec<&'static str>, Vec<Item>)> = sweep_layout();
    let over = |(axes, items): (Vec<&'static str>, Vec<Item>)| {
        let axes: &'static [&'static str] = axes.leak();
        items.into_iter().map(move |item| Item { axes, ..item })
    };
    let mut items: Vec<Item> = axes.into_iter().flat_map(over).collect();
    let own_axis = |item: Item| Item { axes: vec![item.name].leak(), ..item };
    items.extend(coordinates().into_iter().map(own_axis));
    let of_lattice = root.group("L4").unwrap();
    assert_holds(&of_lattice, &items);
    assert_attributes("`sweep.h5`", &root, &[("group of a lattice", &of_lattice)]);
}

/// How the document names the group of a sampler.
const OF_SAMPLER: &str = "`chains/SAMPLER`";

/// The document's rows of attributes of a file against those of its root and of groups in it.
#[track_caller]
fn assert_attributes(file: &str, root: &Group, groups: &[(&'static str, &Group)]) {
    let (_, text) = document();
    let heading = format!("Attributes of {file}:");
    let (_, section) = text.split_once(&heading).expect("docs/files.md has the attributes");
    let rows = section.lines().skip_while(|line| !line.starts_with("| `"));
    let rows = rows.take_while(|line| line.starts_with("| `"));
    let found: BTreeSet<String> =
        rows.map(|row| row.split(" | ").take(3).collect::<Vec<_>>().join(" | ")).collect();
    let rows_of = |place: &'static str, group: &Group| {
        let name = |name: String| {
            let kind = match group.attr(&name).unwrap().dtype().unwrap().to_descriptor().unwrap() {
                TypeDescriptor::VarLenUnicode => "text".to_owned(),
                number => number.to_string(),
            };
            format!("| `{name}` | {place} | {kind}")
        };
        group.attr_names().unwrap().into_iter().map(name).collect::<Vec<_>>()
    };
    let mut expected: BTreeSet<String> = rows_of("file", root).into_iter().collect();
    expected.extend(groups.iter().flat_map(|(place, group)| rows_of(place, group)));
    assert_eq!(found, expected, "attributes of {file} in docs/files.md");
}

/// The items but for those whose names begin with `prefix`.
fn without(prefix: &str, items: &[Item]) -> Vec<Item> {
    items.iter().copied().filter(|item| !item.name.starts_with(prefix)).collect()
}

#[track_caller]
fn open_root(path: &Path) -> Group {
    hdf5::File::open(path).and_then(|file| file.group("/")).unwrap()
}

#[test]
fn studies_and_samples_hold_what_the_tables_say() {
    let sweep = Sweep::finished();
    for command in ["respond", "mutual-information", "coarse"] {
        let mut study = neuralrg();
        outcome(study.arg(command).arg(&sweep.dir).args(["--samples=256", "--task=L4_T2_d2_s1"]))
            .success();
    }
    for name in schema::STUDIES {
        let root = open_root(&sweep.dir.join(name).join("L4_T2_d2_s1.h5"));
        assert_holds(&root, &other_layout(name));
        assert_attributes("a study", &root, &[]);
    }
    let samples = sweep.folder().join("samples.h5");
    let mut sample = neuralrg();
    sample.arg("sample").arg(sweep.task("L4_T2_d2_s1")).args(["-n", "3", "-o"]).arg(&samples);
    outcome(&mut sample).success();
    assert_holds(&open_root(&samples), &other_layout("samples"));
    assert_attributes("a file of samples", &open_root(&samples), &[]);
}

/// Fields of cluster Monte Carlo, and a sweep that learns from them.
#[test]
fn fields_and_what_is_learned_from_them_hold_what_the_tables_say() {
    let sweep = Sweep::new(&(TINY.to_owned() + "\n[data]\nfile = 'fields.h5'\nheld_out = 100\n"));
    let fields = sweep.folder().join("fields.h5");
    let mut reference = neuralrg();
    reference.args([
        "reference",
        "--linear-size=4",
        "--temperatures=2.0,3.0",
        "--measurements=1000",
    ]);
    outcome(reference.arg("--fields").arg(&fields)).success();
    assert_holds(&open_root(&fields), &other_layout("fields"));
    assert_attributes("a file of fields", &open_root(&fields), &[]);
    outcome(sweep.run_with(neuralrg()).current_dir(sweep.folder())).success();
    let held_out = open_root(&sweep.task("L4_T2_d2_s1")).group(schema::HELD_OUT).unwrap();
    assert_holds(&held_out, &without("bits_per_dimension", schema::HELD_OUT_SCALARS));
}

/// Pictures of noise with what `analysis/pictures.py` tells of them.
fn write_pictures(path: &Path) {
    let pixels =
        ndarray::Array3::from_shape_fn((40, 4, 4), |(i, j, k)| ((7 * i + 3 * j + k) % 5) as f32);
    make_hdf5(path, |file| {
        file.new_dataset_builder().with_data(&pixels).create(schema::FIELDS.name).unwrap();
        let ln_noise = file.new_dataset_builder().with_data(&[20.0; 40]);
        ln_noise.create(schema::LN_NOISE.name).unwrap();
        file.new_dataset_builder().with_data(&[0.0; 3]).create(schema::EDGES.name).unwrap();
        for name in [
            schema::PICTURE_ROWS,
            schema::PICTURE_COLUMNS,
            schema::PIXEL_LEVELS,
            schema::HELD_OUT_PICTURES,
        ] {
            file.new_attr::<i64>().create(name).unwrap().write_scalar(&4).unwrap();
        }
    });
}

#[test]
fn a_learned_file_holds_what_the_tables_say() {
    let learning = "[learn]\ndepth = 2\nsamples = 3\n[data]\nfile = 'pictures.h5'\nheld_out = 4\n\
                    [flow]\ncouplings = 2\nhidden_layers = 1\n[train]\nsteps = 2\nbatch = 8\n";
    let files = Sweep::new(learning);
    write_pictures(&files.folder().join("pictures.h5"));
    let learned = files.folder().join("learned.h5");
    let mut learn = neuralrg();
    learn.current_dir(files.folder()).arg("learn").arg(&files.config).arg("-o").arg(&learned);
    outcome(&mut learn).success();
    let root = open_root(&learned);
    assert_attributes("a learned file", &root, &[]);
    assert_holds(&root, &[schema::CONFIGURATION]);
    let held_out = without("forward_kl", schema::HELD_OUT_SCALARS);
    let groups = [
        (schema::HELD_OUT, held_out),
        (schema::MODEL, vec![schema::PARAMETERS, schema::HALVES]),
        (schema::TRAIN, schema::TRAIN_HISTORY.to_vec()),
        (schema::EVALUATE, other_layout("evaluate of a learned file")),
    ];
    assert_eq!(groups_of(&root), names(groups.iter().map(|(name, _)| *name)));
    for (name, items) in groups {
        assert_holds(&root.group(name).unwrap(), &items);
    }
}

/// Two trainings from coordinates with angles: all but the free energies of a surface.
#[cfg(feature = "torch")]
#[test]
fn a_canonical_file_holds_what_the_tables_say() {
    let config = "[canonical]\nloss = 'likelihood'\nseeds = [1, 2]\nkept_modes = [1]\n\
                  [source]\nkind = 'data'\nfile = 'data.h5'\nheld_out = 50\n[flow]\ncouplings = 2\n\
                  hidden_layers = 1\n[train]\nsteps = 2\nbatch = 8\n";
    let files = Sweep::new(config);
    let values = |columns: usize| {
        ndarray::Array2::from_shape_fn((200, columns), |(i, j)| {
            f64::from(((7 * i + 3 * j) % 101) as u32)
        })
    };
    make_hdf5(&files.folder().join("data.h5"), |file| {
        file.new_dataset_builder().with_data(&values(3)).create(schema::COORDINATES.name).unwrap();
        let angle = values(1);
        let angles = file.new_dataset_builder().with_data(&angle);
        let angles = angles.create(schema::ANGLES.name).unwrap();
        let names = ["phi".parse::<hdf5::types::VarLenUnicode>().unwrap()];
        angles.new_attr_builder().with_data(&names).create(schema::ANGLE_NAMES).unwrap();
    });
    let output = files.folder().join("canonical.h5");
    let mut command = neuralrg();
    command.current_dir(files.folder()).arg("canonical").arg(&files.config).arg("-o").arg(&output);
    outcome(&mut command).success();
    let root = open_root(&output);
    assert_attributes("a canonical file", &root, &[]);
    assert_holds(&root, &[schema::CONFIGURATION]);
    let of_samples =
        |item: &&Item| item.name.contains("likelihood") || item.name == "held_out_samples";
    let scalars: Vec<Item> = schema::CANONICAL_SCALARS.iter().filter(of_samples).copied().collect();
    let groups = [
        (schema::SCALARS, scalars),
        (schema::MODES, other_layout("modes of a canonical file")),
        (schema::MODEL, other_layout("model of a canonical file")),
        (schema::TRAIN, schema::TRAIN_HISTORY.to_vec()),
        (schema::EVALUATE, other_layout("evaluate of a canonical file")),
    ];
    assert_eq!(groups_of(&root), names(groups.iter().map(|(name, _)| *name)));
    for (name, items) in groups {
        assert_holds(&root.group(name).unwrap(), &items);
    }
}
