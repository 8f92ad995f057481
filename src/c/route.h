/* Which way a message goes, and what of its control data goes that way: a kernel drops without an
   error what the protocol of the packet does not read. */

#ifndef CMSGX_ROUTE_H
#define CMSGX_ROUTE_H

#include "codec.h"
#include "outgoing.h"

/* The form in which a record of that codec goes where `out` goes.  NULL with an exception where it
   goes there in none: NotSupportedError, or ValueError for what a kernel only delivers.  After the
   address.  Where `out` has no socket, the first that is sent, or is there at all. */
const cmsgx_form *cmsgx_route_form(cmsgx_outgoing *out, const cmsgx_codec *codec,
                                   PyObject *record);

/* The same for one that packs itself: 0, or -1 with an exception.  What no form of its codec has
   goes as it is. */
int cmsgx_route_packed(cmsgx_outgoing *out, const cmsgx_codec *codec, PyObject *record, int level,
                       int type);

/* The control data as a list of (level, type, data): a new reference, or NULL. */
PyObject *cmsgx_route_tuples(const cmsgx_outgoing *out);

/* Adds to the exception that is being raised what each of its control messages needs, where `error`
   may be about them. */
void cmsgx_route_note(const cmsgx_outgoing *out, int error);

#endif
