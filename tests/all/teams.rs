//! Several ranks on one task: the numbers of one rank up to the order of sums, and one fate for all members.

use crate::common::job::{
    CHECKPOINT, EACH_STEP, Job, Point, held, held_at, meeting, process, release, time, with_shim,
};
use crate::common::{
    Content, ENGINES, Sweep, TINY, TINY_TASKS, assert_holds_on_ranks, assert_same_tasks, contents,
    descendants, mpirun, neuralrg, outcome, signal,
};
use neuralrg::error::{Error, Result};
use neuralrg::ranks::{Ranks, Team};

/// The tiny sweep in double precision with `ranks` on each task.
fn tiny(ranks: usize, engine: &str) -> String {
    let run =
        format!("[run]\nprecision = \"f64\"\nengine = \"{engine}\"\nranks_per_task = {ranks}");
    TINY.replace("[run]", &run)
}

/// The same for teams of two, each step saved and enough of them to be stopped.
fn stepwise() -> String {
    tiny(2, "native")
        .replace("steps = 6", "steps = 200")
        .replace("[run]", &format!("[run]\n{EACH_STEP}"))
}

/// Largest difference between two numbers of a dataset, relative to the larger one or to 1. Integers must be equal.
fn difference(found: &Content, expected: &Content) -> f64 {
    assert_eq!((&found.kind, &found.shape), (&expected.kind, &expected.shape));
    assert!(found.kind.starts_with("float") || found.bits == expected.bits, "{found:?}");
    let pairs = found.bits.iter().zip(&expected.bits).filter(|(a, b)| a != b);
    let differences = pairs.map(|(&a, &b)| {
        let (a, b) = (f64::from_bits(a), f64::from_bits(b));
        (a - b).abs() / a.abs().max(b.abs()).max(1.0)
    });
    differences
        .fold(0.0, |largest, next| if next > largest || next.is_nan() { next } else { largest })
}

/// Losses, parameters, samples, chains, observables: all that a task's file holds but for times. After six steps and
/// fourteen trajectories rounding has not grown far. R-hat and the bulk ESS rank numbers of which some are equal up to rounding,
/// such as those of a chain that stayed where it was.
#[test]
fn task_on_a_team_has_the_numbers_of_one_rank() {
    // Torch takes many times longer for steps as small as these.
    for (engine, teams) in ENGINES.iter().zip([&[2, 3][..], &[3]]) {
        // Regularized, so that the loss has both its parts; no team of three divides 8 or 64 samples, or 4 chains.
        let text = |ranks| {
            tiny(ranks, engine)
                .replace("temperatures = [2.0, 3.0]", "temperatures = [2.0]\nseeds = [2]")
                .replace("\"mixture\"", "\"regularizer\"")
                .replace("[train]", "[train]\nmeasure_every = 3\nstart_from = \"shallower\"")
                + "\n[controls]\nsamplers = [\"independence\", \"fourier\"]\n"
        };
        let alone = Sweep::new(&text(1));
        alone.run().success();
        for &ranks in teams {
            let team = Sweep::new(&text(ranks));
            outcome(&mut team.run_with(mpirun(ranks))).success();
            assert_eq!(team.task_files(), alone.task_files());
            for name in alone.task_files() {
                let [found, expected] =
                    [&team, &alone].map(|sweep| contents(&sweep.dir.join("tasks").join(&name)));
                assert!(found.keys().eq(expected.keys()));
                for (dataset, found) in &found {
                    let timed = dataset.starts_with("/timing/") || dataset.contains("seconds");
                    if timed || dataset == "/configuration" || dataset.ends_with("@verdict") {
                        continue;
                    }
                    let ranked = ["_r_hat", "_ess_bulk", "/ess_least", "/ess_per_gradient"];
                    let ranked = ranked.iter().any(|ending| dataset.ends_with(ending));
                    let bound = if ranked { 0.1 } else { 1e-8 };
                    let error = difference(found, &expected[dataset]);
                    assert!(error < bound, "{engine}, {ranks}: {dataset} of {name}: {error:e}");
                    assert_eq!(found.text, expected[dataset].text, "{dataset} of {name}");
                }
            }
        }
    }
}

#[test]
fn two_teams_share_the_tasks_and_change_no_bit() {
    let text = tiny(2, "native").replace("[train]", "[train]\nstart_from = \"higher-temperature\"");
    let [one, two] = [1, 2].map(|teams| {
        let sweep = Sweep::new(&text);
        // No team is left without a task.
        let mut command = meeting(sweep.run_with(mpirun(2 * teams)), &sweep, teams);
        outcome(&mut command).success();
        sweep
    });
    assert_same_tasks(&two, &one);
    let events = std::fs::read_to_string(two.dir.join("events.jsonl")).unwrap();
    for leader in [0, 2] {
        assert!(events.contains(&format!("\"rank\":{leader}")), "rank {leader} leads: {events}");
    }
    for member in [1, 3] {
        assert!(!events.contains(&format!("\"rank\":{member}")), "rank {member} follows: {events}");
    }
}

/// Three tasks for two teams: one waits when the first two are begun, in the second step of which an hour passes, longer
/// than any of them may take then. One team alone has nobody that it would give way to.
#[test]
fn paused_teams_go_on_where_they_were_and_change_no_bit() {
    let text = tiny(2, "native")
        .replace("temperatures = [2.0, 3.0]", "temperatures = [2.0, 2.5, 3.0]")
        .replace("depths = [1, 2]", "depths = [1]")
        .replace("[run]", &format!("[run]\n{EACH_STEP}"));
    let [one, two] = [2, 4].map(|ranks| {
        let sweep = Sweep::new(&text);
        let hour = [("POINT", CHECKPOINT), ("POINT_FROM", "2"), ("POINT_LEAP", "3600")]
            .map(|(name, value)| (name, value.to_owned()));
        outcome(&mut with_shim(sweep.run_with(mpirun(ranks)), &sweep, &hour)).success();
        sweep
    });
    assert_same_tasks(&two, &one);
    let pauses = |sweep: &Sweep| {
        let events = std::fs::read_to_string(sweep.dir.join("events.jsonl")).unwrap();
        events.matches("\"task-paused\"").count()
    };
    assert!(pauses(&two) > 0 && pauses(&one) == 0);
}

#[test]
fn training_ends_by_the_leaders_clock() {
    let steps = 1_000_000;
    let seconds = time(0.2).as_secs_f64();
    let text = tiny(2, "native")
        .replace("steps = 6", &format!("steps = {steps}"))
        .replace("[train]", &format!("[train]\nseconds = {seconds}"));
    let sweep = Sweep::new(&text);
    outcome(&mut sweep.run_with(mpirun(2))).success();
    for name in TINY_TASKS {
        let done = contents(&sweep.task(name))["/train/loss"].shape[0];
        assert!((1..steps).contains(&done), "{done} steps");
    }
}

#[test]
fn ranks_that_make_no_whole_teams_are_refused() {
    let refused = |size: usize, ranks: usize| {
        let sweep = Sweep::new(&tiny(size, "native"));
        let command = if ranks == 1 { neuralrg() } else { mpirun(ranks) };
        let result = outcome(&mut sweep.run_with(command));
        assert_ne!(result.status, Some(0));
        assert_eq!(result.errors().len(), 1, "{}", result.stderr);
        assert!(!sweep.dir.exists());
        let planned = ["plan", "--ranks", &ranks.to_string()].map(str::to_owned);
        let plan = outcome(neuralrg().args(planned).arg(&sweep.config));
        for message in [result.errors()[0], plan.refusal()] {
            let expected = format!(
                "`run.ranks_per_task` is {size}, but must divide the number of ranks, which is {ranks}"
            );
            assert!(message.contains(&expected), "{message}");
        }
    };
    refused(2, 1);
    refused(2, 3);
    refused(4, 2);
}

#[test]
fn plan_counts_teams() {
    let plan = |ranks_per_task, arguments: &[&str]| {
        let sweep = Sweep::new(&tiny(ranks_per_task, "native"));
        outcome(neuralrg().arg("plan").arg(&sweep.config).args(arguments)).success().to_owned()
    };
    let four = plan(2, &["--ranks", "4"]);
    assert!(four.contains("\n4 tasks on 4 ranks, 2 for each: makespan "), "{four}");
    assert!(four.contains(" 0-1 ") && four.contains(" 2-3 "), "{four}");
    assert!(plan(2, &[]).contains("4 tasks on 2 ranks, 2 for each"));
}

#[test]
fn member_that_fails_ends_its_task_on_all_and_no_more() {
    for ranks in [2, 3, 5] {
        assert_holds_on_ranks(ranks, "teams::member_learns_of_every_failure");
    }
}

/// What each rank of the team does; every failure would leave a naive reduction waiting for ever.
#[test]
#[ignore = "mpirun starts it"]
fn member_learns_of_every_failure() {
    let ranks = Ranks::start().expect("MPI has threads");
    assert!(ranks.size() > 1, "mpirun starts it");
    let team = ranks.team(ranks.size());
    let diverged = || Error::TrainingDiverged { skipped: 3, steps: 10, allowed: 2 };
    for failing in 0..team.size() {
        let fails = team.member() == failing;
        // A panic between two exchanges.
        let outcome = steps(&team, |step| {
            assert!(!(fails && step == 2), "out of order");
            Ok(())
        });
        let told = outcome.unwrap_err();
        let message = told.to_string();
        match told {
            Error::Panic { .. } => assert!(fails && message.contains("out of order"), "{message}"),
            Error::Teammate { .. } => {
                let expected = format!("rank {failing}: internal error: out of order");
                assert!(!fails && message.starts_with(&expected), "{message}");
            }
            other => panic!("{other}"),
        }
        // An error of one member, and one where all others have come to their end.
        for at in [0, 3] {
            let outcome =
                steps(&team, |step| if fails && step == at { Err(diverged()) } else { Ok(()) });
            match outcome.unwrap_err() {
                Error::TrainingDiverged { .. } => assert!(fails),
                Error::Teammate { message } => assert!(!fails && message.contains("diverged")),
                other => panic!("{other}"),
            }
        }
        // Members that do not do the same.
        let outcome = team.together(|| Ok(team.sum(vec![0.0; if fails { 2 } else { 1 }])));
        assert!(outcome.unwrap_err().to_string().contains("went different ways"));
        // The same error on all of them, which each keeps.
        let outcome = steps(&team, |step| if step == 1 { Err(diverged()) } else { Ok(()) });
        assert!(matches!(outcome, Err(Error::TrainingDiverged { .. })));
        // And the team still works.
        assert_eq!(steps(&team, |_| Ok(())).unwrap(), 4.0 * team.size() as f64);
    }
}

/// Four steps with an exchange after each of the first three.
fn steps(team: &Team, step: impl Fn(i32) -> Result<()>) -> Result<f64> {
    team.together(|| {
        let mut sum = 0.0;
        for number in 0..4 {
            step(number)?;
            sum += if number < 3 { team.sum(vec![1.0])[0] } else { team.size() as f64 };
        }
        Ok(sum)
    })
}

#[test]
fn task_whose_file_the_leader_cannot_write_fails_alone() {
    let sweep = Sweep::new(&tiny(2, "native"));
    let failing = TINY_TASKS[1];
    let result = sweep.run_with_obstacle(mpirun(2), failing);
    assert_eq!(result.errors().len(), 1, "{}", result.stderr);
    assert!(result.errors()[0].starts_with("1 of 4 tasks failed"), "{}", result.stderr);
    assert_eq!(sweep.task_files().len(), 4, "three tasks and the obstacle");
    std::fs::remove_dir_all(sweep.task(failing)).unwrap();
    outcome(&mut sweep.run_with(mpirun(2))).success();
}

#[test]
fn failure_of_all_members_is_told_once() {
    // The weight overflows: no step has a finite loss.
    let text = tiny(2, "native")
        .replace("\"mixture\"", "\"regularizer\"\nsymmetry_weight = 1e308")
        .replace("[train]", "[train]\nmax_skipped_steps = 0");
    let sweep = Sweep::new(&text);
    let result = outcome(&mut sweep.run_with(mpirun(2)));
    assert_eq!(std::fs::read_dir(sweep.dir.join("failed")).unwrap().count(), 4);
    assert!(result.errors()[0].starts_with("4 of 4 tasks failed"), "{}", result.stderr);
    let told = result.stderr.lines().filter(|line| line.contains(" failed: "));
    assert_eq!(told.count(), 4, "{}", result.stderr);
}

/// A job of one team whose leader is held in its task, where the other member waits for it.
fn held_team(sweep: &Sweep) -> Job {
    let point = Point { path: CHECKPOINT, number: 2, later: 0 };
    let mut job = Job::start(held_at(sweep.run_with(mpirun(2)), sweep, point));
    job.wait_until_held(sweep, 1);
    job
}

/// Processes of its leader and of the other member.
fn members(sweep: &Sweep, job: &Job) -> [u32; 2] {
    let leader = process(&held(sweep)[0]);
    let mut ranks = descendants(job.id());
    assert!(ranks.len() >= 2 && ranks.contains(&leader), "{ranks:?}");
    ranks.retain(|&rank| rank != leader);
    [leader, *ranks.last().expect("there are two")]
}

#[test]
fn member_that_is_lost_ends_the_job() {
    for member in [0, 1] {
        let sweep = Sweep::new(&stepwise());
        let job = held_team(&sweep);
        signal("-KILL", &[members(&sweep, &job)[member]]);
        assert!(!matches!(job.end().status, Some(0 | 75)));
    }
}

#[test]
fn signal_to_one_member_stops_its_team() {
    for member in [0, 1] {
        let sweep = Sweep::new(&stepwise());
        let job = held_team(&sweep);
        signal("-USR1", &[members(&sweep, &job)[member]]);
        if member == 1 {
            // The leader learns of it from the other member, not from the signal.
            release(&held(&sweep));
        }
        assert_eq!(job.end().status, Some(75));
        let saved = std::fs::read_dir(sweep.dir.join("checkpoints")).unwrap().count();
        assert!(saved > 0);
    }
}
