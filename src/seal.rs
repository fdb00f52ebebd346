//! Checksums of the files in a sweep's folder, so that what was damaged on a disk never passes for a
//! result.
//!
//! HDF5 files carry theirs in a user block of 512 bytes before the HDF5 content (`tail -c +513 FILE |
//! sha256sum` checks it), other files in a line of text.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

/// Bytes before the HDF5 content of a sealed file.
pub const BLOCK: u64 = 512;
const MARK: &str = "neuralrg sha256 ";
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

/// `content` behind a user block with its seal.
pub fn seal_hdf5_bytes(content: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{MARK}{}\n", sha256(content)).into_bytes();
    bytes.resize(BLOCK as usize, 0);
    bytes.extend(content);
    bytes
}

/// Renews the seal in the user block of an HDF5 file that was changed on purpose.
///
/// # Errors
/// The file cannot be read or written.
pub fn seal_hdf5(path: &Path) -> io::Result<()> {
    let mut file = File::options().read(true).write(true).open(path)?;
    file.seek(SeekFrom::Start(BLOCK))?;
    let line = format!("{MARK}{}\n", sha256_of_rest(&file)?);
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

/// Checks the seal of an HDF5 file.
///
/// # Errors
/// The file cannot be read.
pub fn check_hdf5(path: &Path) -> io::Result<Seal> {
    let mut file = File::open(path)?;
    let mut block = [0; BLOCK as usize];
    if let Err(error) = file.read_exact(&mut block) {
        let short = error.kind() == io::ErrorKind::UnexpectedEof;
        return if short { Ok(Seal::Absent) } else { Err(error) };
    }
    let Some(kept) = block.strip_prefix(MARK.as_bytes()) else { return Ok(Seal::Absent) };
    // A line, then zeros.
    let found = format!("{}\n", sha256_of_rest(&file)?);
    let (line, rest) = kept.split_at(found.len());
    let intact = line == found.as_bytes() && rest.iter().all(|&byte| byte == 0);
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
        let mut bytes = vec![0; BLOCK as usize];
        bytes.extend(b"content");
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(check_hdf5(&path).unwrap(), Seal::Absent);
        seal_hdf5(&path).unwrap();
        assert_eq!(check_hdf5(&path).unwrap(), Seal::Intact);
        let sealed = std::fs::read(&path).unwrap();
        assert_eq!(&sealed[BLOCK as usize..], b"content");
        assert_eq!(sealed, seal_hdf5_bytes(b"content"));
        for place in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[place] ^= 0x10;
            std::fs::write(&path, damaged).unwrap();
            assert_ne!(check_hdf5(&path).unwrap(), Seal::Intact, "byte {place}");
        }
        for length in [0, 5, 511, 512, 515, sealed.len() - 1] {
            std::fs::write(&path, &sealed[..length]).unwrap();
            assert_ne!(check_hdf5(&path).unwrap(), Seal::Intact, "{length} bytes");
        }
    }
}
