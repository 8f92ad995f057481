/* The module cmsgx._cmsg: docstrings and the method table.  The functions are defined in c/. */

#include "arguments.h"
#include "bind.h"
#include "calls/background.h"
#include "calls/batch_receiver.h"
#include "calls/drop_in_receive.h"
#include "calls/drop_in_receive_fds.h"
#include "calls/drop_in_send.h"
#include "calls/lock.h"
#include "calls/method.h"
#include "calls/new_fd.h"
#include "calls/notes.h"
#include "calls/options.h"
#include "calls/overrides.h"
#include "calls/prepared_send.h"
#include "calls/receive.h"
#include "calls/receiver.h"
#include "calls/send.h"
#include "calls/send_batch.h"
#include "calls/socket_object.h"
#include "calls/sockopt.h"
#include "calls/wait.h"
#include "calls/wire.h"
#include "errors.h"
#include "plain/process.h"
#include "state.h"
#include "tables/numbers.h"
#include "tables/structs.h"
#include "types/address.h"
#include "types/address_tuple.h"
#include "types/batch.h"
#include "types/buffer.h"
#include "types/codec.h"
#include "types/fd.h"
#include "types/field.h"
#include "types/ip.h"
#include "types/message.h"
#include "types/message_fds.h"
#include "types/message_type.h"
#include "types/pin.h"
#include "types/receive_config.h"
#include "types/record.h"
#include "types/segments.h"
#include "types/struct.h"
#include "types/view.h"

#include <errno.h>

#define FAST(function) (PyCFunction)(void (*)(void))(function)

/* Docstrings ------------------------------------------------------------------------------- */

PyDoc_STRVAR(sendmsg_doc,
"sendmsg(sock, buffers, ancdata=(), flags=0, address=None, /)\n--\n\n"
"Sends data and control messages as socket.sendmsg() does, by sendmsg(2).  One buffer without\n"
"control messages or an address is sent by send(2), which strace and seccomp show as sendto.\n"
"Returns the number of bytes sent.\n\n"
"`sock` is a socket, an Fd, an int, or an object with fileno().  Only a socket has a timeout.\n"
"`buffers` is an iterable of bytes-like objects.  `ancdata` is an iterable of (level, type,\n"
"data) tuples and typed control messages.  Descriptors are borrowed: the caller still owns them,\n"
"and each Fd among them stays open during the system call.  Raises the same exceptions as\n"
"socket.sendmsg().");

PyDoc_STRVAR(recvmsg_doc,
"recvmsg(sock, bufsize, ancbufsize=0, flags=0, /)\n--\n\n"
"Receives at most `bufsize` bytes of data, and control messages into a control buffer of\n"
"`ancbufsize` bytes, as socket.recvmsg() does: recvmsg(2).  Returns (data, ancdata, msg_flags,\n"
"address).\n\n"
"Descriptors in `ancdata` are close-on-exec.  They are plain numbers that the caller owns at\n"
"once: if an exception (from a signal handler, for example) is raised before the caller closes\n"
"them, they leak.  receive() has no such gap.  Never raises for MSG_CTRUNC: check msg_flags.");

PyDoc_STRVAR(recvmsg_into_doc,
"recvmsg_into(sock, buffers, ancbufsize=0, flags=0, /)\n--\n\n"
"Like recvmsg(), but receives into an iterable of writable buffers.  Returns (nbytes, ancdata,\n"
"msg_flags, address).");

PyDoc_STRVAR(recvmsg_inheritable_doc,
"recvmsg_inheritable(sock, bufsize, ancbufsize=0, flags=0, /)\n--\n\n"
"Like recvmsg(), but leaves received descriptors inheritable, as the socket module does.");

PyDoc_STRVAR(recvmsg_into_inheritable_doc,
"recvmsg_into_inheritable(sock, buffers, ancbufsize=0, flags=0, /)\n--\n\n"
"Like recvmsg_into(), but leaves received descriptors inheritable, as the socket module does.");

PyDoc_STRVAR(send_fds_doc,
"send_fds(sock, buffers, fds, flags=0, address=None)\n--\n\n"
"Sends descriptors along with the bytes in `buffers`: SCM_RIGHTS, unix(7).  Returns the number\n"
"of bytes sent.  `fds` is an iterable of ints, Fds and objects with fileno(), or a single Fd or\n"
"object with fileno().  The descriptors are borrowed: the caller still owns them.\n\n"
"Unlike socket.send_fds(), honours `flags` and `address`.");

PyDoc_STRVAR(recv_fds_doc,
"recv_fds(sock, bufsize, maxfds, flags=0, *, cloexec=True)\n--\n\n"
"Receives at most `bufsize` bytes and `maxfds` descriptors: SCM_RIGHTS, unix(7).  Returns (data,\n"
"list of numbers, msg_flags, address).  The caller owns the numbers.  Surplus descriptors are\n"
"closed, and MSG_CTRUNC is set.  The control buffer has space for the control messages of\n"
"enabled options too, so they cannot displace descriptors.  Unlike socket.recv_fds(), honours\n"
"`flags`.");

PyDoc_STRVAR(send_doc,
"send(sock, data, *, fds=(), control=(), flags=0, address=None, timeout=...)\n--\n\n"
"Sends one message, by sendmsg(2).  One buffer without descriptors, control messages or an\n"
"address is sent by send(2), which strace and seccomp show as sendto.  Returns the number of\n"
"bytes sent.\n\n"
"`data` is a bytes-like object or an iterable of them.  `fds` is an iterable of descriptors\n"
"(ints, Fds, objects with fileno()), or a single Fd or object with fileno().  They are borrowed:\n"
"the caller still owns them.  `control` is one typed control message, or an iterable of them and\n"
"of (level, type, data) tuples.  `timeout` is in seconds, or None for no limit; by default it is\n"
"the timeout of the socket.  `address` is an Address, or an address as the socket module takes\n"
"it.  A host name is resolved first, and is accepted only with a socket object.  Never raises\n"
"SIGPIPE.\n\n"
"Raises TooManyFdsError for more than 253 descriptors; NotSupportedError for descriptors over a\n"
"family other than AF_UNIX, and for a typed control message that the kernel would silently drop;\n"
"ValueError for descriptors without data on a stream, and for a control message that can only be\n"
"received; OSError (EBADF) that names a descriptor that is not open; and OSError for errors that\n"
"the kernel reports.  EINVAL and EPERM have a note that says what each control message requires.");

PyDoc_STRVAR(try_send_doc,
"try_send(sock, data, *, fds=(), control=(), address=None)\n--\n\n"
"Like send(), but never waits, whether the socket blocks, has a timeout or neither: one\n"
"sendmsg(2) with MSG_DONTWAIT.  Returns the number of bytes sent, on a stream perhaps only a\n"
"part, or None, without an exception, if the kernel takes nothing now.\n\n"
"Raises TypeError for an iterator, which a try that sends nothing would use up, and ValueError\n"
"for a host name as `address`, because resolving it may wait.  PreparedSend takes both, can be\n"
"tried again, and sends descriptors once.");

PyDoc_STRVAR(send_or_prepare_doc,
"send_or_prepare(sock, data, *, fds=(), control=(), flags=0, address=None)\n--\n\n"
"One try, as try_send() makes it.  Returns the number of bytes if all went; otherwise a\n"
"PreparedSend, which has what is left and counts in `sent` what went.  Iterators are read.  Plain\n"
"numbers that did not go are duplicated; if that fails, it raises OSError, and nothing was sent.");

PyDoc_STRVAR(send_batch_doc,
"send_batch(sock, messages, *, flags=0, timeout=..., on_error='raise')\n--\n\n"
"Sends many messages with few system calls: sendmmsg(2).\n\n"
"Each message is a tuple (data, fds, control, address), of which everything after the data may\n"
"be omitted, or an Outgoing, or just the data; each part is as for send().  Returns how many\n"
"messages were sent, counted from the first.  The call stops at the first message that fails,\n"
"and raises only if that is the very first one, so the rest can be passed to the next call.\n"
"`timeout` is for the whole call.  All descriptors are borrowed: the caller still owns them,\n"
"sent or not.  An exception raised by other code, such as an iterator in a message or a\n"
"fileno(), propagates after the messages before it have been sent.\n\n"
"On a stream, the kernel may send a part of a message first; the rest follows without the\n"
"descriptors.  If that fails, or a signal handler raises, the call raises too.  Each exception,\n"
"except those about the arguments, has the attributes `sent`, the number of whole messages sent,\n"
"and `sent_bytes`, the number of bytes sent of the next one; if that is not 0, its descriptors\n"
"were sent as well.\n\n"
"on_error='skip' skips each message that the kernel refuses, and returns a BatchResult: an int,\n"
"the number of messages sent, with the attributes `skipped`, an (index, OSError) for each\n"
"skipped message, and `done`, the number of both.  An error that may have been pending, such as\n"
"an ICMP error about an earlier packet, counts only if the same message fails again.  An error\n"
"that does not concern one message (a closed socket or descriptor, a lost connection, no memory,\n"
"a timeout) ends the call as without on_error, and so does a message that cannot be built; that\n"
"exception has `skipped` as well.");

PyDoc_STRVAR(send_tracked_doc,
"send_tracked(progress, sock, data, /, *, fds=(), control=(), flags=0, address=None, "
"timeout=...)\n--\n\n"
"Like send(), but adds the number of bytes sent to the number in `progress`, a list of one int,\n"
"before a signal handler can run.  Returns None, or the OSError of the system call, so an\n"
"exception that it raises comes from elsewhere, whatever its errno.");

PyDoc_STRVAR(send_batch_tracked_doc,
"send_batch_tracked(progress, sock, messages, /, *, flags=0, timeout=...)\n--\n\n"
"Like send_tracked(), but for send_batch().  `progress` is a list of two ints: the number of\n"
"messages sent, and the number of bytes sent of the next one.  An OSError is returned even if\n"
"some were sent.");

PyDoc_STRVAR(try_send_batch_doc,
"try_send_batch(progress, sock, messages, /, *, flags=0)\n--\n\n"
"Like send_batch_tracked(), but does not wait: False if the socket takes no more now, although it\n"
"may have taken some.  Otherwise True, or the OSError.");

PyDoc_STRVAR(receive_doc,
"receive(sock, bufsize, *, fds=0, flags=0, timeout=..., on_truncation='raise', close='now')\n--\n\n"
"Receives one message of at most `bufsize` bytes and `fds` descriptors: recvmsg(2).  Sets no\n"
"socket options, and decodes all control messages that arrive.  Returns a Message, which owns\n"
"its descriptors.\n\n"
"Read a socket that carries descriptors only by these calls: recv(), read() and asyncio streams\n"
"provide no control buffer, so the kernel silently drops the descriptors.\n\n"
"Surplus descriptors are closed and counted.  Raises ControlTruncatedError (FdLimitError) if\n"
"some of the requested descriptors are missing, and DataTruncatedError if a datagram was\n"
"truncated; on_truncation='keep' returns the message instead.  Raises ValueError for MSG_PEEK\n"
"with descriptors, and NotSupportedError for `fds` below MAX_FDS (which accepts as many as can\n"
"arrive) with a socket object that is not AF_UNIX.  With close='background' the background\n"
"closer closes the descriptors that are not taken.");

PyDoc_STRVAR(align_doc,
"CMSG_ALIGN(length, /)\n--\n\n"
"Rounds `length` up to the alignment of control messages, in bytes: cmsg(3).");

PyDoc_STRVAR(len_doc,
"CMSG_LEN(length, /)\n--\n\n"
"The cmsg_len of a control message with `length` bytes of data, without the padding after them:\n"
"cmsg(3).");

PyDoc_STRVAR(space_doc,
"CMSG_SPACE(length, /)\n--\n\n"
"The number of bytes that a control message with `length` bytes of data occupies, including\n"
"padding: cmsg(3).  Where the alignment is 8, a control buffer of CMSG_SPACE(4) bytes lets two\n"
"descriptors in: see recv_fds().");

PyDoc_STRVAR(build_doc,
"build(control, /)\n--\n\n"
"A control buffer, as bytes, built from one typed control message, or from an iterable of them\n"
"and of (level, type, data) tuples.");

PyDoc_STRVAR(read_header_doc,
"read_header(buffer, offset, /)\n--\n\n"
"The control message at `offset`: (level, type, cmsg_len, start and end of the data, offset of\n"
"the next header, whether cmsg_len is valid), or None after the last one.");

PyDoc_STRVAR(getsockopt_doc,
"getsockopt(sock, level, name, size, /)\n--\n\n"
"The value of a socket option, as bytes: getsockopt(2).");

PyDoc_STRVAR(setsockopt_doc,
"setsockopt(sock, level, name, value, /)\n--\n\n"
"Sets a socket option from bytes: setsockopt(2).");

PyDoc_STRVAR(getsockopt_pidfd_doc,
"getsockopt_pidfd(sock, level, name, /)\n--\n\n"
"The value of a socket option that returns a new pidfd, as a PidFd that owns it.");

PyDoc_STRVAR(memfd_create_doc,
"memfd_create(name, flags, /)\n--\n\n"
"A new memfd, as an Fd that owns it.  Raises OSError (ENOSYS) if this system lacks\n"
"memfd_create(2).");

PyDoc_STRVAR(close_each_doc,
"close_each(numbers, /)\n--\n\n"
"Closes each non-negative descriptor in a buffer of C ints, even if another close(2) fails.");

PyDoc_STRVAR(own_result_doc,
"own_result(type, function, /)\n--\n\n"
"Calls `function`, which returns a descriptor that the caller must own, alone or as the first\n"
"item of a tuple.  Returns (owner, result).  The owner, an FdBase of the given type, is created\n"
"first: nothing can fail and no signal handler can run between the return of the function and\n"
"the moment at which the owner has the descriptor.");

PyDoc_STRVAR(give_to_socket_doc,
"give_to_socket(fd, sock, family, type, proto, is_blocking, /)\n--\n\n"
"Makes `sock`, a socket object that is not initialised yet, the owner of the descriptor of `fd`,\n"
"in one step.  If the constructor fails, `fd` still owns it.\n\n"
"SOCK_NONBLOCK in `type` keeps the constructor from changing the flags of the open file\n"
"description.  If `is_blocking` is true, `sock` has no timeout nevertheless, provided that the\n"
"offset of the timeout in the socket object of this Python is known.");

PyDoc_STRVAR(getfamily_doc,
"getfamily(sock, /)\n--\n\n"
"The address family (AF_*) of the socket, as the kernel reports it.");

PyDoc_STRVAR(getpeer_doc,
"getpeer(sock, /)\n--\n\n"
"The credentials of the process that connected to an AF_UNIX socket, as bytes (pid, uid, gid):\n"
"unix(7).");

PyDoc_STRVAR(closer_submit_doc,
"closer_submit(descriptor, /)\n--\n\n"
"Hands an Fd, a socket object or a descriptor number over to the background closer.");

PyDoc_STRVAR(closer_wait_doc,
"closer_wait(seconds, /)\n--\n\n"
"Waits at most `seconds`, or without a limit if None, until the background closer has closed\n"
"everything.  Returns how many descriptors are left.");

PyDoc_STRVAR(closer_counts_doc,
"closer_counts()\n--\n\n"
"For tests: the number of descriptors that are waiting to be closed, and the number of places\n"
"that are reserved or in use.");

PyDoc_STRVAR(closer_resume_doc,
"closer_resume()\n--\n\n"
"In the child of a fork: lets the closers of all interpreters continue.");

PyDoc_STRVAR(wait_for_doc,
"wait_for(sock, events, timeout, rounds, /)\n--\n\n"
"Waits at most `timeout` seconds until poll(2) reports one of `events`, or an error.  Returns\n"
"(the reported events, 0 after a timeout or a signal; `rounds` for the next call).  `rounds`, 0\n"
"for the first call, counts how many times in a row poll(2) returned without waiting.  If that\n"
"repeats, the call sleeps, for at most 10 ms.");

PyDoc_STRVAR(raw_address_doc,
"raw_address(name, /)\n--\n\n"
"The raw form of Address for the bytes of a struct sockaddr; None if they contain no family.");

PyDoc_STRVAR(borrow_doc,
"borrow(sock, /)\n--\n\n"
"The descriptor number of a `sock` argument, for use in system calls, as a context manager.  No\n"
"close() of an Fd takes effect before the `with` block ends.  Raises OSError (EBADF) if the\n"
"descriptor is closed.");

PyDoc_STRVAR(pidfd_pid_doc,
"pidfd_pid(number, /)\n--\n\n"
"The pid, in this pid namespace, of the process that a pidfd refers to; 0 if that process was\n"
"reaped or is not visible here; None if this kernel does not report it, or the descriptor is not\n"
"a pidfd: PIDFD_GET_INFO, Linux 6.13.");

PyDoc_STRVAR(generation_doc,
"generation()\n--\n\n"
"A number that differs between the parent and each child of a fork.  A pid does not: the child\n"
"can have the same one in a pid namespace of its own.");

PyDoc_STRVAR(note_used_up_doc,
"note_used_up(error, /, **arguments)\n--\n\n"
"Adds a note to an OSError that names the arguments which were iterators, because repeating the\n"
"call would send nothing from them.");

PyDoc_STRVAR(as_messages_doc,
"as_messages(messages, /)\n--\n\n"
"The messages of an argument of send_batch() as a tuple.");

PyDoc_STRVAR(listed_fds_doc,
"listed_fds(fds, /)\n--\n\n"
"The descriptors in the `fds` argument of a sending call, as a tuple.  A single object with\n"
"fileno() is one descriptor, and is not iterated.  Raises TypeError for a single int, and for\n"
"bytes.");

PyDoc_STRVAR(with_lock_doc,
"with_lock(lock, function, /)\n--\n\n"
"Calls the function while holding the lock, and always releases the lock.  A `with` statement\n"
"does not if a signal handler raises right after __enter__(), which is possible since 3.14.");

PyDoc_STRVAR(call_foreign_doc,
"call_foreign(name, sock, /, *args)\n--\n\n"
"Calls the method of that name that `sock` defines itself.  Raises TypeError if it is a\n"
"coroutine.  Adds a note to a RecursionError that explains how it comes about.");

PyDoc_STRVAR(check_socket_doc,
"check_socket(sock, /)\n--\n\n"
"Raises TypeError if a typed call would refuse to send or receive through `sock`.  Returns\n"
"whether it is a cmsgx.socket derived from a green class, for which C must not wait.");

PyDoc_STRVAR(bind_doc,
"bind(*, Fd, PidFd, Rights, Credentials, Unknown, IPAddress, Outgoing, BatchResult, socket_class, "
"our_socket, TooManyFdsError, MalformedControlError, NotSupportedError, decode, raise_truncated, "
"recvmsg_foreign, recv_fds_through, refusal, family_name, note_needs, not_a_kind)\n--\n\n"
"Gives C all the objects that it needs from the Python layer, once.  Raises TypeError that names\n"
"an argument that is missing, unknown or of the wrong type; then nothing is bound.");

/* Small functions that belong nowhere else ------------------------------------------------- */

static PyObject *
pidfd_pid(PyObject *Py_UNUSED(module), PyObject *number)
{
    int pidfd;
    if (cmsgx_as_int(number, "number", &pidfd) < 0) {
        return NULL;
    }
    pid_t pid = cmsgx_pid_of(pidfd);
    return pid < 0 ? Py_NewRef(Py_None) : PyLong_FromLong(pid);
}

static PyObject *
generation(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromUnsignedLong(cmsgx_generation());
}

PyDoc_STRVAR(set_overflow_ids_doc,
"set_overflow_ids(uid, gid, /)\n--\n\n"
"Sets the uid and gid that stand for ids without a mapping in this user namespace.");

static PyObject *
set_overflow_ids(PyObject *module, PyObject *args)
{
    unsigned int uid, gid;
    if (!PyArg_ParseTuple(args, "II:set_overflow_ids", &uid, &gid)) {
        return NULL;
    }
    cmsgx_state *state = cmsgx_state_of(module);
    state->overflow_ids[0] = uid;
    state->overflow_ids[1] = gid;
    Py_RETURN_NONE;
}

/* The module ------------------------------------------------------------------------------- */

static PyMethodDef methods[] = {
    {"sendmsg", FAST(cmsgx_sendmsg), METH_FASTCALL, sendmsg_doc},
    {"recvmsg", FAST(cmsgx_recvmsg), METH_FASTCALL, recvmsg_doc},
    {"recvmsg_into", FAST(cmsgx_recvmsg_into), METH_FASTCALL, recvmsg_into_doc},
    {"recvmsg_inheritable", FAST(cmsgx_recvmsg_inheritable), METH_FASTCALL,
     recvmsg_inheritable_doc},
    {"recvmsg_into_inheritable", FAST(cmsgx_recvmsg_into_inheritable), METH_FASTCALL,
     recvmsg_into_inheritable_doc},
    {"send_fds", FAST(cmsgx_send_fds), METH_FASTCALL | METH_KEYWORDS, send_fds_doc},
    {"recv_fds", FAST(cmsgx_recv_fds), METH_FASTCALL | METH_KEYWORDS, recv_fds_doc},
    {"send", FAST(cmsgx_send), METH_FASTCALL | METH_KEYWORDS, send_doc},
    {"try_send", FAST(cmsgx_try_send), METH_FASTCALL | METH_KEYWORDS, try_send_doc},
    {"send_or_prepare", FAST(cmsgx_send_or_prepare), METH_FASTCALL | METH_KEYWORDS,
     send_or_prepare_doc},
    {"send_batch", FAST(cmsgx_send_batch), METH_FASTCALL | METH_KEYWORDS, send_batch_doc},
    {"send_tracked", FAST(cmsgx_send_tracked), METH_FASTCALL | METH_KEYWORDS, send_tracked_doc},
    {"send_batch_tracked", FAST(cmsgx_send_batch_tracked), METH_FASTCALL | METH_KEYWORDS,
     send_batch_tracked_doc},
    {"try_send_batch", FAST(cmsgx_try_send_batch), METH_FASTCALL | METH_KEYWORDS,
     try_send_batch_doc},
    {"receive", FAST(cmsgx_receive_once), METH_FASTCALL | METH_KEYWORDS, receive_doc},
    {"CMSG_ALIGN", cmsgx_cmsg_align, METH_O, align_doc},
    {"CMSG_LEN", cmsgx_cmsg_len, METH_O, len_doc},
    {"CMSG_SPACE", cmsgx_cmsg_space, METH_O, space_doc},
    {"build", cmsgx_build, METH_O, build_doc},
    {"read_header", FAST(cmsgx_read_header), METH_FASTCALL, read_header_doc},
    {"getsockopt", cmsgx_getsockopt, METH_VARARGS, getsockopt_doc},
    {"setsockopt", cmsgx_setsockopt, METH_VARARGS, setsockopt_doc},
    {"getsockopt_pidfd", cmsgx_getsockopt_pidfd, METH_VARARGS, getsockopt_pidfd_doc},
    {"memfd_create", cmsgx_memfd_create, METH_VARARGS, memfd_create_doc},
    {"close_each", cmsgx_close_each, METH_O, close_each_doc},
    {"own_result", cmsgx_own_result, METH_VARARGS, own_result_doc},
    {"give_to_socket", cmsgx_give_to_socket, METH_VARARGS, give_to_socket_doc},
    {"getfamily", cmsgx_getfamily, METH_O, getfamily_doc},
    {"getpeer", cmsgx_getpeer, METH_O, getpeer_doc},
    {"closer_submit", cmsgx_closer_submit, METH_O, closer_submit_doc},
    {"closer_wait", cmsgx_closer_wait_for, METH_O, closer_wait_doc},
    {"closer_counts", cmsgx_closer_counts, METH_NOARGS, closer_counts_doc},
    {"closer_resume", cmsgx_closer_resume_all, METH_NOARGS, closer_resume_doc},
    {"wait_for", cmsgx_wait_for_object, METH_VARARGS, wait_for_doc},
    {"borrow", cmsgx_pin_of, METH_O, borrow_doc},
    {"raw_address", cmsgx_raw_address, METH_O, raw_address_doc},
    {"pidfd_pid", pidfd_pid, METH_O, pidfd_pid_doc},
    {"generation", generation, METH_NOARGS, generation_doc},
    {"note_used_up", (PyCFunction)(void (*)(void))cmsgx_note_used_up_of,
     METH_VARARGS | METH_KEYWORDS, note_used_up_doc},
    {"as_messages", cmsgx_as_messages_of, METH_O, as_messages_doc},
    {"listed_fds", cmsgx_listed_fds_of, METH_O, listed_fds_doc},
    {"with_lock", cmsgx_with_lock, METH_VARARGS, with_lock_doc},
    {"call_foreign", FAST(cmsgx_call_foreign_from), METH_FASTCALL, call_foreign_doc},
    {"check_socket", cmsgx_check_socket, METH_O, check_socket_doc},
    {"set_overflow_ids", set_overflow_ids, METH_VARARGS, set_overflow_ids_doc},
    {"bind", FAST(cmsgx_bind), METH_FASTCALL | METH_KEYWORDS, bind_doc},
    {NULL, NULL, 0, NULL},
};

static int
add_names(cmsgx_state *state)
{
    const struct {
        PyObject **slot;
        const char *text;
    } names[] = {
        {&state->stdlib_methods[CMSGX_SENDMSG].name, "sendmsg"},
        {&state->stdlib_methods[CMSGX_RECVMSG].name, "recvmsg"},
        {&state->stdlib_methods[CMSGX_RECVMSG_INTO].name, "recvmsg_into"},
        {&state->stdlib_methods[CMSGX_SEND].name, "send"},
        {&state->stdlib_methods[CMSGX_RECV].name, "recv"},
        {&state->str_codec, "_codec"},
        {&state->str_pack, "pack"},
        {&state->str_level, "level"},
        {&state->str_type, "type"},
        {&state->str_trsock, "asyncio.trsock"},
        {&state->str_fileno, "fileno"},
        {&state->keywords[CMSGX_KW_SOCK], "sock"},
        {&state->keywords[CMSGX_KW_BUFFERS], "buffers"},
        {&state->keywords[CMSGX_KW_DATA], "data"},
        {&state->keywords[CMSGX_KW_FDS], "fds"},
        {&state->keywords[CMSGX_KW_CONTROL], "control"},
        {&state->keywords[CMSGX_KW_FLAGS], "flags"},
        {&state->keywords[CMSGX_KW_ADDRESS], "address"},
        {&state->keywords[CMSGX_KW_TIMEOUT], "timeout"},
        {&state->keywords[CMSGX_KW_BUFSIZE], "bufsize"},
        {&state->keywords[CMSGX_KW_FD_CLASS], "fd_class"},
        {&state->keywords[CMSGX_KW_MAXFDS], "maxfds"},
        {&state->keywords[CMSGX_KW_CLOEXEC], "cloexec"},
        {&state->keywords[CMSGX_KW_ON_TRUNCATION], "on_truncation"},
        {&state->keywords[CMSGX_KW_MESSAGES], "messages"},
        {&state->keywords[CMSGX_KW_CLOSE], "close"},
        {&state->keywords[CMSGX_KW_NOW], "now"},
        {&state->keywords[CMSGX_KW_ON_ERROR], "on_error"},
        {&state->keywords[CMSGX_KW_MESSAGE], "message"},
        {&state->keywords[CMSGX_KW_BATCH], "batch"},
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if ((*names[i].slot = PyUnicode_InternFromString(names[i].text)) == NULL) {
            return -1;
        }
    }
    return 0;
}

/* Adds the types and constants of each file to the module: a base before the types that derive from
   it. */
static int (*const adders[])(PyObject *) = {
    cmsgx_add_unbound, cmsgx_add_socket_object, cmsgx_add_method, cmsgx_add_fd, cmsgx_add_pin,
    cmsgx_add_view, cmsgx_add_buffer, cmsgx_add_address, cmsgx_add_address_tuple, cmsgx_add_record,
    cmsgx_add_struct, cmsgx_add_ip, cmsgx_add_field, cmsgx_add_codec, cmsgx_add_message_fds,
    cmsgx_add_message, cmsgx_add_receive_config, cmsgx_add_receiver, cmsgx_add_batch,
    cmsgx_add_batch_receiver, cmsgx_add_prepared_send, cmsgx_add_options, cmsgx_add_segments,
    cmsgx_add_numbers, cmsgx_add_structs,
};

static int
module_exec(PyObject *module)
{
    cmsgx_state *state = cmsgx_state_of(module);
    if ((errno = cmsgx_process_watch()) != 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if ((state->closer = cmsgx_closer_new()) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (add_names(state) < 0) {
        return -1;
    }
    for (size_t i = 0; i < sizeof(adders) / sizeof(*adders); i++) {
        if (adders[i](module) < 0) {
            return -1;
        }
    }
    return 0;
}

/* All objects that the state owns. */
#define EACH_OBJECT(DO) \
    DO(Method) DO(FdBase) DO(Pin) DO(MessageFds) DO(View) DO(Into) DO(Address) \
    DO(RawAddress) DO(AddressTuple) DO(Record) DO(Struct) DO(Field) DO(Codec) DO(IPAddress) \
    DO(Message) DO(Options) DO(ReceiveConfig) DO(Receiver) DO(Batch) \
    DO(BatchReceiver) DO(PreparedSend) DO(Segments) DO(SegmentIterator) DO(Fd) DO(PidFd) \
    DO(Rights) DO(Credentials) DO(Unknown) DO(Outgoing) \
    DO(decode) DO(raise_truncated) DO(recvmsg_foreign) DO(recv_fds_through) DO(refusal) \
    DO(family_name) DO(note_needs) DO(not_a_kind) DO(BatchResult) DO(TooManyFdsError) \
    DO(MalformedControlError) DO(NotSupportedError) DO(socket) DO(socket_class) \
    DO(our_socket) DO(str_codec) DO(str_pack) DO(str_level) DO(str_type) DO(str_trsock) \
    DO(str_fileno)

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    cmsgx_state *state = cmsgx_state_of(module);
#define VISIT(name) Py_VISIT(state->name);
    EACH_OBJECT(VISIT)
#undef VISIT
    for (int i = 0; i < CMSGX_NAMES; i++) {
        Py_VISIT(state->stdlib_methods[i].name);
        Py_VISIT(state->stdlib_methods[i].method);
    }
    return 0;
}

static int
module_clear(PyObject *module)
{
    cmsgx_state *state = cmsgx_state_of(module);
    /* While their types still exist, which describe their memory layout. */
    cmsgx_message_free_all(state);
    cmsgx_view_free_all(state);
    cmsgx_message_fds_free_all(state);
    cmsgx_address_free_all(state);
    cmsgx_receive_config_free_all(state);
    cmsgx_buffer_free_all(state);
#define CLEAR(name) Py_CLEAR(state->name);
    EACH_OBJECT(CLEAR)
#undef CLEAR
    for (int i = 0; i < CMSGX_NAMES; i++) {
        Py_CLEAR(state->stdlib_methods[i].name);
        Py_CLEAR(state->stdlib_methods[i].method);
    }
    for (int i = 0; i < CMSGX_KEYWORDS; i++) {
        Py_CLEAR(state->keywords[i]);
    }
    return 0;
}

static void
module_free(void *module)
{
    cmsgx_state *state = cmsgx_state_of(module);
    (void)module_clear(module);
    cmsgx_closer_release(state->closer);
    state->closer = NULL;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, module_exec},
    CMSGX_SLOT_INTERPRETERS
    CMSGX_SLOT_GIL
    {0, NULL},
};

PyModuleDef cmsgx_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "cmsgx._cmsg",
    .m_doc = "The C half of cmsgx: system calls, ownership of descriptors, decoding.",
    .m_size = sizeof(cmsgx_state),
    .m_methods = methods,
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__cmsg(void)
{
    return PyModuleDef_Init(&cmsgx_module);
}
