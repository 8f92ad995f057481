// The rows about descriptors in Go, with golang.org/x/sys/unix: what its users write.
package main

/*
#include <stddef.h>

struct job {
	int tx, rx, flags, fd_count;
	size_t size;
	int fds[253];
};
*/
import "C"

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// As floor_rights() in floor.c: `rounds` rounds, and 0 or the errno of what failed.
//
//export peer_rights
func peer_rights(job *C.struct_job, rounds C.long) C.int {
	fds := make([]int, int(job.fd_count))
	for i := range fds {
		fds[i] = int(job.fds[i])
	}
	flags := int(job.flags)
	data := make([]byte, int(job.size))
	into := make([]byte, int(job.size))
	room := make([]byte, unix.CmsgSpace(4*len(fds)))
	for i := C.long(0); i < rounds; i++ {
		if err := round(int(job.tx), int(job.rx), flags, fds, data, into, room); err != nil {
			return C.int(err.(syscall.Errno))
		}
	}
	return 0
}

func round(tx, rx, flags int, fds []int, data, into, room []byte) error {
	if err := unix.Sendmsg(tx, data, unix.UnixRights(fds...), nil, flags); err != nil {
		return err
	}
	_, used, _, _, err := unix.Recvmsg(rx, into, room, flags|unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return err
	}
	messages, err := unix.ParseSocketControlMessage(room[:used])
	if err != nil {
		return err
	}
	count := 0
	for i := range messages {
		received, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return err
		}
		for _, fd := range received {
			count++
			if err := unix.Close(fd); err != nil {
				return err
			}
		}
	}
	if count != len(fds) {
		return unix.EPROTO
	}
	return nil
}

// The runtime opens what it waits with when it first needs a timer: before descriptors are counted.
func init() { time.Sleep(time.Microsecond) }

func main() {}
