//! Owns the resource limits that a request names.

use cellule_protocol::v1;

use super::failure::{Failure, quote};

/// More than there are kinds; a later one overrules an earlier one.
const MAX_LIMITS: usize = 64;

/// A limit as the kernel takes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) resource: u32,
    pub(super) value: libc::rlimit,
}

/// By the names of setrlimit(2).
const NAMES: [(&str, u32); 16] = [
    ("as", libc::RLIMIT_AS),
    ("core", libc::RLIMIT_CORE),
    ("cpu", libc::RLIMIT_CPU),
    ("data", libc::RLIMIT_DATA),
    ("fsize", libc::RLIMIT_FSIZE),
    ("locks", libc::RLIMIT_LOCKS),
    ("memlock", libc::RLIMIT_MEMLOCK),
    ("msgqueue", libc::RLIMIT_MSGQUEUE),
    ("nice", libc::RLIMIT_NICE),
    ("nofile", libc::RLIMIT_NOFILE),
    ("nproc", libc::RLIMIT_NPROC),
    ("rss", libc::RLIMIT_RSS),
    ("rtprio", libc::RLIMIT_RTPRIO),
    ("rttime", libc::RLIMIT_RTTIME),
    ("sigpending", libc::RLIMIT_SIGPENDING),
    ("stack", libc::RLIMIT_STACK),
];

/// Checks what a request asks for. The largest number on the wire is the kernel's for "no limit", too.
pub(super) fn check(wanted: &[v1::Rlimit]) -> Result<Vec<Limit>, Failure> {
    if wanted.len() > MAX_LIMITS {
        return Err(Failure::invalid("rlimits", format!("has more than {MAX_LIMITS} entries")));
    }
    let one = |(at, wanted): (usize, &v1::Rlimit)| {
        let refused = |why: String| Failure::invalid(format!("rlimits[{at}]"), why);
        let Some((_, resource)) = NAMES.iter().find(|(name, _)| *name == wanted.name) else {
            let name = quote(wanted.name.as_bytes());
            return Err(refused(format!("{name} is no limit that Linux knows")));
        };
        if wanted.soft > wanted.hard {
            return Err(refused("its soft limit is above its hard limit".to_owned()));
        }
        let value = libc::rlimit { rlim_cur: wanted.soft, rlim_max: wanted.hard };
        Ok(Limit { resource: *resource, value })
    };
    wanted.iter().enumerate().map(one).collect()
}

#[cfg(test)]
mod tests {
    use cellule_protocol::v1::start_failure::Kind;

    use super::*;

    fn limit(name: &str, soft: u64, hard: u64) -> v1::Rlimit {
        v1::Rlimit { name: name.to_owned(), soft, hard }
    }

    #[test]
    fn no_limit_on_the_wire_is_the_kernels() {
        let limits = check(&[limit("nofile", 10, u64::MAX)]).unwrap();
        assert_eq!((limits[0].value.rlim_cur, limits[0].value.rlim_max), (10, libc::RLIM_INFINITY));
    }

    #[test]
    fn an_unknown_name_or_an_impossible_pair_is_refused_where_it_is() {
        for bad in [limit("NOFILE", 1, 1), limit("", 1, 1), limit("cpu", 2, 1)] {
            let failure = check(&[limit("as", 1, 1), bad]).unwrap_err();
            assert_eq!(failure.parts(), (Kind::InvalidArgument, "rlimits[1]"));
        }
    }
}
