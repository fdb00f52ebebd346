//! The program: parses the command line and calls the library.

use std::io::{IsTerminal, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use comfy_table::{Table, presets};
use indicatif::MultiProgress;

use neuralrg::cli::{Cli, Command, Lattices, SomeTasks, StudyFolder};
use neuralrg::collect::collect;
use neuralrg::config::learn::resolved;
use neuralrg::config::{Config, decimal_comma_hint};
use neuralrg::error::Error;
use neuralrg::exact::exact_ising;
use neuralrg::export::export;
use neuralrg::plan::{self, PlannedTask};
use neuralrg::queue::Crew;
use neuralrg::rank::Ranks;
use neuralrg::sample::sample;
use neuralrg::schedule::schedule;
use neuralrg::schema::{AT_RANDOM, HELD_OUT_SCALARS, Item};
use neuralrg::seed::{Stage, TaskSeed};
use neuralrg::signals::Stop;
use neuralrg::status::Observer;
use neuralrg::store::{self, Numbers};
use neuralrg::study::{Studies, Study};
use neuralrg::{data, learn, observe, signals, sweep, wolff};

fn main() -> ExitCode {
    if let Err(error) = signals::survive_file_size_limit() {
        return report(Err(error.into()));
    }
    let outcome = match Cli::parse().command {
        // The only command that starts MPI.
        Command::Run { config, output, task_index } => return run(&config, &output, task_index),
        Command::Plan { config, ranks, output } => {
            print_plan(&config, ranks.map(|ranks| ranks as usize), output.as_deref())
        }
        Command::Status { tasks, json, watch } => show_status(&tasks, json, watch),
        Command::Collect { dir, output } => print_collected(&dir, output.as_deref()),
        Command::Respond { tasks, place, samples } => {
            print_study(&tasks, &place, Study::Responses { samples })
        }
        Command::MutualInformation { tasks, place, samples, neighbours } => {
            let neighbours = usize::from(neighbours);
            print_study(&tasks, &place, Study::MutualInformation { samples, neighbours })
        }
        Command::Coarse { tasks, place, samples } => {
            print_study(&tasks, &place, Study::Coarse { samples })
        }
        Command::Check { config } => print_checked(&config),
        Command::Export { task, output } => export(&task, &output).map_err(Into::into),
        Command::Sample { task, samples, seed, output } => {
            sample(&task, samples as usize, seed, &output).map_err(Into::into)
        }
        Command::Exact(lattices) => print_exact(lattices.linear_size, &lattices.temperatures),
        Command::Reference { lattices, measurements, seed, fields } => {
            print_reference(&lattices, measurements as usize, seed, fields.as_deref())
        }
        Command::Learn { config, output } => return learn(&config, &output),
    };
    report(outcome)
}

/// One line on standard error for an error, and the exit status.
fn report(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be there to read it.
            let _ = writeln!(std::io::stderr(), "neuralrg: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Exit status of a run that a signal stopped: the same command goes on (EX_TEMPFAIL of sysexits.h).
const TO_BE_CONTINUED: u8 = 75;

fn run(config: &Path, output: &Path, task_index: Option<usize>) -> ExitCode {
    let started = if task_index.is_some() { Ok(Ranks::alone()) } else { Ranks::start() };
    let ranks = match started {
        Ok(ranks) => ranks,
        Err(error) => return report(Err(error.into())),
    };
    let bars = start_logging(&ranks);
    if task_index.is_none() {
        ranks.warn_of_missing_mpi();
    }
    // After MPI, which has handlers of its own.
    let stop = match Stop::listen() {
        Ok(stop) => stop,
        Err(error) => {
            report(Err(error.into()));
            ranks.abort()
        }
    };
    let job = match or_abort(&ranks, || sweep::prepare(config, output, task_index, &ranks)) {
        Ok(job) => job,
        Err(Error::Elsewhere) => return ExitCode::FAILURE,
        Err(error) => return report(Err(error.into())),
    };
    match or_abort(&ranks, || sweep::run(job, &ranks, &stop, &bars)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ Error::Stopped) => {
            if ranks.rank() == 0 {
                report(Err(error.into()));
            }
            ExitCode::from(TO_BE_CONTINUED)
        }
        Err(Error::TasksFailed { .. }) if ranks.rank() > 0 => ExitCode::FAILURE,
        Err(error @ Error::TasksFailed { .. }) => report(Err(error.into())),
        Err(error) => {
            report(Err(error.into()));
            ranks.abort()
        }
    }
}

/// A rank that panics outside a task must not leave the others waiting for it.
fn or_abort<T>(ranks: &Ranks, work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        log::error!("internal error on rank {}, see above; all ranks end", ranks.rank());
        ranks.abort()
    })
}

/// Log lines that name the rank and make way for progress bars; panics become one such line.
fn start_logging(ranks: &Ranks) -> MultiProgress {
    let (rank, size) = (ranks.rank(), ranks.size());
    let environment = env_logger::Env::default().default_filter_or("info");
    let logger = env_logger::Builder::from_env(environment)
        .format(move |line, record| {
            let (time, level) = (line.timestamp_seconds(), record.level());
            let rank = if size > 1 { format!(" rank {rank}") } else { String::new() };
            writeln!(line, "[{time} {level:<5}{rank}] {}", record.args())
        })
        .build();
    let level = logger.filter();
    let bars = MultiProgress::new();
    if indicatif_log_bridge::LogWrapper::new(bars.clone(), logger).try_init().is_ok() {
        log::set_max_level(level);
    }
    std::panic::set_hook(Box::new(|panic| log::error!("{}", panic.to_string().replace('\n', " "))));
    bars
}

fn print(text: impl std::fmt::Display) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{}", text.to_string().trim_end()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            Ok(signals::end_without_reader()?)
        }
        outcome => Ok(outcome?),
    }
}

/// The table, the JSON object or the details of some tasks, once or every `watch` seconds until nothing is left to wait for.
fn show_status(tasks: &SomeTasks, json: bool, watch: Option<f64>) -> anyhow::Result<()> {
    let mut observer = Observer::new(&tasks.dir)?;
    loop {
        let status = observer.look()?;
        let over = status.is_over();
        let all = tasks.names.is_empty();
        let status = if all { status } else { status.only(&tasks.names)? };
        let text = match (json, all) {
            (true, _) => status.to_json(),
            (false, true) => status.to_string(),
            (false, false) => status.details(),
        };
        let Some(seconds) = watch else { return print(text) };
        if !json && std::io::stdout().is_terminal() {
            // Clear the screen, go to its corner.
            print(format!("\x1b[2J\x1b[H{text}"))?;
        } else {
            print(text)?;
        }
        if over {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs_f64(seconds));
    }
}

fn print_collected(dir: &Path, output: Option<&Path>) -> anyhow::Result<()> {
    let collected = collect(dir, output)?;
    let path = collected.path.display();
    let mut lines = vec![format!("{path}: {} of {} tasks", collected.finished, collected.total)];
    lines.extend(collected.pulls);
    lines.extend(collected.trust);
    print(lines.join("\n"))
}

/// Does the study of each task and names its file as soon as it is there.
fn print_study(tasks: &SomeTasks, place: &StudyFolder, study: Study) -> anyhow::Result<()> {
    start_logging(&Ranks::alone());
    let studies = Studies::new(&tasks.dir, &tasks.names, study, place.output.as_deref())?;
    studies.run(|path, new| print(format!("{}{}", path.display(), if new { "" } else { ": kept" })))
}

fn print_checked(path: &Path) -> anyhow::Result<()> {
    let (text, problem) = resolved(path)?;
    hint(problem);
    print(text)
}

/// One line on standard error for what is allowed but may not be meant.
fn hint(problem: Option<&str>) {
    if let Some(problem) = problem {
        eprintln!("neuralrg: hint: {problem}");
    }
}

fn print_exact(linear_size: usize, temperatures: &[f64]) -> anyhow::Result<()> {
    hint(decimal_comma_hint(temperatures));
    print(
        "temperature,ln_z_ising,free_energy_field,energy_per_site,specific_heat_per_site"
            .to_owned()
            + &temperatures
                .iter()
                .map(|&temperature| {
                    let exact = exact_ising(linear_size, temperature);
                    let values = [
                        exact.ln_z_ising,
                        exact.free_energy_field,
                        exact.energy_per_site,
                        exact.specific_heat_per_site,
                    ];
                    // 12 significant digits.
                    let values = values.map(|value| format!("{value:.11e}")).join(",");
                    format!("\n{temperature},{values}")
                })
                .collect::<String>(),
    )
}

fn learn(config: &Path, output: &Path) -> ExitCode {
    start_logging(&Ranks::alone());
    let learned = Stop::listen().and_then(|stop| learn::learn(config, output, stop));
    match learned {
        Ok(numbers) => report(print_held_out(&numbers)),
        Err(error @ Error::Stopped) => {
            report(Err(error.into()));
            ExitCode::from(TO_BE_CONTINUED)
        }
        Err(error) => report(Err(error.into())),
    }
}

fn print_held_out(numbers: &Numbers) -> anyhow::Result<()> {
    let known = HELD_OUT_SCALARS.iter().filter(|item| numbers.contains_key(item.name));
    let line = |item: &Item| format!("{},{:.8e},{}", item.name, numbers[item.name], item.units);
    let lines: Vec<String> = known.map(line).collect();
    print(format!("quantity,value,unit\n{}", lines.join("\n")))
}

fn print_reference(
    lattices: &Lattices,
    measurements: usize,
    seed: u64,
    path: Option<&Path>,
) -> anyhow::Result<()> {
    hint(decimal_comma_hint(&lattices.temperatures));
    let names = observe::SCALARS
        .iter()
        .flat_map(|name| [(*name).to_owned(), format!("{name}_error"), format!("{name}_tau_int")]);
    let derived = observe::DERIVED.iter();
    let derived = derived.flat_map(|name| [(*name).to_owned(), format!("{name}_error")]);
    let header: Vec<String> =
        ["temperature".to_owned()].into_iter().chain(names).chain(derived).collect();
    let path = path.map(std::path::absolute).transpose()?;
    if let Some(path) = &path {
        store::check_writable(path)?;
    }
    print(header.join(","))?;
    let size = lattices.linear_size;
    let mut fields = Vec::new();
    for &temperature in &lattices.temperatures {
        let sample = wolff::sample(size, temperature, measurements, seed, path.is_some());
        let reference = sample.reference();
        let random = TaskSeed::of_reference(size, temperature, seed).at(Stage::Reference, 0);
        fields.push(data::fields_of(&sample, size, temperature, &random));
        let scalars = reference.scalars.iter().flat_map(|e| [e.mean, e.error, e.tau_int]);
        let derived = reference.derived.iter().flat_map(|&(value, error)| [value, error]);
        // 9 significant digits.
        let values: Vec<String> =
            scalars.chain(derived).map(|value| format!("{value:.8e}")).collect();
        print(format!("{temperature},{}", values.join(",")))?;
    }
    if let Some(path) = path {
        data::write_fields(&path, &lattices.temperatures, &fields)?;
    }
    Ok(())
}

fn print_plan(path: &Path, ranks: Option<usize>, dir: Option<&Path>) -> anyhow::Result<()> {
    let mut config = Config::read(path)?;
    hint(decimal_comma_hint(config.temperatures()));
    data::identify(&mut config, path)?;
    let team = config.run.ranks_per_task;
    let ranks = ranks.unwrap_or(team);
    let teams = config.teams(ranks, path)?;
    let (tasks, missing) = match dir.filter(|dir| dir.exists()) {
        Some(dir) => sweep::expected(&config, dir)?,
        None => {
            let tasks = plan::tasks(&config);
            let all = (0..tasks.len()).collect();
            (tasks, all)
        }
    };
    let shortest_slice = config.run.shortest_slice().map(|slice| slice.as_secs_f64());
    let schedule = schedule(&tasks, &missing, Crew { ranks: teams, shortest_slice });
    let start = |parent: Option<usize>| {
        parent.map_or_else(|| AT_RANDOM.into(), |parent| tasks[parent].task.name())
    };
    let seconds =
        |cost: f64| humantime::format_duration(Duration::from_secs(cost.ceil() as u64)).to_string();
    let basis = if missing.len() < tasks.len() {
        "from the times of the finished tasks"
    } else {
        "expected for one CPU thread a rank; ratios are better known than times"
    };
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let header = if team == 1 { "rank" } else { "ranks" };
    table.set_header([header, "task", "index", "expected time", "starts from"]);
    for (number, assigned) in schedule.ranks.iter().enumerate() {
        let first = number * team;
        let of_team =
            if team == 1 { first.to_string() } else { format!("{first}-{}", first + team - 1) };
        for &index in assigned {
            let PlannedTask { task, parent, cost } = tasks[index];
            let (ranks, index) = (of_team.clone(), index.to_string());
            table.add_row([ranks, task.name(), index, seconds(cost), start(parent)]);
        }
    }
    print(format!(
        "{}\n{} tasks on {ranks} ranks{}{}: makespan {}, lower bound {} ({basis})",
        table.trim_fmt(),
        missing.len(),
        if team == 1 { String::new() } else { format!(", {team} for each") },
        if schedule.pauses > 0 { ", the last ones in turns" } else { "" },
        seconds(schedule.makespan),
        seconds(schedule.lower_bound)
    ))
}
