//! What is to be said of many tasks in few lines: remarks of one kind together.

use std::collections::BTreeSet;

use crate::files::schema::VERDICT_OK;
use crate::task::Task;

/// What is remarked of a task.
pub type Remark<'a> = (&'a Task, &'a str);

/// All remarks, each kind once with the tasks that it is of, the most frequent one first. What is of one task only is told
/// with its numbers.
pub fn grouped(remarks: &[Remark]) -> Vec<String> {
    let mut kinds: Vec<(String, Vec<Remark>)> = Vec::new();
    for &(task, remark) in remarks {
        let kind = kind(&remark.replace(&task.name(), "NAME"));
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, tasks)) => tasks.push((task, remark)),
            None => kinds.push((kind, vec![(task, remark)])),
        }
    }
    kinds.sort_by_key(|(_, tasks)| std::cmp::Reverse(tasks.len()));
    let line = |(kind, remarks): &(String, Vec<Remark>)| match remarks[..] {
        [(task, remark)] => format!("{}: {remark}", task.name()),
        _ => {
            let tasks: Vec<&Task> = remarks.iter().map(|(task, _)| *task).collect();
            format!("{} tasks: {kind} ({})", tasks.len(), range(&tasks))
        }
    };
    kinds.iter().map(line).collect()
}

/// Problems of tasks with their verdicts, as [`grouped`] tells them.
pub fn problems(verdicts: &[Remark]) -> Vec<String> {
    let suspect = verdicts.iter().filter(|(_, verdict)| *verdict != VERDICT_OK);
    let each: Vec<Remark> = suspect
        .flat_map(|(task, verdict)| verdict.split("; ").map(move |problem| (*task, problem)))
        .collect();
    grouped(&each)
}

/// Which of the finished tasks to trust, and why not the others.
pub fn trust(verdicts: &[Remark]) -> Vec<String> {
    let all = verdicts.len();
    let ok = verdicts.iter().filter(|(_, verdict)| *verdict == VERDICT_OK).count();
    if ok == all {
        return vec![format!("trust all {all} finished tasks: their verdicts are ok")];
    }
    let mut lines = vec![match ok {
        0 => format!("trust none of the {all} finished tasks, since of them"),
        _ => format!(
            "trust the {ok} of {all} finished tasks whose verdict is ok; not the others, since"
        ),
    }];
    lines.extend(problems(verdicts).into_iter().map(|problem| format!("  {problem}")));
    lines
}

/// What remarks with other numbers have in common: the statement that follows the numbers, or all but them.
fn kind(remark: &str) -> String {
    let text = without_numbers(remark);
    match text.split_once(": ") {
        Some((numbers, statement)) if numbers.contains('…') => statement.into(),
        _ => text,
    }
}

/// The text with an ellipsis in the place of each number.
fn without_numbers(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_digit() || c == '.' || c == '-';
    let words = text.split(' ').map(|word| {
        let number = word.trim_end_matches([',', ':', ';', '.']);
        let is_number =
            number.contains(|c: char| c.is_ascii_digit()) && number.chars().all(is_part);
        if is_number { format!("…{}", &word[number.len()..]) } else { word.to_owned() }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Temperatures, and depths where they differ.
fn range(tasks: &[&Task]) -> String {
    let temperatures = tasks.iter().map(|task| task.temperature);
    let lowest = temperatures.clone().fold(f64::INFINITY, f64::min);
    let highest = temperatures.fold(f64::NEG_INFINITY, f64::max);
    let temperatures =
        if lowest < highest { format!("T {lowest} to {highest}") } else { format!("T {lowest}") };
    let depths: BTreeSet<usize> = tasks.iter().map(|task| task.depth).collect();
    let depths: Vec<String> = depths.iter().map(ToString::to_string).collect();
    format!("{temperatures}, depth {}", depths.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(temperature: f64, depth: usize) -> Task {
        Task { linear_size: 8, temperature, depth, seed: 1 }
    }

    #[test]
    fn problems_of_one_kind_are_told_once_with_their_tasks() {
        let tasks = [task(2.0, 1), task(2.3, 2), task(2.6, 1), task(2.7, 1)];
        let verdicts = [
            "R-hat of m 2.31: the sign sectors do not mix; 2 of 640 trajectories diverged",
            "R-hat of m 11.2: the sign sectors do not mix; energy is -4.5 standard errors off",
            "R-hat of m 1.20: the sign sectors do not mix; 31 of 640 trajectories diverged",
            "ok",
        ];
        let all: Vec<Remark> = tasks.iter().zip(verdicts).collect();
        let expected = [
            "3 tasks: the sign sectors do not mix (T 2 to 2.6, depth 1, 2)",
            "2 tasks: … of … trajectories diverged (T 2 to 2.6, depth 1)",
            "L8_T2.3_d2_s1: energy is -4.5 standard errors off",
        ];
        assert_eq!(problems(&all), expected);
        let told = trust(&all);
        let first = "trust the 1 of 4 finished tasks whose verdict is ok; not the others, since";
        assert_eq!(told[0], first);
        assert_eq!(told[1..], expected.map(|line| format!("  {line}")));
        assert_eq!(trust(&all[3..]), ["trust all 1 finished tasks: their verdicts are ok"]);
        assert!(trust(&all[..1])[0].starts_with("trust none of the 1 finished tasks"));
    }

    #[test]
    fn failures_that_name_their_task_are_of_one_kind() {
        let tasks = [task(2.0, 1), task(2.3, 1)];
        let messages = tasks.map(|task| format!("cannot write tasks/{}.h5: No space", task.name()));
        let remarks: Vec<Remark> = tasks.iter().zip(messages.iter().map(String::as_str)).collect();
        let told = "2 tasks: cannot write tasks/NAME.h5: No space (T 2 to 2.3, depth 1)";
        assert_eq!(grouped(&remarks), [told]);
    }
}
