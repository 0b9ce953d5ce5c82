//! What the kernel's BPF side can do, tried rather than guessed from version numbers.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use aya::maps::MapType;
use aya::programs::tc::TcAttachType;
use aya::programs::{ProgramType, SchedClassifier};
use aya::sys::{is_map_supported, is_program_supported};

use super::{AttachBy, Check, CheckStatus};
use crate::kernel::tc;

/// `Ok(true)`, `Ok(false)`, or why it could not be found out.
type Probed = Result<bool, String>;

/// What was tried.
pub(super) struct Features {
    classifier: Probed,
    tcx: Probed,
    clsact: Probed,
    ring: Probed,
    trie: Probed,
    mapped: Probed,
}

pub(super) fn probe() -> Features {
    let program = |kind| is_program_supported(kind).map_err(|error| chain(&error));
    let map = |kind| is_map_supported(kind).map_err(|error| chain(&error));
    Features {
        classifier: program(ProgramType::SchedClassifier),
        // The loopback device is in every network namespace; kernels without TCX do not know the question.
        tcx: SchedClassifier::query_tcx("lo", TcAttachType::Ingress)
            .map(|_| true)
            .map_err(|error| chain(&error)),
        clsact: tc::can_add_qdisc().map_err(|error| error.to_string()),
        ring: map(MapType::RingBuf),
        trie: map(MapType::LpmTrie),
        mapped: mappable_array().map(|_| true).map_err(|error| error.to_string()),
    }
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

const NEWER: &str =
    "boot Linux 6.6 or later with CONFIG_BPF_SYSCALL, CONFIG_NET_CLS_ACT and CONFIG_NET_CLS_BPF";

impl Features {
    pub(super) fn attach_by(&self) -> AttachBy {
        match (&self.classifier, &self.tcx, &self.clsact) {
            (Ok(true), Ok(true), _) => AttachBy::Tcx,
            (Ok(true), _, Ok(true)) => AttachBy::Clsact,
            _ => AttachBy::Nothing,
        }
    }

    pub(super) fn checks(&self) -> Vec<Check> {
        use CheckStatus::{Fail, Warn};
        let without_tcx = if self.attach_by() == AttachBy::Clsact { Warn } else { Fail };
        let need = |about, probed, without| check(about, probed, without, NEWER);
        vec![
            need(("TC programs", "they judge every packet of an agent"), &self.classifier, Fail),
            check(
                ("TCX", "our programs can be first in the chain, be pinned, and be replaced without a gap"),
                &self.tcx,
                without_tcx,
                "boot Linux 6.6 or later; clsact filters are used instead where they work, which root in this network \
                 namespace can take off for a moment, and which do not move to another namespace with their interface",
            ),
            need(("ring buffer", "the kernel's notices to the daemon"), &self.ring, Fail),
            need(("LPM trie", "typical endpoints by prefix"), &self.trie, Fail),
            need(
                ("mapped arrays", "the word that a verdict rests on is stored atomically"),
                &self.mapped,
                Fail,
            ),
        ]
    }
}

fn check(
    about: (&'static str, &'static str),
    probed: &Probed,
    without: CheckStatus,
    remedy: &'static str,
) -> Check {
    match probed {
        Ok(true) => Check::ok(about.0, about.1, "works"),
        Ok(false) => Check::bad(without, about, "this kernel does not have it", remedy),
        Err(error) if error.contains(NOT_PERMITTED) => Check::bad(without, about, error, "run as root"),
        Err(error) => Check::bad(without, about, error, remedy),
    }
}

/// How the standard library words EPERM.
const NOT_PERMITTED: &str = "Operation not permitted";

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_F_MMAPABLE: u32 = 1 << 10;

/// The beginning of `union bpf_attr` for `BPF_MAP_CREATE`; the kernel takes what is missing as zero.
#[repr(C)]
struct CreateMap {
    map_type: u32,
    key_bytes: u32,
    value_bytes: u32,
    max_entries: u32,
    flags: u32,
}

fn mappable_array() -> io::Result<OwnedFd> {
    let mut attributes = CreateMap {
        map_type: BPF_MAP_TYPE_ARRAY,
        key_bytes: 4,
        value_bytes: 8,
        max_entries: 2,
        flags: BPF_F_MMAPABLE,
    };
    let fd = bpf(BPF_MAP_CREATE, &mut attributes)?;
    // SAFETY: BPF_MAP_CREATE returned a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `bpf(2)`; `attributes` must be the beginning of `union bpf_attr` for `command`.
fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: the pointer and the size are of one live, exclusively borrowed value. What it points to in turn
    // are the caller's own buffers, as large as the command fills them.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    // A descriptor or zero fits; an error is -1.
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(classifier: Probed, tcx: Probed) -> Features {
        let works = || Ok(true);
        let clsact = Ok(false);
        Features { classifier, tcx, clsact, ring: works(), trie: works(), mapped: works() }
    }

    #[test]
    fn clsact_stands_in_for_tcx_and_only_with_a_warning() {
        let older = |clsact| Features { clsact, ..features(Ok(true), Err("EINVAL".into())) };
        let status = |features: &Features| {
            features.checks().into_iter().find(|check| check.name == "TCX").unwrap().status
        };
        let with = older(Ok(true));
        assert_eq!((with.attach_by(), status(&with)), (AttachBy::Clsact, CheckStatus::Warn));
        let without = older(Ok(false));
        assert_eq!((without.attach_by(), status(&without)), (AttachBy::Nothing, CheckStatus::Fail));
        let newer = Features { clsact: Ok(true), ..features(Ok(true), Ok(true)) };
        assert_eq!((newer.attach_by(), status(&newer)), (AttachBy::Tcx, CheckStatus::Ok));
    }

    #[test]
    fn without_tcx_or_programs_nothing_can_be_used() {
        assert_eq!(features(Ok(true), Ok(true)).attach_by(), AttachBy::Tcx);
        assert_eq!(features(Ok(true), Err("EINVAL".into())).attach_by(), AttachBy::Nothing);
        assert_eq!(features(Err("EPERM".into()), Ok(true)).attach_by(), AttachBy::Nothing);
    }

    #[test]
    fn what_is_missing_fails() {
        let checks = features(Ok(false), Ok(false)).checks();
        let status = |name| checks.iter().find(|check| check.name == name).unwrap().status;
        assert_eq!(status("TC programs"), CheckStatus::Fail);
        assert_eq!(status("TCX"), CheckStatus::Fail);
        assert_eq!(status("LPM trie"), CheckStatus::Ok);
    }

    #[test]
    fn a_lack_of_privileges_is_told_from_a_lack_of_features() {
        let denied = chain(&io::Error::from_raw_os_error(libc::EPERM));
        let checks = features(Err(denied), Err("EINVAL".into())).checks();
        let remedy = |name| checks.iter().find(|check| check.name == name).unwrap().remedy.clone().unwrap();
        assert_eq!(remedy("TC programs"), "run as root");
        assert!(remedy("TCX").contains("6.6"));
    }
}
