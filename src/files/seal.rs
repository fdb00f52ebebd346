//! Checksums of the files in a sweep's folder, so that what was damaged on a disk never passes for a
//! result.
//!
//! HDF5 files carry theirs in a user block before the HDF5 content, other files in a line of text. The user block of a task
//! file has a second line, with a checksum of its own, so that it can be read without the rest.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

/// Bytes before the HDF5 content of a sealed file; twice as many, and so on, where the text in them needs more.
pub const BLOCK: u64 = 512;
/// No user block is longer.
const LONGEST_BLOCK: u64 = 1 << 20;
/// How HDF5 content begins.
const SIGNATURE: &[u8] = b"\x89HDF\r\n\x1a\n";
const MARK: &str = "neuralrg sha256 ";
/// Bytes of the first line: the mark, a checksum and the line's end.
const FIRST_LINE: usize = MARK.len() + 64 + 1;
/// How the line begins that seals a text file.
const TEXT_MARK: &str = "# sha256 ";

/// What a file's seal says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seal {
    Intact,
    Broken,
    /// There is none: nobody sealed the file, or the seal itself is damaged.
    Absent,
}

/// Lower-case hexadecimal SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> String {
    hexadecimal(Sha256::new_with_prefix(bytes))
}

fn hexadecimal(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256_of_rest(mut file: &File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hexadecimal(hash)),
            length => hash.update(&buffer[..length]),
        }
    }
}

/// Bytes of the user block whose second line is `line`; the shortest of all where there is none.
pub fn block_for(line: Option<&str>) -> u64 {
    // A zero ends the text.
    let text = FIRST_LINE + line.map_or(0, |line| seal_line(line).len()) + 1;
    (text as u64).next_power_of_two().max(BLOCK)
}

/// `content` behind a user block of so many bytes with its seal, and with `line` where there is one.
pub fn seal_hdf5_bytes(content: &[u8], block: u64, line: Option<&str>) -> Vec<u8> {
    let mut text = first_line(&sha256(content));
    text.extend(line.map(seal_line));
    assert!(block >= block_for(line), "the user block has room for its text");
    let mut bytes = text.into_bytes();
    bytes.resize(block as usize, 0);
    bytes.extend(content);
    bytes
}

fn first_line(sha256: &str) -> String {
    format!("{MARK}{sha256}\n")
}

/// Renews the seal in the user block of an HDF5 file that was changed on purpose.
///
/// # Errors
/// The file cannot be read or written, or has no HDF5 content.
pub fn seal_hdf5(path: &Path) -> io::Result<()> {
    let mut file = File::options().read(true).write(true).open(path)?;
    let block = user_block(&mut file)?.ok_or(io::ErrorKind::InvalidData)?;
    file.seek(SeekFrom::Start(block.len() as u64))?;
    let line = first_line(&sha256_of_rest(&file)?);
    file.seek(SeekFrom::Start(0))?;
    file.write_all(line.as_bytes())
}

/// The checksum that the seal of an HDF5 file states; none where there is no seal.
///
/// # Errors
/// The file cannot be read.
pub fn stated_sha256(path: &Path) -> io::Result<Option<String>> {
    let mut block = String::new();
    let mut start = File::open(path)?.take((MARK.len() + 64) as u64);
    let read = start.read_to_string(&mut block);
    Ok(read.ok().and_then(|_| block.strip_prefix(MARK)).map(Into::into))
}

/// The second line in the user block of an HDF5 file, if it is as it was written, and the bytes of the whole file. Nothing
/// else is read.
///
/// # Errors
/// The file cannot be read.
pub fn line_of_block(path: &Path) -> io::Result<Option<(String, u64)>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut text = vec![0; 1 << 13];
    let mut filled = 0;
    loop {
        let read = file.read(&mut text[filled..])?;
        let end = text[filled..filled + read].iter().position(|&byte| byte == 0);
        filled += end.unwrap_or(read);
        if end.is_some() || read == 0 || filled as u64 > LONGEST_BLOCK {
            break;
        }
        text.resize((2 * filled).max(1 << 13), 0);
    }
    let line = text[..filled].get(FIRST_LINE..).and_then(intact_line);
    Ok(line.map(|line| (line.to_owned(), length)))
}

/// The line that [`seal_line`] has made these bytes of.
fn intact_line(sealed: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(sealed).ok()?;
    let (line, _) = text.split_once('\n')?;
    (seal_line(line) == text).then_some(line)
}

/// All bytes before the HDF5 content of a file, which then is read on from there; none where there is no such content.
fn user_block(file: &mut File) -> io::Result<Option<Vec<u8>>> {
    let mut start = Vec::new();
    let mut block = BLOCK as usize;
    while block as u64 <= LONGEST_BLOCK {
        let missing = block + SIGNATURE.len() - start.len();
        Read::take(&mut *file, missing as u64).read_to_end(&mut start)?;
        match start.get(block..) {
            Some(SIGNATURE) => {
                file.seek(SeekFrom::Start(block as u64))?;
                start.truncate(block);
                return Ok(Some(start));
            }
            Some(begun) if begun.len() == SIGNATURE.len() => block *= 2,
            _ => return Ok(None),
        }
    }
    Ok(None)
}

/// Checks the seal of an HDF5 file.
///
/// # Errors
/// The file cannot be read.
pub fn check_hdf5(path: &Path) -> io::Result<Seal> {
    let mut file = File::open(path)?;
    let mut mark = Vec::new();
    Read::take(&mut file, MARK.len() as u64).read_to_end(&mut mark)?;
    if mark != MARK.as_bytes() {
        return Ok(Seal::Absent);
    }
    file.seek(SeekFrom::Start(0))?;
    let Some(block) = user_block(&mut file)? else { return Ok(Seal::Broken) };
    // One line or two, then zeros.
    let text = block.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let (first, second) = block[..text].split_at(FIRST_LINE.min(text));
    let found = first_line(&sha256_of_rest(&file)?);
    let intact = first == found.as_bytes() && (second.is_empty() || intact_line(second).is_some());
    Ok(if intact { Seal::Intact } else { Seal::Broken })
}

/// `text` below a comment line with its checksum.
pub fn seal_text(text: &str) -> String {
    format!("{TEXT_MARK}{}\n{text}", sha256(text.as_bytes()))
}

/// The text below its checksum, or all of it where there is none; none where the two do not fit.
pub fn open_text(sealed: &str) -> Option<&str> {
    let Some(rest) = sealed.strip_prefix(TEXT_MARK) else { return Some(sealed) };
    let (sum, text) = rest.split_once('\n')?;
    (sum == sha256(text.as_bytes())).then_some(text)
}

/// One line of text with its checksum on a second one, for files whose first line programs read.
pub fn seal_line(line: &str) -> String {
    format!("{line}\n{TEXT_MARK}{}\n", sha256(line.as_bytes()))
}

/// The line above its checksum, if the two fit; a line without any passes.
pub fn open_line(sealed: &str) -> Option<&str> {
    let Some((line, rest)) = sealed.split_once('\n') else { return Some(sealed) };
    let sum = rest.strip_prefix(TEXT_MARK).map(str::trim_end);
    (rest.is_empty() || sum == Some(&sha256(line.as_bytes()))).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_of_the_standards_example() {
        // FIPS 180-4, "abc".
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc"), expected);
    }

    #[test]
    fn every_flipped_bit_of_a_sealed_text_is_noticed_or_leaves_the_text_as_it_was() {
        let text = "steps = 5000\nbatch = 8\n";
        for sealed in [seal_text(text), seal_line("{\"gap\":1.5}")] {
            let of_line = sealed.starts_with('{');
            let open = |bytes: &[u8]| {
                let text = std::str::from_utf8(bytes).ok()?;
                let opened = if of_line { open_line(text) } else { open_text(text) };
                opened.map(str::to_owned)
            };
            let original = open(sealed.as_bytes()).expect("it is intact");
            for place in 0..sealed.len() {
                let mut bytes = sealed.clone().into_bytes();
                bytes[place] ^= 1 << (place % 8);
                if let Some(read) = open(&bytes) {
                    // No program reads JSON with something behind it.
                    let kept = if of_line {
                        read.starts_with(&original)
                    } else {
                        read.ends_with(&original)
                    };
                    assert!(kept, "byte {place}: {read:?}");
                }
            }
        }
    }

    #[test]
    fn every_flipped_byte_of_a_sealed_file_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sealed");
        let content = [SIGNATURE, b"content"].concat();
        let long = "x".repeat(600);
        for line in [None, Some("{\"gap\":1.5}"), Some(&long)] {
            let block = block_for(line);
            assert_eq!(block, if line == Some(&long) { 1024 } else { 512 });
            let sealed = seal_hdf5_bytes(&content, block, line);
            assert_eq!(&sealed[block as usize..], content);
            std::fs::write(&path, &sealed).unwrap();
            assert_eq!(check_hdf5(&path).unwrap(), Seal::Intact);
            let told = line_of_block(&path).unwrap();
            assert_eq!(told, line.map(|line| (line.to_owned(), sealed.len() as u64)));
            for place in 0..sealed.len() {
                let mut damaged = sealed.clone();
                damaged[place] ^= 0x10;
                std::fs::write(&path, damaged).unwrap();
                assert_ne!(check_hdf5(&path).unwrap(), Seal::Intact, "byte {place}");
                let told = line_of_block(&path).unwrap();
                assert!(told.is_none_or(|(told, _)| Some(told.as_str()) == line), "byte {place}");
            }
            for length in [0, 5, 511, 512, 515, sealed.len() - 1] {
                std::fs::write(&path, &sealed[..length]).unwrap();
                assert_ne!(check_hdf5(&path).unwrap(), Seal::Intact, "{length} bytes");
            }
        }
    }

    #[test]
    fn a_file_that_was_changed_can_be_sealed_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sealed");
        let mut bytes = vec![0; 512];
        bytes.extend(SIGNATURE);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(check_hdf5(&path).unwrap(), Seal::Absent);
        seal_hdf5(&path).unwrap();
        assert_eq!(check_hdf5(&path).unwrap(), Seal::Intact);
        assert_eq!(std::fs::read(&path).unwrap(), seal_hdf5_bytes(SIGNATURE, 512, None));
        std::fs::write(&path, "no HDF5").unwrap();
        assert!(seal_hdf5(&path).is_err());
    }
}
