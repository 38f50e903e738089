//! The engine: what WebAssembly may be, how time is kept, and where memories come from.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
    RegallocAlgorithm,
};

use crate::sandbox::{Pooling, SandboxError};

/// How often a running guest is looked at.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Instances that live at one time; more wait.
pub(crate) const MAX_INSTANCES: u32 = 128;

/// Bytes of stack a guest may use; a deeper call is a trap.
const GUEST_STACK_BYTES: usize = 1 << 20;

/// Bytes of the stack that an async call runs on: the guest's and what the host puts on top.
const FIBER_STACK_BYTES: usize = 2 << 20;

/// Makes the engine and starts its ticker.
pub(crate) fn start(pooling: Pooling) -> Result<Engine, SandboxError> {
    let engine = match pooling {
        Pooling::Off => on_demand(),
        Pooling::Auto => pooled().or_else(|reason| {
            tracing::info!(%reason, "no address space for a pool; memories are made on demand");
            on_demand()
        }),
    }
    .map_err(|error| SandboxError::Engine {
        reason: format!("{error:#}"),
    })?;
    start_ticker(&engine)?;
    Ok(engine)
}

fn pooled() -> wasmtime::Result<Engine> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(MAX_INSTANCES)
        .total_core_instances(MAX_INSTANCES * 8)
        .total_memories(MAX_INSTANCES * 2)
        .total_tables(MAX_INSTANCES * 4)
        .total_stacks(MAX_INSTANCES)
        .max_memory_size(4 << 30)
        .table_elements(1 << 20)
        .max_unused_warm_slots(16)
        .linear_memory_keep_resident(1 << 20)
        .table_keep_resident(64 << 10)
        // Where the kernel can say which pages were written, only those are cleared.
        .pagemap_scan(Enabled::Auto);
    let mut config = common();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config)
}

fn on_demand() -> wasmtime::Result<Engine> {
    let mut config = common();
    config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    Engine::new(&config)
}

/// An engine that only compiles. Where memories come from does not bear on code, so any engine of this
/// host takes what it makes.
pub(crate) fn compiler() -> wasmtime::Result<Engine> {
    on_demand()
}

/// Everything but where memories come from. The features are those a guest compiled from an
/// ordinary language uses; what is not needed is off, so that it cannot be attacked.
fn common() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK_BYTES)
        .async_stack_size(FIBER_STACK_BYTES)
        .wasm_component_model(true)
        .concurrency_support(false)
        .wasm_memory64(false)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false)
        .wasm_tail_call(true)
        .wasm_simd(true)
        .wasm_relaxed_simd(true)
        .relaxed_simd_deterministic(true)
        .shared_memory(false)
        .cranelift_opt_level(OptLevel::Speed)
        .cranelift_regalloc_algorithm(RegallocAlgorithm::Backtracking)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(16))
        .native_unwind_info(false)
        .memory_init_cow(true);
    config
}

/// Advances the engine's epoch until the engine is gone.
fn start_ticker(engine: &Engine) -> Result<(), SandboxError> {
    let weak = engine.weak();
    std::thread::Builder::new()
        .name("sandbox-ticker".into())
        .spawn(move || {
            while let Some(engine) = weak.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(TICK);
            }
        })
        .map_err(|error| SandboxError::Engine {
            reason: format!("its ticker thread cannot be started: {error}"),
        })?;
    Ok(())
}

/// What a compiled artifact must have been made by: a hash of the engine's settings that bear on
/// compiled code, with the version of the compiler.
pub(crate) fn compatibility(engine: &Engine) -> String {
    struct Blake(blake3::Hasher);
    impl Hasher for Blake {
        fn finish(&self) -> u64 {
            let bytes = *self.0.finalize().as_bytes();
            u64::from_le_bytes([
                bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7],
            ])
        }

        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
    }
    let mut hasher = Blake(blake3::Hasher::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.0.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ticker_ends_with_its_engine() {
        let engine = start(Pooling::Off).expect("an engine on demand");
        let weak = engine.weak();
        drop(engine);
        for _ in 0..200 {
            if weak.upgrade().is_none() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("something still holds the engine");
    }

    #[test]
    fn compatibility_is_stable_and_differs_between_settings() {
        let pooled = compatibility(&start(Pooling::Auto).expect("an engine"));
        assert_eq!(
            pooled,
            compatibility(&start(Pooling::Auto).expect("an engine"))
        );
        let compiler = compiler().expect("an engine that compiles");
        assert_eq!(pooled, compatibility(&compiler));
        let mut config = common();
        config.epoch_interruption(false);
        let other = Engine::new(&config).expect("an engine without epochs");
        assert_ne!(pooled, compatibility(&other));
    }

    #[test]
    fn threads_and_wide_memories_are_refused() {
        let engine = start(Pooling::Off).expect("an engine");
        for (text, feature) in [
            (
                "(component (core module (memory 1 1 shared)))",
                "shared memory",
            ),
            ("(component (core module (memory i64 1)))", "64-bit memory"),
        ] {
            let bytes = wat::parse_str(text).expect("a component in text");
            let made = wasmtime::component::Component::from_binary(&engine, &bytes);
            assert!(made.is_err(), "{feature} must be refused");
        }
    }
}
