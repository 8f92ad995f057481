/* The control messages of an outgoing message: typed ones, and (level, type, data). */

#ifndef CMSGX_OUTGOING_CONTROL_H
#define CMSGX_OUTGOING_CONTROL_H

#include "calls/outgoing.h"

#define CMSGX_NEEDED_CONTROL "a control message, or an iterable of them,"

/* To be called after the address is set: it decides in which wire format a typed control message is
   sent, and whether it can be sent at all.  See route.h. */

/* The `control` of a typed call: one typed control message, or an iterable of them and of (level,
   type, data).  Their descriptors are only collected.  0, or -1 with an exception. */
int cmsgx_outgoing_add_control(cmsgx_outgoing *out, PyObject *control);

/* The `ancdata` of sendmsg(), or another iterable, which errors call `name`.  Descriptors are
   written as well.  1 if there are typed control messages among them, 0 if not, -1 with an
   exception. */
int cmsgx_outgoing_add_ancdata(cmsgx_outgoing *out, PyObject *ancdata, const char *name);

/* The control data written so far, as a list of (level, type, data): a new reference, or NULL with
   an exception. */
PyObject *cmsgx_outgoing_tuples(const cmsgx_outgoing *out);

#endif
