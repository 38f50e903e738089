//! What a process of its own may still do: compute, and talk over the one pipe it was given.
//!
//! The kernel holds it to that, whatever runs in it. Landlock takes the file system and the network
//! away, seccomp every call that such a process does not need, resource limits bound its memory and
//! its time. So whoever breaks out of the engine, or out of the compiler, still meets the kernel.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What the kernel holds a process to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Confinement {
    /// Bytes of memory that it may write to.
    pub(crate) memory_bytes: u64,
    /// Seconds of processor time, over all threads; none bounds it where absent.
    pub(crate) processor_seconds: Option<u64>,
    /// Whether it ends with the thread that started it.
    pub(crate) ends_with_parent: bool,
}

/// The process could not be confined; nothing was run in it.
#[derive(Debug, Error)]
#[error("{what}: {reason}")]
pub(crate) struct Unconfined {
    what: &'static str,
    reason: String,
}

impl Confinement {
    /// Confines this process for good. Threads that were there before are not confined, so this is
    /// called by the first one, before there is another.
    pub(crate) fn apply(&self) -> Result<(), Unconfined> {
        #[cfg(target_os = "linux")]
        linux::apply(self)?;
        Ok(())
    }
}

/// From now on no memory becomes code. For a process that has loaded what it runs.
pub(crate) fn no_more_code() -> Result<(), Unconfined> {
    #[cfg(target_os = "linux")]
    linux::no_more_code()?;
    Ok(())
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::BTreeMap;
    use std::fmt::Display;

    use landlock::{
        ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, Ruleset,
        RulesetAttr as _, Scope,
    };
    use rustix::process::{
        DumpableBehavior, Resource, Rlimit, Signal, nice, set_dumpable_behavior,
        set_parent_process_death_signal, setrlimit,
    };
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule,
    };

    use super::{Confinement, Unconfined};

    /// How much it gives way to the host's own threads.
    const NICENESS: i32 = 10;

    /// Files and pipes that may be open; it opens none by itself.
    const OPEN_FILES: u64 = 64;

    /// The newest rules of Landlock that are known here; an older kernel keeps those that it knows.
    const NEWEST: ABI = ABI::V6;

    fn cannot<E: Display>(what: &'static str) -> impl FnOnce(E) -> Unconfined {
        move |error| Unconfined {
            what,
            reason: error.to_string(),
        }
    }

    pub(super) fn apply(confinement: &Confinement) -> Result<(), Unconfined> {
        if confinement.ends_with_parent {
            set_parent_process_death_signal(Some(Signal::KILL))
                .map_err(cannot("its end with its parent cannot be set"))?;
        }
        // Nobody of the same user looks into it, and it leaves no picture of its memory.
        set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .map_err(cannot("its memory cannot be made private"))?;
        limit(Resource::Core, 0)?;
        // Files are closed to it; this is for those that are nothing but memory.
        limit(Resource::Fsize, confinement.memory_bytes)?;
        limit(Resource::Nofile, OPEN_FILES)?;
        limit(Resource::Data, confinement.memory_bytes)?;
        if let Some(seconds) = confinement.processor_seconds {
            // The signal of the first says why it ended; whatever would not be ended by that is by the
            // second.
            limits(Resource::Cpu, seconds, seconds.saturating_add(1))?;
        }
        if let Err(error) = nice(NICENESS) {
            tracing::debug!(%error, "a process keeps its priority");
        }
        close_files_and_network()?;
        close_calls()
    }

    fn limit(resource: Resource, most: u64) -> Result<(), Unconfined> {
        limits(resource, most, most)
    }

    fn limits(resource: Resource, soft: u64, hard: u64) -> Result<(), Unconfined> {
        let limit = Rlimit {
            current: Some(soft),
            maximum: Some(hard),
        };
        setrlimit(resource, limit).map_err(cannot("a limit of the system cannot be set"))
    }

    /// No rule follows, so nothing that is handled is allowed.
    fn close_files_and_network() -> Result<(), Unconfined> {
        let closed = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(NEWEST))
            .and_then(|rules| rules.handle_access(AccessNet::from_all(NEWEST)))
            .and_then(|rules| rules.scope(Scope::from_all(NEWEST)))
            .and_then(Ruleset::create)
            .and_then(|rules| rules.restrict_self());
        closed
            .map(|_| ())
            .map_err(cannot("the file system cannot be closed to it"))
    }

    /// Calls into the kernel of a process that computes, and reads and writes what is open.
    const CALLS: &[libc::c_long] = &[
        libc::SYS_brk,
        libc::SYS_clock_getres,
        libc::SYS_clock_gettime,
        libc::SYS_clock_nanosleep,
        libc::SYS_clone3,
        libc::SYS_close,
        libc::SYS_dup,
        libc::SYS_epoll_create1,
        libc::SYS_epoll_ctl,
        libc::SYS_epoll_pwait,
        libc::SYS_eventfd2,
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_fstat,
        libc::SYS_futex,
        libc::SYS_getpid,
        libc::SYS_getrandom,
        libc::SYS_gettid,
        libc::SYS_gettimeofday,
        libc::SYS_madvise,
        libc::SYS_membarrier,
        // The first contents of a guest's memory are mapped from there, for each instance.
        libc::SYS_memfd_create,
        libc::SYS_mprotect,
        libc::SYS_mremap,
        libc::SYS_munmap,
        libc::SYS_nanosleep,
        libc::SYS_ppoll,
        libc::SYS_read,
        libc::SYS_readv,
        libc::SYS_restart_syscall,
        libc::SYS_rseq,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sched_getaffinity,
        libc::SYS_sched_yield,
        libc::SYS_seccomp,
        libc::SYS_set_robust_list,
        libc::SYS_sigaltstack,
        libc::SYS_write,
        libc::SYS_writev,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_epoll_wait,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll,
    ];

    fn close_calls() -> Result<(), Unconfined> {
        // What a new thread is asks for in memory, which a filter cannot look into; without it the C
        // library asks in a way that it can.
        let unknown: BTreeMap<i64, Vec<SeccompRule>> = [(libc::SYS_clone3, Vec::new())].into();
        filter(unknown, SeccompAction::Allow, errno(libc::ENOSYS))?;
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
            CALLS.iter().map(|call| (*call, Vec::new())).collect();
        // A thread, and no process.
        let thread = libc::CLONE_THREAD as u64;
        let is_thread = when(0, SeccompCmpOp::MaskedEq(thread), thread)?;
        rules.insert(libc::SYS_clone, vec![is_thread]);
        // A signal to itself: how it ends when it has to.
        let own = u64::from(std::process::id());
        rules.insert(libc::SYS_tgkill, vec![when(0, SeccompCmpOp::Eq, own)?]);
        // The name of a thread, and further filters.
        let named = [
            libc::PR_SET_NAME,
            libc::PR_SET_NO_NEW_PRIVS,
            libc::PR_SET_VMA,
        ];
        let named = named
            .into_iter()
            .map(|option| when(0, SeccompCmpOp::Eq, option as u64))
            .collect::<Result<_, _>>()?;
        rules.insert(libc::SYS_prctl, named);
        rules.insert(libc::SYS_fcntl, harmless()?);
        // Memory of its own, which counts against its limits: none that is shared, or grows by itself.
        let kind = (libc::MAP_TYPE | libc::MAP_GROWSDOWN) as u64;
        let private = when(3, SeccompCmpOp::MaskedEq(kind), libc::MAP_PRIVATE as u64)?;
        rules.insert(libc::SYS_mmap, vec![private]);
        filter(rules, errno(libc::EPERM), SeccompAction::Allow)
    }

    /// What may be done with what is open: nothing that has the kernel send signals, which go to whom the
    /// process names.
    fn harmless() -> Result<Vec<SeccompRule>, Unconfined> {
        let commands = [
            libc::F_GETFD,
            libc::F_SETFD,
            libc::F_GETFL,
            libc::F_DUPFD_CLOEXEC,
            // Of memory that has a number of a file.
            libc::F_ADD_SEALS,
            libc::F_GET_SEALS,
        ];
        let mut rules = commands
            .into_iter()
            .map(|command| when(1, SeccompCmpOp::Eq, command as u64))
            .collect::<Result<Vec<_>, _>>()?;
        let set = condition(1, SeccompCmpOp::Eq, libc::F_SETFL as u64)?;
        let silent = condition(2, SeccompCmpOp::MaskedEq(libc::O_ASYNC as u64), 0)?;
        let silently = SeccompRule::new(vec![set, silent]);
        rules.push(silently.map_err(cannot("a rule on calls into the kernel cannot be made"))?);
        Ok(rules)
    }

    pub(super) fn no_more_code() -> Result<(), Unconfined> {
        let executable = libc::PROT_EXEC as u64;
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
        for call in [libc::SYS_mmap, libc::SYS_mprotect] {
            let code = when(2, SeccompCmpOp::MaskedEq(executable), executable)?;
            rules.insert(call, vec![code]);
        }
        // Nor further threads: all that it needs have begun.
        rules.insert(libc::SYS_clone, Vec::new());
        filter(rules, SeccompAction::Allow, errno(libc::EPERM))
    }

    fn errno(number: libc::c_int) -> SeccompAction {
        SeccompAction::Errno(number.unsigned_abs())
    }

    fn when(argument: u8, operation: SeccompCmpOp, value: u64) -> Result<SeccompRule, Unconfined> {
        SeccompRule::new(vec![condition(argument, operation, value)?])
            .map_err(cannot("a rule on calls into the kernel cannot be made"))
    }

    fn condition(
        argument: u8,
        operation: SeccompCmpOp,
        value: u64,
    ) -> Result<SeccompCondition, Unconfined> {
        SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operation, value)
            .map_err(cannot("a rule on calls into the kernel cannot be made"))
    }

    /// Holds every thread of this process to rules, beside those there are.
    fn filter(
        rules: BTreeMap<i64, Vec<SeccompRule>>,
        otherwise: SeccompAction,
        where_fits: SeccompAction,
    ) -> Result<(), Unconfined> {
        let what = "calls into the kernel cannot be closed to it";
        let architecture = std::env::consts::ARCH.try_into().map_err(cannot(what))?;
        let filter =
            SeccompFilter::new(rules, otherwise, where_fits, architecture).map_err(cannot(what))?;
        let program: BpfProgram = filter.try_into().map_err(cannot(what))?;
        seccompiler::apply_filter_all_threads(&program).map_err(cannot(what))
    }
}
