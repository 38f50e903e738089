//! From CUDA C++ to what a device loads, by NVRTC. Kept in a folder, where there is one, under the
//! digest of all that it depends on.

use std::ffi::{CString, c_char, c_int};
use std::fs;
use std::path::{Path, PathBuf};

use cudarc::nvrtc::{result as nvrtc, sys};

use super::driver::{Fault, Unit};

/// What every kernel is compiled with. Products and sums round apart unless the source says
/// otherwise; divisions, roots and subnormals are those of IEEE 754.
const OPTIONS: [&str; 6] = [
    "--std=c++17",
    "--fmad=false",
    "--ftz=false",
    "--prec-div=true",
    "--prec-sqrt=true",
    "--disable-warnings",
];

/// What is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Machine code of a device of this compute capability.
    Device([u32; 2]),
    /// PTX for devices from this compute capability on.
    Ptx([u32; 2]),
}

/// A compiler that is there.
#[derive(Debug)]
pub(crate) struct Compiler {
    /// Major and minor.
    pub(crate) version: [c_int; 2],
    /// Compute capabilities it knows, as in 90.
    known: Vec<c_int>,
    /// Where compiled kernels are kept.
    folder: Option<PathBuf>,
}

fn refused(what: &str, error: nvrtc::NvrtcError) -> Fault {
    Fault::Refused {
        what: format!("NVRTC refused {what}: {error}"),
    }
}

impl Compiler {
    /// Finds the library.
    pub(crate) fn open(folder: Option<PathBuf>) -> Result<Compiler, Fault> {
        super::probe::find_nvrtc().map_err(|reason| Fault::Refused {
            what: reason.to_string(),
        })?;
        let (mut major, mut minor, mut count) = (0, 0, 0);
        // SAFETY: the library has these functions; the addresses are those of live numbers.
        unsafe {
            sys::nvrtcVersion(&mut major, &mut minor)
                .result()
                .map_err(|error| refused("its version", error))?;
            sys::nvrtcGetNumSupportedArchs(&mut count)
                .result()
                .map_err(|error| refused("the devices it knows", error))?;
        }
        let mut known = vec![0; usize::try_from(count).unwrap_or(0)];
        if !known.is_empty() {
            // SAFETY: as above; there is room for as many numbers as it said.
            unsafe { sys::nvrtcGetSupportedArchs(known.as_mut_ptr()) }
                .result()
                .map_err(|error| refused("the devices it knows", error))?;
        }
        Ok(Compiler {
            version: [major, minor],
            known,
            folder,
        })
    }

    /// What to compile for, for a device of a compute capability: its machine code where the
    /// compiler knows it, else PTX of the newest before it.
    pub(crate) fn target(&self, [major, minor]: [u32; 2]) -> Result<Target, Fault> {
        let wanted = (major * 10 + minor) as c_int;
        if self.known.contains(&wanted) {
            return Ok(Target::Device([major, minor]));
        }
        let before = self.known.iter().filter(|one| **one < wanted).max();
        match before.and_then(|one| u32::try_from(*one).ok()) {
            Some(one) => Ok(Target::Ptx([one / 10, one % 10])),
            None => Err(Fault::Refused {
                what: format!(
                    "NVRTC {}.{} knows no compute capability up to {major}.{minor}",
                    self.version[0], self.version[1]
                ),
            }),
        }
    }

    /// Compiles, or finds what was compiled before.
    pub(crate) fn compile(&self, unit: &Unit, target: Target) -> Result<Vec<u8>, Fault> {
        let architecture = match target {
            Target::Device([major, minor]) => format!("--gpu-architecture=sm_{major}{minor}"),
            Target::Ptx([major, minor]) => format!("--gpu-architecture=compute_{major}{minor}"),
        };
        let mut options = vec![architecture];
        options.extend(OPTIONS.map(str::to_owned));
        let place = self
            .folder
            .as_ref()
            .map(|folder| folder.join(self.name(unit, &options)));
        if let Some(kept) = place.as_deref().and_then(read_kept) {
            return Ok(kept);
        }
        let image = compile(&unit.source, &options, target)?;
        if let Some(place) = &place {
            // A folder that takes no files makes the next start slower, and nothing else.
            let _ = keep(place, &image);
        }
        Ok(image)
    }

    fn name(&self, unit: &Unit, options: &[String]) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"sandcast kernels 1\n");
        hasher.update(format!("{:?} {options:?}\n", self.version).as_bytes());
        hasher.update(unit.source.as_bytes());
        format!("{}.kernels", hasher.finalize().to_hex())
    }
}

fn compile(source: &str, options: &[String], target: Target) -> Result<Vec<u8>, Fault> {
    let source = CString::new(source).map_err(|_| Fault::Compile {
        log: "the source has a zero in it".into(),
    })?;
    let program = nvrtc::create_program(&source, Some(c"sandcast.cu"))
        .map_err(|error| refused("a program", error))?;
    // SAFETY: the program was created above and is destroyed below, once.
    unsafe {
        let image = match nvrtc::compile_program(program, options) {
            Ok(()) => image(program, target).map_err(|error| refused("its result", error)),
            Err(error) => Err(Fault::Compile {
                log: nvrtc::get_program_log(program).map_or_else(
                    |_| error.to_string(),
                    |log| text(&log).chars().take(4000).collect(),
                ),
            }),
        };
        let _ = nvrtc::destroy_program(program);
        image
    }
}

/// # Safety
/// The program was compiled and not destroyed.
unsafe fn image(program: sys::nvrtcProgram, target: Target) -> Result<Vec<u8>, nvrtc::NvrtcError> {
    let mut bytes = 0;
    // SAFETY: the caller's promise; there is room for as many bytes as the compiler said.
    unsafe {
        if let Target::Ptx(_) = target {
            let ptx = nvrtc::get_ptx(program)?;
            return Ok(ptx.into_iter().map(|byte| byte as u8).collect());
        }
        sys::nvrtcGetCUBINSize(program, &mut bytes).result()?;
        let mut image = vec![0_u8; bytes];
        sys::nvrtcGetCUBIN(program, image.as_mut_ptr().cast::<c_char>()).result()?;
        Ok(image)
    }
}

fn text(bytes: &[c_char]) -> String {
    let bytes: Vec<u8> = bytes
        .iter()
        .map(|byte| *byte as u8)
        .take_while(|byte| *byte != 0)
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What was kept, if it is whole.
fn read_kept(place: &Path) -> Option<Vec<u8>> {
    let kept = fs::read(place).ok()?;
    let (digest, image) = kept.split_at_checked(blake3::OUT_LEN)?;
    (blake3::hash(image).as_bytes() == digest).then(|| image.to_vec())
}

/// Writes beside and renames, so that nobody reads half of it.
fn keep(place: &Path, image: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder)?;
    }
    let beside = place.with_extension(format!("{}.part", std::process::id()));
    let mut kept = blake3::hash(image).as_bytes().to_vec();
    kept.extend_from_slice(image);
    fs::write(&beside, kept)?;
    fs::rename(&beside, place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_whole_or_not_at_all() {
        let folder = std::env::temp_dir().join(format!("sandcast-kernels-{}", std::process::id()));
        let place = folder.join("one.kernels");
        assert_eq!(read_kept(&place), None);
        keep(&place, b"image").expect("a folder that takes files");
        assert_eq!(read_kept(&place), Some(b"image".to_vec()));
        let mut bytes = fs::read(&place).expect("the file");
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&place, &bytes).expect("the file");
        assert_eq!(read_kept(&place), None);
        fs::write(&place, b"short").expect("the file");
        assert_eq!(read_kept(&place), None);
        fs::remove_dir_all(&folder).expect("the folder");
    }

    #[test]
    fn the_newest_that_is_known_is_compiled_for() {
        let compiler = Compiler {
            version: [13, 0],
            known: vec![75, 80, 90, 100],
            folder: None,
        };
        assert_eq!(compiler.target([9, 0]), Ok(Target::Device([9, 0])));
        assert_eq!(compiler.target([12, 1]), Ok(Target::Ptx([10, 0])));
        assert_eq!(compiler.target([8, 9]), Ok(Target::Ptx([8, 0])));
        assert!(compiler.target([7, 0]).is_err());
    }
}
