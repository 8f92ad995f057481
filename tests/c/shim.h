/* What both halves of the shim need: see shim.c. */

#ifndef CMSGX_TESTS_SHIM_H
#define CMSGX_TESTS_SHIM_H

#include "preload.h"

/* For the test. */
PUBLIC void shim_mode(const char *value);
PUBLIC void shim_seed(uint64_t value);
PUBLIC void shim_guard(int on);
PUBLIC void shim_interrupt(int count);
PUBLIC void shim_delay_send(int milliseconds);
PUBLIC int shim_is_sending(void);
PUBLIC void shim_at(int index);
PUBLIC void shim_hang_up(int fd);
PUBLIC void shim_send_max(unsigned count);
PUBLIC void shim_fail_send(long after, int error);
PUBLIC void shim_fail_sends(long after, int error, int times);
PUBLIC void shim_refuse_segments(int error);
PUBLIC void shim_refuse_segments_after(long after, int error);
PUBLIC long shim_refusals(void);
PUBLIC void shim_option_length(int length);
PUBLIC long shim_closes(int fd);
PUBLIC long shim_dirty(void);
PUBLIC long shim_strangers(void);
PUBLIC long shim_receives(void);
PUBLIC long shim_polls(void);
PUBLIC long shim_delivered(void);
PUBLIC int shim_is_delivered(int fd);
PUBLIC long shim_leaked(void);
PUBLIC void shim_forget(void);
PUBLIC void shim_reset(void);
PUBLIC long shim_captured(unsigned char *out, size_t size);

/* Between them: whether a length lies and yet fits, so that nobody can tell what it covers; and the
   end of what shim_reset() does. */
int shim_is_deceptive(void);
void shim_reset_received(void);

#endif
