//! The rows about descriptors in Rust, with nix: what its users write.

use nix::errno::Errno;
use nix::sys::socket::{
    recvmsg, sendmsg, ControlMessage, ControlMessageOwned, MsgFlags,
};
use nix::unistd::close;
use std::io::{IoSlice, IoSliceMut};
use std::os::raw::{c_int, c_long};
use std::os::unix::io::RawFd;

#[repr(C)]
pub struct Job {
    tx: c_int,
    rx: c_int,
    flags: c_int,
    fd_count: c_int,
    size: usize,
    fds: [c_int; 253],
}

/// As floor_rights() in floor.c: `rounds` rounds, and 0 or the errno of what failed.
///
/// # Safety
/// `job` points to a Job.
#[no_mangle]
pub unsafe extern "C" fn peer_rights(job: *const Job, rounds: c_long) -> c_int {
    let job = &*job;
    let fds = &job.fds[..job.fd_count as usize];
    let flags = MsgFlags::from_bits_truncate(job.flags);
    let data = vec![0u8; job.size];
    let mut into = vec![0u8; job.size];
    let mut room = nix::cmsg_space!([RawFd; 253]);
    for _ in 0..rounds {
        if let Err(error) = round(job.tx, job.rx, flags, fds, &data, &mut into, &mut room) {
            return error as c_int;
        }
    }
    0
}

fn round(
    tx: RawFd,
    rx: RawFd,
    flags: MsgFlags,
    fds: &[RawFd],
    data: &[u8],
    into: &mut [u8],
    room: &mut Vec<u8>,
) -> Result<(), Errno> {
    sendmsg::<()>(tx, &[IoSlice::new(data)], &[ControlMessage::ScmRights(fds)], flags, None)?;
    let mut iov = [IoSliceMut::new(into)];
    let message =
        recvmsg::<()>(rx, &mut iov, Some(room), flags | MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut count = 0;
    for control in message.cmsgs() {
        if let ControlMessageOwned::ScmRights(received) = control {
            for fd in received {
                count += 1;
                close(fd)?;
            }
        }
    }
    if count == fds.len() { Ok(()) } else { Err(Errno::EPROTO) }
}
