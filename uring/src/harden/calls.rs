//! System calls that are refused, by seccomp(2): those that no thread of these programs makes and that whoever takes one
//! over would want. A list of what is allowed would be shorter-lived than the C library it is written for.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// Other programs, other processes, the kernel itself, other namespaces, the clock.
const NEVER: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_personality,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_fanotify_init,
    libc::SYS_open_by_handle_at,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// The mount table, which only a client has business with.
const MOUNTS: &[i64] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
];

/// x32 calls the same kernel by the same architecture's name: its numbers have this bit, and some are others.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;
/// `execve`, `ptrace`, `kexec_load`, `process_vm_readv`, `process_vm_writev`, `move_pages`, `execveat` of x32.
#[cfg(target_arch = "x86_64")]
const X32_OWN: [i64; 7] = [520, 521, 528, 539, 540, 533, 545];

/// Refuses them to this thread and those it starts (EPERM); says so, or why not.
pub(super) fn forbid(mounts: bool) -> String {
    let numbers = numbers(mounts);
    let count = NEVER.len() + if mounts { 0 } else { MOUNTS.len() };
    let done = program(&numbers)
        .and_then(|program| seccompiler::apply_filter(&program).map_err(|error| error.to_string()));
    match done {
        Ok(()) => format!("{count} refused"),
        Err(error) => format!("all allowed ({error})"),
    }
}

fn numbers(mounts: bool) -> Vec<i64> {
    let mut numbers: Vec<i64> = NEVER.to_vec();
    if !mounts {
        numbers.extend(MOUNTS);
    }
    #[cfg(target_arch = "x86_64")]
    {
        let x32: Vec<i64> = numbers.iter().chain(&X32_OWN).map(|number| number | X32).collect();
        numbers.extend(x32);
    }
    numbers
}

fn program(numbers: &[i64]) -> Result<BpfProgram, String> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| error.to_string())?;
    // No condition: whatever the arguments.
    let rules: BTreeMap<i64, Vec<_>> = numbers.iter().map(|&number| (number, Vec::new())).collect();
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, arch);
    filter.and_then(BpfProgram::try_from).map_err(|error| error.to_string())
}
