/* Control messages of an outgoing message, typed ones and tuples. */

#ifndef CMSGX_OUTGOING_CONTROL_H
#define CMSGX_OUTGOING_CONTROL_H

#include "calls/outgoing.h"

#define CMSGX_NEEDED_CONTROL "a control message, or an iterable of them,"

/* After the address, as that has a say in the form that a typed one goes in, and whether it goes at
   all: route.h. */

/* `control`: one typed control message, or an iterable of typed ones and (level, type, data).
   Their descriptors join the others, and are not put.  0, or -1 with an exception. */
int cmsgx_outgoing_add_control(cmsgx_outgoing *out, PyObject *control);

/* The same as sendmsg() takes them: an iterable, which is called `name`.  All descriptors are put.
   1 where there are typed ones among them, 0, or -1 with an exception. */
int cmsgx_outgoing_add_ancdata(cmsgx_outgoing *out, PyObject *ancdata, const char *name);

/* The control data as a list of (level, type, data): a new reference, or NULL. */
PyObject *cmsgx_outgoing_tuples(const cmsgx_outgoing *out);

#endif
