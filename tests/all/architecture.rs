//! The house as ARCHITECTURE.md describes it: rooms in their order, imports that never go up, no circles.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const ARCHITECTURE: &str = include_str!("../../ARCHITECTURE.md");

/// Rooms from the bottom up, as the table "Rooms" has them: a folder, a file, or several files of the root.
fn rooms() -> Vec<String> {
    let (_, table) = ARCHITECTURE.split_once("## Rooms").expect("it has a table of rooms");
    let rows = table.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let first = |row: &str| row.split('|').nth(1).expect("rows have columns").to_owned();
    let rows = rows.take_while(|line| line.starts_with('|'));
    rows.map(|row| first(row).replace(['`', '/', ' '], "")).collect()
}

/// Number of the room, from the bottom, of a module of the root.
fn floor(rooms: &[String], module: &str) -> usize {
    let place = rooms.iter().position(|room| room.split(',').any(|name| name == module));
    place.unwrap_or_else(|| panic!("ARCHITECTURE.md has no room for {module}"))
}

/// Source files by their module paths, without comments and tests.
fn sources() -> BTreeMap<String, String> {
    fn add(folder: &Path, prefix: &str, files: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                add(&path, &format!("{prefix}{name}::"), files);
            } else if path.extension().is_some_and(|end| end == "rs") && name != "tests" {
                let text = fs::read_to_string(&path).unwrap();
                let tests =
                    ["", "pub(crate) "].map(|of| format!("\n#[cfg(test)]\n{of}mod tests {{"));
                let end = tests.iter().filter_map(|tests| text.find(tests.as_str())).min();
                let code = &text[..end.unwrap_or(text.len())];
                let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
                files.insert(format!("{prefix}{name}"), code.collect::<Vec<_>>().join("\n"));
            }
        }
    }
    let mut files = BTreeMap::new();
    add(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut files);
    files.retain(|name, _| name != "lib" && name != "main");
    files
}

/// Everything that stands behind `crate::` or `super::` in a file, from the root on and paths in braces spelled out.
fn imports(file: &str, code: &str) -> BTreeSet<String> {
    fn spell(prefix: &str, text: &str, found: &mut BTreeSet<String>) {
        let mut depth = 0;
        let separator = |letter: char| {
            depth += i32::from(letter == '{') - i32::from(letter == '}');
            letter == ',' && depth == 0
        };
        for part in text.split(separator).map(str::trim).filter(|part| !part.is_empty()) {
            match part.split_once('{') {
                Some((before, inside)) => {
                    spell(&format!("{prefix}{before}"), inside.trim_end_matches('}'), found);
                }
                None => drop(found.insert(format!("{prefix}{part}"))),
            }
        }
    }
    let mut found = BTreeSet::new();
    let roots = ["crate::", "super::"].into_iter().flat_map(|root| code.match_indices(root));
    for (place, root) in roots.filter(|&(place, _)| !code[..place].ends_with("super::")) {
        let mut rest = &code[place + root.len()..];
        let mut above = file;
        if root == "super::" {
            above = above.rsplit_once("::").map_or("", |(above, _)| above);
            while let Some(further) = rest.strip_prefix("super::") {
                (rest, above) = (further, above.rsplit_once("::").map_or("", |(above, _)| above));
            }
        } else {
            above = "";
        }
        let prefix = if above.is_empty() { String::new() } else { format!("{above}::") };
        let in_statement = code[..place].trim_end().ends_with("use");
        let end = if in_statement {
            rest.find(';').expect("a statement ends")
        } else {
            let part_of_path = |letter: char| letter.is_alphanumeric() || "_:".contains(letter);
            rest.find(|letter| !part_of_path(letter)).unwrap_or(rest.len())
        };
        spell(&prefix, &rest[..end].replace(['\n', ' '], ""), &mut found);
    }
    found
}

/// The file that an imported path lies in.
fn file_of<'a>(path: &str, files: &'a BTreeMap<String, String>) -> Option<&'a str> {
    let inside = |file: &&String| path == *file || path.starts_with(&format!("{file}::"));
    files.keys().filter(inside).max_by_key(|file| file.len()).map(String::as_str)
}

#[test]
fn imports_never_go_up() {
    let (rooms, files) = (rooms(), sources());
    assert!(rooms.len() > 10 && files.len() > 60, "{rooms:?}, {} files", files.len());
    let room = |path: &str| path.split("::").next().unwrap().to_owned();
    let mut upward = Vec::new();
    for (file, code) in &files {
        let own = floor(&rooms, &room(file));
        for import in imports(file, code).iter().filter(|path| file_of(path, &files).is_some()) {
            if floor(&rooms, &room(import)) > own {
                upward.push(format!("{file} imports {import}"));
            }
        }
    }
    assert!(upward.is_empty(), "{}", upward.join("\n"));
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let files = sources();
    let of = |(file, code): (&String, &String)| {
        let targets = imports(file, code).iter().filter_map(|path| file_of(path, &files)).collect();
        (file.clone(), targets)
    };
    let mut edges: BTreeMap<String, BTreeSet<&str>> = files.iter().map(of).collect();
    // A file that imports nothing which is left lies below all circles.
    loop {
        let left: BTreeSet<String> = edges.keys().cloned().collect();
        edges.retain(|file, targets| {
            targets.iter().any(|target| *target != file && left.contains(*target))
        });
        if edges.len() == left.len() {
            break;
        }
    }
    assert!(edges.is_empty(), "these files, or some of them, import each other: {edges:#?}");
}

#[test]
fn every_room_of_the_table_is_there() {
    let files = sources();
    for name in rooms().iter().flat_map(|room| room.split(',')) {
        assert!(files.keys().any(|file| file == name), "there is no src/{name}.rs");
    }
}
