/* cmsgx._cmsg: the front door.  What each function does is in c/, beside this file. */

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
#include "calls/overrides.h"
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
"Sends data and control messages as socket.sendmsg() does: sendmsg(2), or, for one buffer and\n"
"nothing else, send(2), which strace and seccomp call sendto.  Returns the number of bytes\n"
"sent.\n\n"
"`sock` is a socket, an Fd, an int, or an object with fileno(); only a socket has a timeout to\n"
"wait for.  `buffers` is an iterable of bytes-like objects, `ancdata` an iterable of (level,\n"
"type, data) and of typed control messages.  Descriptors are borrowed: the caller still owns\n"
"them, and an Fd among them stays open during the system call.  Raises what socket.sendmsg()\n"
"raises.");

PyDoc_STRVAR(recvmsg_doc,
"recvmsg(sock, bufsize, ancbufsize=0, flags=0, /)\n--\n\n"
"Receives `bufsize` bytes at most, and control messages into `ancbufsize` bytes, as\n"
"socket.recvmsg() does: recvmsg(2).  Returns (data, ancdata, msg_flags, address).\n\n"
"Descriptors in `ancdata` are close-on-exec, and the caller owns them at once as plain numbers:\n"
"what raises before it closes them (a signal handler, say) leaks them.  receive() has no such\n"
"gap.  Never raises for MSG_CTRUNC: test msg_flags.");

PyDoc_STRVAR(recvmsg_into_doc,
"recvmsg_into(sock, buffers, ancbufsize=0, flags=0, /)\n--\n\n"
"As recvmsg(), into an iterable of writable buffers.  Returns (nbytes, ancdata, msg_flags,\n"
"address).");

PyDoc_STRVAR(recvmsg_inheritable_doc,
"recvmsg_inheritable(sock, bufsize, ancbufsize=0, flags=0, /)\n--\n\n"
"recvmsg() that leaves received descriptors inheritable, as the socket module does.");

PyDoc_STRVAR(recvmsg_into_inheritable_doc,
"recvmsg_into_inheritable(sock, buffers, ancbufsize=0, flags=0, /)\n--\n\n"
"recvmsg_into() that leaves received descriptors inheritable, as the socket module does.");

PyDoc_STRVAR(send_fds_doc,
"send_fds(sock, buffers, fds, flags=0, address=None)\n--\n\n"
"Sends descriptors with the bytes of `buffers`: SCM_RIGHTS, unix(7).  Returns the number of\n"
"bytes sent.  `fds` is an iterable of ints, Fds and objects with fileno(), or one Fd or object\n"
"with fileno(); they are borrowed: the caller still owns them.\n"
"Unlike socket.send_fds(), `flags` and `address` are honoured.");

PyDoc_STRVAR(recv_fds_doc,
"recv_fds(sock, bufsize, maxfds, flags=0, *, cloexec=True)\n--\n\n"
"Receives `bufsize` bytes and `maxfds` descriptors at most: SCM_RIGHTS, unix(7).  Returns (data,\n"
"list of numbers, msg_flags, address).  The caller owns the numbers; surplus descriptors are\n"
"closed, and MSG_CTRUNC is set.  Room is made for what else is switched on, so that it cannot\n"
"push descriptors out.  Unlike socket.recv_fds(), `flags` is honoured.");

PyDoc_STRVAR(send_doc,
"send(sock, data, *, fds=(), control=(), flags=0, address=None, timeout=...)\n--\n\n"
"Sends one message: sendmsg(2), or, for one buffer and nothing else, send(2), which strace and\n"
"seccomp call sendto.  Returns the number of bytes sent.\n\n"
"`data` is a bytes-like object or an iterable of them.  `fds` is an iterable of descriptors\n"
"(ints, Fds, objects with fileno()), or one Fd or object with fileno(); they are borrowed: the\n"
"caller still owns them.  `control` is one typed control message, or an iterable of them and of\n"
"(level, type, data).  `timeout` is in seconds, None for no limit; by default it is the\n"
"socket's own.  `address` is an Address, or what the socket module takes; a host name, which is\n"
"resolved first, only with a socket object.  Never raises SIGPIPE.\n\n"
"Raises TooManyFdsError for more than 253 descriptors; NotSupportedError for descriptors over\n"
"a family other than AF_UNIX, and for a typed control message that the kernel would silently\n"
"drop; ValueError for descriptors without data on a stream, and for a value that can only be\n"
"received; OSError (EBADF) that names a descriptor which is not open, and what the kernel\n"
"reports: EINVAL and EPERM with a note that says what each control message needs.");

PyDoc_STRVAR(send_batch_doc,
"send_batch(sock, messages, *, flags=0, timeout=..., on_error='raise')\n--\n\n"
"Sends many messages with few system calls: sendmmsg(2).\n\n"
"Each message is (data, fds, control, address), of which all but the data may be left out, or an\n"
"Outgoing, or just data; each part is as for send().  Returns how many messages were sent,\n"
"counted from the first.  The call stops at the first message that fails, and raises only if\n"
"that is the very first one, so the rest can be given to the next call.  `timeout` is for the\n"
"whole call.  All descriptors are borrowed: the caller still owns them, sent or not.  An\n"
"exception of other code, such as an iterator in a message or a fileno(), is raised after the\n"
"messages before it have been sent.\n\n"
"On a stream, part of a message may be sent first; the rest follows without the descriptors.\n"
"If that fails, or a signal handler raises, so does the call.  Each exception, except those\n"
"about the arguments, has `sent`, the number of whole messages sent, and `sent_bytes`, the\n"
"number of bytes sent of the next one; if that is not 0, its descriptors were sent as well.\n\n"
"on_error='skip' skips each message that the kernel refuses, and returns a BatchResult: an int,\n"
"how many were sent, with `skipped`, an (index, OSError) for each of the others, and `done`, the\n"
"number of both.  An error that may have been pending, such as an ICMP error about an earlier\n"
"packet, counts only if the same message fails again.  An error that is not about one message (a\n"
"closed socket or descriptor, the end of a connection, no memory, no room in time) ends the call\n"
"as without on_error, and so does a message that cannot even be made; that exception has\n"
"`skipped` as well.");

PyDoc_STRVAR(send_tracked_doc,
"send_tracked(progress, sock, data, /, *, fds=(), control=(), flags=0, address=None, "
"timeout=...)\n--\n\n"
"send(), which adds the number of bytes sent to the one in `progress`, a list of one int, before\n"
"a signal handler can run.  Returns None, or the OSError of the system call: so an exception that\n"
"it raises comes from elsewhere, whatever its errno.");

PyDoc_STRVAR(send_batch_tracked_doc,
"send_batch_tracked(progress, sock, messages, /, *, flags=0, timeout=...)\n--\n\n"
"As send_tracked(), for send_batch(): adds the number of messages sent, also if it raises.  An\n"
"error after part of a message was sent on a stream is raised.");

PyDoc_STRVAR(receive_doc,
"receive(sock, bufsize, *, fds=0, flags=0, timeout=..., on_truncation='raise', close='now')\n--\n\n"
"Receives one message of `bufsize` bytes and `fds` descriptors at most: recvmsg(2).  Sets no\n"
"option of the socket, and decodes what comes.  Returns a Message, which owns its descriptors.\n\n"
"Read a socket that carries descriptors by these calls only: recv(), read() and the streams of\n"
"asyncio make no room for them, and the kernel drops them without a sign.\n\n"
"Surplus descriptors are closed and counted.  Raises ControlTruncatedError (FdLimitError) where\n"
"some that were asked for are missing, and DataTruncatedError where a datagram was cut;\n"
"on_truncation='keep' returns the message instead.  ValueError for MSG_PEEK with descriptors;\n"
"NotSupportedError for `fds` of a socket object that is not AF_UNIX, below MAX_FDS (as many as\n"
"can come).  close='background' has what is not taken closed by the background closer.");

PyDoc_STRVAR(align_doc,
"CMSG_ALIGN(length, /)\n--\n\n"
"`length` bytes rounded up to the alignment of control messages: cmsg(3).");

PyDoc_STRVAR(len_doc,
"CMSG_LEN(length, /)\n--\n\n"
"What cmsg_len is for `length` bytes of data, without the padding behind: cmsg(3).");

PyDoc_STRVAR(space_doc,
"CMSG_SPACE(length, /)\n--\n\n"
"The bytes that a control message with `length` bytes of data takes, padding included: cmsg(3).\n"
"Room of CMSG_SPACE(4) lets two descriptors in where the alignment is 8: see recv_fds().");

PyDoc_STRVAR(build_doc,
"build(control, /)\n--\n\n"
"A control buffer, as bytes, from one typed control message, or an iterable of them and of\n"
"(level, type, data).");

PyDoc_STRVAR(read_header_doc,
"read_header(buffer, offset, /)\n--\n\n"
"The control message at `offset`: (level, type, cmsg_len, start, end, next, fits), or None after\n"
"the last.");

PyDoc_STRVAR(getsockopt_doc,
"getsockopt(sock, level, name, size, /)\n--\n\n"
"The value of a socket option, as bytes: getsockopt(2).");

PyDoc_STRVAR(setsockopt_doc,
"setsockopt(sock, level, name, value, /)\n--\n\n"
"Sets a socket option from bytes: setsockopt(2).");

PyDoc_STRVAR(getsockopt_pidfd_doc,
"getsockopt_pidfd(sock, level, name, /)\n--\n\n"
"A socket option whose value is a new pidfd: the PidFd that owns it.");

PyDoc_STRVAR(memfd_create_doc,
"memfd_create(name, flags, /)\n--\n\n"
"A new memfd: the Fd that owns it.  OSError ENOSYS if this system has no memfd.");

PyDoc_STRVAR(close_each_doc,
"close_each(numbers, /)\n--\n\n"
"Closes each descriptor in a buffer of C ints that is not negative, even if another close(2)\n"
"fails.");

PyDoc_STRVAR(own_result_doc,
"own_result(type, function, /)\n--\n\n"
"(owner, result) of a function that gives a descriptor away, as its result or as the first item\n"
"of a tuple.  The owner, an FdBase of that type, is made first: nothing can fail, and no\n"
"signal handler runs, between the function's return and the owner.");

PyDoc_STRVAR(give_to_socket_doc,
"give_to_socket(fd, sock, family, type, proto, is_blocking, /)\n--\n\n"
"Makes `sock`, a socket object that was not initialised, the owner of the descriptor of `fd`, in\n"
"one step; if the constructor fails, `fd` owns it as before.\n\n"
"SOCK_NONBLOCK in `type` keeps the constructor from changing the flags of the open file\n"
"description.  If `is_blocking` is true, `sock` has no timeout all the same, provided that this\n"
"Python keeps the timeout in a known place.");

PyDoc_STRVAR(getfamily_doc,
"getfamily(sock, /)\n--\n\n"
"AF_* of the socket, asked of the kernel.");

PyDoc_STRVAR(getpeer_doc,
"getpeer(sock, /)\n--\n\n"
"Who connected to an AF_UNIX socket, as bytes: pid, uid, gid.  unix(7)");

PyDoc_STRVAR(closer_submit_doc,
"closer_submit(descriptor, /)\n--\n\n"
"Hands an Fd, a socket object or a number to the background closer.");

PyDoc_STRVAR(closer_wait_doc,
"closer_wait(seconds, /)\n--\n\n"
"Waits until the background closer has closed everything, at most `seconds`, or without a limit\n"
"for None.  Returns how many descriptors are left.");

PyDoc_STRVAR(closer_counts_doc,
"closer_counts()\n--\n\n"
"For tests: how many descriptors are to be closed, and how many places are reserved or taken.");

PyDoc_STRVAR(closer_resume_doc,
"closer_resume()\n--\n\n"
"In the child of a fork: lets the closers of all interpreters go on.");

PyDoc_STRVAR(wait_for_doc,
"wait_for(sock, events, timeout, rounds, /)\n--\n\n"
"Waits, at most `timeout` seconds, until poll(2) reports one of `events`, or an error.  Returns\n"
"(what it reports, 0 if time is up or a signal came; `rounds` for the next call).  `rounds`, 0\n"
"for the first call, counts how often in a row poll(2) did not wait: it then sleeps, at most\n"
"10 ms.");

PyDoc_STRVAR(raw_address_doc,
"raw_address(name, /)\n--\n\n"
"The raw form of Address for a struct sockaddr in bytes; None where it has no family.");

PyDoc_STRVAR(borrow_doc,
"borrow(sock, /)\n--\n\n"
"The number of a `sock` argument for system calls, as a context manager, before the end of which\n"
"no close() of an Fd takes effect.  OSError EBADF if it is closed.");

PyDoc_STRVAR(pidfd_pid_doc,
"pidfd_pid(number, /)\n--\n\n"
"The pid here of what a pidfd names, 0 where it was reaped or is not visible here; None where\n"
"this kernel does not tell, or it is not a pidfd: PIDFD_GET_INFO, Linux 6.13.");

PyDoc_STRVAR(generation_doc,
"generation()\n--\n\n"
"A number that is another in each child of a fork than in its parent, unlike a pid, which can be\n"
"the same in a pid namespace of its own.");

PyDoc_STRVAR(note_used_up_doc,
"note_used_up(error, /, **arguments)\n--\n\n"
"Adds a note to an OSError that names the arguments which were iterators, because repeating the\n"
"call would send nothing from them.");

PyDoc_STRVAR(listed_fds_doc,
"listed_fds(fds, /)\n--\n\n"
"The descriptors that `fds` of a sending call stands for, as a tuple: one object with fileno() is\n"
"one descriptor, and is not iterated.  TypeError for a single int, and for bytes.");

PyDoc_STRVAR(with_lock_doc,
"with_lock(lock, function, /)\n--\n\n"
"Calls the function while it holds the lock, and releases the lock whatever happens.  A `with`\n"
"does not if a signal handler raises right after __enter__(), where one can run from 3.14 on.");

PyDoc_STRVAR(call_foreign_doc,
"call_foreign(name, sock, /, *args)\n--\n\n"
"Calls the method of that name that `sock` itself has.  TypeError if it is a coroutine; a\n"
"RecursionError gets a note that says how it comes about.");

PyDoc_STRVAR(check_socket_doc,
"check_socket(sock, /)\n--\n\n"
"TypeError if a typed call would refuse to send by `sock`, or to receive from it.  Returns\n"
"whether it is a cmsgx.socket derived from a green class, for which C must not wait.");

PyDoc_STRVAR(bind_doc,
"bind(*, Fd, PidFd, Rights, Credentials, Unknown, IPAddress, Outgoing, BatchResult, socket_class, "
"our_socket, TooManyFdsError, MalformedControlError, NotSupportedError, decode, raise_truncated, "
"recvmsg_foreign, recv_fds_through, refusal, family_name, note_needs, not_a_kind)\n--\n\n"
"Gives C what it takes from the Python layer, all of it, once.  TypeError that names what is\n"
"missing, unknown or not of its sort; then nothing was taken.");

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
"The ids that stand for those that have none in this user namespace.");

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
    {"send_batch", FAST(cmsgx_send_batch), METH_FASTCALL | METH_KEYWORDS, send_batch_doc},
    {"send_tracked", FAST(cmsgx_send_tracked), METH_FASTCALL | METH_KEYWORDS, send_tracked_doc},
    {"send_batch_tracked", FAST(cmsgx_send_batch_tracked), METH_FASTCALL | METH_KEYWORDS,
     send_batch_tracked_doc},
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
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if ((*names[i].slot = PyUnicode_InternFromString(names[i].text)) == NULL) {
            return -1;
        }
    }
    return 0;
}

/* What each file adds to the module: a base before what derives from it. */
static int (*const adders[])(PyObject *) = {
    cmsgx_add_unbound, cmsgx_add_socket_object, cmsgx_add_method, cmsgx_add_fd, cmsgx_add_pin,
    cmsgx_add_view, cmsgx_add_buffer, cmsgx_add_address, cmsgx_add_address_tuple, cmsgx_add_record,
    cmsgx_add_struct, cmsgx_add_ip, cmsgx_add_field, cmsgx_add_codec, cmsgx_add_message_fds,
    cmsgx_add_message, cmsgx_add_receive_config, cmsgx_add_receiver, cmsgx_add_batch,
    cmsgx_add_batch_receiver, cmsgx_add_segments, cmsgx_add_numbers, cmsgx_add_structs,
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

/* Each object that the state owns. */
#define EACH_OBJECT(DO) \
    DO(Method) DO(FdBase) DO(Pin) DO(MessageFds) DO(View) DO(Into) DO(Address) \
    DO(RawAddress) DO(AddressTuple) DO(Record) DO(Struct) DO(Field) DO(Codec) DO(IPAddress) \
    DO(Message) DO(ReceiveConfig) DO(Receiver) DO(Batch) \
    DO(BatchReceiver) DO(Segments) DO(SegmentIterator) DO(Fd) DO(PidFd) DO(Rights) DO(Credentials) \
    DO(Unknown) DO(Outgoing) \
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
    /* As long as there are their types, which tell how they lie in memory. */
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
    .m_doc = "The C half of cmsgx: system calls, ownership, decoding.",
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
