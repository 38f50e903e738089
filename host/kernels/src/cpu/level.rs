//! What the processor can do. The default target of the compiler is an old processor, so loops
//! that matter are compiled several times and the best is chosen when the program starts.

use std::sync::LazyLock;

/// A set of instructions that this processor has; a value exists only where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level(Set);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Set {
    /// What every processor of the architecture has.
    Portable,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// Whether portable code rounds a product and a sum once.
pub(crate) const PORTABLE_FUSED: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

impl Level {
    /// The best there is.
    pub(crate) fn best() -> Level {
        static BEST: LazyLock<Level> =
            LazyLock::new(|| Level::available().pop().unwrap_or(Level(Set::Portable)));
        *BEST
    }

    /// Everything there is, the best last.
    pub(crate) fn available() -> Vec<Level> {
        #[cfg_attr(
            not(target_arch = "x86_64"),
            expect(unused_mut, reason = "nothing to add")
        )]
        let mut levels = vec![Level(Set::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                levels.push(Level(Set::Avx2));
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    levels.push(Level(Set::Avx512));
                }
            }
        }
        levels
    }

    /// Which set it is.
    pub(crate) fn set(self) -> Set {
        self.0
    }

    /// The name that people know.
    pub(crate) fn name(self) -> &'static str {
        match self.0 {
            Set::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => "avx512",
        }
    }
}

/// Defines a function that runs a body compiled for each level. The body is an
/// `#[inline(always)]` function with a const parameter that says whether sums and products fuse.
macro_rules! for_each_level {
    ($(#[$meta:meta])* $vis:vis fn $name:ident => $body:ident($($argument:ident: $type:ty),* $(,)?)) => {
        $(#[$meta])*
        $vis fn $name(level: $crate::cpu::level::Level, $($argument: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($argument: $type),*) {
                    $body::<true>($($argument),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($argument: $type),*) {
                    $body::<true>($($argument),*)
                }
                match level.set() {
                    $crate::cpu::level::Set::Portable => {}
                    // SAFETY: a level exists only where the processor has its instructions.
                    $crate::cpu::level::Set::Avx2 => return unsafe { avx2($($argument),*) },
                    // SAFETY: as above.
                    $crate::cpu::level::Set::Avx512 => return unsafe { avx512($($argument),*) },
                }
            }
            let _ = level;
            $body::<{ $crate::cpu::level::PORTABLE_FUSED }>($($argument),*)
        }
    };
}

pub(crate) use for_each_level;
